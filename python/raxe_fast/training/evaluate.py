"""Evaluates a model with the scanner that users run, and prints the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from raxe_fast.training.corpus import Record
from raxe_fast.training.outcomes import Outcomes

if TYPE_CHECKING:
    from rich.console import Console

    from raxe_fast import Policy, Scanner

__all__ = ["ALL_FAMILIES_WARN", "print_report", "sample_records", "scan_records"]

# A warning threshold of 0 makes the scanner name a family for every text; blocking is unchanged.
ALL_FAMILIES_WARN = 0.0


def sample_records(records: Sequence[Record], size: int | None, seed: int) -> list[Record]:
    """`size` records drawn without replacement, in file order; all of them if there are no more."""
    if size is None or size >= len(records):
        return list(records)
    chosen = np.random.default_rng(seed).choice(len(records), size, replace=False)
    return [records[i] for i in np.sort(chosen).tolist()]


def scan_records(
    scanner: Scanner,
    records: Sequence[Record],
    policy: Policy,
    *,
    warn_threshold: float,
    progress: bool = True,
) -> Outcomes:
    """Scans every record under `policy`, which must have ALL_FAMILIES_WARN as its warn threshold.

    `warn_threshold` is the one of the policy under test, for the report's warning rates; of a small
    model and a large one each has that of its preset, so that actions are counted. Where
    screening clears under that policy, scores and verdicts are those with screening, as users get
    them, and a text without a family is read by the encoder once more for it.
    """
    from rich.progress import track

    pair = scanner.first is not None
    tested = replace(policy, warn_threshold=None if pair else warn_threshold)
    screens = scanner.screens(tested)
    by_action = pair and screens
    unscreened = replace(policy, screening=False)

    scores = np.full(len(records), np.nan)
    flagged = np.zeros(len(records), dtype=np.bool_)
    warned = np.zeros(len(records), dtype=np.bool_)
    tokens = np.zeros(len(records), dtype=np.int64)
    family, subfamily, status = [""] * len(records), [""] * len(records), [""] * len(records)

    def texts() -> Iterator[str]:
        for record in records:
            yield record.text

    results = scanner.scan_iter(texts(), policy=tested if screens else policy)
    shown = track(enumerate(results), description="scan", total=len(records), disable=not progress)
    for i, result in shown:
        scores[i] = result.score
        flagged[i] = result.is_threat
        warned[i] = result.is_threat or (
            result.action == "warn" if by_action else result.score >= warn_threshold
        )
        tokens[i] = result.tokens
        status[i] = result.status
        if screens and result.family is None:
            result = scanner.scan(records[i].text, policy=unscreened)
        family[i] = result.family or ""
        subfamily[i] = f"{result.family}/{result.subfamily}" if result.subfamily else ""
    return Outcomes(records, scores, flagged, warned, tokens, family, subfamily, status)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _span(interval: Sequence[float] | None, percent: bool) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"{100 * low:.2f}-{100 * high:.2f} %" if percent else f"{low:.4f}-{high:.4f}"


def print_report(report: dict[str, Any], console: Console) -> None:
    """The main figures as tables."""
    from rich.table import Table

    overall = report["overall"]
    title = f"{report['model_id']} on {report['corpus']}, policy {report['policy']}"
    table = Table("figure", "value", "count", "95 % interval", title=title)
    for name in ("f1", "auc"):
        if name in overall:
            item = overall[name]
            span = _span(item.get("interval"), False)
            table.add_row(name.upper(), _number(item["value"]), f"of {item['total']}", span)
    names = ["fpr", "fnr", "precision", "recall"]
    names += [name for name in overall if name.startswith("recall_at")]
    for name in names:
        item = overall[name]
        count = f"{item['count']} of {item['total']}"
        table.add_row(name, _percent(item["value"]), count, _span(item["interval"], True))
    for name in ("ece", "log_loss"):
        if name in overall:
            item = overall[name]
            table.add_row(name, _number(item["value"]), f"of {item['total']}", "")
    for head in ("family", "subfamily"):
        for view in ("all_attacks", "detected", "end_to_end"):
            item = report[head][view]
            total = item["accuracy"]["total"]
            label = f"{head} macro-F1, {view.replace('_', ' ')}"
            count = f"{item['classes']} classes, {total} texts"
            table.add_row(label, _number(item["macro_f1"]), count, _span(item["interval"], False))
    console.print(table)

    for name in ("by_family", "by_length", "by_language", "by_source"):
        table = Table(name.removeprefix("by_"), "texts", "attacks", "recall", "harmless", "FPR",
                      title=name.replace("_", " "))  # fmt: skip
        for group, row in report[name].items():
            table.add_row(
                group, str(row["texts"]), str(row["attack"]), _percent(row["recall"]["value"]),
                str(row["benign"]), _percent(row["fpr"]["value"]),
            )  # fmt: skip
        console.print(table)

    table = Table("target", "value", "limit", "met", title="targets")
    for name, item in report["meets_targets"].items():
        met = {True: "[green]yes", False: "[red]no", None: "-"}[item["met"]]
        table.add_row(name, _number(item["value"]), item["limit"], met)
    console.print(table)
