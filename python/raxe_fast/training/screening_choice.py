"""Which windows screening may clear, chosen on dev, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.policy import RULE_THRESHOLDS
from raxe_fast.training.metrics import Floats
from raxe_fast.training.outcomes import length_bucket

if TYPE_CHECKING:
    from raxe_fast.encoder import Backend

__all__ = [
    "RULES_SPEAK",
    "DevText",
    "Disguised",
    "ScreeningOptions",
    "choose_clear_below",
    "disguised_losses",
    "preset_report",
    "screening_losses",
]

# The least exemption of texts with triggers that any policy makes: a bound that holds for all.
RULES_SPEAK = max(warn for _, warn in RULE_THRESHOLDS.values())


@dataclass(frozen=True, slots=True)
class ScreeningOptions:
    """The limits of what screening may cost on dev, shares of all attacks; what runs the encoder
    for the scores without screening; threads; how many unseen training texts, and windows of one,
    the evidence's weights are fitted on. ``harden``: how many dev attacks count in disguise as well
    (screening_harden.py), of which at most ``max_disguised_loss`` of each kind may be lost."""

    max_recall_loss: float = 0.002
    max_warn_loss: float = 0.005
    backend: Backend = "auto"
    jobs: int = 2
    fit_texts: int = 20_000
    window_cap: int = 8
    harden: int = 0
    max_disguised_loss: float = 0.02


@dataclass(frozen=True, slots=True)
class DevText:
    """A dev text with, for each window of it and its views, the screening logit and the encoder's
    calibrated score, and its highest rule score."""

    label: int
    family: str
    tokens: int
    rule_score: float
    logits: Floats
    scores: Floats

    @property
    def exempt(self) -> bool:
        """Whether its triggers keep it from being cleared under every policy."""
        return self.rule_score >= RULES_SPEAK

    def breaks_at(self, threshold: float) -> float:
        """Up to which ``clear_below`` it still reaches a threshold; -inf: it never does."""
        reaching = self.logits[self.scores >= threshold]
        if not len(reaching):
            return -np.inf
        return np.inf if self.exempt or np.isnan(reaching).any() else float(reaching.max())

    def cleared(self, clear_below: float | None) -> NDArray[np.bool_]:
        """Which windows are cleared."""
        if clear_below is None or self.exempt:
            return np.zeros(len(self.logits), dtype=np.bool_)
        return self.logits < clear_below


# By kind of disguise, for each attack its variants, of which the attacker may send any.
Disguised = Mapping[str, Sequence[Sequence[DevText]]]


def _breaks_at(group: Sequence[DevText], threshold: float) -> float:
    """Up to which ``clear_below`` every variant that reaches a threshold still does; -inf: none."""
    breaks = [text.breaks_at(threshold) for text in group]
    return min((value for value in breaks if value > -np.inf), default=-np.inf)


def disguised_losses(
    disguised: Disguised, clear_below: float | None, block: float
) -> dict[str, float]:
    """By kind of disguise the share of attacks with a variant that is blocked without screening
    and not with it."""

    def lost(group: Sequence[DevText]) -> bool:
        return clear_below is not None and -np.inf < _breaks_at(group, block) < clear_below

    return {
        name: sum(map(lost, groups)) / max(len(groups), 1) for name, groups in disguised.items()
    }


def screening_losses(
    texts: Sequence[DevText], clear_below: float | None, block: float, warn: float
) -> tuple[float, float]:
    """Shares of all attacks that no longer reach the block and the warning threshold."""
    attacks = [text for text in texts if text.label == 1]

    def lost(threshold: float) -> float:
        count = sum(
            bool((text.scores >= threshold).any())
            and not (text.scores[~text.cleared(clear_below)] >= threshold).any()
            for text in attacks
        )
        return count / max(len(attacks), 1)

    return lost(block), lost(warn)


def choose_clear_below(
    texts: Sequence[DevText],
    block: float,
    warn: float,
    options: ScreeningOptions,
    disguised: Disguised | None = None,
) -> float | None:
    """The highest logit below which windows may be cleared within the limits; None where even the
    lowest would clear what the policy warns about.

    It lies half-way between the last attack that may be lost and the first that may not, and never
    where screening itself would say that a text deserves a warning. ``disguised`` attacks can only
    lower it.
    """
    attacks = [text for text in texts if text.label == 1]
    if not attacks or warn <= 0.0:
        return None
    # A little below: the runtime takes the way back to a probability, and rounds.
    highest = np.inf if warn >= 1.0 else log(warn / (1.0 - warn)) - 1e-6
    groups = [[text] for text in attacks]
    limits = [(groups, block, options.max_recall_loss), (groups, warn, options.max_warn_loss)]
    highest = min(highest, _between(limits)[1])
    first, between = _between(
        [(some, block, options.max_disguised_loss) for some in (disguised or {}).values()]
    )
    if first < highest:
        highest = min(highest, between)
    return highest if np.isfinite(highest) else None


def _between(
    limits: Sequence[tuple[Sequence[Sequence[DevText]], float, float]],
) -> tuple[float, float]:
    """Limits are attacks, each with its variants, a threshold and the share that may be lost. The
    lowest logit at which one too many would be lost, and the middle between it and the last below;
    infinity twice where all may be."""
    first, lost = np.inf, []
    for some, threshold, limit in limits:
        breaks = np.sort([_breaks_at(group, threshold) for group in some])
        breaks = breaks[breaks > -np.inf]
        allowed = int(limit * len(some) + 1e-9)
        if allowed < len(breaks):
            first = min(first, float(breaks[allowed]))
        lost += breaks.tolist()
    # An attack is lost where its logit is below the bound, so `first` itself is kept.
    last = max((logit for logit in lost if logit < first), default=first - 1.0)
    return first, (last + first) / 2 if np.isfinite(first) else np.inf


def preset_report(
    texts: Sequence[DevText], clear_below: float | None, block: float, warn: float
) -> dict[str, Any]:
    """What a bound clears and what is lost by it, in all, by family and by length."""
    harmless = [text for text in texts if text.label == 0]
    attacks = [text for text in texts if text.label == 1]

    def share(values: Sequence[float] | Sequence[bool]) -> float:
        return float(np.mean(values)) if len(values) else 0.0

    def windows(group: Sequence[DevText]) -> float:
        masks = [text.cleared(clear_below) for text in group]
        return share(np.concatenate(masks).tolist()) if masks else 0.0

    def whole(group: Sequence[DevText]) -> float:
        return share([bool(text.cleared(clear_below).all()) for text in group])

    def losses(group: Sequence[DevText]) -> dict[str, Any]:
        lost, unwarned = screening_losses(group, clear_below, block, warn)
        return {"attacks": len(group), "recall_loss": lost, "warn_loss": unwarned}

    lengths = sorted({length_bucket(text.tokens) for text in texts})

    def of_length(name: str) -> dict[str, Any]:
        inside = [text for text in harmless if length_bucket(text.tokens) == name]
        return {
            **losses([text for text in attacks if length_bucket(text.tokens) == name]),
            "harmless": len(inside),
            "harmless_texts_cleared": whole(inside),
            "harmless_windows_cleared": windows(inside),
        }

    return {
        "harmless_texts_cleared": whole(harmless),
        "harmless_windows_cleared": windows(harmless),
        "attack_texts_cleared": whole(attacks),
        "texts_with_triggers": share([text.exempt for text in texts]),
        "by_family": {
            name: losses([text for text in attacks if text.family == name])
            for name in sorted({text.family for text in attacks})
        },
        "by_length": {name: of_length(name) for name in lengths},
    }
