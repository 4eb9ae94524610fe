/* weft_promise: set once, from anywhere; awaited by many, with stacks and without; freed by its awaiter; followed by
 * calls; failures that nobody takes; cancellation at every point. */
#include "races.h"

static void set_once(void **state)
{
    weft_promise promise = WEFT_PROMISE_INIT;
    intptr_t result = 1;

    (void)state;
    assert_int_equal(weft_promise_try(&promise, &result), 0);
    assert_int_equal(result, 1);
    assert_int_equal(weft_promise_set(&promise, 42), 0);
    assert_int_equal(weft_promise_set(&promise, 43), -EALREADY);
    assert_int_equal(weft_promise_try(&promise, &result), 1);
    assert_int_equal(result, 42);
    assert_int_equal(weft_promise_try(&promise, NULL), 1);
    assert_int_equal(weft_promise_await(&promise), 42);
    assert_int_equal(weft_await(&promise), 42);
}

static weft_promise shared;

static intptr_t await_shared(void *arg)
{
    (void)arg;
    return weft_await(&shared);
}

/* On one worker a yield lets everybody else run until it waits. */
static void queue(weft_task **tasks, int n)
{
    shared = (weft_promise)WEFT_PROMISE_INIT;
    for (int i = 0; i < n; i++)
        must((tasks[i] = weft_spawn(await_shared, NULL)) != NULL);
    must(weft_yield() == 0);
}

static intptr_t many_awaiters(void *arg)
{
    const intptr_t results[] = {0, 5, -EIO, INTPTR_MAX, INTPTR_MIN};
    weft_task *tasks[6];

    (void)arg;
    for (size_t r = 0; r < sizeof(results) / sizeof(results[0]); r++) {
        queue(tasks, 6);
        must(weft_promise_set(&shared, results[r]) == 0);
        for (int i = 0; i < 6; i++)
            must(weft_await(tasks[i]) == results[r]);
    }
    return 0;
}

static void every_awaiter_gets_the_result(void **state)
{
    (void)state;
    assert_int_equal(run_alone(many_awaiters, NULL), 0);
}

static intptr_t give_up_anywhere(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        queue(tasks, 3);
        must(weft_cancel(tasks[who]) == 1);
        must(weft_await(tasks[who]) == -ECANCELED);
        must(weft_promise_set(&shared, 9) == 0);
        for (int i = 0; i < 3; i++)
            must(i == who || weft_await(tasks[i]) == 9);
    }
    return 0;
}

static void a_cancelled_awaiter_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 0);
}

static intptr_t cancelled_at_the_set(void *arg)
{
    weft_task *task;

    (void)arg;
    queue(&task, 1);
    must(weft_promise_set(&shared, 3) == 0);
    must(weft_cancel(task) == 1);
    must(weft_await(task) == 3);
    queue(&task, 1);
    must(weft_cancel(task) == 1);
    must(weft_promise_set(&shared, 4) == 0);
    return weft_await(task);
}

static void an_awaiter_cancelled_at_the_set_gets_the_result(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_at_the_set, NULL), 4);
}

static intptr_t deadline_and_cancelled_caller(void *arg)
{
    weft_promise promise = WEFT_PROMISE_INIT;
    weft_timeout scope;

    (void)arg;
    must(weft_timeout_begin(&scope, WEFT_MS(2)) == 0);
    must(weft_await(&promise) == -ETIMEDOUT);
    must(weft_timeout_end(&scope) == 1);
    must(weft_promise_set(&promise, 8) == 0);
    must(weft_cancel(weft_self()) == 1);
    must(weft_await(&promise) == -ECANCELED);
    must(weft_await(&promise) == -ECANCELED);
    must(weft_uncancel() == 1);
    return weft_await(&promise);
}

static void a_deadline_or_a_cancellation_ends_the_wait(void **state)
{
    (void)state;
    assert_int_equal(run_alone(deadline_and_cancelled_caller, NULL), 8);
}

static void *await_in_thread(void *arg)
{
    return (void *)weft_promise_await(arg);
}

static intptr_t set_in_task(void *arg)
{
    (void)arg;
    return weft_promise_set(&shared, 77);
}

