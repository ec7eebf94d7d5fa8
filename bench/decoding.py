"""How long raxe-fast looks for encoded parts of a text, which the reference pipeline does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from raxe_fast.decode import decoded_views
from raxe_fast.decode_whole import parts_of
from stats import Samples

__all__ = ["DECODE", "decode_times", "views_of"]

DECODE = "decode"  # the stage's name


def decode_times(scan: Callable[[str], Any], texts: Sequence[str], *, rounds: int = 5) -> Samples:
    """(texts,) microseconds, medians of `rounds`. Each follows a scan of the text, so that the
    caches are as they are between scans."""
    out = np.zeros((rounds, len(texts)))
    for row in out:
        for index, text in enumerate(texts):
            scan(text)
            begin = time.perf_counter_ns()
            parts_of(text)
            row[index] = (time.perf_counter_ns() - begin) / 1e3
    medians: Samples = np.median(out, axis=0)
    return medians


def views_of(texts: Sequence[str]) -> int:
    """How many of the texts have encoded parts: raxe-fast encodes what these say, too."""
    return sum(bool(decoded_views(text)) for text in texts)
