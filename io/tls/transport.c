/*
 * What OpenSSL sees of a stream's descriptor: a BIO that makes one attempt (layer.h) with each call and has no buffer.
 * Called within SSL_ calls only, so with the lock of the TLS held and its `attempt` set.
 *
 * Kernel TLS, for sending only: OpenSSL asks the BIO to install the keys, which a socket BIO that is used for nothing
 * else does for us. From then on data goes down as it is, and what is not data (alerts, key updates) with the type of
 * the record beside it. The socket BIO's own way of doing that would raise SIGPIPE.
 */
#include <errno.h>
#include <linux/tls.h>
#include <openssl/bio.h>
#include <string.h>

#include "io/tls/tls.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

static struct tls *tls_of(BIO *bio)
{
    return BIO_get_data(bio);
}

static int transport_read(BIO *bio, char *buffer, int size)
{
    struct tls *tls = tls_of(bio);
    struct iovec iov = {buffer, (size_t)size};
    ssize_t n;

    BIO_clear_retry_flags(bio);
    n = weft_layer_receive(tls->attempt, &iov, 1);
    if (n > 0)
        return (int)n;
    if (n == 0)
        tls->eof = true;
    else if (n == -EAGAIN)
        BIO_set_retry_read(bio);
    else
        tls->transport = (int)n;
    return n == 0 ? 0 : -1;
}

/* A record of another type than data. */
static ssize_t send_record(struct tls *tls, struct iovec *iov)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(unsigned char))];
    } control = {.space = {0}};
    struct msghdr message = {
        .msg_iov = iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

    control.header.cmsg_level = SOL_TLS;
    control.header.cmsg_type = TLS_SET_RECORD_TYPE;
    control.header.cmsg_len = CMSG_LEN(sizeof(unsigned char));
    *CMSG_DATA(&control.header) = (unsigned char)tls->record_type;
    return weft_layer_sendmsg(tls->attempt, &message);
}

static int transport_write(BIO *bio, const char *buffer, int size)
{
    struct tls *tls = tls_of(bio);
    struct iovec iov = {(void *)(uintptr_t)buffer, (size_t)size};
    ssize_t n;

    BIO_clear_retry_flags(bio);
    n = tls->record_type >= 0 ? send_record(tls, &iov) : weft_layer_send(tls->attempt, &iov, 1);
    if (n >= 0)
        return (int)n;
    if (n == -EAGAIN)
        BIO_set_retry_write(bio);
    else
        tls->transport = (int)n;
    return -1;
}

/* The commands for it, which <openssl/bio.h> has in a comment only. */
enum { SET_KERNEL = 72, GET_KERNEL_SEND = 73, SET_RECORD_TYPE = 74, CLEAR_RECORD_TYPE = 75 };

static long kernel_control(struct tls *tls, int command, long number, void *pointer)
{
    switch (command) {
    case SET_KERNEL: /* number: 1 to send, 0 to receive */
        if (tls->socket && number == 1 && BIO_ctrl(tls->socket, command, number, pointer) > 0)
            tls->kernel_sends = true;
        return number == 1 && tls->kernel_sends;
    case GET_KERNEL_SEND:
        return tls->kernel_sends;
    case SET_RECORD_TYPE:
        tls->record_type = (int)number;
        return 0;
    case CLEAR_RECORD_TYPE:
        tls->record_type = -1;
        return 0;
    default:
        return 0;
    }
}

static long transport_control(BIO *bio, int command, long number, void *pointer)
{
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return tls_of(bio)->eof;
    default:
        return kernel_control(tls_of(bio), command, number, pointer);
    }
}

static _Atomic(BIO_METHOD *) method;

/* Made once for the process. */
static BIO_METHOD *transport_method(void)
{
    BIO_METHOD *made = atomic_load_explicit(&method, memory_order_acquire), *before = NULL;

    if (made)
        return made;
    made = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "weft stream");
    if (!made)
        return NULL;
    BIO_meth_set_read(made, transport_read);
    BIO_meth_set_write(made, transport_write);
    BIO_meth_set_ctrl(made, transport_control);
    /* release: whoever finds it finds it filled in; acquire: pairs with it, for who comes second */
    if (atomic_compare_exchange_strong_explicit(&method, &before, made, memory_order_acq_rel, memory_order_acquire))
        return made;
    BIO_meth_free(made);
    return before;
}

BIO *weft__tls_transport_new(struct tls *tls)
{
    BIO_METHOD *how = transport_method();
    BIO *bio = how ? BIO_new(how) : NULL;

    if (bio) {
        BIO_set_data(bio, tls);
        BIO_set_init(bio, 1);
    }
    return bio;
}
