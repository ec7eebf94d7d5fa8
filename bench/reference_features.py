"""What the forests of a model with features.npz see of a text, by NumPy and Python.

The same row as the core's (cpp/include/raxe_fast/features.hpp), made the way one would without a
core: linear heads, strongest passage and n-gram tables by NumPy, surface statistics by counting
characters in Python. The n-grams' hashes are taken as given, from `_core.ngram_hashes`: hashing
900 n-grams in pure Python takes a millisecond, and a Python detector would use some compiled
vectoriser for them, too. That is in the reference's favour.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raxe_fast import _core

__all__ = ["FEATURES_FILE", "SIDES", "Evidence", "ReferenceFeatures", "surface_statistics"]

Floats = npt.NDArray[np.float32]

FEATURES_FILE = "features.npz"
SPAN = 8  # tokens of a passage
SURFACE = 10
_SPACES = frozenset(" \t\n\v\f\r")
# Default-ignorable characters besides those of category Cf: (first, last).
_IGNORABLE = (
    (0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x13439, 0x1343F),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
# By which means each side makes each part of the row; for the records.
SIDES = {
    "linear": "NumPy matrix product",
    "passage": "NumPy: matrix product, moving mean by cumulative sums",
    "n-grams": "hashes from raxe-fast's _core.ngram_hashes (given: in the reference's favour), "
    "distinct rows and their sums by NumPy",
    "rules": "noisy-or by family of the reference's own substring triggers, Python",
    "surface": "Python: collections.Counter, str.split",
}


class Evidence(NamedTuple):
    """Logits besides the forest's: linear head, strongest passage, n-grams."""

    linear: float
    passage: float
    lexical: float


@functools.cache
def _kind(char: str) -> str:
    if char in _SPACES:
        return "space"
    if char.isascii():
        if char.isdigit():
            return "digit"
        if char.isalpha():
            return "capital" if char.isupper() else "small"
        return "punctuation" if char.isprintable() else "control"
    code = ord(char)
    category = unicodedata.category(char)
    if category == "Cf" or any(first <= code <= last for first, last in _IGNORABLE):
        return "control"
    plain = unicodedata.normalize("NFKD", char)
    base = "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Me"))
    # Of the spaces (Zs) all but one, U+1680, have U+0020 for a base.
    return "space" if category in ("Cc", "Zl", "Zp", "Zs") or base == " " else "other"


def surface_statistics(text: str) -> list[float]:
    """Ten statistics of the text's characters; zeros for an empty one."""
    size = len(text)
    if size == 0:
        return [0.0] * SURFACE
    counts = Counter(text)
    kinds: dict[str, int] = defaultdict(int)
    low: dict[int, int] = defaultdict(int)
    odd = {}  # what str.split takes for something else
    for char, n in counts.items():
        kind = _kind(char)
        kinds[kind] += n
        low[ord(char) & 127] += n
        if char.isspace() != (kind == "space"):
            odd[ord(char)] = " " if kind == "space" else "x"
    runs = [len(run) for run in (text.translate(odd) if odd else text).split()]
    letters = kinds["capital"] + kinds["small"]
    return [
        math.log1p(size),
        kinds["capital"] / letters if letters else 0.0,
        kinds["digit"] / size,
        sum(n for char, n in counts.items() if char > "\x7f") / size,
        kinds["space"] / size,
        kinds["punctuation"] / size,
        kinds["control"] / size,
        -sum(n / size * math.log2(n / size) for n in low.values()),
        math.log1p(max(runs, default=0)),
        sum(runs) / len(runs) if runs else 0.0,
    ]


def strongest_passage(logits: Floats, bias: float) -> float:
    """The highest mean of SPAN logits (tokens,) in a row, of all where there are fewer, and the
    bias; 0 without tokens."""
    if not logits.size:
        return 0.0
    span = min(SPAN, logits.size)
    sums = np.cumsum(np.concatenate(([0.0], logits)))
    return float((sums[span:] - sums[:-span]).max()) / span + bias


class ReferenceFeatures:
    """features.npz of a model directory, ready to make rows."""

    def __init__(self, model: Path, families: Sequence[str]) -> None:
        with np.load(model / FEATURES_FILE, allow_pickle=False) as arrays:
            self.linear_weight: Floats = arrays["linear_weight"]
            self.linear_bias: Floats = arrays["linear_bias"]
            self.passage_weight: Floats = arrays["passage_weight"]
            self.passage_bias = float(arrays["passage_bias"])
            self.lexical = tuple(arrays[f"lexical_{part}"] for part in ("table", "scale", "bias"))
            self.labels = tuple(arrays[f"label_{part}"] for part in ("table", "scale", "bias"))
        self.family_number = {name: number for number, name in enumerate(families)}

    def row(
        self,
        text: str,
        embedding: Floats,
        tokens: Floats,
        mask: npt.NDArray[np.int64],
        matches: Sequence[Mapping[str, Any]],
    ) -> tuple[Floats, Evidence]:
        """The full row (1, size) of one window, and what of it is evidence by itself.

        text: what the window covers. embedding: (H,); tokens: (S, H); mask: (S,); matches: with
        "family" and "weight", over the whole text.
        """
        linear = self.linear_weight @ embedding + self.linear_bias
        logits = tokens @ self.passage_weight
        passage = strongest_passage(logits[mask > 0], self.passage_bias)
        hashes = _core.ngram_hashes(text)
        lexical = _ngram_scores(hashes, *self.lexical)
        row = np.concatenate(
            (
                embedding,
                linear,
                [passage],
                lexical,
                self._rules(matches),
                surface_statistics(text),
                _ngram_scores(hashes, *self.labels),
            )
        )
        evidence = Evidence(float(linear[0]), passage, float(lexical[0]))
        return row.astype(np.float32)[None], evidence

    def _rules(self, matches: Sequence[Mapping[str, Any]]) -> list[float]:
        other = len(self.family_number)
        left = [1.0] * (other + 1)
        for match in matches:
            left[self.family_number.get(match["family"], other)] *= 1.0 - match["weight"]
        return [1.0 - share for share in left]


def _ngram_scores(
    hashes: npt.NDArray[np.uint32], table: npt.NDArray[np.int8], scale: Floats, bias: Floats
) -> Floats:
    """(outputs,); every row of the table counts once."""
    rows = np.unique(hashes & np.uint32(len(table) - 1))
    if not rows.size:
        return bias
    total = table[rows].sum(axis=0, dtype=np.float32)
    scores: Floats = scale * total * np.float32(1.0 / math.sqrt(rows.size)) + bias
    return scores
