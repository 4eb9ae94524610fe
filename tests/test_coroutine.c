/* Symmetric coroutines: the order they name, beside a generator's; misuse, tasks that move, threads. */
#include <pthread.h>

#include "support.h"

static const uint32_t worker_counts[] = {1, 2, 8};

/* On the main thread, which has no runtime, then in a task of runtimes of 1, 2 and 8 workers. */
static void everywhere(weft_fn *fn)
{
    must_be(fn(NULL), 0);
    for (unsigned i = 0; i < sizeof worker_counts / sizeof *worker_counts; i++)
        must_be(run_on(worker_counts[i], fn, NULL), 0);
}

static weft_co *make(intptr_t (*fn)(intptr_t))
{
    weft_co *co = weft_co_new(fn);

    must(co != NULL);
    return co;
}

/* Transfer, and return what comes back. */
static intptr_t go(weft_co *to, intptr_t in)
{
    intptr_t value = -77;

    must_be(weft_co_transfer(to, in, &value), 0);
    return value;
}

/* ---- A, B, C and a generator doing the same ---- */

static weft_co *a, *b, *c;
static char trace[256];

static void note(const char *name, intptr_t value)
{
    size_t length = strlen(trace);

    snprintf(trace + length, sizeof trace - length, "%s%d ", name, (int)value);
}

static intptr_t run_a(intptr_t value)
{
    must(weft_co_self() == a);
    for (int round = 0; round < 3; round++) {
        note("A", value);
        value = go(b, value + 1);
        must(weft_co_self() == a);
    }
    return value;
}

static intptr_t run_b(intptr_t value)
{
    for (;;) {
        must(weft_co_self() == b);
        note("B", value);
        value = go(c, value + 1);
    }
    return 0;
}

static intptr_t run_c(intptr_t value)
{
    for (;;) {
        must(weft_co_self() == c);
        note("C", value);
        value = go(a, value + 1);
    }
    return 0;
}

static intptr_t name_in_turn(void *arg)
{
    intptr_t value = 0;

    for (int round = 0; round < 3; round++)
        for (int which = 0; which < 3; which++) {
            note(which == 0 ? "A" : which == 1 ? "B" : "C", value++);
            weft_gen_yield(value);
        }
    return (intptr_t)arg;
}

static const char nine_turns[] = "A0 B1 C2 A3 B4 C5 A6 B7 C8 ";

