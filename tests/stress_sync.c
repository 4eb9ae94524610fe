/*
 * Tasks and threads hammer channels of every kind, a mutex and the other objects of <weft/sync.h>, while
 * cancellations and deadlines hit the tasks all the time. In the end every element that was sent must have been
 * received exactly once, the counter under the mutex must be exact, and no object may have lost anything: each has
 * an account that must balance. WEFT_TEST_SECONDS (2) long, on WEFT_WORKERS workers; exits 1 on any loss.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <weft.h>

enum { CHANNELS = 4, PRODUCERS = 4, CONSUMERS = 4, THREADS_A_SIDE = 1, ITEMS = 1 << 19 };
enum { ACTORS = CHANNELS * (PRODUCERS + CONSUMERS) };

struct item {
    uint64_t producer;
    uint64_t sequence;
};

struct lane {
    weft_chan *chan;
    uint64_t sent[PRODUCERS];
    atomic_uchar seen[PRODUCERS][ITEMS];
};

struct actor {
    struct lane *lane;
    unsigned producer; /* for consumers: PRODUCERS */
    int in_task;
    uint64_t random;
    uint64_t locked;
    uint64_t received;
    uint64_t gave_up;
    weft_promise ended;
};

static struct lane lanes[CHANNELS];
static struct actor actors[ACTORS];
static const size_t capacities[CHANNELS] = {0, 1, 16, WEFT_CHAN_UNBOUNDED};
static weft_mutex mutex;
static uint64_t counter;
static atomic_bool over;
static atomic_ulong wrong;

static void complain(const char *what, int rc)
{
    if (atomic_fetch_add(&wrong, 1) < 10)
        fprintf(stderr, "stress_sync: %s: %d\n", what, rc);
}

static uint64_t draw(struct actor *actor)
{
    actor->random ^= actor->random << 13;
    actor->random ^= actor->random >> 7;
    actor->random ^= actor->random << 17;
    return actor->random;
}

/* Begin a deadline now and then; it may pass at once, during the wait, or not at all. */
static int maybe_begin(struct actor *actor, weft_timeout *scope)
{
    if (!actor->in_task || draw(actor) % 8 != 0)
        return 0;
    if (weft_timeout_begin(scope, WEFT_US(draw(actor) % 64)) < 0)
        complain("weft_timeout_begin", 0);
    return 1;
}

/* What a task makes of an early end: it takes it back and goes on. False: not an early end. */
static int gave_up(struct actor *actor, int rc)
{
    if (!actor->in_task || (rc != -ECANCELED && rc != -ETIMEDOUT))
        return 0;
    if (rc == -ECANCELED)
        weft_uncancel();
    actor->gave_up++;
    return 1;
}

static void breathe(struct actor *actor)
{
    if (actor->in_task && draw(actor) % 32 == 0)
        gave_up(actor, weft_yield());
}

static void count(struct actor *actor)
{
    weft_timeout scope;
    int scoped = maybe_begin(actor, &scope);
    int rc = weft_mutex_lock(&mutex);

    if (rc == 0) {
        uint64_t before = counter;

        breathe(actor);
        counter = before + 1;
        actor->locked++;
        rc = weft_mutex_unlock(&mutex);
        if (rc < 0)
            complain("weft_mutex_unlock", rc);
    } else if (!gave_up(actor, rc)) {
        complain("weft_mutex_lock", rc);
    }
    if (scoped)
        weft_timeout_end(&scope);
}

/* ---- the other objects ---- */

enum { PERMITS = 3, PARTIES = 3, ONCES = 1 << 12 };

static struct {
    weft_rwlock rwlock;
    uint64_t value, copy; /* under it */
    atomic_ulong written;

    weft_sem sem;
    atomic_int inside;

    weft_mutex mutex;
    weft_cond cond;
    atomic_ulong notified, heard; /* what the notifiers were told, and what the waiters returned */

    weft_notify notify;
    atomic_ulong rung, woken;

    weft_barrier barrier;
    atomic_ulong came[PARTIES];

    weft_waitgroup group;

    weft_once onces[ONCES];
    atomic_uchar done[ONCES];
    atomic_uint next_once;
} yard = {.sem = WEFT_SEM_BOUNDED_INIT(PERMITS), .barrier = WEFT_BARRIER_INIT(PARTIES)};

/* The result of a wait that may end early. True: it was had. */
static bool had(struct actor *actor, const char *what, int rc)
{
    if (rc >= 0)
        return true;
    if (!gave_up(actor, rc))
        complain(what, rc);
    return false;
}

static void must_work(const char *what, int rc)
{
    if (rc < 0)
        complain(what, rc);
}

