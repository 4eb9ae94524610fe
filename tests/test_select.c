/*
 * weft_select: every kind of case, ready at once and waited for; chance; selects that meet each other; cancellation,
 * deadlines and closing at every point; tasks mixed with threads.
 */
#include <poll.h>

#include "support.h"

static weft_chan *chan_of_ints(size_t capacity)
{
    weft_chan *chan = weft_chan_new(sizeof(int), capacity);

    must(chan != NULL);
    return chan;
}

/* Nobody waits there, and it is empty. */
static void must_be_forsaken(weft_chan *chan)
{
    int value = 0;

    must_be(weft_chan_try_recv(chan, &value), -EAGAIN);
    weft_chan_free(chan);
}

/* ---- without waiting ---- */

static void misuse_is_refused(void **state)
{
    weft_case none = WEFT_CASE_RECV(NULL, NULL), promise = WEFT_CASE_PROMISE(NULL), unknown = {.kind = 77};

    (void)state;
    assert_int_equal(weft_select(NULL, 1), -EINVAL);
    assert_int_equal(weft_select(&none, 0), -EINVAL);
    assert_int_equal(weft_select(&none, SIZE_MAX), -EINVAL);
    assert_int_equal(weft_select(&none, 1), -EINVAL);
    assert_int_equal(weft_select(&promise, 1), -EINVAL);
    assert_int_equal(weft_select(&unknown, 1), -EINVAL);
    assert_int_equal(weft_try_select(&unknown, 1), -EINVAL);
}

static void the_default_is_chosen_if_nothing_is_ready(void **state)
{
    weft_chan *empty = chan_of_ints(1), *meeting = chan_of_ints(0);
    weft_event event = WEFT_EVENT_INIT;
    weft_promise promise = WEFT_PROMISE_INIT;
    int value = 3;
    weft_case cases[] = {WEFT_CASE_RECV(empty, &value),
                         WEFT_CASE_SEND(meeting, &value),
                         WEFT_CASE_RECV(meeting, &value),
                         WEFT_CASE_EVENT(&event),
                         WEFT_CASE_PROMISE(&promise),
                         WEFT_CASE_AFTER(WEFT_SEC(1)),
                         WEFT_CASE_DEFAULT};

    (void)state;
    assert_int_equal(weft_select(cases, 7), 6);
    assert_int_equal(weft_try_select(cases, 7), 6);
    assert_int_equal(weft_try_select(cases, 6), -EAGAIN);
    assert_int_equal(weft_chan_try_send(empty, &value), 0);
    value = 0;
    assert_int_equal(weft_select(cases, 7), 0);
    assert_int_equal(value, 3);
    weft_event_set(&event);
    assert_int_equal(weft_select(cases, 7), 3);
    weft_event_clear(&event);
    weft_promise_set(&promise, -7);
    assert_int_equal(weft_try_select(cases, 6), 4);
    assert_int_equal(cases[4].result, -7);
    cases[4].kind = WEFT_CASE_KIND_NONE;
    cases[5] = (weft_case)WEFT_CASE_AT(weft_now());
    assert_int_equal(weft_select(cases, 7), 5);
    must_be_forsaken(empty);
    must_be_forsaken(meeting);
}

static void closed_channels_are_ready(void **state)
{
    weft_chan *full = chan_of_ints(1), *meeting = chan_of_ints(0);
    int value = 4;
    weft_case cases[] = {WEFT_CASE_RECV(full, &value), WEFT_CASE_SEND(full, &value),
                         WEFT_CASE_RECV(meeting, &value)};

    (void)state;
    assert_int_equal(weft_chan_send(full, &value), 0);
    assert_int_equal(weft_chan_close(full), 0);
    value = 0;
    cases[1].kind = WEFT_CASE_KIND_NONE;
    assert_int_equal(weft_select(cases, 3), 0);
    assert_int_equal(cases[0].result, 0);
    assert_int_equal(value, 4);
    assert_int_equal(weft_select(cases, 3), 0);
    assert_int_equal(cases[0].result, -EPIPE);
    cases[0].kind = WEFT_CASE_KIND_NONE;
    cases[1].kind = WEFT_CASE_KIND_SEND;
    assert_int_equal(weft_select(cases, 3), 1);
    assert_int_equal(cases[1].result, -EPIPE);
    cases[1].kind = WEFT_CASE_KIND_NONE;
    assert_int_equal(weft_chan_close(meeting), 0);
    assert_int_equal(weft_select(cases, 3), 2);
    assert_int_equal(cases[2].result, -EPIPE);
    weft_chan_free(full);
    weft_chan_free(meeting);
}

