"""The model's manifest: typed, and checked against its schema before anything else is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

from raxe_fast.errors import ModelFormatError

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "EncoderSpec",
    "FileSpec",
    "HeadSpec",
    "Manifest",
    "ScreeningPreset",
    "ScreeningSpec",
    "is_safe_member",
    "parse_manifest",
    "row_size",
]

MANIFEST = "manifest.json"
SCHEMA = 1
HEADS = ("binary", "family", "subfamily")
FEATURES_FILE = "features.npz"
FEATURES = ("embedding", "linear", "passage", "lexical", "rules", "surface", "labels")
DATA_FILES = ("tokenizer.json", "calibration.json", "triggers.json", "clusters.npz", "selftest.npz")

BACKENDS = ("onnxruntime", "native")

_PRESETS = ("balanced", "strict", "quiet")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The ONNX encoder: ``input`` int64 (batch, sequence) -> ``output`` float32 (.., hidden).

    ``backend``: what ran it when heads and thresholds were made.
    """

    file: str
    architecture: str
    base: str
    precision: str
    hidden_size: int
    layers: int
    vocab_size: int
    input: str
    output: str
    cls_id: int
    sep_id: int
    pad_id: int
    max_tokens: int
    overlap_tokens: int
    backend: str = "onnxruntime"


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """One random forest: a Treelite file, its number of trees and of outputs."""

    file: str
    trees: int
    outputs: int


@dataclass(frozen=True, slots=True)
class FileSpec:
    """Expected SHA-256 (64 lower-case hex digits) and size in bytes of a member."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ScreeningPreset:
    """What screening may clear under one preset: windows whose logit is below ``clear_below``
    (None: nothing), and what that costs on development data: shares of all attacks that no longer
    reach the preset's block and warning threshold."""

    clear_below: float | None
    recall_loss: float
    warn_loss: float


@dataclass(frozen=True, slots=True)
class ScreeningSpec:
    """The screening network: a tiny INT8 BERT that reads the ids of the model's own tokenizer, and
    its heads. The limits are of the losses: a preset that exceeds one does not screen."""

    file: str
    heads: str
    hidden_size: int
    layers: int
    max_recall_loss: float
    max_warn_loss: float
    presets: Mapping[str, ScreeningPreset]

    def clear_below(
        self, block: float, warn: float, thresholds: Mapping[str, tuple[float, float]]
    ) -> float | None:
        """The logit below which a window may be cleared under these thresholds; None: never.

        The losses of a preset say nothing about other thresholds, not even higher ones (an attack
        whose worst window is cleared may still reach the lower one by another): only a preset's own
        thresholds will do. Of several presets with the same the most cautious is taken.
        """
        allowed: list[float] = []
        for name, item in self.presets.items():
            if thresholds[name] != (block, warn):
                continue
            lost_too_much = (
                item.recall_loss > self.max_recall_loss or item.warn_loss > self.max_warn_loss
            )
            if item.clear_below is None or lost_too_much:
                return None
            allowed.append(item.clear_below)
        return min(allowed, default=None)


@dataclass(frozen=True, slots=True)
class Manifest:
    """``manifest.json``, checked. ``thresholds`` maps a preset to (block, warn); ``screening`` is
    None for a model without."""

    id: str
    version: str
    created: str
    package_version: str
    encoder: EncoderSpec
    families: tuple[str, ...]
    subfamilies: tuple[tuple[str, str], ...]  # (name, family)
    heads: Mapping[str, HeadSpec]
    embedding_size: int
    # The blocks of the row that the forests see, in order, and their lengths.
    features: Mapping[str, int]
    detail_threshold: float
    thresholds: Mapping[str, tuple[float, float]]
    files: Mapping[str, FileSpec]
    screening: ScreeningSpec | None = None


def row_size(manifest: Manifest, head: str) -> int:
    """Length of the row that the forest of a head sees: the binary one goes without ``labels``."""
    sizes = manifest.features
    return sum(sizes.values()) - (sizes.get("labels", 0) if head == "binary" else 0)


def is_safe_member(name: str) -> bool:
    """Whether ``name`` is a plain relative POSIX path that stays inside the model."""
    if not name or "\\" in name or "\0" in name or ":" in name or name.startswith("/"):
        return False
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and str(PurePosixPath(name)) == name


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


