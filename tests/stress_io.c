/*
 * Connections to a server and to a listener, over plain descriptors, streams and protocols, at random: used to the end,
 * half-closed, reset, cancelled, late, closed by the server in between. What came back is always what was sent, an
 * exchange that nobody disturbed is complete, every connection ends, nothing is left. WEFT_TEST_SECONDS (2) long, on
 * WEFT_WORKERS workers; WEFT_TEST_SEED repeats a run's choices. Aborts on any loss.
 */
#include "hostile.h"

enum { CLIENTS = 24, MOST = 40000 };

static atomic_bool over;
static uint64_t seed;
static _Atomic uint64_t exchanges, disturbed, bytes, begun, ended, torn;

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static char byte_at(uint64_t key, uint64_t position)
{
    return (char)(key + position * 131 + (position >> 7));
}

/* ---- the servers' side: echo, in four ways ---- */

static bool is_an_end(ssize_t rc)
{
    return rc >= 0 || is_hang_up(rc) || rc == -ECANCELED || rc == -ETIMEDOUT;
}

static intptr_t serve_again(weft_client *client)
{
    char buffer[3000];
    ssize_t n = weft_read(client->fd, buffer, sizeof buffer);

    if (n > 0)
        n = weft_write_all(client->fd, buffer, (size_t)n);
    return n > 0 ? WEFT_CALL_AGAIN : n;
}

static intptr_t serve_plainly(weft_client *client)
{
    intptr_t rc;

    do
        rc = serve_again(client);
    while (rc == WEFT_CALL_AGAIN);
    return rc;
}

static weft_stream *stream_of(int fd)
{
    weft_stream *stream;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    must(own >= 0);
    must_be(weft_stream_open(own, &stream), 0);
    return stream;
}

static intptr_t serve_by_stream(weft_client *client)
{
    weft_stream *stream = stream_of(client->fd);
    int rc = weft_stream_copy(stream, stream, NULL);

    if (rc == 0)
        rc = weft_stream_close(stream);
    weft_stream_free(stream);
    return rc;
}

struct echo {
    weft_transport *transport;
};

static void echo_made(void *arg, weft_transport *transport)
{
    ((struct echo *)arg)->transport = transport;
}

static void echo_data(void *arg, const void *data, size_t size)
{
    weft_transport_write(((struct echo *)arg)->transport, data, size);
}

static void echo_pause(void *arg)
{
    weft_transport_pause_reading(((struct echo *)arg)->transport);
}

static void echo_resume(void *arg)
{
    weft_transport_resume_reading(((struct echo *)arg)->transport);
}

static intptr_t serve_by_protocol(weft_client *client)
{
    static const weft_protocol protocol = {.connection_made = echo_made,
                                           .data_received = echo_data,
                                           .pause_writing = echo_pause,
                                           .resume_writing = echo_resume};
    weft_stream *stream = stream_of(client->fd);
    struct echo echo;
    int rc = weft_protocol_run(stream, &protocol, &echo);

    weft_stream_free(stream);
    return rc;
}

static void count_end(weft_client *client, intptr_t result)
{
    (void)client;
    must(is_an_end(result));
    add(&ended, 1);
}

/* ---- the clients' side ---- */

enum fate { KEPT, RESET, HALF_CLOSED, CANCELLED, LATE, FATES };

struct use {
    int fd;
    uint64_t key, random;
    size_t size, got;
    bool half_closes;
    size_t reset_after; /* bytes that came; SIZE_MAX: not */
    bool torn;          /* the server may end it */
};

static intptr_t send_all(void *arg)
{
    struct use *use = arg;
    char buffer[2000];

    for (size_t sent = 0; sent < use->size;) {
        size_t n = use->size - sent < sizeof buffer ? use->size - sent : sizeof buffer;
        ssize_t rc;

        for (size_t i = 0; i < n; i++)
            buffer[i] = byte_at(use->key, sent + i);
        rc = weft_write(use->fd, buffer, n);
        if (rc < 0)
            return rc;
        sent += (size_t)rc;
    }
    return use->half_closes && shutdown(use->fd, SHUT_WR) < 0 ? -ECONNRESET : 0;
}

/* 0: all came back, and after a half-close then the end. */
static intptr_t receive_all(struct use *use)
{
    char buffer[3000];

    for (;;) {
        ssize_t n;

        if (use->got == use->size && !use->half_closes)
            return 0;
        n = weft_read(use->fd, buffer, sizeof buffer);
        if (n <= 0)
            return n < 0 ? n : use->got == use->size ? 0 : -ENODATA;
        must(use->got + (size_t)n <= use->size);
        for (ssize_t i = 0; i < n; i++)
            must_be(buffer[i], byte_at(use->key, use->got + (size_t)i));
        use->got += (size_t)n;
        if (use->got >= use->reset_after)
            return -ECONNRESET;
    }
}

static intptr_t exchange_all(void *arg)
{
    struct use *use = arg;
    weft_task *sender = weft_spawn(send_all, use);
    intptr_t rc, sent;

    must(sender != NULL);
    rc = receive_all(use);
    if (rc != 0)
        weft_cancel(sender);
    sent = weft_await(sender);
    return rc != 0 ? rc : sent;
}

