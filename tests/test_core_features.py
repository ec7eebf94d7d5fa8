"""The features of the core against `naive_features.py`, alone and in the fused call."""

from __future__ import annotations

import importlib.util
import math
import sys
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raxe_fast import _core


def _sibling(name: str) -> ModuleType:
    # pytest imports test files by path (importlib mode), so a file beside this one is no module.
    spec = importlib.util.spec_from_file_location(
        f"raxe_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


naive: Any = _sibling("naive_features")
packed: Any = _sibling("test_core_score").packed

HIDDEN, HEADS, FAMILIES, LABELS = 24, 3, 4, 5
LINEAR, PASSAGE = HIDDEN, HIDDEN + HEADS
LEXICAL, RULES = PASSAGE + 1, PASSAGE + 2
SURFACE = RULES + FAMILIES
SIZE = SURFACE + naive.SURFACE
# (literal, family, weight)
WORDS = [("ignore", 0, 0.6), ("secret", 2, 0.9), ("nor", 0, 0.2), ("x", 3, 0.4)]

# Whatever has been assigned for so long that all versions of `unicodedata` agree on it, and lone
# surrogates and private characters.
SETTLED = st.characters(exclude_categories=["Cn"]).filter(
    lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn"
)
AWKWARD = st.sampled_from(
    "aB1_ .!\t\n\u00a0\u3000\u200b\u00adßﬁ\ufdfaİ中かกé\u0301🙂\ud800\x00\x7f"
)
TEXTS = st.text(st.one_of(SETTLED, AWKWARD), max_size=40)


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def make_parts() -> Any:
    random = np.random.default_rng(6)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape).astype(np.float32)

    return naive.FeatureParts(
        linear_weight=normal(HEADS, HIDDEN),
        linear_bias=normal(HEADS),
        passage_weight=normal(HIDDEN),
        passage_bias=0.25,
        lexical_table=random.integers(-128, 128, (2**9, 1)).astype(np.int8),
        lexical_scale=np.array([0.01], np.float32),
        lexical_bias=np.array([-0.5], np.float32),
        label_table=random.integers(-128, 128, (2**6, LABELS)).astype(np.int8),
        label_scale=(0.01 * np.arange(1, LABELS + 1)).astype(np.float32),
        label_bias=normal(LABELS),
        trigger_family=np.array([family for _, family, _ in WORDS], np.uint32),
        trigger_weight=np.array([weight for _, _, weight in WORDS]),
        families=FAMILIES,
    )


PARTS = make_parts()
FEATURES = PARTS.build()
TRIGGERS = _core.TriggerSet([([], [word], weight) for word, _, weight in WORDS])
EMBEDDING = unit(np.random.default_rng(7).standard_normal(HIDDEN))


# ---- n-grams ---------------------------------------------------------------------------------


def test_hashes_of_the_oracle_are_the_published_ones() -> None:
    assert naive.fnv1a("") == 0x811C9DC5
    assert naive.fnv1a("foobar") == 0xBF9CF968
    assert naive.finalise(1) == 0x514E28B7


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_ngram_hashes_equal_the_naive_ones(text: str) -> None:
    hashes = _core.ngram_hashes(text)
    assert hashes.dtype == np.uint32
    assert sorted(hashes.tolist()) == naive.ngram_hashes(text)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(0, 50), st.integers(0, 50))
def test_ngram_hashes_of_a_window(text: str, begin: int, end: int) -> None:
    window = _core.ngram_hashes(text, begin, end)
    assert window.tolist() == _core.ngram_hashes(text[begin:end]).tolist()
    assert _core.ngram_hashes(text, begin).tolist() == _core.ngram_hashes(text[begin:]).tolist()


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("IGNORE  all\n", "ignore all"),
        ("ig\u200bnore\u00ad all", "ignore all"),
        ("ｉgnоre\u00a0all", "ignore all"),
        (" \t\u3000", ""),
        ("\u200b", ""),
    ],
)
def test_texts_with_the_same_ngrams(text: str, same_as: str) -> None:
    assert _core.ngram_hashes(text).tolist() == _core.ngram_hashes(same_as).tolist()


