/*
 * The blocking pool of a runtime: its threads, the queue of calls that wait for one, and the three public calls
 * that submit.
 *
 * Submitters are workers (from inside a task); the calls run on pool threads; the monitor ticks; any thread may
 * cancel. All of them meet under one spinlock, under which no system call is made: what has to be done with one
 * (waking, creating) is planned under the lock and carried out after it.
 *
 * Who counts how. A thread is in exactly one of three conditions, changed only under the lock:
 *
 *     idle      in the idle list, asleep or about to sleep on its word; takes nothing until it is popped
 *     coming    will look at the queue under the lock before it does anything else: started but not arrived,
 *               popped from the idle list, or handing over a result before it sleeps
 *     running   has a call
 *
 *     threads = idle + coming + running
 *
 * No call is forgotten: a call is queued and the need for a thread judged in one section, and a thread becomes
 * idle only in a section that found the queue empty. So, whenever calls wait, some thread is coming or running,
 * or the section that queued them popped or counted in one. A thread whose timed wait ends is still idle (it
 * then takes itself out, and stays if calls wait) or has been popped (then it is coming, and looks).
 * No wake is wasted on a call that has one: a thread is popped or created only while more calls wait than
 * threads are coming. What remains is a call taken by a running thread that got there before the coming one.
 *
 * How many threads calls are worth. A cross-thread wake costs 30-60 µs, a call may be over in a tenth of one.
 * While the average call has been long (or nothing is known) every call that waits gets a thread of its own, at
 * once. While it has been short, the threads that are awake are left to work the queue off, and another one is
 * added only for a backlog that is worth a wake. If the guess was wrong, because those that are awake are stuck
 * in a long call, the monitor's next tick sees that nothing has been taken, and returns to "nothing is known".
 *
 * Creating a thread takes its creator some 10-20 µs, so a worker creates one at most and only if none is on its
 * way; each thread that takes a call adds up to two more if they are needed: the pool grows as a tree.
 *
 * The end of a call. What waits for it may vanish with the frame it lies in as soon as it has been settled;
 * so the thread lets go of the call first and settles last. A thread that ends joins the one that ended
 * before it, so at most one is unjoined at any time, and joining the last joins all.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_setaffinity, pthread_setname_np */
#endif

#include "runtime/blocking.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <weft/blocking.h>
#include <weft/scope.h>
#include <weft/time.h>

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/fork.h"
#include "runtime/lock.h"
#include "runtime/park.h"
#include "runtime/runtime.h"
#include "runtime/task.h"

/*
 * 1 MiB is what resolvers, TLS libraries and ordinary C code are written for (the smallest default among the
 * common systems is 512 KiB); 8 MiB would make no call faster, but 512 threads 4 GiB of address space, and the C
 * library keeps only 40 MiB of stacks for reuse.
 */
enum { STACK_SIZE = 1 << 20 };

/* Below it, waking a thread for a call costs more than the call. Measured: a wake is 30-60 µs. */
enum { LONG_CALL_NS = 50 * 1000 };

/* One call counts at most this much, so that the average (1/8 for the newest) follows a change of the kind of
 * calls: one long call is enough to make it long, some twenty short ones to make it short again. */
enum { LONGEST_COUNTED_NS = 8 * LONG_CALL_NS };

/* While calls are short: work per thread that is awake that justifies waking another one. */
enum { BACKLOG_NS = 2 * LONG_CALL_NS };

enum { PLAN_MAX = 2 };

enum call_kind {
    CALL_AWAITED,     /* in the frame of the task that waits for it to the end */
    CALL_ABANDONABLE, /* from malloc; freed by its task, or, abandoned, by the pool thread */
    CALL_TASK /* from malloc; `owner` is its record; freed by whoever ends it, or, abandoned, by the pool thread */
};

enum call_state { QUEUED, RUNNING, ABANDONED, OVER };

/* Everything but fn and arg: under the lock; result: written before the wait is settled. */
struct call {
    struct call *next;
    struct call *prev;
    weft_fn *fn;
    void *arg;
    enum call_kind kind;
    enum call_state state;
    intptr_t result;
    void (*orphan)(intptr_t result, void *arg);
    bool abandonable; /* CALL_TASK: cancelling its task while it runs ends that */
    bool refused;     /* it is over, without having run */
    weft_task *owner; /* who is named in messages: the task that waits, or the record; NULL once abandoned */
    struct weft__wait wait;
};

