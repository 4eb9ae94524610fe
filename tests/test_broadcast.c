/* weft_broadcast: everybody gets everything, in order; who falls behind is told; closing; cancellation at every point. */
#include "races.h"

static const uint32_t few_workers[] = {1, 2, 8};

static weft_broadcast *channel_of(size_t capacity)
{
    weft_broadcast *channel = weft_broadcast_new(sizeof(int64_t), capacity);

    must(channel != NULL);
    return channel;
}

static weft_subscriber *subscribe(weft_broadcast *channel)
{
    weft_subscriber *subscriber = weft_broadcast_subscribe(channel);

    must(subscriber != NULL);
    return subscriber;
}

static void send_numbers(weft_broadcast *channel, int64_t from, int64_t to, int receivers)
{
    for (int64_t i = from; i < to; i++)
        must_be(weft_broadcast_send(channel, &i), receivers);
}

/* ---- without waiting ---- */

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_null(weft_broadcast_new(8, 0));
    assert_null(weft_broadcast_new(SIZE_MAX, 1));
    assert_null(weft_broadcast_new(SIZE_MAX / 2 + 2, 2));
    assert_null(weft_broadcast_new(8, SIZE_MAX / 8));
    assert_null(weft_broadcast_new(1, PTRDIFF_MAX));
    weft_broadcast_free(NULL);
    weft_broadcast_unsubscribe(NULL);
}

static void each_subscriber_gets_what_was_sent_after_it_came(void **state)
{
    weft_broadcast *channel = channel_of(10);
    weft_subscriber *first, *second;
    int64_t value = -1;

    (void)state;
    send_numbers(channel, 0, 3, 0);
    first = subscribe(channel);
    send_numbers(channel, 3, 5, 1);
    second = subscribe(channel);
    send_numbers(channel, 5, 8, 2);
    for (int64_t i = 3; i < 8; i++) {
        assert_int_equal(weft_broadcast_try_recv(first, &value), 0);
        assert_int_equal(value, i);
    }
    assert_int_equal(weft_broadcast_try_recv(first, &value), -EAGAIN);
    weft_broadcast_unsubscribe(first);
    send_numbers(channel, 8, 9, 1);
    for (int64_t i = 5; i < 9; i++) {
        assert_int_equal(weft_broadcast_recv(second, &value), 0);
        assert_int_equal(value, i);
    }
    assert_int_equal(weft_broadcast_try_recv(second, &value), -EAGAIN);
    assert_int_equal(value, 8);
    weft_broadcast_unsubscribe(second);
    weft_broadcast_free(channel);
}

static void who_falls_behind_is_told_how_many_it_missed(void **state)
{
    (void)state;
    for (int64_t capacity = 1; capacity < 6; capacity++) {
        weft_broadcast *channel = channel_of((size_t)capacity);
        weft_subscriber *subscriber = subscribe(channel);
        int64_t value = -1, next = 0;

        for (int64_t more = 0; more < 20; more++) {
            int64_t missed = more > capacity ? more - capacity : 0;

            send_numbers(channel, next, next + more, 1);
            if (missed > 0) {
                assert_int_equal(weft_broadcast_try_recv(subscriber, &value), missed);
                assert_int_equal(value, next - 1);
            }
            for (int64_t i = next + missed; i < next + more; i++) {
                assert_int_equal(weft_broadcast_try_recv(subscriber, &value), 0);
                assert_int_equal(value, i);
            }
            assert_int_equal(weft_broadcast_try_recv(subscriber, &value), -EAGAIN);
            next += more;
        }
        weft_broadcast_unsubscribe(subscriber);
        weft_broadcast_free(channel);
    }
}

static void a_closed_channel_drains(void **state)
{
    weft_broadcast *channel = channel_of(2);
    weft_subscriber *subscriber = subscribe(channel), *late;
    int64_t value = 0;

    (void)state;
    send_numbers(channel, 0, 3, 1);
    assert_int_equal(weft_broadcast_close(channel), 0);
    assert_int_equal(weft_broadcast_close(channel), -EALREADY);
    assert_int_equal(weft_broadcast_send(channel, &value), -EPIPE);
    late = subscribe(channel);
    assert_int_equal(weft_broadcast_recv(late, &value), -EPIPE);
    assert_int_equal(weft_broadcast_recv(subscriber, &value), 1);
    for (int64_t i = 1; i < 3; i++) {
        assert_int_equal(weft_broadcast_recv(subscriber, &value), 0);
        assert_int_equal(value, i);
    }
    assert_int_equal(weft_broadcast_recv(subscriber, &value), -EPIPE);
    assert_int_equal(weft_broadcast_try_recv(subscriber, &value), -EPIPE);
    weft_broadcast_unsubscribe(subscriber);
    weft_broadcast_unsubscribe(late);
    weft_broadcast_free(channel);
}

