/*
 * A: scheduling. Yields, spawns, trees, fork-join, submissions from outside, wake-ups, idleness.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "micro.h"

/* ---- A1 … A3: yields ---- */

static intptr_t yield_many(void *arg)
{
    const long count = *(const long *)arg;
    for (long i = 0; i < count; i++)
        weft_yield();
    return 0;
}

static intptr_t timed_yields(void *arg)
{
    int64_t start = weft_now();
    yield_many(arg);
    return weft_now() - start;
}

static int yield_alone(const struct setting *setting, struct sample *sample)
{
    long count = setting->quick ? 2000000 : 10000000;
    intptr_t ns = weft_runtime_run(setting->runtime, timed_yields, &count);
    if (weft_is_error(ns))
        return (int)ns;
    add_metric(sample, "A1", "ns", (double)ns / (double)count);
    return 0;
}

struct yielders {
    long tasks;
    long yields;
};

static intptr_t timed_yielders(void *arg)
{
    struct yielders *yielders = arg;
    int64_t start = weft_now();
    int error = spawn_and_await(yielders->tasks, yield_many, &yielders->yields);
    return error ? error : weft_now() - start;
}

static int yield_among_1000_on(weft_runtime *runtime, int quick, double *ns_per_yield)
{
    struct yielders yielders = {1000, quick ? 1000 : 10000};
    intptr_t ns = weft_runtime_run(runtime, timed_yielders, &yielders);
    if (weft_is_error(ns))
        return (int)ns;
    *ns_per_yield = (double)ns / (double)(yielders.tasks * yielders.yields);
    return 0;
}

static int yield_among_1000(const struct setting *setting, struct sample *sample)
{
    double ns = 0;
    int error = yield_among_1000_on(setting->runtime, setting->quick, &ns);
    add_metric(sample, "A2", "ns", ns);
    return error;
}

static int yield_200_by_1000(const struct setting *setting, struct sample *sample)
{
    struct yielders yielders = {200, 1000};
    intptr_t ns = weft_runtime_run(setting->runtime, timed_yielders, &yielders);
    if (weft_is_error(ns))
        return (int)ns;
    add_metric(sample, "A3", "us", (double)ns / 1e3);
    return 0;
}

/* ---- A4: spawn and await ---- */

enum { BATCH = 1000 };

static intptr_t nothing(void *arg)
{
    (void)arg;
    return 0;
}

static intptr_t timed_spawn_await(void *arg)
{
    const long rounds = *(const long *)arg;
    weft_task *tasks[BATCH];
    int64_t start = weft_now();
    for (long round = 0; round < rounds; round++) {
        for (int i = 0; i < BATCH; i++)
            tasks[i] = weft_spawn(nothing, NULL);
        for (int i = 0; i < BATCH; i++) {
            intptr_t result = weft_await(tasks[i]);
            if (result != 0)
                return result;
        }
    }
    return weft_now() - start;
}

static int spawn_await_on(weft_runtime *runtime, int quick, double *ns_per_task)
{
    long rounds = quick ? 300 : 1000;
    intptr_t ns = weft_runtime_run(runtime, timed_spawn_await, &rounds);
    if (weft_is_error(ns))
        return (int)ns;
    *ns_per_task = (double)ns / (double)(rounds * BATCH);
    return 0;
}

static int spawn_await(const struct setting *setting, struct sample *sample)
{
    double ns = 0;
    int error = spawn_await_on(setting->runtime, setting->quick, &ns);
    add_metric(sample, "A4", "ns", ns);
    return error;
}

/* ---- A5 … A7: detached tasks that report to a countdown; many rounds a repeat, each with its own ---- */

enum { ROUNDS = 50, SPAWN_MANY = 10000, CHAIN = 1000, PAIRS = 1000 };

static intptr_t one_less(void *arg)
{
    count_down(arg);
    return 0;
}

static int spawn_many_once(struct countdown *countdown)
{
    atomic_store_explicit(&countdown->left, SPAWN_MANY, memory_order_relaxed);
    for (int i = 0; i < SPAWN_MANY; i++) {
        int error = weft_go(one_less, countdown);
        if (error)
            return error;
    }
    return weft_event_wait(&countdown->over);
}

