/* Cancellation: level-triggered, passed on to what is awaited, sheltered by masks, at every suspension point. */
#include <sys/socket.h>

#include "support.h"

static atomic_int ran, started, ended;

static void clear(void)
{
    atomic_store(&ran, 0);
    atomic_store(&started, 0);
    atomic_store(&ended, 0);
}

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], fn, NULL), 0);
}

/* ---- before the start ---- */

static intptr_t note_run(void *arg)
{
    atomic_fetch_add(&ran, 1);
    return (intptr_t)arg;
}

static intptr_t cancels_early(void *arg)
{
    weft_task *tasks[50];

    (void)arg;
    clear();
    for (int i = 0; i < 50; i++) {
        tasks[i] = spawn(note_run, (void *)7);
        must_be(weft_cancel(tasks[i]), 1);
        must_be(weft_cancel(tasks[i]), 1);
    }
    for (int i = 0; i < 50; i++)
        must_be(weft_await(tasks[i]), -ECANCELED);
    must_be(atomic_load(&ran), 0);

    for (int i = 0; i < 50; i++)
        must_be(weft_cancel(tasks[i] = spawn(note_run, (void *)7)), 1);
    must_be(weft_sleep(WEFT_MS(5)), 0);
    for (int i = 0; i < 50; i++)
        must_be(weft_await(tasks[i]), -ECANCELED);
    must_be(atomic_load(&ran), 0);
    return 0;
}

static void cancelled_before_it_starts_a_task_never_runs(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancels_early, NULL), 0);
}

static intptr_t cancels_late(void *arg)
{
    weft_task *task;

    (void)arg;
    clear();
    task = spawn(note_run, (void *)7);
    wait_until_true(atomic_load(&ran) == 1);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    must_be(weft_cancel(task), 0);
    must_be(weft_await(task), 7);
    return 0;
}

static void cancelling_what_is_over_changes_nothing(void **state)
{
    (void)state;
    run_everywhere(cancels_late);
}

/* ---- while it waits ---- */

static weft_event never;
static weft_mutex held;
static weft_chan *empty;
static int ends[2];

static intptr_t wait_in_some_way(void *arg)
{
    char byte;

    atomic_fetch_add(&started, 1);
    switch ((intptr_t)arg) {
    case 0:
        return weft_sleep(WEFT_SEC(1000));
    case 1:
        return weft_event_wait(&never);
    case 2:
        return weft_mutex_lock(&held);
    case 3:
        return weft_chan_recv(empty, &byte);
    case 4:
        return weft_read(ends[0], &byte, 1);
    case 5:
        return weft_await(spawn(sleep_for_ever, NULL));
    case 6:
        while (weft_yield() == 0)
            ;
        return weft_yield();
    default:
        return weft_chan_send(empty, "x");
    }
}

enum { WAYS = 7 };

