/* What every other public header needs: visibility, attributes, and the types that are used everywhere. */
#ifndef WEFT_BASE_H
#define WEFT_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
#define WEFT_BEGIN_DECLS extern "C" {
#define WEFT_END_DECLS }
#else
#define WEFT_BEGIN_DECLS
#define WEFT_END_DECLS
#endif

#define WEFT_API __attribute__((visibility("default")))
#define WEFT_NODISCARD __attribute__((warn_unused_result))

WEFT_BEGIN_DECLS

/* The function of a task: its result, or -errno in [-4095, -1]. */
typedef intptr_t weft_fn(void *arg);

typedef struct weft_task weft_task;
typedef struct weft_runtime weft_runtime;

/* Is this result an error? Any intptr_t outside [-4095, -1] is a value. */
static inline int weft_is_error(intptr_t result)
{
    return (uintptr_t)result > (uintptr_t)-4096;
}

WEFT_END_DECLS

#endif
