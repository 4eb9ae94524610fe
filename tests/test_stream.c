/* Streams: reading with and without separators, writing without waiting, back-pressure, the ways in which they
 * end. */
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "io/separator.h"
#include "io/stream.h"
#include "support.h"

static const uint32_t counts[] = {1, 2, 8};

static void run_everywhere(weft_fn *fn)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        assert_int_equal(run_on(counts[i], fn, NULL), 0);
}

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static weft_stream *open_stream(int fd)
{
    weft_stream *stream;

    must_be(weft_stream_open(fd, &stream), 0);
    return stream;
}

/* Two streams that are connected. */
struct pair {
    weft_stream *left, *right;
};

static void open_pair(struct pair *pair)
{
    int fds[2];

    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    pair->left = open_stream(fds[0]);
    pair->right = open_stream(fds[1]);
}

static void free_pair(struct pair *pair)
{
    weft_stream_free(pair->left);
    weft_stream_free(pair->right);
}

/* The same over TCP. */
static void open_tcp_pair(struct pair *pair)
{
    int listener = weft_listen("127.0.0.1", 0, 1), fd;

    must(listener >= 0);
    must_be(weft_stream_dial("127.0.0.1", (uint16_t)weft_local_port(listener), &pair->left), 0);
    fd = weft_accept(listener, NULL, NULL);
    must(fd >= 0);
    pair->right = open_stream(fd);
    must_be(weft_close(listener), 0);
}

static void write_text(weft_stream *stream, const char *text)
{
    must_be(weft_stream_write(stream, text, strlen(text)), 0);
}

static void expect(weft_stream *stream, const char *text)
{
    char buffer[256];
    size_t size = strlen(text);

    must_be(weft_stream_readexactly(stream, buffer, size), size);
    must(memcmp(buffer, text, size) == 0);
}

static void expect_line(weft_stream *stream, const char *text)
{
    const char *line;

    must_be(weft_stream_readline(stream, &line), strlen(text));
    must(memcmp(line, text, strlen(text)) == 0);
}

static void expect_until(weft_stream *stream, const char *separator, const char *text)
{
    struct iovec iov = {(void *)(uintptr_t)separator, strlen(separator)};
    const char *data;

    must_be(weft_stream_readuntil(stream, &iov, 1, &data), strlen(text));
    must(memcmp(data, text, strlen(text)) == 0);
}

static char byte_at(size_t i)
{
    return (char)(i * 31 >> 3);
}

static char *make_bytes(size_t size)
{
    char *bytes = malloc(size);

    must(bytes != NULL);
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_at(i);
    return bytes;
}

struct expected {
    weft_stream *stream;
    size_t size;
};

/* Read so many bytes of the known sort. */
static intptr_t read_bytes(void *arg)
{
    struct expected *expected = arg;
    char buffer[7919];
    size_t got = 0;

    while (got < expected->size) {
        size_t left = expected->size - got;
        ssize_t n = weft_stream_read(expected->stream, buffer, left < sizeof buffer ? left : sizeof buffer);

        must(n > 0);
        for (ssize_t i = 0; i < n; i++)
            must(buffer[i] == byte_at(got + (size_t)i));
        got += (size_t)n;
    }
    return (intptr_t)got;
}

/* ---- reading ---- */

static intptr_t read_what_is_there(void *arg)
{
    struct pair pair;
    char buffer[10000];

    (void)arg;
    open_pair(&pair);
    write_text(pair.left, "hello, world");
    must_be(weft_stream_read(pair.right, buffer, 0), 0);
    must_be(weft_stream_read(pair.right, buffer, 5), 5);
    must_be(weft_stream_at_eof(pair.right), 0);
    must_be(weft_stream_read(pair.right, buffer, sizeof buffer), 7);
    must(memcmp(buffer, ", world", 7) == 0);
    write_text(pair.left, "more");
    must_be(weft_stream_read(pair.right, buffer, sizeof buffer), 4);
    write_text(pair.left, "last");
    must_be(weft_stream_close(pair.left), 0);
    must_be(weft_stream_read(pair.right, buffer, 3), 3);
    must_be(weft_stream_at_eof(pair.right), 0);
    must_be(weft_stream_read(pair.right, buffer, 3), 1);
    must_be(weft_stream_read(pair.right, buffer, 3), 0);
    must_be(weft_stream_read(pair.right, buffer, sizeof buffer), 0);
    must_be(weft_stream_at_eof(pair.right), 1);
    free_pair(&pair);
    return 0;
}

static void a_read_takes_what_is_there(void **state)
{
    (void)state;
    run_everywhere(read_what_is_there);
}

static intptr_t write_later(void *arg)
{
    weft_stream *stream = arg;

    for (int i = 0; i < 10; i++) {
        must_be(weft_yield(), 0);
        must_be(weft_stream_write(stream, &"0123456789"[i], 1), 0);
    }
    return 0;
}

static intptr_t read_exactly(void *arg)
{
    const size_t size = 300000; /* more than the limit */
    char small[20], *large = malloc(size), *bytes = make_bytes(size);
    weft_task *writer;
    struct pair pair;

    (void)arg;
    must(large != NULL);
    open_pair(&pair);
    writer = spawn(write_later, pair.left);
    must_be(weft_stream_readexactly(pair.right, small, 0), 0);
    must_be(weft_stream_readexactly(pair.right, small, 4), 4);
    must_be(weft_stream_readexactly(pair.right, small + 4, 6), 6);
    must(memcmp(small, "0123456789", 10) == 0);
    must_be(weft_await(writer), 0);

    must_be(weft_stream_write(pair.left, bytes, size), 0);
    must_be(weft_stream_readexactly(pair.right, large, size), size);
    must(memcmp(large, bytes, size) == 0);

    write_text(pair.left, "half");
    must_be(weft_stream_close(pair.left), 0);
    must_be(weft_stream_readexactly(pair.right, small, 10), 4); /* what came before the end */
    must(memcmp(small, "half", 4) == 0);
    must_be(weft_stream_readexactly(pair.right, small, 10), 0);
    must_be(weft_stream_at_eof(pair.right), 1);
    free_pair(&pair);
    free(large);
    free(bytes);
    return 0;
}

static void an_exact_read_is_short_only_at_the_end(void **state)
{
    (void)state;
    run_everywhere(read_exactly);
}

