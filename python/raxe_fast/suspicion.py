"""Where in a text a small model sees an attack: what the large one reads of it, and in which order.

Both cut a text into windows of their own. A text of several windows of the large model is cut anew
for it, around what the small one suspects: where that is a matter of one small window, a large one
on the fixed grid would be five times as much, and more often two.
A window of the large model is as suspicious as the most suspicious one of the small model that it
shares a character with.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import inf, log, nan
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from raxe_fast.windows import Window, Windower

__all__ = ["Suspicion", "suspicion_of"]

_Span = tuple[int, int, float]  # code points [begin, end) of a part, and the score there


class Suspicion(NamedTuple):
    """``spans``: for a text and each of its views the windows of the small model in reading order,
    with their scores. The large model does not read windows below ``read_from``. ``whole``: the
    small model has read all of the text."""

    spans: Sequence[Sequence[_Span]]
    read_from: float
    whole: bool

    @property
    def clear_below(self) -> float:
        """``read_from`` as a logit."""
        return _logit(self.read_from)

    def cut(self, parts: Sequence[Sequence[Window]], windower: Windower) -> list[Sequence[Window]]:
        """The parts with windows of the large model's that begin and end with what is suspected.

        A part stays as it is where that does not save tokens or takes more windows to read, and all
        do where the small model has not read the whole text: between what it suspects there may be
        what it does not know.
        """
        return [
            self._cut(windows, spans, windower) if self.whole and len(windows) > 1 else windows
            for windows, spans in zip(parts, self.spans, strict=True)
        ]

    def _cut(
        self, windows: Sequence[Window], spans: Sequence[_Span], windower: Windower
    ) -> Sequence[Window]:
        found = windower.cut(windows, self._borders(spans))
        cut, grid = self._to_read(found, spans), self._to_read(windows, spans)
        return found if len(cut) <= len(grid) and sum(cut) < sum(grid) else windows

    def _to_read(self, windows: Sequence[Window], spans: Sequence[_Span]) -> list[int]:
        """The tokens of each window that is not cleared."""
        return [w.ids.shape[1] for w in windows if not _highest(w, spans) < self.read_from]

    def _borders(self, spans: Sequence[_Span]) -> list[int]:
        """Where stretches of suspected windows begin and end, in order. To each belongs half of the
        windows beside it: an order is read with what it stands in."""
        suspected = [score >= self.read_from for *_, score in spans]
        borders = []
        for i, (begin, end, _) in enumerate(spans):
            if not suspected[i]:
                continue
            if i > 0 and not suspected[i - 1]:
                borders.append(min(begin, _middle(spans[i - 1])))
            if i + 1 < len(spans) and not suspected[i + 1]:
                borders.append(max(end, _middle(spans[i + 1])))
        return borders

    def logits(self, parts: Sequence[Sequence[Window]]) -> list[list[float]]:
        """The logit of an attack for each window of the large model; NaN for one that the small
        model has read nothing of."""
        return [
            [_logit(_highest(window, spans)) for window in windows]
            for windows, spans in zip(parts, self.spans, strict=True)
        ]


def suspicion_of(
    windows: Sequence[Sequence[Window]], scores: Sequence[float], read_from: float, whole: bool
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
    return Suspicion(spans, read_from, whole)


def _middle(span: _Span) -> int:
    return (span[0] + span[1]) // 2


def _highest(window: Window, spans: Sequence[_Span]) -> float:
    found = [s for begin, end, s in spans if begin < window.end and window.begin < end]
    return max(found, default=nan)


def _logit(probability: float) -> float:
    if probability <= 0.0:
        return -inf
    if probability >= 1.0:
        return inf
    return log(probability / (1.0 - probability))  # NaN stays NaN
