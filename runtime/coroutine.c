/*
 * Symmetric coroutines: side stacks that name their successor. Any thread, inside tasks or not.
 *
 * Whoever transfers to a coroutine without being one enters from outside: struct outside, in its frame, is
 * where the coroutines return to, until one of them transfers to NULL or a body returns. Each coroutine that runs knows
 * the outside it runs under; one that is suspended belongs to nobody, and takes that of whoever transfers to it.
 *
 * `state` is a claim, as in generator.c: the one who transfers changes it from NEW or SUSPENDED to RUNNING by a
 * compare-and-swap (acquire); it is changed back by a release, when the registers of the coroutine were saved
 * (weft__side_suspend) or its stack was given back.
 *
 * As in generator.c the side that leaves does all there is to do, so that the calls end in the switch.
 */
#include <errno.h>
#include <stdlib.h>
#include <weft/coroutine.h>

#include "runtime/side_stack.h"

typedef intptr_t coroutine_fn(intptr_t value);

/* What entered from outside. Written by whoever runs under it. */
struct outside {
    void *context;
    intptr_t *value; /* where it wants what is transferred to it */
    struct weft__place place;
    bool left; /* it has just been left: the next to run notes its bounds */
};

struct weft_co {
    struct weft__side side;
    struct outside *outside; /* while it runs */
    intptr_t *value;         /* while it does not: where it wants what is transferred to it */
    intptr_t nowhere;        /* for a value that it does not want; of a new one: its argument */
    coroutine_fn *fn;
    weft_co *successor; /* where it goes when it has finished; NULL: outside */
};

weft_co *weft_co_new_with(size_t stack_size, coroutine_fn *fn)
{
    weft_co *co = fn ? calloc(1, sizeof *co) : NULL;

    if (!co)
        return NULL;
    co->side.kind = WEFT__COROUTINE;
    co->side.stack_size = stack_size;
    co->fn = fn;
    return co;
}

weft_co *weft_co_new(coroutine_fn *fn)
{
    return weft_co_new_with(0, fn);
}

static inline bool claim_from(weft_co *co, enum weft__side_state from)
{
    uint32_t state = from;

    /* acquire: pairs with the releases in weft__side_suspend, finish and claim_other */
    return atomic_compare_exchange_strong_explicit(&co->side.state, &state, WEFT__SIDE_RUNNING,
                                                   memory_order_acquire, memory_order_relaxed);
}

int weft_co_finished(const weft_co *co)
{
    /* acquire: pairs with the release in finish */
    return atomic_load_explicit(&co->side.state, memory_order_acquire) == WEFT__SIDE_FINISHED;
}

int weft_co_free(weft_co *co)
{
    if (!co)
        return 0;
    if (!claim_from(co, WEFT__SIDE_SUSPENDED) && !claim_from(co, WEFT__SIDE_NEW) && !weft_co_finished(co))
        return -EBUSY;
    weft__side_stack_put(&co->side);
    free(co);
    return 0;
}

void weft_co_set_return(weft_co *co, weft_co *to)
{
    co->successor = to;
}

/* The coroutine whose body calls, or NULL. */
static inline __attribute__((always_inline)) weft_co *self(void)
{
    struct weft__side *side = weft__side_self();
    weft_co *co = (weft_co *)side;

    if (!side || side->kind != WEFT__COROUTINE)
        return NULL;
    return weft__place_is_callers(&co->outside->place) ? co : NULL;
}

weft_co *weft_co_self(void)
{
    return self();
}

/* ---- the switch ---- */

/* For the checking tools: the place, if the switch that was just made came from there. */
static inline struct weft__place *just_left(struct outside *outside)
{
    bool left = outside->left;

    outside->left = false;
    return left ? &outside->place : NULL;
}

/* From a coroutine, which may be resumed from anywhere, to another that has been claimed, or outside (NULL). */
static inline __attribute__((always_inline)) int leave(weft_co *from, weft_co *to, struct outside *outside)
{
    void *context = to ? to->side.context : outside->context;
#ifdef WEFT__SIDE_ANNOTATED
    void *fake = NULL;
    int rc;

    weft__side_annotate_leave(&fake, to ? &to->side : NULL, &outside->place, &from->side);
    rc = (int)weft__side_suspend(&from->side.context, context, 0, &from->side.state, WEFT__SIDE_SUSPENDED);
    weft__side_annotate_enter(fake, just_left(from->outside));
    return rc;
#else
    return weft__side_suspend_int(&from->side.context, context, 0, &from->side.state, WEFT__SIDE_SUSPENDED);
#endif
}

