/* TLS under streams: handshakes that succeed and that must not, what is agreed on, ends of all kinds, attacks on the
 * transport, and that nothing is left behind. */
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <weft/tls.h>

#include "support.h"
#include "tls_certificates.h"

static const uint32_t counts[] = {1, 2, 8};

static struct identity authority, other_authority, server_identity, client_identity;
static weft_tls_context *server_context, *client_context;

static void run_everywhere(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

/* ---- contexts ---- */

static weft_tls_context *new_server(const weft_tls_config *config)
{
    weft_tls_config full = *config;
    weft_tls_context *context;
    char reason[200];

    if (!full.certificate) {
        full.certificate = server_identity.certificate;
        full.key = server_identity.private_key;
    }
    if (!full.ca)
        full.ca = authority.certificate;
    full.reason = reason;
    full.reason_size = sizeof reason;
    must_be(weft_tls_server_new(&context, &full), 0);
    return context;
}

static weft_tls_context *new_client(const weft_tls_config *config)
{
    weft_tls_config full = *config;
    weft_tls_context *context;

    if (!full.ca)
        full.ca = authority.certificate;
    must_be(weft_tls_client_new(&context, &full), 0);
    return context;
}

static weft_tls_context *new_server_of(const struct identity *identity)
{
    return new_server(&(weft_tls_config){.certificate = identity->certificate, .key = identity->private_key});
}

static int make_contexts(void **state)
{
    (void)state;
    authority = make_identity(NULL, "The Authority", NULL, -1, 30);
    other_authority = make_identity(NULL, "Another Authority", NULL, -1, 30);
    server_identity =
        make_identity(&authority, "server", "DNS:example.test,DNS:*.example.test,IP:127.0.0.1", -1, 30);
    client_identity = make_identity(&authority, "client", "DNS:client.test", -1, 30);
    server_context = new_server(&(weft_tls_config){.alpn = "two,one"});
    client_context = new_client(&(weft_tls_config){.alpn = "one,two"});
    return 0;
}

static int free_contexts(void **state)
{
    (void)state;
    weft_tls_context_free(server_context);
    weft_tls_context_free(client_context);
    free_identity(&authority);
    free_identity(&other_authority);
    free_identity(&server_identity);
    free_identity(&client_identity);
    return 0;
}

/* ---- connections ---- */

/* One end: its stream, and how TLS began there. */
struct end {
    weft_stream *stream;
    weft_tls_context *context;
    weft_tls_options options;
    char reason[200];
    int rc;
};

struct pair {
    struct end client, server;
};

static weft_stream *open_stream(int fd)
{
    weft_stream *stream;

    must_be(weft_stream_open(fd, &stream), 0);
    return stream;
}

static void open_ends(struct pair *pair, int client, int server)
{
    *pair = (struct pair){.client = {.stream = open_stream(client), .context = client_context},
                          .server = {.stream = open_stream(server), .context = server_context}};
    pair->client.options.host = "example.test";
}

static void open_pair(struct pair *pair)
{
    int fds[2];

    must_be(weft_socket_pair(SOCK_STREAM, fds), 0);
    open_ends(pair, fds[0], fds[1]);
}

static void open_tcp_pair(struct pair *pair)
{
    int listener = weft_listen("127.0.0.1", 0, 1), client, server;

    must(listener >= 0);
    client = weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener));
    must(client >= 0);
    server = weft_accept(listener, NULL, NULL);
    must(server >= 0);
    weft_close(listener);
    open_ends(pair, client, server);
}

static void free_pair(struct pair *pair)
{
    weft_stream_free(pair->client.stream);
    weft_stream_free(pair->server.stream);
}

static intptr_t start_end(void *arg)
{
    struct end *end = arg;

    end->options.reason = end->reason;
    end->options.reason_size = sizeof end->reason;
    end->rc = weft_tls_start(end->stream, end->context, &end->options);
    if (end->rc < 0) /* the other end need not wait; the stream knows nothing of it */
        shutdown(weft_stream_fd(end->stream), SHUT_WR);
    return 0;
}

static void start_both(struct pair *pair)
{
    weft_task *task = spawn(start_end, &pair->server);

    start_end(&pair->client);
    must_be(weft_await(task), 0);
}

static void must_start(struct pair *pair)
{
    start_both(pair);
    if (pair->client.rc != 0 || pair->server.rc != 0)
        fprintf(stderr, "client: %s; server: %s\n", pair->client.reason, pair->server.reason);
    must_be(pair->client.rc, 0);
    must_be(pair->server.rc, 0);
}

static void say(weft_stream *stream, const char *text)
{
    must_be(weft_stream_write(stream, text, strlen(text)), 0);
}

static void hear(weft_stream *stream, const char *text)
{
    const char *line;
    ssize_t n = weft_stream_readline(stream, &line);

    must_be(n, strlen(text));
    must(memcmp(line, text, (size_t)n) == 0);
}

static void expect_end(weft_stream *stream, ssize_t expected)
{
    char byte;

    must_be(weft_stream_read(stream, &byte, 1), expected);
}

static void talk(struct pair *pair)
{
    say(pair->client.stream, "hello\n");
    hear(pair->server.stream, "hello\n");
    say(pair->server.stream, "good day\n");
    hear(pair->client.stream, "good day\n");
}

static weft_tls_info look(weft_stream *stream)
{
    weft_tls_info info;

    must_be(weft_tls_look(stream, &info), 0);
    return info;
}

/* ---- what goes well ---- */

static intptr_t converse(void *arg)
{
    weft_tls_certificate certificate;
    unsigned char wanted[32];
    weft_tls_info info;
    struct pair pair;
    unsigned size;
    char text[8];

    (void)arg;
    open_tcp_pair(&pair);
    must_be(weft_tls_look(pair.client.stream, &info), -ENOTCONN);
    must_be(weft_tls_reason(pair.client.stream, text, sizeof text), -ENOTCONN);
    must_start(&pair);
    talk(&pair);

    info = look(pair.client.stream);
    must_be(info.version, WEFT_TLS_1_3);
    must(!info.is_server && info.is_verified && !info.is_kernel_send);
    must(strcmp(info.alpn, "two") == 0 && strncmp(info.cipher, "TLS_", 4) == 0);
    must(strcmp(info.server_name, "example.test") == 0);
    info = look(pair.server.stream);
    must(info.is_server && !info.is_verified);
    must(strcmp(info.alpn, "two") == 0 && strcmp(info.server_name, "example.test") == 0);

    must_be(weft_tls_peer_certificate(pair.server.stream, &certificate), -ENODATA);
    must_be(weft_tls_peer_certificate(pair.client.stream, &certificate), 0);
    must(strcmp(certificate.subject, "CN=server") == 0 && strcmp(certificate.issuer, "CN=The Authority") == 0);
    must(strcmp(certificate.names, "example.test,*.example.test") == 0);
    must(certificate.not_before < time(NULL) && certificate.not_after > time(NULL) + 29 * DAY);
    size = sizeof wanted;
    must(X509_digest(server_identity.x509, EVP_sha256(), wanted, &size) == 1);
    must(memcmp(wanted, certificate.sha256, sizeof wanted) == 0);
    must(weft_tls_native(pair.client.stream) != NULL);
    must_be(weft_tls_reason(pair.client.stream, text, sizeof text), 0);

    must_be(weft_tls_start(pair.client.stream, client_context, &pair.client.options), -EALREADY);
    talk(&pair);
    must_be(weft_stream_close(pair.client.stream), 0);
    expect_end(pair.server.stream, 0);
    must_be(weft_stream_at_eof(pair.server.stream), 1);
    must_be(weft_stream_close(pair.server.stream), 0);
    free_pair(&pair);
    return 0;
}

