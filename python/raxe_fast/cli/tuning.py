"""What `finetune` and `distill` share: arguments, options, and what they print."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raxe_fast.cli.shared import positive

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from raxe_fast.training.finetune_options import FinetuneOptions

__all__ = [
    "FINETUNE_NEEDS",
    "add_tuning_arguments",
    "print_entry",
    "print_finished",
    "tuning_options",
]

FINETUNE_NEEDS = ("torch", "transformers", "sklearn", "scipy", "treelite", "onnx", "safetensors")
_FIGURES = ("auc", "f1", "fpr", "fnr", "recall_at_fpr_0.01", "family_accuracy")


def add_tuning_arguments(
    parser: ArgumentParser, *, epochs: float, batch_tokens: int, rate: float
) -> None:
    """The arguments of :func:`tuning_options`, --corpus, --output and --resume; the defaults that
    differ are given."""
    parser.add_argument(
        "--corpus", required=True, type=Path, help="directory with train and dev .jsonl[.gz]"
    )
    parser.add_argument("--output", required=True, type=Path, help="directory to write")
    parser.add_argument("--epochs", type=float, default=epochs, help="default: %(default)s")
    parser.add_argument(
        "--samples", type=positive, help="texts drawn per epoch (default: the number of rows)"
    )
    parser.add_argument(
        "--max-tokens", type=positive, default=160, help="tokens per window (default: %(default)s)"
    )
    parser.add_argument(
        "--long-tokens",
        type=positive,
        default=256,
        help="tokens per window in every --long-every-th section, at least --max-tokens "
        "(default: %(default)s)",
    )
    parser.add_argument("--long-every", type=positive, default=5, help="default: %(default)s")
    parser.add_argument(
        "--overlap-tokens",
        type=int,
        help="learn from whole texts, cut into windows of --max-tokens that share so many, as the "
        "scanner will cut them; the worst stands for its text (default: from a window a draw)",
    )
    parser.add_argument(
        "--text-tokens",
        type=positive,
        default=1000,
        help="of a longer text a stretch, with --overlap-tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--pair-rows",
        type=positive,
        default=0,
        help="give an encoder that has none so many rows for pairs of neighbouring tokens: for "
        "networks of one or two layers, to which they are worth a layer (default: none)",
    )
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=batch_tokens,
        help="tokens per step (default: %(default)s)",
    )
    parser.add_argument(
        "--rate", type=float, default=rate, help="highest learning rate (default: %(default)s)"
    )
    parser.add_argument(
        "--dropout", type=float, default=0.0, help="default: %(default)s; long runs want 0.1"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.04,
        help="share of tokens replaced by others (default: %(default)s)",
    )
    parser.add_argument(
        "--holdout-fold",
        type=int,
        default=4,
        help="fold that no encoder sees, -1 for none; a teacher's where there is one "
        "(default: %(default)s)",
    )
    parser.add_argument("--folds", type=positive, default=10, help="default: %(default)s")
    parser.add_argument(
        "--no-own-texts", action="store_true", help="leave out the texts that raxe-fast brings"
    )
    parser.add_argument(
        "--source-weight",
        type=_source_weight,
        action="append",
        default=[],
        metavar="NAME=WEIGHT",
        help="draw the sources whose names begin so, 'own:' for the texts that raxe-fast brings, "
        "WEIGHT times as often; may be repeated",
    )
    parser.add_argument(
        "--mine-pool",
        type=positive,
        default=6000,
        help="harmless texts scored again after each epoch, to draw the hard ones more often "
        "(default: %(default)s)",
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


def tuning_options(args: Namespace) -> FinetuneOptions:
    """The options that those arguments ask for. Raises ValueError for values out of range."""
    from raxe_fast.training.finetune_options import FinetuneOptions
    from raxe_fast.training.folds import Holdout

    return FinetuneOptions(
        epochs=args.epochs,
        samples=args.samples,
        max_tokens=args.max_tokens,
        long_tokens=args.long_tokens,
        long_every=args.long_every,
        overlap_tokens=args.overlap_tokens,
        text_tokens=args.text_tokens,
        pair_rows=args.pair_rows,
        batch_tokens=args.batch_tokens,
        rate=args.rate,
        dropout=args.dropout,
        noise=args.noise,
        holdout=Holdout(None if args.holdout_fold == -1 else args.holdout_fold, args.folds),
        own_texts=not args.no_own_texts,
        source_weights=tuple(args.source_weight),
        mine_pool=args.mine_pool,
        max_minutes=args.max_minutes,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
        limit=args.limit,
        seed=args.seed,
    )


def _source_weight(argument: str) -> tuple[str, float]:
    """NAME=WEIGHT; for argparse."""
    name, equals, weight = argument.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not name or not equals or not value > 0:
        raise ArgumentTypeError(f"expected NAME=WEIGHT with a positive weight, not {argument!r}")
    return name, value


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


def print_finished(info: Mapping[str, Any], output: Path) -> None:
    """The figures of a finished run, one line a split, and where its result is."""
    for split, figures in info["figures"].items():
        print(f"{split}: {_figures(figures)}")
    print(f"wrote {output} after {info['minutes']:.1f} minutes")


def _figures(figures: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{name} {figures[name]:.4f}" for name in _FIGURES if figures.get(name) is not None
    )
