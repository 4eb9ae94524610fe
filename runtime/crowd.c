/* What the kernel says of the workers' share of the processors (crowd.h). The monitor's thread. */
#include "runtime/crowd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/cpus.h"
#include "runtime/runtime.h"

enum {
    WINDOW_NS = 10 * 1000 * 1000,  /* at least so long between two looks, … */
    WINDOW_NS_EACH = 200 * 1000,   /* … and so much longer for each worker: a read takes some microseconds */
    STALE_WINDOWS = 10,            /* what was read longer ago says nothing about now */
    BUSY_SHARE = 8,                /* a process that ran for a smaller part of the time needs no closer look */
    SMOOTHING = 4,                 /* a window's weight in the averages is one part of so many */
    ONE = 1024,                    /* a whole processor, in the averages */
    MISSING = ONE / 4,             /* a crowd: so much more could have run */
    NEARLY = ONE / 8,              /* so little less than all is all */
    SETTLE_NS = 50 * 1000 * 1000,  /* before a change is judged */
    PROVED_NS = 100 * 1000 * 1000, /* without a crowd for so long, counting on all was right */
    SPARE_NS = 100 * 1000 * 1000,  /* between two readings of what all processors do, whose grain is 10 ms */
};

enum {
    PAUSE_LEAST_NS = 50 * 1000 * 1000,  /* before the other is tried again, at least, … */
    PAUSE_MOST_NS = 1000 * 1000 * 1000, /* … and at most */
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
    crowd->packed_pause = crowd->open_pause = PAUSE_LEAST_NS;
    crowd->shares = calloc(workers, sizeof *crowd->shares);
    return crowd->shares ? 0 : -ENOMEM;
}

void weft__crowd_free(struct weft__crowd *crowd)
{
    free(crowd->shares);
    crowd->shares = NULL;
}

/* ---- what to count on ---- */

static void change(struct weft__crowd *crowd, int64_t now, int64_t pause)
{
    crowd->changed_at = crowd->crowd_at = now;
    crowd->next = now + pause;
}

/* What was measured is too old. */
static void begin_anew(struct weft__crowd *crowd, int64_t now)
{
    crowd->ran = crowd->waited = 0;
    if (weft__is_crowded(crowd))
        change(crowd, now, 0);
}

static int64_t averaged(int64_t average, int64_t time, int64_t span)
{
    return average + (time * ONE / span - average) / SMOOTHING;
}

static int64_t twice(int64_t pause)
{
    return pause * 2 < PAUSE_MOST_NS ? pause * 2 : PAUSE_MOST_NS;
}

static bool is_crowd(const struct weft__crowd *crowd)
{
    return crowd->waited >= MISSING && crowd->ran + crowd->waited >= (int64_t)(crowd->most - 1) * ONE;
}

/* On all so far: on how many now? */
static uint32_t judge_open(struct weft__crowd *crowd, int64_t now)
{
    uint32_t got = (uint32_t)((crowd->ran + ONE / 2) / ONE);

    if (now - crowd->crowd_at >= PROVED_NS)
        crowd->packed_pause = PAUSE_LEAST_NS;
    if (!is_crowd(crowd))
        return crowd->most;
    crowd->crowd_at = now;
    if (got >= crowd->most || now < crowd->next)
        return crowd->most;
    crowd->ran_before = crowd->ran;
    crowd->waited = 0; /* of those that are counted on, nothing is known yet */
    change(crowd, now, crowd->packed_pause);
    crowd->packed_pause = twice(crowd->packed_pause);
    return got > 0 ? got : 1;
}

/* On fewer so far. Does it help? Not if those that are left wait, too, and not if they have as much to do as they can,
 * and get less of it done than all did. */
static bool helps(const struct weft__crowd *crowd)
{
    int64_t all = (int64_t)weft__crowd_processors(crowd) * ONE;

    return crowd->waited < MISSING &&
           (crowd->ran_before - crowd->ran < MISSING || crowd->ran + crowd->waited < all - NEARLY);
}

static uint32_t judge_packed(struct weft__crowd *crowd, int64_t now)
{
    bool good = helps(crowd);

    if (now - crowd->changed_at < SETTLE_NS || (good && now < crowd->next))
        return weft__crowd_processors(crowd);
    crowd->open_pause = good ? PAUSE_LEAST_NS : twice(crowd->open_pause);
    change(crowd, now, good ? SETTLE_NS : crowd->open_pause);
    return crowd->most;
}

uint32_t weft__crowd_judge(struct weft__crowd *crowd, int64_t now, int64_t span, int64_t ran, int64_t waited)
{
    crowd->ran = averaged(crowd->ran, ran, span);
    crowd->waited = averaged(crowd->waited, waited, span);
    return weft__is_crowded(crowd) ? judge_packed(crowd, now) : judge_open(crowd, now);
}

