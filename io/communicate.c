/*
 * Feeding a child process and reading what it says, at once, in one task: whichever of the three pipes is ready is
 * served, and when none is, all are waited for. So neither side can wait for the other for ever.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/fd.h>
#include <weft/select.h>

#include "io/last_error.h"
#include "io/process.h"
#include "runtime/debug.h"
#include "runtime/park.h"
#include "runtime/poller.h"

enum {
    READ_AT_LEAST = 4096, /* room for a read; buffers double from there */
    INPUT = 0,
    OUTPUT = 1,
    ERRORS = 2,
};

/* One of the two outputs, as a place in the result. */
struct sink {
    char **data;
    size_t *size;
    size_t *capacity;
};

struct exchange {
    weft_process *process;
    const char *input;
    size_t size;
    size_t limit;
    weft_process_result *result;
    struct sink sinks[3]; /* by number; the first is not used */
};

/* Room for at least one byte, and for the zero behind the last one. */
static int make_room(const struct sink *sink)
{
    size_t capacity = *sink->capacity ? *sink->capacity * 2 : READ_AT_LEAST;
    char *data;

    if (*sink->size + 1 < *sink->capacity)
        return 0;
    data = realloc(*sink->data, capacity);
    if (!data)
        return -ENOMEM;
    *sink->data = data;
    *sink->capacity = capacity;
    return 0;
}

/* 1: something was done, 0: not now, or -errno. */
static int close_end(struct exchange *exchange, int number)
{
    weft__process_close_end(exchange->process, number);
    return 1;
}

/* Another task may close an end, or take it. Under the lock that does not happen between looking the number up and
 * using it, when it might be another's. -EINTR: it has happened, look again. */
static ssize_t write_end(struct exchange *exchange, const void *from, size_t size)
{
    weft_process *process = exchange->process;
    ssize_t n = -EINTR;
    int fd;

    weft__lock_enter(&process->lock);
    fd = atomic_load_explicit(&process->ends[INPUT], memory_order_relaxed);
    if (fd >= 0)
        n = weft__result_of(write(fd, from, size));
    weft__lock_leave(&process->lock);
    return n;
}

static ssize_t read_end(struct exchange *exchange, int number, void *to, size_t size)
{
    weft_process *process = exchange->process;
    ssize_t n = -EINTR;
    int fd;

    weft__lock_enter(&process->lock);
    fd = atomic_load_explicit(&process->ends[number], memory_order_relaxed);
    if (fd >= 0)
        n = weft__result_of(read(fd, to, size));
    weft__lock_leave(&process->lock);
    return n;
}

static int feed(struct exchange *exchange)
{
    size_t *fed = &exchange->result->fed;
    ssize_t n;

    if (*fed >= exchange->size)
        return close_end(exchange, INPUT);
    /* The workers block SIGPIPE. */
    n = write_end(exchange, exchange->input + *fed, exchange->size - *fed);
    if (n >= 0) {
        *fed += (size_t)n;
        return *fed == exchange->size ? close_end(exchange, INPUT) : 1;
    }
    if (n == -EPIPE || n == -ECONNRESET)
        return close_end(exchange, INPUT);
    return n == -EAGAIN || n == -EINTR ? 0 : (int)n;
}

/* Nothing more is kept: anything that still comes is too much. */
static int read_past_the_limit(struct exchange *exchange, int number)
{
    char more;
    ssize_t n = read_end(exchange, number, &more, 1);

    if (n == 0)
        return close_end(exchange, number);
    if (n > 0)
        return -EMSGSIZE;
    return n == -EAGAIN || n == -EINTR ? 0 : (int)n;
}

static int drain(struct exchange *exchange, int number)
{
    const struct sink *sink = &exchange->sinks[number];
    size_t room;
    ssize_t n;
    int rc;

    if (exchange->limit && *sink->size >= exchange->limit)
        return read_past_the_limit(exchange, number);
    rc = make_room(sink);
    if (rc < 0)
        return rc;
    room = *sink->capacity - 1 - *sink->size;
    if (exchange->limit && room > exchange->limit - *sink->size)
        room = exchange->limit - *sink->size;
    n = read_end(exchange, number, *sink->data + *sink->size, room);
    if (n > 0)
        *sink->size += (size_t)n;
    (*sink->data)[*sink->size] = '\0';
    if (n == 0)
        return close_end(exchange, number);
    return n > 0 ? 1 : n == -EAGAIN || n == -EINTR ? 0 : (int)n;
}

