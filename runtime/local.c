/* Task-locals (local.h). Called by the task that runs on the calling thread. */
#include "runtime/local.h"

#include <errno.h>
#include <stdlib.h>

#include "runtime/debug.h"
#include "runtime/observe.h"
#include "runtime/task.h"
#include "runtime/worker.h"

/* A destructor may set values again; so often for each, as with threads, then they are dropped. */
enum { ROUNDS = 4 };

struct weft__local_value {
    struct weft__local_value *next;
    const weft_local *key;
    void *value;
};

static weft_task *current_task(void)
{
    struct weft__driver *driver = weft__driver();

    return driver && driver->coroutine ? driver->coroutine->current : NULL;
}

static struct weft__local_value **find(const weft_task *task, const weft_local *key)
{
    struct weft__local_value **link = &task->extra->locals;

    while (*link && (*link)->key != key)
        link = &(*link)->next;
    return link;
}

static void destroy(const weft_local *key, void *value)
{
    if (key->destroy)
        key->destroy(value);
}

static int add(weft_task *task, const weft_local *key, void *value)
{
    struct weft__task_extra *extra = weft__task_extra(task);
    struct weft__local_value *new = extra ? malloc(sizeof *new) : NULL;

    if (!new)
        return -ENOMEM;
    *new = (struct weft__local_value){.next = extra->locals, .key = key, .value = value};
    extra->locals = new;
    task->flags |= WEFT__FLAG_LOCALS;
    weft__observe_begin(WEFT__OBSERVE_LOCALS);
    return 0;
}

static void replace(struct weft__local_value **link, void *value)
{
    struct weft__local_value *found = *link;
    const weft_local *key = found->key;
    void *old = found->value;

    if (old == value)
        return;
    if (value) {
        found->value = value;
    } else {
        *link = found->next;
        free(found);
    }
    destroy(key, old);
}

int weft_local_set(const weft_local *key, void *value)
{
    weft_task *task = current_task();
    struct weft__local_value **link;

    if (!task)
        return weft__misused("weft_local_set");
    if (!key)
        return -EINVAL;
    link = task->flags & WEFT__FLAG_LOCALS ? find(task, key) : NULL;
    if (link && *link)
        replace(link, value);
    else if (value)
        return add(task, key, value);
    return 0;
}

void *weft_local_get(const weft_local *key)
{
    const weft_task *task = current_task();
    const struct weft__local_value *found;

    if (!task || !(task->flags & WEFT__FLAG_LOCALS))
        return NULL;
    found = *find(task, key);
    return found ? found->value : NULL;
}

void *weft_local_share(void *value)
{
    return value;
}

bool weft__local_inherit(const weft_task *spawner, weft_task *child)
{
    /* From the end, where the oldest is, the child's list would come out in the same order; nobody can tell. */
    for (const struct weft__local_value *own = spawner->extra->locals; own; own = own->next) {
        void *value = own->key->inherit ? own->key->inherit(own->value) : NULL;

        if (!value || add(child, own->key, value) == 0)
            continue;
        destroy(own->key, value);
        if (child->flags & WEFT__FLAG_LOCALS)
            weft__local_end(child);
        return false;
    }
    return true;
}

void weft__local_end(weft_task *task)
{
    struct weft__task_extra *extra = task->extra;
    struct weft__local_value *first;
    size_t calls = 0;

    for (first = extra->locals; first; first = first->next)
        calls += ROUNDS;
    while ((first = extra->locals)) {
        struct weft__local_value ended = *first;

        extra->locals = ended.next;
        free(first);
        if (calls > 0) {
            calls--;
            destroy(ended.key, ended.value);
        }
    }
    task->flags &= (uint16_t)~WEFT__FLAG_LOCALS;
}
