/*
 * One client's connection, in one task from accept to close: read a request, have it answered, again.
 *
 * A request is read line by line, and its body in pieces, so that never more is taken from the stream than belongs to
 * it: what the client has sent ahead (pipelining) stays there for the next round. http_parser judges every byte.
 *
 * A stopping server has to end connections between two requests, and only these. They are in a list; http_stop shuts
 * their sockets for reading, which their tasks see as the client's end. A connection enters the list and looks at
 * `stopping` under the lock under which http_stop sets it and walks the list: none is missed.
 */
#include "http.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

enum { PIECE = 4096, LINGER_BYTES = 1 << 20 };

struct connection {
    struct http_request request;
    struct connection *next, *prev; /* in the list of idle ones */
    http_parser parser;
    int failure;           /* the status that a callback wants to end the request with */
    uint64_t left;         /* of the body, or of its chunk */
    bool complete;         /* the request is here */
    bool in_value;         /* the last piece of a header was of its value */
    size_t used, capacity; /* of text; of the request's body */
    unsigned headers;
    const char *names[HTTP_HEADERS_MAX], *values[HTTP_HEADERS_MAX];
    char text[HTTP_HEAD_MAX]; /* the target, then each header's name and value, each with a zero byte */
    char decoded[HTTP_HEAD_MAX];
};

/* ---- what the parser finds ---- */

static struct connection *connection_of(http_parser *parser)
{
    return parser->data;
}

static int fail(struct connection *connection, int status)
{
    connection->failure = status;
    return -1;
}

/* Add to the text that grows at the end, in place of its zero byte. */
static int add_text(struct connection *connection, const char *at, size_t length)
{
    if (length >= sizeof connection->text - connection->used)
        return fail(connection, HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE);
    memcpy(connection->text + connection->used, at, length);
    connection->used += length;
    connection->text[connection->used] = '\0';
    return 0;
}

static const char *begin_text(struct connection *connection)
{
    if (connection->used < sizeof connection->text - 1)
        connection->text[++connection->used] = '\0';
    return connection->text + connection->used;
}

static int on_url(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);

    return add_text(connection, at, length) == 0 ? 0 : fail(connection, HTTP_STATUS_URI_TOO_LONG);
}

static int on_header_field(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);

    if (connection->headers == 0 || connection->in_value) {
        if (connection->headers == HTTP_HEADERS_MAX)
            return fail(connection, HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE);
        connection->names[connection->headers] = begin_text(connection);
        connection->values[connection->headers++] = "";
        connection->in_value = false;
    }
    return add_text(connection, at, length);
}

static int on_header_value(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);

    if (!connection->in_value)
        connection->values[connection->headers - 1] = begin_text(connection);
    connection->in_value = true;
    return add_text(connection, at, length);
}

