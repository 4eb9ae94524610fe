/*
 * How many processors the workers can count on, when other threads of the machine want them too: a client beside its
 * server, a neighbour that computes.
 *
 * Two workers that take turns with a third thread on two processors get less done than one that has a processor of its
 * own: each is taken off in the middle of its work, the other finds it stale and takes its events, and all three keep
 * waking each other up. The kernel knows how long each thread could have run and did not. When the workers together
 * have waited for more than a quarter of a processor, and all but one of them would not have been enough, the monitor
 * counts on no more processors than they got. If those that are left wait then, or get less done with their hands
 * full, that was no remedy (neighbours that compute take whatever is left to them): it counts on all again. From time
 * to time it tries the other, twice as seldom each time that this proves wrong.
 *
 * The other way round, a worker that is overloaded with short rounds is relieved only when a processor has been seen
 * idle (/proc/stat): with a client beside it that takes the other one, help would take from who is helped.
 *
 * Short tasks are spread over no more workers than that (spread.c), and descriptors gathered there (poller.c).
 * Work that pays, or that blocks its worker, is spread as before. Where the kernel keeps no such account
 * (/proc/self/task/N/schedstat) nothing is ever crowded.
 */
#ifndef WEFT_RUNTIME_CROWD_H
#define WEFT_RUNTIME_CROWD_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/base.h>

struct weft__crowd {
    _Atomic uint32_t processors; /* to count on: 1 to `most`; written by the monitor, a hint for everybody else */
    _Atomic uint32_t spare;      /* a processor has nothing to do; known only while a worker is overloaded */
    uint32_t most;               /* that this process may use, but no more than workers */
    /* The monitor's own: */
    struct weft__share *shares; /* one a worker */
    int64_t looked_at, read_at;
    int64_t processor_time; /* of the process, when it last looked */
    int64_t ran, waited;    /* averages over the last looks: 1024 is one processor */
    int64_t ran_before;     /* when it began to count on fewer */
    int64_t changed_at;     /* when it last began to count on all, or on fewer */
    int64_t crowd_at;       /* when there last was a crowd */
    int64_t next;           /* not before this time the other is tried */
    int64_t packed_pause;   /* before all are tried again */
    int64_t open_pause;     /* before fewer are, when that was no remedy */
    int64_t idle;           /* how long the processors have had nothing to do since the machine started, … */
    int64_t idle_at;        /* … when last read */
};

/* 0 or -ENOMEM. */
int weft__crowd_init(struct weft__crowd *crowd, uint32_t workers, uint32_t processors);
void weft__crowd_free(struct weft__crowd *crowd);

/* Look again if it is time. The monitor, while some worker runs. */
void weft__crowd_look(weft_runtime *runtime, int64_t now);

/* How many to count on, when the workers together ran and waited for so long within `span`; all in ns. */
uint32_t weft__crowd_judge(struct weft__crowd *crowd, int64_t now, int64_t span, int64_t ran, int64_t waited);

/* From now on. */
void weft__crowd_count_on(weft_runtime *runtime, uint32_t processors);

/* The text of /proc/stat: for how many ticks the processors in `mine` have had nothing to do. */
int64_t weft__crowd_idle_ticks(const char *stat, const cpu_set_t *mine);

static inline uint32_t weft__crowd_processors(const struct weft__crowd *crowd)
{
    return atomic_load_explicit(&crowd->processors, memory_order_relaxed);
}

static inline bool weft__is_crowded(const struct weft__crowd *crowd)
{
    return weft__crowd_processors(crowd) < crowd->most;
}

static inline bool weft__has_spare_processor(const struct weft__crowd *crowd)
{
    return atomic_load_explicit(&crowd->spare, memory_order_relaxed);
}

#endif
