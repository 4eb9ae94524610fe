/*
 * Names: looking them up, and connecting to them.
 *
 * getaddrinfo(3) and getnameinfo(3) block, for seconds if a name server is silent. Their calls run in the blocking
 * pool, but in a lane of their own: at most so many at a time (weft_name_limit), so that slow names cannot keep files
 * and other libraries from the pool's threads. Whoever gives up waiting leaves at once; the abandoned call keeps its
 * place in the lane until it is over. What is a literal address already never goes there.
 */
#ifndef WEFT_NAME_H
#define WEFT_NAME_H

#include <weft/base.h>
#include <weft/net.h>

WEFT_BEGIN_DECLS

struct addrinfo;

/*
 * As getaddrinfo(3). *found is to be freed with freeaddrinfo(3). 0, or -errno: -ENOENT (no such name, or no address
 * of this kind), -EAGAIN (the name server did not answer: try again), -EIO (it failed), -ENAMETOOLONG, -EAFNOSUPPORT,
 * -ESOCKTNOSUPPORT, -EPROTONOSUPPORT (no such service), -EINVAL, -ENOMEM; -ECANCELED, -ETIMEDOUT. Task; suspension
 * point.
 */
WEFT_API int weft_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                              struct addrinfo **found);

/* As getnameinfo(3); with NI_NUMERICHOST it does not wait. 0, or as weft_getaddrinfo; -ENOSPC: there is not room
 * enough. Task; suspension point. */
WEFT_API int weft_getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size,
                              char *service, socklen_t service_size, int flags);

/*
 * At most this many look-ups at a time in the process, those that were abandoned included; the others wait in order.
 * 0 asks only. Returns what it was before: 16 unless it was changed. Any thread; not a suspension point.
 */
WEFT_API unsigned weft_name_limit(unsigned limit);

/* One attempt to connect, for who wants to know. */
typedef struct weft_dial_attempt {
    weft_address address;
    int error;  /* 0: it won; -errno: it failed; -ECANCELED: another was first; -EINPROGRESS: the caller gave up */
    int64_t at; /* when it began, in ns from the first attempt on */
    int64_t took; /* ns until it ended */
} weft_dial_attempt;

/* Zeroed (or WEFT_DIAL_DEFAULT) means the defaults. */
typedef struct weft_dial_options {
    unsigned flags;           /* WEFT_SOCKET_DELAY, WEFT_SOCKET_NO_KEEPALIVE */
    int family;               /* AF_INET or AF_INET6 only; 0: both */
    int64_t stagger;          /* ns until the next address is tried besides; 0: 250 ms; WEFT_FOREVER: one by one */
    int64_t timeout;          /* ns for all together, the look-up included; 0: none */
    const weft_address *from; /* what to bind to, or NULL */
    weft_dial_attempt *attempts; /* room to tell about the attempts, or NULL … */
    size_t attempts_room;        /* … and for how many */
    size_t attempts_made;        /* set: how many there were */
} weft_dial_options;

#define WEFT_DIAL_DEFAULT      \
    {                          \
        0, 0, 0, 0, 0, 0, 0, 0 \
    }

/*
 * A TCP connection to a host, by name or literal address. If the name has several addresses they are tried in the
 * order of getaddrinfo(3) with the families taking turns, the next one whenever the last has failed or has been tried
 * for `stagger`; the first to connect wins and the others are closed (RFC 8305). A descriptor. If all fail: the error
 * that tells most (refused before timed out, before unreachable, before what this machine itself lacks). -ETIMEDOUT
 * also when `timeout` is over. NULL options are the defaults. Task; suspension point.
 */
WEFT_API int weft_dial_with(const char *host, uint16_t port, weft_dial_options *options);

/* The same with addresses, in this order: for who looks names up by himself. */
WEFT_API int weft_dial_any(const weft_address *addresses, size_t count, weft_dial_options *options);

WEFT_END_DECLS

#endif
