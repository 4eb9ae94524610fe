/* What the kernel says of the workers' share of the processors (crowd.h). The monitor's thread. */
#include "runtime/crowd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/runtime.h"

enum {
    WINDOW_NS = 10 * 1000 * 1000, /* at least so long between two looks */
    STALE_WINDOWS = 10,           /* what was read longer ago says nothing about now */
    BUSY_SHARE = 2,               /* a process that ran for a smaller part of the time needs no closer look */
    MISSING_SHARE = 4,            /* a crowd: for this part of the time one worker more could have run */
    PROVED_NS = 50 * 1000 * 1000, /* no crowd for so long after one more was counted on: it is there to stay */
};

enum {
    PAUSE_LEAST_NS = 20 * 1000 * 1000,  /* before one more processor is counted on, … */
    PAUSE_MOST_NS = 1000 * 1000 * 1000, /* … at most */
};

/* Of a worker's thread, when it was last read. */
struct weft__share {
    const struct weft__driver *driver; /* an identity */
    int64_t ran, waited;
};

int weft__crowd_init(struct weft__crowd *crowd, uint32_t workers, uint32_t processors)
{
    crowd->most = processors < workers ? processors : workers;
    atomic_store_explicit(&crowd->processors, crowd->most, memory_order_relaxed);
    crowd->pause = PAUSE_LEAST_NS;
    crowd->shares = calloc(workers, sizeof *crowd->shares);
    return crowd->shares ? 0 : -ENOMEM;
}

void weft__crowd_free(struct weft__crowd *crowd)
{
    free(crowd->shares);
    crowd->shares = NULL;
}

/* ---- what to count on ---- */

uint32_t weft__crowd_judge(struct weft__crowd *crowd, int64_t now, int64_t span, int64_t ran, int64_t waited)
{
    uint32_t processors = weft__crowd_processors(crowd);
    uint32_t got = (uint32_t)((ran + span / 2) / span);
    bool proved = now - crowd->raised_at >= PROVED_NS;

    if (waited * MISSING_SHARE >= span) {
        if (got >= processors || processors == 1)
            return processors;
        if (!proved)
            crowd->pause = crowd->pause * 2 < PAUSE_MOST_NS ? crowd->pause * 2 : PAUSE_MOST_NS;
        crowd->lowered_at = now;
        return got > 0 ? got : 1;
    }
    if (processors < crowd->most) {
        if (now - crowd->lowered_at < crowd->pause)
            return processors;
        crowd->raised_at = now;
        return processors + 1;
    }
    if (proved)
        crowd->pause = PAUSE_LEAST_NS;
    return processors;
}

/* Descriptors follow at their next waits, and workers that are not counted on are left to sleep. */
static void gather(weft_runtime *runtime, uint32_t workers)
{
    for (uint32_t i = 0; i < runtime->worker_count; i++)
        atomic_store_explicit(&runtime->workers[i].poller_of, &runtime->workers[i % workers], memory_order_relaxed);
}

void weft__crowd_count_on(weft_runtime *runtime, uint32_t processors)
{
    struct weft__crowd *crowd = &runtime->crowd;

    atomic_store_explicit(&crowd->processors, processors, memory_order_relaxed);
    gather(runtime, weft__is_crowded(crowd) ? processors : runtime->worker_count);
}

/* ---- what the kernel says ---- */

/* How long a thread has run, and waited for a processor, in its life. */
static bool read_share(const struct weft__driver *driver, struct weft__share *share)
{
    char path[64], line[64];
    long long ran, waited;
    ssize_t length;
    int fd;

    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat",
             atomic_load_explicit(&driver->tid, memory_order_relaxed));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    length = read(fd, line, sizeof line - 1);
    close(fd);
    if (length <= 0)
        return false;
    line[length] = '\0';
    if (sscanf(line, "%lld %lld", &ran, &waited) != 2)
        return false;
    *share = (struct weft__share){driver, ran, waited};
    return true;
}

/* Of all workers since they were last read. */
static void sum_up(weft_runtime *runtime, int64_t *ran, int64_t *waited)
{
    for (uint32_t i = 0; i < runtime->worker_count; i++) {
        struct weft__share *last = &runtime->crowd.shares[i], share;

        if (!read_share(weft__driver_of(&runtime->workers[i]), &share))
            continue;
        if (share.driver == last->driver) {
            *ran += share.ran - last->ran;
            *waited += share.waited - last->waited;
        }
        *last = share;
    }
}

/* Not if little has run: there is a system call for that, and no file to open. */
static bool is_worth_reading(struct weft__crowd *crowd, int64_t span)
{
    int64_t before = crowd->processor_time;

    crowd->processor_time = weft__clock_process_time();
    return (crowd->processor_time - before) * BUSY_SHARE >= span;
}

void weft__crowd_look(weft_runtime *runtime, int64_t now)
{
    struct weft__crowd *crowd = &runtime->crowd;
    int64_t span = now - crowd->looked_at, ran = 0, waited = 0;
    uint32_t processors;

    if (span < WINDOW_NS || crowd->most == 1)
        return;
    crowd->looked_at = now;
    if (is_worth_reading(crowd, span)) {
        span = now - crowd->read_at;
        crowd->read_at = now;
        sum_up(runtime, &ran, &waited);
        if (span > (int64_t)WINDOW_NS * STALE_WINDOWS)
            return;
    }
    processors = weft__crowd_judge(crowd, now, span, ran, waited);
    if (processors != weft__crowd_processors(crowd))
        weft__crowd_count_on(runtime, processors);
}
