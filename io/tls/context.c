/*
 * Contexts: certificates, keys, whom to trust, and what else connections have in common. Made by any thread, constant
 * once they are used, except for the references and for what a client remembers (session.c).
 *
 * A server chooses the context for the name that a client asks for before anything else is done with what the client
 * sent, also before its ticket is looked at; and each context has an identity of its own that tickets carry. So one that
 * was given under one name, by a context that perhaps asks for no certificate, is of no use under another.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/tls/tls.h"

enum { IDENTITY = 16, ALPN_MAX = 255 };

/* ---- failing ---- */

static int fail(const weft_tls_config *config, int error, const char *reason)
{
    if (config->reason && config->reason_size > 0)
        snprintf(config->reason, config->reason_size, "%s", reason);
    return error;
}

/* Of a call of OpenSSL, right after it. */
static int fail_natively(const weft_tls_config *config, const char *what)
{
    char text[200], reason[256];
    int rc = weft__tls_why(X509_V_OK, -EBADMSG, text, sizeof text);

    snprintf(reason, sizeof reason, "%s: %s", what, text);
    return fail(config, rc, reason);
}

/* ---- PEM ---- */

static BIO *open_pem(const char *file, const char *text)
{
    ERR_clear_error();
    return text ? BIO_new_mem_buf(text, -1) : BIO_new_file(file, "r");
}

/* In place of OpenSSL's own, which would ask at the terminal. */
static int give_password(char *buffer, int size, int writes, void *arg)
{
    const char *password = arg;
    size_t length = password ? strlen(password) : 0;

    (void)writes;
    if (length == 0 || length > (size_t)size)
        return -1;
    memcpy(buffer, password, length);
    return (int)length;
}

/* No more certificates in the text: that is how it ends, and no error. */
static bool is_at_the_end(void)
{
    unsigned long error = ERR_peek_last_error();
    bool is = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;

    if (is)
        ERR_clear_error();
    return is;
}

/* The first is ours, the others lead to its issuer. */
static bool take_chain(SSL_CTX *native, BIO *pem)
{
    X509 *certificate = PEM_read_bio_X509(pem, NULL, give_password, NULL);
    bool ok = certificate && SSL_CTX_use_certificate(native, certificate) == 1;

    X509_free(certificate);
    while (ok && (certificate = PEM_read_bio_X509(pem, NULL, give_password, NULL)) != NULL) {
        ok = SSL_CTX_add0_chain_cert(native, certificate) == 1;
        if (!ok)
            X509_free(certificate);
    }
    return ok && is_at_the_end();
}

static int use_certificate(weft_tls_context *context, const weft_tls_config *config)
{
    BIO *pem;
    bool ok;

    if (!config->certificate && !config->certificate_file)
        return context->is_server ? fail(config, -EINVAL, "a server needs a certificate") : 0;
    pem = open_pem(config->certificate_file, config->certificate);
    ok = pem && take_chain(context->native, pem);
    if (!ok) {
        int rc = fail_natively(config, "certificate");

        BIO_free(pem);
        return rc;
    }
    BIO_free(pem);
    return 0;
}

static int use_key(weft_tls_context *context, const weft_tls_config *config)
{
    EVP_PKEY *key = NULL;
    BIO *pem;
    int rc = 0;

    if (!config->certificate && !config->certificate_file)
        return 0;
    if (!config->key && !config->key_file)
        return fail(config, -EINVAL, "a certificate without its key");
    pem = open_pem(config->key_file, config->key);
    if (pem)
        key = PEM_read_bio_PrivateKey(pem, NULL, give_password, (void *)(uintptr_t)config->password);
    if (!key || SSL_CTX_use_PrivateKey(context->native, key) != 1 ||
        SSL_CTX_check_private_key(context->native) != 1)
        rc = fail_natively(config, "key");
    EVP_PKEY_free(key);
    BIO_free(pem);
    return rc;
}

/* ---- whom to trust ---- */

static bool trust_text(SSL_CTX *native, const char *text)
{
    BIO *pem = open_pem(NULL, text);
    X509 *certificate;
    bool ok = pem != NULL;
    int count = 0;

    while (ok && (certificate = PEM_read_bio_X509(pem, NULL, give_password, NULL)) != NULL) {
        ok = X509_STORE_add_cert(SSL_CTX_get_cert_store(native), certificate) == 1;
        X509_free(certificate);
        count++;
    }
    ok = ok && count > 0 && is_at_the_end();
    BIO_free(pem);
    return ok;
}

