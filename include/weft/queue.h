/*
 * Work queues: items that are put, taken and reported as done; first in first out, last in first out, or by priority.
 */
#ifndef WEFT_QUEUE_H
#define WEFT_QUEUE_H

#include <weft/base.h>
#include <weft/channel.h>

WEFT_BEGIN_DECLS

typedef struct weft_queue weft_queue;

enum weft_queue_order { WEFT_QUEUE_FIFO, WEFT_QUEUE_LIFO, WEFT_QUEUE_PRIORITY };

/*
 * Less than, equal to or greater than zero, as strcmp: the smallest item comes first; equal ones in order of arrival. It
 * is called under the queue's lock, some log(n) times for an item: it must not suspend, nor use the queue.
 */
typedef int weft_queue_compare(const void *a, const void *b);

/*
 * A queue of items of item_size bytes, at most `capacity` of them (WEFT_CHAN_UNBOUNDED: no limit; 0 is refused).
 * `compare` is for WEFT_QUEUE_PRIORITY, NULL otherwise. NULL: out of memory or bad arguments. Any thread.
 */
WEFT_API weft_queue *weft_queue_new(enum weft_queue_order order, size_t item_size, size_t capacity,
                                    weft_queue_compare *compare) WEFT_NODISCARD;

/* Free it; nobody may use it any more. Items in it are dropped. NULL is allowed. */
WEFT_API void weft_queue_free(weft_queue *queue);

/* Put a copy of *item, waiting for room, in order of arrival. 0; -ESHUTDOWN; -ECANCELED, -ETIMEDOUT, -ENOMEM (not put).
 * Any thread; suspension point. */
WEFT_API int weft_queue_put(weft_queue *queue, const void *item);

/* Take the next item, waiting for one, in order of arrival. 0; -ESHUTDOWN once shut down and empty; -ECANCELED,
 * -ETIMEDOUT (none taken). Any thread; suspension point. */
WEFT_API int weft_queue_get(weft_queue *queue, void *item);

/* As above, or -EAGAIN where they would wait. Not suspension points. */
WEFT_API int weft_queue_try_put(weft_queue *queue, const void *item);
WEFT_API int weft_queue_try_get(weft_queue *queue, void *item);

/* An item that was taken has been dealt with. 0, or -EINVAL if there is none that was not. Any thread. */
WEFT_API int weft_queue_task_done(weft_queue *queue);

/* Wait until every item that was put has been reported as done (or dropped). 0, -ECANCELED, -ETIMEDOUT. Any thread;
 * suspension point. */
WEFT_API int weft_queue_join(weft_queue *queue);

/*
 * Refuse puts from now on, waiting ones included. What is in the queue can still be taken; `drop` not 0: it is dropped
 * and counts as done, and those who wait to take end too. 0; calling it again is allowed (the second may drop). Any
 * thread.
 */
WEFT_API int weft_queue_shutdown(weft_queue *queue, int drop);

/* Items in it now. */
WEFT_API size_t weft_queue_len(weft_queue *queue);

WEFT_END_DECLS

#endif
