/*
 * SIGINT for the thread in weft_run: the first cancels the main task, the second ends the process.
 */
#ifndef WEFT_RUNTIME_INTERRUPT_H
#define WEFT_RUNTIME_INTERRUPT_H

#include <stdbool.h>

/* Take the signal, if nobody has: the calling thread, which is outside any runtime, is about to wait for the main task.
 * True: it was taken, and is to be given back. */
bool weft__interrupt_begin(void);
void weft__interrupt_end(void);

#endif
