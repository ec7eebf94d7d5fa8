"""Class factors against a known shift of class shares, tilted forests against their own leaves."""

from __future__ import annotations

import numpy as np
import pytest
import treelite

from raxe_fast.training.class_priors import class_factors, tilt_forest
from raxe_fast.training.corpus import Record
from raxe_fast.training.heads import HeadSettings, fit_forest, label_weights

CLASSES = 3


def sample(shares, count, seed):
    """Texts of three Gaussian classes, which occur by ``shares``."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, size=count, p=shares)
    centres = np.array([[0.0, 0.0], [1.2, 0.0], [0.0, 1.2]])
    return (centres[labels] + rng.normal(size=(count, 2))).astype(np.float32), labels


def posterior(rows, shares):
    centres = np.array([[0.0, 0.0], [1.2, 0.0], [0.0, 1.2]])
    density = np.exp(-0.5 * ((rows[:, None] - centres) ** 2).sum(-1)) * shares
    return density / density.sum(1, keepdims=True)


def test_factors_recover_a_shift_of_the_shares():
    learnt, met = np.array([1, 1, 1]) / 3, np.array([0.7, 0.2, 0.1])
    rows, labels = sample(met, 20_000, 1)
    found = class_factors(posterior(rows, learnt), labels, ridge=0.0)
    expected = met / learnt
    expected /= np.exp(np.log(expected).mean())
    assert found == pytest.approx(expected, rel=0.08)


def test_factors_of_a_fitting_forest_are_near_one():
    shares = np.array([0.5, 0.3, 0.2])
    rows, labels = sample(shares, 20_000, 2)
    assert class_factors(posterior(rows, shares), labels) == pytest.approx(np.ones(3), rel=0.06)


def test_the_ridge_holds_what_few_texts_say():
    rows, labels = sample(np.array([0.4, 0.4, 0.2]), 60, 3)
    probabilities = posterior(rows, np.ones(3) / 3)
    free, held = (np.log(class_factors(probabilities, labels, ridge=r)) for r in (0.0, 10.0))
    assert np.abs(held).max() < 0.2 * np.abs(free).max()


def test_a_class_that_dev_lacks_shrinks_and_stays_positive():
    rows, labels = sample(np.array([0.5, 0.5, 0.0]), 500, 4)
    found = class_factors(posterior(rows, np.ones(3) / 3), labels)
    assert 0 < found[2] < found[:2].min()


def test_factors_need_texts():
    with pytest.raises(ValueError, match="labelled"):
        class_factors(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


@pytest.fixture
def forest():
    rows, labels = sample(np.array([0.6, 0.3, 0.1]), 400, 5)
    return fit_forest(rows, labels, HeadSettings(trees=7, max_leaf_nodes=16), classes=CLASSES)


def test_a_tilted_forest_averages_tilted_leaves(forest):
    rows, _ = sample(np.ones(3) / 3, 200, 6)
    factors = np.array([0.5, 1.0, 4.0])
    leaves = forest.apply(rows)
    expected = np.zeros((len(rows), CLASSES))
    for column, tree in enumerate(forest.estimators_):
        shares = tree.tree_.value[leaves[:, column], 0] * factors
        expected += shares / shares.sum(1, keepdims=True) / len(forest.estimators_)
    tilt_forest(forest, factors)
    assert forest.predict_proba(rows) == pytest.approx(expected, abs=1e-12)
    model = treelite.sklearn.import_model(forest)
    exported = treelite.gtil.predict(model, rows).reshape(len(rows), CLASSES)
    assert exported == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("factors", [np.ones(2), np.array([1.0, 0.0, 1.0]), np.ones(4)])
def test_factors_must_fit_the_forest(forest, factors):
    with pytest.raises(ValueError, match="positive factors"):
        tilt_forest(forest, factors)


def test_root_weights_stand_between_size_and_equality():
    rows, labels = sample(np.array([0.9, 0.07, 0.03]), 2_000, 7)
    mass = {}
    for weight in (None, "sqrt", "balanced"):
        settings = HeadSettings(trees=15, max_leaf_nodes=16, class_weight=weight)
        fitted = fit_forest(rows, labels, settings, classes=CLASSES)
        mass[weight] = fitted.predict_proba(rows)[:, 2].mean()
    assert mass[None] < mass["sqrt"] < mass["balanced"]


def test_our_own_texts_count_less_and_unseen_ones_more():
    records = [Record(text="a", label=1, source=s) for s in ("own:x", "own:x", "other", "other")]
    weights = label_weights(records, np.array([False, True, False, True]))
    assert weights[0] < weights[2] < weights[3] and weights[0] < weights[1] < weights[3]
