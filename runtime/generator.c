/*
 * Generators: a side stack that is resumed by whoever wants the next value. Any thread, inside tasks or not.
 *
 * `state` is a claim. Whoever resumes, closes or frees a generator first changes it from NEW or SUSPENDED to RUNNING
 * by a compare-and-swap (acquire), and owns everything else in it until it is changed back by a release: by the
 * yield, after the registers of the body were saved (weft__side_suspend), or when the body has returned and its stack
 * is given back. Two who resume at a time thus never both succeed.
 *
 * The yield does all there is to do for both sides: it stores the value where the resumer wants it and passes 1 as the
 * result of its weft_gen_next. So both calls end in the switch (side_stack.h says why).
 */
#include <errno.h>
#include <stdlib.h>
#include <weft/generator.h>

#include "runtime/debug.h"
#include "runtime/side_stack.h"

struct weft_gen {
    struct weft__side side;

    /* Written by the resumer, before the switch. */
    void *resumer; /* its context */
    intptr_t *out; /* where the value goes */
    int error;     /* thrown into the body, or 0 */
    struct weft__place place;

    weft_fn *fn;
    void *arg;
    intptr_t result;  /* once it has finished */
    intptr_t nowhere; /* for a value that nobody wants */
};

weft_gen *weft_gen_new_with(size_t stack_size, weft_fn *fn, void *arg)
{
    weft_gen *gen = fn ? calloc(1, sizeof *gen) : NULL;

    if (!gen)
        return NULL;
    gen->side.kind = WEFT__GENERATOR;
    gen->side.stack_size = stack_size;
    gen->fn = fn;
    gen->arg = arg;
    return gen;
}

weft_gen *weft_gen_new(weft_fn *fn, void *arg)
{
    return weft_gen_new_with(0, fn, arg);
}

static inline bool claim(weft_gen *gen, enum weft__side_state from)
{
    uint32_t state = from;

    /* acquire: pairs with the releases in weft__side_suspend, finish and release */
    return atomic_compare_exchange_strong_explicit(&gen->side.state, &state, WEFT__SIDE_RUNNING,
                                                   memory_order_acquire, memory_order_relaxed);
}

static void release(weft_gen *gen, enum weft__side_state state)
{
    /* release: what its owner did; pairs with the acquire in claim, and in weft_gen_finished */
    atomic_store_explicit(&gen->side.state, state, memory_order_release);
}

int weft_gen_free(weft_gen *gen)
{
    if (!gen)
        return 0;
    if (!claim(gen, WEFT__SIDE_SUSPENDED) && !claim(gen, WEFT__SIDE_NEW) && !weft_gen_finished(gen))
        return -EBUSY;
    weft__side_stack_put(&gen->side);
    free(gen);
    return 0;
}

/* ---- the body's side ---- */

/* The generator whose body calls. NULL: none. */
static inline __attribute__((always_inline)) weft_gen *self(void)
{
    struct weft__side *side = weft__side_self();
    weft_gen *gen = (weft_gen *)side;

    if (__builtin_expect(!side || side->kind != WEFT__GENERATOR, 0))
        return NULL;
    return __builtin_expect(weft__place_is_callers(&gen->place), 1) ? gen : NULL;
}

static __attribute__((noinline)) int refuse_to_yield(const weft_gen *gen)
{
    return gen ? -EINVAL : weft__misused("weft_gen_yield");
}

static inline bool may_yield(const weft_gen *gen)
{
    return __builtin_expect(gen != NULL && weft__place_is_balanced(&gen->place), 1);
}

static inline __attribute__((always_inline)) intptr_t yield(weft_gen *gen, intptr_t out)
{
    *gen->out = out;
    weft__place_leave(&gen->place);
#ifdef WEFT__SIDE_ANNOTATED
    {
        void *fake = NULL, *resumer = gen->resumer;
        intptr_t in;

        weft__side_annotate_leave(&fake, NULL, &gen->place, &gen->side);
        in = weft__side_suspend(&gen->side.context, resumer, 1, &gen->side.state, WEFT__SIDE_SUSPENDED);
        weft__side_annotate_enter(fake, &gen->place);
        return in;
    }
#else
    return weft__side_suspend(&gen->side.context, gen->resumer, 1, &gen->side.state, WEFT__SIDE_SUSPENDED);
#endif
}

intptr_t weft_gen_yield(intptr_t out)
{
    weft_gen *gen = self();

    if (!may_yield(gen))
        return refuse_to_yield(gen);
    return yield(gen, out);
}

