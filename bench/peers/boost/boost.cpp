/*
 * Boost.Fiber: round_robin on the main thread with one worker, work_stealing (idle threads sleep) with more. Stacks
 * of 16 KiB: from a pool with one worker; with more from malloc, because Boost's pool is not for several threads.
 *
 * Fork-join starts children with launch::dispatch: the child runs at once. Its parent goes to the end of a queue that
 * is first in, first out, and so a tree of a million fibers still keeps many of their stacks (with launch::post, all).
 * The form of A8 in which each first yields is left out for that reason. There is no I/O, no time-out around an
 * operation and no pool.
 */
#include "../common/peer.h"

#include <atomic>
#include <boost/coroutine2/all.hpp>
#include <boost/fiber/all.hpp>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace fibers = boost::fibers;
using std::chrono::milliseconds;

enum { STACK_SIZE = 16384, SMALL_STACK = 8192 };

/* ---- the scheduler: set up once a process ---- */

static int worker_count;
static std::unique_ptr<fibers::pooled_fixedsize_stack> pool;
static fibers::mutex end_mutex;
static fibers::condition_variable_any end_condition;
static bool ended;
static std::vector<std::thread> threads;

static void start_workers(int workers)
{
    worker_count = workers;
    if (workers == 1) {
        pool = std::make_unique<fibers::pooled_fixedsize_stack>(STACK_SIZE);
        return;
    }
    for (int i = 1; i < workers; i++)
        threads.emplace_back([workers] {
            fibers::use_scheduling_algorithm<fibers::algo::work_stealing>((uint32_t)workers, true);
            std::unique_lock<fibers::mutex> lock(end_mutex);
            end_condition.wait(lock, [] { return ended; });
        });
    fibers::use_scheduling_algorithm<fibers::algo::work_stealing>((uint32_t)workers, true);
}

static void stop_workers()
{
    {
        std::unique_lock<fibers::mutex> lock(end_mutex);
        ended = true;
    }
    end_condition.notify_all();
    for (std::thread &thread : threads)
        thread.join();
}

template <class Function> static fibers::fiber spawn(fibers::launch launch, Function &&function)
{
    if (pool)
        return fibers::fiber(launch, std::allocator_arg, *pool, std::forward<Function>(function));
    return fibers::fiber(launch, std::allocator_arg, fibers::fixedsize_stack(STACK_SIZE),
                         std::forward<Function>(function));
}

/* In a fiber that may move to another thread; main's own may not. */
template <class Function> static double timed(Function function)
{
    int64_t start = 0, end = 0;
    spawn(fibers::launch::post, [&] {
        start = now_ns();
        function();
        end = now_ns();
    }).join();
    return (double)(end - start);
}

/* The last of many sets it. */
struct countdown {
    std::atomic<long> left;
    fibers::promise<void> over;

    explicit countdown(long count) : left(count)
    {
    }
    void count_down()
    {
        if (left.fetch_sub(1, std::memory_order_acq_rel) == 1)
            over.set_value();
    }
};

/* ---- A1 … A7 ---- */

static void yields(long count)
{
    for (long i = 0; i < count; i++)
        boost::this_fiber::yield();
}

static void yield_alone(const setting *setting)
{
    long count = setting->quick ? 2000000 : 10000000;
    add_metric("A1", timed([=] { yields(count); }) / (double)count, "ns");
}

static double yielders(int tasks, long count)
{
    return timed([=] {
        std::vector<fibers::fiber> all;
        for (int i = 0; i < tasks; i++)
            all.push_back(spawn(fibers::launch::post, [count] { yields(count); }));
        for (fibers::fiber &fiber : all)
            fiber.join();
    });
}

static void yield_among_1000(const setting *setting)
{
    long count = setting->quick ? 1000 : 10000;
    add_metric("A2", yielders(1000, count) / (1000.0 * (double)count), "ns");
}

static void yield_many(const setting *)
{
    add_metric("A3", yielders(200, 1000) / 1e3, "us");
}

static void spawn_await(const setting *setting)
{
    const int rounds = setting->quick ? 100 : 1000;
    static int results[1000];
    long sum = 0;
    double ns = timed([&] {
        std::vector<fibers::fiber> all;
        all.reserve(1000);
        for (int round = 0; round < rounds; round++) {
            for (int &result : results)
                all.push_back(spawn(fibers::launch::dispatch, [&result] { result = 1; }));
            for (fibers::fiber &fiber : all)
                fiber.join();
            all.clear();
            for (int &result : results) {
                sum += result;
                result = 0;
            }
        }
    });
    expect(sum == rounds * 1000L);
    add_metric("A4", ns / (double)sum, "ns");
}

enum { ROUNDS = 50 };

