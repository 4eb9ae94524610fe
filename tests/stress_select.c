/*
 * Selects of tasks and threads hammer channels of every kind, each sending and receiving at once, while cancellations
 * and deadlines hit the tasks all the time, and single operations come between. In the end every element that was sent
 * must have been received exactly once. WEFT_TEST_SECONDS (2) long, on WEFT_WORKERS workers; exits 1 on any loss.
 */
#include "support.h"

enum { CHANNELS = 6, ACTORS = 12, THREADS = 2, WIDTH = 4, ITEMS = 1 << 19 };

struct item {
    uint32_t actor;
    uint32_t number;
};

static struct actor {
    uint32_t index;
    bool in_task;
    uint32_t sent;
    uint64_t received, gave_up;
    uint64_t random;
} actors[ACTORS + THREADS];

static weft_chan *chans[CHANNELS];
static const size_t capacities[CHANNELS] = {0, 0, 0, 1, 8, WEFT_CHAN_UNBOUNDED};
static _Atomic unsigned char seen[ACTORS + THREADS][ITEMS];
static weft_event over;
static _Atomic unsigned begun;

static void check(struct actor *actor, struct item item)
{
    must(item.actor < ACTORS + THREADS && item.number < ITEMS);
    must_be(atomic_fetch_add_explicit(&seen[item.actor][item.number], 1, memory_order_relaxed), 0);
    actor->received++;
}

/* Some of the channels, to send or to receive, the same one perhaps several times; and the end. */
static void choose_cases(struct actor *actor, weft_case *cases, struct item *mine, struct item *in)
{
    for (int i = 0; i < WIDTH; i++) {
        weft_chan *chan = chans[draw(&actor->random) % CHANNELS];

        if (draw(&actor->random) % 2 && actor->sent < ITEMS)
            cases[i] = (weft_case)WEFT_CASE_SEND(chan, mine);
        else
            cases[i] = (weft_case)WEFT_CASE_RECV(chan, &in[i]);
    }
    cases[WIDTH] = (weft_case)WEFT_CASE_EVENT(&over);
    cases[WIDTH + 1] = (weft_case){.kind = WEFT_CASE_KIND_NONE};
    if (draw(&actor->random) % 8 == 0)
        cases[WIDTH + 1] = (weft_case)WEFT_CASE_AFTER(WEFT_US((int64_t)(draw(&actor->random) % 64)));
}

/* By a select, under a deadline now and then. Returns what it returned. */
static int select_once(struct actor *actor, weft_case *cases)
{
    bool scoped = actor->in_task && draw(&actor->random) % 8 == 0;
    weft_timeout scope;
    int chosen;

    if (scoped)
        must_be(weft_timeout_begin(&scope, WEFT_US((int64_t)(draw(&actor->random) % 64))), 0);
    chosen = weft_select(cases, WIDTH + 2);
    if (scoped)
        weft_timeout_end(&scope);
    return chosen;
}

static void be_interrupted(struct actor *actor, int rc)
{
    must(actor->in_task && (rc == -ECANCELED || rc == -ETIMEDOUT));
    if (rc == -ECANCELED)
        weft_uncancel();
    actor->gave_up++;
}

/* A single operation that does not wait. */
static void operate(struct actor *actor, struct item *mine)
{
    weft_chan *chan = chans[draw(&actor->random) % CHANNELS];
    struct item in;

    if (draw(&actor->random) % 2 && actor->sent < ITEMS) {
        if (weft_chan_try_send(chan, mine) == 0)
            mine->number = ++actor->sent;
    } else if (weft_chan_try_recv(chan, &in) == 0) {
        check(actor, in);
    }
}

static intptr_t act(void *arg)
{
    struct actor *actor = arg;
    struct item mine = {actor->index, 0}, in[WIDTH];
    weft_case cases[WIDTH + 2];
    int chosen;

    atomic_fetch_add(&begun, 1);
    for (;;) {
        choose_cases(actor, cases, &mine, in);
        chosen = select_once(actor, cases);
        if (chosen == WIDTH)
            return 0;
        if (chosen < 0) {
            be_interrupted(actor, chosen);
        } else if (chosen < WIDTH) {
            must_be(cases[chosen].result, 0);
            if (cases[chosen].kind == WEFT_CASE_KIND_SEND)
                mine.number = ++actor->sent;
            else
                check(actor, in[chosen]);
        }
        if (draw(&actor->random) % 4 == 0)
            operate(actor, &mine);
    }
}

static void *act_in_thread(void *arg)
{
    act(arg);
    return NULL;
}

static intptr_t disturb(void *arg)
{
    int64_t end = weft_now() + WEFT_SEC(wanted_seconds());
    uint64_t seed = *(uint64_t *)arg;
    weft_task *tasks[ACTORS];
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        must_be(pthread_create(&threads[i], NULL, act_in_thread, &actors[ACTORS + i]), 0);
    for (int i = 0; i < ACTORS; i++)
        must((tasks[i] = weft_spawn(act, &actors[i])) != NULL);
    wait_until_true(atomic_load(&begun) == ACTORS + THREADS);
    while (weft_now() < end) {
        weft_cancel(tasks[draw(&seed) % ACTORS]);
        must_be(weft_sleep(WEFT_US((int64_t)(draw(&seed) % 100))), 0);
    }
    weft_event_set(&over);
    for (int i = 0; i < ACTORS; i++)
        must_be(weft_await(tasks[i]), 0);
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_join(threads[i], NULL), 0);
    return 0;
}

static void count_up(void)
{
    uint64_t sent = 0, received = 0, gave_up = 0;
    struct actor last = {0};
    struct item item;

    for (int i = 0; i < CHANNELS; i++) {
        while (weft_chan_try_recv(chans[i], &item) == 0)
            check(&last, item);
        must_be(weft_chan_try_recv(chans[i], &item), -EAGAIN);
        weft_chan_free(chans[i]);
    }
    for (int i = 0; i < ACTORS + THREADS; i++) {
        sent += actors[i].sent;
        received += actors[i].received;
        gave_up += actors[i].gave_up;
        for (uint32_t number = 0; number < ITEMS; number++)
            must_be(seen[i][number], number < actors[i].sent);
    }
    must_be(received + last.received, sent);
    must(sent > 0);
    printf("stress_select: %llu elements, %llu waits interrupted\n", (unsigned long long)sent,
           (unsigned long long)gave_up);
}

int main(void)
{
    weft_config config = {.workers = wanted_workers()};
    uint64_t seed = wanted_seed();

    printf("stress_select: WEFT_TEST_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    for (int i = 0; i < CHANNELS; i++)
        must((chans[i] = weft_chan_new(sizeof(struct item), capacities[i])) != NULL);
    for (uint32_t i = 0; i < ACTORS + THREADS; i++)
        actors[i] = (struct actor){.index = i, .in_task = i < ACTORS, .random = draw(&seed) | 1};
    must_be(run_with(&config, disturb, &seed), 0);
    count_up();
    return 0;
}
