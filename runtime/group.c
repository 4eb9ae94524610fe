/*
 * weft_group: children that end before weft_group_wait returns. Built on ends.h and waitable.h.
 *
 * The word `state`: bit 0 the lock over the group (waiters.h); CANCELLED, no more children are taken; CANCELLING, somebody
 * is just cancelling them; OVER, weft_group_wait has returned. Live children are in a list, in the order in which
 * they were spawned: linked before they can run, unlinked in `ended`, which runs wherever they end. So who holds the
 * lock knows that the children in the list are alive, and may claim or cancel them.
 *
 * Where the group may be gone. It lies in the frame of its owner, who leaves weft_group_wait when no child is live and
 * nobody is CANCELLING, seen under the lock or told by being settled after the lock was left. So each of those who keep
 * the owner there (a live child, the canceller) makes its last access the one that leaves the lock with which it
 * stops doing so.
 *
 * Cancelling. Whoever is first, of a failing child, weft_group_cancel and the owner, sets CANCELLED and CANCELLING in one
 * step and goes through the list as it was at that time: `not_cancelled` is the next child, moved on by those that end
 * meanwhile, and nothing is added any more. A child is marked as cancelled under the lock, where it is known to be alive,
 * some at a time; the coroutines that are to notice it are made ready afterwards without the lock, whatever their
 * records are used for by then (task.h). No lock is held while calling into a worker: `ended` spins for it inside one.
 *
 *   A failing child  sets the bits in `ended`, where it must not call into the runtime, and does the rest in `after`.
 *   That includes the body: the code of the owner from the beginning of the group to the wait, a scope of its task
 *   (ends.h). CANCELLING keeps the owner from leaving meanwhile.
 *
 * Running in place. The waiting owner goes through the list, too (`not_run`), and runs what has not started on its own
 * stack. While it does so it cannot notice its own cancellation or deadline; the child on top finds them
 * and tells (`interrupted`), so that the others are cancelled as soon.
 *
 *   Why the owner may enter its worker (weft__child_claim) under the lock: those whom it could have to wait for there are
 *   thieves that have seized the worker, and a thief ends no task, so it does not wait for this lock.
 */
#include <errno.h>
#include <string.h>
#include <weft/group.h>
#include <weft/runtime.h>
#include <weft/time.h>

#include "runtime/debug.h"
#include "runtime/task.h"
#include "runtime/waitable.h"

enum { CANCELLED = 2, CANCELLING = 4, OVER = 8 };

/* Children looked at under the lock in one go: some microseconds. */
enum { BATCH = 32 };

_Static_assert(sizeof(struct weft__ends) <= sizeof(((weft_group *)0)->ends), "the header leaves room");

static struct weft__ends *ends_of(weft_group *group)
{
    return (struct weft__ends *)group->ends;
}

static weft_group *group_of(struct weft__ends *ends)
{
    return (weft_group *)ends; /* its first field */
}

static _Atomic uint32_t *word_of(const weft_group *group)
{
    return weft__word_of(&group->state);
}

/* ---- the list, locked ---- */

/* Read by weft_group_live without the lock. */
static void set_live(weft_group *group, size_t live)
{
    __atomic_store_n(&group->live, live, __ATOMIC_RELAXED);
}

static void link_child(weft_group *group, weft_task *child)
{
    struct weft__siblings *siblings = weft__child_siblings(child);

    siblings->next = NULL;
    siblings->prev = group->last;
    if (group->last)
        weft__child_siblings(group->last)->next = child;
    else
        group->first = child;
    group->last = child;
    if (!group->not_run)
        group->not_run = child;
    set_live(group, group->live + 1);
}

static void unlink_child(weft_group *group, weft_task *child)
{
    struct weft__siblings *siblings = weft__child_siblings(child);

    if (group->not_run == child)
        group->not_run = siblings->next;
    if (group->not_cancelled == child)
        group->not_cancelled = siblings->next;
    if (siblings->prev)
        weft__child_siblings(siblings->prev)->next = siblings->next;
    else
        group->first = siblings->next;
    if (siblings->next)
        weft__child_siblings(siblings->next)->prev = siblings->prev;
    else
        group->last = siblings->prev;
    set_live(group, group->live - 1);
}

/* ---- leaving the lock ---- */

static bool is_over(const weft_group *group, uint32_t state)
{
    return group->live == 0 && !(state & CANCELLING);
}

/* The group may be gone afterwards. Returns whom to make ready: the owner, if this was what it waited for. */
static weft_task *leave(weft_group *group, uint32_t state)
{
    struct weft__wait *wait = NULL;

    if (is_over(group, state)) {
        wait = group->waiter;
        group->waiter = NULL;
    }
    weft__word_leave(word_of(group), state);
    return wait ? weft__settle(wait, WEFT__GRANTED) : NULL;
}

/* ---- cancelling ---- */