static void spawn_many(const setting *)
{
    double ns = timed([] {
        for (int round = 0; round < ROUNDS; round++) {
            auto left = std::make_shared<countdown>(10000);
            for (int i = 0; i < 10000; i++)
                spawn(fibers::launch::post, [left] { left->count_down(); }).detach();
            left->over.get_future().get();
        }
    });
    add_metric("A5", ns / ROUNDS / 1e3, "us");
}

static void chain(fibers::promise<void> &done, int left)
{
    if (left == 0)
        done.set_value();
    else
        spawn(fibers::launch::post, [&done, left] { chain(done, left - 1); }).detach();
}

static void chained(const setting *)
{
    double ns = timed([] {
        std::vector<fibers::promise<void>> dones(ROUNDS); /* the last link may still be leaving one */
        for (fibers::promise<void> &done : dones) {
            chain(done, 1000);
            done.get_future().get();
        }
    });
    add_metric("A6", ns / ROUNDS / 1e3, "us");
}

static void one_ping_pong(const std::shared_ptr<countdown> &left)
{
    fibers::promise<int> there;
    fibers::promise<int> back;
    fibers::future<int> ball = there.get_future();
    fibers::future<int> answer = back.get_future();
    spawn(fibers::launch::post, [ball = std::move(ball), back = std::move(back)]() mutable {
        back.set_value(ball.get());
    }).detach();
    there.set_value(1);
    expect(answer.get() == 1);
    left->count_down();
}

static void ping_pong(const setting *)
{
    double ns = timed([] {
        for (int round = 0; round < ROUNDS; round++) {
            auto left = std::make_shared<countdown>(1000);
            for (int i = 0; i < 1000; i++)
                spawn(fibers::launch::post, [left] { one_ping_pong(left); }).detach();
            left->over.get_future().get();
        }
    });
    add_metric("A7", ns / ROUNDS / 1e3, "us");
}

/* ---- A8, A9: fork and join ---- */

enum { LEAVES = 1000000, WAYS = 10 };

static int64_t node(int64_t first, int64_t leaves)
{
    if (leaves == 1)
        return first;
    int64_t parts[WAYS], share = leaves / WAYS, sum = 0;
    fibers::fiber children[WAYS];
    for (int i = 0; i < WAYS; i++)
        children[i] = spawn(fibers::launch::dispatch,
                            [&parts, i, first, share] { parts[i] = node(first + i * share, share); });
    for (int i = 0; i < WAYS; i++) {
        children[i].join();
        sum += parts[i];
    }
    return sum;
}

static void skynet(const setting *)
{
    int64_t sum = 0;
    double ns = timed([&] { sum = node(0, LEAVES); });
    expect(sum == (int64_t)LEAVES * (LEAVES - 1) / 2);
    add_metric("A8", ns / 1e6, "ms");
}

using sums = fibers::buffered_channel<int64_t>;

static void channel_node(sums &out, int64_t first, int64_t leaves)
{
    if (leaves == 1) {
        out.push(first);
        return;
    }
    int64_t share = leaves / WAYS, sum = 0;
    auto in = std::make_shared<sums>(16); /* a power of two */
    for (int i = 0; i < WAYS; i++)
        spawn(fibers::launch::dispatch, [in, i, first, share] {
            channel_node(*in, first + i * share, share);
        }).detach();
    for (int i = 0; i < WAYS; i++)
        sum += in->value_pop();
    out.push(sum);
}

static void skynet_channels(const setting *)
{
    int64_t sum = 0;
    double ns = timed([&] {
        auto out = std::make_shared<sums>(2);
        spawn(fibers::launch::dispatch, [out] { channel_node(*out, 0, LEAVES); }).detach();
        sum = out->value_pop();
    });
    expect(sum == (int64_t)LEAVES * (LEAVES - 1) / 2);
    add_metric("A8.chan", ns / 1e6, "ms");
}

static int fib(int n)
{
    if (n < 2)
        return n;
    int left;
    fibers::fiber child = spawn(fibers::launch::dispatch, [&left, n] { left = fib(n - 1); });
    int right = fib(n - 2);
    child.join();
    return left + right;
}

static void fib_30(const setting *)
{
    int result = 0;
    double ns = timed([&] { result = fib(30); });
    expect(result == 832040);
    add_metric("A9", ns / 1e6, "ms");
}

/* ---- A12, A13 ---- */

/* A fiber cannot be started from outside of the scheduler's threads: a channel is the way in. */
static void wake_latency(const setting *setting)
{
    const long count = setting->quick ? 500 : 3000;
    std::vector<int64_t> latencies;
    fibers::buffered_channel<int64_t> stamps(64);
    std::thread outside([&] {
        for (long i = 0; i < count; i++) {
            pause_thread(1000000);
            stamps.push(now_ns());
        }
        stamps.close();
    });
    spawn(fibers::launch::post, [&] {
        int64_t sent;
        while (stamps.pop(sent) == fibers::channel_op_status::success)
            latencies.push_back(now_ns() - sent);
    }).join();
    outside.join();
    expect((long)latencies.size() == count);
    add_metric("A12.p50", quantile(latencies.data(), count, 0.5) / 1e3, "us");
    add_metric("A12.p99", quantile(latencies.data(), count, 0.99) / 1e3, "us");
}

