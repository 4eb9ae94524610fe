/*
 * weft_select: wait for the first of several things. Called by tasks and plain threads; knows waitable.h, channel.h,
 * ends.h and poller.h.
 *
 * Cases are of two sorts. A channel operation consumes: exactly one may be done, though several peers may be ready to
 * do one with this select at the same time. All others (promise, event, task, descriptor, time) consume nothing:
 * they may be looked at as often as one likes, and the select decides about them itself, when it is awake.
 *
 * The course of a select
 *
 *   1. Try the cases one by one, in random order, each by itself. The first that is ready is done: the select is over,
 *      and nobody has seen anything of it. Ready cases are equally likely, since the order is a random permutation.
 *   2. Begin to wait for the cases that are not channels: a wait in the list of each object. (One that has become
 *      ready is taken instead.)
 *   3. Lock all its channels, in the order of their addresses; try their cases again; if none is ready, put a wait
 *      into the list of each; unlock all. Now the select is *published*.
 *   4. Park until it is *claimed* by a peer, or one of the waits of 2 is settled, or a deadline or cancellation comes.
 *      In the latter cases the select claims itself; if a peer was faster, that peer's case is the one.
 *   5. Take the waits that are left out of the lists.
 *
 * The claim is one word in the select's frame, `claim` in select.h: UNCLAIMED, then for ever either a case or
 * CLAIMED_BY_ITSELF. A peer is any sender, receiver or closer, a select in 1 or 3 among them: it pops a wait under the
 * channel's lock, and if it is one of a select, claims that by compare-and-swap (channel.c, pop). If that fails it
 * forgets the wait and looks at the next one.
 *
 * Why it is right
 *
 *   a. At most one case of a select is done. In 1 and 3 it does one itself, before it is published, when no peer
 *      can know of it. Once it is published it does none itself, and a peer only after having claimed it; the word
 *      changes once.
 *   b. Two selects that meet. The one that finds the other's wait, B, is in 1 or 3. There it is not published (in 3 it
 *      may hold the locks of all its channels, and nobody sees a wait of it before it has left the first): nobody
 *      can claim B. So as soon as B has claimed the other, A, the operation is certain for both, and is done under the
 *      lock that B holds. This is what all the locks of 3 are for. If B were in the list of one channel while
 *      it looked at the next, B could be claimed at the moment it claims A, and one of the two claims would have to
 *      be taken back.
 *   c. No meeting is missed. Of two selects (or a select and a single operation) that could meet on a channel, one holds
 *      its lock in 3 (or to queue) later than the other, and finds the wait of the first, unless that is claimed.
 *   d. A select never meets itself: when it pops waits it has none in any list. Several cases with one channel, to
 *      send and to receive or twice the same, are several waits in its lists; a peer takes one of them, and
 *      others drop the rest, or 5 does.
 *   e. Nothing is lost. A peer moves the element in the section in which it claims; then its select returns that case,
 *      whatever else has happened: cancelled or late, it fails to claim itself in 4 and waits to be settled. The
 *      interruption is reported by the next suspension point. And a peer that failed to claim has moved nothing.
 *   f. No deadlock between locks: who holds one channel's lock and waits for another's is in 3, and all go upward.
 *   g. Frames. A select's waits and its word lie in its caller's frames. A peer that does not claim it touches them
 *      under the channel's lock only, while the wait is in the list, or just popped; 5 enters that lock for every
 *      wait (but the claimed one), finds it there, or popped and marked as detached, and later comers cannot know
 *      it. A peer that claims it goes on after it has left the lock: it settles selector.wait, as its last access, and
 *      the select does not leave 4 before that. Waits of 2 are withdrawn or waited out as everywhere (waiters.h).
 *
 * A wait of a select that is over may lie in a list until 5 has come to it; that breaks no invariant of the channel, for
 * who would serve it drops it and goes on as if it had not been there.
 *
 * What is remembered of a case while the select lasts is in its private area; the select itself is in a frame.
 */
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <weft/select.h>
#include <weft/time.h>

#include "runtime/channel.h"
#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/poller.h"
#include "runtime/promise.h"
#include "runtime/runtime.h"
#include "runtime/select.h"
#include "runtime/task.h"
#include "runtime/worker.h"

