"""Text -> windows -> screening -> token embeddings, within limits of length, windows and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf, isnan, nan
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from raxe_fast.decode_whole import Parts, parts_of
from raxe_fast.errors import EncoderError
from raxe_fast.screening import screening_score
from raxe_fast.verdict import Reading

if TYPE_CHECKING:
    import numpy.typing as npt

    from raxe_fast import _core
    from raxe_fast.decode_view import View
    from raxe_fast.encoder import TokenEncoder
    from raxe_fast.screening import Screen
    from raxe_fast.verdict import Plan
    from raxe_fast.windows import Window, Windower, Windows

__all__ = ["Place", "Reader", "windows_of"]

Place = tuple[int, int]  # a part (0 the text, then its views) and a window of it
_RESPELT = frozenset(
    {"combining marks", "fullwidth", "homoglyphs", "invisible characters", "leetspeak", "spacing"}
)
_FIRST = np.zeros(1, dtype=np.uint32)
_NO_OWNERS = np.zeros(0, dtype=np.uint32)


def windows_of(
    parts: Parts, text: str, windower: Windower, max_chars: int
) -> Iterator[tuple[Sequence[Window], str]]:
    """All windows of each part that is read, in the order of the parts, and the part's text."""
    for number in sorted(parts.read()):
        said, limit = (parts.views[number - 1].text, None) if number else (text, max_chars)
        yield windower.windows(said, limit).windows, said


