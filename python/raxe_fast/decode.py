"""Decodes what a text holds in other spellings, so that a scanner can look at what it says.

Runs on every text scanned: most texts show no sign of any encoding, so that one pass of the core
(:mod:`raxe_fast.decode_signs`) is all that they cost, and any text costs time in proportion to its
length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from raxe_fast.decode_ciphers import cipher_views, pig_latin_views
from raxe_fast.decode_escapes import escape_views, morse_views
from raxe_fast.decode_folding import folded_views, hidden_views
from raxe_fast.decode_order import word_order_views
from raxe_fast.decode_signs import (
    ALL_SIGNS,
    BASE_N,
    CIPHER,
    CODE_LIST,
    ESCAPES,
    FOLDED,
    HIDDEN,
    LEET,
    MORSE,
    PIG_LATIN,
    SPACING,
    WORD_ORDER,
    signs_of,
)
from raxe_fast.decode_spans import base_n_views, code_list_views
from raxe_fast.decode_spelling import leet_views, spacing_views
from raxe_fast.decode_view import View, is_readable

__all__ = ["MAX_DECODED", "MAX_VIEWS", "Found", "View", "decoded_views", "find_views"]

MAX_DECODED = 8192
"""The most characters of a view's text, unless asked otherwise."""
MAX_VIEWS = 8
"""The most views of a text, unless asked otherwise."""

# Decoders of single bytes or numbers: plain numbers can pass for letters there.
_NUMERIC = frozenset({"hex", "binary", "decimal codes", "octal codes"})
_SPANS = frozenset({"base64", "base32", "url", "html entities", "unicode escapes"}) | _NUMERIC
# Views' characters looked through for another encoding, in units of the most that one may have.
_MAX_OPENED = 16
_IN_WORDS = LEET | SPACING | CIPHER | WORD_ORDER | PIG_LATIN


class Found(NamedTuple):
    """What the encoded parts of a text say, in the order of their begins.

    ``left_out``: a limit kept others back that say something, too, or kept from looking whether
    they do.
    """

    views: tuple[View, ...]
    left_out: bool


_NOTHING = Found((), False)


def decoded_views(
    text: str,
    *,
    max_views: int = MAX_VIEWS,
    max_chars: int = MAX_DECODED,
    max_depth: int = 2,
    all_decoders: bool = False,
) -> list[View]:
    """The views of :func:`find_views`; empty if there are none."""
    found = find_views(
        text,
        max_views=max_views,
        max_chars=max_chars,
        max_depth=max_depth,
        all_decoders=all_decoders,
    )
    return list(found.views)


def find_views(
    text: str,
    *,
    max_views: int = MAX_VIEWS,
    max_chars: int = MAX_DECODED,
    max_depth: int = 2,
    all_decoders: bool = False,
) -> Found:
    """What the encoded parts of a text say, and whether a limit left any of them out.

    max_views: the most views to return; the longest texts are kept. max_chars: the most characters
    of a view's text; what is encoded beyond is left out, and the view says that it is cut.
    max_depth: how many encodings may be nested for a view, 1 for none within another. Views within
    another of the same kind are dropped. all_decoders: run them all, not only those of which the
    text shows a sign (:mod:`raxe_fast.decode_signs`): the same views, for tests. Raises nothing for
    any str; ValueError for a limit below 1.
    """
    if min(max_views, max_chars, max_depth) < 1:
        raise ValueError(f"limits must be at least 1: {max_views=}, {max_chars=}, {max_depth=}")
    signs = ALL_SIGNS if all_decoders else signs_of(text, max_chars)
    if not signs:
        return _NOTHING
    candidates = _candidates(text, max_chars, signs)
    if not candidates:
        return _NOTHING
    # What reads like text comes first: the rest is looked at only for what it may hold in turn,
    # and must not keep the others out.
    ranked = [(view, _stands_alone(view)) for view in candidates]
    ranked.sort(key=lambda pair: (not pair[1], -len(pair[0].text)))
    opener = _Opener(max_chars, max_depth, all_decoders)
    kept: list[View] = []
    full = False
    for view, stands_alone in ranked:
        if view.text == text[view.begin : view.end]:
            continue
        inner = opener.open(view)
        if inner is not None:
            view = inner
        elif not stands_alone:
            continue
        if any(_within(view, other) for other in kept):
            continue
        if len(kept) == max_views:
            full = True
            break
        kept.append(view)
    kept.sort(key=lambda view: (view.begin, view.end, view.kind))
    return Found(tuple(kept), full or opener.left_out)