/* In the private area of a case. */
struct case_state {
    union {
        struct weft__wait
            wait; /* of any case; `task` is NULL unless it has begun, where the kind is not a channel's */
        struct weft__case_wait of_channel;
        struct {
            struct weft__wait wait;
            struct weft__ends ends;
        } of_task;
        struct {
            struct weft__wait wait;
            uint32_t generation;
        } of_descriptor;
    };
    /* Two lists of indexes that lie in the cases: the state of case k holds their k-th entries. */
    uint32_t in_order; /* in which the cases are tried */
    uint32_t sorted;   /* channel cases, by the address of the channel */
};

_Static_assert(sizeof(struct case_state) <= sizeof(((weft_case *)0)->private_area), "the private area must grow");
_Static_assert(_Alignof(struct case_state) <= _Alignof(weft_case), "the private area must be aligned");

struct select {
    struct weft__selector selector;
    weft_case *cases;
    uint32_t tried;    /* cases that may become ready by themselves: the length of in_order */
    uint32_t channels; /* the length of sorted */
    uint32_t others;   /* promises, events, tasks, descriptors */
    uint32_t descriptors;
    int fallback;     /* the default case; -1: none */
    int earliest;     /* the case of `deadline` */
    int64_t deadline; /* WEFT_FOREVER: no case has one */
    weft_task *self;
};

/* Beside indexes and errors: no case is ready. */
enum { NOT_READY = -EAGAIN };

static inline struct case_state *state_of(weft_case *one)
{
    return (struct case_state *)(void *)one->private_area;
}

/* The k-th case in the order of trying, or of addresses. */
static inline uint32_t in_order(const struct select *select, uint32_t k)
{
    return state_of(&select->cases[k])->in_order;
}

static inline uint32_t sorted(const struct select *select, uint32_t k)
{
    return state_of(&select->cases[k])->sorted;
}

/* ---- chance ---- */

/*
 * A generator of this thread: its driver's, or for a plain thread one of its own, seeded by where it lies. To be
 * asked anew after every suspension.
 */
static __attribute__((noinline)) uint64_t *generator(void)
{
    static __thread uint64_t own;
    struct weft__driver *driver = weft__driver();

    if (driver != NULL)
        return &driver->random;
    if (own == 0)
        own = (uint64_t)(uintptr_t)&own * 0x9E3779B97F4A7C15u | 1;
    return &own;
}

/* 0 … n - 1. */
static inline uint32_t draw(uint64_t *random, uint32_t n)
{
    return (uint32_t)((weft__random(random) >> 32) * n >> 32);
}

/* ---- the cases ---- */

static void add_deadline(struct select *select, int index, int64_t when)
{
    if (when < select->deadline) {
        select->deadline = when;
        select->earliest = index;
    }
}

/* Enter a case into the lists. 0 or -EINVAL. */
static inline int enter(struct select *select, uint32_t index)
{
    weft_case *one = &select->cases[index];

    switch (one->kind) {
    case WEFT_CASE_KIND_RECV:
    case WEFT_CASE_KIND_SEND:
        if (one->object == NULL)
            return -EINVAL;
        state_of(&select->cases[select->channels++])->sorted = index;
        break;
    case WEFT_CASE_KIND_PROMISE:
    case WEFT_CASE_KIND_TASK:
    case WEFT_CASE_KIND_EVENT:
        if (one->object == NULL)
            return -EINVAL;
        select->others++;
        state_of(one)->wait.task = NULL;
        break;
    case WEFT_CASE_KIND_POLL:
        select->others++;
        select->descriptors++;
        state_of(one)->wait.task = NULL;
        break;
    case WEFT_CASE_KIND_AT:
        add_deadline(select, (int)index, one->time);
        break;
    case WEFT_CASE_KIND_AFTER:
        add_deadline(select, (int)index, weft__clock_after(one->time));
        break;
    case WEFT_CASE_KIND_DEFAULT:
        select->fallback = (int)index;
        return 0;
    case WEFT_CASE_KIND_NONE:
        return 0;
    default:
        return -EINVAL;
    }
    state_of(&select->cases[select->tried++])->in_order = index;
    return 0;
}

static int prepare(struct select *select, weft_case *cases, size_t count)
{
    if (cases == NULL || count == 0 || count > INT_MAX)
        return -EINVAL;
    select->cases = cases;
    select->tried = select->channels = select->others = select->descriptors = 0;
    select->fallback = select->earliest = -1;
    select->deadline = WEFT_FOREVER;
    for (uint32_t i = 0; i < count; i++)
        if (enter(select, i) < 0)
            return -EINVAL;
    return 0;
}

