/* fork(2) while runtimes run: what the child may not do is refused, what it does leaves the parent alone. */
#include "tests/support.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "runtime/fork.h"

static weft_runtime *shared;
static weft_task *waiting;

/* Run fn in a forked child: its exit status, or minus the signal that ended it. */
static int in_child(int (*fn)(void *arg), void *arg)
{
    pid_t pid = fork();
    int status;

    must(pid >= 0);
    if (pid == 0) {
        sigset_t none;

        sigemptyset(&none); /* a worker blocks signals, the child's alarm must come */
        sigprocmask(SIG_SETMASK, &none, NULL);
        alarm(20);
        _exit(fn(arg));
    }
    while (waitpid(pid, &status, 0) < 0)
        must(errno == EINTR);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* In a child `must` would end in a core; a number says which line. */
#define check(condition)               \
    do {                               \
        if (!(condition))              \
            return __LINE__ % 250 + 1; \
    } while (0)

static int use_the_parents_runtime(void *arg)
{
    (void)arg;
    check(weft_runtime_run(shared, return_arg, NULL) == -ENOTRECOVERABLE);
    check(weft_runtime_spawn(shared, return_arg, NULL) == NULL);
    check(weft_runtime_go(shared, return_arg, NULL) == -ENOTRECOVERABLE);
    check(weft_await(waiting) == -ENOTRECOVERABLE);
    check(weft_wait_any(&waiting, 1) == -ENOTRECOVERABLE);
    /* These need memory, which a sanitizer may not have in the child of a program with threads. */
    if (!SUPPORT_SANITIZED) {
        check(weft_gather(&waiting, 1, NULL) == -ENOTRECOVERABLE);
        check(weft_shield(waiting) == -ENOTRECOVERABLE);
    }
    check(weft_runtime_stop(shared, WEFT_FOREVER) == -ENOTRECOVERABLE);
    return 0;
}

static void a_child_is_refused_its_parents_runtime(void **state)
{
    (void)state;
    assert_int_equal(weft_runtime_start(NULL, &shared), 0);
    waiting = weft_runtime_spawn(shared, sleep_for_ever, NULL);
    assert_non_null(waiting);
    for (int i = 0; i < 20; i++)
        assert_int_equal(in_child(use_the_parents_runtime, NULL), 0);
    weft_cancel(waiting);
    assert_int_equal(weft_await(waiting), -ECANCELED);
    assert_int_equal(weft_runtime_stop(shared, WEFT_SEC(10)), 0);
}

static int suspend_in_the_child(void *arg)
{
    char byte;

    (void)arg;
    check(weft_sleep(WEFT_SEC(100)) == -EPERM);
    check(weft_yield() == -EPERM);
    check(weft_read(0, &byte, 1) == -EPERM);
    check(weft_blocking(return_arg, NULL) == -EPERM);
    check(weft_spawn(return_arg, NULL) == NULL);
    check(weft_go(return_arg, NULL) == -EPERM);
    check(weft_self() == NULL);
    check(weft_runtime_current() == NULL);
    return 0;
}

static intptr_t fork_in_a_task(void *arg)
{
    (void)arg;
    must_be(in_child(suspend_in_the_child, NULL), 0);
    return weft_sleep(WEFT_MS(1));
}

static void a_child_that_a_task_forks_is_outside_of_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_on(support_workers[i], fork_in_a_task, NULL), 0);
}

static intptr_t returns_twice(void *arg)
{
    pid_t pid = fork();
    int status;

    (void)arg;
    if (pid == 0)
        return 0;
    must_be(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static intptr_t awaits_one_that_forks(void *arg)
{
    intptr_t in_place = weft_await(weft_spawn(returns_twice, arg));
    intptr_t stackless = weft_await(weft_spawn_stackless(returns_twice, arg));

    must_be(stackless, in_place);
    must_be(weft_blocking(returns_twice, arg), in_place);
    return weft_sleep(WEFT_MS(1)) < 0 ? -1 : in_place;
}

static void a_child_ends_where_its_task_returns(void **state)
{
    (void)state;
    assert_int_equal(run_alone(returns_twice, NULL), 70);
    assert_int_equal(run_alone(awaits_one_that_forks, NULL), 70);
}

/* The child closes what the parent waits for: the parent is still told. */
static int ends[2];

static int close_in_the_child(void *arg)
{
    (void)arg;
    check(weft_close(ends[0]) == 0);
    check(weft_close(ends[1]) == 0);
    return 0;
}

static intptr_t read_one(void *arg)
{
    char byte;

    (void)arg;
    return weft_read(ends[0], &byte, 1);
}

static intptr_t close_elsewhere(void *arg)
{
    weft_task *reader;

    (void)arg;
    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    for (int i = 0; i < 5; i++) {
        must((reader = weft_spawn(read_one, NULL)) != NULL);
        must_be(weft_sleep(WEFT_MS(2)), 0);
        must_be(in_child(close_in_the_child, NULL), 0);
        must_be(weft_write(ends[1], "x", 1), 1);
        must_be(weft_await(reader), 1);
    }
    must_be(weft_close(ends[0]), 0);
    return weft_close(ends[1]);
}

static void a_descriptor_closed_in_the_child_still_wakes_the_parent(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_on(support_workers[i], close_elsewhere, NULL), 0);
}

static intptr_t talk(void *arg)
{
    weft_task *reader;

    (void)arg;
    must((reader = weft_spawn(read_one, NULL)) != NULL);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(weft_write(ends[1], "x", 1), 1);
    must_be(weft_await(reader), 1);
    return weft_blocking(return_arg, (void *)42);
}

static int start_another(void *arg)
{
    weft_config config = {.workers = 2};
    weft_runtime *runtime;

    (void)arg;
    check(weft_runtime_start(&config, &runtime) == 0);
    check(weft_runtime_run(runtime, talk, NULL) == 42);
    check(weft_runtime_stop(runtime, WEFT_SEC(10)) == 0);
    return 0;
}

/* Takes nothing: parent and child share what comes. */
static intptr_t only_look(void *arg)
{
    (void)arg;
    return weft_poll(ends[0], POLLIN, WEFT_FOREVER);
}

static intptr_t fork_with_a_waited_descriptor(void *arg)
{
    weft_task *reader;

    (void)arg;
    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    must((reader = weft_spawn(only_look, NULL)) != NULL);
    must_be(weft_sleep(WEFT_MS(2)), 0);
    /* In the child this number is registered nowhere. */
    {
        int rc = in_child(start_another, NULL);

        must_be(rc, 0);
    }
    weft_cancel(reader);
    (void)weft_await(reader);
    must_be(weft_close(ends[0]), 0);
    return weft_close(ends[1]);
}

/* A runtime in the child of a program with threads is more than a sanitizer can follow, or qemu's user emulation, which
 * forgets about threads in a child and cannot make any there. */
static void a_child_may_start_a_runtime_of_its_own(void **state)
{
    (void)state;
    if (SUPPORT_SANITIZED || getenv("WEFT_TEST_EMULATED"))
        skip();
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_on(support_workers[i], fork_with_a_waited_descriptor, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_is_refused_its_parents_runtime),
        cmocka_unit_test(a_child_that_a_task_forks_is_outside_of_it),
        cmocka_unit_test(a_child_ends_where_its_task_returns),
        cmocka_unit_test(a_descriptor_closed_in_the_child_still_wakes_the_parent),
        cmocka_unit_test(a_child_may_start_a_runtime_of_its_own),
    };

    return run_all(tests, argc, argv);
}
