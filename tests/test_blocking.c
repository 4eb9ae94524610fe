/*
 * The blocking pool, through the public interface: what calls return, how many threads they get, what
 * cancellation, deadlines, a full queue and the end of the runtime do to them.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_getname_np */
#endif

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft.h>

/* ---- a runtime for a test ---- */

static weft_runtime *start(uint32_t max, uint64_t queue, int64_t keepalive_ms)
{
    weft_config config = {
        .workers = 2, .blocking_max = max, .blocking_queue = queue, .blocking_keepalive_ms = keepalive_ms};
    weft_runtime *runtime = NULL;

    assert_int_equal(weft_runtime_start(&config, &runtime), 0);
    return runtime;
}

static void run(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    assert_int_equal(weft_runtime_run(runtime, fn, arg), 0);
    assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
}

static weft_stats stats(void)
{
    weft_stats now;

    weft_runtime_stats(weft_runtime_current(), &now);
    return now;
}

/* ---- calls that wait until they are let through ---- */

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    int open;
    atomic_int entered;
    atomic_int passed;
};

#define GATE                                                         \
    {                                                                \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0 \
    }

static intptr_t pass_gate(void *arg)
{
    struct gate *gate = arg;

    atomic_fetch_add(&gate->entered, 1);
    pthread_mutex_lock(&gate->lock);
    while (!gate->open)
        pthread_cond_wait(&gate->opened, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
    atomic_fetch_add(&gate->passed, 1);
    return 7;
}

static void open_gate(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = 1;
    pthread_cond_broadcast(&gate->opened);
    pthread_mutex_unlock(&gate->lock);
}

static void until(atomic_int *number, int value)
{
    while (atomic_load(number) < value)
        weft_sleep(WEFT_US(100));
}

static intptr_t count(void *arg)
{
    return atomic_fetch_add((atomic_int *)arg, 1) + 1;
}

/* ---- tasks that call ---- */

static intptr_t call_pass_gate(void *arg)
{
    return weft_blocking(pass_gate, arg);
}

static intptr_t call_count(void *arg)
{
    return weft_blocking(count, arg);
}

/* A task must have been given the chance to park in its call. */
static void let_run(void)
{
    for (int i = 0; i < 20; i++)
        weft_sleep(WEFT_US(100));
}

/* ---- results ---- */

static intptr_t add_one(void *arg)
{
    return (intptr_t)arg + 1;
}

static intptr_t results_main(void *arg)
{
    (void)arg;
    assert_int_equal(weft_blocking(add_one, (void *)41), 42);
    assert_int_equal(weft_blocking(add_one, (void *)(intptr_t)(-EIO - 1)), -EIO);
    assert_int_equal(weft_blocking_abandonable(add_one, (void *)1, NULL), 2);
    assert_int_equal(weft_await(weft_spawn_blocking(add_one, (void *)2)), 3);
    assert_int_equal(stats().blocking_jobs, 4);
    assert_int_equal(stats().blocking_refused, 0);
    return 0;
}

static void result_is_that_of_the_call(void **state)
{
    (void)state;
    run(start(4, WEFT_UNBOUNDED, 1000), results_main, NULL);
}

static void outside_a_task_calls_are_refused(void **state)
{
    (void)state;
    assert_int_equal(weft_blocking(add_one, NULL), -EPERM);
    assert_int_equal(weft_blocking_abandonable(add_one, NULL, NULL), -EPERM);
    assert_null(weft_spawn_blocking(add_one, NULL));
    assert_null(weft_spawn_blocking_abandonable(add_one, NULL, NULL));
}

static intptr_t describe_thread(void *arg)
{
    sigset_t mask;

    pthread_getname_np(pthread_self(), arg, 16);
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    return sigismember(&mask, SIGTERM) && sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGSEGV);
}

static intptr_t pool_thread_main(void *arg)
{
    char name[16] = "";

    (void)arg;
    assert_int_equal(weft_blocking(describe_thread, name), 1);
    assert_string_equal(name, "weft-block");
    return 0;
}

