"""From the core's scores of one text to a :class:`~raxe_fast.result.ScanResult`."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

from raxe_fast.policy import Policy, Thresholds, action_for
from raxe_fast.reasons import is_uncertain, write_reasons
from raxe_fast.result import Decoded, ScanResult, Similar, Trigger, pending_result

if TYPE_CHECKING:
    from raxe_fast import _core
    from raxe_fast.decode import View
    from raxe_fast.model import Model
    from raxe_fast.parts import TriggerInfo
    from raxe_fast.result import Action
    from raxe_fast.suspicion import Suspicion
    from raxe_fast.windows import Window

__all__ = ["Plan", "Reading", "VerdictMaker"]

_ENCODED = "encoding_obfuscation"
_GRAVITY = {"allow": 0, "warn": 1, "block": 2}
_Family = tuple[str | None, str | None]  # and its subfamily


class Plan(NamedTuple):
    """A policy with the thresholds it has for one model. ``details``: family scores are needed
    for every text, because the warning threshold is below the model's detail threshold.
    ``clear_below``: the logit of screening below which a window is cleared; None: no screening.
    ``asked``: a small model is unsure about the text, and ``suspicion`` is what it says of its
    windows; None where it could not read them."""

    policy: Policy
    thresholds: Thresholds
    details: bool
    clear_below: float | None = None
    asked: bool = False
    suspicion: Suspicion | None = None


class Reading:
    """What happened to one text on its way to the core; times in nanoseconds."""

    __slots__ = (
        "batched",
        "characters", "clear_scores", "cleared", "cleared_by", "complete", "counts",
        "decoded_size", "encode_ns", "error", "length", "notes", "orders", "place", "rules",
        "screen_ns", "start_ns", "tokenise_ns", "tokens", "views", "windows",
    )  # fmt: skip

    def __init__(self, start_ns: int, length: int) -> None:
        self.start_ns = start_ns
        self.length = length  # code points of the text
        self.tokenise_ns = 0
        self.screen_ns = 0
        self.encode_ns = 0
        self.tokens = 0
        # What encoded parts of the text say; each is scored as a text of its own.
        self.views: Sequence[View] = ()
        # Which of them is read in place of the text, counted from 1; 0: none, the text is read.
        self.place = 0
        self.decoded_size = 0  # code points of that view's text
        # The windows that were encoded, of the text and then of each view, in the order in which
        # the core gets those of one.
        self.windows: list[list[Window]] = [[]]
        # For each of these lists the places of its windows in reading order; None: the same.
        self.orders: Sequence[Sequence[int]] | None = None
        # Screening, part by part: the windows it cleared, and where it cleared all of them the
        # score that it gives the part. None: there was no screening. A small model that has been
        # asked before stands in its place.
        self.cleared: Sequence[Sequence[Window]] | None = None
        self.clear_scores: Sequence[float | None] = ()
        self.cleared_by = "screening network"
        # How many windows each part has in all; None: those that were encoded.
        self.counts: Sequence[int] | None = None
        # The triggers of each part, where they had to be known before the encoder ran.
        self.rules: list[_core.TextScore] | None = None
        self.characters = 0  # code points that the encoder has seen
        self.complete = True
        self.batched = False  # waiting for others, too: its total is the sum of its stages
        self.notes: list[str] = []
        self.error: str | None = None

    def fail(self, error: str) -> None:
        """The encoder gave nothing, and why."""
        self.error = error
        self.complete = False
        self.windows = [[] for _ in self.windows]
        self.cleared, self.clear_scores, self.counts = None, (), None
        self.tokens = 0
        self.characters = 0

    @property
    def nothing_read(self) -> bool:
        """Whether neither the encoder nor, in its place, screening says anything of any part."""
        return not any(map(self.was_read, range(len(self.windows))))

    def was_read(self, part: int) -> bool:
        """Whether the encoder has read of a part, or screening cleared it as a whole."""
        return bool(self.windows[part]) or self.clear_score(part) is not None

    def clear_score(self, part: int) -> float | None:
        """What screening says of a part that it has cleared as a whole; else None."""
        return self.clear_scores[part] if self.clear_scores else None

    def stop(self, error: str, windows: int) -> None:
        """The encoder ended early, after those in ``windows`` of ``windows`` windows in all."""
        if self.nothing_read:
            self.fail(error)
            return
        own = self.windows[self.place]
        if self.cleared is not None:
            own = sorted([*own, *self.cleared[self.place]], key=_begin)
        self.error = error
        self.complete = False
        self.tokens = _tokens_in(own)
        self.characters = _covered([(window.begin, window.end) for window in own])
        if self.place:
            self.characters = self.length * self.characters // self.decoded_size
        self.notes.append(
            f"The encoder read {sum(map(len, self.windows))} of {windows} windows ({error}); "
            "trigger phrases were searched in all of the text."
        )


def _begin(window: Window) -> int:
    return window.begin


def _tokens_in(windows: Sequence[Window]) -> int:
    """Tokens of windows in reading order, those that two share counted once."""
    count = 0
    reached: dict[int, int] = {}  # by the tokens of a piece of the text
    for window in windows:
        size = window.ids.shape[1] - 2
        if window.source is None:
            count += size
            continue
        tokens, start, _ = window.source
        end = reached.get(id(tokens), 0)
        count += max(0, start + size - max(start, end))
        reached[id(tokens)] = max(end, start + size)
    return count


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
        self._has_passages = len(manifest.features) > 1
        self.triggers = model.triggers
        self.descriptions = {item.name: item.description for item in model.triggers}
        clusters = model.clusters
        self.clusters = list(
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
            timings=_timings(0, 0, 0, (0, 0, 0, 0), 0, perf_counter_ns() - start_ns),
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
            timings=_timings(0, 0, 0, (0, 0, 0, 0), 0, perf_counter_ns() - reading.start_ns),
            model_id=self._model_id,
            error=what,
        )

    def make(
        self,
        text: str,
        scores: Sequence[_core.TextScore],
        reading: Reading,
        plan: Plan,
        explain: bool,
    ) -> ScanResult:
        """The verdict, from the scores of the text and of each of its views; they must hold family
        scores if they reach ``plan``'s warning threshold, or ``explain`` is set."""
        scored_ns = perf_counter_ns()
        policy, thresholds = plan.policy, plan.thresholds
        if not all([score.finite for score in scores]):
            reading.fail("the encoder gave NaN or infinity")
        degraded = reading.error is not None and reading.nothing_read
        voices = _voices(scores, reading, thresholds)
        speaker, score, action, block, warn, _ = voices[0]
        family: str | None = None
        subfamily: str | None = None
        counted = True
        if action != "allow":
            voice, (family, subfamily), counted = self._speaker(voices, scores, reading, policy)
            speaker, score, action, block, warn, _ = voice
        scored, windows = scores[speaker], reading.windows[speaker]
        view = reading.views[speaker - 1] if speaker else None
        family_scores: dict[str, float] = {}
        window: tuple[int, int] | None = None
        passage: tuple[int, int] | None = None
        window_scores: tuple[float, ...] = ()
        novelty = 1.0
        if not degraded:
            window_scores = _in_order(scores, reading.orders)
            if windows:
                worst = windows[scored.window]
                window = (worst.begin, worst.end) if view is None else (view.begin, view.end)
                if view is None and score >= warn and self._has_passages:
                    passage = worst.span(*scored.passage_tokens)
                novelty = scored.novelty
                family_scores = self._family_scores(scored)

        complete = reading.complete
        if not counted:
            action = "allow"
        if not complete and action == "allow" and policy.on_partial == "warn":
            action = "warn"
        return pending_result(
            _Pending(self, scores, speaker, reading, plan, degraded, counted, explain),
            action == "block",
            action,
            score,
            family,
            subfamily,
            family_scores,
            not complete
            or is_uncertain(
                score, _rule_score(scores, speaker, reading), scored.forest_probability, block, warn
            ),
            novelty,
            "degraded" if degraded else "ok" if complete else "partial",
            reading.tokens,
            sum(map(len, reading.windows)),
            sum(map(len, reading.cleared or ())),
            window,
            passage,
            window_scores,
            _decoded(scores, reading) if reading.views else (),
            len(text),
            reading.characters,
            _finish(reading, [score.times for score in scores], scored_ns),
            self._model_id,
            reading.error,
        )

    def _speaker(
        self,
        voices: list[_Voice],
        scores: Sequence[_core.TextScore],
        reading: Reading,
        policy: Policy,
    ) -> tuple[_Voice, _Family, bool]:
        """Which part speaks for the text, it itself or what an encoded part of it says; the family
        it has, and whether the policy counts that: the gravest part of those that are counted, or
        else the gravest."""
        first = voices[0]
        for voice in voices if policy.families is not None else ():
            if voice.action == "allow":
                break
            for family in self._families_of(voice.part, scores, reading):
                if policy.counts(family[0]):
                    return voice, family, True
        family = self._families_of(first.part, scores, reading)[0]
        return first, family, policy.families is None

    def _families_of(
        self, part: int, scores: Sequence[_core.TextScore], reading: Reading
    ) -> list[_Family]:
        """The families that a part may be counted as, the first being the one to name: what an
        encoded part says is an attack in its own right, and its encoding is another."""
        scored = scores[part]
        read = bool(reading.windows[part])
        own = self._family(scored, self._family_scores(scored) if read else {})
        if not part or _ENCODED not in self._families:
            return [own]
        encoded = _ENCODED, self._known_subfamily(reading.views[part - 1].subfamily)
        # That nothing is known of what it says is no reason to count it.
        return [encoded] if own[0] is None else [encoded, own]

    def _family_scores(self, scored: _core.TextScore) -> dict[str, float]:
        by_family = scored.family
        return dict(zip(self._families, by_family, strict=True)) if by_family else {}

    def _family(self, scored: _core.TextScore, family_scores: dict[str, float]) -> _Family:
        """The likeliest family and its likeliest subfamily; without forests the gravest
        trigger's."""
        if family_scores:
            family = max(family_scores, key=family_scores.__getitem__)
            return family, self._subfamily(family, scored.subfamily)
        matches = scored.matches
        if not matches:
            return None, None
        gravest = max((self.triggers[match[0]] for match in matches), key=_weight)
        return gravest.family, gravest.subfamily

    def _known_subfamily(self, name: str) -> str | None:
        return name if (name, _ENCODED) in self._subfamilies else None

    def _subfamily(self, family: str, scores: Sequence[float]) -> str | None:
        candidates = self._of_family[family]
        if not candidates or not scores:
            return None
        return self._subfamilies[max(candidates, key=scores.__getitem__)][0]


