"""Where texts come from: arguments, standard input, .txt, .jsonl and .csv files (also .gz).

What holds no text (an office document, a PDF) must not pass as a clean one. Bad lines do not end a
scan: they come out as :class:`BadInput`, in order, between the texts.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["BadInput", "Item", "read_inputs"]

_KINDS = (".txt", ".jsonl", ".csv")
_GZIP_ERRORS = (OSError, EOFError, zlib.error)
_GZIP = b"\x1f\x8b"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# How what is no text begins.
_NO_TEXT = {
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"%PDF-": "a PDF document",
    _GZIP: "gzip data",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One text; ``line`` is 1-based, ``None`` for a whole file or an argument. ``id`` is the
    record's own, if it has one."""

    text: str
    source: str
    line: int | None = None
    id: str | int | None = None

    @property
    def where(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class BadInput:
    """Input that could not be read as a text."""

    message: str
    source: str
    line: int | None = None

    @property
    def where(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


def read_inputs(
    inputs: Iterable[str], *, field: str = "text", lines: bool = False, literal: bool = False
) -> Iterator[Item | BadInput]:
    """All texts of the command line's arguments, lazily and in order.

    ``-`` is standard input. An argument that is an existing file, or looks like the name of one
    (no white space, a known suffix), is read as a file; anything else is a text itself, as is
    everything if ``literal``. ``field`` names the text's field in .jsonl and .csv; with ``lines``
    each line of a .txt file or of standard input is a text of its own.
    """
    for number, argument in enumerate(inputs, 1):
        if literal:
            yield Item(argument, f"argument {number}")
        elif argument == "-":
            yield from _stdin(sys.stdin.buffer, lines)
        elif kind := _file_kind(argument):
            yield from _file(argument, kind, field, lines)
        else:
            yield Item(argument, f"argument {number}")


def _file_kind(argument: str) -> str | None:
    """The kind of file an argument names, ``None`` if it is a text."""
    kind = next(
        (kind for kind in _KINDS if argument.lower().removesuffix(".gz").endswith(kind)), None
    )
    try:
        exists = Path(argument).is_file()
    except (OSError, ValueError):  # too long or with a NUL: no file name
        return None
    if exists:
        return kind or ".txt"
    return kind if kind and not any(c.isspace() for c in argument) else None


def _file(name: str, kind: str, field: str, lines: bool) -> Iterator[Item | BadInput]:
    try:
        opener: Any = gzip.open if name.lower().endswith(".gz") else open
        opened = opener(name, "rb")
    except OSError as error:
        yield BadInput(error.strerror or str(error), name)
        return
    with opened as file:
        if kind == ".jsonl":
            yield from _jsonl(file, name, field)
        elif kind == ".csv":
            yield from _csv(file, name, field)
        else:
            yield from _plain(file, name, lines)


def _lines(file: BinaryIO, source: str) -> Iterator[tuple[int, bytes] | BadInput]:
    number = 0
    try:
        for number, line in enumerate(file, 1):
            yield number, line.removeprefix(_UTF8_MARK) if number == 1 else line
    except _GZIP_ERRORS as error:
        yield BadInput(f"cannot be read on: {error}", source, number + 1)


def _decode(data: bytes) -> str:
    """The text of a whole file. Raises ValueError where it is none, saying why."""
    if data.startswith(_UTF16_MARKS) and not _is_utf8(data[2:]):
        return _without_nul(_decode_utf16(data))
    return _decode_utf8(data.removeprefix(_UTF8_MARK))


def _decode_utf8(data: bytes) -> str:
    # Any bytes but NUL make a text: those that are not UTF-8 become lone surrogates, which scan as
    # U+FFFD.
    return _without_nul(data.decode("utf-8", "surrogateescape"))


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("is no text file: it holds NUL bytes")
    return text


def _decode_utf16(data: bytes) -> str:
    try:
        return data.decode("utf-16", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"is no text file: bad UTF-16 at byte {error.start + 1}") from None


def _is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8 text. A text of another encoding hardly ever is, and Latin in UTF-16
    holds NUL."""
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _no_text(data: bytes) -> str | None:
    """What the beginning of a file says that it is, if that is no text."""
    kind = next((kind for magic, kind in _NO_TEXT.items() if data.startswith(magic)), None)
    return None if kind is None else f"is no text file but {kind}"


def _stdin(file: Any, lines: bool) -> Iterator[Item | BadInput]:
    """Standard input, decompressed where it is gzipped: it has no name that could say so."""
    head = file.peek(len(_GZIP))[: len(_GZIP)]
    # One byte may come alone, and no text begins with this one.
    if head and _GZIP.startswith(head):
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield from _plain(unpacked, "stdin", lines)
    else:
        yield from _plain(file, "stdin", lines)


def _plain(file: Any, source: str, lines: bool) -> Iterator[Item | BadInput]:
    """``file``: binary, and can peek."""
    try:
        wide = file.peek(2).startswith(_UTF16_MARKS)
    except _GZIP_ERRORS as error:
        yield BadInput(f"cannot be read: {error}", source)
        return
    if lines and not wide:
        yield from _each_line(file, source)
        return
    whole = _whole(file, source)
    if not lines or isinstance(whole, BadInput):
        yield whole
        return
    # The bytes of UTF-16 cannot be cut into lines.
    for number, line in enumerate(io.StringIO(whole.text), 1):
        yield Item(line.rstrip("\r\n"), source, number)


def _whole(file: BinaryIO, source: str) -> Item | BadInput:
    try:
        data = file.read()
    except _GZIP_ERRORS as error:
        return BadInput(f"cannot be read: {error}", source)
    if problem := _no_text(data):
        return BadInput(problem, source)
    try:
        return Item(_decode(data), source)
    except ValueError as error:
        return BadInput(str(error), source)


def _each_line(file: BinaryIO, source: str) -> Iterator[Item | BadInput]:
    for entry in _lines(file, source):
        if isinstance(entry, BadInput):
            yield entry
            continue
        number, raw = entry
        if number == 1 and (problem := _no_text(raw)):
            yield BadInput(problem, source)
            return
        try:
            yield Item(_decode_utf8(raw).rstrip("\r\n"), source, number)
        except ValueError as error:
            yield BadInput(str(error), source, number)


def _jsonl(file: BinaryIO, source: str, field: str) -> Iterator[Item | BadInput]:
    for entry in _lines(file, source):
        if isinstance(entry, BadInput):
            yield entry
            continue
        number, raw = entry
        if not raw.strip():
            continue
        try:
            value = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield BadInput(f"not UTF-8: byte {error.start + 1} of the line", source, number)
            continue
        except ValueError as error:
            yield BadInput(f"not JSON: {error}", source, number)
            continue
        except RecursionError:
            yield BadInput("not JSON: nested too deeply", source, number)
            continue
        yield _record(value, source, number, field)


def _record(value: Any, source: str, number: int, field: str) -> Item | BadInput:
    if isinstance(value, str):
        return Item(value, source, number)
    if not isinstance(value, dict):
        return BadInput(f"an object or a string expected, not {_json_kind(value)}", source, number)
    if field not in value:
        return BadInput(f"no field {field!r}", source, number)
    text = value[field]
    if not isinstance(text, str):
        return BadInput(f"field {field!r} is {_json_kind(text)}, not a string", source, number)
    identity = value.get("id")
    return Item(text, source, number, identity if isinstance(identity, (str, int)) else None)


def _json_kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


def _csv(file: BinaryIO, source: str, field: str) -> Iterator[Item | BadInput]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is short for a text
    # A line of bytes that are not UTF-8 is a bad line, so they must survive decoding.
    stream = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.DictReader(stream)
    try:
        header = rows.fieldnames
    except (csv.Error, *_GZIP_ERRORS) as error:
        yield BadInput(f"cannot be read: {error}", source, 1)
        return
    if header is None or field not in header:
        columns = ", ".join(header or ()) or "none"
        yield BadInput(f"no column {field!r} (columns: {columns})", source, 1)
        return
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield BadInput(f"not CSV: {error}", source, rows.line_num)
            continue
        except _GZIP_ERRORS as error:
            yield BadInput(f"cannot be read on: {error}", source, rows.line_num + 1)
            return
        if row is None:
            return
        text = row[field]
        if text is None:
            yield BadInput(f"the row ends before column {field!r}", source, rows.line_num)
        elif _has_surrogates(text):
            yield BadInput("not UTF-8", source, rows.line_num)
        else:
            yield Item(text, source, rows.line_num, row.get("id") or None)


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