static void a_client_and_a_server_talk_and_know_each_other(void **state)
{
    (void)state;
    run_everywhere(converse);
}

static intptr_t converse_in_1_2(void *arg)
{
    weft_tls_context *old = new_client(&(weft_tls_config){.maximum_version = WEFT_TLS_1_2});
    weft_tls_context *strict = new_server(&(weft_tls_config){.minimum_version = WEFT_TLS_1_3});
    struct pair pair;

    (void)arg;
    open_pair(&pair);
    pair.client.context = old;
    must_start(&pair);
    talk(&pair);
    must_be(look(pair.client.stream).version, WEFT_TLS_1_2);
    must(look(pair.client.stream).alpn[0] == '\0');
    free_pair(&pair);

    open_pair(&pair);
    pair.client.context = old;
    pair.server.context = strict;
    start_both(&pair);
    must_be(pair.client.rc, -EPROTO);
    must_be(pair.server.rc, -EPROTO);
    free_pair(&pair);
    weft_tls_context_free(old);
    weft_tls_context_free(strict);
    return 0;
}

static void versions_can_be_limited(void **state)
{
    (void)state;
    run_everywhere(converse_in_1_2);
}

static intptr_t serve_one(void *arg)
{
    weft_stream *stream = open_stream(weft_accept((int)(intptr_t)arg, NULL, NULL));
    int rc = weft_tls_start(stream, server_context, NULL);

    if (rc == 0) {
        say(stream, "welcome\n");
        rc = weft_stream_close(stream);
    }
    weft_stream_free(stream);
    return rc;
}

static intptr_t dial(void *arg)
{
    int listener = weft_listen("127.0.0.1", 0, 4);
    uint16_t port = (uint16_t)weft_local_port(listener);
    weft_task *server = spawn(serve_one, (void *)(intptr_t)listener);
    weft_tls_options options = {.host = "elsewhere.test"};
    weft_stream *stream;
    char reason[100] = "";

    (void)arg;
    /* The address is in the certificate. */
    must_be(weft_tls_dial("127.0.0.1", port, client_context, NULL, &stream), 0);
    hear(stream, "welcome\n");
    must(look(stream).server_name[0] == '\0');
    expect_end(stream, 0);
    must_be(weft_stream_close(stream), 0);
    weft_stream_free(stream);
    must_be(weft_await(server), 0);

    server = spawn(serve_one, (void *)(intptr_t)listener);
    options.reason = reason;
    options.reason_size = sizeof reason;
    must_be(weft_tls_dial("127.0.0.1", port, client_context, &options, &stream), -EKEYREJECTED);
    must(stream == NULL);
    must(strcmp(reason, "certificate verify failed: hostname mismatch") == 0);
    must_be(weft_await(server), -EKEYREJECTED);
    weft_close(listener);
    must_be(weft_tls_dial("127.0.0.1", port, client_context, &options, &stream), -ECONNREFUSED);
    return 0;
}

static void dialling_verifies_the_address(void **state)
{
    (void)state;
    run_everywhere(dial);
}

/* ---- verification ---- */

/* A connection with this server and client; what each says of it. */
static void try(weft_tls_context *client, weft_tls_context *server, const char *host, struct pair *pair)
{
    open_pair(pair);
    pair->client.context = client;
    pair->server.context = server;
    pair->client.options.host = host;
    start_both(pair);
}

static void must_refuse(weft_tls_context *client, weft_tls_context *server, const char *host, int error,
                        const char *reason)
{
    struct pair pair;
    char text[200];

    try(client, server, host, &pair);
    must_be(pair.client.rc, error);
    if (strstr(pair.client.reason, reason) == NULL)
        fprintf(stderr, "the reason is: %s\n", pair.client.reason);
    must(strstr(pair.client.reason, reason) != NULL);
    must(weft_tls_reason(pair.client.stream, text, sizeof text) > 0 && strcmp(text, pair.client.reason) == 0);
    must(pair.server.rc < 0 && pair.server.reason[0] != '\0');
    /* Nothing goes over it any more. */
    must(weft_stream_write(pair.server.stream, "x", 1) < 0);
    expect_end(pair.server.stream, pair.server.rc);
    free_pair(&pair);
}

static void must_accept(weft_tls_context *client, weft_tls_context *server, const char *host)
{
    struct pair pair;

    try(client, server, host, &pair);
    must_be(pair.client.rc, 0);
    must_be(pair.server.rc, 0);
    talk(&pair);
    free_pair(&pair);
}

