/*
 * Reading from streams (io/stream.c): bytes come in pieces of any size, before a call or while it waits, and are read by
 * any sequence of calls; each must give what a model says that looks at the bytes alone. A call that gives up takes
 * nothing.
 * Input: the limit; the separators, how many and how long; how many calls; two bytes for each call; the bytes to read.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/tasks.h"

enum { SEPARATORS = 3, CALLS = 64 };

struct reading {
    struct fuzz_input input;
    weft_stream *stream;
    int peer;
    struct iovec separators[SEPARATORS];
    int count;
    size_t limit;

    /* The bytes to come, and the model's state: [taken, fed) are there and not read. */
    const char *bytes;
    size_t size, fed, taken;
    bool ended; /* the peer has shut down */
};

enum call { READ, READ_EXACTLY, READ_UNTIL, READ_LINE, FEED, SET_LIMIT, AT_EOF, WRONG, KINDS };

/* ---- the model ---- */

static size_t first_end(const char *bytes, size_t length, const struct iovec *separators, int count)
{
    for (size_t end = 1; end <= length; end++)
        for (int i = 0; i < count; i++) {
            size_t size = separators[i].iov_len;

            if (size <= end && memcmp(bytes + end - size, separators[i].iov_base, size) == 0)
                return end;
        }
    return 0;
}

static ssize_t expect_until(const struct reading *reading, const struct iovec *separators, int count, bool last)
{
    size_t there = reading->fed - reading->taken;
    size_t end = first_end(reading->bytes + reading->taken, there, separators, count);

    if (end > 0 && end <= reading->limit)
        return (ssize_t)end;
    if (end > 0 || there >= reading->limit)
        return -EMSGSIZE;
    if (!reading->ended)
        return -EAGAIN;
    return there == 0 ? 0 : last ? (ssize_t)there : -ENODATA;
}

static const struct iovec newline = {(void *)(uintptr_t) "\n", 1};

/* What the call will return; of READ the most; -EAGAIN: it would wait. */
static ssize_t expect(const struct reading *reading, enum call call, size_t size)
{
    size_t there = reading->fed - reading->taken;

    switch (call) {
    case READ:
        if (there == 0 && size > 0 && !reading->ended)
            return -EAGAIN;
        return (ssize_t)(there < size ? there : size);
    case READ_EXACTLY:
        if (there < size && !reading->ended)
            return -EAGAIN;
        return (ssize_t)(there < size ? there : size);
    case READ_UNTIL:
        return expect_until(reading, reading->separators, reading->count, false);
    default:
        return expect_until(reading, &newline, 1, true);
    }
}

/* ---- the peer ---- */

static void feed(struct reading *reading, size_t size)
{
    size_t left = reading->size - reading->fed;

    if (size > left)
        size = left;
    if (size > 0)
        must(send(reading->peer, reading->bytes + reading->fed, size, MSG_DONTWAIT) == (ssize_t)size);
    reading->fed += size;
    if (left == 0 && !reading->ended) {
        must(shutdown(reading->peer, SHUT_WR) == 0);
        reading->ended = true;
    }
}

struct feeding {
    struct reading *reading;
    enum call call;
    size_t size, step;
};

/* As much as the call needs, in steps; the call has begun. */
static intptr_t feed_what_is_needed(void *arg)
{
    struct feeding *feeding = arg;

    while (expect(feeding->reading, feeding->call, feeding->size) == -EAGAIN) {
        feed(feeding->reading, feeding->step);
        weft_yield();
    }
    return 0;
}

/* ---- the calls ---- */

static ssize_t perform(struct reading *reading, enum call call, size_t size, char *buffer, const char **data)
{
    *data = buffer;
    switch (call) {
    case READ:
        return weft_stream_read(reading->stream, buffer, size);
    case READ_EXACTLY:
        return weft_stream_readexactly(reading->stream, buffer, size);
    case READ_UNTIL:
        return weft_stream_readuntil(reading->stream, reading->separators, reading->count, data);
    default:
        return weft_stream_readline(reading->stream, data);
    }
}

/* It would wait, and is not given anything. */
static void give_up(struct reading *reading, enum call call, size_t size, char *buffer)
{
    weft_timeout scope;
    const char *data;

    weft_timeout_begin(&scope, WEFT_US(20));
    must(perform(reading, call, size, buffer, &data) == -ETIMEDOUT);
    must(weft_timeout_end(&scope) == 1);
}

