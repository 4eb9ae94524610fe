/*
 * Scopes, and what ends a wait: cancellation and deadlines of the calling task and of those it runs in place for.
 * Called by the task itself, on its own stack.
 *
 * A task that runs in place for another one must not be able to tell: if its awaiter is cancelled or late, it is
 * cancelled, once, just as the awaiter would cancel it from its own stack. Nobody else can do that, since the
 * awaiter is stuck below; so every wait looks down the chain (weft_task.under) and passes on what it finds.
 */
#include <errno.h>
#include <weft/scope.h>
#include <weft/time.h>

#include "runtime/clock.h"
#include "runtime/debug.h"
#include "runtime/task_end.h"

/*
 * The budget: suspension points that a task may pass before it lets others run, if it never has to wait. Of some ten
 * nanoseconds each in a channel that is always ready, so that passing on costs a few percent; of some microseconds
 * each with descriptors, so that the others wait for a few hundred. Tokio gives 128, too. It is counted per worker, not
 * per task: whoever finds it spent passes on.
 */
enum { CALLS_A_TURN = 128 };

/* ---- what ends a wait ---- */

static bool is_cancelled(const weft_task *task)
{
    return task->mask == 0 && weft__is_cancelled_early(weft__driver(), task);
}

/* A scope begun before the innermost mask does not reach its task until that mask ends; nor do those outside it. */
static bool holds(const weft_timeout *scope, const weft_task *task)
{
    return scope && scope->mask == task->mask;
}

static weft_timeout *earliest_scope(const weft_task *task)
{
    weft_timeout *earliest = NULL;

    for (weft_timeout *scope = task->scopes; holds(scope, task); scope = scope->outer)
        if (!earliest || scope->deadline <= earliest->deadline)
            earliest = scope;
    return earliest;
}

/* Has a child of a group failed whose body this is? */
static bool is_failed_body(const weft_task *task)
{
    for (weft_timeout *scope = task->scopes; holds(scope, task); scope = scope->outer)
        if (__atomic_load_n(&scope->passed, __ATOMIC_RELAXED) & WEFT__BODY_CANCELLED)
            return true;
    return false;
}

/* Is this task, by itself, cancelled or late? */
static int reason_to_end(weft_task *task)
{
    weft_timeout *scope;

    if (is_cancelled(task))
        return -ECANCELED;
    if (!(task->flags & WEFT__FLAG_SCOPES))
        return 0;
    if (is_failed_body(task))
        return -ECANCELED;
    scope = earliest_scope(task);
    if (!scope || scope->deadline == WEFT_FOREVER || scope->deadline > weft__clock_now())
        return 0;
    /* Relaxed, atomic: a scope that a group's children inherit is shared, and only its owner asks. */
    __atomic_store_n(&scope->passed, 1, __ATOMIC_RELAXED);
    return -ETIMEDOUT;
}

/* Cancel every task that runs in place for one that is cancelled or late. */
static void pass_on(weft_task *innermost, const weft_task *root)
{
    weft_task *child = innermost;

    while (child != root) {
        weft_task *task = child->under;
        int reason = task->flags & WEFT__FLAG_FORWARDED ? 0 : reason_to_end(task);

        if (reason == 0) {
            child = task;
            continue;
        }
        task->flags |= WEFT__FLAG_FORWARDED | (reason == -ETIMEDOUT ? WEFT__FLAG_TIMED_OUT : 0);
        atomic_fetch_or_explicit(&child->state, WEFT__CANCEL, memory_order_relaxed);
        if (weft__observed())
            weft__observe(WEFT_TRACE_CANCEL, child, 0);
        weft__child_interrupted(child);
        /* The child is cancelled now: start again from the inside. */
        child = innermost;
    }
}

/* The earliest deadline that can still end a wait of this task. */
static int64_t earliest_deadline(const weft_task *task, const weft_task *root)
{
    int64_t deadline = WEFT_FOREVER;

    for (;; task = task->under) {
        const weft_timeout *scope = task->flags & WEFT__FLAG_SCOPES ? earliest_scope(task) : NULL;

        if (scope && scope->deadline < deadline && !(task->flags & WEFT__FLAG_FORWARDED))
            deadline = scope->deadline;
        if (task->mask > 0 || task == root)
            return deadline;
    }
}

int64_t weft__deadline(const weft_task *root)
{
    return earliest_deadline(root->current, root);
}

int weft__interrupt_stackless(weft_task *task, int64_t *deadline)
{
    int reason;

    /* Full fence: pairs with weft__state_cancel, as in weft__interrupt. */
    atomic_thread_fence(memory_order_seq_cst);
    reason = reason_to_end(task);
    *deadline = reason == 0 && (task->flags & WEFT__FLAG_SCOPES) ? earliest_deadline(task, task) : WEFT_FOREVER;
    return reason;
}

static __attribute__((noinline)) int interrupt_of_chain(weft_task *task, const weft_task *root, int64_t *deadline)
{
    int reason;

    if (weft__is_stackless(task))
        return weft__interrupt_stackless(task, deadline);
    pass_on(task, root);
    reason = reason_to_end(task);
    *deadline = reason == 0 ? earliest_deadline(task, root) : WEFT_FOREVER;
    return reason;
}

