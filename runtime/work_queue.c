/*
 * weft_queue: items that are put, taken and reported as done. Any thread; knows only park.h.
 *
 * One spinlock a queue, over everything in it. Invariants, whenever the lock is free:
 *
 *   - getters wait only if the queue is empty and open;
 *   - putters wait only if it is full (count == capacity) and open;
 *   - joiners wait only if `unfinished` is not 0;
 *   - count <= unfinished: an item is unfinished from the moment that it is in the queue, or handed to a getter, until
 *     it is reported as done, or dropped; those that are not in the queue have been taken.
 *
 * So whoever puts an item and finds a getter waiting copies it straight to where that one wants it (wait.slot): there is
 * no other item that would come first, in any order. Whoever takes an item moves that of the first waiting putter
 * in; the storage has room for it, since it has just had a full queue. Both copies happen under the lock, from or to
 * the frame of a waiter that cannot leave: a wait ends by being settled, which comes after the copy, or by its waiter
 * giving up, which takes the lock and finds the wait detached. Hence an item is moved exactly when its wait is detached,
 * and a wait that was detached is always settled (waiters.h): a waiter that is cancelled at that moment returns 0.
 *
 * How a waiter that gives up tells that it was detached: getters and putters are detached one by one, and marked, or all
 * at once for good, by shutting down, which `shut` says. Joiners are detached all at once and may queue again: a
 * count of these moments, `rounds`, stands in each wait (as in event.c).
 *
 * As everywhere, waits are settled after the lock was left, and that is the last access: who takes the last item, or
 * is told that all are done, may free the queue.
 *
 * Storage is one array of slots: a ring in FIFO order, a stack in LIFO order, a heap of four children a node for
 * priorities, whose slots hold the item and the number of its arrival, so that equal items keep their order. It
 * starts at about a page and doubles, bounded by the capacity; the memory is had outside the lock by the putter that
 * needs it. An array larger than it started is given back when the queue is drained. Growing costs a copy under
 * the lock, twice an item on average over a queue's filling.
 */
#include "runtime/elem.h"
#include "runtime/waitable.h"

#include <stdlib.h>
#include <string.h>
#include <weft/queue.h>

enum { CACHE_LINE = 64 };

/* The first array: about a page, at least a handful of items. */
enum { FIRST_BYTES = 4000, FIRST_LEAST = 8 };

/* So that rounding a size up does not overflow. */
#define LARGEST_ITEM ((size_t)PTRDIFF_MAX - 64)

/* Wider than deep: a level of the heap is a cache miss or two, comparing siblings is not. */
enum { CHILDREN = 4 };

struct weft_queue {
    weft__lock lock;
    enum weft_queue_order order;
    bool shut;
    uint32_t rounds; /* times that all was done while somebody waited for that */
    size_t item_size;
    size_t count;
    size_t capacity;
    size_t unfinished;
    unsigned char *slots; /* NULL as long as room is 0, or items have no size */
    size_t room;          /* slots there are */
    size_t first_room;    /* of the first array */
    size_t stride;        /* bytes from slot to slot */
    size_t head;          /* FIFO: the slot of the oldest item */
    weft_waiters getters;
    weft_waiters putters;
    weft_waiters joiners;

    /* PRIORITY */
    weft_queue_compare *compare;
    size_t arrival_at; /* where in a slot the number of arrival is */
    uint64_t arrivals;
};

/* ---- items ---- */

static inline void copy(const weft_queue *queue, void *to, const void *from)
{
    weft__elem_copy(to, from, queue->item_size);
}

static inline unsigned char *slot_at(const weft_queue *queue, size_t index)
{
    return queue->slots + index * queue->stride;
}

static inline size_t wrap(const weft_queue *queue, size_t index)
{
    return index >= queue->room ? index - queue->room : index;
}

/* ---- the heap: whole slots, the first one at the top ---- */

static inline uint64_t arrival_of(const weft_queue *queue, const unsigned char *slot)
{
    uint64_t arrival;

    memcpy(&arrival, slot + queue->arrival_at, sizeof arrival);
    return arrival;
}