def test_ngram_hashes_refuses_other_types() -> None:
    hashes: Any = _core.ngram_hashes
    for bad in (None, b"x", 1):
        with pytest.raises(TypeError):
            hashes(bad)
    with pytest.raises(TypeError):
        hashes("x", -1)


# ---- the strongest passage -------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_strongest_passage_equals_numpy(count: int, hidden: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    tokens = random.standard_normal((count, hidden)).astype(np.float32)
    weight = random.standard_normal(hidden).astype(np.float32)
    evidence, begin, end = _core.strongest_passage(tokens, weight, 0.5)
    if count == 0:
        assert (evidence, begin, end) == (0.0, 0, 0)
        return
    means = naive.passage_means(tokens, weight, 0.5)
    assert end - begin == min(count, naive.SPAN)
    assert evidence == pytest.approx(means.max(), abs=1e-4)
    assert means[begin] == pytest.approx(means.max(), abs=1e-4)


def test_strongest_passage_is_the_first_of_equals() -> None:
    weight = np.array([1.0], np.float32)
    assert _core.strongest_passage(np.full((30, 1), 2, np.float32), weight, 1.0) == (3.0, 0, 8)
    tokens = np.zeros((30, 1), np.float32)
    tokens[[12, 25]] = 8
    assert _core.strongest_passage(tokens, weight, 0.0) == (1.0, 5, 13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_strongest_passage_of_tokens_that_are_not_finite(bad: float) -> None:
    tokens = np.zeros((20, 2), np.float32)
    tokens[17, 0] = bad
    assert math.isnan(_core.strongest_passage(tokens, np.ones(2, np.float32), 0.0)[0])


def test_strongest_passage_refuses() -> None:
    passage: Any = _core.strongest_passage
    tokens, weight = np.zeros((3, 2), np.float32), np.ones(2, np.float32)
    with pytest.raises(ValueError, match="length of weight"):
        passage(tokens, np.ones(3, np.float32), 0.0)
    with pytest.raises(ValueError, match="no weights"):
        passage(np.zeros((3, 0), np.float32), np.zeros(0, np.float32), 0.0)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            passage(tokens, np.array([1, bad], np.float32), 0.0)
        with pytest.raises(ValueError, match="not finite"):
            passage(tokens, weight, bad)
    for other in (tokens.astype(np.float64), np.asfortranarray(tokens), tokens[0], None):
        with pytest.raises(TypeError):
            passage(other, weight, 0.0)


# ---- the row ---------------------------------------------------------------------------------


def test_sizes() -> None:
    assert FEATURES.hidden == HIDDEN
    assert FEATURES.size == SIZE
    assert FEATURES.full_size == SIZE + LABELS


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(
        TEXTS, st.lists(st.sampled_from(["ignore ", "SECRET", "nor", "x"])).map("".join)
    ),
    begin=st.integers(0, 50),
    length=st.integers(0, 60),
    evidence=st.floats(-20, 20, width=32),
    seed=st.integers(0, 2**32 - 1),
)
def test_row_equals_numpy(text: str, begin: int, length: int, evidence: float, seed: int) -> None:
    embedding = unit(np.random.default_rng(seed).standard_normal(HIDDEN))
    matches = TRIGGERS.match(text)
    end = begin + length
    row = FEATURES.row(embedding, evidence, text, begin, end, matches)
    expected = PARTS.row(embedding, evidence, text[begin:end], matches)
    assert row.dtype == np.float32
    assert row.shape == (SIZE + LABELS,)
    assert row[:HIDDEN].tolist() == embedding.tolist()
    assert row[PASSAGE] == evidence
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


