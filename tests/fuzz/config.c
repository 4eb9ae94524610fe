/*
 * The WEFT_* variables (runtime/config.c): what is accepted, against a reading of its own of numbers and sizes; that what
 * is accepted has the same effect by every way it can be said; that what is refused changes nothing and is shown
 * without control characters.
 * Input: which variable, its text.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "runtime/config.h"
#include "tests/fuzz/fuzz.h"

struct known {
    const char *variable;
    uint64_t low, high;
    int is_size;
    const char *words[3];
};

static const struct known knowns[] = {
    {"WEFT_WORKERS", 1, 1024, 0, {NULL}},
    {"WEFT_BLOCKING_MAX", 1, 16384, 0, {NULL}},
    {"WEFT_BLOCKING_KEEPALIVE_MS", 1, 86400000, 0, {NULL}},
    {"WEFT_BLOCKING_QUEUE", 1, 1000000000, 0, {"unbounded"}},
    {"WEFT_STACK_SIZE", 16 << 10, 1 << 30, 1, {NULL}},
    {"WEFT_AFFINITY", 1, 0, 0, {"none", "cores"}},
    {"WEFT_TAKEOVER_US", 100, 3600000000, 0, {"off", "0"}},
    {"WEFT_DEBUG", 1, 1, 0, {"0"}},
    {"WEFT_SLOW_MS", 1, 3600000, 0, {"off"}},
    {"WEFT_PRINT_CONFIG", 1, 1, 0, {"0"}},
    {"WEFT_SEED", 0, UINT64_MAX, 0, {NULL}},
    {"WEFT_DUMP_SIGNAL", 1, 0, 0, {NULL}}, /* these two are for the environment only */
    {"WEFT_TRACE", 1, 0, 0, {NULL}},
};

enum { KNOWNS = sizeof knowns / sizeof *knowns, KNOBS = KNOWNS - 2 };

/* 1: `text` is a number that is allowed, without a sign, a space or another base. */
static int is_allowed_number(const struct known *known, const char *text)
{
    unsigned __int128 number = 0;

    if (*text < '0' || *text > '9')
        return 0;
    for (; *text >= '0' && *text <= '9'; text++)
        if (number <= UINT64_MAX)
            number = number * 10 + (unsigned)(*text - '0');
    if (number > UINT64_MAX)
        return 0;
    if (known->is_size && *text != '\0') {
        if (strchr("kKmM", *text) == NULL)
            return 0;
        number *= strchr("kK", *text) ? 1 << 10 : 1 << 20;
        text++;
    }
    return *text == '\0' && number >= known->low && number <= known->high;
}

static int is_allowed(const struct known *known, const char *text)
{
    for (int i = 0; i < 3 && known->words[i]; i++)
        if (strcmp(known->words[i], text) == 0)
            return 1;
    return is_allowed_number(known, text);
}

static int is_printable(const char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < ' ' && *text != '\n') || *text == 127)
            return 0;
    return 1;
}

/* Resolve with what is printed on stderr meanwhile in *said (to be freed). */
static int resolve(const weft_config *code, weft_config *effective, char **said)
{
    size_t length;
    FILE *kept = stderr, *quiet = open_memstream(said, &length);
    int rc;

    must(quiet != NULL);
    stderr = quiet;
    rc = weft__config_resolve(code, effective);
    if (rc == 0)
        weft__config_print(code, effective, stderr);
    stderr = kept;
    fclose(quiet);
    return rc;
}

/* By the environment. 0: it is refused. */
static int by_environment(const struct known *known, const char *text, weft_config *effective)
{
    char *said;
    int rc;

    memset(effective, 0xa5, sizeof *effective);
    must(setenv(known->variable, text, 1) == 0);
    rc = resolve(NULL, effective, &said);
    must(unsetenv(known->variable) == 0);
    must(is_printable(said) && strstr(said, known->variable) != NULL);
    must(rc == 0 || (rc == -EINVAL && strchr(said, '\n') == said + strlen(said) - 1));
    free(said);
    return rc == 0;
}

static int is_same(const weft_config *a, const weft_config *b)
{
    return a->workers == b->workers && a->blocking_max == b->blocking_max &&
           a->blocking_keepalive_ms == b->blocking_keepalive_ms && a->blocking_queue == b->blocking_queue &&
           a->stack_size == b->stack_size && a->affinity == b->affinity && a->takeover_us == b->takeover_us &&
           a->debug == b->debug && a->slow_ms == b->slow_ms && a->print_config == b->print_config;
}

static void check_knob(const struct known *known, const char *text)
{
    weft_config code = WEFT_CONFIG_DEFAULT, untouched = WEFT_CONFIG_DEFAULT, effective, other;
    int rc = weft__config_parse(known->variable, text, &code);
    char *said;

    must(rc == (is_allowed(known, text) ? 0 : -EINVAL));
    if (rc < 0)
        must(memcmp(&code, &untouched, sizeof code) == 0);
    if (*text == '\0')
        return; /* in the environment, as if it were not there */
    must(by_environment(known, text, &effective) == (rc == 0));
    if (rc < 0)
        return;
    must(resolve(&code, &other, &said) == 0);
    free(said);
    must(is_same(&effective, &other));
    if (code.seed != 0)
        must(effective.seed == code.seed && other.seed == code.seed);
    must(effective.stack_size % (size_t)sysconf(_SC_PAGESIZE) == 0);
    must(effective.stack_size >= 16 << 10 && effective.stack_size <= 1 << 30);
}

static void check_environment_only(const struct known *known, const char *text)
{
    weft_config effective;

    if (by_environment(known, text, &effective))
        must(weft__config_dump_signal() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    unsigned index = fuzz_byte(&input) % KNOWNS;
    char *text = fuzz_text(&input, input.size);

    if (index < KNOBS)
        check_knob(&knowns[index], text);
    else
        check_environment_only(&knowns[index], text);
    free(text);
    return 0;
}
