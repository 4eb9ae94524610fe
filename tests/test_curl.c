/*
 * weft::curl against a small server in the same process: many transfers at once, cancellation and deadlines at every
 * point, what servers do wrong, limits, redirects, connections that are used again, closing in the middle.
 */
#include <poll.h>
#include <sys/resource.h>
#include <weft/curl.h>

#include "support.h"

static const uint32_t few_workers[] = {1, 2, 8};
enum { FEW = sizeof few_workers / sizeof *few_workers };

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < FEW; i++)
        assert_int_equal(run_on(few_workers[i], fn, NULL), 0);
}

/* ---- the server ---- */

enum { BODY = 100000 };

static char letters[BODY + 1];
static _Atomic int hanging; /* requests that are not answered */

static __attribute__((constructor)) void write_letters(void)
{
    for (int i = 0; i < BODY; i++)
        letters[i] = (char)('a' + i % 26);
}

static ssize_t say(int fd, const char *text)
{
    return weft_write_all(fd, text, strlen(text));
}

static ssize_t reply(int fd, int status, const char *header, const char *body, size_t size)
{
    char head[256];
    ssize_t rc;

    snprintf(head, sizeof head, "HTTP/1.1 %d Whatever\r\nContent-Length: %zu\r\n%s\r\n", status, size, header);
    rc = say(fd, head);
    return rc < 0 ? rc : weft_write_all(fd, body, size);
}

static ssize_t redirect(int fd, int left)
{
    char header[64];

    snprintf(header, sizeof header, "Location: /redirect/%d\r\n", left);
    return reply(fd, 302, header, "moved", 5);
}

/* Until the client closes the connection, which it does when the transfer is given up. */
static ssize_t hang(int fd)
{
    ssize_t rc;

    atomic_fetch_add(&hanging, 1);
    rc = weft_poll(fd, POLLRDHUP, WEFT_FOREVER);
    atomic_fetch_sub(&hanging, 1);
    return rc < 0 ? rc : -EPIPE;
}

/* Half of a body, and then nothing more. */
static ssize_t stall(int fd)
{
    ssize_t rc = say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf a body");

    return rc < 0 ? rc : hang(fd);
}

static ssize_t drip(int fd)
{
    ssize_t rc = say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");

    for (int i = 0; i < 10 && rc >= 0; i++)
        if ((rc = weft_sleep(WEFT_MS(1))) == 0)
            rc = weft_write(fd, letters + i, 1);
    return rc;
}

static ssize_t send_chunks(int fd)
{
    return say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n");
}

/* Negative: the connection ends. */
static ssize_t answer(int fd, const char *path)
{
    if (strcmp(path, "/hang") == 0)
        return hang(fd);
    if (strcmp(path, "/stall") == 0)
        return stall(fd);
    if (strcmp(path, "/drip") == 0)
        return drip(fd);
    if (strcmp(path, "/chunks") == 0)
        return send_chunks(fd);
    if (strcmp(path, "/big") == 0)
        return reply(fd, 200, "", letters, BODY);
    if (strcmp(path, "/empty") == 0)
        return reply(fd, 204, "", "", 0);
    if (strcmp(path, "/loop") == 0)
        return redirect(fd, 1000);
    if (strncmp(path, "/redirect/", 10) == 0 && atoi(path + 10) > 0)
        return redirect(fd, atoi(path + 10) - 1);
    if (strcmp(path, "/file") == 0)
        return reply(fd, 302, "Location: file:///etc/hostname\r\n", "", 0);
    if (strcmp(path, "/none") == 0)
        return reply(fd, 404, "X-Reason: none\r\n", "nothing", 7);
    if (strcmp(path, "/garbage") == 0)
        return say(fd, "these are no headers\r\n\r\n") < 0 ? -1 : -EPROTO;
    if (strcmp(path, "/short") == 0)
        return say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf") < 0 ? -1 : -EPIPE;
    if (strcmp(path, "/nothing") == 0)
        return -EPIPE;
    if (strcmp(path, "/close") == 0)
        return reply(fd, 200, "Connection: close\r\n", "bye", 3) < 0 ? -1 : -EPIPE;
    if (strcmp(path, "/reset") == 0)
        return weft_set_abort(fd), -ECONNRESET;
    return reply(fd, 200, "X-Test: yes\r\n", path, strlen(path));
}

