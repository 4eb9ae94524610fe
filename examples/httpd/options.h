/*
 * What the command line says. Filled once by main before anything else runs, read-only afterwards.
 */
#ifndef HTTPD_OPTIONS_H
#define HTTPD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest request line target a buffer has room for; --max-url may only be smaller. */
#define OPTIONS_URL_LIMIT 4096

struct options {
    const char *host;
    uint16_t port;
    unsigned max_connections;
    size_t max_url;
    size_t max_header;
    uint64_t max_body;
    int64_t header_timeout; /* this and the others: nanoseconds */
    int64_t keepalive_timeout;
    int64_t write_timeout;
    int64_t grace;
    int64_t lifetime; /* WEFT_FOREVER: until a signal comes */
    bool quiet;
    bool help;
};

/* 0, or -EINVAL after a message on stderr that names what is wrong. */
int options_parse(struct options *options, int argc, char **argv);

void options_print_help(const char *program);

#endif
