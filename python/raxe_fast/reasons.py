"""The verdict in plain words.

A verdict is *uncertain* if its status is not ``"ok"``, or

- the score lies between the warning and the block threshold, or within half a unit of log-odds of
  the block threshold (0.62 against 0.5), or
- the trigger phrases say attack (rule score at least 0.8) while the forest says harmless
  (probability below 0.2) or the text is allowed. Silent triggers disagree with nothing: most
  attacks use words of their own.

Reasons name positions, never the text, so they may be logged.
"""

from __future__ import annotations

from math import isfinite, log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raxe_fast.decode import View
    from raxe_fast.policy import Thresholds
    from raxe_fast.result import ScanResult, Trigger

__all__ = ["is_uncertain", "plain", "write_reasons"]

_LOG_ODDS_MARGIN = 0.5
_RULES_SURE = 0.8
_FOREST_DOUBTS = 0.2
_CLOSE_COSINE = 0.6
_NOVEL = 0.6
_SHOWN_TRIGGERS = 3
_SEVERITY_ORDER = {"critical": 0, "high": 1, "medium": 2, "low": 3}


def plain(name: str) -> str:
    """A label in words: ``prompt_injection`` -> ``prompt injection``."""
    return name.replace("_", " ")


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1.0 - 1e-6)
    return log(clipped / (1.0 - clipped))


def is_uncertain(
    score: float, rule_score: float, forest_probability: float, block: float, warn: float
) -> bool:
    """Whether a complete verdict is close or contradictory; see the module's text."""
    if score >= warn:
        if score < block or _log_odds(score) - _log_odds(block) < _LOG_ODDS_MARGIN:
            return True
        return rule_score >= _RULES_SURE and forest_probability < _FOREST_DOUBTS
    if rule_score >= _RULES_SURE:
        return True
    # The usual case, a clearly harmless text, ends here without a logarithm.
    return score > 0.3 * block and _log_odds(block) - _log_odds(score) < _LOG_ODDS_MARGIN


def write_reasons(
    result: ScanResult,
    *,
    thresholds: Thresholds,
    notes: Sequence[str],
    descriptions: dict[str, str],
    counted: bool,
    rule_score: float,
    forest_probability: float,
    explain: bool,
    view: View | None = None,
    view_triggers: Sequence[str] = (),
    evidence: tuple[float, float, float] | None = None,
    by_rules: bool = False,
) -> tuple[str, ...]:
    """All reasons, most important first.

    ``view`` is the encoded part that speaks for the text, if one does, and ``view_triggers`` what
    matched in it; ``evidence`` are the logits of linear head, strongest passage and n-grams.
    ``by_rules``: what speaks for the text was searched for trigger phrases, but not read.

    ``notes`` are the scanner's own, e.g. why a scan is partial; ``descriptions`` say what each
    trigger means; ``counted`` is whether the policy counts the family.
    """
    reasons = list(notes)
    triggers, similar = result.triggers, result.similar
    by_rules = by_rules or result.status == "degraded"
    remarkable = bool(triggers) or result.action != "allow" or not counted
    if remarkable or explain:
        reasons.append(_verdict(result, thresholds, by_rules))
    if view is not None and (result.action != "allow" or explain):
        reasons.append(_decoded(view, view_triggers, descriptions))
    if not counted and result.family is not None:
        reasons.append(f"The policy does not count {plain(result.family)} as a threat: allowed.")
    if triggers:
        reasons.extend(_trigger_reasons(triggers, descriptions, explain))
    if similar and remarkable and similar[0].cosine >= _CLOSE_COSINE:
        nearest = similar[0]
        reasons.append(
            f"Resembles known attacks of {plain(nearest.family)}: {nearest.label} "
            f"(cosine {nearest.cosine:.2f})."
        )
    if result.passage is not None:
        reasons.append(
            f"The words that speak most of an attack are at characters {result.passage[0]} to "
            f"{result.passage[1]}."
        )
    if result.window is not None and view is None and result.windows > 1 and remarkable:
        reasons.append(
            f"The most suspicious passage is at characters {result.window[0]} to "
            f"{result.window[1]} (one of {result.windows} windows)."
        )
    if result.uncertain and result.status == "ok":
        reasons.append(_doubt(result.score, thresholds, rule_score, forest_probability))
    if explain:
        if by_rules:
            reasons.append(
                f"Rule thresholds: block {thresholds.rule_block:.3g}, warn "
                f"{thresholds.rule_warn:.3g}."
            )
        elif result.encoder_ran:  # else there is nothing but what screening says
            reasons.extend(_details(result, thresholds, rule_score, forest_probability, evidence))
    if result.action != "allow":
        reasons.append(_advice(result))
    return tuple(reasons)