static int on_headers_complete(http_parser *parser)
{
    struct connection *connection = connection_of(parser);
    const char *expects = http_header(&connection->request, "Expect");
    bool sized = parser->content_length != ULLONG_MAX;

    if (parser->http_major != 1)
        return fail(connection, HTTP_STATUS_HTTP_VERSION_NOT_SUPPORTED);
    if (parser->http_minor > 0 && http_header(&connection->request, "Host") == NULL)
        return fail(connection, HTTP_STATUS_BAD_REQUEST);
    if (sized && parser->content_length > connection->request.http->body_max)
        return fail(connection, HTTP_STATUS_PAYLOAD_TOO_LARGE);
    parser->upgrade = 0; /* no other protocol is spoken here: an offer to switch is ignored */
    connection->left = sized ? parser->content_length : 0;
    if (expects && strcasecmp(expects, "100-continue") == 0 && parser->http_minor > 0)
        weft_stream_write(connection->request.stream, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    return 0;
}

static int on_chunk_header(http_parser *parser)
{
    connection_of(parser)->left = parser->content_length;
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    struct connection *connection = connection_of(parser);
    struct http_request *request = &connection->request;

    if (length > request->http->body_max - request->length)
        return fail(connection, HTTP_STATUS_PAYLOAD_TOO_LARGE);
    if (request->length + length + 1 > connection->capacity) {
        size_t capacity = (request->length + length + 1) * 2;
        char *body = realloc(request->body, capacity);

        if (body == NULL)
            return fail(connection, HTTP_STATUS_SERVICE_UNAVAILABLE);
        request->body = body;
        connection->capacity = capacity;
    }
    memcpy(request->body + request->length, at, length);
    request->length += length;
    request->body[request->length] = '\0';
    return 0;
}

static int on_message_complete(http_parser *parser)
{
    connection_of(parser)->complete = true;
    return 0;
}

static const http_parser_settings callbacks = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* 0, or the status to refuse the request with. */
static int parse(struct connection *connection, const char *data, size_t size)
{
    size_t parsed = http_parser_execute(&connection->parser, &callbacks, data, size);

    if (parsed == size && HTTP_PARSER_ERRNO(&connection->parser) == HPE_OK)
        return 0;
    return connection->failure ? connection->failure : HTTP_STATUS_BAD_REQUEST;
}

/* ---- reading a request: 1 it is here, 0 there is none any more, a status to refuse it with, or an error ---- */

static ssize_t parse_line(struct connection *connection)
{
    const char *line;
    ssize_t n = weft_stream_readline(connection->request.stream, &line);

    if (n == -EMSGSIZE)
        return connection->used ? HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE : HTTP_STATUS_URI_TOO_LONG;
    return n <= 0 ? n : parse(connection, line, (size_t)n) ?: 1;
}

static ssize_t parse_piece(struct connection *connection)
{
    char piece[PIECE];
    size_t size = connection->left < sizeof piece ? (size_t)connection->left : sizeof piece;
    ssize_t n = weft_stream_read(connection->request.stream, piece, size);

    if (n <= 0)
        return n;
    connection->left -= (uint64_t)n;
    return parse(connection, piece, (size_t)n) ?: 1;
}

static ssize_t read_rest(struct connection *connection)
{
    weft_timeout scope;
    ssize_t n = 1;

    weft_timeout_begin(&scope, connection->request.http->receive_time);
    while (n == 1 && !connection->complete)
        n = connection->left > 0 ? parse_piece(connection) : parse_line(connection);
    weft_timeout_end(&scope);
    return n == -ETIMEDOUT ? HTTP_STATUS_REQUEST_TIMEOUT : n;
}

static bool enter_idle(struct http *http, struct connection *connection)
{
    bool may;

    weft_mutex_lock(&http->lock);
    may = !atomic_load(&http->stopping);
    if (may) {
        connection->prev = NULL;
        connection->next = http->idle;
        if (http->idle)
            http->idle->prev = connection;
        http->idle = connection;
    }
    weft_mutex_unlock(&http->lock);
    return may;
}

static void leave_idle(struct http *http, struct connection *connection)
{
    weft_mask_begin(); /* also a cancelled task must leave the list */
    weft_mutex_lock(&http->lock);
    *(connection->prev ? &connection->prev->next : &http->idle) = connection->next;
    if (connection->next)
        connection->next->prev = connection->prev;
    weft_mutex_unlock(&http->lock);
    weft_mask_end();
}

/* The request line, for which a client may take its time. */
static ssize_t read_first(struct connection *connection)
{
    struct http *http = connection->request.http;
    weft_timeout scope;
    ssize_t n;

    weft_mask_begin();
    if (!enter_idle(http, connection)) {
        weft_mask_end();
        return 0;
    }
    weft_mask_end();
    weft_timeout_begin(&scope, http->idle_time);
    do
        n = parse_line(connection);
    while (n == 1 && connection->used == 0); /* empty lines before a request are allowed */
    weft_timeout_end(&scope);
    leave_idle(http, connection);
    return n;
}

static void begin_request(struct connection *connection)
{
    struct http_request *request = &connection->request;

    free(request->body);
    *request = (struct http_request){.http = request->http, .stream = request->stream, .query = ""};
    http_parser_init(&connection->parser, HTTP_REQUEST);
    connection->parser.data = connection;
    connection->failure = 0;
    connection->left = 0;
    connection->complete = connection->in_value = false;
    connection->used = connection->capacity = 0;
    connection->headers = 0;
}

static int digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | (c >= 'A' ? 0x20 : 0)) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* A path with its %xx replaced. False: it is not well-formed, or has a zero byte. */
static bool decode(const char *from, char *to)
{
    for (; *from; from++) {
        int high, low;

        *to = *from;
        if (*from == '%') {
            high = digit(from[1]);
            low = high < 0 ? -1 : digit(from[2]);
            if (low < 0 || high + low == 0)
                return false;
            *to = (char)(high * 16 + low);
            from += 2;
        }
        to++;
    }
    *to = '\0';
    return true;
}

/* Make of what was parsed what a handler wants to see. */
static ssize_t finish_request(struct connection *connection)
{
    struct http_request *request = &connection->request;
    char *scheme = strstr(connection->text, "://"), *target = connection->text;

    if (target[0] != '/' && scheme) /* a target may be absolute: what counts begins at the path */
        target = strchr(scheme + 3, '/') ?: target;
    request->method = connection->parser.method;
    request->target = target;
    request->last = !http_should_keep_alive(&connection->parser);
    target = strcpy(connection->decoded, target);
    target[strcspn(target, "#")] = '\0';
    request->path = target;
    request->query = target + strcspn(target, "?");
    if (*request->query)
        *request->query++ = '\0';
    return decode(request->path, request->path) ? 1 : HTTP_STATUS_BAD_REQUEST;
}

