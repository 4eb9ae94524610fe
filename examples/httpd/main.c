/*
 * httpd: an HTTP/1.1 server on weft. A task per connection, straight-line code, and a handler of each kind:
 * one that parks, one that blocks in the pool, one that computes, and one that blocks its worker by mistake.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <weft.h>

#include "server.h"

/* What cancelled tasks get for their clean-up when the grace has been used up. */
#define LAST_GRACE WEFT_MS(200)

static double seconds_of(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

static void report(struct server *server)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"program\": \"httpd\", \"requests\": %llu, \"connections\": %llu, \"user_s\": %.3f,"
           " \"system_s\": %.3f, \"voluntary_switches\": %ld, \"involuntary_switches\": %ld,"
           " \"max_rss_kb\": %ld}\n",
           (unsigned long long)server_requests(server), (unsigned long long)atomic_load(&server->totals.accepted),
           seconds_of(&usage.ru_utime), seconds_of(&usage.ru_stime), usage.ru_nvcsw, usage.ru_nivcsw,
           usage.ru_maxrss);
}

/* 0; an error of the runtime; -ETIMEDOUT if something held out beyond the grace. */
static intptr_t run(struct server *server)
{
    weft_runtime *runtime;
    int error = weft_runtime_start(NULL, &runtime);
    if (error != 0) {
        fprintf(stderr, "httpd: the runtime did not start: %s\n", strerror(-error));
        return error;
    }
    printf("listening on %s:%d\n", server->options.host, weft_local_port(server->listener));
    fflush(stdout);
    intptr_t result = weft_runtime_run(runtime, server_main, server);
    error = weft_runtime_stop(runtime, LAST_GRACE);
    return result != 0 ? result : error;
}

int main(int argc, char **argv)
{
    /* Static: should something be left behind at the end, it may still look here. */
    static struct server server;
    struct options options;
    if (options_parse(&options, argc, argv) != 0)
        return 2;
    if (options.help) {
        options_print_help(argv[0]);
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);

    int error = server_init(&server, &options);
    intptr_t result = error != 0 ? error : run(&server);
    if (error == 0 && !options.quiet)
        report(&server);
    if (result != -ETIMEDOUT)
        server_term(&server);
    return result == 0 ? 0 : 1;
}
