/*
 * Open files (weft/file.h): reading and writing through the blocking pool. Called by tasks, and by threads outside the
 * runtime, where the same functions run in place.
 *
 * What saves calls to the pool: bytes that are in the page cache are read where the task runs, if the file system can
 * tell (RWF_NOWAIT): a hand-over to the pool and back costs as much as copying some 100 KiB. Reading on fills a buffer
 * that grows, and the kernel reads ahead of it. A large read or write is one call however often the kernel has to be
 * asked.
 *
 * Positions are weft's own; the kernel's file offset is used for nothing but sendfile. The buffer holds the bytes from
 * the position on: data[begin], at `position`, up to data[end].
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* preadv2, copy_file_range */
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>
#include <weft/fd.h>
#include <weft/file.h>
#include <weft/scope.h>

#include "io/last_error.h"
#include "io/pool_call.h"
#include "runtime/poller.h"

enum {
    BUFFER_FIRST = 16 << 10,   /* the first read for the buffer; each takes twice as much as the last one … */
    BUFFER_MOST = 128 << 10,   /* … up to this, which is the kernel's own read-ahead */
    IN_PLACE_MOST = 128 << 10, /* copied by a worker: some 10 to 20 µs */
    COPY_PIECE = 16 << 20,     /* in one call to the pool: between two of them a copy can be cancelled */
    COPY_BUFFER = 256 << 10,
};

struct weft_file {
    int fd;
    bool is_regular; /* has positions and is never waited for; else it goes through the event loop */
    bool appends;
    _Atomic bool waits;  /* the file system cannot say what is in the cache */
    _Atomic bool in_use; /* what follows; by one task at a time */
    int64_t position;
    char *data;
    size_t begin, end, capacity;
    size_t next_fill; /* how much to read the next time */
};

static int take(weft_file *file)
{
    if (!file)
        return -EINVAL;
    /* acquire, and release in give_back: one user sees what the last one left */
    return atomic_exchange_explicit(&file->in_use, true, memory_order_acquire) ? -EBUSY : 0;
}

static void give_back(weft_file *file)
{
    atomic_store_explicit(&file->in_use, false, memory_order_release);
}

/* ---- opening and closing ---- */

struct opening {
    const char *path;
    int flags;
    mode_t mode;
    int fd;
    struct stat status;
};

static intptr_t open_it(void *arg)
{
    struct opening *opening = arg;

    do
        opening->fd = open(opening->path, opening->flags | O_CLOEXEC | O_NONBLOCK, opening->mode);
    while (opening->fd < 0 && errno == EINTR);
    if (opening->fd < 0)
        return -errno;
    if (fstat(opening->fd, &opening->status) == 0)
        return 0;
    opening->flags = errno;
    close(opening->fd);
    return -opening->flags;
}

int weft_file_open(weft_file **result, const char *path, int flags, mode_t mode)
{
    struct opening opening = {.path = path, .flags = flags, .mode = mode};
    weft_file *file;
    int rc;

    if (!result || !path)
        return -EINVAL;
    *result = NULL;
    file = calloc(1, sizeof *file);
    if (!file)
        return -ENOMEM;
    rc = (int)weft__pool_call(open_it, &opening);
    if (rc < 0) {
        free(file);
        return rc;
    }
    file->fd = opening.fd;
    file->is_regular =
        !(S_ISFIFO(opening.status.st_mode) || S_ISCHR(opening.status.st_mode) || S_ISSOCK(opening.status.st_mode));
    file->appends = (flags & O_APPEND) != 0;
    file->next_fill = BUFFER_FIRST;
    weft__fd_opened(file->fd, WEFT__FD_NONBLOCK);
    *result = file;
    return 0;
}

struct closing {
    int fd;
    bool done;
};

static intptr_t close_it(void *arg)
{
    struct closing *closing = arg;

    closing->done = true;
    return weft__fd_close(closing->fd);
}

int weft_file_close(weft_file *file)
{
    struct closing closing;
    bool masked;
    int rc;

    if (!file)
        return 0;
    closing = (struct closing){file->fd, false};
    masked = weft__mask_begin();
    rc = (int)weft__pool_call(close_it, &closing);
    if (masked)
        weft_mask_end();
    if (!closing.done) /* the pool would not: better here than not at all */
        rc = weft__fd_close(closing.fd);
    free(file->data);
    free(file);
    return rc;
}

int weft_file_descriptor(const weft_file *file)
{
    return file ? file->fd : -EBADF;
}

/* ---- at an offset ---- */

struct transfer {
    int fd;
    char *buffer;
    size_t size;
    int64_t offset;
    bool may_wait;
};

