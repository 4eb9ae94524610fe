/*
 * The weft side of test_tls_peers.sh: a TLS server for others' clients, or a client of their servers.
 *
 *   tls_peer server CERTIFICATE KEY          prints its port; sends lines back, answers GET with a page, ends at QUIT
 *   tls_peer client PORT AUTHORITY SAY HEAR  connects to localhost, says a line, must hear one, and the end; says how
 */
#include <weft/tls.h>

#include "support.h"

static char **arguments;
static weft_server *server;

static int answer(weft_stream *stream, const char *line, size_t length)
{
    static const char page[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npage\n";

    if (length >= 4 && memcmp(line, "GET ", 4) == 0)
        return weft_stream_write(stream, page, sizeof page - 1);
    if (length == 5 && memcmp(line, "QUIT\n", 5) == 0)
        weft_server_close(server);
    return weft_stream_write(stream, line, length);
}

static int serve_lines(weft_stream *stream)
{
    const char *line;
    ssize_t n;
    int rc = 0;

    while (rc == 0 && (n = weft_stream_readline(stream, &line)) != 0) {
        bool last = n >= 4 && memcmp(line, "GET ", 4) == 0;

        rc = n < 0 ? (int)n : answer(stream, line, (size_t)n);
        if (last)
            break;
    }
    return rc == 0 ? weft_stream_close(stream) : rc;
}

static intptr_t serve(weft_stream *stream, weft_client *client)
{
    char reason[200] = "";
    weft_tls_options options = {.reason = reason, .reason_size = sizeof reason};
    int rc = weft_tls_start(stream, client->arg, &options);

    if (rc == 0)
        return serve_lines(stream);
    fprintf(stderr, "handshake: %s\n", reason);
    return rc;
}

static void ignore_end(weft_client *client, intptr_t result)
{
    (void)client, (void)result;
}

static intptr_t be_server(void *arg)
{
    weft_tls_config config = {.certificate_file = arguments[2], .key_file = arguments[3], .alpn = "http/1.1,lines"};
    weft_serve_options options = {.closed = ignore_end};
    weft_tls_context *context;

    (void)arg;
    must_be(weft_tls_server_new(&context, &config), 0);
    must_be(weft_serve_streams(&server, weft_listen("127.0.0.1", 0, 0), serve, context, &options), 0);
    printf("%d\n", weft_server_port(server));
    fflush(stdout);
    must_be(weft_server_wait_closed(server), 0);
    weft_server_free(server);
    weft_tls_context_free(context);
    return 0;
}

static int converse(weft_stream *stream)
{
    const char *line;
    char text[200];
    int length = snprintf(text, sizeof text, "%s\n", arguments[4]);
    ssize_t n;
    int rc = weft_stream_write(stream, text, (size_t)length);

    if (rc < 0)
        return rc;
    n = weft_stream_readline(stream, &line);
    if (n < 0)
        return (int)n;
    if ((size_t)n != strlen(arguments[5]) + 1 || memcmp(line, arguments[5], (size_t)n - 1) != 0)
        return -EBADMSG;
    return weft_stream_close(stream);
}

static intptr_t be_client(void *arg)
{
    weft_tls_config config = {.ca_file = arguments[3], .alpn = "lines,http/1.1"};
    char reason[200] = "";
    weft_tls_options options = {.host = "localhost", .reason = reason, .reason_size = sizeof reason};
    weft_tls_context *context;
    weft_stream *stream;
    weft_tls_info info;
    int rc;

    (void)arg;
    must_be(weft_tls_client_new(&context, &config), 0);
    rc = weft_tls_dial("127.0.0.1", (uint16_t)atoi(arguments[2]), context, &options, &stream);
    if (rc == 0) {
        must_be(weft_tls_look(stream, &info), 0);
        rc = converse(stream);
        printf("%#x %s %s\n", info.version, info.cipher, info.alpn);
        weft_stream_free(stream);
    }
    printf("%s %s\n", rc == 0 ? "ok" : strerrorname_np(-rc), reason);
    weft_tls_context_free(context);
    return rc;
}

int main(int argc, char **argv)
{
    arguments = argv;
    alarm(SUPPORT_LIMIT);
    if (argc == 4 && strcmp(argv[1], "server") == 0)
        return weft_run(be_server, NULL) == 0 ? 0 : 1;
    if (argc == 6 && strcmp(argv[1], "client") == 0)
        return weft_run(be_client, NULL) == 0 ? 0 : 1;
    fprintf(stderr, "usage: tls_peer server CERTIFICATE KEY | client PORT AUTHORITY SAY HEAR\n");
    return 2;
}
