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

/*
 * Its function has returned, or it never ran: publish the result and wake the awaiter. Inside, or `worker` is NULL
 * (it was taken from this driver). True: nobody refers to it; the caller reports a failure (weft__task_has_failed,
 * weft__runtime_report, not inside) and frees the record.
 */
bool weft__task_end(struct weft__driver *driver, struct weft__worker *worker, weft_task *task, intptr_t result);

void weft__task_free(struct weft__driver *driver, weft_task *task);

/* Is this result a failure that somebody should hear of? */
static inline bool weft__task_has_failed(const weft_task *task, intptr_t result)
{
    return weft_is_error(result) && !(result == -ECANCELED && weft__state_is_cancelled(&task->state));
}

static inline size_t weft__task_stack_size(const weft_task *task, const weft_runtime *runtime)
{
    return task->extra && task->extra->stack_size ? task->extra->stack_size : runtime->config.stack_size;
}

/* Cancelled, by itself or with all others, before it started. */
static inline bool weft__is_cancelled_early(const struct weft__driver *driver, const weft_task *task)
{
    return weft__state_is_cancelled(&task->state) ||
           atomic_load_explicit(&driver->cancel_all, memory_order_relaxed);
}

/* weft__ready for a waiter that is not queued with this worker: a thread, or a task of another runtime. */
void weft__ready_from_inside(weft_task *waiter);

/* weft__suspend_check when the task runs in place for others, whose cancellation reaches it too. */
int weft__suspend_check_chain(weft_task *task, const weft_task *root);

static inline int weft__suspend_check_fast(struct weft__driver *driver, weft_task *current)
{
    if (__builtin_expect(current != driver->coroutine, 0))
        return weft__suspend_check_chain(current, driver->coroutine);
    return weft__is_cancelled_early(driver, current) && current->mask == 0 ? -ECANCELED : 0;
}

#endif
