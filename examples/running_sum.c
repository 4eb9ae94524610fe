/*
 * Strict ping-pong with a generator: the caller sends a number, the generator adds it and hands out the total, and
 * neither goes on before the other has stopped. `total` is a local variable: it is kept between the calls.
 */
#include <stdio.h>
#include <weft.h>

static intptr_t running_sum(void *unused)
{
    intptr_t total = 0, x;

    (void)unused;
    printf("    sum: starts, hands out 0\n");
    while (weft_gen_yield_into(total, &x) == 0) { /* x = yield(total), until it is closed */
        total += x;
        printf("    sum: was sent %ld, hands out %ld\n", (long)x, (long)total);
    }
    return total;
}

int main(void)
{
    weft_gen *sum = weft_gen_new(running_sum, NULL);
    intptr_t total = -1;
    int rc;

    if (!sum) {
        fprintf(stderr, "running_sum: out of memory\n");
        return 1;
    }
    printf("caller: starts it\n");
    rc = weft_gen_next(sum, &total);
    for (int x = 1; x <= 4 && rc == 1; x++) {
        printf("caller: got %ld, sends %d\n", (long)total, x);
        rc = weft_gen_send(sum, x, &total);
    }
    printf("caller: got %ld\n", (long)total);
    weft_gen_free(sum);
    return rc == 1 ? 0 : 1;
}
