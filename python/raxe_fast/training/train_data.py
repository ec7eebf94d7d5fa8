"""What training reads: an exported encoder, and the splits of a corpus with their embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raxe_fast.decode_whole import parts_of
from raxe_fast.errors import CorpusError
from raxe_fast.training.corpus import Corpus, Record
from raxe_fast.training.covers import is_cover
from raxe_fast.training.embed import Embedded, EncoderFiles, embed_texts
from raxe_fast.training.finetune_output import HEADS_FILE
from raxe_fast.training.metrics import Floats, Ints

__all__ = ["Labels", "Split", "embed_split", "prepare_encoder", "worst_by_text"]


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a corpus with the embeddings of its windows.

    ``texts`` are what was embedded: the text of each record, or what it says decoded where the
    scanner reads that in its place (decode_whole.py), followed by what its other encoded parts say,
    which the scanner reads as texts of their own (a cover is left out, see :func:`embed_split`);
    ``record_of`` (texts,) says whose they are, in ascending order.
    """

    corpus: Corpus
    embedded: Embedded
    texts: list[str]
    record_of: Ints

    @property
    def owner(self) -> Ints:
        """(windows,) record number of each window, ascending."""
        return self.record_of[self.embedded.owner]

    @property
    def tokens(self) -> Ints:
        """(records,) tokens of each record's own text, or of what is read in its place."""
        first = np.searchsorted(self.record_of, np.arange(len(self.records)))
        return self.embedded.tokens[first]

    @property
    def records(self) -> list[Record]:
        return self.corpus.records

    @property
    def labels(self) -> Ints:
        return np.array([record.label for record in self.corpus.records], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Labels:
    """The families and subfamilies of the attacks, in the order of the heads' outputs."""

    families: list[str]
    subfamilies: list[tuple[str, str]]  # (family, subfamily), sorted

    @classmethod
    def of(cls, records: Sequence[Record]) -> Labels:
        """Raises CorpusError for an attack without family or subfamily, naming its line."""
        attacks = [record for record in records if record.label == 1]
        for record in attacks:
            if not record.family or not record.subfamily:
                raise CorpusError("an attack without family or subfamily", line=record.line)
        pairs = sorted({(record.family, record.subfamily) for record in attacks})
        return cls(sorted({family for family, _ in pairs}), pairs)

    def numbers(self, records: Sequence[Record]) -> tuple[Ints, Ints]:
        """Class numbers per record, -1 for harmless texts and for names that are no classes."""
        family = {name: i for i, name in enumerate(self.families)}
        pair = {name: i for i, name in enumerate(self.subfamilies)}
        found = [
            (family.get(r.family, -1), pair.get((r.family, r.subfamily), -1))
            if r.label == 1
            else (-1, -1)
            for r in records
        ]
        numbers = np.array(found, dtype=np.int64).reshape(-1, 2)
        return numbers[:, 0], numbers[:, 1]


def prepare_encoder(encoder: str, work: Path, precision: str) -> EncoderFiles:
    """An exported encoder directory as it is; anything else is exported into `work` first."""
    from raxe_fast.training.encoder_export import export_encoder

    if (Path(encoder) / "export.json").is_file():
        return EncoderFiles.open(encoder)
    name = "".join(c if c.isalnum() else "-" for c in Path(encoder).name)
    target = work / f"encoder-{name}-{precision}"
    export_encoder(encoder, target, precision=precision)
    heads = Path(encoder) / HEADS_FILE
    (target / HEADS_FILE).unlink(missing_ok=True)
    if heads.is_file():
        shutil.copyfile(heads, target / HEADS_FILE)
    return EncoderFiles.open(target)


def embed_split(
    name: str,
    corpus: Corpus,
    files: EncoderFiles,
    cache: Path,
    *,
    cap: int | None,
    jobs: int,
    learnt: bool = False,
) -> Split:
    """Embeds the records of one split, at most `cap` windows of each text (None: all).

    ``learnt``: what hides an attack is left out, where what it hides is there."""
    texts: list[str] = []
    record_of: list[int] = []
    for number, record in enumerate(corpus.records):
        parts = parts_of(record.text)
        read = parts.texts(record.text)
        if learnt and parts.place == 0 and len(read) > 1 and is_cover(record):
            del read[0]
        texts += read
        record_of += [number] * len(read)
    embedded = embed_texts(texts, files, cache, cap=cap, jobs=jobs, title=f"embed {name}")
    return Split(corpus, embedded, texts, np.array(record_of, dtype=np.int64))


def worst_by_text(probability: Floats, split: Split) -> Floats:
    """(texts,) highest of the (windows,) values of each text; 0 for a text without windows."""
    worst = np.zeros(len(split.records))
    np.maximum.at(worst, split.owner, probability)
    return worst
