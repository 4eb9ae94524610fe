/*
 * The loop that ties the machine together: the only place that decides what runs next.
 *
 * A task that parks picks the next one itself and switches straight to it; what must be done for the one that was
 * left (mark it parked, give its stack back) is done by the side that was switched to, when the registers are
 * saved. A task that ends picks the next one too; if that one has not started, it runs on the same stack. When
 * nothing is runnable, the thread's own stack takes over: it looks for work elsewhere (spread.c), then sleeps in
 * epoll. Every so often a worker looks around (look.c).
 *
 * Functions marked "inside" need the worker entered (worker.h).
 */
#include "runtime/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/config.h"
#include "runtime/context.h"
#include "runtime/look.h"
#include "runtime/runtime.h"
#include "runtime/spread.h"
#include "runtime/stackless.h"
#include "runtime/task_end.h"

enum {
    /* How often in a row the task made ready last may overtake the queue: enough for a request and its reply
     * between two tasks, few enough that the queue waits microseconds. Tokio uses 3, Go a time slice. */
    NEXT_LIMIT = 16,
    CLOCK_EACH = 16,
    PAUSE_WEIGHT = 8,    /* a pause takes so many times its length from a busy time (end_pause) */
    SEIZE_SPINS = 400,   /* about 5 µs: the driver is inside for much less, or has lost its processor */
    CROWD_LEAST = 256,   /* with so many deadlines ahead, those close together are served by one wake-up: … */
    CROWD_NS_EACH = 100, /* … within so much for each of them, … */
};

enum {
    CROWD_NS = 100 * 1000,       /* … not less than this, … */
    CROWD_MOST_NS = 1000 * 1000, /* … and not more than this. */
    SLACK_NS = 1000, /* timer slack of the workers; the kernel's default of 50 µs delays every deadline */
};

/* ---- the calling thread ---- */

static __thread struct weft__driver *this_driver __attribute__((tls_model("initial-exec")));
struct weft__process weft__process;

__attribute__((constructor)) static void describe_process(void)
{
    char *thread_pointer;

#if defined(__x86_64__)
    __asm__ volatile("movq %%fs:0, %0" : "=r"(thread_pointer));
#else
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(thread_pointer));
#endif
    weft__process.driver_offset = (char *)&this_driver - thread_pointer;
#ifdef WEFT__VALGRIND
    weft__process.on_valgrind = RUNNING_ON_VALGRIND;
#endif
}

void weft__driver_forget(void)
{
    this_driver = NULL;
}

/* ---- being inside ---- */

struct weft__worker *weft__enter_slowly(struct weft__driver *driver)
{
    uint32_t summons;

    for (unsigned spins = 0;; spins++) {
        weft__leave(driver);
        /* acquire: pairs with the release in weft__release and in the monitor's take-over */
        while (atomic_load_explicit(&driver->summons, memory_order_acquire) & WEFT__SEIZED) {
            if (atomic_load_explicit(&driver->lost, memory_order_acquire))
                return NULL;
            if (++spins < 64)
                weft__pause();
            else
                sched_yield();
        }
        atomic_store_explicit(&driver->inside, 1, memory_order_relaxed);
        /* Full: without membarrier (WEFT__FENCED) the thief's is no more than that either. */
        atomic_thread_fence(memory_order_seq_cst);
        summons = atomic_load_explicit(&driver->summons, memory_order_acquire);
        if (!(summons & WEFT__SEIZED))
            break;
    }
    if (summons & WEFT__NUDGED) {
        atomic_fetch_and_explicit(&driver->summons, ~(uint32_t)WEFT__NUDGED, memory_order_acquire);
        driver->worker->credit = 0;
    }
    /* It was another task's turn. */
    if ((summons & WEFT__OVERDUE) &&
        atomic_load_explicit(&driver->worker->dispatches, memory_order_relaxed) != driver->worker->turn)
        weft__set_overdue(driver, false);
    return driver->worker;
}

void weft__nudge(struct weft__worker *worker)
{
    atomic_fetch_or_explicit(&weft__driver_of(worker)->summons, WEFT__NUDGED, memory_order_relaxed);
}

