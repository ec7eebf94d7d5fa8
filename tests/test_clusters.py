"""Clusters: unit centroids, labels that reproduce no text, shares by group."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from raxe_fast import _core
from raxe_fast.training.clusters import allot, build_clusters, characteristic_words

pytest.importorskip("sklearn")


def blobs(seed=0, hidden=16, per_group=60):
    random = np.random.default_rng(seed)
    groups = [("jailbreak", "a"), ("jailbreak", "b"), ("benign", "chat")]
    vectors, texts, names = [], [], []
    for i, name in enumerate(groups):
        for side in range(2):
            centre = np.zeros(hidden)
            centre[2 * i + side] = 1
            word = f"{'abc'[i]}{'left' if side else 'right'}"
            for n in range(per_group // 2):
                vectors.append(centre + random.normal(0, 0.02, hidden))
                texts.append(f"the common {word} unique{n}x{i}{side}")
                names.append(name)
    rows = np.array(vectors)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit, texts, names


def test_finds_the_blobs_and_names_them():
    vectors, texts, names = blobs()
    found = build_clusters(vectors, texts, names, attack_clusters=4, benign_clusters=2)
    assert found.n_attack == 4
    assert found.families == ["jailbreak"] * 4 + ["benign"] * 2
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
    assert found.labels[0].startswith("jailbreak / a: ")
    words = {label.split(": ")[1].split(", ")[0] for label in found.labels[:2]}
    assert words == {"aleft", "aright"}
    core = _core.Clusters(found.centroids, found.n_attack)
    nearest, novelty = core.nearest(vectors[0])
    assert found.subfamilies[nearest[0][0]] == "a"
    assert novelty < 0.05


def test_words_of_single_texts_never_appear():
    _, texts, _ = blobs()
    background = Counter(word for text in texts for word in set(text.split()))
    words = characteristic_words(texts[:30], background, len(texts), count=10)
    assert not [word for word in words if word.startswith("unique")]
    assert characteristic_words(["secret surname"], Counter(), 10) == []


def test_is_deterministic_and_loads_without_pickle(tmp_path):
    vectors, texts, names = blobs()
    paths = [tmp_path / "1.npz", tmp_path / "2.npz"]
    for path in paths:
        build_clusters(vectors, texts, names, attack_clusters=4, benign_clusters=2).save(str(path))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with np.load(paths[0], allow_pickle=False) as data:
        assert set(data.files) == {"centroids", "n_attack", "labels", "families", "subfamilies"}


def test_shares():
    shares = allot({"big": 10000, "mid": 100, "tiny": 3}, 20, 8)
    assert shares["big"] > shares["mid"] >= 1
    assert shares["tiny"] == 1
