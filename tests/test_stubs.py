"""The committed stub python/raxe_fast/_core.pyi is what nanobind says of the built module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUB = ROOT / "python" / "raxe_fast" / "_core.pyi"
PATTERNS = ROOT / "cpp" / "bindings" / "stub_patterns.txt"


def test_stub_is_up_to_date(tmp_path: Path) -> None:
    stubgen = pytest.importorskip("nanobind.stubgen", reason="nanobind is not installed")
    fresh = tmp_path / "_core.pyi"
    # In a process of its own: the generator sets an environment variable and changes sys.path.
    command = [sys.executable, "-m", stubgen.__name__, "-q", "-m", "raxe_fast._core"]
    subprocess.run([*command, "-p", PATTERNS, "-o", fresh], check=True, cwd=tmp_path)
    assert fresh.read_text(encoding="utf-8") == STUB.read_text(encoding="utf-8"), (
        "stale: python -m nanobind.stubgen -m raxe_fast._core "
        "-p cpp/bindings/stub_patterns.txt -o python/raxe_fast/_core.pyi"
    )


def test_package_is_marked_as_typed() -> None:
    assert STUB.with_name("py.typed").is_file()
