/* weft_process: starting, talking, waiting, signals, closing; what is left behind; what the program's own waits see. */
#include "tests/support.h"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include "io/process.h"

static bool emulated(void)
{
    return getenv("WEFT_TEST_EMULATED") != NULL;
}

/* Afterwards no child is left, dead or alive. */
static intptr_t run_clean(uint32_t workers, weft_fn *fn)
{
    intptr_t result = run_on(workers, fn, NULL);

    must(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    return result;
}

static weft_process *shell_with(const weft_process_options *options, const char *command)
{
    weft_process *process;

    must_be(weft_process_shell(options, command, &process), 0);
    return process;
}

static weft_process *shell(const char *command)
{
    return shell_with(NULL, command);
}

static int status_of(weft_process *process)
{
    int status = 12345;

    must_be(weft_process_wait(process, &status), 0);
    return status;
}

static int run_shell(const char *command)
{
    weft_process *process = shell(command);
    int status = status_of(process);

    must_be(weft_process_close(process), 0);
    return status;
}

/* What the command writes, as a string in `result`. */
static const char *output_with(weft_process_options *options, const char *command, weft_process_result *result)
{
    weft_process *process;

    memset(result, 0, sizeof *result);
    options->out.kind = WEFT_STDIO_PIPE;
    process = shell_with(options, command);
    must_be(weft_process_communicate(process, NULL, 0, 0, result), 0);
    must_be(weft_process_close(process), 0);
    return result->out ? result->out : "";
}

static bool prints(weft_process_options *options, const char *command, const char *expected)
{
    weft_process_result result;
    bool same = strcmp(output_with(options, command, &result), expected) == 0;

    if (!same)
        fprintf(stderr, "got: %s\n", result.out ? result.out : "nothing");
    weft_process_result_free(&result);
    return same;
}

/* ---- status ---- */

static intptr_t statuses(void *arg)
{
    char command[64];

    (void)arg;
    must_be(run_shell("exit 0"), 0);
    must_be(run_shell("exit 3"), 3);
    must_be(run_shell("exit 255"), 255);
    for (unsigned i = 0; i < 3; i++) {
        static const int numbers[] = {SIGKILL, SIGTERM, SIGUSR1};

        snprintf(command, sizeof command, "kill -%d $$; sleep 100", numbers[i]);
        must_be(run_shell(command), -numbers[i]);
    }
    return 0;
}

static void the_status_is_what_the_child_exits_with_or_minus_the_signal(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_clean(support_workers[i], statuses), 0);
}

static intptr_t read_by_hand(void *arg)
{
    weft_process_options options = {.in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}};
    const char *const argv[] = {"cat", NULL};
    weft_process *process;
    char buffer[32];
    int status;

    (void)arg;
    must_be(weft_process_spawn(&options, argv, &process), 0);
    must_be(weft_process_stderr(process), -EBADF);
    for (int i = 0; i < 3; i++) {
        must_be(weft_write_all(weft_process_stdin(process), "hello", 5), 5);
        must_be(weft_read(weft_process_stdout(process), buffer, sizeof buffer), 5);
        must(memcmp(buffer, "hello", 5) == 0);
    }
    must_be(weft_process_poll(process, &status), 0);
    must_be(weft_process_close_stdin(process), 0);
    must_be(weft_process_close_stdin(process), -EBADF);
    must_be(weft_process_stdin(process), -EBADF);
    must_be(weft_read(weft_process_stdout(process), buffer, sizeof buffer), 0);
    must_be(status_of(process), 0);
    must_be(weft_process_poll(process, &status), 1);
    must_be(status, 0);
    return weft_process_close(process);
}

static void a_task_talks_to_the_child_through_its_pipes(void **state)
{
    (void)state;
    assert_int_equal(run_clean(2, read_by_hand), 0);
}

static intptr_t take_an_end(void *arg)
{
    weft_process_options options = {.out = {.kind = WEFT_STDIO_PIPE}};
    weft_process *process = shell_with(&options, "echo hi");
    int fd = weft_process_take(process, 1);
    char buffer[8];

    (void)arg;
    must(fd >= 0);
    must_be(weft_process_take(process, 1), -EBADF);
    must_be(weft_process_take(process, 3), -EBADF);
    must_be(weft_process_close(process), 0);
    /* It may have been killed before it wrote. */
    must(weft_read(fd, buffer, sizeof buffer) >= 0);
    return weft_close(fd);
}

static void an_end_that_was_taken_outlives_the_handle(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, take_an_end), 0);
}

/* ---- what cannot be started ---- */

