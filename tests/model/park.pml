/*
 * Park, ready and cancel: how a coroutine stops and is made to run again (task_state.h, task.c, worker.c, scope.c).
 *
 * The coroutine R runs on two workers in turn. Its program: start a task T, whose body is one wait (number 0);
 * then wait once more (number 1). Wait 0 is granted, or T is cancelled, or both at once; wait 1 is granted.
 *
 *   ON_ITS_OWN  T is R: its root is stored by start, and the full fence is the one of coroutine_main
 *   IN_PLACE    R awaits T and runs it on its own stack: the two have different state words, a cancellation of T
 *               has to find R through T's root, which claim stored, and the full fence is the one at each wait, in
 *               weft__interrupt. The second wait is R's own
 *
 * The lock of a synchronisation object is abstracted: what is done under it is one atomic step. It drains no
 * store buffer, so it is weaker than the lock. The sleep of a worker with nothing to run is in idle.pml; here
 * it waits for the run queue.
 *
 * Checked:
 *   - the coroutine comes to its end (else: an invalid end state): no wake-up is lost;
 *   - it is never in the run queue twice, and never runs on two workers;
 *   - it is never resumed before its registers are saved.
 */
#define CPUS 5 /* two workers, two granters, one canceller */

#define R_WORD 0
#define ROOT 1  /* T's root: none, or R */
#define SAVED 2 /* R's registers: saved, or not */
#define QUEUE 3 /* the run queue: how often R is in it */
#define OUTCOME 4
#define PLACES 7
#ifdef IN_PLACE
#define T_WORD 6
#else
#define T_WORD R_WORD
#endif

#define PARKED 1
#define NOTIFIED 2
#define CANCEL 4

#define WAITING 0
#define GRANTED 1

#include "memory.pml"

bit listed[2];  /* under the lock of the object: the wait is in its list */
bit permit[2];  /* under the lock of the object: it was granted before the wait came */
byte current;   /* on R's stack: which wait it is in */
bit running;    /* some worker is on R's stack */
bit finished;   /* R has ended */

#define CANCEL_WORD (current == 0 -> T_WORD : R_WORD)

/* By whoever cleared PARKED, or found NOTIFIED. */
inline push()
{
    modify(me, QUEUE, word, word + 1);
    assert(word == 0)
}

/* By any waker, after the outcome is settled or CANCEL is set: weft__state_ready, and what its caller does. */
inline weft__ready()
{
    do
    :: word = LOAD(me, R_WORD);
        if
        :: word & PARKED ->
#ifdef MUTATION_READY_PLAIN_SET
            store(me, R_WORD, word & ~PARKED);
            done = 1;
#else
            swap(me, R_WORD, word, word & ~PARKED, done);
#endif
            if
            :: done -> push(); break
            :: else
            fi
#ifdef MUTATION_NOTIFIED_BY_LOAD
        :: (word & NOTIFIED) && !(word & PARKED) -> break
        :: !(word & (PARKED | NOTIFIED)) ->
#else
        :: else ->
#endif
#ifdef MUTATION_NO_NOTIFIED
            break
#else
            /*
             * Also when NOTIFIED stands there already: the write, of the same value, is what makes the outcome
             * visible to the one who takes NOTIFIED away. Only to have seen it would leave the outcome in the
             * store buffer while R looks, finds nothing, and parks.
             */
            swap(me, R_WORD, word, word | NOTIFIED, done);
            if
            :: done -> break
            :: else
            fi
#endif
        fi
    od;
    word = 0;
    done = 0
}

/* By the side that was switched to: weft__state_park; if it was notified meanwhile, it is queued. */
inline after_switch()
{
    do
    :: word = LOAD(me, R_WORD);
        if
        :: word & NOTIFIED ->
            swap(me, R_WORD, word, word & ~NOTIFIED, done);
            if
            :: done -> push(); break
            :: else
            fi
        :: else ->
            swap(me, R_WORD, word, word | PARKED, done);
            if
            :: done -> break
            :: else
            fi
        fi
    od;
    word = 0;
    done = 0
}

