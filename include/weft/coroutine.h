/*
 * Symmetric coroutines: each names the one that runs next. No scheduler, no runtime needed.
 *
 * Whoever transfers to a coroutine without being one itself is its outside: a task, a thread, the body of a generator. The
 * coroutines that run one after another from there are as calls of it: a suspension point suspends the task, and
 * its cancellation and deadlines reach them. A coroutine that is suspended belongs to no outside: it may go on under
 * another one, in another thread. What weft/generator.h says of scopes and thread-locals holds for a transfer as well.
 */
#ifndef WEFT_COROUTINE_H
#define WEFT_COROUTINE_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_co weft_co;

/*
 * A coroutine that will run fn(value), with the value of the first transfer to it. When fn returns, control goes to
 * the coroutine named by weft_co_set_return, or else outside, with fn's result as the value. NULL: out of
 * memory. Any thread; not a suspension point.
 */
WEFT_API weft_co *weft_co_new(intptr_t (*fn)(intptr_t value)) WEFT_NODISCARD;

/* The same with stack_size bytes of stack (0: 64 KiB). */
WEFT_API weft_co *weft_co_new_with(size_t stack_size, intptr_t (*fn)(intptr_t value)) WEFT_NODISCARD;

/*
 * Suspend the caller, run `to`, and return when somebody transfers to the caller: 0, with what was transferred in *value
 * (which may be NULL). NULL for `to`: the outside. Without a switch: -EINVAL for one that has finished, for NULL from
 * the outside, and in a coroutine that has begun a scope and not ended it; -EBUSY for one that runs, here or elsewhere,
 * or that has been left for a generator or a task of its own; -ENOMEM if there was no memory for its stack.
 */
WEFT_API int weft_co_transfer(weft_co *to, intptr_t in, intptr_t *value);

/* The running one; NULL outside. */
WEFT_API weft_co *weft_co_self(void);

/*
 * Where `co` goes when its function returns. NULL: outside, as it does if `to` cannot be transferred to then. `to` must
 * not be freed before. By its creator or by itself; never while another thread runs it.
 */
WEFT_API void weft_co_set_return(weft_co *co, weft_co *to);
WEFT_API int weft_co_finished(const weft_co *co);

/* Free it, finished or not (its body is not run again). -EBUSY for one that runs. NULL is allowed. */
WEFT_API int weft_co_free(weft_co *co);

WEFT_END_DECLS

#endif
