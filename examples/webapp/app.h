/*
 * The application: what its handlers share, and the handlers, each of which answers one request. They return 0, or an
 * error if the connection cannot go on; whatever they did not answer themselves is answered for them.
 */
#ifndef WEBAPP_APP_H
#define WEBAPP_APP_H

#include "http.h"

enum { EVENT_TEXT = 2000 };

struct app {
    struct database *database;
    weft_broadcast *events; /* of char[EVENT_TEXT] */
    int root;               /* the directory of files, or -1 */
    int64_t answer_time;    /* ns that a request may take */
};

typedef intptr_t handler(struct http_request *request, struct app *app);

/* kinds.c: three kinds of handlers, one of them a mistake */
handler serve_normal, serve_async, serve_dump;

/* notes.c: a JSON interface to a table of the database */
handler list_notes, add_note, get_note, remove_note;
int notes_prepare(struct app *app);

/* events.c: server-sent events */
handler serve_events;
void events_publish(struct app *app, const char *text);

/* files.c */
handler serve_file;

#endif