def test_row_literals() -> None:
    row = FEATURES.row(EMBEDDING, 1.5, "Ignore the secret, ignore", 0, 7, [(0, 0, 6), (2, 2, 5)])
    assert row[PASSAGE] == 1.5
    # Both triggers are of family 0; those of other families are not named in the matches.
    assert row[RULES:SURFACE] == pytest.approx([1 - 0.4 * 0.8, 0, 0, 0], abs=1e-6)
    assert row[SURFACE:SIZE] == pytest.approx(
        [math.log(8), 1 / 6, 0, 0, 1 / 7, 0, 0, math.log2(7), math.log(7), 6], abs=1e-6
    )
    empty = FEATURES.row(EMBEDDING, 0.0, "", 0, 0, [])
    assert empty[LEXICAL] == -0.5
    assert empty[RULES:SIZE].tolist() == [0.0] * (SIZE - RULES)
    assert empty[SIZE:].tolist() == PARTS.label_bias.tolist()


@pytest.mark.parametrize("char", ["\x1f", "\x7f", "\x85", "\u00a0", "\u00a8", "\u0301", "\u200b",
                                  "\ufeff", "é", "中", "🙂", "\U000e0061", "\ud800"])  # fmt: skip
def test_surface_of_awkward_characters(char: str) -> None:
    text = f"a{char}b"
    row = FEATURES.row(EMBEDDING, 0.0, text, 0, 3, [])
    np.testing.assert_allclose(row[SURFACE:SIZE], naive.surface(text), rtol=1e-6)


def test_row_refuses() -> None:
    row: Any = FEATURES.row
    with pytest.raises(ValueError, match="hidden"):
        row(EMBEDDING[:-1].copy(), 0.0, "x", 0, 1, [])
    with pytest.raises(ValueError, match="no trigger"):
        row(EMBEDDING, 0.0, "x", 0, 1, [(len(WORDS), 0, 1)])
    for bad in (EMBEDDING.astype(np.float64), EMBEDDING[None], EMBEDDING.tolist()):
        with pytest.raises(TypeError):
            row(bad, 0.0, "x", 0, 1, [])
    with pytest.raises(TypeError):
        row(EMBEDDING, 0.0, b"x", 0, 1, [])
    with pytest.raises(TypeError):
        row(EMBEDDING, 0.0, "x", -1, 1, [])


F32, I8 = np.float32, np.int8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear_bias": np.zeros(HEADS + 1, F32)}, "do not fit"),
        ({"linear_weight": np.zeros((0, HIDDEN), F32), "linear_bias": np.zeros(0, F32)}, "fit"),
        ({"linear_weight": np.full((HEADS, HIDDEN), np.nan, F32)}, "not finite"),
        ({"linear_bias": np.full(HEADS, np.inf, F32)}, "not finite"),
        ({"passage_weight": np.zeros(HIDDEN + 1, F32)}, "differ in width"),
        ({"passage_weight": np.full(HIDDEN, np.nan, F32)}, "not finite"),
        ({"passage_bias": math.nan}, "not finite"),
        ({"lexical_table": np.zeros((3, 1), I8)}, "another size"),
        ({"lexical_table": np.zeros((0, 1), I8)}, "bits"),
        ({"lexical_table": np.zeros((1, 1), I8)}, "bits"),
        ({"lexical_table": np.zeros((4, 2), I8)}, "differ in outputs"),
        ({"lexical_scale": np.array([np.inf], F32)}, "not finite"),
        ({"lexical_bias": np.zeros(2, F32)}, "scale and bias"),
        (
            {
                "lexical_table": np.zeros((4, 2), I8),
                "lexical_scale": np.ones(2, F32),
                "lexical_bias": np.zeros(2, F32),
            },
            "one output",
        ),
        ({"label_table": np.zeros((6, LABELS), I8)}, "another size"),
        ({"label_bias": np.full(LABELS, np.nan, F32)}, "not finite"),
        ({"trigger_weight": np.zeros(3)}, "one weight a trigger"),
        ({"trigger_weight": np.array([0, 0, 0, 1.0])}, "outside"),
        ({"trigger_weight": np.array([0, 0, 0, -0.1])}, "outside"),
        ({"trigger_weight": np.array([0, 0, 0, np.nan])}, "outside"),
        ({"families": 3}, "out of range"),
    ],
)
def test_features_refuses_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PARTS, **changes).build()


