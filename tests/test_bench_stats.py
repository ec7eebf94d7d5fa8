"""The benchmark's arithmetic against independent computations."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCH = Path(__file__).parents[1] / "bench"
pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="bench/ is not in this tree")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"raxe_bench_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stats() -> ModuleType:
    return load("stats")


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    return load("targets")


def test_summary_equals_the_standard_library(stats: ModuleType) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=1001).tolist()
    summary = stats.Summary.of(values)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert summary.n == 1001
    assert summary.mean == pytest.approx(statistics.fmean(values))
    assert summary.std == pytest.approx(statistics.stdev(values))
    assert (summary.min, summary.max) == (min(values), max(values))
    assert (summary.p50, summary.p95, summary.p99) == pytest.approx((cuts[49], cuts[94], cuts[98]))


def test_summary_of_one_sample(stats: ModuleType) -> None:
    summary = stats.Summary.of([3.0])
    assert (summary.mean, summary.std, summary.p50, summary.p99) == (3.0, 0.0, 3.0, 3.0)
    assert summary.p95_interval == (3.0, 3.0)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")], [[1.0], [2.0]]])
def test_summary_refuses_what_it_cannot_summarise(stats: ModuleType, bad: object) -> None:
    with pytest.raises(ValueError):
        stats.Summary.of(bad)


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_quantile_interval_covers_as_often_as_it_says(stats: ModuleType, quantile: float) -> None:
    rng = np.random.default_rng(1)
    truth = float(-np.log(1.0 - quantile))  # of the exponential distribution
    hits = 0
    for _ in range(400):
        low, high = stats.quantile_interval(np.sort(rng.exponential(size=300)), quantile)
        assert low <= high
        hits += low <= truth <= high
    assert 0.91 <= hits / 400 <= 1.0


def test_ratio(stats: ModuleType) -> None:
    rng = np.random.default_rng(2)
    fast = rng.normal(10.0, 0.1, 500)
    result = stats.ratio(3.0 * fast, fast)
    assert (result.p50, result.p95, result.mean) == pytest.approx((3.0, 3.0, 3.0))
    low, high = result.p50_interval
    assert low <= 3.0 <= high and high - low < 0.02
    with pytest.raises(ValueError):
        stats.ratio(np.empty(0), fast)


def test_a_paired_ratio_leaves_the_spread_of_the_inputs_out(stats: ModuleType) -> None:
    rng = np.random.default_rng(3)
    fast = rng.lognormal(2.0, 1.5, 300)  # inputs of very different lengths
    slow = 2.0 * fast * rng.normal(1.0, 0.01, 300)
    paired, apart = stats.ratio(slow, fast, paired=True), stats.ratio(slow, fast)
    for name in ("p50", "p95"):
        low, high = getattr(paired, f"{name}_interval")
        wide = getattr(apart, f"{name}_interval")
        assert low <= getattr(paired, name) <= high and low > 1.9 and high < 2.1
        assert high - low < 0.2 * (wide[1] - wide[0])
    order = rng.permutation(300)
    moved = stats.ratio(slow[order], fast[order], paired=True)
    assert (moved.p50, moved.p95) == pytest.approx((paired.p50, paired.p95))
    with pytest.raises(ValueError, match="paired"):
        stats.ratio(slow, fast[:-1], paired=True)


@given(pipelines=st.integers(1, 4), iterations=st.integers(1, 60), block=st.integers(1, 12))
def test_turns_are_fair(pipelines: int, iterations: int, block: int) -> None:
    stats = sys.modules.get("raxe_bench_stats") or load("stats")
    names = [f"p{i}" for i in range(pipelines)]
    order = list(stats.turns(names, iterations, block))
    measured = Counter((turn.pipeline, turn.index) for turn in order if turn.measured)
    assert measured == Counter((name, i) for name in names for i in range(iterations))
    rounds = -(-iterations // block)
    assert sum(not turn.measured for turn in order) == (rounds * pipelines if block > 1 else 0)
    # No pipeline gets more than a block ahead of another.
    done = Counter(dict.fromkeys(names, 0))
    for turn in order:
        done[turn.pipeline] += turn.measured
        assert max(done.values()) - min(done.values()) <= block


def test_turns_rotate(stats: ModuleType) -> None:
    order = [turn.pipeline for turn in stats.turns(["a", "b", "c"], 3, 1)]
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    with pytest.raises(ValueError):
        list(stats.turns(["a"], 0, 1))


def test_limits_are_computed(targets: ModuleType) -> None:
    values: dict[str, float | None] = {
        limit.name: limit.limit - 0.001 if limit.sense == "below" else limit.limit + 0.001
        for limit in targets.LIMITS
    }
    assert targets.meets_targets(values)["all"] is True
    for limit in targets.LIMITS:
        at = targets.meets_targets({**values, limit.name: limit.limit})
        assert at[limit.name]["met"] is (limit.sense == "at_least")
        nan = targets.meets_targets({**values, limit.name: float("nan")})
        assert nan[limit.name]["met"] is False and nan["all"] is False
        missing = targets.meets_targets({**values, limit.name: None})
        assert missing[limit.name]["met"] is None and missing["all"] is False


def test_an_unknown_limit_is_refused(targets: ModuleType) -> None:
    with pytest.raises(KeyError):
        targets.meets_targets({"latency_p05": 1.0})