static bool begin_to_cancel(weft_group *group)
{
    uint32_t state = weft__word_enter(word_of(group));
    bool first = !(state & (CANCELLED | OVER));

    if (first) {
        group->not_cancelled = group->first;
        state |= CANCELLED | CANCELLING;
    }
    weft__word_leave(word_of(group), state);
    return first;
}

/* Locked. How many are to be made ready, into `ready`. */
static int cancel_some(weft_group *group, weft_task *ready[BATCH])
{
    int n = 0;

    for (int i = 0; i < BATCH && group->not_cancelled; i++) {
        weft_task *child = group->not_cancelled;
        weft_task *coroutine = weft__child_cancel(child);

        group->not_cancelled = weft__child_siblings(child)->next;
        if (coroutine)
            ready[n++] = coroutine;
    }
    return n;
}

/* CANCELLING was set by the caller. */
static void cancel_children(weft_group *group)
{
    weft_task *ready[BATCH], *owner;
    bool done;

    do {
        uint32_t state = weft__word_enter(word_of(group));
        int n = cancel_some(group, ready);

        done = !group->not_cancelled;
        if (done)
            state &= ~(uint32_t)CANCELLING;
        owner = leave(group, state);
        while (n > 0)
            weft__ready(ready[--n]);
        if (owner)
            weft__ready(owner);
    } while (!done);
}

int weft_group_cancel(weft_group *group)
{
    if (!begin_to_cancel(group))
        return 0;
    cancel_children(group);
    return 1;
}

/* ---- the end of a child ---- */

static void note_failure(weft_group *group, const weft_task *child, intptr_t result)
{
    if (group->failed < WEFT_GROUP_FAILURES)
        group->failures[group->failed] = (weft_group_failure){.result = result, .arg = weft__child_arg(child)};
    group->failed++;
}

static weft_task *child_ended(struct weft__ends *ends, weft_task *child, intptr_t result)
{
    weft_group *group = group_of(ends);
    uint32_t state = weft__word_enter(word_of(group));
    bool failed = weft__ends_is_failure(child, result);

    unlink_child(group, child);
    if (failed)
        note_failure(group, child, result);
    if (!failed || (state & CANCELLED))
        return leave(group, state);
    if (!group->first && group->waiter)
        return leave(group, state | CANCELLED);
    group->not_cancelled = group->first;
    weft__word_leave(word_of(group), state | CANCELLED | CANCELLING);
    return WEFT__ENDS_LATER;
}

static void after_failure(struct weft__ends *ends, weft_task *child, intptr_t result)
{
    weft_group *group = group_of(ends);

    (void)child;
    (void)result;
    weft__body_cancel(group->owner, &group->body);
    cancel_children(group);
}

static void owner_interrupted(struct weft__ends *ends)
{
    weft_group_cancel(group_of(ends));
}

/* ---- beginning, spawning ---- */

/*
 * The earliest deadline of the owner's own scopes. Those of whom it runs in place for reach it, and through it the
 * children, as a cancellation, just as if it ran on a stack of its own.
 */
static int64_t deadline_of(const weft_task *owner)
{
    int64_t deadline = WEFT_FOREVER;

    for (const weft_timeout *scope = owner->scopes; scope && scope->mask == owner->mask; scope = scope->outer)
        if (scope->deadline < deadline)
            deadline = scope->deadline;
    return deadline;
}

int weft_group_begin(weft_group *group)
{
    static const struct weft__ends ends = {child_ended, after_failure, owner_interrupted};
    weft_task *root = weft__coroutine_self();

    if (!root)
        return weft__misused("weft_group_begin");
    memset(group, 0, offsetof(weft_group, failures));
    memcpy(group->ends, &ends, sizeof ends);
    group->runtime = weft_runtime_current();
    group->owner = root->current;
    group->deadline.deadline = deadline_of(root->current);
    weft__body_begin(group->owner, &group->body);
    return 0;
}

static int refusal(uint32_t state)
{
    if (state & OVER)
        return -ESHUTDOWN;
    return state & CANCELLED ? -ECANCELED : 0;
}

/* A child that starts later is launched under the lock, so that nobody cancels it while its timer is being set. */
static bool starts_later(const weft_spawn_options *options)
{
    return options && (options->delay > 0 || options->at > 0);
}

/* Into the group, unless that refuses. */
static int enter_group(weft_group *group, const weft_spawn_options *options, weft_task *child)
{
    uint32_t state = weft__word_enter(word_of(group));
    int rc = refusal(state);

    if (rc == 0) {
        link_child(group, child);
        if (starts_later(options))
            rc = weft__child_launch(child, options);
        if (rc < 0)
            unlink_child(group, child);
    }
    /* Nobody is waiting for the child just unlinked: the caller is the owner, or another live child. */
    weft__word_leave(word_of(group), state);
    return rc;
}

