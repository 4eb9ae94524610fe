/* weft_once: one call, one at a time after failures, giving up at every point, tasks mixed with threads. */
#include "tests/support.h"

#include "tests/rival.h"

static const uint32_t counts[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static weft_once once;
static weft_event go_on;
static atomic_int calls, inside;
static int failures; /* so many calls fail; changed by the call itself */

static void begin(int failures_first)
{
    once = (weft_once)WEFT_ONCE_INIT;
    go_on = (weft_event)WEFT_EVENT_INIT;
    atomic_store(&calls, 0);
    failures = failures_first;
}

static intptr_t call(void *arg)
{
    intptr_t result = (intptr_t)arg;

    must_be(atomic_fetch_add(&inside, 1), 0);
    atomic_fetch_add(&calls, 1);
    if (failures > 0) {
        failures--;
        result = -EIO;
    }
    must_be(atomic_fetch_sub(&inside, 1), 1);
    return result;
}

static intptr_t call_when_told(void *arg)
{
    int rc = weft_event_wait(&go_on);

    return rc < 0 ? rc : call(arg);
}

static void it_is_called_until_it_succeeds(void **state)
{
    (void)state;
    memset(&once, 0, sizeof once);
    atomic_store(&calls, 0);
    failures = 2;
    assert_int_equal(weft_once_do(&once, call, NULL), -EIO);
    assert_int_equal(weft_once_do(&once, call, NULL), -EIO);
    for (int i = 0; i < 3; i++)
        assert_int_equal(weft_once_do(&once, call, (void *)(intptr_t)12345), 0);
    assert_int_equal(atomic_load(&calls), 3);
}

static intptr_t do_once(void *arg)
{
    return weft_once_do(&once, call_when_told, arg);
}

/* On one worker a yield lets everybody else run until it waits: the first inside the call, the others for it. */
static void queue(weft_task **tasks, int n, int failures_first)
{
    begin(failures_first);
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(do_once, NULL)) != NULL);
    yield_times(1);
    must_be(atomic_load(&calls), 0);
}

static intptr_t all_wait(void *arg)
{
    weft_task *tasks[5];

    (void)arg;
    for (int fail = 0; fail < 5; fail++) {
        queue(tasks, 5, fail);
        weft_event_set(&go_on);
        for (int i = 0; i < 5; i++)
            must_be(weft_await(tasks[i]), i < fail ? -EIO : 0);
        must_be(atomic_load(&calls), fail + 1);
    }
    return 0;
}

static void those_that_wait_try_one_after_the_other_until_it_succeeds(void **state)
{
    (void)state;
    assert_int_equal(run_alone(all_wait, NULL), 0);
}

static intptr_t only_one_next(void *arg)
{
    weft_task *tasks[4], *newcomer;

    (void)arg;
    queue(tasks, 4, 1);
    weft_event_set(&go_on);
    weft_event_clear(&go_on);
    must_be(weft_await(tasks[0]), -EIO);
    yield_times(3);
    must_be(atomic_load(&calls), 1); /* the second is inside, the others still wait */
    must((newcomer = weft_spawn(do_once, NULL)) != NULL);
    yield_times(3);
    must_be(weft_cancel(tasks[2]), 1);
    must_be(weft_await(tasks[2]), -ECANCELED);
    weft_event_set(&go_on);
    must_be(weft_await(tasks[1]), 0);
    must_be(weft_await(tasks[3]), 0);
    must_be(weft_await(newcomer), 0);
    return atomic_load(&calls);
}

static void after_a_failure_exactly_one_tries_next(void **state)
{
    (void)state;
    assert_int_equal(run_alone(only_one_next, NULL), 2);
}

static intptr_t cancelled_callers(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    /* The one inside: its call fails, the next succeeds. */
    queue(tasks, 3, 0);
    must_be(weft_cancel(tasks[0]), 1);
    must_be(weft_await(tasks[0]), -ECANCELED);
    weft_event_set(&go_on);
    must_be(weft_await(tasks[1]), 0);
    must_be(weft_await(tasks[2]), 0);
    must_be(atomic_load(&calls), 1);
    /* The one that is next, when the turn is on its way: it passes it on. */
    queue(tasks, 3, 0);
    must_be(weft_cancel(tasks[0]), 1);
    must_be(weft_cancel(tasks[1]), 1);
    must_be(weft_await(tasks[0]), -ECANCELED);
    must_be(weft_await(tasks[1]), -ECANCELED);
    weft_event_set(&go_on);
    must_be(weft_await(tasks[2]), 0);
    return atomic_load(&calls);
}

static void a_cancelled_caller_passes_the_turn_on(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_callers, NULL), 1);
}

static intptr_t late_or_cancelled(void *arg)
{
    weft_timeout scope;
    weft_task *task;

    (void)arg;
    queue(&task, 1, 0);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_once_do(&once, call, NULL), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    weft_event_set(&go_on);
    must_be(weft_await(task), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_once_do(&once, call, NULL), -ECANCELED);
    must_be(weft_uncancel(), 1);
    must_be(weft_once_do(&once, call, NULL), 0);
    return atomic_load(&calls);
}

