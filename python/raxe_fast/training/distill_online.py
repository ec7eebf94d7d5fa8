"""A student that learns beside its teachers: they read the very window it reads, in every step.

Where forward passes are cheap (a GPU) this beats targets made beforehand: a long text teaches a
student in every window of it, every token of a window says what the teachers see in it, and
several teachers are asked as one, by the mean of their probabilities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raxe_fast.training.distill_loss import DistillWeights, Projection
from raxe_fast.training.encoder_source import load_source
from raxe_fast.training.finetune_model import Network
from raxe_fast.training.teacher import heads_of

__all__ = ["Lesson", "OnlineDistiller", "read_teacher", "without_words"]

_ROWS = 4096  # narrowed at a time: a few megabytes of ids


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teachers say of B windows of S tokens: ``embedding`` (B, H), the first one's unit
    vectors; probabilities ``binary`` (B,), ``family`` (B, F), ``subfamily`` (B, C) and
    ``evidence`` (B, S), the mean of all."""

    embedding: Tensor
    binary: Tensor
    family: Tensor
    subfamily: Tensor
    evidence: Tensor


class OnlineDistiller(Projection):
    """The distance of a batch from what ``teachers`` make of it. All of them and the student have
    the same vocabulary and classes; ``left_out`` is what leave_out.left_out_ids says of words that
    only the teachers read."""

    def __init__(
        self,
        network: Network,
        teachers: Sequence[Network],
        weights: DistillWeights,
        left_out: tuple[Sequence[int], Sequence[int]] = ((), ()),
    ) -> None:
        if not teachers:
            raise ValueError("there must be a teacher")
        super().__init__(network, teachers[0].source.hidden)
        self.teachers, self.weights = list(teachers), weights
        self.left_out, self.continuing = (
            torch.tensor(sorted(ids), dtype=torch.int64, device=network.device) for ids in left_out
        )
        for teacher in self.teachers:
            teacher.modules.eval()

    def identity(self) -> dict[str, object]:
        """What must be equal for a checkpoint to be continued."""
        digest = hashlib.sha256()
        for teacher in self.teachers:
            for name, value in sorted(teacher.modules.state_dict().items()):
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        return {
            "teachers": digest.hexdigest(),
            "distill": asdict(self.weights),
            "left_out": self.left_out.tolist(),
        }

    def prepare(
        self, ids: Tensor, mask: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Lesson]:
        """What the student reads of a (B, S) batch, whose places are narrowed likewise, and the
        teachers' lesson on it."""
        lesson = self._ask(ids, mask)
        if not len(self.left_out):
            return ids, mask, places, lesson
        ids, mask, places, evidence = without_words(
            ids, mask, self.left_out, self.continuing, places, lesson.evidence
        )
        lesson = Lesson(lesson.embedding, lesson.binary, lesson.family, lesson.subfamily, evidence)
        return ids, mask, places, lesson

    def unlabelled_loss(self, network: Network, ids: Tensor, mask: Tensor) -> Tensor:
        """The same distance on (B, S) windows without labels, which nothing else is asked of."""
        ids, mask, _, lesson = self.prepare(ids, mask, torch.zeros_like(ids))
        states = network.states(ids, mask)
        pooled, evidence = network.pool(states, mask), network.evidence(states)
        return self.loss(network, pooled, evidence, mask, lesson)

    def narrow(self, rows: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
        """What the student reads of rows of token ids: many at a time, for a GPU takes as long for
        one, and mining reads a hundred thousand."""
        found: list[NDArray[np.int32]] = []
        device = self.left_out.device
        for start in range(0, len(rows), _ROWS):
            part = [torch.from_numpy(row.astype(np.int64)) for row in rows[start : start + _ROWS]]
            ids = pad_sequence(part, batch_first=True).to(device)
            mask = pad_sequence([torch.ones_like(row) for row in part], batch_first=True).to(device)
            ids, mask = without_words(ids, mask, self.left_out, self.continuing)
            narrow = ids.cpu().numpy().astype(np.int32)
            sizes = mask.sum(1).tolist()
            found += [row[:size] for row, size in zip(narrow, sizes, strict=True)]
        return found

    def _ask(self, ids: Tensor, mask: Tensor) -> Lesson:
        first: Tensor | None = None
        sums: list[Tensor] = []
        with torch.no_grad():
            for teacher in self.teachers:
                states = teacher.states(ids, mask)
                embedding = teacher.pool(states, mask)
                binary, family, subfamily = teacher.logits(embedding)
                said = [
                    binary.sigmoid(),
                    family.softmax(-1),
                    subfamily.softmax(-1),
                    teacher.evidence(states).sigmoid(),
                ]
                first = embedding if first is None else first
                sums = said if not sums else [a + b for a, b in zip(sums, said, strict=True)]
        assert first is not None
        return Lesson(first, *(value / len(self.teachers) for value in sums))

    def loss(
        self, network: Network, embedding: Tensor, evidence: Tensor, mask: Tensor, lesson: Lesson
    ) -> Tensor:
        """A scalar: see DistillWeights; the evidence of every token but padding counts alike."""
        said = (lesson.binary, lesson.family, lesson.subfamily)
        loss = self.agreement(network, embedding, lesson.embedding, said, self.weights)
        tokens = F.binary_cross_entropy_with_logits(evidence, lesson.evidence, reduction="none")
        kept = mask.float()
        return loss + self.weights.evidence * (tokens * kept).sum() / kept.sum()


def read_teacher(folder: Path | str, student: Network) -> Network:
    """The fine-tuned encoder of ``folder`` with its heads, on the student's device.

    Raises ModelNotFoundError and ModelFormatError for a directory that is no fine-tuned encoder,
    and one whose heads have other classes than the student's.
    """
    heads_of(folder, student.classes)
    return Network(
        load_source(folder),
        student.classes,
        device=str(student.device),
        precision=student.precision,
        seed=1,
        dropout=0.0,
    )


def without_words(
    ids: Tensor, mask: Tensor, words: Tensor, continuing: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    """(B, S) ids without those that are ``words`` and that none of ``continuing`` follows, closed
    up on the left, their mask, and ``others``, each (B, S), closed up alike. The result is as wide
    as its longest row."""
    whole = torch.ones_like(mask, dtype=torch.bool)
    whole[:, :-1] = ~torch.isin(ids[:, 1:], continuing)
    kept = (mask > 0) & ~(torch.isin(ids, words) & whole)
    order = torch.argsort((~kept).to(torch.int8), dim=1, stable=True)
    count = kept.sum(1)
    order = order[:, : int(count.max())]
    narrow = (torch.arange(order.shape[1], device=ids.device) < count[:, None]).to(mask.dtype)
    found = [value.gather(1, order) for value in (ids, *others)]
    return (found[0] * narrow, narrow, *found[1:])
