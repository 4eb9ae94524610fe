/*
 * Blocking in place: while a task that has said so blocks its thread, others go on, soon; if it does not block, nothing
 * happens.
 */
#include "support.h"

static int ends[2];
static atomic_bool blocks;
static atomic_int turns;

static void *write_later(void *ns)
{
    nap((int64_t)(intptr_t)ns);
    must_be(write(ends[1], "*", 1), 1);
    return NULL;
}

static intptr_t takes_turns(void *unused)
{
    int64_t since = weft_now();

    (void)unused;
    while (!atomic_load(&blocks))
        must_be(weft_yield(), 0);
    for (int i = 0; i < 20 && atomic_load(&blocks); i++) {
        must_be(weft_sleep(WEFT_US(100)), 0);
        atomic_fetch_add(&turns, 1);
    }
    return (intptr_t)((weft_now() - since) / 1000);
}

static uint64_t takeovers(void)
{
    weft_stats stats;

    weft_runtime_stats(weft_runtime_current(), &stats);
    return stats.takeovers;
}

static intptr_t blocks_on_a_pipe(void *unused)
{
    pthread_t thread;
    char byte;
    int turns_meanwhile;

    (void)unused;
    atomic_store(&turns, 0);
    must_be(pthread_create(&thread, NULL, write_later, (void *)(intptr_t)WEFT_MS(200)), 0);
    must_be(weft_block_begin(), 0);
    must_be(weft_block_begin(), 0);
    atomic_store(&blocks, true);
    must_be(read(ends[0], &byte, 1), 1);
    turns_meanwhile = atomic_load(&turns);
    must_be(weft_block_end(), 0);
    must_be(weft_block_end(), 0);
    atomic_store(&blocks, false);
    must_be(weft_yield(), 0); /* as any task, on whatever thread */
    must_be(weft_sleep(WEFT_MS(1)), 0);
    pthread_join(thread, NULL);
    return turns_meanwhile;
}

static intptr_t others_meanwhile(void *unused)
{
    (void)unused;
    for (int i = 0; i < 5; i++) {
        weft_task *other = weft_spawn(takes_turns, NULL);
        weft_task *blocker = weft_spawn(blocks_on_a_pipe, NULL);

        must(other && blocker);
        must_be(weft_yield(), 0);
        must_be(weft_await(blocker), 20);
        must(weft_await(other) < 150 * 1000);
    }
    must(takeovers() >= 5);
    return 0;
}

static void others_go_on_while_a_task_blocks(void **state)
{
    /* Long after the ordinary take-over: it must be this one. */
    weft_config config = {.workers = 1, .takeover_us = 60 * 1000 * 1000};

    (void)state;
    must_be(pipe(ends), 0);
    must_be(run_with(&config, others_meanwhile, NULL), 0);
    close(ends[0]);
    close(ends[1]);
}

static intptr_t does_not_block(void *unused)
{
    weft_task *other = weft_spawn(sleep_for_ever, NULL);

    (void)unused;
    must(other != NULL);
    for (int i = 0; i < FEWER(200000); i++) {
        must_be(weft_block_begin(), 0);
        must_be(weft_block_end(), 0);
        if (i % 64 == 0)
            must_be(weft_yield(), 0);
    }
    must_be(weft_cancel(other), 1);
    must_be(weft_await(other), -ECANCELED);
    return (intptr_t)takeovers();
}

static void nothing_happens_if_it_does_not_block(void **state)
{
    weft_config config = {.workers = 1, .takeover_us = 60 * 1000 * 1000};

    (void)state;
    must_be(run_with(&config, does_not_block, NULL), 0);
}

/* Computing is not blocking: the worker is in use. */
static intptr_t computes_in_a_section(void *unused)
{
    weft_task *other = weft_spawn(return_arg, NULL);
    int64_t until = weft_now() + WEFT_MS(30);

    (void)unused;
    must_be(weft_block_begin(), 0);
    while (weft_now() < until)
        ;
    must_be(weft_block_end(), 0);
    must_be(weft_await(other), 0);
    return 0;
}

static void computing_in_a_section_is_allowed(void **state)
{
    (void)state;
    must_be(run_alone(computes_in_a_section, NULL), 0);
    must_be(run_on(4, computes_in_a_section, NULL), 0);
}

static intptr_t pinned_neighbour(void *unused)
{
    (void)unused;
    must(!atomic_load(&blocks));
    return 0;
}

static intptr_t blocks_beside_a_pinned_task(void *unused)
{
    weft_spawn_options options = {.flags = WEFT_SPAWN_PINNED};
    weft_task *pinned = weft_spawn_with(&options, pinned_neighbour, NULL);

    (void)unused;
    must(pinned != NULL);
    must_be(weft_block_begin(), 0);
    atomic_store(&blocks, true);
    nap(WEFT_MS(20));
    atomic_store(&blocks, false);
    must_be(weft_block_end(), 0);
    must_be(weft_await(pinned), 0);
    return (intptr_t)takeovers();
}

static void pinned_tasks_prevent_it(void **state)
{
    (void)state;
    must_be(run_alone(blocks_beside_a_pinned_task, NULL), 0);
}

static intptr_t suspends_in_a_section(void *unused)
{
    (void)unused;
    must_be(weft_block_begin(), 0);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    return 0; /* against the rules, and without an end */
}

static intptr_t misuses(void *unused)
{
    (void)unused;
    must_be(weft_block_end(), -EINVAL);
    for (int i = 0; i < 10; i++) {
        weft_task *task = weft_spawn(suspends_in_a_section, NULL);

        must(task != NULL);
        must_be(weft_yield(), 0);
        must_be(weft_await(task), 0);
        must_be(weft_block_end(), -EINVAL);
        must_be(weft_block_begin(), 0);
        must_be(weft_block_end(), 0);
    }
    return 0;
}

static void misuse_is_an_error_and_harms_nobody(void **state)
{
    (void)state;
    assert_int_equal(weft_block_begin(), -EPERM);
    assert_int_equal(weft_block_end(), -EPERM);
    must_be(run_alone(misuses, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_go_on_while_a_task_blocks),
        cmocka_unit_test(nothing_happens_if_it_does_not_block),
        cmocka_unit_test(computing_in_a_section_is_allowed),
        cmocka_unit_test(pinned_tasks_prevent_it),
        cmocka_unit_test(misuse_is_an_error_and_harms_nobody),
    };

    return run_all(tests, argc, argv);
}
