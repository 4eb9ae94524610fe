/* Time: int64_t nanoseconds on the monotonic clock. */
#ifndef WEFT_TIME_H
#define WEFT_TIME_H

#include <weft/base.h>

#define WEFT_NS(n) ((int64_t)(n))
#define WEFT_US(n) ((int64_t)(n)*1000)
#define WEFT_MS(n) ((int64_t)(n)*1000000)
#define WEFT_SEC(n) ((int64_t)(n)*1000000000)

/* "No deadline": later than any time the clock will show. */
#define WEFT_FOREVER INT64_MAX

WEFT_BEGIN_DECLS

/* Nanoseconds on the monotonic clock. Any thread, not a suspension point. */
WEFT_API int64_t weft_now(void);

/*
 * Let `ns` nanoseconds pass; zero or less yields once. The resolution is that of the clock.
 * Returns 0, or -ECANCELED or -ETIMEDOUT if cancellation or the deadline of a scope ended the sleep early,
 * -ENOMEM if the timer could not be stored, -EPERM outside a task. Task; suspension point.
 */
WEFT_API int weft_sleep(int64_t ns);

/* As weft_sleep, until the monotonic clock shows `when`; a time in the past yields once. */
WEFT_API int weft_sleep_until(int64_t when);

WEFT_END_DECLS

#endif
