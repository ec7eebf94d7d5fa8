"""Latency of the natural mix under a CPU quota, as a container's limit makes one.

    python bench/quota.py --mix ../shared/data/test.jsonl.gz --output quota.json

Linux, and a control group of its own (as root, or in a delegated group). See bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hardware import hardware, load_average
from model_files import locate_model
from raxe_fast import Scanner
from records import dump_record
from stats import Summary, turns
from texts import default_mix, drawn_mix

REPOSITORY = Path(__file__).resolve().parents[1]
PERIOD_US = 100_000  # the kernel's default, and that of container runtimes
_ROOTS = {2: Path("/sys/fs/cgroup"), 1: Path("/sys/fs/cgroup/cpu")}


@dataclass(frozen=True, slots=True)
class Group:
    """A control group of this process: version 1 or 2 of the kernel's interface."""

    folder: Path
    version: int

    def limit(self, cores: float | None) -> None:
        """CPU time per period, in cores; None: no limit."""
        quota = None if cores is None else round(cores * PERIOD_US)
        if self.version == 2:
            content = f"{'max' if quota is None else quota} {PERIOD_US}"
            (self.folder / "cpu.max").write_text(content)
        else:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            content = "-1" if quota is None else str(quota)
            (self.folder / "cpu.cfs_quota_us").write_text(content)

    def throttled(self) -> int:
        """Periods in which the process was stopped, so far."""
        lines = (self.folder / "cpu.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["nr_throttled"])


@contextmanager
def own_group() -> Iterator[Group]:
    """This process in a control group of its own, and back where it was. Raises OSError where
    that is not allowed."""
    version = 2 if (_ROOTS[2] / "cgroup.controllers").is_file() else 1
    wanted = {2: "", 1: "cpu"}[version]
    # "0::/path", or in version 1 "4:cpu,cpuacct:/path".
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    places = {name: path for _, names, path in (line.split(":", 2) for line in lines)
              for name in names.split(",")}  # fmt: skip
    if wanted not in places:
        raise OSError("no control group for CPU time")
    home = _ROOTS[version] / places[wanted].lstrip("/")
    home = home if home.is_dir() else _ROOTS[version]
    folder = home / f"raxe-fast-quota-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        yield Group(folder, version)
    finally:
        try:
            (home / "cgroup.procs").write_text(str(os.getpid()))
        finally:
            folder.rmdir()


def measure(
    scans: dict[str, Callable[[str], Any]],
    texts: Sequence[str],
    group: Group,
    quotas: Sequence[float | None],
    pauses: Sequence[float],
    block: int,
) -> list[dict[str, Any]]:
    """A row for each quota (cores), pause (seconds between two scans) and scanner; the scanners
    take turns, and rest for two periods between, so that none pays for what another used up."""
    rows = []
    for quota in quotas:
        group.limit(quota)
        for pause in pauses:
            samples = {name: np.zeros(len(texts)) for name in scans}
            stops = dict.fromkeys(scans, 0)
            previous = ""
            for turn in turns(list(scans), len(texts), block):
                if turn.pipeline != previous:
                    time.sleep(2 * PERIOD_US / 1e6)
                    previous = turn.pipeline
                before = group.throttled()
                begin = time.perf_counter_ns()
                scans[turn.pipeline](texts[turn.index])
                elapsed = time.perf_counter_ns() - begin
                if turn.measured:
                    samples[turn.pipeline][turn.index] = elapsed / 1e6
                    stops[turn.pipeline] += group.throttled() - before
                if pause:
                    time.sleep(pause)
            rows += [
                {
                    "quota_cores": quota,
                    "pause_ms": pause * 1e3,
                    "scanner": name,
                    **Summary.of(found).to_dict(),
                    "throttled_periods": stops[name],
                    "samples": found.round(4).tolist(),
                }
                for name, found in samples.items()
            ]
    group.limit(None)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    found = Table(title="natural mix, one text at a time, ms", title_justify="left")
    for column in ("quota", "pause", "scanner", "p50", "p95", "p99", "mean", "stopped"):
        found.add_column(column, justify="left" if column == "scanner" else "right")
    for row in rows:
        quota = "none" if row["quota_cores"] is None else f"{row['quota_cores']:g}"
        found.add_row(
            quota, f"{row['pause_ms']:g}", row["scanner"],
            *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99", "mean")),
            str(row["throttled_periods"]),
        )  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mix", type=Path, default=default_mix(REPOSITORY), help="JSON Lines")
    parser.add_argument("--texts", type=int, default=300, help="texts drawn from the mix")
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument("--first", help="also with this small model before it, and that one alone")
    parser.add_argument(
        "--quota", type=float, nargs="+", default=[0.5, 0.25], help="cores (default: 0.5 0.25)"
    )
    parser.add_argument(
        "--pause-ms", type=float, nargs="+", default=[0.0, 30.0], help="between two scans"
    )
    parser.add_argument("--block", type=int, default=20, help="scans of a scanner in a row")
    parser.add_argument("--output", type=Path, required=True, help="the JSON record")
    options = parser.parse_args(arguments)
    if min(options.quota) <= 0:
        parser.error("--quota must be positive")
    texts = drawn_mix(parser, options)
    try:
        with own_group() as group:
            group.limit(None)
    except OSError as error:
        print(f"no control group can be made here: {error}", file=sys.stderr)
        return 2
    before = load_average()
    with locate_model(options.model) as model, ExitStack() as stack:
        enter = stack.enter_context
        scanners = {
            model.model_id: enter(Scanner(model.directory)),
            "ONNX Runtime, 1 thread": enter(Scanner(model.directory, backend="onnxruntime")),
            "ONNX Runtime, 2 threads": enter(
                Scanner(model.directory, backend="onnxruntime", threads=2)
            ),
        }
        if options.first:
            scanners["both"] = enter(Scanner(model.directory, first=options.first))
            first = enter(Scanner(options.first))
            scanners[first.model.id] = first
        rows = measure(
            {name: scanner.scan for name, scanner in scanners.items()},
            texts,
            enter(own_group()),
            [None, *options.quota],
            [pause / 1e3 for pause in options.pause_ms],
            options.block,
        )
        name = model.model_id
    record = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_average": {"start": before, "end": load_average()},
        "model": name,
        "texts": len(texts),
        "period_us": PERIOD_US,
        "rows": rows,
    }
    options.output.write_text(dump_record(record), encoding="utf-8")
    (Console() if Console().is_terminal else Console(width=140)).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
