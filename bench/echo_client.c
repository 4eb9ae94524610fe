/*
 * Load generator for the echo servers, on one thread with epoll.
 *
 * Closed loop (the default): every connection sends a message, waits for all of it to come back, sends the next.
 * With --rate the messages are due at fixed times, whatever the server does, and a message's latency counts
 * from the time it was due: a stall is charged to every message it delayed. Connections take turns; a message
 * that is due when all are busy goes out on the first that gets free.
 *
 * Latencies go to a histogram whose buckets are at most 1/128 of their value wide.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 256
#define SUB_BITS 7
#define SUB_COUNT (1 << SUB_BITS)
#define BUCKETS ((64 - SUB_BITS + 1) * SUB_COUNT)

struct settings {
    const char *host;
    uint16_t port;
    unsigned connections;
    size_t size;
    double seconds;
    double warmup;
    double rate; /* messages a second, 0: closed loop */
};

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total;
    uint64_t largest;
};

struct connection {
    struct connection *next_free;
    int64_t start;   /* when the message was sent, or due */
    size_t received; /* of the message on its way */
    size_t sent;
    int fd;
    bool blocked; /* the socket did not take all of the message */
};

struct client {
    struct settings settings;
    struct connection *connections;
    struct connection *free_head; /* first in, first out: connections take turns */
    struct connection *free_tail;
    unsigned open;
    int epoll;
    char *message;
    char *buffer;
    int64_t next_due;
    int64_t interval;
    int64_t measure_from;
    int64_t end;
    double measured; /* seconds: less than asked for if every connection broke */
    uint64_t errors;
    struct histogram histogram;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- histogram ---- */

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB_COUNT)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return shift * SUB_COUNT + (unsigned)(value >> shift);
}

/* The largest value of a bucket. */
static uint64_t value_of(unsigned bucket)
{
    if (bucket < 2 * SUB_COUNT)
        return bucket;
    unsigned shift = bucket / SUB_COUNT - 1;
    return (((uint64_t)(bucket % SUB_COUNT + SUB_COUNT) + 1) << shift) - 1;
}

static void record(struct histogram *histogram, uint64_t value)
{
    histogram->counts[bucket_of(value)]++;
    histogram->total++;
    if (value > histogram->largest)
        histogram->largest = value;
}

static double percentile_us(const struct histogram *histogram, double percent)
{
    uint64_t rank = (uint64_t)((double)histogram->total * percent / 100.0 + 0.5);
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen >= rank && seen > 0) {
            uint64_t value = value_of(i);
            return (double)(value < histogram->largest ? value : histogram->largest) / 1000.0;
        }
    }
    return 0;
}

/* ---- connections ---- */

static void push_free(struct client *client, struct connection *connection)
{
    connection->next_free = NULL;
    if (client->free_head == NULL)
        client->free_head = connection;
    else
        client->free_tail->next_free = connection;
    client->free_tail = connection;
}

static struct connection *pop_free(struct client *client)
{
    struct connection *connection = client->free_head;
    if (connection != NULL)
        client->free_head = connection->next_free;
    return connection;
}

static void give_up(struct client *client, struct connection *connection)
{
    client->errors++;
    client->open--;
    close(connection->fd);
    connection->fd = -1;
}

static int watch(struct client *client, struct connection *connection, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    return epoll_ctl(client->epoll, operation, connection->fd, &event) != 0 ? -errno : 0;
}

static void send_rest(struct client *client, struct connection *connection)
{
    size_t left = client->settings.size - connection->sent;
    ssize_t n = send(connection->fd, client->message + connection->sent, left, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        give_up(client, connection);
        return;
    }
    connection->sent += n > 0 ? (size_t)n : 0;
    bool blocked = connection->sent < client->settings.size;
    if (blocked != connection->blocked)
        watch(client, connection, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    connection->blocked = blocked;
}

static void send_message(struct client *client, struct connection *connection, int64_t start)
{
    connection->start = start;
    connection->sent = 0;
    connection->received = 0;
    send_rest(client, connection);
}

/* Send what is due on the connections that are free. */
static void send_due(struct client *client, int64_t now)
{
    while (client->next_due <= now && client->free_head != NULL) {
        send_message(client, pop_free(client), client->next_due);
        client->next_due += client->interval;
    }
}

static void complete(struct client *client, struct connection *connection)
{
    int64_t now = now_ns();
    if (connection->start >= client->measure_from)
        record(&client->histogram, (uint64_t)(now - connection->start));
    if (client->settings.rate == 0) {
        send_message(client, connection, now);
    } else {
        push_free(client, connection);
        send_due(client, now);
    }
}

static void receive(struct client *client, struct connection *connection)
{
    size_t left = client->settings.size - connection->received;
    ssize_t n = read(connection->fd, client->buffer, left);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || memcmp(client->buffer, client->message + connection->received, (size_t)n) != 0) {
        give_up(client, connection);
        return;
    }
    connection->received += (size_t)n;
    if (connection->received == client->settings.size)
        complete(client, connection);
}

static int connect_one(struct client *client, struct connection *connection)
{
    static const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(client->settings.port)};
    if (inet_pton(AF_INET, client->settings.host, &address.sin_addr) != 1)
        return -EINVAL;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        return -errno;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (fcntl(connection->fd, F_SETFL, O_RDWR | O_NONBLOCK) != 0)
        return -errno;
    return watch(client, connection, EPOLLIN, EPOLL_CTL_ADD);
}

/* ---- the run ---- */

static void handle(struct client *client, const struct epoll_event *event)
{
    struct connection *connection = event->data.ptr;
    if ((event->events & EPOLLOUT) != 0)
        send_rest(client, connection);
    if (connection->fd >= 0 && (event->events & ~(uint32_t)EPOLLOUT) != 0)
        receive(client, connection);
}

