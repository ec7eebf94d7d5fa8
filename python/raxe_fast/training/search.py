"""A small search for the settings of the binary forest, judged on dev alone.

A candidate is fitted on the training windows; each dev text counts by its worst window. The one
with the highest recall at 1 % false positives wins, since that is where thresholds are set; AUC
breaks ties. All candidates and their figures go into the report.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.heads import HeadsConfig, HeadSettings, Vectors, fit_binary
from raxe_fast.training.metrics import recall_at_fpr, roc_auc
from raxe_fast.training.train_data import Split, worst_by_text

__all__ = ["candidates", "search_binary"]


def candidates(base: HeadsConfig) -> dict[str, HeadsConfig]:
    """One change at a time from `base`, by name."""

    def binary(**change: Any) -> HeadsConfig:
        return replace(base, binary=replace(base.binary, **change))

    return {
        "base": base,
        "gini": binary(criterion="gini"),
        "balanced": binary(class_weight="balanced"),
        "max_features 8": binary(max_features=8),
        "max_features 0.15": binary(max_features=0.15),
        "128 leaves": binary(max_leaf_nodes=128),
        "512 leaves": binary(max_leaf_nodes=512),
        "100 trees": binary(trees=100),
        "label all": replace(base, labelling="all"),
        "label worst": replace(base, labelling="worst"),
    }


def search_binary(
    train: Split,
    dev: Split,
    configs: dict[str, HeadsConfig],
    jobs: int = 2,
    *,
    columns: tuple[Vectors, Vectors] | None = None,
    unseen: NDArray[np.bool_] | None = None,
) -> tuple[str, list[dict[str, Any]]]:
    """(name of the winner, one row per candidate).

    columns: what the forests see of each window of train and of dev (default: the embeddings).
    unseen: (train texts,) those to learn from (default: all). Both as the binary head itself gets
    them, or a setting would be chosen on another problem.
    """
    seen, judged = columns or (train.embedded.vectors, dev.embedded.vectors)
    owner = train.owner
    if unseen is not None:
        inside = unseen[owner]
        seen, owner = seen[inside], owner[inside]
    rows: list[dict[str, Any]] = []
    for name, config in configs.items():
        start = time.perf_counter()
        forest, _ = fit_binary(seen, owner, train.labels, config=config, jobs=jobs)
        seconds = time.perf_counter() - start
        probability = np.asarray(forest.predict_proba(judged))[:, 1]
        scores = worst_by_text(probability, dev)
        row: dict[str, Any] = {"name": name, **_settings(config.binary)}
        row["labelling"] = config.labelling
        row["auc"] = roc_auc(dev.labels, scores)
        for limit in (0.01, 0.001):
            found = recall_at_fpr(dev.labels, scores, limit)
            row[f"recall_at_fpr_{limit:g}"] = None if found is None else found[0]
        row["nodes"] = sum(int(tree.tree_.node_count) for tree in forest.estimators_)
        row["seconds"] = round(seconds, 1)
        rows.append(row)
    best = max(rows, key=lambda row: (row["recall_at_fpr_0.01"] or 0.0, row["auc"] or 0.0))
    return str(best["name"]), rows


def _settings(settings: HeadSettings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if value is not None}