static void threads_await_what_a_task_sets(void **state)
{
    pthread_t threads[3];
    void *result;

    (void)state;
    shared = (weft_promise)WEFT_PROMISE_INIT;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, await_in_thread, &shared), 0);
    assert_int_equal(run_beside_threads(1, set_in_task, NULL), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_int_equal((intptr_t)result, 77);
    }
}

/* ---- a promise that is gone as soon as an awaiter knows its result ---- */

enum { PROMISES = FEWER(3000) };

static weft_chan *promises;

static void *set_what_comes(void *arg)
{
    weft_promise *promise;
    intptr_t n = 0;

    while (weft_chan_recv(promises, &promise) == 0)
        must(weft_promise_set(promise, n++) == 0);
    return arg;
}

static intptr_t await_and_free(void *arg)
{
    (void)arg;
    for (intptr_t i = 0; i < PROMISES; i++) {
        weft_promise *promise = calloc(1, sizeof(*promise)), *sent = promise;
        intptr_t result;

        must(promise != NULL);
        must(weft_chan_send(promises, &sent) == 0);
        if (i % 2) {
            while (!weft_promise_try(promise, &result))
                must(weft_yield() == 0);
        } else {
            result = weft_await(promise);
        }
        must(result == i);
        free(promise);
    }
    return weft_chan_close(promises);
}

static void the_awaiter_may_free_the_promise_at_once(void **state)
{
    pthread_t thread;

    (void)state;
    promises = weft_chan_new(sizeof(weft_promise *), 1);
    assert_non_null(promises);
    assert_int_equal(pthread_create(&thread, NULL, set_what_comes, NULL), 0);
    assert_int_equal(run_beside_threads(2, await_and_free, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    weft_chan_free(promises);
}

/* ---- a cancellation that races with the set ---- */

static intptr_t await_one(void *arg)
{
    return weft_await((weft_promise *)arg);
}

static intptr_t cancel_against_set(void *arg)
{
    (void)arg;
    for (intptr_t i = 0; i < PROMISES; i++) {
        weft_promise *promise = calloc(1, sizeof(*promise)), *sent = promise;
        weft_task *task;
        intptr_t result;

        must(promise != NULL && (task = weft_spawn(await_one, promise)) != NULL);
        must(weft_yield() == 0);
        must(weft_chan_send(promises, &sent) == 0);
        if (i % 3)
            must(weft_yield() == 0);
        weft_cancel(task);
        result = weft_await(task);
        must(result == i || result == -ECANCELED);
        must(weft_await(promise) == i);
        free(promise);
    }
    return weft_chan_close(promises);
}

static void a_cancellation_races_with_the_set(void **state)
{
    pthread_t thread;

    (void)state;
    promises = weft_chan_new(sizeof(weft_promise *), 1);
    assert_non_null(promises);
    assert_int_equal(pthread_create(&thread, NULL, set_what_comes, NULL), 0);
    assert_int_equal(run_beside_threads(2, cancel_against_set, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    weft_chan_free(promises);
}

/* ---- awaiting without a stack ---- */

static const uint32_t few_workers[] = {1, 2, 8};

struct stackless {
    weft_frame frame;
    weft_promise *promise;
    intptr_t rc, result;
};

static intptr_t await_stackless(void *arg)
{
    struct stackless *self = arg;

    WEFT_BEGIN(self);
    WEFT_AWAIT(self, self->rc, weft_async_promise(self->promise, &self->result));
    WEFT_END(self, self->rc);
}

static intptr_t many_stackless_awaiters(void *arg)
{
    const intptr_t results[] = {0, 5, -EIO, INTPTR_MAX, INTPTR_MIN};
    struct stackless awaiters[6];
    weft_task *tasks[6];

    (void)arg;
    for (size_t r = 0; r < 2 * sizeof(results) / sizeof(results[0]); r++) {
        intptr_t result = results[r / 2];

        shared = (weft_promise)WEFT_PROMISE_INIT;
        if (r % 2)
            must_be(weft_promise_set(&shared, result), 0);
        for (int i = 0; i < 6; i++) {
            awaiters[i] = (struct stackless){.promise = &shared};
            must((tasks[i] = weft_spawn_stackless(await_stackless, &awaiters[i])) != NULL);
        }
        must_be(weft_yield(), 0);
        must_be(weft_promise_set(&shared, result), r % 2 ? -EALREADY : 0);
        for (int i = 0; i < 6; i++) {
            must_be(weft_await(tasks[i]), 0);
            must_be(awaiters[i].result, result);
        }
    }
    return 0;
}

static void stackless_awaiters_get_the_result(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on(few_workers[i], many_stackless_awaiters, NULL), 0);
}

static intptr_t stackless_gives_up(void *arg)
{
    struct stackless awaiters[3];
    weft_task *tasks[3];

    (void)arg;
    for (int who = 0; who < 3; who++) {
        shared = (weft_promise)WEFT_PROMISE_INIT;
        for (int i = 0; i < 3; i++) {
            awaiters[i] = (struct stackless){.promise = &shared};
            must((tasks[i] = weft_spawn_stackless(await_stackless, &awaiters[i])) != NULL);
        }
        must_be(weft_yield(), 0);
        must_be(weft_cancel(tasks[who]), 1);
        must_be(weft_await(tasks[who]), -ECANCELED);
        must_be(weft_promise_set(&shared, 9), 0);
        for (int i = 0; i < 3; i++) {
            must(i == who || weft_await(tasks[i]) == 0);
            must_be(awaiters[i].result, i == who ? 0 : 9);
        }
    }
    return weft_async_promise(&shared, NULL);
}

static void a_cancelled_stackless_awaiter_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(stackless_gives_up, NULL), -EPERM);
    assert_int_equal(weft_async_promise(&shared, NULL), -EPERM);
}

/* ---- what follows ---- */

struct call {
    _Atomic int calls;
    _Atomic intptr_t result;
};

static intptr_t note(intptr_t result, void *arg)
{
    struct call *call = arg;

    call->result = result;
    call->calls++;
    return result + 1;
}

static intptr_t follow_up(void *arg)
{
    weft_promise promise = WEFT_PROMISE_INIT;
    struct call calls[3] = {0};
    weft_task *tasks[3];

    (void)arg;
    must((tasks[0] = weft_promise_then(&promise, note, &calls[0])) != NULL);
    must((tasks[1] = weft_promise_then(&promise, note, &calls[1])) != NULL);
    must_be(weft_yield(), 0);
    must_be(calls[0].calls, 0);
    must_be(weft_promise_set(&promise, 41), 0);
    must((tasks[2] = weft_promise_then(&promise, note, &calls[2])) != NULL);
    if (weft_runtime_workers(weft_runtime_current()) == 1)
        must_be(calls[0].calls + calls[1].calls + calls[2].calls, 0); /* never inside the set or the call */
    for (int i = 0; i < 3; i++) {
        must_be(weft_await(tasks[i]), 42);
        must_be(calls[i].calls, 1);
        must_be(calls[i].result, 41);
    }
    return 0;
}

static void what_follows_runs_as_a_task_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_on(few_workers[i], follow_up, NULL), 0);
}

