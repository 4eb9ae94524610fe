/*
 * A bridge: what a task needs in order to drive a library that does its own system calls and calls back
 * (docs/bridging.md). The library's descriptors, its one timer and a bell lie in an epoll set of their own, and
 * the task, a stackless one, waits for that set: one descriptor, one wait, however many the library has.
 *
 * Why a set of its own. Such libraries want to be told as poll(2) tells, again and again while something is
 * ready; they open and close descriptors without asking, so that a number may change hands between two looks; and
 * they change their minds about reading or writing at every step. In the set, which is level-triggered, each of
 * these is one epoll_ctl(2), or none: closing takes a descriptor out. In weft's table of descriptors, which is
 * edge-triggered and wants to be told of every close, each would be a protocol. So the table never learns of the
 * library's descriptors; it knows the set, which only weft closes. The other design, a watching task for each
 * descriptor, costs a record and a hand-over for each, and has to be stopped, and waited for, before the library
 * may close its descriptor.
 *
 * All is for the driving task alone, but weft__bridge_ring, which any thread may call. The bell is read before
 * the task looks for what is asked of it, and rung after something was put there. So whoever comes too late to be
 * seen rings again.
 *
 * Includes public headers, and last_error.h, which includes nothing of weft: it is for libraries beside weft too.
 */
#ifndef WEFT_IO_BRIDGE_H
#define WEFT_IO_BRIDGE_H

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <weft/fd.h>
#include <weft/stackless.h>
#include <weft/time.h>

#include "io/last_error.h"

enum { WEFT__BRIDGE_EVENTS = 64 };

struct weft__bridge {
    int epoll;
    int bell;      /* an eventfd */
    int timer;     /* a timerfd */
    int64_t due;   /* when the library wants to be called; WEFT_FOREVER: not */
    int64_t armed; /* what the timer is set to. Earlier than `due`: the task wakes once for nothing */
    /* What the last look has found, and how much of it was not handed out yet. */
    int next, count;
    struct epoll_event events[WEFT__BRIDGE_EVENTS];
};

static inline void weft__bridge_close(struct weft__bridge *bridge)
{
    if (bridge->bell >= 0)
        close(bridge->bell);
    if (bridge->timer >= 0)
        close(bridge->timer);
    if (bridge->epoll >= 0)
        weft_close(bridge->epoll); /* the one that weft has waited for */
    bridge->epoll = bridge->bell = bridge->timer = -1;
}

/* Be told of `events` of a descriptor; none: forget it. 0 or -errno. */
static inline int weft__bridge_watch(struct weft__bridge *bridge, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    /* What was found for it before it changed may be about another descriptor by now. */
    for (int i = bridge->next; i < bridge->count; i++)
        if (bridge->events[i].data.fd == fd)
            bridge->events[i].data.fd = -1;
    if (events == 0) {
        epoll_ctl(bridge->epoll, EPOLL_CTL_DEL, fd, &event); /* fails if it is closed already */
        return 0;
    }
    if (epoll_ctl(bridge->epoll, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    if (weft__last_error() == ENOENT && epoll_ctl(bridge->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    return -weft__last_error();
}

/* 0 or -errno, with nothing left open. */
static inline int weft__bridge_open(struct weft__bridge *bridge)
{
    int rc = 0;

    bridge->due = bridge->armed = WEFT_FOREVER;
    bridge->next = bridge->count = 0;
    bridge->bell = bridge->timer = -1;
    if ((bridge->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
        (bridge->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
        (bridge->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) < 0)
        rc = -weft__last_error();
    if (rc == 0)
        rc = weft__bridge_watch(bridge, bridge->bell, EPOLLIN);
    if (rc == 0)
        rc = weft__bridge_watch(bridge, bridge->timer, EPOLLIN);
    if (rc < 0)
        weft__bridge_close(bridge);
    return rc;
}

/* Wake the driving task. */
static inline void weft__bridge_ring(struct weft__bridge *bridge)
{
    uint64_t one = 1;

    while (write(bridge->bell, &one, sizeof one) < 0 && weft__last_error() == EINTR)
        ;
}

static inline bool weft__bridge_is_due(const struct weft__bridge *bridge)
{
    return bridge->due != WEFT_FOREVER && bridge->due <= weft_now();
}

/* Before weft__bridge_async_wait. Libraries move their timers at every step, mostly to a later time. */
static inline void weft__bridge_arm(struct weft__bridge *bridge)
{
    struct itimerspec when = {.it_value = {bridge->due / 1000000000, bridge->due % 1000000000}};

    if (bridge->due >= bridge->armed)
        return;
    timerfd_settime(bridge->timer, TFD_TIMER_ABSTIME, &when, NULL);
    bridge->armed = bridge->due;
}

/* In WEFT_AWAIT, when it is not due: until something has happened. 1 or more, or -errno. */
static inline intptr_t weft__bridge_async_wait(struct weft__bridge *bridge)
{
    return weft_async_poll(bridge->epoll, POLLIN);
}

/* Look what has happened. */
static inline void weft__bridge_look(struct weft__bridge *bridge)
{
    int count = epoll_wait(bridge->epoll, bridge->events, WEFT__BRIDGE_EVENTS, 0);

    bridge->next = 0;
    bridge->count = count < 0 ? 0 : count;
}

/* The next event of a descriptor of the library's. False: that was all. */
static inline bool weft__bridge_next(struct weft__bridge *bridge, struct epoll_event *event)
{
    uint64_t times;

    while (bridge->next < bridge->count) {
        *event = bridge->events[bridge->next++];
        if (event->data.fd == bridge->timer)
            bridge->armed = WEFT_FOREVER;
        if (event->data.fd != bridge->timer && event->data.fd != bridge->bell && event->data.fd != -1)
            return true;
        /* The bell and the timer are read, so that they are silent until the next time. */
        if (event->data.fd != -1 && read(event->data.fd, &times, sizeof times) < 0)
            continue; /* EAGAIN: the timer was set anew meanwhile */
    }
    return false;
}

#endif
