/*
 * Selects that meet on two rendezvous channels: runtime/select.c with channel.c. Memory is sequentially consistent here:
 * all but the claim is read and written under a channel's lock, and the claim is a single word that only
 * compare-and-swaps change. What a peer does by one pop (take a wait out, claim, move the element) is one atomic step:
 * it holds the channel's lock, and of what others may touch at that time it needs the claim only, once.
 *
 * Each select has two cases. Scenarios (S sends, R receives):
 *
 *   CROSSED   0: S on A or R on B    1: R on A or S on B
 *   SAME      0 and 1: S or R on A
 *   THREE     CROSSED, and           2: R on A or R on B
 *   CANCELLED THREE, and each may be cancelled while it waits
 *
 * Checked: a select has one operation done at most, the one that it reports, and none if it was cancelled; an element
 * goes to one receiver; no select meets itself; no frame is touched after its select has returned; when nothing goes
 * on any more, no two that still wait could meet; and no lock is waited for for ever.
 */
#ifdef SAME
#define SELECTS 2
#else
#ifdef CROSSED
#define SELECTS 2
#else
#define SELECTS 3
#endif
#endif

#define NOBODY 7

/* Of a claim; else it is 1 + the index of the case. */
#define UNCLAIMED 0
#define BY_ITSELF 3

typedef select_frame {
    byte claim;
    bit settled;
    bit returned;
    bit sends[2]; /* by case */
    bit at[2];     /* which channel */
    bit queued[2]; /* the wait of this case is in the list of its channel */
    byte done      /* operations that were done */
}

select_frame frame[3];
byte owner[2] = NOBODY; /* of the channels' locks */

#define MATCH(who, with, i, k) \
    (frame[with].queued[k] && frame[with].at[k] == frame[who].at[i] && frame[with].sends[k] != frame[who].sends[i])
#define ANY_MATCH(who, i) \
    (MATCH(who, 0, i, 0) || MATCH(who, 0, i, 1) || MATCH(who, 1, i, 0) || MATCH(who, 1, i, 1) || \
        MATCH(who, 2, i, 0) || MATCH(who, 2, i, 1))

#define LOCK(place) atomic { owner[place] == NOBODY -> owner[place] = me }
#define UNLOCK(place) owner[place] = NOBODY

/* A wait that fits case i was popped. */
inline pop(with, i, k)
{
    frame[with].queued[k] = 0;
    assert(with != me);
    assert(!frame[with].returned);
    assert(owner[frame[me].at[i]] == me);
    if
#ifndef MUTATION_NO_CLAIM
    :: frame[with].claim != UNCLAIMED /* it is over: forget the wait */
    :: else ->
#else
    :: true ->
#endif
        frame[with].claim = 1 + k;
        frame[with].done++;
        frame[me].done++;
        assert(frame[with].done == 1 && frame[me].done == 1);
        peer = with
    fi
}

/* Locked: try case i. The list is a set here: whichever wait fits may be the first. */
inline try(i)
{
    do
    :: atomic { peer == NOBODY && MATCH(me, 0, i, 0) -> pop(0, i, 0) }
    :: atomic { peer == NOBODY && MATCH(me, 0, i, 1) -> pop(0, i, 1) }
    :: atomic { peer == NOBODY && MATCH(me, 1, i, 0) -> pop(1, i, 0) }
    :: atomic { peer == NOBODY && MATCH(me, 1, i, 1) -> pop(1, i, 1) }
    :: atomic { peer == NOBODY && MATCH(me, 2, i, 0) -> pop(2, i, 0) }
    :: atomic { peer == NOBODY && MATCH(me, 2, i, 1) -> pop(2, i, 1) }
    :: atomic { peer != NOBODY || !ANY_MATCH(me, i) -> break }
    od
}

/* weft__chan_wake: without a lock, the last access to the frame of the peer. */
inline settle()
{
    atomic { assert(!frame[peer].returned); frame[peer].settled = 1 }
}

/* withdraw_channels: a wait that was popped is known to be so under the lock only. */
inline withdraw(i)
{
    LOCK(frame[me].at[i]);
    frame[me].queued[i] = 0;
    UNLOCK(frame[me].at[i])
}

