/*
 * The depot of task records (record.h): full magazines in a list, and slabs from which new ones are carved. Any
 * thread, under the depot's lock.
 *
 * Slabs keep their type for ever: a thread outside may make a task ready whose runtime has ended meanwhile
 * (park.h). When a runtime ends, its slabs give their memory back and wait, mapped and zeroed, for the next one.
 */
#include "runtime/record.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

/* One slab: 4096 records. Large enough that a million tasks are some 250 mappings, merged by the kernel. */
#define SLAB_SIZE ((size_t)512 << 10)
#define SLAB_RECORDS (SLAB_SIZE / sizeof(weft_task))

/* From the seventeenth slab on, four at a time in a huge page if the kernel has one to give: a fault for each page of
 * 4 KiB is most of what a new record costs. */
#define HUGE_SIZE ((size_t)2 << 20)
#define HUGE_SLABS (HUGE_SIZE / SLAB_SIZE)
#define HUGE_FROM 16

struct slab {
    struct slab *next;
    weft_task *records;
    uint32_t carved;
};

struct weft__depot {
    pthread_mutex_t lock;
    weft_task *magazines; /* first record of each; chained by prev */
    struct slab *slabs;   /* newest first; only that one has records left to carve */
    uint32_t slab_count;
    weft_runtime *runtime;
};

struct weft__depot *weft__depot_new(weft_runtime *runtime)
{
    struct weft__depot *depot = calloc(1, sizeof *depot);

    if (!depot)
        return NULL;
    depot->runtime = runtime;
    pthread_mutex_init(&depot->lock, NULL);
    return depot;
}

static struct {
    pthread_mutex_t lock;
    struct slab *free;
} retired = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep(struct slab *slab)
{
    pthread_mutex_lock(&retired.lock);
    slab->next = retired.free;
    retired.free = slab;
    pthread_mutex_unlock(&retired.lock);
}

static void retire(struct slab *slab)
{
    madvise(slab->records, SLAB_SIZE, MADV_DONTNEED);
    keep(slab);
}

static struct slab *take_retired(void)
{
    struct slab *slab;

    pthread_mutex_lock(&retired.lock);
    slab = retired.free;
    if (slab)
        retired.free = slab->next;
    pthread_mutex_unlock(&retired.lock);
    return slab;
}

void weft__depot_free(struct weft__depot *depot)
{
    if (!depot)
        return;
    while (depot->slabs) {
        struct slab *slab = depot->slabs;

        depot->slabs = slab->next;
        for (uint32_t i = 0; i < slab->carved; i++)
            free(slab->records[i].extra);
        retire(slab);
    }
    pthread_mutex_destroy(&depot->lock);
    free(depot);
}

static void *map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static struct slab *new_slab(void *memory)
{
    struct slab *slab = memory ? malloc(sizeof *slab) : NULL;

    if (slab)
        slab->records = memory;
    else if (memory)
        munmap(memory, SLAB_SIZE);
    return slab;
}

/* Memory for some slabs, which may become a huge page. */
static char *map_huge(void)
{
    char *memory = map(2 * HUGE_SIZE);
    size_t before;

    if (!memory)
        return NULL;
    before = -(uintptr_t)memory % HUGE_SIZE;
    if (before)
        munmap(memory, before);
    munmap(memory + before + HUGE_SIZE, HUGE_SIZE - before);
    madvise(memory + before, HUGE_SIZE, MADV_HUGEPAGE); /* or the kernel has none: as well */
    return memory + before;
}

/* The first one is returned, the others wait for those who need the next. */
static struct slab *map_slabs(void)
{
    char *memory = map_huge();
    struct slab *first;

    if (!memory)
        return NULL;
    first = new_slab(memory);
    for (size_t i = HUGE_SLABS; i-- > 1;) {
        struct slab *other = new_slab(memory + i * SLAB_SIZE);

        if (other)
            keep(other);
    }
    return first;
}

static bool add_slab(struct weft__depot *depot)
{
    struct slab *slab = take_retired();

    if (!slab && depot->slab_count >= HUGE_FROM)
        slab = map_slabs();
    if (!slab)
        slab = new_slab(map(SLAB_SIZE));
    if (!slab)
        return false;
    slab->carved = 0;
    slab->next = depot->slabs;
    depot->slabs = slab;
    depot->slab_count++;
    return true;
}

/* Called with the lock. NULL: out of memory. */
static weft_task *carve_magazine(struct weft__depot *depot)
{
    struct slab *slab = depot->slabs;
    weft_task *first;

    if (!slab || slab->carved == SLAB_RECORDS) {
        if (!add_slab(depot))
            return NULL;
        slab = depot->slabs;
    }
    first = &slab->records[slab->carved];
    for (int i = 0; i < WEFT__RECORD_MAGAZINE; i++) {
        atomic_store_explicit(&first[i].state, WEFT__FREE, memory_order_relaxed);
        first[i].runtime = depot->runtime;
        first[i].next = i + 1 < WEFT__RECORD_MAGAZINE ? &first[i + 1] : NULL;
    }
    slab->carved += WEFT__RECORD_MAGAZINE;
    return first;
}

static weft_task *take_magazine(struct weft__depot *depot)
{
    weft_task *magazine;

    pthread_mutex_lock(&depot->lock);
    magazine = depot->magazines;
    if (magazine)
        depot->magazines = magazine->prev;
    else
        magazine = carve_magazine(depot);
    pthread_mutex_unlock(&depot->lock);
    return magazine;
}

static void give_magazine(struct weft__depot *depot, weft_task *magazine)
{
    pthread_mutex_lock(&depot->lock);
    magazine->prev = depot->magazines;
    depot->magazines = magazine;
    pthread_mutex_unlock(&depot->lock);
}

weft_task *weft__record_refill(struct weft__depot *depot, struct weft__records *records)
{
    weft_task *task = records->full;

    if (task)
        records->full = NULL;
    else
        task = take_magazine(depot);
    if (!task)
        return NULL;
    records->head = task->next;
    records->count = WEFT__RECORD_MAGAZINE - 1;
    return task;
}

void weft__record_spill(struct weft__depot *depot, struct weft__records *records)
{
    if (records->full)
        give_magazine(depot, records->full);
    records->full = records->head;
    records->head = NULL;
    records->count = 0;
}

void weft__records_flush(struct weft__depot *depot, struct weft__records *records)
{
    if (records->full)
        give_magazine(depot, records->full);
    if (records->count == WEFT__RECORD_MAGAZINE)
        give_magazine(depot, records->head);
    records->full = NULL;
    /* A magazine that is not full cannot go back; its records are found again when the slabs are freed. */
    records->head = NULL;
    records->count = 0;
}

void weft__depot_each(struct weft__depot *depot, void (*visit)(weft_task *task, void *arg), void *arg)
{
    struct slab *slab;

    pthread_mutex_lock(&depot->lock);
    for (slab = depot->slabs; slab; slab = slab->next)
        for (uint32_t i = 0; i < slab->carved; i++)
            visit(&slab->records[i], arg);
    pthread_mutex_unlock(&depot->lock);
}
