#!/usr/bin/env python3
"""Writes what `make bench` has measured into docs/.

  scripts/figures.py show RESULTS    print all tables
  scripts/figures.py steps           pass divan's output on and add it to bench/results.json
  scripts/figures.py write           from bench/results.json into the documents and the plot
  scripts/figures.py check [DIR]     exit 1 if a document (of DIR) says anything else than the results

In a document a table stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "bench/results.json"
DOCUMENTS = ["docs/performance.md"]
PLOT = "docs/performance.svg"
BLOCK = re.compile(r"(<!-- figures: ([a-z0-9-]+) -->\n).*?(<!-- end of figures -->)", re.S)
NOT_MEASURED = "Not measured in this run."


# --- numbers and tables ---


def number(value, unit=""):
    """A figure with thousands separators and at most one decimal, followed by its unit."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 100 or value == int(value):
        text = f"{value:.0f}"
    else:
        text = f"{value:.1f}"
    return text + unit


def ratio(value):
    return "" if value is None else f"{value:.2f}"


def table(head, rows):
    line = lambda cells: "| " + " | ".join(str(cell) for cell in cells) + " |"
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


# --- cases next to each other ---

NAMES = {
    "forwarder": "forwarder without journal",
    "bridge": "**deskbridge**",
    "bridge-full": "**deskbridge**, retention full",
    "bridge-ext4": "**deskbridge**, journal on a journalled ext4",
}


def milliseconds(value):
    return number(value, " ms")


def percent(value):
    return f"{value:.0f} %"


# A column: its heading, the path of its figure in a case, and the function that formats it. Ratios first.
RATE_RATIO = ("rate ÷ forwarder's", ["ratio", "forwarder"], ratio)
CPU_RATIOS = [
    ("CPU ÷ forwarder's", ["cpu_ratio", "forwarder"], ratio),
    ("without the archive ÷ forwarder's", ["cpu_without_archive_ratio", "forwarder"], ratio),
]
DELIVERY_RATIOS = [
    ("delivery p50 ÷ forwarder's", ["delivery_p50_ratio", "forwarder"], ratio),
    ("delivery p99 ÷ forwarder's", ["delivery_p99_ratio", "forwarder"], ratio),
]
USUAL_RATIOS = [
    ("rate ÷ usual", ["ratio", "bridge"], ratio),
    ("CPU ÷ usual", ["cpu_ratio", "bridge"], ratio),
]
RATE = ("sessions/s in the queue", ["median", "sessions_per_second"], number)
ANSWERED = ("sessions/s answered", ["median", "accepted_per_second"], number)
CPU = [
    ("CPU µs per session", ["median", "cpu_us"], number),
    ("without the archive", ["median", "cpu_without_archive_us"], number),
    ("RabbitMQ's", ["median", "rabbitmq_cpu_us"], number),
]
ANSWER = [
    ("answer p50", ["median", "p50_ms"], milliseconds),
    ("answer p99", ["median", "p99_ms"], milliseconds),
]
DELIVERY = [
    ("delivery p50", ["median", "delivery_p50_ms"], milliseconds),
    ("delivery p99", ["median", "delivery_p99_ms"], milliseconds),
]
USED = [
    ("bytes written for each received", ["median", "written_per_byte"], number),
    ("peak MiB", ["median", "peak_mib"], number),
]
STEADINESS = [
    ("answer p99.9", ["median", "p999_ms"], milliseconds),
    ("spread", ["spread_percent"], percent),
    ("rounds", ["rounds"], len),
]
SPEED = [("rate ÷ lapin's", ["ratio", "lapin-same"], ratio), RATE_RATIO, *CPU_RATIOS, RATE, *CPU, *ANSWER]
SPLIT = [
    ("runtime", ["median", "ingress_us"], number),
    ("journal", ["median", "journal_us"], number),
    ("archive", ["median", "archive_us"], number),
    ("lapin", ["median", "publishing_us"], number),
    ("together", ["median", "cpu_us"], number),
    ("the sender's own", ["median", "sender_cpu_us"], number),
    ("MiB resident", ["median", "resident_mib"], number),
]


