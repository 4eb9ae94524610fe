/*
 * The doors for time and chance. Everything in the machine that asks for the time or makes a random choice does
 * so here, so that a seeded run with a virtual clock can drive and replay the same code. (Readiness of
 * descriptors has its own door, weft__poller_wait.)
 */
#ifndef WEFT_RUNTIME_CLOCK_H
#define WEFT_RUNTIME_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t weft__clock_read(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline int64_t weft__clock_now(void)
{
    return weft__clock_read(CLOCK_MONOTONIC);
}

/* How long the calling thread, and all threads of the process, have had a processor; a system call. */
static inline int64_t weft__clock_thread_time(void)
{
    return weft__clock_read(CLOCK_THREAD_CPUTIME_ID);
}

static inline int64_t weft__clock_process_time(void)
{
    return weft__clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016). The
 * state must not be zero; one state a thread. */
static inline uint64_t weft__random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1Du;
}

/* A time on the monotonic clock, `ns` from now; never overflows. */
static inline int64_t weft__clock_after(int64_t ns)
{
    int64_t now = weft__clock_now();

    return ns >= INT64_MAX - now ? INT64_MAX : now + ns;
}

#endif