class _Pending:
    """The parts of a result that are made when they are looked at. Holds what encoded parts of the
    text say, and its tokens, for as long as the result lives."""

    __slots__ = (
        "_counted", "_degraded", "_explain", "_maker", "_plan", "_reading", "_scores", "_speaker",
    )  # fmt: skip

    def __init__(
        self,
        maker: VerdictMaker,
        scores: Sequence[_core.TextScore],
        speaker: int,
        reading: Reading,
        plan: Plan,
        degraded: bool,
        counted: bool,
        explain: bool,
    ) -> None:
        self._maker = maker
        self._scores = scores
        self._speaker = speaker
        self._reading = reading
        self._plan = plan
        self._degraded = degraded
        self._counted = counted
        self._explain = explain

    def triggers(self, result: ScanResult) -> tuple[Trigger, ...]:
        known = self._maker.triggers
        return tuple(
            Trigger(known[i].name, known[i].family, known[i].severity, begin, end)
            for i, begin, end in self._scores[0].matches
        )

    def similar(self, result: ScanResult) -> tuple[Similar, ...]:
        if self._degraded or result.window is None:
            return ()
        clusters = self._maker.clusters
        return tuple(
            Similar(*clusters[cluster], round(cosine, 4))
            for cluster, cosine in self._scores[self._speaker].nearest
        )

    def reasons(self, result: ScanResult) -> tuple[str, ...]:
        notes = self._reading.notes
        if self._explain and result.cleared:
            notes = [*notes, _said_of_clearing(result, self._reading)]
        if self._degraded:
            notes = [f"Degraded: {result.error}; the verdict rests on the trigger phrases alone."]
        speaker = self._scores[self._speaker]
        view = self._reading.views[self._speaker - 1] if self._speaker else None
        return write_reasons(
            result,
            thresholds=self._plan.thresholds,
            notes=notes,
            descriptions=self._maker.descriptions,
            counted=self._counted,
            rule_score=_rule_score(self._scores, self._speaker, self._reading),
            forest_probability=speaker.forest_probability,
            view=view,
            # The triggers of a decoded part have no place in the text itself.
            view_triggers=[
                self._maker.triggers[match[0]].name for match in speaker.matches if view
            ],
            evidence=(speaker.linear, speaker.passage, speaker.lexical),
            by_rules=not self._reading.was_read(self._speaker),
            explain=self._explain,
        )


