"""The core's WordPiece against the `tokenizers` library, text by text, on the model's own file.

    python bench/tokeniser.py --output tokeniser.json

Two pairs, interleaved in one process: `native` and `tokenizers` give the ids of a text, and
`native-windows` and `tokenizers-windows` what the scanner asks for, rows of ids with their spans.
By buckets of composed texts, and by length on a sample of the test corpus, each text once. "After
64 MB" sweeps the caches before every call, as an encoder does; of 64 tokens. Before anything is
timed, ids and spans of all texts are compared; a difference ends the run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from hardware import hardware, load_average
from model_files import ModelLocation, locate_model
from raxe_fast.tokeniser import NativeTokeniser, open_tokeniser
from raxe_fast.windows import Windower
from stats import Samples, Summary, ratio, turns
from texts import bucket_texts, default_mix, sample_corpus

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKETS = (16, 32, 64, 128, 256, 512)
COLD_TOKENS = 64
SWEEP_BYTES = 64 << 20
VARIANTS = 20
PAIRS = {"native": "tokenizers", "native-windows": "tokenizers-windows"}
LIMIT_US_PER_TOKEN = 0.3

Calls = Mapping[str, Callable[[str], Any]]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the JSON record")
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument("--iterations", type=int, default=1000, help="per bucket and call")
    parser.add_argument("--buckets", type=int, nargs="*", default=list(BUCKETS))
    parser.add_argument("--cold-iterations", type=int, default=200)
    parser.add_argument("--mix", type=Path, default=default_mix(REPOSITORY))
    parser.add_argument("--mix-texts", type=int, default=2000)
    parser.add_argument("--block", type=int, default=10, help="calls of one kind in a row")
    options = parser.parse_args(arguments)
    if min(options.iterations, options.cold_iterations, options.mix_texts, options.block) < 1:
        parser.error("--iterations, --cold-iterations, --mix-texts, --block: at least 1")
    return options


def make_calls(model: ModelLocation) -> tuple[Calls, Tokenizer]:
    content = (model.directory / "tokenizer.json").read_bytes()
    engine = open_tokeniser(content)
    if not isinstance(engine, NativeTokeniser):
        raise ValueError("the core does not know this tokenizer: nothing to compare")
    native = engine.encode
    library = Tokenizer.from_str(content.decode())
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    spec = json.loads((model.directory / "manifest.json").read_text(encoding="utf-8"))["encoder"]
    sizes = {"max_tokens": spec["max_tokens"], "overlap": spec["overlap_tokens"]}
    calls: dict[str, Callable[[str], Any]] = {
        "native": lambda text: native(text).ids,
        "tokenizers": lambda text: library.encode(text, add_special_tokens=False).ids,
        "native-windows": Windower(content, **sizes, kind="native").windows,
        "tokenizers-windows": Windower(content, **sizes, kind="tokenizers").windows,
    }
    return calls, library


def check(model: ModelLocation, library: Tokenizer, texts: Sequence[str]) -> int:
    """Number of tokens compared. Raises ValueError where ids or spans differ."""
    engine = NativeTokeniser((model.directory / "tokenizer.json").read_bytes())
    total = 0
    for text in texts:
        ours = engine.encode(text)
        theirs = library.encode(text, add_special_tokens=False)
        if ours.ids.tolist() != theirs.ids or ours.offsets.tolist() != [*map(list, theirs.offsets)]:
            raise ValueError(f"not the same tokens: {text[:200]!a}")
        total += len(ours)
    return total


def timed(
    calls: Calls, texts: Sequence[str], iterations: int, block: int, sweep: Callable[[], Any] | None
) -> dict[str, Samples]:
    """Samples (iterations,) in microseconds by call."""
    samples = {name: np.zeros(iterations) for name in calls}
    for call in calls.values():
        call(texts[0])
    for turn in turns(list(calls), iterations, block):
        text, call = texts[turn.index % len(texts)], calls[turn.pipeline]
        if sweep is not None:
            sweep()
        begin = time.perf_counter_ns()
        call(text)
        elapsed = time.perf_counter_ns() - begin
        if turn.measured:
            samples[turn.pipeline][turn.index] = elapsed / 1e3
    return samples


def part(samples: dict[str, Samples], tokens: Samples) -> dict[str, Any]:
    """A row of the record; `tokens` is the number of tokens of each sample's text."""
    return {
        "unit": "us",
        "tokens": {"mean": round(float(tokens.mean()), 2), "texts": len(tokens)},
        "calls": {name: Summary.of(values).to_dict() for name, values in samples.items()},
        "us_per_token": {
            name: round(float(values.sum() / tokens.sum()), 4) for name, values in samples.items()
        },
        "tokenizers_over": {
            name: ratio(samples[slower], samples[name]).to_dict() for name, slower in PAIRS.items()
        },
    }


