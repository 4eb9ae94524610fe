/*
 * Who sleeps, who searches, whom to wake.
 *
 * Rules:
 *  1. At most one searcher is woken at a time: whoever wants help and finds `searching` at 0 moves it to 1 and
 *     claims a sleeper; that one is born searching.
 *  2. A searcher that finds work stops searching first; if somebody still wants help, it wakes the next one. (The one it
 *     has stolen from says so again when it next looks around.)
 *  3. Before sleeping a worker publishes that it does (its state, its bit in the mask), executes a full fence, and
 *     looks again at every source. Whoever publishes work executes a full fence and then looks at those. So at
 *     least one of the two sees the other.
 *  4. The sleeper with the lowest index is woken: light load stays on few workers.
 *
 * The protocol is modelled in tests/model.
 */
#ifndef WEFT_RUNTIME_IDLE_H
#define WEFT_RUNTIME_IDLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { WEFT__MAX_WORKERS = 1024, WEFT__IDLE_WORDS = WEFT__MAX_WORKERS / 64 };

struct weft__idle {
    _Atomic uint32_t searching __attribute__((aligned(64)));
    _Atomic uint32_t sleepers; /* a hint: bits set in the mask */
    _Atomic uint64_t mask[WEFT__IDLE_WORDS];
};

static inline bool weft__idle_any(const struct weft__idle *idle)
{
    return atomic_load_explicit(&idle->sleepers, memory_order_relaxed) != 0;
}

/* This worker is about to sleep. Sequentially consistent: rule 3. */
void weft__idle_add(struct weft__idle *idle, uint32_t index);

/* It woke up. False: its bit was claimed by somebody: it is the searcher. */
bool weft__idle_remove(struct weft__idle *idle, uint32_t index);

/* Is any bit set in the mask? */
bool weft__idle_claimable(const struct weft__idle *idle);

/* Claim the sleeper with the lowest index; -1: none. */
int weft__idle_claim(struct weft__idle *idle);

/* The right to wake a searcher (rule 1). */
bool weft__idle_begin_search(struct weft__idle *idle);

/* True: it was the last one. */
bool weft__idle_end_search(struct weft__idle *idle);

#endif
