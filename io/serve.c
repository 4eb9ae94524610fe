/*
 * Servers (serve.h). Tasks that accept, and two kinds of tasks for a connection.
 *
 * An attendant, stackless, is there as long as its connection. It waits for the descriptor while the connection is to
 * be called again, and for the other task while that runs: the call, with a stack, in which the handler runs. When
 * the handler asks to be called again, its call waits for `linger` before it gives its stack back: a connection that
 * is busy is served by one task that parks and is woken, as if the handler had waited itself.
 *
 * Whoever wants to end a connection cancels its attendant, which passes that on to the call. So a connection has one
 * handle for others to use, the attendant's. It is valid as long as the connection is in one of the server's lists;
 * the attendant takes the connection out before it lets go of the handle, and cancels come under the same lock.
 *
 * The lists, under the lock: `idle`, those whose attendant waits for the descriptor, the longest-waiting first;
 * `busy`, the others; `leaving`, those that were cancelled. A connection whose attendant has not had its first turn is in
 * none; it remembers how often all were ended before it came, and if that has happened again, it ends itself.
 *
 * The server is over when it is closing, no acceptor is left and no connection: whoever makes that true, under the
 * lock, sets the event, which is the last that is done to the server by its own tasks. weft_server_free waits for it.
 *
 * One task accepts for all workers unless WEFT_SERVE_PER_WORKER is set. Measured on two processors with two workers,
 * the clients on the same machine: connections that are opened, used once and reset, 14.4 thousand a second at 33 us
 * of CPU each, against 10.4 thousand at 44 us with a socket and a pinned acceptor for each worker; echo over 64
 * connections 6.4 to 8.5 us of CPU for each message, against 8.1 to 8.2. (A handler that waits itself: 6.8 to 7.3.)
 * With one worker all three are the same. 12 000 connections that wait to be called again take 297 bytes each, those
 * of the allocator and of the table of descriptors included; with a handler that waits itself 8614.
 *
 * A task that is cancelled before it has started never runs. An attendant runs at least once all the same
 * (weft__spawn_stackless_always). An acceptor and weft_server_close both write to the acceptor's `state`; if the
 * close comes first it does what the acceptor would have done at its end.
 */
#include <weft/serve.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <weft/net.h>
#include <weft/scope.h>
#include <weft/stackless.h>
#include <weft/stream.h>
#include <weft/sync.h>
#include <weft/task.h>

#include "io/attempt.h"
#include "runtime/clock.h"
#include "runtime/lock.h"
#include "runtime/runtime.h"
#include "runtime/waitable.h"

#define LINGER WEFT_MS(10)
#define PAUSE WEFT_MS(100)

enum {
    ACCEPTS_IN_A_ROW = 16, /* a burst of arrivals must not keep the worker from the connections that are there */
    /*
     * Under the lock, since only there the handle of an attendant is known to be valid, and its reason and its being
     * cancelled must be one. A cancel takes some 100 ns, or as long as it takes to wake a worker that sleeps (one
     * write to an eventfd), and an abort one setsockopt(2); nothing of the program's runs in it, and no other lock is
     * waited for that is held while this one is. So the lock is held for some 10 us at most.
     */
    CANCELS_IN_A_ROW = 8,
    /* Connections that keep their stack for a while, of all that were just served: half a MiB of stacks. */
    LINGERING_MOST = 128
};

enum place { IDLE, BUSY, LEAVING, PLACES };

enum { EVICTED = 1, EXPIRED = 2, ENDED = 4, RESET = 8 }; /* why, and how, an attendant was cancelled */

struct client {
    weft_client public;
    struct client *next, *prev;
    weft_task *attendant;
    weft_task *call;
    intptr_t result; /* of the call */
    int64_t since;   /* when it became idle */
    weft_frame frame;
    uint16_t endings; /* the server's when it was accepted */
    uint8_t place;
    uint8_t reasons;
};
_Static_assert(sizeof(struct client) <= 88, "an idle connection takes a chunk of 96 bytes");

struct list {
    struct client *first, *last;
};

enum { NEW, STARTED, NEVER };

