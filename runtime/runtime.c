/*
 * Starting and stopping. Called by threads outside the runtime; the drivers call in only to wait for a worker.
 *
 * Stopping, in this order:
 *  1. `stopping`: nothing more is taken from outside. 2. Every task is cancelled (a flag with each driver) and
 *  every parked one made ready, again and again until none is left or the grace is over: a task may park once
 *  more, masked. 3. The blocking pool ends. 4. `halting`: the drivers leave their loops, since all queues are
 *  empty for good; the monitor is joined, so that no take-over comes any more, then the drivers. 5. Memory is freed.
 *  If tasks or calls hold out, they are named and everything stays as it is.
 *
 * No task is left: the sum of all `ended` counters was read before the sum of all `spawned` ones and equals it. A
 * spawn is counted before its task can end, by release and acquire through the queues, so every task that the
 * first sum could miss is in the second.
 */
#include "runtime/runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/time.h>
#include <weft/version.h>

#include "runtime/clock.h"
#include "runtime/config.h"
#include "runtime/debug.h"
#include "runtime/futex.h"
#include "runtime/inspect.h"
#include "runtime/interrupt.h"
#include "runtime/task_end.h"
#include "runtime/trace.h"

enum {
    SPARES_AT_LEAST = 8,      /* limit of spare threads: the number of workers, or this */
    SPARE_KEEPALIVE_S = 10,   /* an unneeded spare thread ends after this */
    STOP_LOOK_NS = 20 * 1000, /* stopping looks at the tasks that are left after this, then twice as long … */
    STOP_LOOK_MOST_NS = 5000 * 1000,
    NAMED_AT_MOST = 16,
};

/* ---- threads ---- */

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
    /* acquire: pairs with the release in weft__count; see the head of this file */
    return atomic_load_explicit(counter, memory_order_acquire);
}

static struct weft__driver *new_driver(weft_runtime *runtime)
{
    struct weft__driver *driver = aligned_alloc(_Alignof(struct weft__driver), sizeof *driver);

    if (!driver)
        return NULL;
    memset(driver, 0, sizeof *driver);
    driver->runtime = runtime;
    driver->random = (runtime->config.seed ^ (uintptr_t)driver) | 1;
    atomic_init(&driver->summons, weft__fence_is_asymmetric() ? 0 : WEFT__FENCED);
    driver->stepper.runtime = runtime;
    driver->stepper.in_place_limit = (char *)UINTPTR_MAX; /* nothing runs in place on it */
    atomic_init(&driver->stepper.root, &driver->stepper);
    return driver;
}

/* The record of a thread that has ended, joined. NULL: there is none. With the lock. */
static struct weft__driver *take_exited(weft_runtime *runtime)
{
    for (struct weft__driver *driver = runtime->drivers; driver; driver = driver->next)
        if (driver->exited) {
            pthread_join(driver->thread, NULL);
            return driver;
        }
    return NULL;
}

/* Keep its counts, forget the thread. With the lock. */
static void drop_driver(weft_runtime *runtime, struct weft__driver *driver)
{
    struct weft__driver **link = &runtime->drivers;

    while (*link != driver)
        link = &(*link)->next;
    *link = driver->next;
    atomic_fetch_add_explicit(&runtime->external_spawned, read_counter(&driver->counters.spawned),
                              memory_order_release);
    atomic_fetch_add_explicit(&runtime->external_ended,
                              read_counter(&driver->counters.ended) + read_counter(&driver->counters.ran_in_place),
                              memory_order_release);
    free(driver);
}

/* With the lock. NULL: no memory or no thread. */
static struct weft__driver *start_driver(weft_runtime *runtime)
{
    struct weft__driver *driver = take_exited(runtime);
    bool is_new = !driver;

