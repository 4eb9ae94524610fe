/* A15, A16, A17: where a runtime could fall off a cliff. (A14 and A12 are with the scheduling they compare with.) */
#include "micro.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

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

/* ---- A17: few connections that are busy all the time: more than one worker can do, in rounds that are short ---- */

enum { BUSY_MOST = 64, MESSAGE = 64 };

struct busy {
    int pairs;
    int64_t settle, measured;
    atomic_int over;
    atomic_long trips;
};

struct busy_end {
    struct busy *busy;
    int fd;
};

static intptr_t return_messages(void *arg)
{
    struct busy_end *end = arg;
    char message[MESSAGE];
    ssize_t n;
    while ((n = weft_read(end->fd, message, sizeof message)) > 0 && weft_write_all(end->fd, message, (size_t)n) == n)
        continue;
    weft_close(end->fd);
    return n;
}

static intptr_t send_messages(void *arg)
{
    struct busy_end *end = arg;
    char message[MESSAGE] = {0};
    ssize_t n = MESSAGE;
    while (n == MESSAGE && !atomic_load_explicit(&end->busy->over, memory_order_relaxed)) {
        n = weft_write_all(end->fd, message, sizeof message);
        if (n == MESSAGE)
            n = weft_read(end->fd, message, sizeof message);
        if (n == MESSAGE)
            atomic_fetch_add_explicit(&end->busy->trips, 1, memory_order_relaxed);
    }
    weft_close(end->fd);
    if (n == MESSAGE)
        return 0;
    return n < 0 ? n : -EPROTO;
}

/* The task closes the descriptor; without one it is closed here, and the other end sees that. */
static weft_task *spawn_end(struct busy_end *end, weft_fn *fn, struct busy *busy, int fd)
{
    *end = (struct busy_end){busy, fd};
    weft_task *task = weft_spawn(fn, end);
    if (!task)
        weft_close(fd);
    return task;
}

static intptr_t keep_busy(void *arg)
{
    struct busy *busy = arg;
    static struct busy_end ends[2 * BUSY_MOST];
    weft_task *tasks[2 * BUSY_MOST] = {NULL};
    intptr_t error = 0;
    for (int i = 0; i < 2 * busy->pairs && !error; i += 2) {
        int fds[2];
        if ((error = weft_socket_pair(SOCK_STREAM, fds)) < 0)
            break;
        tasks[i] = spawn_end(&ends[i], return_messages, busy, fds[0]);
        tasks[i + 1] = spawn_end(&ends[i + 1], send_messages, busy, fds[1]);
        if (!tasks[i] || !tasks[i + 1])
            error = -ENOMEM;
    }
    weft_sleep(busy->settle);
    int64_t start = weft_now();
    long before = atomic_load(&busy->trips);
    weft_sleep(busy->measured);
    long trips = atomic_load(&busy->trips) - before;
    busy->measured = weft_now() - start;
    atomic_store(&busy->over, 1);
    for (int i = 0; i < 2 * busy->pairs; i++) {
        intptr_t ended = tasks[i] ? weft_await(tasks[i]) : 0;
        error = error ? error : ended;
    }
    atomic_store(&busy->trips, trips);
    return error;
}

static int busy_connections(const struct setting *setting, struct sample *sample)
{
    static const struct {
        int pairs;
        const char *part;
    } sizes[] = {{4, "4"}, {8, "8"}, {16, "16"}, {BUSY_MOST, "64"}};
    int error = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !error; i++) {
        if (setting->quick && sizes[i].pairs != 8)
            continue;
        struct busy busy = {.pairs = sizes[i].pairs, .settle = WEFT_MS(500), .measured = WEFT_MS(500)};
        error = (int)weft_runtime_run(setting->runtime, keep_busy, &busy);
        double trips = (double)atomic_load(&busy.trips);
        if (!error)
            add_part(sample, "A17", sizes[i].part, "us", (double)busy.measured / 1e3 / trips);
    }
    return error;
}

const struct workload regime_workloads[] = {
    {"A15", "a ping-pong among 100 000 parked tasks, against alone", hot_among_parked, FRESH | ONE_IN_QUICK},
    {"A16", "a runtime starts, runs one task, and stops", cold_start, OWN_RUNTIME},
    {"A17", "4 to 64 pairs that are always busy, over sockets", busy_connections, ONE_IN_QUICK},
    {NULL, NULL, NULL, 0},
};