class _Reader:
    """Typed access to parsed JSON; every complaint names the key."""

    def __init__(self, data: Any, where: str, path: str) -> None:
        self.path = path
        self.where = where
        if not isinstance(data, dict):
            raise self.error(f"{where or 'the manifest'} must be an object")
        self.data: dict[str, Any] = data

    def error(self, message: str) -> ModelFormatError:
        return ModelFormatError(message, path=self.path, member=MANIFEST)

    def key(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def get(self, name: str) -> Any:
        if name not in self.data:
            raise self.error(f"{self.key(name)} is missing")
        return self.data[name]

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str):
            raise self.error(f"{self.key(name)} must be a string")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(f"{self.key(name)} must be an integer in [{low}, {high}]")
        return value

    def fraction(self, name: str) -> float:
        value = self.get(name)
        if not _is_finite(value) or not 0.0 <= value <= 1.0:
            raise self.error(f"{self.key(name)} must be a number in [0, 1]")
        return float(value)

    def number(self, name: str) -> float:
        value = self.get(name)
        if not _is_finite(value):
            raise self.error(f"{self.key(name)} must be a finite number")
        return float(value)

    def child(self, name: str) -> _Reader:
        return _Reader(self.get(name), self.key(name), self.path)

    def items(self, name: str) -> list[Any]:
        value = self.get(name)
        if not isinstance(value, list):
            raise self.error(f"{self.key(name)} must be a list")
        return value