static intptr_t next_link(void *arg)
{
    struct countdown *countdown = arg;
    /* Only one link is alive at a time, so the count needs no read-modify-write; spawning orders it. */
    long left = atomic_load_explicit(&countdown->left, memory_order_relaxed) - 1;
    atomic_store_explicit(&countdown->left, left, memory_order_relaxed);
    if (left > 0)
        return weft_go(next_link, countdown);
    weft_event_set(&countdown->over);
    return 0;
}

static int chain_once(struct countdown *countdown)
{
    atomic_store_explicit(&countdown->left, CHAIN, memory_order_relaxed);
    int error = weft_go(next_link, countdown);
    return error ? error : weft_event_wait(&countdown->over);
}

struct pair {
    weft_promise there;
    weft_promise back;
};

static intptr_t partner(void *arg)
{
    struct pair *pair = arg;
    intptr_t message = weft_await(&pair->there);
    weft_promise_set(&pair->back, message);
    return 0;
}

static intptr_t one_ping_pong(void *arg)
{
    struct pair pair = {WEFT_PROMISE_INIT, WEFT_PROMISE_INIT};
    int error = weft_go(partner, &pair);
    if (error)
        return error;
    weft_promise_set(&pair.there, 1);
    weft_await(&pair.back);
    count_down(arg);
    return 0;
}

static int ping_pong_once(struct countdown *countdown)
{
    atomic_store_explicit(&countdown->left, PAIRS, memory_order_relaxed);
    for (int i = 0; i < PAIRS; i++) {
        int error = weft_go(one_ping_pong, countdown);
        if (error)
            return error;
    }
    return weft_event_wait(&countdown->over);
}

struct rounds {
    int (*once)(struct countdown *countdown);
    struct countdown countdowns[ROUNDS];
};

static intptr_t timed_rounds(void *arg)
{
    struct rounds *rounds = arg;
    int64_t start = weft_now();
    for (int i = 0; i < ROUNDS; i++) {
        int error = rounds->once(&rounds->countdowns[i]);
        if (error)
            return error;
    }
    return (weft_now() - start) / ROUNDS;
}

static int measure_rounds(const struct setting *setting, struct sample *sample, const char *key,
                          int (*once)(struct countdown *countdown))
{
    /* Static, because the task that counts down last may still be on its way out when the runtime is asked
     * for the next repeat. */
    static struct rounds rounds;
    memset(&rounds, 0, sizeof rounds);
    rounds.once = once;
    intptr_t ns = weft_runtime_run(setting->runtime, timed_rounds, &rounds);
    if (weft_is_error(ns))
        return (int)ns;
    add_metric(sample, key, "us", (double)ns / 1e3);
    return 0;
}

static int spawn_many(const struct setting *setting, struct sample *sample)
{
    return measure_rounds(setting, sample, "A5", spawn_many_once);
}

static int chained(const struct setting *setting, struct sample *sample)
{
    return measure_rounds(setting, sample, "A6", chain_once);
}

static int ping_pong(const struct setting *setting, struct sample *sample)
{
    return measure_rounds(setting, sample, "A7", ping_pong_once);
}

/* ---- A8: skynet ---- */

enum { LEAVES = 1000000, WAYS = 10 };

struct node {
    int64_t first;
    int64_t leaves;
    weft_chan *out; /* only in the form with channels */
};

static void split(const struct node *node, struct node children[WAYS], weft_chan *out)
{
    int64_t leaves = node->leaves / WAYS;
    for (int i = 0; i < WAYS; i++)
        children[i] = (struct node){node->first + i * leaves, leaves, out};
}

static intptr_t sum_of_children(const struct node *node, weft_fn *fn)
{
    struct node children[WAYS];
    weft_task *tasks[WAYS];
    split(node, children, NULL);
    for (int i = 0; i < WAYS; i++)
        tasks[i] = weft_spawn(fn, &children[i]);
    intptr_t sum = 0;
    for (int i = WAYS - 1; i >= 0; i--)
        sum += weft_await(tasks[i]);
    return sum;
}

