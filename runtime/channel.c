/*
 * weft_chan: a queue of elements of one size between senders and receivers. Any thread; knows only waitable.h and, of
 * select, what a wait of one is (select.h).
 *
 * One spinlock a channel, over everything in it. Invariants, whenever the lock is free:
 *
 *   - receivers wait only if the channel is empty and open;
 *   - senders wait only if the channel is full (count == capacity) and open;
 *   - so at most one of the lists has waits in it, but for selects that are over or wait for both sides of a
 *     rendezvous.
 *
 * A wait may be one case of a select. Whoever pops it must claim the select (pop) before an element is moved; if that
 * fails, the wait was not there. Its `slot` is as anybody's, and what is settled is the select's own wait
 * (weft__chan_wake). Everything below that says of a wait that it was detached, means: detached and claimed.
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
 * detached, by the one or the other; which of them, its outcome tells. Waits of selects are claimed one by one
 * before the lock is left, and those that could not be are dropped from the chain: their frames may go at once.
 *
 * Several elements go under one lock (send_batch, recv_batch); the waits that this serves make a chain, settled
 * after the lock was left. Both stop after BATCH elements: others may spin for the lock meanwhile.
 *
 * As everywhere (waiters.h), waits are settled after the lock was left, and that is the last access: who
 * receives the last element of a channel may free it at once.
 *
 * Elements lie in segments. A bounded channel has one, which is its own next: a ring, and no allocation after
 * weft_chan_new. An unbounded one has a chain of segments, each allocated by the sender that needs it,
 * outside the lock; a segment that was drained is kept for the next need, further ones are freed.
 */
#include "runtime/channel.h"
#include "runtime/elem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/stackless.h>

enum { CACHE_LINE = 64 };

/* An unbounded channel's segment: about a page, at least a handful of elements. */
enum { SEGMENT_BYTES = 4000, SEGMENT_LEAST = 8 };

/* Elements moved under one lock: about a microsecond. */
enum { BATCH = 256 };

struct weft__segment {
    struct weft__segment *next;
    unsigned char *end;
    _Alignas(16) unsigned char elements[];
};

/* ---- elements ---- */

static inline size_t count_of(const weft_chan *chan)
{
    return atomic_load_explicit(&chan->count, memory_order_relaxed);
}

/* Relaxed: only a look without the lock (channel.h) reads it otherwise, and that promises nothing of the element. */
static inline void set_count(weft_chan *chan, size_t count)
{
    atomic_store_explicit(&chan->count, count, memory_order_relaxed);
}

static inline bool is_closed(const weft_chan *chan)
{
    return atomic_load_explicit(&chan->closed, memory_order_relaxed);
}

static inline void copy(const weft_chan *chan, void *to, const void *from)
{
    weft__elem_copy(to, from, chan->elem_size);
}

/* A segment of `elements`, its own next. NULL: out of memory, or the sizes overflow. */
static struct weft__segment *segment_new(size_t elem_size, size_t elements)
{
    size_t bytes, total;
    struct weft__segment *segment;

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

static void begin_at(weft_chan *chan, struct weft__segment *segment)
{
    chan->tail_segment = chan->head_segment = segment;
    chan->tail = chan->head = segment->elements;
}

/* Locked: the tail has come to the end of its segment. False: an unbounded channel needs memory. */
static __attribute__((noinline)) bool next_tail_segment(weft_chan *chan)
{
    struct weft__segment *next = chan->tail_segment->next;

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
    struct weft__segment *drained = chan->head_segment;

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
    set_count(chan, count_of(chan) + 1);
    return true;
}

/* Locked, and there is an element. */
static inline void fetch(weft_chan *chan, void *elem)
{
    set_count(chan, count_of(chan) - 1);
    if (chan->elem_size == 0)
        return;
    if (chan->head == chan->head_segment->end)
        next_head_segment(chan);
    copy(chan, elem, chan->head);
    chan->head += chan->elem_size;
}

/* ---- waits ---- */

/* Locked: detach the first wait that can be served; NULL if there is none. */
static inline struct weft__wait *pop(weft_waiters *list)
{
    struct weft__wait *first;

    while ((first = list->head) != NULL) {
        weft__waiters_remove(list, first);
        if (weft__is_of_select(first)) {
            if (weft__select_claim(first))
                return first;
        } else {
            first->kind = WEFT__DETACHED;
            return first;
        }
    }
    return NULL;
}

/* Waits that were detached and are to be settled, in order. */
struct chain {
    struct weft__wait *first;
    struct weft__wait **last;
};

#define CHAIN_INIT(chain)    \
    {                        \
        NULL, &(chain).first \
    }

static inline void chain_add(struct chain *chain, struct weft__wait *wait)
{
    wait->next = NULL;
    *chain->last = wait;
    chain->last = &wait->next;
}

/* Without the lock. */
static void wake_chain(struct weft__wait *first, enum weft__outcome outcome)
{
    for (struct weft__wait *wait = first, *next; wait != NULL; wait = next) {
        next = wait->next;
        weft__chan_wake(wait, outcome);
    }
}

/* Locked: detach all, as a chain. */
static struct weft__wait *take_all(const weft_chan *chan, weft_waiters *list)
{
    struct chain chain = CHAIN_INIT(chain);
    struct weft__wait *wait;

