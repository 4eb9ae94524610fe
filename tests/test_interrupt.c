/*
 * SIGINT and weft_run: the first cancels the main task, the second ends the process; and where the signal is left
 * alone. In child processes.
 */
#include <signal.h>

#include "runtime/annotate.h"
#include "support.h"

static weft_event never = WEFT_EVENT_INIT;

static void interrupt_self(void)
{
    must_be(kill(getpid(), SIGINT), 0);
}

static bool has_default_action(void)
{
    struct sigaction action;

    must_be(sigaction(SIGINT, NULL, &action), 0);
    return !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL;
}

static intptr_t waits_when_interrupted(void *unused)
{
    (void)unused;
    interrupt_self();
    return weft_event_wait(&never);
}

static intptr_t recovers(void *unused)
{
    (void)unused;
    interrupt_self();
    must_be(weft_event_wait(&never), -ECANCELED);
    must_be(weft_uncancel(), 1);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    return 17;
}

static intptr_t computes(void *unused)
{
    (void)unused;
    interrupt_self();
    while (!weft_cancelled())
        ;
    return 18;
}

static void first_signals(void *unused)
{
    (void)unused;
    for (int i = 0; i < FEWER(100); i++) {
        must_be(weft_run(waits_when_interrupted, NULL), -ECANCELED);
        must(has_default_action());
        must_be(weft_run(recovers, NULL), 17);
        must_be(weft_run(computes, NULL), 18);
        must(has_default_action());
    }
}

static void expect_in_child(void (*fn)(void *), void *arg, int signal_number, const char *message)
{
    char text[4000];
    int status = run_in_child(fn, arg, text, sizeof text);

    if (!message || strcmp(text, message) != 0)
        fprintf(stderr, "%s", text);
    if (signal_number)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signal_number);
    else
        assert_int_equal(status, 0);
}

static void the_first_cancels_the_main_task(void **state)
{
    (void)state;
    expect_in_child(first_signals, NULL, 0, "");
}

static intptr_t does_not_end(void *unused)
{
    (void)unused;
    interrupt_self();
    must_be(weft_event_wait(&never), -ECANCELED);
    interrupt_self();
    for (;;)
        pause();
}

static void run_stubborn(void *unused)
{
    (void)unused;
    weft_run(does_not_end, NULL);
}

static void the_second_ends_the_process(void **state)
{
    (void)state;
    expect_in_child(run_stubborn, NULL, SIGINT, "");
}

/* ---- left alone ---- */

static volatile sig_atomic_t caught;

static void catch_signal(int number)
{
    caught = number;
}

static intptr_t is_not_cancelled(void *unused)
{
    (void)unused;
    interrupt_self();
    while (!caught)
        must_be(weft_sleep(WEFT_US(100)), 0);
    return weft_sleep(WEFT_MS(5));
}

static void run_with_handler(void *unused)
{
    struct sigaction action = {.sa_handler = catch_signal}, after;

    (void)unused;
    must_be(sigaction(SIGINT, &action, NULL), 0);
    must_be(weft_run(is_not_cancelled, NULL), 0);
    must_be(caught, SIGINT);
    must_be(sigaction(SIGINT, NULL, &after), 0);
    must(after.sa_handler == catch_signal);
}

static void a_program_that_handles_it_keeps_it(void **state)
{
    (void)state;
    expect_in_child(run_with_handler, NULL, 0, "");
}

static intptr_t installs_its_own(void *unused)
{
    struct sigaction action = {.sa_handler = catch_signal};

    must_be(sigaction(SIGINT, &action, NULL), 0);
    return is_not_cancelled(unused);
}

static void run_installing(void *unused)
{
    struct sigaction after;

    (void)unused;
    must_be(weft_run(installs_its_own, NULL), 0);
    must_be(sigaction(SIGINT, NULL, &after), 0);
    must(after.sa_handler == catch_signal);
}

static void a_handler_that_is_installed_meanwhile_stays(void **state)
{
    (void)state;
    expect_in_child(run_installing, NULL, 0, "");
}

static void run_switched_off(void *unused)
{
    (void)unused;
    setenv("WEFT_SIGINT", "off", 1);
    weft_run(waits_when_interrupted, NULL);
}

static void it_can_be_switched_off(void **state)
{
    (void)state;
    expect_in_child(run_switched_off, NULL, SIGINT, "");
}

static intptr_t ends_at_once(void *unused)
{
    (void)unused;
    return 3;
}

static void run_again_and_again(void *unused)
{
    (void)unused;
    for (int i = 0; i < FEWER(200); i++) {
        must_be(weft_run(ends_at_once, NULL), 3);
        must(has_default_action());
    }
    interrupt_self();
}

static void it_is_given_back_after_each_run(void **state)
{
    (void)state;
    expect_in_child(run_again_and_again, NULL, SIGINT, "");
}

int main(int argc, char **argv)
{
#ifdef WEFT__TSAN
    /* It holds a signal back while the thread is in a system call that it does not know. */
    printf("skipped under ThreadSanitizer\n");
    return 0;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_cancels_the_main_task),
        cmocka_unit_test(the_second_ends_the_process),
        cmocka_unit_test(a_program_that_handles_it_keeps_it),
        cmocka_unit_test(a_handler_that_is_installed_meanwhile_stays),
        cmocka_unit_test(it_can_be_switched_off),
        cmocka_unit_test(it_is_given_back_after_each_run),
    };

    return run_all(tests, argc, argv);
}
