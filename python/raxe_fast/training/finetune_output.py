"""The directory a fine-tuned encoder is: sentence-transformers files, linear heads, a record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.errors import ModelFormatError
from raxe_fast.npz import read_npz
from raxe_fast.training.encoder_source import (
    CONFIG,
    POOLING,
    TOKENIZER,
    WEIGHTS,
    EncoderSource,
    load_source,
)
from raxe_fast.training.folds import FINETUNE_INFO

__all__ = ["EVIDENCE_SPAN", "HEADS_FILE", "SCALE", "LinearHeads", "write_output"]

HEADS_FILE = "linear_heads.npz"
SCALE = 16.0
# Tokens that a passage has; the core's kEvidenceSpan.
EVIDENCE_SPAN = 8

_COPIED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "config_sentence_transformers.json",
)
_MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
)

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LinearHeads:
    """Heads on the unit embedding e, (H,): logits are ``scale * (weight @ e) + bias``.

    Weights are float32, (H,) for the binary head and (classes, H) for the others, whose classes
    include harmless ones (family ``benign``, first in ``families``). The evidence of a token with
    embedding h, (H,), is ``evidence_weight @ h + evidence_bias``.
    """

    scale: float
    binary_weight: Float32
    binary_bias: float
    family_weight: Float32
    family_bias: Float32
    subfamily_weight: Float32
    subfamily_bias: Float32
    families: tuple[str, ...]
    subfamilies: tuple[tuple[str, str], ...]
    evidence_weight: Float32
    evidence_bias: float

    def logits(self, embeddings: Float32) -> tuple[Float32, Float32, Float32]:
        """Binary (N,), family (N, F) and subfamily (N, S) logits of (N, H) unit vectors."""
        scaled: Float32 = np.float32(self.scale) * embeddings
        binary: Float32 = scaled @ self.binary_weight + np.float32(self.binary_bias)
        family: Float32 = scaled @ self.family_weight.T + self.family_bias
        subfamily: Float32 = scaled @ self.subfamily_weight.T + self.subfamily_bias
        return binary, family, subfamily

    def save(self, path: Path) -> None:
        np.savez_compressed(
            path,
            scale=np.float32(self.scale),
            binary_weight=self.binary_weight,
            binary_bias=np.float32(self.binary_bias),
            family_weight=self.family_weight,
            family_bias=self.family_bias,
            family_names=np.array(self.families),
            subfamily_weight=self.subfamily_weight,
            subfamily_bias=self.subfamily_bias,
            subfamily_names=np.array([name for _, name in self.subfamilies]),
            subfamily_families=np.array([family for family, _ in self.subfamilies]),
            evidence_weight=self.evidence_weight,
            evidence_bias=np.float32(self.evidence_bias),
        )

    @classmethod
    def load(cls, path: Path) -> LinearHeads:
        """Raises ModelFormatError where the file is missing or holds something else."""
        try:
            data = read_npz(path.read_bytes())
            subfamilies = zip(
                data["subfamily_families"].tolist(), data["subfamily_names"].tolist(), strict=True
            )
            heads = cls(
                scale=float(data["scale"]),
                binary_weight=data["binary_weight"],
                binary_bias=float(data["binary_bias"]),
                family_weight=data["family_weight"],
                family_bias=data["family_bias"],
                subfamily_weight=data["subfamily_weight"],
                subfamily_bias=data["subfamily_bias"],
                families=tuple(data["family_names"].tolist()),
                subfamilies=tuple((str(family), str(name)) for family, name in subfamilies),
                evidence_weight=data["evidence_weight"],
                evidence_bias=float(data["evidence_bias"]),
            )
            heads.logits(np.zeros((1, len(heads.binary_weight)), np.float32))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFormatError(f"cannot be read: {error}", path=path) from error
        return heads


def write_output(
    folder: Path,
    source: EncoderSource,
    weights: Mapping[str, Float32],
    heads: LinearHeads,
    info: Mapping[str, Any],
    *,
    max_tokens: int | None = None,
) -> None:
    """Writes what :func:`~raxe_fast.training.encoder_source.load_source` reads, with ``weights``
    in place of the encoder's own, linear_heads.npz and finetune.json (``info``).

    tokenizer.json is the source's as it is: the export turns it into what ships.
    ``max_tokens`` is the window length to record; by default the encoder's own. Raises
    ModelFormatError where the result does not read back.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    origin = Path(source.path)
    for name in _COPIED:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    _write(folder / TOKENIZER, source.tokenizer)
    config = {
        key: "float32" if key in ("dtype", "torch_dtype") else value
        for key, value in source.config.items()
    }
    _write(folder / CONFIG, config)
    tensors = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(_MODULES)
    ]
    _write(folder / "modules.json", modules)
    pooling = {"word_embedding_dimension": source.hidden, "pooling_mode_mean_tokens": True}
    _write(folder / POOLING, pooling)
    tokens = max_tokens or source.max_tokens
    if tokens is not None:
        limits = {"max_seq_length": tokens, "do_lower_case": False}
        _write(folder / "sentence_bert_config.json", limits)
    heads.save(folder / HEADS_FILE)
    _write(folder / FINETUNE_INFO, info)
    load_source(folder)
    LinearHeads.load(folder / HEADS_FILE)


def _write(path: Path, value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