static intptr_t verify(void *arg)
{
    struct identity expired = make_identity(&authority, "server", "DNS:example.test", -10, -1);
    struct identity early = make_identity(&authority, "server", "DNS:example.test", 2, 10);
    struct identity unknown = make_identity(&other_authority, "server", "DNS:example.test", -1, 30);
    struct identity lonely = make_identity(NULL, "server", "DNS:example.test", -1, 30);
    weft_tls_context *of_expired = new_server_of(&expired), *of_early = new_server_of(&early);
    weft_tls_context *of_unknown = new_server_of(&unknown), *of_lonely = new_server_of(&lonely);
    weft_tls_context *insecure = new_client(&(weft_tls_config){.flags = WEFT_TLS_INSECURE});
    weft_tls_context *any_host = new_client(&(weft_tls_config){.flags = WEFT_TLS_ANY_HOST});
    weft_tls_context *by_system;
    struct pair pair;

    (void)arg;
    must_be(weft_tls_client_new(&by_system, NULL), 0);
    must_accept(client_context, server_context, "example.test");
    must_accept(client_context, server_context, "EXAMPLE.test.");
    must_accept(client_context, server_context, "www.example.test");
    must_refuse(client_context, server_context, "www.www.example.test", -EKEYREJECTED, "hostname mismatch");
    must_refuse(client_context, server_context, "example.test.org", -EKEYREJECTED, "hostname mismatch");
    must_refuse(client_context, server_context, "127.0.0.2", -EKEYREJECTED, "IP address mismatch");
    must_refuse(client_context, of_expired, "example.test", -EKEYEXPIRED, "certificate has expired");
    must_refuse(client_context, of_early, "example.test", -EKEYEXPIRED, "not yet valid");
    must_refuse(client_context, of_unknown, "example.test", -EKEYREJECTED, "unable to get local issuer");
    must_refuse(client_context, of_lonely, "example.test", -EKEYREJECTED, "self-signed certificate");
    must_refuse(by_system, server_context, "example.test", -EKEYREJECTED, "unable to get local issuer");

    must_accept(insecure, of_lonely, NULL);
    must_accept(insecure, of_expired, "elsewhere.test");
    must_accept(any_host, server_context, "elsewhere.test");
    must_accept(any_host, server_context, NULL);
    must_refuse(any_host, of_unknown, "example.test", -EKEYREJECTED, "unable to get local issuer");

    /* Whom to verify it for must be said; then nothing has happened yet. */
    open_pair(&pair);
    pair.client.options.host = NULL;
    must_be(weft_tls_start(pair.client.stream, client_context, &pair.client.options), -EINVAL);
    pair.client.options.host = "example.test";
    must_start(&pair);
    talk(&pair);
    free_pair(&pair);

    weft_tls_context_free(of_expired);
    weft_tls_context_free(of_early);
    weft_tls_context_free(of_unknown);
    weft_tls_context_free(of_lonely);
    weft_tls_context_free(insecure);
    weft_tls_context_free(any_host);
    weft_tls_context_free(by_system);
    free_identity(&expired);
    free_identity(&early);
    free_identity(&unknown);
    free_identity(&lonely);
    return 0;
}

static void certificates_that_are_no_good_are_refused(void **state)
{
    (void)state;
    run_everywhere(verify);
}

static intptr_t ask_for_certificates(void *arg)
{
    weft_tls_context *asks = new_server(&(weft_tls_config){.flags = WEFT_TLS_ASK_CLIENT});
    weft_tls_context *requires = new_server(&(weft_tls_config){.flags = WEFT_TLS_REQUIRE_CLIENT});
    struct identity stranger = make_identity(&other_authority, "stranger", "DNS:stranger.test", -1, 30);
    weft_tls_context *known = new_client(
        &(weft_tls_config){.certificate = client_identity.certificate, .key = client_identity.private_key});
    weft_tls_context *strange =
        new_client(&(weft_tls_config){.certificate = stranger.certificate, .key = stranger.private_key});
    weft_tls_certificate certificate;
    struct pair pair;

    (void)arg;
    must_accept(client_context, asks, "example.test");
    try(known, requires, "example.test", &pair);
    must_be(pair.server.rc, 0);
    talk(&pair);
    must(look(pair.server.stream).is_verified);
    must_be(weft_tls_peer_certificate(pair.server.stream, &certificate), 0);
    must(strcmp(certificate.subject, "CN=client") == 0);
    free_pair(&pair);

    /* In TLS 1.3 the client is through before the server has looked, and hears of it when it reads. */
    try(client_context, requires, "example.test", &pair);
    must_be(pair.client.rc, 0);
    must_be(pair.server.rc, -EKEYREJECTED);
    expect_end(pair.client.stream, -EKEYREJECTED);
    free_pair(&pair);
    for (int i = 0; i < 2; i++) {
        try(strange, i == 0 ? requires : asks, "example.test", &pair);
        must_be(pair.server.rc, -EKEYREJECTED);
        must(strstr(pair.server.reason, "certificate verify failed") != NULL);
        expect_end(pair.client.stream, -EKEYREJECTED);
        free_pair(&pair);
    }
    weft_tls_context_free(asks);
    weft_tls_context_free(requires);
    weft_tls_context_free(known);
    weft_tls_context_free(strange);
    free_identity(&stranger);
    return 0;
}

static void a_server_can_ask_for_a_certificate(void **state)
{
    (void)state;
    run_everywhere(ask_for_certificates);
}

/* ---- what is agreed on ---- */

static intptr_t agree(void *arg)
{
    weft_tls_context *three = new_client(&(weft_tls_config){.alpn = "three"});
    weft_tls_context *silent = new_client(&(weft_tls_config){0});
    weft_tls_context *one = new_client(&(weft_tls_config){.alpn = "three,one"}), *none;
    struct pair pair;

    (void)arg;
    try(one, server_context, "example.test", &pair);
    must(strcmp(look(pair.client.stream).alpn, "one") == 0);
    free_pair(&pair);
    try(silent, server_context, "example.test", &pair);
    must_be(pair.server.rc, 0);
    must(look(pair.server.stream).alpn[0] == '\0');
    free_pair(&pair);
    must_refuse(three, server_context, "example.test", -EPROTO, "no application protocol");
    must_be(weft_tls_client_new(&none, &(weft_tls_config){.alpn = "a,,b"}), -EINVAL);
    must_be(weft_tls_client_new(&none, &(weft_tls_config){.alpn = ""}), -EINVAL);
    weft_tls_context_free(one);
    weft_tls_context_free(three);
    weft_tls_context_free(silent);
    return 0;
}

static void the_protocol_is_agreed_on(void **state)
{
    (void)state;
    run_everywhere(agree);
}

static weft_tls_context *choose(const char *name, void *arg)
{
    return strcmp(name, "chosen.test") == 0 ? arg : NULL;
}

static void must_be_served_by(weft_tls_context *server, const char *host, const char *subject)
{
    weft_tls_certificate certificate;
    struct pair pair;

    try(client_context, server, host, &pair);
    must_be(pair.client.rc, 0);
    talk(&pair);
    must_be(weft_tls_peer_certificate(pair.client.stream, &certificate), 0);
    must(strcmp(certificate.subject, subject) == 0);
    must(strcmp(look(pair.server.stream).server_name, host) == 0);
    free_pair(&pair);
}

