/* Stacks: what is handed out, what it costs in memory, what stays, what happens at the end of one. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/context.h"
#include "runtime/stack.h"

#if defined(__has_feature)
#define HAS_FEATURE(feature) __has_feature(feature)
#else
#define HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) || \
    HAS_FEATURE(thread_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define SIZE (128 * 1024)
#define MANY 20000

static size_t page;

/* What the worker would say: the task that runs on `running`. */
static struct weft__stack *running;
static const char *running_name = "";

int weft__overflow_lookup(const void *address, struct weft__overflow_site *site)
{
    const char *at = address;

    if (!running || at >= running->low || at < running->low - page)
        return 0;
    *site = (struct weft__overflow_site){running_name, (void *)0xabc0, SIZE};
    return 1;
}

static void read_sizes(size_t *all, size_t *resident)
{
    FILE *file = fopen("/proc/self/statm", "r");

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu %zu", all, resident), 2);
    fclose(file);
}

static size_t resident_pages(void)
{
    size_t all, resident;

    read_sizes(&all, &resident);
    return resident;
}

static size_t mappings(void)
{
    size_t lines = 0;
    FILE *file = fopen("/proc/self/maps", "r");

    assert_non_null(file);
    for (int c; (c = getc(file)) != EOF;)
        lines += c == '\n';
    fclose(file);
    return lines;
}

static int kernel_has_guard_markers(void)
{
    void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc = madvise(memory, page, 102);

    munmap(memory, page);
    return rc == 0;
}

