/*
 * What the C and C++ programs of bench/peers share: a table of workloads, the warm-up, the printed line, resource
 * usage. Included once a program; each workload runs on the main thread of a process of its own.
 */
#ifndef PEER_H
#define PEER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct setting {
    int workers;
    int quick;
};

struct workload {
    const char *id;
    void (*measure)(const struct setting *setting);
    int fresh; /* measures memory or first touches: no warm-up */
};

struct usage {
    double cpu_s;
    long switches;
};

static struct metric {
    char key[24];
    char unit[8];
    double value;
} peer_metrics[16];
static int peer_metric_count;

static inline int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static inline void pause_thread(int64_t ns)
{
    struct timespec rest = {ns / 1000000000, ns % 1000000000};
    while (nanosleep(&rest, &rest) == -1)
        continue;
}

static inline struct usage usage_of(int who)
{
    struct rusage r;
    getrusage((__typeof__(RUSAGE_SELF))who, &r);
    struct usage usage = {(double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
                              (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6,
                          r.ru_nvcsw + r.ru_nivcsw};
    return usage;
}

/* VmHWM, since the rusage's peak is inherited from whoever has started the program. */
static inline long peak_kib(void)
{
    char line[256];
    long peak = 0;
    FILE *file = fopen("/proc/self/status", "re");
    if (file == NULL)
        abort();
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "VmHWM: %ld", &peak) != 1)
        continue;
    fclose(file);
    return peak;
}

static inline double resident_bytes(void)
{
    long long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL || fscanf(file, "%lld %lld", &total, &resident) != 2)
        abort();
    fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static inline void add_metric(const char *key, double value, const char *unit)
{
    struct metric *metric = &peer_metrics[peer_metric_count++];
    snprintf(metric->key, sizeof metric->key, "%s", key);
    snprintf(metric->unit, sizeof metric->unit, "%s", unit);
    metric->value = value;
}

static inline int compare_int64(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static inline double quantile(int64_t *values, long count, double at)
{
    qsort(values, (size_t)count, sizeof *values, compare_int64);
    return (double)values[(long)(at * (double)(count - 1) + 0.5)];
}

static inline void expect(int ok)
{
    if (!ok) {
        fprintf(stderr, "wrong result\n");
        exit(1);
    }
}

/* xorshift: the same naps of 1 to 1000 ms in every program. */
static inline int64_t next_nap_ms(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return 1 + (int64_t)(*state % 1000);
}

#define NAPS_SEED 88172645463325252u

/* PROGRAM WORKLOAD WORKERS [quick], or --list */
static inline int peer_main(const struct workload *workloads, int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (; workloads->id; workloads++)
            puts(workloads->id);
        return 0;
    }
    while (argc >= 3 && workloads->id && strcmp(workloads->id, argv[1]) != 0)
        workloads++;
    if (argc < 3 || !workloads->id) {
        fprintf(stderr, "usage: %s WORKLOAD WORKERS [quick] | --list\n", argv[0]);
        return 2;
    }
    struct setting setting = {atoi(argv[2]), argc > 3 && strcmp(argv[3], "quick") == 0};
    if (!workloads->fresh)
        workloads->measure(&setting);
    peer_metric_count = 0;
    struct usage before = usage_of(RUSAGE_SELF);
    workloads->measure(&setting);
    struct usage after = usage_of(RUSAGE_SELF);
    long peak = peak_kib();
    for (int i = 0; i < peer_metric_count; i++)
        printf("%s workers=%d value=%.6f unit=%s rss_kb=%ld cpu_s=%.6f ctxsw=%ld\n", peer_metrics[i].key,
               setting.workers, peer_metrics[i].value, peer_metrics[i].unit, peak, after.cpu_s - before.cpu_s,
               after.switches - before.switches);
    return 0;
}

#endif
