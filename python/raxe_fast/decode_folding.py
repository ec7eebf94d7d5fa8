"""Texts with invisible characters, look-alike letters or letters in fancy styles, made plain."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from string import ascii_letters
from unicodedata import normalize as nfkc

from raxe_fast._core import normalize
from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.decode_view import MIN_DECODED, View, is_printable
from raxe_fast.lazy_pattern import lazy

__all__ = ["folded_views", "hidden_views"]

# Default-ignorable characters; the joiners and selectors of ordinary scripts and emoji are told
# from hidden ones by the Latin letters beside them.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef"
)
_STYLED = (
    "\u0261\u0262\u026a\u0274\u0280\u028f\u0299\u029c\u029f\u02b0-\u02b8\u02e1-\u02e3\u1d00-\u1dbf\u2070-\u209c\u2102-\u2149\u2160-\u217f\u2460-\u24ff"
    "\ua730-\ua7ff\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff\U0001f110-\U0001f189"
)
_MARKS = "\u0334-\u0338\u0488\u0489\u20d0-\u20e2\u20e4-\u20f0"
# Greek, Cyrillic, Armenian, Cherokee and Lisu: where letters look like Latin ones.
_FOREIGN = "\u0370-\u03ff\u0400-\u052f\u0531-\u0587\u13a0-\u13fd\ua4d0-\ua4f7"

_ODD = lazy(f"[{_IGNORABLE}{_STYLED}{_MARKS}\u0300-\u036f]")
_ANY_ODD = lazy(f"[{_IGNORABLE}{_STYLED}{_MARKS}\u0300-\u036f{_FOREIGN}]")
_IGNORABLES = lazy(f"[{_IGNORABLE}]+")
_STYLED_WORD = lazy(f"[{_STYLED}]+")
_MARK_RUN = lazy(f"[{_MARKS}]|[\u0300-\u036f]{{3,}}")
_ANY_MARK = lazy(f"[{_MARKS}\u0300-\u036f]")
_FOREIGN_LETTER = lazy(f"[{_FOREIGN}]")
_MIXED = lazy(f"[{_FOREIGN}](?:(?=[A-Za-z])|(?<=[A-Za-z][{_FOREIGN}]))")
_WORD = lazy(r"[^\W\d_]+")

_MIN_CHANGED = 5
_MIN_SHARE = 0.15
_CONTEXT = 256

_TAG_RUN = lazy("[\U000e0020-\U000e007e]{2,}")
_SELECTORS = lazy("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_BLACK_FLAG = "\U0001f3f4"
_MIN_TAGS = 4


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    """The ASCII letter that a character stands for, in its case; else the character itself."""
    folded = normalize(char)[0]
    if len(folded) != 1 or not folded.isascii() or not folded.isalpha():
        return char
    # Letters of mathematics are capitals only by what they stand for.
    return folded.upper() if char.isupper() or nfkc("NFKC", char).isupper() else folded


def hidden_views(text: str, limit: int) -> list[View]:
    """Text in characters that do not show: tag characters, and bytes in variation selectors."""
    views = []
    parts: list[str] = []
    begin = end = 0
    for match in _TAG_RUN.finditer(text):
        start, stop = match.span()
        if stop - start < 8 and start and text[start - 1] == _BLACK_FLAG:
            continue  # the flag of England, Scotland or Wales
        if not parts:
            begin = start
        end = stop
        parts.append(match.group())
    tags = "".join(parts)
    if len(tags) >= _MIN_TAGS:
        hidden = "".join(chr(ord(char) - 0xE0000) for char in tags[:limit])
        views.append(View("tag characters", "unicode_obfuscation", begin, end, hidden))
    for match in _SELECTORS.finditer(text):
        raw = bytes(map(_selected, match.group()[: limit * 4]))
        hidden = raw.decode("utf-8", "replace")[:limit]
        if len(hidden) >= MIN_DECODED and is_printable(hidden):
            kind = "variation selectors"
            views.append(View(kind, "unicode_obfuscation", *match.span(), hidden))
    return views


def _selected(char: str) -> int:
    code = ord(char)
    return code - 0xFE00 if code < 0xE0000 else code - 0xE0100 + 16


def folded_views(text: str, limit: int) -> list[View]:
    """The text in plain letters, if enough of its letters are not: 5, or 15 % of some word.

    Words of one foreign script stay, unless they look like common English ones in a text that is
    otherwise Latin. Of a text longer than ``limit`` the part from shortly before the first such
    character is taken.
    """
    if (first := _ANY_ODD.search(text)) is None:
        return []
    begin, end = 0, len(text)
    if end > limit:
        begin = max(0, first.start() - _CONTEXT)
        end = min(end, begin + limit + _CONTEXT)
        text = text[begin:end]
    changed: dict[str, int] = {}
    folded = text
    if _ODD.search(text) is not None:
        folded = _without_ignorables(folded, changed)
        folded = _without_marks(folded, changed)
        folded = _without_styles(folded, changed)
    if _FOREIGN_LETTER.search(folded) is not None:
        folded = _without_look_alikes(folded, changed)
    if not changed or folded == text:
        return []
    kind = max(changed, key=lambda kind: changed[kind])
    return [View(kind, "unicode_obfuscation", begin, end, folded[:limit])]


def _is_latin(char: str) -> bool:
    return char.isascii() and char.isalpha()


def _latin_letters(text: str) -> int:
    raw = text.encode("ascii", "ignore")
    return len(raw) - len(raw.translate(None, ascii_letters.encode()))


def _without_ignorables(text: str, changed: dict[str, int]) -> str:
    count = 0
    within = False
    for match in _IGNORABLES.finditer(text):
        begin, end = match.span()
        before, after = text[begin - 1 : begin], text[end : end + 1]
        if _is_latin(before) or _is_latin(after):
            count += 1
            within |= _is_latin(before) and _is_latin(after)
            if count >= _MIN_CHANGED:
                break
    if count >= _MIN_CHANGED or (within and _splits_a_word(text)):
        changed["invisible characters"] = len(text) - len(plain := _IGNORABLES.sub("", text))
        return plain
    return text


def _splits_a_word(text: str) -> bool:
    """Whether some ignorable character is 15 % of a word's letters. Few are left to look at."""
    for match in _IGNORABLES.finditer(text):
        begin, end = match.span()
        head, tail = text[max(0, begin - 8) : begin], text[end : end + 8]
        before = len(head) - len(head.rstrip(ascii_letters))
        after = len(tail) - len(tail.lstrip(ascii_letters))
        if before and after and _MIN_SHARE * (before + after) <= 1:
            return True
    return False


