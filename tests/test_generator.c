/* Generators: what passes between body and caller, misuse, in tasks that move and are cancelled, between threads. */
#include <pthread.h>
#include <sys/resource.h>

#include "support.h"

static const uint32_t worker_counts[] = {1, 2, 8};

/* On the main thread, which has no runtime, then in a task of runtimes of 1, 2 and 8 workers. */
static void everywhere(weft_fn *fn)
{
    must_be(fn(NULL), 0);
    for (unsigned i = 0; i < sizeof worker_counts / sizeof *worker_counts; i++)
        must_be(run_on(worker_counts[i], fn, NULL), 0);
}

static weft_gen *make(weft_fn *fn, void *arg)
{
    weft_gen *gen = weft_gen_new(fn, arg);

    must(gen != NULL);
    return gen;
}

static void must_yield(weft_gen *gen, intptr_t value)
{
    intptr_t out = -77;

    must_be(weft_gen_next(gen, &out), 1);
    must_be(out, value);
}

static void must_answer(weft_gen *gen, intptr_t in, intptr_t value)
{
    intptr_t out = -77;

    must_be(weft_gen_send(gen, in, &out), 1);
    must_be(out, value);
}

static intptr_t count_to(void *arg)
{
    for (intptr_t i = 0; i < (intptr_t)arg; i++)
        must_be(weft_gen_yield(i), 0);
    return (intptr_t)arg;
}

static intptr_t count_for_ever(void *arg)
{
    for (intptr_t i = (intptr_t)arg;; i++)
        weft_gen_yield(i);
    return 0;
}

/* ---- the programs of the parity table ---- */

struct message {
    enum { NOTHING, NUMBER, TEXT, REAL } kind;
    int number;
    const char *text;
    double real;
};

static intptr_t receive_messages(void *arg)
{
    char(*lines)[32] = arg;
    int n = 0;

    for (;;) {
        const struct message *message = (const struct message *)weft_gen_yield(n);

        if (!message)
            continue;
        if (message->kind == NUMBER)
            snprintf(lines[n++], sizeof *lines, "received: %d", message->number);
        else if (message->kind == TEXT)
            snprintf(lines[n++], sizeof *lines, "received: %s", message->text);
        else
            snprintf(lines[n++], sizeof *lines, "received: %.1f", message->real);
    }
    return 0;
}

static intptr_t p5(void *arg)
{
    struct message number = {.kind = NUMBER, .number = 10}, text = {.kind = TEXT, .text = "hello"},
                   real = {.kind = REAL, .real = 2.5};
    char lines[4][32] = {{0}};

    (void)arg;
    for (int send_nothing = 0; send_nothing < 2; send_nothing++) {
        weft_gen *gen = make(receive_messages, lines);

        if (send_nothing)
            must_answer(gen, 0, 0);
        else
            must_yield(gen, 0);
        must_answer(gen, (intptr_t)&number, 1);
        must_answer(gen, (intptr_t)&text, 2);
        must_answer(gen, (intptr_t)&real, 3);
        must(strcmp(lines[0], "received: 10") == 0);
        must(strcmp(lines[1], "received: hello") == 0);
        must(strcmp(lines[2], "received: 2.5") == 0);
        must_be(weft_gen_finished(gen), 0);
        must_be(weft_gen_free(gen), 0);
    }
    return 0;
}

static void p5_an_endless_body_is_fed_by_send(void **state)
{
    (void)state;
    everywhere(p5);
}

static char trace[128];

static void note(const char *text)
{
    must(strlen(trace) + strlen(text) < sizeof trace);
    strcat(trace, text);
}

static intptr_t running_sum(void *arg)
{
    intptr_t total = 0;

    (void)arg;
    for (;;) {
        note("b");
        total += weft_gen_yield(total);
    }
    return 0;
}

static intptr_t p6(void *arg)
{
    static const intptr_t sums[] = {0, 1, 3, 6, 10};
    weft_gen *gen = make(running_sum, NULL);

    (void)arg;
    trace[0] = '\0';
    for (intptr_t i = 0; i <= 4; i++) {
        note("a");
        must_answer(gen, i, sums[i]);
    }
    must(strcmp(trace, "ababababab") == 0);
    must_be(weft_gen_free(gen), 0);
    must(strcmp(trace, "ababababab") == 0);
    return 0;
}

static void p6_a_running_sum_goes_back_and_forth(void **state)
{
    (void)state;
    everywhere(p6);
}

static intptr_t yield_one_then_what_was_sent(void *arg)
{
    intptr_t sent = weft_gen_yield(1);

    (void)arg;
    weft_gen_yield(sent);
    return 5;
}

