"""Who takes part in bench/compare.sh, in which workloads, and how a run of each is started and read."""
import json
import os
import re
import subprocess

import machine
import servers

# Workload: title, seconds that one run takes in full and with --quick (for the estimate).
WORKLOADS = {
    "A1": ("one task yields", 3, 1), "A2": ("1000 tasks yield in turn", 2, 1),
    "A3": ("200 tasks yield 1000 times", 0.3, 0.3), "A4": ("spawn and await, 1000 at a time", 2, 0.5),
    "A5": ("10 000 spawns, the last one signals", 1, 1), "A6": ("chain of 1000 tasks", 0.3, 0.3),
    "A7": ("1000 ping-pongs over one-shot messages", 0.5, 0.5),
    "A8": ("skynet, a million leaves, awaited", 2, 2), "A8.yield": ("skynet, every task yields first", 2, 2),
    "A8.chan": ("skynet, a channel a level", 2, 2), "A9": ("fib(30) without a cut-off", 3, 3),
    "A10.queens": ("12 queens", 0.5, 0.5), "A10.matmul": ("1024 x 1024 product by quadrants", 1, 1),
    "A11": ("12 800 spawns from 1, 2, 4, 8 threads", 0.3, 0.3),
    "A12": ("outside thread to running task, idle runtime", 8, 1.5),
    "A13": ("idle with 10 000 parked tasks", 11, 3), "B1": ("parked tasks with stacks", 12, 7),
    "B2": ("parked tasks without stacks", 3, 1), "B2s": ("tasks that sleep, handles kept", 14, 3),
    "B4": ("idle connections of an echo server", 3, 2), "C1": ("ping-pong over two channels", 1, 0.5),
    "C2": ("4 senders, 1 receiver, capacity 128", 0.5, 0.3), "C3": ("4 senders, 4 receivers, capacity 1024", 2, 0.4),
    "C4": ("8 tasks, one mutex", 0.5, 0.5), "C5": ("select over 8 channels", 1.5, 0.6),
    "C6": ("10 M values of a generator", 1, 1), "D1": ("100 000 tasks sleep three times", 5, 5),
    "D1.few": ("1000 tasks sleep three times: overshoot", 3.5, 3.5),
    "D2": ("a time-out around what does not wait", 3, 0.5),
    "D3": ("sleep 100 us: error", 4, 4), "D4": ("trivial pool calls of 100 tasks", 2, 0.5),
    "D5": ("2000 pool calls of 100 ms, 512 threads", 1, 1), "D6": ("16 pool calls from 1, 4, 16 tasks", 1, 1),
    "E1.1": ("echo, 1 connection", 4, 2), "E1.64": ("echo, 64 connections", 4, 2),
    "E1.1000": ("echo, 1000 connections", 4, 2), "E1.10000": ("echo, 10 000 connections", 5, 3),
    "E2.64": ("HTTP, 64 connections", 4, 2), "E2.256": ("HTTP, 256 connections", 4, 2),
    "E2.64p16": ("HTTP, 64 connections, 16 pipelined", 4, 2),
    "E3": ("echo, 1000 connections, tasks that compute", 4, 2),
    "E4": ("echo, 64 connections, one worker stuck half of the time", 4, 3),
    "E5": ("echo, 64 connections, 6000 messages a second", 8, 4),
}

# The count of workers is a part of these.
FIXED_WORKERS = {"A13": 2, "C6": 1}

# MiB that are touched before a run of what measures first touches (compare.py).
BACKED_MIB = {"B1": 5000, "B2": 1500, "B2s": 3000, "D1": 1000}

# MiB that must be free: runs that would push the machine into swapping are left out, and said so.
MEMORY_MIB = {("boost", "A8"): 9000, ("boost", "A9"): 14000, ("boost", "B1"): 16000, ("boost", "A8.chan"): 4000}

TASKS = {"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "A12", "A13", "C1", "C2", "C3", "C4", "C6", "D1",
         "D1.few", "D3"}
POOL = {"D4", "D5", "D6"}
ECHO = {"E1.1", "E1.64", "E1.1000", "E1.10000", "E3", "E4", "E5", "B4"}
LOOPS = ECHO - {"E5"}  # of event loops, the bare one stands for all at low load
HTTP = {"E2.64", "E2.256", "E2.64p16"}

LINE = re.compile(r"^(\S+) workers=(\d+) value=(\S+) unit=(\S+) rss_kb=(\d+) cpu_s=(\S+) ctxsw=(-?\d+)$")


