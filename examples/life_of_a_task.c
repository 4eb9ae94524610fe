/*
 * The life of weft_run, step by step: weft_trace reports every change of a task's state. Three tasks await each
 * other, down to a descriptor that becomes readable after 100 ms; then the chain is unwound, and weft_run has its
 * result.
 *
 * A task that is awaited before it has started runs in place ("inline"), on the stack of the one that awaits it. So
 * there is one stack here, that of main, and it is what parks, becomes ready and goes on.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <weft.h>

/* A trace function must be quick, and must not call weft: it takes notes, printed when all is over. */
enum { NOTES = 64 };

static struct note {
    enum weft_trace_kind kind;
    int64_t time;
    char name[16];
} notes[NOTES];
static atomic_int noted;

static void take_note(const weft_trace_event *event, void *unused)
{
    int i = atomic_fetch_add(&noted, 1); /* workers trace side by side */

    (void)unused;
    if (i >= NOTES)
        return;
    notes[i].kind = event->kind;
    notes[i].time = event->time;
    snprintf(notes[i].name, sizeof notes[i].name, "%s", event->name[0] ? event->name : "main");
}

static void print_notes(void)
{
    for (int i = 0; i < NOTES && i < atomic_load(&noted); i++)
        printf("%4ld ms  %-6s  %s\n", (long)((notes[i].time - notes[0].time) / WEFT_MS(1)), notes[i].name,
               weft_trace_kind_name(notes[i].kind));
}

/* ---- the tasks ---- */

static intptr_t await_named(const char *name, weft_fn *fn, void *arg)
{
    const weft_spawn_options options = {.name = name};

    return weft_await(weft_spawn_with(&options, fn, arg));
}

static intptr_t read_timer(void *arg)
{
    uint64_t expirations = 0;
    ssize_t rc = weft_read(*(int *)arg, &expirations, sizeof expirations); /* parks here, and goes on here */

    return rc < 0 ? rc : (intptr_t)expirations;
}

static intptr_t middle(void *fd)
{
    return await_named("reader", read_timer, fd);
}

static intptr_t start(void *fd)
{
    return await_named("middle", middle, fd);
}

int main(void)
{
    const struct itimerspec in_100_ms = {.it_value = {.tv_nsec = 100 * 1000000}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    intptr_t rc;

    if (fd < 0 || timerfd_settime(fd, 0, &in_100_ms, NULL) < 0) {
        perror("life_of_a_task: timerfd");
        return 1;
    }
    weft_trace(take_note, NULL);
    rc = weft_run(start, &fd);
    weft_trace(NULL, NULL);
    weft_close(fd);
    print_notes();
    printf("weft_run has returned %ld\n", (long)rc);
    return rc == 1 ? 0 : 1;
}