def _verdict(result: ScanResult, thresholds: Thresholds, by_rules: bool) -> str:
    score, family, subfamily = result.score, result.family, result.subfamily
    if by_rules:
        kind, block, warn = "Rule score", thresholds.rule_block, thresholds.rule_warn
    else:
        kind, block, warn = "Attack score", thresholds.block, thresholds.warn
    if score >= block:
        side = f"reaches the block threshold {block:.3g}"
    elif score >= warn:
        side = f"reaches the warning threshold {warn:.3g}, not the block threshold {block:.3g}"
    else:
        return f"{kind} {score:.3f} is below the warning threshold {warn:.3g}."
    what = "" if family is None else f": most likely {plain(family)}"
    if subfamily is not None:
        what += f" ({plain(subfamily)})"
    return f"{kind} {score:.3f} {side}{what}."


def _decoded(view: View, names: Sequence[str], descriptions: dict[str, str]) -> str:
    what = f"Decoded from {view.kind} (characters {view.begin} to {view.end})"
    if not names:
        return f"{what}, the text reads like an attack."
    described = descriptions.get(names[0], names[0]).rstrip(".")
    return f"{what}: {described[:1].lower()}{described[1:]}."


def _advice(result: ScanResult) -> str:
    """What to do, for whoever reads the log."""
    if result.action == "warn":
        return "Recommended: let a person or a second check look before the model acts on it."
    if result.uncertain:
        return "Recommended: block, and have the text reviewed, since the verdict is uncertain."
    if result.family == "indirect_injection":
        return "Recommended: block, or drop the passage, and distrust the source of the document."
    return "Recommended: block, do not hand the text to the model."


def _trigger_reasons(
    triggers: Sequence[Trigger], descriptions: dict[str, str], explain: bool
) -> list[str]:
    distinct: dict[str, Trigger] = {}
    for match in triggers:
        distinct.setdefault(match.name, match)
    ranked = sorted(distinct.values(), key=lambda t: _SEVERITY_ORDER.get(t.severity, 4))
    shown = ranked if explain else ranked[:_SHOWN_TRIGGERS]
    reasons = []
    for match in shown:
        what = descriptions.get(match.name, match.name).rstrip(".")
        reasons.append(
            f"{what} ({match.severity} trigger {match.name!r}, characters {match.begin} to "
            f"{match.end})."
        )
    if hidden := len(ranked) - len(shown):
        reasons.append(f"{hidden} more trigger{'s' if hidden > 1 else ''} matched.")
    return reasons


def _doubt(
    score: float, thresholds: Thresholds, rule_score: float, forest_probability: float
) -> str:
    if rule_score >= _RULES_SURE and (
        score < thresholds.warn or forest_probability < _FOREST_DOUBTS
    ):
        return (
            f"Uncertain: the trigger phrases point to an attack (rule score {rule_score:.2f}), the "
            f"forest does not (probability {forest_probability:.2f})."
        )
    return f"Uncertain: the score is close to the block threshold {thresholds.block:.3g}."


def _details(
    result: ScanResult,
    thresholds: Thresholds,
    rule_score: float,
    forest_probability: float,
    evidence: tuple[float, float, float] | None,
) -> list[str]:
    logits = ""
    if evidence is not None and isfinite(evidence[0]):
        linear, passage, lexical = evidence
        logits = (
            f", logits: encoder {linear:+.1f}, strongest passage {passage:+.1f}, "
            f"n-grams {lexical:+.1f}"
        )
    reasons = [
        f"Evidence: forest probability {forest_probability:.3f}, rule score {rule_score:.3f}"
        f"{logits}; thresholds: block {thresholds.block:.3g}, warn {thresholds.warn:.3g}."
    ]
    if result.family_scores:
        ranked = sorted(result.family_scores.items(), key=lambda item: -item[1])[:3]
        listed = ", ".join(f"{plain(name)} {value:.2f}" for name, value in ranked)
        reasons.append(f"If it is an attack, its family is: {listed}.")
    for nearest in result.similar:
        reasons.append(
            f"Known attacks nearby: {nearest.label} ({plain(nearest.subfamily)}, cosine "
            f"{nearest.cosine:.2f})."
        )
    unlike = "unlike any known text" if result.novelty > _NOVEL else "similar to known texts"
    reasons.append(f"Novelty {result.novelty:.2f}: {unlike}.")
    if len(result.window_scores) > 1:
        listed = ", ".join(f"{value:.2f}" for value in result.window_scores)
        reasons.append(f"Scores of the windows, in reading order: {listed}.")
    return reasons
