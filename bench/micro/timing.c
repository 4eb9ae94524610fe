/*
 * D: timers and the blocking pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "micro.h"

/* ---- D1: many sleepers ---- */

enum { SLEEPS = 3 };

struct sleeper {
    int64_t naps[SLEEPS]; /* how long to sleep; afterwards by how much longer it was */
    /* Of one in steps. */
    weft_frame frame;
    int i;
    int64_t start;
    intptr_t error;
};

struct dormitory {
    long count;
    struct sleeper *sleepers;
    weft_task *(*spawn)(struct sleeper *sleeper);
};

static intptr_t sleep_thrice(void *arg)
{
    struct sleeper *sleeper = arg;
    for (int i = 0; i < SLEEPS; i++) {
        int64_t start = weft_now();
        int error = weft_sleep(sleeper->naps[i]);
        if (error)
            return error;
        sleeper->naps[i] = weft_now() - start - sleeper->naps[i];
    }
    return 0;
}

static weft_task *with_stack(struct sleeper *sleeper)
{
    return weft_spawn(sleep_thrice, sleeper);
}

static intptr_t sleep_thrice_in_steps(void *arg)
{
    struct sleeper *sleeper = arg;
    WEFT_BEGIN(sleeper);
    for (sleeper->i = 0; sleeper->i < SLEEPS; sleeper->i++) {
        sleeper->start = weft_now();
        WEFT_AWAIT(sleeper, sleeper->error, weft_async_sleep(sleeper->naps[sleeper->i]));
        if (sleeper->error)
            return sleeper->error;
        sleeper->naps[sleeper->i] = weft_now() - sleeper->start - sleeper->naps[sleeper->i];
    }
    WEFT_END(sleeper, 0);
}

static weft_task *in_steps(struct sleeper *sleeper)
{
    return weft_spawn_stackless(sleep_thrice_in_steps, sleeper);
}

static intptr_t timed_sleepers(void *arg)
{
    struct dormitory *dormitory = arg;
    weft_task **tasks = malloc((size_t)dormitory->count * sizeof *tasks);
    if (!tasks)
        return -ENOMEM;
    int64_t start = weft_now();
    for (long i = 0; i < dormitory->count; i++)
        tasks[i] = dormitory->spawn(&dormitory->sleepers[i]);
    intptr_t error = 0;
    for (long i = 0; i < dormitory->count; i++)
        error |= weft_await(tasks[i]);
    int64_t end = weft_now();
    free(tasks);
    return error ? error : end - start;
}

/* The same naps in every repeat and on every machine; returns the longest sum of one sleeper's. */
static int64_t assign_naps(struct dormitory *dormitory)
{
    uint64_t state = 88172645463325252u;
    int64_t longest = 0;
    for (long i = 0; i < dormitory->count; i++) {
        int64_t sum = 0;
        for (int j = 0; j < SLEEPS; j++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            dormitory->sleepers[i].naps[j] = WEFT_MS(1 + (int64_t)(state % 1000));
            sum += dormitory->sleepers[i].naps[j];
        }
        longest = sum > longest ? sum : longest;
    }
    return longest;
}

static int sleep_crowd(weft_runtime *runtime, struct dormitory *dormitory, int64_t *over_ideal)
{
    dormitory->sleepers = calloc((size_t)dormitory->count, sizeof *dormitory->sleepers);
    if (!dormitory->sleepers)
        return -ENOMEM;
    int64_t ideal = assign_naps(dormitory);
    intptr_t ns = weft_runtime_run(runtime, timed_sleepers, dormitory);
    *over_ideal = ns - ideal;
    return weft_is_error(ns) ? (int)ns : 0;
}

/* D1.over and D1.cpu. */
static int many_sleepers_of(weft_task *(*spawn)(struct sleeper *), const char *over_part, const char *cpu_part,
                            const struct setting *setting, struct sample *sample)
{
    struct dormitory dormitory = {100000, NULL, spawn};
    int64_t over = 0;
    double cpu = cpu_seconds();
    int error = sleep_crowd(setting->runtime, &dormitory, &over);
    add_part(sample, "D1", over_part, "ms", (double)over / 1e6);
    add_part(sample, "D1", cpu_part, "s", cpu_seconds() - cpu);
    free(dormitory.sleepers);
    return error;
}

static int many_sleepers(const struct setting *setting, struct sample *sample)
{
    return many_sleepers_of(with_stack, "over", "cpu", setting, sample);
}

static int many_sleepers_in_steps(const struct setting *setting, struct sample *sample)
{
    return many_sleepers_of(in_steps, "over.s", "cpu.s", setting, sample);
}

static int thousand_sleepers(const struct setting *setting, struct sample *sample)
{
    static int64_t overshoots[1000 * SLEEPS];
    struct dormitory dormitory = {1000, NULL, with_stack};
    int64_t over = 0;
    int error = sleep_crowd(setting->runtime, &dormitory, &over);
    for (long i = 0; !error && i < dormitory.count * SLEEPS; i++)
        overshoots[i] = dormitory.sleepers[i / SLEEPS].naps[i % SLEEPS];
    if (!error)
        add_part(sample, "D1", "p99", "ms", (double)quantile(overshoots, dormitory.count * SLEEPS, 0.99) / 1e6);
    free(dormitory.sleepers);
    return error;
}

/* ---- D2: a time-out around something that does not wait ---- */

static intptr_t timed_timeouts(void *arg)
{
    const long count = *(const long *)arg;
    weft_mutex mutex = WEFT_MUTEX_INIT;
    int64_t start = weft_now();
    for (long i = 0; i < count; i++) {
        weft_timeout timeout;
        weft_timeout_begin(&timeout, WEFT_SEC(1));
        weft_mutex_trylock(&mutex);
        weft_mutex_unlock(&mutex);
        weft_timeout_end(&timeout);
    }
    return weft_now() - start;
}

