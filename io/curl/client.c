/*
 * Clients (curl.h): libcurl's multi interface, driven by one task.
 *
 * The driver, a stackless task, is the only one that touches the multi handle and, while they are being
 * performed, the easy handles; so nothing of libcurl needs a lock, and its stack need not be thought of: libcurl
 * and TLS run on the worker's own. It waits for the client's bridge (io/bridge.h), in which libcurl's sockets,
 * its timer and a bell lie. That it is stackless makes suspension points in callbacks fail instead of leaving
 * libcurl in the middle.
 *
 * Whoever performs puts a transfer, which lies in its frame, into the list of requests, rings, and awaits the
 * transfer's promise. If it is interrupted, it puts the transfer there once more, to have it taken out of
 * libcurl, and waits for the promise without being interrupted; one that the driver has not taken yet it takes
 * back itself. The driver sets the promise after the handle is out of the multi handle, and as the last that it
 * does to the transfer.
 *
 * Under the lock: the requests, `listed` and `leaving` of transfers, and `closed`, after which the list takes
 * nothing more and the driver, as it ends, fails what is in it. A transfer that ends by itself while it is asked
 * to leave is taken out of the list first, so the list never holds one whose frame is gone. The bell is rung by
 * whoever makes the list not empty: the driver reads the bell before it takes, always, all that is in the list.
 *
 * `users` counts those inside weft_curl_perform, who may touch the client after their transfer has ended;
 * weft_curl_close waits for them. The driver may have been cancelled before it ran for the first time, when a
 * runtime is stopped; then closing does what is left to do.
 *
 * Measured on two processors that others used too, client and server in one process, over kept connections, a
 * body of 1 KiB, both ends of a transfer: 57 to 72 us with one worker, 27 to 52 with two; with libcurl's blocking
 * interface in the pool 23 to 33 and 107 to 112.
 */
#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <weft/promise.h>
#include <weft/scope.h>
#include <weft/sync.h>
#include <weft/task.h>

#include "io/bridge.h"
#include "io/curl/client.h"
#include "runtime/lock.h"

struct transfer {
    CURL *easy;
    struct transfer *next, *prev;
    bool listed;
    bool leaving; /* libcurl has it and is to give it up because of `error`; 0: its performer was interrupted */
    bool ended;   /* with `error` and `code` */
    int error;
    CURLcode code;
    weft_promise over;
};

/* A transfer that was in the list, and what was asked for it: its performer may ask for more meanwhile. */
struct request {
    struct transfer *transfer;
    bool leaves;
    int error;
};

struct weft_curl {
    weft_frame frame;
    intptr_t rc; /* of what the driver waits for */
    weft_curl_options options;
    char *ca_file;
    weft_task *driver;
    weft_waitgroup users;

    /* The driver's. */
    struct weft__bridge bridge;
    CURLM *multi;
    void *performed; /* the transfers that libcurl has: a tree (tsearch(3)) by their handles */

    weft__lock lock;
    /* Under the lock. */
    struct transfer *first, *last;
    int closed; /* 0, or why nothing is performed any more */
};

const weft_curl_options *weft__curl_options(const weft_curl *client)
{
    return &client->options;
}

/* ---- requests ---- */

/* With the lock. True: ring. */
static bool put_in(weft_curl *client, struct transfer *transfer)
{
    transfer->listed = true;
    transfer->next = NULL;
    transfer->prev = client->last;
    *(client->last ? &client->last->next : &client->first) = transfer;
    client->last = transfer;
    return client->first == transfer;
}

/* With the lock. */
static void take_out(weft_curl *client, struct transfer *transfer)
{
    if (!transfer->listed)
        return;
    transfer->listed = false;
    *(transfer->prev ? &transfer->prev->next : &client->first) = transfer->next;
    *(transfer->next ? &transfer->next->prev : &client->last) = transfer->prev;
}

static int submit(weft_curl *client, struct transfer *transfer)
{
    bool ring = false;
    int rc;

    weft__lock_enter(&client->lock);
    rc = client->closed;
    if (rc == 0) {
        weft_waitgroup_add(&client->users, 1);
        ring = put_in(client, transfer);
    }
    weft__lock_leave(&client->lock);
    if (ring)
        weft__bridge_ring(&client->bridge);
    return rc;
}