static intptr_t go_by_name(void *arg)
{
    struct identity a = make_identity(&authority, "a", "DNS:a.test,DNS:b.a.test", -1, 30);
    struct identity chosen = make_identity(&authority, "chosen", "DNS:chosen.test", -1, 30);
    weft_tls_context *of_a = new_server_of(&a), *of_chosen = new_server_of(&chosen), *server;

    (void)arg;
    server = new_server(&(weft_tls_config){.choose = choose, .arg = of_chosen, .alpn = "two"});
    must_be(weft_tls_add_name(server, "a.test", of_a), 0);
    must_be(weft_tls_add_name(server, "*.a.test", of_a), 0);
    must_be(weft_tls_add_name(server, "", of_a), -EINVAL);
    must_be(weft_tls_add_name(server, "a.test", client_context), -EINVAL);
    weft_tls_context_free(of_a);
    must_be_served_by(server, "example.test", "CN=server");
    must_be_served_by(server, "A.test", "CN=a");
    must_be_served_by(server, "b.a.test", "CN=a");
    must_be_served_by(server, "chosen.test", "CN=chosen");
    must_refuse(client_context, server, "c.b.a.test", -EKEYREJECTED, "hostname mismatch");
    weft_tls_context_free(server);
    weft_tls_context_free(of_chosen);
    free_identity(&a);
    free_identity(&chosen);
    return 0;
}

static void the_certificate_is_chosen_by_name(void **state)
{
    (void)state;
    run_everywhere(go_by_name);
}

/* Was this connection a resumed one, at both ends? */
static bool is_resumed(weft_tls_context *client, weft_tls_context *server, const char *host)
{
    struct pair pair;
    bool is;

    try(client, server, host, &pair);
    must_be(pair.client.rc, 0);
    must_be(pair.server.rc, 0);
    talk(&pair);
    is = look(pair.client.stream).is_resumed;
    must_be(look(pair.server.stream).is_resumed, is);
    must(look(pair.client.stream).is_verified);
    must_be(weft_stream_close(pair.client.stream), 0);
    must_be(weft_stream_close(pair.server.stream), 0);
    free_pair(&pair);
    return is;
}

static intptr_t resume(void *arg)
{
    weft_tls_context *server = new_server(&(weft_tls_config){0}), *client, *never;

    (void)arg;
    for (uint16_t version = WEFT_TLS_1_2; version <= WEFT_TLS_1_3; version++) {
        client = new_client(&(weft_tls_config){.maximum_version = version});
        must(!is_resumed(client, server, "example.test"));
        must(!is_resumed(client, server, "www.example.test")); /* another host */
        for (int i = 0; i < 4; i++)
            must(is_resumed(client, server, "example.test"));
        must(!is_resumed(client, server_context, "example.test")); /* another server has other keys */
        weft_tls_context_free(client);
    }
    never = new_client(&(weft_tls_config){.flags = WEFT_TLS_NO_RESUMPTION});
    for (int i = 0; i < 2; i++)
        must(!is_resumed(never, server, "example.test"));
    weft_tls_context_free(never);
    weft_tls_context_free(server);

    server = new_server(&(weft_tls_config){.flags = WEFT_TLS_NO_RESUMPTION});
    client = new_client(&(weft_tls_config){0});
    for (int i = 0; i < 2; i++)
        must(!is_resumed(client, server, "example.test"));
    weft_tls_context_free(client);
    weft_tls_context_free(server);
    return 0;
}

static void a_client_resumes_its_sessions(void **state)
{
    (void)state;
    run_everywhere(resume);
}

/* A client without weft, which presents any ticket to any name. */
struct raw_client {
    int fd;
    uint16_t version;
    const char *host;
    SSL_SESSION *session; /* NULL: that of this connection is stored */
    bool presents;
};