static intptr_t awaited_node(void *arg)
{
    const struct node *node = arg;
    return node->leaves == 1 ? (intptr_t)node->first : sum_of_children(node, awaited_node);
}

static intptr_t yielding_node(void *arg)
{
    const struct node *node = arg;
    weft_yield();
    return node->leaves == 1 ? (intptr_t)node->first : sum_of_children(node, yielding_node);
}

static intptr_t channel_node(void *arg)
{
    const struct node *node = arg;
    int64_t sum = node->first;
    if (node->leaves > 1) {
        struct node children[WAYS];
        weft_chan *in = weft_chan_new(sizeof sum, WAYS);
        if (!in)
            return -ENOMEM;
        split(node, children, in);
        for (int i = 0; i < WAYS; i++) {
            int error = weft_go(channel_node, &children[i]);
            if (error)
                return error;
        }
        sum = 0;
        for (int i = 0; i < WAYS; i++) {
            int64_t part = 0;
            int error = weft_chan_recv(in, &part);
            if (error)
                return error;
            sum += part;
        }
        weft_chan_free(in);
    }
    return node->out ? weft_chan_send(node->out, &sum) : (intptr_t)sum;
}

/* The two forms in which no task can run in place, without stacks: what a tree of such size asks for. */
struct stackless_node {
    weft_frame frame;
    int32_t next; /* child to await, or to hear of */
    struct node node;
    intptr_t rc, part, sum;
    weft_task *tasks[WAYS];
    struct stackless_node *children;
    weft_chan *in;
    int64_t received;
};

static struct stackless_node *split_stackless(struct stackless_node *node, weft_chan *out)
{
    struct stackless_node *children = calloc(WAYS, sizeof *children);
    int64_t leaves = node->node.leaves / WAYS;
    for (int i = 0; children && i < WAYS; i++)
        children[i].node = (struct node){node->node.first + i * leaves, leaves, out};
    return children;
}

static intptr_t stackless_yielding_node(void *arg)
{
    struct stackless_node *n = arg;
    WEFT_BEGIN(n);
    WEFT_AWAIT(n, n->rc, weft_async_yield());
    if (n->node.leaves == 1)
        return (intptr_t)n->node.first;
    n->children = split_stackless(n, NULL);
    if (!n->children)
        return -ENOMEM;
    for (int i = 0; i < WAYS; i++)
        n->tasks[i] = weft_spawn_stackless(stackless_yielding_node, &n->children[i]);
    for (n->next = WAYS - 1; n->next >= 0; n->next--) {
        WEFT_AWAIT(n, n->rc, weft_async_await(n->tasks[n->next], &n->part));
        n->sum += n->part;
    }
    free(n->children);
    WEFT_END(n, n->sum);
}

static int go_node(int64_t first, int64_t leaves, weft_chan *out, weft_fn *fn)
{
    struct stackless_node *node = calloc(1, sizeof *node);
    if (!node)
        return -ENOMEM;
    node->node = (struct node){first, leaves, out};
    return weft_go_stackless(fn, node);
}

/* Nobody awaits it, so its structure is its own to free; the root's is not. */
static intptr_t stackless_channel_node(void *arg)
{
    struct stackless_node *n = arg;
    WEFT_BEGIN(n);
    n->sum = n->node.first;
    if (n->node.leaves > 1) {
        n->in = weft_chan_new(sizeof n->received, WAYS);
        if (!n->in)
            return -ENOMEM;
        for (int i = 0; i < WAYS; i++)
            if (go_node(n->node.first + i * n->node.leaves / WAYS, n->node.leaves / WAYS, n->in,
                        stackless_channel_node) < 0)
                return -ENOMEM;
        n->sum = 0;
        for (n->next = 0; n->next < WAYS; n->next++) {
            WEFT_AWAIT(n, n->rc, weft_async_recv(n->in, &n->received));
            n->sum += (intptr_t)n->received;
        }
        weft_chan_free(n->in);
    }
    if (!n->node.out)
        return n->sum;
    n->received = n->sum;
    WEFT_AWAIT(n, n->rc, weft_async_send(n->node.out, &n->received));
    free(n);
    WEFT_DONE(0);
}

