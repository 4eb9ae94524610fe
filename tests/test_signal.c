/* weft_signals: every stream sees every signal, dispositions come back, waits end, nothing is left behind. */
#include "tests/support.h"

#include <signal.h>

static const int users[] = {SIGUSR1, SIGUSR2};

static weft_signals *open_users(void)
{
    weft_signals *stream;

    must_be(weft_signal_open(users, 2, &stream), 0);
    return stream;
}

/* A sanitizer puts a handler off until the thread calls one of the functions that it watches: so one that does. */
static pthread_t receiver;

static void *receive(void *arg)
{
    for (;;)
        nap(WEFT_US(100));
    return arg;
}

static void send_to_all(int number)
{
    if (SUPPORT_SANITIZED)
        must_be(pthread_kill(receiver, number), 0);
    else
        must_be(kill(getpid(), number), 0);
}

static void (*handler_of(int number))(int)
{
    struct sigaction action;

    must_be(sigaction(number, NULL, &action), 0);
    return action.sa_handler;
}

static intptr_t next(void *stream)
{
    return weft_signal_next(stream);
}

/* ---- reading ---- */

static intptr_t one_after_the_other(void *arg)
{
    weft_signals *stream = open_users();

    (void)arg;
    must_be(weft_signal_try_next(stream), -EAGAIN);
    for (int i = 0; i < FEWER(300) + 10; i++) {
        send_to_all(users[i % 2]);
        must_be(weft_signal_next(stream), users[i % 2]);
        must_be(weft_signal_try_next(stream), -EAGAIN);
    }
    return weft_signal_close(stream);
}

static void a_task_reads_signals(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], one_after_the_other, NULL), 0);
}

enum { STREAMS = 10 };

static intptr_t everybody(void *arg)
{
    weft_signals *streams[STREAMS];
    weft_task *tasks[STREAMS];

    (void)arg;
    for (int i = 0; i < STREAMS; i++)
        streams[i] = open_users();
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < STREAMS; i++)
            must((tasks[i] = weft_spawn(next, streams[i])) != NULL);
        if (round % 2)
            must_be(weft_sleep(WEFT_US(300)), 0);
        send_to_all(SIGUSR2);
        for (int i = 0; i < STREAMS; i++)
            must_be(weft_await(tasks[i]), SIGUSR2);
    }
    for (int i = 0; i < STREAMS; i++) {
        must_be(weft_signal_try_next(streams[i]), -EAGAIN);
        must_be(weft_signal_close(streams[i]), 0);
    }
    return 0;
}

static void every_stream_sees_every_signal(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], everybody, NULL), 0);
}

static _Atomic unsigned read_so_far;

static intptr_t next_and_tell(void *stream)
{
    int rc = weft_signal_next(stream);

    atomic_fetch_add(&read_so_far, 1);
    return rc;
}

static intptr_t shared_stream(void *arg)
{
    weft_signals *stream = open_users();
    weft_task *tasks[3];
    intptr_t sum = 0;
    int closed = 0;

    (void)arg;
    atomic_store(&read_so_far, 0);
    for (int i = 0; i < 3; i++)
        must((tasks[i] = weft_spawn(next_and_tell, stream)) != NULL);
    must_be(weft_sleep(WEFT_US(300)), 0);
    send_to_all(SIGUSR1);
    send_to_all(SIGUSR2);
    wait_until_true(atomic_load(&read_so_far) == 2); /* they are delivered to another thread: in its own time */
    must_be(weft_sleep(WEFT_MS(2)), 0);
    must_be(weft_signal_try_next(stream), -EAGAIN);
    must_be(weft_signal_close(stream), 0);
    for (int i = 0; i < 3; i++) {
        intptr_t rc = weft_await(tasks[i]);

        if (rc == -EBADF)
            closed++;
        else
            sum += rc;
    }
    must_be(closed, 1);
    must_be(sum, SIGUSR1 + SIGUSR2);
    return 0;
}

static void of_the_readers_of_one_stream_each_signal_goes_to_one(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, shared_stream, NULL), 0);
}

static intptr_t before_the_read(void *arg)
{
    weft_signals *early = open_users(), *late;

    (void)arg;
    send_to_all(SIGUSR1);
    send_to_all(SIGUSR2);
    /* It is delivered to another thread: in its own time. */
    {
        int first = weft_signal_next(early), second = weft_signal_next(early);

        must_be(first + second, SIGUSR1 + SIGUSR2);
        must(first != second);
    }
    late = open_users();
    must_be(weft_signal_try_next(late), -EAGAIN);
    must_be(weft_signal_close(early), 0);
    send_to_all(SIGUSR1);
    must_be(weft_signal_next(late), SIGUSR1);
    return weft_signal_close(late);
}

