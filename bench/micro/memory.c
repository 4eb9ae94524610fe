/*
 * B: memory. A million parked tasks, what they cost, and what is left after them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "micro.h"

enum { MANY = 1000000, MANY_QUICK = 200000 };

struct many {
    long tasks;
    weft_event release;
    struct countdown arrived;
    struct countdown ended;
    int64_t before, parked; /* resident bytes */
    uint64_t stacks;
    int64_t spawn_ns, end_ns;
};

static intptr_t wait_for_release(void *arg)
{
    struct many *many = arg;
    count_down(&many->arrived);
    int error = weft_event_wait(&many->release);
    count_down(&many->ended);
    return error;
}

/* The task that arrives last is about to park when the event tells of it, and so may one on each other worker. */
static uint64_t settled_stacks(const struct many *many)
{
    weft_stats stats;
    for (int i = 0; i < 1000; i++) {
        weft_runtime_stats(weft_runtime_current(), &stats);
        if (stats.stacks >= (uint64_t)many->tasks)
            break;
        weft_sleep(WEFT_MS(1));
    }
    return stats.stacks;
}

static intptr_t park_and_release(void *arg)
{
    struct many *many = arg;
    int64_t start = weft_now();
    for (long i = 0; i < many->tasks; i++) {
        int error = weft_go(wait_for_release, many);
        if (error)
            return error;
    }
    weft_event_wait(&many->arrived.over);
    many->spawn_ns = weft_now() - start;
    many->stacks = settled_stacks(many);
    many->parked = resident_bytes();
    start = weft_now();
    weft_event_set(&many->release);
    weft_event_wait(&many->ended.over);
    many->end_ns = weft_now() - start;
    return 0;
}

static intptr_t warm_up(void *arg)
{
    (void)arg;
    return weft_yield();
}

static int million_parked(const struct setting *setting, struct sample *sample)
{
    static struct many many;
    many.tasks = setting->quick ? MANY_QUICK : MANY;
    many.arrived.left = many.ended.left = many.tasks;
    weft_runtime_run(setting->runtime, warm_up, NULL);
    many.before = resident_bytes();
    int error = (int)weft_runtime_run(setting->runtime, park_and_release, &many);
    if (error)
        return error;
    /* Each must have parked with a stack of its own, or the figure is of something else. */
    if (many.stacks < (uint64_t)many.tasks)
        return -EPROTO;
    add_part(sample, "B1", "bytes", "B", (double)(many.parked - many.before) / (double)many.tasks);
    add_part(sample, "B1", "spawn", "ms", (double)many.spawn_ns / 1e6);
    add_part(sample, "B1", "end", "ms", (double)many.end_ns / 1e6);
    pause_thread(WEFT_SEC(5));
    add_metric(sample, "B3", "%", (double)resident_bytes() * 100 / (double)many.parked);
    return 0;
}

