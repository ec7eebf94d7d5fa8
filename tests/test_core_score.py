"""The fused call against a plain NumPy, Python and scikit-learn re-computation."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raxe_fast import _core

HIDDEN = 24
WEIGHTS, BIAS = [0.8, 2.5], -0.7
KNOTS = ([0.05, 0.4, 0.9], [0.0, 0.3, 1.0])
# (word, weight): literals, so that the naive matcher is str.find.
WORDS = [("ignore", 0.6), ("secret", 0.9), ("nor", 0.2)]


def packed(forest: Any) -> _core.Forest:
    """A scikit-learn RandomForestClassifier as the core's packed forest."""
    offset, feature, threshold, left, right, leaf_index, leaves = [0], [], [], [], [], [], []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        is_leaf = tree.children_left < 0
        index = np.full(tree.node_count, -1)
        index[is_leaf] = len(leaves) + np.arange(is_leaf.sum())
        values = tree.value[is_leaf, 0, :]
        leaves.extend(values / values.sum(axis=1, keepdims=True))
        feature.append(np.where(is_leaf, -1, tree.feature))
        threshold.append(np.where(is_leaf, 0.0, tree.threshold))
        left.append(tree.children_left)
        right.append(tree.children_right)
        leaf_index.append(index)
        offset.append(offset[-1] + tree.node_count)
    return _core.Forest.packed(
        forest.n_features_in_,
        len(forest.classes_),
        np.array(offset, np.int64),
        np.concatenate(feature).astype(np.int32),
        np.concatenate(threshold).astype(np.float64),
        np.concatenate(left).astype(np.int32),
        np.concatenate(right).astype(np.int32),
        np.concatenate(leaf_index).astype(np.int32),
        np.concatenate(leaves).astype(np.float64),
    )


@dataclass
class Rig:
    scorer: _core.Scorer
    triggers: _core.TriggerSet
    forests: dict[str, Any]  # scikit-learn
    centroids: NDArray[np.float32]
    n_attack: int
    detail_threshold: float


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def rig() -> Rig:
    ensemble = pytest.importorskip("sklearn.ensemble")
    random = np.random.default_rng(5)
    rows = unit(random.standard_normal((600, HIDDEN)))
    labels = {
        "binary": (rows[:, 0] + 0.3 * random.standard_normal(600) > 0).astype(int),
        "family": np.digitize(rows[:, 1], [-0.2, 0.1, 0.3]),
        "subfamily": np.digitize(rows[:, 2], np.linspace(-0.3, 0.3, 6)),
    }
    forests = {
        name: ensemble.RandomForestClassifier(12, max_leaf_nodes=16, random_state=3).fit(rows, y)
        for name, y in labels.items()
    }
    triggers = _core.TriggerSet(
        [{"phrases": [], "literals": [word], "weight": weight} for word, weight in WORDS]
    )
    centroids = unit(random.standard_normal((9, HIDDEN)))
    scorer = _core.Scorer(
        *(packed(forests[name]) for name in ("binary", "family", "subfamily")),
        _core.Calibration(WEIGHTS, BIAS, *KNOTS),
        _core.Clusters(centroids, 6),
        triggers,
        HIDDEN,
        0.5,
    )
    return Rig(scorer, triggers, forests, centroids, 6, 0.5)


@dataclass
class Batch:
    blocks: list[NDArray[np.float32]]
    window_text: NDArray[np.uint32]
    texts: list[str]
    masks: list[NDArray[np.uint8]] | None


def find_all(text: str) -> list[tuple[int, int, int]]:
    low, out = text.lower(), []
    for trigger, (word, _) in enumerate(WORDS):
        starts = [i for i in range(len(low)) if low.startswith(word, i)]
        out.extend((i, i + len(word), trigger) for i in starts[:8])
    return [(trigger, begin, end) for begin, end, trigger in sorted(out)]


