/*
 * What happens in the child of a fork (fork.h), on its only thread, before fork(2) returns there.
 *
 * A child that was forked by a task goes on inside that task's frame, but outside of any runtime from then on: its
 * thread drives none. So a call that would suspend is refused or blocks the thread, as it is on any other thread, and
 * does not reach for the event loop of the parent, whose epoll set the child shares. For the same reason nothing of
 * what is known about descriptors may survive: closing one here would take it out of the parent's epoll set.
 *
 * The locks of the table of descriptors may have been held by threads that are not here; nobody else is, so they are
 * opened. Other locks of the parent's runtimes are not touched, since nothing gets that far.
 */
#include "runtime/fork.h"

#include <errno.h>
#include <pthread.h>
#include <sysexits.h>
#include <unistd.h>

#include "runtime/poller.h"
#include "runtime/worker.h"

uint32_t weft__forks;

static void in_child(void)
{
    weft__forks++;
    weft__driver_forget();
    weft__fd_forget_all();
}

void weft__fork_returned(void)
{
    _exit(EX_SOFTWARE);
}

static struct {
    pthread_once_t once;
    int rc;
} watching = {.once = PTHREAD_ONCE_INIT};

static void watch(void)
{
    watching.rc = -pthread_atfork(NULL, NULL, in_child);
}

int weft__fork_watch(void)
{
    pthread_once(&watching.once, watch);
    return watching.rc;
}
