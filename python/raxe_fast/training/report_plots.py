"""The plots of a report: its counts made into points for svg_plots."""

from __future__ import annotations

import math
from typing import Any

from raxe_fast.training.svg_plots import Axis, Bars, Line, Whisker, interval_plot, xy_plot

__all__ = [
    "encodings_plot",
    "histogram_plot",
    "positions_plot",
    "precision_recall_plot",
    "reliability_plot",
    "roc_plot",
]

_LEAST_FPR = 1e-4
_FIFTHS = [(value / 5, f"{20 * value} %") for value in range(6)]


def _share(title: str) -> Axis:
    return Axis(title, 0, 1, _FIFTHS)


def roc_plot(points: dict[str, Any], confusion: dict[str, int]) -> str:
    """Recall over the false-positive rate (logarithmic from 1e-4); the policy's point as a dot.

    Steps go right, then up: between two points of a thinned curve nothing better is claimed than
    was seen. Both classes must be present.
    """
    attack, benign = points["attack"], points["benign"]
    curve = [(0.0, 0.0)] + [
        (fp / benign, tp / attack) for tp, fp in zip(points["tp"], points["fp"], strict=True)
    ]
    here = (confusion["fp"] / benign, confusion["tp"] / attack)
    ticks = [(10.0**k, f"{100 * 10.0**k:g} %") for k in range(-4, 1)]
    return xy_plot(
        "ROC curve",
        Axis("false-positive rate", _LEAST_FPR, 1, ticks, log=True),
        _share("recall"),
        [Line(curve, steps=True), Line([here], "s2", dots=True)],
    )


def precision_recall_plot(points: dict[str, Any], confusion: dict[str, int]) -> str:
    """Precision over recall; the policy's point as a dot, if it flags anything."""
    attack = points["attack"]
    pairs = [(tp, fp) for tp, fp in zip(points["tp"], points["fp"], strict=True) if tp + fp]
    items = [Line([(tp / attack, tp / (tp + fp)) for tp, fp in pairs])]
    tp, fp = confusion["tp"], confusion["fp"]
    if tp + fp:
        items.append(Line([(tp / attack, tp / (tp + fp))], "s2", dots=True))
    return xy_plot("Precision and recall", _share("recall"), _share("precision"), items)


def reliability_plot(bins: list[dict[str, Any]]) -> str:
    """Share of attacks over the mean score of each bin, with the diagonal."""
    spans = [(item["mean_score"], *item["attacks"]["interval"]) for item in bins]
    points = [(item["mean_score"], item["attacks"]["value"]) for item in bins]
    return xy_plot(
        "Reliability diagram",
        _share("score"),
        _share("share of attacks"),
        [Line([(0, 0), (1, 1)], "dash"), Whisker(spans), Line(points, dots=True)],
    )


def histogram_plot(histogram: dict[str, Any], thresholds: dict[str, float]) -> str:
    """Texts by score and label on a logarithmic axis, thresholds as broken lines."""
    edges = histogram["edges"]
    most = max([*histogram["attack"], *histogram["benign"], 1])
    top = 10.0 ** math.ceil(math.log10(most + 1))
    ticks = [(10.0**k, f"{10**k:,}") for k in range(int(math.log10(top)) + 1)]

    def bars(label: str, style: str) -> Bars:
        heights = histogram[label]
        return Bars(
            [(a, b, n) for a, b, n in zip(edges, edges[1:], heights, strict=False) if n], style
        )

    return xy_plot(
        "Scores by label",
        _share("score"),
        # From a half, so that a single text can be seen.
        Axis("texts", 0.5, top, ticks, log=True),
        [
            bars("benign", "s2"),
            bars("attack", "s1"),
            Whisker([(value, 0.5, top) for value in thresholds.values()], "dash"),
        ],
    )


def encodings_plot(rows: list[dict[str, Any]]) -> str:
    """Recall by encoding, alone (s1) and in a carrier sentence (s2)."""
    points: dict[str, list[tuple[float, float, float, str]]] = {}
    for row in rows:
        item = row["recall"]
        named = points.setdefault(row["encoding"], [])
        if item["value"] is not None:
            named.append((item["value"], *item["interval"], "s2" if row["carrier"] else "s1"))
    return interval_plot("Recall by encoding", list(points.items()))


def positions_plot(found: dict[str, Any]) -> str:
    """Recall by position of the payload, and that of the payloads alone as a broken line."""
    rows = [row for row in found["rows"] if row["recall"]["value"] is not None]
    items: list[Line | Bars | Whisker] = []
    alone = found["short_recall"]["value"]
    if alone is not None:
        items.append(Line([(0, alone), (1, alone)], "dash"))
    items.append(Whisker([(row["position"], *row["recall"]["interval"]) for row in rows]))
    items.append(Line([(row["position"], row["recall"]["value"]) for row in rows], dots=True))
    return xy_plot(
        "Recall by position", _share("position in the document"), _share("recall"), items
    )
