"""The one-line interface: ``raxe_fast.scan``."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from os import PathLike, fspath
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from raxe_fast.policy import Policy
    from raxe_fast.result import ScanResult
    from raxe_fast.scanner import Scanner

__all__ = ["scan"]

_lock = threading.Lock()
_scanners: dict[str | None, Scanner] = {}


@overload
def scan(  # type: ignore[overload-overlap]  # a str is an iterable of str
    texts: str,
    *,
    model: str | PathLike[str] | None = ...,
    policy: Policy | None = ...,
    explain: bool = ...,
) -> ScanResult: ...


@overload
def scan(
    texts: Iterable[str],
    *,
    model: str | PathLike[str] | None = ...,
    policy: Policy | None = ...,
    explain: bool = ...,
) -> list[ScanResult]: ...


def scan(
    texts: str | Iterable[str],
    *,
    model: str | PathLike[str] | None = None,
    policy: Policy | None = None,
    explain: bool = False,
) -> ScanResult | list[ScanResult]:
    """Scan one text, or each of several, on one thread.

    The first call loads the shipped models, a small one before a large one, or what ``model`` names
    in their place: a directory, a ``.raxe`` archive or an installed id; later calls with the same
    ``model`` reuse it. For threads, deadlines and limits make a :class:`raxe_fast.Scanner`.

    Returns one :class:`~raxe_fast.ScanResult` for a ``str``, a list in the same order for an
    iterable of ``str``. Raises ``TypeError`` for anything else, naming the index, and
    :class:`~raxe_fast.ModelError` if the model cannot be used.
    """
    return _scanner(model).scan(texts, policy=policy, explain=explain)


def _scanner(model: str | PathLike[str] | None) -> Scanner:
    key = None if model is None else fspath(model)
    scanner = _scanners.get(key)
    if scanner is None:
        # One thread loads, the others wait: two copies of a model would cost twice the memory.
        with _lock:
            scanner = _scanners.get(key)
            if scanner is None:
                from raxe_fast.scanner import Scanner

                scanner = _scanners[key] = Scanner(model)
    return scanner
