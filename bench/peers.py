"""Latency of raxe-fast, of two inference engines and of other detectors, on the natural mix.

    python bench/peers.py --mix ../shared/data/test.jsonl.gz --output peers.json

Each in a process and an environment of its own, with as many threads, in turn over the same texts;
the whole call from `str` to verdict. Writes the record, peers.md and two plots. See README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from hardware import hardware, load_average
from model_files import ModelLocation, locate_model
from peer_client import PeerWorker, WorkerDiedError, check_probe
from peer_engines import CONTENDERS, Contender, launch
from peer_report import markdown, write_plots
from records import dump_record
from stats import Samples, Summary, ratio, turns
from texts import count, default_mix, sample_corpus

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_ROOT = REPOSITORY / "build" / "peers"
EDGES = (16, 32, 64, 128, 256, 512)  # most tokens of each bucket; the last one is open


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mix", type=Path, default=default_mix(REPOSITORY), help="JSON Lines")
    parser.add_argument("--texts", type=int, default=1000, help="texts drawn from the mix")
    parser.add_argument("--seed", type=int, default=20240601)
    parser.add_argument("--rounds", type=int, default=1, help="times that each text is scanned")
    parser.add_argument("--threads", type=int, default=1, help="threads of everyone")
    parser.add_argument(
        "--block", type=int, default=10,
        help="calls in a row of one system before the next takes over; 1: strictly A B A B",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="the JSON record")
    parser.add_argument("--model", type=Path, help="raxe-fast model; default: the shipped one")
    parser.add_argument("--peers", type=Path, default=DEFAULT_ROOT, help="virtual environments")
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="systems to run")
    options = parser.parse_args(arguments)
    if min(options.texts, options.rounds, options.threads, options.block) < 1:
        parser.error("--texts, --rounds, --threads and --block must be at least 1")
    return options


class Runner:
    """One system: its worker while it works, and what it answered.

    `samples` are milliseconds, NaN where there was no verdict; `skipped` says why it does not run
    (any more).
    """

    def __init__(self, contender: Contender, calls: int) -> None:
        self.contender = contender
        self.samples: Samples = np.full(calls, np.nan)
        self.errors: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.flagged = self.wall_ns = self.cpu_ns = 0
        self.about: dict[str, Any] = {}
        self.skipped: str | None = None
        self._worker: PeerWorker | None = None

    def start(self, stack: ExitStack, root: Path, model: ModelLocation, threads: int) -> None:
        """Whatever keeps a system from running is its reason in the record, so no failure here
        ends the run or goes unmentioned."""
        try:
            start = launch(self.contender, root, model, threads)
            worker = PeerWorker(start.command, start.environment, start.log)
            self._worker = stack.enter_context(worker)
            self.about = {**start.about, **worker.ready}
            probe = self.about.pop("probe")
            if self.contender.real and "random weights" not in str(self.about.get("notes")):
                check_probe(self.contender.title, probe)
        except Exception as error:
            self.skipped = f"{type(error).__name__}: {error}"

    def scan(self, call: int, text: str, measured: bool) -> None:
        """One call; `call` is the index of its sample."""
        if self.skipped is not None or self._worker is None:
            return
        try:
            answer = self._worker.ask(call, text, timed=True)
        except WorkerDiedError as error:
            self.skipped = f"gave up in call {call}: {error}"
            return
        if not measured:
            return
        if "error" in answer:
            self.errors[answer["error"]] += 1
            return
        self.samples[call] = answer["wall_ns"] / 1e6
        self.wall_ns += answer["wall_ns"]
        self.cpu_ns += answer["cpu_ns"]
        self.flagged += answer["flagged"]
        if answer["note"]:
            self.notes[answer["note"]] += 1


def measure(runners: Mapping[str, Runner], texts: Sequence[str], rounds: int, block: int) -> None:
    begun = told = time.monotonic()
    for turn in turns(list(runners), rounds * len(texts), block):
        text = texts[turn.index % len(texts)]
        runners[turn.pipeline].scan(turn.index, text, turn.measured)
        if time.monotonic() - told > 15:
            told = time.monotonic()
            done = (turn.index + 1) / (rounds * len(texts))
            print(f"  {done:4.0%}  {told - begun:.0f} s", file=sys.stderr)


def buckets(tokens: Sequence[int]) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Which of the calls are in which bucket; "all" is the natural mix. Empty ones are left out."""
    lengths = np.asarray(tokens)
    found = {"all": np.ones(len(lengths), dtype=np.bool_)}
    for low, high in zip((0, *EDGES), (*EDGES, None), strict=True):
        name = f"{low + 1}-{high}" if high else f"over {low}"
        inside = (lengths > low) & (lengths <= (high or lengths.max()))
        if inside.any():
            found[name] = inside
    return found


