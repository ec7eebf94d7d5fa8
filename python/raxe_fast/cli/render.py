"""Verdicts for people: coloured, with reasons, and the text with its triggers highlighted.

Scanned text is hostile: control characters, bidi overrides and lone surrogates are shown as a
placeholder, one for one, so that it can neither drive the terminal nor shift the spans.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from raxe_fast.reasons import plain

if TYPE_CHECKING:
    from raxe_fast.cli.inputs import Item
    from raxe_fast.result import ScanResult

__all__ = ["Renderer", "printable"]

_VERDICT = {"block": ("THREAT", "bold white on red"), "warn": ("WARNING", "bold black on yellow"),
            "allow": ("CLEAN", "bold black on green")}  # fmt: skip
_SEVERITY = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}
_CONTEXT = 160
_EXCERPT = 60
# C0 but newline, C1, invisible and bidi format characters, surrogates, tags.
_UNPRINTABLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    """The text with every unprintable character replaced, of the same length."""
    return _UNPRINTABLE.sub("\N{MIDDLE DOT}", text)


class Renderer:
    """Prints results to a console; counts them for the summary."""

    def __init__(self, console: Console, *, detailed: bool) -> None:
        self._console = console
        self._detailed = detailed
        self._counts = {"block": 0, "warn": 0, "allow": 0}

    def show(self, item: Item, result: ScanResult, *, detailed: bool | None = None) -> None:
        """Print one result: a paragraph if detailed, else a line."""
        self._counts[result.action] += 1
        if self._detailed if detailed is None else detailed:
            self._paragraph(item, result)
        else:
            self._line(item, result)

    def summary(self, bad: int, seconds: float) -> None:
        """The last line, after many texts."""
        counts = self._counts
        self._console.print(
            f"{_count(sum(counts.values()), 'text')} in {seconds:.1f} s: "
            f"{_count(counts['block'], 'threat')}, {_count(counts['warn'], 'warning')}, "
            f"{counts['allow']:,} clean" + (f", {bad:,} unreadable" if bad else ""),
            highlight=False,
        )

    def _line(self, item: Item, result: ScanResult) -> None:
        label, style = _VERDICT[result.action]
        row = Text()
        row.append(f" {label:<7} ", style)
        row.append(f" {result.score:.3f} ")
        if result.status != "ok":
            row.append(f"[{result.status}] ", "magenta")
        row.append(f"{plain(result.family or '-'):<24} ", "bold" if result.is_threat else "dim")
        row.append(f"{printable(item.where)}  ", "dim")
        row.append(printable(item.text[:_EXCERPT].replace("\n", " ")))
        if self._console.is_terminal:
            self._console.print(row, no_wrap=True, overflow="ellipsis", crop=True)
        else:
            self._console.print(row, soft_wrap=True)

    def _paragraph(self, item: Item, result: ScanResult) -> None:
        print_ = self._console.print
        label, style = _VERDICT[result.action]
        head = Text()
        head.append(f" {label} ", style)
        head.append(f"  score {result.score:.3f}")
        if result.family is not None:
            head.append(f"  {plain(result.family)}", "bold")
            if result.subfamily is not None:
                head.append(f" / {plain(result.subfamily)}")
        if result.uncertain:
            head.append("  uncertain", "yellow")
        if result.status != "ok":
            head.append(f"  {result.status}", "magenta")
        head.append(f"  {printable(item.where)}", "dim")
        print_(head, soft_wrap=True)
        for reason in result.reasons:
            print_(f"  - {escape(printable(reason))}", highlight=False, soft_wrap=True)
        quoted = self._quote(item.text, result)
        if quoted.plain.strip():
            print_(quoted, soft_wrap=True)
        total = result.timings.get("total", 0.0) / 1000
        print_(
            Text(
                f"  {result.tokens} tokens, {_read_by(result)}, {total:.1f} ms, {result.model_id}",
                "dim",
            ),
            soft_wrap=True,
        )

    def _quote(self, text: str, result: ScanResult) -> Text:
        """The part of the text that matters, triggers in the colour of their severity."""
        begin, end = _passage(text, result)
        quote = Text(printable(text[begin:end]))
        for trigger in result.triggers:
            low, high = max(trigger.begin, begin), min(trigger.end, end)
            if low < high:
                quote.stylize(
                    f"{_SEVERITY.get(trigger.severity, 'bold')} underline",
                    low - begin,
                    high - begin,
                )
        out = Text("\n").join(Text.assemble(("  | ", "dim"), line) for line in quote.split("\n"))
        if begin > 0:
            out = Text.assemble((f"  ... from character {begin:,}\n", "dim"), out)
        if end < len(text):
            out.append(f"\n  ... {len(text) - end:,} more characters", "dim")
        return out


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _read_by(result: ScanResult) -> str:
    """Which windows were read by the encoder, and which were cleared before."""
    windows = _count(result.windows, "window")
    return f"{windows} (and {result.cleared:,} cleared)" if result.cleared else windows


def _passage(text: str, result: ScanResult) -> tuple[int, int]:
    """Where to quote: around the triggers, else the worst window, else the beginning."""
    if len(text) <= 4 * _CONTEXT:
        return 0, len(text)
    if result.triggers:
        first = result.triggers[0]
        last_end = max(t.end for t in result.triggers if t.begin < first.begin + 3 * _CONTEXT)
        return (
            max(0, first.begin - _CONTEXT),
            min(len(text), min(last_end, first.begin + 6 * _CONTEXT) + _CONTEXT),
        )
    if result.window is not None and result.action != "allow":
        begin = result.window[0]
        return begin, min(result.window[1], begin + 4 * _CONTEXT)
    return 0, 3 * _CONTEXT
