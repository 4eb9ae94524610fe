/* Descriptors: reading, writing, connecting, closing, waiting for readiness; numbers that are used again. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "support.h"

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], fn, NULL), 0);
}

static void open_pair(int *fds)
{
    must_be(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void close_pair(int *fds)
{
    must_be(weft_close(fds[0]), 0);
    must_be(weft_close(fds[1]), 0);
}

static intptr_t read_one(void *arg)
{
    char byte;
    ssize_t n = weft_read((int)(intptr_t)arg, &byte, 1);

    return n == 1 ? byte : n;
}

/* ---- reading and writing ---- */

static intptr_t echo(void *arg)
{
    char buffer[4096];
    int fd = (int)(intptr_t)arg;

    for (;;) {
        ssize_t n = weft_read(fd, buffer, sizeof buffer);

        if (n <= 0)
            return n;
        must_be(weft_write_all(fd, buffer, (size_t)n), n);
    }
}

static void ping_pong(int fd, int rounds)
{
    char text[] = "hello", back[8];

    for (int i = 0; i < rounds; i++) {
        size_t got = 0;

        text[0] = (char)i;
        must_be(weft_write_all(fd, text, 5), 5);
        while (got < 5) {
            ssize_t n = weft_read(fd, back + got, sizeof back - got);

            must(n > 0);
            got += (size_t)n;
        }
        must_be(got, 5);
        must(memcmp(text, back, 5) == 0);
    }
}

static intptr_t over_a_pair(void *arg)
{
    int fds[2];
    weft_task *server;
    char byte;

    (void)arg;
    open_pair(fds);
    server = spawn(echo, (void *)(intptr_t)fds[1]);
    ping_pong(fds[0], 100);
    must_be(shutdown(fds[0], SHUT_WR), 0);
    must_be(weft_await(server), 0);
    must_be(weft_close(fds[1]), 0);
    must_be(weft_read(fds[0], &byte, 1), 0);
    must_be(weft_read(fds[0], &byte, 1), 0);
    must_be(weft_write(fds[0], "x", 1), -EPIPE); /* and no SIGPIPE */
    must_be(weft_close(fds[0]), 0);
    return 0;
}

static void echo_over_a_socket_pair(void **state)
{
    (void)state;
    run_everywhere(over_a_pair);
}

static intptr_t over_a_pipe(void *arg)
{
    struct iovec parts[2];
    char left[3], right[16];
    weft_task *reader;
    int fds[2];

    (void)arg;
    must_be(pipe(fds), 0);
    reader = spawn(read_one, (void *)(intptr_t)fds[0]);
    must_be(weft_yield(), 0);
    must_be(weft_write(fds[1], "a", 1), 1);
    must_be(weft_await(reader), 'a');
    parts[0] = (struct iovec){"abc", 3};
    parts[1] = (struct iovec){"defgh", 5};
    must_be(weft_writev(fds[1], parts, 2), 8);
    parts[0] = (struct iovec){left, 3};
    parts[1] = (struct iovec){right, 16};
    must_be(weft_readv(fds[0], parts, 2), 8);
    must(memcmp(left, "abc", 3) == 0 && memcmp(right, "defgh", 5) == 0);
    must_be(weft_write(fds[1], "z", 1), 1);
    must_be(weft_close(fds[1]), 0);
    must_be(read_one((void *)(intptr_t)fds[0]), 'z');
    must_be(read_one((void *)(intptr_t)fds[0]), 0);
    must_be(weft_close(fds[0]), 0);
    return 0;
}

static void a_pipe_carries_bytes_and_then_its_end(void **state)
{
    (void)state;
    run_everywhere(over_a_pipe);
}

struct transfer {
    int fd;
    size_t size;
};

static intptr_t receive_all(void *arg)
{
    struct transfer *transfer = arg;
    char buffer[7919]; /* no divisor of anything */
    size_t got = 0;

    while (got < transfer->size) {
        ssize_t n = weft_recv(transfer->fd, buffer, sizeof buffer, 0);

        must(n > 0);
        for (ssize_t i = 0; i < n; i++)
            must(buffer[i] == (char)((got + (size_t)i) * 31 >> 3));
        got += (size_t)n;
        if (got % 5 == 0)
            must_be(weft_yield(), 0);
    }
    return (intptr_t)got;
}

static void transfer_over(int from, int to)
{
    struct transfer transfer = {to, (size_t)FEWER(4 << 20)};
    char *bytes = malloc(transfer.size);
    weft_task *receiver;
    size_t sent = 0;

    must(bytes != NULL);
    for (size_t i = 0; i < transfer.size; i++)
        bytes[i] = (char)(i * 31 >> 3);
    receiver = spawn(receive_all, &transfer);
    while (sent < transfer.size / 2) { /* short writes */
        ssize_t n = weft_send(from, bytes + sent, transfer.size / 2 - sent, 0);

        must(n > 0);
        sent += (size_t)n;
    }
    must_be(weft_write_all(from, bytes + sent, transfer.size - sent), transfer.size - sent);
    must_be(weft_await(receiver), transfer.size);
    free(bytes);
}

