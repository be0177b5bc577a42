#!/usr/bin/env python3
"""Writes what `make bench` has measured into README.md and docs/.

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
DOCUMENTS = ["README.md", "docs/performance.md"]
PLOT = "docs/performance.svg"
BLOCK = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end of figures -->)", re.S)
NOT_MEASURED = "Not measured in this run."


# --- numbers and tables ---


def number(value, unit=""):
    """A figure as people write it."""
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


# --- one function a block ---


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

    def speed_row(self, name, case):
        median, ratios = case["median"], case.get("ratio", {})
        return [
            name,
            number(median.get("sessions_per_second")),
            ratio(ratios.get("lapin-same")),
            ratio(ratios.get("forwarder")),
            number(median.get("cpu_us")),
            number(median.get("rabbitmq_cpu_us")),
            number(median.get("p50_ms"), " ms") if "p50_ms" in median else "",
            number(median.get("p99_ms"), " ms") if "p99_ms" in median else "",
        ]

    SPEED_HEAD = [
        "",
        "sessions/s in the queue",
        "of lapin's",
        "of the forwarder's",
        "CPU µs a session",
        "RabbitMQ's",
        "answer p50",
        "p99",
    ]

    def speed(self):
        """The README's: what matters most."""
        rows = [self.speed_row("lapin, the same messages", self.case("lapin-same"))]
        rows += [self.speed_row("lapin, bare bodies", self.case("lapin-bare"))]
        for array in (1, 10, 50):
            for subject in ("forwarder", "bridge"):
                name = {"forwarder": "forwarder without journal", "bridge": "**deskbridge**"}[subject]
                case = self.case(subject, array=array, connections=32)
                rows.append(self.speed_row(f"{name}, arrays of {array}", case))
        return table(self.SPEED_HEAD, rows)

    def speed_all(self):
        rows = []
        for case in self.parts["speed"]["cases"]:
            median = case["median"]
            what = [case["subject"], case["queue"], case.get("array", ""), case.get("connections", "")]
            cells = self.speed_row("", case)[1:]
            rest = [number(median.get("p999_ms"), " ms") if "p999_ms" in median else ""]
            rest += [f"{case['spread_percent']:.0f} %", len(case["rounds"])]
            rows.append(what + cells + rest)
        head = ["", "queue", "array", "connections", *self.SPEED_HEAD[1:], "p99.9", "spread", "rounds"]
        return table(head, rows)

    def split(self):
        rows = []
        for case in self.parts["speed"]["cases"]:
            if case["subject"] != "bridge":
                continue
            median = case["median"]
            name = f"{case['queue']}, arrays of {case['array']}, {case['connections']} connections"
            cells = ["ingress_us", "journal_us", "publishing_us", "cpu_us", "sender_cpu_us"]
            rows.append([name, *(number(median[cell]) for cell in cells), number(median["resident_mib"])])
        head = ["", "runtime", "journal", "lapin", "together", "the sender's own", "MiB resident"]
        return table(head, rows)


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
                ["events that waited", number(part["backlog_events"])],
                ["journal on the disk", number(part["journal_mib"], " MiB")],
                ["accepted without a broker", number(accepting["sessions_per_second"], " sessions/s")],
                ["memory at most meanwhile", number(accepting["peak_mib"], " MiB")],
                ["longest answer meanwhile", number(accepting["max_ms"], " ms")],
                ["first 2xx after SIGTERM and start, with that journal", number(first["after_term"], " ms")],
                ["the same after `kill -9`", number(first["after_kill"], " ms")],
                ["rate without an outage", number(draining["sessions_per_second_full"], " sessions/s")],
                ["drained at", f"{number(draining['sessions_per_second'], ' sessions/s')} ({share:.0%})"],
                ["slowest five seconds of it", number(draining["sessions_per_second_slowest_5s"], " sessions/s")],
                ["came in meanwhile", number(draining["ingress_sessions_per_second"], " sessions/s")],
                ["answer p99 meanwhile", number(draining["p99_ms"], " ms")],
                ["longest answer meanwhile", number(draining["max_ms"], " ms")],
                ["memory at most meanwhile", number(draining["peak_mib"], " MiB")],
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
        return table(["", "CPU µs a session", "sessions/s", "MiB at most"], rows)

    def steps(self):
        rows = []
        for name, what in STEPS:
            for step in self.parts["steps"]:
                if step["name"] == name:
                    rows.append([what.format(step["argument"]), f"{step['median_us']:.2f}"])
        return table(["", "µs a session"], rows)

    def targets(self):
        """Issue and figure side by side; a part that was not measured has no verdict."""
        rows = []

        def row(what, target, value, is_reached, text):
            verdict = "" if value is None else "reached" if is_reached(value) else "**not reached**"
            rows.append([what, target, "" if value is None else text(value), verdict])

        def at_most(what, limit, unit, value):
            row(what, f"at most {limit}{unit}", value, lambda v: v <= limit, lambda v: number(v, unit))

        def at_least(what, limit, value):
            row(what, f"at least {limit:.2f}", value, lambda v: v >= limit, ratio)

        has = self.parts.get
        for array in (1, 10, 50) if has("speed") else ():
            case = self.case("bridge", array=array, connections=32)
            at_least(f"rate beside the forwarder's, arrays of {array}", 1, case["ratio"]["forwarder"])
        if has("speed"):
            ratios = self.case("bridge", array=10, connections=32)["ratio"]
            at_least("rate beside lapin's with the same messages, arrays of 10", 0.8, ratios["lapin-same"])
            at_least("rate beside lapin's with bare bodies, arrays of 10", 0.8, ratios["lapin-bare"])
        for array, limit in ((1, 55), (10, 28), (50, 25)) if has("speed") else ():
            value = self.case("bridge", array=array, connections=32)["median"]["cpu_us"]
            at_most(f"processor time a session, arrays of {array}", limit, " µs", value)
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
            at_least("draining beside the clean rate, while more comes in", 0.8, share)
            at_most("longest answer from the broker's return on", 1000, " ms", draining["max_ms"])
        return table(["", "target", "measured", ""], rows)


