/*
 * fork(2) by the program while runtimes run. Their threads are not in the child, which has a copy of their memory only.
 * What the child does with a runtime of its parent is refused; it may start one of its own.
 */
#ifndef WEFT_RUNTIME_FORK_H
#define WEFT_RUNTIME_FORK_H

#include <stdint.h>

/* How many forks lie between the first process and this one. What belongs to one process only remembers it. Written
 * by the only thread of a child that has just been made. */
extern uint32_t weft__forks __attribute__((visibility("hidden")));

/* In the child of a fork a task's function returns: there is nothing to return to, so the process ends. */
void weft__fork_returned(void) __attribute__((noreturn, cold));

/* From the first runtime on children are set up. 0 or -errno. */
int weft__fork_watch(void);

#endif
