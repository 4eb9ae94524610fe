/* Stackless tasks: steps, every operation in them, cancellation and deadlines at each of them, misuse. */
#include <poll.h>

#include "support.h"

static const uint32_t some_workers[] = {1, 2, 8};
#define FOR_SOME_WORKERS(fn)                  \
    for (unsigned w_ = 0; w_ < 3; w_++)       \
    must_be(run_on(some_workers[w_], fn, NULL), 0)

/* ---- going on where it left off ---- */

struct counter {
    weft_frame frame;
    int i, sum;
    intptr_t rc;
};

static intptr_t count_with_yields(void *arg)
{
    struct counter *c = arg;

    WEFT_BEGIN(c);
    for (c->i = 0; c->i < 10; c->i++) {
        WEFT_AWAIT(c, c->rc, weft_async_yield());
        if (c->rc < 0)
            return c->rc;
        c->sum += c->i;
    }
    WEFT_END(c, c->sum);
}

static intptr_t spawn_counters(void *unused)
{
    enum { N = 100 };
    struct counter counters[N] = {0};
    weft_task *tasks[N];

    (void)unused;
    for (int i = 0; i < N; i++)
        must((tasks[i] = weft_spawn_stackless(count_with_yields, &counters[i])) != NULL);
    for (int i = 0; i < N; i++)
        must_be(weft_await(tasks[i]), 45);
    return 0;
}

static void a_stackless_task_goes_on_where_it_left_off(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(spawn_counters);
}

struct outer {
    weft_frame frame;
    struct counter inner[3];
    int i;
    intptr_t rc, sum;
};

static intptr_t call_others(void *arg)
{
    struct outer *o = arg;

    WEFT_BEGIN(o);
    for (o->i = 0; o->i < 3; o->i++) {
        WEFT_AWAIT(o, o->rc, count_with_yields(&o->inner[o->i]));
        o->sum += o->rc;
    }
    WEFT_END(o, o->sum);
}

static intptr_t spawn_outer(void *unused)
{
    struct outer outer = {0};

    (void)unused;
    must_be(weft_await(weft_spawn_stackless(call_others, &outer)), 135);
    return 0;
}

static void a_stackless_function_awaits_another_by_calling_it(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(spawn_outer);
}

/* ---- sleeping ---- */

struct sleeper {
    weft_frame frame;
    int64_t began, ns;
    intptr_t rc;
};

static intptr_t sleep_a_little(void *arg)
{
    struct sleeper *s = arg;

    WEFT_BEGIN(s);
    s->began = weft_now();
    WEFT_AWAIT(s, s->rc, weft_async_sleep(s->ns));
    if (s->rc < 0)
        return s->rc;
    must(weft_now() - s->began >= s->ns);
    WEFT_AWAIT(s, s->rc, weft_async_sleep(0));
    WEFT_END(s, s->rc);
}

static intptr_t spawn_sleepers(void *unused)
{
    enum { N = 50 };
    struct sleeper sleepers[N] = {0};
    weft_task *tasks[N];

    (void)unused;
    for (int i = 0; i < N; i++) {
        sleepers[i].ns = WEFT_US(200) * i;
        must((tasks[i] = weft_spawn_stackless(sleep_a_little, &sleepers[i])) != NULL);
    }
    for (int i = 0; i < N; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

static void a_sleep_lasts_as_long_as_asked(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(spawn_sleepers);
}

static intptr_t cancel_a_sleeper(void *unused)
{
    for (int i = 0; i < FEWER(1000); i++) {
        struct sleeper sleeper = {.ns = WEFT_SEC(1000)};
        weft_task *task = weft_spawn_stackless(sleep_a_little, &sleeper);

        if (i % 3 == 1)
            must_be(weft_yield(), 0);
        if (i % 3 == 2)
            must_be(weft_sleep(WEFT_US(50)), 0);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), -ECANCELED);
    }
    (void)unused;
    return 0;
}

static void a_sleep_ends_when_it_is_cancelled(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(cancel_a_sleeper);
}

/* ---- every object ---- */

struct everything {
    weft_frame frame;
    intptr_t rc, value;
    int item, step, timed_out;
    weft_timeout scope;
    weft_mutex *mutex;
    weft_sem *sem;
    weft_event *event;
    weft_notify *notify;
    weft_waitgroup *group;
    weft_rwlock *rwlock;
    weft_promise *promise;
    weft_chan *in, *out;
    weft_task *child;
};