def expected(rig: Rig, batch: Batch, text: int, all_details: bool) -> dict[str, Any]:
    """What the core must say of one text, with NumPy, Python and scikit-learn."""
    matches = find_all(batch.texts[text])
    rules = 1.0 - math.prod(1.0 - WORDS[t][1] for t in {m[0] for m in matches})
    embeddings, flat = [], 0
    for b, block in enumerate(batch.blocks):
        for w, window in enumerate(block):
            if batch.window_text[flat] == text:
                mask = np.ones(len(window)) if batch.masks is None else batch.masks[b][w] != 0
                mean = (window.astype(np.float64) * mask[:, None]).sum(0) / max(mask.sum(), 1e-9)
                embeddings.append((mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32))
            flat += 1
    base: dict[str, Any] = {"rule_score": rules, "matches": matches, "windows": len(embeddings)}
    if not embeddings:
        return base | {"score": rules, "window": -1}
    forest = [rig.forests["binary"].predict_proba(e[None])[0, 1] for e in embeddings]
    scores = []
    for p in forest:
        clipped = min(max(p, 1e-4), 1 - 1e-4)
        z = BIAS + WEIGHTS[0] * math.log(clipped / (1 - clipped)) + WEIGHTS[1] * rules
        scores.append(float(np.interp(1 / (1 + math.exp(-z)), *KNOTS)))
    worst = int(np.argmax(scores))
    details = all_details or scores[worst] >= rig.detail_threshold
    cosine = rig.centroids.astype(np.float64) @ embeddings[worst].astype(np.float64)
    order = np.argsort(-cosine[: rig.n_attack], kind="stable")[:3]
    return base | {
        "score": scores[worst],
        "scores": scores,
        "window": worst,
        "forest": forest[worst],
        "family": rig.forests["family"].predict_proba(embeddings[worst][None])[0]
        if details
        else [],
        "subfamily": rig.forests["subfamily"].predict_proba(embeddings[worst][None])[0]
        if details
        else [],
        "nearest": [(int(i), float(cosine[i])) for i in order],
        "novelty": 1 - cosine.max(),
    }


def fields(s: _core.TextScore) -> tuple[Any, ...]:
    """Everything but the times; NaN-safe to compare."""
    values = (
        s.score, s.forest_probability, s.rule_score, s.window, s.window_scores, s.family,
        s.subfamily, s.nearest, s.novelty, s.matches, s.finite,
    )  # fmt: skip
    return tuple(json.dumps(v) for v in values)


