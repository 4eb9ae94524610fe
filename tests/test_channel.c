/* weft_chan: order, hand-over, closing, cancellation and deadlines at every point, tasks mixed with threads. */
#include "support.h"

/* ---- without waiting ---- */

static void sizes_that_overflow_are_refused(void **state)
{
    const size_t half = SIZE_MAX / 2;

    (void)state;
    assert_null(weft_chan_new(SIZE_MAX, 1));
    assert_null(weft_chan_new(SIZE_MAX, 0));
    assert_null(weft_chan_new(half + 2, 2));
    assert_null(weft_chan_new(2, half + 1));
    assert_null(weft_chan_new(16, SIZE_MAX - 1));
    assert_null(weft_chan_new(8, SIZE_MAX / 8));
    assert_null(weft_chan_new(half, WEFT_CHAN_UNBOUNDED));
    weft_chan_free(NULL);
}

static void try_forms_fill_and_drain_in_order(void **state)
{
    const size_t sizes[] = {1, 3, 4, 8, 12, 16, 24, 5000};
    unsigned char in[5000], out[5000];

    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        weft_chan *chan = weft_chan_new(sizes[s], 5);

        assert_non_null(chan);
        for (int round = 0; round < 7; round++) {
            for (int i = 0; i < 5; i++) {
                memset(in, round * 16 + i, sizeof(in));
                assert_int_equal(weft_chan_try_send(chan, in), 0);
                assert_int_equal(weft_chan_len(chan), i + 1);
            }
            assert_int_equal(weft_chan_try_send(chan, in), -EAGAIN);
            for (int i = 0; i < 5 - (round % 2); i++) {
                memset(in, round * 16 + i, sizeof(in));
                assert_int_equal(weft_chan_try_recv(chan, out), 0);
                assert_memory_equal(in, out, sizes[s]);
            }
            while (weft_chan_try_recv(chan, out) == 0)
                ;
            assert_int_equal(weft_chan_try_recv(chan, out), -EAGAIN);
        }
        weft_chan_free(chan);
    }
}

static void elements_without_size_are_counted(void **state)
{
    const size_t capacities[] = {3, SIZE_MAX - 1, WEFT_CHAN_UNBOUNDED};

    (void)state;
    for (int c = 0; c < 3; c++) {
        weft_chan *chan = weft_chan_new(0, capacities[c]);

        assert_non_null(chan);
        for (int i = 0; i < 3; i++)
            assert_int_equal(weft_chan_send(chan, NULL), 0);
        assert_int_equal(weft_chan_len(chan), 3);
        assert_int_equal(weft_chan_try_send(chan, NULL), c == 0 ? -EAGAIN : 0);
        for (int i = 0; i < (c == 0 ? 3 : 4); i++)
            assert_int_equal(weft_chan_recv(chan, NULL), 0);
        assert_int_equal(weft_chan_try_recv(chan, NULL), -EAGAIN);
        weft_chan_free(chan);
    }
}

static void an_unbounded_channel_grows_and_keeps_the_order(void **state)
{
    const size_t sizes[] = {8, 3000};

    (void)state;
    for (int s = 0; s < 2; s++) {
        weft_chan *chan = weft_chan_new(sizes[s], WEFT_CHAN_UNBOUNDED);
        char element[3000] = {0};
        int64_t in = 0, out = 0, seen;

        assert_non_null(chan);
        for (int burst = 1; burst < 3000; burst *= 3) {
            for (int i = 0; i < burst; i++, in++) {
                memcpy(element, &in, sizeof(in));
                assert_int_equal(weft_chan_send(chan, element), 0);
            }
            for (int i = 0; i < burst / 2; i++, out++) {
                assert_int_equal(weft_chan_try_recv(chan, element), 0);
                memcpy(&seen, element, sizeof(seen));
                assert_int_equal(seen, out);
            }
        }
        assert_int_equal(weft_chan_len(chan), in - out);
        for (; out < in - 40; out++)
            assert_int_equal(weft_chan_recv(chan, element), 0);
        weft_chan_free(chan); /* with elements in it */
    }
}

static void a_rendezvous_takes_nothing_without_a_receiver(void **state)
{
    weft_chan *chan = weft_chan_new(sizeof(int), 0);
    int value = 1;

    (void)state;
    assert_non_null(chan);
    assert_int_equal(weft_chan_try_send(chan, &value), -EAGAIN);
    assert_int_equal(weft_chan_try_recv(chan, &value), -EAGAIN);
    assert_int_equal(weft_chan_len(chan), 0);
    weft_chan_free(chan);
}

