/* weft_as_completed: order, duplicates, early ends, and that what is not handed out stays the caller's. */
#include "runtime/task.h"
#include "support.h"

enum { MANY = 100 };

static const uint32_t few_workers[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof few_workers / sizeof *few_workers; i++)
        must_be(run_on(few_workers[i], fn, NULL), 0);
}

#define CASE(name)                 \
    static void name(void **state) \
    {                              \
        (void)state;               \
        on_each(name##_task);      \
    }

static weft_event events[MANY];

static intptr_t wait_for(void *arg)
{
    intptr_t i = (intptr_t)arg;
    int rc = weft_event_wait(&events[i]);

    return rc < 0 ? rc : i;
}

static void spawn_waiters(weft_task **tasks, int n)
{
    memset(events, 0, sizeof events);
    for (intptr_t i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(wait_for, (void *)i)) != NULL);
}

/* Each is let go when the one before has been handed out: so the order is known. */
static intptr_t order_task(void *arg)
{
    weft_task *tasks[MANY], *task;
    weft_as_completed it;

    for (int round = 0; round < FEWER(100); round++) {
        spawn_waiters(tasks, MANY);
        must_be(weft_as_completed_begin(&it, tasks, MANY), 0);
        for (int i = 0; i < MANY; i++) {
            int next = (i * 37 + round) % MANY;

            weft_event_set(&events[next]);
            must_be(weft_as_completed_next(&it, &task), 1);
            must(task == tasks[next]);
            must_be(weft_task_done(task), 1);
            must_be(weft_await(task), next);
        }
        must_be(weft_as_completed_next(&it, &task), 0);
        must_be(weft_as_completed_next(&it, &task), 0);
        weft_as_completed_end(&it);
    }
    return (intptr_t)arg;
}
CASE(order)

static intptr_t each_task(void *arg)
{
    weft_task *tasks[MANY], *task;
    weft_as_completed it;

    for (int round = 0; round < FEWER(1000); round++) {
        int64_t sum = 0;

        for (intptr_t i = 0; i < MANY; i++)
            must((tasks[i] = weft_spawn(return_arg, (void *)i)) != NULL);
        if (round % 4 == 0)
            must_be(weft_yield(), 0);
        must_be(weft_as_completed_begin(&it, tasks, MANY), 0);
        while (weft_as_completed_next(&it, &task) == 1)
            sum += weft_await(task);
        weft_as_completed_end(&it);
        must_be(sum, MANY * (MANY - 1) / 2);
    }
    return (intptr_t)arg;
}
CASE(each)

static intptr_t collapse_task(void *arg)
{
    for (int round = 0; round < FEWER(200); round++) {
        weft_task *a = weft_spawn(return_arg, (void *)1), *b = weft_spawn(return_arg, (void *)2), *task;
        weft_task *tasks[] = {a, NULL, b, a, b, NULL, a};
        weft_as_completed it;
        intptr_t sum = 0;
        int n = 0;

        if (round % 2)
            must_be(weft_yield(), 0);
        must_be(weft_as_completed_begin(&it, tasks, 7), 0);
        for (; weft_as_completed_next(&it, &task) == 1; n++)
            sum += weft_await(task);
        weft_as_completed_end(&it);
        must_be(n, 2);
        must_be(sum, 3);
    }
    return (intptr_t)arg;
}
CASE(collapse)

/* The iterator ends while tasks wait, end, and have ended: all handles can be awaited. */
static intptr_t leave_task(void *arg)
{
    weft_task *tasks[MANY], *task;
    weft_as_completed it;

    for (int round = 0; round < FEWER(300); round++) {
        bool taken[MANY] = {false};

        spawn_waiters(tasks, MANY);
        must_be(weft_as_completed_begin(&it, tasks, MANY), 0);
        for (int i = 0; i < round % MANY; i++)
            weft_event_set(&events[i]);
        for (int i = 0; i < round % MANY / 2; i++) {
            intptr_t result;

            must_be(weft_as_completed_next(&it, &task), 1);
            result = weft_await(task);
            must(result >= 0 && result < round % MANY && !taken[result]);
            taken[result] = true;
        }
        weft_as_completed_end(&it);
        for (int i = 0; i < MANY; i++)
            weft_event_set(&events[i]);
        for (int i = 0; i < MANY; i++)
            if (!taken[i])
                must_be(weft_await(tasks[i]), i);
    }
    return (intptr_t)arg;
}
CASE(leave)

static atomic_int iterating;

