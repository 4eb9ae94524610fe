/*
 * Debug mode: what the program does wrong is named once, with the place where it comes from; without debug mode there is
 * only the error code. In child processes, whose stderr is read.
 */
#include "support.h"

static void debugging(void)
{
    setenv("WEFT_DEBUG", "1", 1);
    setenv("WEFT_WORKERS", "1", 1);
    setenv("WEFT_TAKEOVER_US", "off", 1);
}

/* What the child says, and that it ends well. */
static const char *said(void (*fn)(void *), void *arg)
{
    static char text[8000];
    int status = run_in_child(fn, arg, text, sizeof text);

    if (status != 0)
        fprintf(stderr, "%s", text);
    assert_int_equal(status, 0);
    return text;
}

static unsigned count(const char *text, const char *part)
{
    unsigned n = 0;

    while ((text = strstr(text, part))) {
        n++;
        text += strlen(part);
    }
    return n;
}

static weft_task *spawn_named(const char *name, weft_fn *fn, void *arg)
{
    weft_spawn_options options = {.name = name};
    weft_task *task = weft_spawn_with(&options, fn, arg);

    must(task != NULL);
    return task;
}

/* ---- slow slices ---- */

static void compute(int64_t ns)
{
    int64_t until = weft_now() + ns;

    while (weft_now() < until)
        ;
}

static int64_t slow_ns = WEFT_MS(5);

static intptr_t is_slow(void *unused)
{
    (void)unused;
    compute(slow_ns);
    return weft_yield();
}

