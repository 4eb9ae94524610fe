/* weft_queue: orders, hand-over, accounting of what is unfinished, shutting down, cancellation and deadlines at every
 * point, tasks mixed with threads. */
#include "races.h"

#include <sys/resource.h>

static const enum weft_queue_order orders[] = {WEFT_QUEUE_FIFO, WEFT_QUEUE_LIFO, WEFT_QUEUE_PRIORITY};
static const uint32_t few_workers[] = {1, 2, 8};

static int compare_numbers(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Never an order: then arrival decides. */
static int compare_nothing(const void *a, const void *b)
{
    (void)a, (void)b;
    return 0;
}

static weft_queue *queue_of(enum weft_queue_order order, size_t size, size_t capacity, weft_queue_compare *compare)
{
    weft_queue *queue = weft_queue_new(order, size, capacity, order == WEFT_QUEUE_PRIORITY ? compare : NULL);

    must(queue != NULL);
    return queue;
}

/* ---- without waiting ---- */

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_null(weft_queue_new(WEFT_QUEUE_FIFO, 8, 0, NULL));
    assert_null(weft_queue_new(WEFT_QUEUE_FIFO, 8, 1, compare_numbers));
    assert_null(weft_queue_new(WEFT_QUEUE_LIFO, 8, 1, compare_numbers));
    assert_null(weft_queue_new(WEFT_QUEUE_PRIORITY, 8, 1, NULL));
    assert_null(weft_queue_new((enum weft_queue_order)3, 8, 1, NULL));
    assert_null(weft_queue_new(WEFT_QUEUE_FIFO, SIZE_MAX, 1, NULL));
    assert_null(weft_queue_new(WEFT_QUEUE_PRIORITY, PTRDIFF_MAX, 1, compare_numbers));
    weft_queue_free(NULL);
}

static void each_order_keeps_its_promise(void **state)
{
    const size_t sizes[] = {1, 3, 4, 8, 12, 16, 24, 5000};
    unsigned char in[5000], out[5000];

    (void)state;
    for (size_t i = 0; i < 3 * sizeof sizes / sizeof *sizes; i++) {
        enum weft_queue_order order = orders[i % 3];
        size_t size = sizes[i / 3];
        weft_queue *queue = queue_of(order, size, 5, compare_nothing);

        for (int round = 0; round < 7; round++) {
            for (int item = 0; item < 5; item++) {
                memset(in, round * 16 + item, sizeof in);
                assert_int_equal(weft_queue_try_put(queue, in), 0);
                assert_int_equal(weft_queue_len(queue), item + 1);
            }
            assert_int_equal(weft_queue_try_put(queue, in), -EAGAIN);
            for (int item = 0; item < 5 - round % 2; item++) {
                memset(in, round * 16 + (order == WEFT_QUEUE_LIFO ? 4 - item : item), sizeof in);
                assert_int_equal(weft_queue_try_get(queue, out), 0);
                assert_memory_equal(in, out, size);
            }
            while (weft_queue_try_get(queue, out) == 0)
                ;
            assert_int_equal(weft_queue_try_get(queue, out), -EAGAIN);
            assert_int_equal(weft_queue_len(queue), 0);
        }
        weft_queue_free(queue);
    }
}

static void items_without_size_are_counted(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        weft_queue *queue = queue_of(orders[i], 0, 3, compare_nothing);

        for (int n = 0; n < 3; n++)
            assert_int_equal(weft_queue_put(queue, NULL), 0);
        assert_int_equal(weft_queue_try_put(queue, NULL), -EAGAIN);
        for (int n = 0; n < 3; n++)
            assert_int_equal(weft_queue_get(queue, NULL), 0);
        assert_int_equal(weft_queue_try_get(queue, NULL), -EAGAIN);
        weft_queue_free(queue);
        queue = queue_of(orders[i], 0, WEFT_CHAN_UNBOUNDED, compare_nothing);
        for (int n = 0; n < 100; n++)
            assert_int_equal(weft_queue_try_put(queue, NULL), 0);
        assert_int_equal(weft_queue_len(queue), 100);
        weft_queue_free(queue);
    }
}

