/*
 * A TCP proxy. Each connection has two tasks, one for each direction, that move bytes from socket to socket through a
 * pipe without copying them (splice). When one side has said all it had to say, the other is told and the opposite
 * direction goes on (half-close); when something breaks, both end.
 *
 *     proxy 7000 example.org 80     passes port 7000 on, until it is interrupted
 *     proxy                         passes itself on to a server of its own that counts what it hears
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>

enum { AT_ONCE = 64 << 10, DEMO = 10 << 20 };

struct target {
    const char *host;
    uint16_t port;
};

struct direction {
    int from, to;
};

/* What is in the pipe, to its last byte. */
static ssize_t drain(int pipe, int to, ssize_t left)
{
    ssize_t n = 1;

    for (; left > 0 && n > 0; left -= n)
        n = weft_splice(pipe, NULL, to, NULL, (size_t)left, 0);
    return n > 0 ? 0 : n;
}

static intptr_t move(void *arg)
{
    const struct direction *direction = arg;
    int ends[2];
    ssize_t n;

    if (pipe(ends) < 0)
        return -EMFILE;
    while ((n = weft_splice(direction->from, NULL, ends[1], NULL, AT_ONCE, 0)) > 0)
        if ((n = drain(ends[0], direction->to, n)) < 0)
            break;
    if (n == 0)
        shutdown(direction->to, SHUT_WR);
    weft_close(ends[0]);
    weft_close(ends[1]);
    return n;
}

static intptr_t pass_on(weft_client *client)
{
    const struct target *target = client->arg;
    int fd = weft_dial(target->host, target->port);
    struct direction there = {client->fd, fd}, back = {fd, client->fd};
    weft_group group;
    intptr_t rc;

    if (fd < 0)
        return fd;
    rc = weft_group_begin(&group);
    if (rc == 0) {
        weft_group_spawn(&group, move, &there);
        weft_group_spawn(&group, move, &back);
        rc = weft_group_wait(&group); /* one that fails ends the other */
    }
    weft_close(fd);
    return rc;
}

/* ---- the demonstration ---- */

/* Read to the end, then say how much that was. */
static intptr_t count(weft_client *client)
{
    static char buffer[AT_ONCE];
    char text[32];
    size_t sum = 0;
    ssize_t n;

    while ((n = weft_read(client->fd, buffer, sizeof buffer)) > 0)
        sum += (size_t)n;
    snprintf(text, sizeof text, "%zu bytes", sum);
    return weft_write_all(client->fd, text, strlen(text)) > 0 ? 0 : -EIO;
}

static intptr_t ask(uint16_t port)
{
    static char much[DEMO];
    char answer[64] = "";
    int fd = weft_dial("127.0.0.1", port);
    ssize_t n;

    if (fd < 0)
        return fd;
    n = weft_write_all(fd, much, sizeof much);
    shutdown(fd, SHUT_WR); /* "that was all": the answer comes all the same */
    for (size_t got = 0; n > 0 && got < sizeof answer - 1; got += (size_t)n)
        n = weft_read(fd, answer + got, sizeof answer - 1 - got);
    weft_close(fd);
    printf("sent %d bytes through the proxy; the other end says: %s\n", DEMO, answer);
    return n;
}

static intptr_t demonstrate(void)
{
    struct target target = {"127.0.0.1", 0};
    weft_server *counter, *proxy = NULL;
    intptr_t rc = weft_serve(&counter, weft_listen("127.0.0.1", 0, 0), count, NULL, NULL);

    if (rc == 0) {
        target.port = (uint16_t)weft_server_port(counter);
        rc = weft_serve(&proxy, weft_listen("127.0.0.1", 0, 0), pass_on, &target, NULL);
    }
    if (rc == 0)
        rc = ask((uint16_t)weft_server_port(proxy));
    weft_server_free(proxy);
    weft_server_free(counter);
    return rc;
}

static intptr_t start(void *arg)
{
    char **words = arg;
    struct target target;
    weft_server *proxy;
    intptr_t rc;

    if (!words)
        return demonstrate();
    target = (struct target){words[2], (uint16_t)atoi(words[3])};
    rc = weft_serve(&proxy, weft_listen(NULL, (uint16_t)atoi(words[1]), 0), pass_on, &target, NULL);
    if (rc == 0)
        rc = weft_server_wait_closed(proxy);
    return rc;
}

int main(int argc, char **argv)
{
    intptr_t rc = weft_run(start, argc == 4 ? argv : NULL);

    if (rc < 0)
        fprintf(stderr, "proxy: %s\n", strerror((int)-rc));
    return rc < 0;
}
