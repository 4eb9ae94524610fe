"""From the rows of a comparison to tables (text, CSV, JSON), plots, and a summary; into docs/benchmarks.md if asked.

Called by compare.py; by hand, `compare_report.py DIR` makes everything anew from DIR/raw.json, and
`compare_report.py DIR MORE ...` writes into DIR what was measured there and in the others (parts of one comparison).
"""
import json
import os
import statistics
import sys

import compare_goals
import report

COLUMNS = [
    ("key", "workload", "%s"), ("workers", "workers", "%d"), ("peer", "peer", "%s"), ("median", "median", "%.4g"),
    ("unit", "", "%s"), ("min", "min", "%.4g"), ("max", "max", "%.4g"), ("ratio", "x weft", "%.2f"),
    ("peak_mib", "peak MiB", "%.1f"), ("cpu_s", "CPU s", "%.3f"), ("switches", "switches", "%d"),
    ("rounds", "rounds", "%d"),
]
GOAL_COLUMNS = [
    ("key", "workload", "%s"), ("workers", "workers", "%d"), ("form", "weft as", "%s"), ("weft", "weft", "%.4g"),
    ("unit", "", "%s"), ("goal", "goal", "%s"), ("against", "against", "%s"), ("other", "its value", "%.4g"),
    ("ratio", "ratio", "%.2f"), ("verdict", "met", "%s"),
]
COLORS = {"weft": "#084594", "weft-stackless": "#4292c6", "weft-again": "#9ecae1", "tokio": "#d94801",
          "tokio-mt": "#fd8d3c", "go": "#238b45", "boost": "#6a51a3", "tbb": "#cb181d", "libuv": "#8c6d31",
          "asyncio": "#e7ba52", "uvloop": "#bd9e39", "nginx": "#74c476", "bare": "#636363"}
KEYS_A_PLOT = 5
BEGIN, END = "<!-- results: written by bench/compare.sh --publish -->", "<!-- end of results -->"


def collect(rows, workloads):
    """{(key, workers): {peer: rows}}: by workload, then by metric, then by workers."""
    groups, keys = {}, []
    for row in rows:
        if row["key"] not in keys:
            keys.append(row["key"])
    rows = sorted(rows, key=lambda row: (workloads.index(row["workload"]), keys.index(row["key"]), row["workers"]))
    for row in rows:
        groups.setdefault((row["key"], row["workers"]), {}).setdefault(row["peer"], []).append(row)
    return groups


def with_peaks(rows):
    """A8 also has a goal for memory: a metric of its own."""
    return rows + [dict(row, key="A8.peak", value=row["peak_kib"] / 1024, unit="MiB") for row in rows
                   if row["key"] == "A8"]


def series_of(groups):
    """The rounds' values of each peer, in order."""
    return {group: {peer: [row["value"] for row in of_peer] for peer, of_peer in peers.items()}
            for group, peers in groups.items()}


def medians_of(series):
    return {group: {peer: statistics.median(values) for peer, values in peers.items()}
            for group, peers in series.items()}


def table_rows(groups, series, medians, titles):
    lines = []
    for (key, workers), peers in groups.items():
        own = compare_goals.weft_value(key, workers, medians)
        of_weft = series[(key, workers)][own[0]] if own else None
        for peer in sorted(peers, key=list(titles).index):
            rows = peers[peer]
            values = series[(key, workers)][peer]
            lines.append({
                "key": key, "workers": workers, "peer": peer, "median": medians[(key, workers)][peer],
                "unit": rows[0]["unit"], "min": min(values), "max": max(values), "rounds": len(rows),
                "ratio": compare_goals.paired_ratio(values, of_weft, key) if own else None,
                "peak_mib": max(row["peak_kib"] for row in rows) / 1024,
                "cpu_s": statistics.median(row["cpu_s"] for row in rows),
                "switches": int(statistics.median(row["switches"] for row in rows))})
    return lines


def goal_rows(groups, series, medians):
    lines = []
    for (key, workers), peers in groups.items():
        own = compare_goals.weft_value(key, workers, medians)
        if own is None:
            continue
        unit = next(iter(peers.values()))[0]["unit"]
        base = {"key": key, "workers": workers, "form": own[0], "weft": own[1], "unit": unit}
        verdicts = compare_goals.judge(key, workers, series[(key, workers)], medians)
        for verdict in verdicts:
            met = {True: "yes", False: "NO", None: "not measured"}[verdict["met"]]
            lines.append(dict(base, verdict=met, **{name: verdict[name]
                                                    for name in ("goal", "against", "other", "ratio")}))
        if not verdicts:
            lines.append(dict(base, verdict="", goal="none", against="", other=None, ratio=None))
    return lines


