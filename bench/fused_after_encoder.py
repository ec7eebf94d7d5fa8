"""The fused call `_core.Scorer.score` right after a real encoder call, against Python.

    python bench/fused_after_encoder.py --output fused.json

One text of 64 tokens, harmless and attack. Every sample follows an encoder call of its own, which
leaves the caches as in production (encoder, call, encoder, call, ..). The call gets the window's
span, as from the scanner. The same work in NumPy pooling, scikit-learn `predict_proba` (three
heads, always), Python substring triggers and, where the model has features.npz, its features in
NumPy and Python is interleaved in the same run. Stage `forests` holds the features, too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from equal_work import check_equal_work
from hardware import hardware, load_average
from model_files import ModelLocation, features_of, locate_model
from raxe_fast import _core
from raxe_fast.errors import ModelError
from raxe_fast.model import load_model
from reference import ReferenceScorer, covered
from stats import Samples, Summary, ratio, turns
from texts import compose

TOKENS = 64
STAGES = ("pooling", "forests", "clusters", "triggers")  # order of TextScore.times
# One text: what the encoder reads, the characters that its tokens cover.
Text = tuple[str, Any, tuple[int, int]]
P95_LIMIT_US = 60.0
RATIO_LIMIT = 100.0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the JSON report")
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each text")
    parser.add_argument("--variants", type=int, default=16, help="different texts of each kind")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument(
        "--block",
        type=int,
        default=10,
        help="encoder + call in a row before the next kind of call takes over; 1: strictly A B A B",
    )
    options = parser.parse_args(arguments)
    if min(options.iterations, options.variants, options.block) < 1:
        parser.error("--iterations, --variants and --block must be at least 1")
    return options


def scorers(model: ModelLocation) -> dict[str, _core.Scorer]:
    """The fused call with compiled heads (where this build holds them) and with packed ones."""
    out = {"packed": load_model(model.given, forest="packed").scorer}
    try:
        out["compiled"] = load_model(model.given, forest="compiled").scorer
    except ModelError as error:
        print(f"compiled, left out: {error}", file=sys.stderr)
    return out


def timed(
    encode: Callable[[Any], Any],
    calls: dict[str, Callable[[int, Any], Any]],
    inputs: Sequence[Text],
    iterations: int,
    block: int,
) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Samples (iterations,) in microseconds, each after an encoder call on the same text, and the
    (iterations, stages) times that the fused calls took of themselves. A call gets the number of
    the input and its token embeddings."""
    samples = {name: np.zeros(iterations) for name in calls}
    stages = {name: np.zeros((iterations, len(STAGES))) for name in calls if name != "python"}
    for call in calls.values():
        for number, (_, ids, _) in enumerate(inputs[:3]):
            call(number, encode(ids))
    for turn in turns(list(calls), iterations, block):
        number = turn.index % len(inputs)
        call = calls[turn.pipeline]
        tokens = encode(inputs[number][1])
        begin = time.perf_counter_ns()
        result = call(number, tokens)
        elapsed = time.perf_counter_ns() - begin
        if turn.measured:
            samples[turn.pipeline][turn.index] = elapsed / 1e3
            if turn.pipeline in stages:
                stages[turn.pipeline][turn.index] = np.divide(result[0].times, 1e3)
    return samples, stages


def stage_split(wall: Samples, stages: Any) -> dict[str, Any]:
    """p50 and p95 of each stage; `call` is what no stage covers: the binding and its objects."""
    columns = dict(zip(STAGES, stages.T, strict=True)) | {"call": wall - stages.sum(axis=1)}
    return {
        name: {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95)}
        for name, values in columns.items()
    }


def make_inputs(tokenizer: Tokenizer, length: int, variants: int, *, attack: bool) -> list[Text]:
    """Composed texts of `length` tokens."""
    inputs = []
    for seed in range(variants):
        text = compose(tokenizer, length, attack=attack, seed=seed)
        encoding = tokenizer.encode(text)
        inputs.append((text, np.array([encoding.ids], dtype=np.int64), covered(encoding)))
    return inputs


