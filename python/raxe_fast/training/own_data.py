"""The project's own labelled texts: the JSONL files in own_texts/, written for this project.

One object per line, as in any corpus. In an attack that stands inside a harmless text, the attack
is put between U+27E6 and U+27E7; the marks are removed here, its place is kept, and the text
without it becomes a harmless record of its own.

Files only grow at their end: the group of a text, and with it the fold that an encoder keeps from
its tuning, comes from its line. Leave an empty line where one has to go, or heads would be fitted
on texts that the encoder has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from raxe_fast.errors import CorpusError
from raxe_fast.training.augment import Augmented
from raxe_fast.training.corpus import Record, read_corpus

__all__ = ["FOLDER", "SOURCE_PREFIX", "is_own", "read_own_texts"]

FOLDER = Path(__file__).with_name("own_texts")
SOURCE_PREFIX = "own:"
_OPEN, _CLOSE = "\u27e6", "\u27e7"
_CARRIER_SUBFAMILY = {
    "code_injection": "code",
    "document_injection": "rag_passage",
    "email_injection": "email",
    "tool_output_injection": "tool_json",
    "web_injection": "web_page",
}
# What is left of a text without its attack says something only if it is about this long.
_MIN_CARRIER = 40


def is_own(record: Record) -> bool:
    """Whether a record is one of the project's own texts."""
    return record.source.startswith(SOURCE_PREFIX)


def read_own_texts(folder: Path = FOLDER) -> list[Augmented]:
    """All texts, by file and line, each clean carrier after its attack. The source of a text is
    ``own:`` and the name of its file; a carrier and its attack share a group.

    Raises CorpusError (with path and line) for a malformed line, marks that do not pair, marks in
    a harmless text, and a folder without files.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise CorpusError("no .jsonl files with texts of our own", path=folder)
    return [item for path in paths for item in _read(path)]


def _read(path: Path) -> Iterator[Augmented]:
    for record in read_corpus(path).records:
        name = f"{SOURCE_PREFIX}{path.stem}"
        record = replace(
            record,
            source=name,
            group=f"{name}:{record.line}",
            id=f"{name}:{record.line}",
            license="Apache-2.0",
        )
        opened, closed = record.text.count(_OPEN), record.text.count(_CLOSE)
        if not opened and not closed:
            yield Augmented(record)
            continue
        begin, end = record.text.find(_OPEN), record.text.find(_CLOSE)
        if (opened, closed) != (1, 1) or end < begin or record.label == 0:
            raise CorpusError(
                "the marks around an attack must be one pair, in an attack",
                path=path,
                line=record.line,
            )
        head, attack, tail = (
            record.text[:begin],
            record.text[begin + 1 : end],
            record.text[end + 1 :],
        )
        yield Augmented(
            replace(record, text=head + attack + tail), len(head), len(head) + len(attack)
        )
        if len((head + tail).strip()) >= _MIN_CARRIER:
            carrier = replace(
                record,
                text=head + tail,
                label=0,
                family="benign",
                subfamily=_CARRIER_SUBFAMILY.get(record.subfamily, "rag_passage"),
                id=record.id + ":carrier",
            )
            yield Augmented(carrier)
