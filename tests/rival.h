/*
 * A thread outside the runtime that does something just while the caller does something else: for races of two calls, which
 * tasks of one runtime, packed on few workers, seldom run. It spins while it waits, so it is there at once. Included
 * after support.h, once by each test program that needs it.
 */
#ifndef WEFT_TESTS_RIVAL_H
#define WEFT_TESTS_RIVAL_H

#include <sched.h>

struct rival {
    pthread_t thread;
    void (*act)(void *arg);
    void *arg;
    atomic_uint asked, done;
    atomic_bool over;
};

static void *rival_main(void *arg)
{
    struct rival *rival = arg;

    for (unsigned round = 1;; round++) {
        for (unsigned spins = 1; atomic_load(&rival->asked) != round; spins++) {
            if (atomic_load(&rival->over))
                return NULL;
            if (spins % 1024 == 0)
                sched_yield();
        }
        rival->act(rival->arg);
        atomic_store(&rival->done, round);
    }
}

static void rival_start(struct rival *rival, void (*act)(void *arg))
{
    memset(rival, 0, sizeof *rival);
    rival->act = act;
    must_be(pthread_create(&rival->thread, NULL, rival_main, rival), 0);
}

static void rival_go(struct rival *rival, void *arg)
{
    rival->arg = arg;
    atomic_fetch_add(&rival->asked, 1);
}

/* Until it has done what it was asked for; the other tasks run meanwhile. */
static void rival_wait(struct rival *rival)
{
    while (atomic_load(&rival->done) != atomic_load(&rival->asked))
        weft_yield();
}

static void rival_end(struct rival *rival)
{
    rival_wait(rival);
    atomic_store(&rival->over, true);
    must_be(pthread_join(rival->thread, NULL), 0);
}

/* Up to some microseconds, mostly far less. */
static void dawdle(uint64_t *random)
{
    static atomic_uint sink;
    unsigned n = 1u << draw(random) % 10;

    for (n = (unsigned)(draw(random) % n); n > 0; n--)
        atomic_fetch_add_explicit(&sink, 1, memory_order_relaxed);
}

#endif
