"""Heads on one encoder, fitted on the same texts, with thresholds from dev.

What is fitted and judged here goes through the functions that `raxe-fast train` uses; only the
gradient-boosted trees are this program's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from raxe_fast import _core
from raxe_fast.decode_whole import parts_of
from raxe_fast.feature_data import FeatureData, feature_sizes
from raxe_fast.training import metrics
from raxe_fast.training.calibrate import (
    CalibrationFit,
    clipped_logit,
    fit_calibration,
    fit_stack,
    worst_rows,
)
from raxe_fast.training.class_priors import fit_class_shares
from raxe_fast.training.corpus import Record
from raxe_fast.training.embed import EncoderFiles
from raxe_fast.training.feature_fit import window_evidence
from raxe_fast.training.feature_parts import Rows
from raxe_fast.training.folds import salted_folds
from raxe_fast.training.heads import (
    Heads,
    HeadsConfig,
    fit_heads,
    label_weights,
    window_weights,
)
from raxe_fast.training.thresholds import fit_thresholds
from raxe_fast.training.train_data import Labels, Split

__all__ = ["EMBEDDING", "Boosted", "Detector", "Namer", "Prepared", "detectors", "fit_boosted",
           "judged", "label_figures", "namers"]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Vectors = NDArray[np.float32]

ALL, EMBEDDING = "all features", "embedding"
LINEAR, PASSAGE, LEXICAL = 2, 3, 4  # columns of the evidence
_FOLDS = 5
_MAX_ROUNDS = 300
_ENCODED = "encoding_obfuscation"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Splits train (what the heads learn from), dev and test, their rows, and what made these.

    ``unseen``: (train records,) texts that a fine-tuned encoder has not seen; None: it is not
    fine-tuned, and ``data`` and ``features`` are None too.
    """

    files: EncoderFiles
    splits: dict[str, Split]
    rows: dict[str, Rows]
    labels: Labels
    triggers: _core.TriggerSet
    trigger_bytes: int
    unseen: NDArray[np.bool_] | None
    data: FeatureData | None
    features: _core.Features | None
    jobs: int
    seed: int

    @property
    def inside(self) -> Ints:
        """The windows of the training texts that detectors learn from."""
        owner = self.splits["train"].owner
        return np.arange(len(owner)) if self.unseen is None else np.flatnonzero(self.unseen[owner])

    def seen_by(self, what: str, split: str) -> Vectors:
        """(windows, columns) that a detector on ALL features or on the EMBEDDING alone sees."""
        return self.splits[split].embedded.vectors if what == EMBEDDING else self.rows[split].binary


@dataclass(frozen=True, slots=True)
class Boosted:
    """Gradient-boosted trees; `model` was fitted with the number of rounds chosen before."""

    model: HistGradientBoostingClassifier
    rounds: int

    def raw(self, rows: Vectors) -> Floats:
        """(N,) log-odds."""
        return np.asarray(self.model.decision_function(rows), dtype=np.float64)

    def packed(self) -> tuple[_core.Forest, float, float]:
        """The trees in the core, and (factor, base): the log-odds are factor * mean + base."""
        trees = [stage[0].nodes for stage in self.model._predictors]
        sizes = np.array([len(nodes) for nodes in trees])
        nodes = np.concatenate(trees)
        leaf = nodes["is_leaf"].astype(bool)
        forest = _core.Forest.packed(
            int(self.model.n_features_in_),
            1,
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.where(leaf, -1, nodes["feature_idx"]).astype(np.int32),
            np.where(leaf, 0.0, nodes["num_threshold"]),
            np.where(leaf, -1, nodes["left"].astype(np.int64)).astype(np.int32),
            np.where(leaf, -1, nodes["right"].astype(np.int64)).astype(np.int32),
            np.where(leaf, np.cumsum(leaf) - 1, -1).astype(np.int32),
            np.ascontiguousarray(nodes["value"][leaf]),
        )
        return forest, float(len(trees)), float(np.ravel(self.model._baseline_prediction)[0])


@dataclass(frozen=True, slots=True)
class Detector:
    """One way to tell attacks: (windows, columns) evidence of the splits dev and test, weights of
    a stack where it has one, and the head that is timed and stored."""

    name: str
    sees: str
    evidence: dict[str, Floats]
    stack: tuple[float, ...] | None = None
    head: Heads | Boosted | None = None
    notes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Namer:
    """One way to name attacks: scores of the families and subfamilies of ``labels`` for each window
    of dev and test, judged where the detector `windows` finds a text worst."""

    name: str
    sees: str
    windows: str
    scores: dict[str, tuple[Floats, Floats]]
    head: Heads | None = None


def _folds(records: Sequence[Record]) -> Ints:
    return salted_folds("variants", records, _FOLDS)


