"""Decoders of a model's data files: bytes -> checked values. They raise ``ValueError`` or
``KeyError`` saying what is wrong; the caller knows which file it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from raxe_fast.npz import read_npz

__all__ = [
    "PLAIN_INPUTS",
    "CalibrationData",
    "ClusterData",
    "DevCurve",
    "SelfTest",
    "TriggerInfo",
    "decode_calibration",
    "decode_clusters",
    "decode_selftest",
    "decode_triggers",
]

_INPUTS = ["forest_logit", "rules", "linear", "passage", "lexical", "windows"]
PLAIN_INPUTS = 2  # of models whose forests see the embedding alone
_SEVERITIES = ("low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True)
class DevCurve:
    """Operating points on development data: rates of texts scoring at or above a threshold."""

    thresholds: tuple[float, ...]
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    benign: int
    attack: int


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """Arguments of ``_core.Calibration``, and the curve for thresholds."""

    weights: tuple[float, ...]
    bias: float
    knot_x: tuple[float, ...]
    knot_y: tuple[float, ...]
    curve: DevCurve


@dataclass(frozen=True, slots=True)
class TriggerInfo:
    """One trigger; ``phrases`` are lists of elements (words, prefixes, max_gap)."""

    name: str
    family: str
    subfamily: str
    severity: str
    weight: float
    description: str
    phrases: list[list[tuple[list[str], list[str], int]]]
    literals: list[str]


@dataclass(frozen=True, slots=True)
class ClusterData:
    """(K, H) float32 unit centroids, the ``n_attack`` attack clusters first, and their names."""

    centroids: npt.NDArray[np.float32]
    n_attack: int
    labels: tuple[str, ...]
    families: tuple[str, ...]
    subfamilies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """n stored texts: their token ids, embeddings (n, H) and the rows that the forests see (n, F)
    float32, and forest outputs float64."""

    token_ids: tuple[npt.NDArray[np.int64], ...]
    embeddings: npt.NDArray[np.float32]
    rows: npt.NDArray[np.float32]
    binary: npt.NDArray[np.float64]
    family: npt.NDArray[np.float64]
    subfamily: npt.NDArray[np.float64]


def _load(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("must hold a JSON object")
    return value


def _number(value: Any, what: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value):
        raise ValueError(f"{what} must be a finite number")
    return float(value)


def _numbers(value: Any, what: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list of numbers")
    return tuple(_number(item, what) for item in value)


def _strings(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{what} must be a list of strings")
    return list(value)


def decode_calibration(data: bytes) -> CalibrationData:
    """Decode ``calibration.json``."""
    raw = _load(data)
    if raw["inputs"] not in (_INPUTS[:PLAIN_INPUTS], _INPUTS):
        raise ValueError(f"inputs are {raw['inputs']!r}, this raxe_fast knows {_INPUTS!r}")
    weights = _numbers(raw["weights"], "weights")
    if len(weights) != len(raw["inputs"]):
        raise ValueError(f"there are {len(weights)} weights for {len(raw['inputs'])} inputs")
    knots = raw["isotonic"]
    knot_x = () if knots is None else _numbers(knots["x"], "isotonic.x")
    knot_y = () if knots is None else _numbers(knots["y"], "isotonic.y")
    curve = raw["dev_curve"]
    thresholds, fpr, tpr = (
        _numbers(curve[name], f"dev_curve.{name}") for name in ("thresholds", "fpr", "tpr")
    )
    if not len(thresholds) == len(fpr) == len(tpr):
        raise ValueError("the lists of dev_curve differ in length")
    return CalibrationData(
        weights,
        _number(raw["bias"], "bias"),
        knot_x,
        knot_y,
        DevCurve(thresholds, fpr, tpr, int(curve["benign"]), int(curve["attack"])),
    )


def decode_triggers(data: bytes) -> tuple[TriggerInfo, ...]:
    """Decode ``triggers.json``."""
    raw = _load(data)
    if raw["schema"] != 1:
        raise ValueError(f"schema version {raw['schema']!r} is not supported")
    return tuple(_trigger(item, index) for index, item in enumerate(raw["triggers"]))


def _trigger(item: Any, index: int) -> TriggerInfo:
    what = f"triggers[{index}]"
    if not isinstance(item, dict):
        raise ValueError(f"{what} must be an object")
    texts = _strings(
        [item[key] for key in ("name", "family", "subfamily", "severity", "description")], what
    )
    name, family, subfamily, severity, description = texts
    if severity not in _SEVERITIES:
        raise ValueError(f"{what}.severity {severity!r} is not one of {_SEVERITIES}")
    phrases = []
    for phrase in item["phrases"]:
        elements = []
        for element in phrase:
            gap = element["max_gap"]
            if not isinstance(gap, int) or isinstance(gap, bool) or not 0 <= gap <= 1000:
                raise ValueError(f"{what}: max_gap must be an integer in [0, 1000]")
            elements.append(
                (
                    _strings(element["words"], f"{what}.words"),
                    _strings(element["prefixes"], f"{what}.prefixes"),
                    gap,
                )
            )
        phrases.append(elements)
    return TriggerInfo(
        name,
        family,
        subfamily,
        severity,
        _number(item["weight"], f"{what}.weight"),
        description,
        phrases,
        _strings(item["literals"], f"{what}.literals"),
    )


def _array(
    arrays: Any, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = arrays[name]
    if not np.issubdtype(array.dtype, dtype):
        raise ValueError(f"array {name!r} is {array.dtype}, expected {np.dtype(dtype)}")
    if len(array.shape) != len(shape) or any(
        want is not None and want != have for want, have in zip(shape, array.shape, strict=True)
    ):
        expected = tuple("n" if want is None else want for want in shape)
        raise ValueError(f"array {name!r} has shape {array.shape}, expected {expected}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"array {name!r} holds NaN or infinity")
    return array


def decode_clusters(data: bytes, hidden: int) -> ClusterData:
    """Decode ``clusters.npz``; ``hidden`` is the embedding size."""
    arrays = read_npz(data)
    centroids = _array(arrays, "centroids", np.float32, (None, hidden))
    count = len(centroids)
    n_attack = int(_array(arrays, "n_attack", np.int64, ()))
    if not 0 <= n_attack <= count:
        raise ValueError(f"n_attack is {n_attack}, there are {count} clusters")
    labels, families, subfamilies = (
        tuple(str(item) for item in _array(arrays, name, np.str_, (count,)))
        for name in ("labels", "families", "subfamilies")
    )
    return ClusterData(np.ascontiguousarray(centroids), n_attack, labels, families, subfamilies)


def decode_selftest(
    data: bytes, hidden: int, families: int, subfamilies: int, row_size: int | None = None
) -> SelfTest:
    """Decode ``selftest.npz``; ``row_size`` None: the forests see the embedding alone."""
    arrays = read_npz(data)
    embeddings = _array(arrays, "embeddings", np.float32, (None, hidden))
    count = len(embeddings)
    if count == 0:
        raise ValueError("holds no text")
    tokens = _array(arrays, "token_ids", np.int64, (None,))
    offsets = _array(arrays, "offsets", np.int64, (count + 1,))
    if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 1).any():
        raise ValueError("offsets do not divide token_ids")
    return SelfTest(
        tuple(np.ascontiguousarray(tokens[begin:end]) for begin, end in pairwise(offsets.tolist())),
        np.ascontiguousarray(embeddings),
        np.ascontiguousarray(
            embeddings
            if row_size is None
            else _array(arrays, "rows", np.float32, (count, row_size))
        ),
        _array(arrays, "binary", np.float64, (count, 2)),
        _array(arrays, "family", np.float64, (count, families)),
        _array(arrays, "subfamily", np.float64, (count, subfamilies)),
    )
