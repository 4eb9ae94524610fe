/*
 * The run queue of a worker: doubly linked lists through the task records.
 *
 * It belongs to whoever is inside the worker (worker.h): its driver at the cost of two plain stores, or a thief
 * that has seized it. So every operation here is plain code, an entry can be taken out of the middle (a task
 * that is awaited before it started), nothing is ever left behind in it, and it cannot overflow.
 *
 * First in, first out, with one exception: what a task spawns in its first run starts before those that have been
 * waiting for their start. Children before uncles: a tree of a million tasks is walked depth first, in some dozens of
 * warm stacks, where strict order would start all of a level before any of the next, with a cold stack each. Siblings
 * keep their order. In detail:
 *
 *     ready   has run before (woken, or passed on), or was spawned by one that has, or from elsewhere
 *     young   spawned by the task that runs, which is new: it has not parked, and passed on once at most. (Nor is one
 *             old that parked only until tasks ended which it awaits: it may go on to spawn more of the tree.)
 *     fresh   batches of those, the newest first, each in order: a batch is what `young` held at a switch
 *     again   from a batch, passed on in its first run: goes on behind its siblings, and behind what is ready by then,
 *             but not behind everybody, else a tree whose tasks begin by yielding would be walked by levels after all
 *
 * Batches come before what is ready. That, and burying the older under the newer, has limits. They take turns at the
 * looks around (weft__queue_age): some of what is ready (`ahead`), then the batches for as long; and from time to time
 * the next of the oldest batch becomes ready. When there are so many in the batches that they are no tree's (an endless
 * chain of tasks that spawn two), further ones go to `ready`, and for each one that is ready has a turn.
 *
 * The two counts may be read by anybody, as a hint.
 */
#ifndef WEFT_RUNTIME_QUEUE_H
#define WEFT_RUNTIME_QUEUE_H

#include "runtime/task.h"

enum {
    /* More than a tree needs: its levels times the children of a task, anew for each that was the oldest once. */
    WEFT__NEW_MOST = 16384,
    WEFT__AGE_LOOKS = 32,
    WEFT__AGE_PASS = 16,   /* of those that are ready, before the batches go on */
    WEFT__AGE_STEPS = 256, /* looked at to find where a batch begins */
    WEFT__AGE_TURN_NS = 2000 * 1000,
};

struct weft__list {
    weft_task *head;
    weft_task *tail;
};

struct weft__queue {
    struct weft__list young;
    struct weft__list fresh;
    struct weft__list ready;
    _Atomic uint32_t ready_count;
    _Atomic uint32_t new_count; /* in the other three */
    int32_t ahead; /* so many that are ready have their turn before the batches; -1: they have just had it */
    bool started;  /* all of a batch have: `again` becomes one */
    uint8_t looks; /* since the oldest one had its turn */
    struct weft__list again;
    weft_task *oldest;          /* the next of the oldest batch; NULL: not known */
    int64_t passed_at, pass_at; /* when those that are ready came before the batches last, and may next */
};

/* ---- what `home` says ---- */

enum {
    WEFT__HOME_QUEUED = 1, /* it is in the run queue of that worker */
    WEFT__HOME_LAST = 2,   /* the last of its batch */
    WEFT__HOME_NEW = 4,    /* see above */
    WEFT__HOME_TREE = 8,   /* it is in young or a batch, or was popped from there */
    WEFT__HOME_AGAIN = 16, /* it has passed on once */
    WEFT__HOME_BITS = 31
};

static inline uintptr_t weft__home(const weft_task *task)
{
    /* Relaxed: an awaiter only asks whether it is its own worker's queue, which it alone could change meanwhile; a
     * waker owns the task by then. */
    return atomic_load_explicit(&task->home, memory_order_relaxed);
}

static inline void weft__set_home(weft_task *task, uintptr_t home)
{
    atomic_store_explicit(&task->home, home, memory_order_relaxed);
}

static inline struct weft__worker *weft__home_worker(const weft_task *task)
{
    return (struct weft__worker *)(weft__home(task) & ~(uintptr_t)WEFT__HOME_BITS);
}

/* What a task's home is that a new one has spawned here. */
static inline uintptr_t weft__home_young(const struct weft__worker *worker)
{
    return (uintptr_t)worker | WEFT__HOME_QUEUED | WEFT__HOME_NEW | WEFT__HOME_TREE;
}

