"""`raxe-fast distill`: a corpus and a fine-tuned encoder in, a smaller encoder out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raxe_fast.cli.finetune import FINETUNE_NEEDS, print_entry, print_figures, source_weight
from raxe_fast.cli.shared import extras_present, positive
from raxe_fast.errors import RaxeFastError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

__all__ = ["add_parser", "run"]


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "distill",
        help="distil a fine-tuned encoder into a smaller one",
        description="Train a smaller encoder for the labels of a corpus and for what a fine-tuned "
        "encoder (the teacher) makes of its texts. Writes a directory that `raxe-fast train "
        "--encoder` takes. Needs the [finetune] extra.",
    )
    parser.add_argument(
        "--corpus", required=True, type=Path, help="directory with train and dev .jsonl[.gz]"
    )
    parser.add_argument(
        "--teacher",
        required=True,
        help="a directory that `raxe-fast finetune` wrote, or a trained model (.raxe)",
    )
    parser.add_argument("--output", required=True, type=Path, help="directory to write")
    parser.add_argument("--layers", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--hidden", type=positive, default=128, help="width (default: 128)")
    parser.add_argument("--heads", type=positive, help="default: one for 32 of the width")
    parser.add_argument(
        "--intermediate", type=positive, help="inner units of a layer (default: 4 times the width)"
    )
    parser.add_argument("--epochs", type=float, default=3.0, help="default: %(default)s")
    parser.add_argument("--samples", type=positive, help="texts per epoch (default: all rows)")
    parser.add_argument("--max-tokens", type=positive, default=160, help="default: %(default)s")
    parser.add_argument("--batch-tokens", type=positive, default=8192, help="default: %(default)s")
    parser.add_argument(
        "--rate", type=float, default=1e-3, help="highest learning rate (default: %(default)s)"
    )
    parser.add_argument(
        "--holdout-fold",
        type=int,
        default=4,
        help="fold that the teacher has not seen, -1 for none (default: %(default)s)",
    )
    parser.add_argument("--folds", type=positive, default=10, help="default: %(default)s")
    parser.add_argument("--no-own-texts", action="store_true", help="as for `finetune`")
    parser.add_argument(
        "--source-weight",
        type=source_weight,
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help="as for `finetune`",
    )
    parser.add_argument("--max-minutes", type=float, help="as for `finetune`; without the teacher")
    parser.add_argument("--cache", type=Path, help="where the teacher's embeddings are kept")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's choice)")
    parser.add_argument("--jobs", type=positive, default=2, help="processes for the teacher")
    parser.add_argument("--limit", type=positive, help="records per split, for a quick try")
    parser.add_argument("--resume", action="store_true", help="go on from the output's checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Exit code 0 when the student was written, 2 for bad input or missing extras."""
    if not extras_present("distill", "finetune", FINETUNE_NEEDS):
        return 2
    from raxe_fast.training.distill import FinetuneOptions, Shape, distill
    from raxe_fast.training.folds import Holdout

    try:
        shape = Shape(
            args.layers,
            args.hidden,
            args.heads or max(1, args.hidden // 32),
            args.intermediate or 4 * args.hidden,
        )
        options = FinetuneOptions(
            epochs=args.epochs,
            samples=args.samples,
            max_tokens=args.max_tokens,
            batch_tokens=args.batch_tokens,
            rate=args.rate,
            holdout=Holdout(None if args.holdout_fold == -1 else args.holdout_fold, args.folds),
            own_texts=not args.no_own_texts,
            source_weights=tuple(args.source_weight),
            max_minutes=args.max_minutes,
            device=args.device,
            precision=args.precision,
            threads=args.threads,
            limit=args.limit,
            seed=args.seed,
        )
        info = distill(
            args.corpus,
            args.teacher,
            args.output,
            shape,
            options,
            work=args.cache,
            jobs=args.jobs,
            resume=args.resume,
            report=print_entry,
        )
    except (RaxeFastError, ValueError) as error:
        print(f"raxe-fast: {error}", file=sys.stderr)
        return 2
    print_figures(info)
    print(f"wrote {args.output} after {info['minutes']:.1f} minutes")
    return 0