struct acceptor {
    weft_server *server;
    weft_task *task;
    int listener;
    _Atomic uint32_t state;
};

struct weft_server {
    /* Constant. */
    weft_serve_options options;
    weft_client_fn *handler;
    weft_stream_client_fn *stream_handler; /* of weft_serve_streams; `handler` is serve_stream then */
    void *arg;
    weft_runtime *runtime;
    weft_task *reaper;
    int port;
    unsigned acceptor_count;

    weft_event started; /* all of the above is there: acceptors begin */
    weft_event over;
    weft_notify room;           /* for acceptors: a connection has ended */
    weft_notify idle;           /* for the reaper: there is a first idle connection */
    _Atomic uint32_t starved;   /* acceptors that pause */
    _Atomic uint32_t lingering; /* connections */
    _Atomic bool closing;       /* written under the lock */

    weft__lock lock __attribute__((aligned(64)));
    /* Under the lock. */
    unsigned acceptors;  /* that have not ended, and others who need the server a moment longer */
    int error;           /* what ended one that was not told to */
    uint16_t endings;    /* times that all connections were ended */
    uint16_t last_reset; /* that of the last time they were reset */
    size_t clients;
    size_t idle_count;
    size_t leaving_count;
    uint64_t accepted;
    uint64_t pauses;
    struct list lists[PLACES];

    struct acceptor acceptor[];
};

/* ---- lists, with the lock ---- */

static void take_out(weft_server *server, struct client *client)
{
    struct list *list = &server->lists[client->place];

    *(client->prev ? &client->prev->next : &list->first) = client->next;
    *(client->next ? &client->next->prev : &list->last) = client->prev;
    server->idle_count -= client->place == IDLE;
    server->leaving_count -= client->place == LEAVING;
}

static void put_in(weft_server *server, struct client *client, enum place place)
{
    struct list *list = &server->lists[place];

    client->place = (uint8_t)place;
    client->next = NULL;
    client->prev = list->last;
    *(list->last ? &list->last->next : &list->first) = client;
    list->last = client;
    server->idle_count += place == IDLE;
    server->leaving_count += place == LEAVING;
}

static void move_to(weft_server *server, struct client *client, enum place place)
{
    take_out(server, client);
    put_in(server, client, place);
}

/* ---- the end of the server ---- */

static bool is_over(const weft_server *server)
{
    return atomic_load_explicit(&server->closing, memory_order_relaxed) && server->acceptors == 0 &&
           server->clients == 0;
}

/* An acceptor, or who counted as one, has ended. The server may be gone when this returns. */
static void end_helper(weft_server *server, int error)
{
    bool over;

    weft__lock_enter(&server->lock);
    server->acceptors--;
    if (error < 0 && server->error == 0 && !atomic_load_explicit(&server->closing, memory_order_relaxed))
        server->error = error;
    over = is_over(server);
    weft__lock_leave(&server->lock);
    if (over)
        weft_event_set(&server->over);
}

/*
 * The same for a connection, of which nothing is left. Acceptors wait for the room that it leaves when there is a
 * limit, and when there were no descriptors; a pause for lack of descriptors that begins at this very moment ends by
 * itself. Meanwhile it counts as a helper, so that the server stays.
 */
static void end_client(weft_server *server)
{
    weft__lock_enter(&server->lock);
    server->clients--;
    server->acceptors++;
    weft__lock_leave(&server->lock);
    if (server->options.clients_max > 0 || atomic_load_explicit(&server->starved, memory_order_relaxed) > 0)
        weft_notify_one(&server->room);
    end_helper(server, 0);
}

/* ---- the call ---- */

static intptr_t call_handler(struct client *client)
{
    int64_t limit = client->public.server->options.call_timeout;
    weft_timeout scope;
    intptr_t rc;

    if (limit <= 0)
        return client->public.server->handler(&client->public);
    weft_timeout_begin(&scope, limit);
    rc = client->public.server->handler(&client->public);
    weft_timeout_end(&scope);
    return rc;
}

