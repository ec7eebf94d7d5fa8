"""Cuts a text into windows of token ids for the encoder, and groups windows of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raxe_fast.errors import ModelFormatError
from raxe_fast.tokeniser import TokeniserKind, Tokens, open_tokeniser

__all__ = ["Block", "Window", "Windower", "Windows", "bucket_by_length"]

# Keeps a batch's activations below about 30 MB at MiniLM's width.
_BATCH_TOKENS = 2048


# Tuples, not frozen dataclasses: those take three times as long to make, and every scan makes some.
class Window(NamedTuple):
    """One encoder input: ``ids`` int64 (1, S) from [CLS] to [SEP], and the span of its tokens,
    code points [begin, end) of the original text (empty for a window without tokens)."""

    ids: npt.NDArray[np.int64]
    begin: int
    end: int
    # Where the tokens came from: the tokens of the part, the window's first in them, and the offset
    # of the part in the text.
    source: tuple[Tokens, int, int] | None = None

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Code points of the original text that tokens [first, last) of ``ids`` cover; [CLS] and
        [SEP] cover nothing. The whole window where that is not known."""
        first, last = max(first - 1, 0), min(last - 1, self.ids.shape[1] - 2)
        if self.source is None or first >= last:
            return self.begin, self.end
        tokens, start, offset = self.source
        begin = tokens.token_to_chars(start + first)[0]
        return offset + begin, offset + tokens.token_to_chars(start + last - 1)[1]


class Windows(NamedTuple):
    """The windows of one text, in text order.

    ``tokens``: tokens read, special ones excluded, those in an overlap counted once.
    ``characters_read``: code points read, of ``characters`` in the text. ``partial``: a limit left
    some of the text unread.
    """

    windows: tuple[Window, ...]
    tokens: int
    characters_read: int
    characters: int
    partial: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Windows of equal token count: ``ids`` int64 (B, S) C-contiguous, and ``index`` (B,), their
    positions in the sequence that was grouped, ascending."""

    ids: npt.NDArray[np.int64]
    index: tuple[int, ...]


class Windower:
    """Tokenises texts into windows of at most ``max_tokens`` tokens, [CLS] and [SEP] included,
    each sharing ``overlap`` tokens with the next. Immutable and thread-safe.

    ``tokenizer`` is the content of a tokenizer.json. ``cls_id`` and ``sep_id`` default to what it
    puts around a text. ``kind`` says what reads texts: ``"native"``, the core, where it knows the
    file, else ``"tokenizers"``, the library; the tokens are the same. Texts are data: a literal
    "[SEP]" in one is read as five characters and never as the special token. Raises
    ModelFormatError for a tokenizer that cannot be read, ValueError for limits that leave no room.
    """

    __slots__ = ("_cls", "_encode", "_overlap", "_room", "_sep", "kind")

    def __init__(
        self,
        tokenizer: bytes | str,
        *,
        max_tokens: int,
        overlap: int,
        cls_id: int | None = None,
        sep_id: int | None = None,
        kind: TokeniserKind | None = None,
    ) -> None:
        if max_tokens < 3:
            raise ValueError(f"max_tokens must be at least 3, not {max_tokens}")
        if not 0 <= overlap < max_tokens - 2:
            raise ValueError(
                f"overlap must be from 0 to {max_tokens - 3} for {max_tokens} tokens, not {overlap}"
            )
        engine = open_tokeniser(tokenizer, kind)
        around = engine.around
        if len(around) != 2 and (cls_id is None or sep_id is None):
            raise ModelFormatError(
                f"puts {len(around)} special tokens around a text, expected 2",
                member="tokenizer.json",
            )
        self._cls = around[0] if cls_id is None else cls_id
        self._sep = around[-1] if sep_id is None else sep_id
        self._room = max_tokens - 2
        self._overlap = overlap
        self._encode = engine.encode
        self.kind: TokeniserKind = engine.kind

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        max_tokens: int,
        overlap: int,
        cls_id: int | None = None,
        sep_id: int | None = None,
        kind: TokeniserKind | None = None,
    ) -> Windower:
        """A windower from a tokenizer.json. Raises OSError where it cannot be read."""
        return cls(
            Path(path).read_bytes(),
            max_tokens=max_tokens,
            overlap=overlap,
            cls_id=cls_id,
            sep_id=sep_id,
            kind=kind,
        )

    def __call__(self, text: str) -> list[Window]:
        """All windows of a text, without limits: time and memory grow with it. At least one."""
        return self._part(text, 0)[0]

    def windows(
        self, text: str, max_chars: int | None = None, max_windows: int | None = None
    ) -> Windows:
        """The windows of a text within limits, at least one.

        Of a text longer than ``max_chars`` the first and the last half of that many characters are
        read, and no window joins the two: what an attacker appends to a long text is as likely to
        matter as its beginning. Likewise the first and the last windows stay where there would be
        more than ``max_windows``. Both make the result ``partial``.

        Raises ValueError for a limit below 1.
        """
        if max_chars is not None and max_chars < 1:
            raise ValueError(f"max_chars must be at least 1, not {max_chars}")
        if max_windows is not None and max_windows < 1:
            raise ValueError(f"max_windows must be at least 1, not {max_windows}")
        size = len(text)
        read = size if max_chars is None else min(size, max_chars)
        head = size if read == size else read - read // 2
        found, ranges, tokens = self._part(text[:head], 0)
        if head < read:
            windows, more, count = self._part(text[size - read + head :], size - read + head)
            if count:  # a tail without tokens says nothing; one empty window is enough
                found += windows
                ranges += [(start + tokens, stop + tokens) for start, stop in more]
                tokens += count
        if max_windows is None or len(found) <= max_windows:
            return Windows(tuple(found), tokens, read, size, read < size)
        last = max_windows // 2
        kept = [*range(max_windows - last), *range(len(found) - last, len(found))]
        return Windows(
            tuple(found[i] for i in kept),
            _covered([ranges[i] for i in kept]),
            _covered([(found[i].begin, found[i].end) for i in kept]),
            size,
            True,
        )

    def cut(self, windows: Sequence[Window], borders: Sequence[int]) -> Sequence[Window]:
        """The tokens of a text's windows in windows that no border lies within.

        ``borders``: code points of the text; a token belongs to the side on which it begins, and a
        border before the last one parts nothing. Between two of them the tokens are cut as those of
        a text are, so that each is in a window. Windows stay as they are where they do not have all
        their tokens from one piece of text (see :meth:`windows`).
        """
        first, last = windows[0].source, windows[-1].source
        if not borders or first is None or last is None or first[0] is not last[0]:
            return windows
        tokens, start, offset = first
        stop = last[1] + windows[-1].ids.shape[1] - 2
        found = []
        for border in (*borders, None):
            until = stop if border is None else _token_from(tokens, border - offset, start, stop)
            if until > start:
                found += [self._window(tokens, *r, offset) for r in self._ranges(start, until)]
            start = until
        return found

    def _ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Tokens [start, stop) in windows; the last one is the first that reaches the end."""
        if stop - start <= self._room:
            return [(start, stop)]
        starts = range(start, stop - self._overlap, self._room - self._overlap)
        return [(at, min(at + self._room, stop)) for at in starts]

    def _part(self, text: str, offset: int) -> tuple[list[Window], list[tuple[int, int]], int]:
        """All windows of a text that starts ``offset`` code points into the original, the token
        range of each, and the number of tokens."""
        tokens = self._encode(text)
        ranges = self._ranges(0, len(tokens))
        return [self._window(tokens, *r, offset) for r in ranges], ranges, len(tokens)

    def _window(self, tokens: Tokens, start: int, stop: int, offset: int) -> Window:
        row = tokens.row(start, stop, self._cls, self._sep)
        if start == stop:
            return Window(row, offset, offset)
        begin, end = tokens.token_to_chars(start)[0], tokens.token_to_chars(stop - 1)[1]
        return Window(row, offset + begin, offset + end, (tokens, start, offset))