static void pool_threads_have_a_name_and_take_no_signals(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), pool_thread_main, NULL);
}

/* ---- how many threads ---- */

enum { CROWD = 48 };

static intptr_t meet(void *arg)
{
    int rc = pthread_barrier_wait(arg);

    return rc == 0 || rc == PTHREAD_BARRIER_SERIAL_THREAD ? 1 : -EIO;
}

static void meet_all(unsigned number)
{
    weft_task *tasks[CROWD];
    pthread_barrier_t barrier;

    pthread_barrier_init(&barrier, NULL, number);
    for (unsigned i = 0; i < number; i++)
        assert_non_null(tasks[i] = weft_spawn_blocking(meet, &barrier));
    for (unsigned i = 0; i < number; i++)
        assert_int_equal(weft_await(tasks[i]), 1);
    pthread_barrier_destroy(&barrier);
}

static intptr_t crowd_main(void *arg)
{
    (void)arg;
    meet_all(CROWD);
    assert_int_equal(stats().blocking_threads, CROWD);
    meet_all(CROWD);
    assert_int_equal(stats().blocking_threads, CROWD);
    return 0;
}

static void calls_that_wait_for_each_other_all_get_a_thread(void **state)
{
    (void)state;
    run(start(CROWD, WEFT_UNBOUNDED, 10000), crowd_main, NULL);
}

static intptr_t short_then_long_main(void *arg)
{
    atomic_int calls = 0;

    (void)arg;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 500; i++)
            assert_int_equal(weft_blocking(count, &calls), round * 500 + i + 1);
        meet_all(8);
    }
    return 0;
}

static void short_calls_before_do_not_keep_long_ones_from_their_threads(void **state)
{
    (void)state;
    run(start(8, WEFT_UNBOUNDED, 10000), short_then_long_main, NULL);
}

static intptr_t one_after_another_main(void *arg)
{
    atomic_int calls = 0;

    (void)arg;
    for (int i = 0; i < 100; i++)
        assert_int_equal(weft_blocking(count, &calls), i + 1);
    assert_int_equal(stats().blocking_threads, 1);
    return 0;
}

static void calls_one_after_another_share_one_thread(void **state)
{
    (void)state;
    run(start(16, WEFT_UNBOUNDED, 10000), one_after_another_main, NULL);
}

struct peak {
    atomic_int now;
    atomic_int highest;
};

static intptr_t note_peak(void *arg)
{
    struct peak *peak = arg;
    int now = atomic_fetch_add(&peak->now, 1) + 1;
    int highest = atomic_load(&peak->highest);

    while (now > highest && !atomic_compare_exchange_weak(&peak->highest, &highest, now)) {
    }
    usleep(200);
    atomic_fetch_sub(&peak->now, 1);
    return 0;
}

static intptr_t limit_main(void *arg)
{
    struct peak peak = {0, 0};
    weft_task *tasks[60];

    (void)arg;
    for (int i = 0; i < 60; i++)
        assert_non_null(tasks[i] = weft_spawn_blocking(note_peak, &peak));
    for (int i = 0; i < 60; i++)
        assert_int_equal(weft_await(tasks[i]), 0);
    assert_int_equal(atomic_load(&peak.highest), 3);
    assert_int_equal(stats().blocking_threads, 3);
    return 0;
}

static void threads_never_exceed_the_limit(void **state)
{
    (void)state;
    run(start(3, WEFT_UNBOUNDED, 10000), limit_main, NULL);
}

static intptr_t keepalive_main(void *arg)
{
    atomic_int calls = 0;

    (void)arg;
    for (int round = 0; round < 3; round++) {
        meet_all(8);
        while (stats().blocking_threads > 0)
            assert_int_equal(weft_sleep(WEFT_MS(1)), 0);
        assert_int_equal(weft_blocking(count, &calls), round + 1);
    }
    return 0;
}