/* ---- one case ---- */

enum { WAITS = 0, READY = 1 };

static inline int ready_with(weft_case *one, intptr_t result)
{
    one->result = result;
    return READY;
}

/* What a channel said: it was done, or it has to wait, or (-ENOMEM) nothing can be done. */
static inline int channel_said(weft_case *one, int rc)
{
    if (rc == -EAGAIN)
        return WAITS;
    return rc == -ENOMEM ? rc : ready_with(one, rc);
}

/* The descriptor is asked by itself: what is remembered of it may be stale (as in weft_poll). */
static int look_at_descriptor(weft_case *one)
{
    int events = weft__fd_look(one->fd, one->events);

    return events != 0 ? ready_with(one, events) : WAITS;
}

static int try_descriptor(weft_case *one)
{
    struct weft__fd *entry = weft__fd_entry(one->fd);
    uint32_t generation;
    int rc;

    if (entry == NULL)
        return ready_with(one, -EBADF);
    weft__fd_wait_while_closing(entry);
    generation = atomic_load_explicit(&entry->generation, memory_order_relaxed);
    state_of(one)->of_descriptor.generation = generation;
    rc = weft__fd_prepare(one->fd, entry, generation);
    return rc < 0 ? ready_with(one, rc) : look_at_descriptor(one);
}

/* READY with its result, WAITS, or -ENOMEM. */
static inline int try_case(weft_case *one)
{
    switch (one->kind) {
    case WEFT_CASE_KIND_RECV:
        return channel_said(one, weft__chan_recv_waits(one->object) ? -EAGAIN
                                                                    : weft_chan_try_recv(one->object, one->elem));
    case WEFT_CASE_KIND_SEND:
        return channel_said(one, weft__chan_send_waits(one->object) ? -EAGAIN
                                                                    : weft_chan_try_send(one->object, one->elem));
    case WEFT_CASE_KIND_PROMISE:
        return weft_promise_try(one->object, &one->result) ? READY : WAITS;
    case WEFT_CASE_KIND_TASK:
        return weft__state_is_done(&((const weft_task *)one->object)->state) ? ready_with(one, 0) : WAITS;
    case WEFT_CASE_KIND_EVENT:
        return weft_event_is_set(one->object) ? ready_with(one, 0) : WAITS;
    case WEFT_CASE_KIND_POLL:
        return try_descriptor(one);
    case WEFT_CASE_KIND_AT:
        return one->time <= weft__clock_now() ? ready_with(one, 0) : WAITS;
    case WEFT_CASE_KIND_AFTER:
        return one->time <= 0 ? ready_with(one, 0) : WAITS;
    default:
        return WAITS;
    }
}

/* Step 1. Shuffles the order as far as it gets (Fisher and Yates). The index, NOT_READY, or -ENOMEM. */
static int try_each(struct select *select)
{
    uint64_t *random = generator();

    for (uint32_t k = 0; k < select->tried; k++) {
        struct case_state *mine = state_of(&select->cases[k]);
        struct case_state *drawn = state_of(&select->cases[k + draw(random, select->tried - k)]);
        uint32_t index = drawn->in_order;
        int rc;

        drawn->in_order = mine->in_order;
        mine->in_order = index;
        rc = try_case(&select->cases[index]);
        if (rc != WAITS)
            return rc == READY ? (int)index : rc;
    }
    return NOT_READY;
}

/* ---- step 2: waiting for what is no channel ---- */

static weft_task *task_ended(struct weft__ends *ends, weft_task *task, intptr_t result)
{
    struct case_state *state =
        (struct case_state *)(void *)((char *)ends - offsetof(struct case_state, of_task.ends));

    (void)task, (void)result;
    return weft__settle(&state->wait, WEFT__GRANTED);
}

/* The runtime of a task must not be gone when its end has been told: who waits from elsewhere is a visitor. */
static bool is_foreign(const weft_task *task, const struct case_state *state)
{
    return task->runtime != state->wait.task->runtime;
}

static int begin_task(weft_case *one)
{
    struct case_state *state = state_of(one);
    weft_task *task = one->object;
    int rc;

    state->of_task.ends = (struct weft__ends){.ended = task_ended};
    if (is_foreign(task, state))
        weft__visit(task->runtime);
    rc = weft__ends_watch(task, &state->of_task.ends);
    if (rc == WEFT__ENDS_TOLD)
        return WAITS;
    if (rc == WEFT__ENDS_OVER)
        weft__ends_forget(task, &state->of_task.ends);
    if (is_foreign(task, state))
        weft__end_visit(task->runtime);
    return ready_with(one, rc < 0 ? rc : 0);
}

