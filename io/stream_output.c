/*
 * The sending half of a stream. Called by tasks, and by the flusher.
 *
 * Who sends
 *
 * One at a time: whoever has the role of the sender (SENDING, taken under the lock). It alone makes attempts to
 * write and takes chunks out of the list; others only append to it. A writer that finds nothing buffered and
 * nobody in the role takes it, and passes its own bytes to the system call: no copy, no allocation. What the
 * descriptor does not take then becomes a chunk at the head of the list (others may have appended meanwhile), and
 * the role passes to the flusher: a stackless task that exists only as long as something is left, waits for room,
 * and sends. It holds a reference to the stream. The sender lays the role down under the lock, having seen there
 * that nothing is left.
 *
 * If the flusher cannot be had (no memory), or is cancelled because its runtime stops, the role is laid down with
 * bytes left over. Then whoever waits for them to be sent takes the role for each attempt, and waits for the
 * descriptor itself, without the role; as does the next writer.
 *
 * Chunks that are being sent do not move: appending fills the last chunk behind its `end`, or links a new one.
 * When the connection is lost, `pending` becomes zero at once, but the chunks are freed by the sender, when it
 * next looks.
 *
 * Who waits
 *
 * A task that waits for the low mark, for nothing to be left or for the end of a close looks at that under the
 * lock, and under the same lock puts itself into `waiters`. Whoever changes the state so that a wait may be over
 * takes the whole list under the lock, counts that in `wakes` (waiters.h), and wakes them after it; each looks
 * again. The driver of a protocol waits for other things besides: it has the event `progress`, which is set at the
 * same times while `watched`.
 */
#include "io/stream_output.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <weft/stackless.h>
#include <weft/time.h>

#include "io/last_error.h"
#include "runtime/debug.h"
#include "runtime/stackless.h"
#include "runtime/waitable.h"

enum {
    /* Small writes share chunks of this much, header included; one is kept for the next time. */
    CHUNK = 4096 - sizeof(struct weft__chunk),
    /* Chunks given to one system call. */
    PIECES = 16
};

/* ---- attempts ---- */

/* write(2) to a pipe that nobody reads raises SIGPIPE, which only the mask of the thread can prevent. */
static ssize_t write_to_pipe(int fd, const struct iovec *iov, int count)
{
    struct timespec at_once = {0, 0};
    sigset_t pipe_signal, before, pending;
    ssize_t n;

    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    n = writev(fd, iov, count);
    if (n < 0)
        n = -weft__last_error();
    if (n == -EPIPE && !sigismember(&pending, SIGPIPE)) {
        while (sigtimedwait(&pipe_signal, NULL, &at_once) < 0 && weft__last_error() == EINTR)
            ;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n;
}

static ssize_t write_to_socket(int fd, const struct iovec *iov, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    ssize_t n =
        count == 1 ? send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL) : sendmsg(fd, &message, MSG_NOSIGNAL);

    return n < 0 ? -weft__last_error() : n;
}

/* Not inlined: errno is looked up within, and a task may change threads before and after. */
static __attribute__((noinline)) ssize_t send_once(const weft_stream *stream, const struct iovec *iov, int count)
{
    ssize_t n;

    if (stream->is_socket)
        return write_to_socket(stream->fd, iov, count);
    if (stream->is_pipe)
        return write_to_pipe(stream->fd, iov, count);
    n = writev(stream->fd, iov, count);
    return n < 0 ? -weft__last_error() : n;
}

static size_t total(const struct iovec *iov, int count)
{
    size_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += iov[i].iov_len;
    return sum;
}

ssize_t weft__write_plainly(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit)
{
    ssize_t n = send_once(stream, iov, count);

    if (n >= 0 && !(n > 0 && (size_t)n < total(iov, count) && (weft__fd_flags(stream->entry) & WEFT__FD_STREAM)))
        *bit = 0;
    return n;
}

/* What to wait for after -EAGAIN, and what to tell weft__fd_begin then. */
struct obstacle {
    uint32_t bit, seen;
};

static __attribute__((noinline)) int shutdown_plainly(weft_stream *stream, uint32_t *bit)
{
    *bit = 0;
    int rc = shutdown(stream->fd, SHUT_WR) < 0 ? -weft__last_error() : 0;

    return rc == -ENOTCONN ? -EPIPE : rc; /* the peer has reset it: what writing says then */
}