/* On the stack of the thread. Under the lock, but for waiting on `woken`. */
struct thread {
    struct thread *next; /* in `idle_top` or `awake` */
    struct thread *prev;
    struct call *call;
    _Atomic uint32_t woken; /* futex; set when it is popped from the idle list */
    bool joins;             /* set when it has departed: ... */
    pthread_t predecessor;  /* ... the thread that it joins */
};

struct weft__pool {
    /* Constant. */
    weft_runtime *runtime;
    uint32_t threads_max;
    uint64_t calls_max; /* running and waiting; beyond it calls are refused */
    int64_t keepalive;  /* ns; negative: for ever */
    bool rebind;        /* workers are bound to processors, pool threads must not inherit it */
    cpu_set_t processors;
    pthread_attr_t attributes;

    /* Under the lock; what is atomic is also read without it. */
    weft__lock lock __attribute__((aligned(64)));
    _Atomic uint32_t threads;
    uint32_t idle;
    uint32_t coming;
    uint32_t starting; /* of those that are coming: created, not arrived */
    uint32_t running;
    uint32_t average_ns; /* of the calls' durations */
    _Atomic uint64_t queued;
    struct call *first;
    struct call *last;
    struct thread *idle_top; /* most recently idle first, so that the others reach their keep-alive */
    struct thread *awake;
    _Atomic uint64_t taken;
    _Atomic uint64_t refused;
    uint64_t taken_at_tick;
    bool ticking;
    bool starved; /* no thread could be created; not tried again before the next tick */
    bool stopping;
    bool has_ended;
    pthread_t ended; /* the thread that ended last, to be joined by the next */

    _Atomic uint32_t departures; /* futex; counts threads that ended, for the one who stops the pool */
};

/* What is to be done once the lock has been left. */
struct plan {
    unsigned wakes;
    unsigned creates;
    bool tick;
    bool inherits; /* carried out by a pool thread: those it creates inherit its name */
    _Atomic uint32_t *wake[PLAN_MAX];
};

struct ending {
    weft_task *waiter; /* to be made ready */
    weft_task *record; /* to be finished */
    intptr_t result;
    struct call *garbage;
    struct call *removed; /* a record's call that never runs: its orphan function is owed */
};

/* ---- futex ---- */

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Returns when the word is not `expected`, when the deadline (monotonic) has passed, or for no reason. */
static void futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    struct timespec until = {.tv_sec = deadline / WEFT_SEC(1), .tv_nsec = deadline % WEFT_SEC(1)};

    syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline == WEFT_FOREVER ? NULL : &until, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

/* ---- the queue of calls ---- */

static void count_locked(_Atomic uint64_t *counter, int64_t change)
{
    /* relaxed: written under the lock only, readers want a number */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + (uint64_t)change,
                          memory_order_relaxed);
}

static void count_threads_locked(struct weft__pool *pool, int change)
{
    /* relaxed: as in count_locked */
    uint32_t threads = atomic_load_explicit(&pool->threads, memory_order_relaxed);

    atomic_store_explicit(&pool->threads, threads + (uint32_t)change, memory_order_relaxed);
}

static uint64_t queued(const struct weft__pool *pool)
{
    return atomic_load_explicit(&pool->queued, memory_order_relaxed); /* as in count_locked */
}

static uint32_t threads(const struct weft__pool *pool)
{
    return atomic_load_explicit(&pool->threads, memory_order_relaxed); /* as in count_locked */
}

static void append_locked(struct weft__pool *pool, struct call *call)
{
    call->state = QUEUED;
    call->next = NULL;
    call->prev = pool->last;
    *(pool->last ? &pool->last->next : &pool->first) = call;
    pool->last = call;
    if (call->kind == CALL_TASK)
        call->owner->call = call;
    count_locked(&pool->queued, 1);
}

static void unlink_locked(struct weft__pool *pool, struct call *call)
{
    *(call->prev ? &call->prev->next : &pool->first) = call->next;
    *(call->next ? &call->next->prev : &pool->last) = call->prev;
    if (call->kind == CALL_TASK)
        call->owner->call = NULL;
    count_locked(&pool->queued, -1);
}

/* ---- lists of threads ---- */

static void push_thread_locked(struct thread **list, struct thread *thread)
{
    thread->prev = NULL;
    thread->next = *list;
    if (thread->next)
        thread->next->prev = thread;
    *list = thread;
}

static void remove_thread_locked(struct thread **list, struct thread *thread)
{
    *(thread->prev ? &thread->prev->next : list) = thread->next;
    if (thread->next)
        thread->next->prev = thread->prev;
}