static void a_queue_grows_keeps_its_order_and_is_used_again(void **state)
{
    const size_t capacities[] = {WEFT_CHAN_UNBOUNDED, 20000};

    (void)state;
    for (int i = 0; i < 6; i++) {
        enum weft_queue_order order = orders[i % 3];
        weft_queue *queue = queue_of(order, sizeof(int64_t), capacities[i / 3], compare_nothing);
        int64_t in = 0, out = 0, item;

        for (int burst = 1; burst < 20000; burst *= 3) {
            for (int n = 0; n < burst; n++, in++)
                assert_int_equal(weft_queue_put(queue, &in), 0);
            for (int n = 0; n < burst / 2 && order != WEFT_QUEUE_LIFO; n++, out++) {
                assert_int_equal(weft_queue_try_get(queue, &item), 0);
                assert_int_equal(item, out);
            }
            for (int64_t last = in; order == WEFT_QUEUE_LIFO && weft_queue_len(queue) > 0;) {
                assert_int_equal(weft_queue_try_get(queue, &item), 0);
                assert_int_equal(item, --last);
            }
            for (; burst % 2 && weft_queue_len(queue) > 0; out++) {
                assert_int_equal(weft_queue_try_get(queue, &item), 0);
                assert_int_equal(item, out);
            }
        }
        assert_int_equal(weft_queue_put(queue, &in), 0);
        weft_queue_free(queue); /* with items in it */
    }
}

/* Items of several sizes: what is compared, and what tells them apart. */
struct wide {
    int64_t priority;
    int64_t number;
    int64_t more[2];
};

static int compare_long_doubles(const void *a, const void *b)
{
    long double x = *(const long double *)a, y = *(const long double *)b; /* aligned, or a sanitizer says so */

    return (x > y) - (x < y);
}

static void equal_priorities_are_served_in_order_of_arrival(void **state)
{
    enum { ITEMS = 3000, PRIORITIES = 20 };
    static int64_t arrived[PRIORITIES], left[PRIORITIES];
    weft_queue *queue = queue_of(WEFT_QUEUE_PRIORITY, sizeof(struct wide), WEFT_CHAN_UNBOUNDED, compare_numbers);
    uint64_t seed = 12345;

    (void)state;
    for (int step = 0; step < 2 * ITEMS || weft_queue_len(queue) > 0; step++) {
        struct wide item = {0};

        if (step < 2 * ITEMS && draw(&seed) % 3 != 0) {
            item.priority = (int64_t)(draw(&seed) % PRIORITIES);
            item.number = arrived[item.priority]++;
            assert_int_equal(weft_queue_try_put(queue, &item), 0);
        } else if (weft_queue_try_get(queue, &item) == 0) {
            for (int64_t better = 0; better < item.priority; better++)
                assert_int_equal(arrived[better], left[better]);
            assert_int_equal(item.number, left[item.priority]++);
        }
    }
    assert_memory_equal(arrived, left, sizeof left);
    weft_queue_free(queue);
}

static void prioritised_items_are_aligned(void **state)
{
    weft_queue *queue = queue_of(WEFT_QUEUE_PRIORITY, sizeof(long double), 100, compare_long_doubles);

    (void)state;
    for (int i = 0; i < 100; i++) {
        long double item = (long double)(i * 37 % 100);

        assert_int_equal(weft_queue_try_put(queue, &item), 0);
    }
    for (int i = 0; i < 100; i++) {
        long double item;

        assert_int_equal(weft_queue_try_get(queue, &item), 0);
        assert_true(item == (long double)i);
    }
    weft_queue_free(queue);
}

static void a_put_without_memory_changes_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        weft_queue *queue = queue_of(orders[i], PTRDIFF_MAX / 4, 100, compare_nothing);
        char item = 0;

        assert_int_equal(weft_queue_put(queue, &item), -ENOMEM);
        assert_int_equal(weft_queue_try_put(queue, &item), -ENOMEM);
        assert_int_equal(weft_queue_len(queue), 0);
        assert_int_equal(weft_queue_task_done(queue), -EINVAL);
        assert_int_equal(weft_queue_join(queue), 0);
        weft_queue_free(queue);
    }
}

enum { BIG = 1 << 20, ROOM = 100 * BIG };

