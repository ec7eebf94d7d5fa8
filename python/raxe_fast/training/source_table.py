"""The leave-sources-out report as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_sources"]


def print_sources(report: dict[str, Any], console: Console) -> None:
    """Recall of the attack sources and FPR of the harmless ones, worst first, and the medians."""
    from rich.markup import escape
    from rich.table import Table

    for label, name, order in ((1, "recall", 1), (0, "FPR", -1)):
        table = Table("source", name, "count", "95 % interval", title=f"{name} of unseen sources")
        rows = [row for row in report["sources"] if row["label"] == label]
        for row in sorted(rows, key=lambda row: order * row["value"]):
            low, high = row["interval"]
            table.add_row(
                escape(row["source"]),
                f"{100 * row['value']:.1f} %",
                f"{row['count']} of {row['total']}",
                f"{100 * low:.1f}-{100 * high:.1f} %",
            )
        console.print(table)
    table = Table("figure", "value", title="unseen sources, threshold at 1 % FPR on seen ones")
    for name in ("median_recall", "worst_recall", "median_fpr", "worst_fpr"):
        value = report[name]
        table.add_row(name.replace("_", " "), "-" if value is None else f"{100 * value:.1f} %")
    console.print(table)
