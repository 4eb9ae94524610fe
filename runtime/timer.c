/* Deadlines (timer.h). Any thread, under the lock; static functions are called with it. */
#include "runtime/timer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "runtime/clock.h"

enum {
    NO_SLOT = UINT32_MAX,
    FIRST_CAPACITY = 64,
    HINT_STEP = 256,
    SMALL_HEAP = 16,    /* as long as it has no more, all deadlines are put there */
    TICK_SHIFT = 20,    /* a tick is 2^20 ns */
    LEVEL_BITS = 6,     /* of a tick's number for each level */
    MOVED_AT_ONCE = 64, /* so many with the lock held: peers may wait for it */
    PAUSES = 64
};

static const uint32_t IN_WHEEL = 1u << 31;

void weft__timers_init(struct weft__timers *timers)
{
    *timers = (struct weft__timers){
        .free_slot = NO_SLOT, .far = INT64_MAX, .cursor = (uint64_t)weft__clock_now() >> TICK_SHIFT};
    atomic_init(&timers->earliest, INT64_MAX);
}

void weft__timers_free(struct weft__timers *timers)
{
    free(timers->heap);
    free(timers->slots);
}

/* ---- the heap ---- */

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

static void push(struct weft__timers *timers, uint32_t index)
{
    sift_up(timers, timers->count++, (struct weft__timer_entry){timers->slots[index].when, index});
}

static void remove_from_heap(struct weft__timers *timers, uint32_t position)
{
    struct weft__timer_entry last = timers->heap[--timers->count];

    if (position >= timers->count)
        return;
    if (position > 0 && last.when < timers->heap[(position - 1) / 4].when)
        sift_up(timers, position, last);
    else
        sift_down(timers, position, last);
}

/* ---- the wheel ---- */

static uint64_t tick_of(int64_t when)
{
    return (uint64_t)when >> TICK_SHIFT;
}

/* The level at which a tick differs from the cursor: so low that its bucket comes before the cursor gets there. */
static unsigned level_of(const struct weft__timers *timers, uint64_t tick)
{
    uint64_t difference = tick ^ timers->cursor;

    return difference ? (63 - (unsigned)__builtin_clzll(difference)) / LEVEL_BITS : 0;
}

static unsigned bucket_of(uint64_t tick, unsigned level)
{
    return (unsigned)(tick >> (level * LEVEL_BITS)) % WEFT__WHEEL_BUCKETS;
}

static void put_into_bucket(struct weft__timers *timers, uint32_t index, unsigned level, unsigned number)
{
    struct weft__timer_bucket *bucket = &timers->buckets[level][number];
    struct weft__timer_slot *slot = &timers->slots[index];
    bool is_first = !(timers->occupied[level] & UINT64_C(1) << number);

    slot->position = IN_WHEEL | (level * WEFT__WHEEL_BUCKETS + number);
    slot->prev = NO_SLOT;
    slot->next = is_first ? NO_SLOT : bucket->first;
    if (!is_first)
        timers->slots[slot->next].prev = index;
    if (is_first || slot->when < bucket->least)
        bucket->least = slot->when;
    bucket->first = index;
    timers->occupied[level] |= UINT64_C(1) << number;
    timers->far_count++;
    if (slot->when < timers->far)
        timers->far = slot->when;
}

/* In each level all buckets in use come after the cursor's, or are that: the level's first is its earliest. (A lower
 * level may be later than a higher one whose bucket the cursor has just reached.) */
static int64_t earliest_of_wheel(const struct weft__timers *timers)
{
    int64_t earliest = INT64_MAX;

    for (unsigned level = 0; level < WEFT__WHEEL_LEVELS; level++)
        if (timers->occupied[level]) {
            int64_t least = timers->buckets[level][__builtin_ctzll(timers->occupied[level])].least;

            earliest = least < earliest ? least : earliest;
        }
    return earliest;
}

static void remove_from_wheel(struct weft__timers *timers, const struct weft__timer_slot *slot)
{
    unsigned level = (slot->position & ~IN_WHEEL) / WEFT__WHEEL_BUCKETS;
    unsigned number = slot->position % WEFT__WHEEL_BUCKETS;

    if (slot->next != NO_SLOT)
        timers->slots[slot->next].prev = slot->prev;
    if (slot->prev != NO_SLOT)
        timers->slots[slot->prev].next = slot->next;
    else if (slot->next != NO_SLOT)
        timers->buckets[level][number].first = slot->next;
    else
        timers->occupied[level] &= ~(UINT64_C(1) << number);
    timers->far_count--;
    if (slot->when == timers->far || !(timers->occupied[level] & UINT64_C(1) << number))
        timers->far = earliest_of_wheel(timers);
}

