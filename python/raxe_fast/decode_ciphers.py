"""Spans of a text in a cipher that keeps the words apart: Caesar, Atbash, reversed, pig Latin.

They are found by the common words that they would hold once deciphered. All forms that a common
word takes are known in advance, so that one look at each word of a text serves for all ciphers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from string import ascii_lowercase, ascii_uppercase

from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.decode_order import english_order
from raxe_fast.decode_view import View, strip_edges
from raxe_fast.lazy_pattern import lazy

__all__ = ["AY_WORDS", "FORMS", "cipher_views", "dense_words", "pig_latin_views", "word_spans"]

_WORD = lazy(r"\S+")
_CORE = lazy(r"\w(?:[\w'\u2019-]*\w)?")
_MARKS = ".,;:?!"
_REVERSED = 0  # transforms: 0, the shifts 1 to 25, then Atbash
_ATBASH = 26
_MAX_TRIED = 3
_MAX_EXTENSION = 12


def _table(transform: int) -> dict[int, int]:
    """The str.translate table that deciphers."""
    order = range(25, -1, -1) if transform == _ATBASH else range(transform, transform + 26)
    return str.maketrans(
        "".join(ascii_lowercase[i % 26] + ascii_uppercase[i % 26] for i in order),
        "".join(map("".join, zip(ascii_lowercase, ascii_uppercase, strict=True))),
    )


_TABLES = [{}, *map(_table, range(1, 27))]


def _coded(words: list[str], transform: int) -> list[str]:
    """The words as the transform that deciphers would find them."""
    if transform == _REVERSED:
        return [word[::-1] for word in words]
    # The table that enciphers is that of the opposite shift; Atbash is its own inverse.
    table = _TABLES[transform if transform == _ATBASH else 26 - transform]
    return " ".join(words).translate(table).split(" ")  # at once: this is part of each start


def _forms() -> dict[str, int]:
    words = sorted(word for word in COMMON_WORDS if len(word) > 2)
    forms: dict[str, int] = {}
    for transform in range(27):
        bit = 1 << transform
        for coded in _coded(words, transform):
            forms[coded] = forms.get(coded, 0) | bit
    for word in COMMON_WORDS.intersection(forms):
        del forms[word]
    return forms


FORMS = _forms()
"""What common words become in ciphers: a bit for each transform that deciphers it."""
_ALL_FORMS = frozenset(FORMS)


@cache
def _weights(transform: int) -> dict[str, int]:
    """What a word says for (4) or against (-4) being enciphered thus."""
    weights = dict.fromkeys(COMMON_WORDS, -4)
    for coded in _coded(list(COMMON_WORDS), transform):
        weights[coded] = 0 if coded in COMMON_WORDS else 4
    weights[""] = 0
    return weights


def cipher_views(text: str, words: list[str]) -> list[View]:
    """Regions in a Caesar cipher (ROT13 too), in Atbash or reversed.

    words: of the lower-cased text, parted by white space.
    """
    hits = _ALL_FORMS.intersection(words)
    if len(hits) < 2:
        return []
    tally = Counter({t: sum(FORMS[word] >> t & 1 for word in hits) for t in range(27)})
    views = []
    for transform, count in tally.most_common(_MAX_TRIED):
        if count < 2:
            break
        table = _weights(transform)
        get = table.get
        weights = [get(strip_edges(word), -1) for word in words]
        region = dense_words(words, weights)
        if region is None:
            continue
        begin, end = word_spans(text, weights, *region)
        span = text[begin:end]
        if transform == _REVERSED:
            kind, plain = _unreverse(span)
            views.append(View(kind, "character_manipulation", begin, end, plain))
        else:
            plain = span.translate(_TABLES[transform])
            kind = {13: "rot13", _ATBASH: "atbash"}.get(transform, "caesar")
            views.append(View(kind, "cipher", begin, end, plain))
    return views


def dense_words(words: list[str], weights: list[int]) -> tuple[int, int] | None:
    """The words [i, j) with the greatest sum of weights, if they are convincing.

    Convincing: different words of positive weight, at least 3, or 2 that are half of the region;
    a quarter of the region; 8 letters in all.
    """
    best = total = first = 0
    begin = end = 0
    for i, weight in enumerate(weights):
        if total <= 0:
            total, first = 0, i
        total += weight
        if total > best:
            best, begin, end = total, first, i + 1
    found = {words[i] for i in range(begin, end) if weights[i] > 0}
    count = sum(weight > 0 for weight in weights[begin:end])
    enough = len(found) >= 3 or (len(found) == 2 and 2 * count >= end - begin)
    if enough and 4 * count >= end - begin and sum(map(len, found)) >= 8:
        return begin, end
    return None


def word_spans(text: str, weights: list[int], first: int, last: int) -> tuple[int, int]:
    """The code points of the words [first, last), and of the words around them that could belong
    to them: those on the same line that are not known to be something else."""
    low = max(0, first - _MAX_EXTENSION)
    spans = [m.span() for m in islice(_WORD.finditer(text), low, last + _MAX_EXTENSION)]
    i, j = first - low, last - low
    while i > 0:
        begin, end = spans[i - 1]
        gap = text[end : spans[i][0]]
        if weights[low + i - 1] < -1 or text[end - 1] in ":" or "\n" in gap:
            break
        if not any(map(str.isalnum, text[begin:end])):
            break
        i -= 1
    while j < len(spans):
        begin, end = spans[j]
        gap = text[spans[j - 1][1] : begin]
        if weights[low + j] < -1 or "\n" in gap or not any(map(str.isalnum, text[begin:end])):
            break
        j += 1
    return spans[i][0], spans[j - 1][1]


def _unreverse(span: str) -> tuple[str, str]:
    """Whether the words or the whole were reversed, by which of the two is more English."""
    tokens = span.split()
    words = [strip_edges(token)[::-1] for token in span.lower().split()]
    in_place = 2 * (english_order(words) - english_order(words[::-1]))
    # Where the sentence begins with a capital and ends with its mark; marks left in their places.
    in_place += 3 * (_ends_like_a_start(tokens[0]) - _ends_like_a_start(tokens[-1]))
    in_place += 3 * ((tokens[-1][0] in _MARKS) - (tokens[0][0] in _MARKS))
    in_place += 3 * sum(token[-1] in _MARKS and len(token) > 1 for token in tokens)
    if in_place > 0:
        return "reversed words", _WORD.sub(lambda match: _reverse_word(match.group()), span)
    return "reversed", span[::-1]


def _ends_like_a_start(token: str) -> bool:
    core = strip_edges(token)
    return core[-1:].isupper() and core[:-1].islower()


def _reverse_word(token: str) -> str:
    if token[0] in _MARKS:
        return token[::-1]
    return _CORE.sub(lambda match: match.group()[::-1], token)


_AY_LIST = """
    ay okay pay bay hay lay nay ray gray clay pray tray spray stay relay display delay essay array
    birthday holiday weekday monday tuesday wednesday thursday friday saturday sunday everyday
    yesterday payday midday highway subway gateway railway runway pathway doorway hallway anyway
    portray betray sway decay dismay replay overlay subarray halfway norway maybay okay x-ray