static intptr_t fills_buffers(void *arg)
{
    int fds[2];
    char block[1000];
    ssize_t n;

    (void)arg;
    open_pair(fds);
    transfer_over(fds[0], fds[1]);
    transfer_over(fds[1], fds[0]);
    /* A full buffer holds a writer up until it is cancelled. */
    memset(block, 'x', sizeof block);
    must_be(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    while ((n = write(fds[0], block, sizeof block)) > 0)
        ;
    {
        weft_timeout t;

        must_be(weft_timeout_begin(&t, WEFT_MS(2)), 0);
        must_be(weft_write(fds[0], block, sizeof block), -ETIMEDOUT);
        must_be(weft_timeout_end(&t), 1);
    }
    close_pair(fds);
    return 0;
}

static void a_writer_waits_while_the_buffer_is_full(void **state)
{
    (void)state;
    run_everywhere(fills_buffers);
}

/* ---- TCP ---- */

static intptr_t serve_one(void *arg)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int fd = weft_accept((int)(intptr_t)arg, (struct sockaddr *)&address, &length);
    intptr_t rc;

    must(fd >= 0);
    must_be(length, sizeof address);
    must_be(address.sin_family, AF_INET);
    must(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    rc = echo((void *)(intptr_t)fd);
    must_be(weft_close(fd), 0);
    return rc;
}

static intptr_t over_tcp(void *arg)
{
    int listener = weft_listen("127.0.0.1", 0, 16), port, fd;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    weft_task *server;
    char byte;

    (void)arg;
    must(listener >= 0);
    port = weft_local_port(listener);
    must(port > 0 && port < 65536);

    server = spawn(serve_one, (void *)(intptr_t)listener);
    fd = weft_dial("127.0.0.1", (uint16_t)port);
    must(fd >= 0);
    must(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    ping_pong(fd, 50);
    transfer_over(fd, fd); /* through the echo */
    must_be(shutdown(fd, SHUT_WR), 0);
    must_be(weft_await(server), 0);
    must_be(weft_read(fd, &byte, 1), 0);
    must_be(weft_close(fd), 0);

    /* By hand. */
    server = spawn(serve_one, (void *)(intptr_t)listener);
    must_be(weft_yield(), 0);
    must((fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    address.sin_port = htons((uint16_t)port);
    must_be(weft_connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    ping_pong(fd, 5);
    must_be(weft_close(fd), 0);
    must_be(weft_await(server), 0);
    must_be(weft_close(listener), 0);

    /* Nobody there any more. */
    must_be(weft_dial("127.0.0.1", (uint16_t)port), -ECONNREFUSED);
    must_be(weft_dial("not an address", 1), -EINVAL);
    must_be(weft_dial(NULL, 1), -EINVAL);
    must_be(weft_listen("300.0.0.1", 0, 1), -EINVAL);
    must_be(weft_local_port(-1), -EBADF);
    return 0;
}

static void listen_dial_accept_and_connect(void **state)
{
    (void)state;
    run_everywhere(over_tcp);
}

static intptr_t reset_by_peer(void *arg)
{
    struct linger hard = {1, 0};
    int listener = weft_listen("127.0.0.1", 0, 4);
    weft_task *reader;
    int client, server;

    (void)arg;
    must(listener >= 0);
    must((client = weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener))) >= 0);
    must((server = weft_accept(listener, NULL, NULL)) >= 0);
    reader = spawn(read_one, (void *)(intptr_t)server);
    must_be(weft_sleep(WEFT_MS(2)), 0);
    must_be(setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    must_be(weft_close(client), 0);
    must_be(weft_await(reader), -ECONNRESET);
    must_be(weft_write(server, "x", 1), -EPIPE);
    must_be(read_one((void *)(intptr_t)server), 0);
    must_be(weft_close(server), 0);
    must_be(weft_close(listener), 0);
    return 0;
}

static void a_reset_connection_says_so(void **state)
{
    (void)state;
    run_everywhere(reset_by_peer);
}

static atomic_int served;

static intptr_t serve_and_close(void *arg)
{
    must_be(echo(arg), 0);
    must_be(weft_close((int)(intptr_t)arg), 0);
    atomic_fetch_add(&served, 1);
    return 0;
}

static intptr_t accept_some(void *arg)
{
    int *listener = arg;

    for (int i = 0; i < listener[1]; i++) {
        int fd = weft_accept(listener[0], NULL, NULL);

        must(fd >= 0);
        must_be(weft_go(serve_and_close, (void *)(intptr_t)fd), 0);
    }
    return 0;
}

static intptr_t dial_and_play(void *arg)
{
    int fd = weft_dial("127.0.0.1", (uint16_t)(uintptr_t)arg);

    must(fd >= 0);
    ping_pong(fd, 10);
    must_be(weft_close(fd), 0);
    return 1;
}

static intptr_t many_connections(void *arg)
{
    enum { MOST = 1000 };
    int n = FEWER(MOST);
    int listener[2] = {weft_listen("127.0.0.1", 0, 4096), n};
    weft_task *clients[MOST], *server;

    (void)arg;
    must(listener[0] >= 0);
    atomic_store(&served, 0);
    server = spawn(accept_some, listener);
    for (int i = 0; i < n; i++)
        clients[i] = spawn(dial_and_play, (void *)(uintptr_t)weft_local_port(listener[0]));
    for (int i = 0; i < n; i++)
        must_be(weft_await(clients[i]), 1);
    must_be(weft_await(server), 0);
    wait_until_true(atomic_load(&served) == n);
    must_be(weft_close(listener[0]), 0);
    return 0;
}

static void a_thousand_connections_play_ping_pong(void **state)
{
    struct rlimit limit;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 4096) {
        limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    run_everywhere(many_connections);
}

/* ---- closing ---- */

/* The same with a number that no other thread, the monitor for one, gets while it is free. */
static int out_of_reach(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 500);

    must(high >= 500);
    close(fd);
    return high;
}

static char block[1 << 20];
static atomic_int about_to_wait;

static intptr_t write_much(void *arg)
{
    atomic_fetch_add(&about_to_wait, 1);
    for (;;) {
        ssize_t n = weft_write((int)(intptr_t)arg, block, sizeof block);

        if (n < 0)
            return n;
    }
}

static intptr_t poll_it(void *arg)
{
    atomic_fetch_add(&about_to_wait, 1);
    return weft_poll((int)(intptr_t)arg, POLLIN, WEFT_FOREVER);
}

static intptr_t closes_under_waiters(void *arg)
{
    (void)arg;
    for (int i = 0; i < 30; i++) {
        weft_task *reader, *poller, *writer;
        int fds[2];

        open_pair(fds);
        fds[0] = out_of_reach(fds[0]);
        must_be(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
        while (write(fds[0], block, sizeof block) > 0)
            ;
        atomic_store(&about_to_wait, 0);
        reader = spawn(read_one, (void *)(intptr_t)fds[0]);
        poller = spawn(poll_it, (void *)(intptr_t)fds[0]);
        writer = spawn(write_much, (void *)(intptr_t)fds[0]);
        wait_until_true(atomic_load(&about_to_wait) == 2);
        /* Not while they are in the system call: that is a race between them and close(2), as with threads. */
        must_be(weft_sleep(WEFT_MS(SUPPORT_SANITIZED ? 10 : 2)), 0);
        must_be(weft_close(fds[0]), 0);
        must_be(weft_await(reader), -EBADF);
        must_be(weft_await(poller), -EBADF);
        must_be(weft_await(writer), -EBADF);
        must_be(weft_close(fds[0]), -EBADF);
        must_be(weft_close(fds[1]), 0);
    }
    return 0;
}

static void closing_wakes_readers_writers_and_pollers(void **state)
{
    (void)state;
    run_everywhere(closes_under_waiters);
}

static void close_may_be_called_outside_a_task(void **state)
{
    weft_config config = {.workers = 2};
    weft_runtime *runtime;
    weft_task *reader;
    int fds[2];

    (void)state;
    open_pair(fds);
    assert_int_equal(weft_runtime_start(&config, &runtime), 0);
    reader = weft_runtime_spawn(runtime, read_one, (void *)(intptr_t)fds[0]);
    assert_non_null(reader);
    nap(WEFT_MS(20));
    assert_int_equal(weft_close(fds[0]), 0);
    assert_int_equal(weft_await(reader), -EBADF);
    assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
    assert_int_equal(weft_close(fds[1]), 0);
    assert_int_equal(weft_close(fds[1]), -EBADF);
    assert_int_equal(weft_close(-1), -EBADF);
}

/* The same few numbers again and again; what a task reads must be what was written to its own pair. */
static intptr_t reuses_numbers(void *arg)
{
    uint64_t random = (uint64_t)(uintptr_t)arg * 7919 + 1;

    for (int i = 0; i < FEWER(1000); i++) {
        char byte = (char)draw(&random);
        weft_task *reader;
        int fds[2];

        open_pair(fds);
        reader = spawn(read_one, (void *)(intptr_t)fds[0]);
        if (draw(&random) % 2)
            must_be(weft_yield(), 0);
        switch (draw(&random) % 4) {
        case 0: /* somebody has read in vain */
            must_be(weft_yield(), 0);
            must_be(weft_poll(fds[0], POLLIN, 0), -ETIMEDOUT);
            must_be(weft_cancel(reader), 1);
            must_be(weft_await(reader), -ECANCELED);
            must_be(weft_close(fds[0]), 0);
            must_be(weft_close(fds[1]), 0);
            break;
        case 1: /* the other side is closed: an event that may come late */
            must_be(weft_close(fds[1]), 0);
            must_be(weft_await(reader), 0);
            must_be(weft_close(fds[0]), 0);
            break;
        case 2: /* an event that nobody waits for any more */
            must_be(weft_write(fds[1], &byte, 1), 1);
            must_be(weft_await(reader), byte);
            must_be(weft_write(fds[1], &byte, 1), 1);
            must_be(weft_close(fds[0]), 0);
            must_be(weft_close(fds[1]), 0);
            break;
        default:
            must_be(weft_write(fds[1], &byte, 1), 1);
            must_be(weft_await(reader), byte);
            must_be(weft_close(fds[1]), 0);
            must_be(weft_close(fds[0]), 0);
            break;
        }
    }
    return 0;
}

static intptr_t reuse_at_once(void *arg)
{
    weft_task *tasks[8];

    (void)arg;
    for (int i = 0; i < 8; i++)
        tasks[i] = spawn(reuses_numbers, (void *)(intptr_t)(i + 1));
    for (int i = 0; i < 8; i++)
        must_be(weft_await(tasks[i]), 0);
    return 0;
}

static void a_number_that_is_used_again_is_not_mixed_up(void **state)
{
    (void)state;
    run_everywhere(reuse_at_once);
}

/* ---- readiness ---- */

static intptr_t polls(void *arg)
{
    weft_task *waiting;
    int fds[2];
    char byte;

    (void)arg;
    open_pair(fds);
    must_be(weft_poll(fds[0], POLLIN, 0), -ETIMEDOUT);
    must_be(weft_poll(fds[0], POLLIN, WEFT_MS(2)), -ETIMEDOUT);
    must_be(weft_poll(fds[0], POLLOUT, WEFT_FOREVER), POLLOUT);
    must_be(weft_poll(fds[0], POLLIN | POLLOUT, WEFT_FOREVER), POLLOUT);
    waiting = spawn(poll_it, (void *)(intptr_t)fds[0]);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(write(fds[1], "x", 1), 1);
    must_be(weft_await(waiting), POLLIN);
    must_be(weft_poll(fds[0], POLLIN, 0), POLLIN); /* it is level, not edge */
    must_be(weft_poll(fds[0], POLLIN, WEFT_FOREVER), POLLIN);
    must_be(read(fds[0], &byte, 1), 1); /* by somebody else */
    must_be(weft_poll(fds[0], POLLIN, WEFT_MS(1)), -ETIMEDOUT);
    must_be(write(fds[1], "y", 1), 1);
    must_be(weft_poll(fds[0], POLLIN, WEFT_FOREVER), POLLIN);
    must_be(weft_read(fds[0], &byte, 1), 1);
    must_be(weft_poll(fds[0], POLLIN, WEFT_MS(1)), -ETIMEDOUT);
    must_be(weft_close(fds[1]), 0);
    must(weft_poll(fds[0], POLLIN, WEFT_FOREVER) & POLLHUP);
    must(weft_poll(fds[0], POLLRDHUP, WEFT_FOREVER) & POLLRDHUP);
    must_be(weft_close(fds[0]), 0);
    must_be(weft_poll(fds[0], POLLIN, 0), -EBADF);
    return 0;
}

static void poll_tells_what_holds_now(void **state)
{
    (void)state;
    run_everywhere(polls);
}

static intptr_t several_wait(void *arg)
{
    weft_task *readers[4];
    int fds[2], sum = 0;

    (void)arg;
    open_pair(fds);
    for (int i = 0; i < 4; i++)
        readers[i] = spawn(read_one, (void *)(intptr_t)fds[0]);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    for (int i = 1; i <= 4; i++) {
        char byte = (char)(i * i);

        must_be(weft_write(fds[1], &byte, 1), 1);
        if (i % 2)
            must_be(weft_yield(), 0);
    }
    for (int i = 0; i < 4; i++)
        sum += (int)weft_await(readers[i]);
    must_be(sum, 1 + 4 + 9 + 16); /* each byte once */

    /* A reader and a writer of the same descriptor. */
    readers[0] = spawn(read_one, (void *)(intptr_t)fds[0]);
    readers[1] = spawn(write_much, (void *)(intptr_t)fds[0]);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    must_be(weft_write(fds[1], "r", 1), 1);
    must_be(weft_await(readers[0]), 'r');
    must_be(weft_cancel(readers[1]), 1);
    must_be(weft_await(readers[1]), -ECANCELED);
    close_pair(fds);
    return 0;
}

static void several_tasks_may_wait_for_one_descriptor(void **state)
{
    (void)state;
    run_everywhere(several_wait);
}

/* A descriptor that goes from task to task. */
static intptr_t pass_round(void *arg)
{
    int *fds = arg;
    char byte;

    for (int i = 0; i < FEWER(1000); i++) {
        must_be(weft_write(fds[1], "x", 1), 1);
        must_be(weft_read(fds[0], &byte, 1), 1);
        if (i % 50 == 0)
            must_be(weft_sleep(WEFT_US(20)), 0);
    }
    return 0;
}

static intptr_t shares(void *arg)
{
    weft_task *tasks[6];
    int fds[2];
    char byte;

    (void)arg;
    must_be(pipe(fds), 0);
    for (int i = 0; i < 6; i++)
        tasks[i] = spawn(pass_round, fds);
    for (int i = 0; i < 6; i++)
        must_be(weft_await(tasks[i]), 0);
    must_be(read(fds[0], &byte, 1), -1); /* as many were read as written */
    must_be(weft_close(fds[0]), 0);
    must_be(weft_close(fds[1]), 0);
    return 0;
}

static void tasks_on_several_workers_share_a_descriptor(void **state)
{
    (void)state;
    run_everywhere(shares);
}

/* ---- deadlines ---- */

static intptr_t reads_in_time(void *arg)
{
    weft_timeout t;
    int fds[2];
    char bytes[8];

    (void)arg;
    open_pair(fds);
    for (int i = 0; i < 5; i++) {
        must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
        must_be(weft_read(fds[0], bytes, 8), -ETIMEDOUT);
        must_be(weft_timeout_end(&t), 1);
        must_be(weft_write(fds[1], "abc", 3), 3);
        must_be(weft_timeout_begin(&t, WEFT_SEC(1000)), 0);
        must_be(weft_read(fds[0], bytes, 8), 3);
        must_be(weft_timeout_end(&t), 0);
    }
    close_pair(fds);
    return 0;
}

static void a_read_that_timed_out_loses_nothing(void **state)
{
    (void)state;
    run_everywhere(reads_in_time);
}

static intptr_t accepts_in_vain(void *arg)
{
    int listener = weft_listen(NULL, 0, 4), client;
    weft_timeout t;

    (void)arg;
    must(listener >= 0);
    must_be(weft_timeout_begin(&t, WEFT_MS(2)), 0);
    must_be(weft_accept(listener, NULL, NULL), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    client = weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener));
    if (client >= 0) {
        int server = weft_accept(listener, NULL, NULL);

        must(server >= 0);
        must_be(weft_close(server), 0);
        must_be(weft_close(client), 0);
    }
    must_be(weft_close(listener), 0);
    return 0;
}

static void an_accept_that_timed_out_can_be_repeated(void **state)
{
    (void)state;
    run_everywhere(accepts_in_vain);
}

/* ---- other kinds ---- */

static intptr_t over_udp(void *arg)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, from;
    socklen_t length = sizeof address;
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
    weft_task *reader;
    char buffer[16];

    (void)arg;
    must(a >= 0 && b >= 0);
    must_be(bind(a, (struct sockaddr *)&address, sizeof address), 0);
    must_be(getsockname(a, (struct sockaddr *)&address, &length), 0);
    reader = spawn(read_one, (void *)(intptr_t)a);
    must_be(weft_yield(), 0);
    must_be(weft_sendto(b, "q", 1, 0, (struct sockaddr *)&address, sizeof address), 1);
    must_be(weft_await(reader), 'q');
    /* A datagram shorter than asked for does not mean that there is no other. */
    for (int i = 0; i < 3; i++)
        must_be(weft_sendto(b, "12345", 5, 0, (struct sockaddr *)&address, sizeof address), 5);
    for (int i = 0; i < 3; i++) {
        length = sizeof from;
        must_be(weft_recvfrom(a, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length), 5);
        must_be(from.sin_family, AF_INET);
    }
    must_be(weft_sendto(b, "", 0, 0, (struct sockaddr *)&address, sizeof address), 0);
    must_be(weft_recv(a, buffer, sizeof buffer, 0), 0);
    must_be(weft_close(a), 0);
    must_be(weft_close(b), 0);
    return 0;
}

static void datagrams_come_one_by_one(void **state)
{
    (void)state;
    run_everywhere(over_udp);
}

static intptr_t other_kinds(void *arg)
{
    char name[] = "/tmp/weft-test-XXXXXX", buffer[16];
    uint64_t value = 3;
    weft_task *waiting;
    int fd = mkstemp(name);

    (void)arg;
    must(fd >= 0);
    unlink(name);
    must_be(weft_write(fd, "contents", 8), 8);
    must_be(lseek(fd, 0, SEEK_SET), 0);
    must_be(weft_read(fd, buffer, 16), 8);
    must_be(weft_read(fd, buffer, 16), 0);
    must_be(weft_poll(fd, POLLIN, WEFT_FOREVER), POLLIN);
    must_be(weft_close(fd), 0);

    must((fd = eventfd(0, 0)) >= 0);
    waiting = spawn(poll_it, (void *)(intptr_t)fd);
    must_be(weft_yield(), 0);
    must_be(weft_write(fd, &value, sizeof value), sizeof value);
    must_be(weft_await(waiting), POLLIN);
    value = 0;
    must_be(weft_read(fd, &value, sizeof value), sizeof value);
    must_be(value, 3);
    {
        weft_timeout t;

        must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
        must_be(weft_read(fd, &value, sizeof value), -ETIMEDOUT);
        must_be(weft_timeout_end(&t), 1);
    }
    must_be(weft_close(fd), 0);

    must((fd = open("/dev/null", O_RDWR)) >= 0);
    must_be(weft_write(fd, "x", 1), 1);
    must_be(weft_read(fd, buffer, 1), 0);
    must_be(weft_close(fd), 0);
    return 0;
}

static void regular_files_and_counters_work_as_well(void **state)
{
    (void)state;
    run_everywhere(other_kinds);
}

static intptr_t poll_for_ever(void *fd)
{
    return weft_poll((int)(intptr_t)fd, POLLPRI, WEFT_FOREVER);
}

struct urgent {
    weft_frame frame;
    weft_timeout scope;
    int fd;
    intptr_t rc;
};

static intptr_t poll_stackless(void *arg)
{
    struct urgent *urgent = arg;

    WEFT_BEGIN(urgent);
    must_be(weft_timeout_begin(&urgent->scope, WEFT_MS(5)), 0);
    WEFT_AWAIT(urgent, urgent->rc, weft_async_poll(urgent->fd, POLLPRI));
    must_be(urgent->rc, -ETIMEDOUT);
    must_be(weft_timeout_end(&urgent->scope), 1);
    WEFT_DONE(0);
}

/* Epoll does not take it, and it never has anything urgent: such a wait ends as any other does. */
static intptr_t nothing_urgent(void *arg)
{
    int fd = out_of_reach(open("/dev/null", O_RDWR | O_CLOEXEC));
    weft_case cases[] = {WEFT_CASE_POLL(fd, POLLPRI), WEFT_CASE_AFTER(WEFT_MS(5))};
    struct urgent urgent = {.fd = fd};
    int64_t before = weft_now();
    weft_task *task;

    must_be(weft_poll(fd, POLLPRI, WEFT_MS(5)), -ETIMEDOUT);
    must(weft_now() - before >= WEFT_MS(5));
    task = spawn(poll_for_ever, (void *)(intptr_t)fd);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    weft_cancel(task);
    must_be(weft_await(task), -ECANCELED);
    must_be(weft_select(cases, 2), 1);
    must_be(weft_await(weft_spawn_stackless(poll_stackless, &urgent)), 0);
    task = spawn(poll_for_ever, (void *)(intptr_t)fd);
    must_be(weft_sleep(WEFT_MS(5)), 0);
    must_be(weft_close(fd), 0);
    must_be(weft_await(task), -EBADF);
    return (intptr_t)arg;
}

static void what_epoll_refuses_can_be_polled_in_vain(void **state)
{
    (void)state;
    run_everywhere(nothing_urgent);
}

/* ---- errors ---- */

static intptr_t bad_descriptors(void *arg)
{
    char byte = 0;
    int fd = out_of_reach(dup(STDERR_FILENO));

    (void)arg;
    close(fd);
    must_be(weft_read(fd, &byte, 1), -EBADF);
    must_be(weft_write(fd, &byte, 1), -EBADF);
    must_be(weft_accept(fd, NULL, NULL), -EBADF);
    must_be(weft_poll(fd, POLLIN, 0), -EBADF);
    must_be(weft_close(fd), -EBADF);
    must_be(weft_read(-1, &byte, 1), -EBADF);
    must_be(weft_write(-7, &byte, 1), -EBADF);
    must_be(weft_poll(-1, POLLIN, WEFT_FOREVER), -EBADF);
    must_be(weft_read(INT32_MAX, &byte, 1), -EBADF);
    must((fd = open("/dev/null", O_RDONLY)) >= 0);
    must_be(weft_write(fd, &byte, 1), -EBADF);
    must_be(weft_accept(fd, NULL, NULL), -ENOTSOCK);
    must_be(weft_close(fd), 0);
    return 0;
}

static void bad_descriptors_are_refused(void **state)
{
    int fds[2];
    char byte;

    (void)state;
    run_everywhere(bad_descriptors);
    open_pair(fds);
    assert_int_equal(weft_read(fds[0], &byte, 1), -EPERM);
    assert_int_equal(weft_write(fds[0], "x", 1), -EPERM);
    assert_int_equal(weft_poll(fds[0], POLLIN, 0), -EPERM);
    close_pair(fds);
}

static intptr_t runs_out(void *arg)
{
    int listener = weft_listen("127.0.0.1", 0, 16), client, spare;
    struct rlimit before, tight;

    (void)arg;
    must(listener >= 0);
    must((client = weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener))) >= 0);
    must_be(getrlimit(RLIMIT_NOFILE, &before), 0);
    must((spare = dup(STDERR_FILENO)) >= 0);
    close(spare);
    tight = (struct rlimit){(rlim_t)spare, before.rlim_max};
    must_be(setrlimit(RLIMIT_NOFILE, &tight), 0);
    must_be(weft_accept(listener, NULL, NULL), -EMFILE);
    must_be(weft_accept(listener, NULL, NULL), -EMFILE);
    must_be(weft_dial("127.0.0.1", (uint16_t)weft_local_port(listener)), -EMFILE);
    must_be(weft_listen("127.0.0.1", 0, 1), -EMFILE);
    must_be(setrlimit(RLIMIT_NOFILE, &before), 0);
    must((spare = weft_accept(listener, NULL, NULL)) >= 0); /* it was still there */
    ping_pong(client, 0);
    must_be(weft_close(spare), 0);
    must_be(weft_close(client), 0);
    must_be(weft_close(listener), 0);
    return 0;
}

