/* Servers whose handlers are given streams: over TCP and Unix sockets, what is sent at the end, closing in all ways. */
#include <sys/socket.h>
#include <weft/net.h>

#include "support.h"

static const uint32_t few_workers[] = {1, 2, 8};
enum { FEW = sizeof few_workers / sizeof *few_workers };

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < FEW; i++)
        assert_int_equal(run_on(few_workers[i], fn, NULL), 0);
}

static weft_server *serve(weft_stream_client_fn *handler, void *arg, const weft_serve_options *options)
{
    weft_server *server;

    must_be(weft_serve_streams(&server, weft_listen("127.0.0.1", 0, 0), handler, arg, options), 0);
    return server;
}

static weft_stream *dial(weft_server *server)
{
    weft_stream *stream;

    must_be(weft_stream_dial("127.0.0.1", (uint16_t)weft_server_port(server), &stream), 0);
    return stream;
}

static size_t clients_of(weft_server *server)
{
    weft_server_stats stats;

    weft_server_look(server, &stats);
    return stats.clients;
}

/* ---- talking ---- */

static intptr_t echo_lines(weft_stream *stream, weft_client *client)
{
    const char *line;
    ssize_t n;

    must_be(client->fd, -1);
    while ((n = weft_stream_readline(stream, &line)) > 0) {
        int rc = weft_stream_write(stream, line, (size_t)n);

        if (rc == 0)
            rc = weft_stream_drain(stream);
        if (rc < 0)
            return rc;
    }
    return n;
}

static void talk(weft_stream *stream)
{
    char text[40];

    for (int i = 0; i < 20; i++) {
        int length = snprintf(text, sizeof text, "line %d\n", i);
        const char *line;

        must_be(weft_stream_write(stream, text, (size_t)length), 0);
        must_be(weft_stream_readline(stream, &line), length);
        must(memcmp(line, text, (size_t)length) == 0);
    }
    must_be(weft_stream_write_eof(stream), 0);
    must_be(weft_stream_read(stream, text, sizeof text), 0);
    must_be(weft_stream_close(stream), 0);
    weft_stream_free(stream);
}

static intptr_t dial_and_talk(void *server)
{
    talk(dial(server));
    return 0;
}

