"""What a decoder finds, and the test for whether it is text."""

from __future__ import annotations

from dataclasses import dataclass

from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.lazy_pattern import lazy

__all__ = ["MIN_DECODED", "View", "is_printable", "is_readable", "strip_edges"]

MIN_DECODED = 8
"""The fewest characters that a decoded span has to have."""

_EDGES = "\"'`.,;:!?()[]{}<>*#~"
_CONTROL = lazy("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
_LETTERS = bytes([*range(65, 91), *range(97, 123)])
_LOWER = bytes(range(97, 123))
_SPACES = b" \t\n\r"
_VOWELS = b"aeiouyAEIOUY"
_PLAIN_SPACES = frozenset(" \t\n\r")
_SAMPLE = 1024
_SPACELESS = "\u0e00"  # from here on, Thai being the first, scripts part words by no spaces


@dataclass(frozen=True, slots=True)
class View:
    """What an encoded span of a text says.

    ``kind`` names the encoding, "base64 > hex" for nested ones from the outermost in;
    ``subfamily`` is that of the outermost. ``begin`` and ``end``: what was decoded, code points
    [begin, end) of the original text. ``text``: the plain text; of nested ones that of the outer
    with the inner decoded in its place. ``cut``: a limit left some of the span undecoded.
    """

    kind: str
    subfamily: str
    begin: int
    end: int
    text: str
    cut: bool = False


def strip_edges(token: str) -> str:
    """The token without the punctuation around it."""
    return token.strip(_EDGES)


def is_printable(text: str) -> bool:
    """Whether a decoded text is long enough and holds hardly any control or replacement characters:
    none of 19, one of 20 may be."""
    return len(text) >= MIN_DECODED and 20 * len(_CONTROL.findall(text)) <= len(text)


def is_readable(text: str, needs_words: bool = False) -> bool:
    """Whether a printable text reads like prose: mostly letters and spaces, in plausible shares.

    needs_words: a space or a common English word is required too, for encodings in which plain
    numbers can pass for letters. Looks at the first 1,024 characters.
    """
    sample = text[:_SAMPLE]
    size = len(sample)
    if size < MIN_DECODED:
        return False
    if not sample.isascii():
        letters = sum(map(str.isalpha, sample))
        spaces = sum(map(str.isspace, sample))
        # Rows of numbers up to 999 are letters of many kinds, but of no script without spaces; of
        # the spaces there that with the code 160 is as likely as any.
        if needs_words and max(sample) < _SPACELESS and _PLAIN_SPACES.isdisjoint(sample):
            return False
        return letters >= 0.5 * size and letters + spaces >= 0.65 * size
    raw = sample.encode("ascii")
    letters = size - len(raw.translate(None, _LETTERS))
    spaces = size - len(raw.translate(None, _SPACES))
    if letters < 0.5 * size or letters + spaces < 0.65 * size:
        return False
    words = [strip_edges(word) for word in sample.lower().split()]
    known = sum(len(word) > 2 and word in COMMON_WORDS for word in words)
    if known and known * 12 >= len(words):
        return True
    if needs_words and not spaces:
        return False
    vowels = size - len(raw.translate(None, _VOWELS))
    lower = size - len(raw.translate(None, _LOWER))
    # Prose without a single known word, most likely another language.
    return 0.2 * letters <= vowels <= 0.7 * letters and (
        lower >= 0.7 * letters or (spaces > 0 and letters <= 14 * len(words))
    )
