/*
 * Task-locals: whose they are, what children start with, and that every value is destroyed once, whatever became of
 * its task.
 */
#include <malloc.h>

#include "support.h"

static atomic_int made, destroyed;

static void *count_made(void *value)
{
    atomic_fetch_add(&made, 1);
    return value;
}

static void count_destroyed(void *value)
{
    must(value != NULL);
    atomic_fetch_add(&destroyed, 1);
}

static weft_local own = WEFT_LOCAL_INIT;
static weft_local counted = {.destroy = count_destroyed};
static weft_local shared = {.inherit = weft_local_share};
static weft_local copied = {.destroy = count_destroyed, .inherit = count_made};

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static void set(const weft_local *key, intptr_t value)
{
    must_be(weft_local_set(key, (void *)value), 0);
    if (key->destroy && value)
        atomic_fetch_add(&made, 1);
}

static void expect_balance(void)
{
    must_be(atomic_load(&made), atomic_load(&destroyed));
}

static void on_all(weft_fn *fn)
{
    for (size_t i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        atomic_store(&made, 0);
        atomic_store(&destroyed, 0);
        must_be(run_on(support_workers[i], fn, NULL), 0);
        expect_balance();
    }
}

static intptr_t keeps_its_own(void *arg)
{
    must(weft_local_get(&own) == NULL);
    set(&own, (intptr_t)arg);
    set(&counted, (intptr_t)arg);
    for (int i = 0; i < 20; i++) {
        must_be(weft_yield(), 0);
        must_be((intptr_t)weft_local_get(&own), (intptr_t)arg);
        must_be((intptr_t)weft_local_get(&counted), (intptr_t)arg);
    }
    return 0;
}

static intptr_t each_has_its_own(void *unused)
{
    enum { TASKS = 50 };
    weft_task *tasks[TASKS];

    (void)unused;
    set(&own, 1000);
    for (intptr_t i = 0; i < TASKS; i++)
        tasks[i] = spawn(keeps_its_own, (void *)(i + 1));
    must_be(weft_yield(), 0);
    for (int i = 0; i < TASKS; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be((intptr_t)weft_local_get(&own), 1000);
    return 0;
}

static void a_value_belongs_to_its_task(void **state)
{
    (void)state;
    on_all(each_has_its_own);
}

static intptr_t setting_and_removing(void *unused)
{
    (void)unused;
    must_be(weft_local_set(NULL, &own), -EINVAL);
    must_be(weft_local_set(&counted, NULL), 0);
    set(&counted, 1);
    set(&own, 5);
    must_be(atomic_load(&destroyed), 0);
    set(&counted, 2);
    must_be(atomic_load(&destroyed), 1);
    must_be(weft_local_set(&counted, (void *)2), 0); /* the same: nothing happens */
    must_be(atomic_load(&destroyed), 1);
    must_be(weft_local_set(&counted, NULL), 0);
    must_be(atomic_load(&destroyed), 2);
    must(weft_local_get(&counted) == NULL);
    must_be((intptr_t)weft_local_get(&own), 5);
    return 0;
}

static void a_value_is_destroyed_when_it_is_replaced_or_removed(void **state)
{
    (void)state;
    on_all(setting_and_removing);
}

/* ---- children ---- */

static intptr_t has_inherited(void *arg)
{
    must(weft_local_get(&own) == NULL);
    must(weft_local_get(&counted) == NULL);
    must_be((intptr_t)weft_local_get(&shared), (intptr_t)arg);
    must_be((intptr_t)weft_local_get(&copied), 7);
    set(&shared, 99); /* nobody else's */
    return 0;
}

static weft_event started_stackless;

static intptr_t has_inherited_in_steps(void *arg)
{
    has_inherited(arg);
    weft_event_set(&started_stackless);
    return 0;
}

static intptr_t every_kind_of_child(void *unused)
{
    weft_spawn_options named = {.name = "child"}, later = {.delay = WEFT_MS(1)},
                       eager = {.flags = WEFT_SPAWN_EAGER};
    const weft_spawn_options *options[] = {&named, &later, &eager};
    weft_task *task;
    weft_group group;

    (void)unused;
    set(&own, 1);
    set(&counted, 2);
    set(&shared, 3);
    set(&copied, 7);
    must_be(weft_await(spawn(has_inherited, (void *)3)), 0); /* in place */
    task = spawn(has_inherited, (void *)3);
    must_be(weft_yield(), 0);
    must_be(weft_await(task), 0);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        task = weft_spawn_with(options[i], has_inherited, (void *)3);
        must(task != NULL);
        must_be(weft_await(task), 0);
    }
    started_stackless = (weft_event)WEFT_EVENT_INIT;
    must_be(weft_go_stackless(has_inherited_in_steps, (void *)3), 0);
    must_be(weft_event_wait(&started_stackless), 0);
    must_be(weft_await(weft_spawn_stackless(has_inherited, (void *)3)), 0);
    must_be(weft_go(has_inherited, (void *)3), 0);
    must_be(weft_runtime_go(weft_runtime_current(), has_inherited, (void *)3), 0);
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < 3; i++)
        must_be(weft_group_spawn(&group, has_inherited, (void *)3), 0);
    must_be(weft_group_wait(&group), 0);
    must_be((intptr_t)weft_local_get(&shared), 3);
    return 0;
}

static void children_start_with_what_inherits(void **state)
{
    (void)state;
    on_all(every_kind_of_child);
}

