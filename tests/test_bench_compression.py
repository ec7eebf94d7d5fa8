"""An encoder made smaller: each way against its own definition, on random matrices."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("safetensors")

from raxe_fast.training.encoder_source import EncoderSource, load_source

BENCH = Path(__file__).parents[1] / "bench"
pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="bench/ is not in this tree")


@pytest.fixture(scope="module")
def compression() -> ModuleType:
    name = "raxe_bench_compression_variants"
    spec = importlib.util.spec_from_file_location(name, BENCH / "compression_variants.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(tiny_source: Path) -> EncoderSource:
    """Two layers of 32 with four heads and 64 inner units."""
    return load_source(tiny_source)


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8), group=st.sampled_from([None, 16, 32]))
def test_bits(compression: ModuleType, seed: int, bits: int, group: int | None) -> None:
    weight = np.random.default_rng(seed).standard_normal((5, 64)).astype(np.float32)
    found = compression.in_bits(weight, bits, group)
    assert found.dtype == np.float32 and found.shape == weight.shape
    for before, after in zip(
        weight.reshape(-1, group or 64), found.reshape(-1, group or 64), strict=True
    ):
        assert len(set(after.tolist())) <= 2**bits - 1
        # Never worse than rounding between the extremes.
        step = np.abs(before).max() / (2 ** (bits - 1) - 1)
        plain = np.rint(before / step) * step
        assert ((after - before) ** 2).sum() <= ((plain - before) ** 2).sum() * 1.0001


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.25, 0.5, 0.9]))
def test_small_weights_go_first(compression: ModuleType, seed: int, share: float) -> None:
    weight = np.random.default_rng(seed).standard_normal((20, 32)).astype(np.float32)
    found = compression.without_small(weight, share)
    gone = found == 0
    assert gone.mean() == pytest.approx(share, abs=0.01)
    assert (found[~gone] == weight[~gone]).all()
    assert np.abs(weight[gone]).max() <= np.abs(weight[~gone]).min()


def test_heads_that_say_least_are_taken_out(compression: ModuleType, source: EncoderSource) -> None:
    output = "encoder.layer.1.attention.output.dense.weight"
    weights = dict(source.weights)
    weights[output] = source.tensor(output).copy()
    weights[output][:, 16:24] *= 1e-3  # the third of four heads of 8
    found = compression.without_heads(replace(source, weights=weights), 0.25)
    matrix = found.tensor(output)
    assert not matrix[:, 16:24].any()
    assert (matrix[:, :16] == weights[output][:, :16]).all()
    assert (matrix[:, 24:] == weights[output][:, 24:]).all()
    assert (source.tensor(output)[:, 16:24] != 0).any()  # the source is as it was


def test_every_variant_has_a_size_and_leaves_the_source_alone(
    compression: ModuleType, source: EncoderSource
) -> None:
    before = {name: value.copy() for name, value in source.weights.items()}
    found = list(compression.variants(source))
    assert len({variant.name for variant in found}) == len(found) == 14
    whole = found[0].megabytes
    words = source.tensor("embeddings.word_embeddings.weight").size / 1e6
    assert whole == pytest.approx(words + 2 * (4 * 32 * 32 + 2 * 32 * 64) / 1e6)
    for variant in found[1:]:
        assert variant.megabytes < whole and 0 < variant.multiplications <= 1
        assert variant.source.layers == 2  # fewer of so few are not tried
    for name, value in before.items():
        assert (source.weights[name] == value).all()