static void a_stream_holds_what_came_since_it_was_opened(void **state)
{
    (void)state;
    assert_int_equal(run_alone(before_the_read, NULL), 0);
}

/* ---- ends of waits ---- */

static intptr_t ended_early(void *arg)
{
    weft_signals *stream = open_users();
    weft_timeout timeout;
    weft_task *task;

    (void)arg;
    must_be(weft_timeout_begin(&timeout, WEFT_MS(1)), 0);
    must_be(weft_signal_next(stream), -ETIMEDOUT);
    must_be(weft_timeout_end(&timeout), 1);
    for (int asleep = 0; asleep < 2; asleep++) {
        must((task = weft_spawn(next, stream)) != NULL);
        if (asleep)
            must_be(weft_sleep(WEFT_MS(1)), 0);
        weft_cancel(task);
        must_be(weft_await(task), -ECANCELED);
    }
    send_to_all(SIGUSR1);
    must_be(weft_signal_next(stream), SIGUSR1);
    return weft_signal_close(stream);
}

static void cancellation_and_deadlines_end_the_wait(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_on(support_workers[i], ended_early, NULL), 0);
}

static void what_cannot_be_followed_is_refused(void **state)
{
    static const int refused[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL,
                                  SIGTRAP, SIGSYS,  0,       -1,     65,     32};
    unsigned before = count_descriptors();
    weft_signals *stream;

    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const int both[] = {SIGUSR1, refused[i]};

        assert_int_equal(weft_signal_open(both, 2, &stream), -EINVAL);
        assert_null(stream);
        assert_true(handler_of(SIGUSR1) == SIG_DFL);
    }
    assert_int_equal(weft_signal_open(users, 0, &stream), -EINVAL);
    assert_int_equal(weft_signal_open(NULL, 1, &stream), -EINVAL);
    assert_int_equal(weft_signal_open(users, 1, NULL), -EINVAL);
    assert_int_equal(weft_signal_close(NULL), 0);
    assert_int_equal(weft_signal_open(users, 1, &stream), 0);
    assert_int_equal(weft_signal_next(stream), -EPERM);
    assert_int_equal(weft_signal_close(stream), 0);
    assert_int_equal(weft_signal_wait_stop(), -EPERM);
    assert_int_equal(count_descriptors(), before);
}

/* ---- dispositions ---- */

static volatile sig_atomic_t own_calls;

static void own_handler(int number)
{
    (void)number;
    own_calls++;
}

static void the_earlier_disposition_comes_back_with_the_last_close(void **state)
{
    weft_signals *first, *second;
    const int twice[] = {SIGUSR1, SIGUSR1};

    (void)state;
    signal(SIGUSR1, own_handler);
    assert_int_equal(weft_signal_open(twice, 2, &first), 0);
    second = open_users();
    raise(SIGUSR1);
    assert_int_equal(own_calls, 0);
    assert_int_equal(weft_signal_close(first), 0);
    raise(SIGUSR1);
    assert_int_equal(own_calls, 0);
    assert_int_equal(weft_signal_try_next(second), SIGUSR1);
    assert_int_equal(weft_signal_try_next(second), SIGUSR1);
    assert_int_equal(weft_signal_try_next(second), -EAGAIN);
    assert_int_equal(weft_signal_close(second), 0);
    raise(SIGUSR1);
    assert_int_equal(own_calls, 1);
    assert_true(handler_of(SIGUSR2) == SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
}

static void a_handler_put_in_its_place_stays(void **state)
{
    weft_signals *stream = open_users();

    (void)state;
    signal(SIGUSR1, own_handler);
    assert_int_equal(weft_signal_close(stream), 0);
    assert_true(handler_of(SIGUSR1) == own_handler);
    signal(SIGUSR1, SIG_DFL);
}

/* ---- stopping ---- */

static intptr_t wait_stop(void *arg)
{
    (void)arg;
    return weft_signal_wait_stop();
}

static intptr_t stopped_by(void *number)
{
    weft_task *task = weft_spawn(wait_stop, NULL);
    void (*before)(int) = handler_of((int)(intptr_t)number);

    wait_until_true(handler_of((int)(intptr_t)number) != before);
    send_to_all((int)(intptr_t)number);
    must_be(weft_await(task), (int)(intptr_t)number);
    must(handler_of((int)(intptr_t)number) == before);
    return 0;
}

static void a_server_waits_for_sigint_or_sigterm(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, stopped_by, (void *)SIGINT), 0);
    assert_int_equal(run_on(2, stopped_by, (void *)SIGTERM), 0);
}