static bool comes_before(const weft_queue *queue, const unsigned char *a, const unsigned char *b)
{
    int order = queue->compare(a, b);

    return order < 0 || (order == 0 && arrival_of(queue, a) < arrival_of(queue, b));
}

/* The item is the last to arrive: it goes above those only that it is less than. */
static void heap_insert(weft_queue *queue, const void *item)
{
    size_t hole = queue->count;
    unsigned char *slot;

    while (hole != 0) {
        size_t parent = (hole - 1) / CHILDREN;

        if (queue->compare(item, slot_at(queue, parent)) >= 0)
            break;
        memcpy(slot_at(queue, hole), slot_at(queue, parent), queue->stride);
        hole = parent;
    }
    slot = slot_at(queue, hole);
    copy(queue, slot, item);
    memcpy(slot + queue->arrival_at, &queue->arrivals, sizeof queue->arrivals);
    queue->arrivals++;
}

/* The child of `hole` that comes first, among `count` slots; NULL if there is none. */
static unsigned char *first_child(const weft_queue *queue, size_t hole, size_t count, size_t *index)
{
    unsigned char *first = NULL;

    for (size_t i = 1; i <= CHILDREN && hole * CHILDREN + i < count; i++) {
        unsigned char *child = slot_at(queue, hole * CHILDREN + i);

        if (first == NULL || comes_before(queue, child, first)) {
            first = child;
            *index = hole * CHILDREN + i;
        }
    }
    return first;
}

/* Take the top slot out of count + 1; the last one fills the hole, further down. */
static void heap_remove(weft_queue *queue)
{
    unsigned char *last = slot_at(queue, queue->count), *child;
    size_t hole = 0, index = 0;

    while ((child = first_child(queue, hole, queue->count, &index)) != NULL && comes_before(queue, child, last)) {
        memcpy(slot_at(queue, hole), child, queue->stride);
        hole = index;
    }
    if (hole != queue->count)
        memcpy(slot_at(queue, hole), last, queue->stride);
}

/* ---- storing and fetching, in the queue's order ---- */

/* Locked, and there is a slot. */
static inline void store(weft_queue *queue, const void *item)
{
    queue->unfinished++;
    if (queue->item_size == 0) {
        queue->count++;
        return;
    }
    switch (queue->order) {
    case WEFT_QUEUE_FIFO:
        copy(queue, slot_at(queue, wrap(queue, queue->head + queue->count)), item);
        break;
    case WEFT_QUEUE_LIFO:
        copy(queue, slot_at(queue, queue->count), item);
        break;
    case WEFT_QUEUE_PRIORITY:
        heap_insert(queue, item);
        break;
    }
    queue->count++;
}

/* Locked, and there is an item. */
static inline void fetch(weft_queue *queue, void *item)
{
    queue->count--;
    if (queue->item_size == 0)
        return;
    switch (queue->order) {
    case WEFT_QUEUE_FIFO:
        copy(queue, item, slot_at(queue, queue->head));
        queue->head = wrap(queue, queue->head + 1);
        break;
    case WEFT_QUEUE_LIFO:
        copy(queue, item, slot_at(queue, queue->count));
        break;
    case WEFT_QUEUE_PRIORITY:
        copy(queue, item, slot_at(queue, 0));
        heap_remove(queue);
        break;
    }
}

/* ---- growing and shrinking ---- */

/* How many slots there should be when `room` are not enough; never more than the capacity. */
static size_t next_room(const weft_queue *queue, size_t room)
{
    if (room == 0)
        return queue->first_room;
    return room < queue->capacity / 2 ? 2 * room : queue->capacity;
}

static unsigned char *slots_new(const weft_queue *queue, size_t room)
{
    size_t bytes;

    if (__builtin_mul_overflow(room, queue->stride, &bytes) || bytes > PTRDIFF_MAX)
        return NULL;
    return malloc(bytes);
}

