/*
 * Tasks: spawn, await, cancel, detach, and waiting (park.h). Runs on whatever thread calls it; the run queue and
 * the switching are the worker's.
 */
#include "runtime/task.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/runtime.h>
#include <weft/time.h>

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/futex.h"
#include "runtime/runtime.h"
#include "runtime/task_end.h"

enum { CALLS_IN_A_ROW = 64 }; /* of some microseconds each, before the task passes on */

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
    bool stopping;

    if (driver && driver->runtime == runtime && !atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        return weft_go(fn, arg);
    weft__visit(runtime);
    stopping = !spawn_from_outside(runtime, fn, arg, WEFT__DETACHED) &&
               atomic_load_explicit(&runtime->stopping, memory_order_seq_cst);
    weft__end_visit(runtime);
    return stopping ? -ESHUTDOWN : 0;
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

/* ---- waiting ---- */

/*
 * Records of plain threads: kept with the thread, given back at its end, never freed, for the same reason as
 * those of tasks: a wake-up may come late.
 */
static struct {
    pthread_once_t once;
    pthread_key_t key;
    weft__lock lock;
    weft_task *free;
    bool broken;
} threads = {.once = PTHREAD_ONCE_INIT};

static void give_thread_record(void *record)
{
    weft_task *task = record;

    weft__lock_enter(&threads.lock);
    task->next = threads.free;
    threads.free = task;
    weft__lock_leave(&threads.lock);
}

static void make_thread_key(void)
{
    threads.broken = pthread_key_create(&threads.key, give_thread_record) != 0;
}

static weft_task *take_thread_record(void)
{
    weft_task *task;

    weft__lock_enter(&threads.lock);
    task = threads.free;
    if (task)
        threads.free = task->next;
    weft__lock_leave(&threads.lock);
    /* One that was used before keeps its state: a late wake-up may just be setting a bit there. */
    if (!task && (task = aligned_alloc(_Alignof(weft_task), sizeof *task))) {
        memset(task, 0, sizeof *task);
        atomic_store_explicit(&task->state, WEFT__THREAD, memory_order_relaxed);
    }
    return task;
}

static weft_task *thread_record(void)
{
    weft_task *task;

    pthread_once(&threads.once, make_thread_key);
    if (threads.broken)
        return NULL;
    task = pthread_getspecific(threads.key);
    if (task)
        return task;
    task = take_thread_record();
    if (!task)
        return NULL;
    if (pthread_setspecific(threads.key, task) != 0) {
        give_thread_record(task);
        return NULL;
    }
    return task;
}

weft_task *weft__coroutine_self(void)
{
    struct weft__driver *driver = weft__driver();

    return driver ? driver->coroutine : NULL;
}

weft_task *weft__waiter_self(void)
{
    weft_task *self = weft__coroutine_self();

    return self ? self : thread_record();
}

/* Block the thread until it is made ready, or the deadline passes. */
static void park_thread(weft_task *self, int64_t deadline)
{
    uint32_t word;

    if (!weft__state_park(&self->state))
        return;
    while ((word = atomic_load_explicit(&self->state, memory_order_acquire)) & WEFT__PARKED) {
        if (weft__futex_wait(&self->state, word, deadline) == -ETIMEDOUT) {
            atomic_fetch_and_explicit(&self->state, ~(uint32_t)WEFT__PARKED, memory_order_acquire);
            return;
        }
    }
}

typedef bool is_over(const void *what);

static bool is_settled(const void *wait)
{
    return weft__outcome_of(wait) != WEFT__WAITING;
}

static bool is_done(const void *task)
{
    return weft__state_is_done(&((const weft_task *)task)->state);
}

static inline __attribute__((always_inline)) int wait_thread(weft_task *self, is_over *over, const void *what,
                                                             int64_t deadline)
{
    while (!over(what)) {
        if (deadline != INT64_MAX && weft__clock_now() >= deadline)
            return 1;
        park_thread(self, deadline);
    }
    return 0;
}

/* Set the deadline with the worker that the caller is on. 0 or -ENOMEM. */
static int set_timer(struct weft__timer *timer, int64_t deadline, weft_task *self)
{
    struct weft__driver *driver = weft__driver();
    struct weft__worker *worker = driver->worker;
    int rc = weft__timer_set(&worker->timers, timer, deadline, self);

    /* Another thread drives it now, and may sleep until later than this. */
    if (rc == 1) {
        /* Full fence: pairs with the heavy one of the take-over. */
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load_explicit(&driver->lost, memory_order_relaxed))
            weft__notify(worker);
    }
    return rc < 0 ? rc : 0;
}

/* Park again and again until it is over, or something ends the wait. */
static inline __attribute__((always_inline)) int park_until(weft_task *self, is_over *over, const void *what,
                                                            int64_t own)
{
    int64_t deadline;
    int rc;

    for (;;) {
        weft__park(weft__driver());
        if (over(what))
            return 0;
        rc = weft__interrupt(self, &deadline);
        if (rc < 0)
            return rc;
        if (own != INT64_MAX && weft__clock_now() >= own)
            return 1;
    }
}

