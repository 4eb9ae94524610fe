/* Messages on sockets, one or several to a system call. Called by tasks; the shape of the calls is in attempt.h. */
#include <sys/socket.h>
#include <weft/fd.h>

#include "io/attempt.h"

enum { MESSAGES_MAX = 1024 }; /* UIO_MAXIOV: the kernel takes no more at a time */

ssize_t weft_sendmsg(int fd, const struct msghdr *message, int flags)
{
    ATTEMPT(fd, WEFT__FD_OUT, weft__result_of(sendmsg(fd, message, flags | MSG_NOSIGNAL)), 0);
}

/* What the kernel changes in the header while it waits for nothing must not stay. */
static ssize_t receive_once(int fd, struct msghdr *message, int flags)
{
    struct msghdr copy = *message;
    ssize_t rc = weft__result_of(recvmsg(fd, &copy, flags | MSG_CMSG_CLOEXEC));

    if (rc >= 0)
        *message = copy;
    return rc;
}

ssize_t weft_recvmsg(int fd, struct msghdr *message, int flags)
{
    ATTEMPT(fd, WEFT__FD_IN, receive_once(fd, message, flags), 0);
}

static unsigned at_most(unsigned count)
{
    return count < MESSAGES_MAX ? count : MESSAGES_MAX;
}

int weft_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    if (count == 0)
        return -EINVAL;
    ATTEMPT(fd, WEFT__FD_OUT, weft__result_of(sendmmsg(fd, messages, at_most(count), flags | MSG_NOSIGNAL)), 0);
}

int weft_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    if (count == 0)
        return -EINVAL;
    ATTEMPT(fd, WEFT__FD_IN,
            weft__result_of(recvmmsg(fd, messages, at_most(count), flags | MSG_CMSG_CLOEXEC, NULL)), 0);
}
