/*
 * Owns the table of knobs: what each WEFT_* variable and each field of weft_config may be, and which of them wins.
 * Called by the thread that starts a runtime, once, before any of its workers exists, and by anybody through
 * weft_config_from_env. It keeps no state; the only thing shared is the environment, which the program must not
 * change (setenv) while a runtime starts, as with any getenv.
 *
 * Each value exists in two forms. In a weft_config that a program fills in, 0 is "not set" and all bits set is a
 * meaning of its own (WEFT_NEVER, WEFT_OFF, WEFT_UNBOUNDED). The plain form, a uint64_t, has no "not set": it is
 * what is in force. Every value is read and checked before the first is stored: nothing is half-applied.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "runtime/config.h"
#include "runtime/cpus.h"

extern char **environ;

/* ---- the table ---- */

enum knob_name {
    WORKERS,
    BLOCKING_MAX,
    BLOCKING_KEEPALIVE_MS,
    BLOCKING_QUEUE,
    STACK_SIZE,
    AFFINITY,
    TAKEOVER_US,
    DEBUG,
    SLOW_MS,
    PRINT_CONFIG,
    SEED,
    KNOBS
};

enum knob_form {
    NUMBER, /* digits */
    BYTES,  /* digits, perhaps K or M; rounded up to whole pages */
    WORD    /* one of the words only */
};

struct word {
    const char *text;
    uint64_t plain;
};

/* All bits set: what WEFT_NEVER, WEFT_OFF and WEFT_UNBOUNDED are in a weft_config. */
#define CONSTANT UINT64_MAX

struct knob {
    const char *variable;
    const char *field;
    enum knob_form form;
    uint64_t low, high; /* in plain form, besides the words */
    uint64_t standard;  /* the default; WORKERS computes its own */
    struct word words[2];
    const char *constant; /* the field's name for the first word; NULL: it has none */
    const char *allowed;  /* in a message, after "allowed: " */
};

/* clang-format off */
static const struct knob knobs[KNOBS] = {
    [WORKERS] = {.variable = "WEFT_WORKERS", .field = "workers",
                 .low = 1, .high = 1024, .standard = 1,
                 .allowed = "a whole number from 1 to 1024"},
    [BLOCKING_MAX] = {.variable = "WEFT_BLOCKING_MAX", .field = "blocking_max",
                      .low = 1, .high = 16384, .standard = 512,
                      .allowed = "a whole number from 1 to 16384"},
    /* One day at most: beyond that the threads might as well stay. */
    [BLOCKING_KEEPALIVE_MS] = {.variable = "WEFT_BLOCKING_KEEPALIVE_MS", .field = "blocking_keepalive_ms",
                               .low = 1, .high = 86400000, .standard = 10000,
                               .allowed = "milliseconds from 1 to 86400000"},
    [BLOCKING_QUEUE] = {.variable = "WEFT_BLOCKING_QUEUE", .field = "blocking_queue",
                        .low = 1, .high = 1000000000, .standard = UINT64_MAX,
                        .words = {{"unbounded", UINT64_MAX}}, .constant = "WEFT_UNBOUNDED",
                        .allowed = "a whole number from 1 to 1000000000, or unbounded"},
    [STACK_SIZE] = {.variable = "WEFT_STACK_SIZE", .field = "stack_size", .form = BYTES,
                    .low = 16 << 10, .high = 1 << 30, .standard = 128 << 10,
                    .allowed = "bytes from 16K to 1024M, as a whole number or one followed by K or M"},
    [AFFINITY] = {.variable = "WEFT_AFFINITY", .field = "affinity", .form = WORD,
                  .low = WEFT_AFFINITY_NONE, .high = WEFT_AFFINITY_CORES, .standard = WEFT_AFFINITY_NONE,
                  .words = {{"none", WEFT_AFFINITY_NONE}, {"cores", WEFT_AFFINITY_CORES}},
                  .allowed = "none or cores"},
    /* Less than 100 us is a time slice that a healthy task uses; more than an hour is off. */
    [TAKEOVER_US] = {.variable = "WEFT_TAKEOVER_US", .field = "takeover_us",
                     .low = 100, .high = 3600000000, .standard = 2000,
                     .words = {{"off", 0}, {"0", 0}}, .constant = "WEFT_NEVER",
                     .allowed = "microseconds from 100 to 3600000000, or off (or 0)"},
    [DEBUG] = {.variable = "WEFT_DEBUG", .field = "debug",
               .low = 1, .high = 1, .standard = 0,
               .words = {{"0", 0}}, .constant = "WEFT_OFF",
               .allowed = "0 or 1"},
    [SLOW_MS] = {.variable = "WEFT_SLOW_MS", .field = "slow_ms",
                 .low = 1, .high = 3600000, .standard = 100,
                 .words = {{"off", 0}}, .constant = "WEFT_NEVER",
                 .allowed = "milliseconds from 1 to 3600000, or off"},
    [PRINT_CONFIG] = {.variable = "WEFT_PRINT_CONFIG", .field = "print_config",
                      .low = 1, .high = 1, .standard = 0,
                      .words = {{"0", 0}}, .constant = "WEFT_OFF",
                      .allowed = "0 or 1"},
    [SEED] = {.variable = "WEFT_SEED", .field = "seed",
              .low = 0, .high = UINT64_MAX, .standard = 0,
              .allowed = "a whole number from 0 to 18446744073709551615; 0 takes one from the system"},
};

