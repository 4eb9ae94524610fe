/*
 * Tasks: spawn, await, cancel, detach. Runs on whatever thread calls it; waiting is in wait.c, the run queue and the
 * switching are the worker's.
 */
#include "runtime/task.h"

#include <stdlib.h>
#include <string.h>
#include <weft/runtime.h>

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/local.h"
#include "runtime/observe.h"
#include "runtime/runtime.h"
#include "runtime/stackless.h"
#include "runtime/task_end.h"
#include "runtime/waitable.h"

/* ---- records ---- */

/* All but its home, for who queues it at once. */
static inline void init_queued(weft_task *task, weft_fn *fn, void *arg, uint32_t state)
{
    atomic_store_explicit(&task->state, state, memory_order_relaxed);
    task->unusual = 0;
    __atomic_store_n(&task->fn, fn, __ATOMIC_RELAXED); /* for inspect.c */
    task->arg = arg;
    atomic_store_explicit(&task->root, NULL, memory_order_relaxed);
}

static inline void init_record(weft_task *task, weft_fn *fn, void *arg, uint32_t state)
{
    init_queued(task, fn, arg, state);
    weft__set_home(task, 0);
}

/* After init_record: it will run in steps. */
static inline void make_stackless(weft_task *task)
{
    task->pending = NULL;
    atomic_store_explicit(&task->root, task, memory_order_relaxed);
}

/* What only some tasks have; a free record has none of it. */
static __attribute__((noinline)) void clear_extras(weft_task *task)
{
    /* `extra` stays with the record: somebody may just be naming the task. */
    if (task->flags & WEFT__FLAG_TIMER)
        weft__task_drop_timer(task);
    if (task->flags & WEFT__FLAG_LOCALS) /* it was never queued */
        weft__local_end(task);
    atomic_store_explicit(&task->waiter, NULL, memory_order_relaxed); /* a child's watcher */
    task->scopes = NULL;
    task->unusual = 0;
}

/* For those who look at all records (record.h): none of a task's. */
static inline void mark_free(weft_task *task)
{
    atomic_store_explicit(&task->state, WEFT__FREE, memory_order_relaxed);
}

static inline void free_record(struct weft__driver *driver, weft_task *task)
{
    mark_free(task);
    if (__builtin_expect(task->unusual, 0))
        clear_extras(task);
    weft__record_put(driver->runtime->depot, &driver->records, task);
}

void weft__task_free(struct weft__driver *driver, weft_task *task)
{
    free_record(driver, task);
}

static weft_task *outside_record(weft_runtime *runtime, struct weft__outside *outside)
{
    weft_task *task;

    weft__lock_enter(&outside->lock);
    task = weft__record_get(runtime->depot, &outside->records);
    weft__lock_leave(&outside->lock);
    return task;
}

static void free_anywhere(weft_task *task)
{
    struct weft__driver *driver = weft__driver();
    weft_runtime *runtime = task->runtime;
    struct weft__outside *outside;

    if (driver && driver->runtime == runtime) {
        free_record(driver, task);
        return;
    }
    mark_free(task);
    if (task->unusual)
        clear_extras(task);
    outside = weft__outside_enter(runtime);
    weft__lock_enter(&outside->lock);
    weft__record_put(runtime->depot, &outside->records, task);
    weft__lock_leave(&outside->lock);
    weft__outside_leave(outside);
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
        weft__queue_push_new(&worker->queue, task, worker, driver->coroutine);
        weft__leave(driver);
    } else {
        weft__queue_from_outside(task, driver->worker);
    }
}

/*
 * Nearly always a task spawns, this thread has a record left, and nobody wants to know or to be let in. Nothing is
 * called then, so that no registers have to be saved. NULL: it is otherwise, and nothing was done.
 */
static inline __attribute__((always_inline)) weft_task *spawn_straight(weft_fn *fn, void *arg, uint32_t state)
{
    struct weft__driver *driver = weft__driver();
    weft_task *task;

    if (__builtin_expect(!driver || !driver->coroutine || weft__observed(), 0))
        return NULL;
    task = driver->records.head;
    if (__builtin_expect(!task || !weft__try_enter(driver), 0))
        return NULL;
    weft__record_take(&driver->records, task);
    init_queued(task, fn, arg, state);
    weft__count(&driver->counters.spawned, 1);
    weft__queue_push_new(&driver->worker->queue, task, driver->worker, driver->coroutine);
    weft__leave(driver);
    return task;
}

