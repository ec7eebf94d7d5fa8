"""P(attack | trigger fired) from training texts: the weights of the rule score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from raxe_fast.training.metrics import Ints

__all__ = ["PRIOR_TEXTS", "fired_counts", "fit_weights"]

PRIOR_TEXTS = 10.0
MAX_WEIGHT = 0.995
# Used for a severity none of whose triggers ever fired.
_UNSEEN = {"low": 0.3, "medium": 0.6, "high": 0.8, "critical": 0.9}


def fired_counts(
    texts: Sequence[str], labels: Ints, fired: Callable[[str], Iterable[int]], triggers: int
) -> tuple[Ints, Ints]:
    """(attacks, harmless texts) in which each trigger fired, (triggers,) each."""
    attack, benign = np.zeros(triggers, np.int64), np.zeros(triggers, np.int64)
    for text, label in zip(texts, labels, strict=True):
        hits = sorted(set(fired(text)))
        (attack if label == 1 else benign)[hits] += 1
    return attack, benign


def fit_weights(
    compiled: Sequence[dict[str, Any]], attack: Ints, benign: Ints, prior: float = PRIOR_TEXTS
) -> dict[str, float]:
    """Trigger name -> weight in (0, 0.995].

    A Beta prior worth `prior` texts pulls each trigger to the pooled precision of its severity,
    so one that fired twice is not believed at face value. `compiled` holds the entries of
    triggers.json.
    """
    severities = np.array([trigger["severity"] for trigger in compiled])
    weights: dict[str, float] = {}
    for severity in sorted(set(severities.tolist())):
        same = severities == severity
        hits, total = attack[same].sum(), (attack[same] + benign[same]).sum()
        mean = hits / total if total else _UNSEEN.get(severity, 0.5)
        for i in np.flatnonzero(same).tolist():
            value = (attack[i] + prior * mean) / (attack[i] + benign[i] + prior)
            weights[compiled[i]["name"]] = round(float(min(max(value, 0.001), MAX_WEIGHT)), 4)
    return weights
