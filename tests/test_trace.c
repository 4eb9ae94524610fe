/*
 * Tracing: the steps in the life of one program, in their order; that each task starts and ends once, whatever runs
 * it; and the file that the environment asks for.
 */
#include <sys/socket.h>

#include "support.h"

enum { EVENTS = 100000, STEPS = 64 };

struct step {
    enum weft_trace_kind kind;
    const weft_task *task;
    intptr_t value;
    char name[32];
};

static struct step steps[EVENTS];
static atomic_int step_count;

static void record(const weft_trace_event *event, void *arg)
{
    int i = atomic_fetch_add(&step_count, 1);

    must(arg == steps);
    must(i < EVENTS);
    must(event->time > 0);
    must(event->worker < 64 || event->worker == WEFT_TRACE_OUTSIDE);
    steps[i] = (struct step){.kind = event->kind, .task = event->task, .value = event->value};
    strcpy(steps[i].name, event->name);
}

static void start_recording(void)
{
    atomic_store(&step_count, 0);
    weft_trace(record, steps);
}

/* ---- the life of a program ---- */

static int ends[2];

static weft_task *spawn_named(const char *name, weft_fn *fn, void *arg)
{
    weft_spawn_options options = {.name = name};
    weft_task *task = weft_spawn_with(&options, fn, arg);

    must(task != NULL);
    return task;
}

static intptr_t reads(void *unused)
{
    char byte = 0;

    (void)unused;
    must_be(weft_read(ends[0], &byte, 1), 1);
    return byte;
}

/* Runs in place for the one before, and awaits one that is parked already. */
static intptr_t awaits(void *task)
{
    return weft_await(task);
}

static intptr_t writes(void *unused)
{
    (void)unused;
    must_be(write(ends[1], "*", 1), 1);
    return 0;
}

static intptr_t program(void *unused)
{
    weft_task *reader = spawn_named("reader", reads, NULL);
    weft_task *middle, *writer;
    intptr_t result;

    (void)unused;
    must_be(weft_yield(), 0); /* the reader parks */
    writer = spawn_named("writer", writes, NULL);
    middle = spawn_named("middle", awaits, reader);
    result = weft_await(middle);
    must_be(weft_await(writer), 0);
    return result;
}

struct expected {
    const char *name;
    enum weft_trace_kind kind;
};

/* In this order, with anything in between. */
static void expect_in_order(const struct expected *expected, size_t count)
{
    int next = 0;

    for (size_t i = 0; i < count; i++, next++) {
        while (next < atomic_load(&step_count) &&
               (steps[next].kind != expected[i].kind || strcmp(steps[next].name, expected[i].name) != 0))
            next++;
        if (next < atomic_load(&step_count))
            continue;
        for (int j = 0; j < atomic_load(&step_count); j++)
            fprintf(stderr, "%s '%s' %p %lld\n", weft_trace_kind_name(steps[j].kind), steps[j].name,
                    (const void *)steps[j].task, (long long)steps[j].value);
        fail_msg("no %s of '%s' in its place", weft_trace_kind_name(expected[i].kind), expected[i].name);
    }
}

static const struct step *find(const char *name, enum weft_trace_kind kind)
{
    for (int i = 0; i < atomic_load(&step_count); i++)
        if (steps[i].kind == kind && strcmp(steps[i].name, name) == 0)
            return &steps[i];
    fail_msg("no %s of '%s'", weft_trace_kind_name(kind), name);
    return NULL;
}

static bool is_seen(const char *name, enum weft_trace_kind kind)
{
    for (int i = 0; i < atomic_load(&step_count); i++)
        if (steps[i].kind == kind && strcmp(steps[i].name, name) == 0)
            return true;
    return false;
}