/* Until the next message is due, if there is a connection to send it on, or to the end. */
static int wait_for_events(struct client *client, struct epoll_event *events)
{
    int64_t until = client->end;
    if (client->settings.rate > 0 && client->free_head != NULL && client->next_due < until)
        until = client->next_due;
    int64_t left = until - now_ns();
    left = left < 0 ? 0 : left;
    struct timespec limit = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    return epoll_pwait2(client->epoll, events, EVENTS_AT_ONCE, &limit, NULL);
}

static void start_sending(struct client *client, int64_t now)
{
    client->next_due = now;
    for (unsigned i = 0; i < client->settings.connections; i++) {
        if (client->settings.rate == 0)
            send_message(client, &client->connections[i], now_ns());
        else
            push_free(client, &client->connections[i]);
    }
}

static void run(struct client *client)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int64_t now = now_ns();
    client->measure_from = now + (int64_t)(client->settings.warmup * 1e9);
    client->end = client->measure_from + (int64_t)(client->settings.seconds * 1e9);
    start_sending(client, now);
    while (client->open > 0 && (now = now_ns()) < client->end) {
        if (client->settings.rate > 0)
            send_due(client, now);
        int n = wait_for_events(client, events);
        for (int i = 0; i < n; i++)
            handle(client, &events[i]);
    }
    client->measured = (double)(now_ns() - client->measure_from) / 1e9;
}

static void report(const struct client *client)
{
    static const double percents[] = {50, 90, 99, 99.9};
    const struct histogram *histogram = &client->histogram;
    const struct settings *settings = &client->settings;
    double latencies[4];
    for (int i = 0; i < 4; i++)
        latencies[i] = percentile_us(histogram, percents[i]);
    double largest = (double)histogram->largest / 1000.0;
    double rate = (double)histogram->total / (client->measured > 0 ? client->measured : 1);

    printf("%u connections, %zu bytes, %.1f s: %llu requests, %.0f requests/s, %llu errors\n",
           settings->connections, settings->size, client->measured, (unsigned long long)histogram->total, rate,
           (unsigned long long)client->errors);
    printf("latency in us: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n", latencies[0], latencies[1],
           latencies[2], latencies[3], largest);
    printf("{\"program\": \"echo_client\", \"connections\": %u, \"size\": %zu, \"seconds\": %.3f, \"rate\": %.0f,"
           " \"requests\": %llu, \"requests_per_s\": %.1f, \"errors\": %llu, \"p50_us\": %.1f, \"p90_us\": %.1f,"
           " \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           settings->connections, settings->size, client->measured, settings->rate,
           (unsigned long long)histogram->total, rate, (unsigned long long)client->errors, latencies[0],
           latencies[1], latencies[2], latencies[3], largest);
}

static void usage(const char *program)
{
    printf("usage: %s --port N [options]\n"
           "Sends messages to an echo server and measures how long they take to come back.\n"
           "\n"
           "  --host ADDRESS    (127.0.0.1)\n"
           "  --connections N   (64)\n"
           "  --size BYTES      of a message (64)\n"
           "  --seconds S       measured time (5)\n"
           "  --warmup S        before it (0.5)\n"
           "  --rate N          messages a second over all connections (0: as fast as they come back)\n"
           "\n"
           "Exit status 1 if a connection could not be made, broke, or brought other bytes back.\n",
           program);
}

static void parse_options(struct settings *settings, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'H'},
        {"port", required_argument, NULL, 'p'},
        {"connections", required_argument, NULL, 'c'},
        {"size", required_argument, NULL, 'z'},
        {"seconds", required_argument, NULL, 's'},
        {"warmup", required_argument, NULL, 'w'},
        {"rate", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int which;
    while ((which = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (which) {
        case 'H':
            settings->host = optarg;
            break;
        case 'p':
            settings->port = (uint16_t)atoi(optarg);
            break;
        case 'c':
            settings->connections = (unsigned)atoi(optarg);
            break;
        case 'z':
            settings->size = (size_t)atol(optarg);
            break;
        case 's':
            settings->seconds = atof(optarg);
            break;
        case 'w':
            settings->warmup = atof(optarg);
            break;
        case 'r':
            settings->rate = atof(optarg);
            break;
        default:
            usage(argv[0]);
            exit(which == 'h' ? 0 : 2);
        }
    }
    if (settings->port == 0 || settings->connections < 1 || settings->size < 1 || settings->seconds <= 0 ||
        settings->warmup < 0 || settings->rate < 0) {
        usage(argv[0]);
        exit(2);
    }
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int prepare(struct client *client)
{
    struct settings *settings = &client->settings;
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    client->connections = calloc(settings->connections, sizeof(*client->connections));
    client->message = malloc(settings->size);
    client->buffer = malloc(settings->size);
    if (client->epoll < 0 || client->connections == NULL || client->message == NULL || client->buffer == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < settings->size; i++)
        client->message[i] = (char)('a' + i % 26);
    if (settings->rate > 0)
        client->interval = (int64_t)(1e9 / settings->rate);
    client->interval += client->interval == 0;
    for (unsigned i = 0; i < settings->connections; i++) {
        int error = connect_one(client, &client->connections[i]);
        if (error != 0)
            return error;
        client->open++;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct client client = {
        .settings = {.host = "127.0.0.1", .connections = 64, .size = 64, .seconds = 5, .warmup = 0.5}};
    parse_options(&client.settings, argc, argv);
    raise_descriptor_limit();
    int error = prepare(&client);
    if (error != 0) {
        fprintf(stderr, "echo_client: connection %u: %s\n", client.open, strerror(-error));
        return 1;
    }
    run(&client);
    report(&client);
    return client.errors > 0 ? 1 : 0;
}