static intptr_t cannot_start(void *arg)
{
    const char *const none[] = {"/nowhere/at/all", NULL}, *const unknown[] = {"weft-no-such-program", NULL};
    const char *const file[] = {"/etc/passwd", NULL}, *const directory[] = {"/", NULL},
                      *const sh[] = {"true", NULL};
    const char *const empty[] = {"", NULL}, *const nothing[] = {NULL};
    weft_process_options options = {
        .in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}, .err = {.kind = WEFT_STDIO_PIPE}};
    int low = 1;
    unsigned before = count_descriptors();
    weft_process *process;

    (void)arg;
    must_be(weft_process_spawn(&options, empty, &process), -ENOENT);
    must_be(weft_process_spawn(&options, nothing, &process), -EINVAL);
    must_be(weft_process_spawn(&options, NULL, &process), -EINVAL);
    must_be(weft_process_spawn(&options, sh, NULL), -EINVAL);
    must_be(weft_process_shell(&options, NULL, &process), -EINVAL);
    if (!emulated()) {
        must_be(weft_process_spawn(&options, none, &process), -ENOENT);
        must(process == NULL);
        must_be(weft_process_spawn(&options, unknown, &process), -ENOENT);
        must_be(weft_process_spawn(&options, file, &process), -EACCES);
        must_be(weft_process_spawn(&options, directory, &process), -EACCES);
        options.directory = "/nowhere";
        must_be(weft_process_spawn(&options, sh, &process), -ENOENT);
        options.directory = NULL;
        options.flags = WEFT_PROCESS_GROUP;
        options.group = 999999999;
        must(weft_process_spawn(&options, sh, &process) < 0);
        options.flags = 0;
        options.group = 0;
    }
    options.in = (weft_stdio){.kind = WEFT_STDIO_FILE, .path = "/nowhere"};
    must_be(weft_process_spawn(&options, sh, &process), -ENOENT);
    options.in = (weft_stdio){.kind = WEFT_STDIO_STDOUT};
    must_be(weft_process_spawn(&options, sh, &process), -EINVAL);
    options.in = (weft_stdio){.kind = 99};
    must_be(weft_process_spawn(&options, sh, &process), -EINVAL);
    options.in = (weft_stdio){.kind = WEFT_STDIO_FD, .fd = 12345};
    must_be(weft_process_spawn(&options, sh, &process), -EBADF);
    options.in = (weft_stdio){.kind = WEFT_STDIO_NULL};
    options.pass = &low;
    options.pass_count = 1;
    must_be(weft_process_spawn(&options, sh, &process), -EINVAL);
    must_be(count_descriptors(), before);
    return 0;
}

static void what_cannot_be_started_is_told_and_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(run_clean(2, cannot_start), 0);
}

static _Atomic unsigned child_signals;

static void count_child_signal(int number)
{
    (void)number;
    atomic_fetch_add(&child_signals, 1);
}

static intptr_t fail_unseen(void *arg)
{
    const char *const none[] = {"/nowhere/at/all", NULL};
    weft_process *process;

    (void)arg;
    must_be(weft_process_spawn(NULL, none, &process), -ENOENT);
    return 0;
}

static void a_child_that_does_not_start_is_seen_by_nobody(void **state)
{
    struct sigaction action = {.sa_handler = count_child_signal}, before;

    (void)state;
    if (emulated())
        skip();
    sigaction(SIGCHLD, &action, &before);
    atomic_store(&child_signals, 0);
    assert_int_equal(run_clean(1, fail_unseen), 0);
    assert_int_equal(atomic_load(&child_signals), 0);
    sigaction(SIGCHLD, &before, NULL);
}

static intptr_t few_descriptors(void *arg)
{
    weft_process_options options = {
        .in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}, .err = {.kind = WEFT_STDIO_PIPE}};
    const char *const argv[] = {"true", NULL};
    unsigned before = count_descriptors(), refused = 0;
    struct rlimit limit, low;
    weft_process *process;

    (void)arg;
    must_be(weft_process_spawn(&options, argv, &process), 0); /* the pool has its thread */
    must_be(weft_process_close(process), 0);
    must_be(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    for (unsigned more = 0; more < 12; more++) {
        int rc;

        low.rlim_cur = before - 3 + more; /* opendir's own, "." and ".." are counted too */
        must_be(setrlimit(RLIMIT_NOFILE, &low), 0);
        rc = weft_process_spawn(&options, argv, &process);
        must_be(setrlimit(RLIMIT_NOFILE, &limit), 0);
        must(rc == 0 || rc == -EMFILE);
        refused += rc < 0;
        if (rc == 0)
            must_be(weft_process_close(process), 0);
        must_be(count_descriptors(), before);
    }
    must(refused > 0 && refused < 12);
    return 0;
}

static void at_the_limit_of_descriptors_nothing_leaks(void **state)
{
    (void)state;
    if (emulated())
        skip();
    assert_int_equal(run_clean(1, few_descriptors), 0);
}

