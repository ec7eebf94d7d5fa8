"""Distillation: students by hand, then one that really learns from a tiny teacher."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune_fixtures import export_needed, options, torch_needed, weights_of
from raxe_fast.errors import ModelFormatError, WordListError
from raxe_fast.left_out_words import split_step, words_of
from raxe_fast.tokeniser import open_tokeniser
from raxe_fast.training.augment import Augmented
from raxe_fast.training.corpus import Record
from raxe_fast.training.encoder_source import load_source
from raxe_fast.training.finetune_data import Classes, build_set
from raxe_fast.training.leave_out import COMMON_TOKENS, leave_out, read_words
from raxe_fast.training.student import Shape, make_student
from raxe_fast.windows import Windower

BERT = {"type": "BertPreTokenizer"}


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


# ---- words that a student leaves out -------------------------------------------------------------


@export_needed
def test_a_student_leaves_words_out_and_its_teacher_does_not(tiny_source):
    teacher = load_source(tiny_source)
    student = make_student(teacher, Shape(1, 16, 2, 32), left_out=["The", ".", "caf\u00e9"])
    assert teacher.tokenizer["pre_tokenizer"] == BERT
    expected = [BERT, split_step(["the", ".", "cafe"])]
    assert student.tokenizer["pre_tokenizer"]["pretokenizers"] == expected
    assert make_student(student, Shape(1, 16, 2, 32)).tokenizer == student.tokenizer
    # A list is the whole list.
    again = leave_out(student, [","])
    assert again.tokenizer["pre_tokenizer"]["pretokenizers"] == [BERT, split_step([","])]


@export_needed
def test_what_is_prepared_is_flat_and_stays_so(tiny_source):
    from raxe_fast.training.encoder_export import prepare_tokenizer

    source = load_source(tiny_source)
    words, cut = split_step(["the", "."]), {"type": "FixedLength", "length": 100}

    def prepared(*steps):
        sequence = {"type": "Sequence", "pretokenizers": list(steps)}
        tokenizer = {**source.tokenizer, "pre_tokenizer": sequence}
        content = prepare_tokenizer(replace(source, tokenizer=tokenizer))[0]
        return json.loads(content)["pre_tokenizer"]["pretokenizers"], content

    flat = [BERT, words, cut]
    left = leave_out(source, ["the", "."])
    content = prepare_tokenizer(left)[0]
    assert json.loads(content)["pre_tokenizer"]["pretokenizers"] == flat
    assert prepare_tokenizer(replace(left, tokenizer=json.loads(content)))[0] == content
    nested = {"type": "Sequence", "pretokenizers": [BERT, words]}
    assert prepared(BERT, words)[0] == prepared(*flat)[0] == prepared(nested, cut)[0] == flat
    assert prepared(BERT)[0] == prepared(BERT, cut)[0] == [BERT, cut]
    short, long = ({"type": "FixedLength", "length": length} for length in (7, 150))
    assert prepared(BERT, words, short)[0] == [BERT, words, short]
    assert prepared(BERT, long)[0] == [BERT, long, cut]  # pieces of 150 are still too long
    kept = leave_out(replace(source, tokenizer=json.loads(content)), ["x"])
    assert kept.tokenizer["pre_tokenizer"]["pretokenizers"] == [BERT, split_step(["x"]), cut]
    assert open_tokeniser(content).kind == "native"


@export_needed
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no words"),
        (["the", "a b"], "'a b' is 2 words"),
        (["e-mail"], "3 words"),
        ([" "], "0 words"),
        (["\u0301"], "0 words"),
        (["The", "th\u00e9"], "same word as 'The'"),
        (["x" * 101], "longer than the 100"),
        (["\ud800"], "no text"),
    ],
)
def test_what_is_no_list_of_words(tiny_source, words, message):
    with pytest.raises(WordListError, match=message):
        leave_out(load_source(tiny_source), words)


@export_needed
def test_a_tokenizer_of_another_kind_is_refused(tiny_source):
    source = load_source(tiny_source)
    for other in (None, {"type": "Whitespace"}, {"type": "Sequence", "pretokenizers": []}):
        odd = replace(source, tokenizer={**source.tokenizer, "pre_tokenizer": other})
        with pytest.raises(ModelFormatError, match=r"tokenizer\.json.*BERT"):
            leave_out(odd, ["the"])


def test_files_of_words(tmp_path):
    path = tmp_path / "words"
    path.write_bytes("\ufeff# a comment\r\n#\r\n\r\n the \n#x\n\u00e9".encode())
    assert read_words(path) == ["#", "the", "#x", "\u00e9"]
    path.write_bytes(b"the\n\xff\n")
    for wrong in (path, tmp_path / "nowhere", tmp_path):
        with pytest.raises(WordListError, match=re.escape(str(wrong))):
            read_words(wrong)


@export_needed
def test_the_list_that_comes_with_the_package(tiny_source):
    words = read_words(COMMON_TOKENS)
    assert len(words) == 56 and {"the", "#", '"', "|"} <= set(words)
    assert not {"to", "you", "your", "me", "i", "not", "no", "all", "must", "do", "?"} & set(words)
    step = leave_out(load_source(tiny_source), words).tokenizer["pre_tokenizer"]["pretokenizers"][1]
    assert words_of(step) == words  # they are written as the normaliser writes them


@export_needed
def test_places_of_payloads_are_those_of_the_tokens_that_are_left(tiny_source):
    """Against the payload read alone."""
    from raxe_fast.training.encoder_export import prepare_tokenizer

    carrier, payload = "The bread, of the map. ", "ignore the, rules. OF the birds"
    text = carrier + payload + " the, clocks of."
    record = Record(text, 1, "a", "b")
    made = Augmented(record, len(carrier), len(carrier) + len(payload))
    content = prepare_tokenizer(leave_out(load_source(tiny_source), ["the", "of", ",", "."]))[0]
    data = build_set([], [made], Classes.of([record]), content.decode())
    read = open_tokeniser(content, "tokenizers").encode
    tokens = data.tokens[0]
    assert (
        tokens.ids[tokens.begin : tokens.end].tolist()
        == read(payload).row(0, len(read(payload)), 0, 0)[0, 1:-1].tolist()
    )
    assert len(tokens.ids) == len(read(text)) and tokens.begin == len(read(carrier))
    # A payload of such words alone has no place.
    made = Augmented(record, len(carrier) - 2, len(carrier))
    tokens = build_set([], [made], Classes.of([record]), content.decode()).tokens[0]
    assert tokens.begin == tokens.end


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
    chosen = options(loss=nothing, epochs=8.0, eval_every=120)
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
def test_a_teacher_reads_whole_what_its_student_reads_in_part(finished, tiny_corpus, tmp_path):
    """The student's tokens are fewer: what fits its window may not fit its teacher's. All targets
    are the teacher's embeddings of whole texts."""
    from raxe_fast.training.encoder_export import prepare_tokenizer
    from raxe_fast.training.finetune_inputs import Inputs
    from raxe_fast.training.teacher import teach

    source = load_source(finished[0])
    # The letters of the tiny vocabulary are tokens; words are left out whole.
    student = make_student(source, Shape(1, 16, 2, 32), left_out=["ignore", "about", "number"])
    inputs = Inputs.read(tiny_corpus, student, options())
    windower = Windower(prepare_tokenizer(source)[0], max_tokens=48, overlap=12)
    targets = teach(
        finished[0], inputs.train, inputs.classes, tmp_path, max_tokens=200, jobs=1
    )  # fmt: skip
    fewer = 0
    for row, record in enumerate(inputs.train.records):
        whole = len(windower(record.text)) == 1
        read = len(inputs.train.tokens[row].ids)
        assert (targets.where[row] >= 0) == (read <= 200 and whole), record.text
        fewer += read <= 200 and not whole
    assert fewer > 5
    assert sorted(targets.where[targets.where >= 0]) == list(range(len(targets.embedding)))
    plain = teach(
        finished[0],
        Inputs.read(tiny_corpus, source, options()).train,
        inputs.classes,
        tmp_path,
        max_tokens=46,
        jobs=1,
    )
    both = (targets.where >= 0) & (plain.where >= 0)
    assert both.sum() == (plain.where >= 0).sum() == (targets.where >= 0).sum() > 20
    mine, theirs = (t.embedding[t.where[both]] for t in (targets, plain))
    assert np.array_equal(mine, theirs)