@pytest.mark.parametrize(
    "changes",
    [
        {"linear_weight": np.zeros((HEADS, HIDDEN))},
        {"lexical_table": np.zeros((4, 1), np.uint8)},
        {"trigger_family": np.zeros(len(WORDS), np.int64)},
        {"trigger_weight": np.zeros(len(WORDS), F32)},
        {"families": -1},
    ],
)
def test_features_refuses_what_it_would_have_to_convert(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        replace(PARTS, **changes).build()


# ---- the fused call --------------------------------------------------------------------------

WEIGHTS, BIAS = [0.8, 1.5, 0.3, 0.25, -0.5, -0.6], -0.2
KNOTS = ([0.05, 0.4, 0.9], [0.0, 0.3, 1.0])


@dataclass
class Rig:
    scorer: _core.Scorer
    forests: dict[str, Any]  # scikit-learn
    centroids: NDArray[np.float32]


@dataclass
class Batch:
    blocks: list[NDArray[np.float32]]
    masks: list[NDArray[np.uint8]] | None
    window_text: NDArray[np.uint32]
    spans: NDArray[np.uint32] | None
    texts: list[str]


@pytest.fixture(scope="module")
def rig() -> Rig:
    ensemble = pytest.importorskip("sklearn.ensemble")
    random = np.random.default_rng(8)
    rows = []
    for _ in range(500):
        picks = random.choice(["ignore ", "Secret", "nor", "x", " 12!", "é", "中", "words "], 6)
        text = "".join(picks[: random.integers(0, 7)])
        embedding = unit(random.standard_normal(HIDDEN))
        evidence = float(random.normal(2, 2))
        rows.append(FEATURES.row(embedding, evidence, text, 0, len(text), TRIGGERS.match(text)))
    full = np.array(rows)
    noise = 0.3 * random.standard_normal(500)
    # Each block of the row decides something, so that none could go missing unseen.
    binary = (full[:, [0, LINEAR, PASSAGE, LEXICAL, RULES, SURFACE]] @ [2, 1, 0.5, 1, 2, 1]) + noise
    family = full[:, 1] + full[:, SIZE] + full[:, SURFACE + 7] + noise
    subfamily = full[:, 2] + full[:, -1] + full[:, RULES + 2] + noise
    targets = {
        "binary": (full[:, :SIZE], (binary > np.median(binary)).astype(int)),
        "family": (full, np.digitize(family, np.quantile(family, [0.25, 0.5, 0.75]))),
        "subfamily": (full, np.digitize(subfamily, np.quantile(subfamily, [0.2, 0.5, 0.6]))),
    }
    forests = {
        name: ensemble.RandomForestClassifier(12, max_leaf_nodes=24, random_state=3).fit(x, y)
        for name, (x, y) in targets.items()
    }
    centroids = unit(random.standard_normal((6, HIDDEN)))
    scorer = _core.Scorer(
        *(packed(forests[name]) for name in ("binary", "family", "subfamily")),
        _core.Calibration(WEIGHTS, BIAS, *KNOTS),
        _core.Clusters(centroids, 4),
        TRIGGERS,
        HIDDEN,
        0.5,
        FEATURES,
    )
    return Rig(scorer, forests, centroids)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pieces = st.sampled_from(["ignore ", "SECRET", "nor", "x", " 12!", "é", "中", "🙂", "\u200b"])
    texts = draw(st.lists(st.lists(pieces, max_size=8).map("".join), min_size=1, max_size=4))
    blocks = [
        random.normal(0.3, 1, (draw(st.integers(0, 3)), draw(st.integers(1, 20)), HIDDEN)).astype(
            np.float32
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    total = sum(len(b) for b in blocks)
    masks = None
    if draw(st.booleans()):
        # Padding stands at the end.
        used = [random.integers(0, b.shape[1] + 1, (len(b), 1)) for b in blocks]
        masks = [
            (np.arange(b.shape[1]) < n).astype(np.uint8) for b, n in zip(blocks, used, strict=True)
        ]
    spans = None
    if draw(st.booleans()):
        begin = random.integers(0, 10, (total, 1))
        spans = np.hstack([begin, begin + random.integers(0, 50, (total, 1))]).astype(np.uint32)
    window_text = random.integers(0, len(texts), total).astype(np.uint32)
    return Batch(blocks, masks, window_text, spans, texts)


@dataclass
class Described:
    """One window, described by NumPy; `row` is the core's, which must be close to it."""

    row: NDArray[np.float32]
    passage: tuple[float, int, int]


def described(batch: Batch, text: int) -> list[Described]:
    whole = batch.texts[text]
    matches = TRIGGERS.match(whole)
    out, flat = [], -1
    for b, block in enumerate(batch.blocks):
        for w, tokens in enumerate(block):
            flat += 1
            if batch.window_text[flat] != text:
                continue
            mask = None if batch.masks is None else batch.masks[b][w]
            embedding = _core.mean_pool_l2(tokens, mask)
            seen = tokens if mask is None else np.ascontiguousarray(tokens[mask != 0])
            passage = _core.strongest_passage(seen, PARTS.passage_weight, PARTS.passage_bias)
            means = naive.passage_means(seen, PARTS.passage_weight, PARTS.passage_bias)
            assert passage[0] == pytest.approx(means.max() if len(means) else 0, abs=1e-4)
            span = (0, len(whole)) if batch.spans is None else batch.spans[flat].tolist()
            row = FEATURES.row(embedding, passage[0], whole, *span, matches)
            expected = PARTS.row(embedding, passage[0], whole[slice(*span)], matches)
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)
            out.append(Described(row, passage))
    return out


def probability(forest: Any, row: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(forest.predict_proba(row[None])[0])


def calibrated(forest: float, rules: float, window: Described, windows: int) -> float:
    clipped = min(max(forest, 1e-4), 1 - 1e-4)
    evidence = [
        math.log(clipped / (1 - clipped)),
        rules,
        float(window.row[LINEAR]),
        window.passage[0],
        float(window.row[LEXICAL]),
        math.log(windows),
    ]
    z = BIAS + sum(w * e for w, e in zip(WEIGHTS, evidence, strict=True))
    return float(np.interp(1 / (1 + math.exp(-z)), *KNOTS))


@settings(max_examples=80, deadline=None)
@given(batch=batches(), all_details=st.booleans())
def test_fused_call_equals_recomputation(rig: Rig, batch: Batch, all_details: bool) -> None:
    results = rig.scorer.score(
        batch.blocks, batch.window_text, batch.texts, all_details, batch.masks, batch.spans
    )
    assert len(results) == len(batch.texts)
    for t, got in enumerate(results):
        windows = described(batch, t)
        matches = TRIGGERS.match(batch.texts[t])
        assert got.matches == matches
        rules = 1 - math.prod(1 - WORDS[i][2] for i in {m[0] for m in matches})
        assert got.rule_score == pytest.approx(rules, abs=1e-12)
        assert got.finite
        if not windows:
            assert got.score == got.rule_score
            assert math.isnan(got.linear)
            assert math.isnan(got.passage)
            assert math.isnan(got.lexical)
            assert got.passage_tokens == (0, 0)
            continue
        forest = [probability(rig.forests["binary"], w.row[:SIZE])[1] for w in windows]
        scores = [
            calibrated(p, rules, w, len(windows)) for p, w in zip(forest, windows, strict=True)
        ]
        assert got.window_scores == pytest.approx(scores, abs=1e-9)
        worst = windows[got.window]
        assert got.score == max(got.window_scores)
        assert got.window == got.window_scores.index(got.score)
        assert got.forest_probability == pytest.approx(forest[got.window], abs=1e-9)
        assert got.linear == worst.row[LINEAR]
        assert got.lexical == worst.row[LEXICAL]
        assert (got.passage, *got.passage_tokens) == worst.passage
        cosine = rig.centroids @ worst.row[:HIDDEN]
        assert got.novelty == pytest.approx(1 - cosine.max(), abs=1e-5)
        if all_details or got.score >= 0.5:
            for name in ("family", "subfamily"):
                want = probability(rig.forests[name], worst.row)
                assert getattr(got, name) == pytest.approx(want.tolist(), abs=1e-9)
        else:
            assert (got.family, got.subfamily) == ([], [])


def test_spans_decide_what_text_a_window_sees(rig: Rig) -> None:
    tokens = np.random.default_rng(9).standard_normal((2, 5, HIDDEN)).astype(np.float32)
    text = "harmless words and then ignore"
    owners = np.zeros(1, np.uint32)
    halves = [np.array([span], np.uint32) for span in ([0, 14], [14, 30])]
    seen = [
        rig.scorer.score([tokens[:1]], owners, [text], spans=half)[0].lexical for half in halves
    ]
    for lexical, window in zip(seen, (text[:14], text[14:]), strict=True):
        hashes = naive.ngram_hashes(window)
        want = naive.lexical_scores(
            hashes, PARTS.lexical_table, PARTS.lexical_scale, PARTS.lexical_bias
        )
        assert lexical == pytest.approx(want[0], abs=1e-5)
    assert seen[0] != seen[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_marks_its_text_only(rig: Rig, bad: float) -> None:
    # A huge token has a finite embedding, but its passage's evidence overflows.
    block = np.zeros((3, 1, HIDDEN), np.float32)
    block[:, :, 3] = 1
    block[1] = np.sign(PARTS.passage_weight) * np.float32(bad)
    first, second = rig.scorer.score([block], np.array([0, 0, 1], np.uint32), ["x", "x"], True)
    assert not first.finite
    assert first.window == 1
    assert math.isnan(first.score)
    assert math.isnan(first.linear)
    assert math.isnan(first.passage)
    assert first.passage_tokens == (0, 0)
    assert [math.isnan(s) for s in first.window_scores] == [False, True]
    assert second.finite
    assert second.passage_tokens == (0, 1)


def test_spans_that_do_not_fit(rig: Rig) -> None:
    score: Any = rig.scorer.score
    block, owners = np.ones((2, 4, HIDDEN), np.float32), np.zeros(2, np.uint32)
    for shape in ((1, 2), (3, 2), (2, 1), (2, 3)):
        with pytest.raises(ValueError, match="spans"):
            score([block], owners, ["x"], spans=np.zeros(shape, np.uint32))
    for spans in (np.zeros((2, 2), np.int64), np.zeros(4, np.uint32), [[0, 1], [0, 1]]):
        with pytest.raises(TypeError):
            score([block], owners, ["x"], spans=spans)


def test_scorer_checks_the_features(rig: Rig) -> None:
    forests = [packed(rig.forests[name]) for name in ("binary", "family", "subfamily")]
    parts = [
        _core.Calibration(WEIGHTS, BIAS),
        _core.Clusters(rig.centroids, 4),
        TRIGGERS,
        HIDDEN,
        0.5,
    ]
    with pytest.raises(ValueError, match="n_features"):
        _core.Scorer(*forests, *parts)
    with pytest.raises(ValueError, match="n_features"):
        _core.Scorer(forests[0], forests[0], forests[0], *parts, FEATURES)
    fewer = replace(PARTS, trigger_family=PARTS.trigger_family[:3].copy(),
                    trigger_weight=PARTS.trigger_weight[:3].copy()).build()  # fmt: skip
    with pytest.raises(ValueError, match="differ in number"):
        _core.Scorer(*forests, *parts, fewer)


def test_calibration_takes_two_or_six() -> None:
    six, two = _core.Calibration(WEIGHTS, BIAS), _core.Calibration(WEIGHTS[:2], BIAS)
    z = BIAS + sum(w * e for w, e in zip(WEIGHTS, [1, 2, 3, 4, 5, 6], strict=True))
    assert six([1, 2, 3, 4, 5, 6]) == pytest.approx(1 / (1 + math.exp(-z)))
    assert six([1, 2]) == six([1, 2, 0, 0, 0, 0])
    assert two([1, 2, 3, 4, 5, 6]) == two([1, 2])
    for n in (0, 1, 3, 5, 7):
        with pytest.raises(ValueError, match="weights"):
            _core.Calibration([1.0] * n, 0.0)
        with pytest.raises(ValueError, match="evidence"):
            six([0.0] * n)
