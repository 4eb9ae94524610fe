/*
 * How to call a library that blocks: in the blocking pool, where it has a thread to itself. A connection of sqlite is for
 * one user at a time. Tasks wait for it in a weft_mutex, which costs nothing while they wait; threads of the pool that
 * waited for each other in sqlite would be threads that nobody else can use.
 */
#include "database.h"

#include <errno.h>
#include <stdlib.h>
#include <weft.h>

struct database {
    sqlite3 *handle;
    weft_mutex lock;
};

struct job {
    struct database *database;
    database_work *work;
    void *arg;
};

static intptr_t run(void *arg)
{
    struct job *job = arg;

    return job->work(job->database->handle, job->arg);
}

intptr_t database_do(struct database *database, database_work *work, void *arg)
{
    struct job job = {database, work, arg};
    intptr_t rc = weft_mutex_lock(&database->lock);

    if (rc < 0)
        return rc;
    rc = weft_blocking(run, &job);
    weft_mutex_unlock(&database->lock);
    return rc;
}

struct opening {
    struct database *database;
    const char *path;
};

static intptr_t open_it(void *arg)
{
    struct opening *opening = arg;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

    return sqlite3_open_v2(opening->path, &opening->database->handle, flags, NULL) == SQLITE_OK ? 0 : -EIO;
}

static intptr_t close_it(void *arg)
{
    sqlite3_close(((struct database *)arg)->handle);
    return 0;
}

int database_open(struct database **database, const char *path)
{
    struct opening opening = {calloc(1, sizeof **database), path};
    int rc;

    *database = NULL;
    if (opening.database == NULL)
        return -ENOMEM;
    rc = (int)weft_blocking(open_it, &opening);
    if (rc < 0)
        database_close(opening.database);
    else
        *database = opening.database;
    return rc;
}

void database_close(struct database *database)
{
    if (database == NULL)
        return;
    weft_mask_begin();
    if (weft_blocking(close_it, database) < 0)
        close_it(database);
    weft_mask_end();
    free(database);
}
