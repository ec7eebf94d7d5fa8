"""Reports on a model directory by the scanner that users run, decoded parts and all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from raxe_fast.training.corpus import Corpus
from raxe_fast.training.evaluate import ALL_FAMILIES_WARN, scan_records
from raxe_fast.training.hardware import hardware
from raxe_fast.training.report import build_report

__all__ = ["scan_reports"]


def scan_reports(
    folder: Path,
    corpora: Sequence[tuple[str, Corpus]],
    model_id: str,
    thresholds: dict[str, float],
    jobs: int = 2,
) -> dict[str, dict[str, Any]]:
    """A report for each named corpus under the balanced policy. One scanner reads ``jobs`` corpora
    at a time: the core and the encoder release the GIL."""
    from raxe_fast import Policy, Scanner

    policy = Policy(block_threshold=thresholds["block"], warn_threshold=ALL_FAMILIES_WARN)
    machine = hardware()
    with Scanner(folder, forest="packed") as scanner, ThreadPoolExecutor(jobs) as pool:

        def report(item: tuple[str, Corpus]) -> dict[str, Any]:
            name, corpus = item
            outcomes = scan_records(
                scanner,
                corpus.records,
                policy,
                warn_threshold=thresholds["warn"],
                progress=False,
            )
            return build_report(
                outcomes,
                model_id=model_id,
                policy="balanced",
                thresholds=thresholds,
                corpus=name,
                hardware=machine,
                extra={"method": "the scanner, as it runs in the wheel"},
            )

        found = pool.map(report, corpora)
        return {name: item for (name, _), item in zip(corpora, found, strict=True)}
