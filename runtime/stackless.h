/*
 * What the operations of stackless tasks share (stackless.c). Called by such a task itself, in its step.
 */
#ifndef WEFT_RUNTIME_STACKLESS_H
#define WEFT_RUNTIME_STACKLESS_H

#include <weft/stackless.h>

#include "runtime/task.h"

/* The stackless task that the caller is; NULL, with a word in debug mode: it is something else. */
weft_task *weft__stepping(void);

/* Its turn is over: it was made ready, and the operation is to return WEFT_PENDING without having begun. */
bool weft__step_spent(weft_task *task);

/* While its operation is pending, resume it at the deadline of its scopes, if there is one: 0, -ENOMEM. Again if it was
 * resumed early. */
int weft__step_arm(weft_task *task, int64_t deadline);

/* Its operation is over. */
void weft__step_done(weft_task *task);

/* It ended while an operation was pending: the object still refers to its record. Ends the process. */
void weft__stackless_broken(const weft_task *task) __attribute__((noreturn, cold));

#endif
