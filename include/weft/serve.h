/*
 * Servers: accept connections and call a function for each, in a task of its own.
 *
 *     static intptr_t echo(weft_client *client)
 *     {
 *         char buffer[4096];
 *         ssize_t n = weft_read(client->fd, buffer, sizeof buffer);
 *
 *         if (n > 0)
 *             n = weft_write_all(client->fd, buffer, (size_t)n);
 *         return n > 0 ? WEFT_CALL_AGAIN : n;
 *     }
 *
 *     weft_serve(&server, weft_listen(NULL, 7, 0), echo, NULL, NULL);
 *
 * A handler may keep its connection for as long as it likes, or return WEFT_CALL_AGAIN: "call me again when there is
 * something to read". A connection that waits like this has no stack; it costs some 300 bytes.
 */
#ifndef WEFT_SERVE_H
#define WEFT_SERVE_H

#include <weft/base.h>
#include <weft/stream.h>

WEFT_BEGIN_DECLS

typedef struct weft_server weft_server;

/* A connection, for its handler. */
typedef struct weft_client {
    int fd;              /* the server closes it when the handler has returned for good; -1: it is a stream's */
    weft_server *server; /* whose it is */
    void *arg;           /* as given to weft_serve */
    void *data;          /* the handler's own, from one call to the next; NULL at first */
} weft_client;

/*
 * Serve a connection. WEFT_CALL_AGAIN: keep the connection, and call again when there is something to read (or the
 * peer has closed it); whatever else is returned ends it. A result in [-4095, -1] is a failure of this connection.
 */
typedef intptr_t weft_client_fn(weft_client *client);

#define WEFT_CALL_AGAIN (INTPTR_MIN + 1)

enum {
    /* The first call too waits until there is something to read: for protocols in which the client speaks first. */
    WEFT_SERVE_ON_DATA = 1u << 0,
    /*
     * A listening socket and an accepting task for each worker; the given one must have SO_REUSEPORT
     * (WEFT_SOCKET_REUSEPORT). Without it one task accepts for all and the workers share the connections: that is
     * what to use unless a measurement says otherwise, since the kernel deals connections out blindly, and those that
     * are waiting in the queue of a worker's socket are reset when it is closed.
     */
    WEFT_SERVE_PER_WORKER = 1u << 1
};

/* Zeroed (or WEFT_SERVE_DEFAULT) means the defaults. */
typedef struct weft_serve_options {
    uint32_t flags;       /* WEFT_SERVE_* */
    uint32_t clients_max; /* connections at a time; more wait to be accepted. 0: no limit */
    /* ns for which a connection that is to be called again keeps its stack, in case its peer goes on at once; it may
     * be twice as long. 0: 10 ms; negative: not at all. At most 128 connections of a server do so at a time. */
    int64_t linger;
    int64_t idle_timeout; /* ns after which a connection that waits to be called again is closed; 0: never */
    int64_t call_timeout; /* ns for one call of the handler: a deadline, as by weft_timeout_begin; 0: none */
    size_t stack_size;    /* bytes for a handler; 0: WEFT_STACK_SIZE */
    /* A connection is about to be closed: for what the handler left in `data`. `result`: what the handler returned,
     * -ETIMEDOUT after the idle time-out, -ECANCELED if it was cancelled while it waited. Must not suspend. NULL: a
     * failure goes to the runtime's on_unseen_failure. */
    void (*closed)(weft_client *client, intptr_t result);
    /* Accepting pauses because of `error` (-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM), or goes on (0). Must not suspend.
     * NULL: a pause is told to the runtime's on_unseen_failure. */
    void (*paused)(weft_server *server, int error, void *arg);
} weft_serve_options;

#define WEFT_SERVE_DEFAULT     \
    {                          \
        0, 0, 0, 0, 0, 0, 0, 0 \
    }

/*
 * Accept connections of a listening socket and call `handler` for each in a task of its own, concurrently. The socket
 * is the server's from here on, also if this fails; a negative one is returned as the error that it is. NULL options
 * are the defaults. 0 with *server, or -ENOMEM, -EINVAL, -EPERM outside a task, -errno of what could not be opened.
 * Every server is to be freed, before its runtime stops. Task; not a suspension point.
 *
 * When the process or the system has no more descriptors, accepting pauses until a connection is closed, or for 100
 * ms at a time.
 */
WEFT_API int weft_serve(weft_server **server, int listener, weft_client_fn *handler, void *arg,
                        const weft_serve_options *options);

/*
 * Serve a connection as a stream. When it returns, what is buffered is sent, unless the task was cancelled, and the
 * stream is closed (which the handler may also have done itself) and freed. The result: as of weft_client_fn, but
 * WEFT_CALL_AGAIN is -EINVAL.
 */
typedef intptr_t weft_stream_client_fn(weft_stream *stream, weft_client *client);

/* As weft_serve, but the handler is given a stream. */
WEFT_API int weft_serve_streams(weft_server **server, int listener, weft_stream_client_fn *handler, void *arg,
                                const weft_serve_options *options);

/*
 * Stop accepting, close connections that wait to be called again and have nothing to read, and the others once their
 * handler returns; one that lingers (see `linger`) when that is over. Any thread; not a suspension point.
 */
WEFT_API void weft_server_close(weft_server *server);

/*
 * Wait until the server was closed and the last connection has ended. 0; -errno of what ended accepting, if it was
 * not weft_server_close; -ECANCELED, -ETIMEDOUT. Any thread; suspension point.
 */
WEFT_API int weft_server_wait_closed(weft_server *server);

/* Cancel the tasks of all connections there are now. Any thread; not a suspension point. */
WEFT_API void weft_server_close_clients(weft_server *server);

/* The same, and the connections are reset: what they have not sent yet is dropped. Any thread; not a suspension
 * point. */
WEFT_API void weft_server_abort_clients(weft_server *server);

/*
 * Close the server, cancel its connections, wait for them (neither cancellation nor a deadline interrupts that), and
 * free it. NULL is allowed. Any thread, but not in a handler of the server; suspension point. In a stackless task it
 * returns at once, and a task of its own does the rest.
 */
WEFT_API void weft_server_free(weft_server *server);

/* The port it listens on, also after it was closed, or -EAFNOSUPPORT. Any thread; not a suspension point. */
WEFT_API int weft_server_port(const weft_server *server);

typedef struct weft_server_stats {
    uint64_t accepted; /* connections since the start */
    uint64_t pauses;   /* times accepting had to pause for lack of descriptors or memory */
    size_t clients;    /* connections now … */
    size_t idle;       /* … of these, waiting to be called again without a stack */
} weft_server_stats;

/* Any thread; not a suspension point. */
WEFT_API void weft_server_look(weft_server *server, weft_server_stats *stats);

WEFT_END_DECLS

#endif
