/*
 * Starting a child process. Called on a thread of the blocking pool, since a start takes a fraction of a millisecond
 * and may wait for a disk; or on a thread outside the runtime.
 *
 * The child is made with clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD), as posix_spawn(3) makes its own, for two things
 * that posix_spawn cannot do: the pidfd comes with the child, so that there is no moment at which its number may
 * already be another's (a program that ignores SIGCHLD, or waits for any child); and until it executes the program it
 * is no child that waitpid(-1) finds or SIGCHLD tells of, so that one which fails to start is seen by nobody.
 *
 * The child runs in the parent's memory, on a stack of its own, while the parent's thread stands still. So it calls
 * nothing but the kernel: no function of a library that a sanitizer might watch, nothing that takes a lock. All
 * signals are blocked until there is no handler left that could run in it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* clone, pipe2 */
#endif

#include "io/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/last_error.h"
#include "runtime/fork.h"
#include "runtime/poller.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

enum {
    CHILD_STACK = 16 * 1024, /* its frames, and a signal frame, which never comes */
    KERNEL_SIGNALS = 64,
    KERNEL_SIGSET_SIZE = KERNEL_SIGNALS / 8,
    ABOVE_STANDARD = 3,
    EXIT_NOT_STARTED = 127,
};

_Atomic bool weft__process_without_pidfd;

struct launch {
    const weft_process_options *options;
    const char *const *argv;
    char *const *environment;
    const char **programs; /* the paths to try, in this order; NULL at the end */
    int ends[3];           /* where the child's standard descriptors come from, as the parent numbers them */
    bool owned[3];         /* … made here, to be closed afterwards */
    int error;             /* written by the child */
};

/* ---- in the child ---- */

#define IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined"), noinline))

/* As the kernel sees it; the same on x86-64 and AArch64. */
struct kernel_sigaction {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

/* No handler of the parent may run here. What is ignored stays so, but for what servers ignore for themselves only. */
IN_CHILD static void reset_signals(void)
{
    for (int number = 1; number <= KERNEL_SIGNALS; number++) {
        struct kernel_sigaction action = {0, 0, 0, 0};
        bool is_reset;

        if (syscall(SYS_rt_sigaction, number, NULL, &action, KERNEL_SIGSET_SIZE) < 0)
            continue;
        is_reset = action.handler == (uintptr_t)SIG_DFL ||
                   (action.handler == (uintptr_t)SIG_IGN && number != SIGPIPE && number != SIGXFSZ);
        if (is_reset)
            continue;
        action.handler = (uintptr_t)SIG_DFL;
        action.flags = 0;
        action.restorer = 0;
        action.mask = 0;
        syscall(SYS_rt_sigaction, number, &action, NULL, KERNEL_SIGSET_SIZE);
    }
}

IN_CHILD static int join_group(const weft_process_options *options)
{
    if (options->flags & WEFT_PROCESS_SESSION)
        return syscall(SYS_setsid) < 0 ? -1 : 0;
    if (options->flags & WEFT_PROCESS_GROUP)
        return (int)syscall(SYS_setpgid, 0, options->group);
    return 0;
}

/* First out of each other's way, then into place. */
IN_CHILD static int place_standard_descriptors(struct launch *launch)
{
    for (int i = 0; i < ABOVE_STANDARD; i++) {
        int end = launch->ends[i];

        if (end >= ABOVE_STANDARD || end == i)
            continue;
        end = (int)syscall(SYS_fcntl, end, F_DUPFD_CLOEXEC, ABOVE_STANDARD);
        if (end < 0)
            return -1;
        launch->ends[i] = end;
    }
    for (int i = 0; i < ABOVE_STANDARD; i++) {
        if (launch->ends[i] == i)
            syscall(SYS_fcntl, i, F_SETFD, 0); /* it may be closed, as the parent's is */
        else if (syscall(SYS_dup3, launch->ends[i], i, 0) < 0)
            return -1;
    }
    return 0;
}

IN_CHILD static int keep_descriptors(const weft_process_options *options)
{
    if (!(options->flags & WEFT_PROCESS_KEEP_ALL))
        syscall(SYS_close_range, ABOVE_STANDARD, ~0u, CLOSE_RANGE_CLOEXEC);
    for (size_t i = 0; i < options->pass_count; i++)
        if (syscall(SYS_fcntl, options->pass[i], F_SETFD, 0) < 0)
            return -1;
    return 0;
}

/* Try one path after the other, as execvp(3) does: one that may not be executed is told if nothing else is found. */
IN_CHILD static void execute(const struct launch *launch)
{
    bool denied = false;

    for (const char **program = launch->programs; *program; program++) {
        syscall(SYS_execve, *program, launch->argv, launch->environment);
        if (errno == EACCES)
            denied = true;
        else if (errno != ENOENT && errno != ENOTDIR && errno != ENODEV && errno != ESTALE && errno != ETIMEDOUT)
            return;
    }
    if (denied)
        errno = EACCES;
}

IN_CHILD static int child_main(void *arg)
{
    struct launch *launch = arg;
    const weft_process_options *options = launch->options;
    uint64_t none = 0;

    reset_signals();
    if (join_group(options) == 0 && place_standard_descriptors(launch) == 0 &&
        (!options->directory || syscall(SYS_chdir, options->directory) == 0) && keep_descriptors(options) == 0) {
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, KERNEL_SIGSET_SIZE);
        execute(launch);
    }
    launch->error = errno;
    syscall(SYS_exit_group, EXIT_NOT_STARTED);
    return EXIT_NOT_STARTED;
}