static void a_closed_channel_drains(void **state)
{
    const size_t capacities[] = {2, WEFT_CHAN_UNBOUNDED};

    (void)state;
    for (int c = 0; c < 2; c++) {
        weft_chan *chan = weft_chan_new(sizeof(int), capacities[c]);
        int value = 5;

        assert_non_null(chan);
        assert_int_equal(weft_chan_send(chan, &value), 0);
        assert_int_equal(weft_chan_close(chan), 0);
        assert_int_equal(weft_chan_close(chan), -EALREADY);
        assert_int_equal(weft_chan_send(chan, &value), -EPIPE);
        assert_int_equal(weft_chan_try_send(chan, &value), -EPIPE);
        value = 0;
        assert_int_equal(weft_chan_recv(chan, &value), 0);
        assert_int_equal(value, 5);
        assert_int_equal(weft_chan_recv(chan, &value), -EPIPE);
        assert_int_equal(weft_chan_try_recv(chan, &value), -EPIPE);
        weft_chan_free(chan);
    }
}

/* ---- waiting, on one worker, where a yield lets everybody else run until it waits ---- */

static weft_chan *shared;
static int arrived[16];

static intptr_t send_arg(void *arg)
{
    int value = (int)(intptr_t)arg;

    return weft_chan_send(shared, &value);
}

static intptr_t recv_value(void *arg)
{
    int value = -1, rc = weft_chan_recv(shared, &value);

    (void)arg;
    must(rc == 0 || value == -1);
    return rc < 0 ? rc : value;
}

static void begin_with(size_t capacity)
{
    must((shared = weft_chan_new(sizeof(int), capacity)) != NULL);
}

static void spawn_waiting(weft_task **tasks, int n, weft_fn *fn)
{
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(fn, (void *)(intptr_t)(100 + i))) != NULL);
    must(weft_yield() == 0);
}

static int take(void)
{
    int value;

    must(weft_chan_recv(shared, &value) == 0);
    return value;
}

static void put(int value)
{
    must(weft_chan_send(shared, &value) == 0);
}

static intptr_t order_of_senders(void *arg)
{
    weft_task *tasks[6];

    (void)arg;
    for (size_t capacity = 0; capacity < 4; capacity++) {
        begin_with(capacity);
        for (size_t i = 0; i < capacity; i++)
            put((int)i);
        spawn_waiting(tasks, 6, send_arg);
        must(weft_chan_len(shared) == capacity);
        for (size_t i = 0; i < capacity; i++)
            must(take() == (int)i);
        /* Room was taken by those that wait, not left to newcomers. */
        must(weft_chan_try_send(shared, &(int){9}) == -EAGAIN);
        for (int i = 0; i < 6; i++)
            must(take() == 100 + i);
        for (int i = 0; i < 6; i++)
            must(weft_await(tasks[i]) == 0);
        must(weft_chan_try_recv(shared, arrived) == -EAGAIN);
        weft_chan_free(shared);
    }
    return 0;
}

static void senders_are_served_in_order(void **state)
{
    (void)state;
    assert_int_equal(run_alone(order_of_senders, NULL), 0);
}

static intptr_t order_of_receivers(void *arg)
{
    const size_t capacities[] = {0, 1, 3, WEFT_CHAN_UNBOUNDED};
    weft_task *tasks[6];

    (void)arg;
    for (int c = 0; c < 4; c++) {
        begin_with(capacities[c]);
        spawn_waiting(tasks, 6, recv_value);
        for (int i = 0; i < 6; i++)
            must(weft_chan_try_send(shared, &i) == 0);
        /* They went to those that wait, though these have not run yet. */
        must(weft_chan_len(shared) == 0 && weft_chan_try_recv(shared, arrived) == -EAGAIN);
        for (int i = 0; i < 6; i++)
            must(weft_await(tasks[i]) == i);
        weft_chan_free(shared);
    }
    return 0;
}

static void receivers_are_served_in_order(void **state)
{
    (void)state;
    assert_int_equal(run_alone(order_of_receivers, NULL), 0);
}

