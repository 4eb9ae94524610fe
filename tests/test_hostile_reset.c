/*
 * Connections that end in the middle: a scripted exchange in which one side resets, closes or half-closes after every
 * k-th of its operations, with the other side written in each way there is; and input that is cut off at every byte.
 * Whoever is left ends with a hang-up or the end of the input, never otherwise, and never stays.
 */
#include "hostile.h"

/*
 * The exchange, of a caller and an answerer: the caller sends a line and reads REPLY bytes; sends a second line and
 * reads REPLY bytes again; ends its output and reads to the end. The answerer's part is the other half.
 */
enum { REPLY = 300000 };

static char reply[REPLY];
static const char question[] = "a question\n";
enum { QUESTION = sizeof question - 1 };

/* ---- who hangs up ---- */

enum how { RESET, CLOSE, HALF_CLOSE, HOWS };

struct script {
    int fd;
    int stop_after; /* operations */
    bool pause;     /* before the end, so that the other side has come as far as it can */
    enum how how;
};

/* One operation of the caller. */
static ssize_t call_step(int fd, int k)
{
    switch (k % 5) {
    case 0:
        return weft_write_all(fd, question, 3);
    case 1:
        return weft_write_all(fd, question + 3, QUESTION - 3);
    case 2:
        return weft_read(fd, (char[1]){0}, 1);
    case 3:
        read_exactly(fd, (char[1000]){0}, 999);
        return 1;
    default:
        for (size_t left = REPLY - 1000; left > 0;) {
            char buffer[4000];
            ssize_t n = weft_read(fd, buffer, left < sizeof buffer ? left : sizeof buffer);

            must(n > 0);
            left -= (size_t)n;
        }
        return 1;
    }
}

/* One of the answerer. */
static ssize_t answer_step(int fd, int k)
{
    switch (k % 5) {
    case 0:
        return weft_read(fd, (char[1]){0}, 1);
    case 1:
        read_exactly(fd, (char[QUESTION]){0}, QUESTION - 1);
        return 1;
    case 2:
        return weft_write_all(fd, reply, 1);
    case 3:
        return weft_write_all(fd, reply, 999);
    default:
        return weft_write_all(fd, reply, REPLY - 1000);
    }
}

enum { STEPS = 10 };

static void hang_up(const struct script *script)
{
    if (script->pause)
        must_be(weft_sleep(WEFT_US(300)), 0);
    if (script->how == RESET)
        must_be(weft_set_abort(script->fd), 0);
    if (script->how == HALF_CLOSE) {
        must_be(shutdown(script->fd, SHUT_WR), 0);
        read_rest(script->fd);
    }
    must_be(weft_close(script->fd), 0);
}

static void follow(const struct script *script, ssize_t (*step)(int fd, int k))
{
    for (int k = 0; k < script->stop_after; k++)
        must(step(script->fd, k) > 0);
    hang_up(script);
}

/* ---- who is hung up on: each returns 0 or how it was hung up on ---- */

static int no_more(ssize_t n)
{
    must(n == 0 || is_hang_up(n) || n == -ENODATA);
    return (int)n;
}

static int answer_plainly(int fd)
{
    for (;;) {
        ssize_t n = 1;
        char byte = 0;

        while (n > 0 && byte != '\n')
            n = weft_read(fd, &byte, 1);
        if (n > 0)
            n = weft_write_all(fd, reply, REPLY);
        if (n <= 0)
            return no_more(n);
    }
}

static int call_plainly(int fd)
{
    char buffer[4096];
    ssize_t n = 1;

    for (int i = 0; i < 2 && n > 0; i++) {
        size_t got = 0;

        n = weft_write_all(fd, question, QUESTION);
        while (n > 0 && got < REPLY && (n = weft_read(fd, buffer, sizeof buffer)) > 0)
            got += (size_t)n;
    }
    if (n > 0) {
        must(shutdown(fd, SHUT_WR) == 0 || errno == ENOTCONN);
        n = weft_read(fd, buffer, 1);
    }
    return no_more(n);
}

/* The stream takes a duplicate: the descriptor is its owner's. */
static weft_stream *stream_of(int fd)
{
    weft_stream *stream;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    must(own >= 0);
    must_be(weft_stream_open(own, &stream), 0);
    return stream;
}

