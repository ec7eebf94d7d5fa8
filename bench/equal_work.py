"""Whether raxe-fast and the reference pipeline do the same work: forests, rows and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model_files import ForestArrays, ModelLocation, features_of, forest_arrays
from raxe_fast import _core
from raxe_fast.feature_data import core_features, decode_features
from raxe_fast.parts import TriggerInfo, decode_triggers
from reference import Floats, ReferenceScorer
from reference_features import FEATURES_FILE

__all__ = ["FOREST_LIMIT", "ROW_LIMIT", "SCORE_LIMIT", "check_equal_work"]

FOREST_LIMIT = 1e-9  # the same rows through both sides' forests
# Both sides sum in float32, in different orders.
ROW_LIMIT = 1e-5  # of each value of a row, relative to max(1, |value|)
SCORE_LIMIT = 1e-5

Input = tuple[str, Floats, tuple[int, int]]


def check_equal_work(
    model: ModelLocation,
    scorer: _core.Scorer,
    python: ReferenceScorer,
    inputs: Sequence[Input] = (),
) -> dict[str, Any]:
    """Largest differences between the two sides: of forests in probability, over 256 random rows
    and the rows of the inputs; of rows by block and of scores, over the inputs: text, token
    embeddings (1, S, H) and the characters that they cover.

    The reference gets the triggers that raxe-fast found: its own are substrings, and find others.
    Raises RuntimeError past the limits above: then the two sides would not do the same work.
    """
    rows, scores = _differences(model, scorer, python, inputs)
    found: dict[str, Any] = {
        "forests": _forests(model, python, inputs),
        "rows": rows,
        "scores": scores,
        "texts": len(inputs),
    }
    if max(found["forests"].values()) > FOREST_LIMIT:
        raise RuntimeError(f"rebuilt scikit-learn forests differ: {found['forests']}")
    if max(rows.values(), default=0.0) > ROW_LIMIT:
        raise RuntimeError(f"the reference's rows differ: {rows}")
    if scores > SCORE_LIMIT:
        raise RuntimeError(f"the reference's scores differ by {scores}")
    return found


def _forests(
    model: ModelLocation, python: ReferenceScorer, inputs: Sequence[Input]
) -> dict[str, float]:
    hidden = python.manifest["encoder"]["hidden_size"]
    rng = np.random.default_rng(1)
    real = [python.rows(text, tokens, _mask(tokens), span, [])[0] for text, tokens, span in inputs]
    differences = {}
    for head, forest in python.heads.items():
        arrays: ForestArrays = forest_arrays(model.directory, head)
        rows = rng.standard_normal((256, arrays.n_features)).astype(np.float32)
        rows[:, :hidden] /= np.linalg.norm(rows[:, :hidden], axis=1, keepdims=True)
        rows = np.concatenate((rows, *(row[:, : arrays.n_features] for row in real)))
        ours = _core.Forest.packed(*arrays).predict(rows)
        differences[head] = float(np.abs(ours - forest.predict_proba(rows)).max())
    return differences


def _differences(
    model: ModelLocation, scorer: _core.Scorer, python: ReferenceScorer, inputs: Sequence[Input]
) -> tuple[dict[str, float], float]:
    """Of rows by block and of scores; of rows none where the forests see the embedding alone."""
    triggers = decode_triggers((model.directory / "triggers.json").read_bytes())
    core = _features(model, python, triggers)
    blocks = features_of(python.manifest)
    rows = {} if core is None else dict.fromkeys(blocks, 0.0)
    largest = 0.0
    for text, tokens, span in inputs:
        (result,) = scorer.score(
            [tokens], np.zeros(1, np.uint32), [text], True, None, np.array([span], np.uint32)
        )
        matches = [_match(triggers[number]) for number in sorted({m[0] for m in result.matches})]
        judged = python.judge(text, tokens, _mask(tokens), span, matches)
        largest = max(largest, abs(judged["score"] - result.score))
        if core is None:
            continue
        ours = core.row(_core.mean_pool_l2(tokens[0]), result.passage, text, *span, result.matches)
        theirs = python.rows(text, tokens, _mask(tokens), span, matches)[0][0]
        apart = np.abs(ours - theirs) / np.maximum(1.0, np.abs(ours))
        begin = 0
        for name, size in blocks.items():
            rows[name] = max(rows[name], float(apart[begin : begin + size].max()))
            begin += size
    return rows, largest


def _features(
    model: ModelLocation, python: ReferenceScorer, triggers: Sequence[TriggerInfo]
) -> _core.Features | None:
    if python.features is None:
        return None
    data = (model.directory / FEATURES_FILE).read_bytes()
    hidden = python.manifest["encoder"]["hidden_size"]
    return core_features(decode_features(data, hidden), triggers, python.families)


def _mask(tokens: Floats) -> Any:
    return np.ones(tokens.shape[:2], dtype=np.int64)


def _match(trigger: TriggerInfo) -> dict[str, Any]:
    return {
        "name": trigger.name,
        "family": trigger.family,
        "severity": trigger.severity,
        "weight": trigger.weight,
    }