static void running_out_of_descriptors_is_an_error_that_passes(void **state)
{
    (void)state;
    assert_int_equal(run_alone(runs_out, NULL), 0);
    assert_int_equal(run_on(3, runs_out, NULL), 0);
}

/*
 * Two descriptors become ready at once; the task that is woken for the one closes the other, whose reader has been
 * woken but not had its turn, and its number is used again. The reader must not touch the new one.
 */
struct reuse {
    int trigger[2], victim[2], fresh[2];
    weft_task *waiter;
};

static intptr_t closes_and_opens_again(void *arg)
{
    struct reuse *reuse = arg;
    char byte;

    must_be(weft_read(reuse->trigger[0], &byte, 1), 1);
    must_be(weft_close(reuse->victim[0]), 0);
    open_pair(reuse->fresh);
    must_be(reuse->fresh[0], reuse->victim[0]);
    must_be(write(reuse->fresh[1], "n", 1), 1); /* the new one's */
    return 0;
}

static void reuse_under(weft_fn *fn, bool stackless)
{
    struct reuse reuse;
    weft_task *closer;
    char byte;

    open_pair(reuse.trigger);
    open_pair(reuse.victim);
    closer = spawn(closes_and_opens_again, &reuse);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    reuse.waiter = stackless ? weft_spawn_stackless(fn, (void *)(intptr_t)reuse.victim[0])
                             : spawn(fn, (void *)(intptr_t)reuse.victim[0]);
    must(reuse.waiter != NULL);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    /* In the order in which they were registered they are reported. */
    must_be(write(reuse.trigger[1], "t", 1), 1);
    must_be(write(reuse.victim[1], "v", 1), 1);
    must_be(weft_await(closer), 0);
    must_be(weft_await(reuse.waiter), -EBADF);
    must_be(weft_read(reuse.fresh[0], &byte, 1), 1);
    must_be(byte, 'n');
    close_pair(reuse.fresh);
    close_pair(reuse.trigger);
    must_be(weft_close(reuse.victim[1]), 0);
}

