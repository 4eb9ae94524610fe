/* What the files of io/tls know of each other. */
#ifndef WEFT_IO_TLS_TLS_H
#define WEFT_IO_TLS_TLS_H

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <weft/layer.h>
#include <weft/tls.h>

#include "runtime/lock.h"

struct name {
    struct name *next;
    weft_tls_context *context;
    char text[];
};

/* A remembered session, for the next connection to the same host. */
struct session {
    struct session *next;
    _Atomic uint32_t references;
    bool is_for_once;
    char *key;
    size_t size;
    unsigned char bytes[]; /* DER */
};

struct weft_tls_context {
    _Atomic uint32_t references;
    SSL_CTX *native;
    bool is_server;
    unsigned flags;

    /* Constant once it is used. */
    struct name *names;
    weft_tls_context *(*choose)(const char *name, void *arg);
    void *arg;
    unsigned char *alpn; /* as on the wire */
    unsigned alpn_size;

    weft__lock lock;          /* the sessions; no lock is taken under it */
    struct session *sessions; /* the newest first */
    unsigned session_count;
};

/* The TLS of a stream. Everything is for who holds the lock, unless it is constant. */
struct tls {
    weft__lock lock;
    bool is_open;
    bool eof;        /* of the transport */
    int failed;      /* 0, or the error that all further calls return */
    int transport;   /* 0, or -errno: why the transport failed */
    int record_type; /* of what the kernel is to send next that is not data, or -1 */
    bool kernel_sends;
    SSL *ssl;
    weft_layer_attempt *attempt; /* the call under way */
    weft_tls_context *context;   /* constant */
    char *host;                  /* constant; NULL: none */
    char *reason;                /* NULL: none */
    BIO *socket;                 /* to ask for kernel TLS; NULL: not wanted */
};

/* ---- reason.c ---- */

/* The error that OpenSSL's queue of this thread tells, and its text (cut to `size`); empties the queue. Right after the
 * call that failed, on the same thread. `verified` is the result of verifying a certificate (X509_V_OK); `otherwise` the
 * error where nothing better is known. */
int weft__tls_why(long verified, int otherwise, char *text, size_t size);

/* ---- transport.c ---- */

/* A BIO over what lies below the layer; NULL: no memory. */
BIO *weft__tls_transport_new(struct tls *tls);

/* ---- session.c ---- */

/* Have a client's sessions remembered. */
void weft__tls_sessions_init(weft_tls_context *context);
void weft__tls_sessions_free(weft_tls_context *context);

/* Have the connection try to go on with one. */
void weft__tls_sessions_use(weft_tls_context *context, SSL *ssl, const char *key);

/* The connection failed: its host is not to be tried that way again. */
void weft__tls_sessions_forget(weft_tls_context *context, const char *key);

/* ---- layer.c ---- */

/* The TLS of an SSL. */
struct tls *weft__tls_of(const SSL *ssl);

/* That of a stream, or NULL. */
struct tls *weft__tls_of_stream(const weft_stream *stream);

#endif