/* In a child, which has not much memory: fill the queue until there is none left, and empty it. */
static void fill_all_memory(void *arg)
{
    enum weft_queue_order order = *(const enum weft_queue_order *)arg;
    weft_queue *queue = queue_of(order, BIG, WEFT_CHAN_UNBOUNDED, compare_nothing);
    const struct rlimit limit = {ROOM, ROOM};
    unsigned char *item = calloc(1, BIG);
    int puts = 0, rc;

    must(item != NULL);
    must_be(setrlimit(RLIMIT_AS, &limit), 0);
    for (; (rc = weft_queue_put(queue, item)) == 0; puts++)
        item[0] = item[BIG - 1] = (unsigned char)(puts + 1);
    must_be(rc, -ENOMEM);
    must(puts >= 8 && puts < 100);
    must_be(weft_queue_try_put(queue, item), -ENOMEM);
    must_be(weft_queue_len(queue), puts);
    for (int i = 0; i < puts; i++) {
        must_be(weft_queue_get(queue, item), 0);
        must_be(item[0], order == WEFT_QUEUE_LIFO ? puts - 1 - i : i);
        must_be(item[BIG - 1], item[0]);
        must_be(weft_queue_task_done(queue), 0);
    }
    must_be(weft_queue_task_done(queue), -EINVAL);
    must_be(weft_queue_put(queue, item), 0);
    weft_queue_free(queue);
    free(item);
}

static void what_is_in_a_queue_survives_a_lack_of_memory(void **state)
{
    char text[1000];

    (void)state;
    if (SUPPORT_SANITIZED || getenv("WEFT_TEST_EMULATED"))
        skip();
    for (int i = 0; i < 3; i++) {
        enum weft_queue_order order = orders[i];
        int status = run_in_child(fill_all_memory, &order, text, sizeof text);

        assert_string_equal(text, "");
        assert_int_equal(status, 0);
    }
}

static void only_what_was_taken_can_be_done(void **state)
{
    weft_queue *queue = queue_of(WEFT_QUEUE_FIFO, sizeof(int), 2, NULL);
    int item = 1;

    (void)state;
    assert_int_equal(weft_queue_task_done(queue), -EINVAL);
    assert_int_equal(weft_queue_join(queue), 0);
    assert_int_equal(weft_queue_put(queue, &item), 0);
    assert_int_equal(weft_queue_put(queue, &item), 0);
    assert_int_equal(weft_queue_task_done(queue), -EINVAL);
    assert_int_equal(weft_queue_get(queue, &item), 0);
    assert_int_equal(weft_queue_task_done(queue), 0);
    assert_int_equal(weft_queue_task_done(queue), -EINVAL);
    assert_int_equal(weft_queue_get(queue, &item), 0);
    assert_int_equal(weft_queue_task_done(queue), 0);
    assert_int_equal(weft_queue_task_done(queue), -EINVAL);
    assert_int_equal(weft_queue_join(queue), 0);
    weft_queue_free(queue);
}

static void a_queue_that_was_shut_down_drains(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        weft_queue *queue = queue_of(orders[i], sizeof(int64_t), 3, compare_numbers);
        int64_t item = 5;

        assert_int_equal(weft_queue_put(queue, &item), 0);
        assert_int_equal(weft_queue_put(queue, &item), 0);
        assert_int_equal(weft_queue_shutdown(queue, 0), 0);
        assert_int_equal(weft_queue_shutdown(queue, 0), 0);
        assert_int_equal(weft_queue_put(queue, &item), -ESHUTDOWN);
        assert_int_equal(weft_queue_try_put(queue, &item), -ESHUTDOWN);
        assert_int_equal(weft_queue_get(queue, &item), 0);
        assert_int_equal(weft_queue_len(queue), 1);
        assert_int_equal(weft_queue_try_get(queue, &item), 0);
        assert_int_equal(weft_queue_get(queue, &item), -ESHUTDOWN);
        assert_int_equal(weft_queue_try_get(queue, &item), -ESHUTDOWN);
        assert_int_equal(weft_queue_task_done(queue), 0);
        assert_int_equal(weft_queue_task_done(queue), 0);
        assert_int_equal(weft_queue_task_done(queue), -EINVAL);
        assert_int_equal(weft_queue_join(queue), 0);
        weft_queue_free(queue);
    }
}

static void what_is_dropped_counts_as_done(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        weft_queue *queue = queue_of(orders[i % 3], sizeof(int64_t), 2000, compare_numbers);
        int64_t item = 5;

        for (int n = 0; n < 2000; n++)
            assert_int_equal(weft_queue_put(queue, &item), 0);
        assert_int_equal(weft_queue_get(queue, &item), 0);
        if (i >= 3)
            assert_int_equal(weft_queue_shutdown(queue, 0), 0);
        assert_int_equal(weft_queue_shutdown(queue, 1), 0);
        assert_int_equal(weft_queue_len(queue), 0);
        assert_int_equal(weft_queue_get(queue, &item), -ESHUTDOWN);
        assert_int_equal(weft_queue_put(queue, &item), -ESHUTDOWN);
        assert_int_equal(weft_queue_task_done(queue), 0);
        assert_int_equal(weft_queue_task_done(queue), -EINVAL);
        assert_int_equal(weft_queue_join(queue), 0);
        weft_queue_free(queue);
    }
}

