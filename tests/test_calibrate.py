"""Calibration: constraints, order, and agreement with the core and with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from raxe_fast import _core
from raxe_fast.training.calibrate import CalibrationFit, clipped_logit, fit_calibration
from raxe_fast.training.metrics import expected_calibration_error

pytest.importorskip("sklearn")


def sample(n=4000, seed=0, warp=1.0, signal=1.0):
    """Labels drawn from a known probability; the forest reports a power of it."""
    random = np.random.default_rng(seed)
    truth = random.beta(0.6, 1.4, n)
    labels = (random.random(n) < truth).astype(np.int64)
    rules = np.where(random.random(n) < 0.2 + 0.5 * labels, random.random(n), 0.0)
    forest = np.clip(truth**warp, 0, 1) if signal > 0 else 1 - truth
    return forest, rules, labels


def fitted(forest, rules, labels):
    """The calibration of a model whose forests see the embedding alone."""
    return fit_calibration(CalibrationFit.evidence(forest, rules), labels)


def test_equals_the_core_and_keeps_the_order():
    forest, rules, labels = sample(warp=2.5)
    fit = fitted(forest, rules, labels)
    raw = fit.to_dict()
    assert raw["inputs"] == ["forest_logit", "rules"]
    knots = raw["isotonic"] or {"x": [], "y": []}
    core = _core.Calibration(raw["weights"], raw["bias"], knots["x"], knots["y"])
    evidence = fit.evidence(forest, rules)
    ours = fit(evidence)
    theirs = np.array([core(row) for row in evidence.tolist()])
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    line = fit(fit.evidence(np.linspace(1e-4, 1 - 1e-4, 500), np.zeros(500)))
    assert np.all(np.diff(line) > 0)  # strictly: no two scores are merged
    assert np.all((ours > 0) & (ours < 1))


def test_logistic_equals_sklearn():
    from sklearn.linear_model import LogisticRegression

    forest, rules, labels = sample()
    fit = fitted(forest, rules, labels)
    evidence = fit.evidence(forest, rules)
    other = LogisticRegression(C=1 / (1e-4 * len(labels)), tol=1e-9).fit(evidence, labels)
    np.testing.assert_allclose(fit.weights, other.coef_[0], rtol=1e-2)
    assert fit.bias == pytest.approx(other.intercept_[0], rel=1e-2)


def test_isotonic_is_used_only_where_it_helps():
    forest, rules, labels = sample(n=6000)
    straight = fitted(1 / (1 + np.exp(-clipped_logit(forest))), rules * 0, labels)
    # A logistic cannot follow a step; the correction can.
    random = np.random.default_rng(1)
    p = random.random(6000)
    step = (random.random(6000) < np.where(p > 0.9, 0.95, 0.1)).astype(np.int64)
    bent = fitted(p, np.zeros(6000), step)
    assert bent.knots is not None
    assert bent.log["log_loss"]["isotonic"] < bent.log["log_loss"]["logistic"]
    scores = bent(bent.evidence(p, np.zeros(6000)))
    uncorrected = bent.log["ece"]["logistic"]
    assert expected_calibration_error(step, scores) < uncorrected / 2
    used = straight.log["log_loss"]["isotonic"] < straight.log["log_loss"]["logistic"]
    assert (straight.knots is not None) == used
    x, y = bent.knots
    assert np.all(np.diff(x) > 0) and np.all(np.diff(y) > 0)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_a_misleading_forest_gets_no_negative_weight():
    forest, rules, labels = sample(signal=-1)
    fit = fitted(forest, rules, labels)
    assert fit.weights[0] >= 0
    assert fit.weights[1] >= 0


def test_small_or_one_sided_data():
    forest, rules, labels = sample(n=60)
    assert fitted(forest, rules, labels).knots is None
    with pytest.raises(ValueError, match="both"):
        fitted(forest, rules, np.zeros(60, np.int64))
