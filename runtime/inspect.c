/*
 * Looking at tasks (weft/debug.h, inspect.h).
 *
 * The records of a runtime are read while their tasks run: each word by an atomic load, whatever its owner does with
 * it. A record that is free, or that is about to be another task's, may be read half and half; so nothing that was read
 * is ever followed, but for `extra`, which stays with its record for ever and is published by a release. Pointers to
 * other tasks are looked up among the records that were seen at the same time (a snapshot): one that is not there, or
 * was never a pointer, is forgotten. So the worst that a race can do is to show an edge that was there a moment ago.
 *
 * A name is four words, written and read one by one: a name that is just being replaced may be read as part of
 * each.
 */
#include "runtime/inspect.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/debug.h>

#include "runtime/config.h"
#include "runtime/debug.h"
#include "runtime/futex.h"
#include "runtime/runtime.h"

/* ---- reading records ---- */

/* One that somebody else owns: see above. */
#define PEEK(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define PEEK_ATOMIC(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define PEEKS __attribute__((no_sanitize("thread")))

PEEKS void weft__task_copy_name(const weft_task *task, char name[WEFT__NAME_SIZE])
{
    /* acquire: what `extra` points to was made before; pairs with weft__task_extra */
    const struct weft__task_extra *extra = __atomic_load_n(&task->extra, __ATOMIC_ACQUIRE);
    weft__name_word words[WEFT__NAME_SIZE / sizeof(weft__name_word)] = {0};

    if (extra && (PEEK(task->flags) & WEFT__FLAG_EXTRA))
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            words[i] = PEEK(((const weft__name_word *)(const void *)extra->name)[i]);
    memcpy(name, words, WEFT__NAME_SIZE);
    name[WEFT__NAME_SIZE - 1] = '\0';
}

/* What was seen of a task. Pointers are identities. */
struct seen {
    weft_task_info info;
    const weft_task *root;
    const weft_task *current; /* of a root that has started: the innermost task on its stack */
    const weft_task *waiter;  /* or, of a group's child, who spawned it; or, in place, for whom it runs */
    bool in_place;
    bool child;

    /* The tree, as indices; -1: none. */
    int64_t awaiter;
    int64_t first_awaited;
    int64_t next_awaited;
    bool printed;
};

struct snapshot {
    struct seen *tasks; /* by address */
    size_t count;
    size_t capacity;
};

PEEKS static void peek_own_stack(const weft_task *task, struct seen *seen)
{
    seen->current = PEEK(task->current);
    /* Its registers lie where its function was. */
    seen->info.fn = NULL;
    seen->info.status = PEEK_ATOMIC(task->state) & WEFT__PARKED ? WEFT_TASK_PARKED : WEFT_TASK_READY;
}

PEEKS static void peek_in_place(const weft_task *task, struct seen *seen)
{
    seen->in_place = true;
    seen->waiter = PEEK(task->under);
    seen->info.status = WEFT_TASK_READY;
}

PEEKS static void peek_stackless(const weft_task *task, struct seen *seen, uint32_t state)
{
    if (!(PEEK(task->flags) & WEFT__FLAG_BEGUN))
        seen->info.status = WEFT_TASK_NEW;
    else
        seen->info.status = state & WEFT__PARKED ? WEFT_TASK_PARKED : WEFT_TASK_READY;
}

/* False: no task. */
PEEKS static bool peek(const weft_task *task, struct seen *seen)
{
    uint32_t state = PEEK_ATOMIC(task->state);
    const struct weft__task_extra *extra = __atomic_load_n(&task->extra, __ATOMIC_ACQUIRE);
    const weft_task *waiter;

    if (state & WEFT__DONE)
        return false;
    memset(seen, 0, sizeof *seen);
    seen->info.task = task;
    seen->info.fn = PEEK(task->fn);
    seen->info.cancelled = !!(state & WEFT__CANCEL);
    seen->info.status = WEFT_TASK_NEW;
    waiter = PEEK_ATOMIC(task->waiter);
    if (!((uintptr_t)waiter & 1)) { /* else a watcher's (ends.h) */
        seen->waiter = state & WEFT__AWAITED ? waiter : NULL;
    } else if (extra && (state & WEFT__CHILD)) {
        seen->waiter = PEEK(extra->parent);
        seen->child = true;
    }
    weft__task_copy_name(task, seen->info.name);
    seen->root = state & WEFT__POOL ? NULL : PEEK_ATOMIC(task->root);
    if (state & WEFT__POOL)
        seen->info.status = WEFT_TASK_READY;
    else if (state & WEFT__STACKLESS)
        peek_stackless(task, seen, state);
    else if (seen->root == task)
        peek_own_stack(task, seen);
    else if (seen->root)
        peek_in_place(task, seen);
    return !(PEEK_ATOMIC(task->state) & WEFT__DONE);
}

