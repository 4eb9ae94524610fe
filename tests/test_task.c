/* Tasks: spawn, await, detach, names, stacks, order, misuse. */
#include "support.h"

static intptr_t add_one(void *arg)
{
    return (intptr_t)arg + 1;
}

static intptr_t yield_and_return(void *arg)
{
    must_be(weft_yield(), 0);
    return (intptr_t)arg;
}

/* ---- results ---- */

static intptr_t awaits_results(void *arg)
{
    static const int order[] = {3, 0, 7, 1, 6, 2, 5, 4};
    weft_task *tasks[8];
    intptr_t result = -1;

    for (intptr_t i = 0; i < 8; i++)
        must((tasks[i] = weft_spawn(i % 2 ? add_one : yield_and_return, (void *)(i * 10))) != NULL);
    if (arg)
        yield_times(2);
    for (int i = 0; i < 8; i++)
        must_be(weft_await(tasks[order[i]]), order[i] * 10 + order[i] % 2);

    must_be(weft_await(weft_spawn(return_arg, (void *)(intptr_t)-ENOENT)), -ENOENT);
    must_be(weft_await(weft_spawn(return_arg, (void *)(intptr_t)-4096)), -4096);
    must_be(weft_await(weft_spawn(return_arg, (void *)INTPTR_MIN)), INTPTR_MIN);
    must_be(weft_await_into(weft_spawn(return_arg, (void *)(intptr_t)-ECANCELED), &result), 0);
    must_be(result, -ECANCELED);
    must_be(weft_await_into(weft_spawn(yield_and_return, (void *)11), &result), 0);
    must_be(result, 11);
    must_be(weft_await_into(weft_spawn(return_arg, NULL), NULL), 0);
    return 99;
}

static void results_come_back_in_whatever_order_they_are_awaited(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        assert_int_equal(run_on(support_workers[i], awaits_results, NULL), 99);
        assert_int_equal(run_on(support_workers[i], awaits_results, (void *)1), 99);
    }
}

static intptr_t square(void *arg)
{
    return (intptr_t)arg * (intptr_t)arg;
}

static intptr_t awaits_square(void *arg)
{
    return weft_await(weft_spawn(square, arg));
}

static void a_nested_await_returns_the_inner_result(void **state)
{
    (void)state;
    assert_int_equal(run_alone(awaits_square, (void *)10), 100);
    assert_int_equal(run_on(2, awaits_square, (void *)10), 100);
}

static void errors_are_told_from_values_by_their_range(void **state)
{
    (void)state;
    assert_true(weft_is_error(-1));
    assert_true(weft_is_error(-4095));
    assert_false(weft_is_error(-4096));
    assert_false(weft_is_error(0));
    assert_false(weft_is_error(INTPTR_MIN));
    assert_false(weft_is_error(INTPTR_MAX));
}

/* ---- names, stacks ---- */

static intptr_t check_name(void *arg)
{
    must(strcmp(weft_task_name(weft_self()), arg) == 0);
    must_be(weft_yield(), 0);
    must(strcmp(weft_task_name(weft_self()), arg) == 0);
    return 5;
}

static weft_task *spawn_named(const char *name, weft_fn *fn, void *arg)
{
    weft_spawn_options options = {.name = name};
    weft_task *task = weft_spawn_with(&options, fn, arg);

    must(task != NULL);
    return task;
}

static intptr_t names(void *arg)
{
    char name[] = "courier";
    weft_spawn_options defaults = WEFT_SPAWN_DEFAULT;
    weft_task *task;

    (void)arg;
    must(strcmp(weft_task_name(weft_self()), "") == 0);
    task = spawn_named(name, check_name, "courier");
    memset(name, 'x', sizeof name - 1); /* it was copied */
    must(strcmp(weft_task_name(task), "courier") == 0);
    must_be(weft_await(task), 5);

    task = spawn_named("0123456789012345678901234567890123456789", check_name, "0123456789012345678901234567890");
    yield_times(1);
    must_be(weft_await(task), 5);
    /* A record that had a name does not keep it for the next task. */
    must_be(weft_await(weft_spawn(check_name, "")), 5);
    must_be(weft_await(weft_spawn_with(&defaults, check_name, "")), 5);
    must_be(weft_await(weft_spawn_with(NULL, check_name, "")), 5);
    must(strcmp(weft_task_name(NULL), "") == 0);
    return 0;
}

