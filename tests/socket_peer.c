/*
 * The weft side of test_servers.sh for what no example is about: whatever comes over a Unix socket, as a stream or as a
 * datagram, or over UDP goes back to where it came from.
 *
 *   socket_peer STREAM_PATH DATAGRAM_PATH     prints "udp PORT", serves until SIGTERM
 */
#include <signal.h>
#include <weft/net.h>

#include "support.h"

static intptr_t echo_stream(weft_stream *stream, weft_client *client)
{
    char buffer[10000];
    ssize_t n;

    (void)client;
    while ((n = weft_stream_read(stream, buffer, sizeof buffer)) > 0) {
        int rc = weft_stream_write(stream, buffer, (size_t)n);

        if (rc == 0)
            rc = weft_stream_drain(stream);
        if (rc < 0)
            return rc;
    }
    return n;
}

static intptr_t echo_datagrams(void *socket)
{
    int fd = (int)(intptr_t)socket;
    char buffer[65536];
    ssize_t n;

    do {
        weft_address from = {.length = sizeof from.to};

        n = weft_recvfrom(fd, buffer, sizeof buffer, 0, &from.to.any, &from.length);
        if (n >= 0)
            weft_sendto(fd, buffer, (size_t)n, 0, &from.to.any, from.length); /* who has gone is no failure */
    } while (n >= 0);
    return n;
}

static int bind_to(const char *text)
{
    weft_address address;

    must_be(weft_address_parse(&address, text, 0), 0);
    return weft_bind_datagram(&address, 0);
}

static intptr_t serve(void *paths)
{
    weft_address address;
    weft_server *server;
    int fds[] = {bind_to("127.0.0.1"), bind_to(((char **)paths)[1])};

    must(fds[0] >= 0 && fds[1] >= 0);
    must_be(weft_address_parse(&address, ((char **)paths)[0], 0), 0);
    must_be(weft_serve_streams(&server, weft_listen_on(&address, 0, 0), echo_stream, NULL, NULL), 0);
    for (int i = 0; i < 2; i++)
        must_be(weft_go(echo_datagrams, (void *)(intptr_t)fds[i]), 0);
    printf("udp %d\n", weft_local_port(fds[0]));
    fflush(stdout);
    must_be(weft_signal_wait_stop(), SIGTERM);
    weft_server_free(server);
    return 0;
}

int main(int argc, char **argv)
{
    alarm(SUPPORT_LIMIT);
    must(argc == 3);
    return weft_run(serve, argv + 1) != 0;
}