static void deadlines_and_cancellation_end_the_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(late_or_cancelled, NULL), 1);
}

/* ---- races ---- */

static intptr_t call_and_yield(void *arg)
{
    intptr_t rc = weft_yield();

    return rc < 0 ? rc : call(arg);
}

static intptr_t do_and_yield(void *arg)
{
    return weft_once_do(&once, call_and_yield, arg);
}

enum { CALLERS = 5 };

static intptr_t lose_nothing(void *arg)
{
    uint64_t random = 0x5EED;

    (void)arg;
    for (int round = 0; round < FEWER(1000); round++) {
        weft_task *tasks[CALLERS];
        int fail = round % 3, failed = 0;
        unsigned victim = draw(&random) % CALLERS;

        begin(fail);
        for (unsigned i = 0; i < CALLERS; i++)
            must((tasks[i] = weft_spawn(do_and_yield, NULL)) != NULL);
        yield_times((int)(draw(&random) % 5));
        weft_cancel(tasks[victim]);
        for (unsigned i = 0; i < CALLERS; i++) {
            intptr_t rc = weft_await(tasks[i]);

            must(rc == 0 || rc == -EIO || (i == victim && rc == -ECANCELED));
            failed += rc == -EIO;
        }
        must_be(failed, fail);
        must_be(atomic_load(&calls), fail + 1);
        must_be(weft_once_do(&once, call, NULL), 0);
        must_be(atomic_load(&calls), fail + 1);
    }
    return 0;
}

static void the_turn_is_never_lost_nor_given_twice(void **state)
{
    (void)state;
    on_each(lose_nothing);
}

enum { CROWD = 100 };

static atomic_bool has_begun, may_end;

static intptr_t call_and_spin(void *arg)
{
    atomic_store(&has_begun, true);
    while (!atomic_load(&may_end))
        sched_yield();
    return call(arg);
}

static void do_in_rival(void *arg)
{
    (void)arg;
    must_be(weft_once_do(&once, call_and_spin, NULL), 0);
}

/* The last ones give up while those before them are told that it is done. */
static intptr_t crowd(void *arg)
{
    uint64_t random = 0xC0DE;
    struct rival rival;

    (void)arg;
    rival_start(&rival, do_in_rival);
    for (int round = 0; round < FEWER(300); round++) {
        weft_task *tasks[CROWD];

        begin(0);
        atomic_store(&has_begun, false);
        atomic_store(&may_end, false);
        rival_go(&rival, NULL);
        while (!atomic_load(&has_begun))
            yield_times(1);
        for (int i = 0; i < CROWD; i++)
            must((tasks[i] = weft_spawn(do_once, NULL)) != NULL);
        yield_times(2);
        atomic_store(&may_end, true);
        dawdle(&random);
        for (int i = CROWD - 1; i > CROWD / 2; i--)
            weft_cancel(tasks[i]);
        for (int i = 0; i < CROWD; i++) {
            intptr_t rc = weft_await(tasks[i]);

            must(rc == 0 || (i > CROWD / 2 && rc == -ECANCELED));
        }
        rival_wait(&rival);
        must_be(atomic_load(&calls), 1);
    }
    rival_end(&rival);
    return 0;
}

static void a_crowd_is_told_while_some_give_up(void **state)
{
    (void)state;
    on_each(crowd);
}

static void *do_in_thread(void *arg)
{
    for (;;) {
        int rc = weft_once_do(&once, call, arg);

        must(rc == 0 || rc == -EIO);
        if (rc == 0)
            return NULL;
    }
}

static intptr_t do_in_task(void *arg)
{
    do_in_thread(arg);
    return 0;
}

static intptr_t tasks_and_threads(void *arg)
{
    for (int round = 0; round < FEWER(200); round++) {
        weft_task *tasks[4];
        pthread_t threads[2];

        begin(round % 4);
        for (int i = 0; i < 4; i++)
            must((tasks[i] = weft_spawn(do_in_task, arg)) != NULL);
        for (int i = 0; i < 2; i++)
            must_be(pthread_create(&threads[i], NULL, do_in_thread, NULL), 0);
        for (int i = 0; i < 4; i++)
            must_be(weft_await(tasks[i]), 0);
        for (int i = 0; i < 2; i++)
            must_be(pthread_join(threads[i], NULL), 0);
        must_be(atomic_load(&calls), round % 4 + 1);
    }
    return 0;
}

static void tasks_and_threads_call_it_once(void **state)
{
    (void)state;
    on_each(tasks_and_threads);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_called_until_it_succeeds),
        cmocka_unit_test(those_that_wait_try_one_after_the_other_until_it_succeeds),
        cmocka_unit_test(after_a_failure_exactly_one_tries_next),
        cmocka_unit_test(a_cancelled_caller_passes_the_turn_on),
        cmocka_unit_test(deadlines_and_cancellation_end_the_wait),
        cmocka_unit_test(the_turn_is_never_lost_nor_given_twice),
        cmocka_unit_test(a_crowd_is_told_while_some_give_up),
        cmocka_unit_test(tasks_and_threads_call_it_once),
    };

    return run_all(tests, argc, argv);
}
