"""Which texts an epoch sees, in which batches: a pure function of seed, epoch and weights.

Nothing here keeps state, so a resumed run repeats the epoch's plan and skips what it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.finetune_data import TrainingSet
from raxe_fast.training.metrics import Floats, Ints

__all__ = [
    "Batch",
    "SamplerOptions",
    "allocate",
    "epoch_batches",
    "epoch_sample",
    "epoch_size",
    "mined_weights",
    "source_weight",
]

# Sorting by length inside a section this long keeps padding low and batches mixed.
_SECTION = 3000
_JITTER = 4.0


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """``samples`` draws per epoch, of which ``attack_share`` attacks.

    Within a label each source gets draws by its size to the power ``source_power``, times its
    weight (that of the longest beginning of its name in ``source_weights``, 1 without one), and no
    source more than ``max_repeats`` times its size. Windows have at most ``max_tokens`` tokens with
    the two special ones, in every ``long_every``-th section of an epoch ``long_tokens``; batches
    have at most ``batch_tokens`` after padding. With ``text_tokens`` a draw is a stretch of at
    most so many tokens of a text instead, to be cut into windows later. Mining draws at most
    ``hard_share`` of the harmless texts ``hard_weight`` times as often, and only those with a
    binary logit above ``hard_logit``.
    """

    samples: int
    attack_share: float = 0.42
    source_power: float = 0.6
    source_weights: tuple[tuple[str, float], ...] = ()
    max_repeats: float = 2.0
    max_tokens: int = 160
    long_tokens: int = 256
    long_every: int = 5
    batch_tokens: int = 4096
    text_tokens: int | None = None
    hard_share: float = 0.03
    hard_weight: float = 3.0
    hard_logit: float = -2.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a training set, the first token of the window (or stretch) of each, and how many
    tokens, without the special ones, it may have."""

    rows: tuple[int, ...]
    starts: tuple[int, ...]
    room: int


def allocate(
    sizes: Sequence[int],
    total: float,
    power: float,
    max_repeats: float,
    weights: Sequence[float] | None = None,
) -> list[float]:
    """Shares of ``total`` in proportion to ``weight * size ** power``, none above
    ``size * max_repeats``; what a bound leaves over goes to the others while they have room."""
    shares = np.zeros(len(sizes))
    limits = np.asarray(sizes, dtype=np.float64) * max_repeats
    pull = np.asarray(sizes, dtype=np.float64) ** power
    if weights is not None:
        pull *= np.asarray(weights, dtype=np.float64)
    open_ = limits > 0
    left = min(float(total), float(limits.sum()))
    while left > 1e-9 and open_.any():
        wanted = np.where(open_, pull / pull[open_].sum() * left, 0.0)
        full = open_ & (shares + wanted >= limits)
        if not full.any():
            shares += wanted
            break
        left -= float((limits - shares)[full].sum())
        shares[full] = limits[full]
        open_ &= ~full
    return [float(share) for share in shares]


def source_weight(source: str, weights: Sequence[tuple[str, float]]) -> float:
    """The weight of the longest name that ``source`` begins with; 1 where there is none."""
    known = [pair for pair in weights if source.startswith(pair[0])]
    return max(known, key=lambda pair: len(pair[0]))[1] if known else 1.0


def _draw(rows: Ints, weights: Floats, quota: float, rng: np.random.Generator) -> Ints:
    """About ``quota`` of ``rows``, each within one of its expected number of draws."""
    order = rng.permutation(len(rows))
    reach = np.cumsum(weights[rows[order]])
    edges = np.floor(reach / reach[-1] * quota + rng.random())
    counts = np.diff(edges, prepend=0.0).astype(np.int64)
    return np.repeat(rows[order], counts)