def measure_mix(
    calls: Calls, library: Tokenizer, texts: Sequence[str], block: int
) -> dict[str, Any]:
    """Each text once per call, and the same samples by length of the text."""
    sizes = np.array([len(library.encode(t, add_special_tokens=False).ids) for t in texts], float)
    samples = timed(calls, texts, len(texts), block, None)
    out: dict[str, Any] = {"all": part(samples, sizes)}
    lower = 0
    for upper in (16, 32, 64, 128, 256, 512, None):
        rows = (sizes > lower) & (sizes <= (np.inf if upper is None else upper))
        if rows.any():
            name = f"over {lower}" if upper is None else f"{lower + 1} to {upper}"
            out[name] = part({key: values[rows] for key, values in samples.items()}, sizes[rows])
        lower = upper or 0
    return out


def run(options: argparse.Namespace, model: ModelLocation) -> dict[str, Any]:
    """The record."""
    start = load_average()
    calls, library = make_calls(model)
    mix = sample_corpus(options.mix, options.mix_texts) if options.mix.is_file() else []
    compared = [*mix]
    buckets: dict[str, Any] = {}
    for tokens in options.buckets:
        texts = bucket_texts(library, tokens, VARIANTS)
        compared += texts
        check(model, library, texts)
        samples = timed(calls, texts, options.iterations, options.block, None)
        # What is counted leaves [CLS] and [SEP] out.
        buckets[str(tokens)] = part(samples, np.full(options.iterations, tokens - 2.0))
        print(f"{tokens} tokens: done", file=sys.stderr)
    total = check(model, library, compared)
    texts = bucket_texts(library, COLD_TOKENS, VARIANTS)
    swept = np.ones(SWEEP_BYTES // 8)
    cold = timed(calls, texts, options.cold_iterations, 1, swept.sum)
    return {
        "schema": 1,
        "model_id": model.model_id,
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware(), "load_average": {"start": start, "end": load_average()}},
        "settings": {
            "iterations": options.iterations,
            "cold_iterations": options.cold_iterations,
            "block": options.block,
            "variants": VARIANTS,
        },
        "equal": {"texts": len(compared), "tokens": total, "differences": 0},
        "buckets": buckets,
        "after_64_mb": part(cold, np.full(options.cold_iterations, COLD_TOKENS - 2.0)),
        "mix": measure_mix(calls, library, mix, options.block)
        if mix
        else {"skipped": f"{options.mix} is not there"},
        "meets_target": _meets(buckets),
    }


def _meets(buckets: dict[str, Any]) -> dict[str, Any]:
    """Mean time per token, the worst of the buckets."""
    if not buckets:
        return {"us_per_token": None, "met": None}
    worst = max(row["us_per_token"]["native"] for row in buckets.values())
    return {"us_per_token": worst, "limit": LIMIT_US_PER_TOKEN, "met": worst <= LIMIT_US_PER_TOKEN}


def print_results(record: dict[str, Any]) -> None:
    """The table on standard output."""
    table = Table(title="one text, us", title_justify="left")
    for name in ("texts", "call"):
        table.add_column(name)
    for name in ("tokens", "p50", "p95", "us/token", "tokenizers p50 x", "p95 x"):
        table.add_column(name, justify="right")
    rows = {f"{tokens} tokens": row for tokens, row in record["buckets"].items()}
    rows["after 64 MB"] = record["after_64_mb"]
    if "skipped" not in record["mix"]:
        rows |= {f"mix, {name}": row for name, row in record["mix"].items()}
    for title, row in rows.items():
        for name, summary in row["calls"].items():
            over = row["tokenizers_over"].get(name)
            table.add_row(
                title,
                name,
                f"{row['tokens']['mean']:.0f}",
                f"{summary['p50']:.2f}",
                f"{summary['p95']:.2f}",
                f"{row['us_per_token'][name]:.3f}",
                *((f"{over['p50']:.1f}", f"{over['p95']:.1f}") if over else ("", "")),
            )
    Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    with locate_model(options.model) as model:
        record = run(options, model)
    print_results(record)
    if options.output is not None:
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
