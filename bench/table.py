"""The latency report as tables on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

SIGNS = {"below": "<", "above": ">", "at_least": ">="}


def print_report(report: Mapping[str, Any]) -> None:
    """Latency, stage split, resources and limits; plain text when not on a terminal."""
    # A fixed width off the terminal: rich would wrap at 80 columns in a pipe.
    console = Console() if Console().is_terminal else Console(width=132)
    console.print(_heading(report), highlight=False)
    latency = report["latency"]
    sections = {f"{name} tokens": part for name, part in latency["buckets"].items()}
    if "skipped" not in latency["document"]:
        sections[f"{latency['document']['characters']} characters"] = latency["document"]
    if "skipped" in latency["mix"]:
        console.print(f"natural mix: {latency['mix']['skipped']}", highlight=False)
    else:
        sections["natural mix"] = latency["mix"]
    console.print(_latency(sections))
    console.print(_stages(sections))
    if "natural mix" in sections:
        console.print(_waterfall(sections["natural mix"]["splits"]))
    if "skipped" not in report["noisy_neighbour"]:
        console.print(_neighbour(report["noisy_neighbour"]))
    console.print(_resources(report["resources"]), highlight=False)
    console.print(_targets(report["meets_targets"]))


def _heading(report: Mapping[str, Any]) -> str:
    machine = report["hardware"]
    load = machine["load_average"]
    return (
        f"{report['model_id']} on {machine['cpu']} ({machine['isa']}, {machine['cores']} cores), "
        f"threads={report['settings']['threads']}, "
        f"load average {load['start']} -> {load.get('end')}"
    )


def _latency(sections: Mapping[str, Any]) -> Table:
    table = Table(title="one text, ms", title_justify="left")
    table.add_column("input")
    table.add_column("pipeline")
    for name in ("mean", "p50", "p95", "p99", "max", "std", "p50 x", "p95 x"):
        table.add_column(name, justify="right")
    for title, part in sections.items():
        for index, (name, summary) in enumerate(part["pipelines"].items()):
            slower = part["times_slower_than_subject"].get(name)
            table.add_row(
                title if index == 0 else "",
                name,
                *(f"{summary[key]:.2f}" for key in ("mean", "p50", "p95", "p99", "max", "std")),
                f"{slower['p50']:.2f}" if slower else "",
                f"{slower['p95']:.2f}" if slower else "",
                end_section=index == len(part["pipelines"]) - 1,
            )
    return table


def _stages(sections: Mapping[str, Any]) -> Table:
    table = Table(title="raxe-fast by stage, median us", title_justify="left")
    table.add_column("input")
    parts = sections.values()
    stages = list(dict.fromkeys(key for part in parts for key in part["split"]["stages"]))
    for name in (*stages, "outside p50", "share of time"):
        table.add_column(name, justify="right")
    for title, part in sections.items():
        split = part["split"]
        outside = split["outside_encoder_and_tokeniser"]
        table.add_row(
            title,
            *(f"{split['stages'].get(name, {'p50': 0.0})['p50']:.1f}" for name in stages),
            f"{outside['p50_us']:.1f}",
            f"{outside['share_of_time']:.2%}",
        )
    return table


def _waterfall(splits: Mapping[str, Any]) -> Table:
    """Stages from top to bottom; the shares of one scanner add up to 100 % without the total."""
    table = Table(title="natural mix by stage: us p50 / p95 / p99, share", title_justify="left")
    table.add_column("stage")
    for name in splits:
        table.add_column(name, justify="right")
    stages = list(dict.fromkeys(key for split in splits.values() for key in split["stages"]))
    for stage in sorted(stages, key="total".__eq__):  # the total comes last
        cells = []
        for split in splits.values():
            found = split["stages"].get(stage)
            cells.append(
                f"{found['p50']:.0f} / {found['p95']:.0f} / {found['p99']:.0f}  "
                f"{found['share_of_time']:6.1%}"
                if found
                else ""
            )
        table.add_row(stage, *cells)
    return table


def _neighbour(block: Mapping[str, Any]) -> Table:
    title = f"noisy neighbour, {block['texts']} texts of the mix, pinned to one CPU, ms"
    table = Table(title=title, title_justify="left")
    for name in ("pipeline", "neighbour", "mean", "p50", "p95", "p99", "p50 x", "p95 x"):
        table.add_column(name, justify="left" if name in ("pipeline", "neighbour") else "right")
    for name, conditions in block["pipelines"].items():
        for index, (condition, found) in enumerate(conditions.items()):
            slower = found.get("times_slower")
            table.add_row(
                name if index == 0 else "",
                condition,
                *(f"{found['ms'][key]:.2f}" for key in ("mean", "p50", "p95", "p99")),
                f"{slower['p50']:.2f}" if slower else "",
                f"{slower['p95']:.2f}" if slower else "",
                end_section=index == len(conditions) - 1,
            )
    return table


def _resources(resources: Mapping[str, Any]) -> str:
    size = resources["size_mb"]
    lines = [
        f"{name}: import {start['import']['median']:.0f} ms; import + load + first scan "
        f"{start['import_load_first_scan']['median']:.0f} ms (load {start['load']['median']:.0f})"
        for name, start in resources["cold_starts"].items()
    ]
    for name, run in resources["steady"].items():
        memory = run["memory"]
        lines.append(
            f"{name}: RSS {memory['after_load']['VmRSS']:.0f} MB after load, "
            f"{memory['after_scans']['VmRSS']:.0f} MB after {run['scans']} scans (peak "
            f"{memory['after_scans']['VmHWM']:.0f}); CPU {run['cpu_ms_per_scan']:.2f} ms per scan, "
            f"{run['cpu_cores']:.2f} cores busy, {run['scans_per_second']:.1f} scans/s"
        )
    shown = {name: f"{value:.1f} MB" for name, value in size.items() if value is not None}
    lines.append("size: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    return "\n".join(lines)


def _targets(targets: Mapping[str, Any]) -> Table:
    table = Table(title="limits, computed", title_justify="left")
    for name in ("limit", "value", "asked", "met"):
        table.add_column(name, justify="left" if name in ("limit", "met") else "right")
    for name, entry in targets.items():
        if not isinstance(entry, Mapping):
            continue
        sense, sign = next((key, sign) for key, sign in SIGNS.items() if key in entry)
        met = {True: "yes", False: "[red]NO[/red]", None: "not measured"}[entry["met"]]
        value = "" if entry["value"] is None else f"{entry['value']:.4g}"
        table.add_row(name, value, f"{sign} {entry[sense]} {entry['unit']}", met)
    return table