/* ---- who waits, on one worker, where a yield lets everybody else run until it waits ---- */

static weft_queue *shared;

static intptr_t get_one(void *arg)
{
    int64_t item = -1;
    int rc = weft_queue_get(shared, &item);

    (void)arg;
    return rc < 0 ? rc : (intptr_t)item;
}

static intptr_t put_one(void *arg)
{
    int64_t item = (int64_t)(intptr_t)arg;

    return weft_queue_put(shared, &item);
}

static intptr_t join_shared(void *arg)
{
    (void)arg;
    return weft_queue_join(shared);
}

static void spawn_all(weft_task **tasks, int n, weft_fn *fn)
{
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(fn, (void *)(intptr_t)i)) != NULL);
    must_be(weft_yield(), 0);
}

static intptr_t serve_getters(void *arg)
{
    weft_task *tasks[5];

    shared = arg;
    spawn_all(tasks, 5, get_one);
    for (int64_t item = 100; item < 105; item++)
        must_be(weft_queue_put(shared, &item), 0);
    must_be(weft_queue_len(shared), 0);
    for (int i = 0; i < 5; i++) {
        must_be(weft_await(tasks[i]), 100 + i);
        must_be(weft_queue_task_done(shared), 0);
    }
    must_be(weft_queue_task_done(shared), -EINVAL);
    return 0;
}

static intptr_t serve_putters(void *arg)
{
    int64_t item = 50;
    weft_task *tasks[5];

    shared = arg;
    must_be(weft_queue_put(shared, &item), 0);
    spawn_all(tasks, 5, put_one);
    must_be(weft_queue_len(shared), 1);
    for (int i = 0; i < 6; i++) {
        must_be(weft_queue_try_get(shared, &item), 0);
        must_be(item, i == 0 ? 50 : i - 1);
        must_be(weft_queue_len(shared), i < 5);
        must_be(weft_queue_task_done(shared), i < 6 ? 0 : -EINVAL);
    }
    must_be(weft_queue_try_get(shared, &item), -EAGAIN);
    for (int i = 0; i < 5; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

/* In a queue of one, every order comes to the order of the putters. */
static void on_each_order(weft_fn *fn, size_t capacity)
{
    for (int i = 0; i < 3; i++) {
        weft_queue *queue = queue_of(orders[i], sizeof(int64_t), capacity, compare_numbers);

        must_be(run_alone(fn, queue), 0);
        weft_queue_free(queue);
    }
}

static void getters_are_served_in_order(void **state)
{
    (void)state;
    on_each_order(serve_getters, 3);
}

static void putters_are_served_in_order(void **state)
{
    (void)state;
    on_each_order(serve_putters, 1);
}

static intptr_t getter_gives_up(void *arg)
{
    weft_task *tasks[3];

    shared = arg;
    for (int who = 0; who < 3; who++) {
        int64_t item = 70;

        spawn_all(tasks, 3, get_one);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        for (int i = 0; i < 3; i++) {
            if (i == who)
                continue;
            must_be(weft_queue_put(shared, &item), 0);
            must_be(weft_await(tasks[i]), item++);
        }
        must_be(weft_queue_len(shared), 0);
    }
    return 0;
}

static void a_cancelled_getter_takes_nothing(void **state)
{
    (void)state;
    on_each_order(getter_gives_up, 3);
}

static intptr_t putter_gives_up(void *arg)
{
    weft_task *tasks[3];
    int64_t item = 9;

    shared = arg;
    for (int who = 0; who < 3; who++) {
        must_be(weft_queue_put(shared, &item), 0);
        spawn_all(tasks, 3, put_one);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        must_be(weft_queue_get(shared, &item), 0);
        for (int i = 0; i < 3; i++) {
            if (i == who)
                continue;
            must_be(weft_await(tasks[i]), 0);
            must_be(weft_queue_get(shared, &item), 0);
            must_be(item, i);
        }
        must_be(weft_queue_try_get(shared, &item), -EAGAIN);
    }
    return 0;
}

static void what_a_cancelled_putter_holds_is_not_put(void **state)
{
    (void)state;
    on_each_order(putter_gives_up, 1);
}

static intptr_t cancelled_at_the_hand_over(void *arg)
{
    weft_task *task;
    int64_t item = 7;

    shared = arg;
    spawn_all(&task, 1, get_one);
    must_be(weft_queue_put(shared, &item), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), 7);
    must_be(weft_queue_len(shared), 0);

    must_be(weft_queue_put(shared, &item), 0);
    spawn_all(&task, 1, put_one);
    must_be(weft_queue_get(shared, &item), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), 0);
    must_be(weft_queue_get(shared, &item), 0);
    must_be(item, 0);

    spawn_all(&task, 1, get_one);
    must_be(weft_cancel(task), 1);
    must_be(weft_queue_put(shared, &item), 0); /* it has not run yet, and is still in the list */
    item = weft_await(task);
    must(item == 0 || item == -ECANCELED);
    return weft_queue_try_get(shared, &item) == (item == 0 ? -EAGAIN : 0) ? 0 : 1;
}

