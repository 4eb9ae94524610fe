/*
 * Looking at a running program: its tasks, who awaits whom, and what happens to them.
 */
#ifndef WEFT_DEBUG_H
#define WEFT_DEBUG_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

enum weft_task_status {
    WEFT_TASK_NEW,     /* not started: queued, or waiting for its time */
    WEFT_TASK_READY,   /* running, or about to */
    WEFT_TASK_PARKED,  /* waiting for something */
    WEFT_TASK_AWAITING /* waiting for another task */
};

/* What is known of a task, at about one moment: it may have gone on meanwhile. */
typedef struct weft_task_info {
    const weft_task *task; /* an identity; not a handle */
    const weft_task *awaited_by; /* the task that awaits it, or, of a group's child, the one that spawned it; or NULL */
    weft_fn *fn;           /* its function; NULL if not known (it has a stack of its own) */
    enum weft_task_status status;
    int cancelled;
    char name[32];
} weft_task_info;

/* Visit every task of the runtime that has not ended, in no order. Any thread; `visit` must not suspend. Returns how
 * many. */
WEFT_API size_t weft_runtime_tasks(weft_runtime *runtime, void (*visit)(const weft_task_info *info, void *arg),
                                   void *arg);

/* Write the tasks as a tree of who awaits whom, an awaiter above what it awaits, to a file descriptor; cycles are named.
 * 0 or -errno. Any thread; may block. With WEFT_DUMP_SIGNAL=USR2 in the environment, the signal makes the process write
 * the tasks of all its runtimes to stderr. */
WEFT_API int weft_runtime_print_tasks(weft_runtime *runtime, int fd);

/* ---- tracing ---- */

enum weft_trace_kind {
    WEFT_TRACE_SPAWN,   /* value: the spawner, or 0 */
    WEFT_TRACE_START,   /* it begins to run, on a stack of its own or in steps */
    WEFT_TRACE_INLINE,  /* it begins to run on the stack of its awaiter; value: that task */
    WEFT_TRACE_AWAIT,   /* value: the task it will wait for */
    WEFT_TRACE_WAIT_FD, /* value: the descriptor it will wait for */
    /* The next ones are about a stack: the task is the one that it was made for; value, if any: the task that runs on
     * it at the moment, the same or one that runs in place. */
    WEFT_TRACE_PARK,   /* value: who waits */
    WEFT_TRACE_EVENT,  /* a descriptor became ready; value: the descriptor */
    WEFT_TRACE_READY,  /* it is put into a run queue */
    WEFT_TRACE_RESUME, /* value: who goes on, at the point where it stopped */
    WEFT_TRACE_END,    /* value: its result */
    WEFT_TRACE_CANCEL
};

typedef struct weft_trace_event {
    enum weft_trace_kind kind;
    unsigned worker;       /* index; WEFT_TRACE_OUTSIDE: a thread outside */
    int64_t time;          /* monotonic */
    const weft_task *task; /* an identity */
    intptr_t value;
    const char *name; /* the task's, during the call */
} weft_trace_event;

#define WEFT_TRACE_OUTSIDE (~0u)

/*
 * Have `fn` called for every change of a task's state, in every runtime of the process, on the thread where it happens; NULL
 * ends that. It must be quick, and must not call weft. When weft_trace returns, nobody is in the former function any
 * more. Any thread, not from such a function. WEFT_TRACE=FILE in the environment writes a line for each to a file.
 * Without a trace each place costs one predictable branch.
 */
WEFT_API void weft_trace(void (*fn)(const weft_trace_event *event, void *arg), void *arg);
WEFT_API const char *weft_trace_kind_name(enum weft_trace_kind kind);

WEFT_END_DECLS

#endif
