/*
 * Stacks: this file owns the address space that coroutines run in. Called from any thread; a cache belongs to
 * one thread (or to the worker that is driven by one thread at a time).
 *
 * A chunk is one mapping that is carved into 64 slots, so that its bookkeeping is two words of bits. A slot,
 * upward from its low end:
 *
 *      guard (a page) | slack for tasks run in place | what a task may use | start, header | colour
 *
 * The header lies in the memory that the first frames touch anyway: a stack in use costs one page. Stacks lie
 * at equal distances, so their tops would fall into the same few sets of the cache: the header and what is
 * below it move down by a colour, a different one for neighbours.
 *
 * A stack is in one of four states:
 *
 *      out     handed out, or in a cache, or in the hands of a thread that trims it: in neither word
 *      warm    in the pool, its memory kept, its header valid: its bit in `warm`
 *      cold    in the pool, without memory: its bit in `cold`; its header is made anew when it leaves
 *      (bare)  all stacks of a chunk are cold and its guards and page tables are gone as well
 *
 * The pool hands out warm stacks first (those that came back last), then cold ones of chunks that are in use,
 * then those of empty chunks. It keeps a bounded number of warm ones. Chunks all of whose stacks have come
 * back go first when there are too many, since they are trimmed by a single call; otherwise the chunk that has
 * waited longest for its other stacks goes.
 *
 * One mutex protects all that the pool and its chunks contain, but for the counters. No system call is made and
 * no stack is touched (a page fault) while it is held: whoever trims or prepares takes the bits, or the whole
 * chunk, out of the pool first, and is then the only one who knows of these stacks.
 */
#include "runtime/stack.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__has_feature)
#define HAS_FEATURE(feature) __has_feature(feature)
#else
#define HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || HAS_FEATURE(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) || HAS_FEATURE(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
#define TSAN 1
#endif

/* Newer than the C library's headers that this must build with. */
#if !defined(MADV_GUARD_INSTALL)
#define MADV_GUARD_INSTALL 102
#endif
#if !defined(SYS_process_madvise)
#define SYS_process_madvise 440
#endif
#define THIS_PROCESS (-10000) /* PIDFD_SELF_THREAD_GROUP */

#define CHUNK_STACKS 64
#define ALL_STACKS UINT64_MAX

/* Sixteen starts, one cache line apart: the frames of a parked task are a few lines long, and what is lost of
 * the top page is less than a quarter. */
#define COLOURS 16
#define COLOUR_STEP 64
#define HEADER_ROOM 64

#define CACHE_LIMIT 256
#define BATCH_WARM 64
#define BATCH_MOST 64
#define RANGES 16     /* for one system call */
#define BATCH_COLD 16 /* each costs a page fault (2 µs) and a page before it is known to be needed */

/* Warm stacks that the pool keeps: so many, or this part of those in use, if that is more, so that mass
 * endings find whole chunks to trim (0.3 µs a stack, against 0.6 µs one by one). A thousand pairs of tasks that
 * come and go, again and again, must not pay two page faults a pair each time; 4096 stacks are 16 MiB. */
#define WARM_FLOOR 4096
#define WARM_SHARE 16

/* What stays of the memory of a warm stack. */
#define WARM_BYTES 16384
#define MOST_PAGES_LOOKED_AT 64

/* Empty chunks that keep their guards and page tables. A bare one costs 0.6 µs a stack to use again, one that
 * is not bare holds 520 bytes of page tables a stack (at the default size). */
#define READY_CHUNKS 16

struct weft__stack_chunk {
    char *base;
    uint64_t warm;
    uint64_t cold;
    struct chunk_list *cold_home; /* the list it is in for its cold stacks, or NULL */
    int warm_listed;
    int bare;
    TAILQ_ENTRY(weft__stack_chunk) by_warm;
    TAILQ_ENTRY(weft__stack_chunk) by_cold;
    struct weft__stack_chunk *next; /* all chunks of the pool */
};

TAILQ_HEAD(chunk_list, weft__stack_chunk);

struct weft__stack_pool {
    size_t page;
    size_t size; /* what a task may use */
    size_t slot;

