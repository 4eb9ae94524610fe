/*
 * B: memory. A million parked tasks, what they cost, and what is left after them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
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

const struct workload memory_workloads[] = {
    {"B1.touch", "touching a page for each task of B1", touch_pages,
     OWN_RUNTIME | FRESH | ONE_COUNT | ONE_IN_QUICK},
    {"B1.park", "parked tasks; B3: resident 5 s after they ended", million_parked, FRESH | ONE_IN_QUICK},
    {NULL, NULL, NULL, 0},
};
