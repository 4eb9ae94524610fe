/*
 * The server: listening, accepting, stopping.
 *
 * Tasks: the main task (server_main) waits for a signal; one accepts; one keeps the date while there are
 * connections; each connection has its own.
 *
 * Connections live in an array made at the start, so that their number is bounded and a stopping server can
 * find them. `vacant` is the stack of free slots. A few slots beyond --max-connections serve to tell clients
 * that there are too many; when these are in use too, new connections are closed without a word.
 *
 * Stopping: stop accepting; connections between requests are shut down for reading, which their tasks see as
 * the client's end; the others close after the request they are at, because `stopping` is set. A connection
 * may become idle just when it has been passed over, so the round is made again every few milliseconds until
 * all are closed, the grace is over or a second signal comes. What is left then is cancelled by
 * weft_runtime_stop, which main calls.
 */
#include "server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "connection.h"

#define REFUSAL_SLOTS 32
#define ACCEPT_PAUSE WEFT_MS(100)
#define STOP_ROUND WEFT_MS(10)
/* A burst of arrivals must not keep the worker from the connections that are there already. */
#define ACCEPTS_IN_A_ROW 16

/* ---- slots ---- */

/* Slots come into use in order of their index, each cleared just then: memory for the many that are never used
 * is not touched. The lock is held. */
static void clear_new_slot(struct server *server, unsigned index)
{
    if (index < server->used)
        return;
    memset(&server->connections[index], 0, sizeof(struct connection));
    server->used = index + 1;
}

/* The connection for an accepted descriptor, or NULL if even the slots for refusals are in use. */
static struct connection *take_slot(struct server *server, int fd)
{
    struct connection *connection = NULL;
    pthread_mutex_lock(&server->lock);
    if (server->vacant_count > 0) {
        unsigned index = server->vacant[--server->vacant_count];
        connection = &server->connections[index];
        clear_new_slot(server, index);
        connection->fd = fd;
        connection->server = server;
        connection->refused = server->vacant_count < REFUSAL_SLOTS;
    }
    pthread_mutex_unlock(&server->lock);
    return connection;
}

void server_release(struct server *server, struct connection *connection)
{
    pthread_mutex_lock(&server->lock);
    int fd = connection->fd;
    connection->fd = -1; /* from here a stopping server keeps its hands off the number */
    atomic_fetch_add_explicit(&server->totals.requests,
                              atomic_load_explicit(&connection->requests, memory_order_relaxed),
                              memory_order_relaxed);
    atomic_store_explicit(&connection->requests, 0, memory_order_relaxed);
    pthread_mutex_unlock(&server->lock);

    weft_close(fd);

    pthread_mutex_lock(&server->lock);
    server->vacant[server->vacant_count++] = (unsigned)(connection - server->connections);
    pthread_mutex_unlock(&server->lock);
    atomic_fetch_sub(&server->open, 1);
}

uint64_t server_requests(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    uint64_t sum = atomic_load_explicit(&server->totals.requests, memory_order_relaxed);
    for (unsigned i = 0; i < server->used; i++)
        sum += atomic_load_explicit(&server->connections[i].requests, memory_order_relaxed);
    pthread_mutex_unlock(&server->lock);
    return sum;
}

static void shut_idle_connections(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    for (unsigned i = 0; i < server->used; i++) {
        struct connection *connection = &server->connections[i];
        if (connection->fd >= 0 && atomic_load_explicit(&connection->idle, memory_order_relaxed))
            shutdown(connection->fd, SHUT_RD);
    }
    pthread_mutex_unlock(&server->lock);
}

/* ---- accepting ---- */

static void spawn_connection(struct server *server, int fd)
{
    static const weft_spawn_options options = {.name = "connection"};
    static const int on = 1;
    struct connection *connection = take_slot(server, fd);
    if (connection == NULL) {
        server_count(&server->totals.refused_connections);
        weft_close(fd);
        return;
    }
    if (connection->refused)
        server_count(&server->totals.refused_connections);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    server_count(&server->totals.accepted);
    if (atomic_fetch_add(&server->open, 1) == 0) {
        date_refresh(&server->date);
        weft_event_set(&server->busy);
    }

    weft_task *task = weft_spawn_with(&options, connection_run, connection);
    if (task == NULL)
        server_release(server, connection);
    weft_detach(task);
}

/* 0: go on; else the accepting task is to end with it. */
static int recover_accept(struct server *server, int error)
{
    switch (error) {
    case -ECANCELED:
    case -EBADF:
        return error;
    case -EMFILE:
    case -ENFILE:
    case -ENOBUFS:
    case -ENOMEM:
        /* relaxed: only this task changes it */
        if (atomic_load_explicit(&server->totals.accept_pauses, memory_order_relaxed) == 0)
            fprintf(stderr, "httpd: accept: %s; pausing whenever this happens (said once)\n", strerror(-error));
        server_count(&server->totals.accept_pauses);
        return weft_sleep(ACCEPT_PAUSE);
    case -EINVAL:
    case -ENOTSOCK:
    case -EOPNOTSUPP:
        fprintf(stderr, "httpd: accept: %s\n", strerror(-error));
        return error;
    default:
        /* The error of one connection that did not come about. */
        return 0;
    }
}

