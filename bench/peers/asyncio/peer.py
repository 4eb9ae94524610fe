"""The workloads of bench/compare.sh on asyncio, with one worker: `peer.py [--uvloop] WORKLOAD 1 [quick]` measures one
of them after a warm-up and prints a line for each metric; `peer.py [--uvloop] echo --workers N …` is a server.

Counts are a tenth of the definition's or less where the result is a time for each operation: a yield takes
microseconds. gc.freeze() as the documentation advises for many objects is not used, nor are eager tasks, which do not
run apart. Servers are protocols, not streams: asyncio's faster kind. Several workers are as many processes that share
the port (SO_REUSEPORT).
"""
import argparse
import asyncio
import concurrent.futures
import ctypes
import os
import resource
import signal
import socket
import sys
import time

now = time.monotonic_ns


def usage(who=resource.RUSAGE_SELF):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime, used.ru_nvcsw + used.ru_nivcsw


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_kib():
    """VmHWM, since the rusage's peak is inherited from whoever has started the program."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


def quantile(values, at):
    return sorted(values)[int(at * (len(values) - 1) + 0.5)]


def expect(condition):
    if not condition:
        sys.exit("wrong result")


# ---- A: scheduling ----


async def yields(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def yield_alone(quick):
    count = 100_000 if quick else 1_000_000
    start = now()
    await yields(count)
    return [("A1", (now() - start) / count, "ns")]


async def yielders(tasks, count):
    start = now()
    await asyncio.gather(*[asyncio.create_task(yields(count)) for _ in range(tasks)])
    return now() - start


async def yield_among_1000(quick):
    count = 100 if quick else 1000
    return [("A2", await yielders(1000, count) / (1000 * count), "ns")]


async def yield_many(_quick):
    return [("A3", await yielders(200, 1000) / 1e3, "us")]


async def one():
    return 1


async def spawn_await(quick):
    rounds, total = 30 if quick else 100, 0
    start = now()
    for _ in range(rounds):
        tasks = [asyncio.create_task(one()) for _ in range(1000)]
        for task in tasks:
            total += await task
    elapsed = now() - start
    expect(total == rounds * 1000)
    return [("A4", elapsed / total, "ns")]


class Countdown:
    def __init__(self, count):
        self.left = count
        self.over = asyncio.Event()

    def count_down(self):
        self.left -= 1
        if self.left == 0:
            self.over.set()


ROUNDS = 10


async def count_one(countdown):
    countdown.count_down()


async def spawn_many(_quick):
    keep = set()
    start = now()
    for _ in range(ROUNDS):
        countdown = Countdown(10_000)
        for _ in range(10_000):
            task = asyncio.create_task(count_one(countdown))
            keep.add(task)
            task.add_done_callback(keep.discard)
        await countdown.over.wait()
    return [("A5", (now() - start) / ROUNDS / 1e3, "us")]


async def chain(countdown, keep):
    countdown.count_down()
    if countdown.left > 0:
        keep[0] = asyncio.create_task(chain(countdown, keep))


async def chained(_quick):
    start = now()
    for _ in range(ROUNDS):
        countdown, keep = Countdown(1000), [None]
        keep[0] = asyncio.create_task(chain(countdown, keep))
        await countdown.over.wait()
    return [("A6", (now() - start) / ROUNDS / 1e3, "us")]


async def partner(there, back):
    back.set_result(await there)


async def one_ping_pong(countdown):
    loop = asyncio.get_running_loop()
    there, back = loop.create_future(), loop.create_future()
    other = asyncio.create_task(partner(there, back))
    there.set_result(1)
    expect(await back == 1)
    await other
    countdown.count_down()


async def ping_pong(_quick):
    start = now()
    for _ in range(ROUNDS):
        countdown = Countdown(1000)
        tasks = [asyncio.create_task(one_ping_pong(countdown)) for _ in range(1000)]
        await countdown.over.wait()
        del tasks
    return [("A7", (now() - start) / ROUNDS / 1e3, "us")]


LEAVES, WAYS = 1_000_000, 10


async def node(first, leaves):
    if leaves == 1:
        return first
    share, total = leaves // WAYS, 0
    for child in [asyncio.create_task(node(first + i * share, share)) for i in range(WAYS)]:
        total += await child
    return total


async def skynet(_quick):
    start = now()
    total = await asyncio.create_task(node(0, LEAVES))
    elapsed = now() - start
    expect(total == LEAVES * (LEAVES - 1) // 2)
    return [("A8", elapsed / 1e6, "ms")]


async def fib(n):
    if n < 2:
        return n
    left = asyncio.create_task(fib(n - 1))
    right = await fib(n - 2)
    return await left + right


async def fib_30(_quick):
    start = now()
    result = await fib(30)
    elapsed = now() - start
    expect(result == 832040)
    return [("A9", elapsed / 1e6, "ms")]


async def wake_latency(quick):
    count, latencies, loop = 500 if quick else 3000, [], asyncio.get_running_loop()

    def submit():
        for _ in range(count):
            time.sleep(0.001)
            sent = now()
            loop.call_soon_threadsafe(lambda sent=sent: latencies.append(now() - sent))
        time.sleep(0.02)

    await asyncio.to_thread(submit)
    expect(len(latencies) == count)
    return [("A12.p50", quantile(latencies, 0.5) / 1e3, "us"), ("A12.p99", quantile(latencies, 0.99) / 1e3, "us")]


async def idle(quick):
    release = asyncio.Event()
    parked = [asyncio.create_task(release.wait()) for _ in range(10_000)]

    def watch():
        time.sleep(0.5)
        before, own_before = usage(), usage(resource.RUSAGE_THREAD)
        time.sleep(2 if quick else 10)
        after, own_after = usage(), usage(resource.RUSAGE_THREAD)
        return [after[i] - before[i] - own_after[i] + own_before[i] for i in range(2)]

    cpu, switches = await asyncio.to_thread(watch)
    release.set()
    await asyncio.gather(*parked)
    return [("A13.cpu", cpu * 1e3, "ms"), ("A13.switches", switches, "1")]


# ---- B: memory. Tasks have no stacks of their own: B2. ----


async def wait_for_release(release, arrived, ended):
    arrived.count_down()
    await release
    ended.count_down()


async def million_parked(quick):
    count = 200_000 if quick else 1_000_000
    arrived, ended = Countdown(count), Countdown(count)
    release = asyncio.get_running_loop().create_future()
    before, start = resident_bytes(), now()
    tasks = [asyncio.create_task(wait_for_release(release, arrived, ended)) for _ in range(count)]
    await arrived.over.wait()
    spawned, parked = now(), resident_bytes()
    released = now()
    release.set_result(None)
    await ended.over.wait()
    end = now()
    del tasks
    return [("B2.bytes", (parked - before) / count, "B"), ("B2.spawn", (spawned - start) / 1e6, "ms"),
            ("B2.end", (end - released) / 1e6, "ms")]


# ---- C: communication ----


async def channel_ping_pong(quick):
    trips = 30_000 if quick else 100_000
    there, back = asyncio.Queue(1), asyncio.Queue(1)

    async def return_balls():
        for _ in range(trips):
            await back.put(await there.get())

    other = asyncio.create_task(return_balls())
    start = now()
    for i in range(trips):
        await there.put(i)
        expect(await back.get() == i)
    elapsed = now() - start
    await other
    return [("C1", elapsed / trips, "ns")]


async def crowd(key, senders, receivers, capacity, messages):
    queue, received = asyncio.Queue(capacity), [0]

    async def send():
        for i in range(messages // senders):
            await queue.put(i)

    async def receive():
        while await queue.get() is not None:
            received[0] += 1

    start = now()
    sending = [asyncio.create_task(send()) for _ in range(senders)]
    receiving = [asyncio.create_task(receive()) for _ in range(receivers)]
    await asyncio.gather(*sending)
    for _ in range(receivers):
        await queue.put(None)
    await asyncio.gather(*receiving)
    elapsed = now() - start
    expect(received[0] == messages)
    return [(key, elapsed / messages, "ns")]


async def many_to_one(quick):
    return await crowd("C2", 4, 1, 128, 40_000 if quick else 200_000)


async def many_to_many(quick):
    return await crowd("C3", 4, 4, 1024, 100_000 if quick else 1_000_000)


async def mutex(quick):
    tasks, turns, lock, value = 8, 5_000 if quick else 20_000, asyncio.Lock(), [0]

    async def increment():
        for _ in range(turns):
            async with lock:
                value[0] += 1

    start = now()
    await asyncio.gather(*[asyncio.create_task(increment()) for _ in range(tasks)])
    elapsed = now() - start
    expect(value[0] == tasks * turns)
    return [("C4", elapsed / value[0], "ns")]


async def generator(quick):
    values, total = 1_000_000 if quick else 10_000_000, 0

    def numbers():
        for i in range(values):
            yield i

    start = now()
    for value in numbers():
        total += value
    elapsed = now() - start
    expect(total == values * (values - 1) // 2)
    return [("C6.task", elapsed / values, "ns")]


# ---- D: timers and the pool ----


def assign_naps(count):
    """The same naps in every program, in ms; and the longest sum of one sleeper's."""
    state, mask, naps = 88172645463325252, (1 << 64) - 1, []
    for _ in range(count):
        of_one = []
        for _ in range(3):
            state ^= (state << 13) & mask
            state ^= state >> 7
            state ^= (state << 17) & mask
            of_one.append(1 + state % 1000)
        naps.append(of_one)
    return naps, max(sum(of_one) for of_one in naps)