static intptr_t cancel_what_follows(void *arg)
{
    weft_promise promise = WEFT_PROMISE_INIT;

    (void)arg;
    for (int started = 0; started < 2; started++) {
        struct call call = {0};
        weft_task *task = weft_promise_then(&promise, note, &call);

        must(task != NULL);
        if (started)
            must_be(weft_yield(), 0);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), -ECANCELED + 1);
        must_be(call.calls, 1);
        must_be(call.result, -ECANCELED);
    }
    return weft_promise_set(&promise, 0);
}

static void what_follows_a_cancelled_wait_is_told(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancel_what_follows, NULL), 0);
}

static struct call forsaken[2];

static intptr_t leave_it_behind(void *arg)
{
    weft_task *task;

    (void)arg;
    shared = (weft_promise)WEFT_PROMISE_INIT;
    must((task = weft_promise_then(&shared, note, &forsaken[0])) != NULL);
    weft_detach(task);
    must_be(weft_yield(), 0);
    must((task = weft_promise_then(&shared, note, &forsaken[1])) != NULL); /* this one has not started */
    weft_detach(task);
    return 0;
}

static void what_follows_is_told_of_the_end_of_the_runtime(void **state)
{
    weft_config config = {.workers = 1};
    weft_runtime *runtime;

    (void)state;
    assert_int_equal(weft_runtime_start(&config, &runtime), 0);
    assert_int_equal(weft_runtime_run(runtime, leave_it_behind, NULL), 0);
    assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(forsaken[i].calls, 1);
        assert_int_equal(forsaken[i].result, -ECANCELED);
    }
    assert_null(weft_promise_then(&shared, note, NULL));
}

