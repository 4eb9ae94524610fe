/*
 * What the tests of the core share: running a function as the main task of a runtime, with a check that nothing
 * is left behind; counting threads and descriptors; children whose end and whose stderr are looked at. Included
 * once by each test program; cmocka's own checks stay on the main thread, everywhere else `must` ends the
 * process.
 */
#ifndef WEFT_TESTS_SUPPORT_H
#define WEFT_TESTS_SUPPORT_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <weft.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SUPPORT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SUPPORT_SANITIZED 1
#endif
#endif
#if !defined(SUPPORT_SANITIZED)
#define SUPPORT_SANITIZED 0
#endif

/* How many of `n` when everything is some ten times slower: under a sanitizer, or emulated. */
#if SUPPORT_SANITIZED || defined(__aarch64__)
#define FEWER(n) ((n) / 10)
#define SUPPORT_LIMIT 170
#else
#define FEWER(n) (n)
#define SUPPORT_LIMIT 55
#endif

#define UNUSED __attribute__((unused))

/* For code on other stacks and threads, from which cmocka cannot jump back. */
#define must(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

#define must_be(value, expected)                                                                        \
    do {                                                                                                \
        long long is_ = (long long)(value), should_ = (long long)(expected);                            \
        if (is_ != should_) {                                                                           \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #value, is_, should_); \
            abort();                                                                                    \
        }                                                                                               \
    } while (0)

static const uint32_t support_workers[] = {1, 2, 3, 8, 32};
enum { SUPPORT_WORKER_COUNTS = sizeof support_workers / sizeof *support_workers };

/* ---- the process ---- */

static UNUSED void nap(int64_t ns)
{
    struct timespec ts = {ns / 1000000000, ns % 1000000000};

    while (nanosleep(&ts, &ts) < 0)
        must(errno == EINTR);
}

