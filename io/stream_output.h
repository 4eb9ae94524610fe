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

/* References. */
void weft__stream_hold(weft_stream *stream);
void weft__stream_drop(weft_stream *stream);

/* The connection is lost for writing. */
void weft__stream_lose(weft_stream *stream, int error);

/* An attempt to write to the descriptor itself (struct weft__layer). */
ssize_t weft__write_plainly(weft_stream *stream, const struct iovec *iov, int count, uint32_t *exhausted);

/* Nobody uses it any more. */
void weft__stream_free_output(weft_stream *stream);

#endif
