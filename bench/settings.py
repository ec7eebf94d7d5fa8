"""What each setting of a scanner does to the latency of the natural mix, those that do nothing too.

    python bench/settings.py --mix ../shared/data/test.jsonl.gz --output settings.json

See bench/README.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hardware import hardware, load_average
from model_files import locate_model
from raxe_fast import Policy, Scanner
from records import dump_record
from stats import Summary, ratio, turns
from texts import default_mix, drawn_mix

REPOSITORY = Path(__file__).resolve().parents[1]
SUBJECT = "as it comes"
MISS = 50_000_000  # bytes read before a scan, more than the caches hold


@dataclass(frozen=True, slots=True)
class Setting:
    """A scanner's arguments, its policy, and what surrounds a scan."""

    name: str
    arguments: dict[str, Any]
    policy: Policy | None = None
    around: str = ""


def settings(cpu: int) -> list[Setting]:
    """All of them; the first is what the others are compared with."""
    return [
        Setting(SUBJECT, {}),
        Setting("screening off", {}, Policy(screening=False)),
        Setting("ONNX Runtime, 1 thread", {"backend": "onnxruntime"}, Policy(screening=False)),
        Setting("ONNX Runtime, 2 threads", {"backend": "onnxruntime", "threads": 2},
                Policy(screening=False)),
        Setting("without decoding", {"decode": False}),
        Setting(f"pinned to CPU {cpu}", {"cpus": [cpu]}),
        Setting("garbage collector off", {}, around="no gc"),
        Setting("deadline of 3 ms", {"deadline_ms": 3.0}),
        Setting("at most 2 windows encoded", {"max_windows": 2}),
        Setting("50 MB read before each scan", {}, around="cold"),
    ]  # fmt: skip


@contextmanager
def _around(kind: str, memory: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[None]:
    if kind == "cold":
        memory.sum()
    if kind != "no gc":
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(
    model: Path, chosen: Sequence[Setting], texts: Sequence[str], block: int
) -> list[dict[str, Any]]:
    """A row for each setting: milliseconds of all texts, scanned in turns in one process."""
    samples = {item.name: np.zeros(len(texts)) for item in chosen}
    statuses: dict[str, list[str]] = {item.name: [] for item in chosen}
    memory = np.ones(MISS // 8, dtype=np.int64)
    with ExitStack() as stack:
        scans: dict[str, Callable[[str], Any]] = {}
        for item in chosen:
            scanner = stack.enter_context(Scanner(model, policy=item.policy, **item.arguments))
            scans[item.name] = scanner.scan
        kinds = {item.name: item.around for item in chosen}
        for turn in turns(list(scans), len(texts), block):
            text, scan = texts[turn.index], scans[turn.pipeline]
            with _around(kinds[turn.pipeline], memory):
                begin = perf_counter_ns()
                result = scan(text)
                elapsed = perf_counter_ns() - begin
            if turn.measured:
                samples[turn.pipeline][turn.index] = elapsed / 1e6
                statuses[turn.pipeline].append(result.status)
    base = samples[chosen[0].name]
    rows = []
    for item in chosen:
        found, names = samples[item.name], statuses[item.name]
        against = ratio(found, base, paired=True)
        rows.append(
            {
                "name": item.name,
                **Summary.of(found).to_dict(),
                "against_the_first": against.to_dict(),
                "statuses": {status: names.count(status) for status in sorted(set(names))},
                "samples": [round(float(value), 4) for value in found],
            }
        )
    return rows


def print_rows(rows: Sequence[dict[str, Any]], console: Console) -> None:
    table = Table(title="natural mix, one text at a time, ms")
    for column in (
        "setting",
        "p50",
        "p95",
        "p99",
        "mean",
        "p50 / p95 against the first",
        "statuses",
    ):
        table.add_column(column, justify="left" if column in ("setting", "statuses") else "right")
    for row in rows:
        against = row["against_the_first"]
        table.add_row(
            row["name"],
            *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99", "mean")),
            f"{against['p50']:.2f} / {against['p95']:.2f}",
            ", ".join(f"{count} {status}" for status, count in row["statuses"].items()),
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mix", type=Path, default=default_mix(REPOSITORY), help="JSON Lines")
    parser.add_argument("--texts", type=int, default=600, help="texts drawn from the mix")
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument("--block", type=int, default=10, help="scans of a setting in a row")
    parser.add_argument("--output", type=Path, required=True, help="the JSON record")
    options = parser.parse_args(arguments)
    texts = drawn_mix(parser, options)
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    before = load_average()
    with locate_model(options.model) as model:
        rows = measure(model.directory, settings(cpus[-1]), texts, options.block)
        name = model.model_id
    record = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_average": {"start": before, "end": load_average()},
        "model": name,
        "texts": len(texts),
        "settings": rows,
    }
    options.output.write_text(dump_record(record), encoding="utf-8")
    print_rows(rows, Console() if Console().is_terminal else Console(width=140))
    return 0


if __name__ == "__main__":
    sys.exit(main())
