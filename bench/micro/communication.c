/*
 * C: communication between tasks.
 */
#include <errno.h>

#include "micro.h"

/* ---- C1: ping-pong over two channels of capacity 1 ---- */

struct court {
    weft_chan *there;
    weft_chan *back;
    long trips;
};

static intptr_t return_balls(void *arg)
{
    struct court *court = arg;
    int ball;
    for (long i = 0; i < court->trips; i++) {
        int error = weft_chan_recv(court->there, &ball);
        if (!error)
            error = weft_chan_send(court->back, &ball);
        if (error)
            return error;
    }
    return 0;
}

static intptr_t play(void *arg)
{
    struct court *court = arg;
    weft_task *other = weft_spawn(return_balls, court);
    if (!other)
        return -ENOMEM;
    int ball = 0, error = 0;
    int64_t start = weft_now();
    for (long i = 0; i < court->trips && !error; i++) {
        error = weft_chan_send(court->there, &ball);
        if (!error)
            error = weft_chan_recv(court->back, &ball);
    }
    int64_t end = weft_now();
    intptr_t others = weft_await(other);
    return error ? error : others ? others : end - start;
}

static int channel_ping_pong(const struct setting *setting, struct sample *sample)
{
    struct court court = {weft_chan_new(sizeof(int), 1), weft_chan_new(sizeof(int), 1),
                          setting->quick ? 300000 : 1000000};
    intptr_t ns = court.there && court.back ? weft_runtime_run(setting->runtime, play, &court) : -ENOMEM;
    weft_chan_free(court.there);
    weft_chan_free(court.back);
    if (weft_is_error(ns))
        return (int)ns;
    add_metric(sample, "C1", "ns", (double)ns / (double)court.trips);
    return 0;
}

/* ---- C4: a contended mutex ---- */

enum { LOCKERS = 8 };

struct counter {
    weft_mutex mutex;
    long value;
    long turns;
};

static intptr_t increment(void *arg)
{
    struct counter *counter = arg;
    for (long i = 0; i < counter->turns; i++) {
        int error = weft_mutex_lock(&counter->mutex);
        if (error)
            return error;
        counter->value++;
        weft_mutex_unlock(&counter->mutex);
    }
    return 0;
}

static intptr_t timed_increments(void *arg)
{
    int64_t start = weft_now();
    int error = spawn_and_await(LOCKERS, increment, arg);
    return error ? error : weft_now() - start;
}

static int mutex(const struct setting *setting, struct sample *sample)
{
    struct counter counter = {WEFT_MUTEX_INIT, 0, 200000};
    intptr_t ns = weft_runtime_run(setting->runtime, timed_increments, &counter);
    if (weft_is_error(ns))
        return (int)ns;
    if (counter.value != LOCKERS * counter.turns)
        return -EPROTO;
    add_metric(sample, "C4", "ns", (double)ns / (double)counter.value);
    return 0;
}

const struct workload communication_workloads[] = {
    {"C1", "ping-pong over two channels", channel_ping_pong, 0},
    {"C4", "8 tasks, one mutex", mutex, 0},
    {NULL, NULL, NULL, 0},
};
