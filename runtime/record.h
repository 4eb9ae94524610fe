/*
 * Task records: slabs that keep their type for ever, handed out in magazines.
 *
 * A thread keeps two magazines and takes or gives a whole one at a time, so the depot's lock is taken once for
 * RECORD_MAGAZINE records (Bonwick, "Magazines and vmem", 2001).
 */
#ifndef WEFT_RUNTIME_RECORD_H
#define WEFT_RUNTIME_RECORD_H

#include "runtime/lock.h"
#include "runtime/task.h"

enum { WEFT__RECORD_MAGAZINE = 64 };

struct weft__depot;

/* What one thread (or one lock) keeps. Zeroed is empty. */
struct weft__records {
    weft_task *head; /* linked by next */
    weft_task *full; /* a whole magazine, or NULL */
    uint32_t count;  /* in head */
};

struct weft__depot *weft__depot_new(weft_runtime *runtime);
void weft__depot_free(struct weft__depot *depot);

/* Slow halves of the two below. */
weft_task *weft__record_refill(struct weft__depot *depot, struct weft__records *records);
void weft__record_spill(struct weft__depot *depot, struct weft__records *records);

/* Give everything back (the thread ends). */
void weft__records_flush(struct weft__depot *depot, struct weft__records *records);

/* Call visit for every record there is, in use or not. Any thread; what it reads must be atomic. */
void weft__depot_each(struct weft__depot *depot, void (*visit)(weft_task *task, void *arg), void *arg);

/* The first one, `task`, which there is. */
static inline void weft__record_take(struct weft__records *records, weft_task *task)
{
    records->head = task->next;
    records->count--;
}

static inline weft_task *weft__record_get(struct weft__depot *depot, struct weft__records *records)
{
    weft_task *task = records->head;

    if (__builtin_expect(!task, 0))
        return weft__record_refill(depot, records);
    weft__record_take(records, task);
    return task;
}

/* The magazine is: it has to be put away before the next record. */
static inline bool weft__record_is_full(const struct weft__records *records)
{
    return records->count == WEFT__RECORD_MAGAZINE;
}

/* Unless it is full. */
static inline void weft__record_push(struct weft__records *records, weft_task *task)
{
    task->next = records->head;
    records->head = task;
    records->count++;
}

static inline void weft__record_put(struct weft__depot *depot, struct weft__records *records, weft_task *task)
{
    /* Before, not after: a thread that gives and takes by turns stays within one magazine. */
    if (__builtin_expect(weft__record_is_full(records), 0))
        weft__record_spill(depot, records);
    weft__record_push(records, task);
}

#endif
