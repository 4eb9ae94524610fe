/*
 * What the objects with waiters and select.c know of each other. A select has a wait in the list of each channel that
 * it waits for, and at most one of them may be served: whoever pops such a wait, under its channel's lock, must claim
 * its select first. The protocol and its proof stand in select.c.
 */
#ifndef WEFT_RUNTIME_SELECT_H
#define WEFT_RUNTIME_SELECT_H

#include "runtime/waitable.h"

/* weft__wait.kind, beside WEFT__QUEUED and WEFT__DETACHED: it is a struct weft__case_wait, and stays one. */
enum { WEFT__OF_SELECT = 2 };

/* In the frame of a select. `claim`: nobody has claimed it, or it has done so itself, or 1 + the index of the case by
 * which a peer has. Only the first may change, once. */
enum { WEFT__UNCLAIMED = 0, WEFT__CLAIMED_BY_ITSELF = -1 };

struct weft__selector {
    _Atomic uint32_t claim;
    struct weft__wait wait; /* settled by the peer that has claimed it */
};

/* A case's wait in the list of a channel. */
struct weft__case_wait {
    struct weft__wait wait;
    struct weft__selector *selector;
    uint32_t index;
};

/*
 * Relaxed: the claim only decides who is first. What belongs to the wait was published with it under the
 * channel's lock, and what the peer does for the select is published by settling selector->wait.
 */
static inline bool weft__selector_claim(struct weft__selector *selector, uint32_t claim)
{
    uint32_t unclaimed = WEFT__UNCLAIMED;

    return atomic_compare_exchange_strong_explicit(&selector->claim, &unclaimed, claim, memory_order_relaxed,
                                                   memory_order_relaxed);
}

static inline bool weft__is_of_select(const struct weft__wait *wait)
{
    return __builtin_expect((wait->kind & WEFT__OF_SELECT) != 0, 0);
}

/*
 * A wait of a select was taken out of a list, whose lock is held. True: the caller has claimed the select by it, and
 * goes on as with any other wait. False: the select is over or belongs to another peer; the caller forgets the wait.
 */
static inline bool weft__select_claim(struct weft__wait *wait)
{
    struct weft__case_wait *of_case = (struct weft__case_wait *)wait;

    wait->kind = WEFT__OF_SELECT | WEFT__DETACHED;
    return weft__selector_claim(of_case->selector, of_case->index + 1);
}

/* What is to be settled when this wait, which was detached and claimed, was served. */
static inline struct weft__wait *weft__select_settles(struct weft__wait *wait)
{
    return weft__is_of_select(wait) ? &((struct weft__case_wait *)wait)->selector->wait : wait;
}

/* In event.c. */
extern const struct weft__waitable weft__event_waitable;

#endif