/* Is it in the run queue of this worker? */
static inline bool weft__is_queued_at(uintptr_t home, const struct weft__worker *worker)
{
    uintptr_t difference = home ^ ((uintptr_t)worker + WEFT__HOME_QUEUED);

    return (difference & ~(uintptr_t)(WEFT__HOME_BITS & ~WEFT__HOME_QUEUED)) == 0;
}

/* The coroutine goes on as a task that it runs in place, and that may pass on, too. */
static inline void weft__home_begin_in_place(weft_task *root)
{
    uintptr_t home = weft__home(root);

    if (__builtin_expect(home & WEFT__HOME_AGAIN, 0))
        weft__set_home(root, home & ~(uintptr_t)WEFT__HOME_AGAIN);
}

/* ---- lists ---- */

static inline void weft__list_append(struct weft__list *list, weft_task *task)
{
    weft_task *tail = list->tail;

    task->next = NULL;
    task->prev = tail;
    if (tail)
        tail->next = task;
    else
        list->head = task;
    list->tail = task;
}

static inline void weft__list_remove(struct weft__list *list, weft_task *task)
{
    if (task->prev)
        task->prev->next = task->next;
    else
        list->head = task->next;
    if (task->next)
        task->next->prev = task->prev;
    else
        list->tail = task->prev;
}

/* All of `front` before `list`; `front` is empty then. */
static inline void weft__list_put_before(struct weft__list *list, struct weft__list *front)
{
    front->tail->next = list->head;
    if (list->head)
        list->head->prev = front->tail;
    else
        list->tail = front->tail;
    list->head = front->head;
    front->head = front->tail = NULL;
}

/* ---- counting ---- */

static inline uint32_t weft__queue_count(const struct weft__queue *queue)
{
    return atomic_load_explicit(&queue->ready_count, memory_order_relaxed) +
           atomic_load_explicit(&queue->new_count, memory_order_relaxed);
}

static inline void weft__queue_add_count(_Atomic uint32_t *count, int32_t change)
{
    /* Only those inside write it: a load and a store do. Relaxed: others take it for a hint. */
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + (uint32_t)change,
                          memory_order_relaxed);
}

/* Are there some in `young`, `fresh`, `again`? Inside, so no hint. */
static inline bool weft__queue_has_new(const struct weft__queue *queue)
{
    return atomic_load_explicit(&queue->new_count, memory_order_relaxed) != 0;
}

static inline bool weft__queue_is_empty(const struct weft__queue *queue)
{
    return !queue->ready.head && !weft__queue_has_new(queue);
}

/* ---- putting in ---- */

static inline void weft__queue_push_ready(struct weft__queue *queue, weft_task *task, uintptr_t home)
{
    weft__set_home(task, home | WEFT__HOME_QUEUED);
    weft__list_append(&queue->ready, task);
    weft__queue_add_count(&queue->ready_count, 1);
}

/* A task that has run, or that comes from elsewhere. */
static inline void weft__queue_push(struct weft__queue *queue, weft_task *task, struct weft__worker *owner)
{
    weft__queue_push_ready(queue, task, (uintptr_t)owner);
}

/* At most so many of those that are ready now have their turn before the batches. */
static inline void weft__queue_let_pass(struct weft__queue *queue, uint32_t most)
{
    uint32_t count = atomic_load_explicit(&queue->ready_count, memory_order_relaxed);

    queue->ahead = (int32_t)(count < most ? count : most);
    queue->passed_at = 0;
}

/* There is no more room for what one from the batches spawns, so it is ready now: one more in, one more out. (What
 * those that are ready spawn gives them no more turns, or the batches would never have theirs again.) */
static inline void weft__queue_push_beside(struct weft__queue *queue, weft_task *task, uintptr_t home)
{
    int32_t ahead = queue->ahead > 0 ? queue->ahead + 1 : 1;

    weft__queue_push_ready(queue, task, home);
    weft__queue_let_pass(queue, (uint32_t)ahead);
}

/* A task that the coroutine that runs has just spawned. */
static inline void weft__queue_push_new(struct weft__queue *queue, weft_task *task, struct weft__worker *owner,
                                        const weft_task *spawner)
{
    uint32_t count = atomic_load_explicit(&queue->new_count, memory_order_relaxed);
    uintptr_t home = weft__home(spawner);

    if (__builtin_expect(!(home & WEFT__HOME_NEW) || count >= WEFT__NEW_MOST, 0)) {
        if ((home & (WEFT__HOME_NEW | WEFT__HOME_TREE)) == (WEFT__HOME_NEW | WEFT__HOME_TREE))
            weft__queue_push_beside(queue, task, (uintptr_t)owner | WEFT__HOME_NEW);
        else
            weft__queue_push_ready(queue, task, (uintptr_t)owner | WEFT__HOME_NEW);
        return;
    }
    if (count == 0 && queue->ahead > 0)
        queue->ahead = 0; /* of earlier ones */
    weft__set_home(task, weft__home_young(owner));
    weft__list_append(&queue->young, task);
    weft__queue_add_count(&queue->new_count, 1);
}