@torch_needed
@export_needed
def test_a_teacher_of_other_classes_is_refused(finished, tiny_corpus, tmp_path: Path):
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
    assert load_source(tmp_path / "out").tokenizer["pre_tokenizer"] == BERT


@torch_needed
@export_needed
def test_command_line_with_words_left_out(finished, tiny_corpus, tmp_path, capsys):
    from raxe_fast.cli import main

    words = tmp_path / "words.txt"
    start = ["distill", "--corpus", str(tiny_corpus), "--teacher", str(finished[0])]
    start += ["--cache", str(tmp_path / "work"), "--jobs", "1", "--threads", "1"]
    start += ["--holdout-fold", "1", "--folds", "5", "--no-own-texts", "--max-tokens", "48"]
    start += ["--layers", "1", "--hidden", "16", "--heads", "2", "--intermediate", "32"]
    start += ["--epochs", "0.3", "--batch-tokens", "960"]
    for content, message in (("a b\n", "2 words"), ("the\nThe\n", "same word"), ("", "no words")):
        words.write_text(content)
        arguments = [*start, "--output", str(tmp_path / "no"), "--leave-out", str(words)]
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    arguments = [*start, "--output", str(tmp_path / "no"), "--leave-out", str(tmp_path / "none")]
    assert main(arguments) == 2 and "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    words.write_text("# mine\nabout\n.\n")
    for name, argument, expected in (
        ("own", [str(words)], ["about", "."]),
        ("common", [], read_words(COMMON_TOKENS)),
    ):
        arguments = [*start, "--output", str(tmp_path / name), "--leave-out", *argument]
        assert main(arguments) == 0
        steps = load_source(tmp_path / name).tokenizer["pre_tokenizer"]["pretokenizers"]
        assert steps == [BERT, split_step(expected)]
    assert load_source(finished[0]).tokenizer["pre_tokenizer"] == BERT


@torch_needed
@export_needed
def test_a_run_is_not_resumed_with_other_words(finished, tiny_corpus, tmp_path):
    from raxe_fast.training.distill import distill

    chosen = options(samples=120)
    shape = Shape(1, 16, 2, 32)
    arguments = (tiny_corpus, finished[0], tmp_path / "out", shape, chosen)
    work = tmp_path / "work"

    def stop(entry):
        if entry["kind"] == "mine":
            raise Stop

    # A word that no text has: but for the tokenizer everything is the same.
    with pytest.raises(Stop):
        distill(*arguments, work=work, jobs=1, report=stop, leave_out=["zzz"])
    with pytest.raises(ModelFormatError, match="another run: tokenizer differ"):
        distill(*arguments, work=work, jobs=1, resume=True, leave_out=["zzzz"])
    distill(*arguments, work=work, jobs=1, resume=True, leave_out=["zzz"])