static intptr_t cancels_waiting(void *arg)
{
    weft_task *tasks[WAYS];

    clear();
    never = (weft_event)WEFT_EVENT_INIT;
    held = (weft_mutex)WEFT_MUTEX_INIT;
    must_be(weft_mutex_lock(&held), 0);
    must((empty = weft_chan_new(1, 0)) != NULL);
    must_be(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    for (intptr_t i = 0; i < WAYS; i++)
        tasks[i] = spawn(wait_in_some_way, (void *)i);
    wait_until_true(atomic_load(&started) == WAYS);
    if (arg)
        must_be(weft_sleep(WEFT_MS(2)), 0);
    for (int i = 0; i < WAYS; i++)
        must_be(weft_cancel(tasks[i]), 1);
    for (int i = 0; i < WAYS; i++)
        must_be(weft_await(tasks[i]), -ECANCELED);
    must_be(weft_mutex_unlock(&held), 0);
    must_be(weft_mutex_trylock(&held), 0);
    weft_chan_free(empty);
    must_be(weft_close(ends[0]), 0);
    must_be(weft_close(ends[1]), 0);
    return 0;
}

static void whatever_it_waits_for_a_cancelled_task_stops_waiting(void **state)
{
    (void)state;
    run_everywhere(cancels_waiting);
    for (int i = 0; i < 10; i++)
        assert_int_equal(run_on(2, cancels_waiting, (void *)1), 0);
}

static intptr_t notices_again_and_again(void *arg)
{
    weft_mutex mutex = WEFT_MUTEX_INIT;
    weft_event set = WEFT_EVENT_INIT;
    int fds[2];
    char byte;

    (void)arg;
    weft_event_set(&set);
    must_be(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    must_be(write(fds[1], "x", 1), 1);
    must_be(weft_cancelled(), 0);
    atomic_store(&started, 1);
    must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
    must_be(weft_cancelled(), 1);
    for (int i = 0; i < 3; i++) {
        must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
        must_be(weft_sleep(0), -ECANCELED);
        must_be(weft_yield(), -ECANCELED);
        must_be(weft_mutex_lock(&mutex), -ECANCELED);
        must_be(weft_event_wait(&set), -ECANCELED);
        must_be(weft_read(fds[0], &byte, 1), -ECANCELED);
        must_be(weft_await(spawn(note_run, NULL)), -ECANCELED);
        must_be(weft_blocking(note_run, NULL), -ECANCELED);
    }
    must_be(atomic_load(&ran), 0);
    must_be(weft_uncancel(), 1);
    must_be(weft_cancelled(), 0);
    must_be(weft_uncancel(), 0);
    must_be(weft_yield(), 0);
    must_be(weft_sleep(WEFT_US(10)), 0);
    must_be(weft_mutex_lock(&mutex), 0);
    must_be(weft_mutex_unlock(&mutex), 0);
    must_be(weft_event_wait(&set), 0);
    must_be(weft_read(fds[0], &byte, 1), 1);
    must_be(weft_await(spawn(note_run, (void *)5)), 5);
    must_be(weft_blocking(note_run, (void *)6), 6);

    atomic_store(&started, 2);
    must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED); /* and may be cancelled again */
    must_be(weft_close(fds[0]), 0);
    must_be(weft_close(fds[1]), 0);
    return 17;
}

static intptr_t cancels_twice(void *arg)
{
    weft_task *task;

    (void)arg;
    clear();
    task = spawn(notices_again_and_again, NULL);
    wait_until_true(atomic_load(&started) == 1);
    must_be(weft_cancel(task), 1);
    wait_until_true(atomic_load(&started) == 2);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), 17);
    return 0;
}

static void every_suspension_point_says_so_until_it_is_taken_back(void **state)
{
    (void)state;
    run_everywhere(cancels_twice);
}

/* ---- what a cancelled task awaits ---- */

enum how { CHILD_PLAIN, CHILD_TIDIES, CHILD_WINS, CHILD_OWN_ERROR, CHILD_MASKED, CHILD_UNCANCELS };

static intptr_t child(void *arg)
{
    intptr_t how = (intptr_t)arg;
    intptr_t result = -ECANCELED;

    atomic_fetch_add(&started, 1);
    switch (how) {
    case CHILD_PLAIN:
        result = weft_sleep(WEFT_SEC(1000));
        break;
    case CHILD_TIDIES:
        must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
        must_be(weft_mask_begin(), 0);
        must_be(weft_sleep(WEFT_MS(3)), 0);
        must_be(weft_yield(), 0);
        must_be(weft_mask_end(), 0);
        must_be(weft_yield(), -ECANCELED);
        break;
    case CHILD_WINS:
        must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
        result = 42;
        break;
    case CHILD_OWN_ERROR:
        must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
        result = -EIO;
        break;
    case CHILD_MASKED:
        must_be(weft_mask_begin(), 0);
        must_be(weft_event_wait(&never), 0);
        must_be(weft_cancelled(), 0);
        must_be(weft_mask_end(), 0);
        while (!weft_cancelled()) /* an awaiter on another worker may be on its way to tell it */
            (void)weft_sleep(WEFT_US(100));
        result = 43;
        break;
    case CHILD_UNCANCELS:
        must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
        must_be(weft_uncancel(), 1);
        must_be(weft_yield(), 0);
        must_be(weft_sleep(WEFT_MS(1)), 0);
        result = 44;
        break;
    }
    atomic_fetch_add(&ended, 1);
    return result;
}

