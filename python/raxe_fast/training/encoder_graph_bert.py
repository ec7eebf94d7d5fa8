"""BERT (MiniLM-L6, MiniLM-L12, any width and depth) as an ONNX graph."""

from __future__ import annotations

import numpy as np

from raxe_fast.training.encoder_graph_common import (
    OUTPUT,
    GraphBuilder,
    LayerWeights,
    embed,
    transformer_layer,
)
from raxe_fast.training.encoder_source import EncoderSource


def max_positions(source: EncoderSource) -> int:
    """Tokens the position table can number, [CLS] and [SEP] included."""
    return int(source.tensor("embeddings.position_embeddings.weight").shape[0])


def build(source: EncoderSource, graph: GraphBuilder) -> None:
    """Append the whole encoder to ``graph``. Raises ModelFormatError for missing tensors."""
    tensor = source.tensor
    epsilon = source.number("layer_norm_eps", 1e-12)
    # Without token_type_ids every token is of type 0: that row belongs to every position.
    positions = (
        tensor("embeddings.position_embeddings.weight")
        + tensor("embeddings.token_type_embeddings.weight")[:1]
    )
    hidden = embed(
        graph,
        tensor("embeddings.word_embeddings.weight"),
        positions.astype(np.float32),
        tensor("embeddings.LayerNorm.weight"),
        tensor("embeddings.LayerNorm.bias"),
        epsilon,
    )
    for index in range(source.layers):
        last = index == source.layers - 1
        hidden = transformer_layer(
            graph,
            index,
            hidden,
            layer_weights(source, index),
            source.heads,
            epsilon,
            OUTPUT if last else f"layer{index}.hidden",
        )


def layer_weights(source: EncoderSource, index: int) -> LayerWeights:
    """Layer ``index`` of the checkpoint, matrices transposed to (inputs, outputs)."""
    tensor = source.tensor
    layer = f"encoder.layer.{index}"

    def matrix(name: str) -> tuple[np.ndarray, np.ndarray]:
        return tensor(f"{layer}.{name}.weight").T, tensor(f"{layer}.{name}.bias")

    query, query_bias = matrix("attention.self.query")
    key, key_bias = matrix("attention.self.key")
    value, value_bias = matrix("attention.self.value")
    attention_out, attention_out_bias = matrix("attention.output.dense")
    intermediate, intermediate_bias = matrix("intermediate.dense")
    output, output_bias = matrix("output.dense")
    return LayerWeights(
        query=query,
        key=key,
        value=value,
        query_bias=query_bias,
        key_bias=key_bias,
        value_bias=value_bias,
        attention_out=attention_out,
        attention_out_bias=attention_out_bias,
        attention_gamma=tensor(f"{layer}.attention.output.LayerNorm.weight"),
        attention_beta=tensor(f"{layer}.attention.output.LayerNorm.bias"),
        intermediate=intermediate,
        intermediate_bias=intermediate_bias,
        output=output,
        output_bias=output_bias,
        output_gamma=tensor(f"{layer}.output.LayerNorm.weight"),
        output_beta=tensor(f"{layer}.output.LayerNorm.bias"),
    )