static void idle_threads_end_after_the_keep_alive(void **state)
{
    (void)state;
    run(start(8, WEFT_UNBOUNDED, 10), keepalive_main, NULL);
}

static intptr_t first_in_first_out_main(void *arg)
{
    struct gate gate = GATE;
    atomic_int calls = 0;
    weft_task *first = weft_spawn_blocking(pass_gate, &gate);
    weft_task *tasks[20];

    (void)arg;
    for (int i = 0; i < 20; i++)
        assert_non_null(tasks[i] = weft_spawn_blocking(count, &calls));
    open_gate(&gate);
    assert_int_equal(weft_await(first), 7);
    for (int i = 0; i < 20; i++)
        assert_int_equal(weft_await(tasks[i]), i + 1);
    return 0;
}

static void waiting_calls_are_taken_first_in_first_out(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), first_in_first_out_main, NULL);
}

/* ---- a bounded queue ---- */

static intptr_t full_queue_main(void *arg)
{
    struct gate gate = GATE;
    atomic_int calls = 0;
    weft_task *running = weft_spawn_blocking(pass_gate, &gate);
    weft_task *waiting[2] = {weft_spawn_blocking(count, &calls), weft_spawn_blocking(count, &calls)};

    (void)arg;
    assert_non_null(running);
    assert_non_null(waiting[0]);
    assert_non_null(waiting[1]);
    assert_int_equal(weft_blocking(count, &calls), -EAGAIN);
    assert_int_equal(weft_blocking_abandonable(count, &calls, NULL), -EAGAIN);
    assert_null(weft_spawn_blocking(count, &calls));
    assert_int_equal(stats().blocking_refused, 3);

    open_gate(&gate);
    assert_int_equal(weft_await(running), 7);
    assert_int_equal(weft_await(waiting[0]), 1);
    assert_int_equal(weft_await(waiting[1]), 2);
    assert_int_equal(weft_blocking(count, &calls), 3);
    assert_int_equal(stats().blocking_refused, 3);
    return 0;
}

static void full_queue_refuses_and_counts(void **state)
{
    (void)state;
    run(start(1, 2, 1000), full_queue_main, NULL);
}

/* ---- cancellation and deadlines ---- */

static intptr_t cancel_waiting_main(void *arg)
{
    struct gate gate = GATE;
    atomic_int calls = 0;
    weft_task *running = weft_spawn_blocking(pass_gate, &gate);
    weft_task *waiting = weft_spawn(call_count, &calls);

    (void)arg;
    until(&gate.entered, 1);
    let_run();
    assert_int_equal(weft_cancel(waiting), 1);
    assert_int_equal(weft_await(waiting), -ECANCELED);

    open_gate(&gate);
    assert_int_equal(weft_await(running), 7);
    assert_int_equal(weft_blocking(count, &calls), 1); /* the cancelled one never ran */
    return 0;
}

static void cancelled_call_that_has_not_started_is_removed(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), cancel_waiting_main, NULL);
}

static intptr_t deadline_waiting_main(void *arg)
{
    struct gate gate = GATE;
    atomic_int calls = 0;
    weft_task *running = weft_spawn_blocking(pass_gate, &gate);
    weft_timeout scope;

    (void)arg;
    until(&gate.entered, 1);
    assert_int_equal(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    assert_int_equal(weft_blocking(count, &calls), -ETIMEDOUT);
    assert_int_equal(weft_timeout_end(&scope), 1);

    open_gate(&gate);
    assert_int_equal(weft_await(running), 7);
    assert_int_equal(weft_blocking(count, &calls), 1);
    return 0;
}

static void deadline_removes_a_call_that_has_not_started(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), deadline_waiting_main, NULL);
}

static intptr_t cancel_running_main(void *arg)
{
    struct gate gate = GATE;
    weft_task *task = weft_spawn(call_pass_gate, &gate);

    (void)arg;
    until(&gate.entered, 1);
    assert_int_equal(weft_cancel(task), 1);
    let_run();
    assert_int_equal(atomic_load(&gate.passed), 0);
    open_gate(&gate);
    assert_int_equal(weft_await(task), 7);
    return 0;
}

