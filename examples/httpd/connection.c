/*
 * One client's connection, driven by one task from accept to close.
 *
 * The hot path is one read, one parse, one write: the parser calls handlers as it completes requests, handlers
 * append their answers to one buffer, and everything a read brought is answered by a single write. A handler
 * may wait (it runs on the task's own stack, inside the parser's callback); it flushes earlier answers first.
 *
 * Deadlines. Between requests: the keep-alive time-out, then the connection is closed. From the first byte of a
 * request to its last: the header time-out (started again once when a body follows), then 408. For a client that
 * takes nothing of what is sent: the write time-out. On the hot path one scope covers the write of the answers
 * and the wait for the next request, at the price of one look at the clock.
 *
 * Memory. A connection that has been quiet for WARM_TIME gives its buffers back and waits for readiness without
 * them: what is left of it is this struct and a page of stack.
 */
#include "connection.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "response.h"
#include "routes.h"
#include "server.h"

/* Long enough that a client in a loop never pays for buffers, short enough that a burst's memory is soon free. */
#define WARM_TIME WEFT_SEC(1)

/* After an error the client may still be sending. Closing at once would make the kernel answer with a reset,
 * which can overtake our answer: so read on for a little. */
#define LINGER_TIME WEFT_SEC(1)
#define LINGER_BYTES (1u << 20)

/* ---- sending ---- */

void connection_abort(struct connection *connection)
{
    connection->broken = true;
    connection->last = true;
}

static int abort_with(struct connection *connection, ssize_t error)
{
    connection_abort(connection);
    return (int)error;
}

/* In the caller's scope. */
static ssize_t write_collected(struct connection *connection)
{
    while (connection->out_sent < connection->out_length) {
        ssize_t n = weft_write(connection->fd, connection->buffers->out + connection->out_sent,
                               connection->out_length - connection->out_sent);
        if (n < 0)
            return n;
        connection->out_sent += (uint32_t)n;
    }
    connection->out_length = 0;
    connection->out_sent = 0;
    return 0;
}