static int use_authorities(weft_tls_context *context, const weft_tls_config *config)
{
    SSL_CTX *native = context->native;
    bool ok = true;

    ERR_clear_error();
    if (!config->ca && !config->ca_file && !config->ca_directory)
        ok = SSL_CTX_set_default_verify_paths(native) == 1;
    if (config->ca)
        ok = trust_text(native, config->ca);
    if (ok && config->ca_file)
        ok = SSL_CTX_load_verify_file(native, config->ca_file) == 1;
    if (ok && config->ca_directory)
        ok = SSL_CTX_load_verify_dir(native, config->ca_directory) == 1;
    return ok ? 0 : fail_natively(config, "authorities");
}

static int use_verification(weft_tls_context *context, const weft_tls_config *config)
{
    int mode = SSL_VERIFY_NONE, rc;

    if (!context->is_server && !(config->flags & WEFT_TLS_INSECURE))
        mode = SSL_VERIFY_PEER;
    if (context->is_server && (config->flags & (WEFT_TLS_ASK_CLIENT | WEFT_TLS_REQUIRE_CLIENT)))
        mode = SSL_VERIFY_PEER;
    if (context->is_server && (config->flags & WEFT_TLS_REQUIRE_CLIENT))
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(context->native, mode, NULL);
    if (mode == SSL_VERIFY_NONE)
        return 0;
    rc = use_authorities(context, config);
    if (rc == 0 && context->is_server && config->ca_file) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(config->ca_file);

        SSL_CTX_set_client_CA_list(context->native,
                                   names); /* for clients that choose by it; also if there are none */
    }
    return rc;
}

/* ---- ALPN ---- */

/* "h2,http/1.1" as on the wire: each with its length before it. */
static int use_alpn(weft_tls_context *context, const weft_tls_config *config)
{
    size_t size = config->alpn ? strlen(config->alpn) + 1 : 0, start = 0;

    if (size == 0)
        return 0;
    context->alpn = malloc(size);
    if (!context->alpn)
        return fail(config, -ENOMEM, "no memory");
    for (size_t i = 0; i < size; i++) {
        char c = config->alpn[i];

        if (c != '\0')
            context->alpn[i + 1] = (unsigned char)c;
        if (c != ',' && c != '\0')
            continue;
        if (i == start || i - start > ALPN_MAX)
            return fail(config, -EINVAL, "alpn: an empty name, or one that is too long");
        context->alpn[start] = (unsigned char)(i - start);
        start = i + 1;
    }
    context->alpn_size = (unsigned)size;
    if (!context->is_server && SSL_CTX_set_alpn_protos(context->native, context->alpn, context->alpn_size) != 0)
        return fail(config, -ENOMEM, "no memory");
    return 0;
}

static int choose_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *size,
                           const unsigned char *offered, unsigned offered_size, void *arg)
{
    weft_tls_context *context = arg;
    unsigned char *found;

    (void)ssl;
    if (context->alpn_size == 0)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&found, size, context->alpn, context->alpn_size, offered, offered_size) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

/* ---- names ---- */

/* Exactly, or "*." and the rest behind the first label. */
static bool fits(const char *pattern, const char *name)
{
    const char *dot;

    if (pattern[0] != '*')
        return strcasecmp(pattern, name) == 0;
    dot = strchr(name, '.');
    return dot && dot != name && strcasecmp(pattern + 1, dot) == 0;
}

static weft_tls_context *context_for(const weft_tls_context *context, const char *name)
{
    weft_tls_context *chosen = context->choose ? context->choose(name, context->arg) : NULL;

    for (const struct name *at = context->names; at && !chosen; at = at->next)
        if (fits(at->text, name))
            chosen = at->context;
    return chosen;
}

/* The host name in the extension as it came. False: there is none. */
static bool name_of_hello(SSL *ssl, char name[256])
{
    const unsigned char *bytes;
    size_t size, length;

    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &size) != 1 || size < 5)
        return false;
    length = (size_t)bytes[3] << 8 | bytes[4];
    if (bytes[2] != TLSEXT_NAMETYPE_host_name || length != size - 5 || length == 0 || length > 255 ||
        memchr(bytes + 5, '\0', length))
        return false;
    memcpy(name, bytes + 5, length);
    name[length] = '\0';
    return true;
}