def _new_boosted(rounds: int, seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=0.1, early_stopping=False, random_state=seed
    )


def fit_boosted(
    rows: Vectors,
    labels: Ints,
    weights: Floats,
    fold: Ints,
    *,
    max_rounds: int = _MAX_ROUNDS,
    seed: int = 1,
    jobs: int = 1,
) -> tuple[Boosted, Floats]:
    """Boosted trees on (N, columns) rows, and (N,) log-odds of the same rows out of fold.

    fold: (N,) numbers, relatives together. Fold 0 chooses the number of rounds, at the lowest
    log-loss there; then all rows are learnt from. Raises ValueError where one class is missing
    inside or outside of fold 0.
    """
    inside, outside = fold != 0, fold == 0
    if any(len(set(labels[part].tolist())) != 2 for part in (inside, outside)):
        raise ValueError("choosing the rounds needs both classes inside and outside of fold 0")
    with threadpool_limits(jobs):
        model = _new_boosted(max_rounds, seed).fit(rows[inside], labels[inside], weights[inside])
        sign = np.where(labels[outside] == 1, -1.0, 1.0)
        losses = [
            np.average(np.logaddexp(0, sign * np.ravel(raw)), weights=weights[outside])
            for raw in model.staged_decision_function(rows[outside])
        ]
        rounds = 1 + int(np.argmin(losses))
        out_of_fold = np.zeros(len(labels))
        for k in np.unique(fold):
            rest = fold != k
            part = _new_boosted(rounds, seed).fit(rows[rest], labels[rest], weights[rest])
            out_of_fold[~rest] = part.decision_function(rows[~rest])
        return Boosted(_new_boosted(rounds, seed).fit(rows, labels, weights), rounds), out_of_fold


def _probability(raw: Floats) -> Floats:
    return 1 / (1 + np.exp(-raw))


def judged(
    detector: Detector, splits: Mapping[str, Split], seed: int
) -> tuple[dict[str, Any], dict[str, Ints], CalibrationFit]:
    """Figures of dev and test, and the row of each text's worst window (texts with a window,
    ascending). Calibration and threshold come from dev, as in training."""
    dev, evidence = splits["dev"], detector.evidence["dev"]
    order = evidence[:, 0] if detector.stack is None else evidence @ np.array(detector.stack)
    worst = worst_rows(order, dev.owner)
    texts = np.zeros((len(dev.records), evidence.shape[1]))
    texts[:, 0] = clipped_logit(np.zeros(1))[0]  # texts without windows
    texts[dev.owner[worst]] = evidence[worst]
    calibration = fit_calibration(texts, dev.labels, stack=detector.stack, seed=seed)
    figures: dict[str, Any] = {}
    rows: dict[str, Ints] = {}
    threshold = 1.0
    for name in ("dev", "test"):
        split, evidence = splits[name], detector.evidence[name]
        scores = np.zeros(len(split.records))
        np.maximum.at(scores, split.owner, calibration(evidence))
        if name == "dev":
            threshold = fit_thresholds(split.labels, scores)["balanced"]["block"]
        figures[name] = detection_figures(split.labels, scores, threshold)
        rows[name] = worst_rows(evidence @ np.array(calibration.weights), split.owner)
    return figures, rows, calibration


def detection_figures(labels: Ints, scores: Floats, threshold: float) -> dict[str, Any]:
    """F1, rates, recall at 1 % FPR and AUC of (N,) calibrated scores."""
    counts = metrics.count(labels, scores >= threshold)
    at = metrics.recall_at_fpr(labels, scores, 0.01)
    return {
        "threshold": threshold,
        "f1": {"value": counts.f1, "interval": metrics.f1_interval(counts)},
        "fpr": metrics.rate(counts.fp, counts.benign),
        "fnr": metrics.rate(counts.fn, counts.attack),
        "recall_at_fpr_0.01": None if at is None else at[0],
        "auc": {
            "value": metrics.roc_auc(labels, scores),
            "interval": metrics.auc_interval(labels, scores),
        },
        "ece": metrics.expected_calibration_error(labels, scores),
    }


def _forest(prepared: Prepared, what: str, trees: int) -> Heads:
    train = prepared.splits["train"]
    return fit_heads(
        prepared.seen_by(what, "train"),
        train.owner,
        train.labels,
        *prepared.labels.numbers(train.records),
        families=len(prepared.labels.families),
        subfamilies=len(prepared.labels.subfamilies),
        config=HeadsConfig(seed=prepared.seed).with_trees(trees),
        unseen=prepared.unseen,
        details=None if what == EMBEDDING else prepared.rows["train"].full,
        label_weight=None
        if prepared.unseen is None
        else label_weights(train.records, prepared.unseen),
        # As in the model that ships: its forests see the features, not the embedding.
        hide=0 if what == EMBEDDING or prepared.data is None else prepared.files.hidden_size,
        folds=None if prepared.data is None else _folds(train.records),
        jobs=prepared.jobs,
    )


