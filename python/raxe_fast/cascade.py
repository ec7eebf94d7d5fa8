"""Two models in a row: a small one answers where it is sure, a large one the rest."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from raxe_fast.model import Model
from raxe_fast.policy import Policy
from raxe_fast.result import ScanResult
from raxe_fast.scanner import Scanner

if TYPE_CHECKING:
    from raxe_fast.encoder import Backend
    from raxe_fast.model import ForestKind
    from raxe_fast.verdict import Plan

__all__ = ["ASK_BELOW", "ASK_FROM", "SHORT_TOKENS", "SMALL_MODEL", "Cascade"]

SMALL_MODEL = "raxe-mini-v5"

# Chosen on dev (bench/cascade.py; docs/decisions.md, "The cascade"), with raxe-mini-v3 on a machine
# with AVX2 alone: the lowest score of those tried with which the 95th percentile over the natural
# mix is about three milliseconds, and the upper end that halves what both models block in error.
ASK_FROM = 0.4
ASK_BELOW = 0.9
SHORT_TOKENS = 0


class Cascade(Scanner):
    """Scans texts with a small model, and with ``model`` those that the small one is unsure about.

    A :class:`~raxe_fast.Scanner` in every other respect but ``batch_size``: text by text. Its
    ``model`` and ``threshold_for`` are those of the large model. The small model's verdict stands
    unless

    - its score lies in ``[ask_from, ask_below)``: neither plainly harmless nor an attack for
      certain. A policy that blocks from a lower score than ``ask_from`` asks from there, and always
      up to its own block threshold and to that of the small model's balanced preset;
    - the text is so short (``short_tokens``) that asking costs little;
    - the small model did not read all of it, or failed: its status is not ``"ok"``.

    ``ScanResult.model_id`` says whose verdict it is. Of an asked text ``timings["first"]`` holds
    the microseconds of the small model, and ``timings["total"]`` both.

    What is lost against ``model`` alone is what the small model misses below ``ask_from`` or blocks
    in error from ``ask_below`` on; what is won is its time on everything else. The lower
    ``ask_from``, the closer to the recall and the time of ``model`` alone, the higher
    ``ask_below``, the fewer false alarms; docs/latency.md has the curve.

    Args:
        model: the large model; see :class:`~raxe_fast.Scanner`, as for all that is not named here.
        first: the small model: a directory, an archive, an installed id or a loaded
            :class:`~raxe_fast.Model`.
        ask_from: calibrated score of the small model, in [0, 1], from which ``model`` is asked.
        ask_below: the score below which it is asked, in [0, 1]; 0: the block threshold.
        short_tokens: texts of at most so many tokens, as the small model counts them, are asked
            about whatever their score. 0: none.
        deadline_ms: time for one text, both models together.

    Raises what :class:`~raxe_fast.Scanner` raises.
    """

    def __init__(
        self,
        model: str | PathLike[str] | Model | None = None,
        *,
        first: str | PathLike[str] | Model = SMALL_MODEL,
        ask_from: float = ASK_FROM,
        ask_below: float = ASK_BELOW,
        short_tokens: int = SHORT_TOKENS,
        threads: int = 1,
        cpus: Sequence[int] | None = None,
        policy: Policy | None = None,
        deadline_ms: float | None = None,
        max_chars: int = 65_536,
        max_windows: int = 64,
        decode: bool = True,
        backend: Backend = "auto",
        forest: ForestKind = "auto",
        screening: bool = True,
        async_workers: int = 1,
    ) -> None:
        if not 0.0 <= ask_from <= 1.0:
            raise ValueError(f"ask_from must be in [0, 1], not {ask_from!r}")
        if not 0.0 <= ask_below <= 1.0:
            raise ValueError(f"ask_below must be in [0, 1], not {ask_below!r}")
        if short_tokens < 0:
            raise ValueError(f"short_tokens must be at least 0, not {short_tokens!r}")
        self._ask_from = ask_from
        self._short_tokens = short_tokens
        both: dict[str, Any] = {
            "threads": threads,
            "cpus": cpus,
            "policy": policy,
            "deadline_ms": deadline_ms,
            "max_chars": max_chars,
            "max_windows": max_windows,
            "decode": decode,
            "backend": backend,
            "forest": forest,
            "screening": screening,
        }
        self._first = Scanner(first, **both)
        balanced, _ = self._first.model.manifest.thresholds["balanced"]
        self._sure_from = max(balanced, ask_below)
        super().__init__(model, async_workers=async_workers, **both)

    @property
    def first(self) -> Model:
        """The small model."""
        return self._first.model

    def warm_up(self) -> None:
        """As :meth:`Scanner.warm_up`, for both models."""
        self._first.warm_up()
        super().warm_up()

    def __repr__(self) -> str:
        return f"<raxe_fast.Cascade of models {self._first.model.id!r}, {self.model.id!r}>"

    def _plan_for(self, policy: Policy) -> Plan:
        self._first._plan_for(policy)  # a policy that it cannot follow is refused at once, too
        return super()._plan_for(policy)

    def _scan_one(self, text: str, plan: Plan, explain: bool) -> ScanResult:
        start = perf_counter_ns()
        small = self._first._plan_for(plan.policy)
        found = self._first._scan_with_model(text, small, False, start)
        if not self._asks(found, small):
            return self._explained(text, small, found, start) if explain else found
        spent = (perf_counter_ns() - start) / 1e3
        result = self._scan_with_model(text, plan, explain, start)
        _take_off(spent, result)
        result.timings["first"] = spent
        return result

    def _explained(self, text: str, small: Plan, found: ScanResult, start: int) -> ScanResult:
        """What the small model finds once more, explained; ``found``, which it has read in full,
        where that does not succeed in what is left of the time."""
        spent = (perf_counter_ns() - start) / 1e3
        result = self._first._scan_with_model(text, small, True, start)
        if result.status != "ok":
            return found
        _take_off(spent, result)
        return result

    def _asks(self, found: ScanResult, plan: Plan) -> bool:
        """Whether the large model is to be asked about what the small one found."""
        if found.status != "ok" or found.tokens <= self._short_tokens:
            return True
        sure = max(plan.thresholds.block, self._sure_from)
        return min(self._ask_from, plan.thresholds.block) <= found.score < sure


def _take_off(spent: float, result: ScanResult) -> None:
    """Microseconds of a scan before, from the first stage: its clock runs from where the deadline
    does."""
    result.timings["tokenise"] = max(0.0, result.timings["tokenise"] - spent)
