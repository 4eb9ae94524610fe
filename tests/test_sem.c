/* weft_sem: permits, order, limits, giving up at every point, tasks mixed with threads. */
#include "tests/support.h"

#include "tests/rival.h"

static const uint32_t counts[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static void permits_are_taken_and_given_back(void **state)
{
    weft_sem fixed = WEFT_SEM_INIT(2), made;

    (void)state;
    assert_int_equal(weft_sem_value(&fixed), 2);
    assert_int_equal(weft_sem_acquire(&fixed), 0);
    assert_int_equal(weft_sem_try_acquire(&fixed), 0);
    assert_int_equal(weft_sem_try_acquire(&fixed), -EAGAIN);
    assert_int_equal(weft_sem_value(&fixed), 0);
    for (uint32_t i = 1; i <= 5; i++) {
        assert_int_equal(weft_sem_release(&fixed), 0);
        assert_int_equal(weft_sem_value(&fixed), i);
    }
    assert_int_equal(weft_sem_init(&made, 7), 0);
    assert_int_equal(weft_sem_value(&made), 7);
    assert_int_equal(weft_sem_init(&made, UINT32_C(1) << 30), -EINVAL);
    assert_int_equal(weft_sem_init_bounded(&made, UINT32_MAX), -EINVAL);
}

static void zeroed_memory_is_a_semaphore_without_permits(void **state)
{
    weft_sem sem;

    (void)state;
    memset(&sem, 0, sizeof sem);
    assert_int_equal(weft_sem_try_acquire(&sem), -EAGAIN);
    assert_int_equal(weft_sem_release(&sem), 0);
    assert_int_equal(weft_sem_acquire(&sem), 0);
}

static void releasing_too_often_is_refused(void **state)
{
    weft_sem fixed = WEFT_SEM_BOUNDED_INIT(2), none = WEFT_SEM_BOUNDED_INIT(0), most;

    (void)state;
    assert_int_equal(weft_sem_release(&fixed), -EOVERFLOW);
    assert_int_equal(weft_sem_acquire(&fixed), 0);
    assert_int_equal(weft_sem_release(&fixed), 0);
    assert_int_equal(weft_sem_release(&fixed), -EOVERFLOW);
    assert_int_equal(weft_sem_value(&fixed), 2);
    assert_int_equal(weft_sem_release(&none), -EOVERFLOW);
    assert_int_equal(weft_sem_init(&most, (UINT32_C(1) << 30) - 1), 0);
    assert_int_equal(weft_sem_release(&most), -EOVERFLOW);
    assert_int_equal(weft_sem_acquire(&most), 0);
    assert_int_equal(weft_sem_release(&most), 0);
    assert_int_equal(weft_sem_release(&most), -EOVERFLOW);
}

/* ---- order, on one worker, where a yield lets everybody else run until it waits ---- */

static weft_sem shared;
static int order[16];
static int ordered;

static intptr_t acquire_and_note(void *arg)
{
    int rc = weft_sem_acquire(&shared);

    if (rc == 0)
        order[ordered++] = (int)(intptr_t)arg;
    return rc;
}

static void queue(weft_task **tasks, int n)
{
    memset(&shared, 0, sizeof shared);
    ordered = 0;
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(acquire_and_note, (void *)(intptr_t)i)) != NULL);
    yield_times(1);
    must_be(ordered, 0);
}

static intptr_t served_in_order(void *arg)
{
    weft_task *tasks[8];

    (void)arg;
    queue(tasks, 8);
    for (int i = 0; i < 8; i++) {
        must_be(weft_sem_release(&shared), 0);
        /* The permit is the waiter's, though it has not run yet. */
        must_be(weft_sem_value(&shared), 0);
        must_be(weft_sem_try_acquire(&shared), -EAGAIN);
        must_be(ordered, i);
        must_be(weft_await(tasks[i]), 0);
        must(ordered == i + 1 && order[i] == i);
    }
    must_be(weft_sem_release(&shared), 0);
    must_be(weft_sem_value(&shared), 1);
    return 0;
}

