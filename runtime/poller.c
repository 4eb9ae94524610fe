/*
 * The event loop and the table of descriptors (poller.h).
 *
 * Why no wake-up is lost: a waiter puts itself into the entry's list under the entry's lock, after looking at
 * `ready` under the same lock; an event sets `ready` and empties the list under that lock. A descriptor is added
 * to epoll once; adding reports what is ready at that moment, so nothing that came before is missed.
 *
 * Waits are settled under the entry's lock, and entries never go away. So after weft__fd_withdraw nobody touches the
 * wait, however it went: nothing has to be waited out, as it has with other objects (waiters.h).
 */
#include "runtime/poller.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/spread.h"
#include "runtime/waitable.h"
#include "runtime/worker.h"

enum {
    FD_CHUNK = 1024,  /* entries; 64 KiB */
    FD_CHUNKS = 1024, /* a million descriptors: the kernel's default fs.nr_open */
    MOVE_AFTER = 16,  /* waits in a row from another worker before a descriptor moves there (1.7 µs) */
    READY_BATCH = 16,
    ALARM_NS = 20 * 1000 * 1000 /* what is nearer is a limit of the wait: setting the alarm is a system call more */
};

#define WAKEUP_DATA UINT64_MAX
#define AHEAD 2 /* events */

/* One for the process: a descriptor's number means the same in all runtimes. Chunks are never freed. */
static _Atomic(struct weft__fd *) fd_chunks[FD_CHUNKS];

/* ---- epoll ---- */

static int watch_for_wakeups(const struct weft__poller *poller, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = WAKEUP_DATA};

    return epoll_ctl(poller->epoll, EPOLL_CTL_ADD, fd, &event);
}

int weft__poller_init(struct weft__poller *poller)
{
    int rc;

    *poller = (struct weft__poller){.wakeup = -1, .alarm = -1};
    poller->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (poller->epoll < 0)
        goto fail;
    poller->wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (poller->wakeup < 0)
        goto fail;
    if (watch_for_wakeups(poller, poller->wakeup) < 0)
        goto fail;
    poller->alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (poller->alarm >= 0 && watch_for_wakeups(poller, poller->alarm) < 0)
        goto fail;
    return 0;
fail:
    rc = -errno;
    weft__poller_free(poller);
    return rc;
}

void weft__poller_free(struct weft__poller *poller)
{
    if (poller->alarm >= 0)
        close(poller->alarm);
    if (poller->wakeup >= 0)
        close(poller->wakeup);
    if (poller->epoll >= 0)
        close(poller->epoll);
    poller->alarm = poller->wakeup = poller->epoll = -1;
}