#define AWAIT_OK(self, operation)                  \
    do {                                           \
        WEFT_AWAIT(self, (self)->rc, operation);   \
        if ((self)->rc < 0)                        \
            return (self)->rc;                     \
        (self)->step++;                            \
    } while (0)

static intptr_t use_everything(void *arg)
{
    struct everything *e = arg;

    WEFT_BEGIN(e);
    AWAIT_OK(e, weft_async_lock(e->mutex));
    must_be(weft_mutex_unlock(e->mutex), 0);
    AWAIT_OK(e, weft_async_sem(e->sem));
    must_be(weft_sem_release(e->sem), 0);
    AWAIT_OK(e, weft_async_rdlock(e->rwlock));
    must_be(weft_rwlock_unlock(e->rwlock), 0);
    AWAIT_OK(e, weft_async_wrlock(e->rwlock));
    must_be(weft_rwlock_unlock(e->rwlock), 0);
    AWAIT_OK(e, weft_async_event(e->event));
    AWAIT_OK(e, weft_async_waitgroup(e->group));
    AWAIT_OK(e, weft_async_promise(e->promise, &e->value));
    must_be(e->value, 77);
    AWAIT_OK(e, weft_async_recv(e->in, &e->item));
    must_be(e->item, 5);
    AWAIT_OK(e, weft_async_send(e->out, &e->item));
    e->child = weft_spawn(return_arg, (void *)9);
    AWAIT_OK(e, weft_async_await(e->child, &e->value));
    must_be(e->value, 9);
    WEFT_END(e, e->step);
}

/* A task that makes each of the things happen for which the other one waits, a moment later. */
static intptr_t run_everything(void *unused)
{
    (void)unused;
    for (int i = 0; i < FEWER(1000); i++) {
        weft_mutex mutex = WEFT_MUTEX_INIT;
        weft_sem sem = WEFT_SEM_INIT(0);
        weft_event event = WEFT_EVENT_INIT;
        weft_waitgroup group = WEFT_WAITGROUP_INIT;
        weft_rwlock rwlock = WEFT_RWLOCK_INIT;
        weft_promise promise = WEFT_PROMISE_INIT;
        struct everything e = {.mutex = &mutex, .sem = &sem, .event = &event, .group = &group, .rwlock = &rwlock,
                               .promise = &promise, .in = weft_chan_new(sizeof(int), 0),
                               .out = weft_chan_new(sizeof(int), 0)};
        weft_task *task;
        int item = 5;

        must_be(weft_mutex_lock(&mutex), 0);
        must_be(weft_rwlock_wrlock(&rwlock), 0);
        must_be(weft_waitgroup_add(&group, 1), 0);
        task = weft_spawn_stackless(use_everything, &e);
        must_be(weft_yield(), 0);
        must_be(weft_mutex_unlock(&mutex), 0);
        must_be(weft_yield(), 0);
        must_be(weft_sem_release(&sem), 0);
        must_be(weft_yield(), 0);
        must_be(weft_rwlock_unlock(&rwlock), 0);
        weft_event_set(&event);
        must_be(weft_yield(), 0);
        must_be(weft_waitgroup_done(&group), 0);
        must_be(weft_yield(), 0);
        must_be(weft_promise_set(&promise, 77), 0);
        must_be(weft_chan_send(e.in, &item), 0);
        item = 0;
        must_be(weft_chan_recv(e.out, &item), 0);
        must_be(item, 5);
        must_be(weft_await(task), 10);
        weft_chan_free(e.in);
        weft_chan_free(e.out);
    }
    return 0;
}

static void a_stackless_task_waits_for_every_kind_of_object(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(run_everything);
}

