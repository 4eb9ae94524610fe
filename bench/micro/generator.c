/*
 * C6: generators, on a thread of no runtime and inside a task.
 */
#include <errno.h>

#include "micro.h"

static intptr_t count(void *arg)
{
    long values = *(long *)arg;

    for (long i = 0; i < values; i++)
        weft_gen_yield(i);
    return 0;
}

static intptr_t echo(void *arg)
{
    intptr_t sent = 0;

    for (;;)
        sent = weft_gen_yield(sent);
    return (intptr_t)arg;
}

/* ns for all of them, or -errno. */
static intptr_t take(void *arg)
{
    long values = *(long *)arg;
    weft_gen *gen = weft_gen_new(count, arg);
    int64_t start = weft_now();
    intptr_t sum = 0;

    if (!gen)
        return -ENOMEM;
    WEFT_GEN_FOR(value, gen)
    sum += value;
    start = weft_now() - start;
    weft_gen_free(gen);
    return sum == values * (values - 1) / 2 ? start : -EPROTO;
}

static intptr_t talk(void *arg)
{
    long values = *(long *)arg;
    weft_gen *gen = weft_gen_new(echo, NULL);
    intptr_t answer = 0;
    int64_t start;

    if (!gen || weft_gen_next(gen, &answer) != 1)
        return -ENOMEM;
    start = weft_now();
    for (long i = 0; i < values; i++)
        if (weft_gen_send(gen, i, &answer) != 1 || answer != i)
            return -EPROTO;
    start = weft_now() - start;
    weft_gen_free(gen);
    return start;
}

static int values_of_generators(const struct setting *setting, struct sample *sample)
{
    long values = 10 * 1000 * 1000;
    intptr_t outside = take(&values), sent = talk(&values);
    intptr_t inside = weft_runtime_run(setting->runtime, take, &values);

    if (weft_is_error(outside) || weft_is_error(sent) || weft_is_error(inside))
        return -EPROTO;
    add_part(sample, "C6", "next", "ns", (double)outside / (double)values);
    add_part(sample, "C6", "send", "ns", (double)sent / (double)values);
    add_part(sample, "C6", "task", "ns", (double)inside / (double)values);
    return 0;
}

const struct workload generator_workloads[] = {
    {"C6", "10 M values of a generator", values_of_generators, ONE_COUNT},
    {NULL, NULL, NULL, 0},
};
