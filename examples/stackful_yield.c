/*
 * A subroutine begins anew with every call; a coroutine goes on where it stopped, with its local variables. Having
 * a stack of its own, it may stop at any depth: here ten calls down, where the functions in between know nothing
 * of it.
 */
#include <stdio.h>
#include <weft.h>

static int subroutine(void)
{
    int count = 0;

    return ++count;
}

static intptr_t coroutine(void *unused)
{
    int count = 0;

    (void)unused;
    while (weft_gen_yield_into(++count, NULL) == 0)
        ;
    return count;
}

/* Plain recursion. At the bottom it stops; what it is sent comes back up through ten calls, each adding its own. */
static intptr_t descend(intptr_t depth)
{
    if (depth == 10)
        return depth + weft_gen_yield(depth);
    return depth + descend(depth + 1);
}

static intptr_t deep(void *unused)
{
    (void)unused;
    weft_gen_yield(descend(1));
    return 0;
}

int main(void)
{
    weft_gen *counter = weft_gen_new(coroutine, NULL), *diver = weft_gen_new(deep, NULL);
    intptr_t value = 0;
    int rc = counter && diver;

    printf("subroutine: %d", subroutine());
    printf(" %d", subroutine());
    printf(" %d\n", subroutine());

    printf("coroutine:");
    for (int i = 0; i < 3 && rc == 1; i++) {
        rc = weft_gen_next(counter, &value);
        printf(" %ld", (long)value);
    }
    printf("\n");

    if (rc == 1)
        rc = weft_gen_next(diver, &value);
    printf("stopped %ld calls deep\n", (long)value);
    if (rc == 1)
        rc = weft_gen_send(diver, 100, &value);
    printf("sent 100, came back with %ld\n", (long)value);

    weft_gen_free(counter);
    weft_gen_free(diver);
    return rc == 1 ? 0 : 1;
}
