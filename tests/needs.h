/*
 * Calls that need descriptors, memory, threads: each does its work and gives everything back, or says why it cannot.
 * For tests that take one or the other away; included after hostile.h.
 */
#ifndef WEFT_TESTS_NEEDS_H
#define WEFT_TESTS_NEEDS_H

#include <netdb.h>
#include <signal.h>

static int open_stream(void)
{
    weft_stream *stream;
    int rc = weft_stream_dial("127.0.0.1", 1, &stream);

    if (rc == 0)
        weft_stream_free(stream);
    return rc;
}

static int dial_literal(void)
{
    return weft_dial("127.0.0.1", 1);
}

static int dial_two_families(void)
{
    weft_dial_options options = WEFT_DIAL_DEFAULT;
    weft_address addresses[2];

    must_be(weft_address_parse(&addresses[0], "127.0.0.1", 1), 0);
    must_be(weft_address_parse(&addresses[1], "::1", 1), 0);
    return weft_dial_any(addresses, 2, &options);
}

static int listen_on_any(void)
{
    int fd = weft_listen("127.0.0.1", 0, 0);

    return fd < 0 ? fd : weft_close(fd);
}

static int make_pipe(void)
{
    int ends[2], rc = weft_pipe(ends);

    if (rc == 0) {
        weft_close(ends[0]);
        weft_close(ends[1]);
    }
    return rc;
}

static int make_socket_pair(void)
{
    int ends[2], rc = weft_socket_pair(SOCK_STREAM, ends);

    if (rc == 0) {
        weft_close(ends[0]);
        weft_close(ends[1]);
    }
    return rc;
}

static int open_file(void)
{
    weft_file *file;
    int rc = weft_file_open(&file, "/dev/null", O_RDWR, 0);

    if (rc == 0)
        weft_file_close(file);
    return rc;
}

static int load_file(void)
{
    void *data;
    size_t size;
    int rc = weft_file_load("/proc/self/stat", 0, &data, &size);

    free(data);
    return rc;
}

static int store_file(void)
{
    int rc = weft_file_store("weft-test-hostile.stored", "abc", 3, 0600);

    if (rc == 0)
        unlink("weft-test-hostile.stored");
    return rc;
}

static int list_directory(void)
{
    weft_directory *directory;
    weft_directory_entry entry;
    int rc = weft_directory_open(&directory, "/", 0);

    if (rc == 0) {
        rc = weft_directory_next(directory, &entry);
        rc = rc < 0 ? rc : 0;
        weft_directory_close(directory);
    }
    return rc;
}

/* An emulator does not start processes in the way that weft does. */
static int run_true(void)
{
    static const char *const argv[] = {"/bin/true", NULL};
    weft_process_result result = {0};
    int rc = emulated() ? 0 : weft_process_run(NULL, argv, NULL, 0, 0, &result);

    must(rc < 0 || result.status == 0);
    weft_process_result_free(&result);
    return rc;
}

static int run_cat(void)
{
    static const weft_process_options options = {
        .in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}, .err = {.kind = WEFT_STDIO_PIPE}};
    static const char *const argv[] = {"/bin/cat", NULL};
    weft_process_result result = {0};
    int rc = emulated() ? 0 : weft_process_run(&options, argv, "meow", 4, 0, &result);

    must(rc < 0 || emulated() || (result.out_size == 4 && memcmp(result.out, "meow", 4) == 0));
    weft_process_result_free(&result);
    return rc;
}

static int open_signals(void)
{
    static const int signals[] = {SIGUSR1};
    weft_signals *stream;
    int rc = weft_signal_open(signals, 1, &stream);

    if (rc == 0)
        weft_signal_close(stream);
    return rc;
}

static int serve_once(void)
{
    weft_server *server;
    int rc = weft_serve(&server, weft_listen("127.0.0.1", 0, 0), echo_once, NULL, NULL);

    if (rc == 0)
        weft_server_free(server);
    return rc;
}

/* Not every machine knows its own. */
static const char *some_name(void)
{
    static const char *name;
    struct addrinfo *found;

    if (!name) {
        name = getaddrinfo("localhost", NULL, NULL, &found) == 0 ? "localhost" : "127.0.0.1";
        if (strcmp(name, "localhost") == 0)
            freeaddrinfo(found);
    }
    return name;
}

static int look_up(void)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int rc = weft_getaddrinfo(some_name(), NULL, &hints, &found);

    if (rc == 0)
        freeaddrinfo(found);
    return rc;
}

static int dial_name(void)
{
    return weft_dial(some_name(), 1);
}

static int run_empty_protocol(weft_stream *stream)
{
    static const weft_protocol protocol = {NULL, NULL, NULL, NULL, NULL, NULL};

    return weft_protocol_run(stream, &protocol, NULL);
}

static int run_protocol(void)
{
    weft_stream *stream;
    int ends[2], rc = weft_socket_pair(SOCK_STREAM, ends);

    if (rc < 0)
        return rc;
    weft_close(ends[0]);
    rc = weft_stream_open(ends[1], &stream);
    if (rc < 0) {
        weft_close(ends[1]);
        return rc;
    }
    rc = run_empty_protocol(stream);
    weft_stream_free(stream);
    return rc;
}

/* What there is, by name. */
static const struct {
    const char *name;
    int (*does)(void);
    int result; /* when there are enough */
} needs[] = {
    {"stream", open_stream, -ECONNREFUSED},
    {"dial", dial_literal, -ECONNREFUSED},
    {"dial any", dial_two_families, -ECONNREFUSED},
    {"listen", listen_on_any, 0},
    {"pipe", make_pipe, 0},
    {"socket pair", make_socket_pair, 0},
    {"open", open_file, 0},
    {"load", load_file, 0},
    {"store", store_file, 0},
    {"directory", list_directory, 0},
    {"true", run_true, 0},
    {"cat", run_cat, 0},
    {"signals", open_signals, 0},
    {"serve", serve_once, 0},
    {"look-up", look_up, 0},
    {"dial name", dial_name, -ECONNREFUSED},
    {"protocol", run_protocol, 0},
};

#endif