/* One attempt to send (with no pieces: to shut down). With the role. */
static ssize_t attempt(weft_stream *stream, const struct iovec *iov, int count, struct obstacle *obstacle)
{
    ssize_t n;

    do {
        obstacle->bit = WEFT__FD_OUT;
        obstacle->seen = 0;
        if (count > 0 && stream->layer == NULL && weft__fd_known_idle(stream->entry, WEFT__FD_OUT))
            return -EAGAIN;
        if (!weft__stream_enter(stream))
            return -EBADF;
        if (stream->layer == NULL || (count == 0 && stream->layer->shutdown == NULL)) {
            obstacle->seen = weft__fd_ready(stream->entry);
            n = count > 0 ? weft__write_plainly(stream, iov, count, &obstacle->bit)
                          : shutdown_plainly(stream, &obstacle->bit);
            weft__stream_exhausted(stream, n, obstacle->bit, &obstacle->seen);
        } else {
            n = weft__layer_write(stream, iov, count, &obstacle->bit, &obstacle->seen);
        }
        weft__stream_leave(stream);
    } while (n == -EINTR);
    return n;
}

/* ---- chunks ---- */

/* A chunk with room for `size`. Without the lock. */
static struct weft__chunk *new_chunk(weft_stream *stream, size_t size)
{
    size_t capacity = size > CHUNK ? size : CHUNK;
    struct weft__chunk *chunk = NULL;

    if (capacity == CHUNK) {
        weft__lock_enter(&stream->lock);
        chunk = stream->spare;
        stream->spare = NULL;
        weft__lock_leave(&stream->lock);
    }
    if (chunk == NULL)
        chunk = capacity > SIZE_MAX / 2 ? NULL : malloc(sizeof *chunk + capacity);
    if (chunk != NULL)
        *chunk = (struct weft__chunk){.capacity = capacity};
    return chunk;
}

/* Copy all but the first `skip` bytes behind what is in the chunk. */
static void fill_chunk(struct weft__chunk *chunk, const struct iovec *iov, int count, size_t skip)
{
    for (int i = 0; i < count; i++) {
        size_t size = iov[i].iov_len, from = skip < size ? skip : size;

        if (size > from)
            memcpy(chunk->bytes + chunk->end, (const char *)iov[i].iov_base + from, size - from);
        chunk->end += size - from;
        skip -= from;
    }
}

static void free_chunks(struct weft__chunk *chunk)
{
    while (chunk != NULL) {
        struct weft__chunk *next = chunk->next;

        free(chunk);
        chunk = next;
    }
}

void weft__stream_free_output(weft_stream *stream)
{
    free_chunks(stream->first);
    free(stream->spare);
}

/* ---- with the lock ---- */

static void append(weft_stream *stream, struct weft__chunk *chunk)
{
    if (stream->last != NULL)
        stream->last->next = chunk;
    else
        stream->first = chunk;
    stream->last = chunk;
}

static void prepend(weft_stream *stream, struct weft__chunk *chunk)
{
    chunk->next = stream->first;
    stream->first = chunk;
    if (stream->last == NULL)
        stream->last = chunk;
}

static struct weft__chunk *take_chunks(weft_stream *stream)
{
    struct weft__chunk *first = stream->first;

    stream->first = stream->last = NULL;
    return first;
}

static void added(weft_stream *stream, size_t size)
{
    stream->pending += size;
    if (stream->pending > stream->high)
        stream->state |= WEFT__STREAM_PAUSED;
}

static bool has_to_half_close(const weft_stream *stream)
{
    return (stream->state & (WEFT__STREAM_EOF_ASKED | WEFT__STREAM_EOF_DONE)) == WEFT__STREAM_EOF_ASKED;
}

static int lost(const weft_stream *stream)
{
    return atomic_load_explicit(&stream->lost, memory_order_relaxed);
}

/* May something be written? */
static int refusal(const weft_stream *stream)
{
    if (lost(stream) != 0)
        return lost(stream);
    if (stream->state & WEFT__STREAM_CLOSING)
        return -EBADF;
    return stream->state & WEFT__STREAM_EOF_ASKED ? -ESHUTDOWN : 0;
}

