"""Whether what a text says decoded is read in place of how it is spelt.

A harmless text in spaced letters or backwards looks suspicious to an encoder that never met such
spelling; what it says does not. So where a view is a re-spelling of the whole text, the view is
read and the text as it stands is not. An attacker would like that to happen to an attack that can
be read as it stands, and the view to be harmless, so a view takes a text's place only if

- it covers all of the text: outside of its span stand no letters or digits in any script, and at
  most 16 other characters; and nothing of the span was cut off (texts of over 8,192 characters are
  always read as they stand);
- it reads like text from end to end; and
- nothing can be read in the text that the view does not say too. What that takes depends on the
  kind:

  - *codes* (base64, hex, Morse and so on, also nested in each other): the span holds nothing but
    their alphabet, and of base64 and base32 hardly any common word;
  - *hidden characters*: nothing else in the span is a letter or digit;
  - *escapes* (URL, HTML, ``\\u``): either all letters and digits are escaped, or none is, so that
    no escape joins or parts words;
  - *foldings* (homoglyphs, full width, marks, invisible characters, leetspeak): the view keeps
    letter for letter what a reader sees, so only words that could run together are looked for;
  - *spacing*: no two letters stand together, the view has the same letters, and it has word gaps;
  - *ciphers* (rot13, Caesar, Atbash, reversed letters): of any four words in a row the view's are
    spelt more like English than the text's own, so are those of any two in a row that have five
    letters, short ones left out, and no word of seven is much less so. Words in reversed order are
    all plain, so a text of them is read as it stands, and so is pig Latin.

In all of them no passage of words may stand in the text as it stands in the view (16 letters in
a row): text that is only partly re-spelt, or padded with re-spelt words, is read as it stands. The
view is read then, too; the price of a doubt is what it was before, time and a false alarm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from raxe_fast.common_words import COMMON_WORDS
from raxe_fast.decode import MAX_DECODED, find_views
from raxe_fast.decode_view import View, is_readable
from raxe_fast.lazy_pattern import lazy
from raxe_fast.letter_pairs import spelling_bits

__all__ = ["Parts", "parts_of"]

_CODES = frozenset({"base64", "base32", "hex", "binary", "decimal codes", "octal codes", "morse"})
_HIDDEN = frozenset({"tag characters", "variation selectors"})
_ESCAPES = {
    "url": lazy("%[0-9a-fA-F]{2}"),
    "html entities": lazy("&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);"),
    "unicode escapes": lazy(
        r"\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|u\{[0-9a-fA-F]{1,6}\}|U[0-9a-fA-F]{8})"
    ),
}
_LOOK_ALIKES = frozenset({"homoglyphs", "fullwidth", "combining marks", "invisible characters"})
_CIPHERS = frozenset({"rot13", "caesar", "atbash", "reversed", "reversed words"})

_MAX_OUTSIDE = 16
_CHUNK = 1024  # what is_readable looks at
_LEAST_CHUNK = 64
_PLAIN_LETTERS = 16
_IDEOGRAPH = 4  # a letter of the scripts that need no spaces says as much as so many others
_IDEOGRAPHS = "\u2e80-\ufeff"

# What shows as a blank or turns the order of reading is no mere noise between letters.
_IGNORABLE = "\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200e\u200f\u202a-\u202e\u2065-\u206f"
_NOT_NOISE = lazy(f"[{_IGNORABLE}\u3164\uffa0\U000e0000-\U000e01ef]")

_WORD = lazy(r"[^\W\d_]+")
# Nothing parts ideographs from what is written beside them.
_SCRIPT_WORD = lazy(rf"(?:(?=[{_IDEOGRAPHS}])[^\W\d_])+|(?:(?![{_IDEOGRAPHS}])[^\W\d_])+")
_CORE = lazy(r"[^\W\d_](?:.*[^\W\d_])?", re.DOTALL)
_TOGETHER = lazy(r"[^\W_]{2}")
_COMMON = lazy("|".join(sorted(w for w in COMMON_WORDS if len(w) > 4)), re.IGNORECASE)
_GLUED = lazy(r"[A-Za-z][!|+]+[A-Za-z]|[A-Za-z]{2}[@$]+[A-Za-z]{2}")
_SPELLED_WORD = 15
_SPELLED_MEAN = 7
# (fewest letters of a word, words in a row, bits that the view's have to be better by, at least)
_BETTER_SPELT = ((0, 4, 0.0), (5, 2, 0.0), (7, 1, -2.0))
_FOREIGN_BITS = 4.0


@dataclass(frozen=True, slots=True)
class Parts:
    """A text (part 0) and its views (part 1 and on).

    ``place``: the part that is read for the whole text: 0, it itself, or a view in its place.
    ``left_out``: the text has more encoded parts than these; see
    :class:`~raxe_fast.decode.Found`.
    """

    views: tuple[View, ...]
    place: int
    left_out: bool = False

    def read(self) -> list[int]:
        """The parts that an encoder reads, the one for the whole text first: all, but for the text
        where a view takes its place."""
        if not self.views:
            return [0]
        others = range(1, len(self.views) + 1)
        return [self.place, *(part for part in others if part != self.place)]

    def texts(self, text: str) -> list[str]:
        """The texts of these parts, in the same order."""
        return [self.views[part - 1].text if part else text for part in self.read()]


_AS_IT_STANDS = Parts((), 0)


def parts_of(text: str, max_chars: int | None = None) -> Parts:
    """What to read of a text: the one decision for scanner, batches and training.

    No view takes the place of a text of more than ``max_chars`` characters: it is to be read in
    part, not its view in full. Raises nothing for any str.
    """
    views, left_out = find_views(text)
    if not views and not left_out:
        return _AS_IT_STANDS
    if max_chars is not None and len(text) > max_chars:
        return Parts(views, 0, left_out)
    # The one that says most, where several would do.
    numbers = sorted(range(len(views)), key=lambda number: -len(views[number].text))
    for number in numbers:
        if _stands_for(text, views[number]):
            return Parts(views, number + 1, left_out)
    return Parts(views, 0, left_out)


def _stands_for(text: str, view: View) -> bool:
    """Whether the view may be read in place of the text; see the module's text."""
    if view.cut or len(text) > MAX_DECODED or not _covers(text, view):
        return False
    span = text[view.begin : view.end]
    # Of escapes what stands between two of them is plain; between spaces it is not.
    words = _tokens if view.kind in _ESCAPES else _words
    if not _loses_nothing(span, view) or _has_plain_passage(words(span), words(view.text)):
        return False
    return _reads_like_text(view.text)


