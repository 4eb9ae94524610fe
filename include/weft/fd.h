/*
 * File descriptors: plain ints, and calls that look like the system's but park the task instead of blocking
 * the worker.
 *
 * weft sets O_NONBLOCK on a descriptor when it first sees it, and registers it with the event loop of the worker
 * on which it first has to wait for it. Close a descriptor that weft has seen with weft_close: it wakes those who wait
 * for it, and forgets the number before the kernel can hand it out again.
 *
 * All are for tasks and suspension points, unless said otherwise; besides what is listed they return -errno of
 * the system call, -ECANCELED and -ETIMEDOUT when the wait was ended by cancellation or a deadline, -EBADF when
 * the descriptor was closed meanwhile, -EPERM outside a task.
 */
#ifndef WEFT_FD_H
#define WEFT_FD_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <weft/base.h>

WEFT_BEGIN_DECLS

/* Bytes read, at least one; 0 at the end. */
WEFT_API ssize_t weft_read(int fd, void *buffer, size_t size);
WEFT_API ssize_t weft_readv(int fd, const struct iovec *iov, int count);

/* Bytes written, at least one (a short write is possible). SIGPIPE is not raised for sockets. */
WEFT_API ssize_t weft_write(int fd, const void *buffer, size_t size);
WEFT_API ssize_t weft_writev(int fd, const struct iovec *iov, int count);

/* All of it: `size`, or an error after which an unknown part has been written. */
WEFT_API ssize_t weft_write_all(int fd, const void *buffer, size_t size);

WEFT_API ssize_t weft_recv(int fd, void *buffer, size_t size, int flags);
WEFT_API ssize_t weft_send(int fd, const void *buffer, size_t size, int flags);
WEFT_API ssize_t weft_recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *address,
                               socklen_t *length);
WEFT_API ssize_t weft_sendto(int fd, const void *buffer, size_t size, int flags, const struct sockaddr *address,
                             socklen_t length);

/* A connected descriptor (close-on-exec, non-blocking). */
WEFT_API int weft_accept(int fd, struct sockaddr *address, socklen_t *length);

/* 0 when connected. */
WEFT_API int weft_connect(int fd, const struct sockaddr *address, socklen_t length);

/*
 * Close: those who wait for the descriptor get -EBADF. 0 or -errno; the descriptor is gone either way.
 * Any thread; not a suspension point.
 */
WEFT_API int weft_close(int fd);

/*
 * Wait until one of `events` (POLLIN, POLLOUT, POLLRDHUP…) holds, at most `timeout` nanoseconds (0: only look,
 * WEFT_FOREVER: no limit of its own). Returns the events that hold (POLLERR and POLLHUP included), or
 * -ETIMEDOUT. For descriptors that another library reads and writes.
 */
WEFT_API int weft_poll(int fd, int events, int64_t timeout);

/*
 * A listening TCP socket: `host` a literal IPv4 or IPv6 address or NULL for any, `port` 0 for a free one.
 * SO_REUSEADDR is set. A descriptor, or -errno. Any thread; not a suspension point.
 */
WEFT_API int weft_listen(const char *host, uint16_t port, int backlog);

/* A TCP connection to a literal address, TCP_NODELAY set. A descriptor, or -errno. */
WEFT_API int weft_dial(const char *host, uint16_t port);

/* The port a socket is bound to, or -errno. Any thread; not a suspension point. */
WEFT_API int weft_local_port(int fd);

WEFT_END_DECLS

#endif
