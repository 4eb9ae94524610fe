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
 * the descriptor was closed meanwhile (or has a number above a million), -EPERM outside a task, -ENOMEM if there was
 * none for a deadline.
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

/*
 * Messages, with addresses and ancillary data: as sendmsg(2), recvmsg(2). weft_recvmsg sets MSG_CMSG_CLOEXEC.
 */
WEFT_API ssize_t weft_sendmsg(int fd, const struct msghdr *message, int flags);
WEFT_API ssize_t weft_recvmsg(int fd, struct msghdr *message, int flags);

/*
 * Several messages in one system call: waits until the first can be sent (has come), then takes as many as there are
 * without waiting again. How many; each one's length in its msg_len. -EINVAL for none. At most 1024 at a time.
 */
struct mmsghdr;
WEFT_API int weft_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
WEFT_API int weft_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);

/*
 * Send `size` bytes of the file `file` to `fd`, from *offset on, which is moved on; NULL: from the file's own
 * position. Bytes sent: fewer than `size` only at the file's end. Where the kernel cannot (sendfile(2) says EINVAL or
 * ENOSYS: `fd` was opened for appending, `file` is not one that can be mapped) they go through a buffer, if
 * WEFT_SENDFILE_STRICT is not among the flags. An error: how much was sent tells *offset, or the file's position.
 * Reading the file blocks the thread if it is not in the page cache; the worker's other tasks are handed on then, as with
 * weft_block_begin.
 */
enum { WEFT_SENDFILE_STRICT = 1u << 0 };
WEFT_API ssize_t weft_sendfile(int fd, int file, off_t *offset, size_t size, unsigned flags);

/*
 * Move bytes between two descriptors one of which is a pipe, without copying them: as splice(2), the offsets too.
 * Waits until at least one byte has been moved: bytes, 0 at the end of `from`. -EPIPE: nobody reads.
 */
WEFT_API ssize_t weft_splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t size, unsigned flags);

/* Copy bytes from one pipe to another, without taking them from the first: as tee(2). */
WEFT_API ssize_t weft_tee(int from, int to, size_t size, unsigned flags);

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
 * SO_REUSEADDR is set; the connections that it accepts have TCP_NODELAY and SO_KEEPALIVE. <weft/net.h> has more. A
 * descriptor, or -errno. Any thread; not a suspension point.
 */
WEFT_API int weft_listen(const char *host, uint16_t port, int backlog);

/*
 * A TCP connection, TCP_NODELAY and SO_KEEPALIVE set. `host` is a literal address or a name; of a name with several
 * addresses the one that answers first (weft_dial_with in <weft/name.h>). A descriptor, or -errno.
 */
WEFT_API int weft_dial(const char *host, uint16_t port);

/* The port a socket is bound to, or -errno. Any thread; not a suspension point. */
WEFT_API int weft_local_port(int fd);

WEFT_END_DECLS

#endif
