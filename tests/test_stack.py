"""Weights of all evidence: signs, the worst window, and agreement with the core."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raxe_fast import _core
from raxe_fast.training.calibrate import INPUTS, fit_calibration, fit_stack, worst_rows

pytest.importorskip("sklearn")


def windows(texts=1500, seed=0, misleading=()):
    """(windows, 6) evidence, owner and labels; one window of an attack carries its signal.

    Columns of `misleading` speak against an attack; the n-grams (4) know nothing.
    """
    random = np.random.default_rng(seed)
    labels = (random.random(texts) < 0.4).astype(np.int64)
    sizes = random.integers(1, 5, texts)
    owner = np.repeat(np.arange(texts), sizes)
    evidence = random.normal(0, 1, (len(owner), len(INPUTS)))
    evidence[:, 1] = np.where(random.random(len(owner)) < 0.1, random.random(len(owner)), 0.0)
    evidence[:, 5] = np.log(sizes[owner])
    first = np.searchsorted(owner, np.arange(texts))
    guilty = first + random.integers(0, sizes)
    guilty = guilty[labels == 1]
    for column, strength in ((0, 3.0), (2, 2.0), (3, 1.0)):
        evidence[guilty, column] += -strength if column in misleading else strength
    evidence[guilty, 1] = np.maximum(evidence[guilty, 1], random.random(len(guilty)) / 2)
    return evidence, owner, labels, guilty


def judged(evidence, owner, stack):
    return evidence[worst_rows(evidence @ np.array(stack), owner)]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(-2, 2)), min_size=1, max_size=40),
    st.randoms(),
)
def test_worst_rows_equal_a_loop(pairs, random):
    random.shuffle(pairs)
    owner = np.array([text for text, _ in pairs])
    values = np.array([value for _, value in pairs], dtype=np.float64)
    expected = []
    for text in sorted(set(owner.tolist())):
        own = np.flatnonzero(owner == text)
        expected.append(own[np.argmax(values[own])])  # the first of equals
    assert worst_rows(values, owner).tolist() == expected


def test_the_worst_window_is_the_one_with_the_signal():
    evidence, owner, labels, guilty = windows()
    stack = fit_stack(evidence, owner, labels)
    rows = worst_rows(evidence @ np.array(stack), owner)
    assert np.isin(rows[labels[owner[rows]] == 1], guilty).mean() > 0.9
    # A naive choice, the highest forest logit, finds fewer of them.
    naive = worst_rows(evidence[:, 0], owner)
    assert np.isin(rows, guilty).sum() > np.isin(naive, guilty).sum()


def test_stronger_evidence_weighs_more_and_the_windows_weigh_nothing():
    evidence, owner, labels, _ = windows(texts=4000)
    stack = fit_stack(evidence, owner, labels)
    assert len(stack) == len(INPUTS) == 6 and stack[5] == 0.0
    assert stack[0] > stack[2] > stack[3] > abs(stack[4])
    assert fit_stack(evidence, owner, labels) == stack


@pytest.mark.parametrize("misleading", [(0,), (2, 3), (0, 2, 3)])
def test_misleading_evidence_gets_no_negative_weight(misleading):
    evidence, owner, labels, _ = windows(misleading=misleading)
    stack = fit_stack(evidence, owner, labels)
    assert min(stack) >= 0
    assert all(stack[column] < 0.1 for column in misleading)
    fit = fit_calibration(judged(evidence, owner, stack), labels, stack=stack)
    assert min(fit.weights[:5]) >= 0 and fit.weights[5] <= 0


def test_one_sided_data_is_refused():
    evidence, owner, labels, _ = windows(texts=50)
    for value in (0, 1):
        with pytest.raises(ValueError, match="both"):
            fit_stack(evidence, owner, np.full(50, value))
    # What counts are the texts that have windows.
    some = labels[owner] == 1
    with pytest.raises(ValueError, match="both"):
        fit_stack(evidence[some], owner[some], labels)
    with pytest.raises(ValueError, match="both"):
        fit_calibration(evidence[:50], np.ones(50, np.int64), stack=(1.0,) * 6)


def test_calibration_keeps_the_proportions_of_the_stack():
    evidence, owner, labels, _ = windows()
    stack = fit_stack(evidence, owner, labels)
    fit = fit_calibration(judged(evidence, owner, stack), labels, stack=stack)
    scale = fit.weights[0] / stack[0]
    assert scale > 0
    np.testing.assert_allclose(fit.weights[:5], scale * np.array(stack[:5]), rtol=1e-9)
    raw = fit.to_dict()
    assert raw["inputs"] == list(INPUTS) and raw["weights"] == list(fit.weights)
    assert fit.log["stack"] == list(stack)


def test_many_windows_count_against_a_text_only():
    """The more windows, the higher the worst one of a harmless text by chance alone."""
    random = np.random.default_rng(5)
    n = 4000
    sizes = random.integers(1, 40, n)
    labels = (random.random(n) < 0.3).astype(np.int64)
    evidence = np.zeros((n, 6))
    chance = np.array([random.normal(0, 1, size).max() for size in sizes])
    evidence[:, 0] = np.where(labels == 1, random.normal(3, 1, n), chance)
    evidence[:, 5] = np.log(sizes)
    stack = (1.0, 0.0, 0.5, 0.5, 0.1, 0.0)
    fit = fit_calibration(evidence, labels, stack=stack)
    assert fit.weights[5] < -0.1
    # The other way round there is no bonus for length.
    evidence[:, 5] = np.where(labels == 1, np.log(40), 0.0)
    assert fit_calibration(evidence, labels, stack=stack).weights[5] == 0.0


def test_probabilities_separate_and_are_calibrated():
    evidence, owner, labels, _ = windows(texts=3000)
    stack = fit_stack(evidence, owner, labels)
    rows = judged(evidence, owner, stack)
    p = fit_calibration(rows, labels, stack=stack)(rows)
    assert abs(p.mean() - labels.mean()) < 0.02
    assert p[labels == 1].mean() > p[labels == 0].mean() + 0.4


FIT_DATA = windows()
FIT_STACK = fit_stack(*FIT_DATA[:3])
FIT = fit_calibration(judged(*FIT_DATA[:2], FIT_STACK), FIT_DATA[2], stack=FIT_STACK)
NUMBER = st.floats(-20, 20)


@settings(max_examples=300)
@given(
    row=st.tuples(NUMBER, st.floats(0, 1), NUMBER, NUMBER, NUMBER, st.floats(0, 5)),
    column=st.integers(0, 5),
    step=st.floats(0, 10),
)
def test_monotone_and_equal_to_the_core(row, column, step):
    knots = FIT.knots or ((), ())
    core = _core.Calibration(list(FIT.weights), FIT.bias, list(knots[0]), list(knots[1]))
    more = list(row)
    more[column] += step
    before, after = FIT(np.array([row, more]))
    np.testing.assert_allclose([core(list(row)), core(more)], [before, after], atol=1e-12)
    assert after >= before - 1e-12 if column < 5 else after <= before + 1e-12