/* Any other way; `at` is where the task is spawned. */
static __attribute__((noinline)) int spawn_around(weft_fn *fn, void *arg, uint32_t state, const void *at,
                                                  weft_task **result)
{
    struct weft__driver *driver = task_driver();
    weft_task *task;

    if (!driver)
        return weft__misused(state & WEFT__NO_HANDLE ? "weft_go" : "weft_spawn");
    task = weft__record_get(driver->runtime->depot, &driver->records);
    if (!task)
        return -ENOMEM;
    init_record(task, fn, arg, state);
    if (weft__observed() && !weft__observe_spawn(task, at)) {
        free_record(driver, task);
        return -ENOMEM;
    }
    queue_new(driver, task);
    *result = task;
    return 0;
}

static __attribute__((noinline)) weft_task *spawn_slowly(weft_fn *fn, void *arg, const void *at)
{
    weft_task *task = NULL;

    spawn_around(fn, arg, 0, at, &task);
    return task;
}

weft_task *weft_spawn(weft_fn *fn, void *arg)
{
    weft_task *task = spawn_straight(fn, arg, 0);

    return __builtin_expect(task != NULL, 1) ? task : spawn_slowly(fn, arg, __builtin_return_address(0));
}

static __attribute__((noinline)) int go_slowly(weft_fn *fn, void *arg, const void *at)
{
    weft_task *ignored;

    return spawn_around(fn, arg, WEFT__NO_HANDLE, at, &ignored);
}

int weft_go(weft_fn *fn, void *arg)
{
    if (__builtin_expect(spawn_straight(fn, arg, WEFT__NO_HANDLE) != NULL, 1))
        return 0;
    return go_slowly(fn, arg, __builtin_return_address(0));
}

/* At most 31 bytes of it. */
static void set_name(struct weft__task_extra *extra, const char *name)
{
    weft__name_word *to = (weft__name_word *)(void *)extra->name;
    weft__name_word words[WEFT__NAME_SIZE / sizeof(weft__name_word)] = {0};

    memcpy(words, name, strnlen(name, WEFT__NAME_SIZE - 1));
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        __atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
}

struct weft__task_extra *weft__task_extra(weft_task *task)
{
    struct weft__task_extra *extra = task->extra;

    if (task->flags & WEFT__FLAG_EXTRA)
        return extra;
    if (!extra && !(extra = calloc(1, sizeof *extra)))
        return NULL;
    /* Both may be read by others at any time. */
    set_name(extra, "");
    __atomic_store_n(&extra->parent, NULL, __ATOMIC_RELAXED);
    memset((char *)extra + offsetof(struct weft__task_extra, stack_size), 0,
           sizeof *extra - offsetof(struct weft__task_extra, stack_size));
    /* release: its contents; pairs with weft__task_copy_name */
    __atomic_store_n(&task->extra, extra, __ATOMIC_RELEASE);
    task->flags |= WEFT__FLAG_EXTRA;
    return extra;
}

void weft__task_drop_timer(weft_task *task)
{
    weft__timer_cancel(&task->extra->timer);
    task->flags &= (uint16_t)~WEFT__FLAG_TIMER;
}

static bool fill_extra(weft_task *task, const weft_spawn_options *options)
{
    struct weft__task_extra *extra = weft__task_extra(task);

    if (!extra)
        return false;
    extra->stack_size = options->stack_size;
    set_name(extra, options->name ? options->name : "");
    return true;
}

/* ---- spawning with options ---- */

static bool are_possible(const weft_spawn_options *options, const weft_runtime *runtime)
{
    return options->stack_size <= SIZE_MAX / 4 && options->worker <= runtime->worker_count;
}

/* When it is to start; 0: now. */
static int64_t start_time(const weft_spawn_options *options)
{
    int64_t after = options->delay > 0 ? weft__clock_after(options->delay) : 0;

    return options->at > after ? options->at : after;
}

static uint32_t state_for(const weft_spawn_options *options)
{
    uint32_t state = 0;

    if (options->flags & WEFT_SPAWN_STACKLESS)
        state |= WEFT__STACKLESS;
    if (options->flags & WEFT_SPAWN_PINNED)
        state |= WEFT__PINNED;
    return state;
}

/* A record with all that the options say, not queued; `at` is where it is spawned. NULL: out of memory. */
static weft_task *new_with(struct weft__driver *driver, const weft_spawn_options *options, weft_fn *fn, void *arg,
                           uint32_t state, const void *at)
{
    weft_task *task = weft__record_get(driver->runtime->depot, &driver->records);

    if (!task)
        return NULL;
    init_record(task, fn, arg, state | state_for(options));
    if (options->flags & WEFT_SPAWN_STACKLESS)
        make_stackless(task);
    /* A pinned one has `extra` so that it is never run in place (has_room). */
    if ((options->name || options->stack_size || (options->flags & WEFT_SPAWN_PINNED)) &&
        !fill_extra(task, options)) {
        free_record(driver, task);
        return NULL;
    }
    if (weft__observed() && !weft__observe_made(task, at)) {
        free_record(driver, task);
        return NULL;
    }
    return task;
}

