/*
 * weft_chan: a queue of elements of one size between senders and receivers. Any thread; knows only park.h.
 *
 * One spinlock a channel, over everything in it. Invariants, whenever the lock is free:
 *
 *   - at most one of the lists has waits in it;
 *   - receivers wait only if the channel is empty and open;
 *   - senders wait only if the channel is full (count == capacity) and open.
 *
 * So a sender that finds a receiver waiting is the next in order, and copies its element straight to where the
 * receiver wants it (wait.slot); a receiver that makes room moves the element of the first waiting sender in, at
 * the tail, where it belongs; with capacity 0 it copies it from the sender's slot to its own. Both copies
 * happen under the lock, from or to the frame of a waiter that cannot leave: a wait ends by being settled, which
 * comes after the copy, or by its waiter giving up, which takes the lock and finds the wait detached. Hence an
 * element is moved exactly when its wait is detached, and a wait that was detached is always settled (waiters.h):
 * a waiter that is cancelled at that moment returns 0, with the element, or with its own element gone.
 *
 * Closing detaches both lists for good. `closed` never goes back, so a waiter that gives up and finds it was
 * detached, by the one or the other; which of them, its outcome tells.
 *
 * As everywhere (waiters.h), waits are settled after the lock was left, and that is the last access: who
 * receives the last element of a channel may free it at once.
 *
 * Elements lie in segments. A bounded channel has one, which is its own next: a ring, and no allocation after
 * weft_chan_new. An unbounded one has a chain of segments, each allocated by the sender that needs it,
 * outside the lock; a segment that was drained is kept for the next need, further ones are freed.
 */
#include "runtime/waiters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/channel.h>

enum { CACHE_LINE = 64 };

/* An unbounded channel's segment: about a page, at least a handful of elements. */
enum { SEGMENT_BYTES = 4000, SEGMENT_LEAST = 8 };

struct segment {
    struct segment *next;
    unsigned char *end;
    _Alignas(16) unsigned char elements[];
};

struct weft_chan {
    weft__lock lock;
    bool closed;
    size_t elem_size;
    size_t count;
    size_t capacity;
    unsigned char *tail; /* where the next element goes, or the end of tail_segment */
    unsigned char *head; /* the oldest element, or the end of head_segment; means nothing while count is 0 */
    weft_waiters receivers;
    weft_waiters senders;
    struct segment *tail_segment; /* NULL as long as there is no memory for elements */
    struct segment *head_segment;
    struct segment *spare;
};

/* ---- elements ---- */

static inline void copy(const weft_chan *chan, void *to, const void *from)
{
    /* The sizes that messages mostly have: a load and a store instead of a call. */
    switch (chan->elem_size) {
    case 0:
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    case 16:
        memcpy(to, from, 16);
        break;
    default:
        memcpy(to, from, chan->elem_size);
    }
}

/* A segment of `elements`, its own next. NULL: out of memory, or the sizes overflow. */
static struct segment *segment_new(size_t elem_size, size_t elements)
{
    size_t bytes, total;
    struct segment *segment;

    if (__builtin_mul_overflow(elem_size, elements, &bytes) ||
        __builtin_add_overflow(bytes, sizeof(*segment), &total) || total > PTRDIFF_MAX)
        return NULL;
    segment = malloc(total);
    if (segment == NULL)
        return NULL;
    segment->next = segment;
    segment->end = segment->elements + bytes;
    return segment;
}

static void begin_at(weft_chan *chan, struct segment *segment)
{
    chan->tail_segment = chan->head_segment = segment;
    chan->tail = chan->head = segment->elements;
}

/* Locked: the tail has come to the end of its segment. False: an unbounded channel needs memory. */
static __attribute__((noinline)) bool next_tail_segment(weft_chan *chan)
{
    struct segment *next = chan->tail_segment->next;

    if (chan->capacity == WEFT_CHAN_UNBOUNDED) {
        next = chan->spare;
        if (next == NULL)
            return false;
        chan->spare = NULL;
        chan->tail_segment->next = next;
    }
    chan->tail_segment = next;
    chan->tail = next->elements;
    return true;
}

/* Locked: the head has come to the end of its segment, and there are elements in the next. */
static __attribute__((noinline)) void next_head_segment(weft_chan *chan)
{
    struct segment *drained = chan->head_segment;

    chan->head_segment = drained->next;
    chan->head = chan->head_segment->elements;
    if (chan->capacity != WEFT_CHAN_UNBOUNDED)
        return;
    if (chan->spare == NULL)
        chan->spare = drained;
    else
        free(drained);
}

