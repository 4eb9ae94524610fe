/* The mask of sleepers and the count of searchers (idle.h). Any thread; lock-free. */
#include "runtime/idle.h"

void weft__idle_add(struct weft__idle *idle, uint32_t index)
{
    atomic_fetch_add_explicit(&idle->sleepers, 1, memory_order_relaxed);
    atomic_fetch_or_explicit(&idle->mask[index / 64], UINT64_C(1) << index % 64, memory_order_seq_cst);
}

bool weft__idle_remove(struct weft__idle *idle, uint32_t index)
{
    uint64_t bit = UINT64_C(1) << index % 64;

    /* acquire: pairs with the release in weft__idle_claim, so that a claimed worker sees what it was woken for */
    if (!(atomic_fetch_and_explicit(&idle->mask[index / 64], ~bit, memory_order_acq_rel) & bit))
        return false;
    atomic_fetch_sub_explicit(&idle->sleepers, 1, memory_order_relaxed);
    return true;
}

bool weft__idle_claimable(const struct weft__idle *idle)
{
    for (unsigned word = 0; word < WEFT__IDLE_WORDS; word++)
        if (atomic_load_explicit(&idle->mask[word], memory_order_seq_cst))
            return true;
    return false;
}

int weft__idle_claim(struct weft__idle *idle)
{
    for (unsigned word = 0; word < WEFT__IDLE_WORDS; word++) {
        uint64_t mask = atomic_load_explicit(&idle->mask[word], memory_order_seq_cst);

        while (mask) {
            uint64_t bit = mask & -mask;

            if (atomic_fetch_and_explicit(&idle->mask[word], ~bit, memory_order_acq_rel) & bit) {
                atomic_fetch_sub_explicit(&idle->sleepers, 1, memory_order_relaxed);
                return (int)(word * 64 + (unsigned)__builtin_ctzll(bit));
            }
            mask &= ~bit;
        }
    }
    return -1;
}

bool weft__idle_begin_search(struct weft__idle *idle)
{
    uint32_t none = 0;

    if (atomic_load_explicit(&idle->searching, memory_order_relaxed) != 0)
        return false;
    return atomic_compare_exchange_strong_explicit(&idle->searching, &none, 1, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

bool weft__idle_end_search(struct weft__idle *idle)
{
    /* Sequentially consistent: a producer that saw a searcher relies on that one looking again (rule 3). */
    return atomic_fetch_sub_explicit(&idle->searching, 1, memory_order_seq_cst) == 1;
}