static void record_program(void)
{
    must_be(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    start_recording();
    must_be(run_alone(program, NULL), '*');
    weft_trace(NULL, NULL);
    weft_close(ends[0]);
    weft_close(ends[1]);
}

static void the_life_of_a_program_is_seen_in_order(void **state)
{
    static const struct expected life[] = {
        {"", WEFT_TRACE_SPAWN},                                       /* the main task is made, */
        {"", WEFT_TRACE_READY},                                       /* queued, */
        {"", WEFT_TRACE_START},                                       /* and runs */
        {"reader", WEFT_TRACE_SPAWN},                                 /* it makes another, */
        {"reader", WEFT_TRACE_READY},   {"reader", WEFT_TRACE_START}, /* which runs when it yields, */
        {"reader", WEFT_TRACE_WAIT_FD},                               /* down to a descriptor, */
        {"reader", WEFT_TRACE_PARK},                                  /* where it waits */
        {"", WEFT_TRACE_RESUME},        {"middle", WEFT_TRACE_SPAWN},
        {"middle", WEFT_TRACE_INLINE},                                /* the awaited one runs in place, */
        {"middle", WEFT_TRACE_AWAIT},                                 /* awaits the reader, */
        {"", WEFT_TRACE_PARK},                                        /* and the stack that both are on is parked */
        {"writer", WEFT_TRACE_START},   {"reader", WEFT_TRACE_EVENT}, /* the descriptor is ready: */
        {"reader", WEFT_TRACE_READY},   {"reader", WEFT_TRACE_RESUME}, /* the reader goes on */
        {"reader", WEFT_TRACE_END},                                    /* and ends, */
        {"", WEFT_TRACE_READY},                                        /* which makes its awaiter ready */
        {"", WEFT_TRACE_RESUME},                                       /* at the point where it stopped; */
        {"middle", WEFT_TRACE_END},                                    /* the chain unwinds */
        {"", WEFT_TRACE_END},
    };
    const weft_task *main_task, *reader, *middle;

    (void)state;
    /* Where the main task has taken 10 ms so far (an emulator, a busy machine), it lets others run before it awaits. */
    for (int tries = 0; tries < 50 && !is_seen("middle", WEFT_TRACE_INLINE); tries++)
        record_program();
    expect_in_order(life, sizeof life / sizeof *life);
    main_task = find("", WEFT_TRACE_START)->task;
    reader = find("reader", WEFT_TRACE_START)->task;
    middle = find("middle", WEFT_TRACE_INLINE)->task;
    assert_ptr_equal(find("reader", WEFT_TRACE_SPAWN)->value, main_task);
    assert_ptr_equal(find("middle", WEFT_TRACE_INLINE)->value, main_task);
    assert_ptr_equal(find("middle", WEFT_TRACE_AWAIT)->value, reader);
    assert_int_equal(find("reader", WEFT_TRACE_WAIT_FD)->value, ends[0]);
    assert_int_equal(find("reader", WEFT_TRACE_EVENT)->value, ends[0]);
    assert_ptr_equal(find("", WEFT_TRACE_PARK)->value, middle);
    assert_int_equal(find("middle", WEFT_TRACE_END)->value, '*');
    assert_int_equal(find("", WEFT_TRACE_END)->value, '*');
}

/* ---- many tasks ---- */

static intptr_t ends_somehow(void *arg)
{
    for (intptr_t i = 0; i < (intptr_t)arg % 4; i++)
        weft_yield();
    return 0;
}

static intptr_t in_steps(void *unused)
{
    (void)unused;
    return weft_async_yield();
}

static intptr_t many(void *unused)
{
    enum { TASKS = 200 };
    weft_task *tasks[TASKS];

    (void)unused;
    for (intptr_t i = 0; i < TASKS; i++) {
        tasks[i] = i % 5 == 4 ? weft_spawn_stackless(in_steps, NULL) : weft_spawn(ends_somehow, (void *)i);
        must(tasks[i] != NULL);
        if (i % 7 == 0)
            must_be(weft_cancel(tasks[i]), 1);
    }
    for (int i = 0; i < TASKS; i++)
        weft_await(tasks[TASKS - 1 - i]);
    for (intptr_t i = 0; i < TASKS; i++)
        must_be(weft_go(ends_somehow, (void *)i), 0);
    return 0;
}

static int count_steps(enum weft_trace_kind kind)
{
    int n = 0;

    for (int i = 0; i < atomic_load(&step_count); i++)
        n += steps[i].kind == kind;
    return n;
}

static void every_task_is_made_and_ends_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUPPORT_WORKER_COUNTS; i++) {
        start_recording();
        must_be(run_on(support_workers[i], many, NULL), 0);
        weft_trace(NULL, NULL);
        assert_int_equal(count_steps(WEFT_TRACE_SPAWN), 401);
        assert_int_equal(count_steps(WEFT_TRACE_END), 401);
        assert_in_range(count_steps(WEFT_TRACE_START) + count_steps(WEFT_TRACE_INLINE), 300, 401);
        assert_int_equal(count_steps(WEFT_TRACE_CANCEL), 29);
    }
}