/* The yardstick for B1.spawn: what the kernel takes to back as many single pages. */
static int touch_pages(const struct setting *setting, struct sample *sample)
{
    const size_t page = 4096, count = setting->quick ? MANY_QUICK : MANY;
    char *memory =
        mmap(NULL, page * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    madvise(memory, page * count, MADV_NOHUGEPAGE);
    int64_t start = weft_now();
    for (size_t i = 0; i < count; i++)
        ((volatile char *)memory)[i * page] = 1;
    add_part(sample, "B1", "touch", "ms", (double)(weft_now() - start) / 1e6);
    munmap(memory, page * count);
    return 0;
}

/* ---- without stacks ---- */

struct stackless {
    weft_frame frame;
    struct many *many;
    intptr_t rc;
};

static intptr_t wait_in_steps(void *arg)
{
    struct stackless *task = arg;
    WEFT_BEGIN(task);
    count_down(&task->many->arrived);
    WEFT_AWAIT(task, task->rc, weft_async_event(&task->many->release));
    count_down(&task->many->ended);
    WEFT_END(task, task->rc);
}

static intptr_t park_and_release_stackless(void *arg)
{
    struct many *many = arg;
    int64_t start = weft_now();
    struct stackless *tasks = calloc((size_t)many->tasks, sizeof *tasks);
    if (!tasks)
        return -ENOMEM;
    for (long i = 0; i < many->tasks; i++) {
        tasks[i].many = many;
        int error = weft_go_stackless(wait_in_steps, &tasks[i]);
        if (error)
            return error;
    }
    weft_event_wait(&many->arrived.over);
    many->spawn_ns = weft_now() - start;
    many->parked = resident_bytes();
    start = weft_now();
    weft_event_set(&many->release);
    weft_event_wait(&many->ended.over);
    many->end_ns = weft_now() - start;
    free(tasks);
    return 0;
}

static int million_stackless(const struct setting *setting, struct sample *sample)
{
    static struct many many;
    many.tasks = setting->quick ? MANY_QUICK : MANY;
    many.arrived.left = many.ended.left = many.tasks;
    weft_runtime_run(setting->runtime, warm_up, NULL);
    many.before = resident_bytes();
    int error = (int)weft_runtime_run(setting->runtime, park_and_release_stackless, &many);
    if (error)
        return error;
    add_part(sample, "B2", "bytes", "B", (double)(many.parked - many.before) / (double)many.tasks);
    add_part(sample, "B2", "spawn", "ms", (double)many.spawn_ns / 1e6);
    add_part(sample, "B2", "end", "ms", (double)many.end_ns / 1e6);
    return 0;
}

/* Needs no state of its own: the sleep is all it does. */
static intptr_t sleep_in_steps(void *arg)
{
    return weft_async_sleep(*(int64_t *)arg);
}

struct sleepers {
    long tasks;
    int64_t ns, parked;
};

static intptr_t sleep_all(void *arg)
{
    struct sleepers *sleepers = arg;
    weft_task **tasks = malloc((size_t)sleepers->tasks * sizeof *tasks);
    intptr_t error = 0;
    if (!tasks)
        return -ENOMEM;
    for (long i = 0; i < sleepers->tasks; i++)
        if (!(tasks[i] = weft_spawn_stackless(sleep_in_steps, &sleepers->ns)))
            return -ENOMEM;
    weft_sleep(sleepers->ns / 2);
    sleepers->parked = resident_bytes();
    for (long i = 0; i < sleepers->tasks && error == 0; i++)
        error = weft_await(tasks[i]);
    free(tasks);
    return error;
}

static int million_sleeping(const struct setting *setting, struct sample *sample)
{
    static struct sleepers sleepers;
    sleepers.tasks = setting->quick ? MANY_QUICK : MANY;
    sleepers.ns = setting->quick ? WEFT_SEC(2) : WEFT_SEC(10);
    weft_runtime_run(setting->runtime, warm_up, NULL);
    double cpu = cpu_seconds();
    int64_t before = resident_bytes();
    int error = (int)weft_runtime_run(setting->runtime, sleep_all, &sleepers);
    if (error)
        return error;
    add_part(sample, "B2s", "bytes", "B", (double)(sleepers.parked - before) / (double)sleepers.tasks);
    add_part(sample, "B2s", "cpu", "s", cpu_seconds() - cpu);
    return 0;
}

const struct workload memory_workloads[] = {
    {"B1.touch", "touching a page for each task of B1", touch_pages,
     OWN_RUNTIME | FRESH | ONE_COUNT | ONE_IN_QUICK},
    {"B1.park", "parked tasks; B3: resident 5 s after they ended", million_parked, FRESH | ONE_IN_QUICK},
    {"B2", "parked stackless tasks", million_stackless, FRESH | ONE_IN_QUICK},
    {"B2s", "stackless tasks that sleep 10 s, handles kept", million_sleeping, FRESH | ONE_IN_QUICK},
    {NULL, NULL, NULL, 0},
};
