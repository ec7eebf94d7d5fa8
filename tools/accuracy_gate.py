"""Fails if an installed model does worse on a sample of dev than its report says.

A sample of dev goes through the installed scanner, with each of the repository's models; recall and
false-positive rate are compared with the counts that the model's report recorded for all of dev.
The gate fails when the recorded rate lies beyond the sample's 99.9 % interval on the bad side, so
it fails on a real loss and not on the luck of the draw. Without the corpus it says so and passes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from math import sqrt
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = 1500
Z = 3.29  # two-sided 99.9 %


def wilson(count: int, total: int) -> tuple[float, float]:
    """99.9 % interval of a rate (Wilson score)."""
    if total == 0:
        return 0.0, 1.0
    rate = count / total
    centre = (rate + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = Z / (1 + Z * Z / total) * sqrt(rate * (1 - rate) / total + Z * Z / (4 * total * total))
    return centre - half, centre + half


def main() -> int:
    corpus = Path(os.environ.get("RAXE_FAST_CORPUS", ROOT.parent / "shared" / "data"))
    dev = corpus / "dev.jsonl.gz"
    if not dev.exists():
        print(f"skipped: no corpus at {corpus}")
        return 0
    reports = sorted((ROOT / "models").glob("*/report.json"))
    if not reports:
        print("there is no models/*/report.json", file=sys.stderr)
        return 1
    return max(check(report, dev) for report in reports)


def check(path: Path, dev: Path) -> int:
    """Exit code for the model with this report."""
    content = json.loads(path.read_text(encoding="utf-8"))
    recorded, model = content["dev"]["overall"], content["model_id"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "report.json"
        command = [sys.executable, "-m", "raxe_fast", "evaluate", "--corpus", str(dev)]
        command += ["--model", model]
        command += ["--sample", str(SAMPLE), "--seed", "7", "--output", str(output), "--quiet"]
        subprocess.run(command, check=True)
        report = json.loads(output.read_text(encoding="utf-8"))
    overall = report["overall"]
    failed = report["failed_scans"] > 0
    for name, worse_is_higher in (("recall", False), ("fpr", True)):
        got, want = overall[name], recorded[name]["value"]
        low, high = wilson(got["count"], got["total"])
        bad = low > want if worse_is_higher else high < want
        failed = failed or bad
        print(
            f"{model} {name}: {got['value']:.4f} ({got['count']} of {got['total']}), "
            f"recorded {want:.4f}, "
            f"99.9 % interval {low:.4f}-{high:.4f}: {'WORSE' if bad else 'ok'}"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