static void who_is_cancelled_at_the_hand_over_has_had_it(void **state)
{
    (void)state;
    on_each_order(cancelled_at_the_hand_over, 1);
}

static intptr_t late_or_cancelled(void *arg)
{
    weft_timeout scope;
    int64_t item = 3;

    shared = arg;
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_queue_get(shared, &item), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_queue_put(shared, &item), 0);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_queue_put(shared, &item), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_queue_join(shared), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_queue_get(shared, &item), -ECANCELED);
    must_be(weft_queue_put(shared, &item), -ECANCELED);
    must_be(weft_queue_join(shared), -ECANCELED);
    must_be(weft_queue_len(shared), 1);
    must_be(weft_uncancel(), 1);
    must_be(weft_queue_get(shared, &item), 0);
    must_be(weft_queue_task_done(shared), 0);
    return weft_queue_join(shared);
}

static void a_deadline_or_a_cancellation_ends_the_wait(void **state)
{
    (void)state;
    on_each_order(late_or_cancelled, 1);
}

static intptr_t shut_down_on_waiters(void *arg)
{
    weft_task *getters[3], *putters[3], *joiner;
    int64_t item = 1;

    (void)arg;
    for (int drop = 0; drop < 2; drop++) {
        for (int i = 0; i < 3; i++) {
            shared = queue_of(orders[i], sizeof item, 1, compare_numbers);
            spawn_all(getters, 3, get_one);
            must_be(weft_queue_shutdown(shared, drop), 0);
            for (int n = 0; n < 3; n++)
                must_be(weft_await(getters[n]), -ESHUTDOWN);
            weft_queue_free(shared);

            shared = queue_of(orders[i], sizeof item, 1, compare_numbers);
            must_be(weft_queue_put(shared, &item), 0);
            spawn_all(putters, 3, put_one);
            spawn_all(&joiner, 1, join_shared);
            must_be(weft_queue_shutdown(shared, drop), 0);
            for (int n = 0; n < 3; n++)
                must_be(weft_await(putters[n]), -ESHUTDOWN);
            must_be(weft_queue_len(shared), drop ? 0 : 1);
            if (!drop) {
                must_be(weft_queue_get(shared, &item), 0);
                must_be(weft_queue_task_done(shared), 0);
            }
            must_be(weft_await(joiner), 0);
            weft_queue_free(shared);
        }
    }
    return 0;
}

static void shutting_down_ends_every_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(shut_down_on_waiters, NULL), 0);
}

static intptr_t joiners_come_and_go(void *arg)
{
    weft_task *joiners[3], *late;
    int64_t item = 1;

    shared = arg;
    must_be(weft_queue_put(shared, &item), 0);
    must_be(weft_queue_put(shared, &item), 0);
    spawn_all(joiners, 3, join_shared);
    must_be(weft_cancel(joiners[1]), 1);
    must_be(weft_await(joiners[1]), -ECANCELED);
    must_be(weft_queue_get(shared, &item), 0);
    must_be(weft_queue_task_done(shared), 0);
    must_be(weft_queue_get(shared, &item), 0);
    must_be(weft_queue_task_done(shared), 0);
    /* Again something to do, before those that were released have run. */
    must_be(weft_queue_put(shared, &item), 0);
    must_be(weft_cancel(joiners[0]), 1);
    must_be(weft_await(joiners[0]), 0);
    must_be(weft_await(joiners[2]), 0);
    spawn_all(&late, 1, join_shared);
    /* A drop releases once what was taken is done, not before. */
    must_be(weft_queue_get(shared, &item), 0);
    must_be(weft_queue_put(shared, &item), 0);
    must_be(weft_queue_shutdown(shared, 1), 0);
    must_be(weft_cancel(late), 1);
    must_be(weft_await(late), -ECANCELED);
    spawn_all(&late, 1, join_shared);
    must_be(weft_queue_task_done(shared), 0);
    return weft_await(late);
}

