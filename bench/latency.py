"""End-to-end latency of raxe-fast and of the reference pipeline, in one interleaved run.

    python bench/latency.py --output bench.json

Buckets of exactly 16 .. 512 tokens (composed texts), and the natural mix of the test corpus where
it is present. See bench/README.md.
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
from tokenizers import Tokenizer

from accuracy import accuracy_block
from decoding import DECODE, decode_times, views_of
from equal_work import check_equal_work
from hardware import hardware, load_average
from model_files import ModelLocation, features_of, locate_model
from reference import ReferencePipeline, ReferenceScorer
from resources import cold_start, sizes, steady
from stats import Samples, Summary, ratio, turns
from table import print_report
from targets import meets_targets
from texts import bucket_texts, count, default_mix, sample_corpus

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKETS = (16, 32, 64, 128, 256, 512)
VARIANTS = 20  # different texts per bucket
ENCODER_STAGES = ("tokenise", "screen", "encode")
SUBJECT = "raxe-fast"

Pipelines = Mapping[str, Callable[[str], Any]]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="where to write the JSON report")
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument(
        "--mix",
        type=Path,
        default=default_mix(REPOSITORY),
        help="corpus for the natural mix, JSON Lines; left out with a note if absent",
    )
    parser.add_argument("--mix-texts", type=int, default=1000, help="texts sampled from the mix")
    parser.add_argument("--iterations", type=int, default=1000, help="per bucket and pipeline")
    parser.add_argument("--buckets", type=int, nargs="*", default=list(BUCKETS))
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1],
        help="encoder threads of raxe-fast; the first is the subject, others are rows of their own",
    )
    parser.add_argument(
        "--block",
        type=int,
        default=10,
        help="calls in a row of one pipeline before the next takes over; 1: strictly A B A B",
    )
    parser.add_argument("--fp32-encoder", type=Path, help="an fp32 encoder.onnx, for its own row")
    parser.add_argument("--report", type=Path, help="accuracy report (default: the model's own)")
    parser.add_argument("--wheel", type=Path, help="wheel whose size counts")
    parser.add_argument("--process-runs", type=int, default=7, help="processes per cold start")
    parser.add_argument("--scans", type=int, default=1000, help="scans of the memory measurement")
    parser.add_argument("--raw", action="store_true", help="also write all samples, as .npz")
    options = parser.parse_args(arguments)
    if min(options.iterations, options.block, options.mix_texts, options.process_runs) < 1:
        parser.error("--iterations, --block, --mix-texts and --process-runs must be at least 1")
    if min(options.buckets, default=8) < 8:
        parser.error("--buckets must be at least 8")
    return options


def build_pipelines(options: argparse.Namespace, model: ModelLocation) -> dict[str, Any]:
    """Objects with a `scan` method, the subject first.

    `reference` has ONNX Runtime's default threads (all cores), `reference-1-thread` one.
    """
    import raxe_fast

    pipelines: dict[str, Any] = {}
    for threads in dict.fromkeys(options.threads):
        name = SUBJECT if not pipelines else f"{SUBJECT}-{threads}-threads"
        pipelines[name] = raxe_fast.Scanner(model.given, threads=threads)
    scorer = ReferenceScorer(model.directory)
    pipelines["reference"] = ReferencePipeline(model.directory, scorer=scorer)
    pipelines["reference-1-thread"] = ReferencePipeline(model.directory, scorer=scorer, threads=1)
    if options.fp32_encoder:
        pipelines["reference-fp32"] = ReferencePipeline(
            model.directory, scorer=scorer, encoder=options.fp32_encoder
        )
    return pipelines


def equal_work(
    model: ModelLocation, pipelines: Mapping[str, Any], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Largest differences between the two sides over texts of one window; raises RuntimeError
    where they are too large."""
    reference = pipelines["reference"]
    limit = min(64, reference.scorer.manifest["encoder"]["max_tokens"], reference.max_tokens)
    inputs = []
    for text in bucket_texts(tokenizer, limit, VARIANTS):
        tokens, _, span = reference.encode(text)
        inputs.append((text, tokens, span))
    return check_equal_work(model, pipelines[SUBJECT].model.scorer, reference.scorer, inputs)


def measure(
    pipelines: Pipelines, texts: Sequence[str], iterations: int, block: int, title: str
) -> tuple[dict[str, Samples], list[Any]]:
    """Samples (iterations,) in ms by pipeline, by input index; and the subject's results."""
    samples = {name: np.zeros(iterations) for name in pipelines}
    results: list[Any] = [None] * iterations
    for scan in pipelines.values():
        for text in texts[: min(5, len(texts))]:
            scan(text)
    begun = told = time.monotonic()
    print(f"{title}: {iterations} iterations x {len(pipelines)} pipelines", file=sys.stderr)
    for turn in turns(list(pipelines), iterations, block):
        scan, text = pipelines[turn.pipeline], texts[turn.index % len(texts)]
        begin = time.perf_counter_ns()
        result = scan(text)
        elapsed = time.perf_counter_ns() - begin
        if not turn.measured:
            continue
        samples[turn.pipeline][turn.index] = elapsed / 1e6
        if turn.pipeline == SUBJECT:
            results[turn.index] = result
        if time.monotonic() - told > 15:
            told = time.monotonic()
            done = (turn.index + 1) / iterations
            print(f"  {done:4.0%}  {told - begun:.0f} s", file=sys.stderr)
    print(f"  done in {time.monotonic() - begun:.1f} s", file=sys.stderr)
    return samples, results