SERIES = [
    ("backlog", "events that wait"),
    ("sessions", "distinct sessions"),
    ("arrays", "sessions in a webhook"),
    ("bodies", "bytes of a session"),
    ("routes", "routes"),
]

# Benchmarks of benches/micro.rs, in the order of a session's way.
STEPS = [
    ("verify", "signature of an array of {}"),
    ("split", "split of an array of {}, routing fields and identity with it"),
    ("identity", "identity alone"),
    ("journal_group", "journal: {} webhooks of ten appended and settled together, two fsyncs (time, not processor)"),
    ("flow_window", "forwarder's decisions, a window of 256"),
    ("properties", "properties and headers of a message"),
]

# Name: the part it is made of (none: whatever is there), and how.
BLOCKS = {
    "machine": (None, Figures.machine),
    "targets": (None, Figures.targets),
    "speed": ("speed", Figures.speed),
    "speed-all": ("speed", Figures.speed_all),
    "split": ("speed", Figures.split),
    "answers": ("answers", Figures.answers),
    "outage": ("outage", Figures.outage),
    "idle": ("idle", Figures.idle),
    "scale": ("scale", Figures.scale),
    "steps": ("steps", Figures.steps),
}


# --- what divan prints ---

UNITS = {"ns": 1e-3, "µs": 1.0, "ms": 1e3, "s": 1e6}
LINE = re.compile(r"^([│ ]*)[├╰]─ (\w+) +(?:([\d.]+) (?:ns|µs|ms|s) +│ [^│]*│ ([\d.]+) (ns|µs|ms|s) +│)?")
PRODUCT = ["src", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"]


def read_steps(lines):
    """The median of each benchmark and argument, a session."""
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
        sys.exit("figures: steps are missing, nothing was written")
    results["parts"]["steps"] = steps
    path.write_text(json.dumps(results, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


# --- the plot ---

PANEL_WIDTH, PANEL_HEIGHT, MARGIN, GAP = 300, 150, 60, 44
COLOURS = {"cpu_us": "#0b62a4", "peak_mib": "#b5541c"}


def plot(figures):
    """A row for each series: processor time a session on the left, memory on the right."""
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
        for column, (key, title) in enumerate((("cpu_us", "CPU µs a session"), ("peak_mib", "MiB at most"))):
            left = MARGIN + column * (PANEL_WIDTH + MARGIN)
            out += panel(points, key, left, top, f"{title}, by {what}")
    return "\n".join([*out, "</svg>", ""])


def panel(points, key, left, top, title):
    xs = [math.log10(point["x"]) for point in points]
    x_min, x_max = min(xs), max(max(xs), min(xs) + 1)
    # From 0, so that flat looks flat and nothing else does; a body's cost grows with its bytes.
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
    """The next round number above."""
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
    """Every file that is made of results, with what it should say."""
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