static void joiners_wait_for_all_that_was_put(void **state)
{
    (void)state;
    on_each_order(joiners_come_and_go, 5);
}

/* ---- cancellation at every point, with exact accounting ---- */

enum { PUTTERS = 3, GETTERS = 3, ITEMS_EACH = 4, ITEMS = PUTTERS * ITEMS_EACH, ROUNDS = 5000 };

struct round {
    weft_queue *queue;
    _Atomic int puts[ITEMS];
    _Atomic int gets[ITEMS];
};

struct member {
    struct round *round;
    int64_t index;
};

static intptr_t put_several(void *arg)
{
    struct member *member = arg;

    for (int64_t i = 0; i < ITEMS_EACH; i++) {
        int64_t item = member->index * ITEMS_EACH + i;
        int rc = weft_queue_put(member->round->queue, &item);

        if (rc < 0)
            return rc;
        member->round->puts[item]++;
    }
    return 0;
}

static intptr_t get_several(void *arg)
{
    struct round *round = ((struct member *)arg)->round;
    int64_t item;
    int rc;

    while ((rc = weft_queue_get(round->queue, &item)) == 0) {
        round->gets[item]++;
        must_be(weft_queue_task_done(round->queue), 0);
    }
    return rc;
}

static void check_accounts(struct round *round, int drop)
{
    int64_t item;

    while (weft_queue_try_get(round->queue, &item) == 0) {
        must(!drop);
        round->gets[item]++;
        must_be(weft_queue_task_done(round->queue), 0);
    }
    for (int i = 0; i < ITEMS; i++) {
        must(round->puts[i] <= 1);
        must(drop ? round->gets[i] <= round->puts[i] : round->gets[i] == round->puts[i]);
    }
    must_be(weft_queue_join(round->queue), 0);
    must_be(weft_queue_task_done(round->queue), -EINVAL);
}

static void play(uint64_t *seed, int number)
{
    static const size_t capacities[] = {1, 2, WEFT_CHAN_UNBOUNDED};
    struct member members[PUTTERS + GETTERS];
    weft_task *tasks[PUTTERS + GETTERS];
    struct round round = {0};
    int drop = number % 4 == 3;

    round.queue = queue_of(orders[number % 3], sizeof(int64_t), capacities[number / 3 % 3], compare_numbers);
    for (int i = 0; i < PUTTERS + GETTERS; i++) {
        members[i] = (struct member){&round, i < PUTTERS ? i : 0};
        must((tasks[i] = weft_spawn(i < PUTTERS ? put_several : get_several, &members[i])) != NULL);
    }
    for (int n = (int)(draw(seed) % 5); n > 0; n--) {
        for (int pause = (int)(draw(seed) % 4); pause > 0; pause--)
            must_be(weft_yield(), 0);
        weft_cancel(tasks[draw(seed) % (PUTTERS + GETTERS)]);
    }
    must_be(weft_queue_shutdown(round.queue, drop), 0);
    for (int i = 0; i < PUTTERS + GETTERS; i++) {
        intptr_t rc = weft_await(tasks[i]);

        must(rc == -ECANCELED || rc == -ESHUTDOWN || (rc == 0 && i < PUTTERS));
    }
    check_accounts(&round, drop);
    weft_queue_free(round.queue);
}

static intptr_t play_all(void *arg)
{
    uint64_t seed = wanted_seed();

    (void)arg;
    for (int number = 0; number < FEWER(ROUNDS); number++)
        play(&seed, number);
    return 0;
}

static void no_item_is_lost_or_taken_twice_whoever_is_cancelled(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on(few_workers[i], play_all, NULL), 0);
}

/* ---- a queue that is freed by whoever is told that all is done ---- */

static intptr_t work_off(void *arg)
{
    weft_queue *queue = arg;
    int64_t item;

    must_be(weft_queue_get(queue, &item), 0);
    must_be(weft_queue_task_done(queue), 0);
    return 0;
}

