/* weft_rwlock: who may be inside together, order, giving up at every point, tasks mixed with threads. */
#include "tests/support.h"

#include "tests/rival.h"

static const uint32_t counts[] = {1, 2, 8};

static void on_each(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static void misuse_and_try_forms(void **state)
{
    weft_rwlock fixed = WEFT_RWLOCK_INIT, zeroed;

    (void)state;
    memset(&zeroed, 0, sizeof zeroed);
    assert_int_equal(weft_rwlock_unlock(&zeroed), -EPERM);
    assert_int_equal(weft_rwlock_rdlock(&fixed), 0);
    assert_int_equal(weft_rwlock_rdlock(&fixed), 0);
    assert_int_equal(weft_rwlock_tryrdlock(&fixed), 0);
    assert_int_equal(weft_rwlock_trywrlock(&fixed), -EBUSY);
    for (int i = 0; i < 3; i++)
        assert_int_equal(weft_rwlock_unlock(&fixed), 0);
    assert_int_equal(weft_rwlock_unlock(&fixed), -EPERM);
    assert_int_equal(weft_rwlock_wrlock(&fixed), 0);
    assert_int_equal(weft_rwlock_tryrdlock(&fixed), -EBUSY);
    assert_int_equal(weft_rwlock_trywrlock(&fixed), -EBUSY);
    assert_int_equal(weft_rwlock_unlock(&fixed), 0);
    assert_int_equal(weft_rwlock_unlock(&fixed), -EPERM);
    assert_int_equal(weft_rwlock_trywrlock(&fixed), 0);
    assert_int_equal(weft_rwlock_unlock(&fixed), 0);
}

/* ---- order, on one worker, where a yield lets everybody else run until it waits ---- */

static weft_rwlock shared;
static char order[32];
static int ordered;
static weft_event go_on;

/* A letter is noted: a capital for writers. Inside until told. */
static intptr_t enter(void *arg)
{
    char who = (char)(intptr_t)arg;
    int rc = who < 'a' ? weft_rwlock_wrlock(&shared) : weft_rwlock_rdlock(&shared);

    if (rc < 0)
        return rc;
    order[ordered++] = who;
    must_be(weft_event_wait(&go_on), 0);
    return weft_rwlock_unlock(&shared);
}

static void queue(weft_task **tasks, const char *who)
{
    for (; *who; who++)
        must((*tasks++ = weft_spawn(enter, (void *)(intptr_t)*who)) != NULL);
    yield_times(1);
}

static void begin(void)
{
    shared = (weft_rwlock)WEFT_RWLOCK_INIT;
    go_on = (weft_event)WEFT_EVENT_INIT;
    memset(order, 0, sizeof order);
    ordered = 0;
}

/* These have been inside up to now; who runs first of those that enter together is the scheduler's choice. */
static bool have_entered(const char *who)
{
    for (const char *letter = who; *letter; letter++)
        if (!strchr(order, *letter))
            return false;
    return strlen(order) == strlen(who);
}

/* Those inside leave; who comes in then? */
static void step(const char *inside)
{
    weft_event_set(&go_on);
    weft_event_clear(&go_on);
    yield_times(3);
    if (!have_entered(inside)) {
        fprintf(stderr, "inside were %s, not %s\n", order, inside);
        abort();
    }
}

static intptr_t served_in_order(void *arg)
{
    weft_task *tasks[8];

    (void)arg;
    begin();
    queue(tasks, "abCdeFGh");
    must(have_entered("ab")); /* d and e come after a writer that waits */
    must_be(weft_rwlock_tryrdlock(&shared), -EBUSY);
    step("abC");
    step("abCde");
    step("abCdeF");
    step("abCdeFG");
    step("abCdeFGh");
    step("abCdeFGh");
    for (int i = 0; i < 8; i++)
        must_be(weft_await(tasks[i]), 0);
    return weft_rwlock_unlock(&shared);
}

static void readers_queue_behind_writers_and_enter_together(void **state)
{
    (void)state;
    assert_int_equal(run_alone(served_in_order, NULL), -EPERM);
}

static intptr_t handed_over(void *arg)
{
    weft_task *tasks[3];

    (void)arg;
    begin();
    must_be(weft_rwlock_wrlock(&shared), 0);
    queue(tasks, "abC");
    must_be(ordered, 0);
    must_be(weft_rwlock_unlock(&shared), 0);
    /* The readers have it, though they have not run yet. */
    must_be(ordered, 0);
    must_be(weft_rwlock_trywrlock(&shared), -EBUSY);
    must_be(weft_rwlock_tryrdlock(&shared), -EBUSY);
    yield_times(1);
    must(have_entered("ab"));
    step("abC");
    step("abC");
    for (int i = 0; i < 3; i++)
        must_be(weft_await(tasks[i]), 0);
    return weft_rwlock_unlock(&shared);
}

static void the_lock_is_handed_over_and_not_overtaken(void **state)
{
    (void)state;
    assert_int_equal(run_alone(handed_over, NULL), -EPERM);
}

/* ---- giving up ---- */

static void cancel_one(weft_task *task)
{
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
}

static intptr_t writer_gives_up(void *arg)
{
    weft_task *tasks[7];

    (void)arg;
    begin();
    queue(tasks, "aBcdEf");
    must(have_entered("a"));
    cancel_one(tasks[1]);
    yield_times(2);
    must(have_entered("acd")); /* not f: E waits */
    cancel_one(tasks[4]);
    yield_times(2);
    must(have_entered("acdf"));
    must_be(weft_rwlock_tryrdlock(&shared), 0);
    must_be(weft_rwlock_unlock(&shared), 0);
    step("acdf");
    for (int i = 0; i < 6; i++)
        must(i == 1 || i == 4 || weft_await(tasks[i]) == 0);
    return weft_rwlock_unlock(&shared);
}

static void a_writer_that_gives_up_lets_the_readers_behind_it_in(void **state)
{
    (void)state;
    assert_int_equal(run_alone(writer_gives_up, NULL), -EPERM);
}

static intptr_t give_up_anywhere(void *arg)
{
    static const char *const left[] = {"CdEf", "bdEf", "bCEf", "bCdf", "bCdE"};

    (void)arg;
    for (int who = 0; who < 5; who++) {
        weft_task *tasks[5];

        begin();
        must_be(weft_rwlock_wrlock(&shared), 0);
        queue(tasks, "bCdEf");
        must_be(ordered, 0);
        cancel_one(tasks[who]);
        yield_times(1);
        must_be(ordered, 0);
        must_be(weft_rwlock_unlock(&shared), 0);
        for (int i = 0; i < 6; i++) {
            weft_event_set(&go_on);
            weft_event_clear(&go_on);
            yield_times(3);
        }
        must(have_entered(left[who]));
        for (int i = 0; i < 5; i++)
            must(i == who || weft_await(tasks[i]) == 0);
        must_be(weft_rwlock_unlock(&shared), -EPERM);
    }
    return 0;
}

static void a_cancelled_waiter_leaves_the_queue(void **state)
{
    (void)state;
    assert_int_equal(run_alone(give_up_anywhere, NULL), 0);
}

static intptr_t lock_and_hear_later(void *arg)
{
    must_be(arg ? weft_rwlock_wrlock(&shared) : weft_rwlock_rdlock(&shared), 0);
    must_be(weft_yield(), -ECANCELED);
    must_be(weft_rwlock_unlock(&shared), 0);
    return 7;
}

static intptr_t cancelled_at_the_grant(void *arg)
{
    (void)arg;
    for (int round = 0; round < 4; round++) {
        weft_task *task;

        begin();
        must_be(weft_rwlock_wrlock(&shared), 0);
        must((task = weft_spawn(lock_and_hear_later, round & 1 ? &shared : NULL)) != NULL);
        yield_times(1);
        if (round & 2)
            must_be(weft_rwlock_unlock(&shared), 0);
        must_be(weft_cancel(task), 1);
        if (!(round & 2))
            must_be(weft_rwlock_unlock(&shared), 0);
        must_be(weft_await(task), 7);
        must_be(weft_rwlock_unlock(&shared), -EPERM);
    }
    return 0;
}

static void a_waiter_cancelled_at_the_grant_keeps_it_and_hears_of_it_later(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancelled_at_the_grant, NULL), 0);
}

