/*
 * Spreading work: when another worker is worth its wake-up, and stealing.
 */
#ifndef WEFT_RUNTIME_SPREAD_H
#define WEFT_RUNTIME_SPREAD_H

#include "runtime/worker.h"

/* A worker that has not looked around for so long is served by its peers. */
enum { WEFT__STALE_NS = 200 * 1000 };

bool weft__is_stale(const struct weft__worker *worker, int64_t now);

/* After a look around: say whether help is wanted, and wake somebody if it is worth it. Inside. */
void weft__spread(struct weft__worker *worker, int64_t now);

/* Look at every peer once; serve and rob those it is worth with. True: something is in the own queue now. Inside. */
bool weft__search(struct weft__driver *driver, struct weft__worker *worker);

/* Is there anybody whom a worker that is about to sleep should rather steal from? */
bool weft__anyone_wants_help(const struct weft__worker *worker);

/* The driver no longer counts as a searcher; and, when it has found work, the next one is woken if there is more. */
void weft__stop_searching(struct weft__driver *driver);
void weft__pass_search_on(struct weft__driver *driver, const struct weft__worker *worker);

/* It is overloaded, and there is a processor for another one. Any thread. */
bool weft__may_be_relieved(const struct weft__worker *worker);

#endif
