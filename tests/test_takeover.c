/*
 * A task that blocks or computes does not keep the others of its worker from running. What is asserted is order:
 * what the others did must be over before the blocker is.
 */
#include <sys/socket.h>

#include "support.h"

#define BLOCK_NS WEFT_MS(SUPPORT_SANITIZED ? 1500 : 800)

static atomic_int blocking, unblocked, done;
static weft_mutex mutex;

static void clear(void)
{
    atomic_store(&blocking, 0);
    atomic_store(&unblocked, 0);
    atomic_store(&done, 0);
    mutex = (weft_mutex)WEFT_MUTEX_INIT;
}

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static void block(int64_t ns, bool compute)
{
    int64_t until = weft_now() + ns;

    atomic_fetch_add(&blocking, 1);
    if (!compute)
        nap(ns);
    while (weft_now() < until)
        ;
    atomic_fetch_add(&unblocked, 1);
}

/* What may follow on a thread whose worker was taken. */
static intptr_t blocks_and_goes_on(void *arg)
{
    weft_task *task;

    must_be(weft_mutex_lock(&mutex), 0);
    block(BLOCK_NS, arg != NULL);
    must(weft_self() != NULL);
    must_be(weft_mutex_unlock(&mutex), 0); /* another task waits for it */
    task = spawn(return_arg, (void *)3);
    must_be(weft_go(return_arg, NULL), 0);
    must_be(weft_await(task), 3);
    must_be(weft_yield(), 0);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    block(WEFT_MS(20), arg != NULL);
    must_be(weft_yield(), 0);
    task = spawn(sleep_for_ever, NULL);
    block(WEFT_MS(20), arg != NULL);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    must_be(weft_blocking(return_arg, (void *)8), 8);
    return 4;
}

static intptr_t waits_for_the_mutex(void *arg)
{
    (void)arg;
    while (!atomic_load(&blocking)) /* now the other has it, however slow it was */
        must_be(weft_yield(), 0);
    must_be(weft_mutex_lock(&mutex), 0);
    must(atomic_load(&unblocked) >= 1);
    must_be(weft_mutex_unlock(&mutex), 0);
    return 5;
}

static intptr_t sleeps_in_steps(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++)
        must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(atomic_load(&unblocked), 0);
    atomic_fetch_add(&done, 1);
    return 0;
}

static intptr_t echo(void *arg)
{
    char byte;
    int fd = (int)(intptr_t)arg;

    while (weft_read(fd, &byte, 1) == 1)
        must_be(weft_write(fd, &byte, 1), 1);
    return 0;
}

/* The other end is a plain thread: only an event can bring the task on. */
static void *talk(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char byte = 'x';

    while (!atomic_load(&blocking))
        nap(WEFT_MS(1));
    for (int i = 0; i < 20; i++) {
        must_be(write(fd, &byte, 1), 1);
        must_be(read(fd, &byte, 1), 1);
    }
    must_be(atomic_load(&unblocked), 0);
    atomic_fetch_add(&done, 1);
    must_be(shutdown(fd, SHUT_WR), 0);
    return NULL;
}

static void *submit(void *arg)
{
    while (!atomic_load(&blocking))
        nap(WEFT_MS(1));
    for (int i = 0; i < 20; i++)
        must_be(weft_runtime_run(arg, return_arg, (void *)6), 6);
    must_be(atomic_load(&unblocked), 0);
    atomic_fetch_add(&done, 1);
    return NULL;
}

