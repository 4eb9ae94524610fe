/*
 * Races between a wake-up and the cancellation of who is woken: the waiters wait on one worker, and are then woken from
 * there while another worker cancels the last of them and runs it. Between its being taken out of the list of waiters
 * and its being told so there are some nanoseconds, or, behind many others, microseconds; the two sides meet there
 * often enough when both start from a common signal, each after a random delay.
 */
#ifndef WEFT_TESTS_RACES_H
#define WEFT_TESTS_RACES_H

#include "support.h"

enum { RACE_WAITERS_MOST = 100, RACE_ROUNDS = 20000, RACE_DELAY = 512 };

#define RACE_TIME WEFT_MS(300)

struct race {
    int waiters;
    void (*prepare)(void *arg); /* before they are spawned */
    weft_fn *wait;              /* of each waiter, with the argument of the race */
    void (*wake)(void *arg);
    void (*check)(void *arg, const intptr_t *results); /* of the waiters; the last one was cancelled */
};

struct race_state {
    const struct race *race;
    void *arg;
    weft_task *victim;
    _Atomic int round, answered; /* the one that has been started, and the one whose victim was cancelled */
};

static void race_delay(uint64_t *seed)
{
    for (volatile int n = (int)(draw(seed) % RACE_DELAY); n > 0; n--)
        ;
}

static intptr_t race_cancel(void *arg)
{
    struct race_state *state = arg;
    uint64_t seed = wanted_seed();
    int round = 0, next;

    for (;;) {
        while ((next = state->round) == round)
            ;
        if (next < 0)
            return 0;
        round = next;
        race_delay(&seed);
        weft_cancel(state->victim);
        must_be(weft_yield(), 0); /* it runs here now */
        state->answered = round;
    }
}

static void race_once(struct race_state *state, uint64_t *seed)
{
    const struct race *race = state->race;
    intptr_t results[RACE_WAITERS_MOST];
    weft_task *tasks[RACE_WAITERS_MOST];

    race->prepare(state->arg);
    for (int i = 0; i < race->waiters; i++)
        must((tasks[i] = weft_spawn(race->wait, state->arg)) != NULL);
    must_be(weft_yield(), 0);
    must_be(weft_yield(), 0);
    state->victim = tasks[race->waiters - 1];
    state->round++;
    race_delay(seed);
    race->wake(state->arg);
    while (state->answered != state->round)
        must_be(weft_yield(), 0);
    for (int i = 0; i < race->waiters; i++)
        results[i] = weft_await(tasks[i]);
    race->check(state->arg, results);
}

static intptr_t race_main(void *arg)
{
    struct race_state *state = arg;
    weft_task *canceller = weft_spawn(race_cancel, state);
    int64_t end = weft_now() + RACE_TIME;
    uint64_t seed = wanted_seed();

    must(canceller != NULL);
    for (int i = 0; i < RACE_ROUNDS && weft_now() < end; i++)
        race_once(state, &seed);
    state->round = -1;
    return weft_await(canceller);
}

static UNUSED void run_race(const struct race *race, void *arg)
{
    struct race_state state = {.race = race, .arg = arg};

    must_be(run_on(2, race_main, &state), 0);
}

#endif
