/* Addresses of sockets, and their text. No state; any thread. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/net.h>

/* ---- from text ---- */

static int parse_v4(weft_address *address, const char *text, uint16_t port)
{
    if (inet_pton(AF_INET, text, &address->to.v4.sin_addr) != 1)
        return -EINVAL;
    address->to.v4.sin_family = AF_INET;
    address->to.v4.sin_port = htons(port);
    address->length = sizeof address->to.v4;
    return 0;
}

/* "eth0" or "2". */
static int parse_scope(const char *text, uint32_t *scope)
{
    char *end;
    unsigned long number;

    *scope = if_nametoindex(text);
    if (*scope != 0)
        return 0;
    number = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || number > UINT32_MAX)
        return -ENODEV;
    *scope = (uint32_t)number;
    return 0;
}

static int parse_v6(weft_address *address, char *text, uint16_t port)
{
    char *scope = strchr(text, '%');

    if (scope)
        *scope++ = '\0';
    if (inet_pton(AF_INET6, text, &address->to.v6.sin6_addr) != 1)
        return -EINVAL;
    address->to.v6.sin6_family = AF_INET6;
    address->to.v6.sin6_port = htons(port);
    address->length = sizeof address->to.v6;
    return scope ? parse_scope(scope, &address->to.v6.sin6_scope_id) : 0;
}

/* The path, or after '@' the abstract name, which is not ended by a zero. */
static int parse_local(weft_address *address, const char *path)
{
    struct sockaddr_un *local = &address->to.local;
    size_t length = strlen(path);
    int is_abstract = path[0] == '@';

    if (length == 0)
        return -EINVAL;
    if (length + !is_abstract > sizeof local->sun_path)
        return -ENAMETOOLONG;
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, path, length);
    if (is_abstract)
        local->sun_path[0] = '\0';
    address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + !is_abstract);
    return 0;
}

static int parse_port(const char *text, uint16_t *port)
{
    unsigned long number = 0;

    if (!*text)
        return -EINVAL;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        number = number * 10 + (unsigned long)(*text - '0');
        if (number > UINT16_MAX)
            return -EINVAL;
    }
    *port = (uint16_t)number;
    return 0;
}

/* "[…]" or "[…]:port". */
static int parse_bracketed(weft_address *address, char *text, uint16_t port)
{
    char *end = strchr(text, ']');

    if (!end || (end[1] != '\0' && (end[1] != ':' || parse_port(end + 2, &port) < 0)))
        return -EINVAL;
    *end = '\0';
    return parse_v6(address, text + 1, port);
}

static int parse_internet(weft_address *address, char *text, uint16_t port)
{
    char *colon = strchr(text, ':');

    if (text[0] == '[')
        return parse_bracketed(address, text, port);
    if (colon && strchr(colon + 1, ':'))
        return parse_v6(address, text, port);
    if (colon) {
        if (parse_port(colon + 1, &port) < 0)
            return -EINVAL;
        *colon = '\0';
    }
    return parse_v4(address, text, port);
}

static int is_local(const char *text)
{
    return text[0] == '/' || text[0] == '@' || strncmp(text, "./", 2) == 0 || strncmp(text, "../", 3) == 0;
}

int weft_address_parse(weft_address *address, const char *text, uint16_t port)
{
    char copy[INET6_ADDRSTRLEN + IF_NAMESIZE + sizeof "[%]:65535"];
    size_t length = strlen(text);

    memset(address, 0, sizeof *address);
    if (strncmp(text, "unix:", 5) == 0)
        return parse_local(address, text + 5);
    if (is_local(text))
        return parse_local(address, text);
    if (length >= sizeof copy)
        return -EINVAL;
    memcpy(copy, text, length + 1);
    return parse_internet(address, copy, port);
}

/* ---- to text ---- */

static int fits(int length, size_t size)
{
    return length < 0 ? -EINVAL : (size_t)length < size ? length : -ENOSPC;
}

static int format_v4(const struct sockaddr_in *v4, char *text, size_t size)
{
    char number[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &v4->sin_addr, number, sizeof number);
    return fits(snprintf(text, size, "%s:%u", number, ntohs(v4->sin_port)), size);
}

