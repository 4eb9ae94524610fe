/*
 * Peers that take their time, vanish, never read or never stop: deadlines end them, others are served meanwhile, and
 * the memory they can take is bounded.
 */
#include "hostile.h"

#include <linux/filter.h>

/* ---- slow loris ---- */

/* Echoes a line, which it reads byte by byte. */
static intptr_t echo_line(weft_client *client)
{
    char line[64];
    size_t length = 0;
    ssize_t n = 1;

    while (n == 1 && (length == 0 || line[length - 1] != '\n') && length < sizeof line) {
        n = weft_read(client->fd, line + length, 1);
        length += n == 1;
    }
    if (n == 1)
        n = weft_write_all(client->fd, line, length);
    return n > 0 ? WEFT_CALL_AGAIN : is_hang_up(n) ? 0 : n;
}

/* The same with a stream, which buffers. */
static intptr_t echo_line_of_stream(weft_client *client)
{
    weft_stream *stream;
    const char *line;
    int fd = fcntl(client->fd, F_DUPFD_CLOEXEC, 0);
    ssize_t n;

    must(fd >= 0);
    must_be(weft_stream_open(fd, &stream), 0);
    while ((n = weft_stream_readline(stream, &line)) > 0 && (n = weft_stream_write(stream, line, (size_t)n)) == 0)
        if ((n = weft_stream_drain(stream)) < 0)
            break;
    weft_stream_free(stream);
    return is_hang_up(n) ? 0 : n;
}

struct ends {
    atomic_int late, other; /* connections that ended with -ETIMEDOUT, with anything else */
};

static void count_end(weft_client *client, intptr_t result)
{
    struct ends *ends = client->arg;

    atomic_fetch_add(result == -ETIMEDOUT ? &ends->late : &ends->other, 1);
}

/* A byte now and then, until the server hangs up. */
static intptr_t drip(void *arg)
{
    int fd = dial(arg);

    while (weft_write(fd, "x", 1) == 1 && weft_sleep(WEFT_MS(20)) == 0)
        ;
    reset_connection(fd);
    return 0;
}

static void besiege(weft_client_fn *handler)
{
    static const weft_serve_options options = {.call_timeout = WEFT_MS(400), .closed = count_end};
    int count = emulated() || SUPPORT_SANITIZED ? 40 : 300, served = 0;
    struct ends ends = {0};
    weft_server *server = serve(handler, &ends, &options);
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < count; i++)
        must_be(weft_group_spawn(&group, drip, server), 0);
    wait_until_true(accepted_by(server) == (uint64_t)count);
    while (atomic_load(&ends.late) == 0) { /* while all of them are there */
        be_a_good_client(server);
        served++;
    }
    must_be(weft_group_wait(&group), 0);
    wait_until_true(atomic_load(&ends.late) == count);
    must(served >= (SUPPORT_SANITIZED || emulated() ? 2 : 20));
    wait_until_true(atomic_load(&ends.other) == served);
    weft_server_free(server);
}

static intptr_t besiege_both(void *arg)
{
    besiege(echo_line);
    besiege(echo_line_of_stream);
    return (intptr_t)arg;
}

static void who_sends_a_byte_now_and_then_is_cut_off_and_holds_up_nobody(void **state)
{
    (void)state;
    run_everywhere(besiege_both);
}

/* Connected, and silent for ever. */
static intptr_t say_nothing(void *arg)
{
    static const weft_serve_options options = {
        .flags = WEFT_SERVE_ON_DATA, .idle_timeout = WEFT_MS(100), .closed = count_end};
    enum { SILENT = 200 };
    struct ends ends = {0};
    weft_server *server = serve(echo_once, &ends, &options);
    int fds[SILENT];

    for (int i = 0; i < SILENT; i++)
        fds[i] = dial(server);
    be_a_good_client(server);
    wait_until_true(atomic_load(&ends.late) == SILENT);
    wait_until_true(clients_of(server) == 0);
    for (int i = 0; i < SILENT; i++)
        must_be(weft_close(fds[i]), 0);
    expect_recovery(server);
    return (intptr_t)arg;
}

static void who_says_nothing_is_cut_off(void **state)
{
    (void)state;
    run_everywhere(say_nothing);
}

/* ---- half-open connections ---- */

/* From now on the socket takes no segment any more and so acknowledges none: its host is gone, for its peer. */
static void vanish(int fd)
{
    struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
    struct sock_fprog filter = {1, &nothing};

    must_be(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter), 0);
}