class _Opener:
    """Looks for encodings within the views of one text, as long as they are not too much text.

    ``left_out``: something in a view that was opened is still encoded, or a view that may hold
    something was not opened.
    """

    def __init__(self, max_chars: int, max_depth: int, all_decoders: bool) -> None:
        self.left_out = False
        self._max_chars = max_chars
        self._max_depth = max_depth
        self._all_decoders = all_decoders
        self._room = _MAX_OPENED * max_chars

    def open(self, view: View) -> View | None:
        """The view with what is encoded in its plain text decoded there, if most of it is."""
        if self._max_depth == 1:
            return None
        if self._room <= 0:
            # Only what shows a sign could have held anything.
            self.left_out = self.left_out or signs_of(view.text, self._max_chars) != 0
            return None
        self._room -= len(view.text)
        views, left_out = find_views(
            view.text,
            max_views=1,
            max_chars=self._max_chars,
            max_depth=self._max_depth - 1,
            all_decoders=self._all_decoders,
        )
        if not views or 2 * (views[0].end - views[0].begin) < len(view.text):
            return None
        # The text itself shows what other kinds of view leave encoded: there it is looked for, too.
        self.left_out = self.left_out or (left_out and view.kind in _SPANS)
        return _nested(view, views[0], self._max_chars)


def _candidates(text: str, limit: int, signs: int) -> list[View]:
    """All single layers of encoding of which there are signs; those of spans need not be
    readable."""
    found: list[View] = []
    lowered, words = "", []
    if signs & _IN_WORDS:
        lowered = text.lower()
        words = lowered.split()
    if signs & BASE_N:
        found += base_n_views(text, limit)
    if signs & CODE_LIST:
        found += code_list_views(text, limit)
    if signs & LEET:
        found += leet_views(text, words, limit)
    if signs & ESCAPES:
        found += escape_views(text, limit)
    if signs & MORSE:
        found += morse_views(text, limit)
    if signs & SPACING:
        found += spacing_views(text, list(map(len, words)))
    if signs & CIPHER:
        found += cipher_views(text, words)
    if signs & WORD_ORDER:
        found += word_order_views(text, lowered)
    if signs & PIG_LATIN:
        found += pig_latin_views(text, lowered, words, limit)
    if signs & HIDDEN:
        found += hidden_views(text, limit)
    if signs & FOLDED:
        found += folded_views(text, limit)
    return [_limited(view, limit) for view in found]


def _stands_alone(view: View) -> bool:
    """Whether the view's text is worth showing as it is."""
    return view.kind not in _SPANS or is_readable(view.text, view.kind in _NUMERIC)


def _limited(view: View, limit: int) -> View:
    """The view with at most ``limit`` characters. Decoders look at no more than 8 characters of a
    span for each that is wanted (those that look at less say themselves what they cut)."""
    if len(view.text) < limit and view.end - view.begin <= 8 * limit:
        return view
    # Of exactly as many characters as are allowed nobody knows whether there were more.
    return replace(view, text=view.text[:limit], cut=True)


def _nested(view: View, inner: View, max_chars: int) -> View:
    """The view with the inner one decoded in its place."""
    kind = f"{view.kind} > {inner.kind}"
    plain = view.text[: inner.begin] + inner.text + view.text[inner.end :]
    cut = view.cut or inner.cut or len(plain) > max_chars
    return View(kind, view.subfamily, view.begin, view.end, plain[:max_chars], cut)


def _within(view: View, other: View) -> bool:
    return view.kind == other.kind and other.begin <= view.begin and view.end <= other.end