static void waiters_are_served_in_order_and_not_overtaken(void **state)
{
    (void)state;
    assert_int_equal(run_alone(served_in_order, NULL), 0);
}

static intptr_t give_up_anywhere(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        queue(tasks, 3);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        for (int i = 0; i < 2; i++)
            must_be(weft_sem_release(&shared), 0);
        for (int i = 0; i < 3; i++)
            must(i == who || weft_await(tasks[i]) == 0);
        must(ordered == 2 && order[0] + order[1] == 3 - who);
        must_be(weft_sem_value(&shared), 0);
    }
    return 0;
}

static void a_cancelled_waiter_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 0);
}

static intptr_t acquire_and_suspend(void *arg)
{
    must_be(weft_sem_acquire(&shared), 0);
    must_be(weft_yield(), -ECANCELED);
    return (intptr_t)arg;
}

static intptr_t cancelled_at_the_grant(void *arg)
{
    (void)arg;
    for (int grant_first = 0; grant_first < 2; grant_first++) {
        weft_task *task;

        memset(&shared, 0, sizeof shared);
        must((task = weft_spawn(acquire_and_suspend, (void *)7)) != NULL);
        yield_times(1);
        if (grant_first)
            must_be(weft_sem_release(&shared), 0);
        must_be(weft_cancel(task), 1);
        if (!grant_first)
            must_be(weft_sem_release(&shared), 0);
        must_be(weft_await(task), 7);
        must_be(weft_sem_value(&shared), 0);
    }
    return 0;
}

static void a_waiter_cancelled_at_the_grant_keeps_it_and_hears_of_it_later(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_at_the_grant, NULL), 0);
}

static intptr_t late_or_cancelled(void *arg)
{
    weft_timeout scope;

    (void)arg;
    memset(&shared, 0, sizeof shared);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_sem_acquire(&shared), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_sem_release(&shared), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_sem_acquire(&shared), -ECANCELED);
    must_be(weft_sem_acquire(&shared), -ECANCELED);
    must_be(weft_sem_value(&shared), 1);
    must_be(weft_uncancel(), 1);
    return weft_sem_acquire(&shared);
}

static void deadlines_and_cancellation_end_the_wait_without_a_permit(void **state)
{
    (void)state;
    assert_int_equal(run_alone(late_or_cancelled, NULL), 0);
}

/* ---- races ---- */

enum { WAITERS = 4 };

static intptr_t acquire(void *arg)
{
    return weft_sem_acquire(arg);
}

static intptr_t acquire_soon(void *arg)
{
    weft_timeout scope;
    int rc;

    must_be(weft_timeout_begin(&scope, WEFT_US(30)), 0);
    rc = weft_sem_acquire(arg);
    weft_timeout_end(&scope);
    return rc;
}

static void release_all(void *arg)
{
    for (int i = 0; i < WAITERS; i++)
        must_be(weft_sem_release(arg), 0);
}

/* One waiter is cancelled, one is late, two must get a permit; what the first two did not take is there. */
static intptr_t lose_nothing(void *arg)
{
    uint64_t random = 0x5EED;
    struct rival rival;

    (void)arg;
    rival_start(&rival, release_all);
    for (int round = 0; round < FEWER(1000); round++) {
        weft_sem sem = WEFT_SEM_INIT(0);
        weft_task *tasks[WAITERS];
        unsigned victim = draw(&random) % WAITERS, late = (victim + 1) % WAITERS, got = 0;

        for (unsigned i = 0; i < WAITERS; i++)
            must((tasks[i] = weft_spawn(i == late ? acquire_soon : acquire, &sem)) != NULL);
        yield_times((int)(draw(&random) % 3));
        rival_go(&rival, &sem);
        dawdle(&random);
        weft_cancel(tasks[victim]);
        for (unsigned i = 0; i < WAITERS; i++) {
            intptr_t rc = weft_await(tasks[i]);

            got += rc == 0;
            must(rc == 0 || (i == victim && rc == -ECANCELED) || (i == late && rc == -ETIMEDOUT));
        }
        rival_wait(&rival);
        must_be(weft_sem_value(&sem) + got, WAITERS);
    }
    rival_end(&rival);
    return 0;
}

