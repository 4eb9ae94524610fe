/*
 * The monitor: a thread that notices a worker stuck in one task, hands it to a spare thread, and sees to backlogs
 * that nobody looks at. It ticks only while a worker runs; in an idle process it sleeps without a time-out. Its ticks
 * are also when the workers' share of the processors is looked at (crowd.h).
 *
 * A task may say that it is about to block its thread (weft_block_begin). While the monitor sees tasks do so it is
 * *attentive*: it ticks often enough to hand their workers over within some 100 µs. That costs a few percent of a
 * processor, so it stays attentive only for a moment after it last saw one; a task that blocks then wakes it,
 * at most once in that time.
 */
#ifndef WEFT_RUNTIME_MONITOR_H
#define WEFT_RUNTIME_MONITOR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/base.h>

enum weft__attention {
    WEFT__INATTENTIVE, /* it sleeps until its next tick */
    WEFT__ATTENTIVE,   /* it ticks fast, or is to, or is to end */
    WEFT__CALLED       /* it sleeps, and its next tick is to come soon */
};

struct weft__driver;

struct weft__monitor {
    _Atomic uint32_t wanted;    /* futex: 0 it sleeps without a time-out, 1 it ticks */
    _Atomic uint32_t attentive; /* futex: an enum weft__attention */
    _Atomic uint32_t calm;      /* 1: it sleeps for so long that who waits for its tick should call */
    /* The monitor's own: */
    pthread_t thread;
    struct weft__watch *watches; /* one a worker */
    unsigned without_section;    /* ticks in a row without one */
    int64_t suspected_at;        /* when a worker was last found where it was a tick before */
    int64_t pause;               /* until this tick */
    bool in_doubt;               /* at this tick one had not looked around for long, or calls wait for the pool */
};

/* 0 or -errno. */
int weft__monitor_start(weft_runtime *runtime);

/* Ends the thread. Its caller has set `halting`. */
void weft__monitor_stop(weft_runtime *runtime);

/* A worker begins to run, or the pool has calls that wait: tick. Cheap if it does already. Any thread. */
void weft__monitor_wanted(weft_runtime *runtime);

/* As weft__monitor_wanted, for who waits for the next tick, which may be a long way off. Any thread. */
void weft__monitor_hurry(weft_runtime *runtime);

/* What the kernel says of a worker's thread: a file of its /proc/self/task/N, up to size - 1 bytes, terminated. False if
 * it cannot be read. Any thread, while the driver is not freed. */
bool weft__thread_file(const struct weft__driver *driver, const char *name, char *text, size_t size);

/* A task is about to block its thread. Cheap if the monitor is attentive already. Any thread. */
void weft__monitor_attend(weft_runtime *runtime);

#endif
