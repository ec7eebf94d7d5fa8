"""Takes the encoder out of a trained model, so that fine-tuning can go on from it.

A model keeps its encoder as an INT8 graph. Its integers times their scales are weights that export
to the same integers again: what is lost against the float weights was lost when the model was
made. The tokenizer is the model's; the configuration and what the graph does not hold come from the
base encoder, or, for a smaller network than that, from a student of it (student.py).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.archive import open_files, read_checked, read_manifest
from raxe_fast.errors import ModelFormatError
from raxe_fast.feature_data import FeatureData, decode_features
from raxe_fast.manifest import FEATURES_FILE, MANIFEST, parse_manifest
from raxe_fast.onnx_reader import read_onnx
from raxe_fast.training.encoder_source import PAIRS, TOKENIZER, EncoderSource, load_source
from raxe_fast.training.finetune_output import SCALE, LinearHeads, write_output
from raxe_fast.training.folds import Holdout
from raxe_fast.training.pairs import with_pairs
from raxe_fast.training.student import Shape, make_student

__all__ = ["encoder_folder", "is_model", "linear_heads", "restore_encoder"]

Float32 = NDArray[np.float32]

# Names in a BERT checkpoint, and in the graph that encoder_graph_bert makes of it.
_MATRICES = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention_out",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
}
_EMBEDDINGS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_PAIR_TABLE = "embeddings.pairs"  # in a graph
_TYPES = "embeddings.token_type_embeddings.weight"


def is_model(path: Path | str) -> bool:
    """Whether a path is a trained model: a .raxe file, or a directory with a manifest."""
    path = Path(path)
    return (path.is_file() and path.suffix == ".raxe") or (path / MANIFEST).is_file()


@contextmanager
def encoder_folder(encoder: Path | str, holdout: Holdout) -> Iterator[Path | str]:
    """The argument itself, or a temporary directory with the encoder of the model it names."""
    if not is_model(encoder):
        yield encoder
        return
    with tempfile.TemporaryDirectory(prefix="raxe-encoder-") as folder:
        restore_encoder(encoder, Path(folder) / "encoder", holdout)
        yield Path(folder) / "encoder"


def restore_encoder(model: Path | str, output: Path | str, holdout: Holdout) -> None:
    """Writes the encoder and the linear heads of a model with features as fine-tuning writes them.

    A distilled student is restored as such. What that encoder has not seen is taken from the
    manifest; ``holdout`` where it does not say, and no texts of our own then.

    Raises what loading a model raises, ModelFormatError for a model without linear heads or whose
    encoder has a shape that no student of its base can have, and ModelNotFoundError where that
    base is not installed.
    """
    with open_files(Path(model)) as files:
        raw = read_manifest(files)
        manifest = parse_manifest(raw, files.path)
        if FEATURES_FILE not in manifest.files:
            raise ModelFormatError(
                "a model without linear heads: fine-tune its base encoder instead",
                path=files.path,
                member=FEATURES_FILE,
            )
        encoder, features, tokenizer = (
            read_checked(files, name, manifest.files[name])
            for name in (manifest.encoder.file, FEATURES_FILE, TOKENIZER)
        )
        path = files.path
    about = manifest.encoder
    if about.architecture != "bert":
        raise ModelFormatError(f"cannot restore a {about.architecture} encoder", path=path)
    graph = _Graph(encoder, path, about.file)
    base = graph.source(load_source(about.base), about.layers, about.hidden_size)
    info: dict[str, Any] = {
        "base": base.name,
        "restored_from": manifest.id,
        "holdout": holdout.to_dict(),
        "own_sources": [],
        **json.loads(raw)["encoder"].get("tuned", {}),
    }
    try:
        heads = linear_heads(decode_features(features, about.hidden_size))
    except (ValueError, KeyError, IndexError) as error:
        message = f"cannot be read: {error}"
        raise ModelFormatError(message, path=path, member=FEATURES_FILE) from error
    try:
        base = replace(base, tokenizer=json.loads(tokenizer))
    except ValueError as error:
        message = f"cannot be read: {error}"
        raise ModelFormatError(message, path=path, member=TOKENIZER) from error
    weights = graph.weights(base)
    write_output(Path(output), base, weights, heads, info)


class _Graph:
    """The tensors of an INT8 graph as encoder_graph_bert names them, as floats."""

    def __init__(self, content: bytes, path: str, member: str) -> None:
        self.path, self.member = path, member
        try:
            graph = read_onnx(content)
        except ValueError as error:
            raise ModelFormatError(f"cannot be read: {error}", path=path, member=member) from error
        self.held = graph.tensors
        attention = [node for node in graph.nodes if node.op == "MultiHeadAttention"]
        heads = attention[0].attributes.get("num_heads") if attention else None
        self.heads = heads if isinstance(heads, int) else 0

    def error(self, message: str) -> ModelFormatError:
        return ModelFormatError(message, path=self.path, member=self.member)

    def tensor(self, key: str) -> Float32:
        if key not in self.held:
            raise self.error(f"there is no tensor {key!r}")
        scale = self.held.get(f"{key}_scale", np.float32(1))
        value: Float32 = self.held[key].astype(np.float32) * scale
        return value

    def source(self, base: EncoderSource, layers: int, hidden: int) -> EncoderSource:
        """The base itself, or a student of it in the shape of this graph, whose weights are to be
        replaced."""
        inner = self.tensor("layer0.intermediate.weight").shape[-1]
        try:
            shape = Shape(layers, hidden, self.heads, inner)
            found = base if shape == Shape.of(base) else make_student(base, shape)
            return with_pairs(found, len(self.held.get(_PAIR_TABLE, ())))
        except ValueError as error:
            raise self.error(f"{error}; its base is {base.name}") from error

    def weights(self, base: EncoderSource) -> dict[str, Float32]:
        """Under the names of a checkpoint; what the graph does not hold is that of ``base``."""
        tensor = self.tensor
        weights = {k: v.astype(np.float32, copy=False) for k, v in base.weights.items()}

        def put(name: str, value: Float32) -> None:
            # Another vocabulary or width would only show when torch reads the result.
            expected = base.tensor(name).shape
            if value.shape != expected:
                raise self.error(
                    f"{name!r} has shape {value.shape}, in its base {base.name} {expected}"
                )
            weights[name] = value

        put(_EMBEDDINGS, tensor("embeddings.words"))
        if base.pair_rows:
            put(PAIRS, tensor(_PAIR_TABLE))
        # The graph adds the row of token type 0 to every position.
        put(_POSITIONS, tensor("embeddings.positions") - base.tensor(_TYPES)[:1])
        norms = {"embeddings.LayerNorm": "embeddings.norm"}
        for index in range(base.layers):
            layer, node = f"encoder.layer.{index}", f"layer{index}"
            for theirs, ours in _MATRICES.items():
                put(f"{layer}.{theirs}.weight", tensor(f"{node}.{ours}.weight").T)
                put(f"{layer}.{theirs}.bias", tensor(f"{node}.{ours}.bias"))
            norms[f"{layer}.attention.output.LayerNorm"] = f"{node}.attention_norm"
            last = index == base.layers - 1
            norms[f"{layer}.output.LayerNorm"] = "token_embeddings" if last else f"{node}.hidden"
        for theirs, ours in norms.items():
            put(f"{theirs}.weight", tensor(f"{ours}.gamma"))
            put(f"{theirs}.bias", tensor(f"{ours}.beta"))
        return weights


def linear_heads(data: FeatureData) -> LinearHeads:
    """The linear heads out of the features: binary, families, subfamilies (see feature_parts)."""
    weight, bias = data.linear_weight / np.float32(SCALE), data.linear_bias
    kinds = [name.partition(":") for name in data.linear_names]
    family = [i for i, kind in enumerate(kinds) if kind[0] == "family"]
    subfamily = [i for i, kind in enumerate(kinds) if kind[0] == "subfamily"]
    pairs = [kinds[i][2].partition("/") for i in subfamily]
    return LinearHeads(
        scale=SCALE,
        binary_weight=weight[0],
        binary_bias=float(bias[0]),
        family_weight=weight[family],
        family_bias=bias[family],
        subfamily_weight=weight[subfamily],
        subfamily_bias=bias[subfamily],
        families=tuple(kinds[i][2] for i in family),
        subfamilies=tuple((pair[0], pair[2]) for pair in pairs),
        evidence_weight=data.passage_weight,
        evidence_bias=float(data.passage_bias),
    )
