/*
 * Synchronisation between tasks, and between tasks and threads.
 *
 * Small structs, valid when zeroed; nothing to destroy. They must not move or vanish while somebody waits.
 * A task that has to wait parks; a thread outside the runtime blocks. What waits may also return -ENOMEM, having
 * done nothing (weft_cond_wait: has given the mutex back and taken it again): when the record of a thread, or the
 * deadline of a scope, could not be stored. Whoever was woken by an object, or got it, may free it at once, if nobody
 * else is in a call on it: another one that was woken with it may still be leaving.
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
    uint32_t state;  /* private */
    uint32_t misses; /* private */
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
    uint32_t set;        /* private */
    uint32_t generation; /* private */
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

/* ---- read-write lock: first in, first out; readers that wait side by side enter together ---- */

typedef struct weft_rwlock {
    uint32_t state;  /* private */
    uint32_t unused; /* private */
    weft_waiters waiters;
} weft_rwlock;

#define WEFT_RWLOCK_INIT {0, 0, {0, 0}}

/*
 * Lock for reading (together with other readers) or for writing (alone). A reader that comes while a writer waits queues
 * behind it, so writers are not starved; hence a reader must not lock again. 0, or -ECANCELED or -ETIMEDOUT. Any
 * thread; suspension points. -EAGAIN: more than 2^29 - 1 readers.
 */
WEFT_API int weft_rwlock_rdlock(weft_rwlock *rwlock);
WEFT_API int weft_rwlock_wrlock(weft_rwlock *rwlock);

/* 0 or -EBUSY. Any thread; not suspension points. */
WEFT_API int weft_rwlock_tryrdlock(weft_rwlock *rwlock);
WEFT_API int weft_rwlock_trywrlock(weft_rwlock *rwlock);

/* Release a lock held either way. 0, or -EPERM if it is not locked. Any thread; not a suspension point. */
WEFT_API int weft_rwlock_unlock(weft_rwlock *rwlock);

/* ---- condition ---- */

typedef struct weft_cond {
    uint32_t state;      /* private */
    uint32_t generation; /* private */
    weft_waiters waiters;
} weft_cond;

#define WEFT_COND_INIT {0, 0, {0, 0}}

/*
 * Release the mutex, wait to be notified, take the mutex again. 0, or -ECANCELED or -ETIMEDOUT: with the mutex held in
 * every case (taking it again is not interrupted). A waiter that was notified and is interrupted at that moment
 * reports the notification as 0. A wake-up without a notification does not happen, but another task may have been
 * faster: wait in a loop. -EPERM if the mutex is not locked. Any thread; suspension point.
 */
WEFT_API int weft_cond_wait(weft_cond *cond, weft_mutex *mutex);

/* Notify the first waiter, or all. How many. Any thread, with the mutex held or not; not suspension points. */
WEFT_API int weft_cond_signal(weft_cond *cond);
WEFT_API int weft_cond_broadcast(weft_cond *cond);

/* ---- semaphore: first in, first out; a newcomer does not overtake ---- */

typedef struct weft_sem {
    uint32_t state; /* private */
    uint32_t limit; /* private: 1 + the permits there may be; 0: no limit */
    weft_waiters waiters;
} weft_sem;

/* With so many permits, at most 2^30 - 1; bounded: releasing beyond that number is refused. Zeroed memory is a
 * semaphore without permits. The functions return 0, or -EINVAL for more. */
#define WEFT_SEM_INIT(permits) {(uint32_t)(permits) << 2, 0, {0, 0}}
#define WEFT_SEM_BOUNDED_INIT(permits) {(uint32_t)(permits) << 2, (uint32_t)(permits) + 1, {0, 0}}
WEFT_API int weft_sem_init(weft_sem *sem, uint32_t permits);
WEFT_API int weft_sem_init_bounded(weft_sem *sem, uint32_t permits);

/* 0 with a permit, or -ECANCELED or -ETIMEDOUT without. Any thread; suspension point. */
WEFT_API int weft_sem_acquire(weft_sem *sem);

/* 0 or -EAGAIN. Any thread; not a suspension point. */
WEFT_API int weft_sem_try_acquire(weft_sem *sem);

