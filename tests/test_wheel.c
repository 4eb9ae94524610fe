/* The deadlines of a worker (runtime/timer.h), by a clock of the test's own: hours pass in a moment. */
#include "tests/support.h"

#include "runtime/clock.h"
#include "runtime/timer.h"

enum { DEADLINES = 2000, AT_ONCE = 32 };

struct deadline {
    struct weft__timer timer;
    int64_t when; /* 0: not set */
};

static struct weft__timers timers;
static struct deadline deadlines[DEADLINES];
static int64_t now, latest_fired;
static uint64_t chance;
static unsigned set_count, fired_count, cancelled_count, looks;

/* The wheel keeps what it is given as a task and never looks at it. */
static weft_task *as_task(unsigned i)
{
    return (weft_task *)(void *)&deadlines[i];
}

static unsigned number_of(const weft_task *task)
{
    return (unsigned)((const struct deadline *)(const void *)task - deadlines);
}

static uint64_t below(uint64_t limit)
{
    return weft__random(&chance) % limit;
}

/* From microseconds to some hours, each order of magnitude as likely. */
static int64_t some_time(void)
{
    return (int64_t)(below(1000) + 1) << below(36);
}

static void begin_anew(void)
{
    memset(deadlines, 0, sizeof deadlines);
    weft__timers_init(&timers);
    now = weft__clock_now();
    latest_fired = 0;
    chance = 88172645463325252u;
    set_count = fired_count = cancelled_count = looks = 0;
}

static void set(unsigned i, int64_t when)
{
    int64_t before = weft__timers_earliest(&timers);

    deadlines[i].when = when;
    assert_int_equal(weft__timer_set(&timers, &deadlines[i].timer, when, as_task(i)), when < before);
    set_count++;
}

static void cancel(unsigned i)
{
    weft__timer_cancel(&deadlines[i].timer);
    weft__timer_cancel(&deadlines[i].timer); /* finds nothing */
    if (deadlines[i].when)
        cancelled_count++;
    deadlines[i].when = 0;
}

static void set_or_cancel(unsigned i)
{
    if (deadlines[i].when)
        cancel(i);
    else
        set(i, now + some_time());
}

/* In order within a call: what is due at a time comes as it passed. */
static void fire(weft_task *task)
{
    struct deadline *deadline = &deadlines[number_of(task)];

    assert_true(deadline->when != 0 && deadline->when <= now);
    assert_true(deadline->when >= latest_fired);
    latest_fired = deadline->when;
    deadline->when = 0;
    fired_count++;
}

static void look(void)
{
    weft_task *tasks[AT_ONCE];
    unsigned n;

    looks++;
    latest_fired = 0;
    do {
        n = weft__timers_expire(&timers, now, tasks, AT_ONCE);
        for (unsigned i = 0; i < n; i++)
            fire(tasks[i]);
    } while (n == AT_ONCE);
    assert_true(weft__timers_earliest(&timers) > now);
}

static int64_t earliest_set(void)
{
    int64_t earliest = INT64_MAX;

    for (unsigned i = 0; i < DEADLINES; i++)
        if (deadlines[i].when && deadlines[i].when < earliest)
            earliest = deadlines[i].when;
    return earliest;
}

static void none_is_missed(void)
{
    int64_t earliest = earliest_set();

    assert_true(earliest > now);
    assert_true(weft__timers_earliest(&timers) <= earliest);
    assert_true((earliest == INT64_MAX) == (weft__timers_earliest(&timers) == INT64_MAX));
}

static void end(void)
{
    assert_int_equal(set_count, fired_count + cancelled_count);
    assert_true(weft__timers_earliest(&timers) == INT64_MAX);
    weft__timers_free(&timers);
}

static void whatever_is_set_fires_once_in_order_unless_it_is_cancelled(void **state)
{
    (void)state;
    begin_anew();
    for (int round = 0; round < FEWER(20000); round++) {
        for (uint64_t i = below(20); i > 0; i--)
            set_or_cancel((unsigned)below(DEADLINES));
        now += some_time() >> below(12);
        look();
        none_is_missed();
    }
    while (weft__timers_earliest(&timers) != INT64_MAX) {
        now = weft__timers_earliest(&timers);
        look();
        none_is_missed();
    }
    end();
}

