/*
 * Being told of the ends of tasks: what groups, gather and the waits for several tasks are built on. The one awaiter that
 * a task can have is either a coroutine or thread (weft_await) or such a watcher.
 *
 * A watcher's `ended` runs on the thread on which the task ended, inside its worker: it takes its own spinlock, makes
 * a note, and returns whom to make ready (or NULL). It must not call into the runtime. The record of the task stays as
 * long as the handle of whoever registered the watcher does, and after the end its `next` and `prev` are free for lists
 * of the watcher's. For a child (weft__child_new) there is no handle: its record is freed after `ended` has returned.
 *
 * A child's `ended` may return WEFT__ENDS_LATER: then `after` is called on the same thread, outside the worker, before
 * the record is freed. It may use the whole runtime, but not suspend; the watcher must live until it has returned.
 */
#ifndef WEFT_RUNTIME_ENDS_H
#define WEFT_RUNTIME_ENDS_H

#include <stdbool.h>
#include <stdint.h>
#include <weft/scope.h>
#include <weft/task.h>

struct weft__ends {
    weft_task *(*ended)(struct weft__ends *ends, weft_task *task, intptr_t result);
    void (*after)(struct weft__ends *ends, weft_task *task, intptr_t result); /* may be NULL */
    /* A child runs in place (weft__child_run), and that was just passed on to it which interrupts whoever it does so
     * for: the others may have to hear of it, too. By the child itself, outside; may not suspend. May be NULL. */
    void (*interrupted)(struct weft__ends *ends);
};

#define WEFT__ENDS_LATER ((weft_task *)(uintptr_t)1)

/*
 * Register. Any thread. Whatever comes of it but an error, the task belongs to `ends` afterwards, and nobody else may
 * await it, until it is unwatched or forgotten; even when it has ended.
 */
enum {
    WEFT__ENDS_TOLD = 0, /* `ended` will be called */
    WEFT__ENDS_OVER = 1, /* it has ended already: it will not be called */
    WEFT__ENDS_MINE = 2, /* it belonged to `ends` before */
};
int weft__ends_watch(weft_task *task, struct weft__ends *ends); /* or -EBUSY: somebody awaits it */

/*
 * Undo that, and say how it was. A task that does not belong to `ends` may be gone: then its record is just looked at,
 * which is allowed (task.h), and belongs to somebody else.
 */
enum weft__unwatched {
    WEFT__NOT_MINE, /* it did not belong to `ends` */
    WEFT__UNDONE,   /* it does not belong to `ends` any more, and `ended` will not be called */
    WEFT__HAS_ENDED /* its result is there; `ended`, unless it was over before, was called or is about to be */
};
enum weft__unwatched weft__ends_unwatch(weft_task *task, struct weft__ends *ends);

/* It has ended and `ended` has returned: it does not belong to `ends` any more. False: it did not. */
bool weft__ends_forget(weft_task *task, struct weft__ends *ends);

/* Give back the handle: of a task that has ended and was forgotten; of any, its failure not to be reported. */
void weft__ends_free(weft_task *task);
void weft__ends_detach_unheard(weft_task *task);

/* Is this a failure? Being cancelled is none. In `ended`, or while there is a handle. */
bool weft__ends_is_failure(const weft_task *task, intptr_t result);

/*
 * A child: detached, its end told to `ends`, its failures not reported elsewhere; `inherited` (may be NULL) is a scope
 * that holds for it from the beginning and outlives it. Not queued yet: then weft__child_launch or weft__child_discard.
 * NULL: out of memory, or options that cannot be. Inside a task.
 */
weft_task *weft__child_new(const weft_spawn_options *options, weft_fn *fn, void *arg, struct weft__ends *ends,
                           weft_timeout *inherited);
/* 0, or -ENOMEM (a delayed start): then it is to be discarded. With the options of weft__child_new. */
int weft__child_launch(weft_task *child, const weft_spawn_options *options);
void weft__child_discard(weft_task *child);

/*
 * Cancel a child that is known to be alive. Returns whom to make ready (NULL: nobody), which may be done later,
 * when it may have ended. Not while weft__child_launch delays it.
 */
weft_task *weft__child_cancel(weft_task *child);

/* For weft_task.under: the child on top of an interrupted task tells its watcher. */
void weft__child_interrupted(weft_task *child);

/* Links for a list of live children, and the argument of a child. */
struct weft__siblings {
    weft_task *next, *prev;
};
struct weft__siblings *weft__child_siblings(weft_task *child);
void *weft__child_arg(const weft_task *child);

/*
 * Take a child that has not started out of the run queue, to run it in place. It must be known to be alive (the caller
 * holds the lock without which `ended` cannot finish). If true, weft__child_run follows, without the lock: it runs the
 * child on the caller's stack, then tells `ended`.
 */
bool weft__child_claim(weft_task *child);

/* 0, or what interrupted the caller meanwhile (it was passed on to the child): -ECANCELED, -ETIMEDOUT. */
int weft__child_run(weft_task *child);

/*
 * The body of a group: a scope of the task that began the group, from then until it waits for the group. Cancelled by a
 * failing child, on any thread while the task cannot have left the wait: from then on the task's waits in it are
 * -ECANCELED.
 */
enum { WEFT__BODY_CANCELLED = 2 }; /* in weft_timeout.passed */
void weft__body_begin(weft_task *task, weft_timeout *body);
void weft__body_end(weft_task *task, weft_timeout *body);
void weft__body_cancel(weft_task *task, weft_timeout *body);

/* The earliest deadline that can end a wait of the calling coroutine's innermost task, or WEFT_FOREVER. */
int64_t weft__deadline(const weft_task *root);

#endif