static intptr_t closing_wakes(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    begin_with(0);
    spawn_waiting(tasks, 3, recv_value);
    must(weft_chan_close(shared) == 0);
    for (int i = 0; i < 3; i++)
        must(weft_await(tasks[i]) == -EPIPE);
    weft_chan_free(shared);
    for (size_t capacity = 0; capacity < 2; capacity++) {
        begin_with(capacity);
        if (capacity == 1)
            put(1);
        spawn_waiting(tasks, 3, send_arg);
        must(weft_chan_close(shared) == 0);
        for (int i = 0; i < 3; i++)
            must(weft_await(tasks[i]) == -EPIPE);
        if (capacity == 1)
            must(take() == 1);
        must(weft_chan_recv(shared, arrived) == -EPIPE);
        weft_chan_free(shared);
    }
    return 0;
}

static void closing_wakes_both_sides(void **state)
{
    (void)state;
    assert_int_equal(run_alone(closing_wakes, NULL), 0);
}

static intptr_t cancelled_senders(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 6; who++) {
        size_t capacity = (size_t)who / 3;

        begin_with(capacity);
        if (capacity == 1)
            put(1);
        spawn_waiting(tasks, 3, send_arg);
        must(weft_cancel(tasks[who % 3]) == 1);
        must(weft_await(tasks[who % 3]) == -ECANCELED);
        if (capacity == 1)
            must(take() == 1);
        for (int i = 0; i < 3; i++)
            must(i == who % 3 || take() == 100 + i);
        for (int i = 0; i < 3; i++)
            must(i == who % 3 || weft_await(tasks[i]) == 0);
        must(weft_chan_try_recv(shared, arrived) == -EAGAIN);
        weft_chan_free(shared);
    }
    return 0;
}

static void a_cancelled_sender_has_not_sent(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_senders, NULL), 0);
}

static intptr_t cancelled_receivers(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        begin_with(1);
        spawn_waiting(tasks, 3, recv_value);
        must(weft_cancel(tasks[who]) == 1);
        must(weft_await(tasks[who]) == -ECANCELED);
        for (int i = 0; i < 3; i++)
            put(i);
        must(weft_await(tasks[who == 0]) == 0);
        must(weft_await(tasks[who == 2 ? 1 : 2]) == 1);
        must(take() == 2);
        weft_chan_free(shared);
    }
    return 0;
}

static void a_cancelled_receiver_has_taken_nothing(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_receivers, NULL), 0);
}

/* The task does its operation while it is cancelled; the next suspension point tells. */
static intptr_t recv_then_yield(void *arg)
{
    intptr_t value = recv_value(arg);

    must(weft_yield() == -ECANCELED);
    return value;
}

static intptr_t send_then_yield(void *arg)
{
    intptr_t rc = send_arg(arg);

    must(weft_yield() == -ECANCELED);
    return rc == 0 ? 50 : rc;
}

static intptr_t cancelled_at_the_grant(void *arg)
{
    weft_task *task;

    (void)arg;
    for (int variant = 0; variant < 4; variant++) {
        int cancel_first = variant & 1;
        size_t capacity = (size_t)variant / 2;

        begin_with(capacity);
        spawn_waiting(&task, 1, recv_then_yield);
        if (cancel_first)
            must(weft_cancel(task) == 1);
        must(weft_chan_try_send(shared, &(int){7}) == 0);
        must(weft_cancel(task) == 1);
        must(weft_await(task) == 7);
        if (capacity == 1)
            put(1);
        spawn_waiting(&task, 1, send_then_yield);
        if (cancel_first)
            must(weft_cancel(task) == 1);
        must(weft_chan_try_recv(shared, arrived) == 0);
        must(weft_cancel(task) == 1);
        must(weft_await(task) == 50);
        must(capacity == 1 ? take() == 100 : arrived[0] == 100);
        must(weft_chan_try_recv(shared, arrived) == -EAGAIN);
        weft_chan_free(shared);
    }
    return 0;
}

static void nothing_is_lost_when_a_waiter_is_cancelled_at_the_grant(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_at_the_grant, NULL), 0);
}

static intptr_t closed_and_cancelled(void *arg)
{
    weft_task *receiver, *sender;

    (void)arg;
    begin_with(0);
    spawn_waiting(&receiver, 1, recv_value);
    must(weft_chan_close(shared) == 0);
    must(weft_cancel(receiver) == 1);
    must(weft_await(receiver) == -EPIPE);
    weft_chan_free(shared);
    begin_with(0);
    spawn_waiting(&sender, 1, send_arg);
    must(weft_cancel(sender) == 1);
    must(weft_chan_close(shared) == 0);
    must(weft_await(sender) == -EPIPE);
    weft_chan_free(shared);
    return 0;
}

static void a_waiter_cancelled_at_the_close_hears_of_the_close(void **state)
{
    (void)state;
    assert_int_equal(run_alone(closed_and_cancelled, NULL), 0);
}

