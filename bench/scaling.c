/*
 * bench_scaling: what more workers do for computing, for waiting and for blocking, and what computing does to
 * an echo server in the same process.
 *
 *   contrast  three tasks that compute, wait, or block, on one worker and on several
 *   sweep     more and shorter ones, over the whole list of worker counts
 *   mixed     an echo server's latency while every worker also computes
 *
 * The main thread starts a runtime for each measurement and is no task; the clients of the echo server are
 * plain threads with blocking sockets.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <weft.h>

enum { COUNTS_MAX = 16, ROUNDS_MAX = 9, TASKS_MAX = 64 };

struct options {
    const char *only;
    unsigned workers[COUNTS_MAX];
    int counts;
    int quick;
    int json;
};

/* ---- the work ---- */

/* Steps of a generator whose every step needs the one before, so that no compiler can shorten it. */
static uint64_t compute(uint64_t steps)
{
    uint64_t state = steps | 1;
    while (steps-- > 0)
        state = state * 6364136223846793005u + 1442695040888963407u;
    return state;
}

static volatile uint64_t computed; /* keeps the result of compute needed; never read */

static uint64_t steps_per_ms;

/* The best of several tries: the machine's speed without whatever else runs on it. */
static void calibrate(void)
{
    const uint64_t steps = 2000000;
    int64_t best = INT64_MAX;
    for (int i = 0; i < 20; i++) {
        int64_t start = weft_now();
        computed = compute(steps + (uint64_t)i);
        int64_t took = weft_now() - start;
        best = took < best ? took : best;
    }
    steps_per_ms = steps * 1000000 / (uint64_t)best;
}

/* A fixed amount of work, not of time: tasks that share a core must take longer. */
static void compute_ms(int64_t ms)
{
    computed = compute(steps_per_ms * (uint64_t)ms);
}

static void block_ms(int64_t ms)
{
    struct timespec rest = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest) == -1 && errno == EINTR)
        continue;
}

static intptr_t computing(void *ms)
{
    compute_ms((intptr_t)ms);
    return 0;
}

static intptr_t waiting(void *ms)
{
    return weft_sleep(WEFT_MS((intptr_t)ms));
}

static intptr_t blocking_its_worker(void *ms)
{
    block_ms((intptr_t)ms);
    return 0;
}

static intptr_t blocking_in_the_pool(void *ms)
{
    return weft_blocking(blocking_its_worker, ms);
}

