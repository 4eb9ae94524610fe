/*
 * Promises: a result that is set once, from a task, a thread, or the callback of some C library, and awaited.
 */
#ifndef WEFT_PROMISE_H
#define WEFT_PROMISE_H

#include <weft/base.h>
#include <weft/sync.h>
#include <weft/task.h>

WEFT_BEGIN_DECLS

/* Valid when zeroed; the fields are private. It must live until it has been set and nobody awaits it. */
typedef struct weft_promise {
    uint32_t set;
    uint32_t lock;
    weft_waiters waiters;
    intptr_t result;
} weft_promise;

#define WEFT_PROMISE_INIT {0, 0, {0, 0}, 0}

/*
 * Set the result and wake those who wait. Returns 0, or -EALREADY if it was set before. The promise is not
 * touched after the awaiters can know of the result, so an awaiter may free it. Any thread; not a suspension
 * point.
 */
WEFT_API int weft_promise_set(weft_promise *promise, intptr_t result);

/* 1 with *result stored (result may be NULL), or 0. Any thread; not a suspension point. */
WEFT_API int weft_promise_try(weft_promise *promise, intptr_t *result);

/*
 * Wait for the result; any number of awaiters. -ECANCELED or -ETIMEDOUT if the wait ended early. weft_await(p)
 * is the same. Any thread; suspension point.
 */
WEFT_API intptr_t weft_promise_await(weft_promise *promise);

WEFT_END_DECLS

#if defined(__cplusplus)
static inline intptr_t weft_await(weft_promise *promise)
{
    return weft_promise_await(promise);
}
#else
#define weft_await(handle) _Generic((handle), weft_promise * : weft_promise_await, default : (weft_await))(handle)
#endif

#endif
