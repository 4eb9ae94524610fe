/* Finding the first of several separators. Knows nothing of streams. */
#ifndef WEFT_IO_SEPARATOR_H
#define WEFT_IO_SEPARATOR_H

#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

/* The end of the first match of one separator that ends after `seen` and no later than `length`; 0: there is
 * none. */
static inline size_t weft__match_end(const char *bytes, size_t length, size_t seen, const struct iovec *separator)
{
    size_t size = separator->iov_len, from = seen >= size ? seen - size + 1 : 0;
    const char *at;

    if (length < size || from > length - size)
        return 0;
    at = size == 1 ? memchr(bytes + from, *(const char *)separator->iov_base, length - from)
                   : memmem(bytes + from, length - from, separator->iov_base, size);
    return at ? (size_t)(at - bytes) + size : 0;
}

/*
 * Of all matches in bytes[0, length) the one that ends first: its end; 0: there is none. No separator is empty.
 * In the first `seen` bytes none was found before, and that part is not searched again.
 */
static inline size_t weft__first_separator(const char *bytes, size_t length, size_t seen,
                                           const struct iovec *separators, int count)
{
    size_t first = 0;

    for (int i = 0; i < count; i++) {
        size_t end = weft__match_end(bytes, length, seen, &separators[i]);

        if (end != 0) {
            first = end;
            length = end - 1; /* only what ends before is better */
        }
    }
    return first;
}

#endif