def stage_split(
    results: Sequence[Any], wall: Samples, decoding: Samples | None = None
) -> dict[str, Any]:
    """Microseconds by stage (from ScanResult.timings), and the share outside encoder + tokeniser.

    decoding: microseconds by result that looking for encoded parts takes, measured apart: the
    scanner's own timings have it within `tokenise`, but it is no tokeniser's work and counts as
    outside. None: it is left there. `other` is the part of the wall time around `scan` that no
    stage covers.
    The share is computed against the wall time around `scan`, so that whatever the stages do not
    cover counts as outside. `share_of_time` is over all calls together (long texts weigh more),
    `share_p50` and `share_p95` are quantiles of the share of one call.
    """
    names = list(results[0].timings)
    stages = {
        name: np.array([result.timings.get(name, 0.0) for result in results]) for name in names
    }
    if decoding is not None:
        stages["tokenise"] = stages["tokenise"] - decoding
        stages = {DECODE: decoding, **stages}
    wall_us = wall * 1e3
    stages["other"] = wall_us - sum(
        (values for name, values in stages.items() if name != "total"), np.zeros(len(results))
    )
    inside = sum((stages[name] for name in ENCODER_STAGES), np.zeros(len(results)))
    share = (wall_us - inside) / wall_us
    return {
        "unit": "us",
        "stages": {
            name: {
                "mean": round(float(values.mean()), 2),
                "p50": round(float(np.percentile(values, 50)), 2),
                "p95": round(float(np.percentile(values, 95)), 2),
            }
            for name, values in stages.items()
        },
        "outside_encoder_and_tokeniser": {
            "p50_us": round(float(np.percentile(wall_us - inside, 50)), 2),
            "p95_us": round(float(np.percentile(wall_us - inside, 95)), 2),
            "share_of_time": round(float((wall_us - inside).sum() / wall_us.sum()), 5),
            "share_p50": round(float(np.percentile(share, 50)), 5),
            "share_p95": round(float(np.percentile(share, 95)), 5),
        },
        "statuses": _counts([result.status for result in results]),
    }


