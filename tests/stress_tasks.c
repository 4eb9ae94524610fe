/*
 * Trees of tasks that spawn, await, detach, yield, sleep, lock, call the blocking pool and answer promises,
 * while tasks and threads outside cancel them and deadlines pass at any time. In the end every task that was
 * spawned has either run exactly once or was cancelled before it started, what a mutex protects is exact, and
 * nothing is left. WEFT_TEST_SECONDS (2) long, on WEFT_WORKERS workers; WEFT_TEST_SEED repeats a run's choices.
 * Aborts on any loss.
 */
#include "support.h"

enum { ROOTS = 24, OUTSIDERS = 3, DEPTH = 5, CHILDREN = 4 };

struct node {
    uint64_t random;
    int depth;
    atomic_int *ran; /* NULL: detached; else 1 once it runs */
};

struct message {
    weft_promise *reply;
    uint64_t number;
};

static atomic_bool over;
static _Atomic uint64_t spawned, entered, left, never_ran, cancels, timeouts, locked, detached_nodes, answers;
static weft_mutex mutex;
static uint64_t under_mutex;
static weft_chan *questions;
static uint64_t seed;

static void add(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static bool is_early_end(intptr_t rc)
{
    return rc == -ECANCELED || rc == -ETIMEDOUT;
}

static intptr_t node_main(void *arg);

static intptr_t detached_main(void *arg)
{
    uint64_t random = (uint64_t)(uintptr_t)arg | 1;

    if (draw(&random) % 2)
        must_be(weft_yield(), 0);
    add(&detached_nodes);
    return 0;
}

static void lock_and_count(uint64_t *random)
{
    int rc = weft_mutex_lock(&mutex);

    if (rc < 0) {
        must(is_early_end(rc));
        return;
    }
    under_mutex++;
    add(&locked);
    if (draw(random) % 4 == 0)
        weft_yield();
    must_be(weft_mutex_unlock(&mutex), 0);
}

static void ask(uint64_t *random)
{
    weft_promise reply = WEFT_PROMISE_INIT;
    struct message message = {&reply, draw(random) >> 8};
    intptr_t rc = weft_chan_send(questions, &message);

    if (rc < 0) {
        must(is_early_end(rc));
        return;
    }
    /* It lies in this frame, so the answer must be waited for in any case. */
    must_be(weft_mask_begin(), 0);
    must_be(weft_await(&reply), message.number);
    must_be(weft_mask_end(), 0);
    add(&answers);
}

static intptr_t answer_all(void *arg)
{
    struct message message;

    (void)arg;
    while (weft_chan_recv(questions, &message) == 0)
        must_be(weft_promise_set(message.reply, (intptr_t)message.number), 0);
    return 0;
}

static void do_something(uint64_t *random)
{
    intptr_t rc = 0;

    switch (draw(random) % 12) {
    case 0:
    case 1:
    case 2:
        rc = weft_yield();
        break;
    case 3:
        rc = weft_sleep((int64_t)(draw(random) % WEFT_US(50)));
        break;
    case 4:
    case 5:
        lock_and_count(random);
        break;
    case 6:
        rc = weft_blocking(return_arg, (void *)5);
        must(rc == 5 || is_early_end(rc) || rc == -EAGAIN);
        rc = 0;
        break;
    case 7:
        ask(random);
        break;
    case 8:
        if (weft_go(detached_main, (void *)(uintptr_t)draw(random)) == 0)
            add(&spawned);
        break;
    case 9:
        if (draw(random) % 8 == 0) {
            weft_cancel(weft_self());
            must_be(weft_yield(), -ECANCELED);
            must_be(weft_uncancel(), 1);
        }
        break;
    default:
        break;
    }
    must(rc == 0 || is_early_end(rc));
}

/* Await the children in any order, cancelling some; account for each. */
static void await_children(struct node *self, weft_task **tasks, atomic_int *ran, int n)
{
    int first = n ? (int)(draw(&self->random) % (uint64_t)n) : 0;

    for (int i = 0; i < n; i++) {
        int child = (first + i) % n;
        intptr_t result = 1;
        int rc;

        if (draw(&self->random) % 8 == 0) {
            weft_cancel(tasks[child]);
            add(&cancels);
        }
        rc = weft_await_into(tasks[child], &result);
        must(rc == 0 || is_early_end(rc));
        if (!atomic_load(&ran[child])) {
            must_be(result, -ECANCELED);
            add(&never_ran);
        } else {
            must_be(result, 7);
        }
    }
}

static void have_children(struct node *self)
{
    int n = (int)(draw(&self->random) % (CHILDREN + 1));
    struct node children[CHILDREN];
    weft_task *tasks[CHILDREN];
    atomic_int ran[CHILDREN];

    for (int i = 0; i < n; i++) {
        weft_spawn_options options = {.name = draw(&self->random) % 8 ? NULL : "named",
                                      .stack_size = draw(&self->random) % 16 ? 0 : 256 << 10};

        atomic_store(&ran[i], 0);
        children[i] = (struct node){draw(&self->random) | 1, self->depth - 1, &ran[i]};
        must((tasks[i] = weft_spawn_with(&options, node_main, &children[i])) != NULL);
        add(&spawned);
        if (draw(&self->random) % 3 == 0)
            do_something(&self->random);
    }
    await_children(self, tasks, ran, n);
}

static intptr_t node_main(void *arg)
{
    struct node *self = arg;
    weft_timeout t;
    bool hurried = draw(&self->random) % 6 == 0;

    must_be(atomic_exchange(self->ran, 1), 0);
    add(&entered);
    if (hurried)
        must_be(weft_timeout_begin(&t, (int64_t)(draw(&self->random) % WEFT_US(300))), 0);
    do_something(&self->random);
    if (self->depth > 0)
        have_children(self);
    do_something(&self->random);
    if (hurried && weft_timeout_end(&t))
        add(&timeouts);
    add(&left);
    return 7;
}

static intptr_t root_main(void *arg)
{
    uint64_t random = (seed + (uintptr_t)arg * 0x9E3779B97F4A7C15u) | 1;

    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        atomic_int ran = 0;
        struct node node = {draw(&random) | 1, DEPTH, &ran};
        weft_task *task = weft_spawn(node_main, &node);

        must(task != NULL);
        add(&spawned);
        if (draw(&random) % 2)
            must_be(weft_yield(), 0);
        if (draw(&random) % 4 == 0) {
            must_be(weft_sleep((int64_t)(draw(&random) % WEFT_US(100))), 0);
            weft_cancel(task);
            add(&cancels);
        }
        if (weft_await(task) == -ECANCELED) {
            must_be(atomic_load(&ran), 0);
            add(&never_ran);
        }
    }
    return 0;
}