static intptr_t interrupted_reads(void *arg)
{
    const size_t size = 100000;
    char *large = malloc(size), *bytes = make_bytes(size), small[10];
    struct iovec separator = {(void *)(uintptr_t) "|", 1};
    const char *data;
    struct pair pair;
    weft_timeout t;

    (void)arg;
    must(large != NULL);
    open_pair(&pair);
    write_text(pair.left, "abc");
    must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
    must_be(weft_stream_readexactly(pair.right, small, 5), -ETIMEDOUT);
    must_be(weft_stream_readuntil(pair.right, &separator, 1, &data), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    write_text(pair.left, "de|");
    must_be(weft_stream_readuntil(pair.right, &separator, 1, &data), 6);
    must(memcmp(data, "abcde|", 6) == 0);

    must_be(weft_stream_write(pair.left, bytes, size - 1), 0);
    must_be(weft_timeout_begin(&t, WEFT_MS(20)), 0);
    must_be(weft_stream_readexactly(pair.right, large, size), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    must_be(weft_stream_write(pair.left, bytes + size - 1, 1), 0);
    must_be(weft_stream_readexactly(pair.right, large, size), size);
    must(memcmp(large, bytes, size) == 0);

    must_be(weft_cancel(weft_self()), 1);
    write_text(pair.left, "x"); /* writing does not wait */
    must_be(weft_stream_read(pair.right, small, 1), -ECANCELED);
    must_be(weft_stream_readexactly(pair.right, small, 1), -ECANCELED);
    must_be(weft_stream_readline(pair.right, &data), -ECANCELED);
    must_be(weft_stream_drain(pair.left), -ECANCELED);
    must_be(weft_uncancel(), 1);
    expect(pair.right, "x");
    free_pair(&pair);
    free(large);
    free(bytes);
    return 0;
}

static void an_interrupted_read_consumes_nothing(void **state)
{
    (void)state;
    run_everywhere(interrupted_reads);
}

static intptr_t read_for_ever(void *arg)
{
    char byte;

    return weft_stream_read(arg, &byte, 1);
}

static intptr_t two_readers(void *arg)
{
    const char *line;
    struct pair pair;
    weft_task *first;
    char byte;

    (void)arg;
    open_pair(&pair);
    first = spawn(read_for_ever, pair.right);
    /* Whoever comes second is refused. Which one that is, is open until the first waits. */
    do
        must_be(weft_yield(), 0);
    while (weft_stream_set_limit(pair.right, 1000) != -EBUSY);
    must_be(weft_stream_read(pair.right, &byte, 1), -EBUSY);
    must_be(weft_stream_readexactly(pair.right, &byte, 1), -EBUSY);
    must_be(weft_stream_readline(pair.right, &line), -EBUSY);
    must_be(weft_stream_at_eof(pair.right), 0);
    write_text(pair.left, "ab");
    must_be(weft_await(first), 1);
    must_be(weft_stream_read(pair.right, &byte, 1), 1);
    must_be(byte, 'b');
    free_pair(&pair);
    return 0;
}

static void a_second_reader_is_refused(void **state)
{
    (void)state;
    run_everywhere(two_readers);
}

/* ---- separators ---- */

/* Byte by byte, for comparison. */
static size_t naive_first(const char *bytes, size_t length, const struct iovec *separators, int count)
{
    for (size_t end = 1; end <= length; end++)
        for (int i = 0; i < count; i++) {
            size_t size = separators[i].iov_len;

            if (size <= end && memcmp(bytes + end - size, separators[i].iov_base, size) == 0)
                return end;
        }
    return 0;
}

static void the_search_finds_what_ends_first(void **state)
{
    uint64_t seed = wanted_seed();

    (void)state;
    for (int round = 0; round < FEWER(200000); round++) {
        char bytes[24], texts[3][4];
        struct iovec separators[3];
        size_t length = draw(&seed) % sizeof bytes, seen = 0, found = 0;
        int count = 1 + (int)(draw(&seed) % 3);

        for (size_t i = 0; i < length; i++)
            bytes[i] = (char)('a' + draw(&seed) % 2);
        for (int i = 0; i < count; i++) {
            separators[i] = (struct iovec){texts[i], 1 + draw(&seed) % 4};
            for (size_t k = 0; k < separators[i].iov_len; k++)
                texts[i][k] = (char)('a' + draw(&seed) % 3);
        }
        assert_int_equal(weft__first_separator(bytes, length, 0, separators, count),
                         naive_first(bytes, length, separators, count));
        /* As it comes in, piece by piece. */
        for (size_t there = 0; found == 0 && there < length;) {
            there += 1 + draw(&seed) % (length - there);
            found = weft__first_separator(bytes, there, seen, separators, count);
            seen = there;
        }
        assert_int_equal(found, naive_first(bytes, length, separators, count));
    }
}

static intptr_t read_to_separators(void *arg)
{
    struct iovec several[] = {
        {(void *)(uintptr_t) "END", 3}, {(void *)(uintptr_t) "E", 1}, {(void *)(uintptr_t) "\r\n", 2}};
    struct iovec longest_first[] = {{(void *)(uintptr_t) "bcd", 3}, {(void *)(uintptr_t) "abcdef", 6}};
    struct iovec empty = {(void *)(uintptr_t) "", 0};
    struct pair pair;
    const char *data;

    (void)arg;
    open_pair(&pair);
    write_text(pair.left, "one\r\ntwoENDthree\r\n");
    must_be(weft_stream_readuntil(pair.right, several, 3, &data), 5);
    must(memcmp(data, "one\r\n", 5) == 0);
    must_be(weft_stream_readuntil(pair.right, several, 3, &data), 4);
    must(memcmp(data, "twoE", 4) == 0);
    expect_until(pair.right, "\r\n", "NDthree\r\n");
    write_text(pair.left, "abcdef");
    must_be(weft_stream_readuntil(pair.right, longest_first, 2, &data), 4);
    must(memcmp(data, "abcd", 4) == 0);
    expect(pair.right, "ef");
    must_be(weft_stream_readuntil(pair.right, &empty, 1, &data), -EINVAL);
    must_be(weft_stream_readuntil(pair.right, several, 0, &data), -EINVAL);
    must_be(weft_stream_readuntil(pair.right, several, -1, &data), -EINVAL);
    /* A separator that comes in pieces, and one that begins like another. */
    for (size_t cut = 1; cut < 6; cut++) {
        char text[] = "x\r\n\r\r\n";
        weft_timeout t;

        must_be(weft_stream_write(pair.left, text, cut), 0);
        if (cut < 3) {
            must_be(weft_timeout_begin(&t, WEFT_US(100)), 0);
            must_be(weft_stream_readuntil(pair.right, several, 3, &data), -ETIMEDOUT);
            must_be(weft_timeout_end(&t), 1);
        }
        must_be(weft_stream_write(pair.left, text + cut, 6 - cut), 0);
        expect_until(pair.right, "\r\r\n", "x\r\n\r\r\n");
    }
    free_pair(&pair);
    return 0;
}

static void of_several_separators_the_shortest_match_wins(void **state)
{
    (void)state;
    run_everywhere(read_to_separators);
}

static intptr_t drip(void *arg)
{
    weft_stream *stream = arg;

    for (const char *c = "GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"; *c != '\0'; c++) {
        must_be(weft_stream_write(stream, c, 1), 0);
        must_be(weft_yield(), 0);
    }
    return weft_stream_close(stream);
}

static intptr_t read_dripping(void *arg)
{
    struct iovec separator = {(void *)(uintptr_t) "\r\n", 2};
    struct pair pair;
    weft_task *writer;
    const char *data;

    (void)arg;
    for (int i = 0; i < FEWER(200); i++) {
        open_pair(&pair);
        writer = spawn(drip, pair.left);
        expect_until(pair.right, "\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        must_be(weft_stream_readuntil(pair.right, &separator, 1, &data), -ENODATA); /* and it stays */
        must_be(weft_stream_readuntil(pair.right, &separator, 1, &data), -ENODATA);
        must_be(weft_stream_at_eof(pair.right), 0);
        expect_line(pair.right, "rest");
        must_be(weft_stream_readuntil(pair.right, &separator, 1, &data), 0);
        must_be(weft_stream_readline(pair.right, &data), 0);
        must_be(weft_stream_at_eof(pair.right), 1);
        must_be(weft_await(writer), 0);
        free_pair(&pair);
    }
    return 0;
}

static void messages_that_come_byte_by_byte(void **state)
{
    (void)state;
    run_everywhere(read_dripping);
}

static intptr_t read_lines(void *arg)
{
    struct pair pair;

    (void)arg;
    open_pair(&pair);
    write_text(pair.left, "one\n\ntwo\r\nlast");
    must_be(weft_stream_close(pair.left), 0);
    expect_line(pair.right, "one\n");
    expect_line(pair.right, "\n");
    expect_line(pair.right, "two\r\n");
    expect_line(pair.right, "last");
    expect_line(pair.right, "");
    free_pair(&pair);
    return 0;
}

static void the_last_line_may_lack_its_end(void **state)
{
    (void)state;
    run_everywhere(read_lines);
}

static intptr_t exceed_the_limit(void *arg)
{
    char line[300], text[5000];
    const char *data;
    struct pair pair;
    int unread;

    (void)arg;
    memset(text, 'x', sizeof text);
    open_pair(&pair);
    must_be(weft_stream_set_limit(pair.right, 0), -EINVAL);
    must_be(weft_stream_set_limit(pair.right, 100), 0);
    must_be(weft_stream_write(pair.left, text, 99), 0);
    write_text(pair.left, "\n");
    must_be(weft_stream_readline(pair.right, &data), 100); /* with its end just within */
    must_be(weft_stream_write(pair.left, text, sizeof text), 0);
    write_text(pair.left, "\n");
    for (int i = 0; i < 3; i++)
        must_be(weft_stream_readline(pair.right, &data), -EMSGSIZE);
    /* It was not read ahead beyond the limit: the rest is the peer's to keep. */
    must_be(ioctl(weft_stream_fd(pair.right), FIONREAD, &unread), 0);
    must_be(unread, sizeof text + 1 - 100);
    must_be(weft_stream_readexactly(pair.right, line, 300), 300);
    must(memcmp(line, text, 300) == 0);
    must_be(weft_stream_set_limit(pair.right, 4702), 0);
    must_be(weft_stream_readline(pair.right, &data), 4701);
    must(data[4700] == '\n');

    /* The default. */
    must_be(weft_stream_set_limit(pair.right, WEFT_STREAM_LIMIT), 0);
    for (size_t left = WEFT_STREAM_LIMIT; left > 0; left -= 64)
        must_be(weft_stream_write(pair.left, text, 64), 0);
    write_text(pair.left, "\n");
    must_be(weft_stream_readline(pair.right, &data), -EMSGSIZE);
    must_be(weft_stream_read(pair.right, line, 1), 1);
    must_be(weft_stream_readline(pair.right, &data), WEFT_STREAM_LIMIT);
    free_pair(&pair);
    return 0;
}

static void an_over_long_message_stays_where_it_is(void **state)
{
    (void)state;
    run_everywhere(exceed_the_limit);
}

/* ---- writing ---- */

static intptr_t write_much(void *arg)
{
    const size_t size = (size_t)FEWER(8 << 20);
    char *bytes = make_bytes(size);
    struct expected expected;
    weft_task *reader;
    weft_timeout t;
    struct pair pair;
    size_t high, low;

    (void)arg;
    open_pair(&pair);
    weft_stream_write_limits(pair.left, &high, &low);
    must(high == WEFT_STREAM_HIGH && low == WEFT_STREAM_LOW);
    must_be(weft_stream_drain(pair.left), 0);
    must_be(weft_stream_write(pair.left, bytes, size / 2), 0); /* nobody reads: it does not wait */
    for (size_t done = size / 2; done < size; done += 1024)
        must_be(weft_stream_write(pair.left, bytes + done, size - done < 1024 ? size - done : 1024), 0);
    must(weft_stream_buffered(pair.left) > high);
    must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
    must_be(weft_stream_drain(pair.left), -ETIMEDOUT);
    must_be(weft_stream_flush(pair.left), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);

    expected = (struct expected){pair.right, size};
    reader = spawn(read_bytes, &expected);
    must_be(weft_stream_drain(pair.left), 0);
    must(weft_stream_buffered(pair.left) <= low);
    must_be(weft_stream_flush(pair.left), 0);
    must_be(weft_stream_buffered(pair.left), 0);
    must_be(weft_await(reader), size);
    free_pair(&pair);
    free(bytes);
    return 0;
}

static void writing_never_waits_and_draining_does(void **state)
{
    (void)state;
    run_everywhere(write_much);
}

static intptr_t echo(void *arg)
{
    weft_stream *stream = arg;
    uint64_t copied;
    int rc = weft_stream_copy(stream, stream, &copied);

    return rc < 0 ? rc : weft_stream_close(stream);
}

/* A large request is sent while its writer already waits for the reply. */
static intptr_t write_then_read(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size);
    struct expected expected;
    weft_task *server;
    struct pair pair;

    (void)arg;
    open_pair(&pair);
    server = spawn(echo, pair.right);
    must_be(weft_stream_write(pair.left, bytes, size), 0);
    must_be(weft_stream_write_eof(pair.left), 0);
    expected = (struct expected){pair.left, size};
    must_be(read_bytes(&expected), size);
    must_be(weft_stream_read(pair.left, bytes, 1), 0);
    must_be(weft_await(server), 0);
    free_pair(&pair);
    free(bytes);
    return 0;
}

static void what_is_buffered_is_sent_in_the_background(void **state)
{
    (void)state;
    run_everywhere(write_then_read);
}

static intptr_t drain(void *arg)
{
    return weft_stream_drain(arg);
}

static intptr_t flush(void *arg)
{
    return weft_stream_flush(arg);
}

enum { DRAINERS = 10 };

static void many_wait(weft_stream *stream, weft_task **tasks)
{
    for (int i = 0; i < DRAINERS; i++)
        tasks[i] = spawn(i % 2 ? drain : flush, stream);
    yield_times(20);
}

static intptr_t many_drain(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size);
    weft_task *tasks[DRAINERS];

    (void)arg;
    for (int i = 0; i < FEWER(100); i++) {
        struct expected expected;
        struct pair pair;

        open_pair(&pair);
        must_be(weft_stream_write(pair.left, bytes, size), 0);
        many_wait(pair.left, tasks);
        for (int k = 0; k < DRAINERS; k++)
            must_be(weft_task_done(tasks[k]), 0);
        must_be(weft_cancel(tasks[3]), 1);
        must_be(weft_await(tasks[3]), -ECANCELED);
        expected = (struct expected){pair.right, size};
        must_be(read_bytes(&expected), size);
        for (int k = 0; k < DRAINERS; k++)
            if (k != 3)
                must_be(weft_await(tasks[k]), 0);
        free_pair(&pair);
    }
    free(bytes);
    return 0;
}

static void all_drainers_wake(void **state)
{
    (void)state;
    run_everywhere(many_drain);
}

/* Those who wait for less are not kept waiting by those who wait for more. */
static intptr_t wait_for_less_and_more(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size), *back = malloc(size);
    weft_task *tasks[DRAINERS];

    (void)arg;
    must(back != NULL);
    for (int i = 0; i < FEWER(300); i++) {
        size_t high, low;
        struct pair pair;

        open_pair(&pair);
        must_be(weft_stream_write(pair.left, bytes, size), 0);
        weft_stream_write_limits(pair.left, &high, &low);
        must(weft_stream_buffered(pair.left) > high);
        for (int k = 0; k < DRAINERS; k++)
            tasks[k] = spawn(k % 2 ? drain : flush, pair.left);
        if (i % 2)
            yield_times(i % 7);
        /* As it comes, until the low mark is passed. (It is counted after it was sent, so a read might wait in vain.) */
        while (weft_stream_buffered(pair.left) > low) {
            int there;

            must_be(ioctl(weft_stream_fd(pair.right), FIONREAD, &there), 0);
            if (there > 0)
                must(weft_stream_read(pair.right, back, 4096) > 0);
            else
                must_be(weft_sleep(WEFT_US(10)), 0);
        }
        for (int k = 1; k < DRAINERS; k += 2)
            must_be(weft_await(tasks[k]), 0);
        weft_stream_abort(pair.left);
        for (int k = 0; k < DRAINERS; k += 2) {
            intptr_t rc = weft_await(tasks[k]);

            must(rc == -EBADF || rc == 0);
        }
        free_pair(&pair);
    }
    free(bytes);
    free(back);
    return 0;
}

