/* weft_mutex: order, hand-over, cancellation and deadlines at every point, tasks mixed with threads. */
#include "support.h"

static void misuse_and_try_forms(void **state)
{
    weft_mutex mutex = WEFT_MUTEX_INIT;

    (void)state;
    assert_int_equal(weft_mutex_unlock(&mutex), -EPERM);
    assert_int_equal(weft_mutex_lock(&mutex), 0);
    assert_int_equal(weft_mutex_trylock(&mutex), -EBUSY);
    assert_int_equal(weft_mutex_unlock(&mutex), 0);
    assert_int_equal(weft_mutex_unlock(&mutex), -EPERM);
    assert_int_equal(weft_mutex_trylock(&mutex), 0);
    assert_int_equal(weft_mutex_unlock(&mutex), 0);
}

/* ---- order, on one worker, where a yield lets everybody else run until it waits ---- */

static weft_mutex shared;
static int order[16];
static int ordered;

static intptr_t lock_and_note(void *arg)
{
    int rc = weft_mutex_lock(&shared);

    if (rc < 0)
        return rc;
    order[ordered++] = (int)(intptr_t)arg;
    must(weft_mutex_unlock(&shared) == 0);
    return 0;
}

static void begin_locked(void)
{
    shared = (weft_mutex)WEFT_MUTEX_INIT;
    ordered = 0;
    must(weft_mutex_lock(&shared) == 0);
}

static void queue(weft_task **tasks, int n)
{
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(lock_and_note, (void *)(intptr_t)i)) != NULL);
    must(weft_yield() == 0);
    must(ordered == 0);
}

static intptr_t served_in_order(void *arg)
{
    weft_task *tasks[8];

    (void)arg;
    begin_locked();
    queue(tasks, 8);
    must(weft_mutex_unlock(&shared) == 0);
    /* It was handed to the first waiter: a newcomer finds it held, though no waiter has run yet. */
    must(ordered == 0 && weft_mutex_trylock(&shared) == -EBUSY);
    must(weft_mutex_lock(&shared) == 0);
    must(ordered == 8);
    for (int i = 0; i < 8; i++)
        must(order[i] == i);
    must(weft_mutex_unlock(&shared) == 0);
    for (int i = 0; i < 8; i++)
        must(weft_await(tasks[i]) == 0);
    return weft_mutex_unlock(&shared);
}

static void waiters_are_served_in_order_and_not_overtaken(void **state)
{
    (void)state;
    assert_int_equal(run_alone(served_in_order, NULL), -EPERM);
}

/* ---- giving up ---- */

static intptr_t give_up_anywhere(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        begin_locked();
        queue(tasks, 3);
        must(weft_cancel(tasks[who]) == 1);
        must(weft_await(tasks[who]) == -ECANCELED);
        must(weft_mutex_unlock(&shared) == 0);
        for (int i = 0; i < 3; i++)
            must(i == who || weft_await(tasks[i]) == 0);
        must(ordered == 2 && order[0] == (who == 0) && order[1] == (who == 2 ? 1 : 2));
        must(weft_mutex_unlock(&shared) == -EPERM);
    }
    return 0;
}

static void a_cancelled_waiter_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 0);
}

static intptr_t all_give_up(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    begin_locked();
    queue(tasks, 3);
    for (int i = 0; i < 3; i++)
        must(weft_cancel(tasks[i]) == 1);
    for (int i = 0; i < 3; i++)
        must(weft_await(tasks[i]) == -ECANCELED);
    must(weft_mutex_trylock(&shared) == -EBUSY);
    must(weft_mutex_unlock(&shared) == 0);
    must(weft_mutex_trylock(&shared) == 0);
    must(weft_mutex_unlock(&shared) == 0);
    return weft_mutex_unlock(&shared);
}

static void a_queue_that_gave_up_leaves_a_plain_mutex(void **state)
{
    (void)state;
    assert_int_equal(run_alone(all_give_up, NULL), -EPERM);
}

static intptr_t lock_then_yield(void *arg)
{
    (void)arg;
    must(weft_mutex_lock(&shared) == 0);
    must(weft_yield() == -ECANCELED);
    order[ordered++] = -1;
    must(weft_mutex_unlock(&shared) == 0);
    return -ECANCELED;
}

static void granted_and_cancelled(int grant_first)
{
    weft_task *first, *second;

    begin_locked();
    must((first = weft_spawn(lock_then_yield, NULL)) != NULL);
    must((second = weft_spawn(lock_and_note, NULL)) != NULL);
    must(weft_yield() == 0);
    if (grant_first)
        must(weft_mutex_unlock(&shared) == 0);
    must(weft_cancel(first) == 1);
    if (!grant_first)
        must(weft_mutex_unlock(&shared) == 0);
    must(weft_await(first) == -ECANCELED);
    must(weft_await(second) == 0);
    must(ordered == 2 && order[0] == -1 && order[1] == 0);
    must(weft_mutex_trylock(&shared) == 0);
}

static intptr_t granted_and_cancelled_both_ways(void *arg)
{
    (void)arg;
    granted_and_cancelled(1);
    granted_and_cancelled(0);
    return 0;
}

static void a_waiter_cancelled_at_the_grant_keeps_it_and_hears_of_it_later(void **state)
{
    (void)state;
    assert_int_equal(run_alone(granted_and_cancelled_both_ways, NULL), 0);
}

