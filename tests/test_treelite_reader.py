"""The Treelite reader: equals Treelite's own view of a model; damaged files are typed errors."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raxe_fast import _core
from raxe_fast.errors import ModelFormatError
from raxe_fast.treelite_reader import read_treelite

treelite = pytest.importorskip("treelite")
ensemble = pytest.importorskip("sklearn.ensemble")


def serialised(model: Any, tmp_path: Path) -> bytes:
    path = tmp_path / "model.treelite"
    if not isinstance(model, treelite.Model):
        model = treelite.sklearn.import_model(model)
    model.serialize(str(path))
    return path.read_bytes()


def small_forest(n_classes: int = 3, **options: Any) -> Any:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(120, 6)).astype(np.float32)
    y = rng.integers(0, n_classes, 120)
    options = {"n_estimators": 3, "max_leaf_nodes": 5, "random_state": 1} | options
    return ensemble.RandomForestClassifier(**options).fit(x, y)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return serialised(small_forest(), tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("n_classes", [2, 3, 42])
@pytest.mark.parametrize("max_leaf_nodes", [2, 9, None])
def test_equals_treelites_own_dump(
    n_classes: int, max_leaf_nodes: int | None, tmp_path: Path
) -> None:
    model = treelite.sklearn.import_model(small_forest(n_classes, max_leaf_nodes=max_leaf_nodes))
    arrays = read_treelite(serialised(model, tmp_path))
    dump = json.loads(model.dump_as_json())
    assert arrays.n_features == dump["num_feature"]
    assert arrays.n_outputs == dump["num_class"][0]
    assert arrays.tree_offset.size == len(dump["trees"]) + 1
    for tree, offset in zip(dump["trees"], arrays.tree_offset[:-1], strict=True):
        for node in tree["nodes"]:
            i = offset + node["node_id"]
            if "leaf_value" in node:
                row = arrays.leaf_index[i] * arrays.n_outputs
                assert arrays.feature[i] == -1
                values = arrays.leaf_values[row : row + arrays.n_outputs].tolist()
                assert values == node["leaf_value"]
            else:
                assert arrays.feature[i] == node["split_feature_id"]
                assert arrays.threshold[i] == node["threshold"]
                assert arrays.left[i] == node["left_child"]
                assert arrays.right[i] == node["right_child"]


def test_dtypes_are_those_of_the_core(small: bytes) -> None:
    arrays = read_treelite(small)
    assert [value.dtype.str for value in arrays[2:]] == [
        "<i8", "<i4", "<f8", "<i4", "<i4", "<i4", "<f8",
    ]  # fmt: skip
    for forest in (_core.Forest.packed(*arrays), _core.Forest.treelite(small)):
        assert (forest.n_features, forest.n_outputs, forest.n_trees) == (6, 3, 3)


def test_truncated_at_every_length(small: bytes) -> None:
    for length in range(len(small)):
        with pytest.raises(ModelFormatError):
            read_treelite(small[:length])


def test_trailing_bytes(small: bytes) -> None:
    with pytest.raises(ModelFormatError, match="follow the last tree"):
        read_treelite(small + b"\0")


def use(data: bytes) -> None:
    """Reads, builds and runs a forest; a damaged file may fail only in the typed way."""
    try:
        forest = _core.Forest.treelite(data)
    except ValueError:
        return
    assert forest.n_features < 1 << 20
    forest.predict(np.zeros((1, forest.n_features), np.float32))


def test_every_flipped_bit(tmp_path: Path) -> None:
    tiny = serialised(small_forest(2, n_estimators=2, max_leaf_nodes=3), tmp_path)
    for position in range(len(tiny)):
        for bit in range(8):
            data = bytearray(tiny)
            data[position] ^= 1 << bit
            use(bytes(data))


def test_random_damage(small: bytes) -> None:
    rng = random.Random(11)
    for _ in range(3000):
        data = bytearray(small)
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            else:  # a whole little-endian length
                data[at : at + 8] = rng.choice((1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
        use(bytes(data[: len(small)]))


@pytest.mark.parametrize("data", [b"", b"\0" * 400, b"\xff" * 400, b"PK\x03\x04" + b"\0" * 400])
def test_other_files(data: bytes) -> None:
    with pytest.raises(ModelFormatError):
        read_treelite(data)


def test_other_version(small: bytes) -> None:
    for version in (3, 5):
        with pytest.raises(ModelFormatError, match="version"):
            read_treelite(version.to_bytes(4, "little") + small[4:])


def test_other_models_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 4))
    y = (x[:, 0] > 0).astype(int)
    boosted = ensemble.GradientBoostingClassifier(n_estimators=2, init="zero").fit(x, y)
    regressor = ensemble.RandomForestRegressor(n_estimators=2, max_depth=2).fit(x, x[:, 1])
    two_targets = ensemble.RandomForestClassifier(n_estimators=2, max_depth=2)
    two_targets.fit(x, np.stack([y, 1 - y], axis=1))
    for model, message in (
        (boosted, "average"),
        (regressor, "postprocessor"),
        (two_targets, "targets"),
    ):
        with pytest.raises(ModelFormatError, match=message):
            read_treelite(serialised(model, tmp_path))