static int begin_promise(weft_case *one)
{
    struct weft__wait *wait = &state_of(one)->wait;
    int rc = weft__promise_waitable.begin(one->object, wait);

    return rc == WEFT__BEGUN ? WAITS : ready_with(one, (intptr_t)wait->slot);
}

static int begin_event(weft_case *one)
{
    int rc = weft__event_waitable.begin(one->object, &state_of(one)->wait);

    return rc == WEFT__BEGUN ? WAITS : ready_with(one, 0);
}

static int begin_descriptor(weft_case *one)
{
    struct weft__fd *entry = weft__fd_entry(one->fd);
    int rc;

    do {
        uint32_t seen = weft__fd_ready(entry);

        if (look_at_descriptor(one) == READY)
            return READY;
        rc = weft__fd_begin(one->fd, entry, state_of(one)->of_descriptor.generation, weft__fd_bits(one->events),
                            seen, &state_of(one)->wait);
    } while (rc == 0);
    return rc == WEFT__BEGUN ? WAITS : ready_with(one, rc);
}

static int begin_by_kind(weft_case *one)
{
    switch (one->kind) {
    case WEFT_CASE_KIND_PROMISE:
        return begin_promise(one);
    case WEFT_CASE_KIND_TASK:
        return begin_task(one);
    case WEFT_CASE_KIND_EVENT:
        return begin_event(one);
    case WEFT_CASE_KIND_POLL:
        return begin_descriptor(one);
    default:
        return WAITS;
    }
}

static inline bool is_other(const weft_case *one)
{
    return one->kind >= WEFT_CASE_KIND_PROMISE && one->kind <= WEFT_CASE_KIND_POLL;
}

static int begin_other(const struct select *select, weft_case *one)
{
    struct weft__wait *wait = &state_of(one)->wait;
    int rc;

    wait->task = select->self;
    wait->slot = NULL;
    atomic_store_explicit(&wait->outcome, WEFT__WAITING, memory_order_relaxed);
    rc = begin_by_kind(one);
    if (rc == READY)
        wait->task = NULL;
    return rc;
}

/* The index of one that has become ready, or NOT_READY. */
static int begin_others(const struct select *select)
{
    if (select->others == 0)
        return NOT_READY;
    for (uint32_t k = 0; k < select->tried; k++) {
        uint32_t index = in_order(select, k);

        if (is_other(&select->cases[index]) && begin_other(select, &select->cases[index]) == READY)
            return (int)index;
    }
    return NOT_READY;
}

/* Settled: nobody touches the wait any more, and the object may be gone. */
static inline bool is_pending(const struct weft__wait *wait)
{
    return weft__outcome_of(wait) == WEFT__WAITING;
}

static void withdraw_from(const struct weft__waitable *how, void *object, struct weft__wait *wait)
{
    if (is_pending(wait) && !how->withdraw(object, wait))
        weft__wait_out(wait);
}

/* Afterwards the task can be awaited again. */
static void withdraw_from_task(weft_task *task, struct case_state *state)
{
    struct weft__ends *ends = &state->of_task.ends;

    if (!is_pending(&state->wait) || weft__ends_unwatch(task, ends) != WEFT__UNDONE) {
        if (is_pending(&state->wait))
            weft__wait_out(&state->wait);
        weft__ends_forget(task, ends);
    }
    if (is_foreign(task, state))
        weft__end_visit(task->runtime);
}

static void withdraw_other(weft_case *one)
{
    struct weft__wait *wait = &state_of(one)->wait;

    if (wait->task == NULL)
        return;
    if (one->kind == WEFT_CASE_KIND_PROMISE)
        withdraw_from(&weft__promise_waitable, one->object, wait);
    else if (one->kind == WEFT_CASE_KIND_EVENT)
        withdraw_from(&weft__event_waitable, one->object, wait);
    else if (one->kind == WEFT_CASE_KIND_TASK)
        withdraw_from_task(one->object, state_of(one));
    else
        weft__fd_withdraw(weft__fd_entry(one->fd), wait);
}

