/*
 * Stackless tasks: tasks that keep their state in a structure of the caller's instead of on a stack.
 *
 * They run on the same workers, are spawned, awaited, cancelled and named as other tasks are, and cost a record of
 * 128 bytes and what their own structure holds. Their function is called again and again until it returns its
 * result; each time it goes on where it left off:
 *
 *     struct echo { weft_frame frame; weft_chan *in, *out; intptr_t rc; int item; };
 *
 *     static intptr_t echo(void *arg)
 *     {
 *         struct echo *e = arg;
 *
 *         WEFT_BEGIN(e);
 *         for (;;) {
 *             WEFT_AWAIT(e, e->rc, weft_async_recv(e->in, &e->item));
 *             if (e->rc < 0)
 *                 break;
 *             WEFT_AWAIT(e, e->rc, weft_async_send(e->out, &e->item));
 *             if (e->rc < 0)
 *                 break;
 *         }
 *         WEFT_END(e, 0);
 *     }
 *
 * Local variables do not survive a WEFT_AWAIT: what must last lies in the structure (a frame zeroed before the first
 * call). The expression in a WEFT_AWAIT is evaluated again each time the task is resumed until it is through,
 * so its arguments must be the same then. Between WEFT_BEGIN and WEFT_END no `switch` may enclose a WEFT_AWAIT, and
 * a line holds at most one. A stackless function may await another one by calling it, each with a frame of its
 * own: WEFT_AWAIT(e, e->rc, other(&e->other)). (After Adam Dunkels' protothreads, 2006, with the state outside.)
 *
 * The weft_async_* operations below return their result, or WEFT_PENDING after having arranged for the task to be
 * resumed. They are for stackless tasks only (-EPERM elsewhere), and one of them may be pending at a time
 * (-EBUSY for another). What suspends a whole stack (weft_recv, weft_sleep…) returns -EPERM in a stackless task.
 */
#ifndef WEFT_STACKLESS_H
#define WEFT_STACKLESS_H

#include <weft/base.h>
#include <weft/channel.h>
#include <weft/promise.h>
#include <weft/select.h>
#include <weft/sync.h>
#include <weft/task.h>

WEFT_BEGIN_DECLS

/* What a stackless function returns when it is not through. No result may have this value. */
#define WEFT_PENDING INTPTR_MIN

/* Where it goes on. Zero: at the beginning. */
typedef struct weft_frame {
    uint32_t resume;
} weft_frame;

#define WEFT_BEGIN(self)            \
    switch ((self)->frame.resume) { \
    case 0:

/* Evaluate `operation`; if it is pending, return and evaluate it again when resumed; store its result. */
#define WEFT_AWAIT(self, result, operation)        \
    do {                                           \
        (self)->frame.resume = (uint32_t)__LINE__; \
        __attribute__((fallthrough));              \
    case __LINE__:                                 \
        (result) = (operation);                    \
        if ((result) == WEFT_PENDING)              \
            return WEFT_PENDING;                   \
    } while (0)

/* The end, with the result; the frame may be used again from the beginning. */
#define WEFT_END(self, result) \
    }                          \
    (self)->frame.resume = 0;  \
    return (result)

/* The end when the structure is gone: it was freed just before. */
#define WEFT_DONE(result) \
    }                     \
    return (result)

/*
 * Spawn a stackless task: fn(arg) is called on the workers until it returns something else than WEFT_PENDING.
 * `arg` must live until then. A handle as weft_spawn's, or NULL. Task; not a suspension point.
 */
WEFT_API weft_task *weft_spawn_stackless(weft_fn *fn, void *arg) WEFT_NODISCARD;

/* The same, detached: 0, -ENOMEM, -EPERM outside a task. */
WEFT_API int weft_go_stackless(weft_fn *fn, void *arg);

/* As weft_yield, weft_sleep, weft_sleep_until. */
WEFT_API intptr_t weft_async_yield(void);
WEFT_API intptr_t weft_async_sleep(int64_t ns);
WEFT_API intptr_t weft_async_sleep_until(int64_t when);

/*
 * As weft_await_into: 0, -ECANCELED or -ETIMEDOUT when the task has ended, its handle freed and its result
 * in *result. -EINVAL, -EBUSY, -EDEADLK.
 */
WEFT_API intptr_t weft_async_await(weft_task *task, intptr_t *result);

/* As weft_promise_await; the promise's result in *result, which may be NULL: 0, -ECANCELED, -ETIMEDOUT. */
WEFT_API intptr_t weft_async_promise(weft_promise *promise, intptr_t *result);

/* As weft_mutex_lock, weft_sem_acquire, weft_event_wait, weft_notify_wait, weft_waitgroup_wait,
 * weft_rwlock_rdlock, weft_rwlock_wrlock. */
WEFT_API intptr_t weft_async_lock(weft_mutex *mutex);
WEFT_API intptr_t weft_async_sem(weft_sem *sem);
WEFT_API intptr_t weft_async_event(weft_event *event);
WEFT_API intptr_t weft_async_notify(weft_notify *notify);
WEFT_API intptr_t weft_async_waitgroup(weft_waitgroup *group);
WEFT_API intptr_t weft_async_rdlock(weft_rwlock *rwlock);
WEFT_API intptr_t weft_async_wrlock(weft_rwlock *rwlock);

/* As weft_chan_send, weft_chan_recv. *elem must be the same object until it is through. */
WEFT_API intptr_t weft_async_send(weft_chan *chan, const void *elem);
WEFT_API intptr_t weft_async_recv(weft_chan *chan, void *elem);

/* As weft_poll without a time limit of its own: the events that hold. */
WEFT_API intptr_t weft_async_poll(int fd, int events);

/* As weft_read, weft_write, weft_accept. */
WEFT_API intptr_t weft_async_read(int fd, void *buffer, size_t size);
WEFT_API intptr_t weft_async_write(int fd, const void *buffer, size_t size);
WEFT_API intptr_t weft_async_accept(int fd);

WEFT_END_DECLS

#endif