static inline void weft__queue_make_batch(struct weft__queue *queue, struct weft__list *tasks)
{
    weft__set_home(tasks->tail, weft__home(tasks->tail) | WEFT__HOME_LAST);
    if (!queue->fresh.head)
        queue->oldest = tasks->head;
    weft__list_put_before(&queue->fresh, tasks);
}

/* There has been a switch: make batches of `again`, if it is time for that, and of `young`. */
static inline void weft__queue_close_batches(struct weft__queue *queue)
{
    if (queue->started || !queue->fresh.head) {
        queue->started = false;
        if (queue->again.head) {
            weft__queue_make_batch(queue, &queue->again);
            weft__queue_let_pass(queue, INT32_MAX);
        }
    }
    if (queue->young.head)
        weft__queue_make_batch(queue, &queue->young);
}

/* A task that runs lets others run. */
static inline void weft__queue_pass_on(struct weft__queue *queue, weft_task *task, struct weft__worker *owner)
{
    uintptr_t home = weft__home(task);

    if (__builtin_expect(!(home & WEFT__HOME_NEW) || (home & WEFT__HOME_AGAIN), 1)) {
        weft__queue_push(queue, task, owner);
    } else if (!(home & WEFT__HOME_TREE) || !weft__queue_has_new(queue)) {
        weft__queue_push_ready(queue, task, (uintptr_t)owner | WEFT__HOME_NEW | WEFT__HOME_AGAIN);
    } else if (atomic_load_explicit(&queue->new_count, memory_order_relaxed) >= WEFT__NEW_MOST) {
        weft__queue_push_beside(queue, task, (uintptr_t)owner | WEFT__HOME_NEW | WEFT__HOME_AGAIN);
    } else {
        weft__set_home(task,
                       (uintptr_t)owner | WEFT__HOME_QUEUED | WEFT__HOME_NEW | WEFT__HOME_TREE | WEFT__HOME_AGAIN);
        weft__list_append(&queue->again, task);
        weft__queue_add_count(&queue->new_count, 1);
    }
}

/* ---- taking out ---- */

static inline void weft__queue_remove_ready(struct weft__queue *queue, weft_task *task)
{
    weft__list_remove(&queue->ready, task);
    weft__queue_add_count(&queue->ready_count, -1);
}

static inline void weft__queue_remove_young(struct weft__queue *queue, weft_task *task)
{
    weft__list_remove(&queue->young, task);
    weft__queue_add_count(&queue->new_count, -1);
}

static inline void weft__queue_remove_again(struct weft__queue *queue, weft_task *task)
{
    weft__list_remove(&queue->again, task);
    weft__queue_add_count(&queue->new_count, -1);
}

static inline void weft__queue_remove_fresh(struct weft__queue *queue, weft_task *task)
{
    if (weft__home(task) & WEFT__HOME_LAST) {
        if (task->prev)
            weft__set_home(task->prev, weft__home(task->prev) | WEFT__HOME_LAST);
        else
            queue->started = true;
    }
    if (task == queue->oldest)
        queue->oldest = task->next;
    weft__list_remove(&queue->fresh, task);
    weft__queue_add_count(&queue->new_count, -1);
}

/* A task that has not started, to be run in place; `home` is its home. */
static inline void weft__queue_remove(struct weft__queue *queue, weft_task *task, uintptr_t home)
{
    /* In which list it is makes a difference only for the first, the last, and the oldest one. */
    if (__builtin_expect(!(home & WEFT__HOME_TREE), 0))
        weft__queue_remove_ready(queue, task);
    else if (__builtin_expect((!task->prev && queue->young.head != task) ||
                                  (!task->next && queue->young.tail != task) || task == queue->oldest ||
                                  (home & WEFT__HOME_LAST),
                              0))
        weft__queue_remove_fresh(queue, task);
    else
        weft__queue_remove_young(queue, task);
}

