"""What weft must reach in each workload, and whether it did: a ratio to peers in the same run, or a limit of its own.

A goal is (against, one, more): `one` holds for one worker, `more` for several. `against` names whose value the factor
is of: a peer, "best" (of all peers), "M:N" (of the runtimes that run many tasks on some threads), "anyone" (bare programs
too, and with one worker), "limit" (an absolute value), "bare alone" (the bare program with one thread), another of
weft's own metrics ("own KEY"), or weft itself with "one worker". Bare programs are limits, and no peers, but where they
are named.
"""

import statistics

TASK_RUNTIMES = ("tokio", "tokio-mt", "go", "boost")
BARE = "bare"
TASK_A_CONNECTION = ("weft", "weft-stackless")

GOALS = {
    "A1": [("limit", 8, 8), ("best", 1, 1)], "A2": [("best", 0.7, 0.5)],
    "A3": [("best", 0.7, 0.7), ("one worker", None, 1)],
    "A4": [("limit", 15, None), ("best", 0.5, 0.5)], "A5": [("M:N", 0.4, 0.4)], "A6": [("best", 0.5, 0.5)],
    "A7": [("best", 0.4, 0.4)], "A8": [("tbb", 0.25, 0.25)], "A8.peak": [("limit", 10, 10)],
    "A8.yield": [("tokio", 0.5, 0.5)], "A8.chan": [("tokio", 0.5, 0.5)], "A9": [("tbb", 0.2, 0.2)],
    "A10.queens": [("tbb", 1, 1)], "A10.matmul": [("tbb", 1, 1)], "A11.1": [("tokio", 0.3, 0.3)],
    "A11.2": [("tokio", 0.3, 0.3)], "A11.4": [("tokio", 0.3, 0.3)],
    "A11.8": [("tokio", 0.3, 0.3), ("own A11.1", 1.5, 1.5)], "A12.p50": [("best", 1, 1)], "A12.p99": [("best", 1, 1)],
    "A13.cpu": [("limit", 0.3, 0.3)], "A13.switches": [("limit", 5, 5)], "B1.bytes": [("limit", 4400, 4400)],
    "B1.spawn": [("own B1.touch", 1.3, 1.3)],
    "B2.bytes": [("limit", 160, 160)], "B2.spawn": [("tokio", 0.7, 0.7)], "B2.end": [("tokio", 0.7, 0.7)],
    "B2s.bytes": [("limit", 200, 200)], "B2s.cpu": [("limit", 1, 1)], "B3": [("limit", 5, 5)],
    "B4.bytes": [("limit", 400, 400)], "C1": [("M:N", 0.4, 0.4)], "C2": [("best", 0.6, 0.8)],
    "C3": [("best", 1, 1)], "C4": [("go", 1, 0.8)], "C5.buffered": [("go", 0.6, 0.6)],
    "C5.meeting": [("go", 0.6, 0.6)], "C6.next": [("limit", 8, 8)],
    "C6.send": [("limit", 8, 8)], "C6.task": [("limit", 8, 8)], "D1.over": [("M:N", 0.7, 0.7)],
    "D1.cpu": [("M:N", 0.7, 0.7)], "D1.p99": [("limit", 0.2, 0.2)], "D2": [("tokio", 0.5, 0.5)],
    "D3.p50": [("limit", 60, 60)], "D4": [("best", 0.5, 0.5)], "D5": [("limit", 415, 415)],
    "D6.16": [("own D6.1", 1.3, 1.3)],
    "E1.1.cpu": [(BARE, 1.05, 1.05)], "E1.64.cpu": [(BARE, 1.05, 1.05)], "E1.1000.cpu": [(BARE, 1.05, 1.05)],
    "E1.10000.cpu": [(BARE, 1.05, 1.05)], "E1.64.rate": [("anyone", 1, 1)], "E1.1000.rate": [("anyone", 1, 1)],
    "E1.1000.p99": [(BARE, 1.2, 1.2)], "E2.64.cpu": [(BARE, 1.08, 1.08), ("tokio", 1, 1), ("nginx", 1, 1)],
    "E2.256.cpu": [(BARE, 1.08, 1.08), ("tokio", 1, 1), ("nginx", 1, 1)],
    "E2.64.rate": [("tokio", 1, 1), ("nginx", 1, 1)], "E2.256.rate": [("tokio", 1, 1), ("nginx", 1, 1)],
    "E3.rate": [(BARE, 1, 1)], "E3.p999": [(BARE, 1, 1), ("go", 1, 1), ("tokio", 1, 1)],
    "E4.p99": [("limit", None, 5)], "E5.cpu": [("bare alone", 1.1, 1.1)],
}


