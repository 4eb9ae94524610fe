/* What is done for those who observe (observe.h). Called by the thread on which the thing happens. */
#include "runtime/observe.h"

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/local.h"
#include "runtime/runtime.h"
#include "runtime/trace.h"

void weft__observe_begin(uint32_t what)
{
    if (!(atomic_load_explicit(&weft__process.observing, memory_order_relaxed) & what))
        atomic_fetch_or_explicit(&weft__process.observing, what, memory_order_relaxed);
}

void weft__observe_stop(uint32_t what)
{
    atomic_fetch_and_explicit(&weft__process.observing, ~what, memory_order_relaxed);
}

static bool is_observed_for(uint32_t what)
{
    return atomic_load_explicit(&weft__process.observing, memory_order_relaxed) & what;
}

void weft__observe(enum weft_trace_kind kind, const weft_task *task, intptr_t value)
{
    if (is_observed_for(WEFT__OBSERVE_TRACE))
        weft__trace(kind, task, value);
}

/* ---- slices ---- */

/* How long tasks run without suspending, in debug mode. A slice belongs to one task: where one runs in place for
 * another, theirs take turns. */

static bool measures_slices(const struct weft__driver *driver)
{
    return driver->runtime->config.debug && driver->runtime->config.slow_ms > 0;
}

static void begin_slice(struct weft__driver *driver)
{
    if (measures_slices(driver))
        driver->slice_start = weft__clock_now();
}

static void end_slice(struct weft__driver *driver, const weft_task *task)
{
    int64_t now, length;

    if (!measures_slices(driver))
        return;
    now = weft__clock_now();
    length = now - driver->slice_start;
    driver->slice_start = now;
    if (length / 1000000 >= driver->runtime->config.slow_ms)
        weft__debug_name_slow(task, length);
}

/* ---- a task's life ---- */

bool weft__observe_made(weft_task *task, const void *at)
{
    struct weft__driver *driver = weft__driver();
    weft_task *spawner = driver && driver->coroutine ? driver->coroutine->current : NULL;

    if (spawner && (spawner->flags & WEFT__FLAG_LOCALS) && !weft__local_inherit(spawner, task))
        return false;
    if (task->runtime->config.debug)
        weft__debug_note_spawn(task, at);
    weft__observe(WEFT_TRACE_SPAWN, task, (intptr_t)spawner);
    return true;
}

bool weft__observe_spawn(weft_task *task, const void *at)
{
    if (!weft__observe_made(task, at))
        return false;
    weft__observe_ready(task);
    return true;
}

void weft__observe_ready(weft_task *task)
{
    weft__observe(WEFT_TRACE_READY, task, 0);
}

void weft__observe_start(weft_task *task)
{
    begin_slice(weft__driver());
    weft__observe(WEFT_TRACE_START, task, 0);
}

void weft__observe_in_place(weft_task *task, weft_task *awaiter)
{
    end_slice(weft__driver(), awaiter);
    weft__observe(WEFT_TRACE_INLINE, task, (intptr_t)awaiter);
}

void weft__observe_end_unstarted(weft_task *task, intptr_t result)
{
    if (task->flags & WEFT__FLAG_LOCALS)
        weft__local_end(task);
    weft__observe(WEFT_TRACE_END, task, result);
}

void weft__observe_end(weft_task *task, intptr_t result)
{
    if (task->flags & WEFT__FLAG_LOCALS)
        weft__local_end(task);
    end_slice(weft__driver(), task);
    weft__observe(WEFT_TRACE_END, task, result);
}

/* ---- waiting ---- */

/* The stepper stands for the stackless task that it runs. */
static weft_task *coroutine_of(struct weft__driver *driver)
{
    return driver->coroutine == &driver->stepper ? driver->stepper.current : driver->coroutine;
}

void weft__observe_park(struct weft__driver *driver)
{
    weft_task *innermost = driver->coroutine->current;

    end_slice(driver, innermost);
    weft__observe(WEFT_TRACE_PARK, coroutine_of(driver), (intptr_t)innermost);
}

void weft__observe_pass_on(struct weft__driver *driver)
{
    end_slice(driver, driver->coroutine->current);
}

void weft__observe_yield(struct weft__driver *driver)
{
    weft__observe_pass_on(driver);
    weft__observe_ready(coroutine_of(driver));
}

void weft__observe_resume(struct weft__driver *driver)
{
    begin_slice(driver);
    weft__observe(WEFT_TRACE_RESUME, coroutine_of(driver), (intptr_t)driver->coroutine->current);
}
