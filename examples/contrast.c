/*
 * Concurrency, parallelism and blocking side by side: three tasks that each spend 100 ms waiting, computing,
 * blocking their worker, or blocking in the pool. Run it with WEFT_WORKERS=1 and WEFT_WORKERS=2, and with
 * WEFT_TAKEOVER_US=off and without. bench_scaling measures the same with more care.
 */
#include <stdio.h>
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

static int report(const char *what, weft_fn *fn)
{
    int64_t began = weft_now();
    weft_task *tasks[TASKS];
    int failed = 0;

    for (int i = 0; i < TASKS; i++)
        tasks[i] = weft_spawn(fn, NULL);
    for (int i = 0; i < TASKS; i++)
        failed |= weft_await(tasks[i]) < 0;
    printf("%-22s %4lld ms\n", what, (long long)(weft_now() - began) / 1000000);
    return failed;
}

static intptr_t start(void *unused)
{
    (void)unused;
    printf("%d tasks of %d ms each, workers: %u\n", TASKS, SPENT_MS, weft_runtime_workers(weft_runtime_current()));
    return report("waiting", park) | report("computing", compute) | report("blocking its worker", block) |
           report("blocking in the pool", block_in_pool);
}

int main(void)
{
    return weft_run(start, NULL) == 0 ? 0 : 1;
}
