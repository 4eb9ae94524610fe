/* weft_group: children, their failures, cancellation from every side, deadlines, and that nothing is left behind. */
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

static void begin(weft_group *group)
{
    must_be(weft_group_begin(group), 0);
}

static void add(weft_group *group, weft_fn *fn, void *arg)
{
    must_be(weft_group_spawn(group, fn, arg), 0);
}

static intptr_t count_one(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
    return 0;
}

static intptr_t yield_and_count(void *arg)
{
    for (int i = 0; i < 3; i++)
        must_be(weft_yield(), 0);
    return count_one(arg);
}

static atomic_int sleeping;

/* Until it is cancelled; says so, and then takes a while to clean up. */
static intptr_t count_cancelled(void *arg)
{
    atomic_fetch_add(&sleeping, 1);
    must_be(sleep_for_ever(NULL), -ECANCELED);
    must_be(weft_mask_begin(), 0);
    must_be(weft_sleep(WEFT_US(200)), 0);
    must_be(weft_mask_end(), 0);
    atomic_fetch_add((atomic_int *)arg, 1);
    return -ECANCELED;
}

/* ---- waiting ---- */

static intptr_t all_ended_task(void *arg)
{
    for (int round = 0; round < FEWER(1000); round++) {
        weft_group group;
        atomic_int count = 0;

        begin(&group);
        for (int i = 0; i < 20; i++)
            add(&group, i % 2 ? yield_and_count : count_one, &count);
        if (round % 2)
            must_be(weft_yield(), 0);
        must_be(weft_group_wait(&group), 0);
        must_be(atomic_load(&count), 20);
        must_be(weft_group_live(&group), 0);
        must_be(weft_group_failed(&group), 0);
        must_be(weft_group_spawn(&group, count_one, &count), -ESHUTDOWN);
        must_be(weft_group_cancel(&group), 0);
    }
    return (intptr_t)arg;
}
CASE(all_ended)

static intptr_t empty_task(void *arg)
{
    weft_group group;

    begin(&group);
    must_be(weft_group_live(&group), 0);
    must_be(weft_group_wait(&group), 0);
    begin(&group);
    must_be(weft_group_cancel(&group), 1);
    must_be(weft_group_cancel(&group), 0);
    must_be(weft_group_spawn(&group, return_arg, NULL), -ECANCELED);
    must_be(weft_group_wait(&group), 0);
    return (intptr_t)arg;
}
CASE(empty)

static void outside_a_task_groups_are_refused(void **state)
{
    weft_group group;

    (void)state;
    must_be(weft_group_begin(&group), -EPERM);
    memset(&group, 0, sizeof group);
    must_be(weft_group_spawn(&group, return_arg, NULL), -EPERM);
    must_be(weft_group_wait(&group), -EPERM);
}

/* ---- children that spawn ---- */

struct tree {
    weft_group group;
    atomic_int nodes;
    int depth;
};

struct node {
    struct tree *tree;
    int depth;
};

static intptr_t grow(void *arg)
{
    struct node *node = arg;

    atomic_fetch_add(&node->tree->nodes, 1);
    for (int i = 0; i < 2 && node->depth > 0; i++) {
        struct node *child = malloc(sizeof *child);

        must(child != NULL);
        *child = (struct node){.tree = node->tree, .depth = node->depth - 1};
        add(&node->tree->group, grow, child);
        if (i == 0 && node->depth % 3 == 0)
            must_be(weft_yield(), 0);
    }
    free(node);
    return 0;
}

static intptr_t siblings_task(void *arg)
{
    for (int round = 0; round < FEWER(100); round++) {
        struct tree tree = {.depth = 7};
        struct node *root = malloc(sizeof *root);

        must(root != NULL);
        *root = (struct node){.tree = &tree, .depth = tree.depth};
        begin(&tree.group);
        add(&tree.group, grow, root);
        must_be(weft_group_wait(&tree.group), 0);
        must_be(atomic_load(&tree.nodes), 255);
    }
    return (intptr_t)arg;
}
CASE(siblings)

static intptr_t nested_group(void *arg)
{
    weft_group group;

    begin(&group);
    for (int i = 0; i < 4; i++)
        add(&group, yield_and_count, arg);
    return weft_group_wait(&group);
}

static intptr_t nested_task(void *arg)
{
    for (int round = 0; round < FEWER(200); round++) {
        weft_group group;
        atomic_int count = 0;

        begin(&group);
        for (int i = 0; i < 4; i++)
            add(&group, nested_group, &count);
        must_be(weft_group_wait(&group), 0);
        must_be(atomic_load(&count), 16);
    }
    return (intptr_t)arg;
}
CASE(nested)

