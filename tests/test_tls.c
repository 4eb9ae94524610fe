/*
 * Thread-locals and errno belong to the thread, which changes under a task. What the library keeps per thread
 * must stay right over every suspension, and a thread-local that is reached anew each time is that of the
 * current thread.
 */
#include <sys/syscall.h>

#include "support.h"

static _Thread_local pid_t thread_id;
static _Thread_local uint64_t thread_steps;
static _Atomic uint64_t steps, moves;

/* Not inlined, so that no address is kept over a suspension. */
static __attribute__((noinline)) pid_t id_of_thread(void)
{
    __asm__ volatile("");
    if (thread_id == 0)
        thread_id = (pid_t)syscall(SYS_gettid);
    return thread_id;
}

static __attribute__((noinline)) void count_step(void)
{
    __asm__ volatile("");
    thread_steps++;
    atomic_fetch_add_explicit(&steps, 1, memory_order_relaxed);
}

static __attribute__((noinline)) void fail_a_call(int expected)
{
    __asm__ volatile("");
    errno = 0;
    must_be(close(expected == EBADF ? -1 : -2), -1);
    must_be(errno, EBADF);
}

static intptr_t check_self_below(void *arg)
{
    must(weft_self() != arg);
    return (intptr_t)id_of_thread();
}

struct wanderer {
    weft_runtime *runtime;
    uint64_t random;
    char name[32];
};

static void check(const struct wanderer *wanderer, const weft_task *self)
{
    must_be(id_of_thread(), syscall(SYS_gettid));
    must(weft_self() == self);
    must(weft_runtime_current() == wanderer->runtime);
    must(strcmp(weft_task_name(weft_self()), wanderer->name) == 0);
    must_be(weft_cancelled(), 0);
    fail_a_call(EBADF);
    count_step();
}

static intptr_t wander(void *arg)
{
    struct wanderer *wanderer = arg;
    weft_task *self = weft_self();
    volatile double fraction = 1.0;

    for (int i = 0; i < FEWER(1000); i++) {
        pid_t before = id_of_thread();

        switch (draw(&wanderer->random) % 6) {
        case 0:
            must_be(weft_sleep((int64_t)(draw(&wanderer->random) % 30000)), 0);
            break;
        case 1:
            must(weft_await(weft_spawn(check_self_below, self)) > 0);
            break;
        case 2:
            must(weft_blocking(check_self_below, self) > 0);
            break;
        default:
            must_be(weft_yield(), 0);
            break;
        }
        fraction = fraction * 0.5 + 1.0;
        check(wanderer, self);
        if (id_of_thread() != before)
            atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed);
    }
    must(fraction > 1.0 && fraction <= 2.0);
    return 1;
}

static intptr_t wander_at_once(void *arg)
{
    enum { WANDERERS = 40 };
    static struct wanderer wanderers[WANDERERS];
    weft_task *tasks[WANDERERS];

    (void)arg;
    for (int i = 0; i < WANDERERS; i++) {
        weft_spawn_options options = {.name = wanderers[i].name};

        wanderers[i].runtime = weft_runtime_current();
        wanderers[i].random = (uint64_t)i + 1;
        snprintf(wanderers[i].name, sizeof wanderers[i].name, "wanderer %d", i);
        must((tasks[i] = weft_spawn_with(&options, wander, &wanderers[i])) != NULL);
    }
    for (int i = 0; i < WANDERERS; i++)
        must_be(weft_await(tasks[i]), 1);
    must_be(atomic_load(&steps), WANDERERS * FEWER(1000));
    return 0;
}

static void what_belongs_to_the_thread_is_right_after_every_suspension(void **state)
{
    static const uint32_t workers[] = {1, 2, 8};

    (void)state;
    for (int i = 0; i < 3; i++) {
        atomic_store(&steps, 0);
        atomic_store(&moves, 0);
        assert_int_equal(run_on(workers[i], wander_at_once, NULL), 0);
        print_message("%u workers: %llu of %llu suspensions ended on another thread\n", workers[i],
                      (unsigned long long)atomic_load(&moves), (unsigned long long)atomic_load(&steps));
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_belongs_to_the_thread_is_right_after_every_suspension),
    };

    return run_all(tests, argc, argv);
}
