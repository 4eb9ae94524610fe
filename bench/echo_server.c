/*
 * The echo server with weft: one task accepts, a task per connection echoes. With --call-again weft_serve accepts, and
 * a connection has a task only while it has something to read. Its baseline is epoll_echo; workers are set by
 * WEFT_WORKERS.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <weft.h>

/* Fits the page of stack that a parked task holds anyway. */
#define BUFFER_SIZE 1024

struct server {
    const char *host;
    uint16_t port;
    unsigned message_size;
    bool stalls;
    bool stuck;
    bool call_again;
    bool stackless;
    int64_t lifetime;
    int listener;
    int signals;
    unsigned workers;
    _Atomic uint64_t bytes;
};

struct arrival {
    struct server *server;
    int fd;
};

static intptr_t echo(void *arg)
{
    struct arrival arrival = *(struct arrival *)arg;
    char buffer[BUFFER_SIZE];
    uint64_t bytes = 0;
    ssize_t n;
    free(arg);
    while ((n = weft_read(arrival.fd, buffer, sizeof(buffer))) > 0) {
        bytes += (uint64_t)n;
        if (weft_write_all(arrival.fd, buffer, (size_t)n) < 0)
            break;
    }
    /* relaxed: read after the runtime has stopped */
    atomic_fetch_add_explicit(&arrival.server->bytes, bytes, memory_order_relaxed);
    weft_close(arrival.fd);
    return 0;
}

/* The same without a stack: what it keeps between its turns is this. */
struct connection {
    weft_frame frame;
    struct server *server;
    int fd;
    ssize_t n, rc;
    size_t sent;
    uint64_t bytes;
    char buffer[BUFFER_SIZE];
};

static intptr_t echo_stackless(void *arg)
{
    struct connection *c = arg;
    WEFT_BEGIN(c);
    for (;;) {
        WEFT_AWAIT(c, c->n, weft_async_read(c->fd, c->buffer, sizeof(c->buffer)));
        if (c->n <= 0)
            break;
        for (c->sent = 0; c->sent < (size_t)c->n; c->sent += (size_t)c->rc) {
            WEFT_AWAIT(c, c->rc, weft_async_write(c->fd, c->buffer + c->sent, (size_t)c->n - c->sent));
            if (c->rc < 0)
                goto end;
        }
        c->bytes += (uint64_t)c->n;
    }
end:
    /* relaxed: read after the runtime has stopped */
    atomic_fetch_add_explicit(&c->server->bytes, c->bytes, memory_order_relaxed);
    weft_close(c->fd);
    free(c);
    WEFT_DONE(0);
}

/* Called again whenever there is something to read. */
static intptr_t echo_once(weft_client *client)
{
    struct server *server = client->arg;
    char buffer[BUFFER_SIZE];
    ssize_t n = weft_read(client->fd, buffer, sizeof(buffer));
    if (n <= 0)
        return n;
    atomic_fetch_add_explicit(&server->bytes, (uint64_t)n, memory_order_relaxed); /* read after the end */
    n = weft_write_all(client->fd, buffer, (size_t)n);
    return n < 0 ? n : WEFT_CALL_AGAIN;
}

static int spawn_stackless(struct server *server, int fd)
{
    struct connection *connection = malloc(sizeof(*connection));
    if (connection == NULL)
        return -ENOMEM;
    connection->frame = (weft_frame){0};
    connection->server = server;
    connection->fd = fd;
    connection->bytes = 0;
    int error = weft_go_stackless(echo_stackless, connection);
    if (error != 0)
        free(connection);
    return error;
}

static void spawn_echo(struct server *server, int fd)
{
    static const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (server->stackless) {
        if (spawn_stackless(server, fd) != 0)
            weft_close(fd);
        return;
    }
    struct arrival *arrival = malloc(sizeof(*arrival));
    if (arrival != NULL) {
        *arrival = (struct arrival){.server = server, .fd = fd};
        if (weft_go(echo, arrival) == 0)
            return;
    }
    free(arrival);
    weft_close(fd);
}

static intptr_t accept_connections(void *arg)
{
    struct server *server = arg;
    for (;;) {
        int fd = weft_accept(server->listener, NULL, NULL);
        if (fd >= 0)
            spawn_echo(server, fd);
        else if (fd == -ECANCELED || fd == -EBADF)
            return fd;
        else if (weft_sleep(WEFT_MS(10)) != 0)
            return -ECANCELED;
    }
}

/* Compute for a millisecond, ten times a second. */
static intptr_t stall(void *arg)
{
    (void)arg;
    do {
        int64_t end = weft_now() + WEFT_MS(1);
        while (weft_now() < end)
            ;
    } while (weft_sleep(WEFT_MS(100)) == 0);
    return 0;
}