enum { WIDTH = 8 };

/* Chi-square with at most 7 degrees of freedom: above 45 once in ten million runs. */
static void must_be_even(const unsigned *counts, const bool *counted, unsigned kinds, unsigned total)
{
    double expected = (double)total / kinds, sum = 0;

    for (unsigned i = 0; i < WIDTH; i++) {
        if (counted[i])
            sum += (counts[i] - expected) * (counts[i] - expected) / expected;
        else
            must_be(counts[i], 0);
    }
    must(sum < 45);
}

static void choose_many_times(const bool *ready, unsigned kinds)
{
    enum { TURNS = 16000 };
    weft_chan *chans[WIDTH];
    weft_case cases[WIDTH];
    unsigned counts[WIDTH] = {0};
    int value = 0;

    for (int i = 0; i < WIDTH; i++) {
        chans[i] = chan_of_ints(1);
        cases[i] = (weft_case)WEFT_CASE_RECV(chans[i], &value);
        if (ready[i])
            must_be(weft_chan_try_send(chans[i], &i), 0);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        int chosen = weft_select(cases, WIDTH);

        must(chosen >= 0 && chosen < WIDTH);
        must_be(value, chosen);
        counts[chosen]++;
        must_be(weft_chan_try_send(chans[chosen], &chosen), 0);
    }
    must_be_even(counts, ready, kinds, TURNS);
    for (int i = 0; i < WIDTH; i++)
        weft_chan_free(chans[i]);
}

static intptr_t choose_evenly(void *arg)
{
    const bool all[WIDTH] = {1, 1, 1, 1, 1, 1, 1, 1}, some[WIDTH] = {1, 0, 0, 1, 0, 0, 0, 1};

    (void)arg;
    choose_many_times(all, WIDTH);
    choose_many_times(some, 3);
    return 0;
}

static void ready_cases_are_equally_likely(void **state)
{
    (void)state;
    assert_int_equal(choose_evenly(NULL), 0); /* on a plain thread */
    assert_int_equal(run_alone(choose_evenly, NULL), 0);
}

/* ---- waiting, on one worker, where a yield lets everybody else run until it waits ---- */

struct call {
    weft_case *cases;
    size_t count;
};

static intptr_t do_select(void *arg)
{
    struct call *call = arg;

    return weft_select(call->cases, call->count);
}

static weft_task *begin_select(struct call *call, weft_case *cases, size_t count)
{
    weft_task *task;

    *call = (struct call){cases, count};
    task = weft_spawn(do_select, call);
    must(task != NULL);
    must_be(weft_yield(), 0);
    return task;
}

static intptr_t set_after_two_yields(void *arg)
{
    (void)arg;
    must_be(weft_yield(), 0);
    must_be(weft_yield(), 0);
    return -42;
}

