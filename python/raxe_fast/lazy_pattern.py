"""Regular expressions that are compiled when they are first used.

Most of those in here are for texts that are encoded one way or another, which most texts are not.
To compile them all takes 17 ms, a twentieth of the start; the first text that needs some of them
takes 0.3 to 5 ms longer.
"""

from __future__ import annotations

import re
from typing import Any, cast

__all__ = ["lazy"]

_METHODS = ("search", "match", "fullmatch", "findall", "finditer", "split", "sub", "subn")


class _Lazy:
    """Stands for a pattern: takes over its methods at the first use of one of them."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern, self.flags = pattern, flags

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(name)
        compiled = re.compile(self.pattern, self.flags)
        # Found before this method from now on. Two threads may do this at a time: both do the same.
        self.__dict__.update((method, getattr(compiled, method)) for method in _METHODS)
        return self.__dict__[name]


def lazy(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """What ``re.compile`` gives for a pattern that is known to be right, as far as its methods and
    ``pattern`` go: a mistake in it would only show at its first use."""
    return cast("re.Pattern[str]", _Lazy(pattern, flags))