/* Cancelled, or too late, at its k-th wait: it reports that, and what it waited for is untouched. */
static intptr_t interrupt_everything(void *unused)
{
    (void)unused;
    for (int round = 0; round < FEWER(1000); round++) {
        for (int k = 0; k < 10; k++) {
            weft_mutex mutex = WEFT_MUTEX_INIT;
            weft_sem sem = WEFT_SEM_INIT(1);
            weft_event event = WEFT_EVENT_INIT;
            weft_waitgroup group = WEFT_WAITGROUP_INIT;
            weft_rwlock rwlock = WEFT_RWLOCK_INIT;
            weft_promise promise = WEFT_PROMISE_INIT;
            struct everything e = {.mutex = &mutex, .sem = &sem, .event = &event, .group = &group,
                                   .rwlock = &rwlock, .promise = &promise, .in = weft_chan_new(sizeof(int), 1),
                                   .out = weft_chan_new(sizeof(int), k > 8 ? 1 : 0)};
            weft_task *task;
            int item = 5;

            if (k == 0)
                must_be(weft_mutex_trylock(&mutex), 0);
            if (k == 1)
                must_be(weft_sem_try_acquire(&sem), 0);
            if (k == 2)
                must_be(weft_rwlock_trywrlock(&rwlock), 0);
            if (k == 3)
                must_be(weft_rwlock_tryrdlock(&rwlock), 0);
            if (k != 4)
                weft_event_set(&event);
            if (k == 5)
                must_be(weft_waitgroup_add(&group, 1), 0);
            if (k != 6)
                must_be(weft_promise_set(&promise, 77), 0);
            if (k != 7)
                must_be(weft_chan_send(e.in, &item), 0);
            task = weft_spawn_stackless(use_everything, &e);
            if (round % 2)
                must_be(weft_yield(), 0);
            if (k < 9) {
                must_be(weft_cancel(task), 1);
                must_be(weft_await(task), -ECANCELED);
                if (round % 2 == 0)
                    must(e.step <= k);
            } else {
                must_be(weft_await(task), 10);
            }
            must_be(weft_mutex_trylock(&mutex), k == 0 ? -EBUSY : 0);
            must_be(weft_rwlock_trywrlock(&rwlock), k == 2 || k == 3 ? -EBUSY : 0);
            must_be(weft_sem_try_acquire(&sem), k == 1 ? -EAGAIN : 0);
            must_be(weft_chan_try_recv(e.out, &item), k == 9 ? 0 : -EAGAIN);
            weft_chan_free(e.in);
            weft_chan_free(e.out);
        }
    }
    return 0;
}

static void cancellation_reaches_every_wait(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(interrupt_everything);
}

/* ---- deadlines ---- */

static intptr_t wait_too_long(void *arg)
{
    struct everything *e = arg;

    WEFT_BEGIN(e);
    must_be(weft_timeout_begin(&e->scope, WEFT_MS(2)), 0);
    WEFT_AWAIT(e, e->rc, weft_async_recv(e->in, &e->item));
    must_be(e->rc, -ETIMEDOUT);
    /* What need not wait succeeds after it, too. */
    e->item = 17;
    must_be(weft_chan_try_send(e->in, &e->item), 0);
    e->item = 0;
    WEFT_AWAIT(e, e->rc, weft_async_recv(e->in, &e->item));
    must_be(e->rc, 0);
    must_be(e->item, 17);
    WEFT_AWAIT(e, e->rc, weft_async_sleep(WEFT_SEC(100)));
    must_be(e->rc, -ETIMEDOUT);
    e->child = weft_spawn(sleep_for_ever, NULL);
    WEFT_AWAIT(e, e->rc, weft_async_await(e->child, &e->value));
    must_be(e->rc, -ETIMEDOUT);
    must_be(e->value, -ECANCELED);
    must_be(weft_timeout_end(&e->scope), 1);
    must_be(weft_timeout_begin(&e->scope, WEFT_SEC(100)), 0);
    WEFT_AWAIT(e, e->rc, weft_async_sleep(WEFT_MS(1)));
    must_be(e->rc, 0);
    must_be(weft_timeout_end(&e->scope), 0);
    WEFT_END(e, 0);
}

static intptr_t spawn_late_ones(void *unused)
{
    (void)unused;
    for (int i = 0; i < FEWER(50); i++) {
        struct everything e = {.in = weft_chan_new(sizeof(int), 1)};

        must_be(weft_await(weft_spawn_stackless(wait_too_long, &e)), 0);
        weft_chan_free(e.in);
    }
    return 0;
}

static void deadlines_reach_every_wait(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(spawn_late_ones);
}

/* ---- many, against stackful ones ---- */

enum { PASSES = 2000, RING = 8 };

struct link {
    weft_frame frame;
    weft_chan *from, *to;
    int value;
    intptr_t rc;
};

