/*
 * The micro workloads: what a workload is, and what it reports.
 *
 * Each workload is one function. micro.c runs it in a child process of its own, so that peaks of memory stay
 * apart and a crash or a hang costs one row; the function runs on the child's main thread, which is no task
 * and no worker, and enters the runtime through weft_runtime_run.
 */
#ifndef WEFT_BENCH_MICRO_H
#define WEFT_BENCH_MICRO_H

#include <stdint.h>
#include <weft.h>

enum { METRICS_MAX = 12 };

/* One number that one repeat of a workload measured. */
struct metric {
    char key[24]; /* the workload's id, or id.variant where it measures several things */
    char unit[8];
    double value;
};

/* One repeat; sent from the child to the parent as it is. */
struct sample {
    int error; /* 0, or the negative errno that ended the repeat */
    unsigned count;
    struct metric metrics[METRICS_MAX];
    double wall_s;
    double cpu_s;
    int64_t voluntary;   /* context switches */
    int64_t involuntary; /* context switches */
    int64_t peak_kib;    /* resident, of the child so far */
};

struct setting {
    weft_runtime *runtime; /* NULL for OWN_RUNTIME */
    unsigned workers;
    unsigned cores; /* processors this process may use */
    int quick;      /* smaller sizes where the result does not depend on them */
};

enum {
    OWN_RUNTIME = 1, /* starts what it needs itself */
    FRESH = 2,       /* each repeat in a process of its own, no warm-up: it measures memory or first touches */
    ONE_COUNT = 4,   /* the number of workers is part of the workload: once, not once a count */
    ONE_IN_QUICK = 8 /* takes seconds: a single repeat, and the largest worker count only, with --quick */
};

struct workload {
    const char *id;
    const char *title;
    int (*measure)(const struct setting *setting, struct sample *sample); /* 0 or -errno */
    unsigned flags;
};

extern const struct workload scheduling_workloads[];
extern const struct workload regime_workloads[];
extern const struct workload memory_workloads[];
extern const struct workload connection_workloads[];
extern const struct workload communication_workloads[];
extern const struct workload generator_workloads[];
extern const struct workload timing_workloads[];

/* ---- for the workloads ---- */

void add_metric(struct sample *sample, const char *key, const char *unit, double value);

/* As add_metric, "key.part". */
void add_part(struct sample *sample, const char *key, const char *part, const char *unit, double value);

/* A runtime with so many workers and room for 512 pool threads; 0 or -errno. */
int start_runtime(unsigned workers, weft_runtime **runtime);

/* CPU seconds of the process so far. */
double cpu_seconds(void);

/* Resident bytes of the process now. */
int64_t resident_bytes(void);

/* Sorts the values; quantile 0.5 is the median. */
int64_t quantile(int64_t *values, long count, double quantile);

/* Blocks the calling thread. */
void pause_thread(int64_t ns);

/* A countdown of tasks: the last one sets the event. It must outlive them. */
struct countdown {
    _Atomic long left;
    weft_event over;
};

void count_down(struct countdown *countdown);

/* Spawn `count` tasks of fn(arg), await all of them; the first error, or 0. Task. */
int spawn_and_await(long count, weft_fn *fn, void *arg);

#endif