def cell(case, place, written):
    for key in place:
        case = case.get(key)
        if case is None:
            return ""
    return written(case)


def figure(case, *place):
    """The figure as a number, or None if it is missing."""
    return cell(case, place, float) or None


def compared(cases, columns, corner=""):
    """A table with one row per (name, case); columns without any figure are left out."""
    cells = [[head] + [cell(case, place, written) for _, case in cases] for head, place, written in columns]
    cells = [column for column in cells if any(column[1:])]
    head, *rows = zip([corner, *(name for name, _ in cases)], *cells)
    return table(head, rows)


# --- one function per block ---


class Figures:
    def __init__(self, results):
        self.results = results
        self.parts = results["parts"]

    def case(self, subject, queue="quorum", array=None, connections=None):
        for case in self.parts["speed"]["cases"]:
            key = (case["subject"], case["queue"], case.get("array"), case.get("connections"))
            if key == (subject, queue, array, connections):
                return case
        return {"median": {}}

    def machine(self):
        machine = self.results["machine"]
        return (
            f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
            f"Linux {machine['linux']}, an fsync of 4 KiB {number(machine['fsync_p50_ms'], ' ms')} "
            f"(p99 {number(machine['fsync_p99_ms'], ' ms')}), RabbitMQ {machine['rabbitmq']} on the same "
            f"machine, {machine['rustc'].split(' (')[0]}; commit {self.results['commit']}, "
            f"{self.results['date']}."
        )

    def speed(self):
        """What matters most."""
        cases = [("lapin, the same messages", self.case("lapin-same"))]
        cases += [("lapin, bare bodies", self.case("lapin-bare"))]
        for array in (1, 10, 50):
            for subject in ("forwarder", "bridge"):
                case = self.case(subject, array=array, connections=32)
                cases.append((f"{NAMES[subject]}, arrays of {array}", case))
        return compared(cases, SPEED)

    def speed_all(self):
        cases = []
        for case in self.parts["speed"]["cases"]:
            where = [f"arrays of {case['array']}", f"{case['connections']} connections"] if "array" in case else []
            cases.append((", ".join([case["subject"], case["queue"], *where]), case))
        return compared(cases, [*SPEED, *USED, *STEADINESS])

    def split(self):
        cases = []
        for case in self.parts["speed"]["cases"]:
            if case["subject"] == "bridge":
                name = f"{case['queue']}, arrays of {case['array']}, {case['connections']} connections"
                cases.append((name, case))
        return compared(cases, SPLIT)

    def overload(self):
        cases = []
        for load in self.parts["overload"]["loads"]:
            for case in load["cases"]:
                cases.append((f"{NAMES[case['subject']]}, {load['distinct']:,} different sessions", case))
        return compared(cases, [RATE_RATIO, *CPU_RATIOS, RATE, ANSWERED, *CPU, *ANSWER, *USED])

    def steady(self):
        part = self.parts["steady"]
        cases = [(NAMES[case["subject"]], case) for case in part["cases"]]
        rate = number(part["sessions_per_second"])
        columns = [*CPU_RATIOS, *DELIVERY_RATIOS, *CPU, *DELIVERY, *ANSWER, *USED]
        return compared(cases, columns, f"at {rate} sessions/s")

    def places(self, part):
        """A table of the usual bridge, a bridge under special conditions, and the forwarder."""
        cases = [(NAMES[case["subject"]], case) for case in self.parts[part]["cases"]]
        return compared(cases, [*USUAL_RATIOS, RATE_RATIO, *CPU_RATIOS, RATE, *CPU, *ANSWER, *USED])

    def retention(self):
        return self.places("retention")

    def ext4(self):
        return self.places("ext4")

    def answers(self):
        part = self.parts["answers"]
        rows = []
        for name, key in (("the broker answers", "answering"), ("the broker is frozen", "frozen")):
            median = part[key]["median"]
            cells = ["p50_ms", "p99_ms", "p999_ms", "max_ms"]
            rows.append([name, *(number(median[cell], " ms") for cell in cells)])
        rate = number(part["sessions_per_second"])
        return table([f"at {rate} sessions/s", "p50", "p99", "p99.9", "longest"], rows)

    def outage(self):
        part = self.parts["outage"]
        accepting, draining, first = part["accepting"], part["draining"], part["first_answer_ms"]
        share = draining["sessions_per_second"] / draining["sessions_per_second_full"]
        return table(
            ["", ""],
            [
                ["drain rate relative to the rate without an outage, under ingress", ratio(share)],
                ["pending events", number(part["backlog_events"])],
                ["journal on the disk", number(part["journal_mib"], " MiB")],
                ["accepted without a broker", number(accepting["sessions_per_second"], " sessions/s")],
                ["memory at most while the broker is stopped", number(accepting["peak_mib"], " MiB")],
                ["longest answer while the broker is stopped", number(accepting["max_ms"], " ms")],
                ["first 2xx after SIGTERM and start, with that journal", number(first["after_term"], " ms")],
                ["the same after `kill -9`", number(first["after_kill"], " ms")],
                ["rate without an outage", number(draining["sessions_per_second_full"], " sessions/s")],
                ["drained at", number(draining["sessions_per_second"], " sessions/s")],
                ["slowest five seconds of it", number(draining["sessions_per_second_slowest_5s"], " sessions/s")],
                ["came in while the backlog drains", number(draining["ingress_sessions_per_second"], " sessions/s")],
                ["answer p99 while the backlog drains", number(draining["p99_ms"], " ms")],
                ["longest answer while the backlog drains", number(draining["max_ms"], " ms")],
                ["memory at most while the backlog drains", number(draining["peak_mib"], " MiB")],
            ],
        )

    def idle(self):
        part = self.parts["idle"]
        return table(
            ["", ""],
            [
                ["first 2xx after a start with an empty journal", number(part["first_answer_ms"], " ms")],
                ["binary, stripped", number(part["binary_mb"], " MB")],
                ["wake-ups when idle", number(part["wakeups_per_second"], " a second")],
                ["processor when idle", number(part["cpu_percent"], " % of a core")],
                ["memory when idle", number(part["resident_mib"], " MiB")],
            ],
        )

    def scale(self):
        rows = []
        for name, what in SERIES:
            for point in self.parts["scale"][name]:
                cells = [number(point[cell]) for cell in ("cpu_us", "sessions_per_second", "peak_mib")]
                rows.append([f"{point['x']:,} {what}", *cells])
        return table(["", "CPU µs per session", "sessions/s", "peak MiB"], rows)

    def steps(self):
        rows = []
        for name, what in STEPS:
            for step in self.parts["steps"]:
                if step["name"] == name:
                    rows.append([what.format(step["argument"]), f"{step['median_us']:.2f}"])
        return table(["", "µs a session"], rows)

    def targets(self):
        """Targets and measured figures; a part that was not measured has no verdict."""
        rows = []

        def row(what, target, value, is_reached, text):
            verdict = "" if value is None else "reached" if is_reached(value) else "**not reached**"
            rows.append([what, target, "" if value is None else text(value), verdict])

        def at_most(what, limit, unit, value):
            row(what, f"at most {limit}{unit}", value, lambda v: v <= limit, lambda v: number(v, unit))

        def at_least(what, limit, value):
            row(what, f"at least {limit:.2f}", value, lambda v: v >= limit, ratio)

        has = self.parts.get
        limits = ((1, 1.1, 1.7), (10, 0.95, 1.9), (50, 0.95, 1.9)) if has("speed") else ()
        for array, rate, cpu in limits:
            bridge = self.case("bridge", array=array, connections=32)
            at_least(f"rate relative to the forwarder, arrays of {array}", rate, bridge["ratio"]["forwarder"])
            used = figure(bridge, "cpu_ratio", "forwarder")
            at_most(f"CPU per session relative to the forwarder, arrays of {array}", cpu, "", used)
        if has("speed"):
            bridge = self.case("bridge", array=10, connections=32)
            at_least("rate relative to lapin alone with the same messages, arrays of 10", 0.82, bridge["ratio"]["lapin-same"])
            p99 = bridge["median"]["p99_ms"] / self.case("forwarder", array=10, connections=32)["median"]["p99_ms"]
            row("answer p99 relative to the forwarder, arrays of 10", "less", p99, lambda v: v < 1, ratio)
            written = figure(bridge, "median", "written_per_byte")
            at_most("bytes written for each received, arrays of 10", 2.8, "", written)
        for load in overload["loads"] if (overload := has("overload")) else ():
            bridge = next(case for case in load["cases"] if case["subject"] == "bridge")
            name = f"sender that outruns the broker, {load['distinct']:,} sessions"
            at_least(f"rate relative to the forwarder, {name}", 0.85, figure(bridge, "ratio", "forwarder"))
            at_most(f"CPU per session relative to the forwarder, {name}", 2.5, "", figure(bridge, "cpu_ratio", "forwarder"))
        if steady := has("steady"):
            bridge = next(case for case in steady["cases"] if case["subject"] == "bridge")
            p99 = figure(bridge, "median", "delivery_p99_ms")
            at_most("receipt to confirm p99 at 60 % of the forwarder's rate", 30, " ms", p99)
        if retention := has("retention"):
            ratios = [figure(case, "ratio", "bridge") for case in retention["cases"]]
            full = next((value for value in ratios if value), None)
            at_least("rate with full retention relative to an empty journal", 0.97, full)
        if answers := has("answers"):
            p99 = [answers[key]["median"]["p99_ms"] for key in ("answering", "frozen")]
            fsync = self.results["machine"]["fsync_p99_ms"]
            limit = round(10 + fsync, 1)
            at_most("answer p99 at half load: 10 ms and an fsync (its p99)", limit, " ms", p99[0])
            row(
                "the same with a frozen broker",
                "at most 20 % more",
                p99[1] / p99[0],
                lambda v: v <= 1.2,
                lambda v: f"{(v - 1) * 100:+.0f} %",
            )
        peaks = []
        if speed := has("speed"):
            peaks.append(speed["peak_mib"]["bridge"])
        if outage := has("outage"):
            peaks += [outage["accepting"]["peak_mib"], outage["draining"]["peak_mib"]]
        for answered in (answers[key] for key in ("answering", "frozen")) if answers else ():
            peaks += [answered["peak_mib"]] if "peak_mib" in answered else []
        loads = overload["loads"] if overload else []
        for part in [*loads, *(has(name) for name in ("steady", "retention", "ext4") if has(name))]:
            peaks += [case["median"]["peak_mib"] for case in part["cases"] if case["subject"].startswith("bridge")]
        if scale := has("scale"):
            peaks += [point["peak_mib"] for point in scale["backlog"]]
        if peaks:
            at_most("memory, whatever the backlog", 48, " MiB", max(peaks))
        if idle := has("idle"):
            at_most("start to first 2xx, empty journal", 150, " ms", idle["first_answer_ms"])
        if outage:
            size = number(outage["journal_mib"], " MiB")
            slowest = max(outage["first_answer_ms"][key] for key in ("after_term", "after_kill"))
            at_most(f"start to first 2xx, journal of {size}", 1000, " ms", slowest)
        if idle:
            at_most("binary, stripped", 16, " MB", idle["binary_mb"])
        if outage:
            draining = outage["draining"]
            share = draining["sessions_per_second"] / draining["sessions_per_second_full"]
            at_least("drain rate under ingress relative to the rate without an outage", 1, share)
            at_most("longest answer from the broker's return on", 1000, " ms", draining["max_ms"])
        return table(["", "target", "measured", ""], rows)


