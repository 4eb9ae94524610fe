/*
 * Looking at tasks: what each is doing, who awaits whom, the printed tree, and the signal that prints it. And that
 * looking is safe while everything moves.
 */
#include <signal.h>

#include "runtime/annotate.h"
#include "support.h"

static weft_event release_all;
static atomic_int there;

static weft_task *spawn_named(const char *name, weft_fn *fn, void *arg)
{
    weft_spawn_options options = {.name = name};
    weft_task *task = weft_spawn_with(&options, fn, arg);

    must(task != NULL);
    return task;
}

/* ---- what is seen ---- */

enum { SEEN = 64 };

struct list {
    weft_task_info infos[SEEN];
    size_t count;
};

static void add(const weft_task_info *info, void *arg)
{
    struct list *list = arg;

    must(list->count < SEEN);
    list->infos[list->count++] = *info;
}

static struct list look(void)
{
    struct list list = {.count = 0};

    must_be(weft_runtime_tasks(weft_runtime_current(), add, &list), list.count);
    return list;
}

static const weft_task_info *find(const struct list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->infos[i].name, name) == 0)
            return &list->infos[i];
    fprintf(stderr, "no task '%s'\n", name);
    abort();
}

static intptr_t waits(void *unused)
{
    (void)unused;
    return weft_event_wait(&release_all);
}

static intptr_t awaits(void *task)
{
    return weft_await(task);
}

static intptr_t looks(void *unused)
{
    weft_spawn_options later = {.name = "later", .delay = WEFT_SEC(100)};
    weft_task *waiting = spawn_named("waiting", waits, NULL);
    weft_task *middle = spawn_named("middle", awaits, waiting);
    weft_task *top = spawn_named("top", awaits, middle);
    weft_task *sleeper = spawn_named("sleeper", sleep_for_ever, NULL);
    weft_task *delayed = weft_spawn_with(&later, return_arg, NULL);
    weft_task *fresh;
    struct list list;

    (void)unused;
    must(delayed != NULL);
    must_be(weft_yield(), 0);
    must_be(weft_cancel(sleeper), 1);
    fresh = spawn_named("fresh", return_arg, NULL);
    list = look();

    must_be(list.count, 7); /* and this one */
    must(find(&list, "waiting")->task == waiting);
    must_be(find(&list, "waiting")->status, WEFT_TASK_PARKED);
    must(find(&list, "waiting")->awaited_by == middle);
    must_be(find(&list, "middle")->status, WEFT_TASK_AWAITING);
    must(find(&list, "middle")->awaited_by == top);
    must_be(find(&list, "top")->status, WEFT_TASK_AWAITING);
    must(find(&list, "top")->awaited_by == NULL);
    must_be(find(&list, "sleeper")->cancelled, 1);
    must_be(find(&list, "waiting")->cancelled, 0);
    must_be(find(&list, "later")->status, WEFT_TASK_NEW);
    must(find(&list, "later")->fn == return_arg);
    must_be(find(&list, "fresh")->status, WEFT_TASK_NEW);
    must(find(&list, "fresh")->fn == return_arg);
    must(find(&list, "")->task == weft_self());
    must_be(find(&list, "")->status, WEFT_TASK_READY);

    weft_event_set(&release_all);
    must_be(weft_await(fresh), 0);
    must_be(weft_await(top), 0);
    must_be(weft_cancel(delayed), 1);
    must_be(weft_await(delayed), -ECANCELED);
    must_be(weft_await(sleeper), -ECANCELED);
    list = look();
    must_be(list.count, 1);
    return 0;
}

static void tasks_are_seen_with_what_they_do_and_who_awaits_them(void **state)
{
    (void)state;
    for (int i = 0; i < FEWER(200); i++) {
        release_all = (weft_event)WEFT_EVENT_INIT;
        must_be(run_alone(looks, NULL), 0);
    }
}

/* ---- in place ---- */

static intptr_t looks_from_in_place(void *unused)
{
    struct list list = look();

    (void)unused;
    must_be(list.count, 3);
    must_be(find(&list, "inner")->status, WEFT_TASK_READY);
    must(find(&list, "inner")->task == weft_self());
    must(find(&list, "inner")->awaited_by == find(&list, "outer")->task);
    must(find(&list, "outer")->awaited_by == find(&list, "")->task);
    must_be(find(&list, "outer")->status, WEFT_TASK_AWAITING);
    must_be(find(&list, "")->status, WEFT_TASK_AWAITING);
    return 0;
}