static intptr_t many_talk(void *arg)
{
    weft_server *server = serve(echo_lines, NULL, NULL);
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < 30; i++)
        must_be(weft_group_spawn(&group, dial_and_talk, server), 0);
    must_be(weft_group_wait(&group), 0);
    weft_server_close(server);
    must_be(weft_server_wait_closed(server), 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void a_handler_is_given_a_stream(void **state)
{
    (void)state;
    run_everywhere(many_talk);
}

static intptr_t talk_locally(void *arg)
{
    weft_address address;
    weft_server *server;
    weft_stream *stream;
    char name[40];

    snprintf(name, sizeof name, "@weft-test-streams-%ld", (long)getpid());
    must_be(weft_address_parse(&address, name, 0), 0);
    must_be(weft_stream_dial_address(&address, &stream), -ECONNREFUSED);
    must_be(weft_serve_streams(&server, weft_listen_on(&address, 0, 0), echo_lines, NULL, NULL), 0);
    must_be(weft_stream_dial_address(&address, &stream), 0);
    talk(stream);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void unix_sockets_are_served_and_dialled_as_streams(void **state)
{
    (void)state;
    run_everywhere(talk_locally);
}

/* ---- at the end of a handler ---- */

enum { MUCH = 5 << 20 };

static intptr_t send_much(weft_stream *stream, weft_client *client)
{
    static const char much[MUCH];

    (void)client;
    return weft_stream_write(stream, much, MUCH);
}

static intptr_t receive_much(void *arg)
{
    weft_server *server = serve(send_much, NULL, NULL);
    weft_stream *stream = dial(server);
    char *buffer = malloc(MUCH);

    must(buffer != NULL);
    must_be(weft_stream_readexactly(stream, buffer, MUCH), MUCH);
    must_be(weft_stream_read(stream, buffer, 1), 0);
    free(buffer);
    weft_stream_free(stream);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void what_is_buffered_when_it_returns_is_sent(void **state)
{
    (void)state;
    run_everywhere(receive_much);
}

struct ends {
    atomic_int count;
    atomic_long result;
    atomic_int data;
};

static void note_end(weft_client *client, intptr_t result)
{
    struct ends *ends = client->arg;

    must(client->fd == -1 || result == -ECANCELED); /* cancelled before it was called */
    atomic_store(&ends->result, result);
    atomic_store(&ends->data, (int)(intptr_t)client->data);
    atomic_fetch_add(&ends->count, 1);
}

static const weft_serve_options noting = {.closed = note_end};

static intptr_t close_it_itself(weft_stream *stream, weft_client *client)
{
    client->data = (void *)(intptr_t)7;
    must_be(weft_stream_write(stream, "bye", 3), 0);
    must_be(weft_stream_close(stream), 0);
    return 42;
}

static intptr_t call_again(weft_stream *stream, weft_client *client)
{
    (void)stream;
    (void)client;
    return WEFT_CALL_AGAIN;
}

static void hear_the_end(weft_stream_client_fn *handler, const char *last, intptr_t result, int data)
{
    struct ends ends = {0};
    weft_server *server = serve(handler, &ends, &noting);
    weft_stream *stream = dial(server);
    char text[8];

    must_be(weft_stream_readexactly(stream, text, sizeof text), strlen(last));
    must(memcmp(text, last, strlen(last)) == 0);
    wait_until_true(atomic_load(&ends.count) == 1);
    must_be(atomic_load(&ends.result), result);
    must_be(atomic_load(&ends.data), data);
    weft_stream_free(stream);
    weft_server_free(server);
    must_be(atomic_load(&ends.count), 1);
}

static intptr_t several_ends(void *arg)
{
    hear_the_end(close_it_itself, "bye", 42, 7);
    hear_the_end(call_again, "", -EINVAL, 0);
    return (intptr_t)arg;
}

static void a_handler_may_close_the_stream_itself(void **state)
{
    (void)state;
    run_everywhere(several_ends);
}

/* ---- closing ---- */

static intptr_t close_on_one_that_talks(void *arg)
{
    weft_server *server = serve(echo_lines, NULL, NULL);
    weft_stream *stream = dial(server);
    const char *line;
    weft_timeout patience;

    must_be(weft_stream_write(stream, "a\n", 2), 0);
    must_be(weft_stream_readline(stream, &line), 2);
    weft_server_close(server);
    must_be(weft_timeout_begin(&patience, WEFT_MS(5)), 0);
    must_be(weft_server_wait_closed(server), -ETIMEDOUT);
    must_be(weft_timeout_end(&patience), 1);
    talk(stream); /* until it leaves by itself */
    must_be(weft_server_wait_closed(server), 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void a_closed_server_waits_for_its_clients(void **state)
{
    (void)state;
    run_everywhere(close_on_one_that_talks);
}

static intptr_t close_on_one_that_does_not_read(void *arg)
{
    struct ends ends = {0};
    weft_server *server = serve(send_much, &ends, &noting);
    weft_stream *stream = dial(server);

    wait_until_true(clients_of(server) == 1);
    weft_server_close(server);
    weft_server_close_clients(server);
    must_be(weft_server_wait_closed(server), 0); /* though nobody has taken the rest */
    must_be(atomic_load(&ends.count), 1);
    weft_stream_free(stream);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void closing_clients_ends_those_whose_peer_does_not_read(void **state)
{
    (void)state;
    run_everywhere(close_on_one_that_does_not_read);
}

static intptr_t reset_one(void *arg)
{
    weft_server *server = serve(echo_lines, NULL, NULL);
    weft_stream *stream = dial(server);
    const char *line;
    char byte;

    must_be(weft_stream_write(stream, "a\n", 2), 0);
    must_be(weft_stream_readline(stream, &line), 2);
    weft_server_abort_clients(server);
    must_be(weft_stream_read(stream, &byte, 1), -ECONNRESET);
    weft_stream_free(stream);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void aborting_clients_resets_them(void **state)
{
    (void)state;
    run_everywhere(reset_one);
}

static intptr_t end_in_the_middle(void *arg)
{
    for (int i = 0; i < FEWER(100); i++) {
        weft_server *server = serve(i % 2 ? echo_lines : send_much, &(struct ends){0}, &noting);
        weft_stream *streams[4];

        for (int k = 0; k < 4; k++) {
            streams[k] = dial(server);
            must_be(weft_stream_write(streams[k], "abc\nd", 5), 0);
        }
        for (int k = 0; k < i % 5; k++)
            must_be(weft_yield(), 0);
        if (i % 3 == 0)
            weft_server_abort_clients(server);
        if (i % 3 == 1)
            weft_server_close_clients(server);
        weft_server_free(server);
        for (int k = 0; k < 4; k++)
            weft_stream_free(streams[k]);
    }
    return (intptr_t)arg;
}

static void a_server_can_be_freed_at_any_time(void **state)
{
    (void)state;
    run_everywhere(end_in_the_middle);
}

static intptr_t misuses(void *arg)
{
    weft_server *server;

    must_be(weft_serve_streams(&server, -EADDRINUSE, echo_lines, NULL, NULL), -EADDRINUSE);
    must(server == NULL);
    must_be(weft_serve_streams(&server, weft_listen("127.0.0.1", 0, 0), NULL, NULL, NULL), -EINVAL);
    return (intptr_t)arg;
}

static void misuse_is_an_error(void **state)
{
    weft_server *server;

    (void)state;
    assert_int_equal(run_alone(misuses, NULL), 0);
    assert_int_equal(weft_serve_streams(&server, weft_listen("127.0.0.1", 0, 0), echo_lines, NULL, NULL), -EPERM);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handler_is_given_a_stream),
        cmocka_unit_test(unix_sockets_are_served_and_dialled_as_streams),
        cmocka_unit_test(what_is_buffered_when_it_returns_is_sent),
        cmocka_unit_test(a_handler_may_close_the_stream_itself),
        cmocka_unit_test(a_closed_server_waits_for_its_clients),
        cmocka_unit_test(closing_clients_ends_those_whose_peer_does_not_read),
        cmocka_unit_test(aborting_clients_resets_them),
        cmocka_unit_test(a_server_can_be_freed_at_any_time),
        cmocka_unit_test(misuse_is_an_error),
    };

    return run_all(tests, argc, argv);
}