static intptr_t p7(void *arg)
{
    weft_gen *gen = make(yield_one_then_what_was_sent, NULL);
    intptr_t out = -77;

    (void)arg;
    must_be(weft_gen_send(gen, 10, &out), -EINVAL);
    must_be(out, -77);
    must_yield(gen, 1);
    must_answer(gen, 10, 10);
    must_be(weft_gen_result(gen), -EBUSY);
    must_be(weft_gen_next(gen, &out), 0);
    must_be(weft_gen_finished(gen), 1);
    must_be(weft_gen_result(gen), 5);
    must_be(weft_gen_next(gen, &out), 0);
    must_be(weft_gen_send(gen, 3, &out), 0);
    must_be(weft_gen_throw(gen, -EIO, &out), 0);
    must_be(weft_gen_result(gen), 5);
    must_be(out, -77);
    must_be(weft_gen_free(gen), 0);
    return 0;
}

static void p7_nothing_can_be_sent_before_the_start(void **state)
{
    (void)state;
    everywhere(p7);
}

static intptr_t one_and_two(void *arg)
{
    int waits = arg != NULL;

    for (int i = 1; i <= 2; i++) {
        if (waits)
            must_be(weft_sleep(WEFT_US(200)), 0);
        weft_gen_yield(i);
    }
    return 0;
}

static void iterate(void *waits)
{
    weft_gen *gen = make(one_and_two, waits);
    intptr_t seen[3] = {0};
    int n = 0;

    WEFT_GEN_FOR(value, gen)
    {
        must(n < 2);
        seen[n++] = value;
    }
    must_be(n, 2);
    must_be(seen[0], 1);
    must_be(seen[1], 2);
    must_be(weft_gen_next(gen, NULL), 0);
    must_be(weft_gen_free(gen), 0);
}

static intptr_t p8(void *arg)
{
    (void)arg;
    iterate(NULL);
    return 0;
}

static intptr_t p8_waiting(void *arg)
{
    iterate("waits");
    return (intptr_t)arg;
}

static void p8_for_each_over_a_generator_and_an_asynchronous_one(void **state)
{
    (void)state;
    everywhere(p8);
    must_be(run_alone(p8_waiting, NULL), 0);
    must_be(run_on(8, p8_waiting, NULL), 0);
}

static __attribute__((noinline)) intptr_t yield_below(int depth, intptr_t value)
{
    volatile char frame[200];
    intptr_t sent;

    memset((char *)frame, depth, sizeof frame);
    sent = depth ? yield_below(depth - 1, value) : weft_gen_yield(value);
    for (size_t i = 0; i < sizeof frame; i++)
        must_be(frame[i], depth);
    return sent;
}

static intptr_t keep_locals(void *arg)
{
    intptr_t locals[10];

    for (int i = 0; i < 10; i++)
        locals[i] = yield_below(10, i);
    for (int i = 0; i < 10; i++)
        must_be(locals[i], 100 + i);
    return (intptr_t)arg;
}

