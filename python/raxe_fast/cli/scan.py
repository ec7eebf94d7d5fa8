"""``raxe-fast scan``: texts in, verdicts out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from raxe_fast.cli.first import (
    add_first_arguments,
    first_misused,
    open_scanner,
    probability,
)
from raxe_fast.cli.inputs import BadInput, Item, read_inputs
from raxe_fast.cli.shared import add_scanner_arguments, positive

if TYPE_CHECKING:
    from raxe_fast.policy import Policy
    from raxe_fast.result import ScanResult
    from raxe_fast.scanner import Scanner
    from raxe_fast.stream import Progress

__all__ = ["add_parser", "run"]

_USAGE = """\
An input is a text, the name of a file, or - for standard input (the default in a pipe).
A .txt file or standard input is one text (--lines: one per line); .jsonl and .csv hold one text
per record (--field). Any of them may be gzipped (.gz). An argument that names an existing file is
read as one; --text takes every argument as a text, whatever it looks like.

Exit codes: 0 every text was read in full and none was blocked (warnings included: "action" tells
them apart), 1 a threat was found, 2 bad usage, some input could not be read (the rest is scanned
and printed all the same), or some text could not be read in full and was not blocked ("status" is
not "ok": too long, too late, or its scan failed). 2 outweighs 1."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "scan",
        help="scan texts: an argument, files, or standard input",
        epilog=_USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="text, file, or -")
    parser.add_argument("--field", default="text", help="field of .jsonl and .csv (default text)")
    parser.add_argument("--lines", action="store_true", help="each line is a text of its own")
    parser.add_argument("--text", action="store_true", help="arguments are texts, never files")
    parser.add_argument(
        "--format",
        choices=("table", "jsonl"),
        help="default: table on a terminal, jsonl in a pipe",
    )
    parser.add_argument("--explain", action="store_true", help="say more about every verdict")
    parser.add_argument(
        "--quiet", action="store_true", help="print no verdicts: the exit code is the answer"
    )
    parser.add_argument("--policy", choices=("balanced", "strict", "quiet"), default="balanced")
    parser.add_argument("--threshold", type=probability, help="block from this score on")
    parser.add_argument("--fail-open", action="store_true", help="allow a text whose scan failed")
    parser.add_argument("--model", help="directory, .raxe archive or installed id")
    add_first_arguments(parser)
    parser.add_argument("--threads", type=positive, default=1, help="encoder threads (default 1)")
    parser.add_argument(
        "--workers", type=positive, default=1, help="texts scanned at a time (default 1)"
    )
    add_scanner_arguments(parser)
    parser.add_argument("--deadline-ms", type=float, help="time for one text")


def run(args: argparse.Namespace) -> int:
    inputs = args.inputs
    if not inputs:
        if sys.stdin is None or sys.stdin.isatty():
            print("raxe-fast scan: nothing to scan: give a text or a file", file=sys.stderr)
            return 2
        inputs = ["-"]

    if first_misused(args, "scan"):
        return 2
    entries = read_inputs(inputs, field=args.field, lines=args.lines, literal=args.text)
    form = args.format or ("table" if sys.stdout.isatty() else "jsonl")
    with _scanner(args) as scanner:
        session = _Session(args.explain, args.workers)
        with _progress(args.quiet) as tell:
            pairs = session.scan(scanner, entries, tell)
            if args.quiet:
                for _ in pairs:
                    pass
            elif form == "jsonl":
                _print_json(pairs)
            else:
                _print_table(pairs, session)
    if session.unread:
        print(f"raxe-fast: {_unread(session.unread)}", file=sys.stderr)
    if session.bad or session.unread:
        return 2
    return 1 if session.threats else 0


def _unread(count: int) -> str:
    texts, were = ("text", "was") if count == 1 else ("texts", "were")
    return f"{count} {texts} could not be read in full, and {were} not blocked"


def _scanner(args: argparse.Namespace) -> Scanner:
    return open_scanner(
        args,
        threads=args.threads,
        policy=_policy(args),
        deadline_ms=args.deadline_ms,
        backend=args.backend,
    )


def _policy(args: argparse.Namespace) -> Policy:
    from raxe_fast.policy import Policy

    return Policy(
        args.policy,
        block_threshold=args.threshold,
        fail_mode="open" if args.fail_open else "closed",
        screening=not args.no_screening,
    )


class _Session:
    """Runs the scan; counts threats, unreadable inputs, and texts of which not all was read (nobody
    may call these clean) as they pass."""

    def __init__(self, explain: bool, workers: int) -> None:
        self.explain = explain
        self.workers = workers
        self.threats = 0
        self.bad = 0
        self.unread = 0

    def scan(
        self, scanner: Scanner, entries: Iterator[Item | BadInput], tell: Progress | None
    ) -> Iterator[tuple[Item, ScanResult]]:
        waiting: deque[Item] = deque()

        def texts() -> Iterator[str]:
            for entry in entries:
                if isinstance(entry, BadInput):
                    self.bad += 1
                    print(f"raxe-fast: {entry.where}: {entry.message}", file=sys.stderr)
                    continue
                waiting.append(entry)
                yield entry.text

        results = scanner.scan_iter(
            texts(), explain=self.explain, workers=self.workers, progress=tell
        )
        for result in results:
            self.threats += result.is_threat
            self.unread += result.status != "ok" and not result.is_threat
            yield waiting.popleft(), result


def _print_json(pairs: Iterator[tuple[Item, ScanResult]]) -> None:
    for item, result in pairs:
        origin: dict[str, Any] = {"source": item.source, "line": item.line}
        if item.id is not None:
            origin["id"] = item.id
        # ASCII: a lone surrogate in a name must not end the output.
        sys.stdout.write(json.dumps(origin | result.to_dict(), allow_nan=False) + "\n")


def _progress(quiet: bool) -> AbstractContextManager[Progress | None]:
    """A counter on standard error if that is a terminal where no verdicts appear."""
    if not sys.stderr.isatty() or (sys.stdout.isatty() and not quiet):
        return nullcontext()
    from raxe_fast.cli.progress import counter

    return counter()


def _print_table(pairs: Iterator[tuple[Item, ScanResult]], session: _Session) -> None:
    from rich.console import Console

    from raxe_fast.cli.render import Renderer

    renderer = Renderer(Console(), detailed=session.explain)
    begun = time.perf_counter()
    # A single text is shown in full, so the first waits until it is known whether more follow.
    first = next(pairs, None)
    if first is None:
        return
    second = next(pairs, None)
    if second is None:
        renderer.show(*first, detailed=True)
        return
    renderer.show(*first)
    renderer.show(*second)
    for item, result in pairs:
        renderer.show(item, result)
    renderer.summary(session.bad, time.perf_counter() - begun)
