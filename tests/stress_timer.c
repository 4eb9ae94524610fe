/*
 * Sleeps, deadlines that nest, and cancellations at random times, by tasks that wander between workers. No sleep
 * may end early without a reason, none may be forgotten, and each end must be the one that was due.
 * WEFT_TEST_SECONDS (2) long, on WEFT_WORKERS workers; WEFT_TEST_SEED repeats a run's choices. Aborts on any
 * loss.
 */
#include "support.h"

enum { SLEEPERS = 200, VICTIMS = 40 };

static atomic_bool over;
static _Atomic uint64_t slept, timed_out, cancelled, worst;
static uint64_t seed;

static void add(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void note_lateness(int64_t late)
{
    uint64_t old = atomic_load_explicit(&worst, memory_order_relaxed);

    while ((uint64_t)late > old && !atomic_compare_exchange_weak_explicit(
                                       &worst, &old, (uint64_t)late, memory_order_relaxed, memory_order_relaxed))
        ;
}

static int64_t some_time(uint64_t *random)
{
    static const int64_t most[] = {WEFT_US(20), WEFT_US(300), WEFT_MS(3), WEFT_MS(30)};
    unsigned kind = (unsigned)(draw(random) % 16);

    return (int64_t)(draw(random) % (uint64_t)most[kind < 8 ? 0 : kind < 13 ? 1 : kind < 15 ? 2 : 3]);
}

static void plain_sleep(uint64_t *random)
{
    int64_t until = weft_now() + some_time(random);

    must_be(weft_sleep_until(until), 0);
    must(weft_now() >= until);
    note_lateness(weft_now() - until);
    add(&slept);
}

/* Two scopes and a sleep: the earliest of the three decides. */
static void sleep_in_scopes(uint64_t *random)
{
    int64_t now = weft_now();
    int64_t outer_at = now + some_time(random), inner_at = now + some_time(random), until = now + some_time(random);
    weft_timeout outer, inner;
    int rc, inner_passed, outer_passed;

    must_be(weft_timeout_begin_at(&outer, outer_at), 0);
    must_be(weft_timeout_begin_at(&inner, inner_at), 0);
    rc = weft_sleep_until(until);
    now = weft_now();
    inner_passed = weft_timeout_end(&inner);
    outer_passed = weft_timeout_end(&outer);
    if (rc == 0) {
        must(now >= until);
        must_be(inner_passed + outer_passed, 0);
        add(&slept);
    } else {
        must_be(rc, -ETIMEDOUT);
        must_be(inner_passed + outer_passed, 1);
        must(inner_passed ? inner_at <= now : outer_at <= now);
        must(inner_passed ? inner_at <= outer_at : outer_at <= inner_at);
        add(&timed_out);
    }
    must_be(weft_yield(), 0);
}

static intptr_t sleep_long(void *arg)
{
    int rc = weft_sleep(WEFT_SEC(1000));

    (void)arg;
    must_be(rc, -ECANCELED);
    return rc;
}

static void await_in_scope(uint64_t *random)
{
    int64_t at = weft_now() + some_time(random);
    weft_task *task = weft_spawn(sleep_long, NULL);
    weft_timeout t;

    must(task != NULL);
    if (draw(random) % 2)
        must_be(weft_yield(), 0);
    must_be(weft_timeout_begin_at(&t, at), 0);
    must_be(weft_await(task), -ETIMEDOUT);
    must(weft_now() >= at);
    must_be(weft_timeout_end(&t), 1);
    add(&timed_out);
}

static void cancel_a_sleeper(uint64_t *random)
{
    weft_task *task = weft_spawn(sleep_long, NULL);

    must(task != NULL);
    if (draw(random) % 4)
        must_be(weft_sleep(some_time(random) / 4), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    add(&cancelled);
}

static void wait_for_event(uint64_t *random)
{
    weft_event event = WEFT_EVENT_INIT;
    weft_timeout t;

    must_be(weft_timeout_begin(&t, some_time(random)), 0);
    must_be(weft_event_wait(&event), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    add(&timed_out);
}

static intptr_t sleeper(void *arg)
{
    uint64_t random = (seed + (uintptr_t)arg * 0x9E3779B97F4A7C15u) | 1;

    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        switch (draw(&random) % 6) {
        case 0:
            sleep_in_scopes(&random);
            break;
        case 1:
            await_in_scope(&random);
            break;
        case 2:
            cancel_a_sleeper(&random);
            break;
        case 3:
            wait_for_event(&random);
            break;
        default:
            plain_sleep(&random);
            break;
        }
    }
    return 0;
}

/* Cancelled by a thread outside at any time, it sleeps on. */
static _Atomic(weft_task *) victims[VICTIMS];

static intptr_t victim(void *arg)
{
    _Atomic(weft_task *) *slot = arg;
    uint64_t random = (seed ^ (uintptr_t)arg) | 1;

    atomic_store(slot, weft_self());
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        int64_t until = weft_now() + some_time(&random);
        int rc = weft_sleep_until(until);

        if (rc == 0) {
            must(weft_now() >= until);
        } else {
            must_be(rc, -ECANCELED);
            must_be(weft_uncancel(), 1);
            add(&cancelled);
        }
    }
    /* The thread must not hold this handle any longer. */
    must_be(weft_mask_begin(), 0);
    while (atomic_load(slot))
        must_be(weft_sleep(WEFT_US(100)), 0);
    must_be(weft_mask_end(), 0);
    return 0;
}

static void *hunter(void *arg)
{
    uint64_t random = (seed ^ 0x5bd1e995u) | 1;

    (void)arg;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        weft_task *task = atomic_load(&victims[draw(&random) % VICTIMS]);

        if (task)
            must_be(weft_cancel(task), 1);
        if (draw(&random) % 4 == 0)
            nap((int64_t)(draw(&random) % WEFT_US(100)));
    }
    for (int i = 0; i < VICTIMS; i++)
        atomic_store(&victims[i], NULL);
    return NULL;
}