/* As the program left it, sign-extended: 0 is not set. */
static uint64_t get_field(const weft_config *config, enum knob_name name)
{
    switch (name) {
    case WORKERS: return config->workers;
    case BLOCKING_MAX: return config->blocking_max;
    case BLOCKING_KEEPALIVE_MS: return (uint64_t)config->blocking_keepalive_ms;
    case BLOCKING_QUEUE: return config->blocking_queue;
    case STACK_SIZE: return config->stack_size;
    case AFFINITY: return (uint64_t)(int64_t)(int)config->affinity;
    case TAKEOVER_US: return (uint64_t)config->takeover_us;
    case DEBUG: return (uint64_t)(int64_t)config->debug;
    case SLOW_MS: return (uint64_t)config->slow_ms;
    case PRINT_CONFIG: return (uint64_t)(int64_t)config->print_config;
    case SEED: return config->seed;
    case KNOBS: break;
    }
    return 0;
}

static void set_field(weft_config *config, enum knob_name name, uint64_t value)
{
    switch (name) {
    case WORKERS: config->workers = (uint32_t)value; break;
    case BLOCKING_MAX: config->blocking_max = (uint32_t)value; break;
    case BLOCKING_KEEPALIVE_MS: config->blocking_keepalive_ms = (int64_t)value; break;
    case BLOCKING_QUEUE: config->blocking_queue = value; break;
    case STACK_SIZE: config->stack_size = (size_t)value; break;
    case AFFINITY: config->affinity = (enum weft_affinity)value; break;
    case TAKEOVER_US: config->takeover_us = (int64_t)value; break;
    case DEBUG: config->debug = (int)value; break;
    case SLOW_MS: config->slow_ms = (int64_t)value; break;
    case PRINT_CONFIG: config->print_config = (int)value; break;
    case SEED: config->seed = value; break;
    case KNOBS: break;
    }
}

/* clang-format on */

/* ---- what concerns the process: for the environment only ---- */

enum environment_name { TRACE, DUMP_SIGNAL, SIGINT_TAKEN, ENVIRONMENT_ONLY };

struct choice {
    const char *text;
    int value;
};

static const struct {
    const char *variable;
    const char *standard;
    struct choice choices[6]; /* none: any text */
    const char *allowed;
} environment_only[ENVIRONMENT_ONLY] = {
    [TRACE] = {"WEFT_TRACE", "", {{0}}, "a file"},
    [DUMP_SIGNAL] = {"WEFT_DUMP_SIGNAL",
                     "off",
                     {{"off", 0}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"HUP", SIGHUP}, {"QUIT", SIGQUIT}},
                     "USR1, USR2, HUP, QUIT or off"},
    [SIGINT_TAKEN] = {"WEFT_SIGINT", "on", {{"on", 1}, {"off", 0}}, "on or off"},
};

static const char *get_environment_only(enum environment_name name)
{
    const char *value = getenv(environment_only[name].variable);

    return value != NULL && *value != '\0' ? value : environment_only[name].standard;
}

static const struct choice *find_choice(enum environment_name name, const char *text)
{
    for (const struct choice *choice = environment_only[name].choices; choice->text != NULL; choice++) {
        if (strcmp(choice->text, text) == 0)
            return choice;
    }
    return NULL;
}

static int chosen(enum environment_name name)
{
    const struct choice *choice = find_choice(name, get_environment_only(name));

    return choice != NULL ? choice->value : 0;
}

const char *weft__config_trace_file(void)
{
    const char *path = get_environment_only(TRACE);

    return *path != '\0' ? path : NULL;
}

int weft__config_dump_signal(void)
{
    return chosen(DUMP_SIGNAL);
}

