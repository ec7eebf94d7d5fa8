"""Text -> windows -> token embeddings, within limits of length, windows and time."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

from raxe_fast.decode_whole import Parts, parts_of
from raxe_fast.errors import EncoderError
from raxe_fast.verdict import Reading

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from raxe_fast.decode_view import View
    from raxe_fast.encoder import TokenEncoder
    from raxe_fast.windows import Window, Windower, Windows

__all__ = ["Reader"]

_RESPELT = frozenset(
    {"combining marks", "fullwidth", "homoglyphs", "invisible characters", "leetspeak", "spacing"}
)


class Reader:
    """The encoder and tokeniser of one scanner with their limits; thread-safe."""

    def __init__(
        self,
        encoder: TokenEncoder,
        windower: Windower,
        *,
        max_chars: int,
        max_windows: int,
        deadline_ns: int | None,
        decode: bool = True,
    ) -> None:
        self._encode = encoder.encode
        self._pinned = None if encoder.cpus is None else encoder.pinned
        self._windower = windower
        self._max_chars = max_chars
        self._max_windows = max_windows
        self._deadline_ns = deadline_ns
        self._decode = decode

    def tokenise(self, text: str, reading: Reading) -> list[Sequence[Window]]:
        """The windows to encode, of the text and then of what each encoded part of it says; the
        text has none where a part is read in its place. All together are at most ``max_windows``:
        those of the text, or of the part in its place, come first. What is left out goes into
        ``reading``'s notes."""
        parts = parts_of(text) if self._decode else Parts((), 0)
        if len(text) > self._max_chars and parts.place:
            parts = Parts(parts.views, 0)  # the text is to be read in part, not its view in full
        windows: list[Sequence[Window]] = [() for _ in range(len(parts.views) + 1)]
        left = self._max_windows
        found: Windows | None
        for number in parts.read():
            if number == 0:
                found = self._windower.windows(text, self._max_chars, left)
                _note_text(found, reading)
            else:
                view = parts.views[number - 1]
                found = self._windower.windows(view.text, None, left) if left else None
                self._note_view(view, found, reading)
                if found is not None and number == parts.place:
                    _note_place(view, found, len(text), reading)
            if found is not None:
                windows[number] = found.windows
                left -= len(found.windows)
        reading.views, reading.place = parts.views, parts.place
        reading.tokenise_ns = perf_counter_ns() - reading.start_ns
        return windows

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

    def read(self, text: str, reading: Reading) -> list[npt.NDArray[np.float32]]:
        """One (1, S, H) block of token embeddings per window, for as many windows as limits, time
        and the encoder's health allow; ``reading.windows`` says whose they are. Trouble is recorded
        in ``reading``, never raised (except what is no ``Exception``)."""
        try:
            if self._pinned is not None:
                with self._pinned():
                    return self._read(text, reading)
        except EncoderError as error:
            reading.fail(str(error))
            return []
        return self._read(text, reading)

    def _read(self, text: str, reading: Reading) -> list[npt.NDArray[np.float32]]:
        try:
            parts = self.tokenise(text, reading)
        except Exception as error:
            reading.views, reading.place = (), 0
            reading.fail(f"the tokeniser failed ({type(error).__name__}: {error})")
            return []
        limit = None if self._deadline_ns is None else reading.start_ns + self._deadline_ns
        begun = perf_counter_ns()
        encode = self._encode
        blocks: list[list[npt.NDArray[np.float32]]] = [[] for _ in parts]
        read: list[list[Window]] = [[] for _ in parts]
        reading.windows = read
        trouble: str | None = None
        # What is read for the whole text first: time may run out.
        for part in sorted(range(len(parts)), key=lambda part: part != reading.place):
            for window in parts[part]:
                if limit is not None and perf_counter_ns() >= limit:
                    trouble = "the deadline passed before the encoder was done"
                    break
                try:
                    block = encode(window.ids)
                except Exception as error:
                    trouble = f"the encoder failed ({type(error).__name__}: {error})"
                    break
                blocks[part].append(block)
                read[part].append(window)
            if trouble is not None:
                break
        reading.encode_ns = perf_counter_ns() - begun
        if trouble is not None:
            reading.stop(trouble, sum(map(len, parts)))
            if not reading.windows[reading.place]:
                return []
        return [block for items in blocks for block in items]


def _note_text(found: Windows, reading: Reading) -> None:
    reading.tokens = found.tokens
    reading.characters = found.characters_read
    if found.partial:
        reading.complete = False
        reading.notes.append(
            f"Too long: the encoder read the first and the last part, {found.characters_read} "
            f"of {found.characters} characters; trigger phrases were searched in all of them."
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
