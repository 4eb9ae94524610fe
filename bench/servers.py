"""The servers under load and the load generators: how each is started, asked what it has used, and stopped."""
import ctypes
import glob
import json
import os
import re
import signal
import socket
import subprocess
import time

START_S = 10
LOW_RATE = 6000  # messages a second: about 5 % of what the echo servers reach
LIFE_S = 7200  # a server whose measurement was killed ends by itself after this

_libc = ctypes.CDLL(None)


def die_with_parent():
    """In the child: SIGTERM should this process go away without having stopped it."""
    _libc.prctl(1, signal.SIGTERM)


class Failure(Exception):
    """A measurement that did not happen, and why."""


class Server:
    """One server program with a number of workers; start() and stop() may be called again and again."""

    def __init__(self, name, workers, log):
        self.name = name
        self.workers = workers
        self.log = log
        self.port = 0
        self.process = None

    def label(self):
        return "%s, %d worker%s" % (self.name, self.workers, "" if self.workers == 1 else "s")

    def command(self):
        raise NotImplementedError

    def environment(self):
        return os.environ.copy()

    def find_port(self):
        """The port from the line that the server prints, or 0."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            found = re.search(r"listening on \S*?:(\d+)", file.read())
        return int(found.group(1)) if found else 0

    def start(self):
        command = self.command()
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment(), start_new_session=True,
                                            preexec_fn=die_with_parent)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            port = self.find_port()
            if port:
                self.port = port
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.stop()
        raise Failure("%s did not start (%s)" % (self.label(), self.log))

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def ensure(self):
        if not self.alive():
            self.start()

    def stop(self):
        if self.process is None:
            return
        for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
        self.process = None

    def pids(self):
        return [self.process.pid]

    def cpu_seconds(self):
        return sum(cpu_seconds_of(pid) for pid in self.pids())


def cpu_seconds_of(pid):
    """CPU time of all threads. The scheduler's figure, in ns: that of /proc/PID/stat counts ticks."""
    total = 0
    for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
        try:
            with open(path, encoding="ascii") as file:
                total += int(file.read().split()[0])
        except OSError:
            pass  # a thread that has just ended
    if total:
        return total / 1e9
    with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class WeftServer(Server):
    """A server linked with weft: workers by environment."""

    def __init__(self, program, arguments, workers, log):
        super().__init__("weft", workers, log)
        self.program = program
        self.arguments = arguments

    def command(self):
        return [self.program, "--port", "0", "--seconds", str(LIFE_S)] + self.arguments

    def environment(self):
        return dict(os.environ, WEFT_WORKERS=str(self.workers))


class EpollServer(Server):
    """A bare epoll server: threads by option."""

    def __init__(self, program, arguments, workers, log):
        super().__init__("epoll", workers, log)
        self.program = program
        self.arguments = arguments

    def command(self):
        return [self.program, "--port", "0", "--seconds", str(LIFE_S), "--threads", str(self.workers)] + self.arguments


NGINX = """
worker_processes %(workers)d;
daemon off;
pid %(directory)s/nginx.pid;
error_log %(directory)s/error.log;
worker_rlimit_nofile 16384;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300;
    client_body_temp_path %(directory)s/body;
    proxy_temp_path %(directory)s/proxy;
    fastcgi_temp_path %(directory)s/fastcgi;
    uwsgi_temp_path %(directory)s/uwsgi;
    scgi_temp_path %(directory)s/scgi;
    server {
        listen 127.0.0.1:%(port)d backlog=1024;
        location = /plaintext { default_type text/plain; return 200 "Hello, World!"; }
    }
}
"""


class NginxServer(Server):
    """nginx with a configuration of its own, that answers /plaintext from memory."""

    def __init__(self, directory, workers, log):
        super().__init__("nginx", workers, log)
        self.directory = os.path.join(directory, "nginx-%d" % workers)

    def command(self):
        os.makedirs(self.directory, exist_ok=True)
        self.port = free_port()
        path = os.path.join(self.directory, "nginx.conf")
        with open(path, "w", encoding="ascii") as file:
            user = "user root;\n" if os.geteuid() == 0 else ""
            file.write(user + NGINX % {"workers": self.workers, "directory": self.directory, "port": self.port})
        return ["nginx", "-p", self.directory, "-c", path, "-e", os.path.join(self.directory, "error.log")]

    def find_port(self):
        with socket.socket() as probe:
            return self.port if probe.connect_ex(("127.0.0.1", self.port)) == 0 else 0

    def pids(self):
        path = "/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)
        with open(path, encoding="ascii") as file:
            return [self.process.pid] + [int(pid) for pid in file.read().split()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Generator:
    """A load generator process. It is `lead` seconds under way, once connected, before its load is steady."""

    def __init__(self, command, environment, seconds, lead, connections):
        self.command = command
        self.environment = environment
        self.seconds = seconds
        self.lead = lead
        self.connections = connections
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=self.environment, preexec_fn=die_with_parent)

    def wait_until_connected(self):
        directory = "/proc/%d/fd" % self.process.pid
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if len(os.listdir(directory)) > self.connections + 3:
                    return
            except OSError:
                return
            time.sleep(0.01)

    def result(self):
        """The last line of JSON that the generator prints."""
        name = os.path.basename(self.command[0])
        try:
            output, errors = self.process.communicate(timeout=self.seconds + 30)
        except subprocess.TimeoutExpired:
            raise Failure("%s did not end" % name) from None
        for line in reversed(output.decode(errors="replace").splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        raise Failure("%s: %s" % (name, errors.decode(errors="replace").strip()[:200]))

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def cpu_rate(server, generator):
    """CPU seconds a second that the server uses while the load is steady: without accepting and closing."""
    generator.wait_until_connected()
    time.sleep(generator.lead)
    start, used = time.monotonic(), server.cpu_seconds()
    time.sleep(0.8 * generator.seconds)
    return (server.cpu_seconds() - used) / (time.monotonic() - start)


def measured(server, make_generator):
    """What the generator reports, with the server's CPU time for each request."""
    server.ensure()
    generator = make_generator(server.port)
    generator.start()
    try:
        rate = cpu_rate(server, generator)
        result = generator.result()
    except OSError as error:
        raise Failure("%s: %s (%s)" % (server.label(), error, server.log)) from error
    finally:
        generator.stop()
    if not server.alive():
        raise Failure("%s ended under load (%s)" % (server.label(), server.log))
    if not result["requests"]:
        raise Failure("%s answered nothing" % server.label())
    requests_s = result["requests"] / result["seconds"]
    return {"server": server.name, "workers": server.workers, "requests_s": requests_s,
            "cpu_us": rate / requests_s * 1e6, "p50_us": result["p50_us"], "p99_us": result["p99_us"],
            "p999_us": result["p999_us"], "max_us": result["max_us"], "errors": result["errors"]}


def wrk(script, connections, seconds, pipeline):
    """Makes generators of HTTP requests."""
    def make(port):
        command = ["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "--timeout", "5s", "-s", script,
                   "http://127.0.0.1:%d/plaintext" % port]
        return Generator(command, dict(os.environ, WRK_PIPELINE=str(pipeline)), seconds, 0.1 * seconds, connections)
    return make


def echo_client(program, connections, seconds, rate=0):
    """Makes generators of echo messages: so many a second, or as fast as they come back."""
    warm_up = 0.2 * seconds

    def make(port):
        command = [program, "--port", str(port), "--connections", str(connections), "--seconds", str(seconds),
                   "--warmup", "%.2f" % warm_up, "--rate", str(rate)]
        return Generator(command, None, seconds, warm_up, connections)
    return make
