"""The JSON report of an evaluation. Every rate stands beside the counts it was computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training import metrics
from raxe_fast.training.curves import curves
from raxe_fast.training.outcomes import Outcomes, length_bucket

__all__ = ["LIMITS", "build_report", "meets_targets", "rates_at"]

# The reference's own limits (DESIGN.md section 1): (direction, limit).
LIMITS: dict[str, tuple[str, float]] = {
    "f1": (">", 0.95),
    "fpr": ("<", 0.01),
    "fnr": ("<", 0.03),
    "family_macro_f1": (">=", 0.850),
    "subfamily_macro_f1": (">=", 0.820),
}
_FPR_POINTS = (0.01, 0.001)

Ints = NDArray[np.int64]


def _binary(outcomes: Outcomes, rows: Ints, seed: int | None = None) -> dict[str, Any]:
    """Counts and rates of some rows; intervals by bootstrap and ranking only with a seed."""
    labels, flagged = outcomes.labels[rows], outcomes.flagged[rows]
    counts = metrics.count(labels, flagged)
    out: dict[str, Any] = {
        "texts": len(rows),
        "attack": counts.attack,
        "benign": counts.benign,
        "confusion": {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn},
        "fpr": metrics.rate(counts.fp, counts.benign),
        "fnr": metrics.rate(counts.fn, counts.attack),
        "recall": metrics.rate(counts.tp, counts.attack),
        "precision": metrics.rate(counts.tp, counts.tp + counts.fp),
    }
    if counts.attack and counts.benign:
        scores = outcomes.scores[rows]
        out["f1"] = {"value": counts.f1, "total": len(rows)}
        out["auc"] = {"value": metrics.roc_auc(labels, scores), "total": len(rows)}
        if seed is not None:
            out["f1"]["interval"] = metrics.f1_interval(counts, seed=seed)
            out["auc"]["interval"] = metrics.auc_interval(labels, scores, seed=seed)
    return out


def _ranking(outcomes: Outcomes) -> dict[str, Any]:
    labels, scores = outcomes.labels, outcomes.scores
    attacks = int(np.sum(labels == 1))
    out: dict[str, Any] = {}
    for limit in _FPR_POINTS:
        found = metrics.recall_at_fpr(labels, scores, limit)
        if found is not None:
            recall, threshold = found
            hits = round(recall * attacks)
            out[f"recall_at_fpr_{limit:g}"] = {
                **metrics.rate(hits, attacks),
                "threshold": threshold if np.isfinite(threshold) else None,
            }
    if len(labels):
        out["ece"] = {
            "value": metrics.expected_calibration_error(labels, scores),
            "total": len(labels),
        }
        out["log_loss"] = {"value": metrics.log_loss(labels, scores), "total": len(labels)}
    return out


def _naming(
    true: Sequence[str], said: Sequence[str], detected: NDArray[np.bool_], seed: int
) -> dict[str, Any]:
    """How well attacks are named: over all, over the detected ones, and end to end.

    "end_to_end" counts an attack that was not detected as named wrongly.
    """
    missed = "(not detected)"
    names = sorted({*true, *said} - {""})
    kept = np.flatnonzero(detected).tolist()
    end = [name if hit else missed for name, hit in zip(said, detected, strict=True)]
    views = {
        "all_attacks": (list(true), [name or missed for name in said]),
        "detected": ([true[i] for i in kept], [said[i] or missed for i in kept]),
        "end_to_end": (list(true), [name or missed for name in end]),
    }
    out: dict[str, Any] = {}
    classes = [*names, missed]
    for view, (rows, columns) in views.items():
        matrix = metrics.confusion_matrix(rows, columns, classes)
        correct = int(np.trace(matrix))
        out[view] = {
            "macro_f1": metrics.macro_f1(matrix),
            "interval": metrics.macro_f1_interval(matrix, seed=seed),
            "accuracy": metrics.rate(correct, len(rows)),
            "classes": int(np.sum(matrix.sum(axis=1) > 0)),
        }
        if view == "all_attacks":
            support, taken = matrix.sum(axis=1), matrix.sum(axis=0)
            out["per_class"] = {
                name: {
                    "support": int(support[i]),
                    "predicted": int(taken[i]),
                    "correct": int(matrix[i, i]),
                    "f1": 2 * int(matrix[i, i]) / int(support[i] + taken[i]),
                }
                for i, name in enumerate(classes)
                if support[i]
            }
            out["confusion"] = {"classes": classes, "matrix": matrix.tolist()}
    return out


def _rates(counts: metrics.Counts) -> dict[str, Any]:
    return {
        "fpr": metrics.rate(counts.fp, counts.benign),
        "fnr": metrics.rate(counts.fn, counts.attack),
    }


def rates_at(blocked: metrics.Counts, warned: metrics.Counts) -> dict[str, Any]:
    """Rates of what is blocked, and under "at_warn" of what is blocked or warned about."""
    return {**_rates(blocked), "at_warn": _rates(warned)}


def meets_targets(report: dict[str, Any]) -> dict[str, Any]:
    """The figures with a limit, by name: value, limit and whether it is met (None: not measured).

    The binary ones are computed from the confusion counts of the report, whatever else it says.
    """
    counts = metrics.Counts(**report["overall"]["confusion"])
    values = {
        "f1": counts.f1 if counts.attack and counts.benign else None,
        "fpr": metrics.rate(counts.fp, counts.benign)["value"],
        "fnr": metrics.rate(counts.fn, counts.attack)["value"],
        "family_macro_f1": report["family"]["all_attacks"]["macro_f1"],
        "subfamily_macro_f1": report["subfamily"]["all_attacks"]["macro_f1"],
    }
    checks: dict[str, Callable[[Any, float], bool]] = {
        ">": lambda value, limit: value > limit,
        ">=": lambda value, limit: value >= limit,
        "<": lambda value, limit: value < limit,
    }
    return {
        name: {
            "value": value,
            "limit": f"{LIMITS[name][0]} {LIMITS[name][1]:g}",
            "met": None if value is None else bool(checks[LIMITS[name][0]](value, LIMITS[name][1])),
        }
        for name, value in values.items()
    }


def build_report(
    outcomes: Outcomes,
    *,
    model_id: str,
    policy: str,
    thresholds: dict[str, float],
    corpus: str,
    hardware: dict[str, object],
    bad_lines: Sequence[str] = (),
    seed: int = 0,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything an evaluation measured, JSON-safe. `corpus` is a name, not a path.

    A text whose scan failed has a NaN score; it is counted by status, keeps the decision that was
    taken for it, and ranks last.
    """
    failed = ~np.isfinite(outcomes.scores)
    if failed.any():
        scores = np.where(failed, 0.0, outcomes.scores)
        outcomes = Outcomes(
            outcomes.records, scores, outcomes.flagged, outcomes.warned, outcomes.tokens,
            outcomes.family, outcomes.subfamily, outcomes.status,
        )  # fmt: skip
    everything = np.arange(len(outcomes), dtype=np.int64)
    attacks = np.flatnonzero(outcomes.labels == 1).tolist()
    detected = outcomes.flagged[attacks]
    warned = metrics.count(outcomes.labels, outcomes.warned)
    report: dict[str, Any] = {
        "schema": 1,
        "model_id": model_id,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "corpus": corpus,
        "bad_lines": list(bad_lines),
        "policy": policy,
        "thresholds": thresholds,
        "hardware": hardware,
        "status": dict(sorted(Counter(outcomes.status).items())),
        "failed_scans": int(failed.sum()),
        "overall": {**_binary(outcomes, everything, seed), **_ranking(outcomes)},
        "at_warn": _rates(warned),
    }
    for name, truth, said in (
        ("family", [r.family for r in outcomes.records], outcomes.family),
        ("subfamily", [f"{r.family}/{r.subfamily}" for r in outcomes.records], outcomes.subfamily),
    ):
        report[name] = _naming(
            [truth[i] for i in attacks], [said[i] for i in attacks], detected, seed
        )
    keys = {
        "by_family": lambda record, _: record.family or "(none)",
        "by_subfamily": lambda record, _: f"{record.family}/{record.subfamily}",
        "by_source": lambda record, _: record.source or "(none)",
        "by_language": lambda record, _: record.lang or "und",
        "by_length": lambda _, tokens: length_bucket(tokens),
    }
    for name, key in keys.items():
        report[name] = {
            group: _binary(outcomes, rows) for group, rows in outcomes.groups(key).items()
        }
    report["meets_targets"] = meets_targets(report)
    report["curves"] = curves(outcomes.labels, outcomes.scores)
    report.update(extra or {})
    return report
