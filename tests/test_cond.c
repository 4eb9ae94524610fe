/* weft_cond: whom a notification wakes, the mutex on return, giving up at every point, tasks mixed with threads. */
#include "tests/support.h"

#include "tests/rival.h"

static const uint32_t counts[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static weft_mutex mutex;
static weft_cond cond;
static int order[16];
static int ordered;

static void begin(void)
{
    memset(&mutex, 0, sizeof mutex);
    cond = (weft_cond)WEFT_COND_INIT;
    ordered = 0;
}

/* The result, having found the mutex held in every case. */
static intptr_t wait_and_note(void *arg)
{
    int rc;

    must_be(weft_mutex_lock(&mutex), 0);
    rc = weft_cond_wait(&cond, &mutex);
    must_be(weft_mutex_trylock(&mutex), -EBUSY);
    if (rc == 0)
        order[ordered++] = (int)(intptr_t)arg;
    must_be(weft_mutex_unlock(&mutex), 0);
    return rc;
}

/* On one worker a yield lets everybody else run until it waits. */
static void queue(weft_task **tasks, int n)
{
    begin();
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(wait_and_note, (void *)(intptr_t)i)) != NULL);
    yield_times(1);
    must_be(ordered, 0);
    must_be(weft_mutex_trylock(&mutex), 0);
    must_be(weft_mutex_unlock(&mutex), 0);
}

static void misuse_and_nobody_to_notify(void **state)
{
    (void)state;
    begin();
    assert_int_equal(weft_cond_signal(&cond), 0);
    assert_int_equal(weft_cond_broadcast(&cond), 0);
    assert_int_equal(weft_cond_wait(&cond, &mutex), -EPERM);
    assert_int_equal(weft_cond_signal(&cond), 0);
    assert_int_equal(weft_mutex_trylock(&mutex), 0);
}

static intptr_t signals_in_order(void *arg)
{
    weft_task *tasks[6];

    (void)arg;
    queue(tasks, 6);
    for (int i = 0; i < 3; i++) {
        must_be(weft_cond_signal(&cond), 1);
        must_be(weft_await(tasks[i]), 0);
        yield_times(2);
        must(ordered == i + 1 && order[i] == i);
    }
    must_be(weft_mutex_lock(&mutex), 0);
    must_be(weft_cond_broadcast(&cond), 3);
    must_be(weft_cond_broadcast(&cond), 0);
    must_be(weft_cond_signal(&cond), 0);
    yield_times(2);
    must_be(ordered, 3); /* they want the mutex */
    must_be(weft_mutex_unlock(&mutex), 0);
    for (int i = 3; i < 6; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(ordered, 6);
    return weft_mutex_unlock(&mutex);
}

static void a_signal_wakes_the_first_and_a_broadcast_all(void **state)
{
    (void)state;
    assert_int_equal(run_alone(signals_in_order, NULL), -EPERM);
}

static intptr_t cancelled_holds_again(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        queue(tasks, 3);
        must_be(weft_mutex_lock(&mutex), 0);
        must_be(weft_cancel(tasks[who]), 1);
        yield_times(3);
        /* It is cancelled, and yet waits until it has the mutex. */
        must_be(weft_cond_signal(&cond), 1);
        must_be(weft_mutex_unlock(&mutex), 0);
        must_be(weft_await(tasks[who]), -ECANCELED);
        must_be(weft_await(tasks[who == 0]), 0);
        must_be(weft_cond_broadcast(&cond), 1);
        must_be(weft_await(tasks[who == 2 ? 1 : 2]), 0);
        must_be(weft_mutex_unlock(&mutex), -EPERM);
    }
    return 0;
}

static void a_cancelled_waiter_holds_the_mutex_and_leaves_the_notification_to_others(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_holds_again, NULL), 0);
}

static intptr_t notified_and_cancelled(void *arg)
{
    weft_task *tasks[2];

    (void)arg;
    for (int round = 0; round < 4; round++) {
        int (*notify)(weft_cond *) = round & 2 ? weft_cond_broadcast : weft_cond_signal;

        queue(tasks, round & 2 ? 1 : 2);
        if (round & 1)
            must_be(notify(&cond), 1);
        must_be(weft_cancel(tasks[0]), 1);
        if (!(round & 1))
            must_be(notify(&cond), 1);
        must_be(weft_await(tasks[0]), 0);
        must_be(ordered, 1);
        if (round & 2)
            continue;
        must_be(weft_cond_signal(&cond), 1);
        must_be(weft_await(tasks[1]), 0);
    }
    return 0;
}

