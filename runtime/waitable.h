/*
 * Waitables: how to wait for one kind of object, in the form that tasks with a stack, plain threads and stackless tasks
 * share. An object describes itself by two functions (begin, withdraw) over a wait that lies in the caller's frame, or
 * in the record of a stackless task; this header and stackless.c do the rest. Knows park.h and waiters.h only.
 *
 *   begin      under the object's lock: take what is wanted and return 0; or put the wait into the object's list and
 *              return WEFT__BEGUN; or refuse with -errno.
 *   withdraw   the waiter gives up: under the lock, take the wait out of the list and return true; or return false
 *              if it was detached: then its settling is on its way, and will be waited for (waiters.h, 3).
 */
#ifndef WEFT_RUNTIME_WAITABLE_H
#define WEFT_RUNTIME_WAITABLE_H

#include "runtime/waiters.h"

#include <errno.h>

enum { WEFT__BEGUN = 1 };

struct weft__waitable {
    int (*begin)(void *object, struct weft__wait *wait);
    bool (*withdraw)(void *object, struct weft__wait *wait);
};

/* The wait was begun: until it is settled (0), or given up. A task with a stack, or a plain thread. */
static inline __attribute__((always_inline)) int weft__wait_or_withdraw(const struct weft__waitable *how,
                                                                        void *object, struct weft__wait *wait)
{
    int rc = weft__wait(wait);

    if (__builtin_expect(rc == 0, 1) || weft__outcome_of(wait) != WEFT__WAITING)
        return 0;
    if (how->withdraw(object, wait))
        return rc;
    weft__wait_out(wait);
    return 0;
}

/*
 * Take or wait. `slot` is for the object. 0: it was had at once (*wait's outcome is still WEFT__WAITING) or settled;
 * else what refused or interrupted it. The check at the head of the suspension point is the caller's.
 */
static inline __attribute__((always_inline)) int weft__wait_for(const struct weft__waitable *how, void *object,
                                                                struct weft__wait *wait)
{
    int rc;

    wait->task = weft__waiter_self();
    if (__builtin_expect(wait->task == NULL, 0))
        return -ENOMEM;
    rc = how->begin(object, wait);
    return rc == WEFT__BEGUN ? weft__wait_or_withdraw(how, object, wait) : rc;
}

/*
 * The same for the calling stackless task, whose wait lies in its record: WEFT_PENDING, to be called again with the
 * same arguments; 0 with the outcome and the slot stored where they are asked for (may be NULL); or -errno: -EPERM
 * elsewhere, -EBUSY if an operation on another object is pending, -ECANCELED or -ETIMEDOUT. Does the check at the head
 * of the suspension point. In stackless.c.
 */
intptr_t weft__async(const struct weft__waitable *how, void *object, void *slot, enum weft__outcome *outcome,
                     void **slot_after);

/* The same where begin and withdraw need more than the object, in *request; `object` is what the calls have in common. */
intptr_t weft__async_request(const struct weft__waitable *how, const void *object, void *request, void *slot,
                             enum weft__outcome *outcome, void **slot_after);

/* As weft_spawn_stackless, but fn is called at least once, even if the task is cancelled before. In task.c. */
weft_task *weft__spawn_stackless_always(weft_fn *fn, void *arg);

#endif
