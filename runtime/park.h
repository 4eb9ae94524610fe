/*
 * Waiting: the two operations everything that waits is built on, park and ready, in the form that
 * synchronisation objects use. Implemented by wait.c; nothing that includes this header knows a worker.
 *
 * The pattern of every wait:
 *
 *     if ((rc = weft__suspend_check()) < 0) return rc;         level-triggered cancellation
 *     struct weft__wait wait = {.task = weft__waiter_self()};
 *     lock the object; if it can be had, take it, unlock, return 0; put &wait in its list; unlock
 *     rc = weft__wait(&wait);
 *     if (rc < 0) { lock; if (wait.outcome still WAITING) take it out of the list; else rc = 0; unlock }
 *
 * and of every wake-up:
 *
 *     lock the object; take a wait out of its list; task = weft__settle(wait, GRANTED); unlock
 *     weft__ready(task);
 *
 * After weft__settle the waiter may return and its frame, in which the wait lies, be gone. The task that
 * weft__settle returned may even have ended: weft__ready on it is then a wake-up for nothing, which is
 * allowed, since task records keep their type for ever and every wait looks again after a wake-up.
 */
#ifndef WEFT_RUNTIME_PARK_H
#define WEFT_RUNTIME_PARK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/task.h>

enum weft__outcome { WEFT__WAITING = 0, WEFT__GRANTED = 1, WEFT__CLOSED = 2 };

struct weft__wait {
    weft_task *task; /* who waits: the coroutine, a stackless task, or the record of a plain thread */
    struct weft__wait *next;
    struct weft__wait *prev;
    _Atomic uint32_t outcome; /* written once, by the waker, under the object's lock */
    uint32_t kind;            /* for the object */
    void *slot;               /* for the object: where an element goes, say */
};

/*
 * The waiter of the calling context: the coroutine that runs, or, on a thread outside any runtime, a record
 * kept for that thread. NULL: out of memory (plain threads only), or in a stackless task (whose calls
 * weft__suspend_check has refused before). Must be asked anew after every suspension.
 */
weft_task *weft__waiter_self(void);

/* The same, but NULL outside a task: for calls that are for tasks only (-EPERM). */
weft_task *weft__coroutine_self(void);

/* Is the caller a stackless task, which cannot wait in a call? */
static inline bool weft__in_stackless(void)
{
    return weft_self() && !weft__coroutine_self();
}

/* As weft_mask_begin, but a thread outside any task has nothing to mask, and makes no mistake. True: to be ended by
 * weft_mask_end. */
bool weft__mask_begin(void);

/*
 * The check at the head of every suspension point: -ECANCELED if the calling task is cancelled (and not
 * masked), -EPERM in a stackless task, else 0. Cheap. Always 0 on a plain thread. A task that has passed many
 * of these without having to wait lets others run here: so no lock may be held.
 */
int weft__suspend_check(void);

/*
 * Park until the wait is settled: 0. -ECANCELED or -ETIMEDOUT if the task's cancellation or the deadline of a
 * scope ended it first, -ENOMEM if a deadline could not be stored; then the wait may still be in the object's
 * list, or be settled at that very moment: see the pattern above. A plain thread blocks.
 */
int weft__wait(struct weft__wait *wait);

/* As weft__wait, with a deadline of its own (monotonic clock) besides those of the scopes: 1 when it has passed. */
int weft__wait_deadline(struct weft__wait *wait, int64_t deadline);

/* As weft__wait_deadline, until over(what) holds: for who waits for the first of several waits. It is asked anew after
 * every wake-up. */
int weft__wait_over(weft_task *self, bool (*over)(const void *what), const void *what, int64_t deadline);

/* Settle a wait, under the lock of its object or once it is out of its list; then, without the lock, weft__ready the
 * task it returns. */
static inline weft_task *weft__settle(struct weft__wait *wait, enum weft__outcome outcome)
{
    weft_task *task = wait->task;

    /* release: what the waker did for the waiter is seen by it; pairs with the acquire load in weft__wait */
    atomic_store_explicit(&wait->outcome, outcome, memory_order_release);
    return task;
}

static inline enum weft__outcome weft__outcome_of(const struct weft__wait *wait)
{
    return (enum weft__outcome)atomic_load_explicit(&wait->outcome, memory_order_acquire);
}

/*
 * Make the waiter run again, if it is parked; if it is about to park, it will not. From a task: it runs soon
 * on this worker, after the caller suspends. From any other thread: on the worker it last ran on, which is
 * woken if it sleeps.
 */
void weft__ready(weft_task *waiter);

#endif