static void cancelled_call_that_runs_is_waited_for(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), cancel_running_main, NULL);
}

static intptr_t sleep_5ms(void *arg)
{
    (void)arg;
    usleep(5000);
    return 5;
}

static intptr_t deadline_running_main(void *arg)
{
    weft_timeout scope;

    (void)arg;
    assert_int_equal(weft_blocking(sleep_5ms, NULL), 5); /* there is a thread from now on */
    assert_int_equal(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    assert_int_equal(weft_blocking(sleep_5ms, NULL), 5);
    assert_int_equal(weft_sleep(WEFT_SEC(10)), -ETIMEDOUT); /* the scope still holds for what follows */
    assert_int_equal(weft_timeout_end(&scope), 1);
    return 0;
}

static void deadline_does_not_cut_a_running_call(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), deadline_running_main, NULL);
}

static intptr_t cancelled_caller(void *arg)
{
    assert_int_equal(weft_cancel(weft_self()), 1);
    assert_int_equal(weft_blocking(count, arg), -ECANCELED);
    assert_int_equal(weft_blocking_abandonable(count, arg, NULL), -ECANCELED);
    assert_int_equal(weft_mask_begin(), 0);
    assert_int_equal(weft_blocking(count, arg), 1);
    assert_int_equal(weft_mask_end(), 0);
    return 9;
}

static intptr_t cancelled_caller_main(void *arg)
{
    atomic_int calls = 0;

    (void)arg;
    assert_int_equal(weft_await(weft_spawn(cancelled_caller, &calls)), 9);
    return 0;
}

static void cancelled_task_may_call_inside_a_mask_only(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), cancelled_caller_main, NULL);
}

/* ---- abandoning ---- */

static atomic_int orphans;

static void note_orphan(intptr_t result, void *arg)
{
    struct gate *gate = arg;

    if (result == 7 && atomic_load(&gate->passed) == 1)
        atomic_fetch_add(&orphans, 1);
}

static intptr_t call_abandonable(void *arg)
{
    return weft_blocking_abandonable(pass_gate, arg, note_orphan);
}

static intptr_t abandon_main(void *arg)
{
    static struct gate gate = GATE;
    weft_task *task = weft_spawn(call_abandonable, &gate);

    (void)arg;
    until(&gate.entered, 1);
    assert_int_equal(weft_cancel(task), 1);
    assert_int_equal(weft_await(task), -ECANCELED);
    assert_int_equal(atomic_load(&orphans), 0);
    open_gate(&gate);
    until(&orphans, 1);
    return 0;
}

static void abandoned_call_ends_in_its_orphan_function(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), abandon_main, NULL);
    assert_int_equal(atomic_load(&orphans), 1);
}

/* An orphan function for calls that must not run: the error, and how often. */
struct unrun {
    atomic_int times;
    _Atomic intptr_t result;
};

static void note_unrun(intptr_t result, void *arg)
{
    struct unrun *unrun = arg;

    atomic_store(&unrun->result, result);
    atomic_fetch_add(&unrun->times, 1);
}

static intptr_t must_not_run(void *arg)
{
    (void)arg;
    abort();
}

static intptr_t call_unrun(void *arg)
{
    return weft_blocking_abandonable(must_not_run, arg, note_unrun);
}

static intptr_t call_unrun_late(void *arg)
{
    weft_timeout scope;
    intptr_t result;

    weft_timeout_begin(&scope, WEFT_MS(2));
    result = call_unrun(arg);
    weft_timeout_end(&scope);
    return result;
}

static intptr_t call_unrun_cancelled(void *arg)
{
    assert_int_equal(weft_cancel(weft_self()), 1);
    return call_unrun(arg);
}

static void assert_given_to_orphan(struct unrun *unrun, intptr_t result, intptr_t expected)
{
    assert_int_equal(result, expected);
    assert_int_equal(atomic_load(&unrun->times), 1);
    assert_int_equal(atomic_load(&unrun->result), expected);
}