async def sleep_crowd(count):
    naps, ideal = assign_naps(count)
    overshoots = []

    async def sleep_thrice(of_one):
        for nap in of_one:
            start = now()
            await asyncio.sleep(nap / 1e3)
            overshoots.append(now() - start - nap * 1_000_000)

    start = now()
    tasks = [asyncio.create_task(sleep_thrice(of_one)) for of_one in naps]
    for task in tasks:
        await task
    return now() - start - ideal * 1_000_000, overshoots


async def many_sleepers(_quick):
    cpu = usage()[0]
    over, _ = await sleep_crowd(100_000)
    return [("D1.over", over / 1e6, "ms"), ("D1.cpu", usage()[0] - cpu, "s")]


async def thousand_sleepers(_quick):
    _, overshoots = await sleep_crowd(1000)
    return [("D1.p99", quantile(overshoots, 0.99) / 1e6, "ms")]


async def unused_timeouts(quick):
    count, lock = 20_000 if quick else 200_000, asyncio.Lock()
    start = now()
    for _ in range(count):
        async with asyncio.timeout(1):
            async with lock:
                pass
    return [("D2", (now() - start) / count, "ns")]


async def short_sleep(_quick):
    errors = []
    for _ in range(2000):
        start = now()
        await asyncio.sleep(100e-6)
        errors.append(now() - start - 100_000)
    return [("D3.p50", quantile(errors, 0.5) / 1e3, "us"), ("D3.p99", quantile(errors, 0.99) / 1e3, "us")]


