"""Decision thresholds from dev scores: the three presets and the stored curve.

A text is flagged if score >= threshold. Each threshold lies half-way between the lowest score it
flags and the next lower one seen on dev, so a rounding difference in a score cannot flip a text
that dev knew about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.metrics import Floats, Ints, roc_curve

__all__ = ["Curve", "dev_curve", "fit_thresholds"]

BALANCED_FPR = 0.008
BALANCED_WARN_FPR = 0.03
STRICT_FNR = 0.03
STRICT_WARN_FNR = 0.015
QUIET_FPR = 0.002


@dataclass(frozen=True, slots=True)
class Curve:
    """Operating points, highest threshold first: (P,) thresholds, FPR, TPR, F1."""

    thresholds: Floats
    fpr: Floats
    tpr: Floats
    f1: Floats

    @classmethod
    def of(cls, labels: Ints, scores: Floats) -> Curve:
        """Raises ValueError unless both classes are present and all scores are finite."""
        attacks, benign = int(np.sum(labels == 1)), int(np.sum(labels == 0))
        if not attacks or not benign:
            raise ValueError("thresholds need both attacks and harmless texts on dev")
        if not np.all(np.isfinite(scores)):
            raise ValueError("a dev score is not finite")
        raw, fpr, tpr = roc_curve(labels, scores)
        lower = np.append(raw[1:], 0.0)
        tp, fp = tpr * attacks, fpr * benign
        return cls((raw + lower) / 2, fpr, tpr, 2 * tp / (tp + fp + attacks))

    def highest(self, ok: NDArray[np.bool_]) -> float:
        """The highest threshold among the points where `ok`."""
        return float(self.thresholds[np.flatnonzero(ok)[0]])

    def lowest(self, ok: NDArray[np.bool_]) -> float:
        """The lowest threshold among the points where `ok`; 1.0 if there is none."""
        where = np.flatnonzero(ok)
        return float(self.thresholds[where[-1]]) if len(where) else 1.0


def fit_thresholds(labels: Ints, scores: Floats) -> dict[str, dict[str, float]]:
    """The presets, from (N,) dev labels and calibrated scores.

    balanced  block: highest F1 among the points whose FPR, one standard error of dev added, is
              at most 0.8 %; warn: FPR <= 3 %
    strict    block: FNR <= 3 % at the lowest FPR; warn: FNR <= 1.5 %
    quiet     block: FPR <= 0.2 %; warn: FPR <= 1 %
    warn never exceeds block. Raises ValueError as Curve.of does.
    """
    curve = Curve.of(labels, scores)
    # The best of many points at a limit lies beyond it on other texts: leave room for dev's error.
    error = np.sqrt(curve.fpr * (1 - curve.fpr) / np.sum(labels == 0))
    allowed = curve.fpr + error <= BALANCED_FPR
    best = np.where(allowed, curve.f1, -1.0)
    balanced = float(curve.thresholds[int(np.argmax(best))]) if allowed.any() else 1.0
    presets = {
        "balanced": (balanced, curve.lowest(curve.fpr <= BALANCED_WARN_FPR)),
        "strict": (
            curve.highest(curve.tpr >= 1 - STRICT_FNR),
            curve.highest(curve.tpr >= 1 - STRICT_WARN_FNR),
        ),
        "quiet": (curve.lowest(curve.fpr <= QUIET_FPR), curve.lowest(curve.fpr <= BALANCED_FPR)),
    }
    return {
        name: {"block": block, "warn": min(warn, block)} for name, (block, warn) in presets.items()
    }


def dev_curve(labels: Ints, scores: Floats, points: int = 400) -> dict[str, object]:
    """At most `points` operating points, dense where the FPR is small, for threshold_for(fpr=...).

    thresholds descend; fpr and tpr are those of dev at that threshold, with the class counts.
    """
    curve = Curve.of(labels, scores)
    n = len(curve.thresholds)
    if n > points:
        # By FPR on a square-root scale: limits of interest are 0.1 % to a few per cent.
        wanted = np.linspace(0, 1, points) ** 2
        keep = np.unique(np.clip(np.searchsorted(curve.fpr, wanted, side="right") - 1, 0, n - 1))
    else:
        keep = np.arange(n)
    return {
        "thresholds": [float(v) for v in curve.thresholds[keep]],
        "fpr": [float(v) for v in curve.fpr[keep]],
        "tpr": [float(v) for v in curve.tpr[keep]],
        "benign": int(np.sum(labels == 0)),
        "attack": int(np.sum(labels == 1)),
    }
