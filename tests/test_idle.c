/* A runtime whose tasks all wait costs nothing. */
#include <sys/resource.h>
#include <sys/socket.h>

#include "support.h"

enum { PARKED = 1000 };

static weft_event never;
static int fds[2];
static atomic_int started;

static intptr_t waits(void *arg)
{
    char byte;

    atomic_fetch_add(&started, 1);
    switch ((intptr_t)arg % 4) {
    case 0:
        return weft_event_wait(&never);
    case 1:
        return weft_sleep(WEFT_SEC(3600));
    case 2:
        return weft_read(fds[0], &byte, 1);
    default:
        return weft_await(weft_spawn(sleep_for_ever, NULL));
    }
}

/* Voluntary and involuntary switches of every thread of the process but this one. */
static uint64_t context_switches(void)
{
    DIR *directory = opendir("/proc/self/task");
    struct dirent *one;
    uint64_t sum = 0;

    must(directory != NULL);
    while ((one = readdir(directory))) {
        char path[300], line[256];
        FILE *file;

        if (one->d_name[0] == '.' || atoi(one->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", one->d_name);
        file = fopen(path, "r");
        while (file && fgets(line, sizeof line, file)) {
            char *number = strstr(line, "voluntary_ctxt_switches:");

            if (number)
                sum += strtoull(strchr(number, ':') + 1, NULL, 10);
        }
        if (file)
            fclose(file);
    }
    closedir(directory);
    return sum;
}

static int64_t processor_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void stays_quiet(uint32_t workers)
{
    weft_config config = {.workers = workers};
    uint64_t switches = UINT64_MAX;
    int64_t used = INT64_MAX;
    weft_runtime *runtime;

    atomic_store(&started, 0);
    never = (weft_event)WEFT_EVENT_INIT;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(weft_runtime_start(&config, &runtime), 0);
    for (intptr_t i = 0; i < PARKED; i++)
        assert_int_equal(weft_runtime_go(runtime, waits, (void *)i), 0);
    while (atomic_load(&started) < PARKED)
        nap(WEFT_MS(1));
    assert_int_equal(weft_runtime_run(runtime, return_arg, (void *)1), 1);

    /* It may take a moment to settle on a machine that has other things to do. */
    for (int attempt = 0; attempt < 5 && (switches > 0 || used > WEFT_MS(2)); attempt++) {
        int64_t before;

        nap(WEFT_MS(300));
        switches = context_switches();
        before = processor_time();
        nap(WEFT_SEC(1));
        used = processor_time() - before;
        switches = context_switches() - switches;
    }
    print_message("%u workers, %d parked tasks: %llu context switches and %.3f ms of processor time in a second\n",
                  workers, PARKED, (unsigned long long)switches, (double)used / 1e6);
    assert_true(switches <= (SUPPORT_SANITIZED ? 40 : 2));
    assert_true(used < WEFT_MS(SUPPORT_SANITIZED ? 50 : 2));
    /* And it is still there. */
    assert_int_equal(weft_runtime_run(runtime, return_arg, (void *)5), 5);
    assert_int_equal(weft_runtime_stop(runtime, WEFT_SEC(20)), 0);
    weft_close(fds[0]);
    weft_close(fds[1]);
}

static void a_thousand_parked_tasks_cost_nothing(void **state)
{
    (void)state;
    stays_quiet(1);
    stays_quiet(4);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_parked_tasks_cost_nothing),
    };

    return run_all(tests, argc, argv);
}