def _weights(prepared: Prepared) -> Floats:
    """(inside windows,) as fit_binary weighs them: an attack's windows share a weight of 1."""
    train = prepared.splits["train"]
    return window_weights(train.owner[prepared.inside], train.labels, HeadsConfig())


def detectors(prepared: Prepared, *, max_rounds: int = _MAX_ROUNDS) -> list[Detector]:
    """All ways to tell attacks that this encoder allows: forests on the embedding alone for a
    frozen one."""
    splits, seed = prepared.splits, prepared.seed
    names = ("dev", "test")
    base = {
        name: window_evidence(
            prepared.data, np.full(len(splits[name].owner), 0.5), prepared.rows[name],
            splits[name], prepared.triggers,
        )
        for name in (names if prepared.data is None else ("train", *names))
    }  # fmt: skip

    def forest_evidence(heads: Heads, what: str) -> dict[str, Floats]:
        out = {}
        for name in names:
            p = np.asarray(heads.binary.predict_proba(prepared.seen_by(what, name)))[:, 1]
            rest = base[name][:, 1:2] if what == EMBEDDING else base[name][:, 1:]
            out[name] = np.column_stack([clipped_logit(p), rest])
        return out

    found = []
    for trees in (50,) if prepared.data is None else (50, 100):
        heads = _forest(prepared, EMBEDDING, trees)
        found.append(
            Detector(f"forest of {trees}, embedding + rules", EMBEDDING,
                     forest_evidence(heads, EMBEDDING), head=heads)
        )  # fmt: skip
    if prepared.data is None:
        return found

    train, inside = splits["train"], prepared.inside
    owner = train.owner[inside]

    def stacked(first: Floats, rows: Ints) -> tuple[float, ...]:
        evidence = base["train"][rows].copy()
        evidence[:, 0] = first
        return fit_stack(evidence, train.owner[rows], train.labels)

    for trees in (50, 100):
        heads = _forest(prepared, ALL, trees)
        stack = stacked(clipped_logit(heads.oob), heads.oob_rows)
        found.append(
            Detector(f"forest of {trees}, all features + stack", ALL,
                     forest_evidence(heads, ALL), stack, heads)
        )  # fmt: skip
    boosted, out_of_fold = fit_boosted(
        prepared.seen_by(ALL, "train")[inside], train.labels[owner], _weights(prepared),
        _folds(train.records)[owner], max_rounds=max_rounds, seed=seed, jobs=prepared.jobs,
    )  # fmt: skip
    with threadpool_limits(prepared.jobs):
        raw = {name: boosted.raw(prepared.seen_by(ALL, name)) for name in names}
    notes = {"rounds": boosted.rounds}
    found.append(
        Detector("boosted trees, all features + Platt", ALL,
                 {name: raw[name][:, None] for name in names}, head=boosted, notes=notes)
    )  # fmt: skip
    evidence = {name: base[name].copy() for name in names}
    for name in names:
        evidence[name][:, 0] = clipped_logit(_probability(raw[name]))
    stack = stacked(clipped_logit(_probability(out_of_fold)), inside)
    found.append(
        Detector("boosted trees, all features + stack", ALL, evidence, stack, boosted, notes=notes)
    )
    found.append(
        Detector("stack without trees", "evidence", {name: base[name] for name in names},
                 stacked(np.zeros(len(inside)), inside))
    )  # fmt: skip
    for title, column in (("linear head alone", LINEAR), ("strongest passage alone", PASSAGE),
                          ("n-grams alone", LEXICAL)):  # fmt: skip
        alone = {name: base[name][:, column : column + 1] for name in names}
        found.append(Detector(title, title, alone))
    return found


def _log_softmax(scores: Floats) -> Floats:
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def _columns(wanted: Sequence[str], names: Sequence[str], scores: Floats) -> Floats:
    """The columns of the classes wanted; -inf for a class that the linear head does not know."""
    out = np.full((len(scores), len(wanted)), -np.inf)
    index = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(wanted):
        if name in index:
            out[:, i] = scores[:, index[name]]
    return out


