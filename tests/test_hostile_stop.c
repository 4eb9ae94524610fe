/*
 * Servers that are closed, whose clients are closed or reset, at random moments in the midst of traffic, by several
 * tasks and threads at once. Every connection that was accepted is told to have ended, once; every client sees its end;
 * nothing is left.
 */
#include "hostile.h"

enum { CLIENTS = 24 };

struct traffic {
    weft_server *server;
    int port;
    atomic_bool over;
    atomic_int closed;
    atomic_uint exchanges;
};

static void count_closed(weft_client *client, intptr_t result)
{
    struct traffic *traffic = client->arg;

    must(!weft_is_error(result) || result == -ECANCELED || result == -ECONNRESET || result == -EPIPE);
    must(client->data == NULL);
    client->data = client;
    atomic_fetch_add(&traffic->closed, 1);
}

/* More than a socket takes, so that handlers are stopped while they write, too. */
static intptr_t answer_at_length(weft_client *client)
{
    static const char much[100000];
    char byte;
    ssize_t n = weft_read(client->fd, &byte, 1);

    if (n > 0)
        n = weft_write_all(client->fd, much, byte == '*' ? sizeof much : 1);
    return n > 0 ? WEFT_CALL_AGAIN : n;
}

/* 0, or how it ended. */
static ssize_t ask(int fd, char what, size_t size)
{
    char buffer[8192];
    ssize_t n = weft_write(fd, &what, 1);

    while (n > 0 && size > 0) {
        n = weft_read(fd, buffer, size < sizeof buffer ? size : sizeof buffer);
        size -= n > 0 ? (size_t)n : 0;
    }
    return n > 0 ? 0 : n == 0 ? -ENODATA : n;
}

static intptr_t keep_asking(void *arg)
{
    struct traffic *traffic = arg;
    uint64_t random = wanted_seed() ^ (uintptr_t)&random;

    while (!atomic_load(&traffic->over)) {
        int fd = weft_dial("127.0.0.1", (uint16_t)traffic->port);
        ssize_t rc = 0;

        if (fd < 0) {
            must(fd == -ECONNREFUSED || fd == -ECONNRESET);
            return 0;
        }
        for (int i = 0; i < 20 && rc == 0; i++) {
            rc = draw(&random) % 8 ? ask(fd, '.', 1) : ask(fd, '*', 100000);
            atomic_fetch_add(&traffic->exchanges, rc == 0);
        }
        must(rc == 0 || rc == -ENODATA || is_hang_up(rc));
        reset_connection(fd);
    }
    return 0;
}

enum deed { CLOSE, CLOSE_CLIENTS, ABORT_CLIENTS, LOOK, DEEDS };

static void do_it(weft_server *server, enum deed deed)
{
    weft_server_stats stats;

    if (deed == CLOSE)
        weft_server_close(server);
    else if (deed == CLOSE_CLIENTS)
        weft_server_close_clients(server);
    else if (deed == ABORT_CLIENTS)
        weft_server_abort_clients(server);
    else
        weft_server_look(server, &stats);
}

struct end {
    struct traffic *traffic;
    enum deed deed;
    int64_t pause;
};

static intptr_t end_it(void *arg)
{
    struct end *end = arg;

    weft_sleep(end->pause);
    do_it(end->traffic->server, end->deed);
    return 0;
}

static void *end_it_outside(void *arg)
{
    struct end *end = arg;

    nap(end->pause);
    do_it(end->traffic->server, end->deed);
    return NULL;
}

