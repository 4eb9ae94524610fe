/* weft_promise: set once, from anywhere; awaited by many; freed by its awaiter; cancellation at every point. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <weft.h>

#include <cmocka.h>

/* For code on other stacks and threads, from which cmocka cannot jump back. */
#define must(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

static intptr_t run_on(uint32_t workers, weft_fn *fn)
{
    weft_config config = {.workers = workers};
    weft_runtime *runtime;
    intptr_t result;

    must(weft_runtime_start(&config, &runtime) == 0);
    result = weft_runtime_run(runtime, fn, NULL);
    must(weft_runtime_stop(runtime, WEFT_SEC(10)) == 0);
    return result;
}

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
    assert_int_equal(run_on(1, many_awaiters), 0);
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
    assert_int_equal(run_on(1, give_up_anywhere), 0);
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
    assert_int_equal(run_on(1, cancelled_at_the_set), 4);
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
    assert_int_equal(run_on(1, deadline_and_cancelled_caller), 8);
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
    assert_int_equal(run_on(1, set_in_task), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_int_equal((intptr_t)result, 77);
    }
}

/* ---- a promise that is gone as soon as an awaiter knows its result ---- */

enum { PROMISES = 3000 };

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
    assert_int_equal(run_on(2, await_and_free), 0);
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
    assert_int_equal(run_on(2, cancel_against_set), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    weft_chan_free(promises);
}

int main(void)
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
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