static intptr_t abandon_waiting_main(void *arg)
{
    struct gate gate = GATE;
    struct unrun unrun[5] = {{0}};
    weft_task *running = weft_spawn_blocking(pass_gate, &gate);
    weft_task *waiting = weft_spawn(call_unrun, &unrun[0]);
    weft_task *handle;

    (void)arg;
    until(&gate.entered, 1);
    let_run();
    assert_int_equal(weft_cancel(waiting), 1);
    assert_given_to_orphan(&unrun[0], weft_await(waiting), -ECANCELED);
    assert_given_to_orphan(&unrun[1], weft_await(weft_spawn(call_unrun_late, &unrun[1])), -ETIMEDOUT);
    assert_given_to_orphan(&unrun[2], weft_await(weft_spawn(call_unrun_cancelled, &unrun[2])), -ECANCELED);

    handle = weft_spawn_blocking_abandonable(must_not_run, &unrun[3], note_unrun);
    assert_int_equal(weft_cancel(handle), 1);
    assert_given_to_orphan(&unrun[3], weft_await(handle), -ECANCELED);

    open_gate(&gate);
    assert_int_equal(weft_await(running), 7);
    return 0;
}

static void abandonable_call_that_has_not_started_is_removed(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), abandon_waiting_main, NULL);
}

static intptr_t refused_main(void *arg)
{
    struct gate gate = GATE;
    struct unrun unrun[2] = {{0}};
    weft_task *running = weft_spawn_blocking(pass_gate, &gate);
    weft_task *queued = weft_spawn_blocking(add_one, NULL);

    (void)arg;
    until(&gate.entered, 1);
    assert_given_to_orphan(&unrun[0], call_unrun(&unrun[0]), -EAGAIN);
    assert_null(weft_spawn_blocking_abandonable(must_not_run, &unrun[1], note_unrun));
    assert_int_equal(atomic_load(&unrun[1].times), 0); /* without a handle, nothing has happened */
    open_gate(&gate);
    assert_int_equal(weft_await(queued), 1);
    assert_int_equal(weft_await(running), 7);
    return 0;
}

static void abandonable_call_that_is_refused_goes_to_its_orphan_function(void **state)
{
    struct unrun outside = {0};

    (void)state;
    run(start(1, 1, 1000), refused_main, NULL);
    assert_given_to_orphan(&outside, call_unrun(&outside), -EPERM);
}

static struct gate stopped_gate = GATE;
static struct unrun stopped;

/* The call waits in the queue when the runtime stops. */
static intptr_t stopped_main(void *arg)
{
    (void)arg;
    weft_detach(weft_spawn_blocking(pass_gate, &stopped_gate));
    until(&stopped_gate.entered, 1);
    weft_detach(weft_spawn(call_unrun, &stopped));
    let_run();
    return 0;
}

static void *open_once_it_is_given_up(void *arg)
{
    until(&stopped.times, 1);
    open_gate(&stopped_gate);
    return arg;
}

static void a_call_that_waits_at_the_end_goes_to_its_orphan_function(void **state)
{
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, open_once_it_is_given_up, NULL), 0);
    run(start(1, WEFT_UNBOUNDED, 1000), stopped_main, NULL);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&stopped.times), 1);
}

/* ---- handles ---- */

static intptr_t handle_main(void *arg)
{
    struct gate gate = GATE;
    atomic_int calls = 0;
    weft_task *running = weft_spawn_blocking(pass_gate, &gate);
    weft_task *cancelled = weft_spawn_blocking(count, &calls);
    weft_task *detached = weft_spawn_blocking(count, &calls);

    (void)arg;
    until(&gate.entered, 1);
    assert_int_equal(weft_cancel(cancelled), 1);
    assert_int_equal(weft_await(cancelled), -ECANCELED);
    weft_detach(detached);
    assert_int_equal(weft_cancel(running), 1);
    open_gate(&gate);
    assert_int_equal(weft_await(running), 7);
    until(&calls, 1);
    assert_int_equal(weft_blocking(count, &calls), 2);
    return 0;
}

