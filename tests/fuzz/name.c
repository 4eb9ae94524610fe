/*
 * Literal hosts and services (io/name.c): what weft_getaddrinfo answers without a look-up is what getaddrinfo(3) says; and
 * the way back. Asks no name server: a host is only looked up once it is known to be a literal address.
 * Input: family, type, flags, a line with the host, the service.
 */
#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>

#include "tests/fuzz/tasks.h"

struct question {
    const char *host, *service; /* NULL: none */
    struct addrinfo hints;
};

static int is_same(const struct addrinfo *a, const struct addrinfo *b)
{
    for (; a && b; a = a->ai_next, b = b->ai_next) {
        if (a->ai_family != b->ai_family || a->ai_socktype != b->ai_socktype || a->ai_protocol != b->ai_protocol)
            return 0;
        if (a->ai_addrlen != b->ai_addrlen || memcmp(a->ai_addr, b->ai_addr, a->ai_addrlen) != 0)
            return 0;
        if (!a->ai_canonname != !b->ai_canonname || (a->ai_canonname && strcmp(a->ai_canonname, b->ai_canonname)))
            return 0;
    }
    return !a && !b;
}

/* There and back. */
static void check_address(const struct addrinfo *found)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_family = found->ai_family,
                             .ai_socktype = found->ai_socktype,
                             .ai_protocol = found->ai_protocol},
                    *again;
    char host[NI_MAXHOST], service[NI_MAXSERV];

    must(weft_getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof host, service, sizeof service,
                          NI_NUMERICHOST | NI_NUMERICSERV) == 0);
    /* Of raw sockets there are no services. */
    must(weft_getaddrinfo(host, found->ai_socktype == SOCK_RAW ? NULL : service, &hints, &again) == 0);
    must(again->ai_addrlen == found->ai_addrlen);
    must(memcmp(again->ai_addr, found->ai_addr, found->ai_addrlen) == 0);
    freeaddrinfo(again);
    must(weft_getnameinfo(found->ai_addr, found->ai_addrlen, host, (socklen_t)strlen(host), NULL, 0,
                          NI_NUMERICHOST) == -ENOSPC);
}

/* 1: it is answered. */
static int compare(const struct question *question, const struct addrinfo *hints)
{
    struct addrinfo *expected = NULL, *found;
    int code = getaddrinfo(question->host, question->service, hints, &expected);
    int rc = weft_getaddrinfo(question->host, question->service, hints, &found);

    must((code == 0) == (rc == 0) && weft_is_error(rc) == (rc != 0));
    if (code == EAI_NONAME)
        must(rc == -ENOENT);
    if (rc < 0) {
        must(found == NULL);
        return 0;
    }
    must(is_same(expected, found));
    check_address(found);
    freeaddrinfo(expected);
    freeaddrinfo(found);
    return 1;
}

static intptr_t ask(void *arg)
{
    const struct question *question = arg;
    struct addrinfo hints = question->hints;

    hints.ai_flags |= AI_NUMERICHOST;
    if (!compare(question, &hints))
        return 0;
    compare(question, &question->hints);
    hints = (struct addrinfo){.ai_flags = AI_NUMERICHOST};
    if (compare(question, &hints))
        compare(question, NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX};
    static const int types[] = {0, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, 77};
    static const int flags[] = {AI_PASSIVE, AI_CANONNAME, AI_V4MAPPED, AI_ALL, AI_NUMERICSERV, AI_ADDRCONFIG};
    struct fuzz_input input = {data, size};
    struct question question = {0};
    uint8_t bits;
    char *host, *service;

    question.hints.ai_family = families[fuzz_byte(&input) % 4];
    question.hints.ai_socktype = types[fuzz_byte(&input) % 5];
    bits = fuzz_byte(&input);
    for (int i = 0; i < 6; i++)
        question.hints.ai_flags |= bits >> i & 1 ? flags[i] : 0;
    host = fuzz_line(&input);
    service = fuzz_text(&input, input.size);
    question.host = *host ? host : NULL;
    question.service = *service ? service : NULL;
    fuzz_run(ask, &question);
    free(host);
    free(service);
    return 0;
}