static void stop_in_traffic(const weft_serve_options *options, uint64_t *random)
{
    struct traffic traffic = {0};
    struct end ends[3];
    weft_server_stats stats;
    weft_task *enders[2];
    weft_group group;
    pthread_t thread;

    traffic.server = serve(answer_at_length, &traffic, options);
    traffic.port = weft_server_port(traffic.server);
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < CLIENTS; i++)
        must_be(weft_group_spawn(&group, keep_asking, &traffic), 0);
    for (int i = 0; i < 3; i++)
        ends[i] = (struct end){&traffic, (enum deed)(draw(random) % DEEDS),
                               (int64_t)(draw(random) % WEFT_MS(SUPPORT_SANITIZED ? 20 : 6))};
    must_be(pthread_create(&thread, NULL, end_it_outside, &ends[2]), 0);
    for (int i = 0; i < 2; i++)
        must((enders[i] = weft_spawn(end_it, &ends[i])) != NULL);
    for (int i = 0; i < 2; i++)
        must_be(weft_await(enders[i]), 0);
    must_be(pthread_join(thread, NULL), 0);
    if (draw(random) % 2) { /* in good order: what runs goes on to its end */
        weft_server_close(traffic.server);
        must_be(weft_server_wait_closed(traffic.server), 0);
        weft_server_look(traffic.server, &stats);
        must_be(stats.clients, 0);
        must_be(stats.accepted, atomic_load(&traffic.closed));
    }
    weft_server_free(traffic.server);
    atomic_store(&traffic.over, true);
    must_be(weft_group_wait(&group), 0);
}

static intptr_t stop_often(void *arg)
{
    static const weft_serve_options ways[] = {
        {.linger = -1, .closed = count_closed},
        {.linger = WEFT_US(100), .closed = count_closed, .clients_max = 10},
        {.flags = WEFT_SERVE_ON_DATA, .closed = count_closed, .idle_timeout = WEFT_SEC(10)},
    };
    uint64_t random = wanted_seed();

    for (int i = 0; i < (emulated() ? 6 : FEWER(60)); i++)
        stop_in_traffic(&ways[i % 3], &random);
    return (intptr_t)arg;
}

static void a_server_stops_in_the_midst_of_traffic(void **state)
{
    (void)state;
    run_everywhere(stop_often);
}

/* The same, cancelled at any point. */
static intptr_t keep_asking_to_the_end(void *arg)
{
    struct traffic *traffic = arg;
    ssize_t rc = 0;

    while (rc == 0) {
        int fd = weft_dial("127.0.0.1", (uint16_t)traffic->port);

        rc = fd;
        for (int i = 0; i < 20 && rc >= 0; i++) {
            rc = i % 5 ? ask(fd, '.', 1) : ask(fd, '*', 100000);
            atomic_fetch_add(&traffic->exchanges, rc == 0);
        }
        if (fd >= 0)
            reset_connection(fd);
    }
    must(rc == -ECANCELED || rc == -ENODATA || is_hang_up(rc)); /* or the server's end was cancelled first */
    return 0;
}

/* The runtime is told to stop while everything is under way: what its tasks have begun they end. */
static intptr_t serve_until_cancelled(void *arg)
{
    static const weft_serve_options options = {.linger = -1, .closed = count_closed};
    struct traffic *traffic = arg;
    weft_group group;
    intptr_t rc;

    traffic->server = serve(answer_at_length, traffic, &options);
    traffic->port = weft_server_port(traffic->server);
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < 4; i++)
        must_be(weft_group_spawn(&group, keep_asking_to_the_end, traffic), 0);
    rc = weft_group_wait(&group);
    must(rc == -ECANCELED || rc == 0);
    weft_server_free(traffic->server);
    return 0;
}

static void a_runtime_stops_in_the_midst_of_traffic(void **state)
{
    uint64_t random = wanted_seed();

    (void)state;
    for (int i = 0; i < 3 * FEWER(20) + 3; i++) {
        unsigned descriptors = count_descriptors();
        struct traffic traffic = {0};
        weft_config config = {.workers = few_workers[i % FEW]};
        weft_runtime *runtime;

        must_be(weft_runtime_start(&config, &runtime), 0);
        must_be(weft_runtime_go(runtime, serve_until_cancelled, &traffic), 0);
        while (atomic_load(&traffic.exchanges) < draw(&random) % 200)
            nap(WEFT_US(50));
        must_be(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
        must_be(count_descriptors(), descriptors);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_stops_in_the_midst_of_traffic),
        cmocka_unit_test(a_runtime_stops_in_the_midst_of_traffic),
    };

    return run_all(tests, argc, argv);
}
