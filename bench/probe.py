"""One measurement in a fresh process; prints one JSON object. Started by latency.py.

    probe.py import                                      wall time of `import raxe_fast`
    probe.py first MODEL TEXT                            import + load + first scan
    probe.py steady PIPELINE MODEL SCANS TEXTS.jsonl     memory, CPU time and rate of SCANS scans

PIPELINE: raxe-fast (threads=1) or reference. MODEL: a directory; for raxe-fast it may be empty
(the shipped model). TEXTS.jsonl: one JSON string per line. Times in milliseconds, memory in MB
(10^6 bytes).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def rss() -> dict[str, float]:
    """VmRSS (now) and VmHWM (highest so far) of this process, MB."""
    out = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            out[name] = round(int(value.split()[0]) * 1024 / 1e6, 2)
    return out


def probe_import() -> dict[str, object]:
    begin = time.perf_counter_ns()
    import raxe_fast  # noqa: F401

    return {"import_ms": (time.perf_counter_ns() - begin) / 1e6, "modules": len(sys.modules)}


def probe_first(model: str, text: str) -> dict[str, object]:
    begin = time.perf_counter_ns()
    import raxe_fast

    imported = time.perf_counter_ns()
    scanner = raxe_fast.Scanner(model or None)
    loaded = time.perf_counter_ns()
    result = scanner.scan(text)
    end = time.perf_counter_ns()
    return {
        "import_ms": (imported - begin) / 1e6,
        "load_ms": (loaded - imported) / 1e6,
        "scan_ms": (end - loaded) / 1e6,
        "total_ms": (end - begin) / 1e6,
        "status": result.status,
    }


def load_pipeline(pipeline: str, model: str) -> Callable[[str], object]:
    if pipeline == "reference":
        from reference import ReferencePipeline

        return ReferencePipeline(Path(model)).scan
    import raxe_fast

    return raxe_fast.Scanner(model or None, threads=1).scan


def probe_steady(pipeline: str, model: str, scans: int, texts_file: str) -> dict[str, object]:
    memory = {"interpreter": rss()}
    scan = load_pipeline(pipeline, model)
    memory["after_load"] = rss()
    wall = cpu = 0
    done = 0
    # Read line by line: a list of all texts would be counted as the scanner's memory.
    with open(texts_file, encoding="utf-8") as lines:
        while done < scans:
            line = lines.readline()
            if not line:
                lines.seek(0)
                continue
            text = json.loads(line)
            wall_begin, cpu_begin = time.perf_counter_ns(), time.process_time_ns()
            scan(text)
            cpu += time.process_time_ns() - cpu_begin
            wall += time.perf_counter_ns() - wall_begin
            done += 1
            if done == 100:
                memory["after_100_scans"] = rss()
    memory["after_scans"] = rss()
    return {
        "scans": done,
        "memory": memory,
        "cpu_ms_per_scan": cpu / done / 1e6,
        "wall_ms_per_scan": wall / done / 1e6,
        "cpu_cores": cpu / wall,
        "scans_per_second": done / (wall / 1e9),
    }


def main(arguments: list[str]) -> int:
    kind, *rest = arguments
    if kind == "import":
        result = probe_import()
    elif kind == "first":
        result = probe_first(*rest)
    elif kind == "steady":
        result = probe_steady(rest[0], rest[1], int(rest[2]), rest[3])
    else:
        raise SystemExit(f"unknown probe: {kind}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
