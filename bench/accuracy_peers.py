"""raxe-fast and two other local detectors on the same labelled texts; see README.md.

    python bench/accuracy_peers.py --corpus test.jsonl.gz --output accuracy-peers.json

Needs `pip install ".[train]"` and, the first time, a package index that pip can reach.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hardware import hardware, load_average
from peer_client import PeerWorker, WorkerDiedError, check_probe
from peer_figures import INJECTION_FAMILIES, Verdicts, behind, figures, slices
from peer_install import PEERS, Peer, install, private_environment
from raxe_fast import Scanner
from raxe_fast.training.corpus import Record, read_corpus
from raxe_fast.training.evaluate import sample_records

OURS = "raxe-fast"
WORKER = Path(__file__).with_name("peer_workers.py")
DEFAULT_ROOT = Path(__file__).resolve().parents[1] / "build" / "peers"


def run_peer(peer: Peer, root: Path, texts: Sequence[str]) -> tuple[Verdicts, dict[str, Any]]:
    """The rival's verdicts and how it was run. Raises CalledProcessError if it cannot be
    installed, WorkerDiedError if it does not work."""
    python, packages = install(peer, root)
    folder = root / peer.name
    command = [str(python.absolute()), "-I", str(WORKER), peer.name]
    with PeerWorker(command, private_environment(folder), folder / "worker.log") as worker:
        ready = dict(worker.ready)
        check_probe(peer.title, ready["probe"])
        shown = track(enumerate(texts), description=peer.title, total=len(texts))
        answers = [worker.ask(i, text) for i, text in shown]
    return Verdicts.of(answers), {**ready, "packages": packages}


def run_ours(
    model: Path | None, texts: Sequence[str]
) -> tuple[Verdicts, dict[str, Any], list[int]]:
    """Our verdicts under the default policy, how they came about, and tokens (-1: unknown)."""
    scanner = Scanner(model)
    answers: list[dict[str, Any]] = []
    tokens: list[int] = []
    statuses: Counter[str] = Counter()
    for text in track(texts, description=OURS):
        result = scanner.scan(text)
        statuses[result.status] += 1
        tokens.append(result.tokens if result.status in ("ok", "partial") else -1)
        if result.status == "error":
            answers.append({"error": "status error"})
        else:
            # A degraded scan scores on another scale, which has no place in a ranking.
            score = None if result.status == "degraded" else result.score
            note = None if result.status == "ok" else result.status
            answers.append({"flagged": result.is_threat, "score": score, "note": note})
    about = {
        "call": "Scanner().scan(text)",
        "flagged": "result.is_threat",
        "score": "result.score",
        "model_id": scanner.model.id,
        "first": None if scanner.first is None else scanner.first.id,
        "statuses": dict(statuses),
    }
    return Verdicts.of(answers), about, tokens


def system_block(
    labels: np.ndarray[Any, np.dtype[np.int64]],
    verdicts: Verdicts,
    groups: Mapping[str, Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]],
    records: Sequence[Record],
) -> dict[str, Any]:
    """All figures of one system. Errors are named by line of the corpus, not by text."""
    failed = [i for i, error in enumerate(verdicts.errors) if error]
    out: dict[str, Any] = {
        "errors": {
            "count": len(failed),
            "attack": int(sum(labels[i] == 1 for i in failed)),
            "benign": int(sum(labels[i] == 0 for i in failed)),
            "kinds": dict(Counter(verdicts.errors[i] for i in failed)),
            "lines": [records[i].line for i in failed[:50]],
        },
        "notes": dict(Counter(note for note in verdicts.notes if note)),
    }
    for kind, members in groups.items():
        whole = kind in ("overall", "injection")
        block = {
            name: figures(labels, verdicts, rows, ranking=whole) for name, rows in members.items()
        }
        out[kind] = next(iter(block.values()), None) if whole else block
    return out


def percent(rate: Mapping[str, Any]) -> str:
    if rate["value"] is None:
        return "-"
    low, high = rate["interval"]
    return f"{100 * rate['value']:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def number(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "-"
    span = value["interval"]
    return f"{value['value']:.4f}" + (f" ({span[0]:.3f}-{span[1]:.3f})" if span else "")


def print_tables(report: Mapping[str, Any], console: Console) -> None:
    """One row per system, then the slices in which ours is behind or level."""
    corpus = report["corpus"]
    table = Table(
        "system", "F1", "precision %", "recall %", "FPR %", "AUC", "errors", "injection recall %",
        title=f"{corpus['name']}: {corpus['attack']} attacks, {corpus['benign']} harmless texts",
    )  # fmt: skip
    for name, system in report["systems"].items():
        if "skipped" in system:
            table.add_row(name, f"not run: {system['skipped']}")
            continue
        all_texts, injection = system["overall"], system["injection"]
        table.add_row(
            name, number(all_texts["f1"]), percent(all_texts["precision"]),
            percent(all_texts["recall"]), percent(all_texts["fpr"]), number(all_texts["auc"]),
            str(system["errors"]["count"]),
            percent(injection["recall"]) if injection else "-",
        )  # fmt: skip
    console.print(table)
    table = Table(
        "rival", "slice", "figure", "ours %", "theirs %", "texts", "wins:losses", "p",
        title=f"where {OURS} is behind",
    )  # fmt: skip
    rows = [row for row in report["not_ahead"] if row["standing"] == "behind"]
    for row in rows:
        table.add_row(
            row["rival"], f"{row['kind']}: {row['slice']}", row["figure"],
            f"{100 * row['ours']:.1f}", f"{100 * row['theirs']:.1f}", str(row["texts"]),
            f"{row['wins']}:{row['losses']}", f"{row['p']:.3g}",
        )  # fmt: skip
    if rows:
        console.print(table)
    level = len(report["not_ahead"]) - len(rows)
    console.print(f"{OURS} is behind in {len(rows)} slices and level in {level} (see the record)")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, required=True, help="labelled .jsonl or .jsonl.gz")
    parser.add_argument("--limit", type=int, default=3000, help="texts drawn; 0: all of them")
    parser.add_argument("--seed", type=int, default=20240601)
    parser.add_argument("--output", type=Path, required=True, help="the JSON record")
    parser.add_argument("--model", type=Path, help="raxe-fast model; default: the shipped one")
    parser.add_argument("--peers", type=Path, default=DEFAULT_ROOT, help="virtual environments")
    parser.add_argument(
        "--only", nargs="*", choices=[peer.name for peer in PEERS],
        default=[peer.name for peer in PEERS], help="rivals to run",
    )  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every system ran. 1: a rival could not be run (the record says why)."""
    options = parse_arguments(arguments)
    corpus = read_corpus(options.corpus)
    records = sample_records(corpus.records, options.limit or None, options.seed)
    texts = [record.text for record in records]
    labels = np.array([record.label for record in records], dtype=np.int64)
    load = [load_average()]

    ours, about, tokens = run_ours(options.model, texts)
    groups = slices(records, tokens)
    systems = {OURS: {**about, **system_block(labels, ours, groups, records)}}
    rivals: dict[str, Verdicts] = {}
    for peer in PEERS:
        if peer.name not in options.only:
            continue
        try:
            rivals[peer.title], about = run_peer(peer, options.peers, texts)
        except (subprocess.CalledProcessError, WorkerDiedError) as error:
            systems[peer.title] = {"skipped": str(error)}
            continue
        block = system_block(labels, rivals[peer.title], groups, records)
        systems[peer.title] = {"requirement": peer.requirement, **about, **block}

    report = {
        "corpus": {
            "name": options.corpus.name,
            "sha256": hashlib.sha256(options.corpus.read_bytes()).hexdigest(),
            "records": len(corpus),
            "texts": len(records),
            "attack": int(np.sum(labels == 1)),
            "benign": int(np.sum(labels == 0)),
            "seed": options.seed,
            "injection_families": list(INJECTION_FAMILIES),
        },
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "load_average": [*load, load_average()],
        "systems": systems,
        "not_ahead": behind(labels, ours, rivals, groups),
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    terminal = Console()
    # Through a pipe the width is 80, which cuts the figures off.
    print_tables(report, terminal if terminal.is_terminal else Console(width=170))
    return 1 if any("skipped" in system for system in systems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
