/* Saying what the program did wrong: only in debug mode, each thing once. Any thread. */
#ifndef WEFT_RUNTIME_DEBUG_H
#define WEFT_RUNTIME_DEBUG_H

/* A call that is for tasks was made outside one. Always -EPERM. */
int weft__misused(const char *function);

/* The same for a stackless task, where only weft_async_* may wait: -EPERM. */
int weft__misused_stackless(const char *function);

/* A line on stderr that starts with "weft: ". */
void weft__say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
