/*
 * The handle of a child process: waiting, signals, its pipes, closing. Any thread; waiting is for tasks, and for
 * threads outside a runtime, which block.
 *
 * Who reaps. The end of a child is noticed by who waits for its pidfd, each on its own; whoever comes first asks for
 * the status, under the lock, which takes the child off the kernel's list, and publishes it by the store to `state`
 * (release; pairs with the acquire loads of `state`). A child nobody waits for is reaped when its handle is closed.
 *
 * A signal goes to the pidfd, which means this process and none that gets its number later. Without pidfds it goes to
 * the number, under the lock: while `state` says that it runs it has not been reaped here, and that nobody else has is
 * asked of the kernel first.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2 */
#endif

#include "io/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <weft/blocking.h>
#include <weft/fd.h>
#include <weft/scope.h>
#include <weft/time.h>

#include "io/last_error.h"
#include "runtime/fork.h"
#include "runtime/park.h"
#include "runtime/poller.h"

enum {
    WAIT_BY_PIDFD = 3,     /* P_PIDFD of waitid(2) */
    SIGNAL_GROUP = 1 << 2, /* PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9 */
    LOOK_NS = 500 * 1000,  /* without a pidfd: look again after this, then twice as long … */
    LOOK_MOST_NS = 20 * 1000 * 1000,
};

/* ---- how it ended ---- */

/* PIDFD_GET_INFO, Linux 6.13, and its exit status, 6.15: also of a child that somebody else has reaped. */
struct pidfd_info {
    uint64_t mask;
    uint64_t cgroup;
    uint32_t ids[11];
    int32_t exit_code;
    uint32_t others[2];
};

enum { INFO_EXIT = 1 << 3 };

#define GET_INFO _IOWR(0xFF, 11, struct pidfd_info)

static void publish(weft_process *process, enum weft__process_state state, int status)
{
    process->status = status;
    atomic_store_explicit(&process->state, state, memory_order_release);
}

/* Somebody else has reaped it, or it is not a child of this process. */
static void ask_the_pidfd(weft_process *process)
{
    struct pidfd_info info = {.mask = INFO_EXIT};

    if (process->pidfd >= 0 && ioctl(process->pidfd, GET_INFO, &info) == 0 && (info.mask & INFO_EXIT))
        publish(process, WEFT__PROCESS_ENDED,
                WIFSIGNALED(info.exit_code) ? -WTERMSIG(info.exit_code) : WEXITSTATUS(info.exit_code));
    else
        publish(process, WEFT__PROCESS_LOST, 0);
}

static int wait_id(const weft_process *process, siginfo_t *info, int options)
{
    int rc = -EINVAL;

    info->si_pid = 0;
    if (process->pidfd >= 0)
        rc = (int)weft__result_of(waitid((idtype_t)WAIT_BY_PIDFD, (id_t)process->pidfd, info, options));
    if (rc == -EINVAL) /* no pidfd, or Linux before 5.4 */
        rc = (int)weft__result_of(waitid(P_PID, (id_t)process->pid, info, options));
    return rc;
}

static void look_locked(weft_process *process)
{
    siginfo_t info;
    int rc;

    if (atomic_load_explicit(&process->state, memory_order_relaxed) != WEFT__PROCESS_RUNS)
        return;
    rc = wait_id(process, &info, WEXITED | WNOHANG | __WALL);
    if (rc == -ECHILD)
        ask_the_pidfd(process);
    else if (rc == 0 && info.si_pid != 0)
        publish(process, WEFT__PROCESS_ENDED, info.si_code == CLD_EXITED ? info.si_status : -info.si_status);
}

/* Has it ended? Reaps it. */
static bool has_ended(weft_process *process)
{
    if (atomic_load_explicit(&process->state, memory_order_acquire) != WEFT__PROCESS_RUNS)
        return true;
    weft__lock_enter(&process->lock);
    look_locked(process);
    weft__lock_leave(&process->lock);
    return atomic_load_explicit(&process->state, memory_order_acquire) != WEFT__PROCESS_RUNS;
}

int weft__process_outcome(const weft_process *process, int *status)
{
    if (atomic_load_explicit(&process->state, memory_order_acquire) == WEFT__PROCESS_LOST)
        return -ECHILD;
    if (status)
        *status = process->status;
    return 0;
}

/* ---- waiting ---- */

