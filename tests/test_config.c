/*
 * Configuration: every variable and field (the rows of docs/configuration.md), which of them wins, what is refused
 * and how, the printed table; the processors a process may use, read from /proc and /sys trees built in a temporary
 * directory; binding threads.
 *
 * Built with -DWEFT_FUZZ it is a libFuzzer target instead: clang -fsanitize=fuzzer,address.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/config.h"
#include "runtime/cpus.h"

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof *(a))

static const char *const variables[] = {
    "WEFT_WORKERS",        "WEFT_BLOCKING_MAX", "WEFT_BLOCKING_KEEPALIVE_MS",
    "WEFT_BLOCKING_QUEUE", "WEFT_STACK_SIZE",   "WEFT_AFFINITY",
    "WEFT_TAKEOVER_US",    "WEFT_DEBUG",        "WEFT_SLOW_MS",
    "WEFT_PRINT_CONFIG",   "WEFT_SEED",
};

/* ---- arbitrary input ---- */

/* What the parsers accept must be storable, printable and accepted again; the rest only must not crash. */
static void feed_variables(const char *text)
{
    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++) {
        weft_config config = WEFT_CONFIG_DEFAULT;
        int rc = weft__config_parse(variables[i], text, &config);

        if (rc != 0 && rc != -EINVAL)
            abort();
    }
}

static void feed_proc(const char *text)
{
    const char *path = NULL;
    char *line = strdup(text), *root = NULL, *point = NULL;

    if (weft__cpus_parse_membership(text, &path) != WEFT__CGROUP_OTHER && path[0] != '/')
        abort();
    if (weft__cpus_parse_mount(line, &root, &point) != WEFT__CGROUP_OTHER && (root[0] != '/' || point[0] != '/'))
        abort();
    if (weft__cpus_ceiling(weft__cpus_parse_v2(text)) < 1 ||
        weft__cpus_ceiling(weft__cpus_parse_v1(text, text)) < 1)
        abort();
    weft__cpus_below(text, "/../a/b");
    weft__cpus_below("/../a", text);
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    feed_variables(text);
    feed_proc(text);
    free(text);
    return 0;
}

#ifndef WEFT_FUZZ

/* ---- helpers ---- */

static int forget_environment(void **state)
{
    (void)state;
    for (char **entry = environ; *entry != NULL;) {
        char name[256];

        if (strncmp(*entry, "WEFT_", 5) == 0 && sscanf(*entry, "%255[^=]", name) == 1 && unsetenv(name) == 0)
            entry = environ;
        else
            entry++;
    }
    return 0;
}

/* stderr goes to a file between the two calls; `end` returns what was written, to be freed. */
static int saved_stderr = -1;
static FILE *captured;

static void capture_begin(void)
{
    fflush(stderr);
    captured = tmpfile();
    assert_non_null(captured);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(saved_stderr >= 0);
    assert_int_equal(dup2(fileno(captured), STDERR_FILENO), STDERR_FILENO);
}

static char *read_all(FILE *file)
{
    char *text = calloc(1, 16384);

    rewind(file);
    text[fread(text, 1, 16383, file)] = '\0';
    fclose(file);
    return text;
}

static char *capture_end(void)
{
    fflush(stderr);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    return read_all(captured);
}

static void expect_resolve(const weft_config *code, int expected, const char *message)
{
    weft_config effective, untouched;
    char *said;
    int rc;

    memset(&effective, 0x5a, sizeof effective);
    untouched = effective;
    capture_begin();
    rc = weft__config_resolve(code, &effective);
    said = capture_end();
    assert_string_equal(said, message);
    assert_int_equal(rc, expected);
    if (expected != 0)
        assert_memory_equal(&effective, &untouched, sizeof effective);
    free(said);
}

static weft_config resolved(const weft_config *code)
{
    weft_config effective;

    memset(&effective, 0x5a, sizeof effective);
    assert_int_equal(weft__config_resolve(code, &effective), 0);
    return effective;
}

/* A field by the variable's name, in the widest form. */
static uint64_t field(const weft_config *config, const char *variable)
{
    const uint64_t all[] = {
        config->workers,
        config->blocking_max,
        (uint64_t)config->blocking_keepalive_ms,
        config->blocking_queue,
        config->stack_size,
        config->affinity,
        (uint64_t)config->takeover_us,
        (uint64_t)(int64_t)config->debug,
        (uint64_t)config->slow_ms,
        (uint64_t)(int64_t)config->print_config,
        config->seed,
    };

    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++) {
        if (strcmp(variables[i], variable) == 0)
            return all[i];
    }
    fail_msg("no field for %s", variable);
    return 0;
}

/* ---- defaults, the environment, code ---- */

static void defaults_are_the_documented_ones(void **state)
{
    weft_config config = resolved(NULL);

    (void)state;
    assert_int_equal(config.workers, weft_available_processors());
    assert_int_equal(config.blocking_max, 512);
    assert_int_equal(config.blocking_keepalive_ms, 10000);
    assert_true(config.blocking_queue == UINT64_MAX);
    assert_int_equal(config.stack_size, 128 * 1024);
    assert_int_equal(config.affinity, WEFT_AFFINITY_NONE);
    assert_int_equal(config.takeover_us, 2000);
    assert_int_equal(config.debug, 0);
    assert_int_equal(config.slow_ms, 100);
    assert_int_equal(config.print_config, 0);
    assert_int_equal(config.environment_wins, 0);
    assert_true(config.seed != 0);
    assert_null(config.on_unseen_failure);
    assert_null(config.user);
}

static void seeds_from_the_system_differ(void **state)
{
    (void)state;
    assert_true(resolved(NULL).seed != resolved(NULL).seed);
}

struct accepted {
    const char *variable, *text;
    uint64_t plain; /* in force */
    uint64_t code;  /* as weft_config_from_env gives it */
};

#define SAME(value) (value), (value)
#define ALL_ONES UINT64_MAX