/* Run in a process of its own; its exit status as waitpid gives it, and what it said on stderr. */
static int in_child(void (*body)(void), char *said, size_t room)
{
    int ends[2];
    int status = 0;
    size_t length = 0;
    ssize_t got;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit no_core = {0, 0};

        signal(SIGSEGV, SIG_DFL); /* the test framework has its own */
        signal(SIGBUS, SIG_DFL);
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(30);
        body();
        _exit(0);
    }
    close(ends[1]);
    while ((got = read(ends[0], said + length, room - 1 - length)) > 0)
        length += (size_t)got;
    said[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void a_stack_has_room_header_and_alignment(void **state)
{
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    struct weft__stack *stack;

    (void)state;
    assert_non_null(pool);
    stack = weft__stack_get(pool, &cache, SIZE);
    assert_non_null(stack);
    assert_int_equal((uintptr_t)stack->start % 64, 0);
    assert_int_equal((uintptr_t)stack->low % page, 0);
    assert_ptr_equal(stack->start, stack);
    assert_true((char *)stack->start - stack->low >= SIZE + SIZE / 2);
    memset(stack->low, 1, (size_t)((char *)stack->start - stack->low));
    weft__stack_put(pool, &cache, stack);
    weft__stack_cache_flush(pool, &cache);
    assert_int_equal(weft__stack_pool_live(pool), 0);
    weft__stack_pool_free(pool);
}

static void the_last_stack_put_is_the_first_one_got(void **state)
{
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    struct weft__stack *first, *second;

    (void)state;
    first = weft__stack_get(pool, &cache, SIZE);
    second = weft__stack_get(pool, &cache, SIZE);
    assert_ptr_not_equal(first, second);
    weft__stack_put(pool, &cache, first);
    weft__stack_put(pool, &cache, second);
    assert_ptr_equal(weft__stack_get(pool, &cache, 1), second);
    assert_ptr_equal(weft__stack_get(pool, &cache, 1), first);
    weft__stack_put(pool, &cache, first);
    weft__stack_put(pool, &cache, second);
    weft__stack_cache_flush(pool, &cache);
    assert_int_equal(cache.count, 0);
    weft__stack_pool_free(pool);
}

static void neighbours_start_in_different_cache_lines(void **state)
{
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    struct weft__stack *stacks[16];
    unsigned in_line[64] = {0};

    (void)state;
    for (int i = 0; i < 16; i++) {
        stacks[i] = weft__stack_get(pool, &cache, SIZE);
        assert_true((uintptr_t)stacks[i]->start % page >= page * 3 / 4 - 128);
        in_line[(uintptr_t)stacks[i]->start % 4096 / 64]++;
    }
    for (int i = 0; i < 64; i++)
        assert_true(in_line[i] <= 1);
    for (int i = 0; i < 16; i++)
        weft__stack_put(pool, &cache, stacks[i]);
    weft__stack_cache_flush(pool, &cache);
    weft__stack_pool_free(pool);
}

static void stacks_do_not_overlap(void **state)
{
    static struct weft__stack *stacks[300];
    struct weft__stack_pool *pool = weft__stack_pool_new(8192);
    struct weft__stack_cache cache = {0};

    (void)state;
    for (int i = 0; i < 300; i++) {
        stacks[i] = weft__stack_get(pool, &cache, 100);
        assert_non_null(stacks[i]);
        memset(stacks[i]->low, i, (size_t)((char *)stacks[i]->start - stacks[i]->low));
    }
    assert_true(weft__stack_pool_live(pool) >= 300);
    for (int i = 0; i < 300; i++) {
        char *low = stacks[i]->low;

        for (char *at = low; at < (char *)stacks[i]->start; at += 512)
            assert_int_equal(*at, (char)i);
        weft__stack_put(pool, &cache, stacks[i]);
    }
    weft__stack_cache_flush(pool, &cache);
    assert_int_equal(weft__stack_pool_live(pool), 0);
    weft__stack_pool_free(pool);
}

static void a_larger_stack_is_mapped_for_itself_and_unmapped(void **state)
{
    const size_t large = 3 * 1024 * 1024 + 5;
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    struct weft__stack *stack = weft__stack_get(pool, &cache, large);
    unsigned char resident;
    char *low;

    (void)state;
    assert_non_null(stack);
    assert_true((size_t)((char *)stack->start - stack->low) >= large + SIZE);
    memset(stack->low, 1, (size_t)((char *)stack->start - stack->low));
    low = stack->low;
    weft__stack_put(pool, &cache, stack);
    assert_int_equal(cache.count, 0);
    assert_int_equal(weft__stack_pool_live(pool), 0);
    assert_int_equal(mincore(low, page, &resident), -1);
    assert_int_equal(errno, ENOMEM);
    assert_null(weft__stack_get(pool, &cache, SIZE_MAX - 10));
    assert_null(weft__stack_get(pool, &cache, (size_t)1 << 60));
    weft__stack_pool_free(pool);
    assert_null(weft__stack_pool_new(SIZE_MAX / 2));
}

/* Live stacks cost a page each and few mappings; afterwards the memory is gone. */
static void memory_falls_back_when_many_stacks_end(void **state)
{
    static struct weft__stack *stacks[MANY];
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    size_t before = resident_pages();
    size_t mapped = mappings();
    size_t peak, rest;

    if (getenv("WEFT_TEST_EMULATED"))
        skip();
    (void)state;
    for (int i = 0; i < MANY; i++)
        assert_non_null(stacks[i] = weft__stack_get(pool, &cache, SIZE));
    peak = resident_pages() - before;
    if (kernel_has_guard_markers() && !SANITIZED)
        assert_in_range(mappings(), 0, mapped + 10);
    for (int i = 0; i < MANY; i++) /* each seventh apart, so that chunks empty late */
        weft__stack_put(pool, &cache, stacks[(size_t)i * 7 % MANY]);
    weft__stack_cache_flush(pool, &cache);
    rest = resident_pages() - before;
    if (!SANITIZED) {
        assert_in_range(peak, MANY, MANY + MANY / 20);
        assert_in_range(rest, 0, MANY / 20 + 4096); /* what the pool keeps warm */
    }
    assert_int_equal(weft__stack_pool_live(pool), 0);

    /* all of them can be had again */
    for (int i = 0; i < MANY; i++) {
        assert_non_null(stacks[i] = weft__stack_get(pool, &cache, SIZE));
        assert_true((char *)stacks[i]->start - stacks[i]->low > SIZE);
    }
    for (int i = 0; i < MANY; i++)
        weft__stack_put(pool, &cache, stacks[i]);
    weft__stack_cache_flush(pool, &cache);
    weft__stack_pool_free(pool);
}

static unsigned resident_of(const struct weft__stack *stack)
{
    unsigned char pages[2 * SIZE / 4096 + 1];
    size_t bytes = (size_t)((const char *)stack + sizeof(*stack) - stack->low);
    unsigned count = 0;

    assert_int_equal(mincore(stack->low, bytes, pages), 0);
    for (size_t i = 0; i < (bytes + page - 1) / page; i++)
        count += pages[i] & 1;
    return count;
}

static void a_deep_stack_is_trimmed_when_it_returns_to_the_pool(void **state)
{
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    struct weft__stack *stack = weft__stack_get(pool, &cache, SIZE);

    (void)state;
    memset(stack->low, 1, (size_t)((char *)stack->start - stack->low));
    assert_true(resident_of(stack) > 60);
    weft__stack_put(pool, &cache, stack);
    weft__stack_cache_flush(pool, &cache);
    assert_in_range(resident_of(stack), 1, 4);
    weft__stack_pool_free(pool);
}

/* Each thread takes, marks, checks, gives back; some of its stacks go to another thread through a table. */
#define THREADS 4
#define ROUNDS (MANY / THREADS)
#define HELD 100

static struct weft__stack_pool *shared_pool;
static _Atomic(struct weft__stack *) exchange[64];
static atomic_uint mistakes;

static void *take_and_give(void *arg)
{
    struct weft__stack_cache cache = {0};
    struct weft__stack *held[HELD] = {0};
    unsigned seed = (unsigned)(uintptr_t)arg * 2654435761u + 1;

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned at = (seed = seed * 1103515245u + 12345u) / 65536 % HELD;
        struct weft__stack *stack = held[at];

        if (stack) {
            if (((void **)stack->start)[-1] != stack)
                mistakes++;
            if (seed / 1024 % 3 == 0)
                stack = atomic_exchange(&exchange[seed / 4096 % 64], stack);
            if (stack)
                weft__stack_put(shared_pool, &cache, stack);
        }
        held[at] = weft__stack_get(shared_pool, &cache, seed / 512 % 50 == 0 ? 2 * SIZE : SIZE);
        if (!held[at]) {
            mistakes++;
            break;
        }
        ((void **)held[at]->start)[-1] = held[at];
        if (seed / 128 % 97 == 0)
            weft__stack_cache_flush(shared_pool, &cache);
    }
    for (unsigned i = 0; i < HELD; i++) {
        if (held[i])
            weft__stack_put(shared_pool, &cache, held[i]);
    }
    weft__stack_cache_flush(shared_pool, &cache);
    return NULL;
}