static void names_are_copied_cut_and_not_inherited(void **state)
{
    (void)state;
    assert_int_equal(run_alone(names, NULL), 0);
    assert_int_equal(run_on(3, names, NULL), 0);
}

/* Touch `arg` bytes of stack, a page at a time, before and after a suspension. */
static __attribute__((noinline)) intptr_t use_stack(void *arg)
{
    size_t size = (size_t)arg;
    volatile char *bytes = __builtin_alloca(size);
    intptr_t sum = 0;

    for (size_t i = 0; i < size; i += 512)
        bytes[size - 1 - i] = 1;
    must_be(weft_yield(), 0);
    for (size_t i = 0; i < size; i += 512)
        sum += bytes[size - 1 - i];
    return sum;
}

static intptr_t use_stacks(void *arg)
{
    weft_spawn_options large = {.stack_size = 16 << 20}, small = {.stack_size = 16 << 10},
                       absurd = {.stack_size = SIZE_MAX - 4096};
    intptr_t some = (intptr_t)arg, much = 15 << 20, little = 8 << 10;
    weft_task *tasks[40];

    must(weft_spawn_with(&absurd, return_arg, NULL) == NULL);
    must_be(weft_await(weft_spawn_with(&large, use_stack, (void *)much)), much / 512); /* not on this stack */
    must_be(weft_await(weft_spawn_with(&small, use_stack, (void *)little)), little / 512);
    for (int i = 0; i < 40; i++)
        must((tasks[i] = weft_spawn_with(i % 2 ? &small : &large, use_stack, (void *)(i % 2 ? little : much))) !=
             NULL);
    yield_times(1);
    for (int i = 0; i < 40; i++)
        must_be(weft_await(tasks[i]), (i % 2 ? little : much) / 512);
    must_be(weft_await(weft_spawn(use_stack, (void *)some)), some / 512);
    return 0;
}

static void a_task_may_use_the_stack_that_it_asked_for(void **state)
{
    (void)state;
    assert_int_equal(run_alone(use_stacks, (void *)(20 << 10)), 0);
    assert_int_equal(run_on(3, use_stacks, (void *)(20 << 10)), 0);
}

static intptr_t dig(void *arg)
{
    intptr_t depth = (intptr_t)arg;
    volatile char frame[1024];
    intptr_t below;

    for (size_t i = 0; i < sizeof frame; i += 64)
        frame[i] = (char)depth;
    if (depth == 0)
        return 0;
    below = weft_await(weft_spawn(dig, (void *)(depth - 1)));
    for (size_t i = 0; i < sizeof frame; i += 64)
        must(frame[i] == (char)depth);
    return below + 1;
}

static intptr_t dig_with_pauses(void *arg)
{
    intptr_t depth = (intptr_t)arg;

    if (depth == 0)
        return 0;
    if (depth % 100 == 0)
        must_be(weft_yield(), 0);
    return weft_await(weft_spawn(dig_with_pauses, (void *)(depth - 1))) + 1;
}

static void ten_thousand_nested_awaits_go_on_on_other_stacks(void **state)
{
    intptr_t depth = FEWER(10000) * (SUPPORT_SANITIZED ? 2 : 1);

    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        assert_int_equal(run_on(support_workers[i], dig, (void *)depth), depth);
        assert_int_equal(run_on(support_workers[i], dig_with_pauses, (void *)depth), depth);
    }
}

/* ---- detach ---- */

static atomic_int counted;

static intptr_t count_one(void *arg)
{
    if (arg)
        must_be(weft_yield(), 0);
    atomic_fetch_add(&counted, 1);
    return 0;
}

