/*
 * An HTTPS server of one page, and a client that gets it, in one program. The certificate is made on the spot with
 * openssl(1), or given as two files.
 *
 *     https                           make a certificate, serve, get the page twice, stop
 *     https CERTIFICATE KEY PORT      serve until interrupted
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>
#include <weft/tls.h>

static const char page[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n"
                           "Connection: close\r\n\r\nGood day, stranger\n";

/* The head of a request, up to the empty line. */
static int read_head(weft_stream *stream)
{
    static const struct iovec end = {(void *)(uintptr_t) "\r\n\r\n", 4};
    const char *head;
    ssize_t n = weft_stream_readuntil(stream, &end, 1, &head);

    return n < 0 ? (int)n : n == 0 ? -ENODATA : 0;
}

static intptr_t serve_page(weft_stream *stream, weft_client *client)
{
    int rc = weft_tls_start(stream, client->arg, NULL);

    if (rc == 0)
        rc = read_head(stream);
    if (rc == 0)
        rc = weft_stream_write(stream, page, sizeof page - 1);
    return rc; /* the server closes the stream */
}

static void print_lines(weft_stream *stream)
{
    const char *line;
    ssize_t n;

    while ((n = weft_stream_readline(stream, &line)) > 0)
        if (strncmp(line, "HTTP", 4) == 0 || strncmp(line, "Good", 4) == 0)
            printf("%.*s\n", (int)strcspn(line, "\r\n"), line);
    if (n < 0) /* -ECONNABORTED: the page may have been cut off */
        printf("the page is not whole: %s\n", strerror((int)-n));
}

static int get(weft_tls_context *context, uint16_t port)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char reason[200];
    weft_tls_options options = {.host = "localhost", .reason = reason, .reason_size = sizeof reason};
    weft_stream *stream;
    weft_tls_info info;
    int rc = weft_tls_dial("127.0.0.1", port, context, &options, &stream);

    if (rc < 0) {
        printf("no connection: %s\n", reason);
        return rc;
    }
    weft_tls_look(stream, &info);
    printf("%s, %s%s\n", info.version == WEFT_TLS_1_3 ? "TLS 1.3" : "TLS 1.2", info.alpn,
           info.is_resumed ? ", resumed" : "");
    rc = weft_stream_write(stream, request, sizeof request - 1);
    if (rc == 0)
        print_lines(stream);
    weft_stream_close(stream);
    weft_stream_free(stream);
    return rc;
}

struct files {
    const char *certificate, *key;
    uint16_t port;
    bool gets;
};

static int get_twice(const struct files *files, uint16_t port)
{
    weft_tls_config config = {.ca_file = files->certificate, .alpn = "http/1.1"};
    weft_tls_context *context;
    int rc = weft_tls_client_new(&context, &config);

    for (int i = 0; i < 2 && rc == 0; i++)
        rc = get(context, port);
    weft_tls_context_free(context);
    return rc;
}

static intptr_t start(void *arg)
{
    const struct files *files = arg;
    char reason[200];
    weft_tls_config config = {.certificate_file = files->certificate,
                              .key_file = files->key,
                              .alpn = "http/1.1",
                              .reason = reason,
                              .reason_size = sizeof reason};
    weft_tls_context *context;
    weft_server *server;
    int rc = weft_tls_server_new(&context, &config);

    if (rc < 0) {
        fprintf(stderr, "%s\n", reason);
        return rc;
    }
    rc = weft_serve_streams(&server, weft_listen("127.0.0.1", files->port, 0), serve_page, context, NULL);
    if (rc == 0) {
        rc = files->gets ? get_twice(files, (uint16_t)weft_server_port(server)) : weft_server_wait_closed(server);
        weft_server_free(server);
    }
    weft_tls_context_free(context);
    return rc;
}

/* A certificate that signs itself, for localhost. */
static int make_certificate(char directory[])
{
    char command[400];

    if (!mkdtemp(directory))
        return -errno;
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost "
             "-addext subjectAltName=DNS:localhost -keyout %s/key -out %s/certificate 2>/dev/null",
             directory, directory);
    return system(command) == 0 ? 0 : -ENOENT;
}

static int make_and_get(void)
{
    char directory[] = "/tmp/weft-https.XXXXXX", certificate[64], key[64];
    struct files files = {.certificate = certificate, .key = key, .gets = true};
    int rc = make_certificate(directory);

    snprintf(certificate, sizeof certificate, "%s/certificate", directory);
    snprintf(key, sizeof key, "%s/key", directory);
    if (rc == 0)
        rc = (int)weft_run(start, &files);
    unlink(certificate);
    unlink(key);
    rmdir(directory);
    return rc;
}

int main(int argc, char **argv)
{
    struct files files;

    if (argc < 4)
        return make_and_get() == 0 ? 0 : 1;
    files = (struct files){.certificate = argv[1], .key = argv[2], .port = (uint16_t)atoi(argv[3])};
    return weft_run(start, &files) == 0 ? 0 : 1;
}