static intptr_t each_kind_is_waited_for(void *arg)
{
    weft_chan *in = chan_of_ints(0), *out = chan_of_ints(1);
    weft_event event = WEFT_EVENT_INIT;
    weft_promise promise = WEFT_PROMISE_INIT;
    weft_task *ending = weft_spawn(sleep_for_ever, NULL), *task;
    int value = 5, ends[2];
    weft_case cases[] = {WEFT_CASE_RECV(in, &value),    WEFT_CASE_SEND(out, &value), WEFT_CASE_EVENT(&event),
                         WEFT_CASE_PROMISE(&promise),   WEFT_CASE_TASK(ending),      WEFT_CASE_POLL(0, POLLIN),
                         WEFT_CASE_AFTER(WEFT_SEC(100))};
    struct call call;

    (void)arg;
    must_be(pipe(ends), 0);
    cases[5].fd = ends[0];
    must_be(weft_chan_send(out, &value), 0);

    task = begin_select(&call, cases, 7);
    must_be(weft_chan_try_send(in, &(int){6}), 0);
    must_be(weft_await(task), 0);
    must_be(cases[0].result, 0);
    must_be(value, 6);

    task = begin_select(&call, cases, 7);
    must_be(weft_chan_try_recv(out, &value), 0);
    must_be(value, 5);
    must_be(weft_await(task), 1);
    must_be(cases[1].result, 0);
    must_be(weft_chan_len(out), 1);

    task = begin_select(&call, cases, 7);
    weft_event_set(&event);
    weft_event_clear(&event);
    must_be(weft_await(task), 2);
    must_be(cases[2].result, 0);

    task = begin_select(&call, cases, 7);
    must_be(weft_promise_set(&promise, -9), 0);
    must_be(weft_await(task), 3);
    must_be(cases[3].result, -9);
    cases[3].kind = WEFT_CASE_KIND_NONE;

    task = begin_select(&call, cases, 7);
    must_be(weft_cancel(ending), 1);
    must_be(weft_await(task), 4);
    must_be(cases[4].result, 0);
    must_be(weft_select(cases, 7), 4);
    must_be(weft_await(ending), -ECANCELED);
    cases[4].kind = WEFT_CASE_KIND_NONE;

    task = begin_select(&call, cases, 7);
    must_be(write(ends[1], "x", 1), 1);
    must_be(weft_await(task), 5);
    must_be(cases[5].result, POLLIN);
    must_be(weft_select(cases, 7), 5);
    must_be(read(ends[0], &value, 4), 1);

    cases[6] = (weft_case)WEFT_CASE_AFTER(WEFT_MS(2));
    task = begin_select(&call, cases, 7);
    must_be(weft_await(task), 6);
    cases[6] = (weft_case)WEFT_CASE_AT(weft_now() + WEFT_MS(2));
    must_be(weft_select(cases, 7), 6);

    cases[6].kind = WEFT_CASE_KIND_NONE;
    task = begin_select(&call, cases, 7);
    must_be(weft_close(ends[0]), 0);
    must_be(weft_await(task), 5);
    must_be(cases[5].result, -EBADF);
    must_be(close(ends[1]), 0);

    must_be(weft_chan_try_recv(out, &value), 0);
    must_be_forsaken(in);
    must_be_forsaken(out);
    return 0;
}

static void every_kind_of_case_can_be_waited_for(void **state)
{
    (void)state;
    assert_int_equal(run_alone(each_kind_is_waited_for, NULL), 0);
    assert_int_equal(run_alone(each_kind_is_waited_for, NULL), 0);
}

static intptr_t tasks_in_selects(void *arg)
{
    weft_task *slow = weft_spawn(sleep_for_ever, NULL), *quick = weft_spawn(set_after_two_yields, NULL), *waiter;
    weft_case cases[] = {WEFT_CASE_TASK(slow), WEFT_CASE_TASK(quick)};
    weft_case again[] = {WEFT_CASE_TASK(slow)};
    struct call call;

    (void)arg;
    must_be(weft_select(cases, 2), 1);
    must_be(cases[1].result, 0);
    must_be(weft_await(quick), -42);
    /* Somebody waits for it: another one may not. */
    waiter = begin_select(&call, cases, 1);
    must_be(weft_select(again, 1), 0);
    must_be(again[0].result, -EBUSY);
    must_be(weft_cancel(waiter), 1);
    must_be(weft_await(waiter), -ECANCELED);
    /* It does no more, and the task is not cancelled. */
    must_be(weft_try_select(again, 1), -EAGAIN);
    must_be(weft_cancel(slow), 1);
    must_be(weft_await(slow), -ECANCELED);
    return 0;
}

static void a_task_that_was_selected_can_still_be_awaited(void **state)
{
    (void)state;
    assert_int_equal(run_alone(tasks_in_selects, NULL), 0);
}

static intptr_t both_sides_of_one_channel(void *arg)
{
    weft_chan *chan = chan_of_ints(0);
    int in = 0, out = 7, in_too = 0;
    weft_case cases[] = {WEFT_CASE_SEND(chan, &out), WEFT_CASE_RECV(chan, &in), WEFT_CASE_RECV(chan, &in_too)};
    weft_timeout scope;
    struct call call;
    weft_task *task;

    (void)arg;
    must_be(weft_timeout_begin(&scope, WEFT_MS(1)), 0);
    must_be(weft_select(cases, 3), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);

    task = begin_select(&call, cases, 3);
    must_be(weft_chan_try_recv(chan, &in), 0);
    must_be(in, 7);
    must_be(weft_chan_try_recv(chan, &in), -EAGAIN);
    must_be(weft_chan_try_send(chan, &in), -EAGAIN);
    must_be(weft_await(task), 0);

    in = 0;
    task = begin_select(&call, cases, 3);
    must_be(weft_chan_try_send(chan, &(int){8}), 0);
    must_be(weft_chan_try_send(chan, &(int){9}), -EAGAIN);
    must_be(weft_await(task), 1); /* the first of the two in the list */
    must_be(in, 8);
    must_be(in_too, 0);

    task = begin_select(&call, cases, 3);
    must_be(weft_chan_close(chan), 0);
    in = (int)weft_await(task);
    must(in >= 0 && in < 3);
    must_be(cases[in].result, -EPIPE);
    weft_chan_free(chan);
    return 0;
}