    pthread_mutex_t mutex; /* protects the lists and the chunks in them */
    struct weft__stack_chunk *chunks;
    struct chunk_list warm;    /* chunks with warm stacks; the head is used first, the tail trimmed first */
    struct chunk_list partial; /* in use, with cold stacks */
    struct chunk_list empty;   /* all stacks cold */
    struct chunk_list bare;    /* all stacks cold, no guards */
    unsigned empty_count;

    /* Counters, and what the kernel has turned out to be able to do. Written by any thread; relaxed, since
     * nothing else is concluded from them. */
    _Atomic uint64_t live;
    _Atomic uint64_t warm_count;
    _Atomic uint64_t unguarded;
    _Atomic int no_batches;
    _Atomic int no_markers;
};

_Static_assert(sizeof(struct weft__stack) <= HEADER_ROOM, "the header of a stack is one cache line");

/* Stacks on their way between a cache and the pool: where they are, since a cold one has no header. */
/*
 * Stacks on their way between a cache and the pool. All this runs on the stack of some task, whose second page it
 * should not touch, so a batch is kept small: the index of a stack in its chunk, less than 64, is in the low bits of
 * the chunk's address.
 */
struct batch {
    unsigned count;
    uintptr_t at[BATCH_MOST];
};

static struct weft__stack_chunk *batch_chunk(const struct batch *batch, unsigned i)
{
    return (struct weft__stack_chunk *)(batch->at[i] & ~(uintptr_t)(CHUNK_STACKS - 1));
}

static unsigned batch_index(const struct batch *batch, unsigned i)
{
    return (unsigned)(batch->at[i] & (CHUNK_STACKS - 1));
}

static void batch_add(struct batch *batch, struct weft__stack_chunk *chunk, unsigned index)
{
    batch->at[batch->count++] = (uintptr_t)chunk | index;
}

static size_t round_up(size_t value, size_t to)
{
    return (value + to - 1) / to * to;
}

