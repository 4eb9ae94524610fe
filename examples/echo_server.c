/*
 * An echo server. Its handler is called when a connection has something to say, so ten thousand silent ones cost a
 * few hundred bytes each and no stack.
 *
 *     echo_server 7000     serves until it is interrupted
 *     echo_server          serves itself a little, and tells what that took
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

enum { CLIENTS = 500 };

static intptr_t echo(weft_client *client)
{
    char buffer[4096];
    ssize_t n = weft_read(client->fd, buffer, sizeof buffer);

    if (n > 0)
        n = weft_write_all(client->fd, buffer, (size_t)n);
    return n > 0 ? WEFT_CALL_AGAIN : n;
}

/* Say something and hear it back. */
static int converse(int fd)
{
    char back[6];
    ssize_t n = weft_write_all(fd, "hello", 5);

    for (ssize_t got = 0; n > 0 && got < 5; got += n)
        n = weft_read(fd, back, sizeof back);
    return n > 0 ? 0 : -1;
}

static void try_it(weft_server *server)
{
    weft_server_stats stats;
    int fds[CLIENTS], answered = 0;

    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = weft_dial("127.0.0.1", (uint16_t)weft_server_port(server));
        answered += fds[i] >= 0 && converse(fds[i]) == 0;
    }
    printf("%d of %d answered\n", answered, CLIENTS);
    do {
        weft_sleep(WEFT_MS(1)); /* a moment after its last word a connection gives its stack back */
        weft_server_look(server, &stats);
    } while (stats.idle < stats.clients);
    printf("%zu connections, %zu of them without a stack\n", stats.clients, stats.idle);
    for (int i = 0; i < CLIENTS; i++)
        weft_close(fds[i]);
}

static intptr_t start(void *port)
{
    weft_server *server;
    int rc = weft_serve(&server, weft_listen(port ? NULL : "127.0.0.1", port ? (uint16_t)atoi(port) : 0, 0), echo,
                        NULL, NULL);

    if (rc < 0)
        return rc;
    if (port)
        rc = weft_server_wait_closed(server);
    else
        try_it(server);
    weft_server_close(server);
    if (rc == 0)
        rc = weft_server_wait_closed(server);
    weft_server_free(server);
    return rc;
}

int main(int argc, char **argv)
{
    intptr_t rc = weft_run(start, argc > 1 ? argv[1] : NULL);

    if (rc < 0)
        fprintf(stderr, "echo_server: %s\n", strerror((int)-rc));
    return rc < 0;
}
