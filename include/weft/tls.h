/*
 * TLS under streams, by OpenSSL 3. Not part of <weft.h>: a library of its own, weft_tls (CMake: weft::tls).
 *
 *     weft_tls_context *context;
 *     weft_stream *stream;
 *
 *     weft_tls_client_new(&context, NULL);
 *     rc = weft_tls_dial("example.org", 443, context, NULL, &stream);
 *
 * From then on it is a stream like any other. A client verifies the server's certificate and its name unless it is told
 * not to. Handshakes and encryption run on the worker: a handshake takes it for about a millisecond.
 *
 * Errors that streams and the calls here return for TLS; weft_tls_reason tells more:
 * -EPROTO         the peer, or somebody between, does not keep to the protocol, or refuses
 * -EKEYREJECTED   a certificate was not accepted, here or by the peer: unknown issuer, another name, none at all …
 * -EKEYEXPIRED    it has expired, or is not valid yet
 * -EKEYREVOKED    it was revoked
 * -ECONNABORTED   the connection ended without the notice that TLS requires: what was read may be cut off
 *
 * A deep call is part of this: tasks that use TLS need stacks of 64 KiB or more.
 */
#ifndef WEFT_TLS_H
#define WEFT_TLS_H

#include <sys/types.h>
#include <weft/base.h>
#include <weft/stream.h>

WEFT_BEGIN_DECLS

/* ---- contexts ---- */

/* What connections have in common. Made once, used by any number of connections on all workers; counted references. */
typedef struct weft_tls_context weft_tls_context;

enum { WEFT_TLS_1_2 = 0x0303, WEFT_TLS_1_3 = 0x0304 };

enum {
    /* Do not verify the peer's certificate: whoever is in between can read and change everything. */
    WEFT_TLS_INSECURE = 1u << 0,
    /* Verify the certificate, but not that it is for the host: for authorities that vouch for nobody else. */
    WEFT_TLS_ANY_HOST = 1u << 1,
    WEFT_TLS_ASK_CLIENT = 1u << 2,     /* a server asks for a certificate, and verifies one that it gets */
    WEFT_TLS_REQUIRE_CLIENT = 1u << 3, /* a server accepts no client without one */
    WEFT_TLS_NO_RESUMPTION = 1u << 4,  /* no tickets, no remembered sessions */
    /* Let the kernel encrypt what is sent, where it can; silently not where it cannot (weft_tls_info). */
    WEFT_TLS_KERNEL = 1u << 5
};

/* Zeroed means the defaults. What is pointed to is used during the call only. PEM throughout. */
typedef struct weft_tls_config {
    unsigned flags; /* WEFT_TLS_* */
    /* A certificate, followed by those that lead to its issuer, and its key: files, or text. A server needs them. */
    const char *certificate_file, *key_file;
    const char *certificate, *key;
    const char *password; /* of the key; nobody is asked for it */
    /* Whom to trust. None of the three: those whom the system trusts. */
    const char *ca_file, *ca_directory, *ca;
    const char *alpn;                          /* "h2,http/1.1", the best first; NULL: none */
    uint16_t minimum_version, maximum_version; /* WEFT_TLS_1_2…; 0: 1.2, the newest */
    /*
     * A server: the context for the host name that a client asks for; NULL: this one. Before names that were added
     * with weft_tls_add_name. Called in the handshake, by many tasks at once; must not suspend. What it returns must
     * live as long as this context.
     */
    weft_tls_context *(*choose)(const char *name, void *arg);
    void *arg;
    /* Where a text is written if it fails. NULL, 0: nowhere. */
    char *reason;
    size_t reason_size;
} weft_tls_config;

/*
 * A context for clients, for servers. NULL means the defaults (clients only). 0 with *context; -EINVAL, -ENOMEM,
 * -ENOENT, -EACCES… of a file, -EBADMSG for what is not PEM, -EKEYREJECTED for a key that does not fit, for a name that
 * no library knows. Reads files, in place. Any thread; not a suspension point.
 */
WEFT_API int weft_tls_client_new(weft_tls_context **context, const weft_tls_config *config);
WEFT_API int weft_tls_server_new(weft_tls_context **context, const weft_tls_config *config);