static void stacks_wander_between_threads(void **state)
{
    struct weft__stack_cache cache = {0};
    pthread_t threads[THREADS];

    (void)state;
    shared_pool = weft__stack_pool_new(SIZE);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 64; i++) {
        if (exchange[i])
            weft__stack_put(shared_pool, &cache, exchange[i]);
    }
    weft__stack_cache_flush(shared_pool, &cache);
    assert_int_equal(mistakes, 0);
    assert_int_equal(weft__stack_pool_live(shared_pool), 0);
    weft__stack_pool_free(shared_pool);
}

static void mass_get_and_put(void *arg, int rounds)
{
    static _Thread_local struct weft__stack *stacks[2000];
    struct weft__stack_cache cache = {0};

    (void)arg;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 2000; i++) {
            stacks[i] = weft__stack_get(shared_pool, &cache, SIZE);
            if (!stacks[i]) {
                mistakes++;
                return;
            }
            ((void **)stacks[i]->start)[-1] = stacks[i];
        }
        for (int i = 0; i < 2000; i++) {
            mistakes += ((void **)stacks[i]->start)[-1] != stacks[i];
            weft__stack_put(shared_pool, &cache, stacks[i]);
        }
    }
    weft__stack_cache_flush(shared_pool, &cache);
}

static void *mass_of_stacks(void *arg)
{
    mass_get_and_put(arg, 5);
    return NULL;
}

static void chunks_empty_and_fill_from_several_threads(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    shared_pool = weft__stack_pool_new(SIZE);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, mass_of_stacks, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(mistakes, 0);
    assert_int_equal(weft__stack_pool_live(shared_pool), 0);
    weft__stack_pool_free(shared_pool);
}

