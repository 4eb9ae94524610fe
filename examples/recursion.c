/*
 * Endless recursion in a task. Below each stack lies a page that may not be touched: the process ends there, by
 * SIGSEGV as it would otherwise, but first weft says which task it was, how large its stack is and what to raise.
 */
#include <stdio.h>
#include <string.h>
#include <weft.h>

/* The sum of 1 to n, if n is not negative. */
static intptr_t sum(void *n)
{
    volatile intptr_t own = (intptr_t)n; /* volatile: or an optimising compiler makes a loop of it */

    return own == 0 ? 0 : own + sum((void *)(own - 1));
}

static intptr_t start(void *unused)
{
    const weft_spawn_options options = {.name = "sum"};

    (void)unused;
    return weft_await(weft_spawn_with(&options, sum, (void *)-1));
}

int main(void)
{
    printf("down we go\n");
    fflush(stdout);
    printf("%s\n", strerror((int)-weft_run(start, NULL))); /* not reached, or the task could not be spawned */
    return 1;
}