def _counts(values: Sequence[str]) -> dict[str, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def section(
    samples: Mapping[str, Samples], results: Sequence[Any], texts: Sequence[str], decoding: Samples
) -> dict[str, Any]:
    """The report of one bucket or of the mix: summaries, ratios to the subject, stage split.

    decoding: microseconds, one for each of the texts."""
    by_result = np.resize(decoding, len(results))  # the texts in turn, as they were measured
    return {
        "unit": "ms",
        "pipelines": {name: Summary.of(values).to_dict() for name, values in samples.items()},
        "times_slower_than_subject": {
            name: ratio(values, samples[SUBJECT]).to_dict()
            for name, values in samples.items()
            if name != SUBJECT
        },
        "split": stage_split(results, samples[SUBJECT], by_result),
        "texts_with_encoded_parts": {"texts": views_of(texts), "of": len(texts)},
    }


def mix_section(
    samples: Mapping[str, Samples],
    results: Sequence[Any],
    texts: Sequence[str],
    decoding: Samples,
    tokens: Sequence[int],
    reference_limit: int,
) -> dict[str, Any]:
    """The natural mix; also restricted to texts that the reference reads whole."""
    out = section(samples, results, texts, decoding)
    lengths = np.array(tokens)
    out["tokens"] = {
        f"p{q}": float(np.percentile(lengths, q)) for q in (10, 25, 50, 75, 90, 95, 99)
    } | {"mean": round(float(lengths.mean()), 1)}
    whole = lengths <= reference_limit
    out["reference_cuts_off"] = {
        "past_tokens": reference_limit,
        "texts": int((~whole).sum()),
        "of": len(lengths),
    }
    if whole.any():
        out["texts_the_reference_reads_whole"] = {
            "pipelines": {
                name: Summary.of(values[whole]).to_dict() for name, values in samples.items()
            },
            "times_slower_than_subject": {
                name: ratio(values[whole], samples[SUBJECT][whole]).to_dict()
                for name, values in samples.items()
                if name != SUBJECT
            },
        }
    return out


def mix_texts(options: argparse.Namespace) -> tuple[list[str], str | None]:
    """The sampled texts, or none and the reason."""
    if not options.mix.is_file():
        return [], f"no corpus: {options.mix.name} is not there (--mix PATH)"
    return sample_corpus(options.mix, options.mix_texts), None


def run(options: argparse.Namespace, model: ModelLocation) -> dict[str, Any]:
    """The whole report."""
    report: dict[str, Any] = {
        "schema": 1,
        "model_id": model.model_id,
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware(), "load_average": {"start": load_average()}},
        "settings": {
            "subject": SUBJECT,
            "threads": options.threads[0],
            "iterations": options.iterations,
            "mix_texts": options.mix_texts,
            "block": options.block,
            "variants_per_bucket": VARIANTS,
        },
    }
    tokenizer = Tokenizer.from_file(str(model.directory / "tokenizer.json"))
    pipelines = build_pipelines(options, model)
    scans = {name: pipeline.scan for name, pipeline in pipelines.items()}
    reference = pipelines["reference"]
    report["settings"]["features"] = features_of(reference.scorer.manifest)
    report["settings"]["reference_substrings"] = reference.scorer.triggers.substrings
    report["reference"] = reference.scorer.about()
    report["reference"]["largest_difference"] = equal_work(model, pipelines, tokenizer)

    raw: dict[str, Samples] = {}
    buckets: dict[str, Any] = {}
    for tokens in options.buckets:
        texts = bucket_texts(tokenizer, tokens, VARIANTS)
        samples, results = measure(
            scans, texts, options.iterations, options.block, f"{tokens} tokens"
        )
        decoding = decode_times(pipelines[SUBJECT].scan, texts)
        buckets[str(tokens)] = section(samples, results, texts, decoding)
        raw |= {f"{tokens}/{name}": values for name, values in samples.items()}
    texts, reason = mix_texts(options)
    if reason is None:
        samples, results = measure(scans, texts, len(texts), options.block, "natural mix")
        lengths = [count(tokenizer, text) for text in texts]
        decoding = decode_times(pipelines[SUBJECT].scan, texts, rounds=1)
        mix = mix_section(samples, results, texts, decoding, lengths, reference.max_tokens)
        raw |= {f"mix/{name}": values for name, values in samples.items()}
        raw["mix/tokens"] = np.array(lengths, dtype=np.float64)
    else:
        print(f"natural mix left out: {reason}", file=sys.stderr)
        mix = {"skipped": reason}
    report["latency"] = {"buckets": buckets, "mix": mix}
    del pipelines, scans, reference

    steady_texts = texts or bucket_texts(tokenizer, 64, VARIANTS)
    report["resources"] = measure_resources(options, model, steady_texts)
    report["accuracy"] = accuracy_block(options.report or model.report, model.model_id)
    report["meets_targets"] = meets_targets(target_values(report))
    report["hardware"]["load_average"]["end"] = load_average()
    if options.raw:
        np.savez_compressed(options.output.with_suffix(".npz"), **raw)  # type: ignore[arg-type]
    return report


def measure_resources(
    options: argparse.Namespace, model: ModelLocation, texts: list[str]
) -> dict[str, Any]:
    """Cold start, memory and CPU of both pipelines, and sizes."""
    given = str(model.given) if model.given else ""
    print("cold start, memory, CPU time", file=sys.stderr)
    return {
        "cold_start": cold_start(given, texts[0][:200], options.process_runs),
        "steady": {
            SUBJECT: steady(SUBJECT, given, texts, options.scans),
            "reference": steady("reference", str(model.directory), texts, min(options.scans, 300)),
        },
        "memory_unit": "MB = 10^6 bytes",
        "size_mb": sizes(model.directory, model.archive, options.wheel),
    }


def target_values(report: Mapping[str, Any]) -> dict[str, float | None]:
    """The number of each limit in targets.LIMITS, None where it was not measured."""
    latency, resources = report["latency"], report["resources"]
    mix = None if "skipped" in latency["mix"] else latency["mix"]
    steady_run, size = resources["steady"][SUBJECT], resources["size_mb"]
    buckets = latency["buckets"].values()
    sections = [*buckets, *([mix] if mix else [])]
    values: dict[str, float | None] = {
        f"latency_{q}": mix["pipelines"][SUBJECT][q] if mix else None for q in ("p50", "p95", "p99")
    }
    # The larger of the two forms of the model: neither may hide the other.
    values["size_on_disk"] = max(size["model_directory"], size["model_archive"] or 0.0)
    values["rss"] = steady_run["memory"]["after_scans"]["VmRSS"]
    values["cpu_of_four_cores"] = steady_run["cpu_cores"] / 4
    values["wheel_size"] = size["wheel"]
    values["import"] = resources["cold_start"]["import"]["median"]
    values["import_load_first_scan"] = resources["cold_start"]["import_load_first_scan"]["median"]
    values["share_outside_encoder_and_tokeniser"] = max(
        (part["split"]["outside_encoder_and_tokeniser"]["share_of_time"] for part in sections),
        default=None,
    )
    for pipeline in ("reference", "reference-1-thread"):
        name = f"slowest_bucket_against_{pipeline.replace('-', '_')}"
        values[name] = min(
            (part["times_slower_than_subject"][pipeline]["p50"] for part in buckets), default=None
        )
    accuracy = report["accuracy"]
    if "skipped" not in accuracy:
        values |= accuracy["values"]
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    with locate_model(options.model) as model:
        report = run(options, model)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
