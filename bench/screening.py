"""What stands before the encoder saves and what it costs, also against someone who knows it.

    python bench/screening.py --corpus test.jsonl.gz --output screening.json

The shipped pair: its small model and the large one's screening network. With --model that model's
screening network alone. See bench/README.md. Needs `pip install ".[train]"`.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from hardware import hardware, load_average
from raxe_fast import Policy, RaxeFastError, Scanner, ScanResult, load_model
from raxe_fast.decode import decoded_views
from raxe_fast.first import ASK_FROM, FIRST_MODEL, FirstScanner
from raxe_fast.policy import PRESETS
from raxe_fast.training.corpus import Record, read_corpus
from raxe_fast.training.evaluate import sample_records
from raxe_fast.training.evasion import (
    PLACES,
    Rule,
    carrier_sentences,
    pad,
    padding_rules,
    rules,
    search,
    shuffled,
)
from raxe_fast.training.outcomes import length_bucket
from screening_figures import Pair, clearing, cost, groups, markdown, slices
from sentences import HARMLESS
from stats import Summary, ratio, turns

AMOUNTS = (50, 150, 400)  # tokens of padding
# What an attacker sees of a text whose triggers keep it from being cleared: worse than any logit.
TRIGGERED = 1000.0
FILLERS = ("own sentences", "corpus text")
PADDED = "padded, place and amount picked"
REWORDED = "reworded"
BOTH = "reworded and padded"
_NO_OWNERS = np.zeros(0, dtype=np.uint32)


class ScreeningReportError(RaxeFastError):
    """There is nothing to report on."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One text of an attacker's. ``filler``: what it was padded with; ``queries``: texts shown to
    the screening network before, None where none were."""

    text: str
    queries: int | None = None
    filler: str = ""


class Subject:
    """One scanner, asked with and without screening, and what screening says of a text. With a
    small model before it that is what the attacker knows: the text must stay below the score from
    which the large one is asked."""

    def __init__(self, scanner: Scanner, preset: str) -> None:
        """Raises ScreeningReportError for a model that clears nothing under the preset."""
        self.scanner = scanner
        self.on, self.off = Policy(preset), Policy(preset, screening=False)
        manifest = scanner.model.manifest
        limits = self.on.resolve(manifest.thresholds)
        self._rule_warn = limits.rule_warn
        below = None
        if manifest.screening is not None and scanner.screens(self.on):
            below = manifest.screening.clear_below(limits.block, limits.warn, manifest.thresholds)
        self._first: FirstScanner | None = None
        if scanner.first is not None:
            self._first = FirstScanner(Scanner(scanner.first, first=None), ASK_FROM, 1.0)
            self._thresholds = self.on.resolve(scanner.first.manifest.thresholds)
            below = 0.0
        if below is None:
            raise ScreeningReportError(f"model {scanner.model.id} does not screen under {preset}")
        self.clear_below = below
        self.count_tokens = lru_cache(1 << 16)(scanner.count_tokens)

    def pair(self, text: str) -> Pair:
        return Pair.of(
            self.scanner.scan(text, policy=self.off), self.scanner.scan(text, policy=self.on)
        )

    def worth(self, text: str) -> float:
        """What decides whether all of a text is cleared, less is better to an attacker: its
        highest logit, and more than any where its triggers keep it from being cleared; or by how
        much the small model's score is above the one from which the large model is asked."""
        if self._first is not None:
            result = self._first.scanner.scan(text, policy=self.on)
            asked_from = self._first.asks_from(result, self._thresholds)
            return result.score - asked_from if result.status == "ok" else inf
        logits = self.scanner.screening_logits(text)
        if not logits or any(map(isnan, logits)):
            return inf
        texts = [text, *(view.text for view in decoded_views(text))]
        found = self.scanner.model.scorer.score([], _NO_OWNERS, texts)
        speak = max(item.rule_score for item in found) >= self._rule_warn
        return max(logits) + TRIGGERED * speak