int weft__config_takes_sigint(void)
{
    return chosen(SIGINT_TAKEN);
}

/* ---- one value: text and code to plain form, and back ---- */

static bool find_word(const struct knob *knob, const char *text, uint64_t *plain)
{
    for (size_t i = 0; i < 2; i++) {
        if (knob->words[i].text != NULL && strcmp(knob->words[i].text, text) == 0) {
            *plain = knob->words[i].plain;
            return true;
        }
    }
    return false;
}

static bool scale(char suffix, uint64_t *value)
{
    uint64_t unit = suffix == 'K' || suffix == 'k' ? 1 << 10 : suffix == 'M' || suffix == 'm' ? 1 << 20 : 0;

    return unit != 0 && !__builtin_mul_overflow(*value, unit, value);
}

static bool check_range(const struct knob *knob, uint64_t *plain)
{
    if (*plain < knob->low || *plain > knob->high)
        return false;
    if (knob->form == BYTES) {
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

        *plain = (*plain + page - 1) / page * page;
    }
    return true;
}

static bool plain_from_text(const struct knob *knob, const char *text, uint64_t *plain)
{
    if (find_word(knob, text, plain))
        return true;
    if (knob->form == WORD || !weft__parse_digits(&text, plain))
        return false;
    if (knob->form == BYTES && *text != '\0' && !scale(*text++, plain))
        return false;
    return *text == '\0' && check_range(knob, plain);
}

static bool plain_from_code(const struct knob *knob, uint64_t raw, uint64_t *plain)
{
    *plain = raw;
    if (knob->constant != NULL && raw == CONSTANT) {
        *plain = knob->words[0].plain;
        return true;
    }
    return check_range(knob, plain);
}

static uint64_t code_from_plain(const struct knob *knob, uint64_t plain)
{
    return knob->constant != NULL && plain == knob->words[0].plain ? CONSTANT : plain;
}

/* As the variable would say it. */
static void text_from_plain(const struct knob *knob, uint64_t plain, char *text, size_t size)
{
    for (size_t i = 0; i < 2; i++) {
        if (knob->words[i].text != NULL && knob->words[i].plain == plain) {
            snprintf(text, size, "%s", knob->words[i].text);
            return;
        }
    }
    if (knob->form == BYTES && plain % 1024 == 0)
        snprintf(text, size, "%" PRIu64 "K", plain / 1024);
    else
        snprintf(text, size, "%" PRIu64, plain);
}

int weft__config_parse(const char *variable, const char *text, weft_config *config)
{
    for (int i = 0; i < KNOBS; i++) {
        uint64_t plain;

        if (strcmp(knobs[i].variable, variable) != 0)
            continue;
        if (!plain_from_text(&knobs[i], text, &plain))
            return -EINVAL;
        set_field(config, (enum knob_name)i, code_from_plain(&knobs[i], plain));
        return 0;
    }
    return -ENOENT;
}

/* ---- messages ---- */

/* What came from outside is shown without control characters and cut to a line's length. */
static void make_printable(const char *value, char *text, size_t size)
{
    size_t length = 0;

    for (; value[length] != '\0' && length < size - 1; length++)
        text[length] = (char)(iscntrl((unsigned char)value[length]) ? '?' : value[length]);
    text[length] = '\0';
    if (value[length] != '\0')
        memcpy(text + size - 4, "...", 4);
}

static void report_variable(const char *variable, const char *value, const char *allowed)
{
    char shown[64];

    make_printable(value, shown, sizeof shown);
    fprintf(stderr, "weft: %s=\"%s\" is refused; allowed: %s\n", variable, shown, allowed);
}

static void report_field(const struct knob *knob, uint64_t raw)
{
    fprintf(stderr, "weft: weft_config.%s = %" PRId64 " is refused; allowed: %s", knob->field, (int64_t)raw,
            knob->allowed);
    if (knob->constant != NULL)
        fprintf(stderr, " (%s)", knob->constant);
    fputs("; 0 is not set\n", stderr);
}

/* ---- choosing ---- */

/* What the program and the environment say about one knob. */
struct offer {
    bool in_code, in_environment;
    uint64_t code, environment; /* plain */
};

static const char *get_variable(const struct knob *knob)
{
    const char *value = getenv(knob->variable);

    return value != NULL && *value != '\0' ? value : NULL;
}

