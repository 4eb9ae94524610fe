/*
 * Generators: functions that hand out values one by one and keep their place in between.
 *
 *     static intptr_t count(void *arg) { for (int i = 0; i < 3; i++) weft_gen_yield(i); return 0; }
 *
 *     weft_gen *g = weft_gen_new(count, NULL);
 *     WEFT_GEN_FOR(i, g) printf("%ld\n", (long)i);
 *     weft_gen_free(g);
 *
 * A generator has a stack of its own, so it may yield from any depth of calls. It needs no runtime. Inside a task it
 * belongs to whoever resumes it: a suspension point in its body suspends that task (an asynchronous generator), and
 * cancellation and deadlines of that task reach it. It may be resumed by one task or thread after another, never by two
 * at a time. Values are intptr_t: numbers, or pointers to what lives until the next resume.
 *
 * A scope (weft/scope.h) that the body begins, it must end before it yields, since scopes belong to the task. And as it
 * may go on in another thread, no thread-local variable, errno among them, is to be kept over a yield.
 */
#ifndef WEFT_GENERATOR_H
#define WEFT_GENERATOR_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_gen weft_gen;

/* A generator that will run fn(arg) when it is first resumed. NULL: out of memory. Any thread; not a suspension point. */
WEFT_API weft_gen *weft_gen_new(weft_fn *fn, void *arg) WEFT_NODISCARD;

/* The same with stack_size bytes of stack (0: 64 KiB). */
WEFT_API weft_gen *weft_gen_new_with(size_t stack_size, weft_fn *fn, void *arg) WEFT_NODISCARD;

/*
 * Free it, finished or not. A body that has not finished is not run again: what it owns must be released by
 * weft_gen_close before, or by its owner. -EBUSY while it runs (it stays valid). NULL is allowed.
 */
WEFT_API int weft_gen_free(weft_gen *gen);

/*
 * Resume it until the next yield. 1 with the value in *out (which may be NULL); 0 when it has finished;
 * -EBUSY if it is running (resumed from inside itself, or by another thread), -ENOMEM if it had no memory for its stack
 * (it may be tried again), -EINVAL for NULL. In its body the yield returns 0. Not a suspension point itself.
 */
WEFT_API int weft_gen_next(weft_gen *gen, intptr_t *out);

/* The same, and the yield in its body returns `in`. -EINVAL for one that has not started, unless `in` is 0. */
WEFT_API int weft_gen_send(weft_gen *gen, intptr_t in, intptr_t *out);

/*
 * The same, and the yield in its body returns `error` (-4095…-1, else -EINVAL), as an error: weft_gen_yield_into tells it
 * from a value sent. A generator that has not started finishes at once, with `error` as its result.
 */
WEFT_API int weft_gen_throw(weft_gen *gen, int error, intptr_t *out);

/*
 * Ask it to finish: the yield in its body returns -ECANCELED, and it should clean up and return. 0 when it has finished
 * (also if it had before, or never started); -EBUSY if it yields instead, which may be asked again, or is running.
 * -EINVAL for NULL.
 */
WEFT_API int weft_gen_close(weft_gen *gen);

/* What the function returned, once it has finished; -EBUSY before. */
WEFT_API intptr_t weft_gen_result(const weft_gen *gen);
WEFT_API int weft_gen_finished(const weft_gen *gen);

/*
 * In the body: hand out a value and wait to be resumed. Returns what was sent (0 for next), or the error that was thrown
 * in. Without a switch: -EPERM outside a generator (also in a task that its body has spawned), -EINVAL if the body has
 * begun a scope that it has not ended.
 */
WEFT_API intptr_t weft_gen_yield(intptr_t out);

/* The same: 0 with what was sent in *in (which may be NULL), or the error that was thrown in. */
WEFT_API int weft_gen_yield_into(intptr_t out, intptr_t *in);

/*
 * In the body: hand out everything that `inner` yields, pass on what is sent and thrown, and return inner's result when
 * it has finished. `inner` is not freed. The errors of weft_gen_yield and, if it cannot be resumed, of weft_gen_next.
 */
WEFT_API intptr_t weft_gen_delegate(weft_gen *inner);

/* for (intptr_t value in gen) */
#define WEFT_GEN_FOR(value, gen) for (intptr_t value = 0; weft_gen_next((gen), &value) == 1;)

WEFT_END_DECLS

#endif
