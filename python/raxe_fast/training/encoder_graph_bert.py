"""BERT (MiniLM-L6, MiniLM-L12, any width and depth) as an ONNX graph."""

from __future__ import annotations

import numpy as np

from raxe_fast.training.encoder_graph_common import (
    OUTPUT,
    GraphBuilder,
    embed,
    read_layer,
    transformer_layer,
)
from raxe_fast.training.encoder_source import PAIRS, EncoderSource

PROJECTIONS = ("self.query", "self.key", "self.value", "output.dense")


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
        tensor(PAIRS) if source.pair_rows else None,
    )
    for index in range(source.layers):
        last = index == source.layers - 1
        hidden = transformer_layer(
            graph,
            index,
            hidden,
            read_layer(source, index, PROJECTIONS, "output.LayerNorm"),
            source.heads,
            epsilon,
            OUTPUT if last else f"layer{index}.hidden",
        )
