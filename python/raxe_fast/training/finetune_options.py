"""The settings of a fine-tuning run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from raxe_fast.training.augment import AugmentOptions
from raxe_fast.training.augment_encodings import OPAQUE_SUBFAMILIES
from raxe_fast.training.folds import Holdout

__all__ = ["FREE", "FinetuneOptions", "LossWeights", "plain"]


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights beside the binary loss, whose targets are smoothed by ``smoothing``. ``peak`` is that
    of the binary loss on the strongest passage, ``tokens`` that of the tokens whose place inside or
    outside a payload is known. ``outside`` is that of windows that hold nothing of a known payload,
    where whole texts are learnt from."""

    family: float = 0.4
    subfamily: float = 0.4
    peak: float = 0.6
    tokens: float = 0.4
    outside: float = 0.15
    contrastive: float = 0.1
    temperature: float = 0.1
    smoothing: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError("smoothing must be in [0, 1)")


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """``epochs`` of ``samples`` draws each (default: as many as there are training rows).

    ``max_minutes`` bounds training and the evaluations, the last one included; the learning rate
    follows whichever of samples and time is further on, and has decayed when either is used up.
    ``eval_every`` is in samples; ``mine_pool`` harmless texts are scored again after each epoch.
    ``threads`` None leaves torch's own number.

    Every ``long_every``-th section of an epoch reads windows of ``long_tokens`` tokens, so that
    the network knows the lengths it will meet. With ``overlap_tokens`` whole texts are learnt from
    instead (see finetune_whole): stretches of up to ``text_tokens`` tokens of a text, cut into
    windows of ``max_tokens`` that share ``overlap_tokens``. ``noise`` is the share of tokens
    that are replaced by others of the batch. ``dropout`` None keeps the encoder's own; 0 trains
    twice as fast on a CPU, where random numbers are dear. ``unread`` names attack subfamilies
    that are not learnt from: nobody reads base64, the scanner decodes it first. ``exclude``
    holds ids of training records to leave out (suspected label errors). ``own_texts`` adds the
    texts in own_texts/. ``source_weights`` holds beginnings of source names (``own:`` for all
    own texts), and how many times as often such a source is drawn as its size alone would have
    it. ``pair_rows``, where not 0, gives an encoder that has none so many rows for pairs of
    neighbouring tokens (see pairs).
    """

    epochs: float = 2.0
    samples: int | None = None
    max_tokens: int = 160
    long_tokens: int = 256
    long_every: int = 5
    overlap_tokens: int | None = None
    text_tokens: int = 1000
    pair_rows: int = 0
    batch_tokens: int = 4096
    noise: float = 0.04
    dropout: float | None = 0.0
    unread: frozenset[str] = OPAQUE_SUBFAMILIES
    exclude: frozenset[str] = frozenset()
    own_texts: bool = True
    source_weights: tuple[tuple[str, float], ...] = ()
    rate: float = 1.5e-4
    head_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.06
    clip: float = 1.0
    loss: LossWeights = field(default_factory=LossWeights)
    holdout: Holdout = field(default_factory=lambda: Holdout(4, 10))
    augment: AugmentOptions | None = field(default_factory=lambda: AugmentOptions(opaque=0.0))
    mine_pool: int = 6000
    max_minutes: float | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    eval_texts: int = 1200
    eval_every: int = 15000
    checkpoint_minutes: float = 10.0
    limit: int | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.max_tokens < 8 or self.batch_tokens < self.max_tokens:
            raise ValueError(
                "epochs must be positive, max_tokens at least 8 and batch_tokens at least as many"
            )
        if self.long_every < 1 or self.long_tokens < self.max_tokens:
            raise ValueError("long_every must be positive and long_tokens at least max_tokens")
        if self.overlap_tokens is not None and not 0 <= self.overlap_tokens < self.max_tokens - 2:
            raise ValueError(
                f"windows of {self.max_tokens} tokens cannot share {self.overlap_tokens}"
            )
        if self.pair_rows < 0:
            raise ValueError("pair_rows must not be negative")
        if self.text_tokens < 1:
            raise ValueError("text_tokens must be positive")
        if not all(weight > 0 for _, weight in self.source_weights):
            raise ValueError("the weight of a source must be positive")
        if not 0 <= self.noise < 1:
            raise ValueError("noise must be in [0, 1)")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError("max_minutes must be positive")
        if self.holdout.hash_name != "sha256":
            raise ValueError("folds of new runs are by sha256")


# What a resumed run may change: none of it decides what is computed from a given state.
FREE = ("max_minutes", "threads", "eval_texts", "eval_every", "checkpoint_minutes")


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON gives it back."""
    text = json.dumps(asdict(value), default=sorted)
    plain: dict[str, Any] = json.loads(text)
    return plain
