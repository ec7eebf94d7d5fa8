"""Learning from whole texts: cut into windows as the scanner cuts them, the worst stands for all.

One window drawn from a long attack may hold none of what makes it one, and still be called an
attack. Where the windows that a model will read are short, most are like that. Here a text's label
is only asked of the window that looks worst, which is what a scan asks (multiple-instance learning
with a maximum: Dietterich, Lathrop, Lozano-Perez, "Solving the multiple instance problem with
axis-parallel rectangles", Artificial Intelligence 89, 1997).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raxe_fast.training.finetune_data import Tokens
from raxe_fast.training.finetune_options import LossWeights
from raxe_fast.training.finetune_sampler import Batch
from raxe_fast.training.metrics import Ints

__all__ = ["highest", "in_windows", "outside_loss", "window_starts", "worst_windows"]


def window_starts(count: int, room: int, overlap: int) -> range:
    """First tokens of the windows of ``count`` tokens, as :class:`~raxe_fast.windows.Windower`
    cuts them: ``room`` tokens each, ``overlap`` of them shared with the next."""
    return range(0, count - overlap, room - overlap) if count > room else range(1)


def in_windows(
    batch: Batch, tokens: Sequence[Tokens], room: int, overlap: int
) -> tuple[Batch, Ints]:
    """The windows of a batch of texts as a batch of their own, text by text, and (windows,) which
    of the texts each belongs to."""
    rows: list[int] = []
    starts: list[int] = []
    owner: list[int] = []
    for number, (row, start) in enumerate(zip(batch.rows, batch.starts, strict=True)):
        count = min(len(tokens[row].ids) - start, batch.room)
        for begin in window_starts(count, room, overlap):
            rows.append(row)
            starts.append(start + begin)
            owner.append(number)
    return Batch(tuple(rows), tuple(starts), room), np.array(owner, dtype=np.int64)


def highest(values: Tensor, owner: Tensor, texts: int) -> Tensor:
    """(texts,) the highest of the (windows,) values of each text; each must have one."""
    lowest = torch.full((texts,), -torch.inf, dtype=values.dtype, device=values.device)
    return lowest.scatter_reduce(0, owner, values, "amax")


def worst_windows(logits: Tensor, owner: Tensor, texts: int) -> Tensor:
    """(texts,) the window of each text with the highest of the (windows,) logits, the first of
    equals."""
    logits = logits.detach()
    number = torch.arange(len(logits), device=logits.device)
    number = number.masked_fill(logits < highest(logits, owner, texts)[owner], len(logits))
    none = torch.full((texts,), len(logits), device=logits.device)
    return none.scatter_reduce(0, owner, number, "amin")


def outside_loss(logits: Tensor, places: Tensor, weights: LossWeights) -> Tensor:
    """Binary cross-entropy of the windows that lie wholly outside a payload whose place is known,
    as harmless ones, times ``weights.outside``. ``logits`` are (windows,), ``places`` (windows, S)
    as finetune_data.payload_places gives them."""
    outside = (places >= 0).any(1) & ~(places > 0).any(1)
    if not bool(outside.any()):
        return logits.new_zeros(())
    chosen = logits[outside]
    target = torch.full_like(chosen, weights.smoothing / 2)
    return weights.outside * F.binary_cross_entropy_with_logits(chosen, target)
