"""Interleaved measurement of pipelines over texts, and the sections of the latency record."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from decoding import views_of
from stages import stage_split
from stats import Samples, Summary, ratio, turns

__all__ = ["SUBJECT", "measure", "mix_section", "section"]

SUBJECT = "raxe-fast"

Pipelines = Mapping[str, Callable[[str], Any]]
Results = Mapping[str, Sequence[Any]]


def measure(
    pipelines: Pipelines,
    keep: Collection[str],
    texts: Sequence[str],
    iterations: int,
    block: int,
    title: str,
) -> tuple[dict[str, Samples], dict[str, list[Any]]]:
    """Samples (iterations,) in ms by pipeline, by input index; and the results of those in
    `keep`."""
    samples = {name: np.zeros(iterations) for name in pipelines}
    results: dict[str, list[Any]] = {name: [None] * iterations for name in keep}
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
        if turn.pipeline in results:
            results[turn.pipeline][turn.index] = result
        if time.monotonic() - told > 15:
            told = time.monotonic()
            done = (turn.index + 1) / iterations
            print(f"  {done:4.0%}  {told - begun:.0f} s", file=sys.stderr)
    print(f"  done in {time.monotonic() - begun:.1f} s", file=sys.stderr)
    return samples, results


def section(
    samples: Mapping[str, Samples], results: Results, texts: Sequence[str], decoding: Samples
) -> dict[str, Any]:
    """The record of one bucket or of the mix: summaries, ratios to the subject, stages.

    decoding: microseconds, one for each of the texts. `split` is the subject's, `splits` has all
    scanners."""
    by_result = np.resize(decoding, len(results[SUBJECT]))  # the texts in turn, as measured
    splits = {name: stage_split(found, samples[name], by_result) for name, found in results.items()}
    return {
        "unit": "ms",
        "pipelines": {name: Summary.of(values).to_dict() for name, values in samples.items()},
        "times_slower_than_subject": _ratios(samples),
        "split": splits[SUBJECT],
        "splits": splits,
        "texts_with_encoded_parts": {"texts": views_of(texts), "of": len(texts)},
    }


def mix_section(
    samples: Mapping[str, Samples],
    results: Results,
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
        kept = {name: values[whole] for name, values in samples.items()}
        out["texts_the_reference_reads_whole"] = {
            "pipelines": {name: Summary.of(values).to_dict() for name, values in kept.items()},
            "times_slower_than_subject": _ratios(kept),
        }
    return out


def _ratios(samples: Mapping[str, Samples]) -> dict[str, Any]:
    """Every pipeline scans the same texts in the same order."""
    return {
        name: ratio(values, samples[SUBJECT], paired=True).to_dict()
        for name, values in samples.items()
        if name != SUBJECT
    }