/* Locked, and there is room. False: an unbounded channel needs memory. */
static inline bool store(weft_chan *chan, const void *elem)
{
    if (chan->elem_size != 0) {
        if (chan->tail == chan->tail_segment->end && !next_tail_segment(chan))
            return false;
        copy(chan, chan->tail, elem);
        chan->tail += chan->elem_size;
    }
    chan->count++;
    return true;
}

/* Locked, and there is an element. */
static inline void fetch(weft_chan *chan, void *elem)
{
    chan->count--;
    if (chan->elem_size == 0)
        return;
    if (chan->head == chan->head_segment->end)
        next_head_segment(chan);
    copy(chan, elem, chan->head);
    chan->head += chan->elem_size;
}

/* ---- sending and receiving without waiting ---- */

/*
 * Locked. 0 with *receiver the wait to settle, if the element went to one; -EPIPE, -EAGAIN; -ENOMEM if a segment is
 * needed first.
 */
static inline int send_locked(weft_chan *chan, const void *elem, struct weft__wait **receiver)
{
    if (chan->closed)
        return -EPIPE;
    *receiver = weft__waiters_pop(&chan->receivers);
    if (*receiver != NULL) {
        copy(chan, (*receiver)->slot, elem);
        return 0;
    }
    if (chan->count == chan->capacity)
        return -EAGAIN;
    return store(chan, elem) ? 0 : -ENOMEM;
}

/* Locked. 0 with *sender the wait to settle, if there is one; -EPIPE, -EAGAIN. */
static inline int recv_locked(weft_chan *chan, void *elem, struct weft__wait **sender)
{
    *sender = NULL;
    if (chan->count != 0) {
        fetch(chan, elem);
        *sender = weft__waiters_pop(&chan->senders);
        if (*sender != NULL)
            store(chan, (*sender)->slot); /* bounded: needs no memory */
        return 0;
    }
    *sender = weft__waiters_pop(&chan->senders); /* capacity 0 */
    if (*sender != NULL) {
        copy(chan, elem, (*sender)->slot);
        return 0;
    }
    return chan->closed ? -EPIPE : -EAGAIN;
}

/* Locked at entry and exit, not between. */
static __attribute__((noinline)) int add_segment(weft_chan *chan)
{
    size_t elements = SEGMENT_BYTES / chan->elem_size;
    struct segment *segment;

    weft__lock_leave(&chan->lock);
    segment = segment_new(chan->elem_size, elements > SEGMENT_LEAST ? elements : SEGMENT_LEAST);
    weft__lock_enter(&chan->lock);
    if (segment == NULL)
        return -ENOMEM;
    if (chan->spare == NULL)
        chan->spare = segment;
    else
        free(segment); /* another sender was faster, or a receiver has drained one */
    return 0;
}

/* Enters the lock; with -EAGAIN the lock is still held, else left. */
static inline int send_or_hold(weft_chan *chan, const void *elem)
{
    struct weft__wait *receiver = NULL;
    int rc;

    weft__lock_enter(&chan->lock);
    rc = send_locked(chan, elem, &receiver);
    while (__builtin_expect(rc == -ENOMEM, 0)) {
        if (add_segment(chan) < 0)
            break;
        rc = send_locked(chan, elem, &receiver);
    }
    if (rc == -EAGAIN)
        return rc;
    weft__lock_leave(&chan->lock);
    if (receiver != NULL)
        weft__wake(receiver, WEFT__GRANTED);
    return rc;
}

/* Enters the lock; with -EAGAIN the lock is still held, else left. */
static inline int recv_or_hold(weft_chan *chan, void *elem)
{
    struct weft__wait *sender;
    int rc;

    weft__lock_enter(&chan->lock);
    rc = recv_locked(chan, elem, &sender);
    if (rc == -EAGAIN)
        return rc;
    weft__lock_leave(&chan->lock);
    if (sender != NULL)
        weft__wake(sender, WEFT__GRANTED);
    return rc;
}

int weft_chan_try_send(weft_chan *chan, const void *elem)
{
    int rc = send_or_hold(chan, elem);

    if (rc == -EAGAIN)
        weft__lock_leave(&chan->lock);
    return rc;
}

