/*
 * Trees of groups, gathers, waits and iterators over tasks that return, sleep, fail, and are cancelled or late at
 * random. At each level what a structured call promises must hold: when it returns, everything it stands for has ended.
 * WEFT_TEST_SECONDS (2) long, on WEFT_WORKERS workers; nothing may be left in the end.
 */
#include "support.h"

enum { TREES = 8, BREADTH = 6, DEPTH = 3 };

struct branch {
    uint64_t random;
    int depth;
    atomic_int *alive;
};

static atomic_ulong branches, gathers, groups, iterations, interrupted;

static intptr_t walk(void *arg);

static intptr_t rest(struct branch *branch)
{
    switch (draw(&branch->random) % 8) {
    case 0:
        return weft_yield();
    case 1:
        return weft_sleep(WEFT_US(draw(&branch->random) % 200));
    case 2:
        return -EIO;
    default:
        return 0;
    }
}

static void grow(struct branch *branch, struct branch *twigs, atomic_int *alive)
{
    for (int i = 0; i < BREADTH; i++)
        twigs[i] = (struct branch){.random = draw(&branch->random) | 1, .depth = branch->depth - 1, .alive = alive};
}

static void check(intptr_t rc)
{
    must(rc == 0 || rc == -EIO || rc == -ECANCELED || rc == -ETIMEDOUT);
}

static intptr_t with_group(struct branch *branch)
{
    struct branch twigs[BREADTH];
    atomic_int alive = 0;
    weft_group group;
    intptr_t rc;

    grow(branch, twigs, &alive);
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < BREADTH; i++) {
        int spawned = weft_group_spawn(&group, walk, &twigs[i]);

        must(spawned == 0 || spawned == -ECANCELED);
    }
    if (draw(&branch->random) % 8 == 0)
        weft_group_cancel(&group);
    rc = weft_group_wait(&group);
    must_be(atomic_load(&alive), 0);
    must_be(weft_group_live(&group), 0);
    atomic_fetch_add(&groups, 1);
    return rc;
}

static void spawn_twigs(weft_task **tasks, struct branch *twigs)
{
    for (int i = 0; i < BREADTH; i++)
        must((tasks[i] = weft_spawn(walk, &twigs[i])) != NULL);
}

static intptr_t with_gather(struct branch *branch)
{
    struct branch twigs[BREADTH];
    weft_task *tasks[BREADTH];
    intptr_t results[BREADTH], rc;
    atomic_int alive = 0;

    grow(branch, twigs, &alive);
    spawn_twigs(tasks, twigs);
    if (draw(&branch->random) % 4 == 0)
        weft_cancel(tasks[draw(&branch->random) % BREADTH]);
    rc = weft_gather_all(tasks, BREADTH, results);
    must_be(atomic_load(&alive), 0);
    for (int i = 0; i < BREADTH; i++)
        check(results[i]);
    atomic_fetch_add(&gathers, 1);
    return rc;
}

/* Those that are let go run on after this frame is gone: so they have nothing in it. */
static intptr_t nap_or_fail(void *arg)
{
    uint64_t random = (uint64_t)(uintptr_t)arg;
    int rc = random % 3 ? weft_sleep(WEFT_US(random % 100)) : 0;

    return rc < 0 ? rc : random % 5 == 0 ? -EIO : (intptr_t)(random % 1000);
}

static intptr_t with_failing_gather(struct branch *branch)
{
    weft_task *tasks[BREADTH];
    intptr_t results[BREADTH], rc;

    for (int i = 0; i < BREADTH; i++)
        must((tasks[i] = weft_spawn(nap_or_fail, (void *)(uintptr_t)(draw(&branch->random) >> 8))) != NULL);
    rc = weft_gather(tasks, BREADTH, results);
    check(rc);
    for (int i = 0; i < BREADTH; i++)
        must(results[i] >= 0 || results[i] == -EIO || results[i] == -ECANCELED || results[i] == -ETIMEDOUT ||
             (results[i] == -EINPROGRESS && rc < 0));
    atomic_fetch_add(&gathers, 1);
    return rc;
}

