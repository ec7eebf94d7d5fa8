"""The small model before a large one: it answers where it is sure."""

from __future__ import annotations

from os import PathLike
from time import perf_counter_ns
from typing import TYPE_CHECKING

from raxe_fast.suspicion import Suspicion, suspicion_of
from raxe_fast.verdict import Reading

if TYPE_CHECKING:
    from raxe_fast.model import Model
    from raxe_fast.policy import Policy, Thresholds
    from raxe_fast.result import ScanResult
    from raxe_fast.scanner import Scanner
    from raxe_fast.verdict import Plan

__all__ = [
    "ASK_BELOW",
    "ASK_FROM",
    "ERRAND",
    "ERRAND_LIKELY",
    "ERRAND_SHARE",
    "FIRST_MODEL",
    "MANY_WINDOWS",
    "FirstScanner",
    "asks_from",
    "check_scores",
    "first_model",
    "take_off",
]

FIRST_MODEL = "raxe-mini-v9"

# Chosen on dev (bench/cascade.py; docs/decisions.md, "The cascade") together with what is said of
# errands below: the 95th percentile over the natural mix is below three milliseconds on a machine
# with AMX, with room for a slow hour, and the upper end halves what both models block in error.
ASK_FROM = 0.2
ASK_BELOW = 0.9
# The score of a text is weighed for the number of its windows, and the order planted in a long
# document is one of many. Chosen on dev, too, where a tenth more of such orders is found
# (docs/decisions.md).
MANY_WINDOWS = 5
# An order planted in a document, mail or page has to be understood: of what the small model clears
# and the large one would block, four in five are such orders. It knows what they look like, though:
# where it holds this family for likely, its word counts for less. Chosen on dev, too
# (docs/decisions.md).
ERRAND = "indirect_injection"
ERRAND_LIKELY = 0.8
ERRAND_SHARE = 0.15


def first_model(
    first: str | PathLike[str] | Model | None, model: object, screening: bool
) -> str | PathLike[str] | Model | None:
    """What ``first="auto"`` means: the shipped small model before the shipped large one, none
    before a model that was named, or where nothing may be cleared."""
    if first != "auto":
        return first
    return FIRST_MODEL if model is None and screening else None


def asks_from(ask_from: float, windows: int, errand: float = 0.0) -> float:
    """The score from which the large model is asked about a text that the small one read in so
    many windows: less by as much as they are more than :data:`MANY_WINDOWS`, and at most
    :data:`ERRAND_SHARE` of ``ask_from`` where the probability ``errand`` of the family
    :data:`ERRAND`, were it an attack, is :data:`ERRAND_LIKELY` or more."""
    found = ask_from * min(1.0, MANY_WINDOWS / max(windows, 1))
    return min(found, ask_from * ERRAND_SHARE) if errand >= ERRAND_LIKELY else found


def check_scores(ask_from: float, ask_below: float) -> None:
    """Raises ``ValueError`` for scores that are not in [0, 1]."""
    for name, value in (("ask_from", ask_from), ("ask_below", ask_below)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be in [0, 1], not {value!r}")


class FirstScanner:
    """A scanner of the small model, and where its verdict stands.

    That is where its score lies outside of ``[ask_from, ask_below)``: plainly harmless, or an
    attack for certain; about long texts, and those that look like a planted errand, it asks from
    less (:func:`asks_from`). A policy that blocks from a lower score asks from there, and always up
    to its own block threshold and to that of the small model's balanced preset. What it has not
    read in full (its status is not ``"ok"``) it has no say about.

    What is lost against the large model alone is what the small one misses below ``ask_from`` or
    blocks in error from ``ask_below`` on; what is won is the large one's time on everything else.
    Of a text that it is asked about the large one reads what has scores from which on it would be
    asked, and a little around it, the worst first; on dev the rest changes nothing
    (docs/decisions.md).

    ``ask_from`` and ``ask_below`` must have passed :func:`check_scores`.
    """

    def __init__(self, scanner: Scanner, ask_from: float, ask_below: float) -> None:
        self.scanner = scanner
        self._ask_from = ask_from
        balanced, _ = scanner.model.manifest.thresholds["balanced"]
        self._sure_from = max(balanced, ask_below)
        # The core gives families from a score on; where errands are asked about from less, always.
        manifest = scanner.model.manifest
        lowest = ask_from * ERRAND_SHARE
        self._details = ERRAND in manifest.families and lowest < manifest.detail_threshold

    def check(self, policy: Policy) -> None:
        """Raises ``ValueError`` for a policy that the small model cannot follow."""
        self.scanner._plan_for(policy)

    def answer(
        self, text: str, policy: Policy, explain: bool, start: int
    ) -> tuple[ScanResult | None, Suspicion | None]:
        """The small model's verdict, or None where the large one is to be asked, and what to read
        of the text then (None: all). ``start``: since when the deadline runs."""
        plan = self._plan_for(policy)
        reading = Reading(start, len(text))
        found = self.scanner._scan_with_model(text, plan, False, start, reading)
        if self._asks(found, plan):
            return None, self._suspicion(found, plan, reading)
        return (self._explained(text, plan, found, start) if explain else found), None

    def _suspicion(self, found: ScanResult, plan: Plan, reading: Reading) -> Suspicion | None:
        """None for a text that it could not read, or of whose windows it cleared some."""
        if found.status not in ("ok", "partial") or reading.cleared is not None:
            return None
        # What is not read is allowed, and so must its score say.
        bound = min(self.asks_from(found, plan.thresholds), plan.thresholds.warn)
        whole = found.status == "ok"
        return suspicion_of(reading.windows, found.window_scores, bound, whole)

    def _asks(self, found: ScanResult, plan: Plan) -> bool:
        if found.status != "ok":
            return True
        sure = max(plan.thresholds.block, self._sure_from)
        return self.asks_from(found, plan.thresholds) <= found.score < sure

    def asks_from(self, found: ScanResult, thresholds: Thresholds) -> float:
        """The score from which the large model is asked about a text of which the small one, with
        these ``thresholds``, has ``found`` this."""
        errand = found.family_scores.get(ERRAND, 0.0)
        return min(asks_from(self._ask_from, found.windows, errand), thresholds.block)

    def _plan_for(self, policy: Policy) -> Plan:
        plan = self.scanner._plan_for(policy)
        return plan._replace(details=True) if self._details else plan

    def _explained(self, text: str, plan: Plan, found: ScanResult, start: int) -> ScanResult:
        """The verdict once more, explained; ``found``, for which all was read, where that does not
        succeed in what is left of the time."""
        spent = (perf_counter_ns() - start) / 1e3
        result = self.scanner._scan_with_model(text, plan, True, start)
        if result.status != "ok":
            return found
        take_off(spent, result)
        return result


def take_off(spent: float, result: ScanResult) -> None:
    """Microseconds of a scan before, from the first stage: its clock runs from where the deadline
    does."""
    result.timings["tokenise"] = max(0.0, result.timings["tokenise"] - spent)
