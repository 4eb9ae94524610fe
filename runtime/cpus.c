/*
 * Owns the knowledge of which processors the process may use. Called by the thread that starts a runtime
 * (weft__cpus_read), by each worker thread as it starts (weft__cpus_bind_thread), and by anybody through
 * weft_available_processors.
 *
 * Threads meet in one place: the mask of the process. A worker that is bound has a mask of one processor, the
 * threads it creates inherit it, and the main thread may become such a worker. So the mask is remembered before
 * the first binding, under pthread_once, and from then on nobody asks the kernel. A reader that sees `remembered`
 * sees the mask (release, acquire). One that does not asks for the main thread's mask, and could get the narrowed
 * one only if the main thread is bound between the two steps; a runtime reads before it creates its workers, so its
 * own workers cannot be the cause.
 *
 * A control group's limit is found the way the kernel enforces it: from the group of the process up to the root of
 * what is mounted, each level may have a limit, and the tightest counts. Above a mount's root nothing can be seen.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cpus.h"

#define CGROUP_FILE "/proc/self/cgroup"
#define MOUNT_FILE "/proc/self/mountinfo"

static const struct weft__cpu_quota no_limit = {0, 0};

/* ---- numbers and limits ---- */

bool weft__parse_digits(const char **text, uint64_t *value)
{
    const char *at = *text;
    uint64_t sum = 0;

    if (!isdigit((unsigned char)*at))
        return false;
    for (; isdigit((unsigned char)*at); at++) {
        if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, (uint64_t)(*at - '0'), &sum))
            return false;
    }
    *text = at;
    *value = sum;
    return true;
}

static bool ends_line(const char *text)
{
    return *text == '\0' || strcmp(text, "\n") == 0;
}

static struct weft__cpu_quota limit_of(uint64_t quota_us, uint64_t period_us)
{
    struct weft__cpu_quota limit = {quota_us, period_us};

    return quota_us != 0 && period_us != 0 ? limit : no_limit;
}

struct weft__cpu_quota weft__cpus_parse_v2(const char *cpu_max)
{
    uint64_t quota, period;

    if (!weft__parse_digits(&cpu_max, &quota) || *cpu_max++ != ' ')
        return no_limit;
    if (!weft__parse_digits(&cpu_max, &period) || !ends_line(cpu_max))
        return no_limit;
    return limit_of(quota, period);
}

struct weft__cpu_quota weft__cpus_parse_v1(const char *quota, const char *period)
{
    uint64_t quota_us, period_us;

    if (!weft__parse_digits(&quota, &quota_us) || !ends_line(quota))
        return no_limit;
    if (!weft__parse_digits(&period, &period_us) || !ends_line(period))
        return no_limit;
    return limit_of(quota_us, period_us);
}

unsigned weft__cpus_ceiling(struct weft__cpu_quota quota)
{
    uint64_t whole;

    if (quota.period_us == 0)
        return UINT_MAX;
    whole = quota.quota_us / quota.period_us + (quota.quota_us % quota.period_us != 0);
    if (whole > UINT_MAX)
        return UINT_MAX;
    return whole > 0 ? (unsigned)whole : 1;
}

struct weft__cpu_quota weft__cpus_tighter(struct weft__cpu_quota a, struct weft__cpu_quota b)
{
    if (a.period_us == 0)
        return b;
    if (b.period_us == 0)
        return a;
    return (unsigned __int128)a.quota_us * b.period_us <= (unsigned __int128)b.quota_us * a.period_us ? a : b;
}

/* ---- lines of /proc ---- */

/* Is `word` one of the items of a comma-separated list of `length` characters? */
static bool list_has(const char *list, size_t length, const char *word)
{
    const char *end = list + length;

    while (list < end) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        size_t item = (size_t)((comma ? comma : end) - list);

        if (item == strlen(word) && memcmp(list, word, item) == 0)
            return true;
        list += item + 1;
    }
    return false;
}

enum weft__cgroup_kind weft__cpus_parse_membership(const char *line, const char **path)
{
    uint64_t hierarchy;
    const char *controllers, *colon;

    if (!weft__parse_digits(&line, &hierarchy) || *line != ':')
        return WEFT__CGROUP_OTHER;
    controllers = line + 1;
    colon = strchr(controllers, ':');
    if (colon == NULL || colon[1] != '/')
        return WEFT__CGROUP_OTHER;
    *path = colon + 1;
    if (hierarchy == 0 && colon == controllers)
        return WEFT__CGROUP_V2;
    return list_has(controllers, (size_t)(colon - controllers), "cpu") ? WEFT__CGROUP_V1_CPU : WEFT__CGROUP_OTHER;
}

static bool is_octal(const char *three)
{
    return three[0] >= '0' && three[0] <= '3' && three[1] >= '0' && three[1] <= '7' && three[2] >= '0' &&
           three[2] <= '7';
}