static intptr_t join_and_free(void *arg)
{
    (void)arg;
    for (int round = 0; round < FEWER(ROUNDS); round++) {
        weft_queue *queue = queue_of(orders[round % 3], sizeof(int64_t), WEFT_CHAN_UNBOUNDED, compare_numbers);

        for (int64_t item = 0; item < 3; item++)
            must_be(weft_queue_put(queue, &item), 0);
        for (int i = 0; i < 3; i++)
            must_be(weft_go(work_off, queue), 0);
        must_be(weft_queue_join(queue), 0);
        must_be(weft_queue_len(queue), 0);
        weft_queue_free(queue);
    }
    return 0;
}

static void a_joiner_may_free_the_queue_at_once(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on(few_workers[i], join_and_free, NULL), 0);
}

/* ---- tasks and threads ---- */

enum { TRAFFIC = 6000, ENDS = 3 };

static _Atomic int64_t sum, taken;

static intptr_t put_traffic(void *arg)
{
    for (int64_t item = 1; item <= FEWER(TRAFFIC); item++)
        must_be(weft_queue_put(arg, &item), 0);
    return 0;
}

static intptr_t get_traffic(void *arg)
{
    int64_t item;

    while (weft_queue_get(arg, &item) == 0) {
        sum += item;
        taken++;
        must_be(weft_queue_task_done(arg), 0);
    }
    return 0;
}

static void *put_in_thread(void *arg)
{
    return (void *)put_traffic(arg);
}

static void *get_in_thread(void *arg)
{
    return (void *)get_traffic(arg);
}

static intptr_t traffic(void *queue)
{
    weft_task *putters[ENDS], *getters[ENDS];
    pthread_t threads[2];

    sum = taken = 0;
    must_be(pthread_create(&threads[0], NULL, put_in_thread, queue), 0);
    must_be(pthread_create(&threads[1], NULL, get_in_thread, queue), 0);
    for (int i = 0; i < ENDS; i++) {
        must((putters[i] = weft_spawn(put_traffic, queue)) != NULL);
        must((getters[i] = weft_spawn(get_traffic, queue)) != NULL);
    }
    for (int i = 0; i < ENDS; i++)
        must_be(weft_await(putters[i]), 0);
    must_be(pthread_join(threads[0], NULL), 0);
    must_be(weft_queue_join(queue), 0);
    must_be(taken, (ENDS + 1) * FEWER(TRAFFIC));
    must_be(sum, (int64_t)(ENDS + 1) * FEWER(TRAFFIC) * (FEWER(TRAFFIC) + 1) / 2);
    must_be(weft_queue_shutdown(queue, 0), 0);
    for (int i = 0; i < ENDS; i++)
        must_be(weft_await(getters[i]), 0);
    must_be(pthread_join(threads[1], NULL), 0);
    return 0;
}

static void tasks_and_threads_hand_every_item_out_once(void **state)
{
    const size_t capacities[] = {1, 100, WEFT_CHAN_UNBOUNDED};

    (void)state;
    for (int i = 0; i < 9; i++) {
        weft_queue *queue = queue_of(orders[i / 3], sizeof(int64_t), capacities[i % 3], compare_numbers);

        assert_int_equal(run_on(few_workers[(i + i / 3) % 3], traffic, queue), 0);
        weft_queue_free(queue);
    }
}

/* ---- a wake-up on one worker against a cancellation on another ---- */

static void new_queue(void *arg)
{
    (void)arg;
    shared = queue_of(WEFT_QUEUE_FIFO, sizeof(int64_t), 1, NULL);
}

static void new_full_queue(void *arg)
{
    int64_t item = 5;

    new_queue(arg);
    must_be(weft_queue_put(shared, &item), 0);
}

static void put_seven(void *arg)
{
    int64_t item = 7;

    (void)arg;
    must_be(weft_queue_put(shared, &item), 0);
}

static void one_has_the_item(void *arg, const intptr_t *results)
{
    int64_t item;

    (void)arg;
    must(results[0] == 7 || results[0] == -ECANCELED);
    must_be(weft_queue_try_get(shared, &item), results[0] == 7 ? -EAGAIN : 0);
    must_be(weft_queue_task_done(shared), 0);
    must_be(weft_queue_join(shared), 0);
    weft_queue_free(shared);
}

static void get_five(void *arg)
{
    int64_t item;

    (void)arg;
    must_be(weft_queue_get(shared, &item), 0);
    must_be(item, 5);
}