def run(rig: Rig, batch: Batch, all_details: bool = False) -> list[_core.TextScore]:
    return rig.scorer.score(
        batch.blocks, batch.window_text, batch.texts, all_details, masks=batch.masks
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pieces = st.sampled_from(["ignore", "IGNORE", "secret", "nor", "x", " ", "é", "中", "🙂"])
    texts = draw(st.lists(st.lists(pieces, max_size=8).map("".join), max_size=5))
    blocks = []
    for _ in range(draw(st.integers(0, 3)) if texts else 0):
        shape = (draw(st.integers(0, 4)), draw(st.integers(1, 9)), HIDDEN)
        blocks.append(random.standard_normal(shape).astype(np.float32))
    total = sum(len(b) for b in blocks)
    window_text = random.integers(0, max(len(texts), 1), total).astype(np.uint32)
    masks = None
    if draw(st.booleans()):
        masks = [random.integers(0, 2, b.shape[:2]).astype(np.uint8) for b in blocks]
    return Batch(blocks, window_text, texts, masks)


@settings(max_examples=120, deadline=None)
@given(batch=batches(), all_details=st.booleans())
def test_equals_recomputation(rig: Rig, batch: Batch, all_details: bool) -> None:
    results = run(rig, batch, all_details)
    assert len(results) == len(batch.texts)
    for t, got in enumerate(results):
        want = expected(rig, batch, t, all_details)
        assert got.matches == want["matches"]
        assert got.rule_score == pytest.approx(want["rule_score"], abs=1e-12)
        assert got.score == pytest.approx(want["score"], abs=1e-9)
        assert got.window == want["window"]
        assert got.finite
        assert all(n >= 0 for n in got.times)
        if want["windows"] == 0:
            assert math.isnan(got.forest_probability)
            assert (got.window_scores, got.family, got.subfamily, got.nearest) == ([], [], [], [])
            continue
        assert got.window_scores == pytest.approx(want["scores"], abs=1e-9)
        assert got.forest_probability == pytest.approx(want["forest"], abs=1e-9)
        assert got.family == pytest.approx(list(want["family"]), abs=1e-9)
        assert got.subfamily == pytest.approx(list(want["subfamily"]), abs=1e-9)
        assert [c for c, _ in got.nearest] == [c for c, _ in want["nearest"]]
        assert [x for _, x in got.nearest] == pytest.approx(
            [x for _, x in want["nearest"]], abs=1e-6
        )
        assert got.novelty == pytest.approx(want["novelty"], abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(batch=batches())
def test_batch_equals_rows_one_by_one(rig: Rig, batch: Batch) -> None:
    together = run(rig, batch, True)
    for t, text in enumerate(batch.texts):
        blocks, masks, flat = [], [], 0
        for b, block in enumerate(batch.blocks):
            for w in range(len(block)):
                if batch.window_text[flat] == t:
                    blocks.append(np.ascontiguousarray(block[w : w + 1]))
                    if batch.masks is not None:
                        masks.append(np.ascontiguousarray(batch.masks[b][w : w + 1]))
                flat += 1
        alone = run(
            rig,
            Batch(
                blocks,
                np.zeros(len(blocks), np.uint32),
                [text],
                None if batch.masks is None else masks,
            ),
            True,
        )
        assert fields(alone[0]) == fields(together[t])


def test_every_isa_gives_the_same_verdict(rig: Rig) -> None:
    random = np.random.default_rng(1)
    batch = Batch(
        [random.standard_normal((30, 40, HIDDEN)).astype(np.float32)],
        np.arange(30, dtype=np.uint32),
        ["ignore the secret" if i % 2 else "hello" for i in range(30)],
        None,
    )
    levels = ["scalar", "avx2", "avx512", "amx"]
    results = []
    try:
        for level in levels[: levels.index(_core.detected_isa()) + 1]:
            _core.force_isa(level)
            results.append(run(rig, batch))
    finally:
        _core.force_isa(_core.detected_isa())
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-9)
            assert [c for c, _ in a.nearest] == [c for c, _ in b.nearest]


def test_eight_threads_give_the_serial_results(rig: Rig) -> None:
    random = np.random.default_rng(2)
    jobs = [
        Batch(
            [random.standard_normal((3, 5 + i, HIDDEN)).astype(np.float32)],
            np.array([0, 1, 0], np.uint32),
            [f"ignore {i} the secret" * (i % 3), "nor" * i],
            None,
        )
        for i in range(24)
    ]
    serial = [[fields(s) for s in run(rig, job)] for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            results = list(pool.map(lambda job: [fields(s) for s in run(rig, job)], jobs))
            assert results == serial


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_marks_its_text_only(rig: Rig, bad: float) -> None:
    block = np.random.default_rng(3).standard_normal((3, 4, HIDDEN)).astype(np.float32)
    block[1, 2, 7] = bad
    window_text = np.array([0, 0, 1], np.uint32)
    first, second = rig.scorer.score([block], window_text, ["secret", "secret"], True)
    assert not first.finite
    assert math.isnan(first.score)
    assert math.isnan(first.forest_probability)
    assert first.rule_score == pytest.approx(0.9)
    assert first.window == 1
    assert [math.isnan(s) for s in first.window_scores] == [False, True]
    assert (first.family, first.subfamily, first.nearest) == ([], [], [])
    assert second.finite
    assert second.score > 0


def test_text_storage_of_every_width(rig: Rig) -> None:
    for prefix in ["", "a", "é", "中", "🙂", "\ud800", "\x00"]:
        (result,) = rig.scorer.score([], np.zeros(0, np.uint32), [prefix + " secret"])
        n = len(prefix)
        assert result.matches == [(1, n + 1, n + 7)]


def test_read_only_arrays_are_accepted(rig: Rig) -> None:
    block = np.ones((1, 2, HIDDEN), np.float32)
    window_text = np.zeros(1, np.uint32)
    mask = np.ones((1, 2), np.uint8)
    for array in (block, window_text, mask):
        array.flags.writeable = False
    assert len(rig.scorer.score([block], window_text, ["x"], masks=[mask])) == 1


BLOCK = np.ones((2, 4, HIDDEN), np.float32)
INDEX = np.zeros(2, np.uint32)


@pytest.mark.parametrize(
    "block",
    [
        BLOCK.astype(np.float64),
        BLOCK.astype(np.float16),
        BLOCK[0],
        BLOCK[:, ::2],
        np.asfortranarray(BLOCK),
        np.ones((2, 4, 2 * HIDDEN), np.float32)[:, :, ::2],
        BLOCK.tolist(),
        None,
    ],
)
def test_blocks_that_would_be_copied_are_refused(rig: Rig, block: Any) -> None:
    with pytest.raises(TypeError):
        rig.scorer.score([block], INDEX, ["x"])


def test_other_wrong_types(rig: Rig) -> None:
    score: Any = rig.scorer.score
    for window_text in (INDEX.astype(np.int64), INDEX.astype(np.int32), INDEX[None], [0, 0]):
        with pytest.raises(TypeError):
            score([BLOCK], window_text, ["x"])
    with pytest.raises(TypeError):
        score(BLOCK, INDEX, ["x"])
    with pytest.raises(TypeError):
        score([BLOCK], INDEX, "x")
    for text in (None, b"x", 1, ["x"]):
        with pytest.raises(TypeError, match=r"texts\[1\]"):
            score([BLOCK], INDEX, ["x", text])
    with pytest.raises(TypeError):
        score([BLOCK], INDEX, ["x"], masks=[np.ones((2, 4), bool)])


def test_values_that_do_not_fit(rig: Rig) -> None:
    with pytest.raises(ValueError, match="no text"):
        rig.scorer.score([BLOCK], np.array([0, 1], np.uint32), ["x"])
    with pytest.raises(ValueError, match="one entry per window"):
        rig.scorer.score([BLOCK], np.zeros(3, np.uint32), ["x"])
    with pytest.raises(ValueError, match="hidden"):
        rig.scorer.score([np.ones((2, 4, HIDDEN + 1), np.float32)], INDEX, ["x"])
    with pytest.raises(ValueError, match="number"):
        rig.scorer.score([BLOCK], INDEX, ["x"], masks=[])
    with pytest.raises(ValueError, match="shape"):
        rig.scorer.score([BLOCK], INDEX, ["x"], masks=[np.ones((2, 3), np.uint8)])


def test_scorer_checks_its_parts(rig: Rig) -> None:
    binary, family = packed(rig.forests["binary"]), packed(rig.forests["family"])
    parts = (_core.Calibration(WEIGHTS, BIAS), _core.Clusters(rig.centroids, 6), rig.triggers)
    with pytest.raises(ValueError, match="2 outputs"):
        _core.Scorer(family, family, family, *parts, HIDDEN, 0.5)
    with pytest.raises(ValueError, match="hidden"):
        _core.Scorer(binary, family, family, *parts, HIDDEN + 1, 0.5)
    with pytest.raises(ValueError, match="detail_threshold"):
        _core.Scorer(binary, family, family, *parts, HIDDEN, math.nan)
    other = _core.Clusters(np.eye(3, dtype=np.float32), 1)
    with pytest.raises(ValueError, match="centroids"):
        _core.Scorer(binary, family, family, parts[0], other, parts[2], HIDDEN, 0.5)


def test_results_are_read_only(rig: Rig) -> None:
    (result,) = rig.scorer.score([], np.zeros(0, np.uint32), ["x"])
    with pytest.raises(AttributeError):
        result.score = 0.0  # type: ignore[misc]
    result.window_scores.append(1.0)
    assert result.window_scores == []


def test_scorer_outlives_the_objects_it_was_made_of(rig: Rig) -> None:
    def make() -> _core.Scorer:
        forest = packed(rig.forests["binary"])
        return _core.Scorer(
            forest,
            forest,
            forest,
            _core.Calibration(WEIGHTS, BIAS),
            _core.Clusters(rig.centroids, 6),
            _core.TriggerSet([([], ["secret"], 0.9)]),
            HIDDEN,
            0.0,
        )

    scorer = make()
    (result,) = scorer.score([BLOCK[:1]], np.zeros(1, np.uint32), ["secret"])
    assert result.matches == [(0, 0, 6)]


def test_build_info_is_consistent() -> None:
    info = _core.build_info()
    assert info["version"] == _core.__version__
    assert info["compiled_heads"] == _core.compiled_heads()
    assert info["detected_isa"] == _core.detected_isa()
    assert "scalar" in info["isa_variants"]
    assert json.dumps(info)
