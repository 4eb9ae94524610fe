/*
 * How many processors the process may use, and which: its affinity mask and the CPU quotas of its control groups.
 * Any thread; nothing here suspends, and whatever cannot be read sets no limit.
 */
#ifndef WEFT_RUNTIME_CPUS_H
#define WEFT_RUNTIME_CPUS_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* quota_us of processor time in each period_us; period_us 0: no limit. */
struct weft__cpu_quota {
    uint64_t quota_us;
    uint64_t period_us;
};

struct weft__cpus {
    unsigned affinity; /* processors in the mask, at least 1 */
    struct weft__cpu_quota quota;
    unsigned usable; /* the smaller of the mask and the quota rounded up, at least 1 */
};

void weft__cpus_read(struct weft__cpus *cpus);

/* Which of the first CPU_SETSIZE processors are in the mask; none if it cannot be read. */
void weft__cpus_mask(cpu_set_t *mask);

/*
 * Bind the calling thread to the index-th processor (modulo their number) of the mask the process had before the
 * first thread was bound. 0 or -errno.
 */
int weft__cpus_bind_thread(unsigned index);

/*
 * The tightest quota of the calling process's control group and its ancestors, v1 and v2. All files are looked up
 * below `root` ("" is the real system), so that a test can bring its own /proc and /sys.
 */
struct weft__cpu_quota weft__cpus_quota(const char *root);

/* Below: pure functions, no system calls. */

/* Whole processors that the quota amounts to, rounded up, at least 1; UINT_MAX without a limit. */
unsigned weft__cpus_ceiling(struct weft__cpu_quota quota);

/* The smaller share of a processor; one without a limit is larger than any with one. */
struct weft__cpu_quota weft__cpus_tighter(struct weft__cpu_quota a, struct weft__cpu_quota b);

/* The text of v2's cpu.max ("150000 100000", "max 100000"); no limit if it is anything else. */
struct weft__cpu_quota weft__cpus_parse_v2(const char *cpu_max);

/* The texts of v1's cpu.cfs_quota_us ("-1" is no limit) and cpu.cfs_period_us. */
struct weft__cpu_quota weft__cpus_parse_v1(const char *quota, const char *period);

enum weft__cgroup_kind { WEFT__CGROUP_OTHER, WEFT__CGROUP_V1_CPU, WEFT__CGROUP_V2 };

/* A line of /proc/self/cgroup: which hierarchy, and where in the line the group's path begins. */
enum weft__cgroup_kind weft__cpus_parse_membership(const char *line, const char **path);

/*
 * A line of /proc/self/mountinfo, taken apart in place: which hierarchy is mounted, which of its groups (*root) and
 * where (*point).
 */
enum weft__cgroup_kind weft__cpus_parse_mount(char *line, char **root, char **point);

/*
 * The part of a group's path that lies below the group `mount_root`: "" if it is that group, "/a/b" if it is
 * further down, NULL if it is elsewhere. Both may begin with "/..", as paths seen from inside a cgroup namespace
 * do; where the names in between cannot be known from inside, the answer is "": the mount's own limit applies all
 * the same.
 */
const char *weft__cpus_below(const char *mount_root, const char *path);

/* Reads the digits at *text and moves *text behind them; false, nothing moved, if none or above UINT64_MAX. */
bool weft__parse_digits(const char **text, uint64_t *value);

#endif