static void several_cases_may_have_one_channel_and_never_meet_each_other(void **state)
{
    (void)state;
    assert_int_equal(run_alone(both_sides_of_one_channel, NULL), 0);
}

static intptr_t only_one_case_is_done(void *arg)
{
    weft_chan *chans[WIDTH];
    weft_case cases[WIDTH];
    int value = -1;
    struct call call;
    weft_task *task;

    (void)arg;
    for (int i = 0; i < WIDTH; i++) {
        chans[i] = chan_of_ints((size_t)i % 2);
        cases[i] = (weft_case)WEFT_CASE_RECV(chans[i], &value);
    }
    for (int first = 0; first < WIDTH; first++) {
        task = begin_select(&call, cases, WIDTH);
        for (int i = 0; i < WIDTH; i++) {
            int at = (first + i) % WIDTH;

            must_be(weft_chan_try_send(chans[at], &at), i == 0 || at % 2 == 1 ? 0 : -EAGAIN);
        }
        must_be(weft_await(task), first);
        must_be(value, first);
        for (int i = 0; i < WIDTH; i++) {
            must_be(weft_chan_len(chans[i]), i != first && i % 2 == 1);
            must_be(weft_chan_try_recv(chans[i], &value), i != first && i % 2 == 1 ? 0 : -EAGAIN);
        }
    }
    for (int i = 0; i < WIDTH; i++)
        must_be_forsaken(chans[i]);
    return 0;
}

static void peers_of_other_cases_are_not_served(void **state)
{
    (void)state;
    assert_int_equal(run_alone(only_one_case_is_done, NULL), 0);
}

static intptr_t a_dropped_wait_lets_the_next_one_in(void *arg)
{
    weft_chan *first = chan_of_ints(0), *second = chan_of_ints(0);
    int a = 0, b = 0;
    weft_case one[] = {WEFT_CASE_RECV(first, &a), WEFT_CASE_RECV(second, &a)};
    weft_case other[] = {WEFT_CASE_RECV(second, &b)};
    struct call calls[2];
    weft_task *tasks[2];

    (void)arg;
    tasks[0] = begin_select(&calls[0], one, 2);
    tasks[1] = begin_select(&calls[1], other, 1);
    must_be(weft_chan_try_send(first, &(int){1}), 0);
    must_be(weft_chan_try_send(second, &(int){2}), 0); /* the first wait in the list is over by now */
    must_be(weft_await(tasks[0]), 0);
    must_be(weft_await(tasks[1]), 0);
    must_be(a, 1);
    must_be(b, 2);
    must_be_forsaken(first);
    must_be_forsaken(second);
    return 0;
}

static void a_wait_of_a_select_that_is_over_is_passed_by(void **state)
{
    (void)state;
    assert_int_equal(run_alone(a_dropped_wait_lets_the_next_one_in, NULL), 0);
}

static intptr_t select_then_yield(void *arg)
{
    intptr_t chosen = do_select(arg);

    must_be(weft_yield(), -ECANCELED);
    return chosen;
}