def _weight(info: TriggerInfo) -> float:
    return info.weight


def _in_order(
    scores: Sequence[_core.TextScore], orders: Sequence[Sequence[int]] | None
) -> tuple[float, ...]:
    """The scores of all windows, text by text, each in reading order."""
    found: list[float] = []
    for i, item in enumerate(scores):
        if orders is None:
            found += item.window_scores
        else:
            found += [s for _, s in sorted(zip(orders[i], item.window_scores, strict=True))]
    return tuple(found)


def _rule_score(scores: Sequence[_core.TextScore], speaker: int, reading: Reading) -> float:
    """That of what speaks for the text, and of a text in whose place a view was read its own, too:
    trigger phrases that only the spelling shows are a reason for doubt."""
    own = scores[0].rule_score if reading.place else 0.0
    return max(scores[speaker].rule_score, own)


class _Voice(NamedTuple):
    """What a part has to say of the text: its score, and the action for that with its thresholds.
    ``read``: not only searched for trigger phrases."""

    part: int
    score: float
    action: Action
    block: float
    warn: float
    read: bool


def _voices(
    scores: Sequence[_core.TextScore], reading: Reading, thresholds: Thresholds
) -> list[_Voice]:
    """All that may speak for the text, one at least, the gravest first."""
    if len(scores) == 1:
        return [_voice(0, scores[0], reading, thresholds)]
    place = reading.place
    # In whose place a view was read has the score of its trigger phrases alone.
    first = 1 if place and reading.was_read(place) else 0
    voices = [
        _voice(part, scored, reading, thresholds)
        for part, scored in enumerate(scores)
        if part >= first
    ]
    # That a part that nobody has read holds no trigger phrase speaks neither for it nor against it.
    voices = [voice for voice in voices if voice.read or voice.action != "allow"] or voices
    return sorted(voices, key=_gravity, reverse=True)


