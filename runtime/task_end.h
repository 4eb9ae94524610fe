/*
 * What the worker needs of a task: its end, its stack. Between task.c, wait.c, scope.c and the worker; nobody else includes it.
 */
#ifndef WEFT_RUNTIME_TASK_END_H
#define WEFT_RUNTIME_TASK_END_H

#include "runtime/runtime.h"
#include "runtime/task.h"

enum {
    WEFT__MAX_SLICE = 1000 * 1000 * 1000, /* ns; a longer one counts as this */
    WEFT__GUARD_REACH = 4096 * 16
};

/* What the end of a task leaves to be done. */
enum weft__left {
    WEFT__LEFT_NOTHING, /* a handle refers to it */
    WEFT__LEFT_RECORD,  /* nobody refers to it: report a failure, free the record */
    WEFT__LEFT_END,     /* all of it: its locals are to be destroyed first; end_unstarted's own */
    WEFT__LEFT_AFTER    /* a child whose watcher wants to be told again, outside (ends.h); free the record */
};

/*
 * Its function has returned, or it never ran: publish the result and wake the awaiter. Inside, or `worker` is NULL
 * (outside: it was taken from this driver, say). What is left, unless nothing, is for weft__task_finish_outside, or
 * weft__task_free at once if it is a record without a failure to report.
 */
enum weft__left weft__task_end(struct weft__driver *driver, struct weft__worker *worker, weft_task *task,
                               intptr_t result);
void weft__task_finish_outside(struct weft__driver *driver, weft_task *task, enum weft__left left, intptr_t result);

void weft__task_free(struct weft__driver *driver, weft_task *task);

/* Has it ended because it was to? */
static inline bool weft__task_has_obeyed(const weft_task *task, intptr_t result)
{
    return result == -ECANCELED && (weft__state_is_cancelled(&task->state) ||
                                    atomic_load_explicit(&task->runtime->stopping, memory_order_relaxed));
}

/* Is this result a failure that somebody should hear of? */
static inline bool weft__task_has_failed(const weft_task *task, intptr_t result)
{
    return weft_is_error(result) && !weft__task_has_obeyed(task, result) &&
           !(atomic_load_explicit(&task->state, memory_order_relaxed) & WEFT__CHILD);
}

static inline size_t weft__task_stack_size(const weft_task *task, const weft_runtime *runtime)
{
    return (task->flags & WEFT__FLAG_EXTRA) && task->extra->stack_size ? task->extra->stack_size
                                                                       : runtime->config.stack_size;
}

/* Cancelled, by itself or with all others, before it started. */
static inline bool weft__is_cancelled_early(const struct weft__driver *driver, const weft_task *task)
{
    return weft__state_is_cancelled(&task->state) ||
           (atomic_load_explicit(&driver->summons, memory_order_relaxed) & WEFT__CANCEL_ALL);
}

/* weft__ready for a waiter that is not queued with this worker: a thread, or a task of another runtime. */
void weft__ready_from_inside(weft_task *waiter);

static inline bool weft__is_pinned(const weft_task *task)
{
    return atomic_load_explicit(&task->state, memory_order_relaxed) & WEFT__PINNED;
}

/* A waiter that must not be queued with this worker: a thread, a task of another runtime or pinned to another worker. */
static inline bool weft__is_bound_elsewhere(const weft_task *waiter, const struct weft__worker *worker)
{
    uint32_t state = atomic_load_explicit(&waiter->state, memory_order_relaxed);

    return waiter->runtime != worker->runtime || (state & WEFT__THREAD) ||
           ((state & WEFT__PINNED) && weft__home_worker(waiter) != worker);
}

/* The two below when the task runs in place for others, whose cancellation reaches it too, or in steps. */
bool weft__is_cancelled_chain(weft_task *task, const weft_task *root);
int weft__check_cancelled_chain(weft_task *task, const weft_task *root);

/* Is the running task cancelled, outside its masks? */
static inline bool weft__is_cancelled(struct weft__driver *driver)
{
    weft_task *root = driver->coroutine;

    if (__builtin_expect(root->current != root, 0))
        return weft__is_cancelled_chain(root->current, root);
    return weft__is_cancelled_early(driver, root) && root->mask == 0;
}

/* May it suspend? 0 or -ECANCELED; -EPERM for a stackless task that is not cancelled. */
static inline int weft__check_cancelled(struct weft__driver *driver)
{
    weft_task *root = driver->coroutine;

    if (__builtin_expect(root->current != root, 0))
        return weft__check_cancelled_chain(root->current, root);
    return weft__is_cancelled(driver) ? -ECANCELED : 0;
}

#endif
