/*
 * B4: what idle connections cost a server in memory of its own, when each waits to be called again, when each has a
 * task that waits, and without weft.
 *
 * The clients are another process, since both ends would not fit into one's descriptors; it does what it is told
 * through a pipe. The kernel's memory for the sockets is not counted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "micro.h"

enum {
    CONNECTIONS = 15000,
    CONNECTIONS_QUICK = 10000,
    FIRST = 100,     /* before anything is measured */
    SETTLE_MS = 200, /* more than connections keep their stacks for */
};

/* ---- the clients' process ---- */

enum deed { CONNECT, EXCHANGE, DROP };

struct order {
    enum deed deed;
    int from, to; /* which connections */
};

struct clients {
    pid_t pid;
    int orders, answers;
};

static int connect_to(int port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? fd : -errno;
}

static int exchange(int fd)
{
    char bytes[64] = "request", back[64];
    if (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) != sizeof bytes)
        return -errno;
    return recv(fd, back, sizeof back, MSG_WAITALL) == sizeof back ? 0 : -EPROTO;
}

/* Reset, so that no ports are used up. */
static int drop(int fd)
{
    struct linger linger = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    return close(fd);
}

static int obey(const struct order *order, int *fds, int port)
{
    int error = 0;
    for (int i = order->from; i < order->to && error >= 0; i++) {
        if (order->deed == CONNECT)
            error = fds[i] = connect_to(port);
        else
            error = order->deed == EXCHANGE ? exchange(fds[i]) : drop(fds[i]);
    }
    return error < 0 ? error : 0;
}

static void be_clients(int orders, int answers, int port)
{
    static int fds[CONNECTIONS];
    struct order order;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(120);
    while (read(orders, &order, sizeof order) == sizeof order) {
        int error = obey(&order, fds, port);
        if (write(answers, &error, sizeof error) != sizeof error)
            break;
    }
    _exit(0);
}

static int start_clients(struct clients *clients, int port)
{
    int orders[2], answers[2];
    if (pipe(orders) < 0 || pipe(answers) < 0 || (clients->pid = fork()) < 0)
        return -errno;
    if (clients->pid == 0) {
        close(orders[1]);
        be_clients(orders[0], answers[1], port);
    }
    close(orders[0]);
    close(answers[1]);
    clients->orders = orders[1];
    clients->answers = answers[0];
    return 0;
}

static void stop_clients(struct clients *clients)
{
    close(clients->orders);
    close(clients->answers);
    waitpid(clients->pid, NULL, 0);
}

static int tell(struct clients *clients, enum deed deed, int from, int to)
{
    struct order order = {deed, from, to};
    int error;
    if (write(clients->orders, &order, sizeof order) != sizeof order ||
        read(clients->answers, &error, sizeof error) != sizeof error)
        return -EPIPE;
    return error;
}

static int raise_descriptor_limit(int wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_cur < (rlim_t)wanted)
        return -EMFILE;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

/* ---- the measurement ---- */

/* Tells how many connections there are, and how many are to be waited for: those that have nothing to do. */
typedef int count_fn(void *server);

static int await_count(count_fn *count, void *server, int wanted)
{
    for (int i = 0; i < 20000; i++) {
        if (count(server) == wanted)
            return 0;
        pause_thread(WEFT_MS(1));
    }
    return -ETIMEDOUT;
}

struct course {
    const char *key;
    count_fn *clients, *idle;
    void *server;
    int count;
};

/* What is resident once that many have connected, each has been answered, and all are gone. */
struct wave {
    int64_t connected, answered, over;
};

static int send_wave(const struct course *course, struct clients *clients, int count, struct wave *wave)
{
    int error = tell(clients, CONNECT, 0, count);
    error = error ? error : await_count(course->clients, course->server, count);
    wave->connected = resident_bytes();
    error = error ? error : tell(clients, EXCHANGE, 0, count);
    error = error ? error : await_count(course->idle, course->server, count);
    pause_thread(WEFT_MS(SETTLE_MS));
    wave->answered = resident_bytes();
    error = error ? error : tell(clients, DROP, 0, count);
    error = error ? error : await_count(course->clients, course->server, 0);
    pause_thread(WEFT_MS(SETTLE_MS));
    wave->over = resident_bytes();
    return error;
}

static int run_course(const struct course *course, struct clients *clients, struct sample *sample)
{
    struct wave waves[3];
    int error = send_wave(course, clients, FIRST, &waves[0]);
    for (int i = 1; i < 3 && error == 0; i++)
        error = send_wave(course, clients, course->count, &waves[i]);
    if (error)
        return error;
    int64_t before = waves[0].over;
    double each = 1.0 / course->count;
    add_part(sample, course->key, "connected", "B", (double)(waves[1].connected - before) * each);
    add_part(sample, course->key, "bytes", "B", (double)(waves[1].answered - before) * each);
    add_part(sample, course->key, "left", "B", (double)(waves[1].over - before) * each);
    add_part(sample, course->key, "second", "B", (double)(waves[2].answered - before) * each);
    return 0;
}

static int count_of(const struct setting *setting)
{
    return setting->quick ? CONNECTIONS_QUICK : CONNECTIONS;
}

/* ---- with weft ---- */

static intptr_t echo(weft_client *client)
{
    char buffer[1024];
    ssize_t n = weft_read(client->fd, buffer, sizeof buffer);
    if (n > 0)
        n = weft_write_all(client->fd, buffer, (size_t)n);
    return n > 0 ? WEFT_CALL_AGAIN : 0;
}