static void become_idle_locked(struct weft__pool *pool, struct thread *thread)
{
    remove_thread_locked(&pool->awake, thread);
    push_thread_locked(&pool->idle_top, thread);
    pool->idle++;
    /* relaxed: nobody else looks before the lock is left */
    atomic_store_explicit(&thread->woken, 0, memory_order_relaxed);
}

/* The thread is one of those that are coming, then. */
static void end_idling_locked(struct weft__pool *pool, struct thread *thread)
{
    remove_thread_locked(&pool->idle_top, thread);
    push_thread_locked(&pool->awake, thread);
    pool->idle--;
    pool->coming++;
}

/* After the lock: futex_wake of the word that is returned; the thread may have ended by then and the word be
 * gone, which a wake does not mind: it only looks for sleepers. */
static _Atomic uint32_t *pop_idle_locked(struct weft__pool *pool)
{
    struct thread *thread = pool->idle_top;

    end_idling_locked(pool, thread);
    /* release: pairs with the acquire in sleep_idle; data is handed over by the lock */
    atomic_store_explicit(&thread->woken, 1, memory_order_release);
    return &thread->woken;
}

/* ---- how many threads ---- */

static bool needs_thread_locked(const struct weft__pool *pool)
{
    uint32_t awake = threads(pool) - pool->idle;

    if (queued(pool) <= pool->coming)
        return false;
    if (pool->average_ns >= LONG_CALL_NS || awake == 0)
        return true;
    return queued(pool) * pool->average_ns > (uint64_t)awake * BACKLOG_NS;
}

static bool may_create_locked(const struct weft__pool *pool)
{
    return threads(pool) < pool->threads_max && (!pool->starved || threads(pool) == 0);
}

/* Calls wait for which nobody is coming, although there could be. */
static bool leaves_calls_waiting_locked(const struct weft__pool *pool)
{
    return queued(pool) > pool->coming && (pool->idle > 0 || threads(pool) < pool->threads_max);
}

static void plan_create_locked(struct weft__pool *pool, struct plan *plan)
{
    count_threads_locked(pool, 1);
    pool->coming++;
    pool->starting++;
    plan->creates++;
}

static void plan_tick_locked(struct weft__pool *pool, struct plan *plan)
{
    if (pool->ticking || !leaves_calls_waiting_locked(pool))
        return;
    pool->ticking = true;
    plan->tick = true;
}

/* For a submitter: one thread for its call; none is created if one that is on its way will see to it. */
static void plan_one_locked(struct weft__pool *pool, struct plan *plan)
{
    if (needs_thread_locked(pool)) {
        if (pool->idle > 0)
            plan->wake[plan->wakes++] = pop_idle_locked(pool);
        else if (pool->starting == 0 && may_create_locked(pool))
            plan_create_locked(pool, plan);
    }
    plan_tick_locked(pool, plan);
}

/* For a pool thread and the monitor: a step of the tree. */
static void plan_growth_locked(struct weft__pool *pool, struct plan *plan)
{
    while (plan->wakes + plan->creates < PLAN_MAX && needs_thread_locked(pool)) {
        if (pool->idle > 0)
            plan->wake[plan->wakes++] = pop_idle_locked(pool);
        else if (may_create_locked(pool))
            plan_create_locked(pool, plan);
        else
            break;
    }
    plan_tick_locked(pool, plan);
}

static void note_duration_locked(struct weft__pool *pool, int64_t duration)
{
    int32_t counted = duration < LONGEST_COUNTED_NS ? (int32_t)duration : LONGEST_COUNTED_NS;

    pool->average_ns = (uint32_t)((int32_t)pool->average_ns + (counted - (int32_t)pool->average_ns) / 8);
}

static void forget_durations_locked(struct weft__pool *pool)
{
    pool->average_ns = LONGEST_COUNTED_NS;
}

/* ---- the end of a call ---- */

/* The call, if it is awaited, may be gone when this returns. */
static struct ending end_call_locked(struct call *call, intptr_t result)
{
    if (call->kind == CALL_TASK) {
        call->owner->call = NULL;
        return (struct ending){.record = call->owner, .result = result, .garbage = call};
    }

    call->result = result;
    call->state = OVER;
    return (struct ending){.waiter = weft__settle(&call->wait, WEFT__GRANTED)};
}

/* The same for a call that has not run and never will; `arg` of one that is awaited is seen to by its task. */
static struct ending refuse_locked(struct weft__pool *pool, struct call *call, intptr_t result)
{
    struct ending ending;

