/* Sockets: addresses, options, datagrams, messages, Unix sockets, descriptors that travel, sendfile and splice. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "support.h"

static const uint32_t few_workers[] = {1, 2, 8};
enum { FEW = sizeof few_workers / sizeof *few_workers };

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < FEW; i++)
        assert_int_equal(run_on(few_workers[i], fn, NULL), 0);
}

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

static weft_address parse(const char *text)
{
    weft_address address;

    must_be(weft_address_parse(&address, text, 0), 0);
    return address;
}

static weft_address bound_to(int fd)
{
    weft_address address;

    must_be(weft_local_address(fd, &address), 0);
    return address;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;

    must_be(getsockopt(fd, level, name, &value, &length), 0);
    return value;
}

static void close_two(int a, int b)
{
    must_be(weft_close(a), 0);
    must_be(weft_close(b), 0);
}

/* ---- addresses ---- */

static void texts_are_addresses_and_back(void **state)
{
    static const struct {
        const char *from, *to;
    } same[] = {
        {"127.0.0.1", "127.0.0.1:7"},
        {"127.0.0.1:80", "127.0.0.1:80"},
        {"::1", "[::1]:7"},
        {"[::1]", "[::1]:7"},
        {"[::1]:65535", "[::1]:65535"},
        {"fe80::1%lo", "[fe80::1%lo]:7"},
        {"[fe80::1%4000000000]:1", "[fe80::1%4000000000]:1"},
        {"::ffff:1.2.3.4", "[::ffff:1.2.3.4]:7"},
        {"/tmp/socket", "/tmp/socket"},
        {"./socket", "./socket"},
        {"unix:socket", "unix:socket"},
        {"unix:127.0.0.1:80", "unix:127.0.0.1:80"},
        {"unix:/tmp/socket", "/tmp/socket"},
        {"unix:unix:socket", "unix:unix:socket"},
        {"@abstract", "@abstract"},
    };
    weft_address address, other;
    char text[WEFT_ADDRESS_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_int_equal(weft_address_parse(&address, same[i].from, 7), 0);
        assert_int_equal(weft_address_format(&address, text, sizeof text), strlen(same[i].to));
        assert_string_equal(text, same[i].to);
        assert_int_equal(weft_address_parse(&other, text, 8), 0);
        assert_int_equal(weft_address_equal(&address, &other), 1);
        assert_int_equal(weft_address_format(&address, text, strlen(same[i].to)), -ENOSPC);
    }
    assert_int_equal(weft_address_parse(&address, "127.0.0.1", 80), 0);
    assert_int_equal(weft_address_port(&address), 80);
    assert_int_equal(weft_address_equal(&address, &other), 0);
    assert_int_equal(weft_address_port(&other), -EAFNOSUPPORT);
}

static void what_is_no_address_is_refused(void **state)
{
    static const char *const bad[] = {
        "",       "localhost", "256.0.0.1", "1.2.3.4:", "1.2.3.4:x",  "1.2.3.4:65536", "[::1",
        "[::1]x", "[::1]:",    "::1::2",    "unix:",    "1.2.3.4:-1", "[1::]:1 ",      "[127.0.0.1]"};
    char path[200] = "/";
    weft_address address;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(weft_address_parse(&address, bad[i], 1), -EINVAL);
    assert_int_equal(weft_address_parse(&address, "fe80::1%no-such-device", 1), -ENODEV);
    memset(path + 1, 'x', 106);
    assert_int_equal(weft_address_parse(&address, path, 0), 0); /* with its end it just fits */
    path[107] = 'x';
    assert_int_equal(weft_address_parse(&address, path, 0), -ENAMETOOLONG);
    path[0] = '@';
    assert_int_equal(weft_address_parse(&address, path, 0), 0); /* needs no end */
    memset(path, '1', sizeof path - 1);
    assert_int_equal(weft_address_parse(&address, path, 0), -EINVAL);
}

/* ---- TCP ---- */

