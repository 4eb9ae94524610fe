/* Runtimes: several in a process, failing to start, stopping, threads outside, counters. */
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "support.h"

static weft_runtime *start(uint32_t workers)
{
    weft_config config = {.workers = workers};
    weft_runtime *runtime;

    must_be(weft_runtime_start(&config, &runtime), 0);
    must_be(weft_runtime_workers(runtime), workers);
    return runtime;
}

static void stop(weft_runtime *runtime)
{
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
}

static atomic_int counted;

static intptr_t count_one(void *arg)
{
    atomic_fetch_add(&counted, 1);
    return (intptr_t)arg;
}

/* ---- several ---- */

static void one_after_the_other_leaves_nothing_behind(void **state)
{
    unsigned descriptors, threads;

    (void)state;
    stop(start(2)); /* what is made once is made */
    descriptors = count_descriptors();
    threads = count_threads();
    for (int i = 0; i < FEWER(100); i++) {
        weft_runtime *runtime = start(1 + (uint32_t)i % 5);

        if (i % 3)
            assert_int_equal(weft_runtime_run(runtime, return_arg, (void *)7), 7);
        stop(runtime);
    }
    assert_int_equal(count_descriptors(), descriptors);
    settle_threads(threads);
}

static intptr_t works(void *arg)
{
    weft_task *tasks[20];
    intptr_t sum = 0;

    must(weft_runtime_current() == arg);
    for (intptr_t i = 0; i < 20; i++)
        must((tasks[i] = weft_spawn(return_arg, (void *)i)) != NULL);
    must_be(weft_sleep(WEFT_US(100)), 0);
    must(weft_runtime_current() == arg);
    for (int i = 0; i < 20; i++)
        sum += weft_await(tasks[i]);
    must_be(sum, 190);
    return 1;
}

static void several_at_once_do_not_disturb_each_other(void **state)
{
    enum { RUNTIMES = 5, ROUNDS = 20 };
    weft_runtime *runtimes[RUNTIMES];
    weft_task *tasks[RUNTIMES][ROUNDS];

    (void)state;
    for (int i = 0; i < RUNTIMES; i++)
        runtimes[i] = start(1 + (uint32_t)i);
    for (int k = 0; k < ROUNDS; k++)
        for (int i = 0; i < RUNTIMES; i++)
            assert_non_null(tasks[i][k] = weft_runtime_spawn(runtimes[i], works, runtimes[i]));
    for (int i = 0; i < RUNTIMES; i++)
        for (int k = 0; k < ROUNDS; k++)
            assert_int_equal(weft_await(tasks[i][k]), 1);
    for (int i = 0; i < RUNTIMES; i++)
        stop(runtimes[i]);
}

/* ---- tasks of one runtime and another runtime ---- */

struct pair {
    weft_runtime *here;
    weft_runtime *there;
    int depth;
};

/* Hand over to and fro between the runtimes. */
static intptr_t bounce(void *arg)
{
    struct pair *pair = arg;
    struct pair back = {pair->there, pair->here, pair->depth - 1};
    weft_task *task;

    must(weft_runtime_current() == pair->here);
    if (pair->depth == 0)
        return 0;
    must((task = weft_runtime_spawn(pair->there, bounce, &back)) != NULL);
    if (pair->depth % 3 == 0)
        must_be(weft_sleep(WEFT_US(50)), 0);
    return weft_await(task) + 1;
}

static intptr_t must_not_run(void *unused)
{
    (void)unused;
    must(!"run");
    return 0;
}

static intptr_t cannot_run_there(void *arg)
{
    struct pair *pair = arg;

    must_be(weft_runtime_run(pair->there, must_not_run, NULL), -EPERM);
    return 0;
}

static intptr_t run_there(void *arg)
{
    struct pair *pair = arg;

    must_be(weft_runtime_run(pair->here, return_arg, NULL), -EALREADY);
    must_be(weft_await(weft_spawn_stackless(cannot_run_there, pair)), 0);
    return weft_runtime_run(pair->there, return_arg, (void *)9);
}