static intptr_t serve_requests(weft_client *client)
{
    char request[4096], path[256];
    size_t size = 0;
    ssize_t n = 1;

    while (n > 0) {
        n = weft_read(client->fd, request + size, sizeof request - 1 - size);
        if (n <= 0)
            break;
        size += (size_t)n;
        request[size] = '\0';
        if (!strstr(request, "\r\n\r\n"))
            continue;
        must_be(sscanf(request, "GET %255s HTTP/1.1\r\n", path), 1);
        size = 0;
        n = answer(client->fd, path) < 0 ? -1 : 1;
    }
    return 0;
}

struct place {
    weft_server *server;
    weft_curl *client;
    char url[64];
};

static void open_place(struct place *place, const weft_curl_options *options)
{
    atomic_store(&hanging, 0);
    must_be(weft_serve(&place->server, weft_listen("127.0.0.1", 0, 0), serve_requests, NULL, NULL), 0);
    must_be(weft_curl_open(&place->client, options), 0);
    snprintf(place->url, sizeof place->url, "http://127.0.0.1:%d", weft_server_port(place->server));
}

static void close_place(struct place *place)
{
    must_be(weft_curl_close(place->client), 0);
    weft_server_free(place->server);
}

static const char *url_of(const struct place *place, const char *path, char *url)
{
    snprintf(url, 128, "%s%s", place->url, path);
    return url;
}

static int get(struct place *place, const char *path, weft_curl_response *response)
{
    char url[128];

    return weft_curl_get(place->client, url_of(place, path, url), response);
}

static uint64_t connections_of(struct place *place)
{
    weft_server_stats stats;

    weft_server_look(place->server, &stats);
    return stats.accepted;
}

/* ---- what is fetched ---- */

static void must_get(struct place *place, const char *path, long status, const char *body)
{
    weft_curl_response response;

    must_be(get(place, path, &response), 0);
    must_be(response.code, CURLE_OK);
    must_be(response.status, status);
    must_be(response.size, strlen(body));
    must(strcmp(response.body, body) == 0);
    must(response.headers == NULL);
    must(response.message[0] == '\0');
    weft_curl_response_free(&response);
    weft_curl_response_free(&response);
}

static void must_fail(struct place *place, const char *path, int error, CURLcode code)
{
    weft_curl_response response;

    must_be(get(place, path, &response), error);
    must_be(response.code, code);
    must(response.body == NULL);
    must(response.headers == NULL);
    must(response.message[0] != '\0');
    weft_curl_response_free(&response);
}

static intptr_t fetches(void *arg)
{
    struct place place;

    open_place(&place, NULL);
    must_get(&place, "/hello", 200, "/hello");
    must_get(&place, "/big", 200, letters);
    must_get(&place, "/empty", 204, "");
    must_get(&place, "/none", 404, "nothing");
    must_get(&place, "/chunks", 200, "abcdefghij");
    must_get(&place, "/drip", 200, "abcdefghij");
    must_get(&place, "/redirect/3", 200, "/redirect/0");
    must_be(connections_of(&place), 1);
    close_place(&place);
    return (intptr_t)arg;
}

static void a_response_is_fetched_whole(void **state)
{
    (void)state;
    run_everywhere(fetches);
}

static intptr_t keeps_headers(void *arg)
{
    weft_curl_options options = {.flags = WEFT_CURL_HEADERS};
    weft_curl_response response;
    struct place place;

    open_place(&place, &options);
    must_be(get(&place, "/redirect/2", &response), 0);
    must(strncmp(response.headers, "HTTP/1.1 200 ", 13) == 0); /* the last one's */
    must(strstr(response.headers, "X-Test: yes\r\n") != NULL);
    must_be(response.headers_size, strlen(response.headers));
    weft_curl_response_free(&response);
    close_place(&place);
    return (intptr_t)arg;
}

static void headers_are_kept_if_asked_for(void **state)
{
    (void)state;
    assert_int_equal(run_alone(keeps_headers, NULL), 0);
}

/* ---- what goes wrong ---- */

