/*
 * weft_waitgroup: wait for a count to become zero. Any thread; knows only waitable.h.
 *
 * The state word: bit 0 the lock over the list and the word (waiters.h), QUEUED (the list is not empty), and the
 * count, in steps of ONE. Invariant, whenever bit 0 is clear: QUEUED implies that the count is not zero.
 *
 * A change is one compare-and-swap, also while somebody waits, unless it makes the count zero then: that one enters,
 * detaches the whole list, counts (`generation`; waiters.h, weft__withdraw_counted) and publishes zero by the store
 * that leaves. So whoever sees zero, with or without the lock, may free the group.
 */
#include "runtime/waitable.h"

#include <weft/stackless.h>

enum { QUEUED = 2, ONE = 4, COUNT_MOST = (1 << 30) - 1 };

/* The state after a change: *next, and 0; or -EINVAL, -EOVERFLOW. */
static inline int change_of(uint32_t state, int32_t change, uint32_t *next)
{
    int64_t count = (int64_t)(state / ONE) + change;

    if (count < 0)
        return -EINVAL;
    if (count > COUNT_MOST)
        return -EOVERFLOW;
    *next = (uint32_t)count * ONE | (state & QUEUED);
    return 0;
}

static inline bool is_last(uint32_t next)
{
    return next == QUEUED;
}

static __attribute__((noinline)) int change_contended(weft_waitgroup *group, int32_t change)
{
    _Atomic uint32_t *word = weft__word_of(&group->state);
    uint32_t state = weft__word_enter(word), next = state;
    int rc = change_of(state, change, &next);
    struct weft__wait *chain = NULL;

    if (rc == 0 && is_last(next)) {
        chain = weft__waiters_take(&group->waiters);
        group->generation += WEFT__GENERATION;
        next = 0;
    }
    weft__word_leave(word, next);
    weft__wake_chain(chain, WEFT__GRANTED, NULL);
    return rc;
}

int weft_waitgroup_add(weft_waitgroup *group, int32_t change)
{
    _Atomic uint32_t *word = weft__word_of(&group->state);
    uint32_t state = atomic_load_explicit(word, memory_order_relaxed), next;

    while (!(state & WEFT__WORD_LOCK)) {
        int rc = change_of(state, change, &next);

        if (rc < 0)
            return rc;
        if (is_last(next))
            break;
        /* release: what came before is seen by those who see zero; acquire: the last one takes that of the others to
         * whom it wakes (their changes, as read-modify-writes, are one release sequence) */
        if (atomic_compare_exchange_weak_explicit(word, &state, next, memory_order_acq_rel, memory_order_relaxed))
            return 0;
    }
    return change_contended(group, change);
}

int weft_waitgroup_done(weft_waitgroup *group)
{
    return weft_waitgroup_add(group, -1);
}

static int begin(void *object, struct weft__wait *wait)
{
    weft_waitgroup *group = object;
    _Atomic uint32_t *word = weft__word_of(&group->state);
    uint32_t state = weft__word_enter(word);

    if (state < ONE) {
        weft__word_leave(word, state);
        return 0;
    }
    wait->kind = group->generation;
    weft__waiters_push(&group->waiters, wait);
    weft__word_leave(word, state | QUEUED);
    return WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_waitgroup *group = object;

    return weft__withdraw_counted(weft__word_of(&group->state), &group->waiters, wait, &group->generation, QUEUED);
}

static const struct weft__waitable waitable = {begin, withdraw};

int weft_waitgroup_wait(weft_waitgroup *group)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    /* acquire: pairs with the release of the change that made it zero */
    if (atomic_load_explicit(weft__word_of(&group->state), memory_order_acquire) < ONE)
        return 0;
    return weft__wait_for(&waitable, group, &wait);
}

intptr_t weft_async_waitgroup(weft_waitgroup *group)
{
    return weft__async(&waitable, group, NULL, NULL, NULL);
}
