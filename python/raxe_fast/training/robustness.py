"""How detection holds up where it is hardest: disguised texts, and payloads in long documents.

Both tables compare a text with itself: an encoded attack with the same attack in plain writing, a
payload inside a document with the payload alone. Harmless texts go through the same treatment, so
that a detector that flags every disguise, or every long document, does not look good.

Results hold counts, rates and intervals, never a text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raxe_fast.training.augment_encodings import ENCODINGS
from raxe_fast.training.corpus import Record
from raxe_fast.training.metrics import rate, wilson
from raxe_fast.training.robustness_documents import Placed, build_documents, place
from raxe_fast.training.robustness_encodings import ALL_ENCODINGS, carry
from raxe_fast.training.robustness_results import (
    PLAIN,
    EncodingRow,
    LongDocuments,
    ObfuscationTable,
    PositionRow,
    Robustness,
    RobustnessOptions,
)

if TYPE_CHECKING:
    from raxe_fast import Policy, Scanner, ScanResult

__all__ = ["measure_robustness"]

_RESAMPLES = 2000
_ENDS = (2.5, 97.5)

Bools = NDArray[np.bool_]


@dataclass(slots=True)
class _Flagger:
    """Scans texts under one policy; counts statuses and reports progress."""

    scanner: Scanner
    policy: Policy
    advance: Callable[[int], None]
    status: dict[str, int] = field(default_factory=dict)

    def scan(self, texts: Iterable[str]) -> list[ScanResult]:
        results = []
        for result in self.scanner.scan_iter(texts, policy=self.policy):
            self.status[result.status] = self.status.get(result.status, 0) + 1
            self.advance(1)
            results.append(result)
        return results

    def flags(self, texts: Iterable[str]) -> Bools:
        return np.array([result.is_threat for result in self.scan(texts)], dtype=np.bool_)

    def take_status(self) -> dict[str, int]:
        """The counts so far, sorted; counting starts anew."""
        taken, self.status = dict(sorted(self.status.items())), {}
        return taken


def _draw(texts: Iterable[str], size: int, rng: random.Random) -> list[str]:
    """At most ``size`` different texts, drawn without replacement whatever their order."""
    pool = sorted(set(texts))
    return rng.sample(pool, min(size, len(pool)))


def _rate(flags: Bools) -> dict[str, Any]:
    return rate(int(flags.sum()), len(flags))


def _ratio(plain: Bools, encoded: Bools, seed: int) -> dict[str, Any]:
    """Recall over plain recall of the same texts; None if no plain text was found.

    The interval draws the four paired shares from their posterior under Jeffreys' prior: resampling
    the texts would give it no width where all of them behave alike, however few there are.
    """
    cells = np.bincount(2 * plain.astype(np.int64) + encoded, minlength=4)
    base = int(cells[2] + cells[3])
    if not base:
        return {"value": None, "interval": None}
    value = int(cells[1] + cells[3]) / base
    draws = np.random.default_rng(seed).dirichlet(cells + 0.5, size=_RESAMPLES)
    low, high = np.percentile((draws[:, 1] + draws[:, 3]) / (draws[:, 2] + draws[:, 3]), _ENDS)
    return {"value": value, "interval": [min(float(low), value), max(float(high), value)]}


def _grouped_rate(flags: Bools, seed: int) -> dict[str, Any]:
    """The rate of a (groups, n) table. The interval resamples groups, whose members are alike;
    where all groups have the same rate it is Wilson's with one observation a group."""
    out = _rate(flags.ravel())
    if not flags.size:
        return out
    means = flags.mean(axis=1)
    if means.min() == means.max():
        interval = wilson(round(float(means.sum())), len(means)) or (0.0, 1.0)
    else:
        draws = np.random.default_rng(seed).integers(0, len(means), (_RESAMPLES, len(means)))
        interval = tuple(np.percentile(means[draws].mean(axis=1), _ENDS))
    out["interval"] = [float(end) for end in interval]
    return out


def _obfuscation(
    records: Sequence[Record], options: RobustnessOptions, flagger: _Flagger
) -> ObfuscationTable:
    rng = random.Random(options.seed)
    short = [r for r in records if r.text.strip() and len(r.text) <= options.text_chars]
    attacks = _draw(
        (r.text for r in short if r.label == 1 and r.family not in options.excluded_families),
        options.texts,
        rng,
    )
    benign = _draw(
        (r.text for r in short if r.label == 0 and r.subfamily not in options.excluded_benign),
        len(attacks),
        rng,
    )
    texts = attacks + benign
    is_attack = np.arange(len(texts)) < len(attacks)
    plain = flagger.flags(texts)
    rows = []
    for name, encoder in {PLAIN: None, **ALL_ENCODINGS}.items():
        written = [
            text if encoder is None else encoder(text, random.Random(f"{options.seed}/{name}/{i}"))
            for i, text in enumerate(texts)
        ]
        changed = np.array(
            [encoder is None or a != b for a, b in zip(texts, written, strict=True)], dtype=np.bool_
        )
        kept = [text for text, use in zip(written, changed, strict=True) if use]
        carried = [
            carry(name if encoder else "plain text", text, i)
            for i, (text, use) in enumerate(zip(written, changed, strict=True))
            if use
        ]
        attack = is_attack[changed]
        for carrier in (False, True):
            if encoder is None and not carrier:
                flags = plain
            else:
                flags = flagger.flags(carried if carrier else kept)
            before = plain[changed][attack]
            rows.append(
                EncodingRow(
                    encoding=name,
                    carrier=carrier,
                    augmented=name in ENCODINGS,
                    unchanged=int(np.sum(~changed)),
                    recall=_rate(flags[attack]),
                    plain_recall=_rate(before),
                    # Plain writing is the same as itself: that is no measurement.
                    ratio=_ratio(before, flags[attack], options.seed)
                    if encoder is not None or carrier
                    else {"value": 1.0 if before.any() else None, "interval": None},
                    fpr=_rate(flags[~attack]),
                )
            )
    return ObfuscationTable(len(attacks), len(benign), flagger.take_status(), tuple(rows))


