/* Crowds (runtime/crowd.h): what the kernel's figures come to, and descriptors that are gathered while they are used. */
#include "tests/support.h"

#include <sys/socket.h>

#include "runtime/runtime.h"
#include "runtime/spread.h"

/* ---- what to count on, by a clock of the test's own ---- */

enum { SPAN = 10 * 1000 * 1000, WINDOWS_A_SECOND = 100 };

static struct weft__crowd crowd;
static int64_t now;

static void begin(uint32_t workers, uint32_t processors)
{
    memset(&crowd, 0, sizeof crowd);
    assert_int_equal(weft__crowd_init(&crowd, workers, processors), 0);
    now = WEFT_SEC(1000);
}

static void end(void)
{
    weft__crowd_free(&crowd);
}

/* The workers ran and waited for so many percent of a processor. */
static uint32_t after(int64_t ran, int64_t waited)
{
    uint32_t processors;

    now += SPAN;
    processors = weft__crowd_judge(&crowd, now, SPAN, SPAN * ran / 100, SPAN * waited / 100);
    atomic_store(&crowd.processors, processors);
    return processors;
}

static void after_windows(int n, int64_t ran, int64_t waited)
{
    while (n-- > 0)
        after(ran, waited);
}

/* How many windows with these figures until something else is counted on. */
static int windows_until_change(int64_t ran, int64_t waited)
{
    uint32_t before = weft__crowd_processors(&crowd);
    int windows = 1;

    while (after(ran, waited) == before && windows < 1000)
        windows++;
    return windows;
}

static void who_gets_what_is_wanted_counts_on_all(void **state)
{
    (void)state;
    begin(2, 2);
    assert_int_equal(windows_until_change(200, 0), 1000);
    assert_int_equal(windows_until_change(10, 5), 1000);
    assert_int_equal(windows_until_change(120, 20), 1000);
    assert_false(weft__is_crowded(&crowd));
    end();
}

static void where_some_could_sleep_there_is_no_crowd(void **state)
{
    (void)state;
    begin(64, 64);
    assert_int_equal(windows_until_change(1300, 100), 1000);
    end();
}

static void one_long_wait_is_no_crowd(void **state)
{
    (void)state;
    begin(2, 2);
    after_windows(10, 150, 0);
    assert_int_equal(after(120, 80), 2);
    assert_int_equal(after(150, 0), 2);
    end();
}

static void in_a_crowd_only_what_was_got_is_counted_on(void **state)
{
    (void)state;
    begin(2, 2); /* two workers and a client on two processors */
    assert_in_range(windows_until_change(90, 60), 1, 5);
    assert_int_equal(weft__crowd_processors(&crowd), 1);
    assert_true(weft__is_crowded(&crowd));
    end();
    begin(8, 8); /* and eight on eight */
    after_windows(20, 800, 0);
    assert_in_range(windows_until_change(711, 89), 1, 5);
    assert_int_equal(weft__crowd_processors(&crowd), 7);
    end();
}

static void workers_that_crowd_each_other_count_on_the_processors(void **state)
{
    (void)state;
    begin(32, 2);
    assert_int_equal(weft__crowd_processors(&crowd), 2);
    after_windows(20, 197, 0);
    assert_int_equal(windows_until_change(197, 3000), 1000);
    assert_false(weft__is_crowded(&crowd));
    end();
    begin(2, 8);
    assert_int_equal(weft__crowd_processors(&crowd), 2);
    end();
}

static void all_are_tried_again_more_and_more_seldom(void **state)
{
    int first, windows = 0;

    (void)state;
    begin(2, 2);
    windows_until_change(90, 60);
    first = windows_until_change(95, 5);
    windows_until_change(90, 60);
    assert_in_range(windows_until_change(95, 5), 2 * first - 1, 2 * first + 1);
    for (int i = 0; i < 10; i++) {
        windows_until_change(90, 60);
        windows = windows_until_change(95, 5);
    }
    assert_in_range(windows, WINDOWS_A_SECOND - 1, WINDOWS_A_SECOND + 1);
    /* It was right this time. */
    after_windows(20, 190, 0);
    windows_until_change(90, 60);
    assert_in_range(windows_until_change(95, 5), first - 1, first + 1);
    end();
}

/* In how many of 2000 windows fewer were counted on, with these figures for all and for fewer. */
static int windows_packed(int64_t ran, int64_t waited, int64_t ran_packed, int64_t waited_packed)
{
    int packed = 0;

    for (int i = 0; i < 20 * WINDOWS_A_SECOND; i++) {
        if (weft__is_crowded(&crowd))
            after(ran_packed, waited_packed);
        else
            after(ran, waited);
        packed += weft__is_crowded(&crowd);
    }
    return packed;
}

