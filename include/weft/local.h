/*
 * Task-locals: values that belong to a task, as thread-locals belong to a thread.
 *
 * A child task starts with what its spawner has at the spawn, for keys that inherit. Threads outside any runtime have
 * none (-EPERM).
 */
#ifndef WEFT_LOCAL_H
#define WEFT_LOCAL_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* One per value, static mostly: WEFT_LOCAL_INIT or zeroed, or with functions. Never moves while tasks run. */
typedef struct weft_local {
    void (*destroy)(void *value);      /* when the task has ended or the value is replaced; NULL: nothing */
    void *(*inherit)(void *value);     /* the child's value, called by the spawner; NULL: children start without */
} weft_local;

#define WEFT_LOCAL_INIT {0, 0}

/* An `inherit` that hands on the same pointer. */
WEFT_API void *weft_local_share(void *value);

/* Set the calling task's value (NULL removes it). 0, -ENOMEM, -EPERM outside a task. Not a suspension point. */
WEFT_API int weft_local_set(const weft_local *key, void *value);

/* The calling task's value, or NULL. Not a suspension point. */
WEFT_API void *weft_local_get(const weft_local *key);

WEFT_END_DECLS

#endif
