"""Reader of Treelite's binary model files (serialisation v4), with numpy and struct alone.

What ``treelite.Model.serialize(path)`` of Treelite 4.x writes, in little-endian order and without
padding: a header, then the trees one after another, each a sequence of arrays over its nodes.
Every array and every string is preceded by its length (uint64). Treelite's documentation calls
this the v4 format; it promises that all 4.x releases from 4.1 on read each other's files.

Supported are the random forests that raxe-fast trains: float64 thresholds and leaf vectors, one
target, tests ``x <= threshold``, outputs averaged over the trees. Everything else in the format
(categorical splits, gradient-boosted trees with scalar leaves, base scores, postprocessors) is
read past or refused by name; :class:`_Header` and :class:`_Tree` hold what such a model would need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raxe_fast.errors import ModelFormatError

__all__ = ["ForestArrays", "read_treelite"]

_FLOAT64 = 3  # TypeInfo
_LEAF, _NUMERICAL = 0, 1  # TreeNodeType
_LESS_EQUAL = 3  # Operator
_MIN_MINOR = 1  # 4.0 had another layout
_POSTPROCESSORS = ("identity_multiclass",)
# A tree of one leaf takes more than this; it bounds the number of trees a file can claim.
_MIN_TREE_BYTES = 100


class ForestArrays(NamedTuple):
    """A forest as flat arrays, in the order in which ``_core.Forest.packed`` takes them.

    Node ``i`` of tree ``t`` stands at ``tree_offset[t] + i``; children count from the tree's first
    node. ``feature`` is -1 in a leaf, and only there ``leaf_index`` is >= 0: the row of
    ``leaf_values``, which is flat with ``n_outputs`` values a row.
    """

    n_features: int
    n_outputs: int
    tree_offset: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    leaf_index: npt.NDArray[np.int32]
    leaf_values: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Header:
    n_trees: int
    n_features: int
    n_outputs: int


@dataclass(frozen=True, slots=True)
class _Tree:
    feature: npt.NDArray[np.int32]  # -1: leaf
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    leaf_index: npt.NDArray[np.int32]  # within the tree, -1: inner node
    leaf_values: npt.NDArray[np.float64]


class _Cursor:
    """Reads from the front of a buffer and never past its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, dtype: str, count: int, what: str) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        if count * kind.itemsize > self.left:
            raise ModelFormatError(f"Treelite file is truncated or corrupt at {what}")
        if count == 0:
            return np.empty(0, kind)
        values = np.frombuffer(self._data, kind, count, self._at)
        self._at += values.nbytes
        return values

    def integer(self, dtype: str, what: str) -> int:
        return int(self.take(dtype, 1, what)[0])

    def array(self, dtype: str, what: str, expected: int | None = None) -> npt.NDArray[Any]:
        """An array with its length before it; ``expected`` is the only length allowed."""
        count = self.integer("<u8", what)
        if expected is not None and count != expected:
            raise ModelFormatError(f"Treelite file: {what} has {count} items, not {expected}")
        return self.take(dtype, count, what)

    def text(self, what: str) -> str:
        return self.array("u1", what).tobytes().decode("latin-1")

    def no_extension(self, what: str) -> None:
        if self.integer("<i4", what) != 0:
            raise ModelFormatError(f"Treelite file holds {what}, which are not supported")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelFormatError(f"Treelite file: {message}")


