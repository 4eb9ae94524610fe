"""Measures weft: plans the steps, runs them with progress shown, and hands the results to report.py.

Called by run.sh. One thread; every server it starts is stopped on the way out, whatever the way is.
"""
import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import machine
import report
import servers

HERE = os.path.dirname(os.path.abspath(__file__))
SECTIONS = ("http", "echo", "stalls", "low", "scaling", "micro")
QUICK_S = 110  # with --quick nothing goes on after this; what remains of two minutes is for the plots
OUT_OF_TIME = "out of time"

# Seconds that bench_micro takes for a workload, all its repeats and both worker counts: the estimate of the
# time that is left starts from these; the others take about two, or half a second.
MICRO_SECONDS = {"A12": 40, "A13": 55, "A14": 8, "A17": 48, "B1.touch": 15, "B1.park": 100, "B4.again": 30,
                 "B4.epoll": 15, "B4.stack": 80, "D1.crowd": 32, "D1.s": 32, "D1.few": 32, "D3": 5, "D4": 8}
MICRO_SECONDS_QUICK = {"A12": 1.2, "A13": 3, "A14": 2, "A17": 2, "B1.park": 6, "B4.again": 3, "B4.epoll": 3,
                       "B4.stack": 3, "D1.crowd": 4, "D1.s": 4, "D1.few": 4, "D3": 3}


class Step:
    """One thing to do: a label for the progress line, an estimate of its length, and the doing, which returns a
    list of result rows."""

    def __init__(self, section, label, seconds, run):
        self.section = section
        self.label = label
        self.seconds = seconds
        self.run = run


