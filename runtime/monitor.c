/*
 * The monitor thread (monitor.h).
 *
 * It ticks every millisecond while some worker runs, up to eight times more slowly the longer none has been suspected
 * of being stuck, more slowly still the more often it finds all of them asleep, and stops ticking when they have slept
 * all the time: where all processors are busy each tick takes one away from who works there, which costs as much as
 * serving three requests does, and more if the kernel then puts two that work onto one processor. Then `wanted` goes to
 * 0 and it sleeps without a time-out. A worker that begins to run looks at `wanted`, after a full fence, and the
 * monitor looks at the workers once more after it set it to 0, also after a full fence: one of the two sees the other.
 */
#include "runtime/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/time.h>

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/futex.h"
#include "runtime/runtime.h"
#include "runtime/spread.h"

enum {
    TICK_NS = 1000 * 1000, /* while something is suspected, or was: so long a backlog waits behind a long task */
    SLOW_TICKS = 8,
    CALM_TICKS = 32,               /* if all sleep, too */
    CALM_SHARE = 100,              /* a tick is at most this part of the time since a worker was last suspected */
    STARVED = 20,                  /* take-over times after which it makes no difference why a worker is stuck */
    IDLE_TICKS = 3,                /* nobody ran between so many ticks: stop ticking */
    SELDOM_NS = 20 * TICK_NS,      /* woken after so long: stop again as soon as all sleep */
    NAME_NS = 100 * 1000 * 1000,   /* with the take-over off, debug mode names a task stuck for so long */
    ATTENTIVE_TICK_NS = 50 * 1000, /* a section that was seen at two ticks has blocked, or nearly: 50 to 150 µs */
    ATTENTIVE_TICKS = 5,           /* without a section: no longer attentive */
    SECTION_NS = TICK_NS, /* one that is so long and still need not be taken over can wait for the next tick */
};

/* What was seen of a worker. */
struct weft__watch {
    uint64_t dispatches;
    int64_t maintained_at;
    int64_t since;          /* it has not moved since then */
    int64_t processor_time; /* of its thread, at `asked_at`; -1: not looked at */
    int64_t asked_at;
    bool named;
    uint64_t sleeps;                   /* of its driver */
    uint32_t section;                  /* the blocking section that its driver was in; even: none */
    const struct weft__driver *driver; /* which one: an identity */
    int64_t section_since;
};

static bool is_asleep(const struct weft__worker *worker)
{
    return atomic_load_explicit(&worker->state, memory_order_relaxed) == WEFT__SLEEPING;
}

static void watch_anew(struct weft__watch *watch, int64_t now)
{
    watch->since = now;
    watch->processor_time = -1;
    watch->named = false;
}

/* Dispatches show that tasks take turns, maintained_at that one task awaits others in place. */
static bool has_moved(struct weft__watch *watch, struct weft__worker *worker)
{
    uint64_t dispatches = atomic_load_explicit(&worker->dispatches, memory_order_relaxed);
    int64_t maintained_at = atomic_load_explicit(&worker->maintained_at, memory_order_relaxed);
    bool moved = dispatches != watch->dispatches || maintained_at != watch->maintained_at;

    watch->dispatches = dispatches;
    watch->maintained_at = maintained_at;
    return moved;
}

/* Does something wait that others could serve? Descriptors might: nobody knows before asking epoll. */
static bool has_backlog(const struct weft__worker *worker, int64_t now)
{
    return weft__queue_count(&worker->queue) > 0 || !weft__inbox_is_empty(&worker->inbox) ||
           weft__timers_earliest(&worker->timers) <= now;
}

/* Its tasks want to stay on this thread. */
static bool has_pinned(const struct weft__worker *worker)
{
    return atomic_load_explicit(&worker->pinned, memory_order_relaxed) > 0;
}

static void copy_running_name(const weft_task *running, char name[WEFT__NAME_SIZE])
{
    name[0] = '\0';
    if (running)
        weft__task_copy_name(running, name);
    if (!name[0])
        strcpy(name, "(no name)");
}

