"""scikit-learn = GTIL = packed = compiled: the same probabilities, the same verdicts."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raxe_fast
from raxe_fast import _core
from raxe_fast.treelite_reader import ForestArrays, read_treelite

treelite = pytest.importorskip("treelite")
ensemble = pytest.importorskip("sklearn.ensemble")

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

GENERATOR = Path(__file__).parents[1] / "cmake" / "generate_heads.py"
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def gtil(model: Any, x: Floats) -> Doubles:
    # GTIL wants the features in the type of the thresholds.
    out: Doubles = treelite.gtil.predict(model, x.astype(np.float64), nthread=1)
    return out.reshape(len(x), -1)


def packed(model: Any, directory: Path) -> Any:
    path = directory / "forest.treelite"
    model.serialize(str(path))
    return _core.Forest.treelite(path.read_bytes())


def assert_same(expected: Doubles, got: Doubles, tolerance: float = 1e-12) -> None:
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    # A tie that rounding breaks is not a flip: the two best must then be equal to the last place.
    flips = np.flatnonzero(got.argmax(axis=1) != expected.argmax(axis=1))
    for row in flips:
        best = np.sort(expected[row])[-2:]
        assert best[1] - best[0] < 1e-12


def training_data(
    seed: int, n: int, n_features: int, n_classes: int, grid: bool
) -> tuple[Floats, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    y[:n_classes] = np.arange(n_classes)  # every class occurs
    x = rng.normal(size=(n_classes, n_features))[y] + rng.normal(size=(n, n_features))
    # On a grid, many values are equal and splits fall on simple midpoints, which rows hit exactly.
    x = np.round(x * 2) / 2 if grid else x
    return x.astype(np.float32), y


def probes(rng: np.random.Generator, x: Floats, arrays: ForestArrays) -> Floats:
    """Rows like the training rows, rows on thresholds, and rows one float beside them."""
    thresholds = arrays.threshold[arrays.feature >= 0].astype(np.float32)
    if thresholds.size == 0:
        return x
    on = rng.choice(thresholds, size=x.shape)
    down = np.nextafter(on, np.float32(-np.inf))
    up = np.nextafter(on, np.float32(np.inf))
    mixed = np.where(rng.random(x.shape) < 0.5, x, on)
    return np.concatenate([x, on, down, up, mixed]).astype(np.float32)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31),
    n_classes=st.sampled_from([2, 3, 9, 42]),
    n_trees=st.integers(1, 20),
    n_features=st.integers(1, 24),
    shape=st.sampled_from(
        [
            {"max_depth": 1},
            {"min_impurity_decrease": 1e9},  # single leaves
            {"max_leaf_nodes": 2},
            {"max_leaf_nodes": 17},
            {"max_depth": 6, "min_samples_leaf": 3},
            {},  # unbounded
        ]
    ),
    grid=st.booleans(),
    balanced=st.booleans(),
)
def test_zoo(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n_classes: int, n_trees: int,
    n_features: int, shape: dict[str, Any], grid: bool, balanced: bool,
) -> None:  # fmt: skip
    x, y = training_data(seed, 200, n_features, n_classes, grid)
    forest = ensemble.RandomForestClassifier(
        n_trees, random_state=seed, class_weight="balanced" if balanced else None, **shape
    ).fit(x, y)
    model = treelite.sklearn.import_model(forest)
    directory = tmp_path_factory.mktemp("zoo")
    ours = packed(model, directory)
    arrays = read_treelite((directory / "forest.treelite").read_bytes())
    rows = probes(np.random.default_rng(seed), x, arrays)
    assert (ours.n_features, ours.n_outputs, ours.n_trees) == (n_features, n_classes, n_trees)
    expected = forest.predict_proba(rows)
    assert_same(expected, gtil(model, rows))
    assert_same(expected, ours.predict(rows))


@pytest.fixture(scope="module", params=[2, 9], ids=["binary", "family"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any, Any, Floats, Path]:
    """(scikit-learn forest, Treelite model, packed forest, rows, directory)"""
    directory = tmp_path_factory.mktemp("trained")
    x, y = training_data(7, 4000, 48, request.param, grid=False)
    forest = ensemble.RandomForestClassifier(12, max_leaf_nodes=64, random_state=0)
    forest.fit(x[:2000], y[:2000])
    model = treelite.sklearn.import_model(forest)
    ours = packed(model, directory)
    arrays = read_treelite((directory / "forest.treelite").read_bytes())
    return forest, model, ours, probes(np.random.default_rng(1), x, arrays), directory


def test_ten_thousand_rows(trained: tuple[Any, Any, Any, Floats, Path]) -> None:
    forest, model, ours, rows, _ = trained
    assert len(rows) >= 10_000
    expected = forest.predict_proba(rows)
    assert_same(expected, gtil(model, rows))
    assert_same(expected, ours.predict(rows))


@needs_compiler
def test_tl2cgens_own_library_agrees(trained: tuple[Any, Any, Any, Floats, Path]) -> None:
    tl2cgen = pytest.importorskip("tl2cgen")
    _, model, ours, rows, directory = trained
    library = directory / "own.so"
    tl2cgen.export_lib(model, "gcc", library, {"parallel_comp": 4}, nthread=1, options=["-O0"])
    matrix = tl2cgen.DMatrix(rows.astype(np.float64), dtype="float64")
    expected = tl2cgen.Predictor(library, nthread=1).predict(matrix)
    assert_same(expected.reshape(len(rows), -1), ours.predict(rows))


def generate(model_dir: Path, out: Path, units: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GENERATOR), str(model_dir), str(out), "--units", str(units)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_model(directory: Path, model: Any) -> None:
    directory.mkdir(exist_ok=True)
    model.serialize(str(directory / "forest.treelite"))
    manifest = {"heads": {"one": {"file": "forest.treelite"}}}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def run_generated(out: Path, rows: Floats, n_trees: int, n_outputs: int) -> Doubles:
    library = out / "one.so"
    sources = [str(path) for path in out.glob("*.c")]
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O0", "-w", "-o", str(library), *sources], check=True
    )
    code = ctypes.CDLL(str(library))
    size = int(next(out.glob("*_main.c")).read_text().split("leaf_values[")[1].split("]")[0])
    values = (ctypes.c_double * size).in_dll(code, "raxe_fast_head_one_leaf_values")
    table = np.array(values).reshape(-1, n_outputs)
    leaf = np.empty(n_trees, np.uint32)
    result = np.zeros((len(rows), n_outputs))
    for i, row in enumerate(rows):
        code.raxe_fast_head_one_leaf_rows(
            ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(leaf.ctypes.data)
        )
        for at in leaf:
            result[i] += table[at]
    return result / n_trees


@needs_compiler
@pytest.mark.parametrize("units", [1, 3])
def test_generated_code(trained: tuple[Any, Any, Any, Floats, Path], units: int) -> None:
    pytest.importorskip("tl2cgen")
    _, model, ours, rows, directory = trained
    model_dir, out = directory / f"model{units}", directory / f"code{units}"
    write_model(model_dir, model)
    done = generate(model_dir, out, units)
    assert done.returncode == 0, done.stderr
    sample = np.ascontiguousarray(rows[:: len(rows) // 2000])
    got = run_generated(out, sample, ours.n_trees, ours.n_outputs)
    np.testing.assert_array_equal(got, ours.predict(sample))


@needs_compiler
@pytest.mark.parametrize(
    "shape", [{"max_depth": 1}, {"min_impurity_decrease": 1e9}], ids=["stumps", "single leaves"]
)
def test_generated_code_of_tiny_trees(shape: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tl2cgen")
    x, y = training_data(3, 100, 5, 3, grid=True)
    forest = ensemble.RandomForestClassifier(3, random_state=0, **shape).fit(x, y)
    model = treelite.sklearn.import_model(forest)
    write_model(tmp_path / "model", model)
    done = generate(tmp_path / "model", tmp_path / "code", units=4)  # more than there are trees
    assert done.returncode == 0, done.stderr
    got = run_generated(tmp_path / "code", x, 3, 3)
    assert_same(forest.predict_proba(x), got)


def test_generator_refuses_other_models(tmp_path: Path) -> None:
    pytest.importorskip("tl2cgen")
    x, y = training_data(3, 100, 5, 2, grid=False)
    boosted = ensemble.GradientBoostingClassifier(n_estimators=2, init="zero").fit(x, y)
    write_model(tmp_path / "model", treelite.sklearn.import_model(boosted))
    done = generate(tmp_path / "model", tmp_path / "code")
    assert done.returncode == 1
    assert "forest.treelite" in done.stderr and "average" in done.stderr


@settings(max_examples=500, deadline=None)
@given(value=st.floats(min_value=-3.4e38, max_value=3.4e38))
def test_generators_rounding(value: float) -> None:
    spec = importlib.util.spec_from_file_location("generate_heads", GENERATOR)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    rounded = module.floor_float32(value)
    assert rounded == float(np.float32(rounded)) <= value
    above = float(np.nextafter(np.float32(rounded), np.float32(np.inf)))
    assert above > value


def shipped_heads() -> list[tuple[str, Path, str]]:
    """(head, Treelite file, sha256) of every head of the installed models."""
    # An editable install has two folders: the sources, and the built files with the models.
    manifests = [m for p in raxe_fast.__path__ for m in Path(p).glob("models/*/manifest.json")]
    found = []
    for manifest in sorted(manifests):
        content = json.loads(manifest.read_text("utf-8"))
        for head, spec in content["heads"].items():
            path = manifest.parent / spec["file"]
            found.append((head, path, content["files"][spec["file"]]["sha256"]))
    return found


def stored_width(head_path: Path) -> int:
    """Length of the model's embedding."""
    with np.load(head_path.parents[1] / "selftest.npz", allow_pickle=False) as stored:
        return int(stored["embeddings"].shape[1])


