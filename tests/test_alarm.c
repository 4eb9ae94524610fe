/* Deadlines that are far away: the alarm of a worker that sleeps, and how seldom it is set. */
#include "support.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

static atomic_uint settings;

/* The runtime's way to it leads through here. */
int timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    atomic_fetch_add(&settings, 1);
    return (int)syscall(SYS_timerfd_settime, fd, flags, value, old);
}

static void must_have_passed(int64_t since, int64_t length)
{
    must(weft_now() >= since + length);
    must(weft_now() < since + length + WEFT_SEC(10)); /* it has not been forgotten */
}

static intptr_t sleeps(void *arg)
{
    int64_t since = weft_now(), length = (intptr_t)arg;

    must_be(weft_sleep(length), 0);
    must_have_passed(since, length);
    return 0;
}

static intptr_t sleep_at_the_same_time(void *arg)
{
    static const int64_t lengths[] = {WEFT_MS(90), WEFT_MS(30), WEFT_MS(60), WEFT_MS(61), WEFT_MS(5)};
    weft_group group;

    (void)arg;
    must_be(weft_group_begin(&group), 0);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        must_be(weft_group_spawn(&group, sleeps, (void *)(intptr_t)lengths[i]), 0);
    must_be(weft_group_wait(&group), 0);
    return 0;
}

static void each_of_several_passes_in_time(void **state)
{
    (void)state;
    assert_int_equal(run_alone(sleep_at_the_same_time, NULL), 0);
    assert_int_equal(run_on(3, sleep_at_the_same_time, NULL), 0);
}

static int court[2];

static void *throws_late(void *arg)
{
    (void)arg;
    nap(WEFT_MS(5));
    if (write(court[1], "o", 1) != 1)
        abort();
    return NULL;
}

/* The alarm was set for what is then cancelled, and rings for nobody; what comes after it must not be missed. */
static intptr_t sleeps_longer_than_a_time_out(void *arg)
{
    int64_t since = weft_now();
    weft_timeout scope;
    char ball;

    (void)arg;
    weft_timeout_begin(&scope, WEFT_MS(60));
    must_be(weft_read(court[0], &ball, 1), 1);
    must_be(weft_timeout_end(&scope), 0);
    must_be(weft_sleep_until(since + WEFT_MS(90)), 0);
    must_have_passed(since, WEFT_MS(90));
    return 0;
}

static void a_cancelled_one_does_no_harm(void **state)
{
    static const uint32_t workers[] = {1, 3};

    (void)state;
    for (size_t i = 0; i < sizeof workers / sizeof *workers; i++) {
        pthread_t other;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, court), 0);
        assert_int_equal(pthread_create(&other, NULL, throws_late, NULL), 0);
        assert_int_equal(run_beside_threads(workers[i], sleeps_longer_than_a_time_out, NULL), 0);
        pthread_join(other, NULL);
        assert_int_equal(weft_close(court[0]), 0); /* weft has seen it */
        close(court[1]);
    }
}

/* It rings while its worker computes: a peer hears it, and it must ring again for what comes later. */
static intptr_t computes_while_it_rings(void *arg)
{
    int64_t since = weft_now();
    weft_task *sleeper = weft_spawn(sleeps, (void *)(intptr_t)WEFT_MS(30));

    (void)arg;
    must(sleeper != NULL);
    must_be(weft_sleep(WEFT_MS(25)), 0);
    while (weft_now() < since + WEFT_MS(60))
        ;
    must_be(weft_await(sleeper), 0);
    must_be(weft_sleep(WEFT_MS(40)), 0);
    must_have_passed(since, WEFT_MS(100));
    return 0;
}

static void one_that_a_peer_has_heard_is_set_again(void **state)
{
    (void)state;
    assert_int_equal(run_alone(computes_while_it_rings, NULL), 0);
    assert_int_equal(run_on(3, computes_while_it_rings, NULL), 0);
}

enum { BALLS = 200 };

static void *throws_back(void *arg)
{
    char ball;

    (void)arg;
    for (int i = 0; i < BALLS; i++)
        if (read(court[1], &ball, 1) != 1 || write(court[1], &ball, 1) != 1)
            abort();
    return NULL;
}

static intptr_t plays_under_a_time_out(void *arg)
{
    weft_timeout scope;
    char ball = 'o';

    (void)arg;
    for (int i = 0; i < BALLS; i++) {
        weft_timeout_begin(&scope, WEFT_SEC(100));
        must_be(weft_write_all(court[0], &ball, 1), 1);
        must_be(weft_read(court[0], &ball, 1), 1);
        must_be(weft_timeout_end(&scope), 0);
    }
    return 0;
}

static void it_is_not_set_for_each_wait(void **state)
{
    pthread_t other;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, court), 0);
    assert_int_equal(pthread_create(&other, NULL, throws_back, NULL), 0);
    atomic_store(&settings, 0);
    assert_int_equal(run_beside_threads(1, plays_under_a_time_out, NULL), 0);
    assert_int_equal(atomic_load(&settings), 1);
    pthread_join(other, NULL);
    assert_int_equal(weft_close(court[0]), 0); /* weft has seen it */
    close(court[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_of_several_passes_in_time),
        cmocka_unit_test(a_cancelled_one_does_no_harm),
        cmocka_unit_test(one_that_a_peer_has_heard_is_set_again),
        cmocka_unit_test(it_is_not_set_for_each_wait),
    };

    return run_all(tests, argc, argv);
}