class Plan:
    """What to measure, from the options."""

    def __init__(self, options, scratch):
        self.options = options
        self.scratch = scratch
        self.cores = len(os.sched_getaffinity(0))
        self.seconds = options.seconds or (1 if options.quick else 3)
        self.servers = []
        self.start = time.monotonic()

    def program(self, name):
        return os.path.join(self.options.build, name)

    def log(self, *words):
        return os.path.join(self.options.out, "logs", "-".join(str(word) for word in words) + ".log")

    def worker_counts(self):
        if self.options.workers:
            return self.options.workers
        counts = [1]
        while counts[-1] * 2 < self.cores and not self.options.quick:
            counts.append(counts[-1] * 2)
        return sorted({*counts, self.cores, 4 * self.cores})

    def few_counts(self):
        """For what weft is measured beside."""
        return [1] if self.options.quick else sorted({1, self.cores})

    def add(self, server):
        self.servers.append(server)
        return server

    # -- (a) servers under load

    def http_servers(self):
        program = self.program("examples/httpd")
        arguments = ["--quiet", "--keepalive-timeout", "600"]
        every = [self.add(servers.WeftServer(program, arguments, count, self.log("http-weft", count)))
                 for count in self.worker_counts()]
        program = self.program("bench/bench_epoll_server")
        if os.path.exists(program):
            every += [self.add(servers.EpollServer(program, [], count, self.log("http-epoll", count)))
                      for count in self.few_counts()]
        if shutil.which("nginx"):
            every += [self.add(servers.NginxServer(self.scratch, count, self.log("http-nginx", count)))
                      for count in self.few_counts()]
        return every

    def http(self):
        script = os.path.join(HERE, "wrk.lua")
        every = self.http_servers()
        steps = []
        for connections in (64, 256) if self.options.quick else (1, 64, 256, 1000):
            steps += self.load_steps("http", every, connections, 1,
                                     servers.wrk(script, connections, self.seconds, 1))
        if self.options.quick:
            every = [server for server in every if server.workers <= self.cores and server.name != "nginx"]
        steps += self.load_steps("http", every, 64, 16, servers.wrk(script, 64, self.seconds, 16))
        return steps

    def echo_servers(self, section, arguments):
        counts = [count for count in self.worker_counts() if count <= self.cores or not self.options.quick]
        every = [self.add(servers.WeftServer(self.program("bench/bench_echo_server"), arguments, count,
                                             self.log(section + "-weft", count))) for count in counts]
        return every + [self.add(servers.EpollServer(self.program("bench/bench_epoll_echo"), arguments, count,
                                                     self.log(section + "-epoll", count)))
                        for count in self.few_counts()]

    def echo_steps(self, section, every, connections, rate=0):
        client = self.program("bench/bench_echo_client")
        return self.load_steps(section, every, connections, 1,
                               servers.echo_client(client, connections, self.seconds, rate))

    def echo(self):
        every = self.echo_servers("echo", [])
        steps = []
        for connections in (64, 1000) if self.options.quick else (1, 64, 1000, 10000):
            steps += self.echo_steps("echo", every, connections)
        return steps

    def stalls(self):
        return self.echo_steps("stalls", self.echo_servers("stalls", ["--stalls"]), 1000)

    def low(self):
        return self.echo_steps("low", self.echo_servers("low", []), 64, servers.LOW_RATE)

    def load_steps(self, section, every, connections, pipeline, make_generator):
        """A B C A B C: whatever else the machine does meets all of them."""
        steps = []
        length = (1.05 if section == "http" else 1.25) * self.seconds + 0.05
        for number in range(self.options.rounds):
            for server in every:
                label = "%s, %d connection%s%s, %s, round %d" % (
                    section, connections, "" if connections == 1 else "s",
                    ", pipelined %d" % pipeline if pipeline > 1 else "", server.label(), number + 1)
                steps.append(Step(section, label, length, self.load(
                    section, server, connections, pipeline, number, make_generator)))
        return steps

    @staticmethod
    def load(section, server, connections, pipeline, number, make_generator):
        def run():
            row = servers.measured(server, make_generator)
            row.update(section=section, connections=connections, pipeline=pipeline, round=number)
            return [row]
        return run

    # -- (b) and (c): programs that measure by themselves

    def scaling(self):
        program = self.program("bench/bench_scaling")
        lengths = {"contrast": (20, 3), "sweep": (40, 4), "mixed": (26, 9)}
        steps = []
        for part, (full, quick) in lengths.items():
            command = [program, "--json", "--only", part] + (["--quick"] if self.options.quick else [])
            steps.append(Step("scaling", "scaling: " + part, quick if self.options.quick else full,
                              self.lines_of("scaling", command)))
        return steps

    def micro(self):
        program = self.program("bench/bench_micro")
        lengths = MICRO_SECONDS_QUICK if self.options.quick else MICRO_SECONDS
        listed = subprocess.run([program, "--list"], stdout=subprocess.PIPE, check=True, timeout=30).stdout.decode()
        steps = []
        for line in listed.splitlines():
            name, title = line.split(None, 1)
            command = [program, "--json", "--only", name] + (["--quick"] if self.options.quick else [])
            steps.append(Step("micro", "micro %s: %s" % (name, title),
                              lengths.get(name, 0.5 if self.options.quick else 2), self.lines_of("micro", command)))
        if self.options.quick:  # so that the fewest are left out if time runs out
            steps.sort(key=lambda step: step.seconds)
        return steps

    def seconds_left(self):
        return max(QUICK_S - (time.monotonic() - self.start), 1) if self.options.quick else 1200

    def lines_of(self, section, command):
        """The JSON objects that a program prints, one a line; those that it got to, if the time is over."""
        def run():
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, preexec_fn=servers.die_with_parent)
            late = False
            try:
                output, errors = process.communicate(timeout=self.seconds_left())
            except subprocess.TimeoutExpired:
                late = True
                process.kill()
                output, errors = process.communicate()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            rows = [dict(json.loads(line), section=section) for line in output.decode().splitlines()
                    if line.startswith("{")]
            if late:
                rows.append({"section": section, "error": OUT_OF_TIME})
            elif process.returncode != 0 and not any("error" in row for row in rows):
                why = errors.decode(errors="replace").strip()[:200] or how_it_ended(process.returncode)
                rows.append({"section": section, "error": why})
            return rows
        return run

    def steps(self):
        steps = []
        for section in SECTIONS:
            if section in self.options.only:
                steps += getattr(self, section)()
        return steps


def how_it_ended(status):
    return "ended by %s" % signal.Signals(-status).name if status < 0 else "ended with status %d" % status


