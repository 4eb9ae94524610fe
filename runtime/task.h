/*
 * The task record, and what the machine does with it.
 *
 * A record is two cache lines. The first is all that a task needs which is awaited before it starts: it runs
 * as a call on its awaiter's stack and never touches the second. The second belongs to the coroutine: the
 * record of the task that a stack was started for is the identity of that stack while it runs (its *root*). What
 * parks and is made ready is always a root.
 *
 *     root ──► [ stack: root's fn … weft_await → in-place task's fn … weft_await → another one's fn ]
 *       └ current ─────────────────────────────────────────────────────────────► innermost task
 *                 innermost.under → the one it runs in place for → … → root (which has no `under`)
 *
 * Records come from slabs that keep their type for ever, so that a late wake-up or a late
 * cancellation may touch a record whose task has ended: it sets a bit that means nothing there.
 */
#ifndef WEFT_RUNTIME_TASK_H
#define WEFT_RUNTIME_TASK_H

#include <errno.h>
#include <stddef.h>
#include <weft/scope.h>
#include <weft/task.h>

#include "runtime/context.h"
#include "runtime/ends.h"
#include "runtime/park.h"
#include "runtime/stack.h"
#include "runtime/task_state.h"
#include "runtime/timer.h"

struct weft__worker;
struct weft__driver;

enum { WEFT__NAME_SIZE = 32 };

/* A name is read while it may be replaced (inspect.c): word by word. */
typedef uint64_t __attribute__((may_alias)) weft__name_word;

/* What only some tasks have; from malloc. It stays with the record, for the next task that needs it. */
struct weft__task_extra {
    char name[WEFT__NAME_SIZE] __attribute__((aligned(8)));
    const weft_task *parent; /* of a group's child: who spawned it, an identity. Any thread, atomically */
    size_t stack_size;
    struct weft__timer timer;       /* WEFT__FLAG_TIMER: of a delayed start, or of a stackless task's scopes */
    int64_t start_at;               /* of a delayed start */
    struct weft__siblings siblings; /* of a group's child: the group's */
    void *child_arg;
    struct weft__local_value *locals;
    const void *spawned_at; /* debug mode: the return address of the spawn */
};

enum {
    WEFT__FLAG_FORWARDED = 1u << 0, /* its cancellation or deadline has been passed on to the task it awaits */
    WEFT__FLAG_TIMED_OUT = 1u << 1, /* what was passed on was a deadline */
    WEFT__FLAG_SCOPES = 1u << 2,    /* it has begun time-out scopes */
    WEFT__FLAG_EXTRA = 1u << 3,     /* `extra` is this task's, not left behind by an earlier one */
    WEFT__FLAG_TIMER = 1u << 4,     /* extra->timer is set, or has fired */
    WEFT__FLAG_BEGUN = 1u << 5,     /* a stackless task that has run */
    WEFT__FLAG_LOCALS = 1u << 6,    /* extra->locals is not empty */
};

struct weft_task {
    /* Any thread, atomically. */
    weft__state state;

    /* The task itself. */
    union {
        struct {
            uint16_t mask;  /* depth of weft_mask_begin */
            uint16_t flags; /* WEFT__FLAG_* */
        };
        uint32_t unusual; /* either */
    };

    /* Whoever holds it: a run queue, an inbox, a free list. */
    weft_task *next;
    weft_task *prev;

    /* The worker in whose run queue it is, else the one that it last ran on, to which a waker from outside hands it; and
     * where it stands there (WEFT__HOME_*). */
    _Atomic uintptr_t home;

    union {
        struct weft__context context; /* a root that has started: while it does not run */
        struct {
            weft_fn *fn;
            union {
                void *arg;       /* until it starts */
                intptr_t result; /* once it is DONE */
            };
            union {
                weft_task *under;    /* runs in place: the task that it does so for */
                void *call;          /* WEFT__POOL: the pool's own */
                const void *pending; /* stackless: what it waits for, or NULL (stackless.c) */
            };
        };
    };