/* Take `n` bytes that were sent out of the list; the chunks that are empty now are returned. */
static struct weft__chunk *consume(weft_stream *stream, size_t n)
{
    struct weft__chunk *first = NULL, **emptied = &first;

    if (lost(stream) != 0)
        return NULL; /* they are not counted any more */
    stream->pending -= n;
    while (stream->first != NULL) {
        struct weft__chunk *chunk = stream->first;
        size_t there = chunk->end - chunk->start;

        if (n < there) {
            chunk->start += n;
            break;
        }
        n -= there;
        stream->first = chunk->next;
        if (stream->first == NULL)
            stream->last = NULL;
        chunk->next = NULL;
        if (chunk->capacity == CHUNK && stream->spare == NULL) {
            stream->spare = chunk;
        } else {
            *emptied = chunk;
            emptied = &chunk->next;
        }
    }
    return first;
}

/* ---- waking ---- */

struct wakes {
    struct weft__wait *chain;
    bool watched;
};

/* With the lock: a wait may be over. */
static struct wakes wake_all(weft_stream *stream)
{
    stream->wakes += WEFT__GENERATION;
    return (struct wakes){weft__waiters_take(&stream->waiters), stream->watched};
}

/* Without it. */
static void tell(weft_stream *stream, struct wakes wakes)
{
    weft__wake_chain(wakes.chain, WEFT__GRANTED, NULL);
    if (wakes.watched)
        weft_event_set(&stream->progress);
}

void weft__stream_watch(weft_stream *stream, bool watched)
{
    weft__lock_enter(&stream->lock);
    stream->watched = watched;
    weft__lock_leave(&stream->lock);
}

uint32_t weft__stream_state(weft_stream *stream, int *error)
{
    uint32_t state;

    weft__lock_enter(&stream->lock);
    state = stream->state;
    *error = lost(stream);
    weft__lock_leave(&stream->lock);
    return state;
}

void weft__stream_lose(weft_stream *stream, int error)
{
    struct weft__chunk *chunks = NULL;
    struct wakes wakes;

    weft__lock_enter(&stream->lock);
    if (lost(stream) == 0)
        atomic_store_explicit(&stream->lost, error, memory_order_relaxed);
    stream->pending = 0;
    stream->state &= ~(uint32_t)WEFT__STREAM_PAUSED;
    if (!(stream->state & WEFT__STREAM_SENDING))
        chunks = take_chunks(stream);
    wakes = wake_all(stream);
    weft__lock_leave(&stream->lock);
    tell(stream, wakes);
    free_chunks(chunks);
}

/* ---- the sender ---- */

enum step { NOTHING_LEFT, SEND, HALF_CLOSE };

/* What comes next. If nothing does, the role is laid down. */
static enum step next_step(weft_stream *stream, struct iovec *iov, int *count)
{
    struct weft__chunk *dropped = NULL, *chunk;
    enum step step = NOTHING_LEFT;
    struct wakes wakes = {0};

    weft__lock_enter(&stream->lock);
    *count = 0;
    if (lost(stream) != 0)
        dropped = take_chunks(stream);
    for (chunk = stream->first; chunk != NULL && *count < PIECES; chunk = chunk->next)
        iov[(*count)++] = (struct iovec){chunk->bytes + chunk->start, chunk->end - chunk->start};
    if (*count > 0) {
        step = SEND;
    } else if (has_to_half_close(stream) && lost(stream) == 0) {
        step = HALF_CLOSE;
    } else {
        stream->state &= ~(uint32_t)WEFT__STREAM_SENDING;
        wakes = wake_all(stream);
    }
    weft__lock_leave(&stream->lock);
    tell(stream, wakes);
    free_chunks(dropped);
    return step;
}

static void sent(weft_stream *stream, enum step step, size_t n)
{
    struct weft__chunk *emptied = NULL;
    struct wakes wakes = {0};

    weft__lock_enter(&stream->lock);
    if (step == HALF_CLOSE)
        stream->state |= WEFT__STREAM_EOF_DONE;
    else
        emptied = consume(stream, n);
    if ((stream->state & WEFT__STREAM_PAUSED) && stream->pending <= stream->low) {
        stream->state &= ~(uint32_t)WEFT__STREAM_PAUSED;
        wakes = wake_all(stream);
    }
    weft__lock_leave(&stream->lock);
    tell(stream, wakes);
    free_chunks(emptied);
}