static ssize_t read_request(struct connection *connection)
{
    ssize_t n;

    begin_request(connection);
    n = read_first(connection);
    if (n == 1)
        n = read_rest(connection);
    return n == 1 ? finish_request(connection) : n;
}

/* ---- what handlers ask ---- */

const char *http_header(const struct http_request *request, const char *name)
{
    const struct connection *connection = (const struct connection *)request; /* its first member */

    for (unsigned i = 0; i < connection->headers; i++)
        if (strcasecmp(connection->names[i], name) == 0)
            return connection->values[i];
    return NULL;
}

long http_number(const struct http_request *request, const char *name, long most)
{
    size_t length = strlen(name);

    for (const char *at = request->query; *at; at += strcspn(at, "&"), at += *at == '&')
        if (strncmp(at, name, length) == 0 && at[length] == '=') {
            char *end;
            long value = strtol(at + length + 1, &end, 10);

            return end > at + length + 1 && (*end == '&' || !*end) && value >= 0 && value <= most ? value : -EINVAL;
        }
    return 0;
}

/* ---- answering ---- */

static void write_date(char *text, size_t size, time_t when)
{
    struct tm parts;

    strftime(text, size, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&when, &parts));
}

int http_respond_head(struct http_request *request, int status, const char *type, const char *extra, int64_t length)
{
    char head[1024], date[40], size[48] = "";
    int n;

    if (atomic_load(&request->http->stopping) || length < 0)
        request->last = true;
    request->status = status;
    if (length >= 0)
        snprintf(size, sizeof size, "Content-Length: %lld\r\n", (long long)length);
    write_date(date, sizeof date, time(NULL));
    n = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n%sConnection: %s\r\n%s\r\n",
                 status, http_status_str((enum http_status)status), date, type, size,
                 request->last ? "close" : "keep-alive", extra);
    return n < (int)sizeof head ? weft_stream_write(request->stream, head, (size_t)n) : -ENOSPC;
}

int http_respond(struct http_request *request, int status, const char *type, const void *body, size_t length)
{
    int rc = weft_stream_cork(request->stream); /* head and body go out together */

    if (rc == 0)
        rc = http_respond_head(request, status, type, "", (int64_t)length);
    if (rc == 0 && request->method != HTTP_HEAD)
        rc = weft_stream_write(request->stream, body, length);
    weft_stream_uncork(request->stream);
    return rc < 0 ? rc : weft_stream_drain(request->stream);
}

int http_respond_text(struct http_request *request, int status, const char *text)
{
    return http_respond(request, status, "text/plain", text, strlen(text));
}

/* ---- a connection ---- */

/* Read on until the client has closed too: closed with bytes unread, the connection would be reset, and that can
 * overtake our answer. */
static void linger(struct connection *connection)
{
    char piece[PIECE];
    weft_timeout scope;
    ssize_t n = 1;

    weft_stream_write_eof(connection->request.stream);
    weft_timeout_begin(&scope, connection->request.http->linger_time);
    for (size_t left = LINGER_BYTES; n > 0 && left > sizeof piece; left -= (size_t)n)
        n = weft_stream_read(connection->request.stream, piece, sizeof piece);
    weft_timeout_end(&scope);
}

static void refuse(struct connection *connection, int status)
{
    struct http_request *request = &connection->request;

    request->last = true;
    request->method = HTTP_GET; /* it may not be known */
    http_respond_text(request, status, http_status_str((enum http_status)status));
    linger(connection);
}

static void log_request(const struct http_request *request)
{
    printf("%d %s %s\n", request->status, http_method_str(request->method), request->target);
}

static intptr_t converse(struct connection *connection)
{
    struct http_request *request = &connection->request;
    ssize_t n;

    do {
        n = read_request(connection);
        if (n == 1)
            n = request->http->answer(request) < 0 ? -EIO : 1;
        else if (n > 1)
            refuse(connection, (int)n);
        if (request->http->logs && request->target && request->status)
            log_request(request);
    } while (n == 1 && !request->last);
    return 0; /* whoever leaves in the middle is nobody's failure */
}

intptr_t http_serve(weft_stream *stream, weft_client *client)
{
    struct connection *connection = calloc(1, sizeof *connection);
    intptr_t rc;

    if (connection == NULL)
        return -ENOMEM;
    connection->request = (struct http_request){.http = client->arg, .stream = stream};
    weft_stream_set_limit(stream, HTTP_HEAD_MAX);
    rc = converse(connection);
    free(connection->request.body);
    free(connection);
    return rc;
}

void http_stop(struct http *http)
{
    weft_mutex_lock(&http->lock);
    atomic_store(&http->stopping, true);
    for (struct connection *connection = http->idle; connection; connection = connection->next)
        shutdown(weft_stream_fd(connection->request.stream), SHUT_RD);
    weft_mutex_unlock(&http->lock);
}
