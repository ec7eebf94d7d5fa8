"""Fits what the forests see besides the embedding, and makes their rows.

The n-gram models are fitted like the encoder: attack or not on the texts that the encoder has
seen, so that on the others, from which the forest learns, their scores are as honest as at run
time; labels out of fold on the training attacks, since the label forests learn from all of these.
Where the encoder has seen nothing of a corpus, attack or not is scored out of fold as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raxe_fast import _core
from raxe_fast.feature_data import FeatureData, core_features
from raxe_fast.parts import TriggerInfo
from raxe_fast.training.calibrate import INPUTS, clipped_logit
from raxe_fast.training.corpus import Record
from raxe_fast.training.embed import EncoderFiles, TextEmbedder
from raxe_fast.training.feature_parts import Rows, feature_data, feature_rows
from raxe_fast.training.finetune_output import LinearHeads
from raxe_fast.training.folds import fold_of, group_key
from raxe_fast.training.metrics import Floats, Ints
from raxe_fast.training.ngrams import (
    BINARY_BITS,
    LABEL_BITS,
    NgramModel,
    fit_binary_ngrams,
    fit_label_ngrams,
    ngram_matrix,
)
from raxe_fast.training.train_data import Labels, Split

__all__ = ["FOLDS", "FeatureFit", "fit_features", "window_evidence"]

FOLDS = 5


@dataclass(frozen=True, slots=True)
class FeatureFit:
    """What ships, its core object, and how the rows of a split are made."""

    data: FeatureData
    features: _core.Features
    rows: Callable[[Split], Rows]
    train_rows: Callable[[Split], Rows]


def fit_features(
    records: Sequence[Record],
    unseen: Callable[[Record], bool],
    labels: Labels,
    heads: LinearHeads,
    triggers: _core.TriggerSet,
    infos: Sequence[TriggerInfo],
    files: EncoderFiles,
    *,
    out_of_fold: bool = False,
    seed: int = 1,
    jobs: int = 2,
) -> FeatureFit:
    """``records`` are all training texts; ``unseen`` says which the encoder has not seen. With
    ``out_of_fold`` the n-grams learn from these, too, and training rows are scored by others."""
    seen = [record for record in records if out_of_fold or not unseen(record)]
    lexical, lexical_by_fold = _fit_lexical(seen, out_of_fold, seed)
    attacks = [record for record in records if record.label == 1]
    matrix = ngram_matrix([r.text for r in attacks], LABEL_BITS)
    _, numbers = labels.numbers(attacks)
    classes = len(labels.subfamilies)
    final = fit_label_ngrams(matrix, numbers, classes, seed, jobs)
    labels_by_fold = _by_fold(
        attacks,
        numbers,
        final,
        lambda inside: fit_label_ngrams(matrix[inside], numbers[inside], classes, seed, jobs),
    )

    def core(binary: NgramModel, model: NgramModel) -> _core.Features:
        return core_features(feature_data(heads, binary, model), infos, labels.families)

    embedder = TextEmbedder(files)
    shipped = core(lexical, final)
    by_fold = [core(*pair) for pair in zip(lexical_by_fold, labels_by_fold, strict=True)]

    def rows(split: Split) -> Rows:
        return feature_rows(lambda _: shipped, triggers, split.texts, split.embedded, embedder)

    def train_rows(split: Split) -> Rows:
        of_record = [
            by_fold[fold_of(group_key(r), FOLDS)] if r.label == 1 or out_of_fold else shipped
            for r in split.records
        ]
        owner = split.record_of
        return feature_rows(
            lambda text: of_record[owner[text]], triggers, split.texts, split.embedded, embedder
        )

    return FeatureFit(feature_data(heads, lexical, final), shipped, rows, train_rows)


def _folds(records: Sequence[Record]) -> Ints:
    return np.array([fold_of(group_key(record), FOLDS) for record in records], dtype=np.int64)


def _by_fold(
    records: Sequence[Record],
    classes: Ints,
    final: NgramModel,
    fit: Callable[[NDArray[np.bool_]], NgramModel],
) -> list[NgramModel]:
    """For each fold the model that ``fit`` makes of the records outside of it; ``final`` where a
    class lies in that fold alone and nothing is left to judge it by."""
    folds = _folds(records)
    whole = set(classes.tolist())
    outside = [folds != fold for fold in range(FOLDS)]
    return [fit(inside) if set(classes[inside].tolist()) == whole else final for inside in outside]


def _fit_lexical(
    records: Sequence[Record], out_of_fold: bool, seed: int
) -> tuple[NgramModel, list[NgramModel]]:
    """The model that ships, and the one that scores each fold: another only if ``out_of_fold``."""
    matrix = ngram_matrix([r.text for r in records], BINARY_BITS)
    label = np.array([r.label for r in records], dtype=np.int64)
    final = fit_binary_ngrams(matrix, label, seed)
    if not out_of_fold:
        return final, [final] * FOLDS
    return final, _by_fold(
        records,
        label,
        final,
        lambda inside: fit_binary_ngrams(matrix[inside], label[inside], seed),
    )


def window_evidence(
    data: FeatureData | None,
    forest_probability: Floats,
    rows: Rows,
    split: Split,
    triggers: _core.TriggerSet,
) -> Floats:
    """(windows, 6) evidence, in the order of INPUTS, as the core puts it together; (windows, 2)
    without feature data."""
    rules = np.array([triggers.rule_score(text) for text in split.texts], dtype=np.float64)
    columns = [clipped_logit(forest_probability), rules[split.embedded.owner]]
    if data is not None:
        hidden, linear = data.linear_weight.shape[1], data.linear_weight.shape[0]
        read: Ints = np.bincount(split.embedded.owner, minlength=len(split.texts))
        columns += [
            rows.full[:, hidden].astype(np.float64),
            rows.full[:, hidden + linear].astype(np.float64),
            rows.full[:, hidden + linear + 1].astype(np.float64),
            np.log(read[split.embedded.owner]),
        ]
        assert len(columns) == len(INPUTS)
    return np.column_stack(columns)
