/*
 * The bytes of an answer. Writes into memory it is given; no connection, no waiting.
 */
#ifndef HTTPD_RESPONSE_H
#define HTTPD_RESPONSE_H

#include <stddef.h>
#include <stdint.h>

#include "date.h"

/* No head made by response_head is longer. */
#define RESPONSE_HEAD_LIMIT 512

#define RESPONSE_CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

#define RESPONSE_PLAINTEXT_BEFORE_DATE "HTTP/1.1 200 OK\r\nServer: weft\r\nDate: "
#define RESPONSE_PLAINTEXT_AFTER_DATE "\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
#define RESPONSE_PLAINTEXT_LENGTH \
    (sizeof(RESPONSE_PLAINTEXT_BEFORE_DATE) - 1 + DATE_LENGTH + sizeof(RESPONSE_PLAINTEXT_AFTER_DATE) - 1)

/*
 * Status line and headers up to the empty line, at most RESPONSE_HEAD_LIMIT bytes. `persistence` and `extra` are
 * whole header lines or "". Returns the length.
 */
size_t response_head(char *out, struct date *date, int status, const char *type, const char *persistence,
                     const char *extra, uint64_t length);

/* The whole answer to GET /plaintext on a connection that stays open: RESPONSE_PLAINTEXT_LENGTH bytes. */
void response_plaintext(char *out, struct date *date);

#endif