static void add_to_snapshot(weft_task *task, void *arg)
{
    struct snapshot *snapshot = arg;
    struct seen seen;

    if (!peek(task, &seen))
        return;
    if (snapshot->count == snapshot->capacity) {
        size_t capacity = snapshot->capacity ? snapshot->capacity * 2 : 64;
        struct seen *tasks = realloc(snapshot->tasks, capacity * sizeof *tasks);

        if (!tasks)
            return; /* what there is room for is shown */
        snapshot->tasks = tasks;
        snapshot->capacity = capacity;
    }
    snapshot->tasks[snapshot->count++] = seen;
}

/* ---- who awaits whom ---- */

static int by_address(const void *a, const void *b)
{
    uintptr_t left = (uintptr_t)((const struct seen *)a)->info.task;
    uintptr_t right = (uintptr_t)((const struct seen *)b)->info.task;

    return left < right ? -1 : left > right;
}

static struct seen *look_up(const struct snapshot *snapshot, const weft_task *task)
{
    struct seen key = {.info.task = task};

    return task && snapshot->count ? bsearch(&key, snapshot->tasks, snapshot->count, sizeof key, by_address) : NULL;
}

/* The coroutine that a task's waiter is runs tasks in place: the innermost of them waits. */
static struct seen *awaiter_of(const struct snapshot *snapshot, const struct seen *seen)
{
    struct seen *root = look_up(snapshot, seen->waiter);
    struct seen *innermost;

    if (!root || seen->in_place || seen->child || !root->current || root->current == root->info.task)
        return root;
    innermost = look_up(snapshot, root->current);
    return innermost && innermost->root == root->info.task ? innermost : root;
}

static void link_one(struct snapshot *snapshot, struct seen *seen)
{
    struct seen *awaiter = awaiter_of(snapshot, seen);
    const struct seen *root = look_up(snapshot, seen->root);

    seen->awaiter = -1;
    /* Of those on one stack only the innermost can be parked. */
    if (seen->in_place && root && root->current == seen->info.task)
        seen->info.status = root->info.status == WEFT_TASK_PARKED ? WEFT_TASK_PARKED : WEFT_TASK_READY;
    if (!awaiter || awaiter == seen)
        return;
    seen->info.awaited_by = awaiter->info.task;
    seen->awaiter = awaiter - snapshot->tasks;
    seen->next_awaited = awaiter->first_awaited;
    awaiter->first_awaited = seen - snapshot->tasks;
}

/* One that has spawned children may be doing something else meanwhile. */
static void note_awaiting(struct seen *awaiter, const struct seen *awaited)
{
    if (!awaited->child || awaited->in_place)
        awaiter->info.status = WEFT_TASK_AWAITING;
}

static void take_snapshot(weft_runtime *runtime, struct snapshot *snapshot)
{
    weft__depot_each(runtime->depot, add_to_snapshot, snapshot);
    if (snapshot->count)
        qsort(snapshot->tasks, snapshot->count, sizeof *snapshot->tasks, by_address);
    for (size_t i = 0; i < snapshot->count; i++)
        snapshot->tasks[i].first_awaited = -1;
    for (size_t i = snapshot->count; i-- > 0;)
        link_one(snapshot, &snapshot->tasks[i]);
    /* Last, since in link_one the state of a root says whether its innermost task is parked. */
    for (size_t i = 0; i < snapshot->count; i++) {
        struct seen *seen = &snapshot->tasks[i];

        if (seen->awaiter >= 0)
            note_awaiting(&snapshot->tasks[seen->awaiter], seen);
    }
}