static intptr_t stackless_root(void *fn)
{
    struct stackless_node root = {.node = {0, LEAVES, NULL}};
    return weft_await(weft_spawn_stackless((weft_fn *)(uintptr_t)fn, &root));
}

static int stackless_skynet_on(weft_runtime *runtime, weft_fn *fn, double *ms)
{
    int64_t start = weft_now();
    intptr_t sum = weft_runtime_run(runtime, stackless_root, (void *)(uintptr_t)fn);
    *ms = (double)(weft_now() - start) / 1e6;
    if (weft_is_error(sum))
        return (int)sum;
    return sum == (intptr_t)LEAVES * (LEAVES - 1) / 2 ? 0 : -EPROTO;
}

static int skynet_on(weft_runtime *runtime, weft_fn *fn, double *ms)
{
    struct node root = {0, LEAVES, NULL};
    int64_t start = weft_now();
    intptr_t sum = weft_runtime_run(runtime, fn, &root);
    *ms = (double)(weft_now() - start) / 1e6;
    if (weft_is_error(sum))
        return (int)sum;
    return sum == (intptr_t)LEAVES * (LEAVES - 1) / 2 ? 0 : -EPROTO;
}

static int skynet(const struct setting *setting, struct sample *sample)
{
    double ms = 0;
    int error = skynet_on(setting->runtime, awaited_node, &ms);
    add_metric(sample, "A8", "ms", ms);
    return error;
}

static int skynet_yielding(const struct setting *setting, struct sample *sample)
{
    double ms = 0;
    int error = skynet_on(setting->runtime, yielding_node, &ms);
    add_metric(sample, "A8.yield", "ms", ms);
    return error;
}

static int skynet_channels(const struct setting *setting, struct sample *sample)
{
    double ms = 0;
    int error = skynet_on(setting->runtime, channel_node, &ms);
    add_metric(sample, "A8.chan", "ms", ms);
    return error;
}

static int skynet_stackless(const struct setting *setting, struct sample *sample)
{
    double yielding = 0, channels = 0;
    int error = stackless_skynet_on(setting->runtime, stackless_yielding_node, &yielding);
    if (!error)
        error = stackless_skynet_on(setting->runtime, stackless_channel_node, &channels);
    add_part(sample, "A8", "yield.s", "ms", yielding);
    add_part(sample, "A8", "chan.s", "ms", channels);
    return error;
}

/* ---- A9, A10: fork and join ---- */

static intptr_t fib(void *arg)
{
    intptr_t n = (intptr_t)arg;
    if (n < 2)
        return n;
    weft_task *left = weft_spawn(fib, (void *)(n - 1));
    intptr_t right = fib((void *)(n - 2));
    return weft_await(left) + right;
}

static int run_expecting(const struct setting *setting, struct sample *sample, const char *key, weft_fn *fn,
                         void *arg, intptr_t expected)
{
    int64_t start = weft_now();
    intptr_t result = weft_runtime_run(setting->runtime, fn, arg);
    add_metric(sample, key, "ms", (double)(weft_now() - start) / 1e6);
    if (result == expected)
        return 0;
    return weft_is_error(result) ? (int)result : -EPROTO;
}

static int fib_30(const struct setting *setting, struct sample *sample)
{
    return run_expecting(setting, sample, "A9", fib, (void *)30, 832040);
}

enum { QUEENS = 12, SOLUTIONS = 14200 };

struct placement {
    int rows;
    signed char column[QUEENS];
};

static int attacked(const struct placement *placement, int column)
{
    for (int row = 0; row < placement->rows; row++) {
        int aside = placement->column[row] - column;
        int above = placement->rows - row;
        if (aside == 0 || aside == above || aside == -above)
            return 1;
    }
    return 0;
}

