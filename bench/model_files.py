"""Where the model under test lies, and its forests as plain arrays."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raxe_fast.manifest import is_safe_member
from raxe_fast.model import resolve
from raxe_fast.treelite_reader import ForestArrays, read_treelite

REPOSITORY = Path(__file__).resolve().parents[1]
HEADS = ("binary", "family", "subfamily")
__all__ = [
    "HEADS",
    "ForestArrays",
    "ModelLocation",
    "features_of",
    "forest_arrays",
    "locate_model",
]


def features_of(manifest: Mapping[str, Any]) -> dict[str, int]:
    """The blocks of the rows that the forests see and their lengths; for the records."""
    blocks = manifest.get("features") or [
        {"name": "embedding", "size": manifest["encoder"]["hidden_size"]}
    ]
    return {str(block["name"]): int(block["size"]) for block in blocks}


def forest_arrays(model: Path, head: str) -> ForestArrays:
    """The forest of `head` ("binary", "family" or "subfamily") of a model directory."""
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    data = (model / manifest["heads"][head]["file"]).read_bytes()
    return read_treelite(data)


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """`given` goes to Scanner (None: the shipped model); `directory` holds the members.

    `archive` is the .raxe and `report` the accuracy report, where there is one.
    """

    model_id: str
    given: Path | None
    directory: Path
    archive: Path | None
    report: Path | None


@contextmanager
def locate_model(given: Path | None) -> Iterator[ModelLocation]:
    """A model directory or .raxe (unpacked for the time of the context); None: the shipped one.

    Raises raxe_fast.ModelNotFoundError if there is none.
    """
    path = resolve(given)
    with tempfile.TemporaryDirectory() as folder:
        archive: Path | None = None
        directory = path
        if path.is_file():
            archive, directory = path, Path(folder)
            unpack(archive, directory)
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        model_id = str(manifest["id"])
        shipped = REPOSITORY / "models" / model_id
        if archive is None and (shipped / f"{model_id}.raxe").is_file():
            archive = shipped / f"{model_id}.raxe"
        # absolute(): the probes run in another working directory.
        yield ModelLocation(
            model_id=model_id,
            given=given.absolute() if given else None,
            directory=directory.absolute(),
            archive=archive,
            report=_report(path.parent if path.is_file() else path, shipped),
        )


def unpack(archive: Path, directory: Path) -> None:
    """Raises ValueError for a member that would leave `directory`."""
    with zipfile.ZipFile(archive) as members:
        for name in members.namelist():
            if not is_safe_member(name):
                raise ValueError(f"{archive.name}: unsafe member {name!r}")
        members.extractall(directory)


def _report(*folders: Path) -> Path | None:
    found = (folder / "report.json" for folder in folders)
    return next((path for path in found if path.is_file()), None)
