/*
 * Echo connections, over TCP and socket pairs, that are opened, used, cancelled and closed at random from all
 * workers, so that numbers are used again at once. Every byte that comes back must be the one that was sent on
 * that connection, every connection that was opened must be closed, nothing may be left. WEFT_TEST_SECONDS (2)
 * long, on WEFT_WORKERS workers; WEFT_TEST_SEED repeats a run's choices. Aborts on any loss.
 */
#include <poll.h>
#include <sys/socket.h>

#include "support.h"

enum { CLIENTS = 32, MOST = 3000 };

static atomic_bool over;
static _Atomic uint64_t opened, closed, accepted, bytes, cancelled, late;
static uint16_t port;
static uint64_t seed;

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void close_it(int fd)
{
    must_be(weft_close(fd), 0);
    add(&closed, 1);
}

/* Errors that may come of the other side's hanging up. */
static bool is_hang_up(ssize_t rc)
{
    return rc == -ECONNRESET || rc == -EPIPE;
}

static intptr_t echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buffer[1024];

    for (;;) {
        ssize_t n = weft_read(fd, buffer, sizeof buffer);

        if (n > 0)
            n = weft_write_all(fd, buffer, (size_t)n);
        if (n > 0)
            continue;
        must(n == 0 || is_hang_up(n) || n == -ECANCELED);
        break;
    }
    close_it(fd);
    return 0;
}

static intptr_t accept_all(void *arg)
{
    for (;;) {
        int fd = weft_accept((int)(intptr_t)arg, NULL, NULL);

        if (fd == -ECANCELED)
            return 0;
        must(fd >= 0);
        add(&opened, 1);
        add(&accepted, 1);
        must_be(weft_go(echo, (void *)(intptr_t)fd), 0);
    }
}

/* What is sent on a connection tells connection and position. */
static char byte_at(uint64_t key, uint64_t position)
{
    return (char)(key + position * 131 + (position >> 7));
}

struct exchange {
    int fd;
    uint64_t key;
    size_t size;
    uint64_t random;
};

static intptr_t send_pattern(void *arg)
{
    struct exchange *exchange = arg;
    char buffer[512];
    size_t sent = 0;

    while (sent < exchange->size) {
        size_t n = exchange->size - sent < sizeof buffer ? exchange->size - sent : sizeof buffer;
        ssize_t rc;

        for (size_t i = 0; i < n; i++)
            buffer[i] = byte_at(exchange->key, sent + i);
        rc = weft_write(exchange->fd, buffer, n);
        if (rc < 0)
            return rc;
        sent += (size_t)rc;
    }
    return (intptr_t)sent;
}

static intptr_t exchange_pattern(void *arg)
{
    struct exchange *exchange = arg;
    weft_task *sender = weft_spawn(send_pattern, exchange);
    size_t got = 0;
    ssize_t rc = 1;
    intptr_t sent;
    char buffer[700];

    must(sender != NULL);
    while (got < exchange->size && rc > 0) {
        rc = weft_read(exchange->fd, buffer, sizeof buffer);
        for (ssize_t i = 0; i < rc; i++)
            must_be(buffer[i], byte_at(exchange->key, got + (size_t)i));
        if (rc > 0)
            got += (size_t)rc;
    }
    if (rc < 0)
        weft_cancel(sender);
    sent = weft_await(sender);
    if (rc > 0)
        must_be(sent, exchange->size);
    add(&bytes, got);
    return rc < 0 ? rc : (intptr_t)got;
}

static int open_one(uint64_t *random)
{
    int fds[2], fd;

    if (draw(random) % 2) {
        fd = weft_dial("127.0.0.1", port);
        must(fd >= 0);
        add(&opened, 1);
        return fd;
    }
    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    add(&opened, 2);
    must_be(weft_go(echo, (void *)(intptr_t)fds[1]), 0);
    return fds[0];
}

