/*
 * weft_watch: a value, its version, and waiting for another one. Any thread; knows only park.h.
 *
 * One spinlock a watch, over everything in it; the value is copied in and out under it, so it is never seen torn. Whoever
 * waits knows the present version, and the watch is open; so each set, and the close, detaches all. Who was woken
 * comes back for the value, which may have changed again: it gets the latest. The version only rises, so it finds
 * either another version than its own, or the watch closed, and does not wait again.
 *
 * A waiter that gives up tells by `rounds` whether it was detached, as in event.c. If it was, it takes the value and
 * returns 0, or -EPIPE: the cancellation is reported by its next suspension point.
 */
#include "runtime/waitable.h"

#include <stdlib.h>
#include <string.h>
#include <weft/broadcast.h>

enum { CACHE_LINE = 64 };

struct weft_watch {
    weft__lock lock;
    bool closed;
    uint32_t rounds; /* times that waiters were detached */
    size_t size;
    uint64_t version;
    weft_waiters waiters;
    _Alignas(16) unsigned char value[];
};

/* What a waiter knows and wants; its wait's slot. */
struct wish {
    uint64_t *version;
    void *value;
};

weft_watch *weft_watch_new(size_t size, const void *initial)
{
    size_t bytes;
    weft_watch *watch;

    if (__builtin_add_overflow(size, sizeof(*watch) + CACHE_LINE, &bytes) || bytes > PTRDIFF_MAX)
        return NULL;
    watch = aligned_alloc(CACHE_LINE, bytes & ~((size_t)CACHE_LINE - 1));
    if (watch == NULL)
        return NULL;
    memset(watch, 0, sizeof(*watch));
    watch->size = size;
    watch->version = 1;
    if (initial != NULL)
        memcpy(watch->value, initial, size);
    else
        memset(watch->value, 0, size);
    return watch;
}

void weft_watch_free(weft_watch *watch)
{
    free(watch);
}

/* Locked: detach all, leave, settle. */
static void leave_and_wake_all(weft_watch *watch, enum weft__outcome outcome)
{
    struct weft__wait *waiters = weft__waiters_take(&watch->waiters);

    watch->rounds++;
    weft__lock_leave(&watch->lock);
    weft__wake_chain(waiters, outcome, NULL);
}

int weft_watch_set(weft_watch *watch, const void *value)
{
    weft__lock_enter(&watch->lock);
    if (watch->closed) {
        weft__lock_leave(&watch->lock);
        return -EPIPE;
    }
    if (watch->size != 0)
        memcpy(watch->value, value, watch->size);
    watch->version++;
    leave_and_wake_all(watch, WEFT__GRANTED);
    return 0;
}

int weft_watch_close(weft_watch *watch)
{
    weft__lock_enter(&watch->lock);
    if (watch->closed) {
        weft__lock_leave(&watch->lock);
        return -EALREADY;
    }
    watch->closed = true;
    leave_and_wake_all(watch, WEFT__CLOSED);
    return 0;
}

/* Locked. */
static uint64_t copy_out(const weft_watch *watch, void *value)
{
    if (value != NULL && watch->size != 0)
        memcpy(value, watch->value, watch->size);
    return watch->version;
}

uint64_t weft_watch_get(weft_watch *watch, void *value)
{
    uint64_t version;

    weft__lock_enter(&watch->lock);
    version = copy_out(watch, value);
    weft__lock_leave(&watch->lock);
    return version;
}

/* Locked: 0, -EPIPE, -EAGAIN. */
static int take_locked(const weft_watch *watch, const struct wish *wish)
{
    if (watch->version == *wish->version)
        return watch->closed ? -EPIPE : -EAGAIN;
    *wish->version = copy_out(watch, wish->value);
    return 0;
}

static int begin(void *object, struct weft__wait *wait)
{
    weft_watch *watch = object;
    int rc;

    weft__lock_enter(&watch->lock);
    rc = take_locked(watch, wait->slot);
    if (rc == -EAGAIN) {
        wait->kind = watch->rounds;
        weft__waiters_push(&watch->waiters, wait);
        rc = WEFT__BEGUN;
    }
    weft__lock_leave(&watch->lock);
    return rc;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_watch *watch = object;
    bool queued;

    weft__lock_enter(&watch->lock);
    queued = wait->kind == watch->rounds;
    if (queued)
        weft__waiters_remove(&watch->waiters, wait);
    weft__lock_leave(&watch->lock);
    return queued;
}

static const struct weft__waitable changing = {begin, withdraw};

static int take_after_wait(weft_watch *watch, const struct wish *wish)
{
    int rc;

    weft__lock_enter(&watch->lock);
    rc = take_locked(watch, wish);
    weft__lock_leave(&watch->lock);
    return rc;
}

int weft_watch_changed(weft_watch *watch, uint64_t *version, void *value)
{
    struct wish wish = {version, value};
    struct weft__wait wait = {.slot = &wish};
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    rc = weft__wait_for(&changing, watch, &wait);
    if (rc < 0 || weft__outcome_of(&wait) == WEFT__WAITING)
        return rc;
    return take_after_wait(watch, &wish);
}
