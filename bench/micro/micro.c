/*
 * bench_micro: runs the micro workloads and prints what they took.
 *
 * The parent reads the arguments, forks a child for each workload and number of workers, collects the samples
 * that the child writes to a pipe, and prints a row for each metric: median, smallest and largest of the
 * repeats, CPU seconds and context switches of the median repeat's process, peak of resident memory. It has no
 * runtime and no thread of its own. A child that takes longer than LIMIT_S seconds is ended; its row says so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "micro.h"

enum {
    REPEATS = 5,
    REPEATS_QUICK = 3,
    REPEATS_MAX = 99,
    COUNTS_MAX = 16,
    LIMIT_S = 120, /* for one child: the slowest workload takes a tenth of it */
    LIMIT_QUICK_S = 20
};

/* ---- what a workload of this kind must reach ---- */

/*
 * For orientation, at one worker and at two: absolute limits where there are such, and otherwise the wanted
 * fraction of the best of other runtimes as measured on a virtual machine with two cores (docs/measuring.md).
 * Only a comparison in one interleaved run counts.
 */
static const struct goal {
    const char *key;
    double at_one, at_two;
} goals[] = {
    {"A1", 8, 8},
    {"A2", 14, 14},
    {"A3", 2232, 2232},
    {"A4", 15, 50},
    {"A5", 587, 816},
    {"A6", 40, 61},
    {"A7", 115, 192},
    {"A8", 12.2, 8},
    {"A8.yield", 140, 125},
    {"A8.chan", 218, 182},
    {"A8.yield.s", 140, 125},
    {"A8.chan.s", 218, 182},
    {"A9", 25.4, 14.2},
    {"A12.p50", 20, 20},
    {"A12.p99", 57, 57},
    {"A13.cpu", 0.3, 0.3},
    {"A14.A2", 1.3, 1.3},
    {"A14.A4", 1.3, 1.3},
    {"A14.A8", 1.3, 1.3},
    {"B1.bytes", 4400, 4400},
    {"B2.bytes", 160, 160},
    {"B2.spawn", 180, 245},
    {"B2.end", 125, 250},
    {"B2s.bytes", 200, 200},
    {"B2s.cpu", 1, 1},
    {"B3", 5, 5},
    {"B4.bytes", 400, 400},
    {"C1", 64, 82},
    {"C2", 17, 23},
    {"C3", 30, 27},
    {"C4", 5.6, 14.4},
    {"C5.buffered", 170, 240},
    {"C5.meeting", 285, 340},

    {"C6.next", 8, 8},
    {"C6.send", 8, 8},
    {"C6.task", 8, 8},
    {"D1.over", 115, 87},
    {"D1.cpu", 0.41, 0.58},
    {"D1.over.s", 115, 87},
    {"D1.cpu.s", 0.41, 0.58},
    {"D1.p99", 0.2, 0.2},
    {"D3.p50", 60, 60},
    {"D4", 5, 3.8},
    {"D5", 415, 415},
};

static double goal_of(const char *key, unsigned workers)
{
    for (size_t i = 0; i < sizeof goals / sizeof *goals; i++)
        if (strcmp(goals[i].key, key) == 0)
            return workers == 1 ? goals[i].at_one : goals[i].at_two;
    return 0;
}

/* ---- for the workloads ---- */

void add_metric(struct sample *sample, const char *key, const char *unit, double value)
{
    if (sample->count == METRICS_MAX)
        abort(); /* a mistake in a workload, seen the first time it runs */
    struct metric *metric = &sample->metrics[sample->count++];
    snprintf(metric->key, sizeof metric->key, "%s", key);
    snprintf(metric->unit, sizeof metric->unit, "%s", unit);
    metric->value = value;
}

void add_part(struct sample *sample, const char *key, const char *part, const char *unit, double value)
{
    char whole[sizeof sample->metrics[0].key];
    snprintf(whole, sizeof whole, "%s.%s", key, part);
    add_metric(sample, whole, unit, value);
}

