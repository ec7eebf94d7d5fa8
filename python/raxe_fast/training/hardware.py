"""What a figure was measured on: CPU, instruction set, cores, memory, OS, library versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["hardware"]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError, AttributeError):
        return None


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform())
    except OSError:
        return platform.platform()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def hardware() -> dict[str, object]:
    """JSON-safe description of this machine; no host name, user name or path."""
    from raxe_fast import _core

    packages = ("raxe-fast", "numpy", "onnxruntime", "tokenizers")
    return {
        "cpu": _cpu_model(),
        "isa": _core.detected_isa(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "memory_gib": _memory_gib(),
        "os": _operating_system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
    }
