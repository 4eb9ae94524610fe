/*
 * Configuration: every knob, from the environment or from code.
 *
 * WEFT_TRACE, WEFT_DUMP_SIGNAL and WEFT_SIGINT, which concern the process, are for the environment only.
 *
 * Order: code wins over the environment, the environment over the defaults; set `environment_wins` to turn
 * the first two around.
 */
#ifndef WEFT_CONFIG_H
#define WEFT_CONFIG_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

enum weft_affinity {
    WEFT_AFFINITY_UNSET = 0,
    WEFT_AFFINITY_NONE = 1, /* workers run where the kernel puts them (default) */
    WEFT_AFFINITY_CORES = 2 /* worker i is bound to the i-th processor the process may use */
};

/*
 * A zeroed structure (WEFT_CONFIG_DEFAULT) means: everything from the environment and the defaults. A field
 * that is zero is not set; where zero itself is a meaning, a constant below says so.
 */
typedef struct weft_config {
    uint32_t workers;               /* WEFT_WORKERS: worker threads, 1…1024 */
    uint32_t blocking_max;          /* WEFT_BLOCKING_MAX: threads of the blocking pool, 1…16384 */
    int64_t blocking_keepalive_ms;  /* WEFT_BLOCKING_KEEPALIVE_MS: an idle pool thread ends after this,
                                       1…86400000 */
    uint64_t blocking_queue;        /* WEFT_BLOCKING_QUEUE: calls that may wait for a pool thread;
                                       WEFT_UNBOUNDED: no limit (default) */
    size_t stack_size;              /* WEFT_STACK_SIZE: bytes of stack a task may use */
    enum weft_affinity affinity;    /* WEFT_AFFINITY */
    int64_t takeover_us;            /* WEFT_TAKEOVER_US: a worker stuck this long in one task is handed to a
                                       spare thread; WEFT_NEVER: off */
    int debug;                      /* WEFT_DEBUG: 1 on, WEFT_OFF off (default) */
    int print_config;               /* WEFT_PRINT_CONFIG: 1 prints what is in force, WEFT_OFF does not */
    int environment_wins;           /* 1: the environment overrides this structure */
    int64_t slow_ms;                /* WEFT_SLOW_MS: in debug mode a task that runs this long without suspending is
                                       named; WEFT_NEVER: none is */
    uint64_t seed;                  /* WEFT_SEED: of the runtime's random choices; 0: from the system */
    /* Called for a task that failed and that nobody awaits, on the thread on which that became known: mostly the
     * worker it ended on. It must not suspend. NULL: a line on stderr in debug mode. */
    void (*on_unseen_failure)(const char *task_name, intptr_t result, void *user);
    void *user;
} weft_config;

#define WEFT_CONFIG_DEFAULT {0}
#define WEFT_UNBOUNDED UINT64_MAX
#define WEFT_NEVER ((int64_t)-1)
#define WEFT_OFF (-1)

/*
 * Fill *config with what the environment and the defaults give: every field set. Returns 0, or -EINVAL if a
 * WEFT_* variable has a bad value: a message on stderr names the variable, its value and what is allowed, and
 * *config is left untouched. Any thread, not a suspension point.
 */
WEFT_API int weft_config_from_env(weft_config *config);

/*
 * Processors this process may use: the smaller of its affinity mask and its cgroup's CPU quota (ancestors
 * too, rounded up), at least 1. The default for WEFT_WORKERS.
 */
WEFT_API unsigned weft_available_processors(void);

WEFT_END_DECLS

#endif
