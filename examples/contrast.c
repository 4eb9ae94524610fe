/*
 * Concurrency, parallelism and blocking, side by side: three tasks that each spend 100 ms waiting, computing,
 * blocking their worker, or blocking a thread of the pool, on one worker and on several (WEFT_WORKERS; if it is not
 * set, as many as there are processors).
 *
 * Waits overlap on one worker: that is concurrency. Computing gets faster only with workers (and processors for
 * them): that is parallelism. Blocking is neither: it takes a worker and does not use it. (Take-over, which would
 * limit the damage, is off here.)
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <weft.h>

enum { TASKS = 3, SPENT_MS = 100 };

static intptr_t park(void *unused)
{
    (void)unused;
    return weft_sleep(WEFT_MS(SPENT_MS));
}

/* A fixed time on the processor, however long that takes: what shares a processor takes longer. */
static intptr_t compute(void *unused)
{
    struct timespec used;
    int64_t end = -1, now;

    (void)unused;
    do {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used); /* no suspension point: the task stays on its thread */
        now = (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
        if (end < 0)
            end = now + WEFT_MS(SPENT_MS);
    } while (now < end);
    return 0;
}

/* What a synchronous library does. */
static intptr_t block(void *unused)
{
    struct timespec time = {0, SPENT_MS * 1000000L};

    (void)unused;
    nanosleep(&time, NULL);
    return 0;
}

static intptr_t block_in_pool(void *unused)
{
    return weft_blocking(block, unused);
}

static const struct work {
    const char *name;
    weft_fn *fn;
} works[] = {{"waiting", park},
             {"computing", compute},
             {"blocking its worker", block},
             {"blocking in the pool", block_in_pool}};

enum { WORKS = sizeof works / sizeof *works };

/* How long the tasks take, in milliseconds. */
static intptr_t measure(void *arg)
{
    const struct work *work = arg;
    int64_t began = weft_now();
    weft_task *tasks[TASKS];
    intptr_t rc;

    for (int i = 0; i < TASKS; i++)
        tasks[i] = weft_spawn(work->fn, NULL);
    rc = weft_gather(tasks, TASKS, NULL);
    return rc < 0 ? rc : (weft_now() - began) / WEFT_MS(1);
}

/* Measure each kind of work on so many workers; the first error, or 0. */
static intptr_t measure_all(uint32_t workers, intptr_t *ms)
{
    weft_config config = {.workers = workers, .takeover_us = WEFT_NEVER};
    weft_runtime *runtime;
    intptr_t rc = weft_runtime_start(&config, &runtime);

    if (rc < 0)
        return rc;
    for (int i = 0; i < WORKS && rc >= 0; i++)
        rc = ms[i] = weft_runtime_run(runtime, measure, (void *)(uintptr_t)&works[i]);
    weft_runtime_stop(runtime, WEFT_FOREVER);
    return rc < 0 ? rc : 0;
}

int main(void)
{
    intptr_t one[WORKS], several[WORKS], rc;
    weft_config config;

    rc = weft_config_from_env(&config);
    if (rc == 0)
        rc = measure_all(1, one);
    if (rc == 0 && config.workers == 1)
        config.workers = 2;
    if (rc == 0)
        rc = measure_all(config.workers, several);
    if (rc < 0) {
        fprintf(stderr, "contrast: %s\n", strerror((int)-rc));
        return 1;
    }
    printf("%d tasks of %d ms each   1 worker  %2u workers\n", TASKS, SPENT_MS, config.workers);
    for (int i = 0; i < WORKS; i++)
        printf("%-21s %7ld ms  %7ld ms\n", works[i].name, (long)one[i], (long)several[i]);
    return 0;
}
