/*
 * Sleep and wake: which workers sleep, who searches, whom to wake (idle.c, worker.c; weft__poller_wait in
 * poller.c).
 *
 * A worker has a run queue, an inbox for pushes from outside, a state word and an eventfd in its epoll set. The
 * workers share the mask of sleepers, the hint how many they are, and the number of searchers. A queue is a number
 * of items here, and one item is taken at a time.
 *
 * Scenarios:
 *   OUTSIDE    2 workers in any phase; two threads outside push one item each, to any inbox
 *   STALE      2 workers in any phase; a thread outside pushes an item to the inbox of worker 0. A worker that is
 *              awake may look stale: then the other one serves it, and polls its epoll set
 *   LOCAL      3 workers; worker 0 runs a task that pushes two items to its own queue and then blocks until both
 *              run; each item blocks until both run: they must get a worker each
 *   PRODUCERS  3 workers; the tasks of workers 0 and 1 push one item each and block until both have run: worker 2
 *              must run both
 *   MIXED      2 workers; worker 0 runs a task that pushes one item and blocks until it runs; a thread outside
 *              pushes another to any inbox
 *
 * Checked:
 *   - every item is run (else: an invalid end state): workers never all sleep or block while there is work;
 *   - at most one searcher is being woken at a time, and the number of searchers never goes below zero.
 */
#if defined(OUTSIDE)
#define WORKERS 2
#define PUSHERS 2
#elif defined(STALE)
#define WORKERS 2
#define PUSHERS 1
#define ITEMS 1
#elif defined(LOCAL)
#define WORKERS 3
#define PRODUCING 1
#define EACH 2
#define TOGETHER
#elif defined(PRODUCERS)
#define WORKERS 3
#define PRODUCING 2
#define EACH 1
#elif defined(MIXED)
#define WORKERS 2
#define PRODUCING 1
#define EACH 1
#define PUSHERS 1
#endif

#ifndef ITEMS
#define ITEMS 2
#endif
#ifndef PUSHERS
#define PUSHERS 0
#endif
#ifndef PRODUCING
#define PRODUCING 0 /* workers that begin with a task that pushes items, worker 0 first */
#endif
#define CPUS (WORKERS + PUSHERS)

#define MASK 0      /* a bit a worker: it sleeps, or is about to, and nobody has claimed it */
#define SLEEPERS 1  /* a hint: bits set in the mask */
#define SEARCHING 2 /* how many workers search, those that were woken to do so included */
#define STATE(w) (3 + (w))
#define EVENT(w) (3 + WORKERS + (w)) /* an edge of the eventfd that epoll has not reported */
#define QUEUE(w) (3 + 2 * WORKERS + (w))
#define INBOX(w) (3 + 3 * WORKERS + (w))
#define PLACES (3 + 4 * WORKERS)

#define AWAKE 0
#define SLEEPING 1
#define WOKEN 2

#include "memory.pml"

byte started; /* items that run or have run */
byte waking;  /* searchers being woken: from taking the only place to leaving the search */

#define BIT(w) (1 << (w))
#define LOWEST(mask) ((mask) & 1 -> 0 : ((mask) & 2 -> 1 : 2))
#define ALL_STARTED (started == ITEMS)

/* What a producing task waits for. */
#ifdef MIXED
#define UNBLOCKED (memory[QUEUE(0)] == 0)
#else
#define UNBLOCKED ALL_STARTED
#endif

/* A read-modify-write whose result does not matter. */
inline change(at, what)
{
    atomic { modify(me, at, old, what); old = 0 }
}

/* One item out of a queue or inbox, by its owner or a thief. */
inline take(at)
{
    atomic {
        if
        :: LOAD(me, at) == 0
        :: OWNS(me, at) && memory[at] > 0 -> modify(me, at, old, old - 1); old = 0; got = 1
        fi
    }
}

/* Is there something? */
inline glance(at)
{
    atomic {
        if
        :: LOAD(me, at) > 0 -> got = 1
        :: else
        fi
    }
}

/* ---- idle.c ---- */

