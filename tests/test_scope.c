/* Scopes: deadlines that nest, reach what is awaited, and are kept off by masks. */
#include "support.h"

#define LONG WEFT_SEC(1000)

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

/* ---- one deadline ---- */

static intptr_t one_deadline(void *arg)
{
    weft_event never = WEFT_EVENT_INIT;
    weft_mutex mutex = WEFT_MUTEX_INIT;
    weft_timeout t;
    int64_t before = weft_now();
    int rc;

    (void)arg;
    must_be(weft_mutex_lock(&mutex), 0);
    must_be(weft_timeout_begin(&t, WEFT_MS(5)), 0);
    rc = weft_yield();
    must(rc == 0 || (rc == -ETIMEDOUT && weft_now() - before >= WEFT_MS(5)));
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must(weft_now() - before >= WEFT_MS(5));
    /* It stays so for every wait. */
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_yield(), -ETIMEDOUT);
    must_be(weft_event_wait(&never), -ETIMEDOUT);
    must_be(weft_mutex_lock(&mutex), -ETIMEDOUT);
    must_be(weft_cancelled(), 0);
    must_be(weft_timeout_end(&t), 1);
    must_be(weft_yield(), 0);
    must_be(weft_sleep(WEFT_US(1)), 0);

    /* Not reached, or reached while nobody waited. */
    must_be(weft_timeout_begin(&t, LONG), 0);
    must_be(weft_sleep(WEFT_US(1)), 0);
    must_be(weft_timeout_end(&t), 0);
    must_be(weft_timeout_begin(&t, WEFT_US(1)), 0);
    before = weft_now();
    while (weft_now() - before < WEFT_MS(1))
        ;
    must_be(weft_timeout_end(&t), 0);

    must_be(weft_timeout_begin(&t, WEFT_FOREVER), 0);
    must_be(weft_sleep(WEFT_US(1)), 0);
    must_be(weft_timeout_end(&t), 0);
    must_be(weft_timeout_begin_at(&t, weft_now() + WEFT_MS(2)), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    must_be(weft_timeout_begin_at(&t, WEFT_FOREVER), 0);
    must_be(weft_timeout_end(&t), 0);
    must_be(weft_mutex_unlock(&mutex), 0);
    return 0;
}

static void every_wait_ends_once_the_deadline_has_passed(void **state)
{
    (void)state;
    run_everywhere(one_deadline);
}

static atomic_int ran;

static intptr_t note_run(void *arg)
{
    (void)arg;
    atomic_fetch_add(&ran, 1);
    return 1;
}

static intptr_t past_deadlines(void *arg)
{
    static const int64_t none[] = {0, -1, -LONG, INT64_MIN};
    weft_timeout t;

    (void)arg;
    atomic_store(&ran, 0);
    for (int i = 0; i < 4; i++) {
        must_be(weft_timeout_begin(&t, none[i]), 0);
        must_be(weft_sleep(LONG), -ETIMEDOUT);
        must_be(weft_yield(), -ETIMEDOUT);
        must_be(weft_sleep(0), -ETIMEDOUT);
        must_be(weft_timeout_end(&t), 1);
    }
    must_be(weft_timeout_begin_at(&t, 0), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    return 0;
}

static void a_deadline_of_zero_or_less_has_passed(void **state)
{
    (void)state;
    run_everywhere(past_deadlines);
}

static intptr_t awaits_too_late(void *arg)
{
    intptr_t result = 5;
    weft_timeout t;

    (void)arg;
    atomic_store(&ran, 0);
    must_be(weft_timeout_begin(&t, 0), 0);
    must_be(weft_await(spawn(note_run, NULL)), -ETIMEDOUT);
    must_be(weft_await_into(spawn(note_run, NULL), &result), -ETIMEDOUT);
    must_be(result, -ECANCELED);
    must_be(weft_timeout_end(&t), 1);
    must_be(atomic_load(&ran), 0);
    return 0;
}

static void a_task_that_is_awaited_too_late_never_starts(void **state)
{
    (void)state;
    assert_int_equal(run_alone(awaits_too_late, NULL), 0);
}

/* ---- nesting ---- */

static intptr_t nests(void *arg)
{
    weft_timeout outer, middle, inner;

    (void)arg;
    /* The outer one is earlier. */
    must_be(weft_timeout_begin(&outer, WEFT_MS(3)), 0);
    must_be(weft_timeout_begin(&middle, LONG), 0);
    must_be(weft_timeout_begin(&inner, WEFT_FOREVER), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&inner), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&middle), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&outer), 1);
    must_be(weft_yield(), 0);

    /* The inner one is earlier. */
    must_be(weft_timeout_begin(&outer, LONG), 0);
    must_be(weft_timeout_begin(&middle, LONG), 0);
    must_be(weft_timeout_begin(&inner, WEFT_MS(3)), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&inner), 1);
    must_be(weft_sleep(WEFT_US(1)), 0);
    must_be(weft_timeout_end(&middle), 0);
    must_be(weft_sleep(WEFT_US(1)), 0);
    must_be(weft_timeout_end(&outer), 0);

    /* The middle one; what is begun inside it later does not help. */
    must_be(weft_timeout_begin(&outer, LONG), 0);
    must_be(weft_timeout_begin(&middle, WEFT_MS(3)), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_begin(&inner, LONG), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&inner), 0);
    must_be(weft_timeout_end(&middle), 1);
    must_be(weft_yield(), 0);
    must_be(weft_timeout_end(&outer), 0);
    return 0;
}