static void write_pair(struct actor *actor)
{
    if (!had(actor, "weft_rwlock_wrlock", weft_rwlock_wrlock(&yard.rwlock)))
        return;
    yard.value++;
    breathe(actor);
    yard.copy++;
    atomic_fetch_add(&yard.written, 1);
    must_work("weft_rwlock_unlock", weft_rwlock_unlock(&yard.rwlock));
}

static void read_pair(struct actor *actor)
{
    if (!had(actor, "weft_rwlock_rdlock", weft_rwlock_rdlock(&yard.rwlock)))
        return;
    if (yard.value != yard.copy)
        complain("a writer was inside with a reader", 0);
    breathe(actor);
    must_work("weft_rwlock_unlock", weft_rwlock_unlock(&yard.rwlock));
}

static void hold_permit(struct actor *actor)
{
    if (!had(actor, "weft_sem_acquire", weft_sem_acquire(&yard.sem)))
        return;
    if (atomic_fetch_add(&yard.inside, 1) >= PERMITS)
        complain("more inside than permits", 0);
    breathe(actor);
    atomic_fetch_sub(&yard.inside, 1);
    must_work("weft_sem_release", weft_sem_release(&yard.sem));
}

static void wait_for_signal(struct actor *actor)
{
    if (!had(actor, "weft_mutex_lock", weft_mutex_lock(&yard.mutex)))
        return;
    if (had(actor, "weft_cond_wait", weft_cond_wait(&yard.cond, &yard.mutex)))
        atomic_fetch_add(&yard.heard, 1);
    must_work("weft_mutex_unlock, after weft_cond_wait", weft_mutex_unlock(&yard.mutex));
}

static void give_signal(struct actor *actor)
{
    int n = draw(actor) % 8 == 0 ? weft_cond_broadcast(&yard.cond) : weft_cond_signal(&yard.cond);

    atomic_fetch_add(&yard.notified, (unsigned long)n);
}

static void wait_for_bell(struct actor *actor)
{
    if (had(actor, "weft_notify_wait", weft_notify_wait(&yard.notify)))
        atomic_fetch_add(&yard.woken, 1);
}

static void ring_bell(void)
{
    atomic_fetch_add(&yard.rung, 1);
    weft_notify_one(&yard.notify);
}

static void meet(struct actor *actor)
{
    int rc = weft_barrier_wait(&yard.barrier);

    if (rc >= PARTIES)
        complain("a barrier's index", rc);
    else if (rc != -EPIPE && had(actor, "weft_barrier_wait", rc))
        atomic_fetch_add(&yard.came[rc], 1);
}

static void work_in_group(struct actor *actor)
{
    must_work("weft_waitgroup_add", weft_waitgroup_add(&yard.group, 1));
    breathe(actor);
    must_work("weft_waitgroup_done", weft_waitgroup_done(&yard.group));
}

struct attempt {
    struct actor *actor;
    unsigned i;
};

static intptr_t attempt_once(void *arg)
{
    struct attempt *attempt = arg;

    breathe(attempt->actor);
    if (draw(attempt->actor) % 2 == 0)
        return -EIO;
    atomic_fetch_add(&yard.done[attempt->i], 1);
    return 0;
}

static void do_once(struct actor *actor)
{
    struct attempt attempt = {actor, atomic_load(&yard.next_once) % ONCES};
    int rc = weft_once_do(&yard.onces[attempt.i], attempt_once, &attempt);

    if (rc != -EIO && had(actor, "weft_once_do", rc)) {
        if (atomic_load(&yard.done[attempt.i]) != 1)
            complain("a call was not made once", (int)attempt.i);
        atomic_store(&yard.next_once, attempt.i + 1);
    }
}

/* What does not wait for others, or only for those that will come; tasks and threads. */
static void play(struct actor *actor)
{
    switch (draw(actor) % 8) {
    case 0:
        write_pair(actor);
        break;
    case 1:
    case 2:
        read_pair(actor);
        break;
    case 3:
        hold_permit(actor);
        break;
    case 4:
        give_signal(actor);
        break;
    case 5:
        ring_bell();
        break;
    case 6:
        work_in_group(actor);
        break;
    case 7:
        do_once(actor);
        break;
    }
}

/* What may wait for nobody: with a deadline, so tasks only. */
static void play_and_give_up(struct actor *actor)
{
    weft_timeout scope;

    must_work("weft_timeout_begin", weft_timeout_begin(&scope, WEFT_US(draw(actor) % 256)));
    switch (draw(actor) % 5) {
    case 0:
        wait_for_signal(actor);
        break;
    case 1:
        wait_for_bell(actor);
        break;
    case 2:
    case 3:
        meet(actor);
        break;
    case 4:
        had(actor, "weft_waitgroup_wait", weft_waitgroup_wait(&yard.group));
        break;
    }
    weft_timeout_end(&scope);
    if (draw(actor) % 64 == 0)
        weft_barrier_reset(&yard.barrier);
}

