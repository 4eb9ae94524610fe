/*
 * Synchronisation between tasks, and between tasks and threads.
 *
 * Small structs, valid when zeroed; nothing to destroy. They must not move or vanish while somebody waits.
 * A task that has to wait parks; a thread outside the runtime blocks.
 */
#ifndef WEFT_SYNC_H
#define WEFT_SYNC_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* Private: a FIFO list of waiters. */
typedef struct weft_waiters {
    void *head;
    void *tail;
} weft_waiters;

/* ---- mutex: first in, first out; a newcomer does not overtake those that wait ---- */

typedef struct weft_mutex {
    uint32_t state; /* private */
    uint32_t lock;  /* private */
    weft_waiters waiters;
} weft_mutex;

#define WEFT_MUTEX_INIT {0, 0, {0, 0}}

/*
 * Returns 0 with the mutex held, or -ECANCELED or -ETIMEDOUT without it. Locking one that the caller holds
 * waits for ever. Any thread; suspension point.
 */
WEFT_API int weft_mutex_lock(weft_mutex *mutex);

/* 0 with the mutex held, or -EBUSY. Any thread; not a suspension point. */
WEFT_API int weft_mutex_trylock(weft_mutex *mutex);

/* Hands the mutex to the first waiter, if there is one. 0, or -EPERM if it is not locked. Any thread; not a
 * suspension point. */
WEFT_API int weft_mutex_unlock(weft_mutex *mutex);

/* ---- event: a flag to wait for ---- */

typedef struct weft_event {
    uint32_t set;  /* private */
    uint32_t lock; /* private */
    weft_waiters waiters;
} weft_event;

#define WEFT_EVENT_INIT {0, 0, {0, 0}}

/* Set the flag and wake all who wait; a clear right after does not take that back. Any thread; not a suspension
 * point. */
WEFT_API void weft_event_set(weft_event *event);
WEFT_API void weft_event_clear(weft_event *event);
WEFT_API int weft_event_is_set(const weft_event *event);

/* Returns 0 once the flag is or was set, -ECANCELED, -ETIMEDOUT. Any thread; suspension point. */
WEFT_API int weft_event_wait(weft_event *event);

WEFT_END_DECLS

#endif
