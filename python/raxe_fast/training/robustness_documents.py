"""Long harmless documents made of a corpus's texts, and payloads put at sentence borders."""

from __future__ import annotations

import bisect
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Placed", "build_documents", "place", "sentence_borders"]

# A document is long enough from this share of the tokens asked for: looking for a text that fills
# the rest exactly would mean to count the tokens of very many.
_ENOUGH = 0.95
_BORDER = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+|(?<=[\u3002\uff01\uff1f])|\n+")


@dataclass(frozen=True, slots=True)
class Placed:
    """A document with a payload: ``text[begin:end]`` is the payload, and what is left without it
    and the separator is the document."""

    text: str
    begin: int
    end: int


def sentence_borders(text: str) -> list[int]:
    """Offsets, ascending, where a sentence may be put in; 0 and the end are always among them."""
    return sorted({0, len(text), *(match.end() for match in _BORDER.finditer(text))})


def place(document: str, payload: str, fraction: float) -> Placed:
    """Puts ``payload`` at the sentence border nearest to ``fraction`` (0 to 1) of the characters.

    Raises ValueError for a fraction out of range.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], not {fraction!r}")
    borders = sentence_borders(document)
    wanted = fraction * len(document)
    i = bisect.bisect_left(borders, wanted)
    near = borders[max(i - 1, 0) : i + 1]
    at = min(near, key=lambda border: abs(border - wanted))
    before, after = document[:at], document[at:]
    # Set apart as the sentences around it are: by a line, or by a space.
    space = "\n" if before.endswith("\n") or (not before and "\n" in after) else " "
    lead = "" if not before or before[-1].isspace() else space
    trail = "" if not after or after[0].isspace() else space
    begin = len(before) + len(lead)
    return Placed(f"{before}{lead}{payload}{trail}{after}", begin, begin + len(payload))


def _deal(texts: Sequence[str], rng: random.Random) -> Iterator[str]:
    """The texts in random order, over and over; every one is dealt once before any comes again."""
    while texts:
        yield from rng.sample(texts, len(texts))


def build_documents(
    texts: Sequence[str],
    *,
    count: int,
    tokens: int,
    count_tokens: Callable[[str], int],
    seed: int,
) -> list[str]:
    """``count`` documents of about ``tokens`` tokens, each of whole texts joined by blank lines.

    No text stands twice in a document; one that would take a document further past ``tokens`` than
    it is now short of it is left for the next draw. Where all texts together are shorter than
    ``tokens``, so are the documents. An empty list if no text has a token.
    """
    rng = random.Random(seed)
    stripped = sorted({text.strip() for text in texts} - {""})
    sizes: dict[str, int] = {}
    dealt = _deal(stripped, rng)
    documents: list[str] = []
    while stripped and len(documents) < count:
        parts: list[str] = []
        used: set[str] = set()
        total = 0
        # Twice through the deck meets every text at least once, whatever was dealt before.
        for _ in range(2 * len(stripped)):
            if total >= _ENOUGH * tokens:
                break
            text = next(dealt)
            if text in used:
                continue
            size = sizes.setdefault(text, -1)
            if size < 0:
                size = sizes[text] = count_tokens(text)
            used.add(text)
            if size and (not parts or total + size - tokens <= tokens - total):
                parts.append(text)
                total += size
        if not parts:
            return []
        documents.append("\n\n".join(parts))
    return documents
