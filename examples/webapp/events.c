/*
 * Server-sent events: a client that asks for /events keeps its connection, and hears of every new note. Each is served at
 * its own pace out of one broadcast channel; one that does not read, or too slowly, waits alone (weft_stream_drain),
 * misses events, and is told how many.
 */
#include <errno.h>
#include <stdio.h>

#include "app.h"

/* Now and then something is sent to those who hear nothing, which is how one that has gone is noticed. */
#define HEARTBEAT WEFT_SEC(15)

static int send_line(struct http_request *request, const char *format, const char *text)
{
    char line[EVENT_TEXT + 40];
    int n = snprintf(line, sizeof line, format, text);
    int rc = weft_stream_write(request->stream, line, (size_t)n);

    return rc < 0 ? rc : weft_stream_drain(request->stream);
}

static int64_t next_event(weft_subscriber *subscriber, char *text)
{
    weft_timeout scope;
    int64_t missed;

    weft_timeout_begin(&scope, HEARTBEAT);
    missed = weft_broadcast_recv(subscriber, text);
    weft_timeout_end(&scope);
    return missed;
}

static int tell(struct http_request *request, weft_subscriber *subscriber)
{
    char text[EVENT_TEXT];
    int64_t missed = next_event(subscriber, text);

    if (missed == 0)
        return send_line(request, "data: %s\n\n", text);
    if (missed == -ETIMEDOUT)
        return send_line(request, ": %s\n\n", "still here");
    if (missed < 0)
        return (int)missed; /* the server is stopping */
    snprintf(text, sizeof text, "%ld", (long)missed);
    return send_line(request, "event: missed\ndata: %s\n\n", text);
}

intptr_t serve_events(struct http_request *request, struct app *app)
{
    weft_subscriber *subscriber = weft_broadcast_subscribe(app->events);
    int rc;

    if (subscriber == NULL)
        return -ENOMEM;
    rc = http_respond_head(request, HTTP_STATUS_OK, "text/event-stream", "Cache-Control: no-store\r\n", -1);
    while (rc == 0 && request->method != HTTP_HEAD)
        rc = tell(request, subscriber);
    weft_broadcast_unsubscribe(subscriber);
    return rc == -EPIPE ? 0 : rc;
}

void events_publish(struct app *app, const char *text)
{
    char event[EVENT_TEXT] = "";

    snprintf(event, sizeof event, "%s", text);
    weft_broadcast_send(app->events, event);
}
