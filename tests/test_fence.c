/*
 * On a kernel without membarrier(2) (an old one, or one whose sandbox refuses it) the frequent side of the asymmetric
 * fence has to take a full one: stealing, taking over and stopping as everywhere. The calls are refused by a filter of
 * this process.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "support.h"

static bool refuse_membarrier(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 && syscall(SYS_membarrier, 0, 0, 0) < 0 &&
           errno == ENOSYS;
}

static void run_everywhere(weft_fn *fn)
{
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], fn, NULL), 0);
}

static weft_task *spawn(weft_fn *fn, void *arg)
{
    weft_task *task = weft_spawn(fn, arg);

    must(task != NULL);
    return task;
}

/* Ten ways down, each leaf 1; one in three passes on first, so that it runs on a stack of its own, wherever. */
static intptr_t tree(void *arg)
{
    intptr_t depth = (intptr_t)arg, sum = 0;
    weft_task *children[10];

    if (depth == 0)
        return 1;
    if (depth % 3 == 0)
        must_be(weft_yield(), 0);
    for (int i = 0; i < 10; i++)
        children[i] = spawn(tree, (void *)(depth - 1));
    for (int i = 0; i < 10; i++)
        sum += weft_await(children[i]);
    return sum;
}

static intptr_t trees(void *arg)
{
    (void)arg;
    for (int i = 0; i < FEWER(100); i++)
        must_be(weft_await(spawn(tree, (void *)4)), 10000);
    return 0;
}

static void trees_are_walked(void **state)
{
    (void)state;
    run_everywhere(trees);
}

struct relay {
    weft_chan *in, *out;
};

static intptr_t pass_through(void *arg)
{
    struct relay *relay = arg;
    int value;

    while (weft_chan_recv(relay->in, &value) == 0) {
        value++;
        must_be(weft_chan_send(relay->out, &value), 0);
    }
    weft_chan_close(relay->out);
    return 0;
}

/* Work enough for thieves: every relay wakes the next one. */
static intptr_t relays(void *arg)
{
    enum { RELAYS = 20 };
    const int rounds = FEWER(20000);
    struct relay relay[RELAYS];
    weft_task *tasks[RELAYS];
    int value;

    (void)arg;
    for (int i = 0; i < RELAYS; i++) {
        relay[i].in = i == 0 ? weft_chan_new(sizeof(int), 4) : relay[i - 1].out;
        relay[i].out = weft_chan_new(sizeof(int), 4);
        must(relay[i].in && relay[i].out);
        tasks[i] = spawn(pass_through, &relay[i]);
    }
    for (int i = 0; i < rounds + 40; i++) {
        if (i < rounds) {
            must_be(weft_chan_send(relay[0].in, &i), 0);
        } else if (i == rounds) {
            weft_chan_close(relay[0].in);
        }
        if (i >= 40) {
            must_be(weft_chan_recv(relay[RELAYS - 1].out, &value), 0);
            must_be(value, i - 40 + RELAYS);
        }
    }
    for (int i = 0; i < RELAYS; i++)
        must_be(weft_await(tasks[i]), 0);
    for (int i = 0; i < RELAYS; i++)
        weft_chan_free(relay[i].in);
    weft_chan_free(relay[RELAYS - 1].out);
    return 0;
}

static void items_go_from_task_to_task(void **state)
{
    (void)state;
    run_everywhere(relays);
}

static atomic_int blocking, unblocked;

/* Until the others have had their turn: for ever, if nobody takes the worker over. */
static intptr_t block(void *arg)
{
    (void)arg;
    atomic_store(&blocking, 1);
    while (!atomic_load(&unblocked))
        nap(WEFT_MS(1));
    return weft_yield();
}

static intptr_t beside_one_that_blocks(void *arg)
{
    weft_task *task;

    (void)arg;
    atomic_store(&blocking, 0);
    atomic_store(&unblocked, 0);
    task = spawn(block, NULL);
    wait_until_true(atomic_load(&blocking));
    for (int i = 0; i < 20; i++)
        must_be(weft_sleep(WEFT_US(100)), 0);
    atomic_store(&unblocked, 1);
    return weft_await(task);
}

static void a_worker_is_taken_over(void **state)
{
    (void)state;
    run_everywhere(beside_one_that_blocks);
}

static intptr_t leaves_some_behind(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        must_be(weft_go(sleep_for_ever, NULL), 0);
    return 0;
}

static void all_are_cancelled_at_the_end(void **state)
{
    (void)state;
    for (int i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_beside_threads(support_workers[i], leaves_some_behind, NULL), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trees_are_walked),
        cmocka_unit_test(items_go_from_task_to_task),
        cmocka_unit_test(a_worker_is_taken_over),
        cmocka_unit_test(all_are_cancelled_at_the_end),
    };

    if (!refuse_membarrier()) {
        puts("skipped: no filter can be set here");
        return 0;
    }
    return run_all(tests, argc, argv);
}