static void tasks_of_one_runtime_spawn_into_another_and_await(void **state)
{
    weft_runtime *a = start(2), *b = start(3);
    struct pair pair = {a, b, 50};
    struct pair pairs[16];
    weft_task *tasks[16];

    (void)state;
    assert_int_equal(weft_runtime_run(a, bounce, &pair), 50);
    for (int i = 0; i < 16; i++) {
        pairs[i] = i % 2 ? (struct pair){a, b, 20} : (struct pair){b, a, 20};
        assert_non_null(tasks[i] = weft_runtime_spawn(i % 2 ? a : b, bounce, &pairs[i]));
    }
    for (int i = 0; i < 16; i++)
        assert_int_equal(weft_await(tasks[i]), 20);
    assert_int_equal(weft_runtime_run(a, run_there, &pair), 9);
    settle(a);
    settle(b);
    stop(a);
    stop(b);
}

static intptr_t cancels_there(void *arg)
{
    struct pair *pair = arg;
    weft_task *task = weft_runtime_spawn(pair->there, sleep_for_ever, NULL);
    weft_timeout t;

    must(task != NULL);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    must((task = weft_runtime_spawn(pair->there, sleep_for_ever, NULL)) != NULL);
    must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
    must_be(weft_await(task), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    return 0;
}

static void cancellation_reaches_the_other_runtime(void **state)
{
    weft_runtime *a = start(1), *b = start(1);
    struct pair pair = {a, b, 0};

    (void)state;
    for (int i = 0; i < 20; i++)
        assert_int_equal(weft_runtime_run(a, cancels_there, &pair), 0);
    settle(b);
    stop(a);
    stop(b);
}

/* ---- threads outside ---- */

struct outsider {
    weft_runtime *runtime;
    int count;
    pthread_t thread;
};

static intptr_t count_after_a_pause(void *arg)
{
    must_be(weft_yield(), 0);
    return count_one(arg);
}

static void *spawn_many(void *arg)
{
    struct outsider *outsider = arg;
    intptr_t sum = 0, expected = 0;

    for (int i = 0; i < outsider->count; i++) {
        weft_task *task;

        switch (i % 4) {
        case 0:
            must_be(weft_runtime_go(outsider->runtime, count_one, NULL), 0);
            break;
        case 1:
            must_be(weft_runtime_run(outsider->runtime, count_after_a_pause, (void *)5), 5);
            break;
        default:
            must((task = weft_runtime_spawn(outsider->runtime, i % 4 == 2 ? count_one : count_after_a_pause,
                                            (void *)(intptr_t)i)) != NULL);
            if (i % 8 == 3) {
                weft_detach(task);
                break;
            }
            sum += weft_await(task);
            expected += i;
        }
    }
    must_be(sum, expected);
    return NULL;
}

static void threads_outside_spawn_and_every_task_runs_once(void **state)
{
    enum { THREADS = 8 };

    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        weft_runtime *runtime = start(support_workers[i]);
        struct outsider outsiders[THREADS];
        weft_stats stats;

        atomic_store(&counted, 0);
        for (int k = 0; k < THREADS; k++) {
            outsiders[k] = (struct outsider){.runtime = runtime, .count = FEWER(2000)};
            assert_int_equal(pthread_create(&outsiders[k].thread, NULL, spawn_many, &outsiders[k]), 0);
        }
        for (int k = 0; k < THREADS; k++)
            assert_int_equal(pthread_join(outsiders[k].thread, NULL), 0);
        settle(runtime);
        assert_int_equal(atomic_load(&counted), THREADS * FEWER(2000));
        weft_runtime_stats(runtime, &stats);
        assert_int_equal(stats.spawned, THREADS * FEWER(2000));
        assert_int_equal(stats.ended, THREADS * FEWER(2000));
        stop(runtime);
    }
}

/* A thread with a mailbox, as a library that calls back would have. */
struct service {
    weft_chan *requests;
    pthread_t thread;
};

struct request {
    weft_promise *reply;
    intptr_t number;
};

static void *serve(void *arg)
{
    struct service *service = arg;
    struct request request;

    while (weft_chan_recv(service->requests, &request) == 0)
        must_be(weft_promise_set(request.reply, request.number * 2), 0);
    return NULL;
}

static intptr_t asks(void *arg)
{
    struct service *service = arg;

    for (intptr_t i = 0; i < 200; i++) {
        weft_promise reply = WEFT_PROMISE_INIT;
        struct request request = {&reply, i};

        must_be(weft_chan_send(service->requests, &request), 0);
        must_be(weft_await(&reply), i * 2);
    }
    return 1;
}

