"""--cascade and what goes with it, of commands that scan."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raxe_fast import Scanner

__all__ = [
    "add_cascade_arguments",
    "cascade_given",
    "cascade_misused",
    "open_scanner",
    "probability",
]


def add_cascade_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cascade",
        action="store_true",
        help="a small model answers where it is sure, the other the rest: a fraction of the time",
    )
    parser.add_argument(
        "--first", metavar="MODEL", help="the small model of --cascade (default raxe-mini-v5)"
    )
    parser.add_argument(
        "--ask-from",
        type=probability,
        help="with --cascade: the small model's score from which the other is asked (default 0.4)",
    )
    parser.add_argument(
        "--ask-below",
        type=probability,
        help="with --cascade: and below which it is asked (default 0.9)",
    )


def cascade_given(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of a cascade alone; the rest has the defaults of Cascade."""
    given = {name: getattr(args, name) for name in ("first", "ask_from", "ask_below")}
    return {name: value for name, value in given.items() if value is not None}


def cascade_misused(args: argparse.Namespace, command: str) -> bool:
    """Whether settings of a cascade were given without --cascade; stderr says so then."""
    if args.cascade or not cascade_given(args):
        return False
    message = f"raxe-fast {command}: --first, --ask-from and --ask-below need --cascade"
    print(message, file=sys.stderr)
    return True


def open_scanner(args: argparse.Namespace, **settings: Any) -> Scanner:
    """The scanner that the arguments ask for, or the cascade; ``settings`` are of either."""
    from raxe_fast import Cascade, Scanner

    if args.cascade:
        return Cascade(args.model, **cascade_given(args), **settings)
    return Scanner(args.model, **settings)


def probability(value: str) -> float:
    number = float(value)
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"{value} is not in [0, 1]")
    return number