static void who_waits_for_the_low_mark_wakes_before_who_flushes(void **state)
{
    (void)state;
    run_everywhere(wait_for_less_and_more);
}

static intptr_t set_marks(void *arg)
{
    char *bytes = make_bytes(1 << 20);
    size_t high, low, there;
    struct pair pair;
    weft_task *task;

    (void)arg;
    open_pair(&pair);
    must_be(weft_stream_set_write_limits(pair.left, 1, 2), -EINVAL);
    must_be(weft_stream_set_write_limits(pair.left, 0, 0), 0);
    must_be(weft_stream_write(pair.left, bytes, 1 << 20), 0);
    there = weft_stream_buffered(pair.left);
    task = spawn(drain, pair.left);
    yield_times(10);
    must_be(weft_task_done(task), 0);
    must_be(weft_stream_set_write_limits(pair.left, there, there - 1), 0); /* between the marks: nothing changes */
    yield_times(10);
    must_be(weft_task_done(task), 0);
    must_be(weft_stream_set_write_limits(pair.left, there + 1, there), 0);
    must_be(weft_await(task), 0);
    weft_stream_write_limits(pair.left, &high, &low);
    must_be(high, there + 1);
    must_be(low, there);
    free_pair(&pair);
    free(bytes);
    return 0;
}

