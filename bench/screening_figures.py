"""Counting for the screening report: what is cleared, and what is lost by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raxe_fast import ScanResult
from raxe_fast.training.corpus import Record
from raxe_fast.training.metrics import rate
from raxe_fast.training.outcomes import length_bucket

__all__ = ["Pair", "clearing", "cost", "groups", "markdown", "slices"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One text scanned without and with screening: whether it was blocked, how many windows the
    encoder read without, and how many of them were cleared."""

    without: bool
    screened: bool
    windows: int
    cleared: int

    @classmethod
    def of(cls, without: ScanResult, screened: ScanResult) -> Pair:
        cleared = screened.cleared
        if screened.model_id != without.model_id:  # a small model's verdict: all of it, or none
            cleared = 0 if screened.is_threat else without.windows
        return cls(without.is_threat, screened.is_threat, without.windows, cleared)

    @property
    def passed(self) -> bool:
        """Whether screening cleared all of it. (A text of white space has no window to clear.)"""
        return 0 < self.windows <= self.cleared


def clearing(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Shares of texts and of windows that are cleared, texts cleared only in part being none."""
    return {
        "texts": rate(sum(pair.passed for pair in pairs), len(pairs)),
        "windows": rate(
            sum(min(pair.cleared, pair.windows) for pair in pairs),
            sum(pair.windows for pair in pairs),
        ),
    }


def cost(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Recall over attacks without and with screening, and what screening costs: blocked without it
    and not with it, over all attacks. ``lost_anyway``: blocked by neither, which is not screening's
    doing; ``gained``: blocked with it alone; ``passed``: cleared from end to end."""
    total = len(pairs)
    return {
        "without": rate(sum(pair.without for pair in pairs), total),
        "screened": rate(sum(pair.screened for pair in pairs), total),
        "cost": rate(sum(pair.without and not pair.screened for pair in pairs), total),
        "lost_anyway": rate(sum(not pair.without and not pair.screened for pair in pairs), total),
        "gained": rate(sum(pair.screened and not pair.without for pair in pairs), total),
        "passed": rate(sum(pair.passed for pair in pairs), total),
    }


def groups(keys: Sequence[str], pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs by key, keys sorted. Raises ValueError where there is not one key for each."""
    found: dict[str, list[Pair]] = {}
    for key, pair in zip(keys, pairs, strict=True):
        found.setdefault(key, []).append(pair)
    return {key: found[key] for key in sorted(found)}


def slices(
    records: Sequence[Record],
    tokens: Sequence[int],
    pairs: Sequence[Pair],
    count: Callable[[Sequence[Pair]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """``count`` in all, and by family, source and length in tokens."""
    keys: Mapping[str, list[str]] = {
        "by_family": [record.family or "unnamed" for record in records],
        "by_source": [record.source or "unnamed" for record in records],
        "by_length": [length_bucket(n) for n in tokens],
    }
    return {
        "all": count(pairs),
        **{
            kind: {name: count(some) for name, some in groups(names, pairs).items()}
            for kind, names in keys.items()
        },
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The main figures of a record as Markdown tables."""
    mix, harmless, attacks = report["time"], report["harmless"]["all"], report["attacks"]["all"]
    below = f"windows below a logit of {report['clear_below']:.2f} are cleared"
    if report["first"] is not None:
        below = f"asked from a score of {report['clear_below']:.2f} of {report['first']}"
    lines = [
        f"{report['model_id']}, policy {report['policy']}, {below}; {report['corpus']['name']}, "
        f"seed {report['settings']['seed']}",
        "",
        "| figure | without screening | with screening |",
        "|---|---|---|",
        f"| harmless texts cleared (of {harmless['texts']['total']}) | - | "
        f"{_percent(harmless['texts'])} |",
        f"| harmless windows cleared (of {harmless['windows']['total']}) | - | "
        f"{_percent(harmless['windows'])} |",
        f"| recall (of {attacks['without']['total']}) | {_percent(attacks['without'])} | "
        f"{_percent(attacks['screened'])} |",
        f"| cost in recall | - | {_percent(attacks['cost'])} |",
        *(
            f"| {name}, ms | {mix['without'][name]:.2f} | {mix['screened'][name]:.2f} |"
            for name in ("p50", "p95", "p99", "mean")
        ),
        "",
    ]
    adversary = report["adversary"]
    lines += [
        f"{adversary['attacks']} attacks that are blocked without screening, from someone who "
        "knows it:",
        "",
        "| attack | passes screening | cost in recall | lost by the encoder itself | queries |",
        "|---|---|---|---|---|",
    ]
    for name, row in adversary["rows"].items():
        queries = "-" if row["queries"] is None else f"{row['queries']:.1f}"
        lines.append(
            f"| {name} | {_percent(row['passed'])} | {_percent(row['cost'])} | "
            f"{_percent(row['lost_anyway'])} | {queries} |"
        )
    for kind in ("by_family", "by_length"):
        lines += ["", f"| {kind[3:]} | attacks |" + "".join(
            f" cost, {name} |" for name in adversary[kind]), "|---|---|" + "---|" * len(
            adversary[kind])]  # fmt: skip
        by_name = list(adversary[kind].values())
        for group in by_name[0] if by_name else ():
            rows = [part[group]["cost"] for part in by_name]
            lines.append(
                f"| {group} | {rows[0]['total']} |" + "".join(f" {_percent(r)} |" for r in rows)
            )
    return "\n".join(lines) + "\n"


def _percent(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return "-"
    low, high = share["interval"]
    return f"{100 * share['value']:.2f} % ({100 * low:.2f}-{100 * high:.2f})"