static intptr_t symmetric_and_asymmetric(void *arg)
{
    weft_gen *gen;

    a = make(run_a), b = make(run_b), c = make(run_c);
    trace[0] = '\0';
    must(weft_co_self() == NULL);
    must_be(go(a, 0), 9);
    must(strcmp(trace, nine_turns) == 0);
    must(weft_co_self() == NULL);
    must_be(weft_co_finished(a), 1);
    must_be(weft_co_finished(b), 0);
    must_be(weft_co_transfer(a, 0, NULL), -EINVAL);
    must_be(weft_co_free(a), 0);
    must_be(weft_co_free(b), 0);
    must_be(weft_co_free(c), 0);
    must(strcmp(trace, nine_turns) == 0); /* what was freed did not run again */

    trace[0] = '\0';
    must((gen = weft_gen_new(name_in_turn, NULL)) != NULL);
    while (weft_gen_next(gen, NULL) == 1)
        continue;
    must(strcmp(trace, nine_turns) == 0);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void p10_symmetric_transfer_beside_asymmetric_yield(void **state)
{
    (void)state;
    everywhere(symmetric_and_asymmetric);
}

/* ---- leaving and returning ---- */

static intptr_t come_and_go(intptr_t value)
{
    for (int i = 0; i < 3; i++)
        value = go(NULL, value * 2);
    return value + 1;
}

static intptr_t leave_and_return(void *arg)
{
    weft_co *co = make(come_and_go);

    must_be(go(co, 5), 10);
    must_be(go(co, 6), 12);
    must_be(go(co, 7), 14);
    must_be(weft_co_finished(co), 0);
    must_be(go(co, 8), 9);
    must_be(weft_co_finished(co), 1);
    must_be(weft_co_free(co), 0);
    return (intptr_t)arg;
}

static void the_outside_is_left_and_entered_again(void **state)
{
    (void)state;
    everywhere(leave_and_return);
}

static intptr_t add_one(intptr_t value)
{
    return value + 1;
}

static intptr_t times_ten(intptr_t value)
{
    return value * 10;
}

static intptr_t wait_then_add(intptr_t value)
{
    return value + go(NULL, value);
}

static intptr_t successors(void *arg)
{
    weft_co *first = make(add_one), *second = make(times_ten), *third = make(wait_then_add);

    weft_co_set_return(first, second);
    weft_co_set_return(second, third);
    must_be(go(first, 1), 20);
    must_be(weft_co_finished(second), 1);
    must_be(weft_co_finished(third), 0);
    must_be(go(third, 3), 23);
    must_be(weft_co_free(first), 0);

    /* One that cannot be gone to: finished, itself. */
    first = make(add_one);
    weft_co_set_return(first, second);
    must_be(go(first, 4), 5);
    must_be(weft_co_free(first), 0);
    first = make(add_one);
    weft_co_set_return(first, first);
    must_be(go(first, 5), 6);

    must_be(weft_co_free(first), 0);
    must_be(weft_co_free(second), 0);
    must_be(weft_co_free(third), 0);
    return (intptr_t)arg;
}

static void one_that_returns_goes_to_its_successor(void **state)
{
    (void)state;
    everywhere(successors);
}

/* ---- misuse ---- */

static weft_co *partner;

static intptr_t misuse_inside(intptr_t value)
{
    weft_co *me = weft_co_self();

    must_be(weft_co_transfer(me, 1, NULL), -EBUSY);
    must_be(weft_co_free(me), -EBUSY);
    must_be(weft_co_finished(me), 0);
    must_be(weft_gen_yield(1), -EPERM);
    must_be(go(partner, (intptr_t)me), 4);
    return value;
}

static intptr_t answer_once(intptr_t value)
{
    go((weft_co *)value, 4);
    return 6;
}

static intptr_t misuse(void *arg)
{
    weft_co *huge = weft_co_new_with(SIZE_MAX / 4, add_one);
    weft_co *co = make(misuse_inside);

    must_be(weft_co_transfer(NULL, 1, NULL), -EINVAL);
    must_be(weft_co_free(NULL), 0);
    must(weft_co_new(NULL) == NULL);
    must(huge != NULL);
    must_be(weft_co_transfer(huge, 1, NULL), -ENOMEM);
    must_be(weft_co_transfer(huge, 1, NULL), -ENOMEM);
    must_be(weft_co_free(huge), 0);

    partner = make(answer_once);
    must_be(go(co, 13), 13);
    must_be(weft_co_finished(partner), 0);
    must_be(go(partner, 0), 6);
    must_be(weft_co_free(co), 0);
    must_be(weft_co_free(partner), 0);
    return (intptr_t)arg;
}

static void misuse_is_told(void **state)
{
    (void)state;
    everywhere(misuse);
}

/* ---- mixed with generators and tasks ---- */

static weft_co *echo;

static intptr_t echo_for_ever(intptr_t value)
{
    for (;;)
        value = go(NULL, value + 100);
    return 0;
}

static intptr_t transfer_in_a_body(void *arg)
{
    for (intptr_t i = 0; i < 5; i++) {
        must(weft_co_self() == NULL);
        must_be(weft_gen_yield(go(echo, i)), 0);
    }
    return (intptr_t)arg;
}

static intptr_t resume_in_a_coroutine(intptr_t value)
{
    weft_gen *gen = weft_gen_new(transfer_in_a_body, NULL);
    intptr_t sum = 0;

    must(gen != NULL);
    WEFT_GEN_FOR(item, gen)
    {
        must(weft_co_self() != NULL);
        sum += go(NULL, item);
    }
    must_be(weft_gen_free(gen), 0);
    return sum + value;
}

static intptr_t mix(void *arg)
{
    weft_co *co = make(resume_in_a_coroutine);

    echo = make(echo_for_ever);
    must_be(go(co, 1000), 100);
    for (intptr_t i = 1; i < 5; i++)
        must_be(go(co, i), 100 + i);
    must_be(go(co, 5), 1015);
    must_be(weft_co_free(co), 0);
    must_be(weft_co_free(echo), 0);
    return (intptr_t)arg;
}

static void a_body_of_a_generator_is_an_outside(void **state)
{
    (void)state;
    everywhere(mix);
}

static intptr_t enter_from_a_child(void *arg)
{
    weft_co *co = make(come_and_go);

    must(weft_co_self() == NULL);
    must_be(weft_co_transfer(NULL, 1, NULL), -EINVAL);
    must_be(weft_co_transfer(arg, 1, NULL), -EBUSY); /* its parent */
    must_be(go(co, 5), 10);
    must_be(weft_yield(), 0);
    must_be(go(co, 6), 12);
    return weft_co_free(co);
}

static intptr_t await_children(intptr_t value)
{
    weft_timeout scope;

    for (int i = 0; i < 100; i++) {
        weft_task *child = weft_spawn(enter_from_a_child, weft_co_self());

        must(child != NULL);
        must_be(weft_await(child), 0);
        must_be(go(NULL, i), 0);
    }
    must_be(weft_timeout_begin(&scope, WEFT_SEC(100)), 0);
    must_be(weft_co_transfer(NULL, 1, NULL), -EINVAL);
    must_be(weft_timeout_end(&scope), 0);
    return value;
}

static intptr_t coroutine_with_children(void *arg)
{
    weft_co *co = make(await_children);

    for (int i = 0; i < 100; i++)
        must_be(go(co, 0), i);
    must_be(weft_co_transfer(co, 0, NULL), 0);
    must_be(weft_co_finished(co), 1);
    must_be(weft_co_free(co), 0);
    return (intptr_t)arg;
}

static void a_task_that_a_coroutine_awaits_is_an_outside(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        must_be(run_on(worker_counts[i], coroutine_with_children, NULL), 0);
}

/* A ring of coroutines of each task's own; they sleep, so that the task moves. */
enum { RING = 5 };

struct ring {
    weft_co *members[RING];
    intptr_t left;
};

static intptr_t pass_around(intptr_t value)
{
    struct ring *ring = (struct ring *)value;
    int me = 0;

    while (ring->members[me] != weft_co_self())
        me++;
    while (ring->left-- > 0) {
        must_be(ring->left % 4 ? weft_yield() : weft_sleep(WEFT_US(10)), 0);
        must(ring->members[me] == weft_co_self());
        go(ring->members[(me + 1) % RING], value);
    }
    return 31;
}

static intptr_t one_ring(void *arg)
{
    struct ring ring = {.left = 50};

    for (int i = 0; i < RING; i++)
        ring.members[i] = make(pass_around);
    must_be(go(ring.members[0], (intptr_t)&ring), 31);
    for (int i = 0; i < RING; i++)
        must_be(weft_co_free(ring.members[i]), 0);
    return (intptr_t)arg;
}

static intptr_t many_rings(void *arg)
{
    enum { TASKS = FEWER(300) };
    static weft_task *tasks[TASKS];

    for (intptr_t i = 0; i < TASKS; i++)
        must((tasks[i] = weft_spawn(one_ring, (void *)i)) != NULL);
    for (intptr_t i = 0; i < TASKS; i++)
        must_be(weft_await(tasks[i]), i);
    return (intptr_t)arg;
}

static void a_wait_suspends_the_task_that_entered(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        must_be(run_on(worker_counts[i], many_rings, NULL), 0);
}

static weft_event waits, never;

static intptr_t wait_for_ever(intptr_t value)
{
    (void)value;
    for (;;) {
        weft_event_set(&waits);
        go(NULL, weft_event_wait(&never));
    }
    return 0;
}

static intptr_t enter(void *arg)
{
    return go(arg, 0);
}

static intptr_t cancel_inside(void *arg)
{
    for (int i = 0; i < FEWER(300); i++) {
        weft_co *co = make(wait_for_ever);
        weft_task *task = weft_spawn(enter, co);

        must(task != NULL);
        must_be(weft_event_wait(&waits), 0);
        weft_event_clear(&waits);
        must_be(weft_co_transfer(co, 0, NULL), -EBUSY);
        must_be(weft_co_free(co), -EBUSY);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), -ECANCELED);
        must_be(weft_co_free(co), 0);
    }
    return (intptr_t)arg;
}