class Reader:
    """The encoder, screening network and tokeniser of one scanner with their limits; thread-safe.

    With screening every window is screened, whatever ``max_windows`` and the deadline: both limit
    the windows that the encoder reads of those that are left, and it reads the worst ones first.
    """

    def __init__(
        self,
        encoder: TokenEncoder,
        windower: Windower,
        scorer: _core.Scorer,
        *,
        max_chars: int,
        max_windows: int,
        deadline_ns: int | None,
        decode: bool = True,
        screen: Screen | None = None,
    ) -> None:
        self._encode = encoder.encode
        self._pinned = None if encoder.cpus is None else encoder.pinned
        self._windower = windower
        self._scorer = scorer
        self._screen = screen
        self._max_chars = max_chars
        self._max_windows = max_windows
        self._deadline_ns = deadline_ns
        self._decode = decode

    def tokenise(self, text: str, reading: Reading, plan: Plan) -> list[Sequence[Window]]:
        """The windows of the text and then of what each encoded part of it says; the text has none
        where a part is read in its place. Without screening all together are at most
        ``max_windows``: those of the text, or of the part in its place, come first. What is left
        out goes into ``reading``'s notes."""
        parts = self._parts(text)
        windows: list[Sequence[Window]] = [() for _ in range(len(parts.views) + 1)]
        ranked = plan.clear_below is not None or plan.suspicion is not None
        left = None if ranked else self._max_windows
        found: Windows | None
        for number in parts.read():
            if number == 0:
                found = self._windower.windows(text, self._max_chars, left)
                _note_text(found, reading)
            else:
                view = parts.views[number - 1]
                found = None if left == 0 else self._windower.windows(view.text, None, left)
                self._note_view(view, found, reading)
                if found is not None and number == parts.place:
                    _note_place(view, found, len(text), reading)
            if found is not None:
                windows[number] = found.windows
                if left is not None:
                    left -= len(found.windows)
        reading.views, reading.place = parts.views, parts.place
        if parts.left_out:
            _note_left_out(len(parts.views), reading)
        reading.tokenise_ns = perf_counter_ns() - reading.start_ns
        return windows

    def _parts(self, text: str) -> Parts:
        return parts_of(text, self._max_chars) if self._decode else Parts((), 0)

    def _note_view(self, view: View, found: Windows | None, reading: Reading) -> None:
        """``found``: the windows to read; None where there is no room for any."""
        where = f"The {view.kind} part at characters {view.begin} to {view.end}"
        # Of a respelt text (homoglyphs, invisible characters) the encoder reads the original then,
        # so nothing of it is lost.
        if view.cut and view.kind not in _RESPELT:
            reading.complete = False
            reading.notes.append(
                f"{where} is too long: its first {len(view.text)} characters were decoded."
            )
        if found is None or found.partial:
            reading.complete = False
            read = 0 if found is None else found.characters_read
            reading.notes.append(
                f"{where} is beyond the {self._max_windows} windows of a text: the encoder read "
                f"{read} of its {len(view.text)} decoded characters; trigger phrases were searched "
                "in all of them."
            )

    def logits(self, text: str) -> list[float]:
        """What screening says of each window of a text, in reading order, then of those of its
        views, as the encoder would read them; nothing without screening."""
        if self._screen is None:
            return []
        found: list[float] = []
        for windows, said in windows_of(self._parts(text), text, self._windower, self._max_chars):
            found += self._screen.logits(windows, said)
        return found

    def choose(
        self, text: str, parts: Sequence[Sequence[Window]], reading: Reading, plan: Plan
    ) -> tuple[Sequence[Sequence[Window]], list[Place]]:
        """The windows of each part, and those that the encoder is to read, in that order: without
        screening all, what is read for the whole text first, for time may run out; else what is not
        cleared, the worst first. ``reading`` gets what was cleared. Where a small model has said
        what it thinks of the text, that takes the place of screening, and the windows are cut
        around what it suspects."""
        places = _places(parts, reading.place)
        # Screening clears next to nothing that a small model is unsure about (docs/decisions.md),
        # and one window needs no order.
        if plan.asked and len(places) == 1:
            return parts, places
        begun = perf_counter_ns()
        chosen: Sequence[Sequence[Window]] = parts
        if plan.suspicion is not None:
            clear_below = plan.suspicion.clear_below
            chosen = plan.suspicion.cut(parts, self._windower)
            logits = plan.suspicion.logits(chosen)
            reading.cleared_by = "small model"
        elif self._screen is not None and plan.clear_below is not None:
            clear_below = plan.clear_below
            logits = self._screened(self._screen, text, parts, reading)
        else:
            return parts, places
        reading.screen_ns = perf_counter_ns() - begun
        places = _places(chosen, reading.place)
        # NaN is below nothing: only a number can clear.
        left = [(part, i) for part, i in places if not logits[part][i] < clear_below]
        if len(left) < len(places) and self._must_read_all(text, reading, plan):
            if plan.suspicion is not None:
                chosen, logits = parts, plan.suspicion.logits(parts)
            left = places = _places(chosen, reading.place)
        _note_cleared(chosen, logits, left, reading)

        def suspicion(place: Place) -> float:
            logit = logits[place[0]][place[1]]
            return -inf if isnan(logit) else -logit

        if len(left) > 1:
            left.sort(key=suspicion)
        if len(left) > self._max_windows:
            reading.complete = False
            reading.notes.append(
                f"Too long: of {len(left)} windows that the {reading.cleared_by} did not clear the "
                f"encoder read the {self._max_windows} most suspicious ones; trigger phrases were "
                "searched in all of the text."
            )
            del left[self._max_windows :]
        reading.counts = self._counts(parts, reading.place, left)
        return chosen, left

    def _must_read_all(self, text: str, reading: Reading, plan: Plan) -> bool:
        """Whether trigger phrases say that there may be something: nothing is cleared then."""
        rules = self._rules(text, reading)
        return max(item.rule_score for item in rules) >= plan.thresholds.rule_warn

    def _screened(
        self, screen: Screen, text: str, parts: Sequence[Sequence[Window]], reading: Reading
    ) -> list[list[float]]:
        """The logits of screening for each window of each part; NaN where it failed."""
        try:
            items = zip(parts, _texts(text, reading), strict=True)
            return [screen.logits(*item) for item in items]
        except Exception as error:
            reading.notes.append(f"Screening failed ({error}): the encoder was asked for all.")
            return [[nan] * len(windows) for windows in parts]

    def _counts(
        self, parts: Sequence[Sequence[Window]], place: int, read: Sequence[Place]
    ) -> list[int]:
        """The windows of each part that the encoder would read without screening: a window's score
        depends on how many others its text has. Never fewer than those that it is to read."""
        counts = [len(windows) for windows in parts]
        room = self._max_windows
        for part in _by_place(len(parts), place):
            counts[part] = min(counts[part], room)
            room -= counts[part]
        reads = Counter(part for part, _ in read)
        return [max(count, reads[part]) for part, count in enumerate(counts)]

    def stop_at(self, reading: Reading, plan: Plan, explain: bool) -> float | None:
        """The score at which the first window that has it decides a text; None: all are read.

        Only what screening has ranked is decided early, and only where nothing can change the
        action any more: the text is blocked for its highest score, whatever its family.
        """
        if reading.counts is None or explain or plan.policy.families is not None:
            return None
        return plan.thresholds.block

    def encode(
        self,
        text: str,
        parts: Sequence[Sequence[Window]],
        order: Sequence[Place],
        reading: Reading,
        stop_at: float | None,
    ) -> tuple[list[npt.NDArray[np.float32]], str | None]:
        """One (1, S, H) block of token embeddings per window of ``order`` in reading order, for as
        many as time and the encoder's health allow, or until one scores ``stop_at``;
        ``reading.windows`` says whose they are. And what went wrong, None: nothing."""
        if not order:  # all is cleared
            reading.windows = [[] for _ in parts]
            return [], None
        limit = None if self._deadline_ns is None else reading.start_ns + self._deadline_ns
        begun = perf_counter_ns()
        looking = 0
        encode = self._encode
        blocks: dict[Place, npt.NDArray[np.float32]] = {}
        trouble: str | None = None
        for place in order:
            if limit is not None and perf_counter_ns() >= limit:
                trouble = "the deadline passed before the encoder was done"
                break
            window = parts[place[0]][place[1]]
            try:
                block = encode(window.ids)
            except Exception as error:
                trouble = f"the encoder failed ({type(error).__name__}: {error})"
                break
            blocks[place] = block
            if stop_at is not None and len(blocks) < len(order):
                since = perf_counter_ns()
                decided = self._score(text, block, window, place[0], reading) >= stop_at
                looking += perf_counter_ns() - since
                if decided:
                    reading.notes.append(
                        f"The encoder read {len(blocks)} of {len(order)} windows that were not "
                        "cleared, the most suspicious first: the last one decides."
                    )
                    break
        done = sorted(blocks)
        reading.windows = [
            [windows[i] for of, i in done if of == part] for part, windows in enumerate(parts)
        ]
        reading.screen_ns += looking
        reading.encode_ns = perf_counter_ns() - begun - looking
        return [blocks[place] for place in done], trouble

    def read(
        self, text: str, reading: Reading, plan: Plan, explain: bool
    ) -> list[npt.NDArray[np.float32]]:
        """One (1, S, H) block of token embeddings per window, for as many windows as limits, time,
        screening and the encoder's health allow; ``reading.windows`` says whose they are. Trouble
        is recorded in ``reading``, never raised (except what is no ``Exception``)."""
        try:
            if self._pinned is not None:
                with self._pinned():
                    return self._read(text, reading, plan, explain)
        except EncoderError as error:
            reading.fail(str(error))
            return []
        return self._read(text, reading, plan, explain)

    def _read(
        self, text: str, reading: Reading, plan: Plan, explain: bool
    ) -> list[npt.NDArray[np.float32]]:
        try:
            parts: Sequence[Sequence[Window]] = self.tokenise(text, reading, plan)
        except Exception as error:
            reading.views, reading.place = (), 0
            reading.fail(f"the tokeniser failed ({type(error).__name__}: {error})")
            return []
        parts, order = self.choose(text, parts, reading, plan)
        stop_at = self.stop_at(reading, plan, explain)
        blocks, trouble = self.encode(text, parts, order, reading, stop_at)
        if trouble is not None:
            reading.stop(trouble, sum(map(len, parts)))
            if reading.nothing_read:
                return []
        return blocks

    def _rules(self, text: str, reading: Reading) -> list[_core.TextScore]:
        if reading.rules is None:
            reading.rules = self._scorer.score([], _NO_OWNERS, _texts(text, reading))
        return reading.rules

    def _score(
        self,
        text: str,
        block: npt.NDArray[np.float32],
        window: Window,
        part: int,
        reading: Reading,
    ) -> float:
        """The score that one window gives its text; the same as in the company of the others."""
        assert reading.counts is not None
        rules = self._rules(text, reading)
        found = self._scorer.score(
            [block],
            _FIRST,
            [_texts(text, reading)[part]],
            False,
            None,
            np.array([[window.begin, window.end]], dtype=np.uint32),
            np.array([reading.counts[part]], dtype=np.uint32),
            [rules[part]],
        )
        return found[0].score