int weft_gen_yield_into(intptr_t out, intptr_t *in)
{
    weft_gen *gen = self();
    intptr_t sent;

    if (!may_yield(gen))
        return refuse_to_yield(gen);
    sent = yield(gen, out);
    if (gen->error)
        return gen->error;
    if (in)
        *in = sent;
    return 0;
}

/* The body has returned, and its resumer's stack is run on again: the result of the resumer's call. */
static intptr_t finish(struct weft__side *side)
{
    weft__side_stack_put(side);
    release((weft_gen *)side, WEFT__SIDE_FINISHED);
    return 0;
}

static void run(struct weft__side *side, intptr_t sent)
{
    weft_gen *gen = (weft_gen *)side;

    (void)sent;
    weft__side_annotate_enter(NULL, &gen->place);
    gen->result = gen->fn(gen->arg);
    weft__place_leave(&gen->place);
    weft__side_annotate_leave(NULL, NULL, &gen->place, NULL);
    weft__side_leave(gen->resumer, finish, side);
    __builtin_unreachable();
}

/* ---- the resumer's side ---- */

/* Claimed, and with a stack. */
static inline __attribute__((always_inline)) int enter(weft_gen *gen, intptr_t in, int error, intptr_t *out)
{
    gen->error = error;
    gen->out = out ? out : &gen->nowhere;
    weft__place_enter(&gen->place, &gen->side);
#ifdef WEFT__SIDE_ANNOTATED
    {
        void *fake = NULL;
        int rc;

        weft__side_annotate_leave(&fake, &gen->side, &gen->place, NULL);
        rc = (int)weft__side_enter(&gen->resumer, gen->side.context, in);
        weft__side_annotate_enter(fake, NULL);
        return rc;
    }
#else
    return weft__side_enter_int(&gen->resumer, gen->side.context, in);
#endif
}

static int start(weft_gen *gen, int error, intptr_t *out)
{
    if (!claim(gen, WEFT__SIDE_NEW))
        return -EBUSY; /* somebody was faster */
    if (error) {
        gen->result = error;
        release(gen, WEFT__SIDE_FINISHED);
        return 0;
    }
    if (!weft__side_stack_get(&gen->side, run)) {
        release(gen, WEFT__SIDE_NEW);
        return -ENOMEM;
    }
    return enter(gen, 0, 0, out);
}

/* It is not suspended. */
static __attribute__((noinline)) int resume_other(weft_gen *gen, intptr_t in, int error, intptr_t *out)
{
    switch (atomic_load_explicit(&gen->side.state, memory_order_acquire)) {
    case WEFT__SIDE_NEW:
        return in && !error ? -EINVAL : start(gen, error, out);
    case WEFT__SIDE_FINISHED:
        return 0;
    default:
        return -EBUSY;
    }
}

static inline __attribute__((always_inline)) int resume(weft_gen *gen, intptr_t in, int error, intptr_t *out)
{
    if (__builtin_expect(!gen, 0))
        return -EINVAL;
    if (__builtin_expect(!claim(gen, WEFT__SIDE_SUSPENDED), 0))
        return resume_other(gen, in, error, out);
    return enter(gen, in, error, out);
}

int weft_gen_next(weft_gen *gen, intptr_t *out)
{
    return resume(gen, 0, 0, out);
}

int weft_gen_send(weft_gen *gen, intptr_t in, intptr_t *out)
{
    return resume(gen, in, 0, out);
}

int weft_gen_throw(weft_gen *gen, int error, intptr_t *out)
{
    if (!weft_is_error(error))
        return -EINVAL;
    return resume(gen, error, error, out);
}

int weft_gen_close(weft_gen *gen)
{
    int rc = weft_gen_throw(gen, -ECANCELED, NULL);

    return rc == 1 ? -EBUSY : rc;
}

int weft_gen_finished(const weft_gen *gen)
{
    /* acquire: the result; pairs with the release that made it finished */
    return atomic_load_explicit(&gen->side.state, memory_order_acquire) == WEFT__SIDE_FINISHED;
}

intptr_t weft_gen_result(const weft_gen *gen)
{
    return weft_gen_finished(gen) ? gen->result : -EBUSY;
}

/* ---- delegation ---- */

intptr_t weft_gen_delegate(weft_gen *inner)
{
    weft_gen *gen = self();
    intptr_t value, sent;
    int rc;

    if (!may_yield(gen))
        return refuse_to_yield(gen);
    rc = weft_gen_next(inner, &value);
    while (rc == 1) {
        sent = yield(gen, value);
        rc = gen->error ? weft_gen_throw(inner, gen->error, &value) : weft_gen_send(inner, sent, &value);
    }
    return rc < 0 ? rc : weft_gen_result(inner);
}
