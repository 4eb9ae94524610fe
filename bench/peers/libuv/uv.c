/*
 * libuv: servers, timers and its thread pool. Callbacks have no stacks and cannot wait for each other, so the
 * workloads of tasks have no counterpart. Several workers are as many threads with a loop and a listener
 * (SO_REUSEPORT) each, which is how libuv is used on several cores. UV_THREADPOOL_SIZE is 512 for the pool's
 * workloads, as everywhere; threads are started with the first call.
 */
#include "../common/peer.h"

#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <uv.h>

/* ---- A12 ---- */

/* Several sends may make one call: each takes all stamps that are there. */
struct stamps {
    uv_async_t wake;
    int64_t sent[3000], latency[3000];
    long count, seen;
    long made; /* written by the sender: the stamps before it are valid */
};

static void take_stamps(uv_async_t *wake)
{
    struct stamps *stamps = wake->data;
    long made = __atomic_load_n(&stamps->made, __ATOMIC_ACQUIRE);
    for (; stamps->seen < made; stamps->seen++)
        stamps->latency[stamps->seen] = now_ns() - stamps->sent[stamps->seen];
    if (stamps->seen == stamps->count && !uv_is_closing((uv_handle_t *)wake))
        uv_close((uv_handle_t *)wake, NULL);
}

static void *send_stamps(void *arg)
{
    struct stamps *stamps = arg;
    for (long i = 0; i < stamps->count; i++) {
        pause_thread(1000000);
        stamps->sent[i] = now_ns();
        __atomic_store_n(&stamps->made, i + 1, __ATOMIC_RELEASE);
        uv_async_send(&stamps->wake);
    }
    return NULL;
}

