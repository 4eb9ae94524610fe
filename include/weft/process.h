/*
 * Child processes: start one, talk to it, wait for it, end it.
 *
 *     weft_process_options options = {.out = {WEFT_STDIO_PIPE}};
 *     const char *const argv[] = {"uname", "-r", NULL};
 *     weft_process *process;
 *
 *     if ((rc = weft_process_spawn(&options, argv, &process)) == 0) {
 *         n = weft_read(weft_process_stdout(process), buffer, sizeof buffer);
 *         rc = weft_process_wait(process, &status);
 *         weft_process_close(process);
 *     }
 *
 * weft leaves SIGCHLD alone and asks only after its own children, by pidfd (Linux 5.3; before that by looking from
 * time to time). A program that waits for any child, with waitpid(-1), or ignores SIGCHLD, may take a child's status
 * away: since Linux 6.15 weft learns it all the same, before that weft_process_wait returns -ECHILD.
 *
 * The handle is the parent's: all calls may be made from any task and thread of it, at the same time. In a child made
 * with fork(2) it is good for nothing, and weft_process_close gives back its memory and descriptors only.
 */
#ifndef WEFT_PROCESS_H
#define WEFT_PROCESS_H

#include <sys/types.h>
#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_process weft_process;

/* Where a standard descriptor of the child leads. */
enum {
    WEFT_STDIO_INHERIT = 0, /* where the parent's leads */
    WEFT_STDIO_PIPE,        /* to a pipe, whose other end is weft_process_stdin, _stdout or _stderr */
    WEFT_STDIO_NULL,        /* to /dev/null */
    WEFT_STDIO_FD,          /* to where `fd` leads, which stays the caller's */
    WEFT_STDIO_FILE,        /* to the file `path`: read as input, created or emptied as output */
    WEFT_STDIO_APPEND,      /* to the end of the file `path`, created if need be; not for input */
    WEFT_STDIO_STDOUT       /* to where the standard output leads; for `err` only */
};

typedef struct weft_stdio {
    int kind; /* WEFT_STDIO_* */
    int fd;
    const char *path;
} weft_stdio;

enum {
    WEFT_PROCESS_GROUP = 1u << 0,   /* in the process group `group`; 0: it leads a new one */
    WEFT_PROCESS_SESSION = 1u << 1, /* it leads a new session, and group, without a terminal */
    WEFT_PROCESS_KEEP_ALL = 1u << 2 /* it also gets descriptors of the parent that are not close-on-exec */
};

/* How to start a process; zeroed is the default. */
typedef struct weft_process_options {
    weft_stdio in, out, err;
    const char *program;            /* what to execute; NULL: argv[0] */
    const char *const *environment; /* "NAME=VALUE", and NULL at the end; NULL: the parent's */
    const char *directory;          /* where it starts; NULL: where the parent is */
    uint32_t flags;                 /* WEFT_PROCESS_* */
    pid_t group;
    const int *pass; /* `pass_count` descriptors above 2 that it gets, under the same numbers */
    size_t pass_count;
} weft_process_options;

/*
 * Start a program with the arguments `argv`, which ends with NULL; NULL options are the defaults. A program without a
 * slash is looked for in the PATH of its environment; a relative one is relative to `directory`. The child begins with
 * no signal blocked, SIGPIPE and SIGXFSZ at their defaults, and the standard descriptors, those of `pass`, and no
 * others (before Linux 5.11: and those that are not close-on-exec).
 *
 * Returns 0 with the handle in *process, which weft_process_close gives back; -ENOENT, -EACCES, -ENOEXEC, -E2BIG… of
 * executing it, -errno of a directory, group or file that cannot be had, -EAGAIN, -EMFILE, -ENOMEM, -EINVAL. Runs in
 * the blocking pool: -ECANCELED and -ETIMEDOUT mean that nothing was started, and once it runs it is waited for. Task
 * (suspension point), or a thread outside the runtime.
 */
WEFT_API int weft_process_spawn(const weft_process_options *options, const char *const *argv,
                                weft_process **process);

/* As weft_process_spawn, with a command for /bin/sh -c. */
WEFT_API int weft_process_shell(const weft_process_options *options, const char *command, weft_process **process);

/* Its process id; another process may have it once this one has ended. Any thread. */
WEFT_API pid_t weft_process_pid(const weft_process *process);

/*
 * The parent's end of a pipe, for weft_read, weft_write…; -EBADF if there is none, or it was closed or taken. It
 * belongs to the handle. Any thread; not suspension points.
 */
