"""Ways to write a text so that people or machines can still read it and filters may not."""

from __future__ import annotations

import base64
import codecs
import html
import random
import urllib.parse
from collections.abc import Callable

__all__ = [
    "ENCODINGS",
    "HOMOGLYPHS",
    "LEET",
    "OPAQUE",
    "OPAQUE_SUBFAMILIES",
    "SUBFAMILY",
    "ZERO_WIDTH",
    "encode",
]

LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
# Latin letters and Cyrillic or Greek letters of the same shape.
HOMOGLYPHS = {
    "a": "\u0430",
    "c": "\u0441",
    "e": "\u0435",
    "i": "\u0456",
    "j": "\u0458",
    "o": "\u043e",
    "p": "\u0440",
    "s": "\u0455",
    "x": "\u0445",
    "y": "\u0443",
    "A": "\u0391",
    "B": "\u0412",
    "E": "\u0395",
    "H": "\u041d",
    "M": "\u039c",
    "O": "\u041e",
    "P": "\u0420",
    "T": "\u0422",
}
ZERO_WIDTH = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _base64(text: str, rng: random.Random) -> str:
    coder = rng.choice((base64.b64encode, base64.urlsafe_b64encode))
    return coder(_bytes(text)).decode()


def _hex(text: str, rng: random.Random) -> str:
    return _bytes(text).hex(rng.choice((" ", ":"))) if rng.random() < 0.4 else _bytes(text).hex()


def _rot13(text: str, rng: random.Random) -> str:
    return codecs.encode(text, "rot13")


def _substitute(table: dict[str, str], text: str, rng: random.Random) -> str:
    share = rng.uniform(0.5, 1.0)
    return "".join(table[char] if char in table and rng.random() < share else char for char in text)


def _leet(text: str, rng: random.Random) -> str:
    both = {**LEET, **{key.upper(): value for key, value in LEET.items()}}
    return _substitute(both, text, rng)


def _homoglyphs(text: str, rng: random.Random) -> str:
    return _substitute(HOMOGLYPHS, text, rng)


def _spacing(text: str, rng: random.Random) -> str:
    return rng.choice((" ", ".", "-", "_")).join(text)


def _zero_width(text: str, rng: random.Random) -> str:
    share = rng.uniform(0.15, 0.6)
    return "".join(char + rng.choice(ZERO_WIDTH) if rng.random() < share else char for char in text)


def _reversed(text: str, rng: random.Random) -> str:
    return text[::-1]


def _url(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return urllib.parse.quote(_bytes(text), safe="")
    return "".join(f"%{byte:02X}" for byte in _bytes(text))


def _html(text: str, rng: random.Random) -> str:
    style = rng.choice(("&#{};", "&#x{:x};"))
    share = rng.choice((0.5, 1.0))
    return "".join(
        style.format(ord(char)) if rng.random() < share else html.escape(char) for char in text
    )


ENCODINGS: dict[str, Callable[[str, random.Random], str]] = {
    "base64": _base64,
    "hex": _hex,
    "rot13": _rot13,
    "leet": _leet,
    "spacing": _spacing,
    "homoglyphs": _homoglyphs,
    "zero-width": _zero_width,
    "reversed": _reversed,
    "url": _url,
    "html": _html,
}
# Nothing of the text is left to the eye.
OPAQUE = frozenset({"base64", "hex", "rot13", "reversed", "url", "html"})
# Subfamilies of encoding_obfuscation whose texts have to be decoded to be read.
OPAQUE_SUBFAMILIES = frozenset({"base_n_encoding", "cipher", "escape_encoding"})
# The subfamily of encoding_obfuscation an attack belongs to once it is written so.
SUBFAMILY = {
    "base64": "base_n_encoding",
    "hex": "base_n_encoding",
    "rot13": "cipher",
    "reversed": "character_manipulation",
    "url": "escape_encoding",
    "html": "escape_encoding",
    "leet": "character_manipulation",
    "spacing": "character_manipulation",
    "homoglyphs": "unicode_obfuscation",
    "zero-width": "unicode_obfuscation",
}


def encode(kind: str, text: str, rng: random.Random) -> str:
    """``text`` written in the encoding ``kind`` (a key of ENCODINGS); the same seed gives the same
    text. Lone surrogates become '?' where bytes are encoded. Raises KeyError for another kind."""
    return ENCODINGS[kind](text, rng)
