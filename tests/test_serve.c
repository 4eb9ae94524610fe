/* Servers: calling again, limits, running out of descriptors, closing in all its ways, hostile clients. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "support.h"

static const uint32_t few_workers[] = {1, 2, 8};
enum { FEW = sizeof few_workers / sizeof *few_workers };

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < FEW; i++)
        assert_int_equal(run_on(few_workers[i], fn, NULL), 0);
}

/* ---- both sides ---- */

static weft_server *serve(weft_client_fn *handler, void *arg, const weft_serve_options *options)
{
    weft_server *server;

    must_be(weft_serve(&server, weft_listen("127.0.0.1", 0, 0), handler, arg, options), 0);
    return server;
}

static int dial(weft_server *server)
{
    int fd = weft_dial("127.0.0.1", (uint16_t)weft_server_port(server));

    must(fd >= 0);
    return fd;
}

static void read_exactly(int fd, char *buffer, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = weft_read(fd, buffer + got, size - got);

        must(n > 0);
        got += (size_t)n;
    }
}

static void exchange(int fd, const char *text)
{
    char back[64];
    size_t size = strlen(text);

    must_be(weft_write_all(fd, text, size), size);
    read_exactly(fd, back, size);
    must(memcmp(text, back, size) == 0);
}

static size_t clients_of(weft_server *server)
{
    weft_server_stats stats;

    weft_server_look(server, &stats);
    return stats.clients;
}

static size_t idle_of(weft_server *server)
{
    weft_server_stats stats;

    weft_server_look(server, &stats);
    return stats.idle;
}

static intptr_t echo_once(weft_client *client)
{
    char buffer[4096];
    ssize_t n = weft_read(client->fd, buffer, sizeof buffer);

    if (n > 0)
        n = weft_write_all(client->fd, buffer, (size_t)n);
    return n > 0 ? WEFT_CALL_AGAIN : n;
}

static intptr_t echo_all(weft_client *client)
{
    intptr_t rc;

    do
        rc = echo_once(client);
    while (rc == WEFT_CALL_AGAIN);
    return rc;
}

/* ---- calling again ---- */

struct conversation {
    weft_server *server;
    int rounds;
    int64_t pause;
};

static intptr_t converse(void *arg)
{
    struct conversation *conversation = arg;
    int fd = dial(conversation->server);
    char text[32];

    for (int i = 0; i < conversation->rounds; i++) {
        snprintf(text, sizeof text, "round %d of %d", i, fd);
        exchange(fd, text);
        if (conversation->pause)
            must_be(weft_sleep(conversation->pause), 0);
    }
    must_be(weft_close(fd), 0);
    return 0;
}

static void converse_with(weft_server *server, int clients, int rounds, int64_t pause)
{
    struct conversation conversation = {server, rounds, pause};
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < clients; i++)
        must_be(weft_group_spawn(&group, converse, &conversation), 0);
    must_be(weft_group_wait(&group), 0);
}

static void serve_and_converse(weft_client_fn *handler, const weft_serve_options *options)
{
    weft_server *server = serve(handler, NULL, options);
    weft_server_stats stats;

    converse_with(server, 20, FEWER(100), 0);
    converse_with(server, 5, 5, WEFT_MS(2));
    weft_server_close(server);
    must_be(weft_server_wait_closed(server), 0);
    weft_server_look(server, &stats);
    must_be(stats.accepted, 25);
    must_be(stats.clients, 0);
    must_be(stats.idle, 0);
    must_be(stats.pauses, 0);
    weft_server_free(server);
}

static intptr_t several_ways(void *arg)
{
    static const weft_serve_options ways[] = {
        WEFT_SERVE_DEFAULT,
        {.linger = -1},
        {.linger = WEFT_MS(1)},
        {.flags = WEFT_SERVE_ON_DATA, .linger = -1},
        {.flags = WEFT_SERVE_ON_DATA, .idle_timeout = WEFT_SEC(5), .call_timeout = WEFT_SEC(5)},
    };

    serve_and_converse(echo_all, NULL);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        serve_and_converse(echo_once, &ways[i]);
    return (intptr_t)arg;
}

