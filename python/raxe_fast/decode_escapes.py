r"""Spans of a text in %XX, HTML character references, \uXXXX or Morse code."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote

from raxe_fast.decode_view import View, is_printable
from raxe_fast.lazy_pattern import lazy

__all__ = ["escape_views", "morse_views"]

_URL = lazy(r"(?:%[0-9a-fA-F]{2})+")
_HTML = lazy(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,9});")
_UNICODE = lazy(r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|u\{[0-9a-fA-F]{1,6}\}|U[0-9a-fA-F]{8})")
_WORD_BEFORE = lazy(r"[A-Za-z0-9]{0,24}\Z")
_WORD_AFTER = lazy(r"[A-Za-z0-9]{0,24}")
_MIN_ESCAPES = 6
_MAX_GAP = 64

_DOTS = "\u00b7\u2022\u2219\u22c5"
_DASHES = "\u2010\u2011\u2013\u2014\u2212"
_MORSE_LOOK_ALIKES = str.maketrans(_DOTS + _DASHES, "." * len(_DOTS) + "-" * len(_DASHES))
_LOOK_ALIKE_MORSE = lazy(f"[.{_DOTS}][ ]?[{_DASHES}]|[{_DOTS}][ ]?[-{_DASHES}]")
# Dots and dashes never match the separators, and the counts are bounded: no backtracking.
_MORSE = lazy(r"[.-]{1,7}(?:[\s/|'\"?!,:;()]{1,6}[.-]{1,7}){7,}")
_SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789.,?'!/()&:;=+-_\"$@"
_CODES = """
    .- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .--
    -..- -.-- --.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..--
    ..--.. .----. -.-.-- -..-. -.--. -.--.- .-... ---... -.-.-. -...- .-.-. -....- ..--.- .-..-.
    ...-..- .--.-.
"""
_MORSE_CODES = dict(zip(_CODES.split(), _SYMBOLS, strict=True))


def escape_views(text: str, limit: int) -> list[View]:
    """Spans with at least 6 escapes that make up at least 25 % of them, decoded in place.

    limit: characters wanted of a decoded text. The texts need not be readable.
    """
    views: list[View] = []
    if text.count("%") >= _MIN_ESCAPES:
        views += _decode("url", text, _URL, 3, limit)
    if "&" in text and text.count(";") >= _MIN_ESCAPES:
        views += _decode("html entities", text, _HTML, 0, limit)
    if "\\" in text:
        views += _decode("unicode escapes", text, _UNICODE, 0, limit)
    return views


def _decode(
    kind: str, text: str, pattern: re.Pattern[str], width: int, limit: int
) -> Iterator[View]:
    for begin, end in _dense_spans(text, pattern, width):
        if kind != "unicode escapes":  # of words half escaped the other half too
            begin, end = _whole_words(text, begin, end)
        span = text[begin:end][: limit * 10]
        if kind == "url":
            plain = unquote(span, errors="replace")
            if " " not in plain:
                plain = plain.replace("+", " ")
        elif kind == "html entities":
            plain = html.unescape(span)
        else:
            plain = _unescape(span)
            if plain[1:12:2].isspace():  # escapes set apart
                if "\\x" in span:
                    continue  # a list of codes
                plain = plain[::2]
        plain = plain[:limit]
        if is_printable(plain):
            yield View(kind, "escape_encoding", begin, end, plain)


def _whole_words(text: str, begin: int, end: int) -> tuple[int, int]:
    before = _WORD_BEFORE.search(text, max(0, begin - 24), begin)
    after = _WORD_AFTER.match(text, end)
    assert before is not None and after is not None  # both may be empty
    start = before.start()
    if start and text[start - 1] in "%&\\":
        start = begin  # that is an escape, of a sparser part
    return start, after.end()


def _dense_spans(text: str, pattern: re.Pattern[str], width: int) -> Iterator[tuple[int, int]]:
    """Maximal spans with 25 % of escapes, one pass. width: of one escape, 0: one per match."""
    begin = last = best_end = 0
    weight = best = count = best_count = 0
    for match in pattern.finditer(text):
        start, end = match.span()
        gap = start - last
        if count and (gap > weight or gap > _MAX_GAP):
            if best_count >= _MIN_ESCAPES:
                yield begin, best_end
            count = 0
        if not count:
            begin, weight, best, gap = start, 0, 0, 0
        weight += 3 * (end - start) - gap
        count += (end - start) // width if width else 1
        if weight >= best:
            best, best_end, best_count = weight, end, count
        last = end
    if count and best_count >= _MIN_ESCAPES:
        yield begin, best_end


def _unescape(span: str) -> str:
    plain = _UNICODE.sub(_one_escape, span)
    if "\\u" not in span and plain.isascii() is False:
        try:  # \xXX are bytes as often as code points
            return plain.encode("latin-1").decode("utf-8")
        except UnicodeError:
            return plain
    # Pairs of surrogates are one character; one alone becomes U+FFFD.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _one_escape(match: re.Match[str]) -> str:
    code = int(match.group()[2:].strip("{}"), 16)
    return chr(code) if code < 0x110000 else "\ufffd"


def morse_views(text: str, limit: int) -> list[View]:
    """Spans in Morse code. Words are parted by / or |, or else by two spaces or a line break."""
    if not text.isascii() and _LOOK_ALIKE_MORSE.search(text) is not None:
        text = text.translate(_MORSE_LOOK_ALIKES)
    if ".-" not in text and "-." not in text:
        return []
    views = []
    for match in _MORSE.finditer(text):
        run = match.group()[: limit * 8]
        words = re.split(r"[/|]" if "/" in run or "|" in run else r"\s{2,}|\n", run)
        symbols = known = 0
        plain: list[str] = []
        for word in words:
            codes = word.split()
            symbols += len(codes)
            letters = [_MORSE_CODES.get(code) for code in codes]
            known += sum(letter is not None for letter in letters)
            plain.append("".join(a or b for a, b in zip(letters, codes, strict=True)))
        result = " ".join(filter(None, plain))[:limit]
        if known >= 0.8 * symbols and len(set(result) - {" "}) >= 5 and is_printable(result):
            views.append(View("morse", "cipher", *match.span(), result))
    return views
