/*
 * The same work by tasks with a stack and by tasks without one: each says that it is there, waits at the gate, and
 * counts itself. What differs is how it is written (see weft/stackless.h), and the memory of one that waits.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>

enum { TASKS = 1000 };

static weft_waitgroup missing = WEFT_WAITGROUP_INIT;
static weft_event gate = WEFT_EVENT_INIT;

/* What must last while a stackless task waits lies in a structure; for the other one it could be local. */
struct visitor {
    weft_frame frame;
    intptr_t rc;
    atomic_int *passed;
};

static intptr_t stackful(void *arg)
{
    struct visitor *self = arg;

    weft_waitgroup_done(&missing);
    self->rc = weft_event_wait(&gate);
    if (self->rc == 0)
        atomic_fetch_add(self->passed, 1);
    return self->rc;
}

static intptr_t stackless(void *arg)
{
    struct visitor *self = arg;

    WEFT_BEGIN(self);
    weft_waitgroup_done(&missing);
    WEFT_AWAIT(self, self->rc, weft_async_event(&gate));
    if (self->rc == 0)
        atomic_fetch_add(self->passed, 1);
    WEFT_END(self, self->rc);
}

/* Memory of this process in bytes; 0 if the system does not tell. */
static long resident(void)
{
    FILE *statm = fopen("/proc/self/statm", "r");
    long pages = 0;

    if (statm && fscanf(statm, "%*s %ld", &pages) != 1)
        pages = 0;
    if (statm)
        fclose(statm);
    return pages * sysconf(_SC_PAGESIZE);
}

/* Spawn them, wait until all have come to the gate; what each of them takes there. */
static intptr_t suspend_all(weft_group *group, uint32_t flags, weft_fn *fn, struct visitor *visitors,
                            atomic_int *passed)
{
    const weft_spawn_options options = {.flags = flags};
    long before = resident();
    int rc = weft_waitgroup_add(&missing, TASKS);

    for (int i = 0; i < TASKS && rc == 0; i++) {
        visitors[i].passed = passed;
        rc = weft_group_spawn_with(group, &options, fn, &visitors[i]);
    }
    if (rc == 0)
        rc = weft_waitgroup_wait(&missing);
    return rc < 0 ? rc : (resident() - before) / TASKS;
}

static intptr_t compare(void *unused)
{
    static struct visitor with[TASKS], without[TASKS];
    atomic_int passed[2] = {0, 0};
    intptr_t bytes[2] = {0, 0}, rc;
    weft_group group;

    (void)unused;
    rc = weft_group_begin(&group);
    if (rc < 0)
        return rc;
    bytes[0] = suspend_all(&group, 0, stackful, with, &passed[0]);
    if (bytes[0] >= 0)
        bytes[1] = suspend_all(&group, WEFT_SPAWN_STACKLESS, stackless, without, &passed[1]);
    weft_event_set(&gate);
    rc = weft_group_wait(&group);
    printf("stackful:  %d passed, %ld bytes each while suspended\n", passed[0], (long)bytes[0]);
    printf("stackless: %d passed, %ld bytes each while suspended\n", passed[1], (long)bytes[1]);
    return rc < 0 ? rc : bytes[0] < 0 ? bytes[0] : bytes[1] < 0 ? bytes[1] : 0;
}

int main(void)
{
    intptr_t rc = weft_run(compare, NULL);

    if (rc < 0)
        fprintf(stderr, "stackless: %s\n", strerror((int)-rc));
    return rc < 0;
}
