/* What only Unix sockets have: descriptors and credentials that travel. Called by tasks where they wait. */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <weft/net.h>

#include "io/last_error.h"
#include "runtime/poller.h"

union ancillary {
    struct cmsghdr header; /* aligns it */
    char bytes[CMSG_SPACE(WEFT_FDS_MAX * sizeof(int))];
};

/* ---- sending ---- */

static void attach(struct msghdr *message, union ancillary *ancillary, const int *fds, size_t count)
{
    struct cmsghdr *header;

    memset(ancillary, 0, CMSG_SPACE(count * sizeof *fds));
    message->msg_control = ancillary;
    message->msg_controllen = CMSG_SPACE(count * sizeof *fds);
    header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof *fds);
    memcpy(CMSG_DATA(header), fds, count * sizeof *fds);
}

ssize_t weft_send_fds(int fd, const void *bytes, size_t size, const int *fds, size_t count)
{
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union ancillary ancillary;

    if (size == 0 || count > WEFT_FDS_MAX)
        return -EINVAL;
    if (count > 0)
        attach(&message, &ancillary, fds, count);
    return weft_sendmsg(fd, &message, 0);
}

/* ---- receiving ---- */

static void take_one(const struct cmsghdr *header, size_t i, int *fds, size_t room, size_t *count)
{
    int fd;

    memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
    if (*count < room)
        fds[*count] = fd;
    else
        close(fd);
    ++*count;
}

/* Those for which there is no room are closed, but counted. */
static size_t detach(struct msghdr *message, int *fds, size_t room)
{
    size_t count = 0;

    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
            take_one(header, i, fds, room, &count);
    }
    return count;
}

ssize_t weft_recv_fds(int fd, void *bytes, size_t size, int *fds, size_t *count)
{
    struct iovec part = {bytes, size};
    union ancillary ancillary;
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    size_t room = *count, got;
    ssize_t n = weft_recvmsg(fd, &message, 0);

    *count = 0;
    if (n < 0)
        return n;
    got = detach(&message, fds, room);
    if (got > room || (message.msg_flags & MSG_CTRUNC)) {
        for (size_t i = 0; i < got && i < room; i++)
            close(fds[i]);
        return -EMSGSIZE;
    }
    for (size_t i = 0; i < got; i++)
        weft__fd_opened(fds[i], 0); /* an earlier one of this number may have been closed behind weft's back */
    *count = got;
    return n;
}

/* ---- the rest ---- */

int weft_peer_credentials(int fd, weft_peer *peer)
{
    struct ucred credentials;
    socklen_t length = sizeof credentials;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return -weft__last_error();
    *peer = (weft_peer){credentials.pid, credentials.uid, credentials.gid};
    return 0;
}

int weft_socket_pair(int type, int fds[2])
{
    uint32_t known = WEFT__FD_NONBLOCK | (type == SOCK_STREAM ? WEFT__FD_STREAM_SOCKET : 0);

    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return -weft__last_error();
    weft__fd_opened(fds[0], known);
    weft__fd_opened(fds[1], known);
    return 0;
}
