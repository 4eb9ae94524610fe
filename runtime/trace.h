/* Tracing: the function that is told of every change of a task's state. Any thread, also inside a worker. */
#ifndef WEFT_RUNTIME_TRACE_H
#define WEFT_RUNTIME_TRACE_H

#include <weft/debug.h>

void weft__trace(enum weft_trace_kind kind, const weft_task *task, intptr_t value);

/* Begin to write a line for each event to the file, unless that was begun before. 0 or -errno. */
int weft__trace_to_file(const char *path);

#endif
