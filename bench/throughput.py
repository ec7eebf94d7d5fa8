"""Texts per second per core over the natural mix: `Scanner.scan` in a loop and `scan_iter`.

    python bench/throughput.py --mix ../shared/data/test.jsonl.gz --output throughput.json

Both backends, several batch sizes, one process and several at a time, one thread and several in a
process. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from hardware import hardware, load_average
from model_files import locate_model
from records import dump_record
from resources import PROBE, write_texts
from texts import count, default_mix, sample_corpus

REPOSITORY = Path(__file__).resolve().parents[1]
BACKENDS = ("onnxruntime", "native")
GOAL = 2000.0  # texts per second per core


@dataclass(frozen=True, slots=True)
class Way:
    """A way to scan a file of texts; `batch` 0 is `scan` in a loop. `workers`: threads of each of
    the processes."""

    backend: str
    batch: int
    processes: int
    workers: int = 1

    @property
    def name(self) -> str:
        call = f"scan_iter, batch {self.batch}" if self.batch else "scan in a loop"
        if self.workers > 1:
            call += f", {self.workers} workers"
        return f"{self.backend}, {call}, {self.processes} process{'es'[: 2 * (self.processes > 1)]}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mix", type=Path, default=default_mix(REPOSITORY), help="JSON Lines")
    parser.add_argument("--texts", type=int, default=1000, help="texts drawn from the mix")
    parser.add_argument("--seed", type=int, default=20240601)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way, interleaved")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[0, 1, 8, 32], help="0: scan in a loop"
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="at a time")
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[2], help="threads of one process, also measured"
    )
    parser.add_argument("--model", type=Path, help="model directory or .raxe (default: shipped)")
    parser.add_argument("--output", type=Path, required=True, help="the JSON record")
    options = parser.parse_args(arguments)
    least = min(options.texts, options.rounds, *options.processes, *options.workers)
    if least < 1 or min(options.batches) < 0:
        parser.error(
            "--texts, --rounds, --processes and --workers must be at least 1, --batches at least 0"
        )
    return options


def run_once(way: Way, model: str, texts: Path) -> list[dict[str, Any]]:
    """What each of the processes measured; all of them begin together, once all are loaded, and
    each scans all of the texts. Raises RuntimeError where one fails."""
    command = [sys.executable, str(PROBE), "stream", way.backend, model, str(way.batch),
               str(way.workers), str(texts)]  # fmt: skip
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=tempfile.gettempdir(),
                )
            )
            for _ in range(way.processes)
        ]
        # A process killed by an error here would wait on its stdin for ever otherwise.
        for process in running:
            stack.callback(process.kill)
        for process in running:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{way.name}: a process did not get ready")
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        out = []
        for process in running:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{way.name}: a process died")
            out.append(json.loads(line))
    return out


def rates(way: Way, runs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Texts per second of each round: of all processes together, per thread of one (a core each, as
    long as there are cores), and per second of CPU time, which other processes' load does not
    change as much. `value` is the median of the rounds."""
    together = [sum(p["texts"] / (p["wall_ms"] / 1e3) for p in run) for run in runs]
    per_cpu_second = [
        sum(p["texts"] for p in run) / (sum(p["cpu_ms"] for p in run) / 1e3) for run in runs
    ]

    def spread(values: Sequence[float]) -> dict[str, Any]:
        shown = [round(value, 2) for value in values]
        return {"value": round(statistics.median(values), 2), "rounds": shown}

    return {
        "backend": way.backend,
        "batch": way.batch,
        "processes": way.processes,
        "workers": way.workers,
        "texts_per_second": spread(together),
        "texts_per_second_per_core": spread(
            [value / (way.processes * way.workers) for value in together]
        ),
        "texts_per_cpu_second": spread(per_cpu_second),
        "peak_rss_mb": max(p["memory"]["VmHWM"] for run in runs for p in run),
        "not_ok": sum(p["not_ok"] for p in runs[0]),
    }


def print_table(report: dict[str, Any]) -> None:
    terminal = Console()
    table = Table(title=f"texts per second, median of {report['settings']['rounds']} rounds")
    table.add_column("way")
    for name in ("all processes", "per core", "per CPU second", "peak RSS MB"):
        table.add_column(name, justify="right")
    for name, found in report["ways"].items():
        table.add_row(
            name,
            f"{found['texts_per_second']['value']:.1f}",
            f"{found['texts_per_second_per_core']['value']:.1f}",
            f"{found['texts_per_cpu_second']['value']:.1f}",
            f"{found['peak_rss_mb']:.0f}",
        )
    (terminal if terminal.is_terminal else Console(width=132)).print(table)
    best = report["best_per_core"]
    terminal.print(f"best per core: {best['value']:.1f} ({best['way']}), goal > {GOAL:g}")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    texts = sample_corpus(options.mix, options.texts, options.seed)
    ways = [
        Way(backend, batch, processes)
        for processes in dict.fromkeys(options.processes)
        for backend in dict.fromkeys(options.backends)
        for batch in dict.fromkeys(options.batches)
    ]
    ways += [
        Way(backend, 1, 1, workers)
        for backend in dict.fromkeys(options.backends)
        for workers in dict.fromkeys(options.workers)
        if workers > 1
    ]
    load = [load_average()]
    runs: dict[Way, list[list[dict[str, Any]]]] = {way: [] for way in ways}
    with locate_model(options.model) as model, tempfile.TemporaryDirectory() as folder:
        tokenizer = Tokenizer.from_file(str(model.directory / "tokenizer.json"))
        tokenizer.no_truncation()
        tokens = sum(count(tokenizer, text) for text in texts)
        path = Path(folder) / "texts.jsonl"
        write_texts(path, texts)
        given = str(model.given) if model.given else ""
        for number in range(options.rounds):
            # Each round begins with another way, so that none always runs on a warmer machine.
            for way in (*ways[number % len(ways) :], *ways[: number % len(ways)]):
                print(f"round {number + 1}: {way.name}", file=sys.stderr)
                runs[way].append(run_once(way, given, path))
        model_id = model.model_id
    found = {way.name: rates(way, runs[way]) for way in ways}
    best = max(found, key=lambda name: found[name]["texts_per_second_per_core"]["value"])
    value = found[best]["texts_per_second_per_core"]["value"]
    report = {
        "schema": 1,
        "benchmark": "throughput",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_id": model_id,
        "hardware": hardware(),
        "load_average": [*load, load_average()],
        "settings": {
            "corpus": options.mix.name,
            "texts": len(texts),
            "tokens": tokens,
            "seed": options.seed,
            "rounds": options.rounds,
            "threads": 1,
        },
        "ways": found,
        "best_per_core": {"way": best, "value": value, "above": GOAL, "met": value > GOAL},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(dump_record(report), encoding="utf-8")
    print_table(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
