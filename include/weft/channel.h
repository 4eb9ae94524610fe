/*
 * Channels: queues of elements of one size between any number of senders and receivers, tasks or threads.
 */
#ifndef WEFT_CHANNEL_H
#define WEFT_CHANNEL_H

#include <sys/types.h>
#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_chan weft_chan;

/* Capacity of a channel whose senders never wait. */
#define WEFT_CHAN_UNBOUNDED SIZE_MAX

/*
 * A channel of elements of elem_size bytes (0 allowed: signals). Capacity 0 is a rendezvous: a send ends when
 * a receiver has taken the element. NULL if memory ran out or the sizes overflow. Any thread.
 */
WEFT_API weft_chan *weft_chan_new(size_t elem_size, size_t capacity) WEFT_NODISCARD;

/* Free a channel that nobody uses any more (closed or not; elements in it are dropped). NULL is allowed. */
WEFT_API void weft_chan_free(weft_chan *chan);

/*
 * Send a copy of *elem, waiting for room, in order of arrival. Returns 0; -EPIPE if the channel is or gets
 * closed; -ECANCELED, -ETIMEDOUT (the element was not sent); -ENOMEM (unbounded only). Any thread; suspension
 * point.
 */
WEFT_API int weft_chan_send(weft_chan *chan, const void *elem);

/*
 * Receive into *elem, waiting for an element. Returns 0; -EPIPE once the channel is closed and empty;
 * -ECANCELED, -ETIMEDOUT (no element was taken). Any thread; suspension point.
 */
WEFT_API int weft_chan_recv(weft_chan *chan, void *elem);

/* As above, or -EAGAIN where they would wait. Any thread; not suspension points. */
WEFT_API int weft_chan_try_send(weft_chan *chan, const void *elem);
WEFT_API int weft_chan_try_recv(weft_chan *chan, void *elem);

/* Refuse further sends and wake all who wait; what is in the channel can still be received. 0, or -EALREADY.
 * Any thread; not a suspension point. */
WEFT_API int weft_chan_close(weft_chan *chan);

/*
 * Send `count` elements that lie side by side, in their order, waiting for room as often as needed; other
 * senders' elements may come between. Returns `count`, or, if the channel is closed or the wait ended early, how many
 * were sent, or -EPIPE, -ECANCELED… if none was. Any thread; suspension point.
 */
WEFT_API ssize_t weft_chan_send_many(weft_chan *chan, const void *elems, size_t count);

/*
 * Receive what is there, at least one element (waiting for it) and at most `most`. Returns how many, or as
 * weft_chan_recv; -EINVAL if `most` is 0. Any thread; suspension point.
 */
WEFT_API ssize_t weft_chan_recv_many(weft_chan *chan, void *elems, size_t most);

/* Elements in the channel now. */
WEFT_API size_t weft_chan_len(weft_chan *chan);

WEFT_END_DECLS

#endif