/* Send until nothing is left: 0, the role is laid down. -EAGAIN: the obstacle has to be waited for, the role is
 * kept. */
static int send_what_goes(weft_stream *stream, struct obstacle *obstacle)
{
    struct iovec iov[PIECES];
    enum step step;
    int count;

    while ((step = next_step(stream, iov, &count)) != NOTHING_LEFT) {
        ssize_t n = attempt(stream, iov, count, obstacle);

        if (n == -EAGAIN)
            return -EAGAIN;
        if (n < 0)
            weft__stream_lose(stream, (int)n);
        else
            sent(stream, step, (size_t)n);
    }
    return 0;
}

/* Lay the role down with bytes left over. */
static void abandon(weft_stream *stream)
{
    struct wakes wakes;

    weft__lock_enter(&stream->lock);
    stream->state &= ~(uint32_t)WEFT__STREAM_SENDING;
    wakes = wake_all(stream);
    weft__lock_leave(&stream->lock);
    tell(stream, wakes);
}

/* ---- the flusher ---- */

struct readiness {
    weft_stream *stream;
};

static int begin_to_wait(void *request, struct weft__wait *wait)
{
    const weft_stream *stream = ((struct readiness *)request)->stream;

    return weft__fd_begin(stream->fd, stream->entry, stream->generation, stream->flusher_bit, stream->flusher_seen,
                          wait);
}

static bool withdraw(void *request, struct weft__wait *wait)
{
    return weft__fd_withdraw(((struct readiness *)request)->stream->entry, wait);
}

static intptr_t wait_in_step(weft_stream *stream)
{
    static const struct weft__waitable waitable = {begin_to_wait, withdraw};
    struct readiness request = {stream};
    enum weft__outcome outcome;
    intptr_t rc = weft__async_request(&waitable, stream->entry, &request, NULL, &outcome, NULL);

    if (rc != 0)
        return rc;
    return outcome == WEFT__CLOSED && !(weft__fd_flags(stream->entry) & WEFT__FD_ALWAYS) ? -EBADF : 0;
}

/* A step of the flusher: send, or wait. 0: it is through. */
static intptr_t flush_in_step(weft_stream *stream)
{
    for (;;) {
        intptr_t rc;

        if (!stream->flusher_waits) {
            struct obstacle obstacle;

            if (send_what_goes(stream, &obstacle) == 0)
                return 0;
            stream->flusher_bit = obstacle.bit;
            stream->flusher_seen = obstacle.seen;
            stream->flusher_waits = true;
        }
        rc = wait_in_step(stream);
        if (rc == WEFT_PENDING)
            return WEFT_PENDING;
        stream->flusher_waits = false;
        if (rc == 0)
            continue;
        if (rc == -EBADF)
            weft__stream_lose(stream, -EBADF);
        abandon(stream);
        return 0;
    }
}

static intptr_t flusher(void *arg)
{
    weft_stream *stream = arg;
    intptr_t rc = flush_in_step(stream);

    if (rc != WEFT_PENDING)
        weft__stream_drop(stream);
    return rc;
}

/* Pass the role on to a flusher. False: there is none, the role is laid down. */
static bool hand_over(weft_stream *stream, const struct obstacle *obstacle)
{
    weft_task *task;

    weft__stream_hold(stream);
    stream->flusher_bit = obstacle->bit;
    stream->flusher_seen = obstacle->seen;
    stream->flusher_waits = true;
    /* Always: cancelled before it starts, it must still lay down the role. */
    task = weft__spawn_stackless_always(flusher, stream);
    if (task == NULL) {
        abandon(stream);
        weft__stream_drop(stream);
        return false;
    }
    weft_detach(task);
    return true;
}

/* Send what goes at once, and leave the rest to a flusher. With the role, which it gives away. 0; -EAGAIN: bytes
 * are left over, and nobody sends them. */
static int push(weft_stream *stream, struct obstacle *obstacle)
{
    if (send_what_goes(stream, obstacle) == 0)
        return 0;
    return hand_over(stream, obstacle) ? 0 : -EAGAIN;
}

/* ---- the role for somebody else ---- */

