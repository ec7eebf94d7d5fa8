"""Accuracy against the p95 of the natural mix, a point for each model and way to run it.

    python bench/frontier.py --mix ../shared/data/test.jsonl.gz --output frontier.json \
        --point "encoder alone=raxe-l6-v7,report.json,unscreened" \
        --point "small=raxe-mini-v9,mini.json"
    python bench/frontier.py --cascade cascade.json --output frontier.json

A report is what `raxe-fast evaluate --output` or `raxe-fast train` wrote. A cascade's record (what
bench/cascade.py wrote) holds times and accuracy of both models and of every setting already:
nothing is measured then, and those settings are drawn that are worth their time. See
bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hardware import hardware, load_average
from peer_report import COLOURS, STYLE
from raxe_fast import Policy, Scanner
from raxe_fast.training.svg_plots import Axis, Line, Whisker, standalone, xy_plot
from records import dump_record
from stats import Samples, Summary, timed
from texts import default_mix, drawn_mix

REPOSITORY = Path(__file__).resolve().parents[1]
GOAL_MS = 3.0
# Points of F1 that a setting of a cascade must gain on those before it, to be drawn.
_STEP = 0.003


@dataclass(frozen=True, slots=True)
class Point:
    """A model (path or installed id), its accuracy report, and whether it screens."""

    name: str
    model: str
    report: Path
    screening: bool

    @classmethod
    def parse(cls, argument: str) -> Point:
        """NAME=MODEL,REPORT[,unscreened]; for argparse."""
        name, _, rest = argument.partition("=")
        parts = rest.split(",")
        if not name or len(parts) not in (2, 3) or parts[2:] not in ([], ["unscreened"]):
            raise argparse.ArgumentTypeError(f"expected NAME=MODEL,REPORT[,unscreened]: {argument}")
        return cls(name, parts[0], Path(parts[1]), len(parts) == 2)

    def f1(self) -> tuple[float, float, float]:
        """F1 on test and its 95 % interval. Raises KeyError for another kind of file."""
        content = json.loads(self.report.read_text(encoding="utf-8"))
        found = content.get("test", content)["overall"]["f1"]
        low, high = found["interval"]
        return float(found["value"]), float(low), float(high)


def measure(points: Sequence[Point], texts: Sequence[str], block: int) -> dict[str, Samples]:
    """Milliseconds of every text by point, in turns in one process."""

    def scan(scanner: Scanner, index: int) -> object:
        return scanner.scan(texts[index])

    with ExitStack() as stack:
        calls = {
            point.name: partial(
                scan,
                stack.enter_context(Scanner(point.model, policy=Policy(screening=point.screening))),
            )
            for point in points
        }
        return timed(calls, len(texts), block)


def of_cascade(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of a cascade's record on its test texts: both models alone and, between them, the
    settings that have the best F1 for their p95, leaving out those that gain less than _STEP."""
    settings = sorted(record["test"]["settings"], key=lambda row: row["p95"])
    small = next(row for row in settings if row["asked"] == 0.0)
    large = next(row for row in settings if row["asked"] == 1.0)
    chosen, best = [small], small["f1"]
    for row in settings:
        if small["p95"] < row["p95"] < large["p95"] and row["f1"] >= best + _STEP:
            chosen, best = [*chosen, row], row["f1"]
    rows = []
    for row in [*chosen, large]:
        name = f"asked from {row['ask_from']:g} below {row['ask_below'] or 'threshold'}"
        if row is small or row is large:
            name = record["first" if row is small else "model"]
        rows.append({**row, "name": name})
    return rows


def plot(rows: Sequence[dict[str, Any]]) -> str:
    """The SVG file: one dot a point with the interval of its F1, and the limit of 3 ms."""
    low = min(0.85, *(row["f1_interval"][0] for row in rows))
    ticks = [(v / 100, f"{v / 100:g}") for v in range(int(low * 100), 101, 2)]
    items: list[Line | Whisker] = [Line([(GOAL_MS, low), (GOAL_MS, 1.0)], "goal")]
    legend = []
    for i, row in enumerate(rows):
        style = f"s{i % len(COLOURS)}"
        items.append(Whisker([(row["p95"], *row["f1_interval"])], style))
        items.append(Line([(row["p95"], row["f1"])], style, dots=True))
        legend.append((style, f"{row['name']}: {row['p95']:.1f} ms, F1 {row['f1']:.3f}"))
    decades = [(10.0**k, f"{10.0**k:g}") for k in range(4)]
    svg = xy_plot(
        "F1 on test against the 95th percentile of the natural mix",
        Axis("p95 of the natural mix, ms", 1.0, 1000.0, decades, log=True),
        Axis("F1", low, 1.0, ticks),
        items,
        [*legend, ("goal", f"{GOAL_MS:g} ms, the limit")],
    )
    return standalone(svg, STYLE)


def write(record: dict[str, Any], output: Path) -> int:
    """The record, the plot beside it, and a table on the terminal."""
    rows = record["points"]
    output.write_text(dump_record(record), encoding="utf-8")
    output.with_suffix(".svg").write_text(plot(rows), encoding="utf-8")
    table = Table(title="natural mix, one text at a time, ms")
    for column in ("", "F1", "p50", "p95", "p99", "mean"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        times = (f"{row[name]:.2f}" for name in ("p50", "p95", "p99", "mean"))
        table.add_row(row["name"], f"{row['f1']:.4f}", *times)
    Console(width=None if Console().is_terminal else 120).print(table)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    points = parser.add_mutually_exclusive_group(required=True)
    points.add_argument("--point", type=Point.parse, action="append")
    points.add_argument("--cascade", type=Path, help="a record of bench/cascade.py, drawn as it is")
    parser.add_argument("--mix", type=Path, default=default_mix(REPOSITORY), help="JSON Lines")
    parser.add_argument("--texts", type=int, default=600, help="texts drawn from the mix")
    parser.add_argument("--block", type=int, default=10, help="scans of a point in a row")
    parser.add_argument("--output", type=Path, required=True, help="the record; the plot is beside")
    options = parser.parse_args(arguments)
    if options.cascade is not None:
        record = json.loads(options.cascade.read_text(encoding="utf-8"))
        return write(record | {"points": of_cascade(record)}, options.output)
    texts, before = drawn_mix(parser, options), load_average()
    samples = measure(options.point, texts, options.block)
    rows = []
    for point in options.point:
        value, low, high = point.f1()
        found = samples[point.name]
        rows.append(
            {
                "name": point.name,
                "model": Path(point.model).name,
                "screening": point.screening,
                "f1": value,
                "f1_interval": [low, high],
                **Summary.of(found).to_dict(),
                "samples": [round(float(v), 4) for v in found],
            }
        )
    record = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_average": {"start": before, "end": load_average()},
        "texts": len(texts),
        "points": rows,
    }
    return write(record, options.output)


if __name__ == "__main__":
    sys.exit(main())
