"""weft and its peers side by side. bench/compare.sh builds the programs first.

Plan: a group for each workload and number of workers. In a group every peer runs once (that run does not count), then
as many rounds of all of them as asked for, one process at a time. A run that takes too long is ended with its process
group, reported, and not tried again in this group. Raw rows go to raw.json; compare_report.py makes the rest of them.
"""
import argparse
import datetime
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

import compare_peers
import compare_report
import machine
import servers

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_S, LIMIT_QUICK_S = 150, 90
PROGRESS = "progress.json"
LONG_S = 4  # with --quick, what takes longer is run once
IDLE_CONNECTIONS, IDLE_CONNECTIONS_QUICK = 10000, 2000


class Group:
    def __init__(self, workload, workers, peers):
        self.workload = workload
        self.workers = workers
        self.peers = peers

    def label(self):
        return "%s, %d worker%s" % (self.workload, self.workers, "" if self.workers == 1 else "s")


class Comparison:
    def __init__(self, options, everybody, groups, scratch):
        self.options = options
        self.everybody = everybody
        self.groups = groups
        self.scratch = scratch
        self.rows = []
        self.missing = []
        self.done = []  # groups: [workload, workers]
        self.running = None  # a process or a server, to stop if we are to leave
        self.durations = {}  # of a run, by (workload, peer)
        self.started = time.monotonic()
        self.spent_estimate = 0.0

    # ---- one run of a program ----

    def run_program(self, peer, group):
        limit = LIMIT_QUICK_S if self.options.quick else LIMIT_S
        command = peer.command(group.workload, group.workers, self.options.quick)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=dict(os.environ, **peer.environment), start_new_session=True,
                                   preexec_fn=servers.die_with_parent)
        self.running = process
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise servers.Failure("longer than %d s" % limit) from None
        finally:
            end_process(process)
            self.running = None
        found = peer.read(group.workload, output.decode(errors="replace"))
        if process.returncode != 0 or not found:
            words = (errors or output).decode(errors="replace").strip().splitlines()
            raise servers.Failure((words[-1] if words else "status %d" % process.returncode)[:160])
        return found

    # ---- one run of a server ----

    def run_server(self, peer, group):
        log = os.path.join(self.options.out, "logs", "%s-%s-%d.log" % (peer.name, group.workload, group.workers))
        server = self.everybody.server(peer, group.workload, group.workers, self.scratch, log)
        self.running = server
        try:
            server.start()
            if group.workload == "B4":
                return self.idle_connections(server)
            result = servers.measured(server, self.generator(group.workload))
            if result["errors"]:
                raise servers.Failure("%d requests failed" % result["errors"])
            peak, switches = peak_kib(server), context_switches(server)
            cpu = server.cpu_seconds()
        finally:
            server.stop()
            self.running = None
        return [(group.workload + "." + part, result[name] * scale, unit, peak, cpu, switches)
                for part, name, scale, unit in (("rate", "requests_s", 1, "1/s"), ("cpu", "cpu_us", 1, "us"),
                                                ("p50", "p50_us", 1e-3, "ms"), ("p99", "p99_us", 1e-3, "ms"),
                                                ("p999", "p999_us", 1e-3, "ms"))
                if result[name] is not None]

    def generator(self, workload):
        seconds = 1 if self.options.quick else 3
        if workload.startswith("E2"):
            connections, _, pipeline = workload[3:].partition("p")
            return servers.wrk(os.path.join(HERE, "wrk.lua"), int(connections), seconds, int(pipeline or 1))
        if workload == "E4":
            seconds = max(seconds, 2)
        if workload == "E5":  # what a server does when it has had little to do for a while
            seconds = 2 if self.options.quick else 6
        connections = {"E3": 1000, "E4": 64, "E5": 64}.get(workload) or int(workload[3:])
        return servers.echo_client(os.path.join(self.options.build, "bench", "bench_echo_client"), connections, seconds,
                                   servers.LOW_RATE if workload == "E5" else 0)

    def idle_connections(self, server):
        """Resident memory for each connection that has echoed once, after one that is not counted."""
        count = IDLE_CONNECTIONS_QUICK if self.options.quick else IDLE_CONNECTIONS
        clients = []
        try:
            for number in range(count + 1):
                client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                clients.append(client)
                client.sendall(b"x" * 64)
                if len(client.recv(64, socket.MSG_WAITALL)) != 64:
                    raise servers.Failure("an echo is incomplete")
                if number == 0:
                    before = resident_kib(server)
            time.sleep(1)
            bytes_each = (resident_kib(server) - before) * 1024 / count
            return [("B4.bytes", bytes_each, "B", peak_kib(server), server.cpu_seconds(), context_switches(server))]
        finally:
            for client in clients:
                client.close()

    # ---- the run ----

    def run_peer(self, peer, group):
        """Rows of one run, and what it took."""
        start = time.monotonic()
        if group.workload in compare_peers.ECHO | compare_peers.HTTP:
            found = self.run_server(peer, group)
        else:
            found = self.run_program(peer, group)
        took = time.monotonic() - start
        self.durations[(group.workload, peer.name)] = took
        rows = [{"workload": group.workload, "workers": group.workers, "peer": peer.name, "key": key, "value": value,
                 "unit": unit, "peak_kib": peak, "cpu_s": cpu, "switches": switches}
                for key, value, unit, peak, cpu, switches in found]
        return rows, took

    def estimate(self, group):
        """Seconds that a group takes: by what its runs took so far, or by the table."""
        _, full, quick = compare_peers.WORKLOADS[group.workload]
        planned = quick if self.options.quick else full
        total = 0.0
        for peer in group.peers:
            one = self.durations.get((group.workload, peer.name), planned)
            total += one if self.options.quick and one > LONG_S else one * (self.options.rounds + 1)
        return total

    def progress(self, number, group):
        left = sum(self.estimate(other) for other in self.groups[number - 1:])
        if self.spent_estimate > 10:
            left *= min(max((time.monotonic() - self.started) / self.spent_estimate, 0.3), 5)
        print("[%*d/%d] %-28s %-44s %s left" % (len(str(len(self.groups))), number, len(self.groups), group.label(),
                                               compare_peers.WORKLOADS[group.workload][0], duration(left)), flush=True)

    def fail(self, group, peer, why):
        print("        %s: %s" % (peer.title, why), flush=True)
        self.missing.append({"workload": group.workload, "workers": group.workers, "peer": peer.name, "why": why})

    def attempt(self, group, peer):
        """(rows, seconds), or None and it is noted."""
        needed = compare_peers.MEMORY_MIB.get((peer.name, group.workload), 0)
        if needed and available_mib() < needed:
            self.fail(group, peer, "left out: needs %d MiB of free memory" % needed)
            return None
        try:
            back_memory(compare_peers.BACKED_MIB.get(group.workload, 0) // (10 if self.options.quick else 1))
            return self.run_peer(peer, group)
        except (servers.Failure, OSError, ValueError) as error:
            self.fail(group, peer, str(error))
            return None

    def run_group(self, group):
        going = []
        for peer in group.peers:
            result = self.attempt(group, peer)
            if result is None:
                continue
            rows, took = result
            if self.options.quick and took > LONG_S:
                self.rows += rows
            else:
                going.append(peer)
        for number in range(self.options.rounds):
            first = number % max(len(going), 1)
            for peer in going[first:] + going[:first]:
                result = self.attempt(group, peer)
                if result is None:
                    going.remove(peer)
                else:
                    self.rows += result[0]

    # What is there after each group, for a run that is broken off: --resume goes on from it.

    def settings(self):
        return {"quick": self.options.quick, "rounds": self.options.rounds}

    def save(self):
        path = os.path.join(self.options.out, PROGRESS)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"settings": self.settings(), "done": self.done, "rows": self.rows, "missing": self.missing},
                      file)
        os.replace(path + ".new", path)

    def resume(self):
        """Takes over what a run that was broken off has measured. A message if it cannot."""
        try:
            with open(os.path.join(self.options.out, PROGRESS), encoding="utf-8") as file:
                before = json.load(file)
        except (OSError, ValueError) as error:
            return "nothing to resume: %s" % error
        if before["settings"] != self.settings():
            return "what is there was measured otherwise: %s" % before["settings"]
        self.done, self.rows, self.missing = before["done"], before["rows"], before["missing"]
        self.groups = [group for group in self.groups if [group.workload, group.workers] not in self.done]
        return None

    def run(self):
        for number, group in enumerate(self.groups, 1):
            self.progress(number, group)
            self.run_group(group)
            self.spent_estimate += self.estimate(group)
            self.done.append([group.workload, group.workers])
            self.save()


