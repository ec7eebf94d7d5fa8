"""Loading a model: every file is verified before it is used, and the model before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeVar

import raxe_fast
from raxe_fast import _core
from raxe_fast.ahead import Ahead
from raxe_fast.archive import open_files, read_checked, read_manifest
from raxe_fast.errors import ModelError, ModelFormatError, ModelNotFoundError
from raxe_fast.feature_data import FeatureData, core_features, decode_features, feature_sizes
from raxe_fast.manifest import FEATURES_FILE, HEADS, Manifest, parse_manifest, row_size
from raxe_fast.parts import (
    PLAIN_INPUTS,
    CalibrationData,
    ClusterData,
    SelfTest,
    TriggerInfo,
    decode_calibration,
    decode_clusters,
    decode_selftest,
    decode_triggers,
)
from raxe_fast.screening import ScreeningHeads, decode_screening_heads
from raxe_fast.selftest import check_forests

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["DEFAULT_MODEL", "ForestKind", "Model", "installed_models", "load_model", "resolve"]

DEFAULT_MODEL = "raxe-l6-v7"
ForestKind = Literal["auto", "compiled", "packed"]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, repr=False)
class Model:
    """A verified model. Immutable; may be shared by scanners and threads.

    ``encoder_onnx``, ``screening_onnx`` (empty without screening) and ``tokenizer_json`` are the
    very bytes whose hashes were checked.
    ``forest_kinds`` says per head whether it is ``"compiled"`` or ``"packed"``.
    """

    path: str
    manifest: Manifest
    scorer: _core.Scorer
    calibration: CalibrationData
    triggers: tuple[TriggerInfo, ...]
    clusters: ClusterData
    selftest: SelfTest
    forest_kinds: dict[str, str]
    encoder_onnx: bytes = field(repr=False)
    tokenizer_json: bytes = field(repr=False)
    features: _core.Features | None = None
    screening_heads: ScreeningHeads | None = None
    screening_onnx: bytes = field(repr=False, default=b"")

    @property
    def id(self) -> str:
        return self.manifest.id

    def __repr__(self) -> str:
        return f"<raxe_fast model {self.id!r} from {self.path!r}>"

    def threshold_for(self, *, fpr: float) -> float:
        """Lowest threshold whose false-positive rate on development data is at most ``fpr``.

        Rates below ``1 / benign`` texts of that data rest on a handful of them. Raises
        ``ValueError`` if ``fpr`` is not in (0, 1) or no stored threshold reaches it.
        """
        if not 0.0 < fpr < 1.0:
            raise ValueError(f"fpr must be in (0, 1), not {fpr!r}")
        curve = self.calibration.curve
        reached = [t for t, rate in zip(curve.thresholds, curve.fpr, strict=True) if rate <= fpr]
        if not reached:
            raise ValueError(f"no threshold reaches fpr={fpr} on the model's development data")
        return min(reached)


def installed_models() -> dict[str, Path]:
    """Models that came with the package: id -> directory (or ``.raxe`` file)."""
    # An editable install has two folders: the sources, and what the build made.
    roots = [Path(folder) / "models" for folder in raxe_fast.__path__]
    return {
        entry.name.removesuffix(".raxe"): entry
        for root in roots
        if root.is_dir()
        for entry in sorted(root.iterdir())
        if entry.suffix == ".raxe" or (entry / "manifest.json").is_file()
    }


def resolve(model: str | PathLike[str] | None = None) -> Path:
    """Where a model is: a path as it stands, else the id of an installed one; ``None`` is the
    default model. Raises ``ModelNotFoundError``."""
    if model is not None:
        path = Path(model)
        if path.exists():
            return path
    installed = installed_models()
    name = DEFAULT_MODEL if model is None else str(model)
    if name in installed:
        return installed[name]
    if model is None:
        raise ModelNotFoundError(
            f"the default model {name} is not installed with this package: pass a model, or train "
            "one with `raxe-fast train`"
        )
    known = ", ".join(installed) or "none"
    raise ModelNotFoundError(f"no such model (installed models: {known})", path=name)


def load_model(model: str | PathLike[str] | None = None, *, forest: ForestKind = "auto") -> Model:
    """Load and verify a model: a directory, a ``.raxe`` archive, or the id of an installed one.

    Checks the manifest, the size and SHA-256 of every file, all shapes, and the forests against
    the stored self-test (the encoder is checked by the scanner that runs it). ``forest`` selects
    the implementation: ``"packed"`` works for any model, ``"compiled"`` needs a build that holds
    these very forests. ``"auto"`` takes packed: the results are the same to the last bit, and it is
    measured to be twice as fast, both on rows that vary and after an encoder call, because its
    nodes take less memory than code does and eight bytes each bring several levels of a tree into
    the caches at once.

    Raises a :class:`~raxe_fast.errors.ModelError`: ``ModelNotFoundError``, ``ModelFormatError``,
    ``ModelIntegrityError`` or ``ModelSelfTestError``, each naming the file and what is wrong.
    """
    if forest not in ("auto", "compiled", "packed"):
        raise ValueError(f"forest must be 'auto', 'compiled' or 'packed', not {forest!r}")
    path = resolve(model)
    with open_files(path) as files:
        manifest = parse_manifest(read_manifest(files), files.path)
        screening = manifest.screening
        networks = {manifest.encoder.file, *([] if screening is None else [screening.file])}

        def read(members: Iterable[str]) -> dict[str, bytes]:
            return {name: read_checked(files, name, manifest.files[name]) for name in members}

        # To read and verify the networks takes as long as all else, and needs no Python.
        with Ahead(lambda: read(networks)) as ahead:
            rest = read(name for name in manifest.files if name not in networks)

            def content(member: str) -> bytes:
                return ahead.result()[member] if member in networks else rest[member]

            return _assemble(str(path), manifest, content, forest)


def _assemble(
    name: str, manifest: Manifest, content: Callable[[str], bytes], forest: ForestKind
) -> Model:
    hidden = manifest.embedding_size

    def decode(member: str, decoder: Callable[[bytes], _T]) -> _T:
        return _decode(name, member, lambda: decoder(content(member)))

    forests = {
        head: _forest(manifest, head, content(manifest.heads[head].file), forest, name)
        for head in HEADS
    }
    calibration = decode("calibration.json", decode_calibration)
    clusters = decode("clusters.npz", lambda data: decode_clusters(data, hidden))
    triggers, core_triggers = decode("triggers.json", _triggers)
    plain = len(manifest.features) == 1
    selftest = decode(
        "selftest.npz",
        lambda data: decode_selftest(
            data,
            hidden,
            len(manifest.families),
            len(manifest.subfamilies),
            None if plain else row_size(manifest, "family"),
        ),
    )
    features = None
    if not plain:
        feature_data = decode(FEATURES_FILE, lambda data: decode_features(data, hidden))
        features = _decode(
            name, FEATURES_FILE, lambda: _core_features(feature_data, triggers, manifest)
        )
    heads = None
    screening = manifest.screening
    if screening is not None:
        width, tested = screening.hidden_size, len(selftest.token_ids)
        heads = decode(screening.heads, lambda data: decode_screening_heads(data, width, tested))
    scorer = _core.Scorer(
        forests["binary"],
        forests["family"],
        forests["subfamily"],
        _decode(name, "calibration.json", lambda: _core_calibration(calibration, plain)),
        _decode(
            name, "clusters.npz", lambda: _core.Clusters(clusters.centroids, clusters.n_attack)
        ),
        core_triggers,
        hidden,
        manifest.detail_threshold,
        features,
    )
    check_forests(
        selftest, forests, {head: spec.file for head, spec in manifest.heads.items()}, name
    )
    return Model(
        path=name,
        manifest=manifest,
        scorer=scorer,
        calibration=calibration,
        triggers=triggers,
        clusters=clusters,
        selftest=selftest,
        forest_kinds={head: item.kind for head, item in forests.items()},
        encoder_onnx=content(manifest.encoder.file),
        tokenizer_json=content("tokenizer.json"),
        features=features,
        screening_heads=heads,
        screening_onnx=b"" if screening is None else content(screening.file),
    )


def _decode(path: str, member: str, make: Callable[[], _T]) -> _T:
    """Turns a decoder's complaint into one that names the file."""
    try:
        return make()
    except ModelFormatError as error:
        raise ModelFormatError(error.message, path=path, member=member) from error
    except KeyError as error:
        raise ModelFormatError(f"{error} is missing", path=path, member=member) from error
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ModelFormatError(str(error), path=path, member=member) from error


