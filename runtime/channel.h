/*
 * What select.c needs of a channel: its lock, its lists, and sending and receiving under the lock. The invariants
 * stand in channel.c. Any thread.
 */
#ifndef WEFT_RUNTIME_CHANNEL_H
#define WEFT_RUNTIME_CHANNEL_H

#include <weft/channel.h>

#include "runtime/select.h"
#include "runtime/waiters.h"

struct weft__segment;

struct weft_chan {
    weft__lock lock;
    _Atomic bool closed; /* written under the lock */
    bool selected;       /* a select has waited here: waits of selects may be in the lists */
    size_t elem_size;
    _Atomic size_t count; /* written under the lock */
    size_t capacity;
    unsigned char *tail; /* where the next element goes, or the end of tail_segment */
    unsigned char *head; /* the oldest element, or the end of head_segment; means nothing while count is 0 */
    weft_waiters receivers;
    weft_waiters senders;
    struct weft__segment *tail_segment; /* NULL as long as there is no memory for elements */
    struct weft__segment *head_segment;
    struct weft__segment *spare;
};

/*
 * Locked. 0 with *receiver the wait to wake (weft__chan_wake), if the element went to one; -EPIPE, -EAGAIN; -ENOMEM
 * if an unbounded channel needs memory first.
 */
int weft__chan_send_locked(weft_chan *chan, const void *elem, struct weft__wait **receiver);

/* Locked. 0 with *sender the wait to wake, if there is one; -EPIPE, -EAGAIN. */
int weft__chan_recv_locked(weft_chan *chan, void *elem, struct weft__wait **sender);

/* Without the lock: settle a wait that was detached, or the select it belongs to, and make the waiter ready. */
static inline void weft__chan_wake(struct weft__wait *wait, enum weft__outcome outcome)
{
    weft__wake(weft__select_settles(wait), outcome);
}

/*
 * Would a receive (a send) have to wait? A look without the lock: true only if it was so at the time of the
 * call. A channel with room for elements that is empty (full) has no waiting senders (receivers); with `count`
 * read first, one that is still open afterwards was open then. Acquire: keeps that order. Of a rendezvous, nothing
 * can be told without the lock.
 */
static inline bool weft__chan_recv_waits(const weft_chan *chan)
{
    return chan->capacity != 0 && atomic_load_explicit(&chan->count, memory_order_acquire) == 0 &&
           !atomic_load_explicit(&chan->closed, memory_order_relaxed);
}

static inline bool weft__chan_send_waits(const weft_chan *chan)
{
    return chan->capacity != 0 && atomic_load_explicit(&chan->count, memory_order_acquire) == chan->capacity &&
           !atomic_load_explicit(&chan->closed, memory_order_relaxed);
}

/* Locked, by a waiter that gives up: take its wait out of `list`, if it is there. False: it was detached. */
static inline bool weft__chan_remove(weft_chan *chan, weft_waiters *list, struct weft__wait *wait)
{
    if ((wait->kind & WEFT__DETACHED) || atomic_load_explicit(&chan->closed, memory_order_relaxed))
        return false;
    weft__waiters_remove(list, wait);
    return true;
}

#endif