inline weft__idle_add()
{
    change(SLEEPERS, old + 1);
    change(MASK, old | BIT(me))
}

/* `born` if somebody has claimed this worker, and counted it as a searcher. */
inline weft__idle_remove()
{
    atomic { modify(me, MASK, old, old & ~BIT(me)); born = !(old & BIT(me)); old = 0 }
    if
    :: born
    :: else -> change(SLEEPERS, old - 1)
    fi
}

/* Looks at the mask once, and tries its bits from the lowest on. `other` is WORKERS if it gets none. */
inline weft__idle_claim()
{
    mask = LOAD(me, MASK);
    do
    :: mask == 0 -> other = WORKERS; break
    :: else ->
        other = LOWEST(mask);
        modify(me, MASK, old, old & ~BIT(other));
        if
        :: atomic { old & BIT(other) -> old = 0; mask = 0 }
            change(SLEEPERS, old - 1);
            break
        :: atomic { else -> old = 0; mask = mask & ~BIT(other) }
        fi
    od
}

/* `got` if this is the one that may wake a searcher. */
inline weft__idle_begin_search()
{
#ifdef MUTATION_WAKE_WITHOUT_CLAIM
    atomic { change(SEARCHING, old + 1); got = 1 }
#else
    swap(me, SEARCHING, 0, 1, got);
#endif
    if
    :: atomic { got -> waking++; assert(waking == 1) }
    :: else
    fi
}

inline weft__idle_end_search()
{
    atomic { modify(me, SEARCHING, old, old - 1); assert(old > 0); old = 0; waking-- }
}

/* ---- worker.c ---- */

/* Its load and compare-and-swap are one step: a compare-and-swap that fails is a load. */
inline weft__notify(who)
{
#ifndef MUTATION_NO_NOTIFY_FENCE
    fence(me); /* pairs with the one of fall_asleep: this sees SLEEPING, or the other the work */
#endif
    swap(me, STATE(who), SLEEPING, WOKEN, got);
    if
    :: got -> store(me, EVENT(who), 1); got = 0
    :: else
    fi
}

inline weft__wake_searcher()
{
    do
    ::
#ifndef MUTATION_NO_WAKE_FENCE
        fence(me); /* pairs with the one of fall_asleep: this sees the sleeper, or the other the work */
#endif
        if
        :: LOAD(me, SLEEPERS) == 0 -> break
        :: else
        fi;
        weft__idle_begin_search();
        if
        :: got -> got = 0
        :: else -> break
        fi;
        weft__idle_claim();
        if
        :: other < WORKERS -> weft__notify(other); break
        :: else
        fi;
        weft__idle_end_search();
#ifdef MUTATION_NO_RETRY
        break
#else
#ifndef MUTATION_NO_RETRY_FENCE
        fence(me); /* pairs with those of another weft__wake_searcher and of fall_asleep */
#endif
        if
        :: LOAD(me, MASK) == 0 -> break /* weft__idle_claimable */
        :: else
        fi
#endif
    od;
    other = 0
}

inline stop_searching()
{
    if
    :: atomic { born -> born = 0; weft__idle_end_search() }
    :: else
    fi
}

inline anyone_has_backlog()
{
#if PRODUCING > 0
    if
    :: me != 0 -> glance(QUEUE(0))
    :: else
    fi;
#endif
#if PRODUCING > 1
    if
    :: me != 1 -> glance(QUEUE(1))
    :: else
    fi;
#endif
    skip
}

inline pass_search_on()
{
    if
    :: born ->
        stop_searching();
#ifndef MUTATION_NO_SEARCHER_RULE
#ifndef MUTATION_NO_SEARCHER_FENCE
        fence(me); /* pairs with the one of weft__wake_searcher: that sees no searcher, or this sees its work */
#endif
        anyone_has_backlog();
        if
        :: got -> got = 0; weft__wake_searcher()
        :: else
        fi
#else
        skip
#endif
    :: else
    fi
}

/* What is in the own queue and inbox. */
inline pop()
{
#if PRODUCING
    if
    :: me < PRODUCING -> take(QUEUE(me))
    :: else
    fi;
#endif
#if PUSHERS
    if
    :: !got -> take(INBOX(me))
    :: else
    fi
#endif
}