/* ---- making it ---- */

/*
 * ThreadSanitizer takes any child for one with a copy of the memory, and gives up watching its parent's thread, which it
 * thinks is the child's. By its other name the function is not known to it.
 */
#if defined(__SANITIZE_THREAD__)
#define WEFT_HIDE_CLONE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEFT_HIDE_CLONE 1
#endif
#endif
#ifdef WEFT_HIDE_CLONE
extern int __clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);
#define clone __clone
#endif

/* Its process id, or -errno. It has executed its program, or failed to, when this returns. */
static int make_child(struct launch *launch, int *pidfd)
{
    char stack[CHILD_STACK] __attribute__((aligned(64)));
    sigset_t all, before;
    int pid = -EINVAL;

    *pidfd = -1;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!atomic_load_explicit(&weft__process_without_pidfd, memory_order_relaxed))
        pid = (int)weft__result_of(
            clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD, launch, pidfd));
    if (pid == -EINVAL) /* Linux before 5.2 */
        pid = (int)weft__result_of(clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK, launch));
    if (pid == -EINVAL) /* qemu's user emulation, which makes a fork of it */
        pid =
            (int)weft__result_of(clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, launch));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

/* A descriptor that must not be mistaken for a standard one: in a parent where one of those is closed. */
static int above_standard(int fd)
{
    int above;

    if (fd < 0 || fd >= ABOVE_STANDARD)
        return fd;
    above = (int)weft__result_of(fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_STANDARD));
    close(fd);
    return above;
}

static int start(struct launch *launch, weft_process *process)
{
    int pidfd;
    int pid = make_child(launch, &pidfd);

    if (pid < 0)
        return pid;
    if (launch->error) {
        while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
            ;
        if (pidfd >= 0)
            close(pidfd);
        return -launch->error;
    }
    process->pid = pid;
    process->pidfd = above_standard(pidfd);
    if (process->pidfd < 0) /* as on a kernel that has none */
        process->pidfd = -1;
    else
        weft__fd_opened(process->pidfd, WEFT__FD_NONBLOCK); /* it is never read */
    return 0;
}

/* ---- its standard descriptors ---- */

static int open_for_child(const char *path, int flags)
{
    /* Not to wait for the other side of a FIFO. */
    int fd = above_standard((int)weft__result_of(open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666)));

    if (fd >= 0)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return fd;
}

/*
 * The end of a pipe that weft has had to do with is non-blocking, and so would be the child's: the same pipe is opened
 * anew for it. Other descriptors are passed on as they are. -1: as it is.
 */
static int reopen_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    struct stat status;
    char path[32];

    if (flags < 0 || !(flags & O_NONBLOCK) || fstat(fd, &status) < 0 || !S_ISFIFO(status.st_mode))
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open_for_child(path, flags & O_ACCMODE);
}

static int pass_on(struct launch *launch, int number, int fd)
{
    int own = reopen_blocking(fd);

    if (own < 0 && fcntl(fd, F_GETFD) < 0)
        return -EBADF;
    launch->ends[number] = own >= 0 ? own : fd;
    launch->owned[number] = own >= 0;
    return 0;
}

static int make_pipe(struct launch *launch, int number, weft_process *process)
{
    int childs = number == 0 ? 0 : 1;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    ends[0] = above_standard(ends[0]);
    ends[1] = above_standard(ends[1]);
    if (ends[0] < 0 || ends[1] < 0) {
        int rc = ends[0] < 0 ? ends[0] : ends[1];

        if (ends[0] >= 0)
            close(ends[0]);
        if (ends[1] >= 0)
            close(ends[1]);
        return rc;
    }
    launch->ends[number] = ends[childs];
    launch->owned[number] = true;
    weft__fd_opened(ends[!childs], 0);
    atomic_store_explicit(&process->ends[number], ends[!childs], memory_order_relaxed);
    return 0;
}