static intptr_t with_options(void *arg)
{
    weft_address any = parse("127.0.0.1"), address;
    int listener = weft_listen_on(&any, 5, 0), a, b;

    must(listener >= 0);
    address = bound_to(listener);
    a = weft_dial_address(&address, NULL, 0);
    b = weft_accept(listener, NULL, NULL);
    must(a >= 0 && b >= 0);
    for (int i = 0; i < 2; i++) { /* on both sides, without having been asked for */
        must_be(option(i ? a : b, IPPROTO_TCP, TCP_NODELAY), 1);
        must_be(option(i ? a : b, SOL_SOCKET, SO_KEEPALIVE), 1);
    }
    must_be(weft_set_nodelay(a, 0), 0);
    must_be(option(a, IPPROTO_TCP, TCP_NODELAY), 0);
    must_be(weft_set_keepalive(a, 33, 11, 3), 0);
    must_be(option(a, IPPROTO_TCP, TCP_KEEPIDLE), 33);
    must_be(option(a, IPPROTO_TCP, TCP_KEEPINTVL), 11);
    must_be(option(a, IPPROTO_TCP, TCP_KEEPCNT), 3);
    must_be(weft_set_keepalive(a, -1, 0, 0), 0);
    must_be(option(a, SOL_SOCKET, SO_KEEPALIVE), 0);
    close_two(a, b);
    must_be(weft_close(listener), 0);
    must_be(weft_set_nodelay(listener, 1), -EBADF);

    listener = weft_listen_on(&any, 5, WEFT_SOCKET_DELAY | WEFT_SOCKET_NO_KEEPALIVE | WEFT_SOCKET_REUSEPORT);
    must(listener >= 0);
    address = bound_to(listener);
    a = weft_listen_on(&address, 5, WEFT_SOCKET_REUSEPORT);
    must(a >= 0);
    must_be(weft_listen_on(&address, 5, 0), -EADDRINUSE);
    must_be(weft_close(a), 0);
    any = parse("127.0.0.9");
    a = weft_dial_address(&address, &any, WEFT_SOCKET_DELAY | WEFT_SOCKET_NO_KEEPALIVE);
    b = weft_accept(listener, NULL, NULL);
    must(a >= 0 && b >= 0);
    must_be(option(b, IPPROTO_TCP, TCP_NODELAY), 0);
    must_be(option(b, SOL_SOCKET, SO_KEEPALIVE), 0);
    must_be(weft_peer_address(b, &address), 0);
    must_be(address.to.v4.sin_addr.s_addr, any.to.v4.sin_addr.s_addr); /* bound to where it was told */
    must_be(weft_set_abort(a), 0);
    must_be(weft_close(a), 0);
    must_be(weft_read(b, &any, 1), -ECONNRESET);
    close_two(b, listener);
    return (intptr_t)arg;
}

static void sockets_have_the_options_that_servers_want(void **state)
{
    (void)state;
    run_everywhere(with_options);
}

static intptr_t both_families(void *arg)
{
    weft_address any = parse("[::]:0"), v4 = parse("127.0.0.1");
    int both = weft_listen_on(&any, 0, 0), only, fd;

    if (both == -EAFNOSUPPORT)
        return 0;
    must(both >= 0);
    v4.to.v4.sin_port = htons((uint16_t)weft_local_port(both));
    fd = weft_dial_address(&v4, NULL, 0);
    must(fd >= 0);
    close_two(fd, both);
    only = weft_listen_on(&any, 0, WEFT_SOCKET_V6ONLY);
    must(only >= 0);
    v4.to.v4.sin_port = htons((uint16_t)weft_local_port(only));
    must_be(weft_dial_address(&v4, NULL, 0), -ECONNREFUSED);
    must_be(weft_close(only), 0);
    return (intptr_t)arg;
}

static void an_ipv6_listener_takes_ipv4_unless_told_not_to(void **state)
{
    (void)state;
    run_everywhere(both_families);
}

/* ---- datagrams ---- */

enum { BATCH = 8 };

struct batch {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    char text[BATCH][16];
};

