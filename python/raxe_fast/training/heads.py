"""The three random forests: is it an attack, of which family, of which subfamily.

Trained on window embeddings of the shipped INT8 encoder, leaves bounded so that the generated C
compiles in about a minute. Three ways of labelling the windows of a long attack text can be
chosen (only one of its windows may hold the attack, and the label is the text's):

    all     every window is an attack, weight 1
    share   every window is an attack, weight 1 / (windows of the text)
    worst   fit once with "share", then keep the window that looks worst *out of bag*

Harmless texts keep all windows at weight 1: each of them must pass, since the text's score is
the maximum. The family heads learn attacks only, from the window that the binary head finds
worst out of bag, because that is the window they are asked about at run time.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.corpus import Record
from raxe_fast.training.own_data import is_own

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = [
    "HeadSettings",
    "Heads",
    "HeadsConfig",
    "export_forest",
    "fit_binary",
    "fit_forest",
    "fit_heads",
    "hide_columns",
    "label_weights",
    "out_of_fold",
    "window_weights",
    "worst_windows",
]

Labelling = Literal["all", "share", "worst"]
Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


# Optional fields of Treelite's nodes that nothing reads. The counts of rows stay: compiled code has
# its branch hints from them.
_STATISTICS = ("sum_hess", "gain")


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """Of one forest; see scikit-learn's RandomForestClassifier for their meaning."""

    trees: int = 50
    max_leaf_nodes: int = 256
    max_features: float | str = "sqrt"
    min_samples_leaf: int = 1
    # "sqrt": a class counts by the root of its size, between its size and all alike.
    class_weight: Literal["balanced", "balanced_subsample", "sqrt"] | None = None
    criterion: Literal["gini", "entropy", "log_loss"] = "gini"
    max_samples: float | None = None


@dataclass(frozen=True, slots=True)
class HeadsConfig:
    """All that decides the forests, apart from the data."""

    # Half of the columns for a split: with the root of them most draws miss all of the few that
    # matter (dev: F1 0.953, recall at 1 % and 0.1 % FPR 0.939 and 0.824; with half 0.957, 0.944
    # and 0.844, and F1 0.956 to 0.957 with 20 or 35 %).
    binary: HeadSettings = field(
        default_factory=lambda: HeadSettings(criterion="entropy", max_features=0.5)
    )
    # Rare families and subfamilies would vanish without class weights; with equal ones they take
    # over (dev: subfamily macro-F1 0.660 without, 0.669 balanced, 0.685 by the root). Few columns
    # tell two neighbouring classes apart, and a split that draws too few never meets them (dev, of
    # all windows that look worst: family 0.783 and subfamily 0.646 with the root of the columns,
    # 0.813 and 0.714 with 35 %, 0.814 and 0.722 with half).
    family: HeadSettings = field(
        default_factory=lambda: HeadSettings(class_weight="sqrt", max_features=0.35)
    )
    subfamily: HeadSettings = field(
        default_factory=lambda: HeadSettings(class_weight="sqrt", max_features=0.5)
    )
    labelling: Labelling = "share"
    # Whether the forests of a model with features see the embedding, too: 384 columns of little
    # each, among which a tree seldom draws the few that matter (dev: recall at 1 % FPR 0.933
    # without against 0.923 with it, family macro-F1 0.804 against 0.786).
    embedding: bool = False
    seed: int = 1

    def with_trees(self, trees: int) -> HeadsConfig:
        return replace(
            self,
            binary=replace(self.binary, trees=trees),
            family=replace(self.family, trees=trees),
            subfamily=replace(self.subfamily, trees=trees),
        )

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(slots=True)
class Heads:
    """Fitted forests; class indices are those of the labels in the manifest."""

    binary: RandomForestClassifier
    family: RandomForestClassifier
    subfamily: RandomForestClassifier
    worst_rows: Ints  # row of each attack text's worst window, texts the encoder has not seen first
    # (k,) rows the binary head was fitted on, and P(attack) of each by trees that have not seen it;
    # with folds, by trees that have not seen its text or a relative either.
    oob_rows: Ints
    oob: Floats


