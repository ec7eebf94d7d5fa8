"""End-to-end latency of raxe-fast and of the reference pipeline, in one interleaved run.

    python bench/latency.py --mix ../shared/data/test.jsonl.gz --output bench.json

Buckets of exactly 16 .. 512 tokens and a long document (composed texts), the natural mix of the
test corpus where it is present, stages, a noisy neighbour, cold start and memory; of both backends
and of as many models as are given. See bench/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from accuracy import accuracy_block
from decoding import decode_times
from equal_work import check_equal_work
from hardware import hardware, load_average
from model_files import ModelLocation, features_of, locate_model
from neighbour import noisy_neighbour
from raxe_fast.first import FIRST_MODEL
from raxe_fast.model import resolve
from reference import ReferencePipeline, ReferenceScorer
from resources import cold_start, sizes, steady
from sections import SUBJECT, measure, mix_section, section
from stats import Samples
from table import print_report
from targets import meets_targets
from texts import bucket_texts, count, default_mix, document, sample_corpus

if TYPE_CHECKING:
    from raxe_fast.encoder import Backend

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKETS = (16, 32, 64, 128, 256, 512)
VARIANTS = 20  # different texts per bucket
BACKENDS: tuple[Backend, ...] = ("native", "onnxruntime")
DOCUMENT = 8000  # characters; the limit is on documents of this length


@dataclass(frozen=True, slots=True)
class Variant:
    """A scanner under test: `name` is its row, the subject's is SUBJECT. `first`: of Scanner; the
    shipped model has the shipped small one before it unless this is None."""

    name: str
    model: ModelLocation
    backend: Backend
    threads: int
    first: str | None = "auto"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="where to write the JSON report")
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        help="model directory or .raxe (default: shipped); may be given several times, the first "
        "is the subject",
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=BACKENDS,
        default=list(BACKENDS),
        help="what runs the encoder; the first is the subject",
    )
    parser.add_argument("--deadline-ms", type=float, help="of every scan of raxe-fast")
    parser.add_argument(
        "--mix",
        type=Path,
        default=default_mix(REPOSITORY),
        help="corpus for the natural mix, JSON Lines; left out with a note if absent",
    )
    parser.add_argument("--mix-texts", type=int, default=1000, help="texts sampled from the mix")
    parser.add_argument("--iterations", type=int, default=300, help="per bucket and pipeline")
    parser.add_argument("--buckets", type=int, nargs="*", default=list(BUCKETS))
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1],
        help="encoder threads of raxe-fast; the first is the subject, others are rows of their own "
        "(native has one thread)",
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
    parser.add_argument(
        "--document", type=int, default=DOCUMENT, help="characters of a long document; 0: none"
    )
    parser.add_argument(
        "--neighbour-texts",
        type=int,
        default=300,
        help="texts of the mix scanned beside a busy process; 0: leave it out",
    )
    parser.add_argument("--raw", action="store_true", help="also write all samples, as .npz")
    options = parser.parse_args(arguments)
    if min(options.iterations, options.block, options.mix_texts, options.process_runs) < 1:
        parser.error("--iterations, --block, --mix-texts and --process-runs must be at least 1")
    if min(options.buckets, default=8) < 8:
        parser.error("--buckets must be at least 8")
    if min(options.document, options.neighbour_texts) < 0:
        parser.error("--document and --neighbour-texts must be at least 0")
    return options


def list_variants(
    models: Sequence[ModelLocation], backends: Sequence[Backend], threads: Sequence[int]
) -> list[Variant]:
    """Every model x backend x number of threads, the subject first; native with one thread alone.
    Where the subject is the shipped pair, its large model on its own is a row, too.

    The first model's rows are called raxe-fast, those of others by their id (with a number where
    two share one); backend and threads follow where they are not the subject's.
    """
    out: list[Variant] = []
    for number, model in enumerate(models):
        taken = [earlier.model_id for earlier in models[:number]]
        prefix = SUBJECT if number == 0 else model.model_id
        if model.model_id in taken:
            prefix += f"-{taken.count(model.model_id) + 1}"
        for backend in dict.fromkeys(backends):
            for n in dict.fromkeys((1,) if backend == "native" else threads):
                name = prefix
                if backend != backends[0]:
                    name += f"-{backend}"
                if n != threads[0]:
                    name += f"-{n}-thread{'s' if n > 1 else ''}"
                out.append(Variant(name, model, backend, n))
    subject = out[0]
    if subject.model.given is None:
        out.append(replace(subject, name=f"{SUBJECT}-large-alone", first=None))
    return out


def build_pipelines(
    options: argparse.Namespace, variants: Sequence[Variant]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Objects with a `scan` method, the subject first, and why any other scanner is left out.

    `reference` has ONNX Runtime's default threads (all cores), `reference-1-thread` one. Both run
    the first model. Raises what Scanner raises for the subject.
    """
    import raxe_fast

    pipelines: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for variant in variants:
        try:
            pipelines[variant.name] = raxe_fast.Scanner(
                variant.model.given,
                first=variant.first,
                threads=variant.threads,
                backend=variant.backend,
                deadline_ms=options.deadline_ms,
            )
        except raxe_fast.ModelError as error:  # an encoder that this backend does not run
            if variant.name == SUBJECT:
                raise
            left_out[variant.name] = str(error)
    model = variants[0].model
    scorer = ReferenceScorer(model.directory)
    pipelines["reference"] = ReferencePipeline(model.directory, scorer=scorer)
    pipelines["reference-1-thread"] = ReferencePipeline(model.directory, scorer=scorer, threads=1)
    if options.fp32_encoder:
        pipelines["reference-fp32"] = ReferencePipeline(
            model.directory, scorer=scorer, encoder=options.fp32_encoder
        )
    return pipelines, left_out


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