static void handle_can_be_awaited_cancelled_and_detached(void **state)
{
    (void)state;
    run(start(1, WEFT_UNBOUNDED, 1000), handle_main, NULL);
}

static intptr_t cancel_late(void *arg)
{
    weft_timeout timeout;
    intptr_t result;

    assert_int_equal(weft_timeout_begin(&timeout, WEFT_MS(5)), 0);
    result = weft_await(arg);
    assert_int_equal(weft_timeout_end(&timeout), 1);
    return result;
}

static intptr_t abandon_handle_main(void *arg)
{
    static struct gate gate, late_gate;
    int before = atomic_load(&orphans);
    weft_task *task, *waiting, *late;
    atomic_int calls = 0;

    (void)arg;
    gate = late_gate = (struct gate)GATE;
    task = weft_spawn_blocking_abandonable(pass_gate, &gate, note_orphan);
    waiting = weft_spawn_blocking_abandonable(count, &calls, NULL);
    until(&gate.entered, 1);
    assert_int_equal(weft_cancel(waiting), 1); /* it has not started: removed */
    assert_int_equal(weft_await(waiting), -ECANCELED);
    assert_int_equal(weft_cancel(task), 1);
    assert_int_equal(weft_await(task), -ECANCELED); /* while the call runs */
    assert_int_equal(atomic_load(&gate.passed), 0);
    open_gate(&gate);
    until(&orphans, before + 1);
    assert_int_equal(atomic_load(&calls), 0);

    /* An awaiter that is late does not wait for the call either. */
    late = weft_spawn_blocking_abandonable(pass_gate, &late_gate, note_orphan);
    until(&late_gate.entered, 1);
    assert_int_equal(weft_await(weft_spawn(cancel_late, late)), -ETIMEDOUT);
    assert_int_equal(atomic_load(&late_gate.passed), 0);
    open_gate(&late_gate);
    until(&orphans, before + 2);

    assert_int_equal(weft_await(weft_spawn_blocking_abandonable(add_one, (void *)1, NULL)), 2);
    return 0;
}

static void abandoned_handle_ends_at_once_and_its_call_in_the_orphan_function(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        run(start(1, WEFT_UNBOUNDED, 1000), abandon_handle_main, NULL);
}

static atomic_int seen_by_orphan;

static void count_orphan(intptr_t result, void *arg)
{
    (void)arg;
    if (result == 4)
        atomic_fetch_add(&seen_by_orphan, 1);
}

/* Cancelled before, while or after it runs: the result is seen by the awaiter or by the orphan function, once. */
static intptr_t race_main(void *arg)
{
    int seen_by_awaiter = 0;

    (void)arg;
    for (int i = 0; i < 2000; i++) {
        weft_task *task = weft_spawn_blocking_abandonable(add_one, (void *)3, count_orphan);

        for (volatile int spin = i % 50 * 100; spin > 0; spin--)
            ;
        weft_cancel(task);
        if (weft_await(task) == 4)
            seen_by_awaiter++;
    }
    /* Every call that has begun. */
    while ((uint64_t)(seen_by_awaiter + atomic_load(&seen_by_orphan)) < stats().blocking_jobs)
        weft_sleep(WEFT_US(100));
    assert_int_equal(seen_by_awaiter + atomic_load(&seen_by_orphan), stats().blocking_jobs);
    return 0;
}

static void every_result_has_one_owner(void **state)
{
    (void)state;
    atomic_store(&seen_by_orphan, 0);
    run(start(4, WEFT_UNBOUNDED, 1000), race_main, NULL);
}

/* ---- the end ---- */

static struct gate last_gate = GATE;

