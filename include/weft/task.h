/*
 * Tasks: function calls that run on their own.
 *
 * A task that has not started is a record in a run queue; it gets a stack when a worker first runs it. A
 * task that is awaited before it started runs as a function call on the stack of its awaiter.
 *
 * Ownership: the runtime owns a task until it has ended. The handle that weft_spawn returns is a second
 * reference; exactly one of weft_await, weft_await_into and weft_detach gives it back, and the handle must
 * not be used afterwards.
 */
#ifndef WEFT_TASK_H
#define WEFT_TASK_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* How to spawn a task; zeroed (or WEFT_SPAWN_DEFAULT) means the defaults. */
typedef struct weft_spawn_options {
    const char *name;  /* shown in messages; copied (at most 31 bytes); NULL: none */
    size_t stack_size; /* bytes of stack the task may use; 0: WEFT_STACK_SIZE */
    uint32_t flags;    /* WEFT_SPAWN_* */
    uint32_t worker;   /* of WEFT_SPAWN_PINNED: 1 + the index of the worker; 0: the caller's */
    int64_t delay;     /* start this many nanoseconds from now; until then it has no stack */
    int64_t at;        /* start at this time on the monotonic clock, if that is later */
} weft_spawn_options;

#define WEFT_SPAWN_DEFAULT {0, 0, 0, 0, 0, 0}

enum {
    /* Run it at once, until it first parks or ends; then the caller goes on: sooner, beside it, and perhaps on another
     * thread, if it runs for so long (0.2 ms) that its worker's other tasks are handed on. Not for those that are
     * pinned, delayed or stackless. */
    WEFT_SPAWN_EAGER = 1u << 0,
    /* It stays on one worker, and that worker on one thread: for libraries with thread-local state. A worker with
     * pinned tasks is never handed to a spare thread, so a task that blocks it also stops its pinned tasks. */
    WEFT_SPAWN_PINNED = 1u << 1,
    WEFT_SPAWN_STACKLESS = 1u << 2, /* see <weft/stackless.h> */
};

/*
 * Spawn fn(arg) as a task; it runs concurrently, no earlier than the caller's next suspension point on a
 * runtime with one worker. What one task spawns starts in that order; what a task spawns before it first parks
 * starts before those that have been waiting for their start (children before uncles). Returns a handle, or NULL if
 * memory ran out or the caller is not inside a task. `arg` must live as long as the task needs it. Task; not a
 * suspension point.
 */
WEFT_API weft_task *weft_spawn(weft_fn *fn, void *arg) WEFT_NODISCARD;

/* As weft_spawn, with a name, a stack size, a delay… NULL options are the defaults. NULL also for options that cannot
 * be: a stack larger than the address space, a worker that there is not. Not a suspension point, but with
 * WEFT_SPAWN_EAGER: others run inside the call. */
WEFT_API weft_task *weft_spawn_with(const weft_spawn_options *options, weft_fn *fn, void *arg) WEFT_NODISCARD;

/*
 * Spawn and detach in one step. Returns 0, -ENOMEM, or -EPERM outside a task. A failure of the task (a
 * result in [-4095, -1], other than -ECANCELED after it was cancelled) is reported. Task; not a suspension
 * point.
 */
WEFT_API int weft_go(weft_fn *fn, void *arg);

/*
 * Wait until the task has ended, free the handle, return the task's result.
 *
 * A task that has not started runs in place, on the caller's stack, if enough of that is left. If the caller
 * is cancelled, or a deadline of a scope around the call passes, the awaited task is cancelled and waited
 * for; the call then returns -ECANCELED or -ETIMEDOUT, unless the task ended with a result of its own all the
 * same, which is returned. Inside weft_mask_begin/end neither reaches it. If there is no memory for such a deadline it
 * is -ENOMEM, at once.
 *
 * Returns -EINVAL for NULL, -EDEADLK if the task awaits itself. One awaiter at a time: a second one gets
 * -EBUSY and its handle stays valid, as with -EPERM in a stackless task, and -ENOMEM on a thread outside the runtime.
 * Task, or such a thread (which blocks); suspension point.
 */
WEFT_API intptr_t weft_await(weft_task *task);

/*
 * As weft_await, with the task's result stored in *result (which may be NULL) and the caller's own fate
 * returned: 0, -ECANCELED, -ETIMEDOUT or, in a task, -ENOMEM (the task has ended and its handle is freed in these cases),
 * or -EINVAL, -EDEADLK, -EBUSY, -EPERM, outside a task -ENOMEM.
 */
WEFT_API int weft_await_into(weft_task *task, intptr_t *result);

/* Give the handle back without waiting. NULL is allowed. Any thread; not a suspension point. */
WEFT_API void weft_detach(weft_task *task);

/*
 * Ask a task to end: from now on its suspension points return -ECANCELED, until it returns or calls
 * weft_uncancel(). A task that has not started never runs; its result is -ECANCELED.
 * Returns 1 (asked), 0 (it was over already), -EINVAL for NULL. Any thread that may use the handle; not a
 * suspension point.
 */
WEFT_API int weft_cancel(weft_task *task);

/* Take back a cancellation of the calling task. Returns 1 if there was one, else 0. Task. */
WEFT_API int weft_uncancel(void);

/* Is the calling task cancelled (and not masked)? 1 or 0; 0 outside a task. Not a suspension point. */
WEFT_API int weft_cancelled(void);

/* The calling task, or NULL outside one. Valid until the task returns. */
WEFT_API weft_task *weft_self(void);

/* The name given at spawn, or "" if none. The string lives as long as the task. */
WEFT_API const char *weft_task_name(const weft_task *task);

/*
 * Let the other runnable tasks of this worker run first; the first time that a new task does so, those that were
 * spawned with it and by it. Returns 0, -ECANCELED or -ETIMEDOUT, -EPERM outside a task. Task; suspension point.
 */
WEFT_API int weft_yield(void);

WEFT_END_DECLS

#endif