static int pause_thread(int64_t ns)
{
    struct timespec ts = {ns / 1000000000, ns % 1000000000};

    nanosleep(&ts, NULL);
    return 0;
}

static int pause_caller(bool in_task, int64_t *ns)
{
    int rc = in_task ? weft_sleep(*ns) : pause_thread(*ns);

    *ns = *ns * 2 < LOOK_MOST_NS ? *ns * 2 : LOOK_MOST_NS;
    return rc;
}

static int poll_thread(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    poll(&one, 1, -1);
    return 0;
}

/* A pidfd can be ready before its owner may know: while a debugger has the first claim. */
static int wait_for_change(const weft_process *process, bool in_task, unsigned turn, int64_t *pause)
{
    int rc;

    if (process->pidfd < 0 || turn > 0)
        return pause_caller(in_task, pause);
    if (!in_task)
        return poll_thread(process->pidfd);
    rc = weft_poll(process->pidfd, POLLIN, WEFT_FOREVER);
    return rc < 0 ? rc : 0;
}

int weft__process_await(weft_process *process)
{
    bool in_task = weft__coroutine_self() != NULL;
    int64_t pause = LOOK_NS;

    for (unsigned turn = 0; !has_ended(process); turn++) {
        int rc = wait_for_change(process, in_task, turn, &pause);

        if (rc < 0)
            return rc;
    }
    return 0;
}

int weft_process_wait(weft_process *process, int *status)
{
    int rc;

    if (!process)
        return -EINVAL;
    rc = weft__suspend_check();
    if (rc < 0)
        return rc;
    weft__process_hold(process);
    rc = weft__process_await(process);
    if (rc == 0)
        rc = weft__process_outcome(process, status);
    weft__process_release(process);
    return rc;
}

int weft_process_poll(weft_process *process, int *status)
{
    int rc;

    if (!process)
        return -EINVAL;
    if (!has_ended(process))
        return 0;
    rc = weft__process_outcome(process, status);
    return rc < 0 ? rc : 1;
}

/* ---- signals ---- */

static int signal_pidfd(int pidfd, int signal_number, unsigned flags)
{
    return (int)weft__result_of(syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, flags));
}

/* `pid`: its number, or that of its group. */
static int signal_number_locked(weft_process *process, pid_t pid, int signal_number)
{
    siginfo_t info;

    if (atomic_load_explicit(&process->state, memory_order_relaxed) != WEFT__PROCESS_RUNS)
        return 0;
    if (wait_id(process, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == -ECHILD)
        return 0;
    return (int)weft__result_of(kill(pid, signal_number));
}

static int signal_by_number(weft_process *process, pid_t pid, int signal_number)
{
    int rc;

    weft__lock_enter(&process->lock);
    rc = signal_number_locked(process, pid, signal_number);
    weft__lock_leave(&process->lock);
    return rc;
}

int weft_process_signal(weft_process *process, int signal_number)
{
    int rc;

    if (!process)
        return -EINVAL;
    rc = process->pidfd >= 0 ? signal_pidfd(process->pidfd, signal_number, 0)
                             : signal_by_number(process, process->pid, signal_number);
    return rc == -ESRCH ? 0 : rc;
}

int weft_process_terminate(weft_process *process)
{
    return weft_process_signal(process, SIGTERM);
}

int weft_process_kill(weft_process *process)
{
    return weft_process_signal(process, SIGKILL);
}

int weft_process_signal_group(weft_process *process, int signal_number)
{
    int rc = -EINVAL;

    if (!process || !process->leads_group || signal_number < 0 || signal_number > SIGRTMAX)
        return -EINVAL;
    if (process->pidfd >= 0)
        rc = signal_pidfd(process->pidfd, signal_number, SIGNAL_GROUP);
    if (rc == -EINVAL)
        rc = signal_by_number(process, -process->pid, signal_number);
    return rc == -ESRCH ? 0 : rc;
}

/* ---- pipes ---- */

static int end_of(const weft_process *process, int number)
{
    int fd = process ? atomic_load_explicit(&process->ends[number], memory_order_relaxed) : -1;

    return fd < 0 ? -EBADF : fd;
}

pid_t weft_process_pid(const weft_process *process)
{
    return process->pid;
}

int weft_process_stdin(const weft_process *process)
{
    return end_of(process, STDIN_FILENO);
}

int weft_process_stdout(const weft_process *process)
{
    return end_of(process, STDOUT_FILENO);
}

int weft_process_stderr(const weft_process *process)
{
    return end_of(process, STDERR_FILENO);
}

int weft_process_take(weft_process *process, int number)
{
    bool is_shared;
    int fd;

    if (!process || number < 0 || number > 2)
        return -EBADF;
    /* Under the lock, as weft_process_communicate may be about to use it; in the child of a fork nobody is, and the lock
     * may have been held. relaxed: of several takers one gets it, and a descriptor needs no other memory to be seen */
    is_shared = process->forks == weft__forks;
    if (is_shared)
        weft__lock_enter(&process->lock);
    fd = atomic_exchange_explicit(&process->ends[number], -1, memory_order_relaxed);
    if (is_shared)
        weft__lock_leave(&process->lock);
    return fd < 0 ? -EBADF : fd;
}

int weft__process_close_end(weft_process *process, int number)
{
    int fd = weft_process_take(process, number);

    return fd < 0 ? fd : weft_close(fd);
}

int weft_process_close_stdin(weft_process *process)
{
    return weft__process_close_end(process, STDIN_FILENO);
}

int weft_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -weft__last_error();
    weft__fd_opened(ends[0], 0);
    weft__fd_opened(ends[1], 0);
    return 0;
}