/* One linger from now to two: connections wait for the same moments, so one wake-up sees to all that are over. */
static int64_t linger_until(int64_t linger)
{
    int64_t least = weft__clock_after(linger);

    return least > INT64_MAX - linger ? INT64_MAX : least - least % linger + linger;
}

/* The peer goes on before the stack is given back. */
static bool lingers(const struct client *client)
{
    weft_server *server = client->public.server;
    int64_t linger = server->options.linger;
    bool goes_on = false;

    /* relaxed: one that is missed is seen by the attendant */
    if (linger < 0 || atomic_load_explicit(&server->closing, memory_order_relaxed))
        return false;
    /* relaxed: only a count */
    if (atomic_fetch_add_explicit(&server->lingering, 1, memory_order_relaxed) < LINGERING_MOST)
        goes_on = weft__fd_readable(client->public.fd, linger_until(linger)) == 0;
    atomic_fetch_sub_explicit(&server->lingering, 1, memory_order_relaxed);
    return goes_on;
}

static intptr_t run_call(void *arg)
{
    struct client *client = arg;
    intptr_t rc;

    do
        rc = call_handler(client);
    while (rc == WEFT_CALL_AGAIN && lingers(client));
    return rc;
}

/*
 * The descriptor becomes the stream's, which may close it at any time: from here on the server must not touch the number,
 * which may be another connection's by then.
 */
static int open_stream(struct client *client, weft_stream **stream)
{
    weft_server *server = client->public.server;
    int rc = weft_stream_open(client->public.fd, stream);

    if (rc < 0)
        return rc;
    weft__lock_enter(&server->lock);
    client->public.fd = -1;
    weft__lock_leave(&server->lock);
    return 0;
}

static bool is_to_be_reset(struct client *client)
{
    weft_server *server = client->public.server;
    bool reset;

    weft__lock_enter(&server->lock);
    reset = client->reasons & RESET;
    weft__lock_leave(&server->lock);
    return reset;
}

/* The handler of weft_serve_streams' servers. */
static intptr_t serve_stream(weft_client *public)
{
    struct client *client = (struct client *)public; /* its first member */
    weft_stream *stream;
    intptr_t rc = open_stream(client, &stream);

    if (rc < 0)
        return rc;
    rc = public->server->stream_handler(stream, public);
    if (is_to_be_reset(client)) {
        weft_set_abort(weft_stream_fd(stream));
        weft_stream_abort(stream);
    } else {
        weft_stream_close(stream);
    }
    weft_stream_free(stream);
    return rc == WEFT_CALL_AGAIN ? -EINVAL : rc;
}

static weft_task *spawn_call(struct client *client)
{
    size_t stack_size = client->public.server->options.stack_size;
    weft_spawn_options options = {.stack_size = stack_size};

    return stack_size ? weft_spawn_with(&options, run_call, client) : weft_spawn(run_call, client);
}

/* ---- the attendant ---- */

/* With the lock. A stream's descriptor is reset by serve_stream, which is about to hear of the cancellation. */
static void reset(struct client *client)
{
    client->reasons |= RESET;
    if (client->public.fd >= 0)
        weft_set_abort(client->public.fd);
}

/* False: all connections were ended after this one was accepted, and before it was in a list where that could be seen. */
static void enter_server(struct client *client)
{
    weft_server *server = client->public.server;
    bool ends, resets;

    weft__lock_enter(&server->lock);
    client->attendant = weft_self();
    ends = client->endings != server->endings;
    resets = ends && (int16_t)(uint16_t)(server->last_reset - client->endings) > 0;
    put_in(server, client, ends ? LEAVING : BUSY);
    client->reasons |= ends ? ENDED : 0;
    if (resets)
        reset(client);
    weft__lock_leave(&server->lock);
    if (ends)
        weft_cancel(client->attendant);
}

