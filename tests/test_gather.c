/* gather, gather_all, weft_wait_any/all/failure, weft_task_done: order, failures, interruption, who owns what. */
#include "runtime/task.h"
#include "support.h"

enum { MANY = 64 };

static const uint32_t few_workers[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof few_workers / sizeof *few_workers; i++)
        must_be(run_on(few_workers[i], fn, NULL), 0);
}

/* A test program's case that runs `fn` with 1, 2 and 8 workers. */
#define CASE(name)                 \
    static void name(void **state) \
    {                              \
        (void)state;               \
        on_each(name##_task);      \
    }

/* ---- tasks ---- */

static intptr_t nap_and_return(void *arg)
{
    intptr_t ms = (intptr_t)arg;
    int rc = weft_sleep(WEFT_MS(ms));

    return rc < 0 ? rc : ms;
}

static intptr_t fail_when_released(void *arg)
{
    int rc = weft_event_wait(arg);

    return rc < 0 ? rc : -EIO;
}

static intptr_t fail_after_ms(void *arg)
{
    int rc = weft_sleep(WEFT_MS((intptr_t)arg));

    return rc < 0 ? rc : -EIO;
}

static intptr_t wait_for_event(void *arg)
{
    int rc = weft_event_wait(arg);

    return rc < 0 ? rc : 7;
}

static atomic_int cleaners;

/* Its own clean-up takes a while, and it returns a result all the same. */
static intptr_t clean_up_when_cancelled(void *arg)
{
    atomic_int *cleaned = arg;

    atomic_fetch_add(&cleaners, 1);
    must_be(sleep_for_ever(NULL), -ECANCELED);
    must_be(weft_mask_begin(), 0);
    must_be(weft_sleep(WEFT_MS(2)), 0);
    must_be(weft_mask_end(), 0);
    atomic_fetch_add(cleaned, 1);
    return 5;
}

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static void spawn_numbers(weft_task **tasks, int n)
{
    for (int i = 0; i < n; i++)
        tasks[i] = spawn(return_arg, (void *)(intptr_t)i);
}

/* Does somebody await it, on a stack of its own or in place? */
static bool is_awaited(weft_task *task)
{
    weft_task *root = atomic_load(&task->root);

    return atomic_load(&task->waiter) || (root && root != task);
}

/* ---- gather ---- */

static intptr_t results_task(void *arg)
{
    weft_task *tasks[MANY];
    intptr_t results[MANY];

    for (int round = 0; round < FEWER(1000); round++) {
        spawn_numbers(tasks, MANY);
        must_be((round % 2 ? weft_gather : weft_gather_all)(tasks, MANY, results), 0);
        for (int i = 0; i < MANY; i++)
            must_be(results[i], i);
    }
    spawn_numbers(tasks, MANY);
    must_be(weft_gather(tasks, MANY, NULL), 0);
    must_be(weft_gather(NULL, 0, NULL), 0);
    must_be(weft_gather_all(tasks, 0, results), 0);
    must_be(weft_gather(NULL, 1, NULL), -EINVAL);
    return (intptr_t)arg;
}
CASE(results)

static atomic_int delivered;
static atomic_int finished[3];

static intptr_t deliver(void *arg)
{
    intptr_t n = (intptr_t)arg;

    atomic_fetch_add(&delivered, 1);
    must_be(weft_sleep(WEFT_MS(40 * n)), 0);
    atomic_store(&finished[n - 1], atomic_load(&delivered));
    return n;
}

/* The three wait side by side: results in the order of the arguments, the time of the longest. */
static intptr_t side_by_side_task(void *arg)
{
    intptr_t results[3];
    weft_task *tasks[3];
    int64_t begun = weft_now();

    atomic_store(&delivered, 0);
    for (intptr_t i = 0; i < 3; i++)
        tasks[i] = spawn(deliver, (void *)(i + 1));
    must_be(weft_gather(tasks, 3, results), 0);
    must(weft_now() - begun >= WEFT_MS(120));
    must(weft_now() - begun < WEFT_MS(240) || SUPPORT_SANITIZED);
    for (int i = 0; i < 3; i++) {
        must_be(results[i], i + 1);
        must_be(atomic_load(&finished[i]), 3);
    }
    return (intptr_t)arg;
}
CASE(side_by_side)

static atomic_int times_run;

static intptr_t count_run(void *arg)
{
    atomic_fetch_add(&times_run, 1);
    return (intptr_t)arg;
}

static intptr_t twice_task(void *arg)
{
    for (int round = 0; round < FEWER(1000); round++) {
        weft_task *a, *b;
        intptr_t results[5];

        atomic_store(&times_run, 0);
        a = spawn(count_run, (void *)1);
        b = spawn(count_run, (void *)2);
        weft_task *tasks[] = {a, b, a, a, b};

        if (round % 3 == 0)
            must_be(weft_yield(), 0); /* some have ended before */
        must_be(weft_gather(tasks, 5, results), 0);
        must_be(atomic_load(&times_run), 2);
        for (int i = 0; i < 5; i++)
            must_be(results[i], tasks[i] == a ? 1 : 2);
    }
    return (intptr_t)arg;
}
CASE(twice)

/* The first failure comes back at once, though a task before it in the list waits for ever. */
static intptr_t first_failure_task(void *arg)
{
    static weft_event events[300]; /* the slow ones outlive this frame */

    memset(events, 0, sizeof events);
    for (int round = 0; round < FEWER(300); round++) {
        weft_task *slow = spawn(wait_for_event, &events[round]);
        weft_task *tasks[] = {slow, spawn(return_arg, (void *)3), spawn(return_arg, (void *)(intptr_t)-EIO), slow};
        intptr_t results[4] = {1, 1, 1, 1};

        must_be(weft_gather(tasks, 4, results), -EIO);
        must_be(results[0], -EINPROGRESS);
        must(results[1] == 3 || results[1] == -EINPROGRESS);
        must_be(results[2], -EIO);
        must_be(results[3], -EINPROGRESS);
        weft_event_set(&events[round]);
    }
    return (intptr_t)arg;
}
CASE(first_failure)

static intptr_t order_of_time_task(void *arg)
{
    static weft_event release[SUPPORT_WORKER_COUNTS]; /* the slow one outlives this frame */
    static int round;
    weft_event *slow = &release[round++ % SUPPORT_WORKER_COUNTS];
    weft_task *tasks[] = {spawn(fail_when_released, slow), spawn(nap_and_return, (void *)1),
                          spawn(sleep_for_ever, NULL)};
    weft_task *cancelled = tasks[2];
    intptr_t results[3];

    must_be(weft_yield(), 0);
    must_be(weft_cancel(cancelled), 1);
    /* A cancelled task is a failure as any other, and its awaiter is not cancelled for that. */
    must_be(weft_gather(tasks, 3, results), -ECANCELED);
    must_be(results[2], -ECANCELED);
    must_be(results[0], -EINPROGRESS);
    must_be(weft_cancelled(), 0);
    weft_event_set(slow); /* the other failure is not reported */
    must_be(weft_sleep(WEFT_MS(20)), 0);
    return (intptr_t)arg;
}
CASE(order_of_time)

static intptr_t missing_task(void *arg)
{
    weft_task *tasks[] = {spawn(return_arg, (void *)1), NULL, spawn(nap_and_return, (void *)1)};
    intptr_t results[3];

    must_be(weft_gather(tasks, 3, results), -ENOMEM);
    must_be(results[1], -ENOMEM);
    must(results[0] == 1 || results[0] == -EINPROGRESS);
    must_be(results[2], -EINPROGRESS);
    tasks[0] = spawn(return_arg, (void *)1);
    tasks[2] = spawn(return_arg, (void *)(intptr_t)-EIO);
    must_be(weft_gather_all(tasks, 3, results), 0);
    must_be(results[0], 1);
    must_be(results[1], -ENOMEM);
    must_be(results[2], -EIO);
    return (intptr_t)arg;
}
CASE(missing)

static intptr_t await_arg(void *arg)
{
    return weft_await(arg);
}

static intptr_t busy_task(void *arg)
{
    weft_event event = WEFT_EVENT_INIT;
    weft_task *wanted = spawn(wait_for_event, &event), *awaiter;
    weft_task *tasks[3];
    intptr_t results[3] = {11, 12, 13};

    awaiter = spawn(await_arg, wanted);
    wait_until_true(is_awaited(wanted));
    tasks[0] = spawn(return_arg, (void *)1);
    tasks[1] = wanted;
    tasks[2] = spawn(return_arg, (void *)2);
    must_be(weft_gather(tasks, 3, results), -EBUSY);
    must_be(weft_gather_all(tasks, 3, results), -EBUSY);
    must_be(weft_wait_all(tasks, 3), -EBUSY);
    must_be(results[0] + results[1] + results[2], 36);
    /* Nothing was done: the handles are good. */
    must_be(weft_await(tasks[0]), 1);
    must_be(weft_await(tasks[2]), 2);
    tasks[0] = weft_self();
    must_be(weft_gather(tasks, 1, results), -EDEADLK);
    weft_event_set(&event);
    must_be(weft_await(awaiter), 7);
    return (intptr_t)arg;
}
CASE(busy)

/* ---- interrupted ---- */

struct interrupted {
    weft_fn *fn;
    intptr_t expected;
    atomic_int cleaned;
    atomic_int gathering;
};

static intptr_t gather_cleaners(void *arg)
{
    struct interrupted *test = arg;
    weft_task *tasks[4];
    intptr_t results[4];

    for (int i = 0; i < 3; i++)
        tasks[i] = spawn(clean_up_when_cancelled, &test->cleaned);
    tasks[3] = spawn(return_arg, (void *)9);
    wait_until_true(atomic_load(&cleaners) == 3 && weft_task_done(tasks[3]));
    atomic_store(&test->gathering, 1);
    must_be(weft_gather(tasks, 4, results), -ECANCELED);
    must_be(atomic_load(&test->cleaned), 3);
    must_be(results[0], 5);
    must_be(results[3], 9);
    return weft_cancelled();
}

static intptr_t cancel_task(void *arg)
{
    for (int round = 0; round < FEWER(100); round++) {
        struct interrupted test = {.fn = NULL};
        weft_task *task;

        atomic_store(&cleaners, 0);
        task = spawn(gather_cleaners, &test);

        wait_until_true(atomic_load(&test.gathering));
        if (round % 2)
            must_be(weft_yield(), 0);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), 1);
    }
    return (intptr_t)arg;
}
CASE(cancel)