/* ---- failures ---- */

static intptr_t fail_with(void *arg)
{
    must_be(weft_yield(), 0);
    return (intptr_t)arg;
}

static intptr_t first_failure_task(void *arg)
{
    for (int round = 0; round < FEWER(1000); round++) {
        weft_group_failure failure;
        atomic_int cancelled = 0;
        weft_group group;
        void *bad = (void *)(intptr_t)(round % 2 ? -EIO : -EPIPE);
        int position = round % 6;

        begin(&group);
        for (int i = 0; i < 6; i++) {
            int rc = i == position ? weft_group_spawn(&group, fail_with, bad)
                                   : weft_group_spawn(&group, count_cancelled, &cancelled);

            must(rc == 0 || (rc == -ECANCELED && i > position));
        }
        if (round % 3 == 0) {
            int rc = weft_sleep(WEFT_US(20));

            must(rc == 0 || rc == -ECANCELED);
        }
        must_be(weft_group_wait(&group), (intptr_t)bad);
        /* Cancelled before they started, they never run. */
        must(atomic_load(&cancelled) <= 5);
        must_be(weft_group_failed(&group), 1);
        must_be(weft_group_failure_at(&group, 0, &failure), 1);
        must_be(failure.result, (intptr_t)bad);
        must(failure.arg == bad);
        must_be(weft_group_failure_at(&group, 1, &failure), 0);
        must_be(weft_cancelled(), 0);
    }
    return (intptr_t)arg;
}
CASE(first_failure)

static intptr_t fail_when_cancelled(void *arg)
{
    atomic_fetch_add(&sleeping, 1);
    must_be(sleep_for_ever(NULL), -ECANCELED);
    return (intptr_t)arg;
}

static intptr_t all_failures_task(void *arg)
{
    weft_group_failure failure;
    weft_group group;

    atomic_store(&sleeping, 0);
    begin(&group);
    for (intptr_t i = 1; i <= 11; i++)
        add(&group, fail_when_cancelled, (void *)-i);
    wait_until_true(atomic_load(&sleeping) == 11);
    add(&group, fail_with, (void *)(intptr_t)-EIO);
    must_be(weft_group_wait(&group), -EIO);
    must_be(weft_group_failed(&group), 12);
    must_be(weft_group_failure_at(&group, 0, &failure), 1);
    must_be(failure.result, -EIO);
    for (size_t i = 1; i < WEFT_GROUP_FAILURES; i++) {
        must_be(weft_group_failure_at(&group, i, &failure), 1);
        must(failure.result >= -11 && failure.result <= -1);
    }
    must_be(weft_group_failure_at(&group, WEFT_GROUP_FAILURES, &failure), 0);
    return (intptr_t)arg;
}
CASE(all_failures)

/* The failure takes effect while the owner is still busy in the body. */
/* In a body whose group has failed or will: a sleep is refused then. */
#define wait_in_failed_body(condition)            \
    do {                                          \
        while (!(condition)) {                    \
            must_be(weft_mask_begin(), 0);        \
            must_be(weft_sleep(WEFT_US(100)), 0); \
            must_be(weft_mask_end(), 0);          \
        }                                         \
    } while (0)

static intptr_t in_the_body_task(void *arg)
{
    atomic_int cancelled = 0, count = 0;
    weft_group group;

    begin(&group);
    atomic_store(&sleeping, 0);
    add(&group, count_cancelled, &cancelled);
    add(&group, count_cancelled, &cancelled);
    wait_in_failed_body(atomic_load(&sleeping) == 2);
    add(&group, fail_with, (void *)(intptr_t)-EIO);
    wait_in_failed_body(atomic_load(&cancelled) == 2);
    must_be(weft_group_spawn(&group, count_one, &count), -ECANCELED);
    wait_in_failed_body(weft_group_live(&group) == 0);
    must_be(weft_group_wait(&group), -EIO);
    must_be(atomic_load(&count), 0);
    return (intptr_t)arg;
}
CASE(in_the_body)

static intptr_t return_cancelled(void *arg)
{
    (void)arg;
    return -ECANCELED;
}

