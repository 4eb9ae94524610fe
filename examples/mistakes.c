/*
 * Mistakes, and what comes of them: an error code or a message, never undefined behaviour. The messages are those
 * of debug mode (WEFT_DEBUG=1 in the environment), which the program turns on for itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

static intptr_t work(void *unused)
{
    (void)unused;
    printf("the task runs all the same\n");
    return 0;
}

static intptr_t fail(void *unused)
{
    (void)unused;
    return -EIO;
}

static void show(const char *what, intptr_t rc)
{
    printf("%s: %s\n", what, rc < 0 ? strerrorname_np((int)-rc) : "0");
}

static intptr_t make_mistakes(void *unused)
{
    const weft_spawn_options lost = {.name = "lost"}, careless = {.name = "careless"};
    weft_task *task;

    (void)unused;
    show("weft_run inside weft_run", weft_run(work, NULL));
    show("weft_await of nothing", weft_await((weft_task *)NULL));

    /* A handle that is neither awaited nor detached. The task runs; its record is lost until the runtime stops. */
    task = weft_spawn_with(&lost, work, NULL);
    (void)task;

    /* Whoever detaches a task does not hear of its failure. */
    weft_detach(weft_spawn_with(&careless, fail, NULL));
    return weft_sleep(WEFT_MS(100)); /* what has not ended when this one does would be cancelled */
}

int main(void)
{
    intptr_t rc;

    if (setenv("WEFT_DEBUG", "1", 1) < 0)
        return 1;
    show("weft_sleep outside a task", weft_sleep(WEFT_SEC(1)));
    printf("weft_spawn outside a task: %s\n", weft_spawn(work, NULL) ? "a handle" : "NULL");
    rc = weft_run(make_mistakes, NULL);
    show("weft_run", rc);
    return rc < 0;
}
