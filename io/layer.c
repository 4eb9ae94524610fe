/*
 * Layers under streams (layer.h): putting one there, and the attempts that it makes. Called by the task that does so,
 * then by whoever reads and whoever sends.
 *
 * A layer is put there by a task that has both roles, that of the reader and that of the sender (stream_output.c),
 * and keeps them until it is open. So nobody else is in the layer before, nothing passes the descriptor behind its
 * back, and what others write meanwhile is buffered and sent through it. The pointer is set under the lock, and with
 * both roles; the next reader and the next sender see it, as the roles are passed on by release and acquire.
 *
 * What to wait for after an attempt
 *
 * A layer may be refused both directions in one attempt, each remembered as used up by then. The stream waits for
 * either. weft__fd_begin takes the readiness that the caller has seen and that does not count; this is the one after
 * the last refusal. An event between the first refusal and the last would be among what was seen, though the first
 * direction has not been tried since: so if the readiness before the last attempt is not the one after the first
 * (each event changes it, there is a count in it), nothing counts as seen.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/layer.h>
#include <weft/time.h>

#include "io/last_error.h"
#include "io/stream_output.h"
#include "runtime/debug.h"
#include "runtime/park.h"

enum {
    DISCARDED_AT_ONCE = 4096,
    DISCARDED = 65536 /* in all: as much as a peer has sent that goes on sending is of no use */
};

/* ---- attempts ---- */

/* Before the system is asked. */
static uint32_t look(weft_layer_attempt *attempt)
{
    uint32_t ready = weft__fd_ready(attempt->stream->entry);

    if (attempt->blocked != 0 && ready != attempt->seen)
        attempt->stale = true;
    return ready;
}

static ssize_t refused(weft_layer_attempt *attempt, uint32_t bit, uint32_t seen)
{
    attempt->blocked |= bit;
    attempt->seen = seen;
    return -EAGAIN;
}

/* What the read-ahead of the time before the layer has left. */
static ssize_t take_raw(weft_stream *stream, const struct iovec *iov)
{
    size_t there = stream->raw_end - stream->raw_start, n = there < iov->iov_len ? there : iov->iov_len;

    memcpy(iov->iov_base, stream->raw + stream->raw_start, n);
    stream->raw_start += n;
    if (stream->raw_start == stream->raw_end) {
        free(stream->raw);
        stream->raw = NULL;
    }
    return (ssize_t)n;
}

ssize_t weft_layer_receive(weft_layer_attempt *attempt, const struct iovec *iov, int count)
{
    weft_stream *stream = attempt->stream;
    uint32_t bit, seen;
    ssize_t n;

    if (stream->raw != NULL && count > 0)
        return take_raw(stream, iov);
    do {
        seen = look(attempt);
        if (weft__fd_known_idle(stream->entry, WEFT__FD_IN))
            return refused(attempt, WEFT__FD_IN, seen & ~(uint32_t)WEFT__FD_IN);
        bit = WEFT__FD_IN;
        n = weft__read_plainly(stream, iov, count, &bit);
        weft__stream_exhausted(stream, n, bit, &seen);
    } while (n == -EINTR);
    return n == -EAGAIN ? refused(attempt, WEFT__FD_IN, seen) : n;
}

ssize_t weft_layer_send(weft_layer_attempt *attempt, const struct iovec *iov, int count)
{
    weft_stream *stream = attempt->stream;
    uint32_t bit, seen;
    ssize_t n;

    do {
        seen = look(attempt);
        if (weft__fd_known_idle(stream->entry, WEFT__FD_OUT))
            return refused(attempt, WEFT__FD_OUT, seen & ~(uint32_t)WEFT__FD_OUT);
        bit = WEFT__FD_OUT;
        n = weft__write_plainly(stream, iov, count, &bit);
        weft__stream_exhausted(stream, n, bit, &seen);
    } while (n == -EINTR);
    return n == -EAGAIN ? refused(attempt, WEFT__FD_OUT, seen) : n;
}

ssize_t weft_layer_sendmsg(weft_layer_attempt *attempt, const struct msghdr *message)
{
    weft_stream *stream = attempt->stream;
    uint32_t seen;
    ssize_t n;

    do {
        seen = look(attempt);
        n = weft__result_of(sendmsg(stream->fd, message, MSG_NOSIGNAL));
    } while (n == -EINTR);
    if (n == -EAGAIN) {
        weft__stream_exhausted(stream, n, WEFT__FD_OUT, &seen);
        return refused(attempt, WEFT__FD_OUT, seen);
    }
    return n;
}

/* The outcome for the stream. A layer that was refused nothing waits for its direction. */
static ssize_t outcome(const weft_layer_attempt *attempt, ssize_t n, uint32_t *bit, uint32_t *seen)
{
    if (n == -EAGAIN) {
        if (attempt->blocked != 0)
            *bit = attempt->blocked;
        *seen = attempt->stale ? 0 : attempt->seen;
    }
    return n;
}