static intptr_t with_iterator(struct branch *branch)
{
    struct branch twigs[BREADTH];
    bool taken[BREADTH] = {false};
    weft_task *tasks[BREADTH], *task;
    weft_as_completed it;
    atomic_int alive = 0;
    ssize_t any;
    int rc;

    grow(branch, twigs, &alive);
    spawn_twigs(tasks, twigs);
    any = weft_wait_any(tasks, BREADTH);
    must(any >= 0 ? weft_task_done(tasks[any]) : any == -ECANCELED || any == -ETIMEDOUT);
    must_be(weft_as_completed_begin(&it, tasks, BREADTH), 0);
    while ((rc = weft_as_completed_next(&it, &task)) == 1) {
        int i = 0;

        while (tasks[i] != task || taken[i])
            must(++i < BREADTH);
        taken[i] = true;
        check(weft_await(task));
        if (draw(&branch->random) % 16 == 0)
            break;
    }
    weft_as_completed_end(&it);
    must(rc >= 0 || rc == -ECANCELED || rc == -ETIMEDOUT);
    for (int i = 0; i < BREADTH; i++)
        if (!taken[i])
            check(weft_await(tasks[i]));
    must_be(atomic_load(&alive), 0);
    atomic_fetch_add(&iterations, 1);
    return rc < 0 ? rc : 0;
}

static intptr_t branch_out(struct branch *branch)
{
    switch (draw(&branch->random) % 4) {
    case 0:
        return with_gather(branch);
    case 1:
        return with_iterator(branch);
    case 2:
        return with_failing_gather(branch);
    default:
        return with_group(branch);
    }
}

static intptr_t walk(void *arg)
{
    struct branch *branch = arg;
    atomic_int *alive = branch->alive;
    weft_timeout scope;
    bool scoped = draw(&branch->random) % 8 == 0;
    intptr_t rc;

    atomic_fetch_add(alive, 1);
    atomic_fetch_add(&branches, 1);
    if (scoped)
        must_be(weft_timeout_begin(&scope, WEFT_US(draw(&branch->random) % 300)), 0);
    rc = rest(branch);
    if (rc == 0 && branch->depth > 0)
        rc = branch_out(branch);
    if (scoped && weft_timeout_end(&scope) == 1)
        atomic_fetch_add(&interrupted, 1);
    atomic_fetch_sub(alive, 1);
    check(rc);
    return rc;
}

static intptr_t plant(void *arg)
{
    uint64_t random = wanted_seed();
    int64_t end = weft_now() + WEFT_SEC(wanted_seconds());

    printf("stress_group: WEFT_TEST_SEED=%llu\n", (unsigned long long)random);
    while (weft_now() < end) {
        struct branch trees[TREES];
        weft_task *tasks[TREES];
        atomic_int alive = 0;

        for (int i = 0; i < TREES; i++) {
            trees[i] = (struct branch){.random = draw(&random) | 1, .depth = DEPTH, .alive = &alive};
            must((tasks[i] = weft_spawn(walk, &trees[i])) != NULL);
        }
        if (draw(&random) % 2)
            must_be(weft_sleep(WEFT_US(draw(&random) % 500)), 0);
        for (int i = 0; i < TREES; i++)
            if (draw(&random) % 4 == 0)
                weft_cancel(tasks[i]);
        for (int i = 0; i < TREES; i++)
            check(weft_await(tasks[i]));
        must_be(atomic_load(&alive), 0);
    }
    return (intptr_t)arg;
}

static void ignore(const char *name, intptr_t result, void *user)
{
    (void)name;
    (void)result;
    (void)user;
}

int main(void)
{
    weft_config config = {.workers = wanted_workers(), .on_unseen_failure = ignore};

    alarm((unsigned)wanted_seconds() + 100);
    must_be(run_with(&config, plant, NULL), 0);
    printf("stress_group: %lu tasks, %lu groups, %lu gathers, %lu iterations, %lu late\n", atomic_load(&branches),
           atomic_load(&groups), atomic_load(&gathers), atomic_load(&iterations), atomic_load(&interrupted));
    return 0;
}
