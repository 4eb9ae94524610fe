/*
 * oneTBB: fork and join. Tasks have no stacks and cannot wait for anything but other tasks, so the rest of the
 * workloads has no counterpart. An arena of as many threads as workers; task_group throughout: parallel_for would
 * choose its own grain, and these workloads have none.
 */
#include "../common/peer.h"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <oneapi/tbb/task_group.h>
#include <vector>

namespace tbb = oneapi::tbb;

/* Runs a function in an arena of the wanted size; the threads stay from one call to the next. */
template <class Function> static double timed(const setting *setting, Function function)
{
    static tbb::global_control limit(tbb::global_control::max_allowed_parallelism, (size_t)setting->workers);
    static tbb::task_arena arena(setting->workers);
    int64_t start = now_ns();
    arena.execute(function);
    return (double)(now_ns() - start);
}

/* Awaiting in order is not to be had: a group is awaited as a whole. */
static void spawn_await(const setting *setting)
{
    const int rounds = setting->quick ? 300 : 1000;
    int results[1000] = {};
    long sum = 0;
    double ns = timed(setting, [&] {
        for (int round = 0; round < rounds; round++) {
            tbb::task_group group;
            for (int &result : results)
                group.run([&result] { result = 1; });
            group.wait();
            for (int &result : results) {
                sum += result;
                result = 0;
            }
        }
    });
    expect(sum == rounds * 1000L);
    add_metric("A4", ns / (double)sum, "ns");
}

enum { LEAVES = 1000000, WAYS = 10 };

static int64_t node(int64_t first, int64_t leaves)
{
    if (leaves == 1)
        return first;
    int64_t parts[WAYS], share = leaves / WAYS, sum = 0;
    tbb::task_group group;
    for (int i = 0; i < WAYS - 1; i++)
        group.run([&parts, i, first, share] { parts[i] = node(first + i * share, share); });
    parts[WAYS - 1] = node(first + (WAYS - 1) * share, share); /* the last one is the caller's */
    group.wait();
    for (int64_t part : parts)
        sum += part;
    return sum;
}

static void skynet(const setting *setting)
{
    int64_t sum = 0;
    double ns = timed(setting, [&] { sum = node(0, LEAVES); });
    expect(sum == (int64_t)LEAVES * (LEAVES - 1) / 2);
    add_metric("A8", ns / 1e6, "ms");
}

static int fib(int n)
{
    if (n < 2)
        return n;
    int left;
    tbb::task_group group;
    group.run([&left, n] { left = fib(n - 1); });
    int right = fib(n - 2);
    group.wait();
    return left + right;
}

static void fib_30(const setting *setting)
{
    int result = 0;
    double ns = timed(setting, [&] { result = fib(30); });
    expect(result == 832040);
    add_metric("A9", ns / 1e6, "ms");
}

enum { QUEENS = 12, SOLUTIONS = 14200 };

struct placement {
    int rows;
    signed char column[QUEENS];
};

static bool attacked(const placement &placement, int column)
{
    for (int row = 0; row < placement.rows; row++) {
        int aside = placement.column[row] - column;
        int above = placement.rows - row;
        if (aside == 0 || aside == above || aside == -above)
            return true;
    }
    return false;
}

static int place_queens(const placement &current)
{
    if (current.rows == QUEENS)
        return 1;
    placement next[QUEENS];
    int solutions[QUEENS];
    int count = 0, sum = 0;
    tbb::task_group group;
    for (int column = 0; column < QUEENS; column++) {
        if (attacked(current, column))
            continue;
        next[count] = current;
        next[count].column[next[count].rows++] = (signed char)column;
        group.run([&next, &solutions, count] { solutions[count] = place_queens(next[count]); });
        count++;
    }
    group.wait();
    for (int i = 0; i < count; i++)
        sum += solutions[i];
    return sum;
}

static void queens(const setting *setting)
{
    int solutions = 0;
    double ns = timed(setting, [&] { solutions = place_queens(placement{}); });
    expect(solutions == SOLUTIONS);
    add_metric("A10.queens", ns / 1e6, "ms");
}

enum { MATRIX = 1024, LEAF = 32 };

/* Aligned: whether the inner loop lies in one line of the instruction cache makes 1.6 times the time. */
__attribute__((noinline, aligned(64))) static void multiply_leaf(const float *a, const float *b, float *c)
{
    for (int i = 0; i < LEAF; i++) {
        for (int k = 0; k < LEAF; k++) {
            float factor = a[i * MATRIX + k];
            for (int j = 0; j < LEAF; j++)
                c[i * MATRIX + j] += factor * b[k * MATRIX + j];
        }
    }
}

static void multiply(int size, const float *a, const float *b, float *c)
{
    if (size == LEAF) {
        multiply_leaf(a, b, c);
        return;
    }
    int half = size / 2;
    for (int inner = 0; inner < 2; inner++) {
        tbb::task_group group;
        for (int q = 0; q < 4; q++) {
            int row = q / 2 * half, column = q % 2 * half;
            group.run([=] {
                multiply(half, a + row * MATRIX + inner * half, b + inner * half * MATRIX + column,
                         c + row * MATRIX + column);
            });
        }
        group.wait();
    }
}

static void matrices(const setting *setting)
{
    const size_t size = (size_t)MATRIX * MATRIX;
    std::vector<float> a(size, 1), b(size, 1), c(size, 0);
    double ns = timed(setting, [&] { multiply(MATRIX, a.data(), b.data(), c.data()); });
    for (float value : c)
        expect(value == MATRIX);
    add_metric("A10.matmul", ns / 1e6, "ms");
}

static const workload workloads[] = {
    {"A4", spawn_await, 0},    {"A8", skynet, 1},           {"A9", fib_30, 0},
    {"A10.queens", queens, 0}, {"A10.matmul", matrices, 0}, {nullptr, nullptr, 0},
};

int main(int argc, char **argv)
{
    return peer_main(workloads, argc, argv);
}