int weft_group_spawn_with(weft_group *group, const weft_spawn_options *options, weft_fn *fn, void *arg)
{
    weft_timeout *inherited = group->deadline.deadline == WEFT_FOREVER ? NULL : &group->deadline;
    weft_task *child;
    int rc;

    if (!weft_self() || weft_runtime_current() != group->runtime)
        return weft__misused("weft_group_spawn");
    rc = refusal(atomic_load_explicit(word_of(group), memory_order_relaxed));
    if (rc < 0)
        return rc;
    child = weft__child_new(options, fn, arg, ends_of(group), inherited);
    if (!child)
        return -ENOMEM;
    rc = enter_group(group, options, child);
    if (rc < 0)
        weft__child_discard(child);
    else if (!starts_later(options))
        weft__child_launch(child, options);
    return rc;
}

int weft_group_spawn(weft_group *group, weft_fn *fn, void *arg)
{
    return weft_group_spawn_with(group, NULL, fn, arg);
}

/* ---- waiting ---- */

/* The next child that has not started, taken out of the run queue. */
static weft_task *claim_child(weft_group *group)
{
    weft_task *claimed = NULL;
    bool more;

    do {
        uint32_t state = weft__word_enter(word_of(group));

        for (int i = 0; i < BATCH && group->not_run && !claimed; i++) {
            weft_task *child = group->not_run;

            group->not_run = weft__child_siblings(child)->next;
            if (weft__child_claim(child))
                claimed = child;
        }
        more = group->not_run && !claimed;
        weft__word_leave(word_of(group), state);
    } while (more);
    return claimed;
}

/* Is the owner cancelled or late? Then so are the children. */
static int look_for_interrupt(weft_group *group, weft_task *self)
{
    int64_t deadline;
    int rc = weft__interrupt(self, &deadline);

    if (rc < 0)
        weft_group_cancel(group);
    return rc;
}

/* Returns what interrupted the owner meanwhile, or before. */
static int run_in_place(weft_group *group, weft_task *self)
{
    int interrupted = 0;

    for (;;) {
        weft_task *child;
        int rc;

        if (interrupted == 0)
            interrupted = look_for_interrupt(group, self);
        child = claim_child(group);
        if (!child)
            return interrupted;
        rc = weft__child_run(child);
        if (rc < 0 && interrupted == 0) {
            interrupted = rc;
            weft_group_cancel(group);
        }
    }
}

static int begin_wait(void *object, struct weft__wait *wait)
{
    weft_group *group = object;
    uint32_t state = weft__word_enter(word_of(group));
    bool over = is_over(group, state);

    if (!over)
        group->waiter = wait;
    weft__word_leave(word_of(group), state);
    return over ? 0 : WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_group *group = object;
    uint32_t state = weft__word_enter(word_of(group));
    bool waits = group->waiter == wait;

    if (waits)
        group->waiter = NULL;
    weft__word_leave(word_of(group), state);
    return waits;
}

static int wait_for_end(weft_group *group)
{
    static const struct weft__waitable waitable = {begin_wait, withdraw};
    struct weft__wait wait = {.outcome = WEFT__WAITING};

    return weft__wait_for(&waitable, group, &wait);
}

/* The children are cancelled, and now it takes as long as it takes. */
static void wait_masked(weft_group *group)
{
    weft_mask_begin();
    while (wait_for_end(group) < 0)
        weft_yield();
    weft_mask_end();
}

static void close_group(weft_group *group)
{
    uint32_t state = weft__word_enter(word_of(group));

    weft__word_leave(word_of(group), state | OVER);
}

intptr_t weft_group_wait(weft_group *group)
{
    weft_task *self = weft__coroutine_self();
    int interrupted;

    if (!self)
        return weft__misused("weft_group_wait");
    if (self->current != group->owner)
        return -EPERM;
    weft__body_end(group->owner, &group->body);
    interrupted = run_in_place(group, self);
    if (interrupted == 0) {
        interrupted = wait_for_end(group);
        if (interrupted < 0)
            weft_group_cancel(group);
    }
    if (interrupted < 0)
        wait_masked(group);
    close_group(group);
    /* What ended a wait of the children's was the owner's deadline: its own scope is to say so. */
    if (interrupted == 0 && __atomic_load_n(&group->deadline.passed, __ATOMIC_RELAXED))
        look_for_interrupt(group, self);
    return group->failed > 0 ? group->failures[0].result : interrupted;
}

/* ---- what became of it ---- */

size_t weft_group_failed(const weft_group *group)
{
    return group->failed;
}

int weft_group_failure_at(const weft_group *group, size_t i, weft_group_failure *failure)
{
    if (i >= group->failed || i >= WEFT_GROUP_FAILURES)
        return 0;
    *failure = group->failures[i];
    return 1;
}

size_t weft_group_live(const weft_group *group)
{
    return __atomic_load_n(&group->live, __ATOMIC_RELAXED);
}
