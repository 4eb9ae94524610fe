/*
 * Streams: their life, and reading. (Sending is in stream_output.c.) Called by tasks; is_closing, abort, free and
 * what only looks also by other threads.
 *
 * Reading is pulled: nothing is taken from the descriptor unless somebody reads, and never more than fits below
 * the limit; so the peer is held up by its own send buffer. The input and what belongs to it are the reader's,
 * who has set `reading`; there is no lock.
 *
 * The descriptor's number must not be closed while another task of the stream is about to pass it to a system
 * call: the kernel may have given it to somebody else by then. So each attempt enters `uses`, a count with the
 * bit CLOSED. Who closes sets CLOSED, after which nobody enters; the number is given back by whoever is the last
 * to be in: the closer, if the count is zero, else the one who brings it to zero (exactly one sees CLOSED | 1
 * go). Attempts do not wait, so this is a matter of microseconds. Between attempts a task waits with the
 * generation that the descriptor had when the stream was opened: weft_close wakes it, and a wait that begins
 * later finds another generation.
 */
#include "io/stream.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <weft/fd.h>
#include <weft/group.h>
#include <weft/time.h>

#include "io/last_error.h"
#include "io/separator.h"
#include "io/stream_output.h"
#include "runtime/debug.h"
#include "runtime/park.h"

enum {
    /* The input begins with this much (only what was used of it costs memory), and goes back to it when it is
     * empty. */
    INPUT = 16384,
    /* A read of this much that finds nothing read ahead goes straight to where it is wanted. */
    DIRECT = 4096,
    COPIED_AT_ONCE = 65536
};

/* ---- the descriptor ---- */

