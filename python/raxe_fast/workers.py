"""The same work on many items over several threads, results in the order of the items.

Threads, not processes: the tokeniser, both networks and the fused call are C++ that runs without
the interpreter's lock, and threads share one copy of the model. The lock is held for the search for
encoded parts and for making the result: about 3 % of a text's time with raxe-l6-v3, 18 %
with a student of two layers of 128, so it limits neither on two cores.

An interrupt (Ctrl-C) may arrive between any two steps of the main thread. One that arrives while a
lock is taken by Python code, as threading.Condition does and with it Future, Queue,
ThreadPoolExecutor and Thread.start, leaves that lock taken, and the threads wait for it for ever.
So only what is done inside of the interpreter is used here: its locks, SimpleQueue, and
start_new_thread.
"""

from __future__ import annotations

import atexit
import os
import threading
from _thread import start_new_thread
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Generator, Iterator
from operator import attrgetter
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

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


class _Job:
    """An item on its way to a result. ``order`` puts the largest last, of equal ones the oldest."""

    __slots__ = ("begun", "dropped", "ended", "error", "item", "order", "result", "waiter")

    def __init__(self, item: Any, size: int, number: int) -> None:
        self.item = item
        self.order = (size, -number)
        self.begun = self.dropped = self.ended = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.waiter = threading.Lock()  # taken until there is something to be told
        self.waiter.acquire()


_ORDER = attrgetter("order")
_at_work: set[Team[Any, Any]] = set()


@atexit.register
def _stop_all() -> None:
    """Before the interpreter ends, after which no thread can be waited for."""
    for team in list(_at_work):
        team.stop()


def _after_fork() -> None:
    """In a child process the threads are not there, and what locks they held stay taken."""
    for team in list(_at_work):
        team.without_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
        self._pending: deque[_Job] = deque()  # not fetched, in order
        self._open: deque[_Job] = deque()  # likewise, from the first that has not ended
        self._waiting: list[_Job] = []  # those not begun, sorted
        self._calls: SimpleQueue[bool] = SimpleQueue()  # True: there is a job; False: go home
        self._gone: list[threading.Lock] = []  # one a thread, taken while it works
        self._members: set[int] = set()
        self._stopped = False

    def results(self, items: Iterator[Item], lookahead: int) -> Generator[Result, None, None]:
        """``work`` of every item, in the order of the items; for one stream only.

        Nothing is read, nor a thread begun, before the first result is asked for. At most
        ``lookahead`` items are taken whose results have not been fetched, so a slow consumer stops
        the reading; once every thread has work, a result that is there goes out before more is
        read. What ``items`` or ``work`` raises comes after the results of all items before it.
        A stream that is not read to its end drops the items not begun, and waits for the others;
        so do an interrupt and :meth:`stop`, after which it raises :class:`Stopped`. So does one
        that is read on in a forked child process.
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
            ended = None  # its traceback holds this frame
            try:
                self.stop()
            except BaseException:  # an interrupt, just there
                self.stop()
                raise

    def stop(self) -> None:
        """Drop the items that are not begun and wait for the others. From any thread, at any time,
        also twice. A signal handler that arrives in the middle of a step of this team does not
        wait: the step has to end first."""
        inside = self._lock._is_owned()  # type: ignore[attr-defined]
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            self._open.clear()
            for job in self._pending:
                if not job.begun and not job.dropped:
                    job.dropped = True
                    job.waiter.release()
            gone = list(self._gone)
        for _ in range(self._workers):
            self._calls.put(False)
        if inside:
            return
        # A thread of the team cannot wait for itself: see __init__.
        if threading.get_ident() not in self._members:
            for lock in gone:
                with lock:
                    pass
        _at_work.discard(self)

    def without_threads(self) -> None:
        """Stop where there are no threads any more."""
        self._lock = threading.RLock()
        self._gone.clear()
        self._members.clear()
        for job in self._pending:
            job.begun = job.ended  # nobody is at it here
        self.stop()

    def _wants_more(self, lookahead: int) -> bool:
        ready = len(self._pending) > self._workers and self._pending[0].ended
        return not ready and len(self._pending) < lookahead

    def _add(self, item: Item, number: int) -> None:
        job = _Job(item, 0 if self._size is None else self._size(item), number)
        with self._lock:
            if self._stopped:
                raise Stopped
            if not self._gone:
                _at_work.add(self)
            self._pending.append(job)
            self._open.append(job)
            insort(self._waiting, job, key=_ORDER)
            if len(self._gone) < self._workers:
                gone = threading.Lock()
                # First: nobody would wait for a thread that an interrupt keeps from the list.
                self._gone.append(gone)
                start_new_thread(self._obey, (gone,))
        # Not for this job: whichever is best once a thread is free.
        self._calls.put(True)
        if self._stopped:  # by a signal handler, in the middle of this
            raise Stopped

    def _take(self) -> Result:
        job = self._pending[0]
        job.waiter.acquire()
        if job.dropped:
            raise Stopped
        with self._lock:
            self._pending.popleft()
        if job.error is None:
            result: Result = job.result
            return result
        try:
            raise job.error
        finally:
            del job  # its error's traceback holds this frame

    def _obey(self, gone: threading.Lock) -> None:
        # A member before it can be waited for, and until it no longer can. One that begins after
        # `stop` finds nothing to do.
        self._members.add(threading.get_ident())
        with gone:
            while self._calls.get():
                self._do_one()
        self._members.discard(threading.get_ident())

    def _do_one(self) -> None:
        with self._lock:
            job = self._next()
        if job is None:  # stopped
            return
        item, job.item = job.item, None
        try:
            job.result = self._work(item)
        except BaseException as error:
            job.error = error
        job.ended = True
        job.waiter.release()
        del job, item  # the error's traceback holds this frame

    def _next(self) -> _Job | None:
        if not self._waiting:
            return None
        while self._open[0].ended:
            self._open.popleft()
        due = self._open[0]
        place = bisect_left(self._waiting, due.order, key=_ORDER)
        if place < len(self._waiting) and self._waiting[place] is due:
            del self._waiting[place]
            job = due
        else:
            job = self._waiting.pop()
        job.begun = True
        return job
