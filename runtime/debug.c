/* Messages (debug.h). Any thread. */
#include "runtime/debug.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/task.h>

#include "runtime/runtime.h"
#include "runtime/task_end.h"

void weft__say(const char *format, ...)
{
    char line[512] = "weft: ";
    size_t length = strlen(line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    strcat(line, "\n");
    /* One write: lines of several threads do not mix. */
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return;
}

/* Of the thread's own runtime; outside of any the environment is all there is to ask. */
static bool is_debugging(void)
{
    const struct weft__driver *driver = weft__driver();
    const char *value = driver ? NULL : getenv("WEFT_DEBUG");

    return driver ? driver->runtime->config.debug : value && strcmp(value, "1") == 0;
}

int weft__misused(const char *function)
{
    static atomic_bool said;

    if (weft_self()) /* which is stackless */
        return weft__misused_stackless(function);
    if (is_debugging() && !atomic_exchange_explicit(&said, true, memory_order_relaxed))
        weft__say("%s was called outside a task: it returns -EPERM (a null handle where it returns one). Call it "
                  "from a function run by weft_run or weft_spawn. Further calls like this are not reported.",
                  function);
    return -EPERM;
}

int weft__misused_stackless(const char *function)
{
    static atomic_bool said;

    if (is_debugging() && !atomic_exchange_explicit(&said, true, memory_order_relaxed))
        weft__say("%s was called in a stackless task: it returns -EPERM. Use the weft_async_ operations there. "
                  "Further calls like this are not reported.",
                  function);
    return -EPERM;
}

int weft__misused_nested(const char *function)
{
    static atomic_bool said;

    if (is_debugging() && !atomic_exchange_explicit(&said, true, memory_order_relaxed))
        weft__say("%s was called inside a task: it returns -EALREADY. Use weft_spawn and weft_await there. Further "
                  "calls like this are not reported.",
                  function);
    return -EALREADY;
}

/* ---- places ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

void weft__describe_address(const void *address, char *text, size_t size)
{
    Dl_info info;
    int length;

    if (!address) {
        snprintf(text, size, "an unknown place");
        return;
    }
    if (!dladdr(address, &info) || !info.dli_fname) {
        snprintf(text, size, "%p", address);
        return;
    }
    length = snprintf(text, size, "%s+0x%zx", base_name(info.dli_fname),
                      (size_t)((const char *)address - (const char *)info.dli_fbase));
    if (info.dli_sname && length >= 0 && (size_t)length < size)
        snprintf(text + length, size - (size_t)length, " (%s+0x%zx)", info.dli_sname,
                 (size_t)((const char *)address - (const char *)info.dli_saddr));
}

void weft__debug_note_spawn(weft_task *task, const void *at)
{
    struct weft__task_extra *extra = weft__task_extra(task);

    if (extra)
        extra->spawned_at = at;
}

static const void *spawn_place(const weft_task *task)
{
    return task->flags & WEFT__FLAG_EXTRA ? task->extra->spawned_at : NULL;
}

void weft__debug_name_slow(const weft_task *task, int64_t length)
{
    char place[256];

    weft__describe_address(spawn_place(task), place, sizeof place);
    weft__say("task '%s' (%p) ran for %lld ms without suspending (WEFT_SLOW_MS); it was spawned at %s",
              weft__task_name(task), (const void *)task, (long long)(length / 1000000), place);
}

/* ---- handles that were never given back ---- */

enum { KINDS_AT_MOST = 16 };

/* Tasks of one name from one place: named once. */
struct kind {
    char name[WEFT__NAME_SIZE];
    const void *place;
    unsigned count;
};

struct unawaited {
    struct kind kinds[KINDS_AT_MOST];
    unsigned kind_count;
    unsigned others;
};

static void count_kind(struct unawaited *all, const weft_task *task)
{
    const void *place = spawn_place(task);
    const char *name = weft__task_name(task);
    struct kind *kind;

    for (unsigned i = 0; i < all->kind_count; i++) {
        kind = &all->kinds[i];
        if (kind->place == place && strcmp(kind->name, name) == 0) {
            kind->count++;
            return;
        }
    }
    if (all->kind_count == KINDS_AT_MOST) {
        all->others++;
        return;
    }
    kind = &all->kinds[all->kind_count++];
    strcpy(kind->name, name);
    kind->place = place;
    kind->count = 1;
}

/* Every thread that could change it has ended its work for the runtime: plain reads. A free record has NO_HANDLE. */
static void collect_lost(weft_task *task, void *list)
{
    weft_task **lost = list;
    uint32_t state = atomic_load_explicit(&task->state, memory_order_acquire);

    if ((state & (WEFT__DONE | WEFT__AWAITED | WEFT__NO_HANDLE)) != WEFT__DONE)
        return;
    task->next = *lost;
    *lost = task;
}

/* What was cancelled because the runtime stops has not failed. */
static bool has_failed(const weft_task *task)
{
    return task->result != -ECANCELED && weft__task_has_failed(task, task->result);
}

void weft__debug_name_unawaited(weft_runtime *runtime)
{
    struct unawaited all = {0};
    weft_task *lost = NULL;

    if (!runtime->config.debug && !runtime->config.on_unseen_failure)
        return;
    weft__depot_each(runtime->depot, collect_lost, &lost);
    for (weft_task *task = lost; task; task = task->next) {
        if (has_failed(task))
            weft__runtime_report(runtime, task, task->result);
        count_kind(&all, task);
    }
    if (!runtime->config.debug)
        return;
    for (unsigned i = 0; i < all.kind_count; i++) {
        char place[256];

        weft__describe_address(all.kinds[i].place, place, sizeof place);
        weft__say("%u task%s '%s' ended and %s neither awaited nor detached: the handle is lost. Spawned at %s",
                  all.kinds[i].count, all.kinds[i].count == 1 ? "" : "s", all.kinds[i].name,
                  all.kinds[i].count == 1 ? "was" : "were", place);
    }
    if (all.others > 0)
        weft__say("and %u more tasks that were neither awaited nor detached", all.others);
}