/* Both sides are checked, also the one that will lose: a bad value must not wait for the day it wins. */
static bool collect(const weft_config *code, enum knob_name name, struct offer *offer)
{
    const struct knob *knob = &knobs[name];
    const char *text = get_variable(knob);
    uint64_t raw = code != NULL ? get_field(code, name) : 0;
    bool good = true;

    offer->in_environment = text != NULL;
    if (text != NULL && !plain_from_text(knob, text, &offer->environment)) {
        report_variable(knob->variable, text, knob->allowed);
        good = false;
    }
    offer->in_code = raw != 0;
    if (raw != 0 && !plain_from_code(knob, raw, &offer->code)) {
        report_field(knob, raw);
        good = false;
    }
    return good;
}

static bool check_environment_only(enum environment_name name)
{
    const char *text = get_environment_only(name);

    if (environment_only[name].choices[0].text == NULL || find_choice(name, text) != NULL)
        return true;
    report_variable(environment_only[name].variable, text, environment_only[name].allowed);
    return false;
}

static bool collect_all(const weft_config *code, struct offer offers[KNOBS])
{
    bool good = true;

    for (int i = 0; i < KNOBS; i++)
        good &= collect(code, (enum knob_name)i, &offers[i]);
    for (int i = 0; i < ENVIRONMENT_ONLY; i++)
        good &= check_environment_only((enum environment_name)i);
    if (code != NULL && code->environment_wins != 0 && code->environment_wins != 1) {
        fprintf(stderr, "weft: weft_config.environment_wins = %d is refused; allowed: 0 or 1\n",
                code->environment_wins);
        good = false;
    }
    return good;
}

static bool environment_is_taken(const struct offer *offer, bool environment_wins)
{
    return offer->in_environment && (environment_wins || !offer->in_code);
}

static uint64_t default_of(enum knob_name name)
{
    unsigned usable;

    if (name != WORKERS)
        return knobs[name].standard;
    usable = weft_available_processors();
    return usable <= knobs[name].high ? usable : knobs[name].high;
}

static uint64_t choose(enum knob_name name, const struct offer *offer, bool environment_wins)
{
    uint64_t plain;

    if (environment_is_taken(offer, environment_wins))
        return offer->environment;
    if (offer->in_code)
        return offer->code;
    plain = default_of(name);
    if (knobs[name].form == BYTES)
        check_range(&knobs[name], &plain);
    return plain;
}

/* Not a secret: it orders steals and select cases. Never 0, which would mean "none yet". */
static uint64_t draw_seed(void)
{
    uint64_t seed = 0;
    struct timespec now;

    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) {
        clock_gettime(CLOCK_REALTIME, &now);
        seed = ((uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec) * 0x9e3779b97f4a7c15u ^ (uint64_t)getpid();
    }
    return seed != 0 ? seed : 1;
}

/* ---- variables nobody knows ---- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

#define NAME_MAX_LENGTH 63

/* Insertions, deletions and replacements that turn one name into the other; both at most NAME_MAX_LENGTH long. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_LENGTH + 1], width = strlen(b);

    for (size_t j = 0; j <= width; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 0; j < width; j++) {
            size_t replaced = diagonal + (a[i] != b[j]);

            diagonal = row[j + 1];
            row[j + 1] = least(replaced, least(row[j], diagonal) + 1);
        }
    }
    return row[width];
}

/* All of them: the knobs, then those for the environment only. */
static const char *variable_name(int index)
{
    return index < KNOBS ? knobs[index].variable : environment_only[index - KNOBS].variable;
}

static bool is_known(const char *name)
{
    for (int i = 0; i < KNOBS + ENVIRONMENT_ONLY; i++) {
        if (strcmp(variable_name(i), name) == 0)
            return true;
    }
    return false;
}

static const char *nearest_name(const char *name)
{
    const char *nearest = knobs[0].variable;
    size_t distance = SIZE_MAX;

    for (int i = 0; i < KNOBS + ENVIRONMENT_ONLY; i++) {
        size_t to_this = edit_distance(name, variable_name(i));

        if (to_this < distance) {
            distance = to_this;
            nearest = variable_name(i);
        }
    }
    return nearest;
}

/* The prefixes of what the project's own tests and benchmarks read. */
static bool is_foreign(const char *entry)
{
    return strncmp(entry, "WEFT_", 5) != 0 || strncmp(entry, "WEFT_BENCH_", 11) == 0 ||
           strncmp(entry, "WEFT_TEST_", 10) == 0;
}

static void warn_of_unknown(const char *entry)
{
    size_t length = strcspn(entry, "=");
    char name[NAME_MAX_LENGTH + 1], shown[NAME_MAX_LENGTH + 1];

    if (is_foreign(entry) || length >= sizeof name || entry[length] == '\0' || entry[length + 1] == '\0')
        return;
    memcpy(name, entry, length);
    name[length] = '\0';
    if (is_known(name))
        return;
    make_printable(name, shown, sizeof shown);
    fprintf(stderr, "weft: %s is not a variable of weft and has no effect; the nearest is %s\n", shown,
            nearest_name(name));
}