static int end_stream(weft_stream *stream, ssize_t n)
{
    int rc = weft_stream_close(stream);

    must(rc == 0 || is_hang_up(rc));
    weft_stream_free(stream);
    return no_more(n);
}

static int answer_by_stream(int fd)
{
    weft_stream *stream = stream_of(fd);
    const char *line;
    ssize_t n;

    while ((n = weft_stream_readline(stream, &line)) > 0) {
        if (line[n - 1] != '\n') {
            n = -ENODATA; /* cut off */
            break;
        }
        must_be(n, QUESTION);
        n = weft_stream_write(stream, reply, REPLY);
        if (n == 0)
            n = weft_stream_drain(stream);
        if (n < 0)
            break;
    }
    return end_stream(stream, n);
}

static int call_by_stream(int fd)
{
    weft_stream *stream = stream_of(fd);
    char *buffer = malloc(REPLY);
    ssize_t n = REPLY;

    must(buffer != NULL);
    for (int i = 0; i < 2 && n == REPLY; i++) {
        n = weft_stream_write(stream, question, QUESTION);
        if (n == 0)
            n = weft_stream_readexactly(stream, buffer, REPLY);
    }
    if (n == REPLY)
        n = weft_stream_write_eof(stream);
    if (n == 0)
        n = weft_stream_read(stream, buffer, 1);
    free(buffer);
    return end_stream(stream, n > 0 ? -ENODATA : n);
}

struct talk {
    weft_transport *transport;
    size_t wanted, got; /* until it is this one's turn to send */
    int turns;          /* that are left to the caller */
    bool calls;
    int made, lost;
};

static void talk_made(void *arg, weft_transport *transport)
{
    struct talk *talk = arg;

    talk->transport = transport;
    talk->made++;
    if (talk->calls)
        weft_transport_write(transport, question, QUESTION);
}

static void take_turn(struct talk *talk)
{
    talk->got -= talk->wanted;
    if (!talk->calls)
        weft_transport_write(talk->transport, reply, REPLY);
    else if (--talk->turns > 0)
        weft_transport_write(talk->transport, question, QUESTION);
    else
        weft_transport_write_eof(talk->transport);
}

static void talk_data(void *arg, const void *data, size_t size)
{
    struct talk *talk = arg;

    (void)data;
    must_be(talk->made, 1);
    must_be(talk->lost, 0);
    talk->got += size;
    while (talk->got >= talk->wanted)
        take_turn(talk);
}

static void talk_lost(void *arg, int error)
{
    struct talk *talk = arg;

    must(error == 0 || is_hang_up(error));
    must_be(talk->lost++, 0);
}

static int run_talk(int fd, struct talk *talk)
{
    static const weft_protocol protocol = {
        .connection_made = talk_made, .data_received = talk_data, .connection_lost = talk_lost};
    weft_stream *stream = stream_of(fd);
    int rc = weft_protocol_run(stream, &protocol, talk);

    must_be(talk->made, 1);
    must_be(talk->lost, 1);
    weft_stream_free(stream);
    return no_more(rc);
}

static int answer_by_protocol(int fd)
{
    struct talk talk = {.wanted = QUESTION};

    return run_talk(fd, &talk);
}

static int call_by_protocol(int fd)
{
    struct talk talk = {.wanted = REPLY, .turns = 2, .calls = true};

    return run_talk(fd, &talk);
}

/* ---- the answerer accepts, in a server ---- */

typedef int part(int fd);

static intptr_t answer_in_handler(weft_client *client)
{
    part *answer = *(part **)client->arg;

    answer(client->fd);
    return 0;
}

/* A line at a time. */
static intptr_t answer_and_be_called_again(weft_client *client)
{
    char byte = 0;
    ssize_t n;

    while ((n = weft_read(client->fd, &byte, 1)) == 1 && byte != '\n')
        ;
    if (n == 1)
        n = weft_write_all(client->fd, reply, REPLY);
    if (n > 0)
        return WEFT_CALL_AGAIN;
    no_more(n);
    return 0;
}

static intptr_t call_and_hang_up(void *arg)
{
    follow(arg, call_step);
    return 0;
}

