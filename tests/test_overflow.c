/* A task that runs out of stack ends the process with a message that says so. In children. */
#include <signal.h>
#include <sys/resource.h>

#include "support.h"

static volatile int never = 0;

static __attribute__((noinline)) intptr_t recurse(void *arg)
{
    volatile char frame[256];

    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = (char)(uintptr_t)arg;
    return never ? 0 : recurse((char *)arg + 1) + frame[17];
}

static intptr_t recurse_after_a_pause(void *arg)
{
    must_be(weft_yield(), 0);
    must_be(weft_sleep(WEFT_US(10)), 0);
    return recurse(arg);
}

static intptr_t spawn_and_await(void *arg)
{
    weft_spawn_options options = {.name = "bottomless", .stack_size = 64 << 10};
    weft_task *task;

    task = weft_spawn_with(&options, arg ? recurse : recurse_after_a_pause, NULL);
    must(task != NULL);
    return weft_await(task);
}

static intptr_t spawn_and_wait(void *arg)
{
    weft_spawn_options options = {.name = "bottomless"};
    weft_task *task;

    task = weft_spawn_with(&options, recurse, NULL);
    must(task != NULL);
    (void)arg;
    must_be(weft_sleep(WEFT_SEC(100)), 0);
    return 0;
}

struct overflow {
    weft_fn *fn;
    void *arg;
    uint32_t workers;
};

static void overflow_in_child(void *arg)
{
    struct overflow *overflow = arg;
    struct rlimit no_core = {0, 0};
    weft_config config = {.workers = overflow->workers};
    weft_runtime *runtime;

    setrlimit(RLIMIT_CORE, &no_core);
    /* cmocka's handlers are not wanted here. */
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    must_be(weft_runtime_start(&config, &runtime), 0);
    weft_runtime_run(runtime, overflow->fn, overflow->arg);
}

static void dies_by_name(struct overflow overflow)
{
    char text[16384];
    int status = run_in_child(overflow_in_child, &overflow, text, sizeof text);

    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (!strstr(text, "stack overflow"))
        print_message("status %x: %s\n", status, text);
    assert_non_null(strstr(text, "stack overflow"));
    assert_non_null(strstr(text, "'bottomless'"));
    assert_non_null(strstr(text, "WEFT_STACK_SIZE"));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

static void endless_recursion_ends_with_the_name_of_the_task(void **state)
{
    (void)state;
    if (SUPPORT_SANITIZED)
        skip(); /* a sanitizer has a handler and a message of its own */
    dies_by_name((struct overflow){spawn_and_wait, NULL, 1});
    dies_by_name((struct overflow){spawn_and_wait, NULL, 3});
    dies_by_name((struct overflow){spawn_and_await, NULL, 1});
    dies_by_name((struct overflow){spawn_and_await, NULL, 3});
}

/* The stack is the awaiter's, but the task that overflowed it is the awaited one. */
static void in_place_it_names_the_awaited_task(void **state)
{
    (void)state;
    if (SUPPORT_SANITIZED)
        skip();
    dies_by_name((struct overflow){spawn_and_await, (void *)1, 1});
    dies_by_name((struct overflow){spawn_and_await, (void *)1, 3});
}

static intptr_t plain_fault(void *arg)
{
    return *(volatile char *)arg;
}

static void another_fault_is_not_called_an_overflow(void **state)
{
    struct overflow overflow = {plain_fault, (void *)64, 1};
    char text[16384];
    int status;

    (void)state;
    if (SUPPORT_SANITIZED)
        skip();
    status = run_in_child(overflow_in_child, &overflow, text, sizeof text);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_null(strstr(text, "stack overflow"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endless_recursion_ends_with_the_name_of_the_task),
        cmocka_unit_test(in_place_it_names_the_awaited_task),
        cmocka_unit_test(another_fault_is_not_called_an_overflow),
    };

    if (getenv("WEFT_TEST_EMULATED")) {
        puts("skipped: an emulator has no guards");
        return 0;
    }
    return run_all(tests, argc, argv);
}
