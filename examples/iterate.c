/*
 * Iterating: step by step, with "for each", and with "for each" over a generator that awaits something for each of
 * its items. The last is an asynchronous generator: what suspends its body suspends the task that iterates, so
 * other tasks run meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <weft.h>

static intptr_t one_two(void *unused)
{
    (void)unused;
    weft_gen_yield(1);
    weft_gen_yield(2);
    return 0;
}

static int step_by_step(weft_gen *gen)
{
    intptr_t item;
    int rc;

    while ((rc = weft_gen_next(gen, &item)) == 1)
        printf("next: %ld\n", (long)item);
    if (rc == 0)
        printf("next: finished\n");
    return rc;
}

static intptr_t fetch(void *item)
{
    int rc = weft_sleep(WEFT_MS(50)); /* stands for a query */

    return rc < 0 ? rc : (intptr_t)item * 100;
}

static intptr_t fetched(void *unused)
{
    (void)unused;
    for (intptr_t i = 1; i <= 2; i++) {
        intptr_t item = weft_await(weft_spawn(fetch, (void *)i));

        if (weft_is_error(item))
            return item;
        weft_gen_yield(item);
    }
    return 0;
}

/* The result of the generator's function: how an iteration that has ended went. */
static intptr_t for_each(const char *what, weft_gen *gen)
{
    WEFT_GEN_FOR(item, gen)
    {
        printf("%s: %ld\n", what, (long)item);
    }
    return weft_gen_result(gen);
}

static intptr_t iterate(void *unused)
{
    weft_gen *steps = weft_gen_new(one_two, NULL), *plain = weft_gen_new(one_two, NULL),
             *async = weft_gen_new(fetched, NULL);
    intptr_t rc = -ENOMEM;

    (void)unused;
    if (steps && plain && async) {
        rc = step_by_step(steps);
        if (rc == 0)
            rc = for_each("for each", plain);
        if (rc == 0)
            rc = for_each("for each, awaited", async);
    }
    weft_gen_free(steps);
    weft_gen_free(plain);
    weft_gen_free(async);
    return rc;
}

int main(void)
{
    intptr_t rc = weft_run(iterate, NULL);

    if (rc < 0)
        fprintf(stderr, "iterate: %s\n", strerror((int)-rc));
    return rc < 0;
}