static inline weft_task *weft__queue_pop_fresh(struct weft__queue *queue, struct weft__worker *by)
{
    weft_task *task = queue->fresh.head;
    weft_task *next = task->next;
    uintptr_t home = weft__home(task);

    queue->fresh.head = next;
    if (next) {
        next->prev = NULL;
        __builtin_prefetch(next->next);
    } else {
        queue->fresh.tail = NULL;
    }
    weft__set_home(task, (uintptr_t)by | (home & (WEFT__HOME_NEW | WEFT__HOME_TREE | WEFT__HOME_AGAIN)));
    weft__queue_add_count(&queue->new_count, -1);
    if (task == queue->oldest)
        queue->oldest = next;
    if (home & WEFT__HOME_LAST)
        queue->started = true;
    return task;
}

static inline weft_task *weft__queue_pop_ready(struct weft__queue *queue, struct weft__worker *by)
{
    weft_task *task = queue->ready.head;
    weft_task *next;

    if (!task)
        return NULL;
    next = task->next;
    queue->ready.head = next;
    if (next) {
        next->prev = NULL;
        /* The record after it and its own stack are cold if many tasks take turns. */
        __builtin_prefetch(next->next);
        __builtin_prefetch(next->context.stack);
    } else {
        queue->ready.tail = NULL;
    }
    weft__set_home(task, (uintptr_t)by | (weft__home(task) & (WEFT__HOME_NEW | WEFT__HOME_AGAIN)));
    weft__queue_add_count(&queue->ready_count, -1);
    return task;
}

/* The next one may be stackless, too, and what it keeps cold. */
static inline void weft__queue_prefetch_arg(const struct weft__queue *queue)
{
    if (queue->ready.head)
        __builtin_prefetch(queue->ready.head->arg);
}

/* The next one to run; `by` is the worker that will run or queue it. */
static inline weft_task *weft__queue_pop(struct weft__queue *queue, struct weft__worker *by)
{
    if (__builtin_expect(weft__queue_has_new(queue), 0)) {
        weft__queue_close_batches(queue);
        if (queue->fresh.head && (queue->ahead <= 0 || !queue->ready.head)) {
            if (queue->ahead > 0)
                queue->ahead = -1;
            return weft__queue_pop_fresh(queue, by);
        }
        if (queue->ahead > 0 && --queue->ahead == 0)
            queue->ahead = -1;
    }
    return weft__queue_pop_ready(queue, by);
}

static inline weft_task *weft__queue_find_oldest(const struct weft__queue *queue)
{
    weft_task *task = queue->fresh.tail;

    for (int i = 0; i < WEFT__AGE_STEPS && task->prev && !(weft__home(task->prev) & WEFT__HOME_LAST); i++)
        task = task->prev;
    return task;
}

/* Some that are ready have their turn, then the batches for as long: to be told by who looks at the clock. */
static inline void weft__queue_take_turns(struct weft__queue *queue, int64_t now)
{
    if (queue->ahead < 0) {
        int64_t took = queue->passed_at ? now - queue->passed_at : 0; /* 0: it was no turn of this kind */

        queue->ahead = 0;
        queue->pass_at = now + (took < WEFT__AGE_TURN_NS ? took : WEFT__AGE_TURN_NS);
    } else if (queue->ahead == 0 && now >= queue->pass_at) {
        weft__queue_let_pass(queue, WEFT__AGE_PASS);
        queue->passed_at = now;
    }
}

/* To be called at each look around: nobody starves. */
static inline void weft__queue_age(struct weft__queue *queue, int64_t now)
{
    weft_task *oldest;

    if (!weft__queue_has_new(queue)) {
        queue->ahead = 0;
        return;
    }
    weft__queue_take_turns(queue, now);
    if (queue->looks < WEFT__AGE_LOOKS)
        queue->looks++;
    if (queue->looks < WEFT__AGE_LOOKS || !queue->fresh.head)
        return;
    oldest = queue->oldest ? queue->oldest : weft__queue_find_oldest(queue);
    if (oldest == queue->fresh.head && !queue->young.head) /* there are no newer ones */
        return;
    queue->looks = 0;
    weft__queue_remove_fresh(queue, oldest);
    weft__queue_push_ready(queue, oldest, weft__home(oldest) & ~(uintptr_t)(WEFT__HOME_LAST | WEFT__HOME_TREE));
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

/* True: it was empty. */
static inline bool weft__inbox_push(struct weft__inbox *inbox, weft_task *task)
{
    weft_task *head = atomic_load_explicit(&inbox->head, memory_order_relaxed);

    do {
        task->next = head;
        /* release: the task's contents; pairs with the acquire in weft__inbox_take */
    } while (!atomic_compare_exchange_weak_explicit(&inbox->head, &head, task, memory_order_seq_cst,
                                                    memory_order_relaxed));
    return head == NULL;
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
