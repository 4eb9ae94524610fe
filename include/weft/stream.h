/*
 * Buffered streams over descriptors.
 *
 * A stream has one reader at a time; any number of tasks may write. Writing never waits: what the descriptor does
 * not take at once is buffered, and sent in the background as it can be. Whoever writes much waits in
 * weft_stream_drain.
 *
 * For tasks. Besides what is listed, those that wait return -ECANCELED and -ETIMEDOUT when cancellation or a
 * deadline ended the wait, -EBADF when the stream was closed, -errno of the system call, -EPERM in a stackless
 * task or outside a task. An error consumes nothing: what had been read stays in the stream. Errors of the
 * connection are final: every later call in that direction returns them.
 */
#ifndef WEFT_STREAM_H
#define WEFT_STREAM_H

#include <sys/types.h>
#include <sys/uio.h>
#include <weft/base.h>
#include <weft/net.h>

WEFT_BEGIN_DECLS

typedef struct weft_stream weft_stream;

/* What a stream begins with; see weft_stream_set_limit and weft_stream_set_write_limits. */
enum { WEFT_STREAM_LIMIT = 65536, WEFT_STREAM_HIGH = 65536, WEFT_STREAM_LOW = 16384 };

/*
 * A stream over a descriptor (socket, pipe, terminal), which belongs to it from now on; it is made non-blocking.
 * 0 with the stream in *stream, or -errno, -ENOMEM: then the descriptor is still the caller's. Any thread; not a
 * suspension point.
 */
WEFT_API int weft_stream_open(int fd, weft_stream **stream);

/* A stream over a new TCP connection, as weft_dial makes it. 0, or what weft_dial returns. Suspension point. */
WEFT_API int weft_stream_dial(const char *host, uint16_t port, weft_stream **stream);

/* The same to an address, for example a Unix socket's (weft_address_parse), as weft_dial_address. Suspension point. */
WEFT_API int weft_stream_dial_address(const weft_address *address, weft_stream **stream);

/*
 * Send what is buffered, then close the descriptor. Writing is refused from the beginning, a reader gets -EBADF
 * at the end. 0, or why not everything was sent: the descriptor is closed and the buffer dropped in any case,
 * also for a caller that is cancelled. A stream that is being closed, or is closed: waits for that. A suspension
 * point only if something has to be sent.
 */
WEFT_API int weft_stream_close(weft_stream *stream);

/* Close the descriptor at once; what is buffered is dropped. Any thread; not a suspension point. */
WEFT_API void weft_stream_abort(weft_stream *stream);

/* Free it (aborted, if it is not closed); nobody may use it any more. NULL is allowed. Any thread; not a suspension
 * point. */
WEFT_API void weft_stream_free(weft_stream *stream);

/* Has weft_stream_close or weft_stream_abort been called? 1 or 0. Any thread; not a suspension point. */
WEFT_API int weft_stream_is_closing(const weft_stream *stream);

/* The descriptor, for getpeername(2) and the like; -EBADF once it is closed. Any thread; not a suspension point. */
WEFT_API int weft_stream_fd(const weft_stream *stream);

/* ---- reading; a second reader at the same time gets -EBUSY ---- */

/* Bytes read, at least one and at most `size`; 0 at the end. Suspension point. */
WEFT_API ssize_t weft_stream_read(weft_stream *stream, void *buffer, size_t size);

/* Exactly `size` bytes; fewer only if the end came first. `size` is not limited. Suspension point. */
WEFT_API ssize_t weft_stream_readexactly(weft_stream *stream, void *buffer, size_t size);

/*
 * Read to the end of the first separator: the length with the separator, and where it lies in *data, in the
 * stream's own buffer: valid until the next call that reads, or closes, the stream. With several separators, the
 * one that ends first. 0 at the end; -ENODATA if the end came before a separator, -EMSGSIZE if there is none
 * within the limit: the data stays and can still be read. -EINVAL: no separators, or an empty one. Suspension
 * point.
 */
WEFT_API ssize_t weft_stream_readuntil(weft_stream *stream, const struct iovec *separators, int count,
                                       const char **data);

/* A line with its '\n', as weft_stream_readuntil; the last one may lack it. Suspension point. */
WEFT_API ssize_t weft_stream_readline(weft_stream *stream, const char **line);

/* Has everything been read? 1 or 0; 0 while somebody reads. Not a suspension point. */
WEFT_API int weft_stream_at_eof(weft_stream *stream);

/* The most that weft_stream_readuntil and weft_stream_readline return, and that is read ahead. 0, -EINVAL for 0,
 * -EBUSY while somebody reads. Not a suspension point. */
WEFT_API int weft_stream_set_limit(weft_stream *stream, size_t limit);

/* ---- writing ---- */

/*
 * Write all of it: sent at once as far as possible, without waiting, the rest copied and sent in the background.
 * 0; the error that ended the connection (-EPIPE, -ECONNRESET…); -EBADF after weft_stream_close, -ESHUTDOWN after
 * weft_stream_write_eof; -ENOMEM (nothing was written, or the connection is lost for it). What one call writes
 * stays together. Works in a cancelled task. Tasks, also stackless ones; not a suspension point.
 */
WEFT_API int weft_stream_write(weft_stream *stream, const void *data, size_t size);
WEFT_API int weft_stream_writev(weft_stream *stream, const struct iovec *iov, int count);

/*
 * Between them, writing only buffers: many small writes become one system call in weft_stream_uncork.
 * (weft_stream_drain above the high mark, weft_stream_flush and weft_stream_close send all the same.) 0, or as
 * weft_stream_write. Not suspension points.
 */
WEFT_API int weft_stream_cork(weft_stream *stream);
WEFT_API int weft_stream_uncork(weft_stream *stream);

/* If more than the high mark is buffered, wait until no more than the low mark is. 0, or the error that ended the
 * connection. Any number of tasks; suspension point. */
WEFT_API int weft_stream_drain(weft_stream *stream);

/* Wait until nothing is buffered. Otherwise as weft_stream_drain. */
WEFT_API int weft_stream_flush(weft_stream *stream);

/* The marks. 0, or -EINVAL if low > high. Any thread; not a suspension point. */
WEFT_API int weft_stream_set_write_limits(weft_stream *stream, size_t high, size_t low);
WEFT_API void weft_stream_write_limits(weft_stream *stream, size_t *high, size_t *low);

/* Bytes that are buffered for sending. Any thread; not a suspension point. */
WEFT_API size_t weft_stream_buffered(weft_stream *stream);

/*
 * Half-close: when what is buffered has been sent, the peer sees the end; reading goes on. 0, also the second
 * time; as weft_stream_write; -EOPNOTSUPP if the descriptor is not a socket (close it instead). Not a suspension
 * point.
 */
WEFT_API int weft_stream_write_eof(weft_stream *stream);
WEFT_API int weft_stream_can_write_eof(const weft_stream *stream);

/* ---- copying ---- */

/*
 * Copy from one stream to another until the end, no faster than the receiver takes it. 0, or the error of either
 * side; *copied (may be NULL) counts the bytes that were handed to `to` in any case. Suspension point.
 */
WEFT_API int weft_stream_copy(weft_stream *to, weft_stream *from, uint64_t *copied);

/*
 * Copy in both directions until both have ended; the end of one is passed on as a half-close, where there is such
 * a thing. An error in one direction ends both: 0 or the first error. copied[0] counts from a to b, copied[1]
 * from b to a; may be NULL. Closes neither. Suspension point.
 */
WEFT_API int weft_stream_proxy(weft_stream *a, weft_stream *b, uint64_t *copied);

WEFT_END_DECLS

#endif