/* Locked: move to a larger array. Returns the old one. */
static unsigned char *move_to(weft_queue *queue, unsigned char *slots, size_t room)
{
    unsigned char *old = queue->slots;
    size_t before_the_end = queue->room - queue->head;

    if (before_the_end > queue->count)
        before_the_end = queue->count;
    if (queue->count != 0) {
        memcpy(slots, slot_at(queue, queue->head), before_the_end * queue->stride);
        memcpy(slots + before_the_end * queue->stride, old, (queue->count - before_the_end) * queue->stride);
    }
    queue->slots = slots;
    queue->room = room;
    queue->head = 0;
    return old;
}

/* Locked at entry and exit, not between. */
static __attribute__((noinline)) int grow(weft_queue *queue)
{
    size_t room = next_room(queue, queue->room);
    unsigned char *slots;

    weft__lock_leave(&queue->lock);
    slots = slots_new(queue, room);
    weft__lock_enter(&queue->lock);
    if (slots == NULL)
        return -ENOMEM;
    if (room > queue->room)
        slots = move_to(queue, slots, room);
    weft__lock_leave(&queue->lock);
    /* The old array; or the new one, if another putter was faster. */
    free(slots);
    weft__lock_enter(&queue->lock);
    return 0;
}

/* Locked: what is to be freed after a drained queue's lock was left, or NULL. */
static inline unsigned char *spare_slots(weft_queue *queue)
{
    unsigned char *slots = queue->slots;

    if (__builtin_expect(slots == NULL || queue->count != 0 || queue->room <= queue->first_room, 1))
        return NULL;
    queue->slots = NULL;
    queue->room = 0;
    queue->head = 0;
    return slots;
}

/* ---- putting and getting without waiting ---- */

/*
 * Locked. 0 with *getter the wait to settle, if the item went to one; -ESHUTDOWN, -EAGAIN; -ENOMEM if there must be more
 * slots first.
 */
static inline int put_locked(weft_queue *queue, const void *item, struct weft__wait **getter)
{
    if (queue->shut)
        return -ESHUTDOWN;
    *getter = weft__waiters_pop(&queue->getters);
    if (*getter != NULL) {
        copy(queue, (*getter)->slot, item);
        queue->unfinished++;
        return 0;
    }
    if (queue->count == queue->capacity)
        return -EAGAIN;
    if (__builtin_expect(queue->count == queue->room, 0))
        return -ENOMEM;
    store(queue, item);
    return 0;
}

/* Enters the lock; with -EAGAIN the lock is still held, else left. */
static inline int put_or_hold(weft_queue *queue, const void *item)
{
    struct weft__wait *getter = NULL;
    int rc;

    weft__lock_enter(&queue->lock);
    rc = put_locked(queue, item, &getter);
    while (__builtin_expect(rc == -ENOMEM, 0)) {
        if (grow(queue) < 0)
            break;
        rc = put_locked(queue, item, &getter);
    }
    if (rc == -EAGAIN)
        return rc;
    weft__lock_leave(&queue->lock);
    if (getter != NULL)
        weft__wake(getter, WEFT__GRANTED);
    return rc;
}

/* Enters the lock; with -EAGAIN the lock is still held, else left. */
static inline int get_or_hold(weft_queue *queue, void *item)
{
    struct weft__wait *putter;
    unsigned char *spare = NULL;

    weft__lock_enter(&queue->lock);
    if (queue->count == 0) {
        if (!queue->shut)
            return -EAGAIN;
        weft__lock_leave(&queue->lock);
        return -ESHUTDOWN;
    }
    fetch(queue, item);
    putter = weft__waiters_pop(&queue->putters);
    if (putter != NULL)
        store(queue, putter->slot);
    else
        spare = spare_slots(queue);
    weft__lock_leave(&queue->lock);
    if (putter != NULL)
        weft__wake(putter, WEFT__GRANTED);
    if (__builtin_expect(spare != NULL, 0))
        free(spare);
    return 0;
}

int weft_queue_try_put(weft_queue *queue, const void *item)
{
    int rc = put_or_hold(queue, item);

    if (rc == -EAGAIN)
        weft__lock_leave(&queue->lock);
    return rc;
}

