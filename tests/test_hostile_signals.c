/*
 * Interruptions and readiness that tells nothing: a storm of signals that interrupts system calls on all threads,
 * wake-ups for data that somebody else has taken, descriptors that are closed under those who wait.
 */
#include "hostile.h"
#include "needs.h"

#include "runtime/annotate.h"

#include <sys/syscall.h>

/* ---- EINTR ---- */

static atomic_ulong interruptions;
static atomic_bool storm_is_over;

static void count_interruption(int number)
{
    (void)number;
    atomic_fetch_add(&interruptions, 1);
}

static void unblock(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    must_be(pthread_sigmask(SIG_UNBLOCK, &set, NULL), 0);
}

static void interrupt_all(DIR *threads, pid_t self)
{
    struct dirent *entry;

    rewinddir(threads);
    while ((entry = readdir(threads))) {
        pid_t thread = (pid_t)atoi(entry->d_name);

        if (thread > 0 && thread != self)
            syscall(SYS_tgkill, getpid(), thread, SIGUSR2);
    }
}

/* All threads but itself, ten thousand times a second as far as there is the time. */
static void *storm(void *arg)
{
    while (!atomic_load(&storm_is_over)) {
        interrupt_all(arg, (pid_t)syscall(SYS_gettid));
        nap(WEFT_US(100));
    }
    return NULL;
}

static intptr_t unblock_here(void *arg)
{
    unblock(); /* weft's threads have signals blocked */
    return (intptr_t)arg;
}

static intptr_t sleep_in_pool(void *arg)
{
    struct timespec ts = {.tv_nsec = 1000000};

    unblock();
    while (nanosleep(&ts, &ts) < 0)
        must(errno == EINTR);
    return (intptr_t)arg;
}

static void unblock_everywhere(void)
{
    unsigned workers = weft_runtime_workers(weft_runtime_current());

    for (unsigned i = 1; i <= workers; i++) {
        weft_spawn_options options = {.flags = WEFT_SPAWN_PINNED, .worker = i};

        must_be(weft_await(weft_spawn_with(&options, unblock_here, NULL)), 0);
    }
}

static intptr_t sleep_exactly(void *arg)
{
    for (int i = 0; i < 20; i++) {
        int64_t until = weft_now() + WEFT_MS(2);

        must_be(weft_sleep(WEFT_MS(2)), 0);
        must(weft_now() >= until);
    }
    return (intptr_t)arg;
}

static intptr_t do_needs(void *arg)
{
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        must_be(needs[i].does(), needs[i].result);
    return (intptr_t)arg;
}

static intptr_t block_often(void *arg)
{
    for (int i = 0; i < 20; i++)
        must_be(weft_blocking(sleep_in_pool, (void *)(intptr_t)i), i);
    return (intptr_t)arg;
}

static intptr_t talk(void *arg)
{
    for (int i = 0; i < FEWER(50); i++)
        be_a_good_client(arg);
    return 0;
}

static intptr_t pass_much(void *arg)
{
    static char sent[200000];
    int ends[2];
    char buffer[5000];
    size_t got = 0;
    ssize_t n;
    weft_stream *stream;

    must_be(weft_socket_pair(SOCK_STREAM, ends), 0);
    must_be(weft_stream_open(ends[0], &stream), 0);
    must_be(weft_stream_write(stream, sent, sizeof sent), 0); /* the rest goes in the background */
    must_be(weft_stream_write_eof(stream), 0);
    while ((n = weft_read(ends[1], buffer, sizeof buffer)) > 0)
        got += (size_t)n;
    must_be(n, 0);
    must_be(got, sizeof sent);
    must_be(weft_close(ends[1]), 0);
    must_be(weft_stream_close(stream), 0);
    weft_stream_free(stream);
    return (intptr_t)arg;
}

static intptr_t work_in_storm(void *arg)
{
    weft_server *server = serve(echo_once, NULL, NULL);
    weft_group group;

    unblock_everywhere();
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < 3; i++) {
        must_be(weft_group_spawn(&group, talk, server), 0);
        must_be(weft_group_spawn(&group, sleep_exactly, NULL), 0);
        must_be(weft_group_spawn(&group, block_often, NULL), 0);
        must_be(weft_group_spawn(&group, pass_much, NULL), 0);
    }
    must_be(weft_group_spawn(&group, do_needs, NULL), 0);
    must_be(weft_group_wait(&group), 0);
    expect_recovery(server);
    return (intptr_t)arg;
}