static uint64_t counter(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void counter_add(_Atomic uint64_t *value, uint64_t by)
{
    atomic_fetch_add_explicit(value, by, memory_order_relaxed);
}

static uint64_t bit(unsigned index)
{
    return UINT64_C(1) << index;
}

/* Where a stack lies. */

static char *slot_of(const struct weft__stack_pool *pool, const struct weft__stack_chunk *chunk, unsigned index)
{
    return chunk->base + index * pool->slot;
}

static struct weft__stack *header_at(char *end, unsigned colour)
{
    return (struct weft__stack *)(end - HEADER_ROOM - colour * COLOUR_STEP);
}

static struct weft__stack *stack_of(const struct weft__stack_pool *pool, const struct weft__stack_chunk *chunk,
                                    unsigned index)
{
    return header_at(slot_of(pool, chunk, index + 1), index % COLOURS);
}

static void make_header(const struct weft__stack_pool *pool, struct weft__stack *stack, char *slot,
                        struct weft__stack_chunk *chunk, unsigned index)
{
    *stack = (struct weft__stack){
        .low = slot + pool->page,
        .start = stack,
        .chunk = chunk,
        .index = index,
    };
}

/* The frames that were abandoned on a stack have left their poison. Only what is poisoned is written: the
 * shadow of an untouched stack is to stay untouched as well. */
static void clear_poison(struct weft__stack *stack)
{
#if defined(ASAN)
    char *poisoned = __asan_region_is_poisoned(stack->low, (size_t)((char *)stack->start - stack->low));

    if (poisoned)
        __asan_unpoison_memory_region(poisoned, (size_t)((char *)stack->start - poisoned));
#else
    (void)stack;
#endif
}

/* Before the header of a stack is lost. */
static void forget(struct weft__stack *stack)
{
#if defined(TSAN)
    if (stack->tsan_fiber)
        __tsan_destroy_fiber(stack->tsan_fiber);
    stack->tsan_fiber = NULL;
#else
    (void)stack;
#endif
}

static void forget_many(const struct weft__stack_pool *pool, const struct weft__stack_chunk *chunk, uint64_t which)
{
#if defined(TSAN)
    for (; which; which &= which - 1)
        forget(stack_of(pool, chunk, (unsigned)__builtin_ctzll(which)));
#else
    (void)pool, (void)chunk, (void)which;
#endif
}

/* System calls. */

static int may_pass(int error)
{
    return error == ENOMEM || error == EAGAIN || error == EINTR;
}

/*
 * Advise ranges in one call, where the kernel lets a process do that to itself (0.5 µs a guard against 0.9), or
 * one by one. Returns how many it did before one failed; errno says why.
 */
static unsigned advise(struct weft__stack_pool *pool, const struct iovec *ranges, unsigned count, int advice)
{
    unsigned done = 0;

    if (count > 1 && !atomic_load_explicit(&pool->no_batches, memory_order_relaxed)) {
        long bytes = syscall(SYS_process_madvise, THIS_PROCESS, ranges, (size_t)count, advice, 0);

        if (bytes < 0 && !may_pass(errno))
            atomic_store_explicit(&pool->no_batches, 1, memory_order_relaxed);
        for (; done < count && bytes >= (long)ranges[done].iov_len; done++)
            bytes -= (long)ranges[done].iov_len;
    }
    while (done < count && madvise(ranges[done].iov_base, ranges[done].iov_len, advice) == 0)
        done++;
    return done;
}

/* What cannot be given back (locked memory) stays. */
static void discard(struct weft__stack_pool *pool, const struct iovec *ranges, unsigned count)
{
    (void)advise(pool, ranges, count, MADV_DONTNEED);
}

/* A stack without a guard is better than none: an overflow then goes unnoticed. */
static void make_guards(struct weft__stack_pool *pool, const struct iovec *guards, unsigned count)
{
    unsigned done = 0;

    if (!atomic_load_explicit(&pool->no_markers, memory_order_relaxed)) {
        done = advise(pool, guards, count, MADV_GUARD_INSTALL);
        if (done < count && !may_pass(errno))
            atomic_store_explicit(&pool->no_markers, 1, memory_order_relaxed);
    }
    for (; done < count; done++) {
        if (mprotect(guards[done].iov_base, guards[done].iov_len, PROT_NONE) < 0)
            counter_add(&pool->unguarded, 1);
    }
}

static void *map_at(void *address, size_t bytes, int how)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | how;
    void *memory = mmap(address, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

/* 0 or -ENOMEM. A kernel that has no huge pages says EINVAL. */
static int refuse_huge_pages(void *memory, size_t bytes)
{
    return madvise(memory, bytes, MADV_NOHUGEPAGE) < 0 && errno == ENOMEM ? -ENOMEM : 0;
}

/* Chunks. The caller is the only one who knows of the chunk. */

static size_t chunk_bytes(const struct weft__stack_pool *pool)
{
    return pool->slot * CHUNK_STACKS;
}

static void chunk_guard(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk)
{
    struct iovec guards[RANGES];

    for (unsigned first = 0; first < CHUNK_STACKS; first += RANGES) {
        for (unsigned i = 0; i < RANGES; i++)
            guards[i] = (struct iovec){.iov_base = slot_of(pool, chunk, first + i), .iov_len = pool->page};
        make_guards(pool, guards, RANGES);
    }
    chunk->bare = 0;
}

static struct weft__stack_chunk *chunk_new(struct weft__stack_pool *pool)
{
    /* aligned: batches keep an index in the low bits of its address */
    struct weft__stack_chunk *chunk = aligned_alloc(CHUNK_STACKS, round_up(sizeof(*chunk), CHUNK_STACKS));

    if (!chunk)
        return NULL;
    memset(chunk, 0, sizeof(*chunk));
    chunk->base = map_at(NULL, chunk_bytes(pool), 0);
    if (!chunk->base)
        goto fail_map;
    if (refuse_huge_pages(chunk->base, chunk_bytes(pool)) < 0)
        goto fail_advise;
    chunk->cold = ALL_STACKS;
    chunk_guard(pool, chunk);
    return chunk;

fail_advise:
    munmap(chunk->base, chunk_bytes(pool));
fail_map:
    free(chunk);
    return NULL;
}

static void chunk_free(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk)
{
    forget_many(pool, chunk, chunk->warm);
    munmap(chunk->base, chunk_bytes(pool));
    free(chunk);
}

/* The memory of some stacks of a chunk; a run of neighbours is one range, as guards outlive it. */
static void chunk_trim(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk, uint64_t which)
{
    struct iovec ranges[CHUNK_STACKS / 2 + 1];
    unsigned count = 0;

    for (unsigned at = 0; at < CHUNK_STACKS && which >> at;) {
        unsigned first = at + (unsigned)__builtin_ctzll(which >> at);
        uint64_t others = ~(which >> first);
        unsigned length = others ? (unsigned)__builtin_ctzll(others) : CHUNK_STACKS;

        at = first + length < CHUNK_STACKS ? first + length : CHUNK_STACKS;
        ranges[count++] = (struct iovec){
            .iov_base = slot_of(pool, chunk, first) + pool->page,
            .iov_len = (at - first) * pool->slot - pool->page,
        };
    }
    discard(pool, ranges, count);
}

/* Memory, guards and page tables of a whole chunk, while its address space stays ours. */
static void chunk_strip(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk)
{
    if (!map_at(chunk->base, chunk_bytes(pool), MAP_FIXED)) {
        chunk_trim(pool, chunk, ALL_STACKS);
        return;
    }
    (void)refuse_huge_pages(chunk->base, chunk_bytes(pool)); /* one mapping again with its neighbours, if it can */
    chunk->bare = 1;
}

/* The lists. All of this under the pool's mutex. */

static void unlist_cold(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk)
{
    if (!chunk->cold_home)
        return;
    TAILQ_REMOVE(chunk->cold_home, chunk, by_cold);
    pool->empty_count -= chunk->cold_home == &pool->empty;
    chunk->cold_home = NULL;
}

/* Call after a change of chunk->cold. */
static void list_cold(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk)
{
    struct chunk_list *home = NULL;

    if (chunk->cold == ALL_STACKS)
        home = chunk->bare ? &pool->bare : &pool->empty;
    else if (chunk->cold)
        home = &pool->partial;
    if (home == chunk->cold_home)
        return;
    unlist_cold(pool, chunk);
    chunk->cold_home = home;
    if (!home)
        return;
    TAILQ_INSERT_HEAD(home, chunk, by_cold);
    pool->empty_count += home == &pool->empty;
}

static void unlist_warm(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk)
{
    if (chunk->warm_listed)
        TAILQ_REMOVE(&pool->warm, chunk, by_warm);
    chunk->warm_listed = 0;
}

/* Call when stacks have come back. */
static void list_warm(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk)
{
    if (chunk->warm_listed && chunk == TAILQ_FIRST(&pool->warm) && (chunk->warm | chunk->cold) != ALL_STACKS)
        return;
    unlist_warm(pool, chunk);
    if ((chunk->warm | chunk->cold) == ALL_STACKS)
        TAILQ_INSERT_TAIL(&pool->warm, chunk, by_warm);
    else
        TAILQ_INSERT_HEAD(&pool->warm, chunk, by_warm);
    chunk->warm_listed = 1;
}

/* Move stacks out of one of the chunk's words into the batch. */
static void take(struct weft__stack_chunk *chunk, uint64_t *word, struct batch *batch, unsigned limit)
{
    for (; *word && batch->count < limit; *word &= *word - 1)
        batch_add(batch, chunk, (unsigned)__builtin_ctzll(*word));
}

static void take_warm(struct weft__stack_pool *pool, struct batch *batch)
{
    struct weft__stack_chunk *chunk;

    while (batch->count < BATCH_WARM && (chunk = TAILQ_FIRST(&pool->warm))) {
        take(chunk, &chunk->warm, batch, BATCH_WARM);
        if (!chunk->warm)
            unlist_warm(pool, chunk);
    }
    counter_add(&pool->warm_count, -(uint64_t)batch->count);
}

static void take_cold_of(struct weft__stack_pool *pool, struct weft__stack_chunk *chunk, struct batch *batch)
{
    take(chunk, &chunk->cold, batch, BATCH_COLD);
    list_cold(pool, chunk);
}

static void take_cold(struct weft__stack_pool *pool, struct batch *batch)
{
    while (batch->count < BATCH_COLD) {
        struct weft__stack_chunk *chunk = TAILQ_FIRST(&pool->partial);

        if (!chunk)
            chunk = TAILQ_FIRST(&pool->empty);
        if (!chunk)
            return;
        take_cold_of(pool, chunk, batch);
    }
}

static struct weft__stack_chunk *take_bare(struct weft__stack_pool *pool)
{
    struct weft__stack_chunk *chunk = TAILQ_FIRST(&pool->bare);

    if (chunk)
        unlist_cold(pool, chunk);
    return chunk;
}

static void bring_back(struct weft__stack_pool *pool, const struct batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        struct weft__stack_chunk *chunk = batch_chunk(batch, i);

        chunk->warm |= bit(batch_index(batch, i));
        list_warm(pool, chunk);
    }
    counter_add(&pool->warm_count, batch->count);
}

/* From the pool to a cache. */

/* A chunk whose stacks can be handed out and that is in no list, or NULL. Without the mutex. */
static struct weft__stack_chunk *chunk_prepare(struct weft__stack_pool *pool, struct weft__stack_chunk *bare)
{
    if (!bare)
        return chunk_new(pool);
    if (refuse_huge_pages(bare->base, chunk_bytes(pool)) < 0)
        return NULL;
    chunk_guard(pool, bare);
    return bare;
}

/* Fill an empty batch from a chunk that is made ready first. */
static void take_from_new(struct weft__stack_pool *pool, struct batch *batch)
{
    struct weft__stack_chunk *bare, *chunk;

    pthread_mutex_lock(&pool->mutex);
    bare = take_bare(pool);
    pthread_mutex_unlock(&pool->mutex);

    chunk = chunk_prepare(pool, bare);

    pthread_mutex_lock(&pool->mutex);
    if (chunk && !bare) {
        chunk->next = pool->chunks;
        pool->chunks = chunk;
    }
    if (chunk)
        take_cold_of(pool, chunk, batch);
    else if (bare)
        list_cold(pool, bare);
    pthread_mutex_unlock(&pool->mutex);
}

static uint32_t cached(const struct weft__stack_cache *cache)
{
    return atomic_load_explicit(&cache->count, memory_order_relaxed);
}

static void set_cached(struct weft__stack_cache *cache, uint32_t count)
{
    atomic_store_explicit(&cache->count, count, memory_order_relaxed);
}

static void push(struct weft__stack_cache *cache, struct weft__stack *stack)
{
    stack->next = cache->head;
    cache->head = stack;
    set_cached(cache, cached(cache) + 1);
}

static struct weft__stack *pop(struct weft__stack_cache *cache)
{
    struct weft__stack *stack = cache->head;

    cache->head = stack->next;
    set_cached(cache, cached(cache) - 1);
    return stack;
}

static __attribute__((noinline)) int refill(struct weft__stack_pool *pool, struct weft__stack_cache *cache)
{
    struct batch batch = {.count = 0};
    int warm;

    pthread_mutex_lock(&pool->mutex);
    take_warm(pool, &batch);
    warm = batch.count > 0;
    if (!warm)
        take_cold(pool, &batch);
    pthread_mutex_unlock(&pool->mutex);

    if (batch.count == 0)
        take_from_new(pool, &batch);
    if (batch.count == 0)
        return -ENOMEM;
    counter_add(&pool->live, batch.count);

    /* backwards: neighbours are handed out in rising order, and fill their chunk from one end */
    for (unsigned i = batch.count; i-- > 0;) {
        struct weft__stack_chunk *chunk = batch_chunk(&batch, i);
        unsigned index = batch_index(&batch, i);
        struct weft__stack *stack = stack_of(pool, chunk, index);

        if (!warm)
            make_header(pool, stack, slot_of(pool, chunk, index), chunk, index);
        push(cache, stack);
    }
    return 0;
}

/* From a cache to the pool. */

static uint64_t warm_limit(const struct weft__stack_pool *pool)
{
    uint64_t share = counter(&pool->live) / WARM_SHARE;

    return share > WARM_FLOOR ? share : WARM_FLOOR;
}

/* Has anything but the uppermost `kept` bytes of a stack been touched? */
static bool is_deep(const struct weft__stack_pool *pool, const struct batch *batch, unsigned i, size_t kept)
{
    unsigned char resident[MOST_PAGES_LOOKED_AT];
    char *low = slot_of(pool, batch_chunk(batch, i), batch_index(batch, i)) + pool->page;
    size_t pages = (pool->slot - kept) / pool->page;

    /* The upper part of the deep part: who went deeper has been there. */
    if (pages > MOST_PAGES_LOOKED_AT) {
        low += (pages - MOST_PAGES_LOOKED_AT) * pool->page;
        pages = MOST_PAGES_LOOKED_AT;
    }
    if (mincore(low, pages * pool->page, resident) < 0)
        return true;
    for (size_t page = 0; page < pages; page++)
        if (resident[page] & 1)
            return true;
    return false;
}

/*
 * The memory of deep stacks, down from where most never reach. To look for it in vain costs 0.3 µs a stack; tasks of a
 * kind use stacks alike, so two samples of a batch decide for all.
 */
static void shave(struct weft__stack_pool *pool, const struct batch *batch)
{
    struct iovec ranges[RANGES];
    size_t kept = pool->page + round_up(WARM_BYTES, pool->page);
    unsigned count = 0;

    if (pool->slot <= kept || (!is_deep(pool, batch, 0, kept) && !is_deep(pool, batch, batch->count / 2, kept)))
        return;
    for (unsigned i = 0; i < batch->count; i++) {
        char *low = slot_of(pool, batch_chunk(batch, i), batch_index(batch, i)) + pool->page;

        ranges[count++] = (struct iovec){.iov_base = low, .iov_len = pool->slot - kept};
        if (count == RANGES || i + 1 == batch->count) {
            discard(pool, ranges, count);
            count = 0;
        }
    }
}

/* What leaves the pool to be trimmed: the chunk at the tail, whole if no stack of it is out. */
static struct weft__stack_chunk *take_surplus(struct weft__stack_pool *pool, uint64_t *warm)
{
    struct weft__stack_chunk *chunk = TAILQ_LAST(&pool->warm, chunk_list);

    if (!chunk || counter(&pool->warm_count) <= warm_limit(pool))
        return NULL;
    *warm = chunk->warm;
    counter_add(&pool->warm_count, -(uint64_t)__builtin_popcountll(chunk->warm));
    unlist_warm(pool, chunk);
    chunk->warm = 0;
    return chunk;
}

static void trim_surplus(struct weft__stack_pool *pool)
{
    struct weft__stack_chunk *chunk;
    uint64_t warm;

    pthread_mutex_lock(&pool->mutex);
    while ((chunk = take_surplus(pool, &warm))) {
        int whole = (warm | chunk->cold) == ALL_STACKS;
        int strip = whole && pool->empty_count >= READY_CHUNKS;

        if (whole)
            unlist_cold(pool, chunk);
        pthread_mutex_unlock(&pool->mutex);

        forget_many(pool, chunk, warm);
        if (strip)
            chunk_strip(pool, chunk);
        else
            chunk_trim(pool, chunk, whole ? ALL_STACKS : warm);

        pthread_mutex_lock(&pool->mutex);
        chunk->cold |= warm;
        list_cold(pool, chunk);
    }
    pthread_mutex_unlock(&pool->mutex);
}

static void give_back_batch(struct weft__stack_pool *pool, const struct batch *batch)
{
    counter_add(&pool->live, -(uint64_t)batch->count);
    /* beyond the limit something is about to be trimmed altogether: most likely these */
    if (counter(&pool->warm_count) + batch->count <= warm_limit(pool))
        shave(pool, batch);

    pthread_mutex_lock(&pool->mutex);
    bring_back(pool, batch);
    pthread_mutex_unlock(&pool->mutex);
    trim_surplus(pool);
}

static void give_back(struct weft__stack_pool *pool, struct weft__stack *list)
{
    while (list) {
        struct batch batch = {.count = 0};

        for (; list && batch.count < BATCH_MOST; list = list->next)
            batch_add(&batch, list->chunk, list->index);
        give_back_batch(pool, &batch);
    }
}

/* The older half goes: what was put last is still in the processor's cache. */
static __attribute__((noinline)) void spill(struct weft__stack_pool *pool, struct weft__stack_cache *cache)
{
    struct weft__stack *last = cache->head;
    struct weft__stack *older;

    for (unsigned i = 1; i < CACHE_LIMIT / 2; i++)
        last = last->next;
    older = last->next;
    last->next = NULL;
    set_cached(cache, CACHE_LIMIT / 2);
    give_back(pool, older);
}

/* Stacks with a mapping of their own: larger than the pool's. They are not kept. */

static size_t own_bytes(const struct weft__stack_pool *pool, const struct weft__stack *stack)
{
    size_t usable = (size_t)((const char *)stack - stack->low);

    return pool->page + round_up(usable, pool->page);
}

static struct weft__stack *own_new(struct weft__stack_pool *pool, size_t size)
{
    struct weft__stack *stack;
    struct iovec guard;
    size_t bytes;
    char *base;

    if (size > SIZE_MAX / 2 - pool->slot)
        return NULL;
    bytes = round_up(size, pool->page) + pool->slot; /* slot: the slack, the guard, and room for the header */
    base = map_at(NULL, bytes, 0);
    if (!base)
        return NULL;
    if (refuse_huge_pages(base, bytes) < 0) {
        munmap(base, bytes);
        return NULL;
    }
    guard = (struct iovec){.iov_base = base, .iov_len = pool->page};
    make_guards(pool, &guard, 1);
    stack = header_at(base + bytes, 0);
    make_header(pool, stack, base, NULL, 0);
    counter_add(&pool->live, 1);
    return stack;
}

static void own_free(struct weft__stack_pool *pool, struct weft__stack *stack)
{
    forget(stack);
    munmap(stack->low - pool->page, own_bytes(pool, stack));
    counter_add(&pool->live, -UINT64_C(1));
}

/* What the header declares. */

struct weft__stack_pool *weft__stack_pool_new(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct weft__stack_pool *pool;

    if (size > PTRDIFF_MAX / (4 * CHUNK_STACKS))
        return NULL;
    pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
        free(pool);
        return NULL;
    }
    pool->page = page;
    pool->size = round_up(size ? size : 1, page);
    pool->slot = page + 2 * pool->size;
    TAILQ_INIT(&pool->warm);
    TAILQ_INIT(&pool->partial);
    TAILQ_INIT(&pool->empty);
    TAILQ_INIT(&pool->bare);
    return pool;
}

