/*
 * The shape of every call on a descriptor: try the system call, wait if it says EAGAIN, try again. For the files of
 * io/ whose calls park the task; what they share with stackless tasks' calls is in descriptor.c.
 */
#ifndef WEFT_IO_ATTEMPT_H
#define WEFT_IO_ATTEMPT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <weft/fd.h>
#include <weft/time.h>

#include "io/last_error.h"
#include "runtime/debug.h"
#include "runtime/park.h"
#include "runtime/poller.h"

/* What a call is about: the descriptor's entry as it was when the call began. */
struct attempt {
    struct weft__fd *entry;
    int fd;
    uint32_t generation;
    uint32_t bit;  /* WEFT__FD_IN or WEFT__FD_OUT */
    uint32_t seen; /* readiness before the system call */
};

/* After others have run: 0, or -EBADF, since the number may be another's. */
static inline int still_open(const struct attempt *attempt)
{
    return attempt->generation == atomic_load_explicit(&attempt->entry->generation, memory_order_relaxed) ? 0
                                                                                                          : -EBADF;
}

/* 0, or why the call cannot be made at all. */
static inline int begin(struct attempt *attempt, int fd, uint32_t bit)
{
    int rc;

    attempt->entry = weft__fd_entry(fd);
    attempt->fd = fd;
    attempt->bit = bit;
    if (__builtin_expect(!attempt->entry, 0))
        return -EBADF;
    if (__builtin_expect(weft__fd_flags(attempt->entry) & WEFT__FD_CLOSING, 0))
        weft__fd_wait_while_closing(attempt->entry);
    attempt->generation = atomic_load_explicit(&attempt->entry->generation, memory_order_relaxed);
    rc = weft__suspend_check();
    if (__builtin_expect(rc < 0, 0))
        return rc;
    if (__builtin_expect(!weft__coroutine_self(), 0))
        return weft__misused("a descriptor call");
    /* The check may have let others run. */
    if (__builtin_expect(still_open(attempt) < 0, 0))
        return -EBADF;
    /* It must be non-blocking before the first try. */
    return weft__fd_flags(attempt->entry) & WEFT__FD_NONBLOCK
               ? 0
               : weft__fd_prepare(fd, attempt->entry, attempt->generation);
}

/* Wait if a try is known to find nothing. 0: try. */
static inline int before(struct attempt *attempt)
{
    int rc;

    if (weft__fd_known_idle(attempt->entry, attempt->bit)) {
        rc = weft__fd_wait(attempt->fd, attempt->entry, attempt->generation, attempt->bit, 0, WEFT_FOREVER);
        if (rc < 0)
            return rc;
    }
    attempt->seen = weft__fd_ready(attempt->entry);
    return 0;
}

/* The system call moved `done` of `asked` bytes. */
static inline ssize_t moved(struct attempt *attempt, ssize_t done, size_t asked)
{
    if ((size_t)done < asked && done > 0 && (weft__fd_flags(attempt->entry) & WEFT__FD_STREAM) &&
        !(attempt->seen & (WEFT__FD_HUP | WEFT__FD_PRI)))
        weft__fd_clear(attempt->entry, attempt->bit, attempt->seen);
    return done;
}

/* The system call failed. 0: wait was successful or not needed, try again. */
static __attribute__((noinline, unused)) int failed(struct attempt *attempt, ssize_t error)
{
    if (error == -EINTR)
        return 0;
    if (error != -EAGAIN && error != -EWOULDBLOCK)
        return (int)error;
    weft__fd_clear(attempt->entry, attempt->bit, attempt->seen);
    /* What is left counts as seen: a hang-up, which stays, must not end this wait again and again. */
    return weft__fd_wait(attempt->fd, attempt->entry, attempt->generation, attempt->bit,
                         attempt->seen & ~attempt->bit, WEFT_FOREVER);
}

/*
 * The shape of every call: try, wait, try again. `call` is an expression that makes the system call
 * and gives its result or -errno; `asked` the
 * bytes that would show the descriptor is not drained, 0 if that cannot be told.
 */
#define ATTEMPT(fd, bit, call, asked)                 \
    struct attempt attempt;                           \
    ssize_t rc = begin(&attempt, (fd), (bit));        \
                                                      \
    while (rc == 0 && (rc = before(&attempt)) == 0) { \
        ssize_t done = (call);                        \
                                                      \
        if (done >= 0)                                \
            return moved(&attempt, done, (asked));    \
        rc = failed(&attempt, done);                  \
    }                                                 \
    return rc

/*
 * Wait until there is something to read (or the end, or an error), or `deadline` (monotonic) has passed. As weft_poll
 * for descriptors that are read through weft only: while one is known to have nothing the system is not asked. 0,
 * -ETIMEDOUT, or as weft_poll. In descriptor.c.
 */
int weft__fd_readable(int fd, int64_t deadline);

/* The same for a stackless task, without a deadline: 0, WEFT_PENDING, or as weft_async_poll. In descriptor.c. */
intptr_t weft__async_fd_readable(int fd);

#endif
