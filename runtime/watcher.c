/*
 * Watchers (watcher.h): begun, waited on and ended by one task or thread; `ended` runs on whatever thread a watched task
 * ends on.
 *
 * The word: bit 0 the lock over the watcher (waiters.h); ENOUGH, which ends the wait; FIRST, `result` is stored. `left`
 * counts the tasks of which `ended` will be called, and one more while it is being begun, so that it is not zero
 * too early.
 *
 * A watcher lies in a frame, and the tasks that it was told of may be freed as soon as it has been. So
 *
 *   1. the store that leaves the lock is the last access of `ended` to the watcher and to the task: who sees, under the
 *      lock, that `left` is zero may let go of both. What follows is weft__settle, of a wait that stays until then
 *      (waiters.h).
 *   2. Who ends a watcher takes its tasks back one by one (weft__ends_unwatch). Those that turn out to have ended are told
 *      by some other thread that is on its way into `ended`, a few instructions away: that is waited for spinning.
 */
#include "runtime/watcher.h"

#include <errno.h>
#include <string.h>
#include <weft/runtime.h>

#include "runtime/runtime.h"
#include "runtime/waitable.h"

enum { ENOUGH = 2, FIRST = 4 };

/* ---- being told ---- */

static bool is_enough(const struct weft__watcher *watcher, const weft_task *task, intptr_t result)
{
    switch (watcher->until) {
    case WEFT__UNTIL_ERROR:
        return weft_is_error(result);
    case WEFT__UNTIL_FAILURE:
        return weft__ends_is_failure(task, result);
    case WEFT__UNTIL_ALL:
        return false;
    default:
        return true;
    }
}

static void append(struct weft__watcher *watcher, weft_task *task)
{
    task->next = NULL;
    if (watcher->last)
        watcher->last->next = task;
    else
        watcher->first = task;
    watcher->last = task;
}

/* A task has ended. Locked; returns the new bits. */
static uint32_t note(struct weft__watcher *watcher, uint32_t state, weft_task *task, intptr_t result)
{
    if (watcher->until == WEFT__UNTIL_EACH)
        append(watcher, task);
    if (!is_enough(watcher, task, result))
        return state;
    if (!(state & FIRST))
        watcher->result = result;
    return state | FIRST | ENOUGH;
}

static weft_task *ended(struct weft__ends *ends, weft_task *task, intptr_t result)
{
    struct weft__watcher *watcher = (struct weft__watcher *)ends;
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    uint32_t state = note(watcher, weft__word_enter(word), task, result);
    struct weft__wait *wait = NULL;

    if (--watcher->left == 0)
        state |= ENOUGH;
    if (state & ENOUGH) {
        wait = watcher->waiter;
        watcher->waiter = NULL;
    }
    weft__word_leave(word, state);
    return wait ? weft__settle(wait, WEFT__GRANTED) : NULL;
}

/* ---- beginning ---- */

/* The runtime of a task must not be gone when its end has been told: a caller from elsewhere is a visitor. */
static bool is_foreign(const struct weft__watcher *watcher, const weft_task *task)
{
    return task->runtime != watcher->runtime;
}

static int begin_one(struct weft__watcher *watcher, weft_task *task)
{
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    bool foreign = is_foreign(watcher, task);
    int rc;

    if (foreign)
        weft__visit(task->runtime);
    rc = weft__ends_watch(task, &watcher->ends);
    if (rc < 0 && foreign)
        weft__end_visit(task->runtime);
    if (rc == WEFT__ENDS_OVER)
        weft__word_leave(word, note(watcher, weft__word_enter(word), task, task->result));
    return rc;
}

/* `n` of those counted will not be told. */
static void subtract(struct weft__watcher *watcher, size_t n)
{
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    uint32_t state = weft__word_enter(word);

    watcher->left -= n;
    weft__word_leave(word, watcher->left == 0 ? state | ENOUGH : state);
}