static void elements_without_size_are_counted(void **state)
{
    weft_broadcast *channel = weft_broadcast_new(0, 3);
    weft_subscriber *subscriber;

    (void)state;
    assert_non_null(channel);
    subscriber = subscribe(channel);
    for (int i = 0; i < 5; i++)
        assert_int_equal(weft_broadcast_send(channel, NULL), 1);
    assert_int_equal(weft_broadcast_recv(subscriber, NULL), 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(weft_broadcast_recv(subscriber, NULL), 0);
    assert_int_equal(weft_broadcast_try_recv(subscriber, NULL), -EAGAIN);
    weft_broadcast_unsubscribe(subscriber);
    weft_broadcast_free(channel);
}

/* ---- who waits, on one worker, where a yield lets everybody else run until it waits ---- */

static intptr_t receive_one(void *arg)
{
    int64_t value = -1, rc = weft_broadcast_recv(arg, &value);

    return (intptr_t)(rc == 0 ? value : rc < 0 ? rc : 1000000 + rc);
}

static weft_task *receiver(weft_subscriber *subscriber)
{
    weft_task *task = weft_spawn(receive_one, subscriber);

    must(task != NULL);
    must_be(weft_yield(), 0);
    return task;
}

static intptr_t wake_all(void *arg)
{
    weft_broadcast *channel = channel_of(2);
    weft_subscriber *subscribers[4];
    weft_task *tasks[4];

    for (int i = 0; i < 4; i++)
        subscribers[i] = subscribe(channel);
    for (int64_t sent = 1; sent < 4; sent++) {
        for (int i = 0; i < 4; i++)
            tasks[i] = receiver(subscribers[i]);
        /* More than the ring holds, before any of them has run: then it has missed some. */
        send_numbers(channel, 0, sent, 4);
        for (int i = 0; i < 4; i++)
            must_be(weft_await(tasks[i]), sent == 3 ? 1000001 : 0);
        for (int64_t n = 1; n < sent; n++)
            for (int i = 0; i < 4; i++)
                must_be(receive_one(subscribers[i]), n);
        for (int i = 0; i < 4; i++)
            must_be(weft_broadcast_try_recv(subscribers[i], tasks), -EAGAIN);
    }
    for (int i = 0; i < 4; i++)
        tasks[i] = receiver(subscribers[i]);
    must_be(weft_broadcast_close(channel), 0);
    for (int i = 0; i < 4; i++) {
        must_be(weft_await(tasks[i]), -EPIPE);
        weft_broadcast_unsubscribe(subscribers[i]);
    }
    weft_broadcast_free(channel);
    (void)arg;
    return 0;
}

static void a_send_or_the_close_wakes_all_who_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(wake_all, NULL), 0);
}

static intptr_t give_up(void *arg)
{
    weft_broadcast *channel = channel_of(4);
    weft_subscriber *subscribers[3];
    weft_task *tasks[3];
    weft_timeout scope;
    int64_t value = 0;

    for (int i = 0; i < 3; i++)
        subscribers[i] = subscribe(channel);
    for (int who = 0; who < 3; who++) {
        for (int i = 0; i < 3; i++)
            tasks[i] = receiver(subscribers[i]);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        send_numbers(channel, 7, 8, 3);
        for (int i = 0; i < 3; i++)
            must(i == who || weft_await(tasks[i]) == 7);
        must_be(receive_one(subscribers[who]), 7); /* not lost */
    }
    tasks[0] = receiver(subscribers[0]);
    send_numbers(channel, 8, 9, 3);
    must_be(weft_cancel(tasks[0]), 1); /* it was woken with an element */
    must_be(weft_await(tasks[0]), 8);
    must_be(weft_broadcast_try_recv(subscribers[0], &value), -EAGAIN);

    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_broadcast_recv(subscribers[0], &value), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    send_numbers(channel, 9, 10, 3);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_broadcast_recv(subscribers[0], &value), -ECANCELED);
    must_be(weft_uncancel(), 1);
    must_be(receive_one(subscribers[0]), 9);
    for (int i = 0; i < 3; i++)
        weft_broadcast_unsubscribe(subscribers[i]);
    weft_broadcast_free(channel);
    (void)arg;
    return 0;
}