static void warn_of_all_unknown(void)
{
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++)
        warn_of_unknown(*entry);
}

/* ---- what others call ---- */

int weft__config_resolve(const weft_config *code, weft_config *effective)
{
    struct offer offers[KNOBS];
    weft_config result = WEFT_CONFIG_DEFAULT;

    if (effective == NULL || !collect_all(code, offers))
        return -EINVAL;
    if (code != NULL)
        result = *code;
    for (int i = 0; i < KNOBS; i++) {
        enum knob_name name = (enum knob_name)i;

        set_field(&result, name, choose(name, &offers[i], result.environment_wins));
    }
    if (result.seed == 0)
        result.seed = draw_seed();
    if (result.debug)
        warn_of_all_unknown();
    *effective = result;
    return 0;
}

int weft_config_from_env(weft_config *config)
{
    struct offer offers[KNOBS];
    weft_config result = WEFT_CONFIG_DEFAULT;

    if (config == NULL || !collect_all(NULL, offers))
        return -EINVAL;
    for (int i = 0; i < KNOBS; i++) {
        enum knob_name name = (enum knob_name)i;

        set_field(&result, name, code_from_plain(&knobs[i], choose(name, &offers[i], true)));
    }
    *config = result;
    return 0;
}

unsigned weft_available_processors(void)
{
    struct weft__cpus cpus;

    weft__cpus_read(&cpus);
    return cpus.usable;
}

int weft__config_bind_thread(enum weft_affinity affinity, unsigned index)
{
    switch (affinity) {
    case WEFT_AFFINITY_UNSET:
    case WEFT_AFFINITY_NONE:
        return 0;
    case WEFT_AFFINITY_CORES:
        return weft__cpus_bind_thread(index);
    }
    return -EINVAL;
}

/* ---- printing ---- */

static void explain_workers(char *text, size_t size)
{
    struct weft__cpus cpus;

    weft__cpus_read(&cpus);
    if (cpus.quota.period_us == 0)
        snprintf(text, size, "default: affinity %u, no cgroup quota", cpus.affinity);
    else
        snprintf(text, size, "default: affinity %u, cgroup %.4g → %u", cpus.affinity,
                 (double)cpus.quota.quota_us / (double)cpus.quota.period_us, weft__cpus_ceiling(cpus.quota));
}

static void explain(enum knob_name name, const struct offer *offer, bool environment_wins, char *text, size_t size)
{
    bool both = offer->in_code && offer->in_environment;

    if (environment_is_taken(offer, environment_wins))
        snprintf(text, size, both ? "environment, over code" : "environment");
    else if (offer->in_code)
        snprintf(text, size, both ? "code, over environment" : "code");
    else if (name == WORKERS)
        explain_workers(text, size);
    else
        snprintf(text, size, name == SEED ? "default: from the system" : "default");
}

static struct offer offer_of(const weft_config *code, enum knob_name name)
{
    uint64_t raw = code != NULL ? get_field(code, name) : 0;
    struct offer offer = {.in_code = raw != 0, .in_environment = get_variable(&knobs[name]) != NULL};

    return offer;
}

void weft__config_print(const weft_config *code, const weft_config *effective, FILE *out)
{
    bool environment_wins = code != NULL && code->environment_wins;

    /* Held over all lines: what other threads print stays before or after the table. */
    flockfile(out);
    fprintf(out, "weft: %-28s %-20s %s\n", "variable", "value", "from");
    for (int i = 0; i < KNOBS; i++) {
        enum knob_name name = (enum knob_name)i;
        struct offer offer = offer_of(code, name);
        char value[32], from[96];

        text_from_plain(&knobs[i], get_field(effective, name), value, sizeof value);
        explain(name, &offer, environment_wins, from, sizeof from);
        fprintf(out, "weft: %-28s %-20s %s\n", knobs[i].variable, value, from);
    }
    for (int i = 0; i < ENVIRONMENT_ONLY; i++) {
        const char *value = getenv(environment_only[i].variable);
        char shown[64];

        make_printable(get_environment_only((enum environment_name)i), shown, sizeof shown);
        fprintf(out, "weft: %-28s %-20s %s\n", environment_only[i].variable, shown,
                value != NULL && *value != '\0' ? "environment" : "default");
    }
    fflush(out);
    funlockfile(out);
}