static void run_out_of_address_space(void)
{
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    struct weft__stack *list = NULL, *stack;
    size_t all, resident;
    struct rlimit limit;
    unsigned count = 0;

    read_sizes(&all, &resident);
    limit.rlim_cur = limit.rlim_max = (rlim_t)(all * page + ((size_t)100 << 20));
    if (!pool || setrlimit(RLIMIT_AS, &limit) < 0)
        _exit(2);
    while ((stack = weft__stack_get(pool, &cache, SIZE))) {
        stack->next = list;
        list = stack;
        count++;
    }
    if (weft__stack_pool_live(pool) != count || weft__stack_get(pool, &cache, SIZE << 10))
        _exit(3);
    /* what has come back can be had again */
    stack = list;
    list = list->next;
    weft__stack_put(pool, &cache, stack);
    if (weft__stack_get(pool, &cache, SIZE) != stack)
        _exit(4);
    weft__stack_put(pool, &cache, stack);
    while ((stack = list)) {
        list = list->next;
        weft__stack_put(pool, &cache, stack);
    }
    weft__stack_cache_flush(pool, &cache);
    if (weft__stack_pool_live(pool) != 0 || count < 64)
        _exit(5);
    weft__stack_pool_free(pool);
}

static void no_address_space_is_null_and_nothing_breaks(void **state)
{
    char said[1024];

    if (getenv("WEFT_TEST_EMULATED"))
        skip();
    (void)state;
    if (SANITIZED)
        skip(); /* the shadow alone is larger than any limit */
    assert_int_equal(in_child(run_out_of_address_space, said, sizeof(said)), 0);
}

/* Overflow. */

static struct weft__context back;
static volatile unsigned sink;
static volatile unsigned bottom = UINT32_MAX;

static __attribute__((noinline)) unsigned recurse(unsigned depth)
{
    volatile char frame[200];

    frame[0] = (char)depth;
    if (depth == bottom)
        return 0;
    sink += recurse(depth + 1) + (unsigned)frame[0];
    return sink;
}

static void recurse_forever(void *arg)
{
    (void)arg;
    recurse(0);
    __builtin_unreachable();
}

static void run_on_a_stack(void (*entry)(void *))
{
    struct weft__stack_pool *pool = weft__stack_pool_new(SIZE);
    struct weft__stack_cache cache = {0};
    struct weft__context coroutine;

    running = weft__stack_get(pool, &cache, SIZE);
    weft__context_make(&coroutine, running->start, entry);
    weft__context_switch(&back, &coroutine, NULL);
}

static void overflow_a_stack(void)
{
    running_name = "deep";
    if (weft__overflow_install() < 0 || weft__overflow_install() < 0 || weft__overflow_thread_begin() < 0 ||
        weft__overflow_thread_begin() < 0)
        _exit(2);
    run_on_a_stack(recurse_forever);
}

static void overflow_without_a_name(void)
{
    running_name = "";
    if (weft__overflow_install() < 0 || weft__overflow_thread_begin() < 0)
        _exit(2);
    run_on_a_stack(recurse_forever);
}

static void an_overflow_names_the_task_and_dies(void **state)
{
    char said[4096];
    int status;

    if (getenv("WEFT_TEST_EMULATED"))
        skip();
    (void)state;
    status = in_child(overflow_a_stack, said, sizeof(said));
    assert_string_equal(said, "weft: stack overflow in task 'deep' (0xabc0): it used more than its 131072 bytes of "
                              "stack. Raise WEFT_STACK_SIZE (bytes, K or M suffix), or stack_size in "
                              "weft_spawn_options.\n");
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);

    status = in_child(overflow_without_a_name, said, sizeof(said));
    assert_non_null(strstr(said, "weft: stack overflow in task (0xabc0): it used"));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static int *volatile nothing;

static __attribute__((noinline, no_sanitize("undefined"))) void fault(void)
{
    *nothing = 1;
}

static volatile sig_atomic_t handled;
static volatile int mask_was_right;
static sigjmp_buf out_of_handler;

static void own_handler(int signal_number, siginfo_t *info, void *context)
{
    sigset_t mask;

    (void)context;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    mask_was_right = sigismember(&mask, SIGUSR1) && sigismember(&mask, SIGSEGV);
    handled = signal_number == SIGSEGV && info->si_addr == NULL ? 1 : 2;
    siglongjmp(out_of_handler, 1);
}

static void fault_with_own_handler(void)
{
    struct sigaction action = {.sa_sigaction = own_handler, .sa_flags = SA_SIGINFO};

    sigaddset(&action.sa_mask, SIGUSR1);
    sigaction(SIGSEGV, &action, NULL);
    if (weft__overflow_install() < 0 || weft__overflow_thread_begin() < 0)
        _exit(2);
    for (int i = 0; i < 3; i++) {
        sigset_t mask;

        handled = 0;
        if (sigsetjmp(out_of_handler, 1) == 0)
            fault();
        pthread_sigmask(SIG_BLOCK, NULL, &mask);
        if (handled != 1 || !mask_was_right || sigismember(&mask, SIGUSR1))
            _exit(3);
    }
    _exit(42);
}