static const struct accepted accepted[] = {
    {"WEFT_WORKERS", "1", SAME(1)},
    {"WEFT_WORKERS", "007", SAME(7)},
    {"WEFT_WORKERS", "1024", SAME(1024)},
    {"WEFT_BLOCKING_MAX", "1", SAME(1)},
    {"WEFT_BLOCKING_MAX", "16384", SAME(16384)},
    {"WEFT_BLOCKING_KEEPALIVE_MS", "1", SAME(1)},
    {"WEFT_BLOCKING_KEEPALIVE_MS", "86400000", SAME(86400000)},
    {"WEFT_BLOCKING_QUEUE", "1", SAME(1)},
    {"WEFT_BLOCKING_QUEUE", "1000000000", SAME(1000000000)},
    {"WEFT_BLOCKING_QUEUE", "unbounded", SAME(WEFT_UNBOUNDED)},
    {"WEFT_STACK_SIZE", "65536", SAME(65536)},
    {"WEFT_STACK_SIZE", "64K", SAME(65536)},
    {"WEFT_STACK_SIZE", "64k", SAME(65536)},
    {"WEFT_STACK_SIZE", "2M", SAME(2 << 20)},
    {"WEFT_STACK_SIZE", "2m", SAME(2 << 20)},
    {"WEFT_STACK_SIZE", "1024M", SAME(1 << 30)},
    {"WEFT_STACK_SIZE", "1048576K", SAME(1 << 30)},
    {"WEFT_AFFINITY", "none", SAME(WEFT_AFFINITY_NONE)},
    {"WEFT_AFFINITY", "cores", SAME(WEFT_AFFINITY_CORES)},
    {"WEFT_TAKEOVER_US", "100", SAME(100)},
    {"WEFT_TAKEOVER_US", "3600000000", SAME(3600000000)},
    {"WEFT_TAKEOVER_US", "off", 0, ALL_ONES},
    {"WEFT_TAKEOVER_US", "0", 0, ALL_ONES},
    {"WEFT_DEBUG", "0", 0, ALL_ONES},
    {"WEFT_DEBUG", "1", SAME(1)},
    {"WEFT_SLOW_MS", "1", SAME(1)},
    {"WEFT_SLOW_MS", "3600000", SAME(3600000)},
    {"WEFT_SLOW_MS", "off", 0, ALL_ONES},
    {"WEFT_PRINT_CONFIG", "0", 0, ALL_ONES},
    {"WEFT_PRINT_CONFIG", "1", SAME(1)},
    {"WEFT_SEED", "1", SAME(1)},
    {"WEFT_SEED", "18446744073709551615", SAME(UINT64_MAX)},
};

static void every_variable_takes_what_is_allowed(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(accepted); i++) {
        const struct accepted *row = &accepted[i];
        weft_config from_env, parsed = WEFT_CONFIG_DEFAULT, in_force;

        setenv(row->variable, row->text, 1);
        in_force = resolved(NULL);
        assert_true(field(&in_force, row->variable) == row->plain);
        assert_int_equal(weft_config_from_env(&from_env), 0);
        assert_true(field(&from_env, row->variable) == row->code);
        assert_int_equal(weft__config_parse(row->variable, row->text, &parsed), 0);
        assert_true(field(&parsed, row->variable) == row->code);
        unsetenv(row->variable);

        /* What the environment gave is, as code, in force unchanged. */
        in_force = resolved(&from_env);
        assert_true(field(&in_force, row->variable) == row->plain);
    }
}

static void stack_size_is_rounded_up_to_pages(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    weft_config code = {.stack_size = 1000001};

    (void)state;
    setenv("WEFT_STACK_SIZE", "1000001", 1);
    assert_int_equal(resolved(NULL).stack_size, (1000001 + page - 1) / page * page);
    unsetenv("WEFT_STACK_SIZE");
    assert_int_equal(resolved(&code).stack_size, (1000001 + page - 1) / page * page);
    setenv("WEFT_STACK_SIZE", "16K", 1);
    assert_int_equal(resolved(NULL).stack_size, page > 16384 ? page : 16384);
}

static void seed_zero_is_from_the_system(void **state)
{
    weft_config config;

    (void)state;
    setenv("WEFT_SEED", "0", 1);
    assert_true(resolved(NULL).seed != 0);
    assert_int_equal(weft_config_from_env(&config), 0);
    assert_int_equal(config.seed, 0);
}

static void empty_variable_is_not_set(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++)
        setenv(variables[i], "", 1);
    defaults_are_the_documented_ones(state);
}

static void from_env_sets_every_field(void **state)
{
    weft_config config;

    (void)state;
    memset(&config, 0x5a, sizeof config);
    assert_int_equal(weft_config_from_env(&config), 0);
    assert_int_equal(config.workers, weft_available_processors());
    assert_int_equal(config.blocking_max, 512);
    assert_int_equal(config.blocking_keepalive_ms, 10000);
    assert_true(config.blocking_queue == WEFT_UNBOUNDED);
    assert_int_equal(config.stack_size, 128 * 1024);
    assert_int_equal(config.affinity, WEFT_AFFINITY_NONE);
    assert_int_equal(config.takeover_us, 2000);
    assert_int_equal(config.debug, WEFT_OFF);
    assert_int_equal(config.print_config, WEFT_OFF);
    assert_int_equal(config.environment_wins, 0);
    assert_int_equal(config.seed, 0);
    assert_null(config.on_unseen_failure);
    assert_null(config.user);
    assert_int_equal(weft_config_from_env(NULL), -EINVAL);
}

static const weft_config code_config = {
    .workers = 3,
    .blocking_max = 5,
    .blocking_keepalive_ms = 7,
    .blocking_queue = 11,
    .stack_size = 1 << 20,
    .affinity = WEFT_AFFINITY_CORES,
    .takeover_us = 13000,
    .debug = WEFT_OFF,
    .slow_ms = 19,
    .print_config = 1,
    .seed = 17,
};

static void set_other_environment(void)
{
    setenv("WEFT_WORKERS", "4", 1);
    setenv("WEFT_BLOCKING_MAX", "6", 1);
    setenv("WEFT_BLOCKING_KEEPALIVE_MS", "8", 1);
    setenv("WEFT_BLOCKING_QUEUE", "unbounded", 1);
    setenv("WEFT_STACK_SIZE", "2M", 1);
    setenv("WEFT_AFFINITY", "none", 1);
    setenv("WEFT_TAKEOVER_US", "off", 1);
    setenv("WEFT_DEBUG", "1", 1);
    setenv("WEFT_SLOW_MS", "20", 1);
    setenv("WEFT_PRINT_CONFIG", "0", 1);
    setenv("WEFT_SEED", "18", 1);
}

static void expect_values(weft_config config, const uint64_t expected[])
{
    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++) {
        if (field(&config, variables[i]) != expected[i])
            fail_msg("%s is %llu, not %llu", variables[i], (unsigned long long)field(&config, variables[i]),
                     (unsigned long long)expected[i]);
    }
}