static int choose_context(SSL *ssl, int *alert, void *arg)
{
    const weft_tls_context *context = arg;
    weft_tls_context *chosen;
    char name[256];

    (void)alert;
    chosen = name_of_hello(ssl, name) ? context_for(context, name) : NULL;
    if (!chosen || chosen == context)
        return SSL_CLIENT_HELLO_SUCCESS;
    if (SSL_set_SSL_CTX(ssl, chosen->native) != chosen->native)
        return SSL_CLIENT_HELLO_ERROR;
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(chosen->native), NULL);
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* Without this OpenSSL does not tell that it has heard the name. */
static int hear_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl, (void)alert, (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

int weft_tls_add_name(weft_tls_context *context, const char *name, weft_tls_context *other)
{
    struct name *added;

    if (!context->is_server || !other->is_server || !*name || strlen(name) > 255)
        return -EINVAL;
    added = malloc(sizeof *added + strlen(name) + 1);
    if (!added)
        return -ENOMEM;
    strcpy(added->text, name);
    added->context = weft_tls_context_ref(other);
    added->next = context->names;
    context->names = added;
    return 0;
}

/* ---- making one ---- */

static int use_identity(weft_tls_context *context, const weft_tls_config *config)
{
    unsigned char identity[IDENTITY];

    ERR_clear_error();
    if (RAND_bytes(identity, sizeof identity) != 1 ||
        SSL_CTX_set_session_id_context(context->native, identity, sizeof identity) != 1)
        return fail_natively(config, "identity");
    return 0;
}

static int use_versions(weft_tls_context *context, const weft_tls_config *config)
{
    uint16_t minimum = config->minimum_version ? config->minimum_version : WEFT_TLS_1_2;

    ERR_clear_error();
    if (SSL_CTX_set_min_proto_version(context->native, minimum) != 1 ||
        SSL_CTX_set_max_proto_version(context->native, config->maximum_version) != 1 ||
        (config->maximum_version && config->maximum_version < minimum)) {
        ERR_clear_error();
        return fail(config, -EINVAL, "no such version");
    }
    return 0;
}

static void use_resumption(weft_tls_context *context, const weft_tls_config *config)
{
    SSL_CTX_set_session_cache_mode(context->native, SSL_SESS_CACHE_OFF); /* tickets need none */
    if (config->flags & WEFT_TLS_NO_RESUMPTION) {
        SSL_CTX_set_options(context->native, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(context->native, 0);
    } else if (!context->is_server) {
        weft__tls_sessions_init(context);
    }
}

static void use_fixed_options(weft_tls_context *context, const weft_tls_config *config)
{
    SSL_CTX *native = context->native;

    SSL_CTX_set_mode(native, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                 SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(native, 1); /* one system call for a record, not two */
    SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_default_passwd_cb(native, give_password);
#ifdef SSL_OP_ENABLE_KTLS
    if (config->flags & WEFT_TLS_KERNEL)
        SSL_CTX_set_options(native, SSL_OP_ENABLE_KTLS);
#else
    (void)config;
#endif
    if (context->is_server) {
        SSL_CTX_set_alpn_select_cb(native, choose_protocol, context);
        SSL_CTX_set_client_hello_cb(native, choose_context, context);
        SSL_CTX_set_tlsext_servername_callback(native, hear_name);
    }
}

static int fill_context(weft_tls_context *context, const weft_tls_config *config)
{
    int rc;

    ERR_clear_error();
    context->native = SSL_CTX_new(context->is_server ? TLS_server_method() : TLS_client_method());
    if (!context->native)
        return fail_natively(config, "context");
    use_fixed_options(context, config);
    use_resumption(context, config);
    rc = use_identity(context, config);
    if (rc == 0)
        rc = use_versions(context, config);
    if (rc == 0)
        rc = use_certificate(context, config);
    if (rc == 0)
        rc = use_key(context, config);
    if (rc == 0)
        rc = use_verification(context, config);
    return rc == 0 ? use_alpn(context, config) : rc;
}

static int new_context(weft_tls_context **made, const weft_tls_config *config, bool is_server)
{
    static const weft_tls_config defaults;
    weft_tls_context *context;
    int rc;

    if (!config)
        config = &defaults;
    *made = NULL;
    fail(config, 0, "");
    context = calloc(1, sizeof *context);
    if (!context)
        return fail(config, -ENOMEM, "no memory");
    atomic_store_explicit(&context->references, 1, memory_order_relaxed);
    context->is_server = is_server;
    context->flags = config->flags;
    context->choose = config->choose;
    context->arg = config->arg;
    rc = fill_context(context, config);
    if (rc < 0)
        weft_tls_context_free(context);
    else
        *made = context;
    return rc;
}

int weft_tls_client_new(weft_tls_context **context, const weft_tls_config *config)
{
    return new_context(context, config, false);
}

int weft_tls_server_new(weft_tls_context **context, const weft_tls_config *config)
{
    return new_context(context, config, true);
}

weft_tls_context *weft_tls_context_ref(weft_tls_context *context)
{
    /* relaxed: whoever takes another reference has one */
    if (context)
        atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
    return context;
}

void weft_tls_context_free(weft_tls_context *context)
{
    /* acq_rel: what the others did with it comes before it is freed */
    if (!context || atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel) != 1)
        return;
    while (context->names) {
        struct name *name = context->names;

        context->names = name->next;
        weft_tls_context_free(name->context);
        free(name);
    }
    weft__tls_sessions_free(context);
    SSL_CTX_free(context->native);
    free(context->alpn);
    free(context);
}

void *weft_tls_context_native(weft_tls_context *context)
{
    return context->native;
}
