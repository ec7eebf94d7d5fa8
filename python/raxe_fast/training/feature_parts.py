"""features.npz: what the forests see besides the embedding, and the rows that they see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raxe_fast.feature_data import FeatureData
from raxe_fast.training.finetune_output import LinearHeads
from raxe_fast.training.ngrams import NgramModel

if TYPE_CHECKING:
    from raxe_fast import _core
    from raxe_fast.training.embed import Embedded, TextEmbedder

__all__ = ["FEATURES_FILE", "Rows", "feature_data", "feature_rows", "save_features"]

FEATURES_FILE = "features.npz"


@dataclass(frozen=True, slots=True)
class Rows:
    """(windows, full_size) float32 rows as the family forests see them; the binary forest sees the
    first ``size`` columns."""

    full: NDArray[np.float32]
    size: int

    @property
    def binary(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.full[:, : self.size])


def feature_data(heads: LinearHeads, lexical: NgramModel, labels: NgramModel) -> FeatureData:
    """Linear heads in the order binary, families, subfamilies (harmless classes included)."""
    scale = np.float32(heads.scale)
    weight = [heads.binary_weight[None] * scale, heads.family_weight * scale]
    bias = [np.array([heads.binary_bias], np.float32), heads.family_bias]
    weight.append(heads.subfamily_weight * scale)
    bias.append(heads.subfamily_bias)
    names = ["attack", *(f"family:{name}" for name in heads.families)]
    names += [f"subfamily:{family}/{name}" for family, name in heads.subfamilies]
    return FeatureData(
        linear_weight=np.ascontiguousarray(np.concatenate(weight), dtype=np.float32),
        linear_bias=np.ascontiguousarray(np.concatenate(bias), dtype=np.float32),
        linear_names=tuple(names),
        passage_weight=np.ascontiguousarray(heads.evidence_weight, dtype=np.float32),
        passage_bias=heads.evidence_bias,
        lexical_table=lexical.table,
        lexical_scale=lexical.scale,
        lexical_bias=lexical.bias,
        label_table=labels.table,
        label_scale=labels.scale,
        label_bias=labels.bias,
    )


def save_features(path: Path, data: FeatureData) -> None:
    """Writes features.npz."""
    np.savez_compressed(
        path,
        linear_weight=data.linear_weight,
        linear_bias=data.linear_bias,
        linear_names=np.array(data.linear_names),
        passage_weight=data.passage_weight,
        passage_bias=np.float32(data.passage_bias),
        lexical_table=data.lexical_table,
        lexical_scale=data.lexical_scale,
        lexical_bias=data.lexical_bias,
        label_table=data.label_table,
        label_scale=data.label_scale,
        label_bias=data.label_bias,
    )


def feature_rows(
    features_of: Callable[[int], _core.Features],
    triggers: _core.TriggerSet,
    texts: Sequence[str],
    embedded: Embedded,
    embedder: TextEmbedder,
) -> Rows:
    """A row for each window of ``embedded``, made by the core as the fused call makes it, with the
    features that ``features_of`` names for the number of its text; all must have one layout."""
    some = features_of(0)
    full = np.empty((len(embedded.owner), some.full_size), dtype=np.float32)
    bounds = np.searchsorted(embedded.owner, np.arange(len(texts) + 1))
    for i, text in enumerate(texts):
        rows = range(int(bounds[i]), int(bounds[i + 1]))
        if not rows:
            continue
        matches, features = triggers.match(text), features_of(i)
        spans = embedder.spans(text, len(rows))
        for row, (begin, end) in zip(rows, spans, strict=True):
            full[row] = features.row(
                embedded.vectors[row], float(embedded.evidence[row]), text, begin, end, matches
            )
    return Rows(full, some.size)