static intptr_t be_raw_client(void *arg)
{
    struct raw_client *raw = arg;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    char bytes[8];
    SSL *ssl;

    must(context != NULL && SSL_CTX_set_max_proto_version(context, raw->version) == 1);
    ssl = SSL_new(context);
    must(ssl != NULL && SSL_set_fd(ssl, raw->fd) == 1 && SSL_set_tlsext_host_name(ssl, raw->host) == 1);
    if (raw->presents)
        must(SSL_set_session(ssl, raw->session) == 1);
    if (SSL_connect(ssl) == 1 && SSL_read(ssl, bytes, 3) == 3) {
        if (!raw->presents)
            raw->session = SSL_get1_session(ssl);
        SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(raw->fd);
    return 0;
}

/* How a server fares with it. */
static int meet(struct raw_client *raw, weft_tls_context *server, bool *is_resumed)
{
    struct end end = {.context = server};
    weft_task *task;
    int fds[2];

    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    raw->fd = fds[1];
    end.stream = open_stream(fds[0]);
    task = weft_spawn_blocking(be_raw_client, raw);
    must(task != NULL);
    start_end(&end);
    if (end.rc == 0) {
        *is_resumed = look(end.stream).is_resumed;
        say(end.stream, "hi\n");
        expect_end(end.stream, 0);
    }
    must_be(weft_await(task), 0);
    weft_stream_free(end.stream);
    return end.rc;
}

/* What was learned where no certificate is asked for is of no use where one is. */
static intptr_t resume_elsewhere(void *arg)
{
    struct identity secret = make_identity(&authority, "secret", "DNS:secret.test", -1, 30);

    (void)arg;
    for (uint16_t version = WEFT_TLS_1_2; version <= WEFT_TLS_1_3; version++) {
        weft_tls_context *of_secret = new_server(&(weft_tls_config){
            .flags = WEFT_TLS_REQUIRE_CLIENT, .certificate = secret.certificate, .key = secret.private_key});
        weft_tls_context *server = new_server(&(weft_tls_config){0});
        struct raw_client raw = {.version = version, .host = "example.test"};
        bool is_resumed = true;

        must_be(weft_tls_add_name(server, "secret.test", of_secret), 0);
        must_be(meet(&raw, server, &is_resumed), 0);
        must(!is_resumed && raw.session != NULL);
        raw.presents = true;
        must_be(meet(&raw, server, &is_resumed), 0);
        must(is_resumed); /* where it is from it is good */
        must(SSL_SESSION_set1_hostname(raw.session, "secret.test") == 1);
        raw.host = "secret.test";
        must_be(meet(&raw, server, &is_resumed), -EKEYREJECTED);
        SSL_SESSION_free(raw.session);
        weft_tls_context_free(server);
        weft_tls_context_free(of_secret);
    }
    free_identity(&secret);
    return 0;
}

static void a_session_is_no_way_around_a_certificate(void **state)
{
    (void)state;
    run_everywhere(resume_elsewhere);
}

/* ---- in the middle of a conversation ---- */

static intptr_t start_in_the_middle(void *arg)
{
    struct pair pair;

    (void)arg;
    open_tcp_pair(&pair);
    say(pair.client.stream, "STARTTLS\n");
    hear(pair.server.stream, "STARTTLS\n");
    must_be(weft_stream_cork(pair.server.stream), 0);
    say(pair.server.stream, "go ahead\n"); /* goes out in the clear, as it was written before */
    {
        weft_task *task = spawn(start_end, &pair.server);

        hear(pair.client.stream, "go ahead\n");
        start_end(&pair.client);
        must_be(pair.client.rc, 0);
        must_be(weft_await(task), 0);
        must_be(pair.server.rc, 0);
    }
    must_be(weft_stream_uncork(pair.server.stream), 0);
    talk(&pair);
    free_pair(&pair);

    /* Somebody in between has added a command. */
    open_pair(&pair);
    say(pair.client.stream, "STARTTLS\nEVIL\n");
    hear(pair.server.stream, "STARTTLS\n");
    start_both(&pair);
    must_be(pair.server.rc, -EPROTO);
    must(strstr(pair.server.reason, "in the clear") != NULL);
    must(pair.client.rc < 0);
    expect_end(pair.server.stream, -EPROTO);
    must_be(weft_stream_write(pair.server.stream, "x", 1), -EPROTO);
    free_pair(&pair);

    /* Or an answer. */
    open_pair(&pair);
    say(pair.server.stream, "go ahead\nEVIL\n");
    hear(pair.client.stream, "go ahead\n");
    start_both(&pair);
    must_be(pair.client.rc, -EPROTO);
    free_pair(&pair);

    /* What has not been read yet is taken for a part of the handshake, which it is not. */
    open_pair(&pair);
    say(pair.client.stream, "EVIL\n");
    start_both(&pair);
    must_be(pair.server.rc, -EPROTO);
    free_pair(&pair);
    return 0;
}

static void tls_starts_in_the_middle_and_nothing_is_smuggled_in(void **state)
{
    (void)state;
    run_everywhere(start_in_the_middle);
}

/* A server behind a proxy that sends a line of its own first. The greeting is read ahead with it. */
static intptr_t read_a_header_first(void *arg)
{
    (void)arg;
    for (int takes = 0; takes < 2; takes++) {
        struct pair pair;
        weft_task *task;

        open_pair(&pair);
        say(pair.client.stream, "PROXY\n");
        task = spawn(start_end, &pair.client);
        wait_until_true(recv(weft_stream_fd(pair.server.stream), (char[64]){0}, 64, MSG_PEEK | MSG_DONTWAIT) == 64);
        hear(pair.server.stream, "PROXY\n");
        pair.server.options.flags = takes ? WEFT_TLS_TAKES_INPUT : 0;
        start_end(&pair.server);
        must_be(pair.server.rc, takes ? 0 : -EPROTO);
        must_be(weft_await(task), 0);
        if (takes) {
            must_be(pair.client.rc, 0);
            talk(&pair);
        }
        free_pair(&pair);
    }
    return 0;
}

static void what_was_read_ahead_can_belong_to_the_handshake(void **state)
{
    (void)state;
    run_everywhere(read_a_header_first);
}

/* What others write in the handshake is sent after it, encrypted; who reads meanwhile is refused, and so is TLS while
 * somebody reads. */
static intptr_t write_meanwhile(void *arg)
{
    weft_task *task;
    struct pair pair;
    char first;

    (void)arg;
    open_pair(&pair);
    task = spawn(start_end, &pair.client);
    must_be(weft_poll(weft_stream_fd(pair.server.stream), POLLIN, WEFT_FOREVER), POLLIN);
    say(pair.client.stream, "written in the handshake\n");
    must_be(weft_stream_read(pair.client.stream, &first, 1), -EBUSY);
    must_be(weft_tls_start(pair.client.stream, client_context, &pair.client.options), -EBUSY);
    must_be(recv(weft_stream_fd(pair.server.stream), &first, 1, MSG_PEEK), 1);
    must_be(first, 0x16);
    start_end(&pair.server);
    must_be(pair.server.rc, 0);
    hear(pair.server.stream, "written in the handshake\n");
    must_be(weft_await(task), 0);
    free_pair(&pair);
    return 0;
}

static void writes_in_the_handshake_wait_for_its_end(void **state)
{
    (void)state;
    run_everywhere(write_meanwhile);
}

/* ---- ends ---- */

static intptr_t end_in_all_ways(void *arg)
{
    struct pair pair;
    char reason[100];

    (void)arg;
    /* Half. */
    open_tcp_pair(&pair);
    must_start(&pair);
    say(pair.client.stream, "last words\n");
    must_be(weft_stream_write_eof(pair.client.stream), 0);
    must_be(weft_stream_write(pair.client.stream, "x", 1), -ESHUTDOWN);
    hear(pair.server.stream, "last words\n");
    expect_end(pair.server.stream, 0);
    say(pair.server.stream, "the answer\n");
    hear(pair.client.stream, "the answer\n");
    must_be(weft_stream_close(pair.server.stream), 0);
    expect_end(pair.client.stream, 0);
    must_be(weft_stream_close(pair.client.stream), 0);
    free_pair(&pair);

    /* Cut off: no clean end, though the transport ended cleanly. */
    open_tcp_pair(&pair);
    must_start(&pair);
    say(pair.client.stream, "some bytes\n");
    hear(pair.server.stream, "some bytes\n");
    must_be(shutdown(weft_stream_fd(pair.client.stream), SHUT_WR), 0);
    expect_end(pair.server.stream, -ECONNABORTED);
    expect_end(pair.server.stream, -ECONNABORTED);
    must_be(weft_stream_at_eof(pair.server.stream), 0);
    must(weft_tls_reason(pair.server.stream, reason, sizeof reason) > 0);
    must(strstr(reason, "without a closing notice") != NULL);
    must(weft_stream_write(pair.server.stream, "x", 1) < 0);
    free_pair(&pair);

    /* Reset. */
    open_tcp_pair(&pair);
    must_start(&pair);
    talk(&pair);
    must_be(weft_set_abort(weft_stream_fd(pair.client.stream)), 0);
    weft_stream_abort(pair.client.stream);
    expect_end(pair.server.stream, -ECONNRESET);
    free_pair(&pair);

    /* One who closes at once, with the server's tickets unread, is heard all the same. */
    open_tcp_pair(&pair);
    must_start(&pair);
    say(pair.client.stream, "in passing\n");
    must_be(weft_stream_close(pair.client.stream), 0);
    hear(pair.server.stream, "in passing\n");
    expect_end(pair.server.stream, 0);
    must_be(weft_stream_close(pair.server.stream), 0);
    free_pair(&pair);
    return 0;
}

static void ends_are_told_apart(void **state)
{
    (void)state;
    run_everywhere(end_in_all_ways);
}

/* ---- an unfriendly transport ---- */

enum harm { CUT, RESET, FLIP, STALL };

/* Passes bytes on in both directions, and does harm at the nth. */
struct relay {
    int client, server;
    enum harm harm;
    size_t at;
    _Atomic size_t passed;
    weft_task *victim; /* STALL: who is cancelled then */
};

struct one_way {
    struct relay *relay;
    int from, to;
};

static intptr_t pass_on(void *arg)
{
    struct one_way *way = arg;
    struct relay *relay = way->relay;
    unsigned char bytes[512];

    for (;;) {
        ssize_t n = weft_read(way->from, bytes, sizeof bytes);
        size_t before, goes;

        if (n <= 0)
            break;
        before = atomic_fetch_add(&relay->passed, (size_t)n);
        goes = before + (size_t)n > relay->at ? (before > relay->at ? 0 : relay->at - before) : (size_t)n;
        if (relay->harm == FLIP) {
            if (goes < (size_t)n && before <= relay->at)
                bytes[goes] ^= 0x20;
            goes = (size_t)n;
        }
        if (goes > 0 && weft_write_all(way->to, bytes, goes) < 0)
            break;
        if (goes < (size_t)n) {
            if (relay->harm == STALL) {
                if (before <= relay->at)
                    weft_cancel(relay->victim);
                continue;
            }
            if (relay->harm == RESET) {
                weft_set_abort(relay->client);
                weft_set_abort(relay->server);
            }
            break;
        }
    }
    if (relay->harm == RESET)
        return 0;
    shutdown(way->to, SHUT_WR);
    shutdown(way->from, SHUT_RD);
    if (relay->harm == CUT && atomic_load(&relay->passed) > relay->at) {
        shutdown(relay->client, SHUT_RDWR);
        shutdown(relay->server, SHUT_RDWR);
    }
    return 0;
}

static intptr_t relay_both(void *arg)
{
    struct relay *relay = arg;
    struct one_way ways[] = {{relay, relay->client, relay->server}, {relay, relay->server, relay->client}};
    weft_task *tasks[] = {spawn(pass_on, &ways[0]), spawn(pass_on, &ways[1])};

    /* The first to end has done the harm, or seen the end: with a reset the sockets are closed at once. */
    if (relay->harm == RESET) {
        weft_wait_any(tasks, 2);
        weft_close(relay->client);
        weft_close(relay->server);
    }
    for (int i = 0; i < 2; i++)
        weft_await(tasks[i]);
    if (relay->harm != RESET) {
        weft_close(relay->client);
        weft_close(relay->server);
    }
    return 0;
}

struct party {
    struct end end;
    bool is_client;
    int64_t limit; /* ns */
    int rc;        /* 0: it has heard all that it should, and a clean end */
};

static int expect_words(weft_stream *stream, const char *words)
{
    char heard[64];
    size_t size = strlen(words);
    ssize_t n = weft_stream_readexactly(stream, heard, size);

    if (n < 0)
        return (int)n;
    must_be(n, size); /* a clean end in the middle would be a hole */
    must(memcmp(heard, words, size) == 0);
    return 0;
}

/* Handshake, a word each, a clean end. */
static intptr_t take_part(void *arg)
{
    struct party *party = arg;
    weft_stream *stream = party->end.stream;
    weft_timeout scope;
    char byte;
    int rc;

    must(weft_timeout_begin(&scope, party->limit) <= 0);
    start_end(&party->end);
    rc = party->end.rc;
    if (rc == 0 && party->is_client)
        rc = weft_stream_write(stream, "question", 8);
    if (rc == 0)
        rc = expect_words(stream, party->is_client ? "answer" : "question");
    if (rc == 0 && !party->is_client)
        rc = weft_stream_write(stream, "answer", 6);
    if (rc == 0)
        rc = weft_stream_write_eof(stream);
    if (rc == 0)
        rc = (int)weft_stream_read(stream, &byte, 1);
    must(rc <= 0);
    if (rc == 0)
        rc = weft_stream_close(stream);
    weft_timeout_end(&scope);
    weft_stream_free(stream);
    party->rc = rc;
    return rc;
}

/* A TCP connection, whose ends are stored. */
static void connect_tcp(int *one, int *other)
{
    int listener = weft_listen("127.0.0.1", 0, 1);

    must(listener >= 0);
    *one = weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener));
    *other = weft_accept(listener, NULL, NULL);
    must(*one >= 0 && *other >= 0);
    weft_close(listener);
}