/* The time-out starts again with every part that goes out: a slow client is not a dead one. */
static int write_patiently(struct connection *connection, const char *data, size_t length)
{
    while (length > 0) {
        weft_timeout scope;
        weft_timeout_begin(&scope, connection->server->options.write_timeout);
        ssize_t n = weft_write(connection->fd, data, length);
        weft_timeout_end(&scope);
        if (n < 0)
            return abort_with(connection, n);
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

int connection_flush(struct connection *connection)
{
    if (connection->broken)
        return -EPIPE;
    uint32_t sent = connection->out_sent;
    uint32_t length = connection->out_length;
    connection->out_sent = 0;
    connection->out_length = 0;
    return write_patiently(connection, connection->buffers->out + sent, length - sent);
}

int connection_send(struct connection *connection, const char *data, size_t length)
{
    if (connection->broken)
        return -EPIPE;
    if (length > CONNECTION_OUT_SIZE - connection->out_length) {
        int error = connection_flush(connection);
        if (error != 0)
            return error;
    }
    if (length > CONNECTION_OUT_SIZE)
        return write_patiently(connection, data, length);
    memcpy(connection->buffers->out + connection->out_length, data, length);
    connection->out_length += (uint32_t)length;
    return 0;
}

/* Room for a head; NULL if the client is gone. */
static char *reserve(struct connection *connection, size_t length)
{
    if (connection->broken)
        return NULL;
    if (CONNECTION_OUT_SIZE - connection->out_length < length && connection_flush(connection) != 0)
        return NULL;
    return connection->buffers->out + connection->out_length;
}

/* relaxed: a stop that is missed here finds the connection again when it is idle */
static void note_stop(struct connection *connection)
{
    if (atomic_load_explicit(&connection->server->stopping, memory_order_relaxed))
        connection->last = true;
}

static const char *persistence(const struct connection *connection)
{
    if (connection->last)
        return "Connection: close\r\n";
    /* An HTTP/1.0 client that asked to keep the connection has to be told that it was heard. */
    return connection->parser.http_minor == 0 ? "Connection: keep-alive\r\n" : "";
}

void connection_respond_head(struct connection *connection, int status, const char *type, const char *extra,
                             uint64_t length)
{
    char *out = reserve(connection, RESPONSE_HEAD_LIMIT);
    if (out == NULL)
        return;
    note_stop(connection); /* the handler may have waited meanwhile */
    connection->out_length += (uint32_t)response_head(out, &connection->server->date, status, type,
                                                      persistence(connection), extra, length);
}

void connection_respond(struct connection *connection, int status, const char *extra, const char *body,
                        size_t length)
{
    connection_respond_head(connection, status, "text/plain", extra, length);
    if (connection->parser.method != HTTP_HEAD)
        connection_send(connection, body, length);
}

static void respond_plaintext(struct connection *connection)
{
    char *out = reserve(connection, RESPONSE_PLAINTEXT_LENGTH);
    if (out == NULL)
        return;
    response_plaintext(out, &connection->server->date);
    connection->out_length += RESPONSE_PLAINTEXT_LENGTH;
}

/* An answer after which the connection ends. */
static void respond_failure(struct connection *connection, int status)
{
    const char *text = http_status_str((enum http_status)status);
    struct totals *totals = &connection->server->totals;
    server_count(status == 408 ? &totals->timed_out : &totals->bad_requests);
    connection->last = true;
    /* The method may not be known, or be left over from the request before: never take it for HEAD. */
    connection->parser.method = HTTP_GET;
    connection_respond(connection, status, "", text, strlen(text));
}

/* ---- the parser's callbacks ---- */

static inline struct connection *connection_of(http_parser *parser)
{
    return parser->data;
}

static int fail(struct connection *connection, int status)
{
    connection->failure = (uint16_t)status;
    return -1;
}

static int on_message_begin(http_parser *parser)
{
    struct connection *connection = connection_of(parser);
    connection->phase = PHASE_HEADER;
    connection->url_length = 0;
    connection->hosts = 0;
    connection->name_match = 0;
    connection->in_value = false;
    connection->expects_continue = false;
    connection->body_length = 0;
    return 0;
}

static int on_url(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);
    if (length > connection->server->options.max_url - connection->url_length)
        return fail(connection, HTTP_STATUS_URI_TOO_LONG);
    memcpy(connection->buffers->url + connection->url_length, at, length);
    connection->url_length += (uint32_t)length;
    return 0;
}

/* Two names matter, and they differ in their first letter. A name may come in pieces: name_match counts the
 * letters that agree so far, 0xff says that it is another name, the top bit but one that it is "expect". */
#define NAME_OTHER 0xff
#define NAME_EXPECT 0x40
#define NAME_HOST_DONE 4
#define NAME_EXPECT_DONE (NAME_EXPECT + 6)

static uint8_t match_name(uint8_t match, const char *at, size_t length)
{
    if (match == 0) {
        char first = (char)(at[0] | 0x20);
        if (first != 'h' && first != 'e')
            return NAME_OTHER;
        match = first == 'e' ? NAME_EXPECT : 0;
    }
    const char *name = match >= NAME_EXPECT ? "expect" : "host";
    size_t name_length = match >= NAME_EXPECT ? 6 : 4;
    size_t done = match & (NAME_EXPECT - 1);
    if (done + length > name_length || strncasecmp(name + done, at, length) != 0)
        return NAME_OTHER;
    return (uint8_t)(match + length);
}

static int on_header_field(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);
    if (connection->in_value) {
        connection->in_value = false;
        connection->name_match = 0;
    }
    if (connection->name_match != NAME_OTHER && length > 0)
        connection->name_match = match_name(connection->name_match, at, length);
    return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);
    if (connection->in_value)
        return 0;
    connection->in_value = true;
    if (connection->name_match == NAME_HOST_DONE)
        connection->hosts += connection->hosts < UINT8_MAX;
    else if (connection->name_match == NAME_EXPECT_DONE)
        connection->expects_continue = length > 0 && at[0] == '1';
    return 0;
}