static intptr_t deadlines_and_cancelled_callers(void *arg)
{
    weft_timeout scope;

    (void)arg;
    begin_with(1);
    must(weft_timeout_begin(&scope, WEFT_MS(2)) == 0);
    must(weft_chan_recv(shared, arrived) == -ETIMEDOUT);
    must(weft_timeout_end(&scope) == 1);
    put(3);
    must(weft_timeout_begin(&scope, WEFT_MS(2)) == 0);
    must(weft_chan_send(shared, &(int){4}) == -ETIMEDOUT);
    must(weft_timeout_end(&scope) == 1);
    must(weft_cancel(weft_self()) == 1);
    must(weft_chan_recv(shared, arrived) == -ECANCELED);
    must(weft_chan_len(shared) == 1);
    must(weft_chan_try_recv(shared, arrived) == 0 && arrived[0] == 3);
    must(weft_chan_send(shared, arrived) == -ECANCELED);
    must(weft_chan_len(shared) == 0);
    must(weft_uncancel() == 1);
    weft_chan_free(shared);
    return 0;
}

static void deadlines_and_cancellation_end_a_call_without_effect(void **state)
{
    (void)state;
    assert_int_equal(run_alone(deadlines_and_cancelled_callers, NULL), 0);
}

/* ---- several at once ---- */

enum { MANY = 700 };

static void count_from(int *numbers, int n, int first)
{
    for (int i = 0; i < n; i++)
        numbers[i] = first + i;
}

static void must_count_from(const int *numbers, ssize_t n, int first)
{
    for (ssize_t i = 0; i < n; i++)
        must(numbers[i] == first + (int)i);
}

static void many_elements_go_through_in_order(void **state)
{
    const size_t capacities[] = {MANY, 1000, WEFT_CHAN_UNBOUNDED};
    int in[MANY], out[MANY + 1];

    (void)state;
    count_from(in, MANY, 0);
    for (int c = 0; c < 3; c++) {
        weft_chan *chan = weft_chan_new(sizeof(int), capacities[c]);

        assert_non_null(chan);
        assert_int_equal(weft_chan_send_many(chan, in, 0), 0);
        assert_int_equal(weft_chan_recv_many(chan, out, 0), -EINVAL);
        for (int round = 0; round < 3; round++) {
            assert_int_equal(weft_chan_send_many(chan, in, MANY), MANY);
            assert_int_equal(weft_chan_len(chan), MANY);
            assert_int_equal(weft_chan_recv_many(chan, out, 100), 100);
            must_count_from(out, 100, 0);
            assert_int_equal(weft_chan_recv_many(chan, out, MANY + 1), MANY - 100);
            must_count_from(out, MANY - 100, 100);
        }
        assert_int_equal(weft_chan_send_many(chan, in, 2), 2);
        assert_int_equal(weft_chan_close(chan), 0);
        assert_int_equal(weft_chan_send_many(chan, in, 2), -EPIPE);
        assert_int_equal(weft_chan_recv_many(chan, out, 3), 2);
        assert_int_equal(weft_chan_recv_many(chan, out, 3), -EPIPE);
        weft_chan_free(chan);
    }
}

static void a_batch_without_size_is_counted(void **state)
{
    weft_chan *chan = weft_chan_new(0, 5);
    char nothing;

    (void)state;
    assert_non_null(chan);
    assert_int_equal(weft_chan_send_many(chan, &nothing, 5), 5);
    assert_int_equal(weft_chan_recv_many(chan, &nothing, 3), 3);
    assert_int_equal(weft_chan_recv_many(chan, &nothing, 3), 2);
    weft_chan_free(chan);
}

static intptr_t send_five(void *arg)
{
    int numbers[5];

    count_from(numbers, 5, (int)(intptr_t)arg);
    return weft_chan_send_many(shared, numbers, 5);
}

static intptr_t recv_three(void *arg)
{
    int numbers[3] = {-1, -1, -1};
    ssize_t n = weft_chan_recv_many(shared, numbers, 3);

    (void)arg;
    must(n < 0 || numbers[n - 1] == numbers[0] + (int)n - 1);
    return n < 0 ? n : numbers[0] * 10 + n;
}

