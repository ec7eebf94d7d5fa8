"""mean_pool_l2 equals NumPy on every instruction set, and refuses what it would have to copy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raxe_fast import _core

LEVELS = ["scalar", "avx2", "avx512", "amx"]
AVAILABLE = LEVELS[: LEVELS.index(_core.detected_isa()) + 1]


@pytest.fixture(params=LEVELS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    level = str(request.param)
    if level not in AVAILABLE:
        pytest.skip(f"this machine lacks {level}")
    _core.force_isa(level)
    yield level
    _core.force_isa(_core.detected_isa())


def numpy_pool(tokens: NDArray[np.float32], mask: NDArray[np.uint8] | None) -> NDArray[np.float64]:
    """The recipe of sentence-transformers in float64."""
    rows = tokens.astype(np.float64)
    weights = np.ones(len(rows)) if mask is None else (mask != 0).astype(np.float64)
    mean = (rows * weights[:, None]).sum(axis=0) / max(weights.sum(), 1e-9)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


@st.composite
def pooling_input(
    draw: st.DrawFn,
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    count = draw(st.integers(0, 40))
    hidden = draw(st.one_of(st.integers(1, 70), st.sampled_from([96, 383, 384, 385, 768])))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    tokens = (random.standard_normal((count, hidden)) * scale + scale).astype(np.float32)
    masked = draw(st.booleans())
    return tokens, random.integers(0, 3, count).astype(np.uint8) if masked else None


@settings(max_examples=150, deadline=None)
@given(pooling_input())
def test_equals_numpy_on_every_isa(
    sample: tuple[NDArray[np.float32], NDArray[np.uint8] | None],
) -> None:
    tokens, mask = sample
    expected = numpy_pool(tokens, mask)
    try:
        for level in AVAILABLE:
            _core.force_isa(level)
            out = _core.mean_pool_l2(tokens, mask)
            assert out.dtype == np.float32
            assert out.shape == (tokens.shape[1],)
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6, err_msg=level)
    finally:
        _core.force_isa(_core.detected_isa())


@pytest.mark.parametrize("count", [1, 16, 64, 256, 512])
def test_encoder_shapes(isa: str, count: int) -> None:
    tokens = np.random.default_rng(count).standard_normal((count, 384)).astype(np.float32)
    out = _core.mean_pool_l2(tokens, None)
    np.testing.assert_allclose(out, numpy_pool(tokens, None), rtol=0, atol=1e-6)
    assert np.linalg.norm(out) == pytest.approx(1.0, abs=1e-6)


def test_nothing_to_pool(isa: str) -> None:
    assert not _core.mean_pool_l2(np.ones((3, 20), np.float32), np.zeros(3, np.uint8)).any()
    assert not _core.mean_pool_l2(np.ones((0, 20), np.float32), None).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_shows(isa: str, bad: float) -> None:
    tokens = np.ones((4, 50), np.float32)
    tokens[2, 49] = bad
    assert np.isnan(_core.mean_pool_l2(tokens, None)[49])
    # A masked token does not take part, whatever it holds.
    mask = np.array([1, 1, 0, 1], np.uint8)
    assert np.isfinite(_core.mean_pool_l2(tokens, mask)).all()


def test_read_only_input_is_accepted() -> None:
    tokens = np.ones((2, 8), np.float32)
    tokens.flags.writeable = False
    mask = np.ones(2, np.uint8)
    mask.flags.writeable = False
    assert _core.mean_pool_l2(tokens, mask).shape == (8,)


GOOD = np.ones((4, 8), np.float32)


@pytest.mark.parametrize(
    "tokens",
    [
        GOOD.astype(np.float64),
        GOOD.astype(np.float16),
        GOOD.astype(np.int32),
        GOOD[0],
        GOOD[None],
        np.asfortranarray(GOOD),
        GOOD[::2],
        GOOD[:, ::2],
        GOOD.tolist(),
        None,
        "text",
    ],
)
def test_tokens_that_would_be_copied_are_refused(tokens: object) -> None:
    with pytest.raises(TypeError):
        _core.mean_pool_l2(tokens, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mask",
    [np.ones(4, bool), np.ones(4, np.int64), np.ones((4, 1), np.uint8), np.ones(8, np.uint8)[::2]],
)
def test_masks_that_would_be_copied_are_refused(mask: object) -> None:
    with pytest.raises(TypeError):
        _core.mean_pool_l2(GOOD, mask)  # type: ignore[arg-type]


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="length"):
        _core.mean_pool_l2(GOOD, np.ones(3, np.uint8))
    with pytest.raises(ValueError, match="hidden"):
        _core.mean_pool_l2(np.ones((4, 0), np.float32), None)
    with pytest.raises(ValueError, match="no such instruction set"):
        _core.force_isa("mmx")


def test_the_result_owns_its_memory() -> None:
    out = [_core.mean_pool_l2(np.full((1, 64), i + 1, np.float32), None) for i in range(50)]
    assert all(np.allclose(row, 0.125) for row in out)
