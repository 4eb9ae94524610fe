/*
 * Protocols: connections in the callback style, as a thin layer over streams, for code that is written that way.
 *
 *     connection_made, data_received (any number), eof_received (at most once), connection_lost
 *
 * are called in this order by weft_protocol_run, one at a time, in the task that called it; so they may wait, which
 * holds up only their own connection. Any of them may be NULL.
 */
#ifndef WEFT_PROTOCOL_H
#define WEFT_PROTOCOL_H

#include <weft/base.h>
#include <weft/stream.h>

WEFT_BEGIN_DECLS

/* What a protocol writes to. Valid until connection_lost has returned. */
typedef struct weft_transport weft_transport;

typedef struct weft_protocol {
    void (*connection_made)(void *arg, weft_transport *transport);
    void (*data_received)(void *arg, const void *data, size_t size); /* the data is valid during the call */
    /* The peer will send no more. Not 0: the connection stays open for writing; 0, or no such function: it is
     * closed. */
    int (*eof_received)(void *arg);
    /* The last call, once. 0: it was closed in good order, or by this side; else the error that ended it. */
    void (*connection_lost)(void *arg, int error);
    /* More than the high mark is buffered: called from within weft_transport_write, by whoever called that. */
    void (*pause_writing)(void *arg);
    /* No more than the low mark is: called after pause_writing has returned, as the others are. */
    void (*resume_writing)(void *arg);
} weft_protocol;

/*
 * Run the protocol on a stream until the connection is lost; the stream is closed then, and still to be freed. 0,
 * or the error that connection_lost got: of the connection, -ECANCELED, -ETIMEDOUT (what is buffered is dropped
 * then). -EBUSY if somebody reads from the stream, -EPERM outside a task: nothing is called then. Suspension
 * point.
 */
WEFT_API int weft_protocol_run(weft_stream *stream, const weft_protocol *protocol, void *arg);

/* ---- for the callbacks, and other tasks while the connection lasts; not suspension points ---- */

/* As weft_stream_write. */
WEFT_API int weft_transport_write(weft_transport *transport, const void *data, size_t size);

/* As weft_stream_write_eof. */
WEFT_API int weft_transport_write_eof(weft_transport *transport);

/* No more data is received; what is buffered is sent, then the connection is lost with 0. */
WEFT_API void weft_transport_close(weft_transport *transport);

/* The same, but what is buffered is dropped. */
WEFT_API void weft_transport_abort(weft_transport *transport);

WEFT_API int weft_transport_is_closing(const weft_transport *transport);

/* Between them data_received and eof_received are not called, and the peer is held up in the end. Both may be
 * called again and again. */
WEFT_API void weft_transport_pause_reading(weft_transport *transport);
WEFT_API void weft_transport_resume_reading(weft_transport *transport);
WEFT_API int weft_transport_is_reading(const weft_transport *transport);

/* The stream, for its marks, cork and descriptor. It must not be read, drained or closed by the callbacks. */
WEFT_API weft_stream *weft_transport_stream(const weft_transport *transport);

WEFT_END_DECLS

#endif