def _quotas(data: TrainingSet, options: SamplerOptions) -> list[tuple[Ints, float]]:
    """Rows of each source and label, and how many draws they get."""
    strata: dict[tuple[int, str], list[int]] = {}
    for row, record in enumerate(data.records):
        strata.setdefault((record.label, record.source), []).append(row)
    found: list[tuple[Ints, float]] = []
    for label, share in ((1, options.attack_share), (0, 1 - options.attack_share)):
        parts = [np.array(rows) for key, rows in strata.items() if key[0] == label]
        names = [data.records[part[0]].source for part in parts]
        shares = allocate(
            [len(part) for part in parts],
            options.samples * share,
            options.source_power,
            options.max_repeats,
            [source_weight(name, options.source_weights) for name in names],
        )
        found += zip(parts, shares, strict=True)
    return found


def epoch_size(data: TrainingSet, options: SamplerOptions) -> float:
    """Draws in an epoch, give or take one per source: ``options.samples``, or fewer where a label
    has too few texts for its share."""
    return sum(quota for _, quota in _quotas(data, options))


def epoch_sample(
    data: TrainingSet, weights: Floats, options: SamplerOptions, rng: np.random.Generator
) -> Ints:
    """(about ``epoch_size``,) rows in random order."""
    drawn = [_draw(part, weights, quota, rng) for part, quota in _quotas(data, options)]
    sample: Ints = np.concatenate(drawn) if drawn else np.zeros(0, dtype=np.int64)
    return rng.permutation(sample)


def epoch_batches(
    data: TrainingSet, weights: Floats, options: SamplerOptions, epoch: int
) -> list[Batch]:
    """The batches of an epoch, in order."""
    rng = np.random.default_rng([options.seed, epoch])
    sample = epoch_sample(data, weights, options, rng)
    chances = rng.random((len(sample), 3))
    long = (np.arange(len(sample)) // _SECTION) % options.long_every == options.long_every - 1
    rooms = np.where(long, options.long_tokens, options.max_tokens) - 2
    if options.text_tokens is not None:
        rooms = np.full(len(sample), options.text_tokens)
    starts, lengths = [], np.zeros(len(sample), dtype=np.int64)
    for i, row in enumerate(sample.tolist()):
        tokens, room = data.tokens[row], int(rooms[i])
        starts.append(tokens.crop(room, int(data.label[row]), chances[i, 0], chances[i, 1]))
        lengths[i] = min(len(tokens.ids) - starts[-1], room) + 2
    batches: list[Batch] = []
    for begin in range(0, len(sample), _SECTION):
        part = np.arange(begin, min(begin + _SECTION, len(sample)))
        ordered = part[np.argsort(lengths[part] + chances[part, 2] * _JITTER, kind="stable")]
        section = [
            Batch(
                tuple(int(sample[i]) for i in group),
                tuple(starts[i] for i in group),
                int(rooms[begin]),
            )
            for group in by_tokens(
                lengths, ordered, options.batch_tokens, padded=options.text_tokens is None
            )
        ]
        batches += [section[i] for i in rng.permutation(len(section))]
    return batches


def by_tokens(lengths: Ints, order: Ints, budget: int, *, padded: bool = True) -> list[list[int]]:
    """Cuts ``order`` into groups whose size times longest member stays within ``budget``, or that
    have one member. Not ``padded``: whose sum does."""
    groups: list[list[int]] = []
    longest = total = 0
    for index in order.tolist():
        longest, total = max(longest, int(lengths[index])), total + int(lengths[index])
        size = (len(groups[-1]) + 1) * longest if groups and padded else total
        if groups and size <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
            longest = total = int(lengths[index])
    return groups


def mined_weights(data: TrainingSet, scores: Floats, options: SamplerOptions) -> Floats:
    """(N,) sampling weights: 1, and ``hard_weight`` for the harmless texts of the highest scores.

    ``scores`` are (N,) binary logits, NaN where a text was not scored.
    """
    weights: NDArray[np.float64] = np.ones(len(data))
    harmless = np.flatnonzero((data.label == 0) & np.isfinite(scores))
    candidates = harmless[scores[harmless] > options.hard_logit]
    limit = int(options.hard_share * int((data.label == 0).sum()))
    hardest = candidates[np.argsort(-scores[candidates], kind="stable")][:limit]
    weights[hardest] = options.hard_weight
    return weights