/* False: there is to be no waiting any more. */
static bool begin_to_idle(struct client *client)
{
    weft_server *server = client->public.server;
    bool may, first = false;

    if (server->reaper)
        client->since = weft__clock_now();
    weft__lock_enter(&server->lock);
    may = !atomic_load_explicit(&server->closing, memory_order_relaxed);
    if (may && client->place == BUSY) { /* else it is leaving, which the wait will notice */
        first = server->lists[IDLE].first == NULL;
        move_to(server, client, IDLE);
    }
    weft__lock_leave(&server->lock);
    if (first && server->reaper)
        weft_notify_one(&server->idle);
    return may;
}

/* It waits no more, because of `rc`. 0: call the handler. */
static intptr_t end_idling(struct client *client, intptr_t rc)
{
    weft_server *server = client->public.server;
    uint8_t reasons;

    weft__lock_enter(&server->lock);
    reasons = client->reasons;
    if (reasons == EVICTED)
        weft_uncancel(); /* the server was closed: what has come already is served */
    if (!(reasons & ~EVICTED) && client->place != BUSY)
        move_to(server, client, BUSY);
    weft__lock_leave(&server->lock);
    if (reasons & ENDED)
        return -ECANCELED;
    if (reasons & EXPIRED)
        return -ETIMEDOUT;
    if (reasons == EVICTED && rc < 0)
        return weft__fd_look(client->public.fd, POLLIN) > 0 ? 0 : -ECANCELED;
    return rc;
}

/* A handler's failure, or the server's in serving it. */
static void tell_end(struct client *client, intptr_t result)
{
    weft_server *server = client->public.server;

    if (server->options.closed)
        server->options.closed(&client->public, result);
    else if (weft_is_error(result) && result != -ECANCELED)
        weft__runtime_report_named(server->runtime, "a client of weft_serve", result);
}

static void leave_server(struct client *client, intptr_t result)
{
    weft_server *server = client->public.server;
    int fd = client->public.fd;

    weft__lock_enter(&server->lock);
    take_out(server, client);
    weft__lock_leave(&server->lock);
    tell_end(client, result);
    if (fd >= 0)
        weft_close(fd);
    weft_detach(client->attendant);
    free(client);
    end_client(server);
}

static intptr_t attend(void *arg)
{
    struct client *client = arg;
    intptr_t rc;

    WEFT_BEGIN(client);
    enter_server(client);
    client->result = WEFT_CALL_AGAIN;
    if (!(client->public.server->options.flags & WEFT_SERVE_ON_DATA))
        goto call;
    while (client->result == WEFT_CALL_AGAIN) {
        if (!begin_to_idle(client)) {
            client->result = -ECANCELED;
            break;
        }
        WEFT_AWAIT(client, rc, weft__async_fd_readable(client->public.fd));
        rc = end_idling(client, rc);
        if (rc < 0) {
            client->result = rc;
            break;
        }
    call:
        client->call = spawn_call(client);
        if (!client->call) {
            client->result = -ENOMEM;
            break;
        }
        WEFT_AWAIT(client, rc, weft_async_await(client->call, &client->result));
        if (rc < 0 && client->result == WEFT_CALL_AGAIN)
            client->result = rc;
    }
    leave_server(client, client->result);
    WEFT_DONE(0);
}

static bool is_full_locked(const weft_server *server)
{
    return server->options.clients_max > 0 && server->clients >= server->options.clients_max;
}

static bool is_full(weft_server *server)
{
    bool full;

    weft__lock_enter(&server->lock);
    full = is_full_locked(server);
    weft__lock_leave(&server->lock);
    return full;
}

/* Until a connection ends, or a little. 0, -ECANCELED. */
static int wait_for_room(weft_server *server, int64_t limit)
{
    weft_timeout scope;
    int rc;

    weft_timeout_begin(&scope, limit);
    rc = weft_notify_wait(&server->room);
    return weft_timeout_end(&scope) == 1 && rc == -ETIMEDOUT ? 0 : rc;
}

/* The same until there is room. With several acceptors others may wait for it too, one with a connection that it has
 * accepted, while this one goes on to wait for one: so whoever finds room passes the word on. */
static int wait_while_full(weft_server *server)
{
    bool waited = false;
    int rc = 0;

    while (rc == 0 && is_full(server)) {
        rc = wait_for_room(server, WEFT_FOREVER);
        waited = true;
    }
    if (waited && server->acceptor_count > 1)
        weft_notify_one(&server->room);
    return rc;
}

