/*
 * The server: what all connections share. One struct, made by main, passed to every task.
 */
#ifndef HTTPD_SERVER_H
#define HTTPD_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <weft.h>

#include "date.h"
#include "options.h"

struct connection;

/* Counters of rare things, bumped where they happen. What happens once a request is counted in the connection
 * instead, so that workers do not share a cache line for it. */
struct totals {
    _Atomic uint64_t accepted;
    _Atomic uint64_t requests; /* of connections that have ended */
    _Atomic uint64_t refused_connections;
    _Atomic uint64_t refused_pool;
    _Atomic uint64_t bad_requests;
    _Atomic uint64_t timed_out;
    _Atomic uint64_t accept_pauses;
};

struct server {
    struct options options;
    int listener;
    int signals; /* signalfd for SIGTERM and SIGINT */
    struct date date;
    weft_event busy; /* set while there are connections: the date is only kept then */

    struct connection *connections; /* `slots` of them */
    unsigned slots;
    pthread_mutex_t lock; /* guards the next three and each connection's fd; never held across a wait */
    unsigned *vacant;     /* indexes of unused connections, last freed first reused */
    unsigned vacant_count;
    unsigned used; /* under the lock too: connections[0 … used) have been in use at some time */

    _Atomic unsigned open;
    _Atomic bool stopping;
    struct totals totals;
};

/* Listen, make room for the connections. 0 or -errno, with a message on stderr. Main thread,
 * before the runtime starts. The process's soft limit of descriptors is raised to the hard one. */
int server_init(struct server *server, const struct options *options);

void server_term(struct server *server);

/* The main task: serve until a signal comes or the lifetime is over, then let requests in flight end. */
intptr_t server_main(void *server);

/* Give the slot of a closed connection back. Called by its task, as the last thing it does with it. */
void server_release(struct server *server, struct connection *connection);

/* Requests answered so far, open connections included. Any thread. */
uint64_t server_requests(struct server *server);

static inline void server_count(_Atomic uint64_t *counter)
{
    /* relaxed: a statistic, nothing is published through it */
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
