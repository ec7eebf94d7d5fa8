"""The accuracy block of a benchmark record, from the JSON report of `raxe-fast evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COPIED = ("corpus", "policy", "thresholds", "timestamp", "status", "overall", "at_warn")


def accuracy_block(report: Path | None, model_id: str) -> dict[str, Any]:
    """What was measured, `values` for targets.meets_targets, and the report's own flags.

    `values` are computed here from the report's counts. A missing report, or one of another
    model, gives {"skipped": reason} and no value.
    """
    if report is None or not report.is_file():
        return {"skipped": "no accuracy report (--report PATH)"}
    data = json.loads(report.read_text(encoding="utf-8"))
    if data.get("model_id") != model_id:
        return {"skipped": f"{report.name} is of model {data.get('model_id')!r}, not {model_id!r}"}
    # A training run reports on several splits; the test set is the one that counts.
    split = next((name for name in ("test", "dev") if "overall" in data.get(name, {})), None)
    if split is not None:
        data = data[split]
    out = {name: data[name] for name in COPIED if name in data}
    for head in ("family", "subfamily"):
        out[head] = {
            view: data[head][view]
            for view in ("all_attacks", "detected", "end_to_end")
            if view in data[head]
        }
    out["meets_targets"] = data.get("meets_targets")
    out["values"] = _values(data)
    return out


def _values(data: Mapping[str, Any]) -> dict[str, float | None]:
    tp, fp, tn, fn = (int(data["overall"]["confusion"][name]) for name in ("tp", "fp", "tn", "fn"))
    return {
        "binary_f1": _share(2 * tp, 2 * tp + fp + fn),
        "false_positive_rate": _share(fp, fp + tn),
        "false_negative_rate": _share(fn, fn + tp),
        "family_macro_f1": data["family"]["all_attacks"]["macro_f1"],
        "subfamily_macro_f1": data["subfamily"]["all_attacks"]["macro_f1"],
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