/* 0; -ECANCELED: the server was closed while it was accepted, and those that are to be ended may have been already;
 * -EAGAIN: several were accepted at once, and this one is too many. */
static int try_to_count(struct client *client)
{
    weft_server *server = client->public.server;
    int rc = 0;

    weft__lock_enter(&server->lock);
    if (atomic_load_explicit(&server->closing, memory_order_relaxed))
        rc = -ECANCELED;
    else if (is_full_locked(server))
        rc = -EAGAIN;
    server->clients += rc == 0;
    server->accepted += rc == 0;
    client->endings = server->endings;
    weft__lock_leave(&server->lock);
    return rc;
}

static int count_client(struct client *client)
{
    int rc = try_to_count(client);

    while (rc == -EAGAIN) {
        rc = wait_while_full(client->public.server);
        if (rc == 0)
            rc = try_to_count(client);
    }
    return rc;
}

/* 0; on an error the descriptor is closed. */
static int start_client(weft_server *server, int fd)
{
    struct client *client = calloc(1, sizeof *client);
    int rc = -ENOMEM;

    if (client) {
        client->public = (weft_client){.fd = fd, .server = server, .arg = server->arg};
        rc = count_client(client);
        if (rc == 0) {
            if (weft__spawn_stackless_always(attend, client))
                return 0; /* the handle is the attendant's own */
            rc = -ENOMEM;
            weft__lock_enter(&server->lock);
            server->clients--;
            server->accepted--;
            weft__lock_leave(&server->lock);
        }
        free(client);
    }
    weft_close(fd);
    return rc;
}

/* ---- accepting ---- */

static bool is_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

static void tell_pause(weft_server *server, int error)
{
    if (server->options.paused)
        server->options.paused(server, error, server->arg);
    else if (error < 0)
        weft__runtime_report_named(server->runtime, "accepting of weft_serve", error);
}

/* There are no descriptors. *paused: this has been told already. */
static int pause(weft_server *server, int error, bool *paused)
{
    int rc;

    if (!*paused) {
        *paused = true;
        weft__lock_enter(&server->lock);
        server->pauses++;
        weft__lock_leave(&server->lock);
        tell_pause(server, error);
    }
    /* relaxed: see end_client */
    atomic_fetch_add_explicit(&server->starved, 1, memory_order_relaxed);
    rc = wait_for_room(server, PAUSE);
    atomic_fetch_sub_explicit(&server->starved, 1, memory_order_relaxed);
    return rc == -ENOMEM ? weft_yield() : rc; /* not even for the deadline: try again all the same */
}

/* 0: go on. */
static int accept_one(struct acceptor *acceptor, bool *paused)
{
    weft_server *server = acceptor->server;
    int fd, rc = wait_while_full(server);

    if (rc < 0)
        return rc;
    fd = weft_accept(acceptor->listener, NULL, NULL);
    rc = fd >= 0 ? start_client(server, fd) : fd;
    if (is_shortage(rc))
        return pause(server, rc, paused);
    if (rc == 0 && *paused) {
        *paused = false;
        tell_pause(server, 0);
    }
    return rc == -EPERM ? 0 : rc; /* a firewall's refusal */
}

/* It is closed by the acceptor itself: nobody else can tell that it is not about to use the number. */
static void end_acceptor(struct acceptor *acceptor, int error)
{
    weft_server *server = acceptor->server;

    weft_close(acceptor->listener);
    if (error < 0 && error != -ECANCELED)
        weft__runtime_report_named(server->runtime, "accepting of weft_serve", error);
    end_helper(server, error);
}

static intptr_t accept_clients(void *arg)
{
    struct acceptor *acceptor = arg;
    weft_server *server = acceptor->server;
    bool paused = false;
    int rc;

    /* acquire, release: pairs with the same in stop_acceptor */
    if (atomic_exchange_explicit(&acceptor->state, STARTED, memory_order_acq_rel) == NEVER)
        return 0;
    rc = weft_event_wait(&server->started);
    for (unsigned accepted = 1; rc == 0; accepted++) {
        rc = accept_one(acceptor, &paused);
        if (rc == 0 && accepted % ACCEPTS_IN_A_ROW == 0)
            rc = weft_yield();
    }
    end_acceptor(acceptor, rc);
    return 0;
}

