/* weft_notify: whom it wakes, the one permit, giving up at every point, tasks mixed with threads. */
#include "tests/support.h"

#include "tests/rival.h"

static const uint32_t counts[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

/* Take the permit if there is one. */
static intptr_t has_permit(void *arg)
{
    weft_timeout scope;
    int rc;

    must_be(weft_timeout_begin(&scope, WEFT_US(200)), 0);
    rc = weft_notify_wait(arg);
    weft_timeout_end(&scope);
    must(rc == 0 || rc == -ETIMEDOUT);
    return rc == 0;
}

static weft_notify shared;
static int order[16];
static int ordered;

static intptr_t wait_and_note(void *arg)
{
    int rc = weft_notify_wait(&shared);

    if (rc == 0)
        order[ordered++] = (int)(intptr_t)arg;
    return rc;
}

/* On one worker a yield lets everybody else run until it waits. */
static void queue(weft_task **tasks, int n)
{
    memset(&shared, 0, sizeof shared);
    ordered = 0;
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(wait_and_note, (void *)(intptr_t)i)) != NULL);
    yield_times(1);
    must_be(ordered, 0);
}

static intptr_t one_permit(void *arg)
{
    weft_notify notify = WEFT_NOTIFY_INIT;

    (void)arg;
    weft_notify_all(&notify);
    must_be(has_permit(&notify), 0);
    weft_notify_one(&notify);
    weft_notify_one(&notify);
    weft_notify_all(&notify);
    must_be(has_permit(&notify), 1);
    must_be(has_permit(&notify), 0);
    return 0;
}

static void one_permit_at_most_is_kept_for_the_next(void **state)
{
    (void)state;
    assert_int_equal(run_alone(one_permit, NULL), 0);
}

static intptr_t one_and_all(void *arg)
{
    weft_task *tasks[6], *later;

    (void)arg;
    queue(tasks, 6);
    for (int i = 0; i < 3; i++) {
        weft_notify_one(&shared);
        must_be(weft_await(tasks[i]), 0);
        yield_times(2);
        must(ordered == i + 1 && order[i] == i);
    }
    weft_notify_all(&shared);
    must((later = weft_spawn(wait_and_note, NULL)) != NULL);
    for (int i = 3; i < 6; i++)
        must_be(weft_await(tasks[i]), 0);
    yield_times(2);
    must_be(ordered, 6);
    weft_notify_one(&shared);
    must_be(weft_await(later), 0);
    return has_permit(&shared);
}

static void the_first_is_woken_or_all_that_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(one_and_all, NULL), 0);
}

static intptr_t give_up_anywhere(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        queue(tasks, 3);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        weft_notify_one(&shared);
        must_be(weft_await(tasks[who == 0]), 0);
        weft_notify_one(&shared);
        must_be(weft_await(tasks[who == 2 ? 1 : 2]), 0);
        must_be(has_permit(&shared), 0);
    }
    queue(tasks, 3);
    for (int i = 0; i < 3; i++)
        must_be(weft_cancel(tasks[i]), 1);
    for (int i = 0; i < 3; i++)
        must_be(weft_await(tasks[i]), -ECANCELED);
    weft_notify_one(&shared);
    return has_permit(&shared);
}

static void a_cancelled_waiter_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 1);
}

static intptr_t notified_and_cancelled(void *arg)
{
    (void)arg;
    for (int round = 0; round < 4; round++) {
        void (*wake)(weft_notify *) = round & 2 ? weft_notify_all : weft_notify_one;
        weft_task *task;

        queue(&task, 1);
        if (round & 1)
            wake(&shared);
        must_be(weft_cancel(task), 1);
        if (!(round & 1))
            wake(&shared);
        must_be(weft_await(task), 0);
        must_be(has_permit(&shared), 0);
    }
    return 0;
}

static void a_notified_waiter_that_is_cancelled_reports_the_notification(void **state)
{
    (void)state;
    assert_int_equal(run_alone(notified_and_cancelled, NULL), 0);
}

static intptr_t wait_cancelled(void *arg)
{
    (void)arg;
    memset(&shared, 0, sizeof shared);
    weft_notify_one(&shared);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_notify_wait(&shared), -ECANCELED);
    must_be(weft_notify_wait(&shared), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return weft_notify_wait(&shared);
}

static void a_cancelled_task_does_not_take_the_permit(void **state)
{
    (void)state;
    assert_int_equal(run_alone(wait_cancelled, NULL), 0);
}

/* ---- races ---- */

enum { CROWD = 100 };

static intptr_t wait_for_it(void *arg)
{
    return weft_notify_wait(arg);
}

static void notify_it(void *arg)
{
    weft_notify_one(arg);
}

static void notify_all(void *arg)
{
    weft_notify_all(arg);
}