static intptr_t late_or_cancelled(void *arg)
{
    weft_timeout scope;

    (void)arg;
    begin();
    must_be(weft_rwlock_rdlock(&shared), 0);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(weft_rwlock_wrlock(&shared), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_rwlock_tryrdlock(&shared), 0); /* no writer waits any more */
    must_be(weft_rwlock_unlock(&shared), 0);
    must_be(weft_rwlock_unlock(&shared), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_rwlock_rdlock(&shared), -ECANCELED);
    must_be(weft_rwlock_wrlock(&shared), -ECANCELED);
    must_be(weft_uncancel(), 1);
    return weft_rwlock_unlock(&shared);
}

static void deadlines_and_cancellation_end_the_wait_without_the_lock(void **state)
{
    (void)state;
    assert_int_equal(run_alone(late_or_cancelled, NULL), -EPERM);
}

/* ---- races ---- */

static intptr_t read_once(void *arg)
{
    int rc = weft_rwlock_rdlock(arg);

    return rc < 0 ? rc : weft_rwlock_unlock(arg);
}

static intptr_t write_once(void *arg)
{
    int rc = weft_rwlock_wrlock(arg);

    return rc < 0 ? rc : weft_rwlock_unlock(arg);
}

static void unlock_it(void *arg)
{
    must_be(weft_rwlock_unlock(arg), 0);
}

