/*
 * Stacks: reserved address space, guard, caches, trimming, and naming an overflow.
 *
 * A stack is `size` bytes that its tasks may use, plus the slack in which awaited tasks run in place, plus a
 * guard page below. Its header lies at the top, in the page that is touched anyway.
 */
#ifndef WEFT_RUNTIME_STACK_H
#define WEFT_RUNTIME_STACK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct weft__stack_pool; /* shared by the threads of one runtime */

struct weft__stack_chunk; /* private to stack.c */

struct weft__stack {
    struct weft__stack *next;        /* in a cache */
    char *low;                       /* lowest usable byte, just above the guard */
    void *start;                     /* 64-byte aligned, coloured, just below this header: the first frame */
    struct weft__stack_chunk *chunk; /* private to stack.c; NULL: a mapping of its own */
    void *tsan_fiber;                /* ThreadSanitizer builds: kept with the stack, destroyed by stack.c */
    uint32_t index;                  /* private to stack.c */
    uint32_t valgrind_id;            /* private to annotate.h */
};

/* What one thread keeps at hand; no locks. Zeroed is empty. */
struct weft__stack_cache {
    struct weft__stack *head;
    _Atomic uint32_t count; /* written by its thread, read by anybody */
};

/*
 * A pool of stacks on which a task may use `size` bytes (and as much again is there as slack for tasks that
 * run in place). NULL: out of memory or address space.
 */
struct weft__stack_pool *weft__stack_pool_new(size_t size);

/* Every stack must have come back. Gives all memory back. */
void weft__stack_pool_free(struct weft__stack_pool *pool);

/*
 * A stack of at least `size` usable bytes (the pool's own size or less: from the cache, else a batch from the
 * pool; more: mapped for this one). NULL: out of memory.
 */
struct weft__stack *weft__stack_get(struct weft__stack_pool *pool, struct weft__stack_cache *cache, size_t size);

/* Give a stack back: to the cache; a full cache gives a batch back to the pool, which trims. */
void weft__stack_put(struct weft__stack_pool *pool, struct weft__stack_cache *cache, struct weft__stack *stack);

/* Empty the cache into the pool (the thread ends or goes to sleep for long). */
void weft__stack_cache_flush(struct weft__stack_pool *pool, struct weft__stack_cache *cache);

/* Stacks that are outside the pool: handed out, or in the cache of a thread. */
uint64_t weft__stack_pool_live(const struct weft__stack_pool *pool);

/* Stacks whose guard could not be made (the limit on mappings, where guards cost one each). */
uint64_t weft__stack_pool_unguarded(const struct weft__stack_pool *pool);

/*
 * Stack overflow. weft__overflow_install makes the process-wide SIGSEGV/SIGBUS handler (once, chaining to
 * what was there; a handler that the program installs later replaces it), and weft__overflow_thread_begin/end
 * give the calling thread its alternate signal stack, if it has none. 0 or -errno; calling them again is
 * harmless.
 *
 * On a fault, `weft__overflow_lookup` (defined by the worker) says whether the address lies in the guard of
 * the stack that the thread runs on: 1 with *site filled in, or 0. It is called in the signal handler.
 */
struct weft__overflow_site {
    const char *task_name; /* "" if none */
    const void *task;
    size_t stack_size;
};
int weft__overflow_install(void);
int weft__overflow_thread_begin(void);
void weft__overflow_thread_end(void);
int weft__overflow_lookup(const void *address, struct weft__overflow_site *site);

#endif
