"""Text -> windows -> token embeddings, within limits of length, windows and time."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

from raxe_fast.decode import decoded_views
from raxe_fast.errors import EncoderError
from raxe_fast.verdict import Reading

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from raxe_fast.encoder import TokenEncoder
    from raxe_fast.windows import Window, Windower

__all__ = ["Reader"]

_MAX_DECODED = 8192  # characters that are read of one encoded part
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
        """The windows to encode, of the text and then of what each encoded part of it says; what
        is left out goes into ``reading``'s notes."""
        found = self._windower.windows(text, self._max_chars, self._max_windows)
        reading.tokens = found.tokens
        reading.characters = found.characters_read
        if found.partial:
            reading.complete = False
            reading.notes.append(
                f"Too long: the encoder read the first and the last part, {found.characters_read} "
                f"of {found.characters} characters; trigger phrases were searched in all of them."
            )
        parts: list[Sequence[Window]] = [found.windows]
        if self._decode:
            reading.views = views = decoded_views(text, max_chars=_MAX_DECODED)
            for view in views:
                # Of a respelt text (homoglyphs, invisible characters) the encoder reads the
                # original anyway, so nothing of it is lost.
                if len(view.text) >= _MAX_DECODED and view.kind not in _RESPELT:
                    reading.complete = False
                    reading.notes.append(
                        f"The {view.kind} part at characters {view.begin} to {view.end} is too "
                        f"long: its first {_MAX_DECODED} characters were decoded."
                    )
                parts.append(self._windower.windows(view.text).windows)
        reading.tokenise_ns = perf_counter_ns() - reading.start_ns
        return parts

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
            reading.views = ()
            reading.fail(f"the tokeniser failed ({type(error).__name__}: {error})")
            return []
        limit = None if self._deadline_ns is None else reading.start_ns + self._deadline_ns
        begun = perf_counter_ns()
        encode = self._encode
        blocks: list[npt.NDArray[np.float32]] = []
        read: list[list[Window]] = [[] for _ in parts]
        reading.windows = read
        trouble: str | None = None
        for windows, done in zip(parts, read, strict=True):
            for window in windows:
                if limit is not None and perf_counter_ns() >= limit:
                    trouble = "the deadline passed before the encoder was done"
                    break
                try:
                    block = encode(window.ids)
                except Exception as error:
                    trouble = f"the encoder failed ({type(error).__name__}: {error})"
                    break
                blocks.append(block)
                done.append(window)
            if trouble is not None:
                break
        reading.encode_ns = perf_counter_ns() - begun
        if trouble is not None:
            reading.stop(trouble, sum(map(len, parts)))
            if not reading.windows[0]:
                return []
        return blocks
