/*
 * Bytes from descriptor to descriptor without a detour through the program: sendfile, splice, tee. Called by tasks.
 *
 * The kernel has no flag against SIGPIPE here, as send(2) has. So it is blocked around a call that writes to a
 * socket, and taken back if the call raised it, as SIGPIPE is sent to the thread that wrote. Nothing suspends in
 * between.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <time.h>
#include <unistd.h>
#include <weft/blocking.h>
#include <weft/fd.h>
#include <weft/task.h>

#include "io/attempt.h"

enum {
    AT_ONCE = 1 << 20, /* bytes to a call: others get their turn between, and sendfile(2) ends at 2 GiB anyway */
    BUFFER_SIZE = 64 << 10, /* of the detour */
    FRUITLESS = 16          /* attempts that moved nothing though both ends were ready, before it waits a little */
};

/* ---- SIGPIPE ---- */

struct quiet {
    sigset_t before;
    bool was_pending;
};

static void only_sigpipe(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGPIPE);
}

static void quiet_begin(struct quiet *quiet)
{
    sigset_t pipe, pending;

    only_sigpipe(&pipe);
    sigpending(&pending);
    quiet->was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &quiet->before);
}

static void quiet_end(struct quiet *quiet, ssize_t rc)
{
    static const struct timespec at_once = {0, 0};
    sigset_t pipe;

    only_sigpipe(&pipe);
    if (rc == -EPIPE && !quiet->was_pending)
        while (sigtimedwait(&pipe, NULL, &at_once) < 0 && weft__last_error() == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &quiet->before, NULL);
}

/* ---- sendfile ---- */

static ssize_t send_once(int fd, int file, off_t *offset, size_t size)
{
    struct quiet quiet;
    ssize_t rc;

    quiet_begin(&quiet);
    weft_block_begin(); /* the file may have to be read from the disk */
    rc = weft__result_of(sendfile(fd, file, offset, size < AT_ONCE ? size : AT_ONCE));
    weft_block_end();
    quiet_end(&quiet, rc);
    return rc;
}

static ssize_t send_some(int fd, int file, off_t *offset, size_t size)
{
    ATTEMPT(fd, WEFT__FD_OUT, send_once(fd, file, offset, size), 0);
}

static ssize_t read_file(int file, off_t *offset, void *buffer, size_t size)
{
    ssize_t n;

    weft_block_begin();
    do
        n = weft__result_of(offset ? pread(file, buffer, size, *offset) : read(file, buffer, size));
    while (n == -EINTR);
    weft_block_end();
    return n;
}

/* What was read is in the buffer: send it, and have the file stand behind what was sent. */
static ssize_t send_buffer(int fd, int file, off_t *offset, const char *buffer, size_t size)
{
    size_t sent = 0;
    ssize_t n = 0;

    while (sent < size) {
        n = weft_write(fd, buffer + sent, size - sent);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    if (offset)
        *offset += (off_t)sent;
    else if (sent < size)
        lseek(file, -(off_t)(size - sent), SEEK_CUR);
    return n < 0 ? n : (ssize_t)sent;
}

static ssize_t send_through_buffer(int fd, int file, off_t *offset, size_t size)
{
    char *buffer = malloc(BUFFER_SIZE);
    size_t total = 0;
    ssize_t n = 0;

    if (!buffer)
        return -ENOMEM;
    while (total < size) {
        n = read_file(file, offset, buffer, size - total < BUFFER_SIZE ? size - total : BUFFER_SIZE);
        if (n > 0)
            n = send_buffer(fd, file, offset, buffer, (size_t)n);
        if (n <= 0)
            break;
        total += (size_t)n;
    }
    free(buffer);
    return n < 0 ? n : (ssize_t)total;
}

ssize_t weft_sendfile(int fd, int file, off_t *offset, size_t size, unsigned flags)
{
    size_t total = 0;

    while (total < size) {
        ssize_t n = send_some(fd, file, offset, size - total);

        if ((n == -EINVAL || n == -ENOSYS) && !(flags & WEFT_SENDFILE_STRICT)) {
            n = send_through_buffer(fd, file, offset, size - total);
            return n < 0 ? n : (ssize_t)total + n;
        }
        if (n < 0)
            return n;
        if (n == 0)
            break;
        total += (size_t)n;
    }
    return (ssize_t)total;
}

/* ---- splice, tee ---- */

struct both {
    struct attempt from, to;
};

static int are_still_open(const struct both *both)
{
    return still_open(&both->from) < 0 ? -EBADF : still_open(&both->to);
}

/* Both must be non-blocking before the first attempt. */
static int begin_both(struct both *both, int from, int to)
{
    int rc = begin(&both->from, from, WEFT__FD_IN);

    if (rc == 0)
        rc = begin(&both->to, to, WEFT__FD_OUT);
    return rc < 0 ? rc : are_still_open(both);
}

/* It said EAGAIN, without saying of which of the two. While one is waited for, the other may be closed. */
static int wait_for_both(const struct both *both, unsigned fruitless)
{
    int rc = weft_poll(both->from.fd, POLLIN, WEFT_FOREVER);

    if (rc >= 0)
        rc = weft_poll(both->to.fd, POLLOUT, WEFT_FOREVER);
    if (rc >= 0 && fruitless >= FRUITLESS)
        rc = weft_sleep(WEFT_MS(1));
    return rc < 0 ? rc : are_still_open(both);
}

static ssize_t splice_once(int from, off_t *from_offset, int to, off_t *to_offset, size_t size, unsigned flags)
{
    struct quiet quiet;
    ssize_t rc;

    quiet_begin(&quiet);
    rc = weft__result_of(splice(from, from_offset, to, to_offset, size, flags | SPLICE_F_NONBLOCK));
    quiet_end(&quiet, rc);
    return rc;
}

/* `call` until it does not say EAGAIN. */
#define UNTIL_MOVED(from, to, call)                                \
    struct both both;                                              \
    ssize_t rc = begin_both(&both, (from), (to));                  \
                                                                   \
    for (unsigned fruitless = 0; rc == 0; fruitless++) {           \
        ssize_t done = (call);                                     \
                                                                   \
        if (done != -EAGAIN && done != -EINTR)                     \
            return done;                                           \
        rc = done == -EINTR ? 0 : wait_for_both(&both, fruitless); \
    }                                                              \
    return rc

ssize_t weft_splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t size, unsigned flags)
{
    UNTIL_MOVED(from, to, splice_once(from, from_offset, to, to_offset, size, flags));
}

ssize_t weft_tee(int from, int to, size_t size, unsigned flags)
{
    UNTIL_MOVED(from, to, weft__result_of(tee(from, to, size, flags | SPLICE_F_NONBLOCK)));
}