struct outcome {
    int client, server;
    size_t passed;
};

static struct outcome through_relay(weft_tls_context *client_has, enum harm harm, size_t at)
{
    struct relay relay = {.harm = harm, .at = at};
    /* Where a length was changed to a greater one both wait for what does not come. */
    int64_t limit = harm == FLIP ? WEFT_MS(SUPPORT_SANITIZED ? 200 : 25) : WEFT_SEC(30);
    struct party client = {.is_client = true, .limit = limit}, server = {.is_client = false, .limit = limit};
    weft_task *tasks[3];
    int fds[2], i;

    if (harm == RESET) {
        connect_tcp(&fds[0], &relay.client);
    } else {
        must_be(weft_socket_pair(SOCK_STREAM, fds), 0);
        relay.client = fds[1];
    }
    client.end = (struct end){.stream = open_stream(fds[0]), .context = client_has};
    client.end.options.host = "example.test";
    if (harm == RESET) {
        connect_tcp(&fds[0], &relay.server);
    } else {
        must_be(weft_socket_pair(SOCK_STREAM, fds), 0);
        relay.server = fds[1];
    }
    server.end = (struct end){.stream = open_stream(fds[0]), .context = server_context};
    tasks[0] = spawn(take_part, &client);
    tasks[1] = spawn(take_part, &server);
    relay.victim = tasks[at % 2];
    tasks[2] = spawn(relay_both, &relay);
    for (i = 0; i < 3; i++) {
        intptr_t unused;

        must_be(weft_await_into(tasks[i], &unused), 0);
    }
    return (struct outcome){client.rc, server.rc, atomic_load(&relay.passed)};
}

static bool is_one_of_ours(int error)
{
    return error == -EPROTO || error == -ECONNABORTED || error == -ECONNRESET || error == -EPIPE ||
           error == -EKEYREJECTED || error == -ECANCELED || error == -ETIMEDOUT;
}

static enum harm harm_to_do;

