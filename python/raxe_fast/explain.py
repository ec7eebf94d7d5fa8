"""Which sentence carries a score: each is left out in turn, and the score of the rest compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import isnan

__all__ = ["TOO_LATE", "Carrier", "OutOfTime", "carrying_sentence", "sentences"]

MAX_SENTENCES = 16
TOO_LATE = "The deadline passed before the sentence that carries the score was found."
_BORDER = re.compile(r"[.!?;\n\u3002\uff01\uff1f]+\s*")
_SHORTEST = 8


class OutOfTime(Exception):
    """The deadline passed while sentences were left out in turn."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A sentence, code points [begin, end) of the text, and the scores of its window as a text of
    its own, with the sentence and without it."""

    begin: int
    end: int
    score: float
    without: float

    def reason(self) -> str:
        """In words, without any of the text."""
        return (
            f"The score rests on the sentence at characters {self.begin} to {self.end}: its window "
            f"alone scores {self.score:.3f}, without it {self.without:.3f}."
        )


def sentences(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """The sentences in code points [begin, end), at most MAX_SENTENCES: pieces of under 8
    characters are joined to the next, and where there are too many, neighbours are joined."""
    borders = [begin]
    for match in _BORDER.finditer(text, begin, end):
        if match.end() - borders[-1] >= _SHORTEST:
            borders.append(match.end())
    if end - borders[-1] < _SHORTEST and len(borders) > 1:
        borders.pop()
    if borders[-1] != end:
        borders.append(end)
    step = -(-(len(borders) - 1) // MAX_SENTENCES)
    if step > 1:
        borders = [*borders[:-1:step], end]
    return list(pairwise(borders))


def carrying_sentence(
    text: str, window: tuple[int, int], least: float, score_of: Callable[[str], float]
) -> Carrier | None:
    """The sentence of the window without which its score falls most; None where there is only one,
    none makes it fall by a tenth of itself, or the window alone scores below ``least`` (the score
    comes from elsewhere then). A rest whose score is NaN says nothing. What ``score_of`` raises
    (OutOfTime where there is a deadline) passes through."""
    begin, end = window
    found = sentences(text, begin, end)
    if len(found) < 2:
        return None
    # Not the score of the text: that also counts the triggers and windows beyond this one, which
    # every rest lacks, so that any sentence would seem to carry it.
    score = score_of(text[begin:end])
    if not score >= least:  # nor NaN
        return None
    rest = [(score_of(text[begin:a] + text[b:end]), a, b) for a, b in found]
    without, a, b = min((item for item in rest if not isnan(item[0])), default=(score, 0, 0))
    return Carrier(a, b, score, without) if without < 0.9 * score else None
