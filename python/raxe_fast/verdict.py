"""From the core's scores of one text to a :class:`~raxe_fast.result.ScanResult`."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

from raxe_fast.policy import Policy, Thresholds, action_for
from raxe_fast.reasons import is_uncertain, write_reasons
from raxe_fast.result import Action, ScanResult, Similar, Trigger

if TYPE_CHECKING:
    from raxe_fast import _core
    from raxe_fast.model import Model
    from raxe_fast.parts import TriggerInfo

__all__ = ["Plan", "Reading", "VerdictMaker"]


class Plan(NamedTuple):
    """A policy with the thresholds it has for one model. ``details``: family scores are needed
    for every text, because the warning threshold is below the model's detail threshold."""

    policy: Policy
    thresholds: Thresholds
    details: bool


class Reading:
    """What happened to one text on its way to the core; times in nanoseconds."""

    __slots__ = (
        "batched",
        "characters", "complete", "encode_ns", "error", "notes", "order",  "spans",
        "start_ns", "tokenise_ns", "tokens",
    )  # fmt: skip

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self.tokenise_ns = 0
        self.encode_ns = 0
        self.tokens = 0
        # Of the windows that were encoded, in the order in which the core gets them.
        self.spans: Sequence[tuple[int, int]] = ()
        # Their places in reading order, None if that is the same.
        self.order: Sequence[int] | None = None
        self.characters = 0  # code points that the encoder has seen
        self.complete = True
        self.batched = False  # waiting for others, too: its total is the sum of its stages
        self.notes: list[str] = []
        self.error: str | None = None

    def fail(self, error: str) -> None:
        """The encoder gave nothing, and why."""
        self.error = error
        self.complete = False
        self.spans = ()
        self.tokens = 0
        self.characters = 0

    def stop(self, error: str, windows: int, tokens: int) -> None:
        """The encoder ended early, after those windows whose ``spans`` are set, of ``windows``."""
        if not self.spans:
            self.fail(error)
            return
        self.error = error
        self.complete = False
        self.tokens = tokens
        self.characters = _covered(self.spans)
        self.notes.append(
            f"The encoder read {len(self.spans)} of {windows} windows ({error}); trigger phrases "
            "were searched in all of the text."
        )


def _covered(spans: Sequence[tuple[int, int]]) -> int:
    """Code points in the union of spans that are sorted by their begin."""
    covered = reached = 0
    for begin, end in spans:
        covered += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


