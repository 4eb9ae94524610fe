/* weft_barrier: indices, generations, reset and abort, giving up at every point, tasks mixed with threads. */
#include "tests/support.h"

#include "tests/rival.h"

static const uint32_t counts[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static intptr_t arrive(void *arg)
{
    return weft_barrier_wait(arg);
}

/* On one worker a yield lets everybody else run until it waits. */
static void queue(weft_barrier *barrier, weft_task **tasks, int n)
{
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(arrive, barrier)) != NULL);
    yield_times(1);
    must_be(weft_barrier_waiting(barrier), n);
}

static void one_party_does_not_wait_and_none_is_an_error(void **state)
{
    weft_barrier one = WEFT_BARRIER_INIT(1), none;

    (void)state;
    memset(&none, 0, sizeof none);
    assert_int_equal(weft_barrier_wait(&one), 0);
    assert_int_equal(weft_barrier_wait(&one), 0);
    assert_int_equal(weft_barrier_wait(&none), -EINVAL);
    assert_int_equal(weft_barrier_init(&none, 0), -EINVAL);
    assert_int_equal(weft_barrier_init(&none, UINT32_C(1) << 31), -EINVAL);
    assert_int_equal(weft_barrier_init(&none, 1), 0);
    assert_int_equal(weft_barrier_wait(&none), 0);
}

static intptr_t last_goes_on(void *arg)
{
    weft_barrier barrier = WEFT_BARRIER_INIT(4);
    weft_task *tasks[3];
    weft_stats before, after;

    (void)arg;
    for (int round = 0; round < 3; round++) {
        queue(&barrier, tasks, 3);
        weft_runtime_stats(weft_runtime_current(), &before);
        must_be(weft_barrier_wait(&barrier), 3);
        weft_runtime_stats(weft_runtime_current(), &after);
        must_be(after.dispatched, before.dispatched);
        must_be(weft_barrier_waiting(&barrier), 0);
        for (int i = 0; i < 3; i++)
            must_be(weft_await(tasks[i]), i);
    }
    return 0;
}

static void indices_are_in_order_and_the_last_does_not_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(last_goes_on, NULL), 0);
}

static intptr_t give_up_anywhere(void *arg)
{
    (void)arg;
    for (int who = 0; who < 3; who++) {
        weft_barrier barrier = WEFT_BARRIER_INIT(4);
        weft_task *tasks[3], *another;
        int index = 0;

        queue(&barrier, tasks, 3);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        must_be(weft_barrier_waiting(&barrier), 2);
        must((another = weft_spawn(arrive, &barrier)) != NULL);
        yield_times(1);
        must_be(weft_barrier_waiting(&barrier), 3);
        must_be(weft_barrier_wait(&barrier), 3);
        for (int i = 0; i < 3; i++)
            if (i != who)
                must_be(weft_await(tasks[i]), index++);
        must_be(weft_await(another), 2);
    }
    return 0;
}

static void a_party_that_gives_up_is_not_counted(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 0);
}

static intptr_t cancelled_when_all_are_there(void *arg)
{
    (void)arg;
    for (int round = 0; round < 4; round++) {
        weft_barrier barrier = WEFT_BARRIER_INIT(2);
        weft_task *task;

        queue(&barrier, &task, 1);
        if (round & 1)
            must_be(weft_cancel(task), 1);
        if (round & 2)
            weft_barrier_reset(&barrier);
        else
            must_be(weft_barrier_wait(&barrier), 1);
        if (!(round & 1))
            must_be(weft_cancel(task), 1);
        must_be(weft_await(task), round & 2 ? -EPIPE : 0);
        must_be(weft_barrier_waiting(&barrier), 0);
    }
    return 0;
}

static void a_party_cancelled_when_all_are_there_has_its_index(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_when_all_are_there, NULL), 0);
}

static intptr_t late_or_cancelled(void *arg)
{
    weft_barrier barrier = WEFT_BARRIER_INIT(2);
    weft_timeout scope;

    (void)arg;
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_barrier_wait(&barrier), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_barrier_waiting(&barrier), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_barrier_wait(&barrier), -ECANCELED);
    must_be(weft_barrier_waiting(&barrier), 0);
    must_be(weft_uncancel(), 1);
    return 0;
}

static void deadlines_and_cancellation_end_the_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(late_or_cancelled, NULL), 0);
}

static void meet(weft_barrier *barrier)
{
    weft_task *tasks[2];

    queue(barrier, tasks, 2);
    must_be(weft_barrier_wait(barrier), 2);
    for (int i = 0; i < 2; i++)
        must_be(weft_await(tasks[i]), i);
}

static intptr_t broken(void *arg)
{
    weft_barrier barrier = WEFT_BARRIER_INIT(3);
    weft_task *tasks[2];

    (void)arg;
    for (int abort_it = 0; abort_it < 2; abort_it++) {
        queue(&barrier, tasks, 2);
        if (abort_it)
            weft_barrier_abort(&barrier);
        else
            weft_barrier_reset(&barrier);
        must_be(weft_barrier_waiting(&barrier), 0);
        for (int i = 0; i < 2; i++)
            must_be(weft_await(tasks[i]), -EPIPE);
        if (abort_it) {
            must_be(weft_barrier_wait(&barrier), -EPIPE);
            must_be(weft_barrier_wait(&barrier), -EPIPE);
            weft_barrier_reset(&barrier);
        }
        meet(&barrier);
    }
    return 0;
}

static void reset_and_abort_break_those_that_wait_and_it_is_usable_again(void **state)
{
    (void)state;
    assert_int_equal(run_alone(broken, NULL), 0);
}

