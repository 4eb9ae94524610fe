/*
 * Spreading work over the workers (spread.h). A worker says that it wants help when it looks around; whoever it has
 * woken, and, after a while, anybody who comes by, may steal from it. idle.h has the protocol of waking, worker.h that of
 * entering somebody else's worker.
 */
#include "runtime/spread.h"

#include "runtime/clock.h"
#include "runtime/look.h"
#include "runtime/runtime.h"
#include "runtime/task_end.h"

enum {
    STEAL_MOST = 64,            /* taken in one theft: bounds the time the victim is kept out */
    SEEN_MOST = 4 * STEAL_MOST, /* looked at, pinned ones included: the same */
    OVERLOAD_BACKLOG = 4,       /* divided, fewer leave each worker with pauses, and a wake-up after each */
    SLOW_SLICE_NS = 50 * 1000,  /* tasks that run so long are worth a wake-up each (it takes 30-70 µs) */
    SPREAD_NS = 300 * 1000,     /* busy for so long without a pause: a second worker may pay */
    PATIENCE_MOST_NS = 20 * 1000 * 1000, /* a worker whose tasks were not worth stealing is left alone so long … */
    SATURATED_NS = 10 * 1000 * 1000,     /* … unless it has had no pause for this time: */
    PATIENCE_SATURATED_NS = 1000 * 1000, /* then small thefts help too, at a cost of some percent */
    PAYOFF_NS = 250 * 1000,              /* a theft that keeps the thief busy for less was hardly worth it; … */
    PAYOFF_CROWDED_NS = 1000 * 1000,     /* … where it takes the processor from others, and they from it */
    STALE_CROWDED_NS = 5000 * 1000,      /* who has no processor is not stuck */
};

bool weft__is_stale(const struct weft__worker *worker, int64_t now)
{
    int64_t limit = weft__is_crowded(&worker->runtime->crowd) ? STALE_CROWDED_NS : WEFT__STALE_NS;

    return atomic_load_explicit(&worker->state, memory_order_relaxed) == WEFT__AWAKE &&
           now - atomic_load_explicit(&worker->maintained_at, memory_order_relaxed) > limit;
}

/* ---- waking ---- */

bool weft__wake_searcher(weft_runtime *runtime)
{
    struct weft__idle *idle = &runtime->idle;
    int index;

    do {
        /* Full fence: the work was published before; pairs with the one in fall_asleep (idle.h, rule 3). */
        atomic_thread_fence(memory_order_seq_cst);
        if (!weft__idle_any(idle) || !weft__idle_begin_search(idle))
            return false;
        index = weft__idle_claim(idle);
        if (index >= 0) {
            weft__notify(&runtime->workers[index]);
            return true;
        }
        weft__idle_end_search(idle);
        atomic_thread_fence(memory_order_seq_cst);
        /* While this call held the right to search and found nobody, another may have relied on it, and a worker
         * gone to sleep. One that is only on its way to sleep will look again by itself. */
    } while (weft__idle_claimable(idle));
    return false;
}

/* ---- is it worth it? ---- */

static int64_t patience_of(const struct weft__worker *worker, int64_t now)
{
    int64_t patience = atomic_load_explicit(&worker->patience, memory_order_relaxed);
    bool saturated = now - worker->awake_since >= SATURATED_NS && !weft__is_crowded(&worker->runtime->crowd);

    return saturated && patience > PATIENCE_SATURATED_NS ? PATIENCE_SATURATED_NS : patience;
}

/* With more workers than processors, one more that is awake only takes turns with those that are. (If some of them
 * block, the monitor sees to it.) */
static bool has_idle_processor(const weft_runtime *runtime, uint32_t processors)
{
    uint32_t sleepers = atomic_load_explicit(&runtime->idle.sleepers, memory_order_relaxed);

    return runtime->worker_count - sleepers < processors;
}

/*
 * If its tasks run long, or the last theft was worth it, a worker competes with the rest of the machine for its share.
 * A single long slice in a crowd may be one in which its thread had no processor.
 */
static bool has_processor_for_help(const struct weft__worker *worker)
{
    const struct weft__crowd *crowd = &worker->runtime->crowd;
    bool runs_long = worker->slice_ns >= SLOW_SLICE_NS && worker->slice_before_ns >= SLOW_SLICE_NS;
    bool pays = atomic_load_explicit(&worker->patience, memory_order_relaxed) == 0 &&
                atomic_load_explicit(&worker->helped_at, memory_order_relaxed) != 0;

    return has_idle_processor(worker->runtime, runs_long || pays ? crowd->most : weft__crowd_processors(crowd));
}

/*
 * Busy for long, with a backlog; sleeps that end at once because there are events do not count. Where there is a
 * processor to spare it is helped even if its rounds are short, and a descriptor goes with the first task that is taken
 * (poller.c): so that what it has to do is divided, not just what happens to be ready.
 */