bool weft__seize(struct weft__worker *worker)
{
    struct weft__driver *driver;

    if (!weft__lock_try(&worker->seize_lock))
        return false;
    driver = weft__driver_of(worker);
    atomic_fetch_or_explicit(&driver->summons, WEFT__SEIZED, memory_order_relaxed);
    weft__fence_heavy();
    for (unsigned spins = 0; spins < SEIZE_SPINS; spins++) {
        /* acquire: what the driver did inside; pairs with the release in weft__leave */
        if (!atomic_load_explicit(&driver->inside, memory_order_acquire))
            return true;
        weft__pause();
    }
    weft__release(worker);
    return false;
}

void weft__release(struct weft__worker *worker)
{
    /* release: what was done inside; pairs with the acquire in weft__enter */
    atomic_fetch_and_explicit(&weft__driver_of(worker)->summons, ~(uint32_t)WEFT__SEIZED, memory_order_release);
    weft__lock_leave(&worker->seize_lock);
}

/* ---- work from outside ---- */

void weft__notify(struct weft__worker *worker)
{
    uint32_t sleeping = WEFT__SLEEPING;

    /* Full fence after the caller's publication; pairs with the one in fall_asleep. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&worker->state, memory_order_relaxed) == WEFT__SLEEPING &&
        atomic_compare_exchange_strong_explicit(&worker->state, &sleeping, WEFT__WOKEN, memory_order_seq_cst,
                                                memory_order_relaxed))
        weft__poller_wake(&worker->poller);
}

void weft__hand_over(weft_task *task, struct weft__worker *worker)
{
    weft_runtime *runtime = worker->runtime;
    bool first = weft__inbox_push(&worker->inbox, task);

    /* seq_cst, as the push is: the full fence in fall_asleep comes between the store of SLEEPING and the look into the
     * inbox, so either this sees SLEEPING or the worker sees the task. */
    if (atomic_load_explicit(&worker->state, memory_order_seq_cst) == WEFT__SLEEPING)
        weft__notify(worker);
    /* It is busy with one task: let somebody else look into its inbox. (Into one that is not empty others have pushed:
     * for each push a look at the clock would be too much, some records' addresses are chosen.) */
    if ((first || (uintptr_t)task / sizeof *task % CLOCK_EACH == 0) && weft__idle_any(&runtime->idle) &&
        weft__is_stale(worker, weft__clock_now()))
        weft__wake_searcher(runtime);
}

void weft__queue_from_outside(weft_task *task, struct weft__worker *worker)
{
    /* Until it is pushed the task keeps the runtime alive; after that, being outside does. */
    struct weft__outside *outside = weft__outside_enter(worker->runtime);

    weft__hand_over(task, worker);
    weft__outside_leave(outside);
}

struct weft__worker *weft__pick_worker(weft_runtime *runtime)
{
    static _Thread_local char here; /* its address tells threads apart */
    uint32_t index = (uint32_t)(((uintptr_t)&here >> 12) * 0x9E3779B1u >> 16) % runtime->worker_count;

    /* One that runs needs no wake-up; if all sleep, the first: light load stays on few workers. */
    for (uint32_t i = 0; i < runtime->worker_count; i++) {
        struct weft__worker *worker = &runtime->workers[(index + i) % runtime->worker_count];

        if (atomic_load_explicit(&worker->state, memory_order_relaxed) != WEFT__SLEEPING)
            return worker;
    }
    return &runtime->workers[0];
}

/* ---- the run queue, inside ---- */

static weft_task *pop(struct weft__worker *worker)
{
    weft_task *task = worker->next;

    if (task) {
        worker->next = NULL;
        if (worker->next_streak++ < NEXT_LIMIT)
            return task;
        if (weft__queue_is_empty(&worker->queue)) {
            worker->next_streak = 0;
            return task;
        }
        weft__queue_push(&worker->queue, task, worker);
    }
    worker->next_streak = 0;
    task = weft__queue_pop(&worker->queue, worker);
    if (__builtin_expect(!task, 0) && !weft__inbox_is_empty(&worker->inbox)) {
        weft__drain_inbox(worker, worker);
        task = weft__queue_pop(&worker->queue, worker);
    }
    return task;
}

