"""Where a small model asks the large one: accuracy against time for each setting; see README.md.

    python bench/cascade.py --dev ../shared/data/dev.jsonl.gz --test ../shared/data/test.jsonl.gz \
        --output cascade.json

The small model, the pair (which asks about nearly everything here) and the large model alone scan
every text once, one after the other in one process; a setting's verdict and time follow from
whether it asks. From a higher score on than the lowest here the large model would read less of a
long text than it does here. Settings are to be compared on dev; test is for the report.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hardware import hardware, load_average
from raxe_fast import Scanner, _core, load_model
from raxe_fast.first import ASK_BELOW, ASK_FROM, ERRAND, FIRST_MODEL, asks_from
from raxe_fast.training.corpus import read_corpus
from raxe_fast.training.metrics import count, f1_interval
from records import dump_record

ASK = (0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.4)
BELOW = (0.0, 0.85, 0.9, 0.98)  # 0: the small model's block threshold


class Scans(NamedTuple):
    """What both models said of (N,) texts, and how long they took; times in milliseconds."""

    label: NDArray[np.int64]
    score: NDArray[np.float64]  # of the small model
    windows: NDArray[np.int64]  # that the small model read
    errand: NDArray[np.float64]  # how likely it holds that family for, 0 where it says nothing
    ok: NDArray[np.bool_]  # the small model read all of it
    small: NDArray[np.bool_]  # blocked by the small model
    pair: NDArray[np.bool_]  # blocked by the large one where the small one asks it
    large: NDArray[np.bool_]  # blocked by the large one alone
    small_ms: NDArray[np.float64]
    pair_ms: NDArray[np.float64]  # of both
    large_ms: NDArray[np.float64]


def scan_all(
    first: Scanner, pair: Scanner, large: Scanner, corpus: Path, limit: int | None
) -> Scans:
    records = read_corpus(corpus).records
    if limit is not None and limit < len(records):
        chosen = np.random.default_rng(0).permutation(len(records))[:limit]
        records = [records[i] for i in sorted(chosen.tolist())]
    rows = []
    for record in track(records, description=corpus.name):
        results, times = [], []
        for scanner in (first, pair, large):
            begun = perf_counter()
            results.append(scanner.scan(record.text))
            times.append((perf_counter() - begun) * 1e3)
        small = results[0]
        threats = [result.is_threat for result in results]
        # Of what is plainly harmless the core gives families when asked to explain.
        families = small.family_scores or first.scan(record.text, explain=True).family_scores
        errand = families.get(ERRAND, 0.0)
        said = (small.score, small.windows, errand, small.status == "ok")
        rows.append((record.label, *said, *threats, *times))
    kinds = ("i8", "f8", "i8", "f8", "?", "?", "?", "?", "f8", "f8", "f8")
    columns = zip(zip(*rows, strict=True), kinds, strict=True)
    return Scans(*(np.array(column, dtype=kind) for column, kind in columns))


def judge(scans: Scans, asked: NDArray[np.bool_], weights: dict[str, float]) -> dict[str, Any]:
    """Figures of a cascade that asks about these texts."""
    counts = count(scans.label, np.where(asked, scans.pair, scans.small))
    times = np.where(asked, scans.pair_ms, scans.small_ms)
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    return weights | {
        "f1": 2 * tp / (2 * tp + fp + fn),
        "f1_interval": f1_interval(counts),
        "fpr": fp / (fp + tn),
        "fnr": fn / (fn + tp),
        "asked": float(asked.mean()),
        **{f"p{q}": float(np.percentile(times, q)) for q in (50, 95, 99)},
        "mean": float(times.mean()),
    }


def settings(scans: Scans, sure_from: float) -> list[dict[str, Any]]:
    """The small model alone, every setting, and the large model alone."""
    nothing = np.zeros(len(scans.label), dtype=bool)
    rows = [judge(scans, nothing, {"ask_from": 1.0, "ask_below": 0.0})]
    for ask_from, ask_below in itertools.product(ASK, BELOW):
        read = zip(scans.windows.tolist(), scans.errand.tolist(), strict=True)
        asked_from = np.array([asks_from(ask_from, *found) for found in read])
        unsure = (scans.score >= asked_from) & (scans.score < max(sure_from, ask_below))
        asked = unsure | ~scans.ok
        rows.append(judge(scans, asked, {"ask_from": ask_from, "ask_below": ask_below}))
    alone = scans._replace(pair=scans.large, pair_ms=scans.large_ms)
    return [*rows, judge(alone, ~nothing, {"ask_from": 0.0, "ask_below": 1.0})]


def table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    found = Table(title=title, title_justify="left")
    names = "ask from, below, asked, F1, FPR, FNR, p50, p95, p99, mean"
    for name in names.split(", "):
        found.add_column(name, justify="right")
    for row in rows:
        chosen = (row["ask_from"], row["ask_below"]) == (ASK_FROM, ASK_BELOW)
        found.add_row(
            f"{row['ask_from']:g}", f"{row['ask_below']:g}",
            f"{row['asked']:.1%}", f"{row['f1']:.4f}", f"{row['fpr']:.2%}", f"{row['fnr']:.2%}",
            *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99", "mean")),
            style="bold" if chosen else None,
        )  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dev", type=Path, required=True, help="JSON Lines with labels")
    parser.add_argument("--test", type=Path, help="the same, reported beside dev")
    parser.add_argument(
        "--first", default=FIRST_MODEL, help="the small model (default %(default)s)"
    )
    parser.add_argument("--model", help="the large model (default: the shipped one)")
    parser.add_argument("--texts", type=int, help="at most so many texts of each file")
    parser.add_argument(
        "--isa",
        choices=("avx2", "avx512", "amx"),
        help="kernels to run instead of the best that the machine has",
    )
    parser.add_argument("--output", type=Path, required=True, help="the record")
    options = parser.parse_args(arguments)
    files = {"dev": options.dev} | ({"test": options.test} if options.test else {})
    for path in files.values():
        if not path.is_file():
            parser.error(f"there is no corpus at {path}")
    if options.isa is not None:
        _core.force_isa(options.isa)  # raises ValueError for more than the machine has
    console = Console(width=None if Console().is_terminal else 120)
    before = load_average()
    record: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "isa": options.isa or _core.detected_isa(),
    }
    model = load_model(options.model)
    with (
        Scanner(options.first) as first,
        Scanner(model, first=options.first, ask_from=ASK[0], ask_below=1.0) as pair,
        Scanner(model, first=None) as large,
    ):
        record |= {"first": first.model.id, "model": large.model.id}
        # The presets of a cascade's policy; balanced here.
        sure_from = first.model.manifest.thresholds["balanced"][0]
        for name, path in files.items():
            scans = scan_all(first, pair, large, path, options.texts)
            rows = settings(scans, sure_from)
            samples = {
                field: (values + 0).round(4).tolist() for field, values in scans._asdict().items()
            }
            record[name] = {"texts": len(scans.label), "settings": rows, "samples": samples}
            console.print(table(f"{name}, {len(scans.label)} texts, ms", rows))
    record["load_average"] = {"start": before, "end": load_average()}
    options.output.write_text(dump_record(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
