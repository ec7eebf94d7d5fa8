"""Text with its words in reversed order, told by how English function words follow each other."""

from __future__ import annotations

from itertools import pairwise

from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.decode_view import View, strip_edges
from raxe_fast.lazy_pattern import lazy

__all__ = ["english_order", "word_order_views"]

# Of two English words in this order the first introduces the second; the other way it is rare.
_INTRODUCING = "a an the to of in on at for my your our their this all how any as"
_INTRODUCES = frozenset(_INTRODUCING.split())
_PREPOSING = "of to in on at for from with by about into all is and"
_PREPOSITIONS = frozenset(_PREPOSING.split())
_NEITHER = "or but are was were be has had have do does did if when who i you he she it they we not"
_INTRODUCED = COMMON_WORDS - _INTRODUCES - _PREPOSITIONS - frozenset(_NEITHER.split())
_ARTICLES = frozenset(["a", "an", "the", "my", "your", "our", "their", "this"])

# Hardly any English text holds one, and most with the words reversed hold some.
_SIGN = lazy(
    r" (?:the|your|my) (?:of|to|in|on|for|from|with|all|and|is|as|at|out|are)(?![\w'-])"
    r"| me (?:tell|give|show|help)(?![\w'-])| you do (?:how|what|why)(?![\w'-])"
)
_SEGMENT = lazy(r"[^\n:]+")
_MIN_PAIRS = 2


def english_order(words: list[str]) -> int:
    """How many pairs of neighbours are in the order usual in English. Lower-case words."""
    return sum(
        (a in _INTRODUCES and b in _INTRODUCED) or (a in _PREPOSITIONS and b in _ARTICLES)
        for a, b in pairwise(words)
    )


def word_order_views(text: str, lowered: str) -> list[View]:
    """Lines, or what follows a colon in them, with the words in reversed order."""
    if len(lowered) != len(text) or _SIGN.search(lowered) is None:
        return []
    views = []
    for match in _SEGMENT.finditer(text):
        segment = match.group()
        if _SIGN.search(lowered, *match.span()) is None:
            continue
        words = [strip_edges(word) for word in segment.lower().split()]
        backward = english_order(words[::-1])
        if backward < _MIN_PAIRS or backward <= 2 * english_order(words):
            continue
        begin = match.start() + len(segment) - len(segment.lstrip())
        end = match.end() - len(segment) + len(segment.rstrip())
        plain = " ".join(reversed(segment.split()))
        views.append(View("reversed words", "character_manipulation", begin, end, plain))
    return views
