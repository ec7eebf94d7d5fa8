"""Spans of a text in base64, base32, hex, binary or as lists of character codes."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from bisect import bisect
from dataclasses import replace

from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.decode_view import View, is_printable, strip_edges
from raxe_fast.lazy_pattern import lazy

__all__ = ["base_n_views", "code_list_views"]

# One class and no more: every start either fails within the minimum or is consumed, so linear.
_RUN = lazy(r"[A-Za-z0-9+/_-]{16,}={0,6}")
_SHORT_RUN = lazy(r"[A-Za-z0-9+/_-]{10,}={0,6}")
_TAIL = lazy(r"[ \t>]{0,4}\r?\n[ \t>]{0,4}([A-Za-z0-9+/_-]{1,15}={0,6})(?![A-Za-z0-9])")
_LONG_RUN = 16
_MAX_BREAK = 8

_BINARY = frozenset("01")
_HEX = frozenset("0123456789abcdefABCDEF")
_BASE32 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_URL_SAFE = str.maketrans("-_", "+/")

# A digit, then only what lists of codes are made of: seldom true of prose, and quickly refuted.
_GATE = lazy(r"[0-9][0-9a-fA-FxXoO\\,;:\s-]{21}")
_REGION = lazy(r"[0-9a-fA-FxXoO\\,;:\s-]{22,}")
_HEX_SIGN = lazy(r"[a-fA-FxX]")
_CONVINCING = 1.2
_SEPARATOR = r"[\s,;:-]{1,3}"


def _sequence(item: str, at_least: int) -> re.Pattern[str]:
    return lazy(f"(?<![0-9A-Za-z]){item}(?:{_SEPARATOR}{item}){{{at_least - 1},}}")


# Items are bounded and separators disjoint from them; past the minimum a match cannot fail.
_SEQUENCES = (
    ("binary", "base_n_encoding", 2, _sequence(r"[01]{7,8}", 5)),
    ("decimal codes", "escape_encoding", 10, _sequence(r"[0-9]{2,3}", 8)),
    ("octal codes", "escape_encoding", 8, _sequence(r"(?:\\|0o)?[0-7]{2,3}", 8)),
    ("hex", "base_n_encoding", 16, _sequence(r"(?:0x|\\x)?[0-9a-fA-F]{2}", 8)),
)
_OCTAL_ESCAPES = lazy(r"\\[0-7]{3}(?:[\s,]{0,3}\\[0-7]{3}){7,}")
_SEPARATORS = lazy(r"[\s,;:-]+")
_SEPARATING = " \t\n\r,;:-"
_PREFIX = lazy(r"0[xXoO]|\\x?")


def base_n_views(text: str, limit: int) -> list[View]:
    """Unbroken runs in binary, hex, base32 or base64, also over several lines.

    limit: characters wanted of a decoded text. The texts are printable but need not be readable.
    """
    padded = "=" in text
    groups: list[list[tuple[int, int]]] = []
    last = -9  # where the run before ends
    for match in (_SHORT_RUN if padded else _RUN).finditer(text):
        begin, end = match.span()
        run = match.group()
        if end - begin < _LONG_RUN and run[-1] != "=":
            continue
        if run.isalpha() and run[1:].islower():
            continue  # a long word
        if begin - last <= _MAX_BREAK and _is_line_break(text[last:begin]):
            groups[-1].append((begin, end))
        else:
            groups.append([(begin, end)])
        last = end
    # All of them, however many: a limit would let the longest hide the others.
    return [view for group in groups for view in _decode_group(text, group, limit)]


def _is_line_break(gap: str) -> bool:
    return "\n" in gap and not gap.strip(" \t\r\n>")


def _decode_group(text: str, group: list[tuple[int, int]], limit: int) -> list[View]:
    begin, end = group[0][0], group[-1][1]
    joined = "".join(text[b:e] for b, e in group)
    view = _decode_run(joined, begin, end, limit)
    if view is not None and joined[-1] != "=" and (tail := _TAIL.match(text, end)):
        # A short last line, unless it decodes to something else than text.
        longer = _decode_run(joined + tail.group(1), begin, tail.end(1), limit)
        if longer is not None and longer.kind == view.kind and longer.text > view.text:
            return [longer]
    if view is not None:
        return [view]
    if len(group) == 1:
        return []
    # Runs that only happen to stand below each other.
    single = (_decode_run(text[b:e], b, e, limit) for b, e in group)
    return [view for view in single if view is not None]


def _decode_run(run: str, begin: int, end: int, limit: int) -> View | None:
    core = run.rstrip("=")
    if core[:2] in ("0x", "0X"):
        core = core[2:]
    core = core[: limit * 8]  # enough for any of them
    letters = set(core)
    raw: bytes | None = None
    if letters <= _BINARY:
        kind = "binary"
        if len(core) % 8 == 0:
            raw = int(core, 2).to_bytes(len(core) // 8, "big")
    elif letters <= _HEX:
        kind = "hex"
        raw = bytes.fromhex(core[: len(core) & ~1])
    else:
        raw = _base32(core) if letters <= _BASE32 else None
        if raw is not None and (plain := _as_text(raw, limit)) is not None:
            return View("base32", "base_n_encoding", begin, end, plain)
        kind, raw = "base64", _base64(core, limit)
    if raw is not None and (plain := _as_text(raw, limit)) is not None:
        return View(kind, "base_n_encoding", begin, end, plain)
    return None


def _base32(core: str) -> bytes | None:
    # 1, 3 and 6 left over are no whole number of bytes.
    whole = len(core) - (len(core) % 8 in (1, 3, 6))
    try:
        return base64.b32decode(core[:whole] + "=" * (-whole % 8))
    except binascii.Error:
        return None


def _base64(core: str, limit: int) -> bytes | None:
    core = core[: limit * 6].translate(_URL_SAFE)
    whole = len(core) - (len(core) % 4 == 1)
    try:
        return binascii.a2b_base64(core[:whole] + "=" * (-whole % 4))
    except binascii.Error:
        return None


def _as_text(raw: bytes, limit: int) -> str | None:
    """The bytes as text, UTF-8 or UTF-16 with Latin letters; None if they are something else."""
    if len(raw) >= 16 and not any(raw[1:64:2]):
        raw = raw[::2]  # UTF-16, as Windows' command lines have it
    try:
        # A character cut off at the end is no error.
        plain = codecs.getincrementaldecoder("utf-8")().decode(raw)
    except UnicodeDecodeError:
        return None
    plain = plain[:limit]
    return plain if is_printable(plain) else None


def code_list_views(text: str, limit: int) -> list[View]:
    r"""Lists of character codes: binary, hex, octal (with or without \) or decimal, separated.

    Where a list can be read in several ways, the one that looks most like English. The texts are
    printable but need not be readable.
    """
    found: list[tuple[float, View]] = []
    if "\\" in text:
        for match in _OCTAL_ESCAPES.finditer(text):
            # One more than enough, so that it shows where there are more.
            items = _PREFIX.sub(" ", match.group()[: limit * 15]).replace(",", " ").split()
            found += _rated("octal codes", "escape_encoding", match.span(), items, 8, limit)
    if _GATE.search(text) is not None:
        for region in _REGION.finditer(text):
            begin, end = region.span()
            lists = _region_lists(text, begin, min(end, begin + 8 * limit), limit)
            if end > begin + 8 * limit:
                lists = [(mark, replace(view, cut=True)) for mark, view in lists]
            found += lists
    found.sort(key=lambda rated: -rated[0])
    return _without_overlaps([view for _, view in found])


def _without_overlaps(views: list[View]) -> list[View]:
    """The views that overlap with none before them."""
    kept: list[View] = []
    borders: list[int] = []  # begin and end of each that is kept, in the order of the text
    for view in views:
        at = bisect(borders, view.begin)
        # Between two that are kept, and not past the next one's begin.
        if at % 2 == 0 and (at == len(borders) or view.end <= borders[at]):
            borders[at:at] = (view.begin, view.end)
            kept.append(view)
    return kept


def _region_lists(text: str, start: int, stop: int, limit: int) -> list[tuple[float, View]]:
    """The lists within [start, stop), with marks. The likely readings come first."""
    found: list[tuple[float, View]] = []
    # Plain digits are least likely hex, anything else can hardly be but hex.
    order = -1 if _HEX_SIGN.search(text, start, stop) is not None else 1
    for kind, subfamily, base, pattern in _SEQUENCES[::order]:
        for match in pattern.finditer(text, start, stop):
            begin, end = match.span()
            body = match.group()
            if end < len(text) and text[end].isalnum():  # the last item is part of something longer
                body = body[: max(map(body.rfind, _SEPARATING))].rstrip(_SEPARATING)
                end = begin + len(body)
            if base != 10:
                body = _PREFIX.sub("", body)
            items = _SEPARATORS.split(body)
            found += _rated(kind, subfamily, (begin, end), items, base, limit)
        if any(mark > _CONVINCING and 2 * (v.end - v.begin) > stop - start for mark, v in found):
            break
    return found


def _rated(
    kind: str, subfamily: str, span: tuple[int, int], items: list[str], base: int, limit: int
) -> list[tuple[float, View]]:
    """The list as text with a mark for how English it looks; empty if it is no text."""
    try:
        codes = [int(item, base) for item in items[: limit * 2] if item]
    except ValueError:  # the prefix of a cut item
        return []
    plain = _from_codes(codes)[:limit]
    if not is_printable(plain):
        return []
    words = [strip_edges(word) for word in plain[:1024].lower().split()]
    known = sum(word in COMMON_WORDS for word in words)
    common = sum(char.isalpha() or char == " " for char in plain[:1024]) / min(len(plain), 1024)
    cut = len(items) > limit * 2
    return [(known / (len(words) + 1) + common, View(kind, subfamily, *span, plain, cut))]


def _from_codes(codes: list[int]) -> str:
    if max(codes, default=0) < 256:
        try:
            return bytes(codes).decode("utf-8")
        except UnicodeDecodeError:
            pass
    return "".join(map(chr, codes))
