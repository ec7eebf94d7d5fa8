"""Which labels of a corpus are doubtful: confident learning on scores the model gives blindly.

Confident learning (Northcutt et al., 2021, the cleanlab package) compares labels with predicted
probabilities from a model that has not seen the texts. That holds for test, and for dev but for
calibration and thresholds. The fold of a training corpus that was kept from the encoder is not
blind: the binary forest and the weights of the evidence are fitted on it, so it shows fewer
suspects than there are, and a noise share that is a lower bound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raxe_fast.training.corpus import Record
from raxe_fast.training.metrics import Floats, Ints

__all__ = ["Suspect", "audit", "noise_by_source"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A record whose label the model doubts; ``score`` is its P(attack)."""

    id: str
    line: int
    source: str
    label: int
    subfamily: str
    score: float


def audit(records: Sequence[Record], scores: Floats) -> tuple[list[Suspect], dict[str, Any]]:
    """Suspects, the most doubtful first, and figures: how many, the estimated share of wrong labels
    by label, and the F1 that a perfect judge would get against these labels if all suspects were
    wrong.

    ``scores`` are (N,) calibrated probabilities of an attack. Raises ValueError unless both labels
    occur and every score is finite.
    """
    from cleanlab.filter import find_label_issues

    labels = np.array([record.label for record in records], dtype=np.int64)
    if len(set(labels.tolist())) != 2 or not np.isfinite(scores).all():
        raise ValueError("an audit needs both labels and a finite score for every text")
    probabilities = np.column_stack([1 - scores, scores])
    order: Ints = np.asarray(
        find_label_issues(
            labels,
            probabilities,
            return_indices_ranked_by="self_confidence",
            filter_by="confident_learning",
            n_jobs=1,
        )
    )
    suspects = [
        Suspect(r.id, r.line, r.source, r.label, r.subfamily, round(float(scores[i]), 4))
        for i, r in ((int(i), records[int(i)]) for i in order)
    ]
    wrong = [sum(s.label == label for s in suspects) for label in (0, 1)]
    totals = [int(np.sum(labels == label)) for label in (0, 1)]
    # A perfect judge would call the suspects otherwise: attacks missed, harmless texts flagged.
    tp, fn, fp = totals[1] - wrong[1], wrong[1], wrong[0]
    return suspects, {
        "texts": len(records),
        "suspects": len(suspects),
        "suspect_share": {
            "harmless": wrong[0] / totals[0],
            "attack": wrong[1] / totals[1],
        },
        "f1_ceiling_if_all_were_wrong": 2 * tp / (2 * tp + fn + fp),
        "by_source": noise_by_source(records, suspects),
    }


def noise_by_source(
    records: Sequence[Record], suspects: Sequence[Suspect]
) -> dict[str, dict[str, float | int]]:
    """Suspects and texts of every source that has suspects, the highest share first."""
    total: dict[str, int] = defaultdict(int)
    found: dict[str, int] = defaultdict(int)
    for record in records:
        total[record.source] += 1
    for suspect in suspects:
        found[suspect.source] += 1
    ranked = sorted(found, key=lambda name: (-found[name] / total[name], name))
    return {
        name: {
            "suspects": found[name],
            "texts": total[name],
            "share": round(found[name] / total[name], 4),
        }
        for name in ranked
    }
