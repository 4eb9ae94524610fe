/* What the two halves of a stream (stream.c, stream_output.c) know of each other. */
#ifndef WEFT_IO_STREAM_OUTPUT_H
#define WEFT_IO_STREAM_OUTPUT_H

#include "io/stream.h"

/* Around each attempt on the descriptor; false: it is closed. */
bool weft__stream_enter(weft_stream *stream);
void weft__stream_leave(weft_stream *stream);

/* Close it as soon as no attempt is under way; none begins any more. */
void weft__stream_shut(weft_stream *stream);

/* After an attempt, before leaving: remember that `bit` is used up (0: nothing is). *seen is what was remembered
 * before it, and then what is now. */
void weft__stream_exhausted(weft_stream *stream, ssize_t result, uint32_t bit, uint32_t *seen);

/* The connection is lost for writing. */
void weft__stream_lose(weft_stream *stream, int error);

/*
 * One attempt at the descriptor itself, which is not closed meanwhile: bytes, or -errno. *bit is the direction (IN, OUT),
 * and then the readiness that is known to be used up, or 0.
 */
ssize_t weft__read_plainly(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit);
ssize_t weft__write_plainly(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit);

/*
 * One attempt through the layer (layer.c): with no pieces to shut down. Where it says -EAGAIN, *bit is what to wait for
 * and *seen what to tell weft__fd_begin.
 */
ssize_t weft__layer_read(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit, uint32_t *seen);
ssize_t weft__layer_write(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit, uint32_t *seen);

/* A stream with a layer is about to be closed: take what has come. A socket that is closed with something unread is
 * reset, and the peer does not get what was sent last. */
void weft__layer_discard(weft_stream *stream);

/*
 * Take the role of the sender, with nothing to send: 0; -EAGAIN if there is something, or somebody sends; or why
 * nothing can be written. And lay it down; what others have written meanwhile is sent.
 */
int weft__stream_take_role(weft_stream *stream);
void weft__stream_lay_role_down(weft_stream *stream);

/* Nobody uses it any more. */
void weft__stream_free_output(weft_stream *stream);

#endif
