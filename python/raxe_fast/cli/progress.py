"""A progress display for work whose end is not known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["counter"]


@contextmanager
def counter() -> Iterator[Callable[[], None]]:
    """Counts texts on standard error; yields the function that counts one."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} texts"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scan", total=None, rate="")

        def advance() -> None:
            progress.advance(task)
            seconds = progress.tasks[0].elapsed or 0.0
            if seconds > 0:
                rate = progress.tasks[0].completed / seconds
                progress.update(task, rate=f"{rate:,.0f} texts/s")

        yield advance