static void wake_latency(const struct setting *setting)
{
    static struct stamps stamps;
    uv_loop_t loop;
    pthread_t thread;
    memset(&stamps, 0, sizeof stamps);
    stamps.count = setting->quick ? 500 : 3000;
    stamps.wake.data = &stamps;
    uv_loop_init(&loop);
    uv_async_init(&loop, &stamps.wake, take_stamps);
    expect(pthread_create(&thread, NULL, send_stamps, &stamps) == 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    pthread_join(thread, NULL);
    expect(stamps.seen == stamps.count && uv_loop_close(&loop) == 0);
    add_metric("A12.p50", quantile(stamps.latency, stamps.count, 0.5) / 1e3, "us");
    add_metric("A12.p99", quantile(stamps.latency, stamps.count, 0.99) / 1e3, "us");
}

/* ---- D1: timers instead of sleeping tasks ---- */

struct sleeper {
    uv_timer_t timer;
    int64_t naps[3]; /* ms; afterwards the overshoot in ns */
    int64_t start;
    int at;
};

static void nap_over(uv_timer_t *timer);

static void next_nap(struct sleeper *sleeper)
{
    uv_update_time(sleeper->timer.loop);
    sleeper->start = now_ns();
    uv_timer_start(&sleeper->timer, nap_over, (uint64_t)sleeper->naps[sleeper->at], 0);
}

static void nap_over(uv_timer_t *timer)
{
    struct sleeper *sleeper = timer->data;
    sleeper->naps[sleeper->at] = now_ns() - sleeper->start - sleeper->naps[sleeper->at] * 1000000;
    if (++sleeper->at < 3)
        next_nap(sleeper);
    else
        uv_close((uv_handle_t *)timer, NULL);
}

static double sleep_crowd(long count, struct sleeper *sleepers)
{
    uint64_t state = NAPS_SEED;
    int64_t longest = 0;
    uv_loop_t loop;
    uv_loop_init(&loop);
    for (long i = 0; i < count; i++) {
        int64_t sum = 0;
        for (int j = 0; j < 3; j++)
            sum += sleepers[i].naps[j] = next_nap_ms(&state);
        longest = sum > longest ? sum : longest;
    }
    int64_t start = now_ns();
    for (long i = 0; i < count; i++) {
        uv_timer_init(&loop, &sleepers[i].timer);
        sleepers[i].timer.data = &sleepers[i];
        next_nap(&sleepers[i]);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    int64_t end = now_ns();
    expect(uv_loop_close(&loop) == 0);
    return (double)(end - start) - (double)longest * 1e6;
}

static void many_sleepers(const struct setting *setting)
{
    struct sleeper *sleepers = calloc(100000, sizeof *sleepers);
    double cpu = usage_of(RUSAGE_SELF).cpu_s;
    (void)setting;
    expect(sleepers != NULL);
    add_metric("D1.over", sleep_crowd(100000, sleepers) / 1e6, "ms");
    add_metric("D1.cpu", usage_of(RUSAGE_SELF).cpu_s - cpu, "s");
    free(sleepers);
}

static void thousand_sleepers(const struct setting *setting)
{
    struct sleeper *sleepers = calloc(1000, sizeof *sleepers);
    static int64_t overshoots[3000];
    (void)setting;
    expect(sleepers != NULL);
    sleep_crowd(1000, sleepers);
    for (int i = 0; i < 3000; i++)
        overshoots[i] = sleepers[i / 3].naps[i % 3];
    add_metric("D1.p99", quantile(overshoots, 3000, 0.99) / 1e6, "ms");
    free(sleepers);
}

/* ---- D2: a timer around what does not wait ---- */

static void never(uv_timer_t *timer)
{
    (void)timer;
    abort();
}

static void unused_timeouts(const struct setting *setting)
{
    const long count = setting->quick ? 1000000 : 10000000;
    uv_loop_t loop;
    uv_timer_t timer;
    uv_mutex_t mutex;
    uv_loop_init(&loop);
    uv_timer_init(&loop, &timer);
    uv_mutex_init(&mutex);
    int64_t start = now_ns();
    for (long i = 0; i < count; i++) {
        uv_timer_start(&timer, never, 1000, 0);
        uv_mutex_lock(&mutex);
        uv_mutex_unlock(&mutex);
        uv_timer_stop(&timer);
    }
    int64_t end = now_ns();
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    uv_mutex_destroy(&mutex);
    add_metric("D2", (double)(end - start) / (double)count, "ns");
}

/* ---- D4 … D6: the pool ---- */

struct caller {
    uv_work_t work;
    long left; /* calls one after the other */
    long *made;
};

static void work_nothing(uv_work_t *work)
{
    (void)work;
}

static void work_sleep(uv_work_t *work)
{
    (void)work;
    pause_thread(100000000);
}

static void work_over(uv_work_t *work, int status)
{
    struct caller *caller = work->data;
    expect(status == 0);
    ++*caller->made;
    if (--caller->left > 0)
        uv_queue_work(work->loop, work, work_nothing, work_over);
}

static double timed_callers(long callers, long calls, uv_work_cb call)
{
    struct caller *all = calloc((size_t)callers, sizeof *all);
    long made = 0;
    uv_loop_t loop;
    expect(all != NULL);
    uv_loop_init(&loop);
    int64_t start = now_ns();
    for (long i = 0; i < callers; i++) {
        all[i].work.data = &all[i];
        all[i].left = calls;
        all[i].made = &made;
        uv_queue_work(&loop, &all[i].work, call, work_over);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    int64_t end = now_ns();
    expect(made == callers * calls && uv_loop_close(&loop) == 0);
    free(all);
    return (double)(end - start);
}

static void trivial_calls(const struct setting *setting)
{
    long calls = setting->quick ? 200 : 1000;
    add_metric("D4", timed_callers(100, calls, work_nothing) / 1e3 / (double)(100 * calls), "us");
}

static void sleeping_calls(const struct setting *setting)
{
    (void)setting;
    add_metric("D5", timed_callers(2000, 1, work_sleep) / 1e6, "ms");
}

static void calls_at_once(const struct setting *setting)
{
    static const int steps[] = {1, 4, 16};
    (void)setting;
    for (int i = 0; i < 3; i++) {
        double ns = 0;
        char key[8];
        for (int batch = 0; batch < 100; batch++)
            ns += timed_callers(16L * steps[i], 1, work_nothing);
        snprintf(key, sizeof key, "D6.%d", steps[i]);
        add_metric(key, ns / 1e3 / (1600.0 * steps[i]), "us");
    }
}

static const struct workload workloads[] = {
    {"A12", wake_latency, 0},   {"D1", many_sleepers, 1}, {"D1.few", thousand_sleepers, 1},
    {"D2", unused_timeouts, 0}, {"D4", trivial_calls, 0}, {"D5", sleeping_calls, 0},
    {"D6", calls_at_once, 0},   {NULL, NULL, 0},
};

/* ---- the echo server ---- */

enum { THREADS_MAX = 256, READ_SIZE = 1024 };

static struct options {
    int port, workers, seconds, compute, stuck;
} options = {0, 1, 60, 0, 0};

/* Freed by the callback that closes it. A write that does not go out at once has memory of its own. */
struct pending {
    uv_write_t request;
    char data[];
};

/* A read's data is used before the next read of the same loop. */
static _Thread_local char read_buffer[READ_SIZE];

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(read_buffer, READ_SIZE);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void write_over(uv_write_t *request, int status)
{
    (void)status;
    free(request);
}

static void echo_back(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    if (length == 0)
        return;
    if (length < 0) {
        uv_close((uv_handle_t *)stream, free_handle);
        return;
    }
    uv_buf_t data = uv_buf_init(buffer->base, (unsigned)length);
    int written = uv_try_write(stream, &data, 1);
    if (written == length)
        return;
    size_t done = written > 0 ? (size_t)written : 0;
    struct pending *pending = malloc(sizeof *pending + (size_t)length - done);
    if (pending == NULL || (written < 0 && written != UV_EAGAIN)) {
        free(pending);
        uv_close((uv_handle_t *)stream, free_handle);
        return;
    }
    memcpy(pending->data, buffer->base + done, (size_t)length - done);
    data = uv_buf_init(pending->data, (unsigned)((size_t)length - done));
    if (uv_write(&pending->request, stream, &data, 1, write_over) != 0)
        free(pending);
}

static void accept_one(uv_stream_t *listener, int status)
{
    uv_tcp_t *client = malloc(sizeof *client);
    if (status != 0 || client == NULL) {
        free(client);
        return;
    }
    uv_tcp_init(listener->loop, client);
    if (uv_accept(listener, (uv_stream_t *)client) != 0) {
        uv_close((uv_handle_t *)client, free_handle);
        return;
    }
    uv_tcp_nodelay(client, 1);
    uv_read_start((uv_stream_t *)client, give_buffer, echo_back);
}

static void compute(uv_timer_t *timer)
{
    (void)timer;
    for (int64_t start = now_ns(); now_ns() - start < 1000000;)
        continue;
}

static void stick(uv_timer_t *timer)
{
    (void)timer;
    pause_thread(500000000);
}

static int open_listener(void)
{
    static const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    expect(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    expect(bind(fd, (struct sockaddr *)&address, length) == 0);
    expect(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    options.port = ntohs(address.sin_port);
    return fd;
}

struct worker {
    pthread_t thread;
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_timer_t computing, sticking;
    int number;
};

static void *serve(void *arg)
{
    struct worker *worker = arg;
    uv_run(&worker->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void prepare_worker(struct worker *worker, int number)
{
    worker->number = number;
    uv_loop_init(&worker->loop);
    uv_tcp_init(&worker->loop, &worker->listener);
    expect(uv_tcp_open(&worker->listener, open_listener()) == 0);
    expect(uv_listen((uv_stream_t *)&worker->listener, 4096, accept_one) == 0);
    uv_timer_init(&worker->loop, &worker->computing);
    if (number < options.compute)
        uv_timer_start(&worker->computing, compute, 100, 101);
    uv_timer_init(&worker->loop, &worker->sticking);
    if (number < options.stuck)
        uv_timer_start(&worker->sticking, stick, 500, 1000);
}

static int serve_echo(int argc, char **argv)
{
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'},    {"workers", required_argument, NULL, 'w'},
        {"seconds", required_argument, NULL, 's'}, {"compute", required_argument, NULL, 'c'},
        {"stuck", required_argument, NULL, 'k'},   {NULL, 0, NULL, 0},
    };
    struct rlimit limit;
    for (int which; (which = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        int *target = which == 'p'   ? &options.port
                      : which == 'w' ? &options.workers
                      : which == 's' ? &options.seconds
                      : which == 'c' ? &options.compute
                      : which == 'k' ? &options.stuck
                                     : NULL;
        if (target == NULL)
            return 2;
        *target = atoi(optarg);
    }
    if (options.workers < 1 || options.workers > THREADS_MAX)
        return 2;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    static struct worker workers[THREADS_MAX];
    for (int i = 0; i < options.workers; i++)
        prepare_worker(&workers[i], i);
    printf("listening on 127.0.0.1:%d\n", options.port);
    fflush(stdout);
    for (int i = 0; i < options.workers; i++)
        expect(pthread_create(&workers[i].thread, NULL, serve, &workers[i]) == 0);
    pause_thread((int64_t)options.seconds * 1000000000);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "echo") == 0)
        return serve_echo(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "--version") == 0)
        return puts(uv_version_string()) < 0;
    setenv("UV_THREADPOOL_SIZE", "512", 1);
    return peer_main(workloads, argc, argv);
}