static intptr_t detaches(void *arg)
{
    weft_task *early, *late;
    (void)arg;

    atomic_store(&counted, 0);
    must((early = weft_spawn(count_one, (void *)1)) != NULL);
    weft_detach(early);
    must((late = weft_spawn(count_one, NULL)) != NULL);
    must_be(weft_go(count_one, NULL), 0);
    must_be(weft_go(count_one, (void *)1), 0);
    wait_until_true(atomic_load(&counted) == 4);
    weft_detach(late);
    weft_detach(NULL);
    return 0;
}

static void a_detached_task_runs_to_its_end(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], detaches, NULL), 0);
}

static intptr_t leaves_others(void *arg)
{
    (void)arg;
    must_be(weft_go(count_one, (void *)1), 0);
    return 1;
}

static void a_task_may_end_before_those_it_has_spawned(void **state)
{
    (void)state;
    atomic_store(&counted, 0);
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], leaves_others, NULL), 1);
    assert_int_equal(atomic_load(&counted), SUPPORT_WORKER_COUNTS);
}

/* ---- misuse ---- */

static weft_event go_on;

static intptr_t wait_to_go_on(void *arg)
{
    int rc = weft_event_wait(&go_on);

    return rc < 0 ? rc : (intptr_t)arg;
}

static intptr_t awaits_itself(void *arg)
{
    weft_task *self = weft_self();

    (void)arg;
    must(self != NULL);
    must_be(weft_await(self), -EDEADLK);
    must_be(weft_await_into(self, NULL), -EDEADLK);
    must_be(weft_yield(), 0);
    must(weft_self() == self);
    must_be(weft_await(self), -EDEADLK);
    return 3;
}

static intptr_t awaits_other(void *arg)
{
    return weft_await((weft_task *)arg);
}

/* Awaits in place a task that it has spawned itself and published. */
static _Atomic(weft_task *) published;

static intptr_t awaits_published(void *arg)
{
    weft_task *task = weft_spawn(wait_to_go_on, arg);

    must(task != NULL);
    atomic_store(&published, task);
    return weft_await(task);
}

static intptr_t awaits_badly(void *arg)
{
    weft_task *waiting, *first, *own;

    (void)arg;
    go_on = (weft_event)WEFT_EVENT_INIT;
    must_be(weft_await((weft_task *)NULL), -EINVAL);
    must_be(weft_await_into(NULL, NULL), -EINVAL);
    must_be(weft_cancel(NULL), -EINVAL);
    own = weft_self();
    must_be(weft_await(own), -EDEADLK);
    must_be(weft_await(weft_spawn(awaits_itself, NULL)), 3); /* in place */
    must((first = weft_spawn(awaits_itself, NULL)) != NULL);
    yield_times(1);
    must_be(weft_await(first), 3);

    /* A second awaiter, of a task that waits on a stack of its own. */
    must((waiting = weft_spawn(wait_to_go_on, (void *)7)) != NULL);
    yield_times(1);
    must((first = weft_spawn(awaits_other, waiting)) != NULL);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    must_be(weft_await(waiting), -EBUSY);
    must_be(weft_await_into(waiting, NULL), -EBUSY);
    weft_event_set(&go_on);
    must_be(weft_await(first), 7);
    return 0;
}

static intptr_t awaits_too_late(void *arg)
{
    weft_timeout scope;
    intptr_t rc;

    weft_timeout_begin(&scope, WEFT_US(1));
    while (weft_sleep(WEFT_SEC(100)) != -ETIMEDOUT)
        ;
    rc = weft_await(arg);
    weft_timeout_end(&scope);
    return rc;
}

