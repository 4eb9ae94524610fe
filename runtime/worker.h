/*
 * The worker: run queue, timers, event loop and inbox of one of the N, and the thread that drives it.
 *
 * The two are separate. A *worker* is what is owned: it exists from start to stop. A *driver* is a thread: it
 * drives one worker; when it gets stuck in a task, the monitor hands its worker to a spare driver.
 *
 * Being inside. What is marked "inside" below is touched only by a thread that is inside the worker:
 *
 *   the driver:  inside = 1;  light fence;  if (summons) slow path           … leave: inside = 0
 *   a thief:     seize_lock;  summons |= SEIZED;  heavy fence;  if (inside) give up   … release: summons &= ~SEIZED
 *
 * By the fences (fence.h) at least one of the two sees the other's store, so both are never inside together. The
 * driver pays two plain stores and a load, a thief a membarrier: thefts are rare, and what is stolen has waited
 * longer than that. The driver is outside exactly while task code runs; it is inside from the moment a task calls
 * into the runtime until the next task's code runs, with the switch in between. leave's release pairs with the
 * thief's acquire load of inside, release's with the driver's acquire load of summons.
 *
 * The slow path also serves others who want the driver to do something that it would not ask for each time: they set
 * other bits there (enum weft__summons).
 *
 * A driver whose worker was taken stays seized for ever: weft__enter returns NULL, and it goes on as any thread
 * outside the runtime does (spawning and waking through inboxes) until its task parks or ends; then it becomes a
 * spare.
 */
#ifndef WEFT_RUNTIME_WORKER_H
#define WEFT_RUNTIME_WORKER_H

#include <pthread.h>

#include "runtime/annotate.h"
#include "runtime/fence.h"
#include "runtime/idle.h"
#include "runtime/observe.h"
#include "runtime/poller.h"
#include "runtime/queue.h"
#include "runtime/record.h"
#include "runtime/timer.h"

/* Where a worker is, for those who hand it work from outside. */
enum weft__worker_state {
    WEFT__AWAKE,    /* it will look at its inbox before it sleeps */
    WEFT__SLEEPING, /* it is in, or on its way into, epoll: whoever changes this wakes it */
    WEFT__WOKEN     /* somebody has */
};

struct weft__worker {
    /* -- inside -- */
    struct weft__queue queue;
    weft_task *next;      /* made ready by the task that ran last: runs before the queue */
    uint32_t next_streak; /* how often in a row it was used */
    int32_t credit;       /* until the next look around; see maintain() */
    int32_t credit_given;
    uint32_t slice_ns;   /* what a dispatch took since the last look, on average */
    uint32_t pace_ns;    /* what it is reckoned to take until the next one */
    int64_t turn_ns;     /* how long the same coroutine has run, as of the last look around */
    uint64_t turn;       /* dispatches then */
    int64_t awake_since; /* when it last began to run without a sleep */
    int64_t busy_since;  /* the same, but for short sleeps (end_pause) */
    int64_t expired_at;  /* when deadlines last ended a sleep */
    weft_runtime *runtime;
    uint32_t index;
    uint32_t slice_before_ns;                 /* slice_ns before the last look */
    _Atomic(struct weft__worker *) poller_of; /* in whose epoll set its tasks' descriptors belong; the monitor's */

    /* -- written inside, read by anybody -- */
    _Atomic int64_t maintained_at __attribute__((aligned(64)));
    _Atomic int64_t polled_at;   /* also written by a peer that polled for it */
    _Atomic uint64_t dispatches; /* switches to a task */
    _Atomic uint32_t wants_help; /* it has a backlog that may be worth a theft: for who was woken for it */
    _Atomic int64_t help_after;  /* for anybody else, from this time on */
    _Atomic int64_t helped_at;   /* when it last had a worker woken, or was stolen from */
    _Atomic int64_t patience;    /* how long after that before it wants help again; a thief may reset it */
    _Atomic uint32_t overloaded; /* busy for long, with a backlog: descriptors may leave it */
    _Atomic uint32_t used;       /* descriptors were ever waited for here: its epoll set is not empty */
    _Atomic uint32_t pinned;     /* tasks that are pinned to it and have not ended: any thread */

    /* -- any thread -- */
    struct weft__inbox inbox __attribute__((aligned(64)));
    _Atomic uint32_t state;                /* enum weft__worker_state */
    weft__lock seize_lock;                 /* held while the driver is seized by somebody else */
    _Atomic(struct weft__driver *) driver; /* changed under seize_lock; see weft__driver_of */

    struct weft__timers timers __attribute__((aligned(64)));
    struct weft__poller poller;
};

/* What the context that was switched to must do for the one that was left. */
enum weft__after {
    WEFT__AFTER_NOTHING,
    WEFT__AFTER_PARK,   /* mark it parked, or queue it if it was notified meanwhile */
    WEFT__AFTER_QUEUE,  /* a yield without a worker: queue it somewhere */
    WEFT__AFTER_RELEASE /* its task has ended: give the stack back */
};