static bool has_started(const weft_task *task)
{
    return atomic_load_explicit(&task->root, memory_order_relaxed) != NULL;
}

/* End a task that never ran. Who called may have queued itself already, so the worker must not be left here: what is
 * left to be done waits. Inside. */
static __attribute__((noinline)) void end_unstarted(struct weft__driver *driver, struct weft__worker *worker,
                                                    weft_task *task, intptr_t result)
{
    enum weft__left left = WEFT__LEFT_END;

    if (weft__observed())
        task->result = result;
    else
        left = weft__task_end(driver, worker, task, result);
    if (left == WEFT__LEFT_NOTHING)
        return;
    task->mask = (uint16_t)left;
    task->next = driver->unfinished;
    driver->unfinished = task;
}

/* Its locals are destroyed before it is DONE. Outside. */
static enum weft__left end_outside(weft_task *task)
{
    intptr_t result = task->result;

    task->mask = 0;
    weft__observe_end_unstarted(task, result);
    return weft__task_end(weft__driver(), NULL, task, result);
}

/* Outside. */
static __attribute__((noinline)) void finish_outside(struct weft__driver *driver)
{
    while (driver->unfinished) {
        weft_task *task = driver->unfinished;
        enum weft__left left = (enum weft__left)task->mask;
        intptr_t result = task->result;

        driver->unfinished = task->next;
        if (left == WEFT__LEFT_END)
            left = end_outside(task);
        if (left != WEFT__LEFT_NOTHING)
            weft__task_finish_outside(driver, task, left, result);
    }
}

/*
 * A task whose start is delayed was made ready too early: a late wake-up that was meant for an earlier task of this
 * record. Park it again. True: done. A cancellation that came meanwhile must not be missed: the fence pairs with the one
 * in weft__state_cancel, after which the canceller looks for PARKED.
 */
static __attribute__((noinline)) bool park_early(struct weft__driver *driver, weft_task *task)
{
    if ((weft__is_stackless(task) ? task->flags & WEFT__FLAG_BEGUN : has_started(task)) ||
        weft__is_cancelled_early(driver, task) || weft__clock_now() >= task->extra->start_at)
        return false;
    if (!weft__state_park(&task->state))
        return park_early(driver, task);
    atomic_thread_fence(memory_order_seq_cst);
    return !weft__is_cancelled_early(driver, task) || weft__state_ready(&task->state) != WEFT__READY_QUEUE;
}

/* The next task to run, started or not; NULL also if driver->step is one. Inside. */
static weft_task *pick(struct weft__driver *driver, struct weft__worker *worker)
{
    weft_task *task;

    weft__charge(driver, worker, WEFT__CREDIT_DISPATCH);
    while ((task = pop(worker))) {
        if (__builtin_expect(task->flags & WEFT__FLAG_TIMER, 0) && park_early(driver, task))
            continue;
        if (__builtin_expect(weft__is_stackless(task), 0)) {
            driver->step = task;
            return NULL;
        }
        if (__builtin_expect(has_started(task) || !weft__is_cancelled_early(driver, task), 1))
            return task;
        end_unstarted(driver, worker, task, -ECANCELED);
    }
    return NULL;
}

/* `next`, if it has a stack and nothing else is to be done first. NULL: see pick; nothing was done. Inside. */
static inline weft_task *pick_next(struct weft__worker *worker)
{
    weft_task *task = worker->next;

    if (__builtin_expect(!task || worker->credit <= WEFT__CREDIT_DISPATCH || worker->next_streak >= NEXT_LIMIT ||
                             (task->flags & WEFT__FLAG_TIMER) || weft__is_stackless(task) || !has_started(task),
                         0))
        return NULL;
    worker->credit -= WEFT__CREDIT_DISPATCH;
    worker->next = NULL;
    worker->next_streak++;
    return task;
}

/* ---- switching ---- */

static void coroutine_main(void *driver);

/* It is the innermost task of its own coroutine, on its own stack. */
static inline void begin_on(const struct weft__driver *driver, weft_task *task, struct weft__stack *stack)
{
    task->stack = stack;
    task->in_place_limit = stack->low + driver->runtime->config.stack_size;
    weft__set_current(task, task);
}