static void set_up(struct batch *batch, size_t size)
{
    memset(batch->messages, 0, sizeof batch->messages);
    for (size_t i = 0; i < BATCH; i++) {
        batch->parts[i] = (struct iovec){batch->text[i], size ? size : i + 1};
        batch->messages[i].msg_hdr.msg_iov = &batch->parts[i];
        batch->messages[i].msg_hdr.msg_iovlen = 1;
        if (!size)
            memset(batch->text[i], 'a' + (int)i, sizeof batch->text[i]);
    }
}

static intptr_t receive_batch(void *fd)
{
    struct batch batch;
    int got = 0;

    set_up(&batch, sizeof batch.text[0]);
    while (got < BATCH) {
        int n = weft_recvmmsg((int)(intptr_t)fd, batch.messages + got, (unsigned)(BATCH - got), 0);

        must(n > 0);
        got += n;
    }
    for (int i = 0; i < BATCH; i++) {
        must_be(batch.messages[i].msg_len, i + 1);
        must_be(batch.text[i][0], 'a' + i);
    }
    return got;
}

static intptr_t over_udp(void *arg)
{
    weft_address here = parse("127.0.0.1"), from = {0};
    int a = weft_bind_datagram(&here, 0), b = weft_bind_datagram(&here, 0), any;
    char text[8];
    weft_task *task;
    struct batch batch;

    must(a >= 0 && b >= 0);
    here = bound_to(b);
    must_be(weft_sendto(a, "ping", 4, 0, &here.to.any, here.length), 4);
    from.length = sizeof from.to;
    must_be(weft_recvfrom(b, text, sizeof text, 0, &from.to.any, &from.length), 4);
    here = bound_to(a);
    must(weft_address_equal(&from, &here));
    must_be(weft_connect(b, &from.to.any, from.length), 0);
    must_be(weft_send(b, "", 0, 0), 0); /* an empty one is one */
    must_be(weft_recv(a, text, sizeof text, 0), 0);

    task = spawn(receive_batch, (void *)(intptr_t)a);
    must_be(weft_yield(), 0);
    set_up(&batch, 0);
    must_be(weft_sendmmsg(b, batch.messages, BATCH, 0), BATCH);
    must_be(weft_await(task), BATCH);
    must_be(weft_sendmmsg(b, batch.messages, 0, 0), -EINVAL);
    must_be(weft_recvmmsg(b, batch.messages, 0, 0), -EINVAL);

    must_be(weft_close(a), 0);
    must_be(weft_send(b, "lost", 4, 0), 4);
    must_be(weft_recv(b, text, sizeof text, 0), -ECONNREFUSED); /* the kernel of the other side said so */
    must_be(weft_close(b), 0);
    any = weft_bind_datagram(NULL, WEFT_SOCKET_BROADCAST);
    must(any >= 0 && weft_local_port(any) > 0);
    must_be(option(any, SOL_SOCKET, SO_BROADCAST), 1);
    must_be(weft_close(any), 0);
    return (intptr_t)arg;
}

static void datagrams_go_one_by_one_or_in_batches(void **state)
{
    (void)state;
    run_everywhere(over_udp);
}

static intptr_t receive_message(void *fd)
{
    char text[8];
    struct iovec part = {text, sizeof text};
    weft_address from;
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_name = &from.to, .msg_namelen = sizeof from.to};
    ssize_t n = weft_recvmsg((int)(intptr_t)fd, &message, 0);

    if (n < 0) {
        must_be(message.msg_namelen, sizeof from.to); /* nothing has been changed */
        return n;
    }
    from.length = message.msg_namelen;
    must_be(n, 3);
    must_be(from.to.any.sa_family, AF_INET);
    return weft_address_port(&from);
}

