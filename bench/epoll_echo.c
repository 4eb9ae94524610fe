/*
 * The baseline for echo_server: a bare epoll echo server.
 *
 * Each of the 1…N threads owns an epoll set, a listener of its own (SO_REUSEPORT: the kernel spreads the
 * connections) and its connections; threads share nothing but the eventfd that stops them. Level-triggered, one
 * read and one write an event.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define THREADS_LIMIT 256
#define EVENTS_AT_ONCE 256
#define BUFFER_SIZE 1024

struct settings {
    const char *host;
    uint16_t port;
    unsigned threads;
    unsigned message_size;
    bool stalls;
    double seconds;
};

struct worker {
    _Alignas(64) pthread_t thread;
    int epoll;
    int listener;
    int stalls; /* a timer, or 0 */
    uint64_t bytes;
    char buffer[BUFFER_SIZE];
};

struct connection {
    struct worker *worker;
    int fd;
    char *pending; /* what the client has not taken back yet; nothing is read meanwhile */
    size_t pending_length;
};

/* ---- connections ---- */

static void drop(struct connection *connection)
{
    close(connection->fd);
    free(connection->pending);
    free(connection);
}

static int watch(struct connection *connection, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    return epoll_ctl(connection->worker->epoll, EPOLL_CTL_MOD, connection->fd, &event);
}

/* What the socket did not take is kept until it does. */
static int keep_pending(struct connection *connection, const char *data, size_t length)
{
    char *memory = realloc(connection->pending, connection->pending_length + length);
    if (memory == NULL)
        return -ENOMEM;
    memcpy(memory + connection->pending_length, data, length);
    connection->pending = memory;
    connection->pending_length += length;
    return watch(connection, EPOLLOUT);
}

static int write_pending(struct connection *connection)
{
    ssize_t n = send(connection->fd, connection->pending, connection->pending_length, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    connection->pending_length -= (size_t)n;
    memmove(connection->pending, connection->pending + n, connection->pending_length);
    if (connection->pending_length > 0)
        return 0;
    free(connection->pending);
    connection->pending = NULL;
    return watch(connection, EPOLLIN);
}

static int echo(struct connection *connection)
{
    struct worker *worker = connection->worker;
    ssize_t length = read(connection->fd, worker->buffer, BUFFER_SIZE);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (length <= 0)
        return -EPIPE;
    worker->bytes += (uint64_t)length;
    ssize_t n = send(connection->fd, worker->buffer, (size_t)length, MSG_NOSIGNAL);
    if (n == length)
        return 0;
    if (n < 0 && errno != EAGAIN)
        return -errno;
    n = n < 0 ? 0 : n;
    return keep_pending(connection, worker->buffer + n, (size_t)(length - n));
}

static void handle(struct connection *connection)
{
    if ((connection->pending != NULL ? write_pending(connection) : echo(connection)) != 0)
        drop(connection);
}

static void accept_all(struct worker *worker)
{
    static const int on = 1;
    for (;;) {
        int fd = accept4(worker->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct connection *connection = calloc(1, sizeof(*connection));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (connection == NULL || epoll_ctl(worker->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            free(connection);
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        connection->worker = worker;
        connection->fd = fd;
    }
}

/* ---- a thread ---- */

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void compute_for_a_millisecond(int timer)
{
    uint64_t times;
    int64_t end = now() + 1000000;
    if (read(timer, &times, sizeof(times)) < 0)
        return;
    while (now() < end)
        ;
}

/* The listener's events carry the worker, the stalls' the place of the timer, the stop's NULL. */
static void *run_worker(void *arg)
{
    struct worker *worker = arg;
    struct epoll_event events[EVENTS_AT_ONCE];
    for (;;) {
        int n = epoll_wait(worker->epoll, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                return NULL;
            if (events[i].data.ptr == worker)
                accept_all(worker);
            else if (events[i].data.ptr == &worker->stalls)
                compute_for_a_millisecond(worker->stalls);
            else
                handle(events[i].data.ptr);
        }
    }
}

static int listen_on(const char *host, uint16_t port)
{
    static const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        return -EINVAL;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 4096) != 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    return getsockname(fd, (struct sockaddr *)&address, &length) != 0 ? -errno : ntohs(address.sin_port);
}

static int start_stalls(struct worker *worker)
{
    struct itimerspec tenth = {.it_interval.tv_nsec = 100000000, .it_value.tv_nsec = 100000000};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &worker->stalls};
    worker->stalls = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (worker->stalls < 0 || timerfd_settime(worker->stalls, 0, &tenth, NULL) != 0 ||
        epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->stalls, &event) != 0)
        return -errno;
    return 0;
}

static int start_worker(struct worker *worker, const struct settings *settings, int stop)
{
    worker->listener = listen_on(settings->host, settings->port);
    if (worker->listener < 0)
        return worker->listener;
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event accepts = {.events = EPOLLIN, .data.ptr = worker};
    struct epoll_event stops = {.events = EPOLLIN, .data.ptr = NULL};
    if (worker->epoll < 0 || epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->listener, &accepts) != 0 ||
        epoll_ctl(worker->epoll, EPOLL_CTL_ADD, stop, &stops) != 0)
        return -errno;
    int error = settings->stalls ? start_stalls(worker) : 0;
    return error != 0 ? error : -pthread_create(&worker->thread, NULL, run_worker, worker);
}

