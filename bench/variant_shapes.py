"""Encoder shapes with random weights: size and speed of their INT8 exports.

Neither depends on what the weights are, so a shape can be measured without training it. What such
an encoder would get right cannot.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.encoder import Encoder, TokenEncoder
from raxe_fast.errors import EncoderError
from raxe_fast.native import NativeEncoder
from raxe_fast.training.encoder_export import ENCODER_FILE, export_encoder
from raxe_fast.training.encoder_source import EncoderSource
from stats import Summary, timed

__all__ = ["BLOCK", "SHAPES", "Shape", "interleaved", "measure_shapes", "random_source"]

BLOCK = 10
_POSITIONS = 512
_SPREAD = 0.02


@dataclass(frozen=True, slots=True)
class Shape:
    """Layers, width and attention heads of an encoder; the inner layers are 4 times as wide."""

    name: str
    layers: int
    width: int
    heads: int
    architecture: str = "bert"
    vocabulary: int = 30522


SHAPES = (
    Shape("L6 x 384", 6, 384, 12),
    Shape("L4 x 384", 4, 384, 12),
    Shape("L3 x 384", 3, 384, 12),
    Shape("L2 x 384", 2, 384, 12),
    Shape("L6 x 256", 6, 256, 8),
    Shape("L3 x 192", 3, 192, 6),
    Shape("L2 x 128", 2, 128, 4),
    Shape("L12 x 384", 12, 384, 12),
    Shape("MPNet-base, L12 x 768", 12, 768, 12, "mpnet", 30527),
)


def random_source(shape: Shape, tokenizer: dict[str, Any], seed: int = 1) -> EncoderSource:
    """An encoder of this shape with seeded random weights; ``tokenizer`` is the content of a
    tokenizer.json, which must put two special tokens around a text."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[Any]] = {}
    width, inner = shape.width, 4 * shape.width
    bert = shape.architecture == "bert"
    first = 0 if bert else 2  # MPNet counts positions from the padding id on

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.standard_normal((rows, columns), dtype=np.float32)
        weights[f"{name}.weight"] = np.float32(_SPREAD) * values

    def linear(name: str, outputs: int, inputs: int) -> None:
        matrix(name, outputs, inputs)
        weights[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = np.ones(width, np.float32)
        weights[f"{name}.bias"] = np.zeros(width, np.float32)

    matrix("embeddings.word_embeddings", shape.vocabulary, width)
    matrix("embeddings.position_embeddings", _POSITIONS + first, width)
    norm("embeddings.LayerNorm")
    if bert:
        matrix("embeddings.token_type_embeddings", 2, width)
        parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
        parts.append("attention.output.dense")
        norms = ("attention.output.LayerNorm", "output.LayerNorm")
    else:
        matrix("encoder.relative_attention_bias", 32, shape.heads)
        parts = [f"attention.attn.{part}" for part in "qkvo"]
        norms = ("attention.LayerNorm", "output.LayerNorm")
    for layer in range(shape.layers):
        at = f"encoder.layer.{layer}"
        for part in parts:
            linear(f"{at}.{part}", width, width)
        linear(f"{at}.intermediate.dense", inner, width)
        linear(f"{at}.output.dense", width, inner)
        for name in norms:
            norm(f"{at}.{name}")
    config = {
        "model_type": shape.architecture,
        "hidden_size": width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": inner,
        "max_position_embeddings": _POSITIONS + first,
        "vocab_size": shape.vocabulary,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12 if bert else 1e-5,
        "pad_token_id": 0 if bert else 1,
        "type_vocab_size": 2,
        "relative_attention_num_buckets": 32,
    }
    return EncoderSource(
        path="random",
        name=f"random {shape.name}",
        architecture=shape.architecture,
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        max_tokens=_POSITIONS,
    )


def interleaved(
    pipelines: Mapping[str, Callable[[int], object]], iterations: int, block: int = BLOCK
) -> dict[str, dict[str, object]]:
    """Milliseconds of one call by pipeline, as Summary.to_dict gives them; calls take turns in
    blocks (see stats.turns). A pipeline is called with the number of the iteration."""
    samples = timed(pipelines, iterations, block)
    return {name: Summary.of(values).to_dict() for name, values in samples.items()}


def measure_shapes(
    tokenizer: dict[str, Any],
    trained: Path,
    buckets: Sequence[int],
    iterations: int,
    *,
    shapes: Sequence[Shape] = SHAPES,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """A row for each shape, and one for the ``trained`` encoder.onnx, which says whether random
    weights run as fast as real ones; each a second time on the native encoder where that runs it.
    One thread, random token ids, encoder calls alone.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [
        {
            "part": "shapes",
            "name": "the tuned one",
            "weights": "trained",
            "bytes": {"encoder": trained.stat().st_size},
        }
    ]
    encoders: list[TokenEncoder] = [Encoder(trained)]
    models = [trained]
    # Ids that the trained encoder and every shape know.
    known = min([len(tokenizer["model"]["vocab"]), *(shape.vocabulary for shape in shapes)])
    with tempfile.TemporaryDirectory() as folder:
        for number, shape in enumerate(shapes):
            target = Path(folder) / str(number)
            info = export_encoder(random_source(shape, tokenizer, seed), target, "int8")
            models.append(target / ENCODER_FILE)
            encoders.append(Encoder(models[-1]))
            rows.append(
                {
                    "part": "shapes",
                    "name": shape.name,
                    "weights": "random",
                    "architecture": shape.architecture,
                    "layers": info.layers,
                    "hidden_size": info.hidden_size,
                    "intermediate_size": info.intermediate_size,
                    "vocab_size": info.vocab_size,
                    "bytes": {"encoder": info.files[ENCODER_FILE]["size"]},
                }
            )
        for row, model in zip(list(rows), list(models), strict=True):
            try:
                encoders.append(NativeEncoder(model))
            except EncoderError:
                continue  # MPNet
            rows.append({**row, "name": f"{row['name']}, native"})
    for row in rows:
        row["latency"] = {}
    for tokens in buckets:
        ids = rng.integers(0, known, (16, 1, tokens), dtype=np.int64)
        pipelines = {
            row["name"]: _encode(encoder, ids)
            for row, encoder in zip(rows, encoders, strict=True)
            if encoder.max_tokens is None or tokens <= encoder.max_tokens
        }
        found = interleaved(pipelines, iterations)
        for row in rows:
            if row["name"] in found:
                row["latency"][str(tokens)] = found[row["name"]]
    return rows


def _encode(encoder: TokenEncoder, ids: NDArray[np.int64]) -> Callable[[int], object]:
    return lambda index: encoder.encode(ids[index % len(ids)])
