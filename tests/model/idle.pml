/*
 * Sleep and wake: which workers sleep, who searches, whom to wake.
 *
 * A worker has a run queue, an inbox for pushes from outside, a state word and an eventfd in its epoll set. The
 * workers share the idle mask and the number of searchers. A queue is a number of items here, and one item is
 * taken at a time.
 *
 * Scenarios:
 *   OUTSIDE    2 workers in any phase; two threads outside push one item each, to any inbox
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
#define PRODUCING 0
#define PUSHERS 2
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
#define ITEMS 2

#ifndef PUSHERS
#define PUSHERS 0
#endif
#define CPUS (WORKERS + PUSHERS)

#define IDLE 0      /* a bit a worker: it sleeps, or is about to, and nobody has claimed it */
#define SEARCHING 1 /* how many workers search, those that were woken to do so included */
#define STATE(w) (2 + (w))
#define EVENT(w) (2 + WORKERS + (w))
#define QUEUE(w) (2 + 2 * WORKERS + (w))
#define INBOX(w) (2 + 3 * WORKERS + (w))
#define PLACES (2 + 4 * WORKERS)

#define AWAKE 0
#define SLEEPING 1
#define NOTIFIED 2

#include "memory.pml"

byte started; /* items that run or have run */
byte waking;  /* searchers being woken: from taking the only place to leaving the search */

#define BIT(w) (1 << (w))
#define ALL_STARTED (started == ITEMS)

/* What a producing task waits for. */
#ifdef MIXED
#define UNBLOCKED (memory[QUEUE(0)] == 0)
#else
#define UNBLOCKED ALL_STARTED
#endif

/* One item out of a queue or inbox, by its owner or a thief. */
inline take(at)
{
    atomic {
        if
        :: LOAD(me, at) == 0
        :: !got && OWNS(me, at) && memory[at] > 0 -> modify(me, at, old, old - 1); old = 0; got = 1
        fi
    }
}

inline glance(at)
{
    atomic {
        if
        :: LOAD(me, at) > 0 -> got = 1
        :: else
        fi
    }
}

/* The own queue and inbox. */
inline take_own()
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

/* What a searcher looks through: all sources. Only a producer's queue and only with pushers an inbox has work. */
inline take_any()
{
#if PUSHERS
    take(INBOX(me));
    if
    :: !got -> take(INBOX(1 - me))
    :: else
    fi;
#endif
#if PRODUCING > 0
    if
    :: !got -> take(QUEUE(0))
    :: else
    fi;
#endif
#if PRODUCING > 1
    if
    :: !got -> take(QUEUE(1))
    :: else
    fi;
#endif
    skip
}

inline glance_any()
{
#if PUSHERS
    glance(INBOX(0));
    glance(INBOX(1));
#endif
#if PRODUCING > 0
    glance(QUEUE(0));
#endif
#if PRODUCING > 1
    glance(QUEUE(1));
#endif
    skip
}

/* Take an idle worker out of the mask: the one whose bit this clears. `other` is WORKERS if there is none. */
inline claim_idle()
{
    do
    :: atomic { LOAD(me, IDLE) == 0 -> other = WORKERS; break }
    :: atomic {
            LOAD(me, IDLE) & 1 && OWNS(me, IDLE) -> modify(me, IDLE, old, old & ~1); other = 0;
            if
            :: old & 1 -> old = 0; break
            :: else -> old = 0
            fi
       }
    :: atomic {
            LOAD(me, IDLE) & 2 && OWNS(me, IDLE) -> modify(me, IDLE, old, old & ~2); other = 1;
            if
            :: old & 2 -> old = 0; break
            :: else -> old = 0
            fi
       }
#if WORKERS > 2
    :: atomic {
            LOAD(me, IDLE) & 4 && OWNS(me, IDLE) -> modify(me, IDLE, old, old & ~4); other = 2;
            if
            :: old & 4 -> old = 0; break
            :: else -> old = 0
            fi
       }
#endif
    od
}

/*
 * Tell a worker that there is work. The exchange is done whatever the state was: it comes before or after the
 * SLEEPING of the other in the order of that word. Before: the work, written earlier, is visible too when SLEEPING
 * is, and is found in the look before sleep. After: it returns SLEEPING. Only to look at the state first would
 * need a full fence before.
 */
inline notify(who)
{
#ifdef MUTATION_NOTIFY_LOOKS_FIRST
    if
    :: LOAD(me, STATE(who)) != SLEEPING -> old = AWAKE
    :: else -> modify(me, STATE(who), old, NOTIFIED)
    fi;
#else
    modify(me, STATE(who), old, NOTIFIED);
#endif
    if
    :: atomic { old == SLEEPING -> old = 0 }; store(me, EVENT(who), 1)
    :: atomic { else -> old = 0 }
    fi
}