static intptr_t pass_on_in_steps(void *arg)
{
    struct link *l = arg;

    WEFT_BEGIN(l);
    for (;;) {
        WEFT_AWAIT(l, l->rc, weft_async_recv(l->from, &l->value));
        if (l->rc == -EPIPE)
            break;
        must_be(l->rc, 0);
        l->value++;
        WEFT_AWAIT(l, l->rc, weft_async_send(l->to, &l->value));
        must_be(l->rc, 0);
    }
    weft_chan_close(l->to);
    WEFT_END(l, 0);
}

static intptr_t pass_on_with_a_stack(void *arg)
{
    struct link *l = arg;

    while (weft_chan_recv(l->from, &l->value) == 0) {
        l->value++;
        must_be(weft_chan_send(l->to, &l->value), 0);
    }
    weft_chan_close(l->to);
    return 0;
}

static intptr_t chain_of_both(void *unused)
{
    struct link links[RING] = {0};
    weft_chan *chans[RING + 1];
    weft_task *tasks[RING];
    int value;

    (void)unused;
    for (int i = 0; i <= RING; i++)
        chans[i] = weft_chan_new(sizeof(int), i % 3);
    for (int i = 0; i < RING; i++) {
        links[i].from = chans[i];
        links[i].to = chans[i + 1];
        tasks[i] = i % 2 ? weft_spawn(pass_on_with_a_stack, &links[i])
                         : weft_spawn_stackless(pass_on_in_steps, &links[i]);
        must(tasks[i] != NULL);
    }
    for (int i = 0; i < FEWER(PASSES); i++) {
        must_be(weft_chan_send(chans[0], &i), 0);
        must_be(weft_chan_recv(chans[RING], &value), 0);
        must_be(value, i + RING);
    }
    weft_chan_close(chans[0]);
    for (int i = 0; i < RING; i++)
        must_be(weft_await(tasks[i]), 0);
    for (int i = 0; i <= RING; i++)
        weft_chan_free(chans[i]);
    return 0;
}

static void stackless_and_stackful_tasks_work_together(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(chain_of_both);
}

/* ---- descriptors ---- */

struct io {
    weft_frame frame;
    int fd, listener;
    char byte;
    long moved, want;
    intptr_t rc;
    char buffer[300];
};

static intptr_t read_bytes(void *arg)
{
    struct io *io = arg;

    WEFT_BEGIN(io);
    for (;;) {
        WEFT_AWAIT(io, io->rc, weft_async_read(io->fd, io->buffer, sizeof io->buffer));
        if (io->rc <= 0)
            break;
        for (intptr_t i = 0; i < io->rc; i++)
            must_be(io->buffer[i], (char)(io->moved + i));
        io->moved += io->rc;
    }
    WEFT_END(io, io->rc);
}

static intptr_t write_bytes(void *arg)
{
    struct io *io = arg;

    WEFT_BEGIN(io);
    while (io->moved < io->want) {
        for (unsigned i = 0; i < sizeof io->buffer; i++)
            io->buffer[i] = (char)(io->moved + i);
        WEFT_AWAIT(io, io->rc, weft_async_write(io->fd, io->buffer, sizeof io->buffer));
        if (io->rc < 0)
            break;
        io->moved += io->rc;
    }
    weft_close(io->fd);
    WEFT_END(io, io->moved);
}

static intptr_t pump(void *unused)
{
    (void)unused;
    for (int i = 0; i < FEWER(20); i++) {
        struct io reader = {0}, writer = {.want = 400000};
        weft_task *in, *out;
        int ends[2];

        must_be(pipe(ends), 0);
        reader.fd = ends[0];
        writer.fd = ends[1];
        in = weft_spawn_stackless(read_bytes, &reader);
        out = weft_spawn_stackless(write_bytes, &writer);
        must(weft_await(out) >= 400000);
        must_be(weft_await(in), 0);
        must_be(reader.moved, writer.moved);
        weft_close(ends[0]);
    }
    return 0;
}

static void bytes_flow_through_descriptors(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(pump);
}

static intptr_t poll_once(void *arg)
{
    struct io *io = arg;
    intptr_t rc = weft_async_poll(io->fd, POLLIN);

    return rc;
}

