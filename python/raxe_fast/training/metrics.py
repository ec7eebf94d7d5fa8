"""Detection metrics in plain NumPy, each with the counts it was computed from.

Labels are 0 (harmless) or 1 (attack). A text is *flagged* if its score is >= the threshold.
A rate whose denominator is 0 has the value None, never 0 or 1: there was nothing to measure.
Intervals are 95 %: Wilson's for rates, percentile bootstrap (seeded) for F1 and AUC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Counts",
    "auc_interval",
    "confusion_matrix",
    "count",
    "expected_calibration_error",
    "f1_interval",
    "log_loss",
    "macro_f1",
    "macro_f1_interval",
    "rate",
    "recall_at_fpr",
    "roc_auc",
    "roc_curve",
    "wilson",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Counts:
    """The binary confusion matrix."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def attack(self) -> int:
        return self.tp + self.fn

    @property
    def benign(self) -> int:
        return self.fp + self.tn

    @property
    def f1(self) -> float | None:
        denominator = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / denominator if denominator else None


def count(labels: Ints, flagged: NDArray[np.bool_]) -> Counts:
    """Confusion counts of (N,) labels and (N,) decisions."""
    attack = labels == 1
    return Counts(
        tp=int(np.sum(attack & flagged)),
        fp=int(np.sum(~attack & flagged)),
        tn=int(np.sum(~attack & ~flagged)),
        fn=int(np.sum(attack & ~flagged)),
    )


def wilson(hits: int, total: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a proportion; None if total is 0."""
    if total == 0:
        return None
    p, z2 = hits / total, _Z95 * _Z95
    centre = p + z2 / (2 * total)
    spread = _Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    scale = 1 + z2 / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def rate(hits: int, total: int) -> dict[str, object]:
    """A proportion for a report: value, count, total and interval."""
    interval = wilson(hits, total)
    return {
        "value": hits / total if total else None,
        "count": hits,
        "total": total,
        "interval": None if interval is None else list(interval),
    }


def roc_curve(labels: Ints, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """(thresholds, fpr, tpr), one point per distinct score, highest threshold first.

    The point of a threshold counts every text with score >= it. Rates are NaN for an absent class.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, attack = scores[order], (labels[order] == 1)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))[: len(ranked)]
    tp = np.cumsum(attack)[last].astype(np.float64)
    fp = np.cumsum(~attack)[last].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return ranked[last], fp / np.sum(~attack), tp / np.sum(attack)


def roc_auc(labels: Ints, scores: Floats) -> float | None:
    """Area under the ROC curve, ties counted half; None unless both classes are present."""
    value = _weighted_auc(labels, scores, np.ones(len(labels)))
    return None if math.isnan(value) else value


def _weighted_auc(labels: Ints, scores: Floats, weights: Floats) -> float:
    _, group = np.unique(scores, return_inverse=True)
    attack = np.bincount(group, weights=weights * (labels == 1))
    benign = np.bincount(group, weights=weights * (labels == 0))
    total = attack.sum() * benign.sum()
    if not total:
        return math.nan
    below = np.cumsum(benign) - benign
    return float(np.sum(attack * (below + benign / 2)) / total)


def recall_at_fpr(labels: Ints, scores: Floats, limit: float) -> tuple[float, float] | None:
    """(recall, threshold) of the lowest threshold whose FPR does not exceed `limit`.

    None unless both classes are present. The threshold is +inf, recall 0, if even the highest
    score belongs to too many harmless texts.
    """
    if not np.any(labels == 1) or not np.any(labels == 0):
        return None
    thresholds, fpr, tpr = roc_curve(labels, scores)
    allowed = np.flatnonzero(fpr <= limit)
    if len(allowed) == 0:
        return 0.0, math.inf
    return float(tpr[allowed[-1]]), float(thresholds[allowed[-1]])


def log_loss(labels: Ints, probabilities: Floats) -> float:
    """Mean negative log-likelihood, probabilities clipped to [1e-12, 1 - 1e-12]."""
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(labels == 1, np.log(p), np.log1p(-p))))


def expected_calibration_error(labels: Ints, probabilities: Floats, bins: int = 15) -> float:
    """Mean |confidence - frequency| over equal-width bins of probability, weighted by size."""
    which = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    hits = np.bincount(which, weights=labels.astype(np.float64), minlength=bins)
    mass = np.bincount(which, weights=probabilities, minlength=bins)
    return float(np.sum(np.abs(hits - mass)) / len(labels))


def confusion_matrix(true: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> Ints:
    """(len(classes), len(classes)) counts, rows true, columns predicted. ValueError if unknown."""
    index = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for row, column in zip(true, predicted, strict=True):
        if row not in index or column not in index:
            raise ValueError(f"unknown class: {row if row not in index else column!r}")
        matrix[index[row], index[column]] += 1
    return matrix


def macro_f1(matrix: Ints) -> float | None:
    """Unweighted mean F1 over the classes with at least one true member; None if there is none.

    Predictions of a class without true members count as errors of the class they belong to.
    """
    support = matrix.sum(axis=1)
    present = support > 0
    if not present.any():
        return None
    denominator = support + matrix.sum(axis=0)
    f1 = 2 * np.diagonal(matrix) / np.maximum(denominator, 1)
    return float(np.mean(f1[present]))


def _percentiles(values: Floats) -> list[float] | None:
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return [float(low), float(high)]


def f1_interval(counts: Counts, *, resamples: int = 2000, seed: int = 0) -> list[float] | None:
    """Bootstrap interval of F1. Resampling texts is resampling the four counts (multinomial)."""
    cells = np.array([counts.tp, counts.fp, counts.tn, counts.fn], dtype=np.float64)
    total = int(cells.sum())
    if total == 0 or counts.f1 is None:
        return None
    draws = np.random.default_rng(seed).multinomial(total, cells / total, size=resamples)
    tp, fp, fn = (draws[:, i].astype(np.float64) for i in (0, 1, 3))
    with np.errstate(invalid="ignore"):
        return _percentiles(2 * tp / (2 * tp + fp + fn))


def auc_interval(
    labels: Ints, scores: Floats, *, resamples: int = 300, seed: int = 0
) -> list[float] | None:
    """Bootstrap interval of the AUC over resampled texts."""
    if roc_auc(labels, scores) is None:
        return None
    random, n = np.random.default_rng(seed), len(labels)
    values = np.empty(resamples)
    for i in range(resamples):
        weights = np.bincount(random.integers(0, n, size=n), minlength=n).astype(np.float64)
        values[i] = _weighted_auc(labels, scores, weights)
    return _percentiles(values)


def macro_f1_interval(matrix: Ints, *, resamples: int = 500, seed: int = 0) -> list[float] | None:
    """Bootstrap interval of the macro F1 over resampled texts."""
    total = int(matrix.sum())
    if total == 0:
        return None
    draws = np.random.default_rng(seed).multinomial(total, matrix.ravel() / total, size=resamples)
    values = [macro_f1(draw.reshape(matrix.shape)) for draw in draws]
    return _percentiles(np.array([math.nan if v is None else v for v in values]))
