/*
 * weft_barrier: parties that wait for each other, again and again. Any thread; knows only waitable.h.
 *
 * The state word: bit 0 the lock over everything (waiters.h), BROKEN (aborted). Invariants, whenever bit 0 is clear:
 * `waiting` is the length of the list, and less than `parties`; with BROKEN the list is empty.
 *
 * A generation ends when the last party comes, or by a reset or an abort. Each of them detaches the whole list under the
 * lock and counts (waiters.h, weft__withdraw_counted), so the next generation begins at once, with an empty list,
 * whether those of the last have woken or not; and a party that gives up finds itself either still waiting,
 * and is not counted any more, or detached, and waits for the outcome.
 *
 * The indices are given when all are there, to each wait in its slot: had each party taken one as it came, those that
 * gave up would leave holes.
 */
#include "runtime/waitable.h"

enum { BROKEN = 2, NO_QUEUED_BIT = 0 };

int weft_barrier_init(weft_barrier *barrier, uint32_t parties)
{
    if (parties == 0 || parties > INT32_MAX)
        return -EINVAL;
    *barrier = (weft_barrier){.parties = parties};
    return 0;
}

/* `waiting` is written under the lock, but anybody may ask for it. */
static void set_waiting(weft_barrier *barrier, uint32_t n)
{
    atomic_store_explicit(weft__word_of(&barrier->waiting), n, memory_order_relaxed);
}

uint32_t weft_barrier_waiting(const weft_barrier *barrier)
{
    return atomic_load_explicit(weft__word_of(&barrier->waiting), memory_order_relaxed);
}

/* Locked: detach all who wait, as a chain. */
static struct weft__wait *end_generation(weft_barrier *barrier)
{
    set_waiting(barrier, 0);
    barrier->generation += WEFT__GENERATION;
    return weft__waiters_take(&barrier->waiters);
}

static void wake_in_order(struct weft__wait *first)
{
    intptr_t index = 0;

    for (struct weft__wait *wait = first, *next; wait != NULL; wait = next) {
        next = wait->next;
        wait->slot = (void *)index++;
        weft__wake(wait, WEFT__GRANTED);
    }
}

/* The last to come lets the others go, and itself. */
static int begin(void *object, struct weft__wait *wait)
{
    weft_barrier *barrier = object;
    _Atomic uint32_t *word = weft__word_of(&barrier->state);
    uint32_t state = weft__word_enter(word);

    if (state & BROKEN) {
        weft__word_leave(word, state);
        return -EPIPE;
    }
    if (barrier->waiting + 1 == barrier->parties) {
        struct weft__wait *others = end_generation(barrier);

        wait->slot = (void *)(intptr_t)(barrier->parties - 1);
        weft__word_leave(word, state);
        wake_in_order(others);
        return 0;
    }
    set_waiting(barrier, barrier->waiting + 1);
    wait->kind = barrier->generation;
    weft__waiters_push(&barrier->waiters, wait);
    weft__word_leave(word, state);
    return WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_barrier *barrier = object;
    _Atomic uint32_t *word = weft__word_of(&barrier->state);
    uint32_t state = weft__word_enter(word);

    if (wait->kind != barrier->generation) {
        weft__word_leave(word, state);
        return false;
    }
    set_waiting(barrier, barrier->waiting - 1);
    weft__waiters_forsake(word, state, &barrier->waiters, wait, NO_QUEUED_BIT);
    return true;
}

static const struct weft__waitable waitable = {begin, withdraw};

int weft_barrier_wait(weft_barrier *barrier)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    if (barrier->parties == 0 || barrier->parties > INT32_MAX)
        return -EINVAL;
    rc = weft__wait_for(&waitable, barrier, &wait);
    if (rc < 0)
        return rc;
    return weft__outcome_of(&wait) == WEFT__CLOSED ? -EPIPE : (int)(intptr_t)wait.slot;
}

static void break_up(weft_barrier *barrier, uint32_t state)
{
    _Atomic uint32_t *word = weft__word_of(&barrier->state);
    struct weft__wait *chain;

    weft__word_enter(word);
    chain = end_generation(barrier);
    weft__word_leave(word, state);
    weft__wake_chain(chain, WEFT__CLOSED, NULL);
}

void weft_barrier_reset(weft_barrier *barrier)
{
    break_up(barrier, 0);
}

void weft_barrier_abort(weft_barrier *barrier)
{
    break_up(barrier, BROKEN);
}
