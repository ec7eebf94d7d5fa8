"""Scoring many texts with windows of equal token count encoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from raxe_fast.verdict import Reading
from raxe_fast.windows import bucket_by_length

if TYPE_CHECKING:
    import numpy.typing as npt

    from raxe_fast import _core
    from raxe_fast.encoder import TokenEncoder
    from raxe_fast.reader import Reader
    from raxe_fast.windows import Window

__all__ = ["Batcher", "owners_of", "spans_of"]

_Scored = tuple[list[str], list[Reading], "list[list[_core.TextScore]] | None"]


def owners_of(reading: Reading) -> npt.NDArray[np.uint32]:
    """(windows,) whose window each is: 0 the text's, 1 and on its views'."""
    sizes = [len(part) for part in reading.windows]
    return np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)


def spans_of(reading: Reading) -> npt.NDArray[np.uint32]:
    """(windows, 2) code points of the text, or of the view's text, that each window covers."""
    spans = [(window.begin, window.end) for part in reading.windows for window in part]
    return np.array(spans, dtype=np.uint32).reshape(-1, 2)


class Batcher:
    """Reads texts ahead, encodes their windows in batches, and scores them in one call.

    A group ends at ``lookahead`` texts or when it holds the windows of one long text, so memory
    is bounded by about twice what a single text may need.
    """

    def __init__(
        self,
        encoder: TokenEncoder,
        reader: Reader,
        scorer: _core.Scorer,
        batch_size: int,
        max_windows: int,
    ) -> None:
        self._encode = encoder.encode
        self._reader = reader
        self._scorer = scorer
        self._batch_size = batch_size
        self._group_windows = max(max_windows, batch_size)

    def score(self, texts: Iterator[str], details: bool, lookahead: int) -> Iterator[_Scored]:
        """Groups of (texts, readings, scores), in order. Scores are ``None`` where anything went
        wrong: the caller then scans the group's texts one by one."""
        group: list[str] = []
        readings: list[Reading] = []
        windows: list[list[Sequence[Window]]] = []
        count = 0
        failed = False
        for text in texts:
            text = str.__str__(text)
            reading = Reading(perf_counter_ns(), len(text))
            group.append(text)
            readings.append(reading)
            try:
                windows.append(_windows(self._reader, text, reading))
                count += sum(map(len, windows[-1]))
            except Exception:
                failed = True
            if failed or len(group) >= lookahead or count >= self._group_windows:
                yield self._score_group(group, readings, None if failed else windows, details)
                group, readings, windows, count, failed = [], [], [], 0, False
        if group:
            yield self._score_group(group, readings, windows, details)

    def _score_group(
        self,
        texts: list[str],
        readings: list[Reading],
        windows: list[list[Sequence[Window]]] | None,
        details: bool,
    ) -> _Scored:
        if windows is None:
            return texts, readings, None
        try:
            begun = perf_counter_ns()
            # Every text is followed by its views.
            parts = [part for items in windows for part in items]
            blocks, places = self._encode_windows(parts)
            encode_ns = perf_counter_ns() - begun
            _account(readings, windows, places, encode_ns)
            owners = np.array([part for part, _ in places], dtype=np.uint32)
            spans = [(parts[part][i].begin, parts[part][i].end) for part, i in places]
            everything = [
                item
                for text, reading in zip(texts, readings, strict=True)
                for item in (text, *[view.text for view in reading.views])
            ]
            found = iter(
                self._scorer.score(
                    blocks,
                    owners,
                    everything,
                    details,
                    None,
                    np.array(spans, dtype=np.uint32).reshape(-1, 2),
                )
            )
            scored = [[next(found) for _ in items] for items in windows]
        except Exception:
            return texts, readings, None
        return texts, readings, scored

    def _encode_windows(
        self, parts: list[Sequence[Window]]
    ) -> tuple[list[npt.NDArray[np.float32]], list[tuple[int, int]]]:
        """Blocks, and (part, window) of each of their rows."""
        flat = [window for items in parts for window in items]
        origin = [(part, i) for part, items in enumerate(parts) for i in range(len(items))]
        groups = bucket_by_length(flat, self._batch_size)
        blocks = [self._encode(group.ids) for group in groups]
        return blocks, [origin[i] for group in groups for i in group.index]


def _windows(reader: Reader, text: str, reading: Reading) -> list[Sequence[Window]]:
    if not text or text.isspace():
        reading.characters = len(text)
        return [()]
    return reader.tokenise(text, reading)


def _account(
    readings: list[Reading],
    windows: list[list[Sequence[Window]]],
    places: list[tuple[int, int]],
    encode_ns: int,
) -> None:
    """Fill in what each text had read; the encoder's time is shared out by tokens."""
    orders: list[list[int]] = [[] for items in windows for _ in items]
    for part, index in places:
        orders[part].append(index)
    found = iter(orders)
    tokens = [sum(w.ids.shape[1] for part in items for w in part) for items in windows]
    total = sum(tokens) or 1
    for reading, items, count in zip(readings, windows, tokens, strict=True):
        own = [next(found) for _ in items]
        reading.encode_ns = encode_ns * count // total
        reading.windows = [[part[i] for i in order] for part, order in zip(items, own, strict=True)]
        reading.orders = own if any(order != sorted(order) for order in own) else None
        reading.batched = True
