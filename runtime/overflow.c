/*
 * Stack overflow: owns the process's SIGSEGV and SIGBUS handler and the alternate signal stacks of the
 * threads that run coroutines (a handler cannot run on the stack that has just ended).
 *
 * weft__overflow_install is called by the thread that starts a runtime, thread_begin and thread_end by each
 * worker thread, on its own stack; the handler runs on whichever thread faults. `previous` is written under a
 * mutex before our handler is in force, and only read afterwards, but for a handler that was to be used once.
 *
 * A fault that is not an overflow goes to the handler that was there before weft's. A program that installs
 * a handler of its own after a runtime was started replaces weft's, and overflows are its business then.
 */
#include "runtime/stack.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Room for a previous handler that prints a backtrace, say. */
#define HANDLER_ROOM 16384

static struct {
    pthread_mutex_t mutex; /* for `installed` */
    int installed;
    struct sigaction previous_segv;
    struct sigaction previous_bus;
} overflow = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* The mapping of the alternate stack that we gave this thread, guard included. */
static __thread struct {
    char *base;
    size_t bytes;
} alternate;

/* The message: in a signal handler, so nothing but write(2). */

struct text {
    size_t length;
    char bytes[512];
};

static void add(struct text *text, const char *string)
{
    for (; *string && text->length < sizeof(text->bytes); string++)
        text->bytes[text->length++] = *string;
}

static void add_number(struct text *text, uintptr_t value, unsigned base)
{
    char digits[24];
    char *at = digits + sizeof(digits) - 1;

    *at = '\0';
    do {
        *--at = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    add(text, at);
}

static void report(const struct weft__overflow_site *site)
{
    struct text text = {.length = 0};
    ssize_t written;

    add(&text, "weft: stack overflow in task ");
    if (site->task_name && site->task_name[0]) {
        add(&text, "'");
        add(&text, site->task_name);
        add(&text, "' ");
    }
    add(&text, "(0x");
    add_number(&text, (uintptr_t)site->task, 16);
    add(&text, "): it used more than its ");
    add_number(&text, site->stack_size, 10);
    add(&text, " bytes of stack. Raise WEFT_STACK_SIZE (bytes, K or M suffix), or stack_size in "
               "weft_spawn_options.\n");
    written = write(STDERR_FILENO, text.bytes, text.length);
    (void)written; /* the process ends all the same */
}

/* The handler. */

static void set_default(int signal_number)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    sigaction(signal_number, &action, NULL);
}

static int sent_by_kernel(const siginfo_t *info)
{
    return info->si_code > 0;
}

/* A fault happens again when the handler returns, at the same instruction, which is what a core dump should
 * show. A signal that somebody sent must be sent again. */
static void die(int signal_number, const siginfo_t *info)
{
    set_default(signal_number);
    if (!sent_by_kernel(info))
        raise(signal_number); /* blocked until the handler returns */
}

/* The signals that the previous handler wants blocked; returning from ours restores the mask. */
static void block_as(const struct sigaction *action, int signal_number)
{
    sigset_t own;

    pthread_sigmask(SIG_BLOCK, &action->sa_mask, NULL);
    if (action->sa_flags & SA_NODEFER) {
        sigemptyset(&own);
        sigaddset(&own, signal_number);
        pthread_sigmask(SIG_UNBLOCK, &own, NULL);
    }
}

/* Unlike the kernel, this runs the previous handler on the alternate stack even if it did not ask for that. */
static void hand_over(struct sigaction *previous, int signal_number, siginfo_t *info, void *context)
{
    struct sigaction action = *previous;

    if (!(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_IGN && !sent_by_kernel(info))
        return;
    if (!(action.sa_flags & SA_SIGINFO) && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {
        die(signal_number, info); /* the kernel does not let a fault be ignored either */
        return;
    }
    if (action.sa_flags & (int)SA_RESETHAND)
        *previous = (struct sigaction){.sa_handler = SIG_DFL};
    block_as(&action, signal_number);
    if (action.sa_flags & SA_SIGINFO)
        action.sa_sigaction(signal_number, info, context);
    else
        action.sa_handler(signal_number);
}

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    struct sigaction *previous = signal_number == SIGBUS ? &overflow.previous_bus : &overflow.previous_segv;
    struct weft__overflow_site site = {.task_name = ""};
    int saved = errno;

    if (sent_by_kernel(info) && weft__overflow_lookup(info->si_addr, &site)) {
        report(&site);
        die(signal_number, info);
    } else {
        hand_over(previous, signal_number, info, context);
    }
    errno = saved;
}

/* 0 or -errno. The old action is known before ours is in force. */
static int install(int signal_number, struct sigaction *previous)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    if (sigaction(signal_number, NULL, previous) < 0 || sigaction(signal_number, &action, NULL) < 0)
        return -errno;
    return 0;
}

int weft__overflow_install(void)
{
    int rc = 0;

    pthread_mutex_lock(&overflow.mutex);
    if (overflow.installed)
        goto out;
    rc = install(SIGSEGV, &overflow.previous_segv);
    if (rc < 0)
        goto out;
    rc = install(SIGBUS, &overflow.previous_bus);
    if (rc < 0) {
        sigaction(SIGSEGV, &overflow.previous_segv, NULL);
        goto out;
    }
    overflow.installed = 1;
out:
    pthread_mutex_unlock(&overflow.mutex);
    return rc;
}

/* The alternate stacks. */

static size_t alternate_bytes(size_t page)
{
    long least = sysconf(_SC_MINSIGSTKSZ); /* depends on the processor's registers */
    long usual = SIGSTKSZ;
    long wanted = (least > 0 ? least : 0) + HANDLER_ROOM;

    if (wanted < usual)
        wanted = usual;
    return ((size_t)wanted + page - 1) / page * page;
}

int weft__overflow_thread_begin(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable = alternate_bytes(page);
    stack_t stack;
    char *base;
    int rc;

    if (sigaltstack(NULL, &stack) < 0)
        return -errno;
    if (!(stack.ss_flags & SS_DISABLE))
        return 0;
    base = mmap(NULL, page + usable, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    (void)mprotect(base, page, PROT_NONE); /* better without a guard than without a stack */
    stack = (stack_t){.ss_sp = base + page, .ss_size = usable};
    if (sigaltstack(&stack, NULL) < 0) {
        rc = -errno;
        munmap(base, page + usable);
        return rc;
    }
    alternate.base = base;
    alternate.bytes = page + usable;
    return 0;
}

static int in_force(const char *base, size_t bytes)
{
    stack_t stack;

    if (sigaltstack(NULL, &stack) < 0)
        return 1;
    return !(stack.ss_flags & SS_DISABLE) && (char *)stack.ss_sp >= base && (char *)stack.ss_sp < base + bytes;
}

void weft__overflow_thread_end(void)
{
    stack_t none = {.ss_flags = SS_DISABLE};

    if (!alternate.base)
        return;
    if (in_force(alternate.base, alternate.bytes) && sigaltstack(&none, NULL) < 0)
        return; /* it is being run on */
    munmap(alternate.base, alternate.bytes);
    alternate.base = NULL;
}