/* It has a home from the beginning, and is counted there until its end. */
static void pin(struct weft__driver *driver, const weft_spawn_options *options, weft_task *task)
{
    struct weft__worker *worker = options->worker ? &driver->runtime->workers[options->worker - 1] : driver->worker;

    weft__set_home(task, (uintptr_t)worker);
    weft__pin(worker);
}

/* Parked until a timer makes it ready, as if it had run. False: out of memory. */
static bool queue_later(struct weft__driver *driver, weft_task *task, int64_t when)
{
    struct weft__task_extra *extra = weft__task_extra(task);

    if (!extra)
        return false;
    if (!weft__home_worker(task))
        weft__set_home(task, (uintptr_t)driver->worker);
    extra->start_at = when;
    task->flags |= WEFT__FLAG_TIMER;
    weft__count(&driver->counters.spawned, 1);
    if (weft__set_timer(&extra->timer, when, task) < 0) {
        task->flags &= (uint16_t)~WEFT__FLAG_TIMER;
        weft__count(&driver->counters.spawned, (uint64_t)-1);
        return false;
    }
    /* Last: whoever clears PARKED may run it. Made ready before that, it is queued: who picks it looks at its time. */
    if (!weft__state_park(&task->state))
        weft__queue_from_outside(task, weft__home_worker(task));
    return true;
}

static void queue_pinned(struct weft__driver *driver, weft_task *task)
{
    if (weft__home_worker(task) == driver->worker) {
        queue_new(driver, task);
        return;
    }
    weft__count(&driver->counters.spawned, 1);
    weft__queue_from_outside(task, weft__home_worker(task));
}

/* False: out of memory; the record is the caller's again. */
static bool launch(struct weft__driver *driver, const weft_spawn_options *options, weft_task *task)
{
    int64_t when = start_time(options);

    if (options->flags & WEFT_SPAWN_PINNED)
        pin(driver, options, task);
    if (when > 0 && queue_later(driver, task, when))
        return true;
    if (when > 0) {
        if (options->flags & WEFT_SPAWN_PINNED)
            weft__unpin(weft__home_worker(task));
        return false;
    }
    if (weft__observed())
        weft__observe_ready(task);
    if (options->flags & WEFT_SPAWN_PINNED)
        queue_pinned(driver, task);
    else if ((options->flags & (WEFT_SPAWN_EAGER | WEFT_SPAWN_STACKLESS)) == WEFT_SPAWN_EAGER)
        weft__run_eagerly(driver, task);
    else
        queue_new(driver, task);
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
    if (!options)
        return weft_spawn(fn, arg);
    if (!are_possible(options, driver->runtime))
        return NULL;
    task = new_with(driver, options, fn, arg, 0, __builtin_return_address(0));
    if (!task)
        return NULL;
    if (!launch(driver, options, task)) {
        free_record(driver, task);
        return NULL;
    }
    return task;
}

static inline weft_task *new_stackless(struct weft__driver *driver, weft_fn *fn, void *arg, uint32_t state,
                                       uint16_t flags, const void *at)
{
    weft_task *task = weft__record_get(driver->runtime->depot, &driver->records);

    if (__builtin_expect(!task, 0))
        return NULL;
    init_record(task, fn, arg, WEFT__STACKLESS | state);
    make_stackless(task);
    task->flags = flags;
    if (weft__observed() && !weft__observe_spawn(task, at)) {
        free_record(driver, task);
        return NULL;
    }
    queue_new(driver, task);
    return task;
}

weft_task *weft_spawn_stackless(weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();

    if (!driver) {
        weft__misused("weft_spawn_stackless");
        return NULL;
    }
    return new_stackless(driver, fn, arg, 0, 0, __builtin_return_address(0));
}

int weft_go_stackless(weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();

    if (!driver)
        return weft__misused("weft_go_stackless");
    return new_stackless(driver, fn, arg, WEFT__NO_HANDLE, 0, __builtin_return_address(0)) ? 0 : -ENOMEM;
}

/* ---- children ---- */

static weft_task *tagged(struct weft__ends *ends)
{
    return (weft_task *)((uintptr_t)ends | 1);
}

static bool is_tagged(const weft_task *waiter)
{
    return (uintptr_t)waiter & 1;
}

static struct weft__ends *ends_of(const weft_task *waiter)
{
    return (struct weft__ends *)((uintptr_t)waiter & ~(uintptr_t)1);
}

