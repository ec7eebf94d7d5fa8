"""Runs an exported INT8 BERT encoder with the kernels of this package instead of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raxe_fast import _core
from raxe_fast.encoder import INPUT, OUTPUT, TokenEncoder, read_model
from raxe_fast.errors import EncoderError
from raxe_fast.onnx_reader import Graph, Node, read_onnx

__all__ = ["PAIR_HASH", "NativeEncoder"]

_CONTRIB = "com.microsoft"
_FLOAT = 1
_Signature = tuple[str, str, tuple[str, ...], tuple[str, ...]]
# Values of attributes that are fixed; those of `_FREE` are read from the graph.
_ATTRIBUTES: dict[str, dict[str, int]] = {
    "Cast": {"to": _FLOAT},
    "Shape": {"start": 1, "end": 2},
    "LayerNormalization": {"axis": -1},
}
_PAIRS = "embeddings.pairs"
# The numbers of the hash that finds a pair's row, as the core has them (encoder.hpp, pair_row).
PAIR_HASH = (1000003, 7919, 2147483647)
_PAIR_NUMBERS = {
    "pairs.shift": [0, 1, 0, -1],
    "pairs.first": [PAIR_HASH[0]],
    "pairs.second": [PAIR_HASH[1]],
    "pairs.modulus": [PAIR_HASH[2]],
}
_FREE = {"LayerNormalization": "epsilon", "MultiHeadAttention": "num_heads"}


class NativeEncoder(TokenEncoder):
    """Token ids to token embeddings, as :class:`~raxe_fast.encoder.Encoder`, on one thread.

    ``model`` is the path of an exported encoder.onnx or its bytes: of a BERT in INT8 with 7-bit
    weights, exactly as this package exports it. The weights are copied and packed for the
    instruction set of this machine. ``threads`` must be 1: calls from several threads run side by
    side. ``cpus``, if given, names the one CPU to pin the calling thread to inside
    ``with encoder.pinned():``.

    Each token's activations are quantised by themselves, not those of a whole batch together: the
    embeddings of a text do not depend on its batch, and they are the same to the last bit on every
    instruction set.

    Raises EncoderError where the model cannot be read or is another graph (float, MPNet),
    ValueError for bad ``threads`` or ``cpus``.
    """

    __slots__ = ("_native",)

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        threads: int = 1,
        cpus: Sequence[int] | None = None,
    ) -> None:
        super().__init__(threads, cpus)
        if threads != 1:
            raise ValueError(f"the native encoder runs on one thread, threads={threads!r}")
        name, content = read_model(model)
        try:
            graph = read_onnx(content)
            self._native = _build(graph)
        except (ValueError, TypeError) as error:
            raise EncoderError(f"{name}: not for the native encoder: {error}") from error
        self._hidden = self._native.hidden
        limit = graph.metadata.get("max_positions", "")
        positions = self._native.positions
        self._max_tokens = min(positions, int(limit)) if limit.isdecimal() else positions

    @property
    def core(self) -> _core.NativeEncoder:
        """The core's own object."""
        return self._native

    @property
    def kernels(self) -> str:
        """``"avx512vnni"``, ``"avx2"`` or ``"scalar"``."""
        return self._native.kernels

    @property
    def nbytes(self) -> int:
        """Memory of weights and tables."""
        return self._native.nbytes

    def _run(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self._native.encode(np.ascontiguousarray(ids))


def _build(graph: Graph) -> _core.NativeEncoder:
    layers = sum(node.op == "MultiHeadAttention" for node in graph.nodes)
    held = graph.tensors
    pairs = _PAIRS in held
    free = _check_nodes(graph, layers, pairs)
    if graph.inputs != (INPUT,) or graph.outputs != (OUTPUT,):
        raise ValueError(f"has inputs {graph.inputs} and outputs {graph.outputs}")
    if _held(held, "zero").tolist() != [0]:
        raise ValueError("the constant 'zero' is not 0")
    more = {}
    if pairs:
        _check_pair_numbers(held)
        more = {"pairs": _held(held, _PAIRS), "pair_scale": _row_scale(held, _PAIRS)}
    return _core.NativeEncoder(
        _held(held, "embeddings.words"),
        _row_scale(held, "embeddings.words"),
        _floats(held, "embeddings.positions"),
        _floats(held, "embeddings.norm.gamma"),
        _floats(held, "embeddings.norm.beta"),
        [_layer(held, index, layers) for index in range(layers)],
        int(free["num_heads"]),
        float(free["epsilon"]),
        **more,
    )


def _row_scale(held: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """(rows,) scales of a table, (rows, 1) in the graph."""
    scale = _floats(held, f"{name}_scale")
    if scale.ndim != 2 or scale.shape[1] != 1:
        raise ValueError(f"{name}_scale has shape {scale.shape}")
    return scale.reshape(-1)


def _check_pair_numbers(held: dict[str, npt.NDArray[Any]]) -> None:
    """The core has the numbers of the hash in its code."""
    expected = {**_PAIR_NUMBERS, "pairs.count": [len(_held(held, _PAIRS))]}
    for name, value in expected.items():
        if _held(held, name).tolist() != value:
            raise ValueError(f"the constant {name!r} is {_held(held, name).tolist()}, not {value}")


def _layer(held: dict[str, npt.NDArray[Any]], index: int, layers: int) -> dict[str, Any]:
    """The arrays of one layer under the names that the core uses."""
    name = f"layer{index}"
    arrays: dict[str, Any] = {}
    for short, full in (
        ("query", f"{name}.attention.query"),
        ("key", f"{name}.attention.key"),
        ("value", f"{name}.attention.value"),
        ("attention_out", f"{name}.attention_out"),
        ("intermediate", f"{name}.intermediate"),
        ("output", f"{name}.output"),
    ):
        arrays[f"{short}.weight"] = _held(held, f"{full}.weight")
        arrays[f"{short}.scale"] = _floats(held, f"{full}.weight_scale")
        arrays[f"{short}.bias"] = _floats(held, f"{full}.bias")
    for short, full in (
        ("attention_norm", f"{name}.attention_norm"),
        ("output_norm", _layer_output(index, layers)),
    ):
        arrays[f"{short}.gamma"] = _floats(held, f"{full}.gamma")
        arrays[f"{short}.beta"] = _floats(held, f"{full}.beta")
    return arrays


def _held(held: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    if name not in held:
        raise ValueError(f"there is no tensor {name!r}")
    return held[name]


def _floats(held: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """An aligned copy: in the file floats begin at any byte."""
    return _held(held, name).copy()


def _check_nodes(graph: Graph, layers: int, pairs: bool) -> dict[str, float]:
    """Compare the nodes with those of an INT8 BERT of so many layers; the values of `_FREE`."""
    expected = _expected(layers, pairs)
    if not layers or len(graph.nodes) != len(expected):
        raise ValueError(f"has {len(graph.nodes)} nodes, not those of an INT8 BERT encoder")
    free: dict[str, float] = {}
    for node, signature in zip(graph.nodes, expected, strict=True):
        found = (node.op, node.domain, node.inputs, node.outputs)
        if found != signature:
            raise ValueError(f"has the node {_show(found)}, where {_show(signature)} is expected")
        _check_attributes(node, free)
    return free


def _check_attributes(node: Node, free: dict[str, float]) -> None:
    rest = dict(node.attributes)
    name = _FREE.get(node.op)
    if name is not None:
        value = rest.pop(name, None)
        if not isinstance(value, (int, float)) or free.setdefault(name, value) != value:
            raise ValueError(f"{node.op} has no {name}, or layers differ in it")
    if rest != _ATTRIBUTES.get(node.op, {}):
        raise ValueError(f"{node.op} has attributes that are not supported: {rest}")


def _show(signature: _Signature) -> str:
    op, _, inputs, outputs = signature
    return f"{op}({', '.join(inputs)}) -> {', '.join(outputs)}"


def _layer_output(index: int, layers: int) -> str:
    return OUTPUT if index == layers - 1 else f"layer{index}.hidden"


def _expected(layers: int, pairs: bool) -> list[_Signature]:
    """What raxe_fast.training.encoder_graph_common writes for a BERT in INT8."""
    nodes: list[_Signature] = []

    def node(op: str, inputs: Sequence[str], output: str, domain: str = "") -> str:
        nodes.append((op, domain, tuple(inputs), (output,)))
        return output

    def project(name: str, source: str) -> str:
        inputs = [source, f"{name}.weight", f"{name}.weight_scale", "", f"{name}.bias"]
        return node("DynamicQuantizeMatMul", inputs, name, _CONTRIB)

    def norm(terms: Sequence[str], name: str) -> str:
        summed = node("Sum", terms, f"{name}.sum")
        return node("LayerNormalization", [summed, f"{name}.gamma", f"{name}.beta"], name)

    def look_up(name: str, index: str, prefix: str, output: str) -> str:
        rows = node("Gather", [name, index], f"{prefix}rows")
        factors = node("Gather", [f"{name}_scale", index], f"{prefix}factors")
        return node("Mul", [node("Cast", [rows], f"{prefix}wide"), factors], output)

    terms = [look_up("embeddings.words", INPUT, "embeddings.", "embeddings.word")]
    length = node("Shape", [INPUT], "sequence_length")
    limits = ["embeddings.positions", "zero", length, "zero"]
    terms.append(node("Slice", limits, "embeddings.position"))
    if pairs:
        before = node("Pad", [INPUT, "pairs.shift"], "pairs.before")
        left = node("Mul", [before, "pairs.first"], "pairs.left")
        right = node("Mul", [INPUT, "pairs.second"], "pairs.right")
        hashed = node(
            "Mod", [node("Add", [left, right], "pairs.sum"), "pairs.modulus"], "pairs.hash"
        )
        row = node("Mod", [hashed, "pairs.count"], "pairs.row")
        terms.append(look_up(_PAIRS, row, "pairs.", "embeddings.pair"))
    hidden = norm(terms, "embeddings.norm")
    for index in range(layers):
        name = f"layer{index}"
        parts = [project(f"{name}.attention.{p}", hidden) for p in ("query", "key", "value")]
        mixed = node("MultiHeadAttention", parts, f"{name}.attention", _CONTRIB)
        attended = norm([project(f"{name}.attention_out", mixed), hidden], f"{name}.attention_norm")
        active = node("Gelu", [project(f"{name}.intermediate", attended)], f"{name}.gelu", _CONTRIB)
        hidden = norm([project(f"{name}.output", active), attended], _layer_output(index, layers))
    return nodes
