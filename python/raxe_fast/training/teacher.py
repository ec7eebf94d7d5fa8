"""What a teacher makes of training texts: the targets of a student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raxe_fast.errors import ModelFormatError
from raxe_fast.training.embed import embed_texts
from raxe_fast.training.finetune_data import Classes, TrainingSet
from raxe_fast.training.finetune_output import HEADS_FILE, LinearHeads
from raxe_fast.training.train_data import prepare_encoder

__all__ = ["Targets", "heads_of", "teach"]

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Targets:
    """``where`` (N,): the row of each training text in what follows, -1 for a text without
    targets. ``embedding`` (M, H) unit vectors, ``heads`` the teacher's linear heads on them."""

    where: NDArray[np.int64]
    embedding: Float32
    heads: LinearHeads

    def logits(self, at: NDArray[np.int64]) -> tuple[Float32, Float32, Float32]:
        """Binary (M,), family (M, F) and subfamily (M, S) logits of those rows."""
        return self.heads.logits(self.embedding[at])


def heads_of(teacher: Path | str, classes: Classes) -> LinearHeads:
    """The linear heads of a fine-tuned encoder. Raises ModelFormatError where there are none, or
    they have other classes."""
    heads = LinearHeads.load(Path(teacher) / HEADS_FILE)
    if (heads.families, heads.subfamilies) != (classes.families, classes.subfamilies):
        raise ModelFormatError("its heads have other classes than this corpus", path=teacher,
                               member=HEADS_FILE)  # fmt: skip
    return heads


def teach(
    teacher: Path | str,
    data: TrainingSet,
    classes: Classes,
    work: Path | str,
    *,
    max_tokens: int,
    jobs: int,
) -> Targets:
    """Embeds the training texts of at most ``max_tokens`` tokens of the student's, special ones
    excluded, with a fine-tuned encoder as it will run (INT8). A longer text has no target: a
    student reads another window of it each time. Neither has one that does not fit the teacher's
    window, whose tokens may be more: the teacher has not read it whole. The cache in ``work`` is
    shared with `raxe-fast train`.

    Raises ModelNotFoundError and ModelFormatError for a directory that is no fine-tuned encoder,
    and one whose heads have other classes.
    """
    heads = heads_of(teacher, classes)
    folder = Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    files = prepare_encoder(str(teacher), folder, "int8")
    short = np.array([len(tokens.ids) <= max_tokens for tokens in data.tokens])
    chosen = np.flatnonzero(short)
    texts = [data.records[i].text for i in chosen]
    embedded = embed_texts(texts, files, folder, cap=1, jobs=jobs, title="teacher")
    first = np.searchsorted(embedded.owner, np.arange(len(texts)))
    whole = embedded.windows == 1
    where = np.full(len(data), -1, dtype=np.int64)
    where[chosen[whole]] = np.arange(int(whole.sum()))
    return Targets(where, embedded.vectors[first[whole]], heads)
