/*
 * Awaiting several tasks (gather), and waiting for several without awaiting them (weft_wait_*). Called by the task or
 * thread that waits; what is done when a task ends is in watcher.c.
 *
 * Nothing runs in place here, though all tasks but the first could: gather returns at the first failure, and could
 * not, with another task on its own stack that has parked. The tasks run from the run queue, one after the other on
 * one stack if they do not park.
 *
 * Whose is a handle? Each task belongs to the watcher (ends.h) from the beginning until it is freed, detached or forgotten;
 * where a handle stands twice, its second occurrence finds that this has been done, even if the record is in use
 * again, since the new task does not belong to the watcher.
 */
#include <errno.h>
#include <weft/group.h>

#include "runtime/task.h"
#include "runtime/watcher.h"

/* ---- gather ---- */

static bool has_null(weft_task *const *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!tasks[i])
            return true;
    return false;
}

static void free_ended(struct weft__watcher *watcher, weft_task *const *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (tasks[i] && weft__ends_forget(tasks[i], &watcher->ends))
            weft__ends_free(tasks[i]);
}

/* All have ended: the results, then the records. */
static void collect(struct weft__watcher *watcher, weft_task *const *tasks, size_t count, intptr_t *results)
{
    for (size_t i = 0; results && i < count; i++)
        results[i] = tasks[i] ? tasks[i]->result : -ENOMEM;
    free_ended(watcher, tasks, count);
}

/* Let go of a task after the first failure. What is to stand for its result. */
static intptr_t let_go(struct weft__watcher *watcher, weft_task *task, size_t *undone)
{
    if (!task)
        return -ENOMEM;
    switch (weft__ends_unwatch(task, &watcher->ends)) {
    case WEFT__HAS_ENDED:
        return task->result;
    case WEFT__UNDONE:
        ++*undone;
        weft__ends_detach_unheard(task);
        break;
    case WEFT__NOT_MINE: /* it stood before, and was let go of */
        break;
    }
    return -EINPROGRESS;
}

static void let_go_of_all(struct weft__watcher *watcher, weft_task *const *tasks, size_t count, intptr_t *results)
{
    size_t undone = 0;

    for (size_t i = 0; i < count; i++) {
        intptr_t result = let_go(watcher, tasks[i], &undone);

        if (results)
            results[i] = result;
    }
    weft__watcher_settle(watcher, undone);
    free_ended(watcher, tasks, count);
}

/* All were asked to end. */
static void cancel_and_wait(struct weft__watcher *watcher, weft_task *const *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        weft_cancel(tasks[i]);
    weft__watcher_wait_for_all(watcher);
}

/* The tasks are watched. `interrupted`: the caller was, before. */
static intptr_t gather_watched(struct weft__watcher *watcher, weft_task *const *tasks, size_t count,
                               intptr_t *results, int interrupted)
{
    bool missing = watcher->until == WEFT__UNTIL_ERROR && has_null(tasks, count);
    intptr_t failure;

    if (interrupted == 0 && !missing)
        interrupted = weft__watcher_wait(watcher);
    if (interrupted < 0) {
        cancel_and_wait(watcher, tasks, count);
        collect(watcher, tasks, count, results);
        return interrupted;
    }
    /* Nothing can have failed before the one that could not be spawned. */
    failure = missing ? -ENOMEM : watcher->result;
    if (failure == 0)
        collect(watcher, tasks, count, results);
    else
        let_go_of_all(watcher, tasks, count, results);
    return failure;
}

static intptr_t gather(weft_task *const *tasks, size_t count, intptr_t *results, enum weft__until until)
{
    int interrupted = weft__suspend_check();
    struct weft__watcher watcher;
    intptr_t rc;

    if (interrupted == -EPERM || weft__in_stackless())
        return -EPERM;
    if (!tasks && count > 0)
        return -EINVAL;
    if (!weft__waiter_self())
        return -ENOMEM;
    rc = weft__watcher_begin(&watcher, until, tasks, count);
    if (rc < 0)
        return rc;
    rc = gather_watched(&watcher, tasks, count, results, interrupted);
    weft__watcher_end_visits(&watcher, tasks, count);
    return rc;
}

intptr_t weft_gather(weft_task **tasks, size_t count, intptr_t *results)
{
    return gather(tasks, count, results, WEFT__UNTIL_ERROR);
}

intptr_t weft_gather_all(weft_task **tasks, size_t count, intptr_t *results)
{
    return gather(tasks, count, results, WEFT__UNTIL_ALL);
}

/* ---- waiting without awaiting ---- */

static bool has_any(weft_task *const *tasks, size_t count)
{
    for (size_t i = 0; tasks && i < count; i++)
        if (tasks[i])
            return true;
    return false;
}

/* The first that has ended; `count`: none. */
static size_t find_ended(weft_task *const *tasks, size_t count)
{
    size_t i = 0;

    while (i < count && !weft_task_done(tasks[i]))
        i++;
    return i;
}

static size_t find_failed(weft_task *const *tasks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (weft_task_done(tasks[i]) && weft__ends_is_failure(tasks[i], tasks[i]->result))
            return i;
    return count;
}

typedef size_t find(weft_task *const *tasks, size_t count);

/* What is found then; or an error. */
static ssize_t wait_for(weft_task *const *tasks, size_t count, enum weft__until until, find *find)
{
    struct weft__watcher watcher;
    ssize_t rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (!has_any(tasks, count))
        return -EINVAL;
    if (until == WEFT__UNTIL_ANY && (size_t)(rc = (ssize_t)find_ended(tasks, count)) < count)
        return rc;
    rc = weft__watcher_begin(&watcher, until, tasks, count);
    if (rc < 0)
        return rc;
    rc = weft__watcher_wait(&watcher);
    weft__watcher_unwatch(&watcher, tasks, count);
    if (rc == 0 && find)
        rc = (ssize_t)find(tasks, count);
    weft__watcher_end_visits(&watcher, tasks, count);
    return rc;
}

ssize_t weft_wait_any(weft_task *const *tasks, size_t count)
{
    return wait_for(tasks, count, WEFT__UNTIL_ANY, find_ended);
}

ssize_t weft_wait_all(weft_task *const *tasks, size_t count)
{
    return wait_for(tasks, count, WEFT__UNTIL_ALL, NULL);
}

ssize_t weft_wait_failure(weft_task *const *tasks, size_t count)
{
    return wait_for(tasks, count, WEFT__UNTIL_FAILURE, find_failed);
}

int weft_task_done(const weft_task *task)
{
    return task && weft__state_is_done(&task->state);
}
