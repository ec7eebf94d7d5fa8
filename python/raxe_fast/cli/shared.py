"""What several commands check alike: argument types, and the modules that extras bring."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["extras_present", "positive"]


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
