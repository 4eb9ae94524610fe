/*
 * The limits: what the machine and the C library do without any runtime. A bare stack switch for yields and
 * generators, threads of the C library for everything that spawns, waits or locks. No scheduler, no cancellation, no
 * memory management beside it: what a runtime takes more is its own. The bare servers are bench_epoll_echo and
 * bench_epoll_server.
 */
#include "../common/peer.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

/* ---- a stack switch: callee-saved registers only ---- */

struct context {
    void *sp;
};

void bare_switch(struct context *from, struct context *to);
void bare_entry(void);

#if defined __x86_64__
__asm__(".text\n.type bare_switch,@function\nbare_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov (%rsi),%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\n"
        "pop %rcx\njmp *%rcx\n.size bare_switch,.-bare_switch\n"
        ".type bare_entry,@function\nbare_entry:\nmov %r12,%rdi\ncall *%rbx\nud2\n"
        ".size bare_entry,.-bare_entry\n");

static void prepare(struct context *context, char *top, void (*fn)(void *), void *arg)
{
    uint64_t *sp = (uint64_t *)((uintptr_t)top & ~(uintptr_t)15);
    *--sp = 0; /* so that bare_entry calls with an aligned stack */
    *--sp = 0;
    *--sp = (uint64_t)(uintptr_t)bare_entry;
    *--sp = 0;                        /* rbp */
    *--sp = (uint64_t)(uintptr_t)fn;  /* rbx */
    *--sp = (uint64_t)(uintptr_t)arg; /* r12 */
    sp -= 3;
    memset(sp, 0, 3 * sizeof *sp);
    context->sp = sp;
}
#elif defined __aarch64__
__asm__(".text\n.type bare_switch,%function\nbare_switch:\n"
        "sub sp,sp,#160\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
        "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\nstp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\n"
        "stp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\n"
        "mov x9,sp\nstr x9,[x0]\nldr x9,[x1]\nmov sp,x9\n"
        "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\n"
        "ldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\nldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\n"
        "ldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\nadd sp,sp,#160\nbr x30\n"
        ".type bare_entry,%function\nbare_entry:\nmov x0,x20\nblr x19\nbrk #0\n");

static void prepare(struct context *context, char *top, void (*fn)(void *), void *arg)
{
    uint64_t *sp = (uint64_t *)((uintptr_t)top & ~(uintptr_t)15) - 20;
    memset(sp, 0, 160);
    sp[0] = (uint64_t)(uintptr_t)fn;          /* x19 */
    sp[1] = (uint64_t)(uintptr_t)arg;         /* x20 */
    sp[11] = (uint64_t)(uintptr_t)bare_entry; /* x30 */
    context->sp = sp;
}
#else
#error "no stack switch for this processor"
#endif

enum { STACK_SIZE = 16384, RING_MAX = 1000 };

static struct context main_context, ring[RING_MAX];
static long ring_size, ring_yields, ring_ended;

/* Each switches to the next; the first that is done ends the measurement, the others are as far. */
static void yield_around(void *arg)
{
    long self = (long)(intptr_t)arg;
    struct context *next = &ring[(self + 1) % ring_size];
    for (long i = 0; i < ring_yields; i++)
        bare_switch(&ring[self], next);
    ring_ended++;
    for (;;)
        bare_switch(&ring[self], ring_ended == ring_size ? &main_context : next);
}