    if (is_new && !(driver = new_driver(runtime)))
        return NULL;
    atomic_store_explicit(&driver->has_worker, 0, memory_order_relaxed);
    if (atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        atomic_fetch_or_explicit(&driver->summons, WEFT__CANCEL_ALL, memory_order_relaxed);
    driver->exited = pthread_create(&driver->thread, NULL, weft__driver_main, driver) != 0;
    if (driver->exited && is_new) {
        free(driver);
        return NULL;
    }
    if (driver->exited) {
        /* Joined above, and nothing runs it: it must not be joined again. */
        drop_driver(runtime, driver);
        return NULL;
    }
    if (is_new) {
        driver->next = runtime->drivers;
        runtime->drivers = driver;
    }
    return driver;
}

struct weft__driver *weft__runtime_take_spare(weft_runtime *runtime)
{
    uint32_t most = runtime->worker_count > SPARES_AT_LEAST ? runtime->worker_count : SPARES_AT_LEAST;
    struct weft__driver *driver;

    pthread_mutex_lock(&runtime->drivers_lock);
    driver = runtime->spares;
    if (driver) {
        runtime->spares = driver->next_spare;
    } else if (runtime->spare_threads < most && (driver = start_driver(runtime))) {
        runtime->spare_threads++;
    }
    pthread_mutex_unlock(&runtime->drivers_lock);
    return driver;
}

void weft__runtime_return_spare(struct weft__driver *driver)
{
    weft_runtime *runtime = driver->runtime;

    pthread_mutex_lock(&runtime->drivers_lock);
    driver->next_spare = runtime->spares;
    runtime->spares = driver;
    pthread_mutex_unlock(&runtime->drivers_lock);
}

void weft__runtime_give_worker(struct weft__driver *driver, struct weft__worker *worker)
{
    driver->worker = worker;
    atomic_store_explicit(&driver->inside, 0, memory_order_relaxed);
    atomic_store_explicit(&driver->lost, false, memory_order_relaxed);
    atomic_fetch_and_explicit(&driver->summons, WEFT__CANCEL_ALL | WEFT__FENCED, memory_order_relaxed);
    /* release: all this; for thieves (weft__driver_of) and for the driver (weft__runtime_wait_for_worker) */
    atomic_store_explicit(&worker->driver, driver, memory_order_release);
    atomic_store_explicit(&driver->has_worker, 1, memory_order_release);
    weft__futex_wake(&driver->has_worker, 1);
}

/* Nobody has wanted this thread for a while. True: it may end. */
static bool retire(struct weft__driver *driver)
{
    weft_runtime *runtime = driver->runtime;
    bool retired = false;

    pthread_mutex_lock(&runtime->drivers_lock);
    for (struct weft__driver **link = &runtime->spares; *link; link = &(*link)->next_spare)
        if (*link == driver) {
            *link = driver->next_spare;
            driver->exited = true;
            runtime->spare_threads--;
            retired = true;
            break;
        }
    pthread_mutex_unlock(&runtime->drivers_lock);
    return retired;
}

static bool is_halting(const weft_runtime *runtime)
{
    return atomic_load_explicit(&runtime->halting, memory_order_acquire);
}

bool weft__runtime_wait_for_worker(struct weft__driver *driver)
{
    weft_runtime *runtime = driver->runtime;
    int64_t deadline = weft__clock_after(WEFT_SEC(SPARE_KEEPALIVE_S));

    /* It had a worker and lost it: it is a spare from now on, and the spare that took over is not. */
    if (atomic_load_explicit(&driver->lost, memory_order_acquire)) {
        atomic_store_explicit(&driver->has_worker, 0, memory_order_relaxed);
        atomic_store_explicit(&driver->lost, false, memory_order_relaxed);
        weft__runtime_return_spare(driver);
    } else if (is_halting(runtime)) {
        return false;
    }
    while (!atomic_load_explicit(&driver->has_worker, memory_order_acquire)) {
        if (is_halting(runtime))
            return false;
        if (weft__futex_wait(&driver->has_worker, 0, deadline) == -ETIMEDOUT) {
            if (retire(driver))
                return false;
            deadline = weft__clock_after(WEFT_SEC(SPARE_KEEPALIVE_S)); /* it has just been reserved */
        }
    }
    return !is_halting(runtime);
}

/* ---- starting ---- */

static int init_worker(weft_runtime *runtime, uint32_t index)
{
    struct weft__worker *worker = &runtime->workers[index];

    memset(worker, 0, sizeof *worker);
    worker->runtime = runtime;
    worker->index = index;
    worker->credit = worker->credit_given = WEFT__CREDIT_DISPATCH;
    atomic_init(&worker->state, WEFT__WOKEN); /* not stale: its driver is on the way */
    weft__timers_init(&worker->timers);
    return weft__poller_init(&worker->poller);
}

static void free_workers(weft_runtime *runtime)
{
    for (uint32_t i = 0; runtime->workers && i < runtime->worker_count; i++) {
        weft__fd_forget_worker(&runtime->workers[i]);
        weft__poller_free(&runtime->workers[i].poller);
        weft__timers_free(&runtime->workers[i].timers);
    }
    free(runtime->workers);
    runtime->workers = NULL;
}

static int make_workers(weft_runtime *runtime)
{
    uint32_t count = runtime->config.workers;
    int rc;

    runtime->workers = aligned_alloc(_Alignof(struct weft__worker), count * sizeof *runtime->workers);
    if (!runtime->workers)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        rc = init_worker(runtime, i);
        if (rc < 0)
            return rc;
        atomic_store_explicit(&runtime->workers[i].poller_of, &runtime->workers[i], memory_order_relaxed);
        runtime->worker_count = i + 1;
    }
    return 0;
}