def more_is_better(key):
    return key.endswith(".rate")


def best_of(values, key):
    """(name, value) of the best of a dict, or None."""
    if not values:
        return None
    name = (max if more_is_better(key) else min)(values, key=values.get)
    return name, values[name]


def weft_value(key, workers, all_values):
    """The better of weft's forms: (name, value), or None. Of servers, the one task a connection, with a stack or
    without, that takes less CPU: one form has to reach all goals."""
    values = all_values.get((key, workers), {})
    forms = {name: value for name, value in values.items() if name.startswith("weft")}
    if not key.startswith("E"):
        return best_of(forms, key)
    cpu = key.rpartition(".")[0] + ".cpu"
    taken = all_values.get((cpu, workers), {})
    form = best_of({name: taken[name] for name in TASK_A_CONNECTION if name in taken}, cpu)
    return (form[0], values[form[0]]) if form and form[0] in values else None


def ratio(value, other, key):
    """How many times as much as the other it takes; for rates, of what the other manages the inverse."""
    if not other or not value or other < 0 or value < 0:
        return None
    return other / value if more_is_better(key) else value / other


def paired_ratio(series, others, key):
    """Of two that were measured in turn: the median of the rounds' ratios, since a machine that is slow for a while is
    so for both. Of the medians where a round is missing."""
    ratios = [ratio(value, other, key) for value, other in zip(series, others)]
    if len(series) != len(others) or None in ratios:
        return ratio(statistics.median(series), statistics.median(others), key)
    return statistics.median(ratios)


def judge(key, workers, series, all_values):
    """Verdicts on weft in one metric: dicts of goal, against, other, ratio, met (None if it cannot be said).

    series: the rounds' values by peer at this count of workers; all_values: {(key, workers): medians by peer}.
    """
    own = weft_value(key, workers, all_values)
    if own is None:
        return []
    ratios = {name: paired_ratio(series[own[0]], others, key) for name, others in series.items()}
    verdicts = []
    for against, one, more in GOALS.get(key, []):
        factor = one if workers == 1 else more
        if factor is None:
            continue
        if against == "limit":
            verdicts.append({"goal": "<= %g" % factor, "against": "", "other": None, "ratio": None,
                             "met": own[1] <= factor})
            continue
        name, other, found = other_value(against, key, workers, own[1], ratios, all_values)
        sign = "at least %g x" if more_is_better(key) else "<= %g x"
        verdicts.append({"goal": sign % factor + " " + {"best": "best peer", "M:N": "best M:N peer", "anyone":
                                                        "everybody"}.get(against, against),
                         "against": name, "other": other, "ratio": found,
                         "met": None if found is None else found <= factor})
    return verdicts


def other_value(against, key, workers, own, ratios, all_values):
    """(name, value, ratio) of whom a goal is against; value and ratio are None if it was not measured.

    ratios: weft to each that was measured in turn with it. The best of several is who leaves weft the worst one.
    """
    values = all_values[(key, workers)]

    def worst(names):
        known = {name: ratios[name] for name in names if ratios.get(name)}
        name = max(known, key=known.get) if known else "nobody"
        return name, values.get(name), known.get(name)

    peers = [name for name in ratios if not name.startswith("weft") and name != BARE]
    if against == "best":
        return worst(peers)
    if against == "M:N":
        return worst([name for name in TASK_RUNTIMES if name in ratios])
    if against == "tokio" and workers == 1:  # the better of its two runtimes
        return worst([name for name in ("tokio", "tokio-mt") if name in ratios])
    if against == "anyone":  # bare too, and with one worker
        found = worst(peers + [name for name in (BARE,) if name in ratios])
        alone = {name: value for name, value in all_values.get((key, 1), {}).items() if not name.startswith("weft")}
        best = best_of(alone, key) if workers != 1 else None
        if best and (found[2] is None or ratio(own, best[1], key) > found[2]):
            found = best[0] + ", 1 worker", best[1], ratio(own, best[1], key)
        return found
    if against.startswith("own "):
        other = weft_value(against[4:], workers, all_values)
        name, value = against[4:], other[1] if other else None
    elif against == "one worker":
        alone = weft_value(key, 1, all_values)
        name, value = "weft", alone[1] if alone else None
    elif against == "bare alone" and workers != 1:
        name, value = BARE + ", 1 worker", all_values.get((key, 1), {}).get(BARE)
    else:
        name = BARE if against == "bare alone" else against
        return name, values.get(name), ratios.get(name)
    return name, value, ratio(own, value, key) if value is not None else None