static intptr_t awaits_in_place(void *unused)
{
    (void)unused;
    return weft_await(spawn_named("inner", looks_from_in_place, NULL));
}

static intptr_t runs_in_place(void *unused)
{
    (void)unused;
    return weft_await(spawn_named("outer", awaits_in_place, NULL));
}

static void tasks_that_run_in_place_are_under_their_awaiters(void **state)
{
    (void)state;
    must_be(run_alone(runs_in_place, NULL), 0);
}

/* ---- the tree ---- */

static char *print_to_text(char *text, size_t size)
{
    int ends[2];
    ssize_t n;

    must_be(pipe(ends), 0);
    must_be(weft_runtime_print_tasks(weft_runtime_current(), ends[1]), 0);
    close(ends[1]);
    n = read(ends[0], text, size - 1);
    must(n > 0);
    text[n] = '\0';
    close(ends[0]);
    return text;
}

static void expect_part(const char *text, const char *part)
{
    if (strstr(text, part))
        return;
    fprintf(stderr, "no \"%s\" in:\n%s", part, text);
    abort();
}

static intptr_t one_of_a_group(void *unused)
{
    (void)unused;
    return weft_event_wait(&release_all);
}

static intptr_t begins_a_group(void *unused)
{
    weft_spawn_options options = {.name = "child"};
    weft_group group;

    (void)unused;
    must_be(weft_group_begin(&group), 0);
    must_be(weft_group_spawn_with(&group, &options, one_of_a_group, NULL), 0);
    must_be(weft_group_spawn_with(&group, &options, one_of_a_group, NULL), 0);
    return weft_group_wait(&group);
}

static intptr_t prints(void *unused)
{
    weft_task *waiting = spawn_named("waiting", waits, NULL);
    weft_task *top = spawn_named("top", awaits, waiting);
    weft_task *grouped = spawn_named("grouped", begins_a_group, NULL);
    char text[4000];

    (void)unused;
    must_be(weft_yield(), 0);
    must_be(weft_yield(), 0);
    print_to_text(text, sizeof text);
    expect_part(text, "weft: runtime 0x");
    expect_part(text, ", 6 tasks\n");
    expect_part(text, "\n'top' 0x");
    expect_part(text, " awaiting\n  'waiting' 0x");
    expect_part(text, "\n'grouped' 0x");
    expect_part(text, "\n  'child' 0x");
    must_be(weft_runtime_print_tasks(weft_runtime_current(), -1), -EBADF);
    weft_event_set(&release_all);
    must_be(weft_await(top), 0);
    must_be(weft_await(grouped), 0);
    return 0;
}

static void the_tree_shows_awaiters_above_what_they_await(void **state)
{
    (void)state;
    release_all = (weft_event)WEFT_EVENT_INIT;
    must_be(run_alone(prints, NULL), 0);
}

static weft_task *partner[2];

static intptr_t awaits_its_partner(void *other)
{
    must_be(weft_yield(), 0);
    return weft_await(partner[(intptr_t)other]);
}

static intptr_t makes_a_cycle(void *unused)
{
    char text[4000];

    (void)unused;
    partner[0] = spawn_named("egg", awaits_its_partner, (void *)1);
    partner[1] = spawn_named("hen", awaits_its_partner, (void *)0);
    for (int i = 0; i < 4; i++)
        must_be(weft_yield(), 0);
    print_to_text(text, sizeof text);
    expect_part(text, "a cycle, each awaited by the next: '");
    expect_part(text, "'egg' 0x");
    expect_part(text, "\n  '");
    must_be(weft_cancel(partner[0]), 1);
    return weft_sleep(WEFT_MS(5));
}

static void print_cycle(void *unused)
{
    weft_config config = {.workers = 1};
    weft_runtime *runtime;

    (void)unused;
    must_be(weft_runtime_start(&config, &runtime), 0);
    must_be(weft_runtime_run(runtime, makes_a_cycle, NULL), 0);
    /* They cannot be waited for: each awaits the other's end. */
}