static int start_drivers(weft_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->worker_count; i++) {
        struct weft__driver *driver;

        pthread_mutex_lock(&runtime->drivers_lock);
        driver = start_driver(runtime);
        pthread_mutex_unlock(&runtime->drivers_lock);
        if (!driver)
            return -EAGAIN;
        weft__runtime_give_worker(driver, &runtime->workers[i]);
    }
    return 0;
}

static void join_drivers(weft_runtime *runtime)
{
    struct weft__driver *driver;

    atomic_store_explicit(&runtime->halting, 1, memory_order_seq_cst);
    for (uint32_t i = 0; i < runtime->worker_count; i++) {
        atomic_store_explicit(&runtime->workers[i].state, WEFT__WOKEN, memory_order_seq_cst);
        weft__poller_wake(&runtime->workers[i].poller);
    }
    /* From here on only this thread changes the list: no take-over can come, every driver is leaving. */
    weft__monitor_stop(runtime);
    for (driver = runtime->drivers; driver; driver = driver->next) {
        atomic_store_explicit(&driver->has_worker, 1, memory_order_release);
        weft__futex_wake(&driver->has_worker, 1);
        pthread_join(driver->thread, NULL);
    }
    /* Not before all are joined: one may look at another's worker, and its driver, until it leaves. */
    while ((driver = runtime->drivers)) {
        runtime->drivers = driver->next;
        free(driver);
    }
}

static void free_runtime(weft_runtime *runtime)
{
    weft__crowd_free(&runtime->crowd);
    weft__pool_free(runtime->pool);
    weft__depot_free(runtime->depot);
    if (runtime->stacks)
        weft__stack_pool_free(runtime->stacks);
    free_workers(runtime);
    pthread_mutex_destroy(&runtime->drivers_lock);
    free(runtime);
}

static weft_runtime *new_runtime(const weft_config *config)
{
    weft_runtime *runtime = aligned_alloc(_Alignof(weft_runtime), sizeof *runtime);

    if (!runtime)
        return NULL;
    memset(runtime, 0, sizeof *runtime);
    runtime->config = *config;
    runtime->forks = weft__forks;
    pthread_mutex_init(&runtime->drivers_lock, NULL);
    return runtime;
}

static int make_parts(weft_runtime *runtime)
{
    int rc = weft__overflow_install();

    if (rc == 0)
        rc = weft__fork_watch();
    if (rc < 0)
        return rc;
    runtime->stacks = weft__stack_pool_new(runtime->config.stack_size);
    runtime->depot = weft__depot_new(runtime);
    runtime->pool = weft__pool_new(runtime, &runtime->config);
    if (!runtime->stacks || !runtime->depot || !runtime->pool)
        return -ENOMEM;
    rc = weft__crowd_init(&runtime->crowd, runtime->config.workers, weft_available_processors());
    if (rc < 0)
        return rc;
    return make_workers(runtime);
}

