/*
 * The endpoints. Each handler runs on its connection's task and answers exactly once, or aborts the connection.
 * Those that wait or keep the worker busy send earlier answers on their way first.
 */
#include "routes.h"

#include <errno.h>
#include <http_parser.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <weft.h>

#include "connection.h"
#include "server.h"

/* Longer stays are refused, so that a stray request cannot hold a thread for a day. */
#define LONGEST_MS 60000

typedef void handler(struct connection *connection, const char *query);

enum methods { READING = 1, READING_AND_POST = 2 };

struct route {
    const char *path;
    handler *handle;
    enum methods methods;
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One character of a query value; advances *text. Negative if it is not well-formed. */
static int decode(const char **text)
{
    const char *at = *text;
    *text = at + 1;
    if (*at == '+')
        return ' ';
    if (*at != '%')
        return (unsigned char)*at;
    int high = hex_digit(at[1]);
    int low = high < 0 ? -1 : hex_digit(at[2]);
    *text = at + 3;
    return low < 0 ? -1 : high * 16 + low;
}

static int decode_value(const char *value, char *out, size_t capacity)
{
    size_t length = 0;
    while (*value != '\0' && *value != '&') {
        int c = decode(&value);
        if (c <= 0 || length + 1 >= capacity)
            return -EINVAL;
        out[length++] = (char)c;
    }
    out[length] = '\0';
    return 1;
}

/* The value of `name` in a query string ("a=1&b=2"), decoded into out (capacity includes the terminator). 1 found, 0 not
 * there, -EINVAL if it is not well-formed, does not fit or holds a zero byte. */
static int find_value(const char *query, const char *name, char *out, size_t capacity)
{
    size_t name_length = strlen(name);
    for (const char *at = query; *at != '\0';) {
        if (strncmp(at, name, name_length) == 0 && at[name_length] == '=')
            return decode_value(at + name_length + 1, out, capacity);
        const char *next = strchr(at, '&');
        if (next == NULL)
            break;
        at = next + 1;
    }
    return 0;
}

static void respond_text(struct connection *connection, int status, const char *text)
{
    connection_respond(connection, status, "", text, strlen(text));
}

/* 503 with Retry-After. */
static void refuse_busy(struct connection *connection)
{
    static const char text[] = "the blocking pool's queue is full\n";
    server_count(&connection->server->totals.refused_pool);
    connection_respond(connection, HTTP_STATUS_SERVICE_UNAVAILABLE, "Retry-After: 1\r\n", text, strlen(text));
}

/* The ms= parameter (0 if absent), or -EINVAL after answering 400. */
static int64_t milliseconds(struct connection *connection, const char *query)
{
    char text[16];
    int found = find_value(query, "ms", text, sizeof(text));
    if (found == 0)
        return 0;
    char *end = text;
    long value = found < 0 ? -1 : strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 0 || value > LONGEST_MS) {
        server_count(&connection->server->totals.bad_requests);
        respond_text(connection, HTTP_STATUS_BAD_REQUEST, "ms must be a number from 0 to 60000\n");
        return -EINVAL;
    }
    return value;
}

static void respond_done(struct connection *connection, const char *what, int64_t ms)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%s %lld ms\n", what, (long long)ms);
    connection_respond(connection, HTTP_STATUS_OK, "", text, (size_t)n);
}

static void block_thread(int64_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

/* ---- /plaintext, when the connection's short cut does not apply ---- */

static void serve_plaintext(struct connection *connection, const char *query)
{
    (void)query;
    respond_text(connection, HTTP_STATUS_OK, "Hello, World!");
}

/* ---- /normal: a synchronous handler; it has a thread of the pool to itself ---- */

static intptr_t synchronous_handler(void *arg)
{
    block_thread(*(const int64_t *)arg);
    return 0;
}

static void serve_normal(struct connection *connection, const char *query)
{
    int64_t ms = milliseconds(connection, query);
    if (ms < 0 || connection_flush(connection) != 0)
        return;
    intptr_t result = weft_blocking(synchronous_handler, &ms);
    if (result == 0)
        respond_done(connection, "blocked a pool thread for", ms);
    else if (result == -EAGAIN)
        refuse_busy(connection);
    else
        connection_abort(connection);
}

/* ---- /async: the task parks, no thread waits ---- */

static void serve_async(struct connection *connection, const char *query)
{
    int64_t ms = milliseconds(connection, query);
    if (ms < 0 || connection_flush(connection) != 0)
        return;
    if (weft_sleep(WEFT_MS(ms)) == 0)
        respond_done(connection, "parked for", ms);
    else
        connection_abort(connection);
}

/* ---- /dump: the mistake on purpose; the worker itself is blocked ---- */

static void serve_dump(struct connection *connection, const char *query)
{
    int64_t ms = milliseconds(connection, query);
    if (ms < 0 || connection_flush(connection) != 0)
        return;
    block_thread(ms);
    respond_done(connection, "blocked a worker for", ms);
}

/* ---- /cpu: computes for so much processor time ---- */

static int64_t thread_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return WEFT_SEC(now.tv_sec) + now.tv_nsec;
}