/* ---- where its descriptors lead ---- */

static intptr_t files_and_merging(void *arg)
{
    char path[] = "/tmp/weft_test_process_XXXXXX", text[64] = "";
    int fd = mkstemp(path);
    weft_process_options options = {.out = {.kind = WEFT_STDIO_FILE, .path = path}};
    weft_process_options reader = {.in = {.kind = WEFT_STDIO_FILE, .path = path}};
    weft_process_options merged = {.err = {.kind = WEFT_STDIO_STDOUT}};
    weft_process_options with_null = {.in = {.kind = WEFT_STDIO_NULL}};
    weft_process *process;

    (void)arg;
    must(fd >= 0);
    process = shell_with(&options, "echo first");
    must_be(status_of(process), 0);
    weft_process_close(process);
    options.out.kind = WEFT_STDIO_APPEND;
    options.err.kind = WEFT_STDIO_STDOUT;
    process = shell_with(&options, "echo second; echo third >&2");
    must_be(status_of(process), 0);
    weft_process_close(process);
    must_be(pread(fd, text, sizeof text, 0), 19);
    must(strcmp(text, "first\nsecond\nthird\n") == 0);
    must(prints(&reader, "cat", "first\nsecond\nthird\n"));
    must(prints(&merged, "echo a; echo b >&2; echo c", "a\nb\nc\n"));
    must(prints(&with_null, "cat; echo end", "end\n"));
    /* The caller's own descriptor, which stays open. */
    options = (weft_process_options){.out = {.kind = WEFT_STDIO_FD, .fd = fd}};
    must_be(lseek(fd, 0, SEEK_END), 19);
    process = shell_with(&options, "echo x");
    must_be(status_of(process), 0);
    weft_process_close(process);
    must_be(lseek(fd, 0, SEEK_CUR), 21);
    close(fd);
    return unlink(path);
}

static void standard_descriptors_lead_where_they_should(void **state)
{
    (void)state;
    assert_int_equal(run_clean(2, files_and_merging), 0);
}

/* The descriptors 0 to 2 of the parent swapped: each goes where it is sent, none over another. */
static intptr_t crossed(void *arg)
{
    weft_process_options options = {.out = {.kind = WEFT_STDIO_FD, .fd = 2},
                                    .err = {.kind = WEFT_STDIO_FD, .fd = 1}};
    int out[2], err[2], saved_out = dup(1), saved_err = dup(2);
    weft_process *process;
    char buffer[16] = "";

    (void)arg;
    fflush(NULL);
    must_be(pipe2(out, O_CLOEXEC), 0);
    must_be(pipe2(err, O_CLOEXEC), 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    process = shell_with(&options, "echo to-out; echo to-err >&2");
    status_of(process);
    weft_process_close(process);
    dup2(saved_out, 1);
    dup2(saved_err, 2);
    must_be(read(err[0], buffer, sizeof buffer), 7);
    must(memcmp(buffer, "to-out", 6) == 0);
    must_be(read(out[0], buffer, sizeof buffer), 7);
    must(memcmp(buffer, "to-err", 6) == 0);
    for (int i = 0; i < 2; i++) {
        close(out[i]);
        close(err[i]);
    }
    close(saved_out);
    close(saved_err);
    return 0;
}

static void descriptors_that_change_places_do_not_get_lost(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, crossed), 0);
}

static intptr_t surroundings(void *arg)
{
    static const char *const environment[] = {"PATH=/usr/bin:/bin", "ONLY=this", NULL};
    weft_process_options options = {.environment = environment, .directory = "/usr"};
    weft_process_result result;
    char expected[64];

    (void)arg;
    must(prints(&options, "pwd; echo $ONLY; echo ${HOME-none}", "/usr\nthis\nnone\n"));
    options = (weft_process_options){.flags = WEFT_PROCESS_GROUP};
    must(prints(&options, "read a b c d pgrp f < /proc/$$/stat; test $pgrp = $$ && echo leads", "leads\n"));
    options.flags = WEFT_PROCESS_SESSION;
    must(prints(&options, "read a b c d pgrp session f < /proc/$$/stat; test $session = $$ && echo leads",
                "leads\n"));
    options.flags = WEFT_PROCESS_GROUP;
    options.group = getpgrp();
    snprintf(expected, sizeof expected, "%d\n", (int)getpgrp());
    must(prints(&options, "read a b c d pgrp f < /proc/$$/stat; echo $pgrp", expected));
    options = (weft_process_options){.program = "/bin/sh"};
    must(prints(&options, "echo $0", "sh\n"));
    options = (weft_process_options){.flags = 0};
    output_with(&options, "grep -E 'SigBlk|SigIgn|SigCgt' /proc/self/status", &result);
    must(strstr(result.out, "SigBlk:\t0000000000000000"));
    must(!(strtoull(strstr(result.out, "SigIgn:") + 7, NULL, 16) & 1ull << (SIGPIPE - 1)));
    must(strtoull(strstr(result.out, "SigIgn:") + 7, NULL, 16) & 1ull << (SIGHUP - 1));
    weft_process_result_free(&result);
    return 0;
}