static intptr_t late_task(void *arg)
{
    weft_task *tasks[] = {spawn(sleep_for_ever, NULL), spawn(return_arg, (void *)1), spawn(sleep_for_ever, NULL)};
    intptr_t results[3];
    weft_timeout scope;

    wait_until_true(weft_task_done(tasks[1]));
    must_be(weft_timeout_begin(&scope, WEFT_MS(5)), 0);
    must_be(weft_gather_all(tasks, 3, results), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(results[0], -ECANCELED);
    must_be(results[1], 1);
    must_be(results[2], -ECANCELED);
    return (intptr_t)arg;
}
CASE(late)

static intptr_t gather_when_cancelled(void *arg)
{
    weft_task *tasks[] = {spawn(count_run, NULL), spawn(count_run, NULL)};
    intptr_t results[2];

    must_be(weft_cancel(weft_self()), 1);
    atomic_store(&times_run, 0);
    must_be(weft_gather(tasks, 2, results), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return (intptr_t)arg;
}

static intptr_t beforehand_task(void *arg)
{
    must_be(weft_await(spawn(gather_when_cancelled, NULL)), 0);
    if (weft_runtime_workers(weft_runtime_current()) == 1)
        must_be(atomic_load(&times_run), 0); /* cancelled before they started */
    return (intptr_t)arg;
}
CASE(beforehand)

/* ---- the waits ---- */

static intptr_t any_task(void *arg)
{
    for (int round = 0; round < FEWER(300); round++) {
        weft_event event = WEFT_EVENT_INIT;
        weft_task *tasks[] = {spawn(wait_for_event, &event), NULL, spawn(return_arg, (void *)1),
                              spawn(wait_for_event, &event)};

        must_be(weft_wait_any(tasks, 4), 2);
        must_be(weft_wait_any(tasks, 4), 2);
        must_be(weft_task_done(tasks[2]), 1);
        must_be(weft_task_done(tasks[0]), 0);
        must_be(weft_await(tasks[2]), 1);
        tasks[2] = tasks[3];
        weft_event_set(&event);
        must_be(weft_wait_all(tasks, 4), 0);
        must_be(weft_wait_any(tasks, 4), 0);
        must_be(weft_await(tasks[0]), 7);
        must_be(weft_await(tasks[3]), 7);
    }
    must_be(weft_wait_any(NULL, 0), -EINVAL);
    must_be(weft_wait_any((weft_task *[]){NULL, NULL}, 2), -EINVAL);
    must_be(weft_task_done(NULL), 0);
    return (intptr_t)arg;
}
CASE(any)

static intptr_t failure_task(void *arg)
{
    weft_task *tasks[] = {spawn(sleep_for_ever, NULL), spawn(return_arg, (void *)1),
                          spawn(fail_after_ms, (void *)3), spawn(nap_and_return, (void *)1)};

    must_be(weft_yield(), 0);
    must_be(weft_cancel(tasks[0]), 1);
    must_be(weft_wait_failure(tasks, 4), 2);
    must_be(weft_await(tasks[2]), -EIO);
    tasks[2] = NULL;
    must_be(weft_wait_failure(tasks, 4), 4);
    must_be(weft_await(tasks[0]), -ECANCELED);
    must_be(weft_await(tasks[1]), 1);
    must_be(weft_await(tasks[3]), 1);
    return (intptr_t)arg;
}
CASE(failure)

/* A wait that ends early cancels nothing and leaves the handles as they were. */
static intptr_t early_task(void *arg)
{
    for (int round = 0; round < FEWER(200); round++) {
        weft_event event = WEFT_EVENT_INIT;
        weft_task *tasks[] = {spawn(wait_for_event, &event), spawn(wait_for_event, &event)};
        weft_timeout scope;

        must_be(weft_timeout_begin(&scope, WEFT_US(round)), 0);
        must_be(weft_wait_all(tasks, 2), -ETIMEDOUT);
        must_be(weft_wait_any(tasks, 2), -ETIMEDOUT);
        must_be(weft_timeout_end(&scope), 1);
        weft_event_set(&event);
        must_be(weft_await(tasks[0]), 7);
        must_be(weft_await(tasks[1]), 7);
    }
    return (intptr_t)arg;
}
CASE(early)

static intptr_t wait_when_cancelled(void *arg)
{
    weft_task **tasks = arg;

    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_wait_any(tasks, 1), -ECANCELED);
    must_be(weft_wait_all(tasks, 1), -ECANCELED);
    must_be(weft_wait_failure(tasks, 1), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return 0;
}

static intptr_t level_task(void *arg)
{
    weft_task *task = spawn(return_arg, (void *)1);

    must_be(weft_await(spawn(wait_when_cancelled, &task)), 0);
    must_be(weft_await(task), 1);
    return (intptr_t)arg;
}
CASE(level)

/* Whoever awaits a task that somebody else watches is refused, also on the worker in whose queue it is. */
static intptr_t watch_task(void *arg)
{
    weft_task *task = arg;

    return weft_wait_all(&task, 1);
}

static intptr_t watched_task(void *arg)
{
    weft_event event = WEFT_EVENT_INIT;
    weft_task *wanted = spawn(wait_for_event, &event);
    weft_task *watcher = spawn(watch_task, wanted);

    wait_until_true(is_awaited(wanted));
    must_be(weft_await(wanted), -EBUSY);
    weft_event_set(&event);
    must_be(weft_await(watcher), 0);
    must_be(weft_await(wanted), 7);
    return (intptr_t)arg;
}
CASE(watched)

/* ---- calls of the blocking pool, threads outside ---- */

static intptr_t block_and_return(void *arg)
{
    nap(WEFT_US(100));
    return (intptr_t)arg;
}

static intptr_t pool_task(void *arg)
{
    weft_task *tasks[8];
    intptr_t results[8];

    for (int round = 0; round < FEWER(50) + 2; round++) {
        for (intptr_t i = 0; i < 8; i++)
            must((tasks[i] = weft_spawn_blocking(block_and_return, (void *)i)) != NULL);
        must(weft_wait_any(tasks, 8) >= 0);
        must_be(weft_gather(tasks, 8, results), 0);
        for (int i = 0; i < 8; i++)
            must_be(results[i], i);
    }
    return (intptr_t)arg;
}
CASE(pool)

static void threads_outside_gather(void **state)
{
    weft_config config = {.workers = 2};
    weft_runtime *runtime;
    weft_task *tasks[MANY];
    intptr_t results[MANY];

    (void)state;
    must_be(weft_runtime_start(&config, &runtime), 0);
    for (int round = 0; round < FEWER(300); round++) {
        for (intptr_t i = 0; i < MANY; i++)
            must((tasks[i] = weft_runtime_spawn(runtime, return_arg, (void *)i)) != NULL);
        must(weft_wait_any(tasks, MANY) >= 0);
        must_be(weft_wait_all(tasks, MANY), 0);
        must_be(weft_gather(tasks, MANY, results), 0);
        for (int i = 0; i < MANY; i++)
            must_be(results[i], i);
        for (intptr_t i = 0; i < MANY; i++)
            must((tasks[i] = weft_runtime_spawn(runtime, return_arg, (void *)(i == 20 ? -EIO : i))) != NULL);
        must_be(weft_gather(tasks, MANY, results), -EIO);
        must_be(results[20], -EIO);
    }
    settle(runtime);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
}

/* ---- reports ---- */

static intptr_t fail_unheard(void *arg)
{
    weft_spawn_options options = {.name = "unheard"};
    weft_task *tasks[3];

    tasks[0] = weft_spawn_with(&options, fail_after_ms, (void *)5);
    tasks[1] = weft_spawn_with(&options, return_arg, (void *)(intptr_t)-EIO);
    tasks[2] = weft_spawn_with(&options, return_arg, (void *)(intptr_t)-EPIPE);
    must(weft_gather(tasks, 3, NULL) < 0);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    return (intptr_t)arg;
}

static void count_report(const char *name, intptr_t result, void *user)
{
    (void)name;
    (void)result;
    atomic_fetch_add((atomic_int *)user, 1);
}

static void failures_of_those_let_go_are_not_reported(void **state)
{
    (void)state;
    for (uint32_t workers = 1; workers <= 2; workers++) {
        atomic_int reports = 0;
        weft_config config = {.workers = workers, .on_unseen_failure = count_report, .user = &reports};

        must_be(run_with(&config, fail_unheard, NULL), 0);
        must_be(atomic_load(&reports), 0);
    }
}

#undef CASE

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        {"gather_gives_results_in_the_order_of_the_arguments", results, NULL, NULL, NULL},
        {"gathered_tasks_wait_side_by_side", side_by_side, NULL, NULL, NULL},
        {"a_handle_that_is_there_twice_runs_once", twice, NULL, NULL, NULL},
        {"the_first_failure_is_returned_at_once", first_failure, NULL, NULL, NULL},
        {"a_cancelled_task_is_a_failure_for_gather", order_of_time, NULL, NULL, NULL},
        {"a_missing_task_counts_as_failed", missing, NULL, NULL, NULL},
        {"nothing_is_done_if_one_is_awaited_elsewhere", busy, NULL, NULL, NULL},
        {"cancelling_gather_cancels_all_and_waits_for_their_clean_up", cancel, NULL, NULL, NULL},
        {"a_deadline_cancels_all", late, NULL, NULL, NULL},
        {"gather_by_a_cancelled_task_never_starts_the_others", beforehand, NULL, NULL, NULL},
        {"wait_any_gives_the_lowest_index_and_leaves_the_handles", any, NULL, NULL, NULL},
        {"wait_failure_ignores_cancelled_ones", failure, NULL, NULL, NULL},
        {"a_wait_that_ends_early_cancels_nothing", early, NULL, NULL, NULL},
        {"waits_of_a_cancelled_task_end_at_once", level, NULL, NULL, NULL},
        {"a_watched_task_cannot_be_awaited_by_another", watched, NULL, NULL, NULL},
        {"calls_of_the_blocking_pool_are_gathered_too", pool, NULL, NULL, NULL},
        cmocka_unit_test(threads_outside_gather),
        cmocka_unit_test(failures_of_those_let_go_are_not_reported),
    };

    return run_all(tests, argc, argv);
}