static void plain_handler(int signal_number)
{
    _exit(signal_number == SIGSEGV ? 43 : 4);
}

static void fault_with_plain_handler(void)
{
    signal(SIGSEGV, plain_handler);
    if (weft__overflow_install() < 0)
        _exit(2);
    fault();
}

static void fault_with_later_handler(void)
{
    if (weft__overflow_install() < 0)
        _exit(2);
    signal(SIGSEGV, plain_handler);
    fault();
}

static void other_faults_go_to_the_program_s_handler(void **state)
{
    char said[4096];
    int status;

    (void)state;
    status = in_child(fault_with_own_handler, said, sizeof(said));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    assert_string_equal(said, "");
    status = in_child(fault_with_plain_handler, said, sizeof(said));
    assert_int_equal(WEXITSTATUS(status), 43);
    status = in_child(fault_with_later_handler, said, sizeof(said));
    assert_int_equal(WEXITSTATUS(status), 43);
}

static void fault_with_default(void)
{
    signal(SIGSEGV, SIG_DFL); /* sanitizers have one */
    if (weft__overflow_install() < 0)
        _exit(2);
    fault();
}

static void fault_ignored(void)
{
    signal(SIGSEGV, SIG_IGN);
    if (weft__overflow_install() < 0)
        _exit(2);
    raise(SIGSEGV); /* sent, not caused: this one can be ignored */
    fputs("ignored", stderr);
    fault();
}

static void sent_with_default(void)
{
    signal(SIGBUS, SIG_DFL);
    if (weft__overflow_install() < 0)
        _exit(2);
    raise(SIGBUS);
}

static void without_a_handler_the_process_dies_as_usual(void **state)
{
    char said[4096];
    int status;

    if (getenv("WEFT_TEST_EMULATED"))
        skip();
    (void)state;
    status = in_child(fault_with_default, said, sizeof(said));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_string_equal(said, "");
    status = in_child(fault_ignored, said, sizeof(said));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_string_equal(said, "ignored");
    status = in_child(sent_with_default, said, sizeof(said));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

static void *alternate_stack_comes_and_goes(void *arg)
{
    stack_t before, during, after;
    int *right = arg;

    sigaltstack(NULL, &before);
    if (weft__overflow_thread_begin() < 0)
        return NULL;
    sigaltstack(NULL, &during);
    weft__overflow_thread_end();
    weft__overflow_thread_end();
    sigaltstack(NULL, &after);
    if (before.ss_flags & SS_DISABLE)
        *right =
            !(during.ss_flags & SS_DISABLE) && during.ss_size >= (size_t)SIGSTKSZ && (after.ss_flags & SS_DISABLE);
    else
        *right = before.ss_sp == during.ss_sp && before.ss_sp == after.ss_sp;
    return NULL;
}

static void a_thread_has_an_alternate_stack_meanwhile(void **state)
{
    pthread_t thread;
    int right = 0;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, alternate_stack_comes_and_goes, &right), 0);
    pthread_join(thread, NULL);
    assert_int_equal(right, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stack_has_room_header_and_alignment),
        cmocka_unit_test(the_last_stack_put_is_the_first_one_got),
        cmocka_unit_test(neighbours_start_in_different_cache_lines),
        cmocka_unit_test(stacks_do_not_overlap),
        cmocka_unit_test(a_larger_stack_is_mapped_for_itself_and_unmapped),
        cmocka_unit_test(memory_falls_back_when_many_stacks_end),
        cmocka_unit_test(a_deep_stack_is_trimmed_when_it_returns_to_the_pool),
        cmocka_unit_test(stacks_wander_between_threads),
        cmocka_unit_test(chunks_empty_and_fill_from_several_threads),
        cmocka_unit_test(no_address_space_is_null_and_nothing_breaks),
        cmocka_unit_test(an_overflow_names_the_task_and_dies),
        cmocka_unit_test(other_faults_go_to_the_program_s_handler),
        cmocka_unit_test(without_a_handler_the_process_dies_as_usual),
        cmocka_unit_test(a_thread_has_an_alternate_stack_meanwhile),
    };

    page = (size_t)sysconf(_SC_PAGESIZE);
    alarm(120);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