static void use(struct exchange *exchange)
{
    weft_timeout t;
    weft_task *task;
    intptr_t rc;

    switch (draw(&exchange->random) % 4) {
    case 0: /* cancelled at any time */
        must((task = weft_spawn(exchange_pattern, exchange)) != NULL);
        must_be(weft_sleep((int64_t)(draw(&exchange->random) % WEFT_US(300))), 0);
        add(&cancelled, (uint64_t)weft_cancel(task));
        rc = weft_await(task);
        must(rc == -ECANCELED || rc == (intptr_t)exchange->size);
        break;
    case 1: /* late at any time */
        must_be(weft_timeout_begin(&t, (int64_t)(draw(&exchange->random) % WEFT_US(500))), 0);
        rc = weft_await(weft_spawn(exchange_pattern, exchange));
        must(rc == -ETIMEDOUT || rc == -ECANCELED || rc == (intptr_t)exchange->size);
        add(&late, (uint64_t)weft_timeout_end(&t));
        break;
    default:
        must_be(exchange_pattern(exchange), exchange->size);
        break;
    }
}

static intptr_t wait_readable(void *arg)
{
    return weft_poll((int)(intptr_t)arg, POLLIN, WEFT_FOREVER);
}

/* Closed while somebody waits. */
static void close_under_waiter(int fd)
{
    weft_task *waiter = weft_spawn(wait_readable, (void *)(intptr_t)fd);
    intptr_t rc;

    must(waiter != NULL);
    must_be(weft_sleep(WEFT_US(100)), 0);
    must_be(weft_cancel(waiter) >= 0, 1);
    rc = weft_await(waiter);
    must(rc == -ECANCELED || rc >= 0);
    close_it(fd);
}

static intptr_t client(void *arg)
{
    uint64_t random = (seed + (uintptr_t)arg * 0x9E3779B97F4A7C15u) | 1;

    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        struct exchange exchange = {.key = draw(&random) >> 13, .size = 1 + draw(&random) % MOST, .random = random};

        exchange.fd = open_one(&random);
        if (draw(&random) % 8)
            use(&exchange);
        if (draw(&random) % 8)
            close_it(exchange.fd);
        else
            close_under_waiter(exchange.fd);
        if (draw(&random) % 16 == 0)
            must_be(weft_sleep((int64_t)(draw(&random) % WEFT_US(200))), 0);
    }
    return 0;
}

static intptr_t stress_main(void *arg)
{
    int listener = weft_listen("127.0.0.1", 0, 1024);
    weft_task *clients[CLIENTS], *server;

    must(listener >= 0);
    port = (uint16_t)weft_local_port(listener);
    must((server = weft_spawn(accept_all, (void *)(intptr_t)listener)) != NULL);
    for (intptr_t i = 0; i < CLIENTS; i++)
        must((clients[i] = weft_spawn(client, (void *)(i + 1))) != NULL);
    must_be(weft_sleep(*(int64_t *)arg), 0);
    atomic_store(&over, true);
    for (int i = 0; i < CLIENTS; i++)
        must_be(weft_await(clients[i]), 0);
    /* What was dialled is accepted, and sees its end. */
    for (int i = 0; i < 100000 && atomic_load(&opened) != atomic_load(&closed); i++)
        must_be(weft_sleep(WEFT_US(100)), 0);
    must_be(weft_sleep(WEFT_MS(10)), 0);
    must_be(weft_cancel(server), 1);
    must_be(weft_await(server), 0);
    must_be(atomic_load(&closed), atomic_load(&opened));
    must_be(weft_close(listener), 0);
    return 0;
}

int main(void)
{
    int64_t length = WEFT_SEC(wanted_seconds());
    weft_config config = WEFT_CONFIG_DEFAULT;

    seed = wanted_seed();
    printf("stress_descriptor: %u workers, %lld s, WEFT_TEST_SEED=%llu\n", wanted_workers(),
           (long long)wanted_seconds(), (unsigned long long)seed);
    fflush(stdout);
    alarm((unsigned)wanted_seconds() * 2 + SUPPORT_LIMIT);
    must_be(run_with(&config, stress_main, &length), 0);
    printf("%llu connections accepted, %llu bytes, %llu cancelled, %llu late\n", (unsigned long long)accepted,
           (unsigned long long)bytes, (unsigned long long)cancelled, (unsigned long long)late);
    return 0;
}