static const uint64_t code_values[] = {3, 5, 7, 11, 1 << 20, WEFT_AFFINITY_CORES, 13000, 0, 19, 1, 17};
static const uint64_t environment_values[] = {4, 6, 8, UINT64_MAX, 2 << 20, WEFT_AFFINITY_NONE, 0, 1, 20, 0, 18};

static void code_wins_over_the_environment(void **state)
{
    (void)state;
    expect_values(resolved(&code_config), code_values);
    set_other_environment();
    expect_values(resolved(&code_config), code_values);
    expect_values(resolved(NULL), environment_values);
}

static void environment_wins_if_the_program_says_so(void **state)
{
    weft_config code = code_config;

    (void)state;
    code.environment_wins = 1;
    expect_values(resolved(&code), code_values);
    set_other_environment();
    expect_values(resolved(&code), environment_values);
    assert_int_equal(resolved(&code).environment_wins, 1);
}

static void constants_from_code_become_plain_values(void **state)
{
    weft_config code = {
        .blocking_queue = WEFT_UNBOUNDED, .takeover_us = WEFT_NEVER, .debug = WEFT_OFF, .print_config = WEFT_OFF};
    weft_config config;

    (void)state;
    setenv("WEFT_BLOCKING_QUEUE", "10", 1);
    setenv("WEFT_TAKEOVER_US", "5000", 1);
    setenv("WEFT_DEBUG", "1", 1);
    setenv("WEFT_PRINT_CONFIG", "1", 1);
    config = resolved(&code);
    assert_true(config.blocking_queue == UINT64_MAX);
    assert_int_equal(config.takeover_us, 0);
    assert_int_equal(config.debug, 0);
    assert_int_equal(config.print_config, 0);
}

static void on_failure(const char *name, intptr_t result, void *user)
{
    (void)name, (void)result, (void)user;
}

static void the_callback_and_its_argument_are_kept(void **state)
{
    int user;
    weft_config code = {.on_unseen_failure = on_failure, .user = &user};
    weft_config config = resolved(&code);

    (void)state;
    assert_true(config.on_unseen_failure == on_failure);
    assert_ptr_equal(config.user, &user);
}

/* ---- what is refused ---- */

#define WORKERS_ALLOWED "a whole number from 1 to 1024"
#define MAX_ALLOWED "a whole number from 1 to 16384"
#define KEEPALIVE_ALLOWED "milliseconds from 1 to 86400000"
#define QUEUE_ALLOWED "a whole number from 1 to 1000000000, or unbounded"
#define STACK_ALLOWED "bytes from 16K to 1024M, as a whole number or one followed by K or M"
#define AFFINITY_ALLOWED "none or cores"
#define TAKEOVER_ALLOWED "microseconds from 100 to 3600000000, or off (or 0)"
#define SWITCH_ALLOWED "0 or 1"
#define SLOW_ALLOWED "milliseconds from 1 to 3600000, or off"
#define SEED_ALLOWED "a whole number from 0 to 18446744073709551615; 0 takes one from the system"

static const struct {
    const char *variable, *text, *allowed;
} refused[] = {
    {"WEFT_WORKERS", "0", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "1025", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "-1", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "+1", WORKERS_ALLOWED},
    {"WEFT_WORKERS", " 1", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "1 ", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "1.5", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "0x10", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "1K", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "four", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "4294967297", WORKERS_ALLOWED},
    {"WEFT_WORKERS", "18446744073709551617", WORKERS_ALLOWED},
    {"WEFT_BLOCKING_MAX", "0", MAX_ALLOWED},
    {"WEFT_BLOCKING_MAX", "16385", MAX_ALLOWED},
    {"WEFT_BLOCKING_KEEPALIVE_MS", "0", KEEPALIVE_ALLOWED},
    {"WEFT_BLOCKING_KEEPALIVE_MS", "86400001", KEEPALIVE_ALLOWED},
    {"WEFT_BLOCKING_QUEUE", "0", QUEUE_ALLOWED},
    {"WEFT_BLOCKING_QUEUE", "1000000001", QUEUE_ALLOWED},
    {"WEFT_BLOCKING_QUEUE", "18446744073709551615", QUEUE_ALLOWED},
    {"WEFT_BLOCKING_QUEUE", "Unbounded", QUEUE_ALLOWED},
    {"WEFT_STACK_SIZE", "16383", STACK_ALLOWED},
    {"WEFT_STACK_SIZE", "15K", STACK_ALLOWED},
    {"WEFT_STACK_SIZE", "1025M", STACK_ALLOWED},
    {"WEFT_STACK_SIZE", "1073741825", STACK_ALLOWED},
    {"WEFT_STACK_SIZE", "1G", STACK_ALLOWED},
    {"WEFT_STACK_SIZE", "64KB", STACK_ALLOWED},
    {"WEFT_STACK_SIZE", "K", STACK_ALLOWED},
    {"WEFT_STACK_SIZE", "18014398509481985K", STACK_ALLOWED}, /* 2^64 + 1024 bytes */
    {"WEFT_AFFINITY", "1", AFFINITY_ALLOWED},
    {"WEFT_AFFINITY", "Cores", AFFINITY_ALLOWED},
    {"WEFT_TAKEOVER_US", "99", TAKEOVER_ALLOWED},
    {"WEFT_TAKEOVER_US", "3600000001", TAKEOVER_ALLOWED},
    {"WEFT_TAKEOVER_US", "never", TAKEOVER_ALLOWED},
    {"WEFT_DEBUG", "2", SWITCH_ALLOWED},
    {"WEFT_DEBUG", "yes", SWITCH_ALLOWED},
    {"WEFT_SLOW_MS", "0", SLOW_ALLOWED},
    {"WEFT_SLOW_MS", "3600001", SLOW_ALLOWED},
    {"WEFT_SLOW_MS", "never", SLOW_ALLOWED},
    {"WEFT_PRINT_CONFIG", "2", SWITCH_ALLOWED},
    {"WEFT_PRINT_CONFIG", "on", SWITCH_ALLOWED},
    {"WEFT_SEED", "18446744073709551616", SEED_ALLOWED},
    {"WEFT_SEED", "random", SEED_ALLOWED},
};

static void bad_variable_is_refused_by_name_value_and_what_is_allowed(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++) {
        weft_config parsed = code_config;
        char message[256];

        snprintf(message, sizeof message, "weft: %s=\"%s\" is refused; allowed: %s\n", refused[i].variable,
                 refused[i].text, refused[i].allowed);
        setenv(refused[i].variable, refused[i].text, 1);
        expect_resolve(NULL, -EINVAL, message);
        unsetenv(refused[i].variable);
        assert_int_equal(weft__config_parse(refused[i].variable, refused[i].text, &parsed), -EINVAL);
        assert_memory_equal(&parsed, &code_config, sizeof parsed);
    }
}

