/*
 * SIGINT in weft_run (interrupt.h).
 *
 * The handler cancels the waiting thread's own record, as weft_cancel does with a task: it sets CANCEL in the state word
 * and makes the thread ready. weft__wait_for_end, which the thread is in or on its way into, looks at that bit
 * before each park and then cancels the task that it waits for. So the handler does no more than two atomic
 * read-modify-writes on lock-free words and a futex system call, which are async-signal-safe, on a record that is never
 * freed (wait.c); it may interrupt any thread at any place, that thread itself in the middle of parking
 * included: a notification that comes before the park is used up by it.
 *
 * The kernel sets the action back to the default when it calls the handler (SA_RESETHAND): the second signal finds that.
 */
#include "runtime/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

#include "runtime/config.h"
#include "runtime/futex.h"
#include "runtime/park.h"
#include "runtime/task.h"

/* The thread that waits for its main task; NULL: none has taken the signal. */
static _Atomic(weft_task *) interrupted;

static void interrupt(int number)
{
    int error = errno;
    /* acquire: pairs with the exchange in weft__interrupt_begin, before which the record was made */
    weft_task *waiter = atomic_load_explicit(&interrupted, memory_order_acquire);

    (void)number;
    if (waiter) {
        weft__state_cancel(&waiter->state);
        if (weft__state_ready(&waiter->state) == WEFT__READY_FUTEX)
            weft__futex_wake(&waiter->state, 1);
    }
    errno = error;
}

static bool has_default_action(void)
{
    struct sigaction action;

    return sigaction(SIGINT, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL;
}

static bool is_ours(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == interrupt;
}

bool weft__interrupt_begin(void)
{
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    weft_task *self = weft__waiter_self();
    weft_task *nobody = NULL;

    if (!self || !weft__config_takes_sigint() || !has_default_action() ||
        !atomic_compare_exchange_strong_explicit(&interrupted, &nobody, self, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return false;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGINT, &action, NULL) == 0)
        return true;
    atomic_store_explicit(&interrupted, NULL, memory_order_release);
    return false;
}

/* If the program has installed a handler of its own meanwhile, that stays. */
void weft__interrupt_end(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL}, current;
    weft_task *self = atomic_load_explicit(&interrupted, memory_order_relaxed);

    if (sigaction(SIGINT, NULL, &current) == 0 && is_ours(&current))
        sigaction(SIGINT, &standard, NULL);
    atomic_store_explicit(&interrupted, NULL, memory_order_release);
    /* A handler that runs on another thread just now is late: it leaves a bit that the next wait looks at. */
    weft__state_uncancel(&self->state);
}