/* Give a permit to the first waiter, or back. Whoever calls it need not have acquired one. 0, or -EOVERFLOW if there would be too many. Any thread; not a suspension
 * point. */
WEFT_API int weft_sem_release(weft_sem *sem);

/* Permits that can be had now. */
WEFT_API uint32_t weft_sem_value(const weft_sem *sem);

/* ---- barrier: a number of parties wait for each other, again and again ---- */

typedef struct weft_barrier {
    uint32_t state; /* private */
    uint32_t parties;
    uint32_t waiting;    /* private */
    uint32_t generation; /* private */
    weft_waiters waiters;
} weft_barrier;

#define WEFT_BARRIER_INIT(parties) {0, (parties), 0, 0, {0, 0}}
/* 0, or -EINVAL: none, or more than 2^31 - 1. */
WEFT_API int weft_barrier_init(weft_barrier *barrier, uint32_t parties);

/*
 * Wait until all parties are here. The last to come does not wait. Returns this party's index, 0 to
 * parties - 1 in order of arrival, without those who gave up; -EPIPE if the
 * barrier was reset or aborted; -ECANCELED, -ETIMEDOUT (this party is then not counted); -EINVAL without parties. Any
 * thread; suspension point.
 */
WEFT_API int weft_barrier_wait(weft_barrier *barrier);

/* Those who wait get -EPIPE; the barrier can be used again, also after an abort. Any thread. */
WEFT_API void weft_barrier_reset(weft_barrier *barrier);

/* Those who wait and all who come get -EPIPE, until a reset. Any thread. */
WEFT_API void weft_barrier_abort(weft_barrier *barrier);

/* Parties that wait now. */
WEFT_API uint32_t weft_barrier_waiting(const weft_barrier *barrier);

/* ---- once ---- */

typedef struct weft_once {
    uint32_t state;  /* private */
    uint32_t unused; /* private */
    weft_waiters waiters;
} weft_once;

#define WEFT_ONCE_INIT {0, 0, {0, 0}}

/*
 * Call fn(arg) if no call through this `once` has succeeded yet; wait for one that is running. 0 when it has been done;
 * the error that fn returned (then the first of those that wait tries again, or the next to come), -ECANCELED,
 * -ETIMEDOUT. fn must not call through the same `once`: that waits for ever. Any thread; suspension point.
 */
WEFT_API int weft_once_do(weft_once *once, weft_fn *fn, void *arg);

/* ---- wait group: wait for a count to become zero ---- */

typedef struct weft_waitgroup {
    uint32_t state;      /* private */
    uint32_t generation; /* private */
    weft_waiters waiters;
} weft_waitgroup;

#define WEFT_WAITGROUP_INIT {0, 0, {0, 0}}

/* Change the count, which begins with zero; zero wakes all who wait. 0, -EINVAL (it would be negative), -EOVERFLOW (more
 * than 2^30 - 1). Any thread; not suspension points. */
WEFT_API int weft_waitgroup_add(weft_waitgroup *group, int32_t change);
WEFT_API int weft_waitgroup_done(weft_waitgroup *group);

/* 0 when the count is or was zero, -ECANCELED, -ETIMEDOUT. Any thread; suspension point. */
WEFT_API int weft_waitgroup_wait(weft_waitgroup *group);

/* ---- notify: wake one task or all, with one permit kept for the next to come ---- */

typedef struct weft_notify {
    uint32_t state;      /* private */
    uint32_t generation; /* private */
    weft_waiters waiters;
} weft_notify;

#define WEFT_NOTIFY_INIT {0, 0, {0, 0}}

/* Wake the first waiter; if there is none, the next wait returns at once (one such permit at most is kept). A waiter that
 * is interrupted at that moment still reports the notification. Any thread. */
WEFT_API void weft_notify_one(weft_notify *notify);

/* Wake all who wait now; keeps no permit for those to come, nor takes one away. Any thread. */
WEFT_API void weft_notify_all(weft_notify *notify);

/* 0, -ECANCELED, -ETIMEDOUT. Any thread; suspension point. */
WEFT_API int weft_notify_wait(weft_notify *notify);

WEFT_END_DECLS

#endif
