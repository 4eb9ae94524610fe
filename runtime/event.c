/*
 * weft_event: a flag to wait for. Any thread; knows only waitable.h and select.h.
 *
 * The word `set`: bit 0 the lock over the list and the word (waiters.h), SET. Invariant, whenever bit 0 is clear:
 * with SET, the list is empty.
 *
 * Setting detaches the whole list under the lock and publishes SET by the store that leaves the lock; so a waiter
 * that sees SET, with or without the lock, may free the event: the setter has only the detached waits left.
 * A clear right after takes nothing back, since those waits are out of its reach.
 *
 * The chain that a setter detached is not marked; the field `generation` counts the sets (waiters.h,
 * weft__withdraw_counted).
 */
#include "runtime/select.h"
#include "runtime/waitable.h"

#include <weft/stackless.h>

enum { SET = 2, NO_QUEUED_BIT = 0 };

void weft_event_set(weft_event *event)
{
    _Atomic uint32_t *word = weft__word_of(&event->set);
    struct weft__wait *chain;

    weft__word_enter(word);
    chain = weft__waiters_take(&event->waiters);
    event->generation += WEFT__GENERATION;
    weft__word_leave(word, SET);
    weft__wake_chain(chain, WEFT__GRANTED, NULL);
}

void weft_event_clear(weft_event *event)
{
    _Atomic uint32_t *word = weft__word_of(&event->set);

    weft__word_enter(word);
    weft__word_leave(word, 0);
}

int weft_event_is_set(const weft_event *event)
{
    /* acquire: pairs with the release in weft_event_set */
    return (atomic_load_explicit(weft__word_of(&event->set), memory_order_acquire) & SET) != 0;
}

static int begin(void *object, struct weft__wait *wait)
{
    weft_event *event = object;
    _Atomic uint32_t *word = weft__word_of(&event->set);
    uint32_t state = weft__word_enter(word);

    if (state & SET) {
        weft__word_leave(word, state);
        return 0;
    }
    wait->kind = event->generation;
    weft__waiters_push(&event->waiters, wait);
    weft__word_leave(word, state);
    return WEFT__BEGUN;
}

static bool withdraw(void *object, struct weft__wait *wait)
{
    weft_event *event = object;

    return weft__withdraw_counted(weft__word_of(&event->set), &event->waiters, wait, &event->generation,
                                  NO_QUEUED_BIT);
}

const struct weft__waitable weft__event_waitable = {begin, withdraw};

int weft_event_wait(weft_event *event)
{
    struct weft__wait wait = {0};
    int rc = weft__suspend_check();

    if (rc < 0)
        return rc;
    return weft_event_is_set(event) ? 0 : weft__wait_for(&weft__event_waitable, event, &wait);
}

intptr_t weft_async_event(weft_event *event)
{
    return weft__async(&weft__event_waitable, event, NULL, NULL, NULL);
}