static int on_headers_complete(http_parser *parser)
{
    struct connection *connection = connection_of(parser);
    if (parser->http_major != 1)
        return fail(connection, HTTP_STATUS_HTTP_VERSION_NOT_SUPPORTED);
    if (connection->hosts != 1 && (connection->hosts > 1 || parser->http_minor > 0))
        return fail(connection, HTTP_STATUS_BAD_REQUEST);
    if (parser->content_length != ULLONG_MAX && parser->content_length > connection->server->options.max_body)
        return fail(connection, HTTP_STATUS_PAYLOAD_TOO_LARGE);
    parser->upgrade = 0; /* no other protocol is spoken here: an offer to switch is ignored */
    connection->phase = PHASE_BODY;
    connection->deadline = 0;
    if (connection->expects_continue && parser->http_minor > 0)
        connection_send(connection, RESPONSE_CONTINUE, strlen(RESPONSE_CONTINUE));
    return connection->broken ? -1 : 0;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);
    (void)at;
    connection->body_length += length;
    if (connection->body_length > connection->server->options.max_body)
        return fail(connection, HTTP_STATUS_PAYLOAD_TOO_LARGE);
    return 0;
}

static inline bool is_plain(const struct connection *connection)
{
    return connection->parser.method == HTTP_GET && connection->parser.http_minor == 1 && !connection->last &&
           connection->url_length == 10 && memcmp(connection->buffers->url, "/plaintext", 10) == 0;
}

