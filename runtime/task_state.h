/*
 * The state word of a task: its bits, and the transitions between them. Pure: nothing here touches anything
 * but the word, and each transition returns what the caller must do next.
 *
 * Two lives share the word. As a task it is alive, then DONE; a handle refers to it until it is AWAITED to the
 * end, or there is NO_HANDLE any more. As a coroutine (the record whose stack runs, see task.h) it is running, or PARKED; NOTIFIED
 * is the wake-up that came before the park.
 *
 *     running --park--> PARKED --ready--> (caller queues it) --> running
 *     running --ready--> NOTIFIED --park--> running          (the wake-up is used up, it does not park)
 *
 * Only the side that a parking task has switched to may call weft__state_park: the registers are saved by then,
 * so whoever clears PARKED may run the task at once. Exactly one caller of weft__state_ready clears PARKED, so
 * a task is queued once.
 */
#ifndef WEFT_RUNTIME_TASK_STATE_H
#define WEFT_RUNTIME_TASK_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/base.h>

typedef _Atomic uint32_t weft__state;

enum {
    WEFT__NOTIFIED = 1u << 0,  /* ready came while it ran */
    WEFT__PARKED = 1u << 1,    /* registers saved; whoever clears this queues it */
    WEFT__CANCEL = 1u << 2,    /* cancellation asked for and not taken back */
    WEFT__DONE = 1u << 3,      /* the result is stored */
    WEFT__NO_HANDLE = 1u << 4, /* no handle: the end frees the record */
    WEFT__AWAITED = 1u << 5,   /* `waiter` is to be made ready at the end */
    WEFT__THREAD = 1u << 6,    /* the record of a plain thread: parking is a futex wait on this word */
    WEFT__POOL = 1u << 7,      /* a call of the blocking pool: no coroutine will ever run it */

    /* What kind of task it is; never changes. */
    WEFT__STACKLESS = 1u << 8, /* steps instead of a coroutine */
    WEFT__PINNED = 1u << 9,    /* stays on its worker */
    WEFT__CHILD = 1u << 10,    /* a watcher sees its failures (ends.h) */

    WEFT__WATCHED = 1u << 11, /* with AWAITED: `waiter` is a watcher (ends.h), which may give up */
};

/* The word of a record that is no task's. */
#define WEFT__FREE (WEFT__DONE | WEFT__NO_HANDLE)

/* What to do with a task that was made ready. */
enum weft__ready_action {
    WEFT__READY_NOTHING, /* it runs, or somebody else queues it */
    WEFT__READY_QUEUE,   /* the caller owns it and must queue it */
    WEFT__READY_FUTEX    /* the caller must wake the thread */
};

static inline enum weft__ready_action weft__state_ready(weft__state *state)
{
    uint32_t old = atomic_load_explicit(state, memory_order_relaxed);
    uint32_t new;

    /*
     * A read-modify-write even if NOTIFIED is set already: what the caller published before must be seen by
     * the task that uses that notification up. Release pairs with the acquire in weft__state_park and
     * weft__state_take_notification; acquire (of PARKED) with the release in weft__state_park, so that the
     * saved registers are seen by whoever resumes the task.
     */
    do {
        new = (old & WEFT__PARKED) ? old & ~WEFT__PARKED : old | WEFT__NOTIFIED;
    } while (!atomic_compare_exchange_weak_explicit(state, &old, new, memory_order_acq_rel, memory_order_relaxed));

    if (!(old & WEFT__PARKED))
        return WEFT__READY_NOTHING;
    return (old & WEFT__THREAD) ? WEFT__READY_FUTEX : WEFT__READY_QUEUE;
}

/* True: it is parked. False: it was notified meanwhile, and that is used up: the caller queues it. */
static inline bool weft__state_park(weft__state *state)
{
    uint32_t old = atomic_load_explicit(state, memory_order_relaxed);
    uint32_t new;

    do {
        new = (old & WEFT__NOTIFIED) ? old & ~WEFT__NOTIFIED : old | WEFT__PARKED;
    } while (!atomic_compare_exchange_weak_explicit(state, &old, new, memory_order_acq_rel, memory_order_relaxed));

    return !(old & WEFT__NOTIFIED);
}

/* Use up a notification that came before the park, without a switch. */
static inline bool weft__state_take_notification(weft__state *state)
{
    if (!(atomic_load_explicit(state, memory_order_relaxed) & WEFT__NOTIFIED))
        return false;
    /* acquire: pairs with the release in weft__state_ready */
    atomic_fetch_and_explicit(state, ~(uint32_t)WEFT__NOTIFIED, memory_order_acquire);
    return true;
}

/* What the end of a task must do with its record. */
enum weft__end_action {
    WEFT__END_KEEP, /* the handle's owner will free it */
    WEFT__END_FREE, /* nobody refers to it */
    WEFT__END_WAKE  /* make the waiter ready; that one frees it */
};