static int open_file(struct launch *launch, int number, const char *path, int flags)
{
    int fd;

    if (!path)
        return -EINVAL;
    fd = open_for_child(path, flags);
    if (fd < 0)
        return fd;
    launch->ends[number] = fd;
    launch->owned[number] = true;
    return 0;
}

static int make_end(struct launch *launch, int number, const weft_stdio *stdio, weft_process *process)
{
    launch->ends[number] = number;
    switch (stdio->kind) {
    case WEFT_STDIO_INHERIT:
        return 0;
    case WEFT_STDIO_PIPE:
        return make_pipe(launch, number, process);
    case WEFT_STDIO_NULL:
        return open_file(launch, number, "/dev/null", O_RDWR);
    case WEFT_STDIO_FD:
        return pass_on(launch, number, stdio->fd);
    case WEFT_STDIO_FILE:
        return open_file(launch, number, stdio->path, number == 0 ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC);
    case WEFT_STDIO_APPEND:
        return number == 0 ? -EINVAL : open_file(launch, number, stdio->path, O_WRONLY | O_CREAT | O_APPEND);
    case WEFT_STDIO_STDOUT:
        if (number != 2)
            return -EINVAL;
        launch->ends[2] = launch->ends[1];
        return 0;
    default:
        return -EINVAL;
    }
}

static int make_ends(struct launch *launch, weft_process *process)
{
    const weft_stdio *wanted[3] = {&launch->options->in, &launch->options->out, &launch->options->err};
    int rc = 0;

    for (int i = 0; i < 3 && rc == 0; i++)
        rc = make_end(launch, i, wanted[i], process);
    return rc;
}

static void close_ends(struct launch *launch)
{
    for (int i = 0; i < 3; i++)
        if (launch->owned[i])
            close(launch->ends[i]);
}

/* ---- what to execute ---- */

static const char *search_path(char *const *environment)
{
    for (; environment && *environment; environment++)
        if (strncmp(*environment, "PATH=", 5) == 0)
            return *environment + 5;
    return "/usr/local/bin:/usr/bin:/bin";
}

static size_t count_colons(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += *text == ':';
    return n;
}

/* All of them in one piece of memory: the pointers, then the texts. */
static int list_programs(struct launch *launch, const char *name)
{
    bool is_path = strchr(name, '/') != NULL;
    const char *path = is_path ? "" : search_path(launch->environment);
    size_t count = count_colons(path) + 1, length = strlen(name);
    const char **programs = malloc((count + 1) * sizeof *programs + strlen(path) + count * (length + 2));
    char *text;

    if (!programs)
        return -ENOMEM;
    text = (char *)(programs + count + 1);
    for (size_t i = 0; i < count; i++) {
        size_t n = strcspn(path, ":");

        programs[i] = text;
        memcpy(text, path, n);
        if (n > 0) /* nothing stands for the directory where it starts */
            text[n++] = '/';
        memcpy(text + n, name, length + 1);
        text += n + length + 1;
        path += strcspn(path, ":");
        path += *path == ':';
    }
    programs[count] = NULL;
    launch->programs = programs;
    return 0;
}

static int check(const weft_process_options *options, const char *const *argv)
{
    if (!argv || !argv[0] || (options->pass_count > 0 && !options->pass) || options->group < 0)
        return -EINVAL;
    for (size_t i = 0; i < options->pass_count; i++)
        if (options->pass[i] < ABOVE_STANDARD)
            return -EINVAL;
    return *(options->program ? options->program : argv[0]) ? 0 : -ENOENT;
}

int weft__process_launch(const weft_process_options *options, const char *const *argv, weft_process *process)
{
    struct launch launch = {.options = options, .argv = argv};
    int rc = check(options, argv);

    if (rc < 0)
        return rc;
    launch.environment = options->environment ? (char *const *)(uintptr_t)options->environment : environ;
    rc = list_programs(&launch, options->program ? options->program : argv[0]);
    if (rc < 0)
        return rc;
    rc = make_ends(&launch, process);
    if (rc == 0)
        rc = start(&launch, process);
    close_ends(&launch);
    free(launch.programs);
    process->forks = weft__forks;
    process->leads_group =
        (options->flags & WEFT_PROCESS_SESSION) || ((options->flags & WEFT_PROCESS_GROUP) && options->group == 0);
    return rc;
}