static intptr_t await_with_keepalive(weft_client *client)
{
    char buffer[64];
    ssize_t n;

    must_be(weft_set_keepalive(client->fd, 1, 1, 1), 0);
    while ((n = weft_read(client->fd, buffer, sizeof buffer)) > 0)
        if ((n = weft_write_all(client->fd, buffer, (size_t)n)) < 0)
            break;
    return is_hang_up(n) ? 0 : n;
}

static intptr_t call_again_with_keepalive(weft_client *client)
{
    if (!client->data) {
        client->data = client;
        must_be(weft_set_keepalive(client->fd, 1, 1, 1), 0);
    }
    return echo_once(client);
}

static void lose_all(weft_client_fn *handler, const weft_serve_options *options)
{
    enum { LOST = 40 };
    struct ends ends = {0};
    weft_server *server = serve(handler, &ends, options);
    int fds[LOST];

    for (int i = 0; i < LOST; i++) {
        fds[i] = dial(server);
        exchange(fds[i], "a");
        vanish(fds[i]);
    }
    wait_until_true(atomic_load(&ends.late) == LOST);
    must_be(atomic_load(&ends.other), 0);
    for (int i = 0; i < LOST; i++)
        reset_connection(fds[i]);
    expect_recovery(server);
}

/* One second of silence, one probe. */
static intptr_t lose_to_keepalive(void *arg)
{
    static const weft_serve_options options = {.linger = -1, .closed = count_end};

    if (arg)
        lose_all(call_again_with_keepalive, &options);
    else
        lose_all(await_with_keepalive, &options);
    return 0;
}

static void a_peer_that_has_vanished_is_found_out_by_keepalive(void **state)
{
    (void)state;
    assert_int_equal(run_on(1, lose_to_keepalive, NULL), 0);
    assert_int_equal(run_on(8, lose_to_keepalive, ""), 0);
}

static intptr_t lose_to_deadlines(void *arg)
{
    static const weft_serve_options call = {.call_timeout = WEFT_MS(50), .closed = count_end};
    static const weft_serve_options idle = {.idle_timeout = WEFT_MS(50), .linger = -1, .closed = count_end};

    lose_all(echo_all, &call);
    lose_all(echo_once, &idle);
    return (intptr_t)arg;
}

static void a_peer_that_has_vanished_is_ended_by_a_deadline(void **state)
{
    (void)state;
    run_everywhere(lose_to_deadlines);
}

/* ---- peers that never read ---- */

static const char much[256 << 10];

/* Once it has heard from the client. */
static intptr_t pour(weft_client *client)
{
    char byte;
    ssize_t n = weft_read(client->fd, &byte, 1);

    while (n > 0)
        n = weft_write_all(client->fd, much, sizeof much);
    return n;
}

static intptr_t pour_into_stream(weft_client *client)
{
    weft_stream *stream;
    int fd = fcntl(client->fd, F_DUPFD_CLOEXEC, 0);
    char byte;
    ssize_t n;

    must(fd >= 0);
    must_be(weft_stream_open(fd, &stream), 0);
    n = weft_stream_read(stream, &byte, 1);
    while (n > 0) {
        must(weft_stream_buffered(stream) <= WEFT_STREAM_HIGH);
        n = weft_stream_write(stream, much, 16384);
        n = n < 0 ? n : weft_stream_drain(stream);
        n = n < 0 ? n : 1;
    }
    weft_stream_free(stream);
    return n;
}

static void be_deaf(weft_client_fn *handler)
{
    static const weft_serve_options options = {.call_timeout = WEFT_MS(100), .closed = count_end};
    enum { DEAF = 20 };
    struct ends ends = {0};
    weft_server *server = serve(handler, &ends, &options);
    int fds[DEAF];

    for (int i = 0; i < DEAF; i++) {
        fds[i] = dial(server);
        must_be(weft_write(fds[i], "+", 1), 1);
    }
    wait_until_true(atomic_load(&ends.late) == DEAF);
    must_be(atomic_load(&ends.other), 0);
    wait_until_true(clients_of(server) == 0);
    for (int i = 0; i < DEAF; i++)
        reset_connection(fds[i]);
    weft_server_free(server);
}

static intptr_t be_deaf_to_both(void *arg)
{
    be_deaf(pour);
    be_deaf(pour_into_stream);
    return (intptr_t)arg;
}

static void who_never_reads_is_cut_off(void **state)
{
    (void)state;
    run_everywhere(be_deaf_to_both);
}

/* ---- peers that never stop ---- */

struct flood {
    int fd;
    atomic_bool over;
    _Atomic uint64_t sent;
};

static intptr_t send_for_ever(void *arg)
{
    struct flood *flood = arg;
    ssize_t n;

    while ((n = weft_write(flood->fd, much, sizeof much)) > 0)
        atomic_fetch_add(&flood->sent, (uint64_t)n);
    must(is_hang_up(n));
    return 0;
}