static void what_helps_is_kept(void **state)
{
    (void)state;
    begin(2, 2); /* a client, who waits for what they do */
    after_windows(20, 150, 0);
    assert_in_range(windows_packed(90, 60, 95, 5), 1800, 2000);
    end();
    begin(8, 8); /* two */
    after_windows(20, 800, 0);
    assert_in_range(windows_packed(610, 170, 600, 10), 1800, 2000);
    end();
}

static void what_is_no_remedy_is_given_up(void **state)
{
    (void)state;
    /* Eight workers and eight neighbours that compute, on eight processors: who counts on fewer only gets less. */
    begin(8, 8);
    after_windows(20, 800, 0);
    assert_in_range(windows_packed(400, 400, 267, 133), 1, 300);
    end();
    /* Two and one on two, and they would have had more to do. */
    begin(2, 2);
    after_windows(20, 200, 0);
    assert_in_range(windows_packed(133, 67, 100, 0), 1, 300);
    end();
}

/* ---- processors with nothing to do ---- */

static void idle_time_is_that_of_the_processors_that_may_be_used(void **state)
{
    static const char stat[] = "cpu  9 9 9 9000 9 9 9 9 0 0\n"
                               "cpu0 1 2 3 400 50 6 7 8 0 0\n"
                               "cpu1 1 2 3 1000 0 6 7 8 0 0\n"
                               "cpu2 1 2 3 20 1 6 7 8 0 0\n"
                               "intr 77 1 2 3\n"
                               "ctxt 5\n";
    char cut[sizeof stat];
    cpu_set_t mine;

    (void)state;
    CPU_ZERO(&mine);
    assert_int_equal(weft__crowd_idle_ticks(stat, &mine), 0);
    CPU_SET(0, &mine);
    CPU_SET(2, &mine);
    assert_int_equal(weft__crowd_idle_ticks(stat, &mine), 471);
    /* In the middle of cpu2's line: what is there of it is not its number. */
    snprintf(cut, sizeof cut, "%.*s", (int)(strstr(stat, "20 1 6") - stat) + 5, stat);
    assert_int_equal(weft__crowd_idle_ticks(cut, &mine), 450);
    assert_int_equal(weft__crowd_idle_ticks("", &mine), 0);
}

/* ---- descriptors that are gathered, and spread again ---- */

/* A runtime without threads, of four workers on four processors. */
static weft_runtime *make_still(void)
{
    weft_runtime *runtime = aligned_alloc(_Alignof(weft_runtime), sizeof *runtime);

    assert_non_null(runtime);
    memset(runtime, 0, sizeof *runtime);
    runtime->config.takeover_us = 2000;
    runtime->worker_count = 4;
    runtime->workers = aligned_alloc(_Alignof(struct weft__worker), 4 * sizeof *runtime->workers);
    assert_non_null(runtime->workers);
    memset(runtime->workers, 0, 4 * sizeof *runtime->workers);
    assert_int_equal(weft__crowd_init(&runtime->crowd, 4, 4), 0);
    return runtime;
}

static void free_still(weft_runtime *runtime)
{
    weft__crowd_free(&runtime->crowd);
    free(runtime->workers);
    free(runtime);
}

static void who_is_overloaded_is_relieved_if_a_processor_is_spare(void **state)
{
    weft_runtime *runtime = make_still();
    struct weft__worker *worker = &runtime->workers[1];

    (void)state;
    worker->runtime = runtime;
    assert_false(weft__may_be_relieved(worker));
    atomic_store(&worker->overloaded, 1);
    assert_false(weft__may_be_relieved(worker));
    atomic_store(&runtime->crowd.spare, 1);
    assert_true(weft__may_be_relieved(worker));
    atomic_store(&worker->overloaded, 0);
    assert_false(weft__may_be_relieved(worker));
    free_still(runtime);
}

/* Where the descriptors of workers 0 to 3 belong, as decimal digits. */
static unsigned places(weft_runtime *runtime, uint32_t processors)
{
    unsigned digits = 0;

    weft__crowd_count_on(runtime, processors);
    for (uint32_t i = 0; i < 4; i++)
        digits = 10 * digits + (unsigned)(atomic_load(&runtime->workers[i].poller_of) - runtime->workers);
    return digits;
}

