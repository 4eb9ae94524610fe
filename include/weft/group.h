/*
 * Groups: child tasks that have all ended before the code after weft_group_wait runs.
 *
 *     weft_group g;
 *     weft_group_begin(&g);
 *     for (int i = 0; i < n; i++) weft_group_spawn(&g, fetch, &urls[i]);
 *     intptr_t first_error = weft_group_wait(&g);
 *
 * The first child that fails cancels the others; weft_group_wait waits for all of them and returns that first
 * failure. A child that ends with -ECANCELED because it was cancelled is not a failure. The body, which is what the
 * task that began the group does before it waits, is cancelled by a failing child, too: its waits return -ECANCELED.
 */
#ifndef WEFT_GROUP_H
#define WEFT_GROUP_H

#include <sys/types.h>
#include <weft/base.h>
#include <weft/scope.h>
#include <weft/sync.h>
#include <weft/task.h>

WEFT_BEGIN_DECLS

enum { WEFT_GROUP_FAILURES = 8 };

typedef struct weft_group_failure {
    intptr_t result;
    void *arg; /* of the child that failed */
} weft_group_failure;

/* In the caller's frame; the fields are private. */
typedef struct weft_group {
    void *ends[3];
    uint32_t state;
    uint32_t unused;
    size_t live;
    size_t failed;
    weft_task *first, *last;
    weft_task *not_run, *not_cancelled;
    void *waiter;
    weft_runtime *runtime;
    weft_task *owner;
    weft_timeout deadline, body;
    weft_group_failure failures[WEFT_GROUP_FAILURES];
} weft_group;

/*
 * Begin a group. Its children inherit the earliest deadline of the caller's scopes, as it is here. Every group that has
 * begun must be waited for. From here to weft_group_wait the group is a scope of the calling task (see <weft/scope.h>):
 * once a child has failed, the task's waits in it return -ECANCELED. 0, or -EPERM outside a task. Not a suspension point.
 */
WEFT_API int weft_group_begin(weft_group *group);

/*
 * Spawn a child; a child may spawn siblings. 0; -ENOMEM; -ECANCELED once a child has failed or the group was cancelled,
 * -ESHUTDOWN once it has ended; -EPERM outside a task of the group's runtime. Task; not a suspension point.
 */
WEFT_API int weft_group_spawn(weft_group *group, weft_fn *fn, void *arg);
WEFT_API int weft_group_spawn_with(weft_group *group, const weft_spawn_options *options, weft_fn *fn, void *arg);

/*
 * Wait until all children have ended. If the caller is cancelled or a deadline passes, the children are cancelled and
 * waited for. Returns the first failure of a child; else -ECANCELED or -ETIMEDOUT if the caller was interrupted; else
 * 0. For the task that began the group (-EPERM for others), once; suspension point.
 */
WEFT_API intptr_t weft_group_wait(weft_group *group);

/* Cancel all children; the group refuses further ones. 1, or 0 if it was cancelled already. Any thread that may use the
 * group; not a suspension point. */
WEFT_API int weft_group_cancel(weft_group *group);

/* After the wait: how many children failed, and the i-th failure in order of time (the first WEFT_GROUP_FAILURES are
 * kept): 1 with *failure filled in, else 0. */
WEFT_API size_t weft_group_failed(const weft_group *group);
WEFT_API int weft_group_failure_at(const weft_group *group, size_t i, weft_group_failure *failure);

/* Children that have not ended. */
WEFT_API size_t weft_group_live(const weft_group *group);

/* ---- several tasks ---- */

/*
 * Await `count` tasks; their results in results[] (may be NULL) in the order of the arguments. Frees the handles; the
 * same handle may be there twice. Returns 0 when all have succeeded. The first failure, in order of time, is
 * returned at once: the others go on, detached, unheard; their places in results[] are -EINPROGRESS.
 * If the caller is interrupted, all tasks are cancelled and waited for: -ECANCELED or -ETIMEDOUT. A NULL handle counts
 * as a task that failed with -ENOMEM (it could not be spawned). -EBUSY if somebody awaits one of them, -EDEADLK if one is
 * the caller, -EINVAL for no array, -EPERM in a stackless task, -ENOTRECOVERABLE for the parent's in a forked child, on a
 * thread -ENOMEM: nothing is done then.
 * Task, or a thread outside the runtime; suspension point.
 */
WEFT_API intptr_t weft_gather(weft_task **tasks, size_t count, intptr_t *results);

/* The same, but waits for all and keeps failures in results[]: 0, or as above for an interrupted caller. */
WEFT_API intptr_t weft_gather_all(weft_task **tasks, size_t count, intptr_t *results);

/*
 * Wait until one of the tasks has ended, without touching them or their handles: its index (the lowest, if several
 * have). -EINVAL for none; -ECANCELED, -ETIMEDOUT (nothing is cancelled); -EBUSY if somebody awaits one of them, -EDEADLK
 * if one is the caller; -ENOMEM; -ENOTRECOVERABLE as of weft_gather. NULL handles are skipped. Task or thread outside; suspension point.
 */
WEFT_API ssize_t weft_wait_any(weft_task *const *tasks, size_t count);

/* The same until all have ended: 0. */
WEFT_API ssize_t weft_wait_all(weft_task *const *tasks, size_t count);

/* The same until one has failed (cancelled ones do not count): its index; or all have ended well: `count`. */
WEFT_API ssize_t weft_wait_failure(weft_task *const *tasks, size_t count);

/* Has the task ended? 1 or 0. Not a suspension point. */
WEFT_API int weft_task_done(const weft_task *task);

/*
 * Tasks in the order in which they end:
 *
 *     weft_as_completed it;
 *     weft_as_completed_begin(&it, tasks, n);
 *     while (weft_as_completed_next(&it, &task) == 1) use(weft_await(task));
 *     weft_as_completed_end(&it);
 */
typedef struct weft_as_completed {
    void *watcher[12]; /* private, as the rest */
    weft_task *const *tasks;
    size_t count;
} weft_as_completed;

/* 0, -EINVAL, -EBUSY if somebody awaits one of them, -EDEADLK if one is the caller, -ENOTRECOVERABLE as of weft_gather.
 * `tasks` must live until the end. Duplicates and NULLs collapse. */
WEFT_API int weft_as_completed_begin(weft_as_completed *iterator, weft_task *const *tasks, size_t count);

/* 1 with the next task that has ended (still to be awaited, which is immediate), 0 if there are no more, -ECANCELED,
 * -ETIMEDOUT. Suspension point. */
WEFT_API int weft_as_completed_next(weft_as_completed *iterator, weft_task **task);

/* The tasks not handed out are the caller's again. Not a suspension point. */
WEFT_API void weft_as_completed_end(weft_as_completed *iterator);

/*
 * As weft_await, but the caller's own cancellation or deadline ends the wait only: -ECANCELED or -ETIMEDOUT, and the task
 * goes on, detached (a later failure is reported). Frees the handle either way; not with -EINVAL, -EBUSY, -EDEADLK,
 * -EPERM (in a stackless task), nor with -ENOMEM on a thread. Suspension point.
 */
WEFT_API intptr_t weft_shield(weft_task *task);

WEFT_END_DECLS

#endif