static void no_call_is_disturbed_by_signals(void **state)
{
    struct sigaction action = {.sa_handler = count_interruption}, before; /* no SA_RESTART */
    DIR *threads = opendir("/proc/self/task");
    pthread_t thread;

    (void)state;
    assert_non_null(threads);
    assert_int_equal(sigaction(SIGUSR2, &action, &before), 0);
    assert_int_equal(pthread_create(&thread, NULL, storm, threads), 0);
    run_everywhere(work_in_storm);
    atomic_store(&storm_is_over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(sigaction(SIGUSR2, &before, NULL), 0);
    closedir(threads);
    assert_true(atomic_load(&interruptions) > 100);
}

/* ---- readiness that tells nothing ---- */

struct scramble {
    int fd, sent;
    atomic_int got, polls;
    atomic_bool over;
};

static intptr_t grab(void *arg)
{
    struct scramble *scramble = arg;
    char bytes[2];
    ssize_t n;

    while ((n = weft_read(scramble->fd, bytes, sizeof bytes)) > 0)
        atomic_fetch_add(&scramble->got, (int)n);
    must_be(n, 0);
    return 0;
}

/* A thread that knows nothing of weft takes bytes away from it. */
static void *steal(void *arg)
{
    struct scramble *scramble = arg;
    struct pollfd one = {.fd = scramble->fd, .events = POLLIN};

    while (!atomic_load(&scramble->over)) {
        char byte;

        if (poll(&one, 1, 1) == 1 && recv(scramble->fd, &byte, 1, MSG_DONTWAIT) == 1)
            atomic_fetch_add(&scramble->got, 1);
    }
    return NULL;
}

static intptr_t only_look(void *arg)
{
    struct scramble *scramble = arg;

    while (!atomic_load(&scramble->over)) {
        int rc = weft_poll(scramble->fd, POLLIN, WEFT_MS(1));

        must(rc == -ETIMEDOUT || rc > 0);
        atomic_fetch_add(&scramble->polls, 1);
        must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t scramble_for_bytes(void *arg)
{
    struct scramble scramble = {.sent = FEWER(3000)};
    pthread_t thief;
    weft_group group;
    int ends[2];

    must_be(weft_socket_pair(SOCK_STREAM, ends), 0);
    scramble.fd = ends[1];
    must_be(pthread_create(&thief, NULL, steal, &scramble), 0);
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < 10; i++)
        must_be(weft_group_spawn(&group, grab, &scramble), 0);
    must_be(weft_group_spawn(&group, only_look, &scramble), 0);
    for (int i = 0; i < scramble.sent; i++) {
        must_be(weft_write(ends[0], "x", 1), 1);
        if (i % 3 == 0)
            must_be(weft_yield(), 0);
    }
    wait_until_true(atomic_load(&scramble.got) == scramble.sent);
    atomic_store(&scramble.over, true);
    must_be(weft_close(ends[0]), 0);
    must_be(weft_group_wait(&group), 0);
    must_be(pthread_join(thief, NULL), 0);
    must_be(atomic_load(&scramble.got), scramble.sent);
    must_be(weft_close(ends[1]), 0);
    return (intptr_t)arg;
}

static void who_is_woken_for_nothing_waits_on(void **state)
{
    (void)state;
    run_everywhere(scramble_for_bytes);
}

/* ---- closed while somebody waits ---- */

static intptr_t wait_to_read(void *arg)
{
    char byte;

    return weft_read((int)(intptr_t)arg, &byte, 1);
}

static const char block_of_zeros[65536];

static intptr_t wait_to_write(void *arg)
{
    ssize_t n;

    while ((n = weft_write((int)(intptr_t)arg, block_of_zeros, sizeof block_of_zeros)) > 0)
        ;
    return n;
}

static intptr_t wait_to_poll(void *arg)
{
    return weft_poll((int)(intptr_t)arg, POLLPRI, WEFT_FOREVER);
}

/*
 * The number is used again at once. Who has not begun to wait by then meets the new descriptor, and is told when that
 * is closed.
 */
static void close_under(weft_fn *wait, uint64_t *random)
{
    int ends[2], others[2];
    weft_task *waiters[3];

    must_be(weft_socket_pair(SOCK_STREAM, ends), 0);
    for (int i = 0; i < 3; i++)
        must((waiters[i] = weft_spawn(wait, (void *)(intptr_t)ends[0])) != NULL);
    for (uint64_t i = draw(random) % 6; i > 0; i--)
        must_be(weft_yield(), 0);
    if (draw(random) % 4 == 0)
        must_be(weft_sleep((int64_t)(draw(random) % WEFT_US(200))), 0);
    must_be(weft_close(ends[0]), 0);
    must_be(weft_socket_pair(SOCK_STREAM, others), 0);
    must_be(weft_yield(), 0);
    must_be(weft_close(others[0]), 0);
    for (int i = 0; i < 3; i++)
        must_be(weft_await(waiters[i]), -EBADF);
    must_be(weft_close(ends[1]), 0);
    must_be(weft_close(others[1]), 0);
}

static intptr_t close_under_all(void *arg)
{
    static weft_fn *const waits[] = {wait_to_read, wait_to_write, wait_to_poll};
    uint64_t random = wanted_seed();

    for (int i = 0; i < FEWER(300); i++)
        close_under(waits[i % 3], &random);
    return (intptr_t)arg;
}

static void who_waits_for_a_descriptor_that_is_closed_is_told(void **state)
{
    (void)state;
#ifdef WEFT__TSAN
    /* close(2) beside a read(2) of the same number is a race to it, which is what this is about: nothing orders the two
     * where the reader has tried on another worker and does not wait yet. */
    assert_int_equal(run_on(1, close_under_all, (void *)1), 1);
#else
    run_everywhere(close_under_all);
#endif
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_call_is_disturbed_by_signals),
        cmocka_unit_test(who_is_woken_for_nothing_waits_on),
        cmocka_unit_test(who_waits_for_a_descriptor_that_is_closed_is_told),
    };

    return run_all(tests, argc, argv);
}