static intptr_t interrupt_descriptors(void *unused)
{
    (void)unused;
    for (int i = 0; i < FEWER(1000); i++) {
        struct io a = {0}, b = {0};
        weft_task *reading, *polling;
        int ends[2];

        must_be(pipe(ends), 0);
        a.fd = b.fd = ends[0];
        reading = weft_spawn_stackless(read_bytes, &a);
        polling = weft_spawn_stackless(poll_once, &b);
        if (i & 1)
            must_be(weft_yield(), 0);
        if (i & 2) {
            must_be(weft_cancel(reading), 1);
            must_be(weft_cancel(polling), 1);
            must_be(weft_await(reading), -ECANCELED);
            must_be(weft_await(polling), -ECANCELED);
            weft_close(ends[0]);
        } else if (i & 4) {
            must_be(weft_close(ends[0]), 0);
            must_be(weft_await(reading), -EBADF);
            must_be(weft_await(polling), -EBADF);
        } else {
            must_be(weft_write(ends[1], "", 1), 1);
            weft_close(ends[1]);
            must(weft_await(polling) & (POLLIN | POLLHUP)); /* the reader may have been faster */
            must_be(weft_await(reading), 0);
            must_be(a.moved, 1);
            weft_close(ends[0]);
            continue;
        }
        weft_close(ends[1]);
    }
    return 0;
}

static void waits_for_descriptors_end_by_events_closing_and_cancellation(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(interrupt_descriptors);
}

static intptr_t accept_one(void *arg)
{
    struct io *io = arg;

    WEFT_BEGIN(io);
    WEFT_AWAIT(io, io->rc, weft_async_accept(io->listener));
    if (io->rc < 0)
        return io->rc;
    io->fd = (int)io->rc;
    WEFT_AWAIT(io, io->rc, weft_async_read(io->fd, &io->byte, 1));
    weft_close(io->fd);
    WEFT_END(io, io->rc == 1 ? io->byte : io->rc);
}

static intptr_t serve_one(void *unused)
{
    struct io io = {.listener = weft_listen("127.0.0.1", 0, 8)};
    weft_task *task = weft_spawn_stackless(accept_one, &io);
    int fd = weft_dial("127.0.0.1", (uint16_t)weft_local_port(io.listener));

    (void)unused;
    must(fd >= 0);
    must_be(weft_write(fd, "x", 1), 1);
    must_be(weft_await(task), 'x');
    weft_close(fd);
    weft_close(io.listener);
    return 0;
}

static void a_stackless_task_accepts_and_serves(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(serve_one);
}

/* ---- life ---- */

static intptr_t never(void *arg)
{
    (void)arg;
    must(!"run");
    return 0;
}

static intptr_t cancel_before_start(void *unused)
{
    weft_task *task = weft_spawn_stackless(never, NULL);

    (void)unused;
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    return 0;
}

static void one_that_is_cancelled_before_it_starts_never_runs(void **state)
{
    (void)state;
    must_be(run_alone(cancel_before_start, NULL), 0);
}

static intptr_t forbidden(void *arg)
{
    weft_event event = WEFT_EVENT_INIT;
    weft_mutex mutex = WEFT_MUTEX_INIT;
    weft_task *child = weft_spawn(return_arg, (void *)3), **out = arg;

    must_be(weft_yield(), -EPERM);
    must_be(weft_sleep(WEFT_MS(1)), -EPERM);
    must_be(weft_event_wait(&event), -EPERM);
    must_be(weft_mutex_lock(&mutex), -EPERM);
    must_be(weft_await(child), -EPERM);
    must_be(weft_blocking(return_arg, NULL), -EPERM);
    must_be(weft_cancelled(), 0);
    must(weft_self() != NULL);
    must(weft_runtime_current() != NULL);
    *out = child; /* its handle is still valid */
    return 1;
}

static intptr_t try_forbidden(void *unused)
{
    weft_task *child = NULL;

    (void)unused;
    must_be(weft_await(weft_spawn_stackless(forbidden, &child)), 1);
    must_be(weft_await(child), 3);
    must_be(weft_async_yield(), -EPERM);
    must_be(weft_async_sleep(5), -EPERM);
    return 0;
}

static void what_suspends_a_stack_is_refused_and_the_other_way_round(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(try_forbidden);
    assert_int_equal(weft_async_yield(), -EPERM);
}