static intptr_t silent_task(void *arg)
{
    weft_group group;
    atomic_int cancelled = 0;

    begin(&group);
    atomic_store(&sleeping, 0);
    add(&group, count_cancelled, &cancelled);
    wait_until_true(atomic_load(&sleeping) == 1);
    must_be(weft_group_cancel(&group), 1);
    must_be(weft_group_wait(&group), 0);
    must_be(atomic_load(&cancelled), 1);
    must_be(weft_group_failed(&group), 0);
    /* One that nobody cancelled has failed with that result. */
    begin(&group);
    add(&group, return_cancelled, NULL);
    must_be(weft_group_wait(&group), -ECANCELED);
    must_be(weft_group_failed(&group), 1);
    return (intptr_t)arg;
}
CASE(silent)

/* ---- the owner is interrupted ---- */

struct owner {
    atomic_int waiting, cancelled;
    int children;
};

static intptr_t wait_for_children(void *arg)
{
    struct owner *owner = arg;
    weft_group group;
    intptr_t rc;

    begin(&group);
    for (int i = 0; i < owner->children; i++)
        add(&group, count_cancelled, &owner->cancelled);
    atomic_store(&owner->waiting, 1);
    rc = weft_group_wait(&group);
    must_be(weft_group_live(&group), 0);
    must_be(weft_cancelled(), 1);
    return rc == -ECANCELED ? 0 : rc - 1;
}

static intptr_t owner_cancelled_task(void *arg)
{
    for (int round = 0; round < FEWER(500); round++) {
        struct owner owner = {.children = 1 + round % 40};
        weft_task *task = weft_spawn(wait_for_children, &owner);

        wait_until_true(atomic_load(&owner.waiting));
        for (int i = 0; i < round % 7; i++)
            must_be(weft_yield(), 0);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), 0);
        must(atomic_load(&owner.cancelled) <= owner.children);
    }
    return (intptr_t)arg;
}

static intptr_t wait_when_cancelled(void *arg)
{
    atomic_int *count = arg;
    weft_group group;

    begin(&group);
    for (int i = 0; i < 5; i++)
        add(&group, count_one, count);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_group_wait(&group), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return 0;
}

static intptr_t level_task(void *arg)
{
    atomic_int count = 0;

    must_be(weft_await(weft_spawn(wait_when_cancelled, &count)), 0);
    if (weft_runtime_workers(weft_runtime_current()) == 1)
        must_be(atomic_load(&count), 0);
    return (intptr_t)arg;
}
CASE(level)

/* A child that runs in place and takes long to clean up does not keep the others from being cancelled. */
struct chain {
    weft_event other_cancelled;
    atomic_int started;
};

static intptr_t wait_for_the_other(void *arg)
{
    struct chain *chain = arg;

    atomic_fetch_add(&chain->started, 1);
    while (atomic_load(&chain->started) < 2)
        if (weft_yield() < 0)
            return -ECANCELED;
    must_be(sleep_for_ever(NULL), -ECANCELED);
    must_be(weft_mask_begin(), 0);
    must_be(weft_event_wait(&chain->other_cancelled), 0);
    must_be(weft_mask_end(), 0);
    return -ECANCELED;
}

static intptr_t tell_when_cancelled(void *arg)
{
    struct chain *chain = arg;

    atomic_fetch_add(&chain->started, 1);
    must_be(sleep_for_ever(NULL), -ECANCELED);
    weft_event_set(&chain->other_cancelled);
    return -ECANCELED;
}

static intptr_t own_chain(void *arg)
{
    weft_group group;

    begin(&group);
    add(&group, wait_for_the_other, arg);
    add(&group, tell_when_cancelled, arg);
    return weft_group_wait(&group);
}

static intptr_t in_place_task(void *arg)
{
    for (int round = 0; round < FEWER(200); round++) {
        struct chain chain = {.started = 0};
        weft_task *task = weft_spawn(own_chain, &chain);
        weft_timeout scope;

        if (round % 2) {
            wait_until_true(atomic_load(&chain.started) == 2);
            must_be(weft_cancel(task), 1);
            must_be(weft_await(task), -ECANCELED);
        } else {
            must_be(weft_timeout_begin(&scope, WEFT_US(300)), 0);
            must_be(weft_await(task), -ETIMEDOUT);
            must_be(weft_timeout_end(&scope), 1);
        }
    }
    return (intptr_t)arg;
}
CASE(owner_cancelled)

CASE(in_place)

/* ---- deadlines ---- */

static intptr_t sleep_until_late(void *arg)
{
    atomic_int *late = arg;
    int rc = (int)sleep_for_ever(NULL);

    if (rc == -ETIMEDOUT || rc == -ECANCELED)
        atomic_fetch_add(late, 1);
    return rc;
}