def back_memory(mib):
    """Touch so much and give it back: a virtual machine's host takes free memory away after a while, and then who
    touches it first pays five times as much as the next."""
    if 0 < mib < available_mib() / 2:
        populate = getattr(mmap, "MAP_POPULATE", 0x8000)  # Python has the name since 3.10
        mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | populate).close()


def end_process(process):
    """And what it has started: its group is its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def status_sum(server, field, threads=False):
    total = 0
    for pid in server.pids():
        paths = ["/proc/%d/status" % pid]
        if threads:
            try:
                paths = ["/proc/%d/task/%s/status" % (pid, thread) for thread in os.listdir("/proc/%d/task" % pid)]
            except OSError:
                paths = []
        for path in paths:
            for line in machine.read(path).splitlines():
                if line.startswith(field):
                    total += int(line.split()[1])
    return total


def peak_kib(server):
    return status_sum(server, "VmHWM:")


def resident_kib(server):
    return status_sum(server, "VmRSS:")


def context_switches(server):
    return status_sum(server, "voluntary_ctxt", True) + status_sum(server, "nonvoluntary_ctxt", True)


def available_mib():
    for line in machine.read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def duration(seconds):
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return "%d min %02d s" % (minutes, seconds) if minutes else "%d s" % seconds


def chosen_workloads(text):
    """A8 means A8 and all that start with A8. or so, A all of A; None if a name is none of them."""
    if not text:
        return list(compare_peers.WORKLOADS)
    chosen = set()
    for word in text.split(","):
        matching = {name for name in compare_peers.WORKLOADS
                    if name == word or name.startswith(word + ".") or (len(word) == 1 and name.startswith(word))}
        if not matching:
            return None
        chosen |= matching
    return [name for name in compare_peers.WORKLOADS if name in chosen]


def make_groups(workloads, counts, peers):
    groups = []
    for workload in workloads:
        fixed = compare_peers.FIXED_WORKERS.get(workload)
        for workers in [fixed] if fixed else counts:
            taking_part = [peer for peer in peers if peer.takes_part(workload, workers)]
            if taking_part:
                groups.append(Group(workload, workers, taking_part))
    return groups


def missing_peers(programs):
    """Why a peer is not there, as compare.sh has found."""
    lines = machine.read(os.path.join(programs, "missing.tsv")).splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def choose_peers(everybody, names, missing):
    """weft first; a variant belongs to the peer before its hyphen."""
    return [peer for peer in everybody.peers.values()
            if peer.name.split("-")[0] in names + ["weft"] and peer.name.split("-")[0] not in missing]


def list_workloads(everybody):
    for name, (title, _, _) in compare_peers.WORKLOADS.items():
        names = [peer.name for peer in everybody.peers.values() if name in peer.workloads]
        print("%-10s %-58s %s" % (name, title, " ".join(names)))


def parse_options():
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="bench/compare.sh", usage="bench/compare.sh [options]; see --help")
    parser.add_argument("--build", default="build/bench-release")
    parser.add_argument("--programs", default="build/peers")
    parser.add_argument("--python", default="python3")
    parser.add_argument("--peers", default="tokio,go,boost,tbb,libuv,asyncio,uvloop,nginx,bare",
                        type=lambda text: text.split(","))
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=lambda text: [int(count) for count in text.split(",")],
                        default=sorted({1, cores, 4 * cores}))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", default="")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.workloads = chosen_workloads(options.only)
    if options.workloads is None:
        parser.error("--only: %s; see --list" % options.only)
    if options.rounds < 1 or not all(1 <= count <= 256 for count in options.workers):
        parser.error("--rounds is at least 1, --workers from 1 to 256")
    options.build = os.path.abspath(options.build)
    options.programs = os.path.abspath(options.programs)
    options.out = options.out or os.path.join("out", datetime.datetime.now().strftime("compare-%Y-%m-%d-%H%M%S"))
    return options


def leave(number, _frame):
    """A signal unwinds the stack, and so ends what runs."""
    sys.exit(128 + number)


def raise_descriptor_limit():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main():
    options = parse_options()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)
    everybody = compare_peers.Everybody(options.build, options.programs, options.python)
    if options.list:
        list_workloads(everybody)
        return 0
    raise_descriptor_limit()
    os.makedirs(os.path.join(options.out, "logs"), exist_ok=True)
    missing = missing_peers(options.programs)
    peers = choose_peers(everybody, options.peers, missing)
    groups = make_groups(options.workloads, options.workers, peers)
    how = {"machine": machine.describe(options.build) + everybody.versions(options.python), "quick": options.quick,
           "rounds": options.rounds, "date": datetime.date.today().isoformat(), "missing_peers": missing,
           "titles": {peer.name: peer.title for peer in peers}, "cores": len(os.sched_getaffinity(0)),
           "workloads": {name: title for name, (title, _, _) in compare_peers.WORKLOADS.items()}}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weft-compare-") as scratch:
        comparison = Comparison(options, everybody, groups, scratch)
        problem = comparison.resume() if options.resume else None
        if problem:
            print("compare.sh: %s" % problem, file=sys.stderr)
            return 2
        print("== %d groups, about %s; results in %s" % (
            len(comparison.groups), duration(sum(comparison.estimate(group) for group in comparison.groups)),
            options.out), flush=True)
        try:
            comparison.run()
        except KeyboardInterrupt:
            return 130
        finally:
            if isinstance(comparison.running, servers.Server):
                comparison.running.stop()
    print("== tables and plots", flush=True)
    compare_report.write(options.out, comparison.rows, comparison.missing, how)
    if options.publish:
        compare_report.publish(options.out, os.path.join(HERE, "..", "docs", "benchmarks.md"))
    os.remove(os.path.join(options.out, PROGRESS))
    print("== %s in all; everything is in %s" % (duration(time.monotonic() - started), options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