static void play_now_and_then(struct actor *actor)
{
    if (draw(actor) % 4 == 0)
        play(actor);
    if (actor->in_task && draw(actor) % 8 == 0)
        play_and_give_up(actor);
}

static void check_yard(void)
{
    if (yard.value != atomic_load(&yard.written) || yard.copy != yard.value)
        complain("writes under the rwlock lost", (int)yard.value);
    if (weft_rwlock_unlock(&yard.rwlock) != -EPERM)
        complain("the rwlock is still locked", 0);
    if (weft_sem_value(&yard.sem) != PERMITS || weft_sem_release(&yard.sem) != -EOVERFLOW)
        complain("permits lost", (int)weft_sem_value(&yard.sem));
    if (atomic_load(&yard.notified) != atomic_load(&yard.heard))
        complain("notifications lost", (int)(atomic_load(&yard.notified) - atomic_load(&yard.heard)));
    if (atomic_load(&yard.woken) > atomic_load(&yard.rung))
        complain("more woken than rung for", 0);
    for (int i = 1; i < PARTIES; i++)
        if (atomic_load(&yard.came[i]) != atomic_load(&yard.came[0]))
            complain("an index of a barrier was not given as often as another", i);
    if (weft_barrier_waiting(&yard.barrier) != 0)
        complain("somebody waits at the barrier", 0);
    if (weft_waitgroup_done(&yard.group) != -EINVAL)
        complain("the group's count is not zero", 0);
    for (int i = 0; i < ONCES; i++)
        if (atomic_load(&yard.done[i]) > 1)
            complain("a call was made twice", i);
    printf("stress_sync: %lu writes, %lu notifications, %lu of %lu rings heard, %lu meetings\n",
           atomic_load(&yard.written), atomic_load(&yard.notified), atomic_load(&yard.woken),
           atomic_load(&yard.rung), atomic_load(&yard.came[0]));
}

/* ---- channels ---- */

static int send_one(struct actor *actor, const struct item *item)
{
    weft_timeout scope;
    int scoped = maybe_begin(actor, &scope), rc;

    if (draw(actor) % 8 == 0)
        rc = weft_chan_try_send(actor->lane->chan, item);
    else
        rc = weft_chan_send(actor->lane->chan, item);
    if (scoped)
        weft_timeout_end(&scope);
    return rc;
}

static void produce(struct actor *actor)
{
    struct item item = {.producer = actor->producer};

    while (!atomic_load_explicit(&over, memory_order_relaxed) && item.sequence < ITEMS) {
        int rc = send_one(actor, &item);

        if (rc == 0)
            item.sequence++;
        else if (rc != -EAGAIN && !gave_up(actor, rc))
            complain("weft_chan_send", rc);
        if (rc == -EAGAIN && !actor->in_task)
            sched_yield();
        if (draw(actor) % 4 == 0)
            count(actor);
        play_now_and_then(actor);
        breathe(actor);
    }
    actor->lane->sent[actor->producer] = item.sequence;
}

static void check_item(struct actor *actor, const struct item *item)
{
    if (item->producer >= PRODUCERS || item->sequence >= ITEMS)
        complain("an element that nobody sent", 0);
    else if (atomic_fetch_add(&actor->lane->seen[item->producer][item->sequence], 1) != 0)
        complain("an element received twice", (int)item->sequence);
    actor->received++;
}

static int receive_one(struct actor *actor, struct item *item)
{
    weft_timeout scope;
    int scoped = maybe_begin(actor, &scope), rc;

    if (draw(actor) % 8 == 0)
        rc = weft_chan_try_recv(actor->lane->chan, item);
    else
        rc = weft_chan_recv(actor->lane->chan, item);
    if (scoped)
        weft_timeout_end(&scope);
    return rc;
}

static void consume(struct actor *actor)
{
    for (;;) {
        struct item item = {.producer = UINT64_MAX};
        int rc = receive_one(actor, &item);

        if (rc == 0)
            check_item(actor, &item);
        else if (rc == -EPIPE)
            return;
        else if (rc != -EAGAIN && !gave_up(actor, rc))
            complain("weft_chan_recv", rc);
        if (draw(actor) % 8 == 0)
            count(actor);
        play_now_and_then(actor);
        breathe(actor);
    }
}

static intptr_t act(void *arg)
{
    struct actor *actor = arg;

    if (actor->producer < PRODUCERS)
        produce(actor);
    else
        consume(actor);
    return weft_promise_set(&actor->ended, 0);
}

static void *act_in_thread(void *arg)
{
    if (act(arg) != 0)
        complain("weft_promise_set", 0);
    return NULL;
}