/* Who may not await a task does not cancel it for who may. */
static intptr_t is_refused_late(void *arg)
{
    weft_task *waiting, *first;

    go_on = (weft_event)WEFT_EVENT_INIT;
    must((waiting = weft_spawn(wait_to_go_on, (void *)7)) != NULL);
    yield_times(1);
    must((first = weft_spawn(awaits_other, waiting)) != NULL);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    must_be(weft_await(weft_spawn(awaits_too_late, waiting)), -EBUSY);
    weft_event_set(&go_on);
    must_be(weft_await(first), 7);
    return (intptr_t)arg;
}

static void who_is_refused_cancels_nothing(void **state)
{
    (void)state;
    assert_int_equal(run_alone(is_refused_late, NULL), 0);
    assert_int_equal(run_on(3, is_refused_late, NULL), 0);
}

static void bad_awaits_are_refused(void **state)
{
    (void)state;
    assert_int_equal(run_alone(awaits_badly, NULL), 0);
    assert_int_equal(run_on(3, awaits_badly, NULL), 0);
}

static intptr_t awaits_in_place_twice(void *arg)
{
    weft_task *first;

    (void)arg;
    go_on = (weft_event)WEFT_EVENT_INIT;
    atomic_store(&published, NULL);
    must((first = weft_spawn(awaits_published, (void *)8)) != NULL);
    wait_until_true(atomic_load(&published));
    must_be(weft_sleep(WEFT_MS(20)), 0);
    must_be(weft_await(atomic_load(&published)), -EBUSY);
    weft_event_set(&go_on);
    must_be(weft_await(first), 8);
    return 0;
}

static void a_second_awaiter_is_refused_in_place_too(void **state)
{
    (void)state;
    assert_int_equal(run_alone(awaits_in_place_twice, NULL), 0);
    assert_int_equal(run_on(3, awaits_in_place_twice, NULL), 0);
}

static intptr_t runs_nested(void *arg)
{
    must_be(weft_run(return_arg, NULL), -EALREADY);
    must_be(weft_runtime_run(weft_runtime_current(), return_arg, NULL), -EALREADY);
    must_be(weft_runtime_stop(weft_runtime_current(), 0), -EDEADLK);
    must_be(weft_yield(), 0);
    must_be(weft_run(return_arg, NULL), -EALREADY);
    return (intptr_t)arg;
}

static void running_inside_a_task_is_refused(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, runs_nested, (void *)4), 4);
    assert_int_equal(weft_run(runs_nested, (void *)4), 4);
}

static void calls_for_tasks_are_refused_outside_one(void **state)
{
    weft_spawn_options options = {.name = "nobody"};

    (void)state;
    assert_null(weft_spawn(return_arg, NULL));
    assert_null(weft_spawn_with(&options, return_arg, NULL));
    assert_int_equal(weft_go(return_arg, NULL), -EPERM);
    assert_int_equal(weft_yield(), -EPERM);
    assert_int_equal(weft_sleep(0), -EPERM);
    assert_int_equal(weft_sleep(WEFT_MS(1)), -EPERM);
    assert_int_equal(weft_sleep_until(weft_now() + WEFT_MS(1)), -EPERM);
    assert_null(weft_self());
    assert_int_equal(weft_cancelled(), 0);
    assert_int_equal(weft_uncancel(), 0);
    assert_null(weft_runtime_current());
}

/* ---- the calling task ---- */

static intptr_t check_self(void *arg)
{
    weft_task **slot = arg;

    must(weft_self() != NULL);
    if (slot)
        must(weft_self() == *slot);
    must_be(weft_yield(), 0);
    if (slot)
        must(weft_self() == *slot);
    return 0;
}

static intptr_t knows_itself(void *arg)
{
    weft_task *self = weft_self(), *child;

    (void)arg;
    must(weft_runtime_current() != NULL);
    must((child = weft_spawn(check_self, &child)) != NULL);
    must_be(weft_await(child), 0);
    must(weft_self() == self);
    must((child = weft_spawn(check_self, &child)) != NULL);
    yield_times(3);
    must(weft_self() == self);
    must_be(weft_await(child), 0);
    return 0;
}