static void every_bad_value_is_reported_and_nothing_is_applied(void **state)
{
    weft_config code = {.workers = 5000, .debug = 2};
    weft_config config, untouched;
    char *said;

    (void)state;
    setenv("WEFT_BLOCKING_MAX", "64", 1);
    setenv("WEFT_STACK_SIZE", "8K", 1);
    setenv("WEFT_AFFINITY", "all", 1);
    expect_resolve(&code, -EINVAL,
                   "weft: weft_config.workers = 5000 is refused; allowed: " WORKERS_ALLOWED "; 0 is not set\n"
                   "weft: WEFT_STACK_SIZE=\"8K\" is refused; allowed: " STACK_ALLOWED "\n"
                   "weft: WEFT_AFFINITY=\"all\" is refused; allowed: " AFFINITY_ALLOWED "\n"
                   "weft: weft_config.debug = 2 is refused; allowed: 0 or 1 (WEFT_OFF); 0 is not set\n");

    memset(&config, 0x5a, sizeof config);
    untouched = config;
    capture_begin();
    assert_int_equal(weft_config_from_env(&config), -EINVAL);
    said = capture_end();
    assert_string_equal(said, "weft: WEFT_STACK_SIZE=\"8K\" is refused; allowed: " STACK_ALLOWED "\n"
                              "weft: WEFT_AFFINITY=\"all\" is refused; allowed: " AFFINITY_ALLOWED "\n");
    assert_memory_equal(&config, &untouched, sizeof config);
    free(said);
}

/* Those that only the environment has. */
static void bad_variable_of_the_process_is_refused(void **state)
{
    (void)state;
    setenv("WEFT_SIGINT", "yes", 1);
    expect_resolve(NULL, -EINVAL, "weft: WEFT_SIGINT=\"yes\" is refused; allowed: on or off\n");
    unsetenv("WEFT_SIGINT");
    setenv("WEFT_DUMP_SIGNAL", "KILL", 1);
    expect_resolve(NULL, -EINVAL,
                   "weft: WEFT_DUMP_SIGNAL=\"KILL\" is refused; allowed: USR1, USR2, HUP, QUIT or off\n");
    setenv("WEFT_DUMP_SIGNAL", "USR1", 1);
    setenv("WEFT_SIGINT", "off", 1);
    setenv("WEFT_TRACE", "anything", 1);
    setenv("WEFT_DEBUG", "1", 1);
    expect_resolve(NULL, 0, "");
    assert_int_equal(weft__config_dump_signal(), SIGUSR1);
    assert_int_equal(weft__config_takes_sigint(), 0);
    assert_string_equal(weft__config_trace_file(), "anything");
    unsetenv("WEFT_DUMP_SIGNAL");
    setenv("WEFT_SIGINT", "", 1);
    setenv("WEFT_TRACE", "", 1);
    assert_int_equal(weft__config_dump_signal(), 0);
    assert_int_equal(weft__config_takes_sigint(), 1);
    assert_null(weft__config_trace_file());
}

static void bad_variable_is_refused_even_if_code_would_win(void **state)
{
    weft_config code = {.workers = 2};

    (void)state;
    setenv("WEFT_WORKERS", "none", 1);
    expect_resolve(&code, -EINVAL, "weft: WEFT_WORKERS=\"none\" is refused; allowed: " WORKERS_ALLOWED "\n");
}

