/*
 * Signals as streams (weft/signal.h). Opening and closing: any thread, under `table.lock`. Reading: tasks. The handler:
 * whatever thread the kernel chooses, at any moment; it touches nothing but the atomics of the table.
 *
 * The handler counts, then adds to an eventfd on which all readers wait, and which nobody reads: each addition is an
 * edge, which wakes everybody who waits (as poller.c's own wake-ups do). A stream remembers how many it has handed out;
 * what is missing to the count is pending. No wake-up is lost: a reader notes what the event loop knows of the eventfd,
 * then looks at the counts, then waits for an event that it has not noted; the handler does it in the other order.
 *
 * The eventfd is closed with the last stream, when a handler may still run on another thread, and the number soon be
 * another's. So a handler says that it is inside before it reads the number, and the closer takes the number away
 * before it waits until nobody is inside (all seq_cst: one of the two sees the other).
 *
 * A child of fork(2) gets the earlier dispositions back at once. The streams it has inherited are dead.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <weft/signal.h>
#include <weft/time.h>

#include "runtime/debug.h"
#include "runtime/fork.h"
#include "runtime/lock.h"
#include "runtime/park.h"
#include "runtime/poller.h"

enum { SIGNALS = 64 }; /* numbers 1 to 64 on Linux */

struct followed {
    int number;
    uint64_t handed_out;
};

struct weft_signals {
    uint32_t forks; /* of the process that it belongs to */
    _Atomic uint32_t references;
    _Atomic bool closed;
    weft__lock lock; /* over what follows */
    uint32_t next;   /* where to look first, so that one signal cannot keep another from being read */
    uint32_t count;
    struct followed followed[SIGNALS];
};

static struct {
    pthread_mutex_t lock; /* over all but the atomics */
    bool watches_forks;
    uint32_t streams; /* not freed yet: while there are any the eventfd is open */
    uint32_t users[SIGNALS + 1];
    struct sigaction previous[SIGNALS + 1];

    _Atomic uint64_t counts[SIGNALS + 1]; /* delivered; written by handlers */
    _Atomic int eventfd;                  /* -1: none; read by handlers */
    _Atomic uint32_t inside;              /* handlers that run */
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .eventfd = -1};

/* ---- the handler ---- */

static void add_to(int fd)
{
    uint64_t one = 1;

    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void on_signal(int number)
{
    int error = errno, fd;

    atomic_fetch_add_explicit(&table.inside, 1, memory_order_seq_cst);
    /* release: pairs with the acquire in take_locked */
    atomic_fetch_add_explicit(&table.counts[number], 1, memory_order_release);
    fd = atomic_load_explicit(&table.eventfd, memory_order_seq_cst);
    if (fd >= 0)
        add_to(fd);
    /* release: pairs with the load in close_eventfd_locked */
    atomic_fetch_sub_explicit(&table.inside, 1, memory_order_release);
    errno = error;
}

/* ---- dispositions, with the lock ---- */

static int catch_locked(int number)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};

    if (table.users[number]++ > 0)
        return 0;
    sigfillset(&action.sa_mask);
    if (sigaction(number, &action, &table.previous[number]) == 0)
        return 0;
    table.users[number]--;
    return -errno;
}

/* Unless somebody else has put a handler there meanwhile. */
static void give_back_locked(int number)
{
    struct sigaction current;

    if (sigaction(number, NULL, &current) == 0 && !(current.sa_flags & SA_SIGINFO) &&
        current.sa_handler == on_signal)
        sigaction(number, &table.previous[number], NULL);
}

static void release_signals_locked(weft_signals *stream)
{
    for (uint32_t i = 0; i < stream->count; i++)
        if (--table.users[stream->followed[i].number] == 0)
            give_back_locked(stream->followed[i].number);
}

/* ---- the eventfd, with the lock ---- */

static int open_eventfd_locked(void)
{
    int fd;

    if (table.streams++ > 0)
        return 0;
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        table.streams--;
        return -errno;
    }
    weft__fd_opened(fd, WEFT__FD_NONBLOCK);
    atomic_store_explicit(&table.eventfd, fd, memory_order_seq_cst);
    return 0;
}

static void close_eventfd_locked(void)
{
    int fd;

    if (--table.streams > 0)
        return;
    fd = atomic_exchange_explicit(&table.eventfd, -1, memory_order_seq_cst);
    while (atomic_load_explicit(&table.inside, memory_order_seq_cst) > 0)
        sched_yield();
    weft__fd_close(fd);
}

/* ---- fork ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&table.lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&table.lock);
}

static void after_fork_in_child(void)
{
    int fd = atomic_exchange_explicit(&table.eventfd, -1, memory_order_seq_cst);

    for (int number = 1; number <= SIGNALS; number++) {
        if (table.users[number] > 0)
            give_back_locked(number);
        table.users[number] = 0;
    }
    table.streams = 0;
    atomic_store_explicit(&table.inside, 0, memory_order_relaxed); /* those threads are not here */
    if (fd >= 0)
        close(fd);
    pthread_mutex_unlock(&table.lock);
}

static int watch_forks_locked(void)
{
    int error;

    if (table.watches_forks)
        return 0;
    error = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    table.watches_forks = error == 0;
    return -error;
}

/* ---- opening and closing ---- */

static bool can_be_followed(int number)
{
    switch (number) {
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS:
    case SIGKILL:
    case SIGSTOP:
        return false;
    default:
        return number >= 1 && number <= SIGNALS;
    }
}

