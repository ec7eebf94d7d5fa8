"""One piece of work begun before its result is needed."""

from __future__ import annotations

from _thread import start_new_thread
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Ahead"]

Result = TypeVar("Result")


class Ahead(Generic[Result]):
    """Does ``work`` in a thread of its own, or, where none can be begun (a limit of the system, the
    end of the interpreter), at once. A context manager: leaving waits for the work.

    No executor: those refuse work once the main thread has ended, while others still load models.
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._outcomes: SimpleQueue[tuple[Result | None, BaseException | None]] = SimpleQueue()
        self._outcome: tuple[Result | None, BaseException | None] | None = None
        try:
            start_new_thread(self._run, ())
        except RuntimeError:
            self._run()

    def result(self) -> Result:
        """What ``work`` returned; raises what it raised."""
        self._wait()
        assert self._outcome is not None
        result, error = self._outcome
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._outcomes.put((self._work(), None))
        except BaseException as error:
            self._outcomes.put((None, error))

    def _wait(self) -> None:
        if self._outcome is None:
            self._outcome = self._outcomes.get()

    def __enter__(self) -> Ahead[Result]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait()
