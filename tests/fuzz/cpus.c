/*
 * The files of /proc and /sys that tell what processors may be used (the pure functions of runtime/cpus.c).
 * Input: which of the functions, and one or two lines.
 */
#include <errno.h>
#include <limits.h>

#include "runtime/cpus.h"
#include "tests/fuzz/fuzz.h"

static void check_digits(const char *text)
{
    const char *at = text;
    uint64_t value = 1;
    char *end;

    errno = 0;
    if (weft__parse_digits(&at, &value)) {
        must(value == strtoull(text, &end, 10) && errno == 0 && end == at);
        must(at > text && (*at < '0' || *at > '9'));
    } else {
        must(at == text && value == 1);
        must(*text < '0' || *text > '9' || (strtoull(text, &end, 10) == ULLONG_MAX && errno == ERANGE));
    }
}

static void check_quota(struct weft__cpu_quota quota)
{
    must((quota.quota_us == 0) == (quota.period_us == 0));
    must(weft__cpus_ceiling(quota) >= 1);
}

static void check_quotas(const char *first, const char *second)
{
    struct weft__cpu_quota a = weft__cpus_parse_v2(first), b = weft__cpus_parse_v1(first, second), tighter;
    char said[64];

    check_quota(a);
    check_quota(b);
    tighter = weft__cpus_tighter(a, b);
    must(weft__cpus_ceiling(tighter) <= weft__cpus_ceiling(a) &&
         weft__cpus_ceiling(tighter) <= weft__cpus_ceiling(b));
    if (a.period_us != 0) {
        snprintf(said, sizeof said, "%llu %llu", (unsigned long long)a.quota_us, (unsigned long long)a.period_us);
        tighter = weft__cpus_parse_v2(said);
        must(tighter.quota_us == a.quota_us && tighter.period_us == a.period_us);
    }
}

static void check_membership(const char *line)
{
    const char *path = NULL;

    if (weft__cpus_parse_membership(line, &path) != WEFT__CGROUP_OTHER)
        must(path > line && path < line + strlen(line) && *path == '/' && path[-1] == ':');
}

static void check_mount(char *line)
{
    char *end = line + strlen(line), *root = NULL, *point = NULL;

    if (weft__cpus_parse_mount(line, &root, &point) == WEFT__CGROUP_OTHER)
        return;
    must(root > line && root < end && *root == '/');
    must(point > root + strlen(root) && point < end && *point == '/' && point + strlen(point) < end);
}

static void check_below(const char *root, const char *path)
{
    const char *below = weft__cpus_below(root, path);

    if (!below || *below == '\0')
        return;
    must(*below == '/' && below >= path && below < path + strlen(path));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t kind = fuzz_byte(&input) % 5;
    char *first = fuzz_line(&input), *second = fuzz_text(&input, input.size);

    switch (kind) {
    case 0:
        check_digits(first);
        break;
    case 1:
        check_quotas(first, second);
        break;
    case 2:
        check_membership(first);
        break;
    case 3:
        check_mount(first);
        break;
    case 4:
        check_below(first, second);
        break;
    }
    free(first);
    free(second);
    return 0;
}
