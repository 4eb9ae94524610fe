/*
 * TLS as a layer of a stream (weft/layer.h): it encrypts what passes between the stream and its descriptor.
 *
 * Who calls
 *
 * The stream, for its reader (read) and its sender (write, shutdown): one of each at a time, perhaps on two threads at
 * once; before that the task that starts TLS, alone (open). And any thread that asks for a reason or a certificate.
 * An SSL object is for one thread at a time. So each call of OpenSSL on it is made under the lock, which is held for
 * this one call: a record of 16 KiB at most, with the system call for it; for a handshake that is some milliseconds,
 * but then there is nobody else. The lock spins. It is never held over a suspension: nothing below it can suspend,
 * because the transport (transport.c) makes attempts only, and says "not now" where another would wait.
 *
 * Why nothing gets stuck
 *
 * OpenSSL may have to read in order to write, and to write in order to read. What it could not do tells the attempt
 * (layer.c of io), not the kind of the call: a reader whose call was refused to send waits until the descriptor takes
 * more, a sender that was refused input waits for input. So each waits for just that which stopped it. It remains to
 * show that nobody waits for what another one has already taken.
 *
 *   Input. Only the reader's calls take it, except in the handshake, where there are no others: what a sender does
 *   after it never reads, since renegotiation is off, and TLS 1.3 has messages of one flight only then (tickets, key
 *   updates). So what the reader waits for is never consumed by the sender.
 *
 *   Output. Both may send: the sender records with data, the reader alerts. If one was refused in the middle of a
 *   record, that record is kept by OpenSSL and goes before any other. It is the sender's if it has data; then the
 *   reader's alert is put off, not refused, and goes with the sender's next call. It is the reader's if it is an alert;
 *   then the sender's call sends it first, or is refused itself and waits for the same. Either way, each of those that
 *   wait for output waits for the descriptor, which wakes all of them, and each then tries again for itself.
 *   The answer to a key update is put off until the next write, by OpenSSL, also if none ever comes.
 *
 *   A sender that was refused is called again with the same bytes, perhaps elsewhere and with more behind (layer.h).
 *   OpenSSL demands that, as the record is made already; it is told that the buffer may move.
 *
 * Errors
 *
 * OpenSSL's queue of errors belongs to the thread. It is emptied before each call and read after it, under the lock,
 * before anything else is done. What it said is kept as a text with the connection. After a failure the SSL is not
 * called any more: `failed` is what every later call returns.
 *
 * The end
 *
 * The layer says at the end that no more will come (close_notify), before the descriptor is closed or when the stream is
 * half-closed. An end of the transport without it is an error, as anybody in between could have caused it. A peer that
 * is gone need not hear ours.
 *
 * Memory: between records OpenSSL keeps no buffers (SSL_MODE_RELEASE_BUFFERS), and neither does the layer.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <weft/task.h>

#include "io/tls/tls.h"

enum {
    RECORD = 16384, /* the most that a record carries */
    REASON = 200
};

struct tls *weft__tls_of(const SSL *ssl)
{
    return SSL_get_app_data(ssl);
}

/* ---- calls of OpenSSL ---- */

/* Before each, with the lock. */
static void begin(struct tls *tls, weft_layer_attempt *attempt)
{
    ERR_clear_error();
    tls->attempt = attempt;
    tls->transport = 0;
}

static int fail(struct tls *tls, int error, const char *reason)
{
    free(tls->reason);
    tls->reason = strdup(reason); /* without memory there is no text */
    tls->failed = error;
    return error;
}

static const char *text_of(int error)
{
    const char *text = strerrordesc_np(-error);

    return text ? text : "unknown error";
}

static int fail_natively(struct tls *tls)
{
    char text[REASON];
    int rc = weft__tls_why(SSL_get_verify_result(tls->ssl), -EPROTO, text, sizeof text);

    return fail(tls, rc, text);
}

static int fail_below(struct tls *tls)
{
    ERR_clear_error();
    if (tls->transport == 0)
        return fail(tls, -ECONNABORTED, "the connection ended without a closing notice");
    return fail(tls, tls->transport, text_of(tls->transport));
}

