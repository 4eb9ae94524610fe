/*
 * Task-locals: values that belong to a task, as thread-locals belong to a thread.
 *
 * A child task starts with what its spawner has at the spawn, for keys that inherit; a spawn for whose values memory
 * runs out fails. Inside a generator they are those of the task that resumed it. Threads outside any runtime, those
 * of the blocking pool too, have none (-EPERM).
 */
#ifndef WEFT_LOCAL_H
#define WEFT_LOCAL_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/*
 * One per value, static mostly: WEFT_LOCAL_INIT or zeroed, or with functions. Stays in place while tasks have values.
 * Neither function may suspend.
 */
typedef struct weft_local {
    /* When the value is replaced or removed, or when the task ends: then by the task, while it is still the calling task,
     * before anybody hears of its end; if it never ran, by some thread of the runtime. NULL: nothing is done. */
    void (*destroy)(void *value);
    /* The child's value, called by the spawner; returns NULL: the child has none. NULL: children start without. */
    void *(*inherit)(void *value); /* must neither suspend nor set or clear values */
} weft_local;

#define WEFT_LOCAL_INIT \
    {                   \
        0, 0            \
    }

/* An `inherit` that hands on the same pointer. */
WEFT_API void *weft_local_share(void *value);

/* Set the calling task's value (NULL removes it). The former one is destroyed, unless it is the same. 0, -ENOMEM, -EINVAL
 * for a NULL key, -EPERM outside a task. Not a suspension point. */
WEFT_API int weft_local_set(const weft_local *key, void *value);

/* The calling task's value, or NULL. Not a suspension point. */
WEFT_API void *weft_local_get(const weft_local *key);

WEFT_END_DECLS

#endif
