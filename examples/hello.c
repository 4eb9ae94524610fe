/* Hello, a second later, world: a task that sleeps parks, and its worker is free for others meanwhile. */
#include <stdio.h>
#include <string.h>
#include <weft.h>

static intptr_t hello(void *unused)
{
    int rc;

    (void)unused;
    printf("Hello ...\n");
    rc = weft_sleep(WEFT_SEC(1)); /* 0, or what ended it early: -ECANCELED, -ETIMEDOUT */
    if (rc < 0)
        return rc;
    printf("... World!\n");
    return 0;
}

int main(void)
{
    /* Starts the workers, runs hello as the main task, stops the workers, returns the task's result. */
    intptr_t rc = weft_run(hello, NULL);

    if (rc < 0)
        fprintf(stderr, "hello: %s\n", strerror((int)-rc));
    return rc < 0;
}