proctype selector(byte me)
{
    byte peer = NOBODY;
    bit i;

    /* Step 1, in any order. */
    if
    :: i = 0
    :: i = 1
    fi;
    LOCK(frame[me].at[i]);
    try(i);
    UNLOCK(frame[me].at[i]);
    if
    :: peer != NOBODY -> goto met
    :: else
    fi;
    i = 1 - i;
    LOCK(frame[me].at[i]);
    try(i);
    UNLOCK(frame[me].at[i]);
    if
    :: peer != NOBODY -> goto met
    :: else
    fi;

    /* Step 3: publish. */
#ifdef MUTATION_ONE_BY_ONE
    LOCK(frame[me].at[0]);
    try(0);
    if
    :: peer != NOBODY -> UNLOCK(frame[me].at[0]); goto met
    :: else -> frame[me].queued[0] = 1
    fi;
    UNLOCK(frame[me].at[0]);
    LOCK(frame[me].at[1]);
    try(1);
    if
    :: peer != NOBODY -> UNLOCK(frame[me].at[1]); goto met
    :: else -> frame[me].queued[1] = 1
    fi;
    UNLOCK(frame[me].at[1]);
#else
#ifdef MUTATION_UNORDERED
    if
    :: me == 0 || frame[me].at[0] == frame[me].at[1] -> LOCK(frame[me].at[0])
    :: else -> LOCK(frame[me].at[1])
    fi;
    if
    :: frame[me].at[0] == frame[me].at[1]
    :: else ->
        if
        :: me == 0 -> LOCK(frame[me].at[1])
        :: else -> LOCK(frame[me].at[0])
        fi
    fi;
#else
    LOCK(frame[me].at[0]);
    if
    :: frame[me].at[1] != frame[me].at[0] -> LOCK(frame[me].at[1])
    :: else
    fi;
#endif
#ifndef MUTATION_NO_RECHECK
    try(0);
    if
    :: peer == NOBODY -> try(1)
    :: else
    fi;
#endif
    if
    :: peer == NOBODY -> atomic { frame[me].queued[0] = 1; frame[me].queued[1] = 1 }
    :: else
    fi;
    UNLOCK(frame[me].at[0]);
    if
    :: frame[me].at[1] != frame[me].at[0] -> UNLOCK(frame[me].at[1])
    :: else
    fi;
    if
    :: peer != NOBODY -> goto met
    :: else
    fi;
#endif

    /* Step 4: wait. */
end:
    if
    :: frame[me].settled
#ifdef CANCELLED
    :: true ->
        if
#ifdef MUTATION_CANCEL_UNCLAIMED
        :: true -> i = 1; withdraw(0); withdraw(1); goto over
#else
        :: atomic { frame[me].claim == UNCLAIMED -> frame[me].claim = BY_ITSELF }
            withdraw(0);
            withdraw(1);
            assert(frame[me].done == 0);
            goto over
        :: atomic { frame[me].claim != UNCLAIMED -> skip }
#ifndef MUTATION_NO_WAIT_OUT
            frame[me].settled /* weft__wait_out */
#endif
#endif
        fi
#endif
    fi;

    /* Step 5: claimed by a peer. */
    assert(frame[me].done == 1 && frame[me].claim != UNCLAIMED && frame[me].claim != BY_ITSELF);
#ifndef MUTATION_NO_WITHDRAWAL
    withdraw(2 - frame[me].claim);
#endif
    goto over;

met:
    settle();
over:
    frame[me].returned = 1
}

#define WAITS(who) (frame[who].queued[0] || frame[who].queued[1])
#define COULD_MEET(who, with) \
    (frame[who].claim == UNCLAIMED && frame[with].claim == UNCLAIMED && \
        ((frame[who].queued[0] && (MATCH(who, with, 0, 0) || MATCH(who, with, 0, 1))) || \
            (frame[who].queued[1] && (MATCH(who, with, 1, 0) || MATCH(who, with, 1, 1)))))

proctype judge()
{
end:
    timeout ->
        assert(!COULD_MEET(0, 1));
        assert(!COULD_MEET(0, 2));
        assert(!COULD_MEET(1, 2))
}

init
{
    atomic {
        frame[0].sends[0] = 1;
        frame[0].at[1] = 1;
#ifdef SAME
        frame[0].at[1] = 0;
        frame[1].sends[1] = 1;
#else
        frame[1].sends[1] = 1;
        frame[1].at[1] = 1;
#endif
        frame[2].at[1] = 1;
        run selector(0);
        run selector(1);
        if
        :: SELECTS == 3 -> run selector(2)
        :: else
        fi;
        run judge()
    }
}