static int on_message_complete(http_parser *parser)
{
    struct connection *connection = connection_of(parser);
    connection->phase = PHASE_IDLE;
    connection->deadline = 0;
    connection->last = !http_should_keep_alive(parser);
    note_stop(connection);

    if (is_plain(connection))
        respond_plaintext(connection);
    else
        routes_dispatch(connection);

    /* relaxed: one writer, and readers want a figure, not an order */
    atomic_store_explicit(&connection->requests,
                          atomic_load_explicit(&connection->requests, memory_order_relaxed) + 1,
                          memory_order_relaxed);
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

/* ---- receiving ---- */

static ssize_t read_some(struct connection *connection)
{
    return weft_read(connection->fd, connection->buffers->in, CONNECTION_IN_SIZE);
}

/* Answer, then wait for the next request, with the buffers at hand. -ETIMEDOUT: it was quiet for WARM_TIME. */
static ssize_t receive_warm(struct connection *connection)
{
    weft_timeout scope;
    int64_t patience = connection->server->options.keepalive_timeout;
    weft_timeout_begin(&scope, patience < WARM_TIME ? patience : WARM_TIME);
    ssize_t n = write_collected(connection);
    if (n == 0) {
        n = read_some(connection);
    }
    weft_timeout_end(&scope);
    return n;
}

/* Wait for the first byte of a request without buffers. */
static ssize_t receive_cold(struct connection *connection)
{
    const struct options *options = &connection->server->options;
    int events = weft_poll(connection->fd, POLLIN, options->keepalive_timeout);
    if (events < 0)
        return events;
    connection->buffers = malloc(sizeof(*connection->buffers));
    if (connection->buffers == NULL)
        return -ENOMEM;

    weft_timeout scope;
    weft_timeout_begin(&scope, options->header_timeout);
    ssize_t n = read_some(connection);
    weft_timeout_end(&scope);
    return n;
}

static ssize_t receive_first(struct connection *connection)
{
    if (connection->buffers != NULL) {
        ssize_t n = receive_warm(connection);
        if (n != -ETIMEDOUT)
            return n;
        if (connection->out_length > 0 && connection_flush(connection) != 0)
            return -ETIMEDOUT;
        if (connection->server->options.keepalive_timeout <= WARM_TIME)
            return -ETIMEDOUT;
        free(connection->buffers);
        connection->buffers = NULL;
    }
    return receive_cold(connection);
}

/* The rest of a request that has begun. */
static ssize_t receive_rest(struct connection *connection)
{
    if (connection_flush(connection) != 0)
        return -EPIPE;
    if (connection->deadline == 0)
        connection->deadline = weft_now() + connection->server->options.header_timeout;
    weft_timeout scope;
    weft_timeout_begin_at(&scope, connection->deadline);
    ssize_t n = read_some(connection);
    weft_timeout_end(&scope);
    if (n == -ETIMEDOUT)
        respond_failure(connection, HTTP_STATUS_REQUEST_TIMEOUT);
    return n;
}

static ssize_t receive(struct connection *connection)
{
    if (connection->phase != PHASE_IDLE)
        return receive_rest(connection);
    /* relaxed: a stopping server that looks too early or too late looks again soon */
    atomic_store_explicit(&connection->idle, true, memory_order_relaxed);
    ssize_t n = receive_first(connection);
    atomic_store_explicit(&connection->idle, false, memory_order_relaxed);
    return n;
}

static int status_of_parser_error(const struct connection *connection)
{
    if (connection->failure != 0)
        return connection->failure;
    if (HTTP_PARSER_ERRNO(&connection->parser) == HPE_HEADER_OVERFLOW) {
        /* The limit counts the request line, too: no header seen yet means that the line alone is too long. */
        bool in_line = connection->name_match == 0 && !connection->in_value;
        return in_line ? HTTP_STATUS_URI_TOO_LONG : HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    return HTTP_STATUS_BAD_REQUEST;
}

/* Read on until the client has closed too, so that it gets to see the answer. */
static void linger(struct connection *connection)
{
    size_t left = LINGER_BYTES;
    ssize_t n;
    weft_timeout scope;
    shutdown(connection->fd, SHUT_WR);
    weft_timeout_begin(&scope, LINGER_TIME);
    while ((n = read_some(connection)) > 0 && left > (size_t)n)
        left -= (size_t)n;
    weft_timeout_end(&scope);
}

/* The end of a connection that is not simply gone: the last answers. `heard`: all the client sent was read. */
static void finish(struct connection *connection, bool heard)
{
    if (connection_flush(connection) == 0 && !heard)
        linger(connection);
}

static void serve(struct connection *connection)
{
    ssize_t n;
    while ((n = receive(connection)) > 0) {
        size_t parsed = http_parser_execute(&connection->parser, &callbacks, connection->buffers->in, (size_t)n);
        if (connection->last) {
            /* A request that closed the parser counts its last byte as not parsed. */
            finish(connection, connection->broken || parsed + 1 >= (size_t)n);
            return;
        }
        if (HTTP_PARSER_ERRNO(&connection->parser) != HPE_OK) {
            respond_failure(connection, status_of_parser_error(connection));
            finish(connection, false);
            return;
        }
    }
    if (connection->last && connection->out_length > 0)
        finish(connection, false);
}

static void refuse(struct connection *connection)
{
    static const char text[] = "too many connections\n";
    connection->buffers = malloc(sizeof(*connection->buffers));
    if (connection->buffers == NULL)
        return;
    connection->last = true;
    connection->parser.method = HTTP_GET;
    connection_respond(connection, HTTP_STATUS_SERVICE_UNAVAILABLE, "Retry-After: 1\r\n", text, strlen(text));
    finish(connection, false);
}

static void reset(struct connection *connection)
{
    http_parser_init(&connection->parser, HTTP_REQUEST);
    connection->parser.data = connection;
    connection->parser.http_minor = 1;
    connection->buffers = NULL;
    connection->out_length = 0;
    connection->out_sent = 0;
    connection->deadline = 0;
    connection->failure = 0;
    connection->phase = PHASE_IDLE;
    connection->last = false;
    connection->broken = false;
}

intptr_t connection_run(void *arg)
{
    struct connection *connection = arg;
    reset(connection);
    if (connection->refused)
        refuse(connection);
    else
        serve(connection);
    free(connection->buffers);
    connection->buffers = NULL;
    server_release(connection->server, connection);
    return 0;
}