static void a_task_and_a_thread_outside_call_each_other(void **state)
{
    weft_runtime *runtime = start(2);
    struct service service = {.requests = weft_chan_new(sizeof(struct request), 4)};
    weft_task *tasks[4];

    (void)state;
    assert_non_null(service.requests);
    assert_int_equal(pthread_create(&service.thread, NULL, serve, &service), 0);
    for (int i = 0; i < 4; i++)
        assert_non_null(tasks[i] = weft_runtime_spawn(runtime, asks, &service));
    for (int i = 0; i < 4; i++)
        assert_int_equal(weft_await(tasks[i]), 1);
    assert_int_equal(weft_chan_close(service.requests), 0);
    assert_int_equal(pthread_join(service.thread, NULL), 0);
    weft_chan_free(service.requests);
    stop(runtime);
}

/* ---- failing to start ---- */

static void fail_for_descriptors(void *arg)
{
    unsigned before = count_descriptors(), threads = count_threads();
    struct rlimit limit;
    int failures = 0;
    (void)arg;

    must_be(getrlimit(RLIMIT_NOFILE, &limit), 0);
    /* One more each time, until it starts. */
    for (rlim_t allowed = 3;; allowed++) {
        struct rlimit tight = {allowed, limit.rlim_max};
        weft_config config = {.workers = 4};
        weft_runtime *runtime = (weft_runtime *)&limit;
        int rc;

        must_be(setrlimit(RLIMIT_NOFILE, &tight), 0);
        rc = weft_runtime_start(&config, &runtime);
        must_be(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (rc == 0) {
            must_be(weft_runtime_run(runtime, return_arg, (void *)3), 3);
            stop(runtime);
        } else {
            must_be(rc, -EMFILE);
            failures++;
        }
        must_be(count_descriptors(), before);
        settle_threads(threads);
        if (rc == 0)
            break;
    }
    must(failures >= 4);
}

/* The number of threads is limited for a user, and not for root: so as somebody else, whose count is his alone. */
static void fail_for_threads(void *arg)
{
    unsigned before = count_descriptors(), threads = count_threads();
    int failures = 0;
    (void)arg;

    if (geteuid() == 0 && syscall(SYS_setresuid, 61234, 61234, 61234) != 0)
        _exit(0);
    for (rlim_t allowed = 1; allowed < 200; allowed++) {
        struct rlimit tight = {allowed, 200};
        weft_config config = {.workers = 4};
        weft_runtime *runtime;
        int rc;

        must_be(setrlimit(RLIMIT_NPROC, &tight), 0);
        rc = weft_runtime_start(&config, &runtime);
        if (rc == 0) {
            must_be(weft_runtime_run(runtime, return_arg, (void *)3), 3);
            stop(runtime);
        } else {
            must_be(rc, -EAGAIN);
            failures++;
        }
        must_be(count_descriptors(), before);
        settle_threads(threads);
        if (rc == 0)
            break;
    }
    (void)failures; /* none if something else keeps the limit from being applied */
}

static void fail_for_memory(void *arg)
{
    unsigned before = count_descriptors(), threads = count_threads();
    rlim_t allowed = 8 << 20;
    int rc;
    (void)arg;

    do {
        struct rlimit tight = {allowed, RLIM_INFINITY};
        weft_config config = {.workers = 4};
        weft_runtime *runtime;

        must_be(setrlimit(RLIMIT_AS, &tight), 0);
        rc = weft_runtime_start(&config, &runtime);
        if (rc == 0)
            stop(runtime);
        else
            must(rc == -ENOMEM || rc == -EAGAIN);
        tight.rlim_cur = RLIM_INFINITY;
        must_be(setrlimit(RLIMIT_AS, &tight), 0);
        must_be(count_descriptors(), before);
        settle_threads(threads);
        allowed += allowed / 8;
    } while (rc != 0 && allowed < (rlim_t)1 << 46);
    must_be(rc, 0);
}

static void fails_cleanly(void (*fn)(void *))
{
    char text[4096];
    int status = run_in_child(fn, NULL, text, sizeof text);

    if (status != 0)
        print_message("%s", text);
    assert_int_equal(status, 0);
}

static void without_descriptors_it_fails_to_start_and_leaves_nothing(void **state)
{
    (void)state;
    fails_cleanly(fail_for_descriptors);
}

static void without_threads_it_fails_to_start_and_leaves_nothing(void **state)
{
    (void)state;
    if (SUPPORT_SANITIZED)
        skip();
    fails_cleanly(fail_for_threads);
}

static void without_memory_it_fails_to_start_and_leaves_nothing(void **state)
{
    (void)state;
    if (SUPPORT_SANITIZED)
        skip();
    fails_cleanly(fail_for_memory);
}

static void misuse_is_refused(void **state)
{
    weft_config config = {.workers = 100000};
    weft_runtime *runtime = start(1);

    (void)state;
    assert_int_equal(weft_runtime_start(&config, NULL), -EINVAL);
    assert_int_equal(weft_runtime_start(&config, &runtime), -EINVAL);
    assert_int_equal(weft_runtime_run(runtime, NULL, NULL), -EINVAL);
    assert_int_equal(weft_runtime_run(NULL, return_arg, NULL), -EINVAL);
    assert_int_equal(weft_runtime_stop(NULL, 0), -EINVAL);
    stop(runtime);
}

/* ---- stopping ---- */

static atomic_int waiting, cancelled;
static weft_event never;
static int pair_fds[2];

static intptr_t waits(void *arg)
{
    intptr_t rc;
    char byte;

    atomic_fetch_add(&waiting, 1);
    switch ((intptr_t)arg % 5) {
    case 0:
        rc = weft_sleep(WEFT_SEC(1000));
        break;
    case 1:
        rc = weft_event_wait(&never);
        break;
    case 2:
        rc = weft_read(pair_fds[0], &byte, 1);
        break;
    case 3:
        rc = weft_await(weft_spawn(sleep_for_ever, NULL));
        break;
    default:
        do
            rc = weft_yield();
        while (rc == 0);
        break;
    }
    must_be(rc, -ECANCELED);
    must_be(weft_sleep(1), -ECANCELED);
    must_be(weft_mask_begin(), 0);
    must_be(weft_sleep(WEFT_MS(2)), 0); /* tidying up may take a while */
    must_be(weft_mask_end(), 0);
    atomic_fetch_add(&cancelled, 1);
    return rc;
}

static void stopping_cancels_whatever_waits(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        weft_runtime *runtime = start(support_workers[i]);

        atomic_store(&waiting, 0);
        atomic_store(&cancelled, 0);
        never = (weft_event)WEFT_EVENT_INIT;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair_fds), 0);
        for (intptr_t k = 0; k < 100; k++)
            assert_int_equal(weft_runtime_go(runtime, waits, (void *)k), 0);
        while (atomic_load(&waiting) < 100)
            nap(WEFT_MS(1));
        if (i % 2)
            nap(WEFT_MS(2));
        stop(runtime);
        assert_int_equal(atomic_load(&cancelled), 100);
        weft_close(pair_fds[0]);
        weft_close(pair_fds[1]);
    }
}