static uint16_t port_of_nobody(void)
{
    int fd = weft_listen("127.0.0.1", 0, 1), port = weft_local_port(fd);

    must(port > 0);
    weft_close(fd);
    return (uint16_t)port;
}

static intptr_t failures(void *arg)
{
    weft_curl_options options = {.body_max = BODY - 1, .redirects_max = 5};
    struct place place;

    open_place(&place, &options);
    must_fail(&place, "/garbage", -EPROTONOSUPPORT, CURLE_UNSUPPORTED_PROTOCOL); /* HTTP/0.9 */
    must_fail(&place, "/short", -ECONNRESET, CURLE_PARTIAL_FILE);
    must_fail(&place, "/nothing", -ECONNRESET, CURLE_GOT_NOTHING);
    must_fail(&place, "/reset", -ECONNRESET, CURLE_RECV_ERROR);
    must_fail(&place, "/loop", -ELOOP, CURLE_TOO_MANY_REDIRECTS);
    must_fail(&place, "/file", -EPROTONOSUPPORT, CURLE_UNSUPPORTED_PROTOCOL);
    must_fail(&place, "/big", -EMSGSIZE, CURLE_FILESIZE_EXCEEDED);
    must_get(&place, "/redirect/5", 200, "/redirect/0");
    snprintf(place.url, sizeof place.url, "http://127.0.0.1:%d", port_of_nobody());
    must_fail(&place, "/", -ECONNREFUSED, CURLE_COULDNT_CONNECT);
    snprintf(place.url, sizeof place.url, "file://");
    must_fail(&place, "/etc/hostname", -EPROTONOSUPPORT, CURLE_UNSUPPORTED_PROTOCOL);
    snprintf(place.url, sizeof place.url, "http://[");
    must_fail(&place, "", -EINVAL, CURLE_URL_MALFORMAT);
    close_place(&place);
    return (intptr_t)arg;
}

static void what_goes_wrong_is_an_error(void **state)
{
    (void)state;
    run_everywhere(failures);
}

static intptr_t exceeds_the_limit(void *arg)
{
    weft_curl_options options = {.body_max = 9};
    struct place place;

    open_place(&place, &options);
    must_fail(&place, "/chunks", -EMSGSIZE, CURLE_WRITE_ERROR); /* the length is not told before */
    must_fail(&place, "/drip", -EMSGSIZE, CURLE_FILESIZE_EXCEEDED);
    must_get(&place, "/ninebyte", 200, "/ninebyte");
    close_place(&place);
    return (intptr_t)arg;
}

static void a_body_has_a_limit(void **state)
{
    (void)state;
    assert_int_equal(run_alone(exceeds_the_limit, NULL), 0);
}

/* ---- many at once ---- */

static intptr_t fetch_ten(void *arg)
{
    for (int i = 0; i < 10; i++) {
        must_get(arg, i % 2 ? "/hello" : "/redirect/1", 200, i % 2 ? "/hello" : "/redirect/0");
        must_get(arg, "/big", 200, letters);
    }
    return 0;
}

static void fetch_side_by_side(struct place *place, weft_fn *fn, int tasks)
{
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < tasks; i++)
        must_be(weft_group_spawn(&group, fn, place), 0);
    must_be(weft_group_wait(&group), 0);
}

static intptr_t many(void *arg)
{
    weft_curl_options options = {.connections_max = 10};
    struct place place;

    open_place(&place, &options);
    fetch_side_by_side(&place, fetch_ten, SUPPORT_SANITIZED ? 20 : 100);
    must(connections_of(&place) <= 10);
    close_place(&place);
    return (intptr_t)arg;
}

static void many_transfers_share_few_connections(void **state)
{
    (void)state;
    run_everywhere(many);
}

static intptr_t fetch_hanging(void *arg)
{
    weft_curl_response response;

    must_be(get(arg, "/hang", &response), -ECANCELED);
    must_be(response.code, CURLE_ABORTED_BY_CALLBACK);
    must(response.body == NULL);
    return -ECANCELED;
}