static intptr_t never_runs(void *unused)
{
    (void)unused;
    must(false);
    return 0;
}

static intptr_t cancels_what_has_not_started(void *unused)
{
    weft_spawn_options later = {.delay = WEFT_SEC(100)};
    weft_task *tasks[4];

    (void)unused;
    set(&copied, 7);
    /* With nothing in between but the calls: on one worker. */
    tasks[0] = spawn(never_runs, NULL);
    must_be(weft_cancel(tasks[0]), 1);
    tasks[1] = weft_spawn_with(&later, never_runs, NULL);
    must(tasks[1] != NULL);
    must_be(weft_cancel(tasks[1]), 1);
    tasks[2] = weft_spawn_stackless(never_runs, NULL);
    must(tasks[2] != NULL);
    must_be(weft_cancel(tasks[2]), 1);
    tasks[3] = spawn(never_runs, NULL);
    must_be(weft_cancel(tasks[3]), 1);
    weft_detach(tasks[3]);
    must_be(weft_yield(), 0);
    for (int i = 0; i < 3; i++)
        must_be(weft_await(tasks[i]), -ECANCELED);
    return 0;
}

static void a_task_that_never_ran_has_its_values_destroyed(void **state)
{
    (void)state;
    for (int i = 0; i < FEWER(500); i++) {
        atomic_store(&made, 0);
        atomic_store(&destroyed, 0);
        must_be(run_alone(cancels_what_has_not_started, NULL), 0);
        expect_balance();
    }
}

/* ---- the end ---- */

static void look_at_the_end(void *value)
{
    /* Still the task's own stack, and its other values. */
    must(weft_self() == value);
    must_be((intptr_t)weft_local_get(&shared), 12);
    atomic_fetch_add(&destroyed, 1);
}

static weft_local looking = {.destroy = look_at_the_end};

static void set_again(void *value)
{
    atomic_fetch_add(&destroyed, 1);
    must_be(weft_local_set(value, value), 0);
}

static weft_local stubborn = {.destroy = set_again};

static intptr_t sets_values(void *unused)
{
    (void)unused;
    set(&shared, 12);
    must_be(weft_local_set(&looking, weft_self()), 0);
    return 0;
}

static intptr_t ends_with_values(void *unused)
{
    weft_task *task;

    (void)unused;
    atomic_store(&destroyed, 0);
    must_be(weft_await(spawn(sets_values, NULL)), 0);
    must_be(atomic_load(&destroyed), 1); /* before the awaiter hears of the end */
    for (int i = 1; i <= FEWER(1000); i++) {
        task = spawn(sets_values, NULL);
        must_be(weft_yield(), 0);
        must_be(weft_await(task), 0);
        must_be(atomic_load(&destroyed), i + 1);
    }
    return 0;
}

static void values_are_destroyed_by_their_task_before_it_has_ended(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        must_be(run_on(support_workers[i], ends_with_values, NULL), 0);
}

static intptr_t sets_a_stubborn_value(void *unused)
{
    (void)unused;
    return weft_local_set(&stubborn, &stubborn);
}

static void a_destructor_that_sets_again_comes_to_an_end(void **state)
{
    (void)state;
    atomic_store(&destroyed, 0);
    must_be(run_alone(sets_a_stubborn_value, NULL), 0);
    assert_in_range(atomic_load(&destroyed), 1, 100);
}

static intptr_t sleeps_with_values(void *unused)
{
    (void)unused;
    set(&counted, 3);
    return weft_sleep(WEFT_SEC(100));
}

static intptr_t leaves_sleepers(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++)
        must_be(weft_go(sleeps_with_values, NULL), 0);
    return weft_yield();
}

static void stopping_destroys_what_is_left(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        weft_config config = {.workers = support_workers[i]};
        weft_runtime *runtime;

        atomic_store(&made, 0);
        atomic_store(&destroyed, 0);
        must_be(weft_runtime_start(&config, &runtime), 0);
        must_be(weft_runtime_run(runtime, leaves_sleepers, NULL), 0);
        must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
        expect_balance();
    }
}

/* ---- elsewhere ---- */

static intptr_t sets_on_a_pool_thread(void *unused)
{
    (void)unused;
    must(weft_local_get(&own) == NULL);
    return weft_local_set(&own, &own);
}

static intptr_t asks_the_pool(void *unused)
{
    (void)unused;
    set(&own, 1);
    must_be(weft_blocking(sets_on_a_pool_thread, NULL), -EPERM);
    return 0;
}

static void threads_outside_have_none(void **state)
{
    (void)state;
    assert_int_equal(weft_local_set(&own, &own), -EPERM);
    assert_null(weft_local_get(&own));
    must_be(run_on(2, asks_the_pool, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_belongs_to_its_task),
        cmocka_unit_test(a_value_is_destroyed_when_it_is_replaced_or_removed),
        cmocka_unit_test(children_start_with_what_inherits),
        cmocka_unit_test(a_task_that_never_ran_has_its_values_destroyed),
        cmocka_unit_test(values_are_destroyed_by_their_task_before_it_has_ended),
        cmocka_unit_test(a_destructor_that_sets_again_comes_to_an_end),
        cmocka_unit_test(stopping_destroys_what_is_left),
        cmocka_unit_test(threads_outside_have_none),
    };

    return run_all(tests, argc, argv);
}