/* As much as can be had: the number of bytes, or why there are none. `at_end`: there is no more behind them. */
static ssize_t read_now(const struct transfer *transfer, bool *at_end)
{
    size_t done = 0;

    *at_end = false;
    while (done < transfer->size) {
        struct iovec iov = {transfer->buffer + done, transfer->size - done};
        ssize_t n = weft__result_of(
            preadv2(transfer->fd, &iov, 1, transfer->offset + (int64_t)done, transfer->may_wait ? 0 : RWF_NOWAIT));

        if (n == -EINTR)
            continue;
        *at_end = n == 0;
        if (n <= 0)
            return done > 0 ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static intptr_t read_it(void *arg)
{
    bool at_end;

    return read_now(arg, &at_end);
}

/* In place as far as that goes, the rest in the pool. */
static ssize_t read_at(weft_file *file, void *buffer, size_t size, int64_t offset)
{
    struct transfer transfer = {file->fd, buffer, size, offset, false};
    ssize_t first = 0, rest;
    bool at_end = false;

    if (size <= IN_PLACE_MOST && file->is_regular && !atomic_load_explicit(&file->waits, memory_order_relaxed)) {
        first = weft__suspend_check();
        if (first < 0)
            return first;
        first = read_now(&transfer, &at_end);
        if (first == -EOPNOTSUPP || first == -EINVAL)
            atomic_store_explicit(&file->waits, true, memory_order_relaxed);
        else if (first < 0 && first != -EAGAIN)
            return first;
        if (first < 0)
            first = 0;
        if (at_end || first == (ssize_t)size)
            return first;
    }
    transfer = (struct transfer){file->fd, (char *)buffer + first, size - (size_t)first, offset + first, true};
    rest = weft__pool_call(read_it, &transfer);
    return rest < 0 ? (first > 0 ? first : rest) : first + rest;
}

static intptr_t write_it(void *arg)
{
    const struct transfer *transfer = arg;
    size_t done = 0;

    while (done < transfer->size) {
        ssize_t n = weft__result_of(
            pwrite(transfer->fd, transfer->buffer + done, transfer->size - done, transfer->offset + (int64_t)done));

        if (n == -EINTR)
            continue;
        if (n <= 0)
            return done > 0 ? (intptr_t)done : n < 0 ? n : -EIO;
        done += (size_t)n;
    }
    return (intptr_t)done;
}

static ssize_t write_at(weft_file *file, const void *buffer, size_t size, int64_t offset)
{
    struct transfer transfer = {file->fd, (char *)(uintptr_t)buffer, size, offset, true};

    return weft__pool_call(write_it, &transfer);
}

ssize_t weft_file_pread(weft_file *file, void *buffer, size_t size, int64_t offset)
{
    if (!file || offset < 0 || size > SSIZE_MAX)
        return -EINVAL;
    return file->is_regular ? read_at(file, buffer, size, offset) : -ESPIPE;
}

ssize_t weft_file_pwrite(weft_file *file, const void *buffer, size_t size, int64_t offset)
{
    if (!file || offset < 0 || size > SSIZE_MAX)
        return -EINVAL;
    return file->is_regular ? write_at(file, buffer, size, offset) : -ESPIPE;
}

/* ---- reading on ---- */

static void forget_buffer(weft_file *file)
{
    file->begin = file->end = 0;
}

/* Room for `more` bytes behind those that are there. */
static int make_room(weft_file *file, size_t more)
{
    size_t kept = file->end - file->begin;
    char *data = file->data;

    if (file->begin > 0) {
        memmove(data, data + file->begin, kept);
        file->begin = 0;
        file->end = kept;
    }
    if (kept + more <= file->capacity)
        return 0;
    data = realloc(data, kept + more);
    if (!data)
        return -ENOMEM;
    file->data = data;
    file->capacity = kept + more;
    return 0;
}

static void plan_next_fill(weft_file *file)
{
    if (file->next_fill >= BUFFER_MOST)
        return;
    if (file->next_fill == BUFFER_FIRST && file->is_regular)
        posix_fadvise(file->fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* only sets a flag */
    file->next_fill *= 2;
}

/* More bytes into the buffer: how many, 0 at the end. */
static ssize_t fill(weft_file *file)
{
    size_t room = file->next_fill;
    ssize_t n = make_room(file, room);

    if (n < 0)
        return n;
    if (file->is_regular)
        n = read_at(file, file->data + file->end, room, file->position + (int64_t)(file->end - file->begin));
    else
        n = weft_read(file->fd, file->data + file->end, room);
    if (n > 0) {
        file->end += (size_t)n;
        plan_next_fill(file);
    }
    return n;
}

static size_t take_buffered(weft_file *file, char *to, size_t size)
{
    size_t there = file->end - file->begin, n = size < there ? size : there;

    if (n > 0)
        memcpy(to, file->data + file->begin, n);
    file->begin += n;
    file->position += (int64_t)n;
    return n;
}

/* Past the buffer, which is empty. */
static ssize_t read_directly(weft_file *file, char *to, size_t size)
{
    ssize_t n = file->is_regular ? read_at(file, to, size, file->position) : weft_read(file->fd, to, size);

    if (n > 0)
        file->position += n;
    return n;
}

/* The buffer was empty or is now. */
static ssize_t read_more(weft_file *file, char *to, size_t size)
{
    ssize_t n;

    if (size >= file->next_fill)
        return read_directly(file, to, size);
    n = fill(file);
    return n <= 0 ? n : (ssize_t)take_buffered(file, to, size);
}

static ssize_t read_on(weft_file *file, char *to, size_t size)
{
    size_t done = take_buffered(file, to, size);

    while (done < size) {
        ssize_t n;

        if (done > 0 && !file->is_regular)
            break;
        n = read_more(file, to + done, size - done);
        if (n <= 0)
            return done > 0 ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t weft_file_read(weft_file *file, void *buffer, size_t size)
{
    ssize_t n = size > SSIZE_MAX ? -EINVAL : take(file);

    if (n < 0)
        return n;
    n = weft__suspend_check();
    if (n == 0)
        n = read_on(file, buffer, size);
    give_back(file);
    return n;
}

/* Hand out the first `size` buffered bytes. */
static ssize_t hand_out(weft_file *file, char **line, size_t size)
{
    *line = file->data + file->begin;
    file->begin += size;
    file->position += (int64_t)size;
    return (ssize_t)size;
}

static ssize_t next_line(weft_file *file, char **line, size_t limit)
{
    size_t searched = 0;

    for (;;) {
        size_t there = file->end - file->begin;
        char *from = there > searched ? file->data + file->begin + searched : NULL;
        char *newline = from ? memchr(from, '\n', there - searched) : NULL;
        size_t length = newline ? (size_t)(newline + 1 - (file->data + file->begin)) : there;
        ssize_t n;

        if (limit && length > limit)
            return -EMSGSIZE;
        if (newline)
            return hand_out(file, line, length);
        searched = there;
        n = fill(file);
        if (n < 0)
            return n;
        if (n == 0)
            return hand_out(file, line, there);
    }
}

ssize_t weft_file_read_line(weft_file *file, char **line, size_t limit)
{
    ssize_t n = line ? take(file) : -EINVAL;

    if (n < 0)
        return n;
    *line = NULL;
    n = weft__suspend_check();
    if (n == 0)
        n = next_line(file, line, limit);
    give_back(file);
    return n;
}

/* ---- writing on ---- */

static ssize_t write_on(weft_file *file, const void *buffer, size_t size)
{
    ssize_t n;

    if (!file->is_regular)
        return weft_write_all(file->fd, buffer, size);
    forget_buffer(file);
    n = write_at(file, buffer, size, file->position);
    if (n > 0 && file->appends)
        file->position = lseek(file->fd, 0, SEEK_END);
    else if (n > 0)
        file->position += n;
    return n;
}

ssize_t weft_file_write(weft_file *file, const void *buffer, size_t size)
{
    ssize_t n = size > SSIZE_MAX ? -EINVAL : take(file);

    if (n < 0)
        return n;
    n = write_on(file, buffer, size);
    give_back(file);
    return n;
}

/* ---- the position ---- */

static int64_t seek(weft_file *file, int64_t offset, int whence)
{
    int64_t from;

    if (!file->is_regular)
        return -ESPIPE;
    if (whence == SEEK_CUR) {
        from = file->position;
    } else if (whence == SEEK_SET) {
        from = 0;
    } else if (whence == SEEK_END) {
        from = weft__result_of(lseek(file->fd, 0, SEEK_END));
        if (from < 0)
            return from;
    } else {
        return -EINVAL;
    }
    if (__builtin_add_overflow(from, offset, &from))
        return -EOVERFLOW;
    if (from < 0)
        return -EINVAL;
    if (from >= file->position && from - file->position <= (int64_t)(file->end - file->begin))
        file->begin += (size_t)(from - file->position);
    else
        forget_buffer(file);
    file->position = from;
    return from;
}

int64_t weft_file_seek(weft_file *file, int64_t offset, int whence)
{
    int64_t rc = take(file);

    if (rc < 0)
        return rc;
    rc = seek(file, offset, whence);
    give_back(file);
    return rc;
}

/* ---- the whole file ---- */

struct upkeep {
    int fd;
    int64_t size;
    struct stat *status;
};

static intptr_t sync_it(void *arg)
{
    return fsync(((struct upkeep *)arg)->fd) < 0 ? -errno : 0;
}

static intptr_t sync_data_of_it(void *arg)
{
    return fdatasync(((struct upkeep *)arg)->fd) < 0 ? -errno : 0;
}

static intptr_t truncate_it(void *arg)
{
    struct upkeep *upkeep = arg;
    int rc;

    do
        rc = ftruncate(upkeep->fd, upkeep->size) < 0 ? -errno : 0;
    while (rc == -EINTR);
    return rc;
}

static intptr_t stat_it(void *arg)
{
    struct upkeep *upkeep = arg;

    return fstat(upkeep->fd, upkeep->status) < 0 ? -errno : 0;
}

static int keep_up(weft_file *file, weft_fn *fn, int64_t size, struct stat *status)
{
    struct upkeep upkeep = {file ? file->fd : -1, size, status};

    return file ? (int)weft__pool_call(fn, &upkeep) : -EINVAL;
}

int weft_file_sync(weft_file *file)
{
    return keep_up(file, sync_it, 0, NULL);
}

int weft_file_sync_data(weft_file *file)
{
    return keep_up(file, sync_data_of_it, 0, NULL);
}

int weft_file_truncate(weft_file *file, int64_t size)
{
    return keep_up(file, truncate_it, size, NULL);
}

int weft_file_stat_open(weft_file *file, struct stat *status)
{
    return status ? keep_up(file, stat_it, 0, status) : -EINVAL;
}

/* ---- copying ---- */

enum way { BY_RANGE, BY_SENDFILE, BY_HAND };

struct copying {
    int from, to;
    int64_t read_at, write_at;
    size_t count;
    enum way way; /* the ways that this pair of files does not offer have been left */
};

static ssize_t copy_by_hand(struct copying *copying, size_t count)
{
    size_t size = count < COPY_BUFFER ? count : COPY_BUFFER;
    char *buffer = malloc(size);
    struct transfer transfer = {copying->from, buffer, size, copying->read_at, true};
    bool at_end;
    ssize_t n;

    if (!buffer)
        return -ENOMEM;
    n = read_now(&transfer, &at_end);
    if (n > 0) {
        transfer = (struct transfer){copying->to, buffer, (size_t)n, copying->write_at, true};
        n = write_it(&transfer);
    }
    free(buffer);
    return n;
}

static ssize_t copy_some(struct copying *copying, size_t count)
{
    off_t from = copying->read_at, to = copying->write_at;

    switch (copying->way) {
    case BY_RANGE:
        return weft__result_of(copy_file_range(copying->from, &from, copying->to, &to, count, 0));
    case BY_SENDFILE:
        if (lseek(copying->to, to, SEEK_SET) < 0)
            return -weft__last_error();
        return weft__result_of(sendfile(copying->to, copying->from, &from, count));
    default:
        return copy_by_hand(copying, count);
    }
}

/* Not an error of the copy, but of the way. */
static bool is_no_way(ssize_t n)
{
    return n == -EXDEV || n == -EINVAL || n == -ENOSYS || n == -EOPNOTSUPP || n == -EBADF || n == -EPERM ||
           n == -ETXTBSY || n == -EOVERFLOW;
}

static intptr_t copy_piece(void *arg)
{
    struct copying *copying = arg;
    size_t done = 0;

    while (done < copying->count) {
        ssize_t n = copy_some(copying, copying->count - done);

        if (n == -EINTR)
            continue;
        /* A file without a size, as in /proc, looks empty to the kernel's own ways. */
        if (copying->way != BY_HAND && (n == 0 || is_no_way(n))) {
            copying->way++;
            continue;
        }
        if (n <= 0)
            return n < 0 && done == 0 ? n : (intptr_t)done;
        copying->read_at += n;
        copying->write_at += n;
        done += (size_t)n;
    }
    return (intptr_t)done;
}

static int64_t copy(weft_file *from, weft_file *to, int64_t count)
{
    struct copying copying = {from->fd, to->fd, from->position, to->position, 0, to->appends ? BY_HAND : BY_RANGE};
    int64_t done = 0;

    if (!from->is_regular || !to->is_regular)
        return -ESPIPE;
    forget_buffer(from);
    forget_buffer(to);
    while (count < 0 || done < count) {
        intptr_t n;

        copying.count = count < 0 || count - done > COPY_PIECE ? COPY_PIECE : (size_t)(count - done);
        n = weft__pool_call(copy_piece, &copying);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += n;
        from->position += n;
        to->position += n;
    }
    return done;
}

int64_t weft_file_copy(weft_file *from, weft_file *to, int64_t count)
{
    int64_t rc = from == to ? -EINVAL : take(from);

    if (rc < 0)
        return rc;
    rc = take(to);
    if (rc == 0) {
        rc = copy(from, to, count);
        give_back(to);
    }
    give_back(from);
    return rc;
}