int weft__watcher_begin(struct weft__watcher *watcher, enum weft__until until, weft_task *const *tasks,
                        size_t count)
{
    const weft_task *self = weft_self();
    size_t untold = 1;

    *watcher = (struct weft__watcher){
        .ends = {.ended = ended}, .until = until, .left = count + 1, .runtime = weft_runtime_current()};
    for (size_t i = 0; i < count; i++) {
        int rc = WEFT__ENDS_MINE;

        if (tasks[i])
            rc = tasks[i] == self ? -EDEADLK : begin_one(watcher, tasks[i]);
        if (rc < 0) {
            subtract(watcher, untold + count - i);
            weft__watcher_end(watcher, tasks, i);
            return rc;
        }
        if (rc != WEFT__ENDS_TOLD)
            untold++;
    }
    subtract(watcher, untold);
    return 0;
}

/* ---- waiting ---- */

static int begin_wait(void *object, struct weft__wait *wait)
{
    struct weft__watcher *watcher = object;
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    uint32_t state = weft__word_enter(word);

    if (!(state & ENOUGH))
        watcher->waiter = wait;
    weft__word_leave(word, state);
    return state & ENOUGH ? 0 : WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    struct weft__watcher *watcher = object;
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    uint32_t state = weft__word_enter(word);
    bool waits = watcher->waiter == wait;

    if (waits)
        watcher->waiter = NULL;
    weft__word_leave(word, state);
    return waits;
}

static const struct weft__waitable waitable = {begin_wait, withdraw};

int weft__watcher_wait(struct weft__watcher *watcher)
{
    struct weft__wait wait = {.outcome = WEFT__WAITING};

    return weft__wait_for(&waitable, watcher, &wait);
}

void weft__watcher_wait_for_all(struct weft__watcher *watcher)
{
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    bool masked = weft__mask_begin();

    weft__word_enter(word);
    watcher->until = WEFT__UNTIL_ALL;
    weft__word_leave(word, watcher->left == 0 ? ENOUGH : 0);
    /* It is masked, and a thread is not interrupted: only a lack of memory can make this fail, for a moment. */
    while (weft__watcher_wait(watcher) < 0)
        sched_yield();
    if (masked)
        weft_mask_end();
}

weft_task *weft__watcher_take(struct weft__watcher *watcher)
{
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    uint32_t state = weft__word_enter(word);
    weft_task *task = watcher->first;

    if (task) {
        watcher->first = task->next;
        if (!watcher->first)
            watcher->last = NULL;
    }
    if (!watcher->first && watcher->left > 0)
        state &= ~(uint32_t)ENOUGH;
    weft__word_leave(word, state);
    return task;
}

/* ---- ending ---- */

void weft__watcher_settle(struct weft__watcher *watcher, size_t undone)
{
    _Atomic uint32_t *word = weft__word_of(&watcher->word);
    size_t left;

    subtract(watcher, undone);
    for (unsigned spins = 0;; spins++) {
        uint32_t state = weft__word_enter(word);

        left = watcher->left;
        weft__word_leave(word, state);
        if (left == 0)
            return;
        /* As in waiters.h: who is to tell may have lost its processor. */
        if (spins < 64)
            weft__pause();
        else
            sched_yield();
    }
}

void weft__watcher_end_visits(const struct weft__watcher *watcher, weft_task *const *tasks, size_t count)
{
    /* Each visit lets the record be read that stands for it, even if that was freed. */
    for (size_t i = 0; i < count; i++)
        if (tasks[i] && is_foreign(watcher, tasks[i]))
            weft__end_visit(tasks[i]->runtime);
}

void weft__watcher_unwatch(struct weft__watcher *watcher, weft_task *const *tasks, size_t count)
{
    size_t undone = 0;

    for (size_t i = 0; i < count; i++)
        if (tasks[i] && weft__ends_unwatch(tasks[i], &watcher->ends) == WEFT__UNDONE)
            undone++;
    weft__watcher_settle(watcher, undone);
    for (size_t i = 0; i < count; i++)
        if (tasks[i])
            weft__ends_forget(tasks[i], &watcher->ends);
}

void weft__watcher_end(struct weft__watcher *watcher, weft_task *const *tasks, size_t count)
{
    weft__watcher_unwatch(watcher, tasks, count);
    weft__watcher_end_visits(watcher, tasks, count);
}
