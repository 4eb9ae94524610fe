/*
 * What the tests of hostile peers and scarce resources share: servers to be abused, a good client that must be served
 * all the same, and running at several worker counts with a check that the memory is back. Included once by each
 * test_hostile_*.c, in place of support.h.
 */
#ifndef WEFT_TESTS_HOSTILE_H
#define WEFT_TESTS_HOSTILE_H

#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "support.h"

static const uint32_t few_workers[] = {1, 2, 8};
enum { FEW = sizeof few_workers / sizeof *few_workers };

/* What a run may leave allocated: in the caches of the C library. */
enum { HOSTILE_TOLERANCE = 48 << 10 };

static UNUSED bool emulated(void)
{
    return getenv("WEFT_TEST_EMULATED") != NULL;
}

/* Bytes that malloc has handed out. */
static UNUSED size_t allocated(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* On 1, 2 and 8 workers. The first run fills what is kept for ever; the others must give everything back. */
static UNUSED void run_everywhere_with(weft_fn *fn, void *arg)
{
    size_t before = 0, after;

    for (int i = 0; i < FEW; i++) {
        assert_int_equal(run_on(few_workers[i], fn, arg), 0);
        after = allocated();
        if (i > 0 && !SUPPORT_SANITIZED && after > before + HOSTILE_TOLERANCE)
            fail_msg("%zu bytes were not given back", after - before);
        before = i == 0 ? after : before;
    }
}

static UNUSED void run_everywhere(weft_fn *fn)
{
    run_everywhere_with(fn, NULL);
}

/* ---- servers ---- */

static UNUSED weft_server *serve(weft_client_fn *handler, void *arg, const weft_serve_options *options)
{
    weft_server *server;

    must_be(weft_serve(&server, weft_listen("127.0.0.1", 0, 0), handler, arg, options), 0);
    return server;
}

static UNUSED size_t clients_of(weft_server *server)
{
    weft_server_stats stats;

    weft_server_look(server, &stats);
    return stats.clients;
}

static UNUSED uint64_t accepted_by(weft_server *server)
{
    weft_server_stats stats;

    weft_server_look(server, &stats);
    return stats.accepted;
}

/* What a connection that its peer ends in its own way may end with. */
static UNUSED bool is_hang_up(ssize_t rc)
{
    return rc == -ECONNRESET || rc == -EPIPE;
}

/* Echoes once, and wants to be called again. */
static UNUSED intptr_t echo_once(weft_client *client)
{
    char buffer[4096];
    ssize_t n = weft_read(client->fd, buffer, sizeof buffer);

    if (n > 0)
        n = weft_write_all(client->fd, buffer, (size_t)n);
    return n > 0 ? WEFT_CALL_AGAIN : is_hang_up(n) ? 0 : n;
}

/* Echoes until the end. */
static UNUSED intptr_t echo_all(weft_client *client)
{
    intptr_t rc;

    do
        rc = echo_once(client);
    while (rc == WEFT_CALL_AGAIN);
    return rc;
}

/* ---- clients ---- */

static UNUSED int dial_port(int port)
{
    int fd = weft_dial("127.0.0.1", (uint16_t)port);

    if (fd < 0)
        must_be(fd, 0);
    return fd;
}

static UNUSED int dial(weft_server *server)
{
    return dial_port(weft_server_port(server));
}

static UNUSED void reset_connection(int fd)
{
    must_be(weft_set_abort(fd), 0);
    must_be(weft_close(fd), 0);
}

static UNUSED void read_exactly(int fd, char *buffer, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = weft_read(fd, buffer + got, size - got);

        must(n > 0);
        got += (size_t)n;
    }
}

/* Until the end, or a reset: how much came. */
static UNUSED size_t read_rest(int fd)
{
    char buffer[4096];
    size_t got = 0;
    ssize_t n;

    while ((n = weft_read(fd, buffer, sizeof buffer)) > 0)
        got += (size_t)n;
    must(n == 0 || is_hang_up(n));
    return got;
}

static UNUSED void exchange(int fd, const char *text)
{
    char back[64];
    size_t size = strlen(text);

    must_be(weft_write_all(fd, text, size), size);
    read_exactly(fd, back, size);
    must(memcmp(text, back, size) == 0);
}

/* An echo server, or a server of lines, serves whoever behaves. */
static UNUSED void be_a_good_client(weft_server *server)
{
    int fd = dial(server);

    for (int i = 0; i < 3; i++)
        exchange(fd, "still there?\n");
    reset_connection(fd);
}

/* Everybody is gone, a good client is served, and the server ends. */
static UNUSED void expect_recovery(weft_server *server)
{
    wait_until_true(clients_of(server) == 0);
    be_a_good_client(server);
    wait_until_true(clients_of(server) == 0);
    weft_server_free(server);
}

#endif
