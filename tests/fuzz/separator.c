/*
 * The search for separators (io/separator.h) against a search byte by byte, whole and as the bytes come in.
 * Input: the number of separators, their lengths, their bytes, where the text is cut, the text.
 */
#include "io/separator.h"

#include "tests/fuzz/fuzz.h"

enum { MOST = 4 };

static size_t slowly(const char *bytes, size_t length, const struct iovec *separators, int count)
{
    for (size_t end = 1; end <= length; end++)
        for (int i = 0; i < count; i++) {
            size_t size = separators[i].iov_len;

            if (size <= end && memcmp(bytes + end - size, separators[i].iov_base, size) == 0)
                return end;
        }
    return 0;
}

static void compare(const char *bytes, size_t length, size_t step, const struct iovec *separators, int count)
{
    size_t expected = slowly(bytes, length, separators, count), found = 0, there = 0;

    must(weft__first_separator(bytes, length, 0, separators, count) == expected);
    while (found == 0 && there < length) {
        size_t seen = there;

        there = length - there < step ? length : there + step;
        found = weft__first_separator(bytes, there, seen, separators, count);
    }
    must(found == expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct iovec separators[MOST];
    int count = size > 0 ? 1 + data[0] % MOST : 0, copied = 0;
    size_t at = 1, step;
    char *text;

    for (; copied < count; copied++) {
        size_t length = at < size ? 1 + data[at] % 7 : 1;

        if (size < at + 1 || size - at - 1 < length)
            break;
        separators[copied] = (struct iovec){fuzz_copy(data + at + 1, length), length};
        at += 1 + length;
    }
    if (count > 0 && copied == count && at < size) {
        step = 1 + data[at++];
        text = fuzz_copy(data + at, size - at);
        compare(text, size - at, step, separators, count);
        free(text);
    }
    while (copied-- > 0)
        free(separators[copied].iov_base);
    return 0;
}