ssize_t weft__layer_read(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit, uint32_t *seen)
{
    weft_layer_attempt attempt = {.stream = stream};

    return outcome(&attempt, stream->layer->read(stream->layer_state, iov, count, &attempt), bit, seen);
}

ssize_t weft__layer_write(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit, uint32_t *seen)
{
    weft_layer_attempt attempt = {.stream = stream};
    ssize_t n = count > 0 ? stream->layer->write(stream->layer_state, iov, count, &attempt)
                          : stream->layer->shutdown(stream->layer_state, &attempt);

    return outcome(&attempt, n, bit, seen);
}

void weft__layer_discard(weft_stream *stream)
{
    char bytes[DISCARDED_AT_ONCE];
    struct iovec iov = {bytes, sizeof bytes};
    size_t discarded = 0;
    uint32_t bit, seen;
    ssize_t n = 1;

    if (weft__stream_claim(stream) < 0)
        return; /* somebody reads */
    while (n > 0 && !stream->ended && stream->read_error == 0 && discarded < DISCARDED &&
           weft__stream_enter(stream)) {
        n = weft__layer_read(stream, &iov, 1, &bit, &seen);
        discarded += n > 0 ? (size_t)n : 0;
        weft__stream_leave(stream);
    }
    weft__stream_unclaim(stream);
}

/* ---- putting one there ---- */

static int try_to_open(weft_stream *stream, uint32_t *bit, uint32_t *seen)
{
    weft_layer_attempt attempt = {.stream = stream};
    int rc;

    if (!weft__stream_enter(stream))
        return -EBADF;
    *bit = WEFT__FD_IN;
    rc = (int)outcome(&attempt, stream->layer->open(stream->layer_state, &attempt), bit, seen);
    weft__stream_leave(stream);
    return rc;
}

static int open_layer(weft_stream *stream)
{
    uint32_t bit, seen;
    int rc = 0;

    while (rc == 0 && stream->layer->open != NULL) {
        rc = try_to_open(stream, &bit, &seen);
        if (rc != -EAGAIN)
            break;
        rc = weft__fd_wait(stream->fd, stream->entry, stream->generation, bit, seen, WEFT_FOREVER);
    }
    return rc < 0 ? rc : 0;
}

/* What was read ahead, for the layer; or an error, and it is gone. */
static int deal_with_input(weft_stream *stream, unsigned flags)
{
    bool is_some = stream->end > stream->start;

    if (is_some && (flags & WEFT_LAYER_TAKES_INPUT)) {
        stream->raw = stream->input;
        stream->raw_start = stream->start;
        stream->raw_end = stream->end;
        stream->input = NULL;
        stream->capacity = 0;
    }
    stream->start = stream->end = 0;
    return is_some && !(flags & WEFT_LAYER_TAKES_INPUT) ? -EPROTO : 0;
}

/* It did not come to be open: the connection is in a state that neither side knows. */
static void give_up(weft_stream *stream, int error)
{
    if (error == -ECANCELED || error == -ETIMEDOUT)
        error = -ECONNABORTED;
    stream->read_error = error;
    weft__stream_lose(stream, error);
}

/* Both roles, with nothing left to be sent. That of the reader first: who opens a layer keeps it. */
static int take_both_roles(weft_stream *stream)
{
    int rc = weft__coroutine_self() == NULL ? weft__misused("weft_stream_set_layer") : weft__stream_claim(stream);

    if (rc < 0)
        return rc;
    do {
        rc = weft_stream_flush(stream);
        if (rc == 0)
            rc = weft__stream_take_role(stream);
    } while (rc == -EAGAIN);
    if (rc < 0)
        weft__stream_unclaim(stream);
    return rc;
}

static void attach(weft_stream *stream, const weft_layer *layer, void *state)
{
    weft__lock_enter(&stream->lock);
    stream->layer = layer;
    stream->layer_state = state;
    weft__lock_leave(&stream->lock);
}

int weft_stream_set_layer(weft_stream *stream, const weft_layer *layer, void *state, unsigned flags, int *attached)
{
    int unused, rc = take_both_roles(stream);

    if (attached == NULL)
        attached = &unused;
    *attached = 0;
    if (rc < 0)
        return rc;
    if (stream->layer != NULL) {
        rc = -EALREADY;
    } else if (stream->ended || stream->read_error != 0) {
        rc = stream->read_error != 0 ? stream->read_error : -EPIPE;
    } else {
        *attached = 1;
        attach(stream, layer, state);
        rc = deal_with_input(stream, flags);
        if (rc == 0)
            rc = open_layer(stream);
        if (rc < 0)
            give_up(stream, rc);
    }
    weft__stream_unclaim(stream);
    weft__stream_lay_role_down(stream);
    return rc;
}

void *weft_stream_layer_state(const weft_stream *stream, const weft_layer *layer)
{
    return stream->layer == layer ? stream->layer_state : NULL;
}