static intptr_t side_by_side(void *arg)
{
    struct place place;
    weft_group group;

    open_place(&place, NULL);
    must_be(weft_group_begin(&group), 0);
    for (int i = 0; i < 50; i++)
        must_be(weft_group_spawn(&group, fetch_hanging, &place), 0);
    wait_until_true(atomic_load(&hanging) == 50);
    must_get(&place, "/hello", 200, "/hello");
    must_be(weft_group_cancel(&group), 1);
    must_be(weft_group_wait(&group), 0);
    must_get(&place, "/hello", 200, "/hello");
    close_place(&place);
    return (intptr_t)arg;
}

static void transfers_wait_side_by_side(void **state)
{
    (void)state;
    run_everywhere(side_by_side);
}

/* Numbers of descriptors go from libcurl to weft and back all the time. */
static intptr_t open_and_close(void *arg)
{
    struct place *place = arg;
    char back[8];

    for (int i = 0; i < (SUPPORT_SANITIZED ? 20 : 100); i++) {
        int fd = weft_dial("127.0.0.1", (uint16_t)weft_server_port(place->server));

        must(fd >= 0);
        must(say(fd, "GET /close HTTP/1.1\r\n\r\n") > 0);
        must(weft_read(fd, back, sizeof back) > 0);
        must_be(weft_close(fd), 0);
        must_get(place, "/close", 200, "bye");
    }
    return 0;
}

static intptr_t churns(void *arg)
{
    struct place place;

    open_place(&place, NULL);
    fetch_side_by_side(&place, open_and_close, 8);
    close_place(&place);
    return (intptr_t)arg;
}

static void numbers_of_descriptors_may_be_used_again_by_either_side(void **state)
{
    (void)state;
    run_everywhere(churns);
}

/* ---- handles of one's own ---- */

struct sink {
    _Atomic bool open;
    size_t size;
    struct place *place;
};

static size_t pour(char *bytes, size_t one, size_t size, void *arg)
{
    struct sink *sink = arg;

    (void)bytes;
    (void)one;
    must(atomic_load(&sink->open));
    sink->size += size;
    return size;
}

static CURL *handle_for(struct place *place, const char *path, struct sink *sink)
{
    char url[128];
    CURL *easy = weft_curl_easy(place->client, url_of(place, path, url));

    must(easy != NULL);
    must_be(curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, pour), CURLE_OK);
    must_be(curl_easy_setopt(easy, CURLOPT_WRITEDATA, sink), CURLE_OK);
    sink->place = place;
    sink->size = 0;
    return easy;
}

static int perform(struct place *place, CURL *easy, struct sink *sink, CURLcode *code)
{
    int rc;

    atomic_store(&sink->open, true);
    rc = weft_curl_perform(place->client, easy, code);
    atomic_store(&sink->open, false);
    return rc;
}

static intptr_t uses_a_handle_again(void *arg)
{
    struct sink sink = {0};
    struct place place;
    weft_timeout scope;
    CURLcode code;
    CURL *easy;

    open_place(&place, NULL);
    easy = handle_for(&place, "/stall", &sink);
    weft_timeout_begin(&scope, WEFT_MS(30));
    must_be(perform(&place, easy, &sink, &code), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(code, CURLE_ABORTED_BY_CALLBACK);
    must_be(sink.size, 11);

    must_be(curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 30L), CURLE_OK);
    must_be(perform(&place, easy, &sink, &code), -ETIMEDOUT);
    must_be(code, CURLE_OPERATION_TIMEDOUT);

    must_be(curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 0L), CURLE_OK);
    sink.size = 0;
    for (int i = 0; i < 3; i++) {
        char url[128];

        must_be(curl_easy_setopt(easy, CURLOPT_URL, url_of(&place, "/big", url)), CURLE_OK);
        must_be(perform(&place, easy, &sink, NULL), 0);
    }
    must_be(sink.size, 3 * BODY);
    curl_easy_cleanup(easy);
    close_place(&place);
    return (intptr_t)arg;
}

static void deadlines_end_transfers_and_the_handle_can_be_used_again(void **state)
{
    (void)state;
    run_everywhere(uses_a_handle_again);
}

static intptr_t perform_twice(void *arg)
{
    struct sink *sink = ((void **)arg)[0];

    return weft_curl_perform(sink->place->client, ((void **)arg)[1], NULL);
}