static void a_waiter_that_gives_up_passes_the_permit_on(void **state)
{
    (void)state;
    on_each(lose_nothing);
}

static intptr_t acquire_and_free(void *arg)
{
    must_be(weft_sem_acquire(arg), 0);
    free(arg);
    return 0;
}

static intptr_t woken_frees(void *arg)
{
    (void)arg;
    for (int round = 0; round < FEWER(2000); round++) {
        weft_sem *sem = calloc(1, sizeof *sem);
        weft_task *task;

        must(sem != NULL);
        must((task = weft_spawn(acquire_and_free, sem)) != NULL);
        if (round % 2 == 0)
            yield_times(1);
        must_be(weft_sem_release(sem), 0);
        must_be(weft_await(task), 0);
    }
    return 0;
}

static void the_woken_may_free_the_semaphore(void **state)
{
    (void)state;
    on_each(woken_frees);
}

/* ---- tasks and threads ---- */

enum { TASKS = 6, THREADS = 2, PERMITS = 3 };

static weft_sem few = WEFT_SEM_BOUNDED_INIT(PERMITS);
static atomic_int inside;

static void enter_and_leave(int i, bool in_task)
{
    must_be(weft_sem_acquire(&few), 0);
    must(atomic_fetch_add(&inside, 1) < PERMITS);
    if (in_task && i % 16 == 0)
        must_be(weft_yield(), 0);
    must(atomic_fetch_sub(&inside, 1) > 0);
    must_be(weft_sem_release(&few), 0);
}

static intptr_t pass_in_task(void *arg)
{
    for (int i = 0; i < FEWER(2000); i++)
        enter_and_leave(i, true);
    return (intptr_t)arg;
}

static void *pass_in_thread(void *arg)
{
    for (int i = 0; i < FEWER(2000); i++)
        enter_and_leave(i, false);
    return arg;
}

static intptr_t pass_in_tasks(void *arg)
{
    weft_task *tasks[TASKS];

    for (int i = 0; i < TASKS; i++)
        must((tasks[i] = weft_spawn(pass_in_task, arg)) != NULL);
    for (int i = 0; i < TASKS; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

static intptr_t pass_in_tasks_and_threads(void *arg)
{
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        must_be(pthread_create(&threads[i], NULL, pass_in_thread, NULL), 0);
    must_be(pass_in_tasks(arg), 0);
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_join(threads[i], NULL), 0);
    must_be(weft_sem_value(&few), PERMITS);
    must_be(weft_sem_release(&few), -EOVERFLOW);
    return 0;
}

static void no_more_than_the_permits_are_inside(void **state)
{
    (void)state;
    on_each(pass_in_tasks_and_threads);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permits_are_taken_and_given_back),
        cmocka_unit_test(zeroed_memory_is_a_semaphore_without_permits),
        cmocka_unit_test(releasing_too_often_is_refused),
        cmocka_unit_test(waiters_are_served_in_order_and_not_overtaken),
        cmocka_unit_test(a_cancelled_waiter_leaves_the_queue),
        cmocka_unit_test(a_waiter_cancelled_at_the_grant_keeps_it_and_hears_of_it_later),
        cmocka_unit_test(deadlines_and_cancellation_end_the_wait_without_a_permit),
        cmocka_unit_test(a_waiter_that_gives_up_passes_the_permit_on),
        cmocka_unit_test(the_woken_may_free_the_semaphore),
        cmocka_unit_test(no_more_than_the_permits_are_inside),
    };

    return run_all(tests, argc, argv);
}