/* Let the coroutine, which has been claimed, run next under this outside, with this value. */
static inline __attribute__((always_inline)) void hand_over(weft_co *to, struct outside *outside, intptr_t value)
{
    to->outside = outside;
    *to->value = value;
}

/* The body has returned, and another stack is run on: the result of the transfer that was made there. */
static intptr_t finish(struct weft__side *side)
{
    weft__side_stack_put(side);
    /* release: pairs with the acquire in weft_co_finished; whoever sees it may free the record */
    atomic_store_explicit(&side->state, WEFT__SIDE_FINISHED, memory_order_release);
    return 0;
}

static int claim(weft_co *co);

static void run(struct weft__side *side, intptr_t rc)
{
    weft_co *co = (weft_co *)side, *to;
    struct outside *outside;
    intptr_t result;

    (void)rc;
    weft__side_annotate_enter(NULL, just_left(co->outside));
    result = co->fn(co->nowhere);
    outside = co->outside;
    to = co->successor;
    if (to && claim(to) < 0)
        to = NULL;
    if (to) {
        hand_over(to, outside, result);
        weft__place_turn(outside->place.root, &to->side);
    } else {
        *outside->value = result;
        weft__place_leave(&outside->place);
    }
    weft__side_annotate_leave(NULL, to ? &to->side : NULL, &outside->place, NULL);
    weft__side_leave(to ? to->side.context : outside->context, finish, side);
    __builtin_unreachable();
}

static __attribute__((noinline)) int claim_other(weft_co *co)
{
    if (weft_co_finished(co))
        return -EINVAL;
    if (!claim_from(co, WEFT__SIDE_NEW))
        return -EBUSY;
    if (!weft__side_stack_get(&co->side, run)) {
        atomic_store_explicit(&co->side.state, WEFT__SIDE_NEW, memory_order_release);
        return -ENOMEM;
    }
    co->value = &co->nowhere;
    return 0;
}

/* Make it the caller's to switch to. 0 or -errno. */
static inline __attribute__((always_inline)) int claim(weft_co *co)
{
    return __builtin_expect(claim_from(co, WEFT__SIDE_SUSPENDED), 1) ? 0 : claim_other(co);
}

/* ---- transfer ---- */

static __attribute__((noinline)) int enter(weft_co *to, intptr_t in, intptr_t *value)
{
    struct outside outside;
    intptr_t nowhere;
    int rc;

    if (!to)
        return -EINVAL;
    rc = claim(to);
    if (rc < 0)
        return rc;
    outside.value = value ? value : &nowhere;
    outside.left = true;
    hand_over(to, &outside, in);
    weft__place_enter(&outside.place, &to->side);
#ifdef WEFT__SIDE_ANNOTATED
    {
        void *fake = NULL;

        weft__side_annotate_leave(&fake, &to->side, &outside.place, NULL);
        rc = (int)weft__side_enter(&outside.context, to->side.context, 0);
        weft__side_annotate_enter(fake, NULL);
    }
#else
    rc = (int)weft__side_enter(&outside.context, to->side.context, 0);
#endif
    return rc;
}

static __attribute__((noinline)) int leave_set(weft_co *from, intptr_t in)
{
    struct outside *outside = from->outside;

    *outside->value = in;
    weft__place_leave(&outside->place);
    return leave(from, NULL, outside);
}

int weft_co_transfer(weft_co *to, intptr_t in, intptr_t *value)
{
    weft_co *from = self();
    int rc;

    if (__builtin_expect(!from, 0))
        return enter(to, in, value);
    if (__builtin_expect(!weft__place_is_balanced(&from->outside->place), 0))
        return -EINVAL;
    rc = to ? claim(to) : 0;
    if (__builtin_expect(rc < 0, 0))
        return rc;
    from->value = value ? value : &from->nowhere;
    if (!to)
        return leave_set(from, in);
    hand_over(to, from->outside, in);
    weft__place_turn(to->outside->place.root, &to->side);
    return leave(from, to, to->outside);
}