static void who_gives_up_misses_nothing(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up, NULL), 0);
}

static intptr_t receive_twice_at_once(void *arg)
{
    weft_broadcast *channel = channel_of(4);
    weft_subscriber *subscriber = subscribe(channel);
    weft_task *task = receiver(subscriber);
    int64_t value;

    must_be(weft_broadcast_recv(subscriber, &value), -EBUSY);
    must_be(weft_broadcast_try_recv(subscriber, &value), -EBUSY);
    send_numbers(channel, 5, 6, 1);
    must_be(weft_broadcast_try_recv(subscriber, &value), -EBUSY); /* the element is for the one that waited */
    must_be(weft_await(task), 5);
    must_be(weft_broadcast_try_recv(subscriber, &value), -EAGAIN);
    task = receiver(subscriber);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    must_be(weft_broadcast_try_recv(subscriber, &value), -EAGAIN);
    weft_broadcast_unsubscribe(subscriber);
    weft_broadcast_free(channel);
    (void)arg;
    return 0;
}

static void a_second_receiver_is_refused(void **state)
{
    (void)state;
    assert_int_equal(run_alone(receive_twice_at_once, NULL), 0);
}

/* ---- at every point, with exact accounting ---- */

enum { LISTENERS = 4, ROUNDS = 5000, MOST_SENT = 12 };

struct listener {
    weft_subscriber *subscriber;
    int64_t next;
    int64_t missed;
};

/* Every element in order, or counted as missed. */
static int64_t listen_on(struct listener *listener)
{
    int64_t value = -1, rc;

    while ((rc = weft_broadcast_recv(listener->subscriber, &value)) >= 0) {
        if (rc == 0)
            must_be(value, listener->next);
        listener->missed += rc;
        listener->next += rc == 0 ? 1 : rc;
    }
    return rc;
}

static intptr_t listen_task(void *arg)
{
    return (intptr_t)listen_on(arg);
}

static void play(uint64_t *seed, int number)
{
    struct listener listeners[LISTENERS] = {0};
    weft_broadcast *channel = channel_of(number % 2 ? 2 : MOST_SENT);
    int64_t sent = (int64_t)(draw(seed) % (MOST_SENT + 1));
    weft_task *tasks[LISTENERS];

    for (int i = 0; i < LISTENERS; i++) {
        listeners[i].subscriber = subscribe(channel);
        must((tasks[i] = weft_spawn(listen_task, &listeners[i])) != NULL);
    }
    for (int64_t n = 0; n < sent; n++) {
        for (int pause = (int)(draw(seed) % 3); pause > 0; pause--)
            must_be(weft_yield(), 0);
        if (draw(seed) % 4 == 0)
            weft_cancel(tasks[draw(seed) % LISTENERS]);
        must_be(weft_broadcast_send(channel, &n), LISTENERS);
    }
    must_be(weft_broadcast_close(channel), 0);
    for (int i = 0; i < LISTENERS; i++) {
        intptr_t rc = weft_await(tasks[i]);

        must(rc == -EPIPE || rc == -ECANCELED);
        /* Where a cancelled one left off, another goes on. */
        must_be(listen_on(&listeners[i]), -EPIPE);
        must_be(listeners[i].next, sent);
        must(number % 2 || listeners[i].missed == 0);
        weft_broadcast_unsubscribe(listeners[i].subscriber);
    }
    weft_broadcast_free(channel);
}

static intptr_t play_all(void *arg)
{
    uint64_t seed = wanted_seed();

    (void)arg;
    for (int number = 0; number < FEWER(ROUNDS); number++)
        play(&seed, number);
    return 0;
}

static void every_element_is_received_or_counted_whoever_is_cancelled(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on(few_workers[i], play_all, NULL), 0);
}

/* ---- tasks and threads ---- */

enum { TRAFFIC = 20000 };

static void *listen_in_thread(void *arg)
{
    return (void *)(intptr_t)listen_on(arg);
}

