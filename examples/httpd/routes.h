/*
 * What the server can be asked for.
 */
#ifndef HTTPD_ROUTES_H
#define HTTPD_ROUTES_H

struct connection;

/* Answer the request that the connection's parser has completed. Called by the connection's task inside the
 * parser's last callback; suspension point. */
void routes_dispatch(struct connection *connection);

#endif