SERIES = [
    ("backlog", "pending events"),
    ("sessions", "distinct sessions"),
    ("arrays", "sessions in a webhook"),
    ("bodies", "bytes of a session"),
    ("routes", "routes"),
]

# Benchmarks of benches/micro.rs, in the order in which a session passes the steps.
STEPS = [
    ("verify", "signature of an array of {}"),
    ("split", "split of an array of {}, routing fields and identity with it"),
    ("identity", "identity alone"),
    ("journal_group", "journal: {} webhooks of ten appended and settled together, two fsyncs (time, not processor)"),
    ("flow_window", "forwarder's decisions, a window of 256"),
    ("properties", "properties and headers of a message"),
]

# Block name: the part of the results that it needs (None: any), and the function that renders it.
BLOCKS = {
    "machine": (None, Figures.machine),
    "targets": (None, Figures.targets),
    "speed": ("speed", Figures.speed),
    "speed-all": ("speed", Figures.speed_all),
    "split": ("speed", Figures.split),
    "answers": ("answers", Figures.answers),
    "outage": ("outage", Figures.outage),
    "idle": ("idle", Figures.idle),
    "overload": ("overload", Figures.overload),
    "steady": ("steady", Figures.steady),
    "retention": ("retention", Figures.retention),
    "ext4": ("ext4", Figures.ext4),
    "scale": ("scale", Figures.scale),
    "steps": ("steps", Figures.steps),
}