static void the_marks_can_be_set(void **state)
{
    (void)state;
    run_everywhere(set_marks);
}

enum { WRITERS = 8 };

struct writer {
    weft_stream *stream;
    int number, messages;
};

/* A message: its writer, its length, and so many bytes of the writer's number. */
static intptr_t write_messages(void *arg)
{
    struct writer *writer = arg;
    uint64_t seed = (uint64_t)writer->number * 77 + 1;

    for (int i = 0; i < writer->messages; i++) {
        unsigned char message[3 + 9000];
        size_t length = draw(&seed) % (i % 50 == 0 ? 9000 : 100);
        struct iovec parts[2] = {{message, 3}, {message + 3, length}};

        message[0] = (unsigned char)writer->number;
        message[1] = (unsigned char)(length & 255);
        message[2] = (unsigned char)(length >> 8);
        memset(message + 3, writer->number, length);
        must_be(weft_stream_writev(writer->stream, parts, 2), 0);
        if (i % 7 == 0)
            must_be(weft_stream_drain(writer->stream), 0);
        if (i % 11 == 0)
            must_be(weft_yield(), 0);
    }
    return 0;
}

static intptr_t many_write(void *arg)
{
    struct writer writers[WRITERS];
    weft_task *tasks[WRITERS];
    int messages = FEWER(3000);
    struct pair pair;

    (void)arg;
    open_pair(&pair);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){pair.left, i, messages};
        tasks[i] = spawn(write_messages, &writers[i]);
    }
    for (int i = 0; i < WRITERS * messages; i++) {
        unsigned char head[3], body[9000];
        size_t length;

        must_be(weft_stream_readexactly(pair.right, head, 3), 3);
        must(head[0] < WRITERS);
        length = head[1] | (size_t)head[2] << 8;
        must_be(weft_stream_readexactly(pair.right, body, length), length);
        for (size_t k = 0; k < length; k++)
            must(body[k] == head[0]);
    }
    must_be(weft_gather(tasks, WRITERS, NULL), 0);
    free_pair(&pair);
    return 0;
}

static void what_one_call_writes_stays_together(void **state)
{
    (void)state;
    run_everywhere(many_write);
}

static intptr_t corked(void *arg)
{
    char *bytes = make_bytes(200000), buffer[8192];
    struct expected expected;
    weft_task *reader;
    struct pair pair;
    int there;

    (void)arg;
    open_pair(&pair);
    must_be(weft_stream_cork(pair.left), 0);
    for (int i = 0; i < 2000; i++)
        write_text(pair.left, "abc");
    must_be(weft_stream_buffered(pair.left), 6000);
    must_be(ioctl(weft_stream_fd(pair.right), FIONREAD, &there), 0);
    must_be(there, 0);
    must_be(weft_stream_uncork(pair.left), 0);
    must_be(weft_stream_buffered(pair.left), 0);
    must_be(weft_stream_read(pair.right, buffer, sizeof buffer), 6000); /* in one piece */
    must_be(weft_stream_uncork(pair.left), 0);

    /* Those that wait until something is sent send it. */
    must_be(weft_stream_cork(pair.left), 0);
    write_text(pair.left, "flushed");
    must_be(weft_stream_flush(pair.left), 0);
    expect(pair.right, "flushed");
    must_be(weft_stream_write(pair.left, bytes, 200000), 0);
    must_be(weft_stream_buffered(pair.left), 200000);
    expected = (struct expected){pair.right, 200000};
    reader = spawn(read_bytes, &expected);
    must_be(weft_stream_drain(pair.left), 0);
    must_be(weft_await(reader), 200000);
    write_text(pair.left, "at the end");
    must_be(weft_stream_write_eof(pair.left), 0);
    expect(pair.right, "at the end");
    must_be(weft_stream_read(pair.right, buffer, 1), 0);
    free_pair(&pair);
    free(bytes);
    return 0;
}

static void a_cork_gathers_small_writes(void **state)
{
    (void)state;
    run_everywhere(corked);
}

static intptr_t reply(void *arg)
{
    weft_stream *stream = arg;
    const char *line;
    ssize_t n;

    while ((n = weft_stream_readline(stream, &line)) > 0)
        must_be(weft_stream_write(stream, line, (size_t)n), 0);
    return n;
}

/* A server that replies at once spawns nothing, and keeps nothing. */
static intptr_t request_and_reply(void *arg)
{
    weft_stats before, after;
    weft_task *server;
    struct pair pair;

    (void)arg;
    open_tcp_pair(&pair);
    server = spawn(reply, pair.right);
    write_text(pair.left, "warm up\n");
    expect_line(pair.left, "warm up\n");
    weft_runtime_stats(weft_runtime_current(), &before);
    for (int i = 0; i < FEWER(2000); i++) {
        write_text(pair.left, "request\n");
        expect_line(pair.left, "request\n");
        must_be(weft_stream_buffered(pair.left) + weft_stream_buffered(pair.right), 0);
    }
    weft_runtime_stats(weft_runtime_current(), &after);
    must_be(after.spawned, before.spawned);
    must_be(weft_stream_write_eof(pair.left), 0);
    must_be(weft_await(server), 0);
    free_pair(&pair);
    return 0;
}

static void a_reply_needs_no_further_task(void **state)
{
    (void)state;
    run_everywhere(request_and_reply);
}