static intptr_t stress_main(void *arg)
{
    weft_task *sleepers[SLEEPERS], *hunted[VICTIMS];
    pthread_t thread;

    for (int i = 0; i < VICTIMS; i++)
        must((hunted[i] = weft_spawn(victim, &victims[i])) != NULL);
    for (intptr_t i = 0; i < SLEEPERS; i++)
        must((sleepers[i] = weft_spawn(sleeper, (void *)(i + 1))) != NULL);
    for (int i = 0; i < VICTIMS; i++)
        wait_until_true(atomic_load(&victims[i]));
    must_be(pthread_create(&thread, NULL, hunter, NULL), 0);
    must_be(weft_sleep(*(int64_t *)arg), 0);
    atomic_store(&over, true);
    for (int i = 0; i < SLEEPERS; i++)
        must_be(weft_await(sleepers[i]), 0);
    for (int i = 0; i < VICTIMS; i++)
        must_be(weft_await(hunted[i]), 0);
    must_be(pthread_join(thread, NULL), 0);
    return 0;
}

int main(void)
{
    int64_t length = WEFT_SEC(wanted_seconds());
    weft_config config = WEFT_CONFIG_DEFAULT;

    seed = wanted_seed();
    printf("stress_timer: %u workers, %lld s, WEFT_TEST_SEED=%llu\n", wanted_workers(), (long long)wanted_seconds(),
           (unsigned long long)seed);
    fflush(stdout);
    alarm((unsigned)wanted_seconds() * 2 + SUPPORT_LIMIT);
    must_be(run_with(&config, stress_main, &length), 0);
    printf("%llu sleeps, %llu deadlines, %llu cancelled; worst lateness of a sleep %.3f ms\n",
           (unsigned long long)slept, (unsigned long long)timed_out, (unsigned long long)cancelled,
           (double)worst / 1e6);
    return 0;
}