/* ---- races ---- */

enum { CROWD = 100 };

static atomic_int rivals_index;

static void arrive_in_thread(void *arg)
{
    atomic_store(&rivals_index, weft_barrier_wait(arg));
}

/* A party may give up just when the last one comes; whoever is missing then is replaced. */
static intptr_t meet_or_give_up(void *arg)
{
    static bool seen[CROWD + 1];
    uint64_t random = 0x5EED;
    struct rival rival;

    (void)arg;
    rival_start(&rival, arrive_in_thread);
    for (int round = 0; round < FEWER(1000); round++) {
        int others = round % 10 == 0 ? CROWD : 2, victim = others - 1 - (int)(draw(&random) % 2);
        weft_task *tasks[CROWD];
        weft_barrier barrier;
        intptr_t index;

        must_be(weft_barrier_init(&barrier, (uint32_t)others + 1), 0);
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < others; i++)
            must((tasks[i] = weft_spawn(arrive, &barrier)) != NULL);
        yield_times((int)(draw(&random) % 3));
        rival_go(&rival, &barrier);
        dawdle(&random);
        weft_cancel(tasks[victim]);
        index = weft_await(tasks[victim]);
        if (index == -ECANCELED)
            index = weft_barrier_wait(&barrier);
        for (int i = 0; i <= others; i++) {
            must(index >= 0 && index <= others && !seen[index]);
            seen[index] = true;
            if (i < others - 1)
                index = weft_await(tasks[i < victim ? i : i + 1]);
            else
                rival_wait(&rival), index = atomic_load(&rivals_index);
        }
        must_be(weft_barrier_waiting(&barrier), 0);
    }
    rival_end(&rival);
    return 0;
}

static void every_index_is_given_once_whoever_gives_up(void **state)
{
    (void)state;
    on_each(meet_or_give_up);
}

/* All come to the same end: an index each, or all are broken up, or those that came after the reset wait for more. */
static intptr_t meet_or_break(void *arg)
{
    uint64_t random = 0x5EED;

    (void)arg;
    for (int round = 0; round < FEWER(1000); round++) {
        weft_barrier barrier = WEFT_BARRIER_INIT(3);
        weft_task *tasks[3];
        unsigned seen = 0, broken_up = 0;

        for (int i = 0; i < 3; i++)
            must((tasks[i] = weft_spawn(arrive, &barrier)) != NULL);
        yield_times((int)(draw(&random) % 3));
        weft_barrier_reset(&barrier);
        yield_times((int)(draw(&random) % 3));
        weft_barrier_abort(&barrier);
        for (int i = 0; i < 3; i++) {
            intptr_t rc = weft_await(tasks[i]);

            must(rc == -EPIPE || (rc >= 0 && rc < 3));
            if (rc == -EPIPE)
                broken_up++;
            else
                seen |= 1u << rc;
        }
        must((broken_up == 3 && seen == 0) || (broken_up == 0 && seen == 7));
    }
    return 0;
}

static void a_reset_breaks_all_that_wait_or_none(void **state)
{
    (void)state;
    on_each(meet_or_break);
}

/* ---- tasks and threads, generation after generation ---- */

enum { TASKS = 3, THREADS = 2, PARTIES = TASKS + THREADS };

static weft_barrier shared = WEFT_BARRIER_INIT(PARTIES);
static atomic_int arrived, indices;

static void come_again_and_again(void)
{
    for (int round = 1; round <= FEWER(1000); round++) {
        int index;

        atomic_fetch_add(&arrived, 1);
        index = weft_barrier_wait(&shared);
        must(index >= 0 && index < PARTIES);
        must(atomic_load(&arrived) >= round * PARTIES);
        atomic_fetch_add(&indices, index);
    }
}

static intptr_t come_in_task(void *arg)
{
    come_again_and_again();
    return (intptr_t)arg;
}

static void *come_in_thread(void *arg)
{
    come_again_and_again();
    return arg;
}

static intptr_t come_together(void *arg)
{
    weft_task *tasks[TASKS];
    pthread_t threads[THREADS];

    atomic_store(&arrived, 0);
    atomic_store(&indices, 0);
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_create(&threads[i], NULL, come_in_thread, NULL), 0);
    for (int i = 0; i < TASKS; i++)
        must((tasks[i] = weft_spawn(come_in_task, arg)) != NULL);
    for (int i = 0; i < TASKS; i++)
        must_be(weft_await(tasks[i]), 0);
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_join(threads[i], NULL), 0);
    must_be(atomic_load(&arrived), FEWER(1000) * PARTIES);
    must_be(atomic_load(&indices), FEWER(1000) * (PARTIES * (PARTIES - 1) / 2));
    return 0;
}

static void nobody_goes_on_before_all_have_come(void **state)
{
    (void)state;
    on_each(come_together);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_party_does_not_wait_and_none_is_an_error),
        cmocka_unit_test(indices_are_in_order_and_the_last_does_not_wait),
        cmocka_unit_test(a_party_that_gives_up_is_not_counted),
        cmocka_unit_test(a_party_cancelled_when_all_are_there_has_its_index),
        cmocka_unit_test(deadlines_and_cancellation_end_the_wait),
        cmocka_unit_test(reset_and_abort_break_those_that_wait_and_it_is_usable_again),
        cmocka_unit_test(every_index_is_given_once_whoever_gives_up),
        cmocka_unit_test(a_reset_breaks_all_that_wait_or_none),
        cmocka_unit_test(nobody_goes_on_before_all_have_come),
    };

    return run_all(tests, argc, argv);
}
