/*
 * The blocking pool: threads for calls that block (a synchronous library, a file, a resolver).
 *
 * The pool grows with the calls that are waiting, up to WEFT_BLOCKING_MAX, and shrinks after
 * WEFT_BLOCKING_KEEPALIVE_MS without work.
 */
#ifndef WEFT_BLOCKING_H
#define WEFT_BLOCKING_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/*
 * Call fn(arg) on a pool thread and return its result; the task parks meanwhile.
 *
 * If the task is cancelled, or a deadline passes, before the call has started, the call is removed and
 * -ECANCELED or -ETIMEDOUT returned; once it runs, it is waited for and its result returned (`arg` may live in
 * the caller's frame).
 * Returns -EAGAIN if the pool's queue is full or no thread can be had, -ESHUTDOWN when the runtime is
 * stopping, -EPERM outside a task. Task; suspension point.
 */
WEFT_API intptr_t weft_blocking(weft_fn *fn, void *arg);

/*
 * As weft_blocking, but a call that is running when the task is cancelled or its deadline passes is abandoned:
 * the wait ends at once, and `orphan(result, arg)` (may be NULL) runs on the pool thread when the call ends.
 * `orphan` runs, once, whenever it is not the result of `fn` that is returned. If the call never runs, because it is
 * removed or refused, for whatever reason, it runs before this returns, on the caller's stack, and `result` is the error
 * that is returned. So `arg` is the caller's again after a result of `fn`, and `orphan`'s after any other: let `fn`
 * return what is none of these errors, -ENOMEM (for the call, or for a deadline) included.
 */
WEFT_API intptr_t weft_blocking_abandonable(weft_fn *fn, void *arg, void (*orphan)(intptr_t result, void *arg));

/*
 * Call fn(arg) on a pool thread and return a task handle for it: for weft_await, weft_cancel (removes it if it
 * has not started; a running call goes on) and weft_detach. NULL if memory ran out, the pool's queue is full,
 * the runtime is stopping, or outside a task. Not a suspension point.
 */
WEFT_API weft_task *weft_spawn_blocking(weft_fn *fn, void *arg) WEFT_NODISCARD;

/*
 * As weft_spawn_blocking, but cancelling the task while the call runs abandons the call: the task ends at once, with
 * -ECANCELED, and `orphan(result, arg)` (may be NULL) runs on the pool thread when the call ends. So an awaiter that is
 * cancelled, or late, does not wait for it either. If the call never runs, `orphan` runs before the task ends, with the
 * task's result, on the thread of whoever made it so: in weft_cancel, say. It must not wait then. After NULL it does not
 * run: `arg` is still the caller's.
 */
WEFT_API weft_task *weft_spawn_blocking_abandonable(weft_fn *fn, void *arg,
                                                    void (*orphan)(intptr_t result, void *arg)) WEFT_NODISCARD;

/*
 * "I am about to block this worker": between begin and end the worker's other work is handed to another thread as soon
 * as the call turns out to block (100 to 300 microseconds) instead of after WEFT_TAKEOVER_US; if it does not, nothing
 * happens, and the two cost a few nanoseconds (the first after a pause also a system call). Not with
 * WEFT_TAKEOVER_US=off, nor while tasks are pinned to the worker.
 * They nest. No suspension point may come between. 0, -EPERM outside a task, -EINVAL for an end without a begin. Not
 * suspension points.
 */
WEFT_API int weft_block_begin(void);
WEFT_API int weft_block_end(void);

WEFT_END_DECLS

#endif
