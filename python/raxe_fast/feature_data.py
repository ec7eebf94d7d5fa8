"""features.npz of a model: linear heads, passage head and n-gram models, decoded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from raxe_fast import _core
from raxe_fast.npz import read_npz

if TYPE_CHECKING:
    from raxe_fast.parts import TriggerInfo

__all__ = ["SURFACE", "FeatureData", "core_features", "decode_features", "feature_sizes"]

SURFACE = 10  # kSurface of the core


@dataclass(frozen=True, slots=True)
class FeatureData:
    """Linear heads (K, H), (K,) and their names; the passage head (H,); n-gram tables int8
    (2^bits, outputs) with scale and bias (outputs,)."""

    linear_weight: npt.NDArray[np.float32]
    linear_bias: npt.NDArray[np.float32]
    linear_names: tuple[str, ...]
    passage_weight: npt.NDArray[np.float32]
    passage_bias: float
    lexical_table: npt.NDArray[np.int8]
    lexical_scale: npt.NDArray[np.float32]
    lexical_bias: npt.NDArray[np.float32]
    label_table: npt.NDArray[np.int8]
    label_scale: npt.NDArray[np.float32]
    label_bias: npt.NDArray[np.float32]


def feature_sizes(data: FeatureData, families: int) -> dict[str, int]:
    """The blocks of a row in order and their lengths; ``labels`` is the last."""
    return {
        "embedding": data.linear_weight.shape[1],
        "linear": data.linear_weight.shape[0],
        "passage": 1,
        "lexical": 1,
        "rules": families + 1,  # the last one: triggers of families that the model has not
        "surface": SURFACE,
        "labels": data.label_table.shape[1],
    }


def decode_features(data: bytes, hidden: int) -> FeatureData:
    """Decode ``features.npz``. Raises ValueError or KeyError saying what is wrong; what the core
    checks itself is left to :func:`core_features`."""
    arrays = read_npz(data)

    def array(name: str, kind: type[np.generic], rank: int) -> npt.NDArray[np.generic]:
        stored = arrays[name]
        value = np.ascontiguousarray(stored).reshape(stored.shape)  # it makes scalars vectors
        if value.dtype != np.dtype(kind) or value.ndim != rank:
            raise ValueError(
                f"array {name!r} is {value.dtype} of rank {value.ndim}, "
                f"expected {np.dtype(kind)} of rank {rank}"
            )
        return value

    def floats(name: str, rank: int) -> npt.NDArray[np.float32]:
        value = array(name, np.float32, rank)
        assert value.dtype == np.float32
        return value.astype(np.float32, copy=False)

    def table(name: str) -> npt.NDArray[np.int8]:
        value = array(name, np.int8, 2).astype(np.int8, copy=False)
        rows = value.shape[0]
        if rows < 2 or rows & (rows - 1):
            raise ValueError(f"array {name!r} has {rows} rows, not a power of two")
        return value

    names = arrays["linear_names"]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise ValueError("array 'linear_names' is no list of names")
    found = FeatureData(
        linear_weight=floats("linear_weight", 2),
        linear_bias=floats("linear_bias", 1),
        linear_names=tuple(str(name) for name in names),
        passage_weight=floats("passage_weight", 1),
        passage_bias=float(floats("passage_bias", 0)),
        lexical_table=table("lexical_table"),
        lexical_scale=floats("lexical_scale", 1),
        lexical_bias=floats("lexical_bias", 1),
        label_table=table("label_table"),
        label_scale=floats("label_scale", 1),
        label_bias=floats("label_bias", 1),
    )
    if found.linear_weight.shape != (len(found.linear_names), hidden):
        raise ValueError(
            f"array 'linear_weight' has shape {found.linear_weight.shape}, "
            f"expected {(len(found.linear_names), hidden)}"
        )
    return found


def core_features(
    data: FeatureData, triggers: Sequence[TriggerInfo], families: Sequence[str]
) -> _core.Features:
    """The core's object. Triggers of families that the model has not share one rule score.

    Raises ValueError for parts that do not fit or values that are not finite.
    """
    number = {name: i for i, name in enumerate(families)}
    other = len(families)
    return _core.Features(
        data.linear_weight,
        data.linear_bias,
        data.passage_weight,
        data.passage_bias,
        data.lexical_table,
        data.lexical_scale,
        data.lexical_bias,
        data.label_table,
        data.label_scale,
        data.label_bias,
        np.array([number.get(item.family, other) for item in triggers], dtype=np.uint32),
        np.array([item.weight for item in triggers], dtype=np.float64),
        len(families) + 1,
    )