static UNUSED unsigned count_entries(const char *path)
{
    DIR *directory = opendir(path);
    unsigned n = 0;

    must(directory != NULL);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

/* The least of three looks: the monitor may have a file open for a moment, to see whether a thread could run. */
static UNUSED unsigned count_descriptors(void)
{
    unsigned least = count_entries("/proc/self/fd");

    for (int i = 0; i < 2; i++) {
        unsigned count = count_entries("/proc/self/fd");

        least = count < least ? count : least;
    }
    return least;
}

static UNUSED unsigned count_threads(void)
{
    return count_entries("/proc/self/task") - 2;
}

static void *do_nothing(void *arg)
{
    return arg;
}

/* A sanitizer starts a thread of its own with the first one: before any are counted. */
static __attribute__((constructor)) void start_helpers_of_sanitizers(void)
{
    pthread_t thread;

    if (SUPPORT_SANITIZED && pthread_create(&thread, NULL, do_nothing, NULL) == 0)
        pthread_join(thread, NULL);
}

/* Wait until there are no more threads than then. Ends become visible a little after threads were joined, so there
   may be fewer: one that had ended was still seen when it was counted. */
static UNUSED void settle_threads(unsigned before)
{
    for (int i = 0; i < 5000 && count_threads() > before; i++)
        nap(WEFT_MS(1));
    must(count_threads() <= before);
}

/* xorshift64*: the same numbers for the same seed. */
static UNUSED uint64_t draw(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

/* ---- runtimes ---- */

/* Stacks that each thread of a runtime may keep warm. */
enum { SUPPORT_WARM_STACKS = 512 };

/* Wait until no task is left, and no stack but those that the threads keep warm. */
static UNUSED void settle(weft_runtime *runtime)
{
    weft_stats stats;

    for (int i = 0; i < 20000; i++) {
        weft_runtime_stats(runtime, &stats);
        if (stats.live_tasks == 0 &&
            stats.stacks <= (uint64_t)SUPPORT_WARM_STACKS * (weft_runtime_workers(runtime) + stats.spare_threads))
            return;
        nap(WEFT_MS(1));
    }
    fprintf(stderr, "left: %llu tasks, %llu stacks\n", (unsigned long long)stats.live_tasks,
            (unsigned long long)stats.stacks);
    abort();
}

/* Run the function as the main task of a runtime of its own, of which nothing is left afterwards. */
static UNUSED intptr_t run_with(const weft_config *config, weft_fn *fn, void *arg)
{
    unsigned descriptors, threads;
    weft_runtime *runtime;
    intptr_t result;

    threads = count_threads();
    descriptors = count_descriptors();
    must_be(weft_runtime_start(config, &runtime), 0);
    result = weft_runtime_run(runtime, fn, arg);
    settle(runtime);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    must_be(count_descriptors(), descriptors);
    settle_threads(threads);
    return result;
}

/* On one worker that nobody takes over, however slow the machine: what is ready runs in the order it became so. */
static UNUSED intptr_t run_alone(weft_fn *fn, void *arg)
{
    weft_config config = {.workers = 1, .takeover_us = WEFT_NEVER};

    return run_with(&config, fn, arg);
}

static UNUSED intptr_t run_on(uint32_t workers, weft_fn *fn, void *arg)
{
    weft_config config = {.workers = workers};

    return run_with(&config, fn, arg);
}

/* As run_on, for tests with threads of their own, which may end meanwhile. */
static UNUSED intptr_t run_beside_threads(uint32_t workers, weft_fn *fn, void *arg)
{
    weft_config config = {.workers = workers};
    weft_runtime *runtime;
    intptr_t result;

    must_be(weft_runtime_start(&config, &runtime), 0);
    result = weft_runtime_run(runtime, fn, arg);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    return result;
}

/* WEFT_WORKERS for the stress tests, which choose nothing themselves. */
static UNUSED unsigned wanted_workers(void)
{
    weft_config config = WEFT_CONFIG_DEFAULT;

    must_be(weft_config_from_env(&config), 0);
    return config.workers;
}

static UNUSED int64_t wanted_seconds(void)
{
    const char *text = getenv("WEFT_TEST_SECONDS");
    long seconds = text ? strtol(text, NULL, 10) : 2;

    return seconds > 0 ? seconds : 2;
}

static UNUSED uint64_t wanted_seed(void)
{
    const char *text = getenv("WEFT_TEST_SEED");
    struct timespec ts;

    if (text)
        return strtoull(text, NULL, 0) | 1;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (((uint64_t)ts.tv_sec << 20) ^ (uint64_t)ts.tv_nsec ^ ((uint64_t)getpid() << 40)) | 1;
}

/* ---- tasks that only wait ---- */

static UNUSED intptr_t return_arg(void *arg)
{
    return (intptr_t)arg;
}

/* Until it is cancelled. */
static UNUSED intptr_t sleep_for_ever(void *arg)
{
    (void)arg;
    return weft_sleep(WEFT_SEC(1000000));
}

/* Let everybody else run until nothing changes on one worker, and give others time with more. */
static UNUSED void yield_times(int n)
{
    while (n-- > 0)
        must_be(weft_yield(), 0);
}

/* Wait for something that another task or thread will do. */
#define wait_until_true(condition)                \
    do {                                          \
        while (!(condition))                      \
            must_be(weft_sleep(WEFT_US(100)), 0); \
    } while (0)

/* ---- children ---- */

/*
 * Run fn(arg) in a child process and return its wait status; what it wrote to stderr is in `text`. The caller has
 * no runtime at that time.
 */
static UNUSED int run_in_child(void (*fn)(void *arg), void *arg, char *text, size_t size)
{
    size_t length = 0;
    int ends[2], status;
    ssize_t n;
    pid_t pid;

    must_be(pipe(ends), 0);
    fflush(NULL);
    pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        alarm(SUPPORT_LIMIT);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        fn(arg);
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], text + length, size - 1 - length)) > 0)
        length += (size_t)n;
    close(ends[0]);
    text[length] = '\0';
    must_be(waitpid(pid, &status, 0), pid);
    return status;
}

/* All of them, or those whose name contains the program's first argument. */
#define run_all(tests, argc, argv)                           \
    (setvbuf(stdout, NULL, _IOLBF, 0), alarm(SUPPORT_LIMIT), \
     (argc) > 1 ? cmocka_set_test_filter((argv)[1]) : (void)0, cmocka_run_group_tests(tests, NULL, NULL))

#endif
