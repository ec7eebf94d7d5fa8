"""Symmetric INT8 quantisation of weight matrices and of the word-embedding table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]

# ONNX Runtime's u8 x s8 kernels without VNNI add two products in a saturating int16
# (vpmaddubsw). With |w| <= 64 the worst pair is 2 * 255 * 64 = 32640 < 32768: it cannot saturate,
# and CPUs with and without VNNI compute the same integers.
LIMITS = {7: 64, 8: 127}
TABLE_LIMIT = 127


def quantize_columns(weight: npt.NDArray[Any], bits: int = 7) -> tuple[Int8, Float32]:
    """Quantise a (K, N) matrix with one scale per column.

    Returns (int8 (K, N), float32 scales (N,)); ``q * scale`` approximates the weight. ``bits`` is
    7 (range -64..64, see above) or 8 (-127..127). Raises ValueError for other bits, another rank
    or non-finite weights.
    """
    if bits not in LIMITS:
        raise ValueError(f"weight bits must be one of {sorted(LIMITS)}, not {bits}")
    return _quantize(weight, LIMITS[bits], axis=0)


def quantize_rows(table: npt.NDArray[Any]) -> tuple[Int8, Float32]:
    """Quantise a (V, H) table with one scale per row: (int8 (V, H), float32 scales (V, 1)).

    Rows are only looked up and scaled back, never multiplied as integers, so they use the whole
    range -127..127. Raises ValueError as :func:`quantize_columns`.
    """
    quantized, scales = _quantize(table, TABLE_LIMIT, axis=1)
    return quantized, scales.reshape(-1, 1)


def _quantize(values: npt.NDArray[Any], limit: int, axis: int) -> tuple[Int8, Float32]:
    if values.ndim != 2:
        raise ValueError(f"expected a matrix, got shape {values.shape}")
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("cannot quantise: the matrix holds NaN or infinity")
    peak = np.abs(wide).max(axis=axis, keepdims=True)
    # An all-zero channel quantises to zeros whatever its scale; 1 keeps the division defined.
    scale = np.where(peak > 0, peak / limit, 1.0).astype(np.float32)
    quantized = np.clip(np.rint(wide / scale), -limit, limit).astype(np.int8)
    return quantized, scale.reshape(-1)