async def call_pool(tasks, calls, call):
    loop = asyncio.get_running_loop()

    async def caller():
        made = 0
        for _ in range(calls):
            made += await loop.run_in_executor(None, call)
        return made

    start = now()
    made = sum(await asyncio.gather(*[asyncio.create_task(caller()) for _ in range(tasks)]))
    elapsed = now() - start
    expect(made == tasks * calls)
    return elapsed


def call_nothing():
    return 1


def call_sleep():
    time.sleep(0.1)
    return 1


async def trivial_calls(quick):
    calls = 50 if quick else 200
    return [("D4", await call_pool(100, calls, call_nothing) / 1e3 / (100 * calls), "us")]


async def sleeping_calls(_quick):
    return [("D5", await call_pool(2000, 1, call_sleep) / 1e6, "ms")]


async def calls_at_once(_quick):
    loop, metrics = asyncio.get_running_loop(), []

    async def batch():
        await asyncio.gather(*[loop.run_in_executor(None, call_nothing) for _ in range(16)])

    for tasks in (1, 4, 16):
        start = now()
        for _ in range(20):
            await asyncio.gather(*[asyncio.create_task(batch()) for _ in range(tasks)])
        metrics.append(("D6.%d" % tasks, (now() - start) / 1e3 / (20 * 16 * tasks), "us"))
    return metrics


