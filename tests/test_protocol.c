/* Protocols: the order of the callbacks, pausing in both directions, the ways in which a connection is lost. */
#include <sys/socket.h>

#include "support.h"

static const uint32_t counts[] = {1, 2, 8};

static void run_everywhere(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

/* One end of a connection runs a protocol that writes down what is called; the other is a plain stream. */
struct connection {
    const weft_protocol *protocol;
    weft_stream *own, *peer;
    weft_transport *transport;
    weft_task *task;
    char calls[64]; /* m: made, d: data, e: end, l: lost, p: pause, r: resume */
    size_t length;
    _Atomic size_t received;
    _Atomic int paused, inside;
    _Atomic int made;
    int keeps_open, error;
    size_t left, total; /* to be written; what is done about data */
    void (*on_data)(struct connection *connection, const void *data, size_t size);
};

static void enter(struct connection *connection, char call)
{
    must_be(atomic_fetch_add(&connection->inside, 1), 0); /* never two at a time */
    if (connection->length < sizeof connection->calls - 1 &&
        (connection->length == 0 || connection->calls[connection->length - 1] != call))
        connection->calls[connection->length++] = call;
}

static void leave(struct connection *connection)
{
    atomic_fetch_sub(&connection->inside, 1);
}

static void made(void *arg, weft_transport *transport)
{
    struct connection *connection = arg;

    enter(connection, 'm');
    connection->transport = transport;
    leave(connection);
    atomic_store(&connection->made, 1);
}

static void received(void *arg, const void *data, size_t size)
{
    struct connection *connection = arg;

    enter(connection, 'd');
    must(size > 0);
    atomic_fetch_add(&connection->received, size);
    if (connection->on_data != NULL)
        connection->on_data(connection, data, size);
    leave(connection);
}

static int ended(void *arg)
{
    struct connection *connection = arg;

    enter(connection, 'e');
    leave(connection);
    return connection->keeps_open;
}

static void lost(void *arg, int error)
{
    struct connection *connection = arg;

    enter(connection, 'l');
    connection->error = error;
    leave(connection);
}

static const weft_protocol recording = {made, received, ended, lost, NULL, NULL};

static intptr_t run_protocol(void *arg)
{
    struct connection *connection = arg;
    int rc = weft_protocol_run(connection->own, connection->protocol, connection);

    must_be(rc, connection->error);
    must_be(weft_stream_fd(connection->own), -EBADF);
    return rc;
}

static void open_connection(struct connection *connection, const weft_protocol *protocol)
{
    int fds[2];

    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    must_be(weft_stream_open(fds[0], &connection->own), 0);
    must_be(weft_stream_open(fds[1], &connection->peer), 0);
    connection->protocol = protocol;
    connection->error = 1;
    connection->task = weft_spawn(run_protocol, connection);
    must(connection->task != NULL);
    wait_until_true(atomic_load(&connection->made));
}

static void free_connection(struct connection *connection)
{
    weft_stream_free(connection->own);
    weft_stream_free(connection->peer);
}

static void expect_calls(const struct connection *connection, const char *calls)
{
    if (strcmp(connection->calls, calls) != 0)
        fprintf(stderr, "called: %s\n", connection->calls);
    must(strcmp(connection->calls, calls) == 0);
}

static void echo(struct connection *connection, const void *data, size_t size)
{
    must_be(weft_transport_write(connection->transport, data, size), 0);
}

static void expect(weft_stream *stream, const char *text)
{
    char buffer[64];

    must_be(weft_stream_readexactly(stream, buffer, strlen(text)), strlen(text));
    must(memcmp(buffer, text, strlen(text)) == 0);
}

static void expect_the_end(weft_stream *stream)
{
    char byte;

    must_be(weft_stream_read(stream, &byte, 1), 0);
}

/* ---- the order ---- */

static intptr_t echo_and_end(void *arg)
{
    struct connection connection = {.on_data = echo};

    (void)arg;
    open_connection(&connection, &recording);
    must_be(weft_transport_is_reading(connection.transport), 1);
    must_be(weft_transport_is_closing(connection.transport), 0);
    must(weft_transport_stream(connection.transport) == connection.own);
    for (int i = 0; i < 20; i++) {
        must_be(weft_stream_write(connection.peer, "hello", 5), 0);
        expect(connection.peer, "hello");
    }
    must_be(weft_stream_write_eof(connection.peer), 0);
    expect_the_end(connection.peer);
    must_be(weft_await(connection.task), 0);
    expect_calls(&connection, "mdel");
    must_be(connection.received, 100);
    free_connection(&connection);
    return 0;
}

static void the_callbacks_come_in_order(void **state)
{
    (void)state;
    run_everywhere(echo_and_end);
}

static intptr_t stay_half_open(void *arg)
{
    struct connection connection = {.keeps_open = 1};

    (void)arg;
    open_connection(&connection, &recording);
    must_be(weft_stream_write_eof(connection.peer), 0);
    yield_times(20);
    must_be(weft_transport_write(connection.transport, "still", 5), 0);
    must_be(weft_transport_write_eof(connection.transport), 0);
    must_be(weft_transport_write(connection.transport, "x", 1), -ESHUTDOWN);
    expect(connection.peer, "still");
    expect_the_end(connection.peer);
    must_be(weft_task_done(connection.task), 0);
    weft_transport_close(connection.transport);
    must_be(weft_await(connection.task), 0);
    must(strcmp(connection.calls, "mel") == 0 || strcmp(connection.calls, "ml") == 0);
    free_connection(&connection);
    return 0;
}

static void a_half_closed_connection_can_be_kept(void **state)
{
    (void)state;
    run_everywhere(stay_half_open);
}

static intptr_t without_callbacks(void *arg)
{
    static const weft_protocol nothing = {made, NULL, NULL, lost, NULL, NULL};
    static const weft_protocol empty = {NULL, NULL, NULL, NULL, NULL, NULL};
    struct connection connection = {0};
    weft_stream *stream, *peer;
    int fds[2];

    (void)arg;
    open_connection(&connection, &nothing);
    must_be(weft_protocol_run(connection.own, &empty, NULL), -EBUSY);
    must_be(weft_stream_write(connection.peer, "hello", 5), 0);
    must_be(weft_stream_close(connection.peer), 0);
    must_be(weft_await(connection.task), 0);
    expect_calls(&connection, "ml");
    free_connection(&connection);

    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    must_be(weft_stream_open(fds[0], &stream), 0);
    must_be(weft_stream_open(fds[1], &peer), 0);
    must_be(weft_stream_write(peer, "hello", 5), 0);
    must_be(weft_stream_close(peer), 0);
    must_be(weft_protocol_run(stream, &empty, NULL), 0);
    weft_stream_free(stream);
    weft_stream_free(peer);
    return 0;
}

static void callbacks_may_be_missing(void **state)
{
    (void)state;
    run_everywhere(without_callbacks);
    assert_int_equal(weft_protocol_run(NULL, &recording, NULL), -EPERM);
}

/* ---- the end ---- */

static void reply_much_and_close(struct connection *connection, const void *data, size_t size)
{
    static char block[1 << 20];

    (void)data;
    (void)size;
    must_be(weft_transport_write(connection->transport, block, sizeof block), 0);
    weft_transport_close(connection->transport);
    must_be(weft_transport_is_closing(connection->transport), 1);
    must_be(weft_transport_is_reading(connection->transport), 0);
}

static intptr_t close_from_a_callback(void *arg)
{
    struct connection connection = {.on_data = reply_much_and_close};
    char *bytes = malloc(1 << 20);

    (void)arg;
    must(bytes != NULL);
    open_connection(&connection, &recording);
    must_be(weft_stream_write(connection.peer, "x", 1), 0);
    wait_until_true(atomic_load(&connection.received) == 1);
    must_be(weft_stream_write(connection.peer, "not received", 12), 0);
    yield_times(20);
    must_be(weft_task_done(connection.task), 0); /* it has still to be sent */
    must_be(weft_stream_readexactly(connection.peer, bytes, 1 << 20), 1 << 20);
    must_be(weft_await(connection.task), 0);
    expect_calls(&connection, "mdl");
    must_be(connection.received, 1);
    free_connection(&connection);
    free(bytes);
    return 0;
}

static intptr_t close_from_elsewhere(void *arg)
{
    (void)arg;
    for (int i = 0; i < FEWER(500); i++) {
        struct connection connection = {0};

        open_connection(&connection, &recording);
        if (i % 2)
            yield_times(i % 5);
        if (i % 4 < 2)
            weft_transport_close(connection.transport);
        else
            weft_transport_abort(connection.transport);
        must_be(weft_await(connection.task), 0);
        expect_calls(&connection, "ml");
        expect_the_end(connection.peer);
        free_connection(&connection);
    }
    return 0;
}

static void abort_it(struct connection *connection, const void *data, size_t size)
{
    static char block[1 << 20];

    (void)data;
    (void)size;
    must_be(weft_transport_write(connection->transport, block, sizeof block), 0);
    weft_transport_abort(connection->transport);
}

static intptr_t abort_from_a_callback(void *arg)
{
    struct connection connection = {.on_data = abort_it};

    (void)arg;
    open_connection(&connection, &recording);
    must_be(weft_stream_write(connection.peer, "x", 1), 0);
    must_be(weft_await(connection.task), 0); /* though nobody reads */
    expect_calls(&connection, "mdl");
    free_connection(&connection);
    return 0;
}

static void closing_sends_and_aborting_does_not(void **state)
{
    (void)state;
    run_everywhere(close_from_a_callback);
    run_everywhere(close_from_elsewhere);
    run_everywhere(abort_from_a_callback);
}

static intptr_t lose_in_other_ways(void *arg)
{
    (void)arg;
    for (int way = 0; way < 3; way++) {
        struct connection connection = {.keeps_open = 1};
        static char block[1 << 20];

        open_connection(&connection, &recording);
        if (way == 0) {
            must_be(weft_cancel(connection.task), 1);
            must_be(weft_await(connection.task), -ECANCELED);
        } else if (way == 1) {
            weft_timeout t;

            must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
            must_be(weft_await(connection.task), -ETIMEDOUT);
            must_be(weft_timeout_end(&t), 1);
        } else { /* the peer is gone while it is written to: the driver hears of it */
            must_be(weft_transport_write(connection.transport, block, sizeof block), 0);
            weft_stream_abort(connection.peer);
            must(weft_await(connection.task) < 0);
            must(connection.error == -EPIPE || connection.error == -ECONNRESET);
        }
        must(strcmp(connection.calls, "ml") == 0 || strcmp(connection.calls, "mel") == 0);
        free_connection(&connection);
    }
    return 0;
}

static void a_connection_is_lost_once_with_its_error(void **state)
{
    (void)state;
    run_everywhere(lose_in_other_ways);
}

/* ---- pausing ---- */

enum { BLOCK = 1000, BLOCKS = 5000 };

/* Writes as long as it is not paused, and goes on when it is resumed. */
static void produce(struct connection *connection)
{
    static char block[BLOCK];

    while (!atomic_load(&connection->paused) && connection->left > 0) {
        connection->left -= BLOCK;
        must_be(weft_transport_write(connection->transport, block, BLOCK), 0);
        must(weft_stream_buffered(connection->own) <= WEFT_STREAM_HIGH + BLOCK);
    }
    if (connection->left == 0)
        weft_transport_close(connection->transport);
}

static void pause_producing(void *arg)
{
    struct connection *connection = arg;

    must_be(atomic_exchange(&connection->paused, 1), 0);
    connection->total++;
}

static void resume_producing(void *arg)
{
    struct connection *connection = arg;

    must_be(atomic_exchange(&connection->paused, 0), 1);
    must(weft_stream_buffered(connection->own) <= WEFT_STREAM_LOW);
    produce(connection);
}

static void start_producing(struct connection *connection, const void *data, size_t size)
{
    (void)data;
    (void)size;
    produce(connection);
}

static intptr_t produce_with_pauses(void *arg)
{
    static const weft_protocol producing = {made, received, ended, lost, pause_producing, resume_producing};
    struct connection connection = {.on_data = start_producing, .left = (size_t)BLOCK * BLOCKS};
    size_t got = 0;
    char buffer[5000];
    ssize_t n;

    (void)arg;
    open_connection(&connection, &producing);
    must_be(weft_stream_write(connection.peer, "x", 1), 0);
    while ((n = weft_stream_read(connection.peer, buffer, sizeof buffer)) > 0)
        got += (size_t)n;
    must_be(n, 0);
    must_be(got, BLOCK * BLOCKS);
    must_be(weft_await(connection.task), 0);
    /* On several workers the reader may keep up. */
    must(connection.total > 2 || weft_runtime_workers(weft_runtime_current()) > 1);
    expect_calls(&connection, "mdl");
    free_connection(&connection);
    return 0;
}

static void count_pause(void *arg)
{
    struct connection *connection = arg;

    must_be(atomic_exchange(&connection->paused, 1), 0);
}

static void count_resume(void *arg)
{
    struct connection *connection = arg;

    must_be(atomic_exchange(&connection->paused, 0), 1);
}

static intptr_t write_from_elsewhere(void *arg)
{
    struct connection *connection = arg;
    static const char block[BLOCK];

    for (int i = 0; i < FEWER(2000); i++) {
        must_be(weft_transport_write(connection->transport, block, BLOCK), 0);
        wait_until_true(!atomic_load(&connection->paused)); /* it is always resumed */
    }
    return 0;
}

static intptr_t pause_other_tasks(void *arg)
{
    static const weft_protocol counting = {made, received, ended, lost, count_pause, count_resume};
    struct connection connection = {0};
    size_t expected = (size_t)4 * FEWER(2000) * BLOCK;
    weft_task *writers[4];
    char *bytes = malloc(expected);

    (void)arg;
    must(bytes != NULL);
    open_connection(&connection, &counting);
    for (int i = 0; i < 4; i++) {
        writers[i] = weft_spawn(write_from_elsewhere, &connection);
        must(writers[i] != NULL);
    }
    must_be(weft_stream_readexactly(connection.peer, bytes, expected), expected);
    must_be(weft_gather(writers, 4, NULL), 0);
    must_be(weft_stream_close(connection.peer), 0);
    must_be(weft_await(connection.task), 0);
    free_connection(&connection);
    free(bytes);
    return 0;
}

/* Another task fills the buffer while resume_writing waits: it is paused when that has returned. */
static struct {
    _Atomic int paused, resumed, resuming, filled;
} order;

static void pauses_alone(void *arg)
{
    (void)arg;
    must(!atomic_load(&order.resuming));
    atomic_fetch_add(&order.paused, 1);
}

static void resumes_slowly(void *arg)
{
    (void)arg;
    if (atomic_fetch_add(&order.resumed, 1) > 0)
        return;
    atomic_store(&order.resuming, 1);
    wait_until_true(atomic_load(&order.filled));
    must_be(atomic_load(&order.paused), 1);
    atomic_store(&order.resuming, 0);
}

static void read_away(weft_stream *peer, size_t size)
{
    static char away[1 << 16];

    while (size > 0) {
        ssize_t n = weft_stream_read(peer, away, size < sizeof away ? size : sizeof away);

        must(n > 0);
        size -= (size_t)n;
    }
}

static intptr_t pause_while_resuming(void *arg)
{
    static const weft_protocol protocol = {made, received, ended, lost, pauses_alone, resumes_slowly};
    static char much[4 << 20];
    struct connection connection = {0};

    (void)arg;
    memset(&order, 0, sizeof order);
    open_connection(&connection, &protocol);
    must_be(weft_transport_write(connection.transport, much, sizeof much), 0);
    must_be(atomic_load(&order.paused), 1);
    read_away(connection.peer, sizeof much);
    wait_until_true(atomic_load(&order.resuming));
    must_be(weft_transport_write(connection.transport, much, sizeof much), 0);
    atomic_store(&order.filled, 1);
    wait_until_true(atomic_load(&order.paused) == 2);
    read_away(connection.peer, sizeof much);
    wait_until_true(atomic_load(&order.resumed) == 2);
    weft_transport_close(connection.transport);
    must_be(weft_await(connection.task), 0);
    free_connection(&connection);
    return 0;
}

static void a_pause_waits_for_the_end_of_resuming(void **state)
{
    (void)state;
    run_everywhere(pause_while_resuming);
}

static void a_writer_is_paused_and_resumed(void **state)
{
    (void)state;
    run_everywhere(produce_with_pauses);
    run_everywhere(pause_other_tasks);
}

static void pause_after_each(struct connection *connection, const void *data, size_t size)
{
    (void)data;
    (void)size;
    weft_transport_pause_reading(connection->transport);
    weft_transport_pause_reading(connection->transport);
}

static intptr_t pause_reading(void *arg)
{
    struct connection connection = {.on_data = pause_after_each};
    const size_t size = 4 << 20;
    char *bytes = calloc(1, size);

    (void)arg;
    must(bytes != NULL);
    open_connection(&connection, &recording);
    must_be(weft_stream_write(connection.peer, bytes, size), 0);
    for (size_t last = 0; last < size;) {
        size_t now;

        wait_until_true(atomic_load(&connection.received) > last);
        must_be(weft_transport_is_reading(connection.transport), 0);
        now = atomic_load(&connection.received);
        yield_times(20);
        must_be(atomic_load(&connection.received), now); /* nothing more comes */
        if (last == 0)
            must(weft_stream_buffered(connection.peer) > 0); /* the peer is held up */
        last = now;
        if (last > size / 16) {
            connection.on_data = NULL;
            weft_transport_resume_reading(connection.transport);
            break;
        }
        weft_transport_resume_reading(connection.transport);
    }
    must_be(weft_stream_close(connection.peer), 0);
    must_be(weft_await(connection.task), 0);
    must_be(connection.received, size);
    expect_calls(&connection, "mdel");
    free_connection(&connection);
    free(bytes);
    return 0;
}

static void reading_can_be_paused(void **state)
{
    (void)state;
    run_everywhere(pause_reading);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_callbacks_come_in_order),
        cmocka_unit_test(a_half_closed_connection_can_be_kept),
        cmocka_unit_test(callbacks_may_be_missing),
        cmocka_unit_test(closing_sends_and_aborting_does_not),
        cmocka_unit_test(a_connection_is_lost_once_with_its_error),
        cmocka_unit_test(a_writer_is_paused_and_resumed),
        cmocka_unit_test(a_pause_waits_for_the_end_of_resuming),
        cmocka_unit_test(reading_can_be_paused),
    };

    return run_all(tests, argc, argv);
}
