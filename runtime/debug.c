/* Messages (debug.h). Any thread. */
#include "runtime/debug.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void weft__say(const char *format, ...)
{
    char line[512] = "weft: ";
    size_t length = strlen(line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    /* One write: lines of several threads do not mix. */
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return;
}

/* Outside a task there is no runtime to ask whether it debugs. */
static bool debugging_by_environment(void)
{
    const char *value = getenv("WEFT_DEBUG");

    return value && strcmp(value, "1") == 0;
}

int weft__misused(const char *function)
{
    static atomic_bool said;

    if (debugging_by_environment() && !atomic_exchange_explicit(&said, true, memory_order_relaxed))
        weft__say("%s was called outside a task: it returns -EPERM (a null handle where it returns one). Call it "
                  "from a function run by weft_run or weft_spawn. Further calls like this are not reported.",
                  function);
    return -EPERM;
}

int weft__misused_stackless(const char *function)
{
    static atomic_bool said;

    if (debugging_by_environment() && !atomic_exchange_explicit(&said, true, memory_order_relaxed))
        weft__say("%s was called in a stackless task: it returns -EPERM. Use the weft_async_ operations there. "
                  "Further calls like this are not reported.",
                  function);
    return -EPERM;
}