static void the_earliest_deadline_wins_and_only_its_scope_says_so(void **state)
{
    (void)state;
    run_everywhere(nests);
}

static intptr_t resets(void *arg)
{
    weft_timeout t, outer;

    (void)arg;
    must_be(weft_timeout_begin(&t, WEFT_MS(2)), 0);
    weft_timeout_reset(&t, LONG);
    must_be(weft_sleep(WEFT_MS(5)), 0);
    weft_timeout_reset(&t, WEFT_MS(2));
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);

    must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
    weft_timeout_reset(&t, WEFT_FOREVER);
    must_be(weft_sleep(WEFT_MS(4)), 0);
    must_be(weft_timeout_end(&t), 0);

    must_be(weft_timeout_begin(&outer, LONG), 0);
    must_be(weft_timeout_begin(&t, LONG), 0);
    weft_timeout_reset(&outer, WEFT_MS(2)); /* not the innermost one */
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 0);
    must_be(weft_timeout_end(&outer), 1);
    return 0;
}

static void a_deadline_can_be_moved(void **state)
{
    (void)state;
    run_everywhere(resets);
}

/* ---- over an await ---- */

enum how { PLAIN, WINS, OWN_ERROR, MASKED, OWN_SCOPE };

static weft_event go_on;
static atomic_int started, ended;

static intptr_t child(void *arg)
{
    weft_timeout t;
    intptr_t result = 0;

    atomic_store(&started, 1);
    switch ((intptr_t)arg) {
    case PLAIN:
        result = weft_sleep(LONG);
        must_be(result, -ECANCELED);
        must_be(weft_yield(), -ECANCELED);
        must_be(weft_cancelled(), 1);
        break;
    case WINS:
        must_be(weft_sleep(LONG), -ECANCELED);
        result = 42;
        break;
    case OWN_ERROR:
        must_be(weft_sleep(LONG), -ECANCELED);
        result = -EIO;
        break;
    case MASKED:
        must_be(weft_mask_begin(), 0);
        must_be(weft_sleep(WEFT_MS(10)), 0);
        must_be(weft_mask_end(), 0);
        result = 43;
        break;
    case OWN_SCOPE:
        must_be(weft_timeout_begin(&t, WEFT_US(200)), 0);
        must_be(weft_sleep(LONG), -ETIMEDOUT);
        must_be(weft_timeout_end(&t), 1);
        result = 44;
        break;
    }
    atomic_store(&ended, 1);
    return result;
}

static void wait_for_start(int elsewhere)
{
    while (elsewhere && !atomic_load(&started))
        must_be(weft_yield(), 0);
}

