"""Do all forest implementations agree? scikit-learn, GTIL, packed and, where built, compiled."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast import _core

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = ["head_parity"]


def head_parity(
    forest: RandomForestClassifier,
    path: Path,
    vectors: NDArray[np.float32],
    threshold: float | None = None,
) -> dict[str, Any]:
    """Compares on (N, H) vectors with scikit-learn's predict_proba as the truth.

    A verdict is the best class, or with a threshold whether the last class reaches it. Returns,
    per implementation, the largest absolute difference and the number of verdict flips.
    """
    import treelite

    data = path.read_bytes()
    truth = np.asarray(forest.predict_proba(vectors), dtype=np.float64)
    others = {
        "gtil": np.asarray(
            treelite.gtil.predict(treelite.Model.deserialize(str(path)), vectors)
        ).reshape(truth.shape),
        "packed": _core.Forest.treelite(data).predict(vectors),
    }
    compiled = _core.Forest.compiled(hashlib.sha256(data).hexdigest())
    if compiled is not None:
        others["compiled"] = compiled.predict(vectors)

    def verdicts(p: NDArray[np.float64]) -> NDArray[np.int64]:
        if threshold is not None:
            return np.asarray(p[:, -1] >= threshold, dtype=np.int64)
        return np.asarray(np.argmax(p, axis=1), dtype=np.int64)

    expected = verdicts(truth)
    return {
        "embeddings": len(vectors),
        **{
            name: {
                "max_abs_difference": float(np.abs(found - truth).max()),
                "verdict_flips": int(np.sum(verdicts(found) != expected)),
            }
            for name, found in others.items()
        },
    }