/* The clock is a system call here; some 10 µs of arithmetic between two looks make it cheap. */
static uint64_t compute(int64_t ms)
{
    uint64_t x = 88172645463325252u;
    int64_t end = thread_time() + WEFT_MS(ms);
    while (thread_time() < end) {
        for (int i = 0; i < 10000; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
    }
    return x;
}

static void serve_cpu(struct connection *connection, const char *query)
{
    int64_t ms = milliseconds(connection, query);
    if (ms < 0 || connection_flush(connection) != 0)
        return;
    char text[80];
    uint64_t x = compute(ms);
    int n = snprintf(text, sizeof(text), "computed for %lld ms: %016llx\n", (long long)ms, (unsigned long long)x);
    connection_respond(connection, HTTP_STATUS_OK, "", text, (size_t)n);
}

/* ---- /stats ---- */

#define STATS_LIMIT 2048

static int print_stats(char *out, struct server *server)
{
    weft_runtime *runtime = weft_runtime_current();
    struct totals *totals = &server->totals;
    weft_stats stats;
    weft_runtime_stats(runtime, &stats);
#define U(value) ((unsigned long long)(value))
    return snprintf(out, STATS_LIMIT,
                    "{\"httpd\": {\"open\": %u, \"accepted\": %llu, \"requests\": %llu,"
                    " \"refused_connections\": %llu, \"refused_pool\": %llu, \"bad_requests\": %llu,"
                    " \"timed_out\": %llu, \"accept_pauses\": %llu},\n"
                    " \"weft\": {\"workers\": %u, \"spawned\": %llu, \"ended\": %llu, \"ran_in_place\": %llu,"
                    " \"dispatched\": %llu, \"steals\": %llu, \"stolen\": %llu, \"wakes\": %llu, \"sleeps\": %llu,"
                    " \"polls\": %llu, \"events\": %llu, \"polled_for_peer\": %llu, \"timers_fired\": %llu,"
                    " \"takeovers\": %llu, \"blocking_jobs\": %llu, \"blocking_refused\": %llu,"
                    " \"blocking_threads\": %u, \"spare_threads\": %u, \"live_tasks\": %llu, \"stacks\": %llu}}\n",
                    atomic_load(&server->open), U(atomic_load(&totals->accepted)), U(server_requests(server)),
                    U(atomic_load(&totals->refused_connections)), U(atomic_load(&totals->refused_pool)),
                    U(atomic_load(&totals->bad_requests)), U(atomic_load(&totals->timed_out)),
                    U(atomic_load(&totals->accept_pauses)), weft_runtime_workers(runtime), U(stats.spawned),
                    U(stats.ended), U(stats.ran_in_place), U(stats.dispatched), U(stats.steals), U(stats.stolen),
                    U(stats.wakes), U(stats.sleeps), U(stats.polls), U(stats.events), U(stats.polled_for_peer),
                    U(stats.timers_fired), U(stats.takeovers), U(stats.blocking_jobs), U(stats.blocking_refused),
                    stats.blocking_threads, stats.spare_threads, U(stats.live_tasks), U(stats.stacks));
#undef U
}

static void serve_stats(struct connection *connection, const char *query)
{
    (void)query;
    char *text = malloc(STATS_LIMIT);
    if (text == NULL) {
        connection_abort(connection);
        return;
    }
    int n = print_stats(text, connection->server);
    connection_respond_head(connection, HTTP_STATUS_OK, "application/json", "", (uint64_t)n);
    if (connection->parser.method != HTTP_HEAD)
        connection_send(connection, text, (size_t)n);
    free(text);
}

/* ---- dispatch ---- */

static const struct route routes[] = {
    {"/plaintext", serve_plaintext, READING},  {"/normal", serve_normal, READING_AND_POST},
    {"/async", serve_async, READING_AND_POST}, {"/dump", serve_dump, READING_AND_POST},
    {"/cpu", serve_cpu, READING_AND_POST},     {"/stats", serve_stats, READING},
};

static bool allows(const struct route *route, unsigned method)
{
    return method == HTTP_GET || method == HTTP_HEAD || (method == HTTP_POST && route->methods == READING_AND_POST);
}

static void respond_not_allowed(struct connection *connection, const struct route *route)
{
    static const char text[] = "method not allowed\n";
    const char *allow = route->methods == READING ? "Allow: GET, HEAD\r\n" : "Allow: GET, HEAD, POST\r\n";
    connection_respond(connection, HTTP_STATUS_METHOD_NOT_ALLOWED, allow, text, strlen(text));
}

/* A target may be absolute ("http://host/path"): what counts begins at the path. */
static char *path_of(char *url)
{
    char *scheme = strstr(url, "://");
    if (url[0] == '/' || scheme == NULL)
        return url;
    char *path = strchr(scheme + 3, '/');
    return path != NULL ? path : url;
}

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    }
    return NULL;
}

void routes_dispatch(struct connection *connection)
{
    char *url = connection->buffers->url;
    url[connection->url_length] = '\0';
    char *path = path_of(url);
    path[strcspn(path, "#")] = '\0';
    char *query = path + strcspn(path, "?");
    if (*query != '\0')
        *query++ = '\0';

    const struct route *route = find_route(path);
    if (route == NULL)
        respond_text(connection, HTTP_STATUS_NOT_FOUND, "not found\n");
    else if (!allows(route, connection->parser.method))
        respond_not_allowed(connection, route);
    else
        route->handle(connection, query);
}
