/* A call that may block: on a thread of the pool if a task makes it, here on a thread outside the runtime. */
#ifndef WEFT_IO_POOL_CALL_H
#define WEFT_IO_POOL_CALL_H

#include <weft/blocking.h>

#include "runtime/park.h"

static inline intptr_t weft__pool_call(weft_fn *fn, void *arg)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    return weft__coroutine_self() ? weft_blocking(fn, arg) : fn(arg);
}

#endif