/* The stacks' tops are at different places of their pages, or they would compete for the same lines of the cache. */
static double yields_ns(long tasks, long yields)
{
    char *stacks =
        mmap(NULL, (size_t)tasks * STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expect(stacks != MAP_FAILED);
    ring_size = tasks;
    ring_yields = yields;
    ring_ended = 0;
    for (long i = 0; i < tasks; i++)
        prepare(&ring[i], stacks + (i + 1) * STACK_SIZE - i % 32 * 128, yield_around, (void *)(intptr_t)i);
    int64_t start = now_ns();
    bare_switch(&main_context, &ring[0]);
    int64_t end = now_ns();
    expect(ring_ended == tasks);
    munmap(stacks, (size_t)tasks * STACK_SIZE);
    return (double)(end - start);
}

/* Two, because a switch to itself is none. */
static void yield_alone(const struct setting *setting)
{
    long count = setting->quick ? 1000000 : 5000000;
    add_metric("A1", yields_ns(2, count) / (2.0 * (double)count), "ns");
}

static void yield_among_1000(const struct setting *setting)
{
    long count = setting->quick ? 1000 : 10000;
    add_metric("A2", yields_ns(1000, count) / (1000.0 * (double)count), "ns");
}

static void yield_200_by_1000(const struct setting *setting)
{
    (void)setting;
    add_metric("A3", yields_ns(200, 1000) / 1e3, "us");
}

static struct context reader, producer;
static long produced;

static void produce(void *arg)
{
    (void)arg;
    for (produced = 0;; produced++)
        bare_switch(&producer, &reader);
}

static void generator(const struct setting *setting)
{
    static char stack[STACK_SIZE];
    const long values = 10000000;
    long sum = 0;
    (void)setting;
    prepare(&producer, stack + sizeof stack, produce, NULL);
    int64_t start = now_ns();
    for (long i = 0; i < values; i++) {
        bare_switch(&reader, &producer);
        sum += produced;
    }
    int64_t end = now_ns();
    expect(sum == values * (values - 1) / 2);
    add_metric("C6.task", (double)(end - start) / (double)values, "ns");
}

/* ---- threads of the C library ---- */

static void *nothing(void *arg)
{
    return arg;
}

static void create_join(const struct setting *setting)
{
    const long count = setting->quick ? 2000 : 10000;
    int64_t start = now_ns();
    for (long i = 0; i < count; i++) {
        pthread_t thread;
        void *result = NULL;
        expect(pthread_create(&thread, NULL, nothing, &result) == 0 && pthread_join(thread, &result) == 0);
        expect(result == &result);
    }
    add_metric("A4", (double)(now_ns() - start) / (double)count, "ns");
}

struct pool_wake {
    int event;
    long count;
    long made; /* written by the sender: the stamps before it are valid */
    int64_t sent[3000], latency[3000];
};

/* Several writes may make one read. */
static void *take_stamps(void *arg)
{
    struct pool_wake *wake = arg;
    for (long seen = 0; seen < wake->count;) {
        eventfd_t value;
        expect(eventfd_read(wake->event, &value) == 0);
        for (long made = __atomic_load_n(&wake->made, __ATOMIC_ACQUIRE); seen < made; seen++)
            wake->latency[seen] = now_ns() - wake->sent[seen];
    }
    return NULL;
}

/* A thread that blocks on an eventfd, as an idle worker does. */
static void wake_latency(const struct setting *setting)
{
    static struct pool_wake wake;
    pthread_t thread;
    wake.made = 0;
    wake.count = setting->quick ? 500 : 3000;
    wake.event = eventfd(0, EFD_CLOEXEC);
    expect(wake.event >= 0 && pthread_create(&thread, NULL, take_stamps, &wake) == 0);
    for (long i = 0; i < wake.count; i++) {
        pause_thread(1000000);
        wake.sent[i] = now_ns();
        __atomic_store_n(&wake.made, i + 1, __ATOMIC_RELEASE);
        expect(eventfd_write(wake.event, 1) == 0);
    }
    pthread_join(thread, NULL);
    close(wake.event);
    add_metric("A12.p50", quantile(wake.latency, wake.count, 0.5) / 1e3, "us");
    add_metric("A12.p99", quantile(wake.latency, wake.count, 0.99) / 1e3, "us");
}

struct court {
    int there, back;
    long trips;
};

static void *return_balls(void *arg)
{
    struct court *court = arg;
    for (long i = 0; i < court->trips; i++) {
        eventfd_t ball;
        expect(eventfd_read(court->there, &ball) == 0 && eventfd_write(court->back, ball) == 0);
    }
    return NULL;
}

/* Two threads that wake each other: what a round trip costs when each side has to be woken by the kernel. */
static void thread_ping_pong(const struct setting *setting)
{
    struct court court = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC), setting->quick ? 5000 : 20000};
    pthread_t thread;
    expect(pthread_create(&thread, NULL, return_balls, &court) == 0);
    int64_t start = now_ns();
    for (long i = 0; i < court.trips; i++) {
        eventfd_t ball = (eventfd_t)i + 1;
        expect(eventfd_write(court.there, ball) == 0 && eventfd_read(court.back, &ball) == 0);
        expect(ball == (eventfd_t)i + 1);
    }
    int64_t end = now_ns();
    pthread_join(thread, NULL);
    close(court.there);
    close(court.back);
    add_metric("C1", (double)(end - start) / (double)court.trips, "ns");
}

enum { LOCKERS = 8, TURNS = 200000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void *increment(void *arg)
{
    for (long i = 0; i < (long)(intptr_t)arg; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

/* As many threads as workers share the turns of the eight tasks. */
static void thread_mutex(const struct setting *setting)
{
    pthread_t threads[256];
    int count = setting->workers < 256 ? setting->workers : 256;
    long turns = LOCKERS * TURNS / count;
    counter = 0;
    int64_t start = now_ns();
    for (int i = 0; i < count; i++)
        expect(pthread_create(&threads[i], NULL, increment, (void *)(intptr_t)turns) == 0);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    int64_t end = now_ns();
    expect(counter == turns * count);
    add_metric("C4", (double)(end - start) / (double)counter, "ns");
}

static void short_sleep(const struct setting *setting)
{
    static int64_t errors[2000];
    (void)setting;
    for (int i = 0; i < 2000; i++) {
        int64_t start = now_ns();
        pause_thread(100000);
        errors[i] = now_ns() - start - 100000;
    }
    add_metric("D3.p50", quantile(errors, 2000, 0.5) / 1e3, "us");
    add_metric("D3.p99", quantile(errors, 2000, 0.99) / 1e3, "us");
}

static const struct workload workloads[] = {
    {"A1", yield_alone, 0},  {"A2", yield_among_1000, 0}, {"A3", yield_200_by_1000, 0},
    {"A4", create_join, 0},  {"A12", wake_latency, 0},    {"C1", thread_ping_pong, 0},
    {"C4", thread_mutex, 0}, {"C6", generator, 0},        {"D3", short_sleep, 0},
    {NULL, NULL, 0},
};

int main(int argc, char **argv)
{
    return peer_main(workloads, argc, argv);
}