static void a_handler_is_called_for_every_message(void **state)
{
    (void)state;
    run_everywhere(several_ways);
}

static intptr_t park_many(void *arg)
{
    static const weft_serve_options options = {.linger = -1};
    enum { CLIENTS = 300 };
    weft_server *server = serve(echo_once, NULL, &options);
    int fds[CLIENTS];

    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = dial(server);
        exchange(fds[i], "hello");
    }
    wait_until_true(idle_of(server) == CLIENTS);
    must_be(clients_of(server), CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        exchange(fds[i], "and again");
    for (int i = 0; i < CLIENTS; i++)
        must_be(weft_close(fds[i]), 0);
    wait_until_true(clients_of(server) == 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void idle_connections_wait_without_being_called(void **state)
{
    (void)state;
    run_everywhere(park_many);
}

struct tally {
    atomic_int calls, closed, freed;
    atomic_long result;
};

static intptr_t count_calls(weft_client *client)
{
    struct tally *tally = client->arg;
    intptr_t rc = echo_once(client);
    int *count = client->data;

    atomic_fetch_add(&tally->calls, 1);
    if (!count)
        client->data = count = calloc(1, sizeof *count);
    if (rc == WEFT_CALL_AGAIN && ++*count == 3)
        return 77;
    return rc;
}

static void note_closed(weft_client *client, intptr_t result)
{
    struct tally *tally = client->arg;

    must(fcntl(client->fd, F_GETFD) >= 0);
    atomic_store(&tally->result, result);
    atomic_fetch_add(&tally->freed, client->data != NULL);
    free(client->data);
    atomic_fetch_add(&tally->closed, 1);
}

static intptr_t keep_data(void *arg)
{
    static const weft_serve_options options = {.linger = -1, .closed = note_closed};
    struct tally tally = {0};
    weft_server *server = serve(count_calls, &tally, &options);
    int fd = dial(server);
    char byte;

    for (int i = 0; i < 3; i++)
        exchange(fd, "abc");
    must_be(weft_read(fd, &byte, 1), 0); /* the handler has ended it */
    must_be(weft_close(fd), 0);
    wait_until_true(atomic_load(&tally.closed) == 1);
    must_be(atomic_load(&tally.result), 77);
    must_be(atomic_load(&tally.calls), 3);
    must_be(atomic_load(&tally.freed), 1);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void what_a_handler_keeps_is_given_back_when_the_connection_ends(void **state)
{
    (void)state;
    run_everywhere(keep_data);
}

static intptr_t greet(weft_client *client)
{
    return weft_write_all(client->fd, "hello", 5) == 5 ? 0 : -EIO;
}

static intptr_t first_words(void *arg)
{
    static const weft_serve_options on_data = {.flags = WEFT_SERVE_ON_DATA};
    weft_server *server = serve(greet, NULL, NULL);
    weft_timeout scope;
    char text[5];
    int fd = dial(server);

    read_exactly(fd, text, 5); /* the server speaks first */
    must_be(weft_close(fd), 0);
    weft_server_free(server);

    server = serve(greet, NULL, &on_data);
    fd = dial(server);
    must_be(weft_timeout_begin(&scope, WEFT_MS(5)), 0);
    must_be(weft_read(fd, text, 5), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    wait_until_true(idle_of(server) == 1);
    must_be(weft_write(fd, "?", 1), 1);
    read_exactly(fd, text, 5);
    must_be(weft_close(fd), 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void the_first_call_comes_at_once_or_with_the_first_data(void **state)
{
    (void)state;
    run_everywhere(first_words);
}

/* ---- limits ---- */

static intptr_t fill_up(void *arg)
{
    static const weft_serve_options options = {.clients_max = 2};
    weft_server *server = serve(echo_once, NULL, &options);
    weft_timeout scope;
    char byte;
    int fds[3];

    for (int i = 0; i < 3; i++)
        fds[i] = dial(server); /* the third one is connected by the kernel only */
    exchange(fds[0], "a");
    exchange(fds[1], "b");
    must_be(weft_write(fds[2], "c", 1), 1);
    must_be(weft_timeout_begin(&scope, WEFT_MS(10)), 0);
    must_be(weft_read(fds[2], &byte, 1), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(clients_of(server), 2);
    must_be(weft_close(fds[0]), 0);
    read_exactly(fds[2], &byte, 1);
    must_be(byte, 'c');
    must_be(weft_close(fds[1]), 0);
    must_be(weft_close(fds[2]), 0);
    converse_with(server, 10, 3, 0); /* two at a time */
    weft_server_free(server);
    return (intptr_t)arg;
}

static void more_clients_than_the_limit_wait_to_be_accepted(void **state)
{
    (void)state;
    run_everywhere(fill_up);
}

static atomic_int pauses, resumptions;

static void note_pause(weft_server *server, int error, void *arg)
{
    must(server != NULL);
    must(arg == (void *)&pauses);
    if (error == 0)
        atomic_fetch_add(&resumptions, 1);
    else
        must_be(error, -EMFILE);
    if (error != 0)
        atomic_fetch_add(&pauses, 1);
}

static intptr_t run_short(void *arg)
{
    static const weft_serve_options options = {.paused = note_pause};
    weft_server *server = serve(echo_once, &pauses, &options);
    struct rlimit limit, less;
    int first = dial(server), fds[4], used;
    weft_server_stats stats;

    exchange(first, "a");
    for (int i = 0; i < 4; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        must(fds[i] >= 0);
    }
    must_be(getrlimit(RLIMIT_NOFILE, &limit), 0);
    less = limit;
    used = dup(first);
    close(used);
    less.rlim_cur = (rlim_t)used; /* not one more */
    must_be(setrlimit(RLIMIT_NOFILE, &less), 0);
    for (int i = 0; i < 4; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)weft_server_port(server)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

        must_be(weft_connect(fds[i], (struct sockaddr *)&to, sizeof to), 0);
    }
    wait_until_true(atomic_load(&pauses) == 1);
    exchange(first, "who is connected is served");
    must_be(weft_close(first), 0); /* two descriptors are free now, ours and the server's */
    exchange(fds[0], "b");
    wait_until_true(atomic_load(&resumptions) >= 1);
    must_be(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int i = 1; i < 4; i++)
        exchange(fds[i], "c");
    weft_server_look(server, &stats);
    must_be(stats.accepted, 5);
    must_be(stats.pauses, atomic_load(&pauses));
    for (int i = 0; i < 4; i++)
        must_be(weft_close(fds[i]), 0);
    weft_server_free(server);
    atomic_store(&pauses, 0);
    atomic_store(&resumptions, 0);
    return (intptr_t)arg;
}

static void accepting_pauses_without_descriptors_and_recovers(void **state)
{
    (void)state;
    run_everywhere(run_short);
}

/* ---- closing ---- */

struct gate {
    weft_event entered, leave;
    atomic_int done;
};

static intptr_t pass_gate(weft_client *client)
{
    struct gate *gate = client->arg;
    int rc;

    weft_event_set(&gate->entered);
    rc = weft_event_wait(&gate->leave);
    if (rc == 0)
        must_be(weft_write_all(client->fd, "done", 4), 4);
    atomic_fetch_add(&gate->done, 1);
    return rc < 0 ? rc : WEFT_CALL_AGAIN;
}

static intptr_t close_gracefully(void *arg)
{
    struct gate gate = {0};
    weft_server *server = serve(pass_gate, &gate, NULL);
    uint16_t port = (uint16_t)weft_server_port(server);
    weft_timeout scope;
    char text[4];
    int fd = dial(server);

    must_be(weft_event_wait(&gate.entered), 0);
    weft_server_close(server);
    weft_server_close(server); /* nothing more */
    must_be(weft_timeout_begin(&scope, WEFT_MS(5)), 0);
    must_be(weft_server_wait_closed(server), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    for (int other; (other = weft_dial("127.0.0.1", port)) != -ECONNREFUSED;) {
        must(other >= 0);
        must_be(weft_close(other), 0);
    }
    weft_event_set(&gate.leave);
    read_exactly(fd, text, 4);
    must_be(weft_read(fd, text, 1), 0); /* it is not called again */
    must_be(weft_server_wait_closed(server), 0);
    must_be(atomic_load(&gate.done), 1);
    weft_server_free(server);
    must_be(weft_close(fd), 0);
    return (intptr_t)arg;
}

static void a_closed_server_waits_for_the_calls_that_run(void **state)
{
    (void)state;
    run_everywhere(close_gracefully);
}

/* Whatever was sent before the close is answered, whether the connection idles or not. */
static intptr_t close_while_asked(void *arg)
{
    static const weft_serve_options options = {.linger = -1};

    for (int i = 0; i < FEWER(200); i++) {
        weft_server *server = serve(echo_once, NULL, &options);
        int fd = dial(server);
        char byte;

        exchange(fd, "a");
        if (i % 2)
            wait_until_true(idle_of(server) == 1);
        must_be(weft_write(fd, "b", 1), 1);
        weft_server_close(server);
        if (weft_read(fd, &byte, 1) == 1) {
            must_be(byte, 'b');
            must_be(weft_read(fd, &byte, 1), 0);
        } else {
            must(i % 2 == 0); /* it was not idle: closed after the call that ran */
        }
        must_be(weft_server_wait_closed(server), 0);
        weft_server_free(server);
        must_be(weft_close(fd), 0);
    }
    return (intptr_t)arg;
}

static void an_idle_connection_is_asked_once_more_before_it_is_closed(void **state)
{
    (void)state;
    run_everywhere(close_while_asked);
}

static intptr_t cancel_clients(void *arg)
{
    static const weft_serve_options options = {.linger = -1, .closed = note_closed};
    struct tally tally = {0};
    weft_server *server = serve(count_calls, &tally, &options);
    int idle = dial(server), busy = dial(server), fd;
    char byte;

    exchange(idle, "a");
    wait_until_true(idle_of(server) == 1 && clients_of(server) == 2);
    weft_server_close_clients(server);
    must_be(weft_read(idle, &byte, 1), 0);
    must_be(weft_read(busy, &byte, 1), 0);
    wait_until_true(atomic_load(&tally.closed) == 2);
    must_be(atomic_load(&tally.result), -ECANCELED);
    fd = dial(server); /* the server goes on */
    exchange(fd, "b");
    must_be(weft_close(fd), 0);
    must_be(weft_close(idle), 0);
    must_be(weft_close(busy), 0);
    weft_server_free(server);
    must_be(atomic_load(&tally.closed), 3);
    return (intptr_t)arg;
}

static void closing_clients_cancels_them(void **state)
{
    (void)state;
    run_everywhere(cancel_clients);
}

static intptr_t reset_clients(void *arg)
{
    static const weft_serve_options options = {.linger = -1};
    weft_server *server = serve(echo_once, NULL, &options);
    int idle = dial(server), busy = dial(server);
    char byte;

    exchange(idle, "a");
    wait_until_true(idle_of(server) == 1 && clients_of(server) == 2);
    weft_server_abort_clients(server);
    must_be(weft_read(idle, &byte, 1), -ECONNRESET);
    must_be(weft_read(busy, &byte, 1), -ECONNRESET);
    must_be(weft_close(idle), 0);
    must_be(weft_close(busy), 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void aborting_clients_resets_them(void **state)
{
    (void)state;
    run_everywhere(reset_clients);
}

/* ---- time ---- */

static intptr_t time_out(void *arg)
{
    static const weft_serve_options options = {.linger = -1, .idle_timeout = WEFT_MS(20), .closed = note_closed};
    struct tally tally = {0};
    weft_server *server = serve(count_calls, &tally, &options);
    int64_t began = weft_now();
    char byte;
    int fd = dial(server);

    exchange(fd, "a");
    must_be(weft_read(fd, &byte, 1), 0);
    must(weft_now() - began >= WEFT_MS(19));
    must_be(weft_close(fd), 0);
    wait_until_true(atomic_load(&tally.closed) == 1);
    must_be(atomic_load(&tally.result), -ETIMEDOUT);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void a_connection_that_idles_too_long_is_closed(void **state)
{
    (void)state;
    run_everywhere(time_out);
}

/* Wants a whole line. */
static intptr_t read_line(weft_client *client)
{
    char byte = 0;
    ssize_t n = 1;

    while (n == 1 && byte != '\n')
        n = weft_read(client->fd, &byte, 1);
    return n == 1 ? WEFT_CALL_AGAIN : n;
}

static intptr_t send_slowly(void *arg)
{
    int fd = dial(arg), sent = 0;

    while (weft_write(fd, "x", 1) == 1 && weft_sleep(WEFT_MS(1)) == 0)
        sent++;
    must_be(weft_close(fd), 0);
    return sent;
}

static intptr_t slow_loris(void *arg)
{
    static const weft_serve_options options = {.call_timeout = WEFT_MS(20)};
    weft_server *server = serve(read_line, NULL, &options);
    weft_task *tasks[10];

    for (int i = 0; i < 10; i++)
        must((tasks[i] = weft_spawn(send_slowly, server)) != NULL);
    for (int i = 0; i < 10; i++)
        must(weft_await(tasks[i]) >= 0); /* it ends: the server hung up */
    wait_until_true(clients_of(server) == 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void who_sends_a_byte_at_a_time_is_cut_off(void **state)
{
    (void)state;
    run_everywhere(slow_loris);
}

/* ---- hostile clients ---- */

static intptr_t reply_at_length(weft_client *client)
{
    static const char much[64 << 10];
    char buffer[100];
    ssize_t n = weft_read(client->fd, buffer, sizeof buffer);

    for (int i = 0; i < 8 && n > 0; i++)
        n = weft_write_all(client->fd, much, sizeof much);
    return n > 0 ? WEFT_CALL_AGAIN : n == -ECONNRESET || n == -EPIPE ? 0 : n;
}

static void drop(weft_server *server, int how)
{
    char buffer[1000];
    int fd = dial(server);

    if (how & 1)
        must_be(weft_set_abort(fd), 0);
    if (how >> 1 >= 1)
        must_be(weft_write(fd, "go", 2), 2);
    if (how >> 1 >= 2)
        must(weft_read(fd, buffer, sizeof buffer) > 0);
    if (how >> 1 == 3)
        must_be(shutdown(fd, SHUT_WR), 0);
    if (how >> 1 == 4)
        must_be(weft_yield(), 0);
    must_be(weft_close(fd), 0);
}

static intptr_t drop_often(void *arg)
{
    for (int i = 0; i < FEWER(200); i++)
        drop(arg, i % 10);
    return 0;
}

static intptr_t resets(void *arg)
{
    static const weft_serve_options options[] = {{.linger = -1}, {.linger = WEFT_MS(1)}};

    for (int way = 0; way < 2; way++) {
        weft_server *server = serve(reply_at_length, NULL, &options[way]);
        weft_group group;

        must_be(weft_group_begin(&group), 0);
        for (int i = 0; i < 4; i++)
            must_be(weft_group_spawn(&group, drop_often, server), 0);
        must_be(weft_group_wait(&group), 0);
        wait_until_true(clients_of(server) == 0);
        weft_server_free(server);
    }
    return (intptr_t)arg;
}

static void clients_that_vanish_at_any_point_leave_nothing(void **state)
{
    (void)state;
    run_everywhere(resets);
}

static intptr_t open_and_drop(void *arg)
{
    for (int i = 0; i < FEWER(2500); i++) {
        int fd = dial(arg);

        must_be(weft_set_abort(fd), 0); /* no TIME_WAIT: there are only so many ports */
        must_be(weft_close(fd), 0);
    }
    return 0;
}

static intptr_t flood(void *arg)
{
    static const weft_serve_options options = {.flags = WEFT_SERVE_ON_DATA};
    weft_server *server = serve(reply_at_length, NULL, &options);
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < 4; i++)
        must_be(weft_group_spawn(&group, open_and_drop, server), 0);
    must_be(weft_group_wait(&group), 0);
    wait_until_true(clients_of(server) == 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void ten_thousand_connections_opened_and_dropped(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, flood, NULL), 0);
}

/* Closing, cancelling and aborting while clients come and go: what counts is that it ends and that nothing is
 * left. */
static intptr_t end_in_the_middle(void *arg)
{
    static const weft_serve_options options[] = {{.linger = -1}, {.linger = WEFT_US(100), .clients_max = 3}};

    for (int i = 0; i < FEWER(150); i++) {
        weft_server *server = serve(i & 2 ? echo_all : echo_once, NULL, &options[i % 2]);
        int fds[6];

        for (int k = 0; k < 6; k++) {
            fds[k] = dial(server);
            must_be(weft_write(fds[k], "abc", 3), 3);
        }
        for (int k = 0; k < i % 7; k++)
            must_be(weft_yield(), 0);
        if (i % 3 == 0)
            weft_server_abort_clients(server);
        if (i % 3 == 1)
            weft_server_close(server);
        if (i % 5 == 1)
            weft_server_close_clients(server);
        weft_server_free(server);
        for (int k = 0; k < 6; k++)
            must_be(weft_close(fds[k]), 0);
    }
    return (intptr_t)arg;
}

static void a_server_can_be_freed_at_any_time(void **state)
{
    (void)state;
    run_everywhere(end_in_the_middle);
}

/* ---- several listeners, other listeners, misuse ---- */

static intptr_t per_worker(void *arg)
{
    static const weft_serve_options options = {.flags = WEFT_SERVE_PER_WORKER};
    weft_address address;
    weft_server *server;

    must_be(weft_address_parse(&address, "127.0.0.1:0", 0), 0);
    must_be(weft_serve(&server, weft_listen_on(&address, 0, WEFT_SOCKET_REUSEPORT), echo_once, NULL, &options), 0);
    converse_with(server, 30, 5, 0);
    weft_server_close(server);
    must_be(weft_server_wait_closed(server), 0);
    weft_server_free(server);
    must_be(weft_serve(&server, weft_listen("127.0.0.1", 0, 0), echo_once, NULL, &options),
            weft_runtime_workers(weft_runtime_current()) > 1 ? -EINVAL : 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void each_worker_may_accept_for_itself(void **state)
{
    (void)state;
    run_everywhere(per_worker);
}

static intptr_t over_unix(void *arg)
{
    weft_address address;
    weft_server *server;
    int fd;

    must_be(weft_address_parse(&address, "@weft-test-serve", 0), 0);
    must_be(weft_serve(&server, weft_listen_on(&address, 0, 0), echo_once, NULL, NULL), 0);
    must_be(weft_server_port(server), -EAFNOSUPPORT);
    fd = weft_dial_address(&address, NULL, 0);
    must(fd >= 0);
    exchange(fd, "hello");
    must_be(weft_close(fd), 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void a_server_may_listen_on_a_unix_socket(void **state)
{
    (void)state;
    run_everywhere(over_unix);
}

static atomic_int unseen;

static void note_unseen(const char *name, intptr_t result, void *user)
{
    (void)user;
    must(name != NULL);
    must_be(result, -EPROTO);
    atomic_fetch_add(&unseen, 1);
}

static intptr_t fail_at_once(weft_client *client)
{
    (void)client;
    return -EPROTO;
}

static intptr_t failing(void *arg)
{
    weft_server *server = serve(fail_at_once, NULL, NULL);
    int fd = dial(server);
    char byte;

    must_be(weft_read(fd, &byte, 1), 0);
    must_be(weft_close(fd), 0);
    weft_server_free(server);
    must_be(atomic_load(&unseen), 1);
    return (intptr_t)arg;
}

static void a_failure_that_nobody_sees_is_reported(void **state)
{
    weft_config config = {.workers = 2, .on_unseen_failure = note_unseen};

    (void)state;
    assert_int_equal(run_with(&config, failing, NULL), 0);
}

static intptr_t misuses(void *arg)
{
    weft_server *server;

    must_be(weft_serve(&server, -EADDRINUSE, echo_once, NULL, NULL), -EADDRINUSE);
    must(server == NULL);
    must_be(weft_serve(&server, weft_listen("127.0.0.1", 0, 0), NULL, NULL, NULL), -EINVAL);
    weft_server_free(NULL);
    return (intptr_t)arg;
}

static void misuse_is_an_error(void **state)
{
    weft_server *server;

    (void)state;
    assert_int_equal(run_alone(misuses, NULL), 0);
    assert_int_equal(weft_serve(&server, weft_listen("127.0.0.1", 0, 0), echo_once, NULL, NULL), -EPERM);
}

/* ---- ending a connection before its first turn ---- */

static intptr_t reads_for_ever(weft_client *client)
{
    char byte;

    return weft_read(client->fd, &byte, 1);
}

/* Accepted, but its task has not run yet. */
static int accepted_just_now(weft_server *server)
{
    int fd = dial(server);
    weft_server_stats stats;

    for (;;) {
        weft_server_look(server, &stats);
        if (stats.accepted > 0)
            return fd;
        must_be(weft_yield(), 0);
    }
}

static intptr_t ends_at_once(void *arg)
{
    for (int i = 0; i < 50; i++) {
        weft_server *server = serve(reads_for_ever, NULL, NULL);
        int fd = accepted_just_now(server);
        char byte;

        if (i % 3 == 1)
            weft_server_close_clients(server);
        if (i % 3 == 2)
            weft_server_abort_clients(server);
        if (i % 3 == 0)
            weft_server_free(server);
        must_be(weft_read(fd, &byte, 1), i % 3 == 2 ? -ECONNRESET : 0);
        must_be(weft_close(fd), 0);
        if (i % 3 != 0)
            weft_server_free(server);
    }
    return (intptr_t)arg;
}

static void a_connection_can_be_ended_before_its_first_turn(void **state)
{
    (void)state;
    run_everywhere(ends_at_once);
}

/* ---- the limit, with several acceptors ---- */

static intptr_t many_accept_at_once(void *arg)
{
    weft_serve_options options = {.flags = WEFT_SERVE_PER_WORKER, .clients_max = 1};
    weft_address address;
    weft_server *server;
    int fds[24];

    must_be(weft_address_parse(&address, "127.0.0.1", 0), 0);
    must_be(weft_serve(&server, weft_listen_on(&address, 0, WEFT_SOCKET_REUSEPORT), reads_for_ever, NULL, &options),
            0);
    must_be(weft_sleep(WEFT_MS(5)), 0); /* all wait to accept */
    for (int i = 0; i < 24; i++)
        fds[i] = dial(server);
    wait_until_true(clients_of(server) == 1);
    for (int i = 0; i < 24; i++) {
        must(clients_of(server) <= 1);
        must_be(weft_close(fds[i]), 0);
        must_be(weft_yield(), 0);
    }
    wait_until_true(clients_of(server) == 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void several_acceptors_keep_the_limit(void **state)
{
    (void)state;
    run_everywhere(many_accept_at_once);
}

static atomic_int at_once;

static intptr_t tells_its_options(weft_client *client)
{
    int on = 0;
    socklen_t length = sizeof on;

    must_be(getsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    atomic_fetch_add(&at_once, on != 0);
    return weft_write_all(client->fd, "x", 1) < 0;
}

/* Whoever of them accepts: a connection is as the listener that was given. */
static intptr_t accept_with_options(void *arg)
{
    weft_serve_options options = {.flags = WEFT_SERVE_PER_WORKER};
    weft_address address;
    weft_server *server;
    char byte;

    atomic_store(&at_once, 0);
    must_be(weft_address_parse(&address, "127.0.0.1", 0), 0);
    must_be(weft_serve(&server, weft_listen_on(&address, 0, WEFT_SOCKET_REUSEPORT | WEFT_SOCKET_DELAY),
                       tells_its_options, NULL, &options),
            0);
    for (int i = 0; i < 32; i++) {
        int fd = dial(server);

        read_exactly(fd, &byte, 1);
        must_be(weft_close(fd), 0);
    }
    must_be(atomic_load(&at_once), 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void several_acceptors_have_the_same_options(void **state)
{
    (void)state;
    run_everywhere(accept_with_options);
}

/* ---- the ends of the options, and of a server that has just begun ---- */

static int64_t processor_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static intptr_t idle_for_ever(void *arg)
{
    static const weft_serve_options options = {.idle_timeout = WEFT_FOREVER, .linger = -1};
    weft_server *server = serve(echo_once, NULL, &options);
    int fd = dial(server);
    int64_t before;

    exchange(fd, "here");
    wait_until_true(idle_of(server) == 1);
    before = processor_time();
    must_be(weft_sleep(WEFT_MS(200)), 0);
    must(processor_time() - before < WEFT_MS(100)); /* nobody is busy with waiting */
    exchange(fd, "still here");
    must_be(weft_close(fd), 0);
    weft_server_free(server);
    return (intptr_t)arg;
}

static void an_idle_time_out_may_be_for_ever(void **state)
{
    (void)state;
    run_everywhere(idle_for_ever);
}

static intptr_t closes_its_server(weft_client *client)
{
    weft_server_close(client->server);
    return 0;
}

/* Who has connected before the server is there is served at once, perhaps while it is still being made. */
static intptr_t close_while_it_starts(void *arg)
{
    for (int i = 0; i < FEWER(500); i++) {
        weft_serve_options options = {.flags = i % 2 ? WEFT_SERVE_PER_WORKER : 0, .idle_timeout = WEFT_SEC(100)};
        weft_address address;
        weft_server *server;
        int listener, fd;

        must_be(weft_address_parse(&address, "127.0.0.1", 0), 0);
        must((listener = weft_listen_on(&address, 0, WEFT_SOCKET_REUSEPORT)) >= 0);
        must((fd = weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener))) >= 0);
        must_be(weft_serve(&server, listener, closes_its_server, NULL, &options), 0);
        if (i % 2) /* it may be another one's to accept: who is asked later is not served */
            weft_server_close(server);
        must_be(weft_server_wait_closed(server), 0);
        must_be(weft_close(fd), 0);
        weft_server_free(server);
    }
    return (intptr_t)arg;
}

static void a_handler_may_close_a_server_that_is_being_made(void **state)
{
    (void)state;
    run_everywhere(close_while_it_starts);
}

static intptr_t stops_stackless(void *server)
{
    weft_server_free(server);
    return 0;
}

static intptr_t free_without_a_stack(void *arg)
{
    weft_server *server = serve(echo_once, NULL, NULL);
    int fd = dial(server);
    char byte;

    exchange(fd, "one");
    must_be(weft_await(weft_spawn_stackless(stops_stackless, server)), 0);
    must(weft_read(fd, &byte, 1) <= 0); /* it ends all the same */
    must_be(weft_close(fd), 0);
    return (intptr_t)arg;
}

static void a_stackless_task_may_free_a_server(void **state)
{
    (void)state;
    run_everywhere(free_without_a_stack);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handler_is_called_for_every_message),
        cmocka_unit_test(idle_connections_wait_without_being_called),
        cmocka_unit_test(what_a_handler_keeps_is_given_back_when_the_connection_ends),
        cmocka_unit_test(the_first_call_comes_at_once_or_with_the_first_data),
        cmocka_unit_test(more_clients_than_the_limit_wait_to_be_accepted),
        cmocka_unit_test(accepting_pauses_without_descriptors_and_recovers),
        cmocka_unit_test(a_closed_server_waits_for_the_calls_that_run),
        cmocka_unit_test(an_idle_connection_is_asked_once_more_before_it_is_closed),
        cmocka_unit_test(closing_clients_cancels_them),
        cmocka_unit_test(aborting_clients_resets_them),
        cmocka_unit_test(a_connection_that_idles_too_long_is_closed),
        cmocka_unit_test(who_sends_a_byte_at_a_time_is_cut_off),
        cmocka_unit_test(clients_that_vanish_at_any_point_leave_nothing),
        cmocka_unit_test(ten_thousand_connections_opened_and_dropped),
        cmocka_unit_test(a_server_can_be_freed_at_any_time),
        cmocka_unit_test(a_connection_can_be_ended_before_its_first_turn),
        cmocka_unit_test(each_worker_may_accept_for_itself),
        cmocka_unit_test(several_acceptors_keep_the_limit),
        cmocka_unit_test(several_acceptors_have_the_same_options),
        cmocka_unit_test(an_idle_time_out_may_be_for_ever),
        cmocka_unit_test(a_handler_may_close_a_server_that_is_being_made),
        cmocka_unit_test(a_stackless_task_may_free_a_server),
        cmocka_unit_test(a_server_may_listen_on_a_unix_socket),
        cmocka_unit_test(a_failure_that_nobody_sees_is_reported),
        cmocka_unit_test(misuse_is_an_error),
    };

    return run_all(tests, argc, argv);
}