static intptr_t cancelled_selects(void *arg)
{
    weft_chan *in = chan_of_ints(0), *out = chan_of_ints(0);
    int value = 1;
    weft_case cases[] = {WEFT_CASE_RECV(in, &value), WEFT_CASE_SEND(out, &value)};
    struct call call = {cases, 2};
    weft_timeout scope;
    weft_task *task;

    (void)arg;
    task = begin_select(&call, cases, 2);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    must_be(weft_timeout_begin(&scope, WEFT_MS(1)), 0);
    must_be(weft_select(cases, 2), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_chan_try_send(in, &value), -EAGAIN);
    must_be(weft_chan_try_recv(out, &value), -EAGAIN);

    /* Claimed by a peer at the moment: it is done, and the next suspension point tells. */
    for (int cancel_first = 0; cancel_first < 2; cancel_first++) {
        task = weft_spawn(select_then_yield, &call);
        must(task != NULL);
        must_be(weft_yield(), 0);
        if (cancel_first)
            must_be(weft_cancel(task), 1);
        must_be(weft_chan_try_send(in, &(int){11 + cancel_first}), 0);
        if (!cancel_first)
            must_be(weft_cancel(task), 1);
        must_be(weft_await(task), 0);
        must_be(value, 11 + cancel_first);
    }

    /* A cancelled caller does nothing, not even what is ready. */
    must_be(weft_cancel(weft_self()), 1);
    cases[0].kind = WEFT_CASE_KIND_DEFAULT;
    must_be(weft_select(cases, 2), -ECANCELED);
    must_be(weft_try_select(cases, 2), 0);
    must_be(weft_uncancel(), 1);
    must_be_forsaken(in);
    must_be_forsaken(out);
    return 0;
}

static void a_cancelled_select_has_done_nothing_or_says_what_it_did(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_selects, NULL), 0);
}

static intptr_t nothing_to_wait_for(void *arg)
{
    weft_case cases[2] = {{.kind = WEFT_CASE_KIND_NONE}, {.kind = WEFT_CASE_KIND_NONE}};
    struct call call;
    weft_task *task = begin_select(&call, cases, 2);

    (void)arg;
    must_be(weft_cancel(task), 1);
    return weft_await(task);
}

static void a_select_of_nothing_waits_until_it_is_cancelled(void **state)
{
    (void)state;
    assert_int_equal(run_alone(nothing_to_wait_for, NULL), -ECANCELED);
}

static intptr_t stale_readiness(void *arg)
{
    int ends[2], value;
    char byte;
    weft_chan *chan = chan_of_ints(0);
    weft_case cases[] = {WEFT_CASE_POLL(0, POLLIN), WEFT_CASE_RECV(chan, &value)};
    struct call call;
    weft_task *task;

    (void)arg;
    must_be(pipe(ends), 0);
    cases[0].fd = ends[0];
    for (int i = 0; i < 20; i++) {
        task = begin_select(&call, cases, 2);
        must_be(write(ends[1], "x", 1), 1);
        must_be(read(ends[0], &byte, 1), 1);
        yield_times(200); /* the event comes, and finds nothing */
        if (i % 2) {
            must_be(write(ends[1], "x", 1), 1);
            must_be(weft_await(task), 0);
            must_be(read(ends[0], &byte, 1), 1);
        } else {
            must_be(weft_chan_send(chan, &i), 0);
            must_be(weft_await(task), 1);
        }
    }
    weft_close(ends[0]);
    weft_close(ends[1]);
    must_be_forsaken(chan);
    return 0;
}

static void a_descriptor_that_somebody_else_has_drained_is_not_ready(void **state)
{
    (void)state;
    assert_int_equal(run_alone(stale_readiness, NULL), 0);
}

static void a_thread_cannot_wait_for_descriptors(void **state)
{
    weft_case cases[] = {WEFT_CASE_POLL(0, POLLIN)};
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    cases[0].fd = ends[0];
    assert_int_equal(weft_try_select(cases, 1), -EAGAIN);
    assert_int_equal(weft_select(cases, 1), -EPERM);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(weft_try_select(cases, 1), 0);
    assert_int_equal(cases[0].result, POLLIN);
    cases[0].fd = -1;
    assert_int_equal(weft_try_select(cases, 1), 0);
    assert_int_equal(cases[0].result, -EBADF);
    close(ends[0]);
    close(ends[1]);
}

/* ---- selects that meet ---- */

enum { MEETINGS = 5000 };

struct side {
    weft_chan *out, *in;
    uint64_t sent, received; /* numbers, each 0, 1, 2… */
    bool crowded;            /* the waits of the other cases are there only to be dropped */
};

static weft_chan *unused[2];

static void meet(struct side *side)
{
    uint64_t number = UINT64_MAX, never;
    weft_case cases[] = {WEFT_CASE_SEND(side->out, &side->sent), WEFT_CASE_RECV(side->in, &number),
                         WEFT_CASE_RECV(unused[0], &never), WEFT_CASE_SEND(unused[1], &side->sent)};
    int chosen = weft_select(cases, side->crowded ? 4 : 2);

    must(chosen == 0 || chosen == 1);
    must_be(cases[chosen].result, 0);
    if (chosen == 0) {
        side->sent++;
    } else {
        must_be(number, side->received);
        side->received++;
    }
}

