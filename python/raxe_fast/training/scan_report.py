"""Reports on a model directory by the scanner that users run, decoded parts and all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raxe_fast.policy import PRESETS
from raxe_fast.training.corpus import Corpus
from raxe_fast.training.evaluate import ALL_FAMILIES_WARN, scan_records
from raxe_fast.training.hardware import hardware
from raxe_fast.training.metrics import count
from raxe_fast.training.report import build_report, rates_at

if TYPE_CHECKING:
    from raxe_fast import Scanner

__all__ = ["preset_rates", "scan_reports"]


def scan_reports(
    folder: Path,
    corpora: Sequence[tuple[str, Corpus]],
    model_id: str,
    thresholds: dict[str, float],
    jobs: int = 2,
) -> dict[str, dict[str, Any]]:
    """A report for each named corpus under the balanced policy; that of the last one also has the
    rates of every preset. One scanner reads ``jobs`` corpora at a time: the core and the encoder
    release the GIL."""
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
        presets = pool.map(lambda name: preset_rates(scanner, corpora[-1][1], name), PRESETS)
        reports = {name: item for (name, _), item in zip(corpora, found, strict=True)}
        reports[corpora[-1][0]]["presets"] = dict(zip(PRESETS, presets, strict=True))
        return reports


def preset_rates(scanner: Scanner, corpus: Corpus, preset: str) -> dict[str, Any]:
    """False-positive and false-negative rate of a preset as it comes, of its blocks, and of blocks
    and warnings together (``at_warn``)."""
    from raxe_fast import Policy

    actions = [
        result.action
        for result in scanner.scan_iter(
            (record.text for record in corpus.records), policy=Policy(preset)
        )
    ]
    labels = np.array([record.label for record in corpus.records], dtype=np.int64)
    return rates_at(
        count(labels, np.array([action == "block" for action in actions])),
        count(labels, np.array([action != "allow" for action in actions])),
    )