static void directory_environment_group_and_signals_are_as_asked(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    assert_int_equal(run_clean(2, surroundings), 0);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
}

static intptr_t what_it_gets(void *arg)
{
    const char *list = "cd /proc/self/fd; for n in ? ?? ???; do test -e $n && printf '%s ' $n; done";
    int open_end[2], rc;
    weft_process_options options = {.in = {.kind = WEFT_STDIO_NULL}};
    weft_process_result result;
    char expected[64];

    (void)arg;
    rc = pipe2(open_end, 0); /* not close-on-exec */
    must_be(rc, 0);
    must(prints(&options, list, "0 1 2 "));
    options.pass = &open_end[1];
    options.pass_count = 1;
    snprintf(expected, sizeof expected, "0 1 2 %d ", open_end[1]);
    must(prints(&options, list, expected));
    options = (weft_process_options){.in = {.kind = WEFT_STDIO_NULL}, .flags = WEFT_PROCESS_KEEP_ALL};
    output_with(&options, list, &result);
    for (int i = 0; i < 2; i++) {
        snprintf(expected, sizeof expected, " %d ", open_end[i]);
        must(strstr(result.out, expected) != NULL);
    }
    weft_process_result_free(&result);
    close(open_end[0]);
    close(open_end[1]);
    return 0;
}

static void a_child_gets_the_descriptors_that_it_should_and_no_others(void **state)
{
    (void)state;
    if (emulated())
        skip();
    assert_int_equal(run_clean(2, what_it_gets), 0);
}

/* An end that weft has read from is non-blocking; the child's is not. */
static intptr_t pass_a_used_end(void *arg)
{
    weft_process_options options = {.out = {.kind = WEFT_STDIO_PIPE}};
    const char *const argv[] = {"cat", NULL};
    weft_process *process;
    char buffer[8];
    int ends[2];

    (void)arg;
    must_be(weft_pipe(ends), 0);
    must(!(fcntl(ends[0], F_GETFL) & O_NONBLOCK));
    must(fcntl(ends[0], F_GETFD) & FD_CLOEXEC);
    must_be(weft_write(ends[1], "a", 1), 1);
    must_be(weft_read(ends[0], buffer, 1), 1);
    must(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    options.in = (weft_stdio){.kind = WEFT_STDIO_FD, .fd = ends[0]};
    must_be(weft_process_spawn(&options, argv, &process), 0);
    must_be(weft_close(ends[0]), 0);
    must_be(weft_sleep(WEFT_MS(20)), 0); /* a cat that does not block would have ended by now */
    must_be(weft_write(ends[1], "b", 1), 1);
    must_be(weft_read(weft_process_stdout(process), buffer, sizeof buffer), 1);
    must_be(weft_close(ends[1]), 0);
    must_be(status_of(process), 0);
    return weft_process_close(process);
}

static void the_end_of_a_pipe_that_a_child_gets_blocks(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, pass_a_used_end), 0);
}

/* ---- waiting ---- */

enum { WAITERS = 50 };

static intptr_t wait_for(void *process)
{
    return status_of(process);
}

static intptr_t many_wait(void *arg)
{
    weft_task *tasks[WAITERS], *given_up;
    weft_process_options options = {.in = {.kind = WEFT_STDIO_PIPE}};
    weft_process *process = shell_with(&options, "read line; exit 7");

    (void)arg;
    for (int i = 0; i < WAITERS; i++)
        must((tasks[i] = weft_spawn(wait_for, process)) != NULL);
    given_up = tasks[WAITERS / 2];
    must_be(weft_sleep(WEFT_MS(5)), 0);
    tasks[WAITERS / 2] = weft_spawn(wait_for, process);
    weft_detach(weft_spawn(return_arg, NULL));
    (void)given_up;
    must_be(weft_process_close_stdin(process), 0);
    for (int i = 0; i < WAITERS; i++)
        must_be(weft_await(tasks[i]), 7);
    must_be(weft_await(given_up), 7);
    must_be(status_of(process), 7);
    return weft_process_close(process);
}

static void any_number_of_tasks_wait_for_one_child(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_clean(support_workers[i], many_wait), 0);
}

static intptr_t wait_in_vain(void *process)
{
    return weft_process_wait(process, NULL);
}

