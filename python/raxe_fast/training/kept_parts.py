"""Takes the encoder or the screening network out of a trained model as it is, so that heads can be
fitted anew beside it: with more texts, say, or on a corpus of one's own.

They are not tuned further (encoder_restore.py does that): their graphs go into the new model byte
for byte, so neither the base encoder nor torch is needed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from raxe_fast.archive import ModelFiles, open_files, read_checked, read_manifest
from raxe_fast.errors import ModelFormatError
from raxe_fast.feature_data import decode_features
from raxe_fast.manifest import FEATURES_FILE, Manifest, parse_manifest
from raxe_fast.npz import read_npz
from raxe_fast.training.encoder_export import ENCODER_FILE, INFO_FILE, TOKENIZER_FILE
from raxe_fast.training.encoder_restore import is_model, linear_heads
from raxe_fast.training.encoder_source import TOKENIZER
from raxe_fast.training.finetune_output import HEADS_FILE, SCALE, LinearHeads
from raxe_fast.training.folds import FINETUNE_INFO, Holdout

__all__ = ["kept_encoder", "kept_screening", "windows_of_model"]

_Part = Callable[[ModelFiles, Manifest, dict[str, Any]], tuple[str, LinearHeads, dict[str, Any]]]


@contextmanager
def kept_encoder(encoder: Path | str, holdout: Holdout) -> Iterator[str]:
    """The argument itself, or, of a trained model, a temporary directory with its encoder as it was
    exported, and its linear heads. What it has not seen is taken from the manifest; ``holdout``
    where that does not say, and no texts of our own then.

    Raises what loading a model raises, and ModelFormatError for a model without linear heads, whose
    encoder nobody has tuned: name that encoder instead.
    """
    with _kept(encoder, holdout, _encoder_part) as folder:
        yield folder


@contextmanager
def kept_screening(student: Path | str, holdout: Holdout) -> Iterator[str]:
    """Likewise its screening network. Raises ModelFormatError for a model without one."""
    with _kept(student, holdout, _screening_part) as folder:
        yield folder


def windows_of_model(model: Path | str) -> tuple[int, int]:
    """Tokens of a trained model's windows, special ones included, and those shared with the next.
    Raises what loading a model raises."""
    with open_files(Path(model)) as files:
        encoder = parse_manifest(read_manifest(files), files.path).encoder
    return encoder.max_tokens, encoder.overlap_tokens


@contextmanager
def _kept(path: Path | str, holdout: Holdout, part: _Part) -> Iterator[str]:
    if not is_model(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="raxe-kept-") as root, open_files(Path(path)) as files:
        raw = read_manifest(files)
        manifest = parse_manifest(raw, files.path)
        about = json.loads(raw)
        member, heads, changes = part(files, manifest, about)
        folder = Path(root) / "encoder"  # after it caches are named
        folder.mkdir()
        for name, source in ((ENCODER_FILE, member), (TOKENIZER_FILE, TOKENIZER)):
            (folder / name).write_bytes(read_checked(files, source, manifest.files[source]))
        tuned = {"holdout": holdout.to_dict(), "own_sources": [], **changes.pop("tuned", {})}
        info = {**about["encoder"], **changes}
        for name, content in (
            (INFO_FILE, info),
            (FINETUNE_INFO, {"restored_from": manifest.id, **tuned}),
        ):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        heads.save(folder / HEADS_FILE)
        yield str(folder)


def _encoder_part(
    files: ModelFiles, manifest: Manifest, about: dict[str, Any]
) -> tuple[str, LinearHeads, dict[str, Any]]:
    if FEATURES_FILE not in manifest.files:
        raise ModelFormatError(
            "a model without linear heads: name its base encoder instead",
            path=files.path,
            member=FEATURES_FILE,
        )
    content = read_checked(files, FEATURES_FILE, manifest.files[FEATURES_FILE])
    spec = manifest.encoder
    try:
        heads = linear_heads(decode_features(content, spec.hidden_size))
    except (ValueError, KeyError, IndexError) as error:
        message = f"cannot be read: {error}"
        raise ModelFormatError(message, path=files.path, member=FEATURES_FILE) from error
    return spec.file, heads, {"tuned": about["encoder"].get("tuned", {})}


def _screening_part(
    files: ModelFiles, manifest: Manifest, about: dict[str, Any]
) -> tuple[str, LinearHeads, dict[str, Any]]:
    spec = manifest.screening
    if spec is None:
        raise ModelFormatError("a model without a screening network", path=files.path)
    try:
        arrays = read_npz(read_checked(files, spec.heads, manifest.files[spec.heads]))
        heads = LinearHeads(
            # The file holds the weights times the scale, a power of two: nothing is lost.
            scale=SCALE,
            binary_weight=(arrays["linear_weight"] / np.float32(SCALE)).astype(np.float32),
            binary_bias=float(arrays["linear_bias"]),
            family_weight=np.zeros((0, spec.hidden_size), np.float32),
            family_bias=np.zeros(0, np.float32),
            subfamily_weight=np.zeros((0, spec.hidden_size), np.float32),
            subfamily_bias=np.zeros(0, np.float32),
            families=(),
            subfamilies=(),
            evidence_weight=arrays["passage_weight"],
            evidence_bias=float(arrays["passage_bias"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        message = f"cannot be read: {error}"
        raise ModelFormatError(message, path=files.path, member=spec.heads) from error
    return (
        spec.file,
        heads,
        {
            "hidden_size": spec.hidden_size,
            "layers": spec.layers,
            "pair_rows": 0,
            # Models of before do not say it here; the network was made beside their encoder.
            "tuned": about["screening"].get("tuned", about["encoder"].get("tuned", {})),
        },
    )