static intptr_t select_it(void *arg)
{
    weft_case one = WEFT_CASE_POLL((int)(intptr_t)arg, POLLIN);

    must_be(weft_select(&one, 1), 0);
    return one.result;
}

static char async_byte;

static intptr_t read_async(void *arg)
{
    intptr_t n = weft_async_read((int)(intptr_t)arg, &async_byte, 1);

    return n == 1 ? async_byte : n;
}

static intptr_t poll_async(void *arg)
{
    return weft_async_poll((int)(intptr_t)arg, POLLIN);
}

static intptr_t splice_it(void *arg)
{
    int ends[2];
    ssize_t n;

    must_be(weft_pipe(ends), 0);
    n = weft_splice((int)(intptr_t)arg, NULL, ends[1], NULL, 1, 0);
    close_pair(ends);
    return n;
}

static intptr_t reuse_before_the_turn(void *arg)
{
    (void)arg;
    reuse_under(read_one, false);
    reuse_under(poll_it, false);
    reuse_under(select_it, false);
    reuse_under(splice_it, false);
    reuse_under(read_async, true);
    reuse_under(poll_async, true);
    return 0;
}

static void a_number_used_again_before_the_woken_had_its_turn_is_not_touched(void **state)
{
    (void)state;
    assert_int_equal(run_alone(reuse_before_the_turn, NULL), 0);
}

