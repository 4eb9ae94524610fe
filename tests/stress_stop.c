/*
 * Stopping amid everything: runtimes that are stopped while tasks of every kind start, wait, step, sleep and wake each other,
 * with a take-over that comes soon. Every task must end, whatever it was doing.
 */
#include "support.h"

static weft_chan *chan;
static weft_event event;
static weft_promise promise;

static intptr_t leaf(void *arg)
{
    weft_sleep(WEFT_US((intptr_t)arg % 500));
    return 0;
}

static weft_task *spawn_leaf(uint64_t *random)
{
    weft_spawn_options options = {.delay = draw(random) % 2 ? WEFT_US((int64_t)(draw(random) % 2000)) : 0};

    return weft_spawn_with(&options, leaf, (void *)(intptr_t)(draw(random) % 1000));
}

/* ---- without a stack ---- */

struct walker {
    weft_frame frame;
    int i, item;
    uint64_t random;
    intptr_t rc;
    weft_task *task;
};

static intptr_t step_of(struct walker *w)
{
    switch (w->i % 4) {
    case 0:
        return weft_async_sleep(WEFT_US(w->random % 300));
    case 1:
        return weft_async_recv(chan, &w->item);
    case 2:
        return weft_async_event(&event);
    default:
        return weft_async_promise(&promise, NULL);
    }
}

static intptr_t walk_in_steps(void *arg)
{
    struct walker *w = arg;

    WEFT_BEGIN(w);
    for (w->i = 0, w->rc = 0; w->i < 20 && w->rc != -ECANCELED; w->i++) {
        WEFT_AWAIT(w, w->rc, step_of(w));
        if (w->i % 5 != 3)
            continue;
        w->task = spawn_leaf(&w->random);
        must(w->task != NULL);
        WEFT_AWAIT(w, w->rc, weft_async_await(w->task, NULL));
    }
    WEFT_END(w, 0);
}

/* Its structure must outlive it, started or not: it belongs to a task that waits for it. */
static intptr_t own_a_walker(void *arg)
{
    struct walker walker = {.random = (uint64_t)(uintptr_t)arg | 1};
    weft_task *task = weft_spawn_stackless(walk_in_steps, &walker);

    must(task != NULL);
    weft_await(task);
    return 0;
}

/* ---- with one ---- */

static intptr_t numbers(void *arg)
{
    for (int i = 0; i < 50 && weft_sleep(WEFT_US(20)) == 0; i++)
        weft_gen_yield(i);
    return (intptr_t)arg;
}

static intptr_t pass_result(intptr_t result, void *arg)
{
    (void)arg;
    return result;
}

static int do_something(uint64_t *random, weft_gen *gen)
{
    weft_task *task;
    int item = 1;

    switch (draw(random) % 5) {
    case 0:
        return weft_chan_send(chan, &item);
    case 1:
        return weft_chan_recv(chan, &item);
    case 2:
        weft_event_set(&event);
        return weft_yield();
    case 3:
        weft_gen_next(gen, NULL);
        return weft_cancelled() ? -ECANCELED : 0;
    default:
        task = weft_promise_then(&promise, pass_result, NULL);
        weft_detach(task);
        return 0;
    }
}

static intptr_t wander(void *arg)
{
    uint64_t random = (uint64_t)(uintptr_t)arg | 1;
    weft_gen *gen = weft_gen_new(numbers, NULL);

    must(gen != NULL);
    for (int i = 0; i < 30; i++)
        if (do_something(&random, gen) == -ECANCELED)
            break;
    must_be(weft_gen_free(gen), 0);
    return 0;
}

static intptr_t spawn_many(void *arg)
{
    static weft_fn *const kinds[] = {wander, leaf, own_a_walker};
    uint64_t random = (uint64_t)(uintptr_t)arg | 1;
    unsigned workers = weft_runtime_workers(weft_runtime_current());

    for (int i = 0; i < 200; i++) {
        weft_spawn_options options = WEFT_SPAWN_DEFAULT;

        if (draw(&random) % 2)
            options.delay = WEFT_US((int64_t)(draw(&random) % 3000));
        if (draw(&random) % 4 == 0) {
            options.flags |= WEFT_SPAWN_PINNED;
            options.worker = (uint32_t)(draw(&random) % (workers + 1));
        }
        if (draw(&random) % 5 == 0)
            options.flags |= WEFT_SPAWN_EAGER;
        weft_detach(weft_spawn_with(&options, kinds[draw(&random) % 3], (void *)(uintptr_t)(draw(&random) >> 20)));
        if (draw(&random) % 50 == 0)
            weft_yield();
    }
    return 0;
}

static void one_round(unsigned workers, uint64_t *random)
{
    weft_config config = {.workers = workers, .takeover_us = 200};
    weft_runtime *runtime;

    must_be(weft_runtime_start(&config, &runtime), 0);
    chan = weft_chan_new(sizeof(int), 2);
    must(chan != NULL);
    event = (weft_event)WEFT_EVENT_INIT;
    promise = (weft_promise)WEFT_PROMISE_INIT;
    for (int i = 0; i < 3; i++)
        must_be(weft_runtime_go(runtime, spawn_many, (void *)(uintptr_t)(draw(random) >> 20)), 0);
    nap(WEFT_US((int64_t)(draw(random) % 3000)));
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    weft_chan_free(chan);
}

int main(void)
{
    uint64_t random = wanted_seed();
    unsigned workers = wanted_workers();
    int64_t end = weft_now() + WEFT_SEC(wanted_seconds());
    long rounds = 0;

    printf("seed %llu\n", (unsigned long long)random);
    for (; rounds == 0 || weft_now() < end; rounds++)
        one_round(workers, &random);
    printf("%ld rounds, every task ended\n", rounds);
    return 0;
}