int weft__stream_take_role(weft_stream *stream)
{
    int rc;

    weft__lock_enter(&stream->lock);
    rc = refusal(stream);
    if (rc == 0 && ((stream->state & WEFT__STREAM_SENDING) || stream->first != NULL))
        rc = -EAGAIN;
    if (rc == 0)
        stream->state |= WEFT__STREAM_SENDING;
    weft__lock_leave(&stream->lock);
    return rc;
}

void weft__stream_lay_role_down(weft_stream *stream)
{
    struct obstacle obstacle;

    push(stream, &obstacle);
}

/* ---- writing ---- */

/* Sent were `n` bytes, or an error. The rest becomes the first chunk. */
static int keep_the_rest(weft_stream *stream, const struct iovec *iov, int count, ssize_t n, size_t size)
{
    size_t done = n < 0 ? 0 : (size_t)n;
    struct weft__chunk *chunk = new_chunk(stream, size - done);
    int rc;

    if (chunk == NULL) {
        /* A message without its end: the peer would take what follows for it. A layer that has begun with the bytes
         * insists on being given the same ones again. */
        if (done > 0 || stream->layer != NULL)
            weft__stream_lose(stream, -ENOMEM);
        return -ENOMEM;
    }
    fill_chunk(chunk, iov, count, done);
    weft__lock_enter(&stream->lock);
    rc = lost(stream);
    if (rc == 0) {
        prepend(stream, chunk);
        added(stream, size - done);
    }
    weft__lock_leave(&stream->lock);
    if (rc != 0)
        free(chunk);
    return rc;
}

/* With the role, nothing being buffered. */
static int write_directly(weft_stream *stream, const struct iovec *iov, int count, size_t size)
{
    struct obstacle obstacle;
    ssize_t n = attempt(stream, iov, count, &obstacle);
    int rc = 0;

    if (n < 0 && n != -EAGAIN)
        weft__stream_lose(stream, rc = (int)n);
    else if (n < 0 || (size_t)n < size)
        rc = keep_the_rest(stream, iov, count, n, size);
    push(stream, &obstacle);
    return rc;
}

/* With the lock. Small writes go behind others into the last chunk. */
static bool fits(const weft_stream *stream, size_t size)
{
    return stream->last != NULL && size <= CHUNK && stream->last->capacity - stream->last->end >= size;
}

/* Behind what is buffered. */
static int write_behind(weft_stream *stream, const struct iovec *iov, int count, size_t size)
{
    struct weft__chunk *chunk = NULL;
    struct obstacle obstacle;
    bool sends;
    int rc;

    weft__lock_enter(&stream->lock);
    if (!fits(stream, size)) {
        weft__lock_leave(&stream->lock);
        chunk = new_chunk(stream, size);
        if (chunk == NULL)
            return -ENOMEM;
        fill_chunk(chunk, iov, count, 0);
        weft__lock_enter(&stream->lock);
    }
    rc = refusal(stream);
    if (rc != 0) {
        weft__lock_leave(&stream->lock);
        free(chunk);
        return rc;
    }
    if (chunk != NULL)
        append(stream, chunk);
    else
        fill_chunk(stream->last, iov, count, 0);
    added(stream, size);
    sends = !(stream->state & (WEFT__STREAM_SENDING | WEFT__STREAM_CORKED));
    if (sends)
        stream->state |= WEFT__STREAM_SENDING;
    weft__lock_leave(&stream->lock);
    if (sends)
        push(stream, &obstacle);
    return 0;
}

static int check_pieces(const struct iovec *iov, int count, size_t *size)
{
    *size = 0;
    if (count < 0 || count > 1024)
        return -EINVAL;
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len > SSIZE_MAX - *size)
            return -EINVAL;
        *size += iov[i].iov_len;
    }
    return 0;
}

int weft_stream_writev(weft_stream *stream, const struct iovec *iov, int count)
{
    bool directly;
    size_t size;
    int rc = check_pieces(iov, count, &size);

    if (rc < 0)
        return rc;
    if (weft_self() == NULL)
        return weft__misused("weft_stream_write");
    weft__lock_enter(&stream->lock);
    rc = refusal(stream);
    directly = rc == 0 && size > 0 && stream->first == NULL &&
               !(stream->state & (WEFT__STREAM_SENDING | WEFT__STREAM_CORKED));
    if (directly)
        stream->state |= WEFT__STREAM_SENDING;
    weft__lock_leave(&stream->lock);
    if (rc != 0 || size == 0)
        return rc;
    return directly ? write_directly(stream, iov, count, size) : write_behind(stream, iov, count, size);
}