def _covers(text: str, view: View) -> bool:
    outside = "".join((text[: view.begin] + text[view.end :]).split())
    return len(outside) <= _MAX_OUTSIDE and not _has_letters(outside)


def _loses_nothing(span: str, view: View) -> bool:
    kind = view.kind
    if set(kind.split(" > ")) <= _CODES:
        return len(_COMMON.findall(span)) < 2
    if kind in _HIDDEN:
        return not _has_letters(span)
    if kind in _ESCAPES:
        return _is_escaped_evenly(span, view.text, _ESCAPES[kind])
    if kind in _LOOK_ALIKES:
        return _NOT_NOISE.search(span) is None
    if kind == "leetspeak":
        return _leet_keeps_words_apart(span)
    if kind == "spacing":
        return _is_spelled_out(span, view.text)
    return kind in _CIPHERS and _is_enciphered(span, view.text)


def _has_letters(text: str) -> bool:
    return any(map(str.isalnum, text))


def _reads_like_text(text: str) -> bool:
    chunks = [text[i : i + _CHUNK] for i in range(0, len(text), _CHUNK)]
    if len(chunks) > 1 and len(chunks[-1]) < _LEAST_CHUNK:
        chunks[-2:] = [chunks[-2] + chunks[-1]]
    return all(map(is_readable, chunks))


def _words(text: str) -> Iterable[str]:
    """The runs of letters, in lower case."""
    return _SCRIPT_WORD.findall(text.lower())


def _tokens(text: str) -> Iterable[str]:
    """What stands between spaces, in lower case from its first letter to its last."""
    for token in text.lower().split():
        if (match := _CORE.search(token)) is not None:
            yield match.group()


def _has_plain_passage(span: Iterable[str], plain: Iterable[str]) -> bool:
    """Whether words that say the same in both stand in a row in the span, 16 letters of them."""
    known = set(plain)
    letters = 0
    for word in span:
        letters = letters + sum(map(_letters, word)) if word in known else 0
        if letters >= _PLAIN_LETTERS:
            return True
    return False


def _letters(char: str) -> int:
    return _IDEOGRAPH if "\u2e80" <= char <= "\ufeff" else 1


def _is_escaped_evenly(span: str, plain: str, escape: re.Pattern[str]) -> bool:
    """Whether all letters and digits are escaped, or none and the words are the same in both."""
    rest = escape.sub(" ", span)
    if not _has_letters(rest):
        return True
    # As many letters as stand unescaped, in the same words: no escape is one.
    return _WORD.findall(rest) == _WORD.findall(plain) and sum(map(str.isalnum, rest)) == sum(
        map(str.isalnum, plain)
    )


def _leet_keeps_words_apart(span: str) -> bool:
    """Whether no sign that stands for a letter, or digit, could part words of the span."""
    if _GLUED.search(span) is not None:
        return False
    for token in span.lower().split():
        if not token.isalpha():
            words = [word for word in _WORD.findall(token) if len(word) > 2]
            if len(words) > 1 and len(COMMON_WORDS.intersection(words)) > 1:
                return False
    return True


def _is_spelled_out(span: str, plain: str) -> bool:
    """Whether the span's letters stand apart, are all in the plain text, and make words there."""
    if _TOGETHER.search(span) is not None:
        return False
    if list(filter(str.isalnum, span)) != list(filter(str.isalnum, plain)):
        return False
    lengths = [len(word) for word in _WORD.findall(plain)]
    return max(lengths) <= _SPELLED_WORD and sum(lengths) <= _SPELLED_MEAN * len(lengths)


def _is_enciphered(span: str, plain: str) -> bool:
    """Whether all words, few in a row, are spelt more like English in the plain text."""
    before, after = span.split(), plain.split()
    if len(before) != len(after):
        return False
    if plain == span[::-1]:
        after.reverse()
    gains = [
        (sum(map(str.isalpha, coded)), _gain(coded, word))
        for coded, word in zip(before, after, strict=True)
    ]
    for letters, length, least in _BETTER_SPELT:
        row = [gain for size, gain in gains if size >= letters]
        if any(sum(row[i : i + length]) <= least for i in range(len(row) - length + 1)):
            return False
    return sum(gain for _, gain in gains) > 0


def _gain(coded: str, word: str) -> float:
    """Bits by which a word is more English; letters that no cipher changes count against it."""
    foreign = sum(char.isalpha() and not char.isascii() for char in coded)
    return spelling_bits(coded) - spelling_bits(word) - _FOREIGN_BITS * foreign
