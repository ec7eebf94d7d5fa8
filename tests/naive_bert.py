"""A BERT in float64 NumPy from the tensors of an INT8 graph: the slow twin of the kernels."""

from __future__ import annotations

import math

import numpy as np

from raxe_fast.onnx_reader import Graph


class NaiveBert:
    """All hidden states of a text; weights are the graph's integers times their scales."""

    def __init__(self, graph: Graph, layers: int, heads: int, epsilon: float = 1e-12) -> None:
        self.graph, self.layers, self.heads, self.epsilon = graph, layers, heads, epsilon
        self.matrices: dict[str, np.ndarray] = {}

    def tensor(self, name: str) -> np.ndarray:
        return self.graph.tensors[name].astype(np.float64)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in self.matrices:
            scale = self.tensor(f"{name}.weight_scale")
            self.matrices[name] = self.tensor(f"{name}.weight") * scale
        return x @ self.matrices[name] + self.tensor(f"{name}.bias")

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return centred / spread * self.tensor(f"{name}.gamma") + self.tensor(f"{name}.beta")

    def states(self, ids: np.ndarray) -> list[np.ndarray]:
        """Of one text: after the embeddings and after each layer."""
        words = self.graph.tensors["embeddings.words"][ids].astype(np.float64)
        x = words * self.tensor("embeddings.words_scale")[ids]
        if "embeddings.pairs" in self.graph.tensors:
            table = self.tensor("embeddings.pairs") * self.tensor("embeddings.pairs_scale")
            for i, token in enumerate(ids.tolist()):
                before = ids.tolist()[i - 1] if i else 0
                x[i] += table[(1000003 * before + 7919 * token) % (2**31 - 1) % len(table)]
        x = self.norm("embeddings.norm", x + self.tensor("embeddings.positions")[: len(ids)])
        states = [x]
        for index in range(self.layers):
            name = f"layer{index}"
            x = self.norm(f"{name}.attention_norm", self.attention(name, x) + x)
            wide = self.linear(f"{name}.intermediate", x)
            active = 0.5 * wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
            last = index == self.layers - 1
            x = self.norm(
                "token_embeddings" if last else f"{name}.hidden",
                self.linear(f"{name}.output", active) + x,
            )
            states.append(x)
        return states

    def attention(self, name: str, x: np.ndarray) -> np.ndarray:
        q, k, v = (self.linear(f"{name}.attention.{p}", x) for p in ("query", "key", "value"))
        size = q.shape[1] // self.heads
        mixed = []
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
        return self.linear(f"{name}.attention_out", np.concatenate(mixed, axis=1))