static intptr_t batches_and_waiters(void *arg)
{
    weft_task *tasks[3];
    int numbers[8];

    (void)arg;
    /* One batch serves all who wait, and leaves the rest. */
    begin_with(2);
    spawn_waiting(tasks, 3, recv_value);
    count_from(numbers, 8, 0);
    must(weft_chan_send_many(shared, numbers, 5) == 5);
    must(weft_chan_len(shared) == 2);
    for (int i = 0; i < 3; i++)
        must(weft_await(tasks[i]) == i);
    must(take() == 3 && take() == 4);

    /* Receiving several lets as many senders in, and takes what they bring. */
    put(0);
    put(1);
    spawn_waiting(tasks, 3, send_arg);
    must(weft_chan_recv_many(shared, numbers, 4) == 4);
    must(numbers[0] == 0 && numbers[1] == 1 && numbers[2] == 100 && numbers[3] == 101);
    must(weft_chan_len(shared) == 1 && take() == 102);
    for (int i = 0; i < 3; i++)
        must(weft_await(tasks[i]) == 0);

    /* It waits for the first, and takes what has come when it runs. */
    spawn_waiting(tasks, 1, recv_three);
    put(5);
    put(6);
    must(weft_await(tasks[0]) == 52);
    weft_chan_free(shared);

    /* A rendezvous of batches goes one by one. */
    begin_with(0);
    spawn_waiting(tasks, 1, send_five);
    for (int i = 0; i < 5; i++)
        must(take() == 100 + i);
    must(weft_await(tasks[0]) == 5);
    weft_chan_free(shared);
    return 0;
}

static void a_batch_serves_as_many_waiters(void **state)
{
    (void)state;
    assert_int_equal(run_alone(batches_and_waiters, NULL), 0);
}

static intptr_t ended_batches(void *arg)
{
    weft_task *task;
    int numbers[4];

    (void)arg;
    for (int variant = 0; variant < 4; variant++) {
        bool begun = variant % 2;

        begin_with(2);
        if (!begun) {
            put(0);
            put(1);
        }
        spawn_waiting(&task, 1, send_five);
        must(variant < 2 ? weft_cancel(task) == 1 : weft_chan_close(shared) == 0);
        must(weft_await(task) == (begun ? 2 : variant < 2 ? -ECANCELED : -EPIPE));
        must(weft_chan_recv_many(shared, numbers, 4) == 2);
        must(numbers[0] == (begun ? 100 : 0));
        must(weft_chan_try_recv(shared, numbers) == (variant < 2 ? -EAGAIN : -EPIPE));
        weft_chan_free(shared);
    }
    begin_with(2);
    spawn_waiting(&task, 1, recv_three);
    must(weft_cancel(task) == 1);
    must(weft_await(task) == -ECANCELED);
    spawn_waiting(&task, 1, recv_three);
    must(weft_chan_close(shared) == 0);
    must(weft_await(task) == -EPIPE);
    weft_chan_free(shared);
    return 0;
}

static void a_batch_that_ends_early_says_how_many_were_sent(void **state)
{
    (void)state;
    assert_int_equal(run_alone(ended_batches, NULL), 0);
}

enum { SENDERS = 3, BATCHES = 300 };

static intptr_t send_batches(void *arg)
{
    int numbers[37];

    for (int batch = 0; batch < BATCHES; batch++) {
        int n = 1 + batch % 37;

        for (int i = 0; i < n; i++)
            numbers[i] = 1 + (int)(intptr_t)arg;
        must(weft_chan_send_many(shared, numbers, (size_t)n) == n);
    }
    return 0;
}

static intptr_t recv_batches(void *arg)
{
    int numbers[50];
    intptr_t sum = 0;
    ssize_t n;

    while ((n = weft_chan_recv_many(shared, numbers, 1 + (size_t)(intptr_t)arg * 24)) > 0)
        for (ssize_t i = 0; i < n; i++)
            sum += numbers[i];
    must(n == -EPIPE);
    return sum;
}

static intptr_t crowded_batches(void *arg)
{
    const size_t capacities[] = {0, 1, 20, WEFT_CHAN_UNBOUNDED};
    intptr_t sent = 0;

    (void)arg;
    for (int batch = 0; batch < BATCHES; batch++)
        sent += (1 + batch % 37) * (SENDERS * (SENDERS + 1) / 2);
    for (int c = 0; c < 4; c++) {
        weft_task *senders[SENDERS], *receivers[3];
        intptr_t received = 0;

        begin_with(capacities[c]);
        for (int i = 0; i < 3; i++)
            must((receivers[i] = weft_spawn(recv_batches, (void *)(intptr_t)i)) != NULL);
        for (int i = 0; i < SENDERS; i++)
            must((senders[i] = weft_spawn(send_batches, (void *)(intptr_t)i)) != NULL);
        for (int i = 0; i < SENDERS; i++)
            must(weft_await(senders[i]) == 0);
        must(weft_chan_close(shared) == 0);
        for (int i = 0; i < 3; i++)
            received += weft_await(receivers[i]);
        must(received == sent);
        weft_chan_free(shared);
    }
    return 0;
}

