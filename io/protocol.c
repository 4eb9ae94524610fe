/*
 * Protocols: callbacks over a stream. One task drives a connection (weft_protocol_run) and is the stream's reader
 * all the time; the transport lies in its frame. Others only write, or ask for something: they set a flag and
 * then the stream's event `progress`, for which the driver waits besides input. It clears the event before it
 * looks at the flags, so no request is missed.
 *
 * Pausing is the one call that is not the driver's: code that writes as long as it was not paused must hear of it
 * at once. So it is made within the write, by whoever wins the step from FLOWING to PAUSING. The driver resumes
 * only what is PAUSED, which the same writer stores, and tells, when pause_writing has returned. While resume_writing
 * runs it is RESUMING: then nobody but the driver itself, from within that call, may pause. The others leave that to
 * the driver, which looks once more when it has stored FLOWING: what they buffered before they found it RESUMING it
 * sees then (the stream's lock orders the two). So the calls of two tasks never overlap, and they always alternate.
 */
#include <errno.h>
#include <weft/protocol.h>
#include <weft/time.h>

#include "io/stream.h"
#include "runtime/debug.h"
#include "runtime/select.h"
#include "runtime/waitable.h"

enum { FLOWING, PAUSING, PAUSED, RESUMING };

struct weft_transport {
    weft_stream *stream;
    const weft_protocol *protocol;
    void *arg;
    weft_task *driver;
    _Atomic uint32_t closing; /* asked for */
    _Atomic uint32_t reading_paused;
    _Atomic uint32_t writing;
    bool ended; /* of the driver: the end of the input was seen */
};

/* ---- waiting for input or a request ---- */

struct waits {
    struct weft__wait request, input;
};

static bool one_is_settled(const void *what)
{
    const struct waits *waits = what;

    return weft__outcome_of(&waits->request) != WEFT__WAITING || weft__outcome_of(&waits->input) != WEFT__WAITING;
}

static int wait_for_input(weft_stream *stream, struct waits *waits, uint32_t bit, uint32_t seen)
{
    int rc = weft__fd_begin(stream->fd, stream->entry, stream->generation, bit, seen, &waits->input);

    if (rc != WEFT__BEGUN)
        return rc;
    rc = weft__wait_over(waits->input.task, one_is_settled, waits, WEFT_FOREVER);
    weft__fd_withdraw(stream->entry, &waits->input);
    return rc < 0 ? rc : 0;
}

static int wait_for_either(weft_stream *stream, uint32_t bit, uint32_t seen)
{
    weft_task *self = weft__coroutine_self();
    struct waits waits = {.request.task = self, .input.task = self};
    int rc = weft__event_waitable.begin(&stream->progress, &waits.request);

    if (rc != WEFT__BEGUN)
        return rc;
    rc = wait_for_input(stream, &waits, bit, seen);
    if (weft__outcome_of(&waits.request) == WEFT__WAITING &&
        !weft__event_waitable.withdraw(&stream->progress, &waits.request))
        weft__wait_out(&waits.request);
    return rc;
}

/* ---- the driver ---- */

static bool is_set(const _Atomic uint32_t *flag)
{
    /* acquire: pairs with the release in `ask` */
    return atomic_load_explicit(flag, memory_order_acquire) != 0;
}

/* The peer will send no more. 1: it stays open. */
static int input_ended(weft_transport *transport)
{
    const weft_protocol *protocol = transport->protocol;

    transport->ended = true;
    return protocol->eof_received != NULL && protocol->eof_received(transport->arg) != 0;
}

/* Deal with input, or wait for it or for a request. 1: go on; 0: to be closed; or an error. */
static int take_input(weft_transport *transport)
{
    const weft_protocol *protocol = transport->protocol;
    uint32_t bit, seen;
    const char *data;
    ssize_t n;
    int rc;

    if (transport->ended || is_set(&transport->reading_paused)) {
        rc = weft_event_wait(&transport->stream->progress);
        return rc < 0 ? rc : 1;
    }
    n = weft__stream_try_read(transport->stream, &data, &bit, &seen);
    if (n == -EAGAIN) {
        rc = wait_for_either(transport->stream, bit, seen);
        return rc < 0 ? rc : 1;
    }
    if (n <= 0)
        return n < 0 ? (int)n : input_ended(transport);
    if (protocol->data_received != NULL)
        protocol->data_received(transport->arg, data, (size_t)n);
    return 1;
}

