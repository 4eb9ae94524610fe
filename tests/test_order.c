/* In which order tasks run on one worker: turns, children before uncles, nobody starves. */
#include "tests/support.h"

/* ---- turns ---- */

static char trace[256];
static size_t traced;

static intptr_t trace_three_times(void *arg)
{
    for (int i = 0; i < 3; i++) {
        trace[traced++] = (char)(intptr_t)arg;
        must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t traces_turns(void *arg)
{
    weft_task *tasks[5];

    (void)arg;
    memset(trace, 0, sizeof trace);
    traced = 0;
    for (intptr_t i = 0; i < 5; i++)
        must((tasks[i] = weft_spawn(trace_three_times, (void *)('a' + i))) != NULL);
    must(trace[0] == '\0'); /* not before the spawner suspends */
    for (int i = 0; i < 4; i++) {
        trace[traced++] = '.';
        must_be(weft_yield(), 0);
    }
    for (int i = 0; i < 5; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

static void on_one_worker_tasks_take_turns_in_order_of_arrival(void **state)
{
    (void)state;
    assert_int_equal(run_alone(traces_turns, NULL), 0);
    assert_string_equal(trace, ".abcde.abcde.abcde.");
}

static intptr_t keeps_yielding(void *arg)
{
    while (!atomic_load((atomic_int *)arg))
        must_be(weft_yield(), 0);
    return 0;
}

static intptr_t set_flag(void *arg)
{
    atomic_store((atomic_int *)arg, 1);
    return 0;
}

/* Two tasks that hand an event to and fro must not keep a third from running. */
static weft_event ping, pong;
static atomic_int stop_it, playing;

static intptr_t play(void *arg)
{
    weft_event *mine = arg ? &ping : &pong, *other = arg ? &pong : &ping;
    intptr_t rounds = 0;

    while (!atomic_load(&stop_it)) {
        must_be(weft_event_wait(mine), 0);
        weft_event_clear(mine);
        weft_event_set(other);
        if (++rounds == 1)
            atomic_fetch_add(&playing, 1);
    }
    weft_event_set(other);
    return rounds;
}

static intptr_t is_fair(void *arg)
{
    weft_task *a, *b, *yielder;

    (void)arg;
    atomic_store(&stop_it, 0);
    must((yielder = weft_spawn(keeps_yielding, &stop_it)) != NULL);
    must_be(weft_await(weft_spawn(set_flag, &stop_it)), 0);
    must_be(weft_await(yielder), 0);

    atomic_store(&stop_it, 0);
    atomic_store(&playing, 0);
    ping = pong = (weft_event)WEFT_EVENT_INIT;
    must((a = weft_spawn(play, (void *)1)) != NULL);
    must((b = weft_spawn(play, NULL)) != NULL);
    weft_event_set(&ping);
    for (int i = 0; i < 100 || atomic_load(&playing) < 2; i++)
        must_be(weft_yield(), 0);
    must_be(weft_go(set_flag, &stop_it), 0);
    must(weft_await(a) > 0);
    must(weft_await(b) > 0);
    return 0;
}

static void a_pair_that_wakes_each_other_starves_nobody(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], is_fair, NULL), 0);
}

/* ---- children before uncles ---- */

static weft_sem let_go;

static void trace_begins(void)
{
    memset(trace, 0, sizeof trace);
    traced = 0;
    let_go = (weft_sem)WEFT_SEM_INIT(0);
}

static intptr_t leaves_a_mark(void *arg)
{
    trace[traced++] = (char)(intptr_t)arg;
    return 0;
}

/* Itself, then two children, which it does not await: that would run them in place. */
static intptr_t has_two_children(void *arg)
{
    trace[traced++] = (char)(intptr_t)arg;
    must_be(weft_go(leaves_a_mark, (void *)'1'), 0);
    must_be(weft_go(leaves_a_mark, (void *)'2'), 0);
    return weft_sem_acquire(&let_go);
}

static intptr_t spawns_three_generations(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    trace_begins();
    for (intptr_t i = 0; i < 3; i++)
        must((tasks[i] = weft_spawn(has_two_children, (void *)('a' + i))) != NULL);
    must_be(weft_yield(), 0);
    trace[traced++] = '.';
    for (int i = 0; i < 3; i++)
        must_be(weft_sem_release(&let_go), 0);
    for (int i = 0; i < 3; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

/* Where all takes long, others have their turn in between, now and then; with a sanitizer, which makes much of each new
 * stack, perhaps always. */
static void what_a_new_task_spawns_starts_before_those_that_wait_for_their_start(void **state)
{
    bool seen = false;

    (void)state;
    for (int tries = 0; tries < 100 && !seen; tries++) {
        assert_int_equal(run_alone(spawns_three_generations, NULL), 0);
        assert_int_equal(strlen(trace), 10);
        seen = strcmp(trace, "a12b12c12.") == 0;
    }
    assert_true(seen || SUPPORT_SANITIZED);
}

static intptr_t spawns_when_woken(void *arg)
{
    must_be(weft_sem_acquire(&let_go), 0);
    trace[traced++] = (char)(intptr_t)arg;
    must_be(weft_go(leaves_a_mark, (void *)((intptr_t)arg - 'a' + 'A')), 0);
    return 0;
}

static intptr_t wakes_three(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    trace_begins();
    for (intptr_t i = 0; i < 3; i++)
        must((tasks[i] = weft_spawn(spawns_when_woken, (void *)('a' + i))) != NULL);
    must_be(weft_yield(), 0);
    for (int i = 0; i < 3; i++)
        must_be(weft_sem_release(&let_go), 0);
    must_be(weft_yield(), 0);
    for (int i = 0; i < 3; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(weft_yield(), 0);
    return 0;
}

/* So a server's requests are served in the order in which they came. */
static void what_woken_tasks_spawn_starts_in_the_order_of_their_waking(void **state)
{
    (void)state;
    assert_int_equal(run_alone(wakes_three, NULL), 0);
    assert_int_equal(strlen(trace), 6);
    for (int i = 0; i < 3; i++)
        assert_int_equal(trace[3 + i], trace[i] - 'a' + 'A');
}

static intptr_t starts_in_turn(void *arg)
{
    static intptr_t last;

    must(arg == NULL || (intptr_t)arg == last + 1);
    last = (intptr_t)arg;
    return 0;
}

static intptr_t spawns_a_thousand(void *arg)
{
    (void)arg;
    for (intptr_t i = 0; i < 1000; i++)
        must_be(weft_go(starts_in_turn, (void *)i), 0);
    must_be(weft_yield(), 0);
    return 0;
}

static void what_one_task_spawns_starts_in_that_order(void **state)
{
    (void)state;
    assert_int_equal(run_alone(spawns_a_thousand, NULL), 0);
}

/* ---- a tree needs few stacks ---- */

static atomic_int alive, most_alive, leaf_count;

static void one_more(void)
{
    int now = atomic_fetch_add(&alive, 1) + 1, most = atomic_load(&most_alive);

    while (now > most && !atomic_compare_exchange_weak(&most_alive, &most, now))
        ;
}

static intptr_t tree(void *arg);

/* Waits for the children as one who cannot run them in place: they have all begun, or are on another worker. */
static intptr_t wait_for_children(intptr_t depth)
{
    weft_task *children[10];
    intptr_t sum = 0;

    for (int i = 0; i < 10; i++)
        must((children[i] = weft_spawn(tree, (void *)(depth - 1))) != NULL);
    must_be(weft_sleep(1), 0);
    for (int i = 0; i < 10; i++)
        sum += weft_await(children[i]);
    return sum;
}

static intptr_t tree(void *arg)
{
    intptr_t depth = (intptr_t)arg, sum = 1;

    one_more();
    must_be(weft_yield(), 0);
    if (depth > 0)
        sum = wait_for_children(depth);
    else
        atomic_fetch_add(&leaf_count, 1);
    atomic_fetch_sub(&alive, 1);
    return sum;
}

static void a_tree_is_walked_in_few_stacks(void **state)
{
    static const uint32_t counts[] = {1, 2, 8};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        atomic_store(&most_alive, 0);
        atomic_store(&leaf_count, 0);
        assert_int_equal(run_on(counts[i], tree, (void *)4), 10000);
        assert_int_equal(atomic_load(&leaf_count), 10000);
        assert_int_equal(atomic_load(&alive), 0);
        if (FEWER(10) == 10) /* the slower the tasks, the more often the oldest one is preferred */
            assert_true(atomic_load(&most_alive) < 4000); /* of 11 111 */
    }
}

/* ---- few are alive ---- */

static atomic_int made;

static void one_less(void)
{
    atomic_fetch_sub(&alive, 1);
}

static intptr_t yields_once(void *arg)
{
    (void)arg;
    must_be(weft_yield(), 0);
    one_less();
    return 0;
}

static intptr_t spawns_again_and_again(void *arg)
{
    (void)arg;
    for (int i = 0; i < 500; i++) {
        one_more();
        must_be(weft_go(yields_once, NULL), 0);
        for (int64_t until = weft_now() + WEFT_US(50); weft_now() < until;)
            ;
        must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t has_twenty_old_ones(void *arg)
{
    weft_task *tasks[20];

    (void)arg;
    for (int i = 0; i < 20; i++)
        must((tasks[i] = weft_spawn(spawns_again_and_again, NULL)) != NULL);
    for (int i = 0; i < 20; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

/* Ten thousand in all: what old tasks spawn is not buried under what they spawn later. */
static void what_old_tasks_spawn_ends_before_there_is_much_more(void **state)
{
    (void)state;
    atomic_store(&alive, 0);
    atomic_store(&most_alive, 0);
    assert_int_equal(run_alone(has_twenty_old_ones, NULL), 0);
    assert_true(atomic_load(&most_alive) <= 100);
}

static intptr_t leaves(void *arg)
{
    (void)arg;
    one_less();
    return 0;
}

enum { DEPTH = FEWER(50000) };

/* An endless recursion (it ends when it has gone on for long) that leaves something behind at each level: a task that
 * yields, or one that waits to start. */
static intptr_t digs(void *arg)
{
    if (atomic_fetch_add(&made, 1) >= DEPTH)
        return 0;
    one_more();
    must_be(weft_go(digs, arg), 0);
    if (arg) {
        must_be(weft_go(leaves, NULL), 0);
    } else {
        must_be(weft_yield(), 0);
        one_less();
    }
    return 0;
}

static intptr_t digs_for_a_while(void *arg)
{
    must_be(weft_go(digs, arg), 0);
    wait_until_true(atomic_load(&made) > DEPTH);
    return 0;
}

static void an_endless_recursion_leaves_a_limited_number_behind(void **state)
{
    (void)state;
    for (intptr_t way = 0; way < 2; way++) {
        atomic_store(&alive, 0);
        atomic_store(&most_alive, 0);
        atomic_store(&made, 0);
        assert_int_equal(run_alone(digs_for_a_while, (void *)way), 0);
        assert_int_equal(atomic_load(&alive), 0);
        assert_true(atomic_load(&most_alive) < 20000);
    }
}

/* ---- nobody starves ---- */

static weft_event both_begun;
static weft_task *sibling, *yielder;
static atomic_int fillers_run;

static intptr_t fills(void *arg)
{
    (void)arg;
    atomic_fetch_add(&fillers_run, 1);
    return 0;
}

/* How many others ran until it went on. */
static intptr_t begins_and_yields(void *arg)
{
    (void)arg;
    weft_event_set(&both_begun);
    must_be(weft_yield(), 0);
    return atomic_load(&fillers_run);
}

/* The last of the batch is run in place, so it is not picked; the one that has yielded goes on all the same. */
static intptr_t awaits_the_last_of_a_batch(void *arg)
{
    must((yielder = weft_spawn(begins_and_yields, NULL)) != NULL);
    must((sibling = weft_spawn(fills, NULL)) != NULL);
    must_be(weft_event_wait(&both_begun), 0);
    if (arg)
        must_be(weft_await(sibling), 0);
    must(weft_await(yielder) < 100);
    if (!arg)
        must_be(weft_await(sibling), 0);
    return 0;
}

static intptr_t has_a_backlog(void *arg)
{
    weft_task *task;

    both_begun = (weft_event)WEFT_EVENT_INIT;
    atomic_store(&fillers_run, 0);
    must((task = weft_spawn(awaits_the_last_of_a_batch, arg)) != NULL);
    for (int i = 0; i < 900; i++)
        must_be(weft_go(fills, NULL), 0);
    must_be(weft_sleep(1), 0);
    must_be(weft_await(task), 0);
    return 0;
}

static intptr_t has_a_new_backlog(void *arg)
{
    return weft_await(weft_spawn_with(&(weft_spawn_options){.stack_size = 1 << 20}, has_a_backlog, arg));
}

static void who_yielded_goes_on_although_the_last_sibling_ran_in_place(void **state)
{
    (void)state;
    for (intptr_t way = 0; way < 2; way++)
        assert_int_equal(run_alone(has_a_new_backlog, (void *)way), 0);
}

static atomic_int over;

/* A task that spawns the next one, for ever: always newer than whoever waits for its start. */
static intptr_t goes_on_for_ever(void *arg)
{
    if (arg)
        must_be(weft_yield(), 0);
    if (!atomic_load(&over))
        must_be(weft_go(goes_on_for_ever, arg), 0);
    return 0;
}

static intptr_t ends_it(void *arg)
{
    (void)arg;
    atomic_store(&over, 1);
    return 0;
}

static intptr_t begins_endless_chain(void *arg)
{
    atomic_store(&over, 0);
    must_be(weft_go(goes_on_for_ever, arg), 0);
    must_be(weft_go(goes_on_for_ever, arg), 0);
    must_be(weft_go(ends_it, NULL), 0); /* the last of the oldest */
    while (!atomic_load(&over))
        must_be(weft_sleep(WEFT_MS(1)), 0);
    return 0;
}

static void the_oldest_starts_although_there_are_always_newer_ones(void **state)
{
    (void)state;
    assert_int_equal(run_alone(begins_endless_chain, NULL), 0);
    assert_int_equal(run_alone(begins_endless_chain, (void *)1), 0);
    assert_int_equal(run_on(3, begins_endless_chain, NULL), 0);
}

/* Old tasks that work long, so that each look around falls into their turn. */
static intptr_t works_on(void *arg)
{
    (void)arg;
    while (!atomic_load(&over)) {
        for (int64_t until = weft_now() + WEFT_US(100); weft_now() < until;)
            ;
        must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t begins_chain_beside_work(void *arg)
{
    atomic_store(&over, 0);
    for (int i = 0; i < 20; i++)
        must_be(weft_go(works_on, NULL), 0);
    must_be(weft_yield(), 0);
    must_be(weft_go(begins_endless_chain, arg), 0);
    while (!atomic_load(&over))
        must_be(weft_sleep(WEFT_MS(1)), 0);
    return 0;
}

static void the_oldest_starts_beside_old_tasks_that_work_long(void **state)
{
    (void)state;
    assert_int_equal(run_alone(begins_chain_beside_work, NULL), 0);
    assert_int_equal(run_alone(begins_chain_beside_work, (void *)1), 0);
}

static intptr_t takes_turns_beside_a_chain(void *arg)
{
    atomic_store(&over, 0);
    must_be(weft_go(goes_on_for_ever, arg), 0);
    must_be(weft_go(goes_on_for_ever, arg), 0);
    for (int i = 0; i < 10; i++)
        must_be(weft_yield(), 0);
    atomic_store(&over, 1);
    return 0;
}

static void who_yields_has_his_turn_although_there_are_always_new_ones(void **state)
{
    (void)state;
    assert_int_equal(run_alone(takes_turns_beside_a_chain, NULL), 0);
    assert_int_equal(run_alone(takes_turns_beside_a_chain, (void *)1), 0);
    assert_int_equal(run_on(3, takes_turns_beside_a_chain, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_one_worker_tasks_take_turns_in_order_of_arrival),
        cmocka_unit_test(a_pair_that_wakes_each_other_starves_nobody),
        cmocka_unit_test(what_a_new_task_spawns_starts_before_those_that_wait_for_their_start),
        cmocka_unit_test(what_woken_tasks_spawn_starts_in_the_order_of_their_waking),
        cmocka_unit_test(what_one_task_spawns_starts_in_that_order),
        cmocka_unit_test(a_tree_is_walked_in_few_stacks),
        cmocka_unit_test(what_old_tasks_spawn_ends_before_there_is_much_more),
        cmocka_unit_test(an_endless_recursion_leaves_a_limited_number_behind),
        cmocka_unit_test(who_yielded_goes_on_although_the_last_sibling_ran_in_place),
        cmocka_unit_test(the_oldest_starts_although_there_are_always_newer_ones),
        cmocka_unit_test(the_oldest_starts_beside_old_tasks_that_work_long),
        cmocka_unit_test(who_yields_has_his_turn_although_there_are_always_new_ones),
    };

    return run_all(tests, argc, argv);
}