    union {
        struct {
            _Atomic(weft_task *) root; /* the coroutine it runs on; itself: it is one; NULL: it has not started */

            /* ---- second line ---- */

            /* Of a root; whoever runs the coroutine. */
            struct weft__stack *stack;
            char *in_place_limit; /* a frame below this leaves too little stack to run a task in place */
            weft_task *current;   /* the innermost task on this stack; written atomically, for inspect.c */
        };
        /* A stackless task, its own root from the beginning: what it waits for. */
        struct weft__wait wait;
        struct {
            weft_task *sleeper; /* itself: wait.task and root */
            struct weft__timer timer;
            int64_t wake_at;
        };
    };

    /* Of any task. NULL in a free record and after spawn. */
    weft_timeout *scopes; /* innermost first */
    struct weft__task_extra *extra;
    /* The coroutine or thread that awaits it; with the lowest bit set, a struct weft__ends (ends.h). */
    _Atomic(weft_task *) waiter;
    weft_runtime *runtime; /* set when the slab is made; NULL for records of plain threads */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct weft_task) == 128, "a record is two cache lines");
_Static_assert(offsetof(struct weft_task, stack) == 64, "what every task needs is in the first line");

static inline bool weft__is_stackless(const weft_task *task)
{
    return atomic_load_explicit(&task->state, memory_order_relaxed) & WEFT__STACKLESS;
}

/* `extra`, allocated and cleared if need be. NULL: out of memory. By the task itself, or before it is queued. */
struct weft__task_extra *weft__task_extra(weft_task *task);

/*
 * A record without coroutine, for a result that comes from elsewhere (the blocking pool): state bits WEFT__POOL,
 * fn and arg stored, never in a run queue. It counts as a live task until weft__task_finish. NULL: out of
 * memory. Inside a task of the runtime or outside.
 */
weft_task *weft__task_new_external(weft_runtime *runtime, weft_fn *fn, void *arg);

/* Store the result of such a record, wake its awaiter, free it if it is detached. Any thread. The record must
 * not be touched afterwards. */
void weft__task_finish(weft_task *task, intptr_t result);

/* Give a record back that was never handed to anybody. */
void weft__task_discard(weft_task *task);

/* Run the task of a coroutine: cancelled before it starts, it does not. */
static inline intptr_t weft__task_call(weft_task *task)
{
    if (__builtin_expect(weft__state_is_cancelled(&task->state), 0))
        return -ECANCELED;
    return task->fn(task->arg);
}

/*
 * Has something ended the waits of the calling coroutine's innermost task? 0, -ECANCELED, -ETIMEDOUT. Passes
 * cancellation and deadlines of the tasks it runs in place for on to it. *deadline: the earliest deadline that
 * still can, or WEFT_FOREVER. To be called after the wait was made known to its object, before parking.
 */
int weft__interrupt(weft_task *root, int64_t *deadline);

/* The same for a stackless task. */
int weft__interrupt_stackless(weft_task *task, int64_t *deadline);

/* Set a deadline with the worker that the caller is on. 0 or -ENOMEM. Inside a task. */
int weft__set_timer(struct weft__timer *timer, int64_t deadline, weft_task *task);

/* Undo a timer in extra that was set and may have fired. */
void weft__task_drop_timer(weft_task *task);

/*
 * Wait for a task's end, of which `self` will be told. If the awaiter is interrupted, the task is cancelled, once, and
 * waited for all the same. 0, or what interrupted it.
 */
int weft__wait_for_end(weft_task *self, weft_task *task);

/* The name of a task that the caller owns, or that its handle protects; "" if it has none. */
const char *weft__task_name(const weft_task *task);

/* The name of any task, at any time. In inspect.c. */
void weft__task_copy_name(const weft_task *task, char name[WEFT__NAME_SIZE]);

/* The innermost task of a coroutine changes. */
static inline void weft__set_current(weft_task *root, weft_task *task)
{
    __atomic_store_n(&root->current, task, __ATOMIC_RELAXED);
}

#endif