static intptr_t cancel_what_follows_a_set(void *arg)
{
    (void)arg;
    for (intptr_t i = 0; i < PROMISES; i++) {
        weft_promise *promise = calloc(1, sizeof(*promise)), *sent = promise;
        struct call call = {0};
        weft_task *task;

        must(promise != NULL && (task = weft_promise_then(promise, note, &call)) != NULL);
        if (i % 2)
            must_be(weft_yield(), 0);
        must_be(weft_chan_send(promises, &sent), 0);
        if (i % 3)
            must_be(weft_yield(), 0);
        weft_cancel(task);
        must_be(weft_await(task), call.result + 1);
        must_be(call.calls, 1);
        must(call.result == i || call.result == -ECANCELED);
        must_be(weft_await(promise), i);
        free(promise);
    }
    return weft_chan_close(promises);
}

static void what_follows_is_called_once_whatever_happens(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        pthread_t thread;

        promises = weft_chan_new(sizeof(weft_promise *), 1);
        assert_non_null(promises);
        assert_int_equal(pthread_create(&thread, NULL, set_what_comes, NULL), 0);
        assert_int_equal(run_beside_threads(few_workers[i], cancel_what_follows_a_set, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        weft_chan_free(promises);
    }
}

/* ---- failures that nobody takes ---- */

struct reports {
    int count;
    intptr_t last;
    char name[32];
};

static void hear(const char *name, intptr_t result, void *user)
{
    struct reports *reports = user;

    reports->count++;
    reports->last = result;
    snprintf(reports->name, sizeof reports->name, "%s", name);
}

/* Drop it: how many reports that makes. */
static int drop(struct reports *reports, weft_promise *promise)
{
    int before = reports->count;

    weft_promise_drop(promise);
    return reports->count - before;
}

static intptr_t drop_in_every_state(void *arg)
{
    struct reports *reports = arg;
    weft_promise unset = WEFT_PROMISE_INIT, good = WEFT_PROMISE_INIT, failed = WEFT_PROMISE_INIT;
    weft_promise awaited = WEFT_PROMISE_INIT, tried = WEFT_PROMISE_INIT, looked_at = WEFT_PROMISE_INIT;
    struct stackless stackless = {.promise = &failed};
    struct call call = {0};
    intptr_t result;
    weft_task *task;

    must_be(drop(reports, &unset), 0);
    must_be(weft_promise_set(&good, 4), 0);
    must_be(drop(reports, &good), 0);

    must_be(weft_promise_set(&failed, -EIO), 0);
    must_be(weft_promise_set(&failed, -EPERM), -EALREADY);
    must_be(drop(reports, &failed), 1);
    must_be(reports->last, -EIO);
    must(strcmp(reports->name, "promise") == 0);
    must_be(drop(reports, &failed), 0);

    must_be(weft_promise_set(&awaited, -EIO), 0);
    must_be(weft_await(&awaited), -EIO);
    must_be(drop(reports, &awaited), 0);
    must_be(weft_promise_set(&tried, -EIO), 0);
    must_be(weft_promise_try(&tried, &result), 1);
    must_be(drop(reports, &tried), 0);
    must_be(weft_promise_set(&looked_at, -ECANCELED), 0);
    must_be(weft_promise_try(&looked_at, NULL), 1); /* the result itself was not taken */
    must_be(drop(reports, &looked_at), 1);

    failed = (weft_promise)WEFT_PROMISE_INIT;
    must((task = weft_spawn_stackless(await_stackless, &stackless)) != NULL);
    must_be(weft_promise_set(&failed, -EIO), 0);
    must_be(weft_await(task), 0);
    must_be(drop(reports, &failed), 0);
    failed = (weft_promise)WEFT_PROMISE_INIT;
    must((task = weft_promise_then(&failed, note, &call)) != NULL);
    must_be(weft_promise_set(&failed, -EIO), 0);
    must_be(weft_await(task), -EIO + 1);
    must_be(drop(reports, &failed), 0);

    /* Those who wait when it is set take it; one that has given up does not. */
    queue(&task, 1);
    must_be(weft_promise_set(&shared, -EIO), 0);
    must_be(drop(reports, &shared), 0);
    must_be(weft_await(task), -EIO);
    queue(&task, 1);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    must_be(weft_promise_set(&shared, -EIO), 0);
    must_be(drop(reports, &shared), 1);
    return 0;
}

static void a_failure_that_nobody_takes_is_reported_once(void **state)
{
    struct reports reports = {0};
    weft_config config = {.workers = 1, .on_unseen_failure = hear, .user = &reports};
    weft_promise outside = WEFT_PROMISE_INIT;

    (void)state;
    assert_int_equal(run_with(&config, drop_in_every_state, &reports), 0);
    assert_int_equal(reports.count, 3);
    assert_int_equal(weft_promise_set(&outside, -EIO), 0);
    weft_promise_drop(&outside); /* there is nobody to tell */
    assert_int_equal(reports.count, 3);
}

static void drop_outside(void *arg)
{
    weft_promise promise = WEFT_PROMISE_INIT;

    (void)arg;
    must_be(weft_promise_set(&promise, -EIO), 0);
    weft_promise_drop(&promise);
    weft_promise_drop(&promise);
}

static void outside_a_runtime_debug_mode_says_so(void **state)
{
    char text[1000], *said;

    (void)state;
    assert_int_equal(setenv("WEFT_DEBUG", "1", 1), 0);
    assert_int_equal(run_in_child(drop_outside, NULL, text, sizeof text), 0);
    assert_non_null(said = strstr(text, "promise"));
    assert_non_null(strstr(text, "Input/output error"));
    assert_null(strstr(said + 20, "promise"));
    assert_int_equal(setenv("WEFT_DEBUG", "0", 1), 0);
    assert_int_equal(run_in_child(drop_outside, NULL, text, sizeof text), 0);
    assert_string_equal(text, "");
    assert_int_equal(unsetenv("WEFT_DEBUG"), 0);
}

/* ---- a set on one worker against a cancellation on another ---- */

static void new_promise(void *arg)
{
    (void)arg;
    shared = (weft_promise)WEFT_PROMISE_INIT;
}

static void set_seven(void *arg)
{
    (void)arg;
    must_be(weft_promise_set(&shared, 7), 0);
}

static void all_have_the_result(void *arg, const intptr_t *results)
{
    (void)arg;
    for (int i = 0; i < RACE_WAITERS_MOST; i++)
        must(results[i] == 7 || (results[i] == -ECANCELED && i == RACE_WAITERS_MOST - 1));
}

static void an_awaiter_is_cancelled_while_all_are_woken(void **state)
{
    const struct race race = {RACE_WAITERS_MOST, new_promise, await_shared, set_seven, all_have_the_result};

    (void)state;
    run_race(&race, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_once),
        cmocka_unit_test(every_awaiter_gets_the_result),
        cmocka_unit_test(a_cancelled_awaiter_leaves_the_queue),
        cmocka_unit_test(an_awaiter_cancelled_at_the_set_gets_the_result),
        cmocka_unit_test(a_deadline_or_a_cancellation_ends_the_wait),
        cmocka_unit_test(threads_await_what_a_task_sets),
        cmocka_unit_test(the_awaiter_may_free_the_promise_at_once),
        cmocka_unit_test(a_cancellation_races_with_the_set),
        cmocka_unit_test(stackless_awaiters_get_the_result),
        cmocka_unit_test(a_cancelled_stackless_awaiter_leaves_the_queue),
        cmocka_unit_test(what_follows_runs_as_a_task_of_its_own),
        cmocka_unit_test(what_follows_a_cancelled_wait_is_told),
        cmocka_unit_test(what_follows_is_told_of_the_end_of_the_runtime),
        cmocka_unit_test(what_follows_is_called_once_whatever_happens),
        cmocka_unit_test(a_failure_that_nobody_takes_is_reported_once),
        cmocka_unit_test(outside_a_runtime_debug_mode_says_so),
        cmocka_unit_test(an_awaiter_is_cancelled_while_all_are_woken),
    };

    return run_all(tests, argc, argv);
}