static intptr_t give_up(void *arg)
{
    weft_process *process = shell("exec sleep 100");
    weft_timeout timeout;
    weft_task *task;
    int status;

    (void)arg;
    must_be(weft_timeout_begin(&timeout, WEFT_MS(2)), 0);
    must_be(weft_process_wait(process, &status), -ETIMEDOUT);
    must_be(weft_timeout_end(&timeout), 1);
    task = weft_spawn(wait_in_vain, process);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    weft_cancel(task);
    must_be(weft_await(task), -ECANCELED);
    must_be(weft_process_poll(process, &status), 0);
    must_be(weft_process_terminate(process), 0);
    must_be(status_of(process), -SIGTERM);
    must_be(weft_process_terminate(process), 0);
    must_be(weft_process_kill(process), 0);
    must_be(weft_process_signal(process, 0), 0);
    return weft_process_close(process);
}

static void who_gives_up_waiting_leaves_the_child_alone(void **state)
{
    (void)state;
    assert_int_equal(run_clean(2, give_up), 0);
}

static intptr_t close_while_waited_for(void *arg)
{
    weft_process *process = shell("exec sleep 100");
    weft_task *tasks[8];

    (void)arg;
    for (int i = 0; i < 8; i++)
        must((tasks[i] = weft_spawn(wait_for, process)) != NULL);
    wait_until_true(atomic_load(&process->references) == 1 + 8); /* all are in it */
    must_be(weft_process_close(process), 0);
    for (int i = 0; i < 8; i++)
        must_be(weft_await(tasks[i]), -SIGKILL);
    return 0;
}

static void those_who_wait_when_it_is_closed_learn_how_it_ended(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_clean(support_workers[i], close_while_waited_for), 0);
}

static intptr_t close_running(void *arg)
{
    weft_process *process = shell("trap '' TERM INT; while :; do sleep 0.1; done");
    pid_t pid = weft_process_pid(process);

    (void)arg;
    must_be(weft_process_terminate(process), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_process_close(process), 0); /* although cancelled */
    must_be(weft_uncancel(), 1);
    must(kill(pid, 0) < 0 && errno == ESRCH);
    return weft_process_close(NULL);
}

static void closing_kills_and_reaps(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, close_running), 0);
}

static intptr_t whole_group(void *arg)
{
    weft_process_options options = {.out = {.kind = WEFT_STDIO_PIPE}, .flags = WEFT_PROCESS_GROUP};
    weft_process *process = shell_with(&options, "sleep 100 & sleep 100 & echo; wait"),
                 *alone = shell("exec sleep 100");
    char byte;

    (void)arg;
    must_be(weft_read(weft_process_stdout(process), &byte, 1), 1);
    must_be(weft_process_signal_group(process, SIGKILL), 0);
    /* All that have the pipe are dead. */
    must_be(weft_read(weft_process_stdout(process), &byte, 1), 0);
    must_be(status_of(process), -SIGKILL);
    must_be(weft_process_signal_group(process, SIGKILL), 0);
    must_be(weft_process_signal_group(alone, SIGTERM), -EINVAL);
    must_be(weft_process_signal(alone, 1000), -EINVAL);
    weft_process_close(alone);
    return weft_process_close(process);
}

static void a_signal_reaches_the_whole_group(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, whole_group), 0);
}

/* ---- communicate ---- */

enum { MEGABYTE = 1 << 20 };

static char *pattern(size_t size)
{
    char *data = malloc(size);

    must(data != NULL);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 31 + i / 4096);
    return data;
}

static weft_process *cat(void)
{
    weft_process_options options = {.in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}};
    const char *const argv[] = {"cat", NULL};
    weft_process *process;

    must_be(weft_process_spawn(&options, argv, &process), 0);
    return process;
}

static intptr_t both_ways(void *arg)
{
    char *data = pattern(MEGABYTE);
    const char *const argv[] = {"sh", "-c", "tee /dev/stderr", NULL};
    weft_process_result result = {0};

    (void)arg;
    /* More than any pipe holds, in three directions: whoever waits for one of them only hangs. */
    must_be(weft_process_run(NULL, argv, data, MEGABYTE, 0, &result), 0);
    must_be(result.out_size, MEGABYTE);
    must_be(result.err_size, MEGABYTE);
    must_be(result.fed, MEGABYTE);
    must_be(result.status, 0);
    must(memcmp(result.out, data, MEGABYTE) == 0 && memcmp(result.err, data, MEGABYTE) == 0);
    must_be(result.out[MEGABYTE], 0);
    weft_process_result_free(&result);
    must(result.out == NULL);
    free(data);
    return 0;
}

static void communicate_feeds_and_reads_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_clean(support_workers[i], both_ways), 0);
}

struct feeding {
    weft_process *process;
    char *data;
};

