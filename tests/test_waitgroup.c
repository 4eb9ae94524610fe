/* weft_waitgroup: counting to zero, whom it wakes, limits, giving up at every point, tasks mixed with threads. */
#include "tests/support.h"

#include "tests/rival.h"

static const uint32_t counts[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static void counting_and_its_limits(void **state)
{
    weft_waitgroup group = WEFT_WAITGROUP_INIT, zeroed;

    (void)state;
    memset(&zeroed, 0, sizeof zeroed);
    assert_int_equal(weft_waitgroup_wait(&zeroed), 0);
    assert_int_equal(weft_waitgroup_done(&zeroed), -EINVAL);
    assert_int_equal(weft_waitgroup_add(&group, 3), 0);
    assert_int_equal(weft_waitgroup_add(&group, -4), -EINVAL);
    assert_int_equal(weft_waitgroup_add(&group, INT32_MIN), -EINVAL);
    assert_int_equal(weft_waitgroup_add(&group, INT32_MAX), -EOVERFLOW);
    assert_int_equal(weft_waitgroup_add(&group, (1 << 30) - 1), -EOVERFLOW);
    assert_int_equal(weft_waitgroup_add(&group, (1 << 30) - 4), 0);
    assert_int_equal(weft_waitgroup_add(&group, 1), -EOVERFLOW);
    assert_int_equal(weft_waitgroup_add(&group, 0), 0);
    assert_int_equal(weft_waitgroup_add(&group, 4 - (1 << 30)), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(weft_waitgroup_done(&group), 0);
    assert_int_equal(weft_waitgroup_wait(&group), 0);
    assert_int_equal(weft_waitgroup_done(&group), -EINVAL);
}

static weft_waitgroup shared;
static int woken;

static intptr_t wait_and_count(void *arg)
{
    int rc = weft_waitgroup_wait(arg);

    woken += rc == 0;
    return rc;
}

/* On one worker a yield lets everybody else run until it waits. */
static void queue(weft_task **tasks, int n, int count)
{
    memset(&shared, 0, sizeof shared);
    woken = 0;
    must_be(weft_waitgroup_add(&shared, count), 0);
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(wait_and_count, &shared)) != NULL);
    yield_times(1);
    must_be(woken, 0);
}

static intptr_t zero_wakes(void *arg)
{
    weft_task *first[4], *later;

    (void)arg;
    queue(first, 4, 2);
    must_be(weft_waitgroup_done(&shared), 0);
    must_be(weft_waitgroup_add(&shared, 0), 0);
    must_be(weft_waitgroup_add(&shared, -2), -EINVAL);
    yield_times(3);
    must_be(woken, 0);
    must_be(weft_waitgroup_done(&shared), 0);
    must_be(weft_waitgroup_add(&shared, 1), 0); /* takes nothing back */
    must((later = weft_spawn(wait_and_count, &shared)) != NULL);
    yield_times(2);
    must_be(woken, 4);
    for (int i = 0; i < 4; i++)
        must_be(weft_await(first[i]), 0);
    must_be(weft_waitgroup_done(&shared), 0);
    must_be(weft_await(later), 0);
    return woken;
}

static void zero_wakes_exactly_those_that_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(zero_wakes, NULL), 5);
}

static intptr_t give_up_anywhere(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        queue(tasks, 3, 1);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        must_be(weft_waitgroup_done(&shared), 0);
        for (int i = 0; i < 3; i++)
            must(i == who || weft_await(tasks[i]) == 0);
    }
    for (int cancel_first = 0; cancel_first < 2; cancel_first++) {
        queue(tasks, 1, 1);
        if (cancel_first)
            must_be(weft_cancel(tasks[0]), 1);
        must_be(weft_waitgroup_done(&shared), 0);
        if (!cancel_first)
            must_be(weft_cancel(tasks[0]), 1);
        must_be(weft_await(tasks[0]), 0);
    }
    return 0;
}

static void a_cancelled_waiter_leaves_and_one_woken_at_that_moment_returns_0(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 0);
}

static intptr_t late_or_cancelled(void *arg)
{
    weft_timeout scope;

    (void)arg;
    memset(&shared, 0, sizeof shared);
    must_be(weft_waitgroup_add(&shared, 1), 0);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_waitgroup_wait(&shared), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_waitgroup_done(&shared), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_waitgroup_wait(&shared), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return weft_waitgroup_wait(&shared);
}

static void deadlines_and_cancellation_end_the_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(late_or_cancelled, NULL), 0);
}

/* ---- races ---- */

enum { WORKERS_A_ROUND = 5 };

struct job {
    weft_waitgroup group;
    int parts[WORKERS_A_ROUND];
    atomic_int next;
};

static intptr_t do_a_part(void *arg)
{
    struct job *job = arg;

    job->parts[atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)] = 1;
    return weft_waitgroup_done(&job->group);
}