/* Where a deadline belongs, as the cursor stands. */
static void put(struct weft__timers *timers, uint32_t index)
{
    uint64_t tick = tick_of(timers->slots[index].when);
    unsigned level;

    if (timers->count < SMALL_HEAP || tick < timers->cursor ||
        (level = level_of(timers, tick)) >= WEFT__WHEEL_LEVELS)
        push(timers, index);
    else
        put_into_bucket(timers, index, level, bucket_of(tick, level));
}

/* The bucket that must be emptied before the cursor may go on, from the highest level down; or NULL. */
static struct weft__timer_bucket *bucket_at_cursor(struct weft__timers *timers, unsigned *level)
{
    for (unsigned i = WEFT__WHEEL_LEVELS; i-- > 0;) {
        unsigned number = bucket_of(timers->cursor, i);

        if ((timers->occupied[i] & UINT64_C(1) << number) != 0) {
            *level = i;
            return &timers->buckets[i][number];
        }
    }
    return NULL;
}

/* To the next tick at which there may be something to do, at most to `end`. */
static void move_cursor(struct weft__timers *timers, uint64_t end)
{
    uint64_t step = 1; /* a bucket of the lowest level that is in use, in ticks */
    uint64_t next;

    for (unsigned level = 0; level < WEFT__WHEEL_LEVELS && !timers->occupied[level]; level++)
        step <<= LEVEL_BITS;
    next = timers->far_count ? (timers->cursor / step + 1) * step : end;
    timers->cursor = next < end ? next : end;
}

/* Turn the wheel past `now`. False: there is more to do. */
static bool turn(struct weft__timers *timers, int64_t now)
{
    uint64_t end = tick_of(now) + 1;
    unsigned level;

    for (unsigned moved = 0; timers->cursor < end;) {
        struct weft__timer_bucket *bucket = bucket_at_cursor(timers, &level);
        uint32_t index;

        if (!bucket) {
            move_cursor(timers, end);
            continue;
        }
        if (moved++ == MOVED_AT_ONCE)
            return false;
        index = bucket->first;
        remove_from_wheel(timers, &timers->slots[index]);
        if (level == 0)
            push(timers, index);
        else
            put(timers, index);
    }
    return true;
}

/* While nothing passes the wheel stands still. Before it has fallen so far behind that what is near seems far: */
static void catch_up(struct weft__timers *timers, int64_t when)
{
    uint64_t tick = tick_of(when);

    if (timers->count < SMALL_HEAP || tick < timers->cursor ||
        (timers->far_count > 0 && level_of(timers, tick) < WEFT__WHEEL_LEVELS))
        return;
    while (!turn(timers, weft__clock_now()))
        ;
}

/* ---- both ---- */

static void publish_earliest(struct weft__timers *timers)
{
    int64_t near = timers->count ? timers->heap[0].when : INT64_MAX;
    int64_t earliest = near < timers->far ? near : timers->far;
    uint32_t count = timers->count + timers->far_count;

    /* Only written when it changes: others read this line. */
    if (earliest != atomic_load_explicit(&timers->earliest, memory_order_relaxed))
        atomic_store_explicit(&timers->earliest, earliest, memory_order_relaxed);
    if (count / HINT_STEP != atomic_load_explicit(&timers->hint, memory_order_relaxed) / HINT_STEP)
        atomic_store_explicit(&timers->hint, count, memory_order_relaxed);
}

/* The lock is held over an allocation, which is rare: the arrays double. */
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
    slot->when = when;
    *timer = (struct weft__timer){timers, index, slot->generation};
    catch_up(timers, when);
    put(timers, index);
    rc = when < weft__timers_earliest(timers);
    publish_earliest(timers);
out:
    weft__lock_leave(&timers->lock);
    return rc;
}

static weft_task *take_out(struct weft__timers *timers, uint32_t index)
{
    struct weft__timer_slot *slot = &timers->slots[index];

    if (slot->position & IN_WHEEL)
        remove_from_wheel(timers, slot);
    else
        remove_from_heap(timers, slot->position);
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
    while (!turn(timers, now)) {
        weft__lock_leave(&timers->lock);
        for (int i = 0; i < PAUSES; i++) /* let others have it */
            weft__pause();
        weft__lock_enter(&timers->lock);
    }
    while (n < max && timers->count && timers->heap[0].when <= now)
        tasks[n++] = take_out(timers, timers->heap[0].slot);
    publish_earliest(timers);
    weft__lock_leave(&timers->lock);
    return n;
}
