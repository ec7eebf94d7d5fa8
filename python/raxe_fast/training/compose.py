"""The scanner's arithmetic on cached embeddings: the core's own Scorer, without the encoder.

Encoding a corpus takes minutes, scoring its embeddings seconds. A pooled unit vector is handed to
the core as a window of one token; pooling one token gives it back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raxe_fast import _core
from raxe_fast.model import Model
from raxe_fast.training.corpus import Record
from raxe_fast.training.embed import Embedded
from raxe_fast.training.metrics import Floats
from raxe_fast.training.outcomes import Outcomes

__all__ = ["best_labels", "rule_scores", "score_embedded"]

_BATCH = 512


def best_labels(
    family: Floats,
    subfamily: Floats,
    families: Sequence[str],
    subfamilies: Sequence[tuple[str, str]],
) -> tuple[str, str]:
    """(family, "family/subfamily"): the best family, then the best subfamily within it."""
    chosen = families[int(np.argmax(family))]
    own = [i for i, (_, parent) in enumerate(subfamilies) if parent == chosen]
    if not own:
        return chosen, ""
    return chosen, f"{chosen}/{subfamilies[max(own, key=lambda i: subfamily[i])][0]}"


def rule_scores(triggers: _core.TriggerSet, texts: Sequence[str]) -> Floats:
    """(N,) noisy-or scores of the trigger phrases."""
    return np.array([triggers.rule_score(text) for text in texts], dtype=np.float64)


def score_embedded(
    model: Model, records: Sequence[Record], embedded: Embedded, preset: str = "balanced"
) -> Outcomes:
    """What the model says about embedded texts, under a preset policy."""
    manifest = model.manifest
    block, warn = manifest.thresholds[preset]
    hidden = embedded.vectors.shape[1]
    bounds = np.searchsorted(embedded.owner, np.arange(len(records) + 1))
    scores = np.zeros(len(records))
    names: list[tuple[str, str]] = []
    for start in range(0, len(records), _BATCH):
        stop = min(start + _BATCH, len(records))
        rows = slice(int(bounds[start]), int(bounds[stop]))
        windows = np.ascontiguousarray(embedded.vectors[rows]).reshape(-1, 1, hidden)
        owner = (embedded.owner[rows] - start).astype(np.uint32)
        texts = [record.text for record in records[start:stop]]
        blocks = [windows] if len(windows) else []
        for i, result in enumerate(model.scorer.score(blocks, owner, texts, True)):
            scores[start + i] = result.score
            if len(result.family) == 0:
                names.append(("", ""))
            else:
                family, subfamily = np.asarray(result.family), np.asarray(result.subfamily)
                names.append(
                    best_labels(family, subfamily, manifest.families, manifest.subfamilies)
                )
    return Outcomes(
        records=records,
        scores=scores,
        flagged=scores >= block,
        warned=scores >= warn,
        tokens=embedded.tokens,
        family=[family for family, _ in names],
        subfamily=[subfamily for _, subfamily in names],
        status=["ok"] * len(records),
    )