static intptr_t meet_many_times(void *arg)
{
    for (int i = 0; i < FEWER(MEETINGS); i++)
        meet(arg);
    return 0;
}

static void *meet_in_thread(void *arg)
{
    meet_many_times(arg);
    return NULL;
}

static intptr_t two_selects(void *arg)
{
    bool same = arg == NULL;
    weft_chan *there = weft_chan_new(sizeof(uint64_t), 0),
              *back = same ? there : weft_chan_new(sizeof(uint64_t), 0);
    struct side left = {there, back, 0, 0, false}, right = {back, there, 0, 0, true};
    weft_task *task;

    must(there != NULL && back != NULL);
    unused[0] = weft_chan_new(sizeof(uint64_t), 3);
    unused[1] = weft_chan_new(sizeof(uint64_t), 0);
    task = weft_spawn(meet_many_times, &right);
    must(task != NULL && unused[0] != NULL && unused[1] != NULL);
    must_be(meet_many_times(&left), 0);
    must_be(weft_await(task), 0);
    must_be(left.sent, right.received);
    must_be(right.sent, left.received);
    must_be(left.sent + left.received, FEWER(MEETINGS));
    must_be_forsaken(unused[0]);
    must_be_forsaken(unused[1]);
    must_be_forsaken(there);
    if (!same)
        must_be_forsaken(back);
    return 0;
}

static void two_selects_meet_in_both_directions(void **state)
{
    const uint32_t workers[] = {1, 2, 8};

    (void)state;
    for (int w = 0; w < 3; w++) {
        assert_int_equal(run_on(workers[w], two_selects, ""), 0);
        assert_int_equal(run_on(workers[w], two_selects, NULL), 0);
    }
}

static intptr_t thread_and_task(void *arg)
{
    weft_chan *there = weft_chan_new(sizeof(uint64_t), 0), *back = weft_chan_new(sizeof(uint64_t), 0);
    struct side left = {there, back, 0, 0, false}, right = {back, there, 0, 0, false};
    pthread_t thread;

    (void)arg;
    must(there != NULL && back != NULL);
    must_be(pthread_create(&thread, NULL, meet_in_thread, &right), 0);
    must_be(meet_many_times(&left), 0);
    must_be(pthread_join(thread, NULL), 0);
    must_be(left.sent, right.received);
    must_be(right.sent, left.received);
    must_be_forsaken(there);
    must_be_forsaken(back);
    return 0;
}

static void a_select_of_a_thread_meets_one_of_a_task(void **state)
{
    (void)state;
    assert_int_equal(run_alone(thread_and_task, NULL), 0);
}

/* ---- many selects, many channels: every item once ---- */

enum { CHANNELS = 4, SELECTORS = 12, ITEMS = 4000 };

static struct {
    weft_chan *chans[CHANNELS];
    _Atomic unsigned char seen[CHANNELS][ITEMS];
    _Atomic uint64_t taken;
    _Atomic unsigned begun; /* a task that is cancelled before does nothing */
    weft_event over;
} crowd;

static void take_item(int channel, int item)
{
    must(item >= 0 && item < ITEMS);
    must_be(atomic_fetch_add(&crowd.seen[channel][item], 1), 0);
    atomic_fetch_add(&crowd.taken, 1);
}

/* Until all are closed. `interrupted`: by deadlines that come at any moment. */
static intptr_t take_all(bool interrupted, uint64_t seed)
{
    weft_case cases[CHANNELS];
    int items[CHANNELS], open = CHANNELS;

    for (int i = 0; i < CHANNELS; i++)
        cases[i] = (weft_case)WEFT_CASE_RECV(crowd.chans[i], &items[i]);
    while (open > 0) {
        weft_timeout scope;
        int chosen;

        if (interrupted)
            must_be(weft_timeout_begin(&scope, WEFT_US(draw(&seed) % 50)), 0);
        chosen = weft_select(cases, CHANNELS);
        if (interrupted)
            weft_timeout_end(&scope);
        if (chosen == -ECANCELED)
            weft_uncancel();
        if (chosen < 0) {
            must(interrupted && (chosen == -ETIMEDOUT || chosen == -ECANCELED));
        } else if (cases[chosen].result == 0) {
            take_item(chosen, items[chosen]);
        } else {
            must_be(cases[chosen].result, -EPIPE);
            cases[chosen].kind = WEFT_CASE_KIND_NONE;
            open--;
        }
    }
    return 0;
}