static int unused_timeouts(const struct setting *setting, struct sample *sample)
{
    long count = setting->quick ? 1000000 : 10000000;
    intptr_t ns = weft_runtime_run(setting->runtime, timed_timeouts, &count);
    if (weft_is_error(ns))
        return (int)ns;
    add_metric(sample, "D2", "ns", (double)ns / (double)count);
    return 0;
}

/* ---- D3: a short sleep on an idle runtime ---- */

enum { SHORT_SLEEPS = 2000 };

static intptr_t short_sleeps(void *arg)
{
    int64_t *errors = arg;
    for (int i = 0; i < SHORT_SLEEPS; i++) {
        int64_t start = weft_now();
        int error = weft_sleep(WEFT_US(100));
        if (error)
            return error;
        errors[i] = weft_now() - start - WEFT_US(100);
    }
    return 0;
}

static int short_sleep(const struct setting *setting, struct sample *sample)
{
    static int64_t errors[SHORT_SLEEPS];
    int error = (int)weft_runtime_run(setting->runtime, short_sleeps, errors);
    if (error)
        return error;
    add_part(sample, "D3", "p50", "us", (double)quantile(errors, SHORT_SLEEPS, 0.5) / 1e3);
    add_part(sample, "D3", "p99", "us", (double)quantile(errors, SHORT_SLEEPS, 0.99) / 1e3);
    return 0;
}

/* ---- D4 … D6: the pool ---- */

struct callers {
    long tasks;
    long calls; /* of each */
    weft_fn *call;
};

static intptr_t call_nothing(void *arg)
{
    (void)arg;
    return 0;
}

static intptr_t call_sleep(void *arg)
{
    (void)arg;
    pause_thread(WEFT_MS(100));
    return 0;
}

static intptr_t call_again_and_again(void *arg)
{
    const struct callers *callers = arg;
    for (long i = 0; i < callers->calls; i++) {
        intptr_t error = weft_blocking(callers->call, NULL);
        if (error)
            return error;
    }
    return 0;
}

static intptr_t timed_callers(void *arg)
{
    struct callers *callers = arg;
    int64_t start = weft_now();
    int error = spawn_and_await(callers->tasks, call_again_and_again, callers);
    return error ? error : weft_now() - start;
}

static int trivial_calls(const struct setting *setting, struct sample *sample)
{
    struct callers callers = {100, setting->quick ? 200 : 1000, call_nothing};
    intptr_t ns = weft_runtime_run(setting->runtime, timed_callers, &callers);
    if (weft_is_error(ns))
        return (int)ns;
    add_metric(sample, "D4", "us", (double)ns / 1e3 / (double)(callers.tasks * callers.calls));
    return 0;
}

static int sleeping_calls(const struct setting *setting, struct sample *sample)
{
    struct callers callers = {2000, 1, call_sleep};
    intptr_t ns = weft_runtime_run(setting->runtime, timed_callers, &callers);
    if (weft_is_error(ns))
        return (int)ns;
    add_metric(sample, "D5", "ms", (double)ns / 1e6);
    return 0;
}

enum { CALLS_AT_ONCE = 16 };

static intptr_t batch_of_calls(void *arg)
{
    (void)arg;
    weft_task *calls[CALLS_AT_ONCE];
    for (int i = 0; i < CALLS_AT_ONCE; i++)
        calls[i] = weft_spawn_blocking(call_nothing, NULL);
    intptr_t error = 0;
    for (int i = 0; i < CALLS_AT_ONCE; i++)
        error |= weft_await(calls[i]);
    return error;
}

struct batches {
    long tasks;
    long batches;
};

static intptr_t timed_batches(void *arg)
{
    struct batches *batches = arg;
    int64_t start = weft_now();
    for (long i = 0; i < batches->batches; i++) {
        int error = spawn_and_await(batches->tasks, batch_of_calls, NULL);
        if (error)
            return error;
    }
    return weft_now() - start;
}

static int calls_at_once(const struct setting *setting, struct sample *sample)
{
    static const struct {
        const char *name;
        long tasks;
    } steps[] = {{"1", 1}, {"4", 4}, {"16", 16}};
    for (int i = 0; i < 3; i++) {
        struct batches batches = {steps[i].tasks, 100};
        intptr_t ns = weft_runtime_run(setting->runtime, timed_batches, &batches);
        if (weft_is_error(ns))
            return (int)ns;
        long calls = batches.tasks * batches.batches * CALLS_AT_ONCE;
        add_part(sample, "D6", steps[i].name, "us", (double)ns / 1e3 / (double)calls);
    }
    return 0;
}

const struct workload timing_workloads[] = {
    {"D1.crowd", "100 000 tasks sleep three times", many_sleepers, FRESH | ONE_IN_QUICK},
    {"D1.s", "the same with stackless tasks", many_sleepers_in_steps, FRESH | ONE_IN_QUICK},
    {"D1.few", "1000 tasks sleep three times: overshoot", thousand_sleepers, FRESH | ONE_IN_QUICK},
    {"D2", "a time-out around what does not wait", unused_timeouts, 0},
    {"D3", "sleep 100 us: error", short_sleep, 0},
    {"D4", "trivial pool calls of 100 tasks", trivial_calls, 0},
    {"D5", "2000 pool calls of 100 ms, 512 threads", sleeping_calls, ONE_IN_QUICK},
    {"D6", "16 pool calls from 1, 4, 16 tasks", calls_at_once, 0},
    {NULL, NULL, NULL, 0},
};