struct gate {
    fibers::mutex mutex;
    fibers::condition_variable condition;
    bool open = false;

    void wait()
    {
        std::unique_lock<fibers::mutex> lock(mutex);
        condition.wait(lock, [this] { return open; });
    }
    void release()
    {
        {
            std::unique_lock<fibers::mutex> lock(mutex);
            open = true;
        }
        condition.notify_all();
    }
};

static void idle(const setting *setting)
{
    gate release;
    std::vector<fibers::fiber> parked;
    for (int i = 0; i < 10000; i++)
        parked.push_back(spawn(fibers::launch::post, [&release] { release.wait(); }));
    std::thread watcher([&] {
        pause_thread(500000000);
        usage before = usage_of(RUSAGE_SELF), own_before = usage_of(RUSAGE_THREAD);
        pause_thread(setting->quick ? 2000000000 : 10000000000);
        usage after = usage_of(RUSAGE_SELF), own_after = usage_of(RUSAGE_THREAD);
        add_metric("A13.cpu", (after.cpu_s - before.cpu_s - own_after.cpu_s + own_before.cpu_s) * 1e3, "ms");
        add_metric("A13.switches",
                   (double)(after.switches - before.switches - own_after.switches + own_before.switches), "1");
        release.release();
    });
    for (fibers::fiber &fiber : parked)
        fiber.join();
    watcher.join();
}

/* ---- B1 ---- */

static void million_parked(const setting *setting)
{
    const long tasks = setting->quick ? 200000 : 1000000;
    countdown arrived(tasks), gone(tasks);
    gate release;
    double before = resident_bytes(), parked = 0;
    int64_t start = 0, spawned = 0, released = 0, end = 0;
    spawn(fibers::launch::post, [&] {
        start = now_ns();
        for (long i = 0; i < tasks; i++)
            fibers::fiber(fibers::launch::post, std::allocator_arg, fibers::fixedsize_stack(SMALL_STACK), [&] {
                arrived.count_down();
                release.wait();
                gone.count_down();
            }).detach();
        arrived.over.get_future().get();
        spawned = now_ns();
        parked = resident_bytes();
        released = now_ns();
        release.release();
        gone.over.get_future().get();
        end = now_ns();
    }).join();
    boost::this_fiber::sleep_for(milliseconds(5000));
    add_metric("B1.bytes", (parked - before) / (double)tasks, "B");
    add_metric("B1.spawn", (double)(spawned - start) / 1e6, "ms");
    add_metric("B1.end", (double)(end - released) / 1e6, "ms");
    add_metric("B3", resident_bytes() * 100 / parked, "%");
}

/* ---- C ---- */

/* A buffered channel of size 2 holds one. */
static void channel_ping_pong(const setting *setting)
{
    const long trips = setting->quick ? 300000 : 1000000;
    fibers::buffered_channel<long> there(2), back(2);
    double ns = timed([&] {
        fibers::fiber other = spawn(fibers::launch::post, [&] {
            for (long ball : there)
                back.push(ball);
        });
        for (long i = 0; i < trips; i++) {
            there.push(i);
            expect(back.value_pop() == i);
        }
        there.close();
        other.join();
    });
    add_metric("C1", ns / (double)trips, "ns");
}

static void crowd(const char *key, int senders, int receivers, size_t capacity, long messages)
{
    fibers::buffered_channel<long> channel(capacity);
    std::atomic<long> received{0};
    double ns = timed([&] {
        std::vector<fibers::fiber> sending, receiving;
        for (int i = 0; i < senders; i++)
            sending.push_back(spawn(fibers::launch::post, [&] {
                for (long message = 0; message < messages / senders; message++)
                    channel.push(message);
            }));
        for (int i = 0; i < receivers; i++)
            receiving.push_back(spawn(fibers::launch::post, [&] {
                long message, count = 0;
                while (channel.pop(message) == fibers::channel_op_status::success)
                    count++;
                received += count;
            }));
        for (fibers::fiber &fiber : sending)
            fiber.join();
        channel.close();
        for (fibers::fiber &fiber : receiving)
            fiber.join();
    });
    expect(received == messages);
    add_metric(key, ns / (double)messages, "ns");
}

static void many_to_one(const setting *setting)
{
    crowd("C2", 4, 1, 128, setting->quick ? 400000 : 1000000);
}