def plots_of_letter(directory, letter, workers, series, medians, titles):
    """Bars: how many times weft's time each peer takes; a plot for every few metrics. The names of the PNGs."""
    ratios = {}
    for key, count in medians:
        values = series[(key, count)]
        own = compare_goals.weft_value(key, count, medians)
        if count == workers and key[0] == letter and own and len(values) > 1:
            ratios[key] = {peer: compare_goals.paired_ratio(others, values[own[0]], key)
                           for peer, others in values.items()}
    keys, names = [key for key in ratios if any(ratios[key].values())], []
    for start in range(0, len(keys), KEYS_A_PLOT):
        part = keys[start:start + KEYS_A_PLOT]
        peers = [peer for peer in titles if any(ratios[key].get(peer) for key in part)]
        names.append(report.category_bars(
            directory, "%s-%d-%d" % (letter, workers, start // KEYS_A_PLOT + 1),
            "%s … %s, %d worker%s: what each takes, in times weft's" % (part[0], part[-1], workers,
                                                                     "" if workers == 1 else "s"),
            "times weft's", ["workload"] + [titles[peer] for peer in peers],
            [[key] + [ratios[key].get(peer) for peer in peers] for key in part],
            [COLORS.get(peer, "#000000") for peer in peers], 1))
    return [name for name in names if name]


def summary(how, goals, table, missing, plots):
    met = sum(1 for row in goals if row["verdict"] == "yes")
    judged = sum(1 for row in goals if row["verdict"] in ("yes", "NO"))
    rounds = "1 round" if how["rounds"] == 1 else "%s rounds" % how["rounds"]
    quick = ", quick (smaller sizes: for a look, not for a claim)" if how["quick"] else ""
    parts = ["%s. %s%s, interleaved; medians, and medians of the rounds' ratios. %d of %d goals met." %
             (how["date"], rounds, quick, met, judged), ""]
    parts += ["| | |", "|---|---|"] + ["| %s | %s |" % (name, text) for name, text in how["machine"] if text] + [""]
    if how["missing_peers"]:
        parts += ["Not there:", ""] + ["- %s: %s" % pair for pair in sorted(how["missing_peers"].items())] + [""]
    parts += ["### Goals", "", report.Table("goals", "", GOAL_COLUMNS, goals).markdown()]
    if missing:
        parts += ["### Not measured", ""]
        parts += ["- %(workload)s, %(workers)d workers, %(peer)s: %(why)s" % entry for entry in missing] + [""]
    for plot in plots:
        parts += ["![%s](%s)" % (plot[:-4], plot), ""]
    parts += ["### All figures", "", report.Table("comparison", "", COLUMNS, table).markdown()]
    return "\n".join(parts)


def write(directory, rows, missing, how):
    with open(os.path.join(directory, "raw.json"), "w", encoding="utf-8") as file:
        json.dump({"rows": rows, "missing": missing, "how": how}, file, indent=1)
    groups = collect(with_peaks(rows), list(how["workloads"]))
    series = series_of(groups)
    medians = medians_of(series)
    table, goals = table_rows(groups, series, medians, how["titles"]), goal_rows(groups, series, medians)
    for name, title, columns, lines in (("comparison", "weft and its peers", COLUMNS, table),
                                        ("goals", "What weft is to reach", GOAL_COLUMNS, goals)):
        report.Table(name, title, columns, lines).write(directory)
    plots = []
    for letter in sorted({key[0] for key, _ in groups}):
        for workers in sorted({workers for key, workers in groups if key[0] == letter}):
            plots += plots_of_letter(directory, letter, workers, series, medians, how["titles"])
    with open(os.path.join(directory, "summary.md"), "w", encoding="utf-8") as file:
        file.write("# weft beside others\n\n" + summary(how, goals, table, missing, plots))
    print("\n" + report.Table("comparison", "", COLUMNS, table).text())
    print(report.Table("goals", "", GOAL_COLUMNS, goals).text())


def publish(directory, path):
    """Puts the summary, without the plots, between the marks of the page."""
    with open(os.path.join(directory, "summary.md"), encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines()[2:] if not line.startswith("![")]
    with open(path, encoding="utf-8") as file:
        page = file.read()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + "\n\n" + "\n".join(lines).strip() + "\n\n" + END + after)


def main():
    parts = []
    for directory in sys.argv[1:]:
        with open(os.path.join(directory, "raw.json"), encoding="utf-8") as file:
            parts.append(json.load(file))
    how = dict(parts[0]["how"])
    how["workloads"] = list(dict.fromkeys(name for part in parts for name in part["how"]["workloads"]))
    how["titles"] = dict(pair for part in reversed(parts) for pair in part["how"]["titles"].items())
    how["rounds"] = " and ".join(dict.fromkeys(str(part["how"]["rounds"]) for part in parts))
    write(sys.argv[1], [row for part in parts for row in part["rows"]],
          [entry for part in parts for entry in part["missing"]], how)


if __name__ == "__main__":
    main()
