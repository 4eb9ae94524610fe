/*
 * Looking around (look.h). A worker does so when its credit is used up: each dispatch costs some, each task run in
 * place a little, and the next credit is such that it lasts for WEFT__LOOK_NS if the tasks go on as they did. If they
 * become slower, the monitor notices and nudges it (weft__nudge). Called by the driver, inside; for peers, by the driver
 * of another worker.
 */
#include "runtime/look.h"

#include "runtime/clock.h"
#include "runtime/runtime.h"
#include "runtime/spread.h"
#include "runtime/task_end.h"

enum {
    EXPIRE_BATCH = 32,
    PEERS_A_LOOK = 4,           /* busy peers looked at in one maintenance */
    TURN_NS = 10 * 1000 * 1000, /* a task that has run for so long lets others run when it next awaits one */
};

/* ---- events and deadlines ---- */

/* A descriptor that several runtimes wait for is in one epoll set: its event wakes the tasks of all. */
static bool belongs_elsewhere(const struct weft__worker *worker, const weft_task *task)
{
    return task->runtime != worker->runtime || (weft__is_pinned(task) && weft__home_worker(task) != worker);
}

/* A sleeper whose record is at hand will soon run, with data that nobody has looked at for long. */
static void prefetch_data(const weft_task *task)
{
    const char *data = weft__is_stackless(task) ? task->arg : task->context.stack;

    __builtin_prefetch(data, 1);
    __builtin_prefetch(data + 64, 1);
}

static void queue_with(struct weft__worker *worker, weft_task *task)
{
    if (weft__observed())
        weft__observe_ready(task);
    if (__builtin_expect(belongs_elsewhere(worker, task), 0))
        weft__queue_from_outside(task, weft__home_worker(task));
    else
        weft__queue_push(&worker->queue, task, worker);
}

void weft__queue_ready(weft_task *task, void *worker)
{
    queue_with(worker, task);
}

void weft__drain_inbox(struct weft__worker *from, struct weft__worker *to)
{
    weft_task *task = weft__inbox_take(&from->inbox);
    bool returned = false;

    while (task) {
        weft_task *next = task->next;

        if (__builtin_expect(weft__is_pinned(task), 0) && from != to) {
            weft__inbox_push(&from->inbox, task);
            returned = true;
        } else {
            weft__queue_push(&to->queue, task, to);
        }
        task = next;
    }
    /* Back in the box; meanwhile its worker may have found that empty and gone to sleep. */
    if (__builtin_expect(returned, 0))
        weft__notify(from);
}

void weft__expire(struct weft__driver *driver, struct weft__worker *to, struct weft__timers *timers, int64_t now)
{
    weft_task *tasks[EXPIRE_BATCH];
    unsigned n;

    if (weft__timers_earliest(timers) > now)
        return;
    do {
        n = weft__timers_expire(timers, now, tasks, EXPIRE_BATCH);
        for (unsigned i = 0; i < n; i++)
            __builtin_prefetch(tasks[i], 1); /* nobody has looked at a sleeper for long */
        for (unsigned i = 0; i < n; i++)
            if (weft__state_ready(&tasks[i]->state) == WEFT__READY_QUEUE) {
                prefetch_data(tasks[i]);
                queue_with(to, tasks[i]);
            }
        weft__count(&driver->counters.timers_fired, n);
    } while (n == EXPIRE_BATCH);
}

static void look_at_events(struct weft__driver *driver, struct weft__worker *of, struct weft__worker *to,
                           int64_t now)
{
    int n = weft__poller_wait(&of->poller, of == to, now, 0, &driver->events, weft__queue_ready, to);

    atomic_store_explicit(&of->polled_at, now, memory_order_relaxed);
    weft__count(&driver->counters.polls, 1);
    weft__count(&driver->counters.events, n > 0 ? (uint64_t)n : 0);
}