static weft_task *begin_flood(struct flood *flood, weft_stream **stream)
{
    weft_task *sender;
    int fds[2];

    must_be(weft_socket_pair(SOCK_STREAM, fds), 0);
    flood->fd = fds[0];
    must_be(weft_stream_open(fds[1], stream), 0);
    must((sender = weft_spawn(send_for_ever, flood)) != NULL);
    return sender;
}

static void end_flood(struct flood *flood, weft_task *sender)
{
    must_be(weft_await(sender), 0);
    must_be(weft_close(flood->fd), 0);
}

/* What one reader with a limit of 64 KiB may hold, others' runs included. */
static void expect_bounded(size_t before)
{
    if (!SUPPORT_SANITIZED)
        must(allocated() < before + (512 << 10));
}

/* Takes a byte for every block that is sent. */
static void sip(weft_stream *stream, struct flood *flood)
{
    size_t before = allocated();
    const char *line;
    char byte;

    for (int i = 0; i < FEWER(200); i++) {
        must_be(weft_stream_read(stream, &byte, 1), 1);
        must_be(weft_yield(), 0);
        expect_bounded(before);
    }
    must(atomic_load(&flood->sent) < (16 << 20)); /* the kernel's buffers, and ours: it has been held up */
    must_be(weft_stream_readline(stream, &line), -EMSGSIZE); /* a line that does not end */
    expect_bounded(before);
}

static intptr_t be_flooded(void *arg)
{
    struct flood flood = {0};
    weft_stream *stream;
    weft_task *sender = begin_flood(&flood, &stream);

    sip(stream, &flood);
    weft_stream_free(stream);
    end_flood(&flood, sender);
    return (intptr_t)arg;
}

static void a_stream_that_is_read_slowly_holds_up_who_never_stops(void **state)
{
    (void)state;
    run_everywhere(be_flooded);
}

struct sink {
    weft_transport *transport;
    _Atomic uint64_t got;
    size_t before;
    atomic_int pauses;
};

static void sink_made(void *arg, weft_transport *transport)
{
    ((struct sink *)arg)->transport = transport;
}

static void sink_data(void *arg, const void *data, size_t size)
{
    struct sink *sink = arg;

    (void)data;
    atomic_fetch_add(&sink->got, size);
    expect_bounded(sink->before);
    if (atomic_load(&sink->pauses) < 50) {
        weft_transport_pause_reading(sink->transport);
        atomic_fetch_add(&sink->pauses, 1);
    } else {
        weft_transport_abort(sink->transport);
    }
}

static intptr_t let_it_go_on(void *arg)
{
    struct sink *sink = arg;

    for (int resumed = 0; resumed < 50; resumed++) {
        uint64_t got;

        wait_until_true(atomic_load(&sink->pauses) > resumed);
        got = atomic_load(&sink->got);
        must_be(weft_sleep(WEFT_US(200)), 0);
        must_be(atomic_load(&sink->got), got); /* nothing comes while it pauses */
        weft_transport_resume_reading(sink->transport);
    }
    return 0;
}

static intptr_t flood_protocol(void *arg)
{
    static const weft_protocol protocol = {.connection_made = sink_made, .data_received = sink_data};
    struct flood flood = {0};
    struct sink sink = {.before = allocated()};
    weft_stream *stream;
    weft_task *sender = begin_flood(&flood, &stream), *resumer;

    must((resumer = weft_spawn(let_it_go_on, &sink)) != NULL);
    must_be(weft_protocol_run(stream, &protocol, &sink), 0);
    must_be(weft_await(resumer), 0);
    weft_stream_free(stream);
    end_flood(&flood, sender);
    return (intptr_t)arg;
}

static void a_protocol_that_pauses_reading_holds_up_who_never_stops(void **state)
{
    (void)state;
    run_everywhere(flood_protocol);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_sends_a_byte_now_and_then_is_cut_off_and_holds_up_nobody),
        cmocka_unit_test(who_says_nothing_is_cut_off),
        cmocka_unit_test(a_peer_that_has_vanished_is_found_out_by_keepalive),
        cmocka_unit_test(a_peer_that_has_vanished_is_ended_by_a_deadline),
        cmocka_unit_test(who_never_reads_is_cut_off),
        cmocka_unit_test(a_stream_that_is_read_slowly_holds_up_who_never_stops),
        cmocka_unit_test(a_protocol_that_pauses_reading_holds_up_who_never_stops),
    };

    return run_all(tests, argc, argv);
}