static void a_cycle_is_named(void **state)
{
    char text[4000];

    (void)state;
    assert_int_equal(run_in_child(print_cycle, NULL, text, sizeof text), 0);
    assert_string_equal(text, "");
}

/* ---- by a signal ---- */

static int dumped[2];

static intptr_t asks_by_signal(void *unused)
{
    weft_task *waiting = spawn_named("waiting", waits, NULL);
    char text[4000];
    size_t length = 0;

    (void)unused;
    must_be(weft_yield(), 0);
    must_be(kill(getpid(), SIGUSR2), 0);
    do {
        ssize_t n = weft_read(dumped[0], text + length, sizeof text - 1 - length);

        must(n > 0);
        length += (size_t)n;
        text[length] = '\0';
    } while (!strstr(text, "\n'waiting' 0x"));
    expect_part(text, "weft: runtime 0x");
    expect_part(text, ", 2 tasks\n");
    weft_event_set(&release_all);
    return weft_await(waiting);
}

static void run_asking(void *unused)
{
    (void)unused;
    must_be(pipe(dumped), 0);
    dup2(dumped[1], STDERR_FILENO);
    setenv("WEFT_DUMP_SIGNAL", "USR2", 1);
    must_be(weft_run(asks_by_signal, NULL), 0);
}

static void a_signal_prints_the_tree(void **state)
{
    char text[100];

    (void)state;
#ifdef WEFT__TSAN
    skip(); /* it holds a signal back while the thread is in a system call that it does not know */
#endif
    release_all = (weft_event)WEFT_EVENT_INIT;
    assert_int_equal(run_in_child(run_asking, NULL, text, sizeof text), 0);
}

/* ---- while everything moves ---- */

static intptr_t short_life(void *arg)
{
    weft_task *task = (intptr_t)arg % 3 ? spawn_named("short", return_arg, NULL) : weft_spawn(return_arg, NULL);

    if ((intptr_t)arg % 5 == 0)
        weft_yield();
    return weft_await(task);
}

static intptr_t in_steps(void *unused)
{
    (void)unused;
    return weft_async_yield();
}

static intptr_t busy(void *unused)
{
    (void)unused;
    for (intptr_t i = 0; i < FEWER(20000); i++) {
        weft_task *task = spawn_named("a long name for a short life..", short_life, (void *)i);

        if (i % 2)
            must_be(weft_yield(), 0);
        must_be(weft_go_stackless(in_steps, NULL), 0);
        must_be(weft_await(task), 0);
    }
    atomic_fetch_sub(&there, 1);
    return 0;
}

static void count_bytes(const weft_task_info *info, void *arg)
{
    size_t *total = arg;

    must(info->task != NULL);
    must(info->task != info->awaited_by);
    must(strlen(info->name) < sizeof info->name);
    *total += strlen(info->name);
}

static void *look_all_the_time(void *runtime)
{
    int null = open("/dev/null", O_WRONLY);
    size_t total = 0;

    while (atomic_load(&there) > 0) {
        weft_runtime_tasks(runtime, count_bytes, &total);
        must_be(weft_runtime_print_tasks(runtime, null), 0);
    }
    close(null);
    return NULL;
}

static void looking_is_safe_while_everything_moves(void **state)
{
    weft_config config = {.workers = 4};
    weft_runtime *runtime;
    pthread_t thread;

    (void)state;
    atomic_store(&there, 4);
    must_be(weft_runtime_start(&config, &runtime), 0);
    for (int i = 0; i < 4; i++)
        must_be(weft_runtime_go(runtime, busy, NULL), 0);
    must_be(pthread_create(&thread, NULL, look_all_the_time, runtime), 0);
    pthread_join(thread, NULL);
    settle(runtime);
    must_be(weft_runtime_tasks(runtime, NULL, NULL), 0);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        /* First: the variable is looked at once in a process. */
        cmocka_unit_test(a_signal_prints_the_tree),
        cmocka_unit_test(tasks_are_seen_with_what_they_do_and_who_awaits_them),
        cmocka_unit_test(tasks_that_run_in_place_are_under_their_awaiters),
        cmocka_unit_test(the_tree_shows_awaiters_above_what_they_await),
        cmocka_unit_test(a_cycle_is_named),
        cmocka_unit_test(looking_is_safe_while_everything_moves),
    };

    return run_all(tests, argc, argv);
}
