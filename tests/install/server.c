/*
 * A small echo server and its client, as a user of the installed library would write them: only <weft.h>, only
 * public names. The client checks what comes back; the program prints "ok" and ends by itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>

enum { CLIENTS = 8, ROUNDS = 50 };

static intptr_t echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buffer[512];
    ssize_t got;

    while ((got = weft_read(fd, buffer, sizeof buffer)) > 0)
        if ((got = weft_write_all(fd, buffer, (size_t)got)) < 0)
            break;
    weft_close(fd);
    return got;
}

static intptr_t serve(void *arg)
{
    int listener = (int)(intptr_t)arg;

    for (int i = 0; i < CLIENTS; i++) {
        int fd = weft_accept(listener, NULL, NULL);
        weft_task *task;

        if (fd < 0)
            return fd;
        task = weft_spawn(echo, (void *)(intptr_t)fd);
        if (!task) {
            weft_close(fd);
            return -ENOMEM;
        }
        weft_detach(task);
    }
    return 0;
}

/* Read exactly `size` bytes, as an echo may come back in pieces. */
static intptr_t read_all(int fd, char *buffer, size_t size)
{
    for (size_t have = 0; have < size;) {
        ssize_t got = weft_read(fd, buffer + have, size - have);

        if (got <= 0)
            return got < 0 ? got : -EPIPE;
        have += (size_t)got;
    }
    return 0;
}

static intptr_t talk(void *arg)
{
    int fd = weft_dial("127.0.0.1", (uint16_t)(intptr_t)arg);
    intptr_t rc = fd < 0 ? fd : 0;

    for (int round = 0; round < ROUNDS && rc == 0; round++) {
        char said[64], heard[64];
        size_t size = (size_t)snprintf(said, sizeof said, "round %d from %p", round, (void *)&rc);

        rc = weft_write_all(fd, said, size);
        if (rc >= 0)
            rc = read_all(fd, heard, size);
        if (rc == 0 && memcmp(said, heard, size) != 0)
            rc = -EBADMSG;
    }
    if (fd >= 0)
        weft_close(fd);
    return rc;
}

static intptr_t start(void *arg)
{
    int listener = weft_listen("127.0.0.1", 0, 128);
    weft_task *server, *clients[CLIENTS];
    intptr_t failed = 0, rc;

    (void)arg;
    if (listener < 0)
        return listener;
    server = weft_spawn(serve, (void *)(intptr_t)listener);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = weft_spawn(talk, (void *)(intptr_t)weft_local_port(listener));
    for (int i = 0; i < CLIENTS; i++)
        if ((rc = weft_await(clients[i])) != 0)
            failed = rc;
    if (failed)
        weft_cancel(server);
    rc = weft_await(server);
    weft_close(listener);
    return failed ? failed : rc;
}

int main(void)
{
    intptr_t rc;

    alarm(30);
    rc = weft_run(start, NULL);
    if (rc != 0) {
        fprintf(stderr, "weft %s: %s\n", weft_version(), strerror((int)-rc));
        return 1;
    }
    printf("ok: weft %s\n", weft_version());
    return 0;
}