/* ---- a runtime that is gone ---- */

static intptr_t waits_a_moment(void *arg)
{
    weft_timeout t;
    char byte;

    must_be(weft_timeout_begin(&t, WEFT_MS(1)), 0);
    must_be(weft_read((int)(intptr_t)arg, &byte, 1), -ETIMEDOUT);
    must_be(weft_timeout_end(&t), 1);
    return 0;
}

static void a_descriptor_outlives_the_runtime_that_waited_for_it(void **state)
{
    int fds[2];

    (void)state;
    open_pair(fds);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(run_on(2, waits_a_moment, (void *)(intptr_t)fds[0]), 0);
        assert_int_equal(write(fds[1], "k", 1), 1);
        assert_int_equal(run_on(2, read_one, (void *)(intptr_t)fds[0]), 'k');
    }
    close_pair(fds);
}

/*
 * Two runtimes wait for one descriptor, which is in the epoll set of the one that came last. Each task is woken in its
 * own runtime, and when the other runtime has gone too.
 */
static weft_runtime *home;

static intptr_t reads_at_home(void *arg)
{
    weft_timeout t;
    char byte;
    ssize_t n;

    must_be(weft_timeout_begin(&t, WEFT_SEC(20)), 0);
    n = weft_read((int)(intptr_t)arg, &byte, 1);
    weft_timeout_end(&t);
    must(weft_runtime_current() == home);
    return n == 1 ? byte : n;
}