/* Held for reading; a mixed queue; one of it is cancelled while the lock is released. */
static intptr_t lose_nothing(void *arg)
{
    uint64_t random = 0x5EED;
    struct rival rival;

    (void)arg;
    rival_start(&rival, unlock_it);
    for (int round = 0; round < FEWER(1000); round++) {
        weft_rwlock rwlock = WEFT_RWLOCK_INIT;
        weft_task *tasks[5];
        unsigned victim = draw(&random) % 5;

        must_be(weft_rwlock_rdlock(&rwlock), 0);
        for (unsigned i = 0; i < 5; i++)
            must((tasks[i] = weft_spawn(i % 3 == 0 ? write_once : read_once, &rwlock)) != NULL);
        yield_times((int)(draw(&random) % 3));
        rival_go(&rival, &rwlock);
        dawdle(&random);
        weft_cancel(tasks[victim]);
        for (unsigned i = 0; i < 5; i++) {
            intptr_t rc = weft_await(tasks[i]);

            must(rc == 0 || (i == victim && rc == -ECANCELED));
        }
        rival_wait(&rival);
        must_be(weft_rwlock_unlock(&rwlock), -EPERM);
    }
    rival_end(&rival);
    return 0;
}

static void a_waiter_that_gives_up_passes_the_lock_on(void **state)
{
    (void)state;
    on_each(lose_nothing);
}

struct counted {
    weft_rwlock rwlock;
    int references;
};

static intptr_t release(void *arg)
{
    struct counted *object = arg;
    int left;

    must_be(weft_rwlock_rdlock(&object->rwlock), 0);
    must_be(weft_rwlock_unlock(&object->rwlock), 0);
    must_be(weft_rwlock_wrlock(&object->rwlock), 0);
    left = --object->references;
    must_be(weft_rwlock_unlock(&object->rwlock), 0);
    if (left == 0)
        free(object);
    return 0;
}

