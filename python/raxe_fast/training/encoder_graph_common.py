"""What the BERT and MPNet graphs share: node building, matmuls by precision, transformer layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from raxe_fast.training.encoder_source import EncoderSource
from raxe_fast.training.pairs import FIRST, MODULUS, SECOND
from raxe_fast.training.quantize import LIMITS, quantize_columns, quantize_rows

CONTRIB = "com.microsoft"
OPSET = 17
IR_VERSION = 8
INPUT = "input_ids"
OUTPUT = "token_embeddings"
PRECISIONS = ("fp32", "fp16", "int8")

Tensor = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """Number formats of a graph. Raises ValueError for a precision or bit width there is not."""

    precision: str = "int8"
    weight_bits: int = 7

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, not {self.precision!r}")
        if self.weight_bits not in LIMITS:
            raise ValueError(
                f"weight_bits must be one of {sorted(LIMITS)}, not {self.weight_bits!r}"
            )


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One transformer layer; matrices are (inputs, outputs), i.e. already transposed."""

    query: Tensor
    key: Tensor
    value: Tensor
    query_bias: Tensor
    key_bias: Tensor
    value_bias: Tensor
    attention_out: Tensor
    attention_out_bias: Tensor
    attention_gamma: Tensor
    attention_beta: Tensor
    intermediate: Tensor
    intermediate_bias: Tensor
    output: Tensor
    output_bias: Tensor
    output_gamma: Tensor
    output_beta: Tensor


def read_layer(
    source: EncoderSource, index: int, projections: Sequence[str], attention_norm: str
) -> LayerWeights:
    """Layer ``index`` of a checkpoint. ``projections`` names query, key, value and output, and
    ``attention_norm`` the first norm, below the layer's attention. Raises ModelFormatError for
    missing tensors and shapes that do not fit."""
    layer = f"encoder.layer.{index}"
    hidden = source.hidden
    query_name, key_name, value_name, out_name = (f"{layer}.attention.{p}" for p in projections)
    query, query_bias = source.linear(query_name, hidden)
    width = query.shape[1]
    if width % source.heads:
        raise source.weight_error(
            f"{query_name!r} has {width} outputs, num_attention_heads is {source.heads}"
        )
    key, key_bias = source.linear(key_name, hidden, width)
    value, value_bias = source.linear(value_name, hidden, width)
    attention_out, attention_out_bias = source.linear(out_name, width, hidden)
    intermediate, intermediate_bias = source.linear(f"{layer}.intermediate.dense", hidden)
    output, output_bias = source.linear(f"{layer}.output.dense", intermediate.shape[1], hidden)
    return LayerWeights(
        query=query,
        key=key,
        value=value,
        query_bias=query_bias,
        key_bias=key_bias,
        value_bias=value_bias,
        attention_out=attention_out,
        attention_out_bias=attention_out_bias,
        attention_gamma=source.tensor(f"{layer}.attention.{attention_norm}.weight"),
        attention_beta=source.tensor(f"{layer}.attention.{attention_norm}.bias"),
        intermediate=intermediate,
        intermediate_bias=intermediate_bias,
        output=output,
        output_bias=output_bias,
        output_gamma=source.tensor(f"{layer}.output.LayerNorm.weight"),
        output_beta=source.tensor(f"{layer}.output.LayerNorm.bias"),
    )