static intptr_t refused_writes(void *arg)
{
    struct iovec iov[2] = {{(void *)(uintptr_t) "a", 1}, {(void *)(uintptr_t) "b", SIZE_MAX - 5}};
    struct pair pair;
    char byte;

    (void)arg;
    open_pair(&pair);
    must_be(weft_stream_writev(pair.left, iov, -1), -EINVAL);
    must_be(weft_stream_writev(pair.left, iov, 2), -EINVAL);
    must_be(weft_stream_writev(pair.left, iov, 0), 0);
    must_be(weft_stream_write(pair.left, NULL, 0), 0);
    must_be(weft_stream_close(pair.left), 0);
    must_be(weft_stream_read(pair.right, &byte, 1), 0); /* nothing of these came through */
    free_pair(&pair);
    return 0;
}

static void writes_that_cannot_be_are_refused(void **state)
{
    weft_stream *stream = NULL;
    int fds[2];
    char byte;

    (void)state;
    run_everywhere(refused_writes);
    assert_int_equal(weft_stream_open(-1, &stream), -EBADF);
    assert_int_equal(weft_stream_open(1000, &stream), -EBADF);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(weft_stream_open(fds[0], &stream), 0);
    /* Outside a task. */
    assert_int_equal(weft_stream_write(stream, "x", 1), -EPERM);
    assert_int_equal(weft_stream_read(stream, &byte, 1), -EPERM);
    assert_int_equal(weft_stream_drain(stream), -EPERM);
    assert_int_equal(weft_stream_is_closing(stream), 0);
    weft_stream_abort(stream);
    assert_int_equal(weft_stream_is_closing(stream), 1);
    weft_stream_free(stream);
    weft_stream_free(NULL);
    weft_close(fds[1]);
}

/* ---- the peer is gone ---- */

static intptr_t write_to_nobody(void *arg)
{
    char block[1000] = "";
    struct pair pair;
    int rc, rounds = 0;

    (void)arg;
    open_pair(&pair);
    must_be(weft_stream_close(pair.right), 0);
    while ((rc = weft_stream_write(pair.left, block, sizeof block)) == 0 &&
           (rc = weft_stream_drain(pair.left)) == 0)
        must(rounds++ < 1000);
    must_be(rc, -EPIPE);
    must_be(weft_stream_write(pair.left, block, 1), -EPIPE);
    must_be(weft_stream_drain(pair.left), -EPIPE);
    must_be(weft_stream_flush(pair.left), -EPIPE);
    must_be(weft_stream_write_eof(pair.left), -EPIPE);
    must_be(weft_stream_read(pair.left, block, 1), 0); /* it closed in good order */
    must_be(weft_stream_close(pair.left), -EPIPE);
    free_pair(&pair);
    return 0;
}

static intptr_t write_to_nobody_over_tcp(void *arg)
{
    char block[1000] = "";
    struct pair pair;
    int rc, rounds = 0;

    (void)arg;
    open_tcp_pair(&pair);
    weft_stream_abort(pair.right);
    while ((rc = weft_stream_write(pair.left, block, sizeof block)) == 0 &&
           (rc = weft_stream_drain(pair.left)) == 0)
        must(rounds++ < 100000);
    must(rc == -EPIPE || rc == -ECONNRESET);
    must_be(weft_stream_drain(pair.left), rc);
    free_pair(&pair);
    return 0;
}

static intptr_t drain_when_the_peer_goes(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size);
    weft_task *tasks[DRAINERS];

    (void)arg;
    for (int i = 0; i < FEWER(100); i++) {
        struct pair pair;

        open_pair(&pair);
        must_be(weft_stream_write(pair.left, bytes, size), 0);
        many_wait(pair.left, tasks);
        weft_stream_abort(pair.right);
        for (int k = 0; k < DRAINERS; k++) {
            intptr_t rc = weft_await(tasks[k]);

            must(rc == -EPIPE || rc == -ECONNRESET);
        }
        must_be(weft_stream_buffered(pair.left), 0); /* what cannot be sent is not kept */
        free_pair(&pair);
    }
    free(bytes);
    return 0;
}

static void without_a_peer_writing_fails_and_goes_on_failing(void **state)
{
    (void)state;
    run_everywhere(write_to_nobody);
    run_everywhere(write_to_nobody_over_tcp);
    run_everywhere(drain_when_the_peer_goes);
}

/* A reset is no orderly end, also when a write was the first to hear of it. */
static intptr_t hear_of_a_reset(void *arg)
{
    char byte;

    (void)arg;
    for (int writes = 0; writes < 2; writes++) {
        struct linger at_once = {1, 0};
        struct pair pair;
        ssize_t n;

        open_tcp_pair(&pair);
        must_be(setsockopt(weft_stream_fd(pair.right), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
        weft_stream_abort(pair.right);
        if (writes) {
            while (weft_stream_write(pair.left, "x", 1) == 0)
                must_be(weft_yield(), 0);
        }
        n = weft_stream_read(pair.left, &byte, 1);
        must_be(n, -ECONNRESET);
        must_be(weft_stream_read(pair.left, &byte, 1), -ECONNRESET);
        must(weft_stream_write(pair.left, "x", 1) < 0);
        must_be(weft_stream_at_eof(pair.left), 0);
        free_pair(&pair);
    }
    return 0;
}

static void a_reset_is_not_taken_for_the_end(void **state)
{
    (void)state;
    run_everywhere(hear_of_a_reset);
}

static intptr_t write_to_a_pipe(void *arg)
{
    weft_stream *from, *to;
    int fds[2];

    (void)arg;
    must_be(pipe(fds), 0);
    from = open_stream(fds[0]);
    to = open_stream(fds[1]);
    must_be(weft_stream_can_write_eof(to), 0);
    must_be(weft_stream_write_eof(to), -EOPNOTSUPP);
    write_text(to, "through a pipe\n");
    expect_line(from, "through a pipe\n");
    weft_stream_abort(from);
    must_be(weft_stream_write(to, "x", 1), -EPIPE); /* and no SIGPIPE */
    must_be(weft_stream_write(to, "x", 1), -EPIPE);
    must_be(weft_stream_close(to), -EPIPE);
    weft_stream_free(from);
    weft_stream_free(to);
    return 0;
}

static void a_pipe_without_a_reader_raises_no_signal(void **state)
{
    (void)state;
    run_everywhere(write_to_a_pipe);
}

static int64_t time_used(void)
{
    struct timespec ts;

    must_be(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), 0);
    return WEFT_SEC(ts.tv_sec) + ts.tv_nsec;
}

/* Its peer will write no more and does not read either: one waits for it without turning in circles. */
static intptr_t wait_for_a_half_closed_peer(void *arg)
{
    char *bytes = make_bytes(1 << 20);
    weft_timeout t;
    struct pair pair;
    int64_t before;

    (void)arg;
    open_pair(&pair);
    must_be(weft_stream_write_eof(pair.right), 0);
    must_be(weft_stream_read(pair.left, bytes, 1), 0);
    must_be(weft_stream_write(pair.left, bytes, 1 << 20), 0);
    before = time_used();
    must_be(weft_timeout_begin(&t, WEFT_MS(100)), 0);
    must_be(weft_stream_drain(pair.left), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    must(time_used() - before < WEFT_MS(60));
    free_pair(&pair);
    free(bytes);
    return 0;
}

static void a_peer_that_only_listens_costs_nothing(void **state)
{
    (void)state;
    run_everywhere(wait_for_a_half_closed_peer);
}

/* ---- half-close ---- */

static intptr_t half_close(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size), byte;
    struct expected expected;
    struct pair pair;

    (void)arg;
    open_pair(&pair);
    must_be(weft_stream_can_write_eof(pair.left), 1);
    must_be(weft_stream_write(pair.left, bytes, size), 0);
    must_be(weft_stream_write_eof(pair.left), 0); /* much is still to be sent */
    must_be(weft_stream_write_eof(pair.left), 0);
    must_be(weft_stream_write(pair.left, "x", 1), -ESHUTDOWN);
    expected = (struct expected){pair.right, size};
    must_be(read_bytes(&expected), size);
    must_be(weft_stream_read(pair.right, &byte, 1), 0);
    must_be(weft_stream_flush(pair.left), 0);
    write_text(pair.right, "the other way\n");
    expect_line(pair.left, "the other way\n");
    must_be(weft_stream_close(pair.right), 0);
    must_be(weft_stream_read(pair.left, &byte, 1), 0);
    must_be(weft_stream_close(pair.left), 0);
    free_pair(&pair);
    free(bytes);
    return 0;
}

static void after_a_half_close_reading_goes_on(void **state)
{
    (void)state;
    run_everywhere(half_close);
}

/* ---- closing ---- */

static intptr_t close_stream(void *arg)
{
    return weft_stream_close(arg);
}

static intptr_t close_with_much_to_send(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size), byte;
    weft_task *closers[2], *reader;
    struct expected expected;
    struct pair pair;

    (void)arg;
    open_pair(&pair);
    must_be(weft_stream_write(pair.left, bytes, size), 0);
    reader = spawn(read_for_ever, pair.left);
    closers[0] = spawn(close_stream, pair.left);
    closers[1] = spawn(close_stream, pair.left);
    wait_until_true(weft_stream_is_closing(pair.left));
    must_be(weft_stream_write(pair.left, "x", 1), -EBADF);
    must_be(weft_stream_write_eof(pair.left), -EBADF);
    yield_times(10);
    must_be(weft_task_done(closers[0]) + weft_task_done(closers[1]), 0);
    must(weft_stream_fd(pair.left) >= 0);
    expected = (struct expected){pair.right, size};
    must_be(read_bytes(&expected), size);
    must_be(weft_stream_read(pair.right, &byte, 1), 0);
    must_be(weft_await(closers[0]), 0);
    must_be(weft_await(closers[1]), 0);
    must_be(weft_await(reader), -EBADF);
    must_be(weft_stream_fd(pair.left), -EBADF);
    must_be(weft_stream_close(pair.left), 0);
    must_be(weft_stream_read(pair.left, &byte, 1), -EBADF);
    must_be(weft_stream_drain(pair.left), -EBADF);
    free_pair(&pair);
    free(bytes);
    return 0;
}