WEFT_API int weft_process_stdin(const weft_process *process);
WEFT_API int weft_process_stdout(const weft_process *process);
WEFT_API int weft_process_stderr(const weft_process *process);

/* Close the end of its standard input: the child reads to the end. 0, or -EBADF. Any thread; not a suspension point. */
WEFT_API int weft_process_close_stdin(weft_process *process);

/*
 * Take the parent's end of the pipe to the child's descriptor `number` (0, 1, 2): it belongs to the caller, who closes
 * it with weft_close. Returns it, or -EBADF. Any thread; not a suspension point.
 */
WEFT_API int weft_process_take(weft_process *process, int number);

/*
 * Wait until it has ended: 0 with its exit status in *status (NULL: not wanted), or -N if signal N ended it. Any
 * number of tasks may wait, and also after its end. -ECANCELED or -ETIMEDOUT: the process goes on. -ECHILD: somebody
 * else has taken its status. Task (suspension point), or a thread outside the runtime, which blocks.
 */
WEFT_API int weft_process_wait(weft_process *process, int *status);

/* Has it ended? 1, with *status as above, 0, or -ECHILD. Any thread; not a suspension point. */
WEFT_API int weft_process_poll(weft_process *process, int *status);

/*
 * Send it a signal, SIGTERM, SIGKILL. A process that has ended is no error, and no other process is ever hit.
 * Returns 0, -EINVAL (no such signal), -EPERM (it has become another user's). Any thread; not suspension points.
 */
WEFT_API int weft_process_signal(weft_process *process, int signal_number);
WEFT_API int weft_process_terminate(weft_process *process);
WEFT_API int weft_process_kill(weft_process *process);

/*
 * Send the signal to the process group that the child leads (WEFT_PROCESS_GROUP, WEFT_PROCESS_SESSION). -EINVAL if it
 * leads none. Those that outlive the child are reached since Linux 6.9. Any thread; not a suspension point.
 */
WEFT_API int weft_process_signal_group(weft_process *process, int signal_number);

/* What communicate has brought; zeroed before the first call. */
typedef struct weft_process_result {
    char *out; /* what came from the standard output, with a zero byte behind it; NULL: nothing */
    size_t out_size;
    char *err;
    size_t err_size;
    size_t fed; /* bytes of the input that have been written */
    int status; /* as of weft_process_wait */
    size_t private_area[2];
} weft_process_result;

/*
 * Write `size` bytes of `input` to the process and close its standard input; read its standard output and error to
 * their ends, all at once; then wait until it has ended. Pipes that there are not are left out; that the process
 * closes its input early is no error. Of each output at most `limit` bytes are kept (0: no limit).
 *
 * Returns 0; -EMSGSIZE if there was more; -ECANCELED, -ETIMEDOUT, -ENOMEM, -ECHILD. The result then holds what has come
 * so far, the process goes on, and unless there was more, a second call with the same arguments takes it up where this
 * one left off. One task at a time; suspension point.
 */
WEFT_API int weft_process_communicate(weft_process *process, const void *input, size_t size, size_t limit,
                                      weft_process_result *result);

/* Free what the result holds, and zero it. Any thread. */
WEFT_API void weft_process_result_free(weft_process_result *result);

/*
 * Spawn, communicate, close. In place of NULL options: the standard output and error to pipes, and the input, if
 * `size` is not 0, else /dev/null. An error ends the process. Task; suspension point.
 */
WEFT_API int weft_process_run(const weft_process_options *options, const char *const *argv, const void *input,
                              size_t size, size_t limit, weft_process_result *result);

/*
 * Kill the process if it runs, wait for its end, close the pipes, free the handle. Neither cancellation nor a deadline
 * ends this wait, which is short: only a system call of the child that cannot be interrupted can make it long. Waits
 * of others that have begun return how the process ended. 0; -EPERM in a stackless task, where nothing is done. NULL
 * is allowed. Task (suspension point), or a thread outside the runtime.
 */
WEFT_API int weft_process_close(weft_process *process);

/*
 * A pipe: ends[0] is read, ends[1] written. Close-on-exec; non-blocking from the first time that weft has to do with
 * an end, so that one which only a child gets (WEFT_STDIO_FD) blocks, as programs expect. 0 or -errno. Any thread; not
 * a suspension point.
 */
WEFT_API int weft_pipe(int ends[2]);

WEFT_END_DECLS

#endif
