/*
 * Looking names up: getaddrinfo(3) and getnameinfo(3) in the blocking pool, in a lane of their own. Called by tasks.
 *
 * The lane is a semaphore for the whole process. A permit belongs to the call on the pool thread: it is taken before
 * the call is handed to the pool, and given back when the call is over or the pool has given it up unstarted; that
 * its task has left meanwhile changes nothing.
 *
 * A look-up is its task's before the call and after it; one that its task has left is dropped by the call.
 */
#include <weft/name.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <weft/blocking.h>
#include <weft/sync.h>

#include "io/last_error.h"
#include "runtime/debug.h"
#include "runtime/lock.h"
#include "runtime/park.h"
#include "runtime/runtime.h"

enum { LIMIT = 16 }; /* many times what one resolver answers at once, few threads */

/* ---- the lane ---- */

static struct {
    weft_sem permits;
    weft__lock lock;
    /* Under the lock. */
    unsigned limit; /* 0: nobody has come yet */
    unsigned debt;  /* permits that are not given back, since the limit was lowered */
} lane;

/* With the lock: how many permits are to be released once it has been left. */
static unsigned change_limit(unsigned limit)
{
    unsigned more = limit > lane.limit ? limit - lane.limit : 0, forgiven;

    lane.debt += limit < lane.limit ? lane.limit - limit : 0;
    lane.limit = limit;
    forgiven = more < lane.debt ? more : lane.debt;
    lane.debt -= forgiven;
    while (lane.debt > 0 && weft_sem_try_acquire(&lane.permits) == 0)
        lane.debt--;
    return more - forgiven;
}

static void release(unsigned permits)
{
    while (permits-- > 0)
        weft_sem_release(&lane.permits);
}

unsigned weft_name_limit(unsigned limit)
{
    unsigned before, more = 0;

    weft__lock_enter(&lane.lock);
    before = lane.limit ? lane.limit : LIMIT;
    if (limit > 0)
        more = change_limit(limit);
    weft__lock_leave(&lane.lock);
    release(more);
    return before;
}

/* The calls that hold permits are not here, and nobody holds the lock. */
static void after_fork_in_child(void)
{
    weft__lock_leave(&lane.lock);
    memset(&lane.permits, 0, sizeof lane.permits);
    lane.debt = 0;
    release(lane.limit);
}

static struct {
    pthread_once_t once;
    int rc;
} forks = {.once = PTHREAD_ONCE_INIT};

static void watch_forks(void)
{
    forks.rc = -pthread_atfork(NULL, NULL, after_fork_in_child);
}

/* Never more than half of a pool. */
static void open_lane(void)
{
    unsigned most = weft_runtime_current()->config.blocking_max / 2, more = 0;

    weft__lock_enter(&lane.lock);
    if (lane.limit == 0)
        more = change_limit(most == 0 ? 1 : most < LIMIT ? most : LIMIT);
    weft__lock_leave(&lane.lock);
    release(more);
}

static int enter_lane(void)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (!weft__coroutine_self())
        return weft__misused("looking a name up");
    pthread_once(&forks.once, watch_forks);
    if (forks.rc < 0)
        return forks.rc;
    open_lane();
    return weft_sem_acquire(&lane.permits);
}

static void leave_lane(void)
{
    bool swallowed;

    weft__lock_enter(&lane.lock);
    swallowed = lane.debt > 0;
    lane.debt -= swallowed;
    weft__lock_leave(&lane.lock);
    release(!swallowed);
}

/* ---- results ---- */

static int error_of(int code, int system_error)
{
    switch (code) {
    case 0:
        return 0;
    case EAI_SYSTEM:
        return system_error ? -system_error : -EIO;
    case EAI_AGAIN:
        return -EAGAIN;
    case EAI_NONAME:
#ifdef EAI_NODATA
    case EAI_NODATA:
#endif
#ifdef EAI_ADDRFAMILY
    case EAI_ADDRFAMILY:
#endif
        return -ENOENT;
    case EAI_FAMILY:
        return -EAFNOSUPPORT;
    case EAI_SOCKTYPE:
        return -ESOCKTNOSUPPORT;
    case EAI_SERVICE:
        return -EPROTONOSUPPORT;
    case EAI_MEMORY:
        return -ENOMEM;
    case EAI_OVERFLOW:
        return -ENOSPC;
    case EAI_BADFLAGS:
        return -EINVAL;
    default:
        return -EIO;
    }
}

/* ---- a look-up ---- */

struct lookup {
    int result;
    void (*perform)(struct lookup *lookup);

    /* Of getaddrinfo. */
    const char *host;
    const char *service;
    const struct addrinfo *hints;
    struct addrinfo hints_copy;
    struct addrinfo *found;

    /* Of getnameinfo. */
    struct sockaddr_storage address;
    socklen_t length;
    int flags;
    char host_found[NI_MAXHOST];
    char service_found[NI_MAXSERV];

    char text[];
};

static void free_lookup(struct lookup *lookup)
{
    if (lookup->found)
        freeaddrinfo(lookup->found);
    free(lookup);
}

static intptr_t look_up(void *arg)
{
    struct lookup *lookup = arg;

    lookup->perform(lookup);
    leave_lane();
    return 0;
}