static void self_is_the_handle_in_place_and_elsewhere(void **state)
{
    (void)state;
    assert_int_equal(run_alone(knows_itself, NULL), 0);
    assert_int_equal(run_on(8, knows_itself, NULL), 0);
}

/* ---- threads outside ---- */

static void a_plain_thread_awaits_what_it_has_spawned(void **state)
{
    weft_config config = {.workers = 2};
    weft_task *tasks[100];
    weft_runtime *runtime;
    intptr_t result = 0;

    (void)state;
    assert_int_equal(weft_runtime_start(&config, &runtime), 0);
    for (intptr_t i = 0; i < 100; i++)
        assert_non_null(tasks[i] = weft_runtime_spawn(runtime, i % 2 ? add_one : yield_and_return, (void *)i));
    for (int i = 99; i >= 0; i--)
        assert_int_equal(weft_await(tasks[i]), i + i % 2);
    assert_int_equal(weft_await((weft_task *)NULL), -EINVAL);
    assert_non_null(tasks[0] = weft_runtime_spawn(runtime, sleep_for_ever, NULL));
    assert_int_equal(weft_cancel(tasks[0]), 1);
    assert_int_equal(weft_await_into(tasks[0], &result), 0);
    assert_int_equal(result, -ECANCELED);
    settle(runtime);
    assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
}

/* ---- failures that nobody sees ---- */

static atomic_int reports, reported_sum;
static char reported_name[64];

static void note_failure(const char *name, intptr_t result, void *user)
{
    must(user == &reports);
    if (name[0])
        snprintf(reported_name, sizeof reported_name, "%s", name);
    atomic_fetch_add(&reported_sum, (int)result);
    atomic_fetch_add(&reports, 1);
}

static intptr_t fails_unseen(void *arg)
{
    weft_spawn_options options = {.name = "clumsy"};
    weft_task *task;

    (void)arg;
    /* Reported: failures of what is detached before, or after its end. */
    must_be(weft_go(return_arg, (void *)(intptr_t)-5), 0);
    must((task = weft_spawn(return_arg, (void *)(intptr_t)-7)) != NULL);
    weft_detach(task);
    must((task = weft_spawn_with(&options, return_arg, (void *)(intptr_t)-11)) != NULL);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    weft_detach(task);
    must_be(weft_go(return_arg, (void *)(intptr_t)-ECANCELED), 0); /* nobody had cancelled it */
    wait_until_true(atomic_load(&reports) == 4);
    must_be(atomic_load(&reported_sum), -5 - 7 - 11 - ECANCELED);

    /* Not reported: values, what is awaited, what was cancelled. */
    must_be(weft_go(return_arg, (void *)5), 0);
    must_be(weft_go(return_arg, (void *)(intptr_t)-4096), 0);
    must_be(weft_await(weft_spawn(return_arg, (void *)(intptr_t)-5)), -5);
    must((task = weft_spawn(return_arg, (void *)(intptr_t)-5)) != NULL);
    must_be(weft_cancel(task), 1);
    weft_detach(task);
    must((task = weft_spawn(sleep_for_ever, NULL)) != NULL);
    must_be(weft_sleep(WEFT_MS(5)), 0);
    must_be(weft_cancel(task), 1);
    weft_detach(task);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    return 0;
}

static void an_unseen_failure_is_reported_exactly_once(void **state)
{
    (void)state;
    for (uint32_t workers = 1; workers <= 2; workers++) {
        weft_config config = {.workers = workers, .on_unseen_failure = note_failure, .user = &reports};

        atomic_store(&reports, 0);
        atomic_store(&reported_sum, 0);
        reported_name[0] = '\0';
        assert_int_equal(run_with(&config, fails_unseen, NULL), 0);
        assert_int_equal(atomic_load(&reports), 4);
        assert_string_equal(reported_name, "clumsy");
    }
}

/* ---- many ---- */

