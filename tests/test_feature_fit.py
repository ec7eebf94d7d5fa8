"""Which n-grams score the texts that heads learn from."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from raxe_fast.training.corpus import Record
from raxe_fast.training.feature_fit import _fit_lexical, _folds
from raxe_fast.training.metrics import roc_auc
from raxe_fast.training.ngrams import BINARY_BITS, ngram_matrix, ngram_scores


def test_out_of_fold_nobody_scores_what_it_has_learnt():
    """Labels drawn by lot: who has learnt a text knows its label, nobody else can."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 400)
    words = ["".join(random.choice(list("abcdefghij"), 7)) for _ in range(4000)]
    records = [
        # Two of a group have the same words and label: they must be kept together.
        Record(
            " ".join(words[i // 2 * 10 : i // 2 * 10 + 10]),
            int(labels[i // 2]),
            "benign",
            "other",
            group=f"g{i // 2}",
        )
        for i in range(800)
    ]
    truth = np.array([record.label for record in records])
    matrix = ngram_matrix([record.text for record in records], BINARY_BITS)
    final, by_fold = _fit_lexical(records, out_of_fold=True, seed=1)
    assert roc_auc(truth, ngram_scores(final, matrix)[:, 0]) > 0.99
    folds = _folds(records)
    assert set(folds.tolist()) == set(range(len(by_fold)))
    scores = np.zeros(len(records))
    for fold, model in enumerate(by_fold):
        inside = folds == fold
        scores[inside] = ngram_scores(model, matrix[inside])[:, 0]
    assert abs(roc_auc(truth, scores) - 0.5) < 0.1

    final, by_fold = _fit_lexical(records, out_of_fold=False, seed=1)
    assert all(model is final for model in by_fold)