/* Takeover is off where the number of threads that run tasks must be the number of workers. */
static const struct kind {
    const char *name;
    weft_fn *fn;
    int64_t takeover_us;
    int in_sweep;
} kinds[] = {
    {"computing", computing, WEFT_NEVER, 1},
    {"waiting", waiting, 0, 1},
    {"blocking its worker", blocking_its_worker, WEFT_NEVER, 1},
    {"blocking its worker, takeover", blocking_its_worker, 0, 0},
    {"blocking in the pool", blocking_in_the_pool, 0, 1},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

struct job {
    weft_fn *fn;
    int tasks;
    int64_t ms; /* of each */
};

static intptr_t run_job(void *arg)
{
    const struct job *job = arg;
    weft_task *tasks[TASKS_MAX];
    int64_t start = weft_now();
    for (int i = 0; i < job->tasks; i++)
        tasks[i] = weft_spawn(job->fn, (void *)(intptr_t)job->ms);
    intptr_t error = 0;
    for (int i = 0; i < job->tasks; i++)
        error |= weft_await(tasks[i]);
    return error ? error : weft_now() - start;
}

static int start_runtime(unsigned workers, int64_t takeover_us, weft_runtime **runtime)
{
    weft_config config = WEFT_CONFIG_DEFAULT;
    config.workers = workers;
    config.takeover_us = takeover_us;
    config.blocking_max = 2 * TASKS_MAX;
    return weft_runtime_start(&config, runtime);
}

/* Milliseconds, or a negative errno. */
static double time_job(const struct kind *kind, unsigned workers, int tasks, int64_t ms)
{
    struct job job = {kind->fn, tasks, ms};
    weft_runtime *runtime = NULL;
    int error = start_runtime(workers, kind->takeover_us, &runtime);
    if (error)
        return error;
    intptr_t ns = weft_runtime_run(runtime, run_job, &job);
    weft_runtime_stop(runtime, WEFT_SEC(5));
    return weft_is_error(ns) ? (double)ns : (double)ns / 1e6;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare_doubles);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* ---- contrast and sweep ---- */

static void print_job(const struct options *options, const char *part, const struct kind *kind, unsigned workers,
                      const struct job *job, double ms, double speedup)
{
    if (options->json)
        printf("{\"part\": \"%s\", \"kind\": \"%s\", \"tasks\": %d, \"each_ms\": %lld, \"workers\": %u, "
               "\"ms\": %.3f, \"speedup\": %.3f, \"efficiency\": %.3f}\n",
               part, kind->name, job->tasks, (long long)job->ms, workers, ms, speedup, speedup / workers);
    else
        printf("%-9s %-31s %2d x %3lld ms %8u %9.1f %8.2f %10.2f\n", part, kind->name, job->tasks,
               (long long)job->ms, workers, ms, speedup, speedup / workers);
    fflush(stdout);
}

/* One kind over several worker counts, in rounds so that a slow moment of the machine meets all of them. */
static int measure_kind(const struct options *options, const char *part, const struct kind *kind,
                        const unsigned *workers, int counts, int tasks, int64_t ms)
{
    double took[COUNTS_MAX][ROUNDS_MAX];
    struct job job = {kind->fn, tasks, ms};
    int rounds = options->quick ? 1 : 3;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < counts; i++) {
            took[i][round] = time_job(kind, workers[i], tasks, ms);
            if (took[i][round] < 0) {
                fprintf(stderr, "bench_scaling: %s on %u workers: %s\n", kind->name, workers[i],
                        strerror((int)-took[i][round]));
                return -1;
            }
        }
    }
    double first = median(took[0], rounds);
    for (int i = 0; i < counts; i++) {
        double ms_taken = i == 0 ? first : median(took[i], rounds);
        print_job(options, part, kind, workers[i], &job, ms_taken, first / ms_taken);
    }
    return 0;
}

static void print_job_heading(const struct options *options, const char *title)
{
    if (!options->json)
        printf("\n%s\n%-9s %-31s %11s %8s %9s %8s %10s\n", title, "part", "work", "tasks", "workers", "ms",
               "speedup", "efficiency");
}

static int contrast(const struct options *options)
{
    unsigned workers[2] = {1, weft_available_processors()};
    int counts = workers[1] > 1 ? 2 : 1, failures = 0;
    print_job_heading(options, "Three tasks of each kind");
    for (int i = 0; i < KINDS; i++)
        failures +=
            measure_kind(options, "contrast", &kinds[i], workers, counts, 3, options->quick ? 100 : 300) != 0;
    return failures;
}

static int sweep(const struct options *options)
{
    int failures = 0;
    print_job_heading(options, "Over the number of workers; efficiency is speedup / workers");
    for (int i = 0; i < KINDS; i++) {
        if (kinds[i].in_sweep)
            failures += measure_kind(options, "sweep", &kinds[i], options->workers, options->counts,
                                     options->quick ? 24 : TASKS_MAX, options->quick ? 10 : 20) != 0;
    }
    return failures;
}

/* ---- mixed: echo beside computing ---- */

enum { CLIENTS = 4, MESSAGE = 64, LATENCIES_MAX = 1 << 19 };

static const struct load {
    const char *name;
    int64_t compute_ms, rest_ms; /* rest 0: only a yield in between */
} loads[] = {
    {"none", 0, 0},
    {"1 ms, ten times a second", 1, 99},
    {"1 ms, yield, again", 1, 0},
    {"100 ms, yield, again", 100, 0},
};

enum { LOADS = sizeof loads / sizeof *loads };

struct mix {
    const struct load *load;
    unsigned workers;
    int listener;
    _Atomic int over;
};

static intptr_t keep_computing(void *arg)
{
    struct mix *mix = arg;
    while (!atomic_load_explicit(&mix->over, memory_order_relaxed)) {
        compute_ms(mix->load->compute_ms);
        int error = mix->load->rest_ms ? weft_sleep(WEFT_MS(mix->load->rest_ms)) : weft_yield();
        if (error)
            return error;
    }
    return 0;
}