static void note_overload(struct weft__worker *worker, int64_t now)
{
    bool busy = now - worker->busy_since >= SATURATED_NS && weft__queue_count(&worker->queue) >= OVERLOAD_BACKLOG;
    bool overloaded = busy && !weft__is_crowded(&worker->runtime->crowd);

    if (overloaded != atomic_load_explicit(&worker->overloaded, memory_order_relaxed))
        atomic_store_explicit(&worker->overloaded, overloaded, memory_order_relaxed);
}

bool weft__may_be_relieved(const struct weft__worker *worker)
{
    return atomic_load_explicit(&worker->overloaded, memory_order_relaxed) &&
           weft__has_spare_processor(&worker->runtime->crowd);
}

/*
 * Is a second worker worth its wake-up? Light load is packed: peers lose a fifth to a third of their throughput to
 * workers they do not need. Tasks that run long are worth one each; short ones only when this worker has been
 * busy for a while without a pause and still has a backlog. Whether those are many small tasks, which cost less than
 * stealing them, or a few large ones, nobody can tell before: so a worker waits twice as long each time before it
 * has another one woken, and a thief that finds the theft has kept it busy takes that back.
 */
static bool is_worth_help(const struct weft__worker *worker, int64_t now)
{
    uint32_t backlog = weft__queue_count(&worker->queue);
    bool has_had_no_pause = now - worker->awake_since >= SPREAD_NS;

    return backlog > 0 && (worker->slice_ns >= SLOW_SLICE_NS ||
                           (backlog >= 2 && (has_had_no_pause || weft__may_be_relieved(worker))));
}

/* When another worker may be woken for it. */
static int64_t help_time(const struct weft__worker *worker, int64_t now)
{
    /* Where tasks are pinned nobody knows whether there is anything to steal: patience decides. */
    if (worker->slice_ns >= SLOW_SLICE_NS && atomic_load_explicit(&worker->pinned, memory_order_relaxed) == 0)
        return 0;
    return atomic_load_explicit(&worker->helped_at, memory_order_relaxed) + patience_of(worker, now);
}

static void lose_patience(struct weft__worker *worker, int64_t now)
{
    int64_t patience = atomic_load_explicit(&worker->patience, memory_order_relaxed) * 2;

    if (patience < SPREAD_NS)
        patience = SPREAD_NS;
    if (patience > PATIENCE_MOST_NS)
        patience = PATIENCE_MOST_NS;
    atomic_store_explicit(&worker->patience, patience, memory_order_relaxed);
    atomic_store_explicit(&worker->helped_at, now, memory_order_relaxed);
    atomic_store_explicit(&worker->help_after, now + patience, memory_order_relaxed);
}

void weft__spread(struct weft__worker *worker, int64_t now)
{
    bool help;

    note_overload(worker, now);
    help = is_worth_help(worker, now);
    if (help != atomic_load_explicit(&worker->wants_help, memory_order_relaxed))
        atomic_store_explicit(&worker->wants_help, help, memory_order_relaxed);
    if (!help)
        return;
    atomic_store_explicit(&worker->help_after, help_time(worker, now), memory_order_relaxed);
    if (help_time(worker, now) <= now && has_processor_for_help(worker) && weft__wake_searcher(worker->runtime))
        lose_patience(worker, now);
}

/* ---- searching and stealing ---- */

void weft__stop_searching(struct weft__driver *driver)
{
    if (!driver->searching)
        return;
    driver->searching = false;
    weft__idle_end_search(&driver->runtime->idle);
}

/* The own queue is empty again: was the last theft worth it? */
static void judge_theft(struct weft__driver *driver, int64_t now)
{
    struct weft__worker *victim = driver->robbed;

    if (!victim)
        return;
    driver->robbed = NULL;
    if (weft__clock_thread_time() - driver->robbed_at >=
        (weft__is_crowded(&driver->runtime->crowd) ? PAYOFF_CROWDED_NS : PAYOFF_NS))
        atomic_store_explicit(&victim->patience, 0, memory_order_relaxed);
    else
        lose_patience(victim, now);
}

/* May a worker that came by itself (`woken` false) or was woken to search steal from this one? */
static bool has_backlog(const struct weft__worker *peer, bool woken)
{
    return atomic_load_explicit(&peer->wants_help, memory_order_relaxed) && weft__queue_count(&peer->queue) > 0 &&
           (woken || atomic_load_explicit(&peer->help_after, memory_order_relaxed) <= weft__clock_now());
}

bool weft__anyone_wants_help(const struct weft__worker *worker)
{
    const weft_runtime *runtime = worker->runtime;

    for (uint32_t i = 0; i < runtime->worker_count; i++)
        if (&runtime->workers[i] != worker && has_backlog(&runtime->workers[i], false))
            return true;
    return false;
}

