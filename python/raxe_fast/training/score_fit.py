"""The score of a text: evidence weighed on what the encoder has not seen, calibrated on dev."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raxe_fast import _core
from raxe_fast.feature_data import FeatureData
from raxe_fast.training.calibrate import (
    CalibrationFit,
    clipped_logit,
    fit_calibration,
    fit_stack,
    worst_rows,
)
from raxe_fast.training.class_priors import fit_class_shares
from raxe_fast.training.feature_fit import window_evidence
from raxe_fast.training.feature_parts import Rows
from raxe_fast.training.heads import Heads
from raxe_fast.training.metrics import Floats
from raxe_fast.training.thresholds import fit_thresholds
from raxe_fast.training.train_data import Labels, Split

__all__ = ["ScoreFit", "fit_score"]


@dataclass(frozen=True, slots=True)
class ScoreFit:
    """Calibration, thresholds by preset, the factors that were worked into the leaves of the label
    forests, and (texts,) the calibrated scores of dev."""

    calibration: CalibrationFit
    thresholds: dict[str, dict[str, float]]
    class_factors: dict[str, list[float]]
    dev_scores: Floats


def fit_score(
    heads: Heads,
    features: FeatureData | None,
    rows: Mapping[str, Rows],
    splits: Mapping[str, Split],
    labels: Labels,
    triggers: _core.TriggerSet,
    *,
    seed: int,
) -> ScoreFit:
    """``rows`` and ``splits`` have "train" and "dev". The label forests in ``heads`` are changed:
    their leaves take the class factors that dev asks for. Without ``features`` there is nothing to
    weigh but the forest and the rules, which calibration does."""
    learn, dev = splits["train"], splits["dev"]
    stack = None
    if features is not None:
        # Votes of forests that have not seen the text; elsewhere nobody asks.
        probability = np.full(len(learn.owner), 0.5)
        probability[heads.oob_rows] = heads.oob
        evidence = window_evidence(features, probability, rows["train"], learn, triggers)
        stack = fit_stack(evidence[heads.oob_rows], learn.owner[heads.oob_rows], learn.labels)
    probability = np.asarray(heads.binary.predict_proba(rows["dev"].binary))[:, 1]
    evidence = window_evidence(features, probability, rows["dev"], dev, triggers)
    order = evidence[:, 0] if stack is None else evidence @ np.array(stack)
    worst = worst_rows(order, dev.owner)
    factors = fit_class_shares(heads, rows["dev"].full, worst, dev, labels)
    judged = np.zeros((len(dev.records), evidence.shape[1]))
    judged[:, 0] = clipped_logit(np.zeros(1))[0]  # texts without windows
    judged[dev.owner[worst]] = evidence[worst]
    calibration = fit_calibration(judged, dev.labels, stack=stack, seed=seed)
    scores = np.zeros(len(dev.records))
    np.maximum.at(scores, dev.owner, calibration(evidence))
    return ScoreFit(calibration, fit_thresholds(dev.labels, scores), factors, scores)
