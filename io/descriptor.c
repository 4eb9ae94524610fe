/*
 * Calls on file descriptors that park the task instead of blocking its worker. Built on the runtime's "wait for
 * this descriptor" alone. Called by tasks.
 *
 * Each call tries the system call first, unless the descriptor is known to have nothing (weft__fd_known_idle), and
 * waits when that says EAGAIN. A short read or write of a stream means that it is drained or full, so the next call
 * parks without trying: a request and its reply cost one read and one write.
 */
#include <poll.h>
#include <unistd.h>

#include "io/attempt.h"
#include "runtime/clock.h"
#include "runtime/stackless.h"
#include "runtime/waitable.h"

static size_t total(const struct iovec *iov, int count)
{
    size_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* A stream socket's read without the detour over files: 0.2 of 7 µs. For no bytes recv would wait. */
static inline __attribute__((always_inline)) ssize_t read_once(const struct attempt *attempt, void *buffer,
                                                               size_t size)
{
    ssize_t done = -ENOTSOCK; /* or if the number is another's by now, closed behind weft's back */

    if (__builtin_expect((weft__fd_flags(attempt->entry) & WEFT__FD_SOCKET) && size > 0, 1))
        done = weft__result_of(recv(attempt->fd, buffer, size, 0));
    return done == -ENOTSOCK ? weft__result_of(read(attempt->fd, buffer, size)) : done;
}

ssize_t weft_read(int fd, void *buffer, size_t size)
{
    ATTEMPT(fd, WEFT__FD_IN, read_once(&attempt, buffer, size), size);
}

ssize_t weft_readv(int fd, const struct iovec *iov, int count)
{
    ATTEMPT(fd, WEFT__FD_IN, weft__result_of(readv(fd, iov, count)), total(iov, count));
}

/* write(2) on a socket whose peer is gone raises SIGPIPE; send(2) can be told not to. */
static ssize_t write_quietly(int fd, const void *buffer, size_t size)
{
    ssize_t done = weft__result_of(send(fd, buffer, size, MSG_NOSIGNAL));

    return done == -ENOTSOCK ? weft__result_of(write(fd, buffer, size)) : done;
}

static ssize_t writev_quietly(int fd, const struct iovec *iov, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
    ssize_t done = weft__result_of(sendmsg(fd, &message, MSG_NOSIGNAL));

    return done == -ENOTSOCK ? weft__result_of(writev(fd, iov, count)) : done;
}

ssize_t weft_write(int fd, const void *buffer, size_t size)
{
    ATTEMPT(fd, WEFT__FD_OUT, write_quietly(fd, buffer, size), size);
}

ssize_t weft_writev(int fd, const struct iovec *iov, int count)
{
    ATTEMPT(fd, WEFT__FD_OUT, writev_quietly(fd, iov, count), total(iov, count));
}

ssize_t weft_write_all(int fd, const void *buffer, size_t size)
{
    const char *from = buffer;
    size_t left = size;

    while (left > 0) {
        ssize_t done = weft_write(fd, from, left);

        if (done < 0)
            return done;
        from += done;
        left -= (size_t)done;
    }
    return (ssize_t)size;
}

/* MSG_PEEK and the like leave the data where it is: nothing can be told from how much came. */
static size_t asked_for(size_t size, int flags)
{
    return flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT) ? 0 : size;
}

ssize_t weft_recv(int fd, void *buffer, size_t size, int flags)
{
    ATTEMPT(fd, WEFT__FD_IN, weft__result_of(recv(fd, buffer, size, flags)), asked_for(size, flags));
}

ssize_t weft_send(int fd, const void *buffer, size_t size, int flags)
{
    ATTEMPT(fd, WEFT__FD_OUT, weft__result_of(send(fd, buffer, size, flags | MSG_NOSIGNAL)),
            asked_for(size, flags));
}

ssize_t weft_recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *address, socklen_t *length)
{
    ATTEMPT(fd, WEFT__FD_IN, weft__result_of(recvfrom(fd, buffer, size, flags, address, length)),
            asked_for(size, flags));
}

ssize_t weft_sendto(int fd, const void *buffer, size_t size, int flags, const struct sockaddr *address,
                    socklen_t length)
{
    ATTEMPT(fd, WEFT__FD_OUT, weft__result_of(sendto(fd, buffer, size, flags | MSG_NOSIGNAL, address, length)),
            asked_for(size, flags));
}