/* It says something all the same. */
static intptr_t feeds_one_that_does_not_read(void *arg)
{
    struct feeding *feeding = arg;
    weft_process_result result = {0};
    int rc = weft_process_communicate(feeding->process, feeding->data, MEGABYTE, 0, &result);

    must_be(rc, 0);
    must_be(result.out_size, 5);
    must(memcmp(result.out, "done\n", 5) == 0);
    must(result.fed < MEGABYTE);
    weft_process_result_free(&result);
    return rc;
}

static intptr_t another_closes_the_input(void *arg)
{
    weft_process_options options = {.in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}};
    const char *const argv[] = {"sh", "-c", "sleep 0.3; echo done", NULL};
    struct feeding feeding = {.data = pattern(MEGABYTE)};
    weft_task *task;

    must_be(weft_process_spawn(&options, argv, &feeding.process), 0);
    must((task = weft_spawn(feeds_one_that_does_not_read, &feeding)) != NULL);
    must_be(weft_sleep(WEFT_MS(50)), 0); /* the pipe is full by then, and it waits */
    must_be(weft_process_close_stdin(feeding.process), 0);
    must_be(weft_await(task), 0);
    must_be(weft_process_close(feeding.process), 0);
    free(feeding.data);
    return (intptr_t)arg;
}

static void communicate_goes_on_when_another_closes_the_input(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_clean(support_workers[i], another_closes_the_input), 0);
}

static intptr_t closed_early(void *arg)
{
    char *data = pattern(MEGABYTE);
    const char *const does_not_read[] = {"sh", "-c", "exec <&-; echo done; exit 4", NULL};
    weft_process_result result = {0};

    (void)arg;
    must_be(weft_process_run(NULL, does_not_read, data, MEGABYTE, 0, &result), 0);
    must_be(result.status, 4);
    must(result.fed < MEGABYTE);
    must(strcmp(result.out, "done\n") == 0);
    weft_process_result_free(&result);
    free(data);
    return 0;
}

static void a_child_that_does_not_read_its_input_is_no_error(void **state)
{
    (void)state;
    assert_int_equal(run_clean(2, closed_early), 0);
}

static intptr_t limited(void *arg)
{
    const char *const endless[] = {"yes", NULL}, *const exact[] = {"printf", "12345", NULL};
    weft_process_result result = {0};

    (void)arg;
    must_be(weft_process_run(NULL, endless, NULL, 0, 1000, &result), -EMSGSIZE);
    must_be(result.out_size, 1000);
    weft_process_result_free(&result);
    must_be(weft_process_run(NULL, exact, NULL, 0, 5, &result), 0);
    must(strcmp(result.out, "12345") == 0);
    weft_process_result_free(&result);
    must_be(weft_process_run(NULL, exact, NULL, 0, 4, &result), -EMSGSIZE);
    must(strcmp(result.out, "1234") == 0);
    weft_process_result_free(&result);
    return 0;
}

static void a_limit_holds(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, limited), 0);
}

static intptr_t interrupted(void *arg)
{
    weft_process_options options = {.in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}};
    weft_process *process = shell_with(&options, "echo one; read line; cat; echo two");
    char *data = pattern(MEGABYTE);
    weft_process_result result = {0};
    weft_timeout timeout;
    int status;

    (void)arg;
    data[0] = '\n';
    must_be(weft_process_signal(process, SIGSTOP), 0);
    must_be(weft_timeout_begin(&timeout, WEFT_MS(10)), 0);
    must_be(weft_process_communicate(process, data, MEGABYTE, 0, &result), -ETIMEDOUT);
    must_be(weft_timeout_end(&timeout), 1);
    must(result.fed < MEGABYTE);
    must_be(weft_process_poll(process, &status), 0);
    must_be(weft_process_signal(process, SIGCONT), 0);
    must_be(weft_process_communicate(process, data, MEGABYTE, 0, &result), 0);
    must_be(result.fed, MEGABYTE);
    must_be(result.out_size, MEGABYTE - 1 + 8);
    must(memcmp(result.out, "one\n", 4) == 0);
    must(memcmp(result.out + 4, data + 1, MEGABYTE - 1) == 0);
    must(strcmp(result.out + 4 + MEGABYTE - 1, "two\n") == 0);
    weft_process_result_free(&result);
    free(data);
    return weft_process_close(process);
}

static void communicate_goes_on_where_a_deadline_ended_it(void **state)
{
    (void)state;
    assert_int_equal(run_clean(2, interrupted), 0);
}

/* ---- at any moment ---- */

enum { MOMENTS = 150 };

static intptr_t kill_later(void *process)
{
    static _Atomic uint64_t seed = 88172645463325252u;
    uint64_t mine = atomic_fetch_add(&seed, 7919) | 1;

    (void)weft_sleep((int64_t)(draw(&mine) % (uint64_t)WEFT_MS(2)));
    return weft_process_kill(process);
}