static void cancellation_reaches_a_coroutine_that_waits(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        must_be(run_on(worker_counts[i], cancel_inside, NULL), 0);
}

/* ---- threads ---- */

enum { THREADS = 4 };

static weft_co *shared;
static _Atomic long entered;

static intptr_t count_entries_of_threads(intptr_t value)
{
    (void)value;
    for (intptr_t i = 0;; i++)
        go(NULL, i);
    return 0;
}

static void *enter_when_free(void *arg)
{
    for (int i = 0; i < FEWER(50000);) {
        intptr_t value = -1;
        int rc = weft_co_transfer(shared, 0, &value);

        must(rc == 0 || rc == -EBUSY);
        if (rc == 0) {
            must(value >= i);
            entered++;
            i++;
        } else {
            sched_yield();
        }
    }
    return arg;
}

static void a_suspended_one_goes_on_in_any_thread(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    shared = make(count_entries_of_threads);
    entered = 0;
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_create(&threads[i], NULL, enter_when_free, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    must_be(go(shared, 0), entered);
    must_be(weft_co_free(shared), 0);
}

static void many_are_alive(void **state)
{
    enum { MANY = FEWER(10000) };
    static weft_co *all[MANY];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        all[i] = make(echo_for_ever);
        must_be(go(all[i], i), i + 100);
    }
    for (int i = 0; i < MANY; i++)
        must_be(go(all[i], 2 * i), 2 * i + 100);
    for (int i = 0; i < MANY; i++)
        must_be(weft_co_free(all[i]), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p10_symmetric_transfer_beside_asymmetric_yield),
        cmocka_unit_test(the_outside_is_left_and_entered_again),
        cmocka_unit_test(one_that_returns_goes_to_its_successor),
        cmocka_unit_test(misuse_is_told),
        cmocka_unit_test(a_body_of_a_generator_is_an_outside),
        cmocka_unit_test(a_task_that_a_coroutine_awaits_is_an_outside),
        cmocka_unit_test(a_wait_suspends_the_task_that_entered),
        cmocka_unit_test(cancellation_reaches_a_coroutine_that_waits),
        cmocka_unit_test(a_suspended_one_goes_on_in_any_thread),
        cmocka_unit_test(many_are_alive),
    };

    return run_all(tests, argc, argv);
}