static void withdraw_others(const struct select *select)
{
    for (uint32_t k = 0; select->others != 0 && k < select->tried; k++)
        if (is_other(&select->cases[in_order(select, k)]))
            withdraw_other(&select->cases[in_order(select, k)]);
}

/* ---- step 3: all channels ---- */

static inline weft_chan *channel_of(const struct select *select, uint32_t k)
{
    return select->cases[sorted(select, k)].object;
}

/* By address: insertion with shrinking gaps (Shell), which needs no memory and is fastest for a handful. */
static void sort_channels(struct select *select)
{
    for (uint32_t gap = select->channels / 2; gap > 0; gap /= 2) {
        for (uint32_t i = gap; i < select->channels; i++) {
            uint32_t index = sorted(select, i), k = i;
            uintptr_t address = (uintptr_t)select->cases[index].object;

            for (; k >= gap && (uintptr_t)channel_of(select, k - gap) > address; k -= gap)
                state_of(&select->cases[k])->sorted = sorted(select, k - gap);
            state_of(&select->cases[k])->sorted = index;
        }
    }
}

static void lock_channels(const struct select *select)
{
    weft_chan *before = NULL;

    for (uint32_t k = 0; k < select->channels; k++) {
        weft_chan *chan = channel_of(select, k);

        if (chan != before)
            weft__lock_enter(&chan->lock);
        before = chan;
    }
}

static void unlock_channels(const struct select *select)
{
    weft_chan *before = NULL;

    for (uint32_t k = 0; k < select->channels; k++) {
        weft_chan *chan = channel_of(select, k);

        if (chan != before)
            weft__lock_leave(&chan->lock);
        before = chan;
    }
}

/* Locked, all. The index, NOT_READY, or an error; *peer is to be woken if it is not NULL. */
static int try_each_locked(const struct select *select, struct weft__wait **peer)
{
    for (uint32_t k = 0; k < select->tried; k++) {
        uint32_t index = in_order(select, k);
        weft_case *one = &select->cases[index];
        int rc;

        if (one->kind == WEFT_CASE_KIND_RECV)
            rc = channel_said(one, weft__chan_recv_locked(one->object, one->elem, peer));
        else if (one->kind == WEFT_CASE_KIND_SEND)
            rc = channel_said(one, weft__chan_send_locked(one->object, one->elem, peer));
        else
            continue;
        if (rc != WAITS)
            return rc == READY ? (int)index : rc;
    }
    return NOT_READY;
}

static inline weft_waiters *list_of(const weft_case *one)
{
    weft_chan *chan = one->object;

    return one->kind == WEFT_CASE_KIND_RECV ? &chan->receivers : &chan->senders;
}

/* Locked, all. */
static void queue_up(struct select *select)
{
    for (uint32_t k = 0; k < select->channels; k++) {
        uint32_t index = sorted(select, k);
        weft_case *one = &select->cases[index];
        struct weft__case_wait *wait = &state_of(one)->of_channel;

        wait->wait.kind = WEFT__QUEUED | WEFT__OF_SELECT;
        wait->wait.slot = one->elem;
        wait->selector = &select->selector;
        wait->index = index;
        weft__waiters_push(list_of(one), &wait->wait);
        ((weft_chan *)one->object)->selected = true;
    }
}

/* Step 3. The index of a case that was done instead, NOT_READY when the select is published, or an error. */
static int publish(struct select *select)
{
    struct weft__wait *peer = NULL;
    int chosen;

    atomic_store_explicit(&select->selector.claim, WEFT__UNCLAIMED, memory_order_relaxed);
    atomic_store_explicit(&select->selector.wait.outcome, WEFT__WAITING, memory_order_relaxed);
    select->selector.wait.task = select->self;
    sort_channels(select);
    lock_channels(select);
    chosen = try_each_locked(select, &peer);
    if (chosen == NOT_READY)
        queue_up(select);
    unlock_channels(select);
    if (chosen >= 0 && peer != NULL)
        weft__chan_wake(peer, WEFT__GRANTED);
    return chosen;
}

/* Step 5: take out the waits, but that of the case by which the select was claimed (-1: none). */
static void withdraw_channels(const struct select *select, int claimed)
{
    for (uint32_t k = 0; k < select->channels; k++) {
        uint32_t index = sorted(select, k);
        weft_case *one = &select->cases[index];
        weft_chan *chan = one->object;

        if ((int)index == claimed)
            continue;
        weft__lock_enter(&chan->lock);
        weft__chan_remove(chan, list_of(one), &state_of(one)->wait);
        weft__lock_leave(&chan->lock);
    }
}