static intptr_t dies_somewhere(void *arg)
{
    char *data = pattern(MEGABYTE);

    (void)arg;
    for (int i = 0; i < FEWER(MOMENTS); i++) {
        weft_process *process = cat();
        weft_task *killer = weft_spawn(kill_later, process);
        weft_process_result result = {0};

        must_be(weft_process_communicate(process, data, MEGABYTE, 0, &result), 0);
        must(result.status == -SIGKILL || (result.status == 0 && result.out_size == MEGABYTE));
        must(result.out_size == 0 || memcmp(result.out, data, result.out_size) == 0);
        must_be(weft_await(killer), 0);
        weft_process_result_free(&result);
        must_be(weft_process_close(process), 0);
    }
    free(data);
    return 0;
}

static void a_child_may_die_at_any_moment(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, dies_somewhere), 0);
    assert_int_equal(run_clean(3, dies_somewhere), 0);
}

static intptr_t whole_life(void *arg)
{
    char *data = arg;
    weft_process_result result = {0};
    const char *const argv[] = {"cat", NULL};
    int rc = weft_process_run(NULL, argv, data, MEGABYTE, 0, &result);

    must(rc == 0 || rc == -ECANCELED);
    must(rc < 0 || (result.out_size == MEGABYTE && result.status == 0));
    weft_process_result_free(&result);
    return rc;
}

static intptr_t cancelled_somewhere(void *arg)
{
    uint64_t seed = wanted_seed();
    char *data = pattern(MEGABYTE);
    unsigned ended = 0;

    (void)arg;
    for (int i = 0; i < FEWER(MOMENTS); i++) {
        weft_task *task = weft_spawn(whole_life, data);
        intptr_t rc;

        if (i % 8)
            must_be(weft_sleep((int64_t)(draw(&seed) % (uint64_t)WEFT_MS(4))), 0);
        weft_cancel(task);
        rc = weft_await(task);
        must(rc == 0 || rc == -ECANCELED);
        ended += rc == 0;
    }
    free(data);
    return ended;
}

static void cancellation_at_any_moment_leaves_nothing(void **state)
{
    (void)state;
    assert_true(run_clean(1, cancelled_somewhere) >= 0);
    assert_true(run_clean(2, cancelled_somewhere) >= 0);
}

enum { CROWD = 60 };

static intptr_t one_of_many(void *arg)
{
    char command[32];

    snprintf(command, sizeof command, "exit %d", (int)(intptr_t)arg);
    return run_shell(command);
}

static intptr_t crowd(void *arg)
{
    weft_task *tasks[CROWD];

    (void)arg;
    for (int i = 0; i < FEWER(CROWD); i++)
        must((tasks[i] = weft_spawn(one_of_many, (void *)(intptr_t)i)) != NULL);
    for (int i = 0; i < FEWER(CROWD); i++)
        must_be(weft_await(tasks[i]), i);
    return 0;
}

static void many_at_once_are_not_confused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_clean(support_workers[i], crowd), 0);
}

/* ---- the program's own waits ---- */

static intptr_t beside_own_children(void *arg)
{
    weft_process *process = shell("exit 5");
    int status;
    pid_t own;

    (void)arg;
    own = fork();
    must(own >= 0);
    if (own == 0)
        _exit(6);
    must_be(waitpid(own, &status, 0), own);
    must(WIFEXITED(status) && WEXITSTATUS(status) == 6);
    must_be(status_of(process), 5);
    return weft_process_close(process);
}

static void the_programs_own_children_and_handler_are_left_to_it(void **state)
{
    struct sigaction action = {.sa_handler = count_child_signal, .sa_flags = SA_RESTART}, before, after;

    (void)state;
    atomic_store(&child_signals, 0);
    sigaction(SIGCHLD, &action, &before);
    assert_int_equal(run_clean(2, beside_own_children), 0);
    sigaction(SIGCHLD, &before, &after);
    assert_ptr_equal(after.sa_handler, count_child_signal);
    assert_true(atomic_load(&child_signals) >= 1);
}

static intptr_t stolen(void *arg)
{
    weft_process *process = shell("exit 9");
    int status = -1, rc;

    (void)arg;
    must_be(waitpid(-1, &status, 0), weft_process_pid(process));
    rc = weft_process_wait(process, &status);
    must((rc == 0 && status == 9) || rc == -ECHILD);
    must_be(weft_process_kill(process), 0);
    return weft_process_close(process);
}

static void a_status_that_the_program_took_is_no_hang(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, stolen), 0);
}

static intptr_t not_kept(void *arg)
{
    weft_process *process = shell("kill -USR1 $$");
    int status = 0, rc = weft_process_wait(process, &status);

    (void)arg;
    must((rc == 0 && status == -SIGUSR1) || rc == -ECHILD);
    return weft_process_close(process);
}