def _without_marks(text: str, changed: dict[str, int]) -> str:
    """Without strokes through letters and piles of marks; one or two accents stay."""
    if len(list(islice(_MARK_RUN.finditer(text), _MIN_CHANGED))) < _MIN_CHANGED:
        return text
    plain = _ANY_MARK.sub("", text)
    changed["combining marks"] = len(text) - len(plain)
    return plain


def _without_styles(text: str, changed: dict[str, int]) -> str:
    letters = {char: _plain(char) for char in set(text) if _ODD.match(char)}
    table = {ord(char): plain for char, plain in letters.items() if plain != char}
    if not table:
        return text
    width = style = 0
    for match in _STYLED_WORD.finditer(text):
        run = match.group()
        if run.translate(table).isascii():  # not so for phonetic spelling
            if "\uff21" <= run[0] <= "\uff5a":
                width += len(run)
            else:
                style += len(run)
    if width + style < _MIN_CHANGED:
        return text
    changed["fullwidth" if width > style else "homoglyphs"] = width + style
    if width:  # spaces and punctuation of the same width
        table |= {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
    return text.translate(table)


def _without_look_alikes(text: str, changed: dict[str, int]) -> str:
    mixed = _MIXED.search(text) is not None
    latin = _latin_letters(text)
    if not mixed and 2 * latin < len(text) - len(text.encode("ascii", "ignore")):
        return text  # Greek or Cyrillic prose
    foreign = set(_FOREIGN_LETTER.findall(text))
    table = {ord(char): plain for char in foreign if (plain := _plain(char)) != char}
    if not table:
        return text
    words = {word for word in _WORD.findall(text) if not word.isascii()}
    folds = {word: word.translate(table) for word in words}
    # Letters of words that are what they seem, and of those that may be.
    genuine = sum(len(word) for word, plain in folds.items() if not plain.isascii())
    doubtful = sum(len(word) for word, plain in folds.items() if plain.isascii())
    mostly_latin = latin > 3 * genuine and 2 * latin > doubtful
    if not mixed and not mostly_latin:
        return text
    total = 0
    share = 0.0
    replaced: dict[str, str] = {}
    for word, plain in folds.items():
        if not plain.isascii():
            continue
        count = sum(a != b for a, b in zip(word, plain, strict=True))
        common = plain.lower() in COMMON_WORDS
        if count < len(word):  # a word of two scripts; short ones may be units or formulas
            if len(word) < 3 and not common:
                continue
            if len(word) > 2 and (common or count > 1):
                share = max(share, count / len(word))
        elif not mostly_latin or not (common or mixed):
            continue
        elif common and len(word) > 2 and not mixed:
            share = 1.0
        total += count
        replaced[word] = plain
    if total < _MIN_CHANGED and share < _MIN_SHARE:
        return text
    changed["homoglyphs"] = changed.get("homoglyphs", 0) + total
    return _WORD.sub(lambda match: replaced.get(match.group(), match.group()), text)