static intptr_t inherited_task(void *arg)
{
    for (int round = 0; round < FEWER(100); round++) {
        atomic_int late = 0;
        weft_timeout scope;
        weft_group group;

        must_be(weft_timeout_begin(&scope, WEFT_US(500)), 0);
        begin(&group);
        for (int i = 0; i < 3; i++)
            add(&group, sleep_until_late, &late);
        if (round % 2) {
            /* The owner does not wait, but the children's deadline holds. */
            must_be(weft_mask_begin(), 0);
            wait_until_true(atomic_load(&late) > 0 || weft_now() > scope.deadline + WEFT_MS(50));
            must_be(weft_mask_end(), 0);
        }
        must_be(weft_group_wait(&group), -ETIMEDOUT);
        must_be(weft_timeout_end(&scope), 1);
        must(atomic_load(&late) <= 3);
    }
    return (intptr_t)arg;
}
CASE(inherited)

static intptr_t later_deadline_task(void *arg)
{
    atomic_int cancelled = 0;
    weft_timeout scope;
    weft_group group;

    begin(&group);
    atomic_store(&sleeping, 0);
    for (int i = 0; i < 3; i++)
        add(&group, count_cancelled, &cancelled);
    wait_until_true(atomic_load(&sleeping) == 3);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_group_wait(&group), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(atomic_load(&cancelled), 3);
    return (intptr_t)arg;
}
CASE(later_deadline)