static intptr_t place_queens(void *arg)
{
    const struct placement *placement = arg;
    if (placement->rows == QUEENS)
        return 1;
    struct placement next[QUEENS];
    weft_task *tasks[QUEENS];
    int count = 0;
    for (int column = 0; column < QUEENS; column++) {
        if (attacked(placement, column))
            continue;
        next[count] = *placement;
        next[count].column[next[count].rows++] = (signed char)column;
        tasks[count] = weft_spawn(place_queens, &next[count]);
        count++;
    }
    intptr_t solutions = 0;
    while (count > 0)
        solutions += weft_await(tasks[--count]);
    return solutions;
}

static int queens(const struct setting *setting, struct sample *sample)
{
    struct placement empty = {0, {0}};
    return run_expecting(setting, sample, "A10.queens", place_queens, &empty, SOLUTIONS);
}

enum { MATRIX = 1024, LEAF = 32 };

struct product {
    int size;
    const float *a, *b;
    float *c; /* c += a × b; rows are MATRIX apart in all three */
};

/* Aligned, here and in the peers: whether the inner loop lies in one line of the instruction cache makes 1.6 times the
 * time. */
__attribute__((noinline, aligned(64))) static void multiply_leaf(const float *a, const float *b, float *c)
{
    for (int i = 0; i < LEAF; i++) {
        for (int k = 0; k < LEAF; k++) {
            float factor = a[i * MATRIX + k];
            for (int j = 0; j < LEAF; j++)
                c[i * MATRIX + j] += factor * b[k * MATRIX + j];
        }
    }
}

static intptr_t multiply(void *arg)
{
    const struct product *product = arg;
    if (product->size == LEAF) {
        multiply_leaf(product->a, product->b, product->c);
        return 0;
    }
    int half = product->size / 2;
    intptr_t error = 0;
    /* Two halves of the inner dimension, because both add to the same four quadrants. */
    for (int inner = 0; inner < 2; inner++) {
        struct product quadrants[4];
        weft_task *tasks[4];
        for (int q = 0; q < 4; q++) {
            int row = q / 2 * half, column = q % 2 * half;
            quadrants[q] =
                (struct product){half, product->a + row * MATRIX + inner * half,
                                 product->b + inner * half * MATRIX + column, product->c + row * MATRIX + column};
            tasks[q] = weft_spawn(multiply, &quadrants[q]);
        }
        for (int q = 3; q >= 0; q--)
            error |= weft_await(tasks[q]);
    }
    return error;
}

static int matrices(const struct setting *setting, struct sample *sample)
{
    size_t size = (size_t)MATRIX * MATRIX;
    float *memory = malloc(3 * size * sizeof *memory);
    if (!memory)
        return -ENOMEM;
    struct product all = {MATRIX, memory, memory + size, memory + 2 * size};
    /* All of it, as in the peers: first touches are not what is measured. */
    for (size_t i = 0; i < 3 * size; i++)
        memory[i] = i < 2 * size;
    int error = run_expecting(setting, sample, "A10.matmul", multiply, &all, 0);
    for (size_t i = 0; i < size && !error; i++)
        error = all.c[i] == MATRIX ? 0 : -EPROTO;
    free(memory);
    return error;
}

/* ---- A11, A12: from outside ---- */

enum { OUTSIDE_TASKS = 12800, OUTSIDE_THREADS = 8 };

struct submission {
    weft_runtime *runtime;
    struct countdown *countdown;
    pthread_barrier_t *barrier;
    int tasks;
    int error;
    int64_t start, end;
};

static void *submit_from_thread(void *arg)
{
    struct submission *submission = arg;
    pthread_barrier_wait(submission->barrier);
    submission->start = weft_now();
    for (int i = 0; i < submission->tasks && !submission->error; i++)
        submission->error = weft_runtime_go(submission->runtime, one_less, submission->countdown);
    submission->end = weft_now();
    return NULL;
}

static intptr_t wait_for_countdown(void *arg)
{
    struct countdown *countdown = arg;
    return weft_event_wait(&countdown->over);
}