void weft__poller_wake(struct weft__poller *poller)
{
    uint64_t one = 1;

    /* Each write is an edge, whether the counter was read or not. EAGAIN: it is at its limit, after 2^64 wake-ups. */
    while (write(poller->wakeup, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/*
 * Let the alarm end a wait at `until` or before. A wait that has a limit of its own has the kernel set and cancel a
 * timer each time, although what is far away, a connection's idle time-out, has hardly changed since the last. The
 * alarm is left as it is while it is early enough; what became of the deadline for which it was set shows when it rings.
 * False: the wait needs a limit.
 */
static bool set_alarm(struct weft__poller *poller, int64_t now, int64_t until)
{
    struct itimerspec time = {.it_value = {until / 1000000000, until % 1000000000}};

    if (poller->rings > now && poller->rings <= until)
        return true;
    /* Setting it also takes back a ring that nobody has heard. */
    if (until - now < ALARM_NS || poller->alarm < 0 ||
        timerfd_settime(poller->alarm, TFD_TIMER_ABSTIME, &time, NULL) < 0)
        return false;
    poller->rings = until;
    return true;
}

static int wait_until(int epoll, struct epoll_event *events, int64_t left)
{
    static _Atomic bool only_milliseconds; /* no epoll_pwait2: a kernel before 5.11, or a sandbox forbids it */

    if (!atomic_load_explicit(&only_milliseconds, memory_order_relaxed)) {
        struct timespec ts = {left / 1000000000, left % 1000000000};
        long n = syscall(SYS_epoll_pwait2, epoll, events, WEFT__EVENTS, &ts, NULL, 0);

        if (n >= 0 || errno == EINTR)
            return (int)n;
        atomic_store_explicit(&only_milliseconds, true, memory_order_relaxed);
    }
    left = (left + 999999) / 1000000;
    return epoll_wait(epoll, events, WEFT__EVENTS, left > 60000 ? 60000 : (int)left);
}

static int wait_for_events(struct weft__poller *poller, struct epoll_event *events, int64_t now, int64_t until)
{
    if (until <= now)
        return epoll_wait(poller->epoll, events, WEFT__EVENTS, 0);
    if (until == INT64_MAX || set_alarm(poller, now, until))
        return epoll_wait(poller->epoll, events, WEFT__EVENTS, -1);
    return wait_until(poller->epoll, events, until - now);
}

static uint32_t bits_of(uint32_t events)
{
    uint32_t bits = 0;

    if (events & EPOLLIN)
        bits |= WEFT__FD_IN;
    if (events & EPOLLOUT)
        bits |= WEFT__FD_OUT;
    if (events & EPOLLPRI)
        bits |= WEFT__FD_PRI;
    if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
        bits |= WEFT__FD_HUP | WEFT__FD_IN | (events & (EPOLLERR | EPOLLHUP) ? WEFT__FD_OUT : 0);
    return bits;
}

/* Relaxed: with the lock, or for a hint. */
static inline struct weft__wait *first_of(const struct weft__fd *entry)
{
    return atomic_load_explicit(&entry->first, memory_order_relaxed);
}

static inline void set_first(struct weft__fd *entry, struct weft__wait *wait)
{
    atomic_store_explicit(&entry->first, wait, memory_order_relaxed);
}

static void unlink_wait(struct weft__fd *entry, struct weft__wait *wait)
{
    if (wait->prev)
        wait->prev->next = wait->next;
    else
        set_first(entry, wait->next);
    if (wait->next)
        wait->next->prev = wait->prev;
    else
        entry->last = wait->prev;
}

static void link_wait(struct weft__fd *entry, struct weft__wait *wait)
{
    wait->next = NULL;
    wait->prev = entry->last;
    if (entry->last)
        entry->last->next = wait;
    else
        set_first(entry, wait);
    entry->last = wait;
}

/* Settle up to `max` waits that ask for one of `bits`. With the lock. */
static unsigned settle(struct weft__fd *entry, uint32_t bits, enum weft__outcome outcome, weft_task **tasks,
                       unsigned max)
{
    struct weft__wait *wait = first_of(entry);
    unsigned n = 0;

    while (wait && n < max) {
        struct weft__wait *next = wait->next;

        if (wait->kind & bits) {
            unlink_wait(entry, wait);
            tasks[n++] = weft__settle(wait, outcome);
        }
        wait = next;
    }
    return n;
}

static void queue_all(weft_task **tasks, unsigned n, void (*ready)(weft_task *, void *), void *arg)
{
    for (unsigned i = 0; i < n; i++)
        if (weft__state_ready(&tasks[i]->state) == WEFT__READY_QUEUE)
            ready(tasks[i], arg);
}

static void note(struct weft__fd *entry, uint32_t bits)
{
    uint32_t old = atomic_load_explicit(&entry->ready, memory_order_relaxed);

    /* Only weft__fd_clear changes it without the lock. Release: pairs with weft__fd_ready. */
    while (!atomic_compare_exchange_weak_explicit(&entry->ready, &old, (old | bits) + WEFT__FD_TICK,
                                                  memory_order_release, memory_order_relaxed))
        ;
}

static WEFT__COLD void observe_event(int fd, weft_task *const *tasks, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        weft__observe(WEFT_TRACE_EVENT, tasks[i], fd);
}

static void handle_event(const struct epoll_event *event, void (*ready)(weft_task *, void *), void *arg)
{
    struct weft__fd *entry = weft__fd_entry((int)(uint32_t)event->data.u64);
    uint32_t generation = (uint32_t)(event->data.u64 >> 32);
    uint32_t bits = bits_of(event->events);
    weft_task *tasks[READY_BATCH];
    unsigned n;

    do {
        n = 0;
        weft__lock_enter(&entry->lock);
        if (atomic_load_explicit(&entry->generation, memory_order_relaxed) == generation) {
            note(entry, bits);
            n = settle(entry, bits, WEFT__GRANTED, tasks, READY_BATCH);
        }
        weft__lock_leave(&entry->lock);
        if (weft__observed())
            observe_event((int)(uint32_t)event->data.u64, tasks, n);
        queue_all(tasks, n, ready, arg);
    } while (n == READY_BATCH);
}

/* Where there are many descriptors, what belongs to the next events is cold: its entry, then who waits for it. */
static void look_ahead(const struct epoll_event *events, int i, int n)
{
    if (i + 2 * AHEAD < n)
        __builtin_prefetch(weft__fd_entry((int)(uint32_t)events[i + 2 * AHEAD].data.u64));
    if (i + AHEAD < n) {
        const struct weft__fd *entry = weft__fd_entry((int)(uint32_t)events[i + AHEAD].data.u64);

        if (entry)
            __builtin_prefetch(first_of(entry)); /* may be gone by then: nothing is read there */
    }
}

int weft__poller_wait(struct weft__poller *poller, bool is_own, int64_t now, int64_t until,
                      struct weft__event_buffer *buffer, void (*ready)(weft_task *task, void *arg), void *arg)
{
    int handled = 0;
    int n = wait_for_events(poller, buffer->events, now, until);

    /* EINTR: as if nothing had come; the caller looks again anyway. */
    for (int i = 0; i < n; i++) {
        look_ahead(buffer->events, i, n);
        if (buffer->events[i].data.u64 == WAKEUP_DATA) {
            /* An edge is seen once: its owner, who may be about to sleep, would miss it. */
            if (!is_own)
                weft__poller_wake(poller);
            continue;
        }
        handle_event(&buffer->events[i], ready, arg);
        handled++;
    }
    return handled;
}

static void settle_all(struct weft__fd *entry, enum weft__outcome outcome);

/* ---- the table ---- */

static struct weft__fd *make_chunk(unsigned index)
{
    struct weft__fd *none = NULL;
    size_t size = sizeof(struct weft__fd) * FD_CHUNK;
    struct weft__fd *chunk = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (chunk == MAP_FAILED)
        return NULL;
    /* release: the zeroed entries; pairs with the acquire in weft__fd_entry */
    if (atomic_compare_exchange_strong_explicit(&fd_chunks[index], &none, chunk, memory_order_acq_rel,
                                                memory_order_acquire))
        return chunk;
    munmap(chunk, size);
    return none;
}

struct weft__fd *weft__fd_entry(int fd)
{
    unsigned index = (unsigned)fd / FD_CHUNK;
    struct weft__fd *chunk;

    if (index >= FD_CHUNKS)
        return NULL;
    chunk = atomic_load_explicit(&fd_chunks[index], memory_order_acquire);
    if (__builtin_expect(!chunk, 0) && !(chunk = make_chunk(index)))
        return NULL;
    return &chunk[(unsigned)fd % FD_CHUNK];
}

static bool is_current(const struct weft__fd *entry, uint32_t generation)
{
    return atomic_load_explicit(&entry->generation, memory_order_relaxed) == generation;
}

/* Can a call that has this generation still wait for it? With the lock. One that looked at the flags just before
 * weft__fd_close did, and at the generation just after, has the right one, and nobody would wake it. */
static bool is_open(const struct weft__fd *entry, uint32_t generation)
{
    return is_current(entry, generation) && !(weft__fd_flags(entry) & WEFT__FD_CLOSING);
}

static void set_flags(struct weft__fd *entry, uint32_t flags)
{
    atomic_store_explicit(&entry->flags, flags, memory_order_release);
}

static void add_flags(struct weft__fd *entry, uint32_t flags)
{
    set_flags(entry, weft__fd_flags(entry) | flags);
}

/* With the lock: whatever was known of this number is void. The count of events goes on, so that a call which began
 * with the number's old meaning does not clear what is known of the new one. */
static void reset(struct weft__fd *entry, uint32_t flags)
{
    uint32_t ready = atomic_load_explicit(&entry->ready, memory_order_relaxed);

    atomic_fetch_add_explicit(&entry->generation, 1, memory_order_release);
    atomic_store_explicit(&entry->ready, (ready & ~(uint32_t)WEFT__FD_BITS) + WEFT__FD_TICK, memory_order_relaxed);
    entry->owner = NULL;
    entry->foreign_waits = 0;
    set_flags(entry, flags);
}

void weft__fd_opened(int fd, uint32_t flags)
{
    struct weft__fd *entry = weft__fd_entry(fd);

    if (!entry)
        return;
    weft__lock_enter(&entry->lock);
    reset(entry, flags);
    weft__lock_leave(&entry->lock);
    if (first_of(entry))
        settle_all(entry, WEFT__CLOSED); /* the number was closed behind our back */
}

int weft__fd_prepare(int fd, struct weft__fd *entry, uint32_t generation)
{
    uint32_t flags = WEFT__FD_NONBLOCK;
    struct stat status;
    int type, mode;
    socklen_t length = sizeof type;
    bool current;

    if (weft__fd_flags(entry) & WEFT__FD_NONBLOCK)
        return 0;
    /* Prepared before, and forgotten: the number may be another's. (`reset` moves the generation on before it stores
     * the flags that were read above.) */
    if (!is_open(entry, generation))
        return -EBADF;
    mode = fcntl(fd, F_GETFL);
    if (mode < 0 || (!(mode & O_NONBLOCK) && fcntl(fd, F_SETFL, mode | O_NONBLOCK) < 0) || fstat(fd, &status) < 0)
        return -errno;
    if (S_ISFIFO(status.st_mode))
        flags |= WEFT__FD_STREAM;
    else if (S_ISSOCK(status.st_mode) && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
             type == SOCK_STREAM)
        flags |= WEFT__FD_STREAM_SOCKET;
    weft__lock_enter(&entry->lock);
    current = is_open(entry, generation);
    if (current)
        add_flags(entry, flags);
    weft__lock_leave(&entry->lock);
    return current ? 0 : -EBADF; /* closed meanwhile: the number may be another's now */
}

/* ---- asking ---- */

int weft__fd_look(int fd, int events)
{
    struct pollfd one = {.fd = fd, .events = (short)events};
    int n;

    do
        n = poll(&one, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return one.revents & POLLNVAL ? -EBADF : one.revents;
}

uint32_t weft__fd_bits(int events)
{
    return (events & (POLLIN | POLLRDNORM | POLLRDHUP) ? WEFT__FD_IN : 0) |
           (events & (POLLOUT | POLLWRNORM) ? WEFT__FD_OUT : 0) | (events & POLLPRI ? WEFT__FD_PRI : 0);
}

/* ---- waiting ---- */

static int epoll_change(int operation, struct weft__worker *worker, int fd, uint32_t generation)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET,
                                .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd};

    return epoll_ctl(worker->poller.epoll, operation, fd, &event) < 0 ? -errno : 0;
}

static void settle_all(struct weft__fd *entry, enum weft__outcome outcome)
{
    weft_task *tasks[READY_BATCH];
    unsigned n;

    do {
        weft__lock_enter(&entry->lock);
        n = settle(entry, WEFT__FD_BITS, outcome, tasks, READY_BATCH);
        weft__lock_leave(&entry->lock);
        for (unsigned i = 0; i < n; i++)
            weft__ready(tasks[i]);
    } while (n == READY_BATCH);
}

static void mark_used(struct weft__worker *worker)
{
    if (!atomic_load_explicit(&worker->used, memory_order_relaxed))
        atomic_store_explicit(&worker->used, 1, memory_order_relaxed);
}

/* The caller has set REGISTERED and the owner under the lock: it alone talks to epoll. */
static int add_to_epoll(int fd, struct weft__fd *entry, uint32_t generation, struct weft__worker *worker)
{
    bool known;
    int rc;

    mark_used(worker);
    rc = epoll_change(EPOLL_CTL_ADD, worker, fd, generation);
    /* The number was used, closed behind our back and opened again while its old registration lives on in a
     * duplicate: it is the same file description or it would not be there. */
    if (rc == -EEXIST)
        rc = epoll_change(EPOLL_CTL_MOD, worker, fd, generation);
    /* Another runtime has just taken it out of there (books_registration). */
    if (rc == -ENOENT)
        rc = epoll_change(EPOLL_CTL_ADD, worker, fd, generation);
    if (rc == 0)
        return 0;
    weft__lock_enter(&entry->lock);
    if (!is_current(entry, generation)) {
        /* Closed meanwhile: whoever waited has been told, and the entry may be another descriptor's by now. */
        weft__lock_leave(&entry->lock);
        return -EBADF;
    }
    known = weft__fd_flags(entry) & WEFT__FD_ALWAYS;
    set_flags(entry,
              (weft__fd_flags(entry) & ~(uint32_t)WEFT__FD_REGISTERED) | (rc == -EPERM ? WEFT__FD_ALWAYS : 0));
    entry->owner = NULL;
    weft__lock_leave(&entry->lock);
    /* Whoever has asked the system since that is known, and waits all the same, waits for what never comes (urgent
     * data of /dev/null): until a deadline, cancellation or closing. */
    if (rc == -EPERM && known)
        return 0;
    /* With another error those who wait besides try for themselves. */
    settle_all(entry, rc == -EPERM ? WEFT__CLOSED : WEFT__GRANTED);
    return rc == -EPERM ? 0 : rc;
}

/* It is waited for again and again from another worker: it follows its work there. */
static int move(int fd, struct weft__fd *entry, uint32_t generation, struct weft__worker *from,
                struct weft__worker *to)
{
    epoll_change(EPOLL_CTL_DEL, from, fd, 0);
    return add_to_epoll(fd, entry, generation, to);
}

/* In whose epoll set its tasks' descriptors belong (crowd.c). */
static inline struct weft__worker *poller_of(const struct weft__worker *worker)
{
    return atomic_load_explicit(&worker->poller_of, memory_order_relaxed);
}

/* Is a descriptor to leave its owner at the first wait from another worker? */
static bool leaves_at_once(const struct weft__worker *owner, const struct weft__worker *worker)
{
    /* To and fro between two that are overloaded nothing would be gained. */
    return poller_of(owner) != owner ||
           (weft__may_be_relieved(owner) && !atomic_load_explicit(&worker->overloaded, memory_order_relaxed));
}

/* Does a wait need a (new) registration, with `worker`? At once if it is to leave where it is (`gathers`: the wait
 * obeys that), else if it is waited for from there again and again. With the lock; books it. *from: where it was, if it
 * has to be taken out there. */
static bool books_registration(int fd, struct weft__fd *entry, struct weft__worker *worker, bool gathers,
                               struct weft__worker **from)
{
    *from = entry->owner;
    if (!(weft__fd_flags(entry) & WEFT__FD_REGISTERED)) {
        add_flags(entry, WEFT__FD_REGISTERED);
        entry->owner = worker;
        *from = NULL;
        return true;
    }
    if (entry->owner == worker) {
        entry->foreign_waits = 0;
        return false;
    }
    if (entry->owner->runtime != worker->runtime) {
        /* Once the lock is left that runtime may end: its worker stays until weft__fd_forget_worker has been here. */
        epoll_change(EPOLL_CTL_DEL, entry->owner, fd, 0);
        *from = NULL;
    } else if (entry->registrars > 0) {
        return false; /* somebody is about to put it where its owner is: two at once could leave it nowhere */
    } else if (!(gathers && leaves_at_once(entry->owner, worker)) && ++entry->foreign_waits < MOVE_AFTER) {
        return false;
    }
    entry->foreign_waits = 0;
    entry->owner = worker;
    return true;
}

bool weft__fd_withdraw(struct weft__fd *entry, struct weft__wait *wait)
{
    bool queued;

    weft__lock_enter(&entry->lock);
    queued = weft__outcome_of(wait) == WEFT__WAITING;
    if (queued)
        unlink_wait(entry, wait);
    weft__lock_leave(&entry->lock);
    return queued;
}

int weft__fd_outcome(const struct weft__fd *entry, uint32_t generation, const struct weft__wait *wait)
{
    if (!is_current(entry, generation))
        return -EBADF;
    return weft__outcome_of(wait) == WEFT__CLOSED && !(weft__fd_flags(entry) & WEFT__FD_ALWAYS) ? -EBADF : 0;
}

void weft__fd_wait_while_closing(const struct weft__fd *entry)
{
    while (weft__fd_flags(entry) & WEFT__FD_CLOSING)
        sched_yield();
}

int weft__fd_begin(int fd, struct weft__fd *entry, uint32_t generation, uint32_t bits, uint32_t seen,
                   struct weft__wait *wait)
{
    struct weft__worker *worker, *from;
    uint32_t ready;
    bool registers, pinned;
    int rc = weft__fd_prepare(fd, entry, generation);

    if (rc < 0)
        return rc;
    wait->kind = bits | WEFT__FD_HUP;
    /* A pinned task's events come to its own worker. */
    pinned = atomic_load_explicit(&wait->task->state, memory_order_relaxed) & WEFT__PINNED;
    worker = pinned ? weft__driver()->worker : poller_of(weft__driver()->worker);

    weft__lock_enter(&entry->lock);
    if (!is_open(entry, generation)) {
        weft__lock_leave(&entry->lock);
        return -EBADF;
    }
    registers = books_registration(fd, entry, worker, !pinned, &from);
    entry->registrars += registers;
    ready = weft__fd_ready(entry);
    if (!registers && (ready & wait->kind) && ready != seen) {
        weft__lock_leave(&entry->lock);
        return 0;
    }
    link_wait(entry, wait);
    weft__lock_leave(&entry->lock);

    if (registers) {
        rc = from ? move(fd, entry, generation, from, worker) : add_to_epoll(fd, entry, generation, worker);
        weft__lock_enter(&entry->lock);
        entry->registrars--;
        weft__lock_leave(&entry->lock);
        if (rc < 0) {
            weft__fd_withdraw(entry, wait);
            return rc;
        }
    }
    if (weft__observed())
        weft__observe(WEFT_TRACE_WAIT_FD, weft_self(), fd);
    return WEFT__BEGUN;
}

int weft__fd_wait(int fd, struct weft__fd *entry, uint32_t generation, uint32_t bits, uint32_t seen,
                  int64_t deadline)
{
    struct weft__wait wait = {.task = weft__coroutine_self()};
    int rc;

    if (!wait.task)
        return -EPERM;
    rc = weft__fd_begin(fd, entry, generation, bits, seen, &wait);
    if (rc != WEFT__BEGUN)
        return rc;
    rc = weft__wait_deadline(&wait, deadline);
    if (rc != 0 && weft__fd_withdraw(entry, &wait))
        return rc;
    return weft__fd_outcome(entry, generation, &wait);
}

/* ---- closing ---- */

/* Without this a registration under way could take another's descriptor, which has got the number, out of an epoll set,
 * and nobody would hear of its events any more. Registering never waits for anything. */
static void wait_for_registrars(struct weft__fd *entry)
{
    bool some;

    do {
        weft__lock_enter(&entry->lock);
        some = entry->registrars > 0;
        weft__lock_leave(&entry->lock);
        if (some)
            sched_yield();
    } while (some);
}

/*
 * Calls that began before have the old generation, and get -EBADF when they come to wait. Calls that begin while
 * CLOSING is set wait for its end: the number may be another's by then, which the kernel hands out again the moment
 * close(2) frees it, so nothing but that flag may change after close(2).
 */
int weft__fd_close(int fd)
{
    struct weft__fd *entry = weft__fd_entry(fd);
    uint32_t generation;
    int rc;

    if (!entry)
        return close(fd) < 0 ? -errno : 0;
    weft__lock_enter(&entry->lock);
    reset(entry, WEFT__FD_CLOSING);
    generation = atomic_load_explicit(&entry->generation, memory_order_relaxed);
    weft__lock_leave(&entry->lock);
    settle_all(entry, WEFT__CLOSED);
    wait_for_registrars(entry);
    /* On Linux the number is free again even after EINTR. */
    rc = close(fd) < 0 && errno != EINTR ? -errno : 0;
    weft__lock_enter(&entry->lock);
    if (is_current(entry, generation)) /* else weft__fd_opened has had the number meanwhile */
        set_flags(entry, weft__fd_flags(entry) & ~(uint32_t)WEFT__FD_CLOSING);
    weft__lock_leave(&entry->lock);
    return rc;
}

/* Tasks of other runtimes may still wait for it: they look again, and register it anew. No event with the old
 * registration can come any more, so the generation, which their calls remember, stays. True: there are any. */
static bool unregister(struct weft__fd *entry, const struct weft__worker *worker)
{
    bool waits = false;

    weft__lock_enter(&entry->lock);
    if (entry->owner == worker) {
        entry->owner = NULL;
        entry->foreign_waits = 0;
        set_flags(entry, weft__fd_flags(entry) & ~(uint32_t)WEFT__FD_REGISTERED);
        waits = first_of(entry) != NULL;
    }
    weft__lock_leave(&entry->lock);
    return waits;
}

void weft__fd_forget_worker(const struct weft__worker *worker)
{
    for (unsigned index = 0; index < FD_CHUNKS; index++) {
        struct weft__fd *chunk = atomic_load_explicit(&fd_chunks[index], memory_order_acquire);

        for (unsigned i = 0; chunk && i < FD_CHUNK; i++)
            if (unregister(&chunk[i], worker))
                settle_all(&chunk[i], WEFT__GRANTED);
    }
}

void weft__fd_forget_all(void)
{
    for (unsigned index = 0; index < FD_CHUNKS; index++) {
        struct weft__fd *chunk = atomic_load_explicit(&fd_chunks[index], memory_order_acquire);

        for (unsigned i = 0; chunk && i < FD_CHUNK; i++) {
            struct weft__fd *entry = &chunk[i];

            /* What was never used is left alone: it shares its page with the parent. */
            if (!weft__fd_flags(entry) && !first_of(entry) &&
                !atomic_load_explicit(&entry->lock, memory_order_relaxed))
                continue;
            set_first(entry, NULL);
            entry->last = NULL;
            reset(entry, 0);
            weft__lock_leave(&entry->lock);
        }
    }
}