static intptr_t past_task(void *arg)
{
    atomic_int count = 0;
    weft_timeout scope;
    weft_group group;

    must_be(weft_timeout_begin(&scope, 0), 0);
    begin(&group);
    add(&group, count_one, &count);
    must_be(weft_group_wait(&group), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    if (weft_runtime_workers(weft_runtime_current()) == 1)
        must_be(atomic_load(&count), 0); /* never started */
    return (intptr_t)arg;
}
CASE(past)

/* ---- cancelled by anybody ---- */

static intptr_t cancel_group(void *arg)
{
    return weft_group_cancel(arg) & 0;
}

static intptr_t cancelled_by_a_child_task(void *arg)
{
    for (int round = 0; round < FEWER(1000); round++) {
        weft_group group;

        begin(&group);
        for (int i = 0; i < 70; i++) {
            bool cancels = i % 35 == round % 35;
            int rc = weft_group_spawn(&group, cancels ? cancel_group : fail_when_cancelled,
                                      cancels ? (void *)&group : (void *)(intptr_t)-ECANCELED);

            must(rc == 0 || rc == -ECANCELED);
        }
        must_be(weft_group_wait(&group), 0);
        must_be(weft_group_cancel(&group), 0);
    }
    return (intptr_t)arg;
}
CASE(cancelled_by_a_child)

/* Children go on spawning into a group that is being cancelled: none of them escapes. */
struct flood {
    weft_group group;
    atomic_int refused;
    atomic_int spawned;
};

static intptr_t sleep_in_flood(void *arg)
{
    (void)arg;
    return sleep_for_ever(NULL);
}

static intptr_t spawn_until_refused(void *arg)
{
    struct flood *flood = arg;
    int rc;

    while ((rc = weft_group_spawn(&flood->group, sleep_in_flood, NULL)) == 0) {
        atomic_fetch_add(&flood->spawned, 1);
        if (weft_yield() < 0)
            break;
    }
    if (rc < 0)
        must_be(rc, -ECANCELED);
    atomic_fetch_add(&flood->refused, 1);
    return 0;
}

static intptr_t flood_task(void *arg)
{
    for (int round = 0; round < FEWER(100); round++) {
        struct flood flood = {.refused = 0};

        begin(&flood.group);
        for (int i = 0; i < 4; i++)
            add(&flood.group, spawn_until_refused, &flood);
        wait_until_true(atomic_load(&flood.spawned) >= 20);
        must_be(weft_group_cancel(&flood.group), 1);
        must_be(weft_group_wait(&flood.group), 0);
        must(atomic_load(&flood.refused) <= 4); /* or cancelled before it started */
        must_be(weft_group_live(&flood.group), 0);
    }
    return (intptr_t)arg;
}
CASE(flood)

/* ---- options ---- */

static intptr_t delayed_task(void *arg)
{
    for (int round = 0; round < FEWER(200); round++) {
        weft_spawn_options options = {.name = "later", .delay = WEFT_SEC(1000)};
        weft_spawn_options soon = {.delay = WEFT_US(100)};
        weft_spawn_options eager = {.flags = WEFT_SPAWN_EAGER};
        atomic_int never = 0, count = 0;
        weft_group group;

        begin(&group);
        must_be(weft_group_spawn_with(&group, &options, count_one, &never), 0);
        must_be(weft_group_spawn_with(&group, &soon, count_one, &count), 0);
        must_be(weft_group_spawn_with(&group, &eager, yield_and_count, &count), 0);
        wait_until_true(atomic_load(&count) == 2);
        must_be(weft_group_cancel(&group), 1);
        must_be(weft_group_wait(&group), 0);
        must_be(atomic_load(&never), 0);
    }
    return (intptr_t)arg;
}
CASE(delayed)

/* ---- cancellation at every suspension point ---- */

static intptr_t wander(void *arg)
{
    atomic_int *ended = arg;
    weft_group group;
    intptr_t rc;

    begin(&group);
    for (int i = 0; i < 4; i++)
        if (weft_group_spawn(&group, return_arg, NULL) < 0)
            break;
    rc = weft_yield();
    if (rc == 0)
        rc = weft_sleep(WEFT_US(1));
    rc = weft_group_wait(&group);
    must(rc == 0 || rc == -ECANCELED);
    atomic_fetch_add(ended, 1);
    return rc;
}

static intptr_t every_point_task(void *arg)
{
    for (int k = 0; k < 12; k++) {
        for (int round = 0; round < FEWER(100); round++) {
            atomic_int ended = 0;
            weft_group group;

            begin(&group);
            for (int i = 0; i < 3; i++)
                add(&group, wander, &ended);
            yield_times(k);
            weft_group_cancel(&group);
            must_be(weft_group_wait(&group), 0);
            must(atomic_load(&ended) <= 3);
        }
    }
    return (intptr_t)arg;
}
CASE(every_point)

/* ---- many ---- */

static intptr_t many_task(void *arg)
{
    atomic_int count = 0;
    weft_group group;

    begin(&group);
    for (int i = 0; i < FEWER(10000); i++)
        add(&group, i % 2 ? count_one : yield_and_count, &count);
    must_be(weft_group_wait(&group), 0);
    must_be(atomic_load(&count), FEWER(10000));
    begin(&group);
    for (int i = 0; i < FEWER(10000); i++)
        add(&group, sleep_in_flood, NULL);
    must_be(weft_sleep(WEFT_MS(20)), 0);
    must_be(weft_group_cancel(&group), 1);
    must_be(weft_group_wait(&group), 0);
    return (intptr_t)arg;
}
CASE(many)

/* A runtime that stops cancels the children as well. */
static intptr_t own_sleepers(void *arg)
{
    weft_group group;

    begin(&group);
    for (int i = 0; i < 5; i++)
        add(&group, sleep_in_flood, NULL);
    atomic_store((atomic_int *)arg, 1);
    must_be(weft_group_wait(&group), -ECANCELED);
    must_be(weft_group_failed(&group), 0);
    atomic_store((atomic_int *)arg, 2);
    return 0;
}

static void stopping_the_runtime_ends_groups(void **state)
{
    weft_config config = {.workers = 2};

    (void)state;
    for (int round = 0; round < FEWER(50); round++) {
        weft_runtime *runtime;
        atomic_int stage = 0;

        must_be(weft_runtime_start(&config, &runtime), 0);
        must_be(weft_runtime_go(runtime, own_sleepers, &stage), 0);
        while (atomic_load(&stage) == 0)
            nap(WEFT_US(50));
        must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
        must_be(atomic_load(&stage), 2);
    }
}

/* ---- the body ---- */

static intptr_t fail_soon(void *arg)
{
    must_be(weft_yield(), 0);
    return (intptr_t)arg;
}

static intptr_t body_is_cancelled_task(void *arg)
{
    (void)arg;
    for (int round = 0; round < FEWER(1000); round++) {
        weft_group outer, inner;

        begin(&outer);
        begin(&inner);
        add(&inner, fail_soon, (void *)-EIO);
        must_be(weft_sleep(WEFT_SEC(100)), -ECANCELED);
        must_be(weft_sleep(WEFT_SEC(100)), -ECANCELED);
        must_be(weft_group_spawn(&inner, fail_soon, NULL), -ECANCELED);
        must_be(weft_group_wait(&inner), -EIO);
        must_be(weft_sleep(0), 0); /* the outer body goes on */
        must_be(weft_cancelled(), 0);
        add(&outer, fail_soon, (void *)-EPROTO);
        begin(&inner);
        must_be(weft_sleep(WEFT_SEC(100)), -ECANCELED);
        must_be(weft_group_wait(&inner), -ECANCELED);
        must_be(weft_group_wait(&outer), -EPROTO);
        must_be(weft_sleep(WEFT_NS(1)), 0);
    }
    return 0;
}

CASE(body_is_cancelled)

static intptr_t body_awaits_task(void *arg)
{
    (void)arg;
    for (int round = 0; round < FEWER(1000); round++) {
        weft_group group;
        weft_task *task;

        begin(&group);
        add(&group, fail_soon, (void *)-EIO);
        task = weft_spawn(sleep_for_ever, NULL);
        must_be(weft_await(task), -ECANCELED); /* in place or not: what the body awaits is cancelled, too */
        must_be(weft_group_wait(&group), -EIO);
        must_be(weft_yield(), 0);
    }
    return 0;
}

CASE(body_awaits)

static intptr_t cancelled_from_outside(void *arg)
{
    weft_group group;

    begin(&group);
    add(&group, fail_soon, (void *)-EIO);
    atomic_fetch_add((atomic_int *)arg, 1);
    must_be(weft_sleep(WEFT_SEC(100)), -ECANCELED);
    /* Cancelled before it ran, the child has not failed. */
    must(weft_group_wait(&group) < 0);
    return weft_sleep(WEFT_SEC(100)); /* the cancellation from outside is still there */
}

static intptr_t both_task(void *arg)
{
    (void)arg;
    for (int round = 0; round < FEWER(1000); round++) {
        atomic_int begun = 0;
        weft_task *task = weft_spawn(cancelled_from_outside, &begun);

        while (atomic_load(&begun) == 0)
            must_be(weft_yield(), 0);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), -ECANCELED);
    }
    return 0;
}