static __attribute__((noinline)) int park_until_deadline(weft_task *self, is_over *over, const void *what, int64_t own,
                                                         int64_t deadline)
{
    struct weft__timer timer;
    int rc = set_timer(&timer, deadline, self);

    if (rc < 0)
        return rc;
    rc = park_until(self, over, what, own);
    weft__timer_cancel(&timer);
    return rc;
}

static inline __attribute__((always_inline)) int wait_until(weft_task *self, is_over *over, const void *what, int64_t own)
{
    int64_t deadline;
    int rc;

    if (__builtin_expect(weft__state_is_thread(&self->state), 0))
        return wait_thread(self, over, what, own);
    rc = weft__interrupt(self, &deadline);
    if (rc < 0)
        return rc;
    if (own < deadline)
        deadline = own;
    if (deadline == INT64_MAX)
        return park_until(self, over, what, own);
    return park_until_deadline(self, over, what, own, deadline);
}

int weft__wait(struct weft__wait *wait)
{
    return wait_until(wait->task, is_settled, wait, INT64_MAX);
}

int weft__wait_deadline(struct weft__wait *wait, int64_t deadline)
{
    return wait_until(wait->task, is_settled, wait, deadline);
}

static void queue_ready_task(weft_task *task)
{
    struct weft__driver *driver = weft__driver();
    struct weft__worker *worker = NULL;

    if (driver && driver->runtime == task->runtime)
        worker = weft__enter(driver);
    if (__builtin_expect(worker != NULL, 1)) {
        weft__make_next(worker, task);
        weft__leave(driver);
    } else {
        weft__queue_from_outside(task, weft__home_worker(task));
    }
}

void weft__found_ready(void)
{
    struct weft__driver *driver = weft__driver();

    if (driver && driver->coroutine && ++driver->calls % CALLS_IN_A_ROW == 0)
        weft__pass_on(driver);
}

void weft__ready(weft_task *waiter)
{
    switch (weft__state_ready(&waiter->state)) {
    case WEFT__READY_QUEUE:
        queue_ready_task(waiter);
        break;
    case WEFT__READY_FUTEX:
        weft__futex_wake(&waiter->state, 1);
        break;
    case WEFT__READY_NOTHING:
        break;
    }
}

/* A thread, or a task of another runtime. */
void weft__ready_from_inside(weft_task *waiter)
{
    enum weft__ready_action action = weft__state_ready(&waiter->state);

    if (action == WEFT__READY_FUTEX)
        weft__futex_wake(&waiter->state, 1);
    else if (action == WEFT__READY_QUEUE)
        weft__queue_from_outside(waiter, weft__home_worker(waiter));
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
static inline __attribute__((always_inline)) bool claim(struct weft__driver *driver, weft_task *root, weft_task *task)
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

/* Wait for its end. If the awaiter is interrupted, pass that on, once, and go on waiting. */
static int wait_for_end(weft_task *self, weft_task *task)
{
    int fate = wait_until(self, is_done, task, INT64_MAX);

    if (fate == 0)
        return 0;
    weft_cancel(task);
    if (weft__state_is_thread(&self->state)) {
        wait_thread(self, is_done, task, INT64_MAX);
    } else {
        while (!is_done(task))
            weft__park(weft__driver());
    }
    return fate;
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
        fate = wait_for_end(self, task);
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

/* Has a deadline of the awaiter passed? Then a task that has not started never does. */
static bool is_too_late(weft_task *root)
{
    int64_t deadline;

    return weft__interrupt(root, &deadline) < 0;
}

/* The awaiter is cancelled or late already: so is what it awaits. */
static __attribute__((noinline)) int await_cancelled(weft_task *root, weft_task *task, intptr_t *result)
{
    if (root->current == task)
        return -EDEADLK;
    weft_cancel(task);
    return await_elsewhere(task, result);
}

/* The result is stored, the awaiter's fate returned. */
static inline __attribute__((always_inline)) int await_task(weft_task *task, intptr_t *result)
{
    struct weft__driver *driver = task_driver();
    weft_task *root;
    int fate;

    if (__builtin_expect(!driver, 0))
        return await_elsewhere(task, result);
    if (__builtin_expect(driver->overdue, 0)) {
        driver->overdue = false;
        driver = weft__pass_on(driver);
    }
    root = driver->coroutine;
    /* Its own cancellation only: what reaches it from those it runs in place for, the awaited task will find. */
    if (__builtin_expect(weft__is_cancelled_early(driver, root->current), 0) && root->current->mask == 0)
        return await_cancelled(root, task, result);
    if (__builtin_expect(root->current->flags & WEFT__FLAG_SCOPES, 0) && is_too_late(root))
        return await_cancelled(root, task, result);
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

int weft_sleep_until(int64_t when)
{
    struct weft__wait wait = {.task = weft__coroutine_self()};
    int rc;

    if (!wait.task)
        return weft__misused("weft_sleep");
    if (when <= weft__clock_now())
        return weft_yield();
    rc = weft__suspend_check();
    if (rc == 0)
        rc = weft__wait_deadline(&wait, when);
    return rc < 0 ? rc : 0;
}

int weft_sleep(int64_t ns)
{
    return ns <= 0 ? weft_yield() : weft_sleep_until(weft__clock_after(ns));
}

int64_t weft_now(void)
{
    return weft__clock_now();
}