static void bad_value_from_code_is_refused_by_field(void **state)
{
    static const struct {
        weft_config code;
        const char *message;
    } rows[] = {
        {{.workers = 1025}, "workers = 1025 is refused; allowed: " WORKERS_ALLOWED "; 0 is not set\n"},
        {{.blocking_max = 16385}, "blocking_max = 16385 is refused; allowed: " MAX_ALLOWED "; 0 is not set\n"},
        {{.blocking_keepalive_ms = -1},
         "blocking_keepalive_ms = -1 is refused; allowed: " KEEPALIVE_ALLOWED "; 0 is not set\n"},
        {{.blocking_queue = 1000000001},
         "blocking_queue = 1000000001 is refused; allowed: " QUEUE_ALLOWED " (WEFT_UNBOUNDED); 0 is not set\n"},
        {{.stack_size = 16383}, "stack_size = 16383 is refused; allowed: " STACK_ALLOWED "; 0 is not set\n"},
        {{.stack_size = (1 << 30) + 1},
         "stack_size = 1073741825 is refused; allowed: " STACK_ALLOWED "; 0 is not set\n"},
        {{.affinity = (enum weft_affinity)3}, "affinity = 3 is refused; allowed: none or cores; 0 is not set\n"},
        {{.takeover_us = 99},
         "takeover_us = 99 is refused; allowed: " TAKEOVER_ALLOWED " (WEFT_NEVER); 0 is not set\n"},
        {{.takeover_us = -2},
         "takeover_us = -2 is refused; allowed: " TAKEOVER_ALLOWED " (WEFT_NEVER); 0 is not set\n"},
        {{.debug = 2}, "debug = 2 is refused; allowed: 0 or 1 (WEFT_OFF); 0 is not set\n"},
        {{.print_config = -2}, "print_config = -2 is refused; allowed: 0 or 1 (WEFT_OFF); 0 is not set\n"},
        {{.environment_wins = 2}, "environment_wins = 2 is refused; allowed: 0 or 1\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        char message[256];

        snprintf(message, sizeof message, "weft: weft_config.%s", rows[i].message);
        expect_resolve(&rows[i].code, -EINVAL, message);
    }
}

static void a_long_or_unprintable_value_does_not_spoil_the_message(void **state)
{
    char value[1000];

    (void)state;
    memset(value, 'x', sizeof value);
    memcpy(value, "\033[2J\n", 5);
    value[sizeof value - 1] = '\0';
    setenv("WEFT_DEBUG", value, 1);
    expect_resolve(
        NULL, -EINVAL,
        "weft: WEFT_DEBUG=\"?[2J?xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\" is refused; "
        "allowed: 0 or 1\n");
}

static void parse_does_not_know_other_variables(void **state)
{
    weft_config config = WEFT_CONFIG_DEFAULT;

    (void)state;
    assert_int_equal(weft__config_parse("WEFT_WORKER", "1", &config), -ENOENT);
    assert_int_equal(weft__config_parse("", "1", &config), -ENOENT);
}

static void arbitrary_text_is_parsed_or_refused(void **state)
{
    static const char alphabet[] = "0123456789KMkm:/.,- \\\n04fnuboxagrpcu2";
    unsigned seed = 1;

    (void)state;
    for (int i = 0; i < 50000; i++) {
        uint8_t text[40];
        size_t length = (size_t)rand_r(&seed) % sizeof text;

        for (size_t j = 0; j < length; j++)
            text[j] = (uint8_t)alphabet[(size_t)rand_r(&seed) % (sizeof alphabet - 1)];
        LLVMFuzzerTestOneInput(text, length);
    }
}

/* ---- misspelt variables ---- */

static void unknown_variables_are_named_in_debug_mode_only(void **state)
{
    (void)state;
    setenv("WEFT_WORKER", "4", 1);
    expect_resolve(NULL, 0, "");
    setenv("WEFT_DEBUG", "1", 1);
    expect_resolve(NULL, 0,
                   "weft: WEFT_WORKER is not a variable of weft and has no effect; the nearest is WEFT_WORKERS\n");
    unsetenv("WEFT_WORKER");
    setenv("WEFT_TAKEOVR_US", "4", 1);
    expect_resolve(
        NULL, 0,
        "weft: WEFT_TAKEOVR_US is not a variable of weft and has no effect; the nearest is WEFT_TAKEOVER_US\n");
    setenv("WEFT_TAKEOVR_US", "", 1);
    expect_resolve(NULL, 0, "");
}

static void variables_of_tests_and_benchmarks_are_not_looked_at(void **state)
{
    (void)state;
    setenv("WEFT_DEBUG", "1", 1);
    setenv("WEFT_BENCH_THING", "1", 1);
    setenv("WEFT_TEST_THING", "1", 1);
    expect_resolve(NULL, 0, "");
}

/* ---- the printed table ---- */

static char *printed(const weft_config *code)
{
    weft_config effective = resolved(code);
    FILE *out = tmpfile();

    assert_non_null(out);
    weft__config_print(code, &effective, out);
    return read_all(out);
}

static void the_table_shows_value_and_origin(void **state)
{
    weft_config code = {.workers = 3, .blocking_max = 5, .takeover_us = WEFT_NEVER};
    char *text;

    (void)state;
    setenv("WEFT_BLOCKING_MAX", "6", 1);
    setenv("WEFT_STACK_SIZE", "262145", 1);
    setenv("WEFT_SEED", "42", 1);
    setenv("WEFT_AFFINITY", "cores", 1);
    setenv("WEFT_DUMP_SIGNAL", "QUIT", 1);
    text = printed(&code);
    if (sysconf(_SC_PAGESIZE) == 4096)
        assert_string_equal(text, "weft: variable                     value                from\n"
                                  "weft: WEFT_WORKERS                 3                    code\n"
                                  "weft: WEFT_BLOCKING_MAX            5                    code, over environment\n"
                                  "weft: WEFT_BLOCKING_KEEPALIVE_MS   10000                default\n"
                                  "weft: WEFT_BLOCKING_QUEUE          unbounded            default\n"
                                  "weft: WEFT_STACK_SIZE              260K                 environment\n"
                                  "weft: WEFT_AFFINITY                cores                environment\n"
                                  "weft: WEFT_TAKEOVER_US             off                  code\n"
                                  "weft: WEFT_DEBUG                   0                    default\n"
                                  "weft: WEFT_SLOW_MS                 100                  default\n"
                                  "weft: WEFT_PRINT_CONFIG            0                    default\n"
                                  "weft: WEFT_SEED                    42                   environment\n"
                                  "weft: WEFT_TRACE                                        default\n"
                                  "weft: WEFT_DUMP_SIGNAL             QUIT                 environment\n"
                                  "weft: WEFT_SIGINT                  on                   default\n");
    free(text);

    code.environment_wins = 1;
    text = printed(&code);
    assert_non_null(
        strstr(text, "weft: WEFT_BLOCKING_MAX            6                    environment, over code\n"));
    free(text);
}

static void the_table_explains_the_default_number_of_workers(void **state)
{
    struct weft__cpus cpus;
    char *text = printed(NULL), expected[192], share[64] = "no cgroup quota";

    (void)state;
    weft__cpus_read(&cpus);
    if (cpus.quota.period_us != 0)
        snprintf(share, sizeof share, "cgroup %.4g → %u",
                 (double)cpus.quota.quota_us / (double)cpus.quota.period_us, weft__cpus_ceiling(cpus.quota));
    snprintf(expected, sizeof expected, "WEFT_WORKERS                 %-20u default: affinity %u, %s\n",
             cpus.usable, cpus.affinity, share);
    assert_non_null(strstr(text, expected));
    assert_non_null(strstr(text, " default: from the system\n"));
    free(text);
}

static void what_the_table_prints_the_variables_accept(void **state)
{
    char *text, *at, variable[64], value[64];
    weft_config code = {
        .workers = 3, .blocking_queue = 9, .stack_size = 3 << 20, .takeover_us = WEFT_NEVER, .seed = 5};
    weft_config before = resolved(&code), after;
    int rows = 0;

    (void)state;
    text = printed(&code);
    for (at = strchr(text, '\n') + 1; sscanf(at, "weft: %63s %63s", variable, value) == 2;
         at = strchr(at, '\n') + 1) {
        /* One that is empty shows where that comes from. */
        setenv(variable, strcmp(value, "default") == 0 ? "" : value, 1);
        rows++;
    }
    free(text);
    assert_int_equal(rows, ARRAY_LENGTH(variables) + 3); /* those that only the environment has */
    after = resolved(NULL);
    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++)
        assert_true(field(&after, variables[i]) == field(&before, variables[i]));
}

/* ---- quotas: the pure parts ---- */

static void quota_of(const char *cpu_max, uint64_t quota, uint64_t period)
{
    struct weft__cpu_quota limit = weft__cpus_parse_v2(cpu_max);

    assert_true(limit.quota_us == quota && limit.period_us == period);
}

static void cpu_max_is_read_or_is_no_limit(void **state)
{
    (void)state;
    quota_of("150000 100000\n", 150000, 100000);
    quota_of("150000 100000", 150000, 100000);
    quota_of("max 100000\n", 0, 0);
    quota_of("", 0, 0);
    quota_of("0 100000\n", 0, 0);
    quota_of("150000 0\n", 0, 0);
    quota_of("150000\n", 0, 0);
    quota_of("150000 100000 7\n", 0, 0);
    quota_of("-1 100000\n", 0, 0);
    quota_of("99999999999999999999 1\n", 0, 0);
    assert_int_equal(weft__cpus_parse_v1("-1\n", "100000\n").period_us, 0);
    assert_int_equal(weft__cpus_parse_v1("50000\n", "").period_us, 0);
    assert_int_equal(weft__cpus_parse_v1("50000\n", "100000\n").quota_us, 50000);
}

