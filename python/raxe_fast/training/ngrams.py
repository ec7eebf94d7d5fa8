"""Linear models over hashed n-grams (cpp/include/raxe_fast/lexical.hpp), fitted and quantised.

The features are the core's own hashes, so what is learnt is what runs. Each distinct row of the
table weighs its inverse document frequency over the square root of the number of distinct rows;
the frequencies are folded into the weights, the root is taken at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast import _core
from raxe_fast.training.metrics import Floats, Ints

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["BINARY_BITS", "LABEL_BITS", "NgramModel", "fit_binary_ngrams", "fit_label_ngrams",
           "ngram_matrix", "ngram_scores"]  # fmt: skip

BINARY_BITS = 18
LABEL_BITS = 15
# What the scanner judges are windows, and a long text would teach mostly its topic.
MAX_CHARS = 2500
# Brings idf values near 1, so that the regularisation means the same for any corpus.
_IDF_SCALE = 1 / 6
_CLIP = 0.9995


@dataclass(frozen=True, slots=True)
class NgramModel:
    """(2^bits, outputs) int8 table, (outputs,) float32 scale and bias, as the core takes them."""

    table: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def quantised(cls, weights: Floats, bias: Floats) -> NgramModel:
        """From (2^bits, outputs) weights: one scale an output, chosen so that one weight in 2,000
        of those in use is clipped."""
        size = np.abs(weights)
        top = np.array(
            [
                np.quantile(column[column > 0], _CLIP) if np.any(column > 0) else 1.0
                for column in size.T
            ]
        )
        scale = np.maximum(top, 1e-12) / 127
        table = np.clip(np.round(weights / scale), -127, 127).astype(np.int8)
        table = np.ascontiguousarray(table)
        return cls(table, scale.astype(np.float32), bias.astype(np.float32))


def ngram_matrix(texts: Sequence[str], bits: int) -> csr_matrix:
    """(texts, 2^bits) float32: 1 / sqrt(distinct rows) where a text has an n-gram of that row."""
    from scipy.sparse import csr_matrix

    mask = np.uint32((1 << bits) - 1)
    columns: list[NDArray[np.int32]] = []
    sizes = np.zeros(len(texts) + 1, dtype=np.int64)
    for i, text in enumerate(texts):
        rows = np.unique(_core.ngram_hashes(text, 0, MAX_CHARS) & mask)
        columns.append(rows.astype(np.int32))
        sizes[i + 1] = len(rows)
    counts = np.repeat(sizes[1:], sizes[1:])
    return csr_matrix(
        ((1 / np.sqrt(counts)).astype(np.float32), np.concatenate(columns), np.cumsum(sizes)),
        shape=(len(texts), 1 << bits),
    )


def ngram_scores(model: NgramModel, matrix: csr_matrix) -> Floats:
    """(texts, outputs) scores, as the core computes them up to float rounding."""
    return np.asarray(matrix @ (model.table * model.scale)) + model.bias


def _idf(matrix: csr_matrix) -> NDArray[np.float32]:
    found = np.bincount(matrix.indices, minlength=matrix.shape[1])
    idf = np.log((1 + matrix.shape[0]) / (1 + found)) + 1
    # Rows that no training text has carry no weight anyway.
    return np.where(found > 0, idf * _IDF_SCALE, 0.0).astype(np.float32)


def _fit(matrix: csr_matrix, labels: Ints, alpha: float, seed: int, **options: Any) -> NgramModel:
    from scipy.sparse import diags
    from sklearn.linear_model import SGDClassifier

    idf = _idf(matrix)
    model = SGDClassifier(
        loss="log_loss", alpha=alpha, max_iter=8, tol=None, average=True, random_state=seed,
        **options,
    )  # fmt: skip
    model.fit((matrix @ diags(idf)).tocsr(), labels)
    return NgramModel.quantised(model.coef_.T * idf[:, None], model.intercept_)


def fit_binary_ngrams(matrix: csr_matrix, labels: Ints, seed: int = 1) -> NgramModel:
    """Attack or not: one output, a logit for classes of equal size."""
    return _fit(matrix, labels, 1e-6, seed, class_weight="balanced")


def fit_label_ngrams(
    matrix: csr_matrix, labels: Ints, classes: int, seed: int = 1, jobs: int = 2
) -> NgramModel:
    """One output a class, each against the rest. Raises ValueError unless labels 0 to classes - 1
    all occur."""
    if not np.array_equal(np.unique(labels), np.arange(classes)) or classes < 3:
        raise ValueError(f"n-grams by label need texts of each of at least 3 classes, of {classes}")
    return _fit(matrix, labels, 3e-6, seed, n_jobs=jobs)