def _payloads(records: Sequence[Record], options: RobustnessOptions, scanner: Scanner) -> list[str]:
    """As many payloads of the wanted length as the documents need, or all there are."""
    low, high = options.payload_tokens
    # No tokenizer makes more than a token of a character; a token of twenty is rare.
    candidates = sorted(
        {
            r.text.strip()
            for r in records
            if r.label == 1
            and r.family in options.payload_families
            and low <= len(r.text.strip()) <= 20 * high
        }
    )
    random.Random(options.seed).shuffle(candidates)
    found: list[str] = []
    for text in candidates:
        if len(found) == options.documents * options.payloads:
            break
        if low <= scanner.scan(text).tokens <= high:
            found.append(text)
    return found


def _overlaps(result: ScanResult, placed: Placed) -> bool:
    window = result.window
    return window is not None and window[0] < placed.end and placed.begin < window[1]


def _long_documents(
    records: Sequence[Record], options: RobustnessOptions, flagger: _Flagger
) -> LongDocuments:
    payloads = _payloads(records, options, flagger.scanner)
    documents = build_documents(
        [r.text for r in records if r.label == 0 and r.subfamily in options.document_subfamilies],
        count=options.documents,
        tokens=options.document_tokens,
        count_tokens=lambda text: flagger.scanner.scan(text).tokens,
        seed=options.seed,
    )
    clean_results = flagger.scan(documents)
    clean = np.array([result.is_threat for result in clean_results], dtype=np.bool_)
    tokens = [result.tokens for result in clean_results]
    alone = flagger.flags(payloads)
    # Fewer payloads than documents: they are used in turn.
    chosen = [
        [payloads[(i * options.payloads + j) % len(payloads)] for j in range(options.payloads)]
        for i in range(len(documents) if payloads else 0)
    ]
    flags = np.zeros((len(chosen), options.positions, options.payloads), dtype=np.bool_)
    located = np.zeros_like(flags)
    actual = np.zeros(flags.shape)
    fractions = [k / (options.positions - 1) for k in range(options.positions)]
    for i, document in enumerate(documents[: len(chosen)]):
        for k, fraction in enumerate(fractions):
            placed = [place(document, payload, fraction) for payload in chosen[i]]
            for j, result in enumerate(flagger.scan(item.text for item in placed)):
                flags[i, k, j] = result.is_threat
                located[i, k, j] = result.is_threat and _overlaps(result, placed[j])
                # A share of the document alone: the payload itself stands on neither side.
                around = len(placed[j].text) - (placed[j].end - placed[j].begin)
                actual[i, k, j] = placed[j].begin / around
    rows = tuple(
        PositionRow(
            position=fraction,
            actual=float(actual[:, k].mean()) if len(chosen) else None,
            recall=_rate(flags[:, k].ravel()),
            located=rate(int(located[:, k].sum()), int(flags[:, k].sum())),
        )
        for k, fraction in enumerate(fractions)
    )
    by_document = flags.reshape(len(chosen), options.positions * options.payloads)
    return LongDocuments(
        documents=len(documents),
        payloads=len(payloads),
        tokens={
            "mean": float(np.mean(tokens)) if tokens else 0.0,
            "least": min(tokens, default=0),
            "most": max(tokens, default=0),
        },
        status=flagger.take_status(),
        recall=_grouped_rate(by_document, options.seed),
        gained=_grouped_rate(by_document[~clean[: len(chosen)]], options.seed),
        short_recall=_rate(alone),
        fpr=_rate(clean),
        rows=rows,
    )


def measure_robustness(
    scanner: Scanner,
    records: Sequence[Record],
    policy: Policy,
    options: RobustnessOptions | None = None,
    *,
    progress: bool = False,
) -> Robustness:
    """Both tables, from the texts of ``records``; the same input gives the same result.

    A corpus without fitting texts gives tables whose rates have the value None. ``progress`` shows
    the number of scans on standard error.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    options = options or RobustnessOptions()
    columns = (
        SpinnerColumn(),
        TextColumn("robustness: {task.completed:,.0f} texts"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not progress) as display:
        task = display.add_task("robustness", total=None)
        flagger = _Flagger(scanner, policy, lambda count: display.advance(task, count))
        return Robustness(
            options,
            _obfuscation(records, options, flagger),
            _long_documents(records, options, flagger),
        )
