/*
 * Layers: what lies between a stream and its descriptor and changes the bytes on their way, as encryption does. For
 * those who write one; weft's TLS (<weft/tls.h>) is made with nothing else.
 *
 * A layer is a table of functions, and for each stream a state of its own. Its functions make one attempt and never
 * wait: they are given an attempt to make with the calls below, which receive and send without waiting, and if one of
 * these said -EAGAIN and nothing can be done without it, they say -EAGAIN too. The stream then waits for what was
 * missing, reading or writing, and calls again. They must not suspend, nor look at the descriptor themselves.
 *
 * One task at a time is in `read`, one in `write` or `shutdown`; but one of the first and one of the second may be in
 * the layer at once, on two threads. Where that cannot be, the layer locks, and holds the lock during a call only.
 */
#ifndef WEFT_LAYER_H
#define WEFT_LAYER_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <weft/base.h>
#include <weft/stream.h>

WEFT_BEGIN_DECLS

/* An attempt; valid during the call to which it was given. */
typedef struct weft_layer_attempt weft_layer_attempt;

typedef struct weft_layer {
    /* Called first, until it does not say -EAGAIN; nothing else is, before it has returned 0. Both directions are its
     * own until then. NULL: there is nothing to do. */
    int (*open)(void *state, weft_layer_attempt *attempt);
    /* Bytes for the reader, at least one; 0 at the end; -EAGAIN; an error, which ends the stream. */
    ssize_t (*read)(void *state, const struct iovec *iov, int count, weft_layer_attempt *attempt);
    /* How many of the bytes it has dealt with: they are not given to it again, so they must be on their way. -EAGAIN;
     * an error, which ends the stream. After -EAGAIN it is called again with the same bytes, though they may lie
     * elsewhere, be cut otherwise, and be followed by more. */
    ssize_t (*write)(void *state, const struct iovec *iov, int count, weft_layer_attempt *attempt);
    /* No more will be written: say so to the peer. 0; -EAGAIN; an error. Also before the stream is closed. NULL: the
     * socket is shut down. */
    int (*shutdown)(void *state, weft_layer_attempt *attempt);
    /* The stream is freed. Any thread. NULL: there is nothing to do. */
    void (*free)(void *state);
} weft_layer;

enum {
    /* What the stream has read ahead already is the layer's input. Without it that is an error: bytes that came
     * before the layer was there must not be taken for bytes that came through it. */
    WEFT_LAYER_TAKES_INPUT = 1u << 0
};

/*
 * Put a layer under a stream, also in the middle of a conversation: what was written before is sent first, as it is,
 * and what others write meanwhile goes through the layer when it is open. 0 once it is.
 *
 * Refused, nothing has changed, the state is still the caller's: -EBUSY if somebody reads, -EALREADY if there is a
 * layer, -EPERM outside a task or in a stackless one, and as weft_stream_flush.
 *
 * Failed: -EPROTO if bytes were read ahead; or the error of `open`; -ECANCELED, -ETIMEDOUT if the wait for it was
 * ended. The state is the stream's, and nothing passes the stream any more in either direction: its calls return
 * the error, or -ECONNABORTED where the wait was ended. *attached (may be NULL) tells failed (1) from refused (0).
 * Suspension point.
 */
WEFT_API int weft_stream_set_layer(weft_stream *stream, const weft_layer *layer, void *state, unsigned flags,
                                   int *attached);

/* The state that was given with this layer, or NULL if the stream has another one, or none. Not while the layer is being
 * put under it. Any thread; not a suspension point. */
WEFT_API void *weft_stream_layer_state(const weft_stream *stream, const weft_layer *layer);

/* ---- for the functions of a layer; they never wait and are not suspension points ---- */

/* What has come: bytes, 0 at the end, -EAGAIN, -errno. Asks the system only if there may be something. */
WEFT_API ssize_t weft_layer_receive(weft_layer_attempt *attempt, const struct iovec *iov, int count);

/* Send: bytes, -EAGAIN, -errno. SIGPIPE is not raised. */
WEFT_API ssize_t weft_layer_send(weft_layer_attempt *attempt, const struct iovec *iov, int count);

/* The same over a socket, with ancillary data, as sendmsg(2). */
WEFT_API ssize_t weft_layer_sendmsg(weft_layer_attempt *attempt, const struct msghdr *message);

WEFT_END_DECLS

#endif