static intptr_t echo(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char buffer[MESSAGE];
    ssize_t count;
    while ((count = weft_read(fd, buffer, sizeof buffer)) > 0) {
        if (weft_write_all(fd, buffer, (size_t)count) < 0)
            break;
    }
    weft_close(fd);
    return 0;
}

static intptr_t serve_clients(void *arg)
{
    struct mix *mix = arg;
    for (unsigned i = 0; mix->load->compute_ms && i < mix->workers; i++) {
        int error = weft_go(keep_computing, mix);
        if (error)
            return error;
    }
    for (int i = 0; i < CLIENTS; i++) {
        int fd = weft_accept(mix->listener, NULL, NULL);
        int error = fd < 0 ? fd : weft_go(echo, (void *)(intptr_t)fd);
        if (error)
            return error;
    }
    return 0;
}

struct client {
    pthread_t thread;
    int fd;
    int64_t until;
    long count;
    int64_t *latencies;
};

static int exchange(int fd)
{
    char buffer[MESSAGE] = {0};
    if (send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) != MESSAGE)
        return -EIO;
    for (ssize_t got = 0; got < MESSAGE;) {
        ssize_t count = recv(fd, buffer + got, sizeof buffer - (size_t)got, 0);
        if (count <= 0)
            return -EIO;
        got += count;
    }
    return 0;
}

static void *run_client(void *arg)
{
    struct client *client = arg;
    for (int64_t start = weft_now(); start < client->until && client->count < LATENCIES_MAX;) {
        if (exchange(client->fd))
            break;
        int64_t end = weft_now();
        client->latencies[client->count++] = end - start;
        start = end;
    }
    return NULL;
}

