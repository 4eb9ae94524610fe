/*
 * Sessions that a client remembers, for each host of a context: the next connection to it saves the certificates and
 * most of the computing. They come whenever the server sends them, in any call that reads; so under the lock of that
 * connection's TLS, and the lock here is taken within. A ticket of TLS 1.3 is used once, that nobody can tell by it that
 * two connections are from the same client; what older versions remember is kept.
 *
 * They are kept as bytes, and made anew for each connection: an object would be shared by connections on several
 * threads, one of which may still be filling it in. What a session is remembered for is the host, and what was verified
 * then: contexts share nothing.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "io/tls/tls.h"

enum {
    SESSIONS = 64, /* in all: a client of more hosts than that at a time forgets the oldest */
    FOR_A_HOST = 4 /* servers send two at a time; a browser's worth of connections at once */
};

static void drop(struct session *session)
{
    /* acq_rel: what others read of it comes before it is freed */
    if (!session || atomic_fetch_sub_explicit(&session->references, 1, memory_order_acq_rel) != 1)
        return;
    OPENSSL_cleanse(session->bytes, session->size);
    free(session->key);
    free(session);
}

/* Take out the one behind *link. With the lock. */
static struct session *take(weft_tls_context *context, struct session **link)
{
    struct session *session = *link;

    *link = session->next;
    context->session_count--;
    return session;
}

/* Make room for one with this key; what went is returned. With the lock. */
static struct session *make_room(weft_tls_context *context, const char *key)
{
    struct session **same = NULL, **last = NULL, **link;
    unsigned of_host = 0;

    for (link = &context->sessions; *link; link = &(*link)->next) {
        last = link;
        if (strcmp((*link)->key, key) == 0) {
            same = link;
            of_host++;
        }
    }
    if (of_host >= FOR_A_HOST)
        return take(context, same);
    return context->session_count >= SESSIONS ? take(context, last) : NULL;
}

static struct session *new_session(SSL_SESSION *native, const char *key)
{
    int size = i2d_SSL_SESSION(native, NULL);
    struct session *session = size > 0 ? malloc(sizeof *session + (size_t)size) : NULL;
    unsigned char *end;

    if (!session)
        return NULL;
    session->key = strdup(key);
    if (!session->key) {
        free(session);
        return NULL;
    }
    end = session->bytes;
    session->size = (size_t)i2d_SSL_SESSION(native, &end);
    session->is_for_once = SSL_SESSION_get_protocol_version(native) >= TLS1_3_VERSION;
    atomic_init(&session->references, 1);
    return session;
}

/* OpenSSL has a session, which stays its own (0). */
static int remember(SSL *ssl, SSL_SESSION *native)
{
    const struct tls *tls = weft__tls_of(ssl);
    const char *key = tls->host ? tls->host : "";
    struct session *session = new_session(native, key), *gone;

    if (!session)
        return 0;
    weft__lock_enter(&tls->context->lock);
    gone = make_room(tls->context, key);
    session->next = tls->context->sessions;
    tls->context->sessions = session;
    tls->context->session_count++;
    weft__lock_leave(&tls->context->lock);
    drop(gone);
    return 0;
}

void weft__tls_sessions_init(weft_tls_context *context)
{
    SSL_CTX_set_session_cache_mode(context->native, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context->native, remember);
}

void weft__tls_sessions_free(weft_tls_context *context)
{
    while (context->sessions)
        drop(take(context, &context->sessions));
}

/* One with this key, as a reference of the caller's; or NULL. */
static struct session *find(weft_tls_context *context, const char *key)
{
    struct session **link, *found;

    weft__lock_enter(&context->lock);
    for (link = &context->sessions; *link && strcmp((*link)->key, key) != 0; link = &(*link)->next)
        ;
    found = *link;
    if (found && found->is_for_once)
        take(context, link);
    else if (found) /* relaxed: the list has a reference, and cannot lose it now */
        atomic_fetch_add_explicit(&found->references, 1, memory_order_relaxed);
    weft__lock_leave(&context->lock);
    return found;
}

void weft__tls_sessions_use(weft_tls_context *context, SSL *ssl, const char *key)
{
    struct session *session = find(context, key);
    const unsigned char *bytes;
    SSL_SESSION *native;

    if (!session)
        return;
    bytes = session->bytes;
    native = d2i_SSL_SESSION(NULL, &bytes, (long)session->size);
    if (native)
        SSL_set_session(ssl, native);
    SSL_SESSION_free(native);
    drop(session);
}

void weft__tls_sessions_forget(weft_tls_context *context, const char *key)
{
    struct session *gone = NULL;

    weft__lock_enter(&context->lock);
    for (struct session **link = &context->sessions; *link;) {
        if (strcmp((*link)->key, key) == 0) {
            struct session *session = take(context, link);

            session->next = gone;
            gone = session;
        } else {
            link = &(*link)->next;
        }
    }
    weft__lock_leave(&context->lock);
    while (gone) {
        struct session *next = gone->next;

        drop(gone);
        gone = next;
    }
}
