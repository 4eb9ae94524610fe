/* Sleeping: order, resolution, many at once. */
#include "support.h"

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static intptr_t sleeps_long_enough(void *arg)
{
    static const int64_t lengths[] = {1, 1000, 50000, 100000, 999999, 1000000, 5000000};

    (void)arg;
    for (int i = 0; i < 7; i++) {
        int64_t before = weft_now();

        must_be(weft_sleep(lengths[i]), 0);
        must(weft_now() - before >= lengths[i]);
        before = weft_now();
        must_be(weft_sleep_until(before + lengths[i]), 0);
        must(weft_now() >= before + lengths[i]);
    }
    return 0;
}

static void a_sleep_is_never_too_short(void **state)
{
    (void)state;
    assert_int_equal(run_alone(sleeps_long_enough, NULL), 0);
    assert_int_equal(run_on(3, sleeps_long_enough, NULL), 0);
}

static void the_clock_is_the_monotonic_one(void **state)
{
    struct timespec ts;
    int64_t before, middle, after;

    (void)state;
    before = weft_now();
    clock_gettime(CLOCK_MONOTONIC, &ts);
    middle = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    after = weft_now();
    assert_true(before <= middle && middle <= after);
}

static char trace[64];
static size_t traced;

static intptr_t traces(void *arg)
{
    trace[traced++] = (char)(intptr_t)arg;
    return 0;
}

static intptr_t sleeps_for_nothing(void *arg)
{
    weft_task *a;

    (void)arg;
    memset(trace, 0, sizeof trace);
    traced = 0;
    a = spawn(traces, (void *)'a');
    must_be(weft_sleep(0), 0);
    trace[traced++] = '.';
    must_be(weft_await(a), 0);
    a = spawn(traces, (void *)'b');
    must_be(weft_sleep(-5), 0);
    trace[traced++] = '.';
    must_be(weft_await(a), 0);
    a = spawn(traces, (void *)'c');
    must_be(weft_sleep_until(weft_now() - WEFT_SEC(1)), 0);
    trace[traced++] = '.';
    must_be(weft_await(a), 0);
    must_be(weft_sleep(INT64_MIN), 0);
    return 0;
}

static void sleeping_for_no_time_yields_once(void **state)
{
    (void)state;
    assert_int_equal(run_alone(sleeps_for_nothing, NULL), 0);
    assert_string_equal(trace, "a.b.c.");
}

/* ---- order ---- */

struct sleeper {
    int64_t when;
    unsigned index;
};

static unsigned woken[20000];
static atomic_uint woken_count, late_count;
static int64_t start_at;
static weft_event started;

static intptr_t sleep_and_note(void *arg)
{
    struct sleeper *sleeper = arg;

    must_be(weft_event_wait(&started), 0);
    sleeper->when += start_at;
    atomic_fetch_add(&late_count, weft_now() >= start_at);
    must_be(weft_sleep_until(sleeper->when), 0);
    must(weft_now() >= sleeper->when);
    woken[atomic_fetch_add(&woken_count, 1)] = sleeper->index;
    return 0;
}

