/*
 * Addresses and their text (io/address.c), against inet_pton(3) and getaddrinfo(3) and against each other.
 * Input: two bytes of a port, how much room the text is given, the text of an address.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <weft/net.h>

#include "tests/fuzz/fuzz.h"

static int is_of_socket(const char *text)
{
    return text[0] == '/' || text[0] == '@' || strncmp(text, "./", 2) == 0 || strncmp(text, "../", 3) == 0 ||
           strncmp(text, "unix:", 5) == 0;
}

/* What is a literal address for the system is the same one for weft, with the port that was given. */
static void agree_with_inet_pton(const weft_address *address, int rc, const char *text, uint16_t port)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, text, &v4) == 1) {
        must(rc == 0 && address->to.any.sa_family == AF_INET && address->length == sizeof address->to.v4);
        must(memcmp(&address->to.v4.sin_addr, &v4, sizeof v4) == 0 && weft_address_port(address) == port);
    }
    if (inet_pton(AF_INET6, text, &v6) == 1) {
        must(rc == 0 && address->to.any.sa_family == AF_INET6 && address->length == sizeof address->to.v6);
        must(memcmp(&address->to.v6.sin6_addr, &v6, sizeof v6) == 0 && weft_address_port(address) == port);
        must(address->to.v6.sin6_scope_id == 0);
    }
}

/* Host and port of the canonical text "host:port" or "[host]:port", as getaddrinfo reads them. */
static void agree_with_getaddrinfo(const weft_address *address, char *text)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
    char *port = strrchr(text, ':');
    weft_address theirs = {0};

    must(port != NULL);
    *port++ = '\0';
    if (*text == '[') {
        must(port[-2] == ']');
        port[-2] = '\0';
        text++;
    }
    /* An interface's name it only takes where an address needs one. */
    if (getaddrinfo(text, port, &hints, &found) != 0) {
        must(address->to.any.sa_family == AF_INET6 && address->to.v6.sin6_scope_id != 0);
        must(!IN6_IS_ADDR_LINKLOCAL(&address->to.v6.sin6_addr) &&
             !IN6_IS_ADDR_MC_LINKLOCAL(&address->to.v6.sin6_addr));
        return;
    }
    must(found->ai_next == NULL && found->ai_addrlen == address->length);
    memcpy(&theirs.to, found->ai_addr, found->ai_addrlen);
    theirs.length = found->ai_addrlen;
    must(weft_address_equal(address, &theirs) == 1);
    freeaddrinfo(found);
}

static void check_local(const weft_address *address)
{
    must(address->length > offsetof(struct sockaddr_un, sun_path)); /* "@" alone is a name */
    must(address->length <= sizeof(struct sockaddr_un));
    must(weft_address_port(address) == -EAFNOSUPPORT);
}

static void check_text(const weft_address *address, const char *text, int length, size_t room)
{
    char *small = fuzz_copy((const uint8_t *)"", 0);
    int rc;

    small = realloc(small, room + 1);
    must(small != NULL);
    rc = weft_address_format(address, small, room);
    if ((size_t)length < room)
        must(rc == length && strcmp(small, text) == 0);
    else
        must(rc == -ENOSPC);
    if (room > 0)
        must(memchr(small, '\0', room) != NULL);
    free(small);
}

static void check_parsed(const weft_address *address, size_t room)
{
    char text[WEFT_ADDRESS_TEXT];
    weft_address again;
    int length = weft_address_format(address, text, sizeof text);

    must(length > 0 && (size_t)length < sizeof text && strlen(text) == (size_t)length);
    must(weft_address_parse(&again, text, 1) == 0);
    must(weft_address_equal(address, &again) == 1);
    must(weft_address_equal(&again, address) == 1);
    check_text(address, text, length, room);
    if (address->to.any.sa_family == AF_UNIX)
        check_local(address);
    else
        agree_with_getaddrinfo(address, text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint16_t port = fuzz_byte(&input);
    size_t room;
    char *text;
    weft_address address;
    int rc;

    port = (uint16_t)(port << 8 | fuzz_byte(&input));
    room = fuzz_byte(&input);
    text = fuzz_text(&input, input.size);
    rc = weft_address_parse(&address, text, port);
    must(rc == 0 || rc == -EINVAL || rc == -ENODEV || rc == -ENAMETOOLONG);
    if (is_of_socket(text))
        must(rc < 0 || address.to.any.sa_family == AF_UNIX);
    else
        agree_with_inet_pton(&address, rc, text, port);
    if (rc == 0)
        check_parsed(&address, room);
    free(text);
    return 0;
}