static int prepare(void)
{
    struct actor *actor = actors;

    for (unsigned l = 0; l < CHANNELS; l++) {
        lanes[l].chan = weft_chan_new(sizeof(struct item), capacities[l]);
        if (lanes[l].chan == NULL)
            return -ENOMEM;
        for (unsigned i = 0; i < PRODUCERS + CONSUMERS; i++, actor++) {
            actor->lane = &lanes[l];
            actor->producer = i < PRODUCERS ? i : PRODUCERS;
            actor->in_task = i >= THREADS_A_SIDE && i < PRODUCERS + CONSUMERS - THREADS_A_SIDE;
            actor->random = 0x9E3779B97F4A7C15u * (uint64_t)(actor - actors + 1);
        }
    }
    return 0;
}

/* A task's first breath may be its last, if it is cancelled before it starts; so let all begin first. */
static void cancel_for(weft_task **tasks, int64_t duration)
{
    int64_t end = weft_now() + duration;
    struct actor dice = {.random = 88172645463325252u};

    while (weft_now() < end) {
        weft_sleep(WEFT_US(100 + draw(&dice) % 200));
        for (int i = 0; i < ACTORS; i++) {
            if (tasks[i] != NULL && draw(&dice) % 4 == 0)
                weft_cancel(tasks[i]);
        }
    }
}

static atomic_int begun;

static intptr_t begin_and_act(void *arg)
{
    atomic_fetch_add(&begun, 1);
    return act(arg);
}

static intptr_t drive(void *arg)
{
    weft_task *tasks[ACTORS] = {NULL};
    int64_t duration = *(int64_t *)arg;
    int spawned = 0;

    for (int i = 0; i < ACTORS; i++) {
        if (!actors[i].in_task)
            continue;
        tasks[i] = weft_spawn(begin_and_act, &actors[i]);
        if (tasks[i] == NULL)
            return -ENOMEM;
        spawned++;
    }
    while (atomic_load(&begun) < spawned)
        weft_yield();
    cancel_for(tasks, duration);
    atomic_store(&over, true);
    for (int i = 0; i < ACTORS; i++) {
        if (actors[i].producer < PRODUCERS)
            weft_await(&actors[i].ended);
    }
    for (int l = 0; l < CHANNELS; l++) {
        if (weft_chan_close(lanes[l].chan) != 0)
            complain("weft_chan_close", 0);
    }
    for (int i = 0; i < ACTORS; i++) {
        weft_await(&actors[i].ended);
        if (tasks[i] != NULL && weft_await(tasks[i]) != 0)
            complain("a task failed", i);
    }
    return 0;
}

static void check_lane(const struct lane *lane)
{
    for (unsigned p = 0; p < PRODUCERS; p++) {
        for (uint64_t i = 0; i < ITEMS; i++) {
            if (lane->seen[p][i] != (i < lane->sent[p]))
                complain("an element lost, or received and not sent", (int)i);
        }
    }
    if (weft_chan_len(lane->chan) != 0)
        complain("elements left in a channel", (int)weft_chan_len(lane->chan));
}

static void check_and_report(void)
{
    uint64_t locked = 0, received = 0, sent = 0, early = 0;

    for (int l = 0; l < CHANNELS; l++) {
        check_lane(&lanes[l]);
        for (int p = 0; p < PRODUCERS; p++)
            sent += lanes[l].sent[p];
        weft_chan_free(lanes[l].chan);
    }
    for (int i = 0; i < ACTORS; i++) {
        locked += actors[i].locked;
        received += actors[i].received;
        early += actors[i].gave_up;
    }
    if (sent != received)
        complain("sent and received differ", (int)(sent - received));
    if (locked != counter)
        complain("the counter is not exact", (int)(locked - counter));
    if (weft_mutex_unlock(&mutex) != -EPERM)
        complain("the mutex is still locked", 0);
    printf("stress_sync: %llu elements, %llu locks, %llu waits ended early, %lu wrong\n", (unsigned long long)sent,
           (unsigned long long)locked, (unsigned long long)early, atomic_load(&wrong));
}

int main(void)
{
    const char *seconds = getenv("WEFT_TEST_SECONDS");
    int64_t duration = WEFT_SEC(seconds != NULL && atoi(seconds) > 0 ? atoi(seconds) : 2);
    pthread_t threads[ACTORS];
    intptr_t result;

    alarm((unsigned)(duration / WEFT_SEC(1)) + 100);
    if (prepare() < 0)
        return 1;
    for (int i = 0; i < ACTORS; i++) {
        if (!actors[i].in_task && pthread_create(&threads[i], NULL, act_in_thread, &actors[i]) != 0)
            return 1;
    }
    result = weft_run(drive, &duration);
    if (result != 0) {
        fprintf(stderr, "stress_sync: weft_run: %d\n", (int)result);
        return 1;
    }
    for (int i = 0; i < ACTORS; i++) {
        if (!actors[i].in_task)
            pthread_join(threads[i], NULL);
    }
    check_yard();
    check_and_report();
    return atomic_load(&wrong) != 0;
}