weft_task *weft__child_new(const weft_spawn_options *options, weft_fn *fn, void *arg, struct weft__ends *ends,
                           weft_timeout *inherited)
{
    static const weft_spawn_options defaults = WEFT_SPAWN_DEFAULT;
    struct weft__driver *driver = task_driver();
    weft_task *task;

    if (!options)
        options = &defaults;
    if (!driver || !are_possible(options, driver->runtime))
        return NULL;
    task = new_with(driver, options, fn, arg, WEFT__CHILD | WEFT__NO_HANDLE | WEFT__AWAITED,
                    __builtin_return_address(0));
    if (!task)
        return NULL;
    if (!weft__task_extra(task)) {
        free_record(driver, task);
        return NULL;
    }
    __atomic_store_n(&task->extra->parent, driver->coroutine->current, __ATOMIC_RELAXED);
    atomic_store_explicit(&task->waiter, tagged(ends), memory_order_relaxed);
    if (inherited) {
        task->scopes = inherited;
        task->flags |= WEFT__FLAG_SCOPES;
    }
    task->extra->child_arg = arg;
    return task;
}

int weft__child_launch(weft_task *child, const weft_spawn_options *options)
{
    struct weft__driver *driver = task_driver();

    if (options)
        return launch(driver, options, child) ? 0 : -ENOMEM;
    if (weft__observed())
        weft__observe_ready(child);
    queue_new(driver, child);
    return 0;
}

void weft__child_discard(weft_task *child)
{
    atomic_store_explicit(&child->waiter, NULL, memory_order_relaxed);
    free_anywhere(child);
}

struct weft__siblings *weft__child_siblings(weft_task *child)
{
    return &child->extra->siblings;
}

void *weft__child_arg(const weft_task *child)
{
    return child->extra->child_arg;
}

/* Inside weft__outside_enter. NULL: out of memory. */
static weft_task *make_outside(weft_runtime *runtime, struct weft__outside *outside, weft_fn *fn, void *arg,
                               uint32_t state, const void *at)
{
    weft_task *task = outside_record(runtime, outside);

    if (!task)
        return NULL;
    init_record(task, fn, arg, state);
    if (weft__observed() && !weft__observe_spawn(task, at)) {
        free_anywhere(task);
        return NULL;
    }
    atomic_fetch_add_explicit(&outside->spawned, 1, memory_order_release);
    return task;
}

/* 0, -ESHUTDOWN or -ENOMEM. */
static int spawn_from_outside(weft_runtime *runtime, weft_fn *fn, void *arg, uint32_t state, const void *at,
                              weft_task **result)
{
    struct weft__outside *outside = weft__outside_enter(runtime);
    int rc = -ESHUTDOWN;

    if (!atomic_load_explicit(&runtime->stopping, memory_order_seq_cst)) {
        *result = make_outside(runtime, outside, fn, arg, state, at);
        rc = *result ? 0 : -ENOMEM;
        if (rc == 0)
            weft__hand_over(*result, weft__pick_worker(runtime));
    }
    weft__outside_leave(outside);
    return rc;
}