def parse_manifest(raw: bytes, path: str) -> Manifest:
    """Parse and check ``manifest.json`` of the model at ``path`` (used in messages).

    Raises :class:`~raxe_fast.errors.ModelFormatError`.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"not valid JSON: {error}", path=path, member=MANIFEST) from None
    root = _Reader(data, "", path)
    schema = root.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise root.error(
            f"schema version {schema!r} is not supported: this raxe_fast reads schema {SCHEMA}"
        )

    model_id = root.text("id")
    if not _MODEL_ID.fullmatch(model_id):
        raise root.error("id may hold letters, digits, '.', '_' and '-' only")
    encoder = _encoder(root.child("encoder"))
    families, subfamilies = _labels(root.child("labels"))
    heads_reader = root.child("heads")
    heads = {name: _head(heads_reader.child(name)) for name in HEADS}
    for name, expected in zip(HEADS, (2, len(families), len(subfamilies)), strict=True):
        if heads[name].outputs != expected:
            raise root.error(
                f"heads.{name}.outputs is {heads[name].outputs}, the labels ask for {expected}"
            )
    files = _files(root)
    features = _features(root, encoder.hidden_size)
    extra: tuple[str, ...] = (FEATURES_FILE,) if len(features) > 1 else ()
    screening = _screening(root.child("screening")) if "screening" in root.data else None
    if screening is not None:
        extra += (screening.file, screening.heads)
    for name in (encoder.file, *DATA_FILES, *extra, *(head.file for head in heads.values())):
        if name not in files:
            raise root.error(f"files does not list {name}")
    return Manifest(
        id=model_id,
        version=root.text("version"),
        created=root.text("created"),
        package_version=root.text("package_version"),
        encoder=encoder,
        families=families,
        subfamilies=subfamilies,
        heads=heads,
        embedding_size=encoder.hidden_size,
        features=features,
        detail_threshold=root.fraction("detail_threshold"),
        thresholds=_thresholds(root.child("thresholds")),
        files=files,
        screening=screening,
    )


def _encoder(reader: _Reader) -> EncoderSpec:
    vocabulary = reader.integer("vocab_size", 1, 10_000_000)
    max_tokens = reader.integer("max_tokens", 3, 65_536)
    return EncoderSpec(
        file=reader.text("file"),
        architecture=reader.text("architecture"),
        base=reader.text("base"),
        precision=reader.text("precision"),
        hidden_size=reader.integer("hidden_size", 1, 65_536),
        layers=reader.integer("layers", 1, 1_000),
        vocab_size=vocabulary,
        input=reader.text("input"),
        output=reader.text("output"),
        cls_id=reader.integer("cls_id", 0, vocabulary - 1),
        sep_id=reader.integer("sep_id", 0, vocabulary - 1),
        pad_id=reader.integer("pad_id", 0, vocabulary - 1),
        max_tokens=max_tokens,
        # Two of the tokens are [CLS] and [SEP]; at least one new token per window.
        overlap_tokens=reader.integer("overlap_tokens", 0, max_tokens - 3),
        backend=_backend(reader),
    )


def _backend(reader: _Reader) -> str:
    """ONNX Runtime for models that do not say: they are older than the other."""
    if "backend" not in reader.data:
        return BACKENDS[0]
    backend = reader.text("backend")
    if backend not in BACKENDS:
        raise reader.error(f"{reader.key('backend')} must be one of {', '.join(BACKENDS)}")
    return backend


def _head(reader: _Reader) -> HeadSpec:
    return HeadSpec(
        file=reader.text("file"),
        trees=reader.integer("trees", 1, 100_000),
        outputs=reader.integer("outputs", 1, 10_000),
    )


def _labels(reader: _Reader) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    families = reader.items("families")
    if not families or not all(isinstance(name, str) and name for name in families):
        raise reader.error("labels.families must be a list of names")
    if len(set(families)) != len(families):
        raise reader.error("labels.families holds a name twice")
    subfamilies = []
    for index, item in enumerate(reader.items("subfamilies")):
        entry = _Reader(item, f"labels.subfamilies[{index}]", reader.path)
        name, family = entry.text("name"), entry.text("family")
        if family not in families:
            raise reader.error(f"{entry.where}.family {family!r} is not in labels.families")
        subfamilies.append((name, family))
    if len(set(subfamilies)) != len(subfamilies):
        raise reader.error("labels.subfamilies holds an entry twice")
    return tuple(families), tuple(subfamilies)


def _features(root: _Reader, hidden: int) -> dict[str, int]:
    """The embedding alone, or all of FEATURES."""
    items = root.items("features")
    if len(items) not in (1, len(FEATURES)):
        raise root.error(f"features must hold the embedding alone, or {', '.join(FEATURES)}")
    sizes: dict[str, int] = {}
    for index, (item, expected) in enumerate(zip(items, FEATURES, strict=False)):
        entry = _Reader(item, f"features[{index}]", root.path)
        if entry.text("name") != expected:
            raise root.error(
                f"features[{index}].name {entry.text('name')!r} is not known, {expected!r} expected"
            )
        sizes[expected] = entry.integer("size", 1, 65_536)
    if sizes["embedding"] != hidden:
        raise root.error(
            f"features[0].size is {sizes['embedding']}, encoder.hidden_size is {hidden}"
        )
    return sizes


def _thresholds(reader: _Reader) -> dict[str, tuple[float, float]]:
    presets: dict[str, tuple[float, float]] = {}
    for name in _PRESETS:
        entry = reader.child(name)
        block, warn = entry.fraction("block"), entry.fraction("warn")
        if warn > block:
            raise reader.error(f"thresholds.{name}.warn is above thresholds.{name}.block")
        presets[name] = (block, warn)
    return presets


def _screening(reader: _Reader) -> ScreeningSpec:
    presets = {}
    entries = reader.child("presets")
    for name in _PRESETS:
        entry = entries.child(name)
        presets[name] = ScreeningPreset(
            None if entry.get("clear_below") is None else entry.number("clear_below"),
            entry.fraction("recall_loss"),
            entry.fraction("warn_loss"),
        )
    return ScreeningSpec(
        file=reader.text("file"),
        heads=reader.text("heads"),
        hidden_size=reader.integer("hidden_size", 1, 65_536),
        layers=reader.integer("layers", 1, 1_000),
        max_recall_loss=reader.fraction("max_recall_loss"),
        max_warn_loss=reader.fraction("max_warn_loss"),
        presets=presets,
    )


def _files(root: _Reader) -> dict[str, FileSpec]:
    reader = root.child("files")
    files: dict[str, FileSpec] = {}
    for name in reader.data:
        if not is_safe_member(name) or name == MANIFEST:
            raise root.error(f"files holds an unsafe name: {name!r}")
        entry = reader.child(name)
        digest = entry.text("sha256")
        if not _HEX64.fullmatch(digest):
            raise root.error(f"files.{name}.sha256 must be 64 lower-case hex digits")
        files[name] = FileSpec(digest, entry.integer("size", 0, 1 << 40))
    return files
