/* Copying the elements of channels and queues, whose size only the caller knows. */
#ifndef WEFT_RUNTIME_ELEM_H
#define WEFT_RUNTIME_ELEM_H

#include <stddef.h>
#include <string.h>

static inline void weft__elem_copy(void *to, const void *from, size_t size)
{
    /* When all of it is optimised together, a compiler that sees an int warns of the cases for larger sizes. */
    __asm__("" : "+r"(to), "+r"(from));
    /* The sizes that messages mostly have: a load and a store instead of a call. */
    switch (size) {
    case 0:
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    case 16:
        memcpy(to, from, 16);
        break;
    default:
        memcpy(to, from, size);
    }
}

#endif