static void stopping_at_once_runs_no_task_that_has_not_started(void **state)
{
    (void)state;
    for (int i = 0; i < FEWER(200); i++) {
        weft_runtime *runtime = start(1 + (uint32_t)i % 3);
        weft_task *task = weft_runtime_spawn(runtime, sleep_for_ever, NULL);

        assert_non_null(task);
        weft_detach(task);
        stop(runtime);
    }
}

static void ignore_cancellation(void *arg)
{
    weft_config config = {.workers = 2};
    weft_runtime *runtime;
    intptr_t (*fn)(void *) = (weft_fn *)(uintptr_t)arg;
    int rc;

    must_be(weft_runtime_start(&config, &runtime), 0);
    must_be(weft_runtime_run(runtime, fn, NULL), 0);
    rc = weft_runtime_stop(runtime, WEFT_MS(100));
    must_be(rc, -ETIMEDOUT);
    _exit(17);
}

static intptr_t waits_masked(void *arg)
{
    (void)arg;
    must_be(weft_mask_begin(), 0);
    return weft_sleep(WEFT_SEC(1000));
}

static intptr_t waits_in_the_kernel(void *arg)
{
    (void)arg;
    nap(WEFT_SEC(1000));
    return 0;
}

static intptr_t leave_masked(void *arg)
{
    weft_spawn_options options = {.name = "stubborn"};

    (void)arg;
    weft_detach(weft_spawn_with(&options, waits_masked, NULL));
    return weft_sleep(WEFT_MS(5));
}

static intptr_t leave_blocking(void *arg)
{
    weft_spawn_options options = {.name = "stubborn"};

    (void)arg;
    weft_detach(weft_spawn_with(&options, waits_in_the_kernel, NULL));
    return weft_sleep(WEFT_MS(5));
}

