"""A network in a plain inference engine as a detector: what a team writes that has the model file
and no more. Imported by peer_workers.py in an environment with the engine, NumPy and `tokenizers`.

Text -> `tokenizers`, cut off at the network's longest input -> engine -> one score -> verdict. Of
an encoder, masked mean pooling and a linear head make the score; a classifier has two logits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

__all__ = ["SPEC", "TOKENIZER", "load", "open_engine"]

SPEC, TOKENIZER = "engine.json", "tokenizer.json"
THRESHOLD = 0.5

Judge = Callable[[str], tuple[bool, float]]
Run = Callable[[dict[str, Any]], Any]


def open_engine(engine: str, network: Path, threads: int) -> tuple[Run, list[str]]:
    """A call from inputs by name to the first output, and the names of the inputs.

    Everything but the number of threads stays as the engine ships it; nothing is pinned by us.
    Raises ValueError for an unknown engine, and what the engine raises.
    """
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            str(network), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_inputs()]
        return lambda inputs: session.run(None, inputs)[0], names
    if engine == "openvino":
        import openvino  # type: ignore[import-not-found]

        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(str(network)), "CPU", settings)
        request = compiled.create_infer_request()
        names = [value.get_any_name() for value in compiled.inputs]
        return lambda inputs: request.infer(inputs)[0], names
    raise ValueError(f"unknown engine: {engine!r}")


def load(settings: dict[str, Any]) -> tuple[Judge, dict[str, Any]]:
    """(judge, what goes into the record).

    Settings: threads, and folder, which holds tokenizer.json and engine.json: engine, network (a
    file name), max_tokens, weight and bias of the linear head (null for a classifier), notes.
    """
    folder = Path(settings["folder"])
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec["max_tokens"])
    run, names = open_engine(spec["engine"], folder / spec["network"], settings["threads"])
    weight = None if spec["weight"] is None else np.array(spec["weight"], dtype=np.float32)
    score = _classifier if weight is None else _pooled_head(weight, spec["bias"])

    def judge(text: str) -> tuple[bool, float]:
        found = tokenizer.encode(text)
        inputs = {"input_ids": np.array([found.ids], dtype=np.int64)}
        if "attention_mask" in names:
            inputs["attention_mask"] = np.array([found.attention_mask], dtype=np.int64)
        value = score(run(inputs))
        return value > THRESHOLD, value

    about = {
        "version": version(spec["engine"]),
        "call": f"tokenizers -> {spec['engine']}({spec['network']}) -> score",
        "flagged": f"score > {THRESHOLD}",
        "score": "softmax of two logits" if weight is None else "mean pooling, linear head",
        "max_tokens": spec["max_tokens"],
        "notes": spec["notes"],
    }
    return judge, about


def _pooled_head(weight: Any, bias: float) -> Callable[[Any], float]:
    """(1, S, H) token embeddings -> probability."""

    def score(tokens: Any) -> float:
        pooled = tokens[0].mean(axis=0)
        pooled /= max(float(np.linalg.norm(pooled)), 1e-12)
        return _sigmoid(float(pooled @ weight) + bias)

    return score


def _classifier(logits: Any) -> float:
    """(1, 2) logits -> probability of the second class."""
    row: Sequence[float] = logits[0].tolist()
    return _sigmoid(row[1] - row[0])


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
