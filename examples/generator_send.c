/*
 * A generator that is fed: what weft_gen_send sends is what the yield in its body returns. The body is an endless
 * loop; it stays suspended in it until the generator is freed. No runtime is needed for any of this.
 */
#include <stdio.h>
#include <weft.h>

/* What is sent is an intptr_t: a number, or a pointer to whatever it takes. */
struct value {
    enum { INTEGER, TEXT, REAL } kind;
    union {
        int integer;
        const char *text;
        double real;
    };
};

static intptr_t receiver(void *unused)
{
    intptr_t sent;

    (void)unused;
    while (weft_gen_yield_into(0, &sent) == 0) { /* for ever, or until it is closed */
        const struct value *value = (const struct value *)sent;

        switch (value->kind) {
        case INTEGER:
            printf("received: %d\n", value->integer);
            break;
        case TEXT:
            printf("received: %s\n", value->text);
            break;
        case REAL:
            printf("received: %g\n", value->real);
            break;
        }
    }
    return 0;
}

/* 1 if the generator has come to a yield, as it always does here. */
static int feed(weft_gen *gen, const struct value *values, int count)
{
    int rc = 1;

    for (int i = 0; i < count && rc == 1; i++)
        rc = weft_gen_send(gen, (intptr_t)&values[i], NULL);
    return rc;
}

int main(void)
{
    const struct value values[] = {
        {INTEGER, .integer = 10}, {TEXT, .text = "hello"}, {REAL, .real = 3.14}, {INTEGER, .integer = 20}};
    weft_gen *first = weft_gen_new(receiver, NULL), *second = weft_gen_new(receiver, NULL);
    int rc = -1;

    /* It must be at its first yield before it can be sent anything: next takes it there, and so does sending 0. */
    if (first && second && weft_gen_next(first, NULL) == 1 && weft_gen_send(second, 0, NULL) == 1 &&
        feed(first, values, 3) == 1 && feed(second, values + 3, 1) == 1)
        rc = 0;
    if (weft_gen_free(first) < 0 || weft_gen_free(second) < 0)
        rc = -1;
    puts(rc < 0 ? "failed" : "freed while suspended");
    return rc < 0;
}