struct weft__counters {
    _Atomic uint64_t spawned, ended, ran_in_place, steals, stolen, wakes, sleeps, polls, events, polled_for_peer,
        timers_fired;
};

/* Why weft__enter must take its slow path, and an await (task.c) its own. */
enum weft__summons {
    WEFT__SEIZED = 1u << 0,     /* a thief is inside; under the worker's seize_lock */
    WEFT__NUDGED = 1u << 1,     /* look around: by the monitor */
    WEFT__OVERDUE = 1u << 2,    /* its task has run for long, and others wait: by itself */
    WEFT__CANCEL_ALL = 1u << 3, /* the runtime is stopping: every task is cancelled. It stays */
    WEFT__FENCED = 1u << 4,     /* the kernel has no membarrier: each entry takes a full fence. It stays */
};

struct weft__driver {
    /* -- this thread, hot -- */
    _Atomic uint32_t inside;
    _Atomic uint32_t summons; /* WEFT__SEIZED and others; 0, mostly. Any thread */
    struct weft__worker *worker;
    weft_task *coroutine; /* the root that runs; NULL: the thread's own stack */
    enum weft__after after;
    weft_task *after_task;
    struct weft__stack *after_stack;
    weft_fn *start_fn; /* of the task that is about to start on a new stack */
    void *start_arg;
    weft_task *unfinished; /* ended inside, without a handle: what is left is to be done outside */
    weft_task *step;       /* stackless, picked on another stack: the thread's own is to run it */
    uint32_t calls;        /* suspension points passed since a task last passed on for that reason */
    struct weft__records records;
    struct weft__stack_cache stacks;
    weft_runtime *runtime;
    bool searching;              /* counted in the runtime's searchers */
    struct weft__worker *robbed; /* whom it stole from last, until it is known what that gave */
    int64_t robbed_at;           /* in its thread's processor time */
    _Atomic bool lost;           /* its worker was taken; written under seize_lock */

    struct weft__counters counters __attribute__((aligned(64))); /* written by this thread */
    _Atomic(weft_task *) running;                                /* the coroutine switched to last, for messages */

    /* The coroutine, as the rest of the runtime sees it, on which stackless tasks run: the thread's own stack. It
     * never parks. */
    weft_task stepper;

    /* -- cold -- */
    struct weft__context base __attribute__((aligned(64)));
    struct weft__context never; /* of stacks that are left for good */
    struct weft__annotated_thread annotated;
    uint64_t random;
    weft_task *blocker;       /* the coroutine in whose section it is */
    uint32_t section_depth;   /* weft_block_begin's that have not ended */
    _Atomic uint32_t section; /* counts beginnings and ends: odd, it is about to block. Written by this thread */
    int64_t slice_start;      /* debug mode: when the task that runs last came to run */
    pthread_t thread;
    _Atomic int tid;
    bool exited;                 /* to be joined; under the runtime's drivers_lock */
    _Atomic uint32_t has_worker; /* futex: a spare waits for it */
    struct weft__driver *next;   /* all drivers of the runtime */
    struct weft__driver *next_spare;
    struct weft__event_buffer events;
};

/* ---- who am I ---- */

/* In the child of a fork: this thread drives nothing. */
void weft__driver_forget(void);

/*
 * The driver of the calling thread, or NULL. Read anew each time: the thread pointer is fetched by volatile
 * assembly, because a compiler may keep the address of a thread-local over a call that resumes on another
 * thread. The offset of the variable from the thread pointer is the same in every thread (initial-exec model).
 */
static inline struct weft__driver *weft__driver(void)
{
#if defined(__x86_64__)
    struct weft__driver *driver;

    __asm__ volatile("movq %%fs:(%1), %0" : "=r"(driver) : "r"(weft__process.driver_offset) : "memory");
    return driver;
#elif defined(__aarch64__)
    char *thread_pointer;

    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(thread_pointer));
    return *(struct weft__driver **)(thread_pointer + weft__process.driver_offset);
#else
#error "weft runs on x86-64 and AArch64"
#endif
}

/* ---- being inside ---- */

/* The thread that drives it; valid while the runtime lives. */
static inline struct weft__driver *weft__driver_of(const struct weft__worker *worker)
{
    /* acquire: the driver's fields; pairs with the release in weft__runtime_give_worker */
    return atomic_load_explicit(&worker->driver, memory_order_acquire);
}

static inline void weft__leave(struct weft__driver *driver)
{
    atomic_store_explicit(&driver->inside, 0, memory_order_release);
}

struct weft__worker *weft__enter_slowly(struct weft__driver *driver);

