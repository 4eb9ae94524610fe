/*
 * The command line: one table names every option, its range and its place in struct options. Called by main,
 * before there is a second thread.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft.h>

static const struct option long_options[] = {
    {"host", required_argument, NULL, 'H'},
    {"port", required_argument, NULL, 'p'},
    {"max-connections", required_argument, NULL, 'c'},
    {"max-url", required_argument, NULL, 'u'},
    {"max-header", required_argument, NULL, 'e'},
    {"max-body", required_argument, NULL, 'b'},
    {"header-timeout", required_argument, NULL, 't'},
    {"keepalive-timeout", required_argument, NULL, 'k'},
    {"write-timeout", required_argument, NULL, 'w'},
    {"grace", required_argument, NULL, 'g'},
    {"seconds", required_argument, NULL, 's'},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

void options_print_help(const char *program)
{
    printf("usage: %s [options]\n"
           "An HTTP/1.1 server on weft; tune the runtime with WEFT_WORKERS, WEFT_BLOCKING_MAX and the like.\n"
           "\n"
           "  --host ADDRESS         literal address to listen on (127.0.0.1)\n"
           "  --port N               0 picks a free one, which is printed (8080)\n"
           "  --max-connections N    more are answered 503 and closed (16384)\n"
           "  --max-url BYTES        longer request targets are answered 414 (2048, at most %d)\n"
           "  --max-header BYTES     longer headers are answered 431 (8192)\n"
           "  --max-body BYTES       longer bodies are answered 413 (1048576)\n"
           "  --header-timeout S     a request that takes longer to arrive is answered 408 (10)\n"
           "  --keepalive-timeout S  a connection is closed after this long between requests (75)\n"
           "  --write-timeout S      a client that takes nothing for so long is dropped (30)\n"
           "  --grace S              requests in flight get this long to end at a stop (5)\n"
           "  --seconds S            stop after this long (0: run until SIGTERM or SIGINT)\n"
           "  --quiet                print only the listening line and errors\n"
           "  --help                 this text\n"
           "\n"
           "endpoints: /plaintext  /normal?ms=  /async?ms=  /dump?ms=  /cpu?ms=  /stats\n",
           program, OPTIONS_URL_LIMIT);
}

static int parse_count(const char *text, uint64_t least, uint64_t most, uint64_t *value)
{
    char *end;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || parsed < least || parsed > most) {
        fprintf(stderr, "httpd: \"%s\" is not a number from %llu to %llu\n", text, (unsigned long long)least,
                (unsigned long long)most);
        return -EINVAL;
    }
    *value = parsed;
    return 0;
}

static int parse_seconds(const char *text, int64_t *nanoseconds)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(seconds) || seconds < 0 || seconds > 1e9) {
        fprintf(stderr, "httpd: \"%s\" is not a number of seconds from 0 to 1000000000\n", text);
        return -EINVAL;
    }
    *nanoseconds = (int64_t)(seconds * 1e9);
    return 0;
}

static int set_option(struct options *options, int which, const char *text)
{
    uint64_t count = 0;
    int error = 0;

    switch (which) {
    case 'H':
        options->host = text;
        return 0;
    case 'p':
        error = parse_count(text, 0, UINT16_MAX, &count);
        options->port = (uint16_t)count;
        return error;
    case 'c':
        error = parse_count(text, 1, 1u << 24, &count);
        options->max_connections = (unsigned)count;
        return error;
    case 'u':
        error = parse_count(text, 16, OPTIONS_URL_LIMIT, &count);
        options->max_url = (size_t)count;
        return error;
    case 'e':
        error = parse_count(text, 64, 1u << 20, &count);
        options->max_header = (size_t)count;
        return error;
    case 'b':
        return parse_count(text, 0, UINT64_MAX / 2, &options->max_body);
    case 't':
        return parse_seconds(text, &options->header_timeout);
    case 'k':
        return parse_seconds(text, &options->keepalive_timeout);
    case 'w':
        return parse_seconds(text, &options->write_timeout);
    case 'g':
        return parse_seconds(text, &options->grace);
    case 's':
        error = parse_seconds(text, &options->lifetime);
        if (options->lifetime == 0)
            options->lifetime = WEFT_FOREVER;
        return error;
    case 'q':
        options->quiet = true;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return -EINVAL; /* getopt_long has said what is wrong */
    }
}

int options_parse(struct options *options, int argc, char **argv)
{
    *options = (struct options){
        .host = "127.0.0.1",
        .port = 8080,
        .max_connections = 16384,
        .max_url = 2048,
        .max_header = 8192,
        .max_body = 1u << 20,
        .header_timeout = WEFT_SEC(10),
        .keepalive_timeout = WEFT_SEC(75),
        .write_timeout = WEFT_SEC(30),
        .grace = WEFT_SEC(5),
        .lifetime = WEFT_FOREVER,
    };

    int which;
    while ((which = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int error = set_option(options, which, optarg);
        if (error != 0)
            return error;
    }
    if (optind < argc) {
        fprintf(stderr, "httpd: unexpected argument \"%s\"\n", argv[optind]);
        return -EINVAL;
    }
    return 0;
}
