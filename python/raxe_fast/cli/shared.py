"""What several commands check alike: argument types, and the modules that extras bring."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["add_scanner_arguments", "extras_present", "positive"]


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def extras_present(command: str, extra: str, modules: Sequence[str]) -> bool:
    """Whether all ``modules`` are installed; if not, stderr says which extra brings them."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        print(
            f'raxe-fast {command} needs {", ".join(absent)}: pip install "raxe-fast[{extra}]"',
            file=sys.stderr,
        )
    return not absent


def add_scanner_arguments(parser: argparse.ArgumentParser) -> None:
    """--backend and --no-screening, of commands that scan."""
    parser.add_argument(
        "--backend",
        choices=("auto", "onnxruntime", "native"),
        default="auto",
        help="what runs the encoder (default: what the model was made for; native: one thread)",
    )
    parser.add_argument(
        "--no-screening", action="store_true", help="the large model's encoder reads every window"
    )
