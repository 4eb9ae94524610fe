/*
 * weft_shield: awaiting a task without the tie by which the awaiter's cancellation becomes the task's. Called by the
 * task or thread that waits; a watcher (watcher.h) of one task.
 */
#include <errno.h>
#include <weft/group.h>

#include "runtime/task.h"
#include "runtime/watcher.h"

/* The wait is over, one way or the other: the result, if there is one, else `reason`. */
static intptr_t finish(struct weft__watcher *watcher, weft_task *task, int reason)
{
    intptr_t result;

    if (weft__ends_unwatch(task, &watcher->ends) == WEFT__UNDONE) {
        weft__watcher_settle(watcher, 1);
        weft_detach(task);
        return reason;
    }
    weft__watcher_settle(watcher, 0);
    result = task->result;
    weft__ends_forget(task, &watcher->ends);
    weft__ends_free(task);
    return result;
}

intptr_t weft_shield(weft_task *task)
{
    int reason = weft__suspend_check();
    struct weft__watcher watcher;
    intptr_t result;
    int rc;

    if (!task || reason == -EPERM || weft__in_stackless())
        return task ? -EPERM : -EINVAL;
    if (!weft__waiter_self())
        return -ENOMEM;
    rc = weft__watcher_begin(&watcher, WEFT__UNTIL_ALL, &task, 1);
    if (rc < 0)
        return rc;
    if (reason == 0)
        reason = weft__watcher_wait(&watcher);
    result = finish(&watcher, task, reason);
    weft__watcher_end_visits(&watcher, &task, 1);
    return result;
}