/* A worker sleeps until the earliest deadline: what it is told is exact, so it wakes up for a reason. */
static void who_sleeps_until_the_earliest_wakes_for_each_once(void **state)
{
    (void)state;
    begin_anew();
    for (unsigned i = 0; i < DEADLINES; i++)
        set(i, now + some_time());
    while (weft__timers_earliest(&timers) != INT64_MAX) {
        now = weft__timers_earliest(&timers);
        look();
    }
    assert_true(looks <= DEADLINES);
    end();
}

/* Nobody waits for what was cancelled, or for little of it: a bucket remembers its earliest one. */
static void what_was_cancelled_wakes_nobody(void **state)
{
    (void)state;
    begin_anew();
    for (unsigned i = 0; i < DEADLINES; i++)
        set(i, now + WEFT_SEC(1) + i * 1000);
    for (unsigned i = 0; i < DEADLINES; i++)
        cancel(i);
    assert_true(weft__timers_earliest(&timers) == INT64_MAX);
    end();
}

static void many_at_the_same_moment_all_fire(void **state)
{
    (void)state;
    begin_anew();
    for (unsigned i = 0; i < DEADLINES; i++)
        set(i, now + WEFT_SEC(100) + i / 500);
    now += WEFT_SEC(100) - 1;
    look();
    assert_int_equal(fired_count, 0);
    now += DEADLINES;
    look();
    assert_int_equal(fired_count, DEADLINES);
    end();
}

static void a_long_pause_loses_nothing(void **state)
{
    (void)state;
    begin_anew();
    for (unsigned i = 0; i < DEADLINES; i++)
        set(i, now + some_time());
    now += WEFT_SEC(1000000);
    look();
    assert_int_equal(fired_count, DEADLINES);
    end();
}

/* The wheel has stood still meanwhile. */
static void what_is_set_after_a_long_pause_fires_in_time(void **state)
{
    (void)state;
    begin_anew();
    set(0, now + WEFT_SEC(1));
    cancel(0);
    now += WEFT_SEC(100000);
    for (unsigned i = 0; i < 100; i++)
        set(i, now + 1 + i * WEFT_MS(3));
    while (weft__timers_earliest(&timers) != INT64_MAX) {
        now = weft__timers_earliest(&timers);
        look();
        none_is_missed();
    }
    assert_true(looks <= 100);
    end();
}

/* The cursor stands where a bucket of a higher level begins that has not been spread yet. */
static void a_deadline_at_the_turn_of_a_level_is_not_overlooked(void **state)
{
    enum { TICK = 1 << 20, FILLERS = 16 };

    (void)state;
    for (unsigned level = 1; level < WEFT__WHEEL_LEVELS; level++) {
        int64_t block = (int64_t)TICK << (6 * level), turn;

        begin_anew();
        turn = (now / block + 2) * block;
        for (unsigned i = 0; i < FILLERS; i++)
            set(i, now + WEFT_SEC(1000000));
        set(100, turn + 5);
        now = turn - TICK / 2;
        look();
        set(101, turn + 10 * TICK);
        set(102, now + block / 2);
        cancel(102);
        none_is_missed();
        while (deadlines[101].when) {
            now = weft__timers_earliest(&timers);
            look();
            none_is_missed();
        }
        for (unsigned i = 0; i < FILLERS; i++)
            cancel(i);
        end();
    }
}

/* Not by what is near seeming far, for ever. The clock begins when the machine starts: it may not be that old. */
static void the_wheel_is_used_again_after_a_long_pause(void **state)
{
    const uint64_t ten_hours = UINT64_C(1) << 25;
    int64_t start;

    (void)state;
    begin_anew();
    start = now;
    timers.cursor -= timers.cursor < ten_hours ? timers.cursor : ten_hours; /* so long it has stood still */
    for (unsigned i = 0; i < DEADLINES; i++)
        set(i, now + WEFT_SEC(1) + i * WEFT_MS(1));
    assert_true(timers.count < 100);
    none_is_missed();
    now = start + WEFT_SEC(100);
    look();
    end();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_set_fires_once_in_order_unless_it_is_cancelled),
        cmocka_unit_test(who_sleeps_until_the_earliest_wakes_for_each_once),
        cmocka_unit_test(what_was_cancelled_wakes_nobody),
        cmocka_unit_test(many_at_the_same_moment_all_fire),
        cmocka_unit_test(a_long_pause_loses_nothing),
        cmocka_unit_test(what_is_set_after_a_long_pause_fires_in_time),
        cmocka_unit_test(a_deadline_at_the_turn_of_a_level_is_not_overlooked),
        cmocka_unit_test(the_wheel_is_used_again_after_a_long_pause),
    };

    return run_all(tests, argc, argv);
}
