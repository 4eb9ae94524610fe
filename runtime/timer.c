/* The heap of deadlines (timer.h). Any thread, under the heap's lock. */
#include "runtime/timer.h"

#include <errno.h>
#include <stdlib.h>

enum { NO_SLOT = UINT32_MAX, FIRST_CAPACITY = 64, HINT_STEP = 256 };

void weft__timers_init(struct weft__timers *timers)
{
    *timers = (struct weft__timers){.free_slot = NO_SLOT};
    atomic_init(&timers->earliest, INT64_MAX);
}

void weft__timers_free(struct weft__timers *timers)
{
    free(timers->heap);
    free(timers->slots);
}

static void place(struct weft__timers *timers, uint32_t position, struct weft__timer_entry entry)
{
    timers->heap[position] = entry;
    timers->slots[entry.slot].position = position;
}

static void sift_up(struct weft__timers *timers, uint32_t position, struct weft__timer_entry entry)
{
    while (position > 0) {
        uint32_t parent = (position - 1) / 4;

        if (timers->heap[parent].when <= entry.when)
            break;
        place(timers, position, timers->heap[parent]);
        position = parent;
    }
    place(timers, position, entry);
}

static uint32_t least_child(const struct weft__timers *timers, uint32_t position)
{
    uint32_t first = position * 4 + 1;
    uint32_t end = first + 4 < timers->count ? first + 4 : timers->count;
    uint32_t least = first;

    for (uint32_t child = first + 1; child < end; child++)
        if (timers->heap[child].when < timers->heap[least].when)
            least = child;
    return least;
}

static void sift_down(struct weft__timers *timers, uint32_t position, struct weft__timer_entry entry)
{
    while (position * 4 + 1 < timers->count) {
        uint32_t child = least_child(timers, position);

        if (entry.when <= timers->heap[child].when)
            break;
        place(timers, position, timers->heap[child]);
        position = child;
    }
    place(timers, position, entry);
}

static void publish_earliest(struct weft__timers *timers)
{
    int64_t earliest = timers->count ? timers->heap[0].when : INT64_MAX;

    /* Only written when it changes: others read this line. */
    if (earliest != atomic_load_explicit(&timers->earliest, memory_order_relaxed))
        atomic_store_explicit(&timers->earliest, earliest, memory_order_relaxed);
    if (timers->count / HINT_STEP != atomic_load_explicit(&timers->hint, memory_order_relaxed) / HINT_STEP)
        atomic_store_explicit(&timers->hint, timers->count, memory_order_relaxed);
}

/* Called with the lock; the lock is held over an allocation, which is rare: the arrays double. */
static int grow(struct weft__timers *timers)
{
    uint32_t capacity = timers->capacity ? timers->capacity * 2 : FIRST_CAPACITY;
    struct weft__timer_entry *heap;
    struct weft__timer_slot *slots;

    if (capacity > UINT32_MAX / 8)
        return -ENOMEM;
    heap = realloc(timers->heap, capacity * sizeof *heap);
    if (!heap)
        return -ENOMEM;
    timers->heap = heap;
    slots = realloc(timers->slots, capacity * sizeof *slots);
    if (!slots)
        return -ENOMEM;
    timers->slots = slots;
    for (uint32_t i = capacity; i-- > timers->capacity;) {
        slots[i] = (struct weft__timer_slot){.position = timers->free_slot};
        timers->free_slot = i;
    }
    timers->capacity = capacity;
    return 0;
}

int weft__timer_set(struct weft__timers *timers, struct weft__timer *timer, int64_t when, weft_task *task)
{
    struct weft__timer_slot *slot;
    uint32_t index;
    int rc = 0;

    weft__lock_enter(&timers->lock);
    if (timers->free_slot == NO_SLOT && (rc = grow(timers)) < 0)
        goto out;
    index = timers->free_slot;
    slot = &timers->slots[index];
    timers->free_slot = slot->position;
    slot->task = task;
    *timer = (struct weft__timer){timers, index, slot->generation};
    sift_up(timers, timers->count++, (struct weft__timer_entry){when, index});
    rc = slot->position == 0;
    publish_earliest(timers);
out:
    weft__lock_leave(&timers->lock);
    return rc;
}

/* Called with the lock. */
static weft_task *take_out(struct weft__timers *timers, uint32_t index)
{
    struct weft__timer_slot *slot = &timers->slots[index];
    uint32_t position = slot->position;
    struct weft__timer_entry last = timers->heap[--timers->count];

    if (position < timers->count) {
        if (position > 0 && last.when < timers->heap[(position - 1) / 4].when)
            sift_up(timers, position, last);
        else
            sift_down(timers, position, last);
    }
    slot->generation++;
    slot->position = timers->free_slot;
    timers->free_slot = index;
    return slot->task;
}

void weft__timer_cancel(struct weft__timer *timer)
{
    struct weft__timers *timers = timer->timers;

    weft__lock_enter(&timers->lock);
    if (timers->slots[timer->slot].generation == timer->generation) {
        take_out(timers, timer->slot);
        publish_earliest(timers);
    }
    weft__lock_leave(&timers->lock);
}

unsigned weft__timers_expire(struct weft__timers *timers, int64_t now, weft_task **tasks, unsigned max)
{
    unsigned n = 0;

    weft__lock_enter(&timers->lock);
    while (n < max && timers->count && timers->heap[0].when <= now)
        tasks[n++] = take_out(timers, timers->heap[0].slot);
    publish_earliest(timers);
    weft__lock_leave(&timers->lock);
    return n;
}
