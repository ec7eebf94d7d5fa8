"""``raxe-fast version``: what is installed, for bug reports."""

from __future__ import annotations

import argparse
import platform
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    subparsers.add_parser("version", help="show the version and how it was built")


def run(args: argparse.Namespace) -> int:
    from importlib.metadata import version

    from raxe_fast import _core
    from raxe_fast.model import installed_models

    info = _core.build_info()
    print(f"raxe-fast {info.pop('version')}")
    for key, value in info.items():
        if key == "compiled_heads":
            value = f"{len(value)} forests"
        elif isinstance(value, (list, tuple)):
            value = ", ".join(value)
        if value:
            print(f"  {key}: {value}")
    print(f"  python: {platform.python_version()} on {platform.platform()}")
    for package in ("numpy", "onnxruntime", "tokenizers"):
        print(f"  {package}: {version(package)}")
    print(f"  models: {', '.join(installed_models()) or 'none'}")
    return 0
