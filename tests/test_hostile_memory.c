/*
 * Out of memory: each allocation of a call, of a server's and its clients' life, fails in turn. The call says -ENOMEM
 * or does without, nothing is left behind, and the next one works.
 */
#include "hostile.h"
#include "needs.h"

/* The linker puts these in front of the allocator (CMakeLists.txt). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

static _Atomic int countdown; /* allocations until the one that fails; 0 or less: none does */

static int fails(void)
{
    return atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

/* Has the one come that was to fail? */
static bool has_failed(void)
{
    return atomic_exchange(&countdown, 0) <= 0;
}

/* ---- calls ---- */

/* Its n-th allocation fails, for every n until it makes fewer. */
static void fail_everywhere(size_t which)
{
    bool failed = true;

    for (int n = 1; failed; n++) {
        int rc;

        must(n < 1000);
        atomic_store(&countdown, n);
        rc = needs[which].does();
        failed = has_failed();
        /* -EAGAIN: the blocking pool did not take a look-up */
        if (rc != needs[which].result && ((rc != -ENOMEM && rc != -EAGAIN) || !failed)) {
            fprintf(stderr, "%s, allocation %d: %d\n", needs[which].name, n, rc);
            abort();
        }
    }
    must_be(needs[which].does(), needs[which].result);
}

static intptr_t fail_calls(void *arg)
{
    unsigned descriptors;

    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        must_be(needs[i].does(), needs[i].result);
    descriptors = count_descriptors();
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        fail_everywhere(i);
    must_be(count_descriptors(), descriptors);
    return (intptr_t)arg;
}

static void every_allocation_of_a_call_may_fail(void **state)
{
    (void)state;
    run_everywhere(fail_calls);
}

/* ---- a server ---- */

static atomic_int pauses, resumptions;

static void note_pause(weft_server *server, int error, void *arg)
{
    (void)server;
    (void)arg;
    must(error == 0 || error == -ENOMEM);
    atomic_fetch_add(error ? &pauses : &resumptions, 1);
}

/* A handler that allocates, too. */
static intptr_t echo_by_stream(weft_client *client)
{
    weft_stream *stream;
    const char *line;
    int fd = fcntl(client->fd, F_DUPFD_CLOEXEC, 0), rc;
    ssize_t n;

    must(fd >= 0);
    rc = weft_stream_open(fd, &stream);
    if (rc < 0) {
        must_be(weft_close(fd), 0);
        return 0;
    }
    while ((n = weft_stream_readline(stream, &line)) > 0 && weft_stream_write(stream, line, (size_t)n) == 0)
        ;
    weft_stream_close(stream);
    weft_stream_free(stream);
    return 0;
}

/* 0, or the connection was lost for lack of memory. */
static int try_exchange(weft_server *server)
{
    weft_stream *stream;
    const char *line;
    ssize_t n;
    int rc = weft_stream_dial("127.0.0.1", (uint16_t)weft_server_port(server), &stream);

    if (rc < 0)
        return rc;
    n = weft_stream_write(stream, "a line\n", 7);
    if (n == 0)
        n = weft_stream_readline(stream, &line);
    weft_stream_abort(stream);
    weft_stream_free(stream);
    return n == 7 ? 0 : n == 0 ? -ENODATA : (int)n;
}

/* 1: the allocation that was to fail was one of it. */
static int live_and_die(weft_client_fn *handler, const weft_serve_options *options, int n)
{
    weft_server *server;
    int rc, failures = 0;

    atomic_store(&countdown, n);
    while ((rc = weft_serve(&server, weft_listen("127.0.0.1", 0, 0), handler, NULL, options)) == -ENOMEM)
        failures++;
    must_be(rc, 0);
    for (int served = 0; served < 3;) {
        rc = try_exchange(server);
        must(rc == 0 || rc == -ENOMEM || rc == -ENODATA || is_hang_up(rc));
        served += rc == 0;
        failures += rc != 0;
    }
    /* The one that fails may be this task's own: room for another deadline. */
    while (clients_of(server) != 0) {
        rc = weft_sleep(WEFT_US(100));
        must(rc == 0 || rc == -ENOMEM);
        failures += rc != 0;
    }
    rc = has_failed();
    must(failures <= rc);
    weft_server_free(server);
    return rc;
}

static intptr_t fail_servers(void *arg)
{
    static const weft_serve_options ways[] = {
        {.paused = note_pause, .linger = -1},
        {.paused = note_pause, .flags = WEFT_SERVE_ON_DATA},
        {.paused = note_pause, .idle_timeout = WEFT_SEC(5), .clients_max = 2}};
    static weft_client_fn *const handlers[] = {echo_once, echo_by_stream};

    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++)
        for (int k = 0; k < 2; k++)
            for (int n = 1; live_and_die(handlers[k], &ways[way], n); n++)
                must(n < 1000);
    must(atomic_load(&pauses) > 0);
    must_be(atomic_load(&resumptions), atomic_load(&pauses));
    return (intptr_t)arg;
}

static void a_server_survives_every_allocation_that_fails(void **state)
{
    (void)state;
    run_everywhere(fail_servers);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_a_call_may_fail),
        cmocka_unit_test(a_server_survives_every_allocation_that_fails),
    };

    return run_all(tests, argc, argv);
}
