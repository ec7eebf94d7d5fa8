"""What the core reads stays alive and unchanged, whatever the objects it came from do meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np

from raxe_fast import _core

HIDDEN = 32


class Exporter:
    """An array that exists only while it is asked for; ``before`` runs when it is."""

    def __init__(self, array: np.ndarray, before: Any = None) -> None:
        self.array, self.before = array, before

    def __dlpack__(self, **_: Any) -> Any:
        if self.before is not None:
            self.before()
        return self.array.copy().__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def layer() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"query": (32, 32), "key": (32, 32), "value": (32, 32), "attention_out": (32, 32),
             "intermediate": (32, 64), "output": (64, 32)}  # fmt: skip
    made: dict[str, np.ndarray] = {}
    for name, (inputs, outputs) in sizes.items():
        made[f"{name}.weight"] = rng.integers(-64, 65, (inputs, outputs)).astype(np.int8)
        made[f"{name}.scale"] = np.full(outputs, 0.001, np.float32)
        made[f"{name}.bias"] = np.zeros(outputs, np.float32)
    for name in ("attention_norm", "output_norm"):
        made[f"{name}.gamma"] = np.ones(HIDDEN, np.float32)
        made[f"{name}.beta"] = np.zeros(HIDDEN, np.float32)
    return made


def encoder(parts: dict[str, Any]) -> _core.NativeEncoder:
    words = np.random.default_rng(1).integers(-100, 100, (50, HIDDEN)).astype(np.int8)
    ones, zeros = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
    scale, positions = np.full(50, 0.01, np.float32), np.zeros((64, HIDDEN), np.float32)
    return _core.NativeEncoder(words, scale, positions, ones, zeros, [parts], 1)


def scorer(hidden: int) -> _core.Scorer:
    def forest(outputs: int) -> _core.Forest:
        return _core.Forest.packed(
            hidden, outputs, np.array([0, 1], np.int64), np.array([-1], np.int32), np.zeros(1),
            np.array([-1], np.int32), np.array([-1], np.int32), np.zeros(1, np.int32),
            np.full(outputs, 0.5),
        )  # fmt: skip

    calibration = _core.Calibration([1.0, 0.0], 0.0)
    clusters = _core.Clusters(np.eye(hidden, dtype=np.float32), 2)
    return _core.Scorer(
        forest(2), forest(2), forest(2), calibration, clusters, _core.TriggerSet([]), hidden, 2.0
    )


def test_weights_that_are_made_when_asked_for():
    parts = layer()
    ids = np.arange(10, dtype=np.int64)[None]
    expected = encoder(parts).encode(ids)
    for _ in range(3):
        lent = encoder({name: Exporter(value) for name, value in parts.items()})
        # The memory that was read is free by now, and used for something else.
        _ = [np.full(value.shape, 77, value.dtype) for value in parts.values()]
        assert (lent.encode(ids) == expected).all()


def test_a_list_that_shrinks_while_it_is_read():
    model = scorer(4)
    block = np.random.default_rng(2).standard_normal((1, 3, 4)).astype(np.float32)
    (expected,) = model.score([block] * 500, np.zeros(500, np.uint32), ["x"])
    blocks: list[Any] = []
    blocks += [Exporter(block, blocks.clear) for _ in range(500)]
    (found,) = model.score(blocks, np.zeros(500, np.uint32), ["x"])
    assert blocks == []
    assert found.score == expected.score and len(found.window_scores) == 500
