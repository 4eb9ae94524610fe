/*
 * weft_broadcast: a ring of the last elements, read by any number of subscribers. Any thread; knows only park.h.
 *
 * Elements are numbered from 0 in the order in which they are sent; the ring has those from `sent` - `capacity` (or 0)
 * up to `sent`. A subscriber is a position: the number of the element that it gets next. One spinlock a channel, over
 * everything in it and in its subscribers. Invariants, whenever the lock is free:
 *
 *   - a subscriber's position is at most `sent`;
 *   - receivers wait only if their position is `sent` and the channel is open.
 *
 * Sending detaches all who wait; they come back for the element themselves, so that a sender copies it once, however
 * many they are. Nothing can go away meanwhile but what the ring loses, and that is counted: a receiver that comes
 * back finds an element or is told what it has missed, it never waits twice for one. A receiver that is cancelled
 * at that moment returns with the element too (waiters.h, 3); one that is cancelled before it has taken anything leaves
 * its position alone, and loses nothing.
 *
 * A receiver that gives up tells by `rounds` whether it was detached, as in event.c.
 */
#include "runtime/waitable.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <weft/broadcast.h>

enum { CACHE_LINE = 64 };

struct weft_broadcast {
    weft__lock lock;
    bool closed;
    uint32_t rounds; /* times that waiters were detached */
    size_t elem_size;
    size_t capacity;
    uint64_t sent;
    size_t next; /* where in the ring the next element goes: sent modulo capacity */
    size_t subscribers;
    weft_waiters receivers;
    _Alignas(16) unsigned char ring[];
};

struct weft_subscriber {
    weft_broadcast *broadcast;
    uint64_t position; /* under the lock of the channel, as is what follows */
    bool occupied;     /* somebody waits, or was woken and has not come back yet */
};

/* ---- the channel ---- */

weft_broadcast *weft_broadcast_new(size_t elem_size, size_t capacity)
{
    size_t bytes;
    weft_broadcast *broadcast;

    if (capacity == 0 || __builtin_mul_overflow(elem_size, capacity, &bytes) ||
        __builtin_add_overflow(bytes, sizeof(*broadcast) + CACHE_LINE, &bytes) || bytes > PTRDIFF_MAX)
        return NULL;
    broadcast = aligned_alloc(CACHE_LINE, bytes & ~((size_t)CACHE_LINE - 1));
    if (broadcast == NULL)
        return NULL;
    memset(broadcast, 0, sizeof(*broadcast));
    broadcast->elem_size = elem_size;
    broadcast->capacity = capacity;
    return broadcast;
}

void weft_broadcast_free(weft_broadcast *broadcast)
{
    free(broadcast);
}

/* Locked. */
static struct weft__wait *take_receivers(weft_broadcast *broadcast)
{
    broadcast->rounds++;
    return weft__waiters_take(&broadcast->receivers);
}

int weft_broadcast_send(weft_broadcast *broadcast, const void *elem)
{
    struct weft__wait *receivers;
    size_t subscribers;

    weft__lock_enter(&broadcast->lock);
    if (broadcast->closed) {
        weft__lock_leave(&broadcast->lock);
        return -EPIPE;
    }
    if (broadcast->elem_size != 0)
        memcpy(broadcast->ring + broadcast->next * broadcast->elem_size, elem, broadcast->elem_size);
    broadcast->next = broadcast->next + 1 == broadcast->capacity ? 0 : broadcast->next + 1;
    broadcast->sent++;
    subscribers = broadcast->subscribers;
    receivers = take_receivers(broadcast);
    weft__lock_leave(&broadcast->lock);
    weft__wake_chain(receivers, WEFT__GRANTED, NULL);
    return subscribers > INT_MAX ? INT_MAX : (int)subscribers;
}

int weft_broadcast_close(weft_broadcast *broadcast)
{
    struct weft__wait *receivers;

    weft__lock_enter(&broadcast->lock);
    if (broadcast->closed) {
        weft__lock_leave(&broadcast->lock);
        return -EALREADY;
    }
    broadcast->closed = true;
    receivers = take_receivers(broadcast);
    weft__lock_leave(&broadcast->lock);
    weft__wake_chain(receivers, WEFT__CLOSED, NULL);
    return 0;
}

/* ---- subscribers ---- */

weft_subscriber *weft_broadcast_subscribe(weft_broadcast *broadcast)
{
    weft_subscriber *subscriber = calloc(1, sizeof(*subscriber));

    if (subscriber == NULL)
        return NULL;
    subscriber->broadcast = broadcast;
    weft__lock_enter(&broadcast->lock);
    subscriber->position = broadcast->sent;
    broadcast->subscribers++;
    weft__lock_leave(&broadcast->lock);
    return subscriber;
}

