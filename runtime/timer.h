/*
 * Deadlines of a worker: a 4-ary heap under a spinlock.
 *
 * A worker's tasks set and cancel their deadlines in its heap; a task that resumes elsewhere cancels it there,
 * and a peer expires the deadlines of a worker that is stuck: hence the lock, which is nearly always free. The
 * heap holds (time, slot) pairs side by side and never follows a pointer to the sleeper, whose stack is cold.
 */
#ifndef WEFT_RUNTIME_TIMER_H
#define WEFT_RUNTIME_TIMER_H

#include <stdint.h>

#include <weft/base.h>

#include "runtime/lock.h"

struct weft__timer_entry {
    int64_t when;
    uint32_t slot;
};

/* Where a deadline lies in the heap; a free slot links to the next. */
struct weft__timer_slot {
    weft_task *task;
    uint32_t position;
    uint32_t generation; /* counts uses, so that cancelling a deadline that has fired finds nothing */
};

struct weft__timers {
    weft__lock lock;
    uint32_t count;
    uint32_t capacity;
    uint32_t free_slot;
    struct weft__timer_entry *heap;
    struct weft__timer_slot *slots;
    _Atomic int64_t earliest; /* INT64_MAX: none; written under the lock, read by anybody as a hint */
    _Atomic uint32_t hint;    /* how many deadlines, roughly: the same */
};

/* A deadline that was set: in the waiter's frame. */
struct weft__timer {
    struct weft__timers *timers;
    uint32_t slot;
    uint32_t generation;
};

void weft__timers_init(struct weft__timers *timers);
void weft__timers_free(struct weft__timers *timers);

/*
 * At `when`, make the task ready. 1 if it is now the earliest, 0 if not, -ENOMEM. Any thread.
 */
int weft__timer_set(struct weft__timers *timers, struct weft__timer *timer, int64_t when, weft_task *task);

/* Any thread. Nothing happens if it has fired. */
void weft__timer_cancel(struct weft__timer *timer);

/*
 * Take out up to `max` tasks whose deadline is not later than `now`. Any thread. The caller
 * makes them ready.
 */
unsigned weft__timers_expire(struct weft__timers *timers, int64_t now, weft_task **tasks, unsigned max);

static inline int64_t weft__timers_earliest(const struct weft__timers *timers)
{
    return atomic_load_explicit(&timers->earliest, memory_order_relaxed);
}

#endif
