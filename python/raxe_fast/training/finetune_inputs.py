"""Reads and prepares what a fine-tuning run works on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from raxe_fast.errors import CorpusError
from raxe_fast.training.augment import Augmented, augment
from raxe_fast.training.corpus import Record, find_split, read_corpus
from raxe_fast.training.covers import is_cover
from raxe_fast.training.encoder_export import prepare_tokenizer
from raxe_fast.training.encoder_source import EncoderSource
from raxe_fast.training.finetune_data import Classes, TrainingSet, build_set
from raxe_fast.training.finetune_options import FinetuneOptions
from raxe_fast.training.own_data import read_own_texts

__all__ = ["Inputs"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The training rows, ``augmented`` of them made by augmentation or our own; the dev texts and
    the held-out ones; tokenizer.json as it ships and the ids it puts around a text; the sources of
    our own texts among the rows."""

    train: TrainingSet
    classes: Classes
    dev: list[Record]
    held: list[Record]
    tokenizer: str
    specials: tuple[int, int]
    corpus_sha256: str
    rows_sha256: str  # of all that is learnt from: our own texts and made ones, too
    augmented: int
    own_sources: list[str]

    @classmethod
    def read(cls, corpus: Path, source: EncoderSource, options: FinetuneOptions) -> Inputs:
        """Raises CorpusError for a missing or malformed split, or one without both labels."""
        path = find_split(corpus, "train")
        records = read_corpus(path, limit=options.limit).records
        dev = read_corpus(find_split(corpus, "dev"), limit=options.limit).records
        records = [r for r in records if not r.id or r.id not in options.exclude]
        own = read_own_texts() if options.own_texts and options.limit is None else []
        seen, held = options.holdout.split(records)
        own = [item for item in own if not options.holdout.contains(item.record)]
        made: list[Augmented] = list(own)
        if options.augment is not None:
            material = [*seen, *(item.record for item in own)]
            made += augment(material, replace(options.augment, folds=options.holdout.folds))
        # Left out last: what an attack hides in an encoding is material for augmentation.
        seen = [r for r in seen if _shows(r, options.unread)]
        made = [m for m in made if _shows(m.record, options.unread)]
        if {r.label for r in seen} != {0, 1}:
            raise CorpusError("training needs attacks that show and harmless texts", path=path)
        classes = Classes.of([*seen, *(item.record for item in made)])
        tokenizer, specials = prepare_tokenizer(source)
        text = tokenizer.decode()
        return cls(
            train=build_set(seen, made, classes, text),
            classes=classes,
            dev=dev,
            held=held,
            tokenizer=text,
            specials=specials,
            corpus_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            rows_sha256=_digest([*seen, *(item.record for item in made)]),
            augmented=len(made),
            own_sources=sorted({item.record.source for item in own}),
        )


def _shows(record: Record, unread: frozenset[str]) -> bool:
    """Whether an attack shows in what an encoder reads: it is not of an encoding that is decoded
    first, and not hidden. Harmless texts are learnt from as they are."""
    return record.label == 0 or (record.subfamily not in unread and not is_cover(record))


def _digest(records: Iterable[Record]) -> str:
    found = hashlib.sha256()
    for record in records:
        text = record.text.encode("utf-8", "surrogatepass")
        found.update(f"{record.label} {len(text)} ".encode() + text)
    return found.hexdigest()