static void descriptors_are_gathered_with_workers_that_are_counted_on(void **state)
{
    weft_runtime *runtime = make_still();

    (void)state;
    assert_int_equal(places(runtime, 4), 123);
    assert_int_equal(places(runtime, 3), 120);
    assert_int_equal(places(runtime, 1), 0);
    /* Nobody takes over a worker that tasks are pinned to. */
    atomic_store(&runtime->workers[1].pinned, 1);
    assert_int_equal(places(runtime, 2), 123);
    assert_int_equal(places(runtime, 1), 0);
    atomic_store(&runtime->workers[1].pinned, 0);
    assert_int_equal(places(runtime, 2), 101);
    runtime->config.takeover_us = 0;
    assert_int_equal(places(runtime, 2), 123);
    free_still(runtime);
}

enum { PAIRS = 6, ROUNDS = 4000 };

static weft_runtime *_Atomic in_motion;

static void *crowd_and_clear(void *arg)
{
    weft_runtime *runtime;

    for (uint32_t i = 0; (runtime = atomic_load(&in_motion)) != NULL; i++) {
        weft__crowd_count_on(runtime, i % 2 ? 1 : runtime->crowd.most);
        atomic_store(&runtime->crowd.spare, i % 4 == 0);
        atomic_store(&runtime->workers[i / 2 % runtime->worker_count].overloaded, 1);
        nap(WEFT_US(300));
    }
    return arg;
}

/* Until the peer has closed. */
static intptr_t echo(void *fd)
{
    ssize_t n;
    char byte;

    while ((n = weft_read((int)(intptr_t)fd, &byte, 1)) == 1)
        must_be(weft_write((int)(intptr_t)fd, &byte, 1), 1);
    return n;
}

static intptr_t play(void *fd)
{
    for (int i = 0; i < FEWER(ROUNDS); i++) {
        char byte = (char)i, back;

        must_be(weft_write((int)(intptr_t)fd, &byte, 1), 1);
        must_be(weft_read((int)(intptr_t)fd, &back, 1), 1);
        must_be(back, byte);
    }
    return weft_close((int)(intptr_t)fd);
}

static intptr_t pairs_that_play(void *arg)
{
    weft_task *tasks[3 * PAIRS];
    int echoes[PAIRS];
    weft_spawn_options pinned = {.flags = WEFT_SPAWN_PINNED};
    pthread_t thread;

    atomic_store(&in_motion, weft_runtime_current());
    must_be(pthread_create(&thread, NULL, crowd_and_clear, NULL), 0);
    for (int i = 0; i < PAIRS; i++) {
        int fds[2];

        must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        echoes[i] = fds[0];
        /* Two wait for the same descriptor: both may want to move it. */
        must((tasks[3 * i] = weft_spawn_with(i == 0 ? &pinned : NULL, echo, (void *)(intptr_t)fds[0])) != NULL);
        must((tasks[3 * i + 1] = weft_spawn(echo, (void *)(intptr_t)fds[0])) != NULL);
        must((tasks[3 * i + 2] = weft_spawn(play, (void *)(intptr_t)fds[1])) != NULL);
    }
    for (int i = 0; i < 3 * PAIRS; i++)
        must_be(weft_await(tasks[i]), 0);
    for (int i = 0; i < PAIRS; i++)
        must_be(weft_close(echoes[i]), 0);
    atomic_store(&in_motion, NULL);
    pthread_join(thread, NULL);
    return (intptr_t)arg;
}

static void no_event_is_lost_while_descriptors_are_gathered_and_divided(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_beside_threads(support_workers[i], pairs_that_play, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_gets_what_is_wanted_counts_on_all),
        cmocka_unit_test(where_some_could_sleep_there_is_no_crowd),
        cmocka_unit_test(one_long_wait_is_no_crowd),
        cmocka_unit_test(in_a_crowd_only_what_was_got_is_counted_on),
        cmocka_unit_test(workers_that_crowd_each_other_count_on_the_processors),
        cmocka_unit_test(all_are_tried_again_more_and_more_seldom),
        cmocka_unit_test(what_helps_is_kept),
        cmocka_unit_test(what_is_no_remedy_is_given_up),
        cmocka_unit_test(idle_time_is_that_of_the_processors_that_may_be_used),
        cmocka_unit_test(who_is_overloaded_is_relieved_if_a_processor_is_spare),
        cmocka_unit_test(descriptors_are_gathered_with_workers_that_are_counted_on),
        cmocka_unit_test(no_event_is_lost_while_descriptors_are_gathered_and_divided),
    };

    return run_all(tests, argc, argv);
}
