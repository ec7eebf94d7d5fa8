"""The definition of a trigger match, done the slow and obvious way: the oracle for TriggerSet.

Only the normaliser is the core's own; words are split by `unicodedata`, and every placing of a
phrase is tried.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raxe_fast import _core

MAX_MATCHES_PER_TRIGGER = 8

Span = tuple[int, int]
Match = tuple[int, int, int]

_UNSPACED = (
    "CJK UNIFIED",
    "HIRAGANA",
    "KATAKANA",
    "IDEOGRAPHIC",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
)


@dataclass(frozen=True)
class Word:
    text: str
    begin: int
    end: int


def char_kind(char: str) -> str:
    category = unicodedata.category(char)
    if not (char == "_" or category[0] in "LN" or category == "Mc"):
        return "separator"
    if category[0] in "LM" and unicodedata.name(char, "").startswith(_UNSPACED):
        return "unspaced"
    return "word"


def split_words(chars: str, origins: Sequence[int]) -> list[Word]:
    words: list[Word] = []
    grows = False
    for char, origin in zip(chars, origins, strict=True):
        kind = char_kind(char)
        if kind == "word" and grows:
            last = words.pop()
            words.append(Word(last.text + char, last.begin, origin + 1))
        elif kind != "separator":
            words.append(Word(char, origin, origin + 1))
        grows = kind == "word"
    return words


def element_matches(element: dict[str, Any], word: str) -> bool:
    return word in element["words"] or any(word.startswith(p) for p in element["prefixes"])


def placings(phrase: Sequence[dict[str, Any]], words: Sequence[Word], at: int) -> Iterator[int]:
    """Ends (word indices) of all placings of `phrase` whose first element is the word `at`."""
    if not element_matches(phrase[0], words[at].text):
        return
    if len(phrase) == 1:
        yield at
        return
    for following in range(at + 1, min(at + 2 + phrase[1]["max_gap"], len(words))):
        yield from placings(phrase[1:], words, following)


def phrase_spans(phrase: Sequence[dict[str, Any]], words: Sequence[Word]) -> set[Span]:
    latest: dict[int, int] = {}
    for begin in range(len(words)):
        for end in placings(phrase, words, begin):
            latest[end] = max(begin, latest.get(end, -1))
    return {(words[begin].begin, words[end].end) for end, begin in latest.items()}


def literal_spans(literal: str, chars: str, origins: Sequence[int]) -> set[Span]:
    size = len(literal)
    return {
        (origins[i], origins[i + size - 1] + 1)
        for i in range(len(chars) - size + 1)
        if chars[i : i + size] == literal
    }


def all_spans(trigger: dict[str, Any], text: str) -> set[Span]:
    spans: set[Span] = set()
    for separate in (False, True):
        chars, origins = _core.normalize(text, separate)
        words = split_words(chars, origins)
        for phrase in trigger["phrases"]:
            spans |= phrase_spans(phrase, words)
        for literal in trigger["literals"]:
            spans |= literal_spans(literal, chars, origins)
    return spans


def match(triggers: Sequence[dict[str, Any]], text: str) -> list[Match]:
    """(trigger, begin, end), sorted by (begin, end, trigger), as `TriggerSet.match` promises."""
    found: list[Match] = []
    for index, trigger in enumerate(triggers):
        by_end = sorted(all_spans(trigger, text), key=lambda span: (span[1], span[0]))
        found += [(index, begin, end) for begin, end in by_end[:MAX_MATCHES_PER_TRIGGER]]
    return sorted(found, key=lambda m: (m[1], m[2], m[0]))