/* Block the worker for half a second at a time, as no task should. */
static intptr_t stick(void *arg)
{
    (void)arg;
    do
        usleep(500000);
    while (weft_sleep(WEFT_MS(500)) == 0);
    return 0;
}

static int start_accepting(struct server *server, weft_server **clients)
{
    return server->call_again ? weft_serve(clients, server->listener, echo_once, server, NULL)
                              : weft_go(accept_connections, server);
}

/* Tasks that are left when this returns are cancelled by weft_run. */
static intptr_t serve(void *arg)
{
    struct server *server = arg;
    struct signalfd_siginfo signal;
    weft_server *clients = NULL;
    weft_timeout scope;
    server->workers = weft_runtime_workers(weft_runtime_current());
    int error = start_accepting(server, &clients);
    for (unsigned i = 0; error == 0 && server->stalls && i < server->workers; i++)
        error = weft_go(stall, NULL);
    if (error == 0 && server->stuck)
        error = weft_go(stick, NULL);
    if (error != 0)
        return error;
    printf("listening on %s:%d\n", server->host, weft_local_port(server->listener));
    fflush(stdout);
    weft_timeout_begin(&scope, server->lifetime);
    weft_read(server->signals, &signal, sizeof(signal));
    weft_timeout_end(&scope);
    weft_server_free(clients);
    return 0;
}

static void usage(const char *program)
{
    printf("usage: %s [--host ADDRESS] [--port N] [--size BYTES] [--seconds S] [--stalls] [--stuck]\n"
           "       [--call-again | --stackless]\n"
           "Echo server on weft; --size (64) is what counts as one request; WEFT_WORKERS sets the workers.\n"
           "With --stalls as many tasks as there are workers also compute, each for 1 ms ten times a second;\n"
           "with --stuck a task blocks its worker for 500 ms, once a second. With --call-again a connection has a\n"
           "task only while there is something to read; with --stackless it has one that needs no stack.\n"
           "Port 0 (the default) picks a free one. Ends after --seconds (60; 0: only by SIGTERM or SIGINT) and\n"
           "prints what it used as a line of JSON.\n",
           program);
}

static void parse_options(struct server *server, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'H'},
        {"port", required_argument, NULL, 'p'},
        {"size", required_argument, NULL, 'z'},
        {"seconds", required_argument, NULL, 's'},
        {"stalls", no_argument, NULL, 'c'},
        {"stuck", no_argument, NULL, 'k'},
        {"call-again", no_argument, NULL, 'a'},
        {"stackless", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int which;
    while ((which = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (which == 'H')
            server->host = optarg;
        else if (which == 'p')
            server->port = (uint16_t)atoi(optarg);
        else if (which == 'z')
            server->message_size = (unsigned)atoi(optarg);
        else if (which == 'c')
            server->stalls = true;
        else if (which == 'k')
            server->stuck = true;
        else if (which == 'a')
            server->call_again = true;
        else if (which == 'l')
            server->stackless = true;
        else if (which == 's')
            server->lifetime = atof(optarg) > 0 ? (int64_t)(atof(optarg) * 1e9) : WEFT_FOREVER;
        else {
            usage(argv[0]);
            exit(which == 'h' ? 0 : 2);
        }
    }
    if (server->message_size < 1) {
        fprintf(stderr, "echo_server: --size must be at least 1\n");
        exit(2);
    }
}

/* Blocked before the runtime makes its threads, so that all of them have it blocked. */
static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
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

static void report(struct server *server)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"program\": \"echo_server\", \"workers\": %u, \"requests\": %llu, \"user_s\": %.3f,"
           " \"system_s\": %.3f, \"voluntary_switches\": %ld, \"involuntary_switches\": %ld}\n",
           server->workers, (unsigned long long)(atomic_load(&server->bytes) / server->message_size),
           (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6,
           (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6, usage.ru_nvcsw, usage.ru_nivcsw);
}

int main(int argc, char **argv)
{
    struct server server = {.host = "127.0.0.1", .message_size = 64, .lifetime = WEFT_SEC(60)};
    parse_options(&server, argc, argv);
    raise_descriptor_limit();
    server.signals = open_signals();
    server.listener = weft_listen(server.host, server.port, 4096);
    if (server.signals < 0 || server.listener < 0) {
        fprintf(stderr, "echo_server: %s\n", strerror(server.signals < 0 ? -server.signals : -server.listener));
        return 1;
    }
    intptr_t result = weft_run(serve, &server);
    if (result != 0) {
        fprintf(stderr, "echo_server: %s\n", strerror((int)-result));
        return 1;
    }
    report(&server);
    if (!server.call_again) /* or it was the weft_server's */
        close(server.listener);
    close(server.signals);
    return 0;
}