def scan_mix(
    subject: Subject, texts: Sequence[str], block: int
) -> tuple[list[Pair], list[int], dict[str, Any]]:
    """Every text once with and once without screening, in turns; pairs, tokens and times."""
    policies = {"without": subject.off, "screened": subject.on}
    results: dict[str, list[ScanResult]] = {name: [] for name in policies}
    samples: dict[str, list[float]] = {name: [] for name in policies}
    order = list(turns(list(policies), len(texts), block))
    for turn in track(order, description="mix", disable=not sys.stderr.isatty()):
        text, policy = texts[turn.index], policies[turn.pipeline]
        begin = time.perf_counter_ns()
        result = subject.scanner.scan(text, policy=policy)
        elapsed = time.perf_counter_ns() - begin
        if turn.measured:
            results[turn.pipeline].append(result)
            samples[turn.pipeline].append(elapsed / 1e6)
    pairs = [Pair.of(*two) for two in zip(results["without"], results["screened"], strict=True)]
    faster = ratio(np.array(samples["without"]), np.array(samples["screened"]), paired=True)
    times = {
        "unit": "ms",
        **{name: Summary.of(values).to_dict() for name, values in samples.items()},
        "times_faster": faster.to_dict(),
    }
    return pairs, [result.tokens for result in results["without"]], times


def paddings(
    attack: str, fillers: dict[str, Callable[[random.Random], Iterator[str]]], subject: Subject,
    number: int, seed: int,
) -> dict[str, Attempt]:  # fmt: skip
    """The attack with each amount of padding in each place; even numbers are padded with our own
    sentences, odd ones with a harmless text of the corpus where there is one."""
    name = FILLERS[number % len(FILLERS)]
    name = name if name in fillers else FILLERS[0]
    made = {}
    for place in PLACES:
        for tokens in AMOUNTS:
            rng = random.Random(f"{seed}/{number}/{place}/{tokens}")
            text = pad(attack, fillers[name](rng), tokens, place, subject.count_tokens)
            made[f"{tokens} tokens {place}"] = Attempt(text, filler=name)
    return made


def attempts(
    attack: str, padded: dict[str, Attempt], subject: Subject, *,
    budget: int, pool: int, beam: int, seed: int,
) -> dict[str, Attempt]:  # fmt: skip
    """Everything that is tried with one attack, by name."""
    best = min(padded.values(), key=lambda attempt: subject.worth(attempt.text))

    def found(edits: Sequence[Rule]) -> Attempt:
        done = search(
            attack, edits, subject.worth, budget=budget, pool=pool, beam=beam,
            stop_below=subject.clear_below, seed=seed,
        )  # fmt: skip
        return Attempt(done.text, done.queries)

    edits = rules("report")
    return {
        "as it is": Attempt(attack),
        **padded,
        PADDED: Attempt(best.text, len(padded), best.filler),
        REWORDED: found(edits),
        BOTH: found((*edits, *padding_rules(HARMLESS))),
    }