static intptr_t wait_for_group(void *arg)
{
    return weft_waitgroup_wait(arg);
}

static intptr_t nobody_is_left(void *arg)
{
    uint64_t random = 0x5EED;

    (void)arg;
    for (int round = 0; round < FEWER(1000); round++) {
        struct job *job = calloc(1, sizeof *job);
        weft_task *victim, *other;
        intptr_t rc;

        must(job != NULL);
        must_be(weft_waitgroup_add(&job->group, WORKERS_A_ROUND), 0);
        must((victim = weft_spawn(wait_for_group, &job->group)) != NULL);
        must((other = weft_spawn(wait_for_group, &job->group)) != NULL);
        yield_times((int)(draw(&random) % 2));
        for (int i = 0; i < WORKERS_A_ROUND; i++)
            must_be(weft_go(do_a_part, job), 0);
        yield_times((int)(draw(&random) % 2));
        weft_cancel(victim);
        rc = weft_await(victim);
        must(rc == 0 || rc == -ECANCELED);
        must_be(weft_await(other), 0);
        /* What came before each `done` is seen, and the group may go. */
        for (int i = 0; i < WORKERS_A_ROUND; i++)
            must_be(job->parts[i], 1);
        must_be(weft_waitgroup_wait(&job->group), 0);
        free(job);
    }
    return 0;
}

static void all_parts_are_seen_and_the_woken_may_free_the_group(void **state)
{
    (void)state;
    on_each(nobody_is_left);
}

enum { CROWD = 100 };

static void done(void *arg)
{
    must_be(weft_waitgroup_done(arg), 0);
}

/* The last one gives up while those before it are woken; the group is whole afterwards. */
static intptr_t crowd(void *arg)
{
    uint64_t random = 0xC0DE;
    struct rival rival;

    (void)arg;
    rival_start(&rival, done);
    for (int round = 0; round < FEWER(150); round++) {
        weft_waitgroup group = WEFT_WAITGROUP_INIT;
        weft_task *tasks[CROWD];

        must_be(weft_waitgroup_add(&group, 1), 0);
        for (int i = 0; i < CROWD; i++)
            must((tasks[i] = weft_spawn(wait_for_group, &group)) != NULL);
        yield_times(2);
        rival_go(&rival, &group);
        dawdle(&random);
        weft_cancel(tasks[CROWD - 1]);
        for (int i = CROWD - 1; i >= 0; i--) {
            intptr_t rc = weft_await(tasks[i]);

            must(rc == 0 || (i == CROWD - 1 && rc == -ECANCELED));
        }
        rival_wait(&rival);
        must_be(weft_waitgroup_add(&group, 1), 0);
        must((tasks[0] = weft_spawn(wait_for_group, &group)) != NULL);
        yield_times(2);
        must_be(weft_waitgroup_done(&group), 0);
        must_be(weft_await(tasks[0]), 0);
    }
    rival_end(&rival);
    return 0;
}

static void a_crowd_is_woken_while_one_gives_up(void **state)
{
    (void)state;
    on_each(crowd);
}

/* ---- tasks and threads ---- */

static void *done_in_thread(void *arg)
{
    must_be(weft_waitgroup_done(arg), 0);
    return NULL;
}

static intptr_t done_in_task(void *arg)
{
    return weft_waitgroup_done(arg);
}

static void *wait_in_thread(void *arg)
{
    must_be(weft_waitgroup_wait(arg), 0);
    return NULL;
}

static intptr_t tasks_and_threads(void *arg)
{
    (void)arg;
    for (int round = 0; round < FEWER(200); round++) {
        weft_waitgroup group = WEFT_WAITGROUP_INIT;
        pthread_t doing, waiting;

        must_be(weft_waitgroup_add(&group, 3), 0);
        must_be(pthread_create(&waiting, NULL, wait_in_thread, &group), 0);
        must_be(pthread_create(&doing, NULL, done_in_thread, &group), 0);
        must_be(weft_go(done_in_task, &group), 0);
        must_be(weft_go(done_in_task, &group), 0);
        must_be(weft_waitgroup_wait(&group), 0);
        must_be(pthread_join(doing, NULL), 0);
        must_be(pthread_join(waiting, NULL), 0);
    }
    return 0;
}

static void tasks_and_threads_wait_for_each_other(void **state)
{
    (void)state;
    on_each(tasks_and_threads);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counting_and_its_limits),
        cmocka_unit_test(zero_wakes_exactly_those_that_wait),
        cmocka_unit_test(a_cancelled_waiter_leaves_and_one_woken_at_that_moment_returns_0),
        cmocka_unit_test(deadlines_and_cancellation_end_the_wait),
        cmocka_unit_test(all_parts_are_seen_and_the_woken_may_free_the_group),
        cmocka_unit_test(a_crowd_is_woken_while_one_gives_up),
        cmocka_unit_test(tasks_and_threads_wait_for_each_other),
    };

    return run_all(tests, argc, argv);
}