weft_task *weft_runtime_spawn(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();
    weft_task *task;

    if (driver && driver->runtime == runtime && !atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        return weft_spawn(fn, arg);
    if (weft__is_elsewhere(runtime) ||
        spawn_from_outside(runtime, fn, arg, 0, __builtin_return_address(0), &task) < 0)
        return NULL;
    return task;
}

int weft_runtime_go(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();
    weft_task *task;

    if (weft__is_elsewhere(runtime))
        return -ENOTRECOVERABLE;
    if (driver && driver->runtime == runtime && !atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        return weft_go(fn, arg);
    return spawn_from_outside(runtime, fn, arg, WEFT__NO_HANDLE, __builtin_return_address(0), &task);
}

/* As weft_spawn_stackless, but its function is called at least once, even if it is cancelled before. */
weft_task *weft__spawn_stackless_always(weft_fn *fn, void *arg)
{
    struct weft__driver *driver = task_driver();

    return driver ? new_stackless(driver, fn, arg, 0, WEFT__FLAG_BEGUN, __builtin_return_address(0)) : NULL;
}

/* ---- results that come from elsewhere ---- */

weft_task *weft__task_new_external(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = weft__driver();
    struct weft__outside *outside;
    weft_task *task;

    if (driver && driver->runtime == runtime) {
        task = weft__record_get(runtime->depot, &driver->records);
    } else {
        outside = weft__outside_enter(runtime);
        task = outside_record(runtime, outside);
        weft__outside_leave(outside);
    }
    if (!task)
        return NULL;
    init_record(task, fn, arg, WEFT__POOL);
    if (weft__observed())
        weft__observe(WEFT_TRACE_SPAWN, task, (intptr_t)weft_self());
    atomic_fetch_add_explicit(&runtime->external_spawned, 1, memory_order_release);
    return task;
}

void weft__task_finish(weft_task *task, intptr_t result)
{
    weft_runtime *runtime = task->runtime;
    weft_task *waiter;

    enum weft__end_action action;

    if (weft__observed())
        weft__observe(WEFT_TRACE_END, task, result);
    task->result = result;
    action = weft__state_end(&task->state, &task->waiter, &waiter);
    if (is_tagged(waiter)) {
        waiter = ends_of(waiter)->ended(ends_of(waiter), task, result);
    }
    if (waiter)
        weft__ready(waiter);
    if (action == WEFT__END_FREE) {
        if (weft__task_has_failed(task, result))
            weft__runtime_report(runtime, task, result);
        free_anywhere(task);
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

static inline void wake_waiter(struct weft__worker *worker, weft_task *waiter)
{
    if (!worker) {
        weft__ready(waiter);
    } else if (weft__is_bound_elsewhere(waiter, worker)) {
        weft__ready_from_inside(waiter);
    } else if (weft__state_ready(&waiter->state) == WEFT__READY_QUEUE) {
        if (weft__observed())
            weft__observe_ready(waiter);
        weft__make_awaiter_next(worker, waiter);
    }
}

/* A watcher is told. True: it wants to be told again, outside. */
static __attribute__((noinline)) bool tell_watcher(struct weft__worker *worker, weft_task *waiter, weft_task *task,
                                                   intptr_t result)
{
    struct weft__ends *ends = ends_of(waiter);

    waiter = ends->ended(ends, task, result);
    if (waiter == WEFT__ENDS_LATER)
        return true;
    if (waiter)
        wake_waiter(worker, waiter);
    return false;
}

enum weft__left weft__task_end(struct weft__driver *driver, struct weft__worker *worker, weft_task *task,
                               intptr_t result)
{
    enum weft__end_action action;
    weft_task *waiter;
    bool later = false;

    task->result = result;
    if (__builtin_expect(weft__is_pinned(task), 0))
        weft__unpin(weft__home_worker(task));
    action = weft__state_end(&task->state, &task->waiter, &waiter);
    if (waiter) {
        if (__builtin_expect(is_tagged(waiter), 0))
            later = tell_watcher(worker, waiter, task, result);
        else
            wake_waiter(worker, waiter);
    }
    weft__count(&driver->counters.ended, 1);
    if (action != WEFT__END_FREE)
        return WEFT__LEFT_NOTHING;
    return later ? WEFT__LEFT_AFTER : WEFT__LEFT_RECORD;
}

void weft__task_finish_outside(struct weft__driver *driver, weft_task *task, enum weft__left left, intptr_t result)
{
    if (left == WEFT__LEFT_AFTER) {
        struct weft__ends *ends = ends_of(atomic_load_explicit(&task->waiter, memory_order_relaxed));

        ends->after(ends, task, result);
        driver = weft__driver();
    } else if (weft__task_has_failed(task, result)) {
        weft__runtime_report(driver->runtime, task, result);
    }
    free_record(driver, task);
}

/* ---- watching ends ---- */

static bool runs_in_place(weft_task *task);

int weft__ends_watch(weft_task *task, struct weft__ends *ends)
{
    weft_task *owner = NULL;

    if (weft__is_elsewhere(task->runtime))
        return -ENOTRECOVERABLE;
    if (runs_in_place(task))
        return -EBUSY;
    if (!atomic_compare_exchange_strong_explicit(&task->waiter, &owner, tagged(ends), memory_order_relaxed,
                                                 memory_order_relaxed))
        return owner == tagged(ends) ? WEFT__ENDS_MINE : -EBUSY;
    return weft__state_watch(&task->state) ? WEFT__ENDS_OVER : WEFT__ENDS_TOLD;
}

/* Nobody else's watcher lies where `ends` does, as long as that lives. */
static bool belongs_to(const weft_task *task, struct weft__ends *ends)
{
    return atomic_load_explicit(&task->waiter, memory_order_relaxed) == tagged(ends);
}

enum weft__unwatched weft__ends_unwatch(weft_task *task, struct weft__ends *ends)
{
    if (!belongs_to(task, ends))
        return WEFT__NOT_MINE;
    /* The waiter of one that has ended may just be read. */
    if (!weft__state_unwatch(&task->state))
        return WEFT__HAS_ENDED;
    atomic_store_explicit(&task->waiter, NULL, memory_order_relaxed);
    return WEFT__UNDONE;
}

bool weft__ends_forget(weft_task *task, struct weft__ends *ends)
{
    if (!belongs_to(task, ends))
        return false;
    atomic_store_explicit(&task->waiter, NULL, memory_order_relaxed);
    return true;
}

void weft__ends_free(weft_task *task)
{
    free_anywhere(task);
}

void weft__ends_detach_unheard(weft_task *task)
{
    atomic_fetch_or_explicit(&task->state, WEFT__CHILD, memory_order_relaxed);
    weft_detach(task);
}

bool weft__ends_is_failure(const weft_task *task, intptr_t result)
{
    return weft_is_error(result) && !weft__task_has_obeyed(task, result);
}

void weft__child_interrupted(weft_task *child)
{
    weft_task *waiter = atomic_load_explicit(&child->waiter, memory_order_relaxed);

    if (is_tagged(waiter) && ends_of(waiter)->interrupted)
        ends_of(waiter)->interrupted(ends_of(waiter));
}

/* ---- awaiting ---- */

/* Is enough of this stack left for what the task asked for? */
static inline bool has_room(const weft_task *root, const weft_task *task, const weft_runtime *runtime)
{
    char *frame = weft__stack_pointer();

    if (__builtin_expect(task->flags & WEFT__FLAG_EXTRA, 0))
        return !weft__is_pinned(task) && !(task->flags & WEFT__FLAG_TIMER) && root->stack &&
               (size_t)(frame - root->stack->low) >= weft__task_stack_size(task, runtime);
    return frame >= root->in_place_limit;
}

/* Take a task that has not started out of this worker's queue, to run it in place. */
static inline __attribute__((always_inline)) bool claim(struct weft__driver *driver, weft_task *root,
                                                        weft_task *task, int32_t charge)
{
    struct weft__worker *worker = weft__enter(driver);
    uintptr_t home = weft__home(task);
    bool claimed = false;

    if (worker && weft__is_queued_at(home, worker) && !atomic_load_explicit(&task->root, memory_order_relaxed) &&
        has_room(root, task, driver->runtime)) {
        weft__queue_remove(&worker->queue, task, home);
        weft__home_begin_in_place(root);
        atomic_store_explicit(&task->root, root, memory_order_relaxed);
        if (charge > 0)
            weft__charge(driver, worker, charge);
        claimed = true;
    }
    weft__leave(driver);
    return claimed;
}

bool weft__child_claim(weft_task *child)
{
    struct weft__driver *driver = task_driver();

    return driver && driver->coroutine != &driver->stepper && claim(driver, driver->coroutine, child, 0);
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

/* Its function has returned. The awaiter's fate. */
static int end_in_place(weft_task *task, intptr_t result)
{
    weft_task *awaiter = task->under;
    struct weft__driver *driver;

    if (weft__observed())
        weft__observe_end(task, result);
    weft__set_current(atomic_load_explicit(&task->root, memory_order_relaxed), awaiter);

    driver = weft__driver();
    if (__builtin_expect(!driver, 0))
        weft__fork_returned();
    weft__count(&driver->counters.ran_in_place, 1);
    free_record(driver, task);
    return take_fate(awaiter);
}

static intptr_t run_in_place(weft_task *root, weft_task *task, int *fate)
{
    intptr_t result;

    task->under = root->current;
    weft__set_current(root, task);
    if (weft__observed())
        weft__observe_in_place(task, task->under);
    result = weft__task_call(task);
    *fate = end_in_place(task, result);
    return result;
}

/* What claiming a task to await it does: look around in time, let others run. */
static struct weft__driver *charge_in_place(struct weft__driver *driver)
{
    struct weft__worker *worker;

    if (__builtin_expect(weft__is_overdue(driver), 0)) {
        weft__set_overdue(driver, false);
        driver = weft__pass_on(driver);
    }
    worker = weft__enter(driver);
    if (worker)
        weft__charge(driver, worker, WEFT__CREDIT_IN_PLACE);
    weft__leave(driver);
    return driver;
}

int weft__child_run(weft_task *child)
{
    struct weft__driver *driver = charge_in_place(weft__driver());
    weft_task *root = driver->coroutine;
    weft_task *awaiter = root->current;
    enum weft__left left;
    intptr_t result;

    child->under = awaiter;
    weft__set_current(root, child);
    if (weft__observed())
        weft__observe_in_place(child, awaiter);
    result = weft__task_call(child);
    if (weft__observed())
        weft__observe_end(child, result);
    weft__set_current(root, awaiter);
    driver = weft__driver();
    if (__builtin_expect(!driver, 0))
        weft__fork_returned();
    left = weft__task_end(driver, NULL, child, result);
    weft__task_finish_outside(driver, child, left, result);
    return take_fate(awaiter);
}

static bool runs_in_place(weft_task *task)
{
    weft_task *root = atomic_load_explicit(&task->root, memory_order_relaxed);

    return root && root != task;
}

static WEFT__COLD void observe_await(const weft_task *self, const weft_task *task)
{
    if (!weft__state_is_thread(&self->state))
        weft__observe(WEFT_TRACE_AWAIT, self->current, (intptr_t)task);
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
    if (weft__observed())
        observe_await(self, task);
    if (!weft__state_await(&task->state))
        fate = weft__wait_for_end(self, task);
    *result = task->result;
    atomic_store_explicit(&task->waiter, NULL, memory_order_relaxed);
    free_anywhere(task);
    return fate;
}

static __attribute__((noinline)) int await_elsewhere(weft_task *task, intptr_t *result)
{
    weft_runtime *runtime = task->runtime;
    weft_task *self;
    int fate;

    if (weft__is_elsewhere(runtime))
        return -ENOTRECOVERABLE;
    self = weft__waiter_self();
    if (!self)
        return weft__in_stackless() ? weft__misused_stackless("weft_await") : -ENOMEM;
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
    if (weft__is_stackless(root->current))
        return weft__misused_stackless("weft_await");
    if (atomic_load_explicit(&task->waiter, memory_order_relaxed) || runs_in_place(task))
        return -EBUSY; /* another's to await, and to cancel */
    weft_cancel(task);
    fate = await_elsewhere(task, result);
    return fate == 0 ? reason : fate;
}

/* The result is stored, the awaiter's fate returned. */
static int await_task(weft_task *task, intptr_t *result)
{
    struct weft__driver *driver = task_driver();
    weft_task *root;
    int reason, fate;

    if (__builtin_expect(!driver, 0))
        return await_elsewhere(task, result);
    if (__builtin_expect(weft__is_overdue(driver), 0)) {
        weft__set_overdue(driver, false);
        if (driver->coroutine != &driver->stepper)
            driver = weft__pass_on(driver);
    }
    root = driver->coroutine;
    reason = reason_not_to_wait(driver, root);
    if (__builtin_expect(reason < 0, 0))
        return await_for(reason, root, task, result);
    /* One that has a waiter already is not for this one. */
    if ((atomic_load_explicit(&task->state, memory_order_relaxed) & WEFT__AWAITED) ||
        !claim(driver, root, task, WEFT__CREDIT_IN_PLACE))
        return await_elsewhere(task, result);
    *result = run_in_place(root, task, &fate);
    return fate;
}

/* Interrupted, and the task ended because of that: the awaiter's own reason is the answer. */
static inline intptr_t answer(int fate, intptr_t result)
{
    return fate != 0 && result == -ECANCELED ? fate : result;
}

static __attribute__((noinline)) intptr_t await_slowly(weft_task *task)
{
    intptr_t result = -ECANCELED;
    int fate = await_task(task, &result);

    return answer(fate, result);
}

/*
 * Nearly always the task has not started, nothing is unusual about it nor about who awaits it, and nobody wants to
 * know or to be let in: await_task without its questions. Only the task's function is called, so that hardly a
 * register has to be saved. False: it is otherwise, and nothing was done.
 */
static inline __attribute__((always_inline)) bool claim_straight(struct weft__driver *driver, weft_task *task)
{
    weft_task *root = driver->coroutine;
    weft_task *awaiter;
    struct weft__worker *worker;
    uintptr_t home;

    if (__builtin_expect(!root || weft__observed(), 0))
        return false;
    awaiter = root->current;
    if (__builtin_expect(weft__state_is_cancelled(&awaiter->state) || (awaiter->flags & WEFT__FLAG_SCOPES) ||
                             atomic_load_explicit(&task->state, memory_order_relaxed),
                         0))
        return false;
    if (__builtin_expect(!weft__try_enter(driver), 0))
        return false;
    worker = driver->worker;
    home = weft__home(task);
    if (__builtin_expect(!weft__is_queued_at(home, worker) ||
                             atomic_load_explicit(&task->root, memory_order_relaxed) || task->unusual ||
                             weft__stack_pointer() < root->in_place_limit ||
                             worker->credit <= WEFT__CREDIT_IN_PLACE,
                         0)) {
        weft__leave(driver);
        return false;
    }
    weft__queue_remove(&worker->queue, task, home);
    weft__home_begin_in_place(root);
    worker->credit -= WEFT__CREDIT_IN_PLACE;
    atomic_store_explicit(&task->root, root, memory_order_relaxed);
    weft__leave(driver);
    task->under = awaiter;
    weft__set_current(root, task);
    return true;
}

/* end_in_place, if nothing has become unusual. False: nothing was done. */
static inline __attribute__((always_inline)) bool end_straight(weft_task *task)
{
    struct weft__driver *driver = weft__driver();
    weft_task *awaiter = task->under;

    if (__builtin_expect(!driver || weft__observed() || task->unusual || (awaiter->flags & WEFT__FLAG_FORWARDED) ||
                             weft__record_is_full(&driver->records),
                         0))
        return false;
    weft__set_current(atomic_load_explicit(&task->root, memory_order_relaxed), awaiter);
    weft__count(&driver->counters.ran_in_place, 1);
    mark_free(task);
    weft__record_push(&driver->records, task);
    return true;
}

static __attribute__((noinline)) intptr_t end_slowly(weft_task *task, intptr_t result)
{
    return answer(end_in_place(task, result), result);
}

intptr_t(weft_await)(weft_task *task)
{
    struct weft__driver *driver = weft__driver();
    intptr_t result;

    if (__builtin_expect(!task, 0))
        return -EINVAL;
    if (__builtin_expect(!driver || !claim_straight(driver, task), 0))
        return await_slowly(task);
    result = task->fn(task->arg);
    return __builtin_expect(end_straight(task), 1) ? result : end_slowly(task, result);
}

int weft_await_into(weft_task *task, intptr_t *result)
{
    intptr_t ignored;

    if (!task)
        return -EINVAL;
    return await_task(task, result ? result : &ignored);
}

/* ---- awaiting in steps ---- */

static intptr_t begin_to_await(weft_task *self, weft_task *task)
{
    weft_task *nobody = NULL;

    if (task == self)
        return -EDEADLK;
    /* Of another runtime: that must not be gone when its end is seen. */
    if (task->runtime != self->runtime)
        weft__visit(task->runtime);
    if (runs_in_place(task) || !atomic_compare_exchange_strong_explicit(
                                   &task->waiter, &nobody, self, memory_order_relaxed, memory_order_relaxed)) {
        if (task->runtime != self->runtime)
            weft__end_visit(task->runtime);
        return -EBUSY;
    }
    self->pending = task;
    if (weft__observed())
        weft__observe(WEFT_TRACE_AWAIT, self, (intptr_t)task);
    weft__state_await(&task->state);
    return 0;
}

/* If the awaiter is interrupted, pass that on, once. */
static void watch_fate(weft_task *self, weft_task *task)
{
    int64_t deadline;
    int fate;

    if (self->flags & WEFT__FLAG_FORWARDED)
        return;
    fate = weft__interrupt_stackless(self, &deadline);
    /* Without memory for a timer the deadline cannot be kept: that counts as passed. */
    if (fate == 0 && weft__step_arm(self, deadline) == 0)
        return;
    self->flags |= WEFT__FLAG_FORWARDED | (fate == -ECANCELED ? 0 : WEFT__FLAG_TIMED_OUT);
    weft_cancel(task);
}

intptr_t weft_async_await(weft_task *task, intptr_t *result)
{
    weft_task *self = weft__stepping();
    weft_runtime *runtime;
    intptr_t rc;

    if (!self)
        return -EPERM;
    if (!task)
        return -EINVAL;
    if (!self->pending) {
        rc = begin_to_await(self, task);
        if (rc < 0)
            return rc;
        watch_fate(self, task); /* also if it has ended: as weft_await */
    } else if (self->pending != task) {
        return -EBUSY;
    } else if (!weft__state_is_done(&task->state)) {
        watch_fate(self, task);
    }
    if (!weft__state_is_done(&task->state))
        return WEFT_PENDING; /* its end makes this task ready */
    if (result)
        *result = task->result;
    atomic_store_explicit(&task->waiter, NULL, memory_order_relaxed);
    runtime = task->runtime;
    free_anywhere(task);
    if (runtime != self->runtime)
        weft__end_visit(runtime);
    weft__step_done(self);
    return take_fate(self);
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

/* Whom a task must be made ready through, that was just cancelled. */
static weft_task *whom_to_ready(weft_task *task)
{
    weft_task *root = atomic_load_explicit(&task->root, memory_order_relaxed);

    /* Parked without a root: it waits for its time to start. */
    if (!root && (atomic_load_explicit(&task->state, memory_order_relaxed) & WEFT__PARKED))
        return task;
    return root;
}

weft_task *weft__child_cancel(weft_task *child)
{
    if (!weft__state_cancel(&child->state))
        return NULL;
    if (weft__observed())
        weft__observe(WEFT_TRACE_CANCEL, child, 0);
    return whom_to_ready(child);
}

int weft_cancel(weft_task *task)
{
    weft_task *root;

    if (!task)
        return -EINVAL;
    if (!weft__state_cancel(&task->state))
        return 0;
    if (weft__observed())
        weft__observe(WEFT_TRACE_CANCEL, task, 0);
    if (weft__state_is_pool(&task->state)) {
        weft__pool_cancel(task);
        return 1;
    }
    root = whom_to_ready(task);
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
    struct weft__driver *driver = task_driver();

    return driver && weft__is_cancelled(driver);
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
    int rc;

    if (__builtin_expect(!driver, 0))
        return weft__misused("weft_yield");
    current = driver->coroutine->current;
    if (__builtin_expect((rc = weft__check_cancelled(driver)) < 0, 0))
        return rc;
    if (__builtin_expect(current->flags & WEFT__FLAG_SCOPES, 0)) {
        rc = weft__interrupt(driver->coroutine, &deadline);
        if (rc < 0)
            return rc;
    }
    weft__pass_on(driver);
    return 0;
}
