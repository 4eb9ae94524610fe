/*
 * The monitor: a thread that notices a worker stuck in one task, hands it to a spare thread, and sees to backlogs
 * that nobody looks at. It ticks only while a worker runs; in an idle process it sleeps without a time-out.
 */
#ifndef WEFT_RUNTIME_MONITOR_H
#define WEFT_RUNTIME_MONITOR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <weft/base.h>

struct weft__monitor {
    _Atomic uint32_t wanted; /* futex: 0 it sleeps without a time-out, 1 it ticks */
    pthread_t thread;
    struct weft__watch *watches; /* one a worker; the monitor's own */
};

/* 0 or -errno. */
int weft__monitor_start(weft_runtime *runtime);

/* Ends the thread. Its caller has set `halting`. */
void weft__monitor_stop(weft_runtime *runtime);

/* A worker begins to run, or the pool has calls that wait: tick. Cheap if it does already. Any thread. */
void weft__monitor_wanted(weft_runtime *runtime);

#endif
