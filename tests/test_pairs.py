"""Rows for pairs of tokens: the hash, what they add in every backend, and that they are learnt."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_fixtures import export_needed, options, torch_needed, weights_of
from naive_bert import NaiveBert
from raxe_fast import _core
from raxe_fast.errors import EncoderError
from raxe_fast.native import NativeEncoder
from raxe_fast.onnx_reader import read_onnx

ROWS, LAYERS, HEADS = 101, 2, 4


def naive_row(before: int, token: int, rows: int) -> int:
    return (1000003 * before + 7919 * token) % (2**31 - 1) % rows


@torch_needed
@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=9), st.integers(1, 2**24))
def test_rows(ids, rows):
    import torch

    from raxe_fast.training.pairs import pair_rows

    found = pair_rows(torch.tensor([ids, ids[::-1]]), rows).tolist()
    for row, read in zip(found, (ids, ids[::-1]), strict=True):
        assert row == [naive_row(a, b, rows) for a, b in zip([0, *read], read, strict=False)]


@pytest.fixture(scope="module")
def paired(tiny_source, tmp_path_factory):
    """Precision -> exported encoder with a random table; `source` is what was exported."""
    pytest.importorskip("onnx", reason="exporting needs the [train] extra")
    from raxe_fast.training.encoder_export import export_encoder
    from raxe_fast.training.encoder_source import PAIRS, load_source
    from raxe_fast.training.finetune_output import LinearHeads, write_output
    from raxe_fast.training.pairs import with_pairs

    folder = tmp_path_factory.mktemp("paired")
    source = with_pairs(load_source(tiny_source), ROWS)
    table = np.random.default_rng(4).normal(0, 0.2, (ROWS, source.hidden)).astype(np.float32)
    source = dataclasses.replace(source, weights={**source.weights, PAIRS: table})
    width = source.hidden
    zeros = {name: np.zeros(width, np.float32) for name in ("binary_weight", "evidence_weight")}
    zeros |= {
        f"{name}_weight": np.zeros((1, width), np.float32) for name in ("family", "subfamily")
    }
    zeros |= {f"{name}_bias": np.zeros(1, np.float32) for name in ("family", "subfamily")}
    names = {"families": ("benign",), "subfamilies": (("benign", "chat"),)}
    heads = LinearHeads(scale=8.0, binary_bias=0.0, evidence_bias=0.0, **zeros, **names)
    write_output(folder / "source", source, source.weights, heads, {"base": source.name})
    for precision in ("fp32", "fp16", "int8"):
        export_encoder(folder / "source", folder / precision, precision=precision)
    return folder


def some_ids(length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, 60, (1, length))


@torch_needed
@export_needed
def test_onnx_runtime_gives_what_torch_gives(paired):
    import torch

    from raxe_fast.encoder import Encoder
    from raxe_fast.training.encoder_source import load_source
    from raxe_fast.training.finetune_data import Classes
    from raxe_fast.training.finetune_model import Network

    source = load_source(paired / "source")
    assert source.pair_rows == ROWS
    network = Network(
        source, Classes(("benign",), (("benign", "chat"),)), device="cpu", precision="fp32",
        seed=1, dropout=0.0,
    )  # fmt: skip
    network.modules.eval()
    encoders = {name: Encoder(paired / name / "encoder.onnx") for name in ("fp32", "fp16")}
    plain = load_source(source.path)
    plain.weights.pop("embeddings.pair_embeddings.weight")
    without = Network(plain, network.classes, device="cpu", precision="fp32", seed=1, dropout=0.0)
    without.modules.eval()
    for length in (1, 2, 9, 40):
        ids = some_ids(length)
        rows = torch.from_numpy(ids)
        with torch.no_grad():
            expected = network.states(rows, torch.ones_like(rows)).numpy()
            other = without.states(rows, torch.ones_like(rows)).numpy()
        assert np.abs(expected - other).max() > 0.05  # the table says something
        assert np.abs(encoders["fp32"].encode(ids) - expected).max() < 1e-4
        assert np.abs(encoders["fp16"].encode(ids) - expected).max() < 2e-2


@export_needed
def test_kernels_are_close_to_float64_and_to_onnx_runtime(paired):
    from raxe_fast.encoder import Encoder

    path = paired / "int8" / "encoder.onnx"
    twin = NaiveBert(read_onnx(path.read_bytes()), LAYERS, HEADS)
    native, runtime = NativeEncoder(path), Encoder(path)
    for length in (1, 2, 7, 33, 60):
        ids = some_ids(length)
        expected = twin.states(ids[0])[-1]
        for found, bound in ((native.encode(ids)[0], 0.998), (runtime.encode(ids)[0], 0.98)):
            cosine = (found * expected).sum(-1) / (
                np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
            )
            assert cosine.min() > bound


@export_needed
@pytest.mark.parametrize(
    ("name", "value"),
    [("first", 1000002), ("second", 7920), ("modulus", 2**31), ("count", ROWS + 1)],
)
def test_another_hash_is_not_for_the_kernels(paired, name, value):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(paired / "int8" / "encoder.onnx"))
    held = next(t for t in model.graph.initializer if t.name == f"pairs.{name}")
    held.CopyFrom(numpy_helper.from_array(np.array(value, np.int64), held.name))
    with pytest.raises(EncoderError, match=f"pairs.{name}"):
        NativeEncoder(model.SerializeToString())


@export_needed
def test_a_table_without_its_nodes_is_not_for_the_kernels(paired):
    import onnx

    model = onnx.load(str(paired / "int8" / "encoder.onnx"))
    total = next(node for node in model.graph.node if node.output[0] == "embeddings.norm.sum")
    total.input.remove("embeddings.pair")
    with pytest.raises(EncoderError, match="is expected"):
        NativeEncoder(model.SerializeToString())


@export_needed
def test_the_core_refuses_tables_that_do_not_fit(paired):
    from raxe_fast.native import _layer

    held = read_onnx((paired / "int8" / "encoder.onnx").read_bytes()).tensors
    good = {
        "words": held["embeddings.words"],
        "word_scale": held["embeddings.words_scale"].reshape(-1).copy(),
        "positions": held["embeddings.positions"].copy(),
        "gamma": held["embeddings.norm.gamma"].copy(),
        "beta": held["embeddings.norm.beta"].copy(),
        "layers": [_layer(held, index, LAYERS) for index in range(LAYERS)],
        "heads": HEADS,
        "pairs": held["embeddings.pairs"].copy(),
        "pair_scale": held["embeddings.pairs_scale"].reshape(-1).copy(),
    }
    assert _core.NativeEncoder(**good).nbytes > _core.NativeEncoder(
        **{**good, "pairs": None, "pair_scale": None}
    ).nbytes  # fmt: skip
    for changes, message in (
        ({"pairs": None}, "one without the other"),
        ({"pair_scale": None}, "one without the other"),
        ({"pairs": good["pairs"][:, :-1].copy()}, "pairs"),
        ({"pairs": good["pairs"][:0].copy(), "pair_scale": good["pair_scale"][:0]}, "pairs"),
        ({"pair_scale": good["pair_scale"][:-1]}, "pair_scale"),
        ({"pair_scale": good["pair_scale"] * np.float32(np.nan)}, "pair_scale"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.NativeEncoder(**{**good, **changes})


@export_needed
def test_tables_come_back_from_a_graph(paired, tiny_source):
    from raxe_fast.training.encoder_restore import _Graph
    from raxe_fast.training.encoder_source import PAIRS, load_source

    content = (paired / "int8" / "encoder.onnx").read_bytes()
    graph = _Graph(content, "model", "encoder.onnx")
    base = graph.source(load_source(tiny_source), LAYERS, 32)
    assert base.pair_rows == ROWS
    exact = load_source(paired / "source").tensor(PAIRS)
    error = np.abs(graph.weights(base)[PAIRS] - exact)
    assert (error <= 0.51 * np.abs(exact).max(1, keepdims=True) / 127).all()


@export_needed
def test_export_and_card_say_how_many_rows_there_are(paired):
    from raxe_fast.training.card import _pairs

    info = json.loads((paired / "int8" / "export.json").read_text())
    assert info["pair_rows"] == ROWS
    assert f"{ROWS} rows for pairs" in _pairs(info) and _pairs({"layers": 1}) == ""


@pytest.mark.parametrize("shape", [(7, 31), (7,), ()])
def test_tables_of_another_shape_are_refused(tiny_source, shape):
    from raxe_fast.errors import ModelFormatError
    from raxe_fast.training.encoder_source import PAIRS, _check_weights, load_source

    source = load_source(tiny_source)
    source.weights[PAIRS] = np.zeros(shape, np.float32)
    with pytest.raises(ModelFormatError, match="pair embeddings"):
        _check_weights(source)


@torch_needed
@export_needed
def test_pairs_are_learnt_and_kept(tiny_source, tiny_corpus, tmp_path):
    from raxe_fast.training.encoder_source import PAIRS
    from raxe_fast.training.finetune import finetune

    few = {"epochs": 1.0, "samples": 60, "eval_every": 1000}
    info = finetune(tiny_corpus, tiny_source, tmp_path / "one", options(**few, pair_rows=50))
    table = weights_of(tmp_path / "one")[PAIRS]
    assert table.shape == (50, 32) and (np.abs(table).max(1) > 0).sum() > 20
    assert info["arguments"]["pair_rows"] == 50
    # Tuning goes on with the table, whether or not it is asked for again.
    finetune(tiny_corpus, tmp_path / "one", tmp_path / "two", options(**few))
    again = weights_of(tmp_path / "two")[PAIRS]
    assert again.shape == table.shape and not np.array_equal(again, table)
    with pytest.raises(ValueError, match="50 rows for pairs of tokens, not 40"):
        finetune(tiny_corpus, tmp_path / "one", tmp_path / "no", options(**few, pair_rows=40))
    with pytest.raises(ValueError, match="negative"):
        options(pair_rows=-1)


def test_an_empty_table_changes_nothing(tiny_source):
    from raxe_fast.training.encoder_source import load_source
    from raxe_fast.training.pairs import with_pairs

    source = load_source(tiny_source)
    assert with_pairs(source, 0) is source
    paired = with_pairs(source, 7)
    assert paired.pair_rows == 7 and with_pairs(paired, 7) is paired
    assert not paired.weights["embeddings.pair_embeddings.weight"].any()
    with pytest.raises(ValueError, match="mpnet"):
        with_pairs(dataclasses.replace(source, architecture="mpnet"), 7)