/* The kernel writes space, tab, newline and backslash in a path as \040, \011, \012 and \134. */
static void unescape(char *text)
{
    char *to = text;

    while (*text != '\0') {
        if (text[0] == '\\' && is_octal(text + 1)) {
            *to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 4;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
}

static enum weft__cgroup_kind kind_of_mount(const char *type, const char *options)
{
    if (strcmp(type, "cgroup2") == 0)
        return WEFT__CGROUP_V2;
    if (strcmp(type, "cgroup") == 0 && list_has(options, strlen(options), "cpu"))
        return WEFT__CGROUP_V1_CPU;
    return WEFT__CGROUP_OTHER;
}

enum weft__cgroup_kind weft__cpus_parse_mount(char *line, char **root, char **point)
{
    /* id, parent, device, root, point, options, any number of optional fields, "-", type, source, options */
    char *rest = strstr(line, " - ");
    char *field[5], *type, *source, *options;

    if (rest == NULL)
        return WEFT__CGROUP_OTHER;
    *rest = '\0';
    rest += 3;
    for (int i = 0; i < 5; i++) {
        field[i] = strsep(&line, " ");
        if (field[i] == NULL)
            return WEFT__CGROUP_OTHER;
    }
    type = strsep(&rest, " ");
    source = strsep(&rest, " ");
    options = strsep(&rest, " ");
    if (source == NULL || options == NULL || field[3][0] != '/' || field[4][0] != '/')
        return WEFT__CGROUP_OTHER;
    unescape(field[3]);
    unescape(field[4]);
    *root = field[3];
    *point = field[4];
    return kind_of_mount(type, options);
}

/* Steps over leading "/.." components, and over a lone "/". Returns the number of the former. */
static unsigned skip_climb(const char **path)
{
    unsigned climbs = 0;

    while (strncmp(*path, "/..", 3) == 0 && ((*path)[3] == '/' || (*path)[3] == '\0')) {
        *path += 3;
        climbs++;
    }
    if (strcmp(*path, "/") == 0)
        *path += 1;
    return climbs;
}

const char *weft__cpus_below(const char *mount_root, const char *path)
{
    unsigned root_climbs = skip_climb(&mount_root);
    unsigned path_climbs = skip_climb(&path);
    size_t length = strlen(mount_root);

    if (root_climbs > path_climbs)
        return length == 0 ? "" : NULL;
    if (root_climbs < path_climbs || strncmp(mount_root, path, length) != 0)
        return NULL;
    return path[length] == '/' || path[length] == '\0' ? path + length : NULL;
}

/* ---- files ---- */

/* What reading needs, together some 24 KiB: from the heap, because the caller may be a task with a small stack. */
struct reading {
    const char *root;
    char path[3][PATH_MAX]; /* of the process's group, by enum weft__cgroup_kind; empty: in none */
    char group[PATH_MAX];   /* the directory being looked at */
    char full[PATH_MAX];    /* a file's name with `root` before it */
    char line[PATH_MAX];
};

static int open_file(struct reading *reading, const char *path)
{
    int length = snprintf(reading->full, sizeof reading->full, "%s%s", reading->root, path);
    int fd;

    if (length < 0 || (size_t)length >= sizeof reading->full)
        return -1;
    do {
        fd = open(reading->full, O_RDONLY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static ssize_t read_some(int fd, char *to, size_t size)
{
    ssize_t got;

    do {
        got = read(fd, to, size);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* Hands each whole line of a file to `each`; a line longer than the buffer is not one of ours and is left out. */
static void for_each_line(struct reading *reading, const char *file, void (*each)(struct reading *, char *, void *),
                          void *arg)
{
    int fd = open_file(reading, file);
    size_t used = 0;
    bool skipping = false;
    ssize_t got;

    if (fd < 0)
        return;
    while ((got = read_some(fd, reading->line + used, sizeof reading->line - used)) > 0) {
        char *begin = reading->line, *newline;

        used += (size_t)got;
        while ((newline = memchr(begin, '\n', used)) != NULL) {
            *newline++ = '\0';
            if (!skipping)
                each(reading, begin, arg);
            skipping = false;
            used -= (size_t)(newline - begin);
            begin = newline;
        }
        if (used == sizeof reading->line) {
            skipping = true;
            used = 0;
        }
        memmove(reading->line, begin, used);
    }
    close(fd);
}

/* A file of one number or two. */
static bool read_limit_file(struct reading *reading, const char *name, char *text, size_t size)
{
    size_t length = strlen(reading->group);
    ssize_t got;
    int fd;

    if (length + strlen(name) >= sizeof reading->group)
        return false;
    strcpy(reading->group + length, name);
    fd = open_file(reading, reading->group);
    reading->group[length] = '\0';
    if (fd < 0)
        return false;
    got = read_some(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

static struct weft__cpu_quota limit_of_group(struct reading *reading, enum weft__cgroup_kind kind)
{
    char quota[64], period[64];

    if (kind == WEFT__CGROUP_V2)
        return read_limit_file(reading, "/cpu.max", quota, sizeof quota) ? weft__cpus_parse_v2(quota) : no_limit;
    if (!read_limit_file(reading, "/cpu.cfs_quota_us", quota, sizeof quota) ||
        !read_limit_file(reading, "/cpu.cfs_period_us", period, sizeof period))
        return no_limit;
    return weft__cpus_parse_v1(quota, period);
}

/* The tightest limit from reading->group up to the directory whose name has `top` characters. */
static struct weft__cpu_quota limit_upwards(struct reading *reading, enum weft__cgroup_kind kind, size_t top)
{
    struct weft__cpu_quota tightest = limit_of_group(reading, kind);

    while (strlen(reading->group) > top) {
        *strrchr(reading->group, '/') = '\0';
        tightest = weft__cpus_tighter(tightest, limit_of_group(reading, kind));
    }
    return tightest;
}

static void note_membership(struct reading *reading, char *line, void *arg)
{
    const char *path;
    enum weft__cgroup_kind kind = weft__cpus_parse_membership(line, &path);

    (void)arg;
    if (kind != WEFT__CGROUP_OTHER)
        snprintf(reading->path[kind], sizeof reading->path[kind], "%s", path);
}

static void note_mount(struct reading *reading, char *line, void *arg)
{
    struct weft__cpu_quota *tightest = arg;
    char *root, *point;
    enum weft__cgroup_kind kind = weft__cpus_parse_mount(line, &root, &point);
    const char *below;
    int length;

    if (kind == WEFT__CGROUP_OTHER || reading->path[kind][0] == '\0')
        return;
    below = weft__cpus_below(root, reading->path[kind]);
    if (below == NULL)
        return;
    if (strcmp(point, "/") == 0)
        point = "";
    length = snprintf(reading->group, sizeof reading->group, "%s%s", point, below);
    if (length < 0 || (size_t)length >= sizeof reading->group)
        return;
    *tightest = weft__cpus_tighter(*tightest, limit_upwards(reading, kind, strlen(point)));
}

struct weft__cpu_quota weft__cpus_quota(const char *root)
{
    struct weft__cpu_quota tightest = no_limit;
    struct reading *reading = calloc(1, sizeof *reading);

    if (reading == NULL)
        return no_limit;
    reading->root = root;
    for_each_line(reading, CGROUP_FILE, note_membership, NULL);
    for_each_line(reading, MOUNT_FILE, note_mount, &tightest);
    free(reading);
    return tightest;
}

/* ---- the affinity mask ---- */

/* Linux can be built for 8192 processors; a smaller buffer fails there with EINVAL. */
#define MASK_SETS (8192 / CPU_SETSIZE)

struct mask {
    cpu_set_t set[MASK_SETS];
};

static struct mask process_mask; /* written once, by remember_mask */
static atomic_bool remembered;
static pthread_once_t remember_once = PTHREAD_ONCE_INIT;

static void ask_mask(struct mask *mask)
{
    /* The main thread's mask is what taskset and the like set; the caller's may be a worker's own processor. */
    memset(mask, 0, sizeof *mask);
    if (sched_getaffinity(getpid(), sizeof mask->set, mask->set) != 0)
        memset(mask, 0, sizeof *mask);
}

static void remember_mask(void)
{
    ask_mask(&process_mask);
    /* release: pairs with the acquire in get_mask */
    atomic_store_explicit(&remembered, true, memory_order_release);
}

static void get_mask(struct mask *mask)
{
    /* acquire: pairs with the release in remember_mask */
    if (atomic_load_explicit(&remembered, memory_order_acquire))
        *mask = process_mask;
    else
        ask_mask(mask);
}

void weft__cpus_mask(cpu_set_t *mask)
{
    struct mask all;

    get_mask(&all);
    *mask = all.set[0];
}

/* The index-th processor in the mask, modulo their number `count`, which is not 0. */
static size_t pick_processor(const struct mask *mask, unsigned count, unsigned index)
{
    size_t processor = 0;

    for (unsigned left = index % count;; processor++) {
        if (CPU_ISSET_S(processor, sizeof mask->set, mask->set) && left-- == 0)
            return processor;
    }
}

int weft__cpus_bind_thread(unsigned index)
{
    struct mask all, one;
    int count;

    pthread_once(&remember_once, remember_mask);
    get_mask(&all);
    count = CPU_COUNT_S(sizeof all.set, all.set);
    if (count == 0)
        return -ENOSYS;
    memset(&one, 0, sizeof one);
    CPU_SET_S(pick_processor(&all, (unsigned)count, index), sizeof one.set, one.set);
    return sched_setaffinity(0, sizeof one.set, one.set) == 0 ? 0 : -errno;
}

/* Without a mask to read (seccomp) the processors that are on line are the best guess. */
static unsigned count_processors(void)
{
    struct mask mask;
    int count;
    long online;

    get_mask(&mask);
    count = CPU_COUNT_S(sizeof mask.set, mask.set);
    if (count > 0)
        return (unsigned)count;
    online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online <= INT_MAX ? (unsigned)online : 1;
}

void weft__cpus_read(struct weft__cpus *cpus)
{
    unsigned ceiling;

    cpus->affinity = count_processors();
    cpus->quota = weft__cpus_quota("");
    ceiling = weft__cpus_ceiling(cpus->quota);
    cpus->usable = ceiling < cpus->affinity ? ceiling : cpus->affinity;
}