int weft_queue_try_get(weft_queue *queue, void *item)
{
    int rc = get_or_hold(queue, item);

    if (rc == -EAGAIN)
        weft__lock_leave(&queue->lock);
    return rc;
}

/* ---- waiting ---- */

/* Locked at entry, not at exit. */
static int begin_to_wait(weft_queue *queue, weft_waiters *list, struct weft__wait *wait, uint32_t kind)
{
    wait->kind = kind;
    weft__waiters_push(list, wait);
    weft__lock_leave(&queue->lock);
    return WEFT__BEGUN;
}

/* A putter or getter gives up. False: it was detached. */
static bool withdraw(weft_queue *queue, weft_waiters *list, struct weft__wait *wait)
{
    bool queued;

    weft__lock_enter(&queue->lock);
    queued = wait->kind == WEFT__QUEUED && !queue->shut;
    if (queued)
        weft__waiters_remove(list, wait);
    weft__lock_leave(&queue->lock);
    return queued;
}

static int begin_put(void *object, struct weft__wait *wait)
{
    weft_queue *queue = object;
    int rc = put_or_hold(queue, wait->slot);

    return rc == -EAGAIN ? begin_to_wait(queue, &queue->putters, wait, WEFT__QUEUED) : rc;
}

static bool withdraw_put(void *object, struct weft__wait *wait)
{
    weft_queue *queue = object;

    return withdraw(queue, &queue->putters, wait);
}

static int begin_get(void *object, struct weft__wait *wait)
{
    weft_queue *queue = object;
    int rc = get_or_hold(queue, wait->slot);

    return rc == -EAGAIN ? begin_to_wait(queue, &queue->getters, wait, WEFT__QUEUED) : rc;
}

static bool withdraw_get(void *object, struct weft__wait *wait)
{
    weft_queue *queue = object;

    return withdraw(queue, &queue->getters, wait);
}

static int begin_join(void *object, struct weft__wait *wait)
{
    weft_queue *queue = object;

    weft__lock_enter(&queue->lock);
    if (queue->unfinished != 0)
        return begin_to_wait(queue, &queue->joiners, wait, queue->rounds);
    weft__lock_leave(&queue->lock);
    return 0;
}

static bool withdraw_join(void *object, struct weft__wait *wait)
{
    weft_queue *queue = object;
    bool queued;

    weft__lock_enter(&queue->lock);
    queued = wait->kind == queue->rounds;
    if (queued)
        weft__waiters_remove(&queue->joiners, wait);
    weft__lock_leave(&queue->lock);
    return queued;
}

static const struct weft__waitable putting = {begin_put, withdraw_put};
static const struct weft__waitable getting = {begin_get, withdraw_get};
static const struct weft__waitable joining = {begin_join, withdraw_join};

static __attribute__((noinline)) int wait_with(const struct weft__waitable *how, weft_queue *queue, void *item)
{
    struct weft__wait wait = {.slot = item};
    int rc = weft__wait_for(how, queue, &wait);

    return rc == 0 && weft__outcome_of(&wait) == WEFT__CLOSED ? -ESHUTDOWN : rc;
}

int weft_queue_put(weft_queue *queue, const void *item)
{
    int rc = weft__suspend_check();

    if (__builtin_expect(rc < 0, 0))
        return rc;
    rc = weft_queue_try_put(queue, item);
    return rc == -EAGAIN ? wait_with(&putting, queue, (void *)(uintptr_t)item) : rc;
}

int weft_queue_get(weft_queue *queue, void *item)
{
    int rc = weft__suspend_check();

    if (__builtin_expect(rc < 0, 0))
        return rc;
    rc = weft_queue_try_get(queue, item);
    return rc == -EAGAIN ? wait_with(&getting, queue, item) : rc;
}

/* ---- what becomes of the items that were taken ---- */

/* Locked, and nothing is unfinished any more: detach those who wait for that. */
static struct weft__wait *take_joiners(weft_queue *queue)
{
    if (weft__waiters_empty(&queue->joiners))
        return NULL;
    queue->rounds++;
    return weft__waiters_take(&queue->joiners);
}