def fit_forest(
    vectors: Vectors,
    labels: Ints,
    settings: HeadSettings,
    *,
    classes: int,
    weights: Floats | None = None,
    seed: int = 1,
    jobs: int = 2,
    oob: bool = False,
) -> RandomForestClassifier:
    """A forest over (N, H) vectors; the same input and seed give the same forest.

    Raises ValueError unless each of the `classes` labels 0, 1, ... occurs, as the outputs of the
    head are positions in the manifest's label list.
    """
    from sklearn.ensemble import RandomForestClassifier

    present = np.unique(labels)
    if not np.array_equal(present, np.arange(classes)):
        missing = sorted(set(range(classes)) - set(present.tolist()))
        raise ValueError(f"no training windows for class numbers {missing}")
    class_weight = settings.class_weight
    if class_weight == "sqrt":
        weights = np.ones(len(labels)) if weights is None else weights
        size = np.bincount(labels, weights=weights, minlength=classes)
        weights, class_weight = weights * np.sqrt(size.mean() / size)[labels], None
    forest = RandomForestClassifier(
        n_estimators=settings.trees,
        max_leaf_nodes=settings.max_leaf_nodes,
        max_features=settings.max_features,
        min_samples_leaf=settings.min_samples_leaf,
        class_weight=class_weight,
        criterion=settings.criterion,
        max_samples=settings.max_samples,
        random_state=seed,
        n_jobs=jobs,
        oob_score=oob,
    )
    with warnings.catch_warnings():
        # Small forests leave rows without an out-of-bag tree; _out_of_bag says what they get.
        warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
        forest.fit(vectors, labels, sample_weight=weights)
    # With several jobs predict_proba adds trees in the order they finish: not reproducible.
    return forest.set_params(n_jobs=1)


def worst_windows(scores: Floats, owner: Ints, texts: Sequence[int]) -> Ints:
    """For each text number, the row of its window with the highest score (the first of equals).

    scores and owner are (rows,): the score and the text number of each row. Every text asked for
    must own a row (KeyError otherwise).
    """
    order = np.lexsort((np.arange(len(scores)), -scores, owner))
    first = np.unique(owner[order], return_index=True)
    row_of = dict(zip(first[0].tolist(), order[first[1]].tolist(), strict=True))
    return np.array([row_of[text] for text in texts], dtype=np.int64)


def _out_of_bag(forest: RandomForestClassifier) -> Floats:
    """(rows,) P(attack) by the trees that did not see the row; rows that all saw get 0.5."""
    votes = np.asarray(forest.oob_decision_function_, dtype=np.float64)
    return np.nan_to_num(votes[:, 1], nan=0.5)


def fit_binary(
    vectors: Vectors, owner: Ints, text_label: Ints, *, config: HeadsConfig, jobs: int = 2
) -> tuple[RandomForestClassifier, Ints]:
    """The binary head, and the row of each attack text's worst window, texts ascending.

    (rows, H) vectors, (rows,) text number of each row, (texts,) labels 0 or 1.
    """
    labels = text_label[owner]
    weights = window_weights(owner, text_label, config)
    forest = fit_forest(
        vectors, labels, config.binary, classes=2, weights=weights, seed=config.seed, jobs=jobs,
        oob=True,
    )  # fmt: skip
    attacks = np.unique(owner[labels == 1])
    rows = worst_windows(_out_of_bag(forest), owner, attacks.tolist())
    if config.labelling == "worst":
        keep = np.sort(np.concatenate([np.flatnonzero(labels == 0), rows]))
        forest = fit_forest(
            vectors[keep], labels[keep], config.binary, classes=2, seed=config.seed, jobs=jobs,
            oob=True,
        )  # fmt: skip
    return forest, rows


def window_weights(owner: Ints, text_label: Ints, config: HeadsConfig) -> Floats:
    """(rows,) weights of windows: those of an attack share one, unless all are labelled alike."""
    sizes = np.bincount(owner, minlength=len(text_label))[owner]
    return np.where((text_label[owner] == 1) & (config.labelling != "all"), 1.0 / sizes, 1.0)


def out_of_fold(
    vectors: Vectors,
    owner: Ints,
    text_label: Ints,
    folds: Ints,
    *,
    config: HeadsConfig,
    jobs: int = 2,
) -> Floats:
    """(rows,) P(attack) by a forest like the binary head that was fitted on the other folds.

    A bootstrap draws windows: a text that is out of one tree's bag has others of its windows, and
    of what was made of it, inside. folds: (texts,) numbers, relatives together.
    """
    votes = np.full(len(owner), 0.5)
    weights = None if config.labelling == "worst" else window_weights(owner, text_label, config)
    for fold in np.unique(folds[owner]):
        inside = folds[owner] != fold
        forest = fit_forest(
            vectors[inside],
            text_label[owner[inside]],
            config.binary,
            classes=2,
            weights=None if weights is None else weights[inside],
            seed=config.seed,
            jobs=jobs,
        )
        votes[~inside] = np.asarray(forest.predict_proba(vectors[~inside]))[:, 1]
    return votes


