/*
 * A watcher: one caller waits for the ends of several tasks. What gather, the weft_wait_* calls, shield and the iterator
 * over completed tasks share. A watcher lies in the caller's frame; it is begun, waited on as often as wanted, and
 * ended by the same task or thread. Built on ends.h and waitable.h.
 */
#ifndef WEFT_RUNTIME_WATCHER_H
#define WEFT_RUNTIME_WATCHER_H

#include "runtime/ends.h"
#include "runtime/park.h"

#include <stddef.h>

/* What a wait is for, besides the end of the last one, which ends every wait. */
enum weft__until {
    WEFT__UNTIL_ALL,     /* nothing else */
    WEFT__UNTIL_ERROR,   /* a result that is an error, cancelled ones included */
    WEFT__UNTIL_FAILURE, /* the same, cancelled ones not included */
    WEFT__UNTIL_ANY,     /* any end */
    WEFT__UNTIL_EACH     /* each end: those that have ended are kept in a list */
};

/* In a public structure it lies in plain words. */
struct __attribute__((may_alias)) weft__watcher {
    struct weft__ends ends; /* first: its address is that of the watcher */
    uint32_t word;          /* waiters.h; see watcher.c */
    uint32_t until;         /* enum weft__until */
    size_t left;            /* tasks of which `ended` will be called */
    struct weft__wait *waiter;
    intptr_t result;         /* of the first one that was enough */
    weft_task *first, *last; /* WEFT__UNTIL_EACH: have ended, not taken yet */
    weft_runtime *runtime;   /* the caller's */
};

/*
 * Begin to watch the tasks. NULL handles are skipped, double ones count once. 0; -EBUSY: somebody awaits one
 * of them, -EDEADLK: one is the caller: nothing is watched then.
 */
int weft__watcher_begin(struct weft__watcher *watcher, enum weft__until until, weft_task *const *tasks,
                        size_t count);

/* Wait until it is enough, or all have ended: 0; or -ECANCELED, -ETIMEDOUT, -ENOMEM. No check at its head. */
int weft__watcher_wait(struct weft__watcher *watcher);

/* Wait until all have ended, whatever happens. */
void weft__watcher_wait_for_all(struct weft__watcher *watcher);

/* WEFT__UNTIL_EACH: take the task that ended first out of the list, or NULL. */
weft_task *weft__watcher_take(struct weft__watcher *watcher);

/*
 * The end, in three steps. After the first (count: how many were WEFT__UNDONE) no `ended` runs any more, so records may
 * be freed; then the visits that keep the tasks' runtimes alive end.
 */
void weft__watcher_settle(struct weft__watcher *watcher, size_t undone);
void weft__watcher_end_visits(const struct weft__watcher *watcher, weft_task *const *tasks, size_t count);

/* Stop watching all of them. After the end of the visits tasks of other runtimes may be gone. */
void weft__watcher_unwatch(struct weft__watcher *watcher, weft_task *const *tasks, size_t count);

/* All in one, if the handles stay the caller's. */
void weft__watcher_end(struct weft__watcher *watcher, weft_task *const *tasks, size_t count);

#endif