class Peer:
    """One series of the comparison."""

    def __init__(self, name, title, workloads, command, most_workers=1 << 20, environment=None, echo=None, http=None,
                 only_workers=None):
        self.name = name
        self.title = title
        self.workloads = workloads
        self.command = command  # of workload, workers, quick
        self.most_workers = most_workers  # of the workloads that are not servers
        self.environment = environment or {}
        self.echo = echo
        self.http = http
        self.only_workers = only_workers

    def takes_part(self, workload, workers):
        if workload not in self.workloads or self.only_workers not in (None, workers):
            return False
        server = workload in ECHO or workload in HTTP
        return server or workers <= self.most_workers or workload in FIXED_WORKERS

    def read(self, workload, output):
        """(key, value, unit, peak KiB, CPU seconds, context switches) of each line."""
        found = []
        for line in output.splitlines():
            match = LINE.match(line)
            if match:
                key, _, value, unit, peak, cpu, switches = match.groups()
                found.append((key, float(value), "" if unit == "1" else unit, int(peak), float(cpu), int(switches)))
        return found


# weft's own names where they differ.
MICRO_NAMES = {"A8": "A8.await", "B1": "B1.park,B1.touch", "D1": "D1.crowd"}
MICRO_STACKLESS = {"A8.yield": "A8.s", "A8.chan": "A8.s", "D1": "D1.s"}


class WeftPeer(Peer):
    """bench_micro, one repeat after its warm-up."""

    def read(self, workload, output):
        found = []
        for line in output.splitlines():
            row = json.loads(line) if line.startswith("{") else {"error": line}
            if "error" in row:
                continue
            key = row["id"][:-2] if row["id"].endswith(".s") else row["id"]
            if workload in MICRO_STACKLESS and row["id"].endswith(".s") and not key.startswith(workload):
                continue
            found.append((key, row["median"], row["unit"], int(row["peak_mb"] * 1024), row["cpu_s"],
                          row["voluntary"] + row["involuntary"]))
        return found


class PeerServer(servers.Server):
    """A peer's server program: workers by option; computing and stuck tasks too."""

    def __init__(self, peer, command, stalls, stuck, workers, log):
        super().__init__(peer.name, workers, log)
        self.peer = peer
        self.line = command + ["--port", "0", "--seconds", str(600), "--workers", str(workers)]
        if stalls:
            self.line += ["--compute", str(workers)]
        if stuck:
            self.line += ["--stuck", "1"]

    def command(self):
        return self.line

    def environment(self):
        return dict(os.environ, **self.peer.environment)

    def pids(self):
        """Several workers may be several processes."""
        pid = self.process.pid
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as file:
                return [pid] + [int(child) for child in file.read().split()]
        except OSError:
            return [pid]


