#ifndef WEFT_VERSION_H
#define WEFT_VERSION_H

#include <weft/base.h>

#define WEFT_VERSION_MAJOR 0
#define WEFT_VERSION_MINOR 1
#define WEFT_VERSION_PATCH 0
#define WEFT_VERSION_STRING "0.1.0"

WEFT_BEGIN_DECLS

/* The version of the library that is linked, as "major.minor.patch". Any thread, not a suspension point. */
WEFT_API const char *weft_version(void);

WEFT_END_DECLS

#endif