def _voice(part: int, scored: _core.TextScore, reading: Reading, thresholds: Thresholds) -> _Voice:
    score = reading.clear_score(part)
    if score is None and not reading.windows[part]:
        score, block, warn = scored.rule_score, thresholds.rule_block, thresholds.rule_warn
        return _Voice(part, score, action_for(score, block, warn), block, warn, False)
    if score is None:
        score = scored.score
    block, warn = thresholds.block, thresholds.warn
    return _Voice(part, score, action_for(score, block, warn), block, warn, True)


def _gravity(voice: _Voice) -> tuple[int, bool, float]:
    """Scores of the encoder and of rules do not compare; the actions they lead to do."""
    return _GRAVITY[voice.action], voice.read, voice.score


def _part_score(part: int, scores: Sequence[_core.TextScore], reading: Reading) -> float:
    """The score of the text or of a view: of the encoder's windows, of screening where it has
    cleared all of them, or of the trigger phrases where nothing was read."""
    cleared = reading.clear_score(part)
    if cleared is not None:
        return cleared
    return scores[part].score if reading.windows[part] else scores[part].rule_score


def _decoded(scores: Sequence[_core.TextScore], reading: Reading) -> tuple[Decoded, ...]:
    return tuple(
        Decoded(
            view.kind,
            view.begin,
            view.end,
            _part_score(number, scores, reading),
            number == reading.place,
        )
        for number, view in enumerate(reading.views, 1)
    )


def _said_of_clearing(result: ScanResult, reading: Reading) -> str:
    if not result.encoder_ran:
        return (
            f"Cleared by the {reading.cleared_by}, which is certain that nothing here is an "
            "attack; the encoder did not run."
        )
    return (
        f"The {reading.cleared_by} cleared {result.cleared} of {result.cleared + result.windows} "
        "windows; the encoder read the others."
    )


def _finish(
    reading: Reading, all_times: Sequence[tuple[int, int, int, int]], scored_ns: int
) -> dict[str, float]:
    times = all_times[0]
    if len(all_times) > 1:
        pool, forests, clusters, triggers = (sum(part) for part in zip(*all_times, strict=True))
        times = pool, forests, clusters, triggers
    now = perf_counter_ns()
    result = now - scored_ns
    total = now - reading.start_ns
    if reading.batched:
        before = reading.tokenise_ns + reading.screen_ns + reading.encode_ns
        total = before + sum(times) + result
    return _timings(reading.tokenise_ns, reading.screen_ns, reading.encode_ns, times, result, total)


def _timings(
    tokenise: int,
    screen: int,
    encode: int,
    core: tuple[int, int, int, int],
    result: int,
    total: int,
) -> dict[str, float]:
    pool, forests, clusters, triggers = core
    return {
        "tokenise": tokenise / 1000,
        "screen": screen / 1000,
        "encode": encode / 1000,
        "pool": pool / 1000,
        "forests": forests / 1000,
        "clusters": clusters / 1000,
        "triggers": triggers / 1000,
        "result": result / 1000,
        "total": total / 1000,
    }
