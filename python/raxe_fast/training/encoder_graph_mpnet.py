"""MPNet (all-mpnet-base-v2, any width and depth) as an ONNX graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raxe_fast.errors import ModelFormatError
from raxe_fast.training.encoder_graph_common import (
    OUTPUT,
    GraphBuilder,
    embed,
    read_layer,
    transformer_layer,
)
from raxe_fast.training.encoder_source import EncoderSource

# MPNetEncoder never passes another value, whatever config.json says.
MAX_DISTANCE = 128
# Tokens are numbered from padding_idx + 1, and MPNet fixes its padding_idx at 1.
FIRST_POSITION = 2

PROJECTIONS = ("attn.q", "attn.k", "attn.v", "attn.o")


def max_positions(source: EncoderSource) -> int:
    """Tokens the position table can number, <s> and </s> included."""
    rows = int(source.tensor("embeddings.position_embeddings.weight").shape[0])
    return rows - FIRST_POSITION


def build(source: EncoderSource, graph: GraphBuilder) -> None:
    """Append the whole encoder to ``graph``. Raises ModelFormatError for missing tensors."""
    tensor = source.tensor
    epsilon = source.number("layer_norm_eps", 1e-12)
    positions = tensor("embeddings.position_embeddings.weight")[FIRST_POSITION:]
    hidden = embed(
        graph,
        tensor("embeddings.word_embeddings.weight"),
        positions,
        tensor("embeddings.LayerNorm.weight"),
        tensor("embeddings.LayerNorm.bias"),
        epsilon,
    )
    bias = position_bias(source, graph)
    for index in range(source.layers):
        last = index == source.layers - 1
        hidden = transformer_layer(
            graph,
            index,
            hidden,
            read_layer(source, index, PROJECTIONS, "LayerNorm"),
            source.heads,
            epsilon,
            OUTPUT if last else f"layer{index}.hidden",
            attention_bias=bias,
        )


def position_bias(source: EncoderSource, graph: GraphBuilder) -> str:
    """Relative position bias (1, heads, S, S), computed once and shared by all layers.

    The bucket of every distance is worked out here; the graph only looks up
    ``row[key - query + limit - 1]``.
    """
    limit = max_positions(source)
    table = source.tensor("encoder.relative_attention_bias.weight")
    if table.shape[1] != source.heads:
        raise ModelFormatError(
            f"relative_attention_bias has {table.shape[1]} columns for {source.heads} heads",
            path=source.path,
            member="model.safetensors",
        )
    distance = np.arange(-(limit - 1), limit)
    rows = table[relative_buckets(distance, table.shape[0])]
    lookup = graph.constant("position_bias.rows", rows.astype(np.float32))
    zero = graph.constant("position_bias.zero", np.array(0, np.int64))
    one = graph.constant("position_bias.one", np.array(1, np.int64))
    scalar = graph.node("Squeeze", ["sequence_length", "zero"], ["position_bias.length"])
    steps = graph.node("Range", [zero, scalar, one], ["position_bias.keys"])
    axis = graph.constant("position_bias.axis", np.ones(1, np.int64))
    column = graph.node("Unsqueeze", [steps, axis], ["position_bias.queries"])
    gap = graph.node("Sub", [steps, column], ["position_bias.gap"])
    offset = graph.constant("position_bias.offset", np.array(limit - 1, np.int64))
    index = graph.node("Add", [gap, offset], ["position_bias.index"])
    gathered = graph.node("Gather", [lookup, index], ["position_bias.gathered"])
    heads_first = graph.node("Transpose", [gathered], ["position_bias.heads"], perm=[2, 0, 1])
    return graph.node("Unsqueeze", [heads_first, "zero"], ["position_bias"])


def relative_buckets(distance: npt.NDArray[np.int64], buckets: int) -> npt.NDArray[np.int64]:
    """Bucket of each key-minus-query distance: half the buckets by sign, of those half exact and
    the rest logarithmic up to MAX_DISTANCE. float32 as in the reference, whose rounding decides
    the bucket at the borders."""
    half = buckets // 2
    exact = half // 2
    size = np.abs(distance)
    logs = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
    scaled = logs / np.float32(np.log(MAX_DISTANCE / exact)) * np.float32(half - exact)
    large = np.minimum(exact + scaled.astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(size < exact, size, large)
