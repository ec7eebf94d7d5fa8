"""Distillation: students by hand, then one that really learns from a tiny teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune_fixtures import export_needed, options, torch_needed, weights_of
from raxe_fast.errors import ModelFormatError
from raxe_fast.training.encoder_source import load_source
from raxe_fast.training.student import Shape, make_student


@export_needed
def test_a_student_as_wide_takes_over_the_last_layers(tiny_source):
    teacher = load_source(tiny_source)
    same = make_student(teacher, Shape.of(teacher))
    assert set(same.weights) == set(teacher.weights)
    assert all(np.array_equal(same.weights[n], teacher.weights[n]) for n in teacher.weights)
    one = make_student(teacher, Shape(1, 32, 4, 64))
    assert one.layers == 1
    name = "encoder.layer.{}.output.dense.weight"
    assert np.array_equal(one.weights[name.format(0)], teacher.weights[name.format(1)])
    assert name.format(1) not in one.weights


@export_needed
def test_a_narrow_student_keeps_what_tells_words_apart(tiny_source):
    teacher = load_source(tiny_source)
    student = make_student(teacher, Shape(1, 16, 2, 32))
    name = "embeddings.word_embeddings.weight"
    words, narrow = teacher.tensor(name), student.tensor(name)
    assert narrow.shape == (len(words), 16)
    # The best projection of this rank, by an independent route: covariance eigenvalues.
    spread = np.linalg.eigvalsh(np.cov(words.T, bias=True))[::-1]
    kept = np.var(narrow, axis=0).sum()
    assert kept == pytest.approx(spread[:16].sum(), rel=1e-3)
    assert student.tensor("encoder.layer.0.intermediate.dense.weight").shape == (32, 16)


@export_needed
@pytest.mark.parametrize(
    "shape", [Shape(3, 32, 4, 64), Shape(1, 64, 4, 64), Shape(1, 32, 2, 64), Shape(1, 32, 4, 32)]
)
def test_a_student_that_does_not_fit_is_refused(tiny_source, shape):
    with pytest.raises(ValueError, match="student"):
        make_student(load_source(tiny_source), shape)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="divide"):
        Shape(1, 30, 4, 8)
    with pytest.raises(ValueError, match="positive"):
        Shape(0, 32, 4, 8)


class Stop(Exception):
    pass


@torch_needed
@export_needed
def test_a_student_learns_from_its_teacher(finished, tiny_corpus, tmp_path):
    """A network of half the width learns the task with its teacher, and a resumed run ends where
    an uninterrupted one ends."""
    from raxe_fast.training.distill import DistillWeights, distill
    from raxe_fast.training.finetune_options import LossWeights

    teacher = finished[0]
    nothing = LossWeights(family=0, subfamily=0, peak=1, tokens=0, contrastive=0)
    chosen = options(loss=nothing, epochs=8.0, eval_every=240)
    log: list[dict[str, object]] = []
    shape = Shape(1, 16, 2, 32)
    work = tmp_path / "work"
    info = distill(
        tiny_corpus, teacher, tmp_path / "a", shape, chosen, work=work, jobs=1, report=log.append
    )
    assert info["distilled"] and info["figures"]["dev"]["auc"] > 0.9
    student = load_source(tmp_path / "a")
    assert (student.layers, student.hidden, student.heads) == (1, 16, 2)
    assert "projection.weight" not in student.weights

    def stop(entry):
        if entry["kind"] == "mine":
            raise Stop

    again = tmp_path / "b"
    with pytest.raises(Stop):
        distill(tiny_corpus, teacher, again, shape, chosen, work=work, jobs=1, report=stop)
    with pytest.raises(ModelFormatError, match="distill differ"):
        distill(tiny_corpus, teacher, again, shape, chosen, work=work, jobs=1, resume=True,
                weights=DistillWeights(embedding=9.0))  # fmt: skip
    distill(tiny_corpus, teacher, again, shape, chosen, work=work, jobs=1, resume=True)
    expected, found = weights_of(tmp_path / "a"), weights_of(again)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@torch_needed
@export_needed
def test_targets_are_the_teachers_embeddings(finished, tiny_corpus, tmp_path):
    """Against the fp32 network, for texts that fit; none for the others."""
    import torch

    from raxe_fast.training.finetune_inputs import Inputs
    from raxe_fast.training.finetune_model import Network
    from raxe_fast.training.teacher import teach

    source = load_source(finished[0])
    inputs = Inputs.read(tiny_corpus, source, options())
    targets = teach(
        finished[0], inputs.train, inputs.classes, tmp_path, max_tokens=30, jobs=1
    )  # fmt: skip
    network = Network(source, inputs.classes, device="cpu", precision="fp32", seed=1)
    network.modules.eval()
    first, last = inputs.specials
    checked = 0
    for row, tokens in enumerate(inputs.train.tokens):
        if len(tokens.ids) > 30:
            assert targets.where[row] == -1
            continue
        ids, mask = network.batch([np.array([first, *tokens.ids, last])])
        with torch.no_grad():
            expected = network.embed(ids, mask)[0].numpy()
        assert targets.embedding[targets.where[row]] @ expected > 0.98
        checked += 1
        if checked == 40:
            break
    assert checked == 40 and (targets.where == -1).any()


@torch_needed
@export_needed
def test_a_teacher_of_other_classes_is_refused(finished, tiny_corpus, tmp_path: Path):
    from dataclasses import replace

    from raxe_fast.training.finetune_inputs import Inputs
    from raxe_fast.training.teacher import teach

    inputs = Inputs.read(tiny_corpus, load_source(finished[0]), options(augment=None))
    other = replace(inputs.classes, families=("benign", "else"))
    with pytest.raises(ModelFormatError, match="other classes"):
        teach(finished[0], inputs.train, other, tmp_path, max_tokens=30, jobs=1)


@torch_needed
@export_needed
def test_command_line(finished, tiny_corpus, tmp_path, capsys):
    from raxe_fast.cli import main

    start = ["distill", "--corpus", str(tiny_corpus), "--teacher", str(finished[0])]
    start += ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "work"), "--jobs", "1"]
    start += ["--holdout-fold", "1", "--folds", "5", "--no-own-texts", "--max-tokens", "48"]
    assert main([*start, "--layers", "9", "--hidden", "16"]) == 2
    assert "must not exceed" in capsys.readouterr().err
    assert main([*start, "--hidden", "30", "--heads", "4"]) == 2
    assert "divide" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*start, "--source-weight", "own:"])
    assert "NAME=WEIGHT" in capsys.readouterr().err
    good = ["--layers", "1", "--hidden", "16", "--heads", "2", "--intermediate", "32"]
    good += ["--epochs", "0.3", "--batch-tokens", "960", "--threads", "1"]
    assert main([*start, *good]) == 0
    assert "wrote" in capsys.readouterr().out
    assert load_source(tmp_path / "out").hidden == 16