def attack_block(
    subject: Subject,
    attacks: Sequence[Record],
    tokens: Sequence[int],
    harmless: Sequence[str],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What an attacker gets past screening: rows over all attacks, and the picked ones by family,
    length and padding. Texts themselves are nowhere in it."""
    fillers: dict[str, Callable[[random.Random], Iterator[str]]] = {
        FILLERS[0]: lambda rng: shuffled(HARMLESS, rng)
    }
    probe = carrier_sentences(harmless, random.Random(0), subject.count_tokens)
    if next(probe, None) is not None:
        fillers[FILLERS[1]] = lambda rng: carrier_sentences(harmless, rng, subject.count_tokens)
    tried: list[dict[str, Attempt]] = []
    pairs: list[dict[str, Pair]] = []
    shown = track(attacks, description="adversary", disable=not sys.stderr.isatty())
    for number, record in enumerate(shown):
        padded = paddings(record.text, fillers, subject, number, options.seed)
        made = attempts(
            record.text, padded, subject, budget=options.queries, pool=options.pool,
            beam=options.beam, seed=options.seed,
        )  # fmt: skip
        tried.append(made)
        pairs.append({name: subject.pair(attempt.text) for name, attempt in made.items()})

    def found_of(name: str) -> list[Pair]:
        return [found[name] for found in pairs]

    rows: dict[str, Any] = {}
    for name in pairs[0] if pairs else ():
        asked = [made[name].queries for made in tried]
        known = [queries for queries in asked if queries is not None]
        rows[name] = {
            **cost(found_of(name)),
            "queries": sum(known) / len(known) if known else None,
        }
    picked = [name for name in (PADDED, REWORDED, BOTH) if pairs]

    def by(keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {
            name: {key: cost(some) for key, some in groups(keys, found_of(name)).items()}
            for name in picked
        }

    fill = [made[PADDED].filler for made in tried]
    return {
        "attacks": len(attacks),
        "padding_tokens": list(AMOUNTS),
        "rules": [rule.name for rule in rules("report")],
        "rows": rows,
        "by_family": by([record.family or "unnamed" for record in attacks]),
        "by_length": by([length_bucket(n) for n in tokens]),
        "by_padding": {key: cost(some) for key, some in groups(fill, found_of(PADDED)).items()}
        if pairs
        else {},
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="model that screens; default: the shipped pair")
    parser.add_argument("--corpus", type=Path, required=True, help="labelled .jsonl or .jsonl.gz")
    parser.add_argument("--texts", type=int, default=3000, help="texts drawn; 0: all of them")
    parser.add_argument(
        "--attacks", type=int, default=400, help="attacks for the adversary; 0: all blocked ones"
    )
    parser.add_argument("--policy", choices=PRESETS, default="balanced")
    parser.add_argument("--backend", choices=("auto", "onnxruntime", "native"), default="auto")
    parser.add_argument("--queries", type=int, default=60, help="texts that one search may ask of")
    parser.add_argument("--pool", type=int, default=12, help="variants in a round of a search")
    parser.add_argument("--beam", type=int, default=2, help="variants that a round goes on with")
    parser.add_argument("--block", type=int, default=10, help="timed calls of one kind in a row")
    parser.add_argument("--seed", type=int, default=20240601)
    parser.add_argument("--output", type=Path, required=True, help="the JSON record")
    options = parser.parse_args(arguments)
    if min(options.queries, options.pool, options.beam, options.block) < 1:
        parser.error("--queries, --pool, --beam and --block must be at least 1")
    if min(options.texts, options.attacks) < 0:
        parser.error("--texts and --attacks must not be negative")
    return options


def measure(scanner: Scanner, options: argparse.Namespace) -> dict[str, Any]:
    """The whole record. Raises ScreeningReportError, CorpusError."""
    subject = Subject(scanner, options.policy)
    corpus = read_corpus(options.corpus)
    records = sample_records(corpus.records, options.texts or None, options.seed)
    load = [load_average()]
    # Corpora are sorted; in turns of a few texts neighbours should not be alike.
    random.Random(options.seed).shuffle(records)
    pairs, tokens, times = scan_mix(subject, [record.text for record in records], options.block)
    load.append(load_average())

    def those(label: int) -> list[int]:
        return [i for i, record in enumerate(records) if record.label == label]

    def part(
        chosen: Sequence[int], count: Callable[[Sequence[Pair]], dict[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        return slices(
            [records[i] for i in chosen],
            [tokens[i] for i in chosen],
            [pairs[i] for i in chosen],
            count,
        )

    blocked = [i for i in those(1) if pairs[i].without and records[i].text.strip()]
    blocked = blocked[: options.attacks or None]
    report = {
        "model_id": scanner.model.id,
        "first": None if scanner.first is None else scanner.first.id,
        "policy": options.policy,
        "clear_below": subject.clear_below,
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "corpus": {
            "name": options.corpus.name,
            "sha256": hashlib.sha256(options.corpus.read_bytes()).hexdigest(),
            "records": len(corpus),
            "texts": len(records),
        },
        "settings": {
            name: getattr(options, name)
            for name in ("seed", "backend", "queries", "pool", "beam", "block")
        },
        "hardware": hardware(),
        "time": times,
        "harmless": part(those(0), clearing),
        "attacks": part(those(1), cost),
        "adversary": attack_block(
            subject,
            [records[i] for i in blocked],
            [tokens[i] for i in blocked],
            [records[i].text for i in those(0)],
            options,
        ),
    }
    return {**report, "load_average": [*load, load_average()]}


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done. 2: the model or the corpus is none that can be reported on."""
    options = parse_arguments(arguments)
    try:
        # Loaded here: a scanner lets go of the networks of a model that it has loaded itself.
        first = load_model(FIRST_MODEL) if options.model is None else None
        with Scanner(options.model, first=first, backend=options.backend) as scanner:
            report = measure(scanner, options)
    except RaxeFastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(markdown(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