static int submit_all(const struct setting *setting, struct sample *sample, int threads,
                      struct countdown *countdown)
{
    pthread_barrier_t barrier;
    pthread_t handles[OUTSIDE_THREADS];
    struct submission submissions[OUTSIDE_THREADS];
    atomic_store_explicit(&countdown->left, OUTSIDE_TASKS, memory_order_relaxed);
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        submissions[i] =
            (struct submission){setting->runtime, countdown, &barrier, OUTSIDE_TASKS / threads, 0, 0, 0};
        int error = pthread_create(&handles[i], NULL, submit_from_thread, &submissions[i]);
        if (error)
            _exit(1); /* the threads before it wait at the barrier for ever; the process is this workload's own */
    }
    int error = 0;
    int64_t start = INT64_MAX, end = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(handles[i], NULL);
        error = error ? error : submissions[i].error;
        start = submissions[i].start < start ? submissions[i].start : start;
        end = submissions[i].end > end ? submissions[i].end : end;
    }
    pthread_barrier_destroy(&barrier);
    if (!error)
        error = (int)weft_runtime_run(setting->runtime, wait_for_countdown, countdown);
    char part[8] = {(char)('0' + threads), 0};
    add_part(sample, "A11", part, "ns", (double)(end - start) / OUTSIDE_TASKS);
    return error;
}

static int from_outside(const struct setting *setting, struct sample *sample)
{
    static struct countdown countdowns[4]; /* as in measure_rounds */
    memset(countdowns, 0, sizeof countdowns);
    int error = 0;
    for (int i = 0; i < 4 && !error; i++)
        error = submit_all(setting, sample, 1 << i, &countdowns[i]);
    return error;
}

struct stamp {
    int64_t sent;
    int64_t ran;
};

static intptr_t take_stamp(void *arg)
{
    struct stamp *stamp = arg;
    stamp->ran = weft_now();
    return 0;
}

static int wake_latency(const struct setting *setting, struct sample *sample)
{
    long count = setting->quick ? 500 : 3000;
    static struct stamp stamps[3000];
    static int64_t latencies[3000];
    for (long i = 0; i < count; i++) {
        pause_thread(WEFT_MS(1));
        stamps[i].sent = weft_now();
        int error = weft_runtime_go(setting->runtime, take_stamp, &stamps[i]);
        if (error)
            return error;
    }
    pause_thread(WEFT_MS(20));
    for (long i = 0; i < count; i++)
        latencies[i] = stamps[i].ran - stamps[i].sent;
    add_part(sample, "A12", "p50", "us", (double)quantile(latencies, count, 0.5) / 1e3);
    add_part(sample, "A12", "p99", "us", (double)quantile(latencies, count, 0.99) / 1e3);
    return 0;
}

/* ---- A13: idle ---- */

enum { PARKED = 10000 };

struct sleepers {
    weft_event release;
    struct countdown ended;
};

static intptr_t sleep_until_released(void *arg)
{
    struct sleepers *sleepers = arg;
    weft_event_wait(&sleepers->release);
    count_down(&sleepers->ended);
    return 0;
}

static intptr_t spawn_sleepers(void *arg)
{
    int error = 0;
    for (int i = 0; i < PARKED && !error; i++)
        error = weft_go(sleep_until_released, arg);
    return error;
}

static intptr_t release_sleepers(void *arg)
{
    struct sleepers *sleepers = arg;
    weft_event_set(&sleepers->release);
    return weft_event_wait(&sleepers->ended.over);
}

/* Of the process without the thread that measures. */
static void others_usage(double *cpu, double *switches)
{
    struct rusage all, own;
    getrusage(RUSAGE_SELF, &all);
    getrusage(RUSAGE_THREAD, &own);
    *cpu =
        (double)(all.ru_utime.tv_sec + all.ru_stime.tv_sec - own.ru_utime.tv_sec - own.ru_stime.tv_sec) * 1e3 +
        (double)(all.ru_utime.tv_usec + all.ru_stime.tv_usec - own.ru_utime.tv_usec - own.ru_stime.tv_usec) / 1e3;
    *switches = (double)(all.ru_nvcsw + all.ru_nivcsw - own.ru_nvcsw - own.ru_nivcsw);
}

