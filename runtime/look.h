/*
 * Looking around: the clock, events, deadlines, the inbox, and peers that do not look themselves. Inside a worker.
 */
#ifndef WEFT_RUNTIME_LOOK_H
#define WEFT_RUNTIME_LOOK_H

#include "runtime/worker.h"

/* How often, about: a look at the clock costs 28 ns, at epoll 155 ns. */
enum { WEFT__LOOK_NS = 50 * 1000 };

/* Queue a task that an event made ready; `worker` is a struct weft__worker. For weft__poller_wait. */
void weft__queue_ready(weft_task *task, void *worker);

/* Move what others have handed to one worker into the queue of the other. */
void weft__drain_inbox(struct weft__worker *from, struct weft__worker *to);

/* Queue the tasks whose deadline has passed. */
void weft__expire(struct weft__driver *driver, struct weft__worker *to, struct weft__timers *timers, int64_t now);

/* Do for a peer that is in one long task what it does not do itself. */
void weft__serve_peer(struct weft__driver *driver, struct weft__worker *worker, struct weft__worker *peer,
                      int64_t now);

/* So much credit until the next look. */
void weft__give_credit(struct weft__worker *worker, int32_t credit);

#endif