    if (!chan->selected)
        return weft__waiters_take(list);
    while ((wait = pop(list)) != NULL)
        chain_add(&chain, wait);
    return chain.first;
}

/* ---- sending and receiving without waiting ---- */

/* As weft__chan_send_locked. */
static inline int send_locked(weft_chan *chan, const void *elem, struct weft__wait **receiver)
{
    *receiver = NULL;
    if (is_closed(chan))
        return -EPIPE;
    *receiver = pop(&chan->receivers);
    if (*receiver != NULL) {
        copy(chan, (*receiver)->slot, elem);
        return 0;
    }
    if (count_of(chan) == chan->capacity)
        return -EAGAIN;
    return store(chan, elem) ? 0 : -ENOMEM;
}

/* As weft__chan_recv_locked. */
static inline int recv_locked(weft_chan *chan, void *elem, struct weft__wait **sender)
{
    if (count_of(chan) != 0) {
        fetch(chan, elem);
        *sender = pop(&chan->senders);
        if (*sender != NULL)
            store(chan, (*sender)->slot); /* bounded: needs no memory */
        return 0;
    }
    *sender = pop(&chan->senders); /* capacity 0 */
    if (*sender != NULL) {
        copy(chan, elem, (*sender)->slot);
        return 0;
    }
    return is_closed(chan) ? -EPIPE : -EAGAIN;
}

int weft__chan_send_locked(weft_chan *chan, const void *elem, struct weft__wait **receiver)
{
    return send_locked(chan, elem, receiver);
}

int weft__chan_recv_locked(weft_chan *chan, void *elem, struct weft__wait **sender)
{
    return recv_locked(chan, elem, sender);
}

/* Locked at entry and exit, not between. */
static __attribute__((noinline)) int add_segment(weft_chan *chan)
{
    size_t elements = SEGMENT_BYTES / chan->elem_size;
    struct weft__segment *segment;

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
    struct weft__wait *receiver;
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
        weft__chan_wake(receiver, WEFT__GRANTED);
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
        weft__chan_wake(sender, WEFT__GRANTED);
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

/* Locked. */
static inline void queue_up(weft_waiters *list, struct weft__wait *wait)
{
    wait->kind = WEFT__QUEUED;
    weft__waiters_push(list, wait);
}

static int begin_send(void *object, struct weft__wait *wait)
{
    weft_chan *chan = object;
    int rc = send_or_hold(chan, wait->slot);

    if (rc != -EAGAIN)
        return rc;
    queue_up(&chan->senders, wait);
    weft__lock_leave(&chan->lock);
    return WEFT__BEGUN;
}

static int begin_recv(void *object, struct weft__wait *wait)
{
    weft_chan *chan = object;
    int rc = recv_or_hold(chan, wait->slot);

    if (rc != -EAGAIN)
        return rc;
    queue_up(&chan->receivers, wait);
    weft__lock_leave(&chan->lock);
    return WEFT__BEGUN;
}

static bool withdraw(weft_chan *chan, weft_waiters *list, struct weft__wait *wait)
{
    bool removed;

    weft__lock_enter(&chan->lock);
    removed = weft__chan_remove(chan, list, wait);
    weft__lock_leave(&chan->lock);
    return removed;
}

static bool withdraw_send(void *object, struct weft__wait *wait)
{
    return withdraw(object, &((weft_chan *)object)->senders, wait);
}

static bool withdraw_recv(void *object, struct weft__wait *wait)
{
    return withdraw(object, &((weft_chan *)object)->receivers, wait);
}

static const struct weft__waitable sending = {begin_send, withdraw_send};
static const struct weft__waitable receiving = {begin_recv, withdraw_recv};

/*
 * Locked at entry, not at exit: queue in `list` with an element to send, or room for one, in *slot. (weft__wait_for
 * would enter the lock again, and make up a wait before it is known that one is needed.)
 */
static inline int wait_for_peer(weft_chan *chan, const struct weft__waitable *how, weft_waiters *list, void *slot)
{
    /* A thread's first wait of all may allocate its record here, under the lock: once in its life. */
    struct weft__wait wait = {.task = weft__waiter_self(), .slot = slot};
    int rc;

    if (wait.task == NULL) {
        weft__lock_leave(&chan->lock);
        return -ENOMEM;
    }
    queue_up(list, &wait);
    weft__lock_leave(&chan->lock);
    rc = weft__wait_or_withdraw(how, chan, &wait);
    if (rc < 0)
        return rc;
    return weft__outcome_of(&wait) == WEFT__CLOSED ? -EPIPE : 0;
}

static inline int wait_to_send(weft_chan *chan, const void *elem)
{
    return wait_for_peer(chan, &sending, &chan->senders, (void *)(uintptr_t)elem);
}

static inline int wait_to_recv(weft_chan *chan, void *elem)
{
    return wait_for_peer(chan, &receiving, &chan->receivers, elem);
}

int weft_chan_send(weft_chan *chan, const void *elem)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    rc = send_or_hold(chan, elem);
    return rc == -EAGAIN ? wait_to_send(chan, elem) : rc;
}

int weft_chan_recv(weft_chan *chan, void *elem)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    rc = recv_or_hold(chan, elem);
    return rc == -EAGAIN ? wait_to_recv(chan, elem) : rc;
}