def _token_from(tokens: Tokens, place: int, low: int, high: int) -> int:
    """The first of tokens [low, high) that begins at ``place`` or later; ``high`` if none does."""
    while low < high:
        middle = (low + high) // 2
        if tokens.token_to_chars(middle)[0] < place:
            low = middle + 1
        else:
            high = middle
    return low


def _covered(ranges: Sequence[tuple[int, int]]) -> int:
    """Size of the union of half-open ranges given in order of their begins."""
    total = reached = 0
    for begin, end in ranges:
        total += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def bucket_by_length(
    windows: Sequence[Window], batch_size: int, max_batch_tokens: int = _BATCH_TOKENS
) -> list[Block]:
    """Group windows of equal token count into blocks that need no padding, shortest first.

    A block has at most ``batch_size`` windows and at most ``max_batch_tokens`` tokens in all, but
    at least one window. Every window is in exactly one block; those of one text keep their order
    within and across blocks of their length, not across lengths. Raises ValueError for a limit
    below 1.
    """
    if batch_size < 1 or max_batch_tokens < 1:
        raise ValueError("batch_size and max_batch_tokens must be at least 1")
    by_length: dict[int, list[int]] = {}
    for position, window in enumerate(windows):
        by_length.setdefault(window.ids.shape[1], []).append(position)
    blocks = []
    for length in sorted(by_length):
        members = by_length[length]
        rows = max(1, min(batch_size, max_batch_tokens // length))
        for start in range(0, len(members), rows):
            index = tuple(members[start : start + rows])
            ids = np.concatenate([windows[i].ids for i in index])
            blocks.append(Block(ids, index))
    return blocks
