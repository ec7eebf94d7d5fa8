"""The native INT8 encoder against ONNX Runtime on the same encoder.onnx, one thread, interleaved.

    python bench/native_encoder.py --output native.json

Token ids in, token embeddings out, one text per call; nothing else is timed. See bench/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from hardware import hardware, load_average
from model_files import locate_model
from raxe_fast import _core
from raxe_fast.encoder import Encoder, TokenEncoder
from raxe_fast.native import NativeEncoder
from stats import Samples, Summary, ratio, turns
from texts import bucket_texts

BUCKETS = (16, 32, 64, 128, 256, 512)
VARIANTS = 20  # different texts per bucket
RIVAL = "onnxruntime"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the JSON report")
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument("--buckets", type=int, nargs="*", default=list(BUCKETS))
    parser.add_argument("--iterations", type=int, default=300, help="per bucket and encoder")
    parser.add_argument(
        "--block",
        type=int,
        default=5,
        help="calls in a row of one encoder before the next takes over; 1: strictly A B A B",
    )
    parser.add_argument("--note", default="", help="goes into the record, for what is unusual")
    options = parser.parse_args(arguments)
    if min(options.iterations, options.block) < 1 or min(options.buckets, default=8) < 8:
        parser.error("--iterations and --block must be at least 1, --buckets at least 8")
    return options


def make_encoders(content: bytes) -> dict[str, TokenEncoder]:
    """ONNX Runtime, and the native encoder for every instruction set of vectors here."""
    encoders: dict[str, TokenEncoder] = {RIVAL: Encoder(content)}
    best = _core.detected_isa()
    try:
        for level in ("avx2", "avx512", "amx"):
            try:
                _core.force_isa(level)
            except ValueError:  # this machine lacks it
                continue
            native = NativeEncoder(content)
            encoders[f"native-{native.kernels}"] = native
    finally:
        _core.force_isa(best)
    if len(encoders) == 1:
        native = NativeEncoder(content)
        encoders[f"native-{native.kernels}"] = native
    return encoders


def timed(
    encoders: dict[str, TokenEncoder],
    inputs: Sequence[Any],
    iterations: int,
    block: int,
) -> dict[str, Samples]:
    """Milliseconds per call, (iterations,) for each encoder, all over the same inputs."""
    samples = {name: np.zeros(iterations) for name in encoders}
    for encoder in encoders.values():
        for ids in inputs[:3]:
            encoder.encode(ids)
    for turn in turns(list(encoders), iterations, block):
        encode = encoders[turn.pipeline].encode
        ids = inputs[turn.index % len(inputs)]
        begin = time.perf_counter_ns()
        encode(ids)
        elapsed = time.perf_counter_ns() - begin
        if turn.measured:
            samples[turn.pipeline][turn.index] = elapsed / 1e6
    return samples


def cosines(
    encoders: dict[str, TokenEncoder], inputs: Sequence[Any]
) -> dict[str, dict[str, float]]:
    """Cosine of pooled embeddings to those of ONNX Runtime."""
    expected = [_core.mean_pool_l2(encoders[RIVAL].encode(ids)[0]) for ids in inputs]
    out = {}
    for name, encoder in encoders.items():
        if name == RIVAL:
            continue
        found = [
            float(_core.mean_pool_l2(encoder.encode(ids)[0]) @ other)
            for ids, other in zip(inputs, expected, strict=True)
        ]
        out[name] = {"min": round(min(found), 5), "median": round(float(np.median(found)), 5)}
    return out


def measure_bucket(
    encoders: dict[str, TokenEncoder], inputs: Sequence[Any], options: argparse.Namespace
) -> dict[str, Any]:
    samples = timed(encoders, inputs, options.iterations, options.block)
    return {
        "tokens": int(inputs[0].shape[1]),
        "milliseconds": {name: Summary.of(values).to_dict() for name, values in samples.items()},
        "times_faster": {
            name: ratio(samples[RIVAL], values).to_dict()
            for name, values in samples.items()
            if name != RIVAL
        },
        "cosine_to_onnxruntime": cosines(encoders, inputs),
    }


def print_buckets(buckets: Sequence[dict[str, Any]]) -> None:
    names = list(buckets[0]["milliseconds"])
    table = Table(title="encoder, 1 thread, batch 1: p50 / p95 ms, and times faster by p50")
    table.add_column("tokens", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    for bucket in buckets:
        cells = [str(bucket["tokens"])]
        for name in names:
            summary = bucket["milliseconds"][name]
            cell = f"{summary['p50']:.2f} / {summary['p95']:.2f}"
            if name != RIVAL:
                cell += f"  x{bucket['times_faster'][name]['p50']:.2f}"
            cells.append(cell)
        table.add_row(*cells)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    with locate_model(options.model) as model:
        content = (model.directory / "encoder.onnx").read_bytes()
        tokenizer = Tokenizer.from_file(str(model.directory / "tokenizer.json"))
        model_id = model.model_id
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoders = make_encoders(content)
    report: dict[str, Any] = {
        "schema": 1,
        "benchmark": "native_encoder",
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "note": options.note,
        "model": model_id,
        "threads": 1,
        "batch": 1,
        "iterations": options.iterations,
        "block": options.block,
        "variants": VARIANTS,
        "encoders": list(encoders),
        "hardware": hardware(),
        "build": _core.build_info(),
        "load_average_start": load_average(),
    }
    buckets = []
    for tokens in options.buckets:
        texts = bucket_texts(tokenizer, tokens, VARIANTS)
        inputs = [np.array([tokenizer.encode(text).ids], dtype=np.int64) for text in texts]
        buckets.append(measure_bucket(encoders, inputs, options))
    report["buckets"] = buckets
    report["load_average_end"] = load_average()
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if buckets:
        print_buckets(buckets)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
