/*
 * An sqlite database, used by one task at a time, on threads of the blocking pool.
 */
#ifndef WEBAPP_DATABASE_H
#define WEBAPP_DATABASE_H

#include <sqlite3.h>
#include <stdint.h>

struct database;

/* Work with the database, on a thread that may block. Its result is the caller's. */
typedef intptr_t database_work(sqlite3 *handle, void *arg);

/* Open it (":memory:" for one that is not kept). 0 with *database, or an error. Suspension point. */
int database_open(struct database **database, const char *path);

/* Wait for the database, then for the work: its result, or -ECANCELED, -ETIMEDOUT, -EAGAIN (too much is waiting
 * already): then the work was not begun. What was begun is waited for. Suspension point. */
intptr_t database_do(struct database *database, database_work *work, void *arg);

/* NULL is allowed. Suspension point. */
void database_close(struct database *database);

#endif