/* What the environment wants to see of it. */
static int observe(weft_runtime *runtime)
{
    const char *path = weft__config_trace_file();
    int rc = path ? weft__trace_to_file(path) : 0;

    if (rc < 0) {
        weft__say("WEFT_TRACE=\"%s\" cannot be written: %s", path, strerrordesc_np(-rc));
        return rc;
    }
    if (runtime->config.debug)
        weft__observe_begin(WEFT__OBSERVE_DEBUG);
    return weft__inspect_add(runtime);
}

int weft_runtime_start(const weft_config *config, weft_runtime **result)
{
    weft_config effective;
    weft_runtime *runtime;
    int rc;

    if (!result)
        return -EINVAL;
    rc = weft__config_resolve(config, &effective);
    if (rc < 0)
        return rc;
    if (effective.print_config)
        weft__config_print(config, &effective, stderr);
    weft__fence_init();
    runtime = new_runtime(&effective);
    if (!runtime)
        return -ENOMEM;
    rc = make_parts(runtime);
    if (rc == 0)
        rc = start_drivers(runtime);
    if (rc == 0)
        rc = weft__monitor_start(runtime);
    if (rc == 0)
        rc = observe(runtime);
    if (rc < 0) {
        join_drivers(runtime);
        if (runtime->pool)
            weft__pool_stop(runtime->pool, INT64_MAX);
        free_runtime(runtime);
        return rc;
    }
    *result = runtime;
    return 0;
}

/* ---- from outside ---- */

struct weft__outside *weft__outside_enter(weft_runtime *runtime)
{
    static _Thread_local char here; /* its address tells threads apart */
    uint32_t number = (uint32_t)((uintptr_t)&here >> 12) * 0x9E3779B1u >> 16;
    struct weft__outside *outside = &runtime->outside[number % WEFT__OUTSIDES];

    atomic_fetch_add_explicit(&outside->visitors, 1, memory_order_seq_cst);
    return outside;
}

/* ---- counting ---- */

static uint64_t sum_ended(weft_runtime *runtime)
{
    uint64_t sum = read_counter(&runtime->external_ended);

    for (struct weft__driver *driver = runtime->drivers; driver; driver = driver->next)
        sum += read_counter(&driver->counters.ended) + read_counter(&driver->counters.ran_in_place);
    return sum;
}

static uint64_t sum_spawned(weft_runtime *runtime)
{
    uint64_t sum = read_counter(&runtime->external_spawned);

    for (int i = 0; i < WEFT__OUTSIDES; i++)
        sum += read_counter(&runtime->outside[i].spawned);
    for (struct weft__driver *driver = runtime->drivers; driver; driver = driver->next)
        sum += read_counter(&driver->counters.spawned);
    return sum;
}

static uint64_t live_tasks(weft_runtime *runtime)
{
    uint64_t ended, spawned;

    pthread_mutex_lock(&runtime->drivers_lock);
    ended = sum_ended(runtime);
    spawned = sum_spawned(runtime);
    pthread_mutex_unlock(&runtime->drivers_lock);
    return spawned - ended;
}

static void add_counters(weft_stats *stats, const struct weft__counters *counters)
{
    stats->ended += read_counter(&counters->ended) + read_counter(&counters->ran_in_place);
    stats->spawned += read_counter(&counters->spawned);
    stats->ran_in_place += read_counter(&counters->ran_in_place);
    stats->steals += read_counter(&counters->steals);
    stats->stolen += read_counter(&counters->stolen);
    stats->wakes += read_counter(&counters->wakes);
    stats->sleeps += read_counter(&counters->sleeps);
    stats->polls += read_counter(&counters->polls);
    stats->events += read_counter(&counters->events);
    stats->polled_for_peer += read_counter(&counters->polled_for_peer);
    stats->timers_fired += read_counter(&counters->timers_fired);
}