class Progress:
    """The line that says what runs, and the estimate: what the plan says, corrected by how right it has been."""

    def __init__(self, steps):
        self.total = len(steps)
        self.planned = sum(step.seconds for step in steps)
        self.done_planned = 0.0
        self.start = time.monotonic()

    def elapsed(self):
        return time.monotonic() - self.start

    def left(self):
        factor = self.elapsed() / self.done_planned if self.done_planned > 10 else 1.0
        return (self.planned - self.done_planned) * factor

    def before(self, number, step):
        left = self.left()
        print("[%*d/%d] %-64s %s left" % (len(str(self.total)), number, self.total, step.label, duration(left)),
              end="", flush=True)

    def after(self, step, outcome):
        self.done_planned += step.seconds
        print("   " + outcome, flush=True)


def duration(seconds):
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return "%2d min %02d s" % (minutes, seconds) if minutes else "%9d s" % seconds


def outcome_of(rows):
    """A few words on what a step brought."""
    failed = [row for row in rows if "error" in row]
    if failed:
        return "FAILED: " + failed[0]["error"]
    row = rows[-1] if rows else {}
    if "cpu_us" in row:
        text = "%8.0f requests/s, %5.2f us of CPU each" % (row["requests_s"], row["cpu_us"])
        return text + (", %d errors" % row["errors"] if row["errors"] else "")
    if "median" in row:
        return ", ".join("%.4g %s" % (row["median"], row["unit"]) for row in rows[:4])
    return "done"


def at_workers(row):
    return ", WEFT_WORKERS=%d" % row["workers"] if "workers" in row else ""


def run_steps(steps, options):
    """All rows, and a list of what was not measured and why."""
    rows, missing = [], []
    progress = Progress(steps)
    for number, step in enumerate(steps, 1):
        if options.quick and progress.elapsed() > QUICK_S:
            missing.append({"section": step.section, "what": step.label, "why": OUT_OF_TIME})
            continue
        progress.before(number, step)
        try:
            new = step.run()
        except (servers.Failure, OSError, ValueError) as error:
            missing.append({"section": step.section, "what": step.label, "why": str(error)})
            progress.after(step, "FAILED: %s" % error)
            continue
        missing += [{"section": step.section, "what": step.label + at_workers(row), "why": row["error"]}
                    for row in new if "error" in row]
        rows += [row for row in new if "error" not in row]
        progress.after(step, outcome_of(new))
    return rows, missing


def parse_options():
    parser = argparse.ArgumentParser(description="Measure weft; bench/run.sh builds it first.")
    parser.add_argument("--build", default="build/bench-release")
    parser.add_argument("--out", default="")
    parser.add_argument("--only", default=",".join(SECTIONS), type=lambda text: text.split(","))
    parser.add_argument("--workers", type=lambda text: [int(count) for count in text.split(",")])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    unknown = set(options.only) - set(SECTIONS)
    if unknown:
        parser.error("--only: %s is none of %s" % (", ".join(sorted(unknown)), ", ".join(SECTIONS)))
    if options.rounds < 1 or (options.seconds is not None and options.seconds < 1):
        parser.error("--rounds and --seconds are at least 1")
    if options.workers and not all(1 <= count <= 1024 for count in options.workers):
        parser.error("--workers: from 1 to 1024")
    options.build = os.path.abspath(options.build)
    options.out = options.out or os.path.join("out", datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S"))
    return options


def leave(number, _frame):
    """A signal unwinds the stack, and so stops the servers."""
    sys.exit(128 + number)


def main():
    options = parse_options()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)
    os.makedirs(os.path.join(options.out, "logs"), exist_ok=True)
    started = time.monotonic()
    how = {"machine": machine.describe(options.build), "quick": options.quick, "rounds": options.rounds}
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as scratch:
        plan = Plan(options, scratch)
        try:
            steps = plan.steps()
            print("== %d steps, about %s; results in %s" % (
                len(steps), duration(sum(step.seconds for step in steps)).strip(), options.out), flush=True)
            rows, missing = run_steps(steps, options)
        finally:
            for server in plan.servers:
                server.stop()
    print("== tables and plots", flush=True)
    report.write(options.out, rows, missing, dict(how, seconds=plan.seconds))
    print("== %s in all; everything is in %s" % (duration(time.monotonic() - started).strip(), options.out))
    return 1 if any(entry["why"] != OUT_OF_TIME for entry in missing) else 0


if __name__ == "__main__":
    sys.exit(main())
