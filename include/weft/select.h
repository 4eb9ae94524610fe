/*
 * Select: wait for the first of several things.
 *
 *     weft_case cases[] = {WEFT_CASE_RECV(orders, &order), WEFT_CASE_TASK(kitchen), WEFT_CASE_AFTER(WEFT_SEC(1))};
 *     switch (weft_select(cases, 3)) { case 0: … }
 */
#ifndef WEFT_SELECT_H
#define WEFT_SELECT_H

#include <weft/base.h>
#include <weft/channel.h>
#include <weft/promise.h>
#include <weft/sync.h>
#include <weft/task.h>

WEFT_BEGIN_DECLS

enum weft_case_kind {
    WEFT_CASE_KIND_NONE = 0, /* never ready: a case that is switched off */
    WEFT_CASE_KIND_RECV,
    WEFT_CASE_KIND_SEND,
    WEFT_CASE_KIND_PROMISE,
    WEFT_CASE_KIND_TASK,
    WEFT_CASE_KIND_EVENT,
    WEFT_CASE_KIND_POLL,
    WEFT_CASE_KIND_AT,
    WEFT_CASE_KIND_AFTER,
    WEFT_CASE_KIND_DEFAULT
};

/* One case. Use the WEFT_CASE_* initialisers; a case may be used again after the select that it was in. */
typedef struct weft_case {
    enum weft_case_kind kind;
    int fd;
    int events;
    void *object;    /* the channel, promise, task, event */
    void *elem;      /* received into or sent from */
    int64_t time;    /* of AT and AFTER */
    intptr_t result; /* of the case that was chosen, see below */
    void *private_area[10];
} weft_case;

#define WEFT__CASE(kind, fd, events, object, elem, time) \
    {                                                    \
        kind, fd, events, object, elem, time, 0,         \
        {                                                \
            0                                            \
        }                                                \
    }

/* Receive: result 0, or -EPIPE when the channel is closed and empty. */
#define WEFT_CASE_RECV(chan, elem) WEFT__CASE(WEFT_CASE_KIND_RECV, 0, 0, (chan), (elem), 0)
/* Send a copy of *elem: result 0, or -EPIPE when the channel is closed. */
#define WEFT_CASE_SEND(chan, elem) WEFT__CASE(WEFT_CASE_KIND_SEND, 0, 0, (chan), (void *)(uintptr_t)(elem), 0)
/* The promise is set: result is what it was set to. */
#define WEFT_CASE_PROMISE(promise) WEFT__CASE(WEFT_CASE_KIND_PROMISE, 0, 0, (promise), 0, 0)
/* The task has ended: result 0 (weft_await gives its own, at once); -EBUSY if somebody else awaits it, another case of
 * the same select too. */
#define WEFT_CASE_TASK(task) WEFT__CASE(WEFT_CASE_KIND_TASK, 0, 0, (task), 0, 0)
/* The event is set: result 0. */
#define WEFT_CASE_EVENT(event) WEFT__CASE(WEFT_CASE_KIND_EVENT, 0, 0, (event), 0, 0)
/* The descriptor has one of these events (as weft_poll): result the events, or -EBADF… */
#define WEFT_CASE_POLL(fd, events) WEFT__CASE(WEFT_CASE_KIND_POLL, (fd), (events), 0, 0, 0)
/* The time has come (monotonic), or the time has passed (from the beginning of the select): result 0. */
#define WEFT_CASE_AT(when) WEFT__CASE(WEFT_CASE_KIND_AT, 0, 0, 0, 0, (when))
#define WEFT_CASE_AFTER(ns) WEFT__CASE(WEFT_CASE_KIND_AFTER, 0, 0, 0, 0, (ns))
/* Chosen if no other case is ready at once: the select does not wait then. */
#define WEFT_CASE_DEFAULT WEFT__CASE(WEFT_CASE_KIND_DEFAULT, 0, 0, 0, 0, 0)

/*
 * Wait until one of the cases is ready, do it, and return its index; its `result` says how it went. Exactly one
 * channel operation is done, by this select and by the one at the other end of a rendezvous. Among several cases that
 * are ready one is chosen at random, each with the same chance.
 *
 * Returns -ECANCELED or -ETIMEDOUT if the wait was ended early (nothing was sent or received), -EINVAL for no cases
 * or a NULL object, -ENOMEM; -EPERM if a thread outside the runtime would have to wait for a descriptor. Any thread;
 * suspension point.
 */
WEFT_API int weft_select(weft_case *cases, size_t count);

/* As weft_select, or -EAGAIN where it would wait. (That somebody else awaits a task is not told before it has ended.)
 * Any thread; not a suspension point. */
WEFT_API int weft_try_select(weft_case *cases, size_t count);

WEFT_END_DECLS

#endif
