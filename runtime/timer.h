/*
 * Deadlines of a worker: a 4-ary heap for those that are near, a hierarchical wheel for the others, under a spinlock.
 *
 * A worker's tasks set and cancel their deadlines there; a task that resumes elsewhere cancels it where it was set,
 * and a peer expires the deadlines of a worker that is stuck: hence the lock, which is nearly always free.
 *
 * Most deadlines are cancelled long before they pass, and there may be a hundred thousand of them: in the wheel
 * (Varghese and Lauck, 1987) setting and cancelling one is putting it into a list and taking it out. Time is counted in
 * ticks of about a millisecond there. As the wheel turns, what is in the next tick moves to the heap, which keeps the
 * exact order and the resolution of the clock: all deadlines in ticks before `cursor` are in the heap. A few
 * others are too, since a small heap is the faster of the two.
 *
 * Neither follows a pointer to the sleeper, whose stack is cold.
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

/* A deadline; a free slot links to the next. */
struct weft__timer_slot {
    weft_task *task;
    int64_t when;
    uint32_t position;   /* in the heap; in the wheel: WEFT__IN_WHEEL and the bucket */
    uint32_t generation; /* counts uses, so that cancelling a deadline that has fired finds nothing */
    uint32_t next, prev; /* in the bucket */
};

enum {
    WEFT__WHEEL_LEVELS =
        4, /* a bucket of level n is 64^n ticks: the wheel reaches hours, what is later is in the heap */
    WEFT__WHEEL_BUCKETS = 64
};

struct weft__timer_bucket {
    int64_t least; /* none is earlier, perhaps all are later */
    uint32_t first;
};

struct weft__timers {
    weft__lock lock;
    uint32_t count; /* of the heap */
    uint32_t capacity;
    uint32_t free_slot;
    struct weft__timer_entry *heap;
    struct weft__timer_slot *slots;
    _Atomic int64_t earliest; /* no deadline is earlier; INT64_MAX: none. Written under the lock, read by anybody */
    _Atomic uint32_t hint;    /* how many deadlines, roughly: the same */
    uint32_t far_count;       /* of the wheel */
    int64_t far;              /* no deadline of the wheel is earlier; INT64_MAX: none */
    uint64_t cursor;          /* the tick that it is at */
    uint64_t occupied[WEFT__WHEEL_LEVELS];
    struct weft__timer_bucket buckets[WEFT__WHEEL_LEVELS][WEFT__WHEEL_BUCKETS];
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
