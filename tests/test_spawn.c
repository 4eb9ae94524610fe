/* Spawning with options: names, delays, times, eager starts, pinned tasks. */
#include "support.h"

static const uint32_t some_workers[] = {1, 2, 8};
#define FOR_SOME_WORKERS(fn)            \
    for (unsigned w_ = 0; w_ < 3; w_++) \
    must_be(run_on(some_workers[w_], fn, NULL), 0)

/* ---- later ---- */

static intptr_t note_time(void *arg)
{
    *(int64_t *)arg = weft_now();
    return 7;
}

static intptr_t start_later(void *unused)
{
    enum { N = 20 };
    int64_t began = weft_now(), times[N];
    weft_task *tasks[N];

    (void)unused;
    for (int i = 0; i < N; i++) {
        weft_spawn_options options = {.delay = WEFT_MS(1) * (N - i)};

        must((tasks[i] = weft_spawn_with(&options, note_time, &times[i])) != NULL);
    }
    for (int i = 0; i < N; i++) {
        must_be(weft_await(tasks[i]), 7);
        must(times[i] - began >= WEFT_MS(1) * (N - i));
    }
    return 0;
}

static void a_delayed_task_starts_no_earlier(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(start_later);
}

static intptr_t start_at_a_time(void *unused)
{
    int64_t when = weft_now() + WEFT_MS(5), at = 0;
    weft_spawn_options options = {.at = when, .delay = WEFT_MS(1), .name = "late"};
    weft_spawn_options past = {.at = when - WEFT_SEC(1), .delay = -5};
    weft_task *task = weft_spawn_with(&options, note_time, &at);

    (void)unused;
    must_be(strcmp(weft_task_name(task), "late"), 0);
    must_be(weft_await(task), 7);
    must(at >= when);
    must_be(weft_await(weft_spawn_with(&past, note_time, &at)), 7);
    return 0;
}

static void a_task_starts_at_a_given_time(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(start_at_a_time);
}

static intptr_t never(void *arg)
{
    (void)arg;
    must(!"run");
    return 0;
}

/* It ends at once, not when it would have started. */
static intptr_t cancel_delayed(void *unused)
{
    (void)unused;
    for (int i = 0; i < FEWER(2000); i++) {
        weft_spawn_options options = {.delay = WEFT_SEC(1000), .flags = i % 2 ? WEFT_SPAWN_STACKLESS : 0};
        weft_task *task = weft_spawn_with(&options, never, NULL);

        if (i % 3 == 0)
            must_be(weft_yield(), 0);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), -ECANCELED);
    }
    return 0;
}

static void a_delayed_task_that_is_cancelled_ends_at_once(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(cancel_delayed);
}

static intptr_t count_stacks(void *unused)
{
    enum { N = 1000 };
    weft_task *tasks[N];
    weft_spawn_options options = {.delay = WEFT_SEC(1000)};
    weft_stats before, after;

    (void)unused;
    weft_runtime_stats(weft_runtime_current(), &before);
    for (int i = 0; i < N; i++)
        tasks[i] = weft_spawn_with(&options, never, NULL);
    must_be(weft_sleep(WEFT_MS(2)), 0);
    weft_runtime_stats(weft_runtime_current(), &after);
    must_be(after.live_tasks, before.live_tasks + N);
    must(after.stacks < before.stacks + 10);
    for (int i = 0; i < N; i++)
        weft_cancel(tasks[i]);
    for (int i = 0; i < N; i++)
        must_be(weft_await(tasks[i]), -ECANCELED);
    return 0;
}

static void a_delayed_task_has_no_stack(void **state)
{
    (void)state;
    must_be(run_alone(count_stacks, NULL), 0);
}

static intptr_t leave_delayed(void *unused)
{
    weft_spawn_options options = {.delay = WEFT_SEC(1000)};

    (void)unused;
    for (int i = 0; i < 100; i++)
        weft_detach(weft_spawn_with(&options, never, NULL));
    return 0;
}

static void stopping_ends_delayed_tasks(void **state)
{
    (void)state;
    for (unsigned w = 0; w < 3; w++) {
        weft_config config = {.workers = some_workers[w]};
        weft_runtime *runtime;

        must_be(weft_runtime_start(&config, &runtime), 0);
        must_be(weft_runtime_run(runtime, leave_delayed, NULL), 0);
        must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    }
}