static void ask(const weft_transport *transport, _Atomic uint32_t *flag, uint32_t value)
{
    weft_stream *stream = transport->stream;

    /* The driver may come to its end as soon as it sees the flag, and the transport is gone then, and perhaps its
     * owner's stream. */
    weft__stream_hold(stream);
    /* release: what the caller did before is seen by the driver */
    atomic_store_explicit(flag, value, memory_order_release);
    weft_event_set(&stream->progress);
    weft__stream_drop(stream);
}

static bool begins_to_pause(weft_transport *transport)
{
    uint32_t before = FLOWING;

    if (atomic_compare_exchange_strong_explicit(&transport->writing, &before, PAUSING, memory_order_acq_rel,
                                                memory_order_relaxed))
        return true;
    /* Within resume_writing: nobody else changes it. */
    return before == RESUMING && weft__coroutine_self() == transport->driver &&
           atomic_compare_exchange_strong_explicit(&transport->writing, &before, PAUSING, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static void pause_if_full(weft_transport *transport)
{
    int lost;

    if (!(weft__stream_state(transport->stream, &lost) & WEFT__STREAM_PAUSED) || !begins_to_pause(transport))
        return;
    if (transport->protocol->pause_writing != NULL)
        transport->protocol->pause_writing(transport->arg);
    ask(transport, &transport->writing, PAUSED); /* it may have drained meanwhile */
}

static void resume(weft_transport *transport)
{
    uint32_t before = RESUMING;

    atomic_store_explicit(&transport->writing, RESUMING, memory_order_release);
    if (transport->protocol->resume_writing != NULL)
        transport->protocol->resume_writing(transport->arg);
    /* Fails if that has paused again. */
    if (atomic_compare_exchange_strong_explicit(&transport->writing, &before, FLOWING, memory_order_acq_rel,
                                                memory_order_relaxed))
        pause_if_full(transport);
}

/* One turn, as take_input. */
static int turn(weft_transport *transport)
{
    int lost, rc = weft__suspend_check();
    uint32_t state;

    if (rc < 0)
        return rc;
    weft_event_clear(&transport->stream->progress);
    state = weft__stream_state(transport->stream, &lost);
    if (is_set(&transport->closing) || (state & WEFT__STREAM_CLOSING))
        return 0;
    if (lost != 0)
        return lost;
    if (!(state & WEFT__STREAM_PAUSED) &&
        atomic_load_explicit(&transport->writing, memory_order_acquire) == PAUSED) {
        resume(transport);
        return 1;
    }
    return take_input(transport);
}

static int drive(weft_transport *transport)
{
    int rc;

    do
        rc = turn(transport);
    while (rc == 1);
    /* Aborted by this side, it is no error. */
    return rc == -EBADF && weft_stream_is_closing(transport->stream) ? 0 : rc;
}

int weft_protocol_run(weft_stream *stream, const weft_protocol *protocol, void *arg)
{
    weft_transport transport = {
        .stream = stream, .protocol = protocol, .arg = arg, .driver = weft__coroutine_self()};
    int rc;

    if (transport.driver == NULL)
        return weft__misused("weft_protocol_run");
    rc = weft__stream_claim(stream);
    if (rc < 0)
        return rc;
    weft__stream_watch(stream, true);
    if (protocol->connection_made != NULL)
        protocol->connection_made(arg, &transport);
    rc = drive(&transport);
    weft__stream_watch(stream, false);
    weft__stream_unclaim(stream);
    if (rc < 0)
        weft_stream_abort(stream);
    else
        rc = weft_stream_close(stream);
    if (protocol->connection_lost != NULL)
        protocol->connection_lost(arg, rc);
    return rc;
}

/* ---- the transport ---- */

int weft_transport_write(weft_transport *transport, const void *data, size_t size)
{
    int rc = weft_stream_write(transport->stream, data, size);

    if (rc == 0)
        pause_if_full(transport);
    return rc;
}

int weft_transport_write_eof(weft_transport *transport)
{
    return weft_stream_write_eof(transport->stream);
}

void weft_transport_close(weft_transport *transport)
{
    ask(transport, &transport->closing, 1);
}

void weft_transport_abort(weft_transport *transport)
{
    weft_stream_abort(transport->stream);
}

int weft_transport_is_closing(const weft_transport *transport)
{
    return is_set(&transport->closing) || weft_stream_is_closing(transport->stream);
}

void weft_transport_pause_reading(weft_transport *transport)
{
    ask(transport, &transport->reading_paused, 1);
}

void weft_transport_resume_reading(weft_transport *transport)
{
    ask(transport, &transport->reading_paused, 0);
}

int weft_transport_is_reading(const weft_transport *transport)
{
    return !is_set(&transport->reading_paused) && !weft_transport_is_closing(transport);
}

weft_stream *weft_transport_stream(const weft_transport *transport)
{
    return transport->stream;
}