void weft__stack_pool_free(struct weft__stack_pool *pool)
{
    struct weft__stack_chunk *chunk;

    while ((chunk = pool->chunks)) {
        pool->chunks = chunk->next;
        chunk_free(pool, chunk);
    }
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

struct weft__stack *weft__stack_get(struct weft__stack_pool *pool, struct weft__stack_cache *cache, size_t size)
{
    if (__builtin_expect(size > pool->size, 0))
        return own_new(pool, size);
    if (__builtin_expect(!cache->head, 0) && refill(pool, cache) < 0)
        return NULL;
    return pop(cache);
}

void weft__stack_put(struct weft__stack_pool *pool, struct weft__stack_cache *cache, struct weft__stack *stack)
{
    clear_poison(stack);
    if (__builtin_expect(!stack->chunk, 0)) {
        own_free(pool, stack);
        return;
    }
    if (__builtin_expect(cached(cache) == CACHE_LIMIT, 0))
        spill(pool, cache);
    push(cache, stack);
}

void weft__stack_cache_flush(struct weft__stack_pool *pool, struct weft__stack_cache *cache)
{
    struct weft__stack *list = cache->head;

    cache->head = NULL;
    set_cached(cache, 0);
    if (list)
        give_back(pool, list);
}

uint64_t weft__stack_pool_live(const struct weft__stack_pool *pool)
{
    return counter(&pool->live);
}

uint64_t weft__stack_pool_unguarded(const struct weft__stack_pool *pool)
{
    return counter(&pool->unguarded);
}