static intptr_t async(const struct weft__waitable *how, weft_chan *chan, void *slot)
{
    enum weft__outcome outcome;
    intptr_t rc = weft__async(how, chan, slot, &outcome, NULL);

    return rc == 0 && outcome == WEFT__CLOSED ? -EPIPE : rc;
}

intptr_t weft_async_send(weft_chan *chan, const void *elem)
{
    return async(&sending, chan, (void *)(uintptr_t)elem);
}

intptr_t weft_async_recv(weft_chan *chan, void *elem)
{
    return async(&receiving, chan, elem);
}

/* ---- several at once ---- */

/* Locked: as many as can be sent, at most BATCH; how many in *sent. 0, or why the next one could not be. */
static int send_batch(weft_chan *chan, const unsigned char *elems, size_t count, size_t *sent, struct chain *served)
{
    struct weft__wait *receiver;
    int rc = 0;

    for (*sent = 0; *sent < count && *sent < BATCH; ++*sent, elems += chan->elem_size) {
        rc = send_locked(chan, elems, &receiver);
        if (rc < 0)
            break;
        if (receiver != NULL)
            chain_add(served, receiver);
    }
    return rc;
}

static int recv_batch(weft_chan *chan, unsigned char *elems, size_t most, size_t *got, struct chain *served)
{
    struct weft__wait *sender;
    int rc = 0;

    for (*got = 0; *got < most && *got < BATCH; ++*got, elems += chan->elem_size) {
        rc = recv_locked(chan, elems, &sender);
        if (rc < 0)
            break;
        if (sender != NULL)
            chain_add(served, sender);
    }
    return rc;
}

