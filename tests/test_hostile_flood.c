/*
 * Many connections that are opened and dropped: all at once or before anybody accepts them, in order or by a reset.
 * The server accepts all it can, keeps nothing of them, and serves who comes afterwards.
 */
#include "hostile.h"

enum { SIDE_BY_SIDE = 20 };

struct wave {
    weft_server *server;
    int each; /* connections of a task */
    atomic_int refused;
};

/* The kernel may reset what it has no room for: that is a refusal, and no matter. */
static void open_and_drop(struct wave *wave, int how)
{
    int fd = weft_dial("127.0.0.1", (uint16_t)weft_server_port(wave->server));

    if (fd < 0) {
        must(fd == -ECONNREFUSED || fd == -ECONNRESET);
        atomic_fetch_add(&wave->refused, 1);
        return;
    }
    if (how & 1)
        must(weft_write(fd, "x", 1) == 1);
    if (how & 2)
        must_be(shutdown(fd, SHUT_WR), 0);
    if (how & 4)
        must_be(weft_yield(), 0);
    reset_connection(fd); /* no TIME_WAIT: there are only so many ports */
}

static intptr_t open_and_drop_many(void *arg)
{
    struct wave *wave = arg;

    for (int i = 0; i < wave->each; i++)
        open_and_drop(wave, i % 8);
    return 0;
}

static void send_wave(weft_server *server, int connections)
{
    struct wave wave = {.server = server, .each = connections / SIDE_BY_SIDE};
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < SIDE_BY_SIDE; i++)
        must_be(weft_group_spawn(&group, open_and_drop_many, &wave), 0);
    must_be(weft_group_wait(&group), 0);
    must_be(atomic_load(&wave.refused), 0);
}

static intptr_t flood(void *arg)
{
    static const weft_serve_options options[] = {
        {.flags = WEFT_SERVE_ON_DATA, .linger = -1}, {.linger = WEFT_MS(1)}, {.clients_max = 7}};
    int connections = *(int *)arg;

    for (size_t way = 0; way < sizeof options / sizeof *options; way++) {
        weft_server *server = serve(way == 2 ? echo_all : echo_once, NULL, &options[way]);

        send_wave(server, connections / 3);
        expect_recovery(server);
    }
    return 0;
}

static void ten_thousand_connections_that_are_opened_and_dropped_leave_nothing(void **state)
{
    int warm_up = 1000, connections = emulated() ? 1000 : FEWER(10000);
    size_t before;

    (void)state;
    for (int i = 0; i < FEW; i++) {
        assert_int_equal(run_on(few_workers[i], flood, &warm_up), 0);
        before = allocated();
        assert_int_equal(run_on(few_workers[i], flood, &connections), 0);
        if (!SUPPORT_SANITIZED)
            assert_true(allocated() <= before + HOSTILE_TOLERANCE);
    }
}

/* ---- before anybody accepts ---- */

static intptr_t reset_before_accept(void *arg)
{
    int count = FEWER(500), listener = weft_listen("127.0.0.1", 0, 4000), port = weft_local_port(listener);
    weft_server *server;

    for (int i = 0; i < count; i++) {
        int fd = dial_port(port);

        if (i % 3 == 0)
            must_be(weft_write(fd, "x", 1), 1);
        if (i % 2)
            must_be(weft_set_abort(fd), 0);
        must_be(weft_close(fd), 0);
    }
    must_be(weft_serve(&server, listener, echo_once, NULL, NULL), 0);
    be_a_good_client(server);
    expect_recovery(server);
    return (intptr_t)arg;
}

static void who_is_gone_before_it_is_accepted_is_no_error(void **state)
{
    (void)state;
    run_everywhere(reset_before_accept);
}

static intptr_t accept_the_gone(void *arg)
{
    int listener = weft_listen("127.0.0.1", 0, 0), port = weft_local_port(listener);

    for (int i = 0; i < FEWER(300); i++) {
        int fd = dial_port(port), client, other = -1;
        char byte;

        reset_connection(fd);
        if (i % 2) /* a good one behind it */
            other = dial_port(port);
        client = weft_accept(listener, NULL, NULL);
        must(client >= 0);
        must(other >= 0 || weft_read(client, &byte, 1) <= 0);
        must_be(weft_close(client), 0);
        if (other >= 0)
            reset_connection(other);
        while (other >= 0 && (client = weft_accept(listener, NULL, NULL)) >= 0 && weft_close(client) == 0)
            break;
    }
    must_be(weft_close(listener), 0);
    return (intptr_t)arg;
}

static void an_accept_survives_who_is_gone(void **state)
{
    (void)state;
    run_everywhere(accept_the_gone);
}

/* ---- a backlog that overflows ---- */

struct crowd {
    int port;
    atomic_int late, served;
};

static intptr_t join_crowd(void *arg)
{
    struct crowd *crowd = arg;
    weft_timeout scope;
    int fd;

    must_be(weft_timeout_begin(&scope, WEFT_MS(100)), 0);
    fd = weft_dial("127.0.0.1", (uint16_t)crowd->port);
    must_be(weft_timeout_end(&scope), fd == -ETIMEDOUT);
    must(fd >= 0 || fd == -ETIMEDOUT);
    atomic_fetch_add(fd >= 0 ? &crowd->served : &crowd->late, 1);
    if (fd >= 0)
        reset_connection(fd);
    return 0;
}

static intptr_t overflow_backlog(void *arg)
{
    enum { CROWD = 60, BACKLOG = 8 };
    int listener = weft_listen("127.0.0.1", 0, BACKLOG);
    struct crowd crowd = {.port = weft_local_port(listener)};
    weft_server *server;
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < CROWD; i++)
        must_be(weft_group_spawn(&group, join_crowd, &crowd), 0);
    must_be(weft_group_wait(&group), 0);
    must_be(atomic_load(&crowd.served) + atomic_load(&crowd.late), CROWD);
    must(atomic_load(&crowd.served) >= BACKLOG);
    must(atomic_load(&crowd.late) > 0);
    must_be(weft_serve(&server, listener, echo_once, NULL, NULL), 0);
    be_a_good_client(server);
    expect_recovery(server);
    return (intptr_t)arg;
}

static void a_full_backlog_costs_the_dialers_time_and_nothing_else(void **state)
{
    (void)state;
    run_everywhere(overflow_backlog);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_connections_that_are_opened_and_dropped_leave_nothing),
        cmocka_unit_test(who_is_gone_before_it_is_accepted_is_no_error),
        cmocka_unit_test(an_accept_survives_who_is_gone),
        cmocka_unit_test(a_full_backlog_costs_the_dialers_time_and_nothing_else),
    };

    return run_all(tests, argc, argv);
}