static intptr_t over_messages(void *arg)
{
    weft_address here = parse("127.0.0.1");
    int a = weft_bind_datagram(&here, 0), b = weft_bind_datagram(&here, 0);
    struct iovec parts[2] = {{"a", 1}, {"bc", 2}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_name = &here.to};
    weft_task *task = spawn(receive_message, (void *)(intptr_t)b);

    here = bound_to(b);
    message.msg_namelen = here.length;
    must_be(weft_yield(), 0);
    must_be(weft_sendmsg(a, &message, 0), 3);
    must_be(weft_await(task), weft_local_port(a));
    task = spawn(receive_message, (void *)(intptr_t)b);
    must_be(weft_yield(), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    task = spawn(receive_message, (void *)(intptr_t)b);
    must_be(weft_yield(), 0);
    must_be(weft_close(b), 0);
    must_be(weft_await(task), -EBADF);
    must_be(weft_close(a), 0);
    return (intptr_t)arg;
}

static void messages_carry_addresses(void **state)
{
    (void)state;
    run_everywhere(over_messages);
}

/* ---- Unix sockets ---- */

static intptr_t over_unix(void *arg)
{
    char path[64];
    weft_address address, none;
    weft_peer peer;
    int listener, a, b;

    snprintf(path, sizeof path, "/tmp/weft-test-net.%d", (int)getpid());
    must_be(weft_address_parse(&address, path, 0), 0);
    listener = weft_listen_on(&address, 0, 0);
    must(listener >= 0);
    must_be(weft_listen_on(&address, 0, 0), -EADDRINUSE); /* somebody listens there */
    a = weft_dial_address(&address, NULL, 0);
    b = weft_accept(listener, NULL, NULL);
    must(a >= 0 && b >= 0);
    must_be(weft_write_all(a, "hello", 5), 5);
    must_be(weft_read(b, path + 40, 5), 5);
    must_be(weft_peer_credentials(b, &peer), 0);
    must_be(peer.pid, getpid());
    must_be(peer.uid, getuid());
    must_be(weft_peer_address(b, &none), 0);
    must_be(weft_address_format(&none, path + 40, 10), 0); /* the one who dialled has no name */
    close_two(a, b);
    must_be(weft_close(listener), 0);
    must_be(weft_dial_address(&address, NULL, 0), -ECONNREFUSED);
    listener = weft_listen_on(&address, 0, 0); /* what was left over is replaced */
    must(listener >= 0);
    must_be(weft_close(listener), 0);
    must_be(unlink(path), 0);

    a = open(path, O_CREAT | O_RDWR, 0600); /* no socket: not to be touched */
    must(a >= 0);
    must_be(weft_listen_on(&address, 0, 0), -EADDRINUSE);
    close(a);
    must_be(access(path, F_OK), 0);
    must_be(unlink(path), 0);
    return (intptr_t)arg;
}

static void a_left_over_socket_is_replaced_and_nothing_else(void **state)
{
    (void)state;
    run_everywhere(over_unix);
}

static intptr_t unix_datagrams(void *arg)
{
    weft_address address = parse("@weft-test-datagrams");
    int a = weft_bind_datagram(&address, 0), fds[2];
    weft_address other = parse("@weft-test-other"), from = {.length = sizeof from.to};
    int b = weft_bind_datagram(&other, 0);
    char text[8];

    must(a >= 0 && b >= 0);
    must_be(weft_sendto(b, "abc", 3, 0, &address.to.any, address.length), 3);
    must_be(weft_recvfrom(a, text, sizeof text, 0, &from.to.any, &from.length), 3);
    must(weft_address_equal(&from, &other));
    close_two(a, b);
    must_be(weft_socket_pair(SOCK_SEQPACKET, fds), 0);
    must_be(weft_send(fds[0], "a", 1, 0), 1);
    must_be(weft_send(fds[0], "bc", 2, 0), 2);
    must_be(weft_recv(fds[1], text, sizeof text, 0), 1);
    must_be(weft_recv(fds[1], text, sizeof text, 0), 2);
    close_two(fds[0], fds[1]);
    must_be(weft_socket_pair(12345, fds) < 0, 1);
    return (intptr_t)arg;
}

static void unix_datagrams_keep_their_bounds(void **state)
{
    (void)state;
    run_everywhere(unix_datagrams);
}

static void check_pipe(int in, int out)
{
    char byte;

    must(fcntl(in, F_GETFD) & FD_CLOEXEC);
    must_be(write(out, "x", 1), 1);
    must_be(weft_read(in, &byte, 1), 1);
    must_be(byte, 'x');
}

static intptr_t pass_descriptors(void *arg)
{
    int pair[2], ends[2], got[WEFT_FDS_MAX], many[WEFT_FDS_MAX + 1];
    unsigned before = count_descriptors();
    char text[8];
    size_t count = 4;

    must_be(weft_socket_pair(SOCK_STREAM, pair), 0);
    must_be(pipe2(ends, O_CLOEXEC), 0);
    must_be(weft_send_fds(pair[0], "two", 3, ends, 2), 3);
    must_be(weft_recv_fds(pair[1], text, sizeof text, got, &count), 3);
    must_be(count, 2);
    check_pipe(got[0], ends[1]);
    check_pipe(ends[0], got[1]);
    close_two(got[0], got[1]);

    must_be(weft_send_fds(pair[0], "none", 4, NULL, 0), 4);
    count = 4;
    must_be(weft_recv_fds(pair[1], text, sizeof text, got, &count), 4);
    must_be(count, 0);

    /* Too many for the receiver: none of them stays open. */
    must_be(weft_send_fds(pair[0], "a", 1, ends, 2), 1);
    count = 1;
    must_be(weft_recv_fds(pair[1], text, sizeof text, got, &count), -EMSGSIZE);
    must_be(count, 0);

    for (int i = 0; i <= WEFT_FDS_MAX; i++)
        many[i] = ends[0];
    must_be(weft_send_fds(pair[0], "a", 1, many, WEFT_FDS_MAX + 1), -EINVAL);
    must_be(weft_send_fds(pair[0], "", 0, many, 1), -EINVAL);
    must_be(weft_send_fds(pair[0], "a", 1, many, WEFT_FDS_MAX), 1);
    count = WEFT_FDS_MAX;
    must_be(weft_recv_fds(pair[1], text, sizeof text, got, &count), 1);
    must_be(count, WEFT_FDS_MAX);
    for (size_t i = 0; i < count; i++)
        must_be(weft_close(got[i]), 0);
    close_two(ends[0], ends[1]);
    must_be(weft_close(pair[0]), 0);
    count = 4;
    must_be(weft_recv_fds(pair[1], text, sizeof text, got, &count), 0);
    must_be(weft_close(pair[1]), 0);
    must_be(count_descriptors(), before);
    return (intptr_t)arg;
}

static void descriptors_travel_over_unix_sockets(void **state)
{
    (void)state;
    for (int i = 0; i < FEWER(50); i++)
        assert_int_equal(run_alone(pass_descriptors, NULL), 0);
    run_everywhere(pass_descriptors);
}

/* ---- sendfile ---- */

enum { FILE_SIZE = 3 << 20 };

static int make_file(size_t size)
{
    int fd = memfd_create("weft-test", MFD_CLOEXEC);
    char *bytes;

    must(fd >= 0);
    must_be(ftruncate(fd, (off_t)size), 0);
    bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(bytes != MAP_FAILED);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 7 >> 4);
    munmap(bytes, size);
    return fd;
}

