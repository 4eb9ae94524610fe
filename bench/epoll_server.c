/*
 * The baseline for examples/httpd: a bare epoll HTTP server that answers GET /plaintext with the same bytes,
 * found by the same parser with the same callbacks, and nothing else a server needs (no time-outs, no limits, 404
 * for all other targets).
 *
 * Each of the 1…N threads owns an epoll set, a listener of its own (SO_REUSEPORT: the kernel spreads the
 * connections) and its connections; threads share nothing but the eventfd that stops them. Level-triggered, one
 * read and one write an event; keep-alive and pipelining.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define THREADS_LIMIT 256
#define EVENTS_AT_ONCE 256
#define IN_SIZE 8192
#define OUT_SIZE 8192
#define URL_SIZE 2048
#define DATE_LENGTH 29
#define BEFORE_DATE "HTTP/1.1 200 OK\r\nServer: weft\r\nDate: "
#define AFTER_DATE "\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
#define ANSWER_LENGTH (sizeof(BEFORE_DATE) - 1 + DATE_LENGTH + sizeof(AFTER_DATE) - 1)
#define NOT_FOUND "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

struct settings {
    const char *host;
    uint16_t port;
    unsigned threads;
    double seconds;
};

struct worker {
    _Alignas(64) pthread_t thread;
    int epoll;
    int listener;
    time_t date_second;
    char date[DATE_LENGTH + 1];
    uint64_t requests;
    size_t out_length; /* answers to what the current read brought */
    char out[OUT_SIZE];
    char in[IN_SIZE];
};

struct connection {
    http_parser parser;
    struct worker *worker;
    int fd;
    uint32_t url_length;
    uint8_t hosts;
    uint8_t name_length;
    bool is_host;
    bool in_value;
    bool last;
    char *pending; /* answers the client has not taken yet; nothing is read meanwhile */
    size_t pending_length;
    char url[URL_SIZE];
};

/* ---- the parser's callbacks: what examples/httpd does in them, too ---- */

static int on_message_begin(http_parser *parser)
{
    struct connection *connection = parser->data;
    connection->url_length = 0;
    connection->hosts = 0;
    connection->name_length = 0;
    connection->is_host = true;
    connection->in_value = false;
    return 0;
}

static int on_url(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = parser->data;
    if (length > URL_SIZE - connection->url_length)
        return -1;
    memcpy(connection->url + connection->url_length, at, length);
    connection->url_length += (uint32_t)length;
    return 0;
}

static int on_header_field(http_parser *parser, const char *at, size_t length)
{
    static const char name[] = "host";
    struct connection *connection = parser->data;
    if (connection->in_value) {
        connection->in_value = false;
        connection->is_host = true;
        connection->name_length = 0;
    }
    if (!connection->is_host)
        return 0;
    connection->is_host =
        connection->name_length + length <= 4 && strncasecmp(&name[connection->name_length], at, length) == 0;
    connection->name_length = (uint8_t)(connection->name_length + length);
    return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = parser->data;
    (void)at;
    (void)length;
    if (!connection->in_value && connection->is_host && connection->name_length == 4)
        connection->hosts++;
    connection->in_value = true;
    return 0;
}

static int on_headers_complete(http_parser *parser)
{
    struct connection *connection = parser->data;
    parser->upgrade = 0;
    return parser->http_major == 1 && (connection->hosts == 1 || parser->http_minor == 0) ? 0 : -1;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    (void)parser;
    (void)at;
    (void)length;
    return 0;
}

static int flush_worker(struct connection *connection);

static void append(struct connection *connection, const char *data, size_t length)
{
    struct worker *worker = connection->worker;
    if (OUT_SIZE - worker->out_length < length && flush_worker(connection) != 0)
        return;
    memcpy(worker->out + worker->out_length, data, length);
    worker->out_length += length;
}

static int on_message_complete(http_parser *parser)
{
    struct connection *connection = parser->data;
    connection->last = !http_should_keep_alive(parser);
    connection->worker->requests++;
    if (parser->method == HTTP_GET && connection->url_length == 10 &&
        memcmp(connection->url, "/plaintext", 10) == 0) {
        char answer[ANSWER_LENGTH];
        memcpy(answer, BEFORE_DATE, sizeof(BEFORE_DATE) - 1);
        memcpy(answer + sizeof(BEFORE_DATE) - 1, connection->worker->date, DATE_LENGTH);
        memcpy(answer + sizeof(BEFORE_DATE) - 1 + DATE_LENGTH, AFTER_DATE, sizeof(AFTER_DATE) - 1);
        append(connection, answer, ANSWER_LENGTH);
    } else {
        append(connection, NOT_FOUND, sizeof(NOT_FOUND) - 1);
    }
    return connection->last ? -1 : 0;
}

