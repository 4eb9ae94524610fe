/*
 * Broadcast and watch channels: every receiver sees every message, or the latest value.
 */
#ifndef WEFT_BROADCAST_H
#define WEFT_BROADCAST_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* ---- broadcast: each subscriber receives every element sent after it subscribed ---- */

typedef struct weft_broadcast weft_broadcast;
typedef struct weft_subscriber weft_subscriber;

/*
 * A channel that keeps the last `capacity` (at least 1) elements of elem_size bytes. Senders never wait: a subscriber
 * that falls behind by more than that misses the oldest, and is told how many. NULL: out of memory. Any thread.
 */
WEFT_API weft_broadcast *weft_broadcast_new(size_t elem_size, size_t capacity) WEFT_NODISCARD;

/* Free it; all subscribers must have gone. NULL is allowed. */
WEFT_API void weft_broadcast_free(weft_broadcast *broadcast);

/* A new subscriber, which will see what is sent from now on. NULL: out of memory. Any thread. */
WEFT_API weft_subscriber *weft_broadcast_subscribe(weft_broadcast *broadcast) WEFT_NODISCARD;

/* It goes away; nobody may be receiving for it. NULL is allowed. Any thread. */
WEFT_API void weft_broadcast_unsubscribe(weft_subscriber *subscriber);

/* Send a copy of *elem to all. How many subscribers there are (0: nobody will see it), or -EPIPE if closed. Any thread;
 * not a suspension point. */
WEFT_API int weft_broadcast_send(weft_broadcast *broadcast, const void *elem);

/*
 * The next element for this subscriber: 0; n > 0: n elements were missed, the next call gives the oldest that is
 * left; -EPIPE once closed and drained; -ECANCELED, -ETIMEDOUT. One receiver at a time per subscriber (-EBUSY).
 * Any thread; suspension point.
 */
WEFT_API int64_t weft_broadcast_recv(weft_subscriber *subscriber, void *elem);

/* The same, or -EAGAIN where it would wait. Not a suspension point. */
WEFT_API int64_t weft_broadcast_try_recv(weft_subscriber *subscriber, void *elem);

/* Refuse further sends; what is kept can still be received. 0 or -EALREADY. Any thread. */
WEFT_API int weft_broadcast_close(weft_broadcast *broadcast);

/* ---- watch: the latest value, and when it changes ---- */

typedef struct weft_watch weft_watch;

/* A value of `size` bytes, *initial at first (NULL: zeros), of version 1. NULL: out of memory. Any thread. */
WEFT_API weft_watch *weft_watch_new(size_t size, const void *initial) WEFT_NODISCARD;

/* Free it; nobody may use it any more. NULL is allowed. */
WEFT_API void weft_watch_free(weft_watch *watch);

/* Set the value and wake all who wait for a change. 0, or -EPIPE if closed. Any thread; not a suspension point. */
WEFT_API int weft_watch_set(weft_watch *watch, const void *value);

/* Copy the value out (`value` may be NULL); returns its version. Any thread; not a suspension point. */
WEFT_API uint64_t weft_watch_get(weft_watch *watch, void *value);

/*
 * Wait until the version is another than *version, copy the value out and store its version. Values in between may be
 * skipped, the latest never is. 0, -EPIPE (closed, and nothing newer), -ECANCELED, -ETIMEDOUT. Any thread; suspension
 * point.
 */
WEFT_API int weft_watch_changed(weft_watch *watch, uint64_t *version, void *value);

/* Wake all who wait; no more changes. 0 or -EALREADY. Any thread. */
WEFT_API int weft_watch_close(weft_watch *watch);

WEFT_END_DECLS

#endif
