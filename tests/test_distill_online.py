"""Teachers that read along with their student, against each of them read alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from finetune_fixtures import export_needed, options, torch_needed, weights_of
from raxe_fast.errors import ModelFormatError, WordListError
from raxe_fast.training.encoder_source import load_source
from raxe_fast.training.leave_out import leave_out, left_out_ids
from raxe_fast.training.student import Shape, make_student

TEXTS = [
    "a bird, a map. and a letter",
    "Ignore it, all. A?",
    "...",
    "",
    "nothing of that kind",
    "a a , a",
]


@pytest.fixture(scope="module")
def second_teacher(finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another fine-tuned encoder of the same classes: the first, somewhat shaken."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("second") / "out"
    shutil.copytree(finished[0], folder)
    rng = np.random.default_rng(5)
    weights = {
        name: value + 0.05 * rng.standard_normal(value.shape).astype(np.float32)
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tokens_of(source, text: str) -> list[int]:
    from tokenizers import Tokenizer

    from raxe_fast.training.encoder_export import prepare_tokenizer

    engine = Tokenizer.from_str(prepare_tokenizer(source)[0].decode())
    return engine.encode(text, add_special_tokens=False).ids


@export_needed
def test_ids_of_left_out_words_are_what_separates_both_readings(tiny_source):
    teacher = load_source(tiny_source)
    student = leave_out(teacher, ["a", ".", ","])
    ids, continuing = left_out_ids(teacher, student)
    assert len(ids) == 3 and len(continuing) == 39
    for text in TEXTS:
        read = tokens_of(teacher, text)
        # "a" is a word of its own in "a map" and the beginning of one in "and".
        kept = [
            token
            for token, after in zip(read, [*read[1:], 0], strict=False)
            if token not in ids or after in continuing
        ]
        assert kept == tokens_of(student, text), text
    assert left_out_ids(student, student)[0] == []
    assert len(left_out_ids(student, leave_out(teacher, ["a", ".", ",", "?"]))[0]) == 1


@export_needed
def test_words_that_cannot_be_left_out_beside_a_teacher_are_refused(tiny_source):
    teacher = load_source(tiny_source)
    with pytest.raises(WordListError, match="'bird' is more than one token"):
        left_out_ids(teacher, leave_out(teacher, ["a", "bird"]))
    with pytest.raises(WordListError, match="read by the student"):
        left_out_ids(leave_out(teacher, ["a"]), leave_out(teacher, ["."]))


@torch_needed
def test_rows_close_up_where_words_are_left_out():
    import torch

    from raxe_fast.training.distill_online import without_words

    rng = np.random.default_rng(2)
    for _ in range(50):
        rows = [rng.integers(1, 9, rng.integers(2, 12)) for _ in range(4)]
        width = max(map(len, rows))
        ids = np.zeros((4, width), np.int64)
        mask = np.zeros((4, width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        places = rng.integers(-1, 2, (4, width)).astype(np.int8)
        words, continuing = [3, 5], [7]
        found = without_words(
            *(torch.from_numpy(x) for x in (ids, mask)), torch.tensor(words),
            torch.tensor(continuing), torch.from_numpy(places),
        )  # fmt: skip
        longest = 0
        for i, row in enumerate(rows):
            after = [*row[1:], 0]
            kept = [j for j, v in enumerate(row) if v not in words or after[j] in continuing]
            size = len(kept)
            longest = max(longest, size)
            assert found[0][i, :size].tolist() == row[kept].tolist()
            assert found[2][i, :size].tolist() == places[i, kept].tolist()
            assert found[1][i].tolist() == [1] * size + [0] * (found[1].shape[1] - size)
            assert not found[0][i, size:].any()
        assert found[0].shape[1] == longest


@torch_needed
@export_needed
def test_mining_reads_what_the_student_reads(tiny_source):
    from types import SimpleNamespace

    import torch

    from raxe_fast.training.distill_online import OnlineDistiller

    teacher = load_source(tiny_source)
    student = leave_out(teacher, ["a", ".", ","])
    ids, continuing = (torch.tensor(sorted(x)) for x in left_out_ids(teacher, student))
    reader = SimpleNamespace(left_out=ids, continuing=continuing)
    rows = [np.array([2, *tokens_of(teacher, text), 3], np.int32) for text in TEXTS]
    for found, text in zip(OnlineDistiller.narrow(reader, rows), TEXTS, strict=True):
        assert found.tolist() == [2, *tokens_of(student, text), 3], text
    assert OnlineDistiller.narrow(reader, []) == []


@torch_needed
@export_needed
def test_a_lesson_is_the_mean_of_what_each_teacher_says(finished, second_teacher, tiny_corpus):
    """By NumPy from each teacher's own logits; the embedding is the first one's."""
    import torch

    from raxe_fast.training.distill_loss import DistillWeights
    from raxe_fast.training.distill_online import OnlineDistiller, read_teacher
    from raxe_fast.training.finetune_inputs import Inputs
    from raxe_fast.training.finetune_model import Network

    source = load_source(finished[0])
    classes = Inputs.read(tiny_corpus, source, options()).classes
    student = Network(make_student(source, Shape(1, 16, 2, 32)), classes, device="cpu",
                      precision="fp32", seed=1)  # fmt: skip
    teachers = [read_teacher(folder, student) for folder in (finished[0], second_teacher)]
    beside = OnlineDistiller(student, teachers, DistillWeights())
    rows = [np.array([2, *tokens_of(source, text), 3]) for text in TEXTS]
    ids, mask = student.batch(rows)
    read, _, _, lesson = beside.prepare(ids, mask, torch.zeros_like(mask))
    assert torch.equal(read, ids)
    binary, family, embeddings, evidence = [], [], [], []
    for folder in (finished[0], second_teacher):
        alone = Network(load_source(folder), classes, device="cpu", precision="fp32", seed=9)
        alone.modules.eval()
        with torch.no_grad():
            states = alone.states(ids, mask)
            embedding = alone.pool(states, mask)
            logits = [part.double().numpy() for part in alone.logits(embedding)]
            token = alone.evidence(states).double().numpy()
        binary.append(1 / (1 + np.exp(-logits[0])))
        powers = np.exp(logits[1] - logits[1].max(1, keepdims=True))
        family.append(powers / powers.sum(1, keepdims=True))
        embeddings.append(embedding.numpy())
        evidence.append(1 / (1 + np.exp(-token)))
    assert np.abs(binary[0] - binary[1]).max() > 1e-3  # they do differ
    np.testing.assert_allclose(lesson.binary.numpy(), np.mean(binary, axis=0), atol=1e-5)
    np.testing.assert_allclose(lesson.family.numpy(), np.mean(family, axis=0), atol=1e-5)
    np.testing.assert_allclose(lesson.evidence.numpy(), np.mean(evidence, axis=0), atol=1e-5)
    np.testing.assert_allclose(lesson.embedding.numpy(), embeddings[0], atol=1e-5)


class Stop(Exception):
    pass


@torch_needed
@export_needed
def test_a_student_learns_beside_two_teachers(finished, second_teacher, tiny_corpus, tmp_path):
    """Without the labels, of fewer words; a resumed run ends where an uninterrupted one ends."""
    from raxe_fast.training.distill import distill
    from raxe_fast.training.finetune_options import LossWeights

    nothing = LossWeights(family=0, subfamily=0, peak=0, tokens=0, contrastive=0)
    chosen = options(loss=nothing, epochs=8.0, eval_every=120)
    both, shape = [finished[0], second_teacher], Shape(1, 16, 2, 32)
    more = {"beside": True, "leave_out": ["a", ".", ","]}
    info = distill(tiny_corpus, both, tmp_path / "a", shape, chosen, **more)
    assert info["distilled"] and info["figures"]["dev"]["auc"] > 0.9
    student = load_source(tmp_path / "a")
    assert (student.layers, student.hidden) == (1, 16)
    assert "projection.weight" not in student.weights
    assert tokens_of(student, "a. i") == tokens_of(load_source(finished[0]), "i")

    def stop(entry):
        if entry["kind"] == "mine":
            raise Stop

    again = tmp_path / "b"
    with pytest.raises(Stop):
        distill(tiny_corpus, both, again, shape, chosen, report=stop, **more)
    with pytest.raises(ModelFormatError, match="teachers differ"):
        distill(tiny_corpus, both[:1], again, shape, chosen, resume=True, **more)
    distill(tiny_corpus, both, again, shape, chosen, resume=True, **more)
    expected, found = weights_of(tmp_path / "a"), weights_of(again)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@torch_needed
@export_needed
def test_windows_without_labels_teach_too(finished, tiny_corpus, tmp_path):
    """The student hears its teacher on twice as many tokens, learns other weights from them, and a
    resumed run draws the same windows."""
    from raxe_fast.training.distill import distill

    chosen, shape = options(epochs=2.0, eval_every=120), Shape(1, 16, 2, 32)
    alone = distill(tiny_corpus, finished[0], tmp_path / "a", shape, chosen, beside=True)
    both = distill(
        tiny_corpus, finished[0], tmp_path / "b", shape, chosen, beside=True, unlabelled=1.0
    )
    assert 1.8 < both["tokens"] / alone["tokens"] <= 2.0
    first, second = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert any(not np.array_equal(first[name], second[name]) for name in first)

    def stop(entry):
        if entry["kind"] == "mine":
            raise Stop

    again = tmp_path / "c"
    more = {"beside": True, "unlabelled": 1.0}
    with pytest.raises(Stop):
        distill(tiny_corpus, finished[0], again, shape, chosen, report=stop, **more)
    with pytest.raises(ModelFormatError, match="unlabelled"):
        distill(tiny_corpus, finished[0], again, shape, chosen, resume=True, beside=True)
    distill(tiny_corpus, finished[0], again, shape, chosen, resume=True, **more)
    found = weights_of(again)
    assert all(np.array_equal(found[name], second[name]) for name in second)
    for wrong in ({"unlabelled": 1.0}, {"beside": True, "unlabelled": -0.5}):
        with pytest.raises(ValueError, match="unlabelled"):
            distill(tiny_corpus, finished[0], tmp_path / "no", shape, chosen, **wrong)


@torch_needed
@export_needed
def test_what_does_not_fit_is_refused(finished, second_teacher, tiny_corpus, tmp_path, capsys):
    from raxe_fast.cli import main
    from raxe_fast.training.distill import distill

    shape = Shape(1, 16, 2, 32)
    for teachers in ([finished[0], second_teacher], []):
        with pytest.raises(ValueError, match="one teacher, or more that read beside"):
            distill(tiny_corpus, teachers, tmp_path / "no", shape, options())
    start = ["distill", "--corpus", str(tiny_corpus), "--output", str(tmp_path / "out")]
    start += ["--teacher", str(finished[0]), "--teacher", str(second_teacher)]
    start += ["--holdout-fold", "1", "--folds", "5", "--no-own-texts", "--max-tokens", "48"]
    start += ["--layers", "1", "--hidden", "16", "--heads", "2", "--intermediate", "32"]
    start += ["--epochs", "0.3", "--batch-tokens", "960", "--threads", "1", "--dropout", "0.1"]
    assert main(start) == 2
    assert "read beside" in capsys.readouterr().err
    assert main([*start, "--beside"]) == 0
    assert "wrote" in capsys.readouterr().out
