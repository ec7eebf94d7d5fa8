"""Forest fitting: which window stands for a text, determinism, export parity, the search on dev."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

for module in ("sklearn", "treelite"):
    pytest.importorskip(module)

from raxe_fast.training.corpus import Corpus, Record  # noqa: E402
from raxe_fast.training.embed import Embedded  # noqa: E402
from raxe_fast.training.heads import (  # noqa: E402
    HeadsConfig,
    HeadSettings,
    export_forest,
    fit_binary,
    fit_forest,
    fit_heads,
    out_of_fold,
    worst_windows,
)
from raxe_fast.training.metrics import roc_auc  # noqa: E402
from raxe_fast.training.parity import head_parity  # noqa: E402
from raxe_fast.training.search import candidates, search_binary  # noqa: E402
from raxe_fast.training.train_data import Split  # noqa: E402

CONFIG = HeadsConfig().with_trees(10)


def split(seed=0, texts=300, hidden=12):
    """Texts of 1 to 3 windows; in an attack exactly one window, anywhere, carries the signal."""
    random = np.random.default_rng(seed)
    records, owner, rows, signal = [], [], [], []
    for i in range(texts):
        label = int(i % 3 == 0)
        count = int(random.integers(1, 4))
        guilty = int(random.integers(count)) if label else -1
        for w in range(count):
            row = random.normal(0, 1, hidden)
            row[0] += 5 * (w == guilty)
            rows.append(row)
            owner.append(i)
            signal.append(w == guilty)
        name = ("jailbreak", "ab"[i % 2]) if label else ("benign", "chat")
        records.append(Record(f"t{i}", label, *name))
    embedded = Embedded(
        vectors=np.array(rows, np.float32),
        evidence=np.zeros(len(rows), np.float32),
        owner=np.array(owner),
        tokens=np.ones(texts, np.int64),
        windows=np.bincount(owner),
    )
    corpus = Corpus("own", records)
    return Split(corpus, embedded, corpus.texts, np.arange(texts)), np.array(signal)


def test_worst_windows_equal_a_loop():
    random = np.random.default_rng(2)
    owner = np.sort(random.integers(0, 20, 100))
    scores = random.integers(0, 5, 100) / 4
    texts = np.unique(owner).tolist()
    expected = []
    for text in texts:
        own = np.flatnonzero(owner == text)
        expected.append(own[np.argmax(scores[own])])
    assert worst_windows(scores, owner, texts).tolist() == expected
    with pytest.raises(KeyError):
        worst_windows(scores, owner, [99])


def test_the_guilty_window_is_found_out_of_bag():
    data, guilty = split()
    _, rows = fit_binary(
        data.embedded.vectors, data.embedded.owner, data.labels, config=CONFIG.with_trees(40)
    )
    assert data.embedded.owner[rows].tolist() == np.flatnonzero(data.labels == 1).tolist()
    assert guilty[rows].mean() > 0.9


@pytest.mark.parametrize("labelling", ["all", "share", "worst"])
def test_heads_are_deterministic_and_bounded(tmp_path, labelling):
    data, _ = split()
    names = np.array([r.subfamily == "b" for r in data.records], np.int64)
    family = np.where(data.labels == 1, 0, -1)
    subfamily = np.where(data.labels == 1, names, -1)
    config = replace(CONFIG, labelling=labelling, binary=replace(CONFIG.binary, max_leaf_nodes=8))
    made = [
        fit_heads(
            data.embedded.vectors, data.embedded.owner, data.labels, family, subfamily,
            families=1, subfamilies=2, config=config, jobs=jobs,
        )
        for jobs in (1, 2)
    ]  # fmt: skip
    for head in ("binary", "family", "subfamily"):
        paths = [tmp_path / f"{head}{i}" for i in range(2)]
        for heads, path in zip(made, paths, strict=True):
            export_forest(getattr(heads, head), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert max(tree.tree_.n_leaves for tree in made[0].binary.estimators_) <= 8


def test_a_class_without_windows_is_an_error():
    with pytest.raises(ValueError, match=r"class numbers \[1\]"):
        fit_forest(
            np.ones((3, 2), np.float32), np.array([0, 2, 0]), HeadSettings(trees=1), classes=3
        )


@pytest.mark.parametrize("classes", [2, 5])
def test_export_agrees_in_every_implementation(tmp_path, classes):
    random = np.random.default_rng(classes)
    vectors = random.normal(size=(2000, 12)).astype(np.float32)
    labels = (vectors[:, 0] * 1.7 + vectors[:, 1] > 0).astype(np.int64) * (classes - 1)
    labels[:classes] = np.arange(classes)
    forest = fit_forest(vectors, labels, HeadSettings(trees=15), classes=classes)
    export_forest(forest, tmp_path / "head.treelite")
    found = head_parity(forest, tmp_path / "head.treelite", vectors, 0.5 if classes == 2 else None)
    for name in ("gtil", "packed"):
        assert found[name]["max_abs_difference"] < 1e-12
        assert found[name]["verdict_flips"] == 0
    # What the nodes say of training takes room and predicts nothing.
    whole = pytest.importorskip("treelite").sklearn.import_model(forest).serialize_bytes()
    assert len(whole) - (tmp_path / "head.treelite").stat().st_size > 16 * sum(
        tree.tree_.node_count for tree in forest.estimators_
    )


def test_votes_out_of_fold_come_from_trees_that_saw_no_relative():
    """Two rows alike in one text: out of one row's bag, a tree knows it by the other."""
    rng = np.random.default_rng(3)
    vectors = np.repeat(rng.standard_normal((60, 8)).astype(np.float32), 2, axis=0)
    owner = np.repeat(np.arange(60), 2)
    label = rng.integers(0, 2, 60)  # nothing to learn but the rows themselves
    folds = np.arange(60) % 4
    votes = out_of_fold(vectors, owner, label, folds, config=CONFIG, jobs=1)
    for fold in range(4):
        inside = folds[owner] != fold
        weights = np.where(label[owner[inside]] == 1, 0.5, 1.0)
        forest = fit_forest(
            vectors[inside], label[owner[inside]], CONFIG.binary, classes=2, weights=weights
        )
        expected = forest.predict_proba(vectors[~inside])[:, 1]
        assert np.array_equal(votes[~inside], expected)
    memory = fit_binary(vectors, owner, label, config=CONFIG, jobs=1)[0]
    bag = np.nan_to_num(memory.oob_decision_function_[:, 1], nan=0.5)
    assert roc_auc(label[owner], bag) > 0.8 > roc_auc(label[owner], votes)


def test_search_takes_the_best_on_dev():
    train, dev = split(0)[0], split(1)[0]
    configs = {"good": CONFIG, "stump": replace(CONFIG, binary=HeadSettings(1, 2))}
    best, rows = search_binary(train, dev, configs, jobs=1)
    assert best == "good"
    assert [row["name"] for row in rows] == ["good", "stump"]
    assert rows[0]["auc"] > rows[1]["auc"]
    assert {config.labelling for config in candidates(CONFIG).values()} == {"all", "share", "worst"}


def test_search_learns_from_what_the_head_learns_from():
    train, dev = split(0)[0], split(1)[0]
    blind = (np.zeros_like(train.embedded.vectors), np.zeros_like(dev.embedded.vectors))
    assert search_binary(train, dev, {"base": CONFIG}, columns=blind)[1][0]["auc"] == 0.5
    seen = (train.embedded.vectors, dev.embedded.vectors)
    some = np.random.default_rng(1).random(len(train.labels)) < 0.5
    found = search_binary(train, dev, {"base": CONFIG}, columns=seen, unseen=some)[1][0]["auc"]
    whole = search_binary(train, dev, {"base": CONFIG}, jobs=1)[1][0]["auc"]
    assert 0.5 < found != whole