/* At every operation, in every way. */
static void hang_up_on_server(weft_server *server)
{
    struct script scripts[STEPS + 1][HOWS][2];
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int k = 0; k <= STEPS; k++)
        for (int how = 0; how < HOWS; how++)
            for (int pause = 0; pause < 2; pause++) {
                struct script *script = &scripts[k][how][pause];

                *script = (struct script){dial(server), k, pause, (enum how)how};
                must_be(weft_group_spawn(&group, call_and_hang_up, script), 0);
            }
    must_be(weft_group_wait(&group), 0);
    wait_until_true(clients_of(server) == 0);
}

/* Who calls in good order gets both answers. */
static void expect_answers(weft_server *server)
{
    int fd = dial(server);

    must_be(call_plainly(fd), 0);
    must_be(weft_close(fd), 0);
    wait_until_true(clients_of(server) == 0);
}

static void serve_and_hang_up(weft_client_fn *handler, part *answer, const weft_serve_options *options)
{
    weft_server *server = serve(handler, &answer, options);

    hang_up_on_server(server);
    expect_answers(server);
    weft_server_free(server);
}

static intptr_t hang_up_on_servers(void *arg)
{
    static const weft_serve_options at_once = {.linger = -1}, on_data = {.flags = WEFT_SERVE_ON_DATA};

    serve_and_hang_up(answer_in_handler, answer_plainly, NULL);
    serve_and_hang_up(answer_in_handler, answer_by_stream, NULL);
    serve_and_hang_up(answer_in_handler, answer_by_protocol, NULL);
    serve_and_hang_up(answer_and_be_called_again, NULL, &at_once);
    serve_and_hang_up(answer_and_be_called_again, NULL, &on_data);
    return (intptr_t)arg;
}

static void an_answerer_that_is_hung_up_on_after_any_operation_ends(void **state)
{
    (void)state;
    run_everywhere(hang_up_on_servers);
}

/* ---- the caller, which dials somebody who hangs up ---- */

struct pair {
    struct script script;
    part *call;
    int port;
};

static intptr_t answer_and_hang_up(void *arg)
{
    follow(arg, answer_step);
    return 0;
}

static intptr_t call_who_hangs_up(void *arg)
{
    struct pair *pair = arg;
    int listener = weft_listen("127.0.0.1", 0, 0), fd = dial_port(weft_local_port(listener)), rc;
    weft_task *other;

    pair->script.fd = weft_accept(listener, NULL, NULL);
    must(pair->script.fd >= 0);
    must_be(weft_close(listener), 0);
    must((other = weft_spawn(answer_and_hang_up, &pair->script)) != NULL);
    rc = pair->call(fd);
    must(rc == 0 || pair->script.stop_after < STEPS || pair->script.how == RESET);
    if (pair->script.how == RESET) /* a good end is not for who breaks off by closing what it has not read */
        must_be(weft_set_abort(fd), 0);
    must_be(weft_close(fd), 0);
    must_be(weft_await(other), 0);
    return 0;
}

static void hang_up_on(part *call)
{
    struct pair pairs[STEPS + 1][HOWS][2];
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (int k = 0; k <= STEPS; k++)
        for (int how = 0; how < HOWS; how++)
            for (int pause = 0; pause < 2; pause++) {
                struct pair *pair = &pairs[k][how][pause];

                *pair = (struct pair){.script = {-1, k, pause, (enum how)how}, .call = call};
                must_be(weft_group_spawn(&group, call_who_hangs_up, pair), 0);
            }
    must_be(weft_group_wait(&group), 0);
}

static intptr_t hang_up_on_callers(void *arg)
{
    hang_up_on(call_plainly);
    hang_up_on(call_by_stream);
    hang_up_on(call_by_protocol);
    return (intptr_t)arg;
}

static void a_caller_that_is_hung_up_on_after_any_operation_ends(void **state)
{
    (void)state;
    run_everywhere(hang_up_on_callers);
}

/* ---- input that is cut off ---- */

static const char message[] = "0123456789\r\nabcdefgh\r\n-the rest of it-";
enum { MESSAGE = sizeof message - 1 };

