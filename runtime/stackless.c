/*
 * Stackless tasks: the operations in which they wait. Called by the task in its step, on a worker's own stack
 * (worker.c, step).
 *
 * An operation is called again each time the task is resumed. What it waits for is remembered in the record: `pending`
 * stands for the operation and its object (NULL: none has begun), `wait` lies in the object's list meanwhile. A step that has returned
 * WEFT_PENDING ends in weft__state_park, which comes after everything the step did; a waker that was faster has left
 * NOTIFIED there. So the wait is settled or withdrawn by the next call of the same operation, on whatever
 * thread that is; no two threads run the task at a time.
 *
 * If the waiter is interrupted when its wait has been detached but not settled (waiters.h, 3), it stays pending: the
 * settling that is on its way resumes it.
 */
#include "runtime/stackless.h"

#include <stdlib.h>
#include <weft/time.h>

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/task_end.h"
#include "runtime/waitable.h"

enum { CALLS_A_TURN = 128 }; /* as in scope.c */

/* What `pending` points to while a task yields or sleeps. */
static const char yielding, sleeping;

weft_task *weft__stepping(void)
{
    struct weft__driver *driver = weft__driver();

    if (__builtin_expect(driver && driver->coroutine == &driver->stepper, 1))
        return driver->stepper.current;
    weft__misused("a weft_async_ operation, which is for stackless tasks,");
    return NULL;
}

void weft__stackless_broken(const weft_task *task)
{
    weft__say(
        "stackless task '%s' (%p) returned its result while an operation of its own was pending. Its function "
        "must call that operation again until it is not.",
        weft__task_name(task), (const void *)task);
    abort();
}

bool weft__step_spent(weft_task *task)
{
    struct weft__driver *driver = weft__driver();

    if (__builtin_expect(++driver->calls < CALLS_A_TURN, 1))
        return false;
    driver->calls = 0;
    weft__state_ready(&task->state); /* it runs: this only leaves the notification */
    return true;
}

int weft__step_arm(weft_task *task, int64_t deadline)
{
    struct weft__task_extra *extra;
    int rc;

    if (task->flags & WEFT__FLAG_TIMER)
        weft__task_drop_timer(task);
    if (__builtin_expect(deadline == WEFT_FOREVER, 1))
        return 0;
    extra = weft__task_extra(task);
    rc = extra ? weft__set_timer(&extra->timer, deadline, task) : -ENOMEM;
    if (rc == 0)
        task->flags |= WEFT__FLAG_TIMER;
    return rc;
}

void weft__step_done(weft_task *task)
{
    task->pending = NULL;
    if (__builtin_expect(task->flags & WEFT__FLAG_TIMER, 0))
        weft__task_drop_timer(task);
}

/* ---- waiting for an object ---- */

/* What `pending` holds: tells apart the operations on one object, too, so that another one is refused, not mistaken. */
static const void *operation_on(const struct weft__waitable *how, const void *object)
{
    return (const void *)((uintptr_t)object ^ (uintptr_t)how);
}

static int begin(weft_task *task, const struct weft__waitable *how, const void *object, void *request, void *slot)
{
    int64_t deadline;
    int rc;

    if (weft_cancelled())
        return -ECANCELED;
    task->wait.next = task->wait.prev = NULL;
    atomic_store_explicit(&task->wait.outcome, WEFT__WAITING, memory_order_relaxed);
    task->wait.kind = WEFT__QUEUED;
    task->wait.slot = slot;
    rc = how->begin(request, &task->wait);
    if (rc != WEFT__BEGUN)
        return rc;
    task->pending = operation_on(how, object);
    /* What need not wait succeeds even when it is late. */
    rc = weft__interrupt_stackless(task, &deadline);
    if (rc == 0)
        rc = weft__step_arm(task, deadline);
    if (rc < 0 && how->withdraw(request, &task->wait)) {
        task->pending = NULL;
        return rc;
    }
    return WEFT__BEGUN;
}

