/*
 * usage: sleep [SECONDS]
 *
 * One task, run to completion: weft_run returns what the task returns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

static intptr_t nap(void *arg)
{
    intptr_t seconds = (intptr_t)arg;
    int rc;

    printf("Sleep %ld seconds~!\n", (long)seconds);
    rc = weft_sleep(WEFT_SEC(seconds));
    return rc < 0 ? rc : seconds;
}

int main(int argc, char **argv)
{
    char *end = "";
    long seconds = argc > 1 ? strtol(argv[1], &end, 10) : 1;
    intptr_t result;

    if (argc > 2 || *end || seconds < 0 || seconds > 3600) {
        fprintf(stderr, "usage: sleep [SECONDS], at most 3600\n");
        return 2;
    }
    result = weft_run(nap, (void *)(intptr_t)seconds);
    if (weft_is_error(result)) {
        fprintf(stderr, "sleep: %s\n", strerror((int)-result));
        return 1;
    }
    printf("result: %ld\n", (long)result);
    return 0;
}
