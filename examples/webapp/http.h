/*
 * HTTP/1.1 over a stream: requests are read whole, within limits of size and time, and answered by a function.
 */
#ifndef WEBAPP_HTTP_H
#define WEBAPP_HTTP_H

#include <http_parser.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <weft.h>

enum {
    HTTP_HEAD_MAX = 8192, /* bytes of request line and headers */
    HTTP_HEADERS_MAX = 64
};

struct http_request {
    struct http *http;
    weft_stream *stream;
    unsigned method;    /* HTTP_GET… */
    const char *target; /* as it came: path?query */
    char *path;         /* decoded, without the query */
    char *query;
    char *body;
    size_t length; /* of the body, which has a zero byte behind it */
    int status;    /* what it was answered with; 0: not yet */
    bool last;     /* the connection ends after it */
};

/* What all connections share. */
struct http {
    intptr_t (*answer)(struct http_request *request);
    void *app;
    size_t body_max;
    int64_t idle_time;    /* ns a connection may wait for its next request, the request line included */
    int64_t receive_time; /* ns for the rest of a request: headers that trickle in are cut off (408) */
    int64_t linger_time;  /* ns for which an unwanted request is read on, so that its answer arrives */
    bool logs;            /* a line for each request on stdout */

    weft_mutex lock; /* guards the list of connections that wait for a request */
    struct connection *idle;
    _Atomic bool stopping;
};

/* A handler for weft_serve_streams, whose argument is a struct http. */
intptr_t http_serve(weft_stream *stream, weft_client *client);

/* Connections that wait for a request end now, others after the one they are at. Task; suspension point. */
void http_stop(struct http *http);

/* The value of a header, or NULL. */
const char *http_header(const struct http_request *request, const char *name);

/* The whole number (0 if it is not there) that a parameter of the query has, or -EINVAL. */
long http_number(const struct http_request *request, const char *name, long most);

/*
 * Answer: with a body (left out for HEAD); with a text; with a head that is followed by `length` bytes which the caller
 * sends, or, if that is negative, by everything until the connection is closed. `extra`: more header lines, each with
 * its end. 0, or an error: the client is gone. Suspension points.
 */
int http_respond(struct http_request *request, int status, const char *type, const void *body, size_t length);
int http_respond_text(struct http_request *request, int status, const char *text);
int http_respond_head(struct http_request *request, int status, const char *type, const char *extra,
                      int64_t length);

#endif