int weft__interrupt(weft_task *root, int64_t *deadline)
{
    weft_task *task = root->current;

    /* The full fence that pairs with weft__state_cancel: either the canceller sees `root`, stored before, and makes
     * it ready, or the flag is seen here. A root had its fence when it started (coroutine_main). */
    if (task != root)
        atomic_thread_fence(memory_order_seq_cst);
    *deadline = WEFT_FOREVER;
    if (__builtin_expect(task == root && !(task->flags & WEFT__FLAG_SCOPES) &&
                             !weft__is_cancelled_early(weft__driver(), task),
                         1))
        return 0;
    return interrupt_of_chain(task, root, deadline);
}

bool weft__is_cancelled_chain(weft_task *task, const weft_task *root)
{
    if (!weft__is_stackless(task))
        pass_on(task, root);
    return is_cancelled(task);
}

int weft__check_cancelled_chain(weft_task *task, const weft_task *root)
{
    if (weft__is_cancelled_chain(task, root))
        return -ECANCELED;
    return weft__is_stackless(task) ? weft__misused_stackless("a call that suspends") : 0;
}

/* The running task has had its turn. */
static __attribute__((noinline)) struct weft__driver *spend_turn(struct weft__driver *driver)
{
    driver->calls = 0;
    return driver->coroutine == &driver->stepper ? driver : weft__pass_on(driver);
}

static __attribute__((noinline)) int suspend_check_slowly(struct weft__driver *driver)
{
    if (driver->calls >= CALLS_A_TURN)
        driver = spend_turn(driver);
    return weft__check_cancelled(driver);
}

int weft__suspend_check(void)
{
    struct weft__driver *driver = weft__driver();
    weft_task *root;

    if (!driver || !driver->coroutine)
        return 0;
    root = driver->coroutine;
    if (__builtin_expect(
            ++driver->calls >= CALLS_A_TURN || root->current != root || weft__is_cancelled_early(driver, root), 0))
        return suspend_check_slowly(driver);
    return 0;
}

/* ---- bodies of groups ---- */

void weft__body_begin(weft_task *task, weft_timeout *body)
{
    *body = (weft_timeout){.outer = task->scopes, .deadline = WEFT_FOREVER, .mask = task->mask};
    task->scopes = body;
    task->flags |= WEFT__FLAG_SCOPES;
}

void weft__body_end(weft_task *task, weft_timeout *body)
{
    weft_timeout **link = &task->scopes;

    while (*link && *link != body)
        link = &(*link)->outer;
    if (*link)
        *link = body->outer;
    if (!task->scopes)
        task->flags &= (uint16_t)~WEFT__FLAG_SCOPES;
}

void weft__body_cancel(weft_task *task, weft_timeout *body)
{
    weft_task *root;

    /* As weft_cancel: either this thread sees which coroutine runs the task, or the task sees the bit when it waits. */
    __atomic_fetch_or(&body->passed, WEFT__BODY_CANCELLED, __ATOMIC_SEQ_CST);
    atomic_thread_fence(memory_order_seq_cst);
    root = atomic_load_explicit(&task->root, memory_order_relaxed);
    if (root)
        weft__ready(root);
}

/* ---- scopes ---- */

static weft_task *current_task(void)
{
    struct weft__driver *driver = weft__driver();

    return driver && driver->coroutine ? driver->coroutine->current : NULL;
}

int weft_timeout_begin_at(weft_timeout *scope, int64_t when)
{
    weft_task *task = current_task();

    if (!task)
        return weft__misused("weft_timeout_begin");
    *scope = (weft_timeout){.outer = task->scopes, .deadline = when, .mask = task->mask};
    task->scopes = scope;
    task->flags |= WEFT__FLAG_SCOPES;
    return 0;
}

int weft_timeout_begin(weft_timeout *scope, int64_t ns)
{
    return weft_timeout_begin_at(scope, ns == WEFT_FOREVER ? WEFT_FOREVER : weft__clock_after(ns));
}

void weft_timeout_reset(weft_timeout *scope, int64_t ns)
{
    scope->deadline = ns == WEFT_FOREVER ? WEFT_FOREVER : weft__clock_after(ns);
}

int weft_timeout_end(weft_timeout *scope)
{
    weft_task *task = current_task();

    if (!task || task->scopes != scope)
        return -EINVAL;
    task->scopes = scope->outer;
    if (!task->scopes)
        task->flags &= (uint16_t)~WEFT__FLAG_SCOPES;
    return (int)__atomic_load_n(&scope->passed, __ATOMIC_RELAXED);
}

bool weft__mask_begin(void)
{
    return current_task() && weft_mask_begin() == 0;
}

int weft_mask_begin(void)
{
    weft_task *task = current_task();

    if (!task)
        return weft__misused("weft_mask_begin");
    if (task->mask == UINT16_MAX)
        return -EOVERFLOW;
    task->mask++;
    return 0;
}

int weft_mask_end(void)
{
    weft_task *task = current_task();

    if (!task)
        return weft__misused("weft_mask_end");
    if (task->mask == 0)
        return -EINVAL;
    task->mask--;
    return 0;
}