def latency_block(
    samples: Samples, ours: Mapping[str, Samples], members: Mapping[str, Any]
) -> dict[str, Any]:
    """By bucket: a summary, and ratios to each of `ours` over the calls that both answered."""
    out: dict[str, Any] = {}
    for bucket, inside in members.items():
        own = samples[inside]
        if np.isnan(own).all():
            continue
        block: dict[str, Any] = {"ms": Summary.of(own[~np.isnan(own)]).to_dict()}
        for name, others in ours.items():
            both = ~np.isnan(own) & ~np.isnan(others[inside])
            if others is samples or not both.any():
                continue
            found = ratio(own[both], others[inside][both], paired=True)
            block.setdefault("times_slower_than", {})[name] = {
                "calls": int(both.sum()), **found.to_dict()
            }  # fmt: skip
        out[bucket] = block
    return out


def system_block(
    runner: Runner, ours: Mapping[str, Samples], members: Mapping[str, Any], tokens: Sequence[int]
) -> dict[str, Any]:
    """What the record says of one system; its samples stay in it even if it gave up."""
    out: dict[str, Any] = {"title": runner.contender.title}
    if runner.skipped is not None:
        out["skipped"] = runner.skipped
    if np.isnan(runner.samples).all():
        return out
    limit = runner.about.get("max_tokens")
    return {
        **out,
        **runner.about,
        "errors": dict(runner.errors),
        "answers_with_notes": dict(runner.notes),
        "flagged": runner.flagged,
        "cut_off": None if limit is None else int((np.asarray(tokens) > limit).sum()),
        "cpu_cores": round(runner.cpu_ns / max(runner.wall_ns, 1), 3),
        "latency": latency_block(runner.samples, ours, members),
        "samples_ms": [None if np.isnan(v) else round(float(v), 4) for v in runner.samples],
    }


def run(options: argparse.Namespace, model: ModelLocation) -> dict[str, Any]:
    """The whole record."""
    texts = sample_corpus(options.mix, options.texts, options.seed)
    tokenizer = Tokenizer.from_file(str(model.directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens = [count(tokenizer, text) for text in texts]
    calls = options.rounds * len(texts)
    load = [load_average()]
    runners = {
        contender.name: Runner(contender, calls)
        for contender in CONTENDERS
        if contender.name in options.only
    }
    with ExitStack() as stack:
        for name, runner in runners.items():
            print(f"starting {name}", file=sys.stderr)
            runner.start(stack, options.peers, model, options.threads)
            if runner.skipped:
                print(f"  not run: {runner.skipped}", file=sys.stderr)
        running = {name: runner for name, runner in runners.items() if runner.skipped is None}
        if running:
            measure(running, texts, options.rounds, options.block)
    ours = {
        name: runner.samples
        for name, runner in runners.items()
        if runner.contender.kind == "ours" and not np.isnan(runner.samples).all()
    }
    lengths = tokens * options.rounds
    members = buckets(lengths)
    return {
        "schema": 1,
        "benchmark": "peers",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_id": model.model_id,
        "hardware": hardware(),
        "load_average": [*load, load_average()],
        "corpus": {
            "name": options.mix.name,
            "sha256": hashlib.sha256(options.mix.read_bytes()).hexdigest(),
            "texts": len(texts),
            "seed": options.seed,
        },
        "settings": {
            "threads": options.threads,
            "rounds": options.rounds,
            "block": options.block,
            "not_asked_for": [c.name for c in CONTENDERS if c.name not in options.only],
        },
        "buckets": {name: int(inside.sum()) for name, inside in members.items()},
        "tokens": tokens,
        "characters": [len(text) for text in texts],
        "systems": {
            name: system_block(runner, ours, members, lengths) for name, runner in runners.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every system ran. 1: one could not be run or gave up (the record says why)."""
    options = parse_arguments(arguments)
    with locate_model(options.model) as model:
        report = run(options, model)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(dump_record(report), encoding="utf-8")
    table = markdown(report)
    options.output.with_suffix(".md").write_text(table, encoding="utf-8")
    write_plots(report, options.output)
    print(table)
    return 1 if any("skipped" in system for system in report["systems"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
