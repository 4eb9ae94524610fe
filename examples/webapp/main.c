/*
 * A small web application: a JSON interface to a database, server-sent events, static files, and three kinds of slow
 * handlers. It shows how a server is put together with weft:
 *
 *   main.c      routes, start, and an end that lets requests finish
 *   http.c      a connection: requests within limits of size and time
 *   kinds.c     waiting, blocking, and blocking by mistake
 *   database.c  a library that blocks, in the blocking pool
 *   notes.c     JSON and SQL
 *   events.c    one event to many clients
 *   files.c     static files
 *
 *     webapp [--port N] [--root DIRECTORY] [--database FILE] [--log] …     until SIGINT or SIGTERM
 *
 * Every request is a task of its own, named after it, with a deadline. Awaited at once, it runs on the stack of its
 * connection's task and costs next to nothing; but it is what WEFT_DEBUG and WEFT_DUMP_SIGNAL show.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "database.h"

enum { EVENTS_KEPT = 64 };

struct settings {
    const char *host, *root, *database;
    uint16_t port;
    int64_t grace;
    struct http http;
    int64_t answer_time;
};

/* ---- routes ---- */

struct route {
    unsigned method;
    const char *path; /* one that ends in '/' also stands for what is below it */
    handler *handle;
    bool is_endless;
};

static const struct route routes[] = {
    {HTTP_GET, "/normal", serve_normal, false},
    {HTTP_GET, "/async", serve_async, false},
    {HTTP_GET, "/dump", serve_dump, false},
    {HTTP_GET, "/notes", list_notes, false},
    {HTTP_POST, "/notes", add_note, false},
    {HTTP_GET, "/notes/", get_note, false},
    {HTTP_DELETE, "/notes/", remove_note, false},
    {HTTP_GET, "/events", serve_events, true},
    {HTTP_GET, "/", serve_file, true}, /* a large file takes a slow client as long as it takes */
};

static bool is_at(const struct route *route, const char *path)
{
    size_t length = strlen(route->path);

    return strcmp(path, route->path) == 0 ||
           (route->path[length - 1] == '/' && strncmp(path, route->path, length) == 0);
}

/* The first that fits. NULL: there is none for this method; *status says why. */
static const struct route *find_route(const struct http_request *request, int *status)
{
    unsigned method = request->method == HTTP_HEAD ? HTTP_GET : request->method;

    *status = HTTP_STATUS_NOT_FOUND;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (is_at(&routes[i], request->path)) {
            if (routes[i].method == method)
                return &routes[i];
            *status = HTTP_STATUS_METHOD_NOT_ALLOWED;
        }
    return NULL;
}

/* ---- answering ---- */

struct call {
    struct http_request *request;
    const struct route *route;
};

static intptr_t run_call(void *arg)
{
    struct call *call = arg;

    return call->route->handle(call->request, call->request->http->app);
}

/* The handler as a task with a name and a deadline. */
static intptr_t call_handler(struct call *call)
{
    struct app *app = call->request->http->app;
    char name[32];
    weft_spawn_options options = {.name = name};
    weft_timeout scope;
    intptr_t rc;

    snprintf(name, sizeof name, "%s %s", http_method_str(call->request->method), call->request->path);
    weft_timeout_begin(&scope, call->route->is_endless ? WEFT_FOREVER : app->answer_time);
    weft_task *task = weft_spawn_with(&options, run_call, call);
    rc = task ? weft_await(task) : -ENOMEM;
    weft_timeout_end(&scope);
    return rc;
}

static int status_of(intptr_t error)
{
    switch (error) {
    case -EINVAL:
        return HTTP_STATUS_BAD_REQUEST;
    case -EACCES:
        return HTTP_STATUS_FORBIDDEN;
    case -ENOENT:
        return HTTP_STATUS_NOT_FOUND;
    case -EAGAIN: /* the blocking pool's queue is full */
    case -ETIMEDOUT:
    case -ENOMEM:
    case -EMFILE:
        return HTTP_STATUS_SERVICE_UNAVAILABLE;
    default:
        return HTTP_STATUS_INTERNAL_SERVER_ERROR;
    }
}

static intptr_t respond_status(struct http_request *request, int status)
{
    return http_respond_text(request, status, http_status_str((enum http_status)status));
}

