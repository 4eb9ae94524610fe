/*
 * Streams from within: the structure, and what the layers above (protocol.c) and below (layer.c)
 * need. Not for anybody else.
 */
#ifndef WEFT_IO_STREAM_H
#define WEFT_IO_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <weft/layer.h>
#include <weft/stream.h>
#include <weft/sync.h>

#include "runtime/lock.h"
#include "runtime/poller.h"

/* What a layer has to tell about an attempt that it made (layer.c). */
struct weft_layer_attempt {
    weft_stream *stream;
    uint32_t blocked; /* WEFT__FD_IN, WEFT__FD_OUT: what it was refused */
    uint32_t seen;    /* the readiness after the last refusal, for weft__fd_begin */
    bool stale;       /* there was an event between two refusals */
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

    /* Set under the lock, by who reads and sends; so those who read or send may look without it. */
    const weft_layer *layer; /* NULL: none */
    void *layer_state;
    /* What was read ahead before there was a layer: its input, before what the descriptor has. */
    char *raw;
    size_t raw_start, raw_end;

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

/* References. */
void weft__stream_hold(weft_stream *stream);
void weft__stream_drop(weft_stream *stream);

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

#endif