@dataclass(slots=True)
class GraphBuilder:
    """Collects nodes and initialisers; names are given by the caller, so bytes are repeatable."""

    options: GraphOptions
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: Tensor) -> str:
        data = np.ascontiguousarray(array)
        self.initializers.append(numpy_helper.from_array(data, name))
        return name

    def node(
        self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> str:
        name = f"{outputs[0]}:{op}"
        self.nodes.append(
            helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes)
        )
        return outputs[0]

    def weight(self, name: str, array: Tensor) -> str:
        """A float matrix; fp16 stores half precision and widens it once, when a session loads."""
        if self.options.precision != "fp16":
            return self.constant(name, array.astype(np.float32))
        half = self.constant(f"{name}.half", array.astype(np.float16))
        return self.node("Cast", [half], [name], to=TensorProto.FLOAT)

    def project(self, name: str, source: str, weight: Tensor, bias: Tensor) -> list[str]:
        """``source @ weight + bias`` as terms still to be added: one for INT8, whose operator
        adds the bias itself, else the product and the bias."""
        if self.options.precision != "int8":
            return [self.matmul(name, source, weight), self.constant(f"{name}.bias", bias)]
        integers, scales = quantize_columns(weight, self.options.weight_bits)
        inputs = [
            source,
            self.constant(f"{name}.weight", integers),
            self.constant(f"{name}.weight_scale", scales),
            "",  # symmetric: no zero point
            self.constant(f"{name}.bias", bias),
        ]
        return [self.node("DynamicQuantizeMatMul", inputs, [name], CONTRIB)]

    def matmul(self, name: str, source: str, weight: Tensor) -> str:
        """``source @ weight`` in float32."""
        return self.node("MatMul", [source, self.weight(f"{name}.weight", weight)], [name])

    def add_and_norm(
        self, terms: list[str], gamma: Tensor, beta: Tensor, epsilon: float, name: str
    ) -> str:
        """LayerNormalization of the sum of ``terms``.

        Not the contrib SkipLayerNormalization: on ONNX Runtime 1.32 it took 100 us for 64
        tokens of 384 where this pair takes 17. The operator is Sum and not Add because ONNX
        Runtime fuses Add + LayerNormalization back into the slow one where it knows the shapes.
        """
        summed = self.node("Sum", terms, [f"{name}.sum"])
        scale = self.constant(f"{name}.gamma", gamma)
        shift = self.constant(f"{name}.beta", beta)
        return self.node(
            "LayerNormalization", [summed, scale, shift], [name], axis=-1, epsilon=epsilon
        )


def look_up(graph: GraphBuilder, table: Tensor, name: str, index: str, prefix: str) -> str:
    """Rows of a table, (batch, sequence, hidden) float32, by the tensor ``index``; ``name`` is the
    table's, ``prefix`` begins the names of what is between.

    Rows are gathered before they are widened, so the big table stays INT8 or fp16 in memory.
    """
    output = f"embeddings.{name.removeprefix('embeddings.').removesuffix('s')}"
    if graph.options.precision == "int8":
        integers, scales = quantize_rows(table)
        held = graph.constant(name, integers)
        scale = graph.constant(f"{name}_scale", scales)
        rows = graph.node("Gather", [held, index], [f"{prefix}rows"])
        factors = graph.node("Gather", [scale, index], [f"{prefix}factors"])
        wide = graph.node("Cast", [rows], [f"{prefix}wide"], to=TensorProto.FLOAT)
        return graph.node("Mul", [wide, factors], [output])
    if graph.options.precision == "fp16":
        held = graph.constant(name, table.astype(np.float16))
        rows = graph.node("Gather", [held, index], [f"{prefix}rows"])
        return graph.node("Cast", [rows], [output], to=TensorProto.FLOAT)
    return graph.node("Gather", [graph.constant(name, table), index], [output])


def pair_index(graph: GraphBuilder, rows: int) -> str:
    """(batch, sequence) rows of the pairs of INPUT's tokens, see pairs.py."""
    # A negative pad crops: the tokens move one to the right, with 0 before the first.
    shift = graph.constant("pairs.shift", np.array([0, 1, 0, -1], np.int64))
    before = graph.node("Pad", [INPUT, shift], ["pairs.before"])
    numbers = {"first": FIRST, "second": SECOND, "modulus": MODULUS, "count": rows}
    first, second, modulus, count = (
        graph.constant(f"pairs.{name}", np.array([value], np.int64))
        for name, value in numbers.items()
    )
    left = graph.node("Mul", [before, first], ["pairs.left"])
    right = graph.node("Mul", [INPUT, second], ["pairs.right"])
    mixed = graph.node("Add", [left, right], ["pairs.sum"])
    hashed = graph.node("Mod", [mixed, modulus], ["pairs.hash"])
    return graph.node("Mod", [hashed, count], ["pairs.row"])