/* Why it did not work; right after it, with the lock. 0: the peer has taken leave. */
static int refusal(struct tls *tls, int result)
{
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_SYSCALL:
        return fail_below(tls);
    default:
        return tls->transport != 0 ? fail_below(tls) : fail_natively(tls);
    }
}

static int do_handshake(void *state, weft_layer_attempt *attempt)
{
    struct tls *tls = state;
    int rc;

    weft__lock_enter(&tls->lock);
    begin(tls, attempt);
    rc = SSL_do_handshake(tls->ssl);
    if (rc == 1) {
        tls->is_open = true;
        rc = 0;
    } else {
        rc = refusal(tls, rc);
        if (rc == 0) /* leave, instead of the handshake */
            rc = fail(tls, -ECONNABORTED, "the peer closed the connection in the handshake");
    }
    weft__lock_leave(&tls->lock);
    return rc;
}

/* ---- reading ---- */

static ssize_t read_record(struct tls *tls, char *buffer, size_t size, weft_layer_attempt *attempt)
{
    size_t got = 0;
    ssize_t rc;

    weft__lock_enter(&tls->lock);
    if (tls->failed == 0) {
        int result;

        begin(tls, attempt);
        result = SSL_read_ex(tls->ssl, buffer, size, &got);
        rc = result == 1 ? (ssize_t)got : refusal(tls, result);
    } else {
        rc = tls->failed;
    }
    weft__lock_leave(&tls->lock);
    return rc;
}

/* As much as has come and there is room for: an error, or the end, is told when there is nothing else. */
static ssize_t read_records(void *state, const struct iovec *iov, int count, weft_layer_attempt *attempt)
{
    size_t done = 0;
    ssize_t n = 0;

    for (int i = 0; i < count; i++) {
        char *buffer = iov[i].iov_base;

        for (size_t left = iov[i].iov_len; left > 0; left -= (size_t)n) {
            n = read_record(state, buffer + iov[i].iov_len - left, left, attempt);
            if (n <= 0)
                return done > 0 ? (ssize_t)done : n;
            done += (size_t)n;
        }
    }
    return (ssize_t)done;
}

/* ---- writing ---- */

static ssize_t write_record(struct tls *tls, const char *bytes, size_t size, weft_layer_attempt *attempt)
{
    size_t sent = 0;
    ssize_t rc;

    weft__lock_enter(&tls->lock);
    if (tls->failed == 0) {
        int result;

        begin(tls, attempt);
        result = SSL_write_ex(tls->ssl, bytes, size, &sent);
        rc = result == 1 ? (ssize_t)sent : refusal(tls, result);
        if (rc == 0)
            rc = fail(tls, -EPIPE, "written after the closing notice");
    } else {
        rc = tls->failed;
    }
    weft__lock_leave(&tls->lock);
    return rc;
}

/* What is still to be written. */
struct pieces {
    const struct iovec *iov;
    int count;
    size_t skip; /* of the first */
};

static void skip(struct pieces *pieces, size_t n)
{
    pieces->skip += n;
    while (pieces->count > 0 && pieces->skip >= pieces->iov->iov_len) {
        pieces->skip -= pieces->iov->iov_len;
        pieces->iov++;
        pieces->count--;
    }
}

/* The beginning of them in one place: small pieces share a record. */
static size_t join(const struct pieces *pieces, char *joined)
{
    size_t size = 0, from = pieces->skip;

    for (int i = 0; i < pieces->count && size < RECORD; i++, from = 0) {
        size_t there = pieces->iov[i].iov_len - from, n = there < RECORD - size ? there : RECORD - size;

        memcpy(joined + size, (const char *)pieces->iov[i].iov_base + from, n);
        size += n;
    }
    return size;
}