static void a_notified_waiter_that_is_cancelled_reports_the_notification(void **state)
{
    (void)state;
    assert_int_equal(run_alone(notified_and_cancelled, NULL), 0);
}

static intptr_t late_or_cancelled(void *arg)
{
    weft_timeout scope;

    (void)arg;
    begin();
    must_be(weft_mutex_lock(&mutex), 0);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_cond_wait(&cond, &mutex), -ETIMEDOUT);
    must_be(weft_mutex_trylock(&mutex), -EBUSY);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_cond_signal(&cond), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_cond_wait(&cond, &mutex), -ECANCELED);
    must_be(weft_cond_wait(&cond, &mutex), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return weft_mutex_unlock(&mutex);
}

static void deadlines_and_cancellation_end_the_wait_with_the_mutex(void **state)
{
    (void)state;
    assert_int_equal(run_alone(late_or_cancelled, NULL), 0);
}

/* ---- races ---- */

enum { WAITERS = 4, CROWD = 100 };

struct scene {
    weft_mutex mutex;
    weft_cond cond;
    atomic_int notified;
    int waiting; /* under the mutex */
};

static intptr_t wait_once(void *arg)
{
    struct scene *scene = arg;
    int rc = weft_mutex_lock(&scene->mutex);

    if (rc < 0)
        return rc;
    scene->waiting++;
    rc = weft_cond_wait(&scene->cond, &scene->mutex);
    scene->waiting--;
    must_be(weft_mutex_unlock(&scene->mutex), 0);
    return rc;
}

static intptr_t wait_a_little(void *arg)
{
    weft_timeout scope;
    intptr_t rc;

    must_be(weft_timeout_begin(&scope, WEFT_US(30)), 0);
    rc = wait_once(arg);
    weft_timeout_end(&scope);
    return rc;
}

static void signal_twice(void *arg)
{
    struct scene *scene = arg;

    for (int i = 0; i < 2; i++)
        atomic_fetch_add(&scene->notified, weft_cond_signal(&scene->cond));
}

/* The number of those that were notified is what the notifiers were told. */
static intptr_t lose_nothing(void *arg)
{
    uint64_t random = 0x5EED;
    struct rival rival;

    (void)arg;
    rival_start(&rival, signal_twice);
    for (int round = 0; round < FEWER(1000); round++) {
        struct scene scene = {.waiting = 0};
        weft_task *tasks[WAITERS];
        unsigned victim = draw(&random) % WAITERS, late = (victim + 1) % WAITERS;
        int woken = 0;

        for (unsigned i = 0; i < WAITERS; i++)
            must((tasks[i] = weft_spawn(i == late ? wait_a_little : wait_once, &scene)) != NULL);
        yield_times((int)(draw(&random) % 3));
        rival_go(&rival, &scene);
        dawdle(&random);
        for (unsigned i = 0; i < WAITERS; i++)
            if (i == victim || round % 4 == 0)
                weft_cancel(tasks[i]);
        rival_wait(&rival);
        for (unsigned i = 0; i < WAITERS; i++)
            weft_cancel(tasks[i]);
        for (unsigned i = 0; i < WAITERS; i++) {
            intptr_t rc = weft_await(tasks[i]);

            must(rc == 0 || rc == -ECANCELED || (i == late && rc == -ETIMEDOUT));
            woken += rc == 0;
        }
        must_be(woken, atomic_load(&scene.notified));
        must_be(weft_cond_broadcast(&scene.cond), 0);
        must_be(weft_mutex_unlock(&scene.mutex), -EPERM);
    }
    rival_end(&rival);
    return 0;
}

static void wake_all(void *arg)
{
    struct scene *scene = arg;

    atomic_fetch_add(&scene->notified, weft_cond_broadcast(&scene->cond));
}

/* The last ones give up while those before them are woken. */
static intptr_t crowd(void *arg)
{
    uint64_t random = 0xC0DE;
    struct rival rival;

    (void)arg;
    rival_start(&rival, wake_all);
    for (int round = 0; round < FEWER(300); round++) {
        struct scene scene = {.waiting = 0};
        weft_task *tasks[CROWD];
        int woken = 0;

        for (int i = 0; i < CROWD; i++)
            must((tasks[i] = weft_spawn(wait_once, &scene)) != NULL);
        yield_times(2);
        rival_go(&rival, &scene);
        dawdle(&random);
        for (int i = CROWD - 1; i > CROWD / 2; i--)
            weft_cancel(tasks[i]);
        rival_wait(&rival);
        for (int i = 0; i < CROWD; i++)
            weft_cancel(tasks[i]);
        for (int i = 0; i < CROWD; i++)
            woken += weft_await(tasks[i]) == 0;
        must_be(woken, atomic_load(&scene.notified));
        must_be(weft_cond_broadcast(&scene.cond), 0);
    }
    rival_end(&rival);
    return 0;
}