def namers(
    prepared: Prepared, found: Sequence[Detector], worst: Mapping[str, Mapping[str, Ints]]
) -> list[Namer]:
    """All ways to name attacks. Forests are judged at the windows of the detector that was fitted
    with them, the others at those of the forest of 50 on all features. ``worst``: by detector, the
    rows that :func:`judged` gives; the forests get the class shares of dev, as in training."""
    names, out = ("dev", "test"), []
    for detector in found:
        heads = detector.head
        if not isinstance(heads, Heads):
            continue
        seen = {
            name: prepared.splits[name].embedded.vectors
            if detector.sees == EMBEDDING
            else prepared.rows[name].full
            for name in names
        }
        dev = prepared.splits["dev"]
        fit_class_shares(heads, seen["dev"], worst[detector.name]["dev"], dev, prepared.labels)
        scores = {
            name: (
                np.asarray(heads.family.predict_proba(rows)),
                np.asarray(heads.subfamily.predict_proba(rows)),
            )
            for name, rows in seen.items()
        }
        trees = len(heads.family.estimators_)
        title = f"labels: forests of {trees}, {detector.sees}"
        out.append(Namer(title, detector.sees, detector.name, scores, heads))
    if prepared.data is None:
        return out
    shipped = next(item.name for item in found if item.sees == ALL)
    linear, lexical, both = {}, {}, {}
    for name in names:
        linear[name] = _linear_labels(prepared, name)
        lexical[name] = _lexical_labels(prepared, name)
        both[name] = (linear[name][0] + lexical[name][0], linear[name][1] + lexical[name][1])
    out.append(Namer("labels: linear head", "linear head alone", shipped, linear))
    out.append(Namer("labels: n-grams", "n-grams alone", shipped, lexical))
    out.append(Namer("labels: linear head + n-grams", "evidence", shipped, both))
    return out


def _linear_labels(prepared: Prepared, split: str) -> tuple[Floats, Floats]:
    """Log-probabilities of families and subfamilies among the attacks, by the linear heads."""
    data, labels = prepared.data, prepared.labels
    assert data is not None
    full, hidden = prepared.rows[split].full, data.linear_weight.shape[1]
    logits = full[:, hidden : hidden + len(data.linear_names)].astype(np.float64)
    families = [f"family:{name}" for name in labels.families]
    subfamilies = [f"subfamily:{family}/{name}" for family, name in labels.subfamilies]
    return (
        _log_softmax(_columns(families, data.linear_names, logits)),
        _log_softmax(_columns(subfamilies, data.linear_names, logits)),
    )


def _lexical_labels(prepared: Prepared, split: str) -> tuple[Floats, Floats]:
    """The same by the n-gram model; a family is as likely as its subfamilies together."""
    data, labels = prepared.data, prepared.labels
    assert data is not None
    size = feature_sizes(data, len(labels.families))["labels"]
    subfamilies = _log_softmax(prepared.rows[split].full[:, -size:].astype(np.float64))
    families = np.stack(
        [
            np.logaddexp.reduce(
                subfamilies[:, [i for i, (of, _) in enumerate(labels.subfamilies) if of == name]],
                axis=1,
            )
            for name in labels.families
        ],
        axis=1,
    )
    return families, subfamilies


def label_figures(prepared: Prepared, namer: Namer, worst: Mapping[str, Ints]) -> dict[str, Any]:
    """Macro-F1 of family and subfamily over all attacks of dev and test, whatever their score.

    As in the scanner: the likeliest family, then its likeliest subfamily; where the worst window
    is what an encoded part of the text says, the encoding gives both.
    """
    labels = prepared.labels
    members = {
        family: [i for i, (of, _) in enumerate(labels.subfamilies) if of == family]
        for family in labels.families
    }
    out: dict[str, Any] = {}
    for name in ("dev", "test"):
        split = prepared.splits[name]
        owner, attack = split.owner, split.labels == 1
        answers = {"family": [""] * len(split.records), "subfamily": [""] * len(split.records)}
        families, subfamilies = namer.scores[name]
        for row in worst[name].tolist():
            record = int(owner[row])
            if not attack[record]:
                continue
            family = labels.families[int(np.argmax(families[row]))]
            best = max(members[family], key=subfamilies[row].__getitem__)
            subfamily = labels.subfamilies[best][1]
            text = int(split.embedded.owner[row])
            parts = parts_of(split.records[record].text)
            part = parts.read()[text - int(np.searchsorted(split.record_of, record))]
            if part and _ENCODED in labels.families:
                family = _ENCODED
                subfamily = parts.views[part - 1].subfamily
            answers["family"][record] = family
            answers["subfamily"][record] = f"{family}/{subfamily}"
        out[name] = {}
        attacks = np.flatnonzero(attack).tolist()
        truth = {
            "family": [split.records[i].family for i in attacks],
            "subfamily": [
                f"{split.records[i].family}/{split.records[i].subfamily}" for i in attacks
            ],
        }
        for kind, true in truth.items():
            predicted = [answers[kind][i] for i in attacks]
            classes = sorted({*true, *predicted})
            matrix = metrics.confusion_matrix(true, predicted, classes)
            out[name][f"{kind}_macro_f1"] = {
                "value": metrics.macro_f1(matrix),
                "interval": metrics.macro_f1_interval(matrix),
                "classes": len(set(true)),
            }
    return out
