"""An encoder made smaller in several ways, as float weights that hold what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.encoder_source import EncoderSource
from raxe_fast.training.student import Shape, make_student

__all__ = ["Variant", "in_bits", "variants", "without_heads", "without_small"]

Float32 = NDArray[np.float32]

_WORDS = "embeddings.word_embeddings.weight"
# Of the largest weight of a group, the clipping limits that are tried: few bits want a lower one.
_LIMITS = np.linspace(0.5, 1.0, 11)


@dataclass(frozen=True)
class Variant:
    """``megabytes``: of word embeddings and matrices with their scales; ``multiplications``: those
    of the layers' matrices that are left, as a share. Neither says what a kernel makes of it."""

    name: str
    source: EncoderSource
    megabytes: float
    multiplications: float = 1.0


def in_bits(weight: Float32, bits: int, group: int | None = None) -> Float32:
    """(outputs, inputs) rounded to symmetric integers of ``bits`` with a scale for each output, or
    for each ``group`` inputs of it, chosen for the smallest squared error."""
    levels = 2 ** (bits - 1) - 1
    grouped = weight.reshape(len(weight), -1, group or weight.shape[1])
    largest = np.maximum(np.abs(grouped).max(-1, keepdims=True), 1e-12)
    best, least = grouped, np.full(largest.shape, np.inf)
    for limit in _LIMITS:
        step = largest * limit / levels
        rounded = np.clip(np.rint(grouped / step), -levels, levels) * step
        error = ((rounded - grouped) ** 2).sum(-1, keepdims=True)
        best = np.where(error < least, rounded, best)
        least = np.minimum(error, least)
    return best.reshape(weight.shape).astype(np.float32)


def without_small(weight: Float32, share: float) -> Float32:
    """The matrix with ``share`` of its weights, the smallest, set to zero."""
    limit = np.quantile(np.abs(weight), share)
    return np.where(np.abs(weight) <= limit, np.float32(0), weight)


def without_heads(source: EncoderSource, share: float) -> EncoderSource:
    """In each layer ``share`` of the heads taken out: those whose values reach the output least."""
    weights = dict(source.weights)
    size = source.hidden // source.heads
    for layer in range(source.layers):
        output = f"encoder.layer.{layer}.attention.output.dense.weight"
        value = source.tensor(f"encoder.layer.{layer}.attention.self.value.weight")
        matrix = source.tensor(output).copy()
        reach = [
            np.linalg.norm(matrix[:, h * size : (h + 1) * size] @ value[h * size : (h + 1) * size])
            for h in range(source.heads)
        ]
        for h in np.argsort(reach)[: round(share * source.heads)]:
            matrix[:, h * size : (h + 1) * size] = 0
        weights[output] = matrix
    return replace(source, weights=weights)


def variants(source: EncoderSource) -> Iterator[Variant]:
    """``source`` as it is, then smaller, one way at a time."""
    matrices = [
        n for n in source.weights if n.startswith("encoder.") and source.tensor(n).ndim == 2
    ]
    whole = sum(source.tensor(name).size for name in matrices)
    words = source.tensor(_WORDS).size

    def each(change: Callable[[Float32], Float32], *, embeddings: bool = False) -> EncoderSource:
        names = [*matrices, _WORDS] if embeddings else matrices
        return replace(
            source, weights=source.weights | {n: change(source.tensor(n)) for n in names}
        )

    def size(bits: float, word_bits: float = 8) -> float:
        return (whole * bits + words * word_bits) / 8e6

    yield Variant("as it is (7 bits, stored in 8)", source, size(8))
    for bits in (6, 5, 4, 3):
        yield Variant(
            f"{bits} bits, one scale an output", each(partial(in_bits, bits=bits)), size(bits)
        )
    for bits in (4, 3):
        # A scale of 16 bits for 32 weights.
        smaller = each(partial(in_bits, bits=bits, group=32))
        yield Variant(f"{bits} bits, a scale for 32 inputs", smaller, size(bits + 0.5))
    both = each(partial(in_bits, bits=4, group=32), embeddings=True)
    yield Variant("the same 4 bits, word embeddings too", both, size(4.5, 4.5))
    for share in (0.25, 0.5, 0.7, 0.9):
        # What is left in 8 bits, and a bit for each place.
        left = each(partial(without_small, share=share))
        yield Variant(
            f"{share:.0%} of the weights zero", left, size(8 * (1 - share) + 1), 1 - share
        )
    attention = sum(source.tensor(n).size for n in matrices if ".attention." in n) / whole
    for share in (0.25, 0.5):
        left = without_heads(source, share)
        kept = 1 - share * attention
        yield Variant(f"{share:.0%} of the heads taken out", left, size(8 * kept), kept)
    for layers in range(source.layers - 1, 1, -1):
        student = make_student(source, replace(Shape.of(source), layers=layers))
        kept = layers / source.layers
        yield Variant(f"{layers} layers", student, size(8 * kept), kept)
