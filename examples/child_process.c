/*
 * A child process: what it prints and how it ends; a conversation with one through its pipes, line by line; and how one
 * that a signal has ended says so.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <weft.h>

static int output_and_status(void)
{
    const char *const argv[] = {"sh", "-c", "echo hello from the child; exit 3", NULL};
    weft_process_result result = {0};
    int rc = weft_process_run(NULL, argv, NULL, 0, 0, &result);

    if (rc == 0)
        printf("it printed: %.*s, and exited with %d\n", (int)result.out_size - 1, result.out, result.status);
    weft_process_result_free(&result);
    return rc;
}

static int conversation(void)
{
    weft_process_options options = {.in = {.kind = WEFT_STDIO_PIPE}, .out = {.kind = WEFT_STDIO_PIPE}};
    weft_process *process;
    int rc = weft_process_shell(&options, "while read line; do echo \"you said $line\"; done", &process);

    if (rc < 0)
        return rc;
    for (int i = 0; i < 2; i++) {
        static const char *const lines[] = {"hello\n", "goodbye\n"};
        char answer[64];
        ssize_t n;

        weft_write_all(weft_process_stdin(process), lines[i], strlen(lines[i]));
        n = weft_read(weft_process_stdout(process), answer, sizeof answer);
        if (n > 0)
            printf("%.*s", (int)n, answer);
    }
    weft_process_close_stdin(process); /* it reads the end, and ends */
    rc = weft_process_wait(process, NULL);
    weft_process_close(process);
    return rc;
}

static int ended_by_a_signal(void)
{
    weft_process *process;
    int status, rc = weft_process_shell(NULL, "exec sleep 100", &process);

    if (rc < 0)
        return rc;
    weft_process_terminate(process);
    rc = weft_process_wait(process, &status);
    if (rc == 0)
        printf("terminated: status %d, that is -SIGTERM: %d\n", status, status == -SIGTERM);
    weft_process_close(process);
    return rc;
}

static intptr_t start(void *unused)
{
    int rc = output_and_status();

    (void)unused;
    if (rc == 0)
        rc = conversation();
    return rc == 0 ? ended_by_a_signal() : rc;
}

int main(void)
{
    intptr_t rc = weft_run(start, NULL);

    if (rc < 0)
        fprintf(stderr, "child_process: %s\n", strerror((int)-rc));
    return rc < 0;
}
