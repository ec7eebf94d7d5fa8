"""`raxe-fast audit`: which labels of a corpus the model doubts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from raxe_fast.cli.shared import extras_present, positive
from raxe_fast.errors import RaxeFastError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

__all__ = ["add_parser", "run"]


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "audit",
        help="find doubtful labels in a corpus",
        description="Scan a labelled corpus and rank the labels that the model doubts, by "
        "confident learning. Only texts the model has not learnt from say much: test, or dev; of a "
        "training corpus name the fold that fine-tuning held out, which heads were fitted on all "
        "the same (what is found there is a lower bound). Needs the [audit] extra.",
    )
    parser.add_argument("--corpus", required=True, type=Path, help=".jsonl or .jsonl.gz file")
    parser.add_argument("--model", help="model directory, .raxe or installed id")
    parser.add_argument(
        "--holdout", nargs=2, type=int, metavar=("FOLD", "FOLDS"),
        help="audit this fold alone, e.g. 4 10",
    )  # fmt: skip
    parser.add_argument("--sample", type=positive, help="audit a random sample of this size")
    parser.add_argument(
        "--output", type=Path, help="write figures and suspects as JSON (ids and lines, no texts)"
    )
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Exit code 0, or 2 for a bad corpus or model, or missing extras."""
    if not extras_present("audit", "audit", ("cleanlab",)):
        return 2
    import sys

    from rich.console import Console
    from rich.table import Table

    from raxe_fast import Policy, Scanner
    from raxe_fast.training.audit import audit
    from raxe_fast.training.corpus import read_corpus
    from raxe_fast.training.evaluate import ALL_FAMILIES_WARN, sample_records, scan_records
    from raxe_fast.training.folds import Holdout

    errors = Console(stderr=True, highlight=False)
    try:
        records = read_corpus(args.corpus).records
        if args.holdout is not None:
            holdout = Holdout(*args.holdout)
            records = [record for record in records if holdout.contains(record)]
        with Scanner(args.model, first=None) as scanner:
            outcomes = scan_records(
                scanner,
                sample_records(records, args.sample, 0),
                Policy(warn_threshold=ALL_FAMILIES_WARN, screening=False),
                warn_threshold=1.0,
                progress=sys.stderr.isatty(),
            )
        suspects, figures = audit(outcomes.records, outcomes.scores)
    except (RaxeFastError, ValueError) as error:
        errors.print(f"error: {error}", markup=False)
        return 2
    if args.output is not None:
        content = {**figures, "suspects": [asdict(suspect) for suspect in suspects]}
        args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    table = Table("source", "suspects", "texts", "share", title="doubtful labels by source")
    for name, row in list(figures["by_source"].items())[:30]:
        table.add_row(name, str(row["suspects"]), str(row["texts"]), f"{100 * row['share']:.1f} %")
    console = Console()
    console.print(table)
    share = figures["suspect_share"]
    console.print(
        f"{figures['suspects']} of {figures['texts']} labels are doubtful: "
        f"{100 * share['attack']:.1f} % of the attacks, {100 * share['harmless']:.1f} % of the "
        f"harmless texts; were all of them wrong, a perfect judge would reach F1 "
        f"{figures['f1_ceiling_if_all_were_wrong']:.3f} against these labels",
        highlight=False,
    )
    return 0