    unlink_locked(pool, call);
    call->refused = true;
    ending = end_call_locked(call, result);
    ending.removed = ending.garbage;
    return ending;
}

/* Nobody else will see the result: `arg` is the orphan function's. */
static void give_to_orphan(const struct call *call, intptr_t result)
{
    if (call->orphan)
        call->orphan(result, call->arg);
}

static void complete(const struct ending *ending)
{
    if (ending->removed)
        give_to_orphan(ending->removed, ending->result);
    if (ending->waiter)
        weft__ready(ending->waiter);
    if (ending->record)
        weft__task_finish(ending->record, ending->result);
    free(ending->garbage);
}

/* End the first call that waits without having run it. False: there is none, or, `unless_served`, there are
 * threads again. */
static bool reject_first(struct weft__pool *pool, intptr_t result, intptr_t task_result, bool unless_served)
{
    struct call *call;
    struct ending ending;

    weft__lock_enter(&pool->lock);
    call = pool->first;
    if (call == NULL || (unless_served && threads(pool) > 0)) {
        weft__lock_leave(&pool->lock);
        return false;
    }
    ending = refuse_locked(pool, call, call->kind == CALL_TASK ? task_result : result);
    weft__lock_leave(&pool->lock);
    complete(&ending);
    return true;
}

/* ---- creating threads ---- */

static void *thread_main(void *argument);
static void *name_and_main(void *argument);

/* The signals of the process are for other threads; those that the thread itself causes stay. */
static void block_signals(sigset_t *before)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t blocked;

    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, before);
}

static void take_back_thread(struct weft__pool *pool)
{
    bool tick;

    weft__lock_enter(&pool->lock);
    count_threads_locked(pool, -1);
    pool->coming--;
    pool->starting--;
    pool->starved = true;
    tick = threads(pool) > 0 && queued(pool) > 0;
    if (tick)
        pool->ticking = true;
    /* relaxed: a count; who waits for it looks under the lock */
    atomic_fetch_add_explicit(&pool->departures, 1, memory_order_relaxed);
    weft__lock_leave(&pool->lock);

    futex_wake(&pool->departures);
    if (tick)
        weft__monitor_hurry(pool->runtime);
    while (reject_first(pool, -EAGAIN, -EAGAIN, true)) {
    }
}

