/*
 * The hot paths, for an instruction counter: each is repeated on one worker while callgrind counts, which is told by
 * the path's name when to begin anew. run.sh starts this under callgrind and compares with counts.txt; without
 * callgrind it only runs. Times swing by a tenth from run to run, counts hardly do.
 *
 * A path is a function that a task runs; what it needs beside it (a partner, a descriptor) it makes itself, before
 * `begin`. One operation is what the path's comment says.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <valgrind/callgrind.h>
#include <weft.h>

enum { TIMES = 20000, WARM = 1000 };

#define must(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

/* Repeat `operation`: a while to warm up, then counted. */
#define REPEAT(name, operation)         \
    do {                                \
        for (int i = 0; i < WARM; i++)  \
            operation;                  \
        CALLGRIND_ZERO_STATS;           \
        for (int i = 0; i < TIMES; i++) \
            operation;                  \
        CALLGRIND_DUMP_STATS_AT(name);  \
    } while (0)

static intptr_t nothing(void *arg)
{
    return (intptr_t)arg;
}

/* A task to await, which has to run on a stack of its own. */
static intptr_t yields(void *unused)
{
    (void)unused;
    return weft_yield();
}

static int over;

static intptr_t yields_for_ever(void *unused)
{
    (void)unused;
    while (!over)
        must(weft_yield() == 0);
    return 0;
}

/* Two switches: to the other task and back. */
static void path_switch(void)
{
    weft_task *other = weft_spawn(yields_for_ever, NULL);

    over = 0;
    REPEAT("yield between two tasks", must(weft_yield() == 0));
    over = 1;
    must(weft_await(other) == 0);
}

/* A task that runs in the place of the one that awaits it. */
static void path_spawn_await(void)
{
    REPEAT("spawn and await", must(weft_await(weft_spawn(nothing, NULL)) == 0));
}

/* A task that runs on a stack of its own, since it was not awaited before it began. */
static void path_go(void)
{
    REPEAT("go and let it run", must(weft_go(nothing, NULL) == 0 && weft_yield() == 0));
}

/* A task that parks, so that the awaiting one does too. */
static void path_await_parked(void)
{
    REPEAT("spawn and await one that yields", must(weft_await(weft_spawn(yields, NULL)) == 0));
}

static void path_stackless(void)
{
    REPEAT("stackless task", must(weft_await(weft_spawn_stackless(nothing, NULL)) == 0));
}

static void path_group(void)
{
    weft_group group;

    REPEAT("group of one", must(weft_group_begin(&group) == 0 && weft_group_spawn(&group, nothing, NULL) == 0 &&
                                weft_group_wait(&group) == 0));
}

static weft_notify there, back;

static intptr_t answers(void *unused)
{
    (void)unused;
    while (weft_notify_wait(&there) == 0 && !over)
        weft_notify_one(&back);
    return 0;
}

static int there_and_back(void)
{
    weft_notify_one(&there);
    return weft_notify_wait(&back);
}

/* Two tasks park and make each other ready. */
static void path_ready(void)
{
    weft_task *other = weft_spawn(answers, NULL);

    over = 0;
    REPEAT("park and ready, round trip", must(there_and_back() == 0));
    over = 1;
    weft_notify_one(&there);
    must(weft_await(other) == 0);
}

static weft_chan *to_other, *from_other;

static intptr_t echoes(void *unused)
{
    int value;

    (void)unused;
    while (weft_chan_recv(to_other, &value) == 0)
        must(weft_chan_send(from_other, &value) == 0);
    return 0;
}

static void path_channel(void)
{
    weft_task *other;
    int value = 1;

    to_other = weft_chan_new(sizeof value, 1);
    from_other = weft_chan_new(sizeof value, 1);
    must(to_other && from_other);
    other = weft_spawn(echoes, NULL);
    REPEAT("channel round trip",
           must(weft_chan_send(to_other, &value) == 0 && weft_chan_recv(from_other, &value) == 0));
    weft_chan_close(to_other);
    must(weft_await(other) == 0);
    weft_chan_free(to_other);
    weft_chan_free(from_other);
}

/* Nobody waits: in and out again. */
static void path_channel_buffer(void)
{
    weft_chan *chan = weft_chan_new(sizeof(int), 8);
    int value = 1;

    must(chan);
    REPEAT("channel send and receive without a wait",
           must(weft_chan_send(chan, &value) == 0 && weft_chan_recv(chan, &value) == 0));
    weft_chan_free(chan);
}