/* A peer that has not looked around for long is in one long task: its events, deadlines and inbox must not wait. */
void weft__serve_peer(struct weft__driver *driver, struct weft__worker *worker, struct weft__worker *peer,
                      int64_t now)
{
    weft__expire(driver, worker, &peer->timers, now);
    weft__drain_inbox(peer, worker);
    if (atomic_load_explicit(&peer->used, memory_order_relaxed) &&
        now - atomic_load_explicit(&peer->polled_at, memory_order_relaxed) > WEFT__STALE_NS) {
        look_at_events(driver, peer, worker, now);
        weft__count(&driver->counters.polled_for_peer, 1);
    }
}

static void serve_stale_peers(struct weft__driver *driver, struct weft__worker *worker, int64_t now)
{
    weft_runtime *runtime = worker->runtime;
    uint32_t looks = runtime->worker_count - 1 < PEERS_A_LOOK ? runtime->worker_count - 1 : PEERS_A_LOOK;
    uint32_t first;

    if (looks == 0)
        return;
    first = (uint32_t)(weft__random(&driver->random) >> 32);
    for (uint32_t i = 0; i < looks; i++) {
        struct weft__worker *peer = &runtime->workers[(first + i) % runtime->worker_count];

        if (peer != worker && weft__is_stale(peer, now))
            weft__serve_peer(driver, worker, peer, now);
    }
}

/* ---- when to look ---- */

void weft__give_credit(struct weft__worker *worker, int32_t credit)
{
    worker->credit = worker->credit_given = credit;
}

/*
 * So much credit that the next look comes after WEFT__LOOK_NS if the tasks go on as they did. A single short slice among
 * long ones promises nothing: the pace that is reckoned with follows longer slices at once and shorter ones slowly.
 */
static void measure_slices(struct weft__worker *worker, int64_t elapsed)
{
    int64_t used = worker->credit_given - worker->credit;
    int64_t credit;

    worker->slice_before_ns = worker->slice_ns;
    worker->slice_ns = used > 0 && elapsed < WEFT__MAX_SLICE ? (uint32_t)(elapsed * WEFT__CREDIT_DISPATCH / used)
                                                             : WEFT__MAX_SLICE;
    if (worker->slice_ns >= worker->pace_ns)
        worker->pace_ns = worker->slice_ns;
    else
        worker->pace_ns -= (worker->pace_ns - worker->slice_ns + 3) / 4;
    credit =
        worker->pace_ns > 0 ? (int64_t)WEFT__CREDIT_DISPATCH * WEFT__LOOK_NS / worker->pace_ns : WEFT__CREDIT_MOST;
    if (credit > WEFT__CREDIT_MOST)
        credit = WEFT__CREDIT_MOST;
    weft__give_credit(worker, credit < WEFT__CREDIT_DISPATCH ? WEFT__CREDIT_DISPATCH : (int32_t)credit);
}

/* A task that awaits others in place may run for long without a dispatch. */
static void measure_turn(struct weft__worker *worker, int64_t elapsed)
{
    uint64_t dispatches = atomic_load_explicit(&worker->dispatches, memory_order_relaxed);

    worker->turn_ns = dispatches == worker->turn ? worker->turn_ns + elapsed : 0;
    worker->turn = dispatches;
}

void weft__maintain(struct weft__driver *driver, struct weft__worker *worker)
{
    int64_t now = weft__clock_now();
    int64_t elapsed = now - atomic_load_explicit(&worker->maintained_at, memory_order_relaxed);

    measure_slices(worker, elapsed);
    measure_turn(worker, elapsed);
    atomic_store_explicit(&worker->maintained_at, now, memory_order_relaxed);
    weft__expire(driver, worker, &worker->timers, now);
    if (atomic_load_explicit(&worker->used, memory_order_relaxed) &&
        now - atomic_load_explicit(&worker->polled_at, memory_order_relaxed) >= WEFT__LOOK_NS)
        look_at_events(driver, worker, worker, now);
    weft__drain_inbox(worker, worker);
    serve_stale_peers(driver, worker, now);
    weft__spread(worker, now);
    weft__queue_age(&worker->queue, now);
    weft__set_overdue(driver, worker->turn_ns >= TURN_NS && !weft__queue_is_empty(&worker->queue));
}