class VerdictMaker:
    """Names, labels and descriptions of one model; immutable and thread-safe."""

    def __init__(self, model: Model) -> None:
        manifest = model.manifest
        self._model_id = model.id
        self._families = manifest.families
        self._subfamilies = manifest.subfamilies
        self._of_family = {
            family: [i for i, (_, of) in enumerate(manifest.subfamilies) if of == family]
            for family in manifest.families
        }
        self._triggers = model.triggers
        self._descriptions = {item.name: item.description for item in model.triggers}
        clusters = model.clusters
        self._clusters = list(
            zip(clusters.labels, clusters.families, clusters.subfamilies, strict=True)
        )

    def empty(self, text: str, start_ns: int) -> ScanResult:
        """The result for a text of white space alone: nothing to say, hence harmless."""
        return ScanResult(
            is_threat=False,
            action="allow",
            score=0.0,
            characters=len(text),
            scanned_chars=len(text),
            timings=_timings(0, 0, (0, 0, 0, 0), 0, perf_counter_ns() - start_ns),
            model_id=self._model_id,
        )

    def failed(self, text: str, plan: Plan, reading: Reading, error: BaseException) -> ScanResult:
        """The result when not even the rules gave a score: the policy's fail mode decides."""
        closed = plan.policy.fail_mode != "open"
        what = f"{type(error).__name__}: {error}"
        return ScanResult(
            is_threat=closed,
            action="block" if closed else "allow",
            score=nan,
            uncertain=True,
            reasons=(
                f"The scan failed ({what}); the policy fails "
                + ("closed: blocked." if closed else "open: allowed."),
            ),
            status="error",
            characters=len(text),
            timings=_timings(0, 0, (0, 0, 0, 0), 0, perf_counter_ns() - reading.start_ns),
            model_id=self._model_id,
            error=what,
        )

    def make(
        self,
        text: str,
        scored: _core.TextScore,
        reading: Reading,
        plan: Plan,
        explain: bool,
    ) -> ScanResult:
        """The verdict; ``scored`` must hold family scores if its score reaches ``plan``'s
        warning threshold, or ``explain`` is set."""
        scored_ns = perf_counter_ns()
        policy, thresholds, _ = plan
        characters = len(text)
        if not scored.finite:
            reading.fail("the encoder gave NaN or infinity")
        spans = reading.spans
        degraded = reading.error is not None and not spans
        rule_score = scored.rule_score
        matches = scored.matches
        if degraded:
            score, block, warn = rule_score, thresholds.rule_block, thresholds.rule_warn
        else:
            score, block, warn = scored.score, thresholds.block, thresholds.warn
        action = action_for(score, block, warn)

        if action == "allow" and not matches and reading.complete and not explain and not degraded:
            return self._harmless(scored, reading, block, warn, characters, scored_ns)

        family: str | None = None
        subfamily: str | None = None
        family_scores: dict[str, float] = {}
        similar: tuple[Similar, ...] = ()
        window: tuple[int, int] | None = None
        window_scores: tuple[float, ...] = ()
        if not degraded:
            window_scores = _in_order(scored.window_scores, reading.order)
            values = scored.family
            if values:
                family_scores = dict(zip(self._families, values, strict=True))
            if scored.window >= 0:
                similar = tuple(
                    Similar(*self._clusters[cluster], round(cosine, 4))
                    for cluster, cosine in scored.nearest
                )
                window = spans[scored.window]
        if action != "allow":
            if family_scores:
                family = max(family_scores, key=family_scores.__getitem__)
                subfamily = self._subfamily(family, scored.subfamily)
            elif matches:
                best = max((self._triggers[match[0]] for match in matches), key=_weight)
                family, subfamily = best.family, best.subfamily
        counted = policy.counts(family)
        if not counted:
            action = "allow"
        complete = reading.complete and not degraded
        if not complete and action == "allow" and policy.on_partial == "warn":
            action = "warn"
        triggers = tuple([self._trigger(*match) for match in matches])
        uncertain = not complete or is_uncertain(
            score, rule_score, scored.forest_probability, block, warn
        )
        if degraded:
            reading.notes.insert(
                0,
                f"Degraded: {reading.error}; the verdict rests on the trigger phrases alone.",
            )
        reasons = write_reasons(
            action=action,
            score=score,
            thresholds=thresholds,
            degraded=degraded,
            family=family,
            subfamily=subfamily,
            counted=counted,
            notes=reading.notes,
            triggers=triggers,
            descriptions=self._descriptions,
            similar=similar,
            window=window,
            windows=len(spans),
            uncertain=uncertain and complete,
            rule_score=rule_score,
            forest_probability=scored.forest_probability,
            novelty=scored.novelty,
            window_scores=window_scores,
            family_scores=family_scores,
            explain=explain,
        )
        return ScanResult(
            is_threat=action == "block",
            action=action,
            score=score,
            family=family,
            subfamily=subfamily,
            family_scores=family_scores,
            uncertain=uncertain,
            reasons=reasons,
            triggers=triggers,
            similar=similar,
            novelty=1.0 if degraded else scored.novelty,
            status="degraded" if degraded else "ok" if complete else "partial",
            tokens=reading.tokens,
            windows=len(spans),
            window=window,
            window_scores=window_scores,
            characters=characters,
            scanned_chars=reading.characters,
            timings=_finish(reading, scored.times, scored_ns),
            model_id=self._model_id,
            error=reading.error,
        )

    def _harmless(
        self,
        scored: _core.TextScore,
        reading: Reading,
        block: float,
        warn: float,
        characters: int,
        scored_ns: int,
    ) -> ScanResult:
        """The common case, without a trace of an attack: no words are made."""
        score = scored.score
        windows = _in_order(scored.window_scores, reading.order)
        worst = scored.window
        action: Action = "allow"
        return ScanResult(
            is_threat=False,
            action=action,
            score=score,
            uncertain=is_uncertain(score, 0.0, scored.forest_probability, block, warn),
            family_scores=(
                dict(zip(self._families, values, strict=True)) if (values := scored.family) else {}
            ),
            similar=tuple(
                [
                    Similar(*self._clusters[cluster], round(cosine, 4))
                    for cluster, cosine in scored.nearest
                ]
            ),
            novelty=scored.novelty,
            tokens=reading.tokens,
            windows=len(windows),
            window=reading.spans[worst] if worst >= 0 else None,
            window_scores=windows,
            characters=characters,
            scanned_chars=reading.characters,
            timings=_finish(reading, scored.times, scored_ns),
            model_id=self._model_id,
        )

    def _trigger(self, index: int, begin: int, end: int) -> Trigger:
        info = self._triggers[index]
        return Trigger(info.name, info.family, info.severity, begin, end)

    def _subfamily(self, family: str, scores: Sequence[float]) -> str | None:
        candidates = self._of_family[family]
        if not candidates or not scores:
            return None
        return self._subfamilies[max(candidates, key=scores.__getitem__)][0]


def _weight(info: TriggerInfo) -> float:
    return info.weight


def _in_order(scores: Sequence[float], order: Sequence[int] | None) -> tuple[float, ...]:
    if order is None:
        return tuple(scores)
    return tuple([score for _, score in sorted(zip(order, scores, strict=True))])


def _finish(reading: Reading, times: tuple[int, int, int, int], scored_ns: int) -> dict[str, float]:
    now = perf_counter_ns()
    result = now - scored_ns
    total = now - reading.start_ns
    if reading.batched:
        total = reading.tokenise_ns + reading.encode_ns + sum(times) + result
    return _timings(reading.tokenise_ns, reading.encode_ns, times, result, total)


def _timings(
    tokenise: int, encode: int, core: tuple[int, int, int, int], result: int, total: int
) -> dict[str, float]:
    pool, forests, clusters, triggers = core
    return {
        "tokenise": tokenise / 1000,
        "encode": encode / 1000,
        "pool": pool / 1000,
        "forests": forests / 1000,
        "clusters": clusters / 1000,
        "triggers": triggers / 1000,
        "result": result / 1000,
        "total": total / 1000,
    }