#ifdef STALE
/* weft__poller_wait with the epoll set of a peer: an edge is reported once, and this one was the peer's. */
inline look_at_events(peer)
{
    if
    :: atomic { memory[EVENT(peer)] -> memory[EVENT(peer)] = 0 }
#ifndef MUTATION_EDGE_SWALLOWED
        store(me, EVENT(peer), 1)
#endif
    :: skip
    fi
}

inline serve_peer(peer)
{
    if
    :: LOAD(me, STATE(peer)) == AWAKE -> take(INBOX(peer)); look_at_events(peer)
    :: skip
    fi
}
#endif

/* The queues of all peers; the rest only of those that look stale. */
inline search()
{
#ifdef STALE
    serve_peer(1 - me);
#endif
#if PRODUCING > 0
    if
    :: me != 0 -> take(QUEUE(0))
    :: else
    fi;
#endif
#if PRODUCING > 1
    if
    :: !got && me != 1 -> take(QUEUE(1))
    :: else
    fi;
#endif
    skip
}

inline must_stay_awake()
{
#ifndef MUTATION_NO_RECHECK
#if PUSHERS
    glance(INBOX(me));
#endif
#ifndef MUTATION_RECHECK_OWN_ONLY
    anyone_has_backlog();
#endif
#endif
    skip
}

inline fall_asleep()
{
    stop_searching();
#ifdef MUTATION_BIT_BEFORE_STATE
    weft__idle_add();
    store(me, STATE(me), SLEEPING);
#else
    store(me, STATE(me), SLEEPING);
    weft__idle_add();
#endif
#ifndef MUTATION_NO_SLEEP_FENCE
    fence(me); /* pairs with those of weft__wake_searcher and weft__notify */
#endif
    must_stay_awake();
    if
    :: atomic { got -> got = 0; memory[EVENT(me)] = 0 } /* a look at the events, no sleep */
    :: else ->
        if
        :: atomic { memory[EVENT(me)] -> memory[EVENT(me)] = 0 }
        :: ALL_STARTED -> goto over
        fi
    fi;
    store(me, STATE(me), AWAKE);
    weft__idle_remove()
}

inline run_item()
{
    started++;
#ifdef TOGETHER
    ALL_STARTED
#endif
    skip
}

proctype worker(byte me)
{
    byte old, other, mask;
    bit got;
    bit born; /* driver->searching: it was woken as a searcher, and is counted as one */

#if PRODUCING
    if
    :: me < PRODUCING ->
        byte produced;
        do
        :: produced < EACH ->
            atomic { change(QUEUE(me), old + 1); produced++ }
            weft__wake_searcher() /* spread */
        :: else -> break
        od;
        atomic { UNBLOCKED -> produced = 0 }
    :: else
    fi;
#endif

drive:
    pop();
    if
    :: got
    :: else -> search()
    fi;
    if
    :: got -> got = 0; pass_search_on(); run_item() /* run_coroutine */
    :: else -> fall_asleep()
    fi;
    goto drive;
over:
    skip
}

#if PUSHERS
/* weft__queue_from_outside */
proctype pusher(byte me; byte to)
{
    byte old, other, mask;
    bit got;

    change(INBOX(to), old + 1);
    weft__notify(to)
#ifdef STALE
    ;
    if
    :: LOAD(me, STATE(to)) == AWAKE -> weft__wake_searcher()
    :: skip
    fi
#endif
}
#endif

init
{
    atomic {
        run worker(0);
        run worker(1);
#if WORKERS > 2
        run worker(2);
#endif
#if PUSHERS
        byte to = 0;
#ifdef MIXED
        select(to : 0 .. 1);
#endif
        run pusher(WORKERS, to); /* OUTSIDE: the two workers are alike, so the first push goes to worker 0 */
#if PUSHERS > 1
        select(to : 0 .. 1);
        run pusher(WORKERS + 1, to);
#endif
        to = 0
#endif
    }
}