/* The next record. What it consists of depends on the bytes alone, not on how they are cut. */
static ssize_t write_next(struct tls *tls, const struct pieces *pieces, char **joined, weft_layer_attempt *attempt)
{
    size_t there = pieces->iov->iov_len - pieces->skip;

    if (there >= RECORD || pieces->count == 1)
        return write_record(tls, (const char *)pieces->iov->iov_base + pieces->skip,
                            there < RECORD ? there : RECORD, attempt);
    if (!*joined)
        *joined = malloc(RECORD);
    if (!*joined)
        return -ENOMEM;
    return write_record(tls, *joined, join(pieces, *joined), attempt);
}

static ssize_t write_records(void *state, const struct iovec *iov, int count, weft_layer_attempt *attempt)
{
    struct pieces pieces = {iov, count, 0};
    char *joined = NULL;
    size_t done = 0;
    ssize_t n = 0;

    for (skip(&pieces, 0); pieces.count > 0; skip(&pieces, (size_t)n)) {
        n = write_next(state, &pieces, &joined, attempt);
        if (n < 0)
            break;
        done += (size_t)n;
    }
    free(joined);
    return done > 0 || n >= 0 ? (ssize_t)done : n;
}

/* ---- the end ---- */

/* With the lock. The peer is gone, or takes nothing any more: then there is nobody to take leave of. What it has sent can
 * still be read, so this is no failure of the connection. */
static bool nobody_is_there(const struct tls *tls, int result)
{
    return result < 0 && SSL_get_error(tls->ssl, result) == SSL_ERROR_SYSCALL &&
           (tls->transport == -EPIPE || tls->transport == -ECONNRESET);
}

static int take_leave(void *state, weft_layer_attempt *attempt)
{
    struct tls *tls = state;
    int rc;

    weft__lock_enter(&tls->lock);
    rc = tls->failed;
    if (rc == 0) {
        begin(tls, attempt);
        rc = SSL_shutdown(tls->ssl);
        rc = rc >= 0 || nobody_is_there(tls, rc) ? 0 : refusal(tls, rc);
    }
    weft__lock_leave(&tls->lock);
    return rc;
}

static void free_tls(void *state)
{
    struct tls *tls = state;

    SSL_free(tls->ssl);
    BIO_free(tls->socket);
    weft_tls_context_free(tls->context);
    free(tls->host);
    free(tls->reason);
    free(tls);
}

static const weft_layer layer = {do_handshake, read_records, write_records, take_leave, free_tls};

struct tls *weft__tls_of_stream(const weft_stream *stream)
{
    return weft_stream_layer_state(stream, &layer);
}

/* ---- starting ---- */

static void tell(const weft_tls_options *options, const char *reason)
{
    size_t length = strlen(reason);

    if (!options->reason || options->reason_size == 0)
        return;
    if (length >= options->reason_size)
        length = options->reason_size - 1;
    memcpy(options->reason, reason, length);
    options->reason[length] = '\0';
}

static bool is_literal(const char *host)
{
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(host);

    ASN1_OCTET_STRING_free(address);
    ERR_clear_error();
    return address != NULL;
}

/* A client: ask for the name, and have it verified. */
static int use_host(struct tls *tls)
{
    X509_VERIFY_PARAM *parameters = SSL_get0_param(tls->ssl);
    bool literal = tls->host && is_literal(tls->host), ok = true;
    unsigned flags = tls->context->flags;

    if (!tls->host)
        return flags & (WEFT_TLS_INSECURE | WEFT_TLS_ANY_HOST) ? 0 : -EINVAL;
    if (!literal)
        ok = SSL_set_tlsext_host_name(tls->ssl, tls->host) == 1;
    if (ok && !(flags & (WEFT_TLS_INSECURE | WEFT_TLS_ANY_HOST))) {
        X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        ok = literal ? X509_VERIFY_PARAM_set1_ip_asc(parameters, tls->host) == 1
                     : X509_VERIFY_PARAM_set1_host(parameters, tls->host, 0) == 1;
    }
    ERR_clear_error();
    return ok ? 0 : -EINVAL;
}

/* Without the dot at its end, which is of the name system and not of the name. */
static char *copy_host(const char *host)
{
    size_t length = strlen(host);

    return strndup(host, length > 1 && host[length - 1] == '.' ? length - 1 : length);
}

