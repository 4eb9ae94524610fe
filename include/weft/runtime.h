/*
 * Running: a runtime is N workers, one blocking pool and one monitor. A process may have several.
 *
 * fork(2): the threads of a runtime are not in the child. There weft_runtime_run, _go, _stop and weft_await return
 * -ENOTRECOVERABLE for a runtime of the parent and its tasks, and weft_runtime_spawn NULL. A child that a task has
 * forked is outside of it from then on (calls for tasks return -EPERM), and ends when the task's function returns; it
 * is best left with exec or _exit. It may start a runtime of its own; what the parent's runtime knew of descriptors
 * is forgotten.
 */
#ifndef WEFT_RUNTIME_H
#define WEFT_RUNTIME_H

#include <weft/base.h>
#include <weft/config.h>

WEFT_BEGIN_DECLS

/*
 * Start a runtime configured by the environment, run fn(arg) as its main task, stop the runtime (the tasks
 * that are left are cancelled and waited for), return the main task's result.
 * If SIGINT has its default action then, the first one cancels the main task, whose result is returned all the same; the
 * second one ends the process. WEFT_SIGINT=off leaves the signal alone.
 * Returns -EALREADY inside a task, -EINVAL if a WEFT_* variable has a bad value (a message says which), or
 * the errno of what could not be had (threads, descriptors, memory). Blocks the calling thread.
 */
WEFT_API intptr_t weft_run(weft_fn *fn, void *arg);

/*
 * Start a runtime and store it in *runtime. A NULL config is the environment's (weft_config_from_env).
 * Returns 0, -EINVAL (a bad value in the configuration, or `runtime` is NULL), -EAGAIN, -ENOMEM, -EMFILE…; on
 * an error nothing is left behind. Any thread, not a suspension point.
 */
WEFT_API int weft_runtime_start(const weft_config *config, weft_runtime **runtime);

/*
 * Run fn(arg) as a task of the runtime and wait for its result. Not from inside a task of the same runtime
 * (-EALREADY). -EINVAL for NULL; -ENOMEM; -ESHUTDOWN if the runtime is stopping. Blocks the calling thread; a task of
 * another runtime parks instead, as in weft_await, a stackless one gets -EPERM.
 */
WEFT_API intptr_t weft_runtime_run(weft_runtime *runtime, weft_fn *fn, void *arg);

/*
 * Spawn fn(arg) on the runtime from any thread, tasks of other runtimes included. Returns a handle as
 * weft_spawn does, or NULL if memory ran out or the runtime is stopping. Not a suspension point.
 */
WEFT_API weft_task *weft_runtime_spawn(weft_runtime *runtime, weft_fn *fn, void *arg) WEFT_NODISCARD;

/* As weft_runtime_spawn, detached. Returns 0, -ENOMEM or -ESHUTDOWN. */
WEFT_API int weft_runtime_go(weft_runtime *runtime, weft_fn *fn, void *arg);

/*
 * Stop: no more tasks are taken from outside, every task is cancelled, tasks and running blocking calls are
 * waited for until `grace` nanoseconds are over; then those that hold out are named on stderr and left
 * behind. Frees the runtime if nothing was left behind. WEFT_FOREVER waits without limit.
 * Returns 0, or -ETIMEDOUT if something was left behind (its memory and its threads stay: the process is
 * expected to end soon), -EDEADLK from inside one of its tasks, -EINVAL for NULL. Blocks the calling thread.
 */
WEFT_API int weft_runtime_stop(weft_runtime *runtime, int64_t grace);

/* The runtime of the calling task, or NULL. */
WEFT_API weft_runtime *weft_runtime_current(void);

/* How many workers the runtime has. */
WEFT_API unsigned weft_runtime_workers(const weft_runtime *runtime);

/* Counters since the start, summed over the workers; read without stopping anything, so only roughly
 * consistent with each other. */
typedef struct weft_stats {
    uint64_t spawned;         /* tasks made */
    uint64_t ended;           /* tasks that returned */
    uint64_t ran_in_place;    /* of these, awaited before they started and run on the awaiter's stack */
    uint64_t dispatched;      /* switches to a task */
    uint64_t steals;          /* thefts that brought something */
    uint64_t stolen;          /* tasks taken in them */
    uint64_t wakes;           /* sleeping workers woken by another thread */
    uint64_t sleeps;          /* times a worker went to sleep */
    uint64_t polls;           /* looks at epoll, sleeping ones included */
    uint64_t events;          /* descriptor events seen */
    uint64_t polled_for_peer; /* looks at the event loop of a busy worker */
    uint64_t timers_fired;
    uint64_t takeovers;       /* stuck workers handed to a spare thread */
    uint64_t blocking_jobs;   /* calls taken by the blocking pool */
    uint64_t blocking_refused;/* calls refused because the pool's queue was full */
    uint32_t blocking_threads;/* threads in the pool now */
    uint32_t spare_threads;   /* spare worker threads now */
    uint64_t live_tasks;      /* tasks that have not ended */
    uint64_t stacks;          /* stacks in use by tasks */
} weft_stats;

/* NULL (weft_runtime_current() outside a task): all zero. Any thread; not a suspension point. */
WEFT_API void weft_runtime_stats(const weft_runtime *runtime, weft_stats *stats);

WEFT_END_DECLS

#endif