static intptr_t p9(void *arg)
{
    weft_gen *gen = make(keep_locals, NULL);

    must_yield(gen, 0);
    for (int i = 1; i < 10; i++)
        must_answer(gen, 99 + i, i);
    must_be(weft_gen_send(gen, 109, NULL), 0);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void p9_a_body_keeps_its_locals_and_yields_from_ten_calls_deep(void **state)
{
    (void)state;
    everywhere(p9);
}

/* ---- errors, closing ---- */

static intptr_t outside(void *arg)
{
    weft_gen *gen = make(count_for_ever, NULL);
    intptr_t in;

    must_be(weft_gen_yield(1), -EPERM);
    must_be(weft_gen_yield_into(1, &in), -EPERM);
    must_be(weft_gen_delegate(gen), -EPERM);
    must_be(weft_gen_next(NULL, NULL), -EINVAL);
    must_be(weft_gen_throw(gen, 0, NULL), -EINVAL);
    must_be(weft_gen_throw(gen, 7, NULL), -EINVAL);
    must_be(weft_gen_throw(gen, -4096, NULL), -EINVAL);
    must_yield(gen, 0);
    must_be(weft_gen_yield(1), -EPERM); /* also when one is suspended */
    must_be(weft_gen_free(gen), 0);
    must_be(weft_gen_free(NULL), 0);
    return (intptr_t)arg;
}

static void misuse_from_outside_is_told(void **state)
{
    (void)state;
    everywhere(outside);
    must(weft_gen_new(NULL, NULL) == NULL);
}

static intptr_t misuse_itself(void *arg)
{
    weft_gen *gen = *(weft_gen **)arg;

    must_be(weft_gen_next(gen, NULL), -EBUSY);
    must_be(weft_gen_send(gen, 1, NULL), -EBUSY);
    must_be(weft_gen_throw(gen, -EIO, NULL), -EBUSY);
    must_be(weft_gen_close(gen), -EBUSY);
    must_be(weft_gen_free(gen), -EBUSY);
    must_be(weft_gen_delegate(gen), -EBUSY);
    must_be(weft_gen_result(gen), -EBUSY);
    must_be(weft_gen_finished(gen), 0);
    weft_gen_yield(1);
    return 2;
}

static intptr_t reenter(void *arg)
{
    weft_gen *gen = make(misuse_itself, &gen);

    must_yield(gen, 1);
    must_be(weft_gen_next(gen, NULL), 0);
    must_be(weft_gen_result(gen), 2);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void a_running_generator_is_busy(void **state)
{
    (void)state;
    everywhere(reenter);
}

static intptr_t clean_up(void *arg)
{
    int *cleaned = arg;
    intptr_t in = 55;
    int rc;

    while ((rc = weft_gen_yield_into(*cleaned, &in)) == 0)
        in = 66;
    must_be(in, 66); /* an error stores nothing */
    *cleaned += 1;
    return rc;
}

static intptr_t refuse_once(void *arg)
{
    must_be(weft_gen_yield(1), -ECANCELED);
    must_be(weft_gen_yield(2), 0); /* asked once, not for ever */
    must_be(weft_gen_yield(3), -ECANCELED);
    return (intptr_t)arg;
}

static intptr_t close_them(void *arg)
{
    int cleaned = 0;
    weft_gen *gen = make(clean_up, &cleaned);

    must_yield(gen, 0);
    must_yield(gen, 0);
    must_be(weft_gen_close(gen), 0);
    must_be(cleaned, 1);
    must_be(weft_gen_result(gen), -ECANCELED);
    must_be(weft_gen_close(gen), 0);
    must_be(cleaned, 1);
    must_be(weft_gen_free(gen), 0);

    gen = make(clean_up, &cleaned); /* never started */
    must_be(weft_gen_close(gen), 0);
    must_be(weft_gen_result(gen), -ECANCELED);
    must_be(cleaned, 1);
    must_be(weft_gen_free(gen), 0);

    gen = make(refuse_once, NULL);
    must_yield(gen, 1);
    must_be(weft_gen_close(gen), -EBUSY);
    must_yield(gen, 3);
    must_be(weft_gen_close(gen), 0);
    must_be(weft_gen_result(gen), 0);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void closing_lets_the_body_clean_up(void **state)
{
    (void)state;
    everywhere(close_them);
}

static intptr_t tell_errors_from_values(void *arg)
{
    intptr_t in = 0;

    must_be(weft_gen_yield_into(1, &in), 0);
    must_be(in, -EIO);
    in = 9;
    must_be(weft_gen_yield_into(2, &in), -EIO);
    must_be(in, 9);
    must_be(weft_gen_yield_into(3, NULL), 0);
    must_be(weft_gen_yield(4), -EPIPE);
    return (intptr_t)arg;
}

static intptr_t throw_into(void *arg)
{
    weft_gen *gen = make(tell_errors_from_values, NULL);
    intptr_t out;

    must_yield(gen, 1);
    must_answer(gen, -EIO, 2);
    must_be(weft_gen_throw(gen, -EIO, &out), 1);
    must_be(out, 3);
    must_answer(gen, 5, 4);
    must_be(weft_gen_throw(gen, -EPIPE, &out), 0);
    must_be(weft_gen_free(gen), 0);

    gen = make(tell_errors_from_values, NULL);
    must_be(weft_gen_throw(gen, -ENOSPC, &out), 0);
    must_be(weft_gen_result(gen), -ENOSPC);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void an_error_thrown_in_differs_from_a_value_sent(void **state)
{
    (void)state;
    everywhere(throw_into);
}

/* ---- generators in generators ---- */

struct node {
    int value;
    struct node *left, *right;
};

static void plant(struct node *nodes, int low, int high, struct node **root)
{
    int middle = (low + high) / 2;

    *root = NULL;
    if (low > high)
        return;
    *root = &nodes[middle];
    nodes[middle].value = middle;
    plant(nodes, low, middle - 1, &nodes[middle].left);
    plant(nodes, middle + 1, high, &nodes[middle].right);
}

static intptr_t walk(void *arg);

static intptr_t walk_below(struct node *node)
{
    weft_gen *gen = make(walk, node);
    intptr_t visited = weft_gen_delegate(gen);

    must_be(weft_gen_free(gen), 0);
    return visited;
}

static intptr_t walk(void *arg)
{
    struct node *node = arg;
    intptr_t visited = 1;

    if (!node)
        return 0;
    visited += walk_below(node->left);
    must_be(weft_gen_yield(node->value), 0);
    return visited + walk_below(node->right);
}

static intptr_t walk_a_tree(void *arg)
{
    struct node nodes[63], *root;
    weft_gen *gen;
    int expected = 0;

    plant(nodes, 0, 62, &root);
    gen = make(walk, root);
    WEFT_GEN_FOR(value, gen)
    must_be(value, expected++);
    must_be(expected, 63);
    must_be(weft_gen_result(gen), 63);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void a_tree_is_walked_by_delegation(void **state)
{
    (void)state;
    everywhere(walk_a_tree);
}

static intptr_t inner_body(void *arg)
{
    intptr_t in;

    (void)arg;
    must_be(weft_gen_yield(1), 11);
    must_be(weft_gen_yield_into(2, &in), -EIO);
    must_be(weft_gen_yield_into(3, &in), 0);
    must_be(in, -EIO);
    must_be(weft_gen_yield_into(4, &in), -ECANCELED);
    return 42;
}

static intptr_t outer_body(void *arg)
{
    weft_gen *inner = make(inner_body, NULL);

    must_be(weft_gen_delegate(inner), 42);
    must_be(weft_gen_delegate(inner), 42); /* finished: at once */
    must_be(weft_gen_free(inner), 0);
    return (intptr_t)arg;
}

static intptr_t delegate_all(void *arg)
{
    weft_gen *gen = make(outer_body, (void *)7);
    intptr_t out;

    must_yield(gen, 1);
    must_answer(gen, 11, 2);
    must_be(weft_gen_throw(gen, -EIO, &out), 1);
    must_be(out, 3);
    must_answer(gen, -EIO, 4);
    must_be(weft_gen_close(gen), 0);
    must_be(weft_gen_result(gen), 7);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void sending_throwing_and_closing_pass_through_a_delegation(void **state)
{
    (void)state;
    everywhere(delegate_all);
}

static intptr_t squares(void *arg)
{
    weft_gen *numbers = arg;

    WEFT_GEN_FOR(n, numbers)
    must_be(weft_gen_yield(n * n), 0);
    return 0;
}

static intptr_t chain(void *arg)
{
    weft_gen *numbers = make(count_to, (void *)4), *first = make(squares, numbers), *second = make(squares, first);
    intptr_t i = 0;

    WEFT_GEN_FOR(value, second)
    {
        must_be(value, i * i * i * i);
        i++;
    }
    must_be(i, 4);
    must_be(weft_gen_free(second), 0);
    must_be(weft_gen_free(first), 0);
    must_be(weft_gen_free(numbers), 0);
    return (intptr_t)arg;
}

static void a_generator_resumes_another(void **state)
{
    (void)state;
    everywhere(chain);
}

/* ---- inside tasks ---- */

static intptr_t try_to_yield(void *arg)
{
    must_be(weft_gen_yield(1), -EPERM);
    must_be(weft_yield(), 0);
    must_be(weft_gen_yield(1), -EPERM);
    return (intptr_t)arg;
}

static intptr_t await_in_the_body(void *arg)
{
    for (intptr_t i = 0; i < 100; i++) {
        weft_task *child = weft_spawn(try_to_yield, (void *)i);

        must(child != NULL);
        if (i % 2)
            must_be(weft_yield(), 0);
        must_be(weft_await(child), i);
        must_be(weft_gen_yield(i), 0);
    }
    return (intptr_t)arg;
}

static intptr_t consume_awaiting(void *arg)
{
    weft_gen *gen = make(await_in_the_body, NULL);
    intptr_t expected = 0;

    WEFT_GEN_FOR(value, gen)
    must_be(value, expected++);
    must_be(expected, 100);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

static void a_task_that_the_body_awaits_is_not_its_body(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        must_be(run_on(worker_counts[i], consume_awaiting, NULL), 0);
}

static intptr_t yield_in_scopes(void *arg)
{
    weft_timeout scope;

    must_be(weft_timeout_begin(&scope, WEFT_SEC(100)), 0);
    must_be(weft_gen_yield(1), -EINVAL);
    must_be(weft_timeout_end(&scope), 0);
    must_be(weft_mask_begin(), 0);
    must_be(weft_gen_yield(1), -EINVAL);
    must_be(weft_mask_end(), 0);
    must_be(weft_gen_yield(2), 0);
    return (intptr_t)arg;
}

static intptr_t resume_in_scopes(void *arg)
{
    weft_gen *gen = make(yield_in_scopes, NULL);
    weft_timeout scope;

    must_be(weft_timeout_begin(&scope, WEFT_SEC(100)), 0); /* the resumer's own is no matter */
    must_yield(gen, 2);
    must_be(weft_timeout_end(&scope), 0);
    must_be(weft_gen_next(gen, NULL), 0);
    must_be(weft_gen_free(gen), 0);
    return (intptr_t)arg;
}

/* In a step of a stackless task, once in one go and once with the body resumed in another step. */
struct resume_in_steps {
    weft_frame frame;
    weft_gen *gen;
};

static intptr_t yield_in_scopes_twice(void *arg)
{
    (void)yield_in_scopes(arg);
    (void)yield_in_scopes(arg);
    return 7;
}

static intptr_t resume_in_steps(void *arg)
{
    struct resume_in_steps *self = arg;
    weft_timeout scope;
    intptr_t value;

    WEFT_BEGIN(self);
    must_be(weft_timeout_begin(&scope, WEFT_SEC(100)), 0); /* the resumer's own is no matter */
    must_be(weft_gen_next(self->gen, &value), 1);
    must_be(weft_timeout_end(&scope), 0);
    WEFT_AWAIT(self, value, weft_async_yield());
    while (weft_gen_next(self->gen, &value) == 1)
        ;
    WEFT_DONE(weft_gen_result(self->gen));
}

static intptr_t resume_in_scopes_in_steps(void *arg)
{
    struct resume_in_steps self = {.gen = make(yield_in_scopes_twice, NULL)};

    (void)arg;
    must_be(weft_await(weft_spawn_stackless(resume_in_steps, &self)), 7);
    must_be(weft_gen_free(self.gen), 0);
    return 0;
}

static void a_scope_must_end_before_the_yield_also_in_a_step(void **state)
{
    (void)state;
    must_be(run_alone(resume_in_scopes_in_steps, NULL), 0);
}

static void a_scope_must_end_before_the_yield(void **state)
{
    (void)state;
    must_be(run_alone(resume_in_scopes, NULL), 0);
}

/* One asynchronous generator, resumed by many tasks in turn. */
struct feed {
    weft_chan *items;
    weft_gen *gen;
    weft_mutex mutex;
    intptr_t expected;
    intptr_t last;
};

static intptr_t double_items(void *arg)
{
    struct feed *feed = arg;
    intptr_t item;

    while (weft_chan_recv(feed->items, &item) == 0) {
        if (item % 3 == 0)
            must_be(weft_yield(), 0);
        if (item % 50 == 0)
            must_be(weft_sleep(WEFT_US(20)), 0);
        must_be(weft_gen_yield(2 * item), 0);
    }
    return 99;
}

static intptr_t consume(void *arg)
{
    struct feed *feed = arg;
    intptr_t value, got = 0;
    int rc;

    do {
        must_be(weft_mutex_lock(&feed->mutex), 0);
        rc = weft_gen_next(feed->gen, &value);
        if (rc == 1) {
            must_be(value, 2 * feed->expected++);
            got++;
        }
        weft_mutex_unlock(&feed->mutex);
        must_be(weft_yield(), 0);
    } while (rc == 1);
    must_be(rc, 0);
    return got;
}

static intptr_t produce(void *arg)
{
    struct feed *feed = arg;

    for (intptr_t i = 0; i < feed->last; i++)
        must_be(weft_chan_send(feed->items, &i), 0);
    weft_chan_close(feed->items);
    return 0;
}

static intptr_t feed_many(void *arg)
{
    struct feed feed = {.items = weft_chan_new(sizeof(intptr_t), 4), .last = FEWER(20000)};
    weft_task *consumers[12], *producer;
    intptr_t got = 0;

    must(feed.items != NULL);
    feed.gen = make(double_items, &feed);
    must((producer = weft_spawn(produce, &feed)) != NULL);
    for (int i = 0; i < 12; i++)
        must((consumers[i] = weft_spawn(consume, &feed)) != NULL);
    for (int i = 0; i < 12; i++)
        got += weft_await(consumers[i]);
    must_be(weft_await(producer), 0);
    must_be(got, feed.last);
    must_be(weft_gen_result(feed.gen), 99);
    must_be(weft_gen_free(feed.gen), 0);
    weft_chan_free(feed.items);
    return (intptr_t)arg;
}

static void an_asynchronous_generator_moves_between_tasks_and_workers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        must_be(run_on(worker_counts[i], feed_many, NULL), 0);
}

/* Many tasks, each with a generator of its own that parks in its body. */
static intptr_t sleepy(void *arg)
{
    unsigned n = (unsigned)(uintptr_t)arg;

    for (intptr_t i = 0; i < 20; i++) {
        must_be(n % 3 ? weft_yield() : weft_sleep(WEFT_US(10)), 0);
        must_be(weft_gen_yield(i), 0);
    }
    return 0;
}

static intptr_t consume_sleepy(void *arg)
{
    weft_gen *gen = make(sleepy, arg);
    intptr_t expected = 0;

    WEFT_GEN_FOR(value, gen)
    {
        must_be(value, expected++);
        must_be(weft_yield(), 0);
    }
    must_be(expected, 20);
    return weft_gen_free(gen);
}

static intptr_t many_sleepy(void *arg)
{
    enum { TASKS = FEWER(1000) };
    static weft_task *tasks[TASKS];

    for (uintptr_t i = 0; i < TASKS; i++)
        must((tasks[i] = weft_spawn(consume_sleepy, (void *)i)) != NULL);
    for (int i = 0; i < TASKS; i++)
        must_be(weft_await(tasks[i]), 0);
    return (intptr_t)arg;
}

static void a_wait_in_the_body_suspends_the_task_that_resumed_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        must_be(run_on(worker_counts[i], many_sleepy, NULL), 0);
}

struct interrupted {
    weft_event waits;
    weft_event never;
    weft_gen *gen;
};

static intptr_t wait_for_ever(void *arg)
{
    struct interrupted *interrupted = arg;

    for (;;) {
        weft_event_set(&interrupted->waits);
        weft_gen_yield(weft_event_wait(&interrupted->never));
    }
    return 0;
}

static intptr_t resume_and_be_cancelled(void *arg)
{
    struct interrupted *interrupted = arg;

    must_yield(interrupted->gen, -ECANCELED);
    must_yield(interrupted->gen, -ECANCELED); /* it is level-triggered there too */
    must_be(weft_uncancel(), 1);
    return 17;
}

static intptr_t interrupt(void *arg)
{
    for (int i = 0; i < FEWER(300); i++) {
        struct interrupted interrupted = {.waits = WEFT_EVENT_INIT};
        weft_timeout scope;
        weft_task *task;

        interrupted.gen = make(wait_for_ever, &interrupted);
        must((task = weft_spawn(resume_and_be_cancelled, &interrupted)) != NULL);
        must_be(weft_event_wait(&interrupted.waits), 0);
        if (i % 2)
            must_be(weft_yield(), 0);
        must_be(weft_gen_next(interrupted.gen, NULL), -EBUSY);
        must_be(weft_gen_free(interrupted.gen), -EBUSY);
        must_be(weft_cancel(task), 1);
        must_be(weft_await(task), 17);

        must_be(weft_timeout_begin(&scope, WEFT_US(50)), 0);
        must_yield(interrupted.gen, -ETIMEDOUT);
        must_be(weft_timeout_end(&scope), 1);
        must_be(weft_gen_free(interrupted.gen), 0);
    }
    return (intptr_t)arg;
}

static void cancellation_and_deadlines_reach_a_body_that_waits(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        must_be(run_on(worker_counts[i], interrupt, NULL), 0);
}

static intptr_t take_one(void *arg)
{
    intptr_t value = -1;

    must_be(weft_gen_next(arg, &value), 1);
    return value;
}

static void a_generator_outlives_the_runtime(void **state)
{
    weft_gen *gen = make(count_for_ever, NULL);

    (void)state;
    must_yield(gen, 0);
    for (int round = 0; round < 3; round++) {
        weft_runtime *runtime;

        must_be(weft_runtime_start(&(weft_config){.workers = 2}, &runtime), 0);
        must_be(weft_runtime_run(runtime, take_one, gen), 2 * round + 1);
        must_yield(gen, 2 * round + 2);
        must_be(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
    }
    must_be(weft_gen_free(gen), 0);
}

/* ---- threads ---- */

enum { THREADS = 4 };

struct ring {
    weft_gen *gen;
    pthread_barrier_t barrier;
};

static void *resume_in_turn(void *arg)
{
    static _Atomic int next_number;
    struct ring *ring = arg;
    int number = atomic_fetch_add(&next_number, 1) % THREADS;

    for (int i = 0; i < FEWER(2000); i++) {
        if (i % THREADS == number)
            must_yield(ring->gen, i);
        pthread_barrier_wait(&ring->barrier);
    }
    return NULL;
}

static void threads_resume_it_in_turn(void **state)
{
    struct ring ring = {.gen = make(count_for_ever, NULL)};
    pthread_t threads[THREADS];

    (void)state;
    pthread_barrier_init(&ring.barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_create(&threads[i], NULL, resume_in_turn, &ring), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&ring.barrier);
    must_be(weft_gen_free(ring.gen), 0);
}

struct race {
    weft_gen *gen;
    intptr_t last;
    _Atomic long got, sum;
};

static void *race_for_values(void *arg)
{
    struct race *race = arg;
    intptr_t value;
    int rc;

    while ((rc = weft_gen_next(race->gen, &value)) != 0) {
        must(rc == 1 || rc == -EBUSY);
        if (rc == 1) {
            atomic_fetch_add(&race->got, 1);
            atomic_fetch_add(&race->sum, value);
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void of_two_that_resume_at_a_time_one_is_told(void **state)
{
    struct race race = {.last = FEWER(200000)};
    pthread_t threads[THREADS];

    (void)state;
    race.gen = make(count_to, (void *)race.last);
    for (int i = 0; i < THREADS; i++)
        must_be(pthread_create(&threads[i], NULL, race_for_values, &race), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    must_be(race.got, race.last);
    must_be(race.sum, race.last * (race.last - 1) / 2);
    must_be(weft_gen_result(race.gen), race.last);
    must_be(weft_gen_free(race.gen), 0);
}

/* A thread's own generator runs while it waits for a task that resumes another. */
static intptr_t enter_a_runtime(void *arg)
{
    weft_runtime *runtime = arg;

    for (intptr_t i = 0; i < 10; i++) {
        must_be(weft_runtime_run(runtime, consume_sleepy, (void *)i), 0);
        must_be(weft_gen_yield(i), 0);
    }
    return 0;
}

static void a_body_on_a_thread_runs_tasks(void **state)
{
    weft_runtime *runtime;
    weft_gen *gen;
    intptr_t expected = 0;

    (void)state;
    must_be(weft_runtime_start(&(weft_config){.workers = 2}, &runtime), 0);
    gen = make(enter_a_runtime, runtime);
    WEFT_GEN_FOR(value, gen)
    must_be(value, expected++);
    must_be(expected, 10);
    must_be(weft_gen_free(gen), 0);
    must_be(weft_runtime_stop(runtime, WEFT_SEC(10)), 0);
}

/* ---- memory ---- */

enum { MANY = FEWER(10000) }; /* ThreadSanitizer knows no more than 8128 threads, stacks included */

static intptr_t have_many(void *arg)
{
    weft_gen **gens = calloc(MANY, sizeof *gens);

    must(gens != NULL);
    for (intptr_t i = 0; i < MANY; i++) {
        gens[i] = make(count_for_ever, (void *)i);
        must_yield(gens[i], i);
    }
    for (int round = 1; round <= 3; round++)
        for (intptr_t i = 0; i < MANY; i++)
            must_yield(gens[i], i + round);
    for (intptr_t i = 0; i < MANY; i++)
        must_be(weft_gen_free(gens[i]), 0);
    free(gens);
    return (intptr_t)arg;
}

static void ten_thousand_are_alive(void **state)
{
    (void)state;
    must_be(have_many(NULL), 0);
    must_be(run_on(2, have_many, NULL), 0);
}

static long address_space_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");

    must(file != NULL);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmSize: %ld", &kib) == 1)
            break;
    fclose(file);
    return kib;
}

static void a_finished_generator_has_no_stack(void **state)
{
    static weft_gen *gens[MANY];
    long before;

    (void)state;
    must_be(have_many(NULL), 0);
    before = address_space_kib();
    for (intptr_t i = 0; i < MANY; i++) {
        gens[i] = make(count_to, (void *)1);
        must_yield(gens[i], 0);
        must_be(weft_gen_next(gens[i], NULL), 0);
    }
    assert_true(SUPPORT_SANITIZED || address_space_kib() - before < 64 * 1024);
    for (intptr_t i = 0; i < MANY; i++) {
        must_be(weft_gen_result(gens[i]), 1);
        must_be(weft_gen_free(gens[i]), 0);
    }
}

static __attribute__((noinline)) size_t go_deep(size_t bytes)
{
    volatile char frame[1024];

    memset((char *)frame, 1, sizeof frame);
    return bytes > 2048 ? go_deep(bytes - 2048) + (size_t)frame[bytes % 1024] : (size_t)frame[0];
}

static intptr_t use_much_stack(void *arg)
{
    must(go_deep((size_t)arg) > 0);
    weft_gen_yield(1);
    must(go_deep((size_t)arg) > 0);
    return 0;
}

static void the_stack_is_as_large_as_asked_for(void **state)
{
    static const size_t sizes[] = {1, 60 << 10, 300 << 10, 4 << 20};

    (void)state;
    for (int i = 0; i < 4; i++) {
        weft_gen *gen = weft_gen_new_with(sizes[i], use_much_stack, (void *)(sizes[i] / 2));

        must(gen != NULL);
        must_yield(gen, 1);
        must_be(weft_gen_next(gen, NULL), 0);
        must_be(weft_gen_free(gen), 0);
    }
}

static void without_memory_for_a_stack_it_does_not_start(void **state)
{
    weft_gen *gen = weft_gen_new_with(SIZE_MAX / 4, count_for_ever, NULL);

    (void)state;
    must(gen != NULL);
    for (int i = 0; i < 3; i++) {
        must_be(weft_gen_next(gen, NULL), -ENOMEM);
        must_be(weft_gen_send(gen, 1, NULL), -EINVAL);
        must_be(weft_gen_finished(gen), 0);
    }
    must_be(weft_gen_close(gen), 0);
    must_be(weft_gen_free(gen), 0);
}

/* ---- fork, overflow ---- */

static _Atomic bool over;

static void *churn(void *arg)
{
    while (!over) {
        weft_gen *gens[200];

        for (int i = 0; i < 200; i++) {
            gens[i] = make(count_for_ever, NULL);
            must_yield(gens[i], 0);
        }
        for (int i = 0; i < 200; i++)
            must_be(weft_gen_free(gens[i]), 0);
    }
    return arg;
}

static void in_the_child(void *arg)
{
    weft_gen *gen = arg;

    must_yield(gen, 1);
    must_be(weft_gen_free(gen), 0);
    must_be(p6(NULL), 0);
    must_be(walk_a_tree(NULL), 0);
}

static void a_forked_child_goes_on_with_them(void **state)
{
    char text[1024];
    pthread_t threads[2];

    (void)state;
    if (SUPPORT_SANITIZED)
        skip(); /* they do not fork with threads */
    over = false;
    for (int i = 0; i < 2; i++)
        must_be(pthread_create(&threads[i], NULL, churn, NULL), 0);
    for (int i = 0; i < FEWER(100); i++) {
        weft_gen *gen = make(count_for_ever, NULL);

        must_yield(gen, 0);
        assert_int_equal(run_in_child(in_the_child, gen, text, sizeof text), 0);
        must_yield(gen, 1);
        must_be(weft_gen_free(gen), 0);
    }
    over = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static volatile int never;

static __attribute__((noinline)) intptr_t recurse(void *arg)
{
    volatile char frame[256];

    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = (char)(uintptr_t)arg;
    return never ? 0 : recurse((char *)arg + 1) + frame[17];
}

static intptr_t recurse_in_a_body(void *arg)
{
    must_be(weft_gen_yield(0), 0);
    must_be(weft_yield(), 0);
    return recurse(arg);
}

static intptr_t overflow(void *arg)
{
    weft_gen *gen = make(recurse_in_a_body, arg);

    must_yield(gen, 0);
    return weft_gen_next(gen, NULL);
}

static intptr_t spawn_overflow(void *arg)
{
    weft_spawn_options options = {.name = "bottomless"};
    weft_task *task = weft_spawn_with(&options, overflow, arg);

    must(task != NULL);
    return weft_await(task);
}

static void overflow_in_child(void *arg)
{
    struct rlimit no_core = {0, 0};
    weft_runtime *runtime;

    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    must_be(weft_runtime_start(&(weft_config){.workers = 2}, &runtime), 0);
    weft_runtime_run(runtime, spawn_overflow, arg);
}

static void endless_recursion_in_a_body_is_named(void **state)
{
    char text[16384];
    int status;

    (void)state;
    if (SUPPORT_SANITIZED || getenv("WEFT_TEST_EMULATED"))
        skip();
    status = run_in_child(overflow_in_child, NULL, text, sizeof text);
    assert_true(WIFSIGNALED(status));
    if (!strstr(text, "stack overflow"))
        print_message("status %x: %s\n", status, text);
    assert_non_null(strstr(text, "stack overflow"));
    assert_non_null(strstr(text, "'bottomless'"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        /* first: its child must be the first to install the handler */
        cmocka_unit_test(endless_recursion_in_a_body_is_named),
        cmocka_unit_test(p5_an_endless_body_is_fed_by_send),
        cmocka_unit_test(p6_a_running_sum_goes_back_and_forth),
        cmocka_unit_test(p7_nothing_can_be_sent_before_the_start),
        cmocka_unit_test(p8_for_each_over_a_generator_and_an_asynchronous_one),
        cmocka_unit_test(p9_a_body_keeps_its_locals_and_yields_from_ten_calls_deep),
        cmocka_unit_test(misuse_from_outside_is_told),
        cmocka_unit_test(a_running_generator_is_busy),
        cmocka_unit_test(closing_lets_the_body_clean_up),
        cmocka_unit_test(an_error_thrown_in_differs_from_a_value_sent),
        cmocka_unit_test(a_tree_is_walked_by_delegation),
        cmocka_unit_test(sending_throwing_and_closing_pass_through_a_delegation),
        cmocka_unit_test(a_generator_resumes_another),
        cmocka_unit_test(a_task_that_the_body_awaits_is_not_its_body),
        cmocka_unit_test(a_scope_must_end_before_the_yield),
        cmocka_unit_test(a_scope_must_end_before_the_yield_also_in_a_step),
        cmocka_unit_test(an_asynchronous_generator_moves_between_tasks_and_workers),
        cmocka_unit_test(a_wait_in_the_body_suspends_the_task_that_resumed_it),
        cmocka_unit_test(cancellation_and_deadlines_reach_a_body_that_waits),
        cmocka_unit_test(a_generator_outlives_the_runtime),
        cmocka_unit_test(threads_resume_it_in_turn),
        cmocka_unit_test(of_two_that_resume_at_a_time_one_is_told),
        cmocka_unit_test(a_body_on_a_thread_runs_tasks),
        cmocka_unit_test(ten_thousand_are_alive),
        cmocka_unit_test(a_finished_generator_has_no_stack),
        cmocka_unit_test(the_stack_is_as_large_as_asked_for),
        cmocka_unit_test(without_memory_for_a_stack_it_does_not_start),
        cmocka_unit_test(a_forked_child_goes_on_with_them),
    };

    return run_all(tests, argc, argv);
}