size_t weft_runtime_tasks(weft_runtime *runtime, void (*visit)(const weft_task_info *info, void *arg), void *arg)
{
    struct snapshot snapshot = {0};
    size_t count;

    take_snapshot(runtime, &snapshot);
    for (size_t i = 0; visit && i < snapshot.count; i++)
        visit(&snapshot.tasks[i].info, arg);
    count = snapshot.count;
    free(snapshot.tasks);
    return count;
}

/* ---- printing ---- */

enum { DEEPEST_SHOWN = 32 };

struct output {
    int fd;
    int error;
    size_t length;
    char text[4096];
};

static void flush(struct output *output)
{
    size_t done = 0;

    while (done < output->length && output->error == 0) {
        ssize_t n = write(output->fd, output->text + done, output->length - done);
        struct pollfd writable = {.fd = output->fd, .events = POLLOUT};

        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            poll(&writable, 1, -1);
        else if (errno != EINTR)
            output->error = -errno;
    }
    output->length = 0;
}

static __attribute__((format(printf, 2, 3))) void print(struct output *output, const char *format, ...)
{
    char line[512];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof line)
        length = sizeof line - 1;
    if (output->length + (size_t)length > sizeof output->text)
        flush(output);
    memcpy(output->text + output->length, line, (size_t)length);
    output->length += (size_t)length;
}

static const char *status_name(enum weft_task_status status)
{
    static const char *const names[] = {
        [WEFT_TASK_NEW] = "new",
        [WEFT_TASK_READY] = "ready",
        [WEFT_TASK_PARKED] = "parked",
        [WEFT_TASK_AWAITING] = "awaiting",
    };

    return names[status];
}

static void print_task(struct output *output, struct seen *seen, unsigned depth)
{
    char place[256];

    seen->printed = true;
    if (depth > DEEPEST_SHOWN)
        print(output, "%*s[%u] ", DEEPEST_SHOWN * 2, "", depth);
    else
        print(output, "%*s", (int)depth * 2, "");
    print(output, "'%s' %p %s%s", seen->info.name, (const void *)seen->info.task, status_name(seen->info.status),
          seen->info.cancelled ? ", cancelled" : "");
    if (seen->info.fn) {
        weft__describe_address((const void *)(uintptr_t)seen->info.fn, place, sizeof place);
        print(output, " in %s", place);
    }
    print(output, "\n");
}

/* The first that was not printed of these siblings: the way down ends where a cycle closes. */
static struct seen *unprinted(const struct snapshot *snapshot, int64_t sibling)
{
    while (sibling >= 0 && snapshot->tasks[sibling].printed)
        sibling = snapshot->tasks[sibling].next_awaited;
    return sibling >= 0 ? &snapshot->tasks[sibling] : NULL;
}

/* A task, and below it those that it awaits; without recursion, since they may be a million deep. */
static void print_tree(struct output *output, const struct snapshot *snapshot, struct seen *top)
{
    struct seen *seen = top;
    unsigned depth = 0;

    for (;;) {
        struct seen *next;

        print_task(output, seen, depth);
        next = unprinted(snapshot, seen->first_awaited);
        if (next)
            depth++;
        while (!next) {
            if (seen == top)
                return;
            next = unprinted(snapshot, seen->next_awaited);
            if (next)
                break;
            seen = &snapshot->tasks[seen->awaiter];
            depth--;
        }
        seen = next;
    }
}

/* Nobody outside awaits it, and it was not printed: following who awaits it comes to a cycle. */
static void print_cycle(struct output *output, const struct snapshot *snapshot, struct seen *seen)
{
    struct seen *first;

    for (size_t steps = 0; steps < snapshot->count; steps++)
        seen = &snapshot->tasks[seen->awaiter];
    print(output, "a cycle, each awaited by the next:");
    first = seen;
    do {
        print(output, " '%s' %p", seen->info.name, (const void *)seen->info.task);
        seen = &snapshot->tasks[seen->awaiter];
    } while (seen != first);
    print(output, "\n");
    print_tree(output, snapshot, first);
}

