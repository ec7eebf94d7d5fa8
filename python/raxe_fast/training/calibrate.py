"""calibration.json: evidence of a window -> probability of an attack, at the text level.

A text stands or falls by its worst window. For models whose forests see the embedding alone, a
logistic model of the worst window's forest logit and the rule score is fitted on dev. For models
with more evidence, the logistic weights are fitted on training texts that the encoder has not seen
(:func:`fit_stack`), and dev only scales and shifts their sum. Either is followed by an isotonic
correction where that lowers the log-loss in cross-validation on dev. No evidence of an attack ever
counts against one, so the weights are not negative; that of the number of windows is not positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raxe_fast.training.metrics import Floats, Ints, expected_calibration_error, log_loss

__all__ = [
    "INPUTS",
    "PROBABILITY_CLIP",
    "CalibrationFit",
    "clipped_logit",
    "fit_calibration",
    "fit_stack",
    "worst_rows",
]

INPUTS = ("forest_logit", "rules", "linear", "passage", "lexical", "windows")
PROBABILITY_CLIP = 1e-4
_RIDGE = 1e-4
_MIN_ISOTONIC = 200


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """Weights of the first 2 or of all INPUTS, bias and isotonic knots (None: identity), and how
    they were chosen."""

    weights: tuple[float, ...]
    bias: float
    knots: tuple[tuple[float, ...], tuple[float, ...]] | None
    log: dict[str, object]

    def __call__(self, evidence: Floats) -> Floats:
        """(N, inputs) evidence -> (N,) probabilities; the reference twin of _core.Calibration."""
        p = _logistic(evidence @ np.array(self.weights) + self.bias)
        return p if self.knots is None else np.interp(p, *self.knots)

    @staticmethod
    def evidence(forest_probability: Floats, rules: Floats) -> Floats:
        """(N, 2) from (N,) worst-window P(attack) and (N,) rule scores."""
        return np.column_stack([clipped_logit(forest_probability), rules])

    def to_dict(self) -> dict[str, object]:
        knots = None if self.knots is None else {"x": [*self.knots[0]], "y": [*self.knots[1]]}
        return {
            "inputs": list(INPUTS[: len(self.weights)]),
            "weights": list(self.weights),
            "bias": self.bias,
            "isotonic": knots,
        }


def clipped_logit(probability: Floats) -> Floats:
    """log(p / (1 - p)), p clipped to [1e-4, 1 - 1e-4] as the core does."""
    p = np.clip(probability, PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)
    return np.log(p / (1 - p))


def _logistic(z: Floats) -> Floats:
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), 1 - 1 / (1 + np.exp(-np.abs(z))))


def _fit_logistic(
    evidence: Floats, labels: Ints, ridge_weight: float = _RIDGE
) -> tuple[tuple[float, ...], float]:
    from scipy.optimize import minimize

    inputs = evidence.shape[1]
    x = np.column_stack([evidence, np.ones(len(labels))])
    sign = np.where(labels == 1, 1.0, -1.0)

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = sign * (x @ w)
        gradient = -(x * (sign * _logistic(-margin))[:, None]).mean(axis=0)
        ridge = ridge_weight * np.append(w[:inputs], 0.0)
        value = float(np.logaddexp(0, -margin).mean() + 0.5 * float(ridge @ w))
        return value, gradient + ridge

    # All but the last of INPUTS are evidence of an attack, never against one.
    bounds = [(0, None) if i < len(INPUTS) - 1 else (None, 0) for i in range(inputs)]
    start = np.append(np.ones(inputs), 0.0)
    if inputs == len(INPUTS):
        start[:inputs] = 1 / inputs
        start[inputs - 1] = 0.0
    result = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)])
    *weights, bias = (float(v) for v in result.x)
    return tuple(weights), bias


def worst_rows(values: Floats, owner: Ints) -> Ints:
    """Row of the highest value of each text, the first of equals, texts ascending; (rows,) values
    and (rows,) text numbers."""
    order = np.lexsort((np.arange(len(values)), -values, owner))
    return order[np.unique(owner[order], return_index=True)[1]]


def fit_stack(evidence: Floats, owner: Ints, labels: Ints, *, rounds: int = 4) -> tuple[float, ...]:
    """Weights of all INPUTS from (windows, 6) evidence, (windows,) text numbers and (texts,)
    labels, none of which the encoder or the forests have seen.

    Which window of a text is the worst depends on the weights, so they are fitted anew for the
    worst windows of the last round. The last input gets no weight here: see fit_calibration.
    Raises ValueError unless both classes are present.
    """
    present = np.unique(owner)
    if len(set(labels[present].tolist())) != 2:
        raise ValueError("the evidence's weights need both attacks and harmless texts")
    x = evidence[:, : len(INPUTS) - 1]
    weights: tuple[float, ...] = (0.3, 0.0, 0.3, 0.3, 0.1)
    for _ in range(rounds):
        rows = worst_rows(x @ np.array(weights), owner)
        weights, _bias = _fit_logistic(x[rows], labels[owner[rows]], 1e-3)
    return (*weights, 0.0)


def _fit_isotonic(p: Floats, labels: Ints) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Centred isotonic regression: strictly increasing knots from (0, 0) to (1, 1).

    Plain isotonic regression is flat over each block, which would merge the scores of many texts
    and with them the thresholds one can choose. One knot at each block's centre, joined by lines,
    keeps the order of all scores.
    """
    order = np.argsort(p, kind="stable")
    blocks: list[list[float]] = []  # sum of p, sum of smoothed labels, size
    for x, y in zip(p[order], labels[order], strict=True):
        blocks.append([float(x), float(y), 1.0])
        while len(blocks) > 1:
            (_, y1, n1), (x2, y2, n2) = blocks[-2], blocks[-1]
            if y1 / n1 < y2 / n2:
                break
            blocks.pop()
            blocks[-1] = [blocks[-1][0] + x2, y1 + y2, n1 + n2]
    xs, ys = [0.0], [0.0]
    for x_sum, y_sum, n in blocks:
        x = x_sum / n
        y = (y_sum + 0.5) / (n + 1.0)  # never exactly 0 or 1 from finitely many texts
        if x > xs[-1] + 1e-9 and x < 1 and y > ys[-1] and y < 1:
            xs.append(x)
            ys.append(y)
    return (*xs, 1.0), (*ys, 1.0)


