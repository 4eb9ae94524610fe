/* TCP sockets by literal address: listening and dialling. Names come with the resolver. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>
#include <weft/fd.h>

#include "runtime/poller.h"

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* The length of the address, or -EINVAL. */
static int parse(union address *address, const char *host, uint16_t port)
{
    memset(address, 0, sizeof *address);
    if (host && inet_pton(AF_INET, host, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons(port);
        return sizeof address->v4;
    }
    address->v6.sin6_family = AF_INET6;
    address->v6.sin6_port = htons(port);
    if (!host)
        return sizeof address->v6; /* any, IPv4 included */
    return inet_pton(AF_INET6, host, &address->v6.sin6_addr) == 1 ? (int)sizeof address->v6 : -EINVAL;
}

static int make_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    weft__fd_opened(fd, WEFT__FD_NONBLOCK | WEFT__FD_STREAM);
    return fd;
}

static int bind_and_listen(int fd, const union address *address, int length, int backlog)
{
    int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, &address->any, (socklen_t)length) < 0 || listen(fd, backlog) < 0)
        return -errno;
    return 0;
}

int weft_listen(const char *host, uint16_t port, int backlog)
{
    union address address;
    int length = parse(&address, host, port);
    int fd, rc;

    if (length < 0)
        return length;
    fd = make_socket(address.any.sa_family);
    if (fd == -EAFNOSUPPORT && !host) {
        /* A machine without IPv6: any address means any IPv4 address. */
        length = parse(&address, "0.0.0.0", port);
        fd = make_socket(AF_INET);
    }
    if (fd < 0)
        return fd;
    rc = bind_and_listen(fd, &address, length, backlog);
    if (rc < 0) {
        weft_close(fd);
        return rc;
    }
    return fd;
}

int weft_dial(const char *host, uint16_t port)
{
    union address address;
    int length = host ? parse(&address, host, port) : -EINVAL;
    int on = 1;
    int fd, rc;

    if (length < 0)
        return length;
    fd = make_socket(address.any.sa_family);
    if (fd < 0)
        return fd;
    /* Whoever writes a request and waits for the reply loses 40 ms to Nagle's algorithm. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    rc = weft_connect(fd, &address.any, (socklen_t)length);
    if (rc < 0) {
        weft_close(fd);
        return rc;
    }
    return fd;
}

int weft_local_port(int fd)
{
    union address address;
    socklen_t length = sizeof address;

    if (getsockname(fd, &address.any, &length) < 0)
        return -errno;
    switch (address.any.sa_family) {
    case AF_INET:
        return ntohs(address.v4.sin_port);
    case AF_INET6:
        return ntohs(address.v6.sin6_port);
    default:
        return -EAFNOSUPPORT;
    }
}