static intptr_t awaits_many(void *arg)
{
    intptr_t n = FEWER(100000), sum = 0;
    weft_task **tasks = malloc((size_t)n * sizeof *tasks);

    must(tasks != NULL);
    for (intptr_t i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(i % 16 == 0 ? yield_and_return : return_arg, (void *)i)) != NULL);
    for (intptr_t i = 0; i < n; i++)
        sum += weft_await(tasks[arg ? n - 1 - i : i]);
    free(tasks);
    must_be(sum, n * (n - 1) / 2);
    return 0;
}

static intptr_t goes_many(void *arg)
{
    int n = FEWER(100000);

    (void)arg;
    atomic_store(&counted, 0);
    for (int i = 0; i < n; i++)
        must_be(weft_go(count_one, (void *)(intptr_t)(i % 16 == 0)), 0);
    wait_until_true(atomic_load(&counted) == n);
    return 0;
}

static void a_hundred_thousand_tasks_all_run(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        assert_int_equal(run_on(support_workers[i], awaits_many, NULL), 0);
        assert_int_equal(run_on(support_workers[i], awaits_many, (void *)1), 0);
        assert_int_equal(run_on(support_workers[i], goes_many, NULL), 0);
    }
}

static intptr_t fib(void *arg)
{
    intptr_t n = (intptr_t)arg;
    weft_task *left;
    intptr_t right;

    if (n < 2)
        return n;
    left = weft_spawn(fib, (void *)(n - 1));
    must(left != NULL);
    right = fib((void *)(n - 2));
    return weft_await(left) + right;
}

/* As fib, with tasks that park now and then, so that they wander. */
static intptr_t restless_fib(void *arg)
{
    intptr_t n = (intptr_t)arg;
    weft_task *left, *right;

    if (n < 2)
        return n;
    must((left = weft_spawn(restless_fib, (void *)(n - 1))) != NULL);
    must((right = weft_spawn(restless_fib, (void *)(n - 2))) != NULL);
    if (n % 3 == 0)
        must_be(weft_yield(), 0);
    if (n % 7 == 0)
        must_be(weft_sleep(WEFT_US(10)), 0);
    n = weft_await(left);
    return n + weft_await(right);
}

static void fork_join_is_exact_with_any_number_of_workers(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        assert_int_equal(run_on(support_workers[i], fib, (void *)(SUPPORT_SANITIZED ? 18 : 24)),
                         SUPPORT_SANITIZED ? 2584 : 46368);
        assert_int_equal(run_on(support_workers[i], restless_fib, (void *)(SUPPORT_SANITIZED ? 12 : 18)),
                         SUPPORT_SANITIZED ? 144 : 2584);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_come_back_in_whatever_order_they_are_awaited),
        cmocka_unit_test(a_nested_await_returns_the_inner_result),
        cmocka_unit_test(errors_are_told_from_values_by_their_range),
        cmocka_unit_test(names_are_copied_cut_and_not_inherited),
        cmocka_unit_test(a_task_may_use_the_stack_that_it_asked_for),
        cmocka_unit_test(ten_thousand_nested_awaits_go_on_on_other_stacks),
        cmocka_unit_test(a_detached_task_runs_to_its_end),
        cmocka_unit_test(a_task_may_end_before_those_it_has_spawned),
        cmocka_unit_test(bad_awaits_are_refused),
        cmocka_unit_test(who_is_refused_cancels_nothing),
        cmocka_unit_test(a_second_awaiter_is_refused_in_place_too),
        cmocka_unit_test(running_inside_a_task_is_refused),
        cmocka_unit_test(calls_for_tasks_are_refused_outside_one),
        cmocka_unit_test(self_is_the_handle_in_place_and_elsewhere),
        cmocka_unit_test(a_plain_thread_awaits_what_it_has_spawned),
        cmocka_unit_test(an_unseen_failure_is_reported_exactly_once),
        cmocka_unit_test(a_hundred_thousand_tasks_all_run),
        cmocka_unit_test(fork_join_is_exact_with_any_number_of_workers),
    };

    return run_all(tests, argc, argv);
}