/* ---- the program ---- */

static void usage(const char *program)
{
    printf("usage: %s [--host ADDRESS] [--port N] [--threads N] [--size BYTES] [--seconds S] [--stalls]\n"
           "Bare epoll echo server; --size (64) is what counts as one request.\n"
           "With --stalls each thread also computes for 1 ms ten times a second.\n"
           "Port 0 (the default) picks a free one.\n"
           "Ends after --seconds (60; 0: only by SIGTERM or SIGINT) and prints what it used as a line of JSON.\n",
           program);
}

static void parse_options(struct settings *settings, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'H'},    {"port", required_argument, NULL, 'p'},
        {"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'},
        {"size", required_argument, NULL, 'z'},    {"stalls", no_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    int which;
    while ((which = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (which == 'H')
            settings->host = optarg;
        else if (which == 'p')
            settings->port = (uint16_t)atoi(optarg);
        else if (which == 't')
            settings->threads = (unsigned)atoi(optarg);
        else if (which == 'z')
            settings->message_size = (unsigned)atoi(optarg);
        else if (which == 'c')
            settings->stalls = true;
        else if (which == 's')
            settings->seconds = atof(optarg);
        else {
            usage(argv[0]);
            exit(which == 'h' ? 0 : 2);
        }
    }
    if (settings->threads < 1 || settings->threads > THREADS_LIMIT) {
        fprintf(stderr, "epoll_echo: --threads must be from 1 to %d\n", THREADS_LIMIT);
        exit(2);
    }
    if (settings->message_size < 1) {
        fprintf(stderr, "epoll_echo: --size must be at least 1\n");
        exit(2);
    }
}

/* The signals must be blocked already. */
static void wait_for_the_end(const sigset_t *signals, double seconds)
{
    time_t whole = (time_t)seconds;
    struct timespec limit = {.tv_sec = whole, .tv_nsec = (long)((seconds - (double)whole) * 1e9)};
    while ((seconds > 0 ? sigtimedwait(signals, NULL, &limit) : sigwaitinfo(signals, NULL)) < 0 && errno == EINTR)
        ;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void report(unsigned threads, uint64_t requests)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"program\": \"epoll_echo\", \"threads\": %u, \"requests\": %llu, \"user_s\": %.3f,"
           " \"system_s\": %.3f, \"voluntary_switches\": %ld, \"involuntary_switches\": %ld}\n",
           threads, (unsigned long long)requests,
           (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6,
           (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6, usage.ru_nvcsw, usage.ru_nivcsw);
}

int main(int argc, char **argv)
{
    struct settings settings = {.host = "127.0.0.1", .threads = 1, .message_size = 64, .seconds = 60};
    parse_options(&settings, argc, argv);
    raise_descriptor_limit();

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    int stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct worker *workers = aligned_alloc(64, settings.threads * sizeof(*workers));
    if (stop < 0 || workers == NULL) {
        perror("epoll_echo");
        return 1;
    }
    memset(workers, 0, settings.threads * sizeof(*workers));
    for (unsigned i = 0; i < settings.threads; i++) {
        int error = start_worker(&workers[i], &settings, stop);
        if (error != 0) {
            fprintf(stderr, "epoll_echo: thread %u: %s\n", i, strerror(-error));
            return 1;
        }
        settings.port = (uint16_t)port_of(workers[i].listener);
    }
    printf("listening on %s:%d\n", settings.host, settings.port);
    fflush(stdout);

    wait_for_the_end(&signals, settings.seconds);
    uint64_t bytes = 0;
    if (eventfd_write(stop, 1) != 0)
        return 1;
    for (unsigned i = 0; i < settings.threads; i++) {
        pthread_join(workers[i].thread, NULL);
        bytes += workers[i].bytes;
    }
    report(settings.threads, bytes / settings.message_size);
    free(workers);
    return 0;
}