int weft_stream_write(weft_stream *stream, const void *data, size_t size)
{
    struct iovec iov = {(void *)(uintptr_t)data, size};

    return weft_stream_writev(stream, &iov, 1);
}

/* Change the state, and send what is left over then. */
static int change_and_push(weft_stream *stream, uint32_t set, uint32_t cleared)
{
    struct obstacle obstacle;
    bool sends;
    int rc;

    if (weft_self() == NULL)
        return weft__misused("a call that writes to a stream");
    weft__lock_enter(&stream->lock);
    rc = refusal(stream);
    if (rc == -ESHUTDOWN) /* half-closing again; uncorking after it */
        rc = 0;
    sends = false;
    if (rc == 0) {
        stream->state = (stream->state | set) & ~cleared;
        sends = !(stream->state & (WEFT__STREAM_SENDING | WEFT__STREAM_CORKED)) &&
                (stream->first != NULL || has_to_half_close(stream));
        if (sends)
            stream->state |= WEFT__STREAM_SENDING;
    }
    weft__lock_leave(&stream->lock);
    if (sends)
        push(stream, &obstacle);
    return rc;
}

int weft_stream_cork(weft_stream *stream)
{
    return change_and_push(stream, WEFT__STREAM_CORKED, 0);
}

int weft_stream_uncork(weft_stream *stream)
{
    return change_and_push(stream, 0, WEFT__STREAM_CORKED);
}

int weft_stream_can_write_eof(const weft_stream *stream)
{
    return stream->is_socket;
}

int weft_stream_write_eof(weft_stream *stream)
{
    int rc;

    if (!stream->is_socket)
        return -EOPNOTSUPP;
    /* Nothing can be written any more that would have to be kept back. */
    rc = change_and_push(stream, WEFT__STREAM_EOF_ASKED, WEFT__STREAM_CORKED);
    return rc != 0 ? rc : lost(stream);
}

/* ---- waiting ---- */

/* Is the wait over? With the lock: 1, 0, or the error that ended the connection. */
typedef int is_over(const weft_stream *stream);

static int is_drained(const weft_stream *stream)
{
    return lost(stream) != 0 ? lost(stream) : !(stream->state & WEFT__STREAM_PAUSED);
}

static int is_flushed(const weft_stream *stream)
{
    if (lost(stream) != 0)
        return lost(stream);
    return stream->first == NULL && !(stream->state & WEFT__STREAM_SENDING) && !has_to_half_close(stream);
}

static int is_closed(const weft_stream *stream)
{
    return (stream->state & WEFT__STREAM_OVER) != 0;
}

/* Nobody sends: an attempt, and if it is nobody's business afterwards, the wait for the next. With the role. */
static int push_or_wait(weft_stream *stream)
{
    struct obstacle obstacle;

    if (push(stream, &obstacle) == 0)
        return 0;
    return weft__fd_wait(stream->fd, stream->entry, stream->generation, obstacle.bit, obstacle.seen, WEFT_FOREVER);
}

/* What a task waits for, in its frame. */
struct condition {
    weft_stream *stream;
    is_over *over;
    bool pushes; /* takes the role if nobody has it */
    bool sends;  /* has taken it */
    int result;  /* of `over` */
};

static int look_or_queue(void *object, struct weft__wait *wait)
{
    struct condition *condition = object;
    weft_stream *stream = condition->stream;
    int rc = 0;

    weft__lock_enter(&stream->lock);
    condition->result = condition->over(stream);
    condition->sends = condition->result == 0 && condition->pushes && !(stream->state & WEFT__STREAM_SENDING);
    if (condition->sends) {
        stream->state |= WEFT__STREAM_SENDING;
    } else if (condition->result == 0) {
        wait->kind = stream->wakes;
        weft__waiters_push(&stream->waiters, wait);
        rc = WEFT__BEGUN;
    }
    weft__lock_leave(&stream->lock);
    return rc;
}

static bool leave_queue(void *object, struct weft__wait *wait)
{
    weft_stream *stream = ((struct condition *)object)->stream;
    bool queued;

    weft__lock_enter(&stream->lock);
    queued = wait->kind == stream->wakes;
    if (queued)
        weft__waiters_remove(&stream->waiters, wait);
    weft__lock_leave(&stream->lock);
    return queued;
}