int weft_chan_try_recv(weft_chan *chan, void *elem)
{
    int rc = recv_or_hold(chan, elem);

    if (rc == -EAGAIN)
        weft__lock_leave(&chan->lock);
    return rc;
}

/* ---- waiting ---- */

/* The waiter gives up. False: it was settled, or is about to be, and its outcome is there. */
static bool withdraw(weft_chan *chan, weft_waiters *list, struct weft__wait *wait)
{
    if (weft__outcome_of(wait) != WEFT__WAITING)
        return false;
    weft__lock_enter(&chan->lock);
    if (wait->kind == WEFT__DETACHED || chan->closed) {
        weft__lock_leave(&chan->lock);
        weft__wait_out(wait);
        return false;
    }
    weft__waiters_remove(list, wait);
    weft__lock_leave(&chan->lock);
    return true;
}

/* Locked at entry, not at exit: queue in `list` with an element to send, or room for one, in *slot. */
static int wait_for_peer(weft_chan *chan, weft_waiters *list, void *slot)
{
    /* A thread's first wait of all may allocate its record here, under the lock: once in its life. */
    struct weft__wait wait = {.task = weft__waiter_self(), .kind = WEFT__QUEUED, .slot = slot};
    int rc;

    if (wait.task == NULL) {
        weft__lock_leave(&chan->lock);
        return -ENOMEM;
    }
    weft__waiters_push(list, &wait);
    weft__lock_leave(&chan->lock);
    rc = weft__wait(&wait);
    if (rc < 0 && withdraw(chan, list, &wait))
        return rc;
    return weft__outcome_of(&wait) == WEFT__CLOSED ? -EPIPE : 0;
}

int weft_chan_send(weft_chan *chan, const void *elem)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    rc = send_or_hold(chan, elem);
    return rc == -EAGAIN ? wait_for_peer(chan, &chan->senders, (void *)(uintptr_t)elem) : rc;
}

int weft_chan_recv(weft_chan *chan, void *elem)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    rc = recv_or_hold(chan, elem);
    return rc == -EAGAIN ? wait_for_peer(chan, &chan->receivers, elem) : rc;
}

/* ---- the channel ---- */

/* Memory for the elements: a bounded channel's ring, an unbounded one's first segment. 0 or -ENOMEM. */
static int make_room(weft_chan *chan)
{
    size_t elements = chan->capacity;
    struct segment *segment;

    if (chan->elem_size == 0 || chan->capacity == 0)
        return 0;
    if (chan->capacity == WEFT_CHAN_UNBOUNDED) {
        elements = SEGMENT_BYTES / chan->elem_size;
        if (elements < SEGMENT_LEAST)
            elements = SEGMENT_LEAST;
    }
    segment = segment_new(chan->elem_size, elements);
    if (segment == NULL)
        return -ENOMEM;
    begin_at(chan, segment);
    return 0;
}

weft_chan *weft_chan_new(size_t elem_size, size_t capacity)
{
    weft_chan *chan;

    if (elem_size > PTRDIFF_MAX)
        return NULL;
    chan = aligned_alloc(CACHE_LINE, (sizeof(*chan) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (chan == NULL)
        return NULL;
    memset(chan, 0, sizeof(*chan));
    chan->elem_size = elem_size;
    chan->capacity = capacity;
    if (make_room(chan) < 0) {
        free(chan);
        return NULL;
    }
    return chan;
}

void weft_chan_free(weft_chan *chan)
{
    struct segment *segment;

    if (chan == NULL)
        return;
    while ((segment = chan->head_segment) != NULL) {
        chan->head_segment = segment == chan->tail_segment ? NULL : segment->next;
        free(segment);
    }
    free(chan->spare);
    free(chan);
}

int weft_chan_close(weft_chan *chan)
{
    struct weft__wait *receivers, *senders;

    weft__lock_enter(&chan->lock);
    if (chan->closed) {
        weft__lock_leave(&chan->lock);
        return -EALREADY;
    }
    chan->closed = true;
    receivers = weft__waiters_take(&chan->receivers);
    senders = weft__waiters_take(&chan->senders);
    weft__lock_leave(&chan->lock);
    weft__wake_chain(receivers, WEFT__CLOSED, NULL);
    weft__wake_chain(senders, WEFT__CLOSED, NULL);
    return 0;
}

size_t weft_chan_len(weft_chan *chan)
{
    size_t count;

    weft__lock_enter(&chan->lock);
    count = chan->count;
    weft__lock_leave(&chan->lock);
    return count;
}