/* A worker that nobody takes over must not keep the events of others from being seen when it is stuck. */
static bool can_gather(const weft_runtime *runtime, uint32_t workers)
{
    if (runtime->config.takeover_us == 0)
        return false;
    for (uint32_t i = 0; i < workers; i++)
        if (atomic_load_explicit(&runtime->workers[i].pinned, memory_order_relaxed) > 0)
            return false;
    return true;
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
    gather(runtime,
           weft__is_crowded(crowd) && can_gather(runtime, processors) ? processors : runtime->worker_count);
}

/* ---- what the kernel says ---- */

/* How long a thread has run, and waited for a processor, in its life. */
static bool read_share(const struct weft__driver *driver, struct weft__share *share)
{
    char line[64];
    long long ran, waited;

    if (!weft__thread_file(driver, "schedstat", line, sizeof line) || sscanf(line, "%lld %lld", &ran, &waited) != 2)
        return false;
    *share = (struct weft__share){driver, ran, waited};
    return true;
}

/* Of all workers since they were last read. Of a thread that is new there, or cannot be read, nobody knows that it had
 * to wait. */
static void sum_up(weft_runtime *runtime, int64_t span, int64_t *ran, int64_t *waited)
{
    for (uint32_t i = 0; i < runtime->worker_count; i++) {
        struct weft__share *last = &runtime->crowd.shares[i], share = {0};

        if (read_share(weft__driver_of(&runtime->workers[i]), &share) && share.driver == last->driver) {
            *ran += share.ran - last->ran;
            *waited += share.waited - last->waited;
        } else {
            *ran += span;
        }
        *last = share;
    }
}

/* Not if little has run: there is a system call for that, and no file to open. */
static bool is_worth_reading(struct weft__crowd *crowd, int64_t span)
{
    int64_t before = crowd->processor_time;

    crowd->processor_time = weft__clock_process_time();
    return weft__is_crowded(crowd) || (crowd->processor_time - before) * BUSY_SHARE >= span;
}

int64_t weft__crowd_idle_ticks(const char *stat, const cpu_set_t *mine)
{
    int64_t ticks = 0;

    /* Its first line is the sum over all processors, its last one may be cut off. */
    while ((stat = strchr(stat, '\n')) != NULL && strchr(++stat, '\n')) {
        long long idle, waiting;
        int processor;

        if (sscanf(stat, "cpu%d %*d %*d %*d %lld %lld ", &processor, &idle, &waiting) != 3)
            break;
        if (processor < CPU_SETSIZE && CPU_ISSET(processor, mine))
            ticks += idle + waiting;
    }
    return ticks;
}

/* In ns, of the processors that the process may use (of a very large machine, the first hundred); -1 where nobody
 * says. */
static int64_t idle_time(void)
{
    char text[8192];
    cpu_set_t mine;
    ssize_t length;
    int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return -1;
    weft__cpus_mask(&mine);
    text[length] = '\0';
    return weft__crowd_idle_ticks(text, &mine) * (1000000000 / sysconf(_SC_CLK_TCK));
}

/* While one that could help sleeps. */
static bool is_anyone_overloaded(const weft_runtime *runtime)
{
    if (!weft__idle_any(&runtime->idle))
        return false;
    for (uint32_t i = 0; i < runtime->worker_count; i++)
        if (atomic_load_explicit(&runtime->workers[i].overloaded, memory_order_relaxed) &&
            atomic_load_explicit(&runtime->workers[i].state, memory_order_relaxed) == WEFT__AWAKE)
            return true;
    return false;
}

/* Has half a processor had nothing to do since the last reading? */
static void look_for_spare(struct weft__crowd *crowd, int64_t now)
{
    int64_t span = now - crowd->idle_at, before = crowd->idle;

    if (span < SPARE_NS)
        return;
    crowd->idle_at = now;
    crowd->idle = idle_time();
    atomic_store_explicit(&crowd->spare,
                          before >= 0 && span < 2 * (int64_t)SPARE_NS && crowd->idle - before >= span / 2,
                          memory_order_relaxed);
}

void weft__crowd_look(weft_runtime *runtime, int64_t now)
{
    struct weft__crowd *crowd = &runtime->crowd;
    int64_t window = WINDOW_NS + (int64_t)WINDOW_NS_EACH * runtime->worker_count;
    int64_t span = now - crowd->looked_at, ran = 0, waited = 0;
    uint32_t processors = crowd->most;

    if (span < window || crowd->most == 1)
        return;
    crowd->looked_at = now;
    if (is_worth_reading(crowd, span)) {
        span = now - crowd->read_at;
        crowd->read_at = now;
        sum_up(runtime, span, &ran, &waited);
    }
    if (span <= window * STALE_WINDOWS)
        processors = weft__crowd_judge(crowd, now, span, ran, waited);
    else
        begin_anew(crowd, now);
    if (is_anyone_overloaded(runtime))
        look_for_spare(crowd, now);
    else if (now - crowd->idle_at >= 2 * (int64_t)SPARE_NS)
        atomic_store_explicit(&crowd->spare, 0, memory_order_relaxed);
    /* Also if that stays as it was: tasks are pinned, and end. */
    if (processors < crowd->most || weft__is_crowded(crowd))
        weft__crowd_count_on(runtime, processors);
}