static intptr_t echo_to_the_end(weft_client *client)
{
    while (echo(client) == WEFT_CALL_AGAIN)
        ;
    return 0;
}

static int clients_of(void *server)
{
    weft_server_stats stats;
    weft_server_look(server, &stats);
    return (int)stats.clients;
}

static int idle_of(void *server)
{
    weft_server_stats stats;
    weft_server_look(server, &stats);
    return (int)stats.idle;
}

struct start {
    weft_client_fn *handler;
    weft_server *server;
};

static intptr_t start_server(void *arg)
{
    static const weft_serve_options options = {.flags = WEFT_SERVE_ON_DATA};
    struct start *start = arg;
    return weft_serve(&start->server, weft_listen("127.0.0.1", 0, 0), start->handler, NULL,
                      start->handler == echo ? &options : NULL);
}

static int measure_weft(const struct setting *setting, struct sample *sample, const char *key,
                        weft_client_fn *handler, count_fn *idle)
{
    struct start start = {handler, NULL};
    struct clients clients;
    int error = raise_descriptor_limit(count_of(setting) + 100);
    error = error ? error : (int)weft_runtime_run(setting->runtime, start_server, &start);
    if (error)
        return error;
    error = start_clients(&clients, weft_server_port(start.server));
    if (error == 0) {
        struct course course = {key, clients_of, idle, start.server, count_of(setting)};
        error = run_course(&course, &clients, sample);
        stop_clients(&clients);
    }
    weft_server_free(start.server);
    return error;
}

static int call_again(const struct setting *setting, struct sample *sample)
{
    return measure_weft(setting, sample, "B4", echo, idle_of);
}

static int wait_with_stack(const struct setting *setting, struct sample *sample)
{
    return measure_weft(setting, sample, "B4.stack", echo_to_the_end, clients_of);
}

/* ---- without ---- */

struct bare {
    int listener, epoll, stop;
    _Atomic int clients;
    pthread_t thread;
};

/* What a server of this kind keeps of a connection: as bench/epoll_echo.c. */
struct bare_client {
    char *pending;
    size_t pending_length;
    void *owner;
    int fd;
};

static void add_bare(struct bare *bare)
{
    struct bare_client *client = calloc(1, sizeof *client);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    client->fd = accept4(bare->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    epoll_ctl(bare->epoll, EPOLL_CTL_ADD, client->fd, &event);
    bare->clients++;
}

static void echo_bare(struct bare *bare, struct bare_client *client)
{
    char buffer[1024];
    ssize_t n = read(client->fd, buffer, sizeof buffer);
    if (n > 0 && send(client->fd, buffer, (size_t)n, MSG_NOSIGNAL) == n)
        return;
    close(client->fd);
    free(client);
    bare->clients--;
}

static void *run_bare(void *arg)
{
    struct bare *bare = arg;
    struct epoll_event events[64];
    for (;;) {
        int n = epoll_wait(bare->epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &bare->stop)
                return NULL;
            if (events[i].data.ptr == bare)
                add_bare(bare);
            else
                echo_bare(bare, events[i].data.ptr);
        }
    }
}

static int bare_clients(void *server)
{
    return ((struct bare *)server)->clients;
}

static int start_bare(struct bare *bare)
{
    struct epoll_event accepts = {.events = EPOLLIN, .data.ptr = bare};
    struct epoll_event stops = {.events = EPOLLIN, .data.ptr = &bare->stop};
    bare->listener = weft_listen("127.0.0.1", 0, 0);
    bare->epoll = epoll_create1(EPOLL_CLOEXEC);
    bare->stop = eventfd(0, EFD_CLOEXEC);
    if (bare->listener < 0 || bare->epoll < 0 || bare->stop < 0 ||
        epoll_ctl(bare->epoll, EPOLL_CTL_ADD, bare->listener, &accepts) < 0 ||
        epoll_ctl(bare->epoll, EPOLL_CTL_ADD, bare->stop, &stops) < 0)
        return -EMFILE;
    return -pthread_create(&bare->thread, NULL, run_bare, bare);
}

static int bare_epoll(const struct setting *setting, struct sample *sample)
{
    static struct bare bare;
    struct clients clients;
    int error = raise_descriptor_limit(count_of(setting) + 100);
    error = error ? error : start_bare(&bare);
    if (error)
        return error;
    error = start_clients(&clients, weft_local_port(bare.listener));
    if (error == 0) {
        struct course course = {"B4.epoll", bare_clients, bare_clients, &bare, count_of(setting)};
        error = run_course(&course, &clients, sample);
        stop_clients(&clients);
    }
    eventfd_write(bare.stop, 1);
    pthread_join(bare.thread, NULL);
    close(bare.listener);
    close(bare.epoll);
    close(bare.stop);
    return error;
}

const struct workload connection_workloads[] = {
    {"B4.again", "an idle connection that is called again", call_again, FRESH | ONE_IN_QUICK},
    {"B4.stack", "an idle connection with a task", wait_with_stack, FRESH | ONE_IN_QUICK},
    {"B4.epoll", "an idle connection with bare epoll", bare_epoll, OWN_RUNTIME | FRESH | ONE_COUNT | ONE_IN_QUICK},
    {NULL, NULL, NULL, 0},
};
