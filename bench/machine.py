"""What the figures were measured on: as much as /proc, /sys and the tools say."""
import os
import platform
import subprocess


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def first_line(*command):
    """The first line that a command prints, or "" if there is no such command or it says that it cannot."""
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = result.stdout.decode(errors="replace").splitlines()
    failed = lines and ("fatal:" in lines[0] or lines[0].startswith("Traceback"))
    return lines[0].strip() if lines and not failed else ""


def cpu_model():
    for line in read("/proc/cpuinfo").splitlines():
        if line.lower().startswith(("model name", "cpu model", "hardware")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_gib():
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 1024 / 1024, 1)
    return 0


def distribution():
    for line in read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.split("=", 1)[1].strip('"')
    return ""


def virtualization():
    name = first_line("systemd-detect-virt", "--vm")
    if name and " " not in name:
        return name
    return "yes" if " hypervisor" in read("/proc/cpuinfo") else "unknown"


def cache_value(build, key):
    """A value from CMake's cache of the build that is measured."""
    for line in read(os.path.join(build, "CMakeCache.txt")).splitlines():
        if line.startswith(key + ":"):
            return line.split("=", 1)[1]
    return ""


def flags(build):
    kind = cache_value(build, "CMAKE_BUILD_TYPE")
    words = [kind, cache_value(build, "CMAKE_C_FLAGS"), cache_value(build, "CMAKE_C_FLAGS_" + kind.upper())]
    return " ".join(word for word in words if word)


def describe(build):
    """Pairs of a name and a text, in the order to print them."""
    pairs = [
        ("processor", "%s, %s" % (cpu_model(), platform.machine())),
        ("cores usable", str(len(os.sched_getaffinity(0)))),
        ("memory", "%s GiB" % memory_gib()),
        ("virtual machine", virtualization()),
        ("governor", read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not known"),
        ("kernel", "%s %s" % (platform.system(), platform.release())),
        ("system", distribution()),
        ("C library", " ".join(platform.libc_ver())),
        ("compiler", first_line(cache_value(build, "CMAKE_C_COMPILER") or "cc", "--version")),
        ("flags", flags(build)),
        ("weft", first_line("git", "describe", "--always", "--dirty") or "not from a repository"),
        ("wrk", " ".join(first_line("wrk", "-v").split()[:2])),
        ("nginx", first_line("nginx", "-v").rpartition(" ")[2] or "not installed"),
        ("gnuplot", first_line("gnuplot", "--version")),
        ("load before", read("/proc/loadavg")),
        ("open files", first_line("sh", "-c", "ulimit -n")),
        ("vm.max_map_count", read("/proc/sys/vm/max_map_count")),
    ]
    changed = sorted(name + "=" + value for name, value in os.environ.items() if name.startswith("WEFT_"))
    if changed:
        pairs.append(("environment", " ".join(changed)))
    return pairs