static intptr_t busy(void *arg)
{
    struct sink sink = {.open = true};
    struct place place;
    void *both[2] = {&sink, NULL};
    weft_task *task;

    open_place(&place, NULL);
    both[1] = handle_for(&place, "/hang", &sink);
    task = weft_spawn(perform_twice, both);
    wait_until_true(atomic_load(&hanging) == 1);
    must_be(weft_curl_perform(place.client, both[1], NULL), -EBUSY);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    curl_easy_cleanup(both[1]);
    close_place(&place);
    return (intptr_t)arg;
}

static void a_handle_is_performed_once_at_a_time(void **state)
{
    (void)state;
    run_everywhere(busy);
}

static size_t suspend(char *bytes, size_t one, size_t size, void *arg)
{
    struct sink *sink = arg;
    weft_curl_response response;

    (void)bytes;
    (void)one;
    must_be(weft_sleep(WEFT_MS(1)), -EPERM);
    must_be(weft_curl_get(sink->place->client, "http://127.0.0.1", &response), -EPERM);
    must_be(weft_curl_close(sink->place->client), -EPERM);
    return size;
}

static intptr_t suspends(void *arg)
{
    struct sink sink = {0};
    struct place place;
    CURL *easy;

    open_place(&place, NULL);
    easy = handle_for(&place, "/hello", &sink);
    must_be(curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, suspend), CURLE_OK);
    must_be(perform(&place, easy, &sink, NULL), 0);
    curl_easy_cleanup(easy);
    close_place(&place);
    return (intptr_t)arg;
}

static void callbacks_cannot_suspend(void **state)
{
    (void)state;
    run_everywhere(suspends);
}

/* ---- cancellation ---- */

struct attempt {
    struct place *place;
    const char *path;
    _Atomic bool begun;
};

static intptr_t fetch_once(void *arg)
{
    struct attempt *attempt = arg;
    struct sink sink = {0};
    CURL *easy = handle_for(attempt->place, attempt->path, &sink);
    int rc, again;

    atomic_store(&attempt->begun, true);
    rc = perform(attempt->place, easy, &sink, NULL);
    must(rc == 0 || rc == -ECANCELED);
    must(rc < 0 || sink.size == BODY || sink.size == 11);
    weft_uncancel();
    again = weft_yield();                                 /* time for what must not come any more */
    must(again == 0 || (again == -ECANCELED && rc == 0)); /* a cancellation comes once: then, or only now */
    rc = again < 0 ? again : rc;
    curl_easy_cleanup(easy);
    return rc;
}

/* Cancel after so many turns of the others, then after so many microseconds. True: it was too late. */
static bool cancel_after(struct place *place, const char *path, int turns, int64_t ns)
{
    struct attempt attempt = {.place = place, .path = path};
    weft_task *task = weft_spawn(fetch_once, &attempt);
    intptr_t rc;

    wait_until_true(atomic_load(&attempt.begun));
    yield_times(turns);
    if (ns > 0)
        must_be(weft_sleep(ns), 0);
    weft_cancel(task);
    rc = weft_await(task);
    must(rc == 0 || rc == -ECANCELED);
    return rc == 0;
}

static void cancel_everywhere(struct place *place, const char *path, int times)
{
    int late = 0;

    for (int i = 0; i < times && late < 10; i++)
        late += cancel_after(place, path, i, 0);
    late = 0;
    for (int i = 0; i < times && late < 10; i++)
        late += cancel_after(place, path, 0, WEFT_US(20) * i);
}

static intptr_t cancels(void *arg)
{
    struct place place;

    open_place(&place, NULL);
    cancel_everywhere(&place, "/big", 200);
    cancel_everywhere(&place, "/redirect/9", 100);
    cancel_everywhere(&place, "/stall", 30);
    snprintf(place.url, sizeof place.url, "http://localhost:%d", weft_server_port(place.server));
    cancel_everywhere(&place, "/big", 60); /* in the resolver, too */
    must_get(&place, "/hello", 200, "/hello");
    close_place(&place);
    return (intptr_t)arg;
}

static void a_transfer_can_be_cancelled_at_every_point(void **state)
{
    (void)state;
    run_everywhere(cancels);
}

