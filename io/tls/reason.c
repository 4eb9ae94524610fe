/*
 * Why a call of OpenSSL failed: an errno and a text. The queue of errors belongs to the thread, so it is read right
 * after the call, by the same function, with no suspension between.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>

#include "io/tls/tls.h"

static int of_certificate(long verified)
{
    switch (verified) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return -EKEYEXPIRED;
    case X509_V_ERR_CERT_REVOKED:
        return -EKEYREVOKED;
    case X509_V_ERR_OUT_OF_MEM:
        return -ENOMEM;
    default:
        return -EKEYREJECTED;
    }
}

/* Reasons of OpenSSL's TLS part; those of alerts are 1000 and the alert. */
static int of_tls(int reason)
{
    switch (reason) {
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return -ECONNABORTED;
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return -EKEYEXPIRED;
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        return -EKEYREVOKED;
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return -EKEYREJECTED;
    default:
        return -EPROTO;
    }
}

static bool is_mismatch(unsigned long error)
{
    int reason = ERR_GET_REASON(error);

    return ERR_GET_LIB(error) == ERR_LIB_X509 &&
           (reason == X509_R_KEY_VALUES_MISMATCH || reason == X509_R_KEY_TYPE_MISMATCH);
}

static int error_of(unsigned long error, long verified, int otherwise)
{
    if (ERR_SYSTEM_ERROR(error))
        return -(int)ERR_GET_REASON(error);
    if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        return of_certificate(verified);
    if (ERR_GET_LIB(error) == ERR_LIB_SSL)
        return of_tls(ERR_GET_REASON(error));
    return is_mismatch(error) ? -EKEYREJECTED : otherwise;
}

/* Empty the queue. Was a lack of memory behind it? What failed for it is told first, by others. */
static bool was_out_of_memory(void)
{
    unsigned long error;
    bool was = false;

    while ((error = ERR_get_error()) != 0)
        was |= !ERR_SYSTEM_ERROR(error) && ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE;
    return was;
}

int weft__tls_why(long verified, int otherwise, char *text, size_t size)
{
    unsigned long error = ERR_peek_error();
    const char *reason = ERR_reason_error_string(error), *data = NULL;
    int rc = error == 0 ? otherwise : error_of(error, verified, otherwise), flags = 0;

    ERR_peek_error_data(&data, &flags);
    if (rc == -ECONNABORTED)
        snprintf(text, size, "the connection ended without a closing notice");
    else if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        snprintf(text, size, "certificate verify failed: %s", X509_verify_cert_error_string(verified));
    else if (ERR_SYSTEM_ERROR(error))
        snprintf(text, size, "%s", data && (flags & ERR_TXT_STRING) && *data ? data : "system error");
    else
        snprintf(text, size, "%s", reason ? reason : "unknown error");
    return was_out_of_memory() ? -ENOMEM : rc;
}
