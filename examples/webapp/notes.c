/*
 * A JSON interface: GET and POST /notes, GET and DELETE /notes/ID. A note is {"id": 1, "text": "…"}.
 *
 * JSON is made and read on the worker, which is computing; SQL runs in the pool. A new note is told to whoever listens
 * to /events.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "database.h"

/* A text, with every byte written as \\u00xx, fits into an event. */
enum { LISTED = 100, TEXT_MAX = 300 };

struct note {
    sqlite3_int64 id;
    const char *text;
    json_t *found; /* what a query makes */
};

/* ---- SQL, in the pool ---- */

static intptr_t result_of(int rc)
{
    return rc == SQLITE_DONE || rc == SQLITE_ROW || rc == SQLITE_OK ? 0 : rc == SQLITE_FULL ? -ENOSPC : -EIO;
}

static intptr_t create(sqlite3 *handle, void *unused)
{
    (void)unused;
    return result_of(sqlite3_exec(handle, "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)",
                                  NULL, NULL, NULL));
}

static sqlite3_stmt *prepare(sqlite3 *handle, const char *sql)
{
    sqlite3_stmt *statement = NULL;

    sqlite3_prepare_v2(handle, sql, -1, &statement, NULL);
    return statement;
}

/* How a statement ended; its end. */
static intptr_t finish(sqlite3_stmt *statement, int rc)
{
    sqlite3_finalize(statement);
    return result_of(rc);
}

static intptr_t insert(sqlite3 *handle, void *arg)
{
    struct note *note = arg;
    sqlite3_stmt *statement = prepare(handle, "INSERT INTO notes (text) VALUES (?)");
    intptr_t rc;

    sqlite3_bind_text(statement, 1, note->text, -1, SQLITE_STATIC);
    rc = finish(statement, sqlite3_step(statement));
    note->id = sqlite3_last_insert_rowid(handle);
    return rc;
}

static json_t *note_of_row(sqlite3_stmt *statement)
{
    return json_pack("{s:I, s:s}", "id", (json_int_t)sqlite3_column_int64(statement, 0), "text",
                     (const char *)sqlite3_column_text(statement, 1));
}

static intptr_t find(sqlite3 *handle, void *arg)
{
    struct note *note = arg;
    sqlite3_stmt *statement = prepare(handle, "SELECT id, text FROM notes WHERE id = ?");
    int rc;

    sqlite3_bind_int64(statement, 1, note->id);
    rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        note->found = note_of_row(statement);
    return finish(statement, rc) ?: note->found ? 0 : -ENOENT;
}

static intptr_t find_latest(sqlite3 *handle, void *arg)
{
    struct note *note = arg;
    sqlite3_stmt *statement = prepare(handle, "SELECT id, text FROM notes ORDER BY id DESC LIMIT ?");
    int rc;

    note->found = json_array();
    sqlite3_bind_int(statement, 1, LISTED);
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        json_array_append_new(note->found, note_of_row(statement));
    return finish(statement, rc);
}

static intptr_t delete (sqlite3 *handle, void *arg)
{
    struct note *note = arg;
    sqlite3_stmt *statement = prepare(handle, "DELETE FROM notes WHERE id = ?");
    intptr_t rc;

    sqlite3_bind_int64(statement, 1, note->id);
    rc = finish(statement, sqlite3_step(statement));
    return rc ?: sqlite3_changes(handle) > 0 ? 0 : -ENOENT;
}

int notes_prepare(struct app *app)
{
    return (int)database_do(app->database, create, NULL);
}

/* ---- JSON, on the worker ---- */

/* Takes the value. */
static intptr_t respond_json(struct http_request *request, int status, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    intptr_t rc = text ? http_respond(request, status, "application/json", text, strlen(text)) : -ENOMEM;

    free(text);
    json_decref(value);
    return rc;
}

static intptr_t do_and_respond(struct http_request *request, struct app *app, database_work *work,
                               struct note *note)
{
    intptr_t rc = database_do(app->database, work, note);

    if (rc < 0) {
        json_decref(note->found);
        return rc;
    }
    return respond_json(request, HTTP_STATUS_OK, note->found);
}

intptr_t list_notes(struct http_request *request, struct app *app)
{
    return do_and_respond(request, app, find_latest, &(struct note){0});
}

/* The number after "/notes/"; 0, which no note has, for anything else. */
static sqlite3_int64 id_of(const struct http_request *request)
{
    const char *text = strrchr(request->path, '/') + 1;
    char *end;
    long long id = strtoll(text, &end, 10);

    return *end ? 0 : id;
}

intptr_t get_note(struct http_request *request, struct app *app)
{
    return do_and_respond(request, app, find, &(struct note){.id = id_of(request)});
}

intptr_t remove_note(struct http_request *request, struct app *app)
{
    intptr_t rc = database_do(app->database, delete, &(struct note){.id = id_of(request)});

    return rc < 0 ? rc : http_respond(request, HTTP_STATUS_OK, "application/json", "{}", 2);
}

static intptr_t add_text(struct http_request *request, struct app *app, const char *text)
{
    struct note note = {.text = text};
    intptr_t rc = database_do(app->database, insert, &note);
    json_t *made;
    char *line;

    if (rc < 0)
        return rc;
    made = json_pack("{s:I, s:s}", "id", (json_int_t)note.id, "text", text);
    line = made ? json_dumps(made, JSON_COMPACT) : NULL;
    if (line)
        events_publish(app, line);
    free(line);
    return respond_json(request, HTTP_STATUS_CREATED, made);
}

intptr_t add_note(struct http_request *request, struct app *app)
{
    json_t *sent = json_loadb(request->body ?: "", request->length, 0, NULL);
    const char *text = json_string_value(json_object_get(sent, "text"));
    intptr_t rc = text && strlen(text) <= TEXT_MAX ? add_text(request, app, text) : -EINVAL;

    json_decref(sent);
    return rc;
}