static void many_to_many(const setting *setting)
{
    crowd("C3", 4, 4, 1024, setting->quick ? 1000000 : 10000000);
}

static void contended_mutex(const setting *)
{
    const long tasks = 8, turns = 200000;
    fibers::mutex mutex;
    long value = 0;
    double ns = timed([&] {
        std::vector<fibers::fiber> all;
        for (int i = 0; i < tasks; i++)
            all.push_back(spawn(fibers::launch::post, [&] {
                for (long turn = 0; turn < turns; turn++) {
                    std::unique_lock<fibers::mutex> lock(mutex);
                    value++;
                }
            }));
        for (fibers::fiber &fiber : all)
            fiber.join();
    });
    expect(value == tasks * turns);
    add_metric("C4", ns / (double)value, "ns");
}

/* Boost.Coroutine2, the sibling for this. */
static void generator(const setting *)
{
    using coroutine = boost::coroutines2::coroutine<long>;
    const long values = 10000000;
    long sum = 0;
    coroutine::pull_type source([&](coroutine::push_type &yield) {
        for (long i = 0; i < values; i++)
            yield(i);
    });
    int64_t start = now_ns();
    for (long value : source)
        sum += value;
    int64_t end = now_ns();
    expect(sum == values * (values - 1) / 2);
    add_metric("C6.task", (double)(end - start) / (double)values, "ns");
}

/* ---- D: sleeps ---- */

static double sleep_crowd(long count, std::vector<int64_t> &overshoots)
{
    uint64_t state = NAPS_SEED;
    int64_t longest = 0;
    std::vector<int64_t> naps;
    for (long i = 0; i < count; i++) {
        int64_t sum = 0;
        for (int j = 0; j < 3; j++) {
            naps.push_back(next_nap_ms(&state));
            sum += naps.back();
        }
        longest = sum > longest ? sum : longest;
    }
    overshoots.resize(naps.size());
    double ns = timed([&] {
        std::vector<fibers::fiber> all;
        for (long i = 0; i < count; i++)
            all.push_back(spawn(fibers::launch::post, [&, i] {
                for (long at = 3 * i; at < 3 * i + 3; at++) {
                    int64_t start = now_ns();
                    boost::this_fiber::sleep_for(milliseconds(naps[(size_t)at]));
                    overshoots[(size_t)at] = now_ns() - start - naps[(size_t)at] * 1000000;
                }
            }));
        for (fibers::fiber &fiber : all)
            fiber.join();
    });
    return ns - (double)longest * 1e6;
}

static void many_sleepers(const setting *)
{
    std::vector<int64_t> overshoots;
    double cpu = usage_of(RUSAGE_SELF).cpu_s;
    double over = sleep_crowd(100000, overshoots);
    add_metric("D1.over", over / 1e6, "ms");
    add_metric("D1.cpu", usage_of(RUSAGE_SELF).cpu_s - cpu, "s");
}

static void thousand_sleepers(const setting *)
{
    std::vector<int64_t> overshoots;
    sleep_crowd(1000, overshoots);
    add_metric("D1.p99", quantile(overshoots.data(), (long)overshoots.size(), 0.99) / 1e6, "ms");
}

static void short_sleep(const setting *)
{
    std::vector<int64_t> errors(2000);
    timed([&] {
        for (int64_t &error : errors) {
            int64_t start = now_ns();
            boost::this_fiber::sleep_for(std::chrono::microseconds(100));
            error = now_ns() - start - 100000;
        }
    });
    add_metric("D3.p50", quantile(errors.data(), 2000, 0.5) / 1e3, "us");
    add_metric("D3.p99", quantile(errors.data(), 2000, 0.99) / 1e3, "us");
}

static const workload workloads[] = {
    {"A1", yield_alone, 0},
    {"A2", yield_among_1000, 0},
    {"A3", yield_many, 0},
    {"A4", spawn_await, 0},
    {"A5", spawn_many, 0},
    {"A6", chained, 0},
    {"A7", ping_pong, 0},
    {"A8", skynet, 1},
    {"A8.chan", skynet_channels, 1},
    {"A9", fib_30, 0},
    {"A12", wake_latency, 0},
    {"A13", idle, 1},
    {"B1", million_parked, 1},
    {"C1", channel_ping_pong, 0},
    {"C2", many_to_one, 0},
    {"C3", many_to_many, 0},
    {"C4", contended_mutex, 0},
    {"C6", generator, 0},
    {"D1", many_sleepers, 1},
    {"D1.few", thousand_sleepers, 1},
    {"D3", short_sleep, 0},
    {nullptr, nullptr, 0},
};

int main(int argc, char **argv)
{
    start_workers(argc >= 3 ? atoi(argv[2]) : 1);
    int status = peer_main(workloads, argc, argv);
    fflush(stdout);
    stop_workers();
    return status;
}
