"""Puts a payload into a harmless document where such a document would hold a text."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Literal

from raxe_fast.training.augment_templates import HTML_WRAPPERS, TEXT_WRAPPERS

__all__ = ["PLACES", "Insertion", "Kind", "Place", "carrier_kind", "insert_payload"]

Kind = Literal["email", "page", "json", "code", "table", "text"]
Place = Literal["start", "middle", "end"]
PLACES: tuple[Place, ...] = ("start", "middle", "end")

_SENTENCE = re.compile(r"[.!?;]\s+|\n+")
_BETWEEN_TAGS = re.compile(r"(?<=>)(?=\s*<)")
_JSON_VALUE = re.compile(r'[:\[,]\s*"((?:[^"\\]|\\.)*)"(?=\s*[,}\]])')
_CELL_END = re.compile(r"(?<=[\w.)%])(?= *\|)")
_CODE = re.compile(
    r"^\s*(?:def |class |import |from \w+ import |#include|function |const |let |var |public "
    r"|package |fn |func |return\b)|[{};]\s*$",
    re.MULTILINE,
)
_HEADER = re.compile(r"^(?:from|to|subject|date|sent|cc):", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Insertion:
    """A document with a payload. ``text[begin:end]`` is what was put in; without it the text is
    the carrier, character for character."""

    text: str
    begin: int
    end: int


def carrier_kind(text: str) -> Kind:
    """What kind of document a text looks like."""
    stripped = text.strip()
    if stripped[:1] in "{[" and stripped[-1:] in "}]" and _JSON_VALUE.search(text):
        return "json"
    if len(re.findall(r"</?[a-zA-Z][^>]*>", text)) >= 4:
        return "page"
    if len(_HEADER.findall(text)) >= 2:
        return "email"
    if len(re.findall(r"^.*\|.*\|.*$", text, re.MULTILINE)) >= 3:
        return "table"
    lines = text.count("\n") + 1
    if lines >= 4 and len(_CODE.findall(text)) * 4 >= lines:
        return "code"
    return "text"


def insert_payload(
    carrier: str,
    payload: str,
    kind: Kind,
    place: Place,
    rng: random.Random,
    *,
    wrap: bool = True,
) -> Insertion:
    """``carrier`` with ``payload`` at its start, end, or at a border strictly inside.

    Start and end are the first and last border that documents of the kind have: the first and
    last string of JSON, cell of a table, gap between tags of a page, line of code; of other
    texts their very ends. JSON strings get the payload escaped, tables on one line and with '/'
    for '|', code as a comment or a string constant, everything else inside one of the wrappers of
    augment_templates, or as it is if not ``wrap``. A document without the borders of its kind is
    treated as plain text.
    """
    if kind == "json":
        borders = [match.end(1) for match in _JSON_VALUE.finditer(carrier)]
        if borders:
            escaped = json.dumps(payload, ensure_ascii=False)[1:-1]
            return _insert(carrier, _choose(borders, place, rng), " " + escaped)
    if kind == "table":
        borders = [match.start() for match in _CELL_END.finditer(carrier)]
        if borders:
            cell = " ".join(payload.replace("|", "/").split())
            return _insert(carrier, _choose(borders, place, rng), " " + cell)
    if kind == "page":
        borders = [match.start() for match in _BETWEEN_TAGS.finditer(carrier)]
        if borders:
            piece = (rng.choice(HTML_WRAPPERS) if wrap else "{a}").replace("{a}", payload)
            return _insert(carrier, _choose(borders, place, rng), piece)
    if kind == "code":
        return _into_code(carrier, payload, place, rng)
    wrapper = rng.choice(TEXT_WRAPPERS) if wrap else "{a}"
    return _into_text(carrier, wrapper.replace("{a}", payload), place, rng)


def _choose(borders: list[int], place: Place, rng: random.Random) -> int:
    if place == "start":
        return borders[0]
    if place == "end":
        return borders[-1]
    return rng.choice(borders[1:-1] or borders)


def _insert(carrier: str, at: int, piece: str) -> Insertion:
    return Insertion(carrier[:at] + piece + carrier[at:], at, at + len(piece))


def _into_text(carrier: str, piece: str, place: Place, rng: random.Random) -> Insertion:
    gap = rng.choice((" ", "\n", "\n\n"))
    if place == "start":
        return _insert(carrier, 0, piece + gap)
    if place == "end":
        return _insert(carrier, len(carrier), gap + piece)
    size = len(carrier)
    borders = [m.end() for m in _SENTENCE.finditer(carrier) if 0 < m.end() < size]
    borders = borders or [m.end() for m in re.finditer(r"\s+", carrier) if 0 < m.end() < size]
    return _insert(carrier, rng.choice(borders) if borders else size // 2, gap + piece + gap)


def _into_code(carrier: str, payload: str, place: Place, rng: random.Random) -> Insertion:
    hash_lines = len(re.findall(r"^\s*(?:#|def |import |from )", carrier, re.MULTILINE))
    slashes = carrier.count("//") + len(re.findall(r"[;{]\s*$", carrier, re.MULTILINE))
    marker = "//" if slashes > hash_lines else "#"
    starts = [0, *(m.end() for m in re.finditer(r"\n", carrier) if m.end() < len(carrier))]
    at = len(carrier) if place == "end" else _choose([*starts, len(carrier)], place, rng)
    indent = re.match(r"[ \t]*", carrier[at:])
    margin = indent.group() if indent else ""
    if rng.random() < 0.3:
        value = json.dumps(payload, ensure_ascii=False)
        lines = [f"const note = {value};" if marker == "//" else f"NOTE = {value}"]
    else:
        lines = [f"{marker} {line}".rstrip() for line in payload.splitlines() or [payload]]
    piece = "\n".join(margin + line for line in lines)
    if at == len(carrier):
        return _insert(carrier, at, "\n" + piece)
    return _insert(carrier, at, piece + "\n")
