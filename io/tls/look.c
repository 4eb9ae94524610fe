/* What is known of a connection and of its peer. Any thread; everything under the lock of the TLS. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/tls/tls.h"

static void copy(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ? from : "");
}

ssize_t weft_tls_reason(weft_stream *stream, char *text, size_t size)
{
    struct tls *tls = weft__tls_of_stream(stream);
    ssize_t length;

    if (!tls)
        return -ENOTCONN;
    weft__lock_enter(&tls->lock);
    length = snprintf(text, size, "%s", tls->reason ? tls->reason : "");
    weft__lock_leave(&tls->lock);
    return size > 0 && (size_t)length >= size ? (ssize_t)size - 1 : length;
}

static void fill_info(const struct tls *tls, weft_tls_info *info)
{
    const unsigned char *alpn;
    unsigned size;

    *info = (weft_tls_info){.version = (uint16_t)SSL_version(tls->ssl),
                            .is_server = tls->context->is_server,
                            .is_resumed = SSL_session_reused(tls->ssl) == 1,
                            .is_kernel_send = tls->kernel_sends};
    info->is_verified = SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE && SSL_get0_peer_certificate(tls->ssl) &&
                        SSL_get_verify_result(tls->ssl) == X509_V_OK;
    copy(info->cipher, sizeof info->cipher, SSL_get_cipher_name(tls->ssl));
    copy(info->server_name, sizeof info->server_name, SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name));
    SSL_get0_alpn_selected(tls->ssl, &alpn, &size);
    if (size > 0 && size < sizeof info->alpn)
        memcpy(info->alpn, alpn, size);
}

int weft_tls_look(weft_stream *stream, weft_tls_info *info)
{
    struct tls *tls = weft__tls_of_stream(stream);
    bool is_open;

    if (!tls)
        return -ENOTCONN;
    weft__lock_enter(&tls->lock);
    is_open = tls->is_open;
    if (is_open)
        fill_info(tls, info);
    weft__lock_leave(&tls->lock);
    return is_open ? 0 : -ENOTCONN;
}

/* ---- the peer's certificate ---- */

static void print_name(char *text, size_t size, const X509_NAME *name)
{
    BIO *memory = BIO_new(BIO_s_mem());
    char *bytes = NULL;
    long length = 0;

    text[0] = '\0';
    if (memory && X509_NAME_print_ex(memory, name, 0, XN_FLAG_ONELINE & ~(unsigned long)XN_FLAG_SPC_EQ) >= 0)
        length = BIO_get_mem_data(memory, &bytes);
    if (bytes && length > 0)
        snprintf(text, size, "%.*s", (int)length, bytes);
    BIO_free(memory);
}

static void print_serial(char *text, size_t size, const X509 *certificate)
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    char *digits = number ? BN_bn2hex(number) : NULL;

    copy(text, size, digits);
    OPENSSL_free(digits);
    BN_free(number);
}

/* Names with a zero byte in them, which would hide what follows, are left out. */
static void print_names(char *text, size_t size, X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    size_t used = 0;

    text[0] = '\0';
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        const char *bytes;
        size_t length;

        if (name->type != GEN_DNS)
            continue;
        bytes = (const char *)ASN1_STRING_get0_data(name->d.dNSName);
        length = (size_t)ASN1_STRING_length(name->d.dNSName);
        if (memchr(bytes, '\0', length) || used + length + 2 > size)
            continue;
        if (used > 0)
            text[used++] = ',';
        memcpy(text + used, bytes, length);
        used += length;
        text[used] = '\0';
    }
    GENERAL_NAMES_free(names);
}

static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm tm;

    return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static int describe(X509 *certificate, weft_tls_certificate *to)
{
    unsigned length = sizeof to->sha256;

    memset(to, 0, sizeof *to);
    print_name(to->subject, sizeof to->subject, X509_get_subject_name(certificate));
    print_name(to->issuer, sizeof to->issuer, X509_get_issuer_name(certificate));
    print_names(to->names, sizeof to->names, certificate);
    print_serial(to->serial, sizeof to->serial, certificate);
    to->not_before = seconds_of(X509_get0_notBefore(certificate));
    to->not_after = seconds_of(X509_get0_notAfter(certificate));
    return X509_digest(certificate, EVP_sha256(), to->sha256, &length) == 1 ? 0 : -ENOMEM;
}

int weft_tls_peer_certificate(weft_stream *stream, weft_tls_certificate *certificate)
{
    struct tls *tls = weft__tls_of_stream(stream);
    X509 *peer;
    bool is_open;
    int rc;

    if (!tls)
        return -ENOTCONN;
    weft__lock_enter(&tls->lock);
    is_open = tls->is_open;
    peer = is_open ? SSL_get1_peer_certificate(tls->ssl) : NULL;
    weft__lock_leave(&tls->lock);
    if (!peer)
        return is_open ? -ENODATA : -ENOTCONN;
    rc = describe(peer, certificate);
    X509_free(peer);
    ERR_clear_error();
    return rc;
}

void *weft_tls_native(weft_stream *stream)
{
    struct tls *tls = weft__tls_of_stream(stream);

    return tls ? tls->ssl : NULL;
}