/*
 * There is a backlog: wake one idle worker as a searcher, unless one is being woken or searches already.
 */
inline wake_one()
{
#ifndef MUTATION_NO_WAKE_FENCE
    fence(me); /* pairs with the one before sleep: this sees the bit in the idle mask, or the other the work */
#endif
    do
    :: LOAD(me, SEARCHING) != 0 -> break
    :: LOAD(me, SEARCHING) == 0 ->
        if
        :: LOAD(me, IDLE) == 0 -> break
        :: else
        fi;
#ifdef MUTATION_WAKE_WITHOUT_CLAIM
        modify(me, SEARCHING, old, old + 1);
        old = 0;
        got = 1;
#else
        swap(me, SEARCHING, 0, 1, got);
#endif
        if
        :: atomic { got -> got = 0; waking++; assert(waking == 1) }
        :: else -> break
        fi;
        claim_idle();
        if
        :: other < WORKERS -> notify(other); break
        :: else
        fi;
        /* Nobody to wake any more. Others did not wake because of this place in the search: look for them. */
        atomic { modify(me, SEARCHING, old, old - 1); waking-- }
#ifdef MUTATION_NO_CLAIM_RECHECK
        old = 0;
        break
#else
        old = 0;
#ifndef MUTATION_NO_CLAIM_RECHECK_FENCE
        fence(me); /* pairs with the one of a producer, and with the one before sleep */
#endif
        glance_any();
        if
        :: got -> got = 0
        :: else -> break
        fi
#endif
    od;
    other = 0
}

inline leave_search()
{
    if
    :: atomic {
            born -> modify(me, SEARCHING, old, old - 1);
            assert(old > 0);
            old = 0;
            born = 0;
            waking--
       }
    :: else
    fi
}

inline run_item()
{
    atomic { got = 0; started++ }
#ifdef TOGETHER
    ALL_STARTED
#endif
}

proctype worker(byte me)
{
    byte old, other;
    bit got;
    bit born; /* it was woken as a searcher, and is counted as one */

#if PRODUCING
    if
    :: me < PRODUCING ->
        byte produced;
        do
        :: produced < EACH ->
            atomic { modify(me, QUEUE(me), old, old + 1); old = 0; produced++ }
            wake_one()
        :: else -> break
        od;
        atomic { UNBLOCKED -> produced = 0 }
    :: else
    fi;
#endif

find:
    take_own();
    if
    :: got -> run_item(); goto find
    :: else
    fi;

search:
    take_any();
    if
    :: got ->
        leave_search();
#ifndef MUTATION_NO_SEARCHER_RULE
        got = 0;
#ifndef MUTATION_NO_SEARCHER_FENCE
        fence(me); /* pairs with the one of wake_one: that sees no searcher, or this sees its work */
#endif
        glance_any();
        if
        :: got -> got = 0; wake_one()
        :: else
        fi;
#endif
        run_item();
        goto find
    :: else
    fi;

    /* sleep */
    leave_search();
#ifdef MUTATION_IDLE_BEFORE_STATE
    atomic { modify(me, IDLE, old, old | BIT(me)); old = 0 }
    store(me, STATE(me), SLEEPING);
#else
    store(me, STATE(me), SLEEPING);
    atomic { modify(me, IDLE, old, old | BIT(me)); old = 0 }
#endif
#ifndef MUTATION_NO_SLEEP_FENCE
    fence(me); /* pairs with the one of wake_one, and with the exchange of notify */
#endif
#if defined(MUTATION_NO_RECHECK)
#elif defined(MUTATION_RECHECK_OWN_ONLY)
#if PUSHERS
    glance(INBOX(me));
#endif
#else
    glance_any();
#endif
    if
    :: got -> swap(me, STATE(me), SLEEPING, AWAKE, got); got = 0 /* if it fails an event comes: no harm */
    :: else ->
        /* epoll_wait */
        if
        :: atomic { memory[EVENT(me)] -> memory[EVENT(me)] = 0 }
        :: ALL_STARTED -> goto over
        fi;
        store(me, STATE(me), AWAKE)
    fi;
    atomic { modify(me, IDLE, old, old & ~BIT(me)); born = !(old & BIT(me)); old = 0 }
    if
    :: born -> goto search /* whoever claimed it has counted it */
    :: else -> goto find
    fi;
over:
    skip
}

#if PUSHERS
proctype pusher(byte me; byte to)
{
    byte old;

    atomic { modify(me, INBOX(to), old, old + 1); old = 0 }
    notify(to)
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
