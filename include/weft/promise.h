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
    uint32_t taken;
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

/*
 * Call fn(result, arg) once the promise is set: by a task of its own, never inside weft_promise_set. Returns that task's
 * handle, for weft_await, weft_detach, or weft_cancel (if the promise is not set yet, fn gets -ECANCELED); its result is
 * fn's. fn must not suspend. The task awaits the promise, which must live until fn is called. NULL if memory ran out or
 * outside a task. Not a suspension point.
 */
typedef intptr_t weft_promise_fn(intptr_t result, void *arg);
WEFT_API weft_task *weft_promise_then(weft_promise *promise, weft_promise_fn *fn, void *arg) WEFT_NODISCARD;

/*
 * The owner is done with the promise: if it was set to a failure that nobody has taken (awaited, tried, selected), that
 * is reported as a failed detached task's is, under the name "promise"; outside a task in debug mode only. Optional.
 * Nobody may wait for it. Any thread; not a suspension point.
 */
WEFT_API void weft_promise_drop(weft_promise *promise);

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