static void stop_acceptor(struct acceptor *acceptor)
{
    weft_cancel(acceptor->task);
    if (atomic_load_explicit(&acceptor->state, memory_order_acquire) == NEW &&
        atomic_exchange_explicit(&acceptor->state, NEVER, memory_order_acq_rel) == NEW)
        end_acceptor(acceptor, 0);
}

/* ---- ending connections ---- */

/* Cancel the first of a list that should be (`until`: idle since then). With the lock. False: there is none. */
static bool cancel_first(weft_server *server, enum place place, uint8_t reason, int64_t until, bool resets)
{
    struct client *client = server->lists[place].first;

    if (!client || (reason == EXPIRED && client->since > until))
        return false;
    client->reasons |= reason;
    if (resets)
        reset(client);
    move_to(server, client, LEAVING);
    weft_cancel(client->attendant);
    return true;
}

static void cancel_all(weft_server *server, enum place place, uint8_t reason, int64_t until, bool resets)
{
    bool more = true;

    while (more) {
        weft__lock_enter(&server->lock);
        for (int i = 0; i < CANCELS_IN_A_ROW && more; i++)
            more = cancel_first(server, place, reason, until, resets);
        weft__lock_leave(&server->lock);
    }
}

/* The first that is leaving, which goes to the end of the list: for good, now. With the lock. */
static void end_first_leaving(weft_server *server, bool resets)
{
    struct client *client = server->lists[LEAVING].first;

    if (!client)
        return;
    move_to(server, client, LEAVING);
    if (!(client->reasons & ENDED) || resets) {
        client->reasons |= ENDED;
        if (resets)
            reset(client);
        weft_cancel(client->attendant);
    }
}

/* Once around the list: those that come meanwhile come to its end. */
static void end_leaving(weft_server *server, bool resets)
{
    size_t left = SIZE_MAX;

    while (left > 0) {
        weft__lock_enter(&server->lock);
        if (left > server->leaving_count)
            left = server->leaving_count;
        for (int i = 0; i < CANCELS_IN_A_ROW && left > 0; i++, left--)
            end_first_leaving(server, resets);
        weft__lock_leave(&server->lock);
    }
}

/* Those that are leaving because they were idle, and come back to serve what has come, are cancelled for good. */
static void end_clients(weft_server *server, bool resets)
{
    weft__lock_enter(&server->lock);
    server->endings++;
    if (resets)
        server->last_reset = server->endings;
    weft__lock_leave(&server->lock);
    end_leaving(server, resets);
    cancel_all(server, IDLE, ENDED, 0, resets);
    cancel_all(server, BUSY, ENDED, 0, resets);
}

/* When the first idle connection expires; WEFT_FOREVER: there is none. */
static int64_t next_expiry(weft_server *server)
{
    int64_t when = WEFT_FOREVER;

    weft__lock_enter(&server->lock);
    if (server->lists[IDLE].first)
        when = server->lists[IDLE].first->since;
    weft__lock_leave(&server->lock);
    return when < WEFT_FOREVER - server->options.idle_timeout ? when + server->options.idle_timeout : WEFT_FOREVER;
}

static intptr_t reap(void *arg)
{
    weft_server *server = arg;
    int rc = 0;

    while (rc == 0) {
        int64_t when = next_expiry(server);

        rc = when == WEFT_FOREVER ? weft_notify_wait(&server->idle) : weft_sleep_until(when);
        if (rc == -ENOMEM) /* for the deadline */
            rc = weft_yield();
        if (rc == 0)
            cancel_all(server, IDLE, EXPIRED, weft__clock_now() - server->options.idle_timeout, false);
    }
    return 0;
}

/* ---- starting ---- */