static int prepare(struct tls *tls, weft_stream *stream)
{
    BIO *transport;
    int rc = 0;

    ERR_clear_error();
    tls->ssl = SSL_new(tls->context->native);
    transport = tls->ssl ? weft__tls_transport_new(tls) : NULL;
    if (!transport || SSL_set_app_data(tls->ssl, tls) != 1) {
        BIO_free(transport);
        ERR_clear_error();
        return -ENOMEM;
    }
    SSL_set_bio(tls->ssl, transport, transport);
    if (tls->context->flags & WEFT_TLS_KERNEL) /* without it there is none */
        tls->socket = BIO_new_socket(weft_stream_fd(stream), BIO_NOCLOSE);
    if (tls->context->is_server) {
        SSL_set_accept_state(tls->ssl);
    } else {
        SSL_set_connect_state(tls->ssl);
        rc = use_host(tls);
        if (rc == 0 && !(tls->context->flags & WEFT_TLS_NO_RESUMPTION))
            weft__tls_sessions_use(tls->context, tls->ssl, tls->host ? tls->host : "");
    }
    ERR_clear_error();
    return rc;
}

static int new_tls(struct tls **made, weft_stream *stream, weft_tls_context *context, const char *host)
{
    struct tls *tls = calloc(1, sizeof *tls);
    int rc = -ENOMEM;

    if (!tls)
        return rc;
    tls->context = weft_tls_context_ref(context);
    tls->record_type = -1;
    if (host)
        tls->host = copy_host(host);
    if (!host || tls->host)
        rc = prepare(tls, stream);
    if (rc < 0)
        free_tls(tls);
    else
        *made = tls;
    return rc;
}

/* The stream could not be given to it. */
static void tell_failure(struct tls *tls, const weft_tls_options *options, int error)
{
    weft__lock_enter(&tls->lock);
    if (tls->failed == 0)
        fail(tls, error,
             error == -EPROTO      ? "bytes were received in the clear before the handshake"
             : error == -ETIMEDOUT ? "the handshake took too long"
             : error == -ECANCELED ? "the handshake was cancelled"
                                   : text_of(error));
    if (error == -ECANCELED || error == -ETIMEDOUT)
        tls->failed = -ECONNABORTED; /* as the stream says */
    tell(options, tls->reason ? tls->reason : "");
    weft__lock_leave(&tls->lock);
    if (!tls->context->is_server)
        weft__tls_sessions_forget(tls->context, tls->host ? tls->host : "");
}

int weft_tls_start(weft_stream *stream, weft_tls_context *context, const weft_tls_options *options)
{
    static const weft_tls_options defaults;
    struct tls *tls;
    unsigned flags;
    int attached, rc;

    if (!options)
        options = &defaults;
    tell(options, "");
    rc = new_tls(&tls, stream, context, context->is_server ? NULL : options->host);
    if (rc < 0) {
        tell(options, rc == -EINVAL ? "no host to verify the certificate for, or one that cannot be" : "no memory");
        return rc;
    }
    flags = options->flags & WEFT_TLS_TAKES_INPUT ? WEFT_LAYER_TAKES_INPUT : 0;
    rc = weft_stream_set_layer(stream, &layer, tls, flags, &attached);
    if (!attached) {
        tell(options, text_of(rc));
        free_tls(tls);
    } else if (rc < 0) {
        tell_failure(tls, options, rc);
    }
    return rc;
}

int weft_tls_dial(const char *host, uint16_t port, weft_tls_context *context, const weft_tls_options *options,
                  weft_stream **stream)
{
    weft_tls_options own = options ? *options : (weft_tls_options){.host = host};
    int rc = weft_stream_dial(host, port, stream);

    if (rc < 0) {
        tell(&own, text_of(rc));
        return rc;
    }
    if (!own.host)
        own.host = host;
    rc = weft_tls_start(*stream, context, &own);
    if (rc < 0) {
        weft_stream_free(*stream);
        *stream = NULL;
    }
    return rc;
}
