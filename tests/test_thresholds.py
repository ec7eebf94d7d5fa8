"""Presets and the stored curve against brute force over every threshold."""

from __future__ import annotations

import numpy as np
import pytest

from raxe_fast.training.thresholds import dev_curve, fit_thresholds


def data(seed=0, n=5000, separation=0.25, digits=12):
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.25).astype(np.int64)
    scores = np.clip(random.normal(0.3 + separation * labels, 0.12), 0.001, 0.999).round(digits)
    return labels, scores


def rates(labels, scores, t):
    flagged = scores >= t
    tp, fp = np.sum(flagged & (labels == 1)), np.sum(flagged & (labels == 0))
    return fp / np.sum(labels == 0), tp / np.sum(labels == 1), 2 * tp / (tp + fp + labels.sum())


@pytest.mark.parametrize("seed,separation,digits", [(0, 0.25, 12), (1, 0.6, 12), (2, 0.3, 2)])
def test_presets_are_optimal(seed, separation, digits):
    labels, scores = data(seed, separation=separation, digits=digits)
    presets = fit_thresholds(labels, scores)
    every = [rates(labels, scores, t) for t in np.unique(scores)]
    fpr, tpr, f1 = rates(labels, scores, presets["balanced"]["block"])
    benign = np.sum(labels == 0)
    allowed = [f for p, _, f in every if p + np.sqrt(p * (1 - p) / benign) <= 0.008]
    assert fpr < 0.008
    assert f1 == pytest.approx(max(allowed))
    fpr, _, _ = rates(labels, scores, presets["balanced"]["warn"])
    assert fpr <= 0.03
    fpr, tpr, _ = rates(labels, scores, presets["strict"]["block"])
    assert tpr >= 0.97
    assert fpr == pytest.approx(min(p for p, r, _ in every if r >= 0.97))
    fpr, tpr, _ = rates(labels, scores, presets["quiet"]["block"])
    assert fpr <= 0.002
    assert tpr == pytest.approx(max((r for p, r, _ in every if p <= 0.002), default=0))
    for preset in presets.values():
        assert 0 <= preset["warn"] <= preset["block"] <= 1


def test_no_dev_text_sits_on_a_threshold():
    labels, scores = data()
    for preset in fit_thresholds(labels, scores).values():
        assert np.abs(scores - preset["block"]).min() > 0


def test_a_limit_out_of_reach_blocks_nothing():
    labels = np.array([0] * 50 + [1] * 50)
    scores = np.concatenate([np.full(50, 0.9), np.full(50, 0.5)])
    presets = fit_thresholds(labels, scores)
    assert presets["balanced"]["block"] == 1.0
    assert presets["quiet"]["block"] == 1.0
    assert rates(labels, scores, presets["strict"]["block"])[1] == 1.0


def test_curve_is_true_and_short():
    labels, scores = data()
    curve = dev_curve(labels, scores)
    assert len(curve["thresholds"]) <= 400
    assert (curve["benign"], curve["attack"]) == (np.sum(labels == 0), np.sum(labels == 1))
    for t, fpr, tpr in zip(curve["thresholds"], curve["fpr"], curve["tpr"], strict=True):
        assert rates(labels, scores, t)[:2] == pytest.approx((fpr, tpr))
    assert np.all(np.diff(curve["thresholds"]) < 0)
    assert np.all(np.diff(curve["fpr"]) >= 0)
    low = np.array(curve["fpr"])
    assert np.sum(low <= 0.01) >= 20  # where limits are chosen, the curve is dense


def test_bad_input():
    labels, scores = data(n=50)
    with pytest.raises(ValueError, match="both"):
        fit_thresholds(np.zeros(50, np.int64), scores)
    scores[3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_thresholds(labels, scores)