static bool has_option(int fd, int level, int option)
{
    int on = 0;
    socklen_t length = sizeof on;

    return getsockopt(fd, level, option, &on, &length) == 0 && on;
}

/* Another socket that listens where this one does, and has its options, which connections inherit. */
static int open_sibling(int listener)
{
    weft_address address;
    int rc = weft_local_address(listener, &address);
    uint32_t flags = WEFT_SOCKET_REUSEPORT;

    if (rc < 0)
        return rc;
    if (!has_option(listener, SOL_SOCKET, SO_REUSEPORT))
        return -EINVAL;
    if (address.to.any.sa_family == AF_INET6 && has_option(listener, IPPROTO_IPV6, IPV6_V6ONLY))
        flags |= WEFT_SOCKET_V6ONLY;
    if (!has_option(listener, IPPROTO_TCP, TCP_NODELAY))
        flags |= WEFT_SOCKET_DELAY;
    if (!has_option(listener, SOL_SOCKET, SO_KEEPALIVE))
        flags |= WEFT_SOCKET_NO_KEEPALIVE;
    if (has_option(listener, IPPROTO_IP, IP_FREEBIND))
        flags |= WEFT_SOCKET_FREEBIND;
    return weft_listen_on(&address, 0, flags);
}

/* One listener for each acceptor. On an error the given one is the caller's still. */
static int open_listeners(weft_server *server, int listener)
{
    int rc = 0;

    server->acceptor[0].listener = listener;
    for (unsigned i = 1; i < server->acceptor_count && rc >= 0; i++) {
        rc = open_sibling(listener);
        server->acceptor[i].listener = rc;
        if (rc < 0)
            while (--i > 0)
                weft_close(server->acceptor[i].listener);
        if (rc < 0)
            break;
    }
    return rc < 0 ? rc : 0;
}

static weft_task *spawn_acceptor(weft_server *server, unsigned i)
{
    weft_spawn_options options = {.name = "weft_serve"};

    if (server->options.flags & WEFT_SERVE_PER_WORKER) {
        options.flags = WEFT_SPAWN_PINNED;
        options.worker = i + 1;
    }
    return weft_spawn_with(&options, accept_clients, &server->acceptor[i]);
}

/*
 * Nothing is accepted before all tasks are there and known: a handler may close the server at once. On an error those
 * that were spawned are stopped by weft_server_free; the others' sockets are closed.
 */
static int start_tasks(weft_server *server)
{
    unsigned i;

    for (i = 0; i < server->acceptor_count; i++) {
        server->acceptor[i].server = server;
        server->acceptor[i].task = spawn_acceptor(server, i);
        if (!server->acceptor[i].task)
            break;
    }
    if (i == server->acceptor_count && server->options.idle_timeout > 0)
        server->reaper = weft_spawn(reap, server);
    for (unsigned j = i; j < server->acceptor_count; j++)
        weft_close(server->acceptor[j].listener);
    if (i == server->acceptor_count && (server->reaper || server->options.idle_timeout <= 0)) {
        weft_event_set(&server->started);
        return 0;
    }
    weft__lock_enter(&server->lock);
    server->acceptors -= server->acceptor_count - i;
    weft__lock_leave(&server->lock);
    server->acceptor_count = i;
    return -ENOMEM;
}

static weft_server *new_server(const weft_serve_options *options)
{
    weft_runtime *runtime = weft_runtime_current();
    unsigned acceptors = options && (options->flags & WEFT_SERVE_PER_WORKER) ? weft_runtime_workers(runtime) : 1;
    size_t size = (sizeof(weft_server) + acceptors * sizeof(struct acceptor) + 63) / 64 * 64;
    weft_server *server = aligned_alloc(64, size);

    if (!server)
        return NULL;
    memset(server, 0, size);
    if (options)
        server->options = *options;
    if (server->options.linger == 0)
        server->options.linger = LINGER;
    server->runtime = runtime;
    server->acceptor_count = server->acceptors = acceptors;
    return server;
}

/* The handlers, and what they are for. */
struct service {
    weft_client_fn *handler;
    weft_stream_client_fn *stream_handler;
    void *arg;
    const weft_serve_options *options;
};