static intptr_t receive_file(void *fd)
{
    char buffer[7919];
    size_t got = 0;
    ssize_t n;

    while ((n = weft_read((int)(intptr_t)fd, buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < n; i++, got++)
            must(buffer[i] == (char)(got * 7 >> 4));
    must_be(n, 0);
    return (intptr_t)got;
}

static intptr_t send_files(void *arg)
{
    int file = make_file(FILE_SIZE), pair[2];
    weft_task *task;
    off_t offset = 0;

    must_be(weft_socket_pair(SOCK_STREAM, pair), 0);
    task = spawn(receive_file, (void *)(intptr_t)pair[1]);
    must_be(weft_sendfile(pair[0], file, &offset, 1 << 20, 0), 1 << 20);
    must_be(offset, 1 << 20);
    must_be(lseek(file, 0, SEEK_CUR), 0);
    must_be(lseek(file, offset, SEEK_SET), offset);
    must_be(weft_sendfile(pair[0], file, NULL, SIZE_MAX, 0), FILE_SIZE - (1 << 20)); /* to its end */
    must_be(lseek(file, 0, SEEK_CUR), FILE_SIZE);
    must_be(weft_sendfile(pair[0], file, NULL, 10, 0), 0);
    must_be(shutdown(pair[0], SHUT_WR), 0);
    must_be(weft_await(task), FILE_SIZE);
    must_be(weft_close(pair[1]), 0);
    must_be(weft_sendfile(pair[0], file, &offset, 10, 0), -EPIPE); /* and no SIGPIPE */
    must_be(weft_close(pair[0]), 0);
    must_be(weft_sendfile(pair[0], file, &offset, 10, 0), -EBADF);
    close(file);
    return (intptr_t)arg;
}

static void a_file_is_sent_without_being_read(void **state)
{
    (void)state;
    run_everywhere(send_files);
}

/* A socket is no file that could be mapped: sendfile(2) refuses it as a source. */
static intptr_t fall_back(void *arg)
{
    int from[2], to[2];
    off_t offset = 0;
    char text[8];

    must_be(weft_socket_pair(SOCK_STREAM, from), 0);
    must_be(weft_socket_pair(SOCK_STREAM, to), 0);
    must_be(weft_write(from[0], "hello", 5), 5);
    must_be(weft_close(from[0]), 0);
    must_be(weft_sendfile(to[0], from[1], NULL, 100, WEFT_SENDFILE_STRICT), -EINVAL);
    must_be(weft_sendfile(to[0], from[1], NULL, 100, 0), 5);
    must_be(weft_read(to[1], text, sizeof text), 5);
    must_be(weft_sendfile(to[0], from[1], &offset, 100, 0), -ESPIPE);
    must_be(weft_close(from[1]), 0);
    close_two(to[0], to[1]);
    return (intptr_t)arg;
}

static void what_cannot_be_sent_directly_goes_through_a_buffer(void **state)
{
    (void)state;
    run_everywhere(fall_back);
}

static intptr_t interrupted(void *arg)
{
    int file = make_file(FILE_SIZE), pair[2];
    weft_timeout scope;
    off_t offset = 0;

    must_be(weft_socket_pair(SOCK_STREAM, pair), 0);
    must_be(weft_timeout_begin(&scope, WEFT_MS(5)), 0);
    must_be(weft_sendfile(pair[0], file, &offset, FILE_SIZE, 0), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must(offset > 0 && offset < FILE_SIZE); /* how far it came */
    close_two(pair[0], pair[1]);
    close(file);
    return (intptr_t)arg;
}

static void a_deadline_ends_sendfile_and_tells_how_far_it_came(void **state)
{
    (void)state;
    run_everywhere(interrupted);
}

/* ---- splice ---- */

/* From a socket through a pipe into another socket, to the end. */
static intptr_t pump(void *arg)
{
    const int *ends = arg;
    int pipe_ends[2];
    size_t moved = 0;
    ssize_t n;

    must_be(pipe2(pipe_ends, O_CLOEXEC), 0);
    while ((n = weft_splice(ends[0], NULL, pipe_ends[1], NULL, 64 << 10, 0)) > 0) {
        for (ssize_t left = n, m; left > 0; left -= m) {
            m = weft_splice(pipe_ends[0], NULL, ends[1], NULL, (size_t)left, 0);
            must(m > 0);
        }
        moved += (size_t)n;
    }
    must_be(n, 0);
    must_be(shutdown(ends[1], SHUT_WR), 0);
    close_two(pipe_ends[0], pipe_ends[1]);
    return (intptr_t)moved;
}

static intptr_t splice_through(void *arg)
{
    int file = make_file(FILE_SIZE), left[2], right[2], ends[2];
    weft_task *receiver, *pumping;

    must_be(weft_socket_pair(SOCK_STREAM, left), 0);
    must_be(weft_socket_pair(SOCK_STREAM, right), 0);
    ends[0] = left[1];
    ends[1] = right[0];
    receiver = spawn(receive_file, (void *)(intptr_t)right[1]);
    pumping = spawn(pump, ends);
    must_be(weft_yield(), 0);
    must_be(weft_sendfile(left[0], file, NULL, FILE_SIZE, 0), FILE_SIZE);
    must_be(shutdown(left[0], SHUT_WR), 0);
    must_be(weft_await(pumping), FILE_SIZE);
    must_be(weft_await(receiver), FILE_SIZE);
    close_two(left[0], left[1]);
    close_two(right[0], right[1]);
    close(file);
    return (intptr_t)arg;
}

static void splice_moves_from_socket_to_socket(void **state)
{
    (void)state;
    run_everywhere(splice_through);
}

static intptr_t splice_once(void *arg)
{
    const int *ends = arg;

    return weft_splice(ends[0], NULL, ends[1], NULL, 100, 0);
}

static intptr_t splice_waits(void *arg)
{
    int pair[2], out[2], second[2], ends[2];
    weft_timeout scope;
    weft_task *task;
    char text[8];

    must_be(weft_socket_pair(SOCK_STREAM, pair), 0);
    must_be(pipe2(out, O_CLOEXEC), 0);
    must_be(pipe2(second, O_CLOEXEC), 0);
    ends[0] = pair[1];
    ends[1] = out[1];
    task = spawn(splice_once, ends); /* nothing to read yet */
    must_be(weft_yield(), 0);
    must_be(weft_write(pair[0], "abc", 3), 3);
    must_be(weft_await(task), 3);
    must_be(weft_timeout_begin(&scope, WEFT_MS(2)), 0);
    must_be(splice_once(ends), -ETIMEDOUT);
    must_be(weft_timeout_end(&scope), 1);
    must_be(weft_tee(out[0], second[1], 100, 0), 3);
    must_be(weft_read(out[0], text, sizeof text), 3);
    must_be(weft_read(second[0], text, sizeof text), 3);
    task = spawn(splice_once, ends);
    must_be(weft_yield(), 0);
    must_be(weft_cancel(task), 1);
    must_be(weft_await(task), -ECANCELED);
    /* To a socket whose peer is gone: an error, no signal. */
    must_be(weft_write(out[1], "x", 1), 1);
    must_be(weft_close(pair[0]), 0);
    ends[0] = out[0];
    ends[1] = pair[1];
    must_be(splice_once(ends), -EPIPE);
    close_two(out[0], out[1]);
    close_two(second[0], second[1]);
    must_be(weft_close(pair[1]), 0);
    must_be(splice_once(ends), -EBADF);
    return (intptr_t)arg;
}

static void splice_and_tee_wait_and_are_interrupted(void **state)
{
    (void)state;
    run_everywhere(splice_waits);
}

static void outside_a_task_they_are_errors(void **state)
{
    struct msghdr message = {0};
    int fds[2];

    (void)state;
    assert_int_equal(weft_socket_pair(SOCK_STREAM, fds), 0);
    assert_int_equal(weft_sendmsg(fds[0], &message, 0), -EPERM);
    assert_int_equal(weft_recvmsg(fds[0], &message, 0), -EPERM);
    assert_int_equal(weft_sendfile(fds[0], fds[1], NULL, 1, 0), -EPERM);
    assert_int_equal(weft_splice(fds[0], NULL, fds[1], NULL, 1, 0), -EPERM);
    weft_close(fds[0]);
    weft_close(fds[1]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_addresses_and_back),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(sockets_have_the_options_that_servers_want),
        cmocka_unit_test(an_ipv6_listener_takes_ipv4_unless_told_not_to),
        cmocka_unit_test(datagrams_go_one_by_one_or_in_batches),
        cmocka_unit_test(messages_carry_addresses),
        cmocka_unit_test(a_left_over_socket_is_replaced_and_nothing_else),
        cmocka_unit_test(unix_datagrams_keep_their_bounds),
        cmocka_unit_test(descriptors_travel_over_unix_sockets),
        cmocka_unit_test(a_file_is_sent_without_being_read),
        cmocka_unit_test(what_cannot_be_sent_directly_goes_through_a_buffer),
        cmocka_unit_test(a_deadline_ends_sendfile_and_tells_how_far_it_came),
        cmocka_unit_test(splice_moves_from_socket_to_socket),
        cmocka_unit_test(splice_and_tee_wait_and_are_interrupted),
        cmocka_unit_test(outside_a_task_they_are_errors),
    };

    return run_all(tests, argc, argv);
}
