/*
 * Task-locals inside the machine: handing them on, and their end. A task's values are a list in its `extra`, newest
 * first, that nobody but the task touches: its spawner before it is queued, itself while it runs, and whoever ends it
 * if it never ran.
 */
#ifndef WEFT_RUNTIME_LOCAL_H
#define WEFT_RUNTIME_LOCAL_H

#include <stdbool.h>
#include <weft/local.h>

/* Give the child what its spawner has, for keys that inherit. False: out of memory, it has none. Calls the program:
 * outside any worker. */
bool weft__local_inherit(const weft_task *spawner, weft_task *child);

/* Destroy a task's values (WEFT__FLAG_LOCALS). Calls the program: outside any worker, before the task is DONE. */
void weft__local_end(weft_task *task);

#endif