/* It was resumed. */
static int go_on(weft_task *task, const struct weft__waitable *how, void *request)
{
    int64_t deadline;
    int rc;

    if (weft__outcome_of(&task->wait) != WEFT__WAITING)
        return 0;
    rc = weft__interrupt_stackless(task, &deadline);
    if (rc == 0 && (task->flags & WEFT__FLAG_TIMER))
        rc = weft__step_arm(task, deadline);
    return rc < 0 && how->withdraw(request, &task->wait) ? rc : WEFT__BEGUN;
}

intptr_t weft__async_request(const struct weft__waitable *how, const void *object, void *request, void *slot,
                             enum weft__outcome *outcome, void **slot_after)
{
    weft_task *task = weft__stepping();
    int rc;

    if (task == NULL)
        return -EPERM;
    if (task->pending == NULL) {
        if (weft__step_spent(task))
            return WEFT_PENDING;
        rc = begin(task, how, object, request, slot);
        if (rc == WEFT__BEGUN)
            return WEFT_PENDING;
    } else if (task->pending == operation_on(how, object)) {
        rc = go_on(task, how, request);
        if (rc == WEFT__BEGUN)
            return WEFT_PENDING;
        weft__step_done(task);
    } else {
        return -EBUSY;
    }
    if (outcome != NULL)
        *outcome = weft__outcome_of(&task->wait);
    if (slot_after != NULL)
        *slot_after = task->wait.slot;
    return rc;
}

intptr_t weft__async(const struct weft__waitable *how, void *object, void *slot, enum weft__outcome *outcome,
                     void **slot_after)
{
    return weft__async_request(how, object, object, slot, outcome, slot_after);
}

/* ---- waiting for nothing ---- */

static intptr_t begin_to_yield(weft_task *task)
{
    int64_t deadline;
    int rc = weft__interrupt_stackless(task, &deadline);

    if (rc < 0)
        return rc;
    task->pending = &yielding;
    weft__state_ready(&task->state); /* it runs: this only leaves the notification, with which it is queued again */
    return WEFT_PENDING;
}

intptr_t weft_async_yield(void)
{
    weft_task *task = weft__stepping();

    if (task == NULL)
        return -EPERM;
    if (task->pending == NULL)
        return begin_to_yield(task);
    if (task->pending != &yielding)
        return -EBUSY;
    task->pending = NULL;
    return 0;
}

/* Set the timer for the end of the sleep, or for a deadline that comes before. */
static intptr_t sleep_on(weft_task *task)
{
    int64_t deadline;
    int rc = weft__interrupt_stackless(task, &deadline);

    if (rc == 0)
        rc = weft__set_timer(&task->timer, deadline < task->wake_at ? deadline : task->wake_at, task);
    task->pending = rc < 0 ? NULL : &sleeping;
    return rc < 0 ? rc : WEFT_PENDING;
}

static intptr_t sleep_until(weft_task *task, int64_t when)
{
    if (task->pending == NULL) {
        if (when <= weft__clock_now())
            return begin_to_yield(task);
        task->wake_at = when;
        return sleep_on(task);
    }
    if (task->pending == &yielding) {
        task->pending = NULL;
        return 0;
    }
    if (task->pending != &sleeping)
        return -EBUSY;
    weft__timer_cancel(&task->timer);
    if (weft__clock_now() >= task->wake_at) {
        task->pending = NULL;
        return 0;
    }
    return sleep_on(task);
}

intptr_t weft_async_sleep_until(int64_t when)
{
    weft_task *task = weft__stepping();

    return task == NULL ? -EPERM : sleep_until(task, when);
}

intptr_t weft_async_sleep(int64_t ns)
{
    weft_task *task = weft__stepping();

    if (task == NULL)
        return -EPERM;
    /* When it is called again, the time of its end is in the record. */
    return sleep_until(task, task->pending == NULL && ns > 0 ? weft__clock_after(ns) : 0);
}