static int idle(const struct setting *setting, struct sample *sample)
{
    static struct sleepers sleepers;
    weft_runtime *runtime = NULL;
    int error = start_runtime(2, &runtime);
    if (error)
        return error;
    atomic_store_explicit(&sleepers.ended.left, PARKED, memory_order_relaxed);
    error = (int)weft_runtime_run(runtime, spawn_sleepers, &sleepers);
    if (!error) {
        double cpu_before, cpu_after, switches_before, switches_after;
        pause_thread(WEFT_MS(500));
        others_usage(&cpu_before, &switches_before);
        pause_thread(setting->quick ? WEFT_SEC(2) : WEFT_SEC(10));
        others_usage(&cpu_after, &switches_after);
        add_part(sample, "A13", "cpu", "ms", cpu_after - cpu_before);
        add_part(sample, "A13", "switches", "", switches_after - switches_before);
        error = (int)weft_runtime_run(runtime, release_sleepers, &sleepers);
    }
    int stopped = weft_runtime_stop(runtime, WEFT_SEC(5));
    return error ? error : stopped;
}

/* ---- A14: the same with 32 workers, beside as many as there are cores ---- */

enum { OVERSUBSCRIBED = 32 };

struct crowd {
    double yield_ns, spawn_ns, skynet_ms;
};

static int measure_crowd(unsigned workers, int quick, struct crowd *crowd)
{
    weft_runtime *runtime = NULL;
    int error = start_runtime(workers, &runtime);
    if (error)
        return error;
    double warm_up;
    error = skynet_on(runtime, awaited_node, &warm_up);
    if (!error)
        error = yield_among_1000_on(runtime, quick, &crowd->yield_ns);
    if (!error)
        error = spawn_await_on(runtime, quick, &crowd->spawn_ns);
    if (!error)
        error = skynet_on(runtime, awaited_node, &crowd->skynet_ms);
    int stopped = weft_runtime_stop(runtime, WEFT_SEC(5));
    return error ? error : stopped;
}

static int oversubscribed(const struct setting *setting, struct sample *sample)
{
    struct crowd few = {0, 0, 0}, many = {0, 0, 0};
    int error = measure_crowd(setting->cores, setting->quick, &few);
    if (!error)
        error = measure_crowd(OVERSUBSCRIBED, setting->quick, &many);
    if (error)
        return error;
    add_part(sample, "A14", "A2", "x", many.yield_ns / few.yield_ns);
    add_part(sample, "A14", "A4", "x", many.spawn_ns / few.spawn_ns);
    add_part(sample, "A14", "A8", "x", many.skynet_ms / few.skynet_ms);
    return 0;
}

const struct workload scheduling_workloads[] = {
    {"A1", "one task yields", yield_alone, 0},
    {"A2", "1000 tasks yield in turn", yield_among_1000, 0},
    {"A3", "200 tasks yield 1000 times", yield_200_by_1000, 0},
    {"A4", "spawn and await, 1000 at a time", spawn_await, 0},
    {"A5", "10 000 spawns, the last one signals", spawn_many, 0},
    {"A6", "chain of 1000 tasks", chained, 0},
    {"A7", "1000 ping-pongs over promises", ping_pong, 0},
    {"A8.await", "skynet, a million leaves, awaited", skynet, FRESH},
    {"A8.yield", "skynet, every task yields first", skynet_yielding, FRESH | ONE_IN_QUICK},
    {"A8.chan", "skynet, a channel a level", skynet_channels, FRESH | ONE_IN_QUICK},
    {"A8.s", "the last two with stackless tasks", skynet_stackless, FRESH | ONE_IN_QUICK},
    {"A9", "fib(30) without a cut-off", fib_30, 0},
    {"A10.queens", "12 queens", queens, 0},
    {"A10.matmul", "1024 × 1024 product by quadrants", matrices, 0},
    {"A11", "12 800 spawns from 1, 2, 4, 8 threads", from_outside, 0},
    {"A12", "outside thread to running task, idle runtime", wake_latency, ONE_IN_QUICK},
    {"A13", "idle with 10 000 parked tasks, 2 workers", idle, OWN_RUNTIME | FRESH | ONE_COUNT | ONE_IN_QUICK},
    {"A14", "32 workers against one a core", oversubscribed, OWN_RUNTIME | FRESH | ONE_COUNT},
    {NULL, NULL, NULL, 0},
};