/* As long, but it suspends in between. */
static intptr_t is_not_slow(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++) {
        compute(slow_ns / 100);
        must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t is_slow_in_steps(void *unused)
{
    (void)unused;
    compute(slow_ns);
    return 0;
}

static intptr_t slow_and_not(void *unused)
{
    weft_spawn_options stackless = {.name = "slow steps", .flags = WEFT_SPAWN_STACKLESS};
    weft_task *task = spawn_named("slow alone", is_slow, NULL);

    (void)unused;
    must_be(weft_yield(), 0);
    must_be(weft_await(task), 0);
    must_be(weft_await(spawn_named("slow in place", is_slow, NULL)), 0);
    must_be(weft_await(spawn_named("not slow", is_not_slow, NULL)), 0);
    must_be(weft_await(weft_spawn_with(&stackless, is_slow_in_steps, NULL)), 0);
    return 0;
}

static void run_slow(void *ms)
{
    debugging();
    setenv("WEFT_SLOW_MS", ms, 1);
    if (strcmp(ms, "200") == 0)
        slow_ns = WEFT_MS(300); /* well apart from what a busy machine adds to the others */
    must_be(weft_run(slow_and_not, NULL), 0);
}

static void run_slow_without_debug(void *unused)
{
    (void)unused;
    setenv("WEFT_SLOW_MS", "1", 1);
    must_be(weft_run(slow_and_not, NULL), 0);
}

static void a_slow_slice_is_named_with_its_task_and_where_that_was_spawned(void **state)
{
    const char *text = said(run_slow, "200");

    (void)state;
    assert_int_equal(count(text, "weft: task 'slow alone' (0x"), 1);
    assert_int_equal(count(text, "weft: task 'slow in place' (0x"), 1);
    assert_int_equal(count(text, "weft: task 'slow steps' (0x"), 1);
    assert_int_equal(count(text, " ms without suspending (WEFT_SLOW_MS); it was spawned at test_debug+0x"), 3);
    assert_int_equal(count(text, "'not slow'"), 0);
    assert_string_equal(said(run_slow, "off"), "");
    assert_string_equal(said(run_slow, "10000"), "");
    assert_string_equal(said(run_slow_without_debug, NULL), "");
}

/* ---- handles ---- */

static intptr_t fails(void *unused)
{
    (void)unused;
    return -EIO;
}

/* One place in the program, however often a compiler repeats the body of the loop below. */
static __attribute__((noinline)) void lose_one(void)
{
    (void)spawn_named("lost", return_arg, NULL);
}

static intptr_t loses_handles(void *unused)
{
    weft_task *task = NULL;

    (void)unused;
    for (int i = 0; i < 3; i++)
        lose_one();
    task = spawn_named("lost failure", fails, NULL);
    must_be(weft_yield(), 0);
    task = spawn_named("lost sleeper", sleep_for_ever, NULL);
    task = spawn_named("awaited", return_arg, NULL);
    must_be(weft_await(task), 0);
    task = spawn_named("awaited later", return_arg, NULL);
    must_be(weft_yield(), 0);
    must_be(weft_await(task), 0);
    weft_detach(spawn_named("detached", return_arg, NULL));
    task = spawn_named("detached later", return_arg, NULL);
    must_be(weft_yield(), 0);
    weft_detach(task);
    must_be(weft_go(return_arg, NULL), 0);
    return 0;
}

static void lose(void *unused)
{
    (void)unused;
    debugging();
    must_be(weft_run(loses_handles, NULL), 0);
}

static void handles_that_are_never_given_back_are_named_once_with_their_number(void **state)
{
    const char *text = said(lose, NULL);

    (void)state;
    assert_int_equal(count(text,
                           "weft: 3 tasks 'lost' ended and were neither awaited nor detached: the handle is lost. "
                           "Spawned at test_debug+0x"),
                     1);
    assert_int_equal(count(text, "weft: 1 task 'lost failure' ended and was neither"), 1);
    assert_int_equal(count(text, "weft: 'lost failure' failed with -5 (Input/output error) and nobody awaits it"),
                     1);
    assert_int_equal(count(text, "weft: 1 task 'lost sleeper' ended and was neither"), 1);
    assert_int_equal(count(text, "\n"), 4);
}

static void lose_quietly(void *unused)
{
    (void)unused;
    must_be(weft_run(loses_handles, NULL), 0);
}

static struct {
    atomic_int calls;
    char name[32];
    intptr_t result;
} unseen;

static void note_unseen(const char *name, intptr_t result, void *user)
{
    must(user == &unseen);
    atomic_fetch_add(&unseen.calls, 1);
    strncpy(unseen.name, name, sizeof unseen.name - 1);
    unseen.result = result;
    must_be(weft_go(return_arg, NULL) <= 0, 1); /* it may call weft */
}

static intptr_t loses_a_failure(void *unused)
{
    weft_task *task = spawn_named("lost failure", fails, NULL);

    (void)unused;
    while (!weft_task_done(task))
        must_be(weft_yield(), 0);
    return 0;
}

static void a_failure_behind_a_lost_handle_reaches_the_handler(void **state)
{
    weft_config config = {.workers = 2, .on_unseen_failure = note_unseen, .user = &unseen};

    (void)state;
    assert_string_equal(said(lose_quietly, NULL), "");
    must_be(run_with(&config, loses_a_failure, NULL), 0);
    assert_int_equal(atomic_load(&unseen.calls), 1);
    assert_string_equal(unseen.name, "lost failure");
    assert_int_equal(unseen.result, -EIO);
}

static intptr_t fails_detached(void *unused)
{
    (void)unused;
    weft_detach(spawn_named("unseen", fails, NULL));
    must_be(weft_go(fails, NULL), 0);
    must_be(weft_yield(), 0); /* they run */
    return 0;
}

static void fail_unseen(void *unused)
{
    (void)unused;
    debugging();
    must_be(weft_run(fails_detached, NULL), 0);
}

static void a_failure_that_nobody_awaits_is_reported_once(void **state)
{
    const char *text = said(fail_unseen, NULL);

    (void)state;
    assert_int_equal(count(text, "weft: 'unseen' failed with -5 (Input/output error) and nobody awaits it\n"), 1);
    assert_int_equal(count(text, "weft: 'task 0x"), 1);
    assert_int_equal(count(text, "\n"), 2);
}

/* ---- wrong contexts ---- */

static intptr_t runs_inside(void *unused)
{
    (void)unused;
    must_be(weft_run(return_arg, NULL), -EALREADY);
    must_be(weft_run(return_arg, NULL), -EALREADY);
    return weft_runtime_run(weft_runtime_current(), return_arg, NULL);
}

static void misuse(void *debug)
{
    if (debug)
        debugging();
    must_be(weft_sleep(1), -EPERM);
    must_be(weft_sleep(1), -EPERM);
    must(weft_spawn(return_arg, NULL) == NULL);
    must_be(weft_run(runs_inside, NULL), -EALREADY);
}

static void a_call_in_the_wrong_context_is_named_once(void **state)
{
    const char *text = said(misuse, "");

    (void)state;
    assert_int_equal(count(text, "weft: weft_sleep was called outside a task: it returns -EPERM"), 1);
    assert_int_equal(count(text, "weft: weft_run was called inside a task: it returns -EALREADY"), 1);
    assert_int_equal(count(text, "\n"), 2);
    assert_string_equal(said(misuse, NULL), "");
}

static intptr_t waits_stackless(void *unused)
{
    (void)unused;
    must_be(weft_sleep(1), -EPERM);
    return 0;
}

static intptr_t spawns_stackless(void *unused)
{
    (void)unused;
    return weft_await(weft_spawn_stackless(waits_stackless, NULL));
}

/* With the field of the configuration instead of the variable. */
static void misuse_stackless(void *debug)
{
    weft_config config = {.workers = 1, .debug = debug ? 1 : WEFT_OFF};
    weft_runtime *runtime;

    must_be(weft_runtime_start(&config, &runtime), 0);
    must_be(weft_await(weft_runtime_spawn(runtime, spawns_stackless, NULL)), 0);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
}

static weft_mutex mutex = WEFT_MUTEX_INIT;
static weft_cond cond = WEFT_COND_INIT;
static bool told;

static void *tells(void *unused)
{
    must_be(weft_mutex_lock(&mutex), 0);
    told = true;
    weft_cond_signal(&cond);
    weft_mutex_unlock(&mutex);
    return unused;
}

static void wait_on_a_thread(void)
{
    pthread_t other;

    must_be(weft_mutex_lock(&mutex), 0);
    must_be(pthread_create(&other, NULL, tells, NULL), 0);
    while (!told)
        must_be(weft_cond_wait(&cond, &mutex), 0);
    weft_mutex_unlock(&mutex);
    pthread_join(other, NULL);
}

static int ends[2];

struct reader {
    weft_frame frame;
    ssize_t n;
    char byte;
};

static intptr_t reads_stackless(void *arg)
{
    struct reader *reader = arg;

    WEFT_BEGIN(reader);
    must_be(weft_cancelled(), 0);
    WEFT_AWAIT(reader, reader->n, weft_async_read(ends[0], &reader->byte, 1));
    must_be(reader->n, 1);
    must_be(weft_cancelled(), 0);
    WEFT_DONE(0);
}

static intptr_t reads_and_writes(void *unused)
{
    static struct reader reader;
    weft_task *task = weft_spawn_stackless(reads_stackless, &reader);

    (void)unused;
    must_be(weft_yield(), 0);
    must_be(weft_write(ends[1], "x", 1), 1);
    return weft_await(task);
}

static void use_well(void *unused)
{
    (void)unused;
    debugging();
    wait_on_a_thread();
    must_be(pipe(ends), 0);
    must_be(weft_run(reads_and_writes, NULL), 0);
}

static void so_is_one_in_a_stackless_task_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(count(said(misuse_stackless, ""), "weft: weft_sleep was called in a stackless task"), 1);
    assert_string_equal(said(misuse_stackless, NULL), "");
    assert_string_equal(said(use_well, NULL), "");
}

