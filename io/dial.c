/*
 * Connecting to a host that may have several addresses, as RFC 8305 ("happy eyeballs") has it. Called by tasks.
 *
 * All attempts are made by the calling task: connecting does not block, so a race is a handful of sockets and one
 * select over them and over the time at which the next one starts. Whatever ends the race, the sockets that did not
 * win are closed by the end of the call.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/name.h>
#include <weft/scope.h>
#include <weft/select.h>
#include <weft/time.h>

#include "io/attempt.h"
#include "io/net.h"
#include "runtime/clock.h"

/* RFC 8305, 5 and 8: "a recommended value of 250 milliseconds". */
#define STAGGER WEFT_MS(250)

struct race {
    const weft_address *addresses;
    size_t count;
    weft_dial_options *options;
    size_t started; /* attempts, in the order of the addresses */
    size_t live;    /* attempts that have not ended */
    int64_t began;
    int64_t due;      /* when the next one starts if nothing happens */
    int error;        /* the most telling so far */
    weft_case *cases; /* one for each address: its socket, while it connects; then the time */
    int64_t *starts;
};

/* ---- errors ---- */

/* How much an error says of the host: what this machine lacks or refuses by itself, nothing. */
static int telling(int error)
{
    static const int least_first[] = {0,           EMFILE,       ENFILE,       ENOMEM,
                                      ENOBUFS,     EINVAL,       EAFNOSUPPORT, EADDRNOTAVAIL,
                                      ENETUNREACH, EHOSTUNREACH, ETIMEDOUT};

    for (size_t i = 0; i < sizeof least_first / sizeof *least_first; i++)
        if (-error == least_first[i])
            return (int)i;
    return error == -ECONNREFUSED ? 100 : 50;
}

static void note(struct race *race, size_t i, int result, int64_t now)
{
    weft_dial_options *options = race->options;

    if (i >= options->attempts_room || !options->attempts)
        return;
    options->attempts[i] = (weft_dial_attempt){.address = race->addresses[i],
                                               .error = result,
                                               .at = race->starts[i] - race->began,
                                               .took = now - race->starts[i]};
}

/* It has failed: the next one need not wait for its time. */
static void lose(struct race *race, size_t i, int error)
{
    int64_t now = weft__clock_now();

    note(race, i, error, now);
    if (telling(error) > telling(race->error))
        race->error = error;
    race->due = now;
}

/* ---- attempts ---- */

static int connect_now(int fd, const weft_address *address)
{
    int rc;

    do
        rc = (int)weft__result_of(connect(fd, &address->to.any, address->length));
    while (rc == -EINTR);
    return rc;
}

static int outcome_of(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? -weft__last_error() : -error;
}

/* A descriptor that is connected already, or -EINPROGRESS: go on. */
static int start_next(struct race *race)
{
    size_t i = race->started++;
    const weft_address *address = &race->addresses[i];
    int64_t stagger = race->options->stagger > 0 ? race->options->stagger : STAGGER;
    int fd, rc;

    race->starts[i] = weft__clock_now();
    if (i == 0)
        race->began = race->starts[0];
    race->options->attempts_made = race->started;
    fd = weft__dialling_socket(address, race->options->from, race->options->flags);
    rc = fd < 0 ? fd : connect_now(fd, address);
    if (rc == 0) {
        note(race, i, 0, weft__clock_now());
        return fd;
    }
    if (rc != -EINPROGRESS) {
        if (fd >= 0)
            weft_close(fd);
        lose(race, i, rc);
        return -EINPROGRESS;
    }
    race->cases[i] = (weft_case)WEFT_CASE_POLL(fd, POLLOUT);
    race->live++;
    race->due = stagger < WEFT_FOREVER - race->starts[i] ? race->starts[i] + stagger : WEFT_FOREVER;
    return -EINPROGRESS;
}

/* As start_next, of an attempt whose socket has something to say. */
static int finish(struct race *race, size_t i)
{
    weft_case *one = &race->cases[i];
    int fd = one->fd, rc = one->result < 0 ? (int)one->result : outcome_of(fd);

    one->kind = WEFT_CASE_KIND_NONE;
    race->live--;
    if (rc == 0) {
        note(race, i, 0, weft__clock_now());
        return fd;
    }
    weft_close(fd);
    lose(race, i, rc);
    return -EINPROGRESS;
}

/* As start_next; or what interrupted the wait. */
static int wait_for_one(struct race *race)
{
    weft_case *timer = &race->cases[race->count];
    int rc;

    timer->kind =
        race->started < race->count && race->due != WEFT_FOREVER ? WEFT_CASE_KIND_AT : WEFT_CASE_KIND_NONE;
    timer->time = race->due;
    rc = weft_select(race->cases, race->count + 1);
    if (rc < 0)
        return rc;
    return (size_t)rc == race->count ? -EINPROGRESS : finish(race, (size_t)rc);
}

static void close_losers(struct race *race, int error)
{
    int64_t now = weft__clock_now();

    for (size_t i = 0; i < race->started; i++)
        if (race->cases[i].kind == WEFT_CASE_KIND_POLL) {
            weft_close(race->cases[i].fd);
            note(race, i, error, now);
        }
}

