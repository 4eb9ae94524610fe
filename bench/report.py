"""From result rows to tables (text, CSV, JSON), plots, and a summary of one page.

Called by measure.py at the end of a run; by hand, `report.py DIR` makes everything anew from DIR/raw.json.
"""
import csv
import json
import os
import statistics
import subprocess
import sys
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))

# ---- tables ----


class Table:
    """Columns: (key, heading, format); rows: dicts. Written as text, CSV and JSON under one name."""

    def __init__(self, name, title, columns, rows):
        self.name = name
        self.title = title
        self.columns = columns
        self.rows = rows

    def cells(self, row):
        return [form % row[key] if row.get(key) is not None else "" for key, _, form in self.columns]

    def text(self):
        lines = [[heading for _, heading, _ in self.columns]] + [self.cells(row) for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        numeric = ["s" not in form for _, _, form in self.columns]
        return "\n".join("  ".join(cell.rjust(width) if right else cell.ljust(width)
                                   for cell, width, right in zip(line, widths, numeric)).rstrip()
                         for line in lines) + "\n"

    def markdown(self, rows=None):
        lines = ["| " + " | ".join(heading for _, heading, _ in self.columns) + " |",
                 "|" + "|".join("---" if "s" in form else "---:" for _, _, form in self.columns) + "|"]
        for row in self.rows if rows is None else rows:
            lines.append("| " + " | ".join(cell.strip() for cell in self.cells(row)) + " |")
        return "\n".join(lines) + "\n"

    def write(self, directory):
        path = os.path.join(directory, self.name)
        with open(path + ".txt", "w", encoding="utf-8") as file:
            file.write(self.title + "\n\n" + self.text())
        keys = [key for key, _, _ in self.columns]
        with open(path + ".csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(keys)
            writer.writerows([row.get(key, "") for key in keys] for row in self.rows)
        with open(path + ".json", "w", encoding="utf-8") as file:
            json.dump(self.rows, file, indent=1)


# ---- servers under load ----

LOAD_COLUMNS = [
    ("connections", "connections", "%d"), ("pipeline", "pipelined", "%d"), ("server", "server", "%s"),
    ("workers", "workers", "%d"), ("requests_s", "requests/s", "%.0f"), ("requests_s_min", "min", "%.0f"),
    ("requests_s_max", "max", "%.0f"), ("cpu_us", "CPU us/request", "%.2f"), ("cpu_ratio", "x epoll", "%.2f"),
    ("p50_ms", "p50 ms", "%.2f"), ("p99_ms", "p99 ms", "%.2f"), ("p999_ms", "p99.9 ms", "%.2f"),
    ("max_ms", "max ms", "%.1f"), ("errors", "errors", "%d"), ("rounds", "rounds", "%d"),
]
SERVER_ORDER = {"weft": 0, "epoll": 1, "nginx": 2}


def load_rows(raw):
    """One row for each combination: medians over the rounds."""
    groups = {}
    for row in raw:
        key = (row["pipeline"], row["connections"], SERVER_ORDER[row["server"]], row["workers"])
        groups.setdefault(key, []).append(row)
    rows = []
    for key in sorted(groups):
        group = groups[key]
        row = {name: group[0][name] for name in ("section", "server", "workers", "connections", "pipeline")}
        for name in ("requests_s", "cpu_us"):
            row[name] = statistics.median(one[name] for one in group)
        for name in ("p50", "p99", "p999", "max"):
            known = [one[name + "_us"] for one in group if one[name + "_us"] is not None]
            row[name + "_ms"] = statistics.median(known) / 1e3 if known else None
        row["requests_s_min"] = min(one["requests_s"] for one in group)
        row["requests_s_max"] = max(one["requests_s"] for one in group)
        row["errors"] = sum(one["errors"] for one in group)
        row["rounds"] = len(group)
        rows.append(row)
    add_ratios(rows)
    return rows


def add_ratios(rows):
    """CPU per request over that of bare epoll with as many workers, or with the most it has."""
    for row in rows:
        bare = [one for one in rows if one["server"] == "epoll" and one["pipeline"] == row["pipeline"] and
                one["connections"] == row["connections"] and one["workers"] <= row["workers"]]
        row["cpu_ratio"] = row["cpu_us"] / max(bare, key=lambda one: one["workers"])["cpu_us"] if bare else None


# ---- scaling and micro ----

JOB_COLUMNS = [
    ("kind", "work", "%s"), ("tasks", "tasks", "%d"), ("each_ms", "ms each", "%d"), ("workers", "workers", "%d"),
    ("ms", "took ms", "%.1f"), ("speedup", "speedup", "%.2f"), ("efficiency", "efficiency", "%.2f"),
]
MIX_COLUMNS = [
    ("load", "every worker also computes", "%s"), ("workers", "workers", "%d"),
    ("requests_s", "requests/s", "%.0f"), ("p50_us", "p50 us", "%.0f"), ("p99_us", "p99 us", "%.0f"),
    ("p999_us", "p99.9 us", "%.0f"),
    ("max_us", "max us", "%.0f"),
]
MICRO_COLUMNS = [
    ("id", "id", "%s"), ("title", "workload", "%s"), ("workers", "workers", "%d"), ("median", "median", "%.4g"),
    ("min", "min", "%.4g"), ("max", "max", "%.4g"), ("unit", "unit", "%s"), ("goal_text", "goal", "%s"),
    ("repeats", "repeats", "%d"), ("cpu_s", "CPU s", "%.3f"), ("voluntary", "vol. switches", "%d"),
    ("involuntary", "inv. switches", "%d"), ("peak_mb", "peak MB", "%.1f"),
]


def micro_rows(raw):
    rows = []
    for row in raw:
        row = dict(row)
        row["met"] = row["median"] <= row["goal"] if row["goal"] else None
        row["goal_text"] = "%s %.4g" % ("met" if row["met"] else "NOT", row["goal"]) if row["goal"] else ""
        rows.append(row)
    return rows


def contrast_table(rows):
    """One line a kind of work: took on 1 worker, took on N."""
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        same = [row for row in rows if row["kind"] == kind]
        first, last = same[0], same[-1]
        lines.append({"kind": kind, "one_by_one": first["tasks"] * first["each_ms"], "first": first["ms"],
                      "last": last["ms"], "speedup": first["ms"] / last["ms"],
                      "overlap": first["tasks"] * first["each_ms"] / first["ms"]})
    most = max((row["workers"] for row in rows), default=1)
    columns = [("kind", "three tasks", "%s"), ("one_by_one", "one after another, ms", "%d"),
               ("first", "1 worker, ms", "%.0f"), ("last", "%d workers, ms" % most, "%.0f"),
               ("overlap", "overlap on 1 worker", "%.1f"), ("speedup", "speedup by workers", "%.2f")]
    return Table("contrast", "Concurrency and parallelism: three tasks of each kind", columns, lines)


def micro_summary(rows):
    """One line a metric, a column a worker count."""
    counts = sorted({row["workers"] for row in rows})
    lines = []
    for key in dict.fromkeys((row["id"], row["title"], row["unit"]) for row in rows):
        line = {"id": key[0], "title": key[1], "unit": key[2]}
        for row in rows:
            if (row["id"], row["title"], row["unit"]) == key:
                mark = {True: " (goal %.4g)", False: " (**goal %.4g**)", None: ""}[row["met"]]
                line["w%d" % row["workers"]] = "%.4g" % row["median"] + (mark % row["goal"] if row["goal"] else "")
        lines.append(line)
    columns = [("id", "id", "%s"), ("title", "workload", "%s"), ("unit", "unit", "%s")]
    columns += [("w%d" % count, "%d worker%s" % (count, "" if count == 1 else "s"), "%s") for count in counts]
    return Table("micro-summary", "Micro workloads", columns, lines)


# ---- plots ----


def gnuplot(directory, template, name, **variables):
    """Run a template of plot/ once for each format. Returns the PNG's name, or None if it did not work."""
    for form in ("svg", "png"):
        settings = dict(variables, form=form, style=os.path.join(HERE, "plot", "style.gp"),
                        out=os.path.join(directory, name + "." + form))
        assignments = "; ".join("%s=%s" % (key, value if isinstance(value, (int, float)) else json.dumps(
            str(value), ensure_ascii=False)) for key, value in settings.items())
        try:
            result = subprocess.run(["gnuplot", "-e", assignments, os.path.join(HERE, "plot", template + ".gp")],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            print("plot %s: %s" % (name, error), file=sys.stderr)
            return None
        if result.returncode != 0:
            print("plot %s: %s" % (name, result.stdout.decode(errors="replace")), file=sys.stderr)
            return None
    return name + ".png"


def write_data(directory, name, header, lines):
    path = os.path.join(directory, "data", name + ".dat")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for line in [header] + lines:
            file.write("\t".join("NaN" if cell is None else '"%s"' % cell if isinstance(cell, str) else "%g" % cell
                                 for cell in line) + "\n")
    return path


COLORS = {"weft": ["#9ecae1", "#4292c6", "#084594", "#041f4a", "#6a51a3", "#3f007d"],
          "epoll": ["#bdbdbd", "#636363"], "nginx": ["#a1d99b", "#238b45"]}


def series_of(rows):
    """(server, workers) in the order to draw, with a colour each: one hue a program, darker with more workers."""
    keys = sorted({(SERVER_ORDER[row["server"]], row["workers"], row["server"]) for row in rows})
    used, series = {}, []
    for _, workers, server in keys:
        index = used[server] = used.get(server, -1) + 1
        series.append((server, workers, COLORS[server][min(index, len(COLORS[server]) - 1)]))
    return series


def bars(directory, name, title, ylabel, rows, value, scale=1.0, log=0):
    """Groups by number of connections, a bar a server."""
    series = series_of(rows)
    connections = sorted({row["connections"] for row in rows})
    values = {(row["connections"], row["server"], row["workers"]): row[value] * scale for row in rows}
    lines = [[str(count)] + [values.get((count, server, workers)) for server, workers, _ in series]
             for count in connections]
    header = ["connections"] + ["%s, %d worker%s" % (server, workers, "" if workers == 1 else "s")
                                for server, workers, _ in series]
    path = write_data(directory, name, header, lines)
    return gnuplot(directory, "bars", name, data=path, title=title, ylabel=ylabel, xlabel="connections",
                   groups=len(lines), series=len(series), logscale=log,
                   colors=" ".join(color for _, _, color in series))


def load_plots(directory, section, title, rows):
    """Throughput, CPU and latency over connections; throughput over workers."""
    plain = [row for row in rows if row["pipeline"] == 1]
    if not plain:
        return []
    names = [bars(directory, section + "-throughput", title + ": throughput", "thousand requests/s", plain,
                  "requests_s", 1e-3),
             bars(directory, section + "-cpu", title + ": server CPU per request", "microseconds", plain, "cpu_us"),
             bars(directory, section + "-p99", title + ": 99th percentile of latency", "milliseconds (log)", plain,
                  "p99_ms", 1.0, 1)]
    names.append(workers_plot(directory, section, title, plain))
    return names


def workers_plot(directory, section, title, rows):
    weft = [row for row in rows if row["server"] == "weft"]
    workers = sorted({row["workers"] for row in weft})
    connections = sorted({row["connections"] for row in weft})
    if len(workers) < 2:
        return None
    values = {(row["workers"], row["connections"]): row["requests_s"] / 1e3 for row in weft}
    lines = [[count] + [values.get((count, number)) for number in connections] for count in workers]
    header = ["workers"] + ["%d connection%s" % (number, "" if number == 1 else "s") for number in connections]
    path = write_data(directory, section + "-workers", header, lines)
    return gnuplot(directory, "lines", section + "-workers", data=path, title=title + ": weft over its workers",
                   xlabel="workers (WEFT_WORKERS)", ylabel="thousand requests/s", series=len(connections), ideal=0)


def sweep_plot(directory, rows):
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    workers = sorted({row["workers"] for row in rows})
    if len(workers) < 2:
        return None
    values = {(row["workers"], row["kind"]): row["speedup"] for row in rows}
    path = write_data(directory, "scaling", ["workers"] + kinds,
                      [[count] + [values.get((count, kind)) for kind in kinds] for count in workers])
    return gnuplot(directory, "lines", "scaling", data=path, title="What more workers do",
                   xlabel="workers (WEFT_WORKERS)", ylabel="speedup over 1 worker", series=len(kinds),
                   ideal=len(os.sched_getaffinity(0)))


def category_bars(directory, name, title, ylabel, header, lines, colors, log=0):
    path = write_data(directory, name, header, lines)
    return gnuplot(directory, "bars", name, data=path, title=title, ylabel=ylabel, xlabel="",
                   groups=len(lines), series=len(header) - 1, colors=" ".join(colors), logscale=log)


def wrapped(text, width):
    """In lines, as gnuplot breaks them."""
    return "\\n".join(textwrap.wrap(text, width))


def contrast_plot(directory, table):
    if not table.rows:
        return None
    header = ["kind"] + [heading for key, heading, _ in table.columns if key in ("one_by_one", "first", "last")]
    header = [heading.replace(", ms", "") for heading in header]
    lines = [[wrapped(row["kind"], 12), row["one_by_one"], row["first"], row["last"]] for row in table.rows]
    return category_bars(directory, "contrast", table.title, "milliseconds", header, lines,
                         ["#d9d9d9", "#9ecae1", "#084594"])


def mixed_plot(directory, rows):
    if not rows:
        return None
    values = {(row["load"], row["workers"]): row for row in rows}
    workers = sorted({row["workers"] for row in rows})
    header = ["load"] + ["%s, %d worker%s" % (name, count, "" if count == 1 else "s")
                         for name in ("p50", "p99") for count in workers]
    lines = [[wrapped(load, 14)] + [values[load, count][key] / 1e3 if (load, count) in values else None
                                    for key in ("p50_us", "p99_us") for count in workers]
             for load in dict.fromkeys(row["load"] for row in rows)]
    colors = ["#9ecae1", "#084594"][-len(workers):] + ["#fdae6b", "#d94801"][-len(workers):]
    return category_bars(directory, "mixed", "Echo latency while every worker also computes", "milliseconds (log)",
                         header, lines, colors, 1)


# ---- the summary ----


def section_text(heading, *parts):
    return "## %s\n\n%s\n" % (heading, "\n".join(part for part in parts if part))


def load_summary(heading, rows, connections, pipeline=1):
    chosen = [row for row in rows if row["connections"] in connections and row["pipeline"] == pipeline]
    if not chosen:
        return ""
    keep = ("connections", "server", "workers", "requests_s", "cpu_us", "cpu_ratio", "p50_ms", "p99_ms", "p999_ms")
    columns = [column for column in LOAD_COLUMNS if column[0] in keep]
    errors = sum(row["errors"] for row in chosen)
    note = "%d errors: see the table.\n" % errors if errors else ""
    return section_text(heading, Table("", "", columns, chosen).markdown(), note)


def summary(results, missing, how):
    goals = [row for row in results["micro"] if row["met"] is not None]
    met = sum(row["met"] for row in goals)
    lines = ["# weft: measurements\n",
             "%s run; servers: medians of %d interleaved rounds of %d s; others: medians. x epoll: CPU per "
             "request over that of the bare epoll server with as many workers (or the most it was given).\n" % (
                 "Quick" if how["quick"] else "Full", how["rounds"], how["seconds"]),
             "\n".join("- %s: %s" % tuple(pair) for pair in how["machine"]) + "\n",
             load_summary("HTTP, one request at a time", results["http"], (64, 256)),
             load_summary("HTTP, pipelined 16", results["http"], (64,), 16),
             load_summary("Echo, 64 bytes", results["echo"], (64, 1000)),
             load_summary("Echo while tasks on every worker compute 1 ms ten times a second", results["stalls"],
                          (1000,)),
             load_summary("Echo at about 5 % load", results["low"], (64,))]
    if results["contrast"].rows:
        lines.append(section_text("Concurrency, parallelism, blocking", results["contrast"].markdown(),
                                  "Waits overlap on one worker; computing gets faster only with workers; "
                                  "blocking is neither, and belongs in the pool.\n"))
    if results["mixed"]:
        lines.append(section_text("Echo while every worker also computes",
                                  Table("", "", MIX_COLUMNS, results["mixed"]).markdown()))
    if goals or results["micro"]:
        lines.append(section_text("Micro workloads",
                                  "%d of %d goals met; **bold** ones are not.\n" % (met, len(goals)),
                                  micro_summary(results["micro"]).markdown()))
    if missing:
        lines.append(section_text("Not measured", "\n".join("- %s: %s" % (entry["what"], entry["why"])
                                                            for entry in missing)))
    return "\n".join(line for line in lines if line)


def write(directory, raw, missing, how):
    with open(os.path.join(directory, "raw.json"), "w", encoding="utf-8") as file:
        json.dump({"how": how, "rows": raw, "missing": missing}, file, indent=1)

    def section(name, part=None):
        return [row for row in raw if row["section"] == name and (part is None or row.get("part") == part)]

    results = {"http": load_rows(section("http")), "echo": load_rows(section("echo")),
               "stalls": load_rows(section("stalls")), "low": load_rows(section("low")),
               "contrast": contrast_table(section("scaling", "contrast")), "mixed": section("scaling", "mixed"),
               "micro": micro_rows(section("micro"))}
    sweep = section("scaling", "sweep")
    tables = [Table("http", "HTTP /plaintext under wrk; medians over the rounds", LOAD_COLUMNS, results["http"]),
              Table("echo", "Echo of 64 bytes, closed loop; medians over the rounds", LOAD_COLUMNS,
                    results["echo"]),
              Table("stalls", "Echo while tasks on every worker compute 1 ms ten times a second", LOAD_COLUMNS,
                    results["stalls"]),
              Table("low", "Echo at about 5 % load", LOAD_COLUMNS, results["low"]),
              results["contrast"],
              Table("scaling", "The same work over the number of workers", JOB_COLUMNS, sweep),
              Table("mixed", "Echo latency while every worker also computes", MIX_COLUMNS, results["mixed"]),
              Table("micro", "Micro workloads", MICRO_COLUMNS, results["micro"])]
    for table in tables:
        if table.rows:
            table.write(directory)
    plots = load_plots(directory, "http", "HTTP /plaintext", results["http"])
    plots += load_plots(directory, "echo", "Echo, 64 bytes", results["echo"])
    plots += [sweep_plot(directory, sweep), contrast_plot(directory, results["contrast"]),
              mixed_plot(directory, results["mixed"])]
    text = summary(results, missing, how)
    shown = [name for name in plots if name]
    if shown:
        text += "\n## Plots\n\n" + "\n".join("![%s](%s)" % (name[:-4], name) for name in shown) + "\n"
    for form in ("md", "txt"):
        with open(os.path.join(directory, "summary." + form), "w", encoding="utf-8") as file:
            file.write(text)
    print("\n" + text)


def main():
    directory = sys.argv[1]
    with open(os.path.join(directory, "raw.json"), encoding="utf-8") as file:
        saved = json.load(file)
    write(directory, saved["rows"], saved["missing"], saved["how"])


if __name__ == "__main__":
    main()