static void *trace_on_and_off(void *stop)
{
    while (!atomic_load((atomic_bool *)stop)) {
        atomic_store(&step_count, 0);
        weft_trace(record, steps);
        weft_trace(NULL, NULL);
    }
    return NULL;
}

static void tracing_begins_and_ends_at_any_time(void **state)
{
    atomic_bool stop = false;
    pthread_t thread;

    (void)state;
    must_be(pthread_create(&thread, NULL, trace_on_and_off, &stop), 0);
    for (int i = 0; i < FEWER(50); i++)
        must_be(run_on(4, many, NULL), 0);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

static intptr_t does_nothing(void *unused)
{
    (void)unused;
    return 0;
}

static void nothing_is_told_after_the_end_of_tracing(void **state)
{
    (void)state;
    start_recording();
    weft_trace(NULL, NULL);
    must_be(run_on(2, does_nothing, NULL), 0);
    assert_int_equal(atomic_load(&step_count), 0);
    assert_string_equal(weft_trace_kind_name(WEFT_TRACE_WAIT_FD), "wait_fd");
    assert_string_equal(weft_trace_kind_name((enum weft_trace_kind)77), "?");
}

/* ---- to a file ---- */

static intptr_t named_child(void *unused)
{
    (void)unused;
    return weft_await(spawn_named("a child", return_arg, (void *)42));
}

static void run_with_trace(void *path)
{
    setenv("WEFT_TRACE", path, 1);
    setenv("WEFT_WORKERS", "1", 1);
    must_be(weft_run(named_child, NULL), 42);
}

static void the_environment_names_a_file(void **state)
{
    char path[] = "/tmp/weft-trace-XXXXXX", text[1000], lines[4000];
    size_t length;
    FILE *file;

    (void)state;
    close(mkstemp(path));
    assert_int_equal(run_in_child(run_with_trace, path, text, sizeof text), 0);
    assert_string_equal(text, "");
    file = fopen(path, "r");
    assert_non_null(file);
    length = fread(lines, 1, sizeof lines - 1, file);
    lines[length] = '\0';
    fclose(file);
    unlink(path);
    assert_memory_equal(lines, "+0.", 3);
    assert_non_null(strstr(lines, " w0 task 'a child' 0x"));
    assert_non_null(strstr(lines, " inline for 0x"));
    assert_non_null(strstr(lines, " end 42\n"));
}

static void run_with_bad_trace(void *unused)
{
    (void)unused;
    setenv("WEFT_TRACE", "/nonexistent/file", 1);
    must_be(weft_run(named_child, NULL), -ENOENT);
}

static void a_file_that_cannot_be_written_is_an_error(void **state)
{
    char text[1000];

    (void)state;
    assert_int_equal(run_in_child(run_with_bad_trace, NULL, text, sizeof text), 0);
    assert_non_null(strstr(text, "weft: WEFT_TRACE=\"/nonexistent/file\" cannot be written: No such file"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_life_of_a_program_is_seen_in_order),
        cmocka_unit_test(every_task_is_made_and_ends_once),
        cmocka_unit_test(tracing_begins_and_ends_at_any_time),
        cmocka_unit_test(nothing_is_told_after_the_end_of_tracing),
        cmocka_unit_test(the_environment_names_a_file),
        cmocka_unit_test(a_file_that_cannot_be_written_is_an_error),
    };

    return run_all(tests, argc, argv);
}
