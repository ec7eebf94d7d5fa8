"""From a score to an action: thresholds, fail mode, and which families count."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, Unpack

if TYPE_CHECKING:
    from raxe_fast.result import Action

__all__ = ["PRESETS", "RULE_THRESHOLDS", "Policy", "Thresholds", "action_for"]

FailMode = Literal["closed", "open"]
OnPartial = Literal["warn", "allow"]

PRESETS = ("balanced", "strict", "quiet")

# (block, warn) on the rule score, used when the encoder gave nothing. The rule score is a noisy-or
# of P(attack | trigger) and hence a rough probability: balanced blocks what is more likely an
# attack than not.
RULE_THRESHOLDS: Mapping[str, tuple[float, float]] = {
    "balanced": (0.5, 0.3),
    "strict": (0.3, 0.1),
    "quiet": (0.8, 0.5),
}


class Thresholds(NamedTuple):
    """Scores from which a text is blocked or warned about; ``warn <= block``.

    ``block`` and ``warn`` apply to the calibrated score, ``rule_block`` and ``rule_warn`` to the
    rule score of a degraded scan, and of a part of a text that was not read.
    """

    block: float
    warn: float
    rule_block: float
    rule_warn: float


class Overrides(TypedDict, total=False):
    """Keyword arguments of the presets; see :class:`Policy`."""

    block_threshold: float | None
    warn_threshold: float | None
    fail_mode: FailMode
    families: Collection[str] | None
    on_partial: OnPartial
    screening: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do at which score.

    Args:
        preset: ``"balanced"``, ``"strict"`` (fewer missed attacks) or ``"quiet"`` (fewer false
            alarms); names a pair of thresholds chosen on development data and stored in the
            model, and the rule thresholds of :data:`RULE_THRESHOLDS`.
        block_threshold: overrides the calibrated score from which a text is blocked, in [0, 1].
        warn_threshold: overrides the score from which it is warned about. Never above the block
            threshold: a preset's value is lowered to it, an explicit one raises ``ValueError``.
        fail_mode: when a scan fails altogether (status ``"error"``): ``"closed"`` blocks the
            text and calls it a threat, ``"open"`` lets it pass.
        families: families of attack that count (kept as a ``frozenset``); ``None`` means all. A
            text whose family does not count is allowed and no threat, with a reason that says so.
            With several likely families of a part the most likely one decides. Of the text and its
            encoded parts the gravest one that counts decides; an encoded part does by what it says
            as well as by being encoded (``encoding_obfuscation``).
        on_partial: the least action for a text the model could not read to its end.
        screening: let the model's screening network clear what it is certain about; ``False``: the
            encoder reads everything. It clears only under the very thresholds of a preset for which
            the model states that its loss of recall is within bounds, and never a text whose
            trigger phrases reach the warning threshold of the rules. Under thresholds of your own,
            and with models without such a network, the encoder reads everything anyway. ``False``
            also goes past a small model before the large one.

    Raises ``ValueError`` for values out of range and ``TypeError`` if ``families`` is a ``str``.
    """

    preset: str = "balanced"
    block_threshold: float | None = None
    warn_threshold: float | None = None
    fail_mode: FailMode = "closed"
    families: Collection[str] | None = None
    on_partial: OnPartial = "warn"
    screening: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}, expected one of {PRESETS}")
        for name in ("block_threshold", "warn_threshold"):
            value = getattr(self, name)
            # The negated form also catches NaN.
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], not {value!r}")
        if (
            self.block_threshold is not None
            and self.warn_threshold is not None
            and self.warn_threshold > self.block_threshold
        ):
            raise ValueError(
                f"warn_threshold {self.warn_threshold} is above block_threshold "
                f"{self.block_threshold}"
            )
        if self.fail_mode not in ("closed", "open"):
            raise ValueError(f"fail_mode must be 'closed' or 'open', not {self.fail_mode!r}")
        if self.on_partial not in ("warn", "allow"):
            raise ValueError(f"on_partial must be 'warn' or 'allow', not {self.on_partial!r}")
        if not isinstance(self.screening, bool):
            raise ValueError(f"screening must be True or False, not {self.screening!r}")
        if isinstance(self.families, str):
            raise TypeError("families must be a collection of names, not a str")
        if self.families is not None:
            object.__setattr__(self, "families", frozenset(self.families))

    @classmethod
    def balanced(cls, **overrides: Unpack[Overrides]) -> Policy:
        """The default: best F1 on development data among thresholds with FPR of 0.8 % or less, one
        standard error included."""
        return cls("balanced", **overrides)

    @classmethod
    def strict(cls, **overrides: Unpack[Overrides]) -> Policy:
        """Fewer missed attacks, more false alarms."""
        return cls("strict", **overrides)

    @classmethod
    def quiet(cls, **overrides: Unpack[Overrides]) -> Policy:
        """Fewer false alarms, more missed attacks."""
        return cls("quiet", **overrides)

    def counts(self, family: str | None) -> bool:
        """Whether a threat of this family matters. An unknown family (``None``) does."""
        return self.families is None or family is None or family in self.families

    def resolve(self, presets: Mapping[str, tuple[float, float]]) -> Thresholds:
        """The thresholds in force, given the model's ``preset -> (block, warn)``.

        Raises ``ValueError`` if the explicit warning threshold is above the preset's block
        threshold.
        """
        block, warn = presets[self.preset]
        if self.block_threshold is not None:
            block = self.block_threshold
        if self.warn_threshold is None:
            warn = min(warn, block)
        elif self.warn_threshold <= block:
            warn = self.warn_threshold
        else:
            raise ValueError(
                f"warn_threshold {self.warn_threshold} is above the block threshold {block} of "
                f"preset {self.preset!r}"
            )
        return Thresholds(block, warn, *RULE_THRESHOLDS[self.preset])


def action_for(score: float, block: float, warn: float) -> Action:
    """The action for a finite score."""
    if score >= block:
        return "block"
    return "warn" if score >= warn else "allow"
