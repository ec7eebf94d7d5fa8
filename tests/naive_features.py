"""What the core calls features, done again with NumPy and `unicodedata`: an oracle for the tests.

Only the normaliser is the core's own.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast import _core

SURFACE = 10
SPAN = 8
_LIMIT = 2**32
# How the names of letters and numbers begin where a script puts no spaces between words.
_UNSPACED = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY IDEOGRAPH",
    "HANGZHOU",
    "HIRAGANA",
    "IDEOGRAPHIC",
    "KATAKANA",
    "KHMER",
    "LAO",
    "MASU MARK",
    "MYANMAR",
    "THAI",
    "VERTICAL",
)


def fnv1a(text: str, value: int = 2166136261) -> int:
    for char in text:
        value = (value ^ ord(char)) * 16777619 % _LIMIT
    return value


def finalise(value: int) -> int:
    """fmix32 of MurmurHash3."""
    value ^= value >> 16
    value = value * 0x85EBCA6B % _LIMIT
    value ^= value >> 13
    value = value * 0xC2B2AE35 % _LIMIT
    return value ^ value >> 16


def padded(text: str) -> str:
    """The normalised text between two spaces, runs of spaces as one."""
    out = " "
    for char in _core.normalize(text)[0] + " ":
        out += "" if char == out[-1] == " " else char
    return out


def words(chars: str) -> list[str]:
    """The words of normalised text: runs of word characters, or one `unspaced` character."""
    out: list[str] = []
    grows = False
    for char in chars:
        category = unicodedata.category(char)
        if not (char == "_" or category[0] in "LN" or category == "Mc"):
            grows = False
        elif unicodedata.name(char, "").startswith(_UNSPACED):
            out.append(char)
            grows = False
        elif grows:
            out[-1] += char
        else:
            out.append(char)
            grows = True
    return out


def ngram_hashes(text: str) -> list[int]:
    """The hashes of all n-grams, sorted, repeats kept."""
    chars = padded(text)
    out = [
        finalise(fnv1a(chars[i : i + n][::-1]) ^ 0x9E3779B9 * n % _LIMIT)
        for n in (3, 4, 5)
        for i in range(len(chars) - n + 1)
    ]
    hashed = [fnv1a(word) for word in words(chars)]
    out += [finalise(word ^ 0x85EBCA6B) for word in hashed]
    out += [
        finalise(first * 16777619 % _LIMIT ^ second ^ 0xC2B2AE35)
        for first, second in itertools.pairwise(hashed)
    ]
    return sorted(out)


def lexical_scores(
    hashes: Sequence[int], table: NDArray[np.int8], scale: NDArray[Any], bias: NDArray[Any]
) -> NDArray[np.float64]:
    rows = sorted({value % len(table) for value in hashes})
    total = table[rows].astype(np.float64).sum(axis=0)
    return np.asarray(scale * total / math.sqrt(max(len(rows), 1)) + bias)


def is_space(char: str) -> bool:
    return char in " \t\n\v\f\r" if char.isascii() else _core.normalize(char)[0] == " "


def is_control(char: str) -> bool:
    if char.isascii():
        return not char.isprintable() and not is_space(char)
    # Invisible format characters are the ones that can be told to give a space.
    return _core.normalize(char)[0] == "" and _core.normalize(char, True)[0] == " "


def surface(text: str) -> list[float]:
    if not text:
        return [0.0] * SURFACE
    size = len(text)
    letters = [c for c in text if c.isascii() and c.isalpha()]
    marks = [c for c in text if c.isascii() and c.isprintable() and not (c.isalnum() or c == " ")]
    counts = Counter(ord(c) % 128 for c in text).values()
    runs = [len(r) for r in "".join(" " if is_space(c) else "x" for c in text).split()]
    return [
        math.log(1 + size),
        sum(c.isupper() for c in letters) / max(len(letters), 1),
        sum(c in "0123456789" for c in text) / size,
        sum(not c.isascii() for c in text) / size,
        sum(map(is_space, text)) / size,
        len(marks) / size,
        sum(map(is_control, text)) / size,
        -sum(n / size * math.log2(n / size) for n in counts),
        math.log(1 + max(runs, default=0)),
        sum(runs) / max(len(runs), 1),
    ]


def passage_means(tokens: NDArray[Any], weight: NDArray[Any], bias: float) -> NDArray[np.float64]:
    """The evidence of every passage, by its first token; empty without tokens."""
    logits = tokens.astype(np.float64) @ weight.astype(np.float64) + bias
    span = min(SPAN, len(logits))
    if span == 0:
        return logits
    return np.array([logits[i : i + span].mean() for i in range(len(logits) - span + 1)])


@dataclass
class FeatureParts:
    """The arguments of _core.Features, in order."""

    linear_weight: NDArray[np.float32]
    linear_bias: NDArray[np.float32]
    passage_weight: NDArray[np.float32]
    passage_bias: float
    lexical_table: NDArray[np.int8]
    lexical_scale: NDArray[np.float32]
    lexical_bias: NDArray[np.float32]
    label_table: NDArray[np.int8]
    label_scale: NDArray[np.float32]
    label_bias: NDArray[np.float32]
    trigger_family: NDArray[np.uint32]
    trigger_weight: NDArray[np.float64]
    families: int

    def build(self) -> _core.Features:
        return _core.Features(*vars(self).values())

    def row(
        self,
        embedding: NDArray[np.float32],
        evidence: float,
        window: str,
        matches: Sequence[tuple[int, int, int]],
    ) -> NDArray[np.float64]:
        """The full row; `window` is the part of the text that the window covers."""
        hashes = ngram_hashes(window)
        none = np.ones(self.families)
        for trigger in {match[0] for match in matches}:
            none[self.trigger_family[trigger]] *= 1 - self.trigger_weight[trigger]
        return np.concatenate(
            [
                embedding,
                self.linear_weight.astype(np.float64) @ embedding + self.linear_bias,
                [evidence],
                lexical_scores(hashes, self.lexical_table, self.lexical_scale, self.lexical_bias),
                1 - none,
                surface(window),
                lexical_scores(hashes, self.label_table, self.label_scale, self.label_bias),
            ]
        )
