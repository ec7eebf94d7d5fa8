"""The same work on many items over several threads, results in the order of the items.

Threads, not processes: the tokeniser, both networks and the fused call are C++ that runs without
the interpreter's lock, and threads share one copy of the model.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["available_cpus", "in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    items: Iterator[Item], work: Callable[[Item], Result], *, workers: int, lookahead: int
) -> Iterator[Result]:
    """``work`` of every item, on ``workers`` threads, in the order of the items.

    At most ``lookahead`` items are taken whose results have not been fetched, so a slow consumer
    stops the reading. What ``items`` or ``work`` raises comes after the results of all items
    before it. A stream that is not read to its end drops the work that has not begun, and waits
    for what has; so does an interrupt.
    """
    pending: deque[Future[Result]] = deque()
    ended: Exception | None = None
    executor = ThreadPoolExecutor(workers, "raxe-fast-stream")
    try:
        while True:
            # Once all workers are busy a result that is there goes out before more is read.
            while ended is None and len(pending) < lookahead:
                if len(pending) > workers and pending[0].done():
                    break
                try:
                    item = next(items)
                except Exception as error:  # StopIteration, too: it ends the stream
                    ended = error
                    break
                pending.append(executor.submit(work, item))
            if not pending:
                break
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    if ended is not None and not isinstance(ended, StopIteration):
        raise ended
