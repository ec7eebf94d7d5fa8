"""What a model said about each text of a corpus: the common input of every report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.corpus import Record

__all__ = ["LENGTH_BUCKETS", "Outcomes", "length_bucket"]

LENGTH_BUCKETS = (16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One entry per record, in order.

    scores: (N,) calibrated. flagged: (N,) the policy's decision to block. warned: (N,) at least a
    warning. tokens: (N,) tokens of the text. family and subfamily: the head's answer for every
    text, whatever its score ("" where there was none). status: of the scan.
    """

    records: Sequence[Record]
    scores: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    warned: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    family: Sequence[str]
    subfamily: Sequence[str]
    status: Sequence[str]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([record.label for record in self.records], dtype=np.int64)

    def groups(self, key: Callable[[Record, int], str]) -> dict[str, NDArray[np.int64]]:
        """Positions by a name made of the record and its token count, names sorted."""
        found: dict[str, list[int]] = {}
        for i, record in enumerate(self.records):
            found.setdefault(key(record, int(self.tokens[i])), []).append(i)
        return {name: np.array(found[name], dtype=np.int64) for name in sorted(found)}


def length_bucket(tokens: int) -> str:
    """The bucket of a token count, e.g. "033-064"; zero-padded so that names sort by length."""
    low = 0
    for high in LENGTH_BUCKETS:
        if tokens <= high:
            return f"{low + (low > 0):03d}-{high:03d}"
        low = high
    return f"{LENGTH_BUCKETS[-1] + 1}+"