/* Waits that time out leave wake-ups behind for records that delayed tasks then use. */
static intptr_t wait_briefly(void *arg)
{
    weft_timeout scope;
    int item, rc;

    must_be(weft_timeout_begin(&scope, WEFT_US(20)), 0);
    rc = weft_chan_recv(arg, &item);
    weft_timeout_end(&scope);
    return rc;
}

static intptr_t start_early(void *unused)
{
    weft_chan *chan = weft_chan_new(sizeof(int), 0);

    (void)unused;
    for (int i = 0; i < FEWER(300); i++) {
        weft_task *waiters[8], *late[8];
        int64_t times[8], began;
        weft_spawn_options options = {.delay = WEFT_US(300)};

        for (int k = 0; k < 8; k++)
            waiters[k] = weft_spawn(wait_briefly, chan);
        must_be(weft_yield(), 0);
        for (int k = 0; k < 8; k++)
            weft_cancel(waiters[k]);
        for (int k = 0; k < 8; k++)
            weft_await(waiters[k]);
        began = weft_now();
        for (int k = 0; k < 8; k++)
            late[k] = weft_spawn_with(&options, note_time, &times[k]);
        for (int k = 0; k < 8; k++) {
            must_be(weft_await(late[k]), 7);
            must(times[k] - began >= WEFT_US(300));
        }
    }
    weft_chan_free(chan);
    return 0;
}

static void a_late_wake_up_of_an_earlier_task_does_not_start_it(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(start_early);
}

/* ---- at once ---- */

struct steps {
    int n;
    int first, parked, ended;
    weft_event go;
};

static intptr_t eager(void *arg)
{
    struct steps *s = arg;

    s->first = ++s->n;
    must_be(weft_event_wait(&s->go), 0);
    s->ended = ++s->n;
    return s->n;
}

static intptr_t eager_that_ends(void *arg)
{
    return ++((struct steps *)arg)->n;
}

static intptr_t spawn_eagerly(void *unused)
{
    weft_spawn_options options = {.flags = WEFT_SPAWN_EAGER};

    (void)unused;
    for (int i = 0; i < FEWER(1000); i++) {
        struct steps s = {0};
        weft_task *task = weft_spawn_with(&options, eager, &s);

        s.parked = ++s.n;
        must_be(s.first, 1);
        must_be(s.parked, 2);
        weft_event_set(&s.go);
        must_be(weft_await(task), 3);
        s = (struct steps){0};
        task = weft_spawn_with(&options, eager_that_ends, &s);
        must_be(++s.n, 2);
        must_be(weft_await(task), 1);
    }
    return 0;
}

static void an_eager_task_runs_until_it_first_waits(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(spawn_eagerly);
}

/* ---- pinned ---- */

struct pinned {
    pthread_t thread;
    bool set;
    weft_chan *chan;
    int rounds;
};

static void check_thread(struct pinned *p)
{
    if (!p->set) {
        p->thread = pthread_self();
        p->set = true;
    }
    must(pthread_equal(p->thread, pthread_self()));
}

static intptr_t stay(void *arg)
{
    struct pinned *p = arg;
    int item;

    for (int i = 0; i < p->rounds; i++) {
        check_thread(p);
        if (i % 3 == 0)
            must_be(weft_yield(), 0);
        check_thread(p);
        if (i % 50 == 1)
            must_be(weft_sleep(WEFT_US(30)), 0);
        check_thread(p);
        must_be(weft_chan_recv(p->chan, &item), 0);
        check_thread(p);
    }
    return 0;
}

static intptr_t feed(void *arg)
{
    struct pinned *p = arg;

    for (int i = 0; i < p->rounds; i++)
        must_be(weft_chan_send(p->chan, &i), 0);
    return 0;
}