static void await_under_deadline(intptr_t how, int elsewhere, int into)
{
    static const intptr_t expected[] = {-ECANCELED, 42, -EIO, 43, 44};
    weft_task *task = spawn(child, (void *)how);
    intptr_t result;
    weft_timeout t;
    int64_t ns = how == OWN_SCOPE ? LONG : WEFT_MS(3);

    atomic_store(&started, 0);
    atomic_store(&ended, 0);
    wait_for_start(elsewhere);
    must_be(weft_timeout_begin(&t, ns), 0);
    if (into) {
        int rc = weft_await_into(task, &result);

        must_be(result, expected[how]);
        if (how == PLAIN || how == WINS || how == OWN_ERROR)
            must_be(rc, -ETIMEDOUT);
        else if (how == OWN_SCOPE)
            must_be(rc, 0);
    } else {
        must_be(weft_await(task), how == PLAIN ? -ETIMEDOUT : expected[how]);
    }
    must_be(atomic_load(&ended), 1);
    if (how == OWN_SCOPE) {
        must_be(weft_yield(), 0);
        must_be(weft_timeout_end(&t), 0);
    } else {
        must_be(weft_yield(), -ETIMEDOUT);
        must_be(weft_timeout_end(&t), 1);
    }
    must_be(weft_cancelled(), 0);
    must_be(weft_yield(), 0);
    /* Nothing is left over from it for the next await. */
    must_be(weft_await(spawn(note_run, NULL)), 1);
}

static intptr_t awaits_under_deadlines(void *arg)
{
    (void)arg;
    for (intptr_t how = PLAIN; how <= OWN_SCOPE; how++)
        for (int i = 0; i < 4; i++)
            await_under_deadline(how, i % 2, i / 2);
    return 0;
}

/* The deadlines are those of a task that itself runs in place. */
static intptr_t awaits_deeper(void *arg)
{
    (void)arg;
    must_be(weft_await(spawn(awaits_under_deadlines, NULL)), 0);
    return 0;
}

static void a_deadline_cancels_what_is_awaited_in_place_and_elsewhere(void **state)
{
    (void)state;
    run_everywhere(awaits_under_deadlines);
    run_everywhere(awaits_deeper);
}

static intptr_t middle_man(void *arg)
{
    weft_timeout own;
    intptr_t rc;

    must_be(weft_timeout_begin(&own, LONG), 0);
    rc = weft_await(spawn(child, arg));
    must_be(rc, -ECANCELED); /* the deadline was somebody else's */
    must_be(weft_cancelled(), 1);
    must_be(weft_timeout_end(&own), 0);
    return rc;
}

static intptr_t awaits_two_deep(void *arg)
{
    weft_timeout t;

    (void)arg;
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        weft_task *task;

        atomic_store(&started, 0);
        task = spawn(middle_man, (void *)(intptr_t)PLAIN);
        wait_for_start(elsewhere);
        must_be(weft_timeout_begin(&t, WEFT_MS(3)), 0);
        must_be(weft_await(task), -ETIMEDOUT);
        must_be(weft_timeout_end(&t), 1);
    }
    return 0;
}

static void for_the_tasks_in_between_it_is_a_cancellation(void **state)
{
    (void)state;
    run_everywhere(awaits_two_deep);
}

/* Cancelled before its deadline, a task is cancelled and not late. */
static intptr_t is_cancelled_in_scope(void *arg)
{
    weft_timeout t;

    (void)arg;
    must_be(weft_timeout_begin(&t, LONG), 0);
    atomic_store(&started, 1);
    must_be(weft_event_wait(&go_on), -ECANCELED);
    must_be(weft_timeout_end(&t), 0);
    return 5;
}

static intptr_t cancels_in_scope(void *arg)
{
    weft_task *task;

    (void)arg;
    go_on = (weft_event)WEFT_EVENT_INIT;
    atomic_store(&started, 0);
    task = spawn(is_cancelled_in_scope, NULL);
    while (!atomic_load(&started))
        must_be(weft_yield(), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), 5);
    return 0;
}

static void cancelled_before_its_deadline_a_task_is_not_late(void **state)
{
    (void)state;
    run_everywhere(cancels_in_scope);
}

/* ---- masks ---- */

static intptr_t masks(void *arg)
{
    weft_timeout outer, inner;

    (void)arg;
    must_be(weft_timeout_begin(&outer, WEFT_MS(1)), 0);
    must_be(weft_mask_begin(), 0);
    must_be(weft_sleep(WEFT_MS(4)), 0);
    must_be(weft_yield(), 0);
    must_be(weft_await(spawn(note_run, NULL)), 1);
    /* Those begun inside hold. */
    must_be(weft_timeout_begin(&inner, WEFT_MS(1)), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&inner), 1);
    must_be(weft_sleep(WEFT_US(10)), 0);
    must_be(weft_mask_begin(), 0);
    must_be(weft_timeout_begin(&inner, WEFT_MS(1)), 0);
    must_be(weft_mask_begin(), 0);
    must_be(weft_sleep(WEFT_MS(3)), 0);
    must_be(weft_mask_end(), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&inner), 1);
    must_be(weft_mask_end(), 0);
    must_be(weft_mask_end(), 0);
    must_be(weft_sleep(LONG), -ETIMEDOUT);
    must_be(weft_timeout_end(&outer), 1);
    must_be(weft_mask_end(), -EINVAL);
    return 0;
}

