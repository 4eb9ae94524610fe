/* Saying what the program did wrong: only in debug mode, each thing once. Any thread. */
#ifndef WEFT_RUNTIME_DEBUG_H
#define WEFT_RUNTIME_DEBUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/base.h>

/* A call that is for tasks with a stack was made outside one. Always -EPERM. */
int weft__misused(const char *function);

/* The same for a stackless task, where only weft_async_* may wait: -EPERM. */
int weft__misused_stackless(const char *function);

/* A call that waits for a whole runtime was made inside it. Always -EALREADY. */
int weft__misused_nested(const char *function);

/* A line on stderr that starts with "weft: ". */
void weft__say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "program+0x1234 (function+0x12)", as far as it is known: the module's offset is what addr2line wants. */
void weft__describe_address(const void *address, char *text, size_t size);

/* Remember where a task was spawned, if memory allows. Before it is queued. */
void weft__debug_note_spawn(weft_task *task, const void *at);

/* A task ran for so long (ns) without suspending. */
void weft__debug_name_slow(const weft_task *task, int64_t length);

/* All tasks of the runtime have ended: name those whose handle was never given back, and report those that failed. */
void weft__debug_name_unawaited(weft_runtime *runtime);

#endif