static void name_stuck(struct weft__watch *watch, const struct weft__worker *worker, int64_t now, const char *what)
{
    const weft_task *running = atomic_load_explicit(&weft__driver_of(worker)->running, memory_order_relaxed);
    char name[WEFT__NAME_SIZE];

    /* In a section it said so itself; between two tasks it is the machine that is slow. */
    if (watch->named || !worker->runtime->config.debug || !running ||
        (atomic_load_explicit(&weft__driver_of(worker)->section, memory_order_relaxed) & 1))
        return;
    watch->named = true;
    copy_running_name(running, name);
    weft__say("worker %u has been stuck in task '%s' (%p) for %lld ms%s. Blocking calls belong into weft_blocking, "
              "long computations should call weft_yield.",
              worker->index, name, (const void *)running, (long long)((now - watch->since) / 1000000), what);
}

static int64_t processor_time(const struct weft__driver *driver)
{
    struct timespec ts;
    clockid_t clock;

    if (pthread_getcpuclockid(driver->thread, &clock) != 0 || clock_gettime(clock, &ts) != 0)
        return 0;
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

bool weft__thread_file(const struct weft__driver *driver, const char *name, char *text, size_t size)
{
    char path[64];
    ssize_t length;
    int fd;

    snprintf(path, sizeof path, "/proc/self/task/%d/%s", atomic_load_explicit(&driver->tid, memory_order_relaxed),
             name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    length = read(fd, text, size - 1);
    close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    return true;
}

/* Does the kernel say that the thread could run? False if it sleeps, or if nobody can tell. */
static bool is_runnable(const struct weft__driver *driver)
{
    char line[512], *state;

    if (!weft__thread_file(driver, "stat", line, sizeof line))
        return false;
    state = strrchr(line, ')');
    return state && strlen(state) > 2 && state[2] == 'R';
}

/*
 * Stuck is a thread that blocks in the kernel or computes. One that could run but gets no processor, because the
 * machine is busy with others, is not: a spare thread would get none either.
 */
static bool waits_for_processor(const struct weft__watch *watch, const struct weft__worker *worker, int64_t now)
{
    const struct weft__driver *driver = weft__driver_of(worker);
    int64_t used = processor_time(driver) - watch->processor_time;

    return (now == watch->asked_at || used < (now - watch->asked_at) / 2) && is_runnable(driver);
}

/*
 * Hand a stuck worker to a spare thread. The spare is there before the worker is touched, so nothing can fail half
 * way. From the moment `lost` is set, the old driver goes on as a thread outside the runtime.
 */
static bool take_over(weft_runtime *runtime, struct weft__worker *worker)
{
    struct weft__driver *spare = weft__runtime_take_spare(runtime);
    struct weft__driver *stuck;

    if (!spare)
        return false;
    if (!weft__seize(worker)) {
        weft__runtime_return_spare(spare);
        return false;
    }
    if (has_pinned(worker)) {
        weft__release(worker);
        weft__runtime_return_spare(spare);
        return false;
    }
    stuck = weft__driver_of(worker);
    /* release: pairs with the acquire in weft__enter_slowly; WEFT__SEIZED stays */
    atomic_store_explicit(&stuck->lost, true, memory_order_release);
    weft__runtime_give_worker(spare, worker);
    weft__lock_leave(&worker->seize_lock);
    atomic_fetch_add_explicit(&runtime->takeovers, 1, memory_order_relaxed);
    return true;
}

/* ---- sections in which a task blocks its thread ---- */

void weft__monitor_attend(weft_runtime *runtime)
{
    _Atomic uint32_t *attentive = &runtime->monitor.attentive;

    /*
     * No fence between the section, stored before, and this load: if the monitor stops being attentive at this very
     * moment, it sees the section at its next ordinary tick, a millisecond later at most. A fence would make every
     * section dearer.
     */
    if (atomic_load_explicit(attentive, memory_order_relaxed) != WEFT__ATTENTIVE &&
        atomic_exchange_explicit(attentive, WEFT__ATTENTIVE, memory_order_release) != WEFT__ATTENTIVE)
        weft__futex_wake(attentive, 1);
}

/* Is there anything that another thread could do for this worker now or later? */
static bool has_work_for_others(const struct weft__worker *worker)
{
    return weft__queue_count(&worker->queue) > 0 || !weft__inbox_is_empty(&worker->inbox) ||
           weft__timers_earliest(&worker->timers) != INT64_MAX ||
           atomic_load_explicit(&worker->used, memory_order_relaxed);
}

/* True: its driver is in a section. If it is in there for long, and asleep, another thread gets the worker. */
static bool check_section(weft_runtime *runtime, struct weft__watch *watch, struct weft__worker *worker,
                          int64_t now)
{
    const struct weft__driver *driver = weft__driver_of(worker);
    uint32_t section = atomic_load_explicit(&driver->section, memory_order_relaxed);

    if (section != watch->section || driver != watch->driver) {
        watch->section = section;
        watch->driver = driver;
        watch->section_since = now;
        return section & 1;
    }
    if (!(section & 1))
        return false;
    runtime->monitor.suspected_at = now;
    if (now - watch->section_since < ATTENTIVE_TICK_NS / 2)
        return true;
    /* Computing, or without a processor: not blocked, or not yet. Nothing to do: an ordinary tick will see. */
    if (has_pinned(worker) || !has_work_for_others(worker) || runtime->config.takeover_us == 0)
        return false;
    if (!is_runnable(driver) && take_over(runtime, worker))
        watch_anew(watch, now);
    return now - watch->section_since < SECTION_NS;
}

/* True: some worker is in a section that must be watched closely. */
static bool check_sections(weft_runtime *runtime, int64_t now)
{
    bool any = false;

    for (uint32_t i = 0; i < runtime->worker_count; i++)
        any |= check_section(runtime, &runtime->monitor.watches[i], &runtime->workers[i], now);
    return any;
}

/* The length of the shortest tick. */
static int64_t first_tick(const weft_runtime *runtime)
{
    int64_t half = runtime->config.takeover_us * 500;

    return half > 0 && half < TICK_NS ? half : TICK_NS;
}

static void ask_processor_time(struct weft__watch *watch, const struct weft__worker *worker, int64_t now)
{
    watch->processor_time = processor_time(weft__driver_of(worker));
    watch->asked_at = now;
}

/* Somebody should see to what waits there, if there may be something. */
static void wake_helper(weft_runtime *runtime, const struct weft__worker *worker, int64_t now)
{
    if (weft__is_stale(worker, now) &&
        (has_backlog(worker, now) || atomic_load_explicit(&worker->used, memory_order_relaxed)))
        weft__wake_searcher(runtime);
}

static void check(weft_runtime *runtime, struct weft__watch *watch, struct weft__worker *worker, int64_t now)
{
    int64_t takeover = runtime->config.takeover_us * 1000;
    bool moved = has_moved(watch, worker);
    int64_t stuck;

    /* It looks around after so many dispatches as took it some microseconds before: now they seem to take longer. */
    if (now - watch->maintained_at >= first_tick(runtime)) {
        weft__nudge(worker);
        wake_helper(runtime, worker, now);
        runtime->monitor.in_doubt = true;
    }
    if (moved) {
        watch_anew(watch, now);
        if (takeover > 0 &&
            runtime->monitor.pause >= takeover) /* at the next tick it may have been stuck for as long */
            ask_processor_time(watch, worker, now);
        return;
    }
    runtime->monitor.suspected_at = now;
    if (watch->processor_time < 0)
        ask_processor_time(watch, worker, now);
    stuck = now - watch->since;
    if (takeover == 0) {
        if (stuck >= NAME_NS)
            name_stuck(watch, worker, now, " (the take-over is off)");
        return;
    }
    if (stuck < takeover)
        return;
    if (stuck < takeover * STARVED && waits_for_processor(watch, worker, now))
        return;
    if (has_pinned(worker)) {
        name_stuck(watch, worker, now, " (not taken over: tasks are pinned to it)");
    } else if (has_backlog(worker, now) || atomic_load_explicit(&worker->used, memory_order_relaxed)) {
        name_stuck(watch, worker, now, "; a spare thread takes over its other tasks");
        if (take_over(runtime, worker))
            watch->since = now;
    } else if (stuck >= NAME_NS) {
        name_stuck(watch, worker, now, "");
    }
}

enum activity {
    IDLE,  /* all workers have slept since the last tick */
    QUIET, /* all sleep now */
    LIGHT, /* some run, and have slept since the last tick */
    BUSY   /* some have run since the last tick, or the pool has work that waits */
};

static bool has_slept(struct weft__watch *watch, const struct weft__worker *worker)
{
    uint64_t sleeps = atomic_load_explicit(&weft__driver_of(worker)->counters.sleeps, memory_order_relaxed);
    bool slept = sleeps != watch->sleeps;

    watch->sleeps = sleeps;
    return slept;
}

static enum activity tick_of(weft_runtime *runtime, struct weft__watch *watch, struct weft__worker *worker,
                             int64_t now)
{
    bool slept = has_slept(watch, worker);

    if (is_asleep(worker)) {
        watch_anew(watch, now);
        return slept ? QUIET : IDLE;
    }
    if (check_section(runtime, watch, worker, now))
        weft__monitor_attend(runtime);
    check(runtime, watch, worker, now);
    return slept ? LIGHT : BUSY;
}

static enum activity tick(weft_runtime *runtime)
{
    int64_t now = weft__clock_now();
    enum activity most = weft__pool_tick(runtime->pool) ? BUSY : IDLE;

    runtime->monitor.in_doubt = most == BUSY;
    for (uint32_t i = 0; i < runtime->worker_count; i++) {
        enum activity one = tick_of(runtime, &runtime->monitor.watches[i], &runtime->workers[i], now);

        most = one > most ? one : most;
    }
    weft__crowd_look(runtime, now);
    return most;
}

static bool all_asleep(const weft_runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->worker_count; i++)
        if (!is_asleep(&runtime->workers[i]))
            return false;
    return true;
}

/* Stop ticking until somebody wants it. */
static void rest(weft_runtime *runtime)
{
    _Atomic uint32_t *wanted = &runtime->monitor.wanted;

    atomic_store_explicit(wanted, 0, memory_order_relaxed);
    /* Full fence: pairs with the one in weft__monitor_wanted. */
    atomic_thread_fence(memory_order_seq_cst);
    if (all_asleep(runtime) && !weft__pool_wants_tick(runtime->pool))
        while (atomic_load_explicit(wanted, memory_order_acquire) == 0)
            weft__futex_wait(wanted, 0, INT64_MAX);
    atomic_store_explicit(wanted, 1, memory_order_relaxed);
}

/* While some run: `most` ticks in one, if nothing has been suspected for long. */
static int64_t tick_length(const weft_runtime *runtime, int most)
{
    int64_t calm = weft__clock_now() - runtime->monitor.suspected_at;
    int64_t shortest = first_tick(runtime);

    if (runtime->monitor.in_doubt || calm < shortest * CALM_SHARE)
        return shortest;
    return calm < shortest * most * CALM_SHARE ? calm / CALM_SHARE : shortest * most;
}

/* Ticks get longer as long as all are found asleep. */
static int64_t longer(const weft_runtime *runtime, int64_t length)
{
    int64_t most = tick_length(runtime, CALM_TICKS), slow = (int64_t)TICK_NS * SLOW_TICKS;

    most = most > slow ? most : slow;
    return length * 2 < most ? length * 2 : most;
}

static bool is_halting(const weft_runtime *runtime)
{
    return atomic_load_explicit(&runtime->halting, memory_order_acquire);
}

/* A sleep begins that may be longer than the pool can wait. */
static bool begin_calm(weft_runtime *runtime, int64_t length)
{
    if (length <= TICK_NS)
        return false;
    atomic_store_explicit(&runtime->monitor.calm, 1, memory_order_relaxed);
    /* Full fence: pairs with the one in weft__monitor_hurry. */
    atomic_thread_fence(memory_order_seq_cst);
    if (weft__pool_wants_tick(runtime->pool))
        atomic_store_explicit(&runtime->monitor.calm, 0, memory_order_relaxed);
    return true;
}

static bool is_called(const weft_runtime *runtime)
{
    return atomic_load_explicit(&runtime->monitor.calm, memory_order_acquire) == 0;
}

/* Sleep until the next tick is due; ticks of its own meanwhile, for sections, while it is attentive. */
static void sleep_until_tick(weft_runtime *runtime, int64_t length)
{
    _Atomic uint32_t *attentive = &runtime->monitor.attentive;
    bool calm = begin_calm(runtime, length);
    int64_t now = weft__clock_now();
    int64_t due = now + length;
    unsigned without = runtime->monitor.without_section;

    while (now < due && !is_halting(runtime)) {
        uint32_t attention = WEFT__CALLED;

        if (calm && is_called(runtime)) {
            /* A shorter sleep, not none: the pool's tick looks at what has been done since the last. */
            calm = false;
            due = due - now > first_tick(runtime) ? now + first_tick(runtime) : due;
        }
        /* acquire: pairs with the release in weft__monitor_hurry; then `calm` is 0 */
        if (atomic_compare_exchange_strong_explicit(attentive, &attention, WEFT__INATTENTIVE, memory_order_acquire,
                                                    memory_order_acquire))
            continue;
        if (attention == WEFT__INATTENTIVE) {
            weft__futex_wait(attentive, WEFT__INATTENTIVE, due);
            without = 0;
            now = weft__clock_now();
            continue;
        }
        without = check_sections(runtime, now) ? 0 : without + 1;
        if (without >= ATTENTIVE_TICKS) {
            atomic_store_explicit(attentive, WEFT__INATTENTIVE, memory_order_relaxed);
            if (due - now > TICK_NS) /* see weft__monitor_attend */
                due = now + TICK_NS;
            continue;
        }
        /* A plain timed sleep on a word that only the end changes. */
        weft__futex_wait(&runtime->halting, 0, now + ATTENTIVE_TICK_NS);
        now = weft__clock_now();
    }
    runtime->monitor.without_section = without;
    atomic_store_explicit(&runtime->monitor.calm, 0, memory_order_relaxed);
}

static void *monitor_main(void *arg)
{
    weft_runtime *runtime = arg;
    int64_t length = first_tick(runtime); /* between ticks that find all asleep */
    bool seldom = false;
    unsigned idle = 0;

    pthread_setname_np(pthread_self(), "weft-monitor");
    while (!is_halting(runtime)) {
        enum activity activity = tick(runtime);

        idle = activity == IDLE ? idle + 1 : 0;
        if (idle >= IDLE_TICKS || (seldom && activity <= QUIET)) {
            int64_t since = weft__clock_now();

            rest(runtime);
            seldom = weft__clock_now() - since >= SELDOM_NS;
            activity = BUSY;
        }
        if (activity >= LIGHT)
            idle = 0;
        if (activity == BUSY)
            length = tick_length(runtime, SLOW_TICKS);
        else if (activity != LIGHT)
            length = longer(runtime, length);
        /* One that runs may be about to be stuck. */
        runtime->monitor.pause = activity == LIGHT ? tick_length(runtime, SLOW_TICKS) : length;
        sleep_until_tick(runtime, runtime->monitor.pause);
    }
    return NULL;
}

void weft__monitor_wanted(weft_runtime *runtime)
{
    _Atomic uint32_t *wanted = &runtime->monitor.wanted;

    /* Full fence: the caller's state was stored before; pairs with the one in rest. */
    atomic_thread_fence(memory_order_seq_cst);
    if (__builtin_expect(atomic_load_explicit(wanted, memory_order_relaxed) != 0, 1))
        return;
    if (atomic_exchange_explicit(wanted, 1, memory_order_release) == 0)
        weft__futex_wake(wanted, 1);
}

void weft__monitor_hurry(weft_runtime *runtime)
{
    _Atomic uint32_t *calm = &runtime->monitor.calm, *attentive = &runtime->monitor.attentive;

    weft__monitor_wanted(runtime); /* with a full fence: pairs with the one in begin_calm */
    /* release: what the caller waits for is seen by the tick */
    if (atomic_load_explicit(calm, memory_order_relaxed) != 0 &&
        atomic_exchange_explicit(calm, 0, memory_order_release) != 0) {
        uint32_t asleep = WEFT__INATTENTIVE;

        /* If it is attentive it looks soon. */
        if (atomic_compare_exchange_strong_explicit(attentive, &asleep, WEFT__CALLED, memory_order_release,
                                                    memory_order_relaxed))
            weft__futex_wake(attentive, 1);
    }
}

int weft__monitor_start(weft_runtime *runtime)
{
    struct weft__monitor *monitor = &runtime->monitor;
    sigset_t all, before;
    int rc;

    monitor->watches = calloc(runtime->worker_count, sizeof *monitor->watches);
    if (!monitor->watches)
        return -ENOMEM;
    monitor->suspected_at = weft__clock_now(); /* nothing is known yet */
    for (uint32_t i = 0; i < runtime->worker_count; i++)
        watch_anew(&monitor->watches[i], weft__clock_now());
    atomic_store_explicit(&monitor->wanted, 1, memory_order_relaxed);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&monitor->thread, NULL, monitor_main, runtime);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        free(monitor->watches);
        monitor->watches = NULL;
    }
    return -rc;
}

void weft__monitor_stop(weft_runtime *runtime)
{
    struct weft__monitor *monitor = &runtime->monitor;

    if (!monitor->watches)
        return;
    weft__futex_wake(&runtime->halting, INT32_MAX);
    weft__monitor_attend(runtime);
    weft__monitor_wanted(runtime);
    pthread_join(monitor->thread, NULL);
    free(monitor->watches);
    monitor->watches = NULL;
}
