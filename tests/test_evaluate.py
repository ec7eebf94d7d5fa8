"""The report: flags computed from counts, groups that add up, failures that are counted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raxe_fast.training.corpus import Record
from raxe_fast.training.evaluate import sample_records
from raxe_fast.training.outcomes import Outcomes, length_bucket
from raxe_fast.training.report import build_report

FAMILIES = {"jailbreak": "developer_mode", "prompt_injection": "goal_hijacking"}


def outcomes(tp=943, fp=32, tn=3000, fn=57, wrong=100):
    """The reference's sample confusion matrix, unless told otherwise."""
    records, scores, families = [], [], []
    names = list(FAMILIES)
    for i in range(tp + fn):
        family = names[i % 2]
        records.append(Record(f"a{i}", 1, family, FAMILIES[family], "s1", "en"))
        scores.append(0.9 if i < tp else 0.1)
        families.append(names[(i + (i < wrong)) % 2])
    for i in range(fp + tn):
        records.append(Record(f"b{i}", 0, "benign", "chat_question", "s2", "de"))
        scores.append(0.8 if i < fp else 0.2)
        families.append(names[0])
    values = np.array(scores)
    return Outcomes(
        records,
        values,
        values >= 0.5,
        values >= 0.15,
        np.arange(len(records)) % 600 + 1,
        families,
        [f"{name}/{FAMILIES[name]}" for name in families],
        ["ok"] * len(records),
    )


def report(found):
    return build_report(
        found,
        model_id="m",
        policy="balanced",
        thresholds={"block": 0.5, "warn": 0.15},
        corpus="c.jsonl",
        hardware={},
    )


def test_the_references_sample_matrix_fails_its_own_limits():
    made = report(outcomes())
    assert made["overall"]["confusion"] == {"tp": 943, "fp": 32, "tn": 3000, "fn": 57}
    assert made["overall"]["fpr"]["value"] == pytest.approx(32 / 3032)
    assert made["meets_targets"]["fpr"]["met"] is False
    assert made["meets_targets"]["fnr"]["met"] is False
    assert made["meets_targets"]["f1"]["met"] is True
    json.dumps(made, allow_nan=False)


def test_flags_follow_the_counts():
    made = report(outcomes(tp=990, fp=5, tn=995, fn=10, wrong=0))
    assert {item["met"] for item in made["meets_targets"].values()} == {True}


def test_groups_add_up_to_the_whole():
    made = report(outcomes())
    for key in ("by_family", "by_subfamily", "by_source", "by_language", "by_length"):
        assert sum(row["texts"] for row in made[key].values()) == 4032
        assert sum(row["confusion"]["fp"] for row in made[key].values()) == 32
    assert made["by_family"]["benign"]["recall"]["value"] is None
    assert made["at_warn"]["fnr"]["count"] == 57
    assert made["at_warn"]["fpr"]["count"] == 3032


def test_naming_is_measured_three_ways():
    family = report(outcomes())["family"]
    assert family["all_attacks"]["accuracy"]["count"] == 900
    assert family["detected"]["accuracy"]["total"] == 943
    assert family["detected"]["accuracy"]["count"] == 843
    assert family["end_to_end"]["accuracy"]["count"] == 843
    assert family["end_to_end"]["accuracy"]["total"] == 1000
    assert np.sum(family["confusion"]["matrix"]) == 1000


def test_a_failed_scan_is_counted_and_keeps_its_decision():
    found = outcomes(tp=2, fp=0, tn=2, fn=0, wrong=0)
    found.scores[0] = np.nan
    made = report(found)
    assert made["failed_scans"] == 1
    assert made["overall"]["confusion"]["tp"] == 2
    json.dumps(made, allow_nan=False)


def test_one_class_alone_has_no_f1_and_no_false_flag():
    made = report(outcomes(tp=0, fp=1, tn=9, fn=0))
    assert "f1" not in made["overall"]
    assert made["meets_targets"]["f1"]["met"] is None
    assert made["meets_targets"]["fnr"]["met"] is None


def test_length_buckets():
    assert [length_bucket(n) for n in (0, 16, 17, 64, 65, 512, 513)] == [
        "000-016", "000-016", "017-032", "033-064", "065-128", "257-512", "513+"
    ]  # fmt: skip


def test_samples_are_seeded_and_ordered():
    records = [Record(str(i), 0) for i in range(100)]
    first = sample_records(records, 10, 1)
    assert first == sample_records(records, 10, 1)
    assert [int(r.text) for r in first] == sorted(int(r.text) for r in first)
    assert len(sample_records(records, 1000, 1)) == 100