static void print_all(struct output *output, const struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->count; i++)
        if (snapshot->tasks[i].awaiter < 0)
            print_tree(output, snapshot, &snapshot->tasks[i]);
    for (size_t i = 0; i < snapshot->count; i++)
        if (!snapshot->tasks[i].printed)
            print_cycle(output, snapshot, &snapshot->tasks[i]);
}

int weft_runtime_print_tasks(weft_runtime *runtime, int fd)
{
    struct snapshot snapshot = {0};
    struct output output = {.fd = fd};

    take_snapshot(runtime, &snapshot);
    print(&output, "weft: runtime %p, %zu task%s\n", (void *)runtime, snapshot.count,
          snapshot.count == 1 ? "" : "s");
    print_all(&output, &snapshot);
    flush(&output);
    free(snapshot.tasks);
    return output.error;
}

/* ---- by a signal ---- */

/*
 * The handler counts the request and wakes the thread that prints: an atomic addition and a system call, both
 * async-signal-safe. The thread looks at the count again after each tree and sleeps only while it has not changed, so
 * that no request is lost; several that come while it prints are one. It lives as long as the process.
 */
static struct {
    pthread_mutex_t lock;
    weft_runtime *runtimes; /* under the lock; linked by next_inspected */
    bool looked;            /* WEFT_DUMP_SIGNAL has been read */
    _Atomic uint32_t requests;
} dump = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void request(int number)
{
    int error = errno;

    (void)number;
    atomic_fetch_add_explicit(&dump.requests, 1, memory_order_release);
    weft__futex_wake(&dump.requests, 1);
    errno = error;
}

static void print_runtimes(void)
{
    pthread_mutex_lock(&dump.lock);
    for (weft_runtime *runtime = dump.runtimes; runtime; runtime = runtime->next_inspected)
        weft_runtime_print_tasks(runtime, STDERR_FILENO);
    pthread_mutex_unlock(&dump.lock);
}

static void *dump_main(void *unused)
{
    uint32_t served = 0;

    pthread_setname_np(pthread_self(), "weft-dump");
    for (;;) {
        uint32_t requests = atomic_load_explicit(&dump.requests, memory_order_acquire);

        if (requests == served) {
            weft__futex_wait(&dump.requests, served, INT64_MAX);
            continue;
        }
        served = requests;
        print_runtimes();
    }
    return unused;
}

static int start_dump_thread(void)
{
    sigset_t all, before;
    pthread_t thread;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, NULL, dump_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_detach(thread);
    return -rc;
}

static int install(int number)
{
    struct sigaction action = {.sa_handler = request, .sa_flags = SA_RESTART}, before;
    int rc;

    if (sigaction(number, NULL, &before) < 0)
        return -errno;
    if ((before.sa_flags & SA_SIGINFO) || before.sa_handler != SIG_DFL) {
        weft__say("WEFT_DUMP_SIGNAL has no effect: the program handles that signal itself");
        return 0;
    }
    rc = start_dump_thread();
    if (rc == 0 && sigaction(number, &action, NULL) < 0)
        rc = -errno;
    return rc;
}

int weft__inspect_add(weft_runtime *runtime)
{
    int number, rc = 0;

    pthread_mutex_lock(&dump.lock);
    if (!dump.looked) {
        number = weft__config_dump_signal();
        rc = number > 0 ? install(number) : 0;
        dump.looked = rc == 0;
    }
    if (rc == 0) {
        runtime->next_inspected = dump.runtimes;
        dump.runtimes = runtime;
    }
    pthread_mutex_unlock(&dump.lock);
    return rc;
}

void weft__inspect_remove(weft_runtime *runtime)
{
    weft_runtime **link;

    pthread_mutex_lock(&dump.lock);
    for (link = &dump.runtimes; *link; link = &(*link)->next_inspected)
        if (*link == runtime) {
            *link = runtime->next_inspected;
            break;
        }
    pthread_mutex_unlock(&dump.lock);
}
