/*
 * Computing and input/output at once: an echo server on loopback is asked again and again, first with nothing else
 * to do, then while two tasks for each worker compute. They yield every 200 microseconds, and a worker looks for
 * events even while it has tasks to run, so the server stays quick.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

enum { MOST = 100000, SLICE_US = 200 };

static atomic_long slices;

/* Ends when it is cancelled, as the group that it belongs to is in the end. */
static intptr_t compute(void *unused)
{
    int rc;

    (void)unused;
    do {
        for (int64_t until = weft_now() + WEFT_US(SLICE_US); weft_now() < until;)
            ;
        atomic_fetch_add(&slices, 1);
        rc = weft_yield();
    } while (rc == 0);
    return rc;
}

static intptr_t serve(void *listener)
{
    int client = weft_accept((int)(intptr_t)listener, NULL, NULL);
    ssize_t n = client;
    char buffer[64];

    while (n >= 0 && (n = weft_read(client, buffer, sizeof buffer)) > 0)
        n = weft_write_all(client, buffer, (size_t)n);
    if (client >= 0)
        weft_close(client);
    return n;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* For half a second, send a byte and wait until it comes back. */
static intptr_t ask(int server, const char *when)
{
    static int64_t taken[MOST];
    int64_t began = weft_now(), end = began + WEFT_MS(500);
    int answers = 0;

    while (began < end && answers < MOST) {
        char byte = '?';
        ssize_t n = weft_write(server, &byte, 1);

        if (n == 1)
            n = weft_read(server, &byte, 1);
        if (n != 1)
            return n < 0 ? n : -ECONNRESET;
        taken[answers] = weft_now() - began;
        began += taken[answers++];
    }
    qsort(taken, (size_t)answers, sizeof *taken, by_size);
    printf("%-24s %6d answers, p50 %5ld us, p99 %6ld us\n", when, answers, (long)(taken[answers / 2] / WEFT_US(1)),
           (long)(taken[answers * 99L / 100] / WEFT_US(1)));
    return 0;
}

static intptr_t converse(weft_group *group, int listener)
{
    unsigned workers = weft_runtime_workers(weft_runtime_current());
    int server = weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener));
    intptr_t rc = server;

    if (rc >= 0)
        rc = weft_group_spawn(group, serve, (void *)(intptr_t)listener);
    if (rc == 0)
        rc = ask(server, "nothing else to do:");
    for (unsigned i = 0; i < 2 * workers && rc == 0; i++)
        rc = weft_group_spawn(group, compute, NULL);
    if (rc == 0)
        rc = ask(server, "every worker computing:");
    if (server >= 0)
        weft_close(server);
    return rc;
}

static intptr_t start(void *unused)
{
    int listener = weft_listen("127.0.0.1", 0, 16);
    intptr_t rc = listener, failure;
    weft_group group;

    (void)unused;
    if (rc >= 0)
        rc = weft_group_begin(&group);
    if (rc < 0)
        return rc;
    rc = converse(&group, listener);
    weft_group_cancel(&group); /* those that compute end at their next yield */
    failure = weft_group_wait(&group);
    weft_close(listener);
    printf("computed meanwhile: %ld ms\n", atomic_load(&slices) * SLICE_US / 1000); /* all workers together */
    return rc < 0 ? rc : failure;
}

int main(void)
{
    intptr_t rc = weft_run(start, NULL);

    if (rc < 0)
        fprintf(stderr, "busy_echo: %s\n", strerror((int)-rc));
    return rc < 0;
}
