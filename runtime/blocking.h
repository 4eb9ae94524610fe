/*
 * The blocking pool of a runtime: threads for synchronous calls.
 */
#ifndef WEFT_RUNTIME_BLOCKING_H
#define WEFT_RUNTIME_BLOCKING_H

#include <stdbool.h>
#include <stdint.h>
#include <weft/config.h>
#include <weft/runtime.h>
#include <weft/task.h>

struct weft__pool;

/* No thread is started until the first call. NULL: out of memory. */
struct weft__pool *weft__pool_new(weft_runtime *runtime, const weft_config *config);

/*
 * Refuse new calls, cancel those that have not started, wait for the running ones until `deadline` (monotonic).
 * Returns how many calls are still running then (0: all threads have been joined); names them on stderr (the
 * name of the task or the address of the function).
 */
unsigned weft__pool_stop(struct weft__pool *pool, int64_t deadline);

/* After weft__pool_stop returned 0. */
void weft__pool_free(struct weft__pool *pool);

/* weft_cancel of a task from weft_spawn_blocking: removes the call if it has not started (its result is then
 * -ECANCELED). Any thread. */
void weft__pool_cancel(weft_task *task);

/*
 * The monitor's tick, every few milliseconds at most while the pool has calls that wait: adds threads if
 * nothing has been taken since the last tick. True: the pool wants another tick.
 */
bool weft__pool_tick(struct weft__pool *pool);

/* What that returned last, or is it wanted since then? */
bool weft__pool_wants_tick(struct weft__pool *pool);

/* Fills the blocking_* fields. */
void weft__pool_stats(const struct weft__pool *pool, weft_stats *stats);

/* Implemented by the runtime: its pool, and "please tick soon" (cheap if the monitor is about to). */
struct weft__pool *weft__runtime_pool(weft_runtime *runtime);
void weft__monitor_hurry(weft_runtime *runtime);

#endif