static intptr_t take_quietly(void *arg)
{
    return take_all(false, (uintptr_t)arg);
}

static intptr_t take_interrupted(void *arg)
{
    atomic_fetch_add(&crowd.begun, 1);
    return take_all(true, (uintptr_t)arg);
}

static void *take_in_thread(void *arg)
{
    take_all(false, 1);
    return arg;
}

static intptr_t give_all(void *arg)
{
    int channel = (int)(intptr_t)arg;

    for (int i = 0; i < FEWER(ITEMS); i++)
        must_be(weft_chan_send(crowd.chans[channel], &i), 0);
    return weft_chan_close(crowd.chans[channel]);
}

/* Sends by selects, each under a deadline of its own: what is reported as sent must arrive, nothing else. */
static intptr_t give_interrupted(void *arg)
{
    int channel = (int)(intptr_t)arg, i = 0;
    uint64_t seed = (uint64_t)channel + 1;

    atomic_fetch_add(&crowd.begun, 1);
    while (i < FEWER(ITEMS)) {
        weft_case cases[] = {WEFT_CASE_SEND(crowd.chans[channel], &i), WEFT_CASE_EVENT(&crowd.over),
                             WEFT_CASE_AFTER(WEFT_US((int64_t)(draw(&seed) % 50)))};
        int chosen = weft_select(cases, 3);

        if (chosen == -ECANCELED) {
            weft_uncancel();
            continue;
        }
        must(chosen == 0 || chosen == 2);
        must_be(cases[chosen].result, 0);
        i += chosen == 0;
    }
    return weft_chan_close(crowd.chans[channel]);
}

static void begin_crowd(void)
{
    static const size_t capacities[CHANNELS] = {0, 1, 16, WEFT_CHAN_UNBOUNDED};

    memset(&crowd, 0, sizeof crowd);
    for (int i = 0; i < CHANNELS; i++)
        crowd.chans[i] = chan_of_ints(capacities[i]);
}

static void end_crowd(void)
{
    must_be(crowd.taken, CHANNELS * FEWER(ITEMS));
    for (int i = 0; i < CHANNELS; i++) {
        for (int item = 0; item < FEWER(ITEMS); item++)
            must_be(crowd.seen[i][item], 1);
        must_be(weft_chan_len(crowd.chans[i]), 0);
        weft_chan_free(crowd.chans[i]);
    }
}

static intptr_t many_selects(void *arg)
{
    weft_task *takers[SELECTORS], *givers[CHANNELS];

    (void)arg;
    begin_crowd();
    for (int i = 0; i < SELECTORS; i++)
        must((takers[i] = weft_spawn(take_quietly, NULL)) != NULL);
    for (int i = 0; i < CHANNELS; i++)
        must((givers[i] = weft_spawn(give_all, (void *)(intptr_t)i)) != NULL);
    for (int i = 0; i < CHANNELS; i++)
        must_be(weft_await(givers[i]), 0);
    for (int i = 0; i < SELECTORS; i++)
        must_be(weft_await(takers[i]), 0);
    end_crowd();
    return 0;
}

static void many_selects_share_channels(void **state)
{
    const uint32_t workers[] = {1, 2, 8};

    (void)state;
    for (int w = 0; w < 3; w++)
        assert_int_equal(run_on(workers[w], many_selects, NULL), 0);
}

static intptr_t interrupted_selects(void *arg)
{
    weft_task *tasks[CHANNELS + SELECTORS];
    uint64_t seed = 77;

    (void)arg;
    begin_crowd();
    for (int i = 0; i < CHANNELS; i++)
        must((tasks[i] = weft_spawn(give_interrupted, (void *)(intptr_t)i)) != NULL);
    for (int i = CHANNELS; i < CHANNELS + SELECTORS; i++)
        must((tasks[i] = weft_spawn(take_interrupted, (void *)(intptr_t)i)) != NULL);
    wait_until_true(atomic_load(&crowd.begun) == CHANNELS + SELECTORS);
    while (atomic_load(&crowd.taken) < CHANNELS * FEWER(ITEMS)) {
        weft_cancel(tasks[draw(&seed) % (CHANNELS + SELECTORS)]);
        must_be(weft_sleep(WEFT_US(20)), 0);
    }
    for (int i = 0; i < CHANNELS + SELECTORS; i++)
        must_be(weft_await(tasks[i]), 0);
    end_crowd();
    return 0;
}