static void a_broadcast_is_reported_by_all_it_has_reached(void **state)
{
    (void)state;
    on_each(crowd);
}

/* Two that wait for each other, with one notification a turn: one that is lost ends it. */
static int turn;

static void take_turns(int mine)
{
    for (int i = 0; i < FEWER(5000); i++) {
        must_be(weft_mutex_lock(&mutex), 0);
        while (turn != mine)
            must_be(weft_cond_wait(&cond, &mutex), 0);
        turn = !mine;
        must_be(weft_mutex_unlock(&mutex), 0);
        weft_cond_signal(&cond);
    }
}

static void take_turns_in_thread(void *arg)
{
    (void)arg;
    take_turns(1);
}

static intptr_t alternate(void *arg)
{
    struct rival rival;

    begin();
    turn = 0;
    rival_start(&rival, take_turns_in_thread);
    rival_go(&rival, arg);
    take_turns(0);
    rival_end(&rival);
    return 0;
}

static void nothing_is_lost_between_unlocking_and_waiting(void **state)
{
    (void)state;
    on_each(alternate);
}

static void no_notification_is_swallowed(void **state)
{
    (void)state;
    on_each(lose_nothing);
}

/* ---- tasks and threads: a store with room for a few ---- */

enum { PAIRS = 3, ROOM = 2 };

static weft_cond filled = WEFT_COND_INIT, emptied = WEFT_COND_INIT;
static int stock;
static long made, used;

static void make(void)
{
    must_be(weft_mutex_lock(&mutex), 0);
    while (stock == ROOM)
        must_be(weft_cond_wait(&emptied, &mutex), 0);
    stock++;
    made++;
    must_be(weft_mutex_unlock(&mutex), 0);
    weft_cond_signal(&filled);
}

static void take(void)
{
    must_be(weft_mutex_lock(&mutex), 0);
    while (stock == 0)
        must_be(weft_cond_wait(&filled, &mutex), 0);
    stock--;
    used++;
    weft_cond_signal(&emptied);
    must_be(weft_mutex_unlock(&mutex), 0);
}

static intptr_t make_many(void *arg)
{
    for (int i = 0; i < FEWER(2000); i++)
        make();
    return (intptr_t)arg;
}

static intptr_t take_many(void *arg)
{
    for (int i = 0; i < FEWER(2000); i++)
        take();
    return (intptr_t)arg;
}

static void *make_many_in_thread(void *arg)
{
    make_many(NULL);
    return arg;
}

static void *take_many_in_thread(void *arg)
{
    take_many(NULL);
    return arg;
}

static intptr_t trade(void *arg)
{
    weft_task *tasks[2 * PAIRS];
    pthread_t threads[2];

    (void)arg;
    begin();
    made = used = 0;
    must_be(pthread_create(&threads[0], NULL, make_many_in_thread, NULL), 0);
    must_be(pthread_create(&threads[1], NULL, take_many_in_thread, NULL), 0);
    for (int i = 0; i < 2 * PAIRS; i++)
        must((tasks[i] = weft_spawn(i % 2 ? make_many : take_many, NULL)) != NULL);
    for (int i = 0; i < 2 * PAIRS; i++)
        must_be(weft_await(tasks[i]), 0);
    for (int i = 0; i < 2; i++)
        must_be(pthread_join(threads[i], NULL), 0);
    must_be(stock, 0);
    must_be(made, (PAIRS + 1) * FEWER(2000));
    must_be(used, made);
    return 0;
}

static void no_wake_up_is_lost_between_tasks_and_threads(void **state)
{
    (void)state;
    on_each(trade);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse_and_nobody_to_notify),
        cmocka_unit_test(a_signal_wakes_the_first_and_a_broadcast_all),
        cmocka_unit_test(a_cancelled_waiter_holds_the_mutex_and_leaves_the_notification_to_others),
        cmocka_unit_test(a_notified_waiter_that_is_cancelled_reports_the_notification),
        cmocka_unit_test(deadlines_and_cancellation_end_the_wait_with_the_mutex),
        cmocka_unit_test(no_notification_is_swallowed),
        cmocka_unit_test(a_broadcast_is_reported_by_all_it_has_reached),
        cmocka_unit_test(nothing_is_lost_between_unlocking_and_waiting),
        cmocka_unit_test(no_wake_up_is_lost_between_tasks_and_threads),
    };

    return run_all(tests, argc, argv);
}
