/* weft_watch: the latest value is never missed, never torn; closing; cancellation at every point. */
#include "races.h"

static const uint32_t few_workers[] = {1, 2, 8};

static weft_watch *shared;

static void new_watch(int64_t value)
{
    shared = weft_watch_new(sizeof value, &value);
    must(shared != NULL);
}

static void set_value(int64_t value)
{
    must_be(weft_watch_set(shared, &value), 0);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_null(weft_watch_new(SIZE_MAX, NULL));
    assert_null(weft_watch_new(PTRDIFF_MAX, NULL));
    weft_watch_free(NULL);
}

static void each_set_is_a_new_version(void **state)
{
    int64_t value = -1;
    uint64_t version = 0;

    (void)state;
    new_watch(10);
    assert_int_equal(weft_watch_get(shared, &value), 1);
    assert_int_equal(value, 10);
    assert_int_equal(weft_watch_changed(shared, &version, &value), 0); /* version 0 has never been */
    assert_int_equal(version, 1);
    set_value(11);
    set_value(11);
    set_value(12);
    assert_int_equal(weft_watch_get(shared, NULL), 4);
    assert_int_equal(weft_watch_changed(shared, &version, NULL), 0);
    assert_int_equal(version, 4);
    assert_int_equal(weft_watch_get(shared, &value), 4);
    assert_int_equal(value, 12);
    weft_watch_free(shared);
}

static void a_closed_watch_still_shows_what_is_newer(void **state)
{
    int64_t value = 0;
    uint64_t version = 1;

    (void)state;
    new_watch(1);
    set_value(2);
    assert_int_equal(weft_watch_close(shared), 0);
    assert_int_equal(weft_watch_close(shared), -EALREADY);
    assert_int_equal(weft_watch_set(shared, &value), -EPIPE);
    assert_int_equal(weft_watch_changed(shared, &version, &value), 0);
    assert_int_equal(value, 2);
    assert_int_equal(version, 2);
    value = 77;
    assert_int_equal(weft_watch_changed(shared, &version, &value), -EPIPE);
    assert_int_equal(version, 2);
    assert_int_equal(value, 77);
    assert_int_equal(weft_watch_get(shared, &value), 2);
    assert_int_equal(value, 2);
    weft_watch_free(shared);
}

static void values_of_any_size(void **state)
{
    const size_t sizes[] = {0, 1, 3, 16, 5000};
    unsigned char in[5000], out[5000];

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        weft_watch *watch = weft_watch_new(sizes[i], NULL);
        uint64_t version = 1;

        assert_non_null(watch);
        memset(in, 0, sizeof in);
        assert_int_equal(weft_watch_get(watch, out), 1);
        assert_memory_equal(in, out, sizes[i]);
        memset(in, 0x5a, sizeof in);
        assert_int_equal(weft_watch_set(watch, in), 0);
        assert_int_equal(weft_watch_changed(watch, &version, out), 0);
        assert_memory_equal(in, out, sizes[i]);
        weft_watch_free(watch);
    }
}

/* ---- who waits, on one worker, where a yield lets everybody else run until it waits ---- */

static intptr_t next_value(void *arg)
{
    uint64_t version = (uint64_t)(uintptr_t)arg;
    int64_t value = -1;
    int rc = weft_watch_changed(shared, &version, &value);

    return rc < 0 ? rc : (intptr_t)(value * 100 + (int64_t)version);
}

static void wait_with(weft_task **tasks, int n, uintptr_t version)
{
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(next_value, (void *)version)) != NULL);
    must_be(weft_yield(), 0);
}

