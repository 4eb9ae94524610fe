/*
 * C: communication between tasks.
 */
#include <errno.h>
#include <stdatomic.h>

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

/* ---- C2, C3: many senders, one receiver or many ---- */

struct crowd {
    weft_chan *chan;
    int senders, receivers;
    long messages; /* of each sender */
    _Atomic long senders_left;
    _Atomic long received;
};

static intptr_t send_messages(void *arg)
{
    struct crowd *crowd = arg;
    int error = 0;
    for (long i = 0; i < crowd->messages && !error; i++)
        error = weft_chan_send(crowd->chan, &i);
    if (atomic_fetch_sub(&crowd->senders_left, 1) == 1)
        weft_chan_close(crowd->chan);
    return error;
}

static intptr_t receive_messages(void *arg)
{
    struct crowd *crowd = arg;
    long message, count = 0;
    int error;
    while ((error = weft_chan_recv(crowd->chan, &message)) == 0)
        count++;
    atomic_fetch_add(&crowd->received, count);
    return error == -EPIPE ? 0 : error;
}

/* The calling task is the last of the receivers. */
static intptr_t crowd_through(void *arg)
{
    struct crowd *crowd = arg;
    weft_task *tasks[16];
    int count = 0;
    int64_t start = weft_now();
    for (int i = 0; i < crowd->senders; i++)
        tasks[count++] = weft_spawn(send_messages, crowd);
    for (int i = 1; i < crowd->receivers; i++)
        tasks[count++] = weft_spawn(receive_messages, crowd);
    intptr_t error = receive_messages(crowd);
    while (count > 0) {
        intptr_t result = weft_await(tasks[--count]);
        error = error ? error : result;
    }
    return error ? error : weft_now() - start;
}

static int crowded_channel(const struct setting *setting, struct sample *sample, const char *key,
                           struct crowd *crowd)
{
    long all = crowd->messages;
    crowd->messages /= crowd->senders;
    crowd->senders_left = crowd->senders;
    intptr_t ns = crowd->chan ? weft_runtime_run(setting->runtime, crowd_through, crowd) : -ENOMEM;
    weft_chan_free(crowd->chan);
    if (weft_is_error(ns))
        return (int)ns;
    if (crowd->received != all)
        return -EPROTO;
    add_metric(sample, key, "ns", (double)ns / (double)all);
    return 0;
}

static int many_to_one(const struct setting *setting, struct sample *sample)
{
    struct crowd crowd = {weft_chan_new(sizeof(long), 128), 4, 1, setting->quick ? 400000 : 1000000, 0, 0};
    return crowded_channel(setting, sample, "C2", &crowd);
}

static int many_to_many(const struct setting *setting, struct sample *sample)
{
    struct crowd crowd = {weft_chan_new(sizeof(long), 1024), 4, 4, setting->quick ? 1000000 : 10000000, 0, 0};
    return crowded_channel(setting, sample, "C3", &crowd);
}

/* ---- C5: select over eight channels ---- */

enum { FED = 8 };

struct feed {
    weft_chan *chans[FED];
    long messages;
};

static intptr_t feed_in_turn(void *arg)
{
    struct feed *feed = arg;
    for (long i = 0; i < feed->messages; i++) {
        int error = weft_chan_send(feed->chans[i % FED], &i);
        if (error)
            return error;
    }
    return 0;
}

static intptr_t select_all(void *arg)
{
    struct feed *feed = arg;
    long message;
    weft_case cases[FED];
    for (int i = 0; i < FED; i++)
        cases[i] = (weft_case)WEFT_CASE_RECV(feed->chans[i], &message);
    weft_task *feeder = weft_spawn(feed_in_turn, feed);
    if (!feeder)
        return -ENOMEM;
    int64_t start = weft_now();
    int error = 0;
    for (long i = 0; i < feed->messages && error >= 0; i++)
        error = weft_select(cases, FED);
    int64_t end = weft_now();
    intptr_t fed = weft_await(feeder);
    return error < 0 ? error : fed ? fed : end - start;
}

static int select_with(const struct setting *setting, struct sample *sample, const char *part, size_t capacity)
{
    struct feed feed = {{0}, setting->quick ? 300000 : 1000000};
    int error = 0;
    for (int i = 0; i < FED; i++) {
        feed.chans[i] = weft_chan_new(sizeof(long), capacity);
        error = feed.chans[i] ? error : -ENOMEM;
    }
    intptr_t ns = error ? error : weft_runtime_run(setting->runtime, select_all, &feed);
    for (int i = 0; i < FED; i++)
        weft_chan_free(feed.chans[i]);
    if (weft_is_error(ns))
        return (int)ns;
    add_part(sample, "C5", part, "ns", (double)ns / (double)feed.messages);
    return 0;
}

/* With room for many, mostly something is ready; as a rendezvous, every other select waits. */
static int selecting(const struct setting *setting, struct sample *sample)
{
    int error = select_with(setting, sample, "buffered", 16);
    return error ? error : select_with(setting, sample, "meeting", 0);
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
    {"C2", "4 senders, 1 receiver, capacity 128", many_to_one, 0},
    {"C3", "4 senders, 4 receivers, capacity 1024", many_to_many, 0},
    {"C4", "8 tasks, one mutex", mutex, 0},
    {"C5", "select over 8 channels", selecting, 0},
    {NULL, NULL, NULL, 0},
};
