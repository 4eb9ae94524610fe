/*
 * The event loop of a worker, and the table of waited-on descriptors that all share.
 *
 * A descriptor is registered once, edge-triggered, with the epoll set of the worker on which it was first waited
 * for. The table remembers its readiness, so that a read known to find nothing costs no system call. An event
 * carries the generation its entry had at registration; weft_close moves the generation on, so that an event for
 * a number that was used again is dropped.
 *
 * An entry is protected by its own spinlock, held for a few instructions; `ready` may be read without it. Any
 * thread may handle the events of any worker's epoll set.
 */
#ifndef WEFT_RUNTIME_POLLER_H
#define WEFT_RUNTIME_POLLER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "runtime/lock.h"
#include "runtime/park.h"

struct weft__worker;

enum { WEFT__EVENTS = 128 };

struct weft__event_buffer {
    struct epoll_event events[WEFT__EVENTS];
};

/* Both besides the epoll set are registered edge-triggered and never read. */
struct weft__poller {
    int epoll;
    int wakeup;    /* an eventfd, which is written to */
    int alarm;     /* a timerfd, for deadlines that are far away; -1: there is none */
    int64_t rings; /* when it does; for the driver, inside */
};

/* 0 or -errno. */
int weft__poller_init(struct weft__poller *poller);
void weft__poller_free(struct weft__poller *poller);

/* End the poller's wait. Any thread. */
void weft__poller_wake(struct weft__poller *poller);

/*
 * Wait until an event or `until` (monotonic, as `now`; INT64_MAX: no limit; 0: only look). Returns how many events were
 * handled, 0 also if it ended for no reason; `ready` is called for each task that is to be queued. The driver of the
 * worker (is_own), or, to look only, any thread: one that finds a wake-up which is not for it gives it back.
 */
int weft__poller_wait(struct weft__poller *poller, bool is_own, int64_t now, int64_t until,
                      struct weft__event_buffer *buffer, void (*ready)(weft_task *task, void *arg), void *arg);

/* ---- descriptors ---- */

/* Readiness bits of an entry, and what a wait asks for. */
enum {
    WEFT__FD_IN = 1u << 0,
    WEFT__FD_OUT = 1u << 1,
    WEFT__FD_HUP = 1u << 2, /* error or hang-up seen: never again "known to find nothing" */
    WEFT__FD_PRI = 1u << 3,
    WEFT__FD_BITS = 0xffu, /* above: a count of events, so that a stale clear cannot erase a newer event */
    WEFT__FD_TICK = 1u << 8
};

enum {
    WEFT__FD_REGISTERED = 1u << 0,
    WEFT__FD_NONBLOCK = 1u << 1, /* known to have O_NONBLOCK */
    WEFT__FD_STREAM = 1u << 2,   /* a short read or write means drained or full (epoll(7), Q9) */
    WEFT__FD_ALWAYS = 1u << 3,   /* epoll refuses it: a regular file, always ready */
    WEFT__FD_CLOSING = 1u << 4,
    WEFT__FD_SOCKET = 1u << 5, /* a stream socket: recv does what read does, without the detour over files */
    WEFT__FD_STREAM_SOCKET = WEFT__FD_STREAM | WEFT__FD_SOCKET
};

struct weft__fd {
    weft__lock lock;
    _Atomic uint32_t generation;
    _Atomic uint32_t ready;             /* WEFT__FD_IN… and the tick; meaningless unless registered */
    _Atomic uint32_t flags;             /* written under the lock */
    _Atomic(struct weft__wait *) first; /* under the lock, but for a look ahead (poller.c) */
    struct weft__wait *last;
    struct weft__worker *owner; /* whose epoll set it is in */
    uint32_t foreign_waits;     /* in a row from another worker */
    uint32_t registrars;        /* calls that are about to tell epoll of it; closing waits for them */
} __attribute__((aligned(64)));

/* The entry of a number; NULL: negative, too large or out of memory. Never goes away. */
struct weft__fd *weft__fd_entry(int fd);

/* A descriptor that weft itself has just made: forget what an earlier one with this number left behind. */
void weft__fd_opened(int fd, uint32_t flags);

/*
 * Wait until one of `bits` is remembered as ready; registers the descriptor if need be. `seen` is what was remembered
 * when the caller last asked the system and found nothing, which does not count; 0 if that was cleared. Returns 0, -EBADF if it is
 * closed meanwhile or `generation` is no longer its own, -ECANCELED, -ETIMEDOUT, -errno of registering. 1 if
 * `deadline` passed.
 */
int weft__fd_wait(int fd, struct weft__fd *entry, uint32_t generation, uint32_t bits, uint32_t seen,
                  int64_t deadline);

/*
 * The two halves of weft__fd_wait, for who waits for other things besides: put *wait, whose task is set, into the list
 * and return WEFT__BEGUN, or return as weft__fd_wait; and take it out again. False: it was settled, and is not
 * touched any more. A task, which may have moved to another worker in between.
 */
int weft__fd_begin(int fd, struct weft__fd *entry, uint32_t generation, uint32_t bits, uint32_t seen,
                   struct weft__wait *wait);
bool weft__fd_withdraw(struct weft__fd *entry, struct weft__wait *wait);

/* What weft__fd_wait returns after this wait was settled: 0, or -EBADF, also if it was closed since then: between an
 * event and the turn of the task that it woke the number may have become another's. */
int weft__fd_outcome(const struct weft__fd *entry, uint32_t generation, const struct weft__wait *wait);

/* Which of poll(2)'s events hold now; 0, or -errno (-EBADF). Makes the system call. */
int weft__fd_look(int fd, int events);

/* The readiness bits that poll(2)'s events are about. */
uint32_t weft__fd_bits(int events);

/* Make sure that it is non-blocking, and learn what it is. 0 or -errno. */
int weft__fd_prepare(int fd, struct weft__fd *entry, uint32_t generation);

/* weft__fd_close is between forgetting the number and giving it back: a few microseconds. Before a call's generation
 * is read. */
void weft__fd_wait_while_closing(const struct weft__fd *entry);

/* Close it and wake its waiters with -EBADF. Any thread. */
int weft__fd_close(int fd);

/* In the child of a fork: forget all that is known of descriptors. */
void weft__fd_forget_all(void);

/* Forget the descriptors registered with a worker that ends. */
void weft__fd_forget_worker(const struct weft__worker *worker);

static inline uint32_t weft__fd_ready(const struct weft__fd *entry)
{
    /* acquire: pairs with the release when an event is noted */
    return atomic_load_explicit(&entry->ready, memory_order_acquire);
}

static inline uint32_t weft__fd_flags(const struct weft__fd *entry)
{
    return atomic_load_explicit(&entry->flags, memory_order_acquire);
}

/* Is a try known to find nothing? */
static inline bool weft__fd_known_idle(const struct weft__fd *entry, uint32_t bit)
{
    return (weft__fd_flags(entry) & WEFT__FD_REGISTERED) && !(weft__fd_ready(entry) & (bit | WEFT__FD_HUP));
}

/* It was found drained (full) by a call that began after `seen` was read; a newer event stays. */
static inline void weft__fd_clear(struct weft__fd *entry, uint32_t bit, uint32_t seen)
{
    atomic_compare_exchange_strong_explicit(&entry->ready, &seen, seen & ~bit, memory_order_relaxed,
                                            memory_order_relaxed);
}

#endif
