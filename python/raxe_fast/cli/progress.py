"""A progress display for work whose end is not known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["counter"]

_AFTER = 0.2  # seconds; shorter work shows nothing


@contextmanager
def counter() -> Iterator[Callable[[int, int], None]]:
    """Shows texts and their rate on standard error; yields the function that is told how many texts
    are done and of how many characters."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} texts"),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    # Rich would otherwise send standard output, the verdicts, to the display's console.
    display = Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
    )
    task = display.add_task("scan", total=None, said="")
    begun = monotonic()

    def tell(texts: int, characters: int) -> None:
        seconds = monotonic() - begun
        if seconds < _AFTER:
            return
        said = f"{characters / 1e6:,.1f} M characters, {texts / seconds:,.0f} texts/s"
        display.update(task, completed=texts, said=said)
        display.start()  # once is enough, again does nothing

    try:
        yield tell
    finally:
        if display.live.is_started:
            display.stop()
