/* The program of the README: two deliveries at once. */
#include <stdio.h>
#include <weft.h>

static intptr_t deliver(void *ms)
{
    int rc = weft_sleep(WEFT_MS((intptr_t)ms)); /* parks the task, not the thread */
    return rc < 0 ? rc : (intptr_t)ms;
}

static intptr_t start(void *unused)
{
    weft_task *soup = weft_spawn(deliver, (void *)100), *noodles = weft_spawn(deliver, (void *)200);
    (void)unused;
    return weft_await(soup) + weft_await(noodles);
}

int main(void)
{
    int64_t began = weft_now();
    intptr_t sum = weft_run(start, NULL);
    printf("%ld ms of deliveries in %ld ms\n", (long)sum, (long)((weft_now() - began) / 1000000));
    return sum == 300 ? 0 : 1;
}
