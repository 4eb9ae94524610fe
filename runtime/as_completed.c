/*
 * weft_as_completed: the iterator over tasks in the order in which they end. A watcher (watcher.h) that keeps those that
 * have ended in a list; called by the task or thread that iterates.
 *
 * A task belongs to the iterator until it is handed out: then it is forgotten, and whoever it was handed to may await
 * and free it. At the end the iterator comes by all handles again, by those handed out too: it sees that they do
 * not belong to it, whatever their records are used for by then (ends.h).
 */
#include <errno.h>
#include <weft/group.h>

#include "runtime/task.h"
#include "runtime/watcher.h"

_Static_assert(sizeof(struct weft__watcher) <= sizeof(((weft_as_completed *)0)->watcher), "the header leaves room");

static struct weft__watcher *watcher_of(weft_as_completed *iterator)
{
    return (struct weft__watcher *)iterator->watcher;
}

int weft_as_completed_begin(weft_as_completed *iterator, weft_task *const *tasks, size_t count)
{
    if (!iterator || (!tasks && count > 0))
        return -EINVAL;
    iterator->tasks = tasks;
    iterator->count = count;
    return weft__watcher_begin(watcher_of(iterator), WEFT__UNTIL_EACH, tasks, count);
}

int weft_as_completed_next(weft_as_completed *iterator, weft_task **task)
{
    struct weft__watcher *watcher = watcher_of(iterator);
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    rc = weft__watcher_wait(watcher);
    if (rc < 0)
        return rc;
    *task = weft__watcher_take(watcher);
    if (!*task)
        return 0;
    weft__ends_forget(*task, &watcher->ends);
    return 1;
}

void weft_as_completed_end(weft_as_completed *iterator)
{
    weft__watcher_end(watcher_of(iterator), iterator->tasks, iterator->count);
}
