"""What a report's plots are drawn from: thinned operating points, reliability bins, histograms.

Counts only; whoever draws them divides. Labels are (N,) of 0 or 1, scores (N,) finite in [0, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raxe_fast.training.metrics import Floats, Ints, rate, roc_curve

__all__ = ["MAX_POINTS", "curves", "histogram", "operating_points", "reliability"]

MAX_POINTS = 400
_DIGITS = 6


def operating_points(labels: Ints, scores: Floats, limit: int = MAX_POINTS) -> dict[str, Any]:
    """At most ``limit`` thresholds, descending, with the attacks and harmless texts at or above.

    Half of the points are spaced evenly by recall and half by the logarithm of the false-positive
    rate, where the eye looks; the first and the last point are always kept. Empty lists for no
    texts. Raises ValueError for a limit below 4.
    """
    if limit < 4:
        raise ValueError(f"limit must be at least 4, not {limit}")
    attack, benign = int(np.sum(labels == 1)), int(np.sum(labels == 0))
    out: dict[str, Any] = {
        "threshold": [], "tp": [], "fp": [], "attack": attack, "benign": benign
    }  # fmt: skip
    if not attack + benign:
        return out
    thresholds, fpr, tpr = roc_curve(labels, scores)
    # An absent class has NaN for a rate and 0 for a count.
    tp = np.rint(np.nan_to_num(tpr) * attack).astype(np.int64)
    fp = np.rint(np.nan_to_num(fpr) * benign).astype(np.int64)
    keep = np.arange(len(thresholds))
    if len(keep) > limit:
        half = (limit - 2) // 2
        by_recall = np.searchsorted(tp, np.linspace(0, attack, half))
        by_alarms = np.searchsorted(fp, np.geomspace(1, max(benign, 1), half), side="right") - 1
        keep = np.unique(
            np.clip(np.concatenate([by_recall, by_alarms, [0, keep[-1]]]), 0, keep[-1])
        )
    out["threshold"] = [round(float(value), _DIGITS) for value in thresholds[keep]]
    out["tp"], out["fp"] = tp[keep].tolist(), fp[keep].tolist()
    return out


def reliability(labels: Ints, scores: Floats, bins: int = 15) -> list[dict[str, Any]]:
    """Equal-width bins of the score, empty ones left out: mean score and share of attacks.

    The bins are those of :func:`~raxe_fast.training.metrics.expected_calibration_error`.
    """
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    out = []
    for i in np.unique(which).tolist():
        inside = which == i
        total = int(inside.sum())
        out.append(
            {
                "low": round(i / bins, _DIGITS),
                "high": round((i + 1) / bins, _DIGITS),
                "mean_score": round(float(scores[inside].mean()), _DIGITS),
                "attacks": rate(int(np.sum(labels[inside] == 1)), total),
            }
        )
    return out


def histogram(labels: Ints, scores: Floats, bins: int = 50) -> dict[str, Any]:
    """Texts by label in ``bins`` equal-width bins of the score."""
    edges = np.linspace(0, 1, bins + 1)
    return {
        "edges": [round(float(edge), _DIGITS) for edge in edges],
        "attack": np.histogram(scores[labels == 1], edges)[0].tolist(),
        "benign": np.histogram(scores[labels == 0], edges)[0].tolist(),
    }


def curves(labels: Ints, scores: Floats) -> dict[str, Any]:
    """The three of them, JSON-safe."""
    return {
        "operating_points": operating_points(labels, scores),
        "reliability": reliability(labels, scores),
        "histogram": histogram(labels, scores),
    }
