"""`raxe-fast distill`: a corpus and a fine-tuned encoder in, a smaller encoder out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raxe_fast.cli.shared import extras_present, positive
from raxe_fast.cli.tuning import (
    FINETUNE_NEEDS,
    add_tuning_arguments,
    print_entry,
    print_finished,
    tuning_options,
)
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
        "--encoder` takes. The time limit is without the teacher. Needs the [finetune] extra.",
    )
    parser.add_argument(
        "--teacher",
        required=True,
        action="append",
        help="a directory that `raxe-fast finetune` wrote, or a trained model (.raxe); may be "
        "repeated with --beside",
    )
    parser.add_argument("--layers", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--hidden", type=positive, default=128, help="width (default: 128)")
    parser.add_argument("--heads", type=positive, help="default: one for 32 of the width")
    parser.add_argument(
        "--intermediate", type=positive, help="inner units of a layer (default: 4 times the width)"
    )
    parser.add_argument(
        "--leave-out",
        nargs="?",
        type=Path,
        const=True,
        metavar="FILE",
        help="words that the student does not read, one a line; without a file punctuation and "
        "function words, about a third of all tokens (default: it reads all)",
    )
    parser.add_argument(
        "--beside",
        action="store_true",
        help="the teachers read every window along with the student, in every step: for a GPU "
        "(default: one teacher reads the short texts beforehand)",
    )
    parser.add_argument(
        "--unlabelled",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="tokens of windows without labels, made from stretches of the texts, for every token "
        "of the texts themselves; needs --beside (default: none)",
    )
    parser.add_argument("--cache", type=Path, help="where the teacher's embeddings are kept")
    parser.add_argument("--jobs", type=positive, default=2, help="processes for the teacher")
    add_tuning_arguments(parser, epochs=3.0, batch_tokens=8192, rate=1e-3)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Exit code 0 when the student was written, 2 for bad input or missing extras."""
    if not extras_present("distill", "finetune", FINETUNE_NEEDS):
        return 2
    from raxe_fast.training.distill import Shape, distill
    from raxe_fast.training.leave_out import COMMON_TOKENS, read_words

    try:
        shape = Shape(
            args.layers,
            args.hidden,
            args.heads or max(1, args.hidden // 32),
            args.intermediate or 4 * args.hidden,
        )
        words = args.leave_out
        if words is not None:
            words = read_words(COMMON_TOKENS if words is True else words)
        info = distill(
            args.corpus,
            args.teacher,
            args.output,
            shape,
            tuning_options(args),
            work=args.cache,
            jobs=args.jobs,
            resume=args.resume,
            report=print_entry,
            leave_out=words,
            beside=args.beside,
            unlabelled=args.unlabelled,
        )
    except (RaxeFastError, ValueError) as error:
        print(f"raxe-fast: {error}", file=sys.stderr)
        return 2
    print_finished(info, args.output)
    return 0
