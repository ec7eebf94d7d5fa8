"""--first and what goes with it, of commands that scan."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from raxe_fast.first import ASK_BELOW, ASK_FROM

if TYPE_CHECKING:
    from raxe_fast import Scanner

__all__ = [
    "add_first_arguments",
    "first_given",
    "first_misused",
    "open_scanner",
    "probability",
]


def add_first_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--first",
        metavar="MODEL",
        help="a small model that answers where it is sure, so that --model is asked about the rest "
        "alone; none: --model reads everything (default: the shipped small one, none with --model)",
    )
    parser.add_argument(
        "--ask-from",
        type=probability,
        help=f"the small model's score from which the other is asked (default {ASK_FROM:g})",
    )
    parser.add_argument(
        "--ask-below",
        type=probability,
        help=f"and below which it is asked (default {ASK_BELOW:g})",
    )


def first_given(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of it; the rest has the defaults of Scanner. Without screening there is no
    small model, either, unless one is named."""
    names = ("first", "ask_from", "ask_below")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if given.get("first", "none" if args.no_screening else "auto") == "none":
        given["first"] = None
    return given


def first_misused(args: argparse.Namespace, command: str) -> bool:
    """Whether settings of a small model were given where there is none; stderr says so then."""
    named = args.model is not None or args.no_screening
    alone = args.first == "none" or (args.first is None and named)
    if not alone or (args.ask_from is None and args.ask_below is None):
        return False
    print(f"raxe-fast {command}: --ask-from and --ask-below need --first", file=sys.stderr)
    return True


def open_scanner(args: argparse.Namespace, **settings: Any) -> Scanner:
    """The scanner that the arguments ask for."""
    from raxe_fast import Scanner

    return Scanner(args.model, **first_given(args), **settings)


def probability(value: str) -> float:
    number = float(value)
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"{value} is not in [0, 1]")
    return number