/* Have it taken out of libcurl. True: libcurl does not have it yet, and nobody else has it any more. */
static bool ask_to_leave(weft_curl *client, struct transfer *transfer, int error)
{
    bool ring = false, untouched;

    weft__lock_enter(&client->lock);
    untouched = transfer->listed && !transfer->leaving;
    if (untouched) {
        take_out(client, transfer);
    } else if (!transfer->leaving && !transfer->ended) {
        transfer->leaving = true;
        transfer->error = error;
        ring = put_in(client, transfer);
    }
    weft__lock_leave(&client->lock);
    if (ring)
        weft__bridge_ring(&client->bridge);
    return untouched;
}

/* The next request. False: there is none; *closed: why there will be no more. */
static bool next_request(weft_curl *client, struct request *request, int *closed)
{
    struct transfer *transfer;

    weft__lock_enter(&client->lock);
    transfer = client->first;
    if (transfer) {
        *request = (struct request){transfer, transfer->leaving, transfer->error};
        take_out(client, transfer);
    }
    *closed = client->closed;
    weft__lock_leave(&client->lock);
    return transfer != NULL;
}

static void close_door(weft_curl *client, int why)
{
    weft__lock_enter(&client->lock);
    if (client->closed == 0)
        client->closed = why;
    weft__lock_leave(&client->lock);
}

/* The driver is through with it: it is gone when this returns. */
static void end_transfer(weft_curl *client, struct transfer *transfer, bool ended, int error, CURLcode code)
{
    weft__lock_enter(&client->lock);
    take_out(client, transfer);
    transfer->ended = ended;
    transfer->error = error;
    transfer->code = code;
    weft__lock_leave(&client->lock);
    weft_promise_set(&transfer->over, 0);
}

/* ---- what libcurl has ---- */

static int compare_handles(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t)((const struct transfer *)a)->easy;
    uintptr_t right = (uintptr_t)((const struct transfer *)b)->easy;

    return (left > right) - (left < right);
}

/* NULL: one of libcurl's own handles. */
static struct transfer *find(weft_curl *client, CURL *easy)
{
    struct transfer key = {.easy = easy}, **found = tfind(&key, &client->performed, compare_handles);

    return found ? *found : NULL;
}

/* The same error for what libcurl's multi interface refuses. */
static int error_of_multi(CURLMcode code)
{
    switch (code) {
    case CURLM_OK:
        return 0;
    case CURLM_ADDED_ALREADY:
        return -EBUSY;
    case CURLM_OUT_OF_MEMORY:
        return -ENOMEM;
    default:
        return -EINVAL;
    }
}

/* 0: libcurl has it. */
static int give_to_libcurl(weft_curl *client, struct transfer *transfer)
{
    struct transfer **node = tsearch(transfer, &client->performed, compare_handles);
    int rc;

    if (!node)
        return -ENOMEM;
    if (*node != transfer)
        return -EBUSY;
    /* No signals, and no waiting for a resolver's thread when a transfer is taken out (it ends by itself). */
    curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(transfer->easy, CURLOPT_QUICK_EXIT, 1L);
#endif
    rc = error_of_multi(curl_multi_add_handle(client->multi, transfer->easy));
    if (rc < 0)
        tdelete(transfer, &client->performed, compare_handles);
    return rc;
}

static void take_from_libcurl(weft_curl *client, struct transfer *transfer)
{
    curl_multi_remove_handle(client->multi, transfer->easy);
    tdelete(transfer, &client->performed, compare_handles);
}

/* Those that have come to their end. */
static void end_finished(weft_curl *client)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        CURLcode code = message->data.result; /* the message is gone when the handle is removed */
        struct transfer *transfer = find(client, message->easy_handle);

        if (message->msg != CURLMSG_DONE || !transfer)
            continue;
        take_from_libcurl(client, transfer);
        end_transfer(client, transfer, true, weft__curl_error(transfer->easy, code), code);
    }
}

/* ---- what libcurl asks for; called inside its functions ---- */

static uint32_t events_of(int what)
{
    return (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) | (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);
}

