/* A15, A16: where a runtime could fall off a cliff. (A14 and A12 are with the scheduling they compare with.) */
#include "micro.h"

#include <errno.h>
#include <stdlib.h>

/* ---- A15: one hot pair among 100 000 parked tasks ---- */

enum { PARKED = 100000, TRIPS = 300000, TRIPS_QUICK = 30000 };

struct pair {
    weft_chan *there, *back;
    long trips;
    double alone_ns, among_ns;
    weft_event release;
    struct countdown arrived, ended;
};

static intptr_t wait_for_release(void *arg)
{
    struct pair *pair = arg;
    count_down(&pair->arrived);
    weft_event_wait(&pair->release);
    count_down(&pair->ended);
    return 0;
}

static intptr_t send_back(void *arg)
{
    struct pair *pair = arg;
    intptr_t error = 0;
    int ball;
    for (long i = 0; i < pair->trips && !error; i++)
        if ((error = weft_chan_recv(pair->there, &ball)) == 0)
            error = weft_chan_send(pair->back, &ball);
    return error;
}

static int play(struct pair *pair, double *ns)
{
    weft_task *other = weft_spawn(send_back, pair);
    if (!other)
        return -ENOMEM;
    int64_t start = weft_now();
    int error = 0, ball = 0;
    for (long i = 0; i < pair->trips && !error; i++)
        if ((error = weft_chan_send(pair->there, &ball)) == 0)
            error = weft_chan_recv(pair->back, &ball);
    *ns = (double)(weft_now() - start) / (double)pair->trips;
    intptr_t result = weft_await(other);
    return error ? error : (int)result;
}

static intptr_t play_alone_and_among(void *arg)
{
    struct pair *pair = arg;
    double warm_up;
    int error = play(pair, &warm_up);
    if (!error)
        error = play(pair, &pair->alone_ns);
    for (int i = 0; i < PARKED && !error; i++)
        error = weft_go(wait_for_release, pair);
    if (error)
        return error;
    weft_event_wait(&pair->arrived.over);
    error = play(pair, &pair->among_ns);
    weft_event_set(&pair->release);
    weft_event_wait(&pair->ended.over);
    return error;
}

static int hot_among_parked(const struct setting *setting, struct sample *sample)
{
    static struct pair pair;
    pair.trips = setting->quick ? TRIPS_QUICK : TRIPS;
    pair.arrived.left = pair.ended.left = PARKED;
    pair.there = weft_chan_new(sizeof(int), 1);
    pair.back = weft_chan_new(sizeof(int), 1);
    int error = -ENOMEM;
    if (pair.there && pair.back)
        error = (int)weft_runtime_run(setting->runtime, play_alone_and_among, &pair);
    weft_chan_free(pair.there);
    weft_chan_free(pair.back);
    if (!error)
        add_metric(sample, "A15", "x", pair.among_ns / pair.alone_ns);
    return error;
}

/* ---- A16: from nothing to a task's result, and to nothing again ---- */

enum { STARTS = 50 };

static intptr_t nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int cold_start(const struct setting *setting, struct sample *sample)
{
    int64_t ns[STARTS];
    for (int i = 0; i < STARTS; i++) {
        weft_runtime *runtime = NULL;
        int64_t start = weft_now();
        int error = start_runtime(setting->workers, &runtime);
        if (!error)
            error = (int)weft_runtime_run(runtime, nothing, NULL);
        int stopped = runtime ? weft_runtime_stop(runtime, WEFT_SEC(5)) : 0;
        if (error || stopped)
            return error ? error : stopped;
        ns[i] = weft_now() - start;
    }
    add_part(sample, "A16", "p50", "us", (double)quantile(ns, STARTS, 0.5) / 1e3);
    add_part(sample, "A16", "worst", "us", (double)quantile(ns, STARTS, 1) / 1e3);
    return 0;
}

const struct workload regime_workloads[] = {
    {"A15", "a ping-pong among 100 000 parked tasks, against alone", hot_among_parked, FRESH | ONE_IN_QUICK},
    {"A16", "a runtime starts, runs one task, and stops", cold_start, OWN_RUNTIME},
    {NULL, NULL, NULL, 0},
};