static intptr_t wakes_both(void *arg)
{
    const int *fds = arg;
    weft_task *reader = spawn(read_one, (void *)(intptr_t)fds[0]);

    must_be(weft_sleep(WEFT_MS(5)), 0);
    must_be(write(fds[1], "kk", 2), 2);
    return weft_await(reader);
}

static weft_task *reader_at_home(int fd)
{
    weft_task *reader = weft_runtime_spawn(home, reads_at_home, (void *)(intptr_t)fd);

    assert_non_null(reader);
    nap(WEFT_MS(20)); /* it waits */
    return reader;
}

static void two_runtimes_wait_for_one_descriptor(void **state)
{
    weft_config config = {.workers = 2};
    weft_task *reader;
    int fds[2];

    (void)state;
    open_pair(fds);
    assert_int_equal(weft_runtime_start(&config, &home), 0);
    reader = reader_at_home(fds[0]);
    assert_int_equal(run_on(2, wakes_both, fds), 'k');
    assert_int_equal(weft_await(reader), 'k');
    reader = reader_at_home(fds[0]);
    assert_int_equal(run_on(2, waits_a_moment, (void *)(intptr_t)fds[0]), 0);
    assert_int_equal(write(fds[1], "l", 1), 1);
    assert_int_equal(weft_await(reader), 'l');
    assert_int_equal(weft_runtime_stop(home, WEFT_SEC(10)), 0);
    close_pair(fds);
}