def mix_texts(options: argparse.Namespace) -> tuple[list[str], str | None]:
    """The sampled texts, or none and the reason."""
    if not options.mix.is_file():
        return [], f"no corpus: {options.mix.name} is not there (--mix PATH)"
    return sample_corpus(options.mix, options.mix_texts), None


def measure_latency(
    options: argparse.Namespace,
    pipelines: Mapping[str, Any],
    ours: Sequence[str],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    no_mix: str | None,
) -> tuple[dict[str, Any], dict[str, Samples]]:
    """The buckets, the document and the mix (`texts`, or the reason why there is none), and all
    samples. `ours`: the pipelines that are scanners."""
    scans = {name: pipeline.scan for name, pipeline in pipelines.items()}
    raw: dict[str, Samples] = {}

    def composed(texts: Sequence[str], iterations: int, key: str, title: str) -> dict[str, Any]:
        samples, results = measure(scans, ours, texts, iterations, options.block, title)
        raw.update({f"{key}/{name}": values for name, values in samples.items()})
        return section(samples, results, texts, decode_times(scans[SUBJECT], texts))

    buckets = {
        str(tokens): composed(
            bucket_texts(tokenizer, tokens, VARIANTS),
            options.iterations,
            str(tokens),
            f"{tokens} tokens",
        )
        for tokens in options.buckets
    }
    long: dict[str, Any] = {"skipped": "not asked for (--document)"}
    if size := options.document:
        documents = [document(size, attack=bool(i % 2), seed=i) for i in range(VARIANTS)]
        # A tenth of the iterations: each takes tens of times as long as one of a short text.
        iterations = min(options.iterations, max(VARIANTS, options.iterations // 10))
        long = {
            "characters": size,
            "tokens": round(float(np.mean([count(tokenizer, text) for text in documents])), 1),
            **composed(documents, iterations, "document", f"{size} characters"),
        }
    mix: dict[str, Any] = {"skipped": no_mix}
    if no_mix is None:
        samples, results = measure(scans, ours, texts, len(texts), options.block, "natural mix")
        lengths = [count(tokenizer, text) for text in texts]
        decoding = decode_times(scans[SUBJECT], texts, rounds=1)
        limit = pipelines["reference"].max_tokens
        mix = mix_section(samples, results, texts, decoding, lengths, limit)
        raw |= {f"mix/{name}": values for name, values in samples.items()}
        raw["mix/tokens"] = np.array(lengths, dtype=np.float64)
    return {"buckets": buckets, "document": long, "mix": mix}, raw


def run(options: argparse.Namespace, models: Sequence[ModelLocation]) -> dict[str, Any]:
    """The whole report; the subject is of the first model."""
    model = models[0]
    variants = list_variants(models, options.backends, options.threads)
    report: dict[str, Any] = {
        "schema": 1,
        "model_id": model.model_id,
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware(), "load_average": {"start": load_average()}},
        "settings": {
            "subject": SUBJECT,
            "backend": options.backends[0],
            "threads": options.threads[0] if options.backends[0] == "onnxruntime" else 1,
            "deadline_ms": options.deadline_ms,
            "iterations": options.iterations,
            "mix_texts": options.mix_texts,
            "block": options.block,
            "variants_per_bucket": VARIANTS,
        },
        "scanners": {
            variant.name: {
                "model_id": variant.model.model_id,
                "first": FIRST_MODEL if variant.model.given is None and variant.first else None,
                "backend": variant.backend,
                "threads": variant.threads,
            }
            for variant in variants
        },
    }
    tokenizer = Tokenizer.from_file(str(model.directory / "tokenizer.json"))
    pipelines, left_out = build_pipelines(options, variants)
    for name, reason in left_out.items():
        print(f"{name} left out: {reason}", file=sys.stderr)
        report["scanners"][name]["skipped"] = reason
    variants = [variant for variant in variants if variant.name in pipelines]
    ours = [variant.name for variant in variants]
    reference = pipelines["reference"]
    report["settings"]["features"] = features_of(reference.scorer.manifest)
    report["settings"]["reference_substrings"] = reference.scorer.triggers.substrings
    report["reference"] = reference.scorer.about()
    report["reference"]["largest_difference"] = equal_work(model, pipelines, tokenizer)

    texts, reason = mix_texts(options)
    if reason is not None:
        print(f"natural mix left out: {reason}", file=sys.stderr)
    report["latency"], raw = measure_latency(options, pipelines, ours, tokenizer, texts, reason)
    texts = texts or bucket_texts(tokenizer, 64, VARIANTS)
    report["noisy_neighbour"] = {"skipped": "not asked for (--neighbour-texts)"}
    if options.neighbour_texts:
        print("noisy neighbour", file=sys.stderr)
        scans = {name: pipelines[name].scan for name in ours}
        report["noisy_neighbour"] = noisy_neighbour(
            scans, texts[: options.neighbour_texts], options.block
        )
        del scans
    del pipelines, reference  # their memory, before that of other processes is measured

    report["resources"] = measure_resources(options, variants, texts)
    own, name = model.report, model.model_id
    if model.given is None:  # the shipped pair, whose report lies beside the large model's
        own = None if own is None else own.with_name("pair.json")
        name = f"{FIRST_MODEL} before {name}"
    report["accuracy"] = accuracy_block(options.report or own, name)
    report["meets_targets"] = meets_targets(target_values(report))
    report["hardware"]["load_average"]["end"] = load_average()
    if options.raw:
        np.savez_compressed(options.output.with_suffix(".npz"), **raw)  # type: ignore[arg-type]
    return report


def measure_resources(
    options: argparse.Namespace, variants: Sequence[Variant], texts: list[str]
) -> dict[str, Any]:
    """Cold start, memory and CPU of the scanners (one thread each) and of the reference; sizes of
    the first model, and of all by id."""
    print("cold start, memory, CPU time", file=sys.stderr)
    starts: dict[str, Any] = {}
    runs: dict[str, Any] = {}
    measured: set[tuple[Path, str]] = set()
    for variant in variants:
        key = (variant.model.directory, variant.backend)
        if key in measured:  # it differs in threads, or in the model before it
            continue
        measured.add(key)
        given = str(variant.model.given) if variant.model.given else ""
        starts[variant.name] = cold_start(
            given, variant.backend, texts[0][:200], options.process_runs
        )
        runs[variant.name] = steady(variant.backend, given, texts, options.scans)
    model = variants[0].model
    runs["reference"] = steady("reference", str(model.directory), texts, min(options.scans, 300))
    by_id = {
        variant.model.model_id: sizes(variant.model.directory, variant.model.archive, options.wheel)
        for variant in reversed(variants)  # of two with one id, the first stays
    }
    if model.given is None:
        by_id[model.model_id]["first_model"] = resolve(FIRST_MODEL).stat().st_size / 1e6
    return {
        "cold_start": starts[SUBJECT],
        "cold_starts": starts,
        "steady": runs,
        "memory_unit": "MB = 10^6 bytes",
        "size_mb": by_id[model.model_id],
        "sizes_mb": by_id,
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
    long = latency["document"]
    if long.get("characters") == DOCUMENT:
        values["document_of_8000_characters_p95"] = long["pipelines"][SUBJECT]["p95"]
    # The larger of the two forms of the model: neither may hide the other. With the small one.
    largest = max(size["model_directory"], size["model_archive"] or 0.0)
    values["size_on_disk"] = largest + (size.get("first_model") or 0.0)
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
    with ExitStack() as stack:
        models = [stack.enter_context(locate_model(path)) for path in options.model or [None]]
        report = run(options, models)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