/* Another reference, which it returns; give one back. NULL is allowed. Any thread; not suspension points. */
WEFT_API weft_tls_context *weft_tls_context_ref(weft_tls_context *context);
WEFT_API void weft_tls_context_free(weft_tls_context *context);

/*
 * A server's certificate for a name: clients that ask for "a.example", or with "*.example" for anything with one more
 * label, get that of `other`, its authorities, its protocols (ALPN) and what it asks of clients; versions and the
 * rest stay those of `context`. Takes a reference. Before the context is used. 0, -EINVAL, -ENOMEM.
 */
WEFT_API int weft_tls_add_name(weft_tls_context *context, const char *name, weft_tls_context *other);

/* The SSL_CTX, to set before it is used what is not provided for here. */
WEFT_API void *weft_tls_context_native(weft_tls_context *context);

/* ---- connections ---- */

enum {
    /* What the stream has read ahead belongs to the handshake: for a server behind a proxy that sends a line of its own
     * first. Without it that is -EPROTO. */
    WEFT_TLS_TAKES_INPUT = 1u << 0
};

/* Zeroed means the defaults. */
typedef struct weft_tls_options {
    unsigned flags;
    const char *host; /* client: the name, or literal address, of the peer; to ask for and to verify */
    /* As in weft_tls_config. */
    char *reason;
    size_t reason_size;
} weft_tls_options;

/*
 * Begin TLS on a stream, as the context says as client or server; also in the middle of a conversation (STARTTLS). What
 * was written before is sent first, in the clear; what others write meanwhile is sent when the handshake is over,
 * encrypted. What was read ahead in the clear is -EPROTO: somebody in between may have put it there to be taken for a
 * part of what follows. NULL options are the defaults. 0 when the handshake is over.
 *
 * -EBUSY (somebody reads), -EINVAL (a client that verifies without a host), -EALREADY, -ENOMEM, -EPERM, and as
 * weft_stream_flush: nothing has happened. Any other error, also -ECANCELED and -ETIMEDOUT in the handshake: the stream
 * is of no use any more, in neither direction; nothing is sent in the clear. Suspension point.
 */
WEFT_API int weft_tls_start(weft_stream *stream, weft_tls_context *context, const weft_tls_options *options);

/* weft_stream_dial, then weft_tls_start with that host, if the options name no other. Suspension point. */
WEFT_API int weft_tls_dial(const char *host, uint16_t port, weft_tls_context *context,
                           const weft_tls_options *options, weft_stream **stream);

/*
 * Why the last call on this stream failed that did because of TLS, as a text, "" if none has. Its length, cut to `size`
 * with its end; -ENOTCONN: it has no TLS. This and what follows: any thread, but not while TLS is being started by
 * another; not suspension points.
 */
WEFT_API ssize_t weft_tls_reason(weft_stream *stream, char *text, size_t size);

typedef struct weft_tls_info {
    uint16_t version; /* WEFT_TLS_1_3… */
    uint8_t is_server;
    uint8_t is_resumed;     /* from an earlier session; its certificates were verified then */
    uint8_t is_verified;    /* the peer has a certificate, and it was verified */
    uint8_t is_kernel_send; /* the kernel encrypts: weft_sendfile works after weft_stream_flush */
    char cipher[48];
    char alpn[256];        /* what was agreed on; "": nothing */
    char server_name[256]; /* what the client has asked for; "": nothing */
} weft_tls_info;

/* 0; -ENOTCONN: it has no TLS, or the handshake is not over. */
WEFT_API int weft_tls_look(weft_stream *stream, weft_tls_info *info);

typedef struct weft_tls_certificate {
    char subject[256], issuer[256]; /* "CN=…, O=…" */
    char names[512];                /* the host names it is for, with commas between */
    char serial[64];                /* hexadecimal */
    unsigned char sha256[32];       /* of all of it */
    int64_t not_before, not_after;  /* seconds since 1970 */
} weft_tls_certificate;

/* The peer's. 0; -ENODATA: it has none; -ENOTCONN, -ENOMEM. Texts are cut to fit. */
WEFT_API int weft_tls_peer_certificate(weft_stream *stream, weft_tls_certificate *certificate);

/* The SSL, or NULL. Only while nobody reads or writes. */
WEFT_API void *weft_tls_native(weft_stream *stream);

WEFT_END_DECLS

#endif
