"""Puts a text beside others that have nothing to do with it.

Mean pooling drowns a short attack in whatever stands around it: in front of an unrelated page an
attack that is blocked alone may pass. The same padding around harmless texts keeps two topics in
one text from looking like an attack.
"""

from __future__ import annotations

import math
import random
import re
from typing import Literal

from raxe_fast.training.augment_carriers import Insertion

__all__ = ["SIDES", "Side", "pad", "piece_of"]

Side = Literal["before", "after", "both"]
# Where the padding stands; an attacker buries what the model is to do last.
SIDES: tuple[Side, ...] = ("before", "before", "after", "both")
_JOINTS = ("\n\n", "\n\n", "\n", " ", "\n---\n", "\n\n\n")
_BORDER = re.compile(r"(?<=[.!?;\u3002\uff01\uff1f])\s+|\n+")
# A word longer than this is cut.
_NEAR = 80


def piece_of(text: str, chars: tuple[int, int], rng: random.Random) -> str:
    """About as many characters of a text as a log-uniform draw from ``chars`` says, from a
    sentence's beginning on, up to the end of a word. Shorter texts come whole."""
    text = text.strip()
    low, high = chars
    size = round(math.exp(rng.uniform(math.log(low), math.log(high))))
    if len(text) <= size:
        return text
    starts = [0, *(m.end() for m in _BORDER.finditer(text) if m.end() + size <= len(text))]
    start = rng.choice(starts)
    end = start + size
    # To the end of the word, where that is near.
    rest = re.match(r"\S*", text[end : end + _NEAR])
    return text[start : end + len(rest.group() if rest else "")].strip()


def pad(text: str, paddings: tuple[str, str], side: Side, rng: random.Random) -> Insertion:
    """``text``, put behind the first padding, before the second, or between both."""
    head = paddings[0] + rng.choice(_JOINTS) if side != "after" else ""
    tail = rng.choice(_JOINTS) + paddings[1] if side != "before" else ""
    return Insertion(head + text + tail, len(head), len(head) + len(text))
