/*
 * Tracing (trace.h). The function and its argument are read together under a read lock and called under it, so that
 * when weft_trace returns nobody is in the former function any more. Writers go first: a stream of events must not keep
 * weft_trace waiting.
 */
#include "runtime/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/observe.h"
#include "runtime/runtime.h"

static struct {
    pthread_rwlock_t lock;
    void (*fn)(const weft_trace_event *event, void *arg);
    void *arg;
} sink = {.lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP};

/* A thread whose worker was taken away counts as outside. */
static unsigned worker_index(void)
{
    const struct weft__driver *driver = weft__driver();

    if (!driver || atomic_load_explicit(&driver->lost, memory_order_relaxed) || !driver->worker)
        return WEFT_TRACE_OUTSIDE;
    return driver->worker->index;
}

void weft__trace(enum weft_trace_kind kind, const weft_task *task, intptr_t value)
{
    char name[WEFT__NAME_SIZE];
    weft_trace_event event = {.kind = kind,
                              .worker = worker_index(),
                              .time = weft__clock_now(),
                              .task = task,
                              .value = value,
                              .name = name};

    weft__task_copy_name(task, name);
    pthread_rwlock_rdlock(&sink.lock);
    if (sink.fn)
        sink.fn(&event, sink.arg);
    pthread_rwlock_unlock(&sink.lock);
}

void weft_trace(void (*fn)(const weft_trace_event *event, void *arg), void *arg)
{
    pthread_rwlock_wrlock(&sink.lock);
    sink.fn = fn;
    sink.arg = arg;
    if (fn)
        weft__observe_begin(WEFT__OBSERVE_TRACE);
    else
        weft__observe_stop(WEFT__OBSERVE_TRACE);
    pthread_rwlock_unlock(&sink.lock);
}

const char *weft_trace_kind_name(enum weft_trace_kind kind)
{
    static const char *const names[] = {
        [WEFT_TRACE_SPAWN] = "spawn", [WEFT_TRACE_START] = "start",     [WEFT_TRACE_INLINE] = "inline",
        [WEFT_TRACE_AWAIT] = "await", [WEFT_TRACE_WAIT_FD] = "wait_fd", [WEFT_TRACE_PARK] = "park",
        [WEFT_TRACE_EVENT] = "event", [WEFT_TRACE_READY] = "ready",     [WEFT_TRACE_RESUME] = "resume",
        [WEFT_TRACE_END] = "end",     [WEFT_TRACE_CANCEL] = "cancel",
    };

    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "?";
}

/* ---- to a file ---- */

static struct {
    pthread_mutex_t lock;
    int fd;
    int64_t since;
} file = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

static int format_value(const weft_trace_event *event, char *text, size_t size)
{
    switch (event->kind) {
    case WEFT_TRACE_SPAWN:
        return snprintf(text, size, " by %p", (void *)event->value);
    case WEFT_TRACE_INLINE:
        return snprintf(text, size, " for %p", (void *)event->value);
    case WEFT_TRACE_AWAIT:
    case WEFT_TRACE_PARK:
    case WEFT_TRACE_RESUME:
        return snprintf(text, size, " %p", (void *)event->value);
    case WEFT_TRACE_WAIT_FD:
    case WEFT_TRACE_EVENT:
    case WEFT_TRACE_END:
        return snprintf(text, size, " %lld", (long long)event->value);
    case WEFT_TRACE_START:
    case WEFT_TRACE_READY:
    case WEFT_TRACE_CANCEL:
        break;
    }
    return 0;
}

/* One write a line: threads do not mix, and the last lines are there if the process dies. */
static void write_event(const weft_trace_event *event, void *unused)
{
    int64_t time = event->time - file.since;
    char line[160], worker[16] = "outside";
    int length;

    (void)unused;
    if (event->worker != WEFT_TRACE_OUTSIDE)
        snprintf(worker, sizeof worker, "w%u", event->worker);
    length = snprintf(line, sizeof line, "+%lld.%06lld %s task '%s' %p %s", (long long)(time / 1000000000),
                      (long long)(time % 1000000000 / 1000), worker, event->name, (const void *)event->task,
                      weft_trace_kind_name(event->kind));
    length += format_value(event, line + length, sizeof line - 1 - (size_t)length);
    line[length++] = '\n';
    if (write(file.fd, line, (size_t)length) < 0)
        return; /* nowhere to say so */
}

int weft__trace_to_file(const char *path)
{
    int rc = 0;

    pthread_mutex_lock(&file.lock);
    if (file.fd < 0) {
        file.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
        rc = file.fd < 0 ? -errno : 0;
        if (rc == 0) {
            file.since = weft__clock_now();
            weft_trace(write_event, NULL);
        }
    }
    pthread_mutex_unlock(&file.lock);
    return rc;
}
