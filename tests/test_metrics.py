"""The metrics against scikit-learn, and against counts worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raxe_fast.training import metrics

sk = pytest.importorskip("sklearn.metrics")


def cases() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(5)
    out = []
    for n, digits in ((2, 1), (50, 1), (400, 2), (3000, 8)):
        labels = random.integers(0, 2, n)
        labels[:2] = [0, 1]
        scores = np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(digits)
        out.append((labels, scores))
    return out


@pytest.mark.parametrize("labels,scores", cases())
def test_auc_and_curve_equal_sklearn(labels, scores):
    assert metrics.roc_auc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores))
    fpr, tpr, thresholds = sk.roc_curve(labels, scores, drop_intermediate=False)
    ours = metrics.roc_curve(labels, scores)
    np.testing.assert_allclose(ours[0], thresholds[1:])  # sklearn's first point is +inf
    np.testing.assert_allclose(ours[1], fpr[1:])
    np.testing.assert_allclose(ours[2], tpr[1:])


@pytest.mark.parametrize("labels,scores", cases())
@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1, 1.0])
def test_recall_at_fpr_is_the_best_allowed_point(labels, scores, limit):
    recall, threshold = metrics.recall_at_fpr(labels, scores, limit)
    best = max(
        (
            (scores[labels == 1] >= t).mean()
            for t in np.unique(scores)
            if (scores[labels == 0] >= t).mean() <= limit
        ),
        default=0.0,
    )
    assert recall == pytest.approx(best)
    if math.isfinite(threshold):
        assert (scores[labels == 0] >= threshold).mean() <= limit


@pytest.mark.parametrize("labels,scores", cases())
def test_counts_losses_and_f1_equal_sklearn(labels, scores):
    flagged = scores >= 0.5
    counts = metrics.count(labels, flagged)
    tn, fp, fn, tp = sk.confusion_matrix(labels, flagged, labels=[0, 1]).ravel()
    assert (counts.tp, counts.fp, counts.tn, counts.fn) == (tp, fp, tn, fn)
    if tp + fp + fn:
        assert counts.f1 == pytest.approx(sk.f1_score(labels, flagged))
    inside = np.clip(scores, 0.01, 0.99)
    assert metrics.log_loss(labels, inside) == pytest.approx(sk.log_loss(labels, inside))


def test_macro_f1_equals_sklearn():
    random = np.random.default_rng(1)
    names = ["a", "b", "c", "d", "never_true"]
    true = random.choice(names[:4], 500, p=[0.6, 0.3, 0.09, 0.01]).tolist()
    said = [t if random.random() < 0.6 else str(random.choice(names)) for t in true]
    matrix = metrics.confusion_matrix(true, said, names)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(true, said, labels=names))
    expected = sk.f1_score(true, said, labels=names[:4], average="macro", zero_division=0)
    assert metrics.macro_f1(matrix) == pytest.approx(expected)
    low, high = metrics.macro_f1_interval(matrix, seed=3)
    assert low < metrics.macro_f1(matrix) < high


def test_confusion_matrix_refuses_unknown_classes():
    with pytest.raises(ValueError, match="unknown class"):
        metrics.confusion_matrix(["a"], ["b"], ["a"])


@pytest.mark.parametrize(
    "hits,total,low,high",  # from published tables of the interval
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (8, 1000, 0.0041, 0.0157),
    ],
)
def test_wilson_by_table(hits, total, low, high):
    assert metrics.wilson(hits, total) == pytest.approx((low, high), abs=1e-4)


def test_nothing_to_measure_is_none_not_zero():
    assert metrics.wilson(0, 0) is None
    assert metrics.rate(0, 0) == {"value": None, "count": 0, "total": 0, "interval": None}
    only_benign = np.zeros(5, np.int64)
    assert metrics.roc_auc(only_benign, np.linspace(0, 1, 5)) is None
    assert metrics.recall_at_fpr(only_benign, np.linspace(0, 1, 5), 0.01) is None
    assert metrics.count(only_benign, np.zeros(5, bool)).f1 is None
    assert metrics.macro_f1(np.zeros((2, 2), np.int64)) is None


def test_calibration_error_by_hand():
    labels = np.array([1, 0, 1, 1])
    scores = np.array([0.9, 0.9, 0.1, 1.0])
    # bins of 0.5: {0.1}: |1 - 0.1|; {0.9, 0.9, 1.0}: |2 - 2.8|
    assert metrics.expected_calibration_error(labels, scores, bins=2) == pytest.approx(1.7 / 4)


def test_intervals_are_seeded_and_cover():
    labels, scores = cases()[3]
    counts = metrics.count(labels, scores >= 0.5)
    assert metrics.f1_interval(counts, seed=1) == metrics.f1_interval(counts, seed=1)
    low, high = metrics.f1_interval(counts)
    assert low < counts.f1 < high
    low, high = metrics.auc_interval(labels, scores, resamples=100)
    assert low < metrics.roc_auc(labels, scores) < high