/* Its task has left it. */
static void drop_lookup(intptr_t result, void *arg)
{
    if (result < 0) /* it never ran */
        leave_lane();
    free_lookup(arg);
}

/* 0: it is over. Else the look-up is gone. */
static int perform_in_lane(struct lookup *lookup)
{
    int rc = enter_lane();

    if (rc < 0) {
        free_lookup(lookup);
        return rc;
    }
    return (int)weft_blocking_abandonable(look_up, lookup, drop_lookup);
}

/* ---- names to addresses ---- */

static int addresses_of(const char *host, const char *service, const struct addrinfo *hints,
                        struct addrinfo **found)
{
    int code = getaddrinfo(host, service, hints, found);

    if (code != 0)
        *found = NULL;
    return error_of(code, weft__last_error());
}

static void perform_getaddrinfo(struct lookup *lookup)
{
    lookup->result = addresses_of(lookup->host, lookup->service, lookup->hints, &lookup->found);
}

static bool is_number(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* May the host be a literal address? Names may begin with a digit as well. */
static bool may_be_literal(const char *host)
{
    return (host[0] >= '0' && host[0] <= '9') || strchr(host, ':') != NULL;
}

/* What needs no look-up. True: *result says how it went. */
static bool look_up_at_once(const char *host, const char *service, const struct addrinfo *hints,
                            struct addrinfo **found, int *result)
{
    struct addrinfo literal = {.ai_family = AF_UNSPEC};

    if ((service && !is_number(service)) || (host && !may_be_literal(host)))
        return false;
    if (hints)
        literal = *hints;
    else
        literal.ai_flags = AI_V4MAPPED | AI_ADDRCONFIG; /* what getaddrinfo takes for NULL */
    literal.ai_flags |= AI_NUMERICSERV | (host ? AI_NUMERICHOST : 0);
    *result = addresses_of(host, service, &literal, found);
    return *result != -ENOENT || !host || (hints && (hints->ai_flags & AI_NUMERICHOST));
}

static char *copy_to(char **room, const char *text)
{
    char *copy = *room;

    if (!text)
        return NULL;
    *room = stpcpy(copy, text) + 1;
    return copy;
}

static struct lookup *new_lookup(const char *host, const char *service, const struct addrinfo *hints)
{
    size_t size = (host ? strlen(host) + 1 : 0) + (service ? strlen(service) + 1 : 0);
    struct lookup *lookup = calloc(1, sizeof *lookup + size);
    char *room;

    if (!lookup)
        return NULL;
    room = lookup->text;
    lookup->perform = perform_getaddrinfo;
    lookup->host = copy_to(&room, host);
    lookup->service = copy_to(&room, service);
    if (hints) {
        lookup->hints_copy = *hints;
        lookup->hints = &lookup->hints_copy;
    }
    return lookup;
}

int weft_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    struct lookup *lookup;
    int rc = weft__suspend_check();

    *found = NULL;
    if (rc < 0)
        return rc;
    if (!weft__coroutine_self())
        return weft__misused("weft_getaddrinfo");
    if (look_up_at_once(host, service, hints, found, &rc))
        return rc;
    lookup = new_lookup(host, service, hints);
    if (!lookup)
        return -ENOMEM;
    rc = perform_in_lane(lookup);
    if (rc < 0)
        return rc;
    rc = lookup->result;
    *found = lookup->found;
    lookup->found = NULL;
    free_lookup(lookup);
    return rc;
}

/* ---- addresses to names ---- */

static void perform_getnameinfo(struct lookup *lookup)
{
    int code =
        getnameinfo((struct sockaddr *)&lookup->address, lookup->length, lookup->host_found,
                    sizeof lookup->host_found, lookup->service_found, sizeof lookup->service_found, lookup->flags);

    lookup->result = error_of(code, weft__last_error());
}

static struct lookup *new_reverse_lookup(const struct sockaddr *address, socklen_t length, int flags)
{
    struct lookup *lookup = calloc(1, sizeof *lookup);

    if (!lookup)
        return NULL;
    lookup->perform = perform_getnameinfo;
    memcpy(&lookup->address, address, length);
    lookup->length = length;
    lookup->flags = flags;
    return lookup;
}

static int give_text(char *text, socklen_t size, const char *found)
{
    size_t length = strlen(found);

    if (!text || size == 0)
        return 0;
    if (length >= size)
        return -ENOSPC;
    memcpy(text, found, length + 1);
    return 0;
}

int weft_getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size,
                     char *service, socklen_t service_size, int flags)
{
    bool wants_service = service && service_size > 0;
    struct lookup *lookup;
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (!weft__coroutine_self())
        return weft__misused("weft_getnameinfo");
    if (length > sizeof lookup->address)
        return -EINVAL;
    if ((flags & NI_NUMERICHOST) && (!wants_service || (flags & NI_NUMERICSERV)))
        return error_of(getnameinfo(address, length, host, host_size, service, service_size, flags),
                        weft__last_error());
    lookup = new_reverse_lookup(address, length, flags);
    if (!lookup)
        return -ENOMEM;
    rc = perform_in_lane(lookup);
    if (rc < 0)
        return rc;
    rc = lookup->result;
    if (rc == 0)
        rc = give_text(host, host_size, lookup->host_found);
    if (rc == 0)
        rc = give_text(service, service_size, lookup->service_found);
    free_lookup(lookup);
    return rc;
}