static intptr_t expected_of_child(intptr_t how)
{
    switch (how) {
    case CHILD_WINS:
        return 42;
    case CHILD_OWN_ERROR:
        return -EIO;
    case CHILD_MASKED:
        return 43;
    case CHILD_UNCANCELS:
        return 44;
    default:
        return -ECANCELED;
    }
}

struct parent {
    intptr_t how;
    int elsewhere; /* the child has started before it is awaited */
    int into;
    int levels; /* tasks between this one and the child */
};

static intptr_t parent(void *arg)
{
    struct parent *self = arg;
    struct parent below = *self;
    intptr_t expected = expected_of_child(self->how), result = 1;
    weft_task *awaited;

    below.levels--;
    awaited = self->levels ? spawn(parent, &below) : spawn(child, (void *)self->how);
    if (self->elsewhere)
        while (atomic_load(&started) == 0)
            weft_yield(); /* the cancellation may come as soon as the child has started */
    if (self->into) {
        must_be(weft_await_into(awaited, &result), -ECANCELED);
        must_be(result, expected);
    } else {
        result = weft_await(awaited);
        must_be(result, expected);
    }
    must_be(atomic_load(&ended), 1); /* it was waited for */
    /* The cancellation is still there. */
    must_be(weft_cancelled(), 1);
    must_be(weft_yield(), -ECANCELED);
    return expected;
}

static intptr_t cancels_parents(void *arg)
{
    (void)arg;
    for (int i = 0; i < 6 * 2 * 2 * 3; i++) {
        struct parent options = {.how = i % 6, .elsewhere = i / 6 % 2, .into = i / 12 % 2, .levels = i / 24};
        weft_task *task;

        clear();
        never = (weft_event)WEFT_EVENT_INIT;
        task = spawn(parent, &options);
        wait_until_true(atomic_load(&started) == 1);
        if (i % 5)
            must_be(weft_sleep(WEFT_US(300)), 0);
        must_be(weft_cancel(task), 1);
        if (options.how == CHILD_MASKED) {
            must_be(weft_sleep(WEFT_MS(2)), 0);
            must_be(atomic_load(&ended), 0);
            weft_event_set(&never);
        }
        must_be(weft_await(task), expected_of_child(options.how));
        must_be(atomic_load(&ended), 1);
    }
    return 0;
}

static void cancelling_an_awaiter_cancels_the_awaited_in_place_and_elsewhere(void **state)
{
    (void)state;
    run_everywhere(cancels_parents);
}

static intptr_t awaits_when_cancelled(void *arg)
{
    intptr_t result = 5;
    weft_task *task = spawn(note_run, (void *)3);

    (void)arg;
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_await_into(task, &result), -ECANCELED);
    must_be(result, -ECANCELED);
    must_be(weft_await(spawn(note_run, (void *)3)), -ECANCELED);
    must_be(weft_uncancel(), 1);
    must_be(weft_await(spawn(note_run, (void *)3)), 3);
    return 4;
}

static intptr_t cancels_itself(void *arg)
{
    (void)arg;
    clear();
    must_be(weft_await(spawn(awaits_when_cancelled, NULL)), 4);
    must_be(atomic_load(&ran), 1);
    return 0;
}

static void a_cancelled_task_never_starts_what_it_awaits(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancels_itself, NULL), 0);
}

/* A result that is there already is not thrown away. */
static intptr_t awaits_the_finished(void *arg)
{
    weft_task *task = spawn(note_run, (void *)3);

    (void)arg;
    wait_until_true(atomic_load(&ran) > 0);
    must_be(weft_sleep(WEFT_MS(10)), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_await(task), 3);
    return 0;
}

static void a_result_that_is_there_is_returned_to_a_cancelled_awaiter(void **state)
{
    (void)state;
    clear();
    assert_int_equal(run_alone(awaits_the_finished, NULL), 0);
}

/* ---- masks ---- */