/* One notification, two cancelled: somebody reports it, or the permit is there. */
static intptr_t lose_nothing(void *arg)
{
    uint64_t random = 0x5EED;
    struct rival rival;

    (void)arg;
    rival_start(&rival, notify_it);
    for (int round = 0; round < FEWER(1000); round++) {
        weft_notify notify = WEFT_NOTIFY_INIT;
        weft_task *tasks[2];
        int woken = 0;

        for (int i = 0; i < 2; i++)
            must((tasks[i] = weft_spawn(wait_for_it, &notify)) != NULL);
        yield_times((int)(draw(&random) % 3));
        rival_go(&rival, &notify);
        dawdle(&random);
        for (int i = 0; i < 2; i++)
            weft_cancel(tasks[i]);
        for (int i = 0; i < 2; i++) {
            intptr_t rc = weft_await(tasks[i]);

            must(rc == 0 || rc == -ECANCELED);
            woken += rc == 0;
        }
        rival_wait(&rival);
        must(woken <= 1);
        if (woken == 0)
            must_be(weft_notify_wait(&notify), 0);
    }
    rival_end(&rival);
    return 0;
}

static void no_notification_is_swallowed(void **state)
{
    (void)state;
    on_each(lose_nothing);
}

static atomic_int ended;

static intptr_t wait_and_count(void *arg)
{
    intptr_t rc = weft_notify_wait(arg);

    atomic_fetch_add(&ended, 1);
    return rc;
}

/* All that wait are woken, though the last one gives up while those before it are; and the list is whole. */
static intptr_t wake_all(void *arg)
{
    uint64_t random = 0x5EED;
    struct rival rival;

    (void)arg;
    rival_start(&rival, notify_all);
    for (int round = 0; round < FEWER(100); round++) {
        weft_notify notify = WEFT_NOTIFY_INIT;
        weft_task *tasks[CROWD];
        intptr_t rc;

        atomic_store(&ended, 0);
        for (int i = 0; i < CROWD; i++)
            must((tasks[i] = weft_spawn(i == CROWD - 1 ? wait_for_it : wait_and_count, &notify)) != NULL);
        yield_times(2);
        rival_go(&rival, &notify);
        dawdle(&random);
        weft_cancel(tasks[CROWD - 1]);
        rc = weft_await(tasks[CROWD - 1]);
        must(rc == 0 || rc == -ECANCELED);
        rival_wait(&rival);
        while (atomic_load(&ended) < CROWD - 1) {
            weft_notify_all(&notify);
            must_be(weft_yield(), 0);
        }
        for (int i = 0; i < CROWD - 1; i++)
            must_be(weft_await(tasks[i]), 0);
        must((tasks[0] = weft_spawn(wait_for_it, &notify)) != NULL);
        yield_times(2);
        weft_notify_one(&notify);
        must_be(weft_await(tasks[0]), 0);
    }
    rival_end(&rival);
    return 0;
}

static void all_are_woken(void **state)
{
    (void)state;
    on_each(wake_all);
}

/* ---- tasks and threads: a counter of work, and its consumer ---- */

static atomic_int work;
static weft_notify bell;

enum { PRODUCERS = 3, ALL = 2000 };

static void produce(void)
{
    for (int i = 0; i < FEWER(ALL); i++) {
        atomic_fetch_add_explicit(&work, 1, memory_order_relaxed);
        weft_notify_one(&bell);
    }
}

static intptr_t produce_in_task(void *arg)
{
    produce();
    return (intptr_t)arg;
}

static void *produce_in_thread(void *arg)
{
    produce();
    return arg;
}

static void *consume(void *arg)
{
    for (int left = (PRODUCERS + 1) * FEWER(ALL); left > 0;) {
        must_be(weft_notify_wait(&bell), 0);
        left -= atomic_exchange_explicit(&work, 0, memory_order_relaxed);
    }
    return arg;
}

static intptr_t consume_in_task(void *arg)
{
    consume(arg);
    return 0;
}

static intptr_t no_work_is_left(void *arg)
{
    (void)arg;
    for (int in_thread = 0; in_thread < 2; in_thread++) {
        weft_task *tasks[PRODUCERS], *consumer = NULL;
        pthread_t producer, thread;

        atomic_store(&work, 0);
        memset(&bell, 0, sizeof bell);
        if (in_thread)
            must_be(pthread_create(&thread, NULL, consume, NULL), 0);
        else
            must((consumer = weft_spawn(consume_in_task, NULL)) != NULL);
        must_be(pthread_create(&producer, NULL, produce_in_thread, NULL), 0);
        for (int i = 0; i < PRODUCERS; i++)
            must((tasks[i] = weft_spawn(produce_in_task, NULL)) != NULL);
        for (int i = 0; i < PRODUCERS; i++)
            must_be(weft_await(tasks[i]), 0);
        must_be(pthread_join(producer, NULL), 0);
        if (in_thread)
            must_be(pthread_join(thread, NULL), 0);
        else
            must_be(weft_await(consumer), 0);
    }
    return 0;
}

static void no_work_is_overlooked_between_tasks_and_threads(void **state)
{
    (void)state;
    on_each(no_work_is_left);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_permit_at_most_is_kept_for_the_next),
        cmocka_unit_test(the_first_is_woken_or_all_that_wait),
        cmocka_unit_test(a_cancelled_waiter_leaves_the_queue),
        cmocka_unit_test(a_notified_waiter_that_is_cancelled_reports_the_notification),
        cmocka_unit_test(a_cancelled_task_does_not_take_the_permit),
        cmocka_unit_test(no_notification_is_swallowed),
        cmocka_unit_test(all_are_woken),
        cmocka_unit_test(no_work_is_overlooked_between_tasks_and_threads),
    };

    return run_all(tests, argc, argv);
}
