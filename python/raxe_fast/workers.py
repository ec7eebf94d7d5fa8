"""The same work on many items over several threads, results in the order of the items.

Threads, not processes: the tokeniser, both networks and the fused call are C++ that runs without
the interpreter's lock, and threads share one copy of the model. The lock is held for the search for
encoded parts and for making the result: about 3 % of a text's time with raxe-l6-v3, 18 %
with a student of two layers of 128, so it limits neither on two cores.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

__all__ = ["Stopped", "Team", "available_cpus", "default_lookahead"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_lookahead(workers: int) -> int:
    """Items to read ahead, so that one long text keeps the other threads waiting only rarely: with
    fewer than 32 for each the wait shows, on lengths as in the test set."""
    return max(64, 32 * workers)


class Stopped(Exception):
    """The team was stopped; what comes next in the stream was not worked on."""


class _Job(NamedTuple):
    """An item that nobody has begun with; the largest one comes last, of equal ones the oldest."""

    size: int
    age: int  # minus its number: no two are equal, so comparing never gets beyond it
    item: Any
    future: Future[Any]


class Team(Generic[Item, Result]):
    """Threads that do ``work`` on the items of one stream.

    A free thread takes the item whose result is due next, else the largest by ``size`` of those
    read ahead (the oldest of equals): a long text is begun before its turn, so that the others
    seldom wait for it, and none is put off for ever.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        *,
        workers: int,
        size: Callable[[Item], int] | None = None,
    ) -> None:
        self._work = work
        self._workers = workers
        self._size = size
        # Re-entrant: the garbage collector may end a stream in a thread that holds it.
        self._lock = threading.RLock()
        self._pending: deque[Future[Result]] = deque()  # not fetched, in order
        self._open: deque[_Job] = deque()  # likewise, from the first that is not done
        self._waiting: list[_Job] = []  # those not begun, sorted
        self._members: set[int] = set()
        self._executor: ThreadPoolExecutor | None = None
        self._stopped = False

    def results(self, items: Iterator[Item], lookahead: int) -> Generator[Result, None, None]:
        """``work`` of every item, in the order of the items; for one stream only.

        Nothing is read, nor a thread begun, before the first result is asked for. At most
        ``lookahead`` items are taken whose results have not been fetched, so a slow consumer stops
        the reading; once every thread has work, a result that is there goes out before more is
        read. What ``items`` or ``work`` raises comes after the results of all items before it.
        A stream that is not read to its end drops the items not begun, and waits for the others;
        so do an interrupt and :meth:`stop`, after which it raises :class:`Stopped`.
        """
        number = 0
        ended: Exception | None = None
        try:
            while True:
                while ended is None and self._wants_more(lookahead):
                    try:
                        item = next(items)
                    except Exception as error:  # StopIteration, too: it ends the stream
                        ended = error
                        break
                    self._add(item, number)
                    number += 1
                if not self._pending:
                    break
                yield self._take()
            if ended is not None and not isinstance(ended, StopIteration):
                raise ended
        finally:
            self.stop()
            ended = None  # its traceback holds this frame

    def stop(self) -> None:
        """Drop the items that are not begun and wait for the others. From any thread, at any time,
        also twice."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            self._open.clear()
            for future in self._pending:
                future.cancel()  # whoever waits for it is told; not where it has begun
            executor = self._executor
        if executor is not None:
            # A thread of the team cannot wait for itself: see __init__.
            own = threading.get_ident() in self._members
            executor.shutdown(wait=not own, cancel_futures=True)

    def _wants_more(self, lookahead: int) -> bool:
        ready = len(self._pending) > self._workers and self._pending[0].done()
        return not ready and len(self._pending) < lookahead

    def _add(self, item: Item, number: int) -> None:
        size = 0 if self._size is None else self._size(item)
        job = _Job(size, -number, item, Future())
        with self._lock:
            if self._stopped:
                raise Stopped
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._workers, "raxe-fast-stream")
            self._pending.append(job.future)
            self._open.append(job)
            insort(self._waiting, job)
            # Not this job: whichever is best once a thread is free.
            self._executor.submit(self._do_one)

    def _take(self) -> Result:
        future = self._pending[0]
        try:
            result = future.result()
        except CancelledError:
            if future.cancelled():
                raise Stopped from None
            raise
        finally:
            del future  # its error's traceback holds this frame
        with self._lock:
            self._pending.popleft()
        return result

    def _do_one(self) -> None:
        self._members.add(threading.get_ident())
        with self._lock:
            job = self._next()
        if job is None:
            return
        try:
            result = self._work(job.item)
        except BaseException as error:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    def _next(self) -> _Job | None:
        if not self._waiting:  # stopped
            return None
        while self._open[0].future.done():
            self._open.popleft()
        due = self._open[0]
        place = bisect_left(self._waiting, due)
        if place < len(self._waiting) and self._waiting[place] is due:
            del self._waiting[place]
            job = due
        else:
            job = self._waiting.pop()
        return job if job.future.set_running_or_notify_cancel() else None