@pytest.mark.parametrize("head", ["binary", "family", "subfamily"])
def test_shipped_heads(head: str) -> None:
    heads = [item for item in shipped_heads() if item[0] == head]
    compiled_in = set(_core.compiled_heads())
    heads = [item for item in heads if item[2] in compiled_in]
    if not heads:
        pytest.skip("this build holds no compiled heads")
    for _, path, sha256 in heads:
        arrays = read_treelite(path.read_bytes())
        ours = _core.Forest.packed(*arrays)
        compiled = _core.Forest.compiled(sha256)
        assert compiled is not None and compiled.kind == "compiled"
        assert (compiled.n_features, compiled.n_outputs, compiled.n_trees) == (
            ours.n_features, ours.n_outputs, ours.n_trees,
        )  # fmt: skip
        rng = np.random.default_rng(2)
        with np.load(path.parents[1] / "selftest.npz", allow_pickle=False) as stored:
            real = stored["rows" if "rows" in stored.files else "embeddings"].astype(np.float32)
        # Forests of a model with features see whole rows, the binary one all but the last block.
        real = np.ascontiguousarray(real[:, : ours.n_features])
        unit = arrays.n_features == stored_width(path)
        # Between and around real rows, where the trees' regions are small.
        near = real[rng.integers(0, len(real), 2500)]
        other = real[rng.integers(0, len(real), 2500)]
        weight = rng.random((2500, 1))
        blend = weight * near + (1 - weight) * other + rng.normal(0, 0.01, near.shape)
        blend = np.concatenate([real, blend]).astype(np.float32)
        if unit:
            blend = blend / np.linalg.norm(blend, axis=1, keepdims=True)
        rows = probes(rng, blend, arrays)
        assert len(rows) >= 10_000
        expected = gtil(treelite.Model.deserialize(str(path)), rows)
        np.testing.assert_array_equal(compiled.predict(rows), ours.predict(rows))
        assert_same(expected, ours.predict(rows))