static void closing_sends_what_is_buffered(void **state)
{
    (void)state;
    run_everywhere(close_with_much_to_send);
}

static intptr_t close_in_vain(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size), buffer[10];
    struct pair pair;
    weft_timeout t;

    (void)arg;
    /* A peer that never reads: a deadline. */
    open_pair(&pair);
    must_be(weft_stream_write(pair.left, bytes, size), 0);
    must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
    must_be(weft_stream_close(pair.left), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    must_be(weft_stream_fd(pair.left), -EBADF);
    must_be(weft_stream_buffered(pair.left), 0);
    free_pair(&pair);

    /* Cancellation: what goes at once is sent all the same. */
    open_pair(&pair);
    must_be(weft_stream_cork(pair.left), 0);
    write_text(pair.left, "good-bye");
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_stream_close(pair.left), 0);
    must_be(weft_uncancel(), 1);
    must_be(weft_stream_read(pair.right, buffer, 10), 8);
    must_be(weft_stream_read(pair.right, buffer, 10), 0);
    free_pair(&pair);
    open_pair(&pair);
    must_be(weft_stream_write(pair.left, bytes, size), 0);
    must_be(weft_cancel(weft_self()), 1);
    must_be(weft_stream_close(pair.left), -ECANCELED);
    must_be(weft_uncancel(), 1);
    must_be(weft_stream_fd(pair.left), -EBADF);
    free_pair(&pair);

    /* Somebody aborts meanwhile. */
    for (int i = 0; i < FEWER(200); i++) {
        weft_task *closer;
        intptr_t result;

        open_pair(&pair);
        must_be(weft_stream_write(pair.left, bytes, size), 0);
        closer = spawn(close_stream, pair.left);
        if (i % 2)
            yield_times(i % 5);
        weft_stream_abort(pair.left);
        weft_stream_abort(pair.left);
        result = weft_await(closer);
        must(result == -EBADF || result == 0); /* 0: it came later */
        free_pair(&pair);
    }
    free(bytes);
    return 0;
}

static void a_close_that_is_interrupted_closes(void **state)
{
    (void)state;
    run_everywhere(close_in_vain);
}

static intptr_t abort_while_others_wait(void *arg)
{
    const size_t size = 1 << 20;
    char *bytes = make_bytes(size);
    weft_task *tasks[DRAINERS], *reader;

    (void)arg;
    for (int i = 0; i < FEWER(200); i++) {
        struct pair pair;

        open_pair(&pair);
        must_be(weft_stream_write(pair.left, bytes, size), 0);
        many_wait(pair.left, tasks);
        reader = spawn(read_for_ever, pair.left);
        if (i % 2)
            must_be(weft_yield(), 0);
        weft_stream_abort(pair.left);
        for (int k = 0; k < DRAINERS; k++)
            must_be(weft_await(tasks[k]), -EBADF);
        must_be(weft_await(reader), -EBADF);
        free_pair(&pair);
    }
    free(bytes);
    return 0;
}

static void aborting_drops_the_buffer_and_wakes_everybody(void **state)
{
    (void)state;
    run_everywhere(abort_while_others_wait);
}

/* Descriptors are closed and their numbers used again while others are about to write: no byte goes astray. */
static intptr_t write_and_abort(void *arg)
{
    char own = (char)(intptr_t)arg, block[5000], *bytes = malloc(300000);

    must(bytes != NULL);
    memset(bytes, own, 300000);
    for (int i = 0; i < FEWER(500); i++) {
        struct pair pair;
        ssize_t n;

        open_pair(&pair);
        must_be(weft_stream_write(pair.left, bytes, 300000), 0);
        for (int reads = i % 5; reads-- > 0;) {
            n = weft_stream_read(pair.right, block, sizeof block);
            must(n > 0);
            for (ssize_t k = 0; k < n; k++)
                must(block[k] == own);
        }
        weft_stream_free(pair.left); /* its flusher is at work, perhaps on another worker */
        while ((n = weft_stream_read(pair.right, block, sizeof block)) > 0)
            for (ssize_t k = 0; k < n; k++)
                must(block[k] == own);
        must(n == 0 || n == -ECONNRESET);
        weft_stream_free(pair.right);
    }
    free(bytes);
    return 0;
}

static intptr_t many_write_and_abort(void *arg)
{
    weft_task *tasks[6];

    (void)arg;
    for (int i = 0; i < 6; i++)
        tasks[i] = spawn(write_and_abort, (void *)(intptr_t)('a' + i));
    return weft_gather(tasks, 6, NULL);
}