/* A searcher has found work: if there is more, the next one is woken (idle.h, rule 2). */
void weft__pass_search_on(struct weft__driver *driver, const struct weft__worker *worker)
{
    if (!driver->searching)
        return;
    weft__stop_searching(driver);
    /* Full fence: a producer that saw this searcher has woken nobody; its backlog was published before. */
    atomic_thread_fence(memory_order_seq_cst);
    if (weft__anyone_wants_help(worker) &&
        has_idle_processor(worker->runtime, weft__crowd_processors(&worker->runtime->crowd)))
        weft__wake_searcher(worker->runtime);
}

struct theft {
    struct weft__worker *thief, *victim;
    uint32_t want, taken, seen;
};

static bool is_over(const struct theft *theft)
{
    return theft->taken == theft->want || theft->seen == SEEN_MOST;
}

/* As new with the thief as with the victim. */
static void give(struct theft *theft, weft_task *task)
{
    uintptr_t bits = weft__home(task) & (WEFT__HOME_NEW | WEFT__HOME_AGAIN);

    weft__queue_push_ready(&theft->thief->queue, task, (uintptr_t)theft->thief | bits);
}

/* What is ready, was spawned by the task that runs, or has passed on: from the oldest on. */
static void take_from_head(struct theft *theft, struct weft__list *list,
                           void remove(struct weft__queue *queue, weft_task *task))
{
    weft_task *newer;

    theft->seen = 0;
    for (weft_task *task = list->head; task && !is_over(theft); task = newer, theft->seen++) {
        newer = task->next;
        if (weft__is_pinned(task))
            continue;
        remove(&theft->victim->queue, task);
        give(theft, task);
        theft->taken++;
    }
}

/* Of batches the oldest, from its end: of a tree the largest branches. */
static void take_from_batches(struct theft *theft)
{
    struct weft__queue *queue = &theft->victim->queue;
    weft_task *task, *newer, *taken = NULL;

    theft->seen = 0;
    for (task = queue->fresh.tail; task && !is_over(theft); task = newer, theft->seen++) {
        newer = task->prev;
        if (weft__is_pinned(task))
            continue;
        weft__queue_remove_fresh(queue, task);
        task->next = taken;
        taken = task;
        theft->taken++;
    }
    for (task = taken; task; task = newer) {
        newer = task->next;
        give(theft, task);
    }
}

/* Take half of a peer's queue, the older one. */
static uint32_t steal(struct weft__driver *driver, struct weft__worker *worker, struct weft__worker *victim,
                      bool stale, int64_t now)
{
    struct theft theft = {worker, victim, 0, 0, 0};

    if (!weft__seize(victim)) {
        /* Its driver is inside, or has lost its processor there: not to be waited for awake. */
        atomic_store_explicit(&victim->help_after, now + SPREAD_NS, memory_order_relaxed);
        return 0;
    }
    theft.want = (weft__queue_count(&victim->queue) + 1) / 2;
    if (theft.want > STEAL_MOST)
        theft.want = STEAL_MOST;
    take_from_head(&theft, &victim->queue.ready, weft__queue_remove_ready);
    take_from_batches(&theft);
    take_from_head(&theft, &victim->queue.young, weft__queue_remove_young);
    take_from_head(&theft, &victim->queue.again, weft__queue_remove_again);
    if (theft.taken == 0 && stale && victim->next && !weft__is_pinned(victim->next)) {
        weft__queue_push(&worker->queue, victim->next, worker);
        victim->next = NULL;
        theft.taken = 1;
    }
    atomic_store_explicit(&victim->wants_help, 0, memory_order_relaxed);
    if (theft.taken == 0) /* all pinned: who comes by again at once would only keep it from its work */
        lose_patience(victim, now);
    weft__release(victim);
    if (theft.taken) {
        driver->robbed = victim;
        driver->robbed_at = weft__clock_thread_time();
        weft__count(&driver->counters.steals, 1);
        weft__count(&driver->counters.stolen, theft.taken);
    }
    return theft.taken;
}

/* Look at every peer once, from a random one on. True: something is in the own queue now. Inside. */
bool weft__search(struct weft__driver *driver, struct weft__worker *worker)
{
    weft_runtime *runtime = worker->runtime;
    uint32_t n = runtime->worker_count;
    uint32_t first;
    int64_t now;

    if (n == 1)
        return false;
    now = weft__clock_now();
    judge_theft(driver, now);
    first = (uint32_t)(weft__random(&driver->random) >> 32) % n;
    for (uint32_t i = 0; i < n; i++) {
        struct weft__worker *peer = &runtime->workers[(first + i) % n];
        bool stale;

        if (peer == worker)
            continue;
        stale = weft__is_stale(peer, now);
        if (stale)
            weft__serve_peer(driver, worker, peer, now);
        if (has_backlog(peer, driver->searching) || stale)
            steal(driver, worker, peer, stale, now);
        if (!weft__queue_is_empty(&worker->queue))
            return true;
    }
    return false;
}