static void put_or_not(void *arg, const intptr_t *results)
{
    int64_t item;

    (void)arg;
    must(results[0] == 0 || results[0] == -ECANCELED);
    must_be(weft_queue_try_get(shared, &item), results[0] == 0 ? 0 : -EAGAIN);
    must_be(weft_queue_task_done(shared), 0);
    must_be(weft_queue_task_done(shared), results[0] == 0 ? 0 : -EINVAL);
    weft_queue_free(shared);
}

static void shut_down(void *arg)
{
    (void)arg;
    must_be(weft_queue_shutdown(shared, 0), 0);
}

static void all_were_shut_out(void *arg, const intptr_t *results)
{
    (void)arg;
    for (int i = 0; i < RACE_WAITERS_MOST - 1; i++)
        must_be(results[i], -ESHUTDOWN);
    must(results[RACE_WAITERS_MOST - 1] == -ESHUTDOWN || results[RACE_WAITERS_MOST - 1] == -ECANCELED);
    weft_queue_free(shared);
}

static void do_all(void *arg)
{
    get_five(arg);
    must_be(weft_queue_task_done(shared), 0);
}

static void all_have_joined(void *arg, const intptr_t *results)
{
    weft_task *joiner;

    for (int i = 0; i < RACE_WAITERS_MOST - 1; i++)
        must_be(results[i], 0);
    must(results[RACE_WAITERS_MOST - 1] == 0 || results[RACE_WAITERS_MOST - 1] == -ECANCELED);
    /* The list of waiters has come to no harm. */
    must_be(put_one((void *)5), 0);
    spawn_all(&joiner, 1, join_shared);
    do_all(arg);
    must_be(weft_await(joiner), 0);
    weft_queue_free(shared);
}

static void a_getter_is_cancelled_while_it_is_handed_an_item(void **state)
{
    const struct race race = {1, new_queue, get_one, put_seven, one_has_the_item};

    (void)state;
    run_race(&race, NULL);
}

static void a_putter_is_cancelled_while_its_item_is_moved_in(void **state)
{
    const struct race race = {1, new_full_queue, put_one, get_five, put_or_not};

    (void)state;
    run_race(&race, NULL);
}

static void a_getter_is_cancelled_while_the_queue_is_shut_down(void **state)
{
    const struct race race = {RACE_WAITERS_MOST, new_queue, get_one, shut_down, all_were_shut_out};

    (void)state;
    run_race(&race, NULL);
}

static void a_joiner_is_cancelled_while_all_are_released(void **state)
{
    const struct race race = {RACE_WAITERS_MOST, new_full_queue, join_shared, do_all, all_have_joined};

    (void)state;
    run_race(&race, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(each_order_keeps_its_promise),
        cmocka_unit_test(items_without_size_are_counted),
        cmocka_unit_test(a_queue_grows_keeps_its_order_and_is_used_again),
        cmocka_unit_test(equal_priorities_are_served_in_order_of_arrival),
        cmocka_unit_test(prioritised_items_are_aligned),
        cmocka_unit_test(a_put_without_memory_changes_nothing),
        cmocka_unit_test(what_is_in_a_queue_survives_a_lack_of_memory),
        cmocka_unit_test(only_what_was_taken_can_be_done),
        cmocka_unit_test(a_queue_that_was_shut_down_drains),
        cmocka_unit_test(what_is_dropped_counts_as_done),
        cmocka_unit_test(getters_are_served_in_order),
        cmocka_unit_test(putters_are_served_in_order),
        cmocka_unit_test(a_cancelled_getter_takes_nothing),
        cmocka_unit_test(what_a_cancelled_putter_holds_is_not_put),
        cmocka_unit_test(who_is_cancelled_at_the_hand_over_has_had_it),
        cmocka_unit_test(a_deadline_or_a_cancellation_ends_the_wait),
        cmocka_unit_test(shutting_down_ends_every_wait),
        cmocka_unit_test(joiners_wait_for_all_that_was_put),
        cmocka_unit_test(no_item_is_lost_or_taken_twice_whoever_is_cancelled),
        cmocka_unit_test(a_joiner_may_free_the_queue_at_once),
        cmocka_unit_test(tasks_and_threads_hand_every_item_out_once),
        cmocka_unit_test(a_getter_is_cancelled_while_it_is_handed_an_item),
        cmocka_unit_test(a_putter_is_cancelled_while_its_item_is_moved_in),
        cmocka_unit_test(a_getter_is_cancelled_while_the_queue_is_shut_down),
        cmocka_unit_test(a_joiner_is_cancelled_while_all_are_released),
    };

    return run_all(tests, argc, argv);
}
