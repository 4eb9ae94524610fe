/* weft_shield: what reaches the shielded task and what does not, and who hears of its failure. */
#include "support.h"

static const uint32_t few_workers[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof few_workers / sizeof *few_workers; i++)
        must_be(run_on(few_workers[i], fn, NULL), 0);
}

#define CASE(name)                 \
    static void name(void **state) \
    {                              \
        (void)state;               \
        on_each(name##_task);      \
    }

struct inner {
    weft_event go;
    weft_event ended;
    int saw;
    atomic_int working, shielding;
    intptr_t result;
    weft_task *task;
};

static intptr_t work(void *arg)
{
    struct inner *inner = arg;

    atomic_store(&inner->working, 1);
    inner->saw = weft_event_wait(&inner->go);
    weft_event_set(&inner->ended);
    return inner->result;
}

static intptr_t shield(void *arg)
{
    struct inner *inner = arg;

    atomic_store(&inner->shielding, 1);
    return weft_shield(inner->task);
}

static intptr_t shield_with_deadline(void *arg)
{
    weft_timeout scope;
    intptr_t rc;

    must_be(weft_timeout_begin(&scope, WEFT_US(100)), 0);
    rc = weft_shield(((struct inner *)arg)->task);
    must_be(weft_timeout_end(&scope), 1);
    return rc;
}

static intptr_t result_task(void *arg)
{
    for (int round = 0; round < FEWER(1000); round++) {
        weft_task *task = weft_spawn(return_arg, (void *)4);

        if (round % 2)
            must_be(weft_yield(), 0);
        must_be(weft_shield(task), 4);
    }
    must_be(weft_shield(NULL), -EINVAL);
    must_be(weft_shield(weft_self()), -EDEADLK);
    must_be(weft_shield(weft_spawn(return_arg, (void *)(intptr_t)-EIO)), -EIO);
    return (intptr_t)arg;
}
CASE(result)

static void shielded_from(bool deadline)
{
    struct inner *inner = calloc(1, sizeof *inner);
    weft_task *outer;

    must(inner != NULL);
    inner->task = weft_spawn(work, inner);
    outer = weft_spawn(deadline ? shield_with_deadline : shield, inner);
    if (!deadline) {
        wait_until_true(atomic_load(&inner->shielding));
        must_be(weft_cancel(outer), 1);
    }
    must_be(weft_await(outer), deadline ? -ETIMEDOUT : -ECANCELED);
    weft_event_set(&inner->go);
    must_be(weft_event_wait(&inner->ended), 0);
    must_be(inner->saw, 0); /* nothing reached it */
    free(inner);
}

static intptr_t outer_only_task(void *arg)
{
    for (int round = 0; round < FEWER(100); round++)
        shielded_from(round % 2);
    return (intptr_t)arg;
}
CASE(outer_only)

static intptr_t shield_when_cancelled(void *arg)
{
    weft_task *running = weft_spawn(work, arg), *ended = weft_spawn(return_arg, (void *)6);

    while (!weft_task_done(ended))
        must_be(weft_yield(), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_shield(running), -ECANCELED);
    must_be(weft_shield(ended), 6); /* a result that is there is not thrown away */
    must_be(weft_uncancel(), 1);
    return 0;
}

static intptr_t beforehand_task(void *arg)
{
    struct inner inner = {.saw = 1};

    must_be(weft_await(weft_spawn(shield_when_cancelled, &inner)), 0);
    weft_event_set(&inner.go);
    must_be(weft_event_wait(&inner.ended), 0);
    must_be(inner.saw, 0);
    return (intptr_t)arg;
}
CASE(beforehand)

static intptr_t inner_cancelled_task(void *arg)
{
    struct inner inner = {.saw = 1};
    weft_task *outer;

    inner.result = -ECANCELED;
    inner.task = weft_spawn(work, &inner);
    outer = weft_spawn(shield, &inner);
    wait_until_true(atomic_load(&inner.working));
    must_be(weft_cancel(inner.task), 1);
    must_be(weft_await(outer), -ECANCELED);
    must_be(inner.saw, -ECANCELED);
    return (intptr_t)arg;
}
CASE(inner_cancelled)

/* ---- reports ---- */

static intptr_t fail_later(void *arg)
{
    must_be(weft_sleep(WEFT_MS(5)), 0);
    return (intptr_t)arg;
}

static intptr_t let_it_fail(void *arg)
{
    weft_spawn_options options = {.name = "sheltered"};
    weft_timeout scope;

    must_be(weft_timeout_begin(&scope, WEFT_MS(1)), 0);
    must_be(weft_shield(weft_spawn_with(&options, fail_later, (void *)(intptr_t)-EIO)), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    return (intptr_t)arg;
}

static void count_report(const char *name, intptr_t result, void *user)
{
    must(strcmp(name, "sheltered") == 0);
    must_be(result, -EIO);
    atomic_fetch_add((atomic_int *)user, 1);
}

static void a_later_failure_is_reported_once(void **state)
{
    atomic_int reports = 0;
    weft_config config = {.workers = 2, .on_unseen_failure = count_report, .user = &reports};

    (void)state;
    must_be(run_with(&config, let_it_fail, NULL), 0);
    must_be(atomic_load(&reports), 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        {"shield_gives_the_result", result, NULL, NULL, NULL},
        {"the_callers_cancellation_and_deadline_end_the_wait_only", outer_only, NULL, NULL, NULL},
        {"a_cancelled_caller_leaves_the_task_alone", beforehand, NULL, NULL, NULL},
        {"cancelling_the_inner_task_ends_the_wait", inner_cancelled, NULL, NULL, NULL},
        cmocka_unit_test(a_later_failure_is_reported_once),
    };

    return run_all(tests, argc, argv);
}