def fit_heads(
    vectors: Vectors,
    owner: Ints,
    text_label: Ints,
    text_family: Ints,
    text_subfamily: Ints,
    *,
    families: int,
    subfamilies: int,
    config: HeadsConfig,
    unseen: NDArray[np.bool_] | None = None,
    details: Vectors | None = None,
    label_weight: Floats | None = None,
    hide: int = 0,
    folds: Ints | None = None,
    jobs: int = 2,
) -> Heads:
    """Fits all heads on (rows, H) window vectors, family and subfamily on ``details`` (rows, D) if
    given. The first ``hide`` columns are hidden from all of them: no tree asks for a column that
    never varies.

    owner: (rows,) text number of each row. text_label: (texts,) 0 or 1. text_family and
    text_subfamily: (texts,) class numbers, -1 for harmless texts. Attack texts without a window
    take no part. unseen: (texts,) texts that a fine-tuned encoder has not seen; the binary head
    learns from them alone, or it would trust a separation that new texts do not show. Family and
    subfamily learn from all attacks: they only rank, and the held-out ones lack rare classes.
    label_weight: (texts,) how much a text counts for these two, all alike unless given; those of
    weight 0 are left out, also of the rows of attacks that are given back. folds: (texts,) numbers
    for the votes of :attr:`Heads.oob` (see :func:`out_of_fold`); out of bag unless given.
    """
    if hide:
        vectors = hide_columns(vectors, hide)
        details = None if details is None else hide_columns(details, hide)
    if unseen is None:
        inside = np.arange(len(owner))
        binary, rows = fit_binary(vectors, owner, text_label, config=config, jobs=jobs)
        fitted_on = _fitted_rows(inside, owner, text_label, rows, config)
    else:
        inside = np.flatnonzero(unseen[owner])
        binary, rows = fit_binary(
            vectors[inside], owner[inside], text_label, config=config, jobs=jobs
        )
        scores = np.asarray(binary.predict_proba(vectors))[:, 1]
        others = np.unique(owner[~unseen[owner] & (text_label[owner] == 1)])
        rest = worst_windows(scores, owner, others.tolist())
        fitted_on = _fitted_rows(inside, owner, text_label, inside[rows], config)
        rows = np.concatenate([inside[rows], rest])
    if label_weight is not None:
        rows = rows[label_weight[owner[rows]] > 0]
    attacks = owner[rows]
    worst = (vectors if details is None else details)[rows]
    counts = None if label_weight is None else label_weight[attacks]
    family = fit_forest(
        worst,
        text_family[attacks],
        config.family,
        classes=families,
        weights=counts,
        seed=config.seed + 1,
        jobs=jobs,
    )
    subfamily = fit_forest(
        worst,
        text_subfamily[attacks],
        config.subfamily,
        classes=subfamilies,
        weights=counts,
        seed=config.seed + 2,
        jobs=jobs,
    )
    if folds is None:
        votes = _out_of_bag(binary)
    else:
        fitted = owner[fitted_on]
        votes = out_of_fold(vectors[fitted_on], fitted, text_label, folds, config=config, jobs=jobs)
    return Heads(binary, family, subfamily, rows, fitted_on, votes)


def label_weights(records: Sequence[Record], unseen: NDArray[np.bool_]) -> Floats:
    """(texts,) how much a text counts for family and subfamily: texts the encoder has not seen are
    what the heads will meet, and our own draw the line between neighbouring classes elsewhere than
    the corpus does (dev: family and subfamily macro-F1 0.790 and 0.685 when all count alike)."""
    own = np.array([is_own(record) for record in records])
    return np.where(own, 0.3, 1.0) * np.where(unseen, 3.0, 1.0)


def hide_columns(rows: Vectors, columns: int) -> Vectors:
    """A copy in which the first ``columns`` are zero: no tree asks for what never varies."""
    copy = rows.copy()
    copy[:, :columns] = 0.0
    return copy


def _fitted_rows(
    inside: Ints, owner: Ints, text_label: Ints, worst: Ints, config: HeadsConfig
) -> Ints:
    """The rows that the binary head was last fitted on, in the order it got them."""
    if config.labelling != "worst":
        return inside
    return np.sort(np.concatenate([inside[text_label[owner[inside]] == 0], worst]))


def export_forest(forest: RandomForestClassifier, path: Path) -> None:
    """Writes the forest in Treelite's binary format (no pickle), without what its nodes say of
    training: a fifth of the file, and nothing that predicts."""
    import treelite

    path.parent.mkdir(parents=True, exist_ok=True)
    model = treelite.sklearn.import_model(forest)
    for number in range(model.num_tree):
        tree = model.get_tree_accessor(number)
        for name in _STATISTICS:
            tree.set_field(name, np.empty(0, np.float64))
            tree.set_field(f"{name}_present", np.empty(0, np.uint8))
    model.serialize(str(path))