static void ignoring_sigchld_is_no_hang(void **state)
{
    (void)state;
    signal(SIGCHLD, SIG_IGN);
    assert_int_equal(run_clean(1, not_kept), 0);
    signal(SIGCHLD, SIG_DFL);
}

/* ---- without pidfds, and without a runtime ---- */

static void it_works_without_pidfds(void **state)
{
    (void)state;
    atomic_store(&weft__process_without_pidfd, true);
    assert_int_equal(run_clean(2, statuses), 0);
    assert_int_equal(run_clean(1, give_up), 0);
    assert_int_equal(run_clean(2, many_wait), 0);
    assert_int_equal(run_clean(1, close_while_waited_for), 0);
    assert_int_equal(run_clean(1, whole_group), 0);
    assert_int_equal(run_clean(1, stolen), 0);
    assert_int_equal(run_clean(2, both_ways), 0);
    atomic_store(&weft__process_without_pidfd, false);
}

static void it_works_outside_a_runtime(void **state)
{
    weft_process_result result = {0};
    unsigned before = count_descriptors();

    (void)state;
    statuses(NULL);
    weft_process_close(shell("exec sleep 100"));
    atomic_store(&weft__process_without_pidfd, true);
    must_be(run_shell("sleep 0.01; exit 2"), 2);
    atomic_store(&weft__process_without_pidfd, false);
    {
        weft_process *process = shell("exit 0");

        must_be(weft_process_communicate(process, NULL, 0, 0, &result), -EPERM);
        weft_process_close(process);
    }
    assert_int_equal(count_descriptors(), before);
    assert_true(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

static intptr_t stackless_attempts(void *arg)
{
    weft_process *process;

    must_be(weft_process_shell(NULL, "exit 0", &process), -EPERM);
    must_be(weft_process_wait(arg, NULL), -EPERM);
    must_be(weft_process_close(arg), -EPERM);
    return 0;
}

static intptr_t from_a_stackless_task(void *arg)
{
    weft_process *process = shell("exit 1");

    (void)arg;
    must_be(weft_await(weft_spawn_stackless(stackless_attempts, process)), 0);
    must_be(status_of(process), 1);
    return weft_process_close(process);
}

static void a_stackless_task_is_refused(void **state)
{
    (void)state;
    assert_int_equal(run_clean(1, from_a_stackless_task), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_status_is_what_the_child_exits_with_or_minus_the_signal),
        cmocka_unit_test(a_task_talks_to_the_child_through_its_pipes),
        cmocka_unit_test(an_end_that_was_taken_outlives_the_handle),
        cmocka_unit_test(what_cannot_be_started_is_told_and_leaves_nothing),
        cmocka_unit_test(a_child_that_does_not_start_is_seen_by_nobody),
        cmocka_unit_test(at_the_limit_of_descriptors_nothing_leaks),
        cmocka_unit_test(standard_descriptors_lead_where_they_should),
        cmocka_unit_test(descriptors_that_change_places_do_not_get_lost),
        cmocka_unit_test(directory_environment_group_and_signals_are_as_asked),
        cmocka_unit_test(a_child_gets_the_descriptors_that_it_should_and_no_others),
        cmocka_unit_test(the_end_of_a_pipe_that_a_child_gets_blocks),
        cmocka_unit_test(any_number_of_tasks_wait_for_one_child),
        cmocka_unit_test(who_gives_up_waiting_leaves_the_child_alone),
        cmocka_unit_test(those_who_wait_when_it_is_closed_learn_how_it_ended),
        cmocka_unit_test(closing_kills_and_reaps),
        cmocka_unit_test(a_signal_reaches_the_whole_group),
        cmocka_unit_test(communicate_feeds_and_reads_at_once),
        cmocka_unit_test(communicate_goes_on_when_another_closes_the_input),
        cmocka_unit_test(a_child_that_does_not_read_its_input_is_no_error),
        cmocka_unit_test(a_limit_holds),
        cmocka_unit_test(communicate_goes_on_where_a_deadline_ended_it),
        cmocka_unit_test(a_child_may_die_at_any_moment),
        cmocka_unit_test(cancellation_at_any_moment_leaves_nothing),
        cmocka_unit_test(many_at_once_are_not_confused),
        cmocka_unit_test(the_programs_own_children_and_handler_are_left_to_it),
        cmocka_unit_test(a_status_that_the_program_took_is_no_hang),
        cmocka_unit_test(ignoring_sigchld_is_no_hang),
        cmocka_unit_test(it_works_without_pidfds),
        cmocka_unit_test(it_works_outside_a_runtime),
        cmocka_unit_test(a_stackless_task_is_refused),
    };

    return run_all(tests, argc, argv);
}