static intptr_t traffic(void *arg)
{
    struct listener listeners[LISTENERS] = {0};
    weft_broadcast *channel = arg;
    weft_task *tasks[LISTENERS];
    pthread_t thread;
    void *result;

    for (int i = 0; i < LISTENERS; i++)
        listeners[i].subscriber = subscribe(channel);
    must_be(pthread_create(&thread, NULL, listen_in_thread, &listeners[0]), 0);
    for (int i = 1; i < LISTENERS; i++)
        must((tasks[i] = weft_spawn(listen_task, &listeners[i])) != NULL);
    for (int64_t n = 0; n < FEWER(TRAFFIC); n++) {
        must_be(weft_broadcast_send(channel, &n), LISTENERS);
        if (n % 16 == 0)
            must_be(weft_yield(), 0);
    }
    must_be(weft_broadcast_close(channel), 0);
    for (int i = 1; i < LISTENERS; i++)
        must_be(weft_await(tasks[i]), -EPIPE);
    must_be(pthread_join(thread, &result), 0);
    must_be((intptr_t)result, -EPIPE);
    for (int i = 0; i < LISTENERS; i++) {
        must_be(listeners[i].next, FEWER(TRAFFIC));
        weft_broadcast_unsubscribe(listeners[i].subscriber);
    }
    return 0;
}

static void tasks_and_threads_listen_side_by_side(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        weft_broadcast *channel = channel_of(64);

        assert_int_equal(run_on(few_workers[i], traffic, channel), 0);
        weft_broadcast_free(channel);
    }
}

/* ---- a send on one worker against a cancellation on another ---- */

struct crowd {
    weft_broadcast *channel;
    _Atomic int came;
    weft_subscriber *subscribers[RACE_WAITERS_MOST];
};

static void new_crowd(void *arg)
{
    struct crowd *crowd = arg;

    crowd->channel = channel_of(2);
    crowd->came = 0;
    for (int i = 0; i < RACE_WAITERS_MOST; i++)
        crowd->subscribers[i] = subscribe(crowd->channel);
}

static intptr_t receive_in_crowd(void *arg)
{
    struct crowd *crowd = arg;

    return receive_one(crowd->subscribers[crowd->came++]);
}

static void send_seven(void *arg)
{
    send_numbers(((struct crowd *)arg)->channel, 7, 8, RACE_WAITERS_MOST);
}

/* Those who have it have it once, and the one that was cancelled without it can still get it. */
static void all_have_it_once(void *arg, const intptr_t *results)
{
    struct crowd *crowd = arg;
    weft_task *again;
    int late = 0;
    int64_t value;

    for (int i = 0; i < RACE_WAITERS_MOST; i++) {
        int64_t rc = weft_broadcast_try_recv(crowd->subscribers[i], &value);

        must(rc == -EAGAIN || (rc == 0 && value == 7));
        late += rc == 0;
        must_be(weft_broadcast_try_recv(crowd->subscribers[i], &value), -EAGAIN);
        must(results[i] == 7 || (results[i] == -ECANCELED && i == RACE_WAITERS_MOST - 1));
    }
    must_be(late, results[RACE_WAITERS_MOST - 1] != 7);
    /* The list of waiters has come to no harm. */
    again = receiver(crowd->subscribers[0]);
    send_numbers(crowd->channel, 8, 9, RACE_WAITERS_MOST);
    must_be(weft_await(again), 8);
    for (int i = 0; i < RACE_WAITERS_MOST; i++)
        weft_broadcast_unsubscribe(crowd->subscribers[i]);
    weft_broadcast_free(crowd->channel);
}

static void a_receiver_is_cancelled_while_all_are_woken(void **state)
{
    const struct race race = {RACE_WAITERS_MOST, new_crowd, receive_in_crowd, send_seven, all_have_it_once};
    static struct crowd crowd;

    (void)state;
    run_race(&race, &crowd);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(each_subscriber_gets_what_was_sent_after_it_came),
        cmocka_unit_test(who_falls_behind_is_told_how_many_it_missed),
        cmocka_unit_test(a_closed_channel_drains),
        cmocka_unit_test(elements_without_size_are_counted),
        cmocka_unit_test(a_send_or_the_close_wakes_all_who_wait),
        cmocka_unit_test(who_gives_up_misses_nothing),
        cmocka_unit_test(a_second_receiver_is_refused),
        cmocka_unit_test(every_element_is_received_or_counted_whoever_is_cancelled),
        cmocka_unit_test(tasks_and_threads_listen_side_by_side),
        cmocka_unit_test(a_receiver_is_cancelled_while_all_are_woken),
    };

    return run_all(tests, argc, argv);
}
