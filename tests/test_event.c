/* weft_event: whom a set wakes, cancellation and deadlines at every point, tasks mixed with threads. */
#include "support.h"

static weft_event shared;
static int order[16];
static int ordered;

static intptr_t wait_and_note(void *arg)
{
    int rc = weft_event_wait(&shared);

    if (rc < 0)
        return rc;
    order[ordered++] = (int)(intptr_t)arg;
    return 0;
}

/* On one worker a yield lets everybody else run until it waits. */
static void queue(weft_task **tasks, int n)
{
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(wait_and_note, (void *)(intptr_t)i)) != NULL);
    must(weft_yield() == 0);
}

static void begin_clear(void)
{
    shared = (weft_event)WEFT_EVENT_INIT;
    ordered = 0;
}

static void set_and_clear_outside_a_runtime(void **state)
{
    weft_event event = WEFT_EVENT_INIT;

    (void)state;
    assert_int_equal(weft_event_is_set(&event), 0);
    weft_event_set(&event);
    weft_event_set(&event);
    assert_int_equal(weft_event_is_set(&event), 1);
    assert_int_equal(weft_event_wait(&event), 0);
    assert_int_equal(weft_event_wait(&event), 0);
    weft_event_clear(&event);
    weft_event_clear(&event);
    assert_int_equal(weft_event_is_set(&event), 0);
}

static intptr_t set_clear_wakes(void *arg)
{
    weft_task *first[8], *later[2];
    unsigned woken = 0;

    (void)arg;
    begin_clear();
    queue(first, 8);
    must(ordered == 0);
    weft_event_set(&shared);
    weft_event_clear(&shared);
    queue(later, 2);
    must(ordered == 8);
    /* Which of them runs first is the scheduler's choice. */
    for (int i = 0; i < 8; i++) {
        woken |= 1u << order[i];
        must(weft_await(first[i]) == 0);
    }
    must(woken == 0xff);
    weft_event_set(&shared);
    for (int i = 0; i < 2; i++)
        must(weft_await(later[i]) == 0);
    return ordered;
}

static void set_then_clear_wakes_exactly_those_that_waited(void **state)
{
    (void)state;
    assert_int_equal(run_alone(set_clear_wakes, NULL), 10);
}

static intptr_t give_up_anywhere(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        begin_clear();
        queue(tasks, 3);
        must(weft_cancel(tasks[who]) == 1);
        must(weft_await(tasks[who]) == -ECANCELED);
        weft_event_set(&shared);
        for (int i = 0; i < 3; i++)
            must(i == who || weft_await(tasks[i]) == 0);
        must(ordered == 2);
    }
    return 0;
}

static void a_cancelled_waiter_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 0);
}

static intptr_t cancelled_at_the_set(void *arg)
{
    weft_task *task, *later;

    (void)arg;
    for (int set_first = 0; set_first < 2; set_first++) {
        begin_clear();
        queue(&task, 1);
        if (set_first)
            weft_event_set(&shared);
        must(weft_cancel(task) == 1);
        if (!set_first)
            weft_event_set(&shared);
        weft_event_clear(&shared);
        must((later = weft_spawn(wait_and_note, (void *)1)) != NULL);
        must(weft_await(task) == 0);
        must(weft_yield() == 0);
        must(ordered == 1);
        weft_event_set(&shared);
        must(weft_await(later) == 0);
    }
    return ordered;
}

static void a_waiter_cancelled_at_the_set_returns_0(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_at_the_set, NULL), 2);
}

static intptr_t deadline(void *arg)
{
    weft_timeout scope;

    (void)arg;
    begin_clear();
    must(weft_timeout_begin(&scope, WEFT_MS(2)) == 0);
    must(weft_event_wait(&shared) == -ETIMEDOUT);
    must(weft_timeout_end(&scope) == 1);
    weft_event_set(&shared);
    return weft_event_wait(&shared);
}

static void a_deadline_ends_the_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(deadline, NULL), 0);
}

static intptr_t wait_cancelled(void *arg)
{
    (void)arg;
    begin_clear();
    weft_event_set(&shared);
    must(weft_cancel(weft_self()) == 1);
    must(weft_event_wait(&shared) == -ECANCELED);
    must(weft_event_wait(&shared) == -ECANCELED);
    must(weft_uncancel() == 1);
    return weft_event_wait(&shared);
}

static void a_cancelled_task_does_not_wait_even_for_a_set_event(void **state)
{
    (void)state;
    assert_int_equal(run_alone(wait_cancelled, NULL), 0);
}

static void *wait_in_thread(void *arg)
{
    must(weft_event_wait(arg) == 0);
    return NULL;
}

static intptr_t set_in_task(void *arg)
{
    (void)arg;
    weft_event_set(&shared);
    return 0;
}

static void a_task_wakes_threads(void **state)
{
    pthread_t threads[3];

    (void)state;
    begin_clear();
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wait_in_thread, &shared), 0);
    assert_int_equal(run_beside_threads(1, set_in_task, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* ---- an event in its waiter's frame, gone as soon as the wait is over ---- */

enum { FRAMES = 3000 };

static weft_chan *frames;

static void *set_what_comes(void *arg)
{
    weft_event *event;

    while (weft_chan_recv(frames, &event) == 0)
        weft_event_set(event);
    return arg;
}

static intptr_t wait_in_a_frame(void *arg)
{
    (void)arg;
    for (int i = 0; i < FRAMES; i++) {
        weft_event *event = calloc(1, sizeof(*event)), *sent = event;

        must(event != NULL);
        must(weft_chan_send(frames, &sent) == 0);
        if (i % 2) {
            while (!weft_event_is_set(event))
                must(weft_yield() == 0);
        }
        must(weft_event_wait(event) == 0);
        free(event);
    }
    return weft_chan_close(frames);
}

static void the_waiter_may_free_the_event_at_once(void **state)
{
    pthread_t thread;

    (void)state;
    frames = weft_chan_new(sizeof(weft_event *), 1);
    assert_non_null(frames);
    assert_int_equal(pthread_create(&thread, NULL, set_what_comes, NULL), 0);
    assert_int_equal(run_beside_threads(2, wait_in_a_frame, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    weft_chan_free(frames);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_and_clear_outside_a_runtime),
        cmocka_unit_test(set_then_clear_wakes_exactly_those_that_waited),
        cmocka_unit_test(a_cancelled_waiter_leaves_the_queue),
        cmocka_unit_test(a_waiter_cancelled_at_the_set_returns_0),
        cmocka_unit_test(a_deadline_ends_the_wait),
        cmocka_unit_test(a_cancelled_task_does_not_wait_even_for_a_set_event),
        cmocka_unit_test(a_task_wakes_threads),
        cmocka_unit_test(the_waiter_may_free_the_event_at_once),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
