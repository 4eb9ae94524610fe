/*
 * The asymmetric fence: a full fence between two sides of which one acts millions of times more often.
 *
 * The frequent side calls weft__fence_light, which costs nothing but the compiler's freedom; the rare side calls
 * weft__fence_heavy, which makes every thread of the process that runs execute a full fence (membarrier(2),
 * MEMBARRIER_CMD_PRIVATE_EXPEDITED: 0.4 µs alone, 1 to 9 µs with another thread running, measured on two
 * virtual processors). Of "A: store x; light; load y" and "B: store y; heavy; load x" at least one sees the
 * other's store. Where the kernel has no membarrier the heavy one is a full fence of its own thread only, and the light
 * one must not be relied on (WEFT__FENCED in worker.h).
 */
#ifndef WEFT_RUNTIME_FENCE_H
#define WEFT_RUNTIME_FENCE_H

#include <stdatomic.h>
#include <stdbool.h>

/* Before the first runtime starts its threads. */
void weft__fence_init(void);

/* False: the kernel has no membarrier, and the frequent side has to take a full fence. */
bool weft__fence_is_asymmetric(void);

void weft__fence_heavy(void);

static inline void weft__fence_light(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

#endif