void weft_runtime_stats(const weft_runtime *const_runtime, weft_stats *stats)
{
    weft_runtime *runtime = (weft_runtime *)const_runtime; /* for its lock */
    uint64_t cached = 0;

    memset(stats, 0, sizeof *stats);
    if (!runtime)
        return;
    pthread_mutex_lock(&runtime->drivers_lock);
    stats->live_tasks = sum_ended(runtime);
    stats->live_tasks = sum_spawned(runtime) - stats->live_tasks;
    for (struct weft__driver *driver = runtime->drivers; driver; driver = driver->next) {
        add_counters(stats, &driver->counters);
        cached += atomic_load_explicit(&driver->stacks.count, memory_order_relaxed);
    }
    stats->spare_threads = runtime->spare_threads;
    stats->takeovers = read_counter(&runtime->takeovers);
    pthread_mutex_unlock(&runtime->drivers_lock);
    for (uint32_t i = 0; i < runtime->worker_count; i++)
        stats->dispatched += read_counter(&runtime->workers[i].dispatches);
    for (int i = 0; i < WEFT__OUTSIDES; i++)
        stats->spawned += read_counter(&runtime->outside[i].spawned);
    stats->spawned += read_counter(&runtime->external_spawned);
    stats->ended += read_counter(&runtime->external_ended);
    stats->stacks = weft__stack_pool_live(runtime->stacks);
    stats->stacks = stats->stacks > cached ? stats->stacks - cached : 0;
    weft__pool_stats(runtime->pool, stats);
}

/* ---- stopping ---- */

static void cancel_all(weft_runtime *runtime)
{
    atomic_store_explicit(&runtime->stopping, 1, memory_order_seq_cst);
    pthread_mutex_lock(&runtime->drivers_lock);
    for (struct weft__driver *driver = runtime->drivers; driver; driver = driver->next)
        atomic_fetch_or_explicit(&driver->summons, WEFT__CANCEL_ALL, memory_order_release);
    pthread_mutex_unlock(&runtime->drivers_lock);
}

static void wake_if_parked(weft_task *task, void *unused)
{
    (void)unused;
    if (atomic_load_explicit(&task->state, memory_order_relaxed) & WEFT__PARKED)
        weft__ready(task);
}

static bool is_visited(const weft_runtime *runtime)
{
    uint32_t visitors = atomic_load_explicit(&runtime->visitors, memory_order_seq_cst);

    for (int i = 0; i < WEFT__OUTSIDES && visitors == 0; i++)
        visitors = atomic_load_explicit(&runtime->outside[i].visitors, memory_order_seq_cst);
    return visitors > 0;
}

/* True: none is left. */
static bool wait_for_tasks(weft_runtime *runtime, int64_t deadline)
{
    int64_t pause = STOP_LOOK_NS;

    /* Visitors first: with `stopping` set, nobody comes after the last one to spawn, and the count of tasks is final.
     * Then once more: who has made the last task run may not have left when it ended. */
    while (is_visited(runtime) || live_tasks(runtime) > 0 || is_visited(runtime)) {
        struct timespec ts = {0, pause};

        if (weft__clock_now() >= deadline)
            return false;
        weft__depot_each(runtime->depot, wake_if_parked, NULL);
        nanosleep(&ts, NULL);
        pause = pause * 2 < STOP_LOOK_MOST_NS ? pause * 2 : STOP_LOOK_MOST_NS;
    }
    return true;
}

static void name_if_parked(weft_task *task, void *arg)
{
    char name[WEFT__NAME_SIZE];
    unsigned *named = arg;

    if (!(atomic_load_explicit(&task->state, memory_order_acquire) & WEFT__PARKED) || ++*named > NAMED_AT_MOST)
        return;
    weft__task_copy_name(task, name);
    weft__say("task '%s' (%p) still waits", name, (void *)task);
}

static void name_hold_outs(weft_runtime *runtime)
{
    unsigned named = 0;

    weft__say("stopping: %llu tasks hold out after the grace period and are left behind",
              (unsigned long long)live_tasks(runtime));
    pthread_mutex_lock(&runtime->drivers_lock);
    for (struct weft__driver *driver = runtime->drivers; driver; driver = driver->next) {
        weft_task *task = atomic_load_explicit(&driver->running, memory_order_relaxed);
        char name[WEFT__NAME_SIZE];

        if (!task || (atomic_load_explicit(&task->state, memory_order_relaxed) & (WEFT__PARKED | WEFT__DONE)))
            continue;
        weft__task_copy_name(task, name);
        weft__say("task '%s' (%p) still runs", name, (void *)task);
    }
    pthread_mutex_unlock(&runtime->drivers_lock);
    weft__depot_each(runtime->depot, name_if_parked, &named);
}