void weft_broadcast_unsubscribe(weft_subscriber *subscriber)
{
    weft_broadcast *broadcast;

    if (subscriber == NULL)
        return;
    broadcast = subscriber->broadcast;
    weft__lock_enter(&broadcast->lock);
    broadcast->subscribers--;
    weft__lock_leave(&broadcast->lock);
    free(subscriber);
}

/* ---- receiving ---- */

/* Locked: how many elements the ring has lost that the subscriber has not seen; it goes on after them. */
static int64_t skip_lost(weft_subscriber *subscriber)
{
    const weft_broadcast *broadcast = subscriber->broadcast;
    uint64_t behind = broadcast->sent - subscriber->position;

    if (__builtin_expect(behind <= broadcast->capacity, 1))
        return 0;
    subscriber->position = broadcast->sent - broadcast->capacity;
    return (int64_t)(behind - broadcast->capacity);
}

/* Locked, and there is an element. */
static void copy_out(weft_subscriber *subscriber, void *elem)
{
    const weft_broadcast *broadcast = subscriber->broadcast;
    size_t behind = (size_t)(broadcast->sent - subscriber->position);
    size_t index =
        broadcast->next >= behind ? broadcast->next - behind : broadcast->next + broadcast->capacity - behind;

    subscriber->position++;
    if (broadcast->elem_size != 0)
        memcpy(elem, broadcast->ring + index * broadcast->elem_size, broadcast->elem_size);
}

/* Locked. 0, how many were missed, -EPIPE, -EAGAIN. */
static int64_t receive_locked(weft_subscriber *subscriber, void *elem)
{
    const weft_broadcast *broadcast = subscriber->broadcast;
    int64_t missed;

    if (subscriber->position == broadcast->sent)
        return broadcast->closed ? -EPIPE : -EAGAIN;
    missed = skip_lost(subscriber);
    if (missed == 0)
        copy_out(subscriber, elem);
    return missed;
}

int64_t weft_broadcast_try_recv(weft_subscriber *subscriber, void *elem)
{
    weft__lock *lock = &subscriber->broadcast->lock;
    int64_t result;

    weft__lock_enter(lock);
    result = subscriber->occupied ? -EBUSY : receive_locked(subscriber, elem);
    weft__lock_leave(lock);
    return result;
}

/* Does not take the element: what is missed does not fit into the result. The receiver takes it afterwards. */
static int begin(void *object, struct weft__wait *wait)
{
    weft_subscriber *subscriber = object;
    weft_broadcast *broadcast = subscriber->broadcast;
    int rc = 0;

    weft__lock_enter(&broadcast->lock);
    if (subscriber->occupied) {
        rc = -EBUSY;
    } else if (subscriber->position == broadcast->sent && !broadcast->closed) {
        subscriber->occupied = true;
        wait->kind = broadcast->rounds;
        weft__waiters_push(&broadcast->receivers, wait);
        rc = WEFT__BEGUN;
    }
    weft__lock_leave(&broadcast->lock);
    return rc;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_subscriber *subscriber = object;
    weft_broadcast *broadcast = subscriber->broadcast;
    bool queued;

    weft__lock_enter(&broadcast->lock);
    queued = wait->kind == broadcast->rounds;
    if (queued) {
        weft__waiters_remove(&broadcast->receivers, wait);
        subscriber->occupied = false;
    }
    weft__lock_leave(&broadcast->lock);
    return queued;
}

static const struct weft__waitable receiving = {begin, withdraw};

/* The receiver that occupied the subscriber has come back. */
static int64_t receive_after_wait(weft_subscriber *subscriber, void *elem)
{
    weft__lock *lock = &subscriber->broadcast->lock;
    int64_t result;

    weft__lock_enter(lock);
    subscriber->occupied = false;
    result = receive_locked(subscriber, elem);
    weft__lock_leave(lock);
    return result;
}

int64_t weft_broadcast_recv(weft_subscriber *subscriber, void *elem)
{
    int64_t result = weft__suspend_check();

    if (result < 0)
        return result;
    while ((result = weft_broadcast_try_recv(subscriber, elem)) == -EAGAIN) {
        struct weft__wait wait = {.slot = NULL};
        int rc = weft__wait_for(&receiving, subscriber, &wait);

        if (rc < 0)
            return rc;
        if (weft__outcome_of(&wait) != WEFT__WAITING)
            return receive_after_wait(subscriber, elem);
    }
    return result;
}
