/*
 * Looking at the tasks of a running program, and having them printed by a signal. Any thread.
 */
#ifndef WEFT_RUNTIME_INSPECT_H
#define WEFT_RUNTIME_INSPECT_H

#include <weft/base.h>

/* A runtime can be printed from now on; no longer. The first one looks at WEFT_DUMP_SIGNAL, too. 0 or -errno. */
int weft__inspect_add(weft_runtime *runtime);
void weft__inspect_remove(weft_runtime *runtime);

#endif