def read_treelite(data: bytes) -> ForestArrays:
    """Parse a random forest written by ``treelite.Model.serialize``.

    Raises :class:`~raxe_fast.errors.ModelFormatError` if the data is truncated, corrupt, or holds
    a model of another kind than those above. That the nodes form trees, and that their features
    are in range, is checked by ``_core.Forest.packed``.
    """
    cursor = _Cursor(data)
    header = _read_header(cursor)
    trees = [_read_tree(cursor, index, header) for index in range(header.n_trees)]
    _require(cursor.left == 0, f"{cursor.left} bytes follow the last tree")
    sizes = [tree.feature.size for tree in trees]
    leaves = np.cumsum([0, *(tree.leaf_values.size // header.n_outputs for tree in trees)])
    _require(int(leaves[-1]) <= np.iinfo(np.int32).max, "too many leaves")
    return ForestArrays(
        n_features=header.n_features,
        n_outputs=header.n_outputs,
        tree_offset=np.cumsum([0, *sizes], dtype=np.int64),
        feature=np.concatenate([tree.feature for tree in trees]),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=np.concatenate([tree.left for tree in trees]),
        right=np.concatenate([tree.right for tree in trees]),
        leaf_index=np.concatenate(
            [
                np.where(tree.leaf_index >= 0, tree.leaf_index + first, -1).astype(np.int32)
                for tree, first in zip(trees, leaves[:-1], strict=True)
            ]
        ),
        leaf_values=np.concatenate([tree.leaf_values for tree in trees]),
    )


def _read_header(cursor: _Cursor) -> _Header:
    major, minor, _patch = (cursor.integer("<i4", "the version") for _ in range(3))
    _require(
        major == 4 and minor >= _MIN_MINOR,
        f"format version {major}.{minor} is not supported (4.{_MIN_MINOR} or a later 4.x is)",
    )
    threshold_type = cursor.integer("u1", "the threshold type")
    leaf_type = cursor.integer("u1", "the leaf type")
    _require(
        threshold_type == _FLOAT64 and leaf_type == _FLOAT64,
        "only float64 thresholds and leaves are supported",
    )
    n_trees = cursor.integer("<u8", "the number of trees")
    n_features = cursor.integer("<i4", "the number of features")
    cursor.integer("u1", "the task type")  # says nothing that the fields below do not
    average = cursor.integer("u1", "average_tree_output")
    n_targets = cursor.integer("<u4", "the number of targets")
    _require(n_features > 0, f"{n_features} features")
    _require(average == 1, "only forests that average their trees are supported")
    _require(n_targets == 1, f"{n_targets} targets; only one is supported")
    n_outputs = int(cursor.array("<u4", "num_class", 1)[0])
    shape = tuple(cursor.array("<u4", "leaf_vector_shape", 2).tolist())
    _require(n_outputs > 0 and shape == (1, n_outputs), f"leaf shape {shape} is not supported")
    # A crafted count must not make the loop over trees long or a list large.
    _require(
        0 < n_trees <= cursor.left // _MIN_TREE_BYTES, f"truncated, or no forest: {n_trees} trees"
    )
    target_id = cursor.array("<i4", "target_id", n_trees)
    class_id = cursor.array("<i4", "class_id", n_trees)
    # -1: the tree speaks for all targets, or classes. A model with one class says 0.
    _require(bool(np.isin(target_id, (-1, 0)).all()), "a tree for another target")
    allowed = (-1, 0) if n_outputs == 1 else (-1,)
    _require(bool(np.isin(class_id, allowed).all()), "only trees with leaf vectors are supported")
    postprocessor = cursor.text("the postprocessor")
    _require(
        postprocessor in _POSTPROCESSORS, f"postprocessor {postprocessor[:64]!r} is not supported"
    )
    cursor.take("<f4", 2, "sigmoid_alpha and ratio_c")  # unused without a postprocessor
    base_scores = cursor.array("<f8", "base_scores", n_outputs)
    _require(not base_scores.any(), "base scores are not supported")
    cursor.array("u1", "attributes")  # free text
    cursor.no_extension("per-model extensions")
    return _Header(n_trees, n_features, n_outputs)


def _read_tree(cursor: _Cursor, index: int, header: _Header) -> _Tree:
    where = f"tree {index}"
    n = cursor.integer("<i4", where)
    _require(n > 0, f"{where} has {n} nodes")
    _require(cursor.integer("u1", where) == 0, f"{where} has categorical splits")
    node_type = cursor.array("i1", where, n)
    left = cursor.array("<i4", where, n)
    right = cursor.array("<i4", where, n)
    split = cursor.array("<i4", where, n)
    cursor.array("u1", where, n)  # default_left: no value is ever missing
    cursor.array("<f8", where, n)  # scalar leaf values
    threshold = cursor.array("<f8", where, n)
    operator = cursor.array("i1", where, n)
    cursor.array("u1", where, n)  # category_list_right_child
    leaf_values = cursor.array("<f8", where)
    leaf_begin = cursor.array("<u8", where, n)
    leaf_end = cursor.array("<u8", where, n)
    cursor.array("<u4", where, 0)  # category lists
    cursor.array("<u8", where, n)
    cursor.array("<u8", where, n)
    for dtype in ("<u8", "<f8", "<f8"):  # data_count, sum_hess, gain: each optional
        values = cursor.array(dtype, where)
        present = cursor.array("u1", where)
        _require(values.size in (0, n) and present.size in (0, n), f"{where}: node statistics")
    cursor.no_extension("per-tree extensions")
    cursor.no_extension("per-node extensions")

    leaf = node_type == _LEAF
    inner = node_type == _NUMERICAL
    _require(bool((leaf | inner).all()), f"{where} has a node of an unknown type")
    _require(bool((operator[inner] == _LESS_EQUAL).all()), f"{where} has a test other than <=")
    _require(bool((split[inner] >= 0).all()), f"{where}: negative feature")
    _require(
        bool((left[leaf] == -1).all() and (right[leaf] == -1).all()), f"{where}: leaf children"
    )
    _require(not bool(np.isnan(threshold[inner]).any()), f"{where}: a threshold is NaN")
    _require(bool(np.isfinite(leaf_values).all()), f"{where}: a leaf value is not finite")
    _require(leaf_values.size % header.n_outputs == 0, f"{where}: incomplete leaf vector")
    # Begins are checked before ends are derived from them: uint64 sums must not wrap around.
    begin, end = leaf_begin[leaf], leaf_end[leaf]
    _require(
        bool((begin < leaf_values.size).all())
        and bool((begin % header.n_outputs == 0).all())
        and bool((end == begin + np.uint64(header.n_outputs)).all()),
        f"{where}: leaf vector out of range",
    )
    leaf_index = np.full(n, -1, np.int32)
    leaf_index[leaf] = (begin // header.n_outputs).astype(np.int32)
    return _Tree(
        feature=np.where(inner, split, -1).astype(np.int32),
        threshold=np.where(inner, threshold, 0.0),
        left=np.where(inner, left, -1).astype(np.int32),
        right=np.where(inner, right, -1).astype(np.int32),
        leaf_index=leaf_index,
        leaf_values=leaf_values.astype(np.float64),
    )