/* A connection that failed while it waited to be accepted is not an error of the listener. */
static bool is_transient(int error)
{
    switch (error) {
    case ECONNABORTED:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

static int accept_once(int fd, struct sockaddr *address, socklen_t *length)
{
    int client = (int)weft__result_of(accept4(fd, address, length, SOCK_CLOEXEC | SOCK_NONBLOCK));

    return client < 0 && is_transient(-client) ? -EINTR : client;
}

static int accept_when_ready(int fd, struct sockaddr *address, socklen_t *length)
{
    ATTEMPT(fd, WEFT__FD_IN, accept_once(fd, address, length), 0);
}

int weft_accept(int fd, struct sockaddr *address, socklen_t *length)
{
    int client = accept_when_ready(fd, address, length);

    if (client >= 0)
        weft__fd_opened(client, WEFT__FD_NONBLOCK | (weft__fd_flags(weft__fd_entry(fd)) & WEFT__FD_STREAM_SOCKET));
    return client;
}

static int connect_result(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return -weft__last_error();
    return -error;
}

int weft_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct attempt attempt;
    int rc = begin(&attempt, fd, WEFT__FD_OUT);

    if (rc < 0)
        return rc;
    while ((rc = (int)weft__result_of(connect(fd, address, length))) < 0) {
        if (rc == -EAGAIN) {
            /* Only Unix sockets: the listener's backlog is full, and no event will tell. */
            rc = weft_sleep(WEFT_MS(1));
            if (rc == 0)
                rc = still_open(&attempt);
            if (rc < 0)
                return rc;
            continue;
        }
        if (rc != -EINPROGRESS && rc != -EINTR && rc != -EALREADY)
            return rc == -EISCONN ? 0 : rc;
        rc = weft_poll(fd, POLLOUT, WEFT_FOREVER);
        return rc < 0 ? rc : connect_result(fd);
    }
    return 0;
}

int weft_close(int fd)
{
    return weft__fd_close(fd);
}

/* ---- readiness for other libraries ---- */

int weft_poll(int fd, int events, int64_t timeout)
{
    int64_t deadline = timeout == WEFT_FOREVER ? WEFT_FOREVER : weft__clock_after(timeout);
    uint32_t bits = weft__fd_bits(events);
    struct attempt attempt;
    int rc = begin(&attempt, fd, bits);

    while (rc == 0) {
        /* Somebody else reads and writes it, so what is remembered may be stale: ask, then wait for a change. */
        attempt.seen = weft__fd_ready(attempt.entry);
        rc = weft__fd_look(fd, events);
        if (rc != 0)
            return rc;
        if (timeout <= 0)
            return -ETIMEDOUT;
        rc = weft__fd_wait(fd, attempt.entry, attempt.generation, bits, attempt.seen, deadline);
        if (rc == 1)
            return -ETIMEDOUT;
    }
    return rc;
}

/* Is there something to read? 0: no, and that is remembered. */
static int look_for_input(struct attempt *attempt)
{
    int rc = weft__fd_look(attempt->fd, POLLIN | POLLRDHUP);

    if (rc == 0) {
        weft__fd_clear(attempt->entry, attempt->bit, attempt->seen);
        attempt->seen &= ~attempt->bit; /* as in failed */
    }
    return rc;
}

int weft__fd_readable(int fd, int64_t deadline)
{
    struct attempt attempt;
    int rc = begin(&attempt, fd, WEFT__FD_IN);

    if (rc < 0)
        return rc;
    attempt.seen = weft__fd_ready(attempt.entry);
    if (!weft__fd_known_idle(attempt.entry, attempt.bit) && (rc = look_for_input(&attempt)) != 0)
        return rc < 0 ? rc : 0;
    /* An event is believed without asking: one that is stale only makes the caller's read wait. What is
     * left, a hang-up say, does not count again. */
    rc = weft__fd_wait(fd, attempt.entry, attempt.generation, attempt.bit, attempt.seen, deadline);
    return rc == 1 ? -ETIMEDOUT : rc;
}

/* ---- for stackless tasks ---- */

/*
 * The shape of their calls: unless a wait is pending, try; then wait, which mostly means to return WEFT_PENDING; when
 * the wait is over, try again. Each call looks the descriptor up anew: what the wait needs is in the task's record,
 * with the generation in its slot.
 */

/* 0: try. Else why not. */
static intptr_t before_step(struct attempt *attempt, weft_task *task)
{
    if (weft_cancelled())
        return -ECANCELED;
    if (weft__step_spent(task))
        return WEFT_PENDING;
    if (weft__fd_flags(attempt->entry) & WEFT__FD_CLOSING)
        weft__fd_wait_while_closing(attempt->entry);
    attempt->generation = atomic_load_explicit(&attempt->entry->generation, memory_order_relaxed);
    return weft__fd_flags(attempt->entry) & WEFT__FD_NONBLOCK
               ? 0
               : weft__fd_prepare(attempt->fd, attempt->entry, attempt->generation);
}

static int begin_in_step(void *request, struct weft__wait *wait)
{
    const struct attempt *attempt = request;

    return weft__fd_begin(attempt->fd, attempt->entry, attempt->generation, attempt->bit, attempt->seen, wait);
}

static bool withdraw_in_step(void *request, struct weft__wait *wait)
{
    return weft__fd_withdraw(((struct attempt *)request)->entry, wait);
}

/* 0: it is over, try again. */
static intptr_t wait_in_step(struct attempt *attempt, weft_task *task)
{
    static const struct weft__waitable waitable = {begin_in_step, withdraw_in_step};
    void *generation = (void *)(uintptr_t)attempt->generation; /* of no meaning if the wait is pending already */
    intptr_t rc = weft__async_request(&waitable, attempt->entry, attempt, generation, NULL, &generation);

    return rc == 0 ? weft__fd_outcome(attempt->entry, (uint32_t)(uintptr_t)generation, &task->wait) : rc;
}

#define ATTEMPT_IN_STEP(number, direction, call, asked)                                             \
    struct attempt attempt = {.fd = (number), .bit = (direction), .entry = weft__fd_entry(number)}; \
    weft_task *task = weft__stepping();                                                             \
    intptr_t rc = task == NULL ? -EPERM : attempt.entry == NULL ? -EBADF : 0;                       \
                                                                                                    \
    while (rc == 0) {                                                                               \
        if (task->pending == NULL && (rc = before_step(&attempt, task)) != 0)                       \
            break;                                                                                  \
        attempt.seen = 0;                                                                           \
        if (task->pending == NULL && !weft__fd_known_idle(attempt.entry, attempt.bit)) {            \
            ssize_t done;                                                                           \
                                                                                                    \
            attempt.seen = weft__fd_ready(attempt.entry);                                           \
            done = (call);                                                                          \
            if (done >= 0)                                                                          \
                return moved(&attempt, done, (asked));                                              \
            if (done == -EINTR)                                                                     \
                continue;                                                                           \
            if (done != -EAGAIN && done != -EWOULDBLOCK)                                            \
                return done;                                                                        \
            weft__fd_clear(attempt.entry, attempt.bit, attempt.seen);                               \
            attempt.seen &= ~attempt.bit; /* as in failed */                                        \
        }                                                                                           \
        rc = wait_in_step(&attempt, task);                                                          \
    }                                                                                               \
    return rc

intptr_t weft_async_read(int fd, void *buffer, size_t size)
{
    ATTEMPT_IN_STEP(fd, WEFT__FD_IN, read_once(&attempt, buffer, size), size);
}

intptr_t weft_async_write(int fd, const void *buffer, size_t size)
{
    ATTEMPT_IN_STEP(fd, WEFT__FD_OUT, write_quietly(fd, buffer, size), size);
}

static intptr_t accept_in_step(int fd)
{
    ATTEMPT_IN_STEP(fd, WEFT__FD_IN, accept_once(fd, NULL, NULL), 0);
}

intptr_t weft_async_accept(int fd)
{
    intptr_t client = accept_in_step(fd);

    if (client >= 0)
        weft__fd_opened((int)client,
                        WEFT__FD_NONBLOCK | (weft__fd_flags(weft__fd_entry(fd)) & WEFT__FD_STREAM_SOCKET));
    return client;
}

/* Somebody else reads and writes it, so what is remembered may be stale: ask, then wait for a change. */
intptr_t weft_async_poll(int fd, int events)
{
    struct attempt attempt = {.fd = fd, .bit = weft__fd_bits(events), .entry = weft__fd_entry(fd)};
    weft_task *task = weft__stepping();
    intptr_t rc = task == NULL ? -EPERM : attempt.entry == NULL ? -EBADF : 0;

    while (rc == 0) {
        if (task->pending == NULL) {
            rc = before_step(&attempt, task);
            if (rc != 0)
                break;
            attempt.seen = weft__fd_ready(attempt.entry);
            rc = weft__fd_look(fd, events);
            if (rc != 0)
                break;
        }
        rc = wait_in_step(&attempt, task);
    }
    return rc;
}

intptr_t weft__async_fd_readable(int fd)
{
    struct attempt attempt = {.fd = fd, .bit = WEFT__FD_IN, .entry = weft__fd_entry(fd)};
    weft_task *task = weft__stepping();
    intptr_t rc = task == NULL ? -EPERM : attempt.entry == NULL ? -EBADF : 0;

    if (rc == 0 && task->pending == NULL) {
        rc = before_step(&attempt, task);
        if (rc != 0)
            return rc;
        attempt.seen = weft__fd_ready(attempt.entry);
        if (!weft__fd_known_idle(attempt.entry, attempt.bit) && (rc = look_for_input(&attempt)) != 0)
            return rc < 0 ? rc : 0;
    }
    return rc == 0 ? wait_in_step(&attempt, task) : rc;
}
