/*
 * A pipeline of processes: numbers | grep 7 | wc -l, where the numbers come from a task, the pipes between the
 * processes are the kernel's, and the result comes back to another task. Only the two outer ends belong to the program;
 * the inner pipe is given to its two processes and closed here, so that wc sees the end when grep is through.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

static intptr_t write_numbers(void *process)
{
    char line[16];

    for (int i = 1; i <= 10000; i++) {
        int length = snprintf(line, sizeof line, "%d\n", i);
        ssize_t rc = weft_write_all(weft_process_stdin(process), line, (size_t)length);

        if (rc < 0)
            return rc;
    }
    return weft_process_close_stdin(process);
}

static int start_both(weft_process **grep, weft_process **wc)
{
    const char *const grep_argv[] = {"grep", "7", NULL}, *const wc_argv[] = {"wc", "-l", NULL};
    weft_process_options options = {.in = {.kind = WEFT_STDIO_PIPE}};
    int between[2];
    int rc = weft_pipe(between);

    if (rc < 0)
        return rc;
    options.out = (weft_stdio){.kind = WEFT_STDIO_FD, .fd = between[1]};
    rc = weft_process_spawn(&options, grep_argv, grep);
    if (rc == 0) {
        options = (weft_process_options){
            .in = {.kind = WEFT_STDIO_FD, .fd = between[0]},
            .out = {.kind = WEFT_STDIO_PIPE},
        };
        rc = weft_process_spawn(&options, wc_argv, wc);
    }
    weft_close(between[0]);
    weft_close(between[1]);
    return rc;
}

static intptr_t pipeline(void *unused)
{
    weft_process *grep = NULL, *wc = NULL;
    weft_process_result result = {0};
    weft_task *writer;
    int status, rc = start_both(&grep, &wc);

    (void)unused;
    if (rc == 0) {
        writer = weft_spawn(write_numbers, grep);
        rc = weft_process_communicate(wc, NULL, 0, 0, &result);
        weft_await(writer);
        weft_process_wait(grep, &status);
    }
    if (rc == 0)
        printf("%d of 10000 numbers have a 7; exit statuses %d and %d\n", atoi(result.out), status, result.status);
    weft_process_result_free(&result);
    weft_process_close(grep); /* kills what still runs, after an error */
    weft_process_close(wc);
    return rc;
}

int main(void)
{
    intptr_t rc = weft_run(pipeline, NULL);

    if (rc < 0)
        fprintf(stderr, "pipeline: %s\n", strerror((int)-rc));
    return rc < 0;
}
