/*
 * Two ways to take turns, without a scheduler and without a runtime.
 *
 * Symmetric: a coroutine says who is next and jumps straight to it, A to B to C to A.
 * Asymmetric: a generator yields to whoever resumed it, and that one resumes the next.
 */
#include <stdio.h>
#include <weft.h>

enum { MEMBERS = 3, TURNS = 9 };

static weft_co *ring[MEMBERS];

static intptr_t member(intptr_t turn)
{
    const char name = (char)('A' + turn); /* the value of the first transfer; a local, so it stays */
    weft_co *next = ring[(turn + 1) % MEMBERS];

    while (turn < TURNS) {
        printf(" %c", name);
        if (weft_co_transfer(next, turn + 1, &turn) < 0)
            return -1;
    }
    return turn; /* back to main */
}

static intptr_t symmetric(void)
{
    intptr_t turns = -1;

    for (int i = 0; i < MEMBERS; i++)
        ring[i] = weft_co_new(member);
    if (ring[0] && ring[1] && ring[2] && weft_co_transfer(ring[0], 0, &turns) < 0)
        turns = -1;
    for (int i = 0; i < MEMBERS; i++)
        weft_co_free(ring[i]);
    return turns;
}

static intptr_t speaker(void *name)
{
    do
        printf(" %s", (const char *)name);
    while (weft_gen_yield_into(0, NULL) == 0);
    return 0;
}

static intptr_t asymmetric(void)
{
    weft_gen *speakers[MEMBERS] = {weft_gen_new(speaker, "A"), weft_gen_new(speaker, "B"),
                                   weft_gen_new(speaker, "C")};
    intptr_t turns = 0;

    if (speakers[0] && speakers[1] && speakers[2])
        while (turns < TURNS && weft_gen_next(speakers[turns % MEMBERS], NULL) == 1)
            turns++;
    for (int i = 0; i < MEMBERS; i++)
        weft_gen_free(speakers[i]);
    return turns;
}

int main(void)
{
    intptr_t turns[2];

    printf("symmetric: ");
    turns[0] = symmetric();
    printf("\nasymmetric:");
    turns[1] = asymmetric();
    printf("\n");
    return turns[0] == TURNS && turns[1] == TURNS ? 0 : 1;
}
