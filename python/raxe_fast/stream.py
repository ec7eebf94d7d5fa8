"""What every stream of results has, however it is made: it ends with its scanner, and can tell how
far it has come."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from raxe_fast.workers import Stopped

if TYPE_CHECKING:
    from raxe_fast.result import ScanResult

__all__ = ["CLOSED", "Progress", "watched"]

CLOSED = "this scanner is closed"
Progress = Callable[[int, int], object]
_INTERVAL = 0.25  # seconds between two calls of `progress`


def watched(
    results: Generator[ScanResult, None, None],
    is_closed: Callable[[], bool],
    progress: Progress | None,
) -> Iterator[ScanResult]:
    """The results, until the scanner is closed: from then on ``RuntimeError``.

    ``progress`` gets the number of results so far and the characters of their texts, just before a
    result is handed out, at most four times a second; and once more at the end, unless it ends with
    an error. What it raises ends the stream. Ending this ends ``results``.
    """
    texts = characters = 0
    told = monotonic()
    try:
        while True:
            if is_closed():
                raise RuntimeError(CLOSED)
            try:
                result = next(results)
            except StopIteration:
                break
            except Stopped:
                raise RuntimeError(CLOSED) from None
            texts += 1
            characters += result.characters
            if progress is not None and (now := monotonic()) - told >= _INTERVAL:
                told = now
                progress(texts, characters)
            yield result
        if progress is not None:
            progress(texts, characters)
    finally:
        results.close()
