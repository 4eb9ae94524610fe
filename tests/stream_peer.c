/*
 * The weft side of test_stream_peers.sh: a server for asyncio's streams, or a client of them.
 *
 *   stream_peer server              prints its port, serves until a client says QUIT
 *   stream_peer client HOST PORT
 *
 * The conversation consists of lines: "ECHO n" is answered by n bytes that follow it, "SINK" by the number of bytes
 * up to the end, "QUIT" ends the server, and every other line by itself.
 */
#include "support.h"

static weft_group connections;
static int listener;

static int echo_bytes(weft_stream *stream, size_t size)
{
    char buffer[10000];

    while (size > 0) {
        ssize_t n = weft_stream_read(stream, buffer, size < sizeof buffer ? size : sizeof buffer);
        int rc;

        if (n <= 0)
            return n < 0 ? (int)n : -ENODATA;
        rc = weft_stream_write(stream, buffer, (size_t)n);
        if (rc == 0)
            rc = weft_stream_drain(stream);
        if (rc < 0)
            return rc;
        size -= (size_t)n;
    }
    return 0;
}

static int count_bytes(weft_stream *stream)
{
    char buffer[10000], text[32];
    size_t count = 0;
    ssize_t n;

    while ((n = weft_stream_read(stream, buffer, sizeof buffer)) > 0)
        count += (size_t)n;
    if (n < 0)
        return (int)n;
    return weft_stream_write(stream, text, (size_t)snprintf(text, sizeof text, "%zu\n", count));
}

static int answer(weft_stream *stream, const char *line, size_t length)
{
    char text[32] = "";

    memcpy(text, line, length < sizeof text - 1 ? length : sizeof text - 1);
    if (strncmp(text, "ECHO ", 5) == 0)
        return echo_bytes(stream, strtoul(text + 5, NULL, 10));
    if (strcmp(text, "SINK\n") == 0)
        return count_bytes(stream);
    if (strcmp(text, "QUIT\n") == 0)
        return weft_close(listener);
    return weft_stream_write(stream, line, length);
}

/* The end of a connection, however it comes, is that connection's matter. */
static intptr_t serve(void *arg)
{
    weft_stream *stream;
    const char *line;
    ssize_t n;

    must_be(weft_stream_open((int)(intptr_t)arg, &stream), 0);
    while ((n = weft_stream_readline(stream, &line)) > 0)
        if (answer(stream, line, (size_t)n) < 0)
            break;
    weft_stream_close(stream);
    weft_stream_free(stream);
    return 0;
}

static intptr_t be_server(void *arg)
{
    int fd;

    (void)arg;
    listener = weft_listen("127.0.0.1", 0, 128);
    must(listener >= 0);
    printf("%d\n", weft_local_port(listener));
    fflush(stdout);
    must_be(weft_group_begin(&connections), 0);
    while ((fd = weft_accept(listener, NULL, NULL)) >= 0)
        must_be(weft_group_spawn(&connections, serve, (void *)(intptr_t)fd), 0);
    must_be(fd, -EBADF);
    return weft_group_wait(&connections);
}

/* ---- the client ---- */

static const char *host;
static uint16_t port;

static weft_stream *dial(void)
{
    weft_stream *stream;

    must_be(weft_stream_dial(host, port, &stream), 0);
    return stream;
}

static void write_text(weft_stream *stream, const char *text)
{
    must_be(weft_stream_write(stream, text, strlen(text)), 0);
}

static void expect_line(weft_stream *stream, const char *text)
{
    const char *line;

    must_be(weft_stream_readline(stream, &line), strlen(text));
    must(memcmp(line, text, strlen(text)) == 0);
}

static intptr_t talk_in_lines(void *arg)
{
    weft_stream *stream = dial();

    for (int i = 0; i < 200; i++) {
        char text[32];

        snprintf(text, sizeof text, "%d: line %d\n", (int)(intptr_t)arg, i);
        write_text(stream, text);
        expect_line(stream, text);
    }
    must_be(weft_stream_write_eof(stream), 0);
    must_be(weft_stream_read(stream, &(char){0}, 1), 0);
    must_be(weft_stream_at_eof(stream), 1);
    must_be(weft_stream_close(stream), 0);
    weft_stream_free(stream);
    return 0;
}

static void get_back_what_is_sent(void)
{
    const size_t size = 3000000;
    weft_stream *stream = dial();
    char *bytes = malloc(size), *back = malloc(size);

    must(bytes != NULL && back != NULL);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 7 >> 2);
    write_text(stream, "ECHO 3000000\n");
    must_be(weft_stream_write(stream, bytes, size), 0); /* sent in the background */
    must_be(weft_stream_readexactly(stream, back, size), size);
    must(memcmp(bytes, back, size) == 0);
    weft_stream_free(stream);
    free(bytes);
    free(back);
}

/* The server reads slowly: no more than the high mark and a block is buffered. */
static void be_held_up(void)
{
    weft_stream *stream = dial();
    static char block[4000];

    write_text(stream, "SINK\n");
    for (int i = 0; i < 2000; i++) {
        must_be(weft_stream_write(stream, block, sizeof block), 0);
        must_be(weft_stream_drain(stream), 0);
        must(weft_stream_buffered(stream) <= WEFT_STREAM_HIGH);
    }
    must_be(weft_stream_write_eof(stream), 0);
    expect_line(stream, "8000000\n");
    must_be(weft_stream_close(stream), 0);
    weft_stream_free(stream);
}

/* The server goes away in the middle. */
static void be_left(void)
{
    weft_stream *stream = dial();
    static char block[4000];
    int rc;

    write_text(stream, "LEAVE\n");
    while ((rc = weft_stream_write(stream, block, sizeof block)) == 0 && (rc = weft_stream_drain(stream)) == 0)
        ;
    must(rc == -EPIPE || rc == -ECONNRESET);
    weft_stream_free(stream);
}

static intptr_t be_client(void *arg)
{
    weft_task *tasks[20];

    (void)arg;
    for (int i = 0; i < 20; i++) {
        tasks[i] = weft_spawn(talk_in_lines, (void *)(intptr_t)i);
        must(tasks[i] != NULL);
    }
    must_be(weft_gather(tasks, 20, NULL), 0);
    get_back_what_is_sent();
    be_held_up();
    be_left();
    return 0;
}

int main(int argc, char **argv)
{
    alarm(SUPPORT_LIMIT);
    if (argc == 2 && strcmp(argv[1], "server") == 0)
        return (int)weft_run(be_server, NULL) != 0;
    must(argc == 4 && strcmp(argv[1], "client") == 0);
    host = argv[2];
    port = (uint16_t)strtoul(argv[3], NULL, 10);
    return (int)weft_run(be_client, NULL) != 0;
}
