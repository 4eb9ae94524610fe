/*
 * Three ways to take five seconds (or ?ms=). A synchronous handler has a thread of the blocking pool to itself, and an
 * asynchronous one parks; either way the worker is free for others meanwhile. The third is the mistake that every
 * program makes once: a blocking call on a worker. weft hands the worker's other work to a spare thread; with
 * WEFT_TAKEOVER_US=off and one worker the whole server would stand still. With WEFT_DEBUG=1 it names the request.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "app.h"

static long milliseconds(const struct http_request *request)
{
    return *request->query ? http_number(request, "ms", 60000) : 5000;
}

/* Any synchronous library would do. */
static intptr_t block(void *ms)
{
    struct timespec left = {.tv_sec = *(long *)ms / 1000, .tv_nsec = *(long *)ms % 1000 * 1000000};

    while (nanosleep(&left, &left) < 0)
        ;
    return 0;
}

static int respond_done(struct http_request *request, const char *what, long ms)
{
    char text[64];

    snprintf(text, sizeof text, "%s for %ld ms\n", what, ms);
    return http_respond_text(request, HTTP_STATUS_OK, text);
}

intptr_t serve_normal(struct http_request *request, struct app *app)
{
    long ms = milliseconds(request);
    intptr_t rc = ms < 0 ? ms : weft_blocking(block, &ms);

    (void)app;
    return rc < 0 ? rc : respond_done(request, "blocked a thread of the pool", ms);
}

intptr_t serve_async(struct http_request *request, struct app *app)
{
    long ms = milliseconds(request);
    intptr_t rc = ms < 0 ? ms : weft_sleep(WEFT_MS(ms));

    (void)app;
    return rc < 0 ? rc : respond_done(request, "parked", ms);
}

intptr_t serve_dump(struct http_request *request, struct app *app)
{
    long ms = milliseconds(request);
    intptr_t rc = ms < 0 ? ms : block(&ms);

    (void)app;
    return rc < 0 ? rc : respond_done(request, "blocked a worker", ms);
}
