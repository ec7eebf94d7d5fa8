"""Labelled JSONL corpora: one object per line, plain or gzip.

A line must be a JSON object with ``text`` (str) and ``label`` (0 or 1). ``family``,
``subfamily``, ``source``, ``lang``, ``id`` and ``group`` are optional strings; attacks used for
training the family heads need both family and subfamily. A line that breaks these rules is never
dropped silently: it is raised as :class:`~raxe_fast.errors.CorpusError` or collected, with its
line number, in :attr:`Corpus.bad`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from raxe_fast.errors import CorpusError

__all__ = ["SPLITS", "BadLine", "Corpus", "Record", "find_split", "read_corpus"]

SPLITS = ("train", "dev", "test")
_SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".json")
_OPTIONAL = ("family", "subfamily", "source", "lang", "id", "group", "license")


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled text. ``label`` is 1 for an attack and 0 for a harmless text."""

    text: str
    label: int
    family: str = ""
    subfamily: str = ""
    source: str = ""
    lang: str = ""
    id: str = ""
    group: str = ""
    license: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be used; ``line`` is 1-based."""

    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


@dataclass(slots=True)
class Corpus:
    """The records of one file in file order, and the lines that were no records."""

    path: str
    records: list[Record] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def texts(self) -> list[str]:
        return [record.text for record in self.records]


def parse_record(raw: bytes, line: int) -> Record:
    """One line of a corpus. Raises ValueError that says what is wrong with it."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    item = cast("dict[str, Any]", value)
    text, label = item.get("text"), item.get("label")
    if not isinstance(text, str):
        raise ValueError("'text' is missing or not a string")
    if isinstance(label, bool) or label not in (0, 1):
        raise ValueError("'label' is missing or not 0 or 1")
    names: dict[str, str] = {}
    for name in _OPTIONAL:
        part = item.get(name)
        if part is None:
            continue
        if not isinstance(part, str):
            raise ValueError(f"'{name}' is not a string")
        names[name] = part
    return Record(text=text, label=int(label), line=line, **names)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if zipped else cast(BinaryIO, plain)
        yield from stream


def read_corpus(
    path: Path | str, *, on_error: Literal["raise", "collect"] = "raise", limit: int | None = None
) -> Corpus:
    """Reads a .jsonl or .jsonl.gz file (gzip is recognised by content, not by name).

    Blank lines are skipped. With ``on_error="collect"`` bad lines go to ``Corpus.bad`` and the
    rest is read; a damaged gzip stream ends the reading and counts as a bad line.
    ``limit`` stops after that many records.

    Raises CorpusError (with path and line) for a missing file, and, with ``on_error="raise"``,
    for the first bad line.
    """
    file = Path(path)
    if not file.is_file():
        raise CorpusError("no such corpus file", path=file)
    corpus = Corpus(path=str(file))
    number = 0

    def reject(problem: str) -> None:
        if on_error == "raise":
            raise CorpusError(problem, path=file, line=number)
        corpus.bad.append(BadLine(file.name, number, problem))

    try:
        for raw in _lines(file):
            number += 1
            if limit is not None and len(corpus.records) >= limit:
                break
            if not raw.strip():
                continue
            try:
                corpus.records.append(parse_record(raw, number))
            except ValueError as error:
                reject(str(error))
    except (OSError, EOFError, zlib.error) as error:
        number += 1
        reject(f"unreadable: {error}")
    return corpus


def find_split(directory: Path | str, split: str) -> Path:
    """The file of a split in a corpus directory, e.g. ``train.jsonl.gz``.

    Raises CorpusError if there is none.
    """
    folder = Path(directory)
    for suffix in _SUFFIXES:
        candidate = folder / f"{split}{suffix}"
        if candidate.is_file():
            return candidate
    raise CorpusError(f"no {split}.jsonl or {split}.jsonl.gz in this directory", path=folder)