static intptr_t do_harm_everywhere(void *arg)
{
    weft_tls_context *client = new_client(&(weft_tls_config){.flags = WEFT_TLS_NO_RESUMPTION});
    struct outcome outcome = through_relay(client, CUT, SIZE_MAX);
    size_t size = outcome.passed, step = (size_t)(intptr_t)arg, harmless = 0;

    must_be(outcome.client, 0);
    must_be(outcome.server, 0);
    for (size_t at = 0; at < size - 128; at += step) {
        outcome = through_relay(client, harm_to_do, at);
        /* At least one of them has not heard all; none has heard anything else, which take_part makes sure of. (A few
         * bytes of the greetings do not count: versions of records, which are the same for ever.) */
        must(outcome.client < 0 || outcome.server < 0 || (harm_to_do == FLIP && ++harmless <= 16));
        must(outcome.client == 0 || is_one_of_ours(outcome.client));
        must(outcome.server == 0 || is_one_of_ours(outcome.server));
    }
    weft_tls_context_free(client);
    return 0;
}

static void harm(enum harm harm, intptr_t step)
{
    harm_to_do = harm;
    assert_int_equal(run_alone(do_harm_everywhere, (void *)(SUPPORT_SANITIZED ? step * 13 : step)), 0);
    assert_int_equal(run_on(2, do_harm_everywhere, (void *)(step * 37)), 0);
}

static void a_connection_cut_at_any_byte_is_an_error(void **state)
{
    (void)state;
    harm(CUT, 1);
}

static void a_connection_reset_at_any_byte_is_an_error(void **state)
{
    (void)state;
    harm(RESET, 5);
}

static void a_changed_byte_is_never_taken_for_another(void **state)
{
    (void)state;
    harm(FLIP, 2);
}

static void a_party_cancelled_at_any_byte_leaves_nothing(void **state)
{
    (void)state;
    harm(STALL, 2);
}

/* ---- deadlines ---- */

static intptr_t start_late(void *arg)
{
    struct pair pair;
    weft_timeout scope;
    char reason[100];

    (void)arg;
    for (int i = 0; i < 2; i++) {
        struct end *end;

        open_pair(&pair);
        end = i == 0 ? &pair.client : &pair.server;
        must_be(weft_timeout_begin(&scope, WEFT_MS(5)), 0);
        start_end(end);
        must_be(weft_timeout_end(&scope), 1);
        must_be(end->rc, -ETIMEDOUT);
        must(strstr(end->reason, "too long") != NULL);
        must(weft_tls_reason(end->stream, reason, sizeof reason) > 0);
        expect_end(end->stream, -ECONNABORTED);
        must_be(weft_stream_write(end->stream, "x", 1), -ECONNABORTED);
        must_be(weft_stream_close(end->stream), -ECONNABORTED);
        free_pair(&pair);
    }
    return 0;
}

static void a_handshake_has_a_deadline(void **state)
{
    (void)state;
    run_everywhere(start_late);
}

static intptr_t start_and_lose(void *arg)
{
    struct pair pair;
    weft_task *task;

    (void)arg;
    open_pair(&pair);
    task = spawn(start_end, &pair.client);
    must_be(weft_poll(weft_stream_fd(pair.server.stream), POLLIN, WEFT_FOREVER), POLLIN);
    weft_stream_abort(pair.client.stream);
    must_be(weft_await(task), 0);
    must_be(pair.client.rc, -EBADF);
    free_pair(&pair);
    return 0;
}

static void a_stream_can_be_aborted_in_the_handshake(void **state)
{
    (void)state;
    run_everywhere(start_and_lose);
}

static intptr_t feed_garbage(void *arg)
{
    uint64_t seed = 0x9e3779b97f4a7c15;
    struct pair pair;

    (void)arg;
    for (int i = 0; i < FEWER(400); i++) {
        struct end *victim;
        weft_stream *liar;
        unsigned char bytes[300];
        size_t size = draw(&seed) % sizeof bytes + 1;

        open_pair(&pair);
        victim = i % 2 ? &pair.client : &pair.server;
        liar = i % 2 ? pair.server.stream : pair.client.stream;
        for (size_t j = 0; j < size; j++)
            bytes[j] = (unsigned char)draw(&seed);
        if (i % 3 == 0 && size > 5) /* what looks like a record */
            memcpy(bytes, (unsigned char[]){0x16, 3, 1, 0, (unsigned char)(size - 5)}, 5);
        must_be(weft_stream_write(liar, bytes, size), 0);
        must_be(weft_stream_write_eof(liar), 0);
        start_end(victim);
        must(victim->rc == -EPROTO || victim->rc == -ECONNABORTED);
        free_pair(&pair);
    }
    return 0;
}

static void garbage_is_refused(void **state)
{
    (void)state;
    run_everywhere(feed_garbage);
}

/* ---- much ---- */

enum { BULK = 3 << 20 };

struct flow {
    weft_stream *stream;
    uint64_t seed;
    size_t size;
};

static unsigned char byte_at(size_t i, uint64_t seed)
{
    return (unsigned char)((i * 2654435761u + seed) >> 13);
}

static intptr_t send_much(void *arg)
{
    struct flow *flow = arg;
    unsigned char *bytes = malloc(flow->size);
    uint64_t chance = flow->seed | 1;

    must(bytes != NULL);
    for (size_t i = 0; i < flow->size; i++)
        bytes[i] = byte_at(i, flow->seed);
    for (size_t done = 0; done < flow->size;) {
        size_t size = draw(&chance) % (draw(&chance) % 8 ? 3000 : 100000) + 1, half;

        if (size > flow->size - done)
            size = flow->size - done;
        half = size / 2;
        must_be(weft_stream_writev(flow->stream,
                                   (struct iovec[]){{bytes + done, half}, {bytes + done + half, size - half}}, 2),
                0);
        done += size;
        must_be(weft_stream_drain(flow->stream), 0);
    }
    must_be(weft_stream_write_eof(flow->stream), 0);
    must_be(weft_stream_flush(flow->stream), 0);
    free(bytes);
    return 0;
}

static intptr_t receive_much(void *arg)
{
    struct flow *flow = arg;
    uint64_t chance = flow->seed | 1;
    unsigned char bytes[20000];
    size_t got = 0;
    ssize_t n;

    while ((n = weft_stream_read(flow->stream, bytes, draw(&chance) % sizeof bytes + 1)) > 0)
        for (ssize_t i = 0; i < n; i++)
            must_be(bytes[i], byte_at(got++, flow->seed));
    must_be(n, 0);
    must_be(got, flow->size);
    return 0;
}