static int format_v6(const struct sockaddr_in6 *v6, char *text, size_t size)
{
    char number[INET6_ADDRSTRLEN], scope[IF_NAMESIZE + 1] = "";

    inet_ntop(AF_INET6, &v6->sin6_addr, number, sizeof number);
    if (v6->sin6_scope_id != 0) {
        scope[0] = '%';
        if (!if_indextoname(v6->sin6_scope_id, scope + 1))
            snprintf(scope + 1, sizeof scope - 1, "%u", v6->sin6_scope_id);
    }
    return fits(snprintf(text, size, "[%s%s]:%u", number, scope, ntohs(v6->sin6_port)), size);
}

static int format_local(const weft_address *address, char *text, size_t size)
{
    const struct sockaddr_un *local = &address->to.local;
    size_t length = address->length - offsetof(struct sockaddr_un, sun_path);
    char path[sizeof local->sun_path + 1];

    if (address->length <= offsetof(struct sockaddr_un, sun_path))
        return fits(snprintf(text, size, "%s", ""), size);
    if (local->sun_path[0] == '\0')
        return fits(snprintf(text, size, "@%.*s", (int)length - 1, local->sun_path + 1), size);
    length = strnlen(local->sun_path, length < sizeof local->sun_path ? length : sizeof local->sun_path);
    memcpy(path, local->sun_path, length); /* it need not be ended by a zero */
    path[length] = '\0';
    return fits(snprintf(text, size, "%s%s", is_local(path) ? "" : "unix:", path), size);
}

int weft_address_format(const weft_address *address, char *text, size_t size)
{
    switch (address->to.any.sa_family) {
    case AF_INET:
        return format_v4(&address->to.v4, text, size);
    case AF_INET6:
        return format_v6(&address->to.v6, text, size);
    case AF_UNIX:
        return format_local(address, text, size);
    default:
        return -EAFNOSUPPORT;
    }
}

/* ---- what it says ---- */

int weft_address_port(const weft_address *address)
{
    switch (address->to.any.sa_family) {
    case AF_INET:
        return ntohs(address->to.v4.sin_port);
    case AF_INET6:
        return ntohs(address->to.v6.sin6_port);
    default:
        return -EAFNOSUPPORT;
    }
}

int weft_address_equal(const weft_address *a, const weft_address *b)
{
    if (a->to.any.sa_family != b->to.any.sa_family)
        return 0;
    switch (a->to.any.sa_family) {
    case AF_INET:
        return a->to.v4.sin_port == b->to.v4.sin_port && a->to.v4.sin_addr.s_addr == b->to.v4.sin_addr.s_addr;
    case AF_INET6:
        return a->to.v6.sin6_port == b->to.v6.sin6_port && a->to.v6.sin6_scope_id == b->to.v6.sin6_scope_id &&
               memcmp(&a->to.v6.sin6_addr, &b->to.v6.sin6_addr, sizeof a->to.v6.sin6_addr) == 0;
    default:
        return a->length == b->length && memcmp(&a->to, &b->to, a->length) == 0;
    }
}

/* ---- of a socket ---- */

static int address_of(int (*ask)(int, struct sockaddr *, socklen_t *), int fd, weft_address *address)
{
    memset(address, 0, sizeof *address);
    address->length = sizeof address->to;
    if (ask(fd, &address->to.any, &address->length) < 0)
        return -errno;
    return 0;
}

static int ask_local(int fd, struct sockaddr *to, socklen_t *length)
{
    return getsockname(fd, to, length);
}

static int ask_peer(int fd, struct sockaddr *to, socklen_t *length)
{
    return getpeername(fd, to, length);
}

int weft_local_address(int fd, weft_address *address)
{
    return address_of(ask_local, fd, address);
}

int weft_peer_address(int fd, weft_address *address)
{
    return address_of(ask_peer, fd, address);
}

int weft_local_port(int fd)
{
    weft_address address;
    int rc = weft_local_address(fd, &address);

    return rc < 0 ? rc : weft_address_port(&address);
}