static void a_mask_keeps_off_the_deadlines_that_were_set_before(void **state)
{
    (void)state;
    run_everywhere(masks);
}

/* ---- other waits ---- */

static intptr_t slow_call(void *arg)
{
    atomic_store(&ran, 1);
    nap(WEFT_MS(20));
    return (intptr_t)arg;
}

static intptr_t waits_in_other_ways(void *arg)
{
    weft_promise promise = WEFT_PROMISE_INIT;
    weft_chan *chan = weft_chan_new(1, 1);
    intptr_t result;
    weft_timeout t;
    int fds[2];
    char byte;

    (void)arg;
    must(chan != NULL);
    must_be(pipe(fds), 0);
    must_be(weft_timeout_begin(&t, WEFT_MS(2)), 0);
    must_be(weft_chan_recv(chan, &byte), -ETIMEDOUT);
    weft_timeout_reset(&t, WEFT_MS(2));
    must_be(weft_await(&promise), -ETIMEDOUT);
    weft_timeout_reset(&t, WEFT_MS(2));
    must_be(weft_read(fds[0], &byte, 1), -ETIMEDOUT);
    weft_timeout_reset(&t, WEFT_MS(2));
    must_be(weft_poll(fds[0], 1, WEFT_FOREVER), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    /* Once it runs, a call is waited for; before that, it is taken back. */
    atomic_store(&ran, 0);
    must_be(weft_timeout_begin(&t, WEFT_MS(2)), 0);
    result = weft_blocking(slow_call, (void *)6);
    must_be(result, atomic_load(&ran) ? 6 : -ETIMEDOUT);
    weft_timeout_end(&t);
    must_be(weft_close(fds[0]), 0);
    must_be(weft_close(fds[1]), 0);
    weft_chan_free(chan);
    return 0;
}

static void deadlines_end_every_kind_of_wait(void **state)
{
    (void)state;
    run_everywhere(waits_in_other_ways);
}

/* ---- misuse ---- */

static intptr_t misuses(void *arg)
{
    weft_timeout outer, inner;

    (void)arg;
    must_be(weft_mask_end(), -EINVAL);
    must_be(weft_timeout_begin(&outer, LONG), 0);
    must_be(weft_timeout_begin(&inner, LONG), 0);
    must_be(weft_timeout_end(&outer), -EINVAL);
    must_be(weft_timeout_end(&inner), 0);
    must_be(weft_timeout_end(&inner), -EINVAL);
    must_be(weft_timeout_end(&outer), 0);
    must_be(weft_timeout_end(&outer), -EINVAL);
    return 0;
}

static void misuse_is_refused(void **state)
{
    weft_timeout t = {0};

    (void)state;
    run_everywhere(misuses);
    assert_int_equal(weft_timeout_begin(&t, LONG), -EPERM);
    assert_int_equal(weft_timeout_begin_at(&t, LONG), -EPERM);
    assert_int_equal(weft_timeout_end(&t), -EINVAL);
    assert_int_equal(weft_mask_begin(), -EPERM);
    assert_true(weft_mask_end() < 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_wait_ends_once_the_deadline_has_passed),
        cmocka_unit_test(a_deadline_of_zero_or_less_has_passed),
        cmocka_unit_test(a_task_that_is_awaited_too_late_never_starts),
        cmocka_unit_test(the_earliest_deadline_wins_and_only_its_scope_says_so),
        cmocka_unit_test(a_deadline_can_be_moved),
        cmocka_unit_test(a_deadline_cancels_what_is_awaited_in_place_and_elsewhere),
        cmocka_unit_test(for_the_tasks_in_between_it_is_a_cancellation),
        cmocka_unit_test(cancelled_before_its_deadline_a_task_is_not_late),
        cmocka_unit_test(a_mask_keeps_off_the_deadlines_that_were_set_before),
        cmocka_unit_test(deadlines_end_every_kind_of_wait),
        cmocka_unit_test(misuse_is_refused),
    };

    return run_all(tests, argc, argv);
}