static void path_select(void)
{
    weft_chan *chans[2] = {weft_chan_new(sizeof(int), 8), weft_chan_new(sizeof(int), 8)};
    int value = 1;
    weft_case cases[] = {WEFT_CASE_RECV(chans[0], &value), WEFT_CASE_RECV(chans[1], &value)};

    must(chans[0] && chans[1]);
    REPEAT("select one of two that is ready",
           must(weft_chan_send(chans[1], &value) == 0 && weft_select(cases, 2) == 1));
    weft_chan_free(chans[0]);
    weft_chan_free(chans[1]);
}

static void path_mutex(void)
{
    weft_mutex mutex = WEFT_MUTEX_INIT;

    REPEAT("lock and unlock", must(weft_mutex_lock(&mutex) == 0 && weft_mutex_unlock(&mutex) == 0));
}

static void path_sem(void)
{
    weft_sem sem = WEFT_SEM_INIT(1);

    REPEAT("acquire and release", must(weft_sem_acquire(&sem) == 0 && weft_sem_release(&sem) == 0));
}

static void path_timeout(void)
{
    weft_timeout timeout;

    REPEAT("set and cancel a deadline",
           must(weft_timeout_begin(&timeout, WEFT_SEC(10)) == 0 && weft_timeout_end(&timeout) == 0));
}

static intptr_t sets_and_waits(void *unused)
{
    weft_timeout timeout;

    (void)unused;
    must(weft_timeout_begin(&timeout, WEFT_SEC(10)) == 0 && weft_yield() == 0 && weft_timeout_end(&timeout) == 0);
    return 0;
}

/* The deadline of a task that suspends under it. */
static void path_timeout_suspended(void)
{
    REPEAT("deadline over a suspension", must(sets_and_waits(NULL) == 0));
}

static int pair[2];

/* The descriptor is ready: one system call each. */
static void path_fd_hit(void)
{
    char byte = 1;

    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    REPEAT("write and read what is there",
           must(weft_write(pair[0], &byte, 1) == 1 && weft_read(pair[1], &byte, 1) == 1));
    weft_close(pair[0]);
    weft_close(pair[1]);
}

static intptr_t sends_back(void *unused)
{
    char byte;

    (void)unused;
    while (weft_read(pair[1], &byte, 1) == 1)
        must(weft_write(pair[1], &byte, 1) == 1);
    return 0;
}

/* Both wait for their descriptor each time. */
static void path_fd_miss(void)
{
    weft_task *other;
    char byte = 1;

    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    other = weft_spawn(sends_back, NULL);
    REPEAT("socket round trip", must(weft_write(pair[0], &byte, 1) == 1 && weft_read(pair[0], &byte, 1) == 1));
    weft_close(pair[0]);
    must(weft_await(other) == 0);
    weft_close(pair[1]);
}

static intptr_t counts(void *unused)
{
    (void)unused;
    for (intptr_t i = 0;; i++)
        if (weft_gen_yield(i) < 0)
            return 0;
}

static void path_generator(void)
{
    weft_gen *gen = weft_gen_new(counts, NULL);
    intptr_t value;

    must(gen);
    REPEAT("next of a generator", must(weft_gen_next(gen, &value) == 1));
    must(weft_gen_close(gen) == 0);
    weft_gen_free(gen);
}

static intptr_t all_paths(void *unused)
{
    (void)unused;
    path_switch();
    path_spawn_await();
    path_go();
    path_await_parked();
    path_stackless();
    path_group();
    path_ready();
    path_channel();
    path_channel_buffer();
    path_select();
    path_mutex();
    path_sem();
    path_timeout();
    path_timeout_suspended();
    path_generator();
    path_fd_hit();
    path_fd_miss();
    return 0;
}

int main(void)
{
    /* One worker, and nobody who takes over what valgrind makes slow. */
    weft_config config = {.workers = 1, .takeover_us = WEFT_NEVER};
    weft_runtime *runtime;
    intptr_t result;

    must(weft_runtime_start(&config, &runtime) == 0);
    result = weft_runtime_run(runtime, all_paths, NULL);
    must(weft_runtime_stop(runtime, WEFT_FOREVER) == 0);
    printf("%d\n", TIMES);
    return result != 0;
}