/* One turn over the pipes: 1 if anything moved, 0 if nothing did, or -errno. */
static int serve(struct exchange *exchange)
{
    int moved = 0;

    for (int number = INPUT; number <= ERRORS; number++) {
        int fd = atomic_load_explicit(&exchange->process->ends[number], memory_order_relaxed);
        int rc = fd < 0 ? 0 : number == INPUT ? feed(exchange) : drain(exchange, number);

        if (rc < 0)
            return rc;
        moved |= rc;
    }
    return moved;
}

/* Until one of the pipes is ready. 1: there are none left. */
static int wait_for_pipes(struct exchange *exchange)
{
    weft_case cases[3];
    bool is_any = false;
    int rc;

    for (int number = INPUT; number <= ERRORS; number++) {
        int fd = atomic_load_explicit(&exchange->process->ends[number], memory_order_relaxed);

        cases[number] = (weft_case)WEFT_CASE_POLL(fd, number == INPUT ? POLLOUT : POLLIN);
        if (fd < 0)
            cases[number].kind = WEFT_CASE_KIND_NONE;
        is_any = is_any || fd >= 0;
    }
    if (!is_any)
        return 1;
    rc = weft_select(cases, 3);
    if (rc < 0)
        return rc;
    /* Another task closed the end: look again. */
    if (cases[rc].result == -EBADF &&
        atomic_load_explicit(&exchange->process->ends[rc], memory_order_relaxed) != cases[rc].fd)
        return 0;
    return weft_is_error(cases[rc].result) ? (int)cases[rc].result : 0;
}

static int prepare(weft_process *process)
{
    for (int number = INPUT; number <= ERRORS; number++) {
        int fd = atomic_load_explicit(&process->ends[number], memory_order_relaxed), rc;
        struct weft__fd *entry = fd < 0 ? NULL : weft__fd_entry(fd);

        if (fd < 0)
            continue;
        if (!entry)
            return -ENOMEM;
        rc = weft__fd_prepare(fd, entry, atomic_load_explicit(&entry->generation, memory_order_relaxed));
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int exchange_all(struct exchange *exchange)
{
    int rc = prepare(exchange->process);

    while (rc == 0) {
        do {
            rc = weft__suspend_check();
            if (rc == 0)
                rc = serve(exchange);
        } while (rc > 0);
        if (rc == 0)
            rc = wait_for_pipes(exchange);
    }
    if (rc < 0)
        return rc;
    rc = weft__process_await(exchange->process);
    return rc < 0 ? rc : weft__process_outcome(exchange->process, &exchange->result->status);
}

int weft_process_communicate(weft_process *process, const void *input, size_t size, size_t limit,
                             weft_process_result *result)
{
    struct exchange exchange = {process, input, size, limit, result, {{NULL, NULL, NULL}}};
    int rc;

    if (!process || !result || (size > 0 && !input))
        return -EINVAL;
    rc = weft__suspend_check();
    if (rc < 0)
        return rc;
    if (!weft__coroutine_self())
        return weft__misused("weft_process_communicate");
    exchange.sinks[OUTPUT] = (struct sink){&result->out, &result->out_size, &result->private_area[0]};
    exchange.sinks[ERRORS] = (struct sink){&result->err, &result->err_size, &result->private_area[1]};
    weft__process_hold(process);
    rc = exchange_all(&exchange);
    weft__process_release(process);
    return rc;
}

void weft_process_result_free(weft_process_result *result)
{
    free(result->out);
    free(result->err);
    memset(result, 0, sizeof *result);
}

int weft_process_run(const weft_process_options *options, const char *const *argv, const void *input, size_t size,
                     size_t limit, weft_process_result *result)
{
    weft_process_options pipes = {
        .in = {.kind = size > 0 ? WEFT_STDIO_PIPE : WEFT_STDIO_NULL},
        .out = {.kind = WEFT_STDIO_PIPE},
        .err = {.kind = WEFT_STDIO_PIPE},
    };
    weft_process *process;
    int rc;

    if (!result || (size > 0 && !input))
        return -EINVAL;
    rc = weft_process_spawn(options ? options : &pipes, argv, &process);
    if (rc < 0)
        return rc;
    rc = weft_process_communicate(process, input, size, limit, result);
    weft_process_close(process);
    return rc;
}