static intptr_t goes_on_meanwhile(void *arg)
{
    weft_task *blocker, *waiter, *sleeper, *server;
    pthread_t talker, submitter;
    weft_stats stats;
    int fds[2];

    clear();
    must_be(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    server = spawn(echo, (void *)(intptr_t)fds[0]);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(pthread_create(&talker, NULL, talk, (void *)(intptr_t)fds[1]), 0);
    must_be(pthread_create(&submitter, NULL, submit, weft_runtime_current()), 0);
    blocker = spawn(blocks_and_goes_on, arg);
    waiter = spawn(waits_for_the_mutex, NULL);
    sleeper = spawn(sleeps_in_steps, NULL);
    must_be(weft_yield(), 0);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(atomic_load(&unblocked), 0); /* this task is back, too */
    must_be(weft_await(sleeper), 0);
    must_be(weft_await(server), 0);
    wait_until_true(atomic_load(&done) == 3);
    must_be(atomic_load(&unblocked), 0);
    must_be(weft_await(blocker), 4);
    must_be(weft_await(waiter), 5);
    must_be(pthread_join(talker, NULL), 0);
    must_be(pthread_join(submitter, NULL), 0);
    must_be(weft_close(fds[0]), 0);
    must_be(weft_close(fds[1]), 0);
    weft_runtime_stats(weft_runtime_current(), &stats);
    return (intptr_t)stats.takeovers;
}

static intptr_t run_blocked(uint32_t workers, weft_fn *fn, void *arg)
{
    weft_config config = {.workers = workers, .takeover_us = 2000};

    return run_with(&config, fn, arg);
}

static void on_one_worker_everything_else_goes_on_while_a_task_sleeps_in_the_kernel(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_true(run_blocked(1, goes_on_meanwhile, NULL) > 0);
}

static void on_one_worker_everything_else_goes_on_while_a_task_computes(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_true(run_blocked(1, goes_on_meanwhile, (void *)1) > 0);
}

static void with_more_workers_it_goes_on_too(void **state)
{
    (void)state;
    assert_true(run_blocked(2, goes_on_meanwhile, NULL) >= 0);
    assert_true(run_blocked(2, goes_on_meanwhile, (void *)1) >= 0);
    assert_true(run_blocked(8, goes_on_meanwhile, NULL) >= 0);
}

/* ---- all workers, and more than there may be spare threads ---- */

static intptr_t blocks_for_a_while(void *arg)
{
    block(WEFT_MS(30), arg != NULL);
    must_be(weft_yield(), 0);
    block(WEFT_MS(5), arg != NULL);
    return 1;
}

static intptr_t many_block(void *arg)
{
    enum { BLOCKERS = 60 };
    weft_task *blockers[BLOCKERS], *sleeper;
    unsigned threads = count_threads();
    weft_stats stats;

    clear();
    for (int i = 0; i < BLOCKERS; i++)
        blockers[i] = spawn(blocks_for_a_while, arg);
    sleeper = spawn(return_arg, (void *)2);
    must_be(weft_yield(), 0);
    must(count_threads() <= threads + 40); /* there is a limit */
    for (int i = 0; i < BLOCKERS; i++)
        must_be(weft_await(blockers[i]), 1);
    must_be(weft_await(sleeper), 2);
    must_be(atomic_load(&unblocked), 2 * BLOCKERS);
    weft_runtime_stats(weft_runtime_current(), &stats);
    must(stats.spare_threads <= 40);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    return (intptr_t)stats.takeovers;
}

static void more_blockers_than_spare_threads_all_end(void **state)
{
    (void)state;
    assert_true(run_blocked(1, many_block, NULL) > 0);
    assert_true(run_blocked(2, many_block, NULL) > 0);
    assert_true(run_blocked(3, many_block, NULL) > 0);
}

/* Over and over: threads are used again. */
static intptr_t blocks_again_and_again(void *arg)
{
    unsigned most = 0;

    (void)arg;
    clear();
    for (int i = 0; i < 20; i++) {
        weft_task *blocker = spawn(blocks_for_a_while, NULL);
        unsigned threads;

        must_be(weft_yield(), 0);
        must_be(weft_await(blocker), 1);
        threads = count_threads();
        most = threads > most ? threads : most;
    }
    return most;
}

static void spare_threads_are_used_again(void **state)
{
    unsigned before;

    (void)state;
    assert_int_equal(run_on(1, return_arg, NULL), 0);
    before = count_threads();
    assert_true(run_blocked(1, blocks_again_and_again, NULL) <= before + 1 + 1 + 8);
}

/* ---- with a lock between them ---- */

static atomic_int protected_count;

static intptr_t increments(void *arg)
{
    for (int i = 0; i < 20; i++) {
        int before;

        must_be(weft_mutex_lock(&mutex), 0);
        before = atomic_load(&protected_count);
        if ((i + (intptr_t)arg) % 10 == 0)
            nap(WEFT_MS(4));
        atomic_store(&protected_count, before + 1);
        must_be(weft_mutex_unlock(&mutex), 0);
        if (i % 3 == 0)
            must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t locks_and_blocks(void *arg)
{
    weft_task *tasks[8];

    (void)arg;
    clear();
    atomic_store(&protected_count, 0);
    for (int i = 0; i < 8; i++)
        tasks[i] = spawn(increments, (void *)(intptr_t)i);
    for (int i = 0; i < 8; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(atomic_load(&protected_count), 160);
    return 0;
}

static void what_a_mutex_protects_stays_exact(void **state)
{
    (void)state;
    assert_int_equal(run_blocked(1, locks_and_blocks, NULL), 0);
    assert_int_equal(run_blocked(2, locks_and_blocks, NULL), 0);
}

/* ---- off ---- */

static intptr_t notes_the_end(void *arg)
{
    (void)arg;
    return atomic_load(&unblocked);
}

static intptr_t blocks_all(void *arg)
{
    weft_task *blocker, *other;
    weft_stats stats;

    (void)arg;
    clear();
    blocker = spawn(blocks_for_a_while, NULL);
    other = spawn(notes_the_end, NULL);
    must_be(weft_yield(), 0);
    must_be(atomic_load(&unblocked), 1);
    must_be(weft_await(other), 1);
    must_be(weft_await(blocker), 1);
    weft_runtime_stats(weft_runtime_current(), &stats);
    must_be(stats.takeovers, 0);
    must_be(stats.spare_threads, 0);
    return 0;
}

static void with_the_takeover_off_others_wait(void **state)
{
    weft_config config = {.workers = 1, .takeover_us = WEFT_NEVER};

    (void)state;
    assert_int_equal(run_with(&config, blocks_all, NULL), 0);
}

/* ---- stopping ---- */

static intptr_t blocks_and_goes_quietly(void *arg)
{
    block(WEFT_MS(50), arg != NULL);
    return weft_yield() == -ECANCELED ? 0 : -EIO;
}

static intptr_t leaves_a_blocker(void *arg)
{
    weft_detach(spawn(blocks_and_goes_quietly, arg));
    must_be(weft_yield(), 0);
    return 0;
}

static void stopping_waits_for_a_task_without_worker(void **state)
{
    (void)state;
    clear();
    assert_int_equal(run_blocked(1, leaves_a_blocker, NULL), 0);
    assert_int_equal(atomic_load(&unblocked), 1);
}

/* ---- after a calm second ---- */

static int ends[2];

/* It blocks until another task of its worker has written: only the take-over lets that one run. */
static intptr_t waits_in_the_kernel(void *arg)
{
    char byte;

    (void)arg;
    must_be(read(ends[0], &byte, 1), 1);
    return 0;
}

static intptr_t writes(void *arg)
{
    (void)arg;
    must_be(write(ends[1], "x", 1), 1);
    return 0;
}

/* The monitor ticks at its slowest after most of a second without a suspicion. */
static intptr_t is_stuck_after_long_work(void *arg)
{
    int64_t until = weft_now() + WEFT_MS(1200);
    weft_task *other, *stuck;
    weft_stats stats;

    while (weft_now() < until)
        must_be(weft_yield(), 0);
    stuck = spawn(waits_in_the_kernel, NULL);
    must_be(weft_yield(), 0);
    other = spawn(writes, NULL);
    must_be(weft_await(other), 0);
    must_be(weft_await(stuck), 0);
    weft_runtime_stats(weft_runtime_current(), &stats);
    must(stats.takeovers >= 1);
    return (intptr_t)arg;
}

static void a_worker_that_is_stuck_after_long_work_is_taken_over(void **state)
{
    (void)state;
    must_be(pipe(ends), 0);
    assert_int_equal(run_on(1, is_stuck_after_long_work, NULL), 0);
    close(ends[0]);
    close(ends[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_one_worker_everything_else_goes_on_while_a_task_sleeps_in_the_kernel),
        cmocka_unit_test(on_one_worker_everything_else_goes_on_while_a_task_computes),
        cmocka_unit_test(with_more_workers_it_goes_on_too),
        cmocka_unit_test(more_blockers_than_spare_threads_all_end),
        cmocka_unit_test(spare_threads_are_used_again),
        cmocka_unit_test(what_a_mutex_protects_stays_exact),
        cmocka_unit_test(with_the_takeover_off_others_wait),
        cmocka_unit_test(stopping_waits_for_a_task_without_worker),
        cmocka_unit_test(a_worker_that_is_stuck_after_long_work_is_taken_over),
    };

    return run_all(tests, argc, argv);
}
