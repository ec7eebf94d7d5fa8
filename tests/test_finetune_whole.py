"""Learning from whole texts: windows, the worst of each text, and a payload far from its start."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_fixtures import export_needed, options, torch_needed
from raxe_fast.training.corpus import Record
from raxe_fast.training.finetune_data import Tokens, TrainingSet, payload_places
from raxe_fast.training.finetune_sampler import Batch, SamplerOptions, by_tokens, epoch_batches
from raxe_fast.windows import Windower


def texts_of(lengths: list[int], payloads: dict[int, tuple[int, int]] | None = None) -> TrainingSet:
    found = payloads or {}
    tokens = [
        Tokens(np.arange(1000 * i, 1000 * i + n, dtype=np.int32), *found.get(i, (0, 0)))
        for i, n in enumerate(lengths)
    ]
    labels = np.array([int(i in found) for i in range(len(lengths))], dtype=np.int64)
    records = [Record(f"text {i}", int(label)) for i, label in enumerate(labels)]
    return TrainingSet(records, tokens, labels, labels * 0, labels * 0)


@torch_needed
@given(st.integers(0, 300), st.integers(3, 70), st.data())
def test_windows_are_the_scanners(tiny_source, count, size, data):
    from raxe_fast.training.finetune_whole import window_starts

    overlap = data.draw(st.integers(0, size - 3))
    windower = Windower(
        (tiny_source / "tokenizer.json").read_bytes(), max_tokens=size, overlap=overlap
    )
    # No two stretches of twenty tokens are alike: rows tell where they begin.
    text = "".join(f"{'abcdefghij'[i % 10]} {'0123456789'[i // 10 % 10]} " for i in range(count))
    whole = Windower((tiny_source / "tokenizer.json").read_bytes(), max_tokens=1000, overlap=0)
    ids = whole(text)[0].ids[0, 1:-1]
    starts = window_starts(len(ids), size - 2, overlap)
    expected = [window.ids[0, 1:-1].tolist() for window in windower(text)]
    assert [ids[start : start + size - 2].tolist() for start in starts] == expected


@torch_needed
def test_windows_of_a_batch():
    from raxe_fast.training.finetune_whole import in_windows

    data = texts_of([5, 0, 30, 12], {2: (20, 25)})
    batch = Batch((2, 1, 0), (4, 0, 0), 20)
    windows, owner = in_windows(batch, data.tokens, room=8, overlap=2)
    assert windows.rows == (2, 2, 2, 1, 0)
    assert windows.starts == (4, 10, 16, 0, 0)
    assert windows.room == 8
    assert owner.tolist() == [0, 0, 0, 1, 2]
    # The payload is tokens 20 to 24: at 16 the window's tokens 4 to 7, behind the special one.
    places = payload_places(data, windows, 10)
    assert places[0].tolist() == [0] * 10 and places[1].tolist() == [0] * 10
    assert places[2].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]
    assert (places[3:] == -1).all()


@torch_needed
@given(st.lists(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0]), min_size=1), min_size=1))
def test_worst_windows_are_those_of_a_loop(groups):
    import torch

    from raxe_fast.training.finetune_whole import highest, worst_windows

    values = [value for group in groups for value in group]
    owner = [number for number, group in enumerate(groups) for _ in group]
    logits, owners = torch.tensor(values), torch.tensor(owner)
    assert highest(logits, owners, len(groups)).tolist() == [max(group) for group in groups]
    begin, expected = 0, []
    for group in groups:
        expected.append(begin + group.index(max(group)))
        begin += len(group)
    assert worst_windows(logits, owners, len(groups)).tolist() == expected


@torch_needed
def test_only_windows_outside_a_known_payload_are_taken_for_harmless():
    import torch

    from raxe_fast.training.finetune_options import LossWeights
    from raxe_fast.training.finetune_whole import outside_loss

    weights = LossWeights(outside=0.5, smoothing=0.0)
    logits = torch.tensor([2.0, -1.0, 4.0], requires_grad=True)
    places = torch.tensor([[0, 0, -1], [0, 1, 0], [-1, -1, -1]], dtype=torch.int8)
    loss = outside_loss(logits, places, weights)
    assert loss.item() == pytest.approx(0.5 * np.log1p(np.exp(2.0)), rel=1e-5)
    loss.backward()
    assert logits.grad[0] > 0 and logits.grad[1] == 0 and logits.grad[2] == 0
    assert outside_loss(logits, places[1:], weights).item() == 0.0


def test_batches_of_whole_texts_stay_within_their_budget():
    data = texts_of([3, 40, 700, 90, 10] * 30)
    chosen = SamplerOptions(samples=150, attack_share=0.0, batch_tokens=1000, text_tokens=300)
    batches = epoch_batches(data, np.ones(len(data)), chosen, 0)
    sizes = [sum(min(len(data.tokens[r].ids), 300) + 2 for r in batch.rows) for batch in batches]
    assert all(size <= 1000 for size in sizes) and max(len(batch.rows) for batch in batches) > 3
    assert {batch.room for batch in batches} == {300}
    assert by_tokens(np.array([4, 4, 9]), np.array([0, 1, 2]), 12, padded=False) == [[0, 1], [2]]


@pytest.fixture(scope="module")
def hidden_corpus(tmp_path_factory):
    """Long texts, harmless but for three words near the end of the attacks; where is not told."""
    folder = tmp_path_factory.mktemp("hidden")
    chance = random.Random(5)
    for split, count in (("train", 160), ("dev", 60)):
        rows = []
        for i in range(count):
            words = [chance.choice("abcdefgh") for _ in range(chance.randint(90, 120))]
            if i % 2:
                at = chance.randint(60, len(words) - 10)
                words[at : at + 6] = "zyxzyx"
            rows.append(
                {"text": " ".join(words), "label": i % 2, "family": "jailbreak" if i % 2 else "",
                 "subfamily": "hidden" if i % 2 else "chat", "source": "s", "group": f"{split}{i}"}
            )  # fmt: skip
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@torch_needed
@export_needed
def test_a_payload_is_learnt_that_no_first_window_holds(tiny_source, hidden_corpus, tmp_path):
    from raxe_fast.training.finetune import finetune

    common = {"max_tokens": 24, "long_tokens": 24, "samples": 160, "epochs": 6.0, "augment": None}
    whole = finetune(
        hidden_corpus, tiny_source, tmp_path / "whole", options(**common, overlap_tokens=6)
    )
    alone = finetune(hidden_corpus, tiny_source, tmp_path / "alone", options(**common))
    assert whole["arguments"]["overlap_tokens"] == 6
    assert whole["figures"]["dev"]["auc"] > 0.95
    assert alone["figures"]["dev"]["auc"] < whole["figures"]["dev"]["auc"] - 0.2
    assert [entry for entry in whole["log"] if entry["kind"] == "mine"]


@torch_needed
@export_needed
def test_what_cannot_be():
    with pytest.raises(ValueError, match="cannot share"):
        options(overlap_tokens=46)
    with pytest.raises(ValueError, match="text_tokens"):
        options(text_tokens=0)


@torch_needed
@export_needed
def test_a_teacher_is_heard_in_every_window(tiny_corpus, finished, tmp_path, monkeypatch):
    """The label is asked of the worst window of each text, the lesson of all that were read."""
    from raxe_fast.training.distill import Shape, distill
    from raxe_fast.training.distill_online import OnlineDistiller

    sizes = []
    original = OnlineDistiller.loss

    def listening(self, network, embedding, evidence, mask, lesson):
        sizes.append((len(embedding), len(lesson.binary), len(mask)))
        return original(self, network, embedding, evidence, mask, lesson)

    monkeypatch.setattr(OnlineDistiller, "loss", listening)
    info = distill(
        tiny_corpus,
        finished[0],
        tmp_path / "student",
        Shape(1, 16, 2, 32),
        options(epochs=2.0, max_tokens=12, long_tokens=12, overlap_tokens=4),
        beside=True,
    )
    assert all(len(set(size)) == 1 for size in sizes)
    assert sum(windows for windows, _, _ in sizes) > info["samples"], "texts of several windows"
    assert info["figures"]["dev"]["auc"] > 0.6