static intptr_t is_cancelled(void *arg)
{
    struct place *place = arg;
    weft_curl_response response;

    weft_cancel(weft_self());
    must_be(get(place, "/hello", &response), -ECANCELED);
    must_be(weft_uncancel(), 1);
    must_get(place, "/hello", 200, "/hello");
    return 0;
}

static intptr_t cancelled_before(void *arg)
{
    struct place place;

    open_place(&place, NULL);
    must_be(weft_await(weft_spawn(is_cancelled, &place)), 0);
    must_be(connections_of(&place), 1);
    close_place(&place);
    return (intptr_t)arg;
}

static void who_is_cancelled_begins_nothing(void **state)
{
    (void)state;
    run_everywhere(cancelled_before);
}

/* ---- closing ---- */

static intptr_t fetch_until_closed(void *arg)
{
    weft_curl_response response;

    must_be(get(arg, "/hang", &response), -ESHUTDOWN);
    must_be(response.code, CURLE_ABORTED_BY_CALLBACK);
    return 0;
}

static intptr_t closes(void *arg)
{
    struct place place;
    weft_task *tasks[20];

    open_place(&place, NULL);
    for (int i = 0; i < 10; i++)
        must((tasks[i] = weft_spawn(fetch_until_closed, &place)) != NULL);
    wait_until_true(atomic_load(&hanging) == 10);
    weft_spawn_options eager = {.flags = WEFT_SPAWN_EAGER}; /* these are not even begun */
    for (int i = 10; i < 20; i++)
        must((tasks[i] = weft_spawn_with(&eager, fetch_until_closed, &place)) != NULL);
    must_be(weft_curl_close(place.client), 0);
    place.client = NULL;
    must_be(weft_gather(tasks, 20, NULL), 0);
    close_place(&place);
    return (intptr_t)arg;
}

static void closing_ends_what_is_being_transferred(void **state)
{
    (void)state;
    run_everywhere(closes);
}

static intptr_t open_only(void *arg)
{
    weft_curl *client;

    must_be(weft_curl_open(&client, NULL), 0);
    must_be(weft_curl_close(client), 0);
    must_be(weft_curl_open(&client, NULL), 0);
    must_be(weft_yield(), 0);
    must_be(weft_curl_close(client), 0);
    return (intptr_t)arg;
}

static void a_client_that_is_not_used_leaves_nothing(void **state)
{
    (void)state;
    run_everywhere(open_only);
}

static intptr_t fetch_until_stopped(void *arg)
{
    weft_curl_response response;
    int rc = get(arg, "/hang", &response);

    must(rc == -ECANCELED || rc == -ESHUTDOWN);
    return -ECANCELED;
}

/* The main task is gone; this one is cancelled as all others are, and then cleans up. */
static intptr_t keep_place(void *arg)
{
    struct place *place = arg;
    weft_task *tasks[10];

    open_place(place, NULL);
    for (int i = 0; i < 10; i++)
        must((tasks[i] = weft_spawn(fetch_until_stopped, place)) != NULL);
    weft_gather_all(tasks, 10, NULL);
    close_place(place);
    return -ECANCELED;
}

static intptr_t leave_running(void *arg)
{
    struct place *place = arg;

    must_be(weft_go(keep_place, place), 0);
    wait_until_true(atomic_load(&hanging) == 10);
    return 0;
}

static void a_runtime_stops_in_the_middle(void **state)
{
    struct place place;
    weft_runtime *runtime;

    (void)state;
    for (int i = 0; i < FEW; i++) {
        weft_config config = {.workers = few_workers[i]};
        unsigned descriptors = count_descriptors();

        atomic_store(&hanging, 0);
        assert_int_equal(weft_runtime_start(&config, &runtime), 0);
        assert_int_equal(weft_runtime_run(runtime, leave_running, &place), 0);
        assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
        assert_int_equal(count_descriptors(), descriptors);
    }
}

/* ---- others ---- */

static void *fetch_from_outside(void *arg)
{
    for (int i = 0; i < 20; i++)
        must_get(arg, "/big", 200, letters);
    return NULL;
}

static intptr_t join(void *arg)
{
    return pthread_join(*(pthread_t *)arg, NULL);
}