struct outsider {
    weft_runtime *runtime;
    uint64_t random;
    pthread_t thread;
};

static void *outsider_main(void *arg)
{
    struct outsider *self = arg;

    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        atomic_int ran = 0;
        struct node node = {draw(&self->random) | 1, 2, &ran};
        weft_task *task = weft_runtime_spawn(self->runtime, node_main, &node);

        must(task != NULL);
        add(&spawned);
        if (draw(&self->random) % 3 == 0)
            nap((int64_t)(draw(&self->random) % WEFT_US(100)));
        if (draw(&self->random) % 3 == 0) {
            weft_cancel(task);
            add(&cancels);
        }
        if (weft_await(task) == -ECANCELED) {
            must_be(atomic_load(&ran), 0);
            add(&never_ran);
        }
        if (draw(&self->random) % 4 == 0) {
            must_be(weft_runtime_go(self->runtime, detached_main, (void *)(uintptr_t)draw(&self->random)), 0);
            add(&spawned);
        }
    }
    return NULL;
}

static intptr_t stress_main(void *arg)
{
    weft_task *roots[ROOTS], *answerers[2];

    must((questions = weft_chan_new(sizeof(struct message), 8)) != NULL);
    for (int i = 0; i < 2; i++)
        must((answerers[i] = weft_spawn(answer_all, NULL)) != NULL);
    for (intptr_t i = 0; i < ROOTS; i++)
        must((roots[i] = weft_spawn(root_main, (void *)i)) != NULL);
    must_be(weft_sleep(*(int64_t *)arg), 0);
    atomic_store(&over, true);
    for (int i = 0; i < ROOTS; i++)
        must_be(weft_await(roots[i]), 0);
    return (intptr_t)answerers[0] && answerers[1] ? 0 : -1;
}

static intptr_t close_questions(void *arg)
{
    (void)arg;
    must_be(weft_chan_close(questions), 0);
    return weft_sleep(WEFT_MS(1));
}

int main(void)
{
    int64_t length = WEFT_SEC(wanted_seconds());
    unsigned workers = wanted_workers();
    struct outsider outsiders[OUTSIDERS];
    weft_runtime *runtime;

    seed = wanted_seed();
    printf("stress_tasks: %u workers, %lld s, WEFT_TEST_SEED=%llu\n", workers, (long long)wanted_seconds(),
           (unsigned long long)seed);
    fflush(stdout);
    alarm((unsigned)wanted_seconds() * 2 + SUPPORT_LIMIT);
    must_be(weft_runtime_start(NULL, &runtime), 0);
    {
        weft_task *task = weft_runtime_spawn(runtime, stress_main, &length);

        must(task != NULL);
        nap(WEFT_MS(10));
        for (int i = 0; i < OUTSIDERS; i++) {
            outsiders[i] = (struct outsider){.runtime = runtime, .random = (seed ^ (uint64_t)(i + 77)) | 1};
            must_be(pthread_create(&outsiders[i].thread, NULL, outsider_main, &outsiders[i]), 0);
        }
        must_be(weft_await(task), 0);
        for (int i = 0; i < OUTSIDERS; i++)
            must_be(pthread_join(outsiders[i].thread, NULL), 0);
    }
    must_be(weft_runtime_run(runtime, close_questions, NULL), 0);
    must(weft_runtime_workers(runtime) == workers);
    settle(runtime);
    must_be(atomic_load(&entered), atomic_load(&left));
    must_be(atomic_load(&spawned), atomic_load(&entered) + atomic_load(&never_ran) + atomic_load(&detached_nodes));
    must_be(under_mutex, atomic_load(&locked));
    must_be(weft_mutex_trylock(&mutex), 0);
    printf("%llu tasks, %llu cancelled of which %llu before they started, %llu deadlines passed, %llu answers\n",
           (unsigned long long)spawned, (unsigned long long)cancels, (unsigned long long)never_ran,
           (unsigned long long)timeouts, (unsigned long long)answers);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    weft_chan_free(questions);
    return 0;
}