static int start_server(weft_server **server, int listener, const struct service *service)
{
    weft_server *made;
    int rc;

    if (!weft_self())
        return weft__misused("weft_serve");
    made = new_server(service->options);
    if (!made)
        return -ENOMEM;
    made->handler = service->handler;
    made->stream_handler = service->stream_handler;
    made->arg = service->arg;
    made->port = weft_local_port(listener);
    rc = open_listeners(made, listener);
    if (rc < 0) {
        free(made);
        return rc;
    }
    *server = made; /* before a handler can run */
    rc = start_tasks(made);
    if (rc == 0)
        return 0;
    weft_server_free(made);
    *server = NULL;
    return 1; /* the listener is closed already */
}

static int serve(weft_server **server, int listener, const struct service *service)
{
    int rc;

    *server = NULL;
    if (listener < 0)
        return listener;
    rc = service->handler ? start_server(server, listener, service) : -EINVAL;
    if (rc < 0)
        weft_close(listener);
    return rc > 0 ? -ENOMEM : rc;
}

int weft_serve(weft_server **server, int listener, weft_client_fn *handler, void *arg,
               const weft_serve_options *options)
{
    struct service service = {.handler = handler, .arg = arg, .options = options};

    return serve(server, listener, &service);
}

int weft_serve_streams(weft_server **server, int listener, weft_stream_client_fn *handler, void *arg,
                       const weft_serve_options *options)
{
    struct service service = {
        .handler = handler ? serve_stream : NULL, .stream_handler = handler, .arg = arg, .options = options};

    return serve(server, listener, &service);
}

/* ---- stopping ---- */

void weft_server_close(weft_server *server)
{
    bool first;

    weft__lock_enter(&server->lock);
    first = !atomic_load_explicit(&server->closing, memory_order_relaxed);
    /* Until the end of this call it counts as an acceptor: the server must not be over before. */
    server->acceptors += first;
    atomic_store_explicit(&server->closing, true, memory_order_relaxed); /* read under the lock, or as a hint */
    weft__lock_leave(&server->lock);
    if (!first)
        return;
    for (unsigned i = 0; i < server->acceptor_count; i++)
        stop_acceptor(&server->acceptor[i]);
    cancel_all(server, IDLE, EVICTED, 0, false);
    end_helper(server, 0);
}

int weft_server_wait_closed(weft_server *server)
{
    int rc = weft_event_wait(&server->over);

    return rc < 0 ? rc : server->error;
}

void weft_server_close_clients(weft_server *server)
{
    end_clients(server, false);
}

void weft_server_abort_clients(weft_server *server)
{
    end_clients(server, true);
}

static void await_end(weft_task *task)
{
    while (task && weft_await_into(task, NULL) == -EBUSY)
        ;
}

static intptr_t free_server(void *server)
{
    weft_server_free(server);
    return 0;
}

void weft_server_free(weft_server *server)
{
    bool masked;

    if (!server)
        return;
    if (weft__in_stackless()) { /* stackless: it cannot wait, but another task can */
        weft_server_close(server);
        while (weft_go(free_server, server) == -ENOMEM)
            sched_yield();
        return;
    }
    masked = weft__mask_begin();
    weft_server_close(server);
    weft_server_close_clients(server);
    while (weft_event_wait(&server->over) < 0)
        weft_yield();
    if (server->reaper)
        weft_cancel(server->reaper);
    await_end(server->reaper);
    for (unsigned i = 0; i < server->acceptor_count; i++)
        await_end(server->acceptor[i].task);
    if (masked)
        weft_mask_end();
    free(server);
}

/* ---- looking ---- */

int weft_server_port(const weft_server *server)
{
    return server->port;
}

void weft_server_look(weft_server *server, weft_server_stats *stats)
{
    weft__lock_enter(&server->lock);
    *stats = (weft_server_stats){.accepted = server->accepted,
                                 .pauses = server->pauses,
                                 .clients = server->clients,
                                 .idle = server->idle_count};
    weft__lock_leave(&server->lock);
}