/*
 * The result must be stored before. `field` is the task's waiter, *waiter what was found there. An awaiter is read
 * before DONE is set: from then on it may free the record, since it may be awake for some other reason. It stays
 * until then. A watcher is read afterwards: until then it may give up, and another one may come, with the same bits; from
 * then on it stays, and keeps the record, until it was told. If there is neither a handle nor a watcher, nobody can ask
 * for either any more: DONE is only for those who look at all records. A late wake-up or cancellation that this store
 * takes back meant nothing.
 */
static inline enum weft__end_action weft__state_end(weft__state *state, _Atomic(weft_task *) *field,
                                                    weft_task **waiter)
{
    /* acquire: the waiter, stored before AWAITED was set */
    uint32_t old = atomic_load_explicit(state, memory_order_acquire);

    if ((old & (WEFT__NO_HANDLE | WEFT__AWAITED)) == WEFT__NO_HANDLE) {
        atomic_store_explicit(state, old | WEFT__DONE, memory_order_relaxed);
        *waiter = NULL;
        return WEFT__END_FREE;
    }
    do {
        *waiter = (old & WEFT__AWAITED) ? atomic_load_explicit(field, memory_order_relaxed) : NULL;
        /* release: the result; pairs with the acquire in weft__state_is_done, _await and _detach */
    } while (!atomic_compare_exchange_weak_explicit(state, &old, old | WEFT__DONE, memory_order_acq_rel,
                                                    memory_order_acquire));
    if (old & WEFT__WATCHED)
        *waiter = atomic_load_explicit(field, memory_order_relaxed);
    if (old & WEFT__NO_HANDLE)
        return WEFT__END_FREE;
    return (old & WEFT__AWAITED) ? WEFT__END_WAKE : WEFT__END_KEEP;
}

/* `waiter` must be stored before. True: it had ended already, and nobody will wake the waiter. */
static inline bool weft__state_await(weft__state *state)
{
    /* release: `waiter`; acquire: the result. Both pair with weft__state_end */
    return atomic_fetch_or_explicit(state, WEFT__AWAITED, memory_order_acq_rel) & WEFT__DONE;
}

/* The same for a watcher. */
static inline bool weft__state_watch(weft__state *state)
{
    return atomic_fetch_or_explicit(state, WEFT__AWAITED | WEFT__WATCHED, memory_order_acq_rel) & WEFT__DONE;
}

static inline bool weft__state_is_done(const weft__state *state)
{
    /* acquire: pairs with the release in weft__state_end */
    return atomic_load_explicit(state, memory_order_acquire) & WEFT__DONE;
}

/* True: it had ended, the caller frees the record. */
static inline bool weft__state_detach(weft__state *state)
{
    /* acquire: the result, for the report of a failure; pairs with weft__state_end */
    return atomic_fetch_or_explicit(state, WEFT__NO_HANDLE, memory_order_acq_rel) & WEFT__DONE;
}

/*
 * True: this call asked for it; false: it was over. The full fence pairs with the one in weft__interrupt:
 * either the canceller sees which coroutine runs the task, or the task sees CANCEL at its next wait.
 */
static inline bool weft__state_cancel(weft__state *state)
{
    uint32_t old = atomic_fetch_or_explicit(state, WEFT__CANCEL, memory_order_seq_cst);

    atomic_thread_fence(memory_order_seq_cst);
    return !(old & WEFT__DONE);
}

/* Its watcher gives up. True: done. False: it had ended, and the waiter was told, or is about to be. */
static inline bool weft__state_unwatch(weft__state *state)
{
    /* acquire: the result; pairs with weft__state_end */
    uint32_t old = atomic_load_explicit(state, memory_order_acquire);

    do {
        if (old & WEFT__DONE)
            return false;
        /* Relaxed: the end, if it comes, finds no AWAITED and leaves the waiter alone. */
    } while (!atomic_compare_exchange_weak_explicit(state, &old, old & ~(uint32_t)(WEFT__AWAITED | WEFT__WATCHED),
                                                    memory_order_acquire, memory_order_acquire));
    return true;
}

static inline bool weft__state_uncancel(weft__state *state)
{
    return atomic_fetch_and_explicit(state, ~(uint32_t)WEFT__CANCEL, memory_order_relaxed) & WEFT__CANCEL;
}

static inline bool weft__state_is_cancelled(const weft__state *state)
{
    return atomic_load_explicit(state, memory_order_relaxed) & WEFT__CANCEL;
}

static inline bool weft__state_is_thread(const weft__state *state)
{
    return atomic_load_explicit(state, memory_order_relaxed) & WEFT__THREAD;
}

static inline bool weft__state_is_pool(const weft__state *state)
{
    return atomic_load_explicit(state, memory_order_relaxed) & WEFT__POOL;
}

#endif
