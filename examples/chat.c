/*
 * A chat room: what one says, the others hear. What is said goes into a broadcast channel, from which each guest is
 * served at his own pace. Whoever is too slow, or does not read at all, misses lines and is told how many; he holds
 * nobody up.
 *
 *     chat 7000     until it is interrupted; try it with: nc localhost 7000
 *     chat          has three guests of its own, one of whom does not listen
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

enum { LINE = 1000, REMEMBERED = 64, SAID = 6000 };

struct line {
    int guest;
    char text[LINE];
};

struct room {
    weft_broadcast *lines;
    atomic_int guests;
};

struct guest {
    weft_subscriber *subscriber;
    int fd, number;
};

/* Tell a guest what the others say. */
static intptr_t tell(void *arg)
{
    struct guest *guest = arg;
    struct line line;
    int64_t missed;
    ssize_t n = 1;

    while (n > 0 && (missed = weft_broadcast_recv(guest->subscriber, &line)) >= 0) {
        if (missed > 0)
            snprintf(line.text, sizeof line.text, "* you missed %ld lines\n", (long)missed);
        if (missed > 0 || line.guest != guest->number)
            n = weft_write_all(guest->fd, line.text, strlen(line.text));
    }
    return n > 0 ? missed : n;
}

static void say(struct room *room, int guest, const char *text, size_t length)
{
    struct line line = {.guest = guest};

    snprintf(line.text, sizeof line.text, "%d: %.*s\n", guest, (int)length, text);
    weft_broadcast_send(room->lines, &line);
}

/* A guest speaks, line by line, until he leaves. */
static ssize_t listen_to(struct room *room, const struct guest *guest)
{
    char buffer[LINE - 20];
    size_t have = 0;
    ssize_t n;

    while ((n = weft_read(guest->fd, buffer + have, sizeof buffer - have)) > 0) {
        char *from = buffer, *end;

        have += (size_t)n;
        while ((end = memchr(from, '\n', have))) {
            say(room, guest->number, from, (size_t)(end - from));
            have -= (size_t)(end + 1 - from);
            from = end + 1;
        }
        memmove(buffer, from, have);
        if (have == sizeof buffer) { /* too long for a line: say what there is */
            say(room, guest->number, buffer, have);
            have = 0;
        }
    }
    return n;
}

static intptr_t welcome(weft_client *client)
{
    struct room *room = client->arg;
    struct guest guest = {weft_broadcast_subscribe(room->lines), client->fd, atomic_fetch_add(&room->guests, 1)};
    weft_group group;

    if (!guest.subscriber)
        return -ENOMEM;
    /* What a guest has not read yet waits in the channel, which is there once, not in megabytes of the kernel's
     * for him. */
    setsockopt(client->fd, SOL_SOCKET, SO_SNDBUF, &(int){64 << 10}, sizeof(int));
    if (weft_group_begin(&group) == 0) {
        if (weft_group_spawn(&group, tell, &guest) == 0)
            listen_to(room, &guest);
        weft_group_cancel(&group);
        weft_group_wait(&group);
    }
    weft_broadcast_unsubscribe(guest.subscriber);
    return 0;
}

/* ---- the demonstration ---- */

struct reader {
    int fd;
    size_t from, to;
    char buffer[LINE * 4];
};

/* The next line, without its end; NULL: there are no more. */
static char *next_line(struct reader *reader)
{
    for (;;) {
        char *start = reader->buffer + reader->from, *end = memchr(start, '\n', reader->to - reader->from);
        ssize_t n;

        if (end) {
            *end = '\0';
            reader->from = (size_t)(end + 1 - reader->buffer);
            return start;
        }
        reader->to -= reader->from;
        memmove(reader->buffer, start, reader->to);
        reader->from = 0;
        n = weft_read(reader->fd, reader->buffer + reader->to, sizeof reader->buffer - reader->to);
        if (n <= 0)
            return NULL;
        reader->to += (size_t)n;
    }
}

/* The first guest says something as soon as the second has heard what he said before. */
static int talk(int talker, struct reader *listener)
{
    char text[LINE - 100];
    int heard = 0;

    memset(text, '.', sizeof text);
    text[sizeof text - 1] = '\n';
    for (int i = 0; i < SAID; i++) {
        char *line;

        text[snprintf(text, 20, "line %d ", i)] = '.';
        if (weft_write_all(talker, text, sizeof text) < 0 || !(line = next_line(listener)))
            break;
        heard += atoi(strchr(line, 'e') + 1) == i;
    }
    return heard;
}

static void ask_the_third(struct reader *third)
{
    weft_timeout patience;
    int heard = 0, missed = 0;
    char *line;

    weft_timeout_begin(&patience, WEFT_MS(300));
    while (heard + missed < SAID && (line = next_line(third)))
        if (line[0] == '*')
            missed += atoi(line + strlen("* you missed "));
        else
            heard++;
    weft_timeout_end(&patience);
    printf("the third did not listen, has missed %d lines, and was told so: %s\n", missed,
           missed > 0 && heard + missed == SAID ? "yes" : "no");
}

static void visit(uint16_t port, struct room *room)
{
    static struct reader readers[3];

    for (int i = 0; i < 3; i++) {
        readers[i].fd = weft_dial("127.0.0.1", port);
        while (atomic_load(&room->guests) == i)
            weft_sleep(WEFT_MS(1));
    }
    printf("the first has said %d lines, the second has heard %d\n", SAID, talk(readers[0].fd, &readers[1]));
    ask_the_third(&readers[2]);
    for (int i = 0; i < 3; i++)
        weft_close(readers[i].fd);
}

static intptr_t start(void *port)
{
    struct room room = {.lines = weft_broadcast_new(sizeof(struct line), REMEMBERED)};
    int listener = weft_listen(port ? NULL : "127.0.0.1", port ? (uint16_t)atoi(port) : 0, 0);
    weft_server *server;
    intptr_t rc = weft_serve(&server, listener, welcome, &room, NULL);

    if (rc == 0 && port)
        rc = weft_server_wait_closed(server);
    else if (rc == 0)
        visit((uint16_t)weft_server_port(server), &room);
    weft_server_free(server);
    weft_broadcast_free(room.lines);
    return rc;
}

int main(int argc, char **argv)
{
    intptr_t rc = weft_run(start, argc > 1 ? argv[1] : NULL);

    if (rc < 0)
        fprintf(stderr, "chat: %s\n", strerror((int)-rc));
    return rc < 0;
}