static intptr_t inner(void *arg)
{
    must_be(weft_sleep(WEFT_MS(2)), 0);
    must_be(weft_cancelled(), 0);
    return (intptr_t)arg;
}

static intptr_t shelters(void *arg)
{
    int elsewhere = arg != NULL;
    weft_task *task;

    must_be(weft_mask_begin(), 0);
    atomic_store(&started, 1);
    must_be(weft_event_wait(&never), 0); /* cancelled meanwhile */
    must_be(weft_cancelled(), 0);
    must_be(weft_mask_begin(), 0);
    must_be(weft_yield(), 0);
    must_be(weft_mask_end(), 0);
    task = spawn(inner, (void *)9);
    if (elsewhere)
        must_be(weft_yield(), 0);
    must_be(weft_await(task), 9);
    must_be(weft_blocking(return_arg, (void *)8), 8);
    must_be(weft_mask_end(), 0);
    must_be(weft_mask_end(), -EINVAL);
    must_be(weft_cancelled(), 1);
    must_be(weft_sleep(WEFT_SEC(1000)), -ECANCELED);
    return 5;
}

static intptr_t cancels_sheltered(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        weft_task *task;

        clear();
        never = (weft_event)WEFT_EVENT_INIT;
        task = spawn(shelters, i % 2 ? &never : NULL);
        wait_until_true(atomic_load(&started));
        must_be(weft_cancel(task), 1);
        must_be(weft_sleep(WEFT_US(100)), 0);
        weft_event_set(&never);
        must_be(weft_await(task), 5);
    }
    return 0;
}

static void a_mask_shelters_the_task_and_what_it_awaits(void **state)
{
    (void)state;
    run_everywhere(cancels_sheltered);
}

/* ---- reads lose nothing ---- */

static intptr_t reads_numbers(void *arg)
{
    uint32_t expected = 0;
    uint32_t number;

    (void)arg;
    atomic_store(&started, 1);
    while (expected < (uint32_t)FEWER(2000)) {
        ssize_t n = weft_read(ends[0], &number, sizeof number);

        if (n == -ECANCELED) {
            must_be(weft_uncancel(), 1);
            continue;
        }
        must_be(n, sizeof number);
        must_be(number, expected);
        expected++;
    }
    atomic_store(&ended, 1);
    return 0;
}

static intptr_t writes_numbers(void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < (uint32_t)FEWER(2000); i++) {
        must_be(weft_write_all(ends[1], &i, sizeof i), sizeof i);
        if (i % 7 == 0)
            must_be(weft_yield(), 0);
        if (i % 100 == 0)
            must_be(weft_sleep(WEFT_US(50)), 0);
    }
    return 0;
}

