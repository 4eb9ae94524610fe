/*
 * One client's connection: the loop of reading, parsing and answering, and the calls a handler answers with.
 */
#ifndef HTTPD_CONNECTION_H
#define HTTPD_CONNECTION_H

#include <http_parser.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "options.h"

struct server;

#define CONNECTION_IN_SIZE 8192
#define CONNECTION_OUT_SIZE 8192

/* Only a connection that is talking has these: 10 000 idle ones must not hold 20 KiB each. */
struct buffers {
    char out[CONNECTION_OUT_SIZE];
    char url[OPTIONS_URL_LIMIT + 1];
    char in[CONNECTION_IN_SIZE];
};

enum phase {
    PHASE_IDLE,   /* between requests */
    PHASE_HEADER, /* some of a request line or header has come */
    PHASE_BODY,
};

/* Owned by the connection's task; other threads look at the atomic fields only, and at fd while they know the
 * slot is in use. Aligned so that neighbours, driven by different workers, share no cache line. */
struct connection {
    _Alignas(64) http_parser parser;
    struct server *server;
    struct buffers *buffers;
    uint32_t out_length;
    uint32_t out_sent;
    uint32_t url_length;
    uint64_t body_length;
    int64_t deadline; /* for the rest of this request, 0: not set yet */
    int fd;
    uint16_t failure; /* status that a parser callback wants to end the connection with */
    uint8_t phase;
    uint8_t hosts;      /* Host headers seen */
    uint8_t name_match; /* how far the header's name agrees with "host" or "expect" */
    bool in_value;
    bool expects_continue;
    bool last;                 /* no request after this one */
    bool broken;               /* the client is gone or does not take what we send: write nothing more */
    bool refused;              /* one connection too many: only to be told so */
    _Atomic bool idle;         /* waits for the first byte of a request: may be shut down when the server stops */
    _Atomic uint64_t requests; /* answered; written by the task alone */
};

/* The task of a connection. `arg`: its struct connection, with server, fd and refused set. */
intptr_t connection_run(void *arg);

/*
 * Answer the request: status line, headers, and the body unless the method is HEAD. `extra` is more header
 * lines, each ending in CRLF. Collected with other answers; suspension point if the buffer is full.
 */
void connection_respond(struct connection *connection, int status, const char *extra, const char *body,
                        size_t length);

/* The same without the body, which the caller sends in parts with connection_send, `length` bytes in all. */
void connection_respond_head(struct connection *connection, int status, const char *type, const char *extra,
                             uint64_t length);

/* 0, or -errno if the client is gone: then stop sending. Suspension point. */
int connection_send(struct connection *connection, const char *data, size_t length);

/* Send what has been collected: before a handler waits, so that earlier answers do not wait with it. 0 or
 * -errno. Suspension point. */
int connection_flush(struct connection *connection);

/* Nothing sensible can be sent any more: close without another byte. */
void connection_abort(struct connection *connection);

#endif
