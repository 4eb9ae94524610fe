/*
 * A library that calls back, made awaitable: the callback sets a promise, the task awaits it. The callback comes
 * from a thread that weft knows nothing of; weft_promise_set may be called from any.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <weft.h>

/* ---- the library: calls back so many milliseconds from now, on a thread of its own ---- */

struct alarm {
    int ms;
    void (*callback)(int ms, void *user);
    void *user;
};

static void *alarm_thread(void *arg)
{
    struct alarm alarm = *(struct alarm *)arg;
    struct timespec time = {alarm.ms / 1000, alarm.ms % 1000 * 1000000L};

    free(arg);
    nanosleep(&time, NULL);
    alarm.callback(alarm.ms, alarm.user);
    return NULL;
}

/* 0, or an error number; then there will be no call. */
static int alarm_start(int ms, void (*callback)(int ms, void *user), void *user)
{
    struct alarm *alarm = malloc(sizeof *alarm);
    pthread_t thread;
    int error;

    if (!alarm)
        return ENOMEM;
    *alarm = (struct alarm){ms, callback, user};
    error = pthread_create(&thread, NULL, alarm_thread, alarm);
    if (error)
        free(alarm);
    else
        pthread_detach(thread);
    return error;
}

/* ---- the bridge ---- */

static void on_alarm(int ms, void *promise)
{
    weft_promise_set(promise, ms);
}

static intptr_t await_alarm(int ms)
{
    weft_promise promise = WEFT_PROMISE_INIT;
    intptr_t rc = -alarm_start(ms, on_alarm, &promise);

    if (rc < 0)
        return rc;
    /* An alarm cannot be taken back, and will set the promise that lies in this frame: so neither cancellation nor
     * a deadline may end this wait. */
    weft_mask_begin();
    rc = weft_await(&promise);
    weft_mask_end();
    return rc;
}

/* ---- a program that uses it ---- */

static intptr_t ring(void *ms)
{
    intptr_t rc = await_alarm((int)(intptr_t)ms); /* reads like any other call */

    if (rc >= 0)
        printf("alarm after %ld ms\n", (long)rc);
    return rc;
}

static intptr_t start(void *unused)
{
    weft_task *alarms[] = {weft_spawn(ring, (void *)300), weft_spawn(ring, (void *)200),
                           weft_spawn(ring, (void *)100)};
    intptr_t ms[3], rc = weft_gather(alarms, 3, ms);

    (void)unused;
    if (rc == 0)
        printf("[%ld, %ld, %ld]\n", (long)ms[0], (long)ms[1], (long)ms[2]);
    return rc;
}

int main(void)
{
    intptr_t rc = weft_run(start, NULL);

    if (rc < 0)
        fprintf(stderr, "callback_bridge: %s\n", strerror((int)-rc));
    return rc < 0;
}