/* Give a task its stack. False: out of memory. Inside. */
static bool start(struct weft__driver *driver, weft_task *task)
{
    weft_runtime *runtime = driver->runtime;
    struct weft__stack *stack =
        weft__stack_get(runtime->stacks, &driver->stacks, weft__task_stack_size(task, runtime));

    if (!stack)
        return false;
    weft__annotate_stack_begin(stack);
    begin_on(driver, task, stack);
    /* The context takes the place of these in the record; coroutine_main puts them back. */
    driver->start_fn = task->fn;
    driver->start_arg = task->arg;
    weft__context_make(&task->context, stack->start, coroutine_main);
    atomic_store_explicit(&task->root, task, memory_order_relaxed);
    return true;
}

/* To the thread's own stack. */
static void rest(struct weft__driver *driver)
{
    atomic_store_explicit(&driver->running, NULL, memory_order_relaxed);
    driver->coroutine = NULL;
}

static void adopt(struct weft__driver *driver, struct weft__worker *worker, weft_task *task)
{
    atomic_store_explicit(&worker->dispatches, atomic_load_explicit(&worker->dispatches, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    atomic_store_explicit(&driver->running, task, memory_order_relaxed);
    driver->coroutine = task;
}

/* End a task, report its failure if nobody else can see it. Returns the worker, entered, or NULL: taken meanwhile. */
static struct weft__worker *end_task(struct weft__driver *driver, struct weft__worker *worker, weft_task *task,
                                     intptr_t result)
{
    enum weft__left left = weft__task_end(driver, worker, task, result);

    if (left == WEFT__LEFT_NOTHING)
        return worker;
    if (__builtin_expect(left == WEFT__LEFT_RECORD && !weft__task_has_failed(task, result), 1)) {
        weft__task_free(driver, task);
        return worker;
    }
    weft__leave(driver); /* the program's handler, or a watcher, may call into the runtime */
    weft__task_finish_outside(driver, task, left, result);
    return weft__enter(driver);
}

static inline void leave_and_finish(struct weft__driver *driver)
{
    weft__leave(driver);
    if (__builtin_expect(driver->unfinished != NULL, 0))
        finish_outside(driver);
}

/* The next task that has a stack to switch to. Inside. */
static weft_task *pick_startable(struct weft__driver *driver, struct weft__worker *worker)
{
    weft_task *task;

    while ((task = pick(driver, worker))) {
        if (has_started(task) || start(driver, task))
            return task;
        end_unstarted(driver, worker, task, -ENOMEM);
    }
    return NULL;
}

static void release_stack(struct weft__driver *driver, struct weft__stack *stack)
{
    weft__annotate_stack_end(stack);
    weft__stack_put(driver->runtime->stacks, &driver->stacks, stack);
}

static void queue_anywhere(struct weft__driver *driver, weft_task *task)
{
    if (atomic_load_explicit(&driver->lost, memory_order_relaxed))
        weft__queue_from_outside(task, driver->worker);
    else
        weft__queue_pass_on(&driver->worker->queue, task, driver->worker);
}

static __attribute__((noinline)) void after_rare(struct weft__driver *driver, enum weft__after after)
{
    if (after == WEFT__AFTER_RELEASE) {
        release_stack(driver, driver->after_stack);
        return;
    }
    if (weft__observed())
        weft__observe_ready(driver->after_task);
    queue_anywhere(driver, driver->after_task);
}

/* What the left context could not do for itself. Inside, or on the own stack of a driver that lost its worker. */
static inline void after_switch(struct weft__driver *driver)
{
    enum weft__after after = driver->after;

    driver->after = WEFT__AFTER_NOTHING;
    if (after == WEFT__AFTER_NOTHING)
        return;
    if (after == WEFT__AFTER_PARK && weft__state_park(&driver->after_task->state))
        return;
    after_rare(driver, after);
}

/* From the coroutine `from` to `to`, or to the thread's own stack. Inside; outside when it returns. */
static inline struct weft__driver *switch_from(struct weft__driver *driver, weft_task *from, weft_task *to)
{
    void *fake = NULL;

    if (to)
        adopt(driver, driver->worker, to);
    else
        rest(driver);
    weft__annotate_leave(&fake, to ? to->stack : NULL, &driver->annotated);
    driver = weft__context_switch(&from->context, to ? &to->context : &driver->base, driver);
    weft__annotate_enter(fake);
    after_switch(driver);
    leave_and_finish(driver);
    if (weft__observed())
        weft__observe_resume(driver);
    return driver;
}

/* The functions that switch are not inlined: code compiled for a richer processor may keep values in registers that
 * the switch does not know. */
__attribute__((noinline)) struct weft__driver *weft__park(struct weft__driver *driver)
{
    weft_task *self = driver->coroutine;
    struct weft__worker *worker;
    weft_task *next;

    if (weft__state_take_notification(&self->state))
        return driver;
    if (weft__observed())
        weft__observe_park(driver);
    worker = weft__enter(driver);
    driver->after = WEFT__AFTER_PARK;
    driver->after_task = self;
    next = worker ? pick_next(worker) : NULL;
    if (!next && worker)
        next = pick_startable(driver, worker);
    return switch_from(driver, self, next);
}

__attribute__((noinline)) struct weft__driver *weft__pass_on(struct weft__driver *driver)
{
    weft_task *self = driver->coroutine;
    struct weft__worker *worker = weft__enter(driver);
    weft_task *next;

    if (!worker) {
        if (weft__observed())
            weft__observe_pass_on(driver);
        driver->after = WEFT__AFTER_QUEUE;
        driver->after_task = self;
        return switch_from(driver, self, NULL);
    }
    if (weft__queue_is_empty(&worker->queue) && !worker->next && weft__inbox_is_empty(&worker->inbox)) {
        weft__charge(driver, worker, WEFT__CREDIT_DISPATCH);
        if (weft__queue_is_empty(&worker->queue)) {
            weft__leave(driver);
            if (weft__observed())
                weft__observe_pass_on(driver);
            return driver;
        }
    }
    if (weft__observed())
        weft__observe_yield(driver);
    /* Before the registers are saved: nobody else can take it while this thread is inside. */
    weft__queue_pass_on(&worker->queue, self, worker);
    next = pick_startable(driver, worker);
    if (next == self) {
        weft__leave(driver);
        return driver;
    }
    return switch_from(driver, self, next);
}

void weft__run_eagerly(struct weft__driver *driver, weft_task *task)
{
    weft_task *self = driver->coroutine;
    struct weft__worker *worker;

    if (weft__observed())
        weft__observe_pass_on(driver);
    worker = self == &driver->stepper ? NULL : weft__enter(driver);
    weft__count(&driver->counters.spawned, 1);
    weft__set_home(task, (uintptr_t)driver->worker);
    if (!worker || !start(driver, task)) {
        if (worker)
            weft__leave(driver);
        weft__queue_from_outside(task, driver->worker);
        return;
    }
    if (weft__observed())
        weft__observe_ready(self);
    /* Before the registers are saved: nobody else can take it while this thread is inside. */
    weft__make_next(worker, self);
    switch_from(driver, self, task);
}

/* ---- a coroutine's life ---- */

static bool fits(const weft_task *task, const struct weft__stack *stack, const weft_runtime *runtime)
{
    return (size_t)((char *)stack->start - stack->low) >= weft__task_stack_size(task, runtime);
}

/* Its task has ended: the next one, on this stack if it has not started. NULL: switched away, for good. */
static __attribute__((noinline)) weft_task *next_on_this_stack(struct weft__driver *driver,
                                                               struct weft__worker *worker,
                                                               struct weft__stack *stack)
{
    weft_task *next = worker ? pick(driver, worker) : NULL;

    if (next && !has_started(next)) {
        if (fits(next, stack, driver->runtime)) {
            begin_on(driver, next, stack);
            atomic_store_explicit(&next->root, next, memory_order_relaxed);
            adopt(driver, worker, next);
            return next;
        }
        if (!start(driver, next)) {
            end_unstarted(driver, worker, next, -ENOMEM);
            next = pick_startable(driver, worker);
        }
    }
    driver->after = WEFT__AFTER_RELEASE;
    driver->after_stack = stack;
    if (next)
        adopt(driver, worker, next);
    else
        rest(driver);
    weft__annotate_leave(NULL, next ? next->stack : NULL, &driver->annotated);
    weft__context_switch(&driver->never, next ? &next->context : &driver->base, driver);
    __builtin_unreachable();
}

static void coroutine_main(void *arg)
{
    struct weft__driver *driver = arg;
    weft_task *task = driver->coroutine;

    __atomic_store_n(&task->fn, driver->start_fn, __ATOMIC_RELAXED); /* for inspect.c */
    task->arg = driver->start_arg;
    weft__annotate_enter(NULL);
    after_switch(driver);
    leave_and_finish(driver);
    while (task) {
        struct weft__stack *stack = task->stack;
        struct weft__worker *worker;
        intptr_t result;

        /* Full fence: `root` is stored, CANCEL is looked at from now on; pairs with weft__state_cancel. */
        atomic_thread_fence(memory_order_seq_cst);
        if (weft__observed())
            weft__observe_start(task);
        result = weft__task_call(task);
        if (weft__observed())
            weft__observe_end(task, result);
        driver = weft__driver();
        if (__builtin_expect(!driver, 0))
            weft__fork_returned();
        worker = end_task(driver, weft__enter(driver), task, result);
        task = next_on_this_stack(driver, worker, stack);
        leave_and_finish(driver);
    }
}

/* ---- the thread's own stack: search, sleep ---- */

static bool must_stay_awake(const struct weft__worker *worker)
{
    return !weft__inbox_is_empty(&worker->inbox) ||
           atomic_load_explicit(&worker->runtime->halting, memory_order_relaxed) || weft__anyone_wants_help(worker);
}

/* A wake-up for each of thousands of deadlines would cost more than what they wake. */
static int64_t sleep_until(const struct weft__worker *worker)
{
    int64_t earliest = weft__timers_earliest(&worker->timers);
    int64_t window = (int64_t)atomic_load_explicit(&worker->timers.hint, memory_order_relaxed) * CROWD_NS_EACH;

    if (window < CROWD_LEAST * CROWD_NS_EACH)
        return earliest;
    if (window < CROWD_NS)
        window = CROWD_NS;
    if (window > CROWD_MOST_NS)
        window = CROWD_MOST_NS;
    return earliest < worker->expired_at + window ? worker->expired_at + window : earliest;
}

/* Sleep until an event, a deadline or a wake-up. idle.h has the protocol. Inside. The time at which it began. */
static int64_t fall_asleep(struct weft__driver *driver, struct weft__worker *worker)
{
    weft_runtime *runtime = worker->runtime;
    bool claimed;
    int64_t until, began;
    int events;

    weft__stop_searching(driver);
    atomic_store_explicit(&worker->wants_help, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->state, WEFT__SLEEPING, memory_order_relaxed);
    weft__idle_add(&runtime->idle, worker->index);
    /* Full fence: pairs with those in weft__wake_searcher and weft__notify. */
    atomic_thread_fence(memory_order_seq_cst);
    until = must_stay_awake(worker) ? 0 : sleep_until(worker);
    if (until)
        weft__count(&driver->counters.sleeps, 1);

    began = weft__clock_now();
    events = weft__poller_wait(&worker->poller, true, began, until, &driver->events, weft__queue_ready, worker);

    atomic_store_explicit(&worker->state, WEFT__AWAKE, memory_order_relaxed);
    claimed = !weft__idle_remove(&runtime->idle, worker->index);
    if (claimed) {
        driver->searching = true;
        weft__count(&driver->counters.wakes, 1);
    }
    weft__count(&driver->counters.polls, 1);
    weft__count(&driver->counters.events, events > 0 ? (uint64_t)events : 0);
    return began;
}

/* What has come meanwhile. Inside. */
static void begin_to_run(struct weft__driver *driver, struct weft__worker *worker, int64_t now)
{
    atomic_store_explicit(&worker->polled_at, now, memory_order_relaxed);
    if (weft__timers_earliest(&worker->timers) <= now) {
        worker->expired_at = now;
        weft__expire(driver, worker, &worker->timers, now);
    }
    weft__monitor_wanted(worker->runtime);
}

/* For a thread that has not run it before. Inside. */
static void start_worker(struct weft__driver *driver, struct weft__worker *worker)
{
    int64_t now = weft__clock_now();

    atomic_store_explicit(&worker->state, WEFT__AWAKE, memory_order_relaxed);
    worker->awake_since = worker->busy_since = now;
    atomic_store_explicit(&worker->maintained_at, now, memory_order_relaxed);
    weft__give_credit(worker, worker->credit_given > 0 ? worker->credit_given : WEFT__CREDIT_DISPATCH);
    begin_to_run(driver, worker, now);
}

/*
 * The time since the last look around is that in which it ran. Nor does a pause end a busy time: a worker that finds
 * events whenever it has done all its work never has one that counts. But it takes several times its own length
 * from it, so that who pauses for a ninth of the time is never busy for long. Inside.
 */
static void end_pause(struct weft__driver *driver, struct weft__worker *worker, int64_t began)
{
    int64_t now = weft__clock_now();
    int64_t pause = now - began;
    int64_t maintained_at = atomic_load_explicit(&worker->maintained_at, memory_order_relaxed) + pause;
    int64_t busy_since = worker->busy_since + pause * PAUSE_WEIGHT;

    worker->awake_since = now;
    worker->busy_since = busy_since < now ? busy_since : now;
    if (busy_since >= now && atomic_load_explicit(&worker->overloaded, memory_order_relaxed))
        atomic_store_explicit(&worker->overloaded, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->maintained_at, maintained_at, memory_order_relaxed);
    begin_to_run(driver, worker, now);
    /* Not only when the credit is used up: few tasks that run longer than those before would not do that soon. */
    if (now - maintained_at >= WEFT__LOOK_NS)
        weft__maintain(driver, worker);
}

static __attribute__((noinline)) void run_coroutine(struct weft__driver *driver, struct weft__worker *worker,
                                                    weft_task *task)
{
    void *fake = NULL;

    weft__pass_search_on(driver, worker);
    adopt(driver, worker, task);
    weft__annotate_leave(&fake, task->stack, &driver->annotated);
    weft__context_switch(&driver->base, &task->context, driver);
    weft__annotate_enter(fake);
    after_switch(driver);
}

/* ---- stackless tasks ---- */

static inline bool is_first_step(weft_task *task)
{
    if (task->flags & WEFT__FLAG_BEGUN)
        return false;
    task->flags |= WEFT__FLAG_BEGUN;
    return true;
}

static WEFT__COLD void observe_step_end(struct weft__driver *driver, weft_task *task, intptr_t result)
{
    if (result == WEFT_PENDING)
        weft__observe_park(driver);
    else
        weft__observe_end(task, result);
}

static WEFT__COLD void observe_step(struct weft__driver *driver, weft_task *task, bool is_first)
{
    if (is_first)
        weft__observe_start(task);
    else
        weft__observe_resume(driver);
}

/* Cancelled before its first step. */
static __attribute__((noinline)) intptr_t skip_step(weft_task *task)
{
    if (weft__observed())
        weft__observe_end_unstarted(task, -ECANCELED);
    return -ECANCELED;
}

/* Call its function, outside: from the beginning, or where it left off. */
static intptr_t call_step(struct weft__driver *driver, weft_task *task)
{
    bool is_first = is_first_step(task);
    intptr_t result;

    if (is_first && weft__is_cancelled_early(driver, task))
        return skip_step(task);
    if (weft__observed())
        observe_step(driver, task, is_first);
    result = task->fn(task->arg);
    if (__builtin_expect(!weft__driver(), 0))
        weft__fork_returned();
    if (__builtin_expect(result != WEFT_PENDING && task->pending != NULL, 0))
        weft__stackless_broken(task);
    if (weft__observed())
        observe_step_end(driver, task, result);
    return result;
}

/*
 * Run driver->step until it is pending or has ended. Where the task waits, its waker may have it running on another
 * thread as soon as it is marked parked: that comes last. Inside; returns the worker, entered, or NULL.
 */
static struct weft__worker *step(struct weft__driver *driver, struct weft__worker *worker)
{
    weft_task *task = driver->step;
    intptr_t result;

    driver->step = NULL;
    weft__queue_prefetch_arg(&worker->queue);
    weft__pass_search_on(driver, worker);
    driver->stepper.current = task;
    weft__set_home(&driver->stepper, weft__home(task)); /* as new as that */
    adopt(driver, worker, &driver->stepper);
    atomic_store_explicit(&driver->running, task, memory_order_relaxed);
    leave_and_finish(driver);
    result = call_step(driver, task);
    worker = weft__enter(driver);
    if (result != WEFT_PENDING) {
        worker = end_task(driver, worker, task, result);
        rest(driver);
        return worker;
    }
    rest(driver);
    if (!weft__state_park(&task->state)) {
        if (weft__observed())
            weft__observe_ready(task);
        queue_anywhere(driver, task);
    }
    return worker;
}

/* Drive the worker until it is taken away or the runtime halts. */
static void drive(struct weft__driver *driver)
{
    struct weft__worker *worker = weft__enter(driver);

    if (worker)
        start_worker(driver, worker);
    while (worker) {
        /* A coroutine that switched here may have picked what is next. */
        weft_task *task = driver->step ? NULL : pick_startable(driver, worker);

        if (task) {
            run_coroutine(driver, worker, task);
            /* It may have come back to a thread whose worker was taken. */
            worker = weft__enter(driver);
        } else if (driver->step) {
            worker = step(driver, worker);
        } else if (driver->unfinished) {
            leave_and_finish(driver);
            worker = weft__enter(driver);
        } else if (!weft__search(driver, worker)) {
            if (atomic_load_explicit(&worker->runtime->halting, memory_order_acquire))
                break;
            end_pause(driver, worker, fall_asleep(driver, worker));
        }
    }
    weft__stop_searching(driver);
    leave_and_finish(driver); /* the worker may have been taken just after a pick */
    if (driver->step) {       /* the worker was taken at that moment */
        weft__queue_from_outside(driver->step, driver->worker);
        driver->step = NULL;
    }
}

/* ---- the thread ---- */

static void set_up_thread(struct weft__driver *driver)
{
    sigset_t signals;

    this_driver = driver;
    atomic_store_explicit(&driver->tid, (int)syscall(SYS_gettid), memory_order_relaxed);
    pthread_setname_np(pthread_self(), "weft-worker");
    prctl(PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0);
    /* Signals are the program's: its own threads take them. What the code itself raises must come here. */
    sigfillset(&signals);
    sigdelset(&signals, SIGSEGV);
    sigdelset(&signals, SIGBUS);
    sigdelset(&signals, SIGFPE);
    sigdelset(&signals, SIGILL);
    sigdelset(&signals, SIGTRAP);
    sigdelset(&signals, SIGABRT);
    sigdelset(&signals, SIGSYS);
    sigdelset(&signals, SIGPROF);
    pthread_sigmask(SIG_SETMASK, &signals, NULL);
    weft__annotate_thread_begin(&driver->annotated);
    weft__overflow_thread_begin();
}

void *weft__driver_main(void *arg)
{
    struct weft__driver *driver = arg;

    set_up_thread(driver);
    while (weft__runtime_wait_for_worker(driver)) {
        weft__config_bind_thread(driver->runtime->config.affinity, driver->worker->index);
        drive(driver);
    }
    weft__stack_cache_flush(driver->runtime->stacks, &driver->stacks);
    weft__records_flush(driver->runtime->depot, &driver->records);
    weft__overflow_thread_end();
    return NULL;
}

int weft__overflow_lookup(const void *address, struct weft__overflow_site *site)
{
    struct weft__driver *driver = weft__driver();
    weft_task *root = driver ? driver->coroutine : NULL;
    const char *low;

    if (!root || !root->stack)
        return 0;
    low = root->stack->low;
    /* The guard is one page; a frame larger than that may miss it by some. */
    if ((const char *)address >= low || (const char *)address < low - WEFT__GUARD_REACH)
        return 0;
    site->task = root->current;
    site->task_name = weft__task_name(root->current);
    site->stack_size = weft__task_stack_size(root, driver->runtime);
    return 1;
}