# Name: the coroutine function, and whether it measures memory or first touches (no warm-up).
WORKLOADS = {
    "A1": (yield_alone, False), "A2": (yield_among_1000, False), "A3": (yield_many, False),
    "A4": (spawn_await, False), "A5": (spawn_many, False), "A6": (chained, False), "A7": (ping_pong, False),
    "A8": (skynet, True), "A9": (fib_30, True), "A12": (wake_latency, False), "A13": (idle, True),
    "B2": (million_parked, True), "C1": (channel_ping_pong, False), "C2": (many_to_one, False),
    "C3": (many_to_many, False), "C4": (mutex, False), "C6": (generator, False), "D1": (many_sleepers, True),
    "D1.few": (thousand_sleepers, True), "D2": (unused_timeouts, False), "D3": (short_sleep, False),
    "D4": (trivial_calls, False), "D5": (sleeping_calls, False), "D6": (calls_at_once, False),
}


# ---- servers ----


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport  # both loops set TCP_NODELAY

    def data_received(self, data):
        self.transport.write(data)


async def compute():
    while True:
        start = now()
        while now() - start < 1_000_000:
            pass
        await asyncio.sleep(0.1)


async def stick():
    while True:
        time.sleep(0.5)
        await asyncio.sleep(0.5)


async def serve(listener, options, number):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sock=listener, backlog=4096)
    helpers = []
    if number < options.compute:
        helpers.append(asyncio.create_task(compute()))
    if number < options.stuck:
        helpers.append(asyncio.create_task(stick()))
    async with server:
        await asyncio.sleep(options.seconds)


def listen(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(4096)
    return listener


def echo(run, arguments):
    parser = argparse.ArgumentParser()
    for name, default in (("port", 0), ("workers", 1), ("seconds", 60), ("compute", 0), ("stuck", 0)):
        parser.add_argument("--" + name, type=int, default=default)
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    listeners = [listen(options.port)]
    port = listeners[0].getsockname()[1]
    listeners += [listen(port) for _ in range(options.workers - 1)]
    print("listening on 127.0.0.1:%d" % port, flush=True)
    children, number = [], 0
    for number in range(options.workers - 1, 0, -1):
        child = os.fork()
        if child == 0:
            children = []
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            break
        children.append(child)
        number = 0

    def leave(_number, _frame):
        for child in children:
            os.kill(child, signal.SIGTERM)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    for at, listener in enumerate(listeners):
        if at != number:
            listener.close()
    run(serve(listeners[number], options, number))


# ---- the program ----


def measure(run, name, workers, quick):
    function, fresh = WORKLOADS[name]

    async def both():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(512))
        if not fresh:
            await function(quick)
        before = usage()
        metrics = await function(quick)
        after = usage()
        return metrics, after[0] - before[0], after[1] - before[1]

    metrics, cpu, switches = run(both())
    peak = peak_kib()
    for key, value, unit in metrics:
        print("%s workers=%d value=%.6f unit=%s rss_kb=%d cpu_s=%.6f ctxsw=%d" % (
            key, workers, value, unit, peak, cpu, switches))


def main():
    arguments = sys.argv[1:]
    run = asyncio.run
    version = "asyncio of Python %d.%d.%d" % sys.version_info[:3]
    if arguments[:1] == ["--uvloop"]:
        import uvloop
        run, version = uvloop.run, "uvloop %s, Python %d.%d.%d" % ((uvloop.__version__,) + sys.version_info[:3])
        arguments = arguments[1:]
    if arguments == ["--list"]:
        print("\n".join(WORKLOADS))
    elif arguments == ["--version"]:
        print(version)
    elif arguments[:1] == ["echo"]:
        echo(run, arguments[1:])
    elif len(arguments) in (2, 3) and arguments[0] in WORKLOADS:
        measure(run, arguments[0], int(arguments[1]), arguments[2:] == ["quick"])
    else:
        sys.exit("usage: peer.py [--uvloop] WORKLOAD 1 [quick] | echo [--port N] [--workers N] … | --list")


if __name__ == "__main__":
    main()