static void nothing_is_lost_or_doubled_by_cancellation_and_deadlines(void **state)
{
    const uint32_t workers[] = {1, 2, 8};

    (void)state;
    for (int w = 0; w < 3; w++)
        assert_int_equal(run_on(workers[w], interrupted_selects, NULL), 0);
}

static intptr_t give_to_threads(void *arg)
{
    weft_task *givers[CHANNELS];

    (void)arg;
    for (int i = 0; i < CHANNELS; i++)
        must((givers[i] = weft_spawn(give_all, (void *)(intptr_t)i)) != NULL);
    for (int i = 0; i < CHANNELS; i++)
        must_be(weft_await(givers[i]), 0);
    return 0;
}

static void threads_select_what_tasks_send(void **state)
{
    pthread_t threads[3];

    (void)state;
    begin_crowd();
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_in_thread, NULL), 0);
    {
        weft_config config = {.workers = 2};
        weft_runtime *runtime;

        assert_int_equal(weft_runtime_start(&config, &runtime), 0);
        assert_int_equal(weft_runtime_run(runtime, give_to_threads, NULL), 0);
        assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    end_crowd();
}

/* ---- everything that wakes, at the same time ---- */

struct volley {
    weft_chan *chan;
    weft_event event;
    weft_promise promise;
    _Atomic int go;
};

static intptr_t fire(void *arg)
{
    struct volley *volley = arg;

    weft_event_set(&volley->event);
    must_be(weft_promise_set(&volley->promise, 3), 0);
    return weft_chan_try_send(volley->chan, &(int){5});
}

static intptr_t volleys(void *arg)
{
    for (int i = 0; i < FEWER(3000); i++) {
        struct volley *volley = calloc(1, sizeof *volley);
        weft_task *task;
        int value = 0, chosen;

        must(volley != NULL);
        volley->chan = chan_of_ints(0);
        task = weft_spawn(fire, volley);
        must(task != NULL);
        {
            weft_case cases[] = {WEFT_CASE_RECV(volley->chan, &value), WEFT_CASE_EVENT(&volley->event),
                                 WEFT_CASE_PROMISE(&volley->promise), WEFT_CASE_TASK(task)};

            chosen = weft_select(cases, 4);
            must(chosen >= 0 && chosen < 4);
            must_be(cases[chosen].result, chosen == 2 ? 3 : 0);
            must_be(value, chosen == 0 ? 5 : 0);
        }
        must_be(weft_await(task), chosen == 0 ? 0 : -EAGAIN);
        weft_chan_free(volley->chan);
        free(volley);
    }
    return (intptr_t)arg;
}

static void whatever_comes_first_ends_the_select_once(void **state)
{
    const uint32_t workers[] = {1, 2, 8};

    (void)state;
    for (int w = 0; w < 3; w++)
        assert_int_equal(run_on(workers[w], volleys, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(the_default_is_chosen_if_nothing_is_ready),
        cmocka_unit_test(closed_channels_are_ready),
        cmocka_unit_test(ready_cases_are_equally_likely),
        cmocka_unit_test(every_kind_of_case_can_be_waited_for),
        cmocka_unit_test(a_task_that_was_selected_can_still_be_awaited),
        cmocka_unit_test(several_cases_may_have_one_channel_and_never_meet_each_other),
        cmocka_unit_test(peers_of_other_cases_are_not_served),
        cmocka_unit_test(a_wait_of_a_select_that_is_over_is_passed_by),
        cmocka_unit_test(a_cancelled_select_has_done_nothing_or_says_what_it_did),
        cmocka_unit_test(a_select_of_nothing_waits_until_it_is_cancelled),
        cmocka_unit_test(a_descriptor_that_somebody_else_has_drained_is_not_ready),
        cmocka_unit_test(a_thread_cannot_wait_for_descriptors),
        cmocka_unit_test(two_selects_meet_in_both_directions),
        cmocka_unit_test(a_select_of_a_thread_meets_one_of_a_task),
        cmocka_unit_test(many_selects_share_channels),
        cmocka_unit_test(nothing_is_lost_or_doubled_by_cancellation_and_deadlines),
        cmocka_unit_test(threads_select_what_tasks_send),
        cmocka_unit_test(whatever_comes_first_ends_the_select_once),
    };

    return run_all(tests, argc, argv);
}