static intptr_t cancels_reads(void *arg)
{
    weft_task *reader, *writer;

    (void)arg;
    clear();
    must_be(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    reader = spawn(reads_numbers, NULL);
    writer = spawn(writes_numbers, NULL);
    wait_until_true(atomic_load(&started));
    while (!atomic_load(&ended)) {
        weft_cancel(reader);
        must_be(weft_yield(), 0);
    }
    must_be(weft_await(writer), 0);
    must_be(weft_await(reader), 0);
    must_be(weft_close(ends[0]), 0);
    must_be(weft_close(ends[1]), 0);
    return 0;
}

static void a_cancelled_read_loses_no_data(void **state)
{
    (void)state;
    run_everywhere(cancels_reads);
}

/* ---- at every point of a mixture ---- */

struct mixture {
    int point;     /* suspension points so far */
    int cancel_at; /* cancels itself before that one; -1: somebody else does */
    int cancelled; /* a point has said so */
    weft_mutex mutex;
    weft_event set;
    weft_chan *chan;
    int fds[2];
};

static void enter_point(struct mixture *mix)
{
    if (mix->point++ == mix->cancel_at)
        must_be(weft_cancel(weft_self()), 1);
}

/* What the call at a suspension point returned. True: it was done. */
static int at_point(struct mixture *mix, intptr_t rc, intptr_t good)
{
    if (rc == -ECANCELED) {
        must(mix->cancel_at < 0 || mix->point > mix->cancel_at);
        mix->cancelled = 1;
        return 0;
    }
    must_be(rc, good);
    must(!mix->cancelled);
    must(mix->cancel_at < 0 || mix->point <= mix->cancel_at);
    return 1;
}

#define POINT(mix, call, good) (enter_point(mix), at_point(mix, call, good))

static intptr_t parks_a_little(void *arg)
{
    int rc = weft_yield();

    return rc < 0 ? rc : (intptr_t)arg;
}

static void mixture_round(struct mixture *mix)
{
    char byte = 'a';
    weft_task *task;

    POINT(mix, weft_yield(), 0);
    POINT(mix, weft_sleep(WEFT_US(1)), 0);
    POINT(mix, weft_sleep(0), 0);
    if (POINT(mix, weft_mutex_lock(&mix->mutex), 0))
        must_be(weft_mutex_unlock(&mix->mutex), 0);
    if (POINT(mix, weft_chan_send(mix->chan, &byte), 0)) {
        if (!POINT(mix, weft_chan_recv(mix->chan, &byte), 0))
            must_be(weft_chan_try_recv(mix->chan, &byte), 0);
        must_be(weft_chan_try_recv(mix->chan, &byte), -EAGAIN);
    }
    POINT(mix, weft_event_wait(&mix->set), 0);
    if (POINT(mix, weft_write(mix->fds[1], &byte, 1), 1) && !POINT(mix, weft_read(mix->fds[0], &byte, 1), 1))
        must_be(read(mix->fds[0], &byte, 1), 1);
    POINT(mix, weft_blocking(return_arg, (void *)5), 5);
    POINT(mix, weft_await(spawn(parks_a_little, (void *)6)), 6);
    task = spawn(parks_a_little, (void *)7);
    POINT(mix, weft_yield(), 0);
    /* It may have ended with a result of its own before the cancellation came. */
    enter_point(mix);
    {
        intptr_t rc = weft_await(task);

        must(rc == 7 || rc == -ECANCELED);
        mix->cancelled |= rc == -ECANCELED;
    }
    task = weft_spawn_blocking(return_arg, (void *)8);
    must(task != NULL);
    enter_point(mix);
    {
        intptr_t rc = weft_await(task);

        must(rc == 8 || rc == -ECANCELED);
        mix->cancelled |= rc == -ECANCELED;
    }
}

static intptr_t mixture_main(void *arg)
{
    struct mixture *mix = arg;

    atomic_fetch_add(&started, 1);
    mixture_round(mix);
    if (mix->cancel_at >= 0 && mix->cancel_at < mix->point) {
        must_be(weft_cancelled(), 1);
        must_be(weft_uncancel(), 1);
    }
    return mix->point;
}

static void open_mixture(struct mixture *mix, int cancel_at)
{
    *mix = (struct mixture){.cancel_at = cancel_at, .mutex = WEFT_MUTEX_INIT, .set = WEFT_EVENT_INIT};
    weft_event_set(&mix->set);
    must((mix->chan = weft_chan_new(1, 1)) != NULL);
    must_be(socketpair(AF_UNIX, SOCK_STREAM, 0, mix->fds), 0);
}

static void close_mixture(struct mixture *mix)
{
    must_be(weft_mutex_trylock(&mix->mutex), 0);
    weft_chan_free(mix->chan);
    must_be(weft_close(mix->fds[0]), 0);
    must_be(weft_close(mix->fds[1]), 0);
}

static void one_mixture(int cancel_at, int in_place)
{
    struct mixture mix;
    weft_task *task;

    open_mixture(&mix, cancel_at);
    task = spawn(mixture_main, &mix);
    if (!in_place)
        must_be(weft_yield(), 0);
    must_be(weft_await(task), mix.point);
    close_mixture(&mix);
}

static intptr_t mixes_itself(void *arg)
{
    weft_stats stats;
    struct mixture whole;
    int points;

    (void)arg;
    open_mixture(&whole, 1000);
    mixture_round(&whole);
    close_mixture(&whole);
    points = whole.point;
    must(points >= 13);
    for (int in_place = 0; in_place < 2; in_place++)
        for (int k = 0; k <= points; k++)
            one_mixture(k, in_place);
    for (int i = 0; i < 10000; i++) {
        weft_runtime_stats(weft_runtime_current(), &stats);
        if (stats.live_tasks == 1)
            return 0;
        must_be(weft_sleep(WEFT_MS(1)), 0);
    }
    must_be(stats.live_tasks, 1);
    return 0;
}

static void at_every_suspension_point_cancellation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on((uint32_t[]){1, 2, 8}[i], mixes_itself, NULL), 0);
}