static void quota_is_rounded_up_to_at_least_one(void **state)
{
    (void)state;
    assert_int_equal(weft__cpus_ceiling((struct weft__cpu_quota){1000, 100000}), 1);
    assert_int_equal(weft__cpus_ceiling((struct weft__cpu_quota){100000, 100000}), 1);
    assert_int_equal(weft__cpus_ceiling((struct weft__cpu_quota){100001, 100000}), 2);
    assert_int_equal(weft__cpus_ceiling((struct weft__cpu_quota){800000, 100000}), 8);
    assert_true(weft__cpus_ceiling((struct weft__cpu_quota){0, 0}) == UINT_MAX);
    assert_true(weft__cpus_ceiling((struct weft__cpu_quota){UINT64_MAX, 1}) == UINT_MAX);
}

static void the_tighter_quota_is_the_smaller_share(void **state)
{
    const struct weft__cpu_quota none = {0, 0}, half = {5000, 10000}, more = {60000, 100000};
    const struct weft__cpu_quota huge = {UINT64_MAX, 2}, larger = {UINT64_MAX, 1};

    (void)state;
    assert_int_equal(weft__cpus_tighter(half, more).period_us, 10000);
    assert_int_equal(weft__cpus_tighter(more, half).period_us, 10000);
    assert_int_equal(weft__cpus_tighter(none, more).period_us, 100000);
    assert_int_equal(weft__cpus_tighter(more, none).period_us, 100000);
    assert_int_equal(weft__cpus_tighter(none, none).period_us, 0);
    assert_int_equal(weft__cpus_tighter(larger, huge).period_us, 2);
}

static void below(const char *mount_root, const char *path, const char *expected)
{
    const char *got = weft__cpus_below(mount_root, path);

    if (expected == NULL)
        assert_null(got);
    else
        assert_string_equal(got, expected);
}

static void a_path_is_taken_relative_to_the_mounted_group(void **state)
{
    (void)state;
    below("/", "/", "");
    below("/", "/a/b", "/a/b");
    below("/a", "/a", "");
    below("/a", "/a/b/c", "/b/c");
    below("/a", "/ab", NULL);
    below("/a", "/", NULL);
    below("/a", "/b", NULL);
    /* inside a cgroup namespace */
    below("/..", "/..", "");
    below("/..", "/../x/y", "/x/y");
    below("/../x", "/../x/y", "/y");
    below("/../x", "/../xy", NULL);
    below("/../..", "/", "");
    below("/../..", "/a", "");
    below("/../..", "/../a", "");
    below("/../x", "/", NULL);
    below("/", "/..", NULL);
    below("/", "/../x", NULL);
    below("/", "/..x", "/..x");
}

/* ---- quotas: trees of files ---- */

static char tree[] = "/tmp/weft-test-config-XXXXXX";

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static int tree_begin(void **state)
{
    (void)state;
    strcpy(tree + strlen(tree) - 6, "XXXXXX");
    return mkdtemp(tree) == NULL ? -1 : 0;
}