static void create_thread(struct weft__pool *pool, bool inherits)
{
    sigset_t before;
    pthread_t thread;
    int error;

    block_signals(&before);
    error = pthread_create(&thread, &pool->attributes, inherits ? thread_main : name_and_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        take_back_thread(pool);
}

static void carry_out(struct weft__pool *pool, const struct plan *plan)
{
    for (unsigned i = 0; i < plan->wakes; i++)
        futex_wake(plan->wake[i]);
    for (unsigned i = 0; i < plan->creates; i++)
        create_thread(pool, plan->inherits);
    if (plan->tick)
        weft__monitor_hurry(pool->runtime);
}

/* ---- a pool thread ---- */

static struct call *take_locked(struct weft__pool *pool, struct thread *self, struct plan *plan)
{
    struct call *call = pool->first;

    if (call == NULL)
        return NULL;
    unlink_locked(pool, call);
    call->state = RUNNING;
    if (call->abandonable)
        call->owner->call = call; /* weft__pool_cancel may still have it */
    self->call = call;
    pool->running++;
    count_locked(&pool->taken, 1);
    plan->inherits = true;
    plan_growth_locked(pool, plan);
    return call;
}

static void let_go_locked(struct weft__pool *pool, struct thread *self)
{
    self->call = NULL;
    pool->running--;
}

/*
 * End a call that has run and take the next in the same section; NULL: none waits, and this thread is one of
 * those that are coming.
 */
static struct call *end_and_take(struct weft__pool *pool, struct thread *self, intptr_t result, int64_t duration)
{
    struct call *call = self->call;
    struct ending ending;
    struct plan plan = {0};

    weft__lock_enter(&pool->lock);
    if (call->state == ABANDONED) {
        weft__lock_leave(&pool->lock);
        give_to_orphan(call, result); /* part of the call, which is over when it returns */
        weft__lock_enter(&pool->lock);
        ending = (struct ending){.garbage = call};
        let_go_locked(pool, self);
    } else {
        let_go_locked(pool, self);
        ending = end_call_locked(call, result);
    }
    note_duration_locked(pool, duration);
    call = take_locked(pool, self, &plan);
    if (call == NULL)
        pool->coming++;
    weft__lock_leave(&pool->lock);

    complete(&ending);
    carry_out(pool, &plan);
    return call;
}

static int64_t keepalive_end(const struct weft__pool *pool)
{
    return pool->keepalive < 0 ? WEFT_FOREVER : weft__clock_after(pool->keepalive);
}

/* True: popped, and so one of those that are coming. False: the keep-alive is over. */
static bool sleep_idle(const struct weft__pool *pool, struct thread *self)
{
    int64_t deadline = keepalive_end(pool);

    /* acquire: pairs with the release in pop_idle_locked */
    while (!atomic_load_explicit(&self->woken, memory_order_acquire)) {
        if (deadline != WEFT_FOREVER && weft__clock_now() >= deadline)
            return false;
        futex_wait(&self->woken, 0, deadline);
    }
    return true;
}

/* The thread was coming and ends instead. Afterwards it may touch the pool until it returns from thread_main:
 * whoever frees the pool joins it first. */
static void depart_locked(struct weft__pool *pool, struct thread *self)
{
    remove_thread_locked(&pool->awake, self);
    pool->coming--;
    count_threads_locked(pool, -1);
    pool->starved = false;
    self->joins = pool->has_ended;
    self->predecessor = pool->ended;
    pool->ended = pthread_self();
    pool->has_ended = true;
    /* relaxed: a count; who waits for it looks under the lock */
    atomic_fetch_add_explicit(&pool->departures, 1, memory_order_relaxed);
}

/* The keep-alive is over. True: the thread has departed; false: it is one of those that are coming, because it
 * was popped meanwhile or a call waits. */
static bool give_up_idling(struct weft__pool *pool, struct thread *self)
{
    bool departs;

    weft__lock_enter(&pool->lock);
    /* relaxed: written under the lock */
    if (!atomic_load_explicit(&self->woken, memory_order_relaxed))
        end_idling_locked(pool, self);
    departs = queued(pool) == 0 && !atomic_load_explicit(&self->woken, memory_order_relaxed);
    if (departs)
        depart_locked(pool, self);
    weft__lock_leave(&pool->lock);
    return departs;
}

/*
 * For a thread that is one of those that are coming. NULL: it has departed. It looks once more after it has handed
 * over its last result, which takes long enough for another call to come; spinning for one before sleeping was
 * measured (30, 100 and 400 pauses) and cost more processor time than the wakes it saved.
 */
static struct call *wait_for_call(struct weft__pool *pool, struct thread *self)
{
    for (;;) {
        struct plan plan = {0};
        struct call *call;

        weft__lock_enter(&pool->lock);
        if (pool->stopping && queued(pool) == 0) {
            depart_locked(pool, self);
            weft__lock_leave(&pool->lock);
            return NULL;
        }
        pool->coming--;
        call = take_locked(pool, self, &plan);
        if (call == NULL)
            become_idle_locked(pool, self);
        weft__lock_leave(&pool->lock);

        carry_out(pool, &plan);
        if (call != NULL)
            return call;
        if (!sleep_idle(pool, self) && give_up_idling(pool, self))
            return NULL;
    }
}

static void arrive(struct weft__pool *pool, struct thread *self)
{
    if (pool->rebind)
        sched_setaffinity(0, sizeof pool->processors, &pool->processors);

    weft__lock_enter(&pool->lock);
    push_thread_locked(&pool->awake, self);
    pool->starting--;
    weft__lock_leave(&pool->lock);
}

/* The end of a call is the start of the next: one look at the clock each. */
static void serve(struct weft__pool *pool, struct thread *self)
{
    struct call *call;

    while ((call = wait_for_call(pool, self)) != NULL) {
        int64_t start = weft__clock_now();

        do {
            intptr_t result = call->fn(call->arg);
            int64_t end = weft__clock_now();

            if (weft__is_elsewhere(pool->runtime))
                weft__fork_returned();
            call = end_and_take(pool, self, result, end - start);
            start = end;
        } while (call != NULL);
    }
}

static void *thread_main(void *argument)
{
    struct weft__pool *pool = argument;
    struct thread self = {0};

    arrive(pool, &self);
    serve(pool, &self);

    futex_wake(&pool->departures);
    if (self.joins)
        pthread_join(self.predecessor, NULL);
    return NULL;
}

/* Worth a function: with 512 threads starting at once, setting each one's name took 2.5 ms. */
static void *name_and_main(void *argument)
{
    pthread_setname_np(pthread_self(), "weft-block");
    return thread_main(argument);
}

/* ---- submitting and taking back ---- */

static int admit_locked(struct weft__pool *pool)
{
    if (pool->stopping)
        return -ESHUTDOWN;
    if (queued(pool) + pool->running >= pool->calls_max) {
        count_locked(&pool->refused, 1);
        return -EAGAIN;
    }
    return 0;
}

/* 0: it will end. A call from malloc may have been freed then. */
static int submit(struct weft__pool *pool, struct call *call)
{
    struct plan plan = {0};
    int error;

    weft__lock_enter(&pool->lock);
    error = admit_locked(pool);
    if (error == 0) {
        append_locked(pool, call);
        plan_one_locked(pool, &plan);
    }
    weft__lock_leave(&pool->lock);

    carry_out(pool, &plan);
    return error;
}

/* The task will not wait for a call that has not started. False: it has. */
static bool withdraw(struct weft__pool *pool, struct call *call)
{
    bool waits;

    weft__lock_enter(&pool->lock);
    waits = call->state == QUEUED;
    if (waits)
        unlink_locked(pool, call);
    weft__lock_leave(&pool->lock);
    return waits;
}

static void wait_sheltered(struct call *call)
{
    weft_mask_begin();
    while (weft__wait(&call->wait) < 0) {
    }
    weft_mask_end();
}

intptr_t weft_blocking(weft_fn *fn, void *arg)
{
    struct call call = {.kind = CALL_AWAITED, .fn = fn, .arg = arg};
    struct weft__pool *pool;
    int error;

    call.wait.task = weft__coroutine_self();
    if (call.wait.task == NULL)
        return weft__misused("weft_blocking");
    error = weft__suspend_check();
    if (error < 0)
        return error;

    pool = weft__runtime_pool(weft_runtime_current());
    call.owner = weft_self();
    error = submit(pool, &call);
    if (error < 0)
        return error;

    error = weft__wait(&call.wait);
    if (error < 0) {
        if (withdraw(pool, &call))
            return error;
        wait_sheltered(&call);
    }
    return call.result;
}

/* The wait of the task has ended early: what becomes of the call? True: it is over. */
static bool abandon(struct weft__pool *pool, struct call *call, int error)
{
    enum call_state state;

    weft__lock_enter(&pool->lock);
    state = call->state;
    if (state == QUEUED) {
        unlink_locked(pool, call);
    } else if (state == RUNNING) {
        call->state = ABANDONED; /* the pool thread frees it */
        call->owner = NULL;
    }
    weft__lock_leave(&pool->lock);

    if (state == QUEUED) {
        give_to_orphan(call, error);
        free(call);
    }
    return state == OVER;
}

static intptr_t await_or_abandon(struct weft__pool *pool, struct call *call)
{
    intptr_t result;
    int error = submit(pool, call);

    if (error < 0) {
        give_to_orphan(call, error);
        free(call);
        return error;
    }
    error = weft__wait(&call->wait);
    if (error < 0 && !abandon(pool, call, error))
        return error;
    result = call->result;
    if (call->refused)
        give_to_orphan(call, result);
    free(call);
    return result;
}

static int check_abandonable(struct call **call)
{
    int error = weft__coroutine_self() ? weft__suspend_check() : weft__misused("weft_blocking_abandonable");

    if (error < 0)
        return error;
    *call = malloc(sizeof **call);
    return *call ? 0 : -ENOMEM;
}

intptr_t weft_blocking_abandonable(weft_fn *fn, void *arg, void (*orphan)(intptr_t result, void *arg))
{
    struct call made = {.kind = CALL_ABANDONABLE, .fn = fn, .arg = arg, .orphan = orphan}, *call;
    int error = check_abandonable(&call);

    if (error < 0) {
        give_to_orphan(&made, error);
        return error;
    }
    *call = made;
    call->owner = weft_self();
    call->wait.task = weft__coroutine_self();
    return await_or_abandon(weft__runtime_pool(weft_runtime_current()), call);
}

static weft_task *spawn(struct call made)
{
    weft_runtime *runtime = weft_runtime_current();
    weft_task *task;
    struct call *call;

    if (runtime == NULL)
        return NULL;
    call = malloc(sizeof *call);
    if (call == NULL)
        return NULL;
    task = weft__task_new_external(runtime, made.fn, made.arg);
    if (task == NULL)
        goto no_task;

    *call = made;
    call->owner = task;
    if (submit(weft__runtime_pool(runtime), call) < 0)
        goto refused;
    return task;

refused:
    weft__task_discard(task);
no_task:
    free(call);
    return NULL;
}

weft_task *weft_spawn_blocking(weft_fn *fn, void *arg)
{
    return spawn((struct call){.kind = CALL_TASK, .fn = fn, .arg = arg});
}

weft_task *weft_spawn_blocking_abandonable(weft_fn *fn, void *arg, void (*orphan)(intptr_t result, void *arg))
{
    return spawn((struct call){.kind = CALL_TASK, .fn = fn, .arg = arg, .orphan = orphan, .abandonable = true});
}

/* Its task ends now, the call later. */
static struct ending abandon_running_locked(struct call *call)
{
    struct ending ending = {.record = call->owner, .result = -ECANCELED};

    call->owner->call = NULL;
    call->owner = NULL;
    call->state = ABANDONED;
    return ending;
}

/* `call` of such a record is its call while that waits, or, if it can be abandoned, runs. */
void weft__pool_cancel(weft_task *task)
{
    struct weft__pool *pool = weft__runtime_pool(task->runtime);
    struct call *call;
    struct ending ending;

    weft__lock_enter(&pool->lock);
    call = task->call;
    if (call != NULL && call->state == RUNNING) {
        ending = abandon_running_locked(call);
    } else if (call != NULL) {
        ending = refuse_locked(pool, call, -ECANCELED);
    }
    weft__lock_leave(&pool->lock);

    if (call != NULL)
        complete(&ending);
}

/* ---- blocking in place ---- */

static void count_section(struct weft__driver *driver)
{
    /* Relaxed: the monitor only wants to know whether it is still the same. */
    atomic_store_explicit(&driver->section, atomic_load_explicit(&driver->section, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* A task that suspended in a section, against the rules, left it with the thread. */
static bool is_nested(struct weft__driver *driver)
{
    if (driver->section_depth == 0)
        return false;
    if (driver->blocker == driver->coroutine)
        return true;
    driver->section_depth = 0;
    count_section(driver);
    return false;
}

int weft_block_begin(void)
{
    struct weft__driver *driver = weft__driver();

    if (driver == NULL || driver->coroutine == NULL)
        return weft__misused("weft_block_begin");
    if (!is_nested(driver)) {
        driver->blocker = driver->coroutine;
        count_section(driver);
        weft__monitor_attend(driver->runtime);
    }
    driver->section_depth++;
    return 0;
}

int weft_block_end(void)
{
    struct weft__driver *driver = weft__driver();

    if (driver == NULL || driver->coroutine == NULL)
        return weft__misused("weft_block_end");
    if (!is_nested(driver))
        return -EINVAL;
    if (--driver->section_depth == 0)
        count_section(driver);
    return 0;
}

/* ---- the monitor ---- */

bool weft__pool_tick(struct weft__pool *pool)
{
    struct plan plan = {0};
    uint64_t taken;
    bool again;
    bool stuck;

    weft__lock_enter(&pool->lock);
    taken = atomic_load_explicit(&pool->taken, memory_order_relaxed); /* as in count_locked */
    stuck = taken == pool->taken_at_tick;
    pool->taken_at_tick = taken;
    pool->starved = false;
    pool->ticking = true; /* plan_growth_locked need not ask for what is here */
    if (stuck && leaves_calls_waiting_locked(pool))
        forget_durations_locked(pool);
    /* Also a step of the tree, in case those that should make it do not get a processor. */
    plan_growth_locked(pool, &plan);
    /* While short calls come and go the next tick is likely wanted soon: stopping would cost a wake. */
    again = leaves_calls_waiting_locked(pool) || (!stuck && pool->average_ns < LONG_CALL_NS);
    pool->ticking = again;
    weft__lock_leave(&pool->lock);

    carry_out(pool, &plan);
    return again || (plan.creates > 0 && weft__pool_wants_tick(pool)); /* they may have failed */
}

bool weft__pool_wants_tick(struct weft__pool *pool)
{
    bool wanted;

    weft__lock_enter(&pool->lock);
    wanted = pool->ticking;
    weft__lock_leave(&pool->lock);
    return wanted;
}

/* ---- making, stopping, counting ---- */

static int init_attributes(struct weft__pool *pool)
{
    int error = pthread_attr_init(&pool->attributes);

    if (error)
        return error;
    error = pthread_attr_setstacksize(&pool->attributes, STACK_SIZE);
    if (error)
        pthread_attr_destroy(&pool->attributes);
    return error;
}

struct weft__pool *weft__pool_new(weft_runtime *runtime, const weft_config *config)
{
    struct weft__pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);

    if (pool == NULL)
        return NULL;
    memset(pool, 0, sizeof *pool);
    if (init_attributes(pool))
        goto no_attributes;

    pool->runtime = runtime;
    pool->threads_max = config->blocking_max;
    pool->calls_max = config->blocking_queue;
    if (pool->calls_max < WEFT_UNBOUNDED - pool->threads_max)
        pool->calls_max += pool->threads_max;
    pool->keepalive = config->blocking_keepalive_ms;
    if (pool->keepalive >= 0)
        pool->keepalive = pool->keepalive < WEFT_FOREVER / WEFT_MS(1) ? WEFT_MS(pool->keepalive) : WEFT_FOREVER;
    pool->rebind = config->affinity == WEFT_AFFINITY_CORES &&
                   sched_getaffinity(0, sizeof pool->processors, &pool->processors) == 0;
    forget_durations_locked(pool);
    return pool;

no_attributes:
    free(pool);
    return NULL;
}

static bool wake_one_idle(struct weft__pool *pool)
{
    _Atomic uint32_t *word = NULL;

    weft__lock_enter(&pool->lock);
    if (pool->idle > 0)
        word = pop_idle_locked(pool);
    weft__lock_leave(&pool->lock);
    if (word)
        futex_wake(word);
    return word != NULL;
}

/* Wait until no thread is left: 0, or, after the deadline, until those that are left are in calls: how many. */
static unsigned await_departures(struct weft__pool *pool, int64_t deadline)
{
    for (;;) {
        /* relaxed: a change after this one makes the wait return */
        uint32_t seen = atomic_load_explicit(&pool->departures, memory_order_relaxed);
        bool late = weft__clock_now() >= deadline;
        unsigned running;
        unsigned left;

        weft__lock_enter(&pool->lock);
        running = pool->running;
        left = threads(pool);
        weft__lock_leave(&pool->lock);
        if (left == 0 || (late && running == left))
            return running;
        futex_wait(&pool->departures, seen, late ? WEFT_FOREVER : deadline);
    }
}

enum { NAMED_MAX = 32 };

struct holdout {
    weft_fn *fn;
    char name[32];
};

static unsigned collect_holdouts(struct weft__pool *pool, struct holdout *holdouts)
{
    unsigned count = 0;

    weft__lock_enter(&pool->lock);
    for (struct thread *thread = pool->awake; thread != NULL && count < NAMED_MAX; thread = thread->next) {
        const struct call *call = thread->call;

        if (call == NULL)
            continue;
        holdouts[count].fn = call->fn;
        holdouts[count].name[0] = '\0';
        if (call->owner)
            strncat(holdouts[count].name, weft__task_name(call->owner), sizeof holdouts[count].name - 1);
        count++;
    }
    weft__lock_leave(&pool->lock);
    return count;
}

static void name_holdouts(struct weft__pool *pool, unsigned running)
{
    struct holdout holdouts[NAMED_MAX];
    unsigned count = collect_holdouts(pool, holdouts);

    for (unsigned i = 0; i < count; i++) {
        if (holdouts[i].name[0])
            fprintf(stderr, "weft: a blocking call of task '%s' is still running\n", holdouts[i].name);
        else
            fprintf(stderr, "weft: the blocking call %p is still running\n", (void *)(uintptr_t)holdouts[i].fn);
    }
    if (running > count)
        fprintf(stderr, "weft: and %u more blocking calls\n", running - count);
}

unsigned weft__pool_stop(struct weft__pool *pool, int64_t deadline)
{
    unsigned running;

    weft__lock_enter(&pool->lock);
    pool->stopping = true;
    weft__lock_leave(&pool->lock);
    while (reject_first(pool, -ESHUTDOWN, -ECANCELED, false)) {
    }
    while (wake_one_idle(pool)) {
    }

    running = await_departures(pool, deadline);
    if (running > 0) {
        name_holdouts(pool, running);
        return running;
    }
    if (pool->has_ended) {
        pthread_join(pool->ended, NULL);
        pool->has_ended = false;
    }
    return 0;
}

void weft__pool_free(struct weft__pool *pool)
{
    pthread_attr_destroy(&pool->attributes);
    free(pool);
}

void weft__pool_stats(const struct weft__pool *pool, weft_stats *stats)
{
    /* relaxed: numbers to look at */
    stats->blocking_jobs = atomic_load_explicit(&pool->taken, memory_order_relaxed);
    stats->blocking_refused = atomic_load_explicit(&pool->refused, memory_order_relaxed);
    stats->blocking_threads = threads(pool);
}