struct greedy {
    weft_frame frame;
    weft_sem sem;
    atomic_bool *stop;
    long rounds;
    intptr_t rc;
};

static intptr_t always_ready(void *arg)
{
    struct greedy *g = arg;

    WEFT_BEGIN(g);
    while (!atomic_load(g->stop)) {
        WEFT_AWAIT(g, g->rc, weft_async_sem(&g->sem));
        must_be(g->rc, 0);
        must_be(weft_sem_release(&g->sem), 0);
        g->rounds++;
    }
    WEFT_END(g, 0);
}

static intptr_t run_greedy(void *unused)
{
    atomic_bool stop = false;
    struct greedy g = {.sem = WEFT_SEM_INIT(1), .stop = &stop};
    weft_task *task = weft_spawn_stackless(always_ready, &g);

    (void)unused;
    must_be(weft_yield(), 0); /* comes back although the other one never has to wait */
    atomic_store(&stop, true);
    must_be(weft_await(task), 0);
    must(g.rounds > 0);
    return 0;
}

static void one_that_always_finds_its_object_ready_lets_others_run(void **state)
{
    (void)state;
    must_be(run_alone(run_greedy, NULL), 0);
}

struct herd {
    weft_event *event;
    atomic_long *woken;
};

static intptr_t wait_for_event(void *arg)
{
    struct herd *herd = arg;
    intptr_t rc = weft_async_event(herd->event);

    if (rc == 0)
        atomic_fetch_add(herd->woken, 1);
    return rc;
}

static intptr_t run_herd(void *unused)
{
    enum { N = 20000 };
    weft_event event = WEFT_EVENT_INIT;
    atomic_long woken = 0;
    struct herd herd = {&event, &woken};
    weft_stats stats;

    (void)unused;
    for (int i = 0; i < FEWER(N); i++)
        must_be(weft_go_stackless(wait_for_event, &herd), 0);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    weft_runtime_stats(weft_runtime_current(), &stats);
    must_be(stats.live_tasks, FEWER(N) + 1);
    weft_event_set(&event);
    wait_until_true(atomic_load(&woken) == FEWER(N));
    return 0;
}

static void many_wait_and_each_is_woken_once(void **state)
{
    (void)state;
    FOR_SOME_WORKERS(run_herd);
}

static intptr_t leave_some(void *unused)
{
    static weft_event event = WEFT_EVENT_INIT;
    static atomic_long woken;
    static struct herd herd = {&event, &woken};

    (void)unused;
    for (int i = 0; i < 100; i++)
        must_be(weft_go_stackless(wait_for_event, &herd), 0);
    return weft_yield();
}

static void stopping_cancels_those_that_are_left(void **state)
{
    (void)state;
    for (unsigned w = 0; w < 3; w++) {
        weft_config config = {.workers = some_workers[w]};
        weft_runtime *runtime;

        must_be(weft_runtime_start(&config, &runtime), 0);
        must_be(weft_runtime_run(runtime, leave_some, NULL), 0);
        must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stackless_task_goes_on_where_it_left_off),
        cmocka_unit_test(a_stackless_function_awaits_another_by_calling_it),
        cmocka_unit_test(a_sleep_lasts_as_long_as_asked),
        cmocka_unit_test(a_sleep_ends_when_it_is_cancelled),
        cmocka_unit_test(a_stackless_task_waits_for_every_kind_of_object),
        cmocka_unit_test(cancellation_reaches_every_wait),
        cmocka_unit_test(deadlines_reach_every_wait),
        cmocka_unit_test(stackless_and_stackful_tasks_work_together),
        cmocka_unit_test(bytes_flow_through_descriptors),
        cmocka_unit_test(waits_for_descriptors_end_by_events_closing_and_cancellation),
        cmocka_unit_test(a_stackless_task_accepts_and_serves),
        cmocka_unit_test(one_that_is_cancelled_before_it_starts_never_runs),
        cmocka_unit_test(what_suspends_a_stack_is_refused_and_the_other_way_round),
        cmocka_unit_test(one_that_always_finds_its_object_ready_lets_others_run),
        cmocka_unit_test(many_wait_and_each_is_woken_once),
        cmocka_unit_test(stopping_cancels_those_that_are_left),
    };

    alarm(SUPPORT_LIMIT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
