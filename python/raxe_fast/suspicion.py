"""Where in a text a small model sees an attack: what the large one reads of it, and in which order.

Both cut a text into windows of their own; a window of the large model is as suspicious as the most
suspicious one of the small model that it shares a character with.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import inf, log, nan
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from raxe_fast.windows import Window

__all__ = ["Suspicion", "suspicion_of"]

_Span = tuple[int, int, float]  # code points [begin, end) of a part, and the score there


class Suspicion(NamedTuple):
    """``spans``: for a text and each of its views the windows of the small model in reading order,
    with their scores. The large model does not read windows below ``read_from``."""

    spans: Sequence[Sequence[_Span]]
    read_from: float

    @property
    def clear_below(self) -> float:
        """``read_from`` as a logit."""
        return _logit(self.read_from)

    def logits(self, parts: Sequence[Sequence[Window]]) -> list[list[float]]:
        """The logit of an attack for each window of the large model; NaN for one that the small
        model has read nothing of."""
        return [
            [_logit(_highest(window, spans)) for window in windows]
            for windows, spans in zip(parts, self.spans, strict=True)
        ]


def suspicion_of(
    windows: Sequence[Sequence[Window]], scores: Sequence[float], read_from: float
) -> Suspicion | None:
    """From the windows that the small model read of each part and their scores in that order; None
    where these do not belong together."""
    if sum(map(len, windows)) != len(scores):
        return None
    left = iter(scores)
    spans = [
        [(w.begin, w.end, score) for w, score in zip(part, islice(left, len(part)), strict=True)]
        for part in windows
    ]
    return Suspicion(spans, read_from)


def _highest(window: Window, spans: Sequence[_Span]) -> float:
    found = [s for begin, end, s in spans if begin < window.end and window.begin < end]
    return max(found, default=nan)


def _logit(probability: float) -> float:
    if probability <= 0.0:
        return -inf
    if probability >= 1.0:
        return inf
    return log(probability / (1.0 - probability))  # NaN stays NaN
