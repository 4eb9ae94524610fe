/*
 * The run queue of a worker: a doubly linked list through the task records, first in, first out.
 *
 * It belongs to whoever is inside the worker (worker.h): its driver at the cost of two plain stores, or a thief
 * that has seized it. So every operation here is plain code, an entry can be taken out of the middle (a task
 * that is awaited before it started), nothing is ever left behind in it, and it cannot overflow.
 *
 * `count` may be read by anybody, as a hint.
 */
#ifndef WEFT_RUNTIME_QUEUE_H
#define WEFT_RUNTIME_QUEUE_H

#include "runtime/task.h"

struct weft__queue {
    weft_task *head;
    weft_task *tail;
    _Atomic uint32_t count;
};

static inline uint32_t weft__queue_count(const struct weft__queue *queue)
{
    return atomic_load_explicit(&queue->count, memory_order_relaxed);
}

static inline void weft__queue_add_count(struct weft__queue *queue, int32_t change)
{
    /* Only those inside write it: a load and a store do. Relaxed: others take it for a hint. */
    atomic_store_explicit(&queue->count, weft__queue_count(queue) + (uint32_t)change, memory_order_relaxed);
}

/* What `home` holds while the task is in a worker's run queue. */
static inline uintptr_t weft__home_queued(const struct weft__worker *worker)
{
    return (uintptr_t)worker | 1;
}

static inline struct weft__worker *weft__home_worker(const weft_task *task)
{
    return (struct weft__worker *)(atomic_load_explicit(&task->home, memory_order_relaxed) & ~(uintptr_t)1);
}

static inline void weft__set_home(weft_task *task, uintptr_t home)
{
    /* Relaxed: an awaiter only asks whether it is its own worker's queue, which it alone could change meanwhile; a
     * waker owns the task by then. */
    atomic_store_explicit(&task->home, home, memory_order_relaxed);
}

static inline void weft__queue_push(struct weft__queue *queue, weft_task *task, struct weft__worker *owner)
{
    weft_task *tail = queue->tail;

    weft__set_home(task, weft__home_queued(owner));
    task->next = NULL;
    task->prev = tail;
    if (tail)
        tail->next = task;
    else
        queue->head = task;
    queue->tail = task;
    weft__queue_add_count(queue, 1);
}

static inline void weft__queue_remove(struct weft__queue *queue, weft_task *task)
{
    if (task->prev)
        task->prev->next = task->next;
    else
        queue->head = task->next;
    if (task->next)
        task->next->prev = task->prev;
    else
        queue->tail = task->prev;
    weft__queue_add_count(queue, -1);
}

/* The oldest one; `by` is the worker that will run or queue it. */
static inline weft_task *weft__queue_pop(struct weft__queue *queue, struct weft__worker *by)
{
    weft_task *task = queue->head;
    weft_task *next;

    if (!task)
        return NULL;
    next = task->next;
    queue->head = next;
    if (next) {
        next->prev = NULL;
        /* The record after it and its own stack are cold if many tasks take turns. */
        __builtin_prefetch(next->next);
        __builtin_prefetch(next->context.stack);
    } else {
        queue->tail = NULL;
    }
    weft__set_home(task, (uintptr_t)by);
    weft__queue_add_count(queue, -1);
    return task;
}

/*
 * An inbox: tasks handed to a worker by threads that are not inside it. Any number of producers (Treiber, 1986);
 * consumers take everything at once, so there is no ABA.
 */
struct weft__inbox {
    _Atomic(weft_task *) head;
};

static inline bool weft__inbox_is_empty(const struct weft__inbox *inbox)
{
    return atomic_load_explicit(&inbox->head, memory_order_relaxed) == NULL;
}

static inline void weft__inbox_push(struct weft__inbox *inbox, weft_task *task)
{
    weft_task *head = atomic_load_explicit(&inbox->head, memory_order_relaxed);

    do {
        task->next = head;
        /* release: the task's contents; pairs with the acquire in weft__inbox_take */
    } while (!atomic_compare_exchange_weak_explicit(&inbox->head, &head, task, memory_order_seq_cst,
                                                    memory_order_relaxed));
}

/* Everything, oldest first, linked by `next`. */
static inline weft_task *weft__inbox_take(struct weft__inbox *inbox)
{
    weft_task *newest, *oldest = NULL;

    if (weft__inbox_is_empty(inbox))
        return NULL;
    newest = atomic_exchange_explicit(&inbox->head, NULL, memory_order_acquire);
    while (newest) {
        weft_task *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

#endif
