"""Latency beside another process that is busy, on the same CPU and on another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from stats import Samples, Summary, ratio, turns

__all__ = ["QUIET", "noisy_neighbour"]

QUIET = "no neighbour"
SPIN = "print('ready', flush=True)\nwhile True: pass"
# Two arrays of 128 MB: no cache holds them, so the shared one and the memory bus are taken.
STREAM = (
    "import numpy as np\na = np.ones(1 << 24)\nb = a.copy()\nprint('ready', flush=True)\n"
    "while True: np.copyto(a, b)"
)
SETTLE_SECONDS = 0.005  # from SIGCONT to the neighbour's first instruction


class Neighbour:
    """A busy process pinned to one CPU, stopped until `run(True)`; a context manager's value."""

    def __init__(self, code: str, cpu: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != b"ready":
            self.close()
            raise RuntimeError("the busy process did not start")
        os.sched_setaffinity(self._process.pid, {cpu})
        self.run(False)

    def run(self, busy: bool) -> None:
        self._process.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def _neighbour(code: str, cpu: int) -> Iterator[Neighbour]:
    found = Neighbour(code, cpu)
    try:
        yield found
    finally:
        found.close()


def noisy_neighbour(
    scans: Mapping[str, Callable[[str], Any]], texts: Sequence[str], block: int
) -> dict[str, Any]:
    """Every text once by each of `scans` under each condition, in blocks in rotating order; the
    calling thread is pinned to its first CPU meanwhile.

    Conditions that need a second CPU are left out with the reason where there is none.
    """
    if not hasattr(os, "sched_setaffinity"):
        return {"skipped": "this system does not pin processes"}
    before = os.sched_getaffinity(0)
    mine, *others = sorted(before)
    plans = {"same CPU": (SPIN, mine)}
    if others:
        plans["other CPU"] = (SPIN, others[0])
        plans["other CPU, memory traffic"] = (STREAM, others[0])
    os.sched_setaffinity(0, {mine})
    try:
        with ExitStack() as stack:
            neighbours = {
                name: stack.enter_context(_neighbour(*plan)) for name, plan in plans.items()
            }
            samples = {
                name: _measure(scan, neighbours, texts, block) for name, scan in scans.items()
            }
    finally:
        os.sched_setaffinity(0, before)
    return {
        "unit": "ms",
        "texts": len(texts),
        "left_out": None if others else "this process may use one CPU alone",
        "pipelines": {name: _figures(found) for name, found in samples.items()},
    }


def _measure(
    scan: Callable[[str], Any],
    neighbours: Mapping[str, Neighbour],
    texts: Sequence[str],
    block: int,
) -> dict[str, Samples]:
    samples = {name: np.zeros(len(texts)) for name in (QUIET, *neighbours)}
    now = QUIET
    for turn in turns(list(samples), len(texts), block):
        if turn.pipeline != now:
            if now in neighbours:
                neighbours[now].run(False)
            now = turn.pipeline
            if now in neighbours:
                neighbours[now].run(True)
            time.sleep(SETTLE_SECONDS)
        text = texts[turn.index]
        begin = time.perf_counter_ns()
        scan(text)
        elapsed = time.perf_counter_ns() - begin
        if turn.measured:
            samples[now][turn.index] = elapsed / 1e6
    if now in neighbours:
        neighbours[now].run(False)
    return samples


def _figures(samples: Mapping[str, Samples]) -> dict[str, Any]:
    """By condition: a summary, and how many times slower than without a neighbour."""
    out = {}
    for name, values in samples.items():
        out[name] = {"ms": Summary.of(values).to_dict()}
        if name != QUIET:
            out[name]["times_slower"] = ratio(values, samples[QUIET], paired=True).to_dict()
    return out