def _core_calibration(data: CalibrationData, plain: bool) -> _core.Calibration:
    if plain and len(data.weights) > PLAIN_INPUTS:
        raise ValueError("weighs evidence that a model without features does not have")
    return _core.Calibration(list(data.weights), data.bias, list(data.knot_x), list(data.knot_y))


def _core_features(
    data: FeatureData, triggers: tuple[TriggerInfo, ...], manifest: Manifest
) -> _core.Features:
    sizes = feature_sizes(data, len(manifest.families))
    if sizes != dict(manifest.features):
        raise ValueError(f"blocks have lengths {sizes}, the manifest says {manifest.features}")
    return core_features(data, triggers, manifest.families)


def _triggers(data: bytes) -> tuple[tuple[TriggerInfo, ...], _core.TriggerSet]:
    with _ONE_READS_TRIGGERS:
        return _shared_triggers(data)


# Two models that work together are loaded side by side and have the same triggers: reading them
# takes a tenth of the start.
_ONE_READS_TRIGGERS = Lock()


@lru_cache(maxsize=1)
def _shared_triggers(data: bytes) -> tuple[tuple[TriggerInfo, ...], _core.TriggerSet]:
    triggers = decode_triggers(data)
    return triggers, _core.TriggerSet([(t.phrases, t.literals, t.weight) for t in triggers])


def _forest(
    manifest: Manifest, head: str, data: bytes, kind: ForestKind, path: str
) -> _core.Forest:
    spec = manifest.heads[head]
    forest = None
    if kind == "compiled":
        forest = _core.Forest.compiled(manifest.files[spec.file].sha256)
        if forest is None:
            raise ModelError(
                "this build holds no compiled code for this forest; use forest='auto' or 'packed'",
                path=path,
                member=spec.file,
            )
    if forest is None:
        forest = _decode(path, spec.file, lambda: _core.Forest.treelite(data))
    found = (forest.n_features, forest.n_outputs, forest.n_trees)
    expected = (row_size(manifest, head), spec.outputs, spec.trees)
    if found != expected:
        raise ModelFormatError(
            f"forest has (features, outputs, trees) {found}, the manifest says {expected}",
            path=path,
            member=spec.file,
        )
    return forest
