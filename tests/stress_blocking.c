/*
 * Stress for the blocking pool: many tasks make short and long calls in all three ways, while others cancel them,
 * with few threads, a short keep-alive and a bounded or unbounded queue. Every call must be accounted for: it ran
 * and its result arrived, or it ran and its orphan function did, or it never ran and an error was returned.
 *
 *     stress_blocking [seconds] [workers] [seed]
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <weft.h>

enum { CALLERS = 24, CALLS = 200 };

struct totals {
    atomic_long ran;
    atomic_long answered;
    atomic_long orphaned;
    atomic_long not_run;
    atomic_long lent; /* to abandonable calls; and what came back from them: */
    atomic_long returned;
    atomic_long wrong;
};

static struct totals totals;

struct caller {
    uint32_t random;
    struct storm *storm;
};

/* Cancels the callers again and again, once all of them have started. */
struct storm {
    weft_task *tasks[CALLERS];
    atomic_int started;
    atomic_int ended;
    uint32_t random;
};

static uint32_t draw(uint32_t *random)
{
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

/* The call: mostly nothing, sometimes a wait of up to 300 µs. */
static intptr_t call(void *arg)
{
    intptr_t us = (intptr_t)arg;

    atomic_fetch_add(&totals.ran, 1);
    if (us >= 50)
        usleep((useconds_t)us);
    return us;
}

static int is_refusal(intptr_t result)
{
    return result == -ECANCELED || result == -ETIMEDOUT || result == -EAGAIN;
}

static void orphan(intptr_t result, void *arg)
{
    if (result == (intptr_t)arg)
        atomic_fetch_add(&totals.orphaned, 1);
    else
        atomic_fetch_add(is_refusal(result) ? &totals.not_run : &totals.wrong, 1);
    atomic_fetch_add(&totals.returned, 1);
}

static intptr_t pick_duration(uint32_t *random)
{
    uint32_t number = draw(random);

    return number % 32 == 0 ? 50 + (intptr_t)(number / 32 % 250) : (intptr_t)(number % 50);
}

static void note(intptr_t result, intptr_t expected)
{
    if (result == expected)
        atomic_fetch_add(&totals.answered, 1);
    else
        atomic_fetch_add(is_refusal(result) ? &totals.not_run : &totals.wrong, 1);
}

static void call_and_wait(uint32_t *random)
{
    intptr_t duration = pick_duration(random);

    note(weft_blocking(call, (void *)duration), duration);
}

static void call_with_deadline(uint32_t *random)
{
    intptr_t duration = pick_duration(random);
    weft_timeout scope;

    weft_timeout_begin(&scope, WEFT_US(draw(random) % 200));
    note(weft_blocking(call, (void *)duration), duration);
    weft_timeout_end(&scope);
}

/* An error tells nothing here about whether it ran: the orphan function does. */
static void call_abandonably(uint32_t *random)
{
    intptr_t duration = pick_duration(random);
    intptr_t result;

    atomic_fetch_add(&totals.lent, 1);
    result = weft_blocking_abandonable(call, (void *)duration, orphan);
    if (result == duration)
        atomic_fetch_add(&totals.answered, 1);
    else if (!is_refusal(result))
        atomic_fetch_add(&totals.wrong, 1);
    if (result == duration)
        atomic_fetch_add(&totals.returned, 1);
}

static void call_by_handle(uint32_t *random)
{
    intptr_t duration = pick_duration(random);
    weft_task *task = weft_spawn_blocking(call, (void *)duration);
    intptr_t result = -EAGAIN;

    if (task != NULL && draw(random) % 2)
        weft_cancel(task);
    if (task != NULL)
        weft_await_into(task, &result);
    note(result, duration);
}

static intptr_t caller_main(void *arg)
{
    static void (*const ways[])(uint32_t *) = {call_and_wait, call_with_deadline, call_abandonably, call_by_handle};
    struct caller *self = arg;

    atomic_fetch_add(&self->storm->started, 1);
    for (int i = 0; i < CALLS; i++) {
        ways[draw(&self->random) % 4](&self->random);
        weft_uncancel();
    }
    atomic_fetch_add(&self->storm->ended, 1);
    return 0;
}

static void rage(struct storm *storm)
{
    while (atomic_load(&storm->started) < CALLERS)
        weft_sleep(WEFT_US(30));
    while (atomic_load(&storm->ended) < CALLERS) {
        weft_cancel(storm->tasks[draw(&storm->random) % CALLERS]);
        weft_sleep(WEFT_US(30));
    }
}

static intptr_t round_main(void *arg)
{
    struct caller callers[CALLERS];
    struct storm storm = {.random = *(uint32_t *)arg};

    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){*(uint32_t *)arg + (uint32_t)i * 7919u, &storm};
        storm.tasks[i] = weft_spawn(caller_main, &callers[i]);
        if (storm.tasks[i] == NULL)
            return -ENOMEM;
    }
    rage(&storm);
    for (int i = 0; i < CALLERS; i++)
        weft_await(storm.tasks[i]);
    return 0;
}

static int one_round(uint32_t seed, uint32_t workers)
{
    static const uint64_t queues[] = {WEFT_UNBOUNDED, 4, WEFT_UNBOUNDED, 1};
    weft_config config = {.workers = workers,
                          .blocking_max = 1 + seed % 7,
                          .blocking_keepalive_ms = 1 + seed % 3,
                          .blocking_queue = queues[seed / 7 % 4]};
    weft_runtime *runtime;
    intptr_t result;
    int error = weft_runtime_start(&config, &runtime);

    if (error)
        return error;
    result = weft_runtime_run(runtime, round_main, &seed);
    error = weft_runtime_stop(runtime, WEFT_SEC(20));
    return error ? error : (int)result;
}

static int check(uint32_t seed)
{
    long ran = atomic_load(&totals.ran);
    long seen = atomic_load(&totals.answered) + atomic_load(&totals.orphaned);

    long lent = atomic_load(&totals.lent), returned = atomic_load(&totals.returned);

    if (atomic_load(&totals.wrong) == 0 && ran == seen && lent == returned)
        return 0;
    fprintf(stderr, "seed %u: %ld calls ran, %ld seen to end, %ld wrong results, %ld of %ld arguments came back\n",
            seed, ran, seen, atomic_load(&totals.wrong), returned, lent);
    return 1;
}

int main(int argc, char **argv)
{
    int64_t seconds = argc > 1 ? atoi(argv[1]) : 2;
    uint32_t workers = argc > 2 ? (uint32_t)atoi(argv[2]) : 2;
    uint32_t seed = argc > 3 ? (uint32_t)atoi(argv[3]) : 1;
    int64_t end = weft_now() + WEFT_SEC(seconds);
    unsigned rounds = 0;

    alarm((unsigned)seconds + 60);
    do {
        int error = one_round(seed, workers);

        if (error) {
            fprintf(stderr, "seed %u: error %d\n", seed, error);
            return 1;
        }
        if (check(seed))
            return 1;
        rounds++;
        seed++;
    } while (weft_now() < end);
    printf("%u rounds: %ld calls ran, %ld orphaned, %ld did not run\n", rounds, atomic_load(&totals.ran),
           atomic_load(&totals.orphaned), atomic_load(&totals.not_run));
    return 0;
}
