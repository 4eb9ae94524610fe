/*
 * The bytes of an answer. Called by connection tasks on any worker; keeps no state.
 */
#include "response.h"

#include <http_parser.h>
#include <stdio.h>
#include <string.h>

size_t response_head(char *out, struct date *date, int status, const char *type, const char *persistence,
                     const char *extra, uint64_t length)
{
    char now[DATE_LENGTH];
    date_copy(date, now);
    int n = snprintf(out, RESPONSE_HEAD_LIMIT,
                     "HTTP/1.1 %d %s\r\nServer: weft\r\nDate: %.*s\r\nContent-Type: %s\r\n"
                     "Content-Length: %llu\r\n%s%s\r\n",
                     status, http_status_str((enum http_status)status), DATE_LENGTH, now, type,
                     (unsigned long long)length, persistence, extra);
    return (size_t)n;
}

void response_plaintext(char *out, struct date *date)
{
    size_t before = sizeof(RESPONSE_PLAINTEXT_BEFORE_DATE) - 1;
    memcpy(out, RESPONSE_PLAINTEXT_BEFORE_DATE, before);
    date_copy(date, out + before);
    memcpy(out + before + DATE_LENGTH, RESPONSE_PLAINTEXT_AFTER_DATE, sizeof(RESPONSE_PLAINTEXT_AFTER_DATE) - 1);
}
