"""A smaller network that begins from a larger one: fewer layers, or narrower ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.errors import ModelFormatError
from raxe_fast.training.encoder_source import CONFIG, EncoderSource
from raxe_fast.training.leave_out import leave_out

__all__ = ["Shape", "make_student"]

Float32 = NDArray[np.float32]

_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"
_STD = 0.02  # BERT's initializer_range


@dataclass(frozen=True, slots=True)
class Shape:
    """``layers`` of width ``hidden`` with ``heads`` heads and ``intermediate`` inner units."""

    layers: int
    hidden: int
    heads: int
    intermediate: int

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.heads, self.intermediate) < 1:
            raise ValueError(f"every size of a student must be positive: {self}")
        if self.hidden % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.hidden}")

    @classmethod
    def of(cls, source: EncoderSource) -> Shape:
        return cls(source.layers, source.hidden, source.heads, source.count("intermediate_size"))


def make_student(
    teacher: EncoderSource, shape: Shape, seed: int = 1, *, left_out: Sequence[str] | None = None
) -> EncoderSource:
    """A BERT of ``shape`` with the teacher's vocabulary, tokenizer and window.

    ``left_out``: words that its tokenizer leaves out, and no others; None leaves out what the
    teacher's does (see :func:`~raxe_fast.training.leave_out.leave_out`).

    A student as wide as its teacher takes over evenly spaced layers of it, the last one always. A
    narrower one takes the teacher's word and position embeddings, projected onto the directions in
    which word embeddings vary most, and begins its layers at random, as BERT does.

    Raises ModelFormatError for a teacher that is no BERT, ValueError for a shape that is wider or
    deeper than the teacher's, or as wide with other heads or inner units, and what leave_out
    raises.
    """
    if teacher.architecture != "bert":
        raise ModelFormatError(f"cannot shrink a {teacher.architecture}", path=teacher.path,
                               member=CONFIG)  # fmt: skip
    whole = Shape.of(teacher)
    if shape.layers > whole.layers or shape.hidden > whole.hidden:
        raise ValueError(f"a student must not exceed its teacher: {shape} of {whole}")
    if shape.hidden == whole.hidden:
        if replace(shape, layers=whole.layers) != whole:
            raise ValueError(f"a student as wide as its teacher shares its layers: {whole}")
        weights = _fewer_layers(teacher, shape.layers)
    else:
        weights = _narrower(teacher, shape, seed)
    config = teacher.config | {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
    }
    student = replace(teacher, config=config, weights=weights)
    return student if left_out is None else leave_out(student, left_out)


def _fewer_layers(teacher: EncoderSource, layers: int) -> dict[str, NDArray[Any]]:
    kept = np.linspace(teacher.layers - 1, 0, layers).round().astype(int)[::-1].tolist()
    new = {f"encoder.layer.{old}.": f"encoder.layer.{i}." for i, old in enumerate(kept)}
    weights = {}
    for name, value in teacher.weights.items():
        if not name.startswith("encoder.layer."):
            weights[name] = value
            continue
        prefix = ".".join(name.split(".")[:3]) + "."
        if prefix in new:
            weights[new[prefix] + name.removeprefix(prefix)] = value
    return weights


def _narrower(teacher: EncoderSource, shape: Shape, seed: int) -> dict[str, NDArray[Any]]:
    words = teacher.tensor(_WORDS)
    # Both are added to a word at every place, so they go through the same projection.
    _, _, directions = np.linalg.svd(words - words.mean(axis=0), full_matrices=False)
    projection = directions[: shape.hidden].T
    weights: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(teacher.tensor(name) @ projection, dtype=np.float32)
        for name in (_WORDS, _POSITIONS, _TYPES)
    }
    rng = np.random.default_rng(seed)

    def matrix(name: str, outputs: int, inputs: int) -> None:
        drawn = np.clip(rng.standard_normal((outputs, inputs)), -2, 2) * _STD
        weights[f"{name}.weight"] = drawn.astype(np.float32)
        weights[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = np.ones(shape.hidden, np.float32)
        weights[f"{name}.bias"] = np.zeros(shape.hidden, np.float32)

    norm("embeddings.LayerNorm")
    for index in range(shape.layers):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            matrix(f"{layer}.attention.self.{part}", shape.hidden, shape.hidden)
        matrix(f"{layer}.attention.output.dense", shape.hidden, shape.hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        matrix(f"{layer}.intermediate.dense", shape.intermediate, shape.hidden)
        matrix(f"{layer}.output.dense", shape.hidden, shape.intermediate)
        norm(f"{layer}.output.LayerNorm")
    return weights