bool weft__stream_enter(weft_stream *stream)
{
    uint32_t uses = atomic_load_explicit(&stream->uses, memory_order_relaxed);

    do {
        if (uses & WEFT__STREAM_CLOSED)
            return false;
        /* acquire: nothing of the attempt moves before it; pairs with the closer, who needs no more than the
         * order in which `uses` changes */
    } while (!atomic_compare_exchange_weak_explicit(&stream->uses, &uses, uses + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    return true;
}

void weft__stream_leave(weft_stream *stream)
{
    /* release: the attempt is over for whoever closes; acquire: and for this one, if it is the one who closes */
    uint32_t before = atomic_fetch_sub_explicit(&stream->uses, 1, memory_order_acq_rel);

    if (__builtin_expect(before == (WEFT__STREAM_CLOSED | 1), 0))
        weft_close(stream->fd);
}

/* No more attempts. Any thread, any number of times. */
void weft__stream_shut(weft_stream *stream)
{
    uint32_t before = atomic_fetch_or_explicit(&stream->uses, WEFT__STREAM_CLOSED, memory_order_acq_rel);

    if (before == 0)
        weft_close(stream->fd);
}

void weft__stream_exhausted(weft_stream *stream, ssize_t result, uint32_t bit, uint32_t *seen)
{
    if (bit == 0 || (result >= 0 && (*seen & (WEFT__FD_HUP | WEFT__FD_PRI))))
        return;
    weft__fd_clear(stream->entry, bit, *seen);
    *seen &= ~bit; /* what it is now, unless there was a newer event */
}

/* errno of the call just made. Looked up here, in a function of its own, since tasks change threads. */
static __attribute__((noinline)) ssize_t receive_once(const weft_stream *stream, const struct iovec *iov, int count)
{
    ssize_t n;

    if (count != 1 || iov->iov_len == 0) /* for no bytes recv would wait */
        n = readv(stream->fd, iov, count);
    else if (stream->is_socket) /* without read's detour over files */
        n = recv(stream->fd, iov->iov_base, iov->iov_len, 0);
    else
        n = read(stream->fd, iov->iov_base, iov->iov_len);
    return n < 0 ? -weft__last_error() : n;
}

static size_t total(const struct iovec *iov, int count)
{
    size_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += iov[i].iov_len;
    return sum;
}

ssize_t weft__read_plainly(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit)
{
    ssize_t n = receive_once(stream, iov, count);

    if (n >= 0 && !(n > 0 && (size_t)n < total(iov, count) && (weft__fd_flags(stream->entry) & WEFT__FD_STREAM)))
        *bit = 0;
    return n;
}

/* ---- its life ---- */

static __attribute__((noinline)) int learn_type(weft_stream *stream)
{
    struct stat status;

    if (fstat(stream->fd, &status) < 0)
        return -weft__last_error();
    stream->is_socket = S_ISSOCK(status.st_mode);
    stream->is_pipe = S_ISFIFO(status.st_mode);
    return 0;
}

static int take_over(weft_stream *stream, int fd)
{
    int rc;

    stream->fd = fd;
    stream->entry = weft__fd_entry(fd);
    if (stream->entry == NULL)
        return -EBADF;
    weft__fd_wait_while_closing(stream->entry);
    stream->generation = atomic_load_explicit(&stream->entry->generation, memory_order_relaxed);
    rc = learn_type(stream);
    return rc < 0 ? rc : weft__fd_prepare(fd, stream->entry, stream->generation);
}

int weft_stream_open(int fd, weft_stream **stream)
{
    weft_stream *made = calloc(1, sizeof *made);
    int rc;

    if (made == NULL)
        return -ENOMEM;
    rc = take_over(made, fd);
    if (rc < 0) {
        free(made);
        return rc;
    }
    made->limit = WEFT_STREAM_LIMIT;
    made->high = WEFT_STREAM_HIGH;
    made->low = WEFT_STREAM_LOW;
    atomic_store_explicit(&made->references, 1, memory_order_relaxed);
    *stream = made;
    return 0;
}

static int open_dialled(int fd, weft_stream **stream)
{
    int rc = fd < 0 ? fd : weft_stream_open(fd, stream);

    if (fd >= 0 && rc < 0)
        weft_close(fd);
    return rc;
}

int weft_stream_dial(const char *host, uint16_t port, weft_stream **stream)
{
    return open_dialled(weft_dial(host, port), stream);
}

int weft_stream_dial_address(const weft_address *address, weft_stream **stream)
{
    return open_dialled(weft_dial_address(address, NULL, 0), stream);
}

void weft__stream_hold(weft_stream *stream)
{
    /* relaxed: whoever takes another reference has one */
    atomic_fetch_add_explicit(&stream->references, 1, memory_order_relaxed);
}

void weft__stream_drop(weft_stream *stream)
{
    /* acq_rel: what the others did to the stream comes before it is freed */
    if (atomic_fetch_sub_explicit(&stream->references, 1, memory_order_acq_rel) != 1)
        return;
    if (stream->layer != NULL && stream->layer->free != NULL)
        stream->layer->free(stream->layer_state);
    weft__stream_free_output(stream);
    free(stream->raw);
    free(stream->input);
    free(stream);
}

void weft_stream_free(weft_stream *stream)
{
    if (stream == NULL)
        return;
    weft_stream_abort(stream);
    weft__stream_drop(stream);
}

int weft_stream_fd(const weft_stream *stream)
{
    return atomic_load_explicit(&stream->uses, memory_order_relaxed) & WEFT__STREAM_CLOSED ? -EBADF : stream->fd;
}

/* ---- the reader ---- */

enum { UNREAD, READ, LOOKED_AT }; /* `reading` */

/* Who only looks is gone in a moment, and is no second reader. */
static int claim(weft_stream *stream, uint32_t what)
{
    uint32_t before = UNREAD;

    /* acquire: pairs with the release of the reader before */
    while (!atomic_compare_exchange_weak_explicit(&stream->reading, &before, what, memory_order_acquire,
                                                  memory_order_relaxed)) {
        if (before == READ)
            return -EBUSY;
        if (before == LOOKED_AT)
            sched_yield();
        before = UNREAD;
    }
    return 0;
}

int weft__stream_claim(weft_stream *stream)
{
    return claim(stream, READ);
}

void weft__stream_unclaim(weft_stream *stream)
{
    atomic_store_explicit(&stream->reading, UNREAD, memory_order_release);
}

/* Begin a call that reads. */
static int begin_to_read(weft_stream *stream)
{
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (weft__coroutine_self() == NULL)
        return weft__misused("a call that reads from a stream");
    return weft__stream_claim(stream);
}

static ssize_t end_of_read(weft_stream *stream, ssize_t result)
{
    weft__stream_unclaim(stream);
    return result;
}

/*
 * The end was seen. A failed write may have taken the connection's error with it, which the kernel tells once:
 * then this is no orderly end. (EPIPE is none of the peer's input: it has only closed its reading side.)
 */
static ssize_t at_the_end(weft_stream *stream)
{
    int lost = atomic_load_explicit(&stream->lost, memory_order_relaxed);

    stream->ended = true;
    if (stream->is_socket && lost != 0 && lost != -EPIPE && lost != -EBADF && lost != -ENOMEM)
        stream->read_error = lost;
    return stream->read_error;
}

static ssize_t reading_failed(weft_stream *stream, ssize_t error)
{
    stream->read_error = (int)error;
    if (stream->is_socket) /* then nothing can be written either */
        weft__stream_lose(stream, (int)error);
    return error;
}

/* One attempt: bytes, 0 at the end, -EAGAIN with what to wait for, or an error. */
static ssize_t try_to_receive(weft_stream *stream, const struct iovec *iov, int count, uint32_t *bit,
                              uint32_t *seen)
{
    ssize_t n;

    if (stream->ended || stream->read_error != 0)
        return stream->read_error;
    do {
        *bit = WEFT__FD_IN;
        *seen = 0;
        if (stream->layer == NULL && weft__fd_known_idle(stream->entry, WEFT__FD_IN))
            return -EAGAIN;
        if (!weft__stream_enter(stream))
            return -EBADF;
        if (stream->layer == NULL) {
            *seen = weft__fd_ready(stream->entry);
            n = weft__read_plainly(stream, iov, count, bit);
            weft__stream_exhausted(stream, n, *bit, seen);
        } else {
            n = weft__layer_read(stream, iov, count, bit, seen);
        }
        weft__stream_leave(stream);
    } while (n == -EINTR);
    if (n > 0 || n == -EAGAIN)
        return n;
    return n == 0 ? at_the_end(stream) : reading_failed(stream, n);
}

/* The same, waiting. */
static ssize_t receive(weft_stream *stream, void *buffer, size_t size)
{
    struct iovec iov = {buffer, size};
    uint32_t bit, seen;

    for (;;) {
        ssize_t n = try_to_receive(stream, &iov, 1, &bit, &seen);

        if (n != -EAGAIN)
            return n;
        n = weft__fd_wait(stream->fd, stream->entry, stream->generation, bit, seen, WEFT_FOREVER);
        if (n < 0)
            return n;
    }
}

/* ---- what was read ahead ---- */

static size_t ahead(const weft_stream *stream)
{
    return stream->end - stream->start;
}

size_t weft__stream_take_input(weft_stream *stream, void *buffer, size_t size)
{
    size_t n = ahead(stream) < size ? ahead(stream) : size;

    if (n > 0)
        memcpy(buffer, stream->input + stream->start, n);
    stream->start += n;
    return n;
}

static int resize_input(weft_stream *stream, size_t capacity)
{
    char *input = realloc(stream->input, capacity);

    if (input == NULL)
        return -ENOMEM;
    stream->input = input;
    stream->capacity = capacity;
    return 0;
}

static void release_input(weft_stream *stream)
{
    free(stream->input);
    stream->input = NULL;
    stream->start = stream->end = stream->capacity = 0;
}

/* Nothing is read ahead: begin at the front, and do not keep what one long message needed. */
static void reset_input(weft_stream *stream)
{
    stream->start = stream->end = 0;
    if (stream->capacity > INPUT)
        release_input(stream);
}

/* Room behind the end, while less than the limit is read ahead. */
static int make_room(weft_stream *stream)
{
    size_t least = stream->limit < INPUT ? stream->limit : INPUT, twice = stream->capacity * 2;

    if (ahead(stream) == 0)
        reset_input(stream);
    if (stream->capacity == 0)
        return resize_input(stream, least);
    if (stream->end < stream->capacity)
        return 0;
    if (stream->start > 0 && (stream->start >= stream->capacity / 2 || stream->capacity >= stream->limit)) {
        memmove(stream->input, stream->input + stream->start, ahead(stream));
        stream->end -= stream->start;
        stream->start = 0;
        return 0;
    }
    return resize_input(stream, twice < stream->limit || stream->capacity >= stream->limit ? twice : stream->limit);
}

static ssize_t try_to_fill(weft_stream *stream, uint32_t *bit, uint32_t *seen)
{
    size_t allowed, room;
    struct iovec iov;
    ssize_t n = make_room(stream);

    if (n < 0)
        return n;
    allowed = stream->limit - ahead(stream);
    room = stream->capacity - stream->end;
    iov = (struct iovec){stream->input + stream->end, room < allowed ? room : allowed};
    n = try_to_receive(stream, &iov, 1, bit, seen);
    if (n > 0)
        stream->end += (size_t)n;
    return n;
}

/* Read ahead: bytes, 0 at the end, -EMSGSIZE if the limit is reached. Under a layer, which needs memory of its own, no
 * buffer is kept while there is nothing in it. */
static ssize_t fill(weft_stream *stream)
{
    uint32_t bit, seen;

    if (ahead(stream) >= stream->limit)
        return -EMSGSIZE;
    for (;;) {
        ssize_t n = try_to_fill(stream, &bit, &seen);

        if (n != -EAGAIN)
            return n;
        if (stream->layer != NULL && ahead(stream) == 0)
            release_input(stream);
        n = weft__fd_wait(stream->fd, stream->entry, stream->generation, bit, seen, WEFT_FOREVER);
        if (n < 0)
            return n;
    }
}

/* Give back what a call took that fails after all. The limit does not count here: the caller had room for it. */
static void unread(weft_stream *stream, const char *bytes, size_t size)
{
    size_t kept = ahead(stream), needed = kept + size;

    if (size == 0)
        return;
    if (stream->start < size) {
        if (stream->capacity < needed && resize_input(stream, needed) < 0) {
            stream->read_error = -ENOMEM; /* bytes are missing from now on */
            return;
        }
        memmove(stream->input + size, stream->input + stream->start, kept);
        stream->start = size;
        stream->end = needed;
    }
    stream->start -= size;
    memcpy(stream->input + stream->start, bytes, size);
}

/* ---- reading ---- */

static ssize_t read_some(weft_stream *stream, void *buffer, size_t size)
{
    ssize_t n;

    if (ahead(stream) == 0) {
        if (size >= DIRECT)
            return receive(stream, buffer, size);
        n = fill(stream);
        if (n <= 0)
            return n;
    }
    return (ssize_t)weft__stream_take_input(stream, buffer, size);
}

ssize_t weft_stream_read(weft_stream *stream, void *buffer, size_t size)
{
    int rc = begin_to_read(stream);

    return rc < 0 ? rc : end_of_read(stream, size == 0 ? 0 : read_some(stream, buffer, size));
}

static ssize_t read_exactly(weft_stream *stream, char *buffer, size_t size)
{
    size_t got = weft__stream_take_input(stream, buffer, size);

    while (got < size) {
        size_t left = size - got;
        ssize_t n = left >= DIRECT ? receive(stream, buffer + got, left) : fill(stream);

        if (n < 0) {
            unread(stream, buffer, got);
            return n;
        }
        if (n == 0)
            break;
        got += left >= DIRECT ? (size_t)n : weft__stream_take_input(stream, buffer + got, left);
    }
    return (ssize_t)got;
}

ssize_t weft_stream_readexactly(weft_stream *stream, void *buffer, size_t size)
{
    int rc = begin_to_read(stream);

    return rc < 0 ? rc : end_of_read(stream, read_exactly(stream, buffer, size));
}

static ssize_t give(weft_stream *stream, size_t length, const char **data)
{
    *data = stream->input + stream->start;
    stream->start += length;
    return (ssize_t)length;
}

ssize_t weft__stream_try_read(weft_stream *stream, const char **data, uint32_t *bit, uint32_t *seen)
{
    if (ahead(stream) == 0) {
        ssize_t n = make_room(stream);
        struct iovec iov = {stream->input, stream->capacity};

        if (n == 0)
            n = try_to_receive(stream, &iov, 1, bit, seen);
        if (n <= 0)
            return n;
        stream->end = (size_t)n;
    }
    return give(stream, ahead(stream), data);
}

/* `last`: whether what comes before the end counts without a separator. */
static ssize_t read_until(weft_stream *stream, const struct iovec *separators, int count, bool last,
                          const char **data)
{
    size_t seen = 0;

    for (;;) {
        size_t length = ahead(stream);
        size_t end =
            length == 0 ? 0 : weft__first_separator(stream->input + stream->start, length, seen, separators, count);
        ssize_t n;

        if (end > 0)
            return end > stream->limit ? -EMSGSIZE : give(stream, end, data);
        seen = length;
        n = fill(stream);
        if (n < 0)
            return n;
        if (n == 0)
            return length == 0 ? 0 : last ? give(stream, length, data) : -ENODATA;
    }
}

static bool are_separators(const struct iovec *separators, int count)
{
    for (int i = 0; i < count; i++)
        if (separators[i].iov_len == 0 || separators[i].iov_base == NULL)
            return false;
    return count > 0;
}

ssize_t weft_stream_readuntil(weft_stream *stream, const struct iovec *separators, int count, const char **data)
{
    int rc = are_separators(separators, count) ? begin_to_read(stream) : -EINVAL;

    return rc < 0 ? rc : end_of_read(stream, read_until(stream, separators, count, false, data));
}

ssize_t weft_stream_readline(weft_stream *stream, const char **line)
{
    static const struct iovec newline = {(void *)(uintptr_t) "\n", 1};
    int rc = begin_to_read(stream);

    return rc < 0 ? rc : end_of_read(stream, read_until(stream, &newline, 1, true, line));
}

int weft_stream_at_eof(weft_stream *stream)
{
    int at_end;

    if (claim(stream, LOOKED_AT) < 0)
        return 0;
    at_end = stream->ended && stream->read_error == 0 && ahead(stream) == 0;
    weft__stream_unclaim(stream);
    return at_end;
}

int weft_stream_set_limit(weft_stream *stream, size_t limit)
{
    int rc = limit == 0 ? -EINVAL : claim(stream, LOOKED_AT);

    if (rc < 0)
        return rc;
    stream->limit = limit;
    weft__stream_unclaim(stream);
    return 0;
}

/* ---- copying ---- */

static int copy(weft_stream *to, weft_stream *from, char *buffer, uint64_t *copied)
{
    for (;;) {
        ssize_t n = weft_stream_read(from, buffer, COPIED_AT_ONCE);
        int rc;

        if (n <= 0)
            return (int)n;
        rc = weft_stream_write(to, buffer, (size_t)n);
        if (rc < 0)
            return rc;
        *copied += (uint64_t)n;
        rc = weft_stream_drain(to);
        if (rc < 0)
            return rc;
    }
}

int weft_stream_copy(weft_stream *to, weft_stream *from, uint64_t *copied)
{
    char *buffer = malloc(COPIED_AT_ONCE);
    uint64_t done = 0;
    int rc = buffer == NULL ? -ENOMEM : copy(to, from, buffer, &done);

    free(buffer);
    if (copied != NULL)
        *copied = done;
    return rc;
}

struct direction {
    weft_stream *to, *from;
    uint64_t copied;
};

static intptr_t copy_and_pass_the_end_on(void *arg)
{
    struct direction *direction = arg;
    int rc = weft_stream_copy(direction->to, direction->from, &direction->copied);

    if (rc == 0) {
        rc = weft_stream_write_eof(direction->to);
        if (rc == -EOPNOTSUPP)
            rc = 0;
    }
    return rc;
}

int weft_stream_proxy(weft_stream *a, weft_stream *b, uint64_t *copied)
{
    struct direction directions[] = {{b, a, 0}, {a, b, 0}};
    weft_group group;
    int spawned, rc = weft_group_begin(&group);

    if (rc < 0)
        return rc;
    spawned = weft_group_spawn(&group, copy_and_pass_the_end_on, &directions[0]);
    if (spawned == 0)
        spawned = weft_group_spawn(&group, copy_and_pass_the_end_on, &directions[1]);
    if (spawned < 0)
        weft_group_cancel(&group);
    rc = (int)weft_group_wait(&group);
    if (copied != NULL) {
        copied[0] = directions[0].copied;
        copied[1] = directions[1].copied;
    }
    return rc == 0 ? spawned : rc;
}