static intptr_t deadline(void *arg)
{
    weft_timeout scope;
    weft_task *task;

    (void)arg;
    begin_locked();
    must(weft_timeout_begin(&scope, WEFT_MS(2)) == 0);
    must(weft_mutex_lock(&shared) == -ETIMEDOUT);
    must(weft_timeout_end(&scope) == 1);
    queue(&task, 1);
    must(weft_mutex_unlock(&shared) == 0);
    must(weft_await(task) == 0);
    must(weft_mutex_trylock(&shared) == 0);
    return 0;
}

static void a_waiter_whose_deadline_passes_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(deadline, NULL), 0);
}

static intptr_t lock_cancelled(void *arg)
{
    weft_mutex free_one = WEFT_MUTEX_INIT;

    (void)arg;
    must(weft_cancel(weft_self()) == 1);
    must(weft_mutex_lock(&free_one) == -ECANCELED);
    must(weft_mutex_lock(&free_one) == -ECANCELED);
    must(weft_mutex_trylock(&free_one) == 0);
    must(weft_mutex_unlock(&free_one) == 0);
    must(weft_uncancel() == 1);
    must(weft_mutex_lock(&free_one) == 0);
    return weft_mutex_unlock(&free_one);
}

static void a_cancelled_task_does_not_lock_even_a_free_mutex(void **state)
{
    (void)state;
    assert_int_equal(run_alone(lock_cancelled, NULL), 0);
}

static intptr_t lock_masked(void *arg)
{
    must(weft_mask_begin() == 0);
    must(lock_and_note(arg) == 0);
    must(weft_mask_end() == 0);
    return 7;
}

static intptr_t cancel_masked(void *arg)
{
    weft_task *task;

    (void)arg;
    begin_locked();
    must((task = weft_spawn(lock_masked, NULL)) != NULL);
    must(weft_yield() == 0);
    must(weft_cancel(task) == 1);
    must(weft_yield() == 0);
    must(ordered == 0);
    must(weft_mutex_unlock(&shared) == 0);
    must(weft_await(task) == 7);
    return ordered;
}

static void a_masked_waiter_waits_on(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancel_masked, NULL), 1);
}

/* ---- tasks and threads ---- */

enum { TASKS = 4, THREADS = 2, ROUNDS = 4000 };

static long counter;
static atomic_int inside;

static void count_once(int i, int in_task)
{
    must(weft_mutex_lock(&shared) == 0);
    must(atomic_fetch_add(&inside, 1) == 0);
    counter++;
    if (in_task && i % 64 == 0)
        must(weft_yield() == 0);
    must(atomic_fetch_sub(&inside, 1) == 1);
    must(weft_mutex_unlock(&shared) == 0);
}

static intptr_t count_in_task(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++)
        count_once(i, 1);
    return 0;
}

static void *count_in_thread(void *arg)
{
    for (int i = 0; i < ROUNDS; i++)
        count_once(i, 0);
    return arg;
}

static intptr_t count_in_tasks(void *arg)
{
    weft_task *tasks[TASKS];

    (void)arg;
    for (int i = 0; i < TASKS; i++)
        must((tasks[i] = weft_spawn(count_in_task, NULL)) != NULL);
    for (int i = 0; i < TASKS; i++)
        must(weft_await(tasks[i]) == 0);
    return 0;
}

static void tasks_and_threads_exclude_each_other(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    shared = (weft_mutex)WEFT_MUTEX_INIT;
    counter = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_in_thread, NULL), 0);
    assert_int_equal(run_beside_threads(2, count_in_tasks, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(counter, (TASKS + THREADS) * ROUNDS);
    assert_int_equal(weft_mutex_unlock(&shared), -EPERM);
}

struct counted {
    weft_mutex mutex;
    int references;
};

static void release(struct counted *object)
{
    int left;

    must(weft_mutex_lock(&object->mutex) == 0);
    left = --object->references;
    must(weft_mutex_unlock(&object->mutex) == 0);
    if (left == 0)
        free(object);
}

static intptr_t release_in_task(void *arg)
{
    release(arg);
    return 0;
}

static intptr_t last_holder_frees(void *arg)
{
    (void)arg;
    for (int round = 0; round < 2000; round++) {
        struct counted *object = calloc(1, sizeof(*object));
        weft_task *tasks[4];

        must(object != NULL);
        object->references = 5;
        must(weft_mutex_lock(&object->mutex) == 0);
        for (int i = 0; i < 4; i++)
            must((tasks[i] = weft_spawn(release_in_task, object)) != NULL);
        must(weft_yield() == 0);
        must(weft_mutex_unlock(&object->mutex) == 0);
        release(object);
        for (int i = 0; i < 4; i++)
            must(weft_await(tasks[i]) == 0);
    }
    return 0;
}

static void the_last_holder_may_free_the_mutex(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, last_holder_frees, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse_and_try_forms),
        cmocka_unit_test(waiters_are_served_in_order_and_not_overtaken),
        cmocka_unit_test(a_cancelled_waiter_leaves_the_queue),
        cmocka_unit_test(a_queue_that_gave_up_leaves_a_plain_mutex),
        cmocka_unit_test(a_waiter_cancelled_at_the_grant_keeps_it_and_hears_of_it_later),
        cmocka_unit_test(a_waiter_whose_deadline_passes_leaves_the_queue),
        cmocka_unit_test(a_cancelled_task_does_not_lock_even_a_free_mutex),
        cmocka_unit_test(a_masked_waiter_waits_on),
        cmocka_unit_test(tasks_and_threads_exclude_each_other),
        cmocka_unit_test(the_last_holder_may_free_the_mutex),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