static void stopping_names_those_that_hold_out(void **state)
{
    weft_fn *fns[] = {leave_masked, leave_blocking};

    (void)state;
    for (int i = 0; i < 2; i++) {
        char text[8192];
        int status = run_in_child(ignore_cancellation, (void *)(uintptr_t)fns[i], text, sizeof text);

        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 17);
        assert_non_null(strstr(text, "stubborn"));
    }
}

static weft_runtime *stopping_runtime;
static atomic_int told;

static intptr_t notices_the_end(void *arg)
{
    (void)arg;
    atomic_store(&told, 3);
    must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
    atomic_store(&told, 1);
    must_be(weft_mask_begin(), 0);
    while (atomic_load(&told) != 2)
        must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(weft_mask_end(), 0);
    return 0;
}

static void *stop_it(void *arg)
{
    stop(arg);
    return NULL;
}

static void nothing_is_taken_while_it_stops(void **state)
{
    pthread_t thread;

    (void)state;
    atomic_store(&told, 0);
    stopping_runtime = start(2);
    assert_int_equal(weft_runtime_go(stopping_runtime, notices_the_end, NULL), 0);
    while (atomic_load(&told) != 3) /* cancelled earlier it would never run */
        nap(WEFT_MS(1));
    assert_int_equal(pthread_create(&thread, NULL, stop_it, stopping_runtime), 0);
    while (atomic_load(&told) != 1)
        nap(WEFT_MS(1));
    assert_null(weft_runtime_spawn(stopping_runtime, return_arg, NULL));
    assert_int_equal(weft_runtime_go(stopping_runtime, return_arg, NULL), -ESHUTDOWN);
    assert_int_equal(weft_runtime_run(stopping_runtime, return_arg, NULL), -ESHUTDOWN);
    atomic_store(&told, 2);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* ---- counters ---- */

static intptr_t makes_numbers(void *arg)
{
    weft_task *tasks[100];
    weft_stats before, after;
    weft_runtime *runtime = weft_runtime_current();

    (void)arg;
    weft_runtime_stats(runtime, &before);
    must_be(before.live_tasks, 1);
    must(before.stacks >= 1);
    for (int i = 0; i < 100; i++)
        must((tasks[i] = weft_spawn(return_arg, NULL)) != NULL);
    weft_runtime_stats(runtime, &after);
    must_be(after.spawned, before.spawned + 100);
    must_be(after.live_tasks, 101);
    for (int i = 0; i < 50; i++)
        must_be(weft_await(tasks[i]), 0);
    weft_runtime_stats(runtime, &after);
    must_be(after.ran_in_place, before.ran_in_place + 50);
    must_be(weft_yield(), 0);
    for (int i = 50; i < 100; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(weft_blocking(return_arg, (void *)1), 1);
    weft_runtime_stats(runtime, &after);
    must_be(after.live_tasks, 1);
    must_be(after.ended, before.ended + 100);
    must(after.dispatched >= before.dispatched + 51);
    must_be(after.timers_fired, before.timers_fired + 1);
    must_be(after.blocking_jobs, before.blocking_jobs + 1);
    must(after.blocking_threads >= 1);
    must_be(after.blocking_refused, 0);
    must(after.sleeps > 0);
    must(after.polls > 0);
    must_be(after.steals, 0);
    must_be(after.takeovers, 0);
    return 0;
}

static void counters_count(void **state)
{
    (void)state;
    assert_int_equal(run_alone(makes_numbers, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_after_the_other_leaves_nothing_behind),
        cmocka_unit_test(several_at_once_do_not_disturb_each_other),
        cmocka_unit_test(tasks_of_one_runtime_spawn_into_another_and_await),
        cmocka_unit_test(cancellation_reaches_the_other_runtime),
        cmocka_unit_test(threads_outside_spawn_and_every_task_runs_once),
        cmocka_unit_test(a_task_and_a_thread_outside_call_each_other),
        cmocka_unit_test(without_descriptors_it_fails_to_start_and_leaves_nothing),
        cmocka_unit_test(without_threads_it_fails_to_start_and_leaves_nothing),
        cmocka_unit_test(without_memory_it_fails_to_start_and_leaves_nothing),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(stopping_cancels_whatever_waits),
        cmocka_unit_test(stopping_at_once_runs_no_task_that_has_not_started),
        cmocka_unit_test(stopping_names_those_that_hold_out),
        cmocka_unit_test(nothing_is_taken_while_it_stops),
        cmocka_unit_test(counters_count),
    };

    return run_all(tests, argc, argv);
}