static void batches_lose_and_double_nothing(void **state)
{
    const uint32_t workers[] = {1, 2, 8};

    (void)state;
    for (int w = 0; w < 3; w++)
        assert_int_equal(run_on(workers[w], crowded_batches, NULL), 0);
}

/* ---- tasks and threads ---- */

enum { ROUNDS = 3000 };

static weft_chan *back;

static void *echo(void *arg)
{
    int value;

    while (weft_chan_recv(shared, &value) == 0) {
        value++;
        must(weft_chan_send(back, &value) == 0);
    }
    must(weft_chan_close(back) == 0);
    return arg;
}

static intptr_t ask(void *arg)
{
    int value;

    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        put(i);
        must(weft_chan_recv(back, &value) == 0);
        must(value == i + 1);
    }
    must(weft_chan_close(shared) == 0);
    return weft_chan_recv(back, &value);
}

static void a_task_talks_to_a_thread(void **state)
{
    const size_t capacities[] = {0, 1, WEFT_CHAN_UNBOUNDED};

    (void)state;
    for (int c = 0; c < 3; c++) {
        pthread_t thread;

        shared = weft_chan_new(sizeof(int), capacities[c]);
        back = weft_chan_new(sizeof(int), capacities[c]);
        assert_true(shared != NULL && back != NULL);
        assert_int_equal(pthread_create(&thread, NULL, echo, NULL), 0);
        assert_int_equal(run_beside_threads(2, ask, NULL), -EPIPE);
        assert_int_equal(pthread_join(thread, NULL), 0);
        weft_chan_free(shared);
        weft_chan_free(back);
    }
}

static void *reply_to_what_comes(void *arg)
{
    weft_chan *reply;
    int value = 11;

    while (weft_chan_recv(shared, &reply) == 0)
        must(weft_chan_send(reply, &value) == 0);
    return arg;
}

static intptr_t ask_for_replies(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        weft_chan *reply = weft_chan_new(sizeof(int), (size_t)(i % 2));
        int value = 0;

        must(reply != NULL);
        must(weft_chan_send(shared, &reply) == 0);
        must(weft_chan_recv(reply, &value) == 0);
        must(value == 11);
        weft_chan_free(reply);
    }
    return weft_chan_close(shared);
}

static void the_receiver_of_the_last_element_may_free_the_channel(void **state)
{
    pthread_t thread;

    (void)state;
    shared = weft_chan_new(sizeof(weft_chan *), 1);
    assert_non_null(shared);
    assert_int_equal(pthread_create(&thread, NULL, reply_to_what_comes, NULL), 0);
    assert_int_equal(run_beside_threads(2, ask_for_replies, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    weft_chan_free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(try_forms_fill_and_drain_in_order),
        cmocka_unit_test(elements_without_size_are_counted),
        cmocka_unit_test(an_unbounded_channel_grows_and_keeps_the_order),
        cmocka_unit_test(a_rendezvous_takes_nothing_without_a_receiver),
        cmocka_unit_test(a_closed_channel_drains),
        cmocka_unit_test(senders_are_served_in_order),
        cmocka_unit_test(receivers_are_served_in_order),
        cmocka_unit_test(closing_wakes_both_sides),
        cmocka_unit_test(a_cancelled_sender_has_not_sent),
        cmocka_unit_test(a_cancelled_receiver_has_taken_nothing),
        cmocka_unit_test(nothing_is_lost_when_a_waiter_is_cancelled_at_the_grant),
        cmocka_unit_test(a_waiter_cancelled_at_the_close_hears_of_the_close),
        cmocka_unit_test(deadlines_and_cancellation_end_a_call_without_effect),
        cmocka_unit_test(many_elements_go_through_in_order),
        cmocka_unit_test(a_batch_without_size_is_counted),
        cmocka_unit_test(a_batch_serves_as_many_waiters),
        cmocka_unit_test(a_batch_that_ends_early_says_how_many_were_sent),
        cmocka_unit_test(batches_lose_and_double_nothing),
        cmocka_unit_test(a_task_talks_to_a_thread),
        cmocka_unit_test(the_receiver_of_the_last_element_may_free_the_channel),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
