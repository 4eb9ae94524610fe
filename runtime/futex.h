/* futex(2), private to the process: how threads, as opposed to tasks, wait. Any thread. */
#ifndef WEFT_RUNTIME_FUTEX_H
#define WEFT_RUNTIME_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * Sleep while *word is `value`, until `deadline` (monotonic clock; INT64_MAX: no limit). 0: woken, or for nothing;
 * -EAGAIN: it was different; -EINTR; -ETIMEDOUT.
 */
static inline int weft__futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline)
{
    struct timespec ts = {deadline / 1000000000, deadline % 1000000000};
    const struct timespec *limit = deadline == INT64_MAX ? NULL : &ts;

    /* The BITSET form takes a time, not a span. */
    return syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, limit, NULL,
                   FUTEX_BITSET_MATCH_ANY) < 0
               ? -errno
               : 0;
}

/* Wake up to `most` sleepers. */
static inline void weft__futex_wake(_Atomic uint32_t *word, int most)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, most, NULL, NULL, 0);
}

#endif