enum { AT_ONCE, DRIBBLED, RESET_BEHIND, CUTS };

struct cut {
    int fd, length, way;
};

static intptr_t send_cut(void *arg)
{
    struct cut *cut = arg;

    for (int i = 0; i < cut->length && cut->way == DRIBBLED; i++) {
        must_be(weft_write(cut->fd, message + i, 1), 1);
        must_be(weft_yield(), 0);
    }
    if (cut->way != DRIBBLED && cut->length > 0)
        must_be(weft_write_all(cut->fd, message, (size_t)cut->length), cut->length);
    if (cut->way == RESET_BEHIND)
        must_be(weft_set_abort(cut->fd), 0);
    must_be(weft_close(cut->fd), 0);
    return 0;
}

/* What is read up to the cut is what was sent; then comes the end, or the reset. */
static void expect_exactly(weft_stream *stream, const struct cut *cut)
{
    char buffer[MESSAGE + 1];
    ssize_t n = weft_stream_readexactly(stream, buffer, MESSAGE);

    if (cut->way == RESET_BEHIND && cut->length < MESSAGE) {
        must_be(n, -ECONNRESET);
        return;
    }
    must(n == cut->length || (n == -ECONNRESET && cut->way == RESET_BEHIND));
    must(n < 0 || memcmp(buffer, message, (size_t)n) == 0);
    if (cut->way != RESET_BEHIND) {
        must_be(weft_stream_readexactly(stream, buffer, 1), 0);
        must_be(weft_stream_at_eof(stream), 1);
    }
}

/* "\r\n" ends behind the 12th and the 22nd byte. */
static void expect_until(weft_stream *stream, const struct cut *cut)
{
    static const struct iovec separator = {"\r\n", 2};
    static const int ends[] = {12, 22};
    char buffer[MESSAGE];
    const char *data;
    int at = 0;
    ssize_t n;

    for (int i = 0; i < 2 && ends[i] <= cut->length; i++) {
        n = weft_stream_readuntil(stream, &separator, 1, &data);
        if (n == -ECONNRESET && cut->way == RESET_BEHIND)
            return;
        must_be(n, ends[i] - at);
        must(memcmp(data, message + at, (size_t)n) == 0);
        at = ends[i];
    }
    n = weft_stream_readuntil(stream, &separator, 1, &data);
    if (cut->way == RESET_BEHIND) {
        must_be(n, -ECONNRESET);
        return;
    }
    must_be(n, at < cut->length ? -ENODATA : 0);
    n = weft_stream_readexactly(stream, buffer, sizeof buffer); /* what is left can still be had */
    must_be(n, cut->length - at);
    must(memcmp(buffer, message + at, (size_t)n) == 0);
    must_be(weft_stream_readuntil(stream, &separator, 1, &data), 0);
}

static void cut_off(int listener, int port, int length, int way, void (*expect)(weft_stream *, const struct cut *))
{
    struct cut cut = {dial_port(port), length, way};
    weft_stream *stream;
    weft_task *sender;

    must_be(weft_stream_open(weft_accept(listener, NULL, NULL), &stream), 0);
    must((sender = weft_spawn(send_cut, &cut)) != NULL);
    expect(stream, &cut);
    must_be(weft_await(sender), 0);
    weft_stream_free(stream);
}

static intptr_t cut_everywhere(void *arg)
{
    int listener = weft_listen("127.0.0.1", 0, 0), port = weft_local_port(listener);

    for (int length = 0; length <= MESSAGE; length++)
        for (int way = 0; way < CUTS; way++) {
            cut_off(listener, port, length, way, expect_exactly);
            cut_off(listener, port, length, way, expect_until);
        }
    must_be(weft_close(listener), 0);
    return (intptr_t)arg;
}

static void input_that_is_cut_off_at_any_byte_is_told_from_the_whole(void **state)
{
    (void)state;
    run_everywhere(cut_everywhere);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answerer_that_is_hung_up_on_after_any_operation_ends),
        cmocka_unit_test(a_caller_that_is_hung_up_on_after_any_operation_ends),
        cmocka_unit_test(input_that_is_cut_off_at_any_byte_is_told_from_the_whole),
    };

    return run_all(tests, argc, argv);
}
