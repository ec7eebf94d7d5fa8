"""What a scan returns: immutable values that know nothing of models."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, Protocol

__all__ = [
    "Action",
    "Decoded",
    "Pending",
    "ScanResult",
    "Similar",
    "Status",
    "Trigger",
    "pending_result",
]

Action = Literal["allow", "warn", "block"]
Status = Literal["ok", "partial", "degraded", "error"]


@dataclass(frozen=True, slots=True)
class Trigger:
    """One match of a trigger phrase.

    ``begin`` and ``end`` are code-point offsets into the scanned ``str``: the matched text is
    ``text[begin:end]``.
    """

    name: str
    family: str
    severity: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """An encoded part of the text, which was decoded and scored on its own.

    ``kind`` names the encoding ("base64", "rot13", "base64 > hex"); ``begin`` and ``end`` are
    code-point offsets of the encoded part; ``score`` is that of what it says. ``in_place``: the
    part is the whole text, and was read in place of how the text is spelt.
    """

    kind: str
    begin: int
    end: int
    score: float
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Similar:
    """A cluster of known attacks near the text; ``cosine`` is in [-1, 1]."""

    label: str
    family: str
    subfamily: str
    cosine: float


class Pending(Protocol):
    """What can still be said of a result, worked out when it is asked for."""

    def reasons(self, result: ScanResult) -> tuple[str, ...]: ...

    def triggers(self, result: ScanResult) -> tuple[Trigger, ...]: ...

    def similar(self, result: ScanResult) -> tuple[Similar, ...]: ...


class _Deferred:
    __slots__ = ("_pending",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult(_Deferred):
    """The verdict on one text.

    A scanner's results work out ``reasons``, ``triggers`` and ``similar`` when they are first
    looked at: most never are, and a scan of a short text takes less time than their words.

    Attributes:
        is_threat: whether the policy blocks the text.
        action: ``"allow"``, ``"warn"`` or ``"block"``.
        score: calibrated probability of an attack in [0, 1], also for benign texts; the highest
            over all windows of the text and of its encoded parts, a text that is encoded as a
            whole only by what it says (``decoded``); where the policy counts some families only,
            that of the part that decides. With status ``"degraded"``, and of a part that was not
            read but whose trigger phrases decide, it is the rule score, which is not calibrated;
            with ``"error"`` it is NaN (``null`` in :meth:`to_dict`).
        family, subfamily: most likely kind of attack, ``None`` below the warning threshold.
        family_scores: probability by family given that the text is an attack; empty if the score
            is below the model's detail threshold (unless ``explain=True``).
        uncertain: the verdict is close or its sources disagree; see :mod:`raxe_fast.reasons`.
        reasons: the verdict in plain words, most important first; empty for an unremarkable text.
            Holds no part of the text itself, so it may be logged.
        triggers: matches of trigger phrases, by position.
        similar: nearest clusters of known attacks, by falling cosine.
        novelty: 1 - cosine to the nearest known cluster, harmless ones included; in [0, 2].
        status: ``"ok"``; ``"partial"``: the model did not read the whole text (the trigger phrases
            did), or some of its encoded parts were left out; ``"degraded"``: the encoder failed or
            was too late, the verdict rests on the trigger phrases alone; ``"error"``: the scan
            failed and the policy's fail mode decided.
        tokens: tokens of the text that were read, by the encoder or by screening, special ones not
            counted; those of what it says decoded where that was read in its place.
        windows: windows read by the encoder, of the text and of its encoded parts.
        cleared: windows that the screening network cleared, or in its place the small model that
            asked the large one: the encoder did not read them. Where screening cleared all,
            ``score`` is its own calibrated probability, ``window`` is ``None`` and ``similar``
            empty; see :attr:`encoder_ran`.
        window: ``(begin, end)`` code points of the worst window, ``None`` without windows; of an
            encoded part where that is what scores highest.
        passage: ``(begin, end)`` code points of the few words in that window that speak most
            strongly of an attack; ``None`` below the warning threshold, for an encoded part, and
            for models without token evidence.
        window_scores: calibrated score of each window that the encoder read, in reading order, then
            of the windows of each decoded part; no window of the text where a part was read in its
            place.
        decoded: the encoded parts of the text that were decoded and scored.
        characters: length of the text in code points.
        scanned_chars: how many of them the encoder or screening has seen. Of a text that is too
            long these are the first and the last ones. Of a text that was read decoded, but not to
            its end, the share that was read.
        timings: microseconds by stage: tokenise, screen, encode, pool, forests, clusters, triggers,
            result, total.
        model_id: id of the model.
        error: what went wrong, ``None`` if nothing did.
    """

    is_threat: bool
    action: Action
    score: float
    family: str | None = None
    subfamily: str | None = None
    family_scores: dict[str, float] = field(default_factory=dict)
    uncertain: bool = False
    reasons: tuple[str, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    similar: tuple[Similar, ...] = ()
    novelty: float = 1.0
    status: Status = "ok"
    tokens: int = 0
    windows: int = 0
    cleared: int = 0
    window: tuple[int, int] | None = None
    passage: tuple[int, int] | None = None
    window_scores: tuple[float, ...] = ()
    decoded: tuple[Decoded, ...] = ()
    characters: int = 0
    scanned_chars: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    model_id: str = ""
    error: str | None = None

    if not TYPE_CHECKING:  # it would make every attribute look known

        def __getattr__(self, name: str) -> Any:
            # Only asked for slots that are not set. Threads may race to set equal values.
            if name not in _LATE:
                raise AttributeError(f"ScanResult has no attribute {name!r}")
            value = getattr(self._pending, name)(self)
            object.__setattr__(self, name, value)
            return value

    @property
    def encoder_ran(self) -> bool:
        """Whether the encoder has read any of the text, or the verdict came without it."""
        return self.windows > 0

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-safe values: tuples become lists, non-finite numbers ``None``; and
        ``encoder_ran``."""
        data: dict[str, Any] = _json_safe(asdict(self))
        data["encoder_ran"] = self.encoder_ran
        return data


_LATE = ("reasons", "triggers", "similar")
_SETTERS = tuple(
    ScanResult.__dict__[item.name].__set__ for item in fields(ScanResult) if item.name not in _LATE
)


def pending_result(pending: Pending, *values: object) -> ScanResult:
    """A result whose late fields come from ``pending``; ``values`` are all others, in order."""
    result = object.__new__(ScanResult)
    object.__setattr__(result, "_pending", pending)
    for setter, value in zip(_SETTERS, values, strict=True):
        setter(result, value)
    return result


def _json_safe(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    return value
