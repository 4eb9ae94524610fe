/*
 * Signals as a stream: one task handles what comes while another does the program's work, with no handler and nothing
 * that a handler may not do. The work here sends the signals itself.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>

static intptr_t handle(void *signals)
{
    for (int number; (number = weft_signal_next(signals)) > 0;) {
        if (number == SIGTERM) {
            printf("asked to stop\n");
            return 0;
        }
        printf("asked to read the configuration again\n");
    }
    return -ECANCELED;
}

static intptr_t start(void *unused)
{
    static const int numbers[] = {SIGHUP, SIGTERM};
    weft_signals *signals;
    weft_task *handler;
    int rc = weft_signal_open(numbers, 2, &signals);

    (void)unused;
    if (rc < 0)
        return rc;
    handler = weft_spawn(handle, signals);
    kill(getpid(), SIGHUP);
    weft_sleep(WEFT_MS(100)); /* working */
    kill(getpid(), SIGTERM);
    rc = (int)weft_await(handler);
    weft_signal_close(signals);
    return rc;
}

int main(void)
{
    intptr_t rc = weft_run(start, NULL);

    if (rc < 0)
        fprintf(stderr, "signals: %s\n", strerror((int)-rc));
    return rc < 0;
}