static int run(struct race *race)
{
    int rc = -EINPROGRESS;

    while (rc == -EINPROGRESS) {
        bool may_start = race->started < race->count;

        if (may_start && (race->live == 0 || weft__clock_now() >= race->due))
            rc = start_next(race);
        else if (race->live > 0)
            rc = wait_for_one(race);
        else
            rc = race->error;
    }
    close_losers(race, rc >= 0 ? -ECANCELED : -EINPROGRESS);
    return rc;
}

static int dial_any(const weft_address *addresses, size_t count, weft_dial_options *options)
{
    struct race race = {.addresses = addresses, .count = count, .options = options};
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (!weft__coroutine_self())
        return weft__misused("weft_dial_any");
    race.cases = calloc(count + 1, sizeof *race.cases);
    race.starts = calloc(count, sizeof *race.starts);
    rc = race.cases && race.starts ? run(&race) : -ENOMEM;
    free(race.cases);
    free(race.starts);
    return rc;
}

/* ---- hosts ---- */

static bool is_wanted(int family, const weft_dial_options *options)
{
    return (family == AF_INET || family == AF_INET6) && (options->family == 0 || options->family == family);
}

/* The next of this family (or, `other`, of any other) from *list on. */
static const struct addrinfo *next_of(const struct addrinfo *list, int family, bool other,
                                      const weft_dial_options *options)
{
    while (list && (!is_wanted(list->ai_family, options) || (list->ai_family == family) == other))
        list = list->ai_next;
    return list;
}

static void put(weft_address *address, const struct addrinfo *from)
{
    memset(address, 0, sizeof *address);
    address->length = from->ai_addrlen;
    memcpy(&address->to, from->ai_addr, from->ai_addrlen);
}

/* In their order, but with the families taking turns. How many. */
static size_t interleave(weft_address *addresses, const struct addrinfo *list, const weft_dial_options *options)
{
    const struct addrinfo *first = list, *other = list;
    size_t n = 0;
    int family;

    while (first && !is_wanted(first->ai_family, options))
        first = first->ai_next;
    if (!first)
        return 0;
    family = first->ai_family;
    other = next_of(list, family, true, options);
    while (first || other) {
        if (first) {
            put(&addresses[n++], first);
            first = next_of(first->ai_next, family, false, options);
        }
        if (other) {
            put(&addresses[n++], other);
            other = next_of(other->ai_next, family, true, options);
        }
    }
    return n;
}

static size_t length_of(const struct addrinfo *list)
{
    size_t n = 0;

    for (; list; list = list->ai_next)
        n++;
    return n;
}

static int dial_list(const struct addrinfo *list, weft_dial_options *options)
{
    weft_address *addresses = calloc(length_of(list), sizeof *addresses);
    size_t count;
    int rc;

    if (!addresses)
        return -ENOMEM;
    count = interleave(addresses, list, options);
    rc = count > 0 ? dial_any(addresses, count, options) : -ENOENT;
    free(addresses);
    return rc;
}

static int dial_name(const char *host, uint16_t port, weft_dial_options *options)
{
    struct addrinfo hints = {
        .ai_family = options->family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV};
    struct addrinfo *list;
    char service[8];
    int rc;

    snprintf(service, sizeof service, "%u", port);
    rc = weft_getaddrinfo(host, service, &hints, &list);
    if (rc < 0)
        return rc;
    rc = dial_list(list, options);
    freeaddrinfo(list);
    return rc;
}

/* A literal address without a port of its own. */
static bool is_literal(weft_address *address, const char *host, uint16_t port)
{
    return weft_address_parse(address, host, port) == 0 && address->to.any.sa_family != AF_UNIX &&
           weft_address_port(address) == port;
}

static int dial(const char *host, uint16_t port, weft_dial_options *options)
{
    weft_address address;

    if (!is_literal(&address, host, port))
        return dial_name(host, port, options);
    if (!is_wanted(address.to.any.sa_family, options))
        return -ENOENT;
    return dial_any(&address, 1, options);
}

/* ---- the calls ---- */

static const weft_dial_options defaults = WEFT_DIAL_DEFAULT;

static int begin_dialling(weft_dial_options **options, weft_dial_options *own, weft_timeout *scope)
{
    if (!*options) {
        *own = defaults;
        *options = own;
    }
    (*options)->attempts_made = 0;
    return (*options)->timeout > 0 ? weft_timeout_begin(scope, (*options)->timeout) : 0;
}

static int end_dialling(const weft_dial_options *options, weft_timeout *scope, int rc)
{
    if (options->timeout > 0)
        weft_timeout_end(scope);
    return rc;
}

int weft_dial_with(const char *host, uint16_t port, weft_dial_options *options)
{
    weft_dial_options own;
    weft_timeout scope;
    int rc;

    /* No name has a blank in it: not worth a look-up. */
    if (!host || !*host || strpbrk(host, " \t\r\n"))
        return -EINVAL;
    rc = begin_dialling(&options, &own, &scope);
    return rc < 0 ? rc : end_dialling(options, &scope, dial(host, port, options));
}

int weft_dial_any(const weft_address *addresses, size_t count, weft_dial_options *options)
{
    weft_dial_options own;
    weft_timeout scope;
    int rc;

    if (count == 0)
        return -EINVAL;
    rc = begin_dialling(&options, &own, &scope);
    return rc < 0 ? rc : end_dialling(options, &scope, dial_any(addresses, count, options));
}

int weft_dial(const char *host, uint16_t port)
{
    weft_address address;

    if (host && is_literal(&address, host, port))
        return weft_dial_address(&address, NULL, 0);
    return weft_dial_with(host, port, NULL);
}
