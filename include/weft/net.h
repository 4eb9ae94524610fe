/*
 * Sockets: addresses, listening, UDP, Unix sockets, options.
 *
 * What makes a socket returns a descriptor (close-on-exec, non-blocking), to be closed with weft_close, or -errno.
 * Any thread; not suspension points, unless said otherwise. Host names are for <weft/name.h>: here addresses are
 * literal.
 */
#ifndef WEFT_NET_H
#define WEFT_NET_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <weft/base.h>
#include <weft/fd.h>

WEFT_BEGIN_DECLS

/* ---- addresses ---- */

/* An address of any of the families below, with its length. */
typedef struct weft_address {
    socklen_t length;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
        struct sockaddr_storage storage;
    } to;
} weft_address;

/* The longest text of weft_address_format, with its end. */
enum { WEFT_ADDRESS_TEXT = 120 };

/*
 * A literal IPv4 or IPv6 address ("127.0.0.1", "::1", "fe80::1%eth0"), with a port of its own ("127.0.0.1:80",
 * "[::1]:80") or `port`; "/path", "./path" or "unix:path" a Unix socket's, "@name" one in the abstract name space. 0,
 * -EINVAL, -ENAMETOOLONG, -ENODEV for an interface that there is not.
 */
WEFT_API int weft_address_parse(weft_address *address, const char *text, uint16_t port);

/* The text of an address: "127.0.0.1:80", "[::1]:80", "/path", "unix:path", "@name", "" for a Unix socket without a name.
 * What weft_address_parse made, it makes of the text again. Its length, -ENOSPC, -EAFNOSUPPORT. */
WEFT_API int weft_address_format(const weft_address *address, char *text, size_t size);

/* The port, or -EAFNOSUPPORT. */
WEFT_API int weft_address_port(const weft_address *address);

/* 1 if they are the same, else 0. */
WEFT_API int weft_address_equal(const weft_address *a, const weft_address *b);

/* What a socket is bound to, what it is connected to. 0 or -errno. */
WEFT_API int weft_local_address(int fd, weft_address *address);
WEFT_API int weft_peer_address(int fd, weft_address *address);

/* ---- listening and UDP ---- */

enum {
    /* Others may bind the same address, if they set it too; the kernel spreads connections over them. */
    WEFT_SOCKET_REUSEPORT = 1u << 0,
    WEFT_SOCKET_V6ONLY = 1u << 1,       /* an IPv6 socket is not for IPv4 too */
    WEFT_SOCKET_DELAY = 1u << 2,        /* without TCP_NODELAY */
    WEFT_SOCKET_NO_KEEPALIVE = 1u << 3, /* without SO_KEEPALIVE */
    WEFT_SOCKET_BROADCAST = 1u << 4,    /* may send to broadcast addresses */
    WEFT_SOCKET_FREEBIND = 1u << 5      /* the address need not be this machine's yet */
};

/*
 * A listening socket, TCP or Unix. `backlog`: how many connections may wait to be accepted; 0: as many as the kernel
 * allows. A Unix socket's path that is left over from a process that has ended is removed; it is never another's who
 * listens (-EADDRINUSE). The path stays when the socket is closed: unlink(2) it.
 */
WEFT_API int weft_listen_on(const weft_address *address, int backlog, unsigned flags);

/* A UDP socket, or a Unix datagram socket, bound to an address. A NULL address: UDP, any port of IPv6 and IPv4. */
WEFT_API int weft_bind_datagram(const weft_address *address, unsigned flags);

/*
 * A stream connection to an address; `from`, if not NULL, is what it is to be bound to. The addresses of a Unix
 * socket include one whose backlog is full: that waits. Task; suspension point.
 */
WEFT_API int weft_dial_address(const weft_address *address, const weft_address *from, unsigned flags);

/* ---- options of a socket ---- */

/* 0 or -errno. */
WEFT_API int weft_set_nodelay(int fd, int on);

/*
 * Probe a connection that has been silent for `idle` seconds, every `interval` seconds; it has failed (-ETIMEDOUT
 * from its calls) when `count` probes were not answered. 0 leaves what the system has set; idle < 0 switches it off.
 */
WEFT_API int weft_set_keepalive(int fd, int idle, int interval, int count);

/* When it is closed the connection is reset: nothing is sent any more, the peer gets ECONNRESET. */
WEFT_API int weft_set_abort(int fd);

/* The processes that connected a Unix socket, as they were then. */
typedef struct weft_peer {
    pid_t pid;
    uid_t uid;
    gid_t gid;
} weft_peer;

WEFT_API int weft_peer_credentials(int fd, weft_peer *peer);

/* ---- descriptors over Unix sockets ---- */

enum { WEFT_FDS_MAX = 253 };

/*
 * Send bytes (at least one) and with them descriptors; they stay the sender's. Bytes sent: the descriptors went with
 * the first of them. -EINVAL for more than WEFT_FDS_MAX, or no bytes. Suspension point.
 */
WEFT_API ssize_t weft_send_fds(int fd, const void *bytes, size_t size, const int *fds, size_t count);

/*
 * Receive bytes and the descriptors that came with them, close-on-exec. *count: room in fds[], then how many there
 * are. Bytes, 0 at the end. -EMSGSIZE: there was no room for all (or the process has none): none is left open, the
 * bytes are lost. Suspension point.
 */
WEFT_API ssize_t weft_recv_fds(int fd, void *bytes, size_t size, int *fds, size_t *count);

/* Two connected Unix sockets (SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET). 0 or -errno. */
WEFT_API int weft_socket_pair(int type, int fds[2]);

WEFT_END_DECLS

#endif
