/*
 * What the server can be asked for.
 */
#ifndef HTTPD_ROUTES_H
#define HTTPD_ROUTES_H

#include <stdbool.h>
#include <stddef.h>

struct connection;

/* Answer the request that the connection's parser has completed. Called by the connection's task inside the
 * parser's last callback; suspension point. */
void routes_dispatch(struct connection *connection);

/*
 * The value of `name` in a query string ("a=1&b=2"), decoded into out (capacity includes the terminator).
 * 1 found, 0 not there, -EINVAL if it is not well-formed, does not fit or holds a zero byte.
 */
int routes_query(const char *query, const char *name, char *out, size_t capacity);

/* 503 with Retry-After: the blocking pool's queue is full. */
void routes_refuse_busy(struct connection *connection);

#endif
