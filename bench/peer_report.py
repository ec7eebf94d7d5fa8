"""The record of peers.py as a Markdown table and as two plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raxe_fast.training.svg_plots import Axis, Line, standalone, xy_plot

__all__ = ["markdown", "write_plots"]

GOAL_MS = 3.0  # p95 over the natural mix
# Colours that are told apart with any colour vision; raxe-fast's are the strong ones.
COLOURS = ("#d1495b", "#edae49", "#003d5b", "#30638e", "#00798c", "#6a994e", "#8d6cab", "#777777")
STYLE = (
    "svg{background:#fff}.axis{fill:none;stroke:#333}.grid{stroke:#e4e4e4}"
    ".label{font:11px sans-serif;fill:#333}.line{fill:none;stroke-width:1.6}"
    ".goal{stroke:#333;stroke-dasharray:4 3}"
) + "".join(
    f".line.s{i}{{stroke:{colour}}}.dot.s{i}{{fill:{colour}}}" for i, colour in enumerate(COLOURS)
)


def _subject(report: Mapping[str, Any]) -> str | None:
    """The one that the table compares with: the first of ours that answered."""
    compared = {
        name
        for system in report["systems"].values()
        for block in system.get("latency", {}).values()
        for name in block.get("times_slower_than", {})
    }
    return next((name for name in report["systems"] if name in compared), None)


def _times(block: Mapping[str, Any], subject: str | None, figure: str) -> str:
    found = block.get("times_slower_than", {}).get(subject)
    if found is None:
        return ""
    low, high = found[f"{figure}_interval"]
    return f"{found[figure]:.2f} ({low:.2f}-{high:.2f})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), "|---" + "|---:" * (len(head) - 1) + "|", *map(_row, rows), ""]


def markdown(report: Mapping[str, Any]) -> str:
    """The natural mix, the buckets, and what has to be said of each system."""
    systems, subject = report["systems"], _subject(report)
    machine, settings = report["hardware"], report["settings"]
    shown = systems[subject]["title"] if subject else ""
    lines = [
        f"Natural mix: {report['corpus']['texts']} texts of {report['corpus']['name']} (seed "
        f"{report['corpus']['seed']}), {settings['rounds']} round(s), blocks of "
        f"{settings['block']}, {settings['threads']} thread(s); {report['model_id']} on "
        f"{machine['cpu']} ({machine['isa']}, {machine['cores']} cores); load average "
        f"{report['load_average'][0]} to {report['load_average'][-1]}. Whole call, ms.",
        "",
    ]
    rows = []
    for system in systems.values():
        block = system.get("latency", {}).get("all")
        if block is None:
            rows.append([system["title"], f"not run: {system.get('skipped')}", *[""] * 8])
            continue
        ms = block["ms"]
        rows.append(
            [
                system["title"] + (" (gave up)" if "skipped" in system else ""),
                *(f"{ms[key]:.2f}" for key in ("mean", "p50", "p95", "p99")),
                *(_times(block, subject, figure) for figure in ("p50", "p95")),
                f"{system['cpu_cores']:.2f}",
                "" if system["cut_off"] is None else str(system["cut_off"]),
                str(sum(system["errors"].values())),
            ]
        )
    against = f"against {shown}" if shown else ""
    head = ["system", "mean", "p50", "p95", "p99", f"p50 x {against}", f"p95 x {against}"]
    lines += _table([*head, "cores busy", "cut off", "errors"], rows)
    names = [name for name in report["buckets"] if name != "all"]
    rows = []
    for system in systems.values():
        blocks = system.get("latency")
        if blocks:
            found = [blocks.get(name) for name in names]
            cells = [f"{b['ms']['p50']:.2f} / {b['ms']['p95']:.2f}" if b else "" for b in found]
            rows.append([system["title"], *cells])
    head = [f"{name} ({report['buckets'][name]})" for name in names]
    lines += ["p50 / p95 by tokens (texts):", "", *_table(["system", *head], rows)]
    lines += [
        f"- {system['title']}: {'; '.join(said)}."
        for system in systems.values()
        if (said := [*system.get("notes", []), *_reasons(system)])
    ]
    return "\n".join(lines) + "\n"


def _reasons(system: Mapping[str, Any]) -> list[str]:
    kinds = system.get("errors", {}).items()
    errors = [f"{count} x error {kind}" for kind, count in kinds]
    return errors + ([f"not run: {system['skipped']}"] if "skipped" in system else [])


def write_plots(report: Mapping[str, Any], output: Path) -> list[Path]:
    """NAME-cdf.svg and NAME-tokens.svg beside the record NAME.json; none where nothing ran."""
    series = [
        (f"s{i % len(COLOURS)}", system["title"], _floats(system["samples_ms"]))
        for i, system in enumerate(report["systems"].values())
        if "samples_ms" in system
    ]
    if not series:
        return []
    tokens = np.array(report["tokens"] * report["settings"]["rounds"], dtype=np.float64)
    legend = [(style, title) for style, title, _ in series]
    everything = np.concatenate([values for _, _, values in series])
    time_axis = _log_axis("ms, whole call", everything[~np.isnan(everything)])
    shares = [(v / 5, f"{20 * v} %") for v in range(6)]
    cdf = xy_plot(
        "Latency over the natural mix: share of texts that take no longer",
        time_axis,
        Axis("share of texts", 0, 1, shares),
        [
            Line([(GOAL_MS, 0), (GOAL_MS, 1)], "goal"),
            *(Line(_cdf(values), style, steps=True) for style, _, values in series),
        ],
        [*legend, ("goal", f"{GOAL_MS:g} ms, the limit at 95 %")],
    )
    by_tokens = xy_plot(
        "Latency against tokens: median of each group of lengths",
        _log_axis("tokens", tokens),
        time_axis,
        [
            Line(_medians(tokens, values), style, dots=True) for style, _, values in series
        ],
        legend,
    )  # fmt: skip
    written = []
    for name, svg in (("cdf", cdf), ("tokens", by_tokens)):
        path = output.with_name(f"{output.stem}-{name}.svg")
        path.write_text(standalone(svg, STYLE), encoding="utf-8")
        written.append(path)
    return written


def _floats(samples: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if v is None else v for v in samples], dtype=np.float64)


def _log_axis(title: str, values: np.ndarray[Any, np.dtype[np.float64]]) -> Axis:
    """From the decade below the least value to that above the largest."""
    low = math.floor(math.log10(values.min()))
    high = max(math.ceil(math.log10(values.max())), low + 1)
    ticks = [(10.0**k, f"{10.0**k:g}") for k in range(low, high + 1)]
    return Axis(title, 10.0**low, 10.0**high, ticks, log=True)


def _cdf(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[tuple[float, float]]:
    """At most some 400 points: a plot has no more pixels. The largest value is always one."""
    ordered = np.sort(values[~np.isnan(values)])
    step = max(1, len(ordered) // 400)
    at = sorted({*range(0, len(ordered), step), len(ordered) - 1})
    return [(float(ordered[at[0]]), 0.0)] + [
        (float(ordered[i]), (i + 1) / len(ordered)) for i in at
    ]


def _medians(
    tokens: np.ndarray[Any, np.dtype[np.float64]], values: np.ndarray[Any, np.dtype[np.float64]]
) -> list[tuple[float, float]]:
    """(geometric mean of tokens, median) of each half octave of lengths with an answer."""
    good = ~np.isnan(values)
    group = np.floor(2 * np.log2(tokens))
    out = []
    for number in np.unique(group[good]):
        inside = good & (group == number)
        centre = float(np.exp(np.log(tokens[inside]).mean()))
        out.append((centre, float(np.median(values[inside]))))
    return out