static intptr_t from_outside(void *arg)
{
    struct place place;
    pthread_t threads[3];

    open_place(&place, NULL);
    for (int i = 0; i < 3; i++)
        must_be(pthread_create(&threads[i], NULL, fetch_from_outside, &place), 0);
    for (int i = 0; i < 3; i++)
        must_be(weft_blocking(join, &threads[i]), 0);
    close_place(&place);
    return (intptr_t)arg;
}

static void threads_outside_may_fetch(void **state)
{
    (void)state;
    run_everywhere(from_outside);
}

static intptr_t fetch_without_a_stack(void *arg)
{
    weft_curl_response response;

    must_be(get(arg, "/hello", &response), -EPERM);
    return 0;
}

static intptr_t misuses(void *arg)
{
    weft_curl_response response;
    struct place place;
    CURLcode code = CURLE_OK;

    open_place(&place, NULL);
    must_be(weft_curl_perform(place.client, NULL, &code), -EINVAL);
    must_be(code, CURLE_ABORTED_BY_CALLBACK);
    must_be(weft_curl_get(place.client, NULL, &response), -EINVAL);
    must(weft_curl_easy(place.client, NULL) == NULL);
    must_be(weft_curl_close(NULL), 0);
    must_be(weft_await(weft_spawn_stackless(fetch_without_a_stack, &place)), 0);
    close_place(&place);
    return (intptr_t)arg;
}

static void misuse_is_an_error(void **state)
{
    weft_curl *client;

    (void)state;
    assert_int_equal(weft_curl_open(&client, NULL), -EPERM);
    assert_int_equal(run_alone(misuses, NULL), 0);
    assert_int_equal(weft_curl_errno(CURLE_OK), 0);
    assert_int_equal(weft_curl_errno(CURLE_PEER_FAILED_VERIFICATION), -EKEYREJECTED);
}

static intptr_t runs_out(void *arg)
{
    struct rlimit old, limit;
    weft_curl *client;
    int first = dup(0); /* the lowest number that is free */

    close(first);
    must_be(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (unsigned more = 0; more < 3; more++) { /* of the three that a client has */
        limit = (struct rlimit){(rlim_t)first + more, old.rlim_max};
        must_be(setrlimit(RLIMIT_NOFILE, &limit), 0);
        must_be(weft_curl_open(&client, NULL), -EMFILE);
        must_be(setrlimit(RLIMIT_NOFILE, &old), 0);
        must(client == NULL);
    }
    return (intptr_t)arg;
}

static void without_descriptors_there_is_no_client(void **state)
{
    (void)state;
    assert_int_equal(run_alone(runs_out, NULL), 0);
}

/* libcurl keeps what it has once set up: it must not be counted as left behind by the first test. */
static intptr_t set_up(void *arg)
{
    weft_curl *client;

    must_be(weft_curl_open(&client, NULL), 0);
    must_be(weft_curl_close(client), 0);
    return (intptr_t)arg;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_response_is_fetched_whole),
        cmocka_unit_test(headers_are_kept_if_asked_for),
        cmocka_unit_test(what_goes_wrong_is_an_error),
        cmocka_unit_test(a_body_has_a_limit),
        cmocka_unit_test(many_transfers_share_few_connections),
        cmocka_unit_test(transfers_wait_side_by_side),
        cmocka_unit_test(numbers_of_descriptors_may_be_used_again_by_either_side),
        cmocka_unit_test(deadlines_end_transfers_and_the_handle_can_be_used_again),
        cmocka_unit_test(a_handle_is_performed_once_at_a_time),
        cmocka_unit_test(callbacks_cannot_suspend),
        cmocka_unit_test(a_transfer_can_be_cancelled_at_every_point),
        cmocka_unit_test(who_is_cancelled_begins_nothing),
        cmocka_unit_test(closing_ends_what_is_being_transferred),
        cmocka_unit_test(a_client_that_is_not_used_leaves_nothing),
        cmocka_unit_test(a_runtime_stops_in_the_middle),
        cmocka_unit_test(threads_outside_may_fetch),
        cmocka_unit_test(misuse_is_an_error),
        cmocka_unit_test(without_descriptors_there_is_no_client),
    };

    weft_run(set_up, NULL);
    return run_all(tests, argc, argv);
}