/* Enters the lock; with -EAGAIN (nothing was sent, the next must wait) it is still held, else left. */
static int send_some_or_hold(weft_chan *chan, const unsigned char *elems, size_t count, size_t *sent)
{
    struct chain served = CHAIN_INIT(served);
    int rc;

    weft__lock_enter(&chan->lock);
    rc = send_batch(chan, elems, count, sent, &served);
    while (__builtin_expect(rc == -ENOMEM && *sent == 0, 0)) {
        if (add_segment(chan) < 0)
            break;
        rc = send_batch(chan, elems, count, sent, &served);
    }
    if (*sent != 0)
        rc = 0;
    if (rc == -EAGAIN)
        return rc;
    weft__lock_leave(&chan->lock);
    wake_chain(served.first, WEFT__GRANTED);
    return rc;
}

static int recv_some_or_hold(weft_chan *chan, unsigned char *elems, size_t most, size_t *got)
{
    struct chain served = CHAIN_INIT(served);
    int rc;

    weft__lock_enter(&chan->lock);
    rc = recv_batch(chan, elems, most, got, &served);
    if (*got != 0)
        rc = 0;
    if (rc == -EAGAIN)
        return rc;
    weft__lock_leave(&chan->lock);
    wake_chain(served.first, WEFT__GRANTED);
    return rc;
}

ssize_t weft_chan_send_many(weft_chan *chan, const void *elems, size_t count)
{
    const unsigned char *next = elems;
    size_t done = 0, sent;
    int rc = weft__suspend_check();

    while (rc == 0 && done < count) {
        rc = send_some_or_hold(chan, next, count - done, &sent);
        if (rc == -EAGAIN) {
            rc = wait_to_send(chan, next);
            sent = rc == 0;
        }
        done += sent;
        next += sent * chan->elem_size;
    }
    return done != 0 || rc == 0 ? (ssize_t)done : rc;
}

/* Without waiting, up to `most`: how many, or why there is none. If it would have to wait, the lock is held. */
static int recv_rest_or_hold(weft_chan *chan, unsigned char *elems, size_t most, size_t *got)
{
    size_t more;
    int rc;

    for (*got = 0; *got < most; *got += more, elems += more * chan->elem_size) {
        rc = recv_some_or_hold(chan, elems, most - *got, &more);
        if (rc < 0)
            return rc;
        if (more < BATCH) {
            *got += more;
            break; /* there was no more, or most */
        }
    }
    return 0;
}

ssize_t weft_chan_recv_many(weft_chan *chan, void *elems, size_t most)
{
    unsigned char *next = elems;
    size_t got, first = 0;
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (most == 0)
        return -EINVAL;
    rc = recv_rest_or_hold(chan, next, most, &got);
    if (rc == -EAGAIN && got == 0) {
        rc = wait_to_recv(chan, next);
        if (rc < 0)
            return rc;
        /* Whoever woke this one may have gone on sending. */
        first = 1;
        rc = recv_rest_or_hold(chan, next + chan->elem_size, most - 1, &got);
    }
    if (rc == -EAGAIN)
        weft__lock_leave(&chan->lock);
    got += first;
    return got != 0 ? (ssize_t)got : rc;
}

/* ---- the channel ---- */

/* Memory for the elements: a bounded channel's ring, an unbounded one's first segment. 0 or -ENOMEM. */
static int make_room(weft_chan *chan)
{
    size_t elements = chan->capacity;
    struct weft__segment *segment;

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
    struct weft__segment *segment;

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
    if (is_closed(chan)) {
        weft__lock_leave(&chan->lock);
        return -EALREADY;
    }
    receivers = take_all(chan, &chan->receivers);
    senders = take_all(chan, &chan->senders);
    /* Relaxed: all but a look without the lock (channel.h) read it under the lock. */
    atomic_store_explicit(&chan->closed, true, memory_order_relaxed);
    weft__lock_leave(&chan->lock);
    wake_chain(receivers, WEFT__CLOSED);
    wake_chain(senders, WEFT__CLOSED);
    return 0;
}

size_t weft_chan_len(weft_chan *chan)
{
    size_t count;

    weft__lock_enter(&chan->lock);
    count = count_of(chan);
    weft__lock_leave(&chan->lock);
    return count;
}
