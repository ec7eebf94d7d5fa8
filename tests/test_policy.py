"""Policy: presets, overrides, and the refusal of nonsense."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raxe_fast import Policy
from raxe_fast.policy import PRESETS, RULE_THRESHOLDS, action_for

MODEL = {"balanced": (0.6, 0.4), "strict": (0.3, 0.1), "quiet": (0.9, 0.6)}
SHARE = st.floats(0, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset):
    policy = getattr(Policy, preset)()
    assert policy == Policy(preset)
    assert policy.resolve(MODEL) == (*MODEL[preset], *RULE_THRESHOLDS[preset])
    assert (policy.fail_mode, policy.families, policy.on_partial) == ("closed", None, "warn")


def test_strict_blocks_no_less_than_balanced_than_quiet_by_rules():
    blocks = [RULE_THRESHOLDS[name] for name in ("strict", "balanced", "quiet")]
    assert blocks == sorted(blocks)


def test_block_override_pulls_the_warning_down():
    assert Policy(block_threshold=0.2).resolve(MODEL)[:2] == (0.2, 0.2)
    assert Policy(block_threshold=0.9).resolve(MODEL)[:2] == (0.9, 0.4)


def test_warn_override():
    assert Policy(warn_threshold=0.1).resolve(MODEL)[:2] == (0.6, 0.1)
    assert Policy(warn_threshold=0.0).resolve(MODEL)[:2] == (0.6, 0.0)
    with pytest.raises(ValueError, match="above the block threshold"):
        Policy(warn_threshold=0.7).resolve(MODEL)


@pytest.mark.parametrize(
    "arguments",
    [
        {"preset": "lenient"},
        {"block_threshold": 1.5},
        {"block_threshold": math.nan},
        {"warn_threshold": -0.1},
        {"block_threshold": 0.3, "warn_threshold": 0.4},
        {"fail_mode": "ajar"},
        {"on_partial": "block"},
    ],
)
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError):
        Policy(**arguments)


def test_families():
    policy = Policy(families=["jailbreak"])
    assert policy.families == frozenset({"jailbreak"})
    assert policy.counts("jailbreak") and policy.counts(None)
    assert not policy.counts("pii_extraction")
    assert Policy().counts("anything")
    assert hash(policy) == hash(Policy.balanced(families={"jailbreak"}))
    with pytest.raises(TypeError):
        Policy(families="jailbreak")


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().preset = "quiet"  # type: ignore[misc]


@given(score=SHARE, one=SHARE, two=SHARE)
def test_action_grows_with_the_score(score, one, two):
    warn, block = sorted((one, two))
    action = action_for(score, block, warn)
    assert action == ("block" if score >= block else "warn" if score >= warn else "allow")


@given(block=st.none() | SHARE, preset=st.sampled_from(PRESETS))
def test_warning_is_never_above_block(block, preset):
    thresholds = Policy(preset, block_threshold=block).resolve(MODEL)
    assert 0 <= thresholds.warn <= thresholds.block <= 1
