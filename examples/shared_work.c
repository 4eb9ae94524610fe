/*
 * Work that is shared: a queue hands every item out exactly once, however many tasks take from it on however many
 * workers, and a mutex lets none of the additions to a common sum get lost.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <weft.h>

enum { ITEMS = 100000, TAKERS = 8 };

static weft_queue *queue;
static weft_mutex mutex;
static long sum, taken;
static char times[ITEMS + 1]; /* that the item was handed out */

static intptr_t take_all(void *unused)
{
    int item, rc;

    (void)unused;
    while ((rc = weft_queue_get(queue, &item)) == 0) {
        times[item]++;
        if ((rc = weft_mutex_lock(&mutex)) < 0)
            return rc;
        sum += item;
        taken++;
        weft_mutex_unlock(&mutex);
    }
    return rc == -ESHUTDOWN ? 0 : rc;
}

static intptr_t start(void *unused)
{
    weft_task *tasks[TAKERS];
    intptr_t results[TAKERS], rc;
    int once = 0;

    (void)unused;
    queue = weft_queue_new(WEFT_QUEUE_FIFO, sizeof(int), 64, NULL);
    if (!queue)
        return -ENOMEM;
    for (int i = 0; i < TAKERS; i++)
        tasks[i] = weft_spawn(take_all, NULL);
    for (int item = 1; item <= ITEMS; item++)
        weft_queue_put(queue, &item);
    weft_queue_shutdown(queue, 0);
    rc = weft_gather(tasks, TAKERS, results);
    for (int item = 1; item <= ITEMS; item++)
        once += times[item] == 1;
    printf("%ld taken, %d of them exactly once, the sum is %ld\n", taken, once, sum);
    weft_queue_free(queue);
    return rc;
}

int main(void)
{
    intptr_t rc = weft_run(start, NULL);

    if (rc < 0)
        fprintf(stderr, "shared_work: %s\n", strerror((int)-rc));
    return rc < 0;
}
