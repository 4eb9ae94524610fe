/*
 * What the fuzz targets share. A target is a function that is given bytes, makes something of them, and ends the process
 * if the library does not do what it should. libFuzzer calls it, or replay.c with the bytes of files: see README.md.
 */
#ifndef WEFT_TESTS_FUZZ_H
#define WEFT_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

/* The bytes that are left of the input. */
struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

/* The next byte; 0 at the end. */
static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->data++;
}

/* A copy of exactly this length (at least 1 byte), so that a look beyond its end is noticed. To be freed. */
static inline char *fuzz_copy(const uint8_t *data, size_t size)
{
    char *copy = malloc(size > 0 ? size : 1);

    must(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* The next `size` bytes, or as many as there are, up to the first zero, as a string. To be freed. */
static inline char *fuzz_text(struct fuzz_input *input, size_t size)
{
    size_t length = size < input->size ? size : input->size;
    char *text = malloc(length + 1);

    must(text != NULL);
    if (length > 0)
        memcpy(text, input->data, length);
    text[length] = '\0';
    input->data += length;
    input->size -= length;
    /* Of exactly the string's length, for the same reason as above. */
    if (strlen(text) < length) {
        char *exact = strdup(text);

        must(exact != NULL);
        free(text);
        text = exact;
    }
    return text;
}

/* The next line, as a string; with the last one, the rest. To be freed. */
static inline char *fuzz_line(struct fuzz_input *input)
{
    const uint8_t *end = input->size > 0 ? memchr(input->data, '\n', input->size) : NULL;
    char *line = fuzz_text(input, end ? (size_t)(end - input->data) : input->size);

    if (end)
        fuzz_byte(input);
    return line;
}

#endif