static intptr_t burn(void *arg)
{
    atomic_bool *stop = arg;

    while (!atomic_load(stop)) {
        for (volatile int i = 0; i < 20000; i++)
            ;
        must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t pin_some(void *unused)
{
    enum { N = 16, BURNERS = 20 };
    unsigned workers = weft_runtime_workers(weft_runtime_current());
    struct pinned pinned[N] = {0};
    weft_task *tasks[2 * N], *burners[BURNERS];
    atomic_bool stop = false;

    (void)unused;
    for (int i = 0; i < BURNERS; i++)
        burners[i] = weft_spawn(burn, &stop);
    for (int i = 0; i < N; i++) {
        weft_spawn_options options = {.flags = WEFT_SPAWN_PINNED, .worker = (uint32_t)i % (workers + 1)};

        if (i % 5 == 4)
            options.delay = WEFT_MS(1);
        pinned[i].chan = weft_chan_new(sizeof(int), (size_t)i % 3);
        pinned[i].rounds = FEWER(600);
        tasks[i] = weft_spawn_with(&options, stay, &pinned[i]);
        tasks[N + i] = weft_spawn(feed, &pinned[i]);
        must(tasks[i] && tasks[N + i]);
    }
    for (int i = 0; i < 2 * N; i++)
        must_be(weft_await(tasks[i]), 0);
    atomic_store(&stop, true);
    for (int i = 0; i < BURNERS; i++)
        must_be(weft_await(burners[i]), 0);
    for (int i = 0; i < N; i++)
        weft_chan_free(pinned[i].chan);
    return 0;
}

static void a_pinned_task_stays_on_one_thread(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(pin_some);
}

static intptr_t spin_for(void *arg)
{
    int64_t until = weft_now() + (intptr_t)arg;

    while (weft_now() < until)
        ;
    return 0;
}

/* Its worker is stuck far longer than the take-over takes: its pinned task waits for it. */
static intptr_t block_a_pinned_one(void *unused)
{
    struct pinned p = {.rounds = 20, .chan = weft_chan_new(sizeof(int), 20)};
    weft_spawn_options options = {.flags = WEFT_SPAWN_PINNED};
    weft_task *task = weft_spawn_with(&options, stay, &p), *stuck;

    (void)unused;
    must_be(weft_yield(), 0);
    stuck = weft_spawn(spin_for, (void *)(intptr_t)WEFT_MS(30));
    must_be(weft_await(weft_spawn(feed, &p)), 0);
    must_be(weft_await(stuck), 0);
    must_be(weft_await(task), 0);
    weft_chan_free(p.chan);
    return 0;
}

static void a_worker_with_pinned_tasks_keeps_its_thread(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(block_a_pinned_one);
}

static intptr_t try_impossible(void *unused)
{
    weft_spawn_options worker = {.flags = WEFT_SPAWN_PINNED, .worker = 2}, stack = {.stack_size = SIZE_MAX / 2};

    (void)unused;
    must(weft_spawn_with(&worker, never, NULL) == NULL);
    must(weft_spawn_with(&stack, never, NULL) == NULL);
    return 0;
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    must_be(run_alone(try_impossible, NULL), 0);
}

/* ---- the budget ---- */

static intptr_t hog(void *arg)
{
    weft_sem sem = WEFT_SEM_INIT(1);
    atomic_bool *stop = arg;

    while (!atomic_load(stop)) {
        must_be(weft_sem_acquire(&sem), 0);
        must_be(weft_sem_release(&sem), 0);
    }
    return 0;
}

static intptr_t run_hog(void *unused)
{
    atomic_bool stop = false;
    weft_task *task = weft_spawn(hog, &stop);

    (void)unused;
    must_be(weft_yield(), 0);
    atomic_store(&stop, true);
    return weft_await(task);
}

static void a_task_that_never_has_to_wait_lets_others_run(void **state)
{
    (void)state;
    must_be(run_alone(run_hog, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_delayed_task_starts_no_earlier),
        cmocka_unit_test(a_task_starts_at_a_given_time),
        cmocka_unit_test(a_delayed_task_that_is_cancelled_ends_at_once),
        cmocka_unit_test(a_delayed_task_has_no_stack),
        cmocka_unit_test(stopping_ends_delayed_tasks),
        cmocka_unit_test(a_late_wake_up_of_an_earlier_task_does_not_start_it),
        cmocka_unit_test(an_eager_task_runs_until_it_first_waits),
        cmocka_unit_test(a_pinned_task_stays_on_one_thread),
        cmocka_unit_test(a_worker_with_pinned_tasks_keeps_its_thread),
        cmocka_unit_test(impossible_options_are_refused),
        cmocka_unit_test(a_task_that_never_has_to_wait_lets_others_run),
    };

    alarm(SUPPORT_LIMIT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
