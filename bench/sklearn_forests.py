"""scikit-learn forests equal to a model's shipped ones, node for node.

The shipped model holds no scikit-learn object (no pickle anywhere), so the reference pipeline's
forests are rebuilt from the Treelite files: the same trees, thresholds and leaves, in
scikit-learn's own tree structure, evaluated by scikit-learn's own `predict_proba`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import NODE_DTYPE, TREE_LEAF, TREE_UNDEFINED, Tree

from model_files import ForestArrays


def sklearn_forest(arrays: ForestArrays) -> RandomForestClassifier:
    """A fitted RandomForestClassifier (n_jobs=None) with classes 0 .. n_outputs - 1.

    Its `predict_proba` gives the mean of the leaf vectors, as the shipped forest does.
    """
    trees = len(arrays.tree_offset) - 1
    classes = np.arange(arrays.n_outputs)
    forest = RandomForestClassifier(n_estimators=trees)
    forest.n_features_in_ = arrays.n_features
    forest.n_outputs_ = 1
    forest.classes_ = classes
    forest.n_classes_ = arrays.n_outputs
    forest.estimators_ = [_sklearn_tree(arrays, index, classes) for index in range(trees)]
    return forest


def _sklearn_tree(
    arrays: ForestArrays, index: int, classes: npt.NDArray[np.int64]
) -> DecisionTreeClassifier:
    begin, end = int(arrays.tree_offset[index]), int(arrays.tree_offset[index + 1])
    feature = np.asarray(arrays.feature[begin:end])
    leaf = feature < 0
    leaf_values = np.asarray(arrays.leaf_values).reshape(-1, arrays.n_outputs)

    nodes = np.zeros(end - begin, dtype=NODE_DTYPE)
    nodes["left_child"] = np.where(leaf, TREE_LEAF, arrays.left[begin:end])
    nodes["right_child"] = np.where(leaf, TREE_LEAF, arrays.right[begin:end])
    nodes["feature"] = np.where(leaf, TREE_UNDEFINED, feature)
    nodes["threshold"] = np.where(leaf, TREE_UNDEFINED, arrays.threshold[begin:end])
    nodes["n_node_samples"] = 1
    nodes["weighted_n_node_samples"] = 1.0
    values = np.zeros((end - begin, 1, arrays.n_outputs))
    values[leaf, 0] = leaf_values[np.asarray(arrays.leaf_index[begin:end])[leaf]]

    tree = Tree(arrays.n_features, np.array([arrays.n_outputs], dtype=np.intp), 1)
    tree.__setstate__(
        {
            "max_depth": _depth(nodes),
            "node_count": end - begin,
            "nodes": nodes,
            "values": values,
        }
    )
    estimator = DecisionTreeClassifier()
    estimator.n_features_in_ = arrays.n_features
    estimator.n_outputs_ = 1
    estimator.classes_ = classes
    estimator.n_classes_ = np.intp(arrays.n_outputs)
    estimator.tree_ = tree
    return estimator


def _depth(nodes: npt.NDArray[np.void]) -> int:
    level, depth = np.array([0]), -1
    while level.size:
        depth += 1
        level = np.concatenate((nodes["left_child"][level], nodes["right_child"][level]))
        level = level[level != TREE_LEAF]
    return depth