static void no_byte_goes_to_a_descriptor_of_the_same_number(void **state)
{
    (void)state;
    run_everywhere(many_write_and_abort);
}

static intptr_t leave_much_behind(void *arg)
{
    char *bytes = make_bytes(1 << 20);

    open_pair(arg);
    must_be(weft_stream_write(((struct pair *)arg)->left, bytes, 1 << 20), 0);
    free(bytes);
    return 0;
}

static void a_runtime_stops_though_something_is_left_to_be_sent(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        weft_config config = {.workers = counts[i]};
        weft_runtime *runtime;
        struct pair pair;

        assert_int_equal(weft_runtime_start(&config, &runtime), 0);
        assert_int_equal(weft_runtime_run(runtime, leave_much_behind, &pair), 0);
        assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
        assert_true(weft_stream_buffered(pair.left) > 0);
        free_pair(&pair);
    }
}

/* ---- copying ---- */

enum { THERE = 500000, BACK = 700000 };

static intptr_t proxy(void *arg)
{
    struct pair *ends = arg;
    uint64_t copied[2];

    must_be(weft_stream_proxy(ends->left, ends->right, copied), 0);
    must_be(copied[0], THERE);
    must_be(copied[1], BACK);
    must_be(weft_stream_close(ends->left), 0);
    return weft_stream_close(ends->right);
}

static void send_bytes(weft_stream *stream, size_t size)
{
    char *bytes = make_bytes(size);

    must_be(weft_stream_write(stream, bytes, size), 0);
    must_be(weft_stream_write_eof(stream), 0);
    free(bytes);
}

static void expect_the_end(weft_stream *stream)
{
    char byte;

    must_be(weft_stream_read(stream, &byte, 1), 0);
}

static intptr_t through_a_proxy(void *arg)
{
    struct expected request, response;
    struct pair client, server, middle;
    weft_task *proxying, *reading;

    (void)arg;
    open_pair(&client);
    open_tcp_pair(&server);
    middle = (struct pair){client.right, server.left};
    request = (struct expected){server.right, THERE};
    response = (struct expected){client.left, BACK};
    proxying = spawn(proxy, &middle);
    reading = spawn(read_bytes, &request);
    send_bytes(client.left, THERE); /* the end of this direction leaves the other one open */
    must_be(weft_await(reading), THERE);
    expect_the_end(server.right);
    must_be(weft_task_done(proxying), 0);
    send_bytes(server.right, BACK);
    must_be(read_bytes(&response), BACK);
    expect_the_end(client.left);
    must_be(weft_await(proxying), 0);
    free_pair(&client);
    free_pair(&server);
    return 0;
}

static void two_streams_are_copied_in_both_directions(void **state)
{
    (void)state;
    run_everywhere(through_a_proxy);
}

static intptr_t proxy_plainly(void *arg)
{
    struct pair *ends = arg;

    return weft_stream_proxy(ends->left, ends->right, NULL);
}