static intptr_t exchange_and_wait(struct use *use, enum fate fate)
{
    weft_timeout scope;
    weft_task *task;
    intptr_t rc;

    if (fate == CANCELLED) {
        must((task = weft_spawn(exchange_all, use)) != NULL);
        must_be(weft_sleep((int64_t)(draw(&use->random) % WEFT_US(300))), 0);
        weft_cancel(task);
        return weft_await(task);
    }
    if (fate == LATE)
        must_be(weft_timeout_begin(&scope, (int64_t)(draw(&use->random) % WEFT_US(500))), 0);
    rc = exchange_all(use);
    if (fate == LATE)
        weft_timeout_end(&scope);
    return rc;
}

static void use_connection(struct use *use)
{
    enum fate fate = (enum fate)(draw(&use->random) % FATES);
    intptr_t rc;

    use->half_closes = fate == HALF_CLOSED;
    use->reset_after = fate == RESET ? draw(&use->random) % use->size : SIZE_MAX;
    rc = exchange_and_wait(use, fate);
    add(&bytes, use->got);
    if (rc == 0) {
        must_be(use->got, use->size);
        add(&exchanges, 1);
    } else {
        must(use->torn || fate == RESET || fate == CANCELLED || fate == LATE);
        must(rc == -ENODATA || is_an_end(rc));
        add(&disturbed, 1);
    }
    if (rc != 0 || draw(&use->random) % 2)
        must_be(weft_set_abort(use->fd), 0);
    must_be(weft_close(use->fd), 0);
}

struct ways {
    weft_server *kept[4]; /* nobody disturbs these */
    weft_server *torn;
};

/* It may be reset before it is known to be connected. */
static int dial_or_be_torn(weft_server *server)
{
    int fd = weft_dial("127.0.0.1", (uint16_t)weft_server_port(server));

    must(fd >= 0 || fd == -ECONNRESET);
    return fd;
}

static intptr_t client(void *arg)
{
    static _Atomic uint64_t number;
    struct ways *ways = arg;
    uint64_t random = (seed + atomic_fetch_add(&number, 1) * 0x9E3779B97F4A7C15u) | 1;

    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        uint64_t which = draw(&random) % 5;
        struct use use = {.key = draw(&random) >> 13, .torn = which == 4};

        use.size = 1 + draw(&random) % (draw(&random) % 4 ? 500 : MOST);
        use.random = draw(&random) | 1;
        use.fd = which < 4 ? dial(ways->kept[which]) : dial_or_be_torn(ways->torn);
        add(&begun, 1);
        if (use.fd >= 0)
            use_connection(&use);
        if (draw(&random) % 32 == 0)
            must_be(weft_sleep((int64_t)(draw(&random) % WEFT_US(200))), 0);
    }
    return 0;
}

/* Ends the connections of one server now and then. */
static intptr_t tear(void *arg)
{
    weft_server *server = arg;
    uint64_t random = seed ^ 77;

    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        must_be(weft_sleep((int64_t)(draw(&random) % WEFT_MS(5))), 0);
        if (draw(&random) % 2)
            weft_server_close_clients(server);
        else
            weft_server_abort_clients(server);
        add(&torn, 1);
    }
    return 0;
}

static void begin_servers(struct ways *ways)
{
    static const weft_serve_options at_once = {.linger = -1, .closed = count_end};
    static const weft_serve_options plain = {.closed = count_end};
    static const weft_serve_options timed = {.flags = WEFT_SERVE_ON_DATA,
                                             .linger = WEFT_US(200),
                                             .idle_timeout = WEFT_MS(2),
                                             .call_timeout = WEFT_MS(50),
                                             .closed = count_end};

    ways->kept[0] = serve(serve_plainly, NULL, &plain);
    ways->kept[1] = serve(serve_again, NULL, &at_once);
    ways->kept[2] = serve(serve_by_stream, NULL, &plain);
    ways->kept[3] = serve(serve_by_protocol, NULL, &plain);
    ways->torn = serve(serve_again, NULL, &timed);
}

static void end_server(weft_server *server)
{
    wait_until_true(clients_of(server) == 0);
    weft_server_free(server);
}

static intptr_t stress_main(void *arg)
{
    struct ways ways;
    weft_task *tearer;
    weft_group group;

    begin_servers(&ways);
    must((tearer = weft_spawn(tear, ways.torn)) != NULL);
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < CLIENTS; i++)
        must_be(weft_group_spawn(&group, client, &ways), 0);
    must_be(weft_sleep(*(int64_t *)arg), 0);
    atomic_store(&over, true);
    must_be(weft_group_wait(&group), 0);
    must_be(weft_await(tearer), 0);
    /* Who was dialled is accepted, and sees its end. */
    wait_until_true(atomic_load(&ended) == atomic_load(&begun));
    for (int i = 0; i < 4; i++)
        end_server(ways.kept[i]);
    end_server(ways.torn);
    must_be(atomic_load(&ended), atomic_load(&begun));
    return 0;
}

int main(void)
{
    int64_t length = WEFT_SEC(wanted_seconds());
    weft_config config = WEFT_CONFIG_DEFAULT;

    seed = wanted_seed();
    printf("stress_io: %u workers, %lld s, WEFT_TEST_SEED=%llu\n", wanted_workers(), (long long)wanted_seconds(),
           (unsigned long long)seed);
    fflush(stdout);
    alarm((unsigned)wanted_seconds() * 2 + SUPPORT_LIMIT);
    must_be(run_with(&config, stress_main, &length), 0);
    printf("%llu connections, %llu exchanges, %llu disturbed, %llu bytes, torn %llu times\n",
           (unsigned long long)begun, (unsigned long long)exchanges, (unsigned long long)disturbed,
           (unsigned long long)bytes, (unsigned long long)torn);
    return 0;
}
