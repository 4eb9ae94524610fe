/* A task awaits another one and goes on with its result. */
#include <stdio.h>
#include <string.h>
#include <weft.h>

/* Arguments and results are a pointer wide: a small number needs no memory of its own. */
static intptr_t f(void *x)
{
    return (intptr_t)x * (intptr_t)x;
}

static intptr_t g(void *unused)
{
    weft_task *task = weft_spawn(f, (void *)10); /* from here on it could run on another worker */

    (void)unused;
    return weft_await(task); /* has it not started yet, this is a function call; -EINVAL if it was never spawned */
}

int main(void)
{
    intptr_t result = weft_run(g, NULL);

    if (weft_is_error(result)) {
        fprintf(stderr, "nested_await: %s\n", strerror((int)-result));
        return 1;
    }
    printf("%ld\n", (long)result);
    return 0;
}