def make_calls(
    fused: dict[str, _core.Scorer], python: ReferenceScorer, inputs: Sequence[Text]
) -> dict[str, Callable[[int, Any], Any]]:
    """The calls to be timed, with their arguments as the scanner has them at hand."""
    owner = np.zeros(1, dtype=np.uint32)
    texts = [[text] for text, _, _ in inputs]
    spans = [np.array([span], dtype=np.uint32) for _, _, span in inputs]
    mask = np.ones((1, inputs[0][1].shape[1]), dtype=np.int64)

    def of(scorer: _core.Scorer) -> Callable[[int, Any], Any]:
        return lambda number, tokens: scorer.score(
            [tokens], owner, texts[number], False, None, spans[number]
        )

    calls = {name: of(scorer) for name, scorer in fused.items()}
    calls["python"] = lambda number, tokens: python.score(
        inputs[number][0], tokens, mask, inputs[number][2]
    )
    return calls


def run(options: argparse.Namespace, model: ModelLocation) -> dict[str, Any]:
    """The report."""
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    python = ReferenceScorer(model.directory)
    encoder = python.manifest["encoder"]
    session = onnxruntime.InferenceSession(
        str(model.directory / encoder["file"]), session_options, ["CPUExecutionProvider"]
    )
    tokenizer = Tokenizer.from_file(str(model.directory / "tokenizer.json"))
    start = load_average()

    def encode(ids: Any) -> Any:
        return session.run([encoder["output"]], {encoder["input"]: ids})[0]

    fused = scorers(model)
    differences = {}
    results: dict[str, Any] = {}
    for attack in (False, True):
        inputs = make_inputs(tokenizer, options.tokens, options.variants, attack=attack)
        calls = make_calls(fused, python, inputs)
        kind = "attack" if attack else "harmless"
        differences[kind] = check_equal_work(
            model, fused["packed"], python, [(text, encode(ids), at) for text, ids, at in inputs]
        )
        print(f"{kind}: {options.iterations} iterations x {len(calls)} calls", file=sys.stderr)
        samples, stages = timed(encode, calls, inputs, options.iterations, options.block)
        results[kind] = {
            "unit": "us",
            "calls": {name: Summary.of(values).to_dict(2) for name, values in samples.items()},
            "stages": {name: stage_split(samples[name], taken) for name, taken in stages.items()},
            "python_over": {
                name: ratio(samples["python"], values).to_dict(1)
                for name, values in samples.items()
                if name != "python"
            },
        }
    return {
        "schema": 1,
        "model_id": model.model_id,
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware(), "load_average": {"start": start, "end": load_average()}},
        "settings": {
            "tokens": options.tokens,
            "iterations": options.iterations,
            "threads": options.threads,
            "block": options.block,
        },
        "features": features_of(python.manifest),
        "python": {**python.about(), "largest_difference": differences},
        "results": results,
        "meets_targets": _meets(results),
    }


def _meets(results: dict[str, Any]) -> dict[str, Any]:
    """p95 and ratio of medians, worst over both texts, by kind of forest."""
    out: dict[str, Any] = {}
    for kind in next(iter(results.values()))["python_over"]:
        p95 = max(part["calls"][kind]["p95"] for part in results.values())
        times = min(part["python_over"][kind]["p50"] for part in results.values())
        out[kind] = {
            "p95_us": {"value": p95, "below": P95_LIMIT_US, "met": p95 < P95_LIMIT_US},
            "python_over": {"value": times, "at_least": RATIO_LIMIT, "met": times >= RATIO_LIMIT},
        }
    return out


def print_results(report: dict[str, Any]) -> None:
    """The table on standard output."""
    table = Table(
        title=f"after the encoder, {report['settings']['tokens']} tokens, us", title_justify="left"
    )
    for name in ("text", "call"):
        table.add_column(name)
    for name in ("mean", "p50", "p95", "p99", "max", "python p50 x", "python p95 x"):
        table.add_column(name, justify="right")
    for kind, part in report["results"].items():
        for name, summary in part["calls"].items():
            over = part["python_over"].get(name)
            table.add_row(
                kind,
                name,
                *(f"{summary[key]:.1f}" for key in ("mean", "p50", "p95", "p99", "max")),
                f"{over['p50']:.0f}" if over else "",
                f"{over['p95']:.0f}" if over else "",
            )
    console = Console() if Console().is_terminal else Console(width=110)
    console.print(table)
    for kind, part in report["results"].items():
        for name, stages in part["stages"].items():
            shown = ", ".join(f"{stage} {v['p50']:.1f}" for stage, v in stages.items())
            console.print(f"{kind}, {name}, p50 by stage: {shown}", highlight=False)
    console.print_json(data=report["meets_targets"])


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    with locate_model(options.model) as model:
        report = run(options, model)
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_results(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