static int tree_end(void **state)
{
    (void)state;
    return nftw(tree, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
    char full[8192];
    FILE *file;

    snprintf(full, sizeof full, "%s%s", tree, path);
    for (char *slash = full + strlen(tree) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void expect_quota(uint64_t quota, uint64_t period)
{
    struct weft__cpu_quota limit = weft__cpus_quota(tree);

    if (limit.quota_us != quota || limit.period_us != period)
        fail_msg("quota is %llu/%llu, not %llu/%llu", (unsigned long long)limit.quota_us,
                 (unsigned long long)limit.period_us, (unsigned long long)quota, (unsigned long long)period);
}

#define V2_MOUNT(root, point) "30 24 0:26 " root " " point " rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNT(root, point) "33 25 0:29 " root " " point " rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
#define OTHER_MOUNTS "24 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n25 24 0:5 / /proc rw - proc proc rw\n"

static void v2_quota_is_found(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/app/cpu.max", "150000 100000\n");
    expect_quota(150000, 100000);
}

static void v2_max_is_no_limit(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/app/cpu.max", "max 100000\n");
    expect_quota(0, 0);
}

static void a_tighter_ancestor_counts(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/b/c\n");
    put("/proc/self/mountinfo", V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/a/b/c/cpu.max", "400000 100000\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "25000 10000\n");
    expect_quota(25000, 10000);
    put("/sys/fs/cgroup/a/b/cpu.max", "50000 50000\n");
    expect_quota(50000, 50000);
    put("/sys/fs/cgroup/cpu.max", "10000 100000\n"); /* the mount's own group, a container's */
    expect_quota(10000, 100000);
}

static void v1_quota_is_found_under_its_controller(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "5:memory:/m\n4:cpuset:/s\n3:cpu,cpuacct:/app/inner\n1:name=systemd:/x\n");
    put("/proc/self/mountinfo", "32 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" V1_MOUNT(
                                    "/", "/sys/fs/cgroup/cpu,cpuacct"));
    put("/sys/fs/cgroup/cpu,cpuacct/app/inner/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/inner/cpu.cfs_period_us", "100000\n");
    expect_quota(0, 0);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "250000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
    expect_quota(250000, 100000);
    /* what lies under another controller is not looked at */
    put("/sys/fs/cgroup/cpuset/s/cpu.cfs_quota_us", "1000\n");
    put("/sys/fs/cgroup/cpuset/s/cpu.cfs_period_us", "100000\n");
    expect_quota(250000, 100000);
}

static void hybrid_takes_the_tighter_of_both(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "3:cpu,cpuacct:/one\n0::/two\n");
    put("/proc/self/mountinfo",
        V1_MOUNT("/", "/sys/fs/cgroup/cpu") V2_MOUNT("/", "/sys/fs/cgroup/unified") OTHER_MOUNTS);
    put("/sys/fs/cgroup/cpu/one/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu/one/cpu.cfs_period_us", "100000\n");
    expect_quota(300000, 100000); /* the usual hybrid: no cpu controller in v2 */
    put("/sys/fs/cgroup/unified/two/cpu.max", "200000 100000\n");
    expect_quota(200000, 100000);
}

static void mount_of_a_group_below_the_root_is_followed(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "3:cpu:/docker/abc/inner\n");
    put("/proc/self/mountinfo", V1_MOUNT("/docker/abc", "/sys/fs/cgroup/cpu"));
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    expect_quota(50000, 100000);
    put("/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "20000\n");
    put("/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "100000\n");
    expect_quota(20000, 100000);
}

static void mount_of_another_group_is_passed_over(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/docker/abc\n");
    put("/proc/self/mountinfo", V2_MOUNT("/docker/other", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    expect_quota(0, 0);
}

static void namespaced_paths_are_followed_as_far_as_names_are_known(void **state)
{
    (void)state;
    /* in the namespace's root group, which is also what is mounted */
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/cpu.max", "70000 100000\n");
    expect_quota(70000, 100000);
    /* mounted from two groups above the namespace: the names in between cannot be known */
    put("/proc/self/mountinfo", V2_MOUNT("/../..", "/sys/fs/cgroup"));
    expect_quota(70000, 100000);
    /* moved to a sibling of the namespace's root, seen through a mount of their parent */
    put("/proc/self/cgroup", "0::/../sibling\n");
    put("/proc/self/mountinfo", V2_MOUNT("/..", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/sibling/cpu.max", "60000 100000\n");
    expect_quota(60000, 100000);
    /* outside of what is mounted: nothing can be seen, and no path is followed out of the mount */
    put("/proc/self/mountinfo", V2_MOUNT("/", "/sys/fs/cgroup/inside"));
    expect_quota(0, 0);
}

static void group_that_is_not_there_leaves_its_ancestors(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/gone (deleted)\n");
    put("/proc/self/mountinfo", V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/a/cpu.max", "90000 100000\n");
    expect_quota(90000, 100000);
}

static void mount_point_may_hold_spaces_and_a_path_colons(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a:b c\n");
    put("/proc/self/mountinfo", V2_MOUNT("/", "/mnt/my\\040groups\\134"));
    put("/mnt/my groups\\/a:b c/cpu.max", "90000 100000\n");
    expect_quota(90000, 100000);
}

static void hierarchy_mounted_at_the_root_directory_is_read(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", V2_MOUNT("/", "/"));
    put("/a/cpu.max", "90000 100000\n");
    expect_quota(90000, 100000);
    put("/cpu.max", "80000 100000\n");
    expect_quota(80000, 100000);
}

static void missing_files_are_no_limit(void **state)
{
    (void)state;
    expect_quota(0, 0);
    put("/proc/self/mountinfo", V2_MOUNT("/", "/sys/fs/cgroup") V1_MOUNT("/", "/sys/fs/cgroup/cpu"));
    put("/sys/fs/cgroup/cpu.max", "90000 100000\n");
    expect_quota(0, 0);
    put("/proc/self/cgroup", "4:cpu:/app\n");
    put("/sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "90000\n"); /* and no period */
    expect_quota(0, 0);
}

static void broken_lines_and_endless_ones_are_passed_over(void **state)
{
    char *lines = calloc(1, 200000), *at = lines;

    (void)state;
    at += sprintf(at, "\n-\n - \nx:y\n1 2 3 4 - cgroup2 cgroup2 rw\n1 2 3 / /nowhere rw - cgroup2\n");
    at += sprintf(at, "40 24 0:40 / /overlay rw - overlay overlay rw,lowerdir=");
    memset(at, 'l', 100000);
    at += 100000;
    sprintf(at, "\n%s", V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/proc/self/cgroup", "junk\n:\n0:\n0::relative\n0::/app\n");
    put("/proc/self/mountinfo", lines);
    put("/sys/fs/cgroup/app/cpu.max", "90000 100000\n");
    expect_quota(90000, 100000);
    free(lines);
}

static void mount_table_longer_than_the_buffer_is_read_to_its_end(void **state)
{
    char *lines = calloc(1, 200000), *at = lines;

    (void)state;
    for (int i = 0; i < 1000; i++)
        at += sprintf(at, "%d 24 0:%d / /run/mount/number/%d rw,relatime shared:%d - tmpfs tmpfs rw\n", i, i, i, i);
    sprintf(at, "%s", V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", lines);
    put("/sys/fs/cgroup/app/cpu.max", "90000 100000\n");
    expect_quota(90000, 100000);
    free(lines);
}

static void put_deep_group(int depth)
{
    char line[9000] = "0::", *at = line + 3;

    for (int i = 0; i < depth; i++)
        at = stpcpy(at, "/a");
    strcpy(at, "\n");
    put("/proc/self/cgroup", line);
}

static void path_longer_than_any_buffer_is_no_limit(void **state)
{
    (void)state;
    put("/proc/self/mountinfo", V2_MOUNT("/", "/sys/fs/cgroup"));
    put("/sys/fs/cgroup/cpu.max", "90000 100000\n");
    put_deep_group(2040); /* fits, but its own files have no room: its ancestors still count */
    expect_quota(90000, 100000);
    put_deep_group(2044); /* fits a line, not together with the mount point */
    expect_quota(0, 0);
    put_deep_group(4000);
    expect_quota(0, 0);
}

/* ---- the affinity mask; each in a process of its own, since binding is remembered ---- */

static void in_child(int (*body)(void))
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(body());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

struct bound {
    unsigned index;
    int rc, processor;
    int count; /* of the thread's mask afterwards */
    unsigned available;
};

static void *bind_and_look(void *arg)
{
    struct bound *bound = arg;
    cpu_set_t mask;

    bound->rc = weft__config_bind_thread(WEFT_AFFINITY_CORES, bound->index);
    bound->processor = sched_getcpu();
    sched_getaffinity(0, sizeof mask, &mask);
    bound->count = CPU_COUNT(&mask);
    bound->available = weft_available_processors();
    return NULL;
}

static int nth_processor(const cpu_set_t *mask, unsigned n)
{
    int processor = 0;

    while (!CPU_ISSET(processor, mask) || n-- > 0)
        processor++;
    return processor;
}

static int check_threads_go_round(void)
{
    cpu_set_t mask;
    unsigned count, available = weft_available_processors();

    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        return 1;
    count = (unsigned)CPU_COUNT(&mask);
    for (unsigned i = 0; i < 2 * count + 1; i++) {
        struct bound bound = {.index = i};
        pthread_t thread;

        if (pthread_create(&thread, NULL, bind_and_look, &bound) != 0 || pthread_join(thread, NULL) != 0)
            return 2;
        if (bound.rc != 0 || bound.count != 1 || bound.processor != nth_processor(&mask, i % count))
            return 3;
        if (bound.available != available)
            return 4;
    }
    return 0;
}

static void workers_go_round_the_processors_of_the_mask(void **state)
{
    (void)state;
    in_child(check_threads_go_round);
}

static int check_narrow_mask(void)
{
    cpu_set_t mask;
    int last;

    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        return 1;
    last = nth_processor(&mask, (unsigned)CPU_COUNT(&mask) - 1);
    CPU_ZERO(&mask);
    CPU_SET(last, &mask);
    if (sched_setaffinity(0, sizeof mask, &mask) != 0)
        return 2;
    if (weft_available_processors() != 1 || resolved(NULL).workers != 1)
        return 3;
    if (weft__config_bind_thread(WEFT_AFFINITY_CORES, 5) != 0 || sched_getcpu() != last)
        return 4;
    return 0;
}

static void a_narrow_mask_narrows_the_default(void **state)
{
    (void)state;
    in_child(check_narrow_mask);
}

/* The main thread may be a worker: the others must still see all processors. */
static int check_bound_main_thread(void)
{
    unsigned available = weft_available_processors();
    cpu_set_t before, after;

    if (sched_getaffinity(0, sizeof before, &before) != 0)
        return 1;
    for (unsigned i = 0; i < 4; i++) {
        if (weft__config_bind_thread(WEFT_AFFINITY_CORES, i) != 0 ||
            sched_getaffinity(0, sizeof after, &after) != 0)
            return 2;
        if (!CPU_ISSET(nth_processor(&before, i % (unsigned)CPU_COUNT(&before)), &after) || CPU_COUNT(&after) != 1)
            return 3;
        if (weft_available_processors() != available)
            return 4;
    }
    return 0;
}

static void binding_the_main_thread_does_not_narrow_the_process(void **state)
{
    (void)state;
    in_child(check_bound_main_thread);
}

static int check_none_leaves_the_mask(void)
{
    cpu_set_t before, after;

    sched_getaffinity(0, sizeof before, &before);
    if (weft__config_bind_thread(WEFT_AFFINITY_NONE, 0) != 0 ||
        weft__config_bind_thread(WEFT_AFFINITY_UNSET, 0) != 0)
        return 1;
    if (weft__config_bind_thread((enum weft_affinity)7, 0) != -EINVAL)
        return 2;
    sched_getaffinity(0, sizeof after, &after);
    return CPU_EQUAL(&before, &after) ? 0 : 3;
}

static void without_affinity_the_mask_is_left_alone(void **state)
{
    (void)state;
    in_child(check_none_leaves_the_mask);
}

#define WITH_ENVIRONMENT(f) cmocka_unit_test_setup(f, forget_environment)
#define WITH_TREE(f) cmocka_unit_test_setup_teardown(f, tree_begin, tree_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ENVIRONMENT(defaults_are_the_documented_ones),
        WITH_ENVIRONMENT(seeds_from_the_system_differ),
        WITH_ENVIRONMENT(every_variable_takes_what_is_allowed),
        WITH_ENVIRONMENT(stack_size_is_rounded_up_to_pages),
        WITH_ENVIRONMENT(seed_zero_is_from_the_system),
        WITH_ENVIRONMENT(empty_variable_is_not_set),
        WITH_ENVIRONMENT(from_env_sets_every_field),
        WITH_ENVIRONMENT(code_wins_over_the_environment),
        WITH_ENVIRONMENT(environment_wins_if_the_program_says_so),
        WITH_ENVIRONMENT(constants_from_code_become_plain_values),
        WITH_ENVIRONMENT(the_callback_and_its_argument_are_kept),
        WITH_ENVIRONMENT(bad_variable_is_refused_by_name_value_and_what_is_allowed),
        WITH_ENVIRONMENT(every_bad_value_is_reported_and_nothing_is_applied),
        WITH_ENVIRONMENT(bad_variable_of_the_process_is_refused),
        WITH_ENVIRONMENT(bad_variable_is_refused_even_if_code_would_win),
        WITH_ENVIRONMENT(bad_value_from_code_is_refused_by_field),
        WITH_ENVIRONMENT(a_long_or_unprintable_value_does_not_spoil_the_message),
        WITH_ENVIRONMENT(parse_does_not_know_other_variables),
        WITH_ENVIRONMENT(arbitrary_text_is_parsed_or_refused),
        WITH_ENVIRONMENT(unknown_variables_are_named_in_debug_mode_only),
        WITH_ENVIRONMENT(variables_of_tests_and_benchmarks_are_not_looked_at),
        WITH_ENVIRONMENT(the_table_shows_value_and_origin),
        WITH_ENVIRONMENT(the_table_explains_the_default_number_of_workers),
        WITH_ENVIRONMENT(what_the_table_prints_the_variables_accept),
        cmocka_unit_test(cpu_max_is_read_or_is_no_limit),
        cmocka_unit_test(quota_is_rounded_up_to_at_least_one),
        cmocka_unit_test(the_tighter_quota_is_the_smaller_share),
        cmocka_unit_test(a_path_is_taken_relative_to_the_mounted_group),
        WITH_TREE(v2_quota_is_found),
        WITH_TREE(v2_max_is_no_limit),
        WITH_TREE(a_tighter_ancestor_counts),
        WITH_TREE(v1_quota_is_found_under_its_controller),
        WITH_TREE(hybrid_takes_the_tighter_of_both),
        WITH_TREE(mount_of_a_group_below_the_root_is_followed),
        WITH_TREE(mount_of_another_group_is_passed_over),
        WITH_TREE(namespaced_paths_are_followed_as_far_as_names_are_known),
        WITH_TREE(group_that_is_not_there_leaves_its_ancestors),
        WITH_TREE(mount_point_may_hold_spaces_and_a_path_colons),
        WITH_TREE(hierarchy_mounted_at_the_root_directory_is_read),
        WITH_TREE(missing_files_are_no_limit),
        WITH_TREE(broken_lines_and_endless_ones_are_passed_over),
        WITH_TREE(mount_table_longer_than_the_buffer_is_read_to_its_end),
        WITH_TREE(path_longer_than_any_buffer_is_no_limit),
        WITH_ENVIRONMENT(workers_go_round_the_processors_of_the_mask),
        WITH_ENVIRONMENT(a_narrow_mask_narrows_the_default),
        WITH_ENVIRONMENT(binding_the_main_thread_does_not_narrow_the_process),
        WITH_ENVIRONMENT(without_affinity_the_mask_is_left_alone),
    };

    alarm(60);
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}

#endif
