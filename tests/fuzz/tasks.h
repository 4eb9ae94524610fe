/* For targets that call what only a task may call: one runtime for all inputs. */
#ifndef WEFT_TESTS_FUZZ_TASKS_H
#define WEFT_TESTS_FUZZ_TASKS_H

#include <weft.h>

#include "tests/fuzz/fuzz.h"

static weft_runtime *fuzz_runtime;

static void fuzz_stop(void)
{
    must(weft_runtime_stop(fuzz_runtime, WEFT_FOREVER) == 0);
    fuzz_runtime = NULL;
}

/* Run fn(arg) as a task, alone. */
static inline intptr_t fuzz_run(weft_fn *fn, void *arg)
{
    static const weft_config config = {.workers = 1};

    if (!fuzz_runtime) {
        must(weft_runtime_start(&config, &fuzz_runtime) == 0);
        atexit(fuzz_stop);
    }
    return weft_runtime_run(fuzz_runtime, fn, arg);
}

#endif