static intptr_t iterate_until_cancelled(void *arg)
{
    weft_as_completed *it = arg;
    weft_task *task;

    atomic_store(&iterating, 1);
    must_be(weft_as_completed_next(it, &task), -ECANCELED);
    must_be(weft_as_completed_next(it, &task), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return 0;
}

static intptr_t interrupted_task(void *arg)
{
    weft_task *tasks[2], *task, *other;
    weft_as_completed it;
    weft_timeout scope;

    spawn_waiters(tasks, 2);
    must_be(weft_as_completed_begin(&it, tasks, 2), 0);
    must_be(weft_timeout_begin(&scope, WEFT_MS(1)), 0);
    must_be(weft_as_completed_next(&it, &task), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    atomic_store(&iterating, 0);
    other = weft_spawn(iterate_until_cancelled, &it);
    wait_until_true(atomic_load(&iterating));
    must_be(weft_cancel(other), 1);
    if (weft_runtime_workers(weft_runtime_current()) == 1)
        must_be(weft_yield(), 0);
    must_be(weft_await(other), 0);
    /* It goes on after that. */
    weft_event_set(&events[1]);
    must_be(weft_as_completed_next(&it, &task), 1);
    must_be(weft_await(task), 1);
    weft_as_completed_end(&it);
    weft_event_set(&events[0]);
    must_be(weft_await(tasks[0]), 0);
    return (intptr_t)arg;
}
CASE(interrupted)

/* Does somebody await it, on a stack of its own or in place? */
static bool is_awaited(weft_task *task)
{
    weft_task *root = atomic_load(&task->root);

    return atomic_load(&task->waiter) || (root && root != task);
}

static intptr_t await_arg(void *arg)
{
    return weft_await(arg);
}

static intptr_t refused_task(void *arg)
{
    weft_task *tasks[3], *awaiter, *task;
    weft_as_completed it, other;

    spawn_waiters(tasks, 3);
    awaiter = weft_spawn(await_arg, tasks[1]);
    wait_until_true(is_awaited(tasks[1]));
    must_be(weft_as_completed_begin(&it, tasks, 3), -EBUSY);
    must_be(weft_as_completed_begin(NULL, tasks, 3), -EINVAL);
    must_be(weft_as_completed_begin(&it, NULL, 3), -EINVAL);
    must_be(weft_as_completed_begin(&it, NULL, 0), 0);
    must_be(weft_as_completed_next(&it, &task), 0);
    weft_as_completed_end(&it);
    must_be(weft_as_completed_begin(&it, tasks, 1), 0);
    must_be(weft_as_completed_begin(&other, tasks, 1), -EBUSY);
    weft_as_completed_end(&it);
    for (int i = 0; i < 3; i++)
        weft_event_set(&events[i]);
    must_be(weft_await(awaiter), 1);
    must_be(weft_await(tasks[0]), 0);
    must_be(weft_await(tasks[2]), 2);
    return (intptr_t)arg;
}
CASE(refused)

static void a_thread_outside_iterates(void **state)
{
    weft_config config = {.workers = 2};
    weft_task *tasks[MANY], *task;
    weft_runtime *runtime;
    weft_as_completed it;

    (void)state;
    must_be(weft_runtime_start(&config, &runtime), 0);
    for (int round = 0; round < FEWER(200); round++) {
        int64_t sum = 0;

        for (intptr_t i = 0; i < MANY; i++)
            must((tasks[i] = weft_runtime_spawn(runtime, return_arg, (void *)i)) != NULL);
        must_be(weft_as_completed_begin(&it, tasks, MANY), 0);
        while (weft_as_completed_next(&it, &task) == 1)
            sum += weft_await(task);
        weft_as_completed_end(&it);
        must_be(sum, MANY * (MANY - 1) / 2);
    }
    settle(runtime);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        {"tasks_come_in_the_order_in_which_they_end", order, NULL, NULL, NULL},
        {"each_task_comes_once", each, NULL, NULL, NULL},
        {"duplicates_and_missing_ones_collapse", collapse, NULL, NULL, NULL},
        {"what_was_not_handed_out_is_the_callers_again", leave, NULL, NULL, NULL},
        {"an_interrupted_iteration_can_go_on", interrupted, NULL, NULL, NULL},
        {"awaited_tasks_are_refused", refused, NULL, NULL, NULL},
        cmocka_unit_test(a_thread_outside_iterates),
    };

    return run_all(tests, argc, argv);
}
