/*
 * Scopes: stretches of code with a deadline, or sheltered from cancellation.
 *
 * A scope belongs to the task that begins it, lives in the caller's frame, and ends in the same task, in
 * reverse order of beginning. What a scope does also reaches the tasks that are awaited inside it.
 */
#ifndef WEFT_SCOPE_H
#define WEFT_SCOPE_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* In the caller's frame; the fields are private. */
typedef struct weft_timeout {
    struct weft_timeout *outer;
    int64_t deadline;
    uint32_t mask;
    uint32_t passed;
} weft_timeout;

/*
 * From here to weft_timeout_end, every wait returns -ETIMEDOUT once `ns` nanoseconds have passed. Scopes
 * nest and the earliest deadline wins. WEFT_FOREVER disables it. Setting and ending a deadline that is never
 * waited for costs a look at the clock, no timer.
 * Returns 0, -EPERM outside a task. Not a suspension point.
 */
WEFT_API int weft_timeout_begin(weft_timeout *scope, int64_t ns);

/* As weft_timeout_begin, with a time on the monotonic clock. */
WEFT_API int weft_timeout_begin_at(weft_timeout *scope, int64_t when);

/* Move the deadline of a scope that has begun. WEFT_FOREVER disables it. */
WEFT_API void weft_timeout_reset(weft_timeout *scope, int64_t ns);

/*
 * End the scope. Returns 1 if this scope's deadline ended a wait inside it (which returned -ETIMEDOUT, or, where it
 * awaits something that came to its end all the same, that result; so it may be where, at that very moment, what was
 * waited for was handed over: look at the call's result first), else 0; -EINVAL if it is not the innermost scope
 * of the calling task.
 */
WEFT_API int weft_timeout_end(weft_timeout *scope);

/*
 * Between weft_mask_begin and weft_mask_end neither cancellation nor a deadline that was set before reaches
 * the calling task or the tasks it awaits: for clean-up that must not be interrupted. Deadlines begun inside
 * the mask hold. Nests.
 * Returns 0, -EPERM outside a task; weft_mask_end without a begin is -EINVAL, the 65 536th weft_mask_begin inside
 * others -EOVERFLOW. Not suspension points.
 */
WEFT_API int weft_mask_begin(void);
WEFT_API int weft_mask_end(void);

WEFT_END_DECLS

#endif