static intptr_t flow_both_ways(void *arg)
{
    struct pair pair;
    struct flow flows[4];
    weft_task *tasks[4];

    (void)arg;
    open_tcp_pair(&pair);
    must_start(&pair);
    /* New keys in both directions meanwhile. */
    must_be(SSL_key_update(weft_tls_native(pair.client.stream), SSL_KEY_UPDATE_REQUESTED), 1);
    must_be(SSL_key_update(weft_tls_native(pair.server.stream), SSL_KEY_UPDATE_REQUESTED), 1);
    for (int i = 0; i < 4; i++) {
        flows[i] = (struct flow){i % 2 ? pair.server.stream : pair.client.stream, i == 0 || i == 3 ? 77 : 1234567,
                                 SUPPORT_SANITIZED ? BULK / 4 : BULK};
        tasks[i] = spawn(i < 2 ? send_much : receive_much, &flows[i]);
    }
    for (int i = 0; i < 4; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(weft_stream_close(pair.client.stream), 0);
    must_be(weft_stream_close(pair.server.stream), 0);
    free_pair(&pair);
    return 0;
}

static void much_flows_both_ways_at_once(void **state)
{
    (void)state;
    run_everywhere(flow_both_ways);
}

static intptr_t echo_lines(weft_stream *stream, weft_client *client)
{
    const char *line;
    ssize_t n;
    int rc;

    rc = weft_tls_start(stream, client->arg, NULL);
    while (rc == 0 && (n = weft_stream_readline(stream, &line)) != 0) {
        rc = n < 0 ? (int)n : weft_stream_write(stream, line, (size_t)n);
        if (rc == 0)
            rc = weft_stream_drain(stream);
    }
    return rc;
}

static intptr_t visit(void *arg)
{
    weft_stream *stream;

    must_be(weft_tls_dial("127.0.0.1", (uint16_t)(intptr_t)arg, client_context, NULL, &stream), 0);
    for (int i = 0; i < 5; i++) {
        say(stream, "is there an echo?\n");
        hear(stream, "is there an echo?\n");
        must_be(weft_yield(), 0);
    }
    must_be(weft_stream_write_eof(stream), 0);
    expect_end(stream, 0);
    must_be(weft_stream_close(stream), 0);
    weft_stream_free(stream);
    return 0;
}

static intptr_t serve_many(void *arg)
{
    enum { MANY = 150 };
    weft_task *tasks[MANY];
    weft_server *server;
    int count = SUPPORT_SANITIZED ? 40 : MANY;

    (void)arg;
    must_be(weft_serve_streams(&server, weft_listen("127.0.0.1", 0, 0), echo_lines, server_context, NULL), 0);
    for (int i = 0; i < count; i++)
        tasks[i] = spawn(visit, (void *)(intptr_t)weft_server_port(server));
    for (int i = 0; i < count; i++)
        must_be(weft_await(tasks[i]), 0);
    weft_server_close(server);
    must_be(weft_server_wait_closed(server), 0);
    weft_server_free(server);
    return 0;
}

static void a_server_serves_many(void **state)
{
    (void)state;
    run_everywhere(serve_many);
}

/* ---- contexts that cannot be made ---- */

static int making(weft_tls_config config, char reason[100])
{
    weft_tls_context *context;
    int rc;

    config.reason = reason;
    config.reason_size = 100;
    rc = weft_tls_server_new(&context, &config);
    must((rc == 0) == (context != NULL));
    weft_tls_context_free(context);
    return rc;
}

static void what_is_wrong_with_a_context_is_said(void **state)
{
    const char *certificate = server_identity.certificate, *key = server_identity.private_key;
    char reason[100];

    (void)state;
    assert_int_equal(making((weft_tls_config){.certificate = certificate, .key = key}, reason), 0);
    assert_string_equal(reason, "");
    assert_int_equal(making((weft_tls_config){.key = key}, reason), -EINVAL);
    assert_int_equal(making((weft_tls_config){.certificate = certificate}, reason), -EINVAL);
    assert_int_equal(making((weft_tls_config){.certificate = "nonsense", .key = key}, reason), -EBADMSG);
    assert_non_null(strstr(reason, "certificate: "));
    assert_int_equal(making((weft_tls_config){.certificate = certificate, .key = "nonsense"}, reason), -EBADMSG);
    assert_int_equal(
        making((weft_tls_config){.certificate = certificate, .key = client_identity.private_key}, reason),
        -EKEYREJECTED);
    assert_int_equal(making((weft_tls_config){.certificate_file = "/nowhere", .key = key}, reason), -ENOENT);
    assert_int_equal(making((weft_tls_config){.certificate = certificate, .key_file = "/nowhere"}, reason),
                     -ENOENT);
    assert_int_equal(making((weft_tls_config){.certificate = certificate,
                                              .key = key,
                                              .flags = WEFT_TLS_ASK_CLIENT,
                                              .ca = "nonsense"},
                            reason),
                     -EBADMSG);
    assert_int_equal(
        making((weft_tls_config){.certificate = certificate, .key = key, .minimum_version = 1}, reason), -EINVAL);
}

static void outside_a_task_nothing_starts(void **state)
{
    weft_stream *stream;
    int fds[2];

    (void)state;
    assert_int_equal(weft_socket_pair(SOCK_STREAM, fds), 0);
    assert_int_equal(weft_stream_open(fds[0], &stream), 0);
    assert_int_equal(weft_tls_start(stream, server_context, NULL), -EPERM);
    weft_stream_free(stream);
    weft_close(fds[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_and_a_server_talk_and_know_each_other),
        cmocka_unit_test(versions_can_be_limited),
        cmocka_unit_test(dialling_verifies_the_address),
        cmocka_unit_test(certificates_that_are_no_good_are_refused),
        cmocka_unit_test(a_server_can_ask_for_a_certificate),
        cmocka_unit_test(the_protocol_is_agreed_on),
        cmocka_unit_test(the_certificate_is_chosen_by_name),
        cmocka_unit_test(a_client_resumes_its_sessions),
        cmocka_unit_test(a_session_is_no_way_around_a_certificate),
        cmocka_unit_test(tls_starts_in_the_middle_and_nothing_is_smuggled_in),
        cmocka_unit_test(what_was_read_ahead_can_belong_to_the_handshake),
        cmocka_unit_test(writes_in_the_handshake_wait_for_its_end),
        cmocka_unit_test(ends_are_told_apart),
        cmocka_unit_test(a_connection_cut_at_any_byte_is_an_error),
        cmocka_unit_test(a_connection_reset_at_any_byte_is_an_error),
        cmocka_unit_test(a_changed_byte_is_never_taken_for_another),
        cmocka_unit_test(a_party_cancelled_at_any_byte_leaves_nothing),
        cmocka_unit_test(a_handshake_has_a_deadline),
        cmocka_unit_test(a_stream_can_be_aborted_in_the_handshake),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(much_flows_both_ways_at_once),
        cmocka_unit_test(a_server_serves_many),
        cmocka_unit_test(what_is_wrong_with_a_context_is_said),
        cmocka_unit_test(outside_a_task_nothing_starts),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(SUPPORT_LIMIT);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make_contexts, free_contexts);
}
