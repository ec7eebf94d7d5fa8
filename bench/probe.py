"""One measurement in a fresh process; prints one JSON object. Started by latency.py
and throughput.py.

    probe.py import                                      wall time of `import raxe_fast`
    probe.py first MODEL BACKEND TEXT                    import + load + first scan
    probe.py steady BACKEND MODEL SCANS TEXTS.jsonl      memory, CPU time and rate of SCANS scans
    probe.py stream BACKEND MODEL BATCH WORKERS TEXTS.jsonl
                                                         says "ready", waits for a line on stdin,
                                                         then time to scan all texts once

BACKEND: of raxe-fast (threads=1); for steady also "reference". MODEL: a directory; for raxe-fast it
may be empty (the shipped model). BATCH: 0 for `Scanner.scan` in a loop, else the batch_size of
`Scanner.scan_iter`; WORKERS: its threads. TEXTS.jsonl: one JSON string per line. Times in
milliseconds, memory in MB (10^6 bytes).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def probe_first(model: str, backend: Any, text: str) -> dict[str, object]:
    begin = time.perf_counter_ns()
    import raxe_fast

    imported = time.perf_counter_ns()
    scanner = raxe_fast.Scanner(model or None, backend=backend)
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


def load_pipeline(backend: Any, model: str) -> Callable[[str], object]:
    if backend == "reference":
        from reference import ReferencePipeline

        return ReferencePipeline(Path(model)).scan
    import raxe_fast

    return raxe_fast.Scanner(model or None, threads=1, backend=backend).scan


def probe_steady(backend: str, model: str, scans: int, texts_file: str) -> dict[str, object]:
    memory = {"interpreter": rss()}
    scan = load_pipeline(backend, model)
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


def probe_stream(
    backend: Any, model: str, batch: int, workers: int, texts_file: str
) -> dict[str, object]:
    import raxe_fast

    scanner = raxe_fast.Scanner(model or None, threads=1, backend=backend, batch_size=max(batch, 1))
    with open(texts_file, encoding="utf-8") as lines:
        texts = [json.loads(line) for line in lines]
    # The first texts once unmeasured, so that memory is allocated and code is there.
    for _ in scanner.scan_iter(texts[:32]):
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    if batch:
        statuses = [result.status for result in scanner.scan_iter(iter(texts), workers=workers)]
    else:
        statuses = [scanner.scan(text).status for text in texts]
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    return {
        "texts": len(statuses),
        "not_ok": sum(status != "ok" for status in statuses),
        "wall_ms": wall / 1e6,
        "cpu_ms": cpu / 1e6,
        "memory": rss(),
    }


def main(arguments: list[str]) -> int:
    kind, *rest = arguments
    if kind == "import":
        result = probe_import()
    elif kind == "first":
        result = probe_first(*rest)
    elif kind == "steady":
        result = probe_steady(rest[0], rest[1], int(rest[2]), rest[3])
    elif kind == "stream":
        result = probe_stream(rest[0], rest[1], int(rest[2]), int(rest[3]), rest[4])
    else:
        raise SystemExit(f"unknown probe: {kind}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