static intptr_t accept_connections(void *arg)
{
    struct server *server = arg;
    for (unsigned accepted = 0;;) {
        int fd = weft_accept(server->listener, NULL, NULL);
        int error = 0;
        if (fd >= 0) {
            spawn_connection(server, fd);
            if (++accepted % ACCEPTS_IN_A_ROW == 0)
                error = weft_yield();
        } else {
            error = recover_accept(server, fd);
        }
        if (error != 0)
            return error;
    }
}

/* ---- the date ---- */

static int64_t until_next_second(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return WEFT_SEC(1) - now.tv_nsec;
}

/* Ticks only while there are connections. When there are none it clears the event, then looks again; the
 * acceptor counts the connection first and sets the event then: one of the two sees the other. */
static intptr_t keep_date(void *arg)
{
    struct server *server = arg;
    for (;;) {
        if (atomic_load(&server->open) == 0) {
            weft_event_clear(&server->busy);
            if (atomic_load(&server->open) == 0 && weft_event_wait(&server->busy) != 0)
                return 0;
        }
        date_refresh(&server->date);
        if (weft_sleep(until_next_second()) != 0)
            return 0;
    }
}

/* ---- from start to stop ---- */

/* Returns when a signal has come or the lifetime is over. */
static void wait_for_the_end(struct server *server)
{
    struct signalfd_siginfo signal;
    weft_timeout scope;
    weft_timeout_begin(&scope, server->options.lifetime);
    ssize_t n = weft_read(server->signals, &signal, sizeof(signal));
    weft_timeout_end(&scope);
    if (!server->options.quiet)
        printf("stopping: %s\n", n > 0 ? strsignal((int)signal.ssi_signo) : "time is over");
}

static void drain(struct server *server)
{
    int64_t end = weft_now() + server->options.grace;
    while (atomic_load(&server->open) > 0 && weft_now() < end) {
        shut_idle_connections(server);
        if (weft_poll(server->signals, POLLIN, STOP_ROUND) > 0)
            return; /* a second signal: somebody is in a hurry */
    }
}

intptr_t server_main(void *arg)
{
    struct server *server = arg;
    weft_task *acceptor = weft_spawn(accept_connections, server);
    if (acceptor == NULL)
        return -ENOMEM;
    int error = weft_go(keep_date, server);
    if (error == 0)
        wait_for_the_end(server);

    atomic_store(&server->stopping, true);
    weft_cancel(acceptor);
    weft_await(acceptor);
    weft_close(server->listener);
    server->listener = -1;
    if (error == 0)
        drain(server);
    return error;
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error != 0)
        return -error;
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int make_slots(struct server *server)
{
    size_t slots = (size_t)server->options.max_connections + REFUSAL_SLOTS;
    void *memory;
    if (posix_memalign(&memory, _Alignof(struct connection), slots * sizeof(struct connection)) != 0)
        return -ENOMEM;
    server->connections = memory;
    server->vacant = malloc(slots * sizeof(*server->vacant));
    if (server->vacant == NULL) {
        free(server->connections);
        server->connections = NULL;
        return -ENOMEM;
    }
    server->slots = (unsigned)slots;
    /* The lowest slots on top, so that few connections touch little memory. */
    for (unsigned i = 0; i < server->slots; i++)
        server->vacant[i] = server->slots - 1 - i;
    server->vacant_count = server->slots;
    return 0;
}

static int complain(const char *what, int error)
{
    fprintf(stderr, "httpd: %s: %s\n", what, strerror(-error));
    return error;
}

int server_init(struct server *server, const struct options *options)
{
    memset(server, 0, sizeof(*server));
    server->options = *options;
    server->listener = -1;
    server->signals = -1;
    pthread_mutex_init(&server->lock, NULL);
    date_init(&server->date);
    raise_descriptor_limit();
    http_parser_set_max_header_size((uint32_t)options->max_header);

    int error = make_slots(server);
    if (error != 0)
        return complain("memory for the connections", error);
    server->signals = open_signals();
    if (server->signals < 0)
        return complain("signalfd", server->signals);
    server->listener = weft_listen(options->host, options->port, 4096);
    if (server->listener < 0)
        return complain("listen", server->listener);
    return 0;
}

void server_term(struct server *server)
{
    if (server->listener >= 0)
        close(server->listener);
    if (server->signals >= 0)
        close(server->signals);
    free(server->connections);
    free(server->vacant);
    date_term(&server->date);
    pthread_mutex_destroy(&server->lock);
}
