"""Where the time of a scan goes: `ScanResult.timings` made into a waterfall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decoding import DECODE
from stats import Samples

__all__ = ["stage_split"]

# `first`: all that a small model took of a text that the large one was asked about.
ENCODER_STAGES = ("first", "tokenise", "screen", "encode")
OTHER = "other"


def stage_split(
    results: Sequence[Any], wall: Samples, decoding: Samples | None = None
) -> dict[str, Any]:
    """Microseconds by stage (from ScanResult.timings), and the share outside encoder + tokeniser.

    wall: milliseconds around `scan`, one for each result.
    decoding: microseconds by result that looking for encoded parts takes, measured apart: the
    scanner's own timings have it within `tokenise`, but it is no tokeniser's work and counts as
    outside. None: it is left there. `other` is the part of the wall time around `scan` that no
    stage covers.
    The share is computed against the wall time around `scan`, so that whatever the stages do not
    cover counts as outside. `share_of_time` is over all calls together (long texts weigh more;
    those of the stages add up to 1, `total` apart), `share_p50` and `share_p95` are quantiles of
    the share of one call.
    """
    names = list(dict.fromkeys(name for result in results for name in result.timings))
    stages = {
        name: np.array([result.timings.get(name, 0.0) for result in results]) for name in names
    }
    if decoding is not None:
        stages["tokenise"] = stages["tokenise"] - decoding
        stages = {DECODE: decoding, **stages}
    wall_us = wall * 1e3
    covered = (values for name, values in stages.items() if name != "total")
    stages[OTHER] = wall_us - sum(covered, np.zeros(len(results)))
    absent = np.zeros(len(results))  # texts of white space alone get to no stage
    inside = sum((stages.get(name, absent) for name in ENCODER_STAGES), np.zeros(len(results)))
    share = (wall_us - inside) / wall_us
    statuses = [result.status for result in results]
    return {
        "unit": "us",
        "stages": {name: _figures(values, wall_us) for name, values in stages.items()},
        "outside_encoder_and_tokeniser": {
            "p50_us": round(float(np.percentile(wall_us - inside, 50)), 2),
            "p95_us": round(float(np.percentile(wall_us - inside, 95)), 2),
            "share_of_time": round(float((wall_us - inside).sum() / wall_us.sum()), 5),
            "share_p50": round(float(np.percentile(share, 50)), 5),
            "share_p95": round(float(np.percentile(share, 95)), 5),
        },
        "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
    }


def _figures(values: Samples, wall_us: Samples) -> dict[str, float]:
    p50, p95, p99 = (float(v) for v in np.percentile(values, (50, 95, 99)))
    return {
        "mean": round(float(values.mean()), 2),
        "p50": round(p50, 2),
        "p95": round(p95, 2),
        "p99": round(p99, 2),
        "share_of_time": round(float(values.sum() / wall_us.sum()), 5),
    }
