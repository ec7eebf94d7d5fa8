"""Statistics of latency samples, and the order in which pipelines take turns.

Samples are one-dimensional arrays of milliseconds unless a name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, spread and quantiles of `n` samples, in the unit of the samples.

    Quantiles interpolate linearly between order statistics (NumPy's default); `std` is the sample
    standard deviation (n - 1), 0 for a single sample. `p50_interval` and `p95_interval` are 95 %
    intervals from order statistics: they assume nothing about the distribution but independence.
    """

    n: int
    mean: float
    std: float
    min: float
    p50: float
    p95: float
    p99: float
    max: float
    p50_interval: tuple[float, float]
    p95_interval: tuple[float, float]

    @classmethod
    def of(cls, samples: Sequence[float] | Samples) -> Summary:
        """Raises ValueError if there is no sample, or one is not finite."""
        values = np.sort(np.asarray(samples, dtype=np.float64))
        if values.ndim != 1 or values.size == 0:
            raise ValueError("a summary needs a non-empty one-dimensional array of samples")
        if not np.isfinite(values).all():
            raise ValueError("a sample is not finite")
        p50, p95, p99 = (float(v) for v in np.percentile(values, (50, 95, 99)))
        return cls(
            n=int(values.size),
            mean=float(values.mean()),
            std=float(values.std(ddof=1)) if values.size > 1 else 0.0,
            min=float(values[0]),
            p50=p50,
            p95=p95,
            p99=p99,
            max=float(values[-1]),
            p50_interval=quantile_interval(values, 0.50),
            p95_interval=quantile_interval(values, 0.95),
        )

    def to_dict(self, digits: int = 4) -> dict[str, object]:
        """JSON-safe, rounded to `digits` decimals."""
        out: dict[str, object] = {"n": self.n}
        for name in ("mean", "std", "min", "p50", "p95", "p99", "max"):
            out[name] = round(float(getattr(self, name)), digits)
        out["p50_interval"] = [round(v, digits) for v in self.p50_interval]
        out["p95_interval"] = [round(v, digits) for v in self.p95_interval]
        return out


def quantile_interval(ordered: Samples, quantile: float) -> tuple[float, float]:
    """95 % interval of a quantile from the order statistics of `ordered` (ascending).

    The number of samples below the true quantile is binomial; its normal approximation gives the
    two ranks. Ranks past either end are clamped, so a small sample gives its own range.
    """
    n = ordered.size
    half = 1.96 * math.sqrt(n * quantile * (1.0 - quantile))
    low = math.floor(n * quantile - half) - 1
    high = math.ceil(n * quantile + half)
    return float(ordered[max(low, 0)]), float(ordered[min(high, n - 1)])


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times `slower` takes the time of `faster`: ratio of medians, of p95 and of means.

    Intervals are 95 %, by bootstrap.
    """

    p50: float
    p95: float
    mean: float
    p50_interval: tuple[float, float]
    p95_interval: tuple[float, float]

    def to_dict(self, digits: int = 3) -> dict[str, object]:
        """JSON-safe, rounded to `digits` decimals."""
        return {
            "p50": round(self.p50, digits),
            "p95": round(self.p95, digits),
            "mean": round(self.mean, digits),
            "p50_interval": [round(v, digits) for v in self.p50_interval],
            "p95_interval": [round(v, digits) for v in self.p95_interval],
        }


def ratio(
    slower: Samples,
    faster: Samples,
    *,
    paired: bool = False,
    resamples: int = 500,
    seed: int = 1,
) -> Ratio:
    """Ratio slower / faster, with bootstrap 95 % intervals.

    paired: sample i of both sides is of the same input. Inputs are then drawn together, so that the
    spread between inputs, which both sides share, does not count as uncertainty of the ratio.
    Raises ValueError if either is empty, or if paired sides differ in size.
    """
    a, b = (np.asarray(v, dtype=np.float64) for v in (slower, faster))
    if a.size == 0 or b.size == 0:
        raise ValueError("a ratio needs samples on both sides")
    if paired and a.shape != b.shape:
        raise ValueError(f"{a.size} samples cannot be paired with {b.size}")
    rng = np.random.default_rng(seed)
    # Row by row: a (resamples, n) index matrix of a long run would cost more memory than the run.
    ratios = np.zeros((resamples, 2))
    for row in ratios:
        if paired:
            drawn = rng.integers(0, a.size, a.size)
            one, other = a[drawn], b[drawn]
        else:
            one, other = rng.choice(a, a.size), rng.choice(b, b.size)
        row[:] = np.percentile(one, (50, 95)) / np.percentile(other, (50, 95))
    low, high = np.percentile(ratios, (2.5, 97.5), axis=0)
    return Ratio(
        p50=float(np.median(a) / np.median(b)),
        p95=float(np.percentile(a, 95) / np.percentile(b, 95)),
        mean=float(a.mean() / b.mean()),
        p50_interval=(float(low[0]), float(high[0])),
        p95_interval=(float(low[1]), float(high[1])),
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """One call: `pipeline` on input `index`; an unmeasured one only brings its data to cache."""

    pipeline: str
    index: int
    measured: bool


def turns(pipelines: Sequence[str], iterations: int, block: int) -> Iterator[Turn]:
    """Interleave `pipelines` in blocks: A A .. B B .. A A .., each over the same inputs.

    The order within a round rotates from round to round, so that no pipeline always runs after
    the same other one. For `block` > 1 each block opens with one unmeasured call, which pays for
    the caches that the other pipelines emptied; with `block` = 1 (A B A B) every call is measured
    and pays for that itself. Every pipeline gets exactly `iterations` measured calls.
    Raises ValueError for iterations or block below 1.
    """
    if iterations < 1 or block < 1:
        raise ValueError("iterations and block must be at least 1")
    for number, start in enumerate(range(0, iterations, block)):
        shift = number % len(pipelines)
        for name in (*pipelines[shift:], *pipelines[:shift]):
            if block > 1:
                yield Turn(name, start, False)
            for index in range(start, min(start + block, iterations)):
                yield Turn(name, index, True)


def timed(
    pipelines: Mapping[str, Callable[[int], object]], iterations: int, block: int
) -> dict[str, Samples]:
    """(iterations,) milliseconds of each pipeline, called with the number of the iteration; calls
    take turns as :func:`turns` says."""
    samples = {name: np.zeros(iterations) for name in pipelines}
    for turn in turns(list(pipelines), iterations, block):
        call = pipelines[turn.pipeline]
        begin = perf_counter_ns()
        call(turn.index)
        elapsed = perf_counter_ns() - begin
        if turn.measured:
            samples[turn.pipeline][turn.index] = elapsed / 1e6
    return samples