/* ---- at any moment ---- */

static _Atomic bool storming;

static void *storm(void *arg)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* for the others */
    while (atomic_load(&storming)) {
        send_to_all(SIGUSR1);
        nap(WEFT_US(20));
    }
    return arg;
}

static intptr_t open_and_close(void *arg)
{
    for (int i = 0; i < FEWER(1000); i++) {
        weft_signals *stream = open_users();

        if (i % 3 == 0)
            must_be(weft_signal_next(stream), SIGUSR1);
        must_be(weft_signal_close(stream), 0);
    }
    return (intptr_t)arg;
}

static intptr_t in_the_storm(void *arg)
{
    weft_task *tasks[4];

    for (int i = 0; i < 4; i++)
        must((tasks[i] = weft_spawn(open_and_close, arg)) != NULL);
    for (int i = 0; i < 4; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

static void unheard(int number)
{
    (void)number;
}

/* Between the streams a handler takes them. SIG_IGN would do on Linux, but qemu (7.2) reads a disposition twice when it
   delivers a signal, and jumps to SIG_IGN when that has come in between. */
static void streams_come_and_go_while_signals_come(void **state)
{
    pthread_t thread;

    (void)state;
    signal(SIGUSR1, unheard);
    for (unsigned i = 0; i < 3; i++) {
        atomic_store(&storming, true);
        assert_int_equal(pthread_create(&thread, NULL, storm, NULL), 0);
        nap(WEFT_MS(1));
        {
            weft_config config = {.workers = support_workers[i]};
            weft_runtime *runtime;

            assert_int_equal(weft_runtime_start(&config, &runtime), 0);
            assert_int_equal(weft_runtime_run(runtime, in_the_storm, NULL), 0);
            assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
        }
        atomic_store(&storming, false);
        pthread_join(thread, NULL);
    }
    signal(SIGUSR1, SIG_IGN); /* nobody is to get what is still on its way */
    signal(SIGUSR1, SIG_DFL);
}

/* ---- fork ---- */

static intptr_t fork_while_open(void *arg)
{
    weft_signals *stream = open_users();
    int status;
    pid_t pid;

    (void)arg;
    pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        if (handler_of(SIGUSR1) != SIG_DFL || weft_signal_try_next(stream) != -ENOTRECOVERABLE ||
            weft_signal_next(stream) != -ENOTRECOVERABLE || weft_signal_close(stream) != 0)
            _exit(1);
        stream = open_users();
        {
            sigset_t none;

            sigemptyset(&none); /* a worker's mask came with the fork */
            sigprocmask(SIG_SETMASK, &none, NULL);
        }
        raise(SIGUSR2);
        _exit(weft_signal_try_next(stream) == SIGUSR2 && weft_signal_close(stream) == 0 ? 0 : 2);
    }
    must_be(waitpid(pid, &status, 0), pid);
    must_be(status, 0);
    must_be(weft_signal_try_next(stream), -EAGAIN);
    send_to_all(SIGUSR1);
    must_be(weft_signal_next(stream), SIGUSR1);
    return weft_signal_close(stream);
}

static void a_forked_child_has_the_earlier_dispositions(void **state)
{
    (void)state;
    assert_int_equal(run_alone(fork_while_open, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_reads_signals),
        cmocka_unit_test(every_stream_sees_every_signal),
        cmocka_unit_test(of_the_readers_of_one_stream_each_signal_goes_to_one),
        cmocka_unit_test(a_stream_holds_what_came_since_it_was_opened),
        cmocka_unit_test(cancellation_and_deadlines_end_the_wait),
        cmocka_unit_test(what_cannot_be_followed_is_refused),
        cmocka_unit_test(the_earlier_disposition_comes_back_with_the_last_close),
        cmocka_unit_test(a_handler_put_in_its_place_stays),
        cmocka_unit_test(a_server_waits_for_sigint_or_sigterm),
        cmocka_unit_test(streams_come_and_go_while_signals_come),
        cmocka_unit_test(a_forked_child_has_the_earlier_dispositions),
    };

    if (SUPPORT_SANITIZED)
        must_be(pthread_create(&receiver, NULL, receive, NULL), 0);
    return run_all(tests, argc, argv);
}