static atomic_int mixtures_over;

static intptr_t mixture_in_its_task(void *arg)
{
    struct mixture mix;
    intptr_t result;

    open_mixture(&mix, -1);
    result = arg ? weft_await(spawn(mixture_main, &mix)) : mixture_main(&mix);
    must(result == -ECANCELED || result == mix.point);
    close_mixture(&mix);
    atomic_fetch_add(&mixtures_over, 1);
    return result;
}

static intptr_t mixes_with_others(void *arg)
{
    enum { AT_ONCE = 8 };
    weft_task *tasks[AT_ONCE];
    uint64_t random = 88172645463325252u ^ (uintptr_t)arg;
    weft_stats stats;

    for (int round = 0; round < FEWER(300); round++) {
        for (int i = 0; i < AT_ONCE; i++)
            tasks[i] = spawn(mixture_in_its_task, i % 2 ? &random : NULL);
        for (int i = 0; i < AT_ONCE; i++) {
            uint64_t number = draw(&random);

            if (number % 3 == 0)
                must_be(weft_sleep((int64_t)(number >> 8) % WEFT_US(200)), 0);
            else
                yield_times((int)(number >> 8) % 6);
            weft_cancel(tasks[i]);
        }
        for (int i = 0; i < AT_ONCE; i++)
            weft_await(tasks[i]);
    }
    weft_runtime_stats(weft_runtime_current(), &stats);
    must(stats.stacks <=
         SUPPORT_WARM_STACKS * (weft_runtime_workers(weft_runtime_current()) + stats.spare_threads));
    return 0;
}

static void cancelled_by_others_at_any_time_a_mixture_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on((uint32_t[]){1, 2, 8}[i], mixes_with_others, NULL), 0);
}

/* ---- from a thread outside ---- */

static void a_thread_outside_cancels(void **state)
{
    weft_config config = {.workers = 2};
    weft_runtime *runtime;

    (void)state;
    assert_int_equal(weft_runtime_start(&config, &runtime), 0);
    for (int i = 0; i < FEWER(2000); i++) {
        weft_task *task = weft_runtime_spawn(runtime, sleep_for_ever, NULL);

        assert_non_null(task);
        if (i % 3 == 0)
            nap(WEFT_US(50));
        assert_int_equal(weft_cancel(task), 1);
        assert_int_equal(weft_await(task), -ECANCELED);
    }
    settle(runtime);
    assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_before_it_starts_a_task_never_runs),
        cmocka_unit_test(cancelling_what_is_over_changes_nothing),
        cmocka_unit_test(whatever_it_waits_for_a_cancelled_task_stops_waiting),
        cmocka_unit_test(every_suspension_point_says_so_until_it_is_taken_back),
        cmocka_unit_test(cancelling_an_awaiter_cancels_the_awaited_in_place_and_elsewhere),
        cmocka_unit_test(a_cancelled_task_never_starts_what_it_awaits),
        cmocka_unit_test(a_result_that_is_there_is_returned_to_a_cancelled_awaiter),
        cmocka_unit_test(a_mask_shelters_the_task_and_what_it_awaits),
        cmocka_unit_test(a_cancelled_read_loses_no_data),
        cmocka_unit_test(at_every_suspension_point_cancellation_leaves_nothing_behind),
        cmocka_unit_test(cancelled_by_others_at_any_time_a_mixture_leaves_nothing_behind),
        cmocka_unit_test(a_thread_outside_cancels),
    };

    return run_all(tests, argc, argv);
}