static intptr_t hold_out_main(void *arg)
{
    const weft_spawn_options options = {.name = "stubborn"};
    weft_task *task = weft_spawn_with(&options, call_pass_gate, &last_gate);

    (void)arg;
    until(&last_gate.entered, 1);
    weft_detach(task);
    return 0;
}

/* In a process of its own: what holds out is left behind. */
static void hold_out(void)
{
    weft_runtime *runtime = start(1, WEFT_UNBOUNDED, 1000);
    int ok = weft_runtime_run(runtime, hold_out_main, NULL) == 0 &&
             weft_runtime_stop(runtime, WEFT_MS(20)) == -ETIMEDOUT;

    _exit(ok ? 0 : 1);
}

static void stop_leaves_running_calls_behind_by_name(void **state)
{
    char output[4096];
    size_t length = 0;
    ssize_t got;
    int status;
    int ends[2];
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        hold_out();
    }
    close(ends[1]);
    while (length < sizeof output - 1 && (got = read(ends[0], output + length, sizeof output - 1 - length)) > 0)
        length += (size_t)got;
    output[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_non_null(strstr(output, "blocking call"));
    assert_non_null(strstr(output, "stubborn"));
}

static intptr_t detach_some(void *arg)
{
    for (int i = 0; i < 8; i++)
        weft_detach(weft_spawn_blocking(count, arg));
    return 0;
}

static void runtimes_have_pools_of_their_own(void **state)
{
    weft_runtime *a = start(2, WEFT_UNBOUNDED, 1000);
    weft_runtime *b = start(2, WEFT_UNBOUNDED, 1000);
    weft_stats counted;
    atomic_int calls = 0;

    (void)state;
    assert_int_equal(weft_runtime_run(a, one_after_another_main, NULL), 0);
    weft_runtime_stats(a, &counted);
    assert_int_equal(counted.blocking_jobs, 100);
    weft_runtime_stats(b, &counted);
    assert_int_equal(counted.blocking_jobs, 0);
    assert_int_equal(counted.blocking_threads, 0);
    run(b, detach_some, &calls);
    run(a, detach_some, &calls);
    assert_true(atomic_load(&calls) <= 16); /* those that had not started were cancelled */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(result_is_that_of_the_call),
        cmocka_unit_test(outside_a_task_calls_are_refused),
        cmocka_unit_test(pool_threads_have_a_name_and_take_no_signals),
        cmocka_unit_test(calls_that_wait_for_each_other_all_get_a_thread),
        cmocka_unit_test(short_calls_before_do_not_keep_long_ones_from_their_threads),
        cmocka_unit_test(calls_one_after_another_share_one_thread),
        cmocka_unit_test(threads_never_exceed_the_limit),
        cmocka_unit_test(idle_threads_end_after_the_keep_alive),
        cmocka_unit_test(waiting_calls_are_taken_first_in_first_out),
        cmocka_unit_test(full_queue_refuses_and_counts),
        cmocka_unit_test(cancelled_call_that_has_not_started_is_removed),
        cmocka_unit_test(deadline_removes_a_call_that_has_not_started),
        cmocka_unit_test(cancelled_call_that_runs_is_waited_for),
        cmocka_unit_test(deadline_does_not_cut_a_running_call),
        cmocka_unit_test(cancelled_task_may_call_inside_a_mask_only),
        cmocka_unit_test(abandoned_call_ends_in_its_orphan_function),
        cmocka_unit_test(abandonable_call_that_has_not_started_is_removed),
        cmocka_unit_test(abandonable_call_that_is_refused_goes_to_its_orphan_function),
        cmocka_unit_test(a_call_that_waits_at_the_end_goes_to_its_orphan_function),
        cmocka_unit_test(handle_can_be_awaited_cancelled_and_detached),
        cmocka_unit_test(abandoned_handle_ends_at_once_and_its_call_in_the_orphan_function),
        cmocka_unit_test(every_result_has_one_owner),
        cmocka_unit_test(stop_leaves_running_calls_behind_by_name),
        cmocka_unit_test(runtimes_have_pools_of_their_own),
    };

    alarm(120);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