/* 1: the machine was so slow that some deadlines had passed before everybody slept. */
static intptr_t sleeps_in_order(void *arg)
{
    enum { SLEEPERS = 500 };
    static struct sleeper sleepers[SLEEPERS];
    weft_task *tasks[SLEEPERS];

    (void)arg;
    woken_count = late_count = 0;
    started = (weft_event)WEFT_EVENT_INIT;
    for (unsigned i = 0; i < SLEEPERS; i++) {
        /* 7 and 500 have no common divisor: each deadline once, in another order than that of spawning. */
        sleepers[i] = (struct sleeper){WEFT_US(40) * (i * 7 % SLEEPERS), i * 7 % SLEEPERS};
        tasks[i] = spawn(sleep_and_note, &sleepers[i]);
    }
    must_be(weft_sleep(WEFT_MS(5)), 0);
    start_at = weft_now() + WEFT_MS(50);
    weft_event_set(&started);
    for (unsigned i = 0; i < SLEEPERS; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(woken_count, SLEEPERS);
    for (unsigned i = 0; i < SLEEPERS && !late_count; i++)
        must_be(woken[i], i);
    return late_count > 0;
}

static void on_one_worker_sleepers_wake_in_order_of_their_deadlines(void **state)
{
    (void)state;
    for (int i = 0, in_time = 0; i < 50 && in_time < 5; i++)
        in_time += run_alone(sleeps_in_order, NULL) == 0;
}

static atomic_int awake;

static intptr_t sleep_and_count(void *arg)
{
    struct sleeper *sleeper = arg;

    must_be(weft_sleep_until(sleeper->when), 0);
    must(weft_now() >= sleeper->when);
    atomic_fetch_add(&awake, 1);
    return 0;
}

static intptr_t sleeps_in_masses(void *arg)
{
    unsigned n = FEWER(10000);
    struct sleeper *sleepers = malloc(n * sizeof *sleepers);
    weft_task **tasks = malloc(n * sizeof *tasks);
    uint64_t random = 12345;
    weft_stats before, after;

    (void)arg;
    must(sleepers && tasks);
    atomic_store(&awake, 0);
    weft_runtime_stats(weft_runtime_current(), &before);
    for (unsigned i = 0; i < n; i++) {
        sleepers[i].when = weft_now() + WEFT_MS(1) + (int64_t)(draw(&random) % WEFT_MS(300));
        tasks[i] = spawn(sleep_and_count, &sleepers[i]);
    }
    for (unsigned i = 0; i < n; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(atomic_load(&awake), n);
    weft_runtime_stats(weft_runtime_current(), &after);
    must(after.timers_fired > before.timers_fired);
    must(after.timers_fired - before.timers_fired <= n);
    free(sleepers);
    free(tasks);
    return 0;
}

static void ten_thousand_sleepers_all_wake(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], sleeps_in_masses, NULL), 0);
}

/* A short sleep must not wait for a long one that came before it. */
static intptr_t overtakes(void *arg)
{
    weft_task *longer = spawn(sleep_for_ever, NULL);
    int64_t before;

    (void)arg;
    must_be(weft_sleep(WEFT_MS(5)), 0);
    before = weft_now();
    for (int i = 0; i < 10; i++)
        must_be(weft_sleep(WEFT_MS(1)), 0);
    must(weft_now() - before < WEFT_SEC(5));
    must_be(weft_cancel(longer), 1);
    must_be(weft_await(longer), -ECANCELED);
    return 0;
}

static void a_short_sleep_does_not_wait_for_a_long_one(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], overtakes, NULL), 0);
}

/* ---- resolution ---- */

static int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

static intptr_t measures(void *arg)
{
    enum { ROUNDS = 201 };
    int64_t over[ROUNDS];

    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t before = weft_now();

        must_be(weft_sleep(WEFT_US(100)), 0);
        over[i] = weft_now() - before - WEFT_US(100);
        must(over[i] >= 0);
    }
    qsort(over, ROUNDS, sizeof *over, compare);
    return over[ROUNDS / 2];
}

static void the_resolution_is_that_of_the_clock(void **state)
{
    intptr_t best = INTPTR_MAX;

    if (getenv("WEFT_TEST_EMULATED"))
        skip();
    (void)state;
    /* The least of several medians: others use the machine too. */
    for (int i = 0; i < 10 && best > WEFT_US(300); i++) {
        intptr_t median = run_alone(measures, NULL);

        if (median < best)
            best = median;
    }
    print_message("sleeping for 100 us takes %.1f us longer (median)\n", (double)best / 1000);
    assert_true(best < WEFT_US(SUPPORT_SANITIZED ? 5000 : 900)); /* a millisecond's resolution would show */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sleep_is_never_too_short),
        cmocka_unit_test(the_clock_is_the_monotonic_one),
        cmocka_unit_test(sleeping_for_no_time_yields_once),
        cmocka_unit_test(on_one_worker_sleepers_wake_in_order_of_their_deadlines),
        cmocka_unit_test(ten_thousand_sleepers_all_wake),
        cmocka_unit_test(a_short_sleep_does_not_wait_for_a_long_one),
        cmocka_unit_test(the_resolution_is_that_of_the_clock),
    };

    return run_all(tests, argc, argv);
}
