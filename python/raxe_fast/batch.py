"""Scoring many texts with windows of equal token count encoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    from raxe_fast.verdict import Plan
    from raxe_fast.windows import Window

__all__ = ["Batcher", "counts_of", "owners_of", "spans_of"]

_Scored = tuple[list[str], list[Reading], "list[list[_core.TextScore]] | None"]


def owners_of(reading: Reading) -> npt.NDArray[np.uint32]:
    """(windows,) whose window each is: 0 the text's, 1 and on its views'."""
    sizes = [len(part) for part in reading.windows]
    return np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)


def spans_of(reading: Reading) -> npt.NDArray[np.uint32]:
    """(windows, 2) code points of the text, or of the view's text, that each window covers."""
    spans = [(window.begin, window.end) for part in reading.windows for window in part]
    return np.array(spans, dtype=np.uint32).reshape(-1, 2)


def counts_of(reading: Reading) -> npt.NDArray[np.uint32] | None:
    """(parts,) windows that the text and each view have in all; None: those in ``windows``."""
    return None if reading.counts is None else np.array(reading.counts, dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class _Item:
    """A text of a group: the windows to encode of it and of its views, in reading order, and the
    blocks of those that were encoded by themselves (None: they are still to be)."""

    text: str
    reading: Reading
    windows: list[Sequence[Window]]
    blocks: list[npt.NDArray[np.float32]] | None = None

    @property
    def texts(self) -> list[str]:
        return [self.text, *[view.text for view in self.reading.views]]

    @property
    def cleared(self) -> bool:
        """Whether screening has left nothing to score."""
        return self.reading.rules is not None and not any(self.windows)


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
        self._pinned = encoder.pinned
        self._reader = reader
        self._scorer = scorer
        self._batch_size = batch_size
        self._group_windows = max(max_windows, batch_size)

    def score(
        self, texts: Iterator[str], plan: Plan, explain: bool, lookahead: int
    ) -> Iterator[_Scored]:
        """Groups of (texts, readings, scores), in order. Scores are ``None`` where anything went
        wrong: the caller then scans the group's texts one by one. What ``texts`` raises comes after
        the group of all before it."""
        group: list[str] = []
        items: list[_Item] = []
        count = 0
        failed = False
        while True:
            try:
                text = str.__str__(next(texts))
            except StopIteration:
                break
            except Exception:
                if group:
                    yield self._score_group(group, items, plan, explain)
                raise
            group.append(text)
            try:
                with self._pinned():  # but not while `texts` or the consumer is at work
                    items.append(self._item(text, plan, explain))
                count += sum(map(len, items[-1].windows))
            except Exception:
                failed = True
            if failed or len(group) >= lookahead or count >= self._group_windows:
                yield self._score_group(group, None if failed else items, plan, explain)
                group, items, count, failed = [], [], 0, False
        if group:
            yield self._score_group(group, items, plan, explain)

    def _item(self, text: str, plan: Plan, explain: bool) -> _Item:
        reading = Reading(perf_counter_ns(), len(text))
        reading.batched = True
        if not text or text.isspace():
            reading.characters = len(text)
            return _Item(text, reading, [()])
        reader = self._reader
        parts, order = reader.choose(text, reader.tokenise(text, reading, plan), reading, plan)
        stop_at = reader.stop_at(reading, plan, explain)
        if stop_at is not None and len(order) > 1:
            # Which of them are read depends on what the first ones say: not in company.
            blocks, trouble = reader.encode(text, parts, order, reading, stop_at)
            if trouble is not None:
                raise RuntimeError(trouble)
            return _Item(text, reading, list(reading.windows), blocks)
        chosen = set(order)
        windows: list[Sequence[Window]] = [
            [window for i, window in enumerate(part) if (number, i) in chosen]
            for number, part in enumerate(parts)
        ]
        return _Item(text, reading, windows)

    def _score_group(
        self, texts: list[str], items: list[_Item] | None, plan: Plan, explain: bool
    ) -> _Scored:
        if items is None:
            return texts, [], None
        readings = [item.reading for item in items]
        try:
            with self._pinned():
                return texts, readings, self._scores(items, explain or plan.details)
        except Exception:
            return texts, readings, None

    def _scores(self, items: list[_Item], details: bool) -> list[list[_core.TextScore]]:
        # Every text is followed by its views.
        todo = [item for item in items if not item.cleared]
        begun = perf_counter_ns()
        blocks, places = self._encode_windows(todo)
        encode_ns = perf_counter_ns() - begun
        _account(todo, places, encode_ns)
        for item in items:
            if item.cleared:
                item.reading.windows = [[] for _ in item.windows]
        parts = [part for item in todo for part in item.windows]
        spans = [(parts[part][i].begin, parts[part][i].end) for part, i in places]
        counts = [
            count
            for item in todo
            for count in item.reading.counts or [len(part) for part in item.windows]
        ]
        found = iter(
            self._scorer.score(
                blocks,
                np.array([part for part, _ in places], dtype=np.uint32),
                [text for item in todo for text in item.texts],
                details,
                None,
                np.array(spans, dtype=np.uint32).reshape(-1, 2),
                np.array(counts, dtype=np.uint32),
            )
        )
        return [
            (item.reading.rules or []) if item.cleared else [next(found) for _ in item.windows]
            for item in items
        ]

    def _encode_windows(
        self, items: list[_Item]
    ) -> tuple[list[npt.NDArray[np.float32]], list[tuple[int, int]]]:
        """Blocks, and (part, window) of each of their rows; parts are counted over all items."""
        flat: list[Window] = []
        origin: list[tuple[int, int]] = []
        ready: list[npt.NDArray[np.float32]] = []
        places: list[tuple[int, int]] = []
        first = 0
        for item in items:
            own = [
                (first + part, i)
                for part, windows in enumerate(item.windows)
                for i in range(len(windows))
            ]
            if item.blocks is None:
                flat += [window for windows in item.windows for window in windows]
                origin += own
            else:
                ready += item.blocks
                places += own
            first += len(item.windows)
        groups = bucket_by_length(flat, self._batch_size)
        blocks = [self._encode(group.ids) for group in groups]
        return blocks + ready, [origin[i] for group in groups for i in group.index] + places


def _account(items: list[_Item], places: list[tuple[int, int]], encode_ns: int) -> None:
    """Fill in what each text had read; the encoder's time is shared out by tokens."""
    orders: list[list[int]] = [[] for item in items for _ in item.windows]
    for part, index in places:
        orders[part].append(index)
    found = iter(orders)
    shared = [item.blocks is None for item in items]
    tokens = [sum(w.ids.shape[1] for part in item.windows for w in part) for item in items]
    total = sum(count for count, one in zip(tokens, shared, strict=True) if one) or 1
    for item, count, one in zip(items, tokens, shared, strict=True):
        own = [next(found) for _ in item.windows]
        reading = item.reading
        if one:
            reading.encode_ns = encode_ns * count // total
        reading.windows = [
            [part[i] for i in order] for part, order in zip(item.windows, own, strict=True)
        ]
        reading.orders = own if any(order != sorted(order) for order in own) else None