int weft_runtime_stop(weft_runtime *runtime, int64_t grace)
{
    struct weft__driver *driver = weft__driver();
    int64_t deadline = weft__clock_after(grace);

    if (!runtime)
        return -EINVAL;
    if (weft__is_elsewhere(runtime))
        return -ENOTRECOVERABLE;
    if (driver && driver->runtime == runtime)
        return -EDEADLK;
    cancel_all(runtime);
    if (!wait_for_tasks(runtime, deadline)) {
        weft__pool_stop(runtime->pool, deadline);
        name_hold_outs(runtime);
        return -ETIMEDOUT;
    }
    if (weft__pool_stop(runtime->pool, deadline) > 0)
        return -ETIMEDOUT;
    join_drivers(runtime);
    weft__inspect_remove(runtime);
    weft__debug_name_unawaited(runtime);
    free_runtime(runtime);
    return 0;
}

/* ---- running ---- */

intptr_t weft_runtime_run(weft_runtime *runtime, weft_fn *fn, void *arg)
{
    struct weft__driver *driver = weft__driver();
    intptr_t result;
    weft_task *task;

    if (!runtime || !fn)
        return -EINVAL;
    if (driver && driver->runtime == runtime)
        return weft__misused_nested("weft_runtime_run");
    if (weft__is_elsewhere(runtime))
        return -ENOTRECOVERABLE;
    if (driver && weft__in_stackless())
        return weft__misused_stackless("weft_runtime_run");
    weft__visit(runtime);
    task = weft_runtime_spawn(runtime, fn, arg);
    if (task)
        result = weft_await(task);
    else
        result = atomic_load_explicit(&runtime->stopping, memory_order_seq_cst) ? -ESHUTDOWN : -ENOMEM;
    weft__end_visit(runtime);
    return result;
}

intptr_t weft_run(weft_fn *fn, void *arg)
{
    weft_runtime *runtime;
    intptr_t result;
    bool interrupts;
    int rc;

    if (weft__driver())
        return weft__misused_nested("weft_run");
    rc = weft_runtime_start(NULL, &runtime);
    if (rc < 0)
        return rc;
    interrupts = weft__interrupt_begin();
    result = weft_runtime_run(runtime, fn, arg);
    if (interrupts)
        weft__interrupt_end();
    weft_runtime_stop(runtime, WEFT_FOREVER);
    return result;
}

weft_runtime *weft_runtime_current(void)
{
    struct weft__driver *driver = weft__driver();

    return driver ? driver->runtime : NULL;
}

unsigned weft_runtime_workers(const weft_runtime *runtime)
{
    return runtime->worker_count;
}

struct weft__pool *weft__runtime_pool(weft_runtime *runtime)
{
    return runtime->pool;
}

void weft__runtime_report_named(weft_runtime *runtime, const char *name, intptr_t result)
{
    if (runtime->config.on_unseen_failure)
        runtime->config.on_unseen_failure(name, result, runtime->config.user);
    else if (runtime->config.debug)
        weft__say("'%s' failed with %d (%s) and nobody awaits it", name, (int)result,
                  strerrordesc_np((int)-result));
}

void weft__runtime_report(weft_runtime *runtime, const weft_task *task, intptr_t result)
{
    const char *name = weft__task_name(task);
    char number[32];

    /* Every task is cancelled then, without a mark of its own. */
    if (result == -ECANCELED && atomic_load_explicit(&runtime->stopping, memory_order_relaxed))
        return;
    if (!*name && !runtime->config.on_unseen_failure) {
        snprintf(number, sizeof number, "task %p", (void *)task);
        name = number;
    }
    weft__runtime_report_named(runtime, name, result);
}

const char *weft_version(void)
{
    return WEFT_VERSION_STRING;
}