/* ---- everything at once ---- */

static intptr_t tree(void *arg)
{
    intptr_t depth = (intptr_t)arg;
    weft_task *a, *b;

    if (depth == 0)
        return weft_yield() + 1;
    a = weft_spawn(tree, (void *)(depth - 1));
    b = weft_spawn(tree, (void *)(depth - 1));
    must(a && b);
    return weft_await(a) + weft_await(b);
}

static void programs_do_the_same_in_debug_mode(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        weft_config config = {.workers = support_workers[i], .debug = 1, .slow_ms = WEFT_NEVER};

        must_be(run_with(&config, tree, (void *)9), 512);
    }
}

/* ---- stuck workers ---- */

static intptr_t blocks_by_mistake(void *unused)
{
    (void)unused;
    nap(WEFT_MS(800));
    return 0;
}

static intptr_t spawn_blocking_by_mistake(void *unused)
{
    (void)unused;
    weft_detach(spawn_named("mistaken", blocks_by_mistake, NULL));
    return weft_sleep(WEFT_MS(1));
}

static void run_stuck(void *unused)
{
    (void)unused;
    debugging();
    must_be(weft_run(spawn_blocking_by_mistake, NULL), 0);
}

static void a_stuck_worker_is_named_once_with_its_task(void **state)
{
    const char *text = said(run_stuck, NULL);

    (void)state;
    assert_int_equal(count(text, "worker 0 has been stuck in task 'mistaken'"), 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_slice_is_named_with_its_task_and_where_that_was_spawned),
        cmocka_unit_test(handles_that_are_never_given_back_are_named_once_with_their_number),
        cmocka_unit_test(a_failure_that_nobody_awaits_is_reported_once),
        cmocka_unit_test(a_failure_behind_a_lost_handle_reaches_the_handler),
        cmocka_unit_test(a_call_in_the_wrong_context_is_named_once),
        cmocka_unit_test(so_is_one_in_a_stackless_task_and_nothing_else),
        cmocka_unit_test(a_stuck_worker_is_named_once_with_its_task),
        cmocka_unit_test(programs_do_the_same_in_debug_mode),
    };

    return run_all(tests, argc, argv);
}