def _folds(labels: Ints, folds: int, seed: int) -> Ints:
    """A stratified fold number for each text."""
    random, fold = np.random.default_rng(seed), np.empty(len(labels), dtype=np.int64)
    for value in (0, 1):
        members = random.permutation(np.flatnonzero(labels == value))
        fold[members] = np.arange(len(members)) % folds
    return fold


def fit_calibration(
    evidence: Floats,
    labels: Ints,
    *,
    stack: tuple[float, ...] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> CalibrationFit:
    """Fits on the worst windows of N dev texts: (N, 2) forest logit and rule score, or with the
    weights of fit_stack (N, 6) evidence, of which only the sum's scale and shift and the weight of
    the number of windows are fitted here.

    Raises ValueError unless both classes are present.
    """
    if len(set(labels.tolist())) != 2:
        raise ValueError("calibration needs both attacks and harmless texts on dev")
    if stack is None:
        return _calibrate(evidence, labels, folds, seed)
    total = evidence @ np.array(stack)
    # Placed so that the signs _fit_logistic allows are right: the sum for, the windows against.
    reduced = np.zeros((len(labels), len(INPUTS)))
    reduced[:, 0], reduced[:, -1] = total, evidence[:, -1]
    fit = _calibrate(reduced, labels, folds, seed)
    weights = [fit.weights[0] * weight for weight in stack]
    weights[-1] = fit.weights[-1]
    return CalibrationFit(tuple(weights), fit.bias, fit.knots, {**fit.log, "stack": list(stack)})


def _calibrate(evidence: Floats, labels: Ints, folds: int, seed: int) -> CalibrationFit:
    weights, bias = _fit_logistic(evidence, labels)
    plain, corrected = np.empty(len(labels)), np.empty(len(labels))
    fold = _folds(labels, folds, seed)
    for k in range(folds):
        inside, outside = fold != k, fold == k
        w, b = _fit_logistic(evidence[inside], labels[inside])
        p = _logistic(evidence @ np.array(w) + b)
        plain[outside] = p[outside]
        corrected[outside] = np.interp(p[outside], *_fit_isotonic(p[inside], labels[inside]))
    losses = log_loss(labels, plain), log_loss(labels, corrected)
    use = len(labels) >= _MIN_ISOTONIC and losses[1] < losses[0]
    log: dict[str, object] = {
        "folds": folds,
        "texts": len(labels),
        "log_loss": {"logistic": losses[0], "isotonic": losses[1]},
        "ece": {
            "logistic": expected_calibration_error(labels, plain),
            "isotonic": expected_calibration_error(labels, corrected),
        },
        "isotonic_used": use,
    }
    knots = None
    if use:
        knots = _fit_isotonic(_logistic(evidence @ np.array(weights) + bias), labels)
    return CalibrationFit(weights, bias, knots, log)