/* ---- a socket is read with another system call than a file ---- */

static intptr_t a_socket_then_a_pipe(void *arg)
{
    int pair[2], ends[2];
    char byte = 0;

    must_be(weft_socket_pair(SOCK_STREAM, pair), 0);
    must_be(weft_read(pair[0], &byte, 0), 0); /* nothing is asked for, and nothing is there: no wait */
    must_be(weft_write(pair[1], "s", 1), 1);
    must_be(weft_read(pair[0], &byte, 0), 0);
    must_be(weft_read(pair[0], &byte, 1), 1);
    must_be(byte, 's');
    /* The number becomes a pipe's behind weft's back. */
    must_be(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    must_be(dup2(ends[0], pair[0]), pair[0]);
    must_be(write(ends[1], "p", 1), 1);
    must_be(weft_poll(pair[0], POLLIN, 0) & POLLIN, POLLIN);
    must_be(weft_read(pair[0], &byte, 1), 1);
    must_be(byte, 'p');
    must_be(weft_close(pair[0]), 0);
    must_be(weft_close(pair[1]), 0);
    close(ends[0]);
    close(ends[1]);
    return (intptr_t)arg;
}

static void a_number_is_read_as_what_it_is_now(void **state)
{
    (void)state;
    run_everywhere(a_socket_then_a_pipe);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_over_a_socket_pair),
        cmocka_unit_test(a_pipe_carries_bytes_and_then_its_end),
        cmocka_unit_test(a_writer_waits_while_the_buffer_is_full),
        cmocka_unit_test(listen_dial_accept_and_connect),
        cmocka_unit_test(a_reset_connection_says_so),
        cmocka_unit_test(a_thousand_connections_play_ping_pong),
        cmocka_unit_test(closing_wakes_readers_writers_and_pollers),
        cmocka_unit_test(close_may_be_called_outside_a_task),
        cmocka_unit_test(a_number_that_is_used_again_is_not_mixed_up),
        cmocka_unit_test(a_number_used_again_before_the_woken_had_its_turn_is_not_touched),
        cmocka_unit_test(poll_tells_what_holds_now),
        cmocka_unit_test(several_tasks_may_wait_for_one_descriptor),
        cmocka_unit_test(tasks_on_several_workers_share_a_descriptor),
        cmocka_unit_test(a_read_that_timed_out_loses_nothing),
        cmocka_unit_test(an_accept_that_timed_out_can_be_repeated),
        cmocka_unit_test(datagrams_come_one_by_one),
        cmocka_unit_test(regular_files_and_counters_work_as_well),
        cmocka_unit_test(what_epoll_refuses_can_be_polled_in_vain),
        cmocka_unit_test(bad_descriptors_are_refused),
        cmocka_unit_test(running_out_of_descriptors_is_an_error_that_passes),
        cmocka_unit_test(a_descriptor_outlives_the_runtime_that_waited_for_it),
        cmocka_unit_test(two_runtimes_wait_for_one_descriptor),
        cmocka_unit_test(a_number_is_read_as_what_it_is_now),
    };

    return run_all(tests, argc, argv);
}
