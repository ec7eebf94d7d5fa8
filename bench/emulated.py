"""The same texts on another processor, emulated: are kernels, scores and verdicts the same?

    python bench/emulated.py --corpus ../shared/data/test.jsonl.gz --texts 40 --output emulated.json

Needs `qemu-x86_64` (Debian: qemu-user). The installed package scans once as it is and once under
emulation of a processor that has AVX2 and nothing later: what looks for later instructions must not
find them, and what runs are the kernels of AVX2. Two readings a text, by the pair and by the large
model; 20 seconds to start and one a text.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import raxe_fast
from hardware import hardware
from raxe_fast import Policy, Scanner, _core
from raxe_fast.training.corpus import read_corpus
from records import dump_record

EMULATOR = "qemu-x86_64"


def scan_all(texts: Sequence[str], models: dict[str, str]) -> dict[str, Any]:
    """What the pair and its large model alone say of each text, and the kernels they run on."""
    scanner = Scanner(**models)
    rows = []
    for text in texts:
        for policy in (Policy(), Policy(screening=False)):
            result = scanner.scan(text, policy=policy)
            rows.append(
                {
                    "action": result.action,
                    "family": result.family,
                    "model": result.model_id,
                    "status": result.status,
                    "score": result.score,
                    "window_scores": list(result.window_scores),
                }
            )
    return {"isa": _core.isa(), "version": raxe_fast.__version__, "results": rows}


def run(command: Sequence[str]) -> dict[str, Any]:
    """The results of a process, whose complaints are shown where it fails: the emulator warns of
    every feature that it lacks, thread by thread."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """How far the results of one run are from those of another."""
    pairs = list(zip(here["results"], there["results"], strict=True))
    names = ("action", "family", "model", "status")
    differences = [abs(a["score"] - b["score"]) for a, b in pairs]
    return {
        "scans": len(pairs),
        "blocked": sum(a["action"] == "block" for a, _ in pairs),
        "verdicts_that_differ": sum(any(a[n] != b[n] for n in names) for a, b in pairs),
        "same_scores_to_the_bit": sum(a == b for a, b in pairs),
        "largest_difference_of_scores": max(differences, default=0.0),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="JSON Lines; a sample of it is scanned")
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--cpu", default="Broadwell", help="a processor of qemu's")
    parser.add_argument("--model", help="the large model (default: the shipped pair)")
    parser.add_argument("--first", help="the small model before it")
    parser.add_argument("--output", type=Path, help="the record")
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)  # what the two runs do
    options = parser.parse_args(arguments)
    models = {name: value for name in ("model", "first") if (value := getattr(options, name))}
    if options.scan is not None:
        print(json.dumps(scan_all(json.loads(options.scan.read_text("utf-8")), models)))
        return 0
    if options.corpus is None or options.output is None:
        parser.error("--corpus and --output are needed")
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        parser.error(f"there is no {EMULATOR} here (Debian: apt-get install qemu-user)")
    records = read_corpus(options.corpus).records
    chosen = np.random.default_rng(0).permutation(len(records))[: options.texts]
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps([records[i].text for i in chosen]), encoding="utf-8")
        command = [sys.executable, __file__, "--scan", str(texts)]
        for name, value in models.items():
            command += [f"--{name}", value]
        runs = [run(prefix + command) for prefix in ([], [emulator, "-cpu", options.cpu])]
    here, there = runs
    found = compare(here, there)
    print(f"{here['isa']} here, {there['isa']} on an emulated {options.cpu}: {found}")
    record = {
        "hardware": hardware(),
        "cpu": options.cpu,
        "isa": [here["isa"], there["isa"]],
        "texts": len(chosen),
        **found,
    }
    options.output.write_text(dump_record(record), encoding="utf-8")
    return int(found["verdicts_that_differ"] > 0)


if __name__ == "__main__":
    sys.exit(main())
