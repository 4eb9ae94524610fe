/*
 * Three deliveries at once: weft_gather awaits them all and keeps their results in the order of the arguments.
 * It takes as long as the longest, 3 seconds and not 1 + 2 + 3, on one worker as on eight: they wait, and waiting
 * needs no worker.
 */
#include <stdio.h>
#include <string.h>
#include <weft.h>

struct meal {
    const char *name;
    int seconds; /* to eat it */
};

static intptr_t eat(void *arg)
{
    const struct meal *meal = arg;
    int rc;

    printf("%s delivered\n", meal->name);
    rc = weft_sleep(WEFT_SEC(meal->seconds));
    if (rc < 0)
        return rc;
    printf("%s finished\n", meal->name);
    return meal->seconds;
}

static intptr_t lunch(void *unused)
{
    /* Static: an argument must live as long as its task, and if one fails, gather does not wait for the others. */
    static struct meal pasta = {"pasta", 1}, pizza = {"pizza", 2}, roast = {"roast", 3};
    weft_task *tasks[] = {weft_spawn(eat, &pasta), weft_spawn(eat, &pizza), weft_spawn(eat, &roast)};
    intptr_t seconds[3];
    intptr_t rc = weft_gather(tasks, 3, seconds); /* also says so if one of them could not be spawned */

    (void)unused;
    if (rc < 0)
        return rc;
    printf("[%ld, %ld, %ld]\n", (long)seconds[0], (long)seconds[1], (long)seconds[2]);
    return 0;
}

int main(void)
{
    intptr_t rc = weft_run(lunch, NULL);

    if (rc < 0)
        fprintf(stderr, "delivery: %s\n", strerror((int)-rc));
    return rc < 0;
}