static void check_result(struct reading *reading, enum call call, size_t size, ssize_t result, const char *data)
{
    ssize_t expected = expect(reading, call, size);

    if (call == READ && expected > 0)
        must(result > 0 && result <= expected);
    else
        must(result == expected);
    if (result > 0) {
        must(memcmp(data, reading->bytes + reading->taken, (size_t)result) == 0);
        reading->taken += (size_t)result;
    }
}

static void read_something(struct reading *reading, enum call call, size_t size, bool patient)
{
    struct feeding feeding = {reading, call, size, 1 + size % 7 * (size % 7)};
    char *buffer = fuzz_copy(NULL, 0);
    weft_task *feeder = NULL;
    const char *data;
    ssize_t result;

    buffer = realloc(buffer, size + 1);
    must(buffer != NULL);
    if (expect(reading, call, size) == -EAGAIN && !patient) {
        give_up(reading, call, size, buffer);
    } else {
        if (expect(reading, call, size) == -EAGAIN) {
            feeder = weft_spawn(feed_what_is_needed, &feeding);
            must(feeder != NULL);
        }
        result = perform(reading, call, size, buffer, &data);
        if (feeder)
            must(weft_await(feeder) == 0);
        check_result(reading, call, size, result, data);
    }
    free(buffer);
}

static void call_one(struct reading *reading, uint8_t what, size_t size)
{
    enum call call = what % KINDS;
    const char *data;

    switch (call) {
    case FEED:
        feed(reading, size);
        break;
    case SET_LIMIT:
        must(weft_stream_set_limit(reading->stream, size) == (size == 0 ? -EINVAL : 0));
        reading->limit = size == 0 ? reading->limit : size;
        break;
    case AT_EOF:
        must(!weft_stream_at_eof(reading->stream) || (reading->ended && reading->taken == reading->fed));
        break;
    case WRONG:
        must(weft_stream_readuntil(reading->stream, NULL, 0, &data) == -EINVAL);
        break;
    default:
        read_something(reading, call, size, what & 0x80);
        break;
    }
}

static void read_the_rest(struct reading *reading)
{
    while (reading->fed < reading->size || !reading->ended)
        feed(reading, reading->size);
    read_something(reading, READ_EXACTLY, reading->size + 1, true);
    must(reading->taken == reading->size && weft_stream_at_eof(reading->stream) == 1);
    read_something(reading, READ_LINE, 0, true);
}

static intptr_t read_all(void *arg)
{
    struct reading *reading = arg;
    struct fuzz_input calls = reading->input;
    size_t count = fuzz_byte(&calls) % CALLS;
    int ends[2];

    if (calls.size < 2 * count)
        count = calls.size / 2;
    reading->size = calls.size - 2 * count;
    reading->bytes = fuzz_copy(calls.data + 2 * count, reading->size);
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    reading->peer = ends[1];
    must(weft_stream_open(ends[0], &reading->stream) == 0);
    must(weft_stream_set_limit(reading->stream, reading->limit) == 0);
    for (size_t i = 0; i < count; i++) {
        uint8_t what = fuzz_byte(&calls);

        call_one(reading, what, fuzz_byte(&calls));
    }
    read_the_rest(reading);
    weft_stream_free(reading->stream);
    must(close(reading->peer) == 0);
    free((void *)(uintptr_t)reading->bytes);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reading reading = {.input = {data, size}};

    if (size > 16384)
        return 0; /* what a socket takes at once */
    reading.limit = 1 + fuzz_byte(&reading.input);
    reading.count = 1 + fuzz_byte(&reading.input) % SEPARATORS;
    for (int i = 0; i < reading.count; i++) {
        size_t length = 1 + fuzz_byte(&reading.input) % 4;

        if (length > reading.input.size) {
            reading.count = i;
            break;
        }
        reading.separators[i] = (struct iovec){fuzz_copy(reading.input.data, length), length};
        reading.input.data += length;
        reading.input.size -= length;
    }
    if (reading.count > 0)
        fuzz_run(read_all, &reading);
    for (int i = 0; i < reading.count; i++)
        free(reading.separators[i].iov_base);
    return 0;
}
