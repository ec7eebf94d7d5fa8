"""What the tables of robustness.py have in common: scanning, drawing, rates with intervals."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.corpus import Record
from raxe_fast.training.metrics import rate, wilson
from raxe_fast.training.robustness_results import RobustnessOptions

if TYPE_CHECKING:
    from raxe_fast import Policy, Scanner, ScanResult

__all__ = ["Bools", "Flagger", "draw", "grouped_rate", "rate_of", "ratio_of", "short_texts"]

_RESAMPLES = 2000
_ENDS = (2.5, 97.5)

Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Flagger:
    """Scans texts under one policy; counts statuses and reports progress."""

    scanner: Scanner
    policy: Policy
    advance: Callable[[int], None]
    status: dict[str, int] = field(default_factory=dict)

    def scan(self, texts: Iterable[str]) -> list[ScanResult]:
        results = []
        for result in self.scanner.scan_iter(texts, policy=self.policy):
            self.status[result.status] = self.status.get(result.status, 0) + 1
            self.advance(1)
            results.append(result)
        return results

    def flags(self, texts: Iterable[str]) -> Bools:
        return np.array([result.is_threat for result in self.scan(texts)], dtype=np.bool_)

    def take_status(self) -> dict[str, int]:
        """The counts so far, sorted; counting starts anew."""
        taken, self.status = dict(sorted(self.status.items())), {}
        return taken


def draw(texts: Iterable[str], size: int, rng: random.Random) -> list[str]:
    """At most ``size`` different texts, drawn without replacement whatever their order."""
    pool = sorted(set(texts))
    return rng.sample(pool, min(size, len(pool)))


def short_texts(
    records: Sequence[Record], options: RobustnessOptions, rng: random.Random
) -> tuple[list[str], list[str]]:
    """Attacks that can be disguised, and as many harmless texts."""
    short = [r for r in records if r.text.strip() and len(r.text) <= options.text_chars]
    attacks = draw(
        (r.text for r in short if r.label == 1 and r.family not in options.excluded_families),
        options.texts,
        rng,
    )
    benign = draw(
        (r.text for r in short if r.label == 0 and r.subfamily not in options.excluded_benign),
        len(attacks),
        rng,
    )
    return attacks, benign


def rate_of(flags: Bools) -> dict[str, Any]:
    """The share of (N,) flags that are set, as metrics.rate gives it."""
    return rate(int(flags.sum()), len(flags))


def ratio_of(plain: Bools, encoded: Bools, seed: int) -> dict[str, Any]:
    """Recall over plain recall of the same texts; None if no plain text was found.

    The interval draws the four paired shares from their posterior under Jeffreys' prior: resampling
    the texts would give it no width where all of them behave alike, however few there are.
    """
    cells = np.bincount(2 * plain.astype(np.int64) + encoded, minlength=4)
    base = int(cells[2] + cells[3])
    if not base:
        return {"value": None, "interval": None}
    value = int(cells[1] + cells[3]) / base
    draws = np.random.default_rng(seed).dirichlet(cells + 0.5, size=_RESAMPLES)
    low, high = np.percentile((draws[:, 1] + draws[:, 3]) / (draws[:, 2] + draws[:, 3]), _ENDS)
    return {"value": value, "interval": [min(float(low), value), max(float(high), value)]}


def grouped_rate(flags: Bools, seed: int) -> dict[str, Any]:
    """The rate of a (groups, n) table. The interval resamples groups, whose members are alike;
    where all groups have the same rate it is Wilson's with one observation a group."""
    out = rate_of(flags.ravel())
    if not flags.size:
        return out
    means = flags.mean(axis=1)
    if means.min() == means.max():
        interval = wilson(round(float(means.sum())), len(means)) or (0.0, 1.0)
    else:
        draws = np.random.default_rng(seed).integers(0, len(means), (_RESAMPLES, len(means)))
        interval = tuple(np.percentile(means[draws].mean(axis=1), _ENDS))
    out["interval"] = [float(end) for end in interval]
    return out
