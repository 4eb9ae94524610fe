/*
 * Tasks: spawn, await, cancel, detach. Runs on whatever thread calls it; waiting is in wait.c, the run queue and the
 * switching are the worker's.
 */
#include "runtime/task.h"

#include <stdlib.h>
#include <string.h>
#include <weft/runtime.h>

#include "runtime/debug.h"
#include "runtime/runtime.h"
#include "runtime/task_end.h"

/* ---- records ---- */

static inline void init_record(weft_task *task, weft_fn *fn, void *arg, uint32_t state)
{
    atomic_store_explicit(&task->state, state, memory_order_relaxed);
    task->mask = 0;
    task->flags = 0;
    task->fn = fn;
    task->arg = arg;
    weft__set_home(task, 0);
    atomic_store_explicit(&task->root, NULL, memory_order_relaxed);
}

/* What only some tasks have; a free record has none of it. */
static __attribute__((noinline)) void clear_extras(weft_task *task)
{
    /* `extra` stays with the record: somebody may just be naming the task. */
    task->scopes = NULL;
    task->flags = 0;
    task->mask = 0;
}

static inline void free_record(struct weft__driver *driver, weft_task *task)
{
    if (__builtin_expect(task->flags | task->mask, 0))
        clear_extras(task);
    weft__record_put(driver->runtime->depot, &driver->records, task);
}

void weft__task_free(struct weft__driver *driver, weft_task *task)
{
    free_record(driver, task);
}

static weft_task *outside_record(struct weft__worker *worker)
{
    weft_task *task;

    weft__lock_enter(&worker->outside_lock);
    task = weft__record_get(worker->runtime->depot, &worker->outside_records);
    weft__lock_leave(&worker->outside_lock);
    return task;
}

static void free_anywhere(weft_task *task)
{
    struct weft__driver *driver = weft__driver();
    struct weft__worker *worker;

    if (driver && driver->runtime == task->runtime) {
        free_record(driver, task);
        return;
    }
    if (task->flags | task->mask)
        clear_extras(task);
    worker = &task->runtime->workers[0];
    weft__lock_enter(&worker->outside_lock);
    weft__record_put(worker->runtime->depot, &worker->outside_records, task);
    weft__lock_leave(&worker->outside_lock);
}

/* ---- spawning ---- */

/* The driver if the caller is inside a task, else NULL. */
static inline struct weft__driver *task_driver(void)
{
    struct weft__driver *driver = weft__driver();

    return __builtin_expect(driver && driver->coroutine, 1) ? driver : NULL;
}

static inline void queue_new(struct weft__driver *driver, weft_task *task)
{
    struct weft__worker *worker = weft__enter(driver);

    weft__count(&driver->counters.spawned, 1);
    if (__builtin_expect(worker != NULL, 1)) {
        weft__queue_push(&worker->queue, task, worker);
        weft__leave(driver);
    } else {
        weft__queue_from_outside(task, driver->worker);
    }
}

weft_task *weft_spawn(weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();
    weft_task *task;

    if (__builtin_expect(!driver, 0)) {
        weft__misused("weft_spawn");
        return NULL;
    }
    task = weft__record_get(driver->runtime->depot, &driver->records);
    if (__builtin_expect(!task, 0))
        return NULL;
    init_record(task, fn, arg, 0);
    queue_new(driver, task);
    return task;
}

int weft_go(weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();
    weft_task *task;

    if (__builtin_expect(!driver, 0))
        return weft__misused("weft_go");
    task = weft__record_get(driver->runtime->depot, &driver->records);
    if (__builtin_expect(!task, 0))
        return -ENOMEM;
    init_record(task, fn, arg, WEFT__DETACHED);
    queue_new(driver, task);
    return 0;
}

/* The record's own, from an earlier use, or a new one. */
static bool fill_extra(weft_task *task, const weft_spawn_options *options)
{
    struct weft__task_extra *extra = task->extra;
    size_t length = options->name ? strnlen(options->name, sizeof extra->name - 1) : 0;

    if (!extra && !(extra = calloc(1, sizeof *extra)))
        return false;
    extra->stack_size = options->stack_size;
    memcpy(extra->name, options->name ? options->name : "", length);
    extra->name[length] = '\0';
    task->extra = extra;
    task->flags = WEFT__FLAG_EXTRA;
    return true;
}