static intptr_t proxy_in_vain(void *arg)
{
    struct pair client, server, middle;
    struct linger at_once = {1, 0};
    weft_task *proxying;
    uint64_t copied = 0;

    (void)arg;
    open_tcp_pair(&client);
    open_tcp_pair(&server);
    middle = (struct pair){client.right, server.left};
    proxying = spawn(proxy_plainly, &middle);
    write_text(client.left, "through\n");
    expect_line(server.right, "through\n");
    must_be(setsockopt(weft_stream_fd(server.right), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    weft_stream_abort(server.right);
    must_be(weft_await(proxying), -ECONNRESET);

    /* Cancelled, it ends both directions; what was copied is told. */
    free_pair(&server);
    open_pair(&server);
    middle.right = server.left;
    proxying = spawn(proxy_plainly, &middle);
    yield_times(5);
    must_be(weft_cancel(proxying), 1);
    must_be(weft_await(proxying), -ECANCELED);
    weft_stream_abort(server.right);
    write_text(client.left, "lost");
    must_be(weft_stream_close(client.left), 0);
    must_be(weft_stream_copy(server.left, client.right, &copied), -EPIPE);
    must_be(copied, 0);
    free_pair(&client);
    free_pair(&server);
    return 0;
}

static void an_error_in_one_direction_ends_both(void **state)
{
    (void)state;
    run_everywhere(proxy_in_vain);
}

/* ---- what lies under a stream ---- */

static intptr_t read_a_file(void *arg)
{
    FILE *file = tmpfile();
    weft_stream *stream;
    int fd;

    (void)arg;
    must(file != NULL);
    must(fputs("one\ntwo\n", file) >= 0);
    rewind(file);
    fd = dup(fileno(file));
    must(fd >= 0);
    stream = open_stream(fd);
    expect_line(stream, "one\n");
    expect_line(stream, "two\n");
    expect_line(stream, "");
    must_be(weft_stream_close(stream), 0);
    weft_stream_free(stream);
    must_be(fclose(file), 0);
    return 0;
}

static void a_regular_file_is_always_ready(void **state)
{
    (void)state;
    run_everywhere(read_a_file);
}

/* A layer that turns every bit around, keeps what it has read, and gives and takes little at a time. */
struct inverter {
    weft_stream *stream;
    unsigned char kept[100];
    size_t start, end;
    int freed;
};

enum { A_LITTLE = 7 };

static __attribute__((noinline)) ssize_t last_result(ssize_t n)
{
    return n < 0 ? -errno : n;
}

/* Something in `kept`: 1, 0 at the end, or an error. */
static ssize_t keep_something(struct inverter *inverter, weft_layer_attempt *attempt)
{
    struct iovec iov = {inverter->kept, sizeof inverter->kept};
    ssize_t got;

    if (inverter->start < inverter->end)
        return 1;
    got = weft_layer_receive(attempt, &iov, 1);
    if (got <= 0)
        return got;
    inverter->start = 0;
    inverter->end = (size_t)got;
    return 1;
}

static ssize_t inverted_read(void *state, const struct iovec *iov, int count, weft_layer_attempt *attempt)
{
    struct inverter *inverter = state;
    ssize_t rc = keep_something(inverter, attempt);
    size_t n = 0;

    must_be(count, 1);
    if (rc <= 0)
        return rc;
    for (; n < A_LITTLE && n < iov->iov_len && inverter->start < inverter->end; n++)
        ((unsigned char *)iov->iov_base)[n] = (unsigned char)~inverter->kept[inverter->start++];
    return (ssize_t)n;
}

static ssize_t inverted_write(void *state, const struct iovec *iov, int count, weft_layer_attempt *attempt)
{
    unsigned char little[A_LITTLE];
    struct iovec inverted = {little, iov->iov_len < sizeof little ? iov->iov_len : sizeof little};

    (void)state;
    must(count > 0 && inverted.iov_len > 0);
    for (size_t i = 0; i < inverted.iov_len; i++)
        little[i] = (unsigned char)~((const unsigned char *)iov->iov_base)[i];
    return weft_layer_send(attempt, &inverted, 1);
}

/* The first attempts have to read something. */
static int inverted_shutdown(void *state, weft_layer_attempt *attempt)
{
    struct inverter *inverter = state;
    ssize_t rc = keep_something(inverter, attempt);

    return rc < 0 ? (int)rc : (int)last_result(shutdown(weft_stream_fd(inverter->stream), SHUT_WR));
}

static void inverted_free(void *state)
{
    ((struct inverter *)state)->freed++;
}

static const weft_layer inverting = {NULL, inverted_read, inverted_write, inverted_shutdown, inverted_free};

static intptr_t with_a_layer(void *arg)
{
    const size_t size = 60000;
    struct inverter left = {.freed = 0}, right = {.freed = 0};
    struct expected expected;
    weft_task *reader;
    struct pair pair;
    char *bytes = make_bytes(size), byte;

    (void)arg;
    open_pair(&pair);
    write_text(pair.left, "in clear\n");
    expect_line(pair.right, "in clear\n");
    write_text(pair.left, "\x97\x96"); /* it comes before its receiver has the layer */
    must_be(weft_stream_set_limit(pair.left, 1000), 0);
    left.stream = pair.left;
    right.stream = pair.right;
    must_be(weft_stream_set_layer(pair.left, &inverting, &left, 0, NULL), 0);
    must_be(weft_stream_set_layer(pair.right, &inverting, &right, 0, NULL), 0);
    must_be(weft_stream_set_layer(pair.right, &inverting, &left, 0, NULL), -EALREADY);
    must(weft_stream_layer_state(pair.right, &inverting) == &right);
    expect(pair.right, "hi");
    expected = (struct expected){pair.right, size};
    reader = spawn(read_bytes, &expected);
    must_be(weft_stream_write(pair.left, bytes, size), 0);
    must_be(weft_await(reader), size);
    must_be(weft_stream_write_eof(pair.left), 0);
    must_be(weft_stream_can_write_eof(pair.left), 1);
    yield_times(10);
    write_text(pair.right, "the other way\n"); /* this is what the shutdown waits for */
    must_be(weft_stream_flush(pair.left), 0);
    must_be(weft_stream_read(pair.right, &byte, 1), 0);
    expect_line(pair.left, "the other way\n");
    free_pair(&pair);
    must_be(left.freed, 1);
    must_be(right.freed, 1);
    free(bytes);
    return 0;
}

static void a_layer_can_be_put_under_a_stream(void **state)
{
    (void)state;
    run_everywhere(with_a_layer);
}

/* ---- stackless writers ---- */

struct stackless_writer {
    weft_frame frame;
    weft_stream *stream;
    const char *bytes;
    int rounds;
    intptr_t rc;
};

static intptr_t write_without_a_stack(void *arg)
{
    struct stackless_writer *writer = arg;
    char byte;

    WEFT_BEGIN(writer);
    for (; writer->rounds > 0; writer->rounds--) {
        must_be(weft_stream_write(writer->stream, writer->bytes, 100000), 0);
        must_be(weft_stream_drain(writer->stream), -EPERM);
        must_be(weft_stream_read(writer->stream, &byte, 1), -EPERM);
        WEFT_AWAIT(writer, writer->rc, weft_async_yield());
    }
    WEFT_END(writer, weft_stream_write_eof(writer->stream));
}

static intptr_t write_stackless(void *arg)
{
    char *bytes = calloc(1, 100000), *back = malloc(500000);
    struct stackless_writer writer = {.bytes = bytes, .rounds = 5};
    weft_task *task;
    struct pair pair;

    (void)arg;
    must(bytes != NULL && back != NULL);
    open_pair(&pair);
    writer.stream = pair.left;
    task = weft_spawn_stackless(write_without_a_stack, &writer);
    must(task != NULL);
    must_be(weft_stream_readexactly(pair.right, back, 500000), 500000);
    must_be(weft_stream_read(pair.right, back, 1), 0);
    must_be(weft_await(task), 0);
    free_pair(&pair);
    free(bytes);
    free(back);
    return 0;
}

static void a_stackless_task_writes_and_cannot_wait(void **state)
{
    (void)state;
    run_everywhere(write_stackless);
}

/* ---- looking ---- */

enum { LOOKS = 5000 };

struct looked_at {
    weft_stream *stream;
    atomic_bool over;
};

static intptr_t looks_for_the_end(void *arg)
{
    struct looked_at *at = arg;

    while (!atomic_load(&at->over)) {
        must_be(weft_stream_at_eof(at->stream), 0);
        must_be(weft_yield(), 0);
    }
    return 0;
}

/* Who looks whether the end has come is in no reader's way. */
static intptr_t read_under_looks(void *arg)
{
    struct pair pair;
    struct looked_at at = {.over = false};
    weft_task *looker;
    char byte = 'x';

    open_pair(&pair);
    at.stream = pair.right;
    must((looker = weft_spawn(looks_for_the_end, &at)) != NULL);
    for (int i = 0; i < FEWER(LOOKS); i++) {
        must_be(weft_stream_write(pair.left, &byte, 1), 0);
        must_be(weft_stream_read(pair.right, &byte, 1), 1);
    }
    atomic_store(&at.over, true);
    must_be(weft_await(looker), 0);
    free_pair(&pair);
    return (intptr_t)arg;
}

static void who_looks_for_the_end_is_no_reader(void **state)
{
    (void)state;
    run_everywhere(read_under_looks);
}

/* ---- all ---- */

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_takes_what_is_there),
        cmocka_unit_test(an_exact_read_is_short_only_at_the_end),
        cmocka_unit_test(an_interrupted_read_consumes_nothing),
        cmocka_unit_test(a_second_reader_is_refused),
        cmocka_unit_test(who_looks_for_the_end_is_no_reader),
        cmocka_unit_test(the_search_finds_what_ends_first),
        cmocka_unit_test(of_several_separators_the_shortest_match_wins),
        cmocka_unit_test(messages_that_come_byte_by_byte),
        cmocka_unit_test(the_last_line_may_lack_its_end),
        cmocka_unit_test(an_over_long_message_stays_where_it_is),
        cmocka_unit_test(writing_never_waits_and_draining_does),
        cmocka_unit_test(what_is_buffered_is_sent_in_the_background),
        cmocka_unit_test(all_drainers_wake),
        cmocka_unit_test(who_waits_for_the_low_mark_wakes_before_who_flushes),
        cmocka_unit_test(the_marks_can_be_set),
        cmocka_unit_test(what_one_call_writes_stays_together),
        cmocka_unit_test(a_cork_gathers_small_writes),
        cmocka_unit_test(a_reply_needs_no_further_task),
        cmocka_unit_test(writes_that_cannot_be_are_refused),
        cmocka_unit_test(without_a_peer_writing_fails_and_goes_on_failing),
        cmocka_unit_test(a_reset_is_not_taken_for_the_end),
        cmocka_unit_test(a_pipe_without_a_reader_raises_no_signal),
        cmocka_unit_test(a_peer_that_only_listens_costs_nothing),
        cmocka_unit_test(after_a_half_close_reading_goes_on),
        cmocka_unit_test(closing_sends_what_is_buffered),
        cmocka_unit_test(a_close_that_is_interrupted_closes),
        cmocka_unit_test(aborting_drops_the_buffer_and_wakes_everybody),
        cmocka_unit_test(no_byte_goes_to_a_descriptor_of_the_same_number),
        cmocka_unit_test(a_runtime_stops_though_something_is_left_to_be_sent),
        cmocka_unit_test(two_streams_are_copied_in_both_directions),
        cmocka_unit_test(an_error_in_one_direction_ends_both),
        cmocka_unit_test(a_regular_file_is_always_ready),
        cmocka_unit_test(a_layer_can_be_put_under_a_stream),
        cmocka_unit_test(a_stackless_task_writes_and_cannot_wait),
    };

    return run_all(tests, argc, argv);
}