"""
AY_WORDS = frozenset(_AY_LIST.split())
_ONSET_LIST = """
    str spr scr spl thr shr sch squ bl br ch cl cr dr fl fr gl gr ph pl pr qu sc sh sk sl sm sn sp
    st sw th tr tw wh wr kn
"""
_ONSETS = frozenset(_ONSET_LIST.split())
_LETTERS = lazy(r"[A-Za-z]+(?:'[a-z]+)?")


def pig_latin_views(text: str, lowered: str, words: list[str], limit: int) -> list[View]:
    """The region in pig Latin: "ignoreway allway eviouspray", or with single letters moved."""
    if lowered.count("ay") < 3:
        return []
    ending = {strip_edges(word) for word in words if "ay" in word}
    if sum(_pig_weight(word) > 0 for word in ending) < 3:
        return []
    weights = [_pig_weight(strip_edges(word)) for word in words]
    region = dense_words(words, weights)
    if region is None:
        return []
    begin, end = word_spans(text, weights, *region)
    span = text[begin:end]
    plain = _LETTERS.sub(lambda match: _from_pig(match.group()), span[: 2 * limit])
    if not _has_common_words(plain, 2):
        return []
    return [View("pig latin", "cipher", begin, end, plain, len(span) > 2 * limit)]


def _pig_weight(word: str) -> int:
    if word[-2:] == "ay" and len(word) > 3 and word not in AY_WORDS and word not in COMMON_WORDS:
        return 4
    return -4 if word in COMMON_WORDS else -2


def _has_common_words(text: str, at_least: int) -> bool:
    words: Iterable[str] = (strip_edges(word) for word in text.lower().split())
    return len(COMMON_WORDS.intersection(words)) >= at_least


def _from_pig(word: str) -> str:
    lowered = word.lower()
    if len(word) < 3 or lowered[-2:] != "ay" or lowered in AY_WORDS or lowered in COMMON_WORDS:
        return word
    plain = _unpig(lowered[:-2])
    recase: Callable[[str], str] = str if word == lowered else str.capitalize
    return recase(plain)


def _unpig(stem: str) -> str:
    candidates = [stem[-k:] + stem[:-k] for k in (1, 2, 3) if k < len(stem)]
    if stem[-1] in "wyh" and len(stem) > 1:
        candidates.append(stem[:-1])
    candidates.append(stem)
    for candidate in candidates:
        if candidate in COMMON_WORDS:
            return candidate
    if stem[-1] in "wy" and stem[0] in "aeiou":
        return stem[:-1]
    for k in (3, 2):
        if stem[-k:] in _ONSETS and len(stem) > k:
            return stem[-k:] + stem[:-k]
    return candidates[0]