static intptr_t wake_all(void *arg)
{
    weft_task *tasks[4];

    new_watch(1);
    wait_with(tasks, 4, 1);
    set_value(2);
    for (int i = 0; i < 4; i++)
        must_be(weft_await(tasks[i]), 202);
    wait_with(tasks, 4, 2);
    set_value(3);
    set_value(4); /* before any of them has run: it gets the latest */
    for (int i = 0; i < 4; i++)
        must_be(weft_await(tasks[i]), 404);
    wait_with(tasks, 4, 4);
    must_be(weft_watch_close(shared), 0);
    for (int i = 0; i < 4; i++)
        must_be(weft_await(tasks[i]), -EPIPE);
    weft_watch_free(shared);

    new_watch(1);
    wait_with(tasks, 4, 1);
    set_value(2);
    must_be(weft_watch_close(shared), 0);
    for (int i = 0; i < 4; i++)
        must_be(weft_await(tasks[i]), 202);
    weft_watch_free(shared);
    (void)arg;
    return 0;
}

static void a_set_or_the_close_wakes_all_who_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(wake_all, NULL), 0);
}

static intptr_t give_up(void *arg)
{
    weft_task *tasks[3];
    uint64_t version = 4;
    weft_timeout scope;

    new_watch(0);
    for (int who = 0; who < 3; who++) {
        wait_with(tasks, 3, (uintptr_t)who + 1);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        set_value(5);
        for (int i = 0; i < 3; i++)
            must(i == who || weft_await(tasks[i]) == 502 + who);
    }
    wait_with(tasks, 1, 4);
    set_value(6);
    must_be(weft_cancel(tasks[0]), 1); /* it was woken with a value */
    must_be(weft_await(tasks[0]), 605);

    version = 5;
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_watch_changed(shared, &version, NULL), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    set_value(7);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_watch_changed(shared, &version, NULL), -ECANCELED);
    must_be(version, 5);
    must_be(weft_uncancel(), 1);
    must_be(weft_watch_changed(shared, &version, NULL), 0);
    must_be(version, 6);
    weft_watch_free(shared);
    (void)arg;
    return 0;
}

static void who_gives_up_leaves_the_others_alone(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up, NULL), 0);
}

/* ---- at every point ---- */

enum { WATCHERS = 4, ROUNDS = 5000, MOST_SETS = 10, WORDS = 12 };

/* All words are the same, and one less than the version. */
struct value {
    int64_t words[WORDS];
};

static struct value value_of(int64_t number)
{
    struct value value;

    for (int i = 0; i < WORDS; i++)
        value.words[i] = number;
    return value;
}

static int follow(weft_watch *watch, uint64_t *version)
{
    struct value value;
    uint64_t before = *version;
    int rc;

    while ((rc = weft_watch_changed(watch, version, &value)) == 0) {
        must(*version > before);
        before = *version;
        for (int i = 0; i < WORDS; i++)
            must_be(value.words[i], before - 1);
    }
    return rc;
}

struct watcher {
    weft_watch *watch;
    uint64_t version;
};

static intptr_t follow_task(void *arg)
{
    struct watcher *watcher = arg;

    return follow(watcher->watch, &watcher->version);
}

static void play(uint64_t *seed)
{
    int64_t sets = (int64_t)(draw(seed) % (MOST_SETS + 1));
    struct value value = value_of(0);
    weft_watch *watch = weft_watch_new(sizeof value, &value);
    struct watcher watchers[WATCHERS];
    weft_task *tasks[WATCHERS];

    must(watch != NULL);
    for (int i = 0; i < WATCHERS; i++) {
        watchers[i] = (struct watcher){watch, i % 2};
        must((tasks[i] = weft_spawn(follow_task, &watchers[i])) != NULL);
    }
    for (int64_t n = 1; n <= sets; n++) {
        for (int pause = (int)(draw(seed) % 3); pause > 0; pause--)
            must_be(weft_yield(), 0);
        if (draw(seed) % 4 == 0)
            weft_cancel(tasks[draw(seed) % WATCHERS]);
        value = value_of(n);
        must_be(weft_watch_set(watch, &value), 0);
    }
    must_be(weft_watch_close(watch), 0);
    for (int i = 0; i < WATCHERS; i++) {
        intptr_t rc = weft_await(tasks[i]);

        must(rc == -EPIPE || rc == -ECANCELED);
        must_be(follow(watch, &watchers[i].version), -EPIPE);
        must_be(watchers[i].version, sets + 1);
    }
    weft_watch_free(watch);
}