class Everybody:
    """All peers by name, given where their programs are."""

    def __init__(self, build, programs, python):
        self.build = build
        self.programs = programs
        micro = os.path.join(build, "bench", "bench_micro")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "asyncio", "peer.py")

        def of_weft(names):
            def command(workload, workers, quick):
                return [micro, "--json", "--repeat", "1", "--workers", str(workers), "--only",
                        names.get(workload, MICRO_NAMES.get(workload, workload))] + (["--quick"] if quick else [])
            return command

        def plain(*program):
            def command(workload, workers, quick):
                return list(program) + [workload, str(workers)] + (["quick"] if quick else [])
            return command

        def in_bin(name):
            return os.path.join(programs, "bin", name)

        stackful = set(WORKLOADS) - {"B2", "B2s"}
        tokio_tasks = TASKS | POOL | {"A8.yield", "A8.chan", "A11", "B2", "B2s", "C5", "D2"}
        python_tasks = TASKS | POOL | {"B2", "D2"}
        tokio, go, uv = in_bin("peer-tokio"), in_bin("peer-go"), in_bin("peer-libuv")
        every = [
            WeftPeer("weft", "weft", stackful, of_weft({})),
            WeftPeer("weft-stackless", "weft, without stacks",
                     {"A8.yield", "A8.chan", "B2", "B2s", "D1"} | (ECHO - {"B4"}), of_weft(MICRO_STACKLESS)),
            WeftPeer("weft-again", "weft, call again", {"B4", "E1.64", "E1.1000"}, None),
            Peer("tokio", "Tokio", tokio_tasks | ECHO | HTTP, plain(tokio),
                 echo=[tokio, "echo"], http=[tokio, "http"]),
            Peer("tokio-mt", "Tokio, multi-thread", tokio_tasks - {"A13", "C6"} | ECHO | HTTP,
                 plain(tokio), environment={"PEER_FLAVOR": "multi"}, echo=[tokio, "echo"], http=[tokio, "http"],
                 only_workers=1),
            Peer("go", "Go", TASKS | {"A8.yield", "A8.chan", "A11", "B1", "B2s", "C5", "D2", "D5"} | ECHO | HTTP,
                 plain(go), echo=[go, "echo"], http=[go, "http"]),
            Peer("boost", "Boost.Fiber", TASKS | {"A8.chan", "B1"}, plain(in_bin("peer-boost"))),
            Peer("tbb", "oneTBB", {"A4", "A8", "A9", "A10.queens", "A10.matmul"}, plain(in_bin("peer-tbb"))),
            Peer("libuv", "libuv", {"A12", "D1", "D1.few", "D2"} | POOL | LOOPS, plain(uv), most_workers=1,
                 echo=[uv, "echo"]),
            Peer("asyncio", "asyncio", python_tasks | LOOPS, plain(python, script), most_workers=1,
                 echo=[python, script, "echo"]),
            Peer("uvloop", "uvloop", python_tasks - {"D3"} | LOOPS, plain(python, script, "--uvloop"), most_workers=1,
                 echo=[python, script, "--uvloop", "echo"]),
            Peer("nginx", "nginx", HTTP, None),
            Peer("bare", "bare",
                 {"A1", "A2", "A3", "A4", "A12", "C1", "C4", "C6", "D3"} | (ECHO - {"E4"}) | HTTP,
                 plain(in_bin("peer-bare")), most_workers=1),
        ]
        self.peers = {peer.name: peer for peer in every}

    def server(self, peer, workload, workers, scratch, log):
        """The server of a peer for a workload of E or B4."""
        stalls, stuck = workload == "E3", workload == "E4"
        if peer.name.startswith("weft"):
            if workload in HTTP:
                program = os.path.join(self.build, "examples", "httpd")
                return servers.WeftServer(program, ["--quiet", "--keepalive-timeout", "600"], workers, log)
            form = {"weft-again": ["--call-again"], "weft-stackless": ["--stackless"]}.get(peer.name, [])
            return servers.WeftServer(os.path.join(self.build, "bench", "bench_echo_server"),
                                      ["--stalls"] * stalls + ["--stuck"] * stuck + form, workers, log)
        if peer.name == "bare":
            program = "bench_epoll_server" if workload in HTTP else "bench_epoll_echo"
            return servers.EpollServer(os.path.join(self.build, "bench", program), ["--stalls"] * stalls, workers, log)
        if peer.name == "nginx":
            return servers.NginxServer(scratch, workers, log)
        command = peer.http if workload in HTTP else peer.echo
        return PeerServer(peer, command, stalls, stuck, workers, log)

    def versions(self, python):
        """Pairs of a name and what was measured."""
        here = os.path.dirname(os.path.abspath(__file__))
        lock = machine.read(os.path.join(here, "peers", "tokio", "Cargo.lock"))
        crates = dict(re.findall(r'name = "(tokio|hyper|mimalloc)"\nversion = "([^"]+)"', lock))
        script = os.path.join(here, "peers", "asyncio", "peer.py")
        return [
            ("Tokio", "%s, hyper %s, mimalloc %s, %s" % (
                crates.get("tokio"), crates.get("hyper"), crates.get("mimalloc"),
                machine.first_line("rustc", "--version"))),
            ("Go", machine.first_line(os.path.join(self.programs, "bin", "peer-go"), "--version")),
            ("Boost", defined("boost/version.hpp", "BOOST_LIB_VERSION")),
            ("oneTBB", "%s.%s" % (defined("oneapi/tbb/version.h", "TBB_VERSION_MAJOR"),
                                  defined("oneapi/tbb/version.h", "TBB_VERSION_MINOR"))),
            ("libuv", machine.first_line(os.path.join(self.programs, "bin", "peer-libuv"), "--version")),
            ("asyncio", machine.first_line(python, script, "--version")),
            ("uvloop", machine.first_line(python, script, "--uvloop", "--version")),
            ("C++ compiler", machine.first_line("c++", "--version")),
        ]


def defined(header, macro):
    """The text of a macro of a header that is installed."""
    try:
        result = subprocess.run(["c++", "-E", "-P", "-x", "c++", "-"], input=("#include <%s>\nweft_value %s\n" % (
            header, macro)).encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    for line in reversed(result.stdout.decode(errors="replace").splitlines()):
        if line.startswith("weft_value"):
            return line.split(None, 1)[1].strip('" ').replace("_", ".")
    return ""
