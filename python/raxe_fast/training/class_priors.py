"""Fits the label forests to how often each class occurs.

The texts the forests learn from are not distributed like traffic: rare classes are weighted up, or
they would vanish, and our own texts are written class by class. One factor a class, fitted on dev,
undoes what of that is too much. It is worked into the leaves, so nothing is added at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.metrics import Floats, Ints

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from raxe_fast.training.heads import Heads
    from raxe_fast.training.train_data import Labels, Split

__all__ = ["class_factors", "fit_class_shares", "tilt_forest"]

_SMALLEST = 1e-4


def class_factors(probabilities: Floats, labels: Ints, ridge: float = 0.03) -> Floats:
    """(classes,) factors b that make (N, classes) probabilities times b, normalised, the likeliest
    for (N,) labels; ``ridge`` times their mean squared logarithm is paid for straying from 1.

    Labels may lack classes: theirs shrink as far as the ridge lets them. Raises ValueError without
    texts.
    """
    from scipy.optimize import minimize

    if not len(labels):
        raise ValueError("class factors need labelled texts")
    logs = np.log(np.clip(probabilities, _SMALLEST, None))
    count, classes = logs.shape

    def loss(shift: Floats) -> tuple[float, Floats]:
        total = logs + shift
        total -= total.max(axis=1, keepdims=True)
        share = np.exp(total)
        share /= share.sum(axis=1, keepdims=True)
        value = float(-np.log(share[np.arange(count), labels]).mean())
        gradient = share.sum(axis=0)
        gradient -= np.bincount(labels, minlength=classes)
        penalty = ridge * float((shift**2).mean())
        return value + penalty, gradient / count + 2 * ridge * shift / classes

    found = minimize(loss, np.zeros(classes), jac=True, method="L-BFGS-B")
    factors: Floats = np.exp(found.x - found.x.mean())
    return factors


def tilt_forest(forest: RandomForestClassifier, factors: Floats) -> None:
    """Multiplies the class shares of every node by (classes,) factors and normalises them anew, in
    place. Raises ValueError for factors that are not positive or not one for each class."""
    if len(factors) != forest.n_classes_ or not np.all(factors > 0):
        raise ValueError(f"needs {forest.n_classes_} positive factors")
    for tree in forest.estimators_:
        values = tree.tree_.value  # a view of the tree's own memory: (nodes, 1, classes)
        values *= factors
        values /= values.sum(axis=2, keepdims=True)


def fit_class_shares(
    heads: Heads, rows: NDArray[np.float32], worst: Ints, dev: Split, labels: Labels
) -> dict[str, list[float]]:
    """Fits family and subfamily to the class shares of the dev attacks, by their worst windows."""
    attacks = worst[dev.labels[dev.owner[worst]] == 1]
    found: dict[str, list[float]] = {}
    numbers = labels.numbers(dev.records)
    forests = {"family": heads.family, "subfamily": heads.subfamily}
    for (name, forest), number in zip(forests.items(), numbers, strict=True):
        truth = number[dev.owner[attacks]]
        known = truth >= 0
        if not known.any():
            continue
        probabilities = np.asarray(forest.predict_proba(rows[attacks[known]]))
        factors = class_factors(probabilities, truth[known])
        tilt_forest(forest, factors)
        found[name] = [round(float(value), 6) for value in factors]
    return found
