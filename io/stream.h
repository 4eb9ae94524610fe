/*
 * Streams from within: the structure, and what the layers above (protocol.c) and below (a layer that encrypts)
 * need. Not for anybody else.
 */
#ifndef WEFT_IO_STREAM_H
#define WEFT_IO_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <weft/stream.h>
#include <weft/sync.h>

#include "runtime/lock.h"
#include "runtime/poller.h"

/*
 * What lies between a stream and its descriptor. The calls make one attempt, without waiting, while the
 * descriptor is kept from being closed. They return what the system call would, or -errno: -EAGAIN with the
 * readiness to wait for in *exhausted (WEFT__FD_IN or WEFT__FD_OUT; preset to the usual direction). After success
 * *exhausted is the readiness that is known to be used up, or 0.
 *
 * Reading is for one task at a time, writing and shutting down for one at a time; one that reads and one that
 * writes may be in the layer at the same time. A layer that cannot have that locks (it does not wait inside, so a
 * spinlock will do).
 */
struct weft__layer {
    ssize_t (*read)(weft_stream *stream, const struct iovec *iov, int count, uint32_t *exhausted);
    ssize_t (*write)(weft_stream *stream, const struct iovec *iov, int count, uint32_t *exhausted);
    int (*shutdown)(weft_stream *stream, uint32_t *exhausted); /* no more will be written */
    void (*free)(weft_stream *stream);                         /* NULL: nothing to do */
    bool keeps_data; /* it may have data though the descriptor has none: always try first */
};

/* A piece of what is to be sent. */
struct weft__chunk {
    struct weft__chunk *next;
    size_t start, end, capacity;
    char bytes[];
};

struct weft_stream {
    int fd;
    uint32_t generation; /* of the descriptor's entry when the stream was opened */
    struct weft__fd *entry;
    const struct weft__layer *layer;
    void *layer_state;
    bool is_socket, is_pipe;
    _Atomic uint32_t uses;       /* of the descriptor: system calls under way, and WEFT__STREAM_CLOSED */
    _Atomic uint32_t references; /* the owner's, and the flusher's */

    /* Of the reader, who has set `reading`. */
    _Atomic uint32_t reading;
    bool ended;
    int read_error;
    size_t limit;
    char *input;
    size_t start, end, capacity; /* of the input: read ahead and not consumed is [start, end) */

    /* Of whoever holds the lock. */
    weft__lock lock;
    uint32_t state; /* enum weft__stream_state */
    weft_waiters waiters;
    uint32_t wakes; /* how often the list was taken, in steps of WEFT__GENERATION */
    bool watched;
    _Atomic int lost; /* 0, or the error that ended the writing; written under the lock, once */
    size_t high, low;
    size_t pending; /* bytes in the chunks */
    struct weft__chunk *first, *last, *spare;

    weft_event progress;

    /* Of the flusher. */
    bool flusher_waits;
    uint32_t flusher_bit, flusher_seen;
};

enum { WEFT__STREAM_CLOSED = 1u << 31 };

enum weft__stream_state {
    WEFT__STREAM_SENDING = 1u << 0, /* somebody has the role of the sender */
    WEFT__STREAM_PAUSED = 1u << 1,  /* above the high mark, and not yet down to the low one */
    WEFT__STREAM_CORKED = 1u << 2,
    WEFT__STREAM_EOF_ASKED = 1u << 3, /* half-close once all is sent */
    WEFT__STREAM_EOF_DONE = 1u << 4,
    WEFT__STREAM_CLOSING = 1u << 5,
    WEFT__STREAM_OVER = 1u << 6 /* closed */
};

/* Become the reader: 0, or -EBUSY. */
int weft__stream_claim(weft_stream *stream);
void weft__stream_unclaim(weft_stream *stream);

/* What there is, in the stream's own buffer until the next read, without waiting: its size; 0 at the end;
 * -EAGAIN with the readiness to wait for in *bit, and in *seen what to tell weft__fd_begin. For the reader. */
ssize_t weft__stream_try_read(weft_stream *stream, const char **data, uint32_t *bit, uint32_t *seen);

/* While it is watched, `progress` is set whenever a wait for sending may be over. By one task, which alone clears it. */
void weft__stream_watch(weft_stream *stream, bool watched);

/* A snapshot of the state and of the error that ended the writing. */
uint32_t weft__stream_state(weft_stream *stream, int *lost);

/*
 * Put a layer under a stream. The caller reads nothing and has flushed; what was read ahead is the layer's input
 * now: it is taken with weft__stream_take_input before. 0, -EBUSY (somebody reads or writes).
 */
int weft__stream_set_layer(weft_stream *stream, const struct weft__layer *layer, void *state);

/* Take up to `size` bytes of what was read ahead. For the reader. */
size_t weft__stream_take_input(weft_stream *stream, void *buffer, size_t size);

#endif