CASE(both)

static intptr_t not_the_owner(void *arg)
{
    return weft_group_wait(arg);
}

static intptr_t others_may_not_wait_task(void *arg)
{
    weft_group group;

    (void)arg;
    begin(&group);
    must_be(weft_await(weft_spawn(not_the_owner, &group)), -EPERM);
    return weft_group_wait(&group);
}

CASE(others_may_not_wait)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        {"all_children_have_ended_after_the_wait", all_ended, NULL, NULL, NULL},
        {"a_group_may_be_empty", empty, NULL, NULL, NULL},
        cmocka_unit_test(outside_a_task_groups_are_refused),
        {"children_spawn_siblings", siblings, NULL, NULL, NULL},
        {"groups_nest", nested, NULL, NULL, NULL},
        {"the_first_failure_cancels_the_others", first_failure, NULL, NULL, NULL},
        {"failures_are_kept_in_order_of_time", all_failures, NULL, NULL, NULL},
        {"a_failure_takes_effect_before_the_owner_waits", in_the_body, NULL, NULL, NULL},
        {"a_childs_own_cancellation_is_silent", silent, NULL, NULL, NULL},
        {"cancelling_the_owner_reaches_every_child", owner_cancelled, NULL, NULL, NULL},
        {"a_cancelled_owner_never_starts_children", level, NULL, NULL, NULL},
        {"a_child_in_place_does_not_shelter_the_others", in_place, NULL, NULL, NULL},
        {"a_failure_cancels_the_body", body_is_cancelled, NULL, NULL, NULL},
        {"what_a_failed_body_awaits_is_cancelled", body_awaits, NULL, NULL, NULL},
        {"a_cancellation_from_outside_outlasts_the_group", both, NULL, NULL, NULL},
        {"only_the_owner_may_wait", others_may_not_wait, NULL, NULL, NULL},
        {"children_inherit_the_deadline", inherited, NULL, NULL, NULL},
        {"a_later_deadline_of_the_owner_cancels_the_children", later_deadline, NULL, NULL, NULL},
        {"a_deadline_that_has_passed_starts_no_child", past, NULL, NULL, NULL},
        {"any_child_may_cancel_the_group", cancelled_by_a_child, NULL, NULL, NULL},
        {"no_child_escapes_the_cancellation", flood, NULL, NULL, NULL},
        {"delayed_and_eager_children", delayed, NULL, NULL, NULL},
        {"cancellation_at_every_suspension_point", every_point, NULL, NULL, NULL},
        {"ten_thousand_children", many, NULL, NULL, NULL},
        cmocka_unit_test(stopping_the_runtime_ends_groups),
    };

    return run_all(tests, argc, argv);
}
