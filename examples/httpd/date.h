/*
 * The Date header's value, made once a second and copied into every response.
 */
#ifndef HTTPD_DATE_H
#define HTTPD_DATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
#define DATE_LENGTH 29
#define DATE_WORDS 4

struct date {
    pthread_mutex_t writing;  /* one refresh at a time */
    _Atomic uint32_t version; /* odd while the words change */
    _Atomic uint64_t words[DATE_WORDS];
};

void date_init(struct date *date);

void date_term(struct date *date);

/* Make it the current time. Any thread; not a suspension point. */
void date_refresh(struct date *date);

/* Store DATE_LENGTH characters, no terminator. Any thread; not a suspension point. */
void date_copy(struct date *date, char *out);

#endif
