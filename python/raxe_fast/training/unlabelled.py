"""Windows that nobody wrote, for a student to hear its teacher's word on.

The texts of a corpus are soon known by heart, by the teacher above all: what it says of them is
little more than their labels. What it says of stretches from anywhere in them, of two stretches
joined and of stretches with words replaced is more, and there is no end of these. That a student
gains from its teacher's word on texts without labels: Turc et al., "Well-Read Students Learn
Better" (2019); from made ones, with words replaced: Jiao et al., "TinyBERT" (EMNLP 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raxe_fast.training.finetune_data import Tokens

__all__ = ["UnlabelledWindows"]

_SHORTEST = 6
_MOST_REPLACED = 0.3


class UnlabelledWindows:
    """Draws windows of up to ``room`` tokens, without the two ``specials``, from ``texts``.

    A text is drawn by the root of its length, so that neither the many short ones nor the few long
    ones are all that is read. Half of the stretches have ``room`` tokens, where their text has as
    many, the others any number from six on. A third stay as they are, a third get words replaced
    (up to 30 %), a third end with the beginning of another stretch.

    Raises ValueError where no text has a token.
    """

    def __init__(
        self,
        texts: Sequence[Tokens],
        specials: tuple[int, int],
        room: int,
        seed: int,
        device: torch.device,
    ) -> None:
        sizes = np.array([len(text.ids) for text in texts], dtype=np.int64)
        if not sizes.any():
            raise ValueError("no text has a token")
        flat = np.concatenate([text.ids for text in texts]).astype(np.int32)
        self._flat = torch.from_numpy(flat).to(device)
        self._sizes = torch.from_numpy(sizes).to(device)
        self._begins = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)
        reach = np.cumsum(np.sqrt(sizes))
        self._reach = torch.from_numpy(reach / reach[-1]).to(device)
        self._specials, self._room, self._seed = specials, room, seed
        self._device = device

    def draw(self, tokens: int, step: int) -> tuple[Tensor, Tensor]:
        """(B, room + 2) int64 ids and their mask, of about ``tokens`` tokens with padding; the same
        for the same seed and ``step``."""
        source = torch.Generator(self._device).manual_seed(self._seed * 1_000_003 + step)
        count, device = max(1, tokens // (self._room + 2)), self._device

        def chance(*shape: int) -> Tensor:
            return torch.rand(shape, generator=source, device=device, dtype=torch.float64)

        # A chance is below the last of these, which is 1.
        drawn = torch.searchsorted(self._reach, chance(count), right=True)
        some = _SHORTEST + (chance(count) * (self._room - _SHORTEST + 1)).long()
        size = torch.where(chance(count) < 0.5, some, some.new_tensor(self._room))
        size = torch.minimum(size.clamp_(max=self._room), self._sizes[drawn])
        free = self._sizes[drawn] - size
        start = self._begins[drawn] + (chance(count) * (free + 1)).long().minimum(free)
        place = torch.arange(self._room, device=device)
        at = (start[:, None] + place).clamp_(max=len(self._flat) - 1)
        ids = self._flat[at].long()
        kind = chance(count)
        ids, size = self._joined(ids, size, kind < 1 / 3, chance(count))
        replaced = chance(*ids.shape) < (chance(count) * _MOST_REPLACED)[:, None]
        replaced &= (kind >= 2 / 3)[:, None]
        other = (chance(*ids.shape) * len(self._flat)).long().clamp_(max=len(self._flat) - 1)
        ids = torch.where(replaced, self._flat[other].long(), ids)
        return self._closed(ids, size)

    def _joined(
        self, ids: Tensor, size: Tensor, chosen: Tensor, where: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The windows, the ``chosen`` ones cut off somewhere and continued with the next one."""
        cut = torch.where(chosen, (where * size).long(), size)
        after, follows = ids.roll(-1, 0), torch.where(chosen, size.roll(-1, 0), 0)
        place = torch.arange(self._room, device=ids.device)
        behind = place >= cut[:, None]
        continued = after.gather(1, (place - cut[:, None]).clamp(min=0))
        return torch.where(behind, continued, ids), (cut + follows).clamp(max=self._room)

    def _closed(self, ids: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """With the special ids around them and 0 behind."""
        first, last = self._specials
        place = torch.arange(self._room + 2, device=ids.device)
        whole = torch.nn.functional.pad(ids, (1, 1))
        whole[:, 0] = first
        whole = torch.where(place == size[:, None] + 1, whole.new_tensor(last), whole)
        mask = (place < size[:, None] + 2).long()
        return whole * mask, mask
