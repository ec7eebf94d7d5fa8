"""Spans of a text with its letters spelled apart or replaced by digits (leetspeak)."""

from __future__ import annotations

import re
from itertools import islice, product

from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.decode_ciphers import dense_words, word_spans
from raxe_fast.decode_view import View, strip_edges
from raxe_fast.lazy_pattern import lazy

__all__ = ["leet_views", "spacing_views"]

_LONG_WORDS = tuple(sorted(word for word in COMMON_WORDS if len(word) > 3))

_SPACED = lazy(r"(?<!\S)\S(?:\s{1,4}\S(?!\S)){5,}")
_SPACES = lazy(r"\s{2,}|\n")
# Starts at a character that is rare in prose, so a search is fast.
_SEPARATED = lazy(r"([-._*|/~+,])[A-Za-z]\1[A-Za-z]\1")
_MAX_SEPARATORS = 3
_MIN_SEPARATORS = 4
_MIN_SINGLE = 6


def _separated(separator: str) -> re.Pattern[str]:
    # A character and the separator; or the last of a word, white space, and another such word.
    s = re.escape(separator)
    next_word = rf"(?=[^{s}\s](?:{s}|\s[^{s}\s]{s}))"
    return lazy(rf"(?:[^{s}]{s}{{1,2}}|\w\s{{1,3}}{next_word}){{4,}}[^{s}\s]?")


_SEPARATORS = "-._*|/~+,"
_RUNS = {separator: _separated(separator) for separator in _SEPARATORS}


def spacing_views(text: str, lengths: list[int]) -> list[View]:
    """Spans such as "i g n o r e   a l l" or "i-g-n-o-r-e", with the letters put together.

    lengths: of the words of the text, parted by white space.
    """
    views = []
    if _has_single_run(lengths):
        for match in _SPACED.finditer(text):
            run = match.group()
            parts = _SPACES.split(run)
            plain = " ".join("".join(part.split()) for part in parts)
            views += _spelled(plain, match.span())
    if not _has_separators(text) or _SEPARATED.search(text) is None:
        return views
    separators = {match.group(1) for match in islice(_SEPARATED.finditer(text), 64)}
    for separator in sorted(separators)[:_MAX_SEPARATORS]:
        for match in _RUNS[separator].finditer(text):
            begin, end = match.span()
            if text[begin + 1 : begin + 2].isspace():
                begin += 2  # the end of the word before
            run = text[begin:end]
            if not any(map(str.isspace, run)):
                run = run.replace(2 * separator, " ")
            begin += len(run) - len(run.lstrip())
            views += _spelled(run.replace(separator, "").strip(), (begin, end))
    return views


def _has_separators(text: str) -> bool:
    """Whether some separator occurs often, and not as punctuation before a space."""
    for separator in _SEPARATORS:
        count = text.count(separator)
        if count >= _MIN_SEPARATORS and count - text.count(separator + " ") >= _MIN_SEPARATORS:
            return True
    return False


def _has_single_run(lengths: list[int]) -> bool:
    if lengths.count(1) < _MIN_SINGLE:
        return False
    try:
        return b"\x01" * _MIN_SINGLE in bytes(lengths)
    except ValueError:  # a word longer than a byte can tell
        return True


def _spelled(plain: str, span: tuple[int, int]) -> list[View]:
    sample = plain[:1024]
    letters = sum(map(str.isalpha, sample))
    if letters < 5 or letters < 0.6 * len(sample):
        return []
    lowered = sample.lower()
    words = {strip_edges(word) for word in lowered.split()}
    if any(len(word) > 2 for word in COMMON_WORDS.intersection(words)) or any(
        word in lowered for word in _LONG_WORDS
    ):
        return [View("spacing", "character_manipulation", *span, plain)]
    return []


_LEET = str.maketrans("034578962@$!|+", "oeastbggzasiit")
_LEET_WORD = lazy(r"[A-Za-z0-9@$!|+]+")
_LEET_PAIR = lazy(r"[0-9@$!][A-Za-z]")
_AMBIGUOUS = lazy(r"[1|!]")
_MIN_PAIRS = 3
_MAX_AMBIGUOUS = 3
_MAX_LETTERS = 24
_STRONG = 4
_LONGEST_COMMON = max(map(len, COMMON_WORDS))


def leet_views(text: str, words: list[str], limit: int) -> list[View]:
    """The region in leetspeak: words of letters and digits that become common English words.

    words: of the lower-cased text, parted by white space. limit: characters wanted of a decoded
    text.
    """
    if len(list(islice(_LEET_PAIR.finditer(text), _MIN_PAIRS))) < _MIN_PAIRS:
        return []
    known = {word: _leet_weight(word.strip("\"'`.,;:?()[]{}<>*#~")) for word in set(words)}
    weights = [known[word] for word in words]
    region = dense_words(words, weights)
    if region is None or not any(map(_STRONG.__le__, weights[slice(*region)])):
        return []
    begin, end = word_spans(text, weights, *region)
    plain = _LEET_WORD.sub(lambda match: _unleet(match.group()), text[begin:end][:limit])
    return [View("leetspeak", "character_manipulation", begin, end, plain)]


def _leet_weight(word: str) -> int:
    if word.isalpha() or not word.isascii():
        return -3 if word in COMMON_WORDS and len(word) > 2 else 0 if len(word) < 3 else -1
    if not 1 < len(word) <= _MAX_LETTERS or word.isdigit() or not _has_letter(word):
        return 0
    if _known(word) is None:
        return -1 if word.isalnum() and len(word) > 12 else 0
    return _STRONG if len(word) > 2 else 2  # two letters may be anything, as in a hex dump


def _has_letter(word: str) -> bool:
    return any(map(str.isalpha, word))


def _known(word: str) -> str | None:
    """The common word that a lower-case leet word stands for."""
    if len(word) > _LONGEST_COMMON:
        return None
    spots = [match.start() for match in _AMBIGUOUS.finditer(word)]
    if len(spots) > _MAX_AMBIGUOUS:
        return None
    plain = list(word.translate(_LEET))
    for choice in product("il", repeat=len(spots)):
        for spot, letter in zip(spots, choice, strict=True):
            plain[spot] = letter
        candidate = "".join(plain)
        if candidate in COMMON_WORDS:
            return candidate
    return None


def _unleet(word: str) -> str:
    """Any word of a region in leetspeak; unknown ones by what letter is likelier in its place."""
    if word.isalpha() or len(word) > _MAX_LETTERS:
        return word
    end = len(word.rstrip("!+|"))  # an exclamation mark at the end is just that
    lowered = word[:end].lower()
    known = _known(lowered)
    if known is None:
        plain = lowered.translate(_LEET)
        known = "".join(
            _one(plain, i) if char == "1" else plain[i] for i, char in enumerate(lowered)
        )
    if word[:1].isupper():
        known = known[:1].upper() + known[1:]
    return known + word[end:]


def _one(plain: str, i: int) -> str:
    before, after = plain[i - 1 : i], plain[i + 1 : i + 2]
    if not after or before in ("1", "b", "p", "f") or after in ("1", "y"):
        return "l"  # all, able, plan, only
    if after in "aeiou":
        return "l" if not before or before in "aeious" else "i"
    return "i"
