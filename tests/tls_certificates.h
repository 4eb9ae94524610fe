/* Certificates for tests, made in memory: an authority, and certificates that it, or another, or they themselves have
 * signed. Elliptic curves, so that a handshake takes little time. */
#ifndef WEFT_TESTS_TLS_CERTIFICATES_H
#define WEFT_TESTS_TLS_CERTIFICATES_H

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "support.h"

struct identity {
    EVP_PKEY *key;
    X509 *x509;
    char *certificate, *private_key; /* PEM */
};

enum { DAY = 24 * 3600 };

static void add_extension(X509 *x509, X509 *issuer, int kind, const char *value)
{
    X509V3_CTX context;
    X509_EXTENSION *extension;

    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    must(extension != NULL);
    must(X509_add_ext(x509, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static char *text_of_memory(BIO *memory)
{
    char *bytes, *text;
    long size = BIO_get_mem_data(memory, &bytes);

    text = strndup(bytes, (size_t)size);
    must(text != NULL);
    BIO_free(memory);
    return text;
}

static void make_texts(struct identity *identity)
{
    BIO *memory = BIO_new(BIO_s_mem());

    must(PEM_write_bio_X509(memory, identity->x509) == 1);
    identity->certificate = text_of_memory(memory);
    memory = BIO_new(BIO_s_mem());
    must(PEM_write_bio_PrivateKey(memory, identity->key, NULL, NULL, 0, NULL, NULL) == 1);
    identity->private_key = text_of_memory(memory);
}

/* Valid from and until so many days from now. `issuer` NULL: signed by itself; `names` NULL: an authority. */
static struct identity make_identity(const struct identity *issuer, const char *common, const char *names, int from,
                                     int until)
{
    static long serial;
    struct identity made = {.key = EVP_EC_gen("P-256"), .x509 = X509_new()};
    X509_NAME *name;

    must(made.key && made.x509);
    X509_set_version(made.x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.x509), 1000 + ++serial);
    X509_gmtime_adj(X509_getm_notBefore(made.x509), (long)from * DAY);
    X509_gmtime_adj(X509_getm_notAfter(made.x509), (long)until * DAY);
    name = X509_get_subject_name(made.x509);
    must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)common, -1, -1, 0) == 1);
    X509_set_issuer_name(made.x509, issuer ? X509_get_subject_name(issuer->x509) : name);
    X509_set_pubkey(made.x509, made.key);
    if (names)
        add_extension(made.x509, issuer ? issuer->x509 : made.x509, NID_subject_alt_name, names);
    add_extension(made.x509, made.x509, NID_basic_constraints, names ? "critical,CA:FALSE" : "critical,CA:TRUE");
    must(X509_sign(made.x509, issuer ? issuer->key : made.key, EVP_sha256()) > 0);
    make_texts(&made);
    return made;
}

static void free_identity(struct identity *identity)
{
    EVP_PKEY_free(identity->key);
    X509_free(identity->x509);
    free(identity->certificate);
    free(identity->private_key);
}

#endif
