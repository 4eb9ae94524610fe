/*
 * How to wait for a promise, for those who wait for it among other things. In promise.c; used by select.
 *
 * Its object is the weft_promise. When begin has returned 0, or the wait has been settled, the result is in the
 * wait's slot; then the promise may be gone.
 */
#ifndef WEFT_RUNTIME_PROMISE_H
#define WEFT_RUNTIME_PROMISE_H

#include "runtime/waitable.h"

extern const struct weft__waitable weft__promise_waitable;

#endif