static intptr_t play_all(void *arg)
{
    uint64_t seed = wanted_seed();

    (void)arg;
    for (int number = 0; number < FEWER(ROUNDS); number++)
        play(&seed);
    return 0;
}

static void the_latest_value_is_never_missed_whoever_is_cancelled(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on(few_workers[i], play_all, NULL), 0);
}

/* ---- tasks and threads ---- */

enum { TRAFFIC = 20000 };

static void *follow_in_thread(void *arg)
{
    return (void *)follow_task(arg);
}

static intptr_t traffic(void *arg)
{
    struct value value = value_of(0);
    weft_watch *watch = weft_watch_new(sizeof value, &value);
    struct watcher watchers[WATCHERS];
    weft_task *tasks[WATCHERS];
    pthread_t thread;
    void *result;

    (void)arg;
    must(watch != NULL);
    for (int i = 0; i < WATCHERS; i++)
        watchers[i] = (struct watcher){watch, 0};
    must_be(pthread_create(&thread, NULL, follow_in_thread, &watchers[0]), 0);
    for (int i = 1; i < WATCHERS; i++)
        must((tasks[i] = weft_spawn(follow_task, &watchers[i])) != NULL);
    for (int64_t n = 1; n <= FEWER(TRAFFIC); n++) {
        value = value_of(n);
        must_be(weft_watch_set(watch, &value), 0);
        if (n % 16 == 0)
            must_be(weft_yield(), 0);
    }
    must_be(weft_watch_close(watch), 0);
    for (int i = 1; i < WATCHERS; i++)
        must_be(weft_await(tasks[i]), -EPIPE);
    must_be(pthread_join(thread, &result), 0);
    must_be((intptr_t)result, -EPIPE);
    for (int i = 0; i < WATCHERS; i++)
        must_be(watchers[i].version, FEWER(TRAFFIC) + 1);
    weft_watch_free(watch);
    return 0;
}

static void tasks_and_threads_see_whole_values(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on(few_workers[i], traffic, NULL), 0);
}

/* ---- a set on one worker against a cancellation on another ---- */

static void new_value(void *arg)
{
    (void)arg;
    new_watch(1);
}

static intptr_t second_value(void *arg)
{
    (void)arg;
    return next_value((void *)1);
}

static void set_two(void *arg)
{
    (void)arg;
    set_value(2);
}

static void all_have_seen_it(void *arg, const intptr_t *results)
{
    weft_task *again;

    (void)arg;
    for (int i = 0; i < RACE_WAITERS_MOST; i++)
        must(results[i] == 202 || (results[i] == -ECANCELED && i == RACE_WAITERS_MOST - 1));
    /* The list of waiters has come to no harm. */
    wait_with(&again, 1, 2);
    set_value(3);
    must_be(weft_await(again), 303);
    weft_watch_free(shared);
}

static void a_watcher_is_cancelled_while_all_are_woken(void **state)
{
    const struct race race = {RACE_WAITERS_MOST, new_value, second_value, set_two, all_have_seen_it};

    (void)state;
    run_race(&race, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(each_set_is_a_new_version),
        cmocka_unit_test(a_closed_watch_still_shows_what_is_newer),
        cmocka_unit_test(values_of_any_size),
        cmocka_unit_test(a_set_or_the_close_wakes_all_who_wait),
        cmocka_unit_test(who_gives_up_leaves_the_others_alone),
        cmocka_unit_test(the_latest_value_is_never_missed_whoever_is_cancelled),
        cmocka_unit_test(tasks_and_threads_see_whole_values),
        cmocka_unit_test(a_watcher_is_cancelled_while_all_are_woken),
    };

    return run_all(tests, argc, argv);
}