# --- what divan prints ---

UNITS = {"ns": 1e-3, "µs": 1.0, "ms": 1e3, "s": 1e6}
LINE = re.compile(r"^([│ ]*)[├╰]─ (\w+) +(?:([\d.]+) (?:ns|µs|ms|s) +│ [^│]*│ ([\d.]+) (ns|µs|ms|s) +│)?")
PRODUCT = [".cargo", "src", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"]


def read_steps(lines):
    """The median per session of each benchmark and argument."""
    steps, group = [], None
    for line in lines:
        if not (found := LINE.match(line)):
            continue
        indent, name, fastest, median, unit = found.groups()
        if fastest is None:
            group = name
            continue
        name, argument = (group, int(name)) if indent else (name, 1)
        sessions = {"journal_group": 10 * argument, "flow_window": 256}.get(name, argument)
        median_us = round(float(median) * UNITS[unit] / sessions, 3)
        steps.append({"name": name, "argument": argument, "median_us": median_us})
    return steps


def add_steps(steps):
    path = ROOT / RESULTS
    results = load(path).results
    git = ["git", "-C", ROOT, "log", "-1", "--format=%h", "--", *PRODUCT]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    if results["commit"] != commit:
        sys.exit(f"figures: {RESULTS} is of {results['commit']} and not of {commit}: first `make bench`")
    if {step["name"] for step in steps} != {name for name, _ in STEPS}:
        sys.exit("figures: steps are missing; nothing was written")
    results["parts"]["steps"] = steps
    path.write_text(json.dumps(results, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


# --- the plot ---

PANEL_WIDTH, PANEL_HEIGHT, MARGIN, GAP = 300, 150, 60, 44
COLOURS = {"cpu_us": "#0b62a4", "peak_mib": "#b5541c"}


def plot(figures):
    """One row per series: CPU time per session on the left, memory on the right."""
    series = [(name, what) for name, what in SERIES if figures.parts["scale"].get(name)]
    width = 2 * (PANEL_WIDTH + MARGIN) + MARGIN // 2
    height = len(series) * (PANEL_HEIGHT + GAP) + GAP
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for row, (name, what) in enumerate(series):
        points = figures.parts["scale"][name]
        top = GAP + row * (PANEL_HEIGHT + GAP)
        for column, (key, title) in enumerate((("cpu_us", "CPU µs per session"), ("peak_mib", "peak MiB"))):
            left = MARGIN + column * (PANEL_WIDTH + MARGIN)
            out += panel(points, key, left, top, f"{title}, by {what}")
    return "\n".join([*out, "</svg>", ""])


def panel(points, key, left, top, title):
    xs = [math.log10(point["x"]) for point in points]
    x_min, x_max = min(xs), max(max(xs), min(xs) + 1)
    # The axis starts at 0, so that only a flat series looks flat. A steep one (the cost of a body grows with its
    # bytes) gets a logarithmic axis.
    is_steep = max(point[key] for point in points) > 10 * min(point[key] for point in points)
    values = [math.log10(point[key]) if is_steep else point[key] for point in points]
    y_min = math.floor(min(values)) if is_steep else 0
    y_max = math.ceil(max(values)) if is_steep else nice(max(values))
    x_at = lambda x: left + PANEL_WIDTH * (x - x_min) / (x_max - x_min)
    y_at = lambda y: top + PANEL_HEIGHT * (1 - (y - y_min) / (y_max - y_min))
    out = [f'<text x="{left}" y="{top - 8}" font-weight="bold">{title}</text>']
    steps = range(y_min, y_max + 1) if is_steep else [y_max * part / 4 for part in range(5)]
    for step in steps:
        label = short(10**step if is_steep else step)
        y = y_at(step)
        out.append(f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for point, x in zip(points, xs):
        label = short(point["x"])
        out.append(f'<text x="{x_at(x):.1f}" y="{top + PANEL_HEIGHT + 15}" text-anchor="middle">{label}</text>')
    line = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in zip(xs, values))
    out.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[key]}" stroke-width="2"/>')
    for x, y in zip(xs, values):
        out.append(f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{COLOURS[key]}"/>')
    return out


def nice(value):
    """The next round number that is not smaller."""
    power = 10 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 6, 8, 10) if power * step >= value)


def short(value):
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


# --- documents ---


def block(figures, name):
    if name not in BLOCKS:
        sys.exit(f"figures: no block is called `{name}`; there are {', '.join(BLOCKS)}")
    part, render = BLOCKS[name]
    if part and part not in figures.parts:
        return NOT_MEASURED
    return render(figures)


def filled(figures, text):
    return BLOCK.sub(lambda found: f"{found[1]}{block(figures, found[2])}\n{found[3]}", text)


def load(path):
    try:
        return Figures(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        sys.exit(f"figures: {path} cannot be read ({error}); `make bench` writes it")


def wanted(root):
    """Every file that is generated from the results, with its expected text."""
    figures = load(root / RESULTS)
    files = {root / name: filled(figures, (root / name).read_text()) for name in DOCUMENTS}
    if "scale" in figures.parts:
        files[root / PLOT] = plot(figures)
    return files


def main(arguments):
    match arguments:
        case ["show", path]:
            figures = load(Path(path))
            for name in BLOCKS:
                print(f"\n## {name}\n\n{block(figures, name)}")
        case ["steps"]:
            lines = []
            for line in sys.stdin:
                print(line, end="", flush=True)
                lines.append(line)
            add_steps(read_steps(lines))
        case ["write"]:
            for path, text in wanted(ROOT).items():
                path.write_text(text)
                print(f"figures: {path.relative_to(ROOT)}")
        case ["check", *where] if len(where) < 2:
            root = Path(where[0]) if where else ROOT
            stale = [path for path, text in wanted(root).items() if not path.exists() or path.read_text() != text]
            for path in stale:
                print(f"figures: {path} says something else than {RESULTS}: `make bench-table`", file=sys.stderr)
            return 1 if stale else 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