static int wait_until(weft_stream *stream, is_over *over, bool pushes)
{
    static const struct weft__waitable waitable = {look_or_queue, leave_queue};
    struct condition condition = {.stream = stream, .over = over, .pushes = pushes};

    for (;;) {
        struct weft__wait wait = {0};
        int rc = weft__wait_for(&waitable, &condition, &wait);

        if (rc == 0 && condition.result != 0)
            return condition.result < 0 ? condition.result : 0;
        if (rc == 0 && condition.sends)
            rc = push_or_wait(stream);
        if (rc < 0)
            return rc;
    }
}

static int check_and_wait_until(weft_stream *stream, is_over *over)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (weft__coroutine_self() == NULL)
        return weft__misused("a call that waits for a stream");
    return wait_until(stream, over, true);
}

int weft_stream_drain(weft_stream *stream)
{
    return check_and_wait_until(stream, is_drained);
}

int weft_stream_flush(weft_stream *stream)
{
    return check_and_wait_until(stream, is_flushed);
}

int weft_stream_set_write_limits(weft_stream *stream, size_t high, size_t low)
{
    struct wakes wakes = {0};

    if (low > high)
        return -EINVAL;
    weft__lock_enter(&stream->lock);
    stream->high = high;
    stream->low = low;
    if (stream->pending > high) {
        stream->state |= WEFT__STREAM_PAUSED;
    } else if (stream->pending <= low) {
        stream->state &= ~(uint32_t)WEFT__STREAM_PAUSED;
        wakes = wake_all(stream);
    }
    weft__lock_leave(&stream->lock);
    tell(stream, wakes);
    return 0;
}

void weft_stream_write_limits(weft_stream *stream, size_t *high, size_t *low)
{
    weft__lock_enter(&stream->lock);
    *high = stream->high;
    *low = stream->low;
    weft__lock_leave(&stream->lock);
}

size_t weft_stream_buffered(weft_stream *stream)
{
    size_t pending;

    weft__lock_enter(&stream->lock);
    pending = stream->pending;
    weft__lock_leave(&stream->lock);
    return pending;
}

/* ---- the end ---- */

static void end(weft_stream *stream)
{
    struct wakes wakes;

    weft__stream_lose(stream, -EBADF);
    weft__stream_shut(stream);
    weft__lock_enter(&stream->lock);
    stream->state |= WEFT__STREAM_CLOSING | WEFT__STREAM_OVER;
    wakes = wake_all(stream);
    weft__lock_leave(&stream->lock);
    tell(stream, wakes);
}

void weft_stream_abort(weft_stream *stream)
{
    weft__lock_enter(&stream->lock);
    stream->state |= WEFT__STREAM_CLOSING;
    weft__lock_leave(&stream->lock);
    end(stream);
}

/* With the lock: a layer takes leave of the peer before the descriptor is closed. */
static bool has_to_take_leave(const weft_stream *stream)
{
    return stream->layer != NULL && stream->layer->shutdown != NULL && lost(stream) == 0;
}

int weft_stream_close(weft_stream *stream)
{
    bool first, leaves;
    int rc;

    weft__lock_enter(&stream->lock);
    first = !(stream->state & WEFT__STREAM_CLOSING);
    leaves = first && has_to_take_leave(stream);
    stream->state |= WEFT__STREAM_CLOSING;
    if (leaves)
        stream->state = (stream->state | WEFT__STREAM_EOF_ASKED) & ~(uint32_t)WEFT__STREAM_CORKED;
    rc = first ? is_flushed(stream) : is_closed(stream);
    weft__lock_leave(&stream->lock);
    if (rc ==
        0) /* a caller that is cancelled still makes an attempt, and hears of it where it would have to wait */
        rc = first ? wait_until(stream, is_flushed, true) : wait_until(stream, is_closed, false);
    if (leaves && rc >= 0)
        weft__layer_discard(stream);
    if (first)
        end(stream);
    return rc < 0 ? rc : 0;
}

int weft_stream_is_closing(const weft_stream *stream)
{
    weft_stream *mine = (weft_stream *)(uintptr_t)stream;
    int error;

    return (weft__stream_state(mine, &error) & WEFT__STREAM_CLOSING) != 0;
}