def _places(parts: Sequence[Sequence[Window]], place: int) -> list[Place]:
    """All windows of all parts, those of the part that is read for the whole text first."""
    return [(part, i) for part in _by_place(len(parts), place) for i in range(len(parts[part]))]


def _by_place(parts: int, place: int) -> list[int]:
    """All parts in order, but first the one that is read in the text's place."""
    return [place, *[part for part in range(parts) if part != place]]


def _texts(text: str, reading: Reading) -> list[str]:
    return [text, *[view.text for view in reading.views]]


def _note_cleared(
    parts: Sequence[Sequence[Window]],
    logits: Sequence[Sequence[float]],
    left: Sequence[Place],
    reading: Reading,
) -> None:
    if not left:  # nearly always where anything is
        reading.cleared = parts
        reading.clear_scores = [screening_score(max(found)) if found else None for found in logits]
        return
    kept = set(left)
    cleared = [
        [i for i in range(len(windows)) if (part, i) not in kept]
        for part, windows in enumerate(parts)
    ]
    reading.cleared = [
        [windows[i] for i in gone] for windows, gone in zip(parts, cleared, strict=True)
    ]
    reading.clear_scores = [
        screening_score(max(found[i] for i in gone)) if gone and len(gone) == len(found) else None
        for found, gone in zip(logits, cleared, strict=True)
    ]


def _note_text(found: Windows, reading: Reading) -> None:
    reading.tokens = found.tokens
    reading.characters = found.characters_read
    if found.partial:
        reading.complete = False
        reading.notes.append(
            f"Too long: the encoder read the first and the last part, {found.characters_read} "
            f"of {found.characters} characters; trigger phrases were searched in all of them."
        )


def _note_left_out(views: int, reading: Reading) -> None:
    reading.complete = False
    reading.notes.append(
        f"Too many encoded parts: {views} of them were decoded and read, others were not."
    )


def _note_place(view: View, found: Windows, characters: int, reading: Reading) -> None:
    """The view is read in place of the text, of ``characters`` characters."""
    reading.tokens = found.tokens
    reading.decoded_size = found.characters
    reading.characters = characters * found.characters_read // found.characters
    reading.notes.append(
        f"The whole text is {view.kind} (characters {view.begin} to {view.end}): the encoder read "
        "what it says decoded, not how it is spelt."
    )