/* The registers are stored, then another stack is in use. */
inline weft__context_switch()
{
    store(me, SAVED, 1);
    running = 0
}

/* Sets `done` if the task that runs is cancelled. */
inline weft__interrupt()
{
#if defined(IN_PLACE) && !defined(MUTATION_NO_WAIT_FENCE)
    if
    :: current == 0 -> fence(me) /* pairs with the one of weft__state_cancel: that sees the root, or this CANCEL */
    :: else /* R has started long ago */
    fi;
#endif
    if
    :: LOAD(me, CANCEL_WORD) & CANCEL -> done = 1
    :: else
    fi
}

proctype worker(byte me)
{
    byte word;
    bit done;

    if
    :: me == 0
    :: else -> goto next
    fi;

#ifdef ON_ITS_OWN
    if
    :: LOAD(me, T_WORD) & CANCEL -> goto ended /* pick: it never runs */
    :: else
    fi;
#endif
    store(me, ROOT, 1);
#if defined(ON_ITS_OWN) && !defined(MUTATION_NO_START_FENCE)
    fence(me); /* coroutine_main; pairs with the one of weft__state_cancel */
#endif

enlist:
    atomic {
        if
        :: permit[current] -> permit[current] = 0; goto waited
        :: else -> listed[current] = 1
        fi
    }

interrupt:
    weft__interrupt();
    if
    :: atomic { done -> done = 0; listed[current] = 0 }
        goto waited /* with -ECANCELED, or 0 if a grant has just taken it out of the list */
    :: else
    fi;

    /* weft__park */
    if
    :: LOAD(me, R_WORD) & NOTIFIED -> /* weft__state_take_notification */
        atomic { modify(me, R_WORD, word, word & ~NOTIFIED); word = 0 }
        goto resumed
    :: else
    fi;
#ifdef MUTATION_PARKED_BEFORE_SAVED
    after_switch();
    weft__context_switch();
#else
    weft__context_switch();
    after_switch();
#endif

next: /* the worker takes what is in the run queue, and switches to it */
    if
    :: atomic { OWNS(me, QUEUE) && memory[QUEUE] > 0 -> modify(me, QUEUE, word, word - 1); word = 0 }
    :: finished -> goto over
    fi;
    atomic {
        assert(!running);
        assert(LOAD(me, SAVED) == 1);
        running = 1
    }
    store(me, SAVED, 0);

resumed: /* is_settled? */
    if
    :: LOAD(me, OUTCOME + current) == GRANTED
    :: else -> goto interrupt
    fi;

waited:
    atomic {
        current++;
        if
        :: current < 2 -> goto enlist
        :: else
        fi
    }
ended:
    atomic { running = 0; finished = 1; goto next }
over:
    skip
}

proctype granter(byte me; byte wait)
{
    byte word;
    bit done;

    atomic {
        if
        :: listed[wait] -> listed[wait] = 0; store(me, OUTCOME + wait, GRANTED) /* weft__settle */
        :: else -> permit[wait] = 1; goto over
        fi
    }
    weft__ready();
over:
    skip
}

/* weft_cancel */
proctype canceller(byte me)
{
    byte word;
    bit done;

    modify(me, T_WORD, word, word | CANCEL);
#ifndef MUTATION_NO_CANCEL_FENCE
    fence(me); /* weft__state_cancel; pairs with the one of coroutine_main, or of weft__interrupt */
#endif
    if
    :: LOAD(me, ROOT) -> weft__ready()
    :: else /* it has not started, and will see CANCEL before it does or when it first waits */
    fi
}

init
{
    atomic {
        running = 1;
        run worker(0);
        run worker(1);
        run granter(3, 1);
        if
        :: run granter(2, 0)
        :: run canceller(4)
        :: run granter(2, 0); run canceller(4)
        fi
    }
}