static bool follows(const weft_signals *stream, int number)
{
    for (uint32_t i = 0; i < stream->count; i++)
        if (stream->followed[i].number == number)
            return true;
    return false;
}

static int follow_locked(weft_signals *stream, int number)
{
    struct followed *followed = &stream->followed[stream->count];
    int rc;

    if (!can_be_followed(number))
        return -EINVAL;
    if (follows(stream, number))
        return 0;
    followed->number = number;
    followed->handed_out = atomic_load_explicit(&table.counts[number], memory_order_relaxed);
    rc = catch_locked(number);
    if (rc == 0)
        stream->count++;
    return rc;
}

static int open_locked(weft_signals *stream, const int *signals, size_t count)
{
    int rc = watch_forks_locked();

    if (rc == 0)
        rc = open_eventfd_locked();
    if (rc < 0)
        return rc;
    stream->forks = weft__forks;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = follow_locked(stream, signals[i]);
    if (rc < 0) {
        release_signals_locked(stream);
        close_eventfd_locked();
    }
    return rc;
}

int weft_signal_open(const int *signals, size_t count, weft_signals **result)
{
    weft_signals *stream;
    int rc;

    if (!result || !signals || count == 0)
        return -EINVAL;
    *result = NULL;
    rc = weft__fork_watch(); /* so that weft__forks counts */
    if (rc < 0)
        return rc;
    stream = calloc(1, sizeof *stream);
    if (!stream)
        return -ENOMEM;
    atomic_store_explicit(&stream->references, 1, memory_order_relaxed);
    pthread_mutex_lock(&table.lock);
    rc = open_locked(stream, signals, count);
    pthread_mutex_unlock(&table.lock);
    if (rc < 0)
        free(stream);
    else
        *result = stream;
    return rc;
}

static bool is_inherited(const weft_signals *stream)
{
    return stream->forks != weft__forks;
}

static void release(weft_signals *stream)
{
    /* acq_rel: who frees it has seen what the others did with it */
    if (atomic_fetch_sub_explicit(&stream->references, 1, memory_order_acq_rel) != 1)
        return;
    if (!is_inherited(stream)) {
        pthread_mutex_lock(&table.lock);
        close_eventfd_locked();
        pthread_mutex_unlock(&table.lock);
    }
    free(stream);
}

int weft_signal_close(weft_signals *stream)
{
    if (!stream)
        return 0;
    if (!is_inherited(stream)) {
        pthread_mutex_lock(&table.lock);
        release_signals_locked(stream);
        pthread_mutex_unlock(&table.lock);
        /* release: before the addition to the eventfd; pairs with the acquire in take */
        atomic_store_explicit(&stream->closed, true, memory_order_release);
        add_to(atomic_load_explicit(&table.eventfd, memory_order_relaxed));
    }
    release(stream);
    return 0;
}

/* ---- reading ---- */

static int take_locked(weft_signals *stream)
{
    for (uint32_t i = 0; i < stream->count; i++) {
        struct followed *followed = &stream->followed[(stream->next + i) % stream->count];

        if (atomic_load_explicit(&table.counts[followed->number], memory_order_acquire) == followed->handed_out)
            continue;
        followed->handed_out++;
        stream->next = (stream->next + i + 1) % stream->count;
        return followed->number;
    }
    return -EAGAIN;
}

static int take(weft_signals *stream)
{
    int number;

    if (atomic_load_explicit(&stream->closed, memory_order_acquire))
        return -EBADF;
    weft__lock_enter(&stream->lock);
    number = take_locked(stream);
    weft__lock_leave(&stream->lock);
    return number;
}

static int wait_and_take(weft_signals *stream)
{
    int fd = atomic_load_explicit(&table.eventfd, memory_order_relaxed); /* open: the caller holds the stream */
    struct weft__fd *entry = weft__fd_entry(fd);
    int rc = 0;

    if (!entry)
        return -ENOMEM;
    while (rc == 0) {
        uint32_t generation = atomic_load_explicit(&entry->generation, memory_order_relaxed);
        uint32_t seen = weft__fd_ready(entry);

        rc = take(stream);
        if (rc == -EAGAIN)
            rc = weft__fd_wait(fd, entry, generation, WEFT__FD_IN, seen, WEFT_FOREVER);
    }
    return rc;
}

int weft_signal_next(weft_signals *stream)
{
    int rc;

    if (!stream)
        return -EINVAL;
    if (is_inherited(stream))
        return -ENOTRECOVERABLE;
    rc = weft__suspend_check();
    if (rc < 0)
        return rc;
    if (!weft__coroutine_self())
        return weft__misused("weft_signal_next");
    atomic_fetch_add_explicit(&stream->references, 1, memory_order_relaxed);
    rc = wait_and_take(stream);
    release(stream);
    return rc;
}

int weft_signal_try_next(weft_signals *stream)
{
    if (!stream)
        return -EINVAL;
    return is_inherited(stream) ? -ENOTRECOVERABLE : take(stream);
}

int weft_signal_wait_stop(void)
{
    static const int stops[] = {SIGINT, SIGTERM};
    weft_signals *stream;
    int rc;

    if (!weft__coroutine_self())
        return weft__misused("weft_signal_wait_stop");
    rc = weft_signal_open(stops, 2, &stream);
    if (rc < 0)
        return rc;
    rc = weft_signal_next(stream);
    weft_signal_close(stream);
    return rc;
}
