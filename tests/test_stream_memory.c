/*
 * Streams when memory runs out: each allocation of a course of events fails in turn. Whatever is reported as
 * written arrives, in order; what is not, does not; nothing is left behind.
 */
#include <sys/socket.h>

#include "support.h"

/* The linker puts these in front of the allocator (CMakeLists.txt). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static _Atomic int countdown; /* allocations until the one that fails; 0: none does */

static int fails(void)
{
    return atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

enum { LARGE = 300000 };

static char blocks[3][LARGE]; /* of 'a', 'b', 'c' */

struct expectation {
    weft_stream *stream;
    size_t sizes[8]; /* of the messages that were reported as written */
    char letters[8];
    int count, lost; /* lost: after these a part of one more may come, and then the end */
};

static void write_one(struct expectation *expectation, weft_stream *stream, int letter, size_t size)
{
    int rc = expectation->lost ? -ENOMEM : weft_stream_write(stream, blocks[letter], size);

    must(rc == 0 || rc == -ENOMEM);
    if (rc == 0) {
        expectation->letters[expectation->count] = (char)('a' + letter);
        expectation->sizes[expectation->count++] = size;
    } else if (weft_stream_write(stream, "", 0) == -ENOMEM) {
        expectation->lost = 1; /* a part of it had been sent */
    }
}

static ssize_t read_on(weft_stream *stream, char *buffer, size_t size)
{
    ssize_t n;

    while ((n = weft_stream_read(stream, buffer, size)) == -ENOMEM)
        ; /* a read consumes nothing then */
    return n;
}

static intptr_t read_all(void *arg)
{
    struct expectation *expectation = arg;
    char buffer[3000];

    for (int i = 0; i < expectation->count; i++) {
        size_t left = expectation->sizes[i];

        while (left > 0) {
            ssize_t n = read_on(expectation->stream, buffer, left < sizeof buffer ? left : sizeof buffer);

            if (n == 0 && expectation->lost)
                return 0; /* what was buffered went with the connection */
            must(n > 0);
            for (ssize_t k = 0; k < n; k++)
                must(buffer[k] == expectation->letters[i]);
            left -= (size_t)n;
        }
    }
    while (read_on(expectation->stream, buffer, sizeof buffer) > 0)
        must(expectation->lost);
    return 0;
}

static void read_a_long_line(weft_stream *from, weft_stream *to)
{
    const char *line;
    ssize_t n;

    must_be(weft_stream_write(from, blocks[0], 40000), 0);
    must_be(weft_stream_write(from, "\n", 1), 0);
    while ((n = weft_stream_readline(to, &line)) == -ENOMEM)
        ;
    must_be(n, 40001);
    must(memcmp(line, blocks[0], 40000) == 0);
}

/* The course of events. 1: the allocation that was to fail was one of it. */
static intptr_t course(void *arg)
{
    int fds[2], on_time = (int)(intptr_t)arg, rc;
    struct expectation expectation = {0};
    weft_stream *left = NULL, *right = NULL;
    weft_task *reader;

    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    atomic_store(&countdown, on_time);
    while ((rc = weft_stream_open(fds[0], &left)) == -ENOMEM)
        ;
    must_be(rc, 0);
    while ((rc = weft_stream_open(fds[1], &right)) == -ENOMEM)
        ;
    must_be(rc, 0);
    read_a_long_line(left, right);

    must_be(weft_stream_cork(left), 0);
    write_one(&expectation, left, 0, 100);
    write_one(&expectation, left, 1, 5000);
    must_be(weft_stream_uncork(left), 0);
    write_one(&expectation, left, 2, LARGE);
    write_one(&expectation, left, 0, 10);
    write_one(&expectation, left, 1, LARGE);
    expectation.stream = right;
    reader = weft_spawn(read_all, &expectation);
    must(reader != NULL);
    rc = weft_stream_close(left);
    must(rc == 0 || (rc == -ENOMEM && expectation.lost));
    must_be(weft_await(reader), 0);
    weft_stream_free(left);
    weft_stream_free(right);
    rc = on_time > 0 && atomic_exchange(&countdown, 0) == 0;
    return rc;
}

static void every_allocation_may_fail(void **state)
{
    int rounds = 1;

    (void)state;
    for (int i = 0; i < 3; i++)
        memset(blocks[i], 'a' + i, LARGE);
    assert_int_equal(run_alone(course, (void *)0), 0);
    for (; run_alone(course, (void *)(intptr_t)rounds) == 1; rounds++)
        assert_true(rounds < 1000);
    assert_true(rounds > 8);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
    };

    return run_all(tests, argc, argv);
}
