/*
 * Waiting: park and ready as the rest of the library sees them (park.h), for coroutines and for plain threads; and
 * sleeping, which is waiting for nothing. Runs on whatever thread calls it.
 *
 * A wait parks again and again until it is over, or cancellation or a deadline ends it: a wake-up may be for nothing,
 * since a waker may come late, and cancelling a task just makes it ready.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <weft/runtime.h>
#include <weft/time.h>

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/futex.h"
#include "runtime/runtime.h"
#include "runtime/task_end.h"

/* ---- plain threads ---- */

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

static __attribute__((noinline)) weft_task *thread_record(void)
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

    return driver && driver->coroutine != &driver->stepper ? driver->coroutine : NULL;
}

weft_task *weft__waiter_self(void)
{
    struct weft__driver *driver = weft__driver();

    if (__builtin_expect(!driver || !driver->coroutine, 0))
        return thread_record();
    return __builtin_expect(driver->coroutine != &driver->stepper, 1) ? driver->coroutine : NULL;
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

/* ---- waiting ---- */

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

int weft__set_timer(struct weft__timer *timer, int64_t deadline, weft_task *task)
{
    struct weft__driver *driver = weft__driver();
    struct weft__worker *worker = driver->worker;
    int rc = weft__timer_set(&worker->timers, timer, deadline, task);

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

static __attribute__((noinline)) int park_until_deadline(weft_task *self, is_over *over, const void *what,
                                                         int64_t own, int64_t deadline)
{
    struct weft__timer timer;
    int rc = weft__set_timer(&timer, deadline, self);

    if (rc < 0)
        return rc;
    rc = park_until(self, over, what, own);
    weft__timer_cancel(&timer);
    return rc;
}

static inline __attribute__((always_inline)) int wait_until(weft_task *self, is_over *over, const void *what,
                                                            int64_t own)
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

static __attribute__((noinline)) int wait_slowly(struct weft__wait *wait)
{
    return wait_until(wait->task, is_settled, wait, INT64_MAX);
}

/* Nearly always nothing else can end the wait of a coroutine's own task, and it was not woken for nothing. (Of a
 * thread's record `current` is NULL.) */
int weft__wait(struct weft__wait *wait)
{
    weft_task *self = wait->task;
    struct weft__driver *driver = weft__driver();

    if (__builtin_expect(self->current == self && !(self->flags & WEFT__FLAG_SCOPES), 1) &&
        __builtin_expect(!weft__is_cancelled_early(driver, self), 1)) {
        weft__park(driver);
        if (__builtin_expect(is_settled(wait), 1))
            return 0;
    }
    return wait_slowly(wait);
}

int weft__wait_deadline(struct weft__wait *wait, int64_t deadline)
{
    return wait_until(wait->task, is_settled, wait, deadline);
}

int weft__wait_over(weft_task *self, bool (*over)(const void *what), const void *what, int64_t deadline)
{
    return wait_until(self, over, what, deadline);
}

/* A thread is cancelled by nobody but a signal (interrupt.c), which makes it ready after that. */
static void wait_thread_for_end(weft_task *self, weft_task *task)
{
    while (!is_done(task)) {
        if (weft__state_is_cancelled(&self->state) && weft__state_uncancel(&self->state))
            weft_cancel(task);
        else
            park_thread(self, INT64_MAX);
    }
}

/* Wait for its end. If the awaiter is interrupted, pass that on, once, and go on waiting. */
int weft__wait_for_end(weft_task *self, weft_task *task)
{
    int fate;

    if (weft__state_is_thread(&self->state)) {
        wait_thread_for_end(self, task);
        return 0;
    }
    fate = wait_until(self, is_done, task, INT64_MAX);
    if (fate == 0)
        return 0;
    weft_cancel(task);
    while (!is_done(task))
        weft__park(weft__driver());
    return fate;
}

/* ---- readying ---- */

static __attribute__((noinline)) void queue_ready_slowly(weft_task *task)
{
    struct weft__driver *driver = weft__driver();
    struct weft__worker *worker = NULL;

    if (weft__observed())
        weft__observe_ready(task);
    if (driver && driver->runtime == task->runtime &&
        !(__builtin_expect(weft__is_pinned(task), 0) && weft__home_worker(task) != driver->worker))
        worker = weft__enter(driver);
    if (__builtin_expect(worker != NULL, 1)) {
        weft__make_next(worker, task);
        weft__leave(driver);
    } else {
        weft__queue_from_outside(task, weft__home_worker(task));
    }
}

static inline void queue_ready_task(weft_task *task)
{
    struct weft__driver *driver = weft__driver();

    if (__builtin_expect(driver && driver->runtime == task->runtime && !weft__is_pinned(task) && !weft__observed(),
                         1) &&
        __builtin_expect(weft__try_enter(driver), 1)) {
        weft__make_next(driver->worker, task);
        weft__leave(driver);
    } else {
        queue_ready_slowly(task);
    }
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
    if (action != WEFT__READY_QUEUE)
        return;
    if (weft__observed())
        weft__observe_ready(waiter);
    weft__queue_from_outside(waiter, weft__home_worker(waiter));
}

/* ---- sleeping ---- */

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
