/*
 * errno, looked up anew each time. The compiler may keep the address of errno over a call that resumes on another
 * thread: it is told that the function which finds it always finds the same. So code that may be inlined into one
 * which suspends does not read errno itself.
 */
#ifndef WEFT_IO_LAST_ERROR_H
#define WEFT_IO_LAST_ERROR_H

#include <errno.h>
#include <sys/types.h>

static __attribute__((noinline, unused)) int weft__last_error(void)
{
    __asm__ volatile("" ::: "memory");
    return errno;
}

/* The result of a system call that has just been made, or -errno. */
static inline ssize_t weft__result_of(ssize_t rc)
{
    return __builtin_expect(rc < 0, 0) ? -weft__last_error() : rc;
}

#endif
