/*
 * The runtime: what all its workers share. Made by weft_runtime_start, ended by weft_runtime_stop.
 */
#ifndef WEFT_RUNTIME_RUNTIME_H
#define WEFT_RUNTIME_RUNTIME_H

#include <pthread.h>
#include <weft/runtime.h>

#include "runtime/blocking.h"
#include "runtime/crowd.h"
#include "runtime/fork.h"
#include "runtime/idle.h"
#include "runtime/monitor.h"
#include "runtime/record.h"
#include "runtime/worker.h"

/* What threads outside need that hand over work; several of these, so that they keep out of each other's way. */
struct weft__outside {
    _Atomic uint32_t visitors;
    weft__lock lock; /* of `records` */
    _Atomic uint64_t spawned;
    struct weft__records records;
} __attribute__((aligned(64)));

enum { WEFT__OUTSIDES = 8 };

struct weft_runtime {
    /* Fixed after the start. */
    weft_config config;
    uint32_t worker_count;
    uint32_t forks; /* weft__forks of the process that its threads are in */
    struct weft__worker *workers;
    struct weft__stack_pool *stacks;
    struct weft__depot *depot;
    struct weft__pool *pool;
    struct weft__monitor monitor;
    struct weft__crowd crowd;
    weft_runtime *next_inspected; /* inspect.c's */

    struct weft__idle idle;

    /* Threads. */
    pthread_mutex_t drivers_lock;
    struct weft__driver *drivers; /* under the lock; only grows */
    struct weft__driver *spares;  /* under the lock: threads without a worker that wait for one */
    uint32_t spare_threads;       /* threads beyond the N, under the lock */

    /* Stopping: first no more work is taken from outside, then the threads end. */
    _Atomic uint32_t stopping;
    _Atomic uint32_t halting;
    _Atomic uint32_t visitors; /* who is outside and relies on the runtime: nothing is freed before they left */
    struct weft__outside outside[WEFT__OUTSIDES];
    _Atomic uint64_t takeovers;
    _Atomic uint64_t external_spawned, external_ended; /* tasks made and ended outside the workers */
};

/* A spare thread, reserved for the caller: one that waits, or a new one. NULL: none can be had, or their limit is
 * reached. */
struct weft__driver *weft__runtime_take_spare(weft_runtime *runtime);

/* Give it the worker to drive. */
void weft__runtime_give_worker(struct weft__driver *driver, struct weft__worker *worker);

/* It is not needed after all. */
void weft__runtime_return_spare(struct weft__driver *driver);

/* Called by a driver without a worker: wait for one. False: the thread is to end. */
bool weft__runtime_wait_for_worker(struct weft__driver *driver);

/* A task failed and nobody awaits it; or something else of that kind, with a name. Not inside a worker. */
void weft__runtime_report(weft_runtime *runtime, const weft_task *task, intptr_t result);
void weft__runtime_report_named(weft_runtime *runtime, const char *name, intptr_t result);

/* Is this the child of a fork, where the runtime's threads are not? */
static inline bool weft__is_elsewhere(const weft_runtime *runtime)
{
    return __builtin_expect(runtime->forks != weft__forks, 0);
}

/*
 * Somebody outside relies on the runtime or its tasks: until the end of the visit, stopping waits. May end on another
 * thread.
 */
static inline void weft__visit(weft_runtime *runtime)
{
    atomic_fetch_add_explicit(&runtime->visitors, 1, memory_order_seq_cst);
}

static inline void weft__end_visit(weft_runtime *runtime)
{
    /* release: pairs with the load in is_visited */
    atomic_fetch_sub_explicit(&runtime->visitors, 1, memory_order_release);
}

/*
 * The same for a moment, by the calling thread, which leaves where it entered. Comes before `stopping` is read: a
 * stopper that has set that and then sees no visitor knows that nobody will still hand over work.
 */
struct weft__outside *weft__outside_enter(weft_runtime *runtime);

static inline void weft__outside_leave(struct weft__outside *outside)
{
    /* release: pairs with the load in is_visited */
    atomic_fetch_sub_explicit(&outside->visitors, 1, memory_order_release);
}

/* Ask one sleeping worker to look for work, unless one is looking. True: one was woken. Any thread. */
bool weft__wake_searcher(weft_runtime *runtime);

#endif
