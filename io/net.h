/* Making sockets: what dialling shares (net.c, dial.c). Any thread. */
#ifndef WEFT_IO_NET_H
#define WEFT_IO_NET_H

#include <weft/net.h>

/* A non-blocking socket that weft knows as new, or -errno. */
int weft__socket(int family, int type);

/* TCP_NODELAY and SO_KEEPALIVE, unless the flags say otherwise; nothing for other families. 0 or -errno. */
int weft__set_stream_options(int fd, int family, unsigned flags);

/* A socket that is about to be connected to the address, or -errno. */
int weft__dialling_socket(const weft_address *address, const weft_address *from, unsigned flags);

#endif