static const http_parser_settings callbacks = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
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

static int flush_worker(struct connection *connection)
{
    struct worker *worker = connection->worker;
    size_t length = worker->out_length;
    worker->out_length = 0;
    if (length == 0)
        return 0;
    ssize_t n = 0;
    if (connection->pending == NULL) {
        n = send(connection->fd, worker->out, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return -errno;
    }
    n = n < 0 ? 0 : n;
    return (size_t)n == length ? 0 : keep_pending(connection, worker->out + n, length - (size_t)n);
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
    return connection->last ? -EPIPE : watch(connection, EPOLLIN);
}

static int read_and_answer(struct connection *connection)
{
    struct worker *worker = connection->worker;
    ssize_t n = read(connection->fd, worker->in, IN_SIZE);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -EPIPE;
    size_t parsed = http_parser_execute(&connection->parser, &callbacks, worker->in, (size_t)n);
    int error = flush_worker(connection);
    if (error != 0)
        return error;
    if (connection->last || parsed != (size_t)n)
        return connection->pending != NULL ? 0 : -EPIPE;
    return 0;
}

static void handle(struct connection *connection)
{
    if ((connection->pending != NULL ? write_pending(connection) : read_and_answer(connection)) != 0)
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
        http_parser_init(&connection->parser, HTTP_REQUEST);
        connection->parser.data = connection;
    }
}

/* ---- a thread ---- */

static void refresh_date(struct worker *worker)
{
    time_t now = time(NULL);
    if (now == worker->date_second)
        return;
    struct tm tm;
    worker->date_second = now;
    gmtime_r(&now, &tm);
    strftime(worker->date, sizeof(worker->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

/* The listener's events carry the worker, the stop's NULL. */
static void *run_worker(void *arg)
{
    struct worker *worker = arg;
    struct epoll_event events[EVENTS_AT_ONCE];
    for (;;) {
        int n = epoll_wait(worker->epoll, events, EVENTS_AT_ONCE, -1);
        refresh_date(worker);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                return NULL;
            if (events[i].data.ptr == worker)
                accept_all(worker);
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
    return -pthread_create(&worker->thread, NULL, run_worker, worker);
}

/* ---- the program ---- */

static void usage(const char *program)
{
    printf("usage: %s [--host ADDRESS] [--port N] [--threads N] [--seconds S]\n"
           "Bare epoll HTTP server: GET /plaintext. Port 0 (the default) picks a free one.\n"
           "Ends after --seconds (60; 0: only by SIGTERM or SIGINT) and prints what it used as a line of JSON.\n",
           program);
}

static void parse_options(struct settings *settings, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'H'},    {"port", required_argument, NULL, 'p'},
        {"threads", required_argument, NULL, 't'}, {"seconds", required_argument, NULL, 's'},
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
        else if (which == 's')
            settings->seconds = atof(optarg);
        else {
            usage(argv[0]);
            exit(which == 'h' ? 0 : 2);
        }
    }
    if (settings->threads < 1 || settings->threads > THREADS_LIMIT) {
        fprintf(stderr, "epoll_server: --threads must be from 1 to %d\n", THREADS_LIMIT);
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
    printf("{\"program\": \"epoll_server\", \"threads\": %u, \"requests\": %llu, \"user_s\": %.3f,"
           " \"system_s\": %.3f, \"voluntary_switches\": %ld, \"involuntary_switches\": %ld}\n",
           threads, (unsigned long long)requests,
           (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6,
           (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6, usage.ru_nvcsw, usage.ru_nivcsw);
}

int main(int argc, char **argv)
{
    struct settings settings = {.host = "127.0.0.1", .threads = 1, .seconds = 60};
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
        perror("epoll_server");
        return 1;
    }
    memset(workers, 0, settings.threads * sizeof(*workers));
    for (unsigned i = 0; i < settings.threads; i++) {
        int error = start_worker(&workers[i], &settings, stop);
        if (error != 0) {
            fprintf(stderr, "epoll_server: thread %u: %s\n", i, strerror(-error));
            return 1;
        }
        settings.port = (uint16_t)port_of(workers[i].listener);
    }
    printf("listening on %s:%d\n", settings.host, settings.port);
    fflush(stdout);

    wait_for_the_end(&signals, settings.seconds);
    uint64_t requests = 0;
    if (eventfd_write(stop, 1) != 0)
        return 1;
    for (unsigned i = 0; i < settings.threads; i++) {
        pthread_join(workers[i].thread, NULL);
        requests += workers[i].requests;
    }
    report(settings.threads, requests);
    free(workers);
    return 0;
}