/* ---- step 4: waiting ---- */

static inline bool is_settled(weft_case *one)
{
    const struct weft__wait *wait = &state_of(one)->wait;

    return is_other(one) && wait->task != NULL && weft__outcome_of(wait) != WEFT__WAITING;
}

static bool is_over(const void *what)
{
    const struct select *select = what;

    if (select->channels != 0 && weft__outcome_of(&select->selector.wait) != WEFT__WAITING)
        return true;
    for (uint32_t k = 0; select->others != 0 && k < select->tried; k++)
        if (is_settled(&select->cases[in_order(select, k)]))
            return true;
    return false;
}

/* Its wait was settled: is it ready? A descriptor may not be, since what happened may be stale; it waits again. */
static int settled_case(const struct select *select, weft_case *one)
{
    struct weft__wait *wait = &state_of(one)->wait;
    int rc;

    if (one->kind != WEFT_CASE_KIND_POLL)
        return ready_with(one, one->kind == WEFT_CASE_KIND_PROMISE ? (intptr_t)wait->slot : 0);
    wait->task = NULL;
    rc = weft__fd_outcome(weft__fd_entry(one->fd), state_of(one)->of_descriptor.generation, wait);
    return rc < 0 ? ready_with(one, rc) : begin_other(select, one);
}

/* The index of a settled case that is ready, or NOT_READY. */
static int ready_other(const struct select *select)
{
    for (uint32_t k = 0; select->others != 0 && k < select->tried; k++) {
        uint32_t index = in_order(select, k);

        if (is_settled(&select->cases[index]) && settled_case(select, &select->cases[index]) == READY)
            return (int)index;
    }
    return NOT_READY;
}

/* The peer that has claimed the select has settled it. */
static int claimed_case(const struct select *select)
{
    int index = (int)atomic_load_explicit(&select->selector.claim, memory_order_relaxed) - 1;

    select->cases[index].result = weft__outcome_of(&select->selector.wait) == WEFT__CLOSED ? -EPIPE : 0;
    withdraw_channels(select, index);
    return index;
}

/* What ended the wait, if no peer did. */
static int own_case(const struct select *select, int rc)
{
    if (rc == 0)
        return ready_other(select);
    if (rc < 0)
        return rc;
    select->cases[select->earliest].result = 0;
    return select->earliest;
}

static int wait_published(struct select *select)
{
    int chosen;

    do {
        int rc = weft__wait_over(select->self, is_over, select, select->deadline);

        if (select->channels != 0 && weft__outcome_of(&select->selector.wait) != WEFT__WAITING)
            return claimed_case(select);
        chosen = own_case(select, rc);
    } while (chosen == NOT_READY);
    if (select->channels == 0)
        return chosen;
    if (!weft__selector_claim(&select->selector, WEFT__CLAIMED_BY_ITSELF)) {
        weft__wait_out(&select->selector.wait);
        return claimed_case(select);
    }
    withdraw_channels(select, -1);
    return chosen;
}

static __attribute__((noinline)) int wait_for_one(struct select *select)
{
    int chosen;

    if (select->descriptors != 0 && weft__coroutine_self() == NULL)
        return weft__misused("weft_select of a descriptor");
    select->self = weft__waiter_self();
    if (select->self == NULL)
        return -ENOMEM;
    chosen = begin_others(select);
    if (chosen == NOT_READY && select->channels != 0)
        chosen = publish(select);
    if (chosen == NOT_READY)
        chosen = wait_published(select);
    withdraw_others(select);
    return chosen;
}

/* ---- the calls ---- */

static int chosen_default(const struct select *select)
{
    select->cases[select->fallback].result = 0;
    return select->fallback;
}

int weft_try_select(weft_case *cases, size_t count)
{
    struct select select;
    int rc = prepare(&select, cases, count);

    if (rc == 0)
        rc = try_each(&select);
    return rc == NOT_READY && select.fallback >= 0 ? chosen_default(&select) : rc;
}

int weft_select(weft_case *cases, size_t count)
{
    struct select select;
    int rc = weft__suspend_check();

    if (rc == 0)
        rc = prepare(&select, cases, count);
    if (rc == 0)
        rc = try_each(&select);
    if (rc != NOT_READY)
        return rc;
    return select.fallback >= 0 ? chosen_default(&select) : wait_for_one(&select);
}