/*
 * A descriptor that cannot be watched (-ENOMEM, -ENOSPC) fails the transfer that it is for: a failure told to
 * libcurl itself would be the end of the multi handle.
 */
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
    weft_curl *client = arg;
    int rc = weft__bridge_watch(&client->bridge, fd, what == CURL_POLL_REMOVE ? 0 : events_of(what));
    struct transfer *transfer = rc < 0 ? find(client, easy) : NULL;

    (void)unused;
    if (transfer)
        ask_to_leave(client, transfer, rc);
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    weft_curl *client = arg;

    (void)multi;
    client->bridge.due = ms < 0 ? WEFT_FOREVER : weft_now() + WEFT_MS(ms);
    return 0;
}

/* ---- the driver ---- */

static void answer(weft_curl *client, const struct request *request)
{
    struct transfer *transfer = request->transfer;
    int rc;

    if (request->leaves) {
        take_from_libcurl(client, transfer);
        end_transfer(client, transfer, request->error < 0, request->error, CURLE_ABORTED_BY_CALLBACK);
        return;
    }
    rc = give_to_libcurl(client, transfer);
    if (rc < 0)
        end_transfer(client, transfer, true, rc, CURLE_ABORTED_BY_CALLBACK);
}

/* False: the client is closed. */
static bool answer_requests(weft_curl *client)
{
    struct request request;
    int closed;

    while (next_request(client, &request, &closed))
        answer(client, &request);
    return closed == 0;
}

/* libcurl takes both for "try": whatever happened, it finds out by its next call on the socket. */
static int tell_of(const struct epoll_event *event)
{
    uint32_t broken = event->events & (EPOLLERR | EPOLLHUP);

    return (event->events & EPOLLIN || broken ? CURL_CSELECT_IN : 0) |
           (event->events & EPOLLOUT || broken ? CURL_CSELECT_OUT : 0);
}

static void tell_libcurl(weft_curl *client)
{
    struct epoll_event event;
    int running;

    weft__bridge_look(&client->bridge);
    while (weft__bridge_next(&client->bridge, &event))
        curl_multi_socket_action(client->multi, event.data.fd, tell_of(&event), &running);
}

