"""Decodes what a text holds in other spellings, so that a scanner can look at what it says.

Runs on every text scanned: most texts show no sign of any encoding, so that one pass of the core
(:mod:`raxe_fast.decode_signs`) is all that they cost, and any text costs time in proportion to its
length.
"""

from __future__ import annotations

from dataclasses import replace

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

__all__ = ["MAX_DECODED", "View", "decoded_views"]

MAX_DECODED = 8192
"""The most characters of a view's text, unless asked otherwise."""

# Decoders of single bytes or numbers: plain numbers can pass for letters there.
_NUMERIC = frozenset({"hex", "binary", "decimal codes", "octal codes"})
_SPANS = frozenset({"base64", "base32", "url", "html entities", "unicode escapes"}) | _NUMERIC
_MAX_OPENED = 16
_IN_WORDS = LEET | SPACING | CIPHER | WORD_ORDER | PIG_LATIN


def decoded_views(
    text: str,
    *,
    max_views: int = 4,
    max_chars: int = MAX_DECODED,
    max_depth: int = 2,
    all_decoders: bool = False,
) -> list[View]:
    """What the encoded parts of a text say, in the order of their begins; empty if there are none.

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
        return []
    found = _candidates(text, max_chars, signs)
    if not found:
        return []
    # What reads like text comes first: the rest is looked at only for what it may hold in turn,
    # and must not keep the others out.
    ranked = [(view, _stands_alone(view)) for view in found]
    ranked.sort(key=lambda pair: (not pair[1], -len(pair[0].text)))
    kept: list[View] = []
    opened = 0
    for view, stands_alone in ranked:
        if len(kept) == max_views or opened == _MAX_OPENED:
            break
        if view.text == text[view.begin : view.end]:
            continue
        inner = None
        if max_depth > 1:
            opened += 1
            inner = _inner(view, max_chars, max_depth, all_decoders)
        if inner is not None:
            view = inner
        elif not stands_alone:
            continue
        if not any(_within(view, other) for other in kept):
            kept.append(view)
    kept.sort(key=lambda view: (view.begin, view.end, view.kind))
    return kept


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


def _inner(view: View, max_chars: int, max_depth: int, all_decoders: bool) -> View | None:
    """The view with what is encoded in its plain text decoded there, if most of it is encoded."""
    views = decoded_views(
        view.text,
        max_views=1,
        max_chars=max_chars,
        max_depth=max_depth - 1,
        all_decoders=all_decoders,
    )
    if not views or 2 * (views[0].end - views[0].begin) < len(view.text):
        return None
    inner = views[0]
    kind = f"{view.kind} > {inner.kind}"
    plain = view.text[: inner.begin] + inner.text + view.text[inner.end :]
    cut = view.cut or inner.cut or len(plain) > max_chars
    return View(kind, view.subfamily, view.begin, view.end, plain[:max_chars], cut)


def _within(view: View, other: View) -> bool:
    return view.kind == other.kind and other.begin <= view.begin and view.end <= other.end
