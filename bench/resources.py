"""Cold start, memory, CPU time and size on disk, each measured in processes of their own."""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROBE = Path(__file__).with_name("probe.py")


def _probe(*arguments: str) -> dict[str, Any]:
    """Runs probe.py away from the repository, so that only the installed package is found."""
    done = subprocess.run(
        [sys.executable, str(PROBE), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tempfile.gettempdir(),
    )
    if done.returncode != 0:
        raise RuntimeError(f"probe {arguments[0]} failed:\n{done.stderr}")
    out: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return out


def _spread(values: list[float]) -> dict[str, object]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
        "first": round(values[0], 2),
        "runs": len(values),
    }


def cold_start(model: str, backend: str, text: str, runs: int) -> dict[str, Any]:
    """`import raxe_fast`, and import + load + first scan, in `runs` fresh processes each.

    The page cache is warm from the second run on; the first run's figures stand beside the median.
    """
    imports = [_probe("import") for _ in range(runs)]
    firsts = [_probe("first", model, backend, text) for _ in range(runs)]
    return {
        "unit": "ms",
        "import": _spread([run["import_ms"] for run in imports]),
        "import_load_first_scan": _spread([run["total_ms"] for run in firsts]),
        "load": _spread([run["load_ms"] for run in firsts]),
        "first_scan": _spread([run["scan_ms"] for run in firsts]),
    }


def steady(backend: str, model: str, texts: list[str], scans: int) -> dict[str, Any]:
    """Memory, CPU time and rate of `scans` scans of `texts`, one thread, in a fresh process.

    backend: raxe-fast's, or "reference"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        write_texts(path, texts)
        return _probe("steady", backend, model, str(scans), str(path))


def write_texts(path: Path, texts: Sequence[str]) -> None:
    """As probe.py reads them: one JSON string per line."""
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")


def _model_bytes(model: Path) -> int:
    """Of the members that the manifest lists: reports and archives may lie beside them."""
    manifest = model / "manifest.json"
    names = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    return manifest.stat().st_size + sum((model / name).stat().st_size for name in names)


def sizes(model: Path, archive: Path | None, wheel: Path | None) -> dict[str, float | None]:
    """MB (10^6 bytes) on disk: model directory, .raxe, wheel, and the installed package's files.

    None stands for what there is not: `archive`, `wheel`, an installed package.
    """
    return {
        "model_directory": _model_bytes(model) / 1e6,
        "model_archive": archive.stat().st_size / 1e6 if archive else None,
        "wheel": wheel.stat().st_size / 1e6 if wheel else None,
        "installed_package": _installed_mb(),
    }


def _installed_mb() -> float | None:
    """None where the package runs from a source tree."""
    try:
        files = importlib.metadata.files("raxe-fast") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(entry.locate())) for entry in files]
    # Byte code is the interpreter's, and comes and goes.
    return sum(p.stat().st_size for p in paths if p.suffix != ".pyc" and p.exists()) / 1e6