int start_runtime(unsigned workers, weft_runtime **runtime)
{
    weft_config config = WEFT_CONFIG_DEFAULT;
    config.workers = workers;
    config.blocking_max = 512;
    return weft_runtime_start(&config, runtime);
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

int64_t resident_bytes(void)
{
    long long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%lld %lld", &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

static int compare_int64(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

int64_t quantile(int64_t *values, long count, double quantile)
{
    qsort(values, (size_t)count, sizeof *values, compare_int64);
    return values[(long)(quantile * (double)(count - 1) + 0.5)];
}

void pause_thread(int64_t ns)
{
    struct timespec rest = {ns / 1000000000, ns % 1000000000};
    while (nanosleep(&rest, &rest) == -1 && errno == EINTR)
        continue;
}

void count_down(struct countdown *countdown)
{
    /* Release, and acquire for the last: what the tasks wrote is seen by whoever waits for the event. */
    if (atomic_fetch_sub_explicit(&countdown->left, 1, memory_order_acq_rel) == 1)
        weft_event_set(&countdown->over);
}

int spawn_and_await(long count, weft_fn *fn, void *arg)
{
    weft_task **tasks = malloc((size_t)count * sizeof *tasks);
    if (!tasks)
        return -ENOMEM;
    for (long i = 0; i < count; i++)
        tasks[i] = weft_spawn(fn, arg);
    intptr_t error = 0;
    for (long i = 0; i < count; i++) {
        intptr_t result = weft_await(tasks[i]);
        error = error ? error : result;
    }
    free(tasks);
    return (int)error;
}

static int limit_of(const struct setting *setting)
{
    return setting->quick ? LIMIT_QUICK_S : LIMIT_S;
}

/* ---- the child ---- */

static void run_once(const struct workload *workload, const struct setting *setting, struct sample *sample)
{
    struct rusage before, after;
    memset(sample, 0, sizeof *sample);
    int64_t start = weft_now();
    getrusage(RUSAGE_SELF, &before);
    sample->error = workload->measure(setting, sample);
    getrusage(RUSAGE_SELF, &after);
    sample->wall_s = (double)(weft_now() - start) / 1e9;
    sample->cpu_s = seconds_of(after.ru_utime) + seconds_of(after.ru_stime) - seconds_of(before.ru_utime) -
                    seconds_of(before.ru_stime);
    sample->voluntary = after.ru_nvcsw - before.ru_nvcsw;
    sample->involuntary = after.ru_nivcsw - before.ru_nivcsw;
    sample->peak_kib = after.ru_maxrss;
}

static int send_sample(int pipe, const struct sample *sample)
{
    const char *bytes = (const char *)sample;
    size_t sent = 0;
    while (sent < sizeof *sample) {
        ssize_t count = write(pipe, bytes + sent, sizeof *sample - sent);
        if (count < 0 && errno != EINTR)
            return -errno;
        sent += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

static void run_child(const struct workload *workload, struct setting *setting, int repeats, int pipe)
{
    struct sample sample = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm((unsigned)limit_of(setting) + 5); /* in case the parent is gone, too */
    if (!(workload->flags & OWN_RUNTIME)) {
        sample.error = start_runtime(setting->workers, &setting->runtime);
        if (sample.error) {
            send_sample(pipe, &sample);
            _exit(1);
        }
    }
    if (!(workload->flags & FRESH))
        run_once(workload, setting, &sample);
    for (int i = 0; i < repeats && sample.error == 0; i++) {
        run_once(workload, setting, &sample);
        send_sample(pipe, &sample);
    }
    if (setting->runtime)
        weft_runtime_stop(setting->runtime, WEFT_SEC(5));
    _exit(sample.error ? 1 : 0);
}

/* ---- the parent ---- */

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Samples until the pipe ends or the time is over; -ETIMEDOUT in the latter case. */
static int receive_samples(int pipe, int limit_s, struct sample *samples, int max, int *received)
{
    const int64_t deadline = monotonic_ms() + (int64_t)limit_s * 1000;
    size_t filled = 0, size = (size_t)max * sizeof *samples;
    char *bytes = (char *)samples;
    int error = 0;
    while (filled < size) {
        struct pollfd ready = {pipe, POLLIN, 0};
        int64_t left = deadline - monotonic_ms();
        if (left <= 0 || poll(&ready, 1, (int)left) == 0) {
            error = -ETIMEDOUT;
            break;
        }
        ssize_t count = read(pipe, bytes + filled, size - filled);
        if (count == 0)
            break;
        if (count < 0 && errno != EINTR) {
            error = -errno;
            break;
        }
        filled += count > 0 ? (size_t)count : 0;
    }
    *received = (int)(filled / sizeof *samples);
    return error;
}

/* Beyond all errno values: the child was ended by the signal that is this less. */
enum { BY_SIGNAL = 4096 };

static const char *reason(int error)
{
    return -error > BY_SIGNAL ? strsignal(-error - BY_SIGNAL) : strerror(-error);
}

/* One child and its samples; 0, or why there are fewer than asked for. */
static int fork_workload(const struct workload *workload, struct setting *setting, struct sample *samples,
                         int repeats, int *received)
{
    int ends[2];
    *received = 0;
    if (pipe(ends) == -1)
        return -errno;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == -1) {
        int error = -errno;
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    if (pid == 0) {
        close(ends[0]);
        run_child(workload, setting, repeats, ends[1]);
    }
    close(ends[1]);
    int error = receive_samples(ends[0], limit_of(setting), samples, repeats, received);
    close(ends[0]);
    int status = 0;
    if (error)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
        continue;
    if (*received > 0 && samples[*received - 1].error)
        return samples[*received - 1].error;
    if (!error && WIFSIGNALED(status))
        return -(BY_SIGNAL + WTERMSIG(status));
    return error ? error : *received < repeats ? -ECHILD : 0;
}

struct options {
    const char *only;
    unsigned counts[COUNTS_MAX]; /* of workers */
    int count_of_counts;
    int repeats;
    int quick;
    int json;
    int list;
};

struct row {
    const struct metric *metric;
    double median, min, max;
    const struct sample *typical; /* the repeat whose value is the median */
    int64_t peak_kib;
};

static struct row summarise(const struct sample *samples, int count, unsigned index)
{
    struct row row = {&samples[0].metrics[index], 0, 0, 0, NULL, 0};
    const struct sample *sorted[REPEATS_MAX];
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && sorted[at - 1]->metrics[index].value > samples[i].metrics[index].value; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = &samples[i];
        row.peak_kib = samples[i].peak_kib > row.peak_kib ? samples[i].peak_kib : row.peak_kib;
    }
    row.typical = sorted[(count - 1) / 2];
    row.median = (sorted[(count - 1) / 2]->metrics[index].value + sorted[count / 2]->metrics[index].value) / 2;
    row.min = sorted[0]->metrics[index].value;
    row.max = sorted[count - 1]->metrics[index].value;
    return row;
}

static void print_heading(void)
{
    printf("%-11s %-47s %3s %10s %10s %10s %-3s %8s %8s %9s %9s %8s\n", "id", "workload", "w", "median", "min",
           "max", "", "goal", "cpu s", "vol. sw", "inv. sw", "peak MB");
}

static void print_row(const struct workload *workload, unsigned workers, const struct row *row)
{
    char goal[16] = "";
    double limit = goal_of(row->metric->key, workers);
    if (limit > 0)
        snprintf(goal, sizeof goal, "%.4g%s", limit, row->median <= limit ? " +" : " -");
    printf("%-11s %-47s %3u %10.2f %10.2f %10.2f %-3s %8s %8.3f %9lld %9lld %8.1f\n", row->metric->key,
           workload->title, workers, row->median, row->min, row->max, row->metric->unit, goal, row->typical->cpu_s,
           (long long)row->typical->voluntary, (long long)row->typical->involuntary, (double)row->peak_kib / 1024);
}

/* One object a line, so that a reader can take them as they come. */
static void print_json(const struct workload *workload, unsigned workers, const struct row *row, int repeats)
{
    printf(
        "{\"id\": \"%s\", \"title\": \"%s\", \"workers\": %u, \"unit\": \"%s\", \"median\": %.6g, \"min\": %.6g, "
        "\"max\": %.6g, \"repeats\": %d, \"goal\": %.6g, \"cpu_s\": %.6g, \"wall_s\": %.6g, "
        "\"voluntary\": %lld, \"involuntary\": %lld, \"peak_mb\": %.1f}\n",
        row->metric->key, workload->title, workers, row->metric->unit, row->median, row->min, row->max, repeats,
        goal_of(row->metric->key, workers), row->typical->cpu_s, row->typical->wall_s,
        (long long)row->typical->voluntary, (long long)row->typical->involuntary, (double)row->peak_kib / 1024);
}

static void print_failure(const struct workload *workload, unsigned workers, int error,
                          const struct options *options)
{
    if (options->json)
        printf("{\"id\": \"%s\", \"title\": \"%s\", \"workers\": %u, \"error\": \"%s\"}\n", workload->id,
               workload->title, workers, reason(error));
    else
        printf("%-11s %-47s %3u failed: %s\n", workload->id, workload->title, workers, reason(error));
}

static int run_workload(const struct workload *workload, unsigned workers, const struct options *options)
{
    struct setting setting = {NULL, workers, weft_available_processors(), options->quick};
    struct sample samples[REPEATS_MAX];
    int repeats = options->quick && (workload->flags & ONE_IN_QUICK) ? 1 : options->repeats;
    int received = 0, error = 0;
    if (workload->flags & FRESH) {
        for (int i = 0, one = 0; i < repeats && !error; i++, received += one)
            error = fork_workload(workload, &setting, &samples[i], 1, &one);
    } else {
        error = fork_workload(workload, &setting, samples, repeats, &received);
    }
    if (error) {
        print_failure(workload, workers, error, options);
        return error;
    }
    for (unsigned i = 0; i < samples[0].count; i++) {
        struct row row = summarise(samples, received, i);
        if (options->json)
            print_json(workload, workers, &row, received);
        else
            print_row(workload, workers, &row);
    }
    fflush(stdout);
    return 0;
}

/* Is `id` in the comma-separated list? "A8" also stands for "A8.await" and "A8.yield". */
static int wanted(const char *list, const char *id)
{
    for (const char *at = list; at && *at;) {
        size_t length = strcspn(at, ",");
        if (strncasecmp(at, id, length) == 0 && (id[length] == 0 || id[length] == '.'))
            return 1;
        at += length;
        at += *at == ',';
    }
    return !list;
}

static int run_table(const struct workload *workloads, const struct options *options)
{
    int failures = 0;
    for (const struct workload *workload = workloads; workload->id; workload++) {
        if (!wanted(options->only, workload->id))
            continue;
        if (options->list) {
            printf("%-11s %s\n", workload->id, workload->title);
            continue;
        }
        int last = options->count_of_counts - 1;
        int only_last = workload->flags & ONE_COUNT || (options->quick && workload->flags & ONE_IN_QUICK);
        for (int i = only_last ? last : 0; i <= last; i++)
            failures += run_workload(workload, options->counts[i], options) != 0;
    }
    return failures;
}

static int parse_counts(const char *text, struct options *options)
{
    options->count_of_counts = 0;
    while (*text) {
        char *end;
        unsigned long count = strtoul(text, &end, 10);
        if (end == text || count < 1 || count > 1024 || options->count_of_counts == COUNTS_MAX)
            return -EINVAL;
        options->counts[options->count_of_counts++] = (unsigned)count;
        if (*end != ',' && *end != 0)
            return -EINVAL;
        text = *end ? end + 1 : end;
    }
    return options->count_of_counts ? 0 : -EINVAL;
}

static void usage(FILE *file)
{
    fprintf(file, "usage: bench_micro [options]\n"
                  "  --list            ids and titles of the workloads\n"
                  "  --only A1,A4      these only (A8 means A8.await, A8.yield, A8.chan)\n"
                  "  --workers 1,2     numbers of workers (default: 1, and one for each core)\n"
                  "  --repeat K        repeats (default 5, with --quick 3); the median is reported\n"
                  "  --quick           smaller sizes\n"
                  "  --json            an object a line instead of a table\n");
}

static int parse_options(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"list", no_argument, NULL, 'l'},          {"only", required_argument, NULL, 'o'},
        {"workers", required_argument, NULL, 'w'}, {"repeat", required_argument, NULL, 'r'},
        {"quick", no_argument, NULL, 'q'},         {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "h", names, NULL)) != -1;) {
        switch (option) {
        case 'l':
            options->list = 1;
            break;
        case 'o':
            options->only = optarg;
            break;
        case 'w':
            if (parse_counts(optarg, options))
                return -EINVAL;
            break;
        case 'r':
            options->repeats = atoi(optarg);
            if (options->repeats < 1 || options->repeats > REPEATS_MAX)
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
    if (!options->repeats)
        options->repeats = options->quick ? REPEATS_QUICK : REPEATS;
    return optind == argc ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    struct options options = {NULL, {1, weft_available_processors()}, 2, 0, 0, 0, 0};
    if (options.counts[1] == 1)
        options.count_of_counts = 1;
    if (parse_options(argc, argv, &options)) {
        usage(stderr);
        return 2;
    }
    if (!options.json && !options.list)
        print_heading();
    int failures = run_table(scheduling_workloads, &options);
    failures += run_table(regime_workloads, &options);
    failures += run_table(memory_workloads, &options);
    failures += run_table(connection_workloads, &options);
    failures += run_table(communication_workloads, &options);
    failures += run_table(generator_workloads, &options);
    failures += run_table(timing_workloads, &options);
    return failures ? 1 : 0;
}
