"""ScanResult: immutable, slotted, JSON-safe."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import pytest

from raxe_fast import ScanResult, Similar, Trigger
from raxe_fast.result import Decoded, pending_result

RESULT = ScanResult(
    is_threat=True,
    action="block",
    score=0.97,
    family="jailbreak",
    subfamily="developer_mode",
    family_scores={"jailbreak": 0.9, "prompt_injection": 0.1},
    reasons=("first", "second"),
    triggers=(Trigger("dev", "jailbreak", "high", 3, 9),),
    similar=(Similar("mode, debug", "jailbreak", "developer_mode", 0.8),),
    novelty=0.2,
    tokens=12,
    windows=1,
    window=(0, 20),
    passage=(3, 12),
    window_scores=(0.97, 0.5),
    decoded=(Decoded("base64 > hex", 12, 20, 0.5, True),),
    characters=20,
    scanned_chars=20,
    timings={"total": 12.5},
    model_id="tiny",
)


def test_frozen_and_slotted():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RESULT.score = 0.0  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        RESULT.other = 1  # type: ignore[attr-defined]
    assert not hasattr(RESULT, "__dict__")


def test_to_dict_is_json_and_names_every_field():
    data = RESULT.to_dict()
    assert set(data) == {
        "encoder_ran",
        *(field.name for field in dataclasses.fields(ScanResult)),
    }
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["triggers"] == [
        {"name": "dev", "family": "jailbreak", "severity": "high", "begin": 3, "end": 9}
    ]
    assert data["window"] == [0, 20] and data["passage"] == [3, 12]
    assert data["decoded"] == [
        {"kind": "base64 > hex", "begin": 12, "end": 20, "score": 0.5, "in_place": True}
    ]


def test_to_dict_has_no_nan():
    failed = ScanResult(is_threat=True, action="block", score=math.nan, status="error")
    data = failed.to_dict()
    assert data["score"] is None
    json.dumps(data, allow_nan=False)


def test_copies_and_pickles():
    assert copy.deepcopy(RESULT) == RESULT
    assert pickle.loads(pickle.dumps(RESULT)) == RESULT  # between processes, e.g. in a pool


def test_defaults_are_not_shared():
    one, two = (ScanResult(is_threat=False, action="allow", score=0.0) for _ in range(2))
    one.timings["total"] = 1.0
    assert two.timings == {}


# ---- late fields ---------------------------------------------------------------------------------


class Pending:
    def __init__(self):
        self.calls = []

    def reasons(self, result):
        self.calls.append("reasons")
        return (f"{len(result.triggers)} triggers",)

    def triggers(self, result):
        self.calls.append("triggers")
        return RESULT.triggers

    def similar(self, result):
        self.calls.append("similar")
        return RESULT.similar


def late(pending):
    names = [f.name for f in dataclasses.fields(ScanResult)]
    values = [getattr(RESULT, n) for n in names if n not in ("reasons", "triggers", "similar")]
    return pending_result(pending, *values)


def test_late_fields_are_made_once_and_only_when_asked_for():
    pending = Pending()
    result = late(pending)
    assert result.score == RESULT.score and pending.calls == []
    assert result.reasons == ("1 triggers",)
    assert result.reasons is result.reasons
    assert pending.calls == ["reasons", "triggers"]


def test_a_late_result_is_like_any_other():
    expected = dataclasses.replace(RESULT, reasons=("1 triggers",))
    assert late(Pending()) == expected
    assert late(Pending()).to_dict() == expected.to_dict()
    assert repr(late(Pending())) == repr(expected)
    assert pickle.loads(pickle.dumps(late(Pending()))) == expected
    assert copy.copy(late(Pending())) == expected
    assert dataclasses.replace(late(Pending()), score=0.5).reasons == ("1 triggers",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        late(Pending()).reasons = ()  # type: ignore[misc]


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="colour"):
        late(Pending()).colour  # noqa: B018
    with pytest.raises(AttributeError):
        RESULT.colour  # noqa: B018