int weft_queue_task_done(weft_queue *queue)
{
    struct weft__wait *joiners = NULL;

    weft__lock_enter(&queue->lock);
    if (queue->unfinished == queue->count) {
        weft__lock_leave(&queue->lock);
        return -EINVAL;
    }
    if (--queue->unfinished == 0)
        joiners = take_joiners(queue);
    weft__lock_leave(&queue->lock);
    weft__wake_chain(joiners, WEFT__GRANTED, NULL);
    return 0;
}

int weft_queue_join(weft_queue *queue)
{
    struct weft__wait wait = {.slot = NULL};
    int rc = weft__suspend_check();

    return rc < 0 ? rc : weft__wait_for(&joining, queue, &wait);
}

/* ---- the end ---- */

int weft_queue_shutdown(weft_queue *queue, int drop)
{
    struct weft__wait *getters, *putters, *joiners = NULL;
    unsigned char *spare = NULL;

    weft__lock_enter(&queue->lock);
    queue->shut = true;
    getters = weft__waiters_take(&queue->getters);
    putters = weft__waiters_take(&queue->putters);
    if (drop) {
        queue->unfinished -= queue->count;
        queue->count = 0;
        spare = spare_slots(queue);
        if (queue->unfinished == 0)
            joiners = take_joiners(queue);
    }
    weft__lock_leave(&queue->lock);
    weft__wake_chain(getters, WEFT__CLOSED, NULL);
    weft__wake_chain(putters, WEFT__CLOSED, NULL);
    weft__wake_chain(joiners, WEFT__GRANTED, NULL);
    free(spare);
    return 0;
}

size_t weft_queue_len(weft_queue *queue)
{
    size_t count;

    weft__lock_enter(&queue->lock);
    count = queue->count;
    weft__lock_leave(&queue->lock);
    return count;
}

/* ---- the queue ---- */

/*
 * Bytes from slot to slot. The items of a heap are shown to the program where they lie, so they are as aligned there as
 * their size allows them to need to be; the number of arrival comes behind.
 */
static size_t stride_of(const weft_queue *queue)
{
    size_t alignment = queue->item_size % 16 == 0 ? 16 : sizeof(uint64_t);

    if (queue->order != WEFT_QUEUE_PRIORITY)
        return queue->item_size;
    return (queue->arrival_at + sizeof(uint64_t) + alignment - 1) & ~(alignment - 1);
}

static size_t first_room(const weft_queue *queue)
{
    size_t room;

    /* Items without size need no storage, only counting. */
    if (queue->item_size == 0)
        return queue->capacity;
    room = FIRST_BYTES / queue->stride;
    if (room < FIRST_LEAST)
        room = FIRST_LEAST;
    return room < queue->capacity ? room : queue->capacity;
}

static bool are_possible(enum weft_queue_order order, size_t item_size, size_t capacity,
                         weft_queue_compare *compare)
{
    if (item_size > LARGEST_ITEM || capacity == 0)
        return false;
    switch (order) {
    case WEFT_QUEUE_FIFO:
    case WEFT_QUEUE_LIFO:
        return compare == NULL;
    case WEFT_QUEUE_PRIORITY:
        return compare != NULL;
    }
    return false;
}

weft_queue *weft_queue_new(enum weft_queue_order order, size_t item_size, size_t capacity,
                           weft_queue_compare *compare)
{
    weft_queue *queue;

    if (!are_possible(order, item_size, capacity, compare))
        return NULL;
    queue = aligned_alloc(CACHE_LINE, (sizeof(*queue) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (queue == NULL)
        return NULL;
    memset(queue, 0, sizeof(*queue));
    queue->order = order;
    queue->item_size = item_size;
    queue->capacity = capacity;
    queue->compare = compare;
    queue->arrival_at = (item_size + sizeof(uint64_t) - 1) & ~(sizeof(uint64_t) - 1);
    queue->stride = stride_of(queue);
    queue->first_room = first_room(queue);
    queue->room = item_size == 0 ? capacity : 0;
    return queue;
}

void weft_queue_free(weft_queue *queue)
{
    if (queue == NULL)
        return;
    free(queue->slots);
    free(queue);
}