static int dial(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {10, 0}; /* a server that is stuck must not hang the benchmark */
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return -errno;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == -1) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int compare_int64(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void print_mix(const struct options *options, const struct mix *mix, int64_t *latencies, long count,
                      double seconds)
{
    qsort(latencies, (size_t)count, sizeof *latencies, compare_int64);
    double p50 = (double)latencies[count / 2] / 1e3, p99 = (double)latencies[count * 99 / 100] / 1e3;
    double p999 = (double)latencies[count * 999 / 1000] / 1e3, worst = (double)latencies[count - 1] / 1e3;
    if (options->json)
        printf("{\"part\": \"mixed\", \"load\": \"%s\", \"workers\": %u, \"requests_s\": %.0f, \"p50_us\": %.1f, "
               "\"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
               mix->load->name, mix->workers, (double)count / seconds, p50, p99, p999, worst);
    else
        printf("%-31s %8u %12.0f %9.1f %9.1f %9.1f %9.1f\n", mix->load->name, mix->workers, (double)count / seconds,
               p50, p99, p999, worst);
    fflush(stdout);
}

/* All latencies in `latencies`, which has room for every client; how many, or a negative errno. */
static long run_clients(struct mix *mix, int64_t duration, int64_t *latencies)
{
    struct client clients[CLIENTS];
    int port = weft_local_port(mix->listener), started = 0;
    long error = 0;
    for (; started < CLIENTS; started++) {
        struct client *client = &clients[started];
        *client = (struct client){.fd = dial(port), .latencies = latencies + (size_t)started * LATENCIES_MAX};
        error = client->fd;
        if (error < 0)
            break;
        client->until = weft_now() + duration;
        error = -pthread_create(&client->thread, NULL, run_client, client);
        if (error) {
            close(client->fd);
            break;
        }
    }
    long total = 0;
    for (int i = 0; i < started; i++) {
        pthread_join(clients[i].thread, NULL);
        close(clients[i].fd);
        memmove(latencies + total, clients[i].latencies, (size_t)clients[i].count * sizeof *latencies);
        total += clients[i].count;
    }
    return error < 0 ? error : total ? total : -ENODATA;
}

static int measure_mix(const struct options *options, const struct load *load, unsigned workers, int64_t *latencies)
{
    struct mix mix = {load, workers, weft_listen("127.0.0.1", 0, CLIENTS), 0};
    int64_t duration = options->quick ? WEFT_SEC(1) : WEFT_SEC(3);
    if (mix.listener < 0)
        return mix.listener;
    weft_runtime *runtime = NULL;
    long count = start_runtime(workers, 0, &runtime);
    if (count == 0) {
        count = weft_runtime_go(runtime, serve_clients, &mix);
        if (count == 0)
            count = run_clients(&mix, duration, latencies);
        atomic_store_explicit(&mix.over, 1, memory_order_relaxed);
        weft_runtime_stop(runtime, WEFT_SEC(5));
    }
    weft_close(mix.listener);
    if (count < 0)
        return (int)count;
    print_mix(options, &mix, latencies, count, (double)duration / 1e9);
    return 0;
}

static int mixed(const struct options *options)
{
    unsigned workers[2] = {1, weft_available_processors()};
    int64_t *latencies = malloc(sizeof *latencies * CLIENTS * LATENCIES_MAX);
    int failures = 0;
    if (!latencies)
        return 1;
    if (!options->json)
        printf("\nEcho, %d connections, while every worker also computes; microseconds\n%-31s %8s %12s %9s %9s %9s "
               "%9s\n",
               CLIENTS, "computing", "workers", "requests/s", "p50", "p99", "p99.9", "max");
    for (int i = 0; i < LOADS; i++) {
        for (int j = 0; j < (workers[1] > 1 ? 2 : 1); j++) {
            int error = measure_mix(options, &loads[i], workers[j], latencies);
            if (error)
                fprintf(stderr, "bench_scaling: echo beside %s: %s\n", loads[i].name, strerror(-error));
            failures += error != 0;
        }
    }
    free(latencies);
    return failures;
}

/* ---- arguments ---- */

static int parse_workers(const char *text, struct options *options)
{
    options->counts = 0;
    while (*text) {
        char *end;
        unsigned long count = strtoul(text, &end, 10);
        if (end == text || count < 1 || count > 1024 || options->counts == COUNTS_MAX || (*end != ',' && *end != 0))
            return -EINVAL;
        options->workers[options->counts++] = (unsigned)count;
        text = *end ? end + 1 : end;
    }
    return options->counts ? 0 : -EINVAL;
}

static void default_workers(struct options *options)
{
    unsigned cores = weft_available_processors();
    for (unsigned count = 1; count < cores; count *= 2)
        options->workers[options->counts++] = count;
    for (unsigned factor = 1; factor <= 4; factor *= 2)
        options->workers[options->counts++] = cores * factor;
}

static void usage(FILE *file)
{
    fprintf(file, "usage: bench_scaling [options]\n"
                  "  --only PART       contrast, sweep or mixed\n"
                  "  --workers 1,2,8   numbers of workers for the sweep; speedup is over the first\n"
                  "                    (default: doubling up to the cores, then 2 and 4 times those)\n"
                  "  --quick           shorter\n"
                  "  --json            an object a line instead of tables\n");
}

static int parse_options(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"only", required_argument, NULL, 'o'}, {"workers", required_argument, NULL, 'w'},
        {"quick", no_argument, NULL, 'q'},      {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},       {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "h", names, NULL)) != -1;) {
        switch (option) {
        case 'o':
            options->only = optarg;
            break;
        case 'w':
            if (parse_workers(optarg, options))
                return -EINVAL;
            break;
        case 'q':
            options->quick = 1;
            break;
        case 'j':
            options->json = 1;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            return -EINVAL;
        }
    }
    return optind == argc ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    static const struct part {
        const char *name;
        int (*run)(const struct options *options);
    } parts[] = {{"contrast", contrast}, {"sweep", sweep}, {"mixed", mixed}};
    struct options options = {0};
    if (parse_options(argc, argv, &options)) {
        usage(stderr);
        return 2;
    }
    if (!options.counts)
        default_workers(&options);
    alarm(600);
    calibrate();
    int failures = 0, known = 0;
    for (int i = 0; i < 3; i++) {
        if (options.only && strcmp(options.only, parts[i].name) != 0)
            continue;
        known = 1;
        failures += parts[i].run(&options);
    }
    if (!known) {
        usage(stderr);
        return 2;
    }
    return failures ? 1 : 0;
}
