/*
 * Seeing what tasks do: the places where a task is made, starts, waits, is made ready, goes on and ends tell this. One
 * word of the process says whether anybody wants to know: a trace, debug mode, or task-locals, which have to be handed
 * on and destroyed at some of the same places. While it is 0 each place costs a load from a cache line that is in use
 * anyway and a branch that is never taken. What follows it (observe.c) is off the straight path, may be slow, and is
 * called outside any worker unless it says otherwise.
 */
#ifndef WEFT_RUNTIME_OBSERVE_H
#define WEFT_RUNTIME_OBSERVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/debug.h>
#include <weft/task.h>

struct weft__driver;

enum {
    WEFT__OBSERVE_TRACE = 1u << 0,  /* weft_trace has a function */
    WEFT__OBSERVE_DEBUG = 1u << 1,  /* a runtime in debug mode was started */
    WEFT__OBSERVE_LOCALS = 1u << 2, /* a task-local was set */
};

/* Read all the time, hardly ever written. */
struct weft__process {
    intptr_t driver_offset;     /* worker.h */
    _Atomic uint32_t observing; /* WEFT__OBSERVE_* */
    bool on_valgrind;           /* annotate.h; its request takes twenty instructions for nothing elsewhere */
} __attribute__((aligned(64)));

extern struct weft__process weft__process __attribute__((visibility("hidden")));

/* Relaxed: who starts to observe sees what comes after it has spread; a task that has locals sees its own store, and a
 * child of it that store by the hand-over of the child. */
static inline bool weft__observed(void)
{
    return __builtin_expect(atomic_load_explicit(&weft__process.observing, memory_order_relaxed) != 0, 0);
}

void weft__observe_begin(uint32_t what);
void weft__observe_stop(uint32_t what);

#define WEFT__COLD __attribute__((noinline, cold))

/* A task was made by the caller, and is not queued; `at` is where. False: out of memory, it must not be queued. */
WEFT__COLD bool weft__observe_made(weft_task *task, const void *at);
/* The same, and it is about to be queued. */
WEFT__COLD bool weft__observe_spawn(weft_task *task, const void *at);

/* It is about to be put into a run queue. Its caller owns it. Also inside a worker. */
WEFT__COLD void weft__observe_ready(weft_task *task);

/* It begins to run: on its own stack, or in steps; or on that of its awaiter. */
WEFT__COLD void weft__observe_start(weft_task *task);
WEFT__COLD void weft__observe_in_place(weft_task *task, weft_task *awaiter);

/* Its function has returned, and it is still the current task: destroys its locals. */
WEFT__COLD void weft__observe_end(weft_task *task, intptr_t result);
/* It ends and has never run. */
WEFT__COLD void weft__observe_end_unstarted(weft_task *task, intptr_t result);

/* The coroutine, or the stackless task, that runs on this thread stops to wait; has had its turn; and, inside a worker, is
 * queued again after that; goes on. */
WEFT__COLD void weft__observe_park(struct weft__driver *driver);
WEFT__COLD void weft__observe_pass_on(struct weft__driver *driver);
WEFT__COLD void weft__observe_yield(struct weft__driver *driver);
WEFT__COLD void weft__observe_resume(struct weft__driver *driver);

/* Any other event. Also inside a worker. */
WEFT__COLD void weft__observe(enum weft_trace_kind kind, const weft_task *task, intptr_t value);

#endif
