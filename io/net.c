/* Making sockets: listening, dialling an address, datagrams; their options. No state; any thread but for dialling. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <weft/net.h>

#include "io/last_error.h"
#include "io/net.h"
#include "runtime/poller.h"

/* ---- making ---- */

int weft__socket(int family, int type)
{
    int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -weft__last_error();
    weft__fd_opened(fd, WEFT__FD_NONBLOCK | (type == SOCK_STREAM ? WEFT__FD_STREAM_SOCKET : 0));
    return fd;
}

static int set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -weft__last_error() : 0;
}

static int is_internet(int family)
{
    return family == AF_INET || family == AF_INET6;
}

int weft__set_stream_options(int fd, int family, unsigned flags)
{
    int rc = 0;

    if (!is_internet(family))
        return 0;
    /* Whoever writes a request and waits for the reply loses 40 ms to Nagle's algorithm. */
    if (!(flags & WEFT_SOCKET_DELAY))
        rc = set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (rc == 0 && !(flags & WEFT_SOCKET_NO_KEEPALIVE))
        rc = set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    return rc;
}

/* What must be set before it is bound. */
static int set_before_bind(int fd, int family, unsigned flags)
{
    int rc = 0;

    if (flags & WEFT_SOCKET_REUSEPORT)
        rc = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (rc == 0 && (flags & WEFT_SOCKET_BROADCAST))
        rc = set(fd, SOL_SOCKET, SO_BROADCAST, 1);
    /* Whatever the system's default is. */
    if (rc == 0 && family == AF_INET6)
        rc = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !!(flags & WEFT_SOCKET_V6ONLY));
    if (rc == 0 && (flags & WEFT_SOCKET_FREEBIND) && is_internet(family))
        rc = set(fd, IPPROTO_IP, IP_FREEBIND, 1);
    return rc;
}

static int bind_to(int fd, const weft_address *address)
{
    return bind(fd, &address->to.any, address->length) < 0 ? -weft__last_error() : 0;
}

static int close_after(int fd, int rc)
{
    if (rc < 0) {
        weft_close(fd);
        return rc;
    }
    return fd;
}

/* ---- listening ---- */

/* Does nobody have this path any more? A datagram socket asks without being heard: one that listens is of the wrong
 * type for it (EPROTOTYPE). */
static int is_left_over(const weft_address *address)
{
    struct stat status;
    int fd, refused;

    if (address->to.any.sa_family != AF_UNIX || address->to.local.sun_path[0] == '\0' ||
        stat(address->to.local.sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return 0;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return 0;
    refused = connect(fd, &address->to.any, address->length) < 0 && weft__last_error() == ECONNREFUSED;
    close(fd);
    return refused;
}

static int bind_listener(int fd, const weft_address *address, unsigned flags)
{
    int family = address->to.any.sa_family, rc = set_before_bind(fd, family, flags);

    if (rc == 0 && is_internet(family))
        rc = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (rc == 0)
        rc = bind_to(fd, address);
    if (rc == -EADDRINUSE && is_left_over(address) && unlink(address->to.local.sun_path) == 0)
        rc = bind_to(fd, address);
    return rc;
}

int weft_listen_on(const weft_address *address, int backlog, unsigned flags)
{
    int family = address->to.any.sa_family, fd = weft__socket(family, SOCK_STREAM), rc;

    if (fd < 0)
        return fd;
    rc = bind_listener(fd, address, flags);
    /* Linux hands these options on to what is accepted. */
    if (rc == 0)
        rc = weft__set_stream_options(fd, family, flags);
    /* The kernel cuts it down to net.core.somaxconn. */
    if (rc == 0 && listen(fd, backlog > 0 ? backlog : INT_MAX) < 0)
        rc = -weft__last_error();
    return close_after(fd, rc);
}

int weft_listen(const char *host, uint16_t port, int backlog)
{
    weft_address address;
    int rc = weft_address_parse(&address, host ? host : "::", port), fd;

    if (rc < 0)
        return rc;
    fd = weft_listen_on(&address, backlog, 0);
    if (fd == -EAFNOSUPPORT && !host) {
        /* A machine without IPv6: any address means any IPv4 address. */
        weft_address_parse(&address, "0.0.0.0", port);
        fd = weft_listen_on(&address, backlog, 0);
    }
    return fd;
}

/* ---- datagrams ---- */

static int bind_datagram(const weft_address *address, unsigned flags)
{
    int family = address->to.any.sa_family, fd = weft__socket(family, SOCK_DGRAM), rc;

    if (fd < 0)
        return fd;
    rc = set_before_bind(fd, family, flags);
    if (rc == 0)
        rc = bind_to(fd, address);
    return close_after(fd, rc);
}

int weft_bind_datagram(const weft_address *address, unsigned flags)
{
    weft_address any;
    int fd;

    if (address)
        return bind_datagram(address, flags);
    weft_address_parse(&any, "::", 0);
    fd = bind_datagram(&any, flags);
    if (fd == -EAFNOSUPPORT) {
        weft_address_parse(&any, "0.0.0.0", 0);
        fd = bind_datagram(&any, flags);
    }
    return fd;
}

/* ---- dialling ---- */

int weft__dialling_socket(const weft_address *address, const weft_address *from, unsigned flags)
{
    int family = address->to.any.sa_family, fd = weft__socket(family, SOCK_STREAM), rc;

    if (fd < 0)
        return fd;
    rc = weft__set_stream_options(fd, family, flags);
    if (rc == 0 && from)
        rc = bind_to(fd, from);
    return close_after(fd, rc);
}

int weft_dial_address(const weft_address *address, const weft_address *from, unsigned flags)
{
    int fd = weft__dialling_socket(address, from, flags);

    return fd < 0 ? fd : close_after(fd, weft_connect(fd, &address->to.any, address->length));
}

/* ---- options ---- */

int weft_set_nodelay(int fd, int on)
{
    return set(fd, IPPROTO_TCP, TCP_NODELAY, !!on);
}

int weft_set_keepalive(int fd, int idle, int interval, int count)
{
    int rc = set(fd, SOL_SOCKET, SO_KEEPALIVE, idle >= 0);

    if (rc == 0 && idle > 0)
        rc = set(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
    if (rc == 0 && interval > 0)
        rc = set(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
    if (rc == 0 && count > 0)
        rc = set(fd, IPPROTO_TCP, TCP_KEEPCNT, count);
    return rc;
}

int weft_set_abort(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) < 0 ? -weft__last_error() : 0;
}
