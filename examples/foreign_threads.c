/*
 * Threads and tasks working for each other. Three threads of the program's own submit tasks to a runtime and wait
 * for their results; each task in turn asks a fourth thread, which keeps a library to itself that only one thread
 * may use.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <weft.h>

enum { SUBMITTERS = 3 };

struct question {
    intptr_t number;
    weft_promise answer;
};

/* Of pointers to questions. Channels and promises serve both: a task that has to wait parks, a thread blocks. */
static weft_chan *questions;

/* The thread that owns the library, until nobody can ask any more. */
static void *owner(void *unused)
{
    struct question *question;

    while (weft_chan_recv(questions, &question) == 0)
        weft_promise_set(&question->answer, question->number * question->number);
    return unused;
}

/* Task: from here back to a thread outside. */
static intptr_t square_and_add_one(void *number)
{
    struct question question = {(intptr_t)number, WEFT_PROMISE_INIT}, *pointer = &question;
    intptr_t rc = weft_chan_send(questions, &pointer);

    if (rc < 0)
        return rc;
    weft_mask_begin(); /* the owner will write into this frame: wait for that, come what may */
    rc = weft_await(&question.answer);
    weft_mask_end();
    return weft_is_error(rc) ? rc : rc + 1;
}

static weft_runtime *runtime;

/* Thread: weft_await blocks it. weft_runtime_run(runtime, fn, arg) does both in one call. */
static void *submit(void *number)
{
    return (void *)weft_await(weft_runtime_spawn(runtime, square_and_add_one, number));
}

/* 0, or the first error: of a thread that could not be made, or of a task. */
static intptr_t submit_all(void)
{
    pthread_t threads[SUBMITTERS];
    intptr_t rc = 0;
    void *result;
    int started = 0;

    while (started < SUBMITTERS && rc == 0) {
        rc = -pthread_create(&threads[started], NULL, submit, (void *)(intptr_t)started);
        started += rc == 0;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], &result);
        printf("thread %d: %ld\n", i, (long)(intptr_t)result);
        if (weft_is_error((intptr_t)result) && rc == 0)
            rc = (intptr_t)result;
    }
    return rc;
}

int main(void)
{
    pthread_t thread;
    intptr_t rc;

    questions = weft_chan_new(sizeof(struct question *), 8);
    rc = questions ? -pthread_create(&thread, NULL, owner, NULL) : -ENOMEM;
    if (rc == 0) {
        rc = weft_runtime_start(NULL, &runtime);
        if (rc == 0) {
            rc = submit_all();
            weft_runtime_stop(runtime, WEFT_FOREVER);
        }
        weft_chan_close(questions); /* ends the owner */
        pthread_join(thread, NULL);
    }
    weft_chan_free(questions);
    if (rc < 0)
        fprintf(stderr, "foreign_threads: %s\n", strerror((int)-rc));
    return rc < 0;
}