/* ---- beginning and end ---- */

static weft_process *new_process(void)
{
    weft_process *process = calloc(1, sizeof *process);

    if (!process)
        return NULL;
    process->pidfd = -1;
    atomic_store_explicit(&process->references, 1, memory_order_relaxed);
    for (int i = 0; i < 3; i++)
        atomic_store_explicit(&process->ends[i], -1, memory_order_relaxed);
    return process;
}

void weft__process_hold(weft_process *process)
{
    atomic_fetch_add_explicit(&process->references, 1, memory_order_relaxed);
}

void weft__process_release(weft_process *process)
{
    /* acq_rel: who frees it has seen what the others did with it */
    if (atomic_fetch_sub_explicit(&process->references, 1, memory_order_acq_rel) != 1)
        return;
    if (process->pidfd >= 0)
        weft_close(process->pidfd);
    free(process);
}

struct spawning {
    const weft_process_options *options;
    const char *const *argv;
    weft_process *process;
};

static intptr_t launch(void *arg)
{
    struct spawning *spawning = arg;

    return weft__process_launch(spawning->options, spawning->argv, spawning->process);
}

int weft_process_spawn(const weft_process_options *options, const char *const *argv, weft_process **process)
{
    static const weft_process_options defaults;
    struct spawning spawning = {options ? options : &defaults, argv, NULL};
    int rc;

    if (!process)
        return -EINVAL;
    *process = NULL;
    rc = weft__suspend_check();
    if (rc == 0)
        rc = weft__fork_watch(); /* so that weft__forks counts */
    if (rc < 0)
        return rc;
    spawning.process = new_process();
    if (!spawning.process)
        return -ENOMEM;
    rc = (int)(weft__coroutine_self() ? weft_blocking(launch, &spawning) : launch(&spawning));
    if (rc == 0) {
        *process = spawning.process;
        return 0;
    }
    for (int i = 0; i < 3; i++)
        weft__process_close_end(spawning.process, i);
    weft__process_release(spawning.process);
    return rc;
}

int weft_process_shell(const weft_process_options *options, const char *command, weft_process **process)
{
    const char *const argv[] = {"sh", "-c", command, NULL};
    weft_process_options with_shell = {0};

    if (!command)
        return -EINVAL;
    if (options)
        with_shell = *options;
    with_shell.program = "/bin/sh";
    return weft_process_spawn(&with_shell, argv, process);
}

/* Masked: the child that was killed is waited for in any case. */
static void end_child(weft_process *process)
{
    bool masked = weft__mask_begin();

    while (!has_ended(process)) {
        weft_process_kill(process);
        if (weft__process_await(process) < 0)
            pause_thread(LOOK_NS); /* there is no memory to wait with */
    }
    if (masked)
        weft_mask_end();
}

int weft_process_close(weft_process *process)
{
    bool masked;
    int rc;

    if (!process)
        return 0;
    masked = weft__mask_begin();
    rc = weft__suspend_check();
    if (masked)
        weft_mask_end();
    if (rc < 0)
        return rc;
    for (int i = 0; i < 3; i++)
        weft__process_close_end(process, i);
    if (process->forks == weft__forks)
        end_child(process);
    weft__process_release(process);
    return 0;
}
