/* What the calls on a generator return: a value, "finished", or an error, as in any weft call. */
#include <stdio.h>
#include <string.h>
#include <weft.h>

/* Hands out 1, then what it was sent, then ends. */
static intptr_t one_then_yours(void *unused)
{
    intptr_t sent = weft_gen_yield(1);

    (void)unused;
    weft_gen_yield(sent);
    return 42;
}

static void show(const char *call, int rc, intptr_t value)
{
    if (rc == 1)
        printf("%-10s a value: %ld\n", call, (long)value);
    else if (rc == 0)
        printf("%-10s finished\n", call);
    else
        printf("%-10s error %d: %s\n", call, rc, strerror(-rc));
}

int main(void)
{
    weft_gen *gen = weft_gen_new(one_then_yours, NULL);
    intptr_t value = 0;
    int rc;

    if (!gen) {
        fprintf(stderr, "generator_protocol: out of memory\n");
        return 1;
    }
    rc = weft_gen_send(gen, 5, &value); /* there is no yield yet that could return the 5 */
    show("send(5)", rc, value);
    rc = weft_gen_next(gen, &value);
    show("next", rc, value);
    rc = weft_gen_send(gen, 10, &value);
    show("send(10)", rc, value);
    rc = weft_gen_next(gen, &value);
    show("next", rc, value);
    printf("%-10s %ld\n", "result", (long)weft_gen_result(gen)); /* of the function, once it has returned */
    return weft_gen_free(gen) < 0;
}