def embed(
    graph: GraphBuilder,
    words: Tensor,
    positions: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    pairs: Tensor | None = None,
) -> str:
    """Sum of word and position rows, and those of pairs where there are any, normalised.
    ``positions`` (max_positions, H) starts at the first token and already contains everything that
    does not depend on the word."""
    terms = [look_up(graph, words, "embeddings.words", INPUT, "embeddings.")]
    table = graph.constant("embeddings.positions", positions)
    length = graph.node("Shape", [INPUT], ["sequence_length"], start=1, end=2)
    zero = graph.constant("zero", np.zeros(1, np.int64))
    # Past the table Slice gives fewer rows than tokens and Sum refuses the shapes: a text that is
    # too long is an error and never wraps around.
    terms.append(graph.node("Slice", [table, zero, length, zero], ["embeddings.position"]))
    if pairs is not None:
        index = pair_index(graph, len(pairs))
        terms.append(look_up(graph, pairs, "embeddings.pairs", index, "pairs."))
    return graph.add_and_norm(terms, gamma, beta, epsilon, "embeddings.norm")


def transformer_layer(
    graph: GraphBuilder,
    index: int,
    source: str,
    weights: LayerWeights,
    heads: int,
    epsilon: float,
    output: str,
    attention_bias: str = "",
) -> str:
    """One post-norm transformer layer; returns ``output``.

    DynamicQuantizeMatMul adds its bias for free. A float MatMul has none, so there the bias rides
    on the operator that follows.
    """
    name = f"layer{index}"
    mixed = attention(graph, f"{name}.attention", source, weights, heads, attention_bias)
    projected = graph.project(
        f"{name}.attention_out", mixed, weights.attention_out, weights.attention_out_bias
    )
    attended = graph.add_and_norm(
        [*projected, source],
        weights.attention_gamma,
        weights.attention_beta,
        epsilon,
        f"{name}.attention_norm",
    )
    expanded = graph.project(
        f"{name}.intermediate", attended, weights.intermediate, weights.intermediate_bias
    )
    activation = "Gelu" if len(expanded) == 1 else "BiasGelu"
    active = graph.node(activation, expanded, [f"{name}.gelu"], CONTRIB)
    contracted = graph.project(f"{name}.output", active, weights.output, weights.output_bias)
    return graph.add_and_norm(
        [*contracted, attended],
        weights.output_gamma,
        weights.output_beta,
        epsilon,
        output,
    )


def attention(
    graph: GraphBuilder,
    name: str,
    source: str,
    weights: LayerWeights,
    heads: int,
    attention_bias: str,
) -> str:
    """Multi-head self-attention without its output projection."""
    parts = [
        ("query", weights.query, weights.query_bias),
        ("key", weights.key, weights.key_bias),
        ("value", weights.value, weights.value_bias),
    ]
    if graph.options.precision == "int8":
        inputs = [graph.project(f"{name}.{part}", source, w, b)[0] for part, w, b in parts]
        bias = ""
    else:
        inputs = [graph.matmul(f"{name}.{part}", source, weight) for part, weight, _ in parts]
        bias = graph.constant(f"{name}.bias", np.concatenate([b for _, _, b in parts]))
    inputs += [bias, "", attention_bias]
    while not inputs[-1]:
        inputs.pop()
    return graph.node("MultiHeadAttention", inputs, [name], CONTRIB, num_heads=heads)


def build_model(graph: GraphBuilder, hidden: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Wrap the nodes into a checked model with INPUT int64 (batch, sequence) and OUTPUT float32
    (batch, sequence, hidden)."""
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.INT64, ["batch", "sequence"])]
    outputs = [
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "sequence", hidden])
    ]
    body = helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.initializers)
    model = helper.make_model(
        body,
        producer_name="raxe-fast",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
    )
    helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model)
    return model
