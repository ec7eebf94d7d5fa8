"""Reads and prepares what a fine-tuning run works on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from raxe_fast.errors import CorpusError
from raxe_fast.training.augment import augment
from raxe_fast.training.corpus import Record, find_split, read_corpus
from raxe_fast.training.encoder_export import prepare_tokenizer
from raxe_fast.training.encoder_source import EncoderSource
from raxe_fast.training.finetune_data import Classes, TrainingSet, build_set
from raxe_fast.training.finetune_options import FinetuneOptions

__all__ = ["Inputs"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The training rows, ``augmented`` of them made by augmentation; the dev texts and the
    held-out ones; tokenizer.json as it ships and the ids it puts around a text."""

    train: TrainingSet
    classes: Classes
    dev: list[Record]
    held: list[Record]
    tokenizer: str
    specials: tuple[int, int]
    corpus_sha256: str
    augmented: int

    @classmethod
    def read(cls, corpus: Path, source: EncoderSource, options: FinetuneOptions) -> Inputs:
        """Raises CorpusError for a missing or malformed split, or one without both labels."""
        path = find_split(corpus, "train")
        records = read_corpus(path, limit=options.limit).records
        dev = read_corpus(find_split(corpus, "dev"), limit=options.limit).records
        seen, held = options.holdout.split(records)
        if not any(r.label == 1 for r in seen) or not any(r.label == 0 for r in seen):
            raise CorpusError("training needs attacks and harmless texts", path=path)
        made = []
        if options.augment is not None:
            made = augment(seen, replace(options.augment, folds=options.holdout.folds))
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
            augmented=len(made),
        )