/* True: inside, and nobody wants anything of this driver. False: not inside. */
static inline bool weft__try_enter(struct weft__driver *driver)
{
    atomic_store_explicit(&driver->inside, 1, memory_order_relaxed);
    weft__fence_light();
    if (__builtin_expect(atomic_load_explicit(&driver->summons, memory_order_acquire), 0)) {
        weft__leave(driver);
        return false;
    }
    /* It has one while nobody is seizing it. */
    if (!driver->worker)
        __builtin_unreachable();
    return true;
}

/* The worker, entered; or NULL: it was taken from this driver. */
static inline struct weft__worker *weft__enter(struct weft__driver *driver)
{
    if (__builtin_expect(!weft__try_enter(driver), 0))
        return weft__enter_slowly(driver);
    return driver->worker;
}

/* Has its task run for long, while others wait? By the driver. */
static inline bool weft__is_overdue(const struct weft__driver *driver)
{
    return atomic_load_explicit(&driver->summons, memory_order_relaxed) & WEFT__OVERDUE;
}

static inline void weft__set_overdue(struct weft__driver *driver, bool overdue)
{
    if (overdue == weft__is_overdue(driver))
        return;
    if (overdue)
        atomic_fetch_or_explicit(&driver->summons, WEFT__OVERDUE, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&driver->summons, ~(uint32_t)WEFT__OVERDUE, memory_order_relaxed);
}

/* Make the driver look around when it next enters: it has not for a while. Any thread. */
void weft__nudge(struct weft__worker *worker);

/* Enter somebody else's worker by force. True: inside until weft__release. */
bool weft__seize(struct weft__worker *worker);
void weft__release(struct weft__worker *worker);

/* ---- counting ---- */

static inline void weft__count(_Atomic uint64_t *counter, uint64_t n)
{
    /* One writer; release so that whoever reads the end of a task has seen its spawn (see runtime.c). */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_release);
}

/* ---- what tasks need of it ---- */

/* Park the calling coroutine until it is made ready. Returns the driver it resumes on. */
struct weft__driver *weft__park(struct weft__driver *driver);

/* Let others run; returns the driver it resumes on. */
struct weft__driver *weft__pass_on(struct weft__driver *driver);

/* Run a new task at once, and queue the caller to go on after it; or, if that cannot be, queue the task. */
void weft__run_eagerly(struct weft__driver *driver, weft_task *task);

static inline void weft__displace_next(struct weft__worker *worker, weft_task *task, uintptr_t bits)
{
    weft_task *displaced = worker->next;

    weft__set_home(task, (uintptr_t)worker | bits);
    worker->next = task;
    if (displaced)
        weft__queue_push(&worker->queue, displaced, worker);
}

/* Queue a task that its caller owns (weft__state_ready said so), inside. */
static inline void weft__make_next(struct weft__worker *worker, weft_task *task)
{
    weft__displace_next(worker, task, 0);
}

/* The same for one that has waited for the end of a task: it is as new as it was (queue.h). */
static inline void weft__make_awaiter_next(struct weft__worker *worker, weft_task *task)
{
    weft__displace_next(worker, task, weft__home(task) & (WEFT__HOME_NEW | WEFT__HOME_TREE | WEFT__HOME_AGAIN));
}

/* The same from outside any worker of its runtime. */
void weft__queue_from_outside(weft_task *task, struct weft__worker *worker);

/* The same for who is inside weft__outside_enter. */
void weft__hand_over(weft_task *task, struct weft__worker *worker);

/* Wake the worker if it sleeps. Any thread; after the work was published. Executes a full fence. */
void weft__notify(struct weft__worker *worker);

/* A worker that a thread outside should hand new work to. */
struct weft__worker *weft__pick_worker(weft_runtime *runtime);

/* Look around: clock, events, deadlines, inbox, peers. Inside; when the credit is used up. */
void weft__maintain(struct weft__driver *driver, struct weft__worker *worker);

/* A task was run in place: counts a little towards the next look around. Inside. */
static inline void weft__charge(struct weft__driver *driver, struct weft__worker *worker, int32_t credit)
{
    worker->credit -= credit;
    if (__builtin_expect(worker->credit <= 0, 0))
        weft__maintain(driver, worker);
}

enum { WEFT__CREDIT_DISPATCH = 16, WEFT__CREDIT_IN_PLACE = 1, WEFT__CREDIT_MOST = 1024 };

/* One more, one less task is pinned to it. Any thread. The monitor does not take over a worker that has some; it
 * looks inside (seized), so a task that is pinned to its own worker is counted before it is queued. */
static inline void weft__pin(struct weft__worker *worker)
{
    atomic_fetch_add_explicit(&worker->pinned, 1, memory_order_relaxed);
}

static inline void weft__unpin(struct weft__worker *worker)
{
    atomic_fetch_sub_explicit(&worker->pinned, 1, memory_order_relaxed);
}

/* ---- threads ---- */

void *weft__driver_main(void *driver);

#endif
