"""Scores texts with the network in training, cut into windows as the scanner cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from raxe_fast.training.corpus import Record
from raxe_fast.training.finetune_data import BENIGN
from raxe_fast.training.finetune_model import Network, strongest
from raxe_fast.training.finetune_sampler import by_tokens
from raxe_fast.training.metrics import Floats, Ints, count, recall_at_fpr, roc_auc
from raxe_fast.windows import Windower

if TYPE_CHECKING:
    from raxe_fast.training.finetune_trainer import Trainer

__all__ = ["Evaluator", "row_logits", "score_rows", "window_logits"]

_WINDOW_CAP = 4
# Of windows as the scanner will cut them: a text of some thousand tokens.
_SCANNED_CAP = 64


def row_logits(
    network: Network, rows: Sequence[NDArray[np.integer[Any]]], batch_tokens: int
) -> tuple[Floats, Ints]:
    """(N, 2) binary logits, the pooled head's and the strongest passage's, and (N,) family numbers
    (the likeliest attack family) of token rows, special tokens included. Dropout is off; no random
    number is drawn."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    logits = np.zeros((len(rows), 2))
    families = np.zeros(len(rows), dtype=np.int64)
    attack_families = [i for i, name in enumerate(network.classes.families) if name != BENIGN]
    network.modules.eval()
    try:
        with torch.no_grad():
            for group in by_tokens(lengths, order, batch_tokens):
                ids, mask = network.batch([rows[i] for i in group])
                states = network.states(ids, mask)
                binary, family, _ = network.logits(network.pool(states, mask))
                logits[group, 0] = binary.cpu().double().numpy()
                logits[group, 1] = strongest(network.evidence(states), mask).cpu().double().numpy()
                if attack_families:
                    likeliest = family[:, attack_families].argmax(1).cpu().numpy()
                    families[group] = np.array(attack_families)[likeliest]
    finally:
        network.modules.train()
    return logits, families


def score_rows(
    network: Network, rows: Sequence[NDArray[np.integer[Any]]], batch_tokens: int
) -> tuple[Floats, Ints]:
    """(N,) binary logits, the mean of both of :func:`row_logits`, and (N,) family numbers."""
    logits, families = row_logits(network, rows, batch_tokens)
    return logits.mean(1), families


def window_logits(trainer: Trainer, texts: Sequence[str]) -> tuple[Floats, Ints]:
    """(windows, 2) logits as :func:`row_logits` gives them, and (windows,) text numbers in
    ascending order; at most four windows of a text."""
    positions = int(trainer.network.source.number("max_position_embeddings", 512))
    size = min(256, positions)
    windower = Windower(trainer.inputs.tokenizer, max_tokens=size, overlap=size // 4)
    rows, owner = _cut(windower, texts)
    return row_logits(trainer.network, rows, trainer.options.batch_tokens)[0], owner


def _cut(
    windower: Windower, texts: Sequence[str], cap: int = _WINDOW_CAP
) -> tuple[list[NDArray[np.int64]], Ints]:
    rows: list[NDArray[np.int64]] = []
    owner: list[int] = []
    for index, text in enumerate(texts):
        for window in windower.windows(text, max_windows=cap).windows:
            rows.append(window.ids[0])
            owner.append(index)
    return rows, np.array(owner, dtype=np.int64)


class Evaluator:
    """A fixed set of labelled texts. The score of a text is that of its worst window, of at most
    four; where ``overlap`` says how windows will be cut, of 64."""

    def __init__(
        self,
        records: Sequence[Record],
        tokenizer: str,
        max_tokens: int,
        limit: int | None,
        seed: int,
        overlap: int | None = None,
    ) -> None:
        if limit is not None and len(records) > limit:
            chosen = np.random.default_rng(seed).permutation(len(records))[:limit]
            records = [records[i] for i in sorted(chosen.tolist())]
        shared = max_tokens // 4 if overlap is None else overlap
        windower = Windower(tokenizer, max_tokens=max_tokens, overlap=shared)
        cap = _WINDOW_CAP if overlap is None else _SCANNED_CAP
        self.records = list(records)
        self.label = np.array([record.label for record in records], dtype=np.int64)
        self.rows, self.owner = _cut(windower, [record.text for record in records], cap)

    @property
    def tokens(self) -> int:
        return sum(len(row) for row in self.rows)

    def __call__(self, network: Network, batch_tokens: int) -> dict[str, float | int | None]:
        """AUC, recall at 1 % FPR, and F1, FPR and FNR where the logit is at least 0; accuracy of
        the family over all attacks. None where there is nothing to measure."""
        scores, families = score_rows(network, self.rows, batch_tokens)
        if not self.records:
            return {"texts": 0}
        # Ascending by score within a text, so that the last entry written is the worst window.
        order = np.argsort(scores, kind="stable")
        worst = np.zeros(len(self.records))
        family = np.zeros(len(self.records), dtype=np.int64)
        worst[self.owner[order]] = scores[order]
        family[self.owner[order]] = families[order]
        counts = count(self.label, worst >= 0)
        recall = recall_at_fpr(self.label, worst, 0.01)
        true, _ = network.classes.numbers(self.records)
        attacks = self.label == 1
        return {
            "texts": len(self.records),
            "attacks": counts.attack,
            "auc": roc_auc(self.label, worst),
            "recall_at_fpr_0.01": None if recall is None else recall[0],
            "f1": counts.f1,
            "fpr": counts.fp / counts.benign if counts.benign else None,
            "fnr": counts.fn / counts.attack if counts.attack else None,
            "family_accuracy": float(np.mean((family == true)[attacks])) if counts.attack else None,
        }