static intptr_t last_holder_frees(void *arg)
{
    (void)arg;
    for (int round = 0; round < FEWER(1000); round++) {
        struct counted *object = calloc(1, sizeof *object);
        weft_task *tasks[4];

        must(object != NULL);
        object->references = 5;
        for (int i = 0; i < 4; i++)
            must((tasks[i] = weft_spawn(release, object)) != NULL);
        release(object);
        for (int i = 0; i < 4; i++)
            must_be(weft_await(tasks[i]), 0);
    }
    return 0;
}

static void the_last_holder_may_free_the_lock(void **state)
{
    (void)state;
    on_each(last_holder_frees);
}

/* ---- tasks and threads ---- */

enum { TASKS = 6, THREADS = 2 };

static weft_rwlock busy = WEFT_RWLOCK_INIT;
static atomic_int readers, writers;
static long value, copy;

static void write_both(int i, bool in_task)
{
    must_be(weft_rwlock_wrlock(&busy), 0);
    must_be(atomic_fetch_add(&writers, 1), 0);
    must_be(atomic_load(&readers), 0);
    value++;
    if (in_task && i % 32 == 0)
        must_be(weft_yield(), 0);
    copy++;
    atomic_fetch_sub(&writers, 1);
    must_be(weft_rwlock_unlock(&busy), 0);
}

static void read_both(int i, bool in_task)
{
    must_be(weft_rwlock_rdlock(&busy), 0);
    atomic_fetch_add(&readers, 1);
    must_be(atomic_load(&writers), 0);
    if (in_task && i % 32 == 1)
        must_be(weft_yield(), 0);
    must_be(value, copy);
    atomic_fetch_sub(&readers, 1);
    must_be(weft_rwlock_unlock(&busy), 0);
}

static void use(bool in_task)
{
    for (int i = 0; i < FEWER(2000); i++) {
        if (i % 4 == 0)
            write_both(i, in_task);
        else
            read_both(i, in_task);
    }
}

static intptr_t use_in_task(void *arg)
{
    use(true);
    return (intptr_t)arg;
}

static void *use_in_thread(void *arg)
{
    use(false);
    return arg;
}

static intptr_t use_in_tasks_and_threads(void *arg)
{
    pthread_t threads[THREADS];
    weft_task *tasks[TASKS];

    value = copy = 0;
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_create(&threads[i], NULL, use_in_thread, NULL), 0);
    for (int i = 0; i < TASKS; i++)
        must((tasks[i] = weft_spawn(use_in_task, arg)) != NULL);
    for (int i = 0; i < TASKS; i++)
        must_be(weft_await(tasks[i]), 0);
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_join(threads[i], NULL), 0);
    must_be(value, (TASKS + THREADS) * ((FEWER(2000) + 3) / 4));
    must_be(weft_rwlock_unlock(&busy), -EPERM);
    return 0;
}

static void writers_are_alone_between_tasks_and_threads(void **state)
{
    (void)state;
    on_each(use_in_tasks_and_threads);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse_and_try_forms),
        cmocka_unit_test(readers_queue_behind_writers_and_enter_together),
        cmocka_unit_test(the_lock_is_handed_over_and_not_overtaken),
        cmocka_unit_test(a_writer_that_gives_up_lets_the_readers_behind_it_in),
        cmocka_unit_test(a_cancelled_waiter_leaves_the_queue),
        cmocka_unit_test(a_waiter_cancelled_at_the_grant_keeps_it_and_hears_of_it_later),
        cmocka_unit_test(deadlines_and_cancellation_end_the_wait_without_the_lock),
        cmocka_unit_test(a_waiter_that_gives_up_passes_the_lock_on),
        cmocka_unit_test(the_last_holder_may_free_the_lock),
        cmocka_unit_test(writers_are_alone_between_tasks_and_threads),
    };

    return run_all(tests, argc, argv);
}
