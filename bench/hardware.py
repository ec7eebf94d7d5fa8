"""The machine and its load, for benchmark records."""

from __future__ import annotations

import os
from pathlib import Path

from raxe_fast.training import hardware as machine

# The instruction sets that decide what an INT8 encoder and the AVX kernels can reach.
ISA_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8")


def isa_flags() -> dict[str, bool | None]:
    """Which of ISA_FLAGS the operating system reports; None where it cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return dict.fromkeys(ISA_FLAGS)
    for line in lines:
        if line.startswith("flags"):
            present = set(line.partition(":")[2].split())
            return {flag: flag in present for flag in ISA_FLAGS}
    return dict.fromkeys(ISA_FLAGS)


def load_average() -> list[float] | None:
    """Runnable processes over 1, 5 and 15 minutes; None where unknown."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def hardware() -> dict[str, object]:
    """JSON-safe: CPU, ISA in use, ISA flags, cores, memory, OS, Python and library versions."""
    return {**machine.hardware(), "isa_flags": isa_flags()}