static intptr_t answer(struct http_request *request)
{
    int status;
    struct call call = {request, find_route(request, &status)};
    intptr_t rc;

    if (call.route == NULL)
        return respond_status(request, status);
    rc = call_handler(&call);
    if (rc < 0 && rc != -ECANCELED && request->status == 0)
        rc = respond_status(request, status_of(rc));
    return rc;
}

/* ---- from start to stop ---- */

/* Let requests that are being answered end, until the grace is over. */
static void stop(weft_server *server, struct app *app, struct settings *settings)
{
    weft_timeout grace;

    weft_server_close(server);
    http_stop(&settings->http);
    weft_broadcast_close(app->events);
    weft_timeout_begin(&grace, settings->grace);
    if (weft_server_wait_closed(server) == -ETIMEDOUT)
        fprintf(stderr, "webapp: some requests are cut off\n");
    weft_timeout_end(&grace);
}

static int serve(struct app *app, struct settings *settings)
{
    weft_server *server;
    int rc = weft_serve_streams(&server, weft_listen(settings->host, settings->port, 0), http_serve,
                                &settings->http, NULL);

    if (rc < 0)
        return rc;
    printf("listening on %s:%d\n", settings->host, weft_server_port(server));
    rc = weft_signal_wait_stop();
    stop(server, app, settings);
    weft_server_free(server);
    return rc < 0 ? rc : 0;
}

static intptr_t start(void *arg)
{
    struct settings *settings = arg;
    struct app app = {.root = -1, .answer_time = settings->answer_time};
    int rc = database_open(&app.database, settings->database);

    settings->http.app = &app;
    settings->http.answer = answer;
    app.events = weft_broadcast_new(EVENT_TEXT, EVENTS_KEPT);
    if (rc == 0)
        rc = app.events ? notes_prepare(&app) : -ENOMEM;
    if (rc == 0 && settings->root && (app.root = open(settings->root, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = -ENOENT;
    if (rc == 0)
        rc = serve(&app, settings);
    if (app.root >= 0)
        close(app.root);
    weft_broadcast_free(app.events);
    database_close(app.database);
    return rc;
}

/* ---- the command line ---- */

static const struct option long_options[] = {
    {"host", required_argument, NULL, 'h'},
    {"port", required_argument, NULL, 'p'},
    {"root", required_argument, NULL, 'r'},
    {"database", required_argument, NULL, 'd'},
    {"idle-time", required_argument, NULL, 'i'},
    {"receive-time", required_argument, NULL, 't'},
    {"answer-time", required_argument, NULL, 'a'},
    {"grace", required_argument, NULL, 'g'},
    {"body-max", required_argument, NULL, 'b'},
    {"log", no_argument, NULL, 'l'},
    {NULL, 0, NULL, 0},
};

static int64_t seconds(const char *text)
{
    return (int64_t)(atof(text) * 1e9);
}

static bool set(struct settings *settings, int option, const char *text)
{
    switch (option) {
    case 'h':
        settings->host = text;
        return true;
    case 'p':
        settings->port = (uint16_t)atoi(text);
        return true;
    case 'r':
        settings->root = text;
        return true;
    case 'd':
        settings->database = text;
        return true;
    case 'i':
        settings->http.idle_time = seconds(text);
        return true;
    case 't':
        settings->http.receive_time = seconds(text);
        return true;
    case 'a':
        settings->answer_time = seconds(text);
        return true;
    case 'g':
        settings->grace = seconds(text);
        return true;
    case 'b':
        settings->http.body_max = strtoul(text, NULL, 10);
        return true;
    case 'l':
        settings->http.logs = true;
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    static struct settings settings = {
        .host = "127.0.0.1",
        .port = 8080,
        .database = ":memory:",
        .grace = WEFT_SEC(5),
        .answer_time = WEFT_SEC(30),
        .http = {.body_max = 64 << 10,
                 .idle_time = WEFT_SEC(60),
                 .receive_time = WEFT_SEC(10),
                 .linger_time = WEFT_SEC(1)},
    };
    intptr_t rc;
    int option;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        if (!set(&settings, option, optarg))
            return 2;
    rc = weft_run(start, &settings);
    if (rc < 0)
        fprintf(stderr, "webapp: %s\n", strerror((int)-rc));
    return rc < 0;
}