static void tell_time(weft_curl *client)
{
    int running;

    if (!weft__bridge_is_due(&client->bridge))
        return;
    client->bridge.due = WEFT_FOREVER; /* until libcurl says otherwise, which it may do now */
    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

/* The client is closed. */
static void shut_down(weft_curl *client)
{
    struct transfer *transfer;
    struct request request;
    int closed;

    while (next_request(client, &request, &closed))
        if (request.leaves)
            answer(client, &request);
        else
            end_transfer(client, request.transfer, true, closed, CURLE_ABORTED_BY_CALLBACK);
    while (client->performed) {
        transfer = *(struct transfer **)client->performed;
        take_from_libcurl(client, transfer);
        end_transfer(client, transfer, true, closed, CURLE_ABORTED_BY_CALLBACK);
    }
    curl_multi_cleanup(client->multi);
    client->multi = NULL;
}

static intptr_t drive(void *arg)
{
    weft_curl *client = arg;

    WEFT_BEGIN(client);
    do {
        /* Let others run first, with whose requests there is then more to do at a time. */
        WEFT_AWAIT(client, client->rc, weft_async_yield());
        if (client->rc == 0 && !weft__bridge_is_due(&client->bridge)) {
            weft__bridge_arm(&client->bridge);
            WEFT_AWAIT(client, client->rc, weft__bridge_async_wait(&client->bridge));
        }
        if (client->rc < 0) { /* the runtime is stopping, if it is not out of memory */
            close_door(client, client->rc == -ECANCELED ? -ESHUTDOWN : (int)client->rc);
            break;
        }
        tell_libcurl(client);
        if (!answer_requests(client))
            break;
        tell_time(client);
        end_finished(client);
    } while (true);
    shut_down(client);
    WEFT_END(client, 0);
}

/* ---- performing ---- */

/* The check at the head of a suspension point. */
static int check(void)
{
    weft_promise set = WEFT_PROMISE_INIT;

    weft_promise_set(&set, 0);
    return (int)weft_promise_await(&set);
}

static void rest(void)
{
    struct timespec millisecond = {0, 1000000};

    nanosleep(&millisecond, NULL);
}

/* Until the driver is through with it. Only a thread outside the runtime that is out of memory has to try again. */
static void wait_for_driver(struct transfer *transfer)
{
    weft_mask_begin();
    while (weft_promise_await(&transfer->over) < 0)
        rest();
    weft_mask_end();
}

/* 0: it has ended by itself. */
static int perform(weft_curl *client, struct transfer *transfer)
{
    int rc = (int)weft_promise_await(&transfer->over);

    if (rc == 0)
        return 0;
    if (ask_to_leave(client, transfer, 0))
        return rc;
    wait_for_driver(transfer);
    return transfer->ended ? 0 : rc;
}

int weft_curl_perform(weft_curl *client, CURL *easy, CURLcode *code)
{
    struct transfer transfer = {.easy = easy, .over = WEFT_PROMISE_INIT, .code = CURLE_ABORTED_BY_CALLBACK};
    int rc = easy ? check() : -EINVAL;

    if (code)
        *code = transfer.code;
    if (rc == 0)
        rc = submit(client, &transfer);
    if (rc < 0)
        return rc;
    rc = perform(client, &transfer);
    weft_waitgroup_done(&client->users);
    if (rc < 0)
        return rc;
    if (code)
        *code = transfer.code;
    return transfer.error;
}

/* ---- clients ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode set_up;

static void set_libcurl_up(void)
{
    set_up = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int keep_options(weft_curl *client, const weft_curl_options *options)
{
    if (options)
        client->options = *options;
    /* libcurl's own default, four for each transfer that runs, would close them all in a pause. */
    if (client->options.idle_max == 0)
        client->options.idle_max = 100;
    if (client->options.connect_timeout <= 0)
        client->options.connect_timeout = WEFT_SEC(30);
    if (client->options.redirects_max == 0)
        client->options.redirects_max = 10;
    if (client->options.body_max == 0)
        client->options.body_max = 16u << 20;
    if (client->options.ca_file && !(client->ca_file = strdup(client->options.ca_file)))
        return -ENOMEM;
    client->options.ca_file = client->ca_file;
    return 0;
}

static int make_multi(weft_curl *client)
{
    const weft_curl_options *options = &client->options;

    client->multi = curl_multi_init();
    if (!client->multi)
        return -ENOMEM;
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)options->connections_max);
    curl_multi_setopt(client->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)options->connections_per_host_max);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)options->idle_max);
    return 0;
}

static int spawn_driver(weft_curl *client)
{
    weft_spawn_options options = {.name = "weft_curl", .flags = WEFT_SPAWN_STACKLESS};

    client->driver = weft_spawn_with(&options, drive, client);
    return client->driver ? 0 : -ENOMEM;
}

static void free_client(weft_curl *client)
{
    if (client->multi)
        curl_multi_cleanup(client->multi);
    weft__bridge_close(&client->bridge);
    free(client->ca_file);
    free(client);
}

int weft_curl_open(weft_curl **opened, const weft_curl_options *options)
{
    weft_curl *client;
    int rc;

    *opened = NULL;
    if (!weft_self())
        return -EPERM;
    pthread_once(&once, set_libcurl_up);
    if (set_up != CURLE_OK)
        return -EIO;
    client = calloc(1, sizeof *client);
    if (!client)
        return -ENOMEM;
    rc = weft__bridge_open(&client->bridge);
    if (rc == 0)
        rc = keep_options(client, options);
    if (rc == 0)
        rc = make_multi(client);
    if (rc == 0)
        rc = spawn_driver(client);
    if (rc < 0)
        free_client(client);
    else
        *opened = client;
    return rc;
}

int weft_curl_close(weft_curl *client)
{
    if (!client)
        return 0;
    weft_mask_begin();
    if (check() < 0) { /* a stackless task */
        weft_mask_end();
        return -EPERM;
    }
    close_door(client, -ESHUTDOWN);
    weft__bridge_ring(&client->bridge);
    weft_await_into(client->driver, NULL);
    if (client->multi) /* the driver never ran */
        shut_down(client);
    while (weft_waitgroup_wait(&client->users) < 0)
        rest();
    weft_mask_end();
    free_client(client);
    return 0;
}