weft_task *weft_spawn_with(const weft_spawn_options *options, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();
    weft_task *task;

    if (!driver) {
        weft__misused("weft_spawn_with");
        return NULL;
    }
    if (!options || (!options->name && !options->stack_size))
        return weft_spawn(fn, arg);
    if (options->stack_size > SIZE_MAX / 4)
        return NULL;
    task = weft__record_get(driver->runtime->depot, &driver->records);
    if (!task)
        return NULL;
    init_record(task, fn, arg, 0);
    if (!fill_extra(task, options)) {
        free_record(driver, task);
        return NULL;
    }
    queue_new(driver, task);
    return task;
}

static weft_task *spawn_from_outside(weft_runtime *runtime, weft_fn *fn, void *arg, uint32_t state)
{
    weft_task *task = NULL;

    weft__visit(runtime);
    if (!atomic_load_explicit(&runtime->stopping, memory_order_seq_cst)) {
        struct weft__worker *worker = weft__pick_worker(runtime);

        task = outside_record(worker);
        if (task) {
            init_record(task, fn, arg, state);
            atomic_fetch_add_explicit(&worker->outside_spawned, 1, memory_order_release);
            weft__queue_from_outside(task, worker);
        }
    }
    weft__end_visit(runtime);
    return task;
}

weft_task *weft_runtime_spawn(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();

    if (driver && driver->runtime == runtime && !atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        return weft_spawn(fn, arg);
    return spawn_from_outside(runtime, fn, arg, 0);
}

int weft_runtime_go(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();
    int rc = 0;

    if (driver && driver->runtime == runtime && !atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        return weft_go(fn, arg);
    weft__visit(runtime);
    if (!spawn_from_outside(runtime, fn, arg, WEFT__DETACHED))
        rc = atomic_load_explicit(&runtime->stopping, memory_order_seq_cst) ? -ESHUTDOWN : -ENOMEM;
    weft__end_visit(runtime);
    return rc;
}

/* ---- results that come from elsewhere ---- */

weft_task *weft__task_new_external(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = weft__driver();
    weft_task *task;

    if (driver && driver->runtime == runtime)
        task = weft__record_get(runtime->depot, &driver->records);
    else
        task = outside_record(&runtime->workers[0]);
    if (!task)
        return NULL;
    init_record(task, fn, arg, WEFT__POOL);
    atomic_fetch_add_explicit(&runtime->external_spawned, 1, memory_order_release);
    return task;
}

void weft__task_finish(weft_task *task, intptr_t result)
{
    weft_runtime *runtime = task->runtime;
    weft_task *waiter;

    task->result = result;
    switch (weft__state_end(&task->state, &task->waiter, &waiter)) {
    case WEFT__END_FREE:
        if (weft__task_has_failed(task, result))
            weft__runtime_report(runtime, task, result);
        free_anywhere(task);
        break;
    case WEFT__END_WAKE:
        weft__ready(waiter);
        break;
    case WEFT__END_KEEP:
        break;
    }
    atomic_fetch_add_explicit(&runtime->external_ended, 1, memory_order_release);
}

void weft__task_discard(weft_task *task)
{
    weft_runtime *runtime = task->runtime;

    free_anywhere(task);
    atomic_fetch_add_explicit(&runtime->external_ended, 1, memory_order_release);
}

/* ---- the end ---- */

bool weft__task_end(struct weft__driver *driver, struct weft__worker *worker, weft_task *task, intptr_t result)
{
    enum weft__end_action action;
    weft_task *waiter;

    task->result = result;
    action = weft__state_end(&task->state, &task->waiter, &waiter);
    if (action == WEFT__END_WAKE) {
        if (!worker)
            weft__ready(waiter);
        else if (weft__state_is_thread(&waiter->state) || waiter->runtime != worker->runtime)
            weft__ready_from_inside(waiter);
        else if (weft__state_ready(&waiter->state) == WEFT__READY_QUEUE)
            weft__make_next(worker, waiter);
    }
    weft__count(&driver->counters.ended, 1);
    return action == WEFT__END_FREE;
}

/* ---- awaiting ---- */

/* Is enough of this stack left for what the task asked for? */
static inline bool has_room(const weft_task *root, const weft_task *task, const weft_runtime *runtime)
{
    char *frame = __builtin_frame_address(0);

    if (__builtin_expect(task->flags & WEFT__FLAG_EXTRA, 0))
        return (size_t)(frame - root->stack->low) >= weft__task_stack_size(task, runtime);
    return frame >= root->in_place_limit;
}

/* Take a task that has not started out of this worker's queue, to run it in place. */
static inline __attribute__((always_inline)) bool claim(struct weft__driver *driver, weft_task *root,
                                                        weft_task *task)
{
    struct weft__worker *worker = weft__enter(driver);
    bool claimed = false;

    if (worker && atomic_load_explicit(&task->home, memory_order_relaxed) == weft__home_queued(worker) &&
        !atomic_load_explicit(&task->root, memory_order_relaxed) && has_room(root, task, driver->runtime)) {
        weft__queue_remove(&worker->queue, task);
        atomic_store_explicit(&task->root, root, memory_order_relaxed);
        weft__charge(driver, worker, WEFT__CREDIT_IN_PLACE);
        claimed = true;
    }
    weft__leave(driver);
    return claimed;
}

/* What passing on an interruption to the awaited task means for the awaiter. */
static int take_fate(weft_task *awaiter)
{
    int fate = 0;

    if (__builtin_expect(awaiter->flags & WEFT__FLAG_FORWARDED, 0)) {
        fate = awaiter->flags & WEFT__FLAG_TIMED_OUT ? -ETIMEDOUT : -ECANCELED;
        awaiter->flags &= ~(WEFT__FLAG_FORWARDED | WEFT__FLAG_TIMED_OUT);
    }
    return fate;
}

static inline intptr_t run_in_place(weft_task *root, weft_task *task, int *fate)
{
    weft_task *awaiter = root->current;
    struct weft__driver *driver;
    intptr_t result;

    task->under = awaiter;
    root->current = task;
    result = weft__task_call(task);
    root->current = awaiter;

    driver = weft__driver();
    weft__count(&driver->counters.ran_in_place, 1);
    free_record(driver, task);
    *fate = take_fate(awaiter);
    return result;
}

static bool runs_in_place(weft_task *task)
{
    weft_task *root = atomic_load_explicit(&task->root, memory_order_relaxed);

    return root && root != task;
}

/* The waiter is there: wait, take the result, free the record. */
static int await_as(weft_task *self, weft_task *task, intptr_t *result)
{
    weft_task *nobody = NULL;
    int fate = 0;

    if (!weft__state_is_thread(&self->state) && task == self->current)
        return -EDEADLK;
    if (runs_in_place(task))
        return -EBUSY; /* for its first awaiter */
    if (!atomic_compare_exchange_strong_explicit(&task->waiter, &nobody, self, memory_order_relaxed,
                                                 memory_order_relaxed))
        return -EBUSY;
    if (!weft__state_await(&task->state))
        fate = weft__wait_for_end(self, task);
    *result = task->result;
    atomic_store_explicit(&task->waiter, NULL, memory_order_relaxed);
    free_anywhere(task);
    return fate;
}

static __attribute__((noinline)) int await_elsewhere(weft_task *task, intptr_t *result)
{
    weft_task *self = weft__waiter_self();
    weft_runtime *runtime = task->runtime;
    int fate;

    if (!self)
        return -ENOMEM;
    if (self->runtime == runtime)
        return await_as(self, task, result);
    /* From outside: the runtime must not be gone when this thread wakes up after the task's end. */
    weft__visit(runtime);
    fate = await_as(self, task, result);
    weft__end_visit(runtime);
    return fate;
}

/* Why the awaiter cannot wait, if it cannot: cancelled or too late. Then a task that has not started never does. */
static inline int reason_not_to_wait(struct weft__driver *driver, weft_task *root)
{
    int64_t deadline;

    /* Its own cancellation only: what reaches it from those it runs in place for, the awaited task will find. */
    if (__builtin_expect(weft__is_cancelled_early(driver, root->current), 0) && root->current->mask == 0)
        return -ECANCELED;
    if (__builtin_expect(root->current->flags & WEFT__FLAG_SCOPES, 0))
        return weft__interrupt(root, &deadline);
    return 0;
}

/* The awaiter is cancelled or late already: so is what it awaits. That may end before it can be waited for. */
static __attribute__((noinline)) int await_for(int reason, weft_task *root, weft_task *task, intptr_t *result)
{
    int fate;

    if (root->current == task)
        return -EDEADLK;
    weft_cancel(task);
    fate = await_elsewhere(task, result);
    return fate == 0 ? reason : fate;
}

/* The result is stored, the awaiter's fate returned. */
static inline __attribute__((always_inline)) int await_task(weft_task *task, intptr_t *result)
{
    struct weft__driver *driver = task_driver();
    weft_task *root;
    int reason, fate;

    if (__builtin_expect(!driver, 0))
        return await_elsewhere(task, result);
    if (__builtin_expect(driver->overdue, 0)) {
        driver->overdue = false;
        driver = weft__pass_on(driver);
    }
    root = driver->coroutine;
    reason = reason_not_to_wait(driver, root);
    if (__builtin_expect(reason < 0, 0))
        return await_for(reason, root, task, result);
    if (!claim(driver, root, task))
        return await_elsewhere(task, result);
    *result = run_in_place(root, task, &fate);
    return fate;
}

intptr_t(weft_await)(weft_task *task)
{
    intptr_t result = -ECANCELED;
    int fate;

    if (__builtin_expect(!task, 0))
        return -EINVAL;
    fate = await_task(task, &result);
    /* Interrupted, and the task ended because of that: the awaiter's own reason is the answer. */
    return __builtin_expect(fate != 0, 0) && result == -ECANCELED ? fate : result;
}

int weft_await_into(weft_task *task, intptr_t *result)
{
    intptr_t ignored;

    if (!task)
        return -EINVAL;
    return await_task(task, result ? result : &ignored);
}

/* ---- the rest of the interface ---- */

void weft_detach(weft_task *task)
{
    if (!task || !weft__state_detach(&task->state))
        return;
    if (weft__task_has_failed(task, task->result))
        weft__runtime_report(task->runtime, task, task->result);
    free_anywhere(task);
}

int weft_cancel(weft_task *task)
{
    weft_task *root;

    if (!task)
        return -EINVAL;
    if (!weft__state_cancel(&task->state))
        return 0;
    if (weft__state_is_pool(&task->state)) {
        weft__pool_cancel(task);
        return 1;
    }
    root = atomic_load_explicit(&task->root, memory_order_relaxed);
    if (root)
        weft__ready(root);
    return 1;
}

int weft_uncancel(void)
{
    struct weft__driver *driver = task_driver();

    return driver && weft__state_uncancel(&driver->coroutine->current->state);
}

int weft_cancelled(void)
{
    return weft__suspend_check() == -ECANCELED;
}

weft_task *weft_self(void)
{
    struct weft__driver *driver = task_driver();

    return driver ? driver->coroutine->current : NULL;
}

const char *weft__task_name(const weft_task *task)
{
    return task->flags & WEFT__FLAG_EXTRA ? task->extra->name : "";
}

const char *weft_task_name(const weft_task *task)
{
    return task ? weft__task_name(task) : "";
}

int weft_yield(void)
{
    struct weft__driver *driver = task_driver();
    weft_task *current;
    int64_t deadline;

    if (__builtin_expect(!driver, 0))
        return weft__misused("weft_yield");
    current = driver->coroutine->current;
    if (__builtin_expect(weft__suspend_check_fast(driver, current) < 0, 0))
        return -ECANCELED;
    if (__builtin_expect(current->flags & WEFT__FLAG_SCOPES, 0)) {
        int rc = weft__interrupt(driver->coroutine, &deadline);

        if (rc < 0)
            return rc;
    }
    weft__pass_on(driver);
    return 0;
}
