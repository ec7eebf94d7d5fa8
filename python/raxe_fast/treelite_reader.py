"""The forest of a Treelite file as flat arrays, for tools that look into it.

The scanner has no use for the arrays: ``_core.Forest.treelite`` goes from file to forest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raxe_fast import _core
from raxe_fast.errors import ModelFormatError

__all__ = ["ForestArrays", "read_treelite"]


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


def read_treelite(data: bytes) -> ForestArrays:
    """Parse a random forest written by ``treelite.Model.serialize``; see cpp/src/treelite.cpp for
    the format, and for what of it is supported.

    Raises :class:`~raxe_fast.errors.ModelFormatError` if the data is truncated, corrupt, or holds
    a model of another kind. That the nodes form trees, and that their features are in range, is
    checked by ``_core.Forest.packed``.
    """
    try:
        return ForestArrays(*_core.treelite_arrays(data))
    except ValueError as error:
        raise ModelFormatError(str(error)) from None
